/* The end of unpacking: hard links, whiteouts, directories bottom-up, and the index of it all.
 *
 * Directories come last because each name made in one changes its time, and because a mode or an ACL set early would be
 * inherited or would bar the way. */
#define _GNU_SOURCE
#include "engine.h"
#include "xxh64.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* --- hard links --------------------------------------------------------------------------------------------------- */

static int make_link(struct ls_unpack *unpack, struct ls_link *link) {
    const char *call;
    char name[32];
    struct ls_node *node = link->node, *target = link->target;
    int into = ls_folder(unpack, &unpack->here, node->parent, &call);
    if (into < 0)
        return ls_fail_system(unpack, into, call, node);
    int from = unpack->shadow;
    const char *old = name;
    if (target->parent == unpack->model.aside)
        snprintf(name, sizeof name, "%lld", (long long)unpack->payloads[target->payload].shadow);
    else {
        from = ls_folder(unpack, &unpack->there, target->parent, &call);
        old = target->name;
        if (from < 0)
            return ls_fail_system(unpack, from, call, target);
    }
    int rc = linkat(from, old, into, node->name, 0);
    if (rc && errno == EEXIST && unpack->disk.dialect == LS_DIALECT_MERGED && !(rc = ls_disk_remove(into, node->name, &call)))
        rc = linkat(from, old, into, node->name, 0);
    link->made = true;
    return rc ? ls_fail_system(unpack, -errno, "linkat", node) : 0;
}

static bool is_current(const struct ls_link *link, size_t number) { return link->node->type == LS_HARD_LINK && link->node->size == (int64_t)number && !link->made; }

int ls_settle_jobs(struct ls_unpack *unpack) {
    ls_queue_drain(&unpack->queue);
    if (ls_queue_failed(&unpack->queue))
        return -1;
    for (; unpack->links_made < unpack->link_count; unpack->links_made++) {
        struct ls_link *link = &unpack->links[unpack->links_made];
        if (link->target && is_current(link, unpack->links_made) && make_link(unpack, link))
            return -1;
    }
    return 0;
}

static int copy_data(int from, int to, uint64_t *content) {
    struct ls_xxh64 hash;
    uint8_t *buffer = malloc(LS_CHUNK);
    ssize_t got = 0;
    if (!buffer)
        return -ENOMEM;
    ls_xxh64_begin(&hash, 0);
    while ((got = read(from, buffer, LS_CHUNK)) > 0) {
        ls_xxh64_add(&hash, buffer, (size_t)got);
        for (ssize_t done = 0, wrote; done < got; done += wrote)
            if ((wrote = write(to, buffer + done, (size_t)(got - done))) < 0) {
                free(buffer);
                return -errno;
            }
    }
    free(buffer);
    *content = ls_xxh64_end(&hash);
    return got < 0 ? -errno : 0;
}

/* A hard link to a file of the parents: it cannot be linked across layers, so the layer gets a copy of its own. Made at
 * once, since a later entry may replace the file. */
int ls_copy_from_below(struct ls_unpack *unpack, struct ls_node *node, int fd) {
    const char *call = "openat2";
    struct stat facts;
    int rc = fstat(fd, &facts) ? -errno : ls_disk_learn(fd, node, &call);
    int folder = rc ? rc : ls_folder(unpack, &unpack->here, node->parent, &call);
    if (folder < 0)
        return ls_fail_system(unpack, folder, call, node);
    node->target = NULL;
    node->size = facts.st_size;
    if (S_ISREG(facts.st_mode)) {
        char link[64];
        node->type = LS_REGULAR;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int from = open(link, O_RDONLY | O_CLOEXEC);
        int to = from < 0 ? -errno : ls_disk_regular(&unpack->disk, folder, node, false, &call);
        rc = to < 0 ? to : copy_data(from, to, &node->content) ?: ls_disk_settle(&unpack->disk, to, node, false, &call);
        if (from >= 0)
            close(from);
        if (to >= 0)
            close(to);
    } else {
        node->type = S_ISLNK(facts.st_mode) ? LS_SYMLINK : S_ISCHR(facts.st_mode) ? LS_CHARACTER : S_ISBLK(facts.st_mode) ? LS_BLOCK_DEVICE : LS_FIFO;
        if (node->type == LS_SYMLINK) {
            node->link = calloc(1, (size_t)facts.st_size + 1);
            if (!node->link || readlinkat(fd, "", node->link, (size_t)facts.st_size) < 0)
                return ls_fail_system(unpack, node->link ? -errno : -ENOMEM, "readlinkat", node);
            node->link_length = (uint32_t)strlen(node->link);
            node->content = ls_xxh64_of(node->link, node->link_length, 0);
        }
        rc = ls_disk_special(&unpack->disk, folder, node, &call);
    }
    return rc ? ls_fail_system(unpack, rc, call, node) : 0;
}

