#include "compression/blocks.h"
#include <endian.h>

/* Two writers of deflate that find the same matches still write other bytes, for there is a choice of codes. These are
 * Go's choices: code lengths by package-merge (Larmore and Hirschberg, 1990) where others mend too long a Huffman code,
 * and in which order it weighs a fixed code, a dynamic one, and none. */

enum {
    LITERALS = 286,
    DISTANCES = 30,
    LENGTHS = 19, /* symbols of the code that the code lengths are written in */
    END = 256,
    FIRST_LENGTH = 257,
    DEEPEST = 15,
    FLOOR = 7 /* bits of the longest code in which code lengths are written */
};

struct code {
    uint16_t bits[LITERALS];
    uint8_t length[LITERALS];
};

struct plan {
    uint32_t literals[LITERALS], distances[DISTANCES], lengths[LENGTHS];
    int literal_count, distance_count, length_count;
    struct code literal, distance, about;
    uint8_t run[LITERALS + DISTANCES], more[LITERALS + DISTANCES];
    int runs;
};

static const uint8_t length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                         2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint8_t length_base[29] = {0,  1,  2,  3,  4,  5,  6,  7,  8,   10,  12,  14,  16,  20, 24,
                                        28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 255};
static const uint8_t order[LENGTHS] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

static int length_symbol(uint32_t length) {
    if (length < 8)
        return (int)length;
    if (length == 255)
        return 28;
    int top = 31 - __builtin_clz(length);
    return top * 4 - 4 + (int)(length >> (top - 2) & 3);
}

static int distance_symbol(uint32_t distance) {
    if (distance < 4)
        return (int)distance;
    int top = 31 - __builtin_clz(distance);
    return top * 2 + (int)(distance >> (top - 1) & 1);
}

static unsigned distance_extra(int symbol) {
    return symbol < 4 ? 0 : (unsigned)symbol / 2 - 1;
}

static uint32_t distance_base(int symbol) {
    return symbol < 4 ? (uint32_t)symbol : (uint32_t)(2 + symbol % 2) << distance_extra(symbol);
}

/* --- bits --- */

static void put(struct ls_blocks *blocks, uint32_t value, unsigned count) {
    blocks->bits |= (uint64_t)value << blocks->count;
    blocks->count += count;
    if (blocks->count >= 32) {
        uint32_t word = htole32((uint32_t)blocks->bits);
        memcpy(blocks->out.data + blocks->out.length, &word, sizeof word);
        blocks->out.length += sizeof word;
        blocks->bits >>= 32;
        blocks->count -= 32;
    }
}

static void put_code(struct ls_blocks *blocks, const struct code *code, int symbol) {
    put(blocks, code->bits[symbol], code->length[symbol]);
}

static void end_byte(struct ls_blocks *blocks) {
    for (; blocks->count; blocks->count -= blocks->count < 8 ? blocks->count : 8) {
        blocks->out.data[blocks->out.length++] = (uint8_t)blocks->bits;
        blocks->bits >>= 8;
    }
    blocks->bits = 0;
}

/* --- codes --- */

static uint16_t reversed(unsigned value, unsigned count) {
    unsigned bits = 0;
    for (unsigned i = 0; i < count; i++)
        bits |= (value >> i & 1) << (count - 1 - i);
    return (uint16_t)bits;
}

struct leaf {
    uint32_t weight;
    uint16_t symbol;
};

static int lighter(const void *a, const void *b) {
    const struct leaf *one = a, *other = b;
    if (one->weight != other->weight)
        return one->weight < other->weight ? -1 : 1;
    return one->symbol < other->symbol ? -1 : 1;
}

/* How many of `n` leaves, at least 3 and in ascending order, get a code of each length up to `deepest`. On each floor lie the
 * leaves and, in pairs, what lies on the floor below, by weight; of the same weight the pair comes first. */
