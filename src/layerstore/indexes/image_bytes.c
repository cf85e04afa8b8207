/* The bytes of an erofs image on their way to its file, from front to end. */
#define _GNU_SOURCE
#include "image.h"

#include "../tar/disk.h"

enum { FLUSH = 1 << 20 };

int ls_image_flush(struct ls_image *image) {
    int rc = ls_disk_write(image->fd, image->text.data, image->text.length, image->at, &image->stack->failure);
    image->at += (int64_t)image->text.length;
    image->text.length = 0;
    return rc;
}

int ls_image_put(struct ls_image *image, const void *data, size_t length) {
    if (ls_bytes_add(&image->text, data, length))
        return ls_fail(&image->stack->failure, "malloc", -ENOMEM);
    return image->text.length >= FLUSH ? ls_image_flush(image) : 0;
}

int ls_image_fill(struct ls_image *image, int64_t until) {
    static const uint8_t ZEROS[512];
    int64_t left = until - image->at - (int64_t)image->text.length;
    int rc = 0;
    for (; !rc && left > 0; left -= (int64_t)sizeof ZEROS)
        rc = ls_image_put(image, ZEROS, left < (int64_t)sizeof ZEROS ? (size_t)left : sizeof ZEROS);
    return rc;
}
