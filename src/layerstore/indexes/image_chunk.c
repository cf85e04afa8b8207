/* Where the data of files lie. Most are one chunk: a payload in its tar. A sparse file has chunks of one size, each of which is a
 * hole, lies in the tar, or is copied into the image, where that is sparse, too. */
#define _GNU_SOURCE
#include "image.h"

#include "../tar/disk.h"

#include <unistd.h>

enum { LEAST = 12, LARGEST = LS_BLOCK_BITS + 31, MANY = 1 << 20, PIECE = 1 << 18 };

/* The data of one file: pieces of its tar. */
struct data {
    const struct ls_extent *extents;
    size_t count;
    int64_t place; /* in the tar, of the first */
    int tar;
    unsigned device;
};

static unsigned bits_for(int64_t size) {
    unsigned bits = LS_BLOCK_BITS;
    while (bits < LARGEST && size - 1 >> bits)
        bits++;
    return bits;
}

int64_t ls_chunks_count(const struct ls_inode *inode) {
    return inode->chunk_bits ? (inode->size - 1 >> inode->chunk_bits) + 1 : 0;
}

static const struct ls_lying *payload_of(const struct ls_inode *inode, const struct ls_stack *stack) {
    return inode->payload < 0 ? NULL : &stack->layers.list[inode->layer]->payloads.list[inode->payload];
}

void ls_chunks_plan(struct ls_inode *inode, const struct ls_stack *stack) {
    inode->chunk_bits = 0;
    if (inode->type != LS_REGULAR || !inode->size)
        return;
    const struct ls_lying *payload = payload_of(inode, stack);
    inode->chunk_bits = bits_for(inode->size);
    if (!payload || (!payload->extents_count && payload->place % LS_BLOCK == 0))
        return;
    for (unsigned bits = LEAST; bits < inode->chunk_bits; bits++)
        if (inode->size - 1 >> bits < MANY)
            inode->chunk_bits = bits;
}

/* The first extent that ends after this place of the file, and where its data lie in the tar. */
static size_t seek(const struct data *data, size_t from, int64_t offset, int64_t *lies) {
    for (; from < data->count; *lies += data->extents[from++].length)
        if (data->extents[from].offset + data->extents[from].length > offset)
            break;
    return from;
}

static int copy(struct ls_image *image, const struct data *data, int64_t from, int64_t to, int64_t length) {
    LS_FREED uint8_t *buffer = malloc(PIECE);
    struct ls_failure *failure = &image->stack->failure;
    if (!buffer)
        return ls_fail(failure, "malloc", -ENOMEM);
    while (length) {
        size_t part = length < PIECE ? (size_t)length : PIECE;
        ssize_t got = ls_disk_read(data->tar, buffer, part, from, failure);
        if (got < 0)
            return (int)got;
        if ((size_t)got < part)
            return ls_fail_as(failure, LS_FAIL_DAMAGED, EBADMSG, "the tar is cut short", "", 0);
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
        rc = copy(image, data, lies + first - one->offset, base + first - begin, last - first);
        lies += one->length;
    }
    image->end += (uint64_t)ls_round_up(end - begin, LS_BLOCK) >> LS_BLOCK_BITS;
    return rc;
}

static int put_chunk(struct ls_image *image, unsigned device, uint32_t block) {
    uint8_t text[8] = {0};
    ls_put_16(text + 2, (uint16_t)device);
    ls_put_32(text + 4, block);
    return ls_image_put(image, text, sizeof text);
}

static int write_chunks(struct ls_image *image, const struct ls_inode *inode, const struct data *data) {
    size_t extent = 0;
    int64_t lies = data->place, chunk = (int64_t)1 << inode->chunk_bits;
    int rc = 0;
    for (int64_t begin = 0; !rc && begin < inode->size; begin += chunk) {
        int64_t end = inode->size - begin > chunk ? begin + chunk : inode->size;
        extent = seek(data, extent, begin, &lies);
        const struct ls_extent *one = extent < data->count ? &data->extents[extent] : NULL;
        int64_t at = one ? lies + begin - one->offset : 0;
        bool hole = !one || one->offset >= end;
        bool direct = !hole && one->offset <= begin && one->offset + one->length >= end && at % LS_BLOCK == 0;
        if (direct)
            rc = at >> LS_BLOCK_BITS < LS_NULL_BLOCK
                     ? put_chunk(image, data->device, (uint32_t)(at >> LS_BLOCK_BITS))
                     : ls_image_refuse(image, inode, "an index of erofs cannot tell of a tar beyond 2 TiB");
        else if (hole)
            rc = put_chunk(image, 0, LS_NULL_BLOCK);
        else if (image->end + ((uint64_t)chunk >> LS_BLOCK_BITS) >= LS_NULL_BLOCK)
            rc = ls_image_refuse(image, inode, "an index of erofs has no room for so large a sparse file");
        else
            rc = put_chunk(image, 0, (uint32_t)image->end) ?: copy_chunk(image, data, extent, lies, begin, end);
        if (chunk > INT64_MAX - begin)
            break;
    }
    return rc;
}

int ls_chunks_write(struct ls_image *image, const struct ls_inode *inode) {
    const struct ls_lying *payload = payload_of(inode, image->stack);
    const struct ls_layer *layer = payload ? image->stack->layers.list[inode->layer] : NULL;
    struct ls_extent whole = {0, inode->size};
    struct data data = {.device = payload ? (unsigned)inode->layer + 1 : 0, .tar = layer ? layer->tar : -1};
    if (payload) {
        bool sparse = payload->extents_count != 0;
        data.extents = sparse ? &layer->extents.list[payload->extents] : &whole;
        data.count = sparse ? payload->extents_count : 1;
        data.place = payload->place;
    }
    int64_t at = image->at + (int64_t)image->text.length;
    int rc = ls_image_fill(image, ls_round_up(at, 8));
    return rc ?: write_chunks(image, inode, &data);
}
