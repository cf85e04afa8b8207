/* Where the data of files lie. Most are one chunk: a payload in its tar. A sparse file has chunks of one size, each of which is a
 * hole, lies in the tar, or is copied into the image, where that is sparse, too. */
#define _GNU_SOURCE
#include "image.h"

#include "../tar/disk.h"

#include <fcntl.h>
#include <unistd.h>

enum { LARGEST = LS_BLOCK_BITS + 31, FEW = 1 << 10, MANY = 1 << 20, PLACE = 8, PIECE = 1 << 18 };

/* The data of one file: pieces of its tar. */
struct data {
    const struct ls_extent *extents;
    size_t count;
    int64_t size; /* of the file */
    int64_t place; /* in the tar, of the first */
    int64_t
        last; /* where the last block begins, if its end in the tar is not zeros: a program that maps it would see that */
    struct ls_extent whole;
};

static void find_data(const struct ls_stack *stack, const struct ls_inode *inode, struct data *data) {
    *data = (struct data){.size = inode->size, .last = inode->size, .whole = {0, inode->size}};
    if (inode->tailed)
        data->last = (inode->size - 1) / LS_BLOCK * LS_BLOCK;
    if (inode->payload < 0)
        return;
    const struct ls_layer *layer = stack->layers.list[inode->layer];
    const struct ls_lying *payload = &layer->payloads.list[inode->payload];
    data->extents = payload->extents_count ? &layer->extents.list[payload->extents] : &data->whole;
    data->count = payload->extents_count ? payload->extents_count : 1;
    data->place = payload->place;
}

/* --- how large chunks are ----------------------------------------------------------------------------------------- */

static int64_t count_of(int64_t size, unsigned bits) {
    return ((size - 1) >> bits) + 1;
}

int64_t ls_chunks_count(const struct ls_inode *inode) {
    return inode->chunk_bits ? count_of(inode->size, inode->chunk_bits) : 0;
}

/* The least size with which a file has no more chunks than this. */
static unsigned bits_for(int64_t size, int64_t most) {
    unsigned bits = LS_BLOCK_BITS;
    while (bits < LARGEST && count_of(size, bits) > most)
        bits++;
    return bits;
}

/* What chunks of this size cost, in bytes of the image: their places, the data that have to be copied, and a little for each
 * that is copied, since it takes room in the image even where it is a hole. */
static int64_t cost_of(const struct data *data, unsigned bits) {
    int64_t cost = PLACE * count_of(data->size, bits), lies = data->place, copied = 0, last = -1;
    for (size_t i = 0; i < data->count; lies += data->extents[i++].length) {
        int64_t begin = data->extents[i].offset, end = begin + data->extents[i].length;
        int64_t first = begin >> bits, behind = ((end - 1) >> bits) + 1; /* the chunks that have something of it */
        int64_t from = first + (first << bits != begin); /* and those that have nothing else */
        int64_t to = end == data->size && data->last == end ? behind : end >> bits;
        if (from >= to || (lies - begin) % LS_BLOCK) {
            from = to = behind;
            cost += end - begin;
        } else
            cost += (from << bits) - begin + (to < behind ? end - (to << bits) : 0);
        copied += from - first + behind - to - (from > first && first == last);
        last = to < behind ? behind - 1 : from > first ? from - 1 : last;
    }
    return cost + (copied << (bits - LS_BLOCK_BITS) >> 3);
}

int ls_chunks_plan(struct ls_stack *stack, struct ls_inode *inode) {
    struct data data;
    inode->chunk_bits = 0;
    if (inode->type != LS_REGULAR || !inode->size)
        return 0;
    if (count_of(inode->size, LARGEST) >
        FEW) /* each takes bytes, and a few bytes of a tar can say that there are many */
        return ls_stack_refuse(stack, inode, "a file of more than 1 PiB has no place in an index of erofs");
    find_data(stack, inode, &data);
    unsigned largest = bits_for(inode->size, 1);
    inode->chunk_bits = largest;
    if (!data.count || (data.extents == &data.whole && data.place % LS_BLOCK == 0 && !inode->tailed))
        return 0;
    int64_t least = INT64_MAX;
    for (unsigned bits = bits_for(inode->size, MANY); bits <= largest; bits++) {
        int64_t cost = cost_of(&data, bits);
        if (cost < least)
            least = cost, inode->chunk_bits = bits;
    }
    return 0;
}

/* --- one after another -------------------------------------------------------------------------------------------- */

