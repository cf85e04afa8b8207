/* Deflate, to the byte as Go's compress/flate writes it, up to Go 1.26: as docker, BuildKit and ko compress layers. */
#ifndef LS_GOFLATE_H
#define LS_GOFLATE_H
#include <stddef.h>
#include <stdint.h>

typedef struct ls_goflate ls_goflate;

/* A stream of level 1, or 4 to 9; NULL if there is no memory. */
ls_goflate *ls_goflate_new(int level);

/* Takes the next bytes in. 0 or -ENOMEM. */
int ls_goflate_feed(ls_goflate *stream, const uint8_t *data, size_t length);

/* After the last: what is left is written, and the end. 0 or -ENOMEM. */
int ls_goflate_finish(ls_goflate *stream);

/* What was written since the last call of this; valid until the next of `feed` or `finish`. */
const uint8_t *ls_goflate_take(ls_goflate *stream, size_t *length);

void ls_goflate_free(ls_goflate *stream);

#endif
