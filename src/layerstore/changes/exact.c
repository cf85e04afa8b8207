/* Making an upper directory say what its tar says, and nothing else. At no point does the tree that the stack shows look
 * different: a mark goes when nothing depends on it any more. */
#define _GNU_SOURCE
#include "internal.h"
#include "../kernel/files/files.h"
#include "../kernel/files/listing.h"
#include "../kernel/files/within.h"

#include <fcntl.h>
#include <sys/xattr.h>

/* A directory that still holds something stays. */
static int drop_surplus(struct ls_changes *changes, const char *path) {
    struct timespec times[2];
    const char *name;
    LS_CLOSED int fd = ls_branch_open_holder(changes, path, &name, times);
    if (fd < 0)
        return fd;
    int rc = unlinkat(fd, name, 0);
    if (rc && (errno == EISDIR || errno == EPERM))
        rc = unlinkat(fd, name, AT_REMOVEDIR);
    if (rc && errno != ENOENT && errno != ENOTEMPTY)
        return ls_changes_fail(changes, "unlinkat", -errno, path);
    return futimens(fd, times) ? ls_changes_fail(changes, "futimens", -errno, path) : 0;
}

static int make_opaque(struct ls_changes *changes, int folder, const char *name, const char *path) {
    LS_CLOSED int fd = ls_changes_open(folder, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return ls_changes_fail(changes, "openat", fd, path);
    if (fsetxattr(fd, ls_overlay_xattr(LS_XATTR_OPAQUE), "y", 1, 0))
        return ls_changes_fail(changes, "fsetxattr", -errno, path);
    return ls_changes_add_surplus(changes, OPAQUE, path);
}

static int make_whiteout(struct ls_changes *changes, int upper, const char *name, const char *path) {
    /* The xattr first, see finish.c: without it whiteouts show as ghosts where the directory is not merged. */
    if (fgetxattr(upper, ls_overlay_xattr(LS_XATTR_ORIGIN), NULL, 0) < 0) {
        if (errno != ENODATA && errno != EOPNOTSUPP)
            return ls_changes_fail(changes, "fgetxattr", -errno, path);
        if (fsetxattr(upper, ls_overlay_xattr(LS_XATTR_ORIGIN), "", 0, 0))
            return ls_changes_fail(changes, "fsetxattr", -errno, path);
    }
    return mknodat(upper, name, S_IFCHR, 0) ? ls_changes_fail(changes, "mknodat", -errno, path) : 0;
}

/* One name that the parents have in an opaque directory. */
static int hide(struct ls_changes *changes, const char *path, int upper, int lower, const char *name) {
    struct stat above, below;
    int there = ls_changes_look(upper, name, &above);
    if (there == 0)
        return make_whiteout(changes, upper, name, path);
    int hides = there < 0 || !S_ISDIR(above.st_mode) ? there : ls_changes_look(lower, name, &below);
    if (hides < 0)
        return ls_changes_fail(changes, "fstatat", hides, path);
    bool folders = S_ISDIR(above.st_mode) && hides && S_ISDIR(below.st_mode);
    return folders ? make_opaque(changes, upper, name, path) : 0;
}

/* Hides, name by name, what an opaque directory hides as a whole; what is left to hide below is passed on. */
static int hide_each(struct ls_changes *changes, const char *path, int upper, int lower) {
    LS_BYTES_FREED struct ls_bytes inner = {0};
    LS_LISTED struct ls_listing listing = {0};
    int rc = ls_listing_begin(&listing, lower, &changes->failure);
    while (!rc && (rc = ls_listing_next(&listing)) > 0) {
        rc = ls_bytes_path(&inner, path, listing.name);
        rc = rc ? ls_changes_fail(changes, "malloc", rc, path)
                : hide(changes, (char *)inner.data, upper, lower, listing.name);
    }
    return rc ? ls_fail_at(&changes->failure, path) : 0;
}

static int spell_out(struct ls_changes *changes, const char *path) {
    struct stat facts;
    LS_CLOSED int upper = ls_changes_open_folder(changes->upper, path);
    if (upper < 0)
        return ls_changes_fail(changes, "openat2", upper, path);
    if (fstat(upper, &facts))
        return ls_changes_fail(changes, "fstat", -errno, path);
    LS_CLOSED int lower = changes->lower < 0 ? -ENOENT : ls_changes_open_folder(changes->lower, path);
    if (lower < 0 && !ls_is_absent(lower)) /* or what it hides would show again */
        return ls_changes_fail(changes, "openat2", lower, path);
    int rc = lower < 0 ? 0 : hide_each(changes, path, upper, lower);
    if (!rc && fremovexattr(upper, ls_overlay_xattr(LS_XATTR_OPAQUE)) && errno != ENODATA)
        rc = ls_changes_fail(changes, "fremovexattr", -errno, path);
    const struct timespec times[2] = {facts.st_atim, facts.st_mtim};
    if (futimens(upper, times) && !rc) /* after a failure, too: it is still the container's */
        rc = ls_changes_fail(changes, "futimens", -errno, path);
    return rc;
}

/* What the directory holds and no tar says, but for marks that stay. 1: something was altered. */
static int drop_all(struct ls_changes *changes, bool stale_too) {
    const struct found *surplus = changes->surplus.list;
    int rc = 0;
    bool dropped = false;
    ls_changes_sort_surplus(changes);
    for (size_t i = changes->surplus.count; !rc && i-- > 0;) /* what is in a directory goes before it */
        if (surplus[i].kind == UNCHANGED || (stale_too && surplus[i].kind == STALE)) {
            rc = drop_surplus(changes, surplus[i].path);
            dropped = true;
        }
    return rc ? rc : dropped;
}

int ls_changes_make_exact(struct ls_changes *changes) {
    if (changes->marks != LS_MARKS_OVERLAY) {
        int marked = ls_branch_mark_removed(changes);
        int cleaned = marked < 0 ? marked : ls_branch_clean(changes);
        int dropped = cleaned < 0 ? cleaned : drop_all(changes, false);
        return dropped < 0 ? dropped : marked || cleaned || dropped;
    }
    int rc = 0;
    for (size_t i = 0; !rc && i < changes->surplus.count; i++) /* grows meanwhile */
        if (changes->surplus.list[i].kind == OPAQUE)
            rc = spell_out(changes, changes->surplus.list[i].path);
    rc = rc ?: drop_all(changes, true);
    return rc < 0 ? rc : changes->surplus.count > 0;
}
