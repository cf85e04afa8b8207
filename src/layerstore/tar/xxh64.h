/* XXH64 by its published specification: the digest a file that names damage later. Not an identity: the DiffID is. */
#ifndef LS_XXH64_H
#define LS_XXH64_H
#include <stddef.h>
#include <stdint.h>

struct ls_xxh64 {
    uint64_t lane[4];
    uint64_t total;
    uint64_t seed;
    uint8_t tail[32];
    size_t tail_length;
};

void ls_xxh64_begin(struct ls_xxh64 *state, uint64_t seed);
void ls_xxh64_add(struct ls_xxh64 *state, const void *data, size_t length);
uint64_t ls_xxh64_end(const struct ls_xxh64 *state);
uint64_t ls_xxh64_of(const void *data, size_t length, uint64_t seed);
#endif
