/* One entry, its headers complete: what it means for the layer, and the job for a writer if it has one.
 *
 * Rules followed where the OCI image spec (layer.md) is silent: of several entries of one name the last counts; what no
 * filesystem can hold is dropped alike for every driver, and said. */
#define _GNU_SOURCE
#include "engine.h"
#include "../kernel/files/acls.h"
#include "xxh64.h"

static int copy_extents(const struct ls_entry *entry, struct ls_extent **extents) {
    size_t bytes = entry->extents.count * sizeof **extents;
    if (bytes && !(*extents = malloc(bytes)))
        return -ENOMEM;
    if (bytes)
        memcpy(*extents, entry->extents.list, bytes);
    return 0;
}

/* The entry's payload, as the next of the layer's. */
static int add_payload(struct ls_unpack *unpack, struct ls_node *node, int64_t shadow) {
    const struct ls_entry *entry = &unpack->entry;
    struct ls_payload payload = {.size = entry->payload, .node = node, .shadow = shadow, .place = unpack->entry_end};
    LS_FREED struct ls_extent *extents = NULL;
    if (entry->sparse && copy_extents(entry, &extents))
        return -ENOMEM;
    payload.extents = extents;
    payload.extents_count = entry->sparse ? entry->extents.count : 0;
    int rc = ls_array_add(&unpack->payloads, payload);
    if (rc)
        return rc;
    extents = NULL;
    node->payload = (int64_t)unpack->payloads.count - 1;
    unpack->remembered += (int64_t)(sizeof payload + payload.extents_count * sizeof *extents + node->path_length);
    return 0;
}

/* The kernel makes the mode what an access control list says, and keeps no list that says no more than a mode. So what the entry
 * will look like is known before it is made; a list that is none is refused by who sets it. */
static bool is_in_mode(struct ls_node *node, const struct ls_xattr *xattr) {
    return node->type != LS_SYMLINK && ls_acl_of(xattr) != LS_ACL_NONE &&
           !ls_acl_take(xattr, node->type == LS_DIRECTORY, &node->mode);
}

/* What cannot lie on a filesystem is dropped here, alike for every driver, and said. */
static int take_xattrs(struct ls_unpack *unpack, struct ls_node *node) {
    struct ls_reader reader = {unpack->entry.xattrs.data, unpack->entry.xattrs.data + unpack->entry.xattrs.length,
                               false};
    struct ls_xattr xattr;
    struct ls_bytes kept = {0};
    bool user_allowed = node->type == LS_REGULAR || node->type == LS_DIRECTORY;
    int rc = 0;
    while (!rc && unpack->entry.xattrs.length && ls_xattr_next(&reader, &xattr)) {
        if (xattr.name_length == 16 && !memcmp(xattr.name, "security.selinux", 16))
            continue; /* a label belongs to one host's policy */
        if (is_in_mode(node, &xattr))
            continue;
        if (!user_allowed && xattr.name_length > 5 && !memcmp(xattr.name, "user.", 5))
            rc = ls_notice(unpack, "user xattr on a special file", node); /* xattr(7): not permitted there */
        else
            rc = ls_xattr_add(&kept, xattr.name, xattr.name_length, xattr.value, xattr.value_length);
    }
    free(node->xattrs);
    node->xattrs = kept.data;
    node->xattrs_length = (uint32_t)kept.length;
    unpack->remembered += (int64_t)kept.length;
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
        node->mode = 0777; /* no filesystem keeps another */
        free(node->link);
        if (!(node->link = strdup((char *)entry->link.data)))
            return ls_fail_memory(unpack);
        node->link_length = (uint32_t)entry->link.length;
        unpack->remembered += node->link_length;
        node->size = node->link_length;
        node->content = ls_xxh64_of(node->link, node->link_length, 0);
        if (!node->link_length)
            return ls_fail_entry(unpack, "a symlink leads nowhere");
    }
    return take_xattrs(unpack, node) ? ls_fail_memory(unpack) : 0;
}

