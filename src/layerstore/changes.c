/* What differs between two trees: by an overlay's upper directory, or by walking both.
 *
 * A file differs when its type, mode, owner, size, time (nanoseconds), link target, device number, xattrs or bytes do.
 * ctime, inode numbers, link counts and directories' sizes say nothing. A directory in which something differs is itself
 * reported, as moby does, so that a layer carries the attributes of every directory on the way to what it changes.
 * Directories are opened without following symlinks, so a container that runs cannot lead the comparison elsewhere. */
#define _GNU_SOURCE
#include "diff/disk.h" /* before changes.h, which includes nothing itself */
#include "changes.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum how { GUIDED, COMPARED, ADDED };

/* In the upper directory, but as the parents have it: copied up and never altered. No change, unless one is found in it. */
#define UNCHANGED 'U'
/* Other things that an upper directory may hold and no tar says: a whiteout of nothing, a directory that is opaque. */
#define STALE 'W'
#define OPAQUE 'O'

struct folder {
    struct folder *next;
    enum how how;
    bool deep; /* a lower directory of the same name is to be compared with */
    char path[];
};

struct found {
    char *path;
    char kind;
};

/* A file with several names. When one of them changes, all are part of the change, or the link would be lost. */
struct linked {
    dev_t device;
    ino_t inode;
    char *path;
    bool changed;
};

struct ls_changes {
    int upper, merged, lower;
    bool content;
    bool needs_copy; /* metacopy or redirect: what is here cannot be read without the parents */
    struct folder *todo;
    struct found *found;
    size_t count, room;
    struct found *surplus; /* UNCHANGED, STALE and OPAQUE, by path */
    size_t surplus_count, surplus_room;
    struct linked *linked;
    size_t linked_count, linked_room;
    struct ls_bytes list;
    int code;
    const char *call;
    char *failed;
};

struct ls_changes *ls_changes_new(void) { return calloc(1, sizeof(struct ls_changes)); }

void ls_changes_free(struct ls_changes *changes) {
    if (!changes)
        return;
    for (struct folder *folder = changes->todo, *next; folder; folder = next) {
        next = folder->next;
        free(folder);
    }
    for (size_t i = 0; i < changes->count; i++)
        free(changes->found[i].path);
    for (size_t i = 0; i < changes->surplus_count; i++)
        free(changes->surplus[i].path);
    for (size_t i = 0; i < changes->linked_count; i++)
        free(changes->linked[i].path);
    free(changes->found);
    free(changes->surplus);
    free(changes->linked);
    ls_bytes_free(&changes->list);
    free(changes->failed);
    free(changes);
}

static int fail(struct ls_changes *changes, int code, const char *call, const char *path) {
    if (!changes->code) {
        changes->code = code;
        changes->call = call;
        changes->failed = strdup(path);
    }
    return code;
}

void ls_changes_failed(struct ls_changes *changes, struct ls_changes_failure *failure) {
    *failure = (struct ls_changes_failure){-changes->code, changes->call ? changes->call : "", changes->failed ? changes->failed : ""};
}

static int append(struct ls_changes *changes, struct found **list, size_t *count, size_t *room, char kind, const char *path) {
    if (*count == *room) {
        size_t more = *room ? *room * 2 : 64;
        struct found *grown = realloc(*list, more * sizeof *grown);
        if (!grown)
            return fail(changes, -ENOMEM, "realloc", path);
        *list = grown;
        *room = more;
    }
    char *copy = strdup(path);
    if (!copy)
        return fail(changes, -ENOMEM, "strdup", path);
    (*list)[(*count)++] = (struct found){copy, kind};
    return 0;
}

static int add(struct ls_changes *changes, char kind, const char *path) { return append(changes, &changes->found, &changes->count, &changes->room, kind, path); }

static int add_surplus(struct ls_changes *changes, char kind, const char *path) {
    return append(changes, &changes->surplus, &changes->surplus_count, &changes->surplus_room, kind, path);
}