/* A link may lead to a link that is not made yet either, in any order: the chain is made from its far end. */
static int resolve(struct ls_unpack *unpack, size_t first) {
    size_t last = first;
    struct ls_node *target = NULL;
    bool wrong;
    for (int64_t number = (int64_t)first; number >= 0;) {
        struct ls_link *link = &unpack->links[number];
        link->waiting = true;
        last = (size_t)number;
        target = ls_find_name(unpack, link->wanted, &wrong);
        if (ls_queue_failed(&unpack->queue))
            return -1;
        bool unmade = target && target->type == LS_HARD_LINK && !target->target;
        number = unmade && !unpack->links[target->size].waiting ? target->size : -1;
        if (number >= 0)
            unpack->links[number].before = (int64_t)last;
        if (unmade)
            target = NULL; /* in the next round, or a ring of links that lead to each other */
    }
    for (int64_t number = (int64_t)last; number >= 0; number = unpack->links[number].before) {
        struct ls_link *link = &unpack->links[number];
        link->node->target = link->target = target && target->type == LS_HARD_LINK ? target->target : target;
        if (link->target && make_link(unpack, link))
            return -1;
        if (!link->target && unpack->below != LS_BELOW_UNKNOWN)
            return ls_fail_archive(unpack, "a hard link leads to a file that is in no layer", link->wanted, strlen(link->wanted));
        if (!link->target)
            ls_node_forget(link->node);
        target = link->target ? link->node : NULL;
    }
    return 0;
}

int ls_finish_links(struct ls_unpack *unpack) {
    if (ls_settle_jobs(unpack))
        return -1;
    for (size_t i = 0; i < unpack->link_count; i++)
        if (is_current(&unpack->links[i], i) && !unpack->links[i].target && resolve(unpack, i))
            return -1;
    return 0;
}

/* --- directories -------------------------------------------------------------------------------------------------- */

/* What lies under something opaque hides nothing and is hidden by nothing: whiteouts there are ghosts, and are dropped. */
static void find_hidden(struct ls_unpack *unpack) {
    struct ls_node *root = unpack->model.root;
    for (struct ls_node *node = root; node; node = ls_node_preorder(node, root))
        if (node->flags & LS_OPAQUE && node->parent)
            ls_mark_filled(node->parent);
    for (struct ls_node *node = root; node; node = ls_node_preorder(node, root)) {
        bool folder = node->type == LS_DIRECTORY;
        if (node->parent && node->parent->flags & (LS_OPAQUE | LS_HIDDEN))
            node->flags |= LS_HIDDEN;
        if (node->flags & LS_HIDDEN && node->flags & LS_WHITEOUT)
            node->flags = LS_HIDDEN;
        if (node->flags & LS_HIDDEN && folder && !(node->flags & LS_LISTED)) {
            ls_default_folder(node); /* whatever the parents have here does not show */
            node->flags &= ~LS_IMPLIED;
        }
        if (node->flags & LS_HIDDEN && !(node->flags & (LS_LISTED | LS_FILLED | LS_OPAQUE)))
            node->flags = LS_HIDDEN; /* needed for whiteouts alone */
        if (folder && node->flags & LS_IMPLIED && !(node->flags & (LS_FILLED | LS_OPAQUE)) && node != root)
            node->flags |= LS_HOLLOW;
        if (node->flags & LS_WHITEOUT)
            node->parent->flags |= LS_MARKED, node->flags |= node->parent->flags & LS_HOLLOW;
    }
}

