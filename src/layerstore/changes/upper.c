/* What differs by an upper directory: only where it holds something, and with the marks that it holds; and making one say
 * what its tar says. Marks are overlay's here; of the two other kinds this only finds what they hide, see branch.c. */
#define _GNU_SOURCE
#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

/* --- marks in an upper directory ---------------------------------------------------------------------------- */

/* Of the kernel, and of nobody else: only root can set these names, while anyone may set `user.overlay.*`, which mean
 * nothing to a mount without `userxattr`. */
static bool has_mark(int fd, const char *name) {
    return fgetxattr(fd, name, NULL, 0) >= 0;
}

static bool is_whiteout(int folder, const char *name, const struct stat *facts, int marks) {
    if (S_ISCHR(facts->st_mode))
        return facts->st_rdev == 0;
    if (marks != LS_MARKS_OVERLAY || !S_ISREG(facts->st_mode) || facts->st_size)
        return false;
    int fd = ls_changes_open(folder, name, O_RDONLY | O_NONBLOCK);
    bool marked = fd >= 0 && has_mark(fd, "trusted.overlay.whiteout");
    if (fd >= 0)
        close(fd);
    return marked;
}

/* What a directory in the upper shows of the parents' directory of the same name: PLAIN merges with it, REDIRECTED shows
 * another one, which was renamed to here, OPAQUE_ONE shows nothing of it. */
enum merge { PLAIN, OPAQUE_ONE, REDIRECTED };

