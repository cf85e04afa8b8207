/* See blocks.h. */
#include "seekable/blocks.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { LITERALS = 288, DISTANCES = 32, LENGTHS = 19, END = 256, FIRST_LENGTH = 257, DEEPEST = 15, QUICK = 9 };

static const uint16_t length_base[31] = {3,  4,  5,  6,  7,  8,  9,  10,  11,  13,  15,  17,  19,  23, 27, 31,
                                         35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258, 0,  0};
static const uint8_t length_extra[31] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2,
                                         3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0, 0, 0};
static const uint8_t order[LENGTHS] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

/* The stream by bits. Past its end they are zeros, of which `over` tells. */
struct bits {
    const uint8_t *data;
    uint64_t length, at;
    uint64_t held;
    unsigned count;
    bool over;
};

/* A canonical code. `quick` answers for codes of up to QUICK bits: symbol << 4 | length, 0 for the others. */
struct code {
    uint16_t quick[1 << QUICK];
    uint16_t symbols[LITERALS];
    uint16_t counts[DEEPEST + 1];
};

static void fill(struct bits *bits) {
    while (bits->count <= 56) {
        uint64_t byte = bits->at < bits->length ? bits->data[bits->at] : 0;
        bits->held |= byte << bits->count;
        bits->count += 8;
        bits->at++;
    }
}

static void drop(struct bits *bits, unsigned count) {
    bits->held >>= count;
    bits->count -= count;
}

static unsigned take(struct bits *bits, unsigned count) {
    fill(bits);
    unsigned value = (unsigned)(bits->held & ((1u << count) - 1));
    drop(bits, count);
    return value;
}

/* The next bit's number, and whether the stream has been read beyond its end. */
static uint64_t place(struct bits *bits) {
    uint64_t bit = bits->at * 8 - bits->count;
    bits->over = bits->over || bit > bits->length * 8;
    return bit;
}

/* A code from its lengths. Of symbols that share out less than all codes, the others are damage where they are met. */
static bool code_of(struct code *code, const uint8_t *lengths, unsigned count) {
    unsigned offsets[DEEPEST + 2] = {0}, next[DEEPEST + 1], value = 0;
    memset(code->counts, 0, sizeof code->counts);
    memset(code->quick, 0, sizeof code->quick);
    for (unsigned i = 0; i < count; i++)
        code->counts[lengths[i]]++;
    code->counts[0] = 0;
    int left = 1;
    for (unsigned length = 1; length <= DEEPEST; length++) {
        left = left * 2 - code->counts[length];
        if (left < 0)
            return false;
        offsets[length + 1] = offsets[length] + code->counts[length];
        value = (value + code->counts[length - 1]) << 1;
        next[length] = value;
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned length = lengths[i];
        if (!length)
            continue;
        code->symbols[offsets[length]++] = (uint16_t)i;
        unsigned word = next[length]++, turned = 0;
        if (length > QUICK)
            continue;
        for (unsigned bit = 0; bit < length; bit++)
            turned |= (word >> bit & 1) << (length - 1 - bit);
        for (; turned < 1 << QUICK; turned += 1u << length)
            code->quick[turned] = (uint16_t)(i << 4 | length);
    }
    return true;
}

/* The next symbol, or -1. There are as many bits at hand as a code can have. */
static int symbol(struct bits *bits, const struct code *code) {
    unsigned quick = code->quick[bits->held & ((1 << QUICK) - 1)];
    if (quick) {
        drop(bits, quick & 15);
        return (int)(quick >> 4);
    }
    int word = 0, first = 0, index = 0;
    for (unsigned length = 1; length <= DEEPEST; length++) {
        word |= (int)(bits->held >> (length - 1) & 1);
        int count = code->counts[length];
        if (word - count < first) {
            drop(bits, length);
            return code->symbols[index + (word - first)];
        }
        index += count;
        first = (first + count) << 1;
        word <<= 1;
    }
    return -1;
}

