/* See implied.h. Bottom-up or top-down makes no difference: the names are all made, and only the directories' own attributes change. */
#define _GNU_SOURCE
#include "disk.h"
#include "unpack.h"
#include "implied.h"
#include "xxh64.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t hash_of(const struct ls_node *node) {
    uint64_t facts[4] = {node->mode, node->uid, node->gid, node->attributes};
    return ls_xxh64_of(facts, sizeof facts, 0);
}

static int open_at(int root, const char *path) {
    return root < 0 ? -ENOENT : ls_open_beneath(root, *path ? path : ".", O_PATH | O_NOFOLLOW, 0);
}

/* 1 and the node's attributes for a directory; else as ls_implied_look. */
static int learn(int below, const char *path, struct ls_node *node) {
    const char *call;
    struct stat facts;
    int fd = open_at(below, path);
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
        return 0;
    if (fd < 0)
        return fd;
    int rc = fstat(fd, &facts)        ? -errno
             : S_ISDIR(facts.st_mode) ? ls_disk_learn(fd, node, &call) ?: 1
             : S_ISLNK(facts.st_mode) ? 2
                                      : 3;
    close(fd);
    return rc;
}

int ls_implied_look(int below, const char *path, uint64_t *hash) {
    struct ls_node node = {.mode = 0755, .attributes = ls_xattrs_hash(NULL, 0)};
    int rc = learn(below, path, &node);
    *hash = hash_of(&node);
    ls_node_forget(&node);
    return rc;
}

int ls_implied_adopt(int tree, int below, int dialect, const char *path, int hollow) {
    struct ls_node node = {0};
    struct ls_disk disk = {.tree = tree, .dialect = dialect};
    const char *call;
    int rc = learn(below, path, &node);
    if (rc == 1) {
        int fd = ls_open_beneath(tree, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0);
        rc = fd < 0 ? fd : ls_disk_settle(&disk, fd, &node, false, &call);
        if (fd >= 0)
            close(fd);
    } else if (rc >= 0)
        rc = hollow ? ls_disk_remove_path(tree, path) : 0;
    ls_node_forget(&node);
    return rc;
}
