/* The image as a whole: every inode gets its place, then all is written from front to end. See image.h. */
#define _GNU_SOURCE
#include "image.h"

#include "../tar/disk.h"

#include <linux/limits.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUPER = 1024, SUPER_SIZE = 128, SLOT_SIZE = 128, PAGE = 4096 };
enum { FLAT_PLAIN = 0, FLAT_INLINE = 2, CHUNK_BASED = 4 };
enum { CHUNKED_FILE = 4, DEVICE_TABLE = 8 };
static const uint32_t MAGIC = 0xE0F5E1E2;

struct places {
    LS_ARRAY(struct ls_inode *);
};

/* --- places ------------------------------------------------------------------------------------------------------- */

static int64_t own_size(const struct ls_inode *inode) {
    return LS_INODE_SIZE + (int64_t)inode->xattrs_size;
}

/* Of a symlink: do its words lie behind it? Not across the end of a block. */
static bool is_inline(const struct ls_inode *inode) {
    int64_t begin = (int64_t)inode->nid * LS_INODE_ROOM + own_size(inode), end = begin + (int64_t)inode->words.length;
    return inode->type == LS_SYMLINK && begin >> LS_BLOCK_BITS == (end - 1) >> LS_BLOCK_BITS;
}

static int64_t behind(const struct ls_inode *inode) {
    if (inode->type == LS_REGULAR && inode->chunk_bits)
        return ls_round_up(own_size(inode), 8) + 8 * ls_chunks_count(inode);
    return own_size(inode) + (is_inline(inode) ? (int64_t)inode->words.length : 0);
}

static int plan(struct ls_stack *stack, struct ls_inode *inode) {
    if (inode->type == LS_SYMLINK && inode->words.length >= PATH_MAX)
        return ls_stack_refuse(stack, inode, "a symlink leads to more than 4,095 bytes");
    int rc = ls_xattrs_plan(stack, inode);
    if (rc)
        return rc;
    return inode->type == LS_DIRECTORY ? ls_folder_plan(stack, inode) : ls_chunks_plan(stack, inode);
}

/* All inodes that have a name, parents first, each once and with its number. */
static int number_all(struct ls_stack *stack, struct places *all, int64_t *at) {
    struct ls_inode *root = stack->root->inode;
    root->links = 2;
    if (ls_array_add(all, root))
        return ls_fail(&stack->failure, "malloc", -ENOMEM);
    for (size_t i = 0; i < all->count; i++) {
        struct ls_inode *inode = all->list[i];
        int rc = plan(stack, inode);
        if (rc)
            return rc;
        inode->nid = (uint64_t)*at / LS_INODE_ROOM;
        *at = ls_round_up(*at + behind(inode), LS_INODE_ROOM);
        for (size_t n = 0; n < inode->children; n++) {
            struct ls_inode *child = inode->sorted[n]->inode;
            bool folder = child->type == LS_DIRECTORY;
            inode->links += folder;
            if (!child->links++ && ls_array_add(all, child))
                return ls_fail(&stack->failure, "malloc", -ENOMEM);
            child->links += folder;
        }
    }
    return 0;
}

