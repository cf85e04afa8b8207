/* What differs between two trees, found by walking both.
 *
 * A file differs when its type, mode, owner, size, time (nanoseconds), link target, device number, xattrs or bytes do.
 * ctime, inode numbers, link counts and directories' sizes say nothing. A directory in which something differs is itself
 * reported, as moby does, so that a layer carries the attributes of every directory on the way to what it changes.
 * Directories are opened without following symlinks, so a container that runs cannot lead the comparison elsewhere. */
#define _GNU_SOURCE
#include "internal.h"
#include "../kernel/files/listing.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

static int later(struct ls_changes *changes, const char *path, enum how how, bool deep, bool unaltered) {
    struct folder *folder = malloc(sizeof *folder + strlen(path) + 1);
    if (!folder)
        return ls_changes_fail(changes, -ENOMEM, "malloc", path);
    folder->how = how;
    folder->deep = deep;
    folder->unaltered = unaltered;
    strcpy(folder->path, path);
    folder->next = changes->todo;
    changes->todo = folder;
    return 0;
}

int ls_changes_open_folder(int root, const char *path) {
    return ls_open_beneath(root, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

/* --- does one name differ? ---------------------------------------------------------------------------------------- */

int ls_changes_open(int folder, const char *name, int flags) {
    int fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int ls_changes_look(int folder, const char *name, struct stat *facts) {
    if (folder < 0)
        return 0;
    if (!fstatat(folder, name, facts, AT_SYMLINK_NOFOLLOW))
        return 1;
    return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
}

static int same_xattrs(int a, int b) {
    struct ls_bytes of_a = {0}, of_b = {0};
    const char *call;
    int rc = ls_xattrs_read(a, false, &of_a, &call) ?: ls_xattrs_read(b, false, &of_b, &call);
    bool same = of_a.length == of_b.length && (!of_a.length || !memcmp(of_a.data, of_b.data, of_a.length));
    ls_bytes_free(&of_a);
    ls_bytes_free(&of_b);
    return rc ? rc : same;
}

static int same_target(int folder_a, int folder_b, const char *name) {
    char a[PATH_MAX], b[PATH_MAX];
    ssize_t length_a = readlinkat(folder_a, name, a, sizeof a), length_b = readlinkat(folder_b, name, b, sizeof b);
    if (length_a < 0 || length_b < 0)
        return -errno;
    return length_a == length_b && !memcmp(a, b, (size_t)length_a);
}

static ssize_t read_fully(int fd, char *buffer, size_t length) {
    size_t got = 0;
    while (got < length) {
        ssize_t part = read(fd, buffer + got, length - got);
        if (part < 0 && errno == EINTR)
            continue;
        if (part <= 0)
            return part < 0 ? -errno : (ssize_t)got;
        got += (size_t)part;
    }
    return (ssize_t)got;
}

static int same_bytes(int a, int b) {
    enum { PIECE = 1 << 17 };
    char *buffer = malloc(2 * PIECE);
    int rc = buffer ? 1 : -ENOMEM;
    while (rc == 1) {
        ssize_t from_a = read_fully(a, buffer, PIECE), from_b = read_fully(b, buffer + PIECE, PIECE);
        if (from_a < 0 || from_b < 0)
            rc = (int)(from_a < 0 ? from_a : from_b);
        else if (from_a != from_b || memcmp(buffer, buffer + PIECE, (size_t)from_a))
            rc = 0;
        else if (from_a == 0)
            break;
    }
    free(buffer);
    return rc;
}

static bool same_facts(const struct stat *a, const struct stat *b) {
    return a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_gid == b->st_gid &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           (S_ISDIR(a->st_mode) || a->st_size == b->st_size) &&
           ((!S_ISCHR(a->st_mode) && !S_ISBLK(a->st_mode)) || a->st_rdev == b->st_rdev);
}

/* 1 the same, 0 not, or -errno. `read`: compare the bytes of files that look alike. */
static int same(int folder_a, int folder_b, const char *name, const struct stat *a, const struct stat *b,
                bool read_both) {
    if (!same_facts(a, b))
        return 0;
    if (S_ISLNK(a->st_mode)) {
        int rc = same_target(folder_a, folder_b, name);
        if (rc != 1)
            return rc;
    }
    bool readable = S_ISREG(a->st_mode) && read_both && a->st_size;
    int flags = readable ? O_RDONLY : O_PATH;
    int fd_a = ls_changes_open(folder_a, name, flags), fd_b = ls_changes_open(folder_b, name, flags);
    int rc = fd_a < 0 ? fd_a : fd_b < 0 ? fd_b : same_xattrs(fd_a, fd_b);
    if (rc == 1 && readable)
        rc = same_bytes(fd_a, fd_b);
    if (fd_a >= 0)
        close(fd_a);
    if (fd_b >= 0)
        close(fd_b);
    return rc;
}

/* --- the walk ----------------------------------------------------------------------------------------------------- */

/* A path that no call takes is no layer's. A program can make one, step by step, and ever longer ones: not to go on is also
 * what keeps this list from taking all memory. */
static int name_path(struct ls_changes *changes, struct place *place, const char *name) {
    size_t length = strlen(place->folder->path);
    int rc = ls_bytes_set(&place->path, place->folder->path, length);
    rc = rc ?: (length ? ls_bytes_add(&place->path, "/", 1) : 0) ?: ls_bytes_add(&place->path, name, strlen(name));
    if (rc)
        return ls_changes_fail(changes, rc, "malloc", name);
    return place->path.length < PATH_MAX
               ? 0
               : ls_changes_fail(changes, -ENAMETOOLONG, LS_CHANGES_TOO_LONG, (char *)place->path.data);
}

/* A name that the new tree has. `how` is how to go on below it, if it is a directory. */
int ls_changes_present(struct ls_changes *changes, struct place *place, const char *name, const struct stat *now,
                       enum how how, bool read_both) {
    const char *path = (const char *)place->path.data;
    struct stat before;
    int had = ls_changes_look(place->lower, name, &before);
    if (had < 0)
        return ls_changes_fail(changes, had, "fstatat", path);
    bool unaltered = had && ls_changes_is_unaltered(changes, now, &before);
    int equal = unaltered ? 1 : had ? same(place->merged, place->lower, name, now, &before, read_both) : 0;
    if (equal == -ENOENT || equal == -ELOOP || equal == -ENOTDIR)
        equal = 0; /* it changes while we look: the next look will see what it became */
    if (equal < 0)
        return ls_changes_fail(changes, equal, "compare", path);
    bool both_folders = had && S_ISDIR(now->st_mode) && S_ISDIR(before.st_mode);
    int rc = 0;
    if (!equal)
        rc = ls_changes_add(changes, had ? 'C' : 'A', path);
    else if (changes->upper >= 0)
        rc = ls_changes_add(changes, UNCHANGED, path);
    if (!rc && !S_ISDIR(now->st_mode) && now->st_nlink > 1)
        rc = ls_changes_remember_link(changes, now, path, !equal);
    if (!rc && S_ISDIR(now->st_mode))
        rc = later(changes, path, both_folders ? how : ADDED, both_folders, unaltered);
    return rc;
}

/* Below what hides the parents, an upper directory holds all that there is. It is believed, where it has been opened, more
 * than the stack: fuse-overlayfs 1.10 shows names of a directory that was replaced, to who asks for one, until it is mounted
 * anew. */
static int is_there(const struct place *place, const char *name, struct stat *now) {
    if (place->upper < 0)
        return fstatat(place->merged, name, now, AT_SYMLINK_NOFOLLOW) == 0;
    return fstatat(place->upper, name, now, AT_SYMLINK_NOFOLLOW) == 0 && !(S_ISCHR(now->st_mode) && now->st_rdev == 0);
}

static int visit_merged(struct ls_changes *changes, struct place *place, const char *name) {
    struct stat now;
    errno = ENOENT;
    if (place->upper >= 0 && !is_there(place, name, &now))
        return errno == ENOENT ? 0 : ls_changes_fail(changes, -errno, "fstatat", (char *)place->path.data);
    if (fstatat(place->merged, name, &now, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : ls_changes_fail(changes, -errno, "fstatat", (char *)place->path.data);
    return ls_changes_present(changes, place, name, &now, place->folder->how, changes->content);
}

static int visit_lower(struct ls_changes *changes, struct place *place, const char *name) {
    struct stat now;
    errno = ENOENT;
    if (is_there(place, name, &now))
        return 0;
    return errno == ENOENT ? ls_changes_add(changes, 'D', (char *)place->path.data)
                           : ls_changes_fail(changes, -errno, "fstatat", (char *)place->path.data);
}

static int each_name(struct ls_changes *changes, struct place *place, int fd,
                     int (*visit)(struct ls_changes *, struct place *, const char *)) {
    LS_LISTED struct ls_listing listing = {0};
    struct ls_failure failure = {0};
    int rc = ls_listing_begin(&listing, fd, &failure);
    while (!rc && (rc = ls_listing_next(&listing)) > 0)
        rc = name_path(changes, place, listing.name) ?: visit(changes, place, listing.name);
    return rc ? ls_changes_fail(changes, rc, failure.what, place->folder->path) : 0;
}

static int visit_folder(struct ls_changes *changes, const struct folder *folder) {
    struct place place = {
        .folder = folder, .upper = -1, .merged = ls_changes_open_folder(changes->merged, folder->path), .lower = -1};
    int rc = place.merged;
    if (rc >= 0 && folder->deep)
        rc = place.lower = ls_changes_open_folder(changes->lower, folder->path);
    if (rc >= 0 && (folder->how == GUIDED || changes->marks > LS_MARKS_OVERLAY))
        rc = place.upper = ls_changes_open_folder(changes->upper, folder->path);
    if (rc == -ENOENT || rc == -ENOTDIR || rc == -ELOOP)
        rc = 0; /* gone meanwhile */
    else if (rc < 0)
        ls_changes_fail(changes, rc, "openat2", folder->path);
    else if (folder->how == GUIDED)
        rc = each_name(changes, &place, place.upper, ls_changes_visit_upper);
    else if (folder->how != GENERATION || (rc = ls_changes_visit_snapshot(changes, &place)) == 1) {
        rc = each_name(changes, &place, place.merged, visit_merged);
        if (!rc && folder->deep && !folder->unaltered)
            rc = each_name(changes, &place, place.lower, visit_lower);
    }
    int fds[] = {place.upper, place.merged, place.lower};
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    ls_bytes_free(&place.path);
    return rc < 0 ? rc : 0;
}

/* As the root of a layer is that says nothing about it: mode 0755, root's, without xattrs. */
static int is_plain(int folder, const struct stat *facts) {
    struct ls_bytes xattrs = {0};
    const char *call;
    int rc = ls_xattrs_read(folder, false, &xattrs, &call);
    bool plain = facts->st_mode == (S_IFDIR | 0755) && !facts->st_uid && !facts->st_gid && !xattrs.length;
    ls_bytes_free(&xattrs);
    return rc ? rc : plain;
}

/* The root is reported for its own sake only: its time changes with every name in it. */
static int compare_roots(struct ls_changes *changes) {
    struct stat now, before;
    if (fstat(changes->merged, &now) || (changes->lower >= 0 && fstat(changes->lower, &before)))
        return ls_changes_fail(changes, -errno, "fstat", "");
    int equal;
    if (changes->lower < 0)
        equal = is_plain(changes->merged, &now);
    else {
        now.st_mtim = before.st_mtim;
        equal = same_facts(&now, &before) ? same_xattrs(changes->merged, changes->lower) : 0;
    }
    if (equal < 0)
        return ls_changes_fail(changes, equal, "getxattr", "");
    return equal ? 0 : ls_changes_add(changes, 'C', "");
}

/* --- by name, for those who know where to look ---------------------------------------------------------------------- */

int ls_changes_visit_there(struct ls_changes *changes, struct place *place, const char *name) {
    return name_path(changes, place, name) ?: visit_merged(changes, place, name);
}

int ls_changes_visit_gone(struct ls_changes *changes, struct place *place, const char *name) {
    return name_path(changes, place, name) ?: visit_lower(changes, place, name);
}

int ls_changes_run(struct ls_changes *changes, enum how how) {
    int rc = compare_roots(changes)
                 ?: later(changes, "", changes->lower < 0 && how == COMPARED ? ADDED : how, changes->lower >= 0, false);
    while (!rc && changes->todo) {
        struct folder *folder = changes->todo;
        changes->todo = folder->next;
        rc = visit_folder(changes, folder);
        free(folder);
    }
    if (!rc && changes->snapshot)
        rc = ls_changes_complete_snapshot(changes);
    return rc ?: ls_changes_finish(changes);
}

int ls_changes_of_trees(struct ls_changes *changes, int merged, int lower, int content) {
    changes->upper = -1, changes->merged = merged, changes->lower = lower;
    changes->content = content;
    return ls_changes_run(changes, COMPARED);
}
