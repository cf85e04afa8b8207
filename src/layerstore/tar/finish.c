/* The end of unpacking: whiteouts, directories bottom-up, and the index of it all.
 *
 * Directories come last because each name made in one changes its time, and because a mode or an ACL set early would be
 * inherited or would bar the way. */
#define _GNU_SOURCE
#include "engine.h"
#include "../kernel/files/listing.h"
#include "../kernel/files/within.h"
#include "xxh64.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* --- directories -------------------------------------------------------------------------------------------------- */

/* What lies under something opaque hides nothing and is hidden by nothing: whiteouts there are ghosts, and are
 * dropped. */
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
        if (node->flags & LS_HIDDEN && folder && !(node->flags & LS_STATED)) {
            ls_default_folder(node); /* whatever the parents have here does not show */
            node->flags &= ~LS_IMPLIED;
        }
        if (node->flags & LS_HIDDEN && !(node->flags & (LS_STATED | LS_FILLED | LS_OPAQUE)))
            node->flags = LS_HIDDEN; /* needed for whiteouts alone */
        if (folder && node->flags & LS_IMPLIED && !(node->flags & (LS_FILLED | LS_OPAQUE)) && node != root)
            node->flags |= LS_HOLLOW;
        if (node->flags & LS_WHITEOUT)
            node->parent->flags |= LS_MARKED, node->flags |= node->parent->flags & LS_HOLLOW;
    }
}

/* Removes what the parents have in a directory of a merged tree; its names of this layer stay. */
static int purge(struct ls_unpack *unpack, int fd, const struct ls_node *folder) {
    LS_LISTED struct ls_listing listing = {0};
    int rc = ls_listing_begin(&listing, fd, &unpack->said);
    while (!rc && (rc = ls_listing_next(&listing)) > 0) {
        struct ls_node *node = ls_model_find(&unpack->model, folder, listing.name, strlen(listing.name));
        rc = node && ls_is_own(node) ? 0 : ls_disk_remove(fd, listing.name, &unpack->said);
    }
    return rc;
}

static int settle_folder(struct ls_unpack *unpack, int fd, struct ls_node *node) {
    struct ls_failure *said = &unpack->said;
    bool merged = unpack->disk.dialect == LS_DIALECT_MERGED;
    int rc = node->flags & (LS_OPAQUE | LS_HIDDEN) && merged ? purge(unpack, fd, node) : 0;
    if (rc)
        return rc;
    bool untouched = merged && !(node->flags & (LS_STATED | LS_IMPLIED | LS_HIDDEN)) && node->flags & LS_BELOW;
    if (untouched) { /* a directory of the parents: only its time has been disturbed */
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = node->mtime, .tv_nsec = node->mtime_ns}};
        return futimens(fd, times) ? LS_FAIL(said, "futimens") : 0;
    }
    /* an origin, even an empty one, makes overlay filter the whiteouts of a directory that it does not merge */
    bool origin = unpack->disk.dialect == LS_DIALECT_OVERLAY && node->flags & LS_MARKED;
    if (origin && fsetxattr(fd, ls_overlay_xattr(LS_XATTR_ORIGIN), "", 0, 0))
        return LS_FAIL(said, "fsetxattr");
    rc = node->flags & LS_OPAQUE ? ls_disk_opaque(&unpack->disk, fd, said) : 0;
    if (!rc && merged)
        rc = ls_disk_clear_xattrs(fd, said); /* those of the parents' directory of this name */
    return rc ? rc : ls_disk_settle(&unpack->disk, fd, node, false, said);
}

static int finish_folder(struct ls_unpack *unpack, struct ls_node *node) {
    int rc = node->flags & (LS_MARKED | LS_OPAQUE) ? ls_make_folders(unpack, node) : 0;
    if (rc || !(node->flags & LS_MADE) || ls_is_listed(unpack))
        return rc;
    int fd = ls_folder(unpack, &unpack->here, node);
    return fd < 0 || settle_folder(unpack, fd, node) ? ls_failed_at(unpack, node) : 0;
}

static int finish_node(struct ls_unpack *unpack, struct ls_node *node) {
    static const char TOO_LONG[] =
        "a name of more than 251 bytes cannot be hidden in layers of aufs' form, where the mark is a name, too";
    if (node->type == LS_DIRECTORY)
        return finish_folder(unpack, node);
    if (!(node->flags & LS_WHITEOUT) || node->type)
        return 0;
    int rc = ls_make_folders(unpack, node->parent);
    if (rc || ls_is_listed(unpack))
        return rc;
    int fd = ls_folder(unpack, &unpack->here, node->parent);
    rc = fd < 0 ? fd : ls_disk_whiteout(&unpack->disk, fd, node->name, &unpack->said);
    if (rc == -ENAMETOOLONG && unpack->disk.dialect == LS_DIALECT_AUFS)
        return ls_fail_dialect(unpack, TOO_LONG, node);
    return rc ? ls_failed_at(unpack, node) : 0;
}

