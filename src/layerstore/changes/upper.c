/* What differs by an upper directory: only where it holds something, and with the marks that it holds; and making one say
 * what its tar says. Marks are overlay's here; of the two other kinds this only finds what they hide, see branch.c. */
#define _GNU_SOURCE
#include "internal.h"
#include "../kernel/files/listing.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

/* --- marks in an upper directory ---------------------------------------------------------------------------- */

/* Of the kernel, and of nobody else: only root can set these names, while anyone may set `user.overlay.*`, which mean
 * nothing to a mount without `userxattr`. 1, 0, or -errno, as all below. */
static int has_mark(int fd, const char *name) {
    if (fgetxattr(fd, name, NULL, 0) >= 0)
        return 1;
    return errno == ENODATA || errno == EOPNOTSUPP ? 0 : -errno;
}

static int file_has_mark(int folder, const char *name, const char *mark) {
    int fd = ls_changes_open(folder, name, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd; /* gone meanwhile */
    int marked = has_mark(fd, mark);
    close(fd);
    return marked;
}

static int is_whiteout(int folder, const char *name, const struct stat *facts, int marks) {
    if (S_ISCHR(facts->st_mode))
        return facts->st_rdev == 0;
    if (marks != LS_MARKS_OVERLAY || !S_ISREG(facts->st_mode) || facts->st_size)
        return 0;
    return file_has_mark(folder, name, "trusted.overlay.whiteout");
}

/* What a directory in the upper shows of the parents' directory of the same name: PLAIN merges with it, REDIRECTED shows
 * another one, which was renamed to here, OPAQUE_ONE shows nothing of it. */
enum merge { PLAIN, OPAQUE_ONE, REDIRECTED };

static int merge_of_overlay(int fd) {
    char opaque = 0;
    int rc = has_mark(fd, "trusted.overlay.redirect");
    if (rc)
        return rc < 0 ? rc : REDIRECTED;
    if (fgetxattr(fd, "trusted.overlay.opaque", &opaque, 1) < 0)
        return errno == ENODATA || errno == ERANGE || errno == EOPNOTSUPP ? PLAIN : -errno;
    return opaque == 'y' ? OPAQUE_ONE : PLAIN;
}

static int merge_of(int folder, const char *name, int marks) {
    int fd = ls_changes_open(folder, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fd == -ENOENT ? PLAIN : fd;
    int merge = marks == LS_MARKS_OVERLAY ? merge_of_overlay(fd) : ls_branch_is_opaque(fd, marks); /* 1: OPAQUE_ONE */
    close(fd);
    return merge;
}

/* Its bytes are still the parents': only attributes were copied up. */
static int is_metacopy(int folder, const char *name) {
    return file_has_mark(folder, name, "trusted.overlay.metacopy");
}

/* A file `.wh.NAME`, or what else aufs or fuse-overlayfs keeps under such a name. */
static int visit_whiteout(struct ls_changes *changes, struct place *place, const char *name, const struct stat *mark) {
    const char *hidden = name + strlen(LS_WHITEOUT_PREFIX);
    struct stat before;
    if (ls_begins(name, LS_META_PREFIX) || !S_ISREG(mark->st_mode) || !*hidden || !strcmp(hidden, ".") ||
        !strcmp(hidden, ".."))
        return 0;
    int had = ls_changes_look(place->lower, hidden, &before);
    if (had <= 0)
        return had < 0 ? ls_changes_fail(changes, had, "fstatat", (char *)place->path.data)
                       : ls_changes_add_surplus(changes, STALE, (char *)place->path.data);
    place->path.length -= strlen(name);
    int rc = ls_bytes_add(&place->path, hidden, strlen(hidden));
    return rc ? ls_changes_fail(changes, rc, "malloc", name) : ls_changes_add(changes, 'D', (char *)place->path.data);
}

int ls_changes_visit_upper(struct ls_changes *changes, struct place *place, const char *name) {
    const char *path = (char *)place->path.data;
    struct stat mark, now, before;
    if (fstatat(place->upper, name, &mark, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : ls_changes_fail(changes, -errno, "fstatat", (char *)place->path.data);
    if (changes->marks != LS_MARKS_OVERLAY && ls_begins(name, LS_WHITEOUT_PREFIX))
        return visit_whiteout(changes, place, name, &mark);
    int hides = is_whiteout(place->upper, name, &mark, changes->marks);
    if (hides < 0)
        return ls_changes_fail(changes, hides, "fgetxattr", path);
    if (hides) {
        int had = ls_changes_look(place->lower, name, &before);
        if (had < 0)
            return ls_changes_fail(changes, had, "fstatat", path);
        return had ? ls_changes_add(changes, 'D', path) : ls_changes_add_surplus(changes, STALE, path);
    }
    if (fstatat(place->merged, name, &now, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : ls_changes_fail(changes, -errno, "fstatat", (char *)place->path.data);
    int merge = S_ISDIR(mark.st_mode) ? merge_of(place->upper, name, changes->marks) : PLAIN;
    int metacopy = changes->marks == LS_MARKS_OVERLAY && S_ISREG(mark.st_mode) ? is_metacopy(place->upper, name) : 0;
    if (merge < 0 || metacopy < 0)
        return ls_changes_fail(changes, merge < 0 ? merge : metacopy, "fgetxattr", path);
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

/* One name that the opaque directory `path` hides: a whiteout for it, or the mark passed on to what it merges with. */
static int hide_one(struct ls_changes *changes, const char *path, int upper, int lower, const char *name) {
    struct stat above, below;
    int rc = ls_changes_look(upper, name, &above);
    if (!rc) {
        /* The xattr first, see finish.c: without it whiteouts show as ghosts where the directory is not merged. */
        rc = has_mark(upper, "trusted.overlay.origin");
        if (!rc && fsetxattr(upper, "trusted.overlay.origin", "", 0, 0))
            rc = -errno;
        return rc < 0 ? rc : mknodat(upper, name, S_IFCHR, 0) ? -errno : 0;
    }
    if (rc < 0 || !S_ISDIR(above.st_mode) || (rc = ls_changes_look(lower, name, &below)) <= 0 ||
        !S_ISDIR(below.st_mode))
        return rc < 0 ? rc : 0;
    struct ls_bytes inner = {0};
    rc = ls_bytes_set(&inner, path, strlen(path)) ?: ls_bytes_add(&inner, "/", 1) ?: ls_bytes_add(&inner, name, strlen(name));
    rc = rc ?: make_opaque(upper, name) ?: ls_changes_add_surplus(changes, OPAQUE, (char *)inner.data);
    ls_bytes_free(&inner);
    return rc;
}

/* Hides, name by name, what an opaque directory hides as a whole; what is left to hide below is passed on. */
static int hide_each(struct ls_changes *changes, const char *path, int upper, int lower) {
    LS_LISTED struct ls_listing listing = {0};
    struct ls_failure failure = {0};
    int rc = ls_listing_begin(&listing, lower, &failure);
    while (!rc && (rc = ls_listing_next(&listing)) > 0)
        rc = hide_one(changes, path, upper, lower, listing.name);
    return rc;
}

/* At no point does the merged tree look different: the mark goes when nothing depends on it any more. */
static int spell_out(struct ls_changes *changes, const char *path) {
    struct stat facts = {0};
    int upper = ls_changes_open_folder(changes->upper, path);
    int lower = changes->lower < 0 ? -ENOENT : ls_changes_open_folder(changes->lower, path);
    int rc = upper < 0 ? upper : fstat(upper, &facts) ? -errno : 0;
    if (!rc && lower < 0 && lower != -ENOENT && lower != -ENOTDIR && lower != -ELOOP)
        rc = lower; /* or what it hides would show again */
    if (!rc && lower >= 0)
        rc = hide_each(changes, path, upper, lower);
    if (!rc && fremovexattr(upper, "trusted.overlay.opaque") && errno != ENODATA)
        rc = -errno;
    if (upper >= 0) {
        struct timespec times[2] = {facts.st_atim, facts.st_mtim};
        if (facts.st_mode && futimens(upper, times) && !rc) /* after a failure, too: it is still the container's */
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
