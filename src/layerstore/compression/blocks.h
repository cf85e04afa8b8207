/* Blocks of deflate (RFC 1951) from literals and matches, coded as Go's compress/flate codes them. */
#ifndef LS_BLOCKS_H
#define LS_BLOCKS_H
#include "kernel/files/bytes.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LS_SHORTEST = 3,    /* the shortest match that deflate can say */
    LS_LONGEST = 258,   /* the longest */
    LS_STORABLE = 65535 /* bytes of a block that is not coded */
};

/* A literal is its byte; a match is this. */
#define LS_MATCH(length, distance) (1u << 31 | (uint32_t)((length) - LS_SHORTEST) << 16 | (uint32_t)((distance) - 1))

struct ls_blocks {
    struct ls_bytes out;
    uint64_t bits;
    unsigned count; /* of bits that are not in `out` yet, always fewer than 32 */
};

/* Writes a block of tokens in the shortest way: coded, with the fixed codes, or stored. `input` is what the tokens
 * stand for; NULL if that is not at hand, and then it is not stored. Answers 0 or -ENOMEM, as all of these. */
int ls_block_shortest(struct ls_blocks *blocks, const uint32_t *tokens, size_t count, const uint8_t *input,
                      size_t length);

/* The same with codes of its own, unless that gains less than a sixteenth: then it is stored. */
int ls_block_coded(struct ls_blocks *blocks, const uint32_t *tokens, size_t count, const uint8_t *input, size_t length);

/* The same of literals alone. */
int ls_block_literals(struct ls_blocks *blocks, const uint8_t *input, size_t length);

int ls_block_stored(struct ls_blocks *blocks, const uint8_t *input, size_t length, bool is_last);

/* The last block, which is empty; to the end of a byte. */
int ls_block_end(struct ls_blocks *blocks);

#endif