static void give_blocks(const struct places *all, uint64_t *end) {
    for (size_t i = 0; i < all->count; i++) {
        struct ls_inode *inode = all->list[i];
        if (inode->type == LS_SYMLINK && !is_inline(inode))
            inode->packed = (int64_t)inode->words.length;
        inode->block = *end;
        *end += (uint64_t)ls_round_up(inode->packed, LS_BLOCK) >> LS_BLOCK_BITS;
    }
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static uint32_t device_of(const struct ls_inode *inode) {
    return (inode->minor & 0xff) | (inode->major & 0xfff) << 8 | (inode->minor & ~0xffu) << 12;
}

static int write_inode(struct ls_image *image, const struct ls_inode *inode) {
    static const uint32_t TYPES[] = {
        [LS_REGULAR] = S_IFREG,      [LS_SYMLINK] = S_IFLNK,   [LS_CHARACTER] = S_IFCHR,
        [LS_BLOCK_DEVICE] = S_IFBLK, [LS_DIRECTORY] = S_IFDIR, [LS_FIFO] = S_IFIFO,
    };
    uint8_t text[LS_INODE_SIZE] = {0};
    bool device = inode->type == LS_CHARACTER || inode->type == LS_BLOCK_DEVICE;
    unsigned layout = inode->chunk_bits ? CHUNK_BASED : is_inline(inode) ? FLAT_INLINE : FLAT_PLAIN;
    uint32_t word = inode->chunk_bits ? 0x20u | (inode->chunk_bits - (unsigned)LS_BLOCK_BITS)
                    : device          ? device_of(inode)
                    : inode->packed   ? (uint32_t)inode->block
                                      : 0;
    ls_put_16(text, (uint16_t)(1 | layout << 1));
    ls_put_16(text + 2, (uint16_t)(inode->xattrs_size ? (inode->xattrs_size - 12) / 4 + 1 : 0));
    ls_put_16(text + 4, (uint16_t)(TYPES[inode->type] | inode->mode));
    ls_put_64(text + 8, inode->type == LS_DIRECTORY ? (uint64_t)inode->packed : (uint64_t)inode->size);
    ls_put_32(text + 16, word);
    ls_put_32(text + 20, (uint32_t)inode->nid);
    ls_put_32(text + 24, inode->uid);
    ls_put_32(text + 28, inode->gid);
    ls_put_64(text + 32, (uint64_t)inode->mtime);
    ls_put_32(text + 40, inode->mtime_ns);
    ls_put_32(text + 44, inode->links);
    int rc = ls_image_fill(image, (int64_t)inode->nid * LS_INODE_ROOM);
    rc = rc ?: ls_image_put(image, text, sizeof text);
    rc = rc ?: ls_xattrs_write(image, inode);
    if (!rc && layout == FLAT_INLINE)
        return ls_image_put(image, inode->words.data, inode->words.length);
    return rc || !inode->chunk_bits ? rc : ls_chunks_write(image, inode);
}

static int write_data(struct ls_image *image, const struct ls_inode *inode) {
    int rc = inode->packed ? ls_image_fill(image, (int64_t)(inode->block << LS_BLOCK_BITS)) : 0;
    if (rc || !inode->packed)
        return rc;
    return inode->type == LS_DIRECTORY ? ls_folder_write(image, inode)
                                       : ls_image_put(image, inode->words.data, inode->words.length);
}

static int write_head(struct ls_image *image, size_t inodes) {
    const struct ls_stack *stack = image->stack;
    uint8_t super[SUPER_SIZE] = {0};
    ls_put_32(super, MAGIC);
    super[12] = LS_BLOCK_BITS;
    ls_put_16(super + 14, (uint16_t)stack->root->inode->nid);
    ls_put_64(super + 16, inodes);
    ls_put_32(super + 36, (uint32_t)image->end);
    ls_put_32(super + 80, CHUNKED_FILE | DEVICE_TABLE);
    ls_put_16(super + 86, (uint16_t)stack->layers.count);
    ls_put_16(super + 88, (SUPER + SUPER_SIZE) / SLOT_SIZE);
    int rc = ls_image_fill(image, SUPER);
    rc = rc ?: ls_image_put(image, super, sizeof super);
    for (size_t i = 0; !rc && i < stack->layers.count; i++) {
        uint8_t slot[SLOT_SIZE] = {0};
        ls_put_32(slot + 64, (uint32_t)(ls_round_up(stack->layers.list[i]->size, LS_BLOCK) >> LS_BLOCK_BITS));
        rc = ls_image_put(image, slot, sizeof slot);
    }
    return rc;
}

static int write_all(struct ls_image *image, const struct places *all) {
    int rc = write_head(image, all->count);
    for (size_t i = 0; !rc && i < all->count; i++)
        rc = write_inode(image, all->list[i]);
    for (size_t i = 0; !rc && i < all->count; i++)
        rc = write_data(image, all->list[i]);
    return rc ?: ls_image_flush(image);
}

/* What is known only now: how many blocks there are, with the chunks that have been copied. */
static int finish(struct ls_image *image) {
    uint8_t blocks[4];
    struct ls_failure *failure = &image->stack->failure;
    int64_t size = ls_round_up((int64_t)(image->end << LS_BLOCK_BITS), PAGE);
    ls_put_32(blocks, (uint32_t)(size >> LS_BLOCK_BITS));
    int rc = ls_disk_write(image->fd, blocks, sizeof blocks, SUPER + 36, failure);
    return rc ? rc : ftruncate(image->fd, size) ? LS_FAIL(failure, "ftruncate") : 0;
}

int ls_stack_write(struct ls_stack *stack, int fd) {
    LS_ARRAY_FREED struct places all = {0};
    struct ls_image image = {.stack = stack, .fd = fd, .tar = -1};
    int64_t at = ls_round_up(SUPER + SUPER_SIZE + SLOT_SIZE * (int64_t)stack->layers.count, LS_BLOCK);
    int rc = number_all(stack, &all, &at);
    if (rc)
        return rc;
    image.end = (uint64_t)ls_round_up(at, LS_BLOCK) >> LS_BLOCK_BITS;
    give_blocks(&all, &image.end);
    if (stack->root->inode->nid > UINT16_MAX || image.end >= LS_NULL_BLOCK)
        return ls_stack_refuse(stack, stack->root->inode, "an index of erofs cannot have so many layers or names");
    rc = write_all(&image, &all) ?: finish(&image);
    ls_bytes_free(&image.text);
    ls_scope_close(&image.tar);
    stack->facts.inodes = (int64_t)all.count;
    return rc;
}