static enum merge merge_of(int folder, const char *name, int marks) {
    char opaque = 0;
    enum merge merge = PLAIN;
    int fd = ls_changes_open(folder, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return PLAIN;
    if (marks != LS_MARKS_OVERLAY)
        merge = ls_branch_is_opaque(fd, marks) ? OPAQUE_ONE : PLAIN;
    else if (has_mark(fd, "trusted.overlay.redirect"))
        merge = REDIRECTED;
    else if (fgetxattr(fd, "trusted.overlay.opaque", &opaque, 1) == 1 && opaque == 'y')
        merge = OPAQUE_ONE;
    close(fd);
    return merge;
}

/* Its bytes are still the parents': only attributes were copied up. */
static bool is_metacopy(int folder, const char *name) {
    int fd = ls_changes_open(folder, name, O_RDONLY | O_NONBLOCK);
    bool metacopy = fd >= 0 && has_mark(fd, "trusted.overlay.metacopy");
    if (fd >= 0)
        close(fd);
    return metacopy;
}

/* A file `.wh.NAME`, or what else aufs or fuse-overlayfs keeps under such a name. */
static int visit_whiteout(struct ls_changes *changes, struct place *place, const char *name, const struct stat *mark) {
    const char *hidden = name + strlen(LS_WHITEOUT_PREFIX);
    struct stat before;
    if (ls_begins(name, LS_META_PREFIX) || !S_ISREG(mark->st_mode) || !*hidden || !strcmp(hidden, ".") ||
        !strcmp(hidden, ".."))
        return 0;
    if (place->lower < 0 || fstatat(place->lower, hidden, &before, AT_SYMLINK_NOFOLLOW))
        return ls_changes_add_surplus(changes, STALE, (char *)place->path.data);
    place->path.length -= strlen(name);
    int rc = ls_bytes_add(&place->path, hidden, strlen(hidden));
    return rc ? ls_changes_fail(changes, rc, "malloc", name) : ls_changes_add(changes, 'D', (char *)place->path.data);
}

int ls_changes_visit_upper(struct ls_changes *changes, struct place *place, const char *name) {
    struct stat mark, now, before;
    if (fstatat(place->upper, name, &mark, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : ls_changes_fail(changes, -errno, "fstatat", (char *)place->path.data);
    if (changes->marks != LS_MARKS_OVERLAY && ls_begins(name, LS_WHITEOUT_PREFIX))
        return visit_whiteout(changes, place, name, &mark);
    if (is_whiteout(place->upper, name, &mark, changes->marks)) {
        bool had = place->lower >= 0 && fstatat(place->lower, name, &before, AT_SYMLINK_NOFOLLOW) == 0;
        return had ? ls_changes_add(changes, 'D', (char *)place->path.data)
                   : ls_changes_add_surplus(changes, STALE, (char *)place->path.data);
    }
    if (fstatat(place->merged, name, &now, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : ls_changes_fail(changes, -errno, "fstatat", (char *)place->path.data);
    enum merge merge = S_ISDIR(mark.st_mode) ? merge_of(place->upper, name, changes->marks) : PLAIN;
    bool metacopy = changes->marks == LS_MARKS_OVERLAY && S_ISREG(mark.st_mode) && is_metacopy(place->upper, name);
    changes->needs_copy |= metacopy || merge == REDIRECTED;
    if (merge == OPAQUE_ONE && ls_changes_add_surplus(changes, OPAQUE, (char *)place->path.data))
        return -ENOMEM;
    return ls_changes_present(changes, place, name, &now, merge == PLAIN ? GUIDED : COMPARED, !metacopy);
}

int ls_changes_of_upper(struct ls_changes *changes, int upper, int merged, int lower, int marks) {
    changes->upper = upper, changes->merged = merged, changes->lower = lower;
    changes->marks = marks;
    changes->content = true; /* what an opaque directory shows is all of this layer */
    return ls_changes_run(changes, GUIDED);
}

/* --- making an upper directory say what its tar says, and nothing else -------------------------------------------- */

int ls_changes_open_holder(int root, const char *path, const char **name, struct timespec times[2]) {
    const char *slash = strrchr(path, '/');
    struct stat facts;
    char *folder = slash ? strndup(path, (size_t)(slash - path)) : strdup("");
    int fd = folder ? ls_changes_open_folder(root, folder) : -ENOMEM;
    free(folder);
    *name = slash ? slash + 1 : path;
    if (fd >= 0 && !fstat(fd, &facts))
        times[0] = facts.st_atim, times[1] = facts.st_mtim;
    return fd;
}

/* A directory that still holds something stays. */
int ls_changes_drop_surplus(struct ls_changes *changes, const char *path) {
    struct timespec times[2];
    const char *name;
    int fd = ls_changes_open_holder(changes->upper, path, &name, times);
    if (fd < 0)
        return ls_changes_fail(changes, fd, "openat2", path);
    int rc = unlinkat(fd, name, 0);
    if (rc && (errno == EISDIR || errno == EPERM))
        rc = unlinkat(fd, name, AT_REMOVEDIR);
    rc = rc && errno != ENOENT && errno != ENOTEMPTY ? -errno : 0;
    if (futimens(fd, times) && !rc)
        rc = -errno;
    close(fd);
    return rc ? ls_changes_fail(changes, rc, "unlinkat", path) : 0;
}

static int make_opaque(int folder, const char *name) {
    int fd = ls_changes_open(folder, name, O_RDONLY | O_DIRECTORY);
    int rc = fd < 0 ? fd : fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Hides, name by name, what an opaque directory hides as a whole; what is left to hide below is passed on. */
static int hide_each(struct ls_changes *changes, const char *path, int upper, int lower) {
    int own = openat(lower, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    DIR *listing = own < 0 ? NULL : fdopendir(own);
    struct stat above, below;
    struct place place = {.folder = NULL};
    if (!listing)
        return -errno;
    for (struct dirent *one; !rc && (one = readdir(listing));) {
        if (!strcmp(one->d_name, ".") || !strcmp(one->d_name, ".."))
            continue;
        if (fstatat(upper, one->d_name, &above, AT_SYMLINK_NOFOLLOW)) {
            rc = errno == ENOENT && !mknodat(upper, one->d_name, S_IFCHR, 0) ? 0 : -errno;
            if (!rc && fgetxattr(upper, "trusted.overlay.origin", NULL, 0) < 0 &&
                fsetxattr(upper, "trusted.overlay.origin", "", 0, 0))
                rc = -errno; /* see finish.c: or the whiteouts show as ghosts where the directory is not merged */
        } else if (S_ISDIR(above.st_mode) && !fstatat(lower, one->d_name, &below, AT_SYMLINK_NOFOLLOW) &&
                   S_ISDIR(below.st_mode)) {
            rc = ls_bytes_set(&place.path, path, strlen(path)) ?: ls_bytes_add(&place.path, "/", 1) ?: ls_bytes_add(&place.path, one->d_name, strlen(one->d_name));
            rc = rc ?: make_opaque(upper, one->d_name) ?: ls_changes_add_surplus(changes, OPAQUE, (char *)place.path.data);
        }
    }
    closedir(listing);
    ls_bytes_free(&place.path);
    return rc;
}

/* At no point does the merged tree look different: the mark goes when nothing depends on it any more. */
static int spell_out(struct ls_changes *changes, const char *path) {
    struct stat facts;
    int upper = ls_changes_open_folder(changes->upper, path);
    int lower = changes->lower < 0 ? -ENOENT : ls_changes_open_folder(changes->lower, path);
    int rc = upper < 0 ? upper : fstat(upper, &facts) ? -errno : 0;
    if (!rc && lower >= 0)
        rc = hide_each(changes, path, upper, lower);
    if (!rc && fremovexattr(upper, "trusted.overlay.opaque") && errno != ENODATA)
        rc = -errno;
    if (upper >= 0) {
        struct timespec times[2] = {facts.st_atim, facts.st_mtim};
        if (!rc && futimens(upper, times))
            rc = -errno;
        close(upper);
    }
    if (lower >= 0)
        close(lower);
    return rc ? ls_changes_fail(changes, rc, "spell out", path) : 0;
}

int ls_changes_make_exact(struct ls_changes *changes) {
    int rc = 0;
    if (changes->marks != LS_MARKS_OVERLAY)
        return ls_branch_make_exact(changes);
    for (size_t i = 0; !rc && i < changes->surplus_count; i++) /* grows meanwhile */
        if (changes->surplus[i].kind == OPAQUE)
            rc = spell_out(changes, changes->surplus[i].path);
    if (changes->surplus_count)
        qsort(changes->surplus, changes->surplus_count, sizeof *changes->surplus, ls_changes_by_path);
    for (size_t i = changes->surplus_count; !rc && i-- > 0;) /* what is in a directory goes before it */
        if (changes->surplus[i].kind != OPAQUE)
            rc = ls_changes_drop_surplus(changes, changes->surplus[i].path);
    return rc ? rc : changes->surplus_count > 0;
}
