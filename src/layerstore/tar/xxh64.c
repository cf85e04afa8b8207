/* XXH64, from its specification (four lanes of 64 bits, little endian). */
#define _GNU_SOURCE
#include "xxh64.h"

#include <endian.h>
#include <string.h>

#define P1 0x9E3779B185EBCA87ULL
#define P2 0xC2B2AE3D27D4EB4FULL
#define P3 0x165667B19E3779F9ULL
#define P4 0x85EBCA77C2B2AE63ULL
#define P5 0x27D4EB2F165667C5ULL

static uint64_t rotate(uint64_t x, int bits) {
    return (x << bits) | (x >> (64 - bits));
}

static uint64_t load64(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return le64toh(word);
}

static uint32_t load32(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, 4);
    return le32toh(word);
}

static uint64_t round64(uint64_t lane, uint64_t word) {
    return rotate(lane + word * P2, 31) * P1;
}

static uint64_t merge(uint64_t hash, uint64_t lane) {
    return (hash ^ round64(0, lane)) * P1 + P4;
}

void ls_xxh64_begin(struct ls_xxh64 *state, uint64_t seed) {
    state->lane[0] = seed + P1 + P2;
    state->lane[1] = seed + P2;
    state->lane[2] = seed;
    state->lane[3] = seed - P1;
    state->total = 0;
    state->seed = seed;
    state->tail_length = 0;
}

static const uint8_t *stripes(struct ls_xxh64 *state, const uint8_t *at, const uint8_t *end) {
    uint64_t a = state->lane[0], b = state->lane[1], c = state->lane[2], d = state->lane[3];
    for (; end - at >= 32; at += 32) {
        a = round64(a, load64(at));
        b = round64(b, load64(at + 8));
        c = round64(c, load64(at + 16));
        d = round64(d, load64(at + 24));
    }
    state->lane[0] = a, state->lane[1] = b, state->lane[2] = c, state->lane[3] = d;
    return at;
}

void ls_xxh64_add(struct ls_xxh64 *state, const void *data, size_t length) {
    const uint8_t *at = data, *end = at + length;
    state->total += length;
    if (state->tail_length) {
        size_t room = 32 - state->tail_length;
        size_t take = length < room ? length : room;
        memcpy(state->tail + state->tail_length, at, take);
        state->tail_length += take;
        at += take;
        if (state->tail_length < 32)
            return;
        stripes(state, state->tail, state->tail + 32);
        state->tail_length = 0;
    }
    at = stripes(state, at, end);
    state->tail_length = (size_t)(end - at);
    if (state->tail_length)
        memcpy(state->tail, at, state->tail_length);
}

uint64_t ls_xxh64_end(const struct ls_xxh64 *state) {
    uint64_t hash;
    if (state->total >= 32) {
        hash = rotate(state->lane[0], 1) + rotate(state->lane[1], 7) + rotate(state->lane[2], 12) +
               rotate(state->lane[3], 18);
        for (int i = 0; i < 4; i++)
            hash = merge(hash, state->lane[i]);
    } else {
        hash = state->seed + P5;
    }
    hash += state->total;
    const uint8_t *at = state->tail, *end = at + state->tail_length;
    for (; end - at >= 8; at += 8)
        hash = rotate(hash ^ round64(0, load64(at)), 27) * P1 + P4;
    if (end - at >= 4) {
        hash = rotate(hash ^ (uint64_t)load32(at) * P1, 23) * P2 + P3;
        at += 4;
    }
    for (; at < end; at++)
        hash = rotate(hash ^ *at * P5, 11) * P1;
    hash = (hash ^ (hash >> 33)) * P2;
    hash = (hash ^ (hash >> 29)) * P3;
    return hash ^ (hash >> 32);
}

uint64_t ls_xxh64_of(const void *data, size_t length, uint64_t seed) {
    struct ls_xxh64 state;
    ls_xxh64_begin(&state, seed);
    ls_xxh64_add(&state, data, length);
    return ls_xxh64_end(&state);
}
