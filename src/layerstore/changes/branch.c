/* An upper directory in the marks of aufs, or in the mix that fuse-overlayfs writes, made to say what its tar says.
 *
 * First each change that removes a name gets its own `.wh.NAME`; then everything else that hides something can go: devices,
 * opaque marks, whiteouts of nothing, xattrs. So the stack shows the same at every moment, and a death in between does no
 * harm. Of what fuse-overlayfs writes as root (1.10): a whiteout is a 0/0 device; each new directory has a file
 * `.wh..wh..opq`, the xattr trusted.overlay.opaque and, by an oversight, a device `.wh..opq`; what was copied up has
 * user.fuseoverlayfs.origin. It shows no xattr of these families to anyone, so none of them is in the tar. */
#define _GNU_SOURCE
#include "internal.h"
#include "../kernel/files/listing.h"
#include "../kernel/files/marks.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/xattr.h>

/* --- what is removed ---------------------------------------------------------------------------------------------- */

int ls_branch_open_holder(struct ls_changes *changes, const char *path, const char **name, struct timespec times[2]) {
    const char *slash = strrchr(path, '/');
    struct stat facts;
    LS_FREED char *folder = strndup(path, slash ? (size_t)(slash - path) : 0);
    *name = slash ? slash + 1 : path;
    if (!folder)
        return ls_changes_fail(changes, "malloc", -ENOMEM, path);
    LS_CLOSED int fd = ls_changes_open_folder(changes->upper, folder);
    if (fd < 0)
        return ls_changes_fail(changes, "openat2", fd, path);
    if (fstat(fd, &facts))
        return ls_changes_fail(changes, "fstat", -errno, path);
    times[0] = facts.st_atim, times[1] = facts.st_mtim;
    return ls_take_fd(&fd);
}

/* 1: made, 0: was there. */
static int make_whiteout(struct ls_changes *changes, const char *path) {
    struct timespec times[2];
    const char *name;
    char marker[NAME_MAX + 1];
    struct stat facts;
    LS_CLOSED int fd = ls_branch_open_holder(changes, path, &name, times);
    if (fd < 0)
        return fd;
    int rc = ls_whiteout_of(name, marker);
    int there = rc ? rc : ls_changes_look(fd, marker, &facts);
    if (there > 0 && S_ISREG(facts.st_mode))
        return 0;
    if (there < 0)
        return ls_changes_fail(changes, rc ? "mknodat" : "fstatat", there, path);
    if (mknodat(fd, marker, S_IFREG | 0444, 0))
        return ls_changes_fail(changes, "mknodat", -errno, path);
    return futimens(fd, times) ? ls_changes_fail(changes, "futimens", -errno, path) : 1;
}

int ls_branch_mark_removed(struct ls_changes *changes) {
    int rc = 0, made = 0;
    for (size_t i = 0; rc >= 0 && i < changes->found.count; i++)
        if (changes->found.list[i].kind == 'D') {
            rc = make_whiteout(changes, changes->found.list[i].path);
            made |= rc;
        }
    return rc < 0 ? rc : made;
}

/* --- what says nothing then --------------------------------------------------------------------------------------- */

/* The functions below tell a failure without a place. */
struct walk {
    struct ls_changes *changes;
    struct ls_failure *failure;
    bool altered;
};

static bool is_private(const char *name) {
    size_t length = strlen(name);
    return ls_begins(name, length, "trusted.overlay.") || ls_begins(name, length, "user.overlay.") ||
           ls_begins(name, length, "user.fuseoverlayfs.");
}

/* The names of all xattrs, each ended by NUL; or -errno. They may change while they are read. */
static ssize_t list_xattrs(const char *link, char **list, struct ls_failure *failure) {
    for (;;) {
        ssize_t room = listxattr(link, NULL, 0);
        if (room <= 0)
            return room == 0 || errno == EOPNOTSUPP ? 0 : LS_FAIL(failure, "listxattr");
        free(*list);
        *list = malloc((size_t)room);
        if (!*list)
            return ls_fail(failure, "malloc", -ENOMEM);
        ssize_t size = listxattr(link, *list, (size_t)room);
        if (size >= 0 || errno != ERANGE)
            return size < 0 ? LS_FAIL(failure, "listxattr") : size;
    }
}

static int strip(struct walk *walk, int folder, const char *name) {
    char link[64];
    LS_FREED char *list = NULL;
    LS_CLOSED int fd = ls_changes_open(folder, name, O_PATH);
    if (fd < 0)
        return ls_fail(walk->failure, "openat", fd);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd); /* serves for symlinks and devices, too */
    ssize_t size = list_xattrs(link, &list, walk->failure);
    for (ssize_t at = 0; at < size; at += (ssize_t)strlen(list + at) + 1)
        if (is_private(list + at)) {
            if (removexattr(link, list + at) && errno != ENODATA)
                return LS_FAIL(walk->failure, "removexattr");
            walk->altered = true;
        }
    return size < 0 ? (int)size : 0;
}

