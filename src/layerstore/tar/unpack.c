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

/* --- life ---------------------------------------------------------------------------------------------------------- */

struct ls_unpack *ls_unpack_new(int tree, int below, int dialect, const char *shadow) {
    struct ls_unpack *unpack = calloc(1, sizeof *unpack);
    if (!unpack)
        return NULL;
    unpack->disk = (struct ls_disk){.tree = tree,
                                    .dialect = dialect,
                                    .plain_owner = dialect != LS_DIALECT_MERGED && geteuid() == 0 && getegid() == 0};
    unpack->below = below;
    unpack->shadow = unpack->shadow_apart = -1;
    unpack->here.fd = unpack->there.fd = -1;
    unpack->shadow_path = strdup(shadow);
    ls_queue_begin(&unpack->queue);
    if (!unpack->shadow_path || ls_model_begin(&unpack->model)) {
        ls_unpack_free(unpack);
        return NULL;
    }
    struct ls_node *root = unpack->model.root;
    const char *call;
    ls_default_folder(root);
    if (below >= 0) {
        root->flags = LS_MADE | LS_BELOW | (dialect == LS_DIALECT_MERGED ? 0 : LS_IMPLIED);
        if (ls_disk_learn(below, root, &call)) {
            ls_unpack_free(unpack);
            return NULL;
        }
    }
    if (below < 0 || dialect != LS_DIALECT_MERGED) { /* what the folder inherited from its parent is not the layer's */
        fremovexattr(tree, "system.posix_acl_default");
        fremovexattr(tree, "system.posix_acl_access");
        fchmod(tree, 0700);
    }
    return unpack;
}

void ls_unpack_free(struct ls_unpack *unpack) {
    if (!unpack)
        return;
    if (unpack->job && !unpack->job->queued)
        ls_job_drop(&unpack->queue, unpack->job);
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
    for (size_t i = 0; i < unpack->payload_count; i++)
        free(unpack->payloads[i].extents);
    for (size_t i = 0; i < unpack->link_count; i++)
        free(unpack->links[i].wanted);
    free(unpack->payloads);
    free(unpack->links);
    free(unpack->parts.part);
    free(unpack->link_parts.part);
    free(unpack->shadow_path);
    struct ls_bytes *owned[] = {&unpack->body,  &unpack->raw,     &unpack->stream,
                                &unpack->index, &unpack->implied, &unpack->notices};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        ls_bytes_free(owned[i]);
    free(unpack);
}

/* --- failures and notices ------------------------------------------------------------------------------------------ */

static int fail(struct ls_unpack *unpack, int kind, int code, const char *what, const void *path, size_t length) {
    pthread_mutex_lock(&unpack->queue.lock);
    if (!unpack->failure.kind) {
        ls_fail_as(&unpack->failure, kind, code, what, path, length);
    }
    pthread_mutex_unlock(&unpack->queue.lock);
    ls_queue_fail(&unpack->queue);
    return -1;
}

int ls_fail_archive(struct ls_unpack *unpack, const char *sentence, const void *path, size_t length) {
    return fail(unpack, LS_FAIL_ARCHIVE, EBADMSG, sentence, path, length);
}

static int fail_at(struct ls_unpack *unpack, int kind, int code, const char *what, const struct ls_node *node) {
    struct ls_bytes path = {0};
    if (node)
        ls_node_path(node, &path);
    fail(unpack, kind, code, what, path.data ? path.data : (uint8_t *)"", path.length);
    ls_bytes_free(&path);
    return -1;
}

int ls_fail_system(struct ls_unpack *unpack, int code, const char *call, const struct ls_node *node) {
    return fail_at(unpack, LS_FAIL_SYSTEM, -code, call, node);
}
int ls_fail_dialect(struct ls_unpack *unpack, const char *sentence, const struct ls_node *node) {
    return fail_at(unpack, LS_FAIL_DIALECT, ENAMETOOLONG, sentence, node);
}

int ls_fail_here(struct ls_unpack *unpack, int rc, const char *sentence) {
    if (rc == -EBADMSG)
        return ls_fail_archive(unpack, sentence, unpack->entry.name.data ? unpack->entry.name.data : (uint8_t *)"",
                               unpack->entry.name.length);
    return ls_fail_system(unpack, rc, "malloc", NULL);
}

int ls_notice(struct ls_unpack *unpack, const char *kind, const struct ls_node *node) {
    struct ls_bytes path = {0};
    int rc = ls_node_path(node, &path) ?: ls_bytes_add(&unpack->notices, kind, strlen(kind) + 1) ?: ls_bytes_add(&unpack->notices, path.data, path.length + 1);
    ls_bytes_free(&path);
    return rc;
}

void ls_unpack_failure(struct ls_unpack *unpack, struct ls_failure *failure) {
    pthread_mutex_lock(&unpack->queue.lock);
    *failure = unpack->failure;
    pthread_mutex_unlock(&unpack->queue.lock);
}

/* --- folders ------------------------------------------------------------------------------------------------------- */

int ls_folder(struct ls_unpack *unpack, struct ls_cursor *cursor, const struct ls_node *folder, const char **call) {
    return ls_disk_folder(&unpack->disk, cursor, folder, unpack->generation, call);
}

int ls_make_folders(struct ls_unpack *unpack, struct ls_node *folder) {
    while (!(folder->flags & LS_MADE)) {
        struct ls_node *top = folder; /* the highest one missing; its parent is there */
        while (!(top->parent->flags & LS_MADE))
            top = top->parent;
        const char *call;
        int fd = ls_folder(unpack, &unpack->here, top->parent, &call);
        int rc = fd < 0 ? fd : ls_disk_directory(&unpack->disk, fd, top, &call);
        if (rc)
            return ls_fail_system(unpack, rc, call, top);
        top->flags |= LS_MADE;
    }
    return 0;
}

void ls_mark_filled(struct ls_node *folder) {
    for (; folder && !(folder->flags & LS_FILLED); folder = folder->parent)
        folder->flags |= LS_FILLED;
}

/* --- what was found out -------------------------------------------------------------------------------------------- */

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
