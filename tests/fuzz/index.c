/* Any bytes as the listings of two layers: an index is made of them, or an error. The index is walked as the kernel walks it:
 * whatever the listings say, each number in it leads to what is there. The first two bytes of the input are the length of the
 * first listing. */
#include "fuzz.h"
#include "indexes/stack.h"

#include <sys/mman.h>

enum { TAR = 1 << 16, BLOCK = 512, SUPER = 1024, INODE = 64, LAYERS = 2, MOST = 4096 };

static int image;
static uint64_t image_end;

static void read_at(uint64_t at, uint8_t *data, size_t length) {
    must(at + length <= image_end && at + length >= at);
    must(pread(image, data, length, (off_t)at) == (ssize_t)length);
}

static uint64_t number(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    while (bytes--)
        value = value << 8 | at[bytes];
    return value;
}

struct found {
    uint64_t place, size, nid;
    unsigned layout, type;
    uint32_t word, links;
    uint64_t behind; /* its xattrs end there */
};

static void look_at_xattrs(uint64_t at, uint64_t end) {
    uint8_t head[4];
    for (at += 12; at < end;) {
        read_at(at, head, sizeof head);
        must(head[1] && head[1] <= 6);
        at += 4 + head[0] + number(head + 2, 2);
        at = (at + 3) & ~(uint64_t)3;
    }
    must(at == end);
}

static struct found look_at(uint64_t base, uint64_t nid) {
    struct found found = {.nid = nid, .place = base + nid * 32};
    uint8_t inode[INODE];
    read_at(found.place, inode, INODE);
    must(inode[0] & 1 && !inode[1] && inode[0] < 16);
    found.layout = inode[0] >> 1;
    found.type = (unsigned)number(inode + 4, 2) & S_IFMT;
    found.size = number(inode + 8, 8);
    found.word = (uint32_t)number(inode + 16, 4);
    found.links = (uint32_t)number(inode + 44, 4);
    must(found.size <= INT64_MAX && found.links && number(inode + 40, 4) < 1000000000);
    uint64_t xattrs = number(inode + 2, 2);
    found.behind = found.place + INODE + (xattrs ? 12 + 4 * (xattrs - 1) : 0);
    if (xattrs)
        look_at_xattrs(found.place + INODE, found.behind);
    return found;
}

static void look_at_chunks(const struct found *file) {
    uint8_t place[8];
    unsigned bits = 9 + (file->word & 31);
    must((file->word & ~31u) == 0x20 && bits <= 40);
    uint64_t at = (file->behind + 7) & ~(uint64_t)7, chunk = (uint64_t)1 << bits,
             count = ((file->size - 1) >> bits) + 1;
    must(file->size && count <= 1 << 20);
    for (uint64_t i = 0; i < count && i < MOST; i++) {
        read_at(at + 8 * i, place, sizeof place);
        uint64_t device = number(place + 2, 2), block = number(place + 4, 4);
        uint64_t length = file->size - i * chunk < chunk ? file->size - i * chunk : chunk;
        must(device <= LAYERS);
        must(block == UINT32_MAX || block * BLOCK + length <= (device ? TAR : image_end));
    }
}

static void look_at_symlink(const struct found *link) {
    uint8_t words[4096];
    must(link->size && link->size < sizeof words);
    uint64_t at = link->layout == 2 ? link->behind : (uint64_t)link->word * BLOCK;
    must(link->layout == 0 || (link->layout == 2 && at / BLOCK == (at + link->size - 1) / BLOCK));
    read_at(at, words, link->size);
    must(!memchr(words, 0, link->size));
}

static struct found folders[MOST];

/* What is in a directory: in order, none twice, each name one that a file can have. */
static size_t look_into(uint64_t base, const struct found *folder, size_t count) {
    uint8_t block[BLOCK], last[256];
    size_t last_length = 0, dots = 0, links = 2;
    must(folder->layout == 0 && folder->size);
    for (uint64_t at = 0; at < folder->size; at += BLOCK) {
        size_t length = folder->size - at < BLOCK ? folder->size - at : BLOCK;
        read_at((uint64_t)folder->word * BLOCK + at, block, length);
        size_t entries = number(block + 8, 2) / 12;
        must(number(block + 8, 2) == entries * 12 && entries && entries * 12 < length);
        for (size_t i = 0; i < entries; i++) {
            const uint8_t *entry = block + 12 * i;
            size_t begin = number(entry + 8, 2), end = i + 1 < entries ? number(entry + 20, 2) : length;
            must(begin < end && end <= length);
            size_t size = i + 1 < entries ? end - begin : strnlen((char *)block + begin, end - begin);
            must(size && size < 256 && !memchr(block + begin, 0, size) && !memchr(block + begin, '/', size));
            int order = memcmp(last, block + begin, size < last_length ? size : last_length);
            must(order < 0 || (order == 0 && last_length < size));
            memcpy(last, block + begin, last_length = size);
            struct found found = look_at(base, number(entry, 8));
            bool dot = size <= 2 && !memcmp(block + begin, "..", size);
            static const unsigned types[] = {0, S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, 0, S_IFLNK};
            must(entry[10] < 8 && types[entry[10]] == found.type);
            dots += dot;
            if (dot)
                must(found.type == S_IFDIR);
            else if (found.type == S_IFDIR) {
                links++;
                if (count < MOST)
                    folders[count++] = found;
            } else if (found.type == S_IFREG) {
                must(found.layout == 4 || (!found.size && found.layout == 0));
                if (found.layout == 4)
                    look_at_chunks(&found);
            } else if (found.type == S_IFLNK)
                look_at_symlink(&found);
        }
    }
    must(dots == 2 && links == folder->links);
    return count;
}

static void walk(void) {
    uint8_t super[128];
    image_end = (uint64_t)lseek(image, 0, SEEK_END);
    read_at(SUPER, super, sizeof super);
    must(number(super, 4) == 0xE0F5E1E2 && super[12] == 9 && number(super + 86, 2) == LAYERS);
    must(number(super + 36, 4) * BLOCK <= image_end);
    uint64_t base = number(super + 40, 4) * BLOCK;
    size_t count = 1;
    folders[0] = look_at(base, number(super + 14, 2));
    must(folders[0].type == S_IFDIR);
    for (size_t i = 0; i < count; i++)
        count = look_into(base, &folders[i], count);
}

static void make_tar(void) {
    static bool made;
    if (made)
        return;
    int fd = open("tar", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && ftruncate(fd, TAR) == 0 && pwrite(fd, "data", 4, 5000) == 4 && close(fd) == 0);
    made = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    size_t length = input_byte(&input);
    length |= (size_t)input_byte(&input) << 8;
    if (length > input_left(&input))
        length = input_left(&input);
    make_tar();
    struct ls_failure failure;
    struct ls_stack *stack = ls_stack_new();
    image = memfd_create("image", MFD_CLOEXEC);
    must(stack && image >= 0);
    int rc = ls_stack_add(stack, input.at, length, "tar", TAR);
    rc = rc ? rc : ls_stack_add(stack, input.at + length, input_left(&input) - length, "tar", TAR);
    if (!rc) {
        must(!ls_stack_is_symlink(stack, "") && ls_stack_is_symlink(stack, "d/s") <= 1);
        rc = ls_stack_write(stack, image);
    }
    if (rc) {
        ls_stack_failure(stack, &failure);
        must(failure.code == -rc && failure.what);
        must(failure.kind != LS_FAIL_SYSTEM || !strcmp(failure.what, "setxattr")); /* what the kernel would not take */
    } else
        walk();
    ls_stack_free(stack);
    close(image);
    return 0;
}
