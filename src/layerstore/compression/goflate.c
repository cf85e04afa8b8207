#include "compression/goflate.h"
#include "compression/blocks.h"
#include <endian.h>
#include <limits.h>

/* A compressor is known by the matches that it does not find: how long it looks, what it takes, when it begins anew. What
 * is done here is what Go does at each level, in Go's order; where that is a whim, it is a whim that is in the digests of
 * most of the images that there are. `find` looks back in chains of equal hashes, `look_fast` (level 1) in one table. */

enum {
    WINDOW = 1 << 15,
    SHORTEST = 4, /* Go emits no shorter match */
    AHEAD = SHORTEST + LS_LONGEST,
    FULL = 1 << 14, /* tokens of a block */
    HASHES = 1 << 17,
    NEAR = 4096, /* a match of 4 bytes is worth its code only from so near */
    RENEWED = 1 << 24,
    FAST_HASHES = 1 << 14,
    MARGIN = 15,
    SMALL = 128
};

static const struct level {
    int lazy, nice, tries;
} levels[] = {[4] = {4, 16, 16},    [5] = {16, 32, 32},     [6] = {16, 128, 128},
              [7] = {32, 128, 256}, [8] = {128, 258, 1024}, [9] = {258, 258, 4096}};

struct chains {
    uint8_t window[2 * WINDOW + 8];
    uint32_t head[HASHES], before[WINDOW];
    int base; /* added to a place in the window before it is noted, so that what was noted long ago is small */
    int at, end, block;
    int length, distance;
    bool has_byte; /* the byte before `at` is not written yet: a longer match may begin with the next */
};

struct fast {
    uint8_t block[LS_STORABLE + 8], last[LS_STORABLE];
    struct {
        uint32_t value;
        int32_t place;
    } table[FAST_HASHES];
    int filled, last_size;
    int32_t base;
};

struct ls_goflate {
    struct ls_blocks blocks;
    struct level level;
    struct chains *chains;
    struct fast *fast;
    uint32_t tokens[LS_STORABLE + 1];
    int count;
};

ls_goflate *ls_goflate_new(int level) {
    struct ls_goflate *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    if (level == 1) {
        stream->fast = calloc(1, sizeof *stream->fast);
        if (stream->fast)
            stream->fast->base = LS_STORABLE;
    } else {
        stream->level = levels[level];
        stream->chains = calloc(1, sizeof *stream->chains);
        if (stream->chains) {
            stream->chains->base = 1;
            stream->chains->length = SHORTEST - 1;
        }
    }
    if (!stream->fast && !stream->chains) {
        free(stream);
        return NULL;
    }
    return stream;
}

void ls_goflate_free(ls_goflate *stream) {
    if (stream) {
        ls_bytes_free(&stream->blocks.out);
        free(stream->chains);
        free(stream->fast);
        free(stream);
    }
}

const uint8_t *ls_goflate_take(ls_goflate *stream, size_t *length) {
    *length = stream->blocks.out.length;
    stream->blocks.out.length = 0;
    return stream->blocks.out.data;
}

static uint32_t load(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return le32toh(word);
}

static int same(const uint8_t *one, const uint8_t *other, int most) {
    int n = 0;
    for (; n + 8 <= most; n += 8) {
        uint64_t a, b;
        memcpy(&a, one + n, sizeof a);
        memcpy(&b, other + n, sizeof b);
        if (a != b)
            return n + __builtin_ctzll(le64toh(a ^ b)) / 8;
    }
    while (n < most && one[n] == other[n])
        n++;
    return n;
}

/* --- levels 4 to 9 --- */

/* Notes what is at a place; the last place before it with the same hash, negative if there is none. */
static int note(struct chains *chains, int at) {
    uint32_t *head = &chains->head[htobe32(load(chains->window + at)) * 0x1e35a7bdu >> 15];
    int last = (int)*head - chains->base;
    chains->before[at % WINDOW] = *head;
    *head = (uint32_t)(at + chains->base);
    return last;
}

static void find(struct chains *chains, const struct level *level, int place, int ahead) {
    const uint8_t *window = chains->window;
    int at = chains->at, most = ahead < LS_LONGEST ? ahead : LS_LONGEST;
    int nice = level->nice < most ? level->nice : most, oldest = at - WINDOW;
    for (int tries = level->tries; tries; tries--) {
        if (window[place + chains->length] == window[at + chains->length]) {
            int n = same(window + place, window + at, most);
            if (n > chains->length && (n > SHORTEST || at - place <= NEAR)) {
                chains->length = n;
                chains->distance = at - place;
                if (n >= nice)
                    return;
            }
        }
        if (place == oldest)
            return; /* its note was replaced by that of `at` */
        place = (int)chains->before[place % WINDOW] - chains->base;
        if (place < oldest || place < 0)
            return;
    }
}

