/* The stream: blocks to headers to entries, and what of the tar goes into the skeleton. Knows no name and no file.
 *
 * Every byte that is fed goes one of two ways: as payload to a writer, or into the skeleton. */
#define _GNU_SOURCE
#include "engine.h"

enum { RAW_MAX = 65536 };

/* --- the skeleton ------------------------------------------------------------------------------------------------- */

static int flush_raw(struct ls_unpack *unpack) {
    int rc = ls_skeleton_raw(&unpack->stream, unpack->raw.data, unpack->raw.length);
    unpack->raw.length = 0;
    return rc;
}

static int keep_raw(struct ls_unpack *unpack, const void *data, size_t length) {
    if (ls_is_listed(unpack) && !unpack->streamed) /* the tar stays */
        return 0;
    int rc = ls_bytes_add(&unpack->raw, data, length);
    return rc ?: unpack->raw.length >= RAW_MAX ? flush_raw(unpack) : 0;
}

/* --- the stream --------------------------------------------------------------------------------------------------- */

static int entry_complete(struct ls_unpack *unpack) {
    unpack->remaining = unpack->entry.payload;
    unpack->padding = ls_padding_of(unpack->entry.payload);
    unpack->in_entry = false;
    unpack->padded = NULL;
    int rc = ls_place(unpack);
    if (rc)
        return rc;
    bool is_data = unpack->listed || unpack->job;
    if (is_data && (unpack->job || unpack->streamed)) {
        if (flush_raw(unpack) || ls_skeleton_payload(&unpack->stream, unpack->entry.payload))
            return ls_fail_memory(unpack);
    } else if (!is_data)
        unpack->remaining += unpack->padding;
    unpack->state = is_data ? LS_IN_PAYLOAD : unpack->remaining ? LS_IN_RAW : LS_AT_HEADER;
    return 0;
}

static int entry_header(struct ls_unpack *unpack, const uint8_t *block) {
    const char *why = NULL;
    int rc = ls_entry_header(&unpack->entry, block, &why);
    if (rc)
        return ls_fail_reading(unpack, rc, why);
    if (unpack->entry.sparse && unpack->entry.extents_continue)
        unpack->state = LS_IN_EXTENTS;
    else if (unpack->entry.extents_in_body) {
        unpack->state = LS_IN_MAP;
        unpack->body.length = 0;
    } else
        return entry_complete(unpack);
    return 0;
}

static int header(struct ls_unpack *unpack, const uint8_t *block) {
    const char *why = NULL;
    int type = ls_block_type(block, &why);
    if (type < 0)
        return ls_fail_reading(unpack, type, why);
    if (keep_raw(unpack, block, LS_BLOCK))
        return ls_fail_memory(unpack);
    if (type == 0) {
        unpack->state = unpack->zero_block ? LS_AT_END : LS_AT_HEADER;
        unpack->zero_block = true;
        return unpack->in_entry ? ls_fail_entry(unpack, "an extension header stands before no entry") : 0;
    }
    if (unpack->zero_block)
        return ls_fail_entry(unpack, "a block of zeros in the middle of the tar");
    if (!unpack->in_entry && type != 'g') {
        ls_entry_reset(&unpack->entry);
        unpack->headers_size = 0;
        unpack->in_entry = true;
    }
    if (!ls_is_extension(type))
        return entry_header(unpack, block);
    if ((unpack->body_size = ls_block_size(block, &why)) < 0)
        return ls_fail_reading(unpack, (int)unpack->body_size, why);
    int64_t size = unpack->body_size + (type == 'g' ? 0 : unpack->headers_size);
    if (size > unpack->limits.header)
        return ls_fail_limit(unpack, "max-pax-header", size);
    unpack->headers_size = type == 'g' ? unpack->headers_size : size;
    unpack->extension = type;
    unpack->body.length = 0;
    unpack->remaining = unpack->body_size + ls_padding_of(unpack->body_size);
    unpack->state = LS_IN_EXTENSION;
    return 0;
}

static int extension(struct ls_unpack *unpack) {
    const char *why = NULL;
    int rc = ls_entry_extension(&unpack->entry, unpack->extension, unpack->body.data, (size_t)unpack->body_size, &why);
    unpack->state = LS_AT_HEADER;
    return rc ? ls_fail_reading(unpack, rc, why) : 0;
}

static int sparse_map(struct ls_unpack *unpack) {
    const char *why = NULL;
    size_t used;
    if ((int64_t)unpack->body.length > unpack->limits.header)
        return ls_fail_limit(unpack, "max-pax-header", (int64_t)unpack->body.length);
    int rc = ls_entry_map(&unpack->entry, unpack->body.data, unpack->body.length, &used, &why);
    if (rc < 0)
        return ls_fail_reading(unpack, rc, why);
    if (rc == 1)
        return (int64_t)unpack->body.length < unpack->entry.payload
                   ? 0
                   : ls_fail_entry(unpack, "a sparse map does not fit its payload");
    unpack->entry.payload -= (int64_t)used;
    return unpack->entry.payload < 0 ? ls_fail_entry(unpack, "a sparse map does not fit its payload")
                                     : entry_complete(unpack);
}

