/* Where the blocks of deflate (RFC 1951) begin in a stream: from each of them it can be inflated, if what came before is
 * at hand. Nothing is inflated here, only counted. Read by cffi too. */
#ifndef LS_SEEKABLE_BLOCKS_H
#define LS_SEEKABLE_BLOCKS_H
#include <stdint.h>

/* A block that begins at bit `bit` of the stream, after `out` bytes of what it inflates to. */
struct ls_point {
    uint64_t bit;
    uint64_t out;
};

struct ls_points {
    struct ls_point *list;
    uint64_t room;
    uint64_t count;
    uint64_t end; /* the byte after the last block */
    uint64_t out; /* what all of it inflates to */
};

/* The first block, and each that begins `span` bytes or more after the one noted before. `data` is a stream from its
 * first block on, and whatever comes after it. -EBADMSG: damaged, or cut short; -ENOSPC: more points than there is room. */
int ls_points_find(const uint8_t *data, uint64_t length, uint64_t span, struct ls_points *points);
#endif