static void count_lengths(const struct leaf *leaves, int n, int deepest, int counts[DEEPEST + 1]) {
    uint32_t floors[2][2 * LITERALS];
    uint16_t taken[DEEPEST + 1][2 * LITERALS + 1]; /* leaves among the first ones of a floor */
    int wanted = 2 * n - 2, below = 0;
    for (int floor = 1; floor <= deepest; floor++) {
        const uint32_t *low = floors[(floor - 1) & 1];
        uint32_t *here = floors[floor & 1];
        int leaf = 0, pair = 0, size = 0;
        taken[floor][0] = 0;
        for (; size < wanted && (leaf < n || pair < below); size++) {
            uint32_t weight = pair < below ? low[2 * pair] + low[2 * pair + 1] : UINT32_MAX;
            if (leaf < n && leaves[leaf].weight < weight) {
                here[size] = leaves[leaf++].weight;
            } else {
                here[size] = weight;
                pair++;
            }
            taken[floor][size + 1] = (uint16_t)leaf;
        }
        below = size / 2;
    }
    int above = 0;
    memset(counts, 0, sizeof(int) * (DEEPEST + 1));
    for (int floor = deepest, length = 0; floor >= 1; floor--, length++) {
        int leaves_here = taken[floor][wanted];
        if (length)
            counts[length] = above - leaves_here;
        above = leaves_here;
        wanted = 2 * (wanted - leaves_here);
    }
    counts[deepest] = above;
}

static void make_code(const uint32_t *weights, int size, int deepest, struct code *code) {
    struct leaf leaves[LITERALS];
    int n = 0;
    for (int symbol = 0; symbol < size; symbol++) {
        code->length[symbol] = 0;
        if (weights[symbol])
            leaves[n++] = (struct leaf){weights[symbol], (uint16_t)symbol};
    }
    if (n <= 2) {
        for (int i = 0; i < n; i++) {
            code->bits[leaves[i].symbol] = (uint16_t)i;
            code->length[leaves[i].symbol] = 1;
        }
        return;
    }
    qsort(leaves, (size_t)n, sizeof *leaves, lighter);
    int counts[DEEPEST + 1];
    count_lengths(leaves, n, deepest < n - 1 ? deepest : n - 1, counts);
    for (int length = 1, left = n; length <= deepest && left; length++)
        for (int i = 0; i < counts[length]; i++)
            code->length[leaves[--left].symbol] = (uint8_t)length;
    /* RFC 1951, section 3.2.2 */
    unsigned next = 0;
    for (unsigned length = 1; length <= (unsigned)deepest; length++) {
        next <<= 1;
        for (int symbol = 0; symbol < size; symbol++)
            if (code->length[symbol] == length)
                code->bits[symbol] = reversed(next++, length);
    }
}

static void make_fixed(struct code *literal, struct code *distance) {
    for (unsigned symbol = 0; symbol < LITERALS; symbol++) {
        unsigned length = symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8;
        unsigned bits = symbol < 144   ? symbol + 48
                        : symbol < 256 ? symbol + 400 - 144
                        : symbol < 280 ? symbol - 256
                                       : symbol + 192 - 280;
        literal->length[symbol] = (uint8_t)length;
        literal->bits[symbol] = reversed(bits, length);
    }
    for (unsigned symbol = 0; symbol < DISTANCES; symbol++) {
        distance->length[symbol] = 5;
        distance->bits[symbol] = reversed(symbol, 5);
    }
}

static size_t cost(const uint32_t *weights, int size, const struct code *code) {
    size_t bits = 0;
    for (int symbol = 0; symbol < size; symbol++)
        if (weights[symbol])
            bits += (size_t)weights[symbol] * code->length[symbol];
    return bits;
}

/* --- what a block's codes are written in --- */

static void add_run(struct plan *plan, int symbol, int more) {
    plan->run[plan->runs] = (uint8_t)symbol;
    plan->more[plan->runs++] = (uint8_t)more;
    plan->lengths[symbol]++;
}