static int payload(struct ls_unpack *unpack, const uint8_t *data, size_t length) {
    unpack->remaining -= (int64_t)length;
    if (unpack->listed)
        ls_list_data(unpack, data, length);
    else if (ls_job_extend(&unpack->queue, unpack->job, unpack->chunk, data, length))
        return ls_fail_memory(unpack);
    else
        ls_queue_put(&unpack->queue, unpack->job, !unpack->remaining);
    if (unpack->remaining)
        return 0;
    unpack->job = NULL;
    unpack->remaining = unpack->padding;
    unpack->state = unpack->remaining ? LS_IN_RAW : LS_AT_HEADER;
    return 0;
}

static int consume(struct ls_unpack *unpack, const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        size_t have = (size_t)(end - at), part;
        int rc = 0;
        switch (unpack->state) {
        case LS_AT_HEADER:
        case LS_IN_EXTENTS:
        case LS_IN_MAP:
            if (have < LS_BLOCK)
                return ls_fail_entry(unpack, "the tar is cut short");
            unpack->entry_end = unpack->chunk_at + (at - unpack->chunk->data) + LS_BLOCK;
            if (unpack->state == LS_AT_HEADER)
                rc = header(unpack, at);
            else if (keep_raw(unpack, at, LS_BLOCK))
                rc = ls_fail_memory(unpack);
            else if (unpack->state == LS_IN_EXTENTS) {
                const char *why = NULL;
                if ((rc = ls_entry_more_extents(&unpack->entry, at, &why)))
                    rc = ls_fail_reading(unpack, rc, why);
                else if ((rc = ls_keep_limits(unpack, ls_extents_size(&unpack->entry))))
                    return rc;
                else if (!unpack->entry.extents_continue)
                    rc = entry_complete(unpack);
            } else
                rc = ls_bytes_add(&unpack->body, at, LS_BLOCK) ? ls_fail_memory(unpack) : sparse_map(unpack);
            at += LS_BLOCK;
            break;
        case LS_IN_EXTENSION:
            part = (int64_t)have < unpack->remaining ? have : (size_t)unpack->remaining;
            if (keep_raw(unpack, at, part) || ls_bytes_add(&unpack->body, at, part))
                return ls_fail_memory(unpack);
            at += part;
            if (!(unpack->remaining -= (int64_t)part))
                rc = extension(unpack);
            break;
        case LS_IN_PAYLOAD:
            part = (int64_t)have < unpack->remaining ? have : (size_t)unpack->remaining;
            rc = payload(unpack, at, part);
            at += part;
            break;
        case LS_IN_RAW:
            part = (int64_t)have < unpack->remaining ? have : (size_t)unpack->remaining;
            if (keep_raw(unpack, at, part))
                return ls_fail_memory(unpack);
            ls_list_padding(unpack, at, part);
            at += part;
            if (!(unpack->remaining -= (int64_t)part))
                unpack->state = LS_AT_HEADER;
            break;
        case LS_AT_END: /* what follows the end of the archive belongs to the blob, and so to the DiffID */
            if (keep_raw(unpack, at, have))
                return ls_fail_memory(unpack);
            at = end;
            break;
        }
        if (rc)
            return rc;
    }
    return 0;
}

uint8_t *ls_unpack_chunk(struct ls_unpack *unpack) {
    if (!unpack->chunk && !(unpack->chunk = ls_queue_chunk(&unpack->queue)) && !ls_failed(unpack))
        ls_fail_memory(unpack);
    return unpack->chunk ? unpack->chunk->data : NULL;
}

int ls_unpack_feed(struct ls_unpack *unpack, size_t length, int last) {
    if (!unpack->chunk || length > LS_CHUNK || (length < LS_CHUNK && !last))
        return ls_fail_system(unpack, -EINVAL, "ls_unpack_feed", unpack->model.root);
    int rc = ls_keep_chunk(unpack, length, last) ?: consume(unpack, unpack->chunk->data, unpack->chunk->data + length);
    ls_queue_release(&unpack->queue, unpack->chunk);
    unpack->chunk = NULL;
    unpack->chunk_at += (int64_t)length;
    if (!rc && last && (unpack->state != LS_AT_HEADER || unpack->in_entry) && unpack->state != LS_AT_END)
        rc = ls_fail_entry(unpack, "the tar is cut short");
    return rc ? rc : ls_failed(unpack);
}

int64_t ls_unpack_awaited(const struct ls_unpack *unpack) {
    return unpack->state == LS_IN_PAYLOAD ? unpack->remaining : 0;
}