static int remember_link(struct ls_changes *changes, const struct stat *facts, const char *path, bool changed) {
    if (changes->linked_count == changes->linked_room) {
        size_t room = changes->linked_room ? changes->linked_room * 2 : 64;
        struct linked *grown = realloc(changes->linked, room * sizeof *grown);
        if (!grown)
            return fail(changes, -ENOMEM, "realloc", path);
        changes->linked = grown;
        changes->linked_room = room;
    }
    char *copy = strdup(path);
    if (!copy)
        return fail(changes, -ENOMEM, "strdup", path);
    changes->linked[changes->linked_count++] = (struct linked){facts->st_dev, facts->st_ino, copy, changed};
    return 0;
}

static int later(struct ls_changes *changes, const char *path, enum how how, bool deep) {
    struct folder *folder = malloc(sizeof *folder + strlen(path) + 1);
    if (!folder)
        return fail(changes, -ENOMEM, "malloc", path);
    folder->how = how;
    folder->deep = deep;
    strcpy(folder->path, path);
    folder->next = changes->todo;
    changes->todo = folder;
    return 0;
}

static int open_folder(int root, const char *path) { return ls_open_beneath(root, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0); }

/* --- does one name differ? ---------------------------------------------------------------------------------------- */

static int open_name(int folder, const char *name, int flags) {
    int fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int same_xattrs(int a, int b) {
    struct ls_bytes of_a = {0}, of_b = {0};
    const char *call;
    int rc = ls_disk_xattrs(a, false, &of_a, &call) ?: ls_disk_xattrs(b, false, &of_b, &call);
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
    return a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_gid == b->st_gid && a->st_mtim.tv_sec == b->st_mtim.tv_sec
        && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && (S_ISDIR(a->st_mode) || a->st_size == b->st_size)
        && ((!S_ISCHR(a->st_mode) && !S_ISBLK(a->st_mode)) || a->st_rdev == b->st_rdev);
}

/* 1 the same, 0 not, or -errno. `read`: compare the bytes of files that look alike. */
static int same(int folder_a, int folder_b, const char *name, const struct stat *a, const struct stat *b, bool read_both) {
    if (!same_facts(a, b))
        return 0;
    if (S_ISLNK(a->st_mode)) {
        int rc = same_target(folder_a, folder_b, name);
        if (rc != 1)
            return rc;
    }
    bool readable = S_ISREG(a->st_mode) && read_both && a->st_size;
    int flags = readable ? O_RDONLY : O_PATH;
    int fd_a = open_name(folder_a, name, flags), fd_b = open_name(folder_b, name, flags);
    int rc = fd_a < 0 ? fd_a : fd_b < 0 ? fd_b : same_xattrs(fd_a, fd_b);
    if (rc == 1 && readable)
        rc = same_bytes(fd_a, fd_b);
    if (fd_a >= 0)
        close(fd_a);
    if (fd_b >= 0)
        close(fd_b);
    return rc;
}

/* --- overlay's marks in an upper directory ------------------------------------------------------------------------ */

/* Of the kernel, and of nobody else: only root can set these names, while anyone may set `user.overlay.*`, which mean
 * nothing to a mount without `userxattr`. */
static bool has_mark(int fd, const char *name) { return fgetxattr(fd, name, NULL, 0) >= 0; }

static bool is_whiteout(int folder, const char *name, const struct stat *facts) {
    if (S_ISCHR(facts->st_mode))
        return facts->st_rdev == 0;
    if (!S_ISREG(facts->st_mode) || facts->st_size)
        return false;
    int fd = open_name(folder, name, O_RDONLY | O_NONBLOCK);
    bool marked = fd >= 0 && has_mark(fd, "trusted.overlay.whiteout");
    if (fd >= 0)
        close(fd);
    return marked;
}

/* What a directory in the upper shows of the parents' directory of the same name: PLAIN merges with it, REDIRECTED shows
 * another one, which was renamed to here, OPAQUE_ONE shows nothing of it. */
enum merge { PLAIN, OPAQUE_ONE, REDIRECTED };

static enum merge merge_of(int folder, const char *name) {
    char opaque = 0;
    enum merge merge = PLAIN;
    int fd = open_name(folder, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return PLAIN;
    if (has_mark(fd, "trusted.overlay.redirect"))
        merge = REDIRECTED;
    else if (fgetxattr(fd, "trusted.overlay.opaque", &opaque, 1) == 1 && opaque == 'y')
        merge = OPAQUE_ONE;
    close(fd);
    return merge;
}

/* Its bytes are still the parents': only attributes were copied up. */
static bool is_metacopy(int folder, const char *name) {
    int fd = open_name(folder, name, O_RDONLY | O_NONBLOCK);
    bool metacopy = fd >= 0 && has_mark(fd, "trusted.overlay.metacopy");
    if (fd >= 0)
        close(fd);
    return metacopy;
}

/* --- the walk ----------------------------------------------------------------------------------------------------- */

struct place {
    const struct folder *folder;
    int upper, merged, lower; /* fds of this directory, or -1 */
    struct ls_bytes path;     /* of the name in hand */
};

static int name_path(struct place *place, const char *name) {
    size_t length = strlen(place->folder->path);
    int rc = ls_bytes_set(&place->path, place->folder->path, length);
    return rc ?: (length ? ls_bytes_add(&place->path, "/", 1) : 0) ?: ls_bytes_add(&place->path, name, strlen(name));
}

/* A name that the new tree has. `how` is how to go on below it, if it is a directory. */
static int present(struct ls_changes *changes, struct place *place, const char *name, const struct stat *now, enum how how, bool read_both) {
    const char *path = (const char *)place->path.data;
    struct stat before;
    bool had = place->lower >= 0 && fstatat(place->lower, name, &before, AT_SYMLINK_NOFOLLOW) == 0;
    int equal = had ? same(place->merged, place->lower, name, now, &before, read_both) : 0;
    if (equal == -ENOENT || equal == -ELOOP || equal == -ENOTDIR)
        equal = 0; /* it changes while we look: the next look will see what it became */
    if (equal < 0)
        return fail(changes, equal, "compare", path);
    bool both_folders = had && S_ISDIR(now->st_mode) && S_ISDIR(before.st_mode);
    int rc = 0;
    if (!equal)
        rc = add(changes, had ? 'C' : 'A', path);
    else if (changes->upper >= 0)
        rc = add(changes, UNCHANGED, path);
    if (!rc && !S_ISDIR(now->st_mode) && now->st_nlink > 1)
        rc = remember_link(changes, now, path, !equal);
    if (!rc && S_ISDIR(now->st_mode))
        rc = later(changes, path, both_folders ? how : ADDED, both_folders);
    return rc;
}

static int visit_upper(struct ls_changes *changes, struct place *place, const char *name) {
    struct stat mark, now, before;
    if (fstatat(place->upper, name, &mark, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : fail(changes, -errno, "fstatat", (char *)place->path.data);
    if (is_whiteout(place->upper, name, &mark)) {
        bool had = place->lower >= 0 && fstatat(place->lower, name, &before, AT_SYMLINK_NOFOLLOW) == 0;
        return had ? add(changes, 'D', (char *)place->path.data) : add_surplus(changes, STALE, (char *)place->path.data);
    }
    if (fstatat(place->merged, name, &now, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : fail(changes, -errno, "fstatat", (char *)place->path.data);
    enum merge merge = S_ISDIR(mark.st_mode) ? merge_of(place->upper, name) : PLAIN;
    bool metacopy = S_ISREG(mark.st_mode) && is_metacopy(place->upper, name);
    changes->needs_copy |= metacopy || merge == REDIRECTED;
    if (merge == OPAQUE_ONE && add_surplus(changes, OPAQUE, (char *)place->path.data))
        return -ENOMEM;
    return present(changes, place, name, &now, merge == PLAIN ? GUIDED : COMPARED, !metacopy);
}

static int visit_merged(struct ls_changes *changes, struct place *place, const char *name) {
    struct stat now;
    if (fstatat(place->merged, name, &now, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : fail(changes, -errno, "fstatat", (char *)place->path.data);
    return present(changes, place, name, &now, place->folder->how, changes->content);
}

static int visit_lower(struct ls_changes *changes, struct place *place, const char *name) {
    struct stat now;
    if (fstatat(place->merged, name, &now, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    return errno == ENOENT ? add(changes, 'D', (char *)place->path.data) : fail(changes, -errno, "fstatat", (char *)place->path.data);
}

static int each_name(struct ls_changes *changes, struct place *place, int fd, int (*visit)(struct ls_changes *, struct place *, const char *)) {
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = own < 0 ? NULL : fdopendir(own);
    if (!listing)
        return fail(changes, -errno, "openat", place->folder->path);
    int rc = 0;
    errno = 0;
    for (struct dirent *one; !rc && (one = readdir(listing)); errno = 0)
        if (strcmp(one->d_name, ".") && strcmp(one->d_name, "..")) {
            rc = name_path(place, one->d_name);
            rc = rc ? fail(changes, rc, "malloc", one->d_name) : visit(changes, place, one->d_name);
        }
    if (!rc && errno)
        rc = fail(changes, -errno, "readdir", place->folder->path);
    closedir(listing);
    return rc;
}

static int visit_folder(struct ls_changes *changes, const struct folder *folder) {
    struct place place = {.folder = folder, .upper = -1, .merged = open_folder(changes->merged, folder->path), .lower = -1};
    int rc = place.merged;
    if (rc >= 0 && folder->deep)
        rc = place.lower = open_folder(changes->lower, folder->path);
    if (rc >= 0 && folder->how == GUIDED)
        rc = place.upper = open_folder(changes->upper, folder->path);
    if (rc == -ENOENT || rc == -ENOTDIR || rc == -ELOOP)
        rc = 0; /* gone meanwhile */
    else if (rc < 0)
        fail(changes, rc, "openat2", folder->path);
    else if (folder->how == GUIDED)
        rc = each_name(changes, &place, place.upper, visit_upper);
    else {
        rc = each_name(changes, &place, place.merged, visit_merged);
        if (!rc && folder->deep)
            rc = each_name(changes, &place, place.lower, visit_lower);
    }
    int fds[] = {place.upper, place.merged, place.lower};
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    ls_bytes_free(&place.path);
    return rc < 0 ? rc : 0;
}

/* --- putting it in order ------------------------------------------------------------------------------------------ */

static int by_inode(const void *a, const void *b) {
    const struct linked *x = a, *y = b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->inode == y->inode ? 0 : x->inode < y->inode ? -1 : 1;
}

static int complete_links(struct ls_changes *changes) {
    if (changes->linked_count)
        qsort(changes->linked, changes->linked_count, sizeof *changes->linked, by_inode);
    for (size_t begin = 0, end; begin < changes->linked_count; begin = end) {
        bool changed = false;
        for (end = begin; end < changes->linked_count && !by_inode(&changes->linked[begin], &changes->linked[end]); end++)
            changed |= changes->linked[end].changed;
        for (size_t i = begin; changed && i < end; i++)
            if (!changes->linked[i].changed && add(changes, 'C', changes->linked[i].path))
                return -ENOMEM;
    }
    return 0;
}

static int by_path(const void *a, const void *b) { return strcmp(((const struct found *)a)->path, ((const struct found *)b)->path); }

/* A directory that holds a change is a change. Paths are sorted, so a missing one shows by not being found. */
static int complete_parents(struct ls_changes *changes) {
    size_t sorted = changes->count;
    char *known = strdup("");
    for (size_t i = 0; known && i < sorted; i++) {
        if (changes->found[i].kind == UNCHANGED)
            continue;
        char *path = strdup(changes->found[i].path);
        for (char *slash = path ? strrchr(path, '/') : NULL; slash; slash = strrchr(path, '/')) {
            *slash = 0;
            size_t length = strlen(path);
            if (!strncmp(known, path, length) && (known[length] == '/' || !known[length]))
                break; /* it and those above it have been seen to */
            struct found wanted = {path, 0}, *there = bsearch(&wanted, changes->found, sorted, sizeof wanted, by_path);
            if (there && there->kind == UNCHANGED)
                there->kind = 'C';
            else if (!there && add(changes, 'C', path)) {
                free(path);
                free(known);
                return -ENOMEM;
            }
        }
        free(path);
        free(known);
        char *slash = strrchr(changes->found[i].path, '/');
        known = strndup(changes->found[i].path, slash ? (size_t)(slash - changes->found[i].path) : 0);
    }
    if (!known)
        return fail(changes, -ENOMEM, "strdup", "");
    free(known);
    return 0;
}

static int finish(struct ls_changes *changes) {
    int rc = complete_links(changes);
    if (!rc && changes->count) {
        qsort(changes->found, changes->count, sizeof *changes->found, by_path);
        rc = complete_parents(changes);
        qsort(changes->found, changes->count, sizeof *changes->found, by_path);
    }
    size_t kept = 0;
    for (size_t i = 0; i < changes->count; i++) {
        struct found *last = kept ? &changes->found[kept - 1] : NULL, *one = &changes->found[i];
        if (last && !strcmp(last->path, one->path)) { /* a parent found from two of its children, a link found twice */
            if (last->kind == UNCHANGED)
                last->kind = one->kind;
            free(one->path);
        } else
            changes->found[kept++] = *one;
    }
    size_t listed = 0;
    for (size_t i = 0; i < kept; i++) {
        if (changes->found[i].kind == UNCHANGED) {
            if (!rc)
                rc = add_surplus(changes, UNCHANGED, changes->found[i].path);
            free(changes->found[i].path);
        } else
            changes->found[listed++] = changes->found[i];
    }
    kept = listed;
    changes->count = kept;
    for (size_t i = 0; !rc && i < changes->count; i++) {
        rc = ls_bytes_add(&changes->list, &changes->found[i].kind, 1) ?: ls_bytes_add(&changes->list, changes->found[i].path, strlen(changes->found[i].path) + 1);
        if (rc)
            fail(changes, rc, "malloc", "");
    }
    return rc;
}

/* The root is reported for its own sake only: its time changes with every name in it. */
static int compare_roots(struct ls_changes *changes) {
    struct stat now, before;
    if (changes->lower < 0)
        return 0;
    if (fstat(changes->merged, &now) || fstat(changes->lower, &before))
        return fail(changes, -errno, "fstat", "");
    now.st_mtim = before.st_mtim;
    int equal = same_facts(&now, &before) ? same_xattrs(changes->merged, changes->lower) : 0;
    if (equal < 0)
        return fail(changes, equal, "getxattr", "");
    return equal ? 0 : add(changes, 'C', "");
}

static int run(struct ls_changes *changes, enum how how) {
    int rc = compare_roots(changes) ?: later(changes, "", changes->lower < 0 && how == COMPARED ? ADDED : how, changes->lower >= 0);
    while (!rc && changes->todo) {
        struct folder *folder = changes->todo;
        changes->todo = folder->next;
        rc = visit_folder(changes, folder);
        free(folder);
    }
    return rc ?: finish(changes);
}

int ls_changes_of_overlay(struct ls_changes *changes, int upper, int merged, int lower) {
    changes->upper = upper, changes->merged = merged, changes->lower = lower;
    changes->content = true; /* what an opaque directory shows is all of this layer */
    return run(changes, GUIDED);
}

int ls_changes_of_trees(struct ls_changes *changes, int merged, int lower, int content) {
    changes->upper = -1, changes->merged = merged, changes->lower = lower;
    changes->content = content;
    return run(changes, COMPARED);
}

size_t ls_changes_list(struct ls_changes *changes, const uint8_t **data) {
    *data = changes->list.data;
    return changes->list.length;
}

size_t ls_changes_count(struct ls_changes *changes) { return changes->count; }
int ls_changes_can_be_exact(struct ls_changes *changes) { return !changes->needs_copy; }

/* --- making an upper directory say what its tar says, and nothing else -------------------------------------------- */

/* Opens the directory that holds `path`, and leaves what its times are now in `times`. */
static int open_holder(int root, const char *path, const char **name, struct timespec times[2]) {
    const char *slash = strrchr(path, '/');
    struct stat facts;
    char *folder = slash ? strndup(path, (size_t)(slash - path)) : strdup("");
    int fd = folder ? open_folder(root, folder) : -ENOMEM;
    free(folder);
    *name = slash ? slash + 1 : path;
    if (fd >= 0 && !fstat(fd, &facts))
        times[0] = facts.st_atim, times[1] = facts.st_mtim;
    return fd;
}

/* The parents' file shows through again, which is the same. A directory that still holds something stays. */
static int drop_surplus(struct ls_changes *changes, const char *path) {
    struct timespec times[2];
    const char *name;
    int fd = open_holder(changes->upper, path, &name, times);
    if (fd < 0)
        return fail(changes, fd, "openat2", path);
    int rc = unlinkat(fd, name, 0);
    if (rc && (errno == EISDIR || errno == EPERM))
        rc = unlinkat(fd, name, AT_REMOVEDIR);
    rc = rc && errno != ENOENT && errno != ENOTEMPTY ? -errno : 0;
    if (futimens(fd, times) && !rc)
        rc = -errno;
    close(fd);
    return rc ? fail(changes, rc, "unlinkat", path) : 0;
}

static int make_opaque(int folder, const char *name) {
    int fd = open_name(folder, name, O_RDONLY | O_DIRECTORY);
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
            if (!rc && fgetxattr(upper, "trusted.overlay.origin", NULL, 0) < 0 && fsetxattr(upper, "trusted.overlay.origin", "", 0, 0))
                rc = -errno; /* see finish.c: or the whiteouts show as ghosts where the directory is not merged */
        } else if (S_ISDIR(above.st_mode) && !fstatat(lower, one->d_name, &below, AT_SYMLINK_NOFOLLOW) && S_ISDIR(below.st_mode)) {
            rc = ls_bytes_set(&place.path, path, strlen(path)) ?: ls_bytes_add(&place.path, "/", 1) ?: ls_bytes_add(&place.path, one->d_name, strlen(one->d_name));
            rc = rc ?: make_opaque(upper, one->d_name) ?: add_surplus(changes, OPAQUE, (char *)place.path.data);
        }
    }
    closedir(listing);
    ls_bytes_free(&place.path);
    return rc;
}

/* At no point does the merged tree look different: the mark goes when nothing depends on it any more. */
static int spell_out(struct ls_changes *changes, const char *path) {
    struct stat facts;
    int upper = open_folder(changes->upper, path);
    int lower = changes->lower < 0 ? -ENOENT : open_folder(changes->lower, path);
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
    return rc ? fail(changes, rc, "spell out", path) : 0;
}

int ls_changes_make_exact(struct ls_changes *changes) {
    int rc = 0;
    for (size_t i = 0; !rc && i < changes->surplus_count; i++) /* grows meanwhile */
        if (changes->surplus[i].kind == OPAQUE)
            rc = spell_out(changes, changes->surplus[i].path);
    if (changes->surplus_count)
        qsort(changes->surplus, changes->surplus_count, sizeof *changes->surplus, by_path);
    for (size_t i = changes->surplus_count; !rc && i-- > 0;) /* what is in a directory goes before it */
        if (changes->surplus[i].kind != OPAQUE)
            rc = drop_surplus(changes, changes->surplus[i].path);
    return rc ? rc : changes->surplus_count > 0;
}
