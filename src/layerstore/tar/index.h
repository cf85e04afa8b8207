/* The skeleton: everything of a layer's tar that is not file payload, and an index of what the layer's files should be.
 *
 * Stream: tokens, each a LEB128 number n. Even: n/2 bytes of the tar follow. Odd: n/2 bytes of payload stand here,
 * which the index says where to find.
 * Index: MAGIC; the number of payloads, and for each: size, XXH64, 0 and a path in the tree or 1 and a number in the
 * shadow folder, the number of extents and each extent's offset and length (none: the whole file from its start); then
 * the number of nodes and for each: path, type, flags, mode, uid, gid, mtime seconds and nanoseconds, size (of a
 * device: major and minor), XXH64 of content, XXH64 of xattrs, and of a hard link the path of its target. Hashes are 8
 * bytes, little endian; strings are a length and bytes; mtime seconds are zigzag.
 *
 * A listing is the skeleton of a layer whose tar is kept as it came. It has no stream, and its index ends with places:
 * PLACES; for each payload where it begins in the tar; and for each node: the number of its payload and 1, or 0; a number
 * that all names of one file of the link store have, or 0; its xattrs (xattrs.h) as a string; and a string of words: of a
 * symlink its target, of a file whose data are those of one below the path of that. */
#ifndef LS_INDEX_H
#define LS_INDEX_H
#include "model.h"

#define LS_INDEX_MAGIC "LSINDEX1"
#define LS_PLACES_MAGIC "LSPLACE1"

struct ls_index_payload {
    int64_t size;
    uint64_t content;
    bool shadowed;
    const uint8_t *path;
    size_t path_length;
    uint64_t shadow;
    uint64_t extents_count;
};

struct ls_index_node {
    const uint8_t *path, *target;
    size_t path_length, target_length;
    unsigned type, flags;
    uint32_t mode, uid, gid, mtime_ns, major, minor;
    int64_t mtime, size;
    uint64_t content, attributes;
};

static inline int ls_bytes_hash(struct ls_bytes *bytes, uint64_t hash) {
    uint8_t little[8];
    for (int i = 0; i < 8; i++)
        little[i] = (uint8_t)(hash >> (8 * i));
    return ls_bytes_add(bytes, little, 8);
}

static inline int ls_bytes_string(struct ls_bytes *bytes, const void *data, size_t length) {
    return ls_bytes_number(bytes, length) ?: ls_bytes_add(bytes, data, length);
}

static inline uint64_t ls_read_hash(struct ls_reader *reader) {
    const uint8_t *at = ls_read_bytes(reader, 8);
    uint64_t hash = 0;
    for (int i = 7; at && i >= 0; i--)
        hash = hash << 8 | at[i];
    return hash;
}

static inline const uint8_t *ls_read_string(struct ls_reader *reader, size_t *length) {
    *length = ls_read_number(reader);
    const uint8_t *at = ls_read_bytes(reader, *length);
    if (!at)
        *length = 0; /* a damaged one: no user of it may believe the number */
    return at;
}

/* After a payload's numbers its extents follow, each read with two ls_read_number. */
static inline int ls_index_put_payload(struct ls_bytes *out, const struct ls_index_payload *payload) {
    int rc = ls_bytes_number(out, (uint64_t)payload->size);
    rc = rc ?: ls_bytes_hash(out, payload->content);
    rc = rc ?: ls_bytes_number(out, payload->shadowed);
    if (payload->shadowed)
        rc = rc ?: ls_bytes_number(out, payload->shadow);
    else
        rc = rc ?: ls_bytes_string(out, payload->path, payload->path_length);
    return rc ?: ls_bytes_number(out, payload->extents_count);
}

static inline bool ls_index_get_payload(struct ls_reader *in, struct ls_index_payload *payload) {
    *payload = (struct ls_index_payload){0};
    payload->size = (int64_t)ls_read_number(in);
    payload->content = ls_read_hash(in);
    payload->shadowed = ls_read_number(in);
    if (payload->shadowed)
        payload->shadow = ls_read_number(in);
    else
        payload->path = ls_read_string(in, &payload->path_length);
    payload->extents_count = ls_read_number(in);
    return !in->bad && payload->size >= 0;
}

static inline int ls_index_put_node(struct ls_bytes *out, const struct ls_index_node *node) {
    int rc = ls_bytes_string(out, node->path, node->path_length);
    rc = rc ?: ls_bytes_number(out, node->type);
    rc = rc ?: ls_bytes_number(out, node->flags);
    rc = rc ?: ls_bytes_number(out, node->mode);
    rc = rc ?: ls_bytes_number(out, node->uid);
    rc = rc ?: ls_bytes_number(out, node->gid);
    rc = rc ?: ls_bytes_signed(out, node->mtime);
    rc = rc ?: ls_bytes_number(out, node->mtime_ns);
    if (node->type == LS_CHARACTER || node->type == LS_BLOCK_DEVICE) {
        rc = rc ?: ls_bytes_number(out, node->major);
        rc = rc ?: ls_bytes_number(out, node->minor);
    } else
        rc = rc ?: ls_bytes_number(out, (uint64_t)node->size);
    rc = rc ?: ls_bytes_hash(out, node->content);
    rc = rc ?: ls_bytes_hash(out, node->attributes);
    if (node->type == LS_HARD_LINK)
        rc = rc ?: ls_bytes_string(out, node->target, node->target_length);
    return rc;
}

static inline bool ls_index_get_node(struct ls_reader *in, struct ls_index_node *node) {
    *node = (struct ls_index_node){0};
    node->path = ls_read_string(in, &node->path_length);
    node->type = (unsigned)ls_read_number(in);
    node->flags = (unsigned)ls_read_number(in);
    node->mode = (uint32_t)ls_read_number(in);
    node->uid = (uint32_t)ls_read_number(in);
    node->gid = (uint32_t)ls_read_number(in);
    node->mtime = ls_read_signed(in);
    node->mtime_ns = (uint32_t)ls_read_number(in);
    if (node->type == LS_CHARACTER || node->type == LS_BLOCK_DEVICE) {
        node->major = (uint32_t)ls_read_number(in);
        node->minor = (uint32_t)ls_read_number(in);
    } else
        node->size = (int64_t)ls_read_number(in);
    node->content = ls_read_hash(in);
    node->attributes = ls_read_hash(in);
    if (node->type == LS_HARD_LINK)
        node->target = ls_read_string(in, &node->target_length);
    return !in->bad;
}

/* A piece of the tar as a token of the stream. */
static inline int ls_skeleton_raw(struct ls_bytes *stream, const void *data, size_t length) {
    return length ? ls_bytes_number(stream, (uint64_t)length << 1) ?: ls_bytes_add(stream, data, length) : 0;
}
static inline int ls_skeleton_payload(struct ls_bytes *stream, int64_t size) {
    return ls_bytes_number(stream, (uint64_t)size << 1 | 1);
}
#endif