static int end_block(struct ls_goflate *stream) {
    struct chains *chains = stream->chains;
    bool is_there = chains->block <= chains->at;
    const uint8_t *input = is_there ? chains->window + chains->block : NULL;
    size_t length = is_there ? (size_t)(chains->at - chains->block) : 0;
    chains->block = chains->at;
    int count = stream->count;
    stream->count = 0;
    return ls_block_shortest(&stream->blocks, stream->tokens, (size_t)count, input, length);
}

static int look(struct ls_goflate *stream, bool is_last) {
    struct chains *chains = stream->chains;
    while (true) {
        int ahead = chains->end - chains->at;
        if (ahead < AHEAD && !is_last)
            return 0;
        if (!ahead) {
            if (chains->has_byte)
                stream->tokens[stream->count++] = chains->window[chains->at - 1];
            chains->has_byte = false;
            return stream->count ? end_block(stream) : 0;
        }
        int last_note = chains->end - (SHORTEST - 1);
        int place = chains->at < last_note ? note(chains, chains->at) : -1;
        int length = chains->length, distance = chains->distance;
        chains->length = SHORTEST - 1;
        chains->distance = 0;
        if (place >= 0 && place >= chains->at - WINDOW && ahead > length && length < stream->level.lazy)
            find(chains, &stream->level, place, ahead);
        if (length >= SHORTEST && chains->length <= length) {
            stream->tokens[stream->count++] = LS_MATCH(length, distance);
            int next = chains->at + length - 1;
            for (int at = chains->at + 1; at < next; at++)
                if (at < last_note)
                    note(chains, at);
            chains->at = next;
            chains->has_byte = false;
            chains->length = SHORTEST - 1;
        } else {
            bool has_byte = chains->has_byte;
            if (has_byte)
                stream->tokens[stream->count++] = chains->window[chains->at - 1];
            chains->has_byte = true;
            if (has_byte && stream->count == FULL) {
                int rc = end_block(stream);
                if (rc)
                    return rc;
            }
            chains->at++;
            continue;
        }
        int rc = stream->count == FULL ? end_block(stream) : 0;
        if (rc)
            return rc;
    }
}

static void forget_old(uint32_t *notes, size_t count, uint32_t by) {
    for (size_t i = 0; i < count; i++)
        notes[i] = notes[i] > by ? notes[i] - by : 0;
}

/* Moves the window on, if it is time, and fills it. How many bytes were taken. */
static size_t fill(struct chains *chains, const uint8_t *data, size_t length) {
    if (chains->at >= 2 * WINDOW - AHEAD) {
        memcpy(chains->window, chains->window + WINDOW, WINDOW);
        chains->at -= WINDOW;
        chains->end -= WINDOW;
        chains->block = chains->block >= WINDOW ? chains->block - WINDOW : INT_MAX;
        chains->base += WINDOW;
        if (chains->base > RENEWED) {
            uint32_t by = (uint32_t)chains->base - 1;
            forget_old(chains->head, HASHES, by);
            forget_old(chains->before, WINDOW, by);
            chains->base = 1;
        }
    }
    size_t room = (size_t)(2 * WINDOW - chains->end);
    if (room > length)
        room = length;
    memcpy(chains->window + chains->end, data, room);
    chains->end += (int)room;
    return room;
}

/* --- level 1 --- */

static void set(struct fast *fast, uint32_t value, int place) {
    uint32_t hash = value * 0x1e35a7bdu >> 18;
    fast->table[hash].value = value;
    fast->table[hash].place = place + fast->base;
}

/* Where four bytes were last seen, counted from the beginning of the block; INT_MIN if that is not known, or too far. */
static int seen(const struct fast *fast, uint32_t value, int at) {
    uint32_t hash = value * 0x1e35a7bdu >> 18;
    int place = fast->table[hash].place - fast->base;
    return fast->table[hash].value != value || at - place > WINDOW ? INT_MIN : place;
}

