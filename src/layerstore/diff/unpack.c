/* The reader: takes the tar apart, decides what each entry means for the layer, and hands files to the writers.
 *
 * Rules followed where the OCI image spec (layer.md) is silent are those of FEATURES: whiteouts concern lower layers
 * only, whatever the order; the last of several entries of one name counts; nothing leads outside the tree. */
#define _GNU_SOURCE
#include "engine.h"
#include "xxh64.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define WHITEOUT ".wh."
#define META ".wh..wh."
#define OPAQUE ".wh..wh..opq"
#define LINK_STORE ".wh..wh.plnk"

enum { SYMLINKS_MAX = 40, RAW_MAX = 65536, LONGEST_PATH = 4095 };

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
    unpack->disk = (struct ls_disk){.tree = tree, .dialect = dialect, .plain_owner = dialect != LS_DIALECT_MERGED && geteuid() == 0 && getegid() == 0};
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
    struct ls_bytes *owned[] = {&unpack->body, &unpack->raw, &unpack->stream, &unpack->index, &unpack->implied, &unpack->notices, &unpack->failed_path};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        ls_bytes_free(owned[i]);
    free(unpack);
}

/* --- failures and notices ----------------------------------------------------------------------------------------- */

static int fail(struct ls_unpack *unpack, int kind, int code, const char *what, const void *path, size_t length) {
    pthread_mutex_lock(&unpack->queue.lock);
    if (!unpack->failure.kind) {
        ls_bytes_set(&unpack->failed_path, path, length);
        unpack->failure = (struct ls_failure){kind, code, what, (const char *)unpack->failed_path.data};
    }
    pthread_mutex_unlock(&unpack->queue.lock);
    ls_queue_fail(&unpack->queue);
    return -1;
}

int ls_fail_archive(struct ls_unpack *unpack, const char *sentence, const void *path, size_t length) { return fail(unpack, LS_FAIL_ARCHIVE, EBADMSG, sentence, path, length); }

int ls_fail_system(struct ls_unpack *unpack, int code, const char *call, const struct ls_node *node) {
    struct ls_bytes path = {0};
    if (node)
        ls_node_path(node, &path);
    fail(unpack, LS_FAIL_SYSTEM, -code, call, path.data ? path.data : (uint8_t *)"", path.length);
    ls_bytes_free(&path);
    return -1;
}

