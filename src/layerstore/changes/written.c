/* A list of changes written as a layer in aufs's form, for where the changed tree is a copy and no upper directory. */
#define _GNU_SOURCE
#include "internal.h"
#include "../kernel/files/entry.h"

#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <unistd.h>

/* The first path of a file with several names. */
struct first {
    dev_t device;
    ino_t inode;
    const char *path;
};

struct writing {
    int tree, target;
    void *firsts;
    const char *call;
};

static int by_file(const void *a, const void *b) {
    const struct first *x = a, *y = b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->inode == y->inode ? 0 : x->inode < y->inode ? -1 : 1;
}

/* 1: `path` was made as one more name of what has been written already; 0: it is the first; or -errno. */
static int link_to_first(struct writing *writing, const struct stat *facts, const char *path) {
    struct first *first = malloc(sizeof *first);
    if (!first)
        return writing->call = "malloc", -ENOMEM;
    *first = (struct first){facts->st_dev, facts->st_ino, path};
    struct first **place = tsearch(first, &writing->firsts, by_file);
    if (place && *place == first)
        return 0;
    free(first);
    if (!place)
        return writing->call = "malloc", -ENOMEM;
    writing->call = "linkat";
    return linkat(writing->target, (*place)->path, writing->target, path, 0) ? -errno : 1;
}

static int write_whiteout(struct writing *writing, const char *path) {
    struct ls_bytes marker = {0};
    int rc = ls_whiteout_path(&marker, path, strlen(path));
    writing->call = "whiteout of";
    if (!rc)
        rc = mknodat(writing->target, (char *)marker.data, S_IFREG | 0444, 0) ? -errno : 0;
    ls_bytes_free(&marker);
    return rc;
}

static int write_present(struct writing *writing, const char *path) {
    const char *slash = strrchr(path, '/');
    struct stat facts;
    if (ls_begins(slash ? slash + 1 : path, LS_WHITEOUT_PREFIX))
        return writing->call = "writing", -EBADMSG;
    writing->call = "openat2";
    int fd = ls_open_beneath(writing->tree, path, O_PATH | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    int rc = fstat(fd, &facts) ? -errno : S_ISCHR(facts.st_mode) && facts.st_rdev == 0 ? -EBADMSG : 0;
    if (!rc && !S_ISDIR(facts.st_mode) && !S_ISSOCK(facts.st_mode) && facts.st_nlink > 1)
        rc = link_to_first(writing, &facts, path);
    if (!rc && !S_ISSOCK(facts.st_mode))
        rc = ls_entry_copy(fd, writing->target, path, &facts, &writing->call);
    close(fd);
    return rc < 0 ? rc : 0;
}

static int settle_folder(struct writing *writing, const char *path) {
    const char *name = *path ? path : ".";
    struct stat facts;
    int from = ls_open_beneath(writing->tree, name, O_PATH | O_NOFOLLOW, 0), to = -1;
    int rc = from < 0 ? from : fstat(from, &facts) ? -errno : 0;
    writing->call = "openat2";
    if (!rc && S_ISDIR(facts.st_mode))
        rc = (to = ls_open_beneath(writing->target, name, O_PATH | O_DIRECTORY, 0)) < 0
                 ? to
                 : ls_entry_settle(from, to, &facts, &writing->call);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return rc;
}

int ls_changes_write(const uint8_t *list, size_t length, int tree, int target, const char **call, char *where,
                     size_t room) {
    struct writing writing = {.tree = tree, .target = target, .call = ""};
    const char *path = "";
    size_t at = 0;
    int rc = 0;
    for (; !rc && at < length; at += strlen(path) + 2) {
        path = (const char *)list + at + 1;
        if (list[at] == 'D')
            rc = write_whiteout(&writing, path);
        else if (*path)
            rc = write_present(&writing, path);
    }
    /* Each name made in a directory changes its time, so attributes come last. What is inside stands behind it in the list. */
    while (!rc && at > 0) {
        for (at--; at > 0 && list[at - 1]; at--)
            ;
        path = (const char *)list + at + 1;
        if (list[at] != 'D' && *path)
            rc = settle_folder(&writing, path);
    }
    if (!rc)
        rc = settle_folder(&writing, path = "");
    while (writing.firsts) {
        struct first *first = *(struct first **)writing.firsts;
        tdelete(first, &writing.firsts, by_file);
        free(first);
    }
    *call = writing.call;
    snprintf(where, room, "%s", path);
    return rc;
}