static int place_folder(struct ls_unpack *unpack, struct ls_node *node) {
    if (node->type != LS_DIRECTORY) {
        /* a whiteout or a file that stood here hid what the parents have, and a directory instead does not bring it
         * back */
        uint16_t flags = node->flags & LS_WHITEOUT || ls_is_own(node) ? LS_OPAQUE : 0;
        int rc = ls_make_way(unpack, node);
        node->flags = flags;
        if (!rc && !flags && unpack->below >= 0)
            rc = ls_look_below(unpack, node);
        if (rc < 0)
            return rc;
        if (node->type == LS_SYMLINK) /* of the parents: this directory replaces it */
            ls_node_forget(node);
    }
    node->flags = (node->flags & ~LS_IMPLIED) | LS_STATED;
    ls_mark_filled(node);
    return describe(unpack, node) ?: ls_make_folders(unpack, node);
}

static int begin_job(struct ls_unpack *unpack, struct ls_node *node, int64_t shadow) {
    const struct ls_entry *entry = &unpack->entry;
    if (ls_is_listed(unpack)) {
        ls_list_file(unpack, node);
        return entry->type == LS_REGULAR && entry->payload && add_payload(unpack, node, shadow) ? ls_fail_memory(unpack)
                                                                                                : 0;
    }
    struct ls_job *job = ls_job_new(node);
    if (!job)
        return ls_fail_memory(unpack);
    job->shadow = shadow;
    job->sparse = entry->sparse;
    if (entry->type != LS_REGULAR || !entry->payload) {
        ls_queue_put(&unpack->queue, job, true);
        return 0;
    }
    unpack->job = job;
    /* the writer gets extents of its own: the table of payloads may move meanwhile */
    if (add_payload(unpack, node, shadow) || (entry->sparse && copy_extents(entry, &job->extents)))
        return ls_fail_memory(unpack);
    job->extents_count = entry->sparse ? entry->extents.count : 0;
    return 0;
}

/* On overlay this device is a whiteout, and no driver may differ from another in what a tar means: it is nothing. */
static int pass_over(struct ls_unpack *unpack) {
    static const char KIND[] = "character device 0/0";
    const struct ls_parts *parts = &unpack->parts;
    struct ls_bytes *notices = &unpack->notices;
    int rc = ls_bytes_add(notices, KIND, sizeof KIND);
    for (size_t i = 0; !rc && i < parts->count; i++)
        rc = (i ? ls_bytes_add(notices, "/", 1) : 0)
                 ?: ls_bytes_add(notices, parts->list[i].name, parts->list[i].length);
    rc = rc ?: ls_bytes_add(notices, "", 1);
    return rc ? ls_fail_memory(unpack) : 0;
}

static int place_link(struct ls_unpack *unpack, struct ls_node *node) {
    struct ls_node *target;
    int rc = ls_link_target(unpack, node, &target);
    if (rc)
        return rc < 0 ? rc : 0;
    return ls_make_way(unpack, node) ?: ls_place_link(unpack, node, target);
}

static int place_file(struct ls_unpack *unpack, struct ls_node *node) {
    if (unpack->entry.type == LS_HARD_LINK)
        return place_link(unpack, node);
    int rc = ls_make_way(unpack, node);
    if (rc)
        return rc;
    node->flags = LS_STATED;
    ls_mark_filled(node->parent);
    unpack->result.files++;
    unpack->result.bytes += unpack->entry.type == LS_REGULAR ? unpack->entry.real_size : 0;
    return describe(unpack, node) ?: ls_make_folders(unpack, node->parent) ?: begin_job(unpack, node, -1);
}

/* aufs keeps the files that have several names in a folder of its own, and exports it as if it were part of the
 * layer. */
