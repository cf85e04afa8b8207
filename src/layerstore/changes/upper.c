/* What differs by an upper directory: only where it holds something, and with the marks that it holds: overlay's, those of
 * aufs, or the mix that fuse-overlayfs writes (branch.c says what that is). */
#define _GNU_SOURCE
#include "internal.h"
#include "../kernel/files/marks.h"
#include "../kernel/files/within.h"

#include <fcntl.h>
#include <sys/xattr.h>

/* These return 1 for yes, 0 for no, or -errno. What is gone meanwhile has no mark. */

/* Of the kernel, and of nobody else: only root can set `trusted.overlay.*`, while anyone may set `user.overlay.*`, which mean
 * nothing to a mount without `userxattr`; and a mount with it, as within a user namespace, escapes those of its programs. */
static int has_mark(int fd, const char *name, struct ls_failure *failure) {
    if (fgetxattr(fd, name, NULL, 0) >= 0)
        return 1;
    return errno == ENODATA || errno == EOPNOTSUPP ? 0 : LS_FAIL(failure, "fgetxattr");
}

static int has_said_yes(int fd, const char *name, struct ls_failure *failure) {
    char value = 0;
    ssize_t size = fgetxattr(fd, name, &value, 1);
    if (size < 0 && errno != ENODATA && errno != EOPNOTSUPP && errno != ERANGE)
        return LS_FAIL(failure, "fgetxattr");
    return size == 1 && value == 'y';
}

/* A descriptor; -ENOENT where there is no such thing any more; or -errno. */
static int open_marked(int folder, const char *name, int flags, struct ls_failure *failure) {
    int fd = ls_changes_open(folder, name, flags);
    if (fd == -ENOTDIR || fd == -ELOOP || fd == -ENXIO)
        return -ENOENT;
    return fd < 0 ? ls_fail(failure, "openat", fd) : fd;
}

static int file_has_mark(int folder, const char *name, const char *mark, struct ls_failure *failure) {
    LS_CLOSED int fd = open_marked(folder, name, O_RDONLY | O_NONBLOCK, failure);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    return has_mark(fd, mark, failure);
}

static int is_whiteout(int folder, const char *name, const struct stat *facts, int marks, struct ls_failure *failure) {
    if (S_ISCHR(facts->st_mode))
        return facts->st_rdev == 0;
    if (marks != LS_MARKS_OVERLAY || !S_ISREG(facts->st_mode) || facts->st_size)
        return 0;
    return file_has_mark(folder, name, ls_overlay_xattr(LS_XATTR_WHITEOUT), failure);
}

/* fuse-overlayfs takes the first of its xattrs that there is, whatever it says, and looks for the file only without any. */
static int is_branch_opaque(int folder, int marks, struct ls_failure *failure) {
    static const char *const NAMES[] = {"trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"};
    char value[16];
    struct stat facts;
    for (size_t i = 0; marks == LS_MARKS_FUSE && i < sizeof NAMES / sizeof *NAMES; i++) {
        ssize_t size = fgetxattr(folder, NAMES[i], value, sizeof value);
        if (size >= 0)
            return size > 0 && value[0] == 'y';
        if (errno != ENODATA && errno != EOPNOTSUPP && errno != ERANGE)
            return LS_FAIL(failure, "fgetxattr");
    }
    int there = ls_changes_look(folder, LS_OPAQUE_NAME, &facts);
    return there < 0 ? ls_fail(failure, "fstatat", there) : there;
}

/* What a directory in the upper shows of the parents' directory of the same name: PLAIN merges with it, REDIRECTED shows
 * another one, which was renamed to here, OPAQUE_ONE shows nothing of it. */
enum merge { PLAIN, OPAQUE_ONE, REDIRECTED };

static int merge_of(int folder, const char *name, int marks, enum merge *merge, struct ls_failure *failure) {
    *merge = PLAIN;
    LS_CLOSED int fd = open_marked(folder, name, O_RDONLY | O_DIRECTORY, failure);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    int redirected = marks == LS_MARKS_OVERLAY ? has_mark(fd, ls_overlay_xattr(LS_XATTR_REDIRECT), failure) : 0;
    if (redirected) {
        *merge = REDIRECTED;
        return redirected < 0 ? redirected : 0;
    }
    int opaque = marks == LS_MARKS_OVERLAY ? has_said_yes(fd, ls_overlay_xattr(LS_XATTR_OPAQUE), failure)
                                           : is_branch_opaque(fd, marks, failure);
    if (opaque > 0)
        *merge = OPAQUE_ONE;
    return opaque < 0 ? opaque : 0;
}