/* --- the index ---------------------------------------------------------------------------------------------------- */

static int index_payloads(struct ls_unpack *unpack, struct ls_bytes *out) {
    LS_BYTES_FREED struct ls_bytes path = {0};
    int rc = ls_bytes_add(out, LS_INDEX_MAGIC, strlen(LS_INDEX_MAGIC)) ?: ls_bytes_number(out, unpack->payloads.count);
    for (size_t i = 0; !rc && i < unpack->payloads.count; i++) {
        const struct ls_payload *payload = &unpack->payloads.list[i];
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
            rc = ls_bytes_number(out, (uint64_t)payload->extents[n].offset)
                     ?: ls_bytes_number(out, (uint64_t)payload->extents[n].length);
    }
    return rc;
}

/* One path of `implied`, and after it the slashes that say of what kind it is: see unpack.h. */
static int put_implied(struct ls_unpack *unpack, const struct ls_node *node, const char *kind) {
    LS_BYTES_FREED struct ls_bytes path = {0};
    int rc = ls_node_path(node, &path);
    rc = rc ?: ls_bytes_add(&unpack->implied, path.data, path.length);
    return rc ?: ls_bytes_add(&unpack->implied, kind, strlen(kind) + 1);
}

static int index_node(const struct ls_unpack *unpack, const struct ls_node *node, struct ls_bytes *out) {
    LS_BYTES_FREED struct ls_bytes path = {0};
    LS_BYTES_FREED struct ls_bytes target = {0};
    bool link = node->type == LS_HARD_LINK;
    bool stored_apart = link && node->target->parent == unpack->model.aside;
    const struct ls_node *facts = link ? node->target : node;
    int rc = ls_node_path(node, &path);
    if (!rc && link && !stored_apart)
        rc = ls_node_path(node->target, &target);
    struct ls_index_node entry = {
        .path = path.data,
        .path_length = path.length,
        .type = stored_apart ? node->target->type : node->type,
        .flags = node->flags | (facts->flags & LS_TAILED),
        .target = target.data,
        .target_length = target.length,
        .mode = facts->mode,
        .uid = facts->uid,
        .gid = facts->gid,
        .mtime_ns = facts->mtime_ns,
        .mtime = facts->mtime,
        .major = facts->major,
        .minor = facts->minor,
        .size = facts->size,
        .content = facts->content,
        .attributes = facts->attributes,
    };
    return rc ?: ls_index_put_node(out, &entry);
}

static int index_nodes(struct ls_unpack *unpack, struct ls_bytes *out) {
    struct ls_node *root = unpack->model.root;
    uint64_t count = 0;
    for (struct ls_node *node = root; node; node = ls_node_preorder(node, root))
        count += ls_is_indexed(node);
    int rc = ls_bytes_number(out, count);
    for (struct ls_node *node = root; !rc && node; node = ls_node_preorder(node, root)) {
        bool indexed = ls_is_indexed(node), implied = indexed && node->flags & LS_IMPLIED;
        if (indexed)
            rc = index_node(unpack, node, out);
        if (implied)
            rc = rc ?: put_implied(unpack, node, node->flags & LS_HOLLOW ? "/" : "");
        else if (
            node->guessed) /* what it became has not told the parents' symlink, if there is one, from a directory */
            rc = rc ?: put_implied(unpack, node, "//");
    }
    return rc;
}

/* --- all together ------------------------------------------------------------------------------------------------- */

int ls_unpack_finish(struct ls_unpack *unpack) {
    struct ls_node *root = unpack->model.root;
    int rc = ls_keep_limits(unpack, 0) ?: ls_finish_links(unpack);
    if (!rc && ls_is_listed(unpack)) {
        ls_queue_drain(&unpack->queue);
        rc = ls_failed(unpack);
    }
    ls_queue_close(&unpack->queue);
    if (rc || (rc = ls_shadow_settle(unpack)))
        return rc;
    find_hidden(unpack);
    for (struct ls_node *node = ls_node_deepest(root); node; node = ls_node_postorder(node, root))
        if ((rc = finish_node(unpack, node)))
            return rc;
    if (ls_skeleton_raw(&unpack->stream, unpack->raw.data, unpack->raw.length) ||
        index_payloads(unpack, &unpack->index) || index_nodes(unpack, &unpack->index) ||
        (ls_is_listed(unpack) && ls_list_places(unpack, &unpack->index)))
        return ls_fail_memory(unpack);
    unpack->raw.length = 0;
    return 0;
}