/* RFC 1951, section 3.2.7: the lengths of both codes in one sequence, with its repetitions. */
static void make_runs(struct plan *plan) {
    uint8_t all[LITERALS + DISTANCES];
    memcpy(all, plan->literal.length, (size_t)plan->literal_count);
    memcpy(all + plan->literal_count, plan->distance.length, (size_t)plan->distance_count);
    int size = plan->literal_count + plan->distance_count;
    plan->runs = 0;
    memset(plan->lengths, 0, sizeof plan->lengths);
    for (int at = 0, count; at < size; at += count) {
        uint8_t length = all[at];
        for (count = 1; at + count < size && all[at + count] == length; count++) {
        }
        int left = count;
        if (length) {
            add_run(plan, length, 0);
            left--;
            while (left >= 3) {
                int n = left < 6 ? left : 6;
                add_run(plan, 16, n - 3);
                left -= n;
            }
        } else {
            while (left >= 11) {
                int n = left < 138 ? left : 138;
                add_run(plan, 18, n - 11);
                left -= n;
            }
            if (left >= 3) {
                add_run(plan, 17, left - 3);
                left = 0;
            }
        }
        while (left--)
            add_run(plan, length, 0);
    }
    make_code(plan->lengths, LENGTHS, FLOOR, &plan->about);
    plan->length_count = LENGTHS;
    while (plan->length_count > 4 && !plan->lengths[order[plan->length_count - 1]])
        plan->length_count--;
}

static size_t coded_size(const struct plan *plan) {
    return 3 + 5 + 5 + 4 + 3 * (size_t)plan->length_count + cost(plan->lengths, LENGTHS, &plan->about) +
           2 * (size_t)plan->lengths[16] + 3 * (size_t)plan->lengths[17] + 7 * (size_t)plan->lengths[18] +
           cost(plan->literals, LITERALS, &plan->literal) + cost(plan->distances, DISTANCES, &plan->distance);
}

static void put_codes(struct ls_blocks *blocks, const struct plan *plan) {
    put(blocks, 4, 3);
    put(blocks, (uint32_t)plan->literal_count - 257, 5);
    put(blocks, (uint32_t)plan->distance_count - 1, 5);
    put(blocks, (uint32_t)plan->length_count - 4, 4);
    for (int i = 0; i < plan->length_count; i++)
        put(blocks, plan->about.length[order[i]], 3);
    for (int i = 0; i < plan->runs; i++) {
        int symbol = plan->run[i];
        put_code(blocks, &plan->about, symbol);
        if (symbol >= 16)
            put(blocks, plan->more[i], symbol == 16 ? 2 : symbol == 17 ? 3 : 7);
    }
}

/* --- blocks --- */

static void plan_block(struct plan *plan, const uint32_t *tokens, size_t count) {
    memset(plan->literals, 0, sizeof plan->literals);
    memset(plan->distances, 0, sizeof plan->distances);
    for (size_t i = 0; i < count; i++) {
        uint32_t token = tokens[i];
        if (token >> 31) {
            plan->literals[FIRST_LENGTH + length_symbol(token >> 16 & 0xff)]++;
            plan->distances[distance_symbol(token & 0xffff)]++;
        } else {
            plan->literals[token]++;
        }
    }
    plan->literals[END]++;
    plan->literal_count = LITERALS;
    while (!plan->literals[plan->literal_count - 1])
        plan->literal_count--;
    plan->distance_count = DISTANCES;
    while (plan->distance_count && !plan->distances[plan->distance_count - 1])
        plan->distance_count--;
    if (!plan->distance_count) {
        plan->distances[0] = 1; /* a code has to have something in it */
        plan->distance_count = 1;
    }
    make_code(plan->literals, LITERALS, DEEPEST, &plan->literal);
    make_code(plan->distances, DISTANCES, DEEPEST, &plan->distance);
    make_runs(plan);
}

static void put_tokens(struct ls_blocks *blocks, const uint32_t *tokens, size_t count, const struct code *literal,
                       const struct code *distance) {
    for (size_t i = 0; i < count; i++) {
        uint32_t token = tokens[i];
        if (!(token >> 31)) {
            put_code(blocks, literal, (int)token);
            continue;
        }
        uint32_t length = token >> 16 & 0xff, back = token & 0xffff;
        int symbol = length_symbol(length);
        put_code(blocks, literal, FIRST_LENGTH + symbol);
        put(blocks, length - length_base[symbol], length_extra[symbol]);
        symbol = distance_symbol(back);
        put_code(blocks, distance, symbol);
        put(blocks, back - distance_base(symbol), distance_extra(symbol));
    }
    put_code(blocks, literal, END);
}

