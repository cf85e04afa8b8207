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

static bool next_payload(struct ls_reader *reader, struct ls_index_payload *payload) {
    if (!ls_index_get_payload(reader, payload))
        return false;
    for (uint64_t n = 0; n < payload->extents_count && !reader->bad; n++) {
        ls_read_number(reader);
        ls_read_number(reader);
    }
    return !reader->bad;
}

int ls_entries_sparse(struct ls_entries *entries, struct ls_record *records, int room) {
    struct ls_reader reader = rest(entries);
    struct ls_index_payload payload;
    int count = 0;
    for (; count < room && entries->payloads_left; entries->payloads_left--) {
        if (!next_payload(&reader, &payload)) {
            reader.bad = true;
            return stop_at(entries, &reader);
        }
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

int64_t ls_laid_in(const uint8_t *index, size_t length, int64_t least, struct ls_laid *laid, int64_t room) {
    struct ls_entries entries;
    struct ls_index_payload payload;
    struct ls_index_node node;
    int rc = ls_entries_begin(&entries, index, length);
    if (rc)
        return rc;
    struct ls_reader payloads = rest(&entries), places = payloads; /* the places come after payloads and nodes */
    for (uint64_t n = 0; n < entries.payloads_left && next_payload(&places, &payload); n++)
        continue;
    uint64_t nodes = ls_read_number(&places);
    for (uint64_t n = 0; n < nodes && ls_index_get_node(&places, &node); n++)
        continue;
    const uint8_t *magic = ls_read_bytes(&places, strlen(LS_PLACES_MAGIC));
    places.bad |= !magic || memcmp(magic, LS_PLACES_MAGIC, strlen(LS_PLACES_MAGIC));
    int64_t count = 0;
    for (uint64_t n = 0; n < entries.payloads_left && !places.bad && next_payload(&payloads, &payload); n++) {
        int64_t place = (int64_t)ls_read_number(&places);
        if (payload.size < least || places.bad)
            continue;
        if (count < room)
            laid[count] = (struct ls_laid){payload.content, payload.size, place};
        count++;
    }
    return places.bad || payloads.bad ? -EBADMSG : count;
}