static int place_in_link_store(struct ls_unpack *unpack) {
    struct ls_part name = unpack->parts.list[unpack->parts.count - 1];
    if (unpack->parts.count != 2 || unpack->entry.type != LS_REGULAR)
        return 0;
    struct ls_node *node = ls_model_child(&unpack->model, unpack->model.aside, name.name, name.length);
    if (!node)
        return ls_fail_memory(unpack);
    if (node->type)
        return ls_fail_entry(unpack, "a name appears twice in the store of hard links");
    int rc = ls_shadow_folder(unpack);
    if (rc)
        return rc;
    node->flags = LS_STATED;
    return describe(unpack, node) ?: begin_job(unpack, node, unpack->shadow_count++);
}

/* Where the walk ends to which this name is the last: its mark, or its file. */
static enum ls_purpose purpose_of(struct ls_part name) {
    return ls_part_is(name, LS_OPAQUE_NAME)     ? LS_FOR_OPAQUE
           : ls_is_mark(name.name, name.length) ? LS_FOR_WHITEOUT
                                                : LS_FOR_FILE;
}

static struct ls_part hidden_by(struct ls_part mark) {
    size_t prefix = LS_LENGTH_OF(LS_WHITEOUT_PREFIX);
    return (struct ls_part){mark.name + prefix, mark.length - prefix};
}

static bool hides_no_name(struct ls_part mark) {
    struct ls_part name = hidden_by(mark);
    return name.length <= 2 && !memcmp(name.name, "..", name.length);
}

int ls_place(struct ls_unpack *unpack) {
    struct ls_entry *entry = &unpack->entry;
    struct ls_parts *parts = &unpack->parts;
    const char *why = NULL;
    int rc = ls_parts_split(parts, (char *)entry->name.data, entry->name.length, &why);
    if (!rc && entry->sparse)
        rc = ls_entry_check_sparse(entry, &why);
    if (rc)
        return ls_fail_reading(unpack, rc, why);
    unpack->result.entries++;
    if ((rc = ls_keep_limits(unpack, ls_extents_size(entry))))
        return rc;
    if (entry->type == LS_IGNORED)
        return 0;
    if (parts->count == 0) {
        if (entry->type != LS_DIRECTORY)
            return ls_fail_entry(unpack, "the root of a layer is no directory");
        unpack->model.root->flags = (unpack->model.root->flags & ~LS_IMPLIED) | LS_STATED;
        return describe(unpack, unpack->model.root);
    }
    struct ls_part last = parts->list[parts->count - 1];
    if (ls_part_is(parts->list[0], LS_LINK_STORE))
        return place_in_link_store(unpack);
    enum ls_purpose purpose = purpose_of(last);
    for (size_t i = 0; i < parts->count; i++) {
        struct ls_part part = parts->list[i];
        bool is_last = i + 1 == parts->count;
        if (ls_is_meta(part.name, part.length) && !(is_last && purpose == LS_FOR_OPAQUE))
            return 0; /* aufs' own: .wh..wh.aufs, .wh..wh.orph */
        if (ls_is_mark(part.name, part.length) && !is_last)
            return ls_fail_entry(unpack, "a directory's name begins with .wh.");
    }
    if (purpose == LS_FOR_FILE && entry->type == LS_CHARACTER && !entry->major && !entry->minor)
        return pass_over(unpack);
    if (purpose == LS_FOR_WHITEOUT && hides_no_name(last)) /* even in a folder that is not there */
        return ls_fail_entry(unpack, "a whiteout of nothing, or of a directory's own name");
    unpack->symlinks = 0;
    struct ls_node *folder = ls_walk(unpack, unpack->model.root, parts->list, parts->count - 1, purpose);
    if (!folder)
        return ls_failed(unpack);
    if (purpose == LS_FOR_OPAQUE)
        return ls_place_opaque(unpack, folder);
    if (purpose == LS_FOR_WHITEOUT)
        return ls_place_whiteout(unpack, folder, hidden_by(last));
    struct ls_node *node = ls_child(unpack, folder, last);
    if (!node)
        return ls_failed(unpack);
    return entry->type == LS_DIRECTORY ? place_folder(unpack, node) : place_file(unpack, node);
}
