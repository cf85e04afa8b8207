/* A byte string that grows and ends with a NUL that is not counted, and the variable-length numbers that the skeleton is written in. */
#ifndef LS_BYTES_H
#define LS_BYTES_H
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct ls_bytes {
    uint8_t *data;
    size_t length, room;
};

static inline int ls_bytes_reserve(struct ls_bytes *bytes, size_t more) {
    if (bytes->room - bytes->length >= more)
        return 0;
    if (more > SIZE_MAX / 4 || bytes->length > SIZE_MAX / 4)
        return -ENOMEM;
    size_t room = bytes->room ? bytes->room * 2 : 256;
    while (room - bytes->length < more)
        room *= 2;
    uint8_t *data = realloc(bytes->data, room);
    if (!data)
        return -ENOMEM;
    bytes->data = data;
    bytes->room = room;
    return 0;
}

static inline int ls_bytes_add(struct ls_bytes *bytes, const void *data, size_t length) {
    int rc = length < SIZE_MAX / 4 ? ls_bytes_reserve(bytes, length + 1) : -ENOMEM;
    if (rc)
        return rc;
    if (length)
        memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
    bytes->data[bytes->length] = 0;
    return 0;
}

static inline int ls_bytes_set(struct ls_bytes *bytes, const void *data, size_t length) {
    bytes->length = 0;
    return ls_bytes_add(bytes, data, length);
}

static inline int ls_bytes_text(struct ls_bytes *bytes, const char *text) {
    return ls_bytes_add(bytes, text, strlen(text));
}

/* Sets it to the path of `name` in `folder`, which is "" for the root. */
static inline int ls_bytes_path(struct ls_bytes *bytes, const char *folder, const char *name) {
    bytes->length = 0;
    int rc = *folder ? ls_bytes_text(bytes, folder) ?: ls_bytes_add(bytes, "/", 1) : 0;
    return rc ?: ls_bytes_text(bytes, name);
}

/* Does text of `length` bytes, which need not end with NUL, begin so? */
static inline bool ls_begins(const void *text, size_t length, const char *prefix) {
    return length >= strlen(prefix) && !memcmp(text, prefix, strlen(prefix));
}

static inline void ls_bytes_free(struct ls_bytes *bytes) {
    free(bytes->data);
    *bytes = (struct ls_bytes){0};
}

/* As in scope.h. */
#define LS_BYTES_FREED __attribute__((cleanup(ls_bytes_free)))

/* LEB128: seven bits a byte, least significant first. */
static inline int ls_bytes_number(struct ls_bytes *bytes, uint64_t value) {
    uint8_t text[10];
    size_t length = 0;
    do {
        text[length] = (uint8_t)(value & 0x7f) | (value > 0x7f ? 0x80 : 0);
        value >>= 7;
        length++;
    } while (value);
    return ls_bytes_add(bytes, text, length);
}

static inline int ls_bytes_signed(struct ls_bytes *bytes, int64_t value) {
    return ls_bytes_number(bytes, ((uint64_t)value << 1) ^ (uint64_t)(value >> 63));
}

/* Reading the same back, from data that may be damaged. */
struct ls_reader {
    const uint8_t *at, *end;
    bool bad;
};

static inline uint64_t ls_read_number(struct ls_reader *reader) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
        uint8_t byte = *reader->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
    reader->bad = true;
    return 0;
}

static inline int64_t ls_read_signed(struct ls_reader *reader) {
    uint64_t value = ls_read_number(reader);
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

static inline const uint8_t *ls_read_bytes(struct ls_reader *reader, size_t length) {
    if ((size_t)(reader->end - reader->at) < length) {
        reader->bad = true;
        return NULL;
    }
    const uint8_t *at = reader->at;
    reader->at += length;
    return at;
}
#endif
