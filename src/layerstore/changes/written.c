/* A list of changes written as a layer in aufs's form, for where the changed tree is a copy and no upper directory. */
#define _GNU_SOURCE
#include "changes.h"
#include "../kernel/files/array.h"
#include "../kernel/files/entry.h"
#include "../kernel/files/files.h"
#include "../kernel/files/marks.h"

#include <fcntl.h>
#include <search.h>
#include <stdbool.h>
#include <sys/stat.h>

/* The first path of a file with several names. */
struct first {
    dev_t device;
    ino_t inode;
    const char *path;
};

struct writing {
    int tree, target;
    void *firsts;
    struct ls_failure *failure;
};

static int by_file(const void *a, const void *b) {
    const struct first *x = a, *y = b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->inode == y->inode ? 0 : x->inode < y->inode ? -1 : 1;
}

static void forget(struct writing *writing) {
    while (writing->firsts) {
        struct first *first = *(struct first **)writing->firsts;
        tdelete(first, &writing->firsts, by_file);
        free(first);
    }
}

/* 1: `path` was made as one more name of what has been written already; 0: it is the first; or -errno. */
static int link_to_first(struct writing *writing, const struct stat *facts, const char *path) {
    LS_FREED struct first *first = malloc(sizeof *first);
    if (!first)
        return ls_fail(writing->failure, "malloc", -ENOMEM);
    *first = (struct first){facts->st_dev, facts->st_ino, path};
    struct first **place = tsearch(first, &writing->firsts, by_file);
    if (!place)
        return ls_fail(writing->failure, "malloc", -ENOMEM);
    if (*place == first)
        return (void)LS_TAKE(first), 0;
    return linkat(writing->target, (*place)->path, writing->target, path, 0) ? LS_FAIL(writing->failure, "linkat") : 1;
}

static int write_whiteout(struct writing *writing, const char *path) {
    LS_BYTES_FREED struct ls_bytes marker = {0};
    int rc = ls_whiteout_path(&marker, path, strlen(path));
    if (rc)
        return ls_fail(writing->failure, "malloc", rc);
    return mknodat(writing->target, (char *)marker.data, S_IFREG | 0444, 0) ? LS_FAIL(writing->failure, "mknodat") : 0;
}

static bool would_be_a_mark(const char *path, const struct stat *facts) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    return ls_is_mark(name, strlen(name)) || (S_ISCHR(facts->st_mode) && facts->st_rdev == 0);
}

static int write_present(struct writing *writing, const char *path) {
    struct stat facts;
    LS_CLOSED int fd = ls_open_beneath(writing->tree, path, O_PATH | O_NOFOLLOW, 0);
    if (fd < 0)
        return ls_fail(writing->failure, "openat2", fd);
    if (fstat(fd, &facts))
        return LS_FAIL(writing->failure, "fstat");
    if (would_be_a_mark(path, &facts))
        return ls_fail(writing->failure, "writing", -EBADMSG);
    if (S_ISSOCK(facts.st_mode))
        return 0;
    int rc = !S_ISDIR(facts.st_mode) && facts.st_nlink > 1 ? link_to_first(writing, &facts, path) : 0;
    if (rc)
        return rc < 0 ? rc : 0;
    return ls_entry_copy(fd, writing->target, path, &facts, writing->failure);
}

static int settle_folder(struct writing *writing, const char *path) {
    const char *name = *path ? path : ".";
    struct stat facts;
    LS_CLOSED int from = ls_open_beneath(writing->tree, name, O_PATH | O_NOFOLLOW, 0);
    if (from < 0)
        return ls_fail(writing->failure, "openat2", from);
    if (fstat(from, &facts))
        return LS_FAIL(writing->failure, "fstat");
    if (!S_ISDIR(facts.st_mode))
        return 0;
    LS_CLOSED int to = ls_open_beneath(writing->target, name, O_PATH | O_DIRECTORY, 0);
    if (to < 0)
        return ls_fail(writing->failure, "openat2", to);
    return ls_entry_settle(from, to, &facts, writing->failure);
}

/* Each name made in a directory changes its time, so attributes come last. What is inside stands behind it in the list. */
static int settle_all(struct writing *writing, const uint8_t *list, size_t length) {
    int rc = 0;
    const char *path = "";
    for (size_t at = length; !rc && at > 0;) {
        for (at--; at > 0 && list[at - 1]; at--)
            ;
        path = (const char *)list + at + 1;
        if (list[at] != 'D' && *path)
            rc = settle_folder(writing, path);
    }
    return rc ? ls_fail_at(writing->failure, path) : settle_folder(writing, "");
}

int ls_changes_write(const uint8_t *list, size_t length, int tree, int target, struct ls_failure *failure) {
    struct writing writing = {.tree = tree, .target = target, .failure = failure};
    const char *path = "";
    int rc = 0;
    for (size_t at = 0; !rc && at < length; at += strlen(path) + 2) {
        path = (const char *)list + at + 1;
        if (list[at] == 'D')
            rc = write_whiteout(&writing, path);
        else if (*path)
            rc = write_present(&writing, path);
    }
    rc = rc ? ls_fail_at(failure, path) : settle_all(&writing, list, length);
    forget(&writing);
    return rc;
}
