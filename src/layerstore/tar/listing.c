/* A tar that is kept as it came: where in it everything lies, instead of files. See index.h, "A listing". */
#define _GNU_SOURCE
#include "engine.h"

#include <fcntl.h>
#include <unistd.h>

int ls_unpack_keep(struct ls_unpack *unpack, int tar, const char *path) {
    unpack->tar = tar;
    unpack->tar_path = strdup(path);
    unpack->kept = ls_job_new(unpack->model.root);
    return unpack->tar_path && unpack->kept ? 0 : -ENOMEM;
}

void ls_unpack_stream(struct ls_unpack *unpack) {
    unpack->streamed = true;
}

int ls_keep_chunk(struct ls_unpack *unpack, size_t length, bool last) {
    if (!unpack->kept)
        return 0;
    if (length && ls_job_extend(&unpack->queue, unpack->kept, unpack->chunk, unpack->chunk->data, length))
        return ls_fail_memory(unpack);
    unpack->kept_given = true;
    ls_queue_put(&unpack->queue, unpack->kept, last);
    return 0;
}

int ls_keep_tar(struct ls_unpack *unpack, struct ls_job *job, struct ls_failure *failure) {
    int64_t position = 0, written_back = 0;
    int rc = 0;
    for (struct ls_segment *segment; !rc && (segment = ls_job_segment(&unpack->queue, job));
         ls_segment_done(&unpack->queue, segment)) {
        rc = ls_disk_write(unpack->tar, segment->data, segment->length, position, failure);
        position += (int64_t)segment->length;
        ls_write_back(unpack->tar, position, &written_back);
    }
    return rc ? ls_fail_at(failure, unpack->tar_path) : 0;
}

void ls_list_file(struct ls_unpack *unpack, struct ls_node *node) {
    if (node->type != LS_REGULAR)
        return;
    ls_xxh64_begin(&unpack->hash, 0);
    if (unpack->entry.payload)
        unpack->listed = node;
    else
        node->content = ls_xxh64_end(&unpack->hash);
}

void ls_list_data(struct ls_unpack *unpack, const uint8_t *data, size_t length) {
    ls_xxh64_add(&unpack->hash, data, length);
    if (unpack->remaining)
        return;
    unpack->listed->content = ls_xxh64_end(&unpack->hash);
    unpack->padded = unpack->listed;
    unpack->listed = NULL;
}

void ls_list_padding(struct ls_unpack *unpack, const uint8_t *data, size_t length) {
    static const uint8_t ZEROS[LS_BLOCK];
    if (unpack->padded && memcmp(data, ZEROS, length))
        unpack->padded->flags |= LS_TAILED;
}

static int hash_of(int fd, uint64_t *content, struct ls_failure *failure) {
    struct ls_xxh64 hash;
    LS_FREED uint8_t *buffer = malloc(LS_CHUNK);
    if (!buffer)
        return ls_fail(failure, "malloc", -ENOMEM);
    ls_xxh64_begin(&hash, 0);
    ssize_t got;
    for (int64_t position = 0; (got = ls_disk_read(fd, buffer, LS_CHUNK, position, failure)) > 0; position += got)
        ls_xxh64_add(&hash, buffer, (size_t)got);
    *content = ls_xxh64_end(&hash);
    return (int)got;
}

int ls_list_below(struct ls_unpack *unpack, struct ls_node *node, int fd, const struct ls_node *folder,
                  struct ls_part name) {
    LS_BYTES_FREED struct ls_bytes path = {0};
    int rc = ls_node_path(folder, &path);
    if (!rc && path.length)
        rc = ls_bytes_add(&path, "/", 1);
    if (rc || (rc = ls_bytes_add(&path, name.name, name.length)))
        return ls_fail(&unpack->said, "malloc", rc);
    free(node->link);
    if (!(node->link = strndup((char *)path.data, path.length)))
        return ls_fail(&unpack->said, "malloc", -ENOMEM);
    node->link_length = (uint32_t)path.length;
    unpack->remembered += node->link_length;
    LS_CLOSED int file = ls_open_again(fd, O_RDONLY);
    return file < 0 ? ls_fail(&unpack->said, "open", file) : hash_of(file, &node->content, &unpack->said);
}

static int put_place(const struct ls_unpack *unpack, const struct ls_node *node, struct ls_bytes *out) {
    bool link = node->type == LS_HARD_LINK, apart = link && node->target->parent == unpack->model.aside;
    const struct ls_node *own = apart ? node->target : link ? NULL : node;
    uint64_t source = own && own->type == LS_REGULAR && own->payload >= 0 ? (uint64_t)own->payload + 1 : 0;
    int rc = ls_bytes_number(out, source);
    rc = rc ?: ls_bytes_number(out, apart ? (uint64_t)own->linked + 1 : 0); /* the newest link is of it alone */
    rc = rc ?: ls_bytes_string(out, own ? own->xattrs : NULL, own ? own->xattrs_length : 0);
    bool words = own && own->link && (own->type == LS_SYMLINK || own->type == LS_REGULAR);
    return rc ?: ls_bytes_string(out, words ? own->link : NULL, words ? own->link_length : 0);
}

int ls_list_places(const struct ls_unpack *unpack, struct ls_bytes *out) {
    struct ls_node *root = unpack->model.root;
    int rc = ls_bytes_add(out, LS_PLACES_MAGIC, strlen(LS_PLACES_MAGIC));
    for (size_t i = 0; !rc && i < unpack->payloads.count; i++)
        rc = ls_bytes_number(out, (uint64_t)unpack->payloads.list[i].place);
    for (struct ls_node *node = root; !rc && node; node = ls_node_preorder(node, root))
        if (ls_is_indexed(node))
            rc = put_place(unpack, node, out);
    return rc;
}
