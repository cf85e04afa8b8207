/* Names to nodes: which directory of the layer a name leads to, through the symlinks of this layer and those below.
 *
 * Resolved in the model alone, one component at a time; the parents' tree is only asked what one component is, and
 * never follows a link itself. So no name can lead outside. */
#define _GNU_SOURCE
#include "engine.h"
#include "../kernel/files/within.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SYMLINKS_MAX = 40, LONGEST_PATH = 4095 };

/* --- what the parents have ---------------------------------------------------------------------------------------- */

/* Has this layer hidden what the layers below have in the directory? */
static bool is_hidden(const struct ls_node *folder) {
    for (; folder; folder = folder->parent)
        if (folder->flags & LS_OPAQUE)
            return true;
    return false;
}

static bool may_look_below(const struct ls_unpack *unpack, const struct ls_node *folder) {
    return unpack->below >= 0 && folder->flags & LS_BELOW && !is_hidden(folder);
}

static int open_below(const struct ls_unpack *unpack, const struct ls_node *folder, struct ls_part name) {
    LS_BYTES_FREED struct ls_bytes path = {0};
    if (!may_look_below(unpack, folder))
        return -ENOENT;
    int rc = ls_node_path(folder, &path);
    if (!rc && path.length)
        rc = ls_bytes_add(&path, "/", 1);
    rc = rc ?: ls_bytes_add(&path, name.name, name.length);
    int fd = rc ? rc : ls_open_beneath(unpack->below, (char *)path.data, O_PATH | O_NOFOLLOW, 0);
    return fd == -ENOTDIR ? -ENOENT : fd;
}

int ls_open_below(struct ls_unpack *unpack, const struct ls_node *folder, struct ls_part name, struct stat *facts,
                  const struct ls_node *node) {
    LS_CLOSED int fd = open_below(unpack, folder, name);
    if (fd == -ENOENT)
        return fd;
    if (fd < 0)
        return ls_fail_system(unpack, fd, "openat2", node);
    return ls_facts(fd, facts, &unpack->said) ? ls_failed_at(unpack, node) : ls_take_fd(&fd);
}

int ls_look_below(struct ls_unpack *unpack, struct ls_node *node) {
    struct stat facts;
    struct ls_part name = {node->name, node->name_length};
    LS_CLOSED int fd = ls_open_below(unpack, node->parent, name, &facts, node);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    if (S_ISDIR(facts.st_mode)) {
        node->flags |= LS_BELOW;
        if (node->type != LS_DIRECTORY) {
            if (ls_disk_learn(fd, node, &unpack->said))
                return ls_failed_at(unpack, node);
            node->type = LS_DIRECTORY;
            node->flags |= unpack->disk.dialect == LS_DIALECT_MERGED ? LS_MADE : LS_IMPLIED;
            unpack->remembered += node->path_length;
        }
        return LS_DIRECTORY;
    }
    if (!S_ISLNK(facts.st_mode))
        return LS_REGULAR;
    node->flags |= LS_BELOW;
    if (ls_disk_read_link(fd, facts.st_size, node, &unpack->said))
        return ls_failed_at(unpack, node);
    return node->type = LS_SYMLINK;
}

/* --- names to nodes ----------------------------------------------------------------------------------------------- */

/* The directory that a symlink leads to, within the root as chroot(2) would have it. */
static struct ls_node *follow(struct ls_unpack *unpack, struct ls_node *link, enum ls_purpose purpose) {
    struct ls_node *at = link->link[0] == '/' ? unpack->model.root : link->parent;
    if (unpack->symlinks++ >= SYMLINKS_MAX) { /* for the whole name, as the kernel counts them */
        if (purpose == LS_FOR_FILE || purpose == LS_FOR_OPAQUE)
            ls_fail_entry(unpack, "too many symlinks lead to this name");
        return NULL; /* a ring: nothing can be there to hide or to link to */
    }
    for (const char *name = link->link; at && *name;) {
        size_t length = strcspn(name, "/");
        if (length == 2 && !memcmp(name, "..", 2))
            at = at->parent ? at->parent : at;
        else if (length > 255)
            return ls_fail_entry(unpack, "a symlink on the way has a name longer than 255 bytes"), NULL;
        else if (length && !(length == 1 && *name == '.')) {
            if (ls_is_mark(name, length))
                return ls_fail_entry(unpack, "a symlink on the way leads to a reserved name (.wh.)"), NULL;
            at = ls_walk(unpack, at, &(struct ls_part){name, length}, 1, purpose);
        }
        name += length + (name[length] == '/');
    }
    return at;
}