/* The name in hand is removed, if the parents have `hidden`; or else the mark is a stale one. */
static int add_removed(struct ls_changes *changes, struct place *place, const char *hidden) {
    struct stat before;
    int had = ls_changes_look(place->lower, hidden, &before);
    if (had < 0)
        return ls_changes_fail(changes, "fstatat", had, (char *)place->path.data);
    if (!had)
        return ls_changes_add_surplus(changes, STALE, (char *)place->path.data);
    struct stat now;
    int again = changes->stacked ? ls_changes_look(place->merged, hidden, &now) : 0;
    if (again < 0)
        return ls_changes_fail(changes, "fstatat", again, (char *)place->path.data);
    if (again) /* made anew further up: it shows nothing of what the parents have */
        return ls_changes_present(changes, place, hidden, &now, COMPARED, true);
    int rc = ls_bytes_path(&place->path, place->folder->path, hidden);
    return rc ? ls_changes_fail(changes, "malloc", rc, place->folder->path)
              : ls_changes_add(changes, 'D', (char *)place->path.data);
}

/* A file `.wh.NAME`, or what else aufs or fuse-overlayfs keeps under such a name. */
static int visit_whiteout(struct ls_changes *changes, struct place *place, const char *name, const struct stat *mark) {
    const char *hidden = ls_hidden_by(name);
    if (!hidden || !S_ISREG(mark->st_mode) || !*hidden || !strcmp(hidden, ".") || !strcmp(hidden, ".."))
        return 0;
    return add_removed(changes, place, hidden);
}

/* What is in the upper directory and no mark. */
static int visit_own(struct ls_changes *changes, struct place *place, const char *name, const struct stat *own) {
    const char *path = (const char *)place->path.data;
    struct stat now;
    int there = ls_changes_look(place->merged, name, &now);
    if (there <= 0)
        return there ? ls_changes_fail(changes, "fstatat", there, path) : 0;
    enum merge merge = PLAIN;
    int metacopy = 0; /* its bytes are still the parents': only attributes were copied up */
    int rc = S_ISDIR(own->st_mode) ? merge_of(place->upper, name, changes->marks, &merge, &changes->failure) : 0;
    if (!rc && changes->marks == LS_MARKS_OVERLAY && S_ISREG(own->st_mode))
        metacopy = file_has_mark(place->upper, name, ls_overlay_xattr(LS_XATTR_METACOPY), &changes->failure);
    if (rc < 0 || metacopy < 0)
        return ls_fail_at(&changes->failure, path);
    changes->needs_copy |= metacopy || merge == REDIRECTED;
    if (merge == OPAQUE_ONE && (rc = ls_changes_add_surplus(changes, OPAQUE, path)))
        return rc;
    bool replaced = S_ISDIR(now.st_mode) && !S_ISDIR(own->st_mode); /* further up */
    return ls_changes_present(changes, place, name, &now, merge == PLAIN && !replaced ? GUIDED : COMPARED, !metacopy);
}

static int visit_upper(struct ls_changes *changes, struct place *place, const char *name) {
    struct stat own;
    int there = ls_changes_look(place->upper, name, &own);
    if (there <= 0)
        return there ? ls_changes_fail(changes, "fstatat", there, (char *)place->path.data) : 0;
    if (changes->marks != LS_MARKS_OVERLAY && ls_is_mark(name, strlen(name)))
        return visit_whiteout(changes, place, name, &own);
    int whiteout = is_whiteout(place->upper, name, &own, changes->marks, &changes->failure);
    if (whiteout < 0)
        return ls_fail_at(&changes->failure, (char *)place->path.data);
    return whiteout ? add_removed(changes, place, name) : visit_own(changes, place, name, &own);
}

static int guide(struct ls_changes *changes, struct place *place) {
    return ls_changes_each_name(changes, place, place->upper, visit_upper);
}

int ls_changes_of_upper(struct ls_changes *changes, int upper, int merged, int lower, int marks) {
    changes->upper = upper, changes->merged = merged, changes->lower = lower;
    changes->marks = marks;
    changes->content = true; /* what an opaque directory shows is all of this layer */
    changes->guide = guide;
    return ls_changes_walk(changes, GUIDED) ?: ls_changes_finish(changes);
}

int ls_changes_of_uppers(struct ls_changes *changes, const int *uppers, size_t count, int merged, int lower) {
    changes->merged = merged, changes->lower = lower;
    changes->marks = LS_MARKS_OVERLAY;
    changes->content = changes->stacked = changes->needs_copy = true;
    changes->guide = guide;
    int rc = 0;
    for (size_t i = 0; !rc && i < count; i++) {
        changes->upper = uppers[i];
        rc = ls_changes_walk(changes, GUIDED);
    }
    return rc ?: ls_changes_finish(changes);
}
