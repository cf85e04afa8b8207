/* The unpacker as a whole: its life, its failures, its folders, and what it found out.
 *
 * The tar is read in stream.c; place.c says what an entry means, with resolve.c, replace.c and link.c; write.c makes
 * files, in threads of their own; finish.c ends it. */
#define _GNU_SOURCE
#include "engine.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* A directory that no entry describes, nor any layer below: as umoci has it, of no time. The same on every host. */
void ls_default_folder(struct ls_node *node) {
    node->type = LS_DIRECTORY;
    node->mode = 0755;
    node->uid = node->gid = 0;
    node->mtime = 0, node->mtime_ns = 0;
    free(node->xattrs);
    node->xattrs = NULL, node->xattrs_length = 0;
    node->attributes = ls_xattrs_hash(NULL, 0);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct ls_unpack *ls_unpack_new(int tree, int below, int dialect, const char *shadow) {
    struct ls_unpack *unpack = calloc(1, sizeof *unpack);
    if (!unpack)
        return NULL;
    unpack->disk = (struct ls_disk){.tree = tree,
                                    .dialect = dialect,
                                    .plain_owner = dialect != LS_DIALECT_MERGED && geteuid() == 0 && getegid() == 0};
    unpack->limits = (struct ls_unpack_limits){INT64_MAX, INT64_MAX, INT64_MAX};
    unpack->below = below;
    unpack->shadow = unpack->shadow_apart = -1;
    unpack->here.fd = unpack->there.fd = -1;
    ls_queue_begin(&unpack->queue);
    unpack->shadow_path = strdup(shadow);
    if (!unpack->shadow_path || ls_model_begin(&unpack->model)) {
        ls_unpack_free(unpack);
        return NULL;
    }
    return unpack;
}

void ls_unpack_limit(struct ls_unpack *unpack, const struct ls_unpack_limits *limits) {
    unpack->limits = *limits;
}

int ls_unpack_begin(struct ls_unpack *unpack) {
    struct ls_node *root = unpack->model.root;
    bool merged = unpack->disk.dialect == LS_DIALECT_MERGED;
    ls_default_folder(root);
    if (unpack->below >= 0) {
        root->flags = LS_MADE | LS_BELOW | (merged ? 0 : LS_IMPLIED);
        if (ls_disk_learn(unpack->below, root, &unpack->said))
            return ls_failed_at(unpack, root);
        if (merged)
            return 0;
    }
    if (ls_is_listed(unpack))
        return 0;
    /* what the folder inherited from its parent is not the layer's */
    if (ls_acls_drop(unpack->disk.tree, &unpack->said))
        return ls_failed_at(unpack, root);
    return fchmod(unpack->disk.tree, 0700) ? ls_fail_system(unpack, -errno, "fchmod", root) : 0;
}

void ls_unpack_free(struct ls_unpack *unpack) {
    if (!unpack)
        return;
    if (unpack->job && !unpack->job->queued)
        ls_job_drop(&unpack->queue, unpack->job);
    if (unpack->kept && !unpack->kept_given)
        ls_job_drop(&unpack->queue, unpack->kept);
    if (unpack->chunk)
        ls_queue_release(&unpack->queue, unpack->chunk);
    ls_queue_end(&unpack->queue);
    ls_cursor_close(&unpack->here);
    ls_cursor_close(&unpack->there);
    if (unpack->shadow >= 0)
        close(unpack->shadow);
    if (unpack->shadow_apart >= 0)
        close(unpack->shadow_apart);
    ls_model_end(&unpack->model);
    ls_entry_free(&unpack->entry);
    for (size_t i = 0; i < unpack->payloads.count; i++)
        free(unpack->payloads.list[i].extents);
    for (size_t i = 0; i < unpack->links.count; i++)
        free(unpack->links.list[i].wanted);
    ls_array_free(&unpack->payloads);
    ls_array_free(&unpack->links);
    ls_array_free(&unpack->parts);
    ls_array_free(&unpack->link_parts);
    free(unpack->shadow_path);
    free(unpack->tar_path);
    struct ls_bytes *owned[] = {&unpack->body,  &unpack->raw,     &unpack->stream,
                                &unpack->index, &unpack->implied, &unpack->notices};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        ls_bytes_free(owned[i]);
    free(unpack);
}

/* --- failures and notices ----------------------------------------------------------------------------------------- */

static int note(struct ls_unpack *unpack, const struct ls_failure *failure) {
    pthread_mutex_lock(&unpack->queue.lock);
    ls_failure_keep(&unpack->failure, failure);
    pthread_mutex_unlock(&unpack->queue.lock);
    ls_queue_fail(&unpack->queue);
    return -failure->code;
}

int ls_note(struct ls_unpack *unpack, struct ls_failure *failure, const struct ls_node *node) {
    LS_BYTES_FREED struct ls_bytes path = {0};
    if (!ls_node_path(node, &path)) /* else it is told without */
        ls_fail_at(failure, (char *)path.data);
    return note(unpack, failure);
}

int ls_failed_at(struct ls_unpack *unpack, const struct ls_node *node) {
    return ls_note(unpack, &unpack->said, node);
}

int ls_failed_outside(struct ls_unpack *unpack, const char *path) {
    ls_fail_at(&unpack->said, path);
    return note(unpack, &unpack->said);
}

int ls_fail_archive(struct ls_unpack *unpack, const char *sentence, const void *path, size_t length) {
    ls_fail_as(&unpack->said, LS_FAIL_ARCHIVE, EBADMSG, sentence, path, length);
    return note(unpack, &unpack->said);
}

int ls_fail_entry(struct ls_unpack *unpack, const char *sentence) {
    return ls_fail_archive(unpack, sentence, unpack->entry.name.data, unpack->entry.name.length);
}

int ls_fail_limit(struct ls_unpack *unpack, const char *setting, int64_t met) {
    unpack->result.met = met;
    ls_fail_as(&unpack->said, LS_FAIL_LIMIT, E2BIG, setting, unpack->entry.name.data, unpack->entry.name.length);
    return note(unpack, &unpack->said);
}

int ls_keep_limits(struct ls_unpack *unpack, int64_t more) {
    int64_t names = (int64_t)unpack->model.node_count;
    int64_t entries = unpack->result.entries > names ? unpack->result.entries : names;
    if (entries > unpack->limits.entries)
        return ls_fail_limit(unpack, "max-layer-entries", entries);
    int64_t memory = unpack->model.bytes + unpack->remembered + (int64_t)unpack->notices.length + more;
    return memory > unpack->limits.memory ? ls_fail_limit(unpack, "max-layer-memory", memory) : 0;
}

int ls_fail_dialect(struct ls_unpack *unpack, const char *sentence, const struct ls_node *node) {
    ls_fail_as(&unpack->said, LS_FAIL_DIALECT, ENAMETOOLONG, sentence, "", 0);
    return ls_failed_at(unpack, node);
}

int ls_fail_system(struct ls_unpack *unpack, int code, const char *call, const struct ls_node *node) {
    ls_fail(&unpack->said, call, code);
    return ls_failed_at(unpack, node);
}

int ls_fail_memory(struct ls_unpack *unpack) {
    ls_fail(&unpack->said, "malloc", -ENOMEM);
    return note(unpack, &unpack->said);
}

int ls_fail_reading(struct ls_unpack *unpack, int rc, const char *sentence) {
    return rc == -EBADMSG ? ls_fail_entry(unpack, sentence) : ls_fail_memory(unpack);
}

int ls_failed(struct ls_unpack *unpack) {
    pthread_mutex_lock(&unpack->queue.lock);
    int rc = unpack->failure.code ? -unpack->failure.code : unpack->queue.failed ? -ECANCELED : 0;
    pthread_mutex_unlock(&unpack->queue.lock);
    return rc;
}

void ls_unpack_failure(struct ls_unpack *unpack, struct ls_failure *failure) {
    pthread_mutex_lock(&unpack->queue.lock);
    *failure = unpack->failure;
    pthread_mutex_unlock(&unpack->queue.lock);
}

int ls_notice(struct ls_unpack *unpack, const char *kind, const struct ls_node *node) {
    LS_BYTES_FREED struct ls_bytes path = {0};
    int rc = ls_node_path(node, &path);
    rc = rc ?: ls_bytes_add(&unpack->notices, kind, strlen(kind) + 1);
    return rc ?: ls_bytes_add(&unpack->notices, path.data, path.length + 1);
}

/* --- folders ------------------------------------------------------------------------------------------------------ */

int ls_folder(struct ls_unpack *unpack, struct ls_cursor *cursor, const struct ls_node *folder) {
    return ls_disk_folder(&unpack->disk, cursor, folder, unpack->generation, &unpack->said);
}

int ls_make_folders(struct ls_unpack *unpack, struct ls_node *folder) {
    for (struct ls_node *at = folder; ls_is_listed(unpack) && !(at->flags & LS_MADE); at = at->parent)
        at->flags |= LS_MADE;
    while (!(folder->flags & LS_MADE)) {
        struct ls_node *top = folder; /* the highest one missing; its parent is there */
        while (!(top->parent->flags & LS_MADE))
            top = top->parent;
        int fd = ls_folder(unpack, &unpack->here, top->parent);
        if (fd < 0 || ls_disk_directory(&unpack->disk, fd, top, &unpack->said))
            return ls_failed_at(unpack, top);
        top->flags |= LS_MADE;
    }
    return 0;
}

void ls_mark_filled(struct ls_node *folder) {
    for (; folder && !(folder->flags & LS_FILLED); folder = folder->parent)
        folder->flags |= LS_FILLED;
}

/* --- what was found out ------------------------------------------------------------------------------------------- */

size_t ls_unpack_skeleton(struct ls_unpack *unpack, const uint8_t **data) {
    *data = unpack->stream.data;
    return unpack->stream.length;
}

void ls_unpack_taken(struct ls_unpack *unpack) {
    unpack->stream.length = 0;
}

void ls_unpack_stop(struct ls_unpack *unpack) {
    ls_queue_fail(&unpack->queue);
}

size_t ls_unpack_index(struct ls_unpack *unpack, const uint8_t **data) {
    *data = unpack->index.data;
    return unpack->index.length;
}

size_t ls_unpack_implied(struct ls_unpack *unpack, const uint8_t **data) {
    *data = unpack->implied.data;
    return unpack->implied.length;
}

size_t ls_unpack_notices(struct ls_unpack *unpack, const uint8_t **data) {
    *data = unpack->notices.data;
    return unpack->notices.length;
}

void ls_unpack_facts(struct ls_unpack *unpack, struct ls_unpack_result *result) {
    *result = unpack->result;
}