static bool read_lengths(struct bits *bits, const struct code *about, uint8_t *lengths, unsigned count) {
    for (unsigned i = 0; i < count;) {
        fill(bits);
        int one = symbol(bits, about);
        if (one < 0 || (one == 16 && !i))
            return false;
        unsigned times = one < 16    ? 1
                         : one == 16 ? 3 + take(bits, 2)
                         : one == 17 ? 3 + take(bits, 3)
                                     : 11 + take(bits, 7);
        uint8_t length = one < 16 ? (uint8_t)one : one == 16 ? lengths[i - 1] : 0;
        if (times > count - i)
            return false;
        memset(lengths + i, length, times);
        i += times;
    }
    return true;
}

static bool read_codes(struct bits *bits, struct code *literals, struct code *distances) {
    uint8_t lengths[LITERALS + DISTANCES] = {0}, about[LENGTHS] = {0};
    unsigned literal_count = take(bits, 5) + FIRST_LENGTH, distance_count = take(bits, 5) + 1,
             count = take(bits, 4) + 4;
    for (unsigned i = 0; i < count; i++)
        about[order[i]] = (uint8_t)take(bits, 3);
    return code_of(literals, about, LENGTHS) && read_lengths(bits, literals, lengths, literal_count + distance_count) &&
           code_of(literals, lengths, literal_count) && code_of(distances, lengths + literal_count, distance_count);
}

static void fixed_codes(struct code *literals, struct code *distances) {
    uint8_t lengths[LITERALS];
    for (unsigned i = 0; i < LITERALS; i++)
        lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    code_of(literals, lengths, LITERALS);
    memset(lengths, 5, DISTANCES);
    code_of(distances, lengths, DISTANCES);
}

static bool coded(struct bits *bits, const struct code *literals, const struct code *distances, uint64_t *out) {
    while (!bits->over) {
        fill(bits);
        int one = symbol(bits, literals);
        if (one < END) {
            if (one < 0)
                return false;
            ++*out;
            if (bits->at > bits->length)
                place(bits);
            continue;
        }
        if (one == END)
            return true;
        unsigned length = (unsigned)one - FIRST_LENGTH;
        if (length > 28)
            return false;
        *out += length_base[length] + take(bits, length_extra[length]);
        fill(bits);
        int distance = symbol(bits, distances);
        if (distance < 0 || distance > 29)
            return false;
        take(bits, distance < 4 ? 0 : (unsigned)distance / 2 - 1);
        place(bits);
    }
    return false;
}

/* One that is not coded: its bytes are passed over. */
static bool stored(struct bits *bits, uint64_t *out) {
    drop(bits, bits->count & 7);
    unsigned length = take(bits, 16), check = take(bits, 16);
    if ((length ^ check) != 0xffff)
        return false;
    uint64_t begin = place(bits) / 8;
    if (bits->over || length > bits->length - begin)
        return false;
    *bits = (struct bits){.data = bits->data, .length = bits->length, .at = begin + length};
    *out += length;
    return true;
}

static int note(struct ls_points *points, uint64_t bit, uint64_t span) {
    if (points->count && points->out - points->list[points->count - 1].out < span)
        return 0;
    if (points->count == points->room)
        return -ENOSPC;
    points->list[points->count++] = (struct ls_point){.bit = bit, .out = points->out};
    return 0;
}

int ls_points_find(const uint8_t *data, uint64_t length, uint64_t span, struct ls_points *points) {
    struct bits bits = {.data = data, .length = length};
    struct code literals, distances;
    bool last = false;
    points->count = points->out = 0;
    while (!last) {
        int rc = note(points, place(&bits), span);
        if (rc)
            return rc;
        last = take(&bits, 1);
        unsigned type = take(&bits, 2);
        if (type == 1)
            fixed_codes(&literals, &distances);
        bool good = type == 0   ? stored(&bits, &points->out)
                    : type == 3 ? false
                                : (type == 1 || read_codes(&bits, &literals, &distances)) &&
                                      coded(&bits, &literals, &distances, &points->out);
        place(&bits);
        if (!good || bits.over)
            return -EBADMSG;
    }
    points->end = (place(&bits) + 7) / 8;
    return 0;
}
