/* The index, read for whoever wants to know what is in a layer. See entries.h. */
#define _GNU_SOURCE
#include "entries.h"
#include "index.h"

static struct ls_reader rest(const struct ls_entries *entries) {
    return (struct ls_reader){entries->index + entries->at, entries->index + entries->length, false};
}

static int stop_at(struct ls_entries *entries, const struct ls_reader *reader) {
    entries->at = (size_t)(reader->at - entries->index);
    return reader->bad ? -EBADMSG : 0;
}

int ls_entries_begin(struct ls_entries *entries, const uint8_t *index, size_t length) {
    *entries = (struct ls_entries){.index = index, .length = length};
    struct ls_reader reader = rest(entries);
    size_t magic = strlen(LS_INDEX_MAGIC);
    const uint8_t *begin = ls_read_bytes(&reader, magic);
    reader.bad |= !begin || memcmp(begin, LS_INDEX_MAGIC, magic);
    entries->payloads_left = ls_read_number(&reader);
    return stop_at(entries, &reader);
}

static uint64_t place_of(const struct ls_entries *entries, const uint8_t *text) {
    return text ? (uint64_t)(text - entries->index) : 0;
}

int ls_entries_sparse(struct ls_entries *entries, struct ls_record *records, int room) {
    struct ls_reader reader = rest(entries);
    struct ls_index_payload payload;
    int count = 0;
    for (; count < room && entries->payloads_left; entries->payloads_left--) {
        reader.bad |= !ls_index_get_payload(&reader, &payload);
        for (uint64_t n = 0; n < payload.extents_count && !reader.bad; n++) {
            ls_read_number(&reader);
            ls_read_number(&reader);
        }
        if (reader.bad)
            return stop_at(entries, &reader);
        if (payload.extents_count && payload.path)
            records[count++] = (struct ls_record){
                .path_at = place_of(entries, payload.path),
                .path_length = (uint32_t)payload.path_length,
                .size = payload.size,
            };
    }
    if (!count)
        entries->left = ls_read_number(&reader);
    return stop_at(entries, &reader) ?: count;
}

int ls_entries_next(struct ls_entries *entries, struct ls_record *records, int room) {
    struct ls_reader reader = rest(entries);
    struct ls_index_node node;
    int count = 0;
    for (; count < room && entries->left; count++, entries->left--) {
        if (!ls_index_get_node(&reader, &node))
            return stop_at(entries, &reader);
        records[count] = (struct ls_record){
            .path_at = place_of(entries, node.path),
            .target_at = place_of(entries, node.target),
            .content = node.content,
            .attributes = node.attributes,
            .size = node.size,
            .mtime = node.mtime,
            .path_length = (uint32_t)node.path_length,
            .target_length = (uint32_t)node.target_length,
            .type = node.type,
            .flags = node.flags,
            .mode = node.mode,
            .uid = node.uid,
            .gid = node.gid,
            .mtime_ns = node.mtime_ns,
            .major = node.major,
            .minor = node.minor,
        };
    }
    return stop_at(entries, &reader) ?: count;
}