static int purge(struct ls_unpack *unpack, int fd, const struct ls_node *folder) {
    const char *call = "fdopendir";
    DIR *listing = fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    int rc = listing ? 0 : -errno;
    for (struct dirent *one; !rc && (one = readdir(listing));) {
        struct ls_node *node = ls_model_find(&unpack->model, folder, one->d_name, strlen(one->d_name));
        bool own = node && node->type && (node->flags & (LS_LISTED | LS_IMPLIED | LS_OPAQUE | LS_FILLED));
        if (!own && strcmp(one->d_name, ".") && strcmp(one->d_name, ".."))
            rc = ls_disk_remove(fd, one->d_name, &call);
    }
    if (listing)
        closedir(listing);
    return rc ? ls_fail_system(unpack, rc, call, folder) : 0;
}

static int finish_folder(struct ls_unpack *unpack, struct ls_node *node) {
    const char *call = "fsetxattr";
    bool merged = unpack->disk.dialect == LS_DIALECT_MERGED;
    if (node->flags & (LS_MARKED | LS_OPAQUE) && ls_make_folders(unpack, node))
        return -1;
    if (!(node->flags & LS_MADE))
        return 0;
    int fd = ls_folder(unpack, &unpack->here, node, &call);
    if (fd < 0)
        return ls_fail_system(unpack, fd, call, node);
    if (node->flags & (LS_OPAQUE | LS_HIDDEN) && merged && purge(unpack, fd, node))
        return -1;
    bool untouched = merged && !(node->flags & (LS_LISTED | LS_IMPLIED | LS_HIDDEN)) && node->flags & LS_BELOW;
    if (untouched) { /* a directory of the parents: only its time has been disturbed */
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = node->mtime, .tv_nsec = node->mtime_ns}};
        return futimens(fd, times) ? ls_fail_system(unpack, -errno, "futimens", node) : 0;
    }
    /* an origin, even an empty one, makes overlay filter the whiteouts of a directory that it does not merge */
    bool origin = unpack->disk.dialect == LS_DIALECT_OVERLAY && node->flags & LS_MARKED;
    if (origin && fsetxattr(fd, "trusted.overlay.origin", "", 0, 0))
        return ls_fail_system(unpack, -errno, call, node);
    int rc = node->flags & LS_OPAQUE ? ls_disk_opaque(&unpack->disk, fd, &call) : 0;
    if (!rc && merged)
        rc = ls_disk_clear_xattrs(fd, &call); /* those of the parents' directory of this name */
    rc = rc ?: ls_disk_settle(&unpack->disk, fd, node, false, &call);
    return rc ? ls_fail_system(unpack, rc, call, node) : 0;
}

static int finish_node(struct ls_unpack *unpack, struct ls_node *node) {
    const char *call;
    if (node->type == LS_DIRECTORY)
        return finish_folder(unpack, node);
    if (!(node->flags & LS_WHITEOUT) || node->type)
        return 0;
    if (ls_make_folders(unpack, node->parent))
        return -1;
    int fd = ls_folder(unpack, &unpack->here, node->parent, &call);
    int rc = fd < 0 ? fd : ls_disk_whiteout(&unpack->disk, fd, node->name, &call);
    return rc ? ls_fail_system(unpack, rc, call, node) : 0;
}

/* --- the index ---------------------------------------------------------------------------------------------------- */