/* aufs' own folders in the root of a branch are made anew at the next mount. */
static int remove_all(struct walk *walk, int folder, const char *name) {
    if (!unlinkat(folder, name, 0) || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return LS_FAIL(walk->failure, "unlinkat");
    LS_LISTED struct ls_listing listing = {0};
    LS_CLOSED int fd = ls_changes_open(folder, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return ls_fail(walk->failure, "openat", fd);
    int rc = ls_listing_begin(&listing, fd, walk->failure);
    while (!rc && (rc = ls_listing_next(&listing)) > 0)
        rc = remove_all(walk, fd, listing.name);
    if (rc)
        return rc;
    return unlinkat(folder, name, AT_REMOVEDIR) ? LS_FAIL(walk->failure, "unlinkat") : 0;
}

/* 1: this name is a mark that says nothing now; 0; or -errno. */
static int is_spent(struct walk *walk, const char *path, const char *name, const struct stat *facts) {
    if (!ls_is_mark(name, strlen(name)))
        return S_ISCHR(facts->st_mode) && facts->st_rdev == 0;
    const char *hidden = ls_hidden_by(name);
    if (!hidden || !S_ISREG(facts->st_mode))
        return 1;
    LS_BYTES_FREED struct ls_bytes removed = {0};
    int rc = ls_bytes_path(&removed, path, hidden);
    if (rc)
        return ls_fail(walk->failure, "malloc", rc);
    return !ls_changes_is_removed(walk->changes, (char *)removed.data);
}

static int clean_folder(struct walk *walk, const char *path, int folder);

static int clean_name(struct walk *walk, const char *path, int folder, const char *name) {
    struct stat facts;
    if (fstatat(folder, name, &facts, AT_SYMLINK_NOFOLLOW))
        return LS_FAIL(walk->failure, "fstatat");
    int rc = is_spent(walk, path, name, &facts);
    if (rc == 1) {
        walk->altered = true;
        return remove_all(walk, folder, name);
    }
    if (!rc && walk->changes->marks == LS_MARKS_FUSE)
        rc = strip(walk, folder, name);
    if (rc || !S_ISDIR(facts.st_mode))
        return rc;
    LS_BYTES_FREED struct ls_bytes inner = {0};
    if ((rc = ls_bytes_path(&inner, path, name)))
        return ls_fail(walk->failure, "malloc", rc);
    LS_CLOSED int fd = ls_changes_open(folder, name, O_RDONLY | O_DIRECTORY);
    return fd < 0 ? ls_fail(walk->failure, "openat", fd) : clean_folder(walk, (char *)inner.data, fd);
}

/* The names of a folder, each ended by NUL. They are read first: on some filesystems a listing changes while names go. */
static int read_names(struct walk *walk, int folder, struct ls_bytes *names) {
    LS_LISTED struct ls_listing listing = {0};
    int rc = ls_listing_begin(&listing, folder, walk->failure);
    while (!rc && (rc = ls_listing_next(&listing)) > 0) {
        rc = ls_bytes_add(names, listing.name, strlen(listing.name) + 1);
        if (rc)
            return ls_fail(walk->failure, "malloc", rc);
    }
    return rc;
}

static int clean_folder(struct walk *walk, const char *path, int folder) {
    LS_BYTES_FREED struct ls_bytes names = {0};
    struct stat facts;
    if (fstat(folder, &facts)) {
        LS_FAIL(walk->failure, "fstat");
        return ls_fail_at(walk->failure, path);
    }
    const struct timespec times[2] = {facts.st_atim, facts.st_mtim};
    bool before = walk->altered;
    int rc = read_names(walk, folder, &names);
    walk->altered = false;
    for (size_t at = 0; !rc && at < names.length; at += strlen((char *)names.data + at) + 1) {
        rc = clean_name(walk, path, folder, (char *)names.data + at);
        if (rc)
            ls_fail_in(walk->failure, path, (char *)names.data + at);
    }
    if (walk->altered && futimens(folder, times) && !rc) /* after a failure, too: it is still the container's */
        rc = LS_FAIL(walk->failure, "futimens");
    walk->altered |= before;
    return rc ? ls_fail_at(walk->failure, path) : 0;
}

int ls_branch_clean(struct ls_changes *changes) {
    struct walk walk = {.changes = changes, .failure = &changes->failure};
    LS_CLOSED int root = ls_changes_open(changes->upper, ".", O_RDONLY | O_DIRECTORY);
    if (root < 0)
        return ls_changes_fail(changes, "openat", root, "");
    int rc = changes->marks == LS_MARKS_FUSE ? strip(&walk, root, ".") : 0;
    rc = rc ?: clean_folder(&walk, "", root);
    return rc ? rc : walk.altered;
}