/* The tar of a layer, open until another one is needed. */
static int open_tar(struct ls_image *image, int64_t layer) {
    if (image->tar >= 0 && image->opened == layer)
        return 0;
    if (image->tar >= 0)
        close(ls_take_fd(&image->tar));
    image->opened = layer;
    const char *path = image->stack->layers.list[layer]->tar;
    image->tar = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (image->tar >= 0)
        return 0;
    LS_FAIL(&image->stack->failure, "open");
    return ls_fail_at(&image->stack->failure, path);
}

static int copy(struct ls_image *image, int64_t from, int64_t to, int64_t length) {
    struct ls_failure *failure = &image->stack->failure;
    const char *path = image->stack->layers.list[image->opened]->tar;
    LS_FREED uint8_t *buffer = malloc(PIECE);
    if (!buffer)
        return ls_fail(failure, "malloc", -ENOMEM);
    while (length) {
        size_t part = length < PIECE ? (size_t)length : PIECE;
        ssize_t got = ls_disk_read(image->tar, buffer, part, from, failure);
        if (got < 0)
            return ls_fail_at(failure, path);
        if ((size_t)got < part)
            return ls_fail_as(failure, LS_FAIL_DAMAGED, EBADMSG, "a layer's tar is cut short", path, strlen(path));
        int rc = ls_disk_write(image->fd, buffer, part, to, failure);
        if (rc)
            return rc;
        from += (int64_t)part, to += (int64_t)part, length -= (int64_t)part;
    }
    return 0;
}

/* All of a chunk that is no hole, to the end of the image. */
static int copy_chunk(struct ls_image *image, const struct data *data, size_t extent, int64_t lies, int64_t begin,
                      int64_t end) {
    int64_t base = (int64_t)(image->end << LS_BLOCK_BITS);
    int rc = 0;
    for (; !rc && extent < data->count && data->extents[extent].offset < end; extent++) {
        const struct ls_extent *one = &data->extents[extent];
        int64_t first = one->offset > begin ? one->offset : begin;
        int64_t last = one->offset + one->length < end ? one->offset + one->length : end;
        rc = copy(image, lies + first - one->offset, base + first - begin, last - first);
        lies += one->length;
    }
    image->end += (uint64_t)ls_round_up(end - begin, LS_BLOCK) >> LS_BLOCK_BITS;
    return rc;
}

static int put_chunk(struct ls_image *image, int64_t device, uint32_t block) {
    uint8_t text[PLACE] = {0};
    ls_put_16(text + 2, (uint16_t)device);
    ls_put_32(text + 4, block);
    return ls_image_put(image, text, sizeof text);
}

static int write_chunk(struct ls_image *image, const struct ls_inode *inode, const struct data *data, size_t extent,
                       int64_t lies, int64_t begin, int64_t end) {
    const struct ls_extent *one = extent < data->count ? &data->extents[extent] : NULL;
    if (!one || one->offset >= end)
        return put_chunk(image, 0, LS_NULL_BLOCK);
    int64_t at = lies + begin - one->offset;
    if (one->offset <= begin && one->offset + one->length >= end && at % LS_BLOCK == 0 && end <= data->last)
        return at >> LS_BLOCK_BITS < LS_NULL_BLOCK
                   ? put_chunk(image, inode->layer + 1, (uint32_t)(at >> LS_BLOCK_BITS))
                   : ls_stack_refuse(image->stack, inode, "an index of erofs has no place for a tar of 2 TiB");
    if (image->end + ((uint64_t)(end - begin) >> LS_BLOCK_BITS) >= LS_NULL_BLOCK - 8)
        return ls_stack_refuse(image->stack, inode, "an index of erofs has no room for so large a sparse file");
    int rc = open_tar(image, inode->layer) ?: put_chunk(image, 0, (uint32_t)image->end);
    return rc ?: copy_chunk(image, data, extent, lies, begin, end);
}

int ls_chunks_write(struct ls_image *image, const struct ls_inode *inode) {
    struct data data;
    find_data(image->stack, inode, &data);
    int64_t lies = data.place, chunk = (int64_t)1 << inode->chunk_bits;
    int rc = ls_image_fill(image, ls_round_up(image->at + (int64_t)image->text.length, PLACE));
    size_t extent = 0; /* the first that ends after the chunk's begin, whose data lie there */
    for (int64_t begin = 0; !rc && begin < inode->size; begin += chunk) {
        int64_t end = inode->size - begin > chunk ? begin + chunk : inode->size;
        for (; extent < data.count; lies += data.extents[extent++].length)
            if (data.extents[extent].offset + data.extents[extent].length > begin)
                break;
        rc = write_chunk(image, inode, &data, extent, lies, begin, end);
    }
    return rc;
}