static int index_payloads(struct ls_unpack *unpack, struct ls_bytes *out) {
    struct ls_bytes path = {0};
    int rc = ls_bytes_add(out, LS_INDEX_MAGIC, strlen(LS_INDEX_MAGIC)) ?: ls_bytes_number(out, unpack->payload_count);
    for (size_t i = 0; !rc && i < unpack->payload_count; i++) {
        const struct ls_payload *payload = &unpack->payloads[i];
        bool shadowed = payload->shadow >= 0;
        if (!shadowed)
            rc = ls_node_path(payload->node, &path);
        struct ls_index_payload entry = {
            .size = payload->size,
            .content = payload->node ? payload->node->content : payload->content,
            .shadowed = shadowed,
            .path = path.data,
            .path_length = path.length,
            .shadow = (uint64_t)payload->shadow,
            .extents_count = payload->extents_count,
        };
        rc = rc ?: ls_index_put_payload(out, &entry);
        for (size_t n = 0; !rc && n < payload->extents_count; n++)
            rc = ls_bytes_number(out, (uint64_t)payload->extents[n].offset) ?: ls_bytes_number(out, (uint64_t)payload->extents[n].length);
    }
    ls_bytes_free(&path);
    return rc;
}

static bool is_indexed(const struct ls_node *node) {
    if (node->flags & LS_WHITEOUT)
        return true;
    if (node->type == LS_DIRECTORY)
        return node->flags & LS_MADE && (node->flags & (LS_LISTED | LS_IMPLIED | LS_OPAQUE | LS_HIDDEN) || !(node->flags & LS_BELOW));
    return node->type && node->flags & LS_LISTED;
}

static int index_nodes(struct ls_unpack *unpack, struct ls_bytes *out) {
    struct ls_node *root = unpack->model.root;
    struct ls_bytes path = {0}, target = {0};
    uint64_t count = 0;
    for (struct ls_node *node = root; node; node = ls_node_preorder(node, root))
        count += is_indexed(node);
    int rc = ls_bytes_number(out, count);
    for (struct ls_node *node = root; !rc && node; node = ls_node_preorder(node, root)) {
        if (!is_indexed(node))
            continue;
        bool link = node->type == LS_HARD_LINK;
        bool stored_apart = link && node->target->parent == unpack->model.aside;
        const struct ls_node *facts = link ? node->target : node;
        rc = ls_node_path(node, &path);
        if (!rc && link && !stored_apart)
            rc = ls_node_path(node->target, &target);
        struct ls_index_node entry = {
            .path = path.data, .path_length = path.length, .type = stored_apart ? node->target->type : node->type, .flags = node->flags,
            .target = target.data, .target_length = target.length,
            .mode = facts->mode, .uid = facts->uid, .gid = facts->gid, .mtime_ns = facts->mtime_ns, .mtime = facts->mtime,
            .major = facts->major, .minor = facts->minor, .size = facts->size, .content = facts->content, .attributes = facts->attributes,
        };
        rc = rc ?: ls_index_put_node(out, &entry);
        if (!rc && node->flags & LS_IMPLIED)
            rc = ls_bytes_add(&unpack->implied, path.data, path.length) ?: (node->flags & LS_HOLLOW ? ls_bytes_add(&unpack->implied, "/", 2) : ls_bytes_add(&unpack->implied, "", 1));
    }
    ls_bytes_free(&path);
    ls_bytes_free(&target);
    return rc;
}

/* --- all together ------------------------------------------------------------------------------------------------- */

int ls_unpack_finish(struct ls_unpack *unpack) {
    struct ls_node *root = unpack->model.root;
    int rc = ls_finish_links(unpack);
    ls_queue_close(&unpack->queue);
    if (rc || ls_shadow_settle(unpack))
        return -1;
    find_hidden(unpack);
    for (struct ls_node *node = ls_node_deepest(root); node; node = ls_node_postorder(node, root))
        if (finish_node(unpack, node))
            return -1;
    if ((rc = ls_skeleton_raw(&unpack->stream, unpack->raw.data, unpack->raw.length) ?: index_payloads(unpack, &unpack->index) ?: index_nodes(unpack, &unpack->index)))
        return ls_fail_system(unpack, rc, "malloc", NULL);
    unpack->raw.length = 0;
    return 0;
}
