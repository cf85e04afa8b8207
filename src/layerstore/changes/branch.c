/* An upper directory in the marks of aufs, or in the mix that fuse-overlayfs writes, made to say what its tar says.
 *
 * First each change that removes a name gets its own `.wh.NAME`; then everything else that hides something can go: devices,
 * opaque marks, whiteouts of nothing, xattrs. So the stack shows the same at every moment, and a death in between does no
 * harm. Of what fuse-overlayfs writes as root (1.10): a whiteout is a 0/0 device; each new directory has a file
 * `.wh..wh..opq`, the xattr trusted.overlay.opaque and, by an oversight, a device `.wh..opq`; what was copied up has
 * user.fuseoverlayfs.origin. It shows no xattr of these families to anyone, so none of them is in the tar. */
#define _GNU_SOURCE
#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *const PRIVATE[] = {"trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."};

static bool is_private(const char *name) {
    for (size_t i = 0; i < sizeof PRIVATE / sizeof *PRIVATE; i++)
        if (ls_begins(name, PRIVATE[i]))
            return true;
    return false;
}

/* fuse-overlayfs takes the first of its xattrs that there is, whatever it says, and looks for the file only without any. */
int ls_branch_is_opaque(int folder, int marks) {
    static const char *const NAMES[] = {"trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"};
    char value[16];
    struct stat facts;
    for (size_t i = 0; marks == LS_MARKS_FUSE && i < sizeof NAMES / sizeof *NAMES; i++) {
        ssize_t size = fgetxattr(folder, NAMES[i], value, sizeof value);
        if (size >= 0)
            return size > 0 && value[0] == 'y';
        if (errno != ENODATA && errno != ERANGE && errno != EOPNOTSUPP)
            return -errno;
    }
    return ls_changes_look(folder, LS_OPAQUE_NAME, &facts);
}

/* --- what is removed ---------------------------------------------------------------------------------------------- */

/* 1: made, 0: was there. */
static int make_whiteout(struct ls_changes *changes, const char *path) {
    struct timespec times[2];
    const char *name;
    char marker[NAME_MAX + 1];
    struct stat facts;
    int fd = ls_changes_open_holder(changes->upper, path, &name, times);
    if (fd < 0)
        return ls_changes_fail(changes, fd, "openat2", path);
    int rc = 1;
    if (ls_whiteout_of(name, marker))
        rc = -ENAMETOOLONG;
    else if (!fstatat(fd, marker, &facts, AT_SYMLINK_NOFOLLOW) && S_ISREG(facts.st_mode))
        rc = 0;
    else if (mknodat(fd, marker, S_IFREG | 0444, 0) || futimens(fd, times))
        rc = -errno;
    close(fd);
    return rc < 0 ? ls_changes_fail(changes, rc, "whiteout of", path) : rc;
}

static bool is_removed(const struct ls_changes *changes, const char *path) {
    struct found wanted = {(char *)path, 0};
    const struct found *found =
        changes->count ? bsearch(&wanted, changes->found, changes->count, sizeof wanted, ls_changes_by_path) : NULL;
    return found && found->kind == 'D';
}

/* --- what says nothing then --------------------------------------------------------------------------------------- */

struct walk {
    struct ls_changes *changes;
    struct ls_bytes path; /* of the directory in hand, with a slash at its end, or of the name in it */
    bool altered;
};

static int strip(struct walk *walk, int folder, const char *name) {
    char link[64], *list = NULL;
    ssize_t size = 0, room = 0;
    int fd = ls_changes_open(folder, name, O_PATH), rc = 0;
    if (fd < 0)
        return fd;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd); /* serves for symlinks and devices, too */
    while (!rc && (room = listxattr(link, NULL, 0)) > 0) {
        free(list);
        if (!(list = malloc((size_t)room)))
            rc = -ENOMEM;
        else if ((size = listxattr(link, list, (size_t)room)) >= 0 || errno != ERANGE)
            break;
    }
    if (room < 0 && errno != EOPNOTSUPP)
        rc = -errno;
    for (ssize_t at = 0; !rc && room > 0 && at < size; at += (ssize_t)strlen(list + at) + 1)
        if (is_private(list + at)) {
            rc = removexattr(link, list + at) && errno != ENODATA ? -errno : 0;
            walk->altered = true;
        }
    free(list);
    close(fd);
    return rc;
}