/* Beyond PATH_MAX no program could reach it by name. */
struct ls_node *ls_child(struct ls_unpack *unpack, struct ls_node *folder, struct ls_part name) {
    struct ls_node *node = ls_model_child(&unpack->model, folder, name.name, name.length);
    if (!node)
        ls_fail_memory(unpack);
    else if (node->path_length > LONGEST_PATH) {
        ls_fail_entry(unpack, "the path is longer than 4,095 bytes");
        return NULL;
    }
    return node;
}

/* One component on the way to a name. NULL without a failure: nothing is there, and nothing has to be. */
static struct ls_node *step(struct ls_unpack *unpack, struct ls_node *folder, struct ls_part part,
                            enum ls_purpose purpose) {
    struct ls_node *node = ls_model_find(&unpack->model, folder, part.name, part.length);
    if (!node && (purpose != LS_TO_LOOK || may_look_below(unpack, folder)))
        node = ls_child(unpack, folder, part);
    if (!node)
        return NULL;
    if (node->type == LS_SYMLINK && !ls_is_own(node) && is_hidden(folder))
        ls_node_forget(node); /* of the parents, and hidden since it was looked at */
    if (!node->type && !(node->flags & LS_WHITEOUT)) {
        int below = ls_look_below(unpack, node);
        if (below < 0)
            return NULL;
        if (below && !node->type && (purpose == LS_FOR_WHITEOUT || purpose == LS_TO_LOOK))
            return NULL; /* a file of the parents: they have nothing under it */
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
        /* a link may lead to what the parents have, and that may be a symlink to a directory */
        if (real->type == LS_HARD_LINK && unpack->below == LS_BELOW_UNKNOWN)
            unpack->result.needs_parents = 1;
        else if (purpose == LS_FOR_FILE)
            ls_fail_entry(unpack, "the name leads through something that is no directory");
        return NULL;
    }
    if (purpose == LS_TO_LOOK)
        return NULL;
    if (purpose == LS_FOR_WHITEOUT && node->flags & LS_WHITEOUT)
        return NULL; /* hidden already, and all below it */
    /* a whiteout of what is not there does nothing; an opaque mark implies its directory, as a file does */
    if (purpose == LS_FOR_WHITEOUT && (unpack->below != LS_BELOW_UNKNOWN || unpack->disk.dialect == LS_DIALECT_MERGED))
        return NULL;
    ls_default_folder(node);
    node->guessed |= unpack->below == LS_BELOW_UNKNOWN && !(node->flags & LS_WHITEOUT) && !is_hidden(folder);
    node->flags = node->flags & LS_WHITEOUT ? LS_OPAQUE : LS_IMPLIED;
    unpack->remembered += node->path_length;
    return node;
}

struct ls_node *ls_walk(struct ls_unpack *unpack, struct ls_node *from, const struct ls_part *part, size_t count,
                        enum ls_purpose purpose) {
    for (size_t i = 0; from && i < count; i++)
        from = step(unpack, from, part[i], purpose);
    return from;
}

/* --- the words of a hard link ------------------------------------------------------------------------------------- */

struct ls_node *ls_find_name(struct ls_unpack *unpack, const char *wanted, bool *wrong) {
    struct ls_parts *parts = &unpack->link_parts;
    const char *why;
    unpack->link_folder = NULL;
    int rc = ls_parts_split(parts, wanted, strlen(wanted), &why);
    *wrong = rc == -EBADMSG || parts->count == 0;
    unpack->symlinks = 0;
    if (rc == -ENOMEM)
        ls_fail_memory(unpack);
    if (rc || *wrong)
        return NULL;
    struct ls_part last = parts->list[parts->count - 1];
    if (parts->count == 2 && ls_part_is(parts->list[0], LS_LINK_STORE))
        return ls_model_find(&unpack->model, unpack->model.aside, last.name, last.length);
    struct ls_node *folder = ls_walk(unpack, unpack->model.root, parts->list, parts->count - 1, LS_TO_LOOK);
    unpack->link_folder = folder;
    unpack->link_name = last;
    struct ls_node *node = folder ? ls_model_find(&unpack->model, folder, last.name, last.length) : NULL;
    bool is_folder = node && node->type == LS_DIRECTORY;
    *wrong = is_folder && !(node->flags & LS_IMPLIED &&
                            unpack->below == LS_BELOW_UNKNOWN); /* the parents may have a symlink there */
    return node && ls_is_own(node) && !is_folder ? node : NULL;
}