/* How many bytes are the same, of this block and what was at `place`, which may be in the one before. */
static int same_fast(const struct fast *fast, int at, int place) {
    int most = fast->filled - at < LS_LONGEST - 4 ? fast->filled - at : LS_LONGEST - 4;
    if (place >= 0)
        return same(fast->block + at, fast->block + place, most);
    if (fast->last_size + place < 0)
        return 0;
    int before = -place < most ? -place : most;
    int n = same(fast->block + at, fast->last + fast->last_size + place, before);
    return n < before ? n : n + same(fast->block + at + n, fast->block, most - n);
}

static void add_literals(struct ls_goflate *stream, int from, int to) {
    for (; from < to; from++)
        stream->tokens[stream->count++] = stream->fast->block[from];
}

/* The places in the table are kept small; those that are too far away by then are all the same. */
static void renew(struct fast *fast) {
    for (int i = 0; i < FAST_HASHES; i++) {
        if (!fast->last_size) {
            fast->table[i].place = 0;
            fast->table[i].value = 0;
        } else {
            int32_t place = fast->table[i].place - fast->base + WINDOW + 1;
            fast->table[i].place = place < 0 ? 0 : place;
        }
    }
    fast->base = WINDOW + 1;
}

static void look_fast(struct ls_goflate *stream) {
    struct fast *fast = stream->fast;
    const uint8_t *block = fast->block;
    int size = fast->filled, limit = size - MARGIN, from = 0, at = 0;
    if (fast->base >= INT32_MAX - 2 * LS_STORABLE)
        renew(fast);
    if (size < 2 + MARGIN) {
        fast->base += LS_STORABLE;
        fast->last_size = 0;
        add_literals(stream, 0, size);
        return;
    }
    uint32_t value = load(block);
    while (true) {
        int place;
        for (int skip = 32, next = at;;) {
            at = next;
            int step = skip >> 5; /* the longer nothing is found, the larger */
            next += step;
            skip += step;
            if (next > limit)
                goto rest;
            place = seen(fast, value, at);
            set(fast, value, at);
            if (place != INT_MIN)
                break;
            value = load(block + next);
        }
        add_literals(stream, from, at);
        while (place != INT_MIN) {
            int length = 4 + same_fast(fast, at + 4, place + 4);
            stream->tokens[stream->count++] = LS_MATCH(length, at - place);
            at += length;
            from = at;
            if (at >= limit)
                goto rest;
            set(fast, load(block + at - 1), at - 1);
            value = load(block + at);
            place = seen(fast, value, at);
            set(fast, value, at);
        }
        at++;
        value = load(block + at);
    }
rest:
    add_literals(stream, from, size);
    fast->base += size;
    memcpy(fast->last, block, (size_t)size);
    fast->last_size = size;
}

static int end_fast(struct ls_goflate *stream) {
    struct fast *fast = stream->fast;
    size_t size = (size_t)fast->filled;
    int rc;
    if (size < SMALL && size <= 16) {
        rc = size ? ls_block_stored(&stream->blocks, fast->block, size, false) : 0;
    } else if (size < SMALL) {
        rc = ls_block_literals(&stream->blocks, fast->block, size);
    } else {
        stream->count = 0;
        look_fast(stream);
        rc = (size_t)stream->count > size - size / 16
                 ? ls_block_literals(&stream->blocks, fast->block, size)
                 : ls_block_coded(&stream->blocks, stream->tokens, (size_t)stream->count, fast->block, size);
    }
    fast->filled = 0;
    return rc;
}

/* --- both --- */

int ls_goflate_feed(ls_goflate *stream, const uint8_t *data, size_t length) {
    while (length) {
        size_t taken;
        int rc = 0;
        if (stream->fast) {
            struct fast *fast = stream->fast;
            if (fast->filled == LS_STORABLE)
                rc = end_fast(stream);
            taken = (size_t)(LS_STORABLE - fast->filled);
            if (taken > length)
                taken = length;
            memcpy(fast->block + fast->filled, data, taken);
            fast->filled += (int)taken;
        } else {
            /* Go looks whenever it is given something. That is the same as to look when the window is full, but for blocks
             * that are not stored since their beginning has left it: there it is as for one who gives 32 KiB at a time. */
            if (stream->chains->end == 2 * WINDOW)
                rc = look(stream, false);
            taken = fill(stream->chains, data, length);
        }
        if (rc)
            return rc;
        data += taken;
        length -= taken;
    }
    return 0;
}

int ls_goflate_finish(ls_goflate *stream) {
    int rc = stream->fast ? end_fast(stream) : look(stream, true);
    return rc ?: ls_block_end(&stream->blocks);
}
