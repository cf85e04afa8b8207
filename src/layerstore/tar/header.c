/* Writing tar headers. Deterministic: records in the order of their keys, no names of users, no time but the file's. */
#include "header.h"

#include <stdio.h>

enum { NAME_ROOM = 100 };

static bool is_plain(const uint8_t *text, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (text[i] >= 0x80)
            return false;
    return length <= NAME_ROOM;
}

/* "LENGTH KEY=VALUE\n", where LENGTH counts its own digits too. */
static int record(struct ls_bytes *out, const char *key, size_t key_length, const void *value, size_t length) {
    char digits[24];
    size_t rest = key_length + length + 3, size = rest;
    int width;
    do {
        width = snprintf(digits, sizeof digits, "%zu", size);
        if (rest + (size_t)width == size)
            break;
        size = rest + (size_t)width;
    } while (1);
    return ls_bytes_add(out, digits, (size_t)width) ?: ls_bytes_add(out, " ", 1) ?: ls_bytes_add(out, key, key_length)
        ?: ls_bytes_add(out, "=", 1) ?: ls_bytes_add(out, value, length) ?: ls_bytes_add(out, "\n", 1);
}

static int text_record(struct ls_bytes *out, const char *key, const void *value, size_t length) {
    return record(out, key, strlen(key), value, length);
}

static int number_record(struct ls_bytes *out, const char *key, uint64_t value) {
    char text[24];
    return text_record(out, key, text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)value));
}

/* Seconds and as many decimals as needed; before 1970 the fraction counts away from zero. */
static int time_record(struct ls_bytes *out, int64_t seconds, uint32_t ns) {
    char text[48];
    bool negative = seconds < 0;
    uint64_t whole = negative ? (uint64_t)-(seconds + (ns ? 1 : 0)) : (uint64_t)seconds;
    uint32_t fraction = negative && ns ? 1000000000 - ns : ns;
    int length = snprintf(text, sizeof text, fraction ? "%s%llu.%09u" : "%s%llu", negative ? "-" : "",
                          (unsigned long long)whole, fraction);
    while (fraction && text[length - 1] == '0')
        length--;
    return text_record(out, "mtime", text, (size_t)length);
}

static int xattr_records(struct ls_bytes *out, const struct ls_bytes *xattrs) {
    struct ls_reader reader = {xattrs->data, xattrs->data + xattrs->length, false};
    struct ls_xattr xattr;
    struct ls_bytes key = {0};
    int rc = 0;
    while (!rc && xattrs->length && ls_xattr_next(&reader, &xattr)) {
        rc = ls_bytes_set(&key, "SCHILY.xattr.", 13) ?: ls_bytes_add(&key, xattr.name, xattr.name_length);
        rc = rc ?: record(out, (char *)key.data, key.length, xattr.value, xattr.value_length);
    }
    ls_bytes_free(&key);
    return rc;
}

static void octal(uint8_t *field, int digits, uint64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%0*llo", digits, (unsigned long long)value);
    memcpy(field, text, (size_t)digits);
}

static char letter(unsigned type) {
    static const char LETTERS[] = {[LS_REGULAR] = '0',   [LS_HARD_LINK] = '1',    [LS_SYMLINK] = '2',
                                   [LS_CHARACTER] = '3', [LS_BLOCK_DEVICE] = '4', [LS_DIRECTORY] = '5',
                                   [LS_FIFO] = '6'};
    return LETTERS[type];
}

static void fill(uint8_t block[LS_BLOCK], const uint8_t *name, size_t name_length, const struct ls_index_node *node,
                 char type, uint64_t size, const char *link) {
    enum { UID_MAX = 07777777 };
    uint64_t most = 077777777777;
    memset(block, 0, LS_BLOCK);
    memcpy(block, name, name_length < NAME_ROOM ? name_length : NAME_ROOM);
    octal(block + 100, 7, node->mode);
    octal(block + 108, 7, node->uid <= UID_MAX ? node->uid : 0);
    octal(block + 116, 7, node->gid <= UID_MAX ? node->gid : 0);
    octal(block + 124, 11, size <= most ? size : 0);
    octal(block + 136, 11, node->mtime < 0 ? 0 : (uint64_t)node->mtime <= most ? (uint64_t)node->mtime : most);
    memset(block + 148, ' ', 8);
    block[156] = (uint8_t)type;
    size_t link_length = strlen(link);
    memcpy(block + 157, link, link_length < NAME_ROOM ? link_length : NAME_ROOM);
    memcpy(block + 257, "ustar\00000", 8);
    octal(block + 329, 7, node->major);
    octal(block + 337, 7, node->minor);
    uint64_t sum = 0;
    for (size_t i = 0; i < LS_BLOCK; i++)
        sum += block[i];
    octal(block + 148, 6, sum);
    block[154] = 0;
}

static int add_padded(struct ls_bytes *out, const struct ls_bytes *body) {
    static const uint8_t zeros[LS_BLOCK];
    return ls_bytes_add(out, body->data, body->length)
               ?: ls_bytes_add(out, zeros, (size_t)ls_padding_of((int64_t)body->length));
}

int ls_header_put(struct ls_bytes *out, const struct ls_index_node *node, const struct ls_bytes *xattrs,
                  const char *link) {
    uint8_t block[LS_BLOCK];
    struct ls_bytes name = {0}, pax = {0};
    bool folder = node->type == LS_DIRECTORY;
    uint64_t size = node->type == LS_REGULAR ? (uint64_t)node->size : 0;
    int rc = node->path_length ? ls_bytes_add(&name, node->path, node->path_length) : ls_bytes_add(&name, ".", 1);
    if (!rc && folder)
        rc = ls_bytes_add(&name, "/", 1);
    rc = rc ?: xattr_records(&pax, xattrs);
    if (!rc && node->gid > 07777777)
        rc = number_record(&pax, "gid", node->gid);
    if (!rc && !is_plain((const uint8_t *)link, strlen(link)))
        rc = text_record(&pax, "linkpath", link, strlen(link));
    if (!rc && (node->mtime_ns || node->mtime < 0 || node->mtime > 077777777777))
        rc = time_record(&pax, node->mtime, node->mtime_ns);
    if (!rc && !is_plain(name.data, name.length))
        rc = text_record(&pax, "path", name.data, name.length);
    if (!rc && size > 077777777777)
        rc = number_record(&pax, "size", size);
    if (!rc && node->uid > 07777777)
        rc = number_record(&pax, "uid", node->uid);
    if (!rc && pax.length) {
        struct ls_index_node carrier = {.type = LS_REGULAR, .mode = 0644};
        static const char NAME[] = "PaxHeaders/entry";
        fill(block, (const uint8_t *)NAME, sizeof NAME - 1, &carrier, 'x', pax.length, "");
        rc = ls_bytes_add(out, block, LS_BLOCK) ?: add_padded(out, &pax);
    }
    if (!rc) {
        fill(block, name.data, name.length, node, letter(node->type), size, link);
        rc = ls_bytes_add(out, block, LS_BLOCK);
    }
    ls_bytes_free(&name);
    ls_bytes_free(&pax);
    return rc;
}