static int reserve(struct ls_blocks *blocks, size_t tokens) {
    return ls_bytes_reserve(&blocks->out, tokens * 6 + 1024);
}

int ls_block_stored(struct ls_blocks *blocks, const uint8_t *input, size_t length, bool is_last) {
    int rc = ls_bytes_reserve(&blocks->out, length + 32);
    if (rc)
        return rc;
    put(blocks, is_last, 3);
    end_byte(blocks);
    put(blocks, (uint32_t)length, 16);
    put(blocks, (uint16_t)~length, 16);
    end_byte(blocks);
    return length ? ls_bytes_add(&blocks->out, input, length) : 0;
}

int ls_block_end(struct ls_blocks *blocks) {
    return ls_block_stored(blocks, NULL, 0, true);
}

int ls_block_shortest(struct ls_blocks *blocks, const uint32_t *tokens, size_t count, const uint8_t *input,
                      size_t length) {
    struct plan plan;
    struct code literal, distance;
    plan_block(&plan, tokens, count);
    make_fixed(&literal, &distance);
    bool is_storable = input && length <= LS_STORABLE;
    size_t extra = 0; /* the same for either code */
    for (int symbol = 0; is_storable && symbol < 29; symbol++)
        extra += (size_t)plan.literals[FIRST_LENGTH + symbol] * length_extra[symbol];
    for (int symbol = 0; is_storable && symbol < DISTANCES; symbol++)
        extra += (size_t)plan.distances[symbol] * distance_extra(symbol);
    size_t fixed = 3 + cost(plan.literals, LITERALS, &literal) + cost(plan.distances, DISTANCES, &distance);
    size_t coded = coded_size(&plan);
    bool is_coded = coded < fixed;
    if (is_storable && (length + 5) * 8 < (is_coded ? coded : fixed) + extra)
        return ls_block_stored(blocks, input, length, false);
    int rc = reserve(blocks, count);
    if (rc)
        return rc;
    if (is_coded) {
        put_codes(blocks, &plan);
        put_tokens(blocks, tokens, count, &plan.literal, &plan.distance);
    } else {
        put(blocks, 2, 3);
        put_tokens(blocks, tokens, count, &literal, &distance);
    }
    return 0;
}

int ls_block_coded(struct ls_blocks *blocks, const uint32_t *tokens, size_t count, const uint8_t *input,
                   size_t length) {
    struct plan plan;
    plan_block(&plan, tokens, count);
    size_t size = coded_size(&plan);
    if (length <= LS_STORABLE && (length + 5) * 8 < size + size / 16)
        return ls_block_stored(blocks, input, length, false);
    int rc = reserve(blocks, count);
    if (rc)
        return rc;
    put_codes(blocks, &plan);
    put_tokens(blocks, tokens, count, &plan.literal, &plan.distance);
    return 0;
}

int ls_block_literals(struct ls_blocks *blocks, const uint8_t *input, size_t length) {
    struct plan plan;
    memset(plan.literals, 0, sizeof plan.literals);
    memset(plan.distances, 0, sizeof plan.distances);
    for (size_t i = 0; i < length; i++)
        plan.literals[input[i]]++;
    plan.literals[END] = 1;
    plan.distances[0] = 1;
    plan.literal_count = END + 1;
    plan.distance_count = 1;
    make_code(plan.literals, LITERALS, DEEPEST, &plan.literal);
    make_code(plan.distances, DISTANCES, DEEPEST, &plan.distance);
    make_runs(&plan);
    size_t size = coded_size(&plan);
    if (length <= LS_STORABLE && (length + 5) * 8 < size + size / 16)
        return ls_block_stored(blocks, input, length, false);
    int rc = reserve(blocks, length);
    if (rc)
        return rc;
    put_codes(blocks, &plan);
    for (size_t i = 0; i < length; i++)
        put_code(blocks, &plan.literal, input[i]);
    put_code(blocks, &plan.literal, END);
    return 0;
}