/* aufs' own folders in the root of a branch are made anew at the next mount. */
static int remove_all(int folder, const char *name) {
    if (!unlinkat(folder, name, 0) || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    int fd = ls_changes_open(folder, name, O_RDONLY | O_DIRECTORY), rc = 0;
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    if (!listing) {
        rc = fd < 0 ? fd : -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    for (struct dirent *one; !rc && (one = readdir(listing));)
        if (strcmp(one->d_name, ".") && strcmp(one->d_name, ".."))
            rc = remove_all(fd, one->d_name);
    closedir(listing);
    return rc ? rc : unlinkat(folder, name, AT_REMOVEDIR) ? -errno : 0;
}

static int clean_folder(struct walk *walk, int folder);

/* Whether this name is a mark that says nothing now; or -errno. */
static int is_spent(struct walk *walk, const char *name, const struct stat *facts, size_t length) {
    if (!ls_begins(name, LS_WHITEOUT_PREFIX))
        return S_ISCHR(facts->st_mode) && facts->st_rdev == 0;
    if (ls_begins(name, LS_META_PREFIX) || !S_ISREG(facts->st_mode))
        return 1;
    const char *hidden = name + strlen(LS_WHITEOUT_PREFIX);
    int rc = ls_bytes_add(&walk->path, hidden, strlen(hidden));
    bool counts = !rc && is_removed(walk->changes, (char *)walk->path.data);
    walk->path.length = length;
    return rc ? rc : !counts;
}

static int clean_name(struct walk *walk, int folder, const char *name) {
    struct stat facts;
    size_t length = walk->path.length;
    int rc = fstatat(folder, name, &facts, AT_SYMLINK_NOFOLLOW) ? -errno : is_spent(walk, name, &facts, length);
    if (rc == 1) {
        rc = remove_all(folder, name);
        walk->altered = true;
    } else if (!rc) {
        rc = walk->changes->marks == LS_MARKS_FUSE ? strip(walk, folder, name) : 0;
        if (!rc && S_ISDIR(facts.st_mode) &&
            !(rc = ls_bytes_add(&walk->path, name, strlen(name)) ?: ls_bytes_add(&walk->path, "/", 1))) {
            int inner = ls_changes_open(folder, name, O_RDONLY | O_DIRECTORY);
            rc = inner < 0 ? inner : clean_folder(walk, inner);
        }
    }
    if (rc)
        ls_changes_fail(walk->changes, rc, "clean", name);
    walk->path.length = length;
    return rc;
}

/* Takes the descriptor. The names are read first: on some filesystems a listing changes while names go. */
static int clean_folder(struct walk *walk, int folder) {
    struct ls_bytes names = {0};
    struct stat facts;
    DIR *listing = fdopendir(folder);
    bool before = walk->altered;
    int rc = !listing || fstat(folder, &facts) ? -errno : 0;
    for (struct dirent *one; !rc && (one = readdir(listing));)
        if (strcmp(one->d_name, ".") && strcmp(one->d_name, ".."))
            rc = ls_bytes_add(&names, one->d_name, strlen(one->d_name) + 1);
    walk->altered = false;
    for (size_t at = 0; !rc && at < names.length; at += strlen((char *)names.data + at) + 1)
        rc = clean_name(walk, folder, (char *)names.data + at);
    if (!rc && walk->altered) {
        struct timespec times[2] = {facts.st_atim, facts.st_mtim};
        rc = futimens(folder, times) ? -errno : 0;
    }
    walk->altered |= before;
    ls_bytes_free(&names);
    if (listing)
        closedir(listing);
    else
        close(folder);
    return rc;
}

int ls_branch_make_exact(struct ls_changes *changes) {
    struct walk walk = {.changes = changes};
    int rc = 0, made = 0;
    for (size_t i = 0; rc >= 0 && i < changes->count; i++)
        if (changes->found[i].kind == 'D')
            made |= rc = make_whiteout(changes, changes->found[i].path);
    if (rc >= 0) {
        int root = ls_changes_open(changes->upper, ".", O_RDONLY | O_DIRECTORY);
        rc = root < 0 ? root : (changes->marks == LS_MARKS_FUSE ? strip(&walk, root, ".") : 0) ?: ls_bytes_set(&walk.path, "", 0);
        if (root >= 0 && rc)
            close(root);
        rc = rc ?: clean_folder(&walk, root);
        if (rc)
            ls_changes_fail(changes, rc, "clean", "");
    }
    ls_bytes_free(&walk.path);
    if (changes->surplus_count)
        qsort(changes->surplus, changes->surplus_count, sizeof *changes->surplus, ls_changes_by_path);
    bool dropped = false;
    for (size_t i = changes->surplus_count; rc >= 0 && i-- > 0;) /* what is in a directory goes before it */
        if (changes->surplus[i].kind == UNCHANGED) {
            rc = ls_changes_drop_surplus(changes, changes->surplus[i].path);
            dropped = true;
        }
    return rc < 0 ? rc : made > 0 || walk.altered || dropped;
}