static int fail_here(struct ls_unpack *unpack, int rc, const char *sentence) {
    if (rc == -EBADMSG)
        return ls_fail_archive(unpack, sentence, unpack->entry.name.data ? unpack->entry.name.data : (uint8_t *)"", unpack->entry.name.length);
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

/* --- the skeleton ------------------------------------------------------------------------------------------------- */

static int flush_raw(struct ls_unpack *unpack) {
    int rc = ls_skeleton_raw(&unpack->stream, unpack->raw.data, unpack->raw.length);
    unpack->raw.length = 0;
    return rc;
}

static int keep_raw(struct ls_unpack *unpack, const void *data, size_t length) {
    int rc = ls_bytes_add(&unpack->raw, data, length);
    return rc ?: unpack->raw.length >= RAW_MAX ? flush_raw(unpack) : 0;
}

size_t ls_unpack_skeleton(struct ls_unpack *unpack, const uint8_t **data) {
    *data = unpack->stream.data;
    return unpack->stream.length;
}

void ls_unpack_taken(struct ls_unpack *unpack) { unpack->stream.length = 0; }

static int64_t new_payload(struct ls_unpack *unpack, struct ls_node *node, int64_t shadow) {
    if (unpack->payload_count == unpack->payload_room) {
        size_t room = unpack->payload_room ? unpack->payload_room * 2 : 1024;
        struct ls_payload *grown = realloc(unpack->payloads, room * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        unpack->payloads = grown;
        unpack->payload_room = room;
    }
    struct ls_payload *payload = &unpack->payloads[unpack->payload_count];
    *payload = (struct ls_payload){.size = unpack->entry.payload, .node = node, .shadow = shadow};
    if (unpack->entry.sparse && unpack->entry.extents_count) {
        size_t bytes = unpack->entry.extents_count * sizeof *payload->extents;
        if (!(payload->extents = malloc(bytes)))
            return -ENOMEM;
        memcpy(payload->extents, unpack->entry.extents, bytes);
        payload->extents_count = unpack->entry.extents_count;
    }
    return (int64_t)unpack->payload_count++;
}

/* --- folders ------------------------------------------------------------------------------------------------------ */

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

/* --- what the parents have ---------------------------------------------------------------------------------------- */

static bool may_look_below(const struct ls_unpack *unpack, const struct ls_node *folder) {
    return unpack->below >= 0 && folder->flags & LS_BELOW && !(folder->flags & LS_OPAQUE);
}

int ls_look_below(struct ls_unpack *unpack, struct ls_node *node) {
    struct ls_bytes path = {0};
    struct stat facts;
    const char *call = "malloc";
    if (!may_look_below(unpack, node->parent))
        return 0;
    int rc = ls_node_path(node, &path);
    int fd = rc ? rc : ls_open_beneath(unpack->below, (char *)path.data, O_PATH | O_NOFOLLOW, 0);
    ls_bytes_free(&path);
    if (fd == -ENOENT || fd == -ENOTDIR)
        return 0;
    if (fd < 0)
        return ls_fail_system(unpack, fd, "openat2", node);
    rc = fstat(fd, &facts) ? -errno : 0;
    if (!rc && S_ISDIR(facts.st_mode)) {
        node->flags |= LS_BELOW;
        if (node->type != LS_DIRECTORY && !(rc = ls_disk_learn(fd, node, &call))) {
            node->type = LS_DIRECTORY;
            node->flags |= unpack->disk.dialect == LS_DIALECT_MERGED ? LS_MADE : LS_IMPLIED;
        }
    } else if (!rc && S_ISLNK(facts.st_mode)) {
        node->flags |= LS_BELOW;
        if ((node->link = calloc(1, (size_t)facts.st_size + 1)) && readlinkat(fd, "", node->link, (size_t)facts.st_size) >= 0)
            node->link_length = (uint32_t)strlen(node->link), node->type = LS_SYMLINK;
        else
            rc = -errno;
    }
    close(fd);
    if (rc)
        return ls_fail_system(unpack, rc, call, node);
    return S_ISDIR(facts.st_mode) ? LS_DIRECTORY : S_ISLNK(facts.st_mode) ? LS_SYMLINK : LS_REGULAR;
}

/* --- names to nodes ----------------------------------------------------------------------------------------------- */

enum purpose { FOR_FILE, FOR_OPAQUE, FOR_WHITEOUT, TO_LOOK };

static struct ls_node *walk(struct ls_unpack *unpack, struct ls_node *from, const struct ls_part *part, size_t count, enum purpose purpose);

/* The directory that a symlink leads to, within the root as chroot(2) would have it. */
static struct ls_node *follow(struct ls_unpack *unpack, struct ls_node *link, enum purpose purpose) {
    struct ls_node *at = link->link[0] == '/' ? unpack->model.root : link->parent;
    if (unpack->symlinks++ == SYMLINKS_MAX) /* for the whole name, as the kernel counts them */
        return fail_here(unpack, -EBADMSG, "too many symlinks lead to this name"), NULL;
    for (const char *name = link->link; at && *name;) {
        size_t length = strcspn(name, "/");
        if (length == 2 && !memcmp(name, "..", 2))
            at = at->parent ? at->parent : at;
        else if (length > 255)
            return fail_here(unpack, -EBADMSG, "a symlink on the way has a name longer than 255 bytes"), NULL;
        else if (length && !(length == 1 && *name == '.')) {
            if (length >= 4 && !memcmp(name, WHITEOUT, 4))
                return fail_here(unpack, -EBADMSG, "a symlink on the way leads to a reserved name (.wh.)"), NULL;
            at = walk(unpack, at, &(struct ls_part){name, length}, 1, purpose);
        }
        name += length + (name[length] == '/');
    }
    return at;
}

/* The name as part of the layer; beyond PATH_MAX no program could reach it by name. */
static struct ls_node *child(struct ls_unpack *unpack, struct ls_node *folder, struct ls_part name) {
    struct ls_node *node = ls_model_child(&unpack->model, folder, name.name, name.length);
    if (!node)
        fail_here(unpack, -ENOMEM, NULL);
    else if (node->path_length > LONGEST_PATH) {
        fail_here(unpack, -EBADMSG, "the path is longer than 4,095 bytes");
        return NULL;
    }
    return node;
}

/* One component on the way to a name. NULL without a failure: nothing is there, and nothing has to be. */
static struct ls_node *step(struct ls_unpack *unpack, struct ls_node *folder, struct ls_part part, enum purpose purpose) {
    struct ls_node *node = ls_model_find(&unpack->model, folder, part.name, part.length);
    if (!node && (purpose != TO_LOOK || may_look_below(unpack, folder)))
        node = child(unpack, folder, part);
    if (!node)
        return NULL;
    if (!node->type && !(node->flags & LS_WHITEOUT)) {
        int below = ls_look_below(unpack, node);
        if (below < 0)
            return NULL;
        if (below && !node->type && purpose != FOR_FILE)
            return NULL; /* a file of the parents: whatever is said to be under it is not there */
    }
    struct ls_node *real = node->type == LS_HARD_LINK && node->target ? node->target : node;
    if (real->type == LS_DIRECTORY)
        return real;
    if (real->type == LS_SYMLINK) {
        /* the words of the real link, from where this name lies */
        struct ls_node words = {.parent = node->parent, .link = real->link};
        return follow(unpack, &words, purpose);
    }
    if (real->type) {
        if (real->type == LS_HARD_LINK && unpack->below == LS_BELOW_UNKNOWN)
            unpack->result.needs_parents = 1; /* a link to what the parents may have, perhaps a symlink to a directory */
        else if (purpose == FOR_FILE)
            fail_here(unpack, -EBADMSG, "the name leads through something that is no directory");
        return NULL;
    }
    if (purpose == TO_LOOK)
        return NULL;
    if (purpose != FOR_FILE && node->flags & LS_WHITEOUT)
        return NULL; /* hidden already, and all below it */
    if (purpose == FOR_WHITEOUT && (unpack->below != LS_BELOW_UNKNOWN || unpack->disk.dialect == LS_DIALECT_MERGED))
        return NULL; /* a whiteout of what is not there does nothing; an opaque mark implies its directory, as a file does */
    ls_default_folder(node);
    node->flags = node->flags & LS_WHITEOUT ? LS_OPAQUE : LS_IMPLIED;
    return node;
}

static struct ls_node *walk(struct ls_unpack *unpack, struct ls_node *from, const struct ls_part *part, size_t count, enum purpose purpose) {
    for (size_t i = 0; from && i < count; i++)
        from = step(unpack, from, part[i], purpose);
    return from;
}

/* --- replacing what an earlier entry made ------------------------------------------------------------------------- */

static bool is_own(const struct ls_node *node) { return node->type && node->flags & (LS_LISTED | LS_IMPLIED | LS_OPAQUE | LS_FILLED); }

static bool lies_within(const struct ls_node *node, const struct ls_node *top) {
    for (; node; node = node->parent)
        if (node == top)
            return true;
    return false;
}

/* A file that goes, but has hard links elsewhere, lives on there: the first of them becomes its place. */
static struct ls_node *heir_of(struct ls_unpack *unpack, struct ls_node *node, const struct ls_node *top) {
    struct ls_node *heir = NULL;
    for (size_t i = 0; node->links && i < unpack->link_count; i++) {
        struct ls_node *link = unpack->links[i].node;
        if (!unpack->links[i].made || link->type != LS_HARD_LINK || link->target != node || lies_within(link, top))
            continue;
        if (!heir) {
            uint16_t flags = link->flags;
            heir = link;
            heir->type = node->type, heir->flags = flags | (node->flags & LS_SPARSE);
            heir->mode = node->mode, heir->uid = node->uid, heir->gid = node->gid, heir->major = node->major, heir->minor = node->minor;
            heir->mtime = node->mtime, heir->mtime_ns = node->mtime_ns, heir->size = node->size;
            heir->payload = node->payload, heir->content = node->content, heir->attributes = node->attributes;
            heir->xattrs = node->xattrs, heir->xattrs_length = node->xattrs_length;
            heir->link = node->link, heir->link_length = node->link_length;
            heir->target = NULL;
            heir->links = 0;
            node->xattrs = NULL, node->link = NULL, node->xattrs_length = node->link_length = 0;
        } else {
            link->target = heir;
            heir->links++;
        }
    }
    return heir;
}

/* The payload of a file that is about to be replaced stays needed: the tar has it, so the export must. */
static int keep_payload(struct ls_unpack *unpack, struct ls_node *node) {
    const char *call;
    char name[32];
    struct ls_payload *payload = &unpack->payloads[node->payload];
    if (ls_shadow_folder(unpack))
        return -1;
    int folder = ls_folder(unpack, &unpack->here, node->parent, &call);
    if (folder < 0)
        return ls_fail_system(unpack, folder, call, node);
    snprintf(name, sizeof name, "%lld", (long long)unpack->shadow_count);
    if (renameat(folder, node->name, unpack->shadow, name))
        return ls_fail_system(unpack, -errno, "renameat", node);
    payload->node = NULL;
    payload->shadow = unpack->shadow_count++;
    payload->content = node->content;
    return 0;
}

static int clear(struct ls_unpack *unpack, struct ls_node *top) {
    const char *call;
    if (ls_settle_jobs(unpack))
        return -1;
    for (struct ls_node *node = ls_node_deepest(top); node; node = ls_node_postorder(node, top)) {
        if (is_own(node) && node->type != LS_HARD_LINK && node->type != LS_DIRECTORY) {
            struct ls_node *heir = heir_of(unpack, node, top);
            if (heir && heir->payload >= 0)
                unpack->payloads[heir->payload].node = heir;
            else if (!heir && node->payload >= 0 && keep_payload(unpack, node))
                return -1;
        }
        if (node->type == LS_HARD_LINK && node->target && node->target->links)
            node->target->links--;
        ls_node_forget(node);
    }
    if (!(top->parent->flags & LS_MADE))
        return 0; /* it was named, and never made */
    int folder = ls_folder(unpack, &unpack->here, top->parent, &call);
    int rc = folder < 0 ? folder : ls_disk_remove(folder, top->name, &call);
    unpack->generation++;
    return rc ? ls_fail_system(unpack, rc, call, top) : 0;
}

/* Makes the name free: of what an earlier entry made, and of all that was said of names below it. */
static int make_way(struct ls_unpack *unpack, struct ls_node *top) {
    if (is_own(top) && clear(unpack, top))
        return -1;
    for (struct ls_node *node = ls_node_deepest(top); node; node = ls_node_postorder(node, top))
        ls_node_forget(node);
    return 0;
}

/* --- hard links --------------------------------------------------------------------------------------------------- */

struct ls_node *ls_find_name(struct ls_unpack *unpack, const char *wanted, bool *wrong) {
    struct ls_parts *parts = &unpack->link_parts;
    const char *why;
    unpack->link_folder = NULL;
    int rc = ls_parts_split(parts, wanted, strlen(wanted), &why);
    *wrong = rc || parts->count == 0;
    unpack->symlinks = 0;
    if (*wrong)
        return NULL;
    struct ls_part last = parts->part[parts->count - 1];
    if (parts->count == 2 && parts->part[0].length == strlen(LINK_STORE) && !memcmp(parts->part[0].name, LINK_STORE, strlen(LINK_STORE)))
        return ls_model_find(&unpack->model, unpack->model.aside, last.name, last.length);
    struct ls_node *folder = walk(unpack, unpack->model.root, parts->part, parts->count - 1, TO_LOOK);
    unpack->link_folder = folder;
    unpack->link_name = last;
    struct ls_node *node = folder ? ls_model_find(&unpack->model, folder, last.name, last.length) : NULL;
    bool is_folder = node && node->type == LS_DIRECTORY;
    *wrong = is_folder && !(node->flags & LS_IMPLIED && unpack->below == LS_BELOW_UNKNOWN); /* the parents may have a symlink there */
    return node && is_own(node) && !is_folder ? node : NULL;
}

static int remember_link(struct ls_unpack *unpack, struct ls_node *node, struct ls_node *target) {
    if (unpack->link_count == unpack->link_room) {
        size_t room = unpack->link_room ? unpack->link_room * 2 : 256;
        struct ls_link *grown = realloc(unpack->links, room * sizeof *grown);
        if (!grown)
            return fail_here(unpack, -ENOMEM, NULL);
        unpack->links = grown;
        unpack->link_room = room;
    }
    struct ls_link *link = &unpack->links[unpack->link_count];
    *link = (struct ls_link){.node = node, .target = target, .wanted = strdup((char *)unpack->entry.link.data), .before = -1};
    if (!link->wanted)
        return fail_here(unpack, -ENOMEM, NULL);
    node->size = (int64_t)unpack->link_count++; /* which of several records of this name is the one that counts */
    if (target)
        target->links++;
    return 0;
}

/* --- entries ------------------------------------------------------------------------------------------------------ */

/* What cannot lie on a filesystem is dropped here, alike for every driver, and said. */
static int take_xattrs(struct ls_unpack *unpack, struct ls_node *node) {
    struct ls_reader reader = {unpack->entry.xattrs.data, unpack->entry.xattrs.data + unpack->entry.xattrs.length, false};
    struct ls_xattr xattr;
    struct ls_bytes kept = {0};
    bool user_allowed = node->type == LS_REGULAR || node->type == LS_DIRECTORY;
    int rc = 0;
    while (!rc && unpack->entry.xattrs.length && ls_xattr_next(&reader, &xattr)) {
        if (xattr.name_length == 16 && !memcmp(xattr.name, "security.selinux", 16))
            continue; /* a label belongs to one host's policy */
        if (!user_allowed && xattr.name_length > 5 && !memcmp(xattr.name, "user.", 5))
            rc = ls_notice(unpack, "user xattr on a special file", node); /* xattr(7): not permitted there */
        else
            rc = ls_xattr_add(&kept, xattr.name, xattr.name_length, xattr.value, xattr.value_length);
    }
    free(node->xattrs);
    node->xattrs = kept.data;
    node->xattrs_length = (uint32_t)kept.length;
    node->attributes = ls_xattrs_hash(kept.data, kept.length);
    return rc;
}

static int describe(struct ls_unpack *unpack, struct ls_node *node) {
    const struct ls_entry *entry = &unpack->entry;
    node->type = entry->type;
    node->mode = entry->mode, node->uid = entry->uid, node->gid = entry->gid;
    node->mtime = entry->mtime, node->mtime_ns = entry->mtime_ns;
    node->major = entry->major, node->minor = entry->minor;
    node->size = entry->type == LS_REGULAR ? entry->real_size : 0;
    if (entry->sparse)
        node->flags |= LS_SPARSE;
    if (entry->type == LS_SYMLINK) {
        free(node->link);
        if (!(node->link = strdup((char *)entry->link.data)))
            return fail_here(unpack, -ENOMEM, NULL);
        node->link_length = (uint32_t)entry->link.length;
        node->size = node->link_length;
        node->content = ls_xxh64_of(node->link, node->link_length, 0);
        if (!node->link_length)
            return fail_here(unpack, -EBADMSG, "a symlink leads nowhere");
    }
    int rc = take_xattrs(unpack, node);
    return rc ? fail_here(unpack, rc, NULL) : 0;
}

static int place_folder(struct ls_unpack *unpack, struct ls_node *node) {
    if (node->type != LS_DIRECTORY) {
        /* a whiteout or a file that stood here hid what the parents have, and a directory instead does not bring it back */
        uint16_t flags = node->flags & LS_WHITEOUT || is_own(node) ? LS_OPAQUE : 0;
        if (make_way(unpack, node))
            return -1;
        node->flags = flags;
        if (!flags && unpack->below >= 0 && ls_look_below(unpack, node) < 0)
            return -1;
        if (node->type == LS_SYMLINK) /* of the parents: this directory replaces it */
            ls_node_forget(node);
    }
    node->flags = (node->flags & ~LS_IMPLIED) | LS_LISTED;
    ls_mark_filled(node);
    return describe(unpack, node) ?: ls_make_folders(unpack, node);
}

static int begin_job(struct ls_unpack *unpack, struct ls_node *node, int64_t shadow) {
    struct ls_entry *entry = &unpack->entry;
    struct ls_job *job = ls_job_new(node);
    if (!job)
        return fail_here(unpack, -ENOMEM, NULL);
    job->shadow = shadow;
    job->sparse = entry->sparse;
    if (entry->type == LS_REGULAR && entry->payload) {
        int64_t number = new_payload(unpack, node, shadow);
        if (number < 0) {
            ls_job_drop(&unpack->queue, job);
            return fail_here(unpack, -ENOMEM, NULL);
        }
        node->payload = number;
        if (entry->sparse) { /* the writer gets a copy: the payload table may move meanwhile */
            job->extents = malloc(entry->extents_count * sizeof *job->extents);
            if (!job->extents) {
                ls_job_drop(&unpack->queue, job);
                return fail_here(unpack, -ENOMEM, NULL);
            }
            memcpy(job->extents, entry->extents, entry->extents_count * sizeof *job->extents);
            job->extents_count = entry->extents_count;
        }
        unpack->job = job;
        return 0;
    }
    ls_queue_put(&unpack->queue, job, true);
    return 0;
}

/* The name that ls_find_name has just looked for, in the parents: 1 if they have such a file, which is copied. */
static int link_below(struct ls_unpack *unpack, struct ls_node *node) {
    struct stat facts;
    struct ls_bytes path = {0};
    struct ls_node *folder = unpack->link_folder;
    struct ls_part name = unpack->link_name;
    if (!folder || !may_look_below(unpack, folder))
        return 0;
    const struct ls_node *own = ls_model_find(&unpack->model, folder, name.name, name.length);
    if (own && (own->type == LS_DIRECTORY || own->flags & LS_WHITEOUT))
        return 0;
    int rc = ls_node_path(folder, &path) ?: (path.length ? ls_bytes_add(&path, "/", 1) : 0) ?: ls_bytes_add(&path, name.name, name.length);
    int fd = rc ? rc : ls_open_beneath(unpack->below, (char *)path.data, O_PATH | O_NOFOLLOW, 0);
    ls_bytes_free(&path);
    if (fd == -ENOENT || fd == -ENOTDIR)
        return 0;
    if (fd < 0)
        return ls_fail_system(unpack, fd, "openat2", node);
    bool wrong = fstat(fd, &facts) || S_ISDIR(facts.st_mode);
    rc = wrong ? fail_here(unpack, -EBADMSG, "a hard link leads to a directory") : ls_copy_from_below(unpack, node, fd) ? -1 : 1;
    close(fd);
    return rc;
}

static int place_link(struct ls_unpack *unpack, struct ls_node *node) {
    bool wrong;
    struct ls_node *target = ls_find_name(unpack, (char *)unpack->entry.link.data, &wrong);
    if (ls_queue_failed(&unpack->queue))
        return -1;
    if (target && target->type == LS_HARD_LINK)
        target = target->target;
    if (wrong)
        return fail_here(unpack, -EBADMSG, "a hard link leads to a directory or outside the layer");
    if (target && (target == node || (node->type == LS_HARD_LINK && node->target == target)))
        return 0; /* to itself, or the same link again */
    if (make_way(unpack, node))
        return -1;
    if (target && !target->type) /* it lay within what has just been replaced */
        target = NULL;
    node->type = LS_HARD_LINK;
    node->flags = LS_LISTED;
    node->target = target;
    ls_mark_filled(node->parent);
    if (ls_make_folders(unpack, node->parent))
        return -1;
    if (!target && unpack->below >= 0) {
        int found = link_below(unpack, node);
        if (found)
            return found < 0 ? -1 : 0;
    } else if (!target && unpack->below == LS_BELOW_UNKNOWN)
        unpack->result.needs_parents = 1; /* they may have it, even if a later entry of this layer has it too */
    return remember_link(unpack, node, target);
}

static int place_file(struct ls_unpack *unpack, struct ls_node *node) {
    if (unpack->entry.type == LS_HARD_LINK)
        return place_link(unpack, node);
    if (is_own(node) && clear(unpack, node))
        return -1;
    if (unpack->entry.type == LS_CHARACTER && !unpack->entry.major && !unpack->entry.minor) {
        /* on overlay this device is a whiteout; no driver may differ from another in what a tar means */
        int rc = ls_notice(unpack, "character device 0/0", node);
        return rc ? fail_here(unpack, rc, NULL) : 0;
    }
    if (make_way(unpack, node))
        return -1;
    node->flags = LS_LISTED;
    ls_mark_filled(node->parent);
    unpack->result.files++;
    unpack->result.bytes += unpack->entry.type == LS_REGULAR ? unpack->entry.real_size : 0;
    return describe(unpack, node) ?: ls_make_folders(unpack, node->parent) ?: begin_job(unpack, node, -1);
}

static int place_whiteout(struct ls_unpack *unpack, struct ls_node *folder, struct ls_part name) {
    if (name.length == 0 || (name.length <= 2 && !memcmp(name.name, "..", name.length)))
        return fail_here(unpack, -EBADMSG, "a whiteout of nothing, or of a directory's own name");
    struct ls_node *node = child(unpack, folder, name);
    if (!node)
        return -1;
    if (node->type == LS_DIRECTORY && node->flags & LS_FILLED) {
        if (!(node->flags & LS_LISTED)) /* it is this layer's alone now */
            ls_default_folder(node), node->flags |= LS_LISTED;
        node->flags = (node->flags & ~(LS_IMPLIED | LS_BELOW)) | LS_OPAQUE;
        return 0;
    }
    if (node->type && node->type != LS_DIRECTORY && is_own(node))
        return 0; /* a whiteout never hides a name of its own layer */
    if (node->type == LS_DIRECTORY && node->flags & LS_LISTED) {
        node->flags = (node->flags & ~LS_BELOW) | LS_OPAQUE;
        return 0;
    }
    node->flags &= ~(LS_IMPLIED | LS_OPAQUE); /* nothing of it is on disk: only marks asked for it */
    if (make_way(unpack, node))
        return -1;
    node->flags = LS_WHITEOUT;
    return 0;
}

static int place_opaque(struct ls_unpack *unpack, struct ls_node *folder) {
    folder->flags |= LS_OPAQUE;
    if (folder == unpack->model.root)
        unpack->result.root_opaque = 1;
    return 0;
}

/* aufs keeps the files that have several names in a folder of its own, and exports it as if it were part of the layer. */
static int place_in_link_store(struct ls_unpack *unpack) {
    struct ls_part name = unpack->parts.part[unpack->parts.count - 1];
    if (unpack->parts.count != 2 || unpack->entry.type != LS_REGULAR)
        return 0;
    struct ls_node *node = ls_model_child(&unpack->model, unpack->model.aside, name.name, name.length);
    if (!node)
        return fail_here(unpack, -ENOMEM, NULL);
    if (node->type)
        return fail_here(unpack, -EBADMSG, "a name appears twice in the store of hard links");
    if (ls_shadow_folder(unpack))
        return -1;
    node->flags = LS_LISTED;
    return describe(unpack, node) ?: begin_job(unpack, node, unpack->shadow_count++);
}

static bool has_prefix(struct ls_part part, const char *prefix) { return part.length >= strlen(prefix) && !memcmp(part.name, prefix, strlen(prefix)); }
static bool equals(struct ls_part part, const char *word) { return part.length == strlen(word) && has_prefix(part, word); }

/* One entry whose headers are complete. Leaves a job for its payload, or none: then the payload is kept in the skeleton. */
static int place(struct ls_unpack *unpack) {
    struct ls_entry *entry = &unpack->entry;
    struct ls_parts *parts = &unpack->parts;
    const char *why = NULL;
    int rc = ls_parts_split(parts, (char *)entry->name.data, entry->name.length, &why);
    if (!rc && entry->sparse)
        rc = ls_entry_check_sparse(entry, &why);
    if (rc)
        return fail_here(unpack, rc, why);
    unpack->result.entries++;
    if (entry->type == LS_IGNORED)
        return 0;
    if (parts->count == 0) {
        if (entry->type != LS_DIRECTORY)
            return fail_here(unpack, -EBADMSG, "the root of a layer is no directory");
        unpack->model.root->flags = (unpack->model.root->flags & ~LS_IMPLIED) | LS_LISTED;
        return describe(unpack, unpack->model.root);
    }
    struct ls_part last = parts->part[parts->count - 1];
    if (equals(parts->part[0], LINK_STORE))
        return place_in_link_store(unpack);
    for (size_t i = 0; i < parts->count; i++)
        if (has_prefix(parts->part[i], META) && !(i + 1 == parts->count && equals(last, OPAQUE)))
            return 0; /* aufs' own: .wh..wh.aufs, .wh..wh.orph */
        else if (has_prefix(parts->part[i], WHITEOUT) && i + 1 < parts->count)
            return fail_here(unpack, -EBADMSG, "a directory's name begins with .wh.");
    bool whiteout = has_prefix(last, WHITEOUT);
    unpack->symlinks = 0;
    struct ls_node *folder = walk(unpack, unpack->model.root, parts->part, parts->count - 1, !whiteout ? FOR_FILE : equals(last, OPAQUE) ? FOR_OPAQUE : FOR_WHITEOUT);
    if (!folder)
        return ls_queue_failed(&unpack->queue) ? -1 : 0;
    if (equals(last, OPAQUE))
        return place_opaque(unpack, folder);
    if (whiteout)
        return place_whiteout(unpack, folder, (struct ls_part){last.name + 4, last.length - 4});
    struct ls_node *node = child(unpack, folder, last);
    if (!node)
        return -1;
    return entry->type == LS_DIRECTORY ? place_folder(unpack, node) : place_file(unpack, node);
}

/* --- the stream --------------------------------------------------------------------------------------------------- */

static int64_t padding_of(int64_t size) { return (LS_BLOCK - size % LS_BLOCK) % LS_BLOCK; }

static int entry_complete(struct ls_unpack *unpack) {
    unpack->remaining = unpack->entry.payload;
    unpack->padding = padding_of(unpack->entry.payload);
    unpack->in_entry = false;
    if (place(unpack))
        return -1;
    if (unpack->job) {
        int rc = flush_raw(unpack) ?: ls_skeleton_payload(&unpack->stream, unpack->entry.payload);
        if (rc)
            return fail_here(unpack, rc, NULL);
    } else
        unpack->remaining += unpack->padding;
    unpack->state = unpack->job ? LS_IN_PAYLOAD : unpack->remaining ? LS_IN_RAW : LS_AT_HEADER;
    return 0;
}

static int entry_header(struct ls_unpack *unpack, const uint8_t *block) {
    const char *why = NULL;
    int rc = ls_entry_header(&unpack->entry, block, &why);
    if (rc)
        return fail_here(unpack, rc, why);
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
        return fail_here(unpack, type, why);
    if (keep_raw(unpack, block, LS_BLOCK))
        return fail_here(unpack, -ENOMEM, NULL);
    if (type == 0) {
        unpack->state = unpack->zero_block ? LS_AT_END : LS_AT_HEADER;
        unpack->zero_block = true;
        return unpack->in_entry ? fail_here(unpack, -EBADMSG, "an extension header stands before no entry") : 0;
    }
    if (unpack->zero_block)
        return fail_here(unpack, -EBADMSG, "a block of zeros in the middle of the tar");
    if (!unpack->in_entry && type != 'g') {
        ls_entry_reset(&unpack->entry);
        unpack->in_entry = true;
    }
    if (!ls_is_extension(type))
        return entry_header(unpack, block);
    if ((unpack->body_size = ls_block_size(block, &why)) < 0)
        return fail_here(unpack, (int)unpack->body_size, why);
    unpack->extension = type;
    unpack->body.length = 0;
    unpack->remaining = unpack->body_size + padding_of(unpack->body_size);
    unpack->state = LS_IN_EXTENSION;
    return 0;
}

static int extension(struct ls_unpack *unpack) {
    const char *why = NULL;
    int rc = ls_entry_extension(&unpack->entry, unpack->extension, unpack->body.data, (size_t)unpack->body_size, &why);
    unpack->state = LS_AT_HEADER;
    return rc ? fail_here(unpack, rc, why) : 0;
}

static int sparse_map(struct ls_unpack *unpack) {
    const char *why = NULL;
    size_t used;
    int rc = ls_entry_map(&unpack->entry, unpack->body.data, unpack->body.length, &used, &why);
    if (rc < 0)
        return fail_here(unpack, rc, why);
    if (rc == 1)
        return (int64_t)unpack->body.length < unpack->entry.payload ? 0 : fail_here(unpack, -EBADMSG, "a sparse map does not fit its payload");
    unpack->entry.payload -= (int64_t)used;
    return unpack->entry.payload < 0 ? fail_here(unpack, -EBADMSG, "a sparse map does not fit its payload") : entry_complete(unpack);
}

static int payload(struct ls_unpack *unpack, const uint8_t *data, size_t length) {
    if (ls_job_extend(&unpack->queue, unpack->job, unpack->chunk, data, length))
        return fail_here(unpack, -ENOMEM, NULL);
    unpack->remaining -= (int64_t)length;
    if (unpack->remaining) {
        ls_queue_put(&unpack->queue, unpack->job, false);
        return 0;
    }
    ls_queue_put(&unpack->queue, unpack->job, true);
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
                return fail_here(unpack, -EBADMSG, "the tar is cut short");
            if (unpack->state == LS_AT_HEADER)
                rc = header(unpack, at);
            else if (keep_raw(unpack, at, LS_BLOCK))
                rc = fail_here(unpack, -ENOMEM, NULL);
            else if (unpack->state == LS_IN_EXTENTS) {
                const char *why = NULL;
                if ((rc = ls_entry_more_extents(&unpack->entry, at, &why)))
                    rc = fail_here(unpack, rc, why);
                else if (!unpack->entry.extents_continue)
                    rc = entry_complete(unpack);
            } else
                rc = ls_bytes_add(&unpack->body, at, LS_BLOCK) ? fail_here(unpack, -ENOMEM, NULL) : sparse_map(unpack);
            at += LS_BLOCK;
            break;
        case LS_IN_EXTENSION:
            part = (int64_t)have < unpack->remaining ? have : (size_t)unpack->remaining;
            if (keep_raw(unpack, at, part) || ls_bytes_add(&unpack->body, at, part))
                return fail_here(unpack, -ENOMEM, NULL);
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
                return fail_here(unpack, -ENOMEM, NULL);
            at += part;
            if (!(unpack->remaining -= (int64_t)part))
                unpack->state = LS_AT_HEADER;
            break;
        case LS_AT_END: /* what follows the end of the archive belongs to the blob, and so to the DiffID */
            if (keep_raw(unpack, at, have))
                return fail_here(unpack, -ENOMEM, NULL);
            at = end;
            break;
        }
        if (rc)
            return -1;
    }
    return 0;
}

uint8_t *ls_unpack_chunk(struct ls_unpack *unpack) {
    if (!unpack->chunk)
        unpack->chunk = ls_queue_chunk(&unpack->queue);
    return unpack->chunk ? unpack->chunk->data : NULL;
}

int ls_unpack_feed(struct ls_unpack *unpack, size_t length, int last) {
    if (!unpack->chunk || length > LS_CHUNK || (length < LS_CHUNK && !last))
        return ls_fail_system(unpack, -EINVAL, "ls_unpack_feed", NULL);
    int rc = consume(unpack, unpack->chunk->data, unpack->chunk->data + length);
    ls_queue_release(&unpack->queue, unpack->chunk);
    unpack->chunk = NULL;
    if (!rc && last && (unpack->state != LS_AT_HEADER || unpack->in_entry) && unpack->state != LS_AT_END)
        rc = fail_here(unpack, -EBADMSG, "the tar is cut short");
    return rc || ls_queue_failed(&unpack->queue) ? -1 : 0;
}

void ls_unpack_stop(struct ls_unpack *unpack) { ls_queue_fail(&unpack->queue); }

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

void ls_unpack_facts(struct ls_unpack *unpack, struct ls_unpack_result *result) { *result = unpack->result; }
