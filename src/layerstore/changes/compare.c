/* What differs between two trees, found by walking both.
 *
 * A file differs when its type, mode, owner, size, time (nanoseconds), link target, device number, xattrs or bytes do.
 * ctime, inode numbers, link counts and directories' sizes say nothing. A directory in which something differs is itself
 * reported, as moby does, so that a layer carries the attributes of every directory on the way to what it changes.
 * Directories are opened without following symlinks, so a container that runs cannot lead the comparison elsewhere. */
#define _GNU_SOURCE
#include "internal.h"
#include "../kernel/files/files.h"
#include "../kernel/files/listing.h"
#include "../kernel/files/within.h"
#include "../kernel/files/xattrs.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

static int later(struct ls_changes *changes, const char *path, enum how how, bool deep, bool unaltered) {
    struct folder *folder = malloc(sizeof *folder + strlen(path) + 1);
    if (!folder)
        return ls_changes_fail(changes, "malloc", -ENOMEM, path);
    *folder = (struct folder){.next = changes->todo, .how = how, .deep = deep, .unaltered = unaltered};
    strcpy(folder->path, path);
    changes->todo = folder;
    return 0;
}

int ls_changes_open_folder(int root, const char *path) {
    return ls_open_beneath(root, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

int ls_changes_open(int folder, const char *name, int flags) {
    int fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int ls_changes_look(int folder, const char *name, struct stat *facts) {
    if (folder < 0)
        return 0;
    if (!fstatat(folder, name, facts, AT_SYMLINK_NOFOLLOW)) {
        struct ls_failure failure;
        return ls_read_note(folder, name, facts, &failure) ?: 1;
    }
    return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
}

/* --- does one name differ? ---------------------------------------------------------------------------------------- */

/* These return 1 for the same, 0 for not, or -errno. */

static int same_xattrs(int a, int b, struct ls_failure *failure) {
    LS_BYTES_FREED struct ls_bytes of_a = {0}, of_b = {0};
    int rc = ls_xattrs_read(a, LS_XATTRS_PLAIN, &of_a, failure) ?: ls_xattrs_read(b, LS_XATTRS_PLAIN, &of_b, failure);
    bool same = of_a.length == of_b.length && (!of_a.length || !memcmp(of_a.data, of_b.data, of_a.length));
    return rc ? rc : same;
}

static int same_target(int folder_a, int folder_b, const char *name, struct ls_failure *failure) {
    char a[PATH_MAX], b[PATH_MAX];
    ssize_t length_a = readlinkat(folder_a, name, a, sizeof a);
    if (length_a < 0)
        return LS_FAIL(failure, "readlinkat");
    ssize_t length_b = readlinkat(folder_b, name, b, sizeof b);
    if (length_b < 0)
        return LS_FAIL(failure, "readlinkat");
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

static int same_bytes(int a, int b, struct ls_failure *failure) {
    enum { PIECE = 1 << 17 };
    LS_FREED char *buffer = malloc(2 * PIECE);
    if (!buffer)
        return ls_fail(failure, "malloc", -ENOMEM);
    for (;;) {
        ssize_t from_a = read_fully(a, buffer, PIECE), from_b = read_fully(b, buffer + PIECE, PIECE);
        if (from_a < 0 || from_b < 0)
            return ls_fail(failure, "read", (int)(from_a < 0 ? from_a : from_b));
        if (from_a != from_b || memcmp(buffer, buffer + PIECE, (size_t)from_a))
            return 0;
        if (from_a == 0)
            return 1;
    }
}

static bool same_facts(const struct stat *a, const struct stat *b) {
    return a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_gid == b->st_gid &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           (S_ISDIR(a->st_mode) || a->st_size == b->st_size) &&
           ((!S_ISCHR(a->st_mode) && !S_ISBLK(a->st_mode)) || a->st_rdev == b->st_rdev);
}

/* `read_both`: compare the bytes of files that look alike. */
static int same(int folder_a, int folder_b, const char *name, const struct stat *a, const struct stat *b,
                bool read_both, struct ls_failure *failure) {
    if (!same_facts(a, b))
        return 0;
    if (S_ISLNK(a->st_mode)) {
        int rc = same_target(folder_a, folder_b, name, failure);
        if (rc != 1)
            return rc;
    }
    bool readable = S_ISREG(a->st_mode) && read_both && a->st_size;
    int flags = readable ? O_RDONLY : O_PATH;
    LS_CLOSED int fd_a = ls_changes_open(folder_a, name, flags);
    LS_CLOSED int fd_b = fd_a < 0 ? fd_a : ls_changes_open(folder_b, name, flags);
    if (fd_b < 0)
        return ls_fail(failure, "openat", fd_b);
    int rc = same_xattrs(fd_a, fd_b, failure);
    return rc == 1 && readable ? same_bytes(fd_a, fd_b, failure) : rc;
}

/* --- the walk ----------------------------------------------------------------------------------------------------- */

/* A path that no call takes is no layer's. A program can make one, step by step, and ever longer ones: not to go on is also
 * what keeps this list from taking all memory. */
static int name_path(struct ls_changes *changes, struct place *place, const char *name) {
    int rc = ls_bytes_path(&place->path, place->folder->path, name);
    if (rc)
        return ls_changes_fail(changes, "malloc", rc, place->folder->path);
    if (place->path.length < PATH_MAX)
        return 0;
    return ls_fail_as(&changes->failure, LS_FAIL_TOO_LONG, ENAMETOOLONG, "this path is too long", place->path.data,
                      PATH_MAX - 1);
}

int ls_changes_present(struct ls_changes *changes, struct place *place, const char *name, const struct stat *now,
                       enum how how, bool read_both) {
    const char *path = (const char *)place->path.data;
    struct stat before;
    int had = ls_changes_look(place->lower, name, &before);
    if (had < 0)
        return ls_changes_fail(changes, "fstatat", had, path);
    bool unaltered = had && changes->is_unaltered && changes->is_unaltered(changes->known, now, &before);
    int equal = unaltered;
    if (had && !unaltered)
        equal = same(place->merged, place->lower, name, now, &before, read_both, &changes->failure);
    if (ls_is_absent(equal))
        equal = 0; /* it changes while we look: the next look will see what it became */
    if (equal < 0)
        return ls_fail_at(&changes->failure, path);
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
    int there = ls_changes_look(place->upper < 0 ? place->merged : place->upper, name, now);
    bool mark = there > 0 && place->upper >= 0 && S_ISCHR(now->st_mode) && now->st_rdev == 0;
    return mark ? 0 : there;
}

static int visit_merged(struct ls_changes *changes, struct place *place, const char *name) {
    struct stat now;
    int there = place->upper < 0 ? 1 : is_there(place, name, &now);
    if (there > 0)
        there = ls_changes_look(place->merged, name, &now);
    if (there < 0)
        return ls_changes_fail(changes, "fstatat", there, (char *)place->path.data);
    return there ? ls_changes_present(changes, place, name, &now, place->folder->how, changes->content) : 0;
}

static int visit_lower(struct ls_changes *changes, struct place *place, const char *name) {
    struct stat now;
    int there = is_there(place, name, &now);
    if (there < 0)
        return ls_changes_fail(changes, "fstatat", there, (char *)place->path.data);
    return there ? 0 : ls_changes_add(changes, 'D', (char *)place->path.data);
}

int ls_changes_each_name(struct ls_changes *changes, struct place *place, int folder, ls_visit_name *visit) {
    LS_LISTED struct ls_listing listing = {0};
    int rc = ls_listing_begin(&listing, folder, &changes->failure);
    while (!rc && (rc = ls_listing_next(&listing)) > 0)
        rc = name_path(changes, place, listing.name) ?: visit(changes, place, listing.name);
    return rc < 0 ? ls_fail_at(&changes->failure, place->folder->path) : rc;
}

static int visit_all(struct ls_changes *changes, struct place *place) {
    int rc = ls_changes_each_name(changes, place, place->merged, visit_merged);
    if (!rc && place->folder->deep && !place->folder->unaltered)
        rc = ls_changes_each_name(changes, place, place->lower, visit_lower);
    return rc;
}

/* Opens a directory in each of the trees that it is to be looked at in. */
static int open_place(const struct ls_changes *changes, struct place *place) {
    const struct folder *folder = place->folder;
    place->merged = ls_changes_open_folder(changes->merged, folder->path);
    if (place->merged < 0 || !folder->deep)
        return place->merged;
    place->lower = ls_changes_open_folder(changes->lower, folder->path);
    return place->lower;
}

static int open_upper(const struct ls_changes *changes, struct place *place) {
    if (changes->upper < 0 || (place->folder->how != GUIDED && changes->marks <= LS_MARKS_OVERLAY))
        return 0;
    return place->upper = ls_changes_open_folder(changes->upper, place->folder->path);
}

static int visit_folder(struct ls_changes *changes, const struct folder *folder) {
    struct place place = {.folder = folder, .upper = -1, .merged = -1, .lower = -1};
    int rc = open_place(changes, &place);
    if (rc >= 0)
        rc = open_upper(changes, &place);
    if (ls_is_absent(rc))
        rc = 0; /* gone meanwhile */
    else if (rc < 0)
        ls_changes_fail(changes, "openat2", rc, folder->path);
    else if (folder->how != GUIDED || (rc = changes->guide(changes, &place)) == 1)
        rc = visit_all(changes, &place);
    ls_scope_close(&place.upper);
    ls_scope_close(&place.merged);
    ls_scope_close(&place.lower);
    ls_bytes_free(&place.path);
    return rc;
}

/* As the root of a layer is that says nothing about it: mode 0755, root's, without xattrs. */
static int is_plain(int folder, const struct stat *facts, struct ls_failure *failure) {
    LS_BYTES_FREED struct ls_bytes xattrs = {0};
    int rc = ls_xattrs_read(folder, LS_XATTRS_PLAIN, &xattrs, failure);
    bool plain = facts->st_mode == (S_IFDIR | 0755) && !facts->st_uid && !facts->st_gid && !xattrs.length;
    return rc ? rc : plain;
}

/* The root is reported for its own sake only: its time changes with every name in it. */
static int compare_roots(struct ls_changes *changes) {
    struct ls_failure *failure = &changes->failure;
    struct stat now, before;
    int equal = ls_facts(changes->merged, &now, failure);
    if (!equal && changes->lower >= 0)
        equal = ls_facts(changes->lower, &before, failure);
    if (equal)
        return equal;
    if (changes->lower < 0)
        equal = is_plain(changes->merged, &now, failure);
    else {
        now.st_mtim = before.st_mtim;
        equal = same_facts(&now, &before) ? same_xattrs(changes->merged, changes->lower, failure) : 0;
    }
    return equal ? (equal < 0 ? equal : 0) : ls_changes_add(changes, 'C', "");
}

/* --- by name, for those who know where to look ---------------------------------------------------------------------- */

int ls_changes_visit_there(struct ls_changes *changes, struct place *place, const char *name) {
    return name_path(changes, place, name) ?: visit_merged(changes, place, name);
}

int ls_changes_visit_gone(struct ls_changes *changes, struct place *place, const char *name) {
    return name_path(changes, place, name) ?: visit_lower(changes, place, name);
}

int ls_changes_walk(struct ls_changes *changes, enum how how) {
    enum how first = changes->lower < 0 && how == COMPARED ? ADDED : how;
    int rc = compare_roots(changes) ?: later(changes, "", first, changes->lower >= 0, false);
    while (!rc && changes->todo) {
        LS_FREED struct folder *folder = changes->todo;
        changes->todo = folder->next;
        rc = visit_folder(changes, folder);
    }
    return rc;
}

int ls_changes_of_trees(struct ls_changes *changes, int merged, int lower, int content) {
    changes->upper = -1, changes->merged = merged, changes->lower = lower;
    changes->content = content;
    return ls_changes_walk(changes, COMPARED) ?: ls_changes_finish(changes);
}
