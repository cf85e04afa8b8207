/* See implied.h. In which order directories come makes no difference: the names are made, and only attributes
 * change. */
#define _GNU_SOURCE
#include "disk.h"
#include "unpack.h"
#include "implied.h"
#include "../kernel/files/scope.h"
#include "xxh64.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t hash_of(const struct ls_node *node) {
    uint64_t facts[4] = {node->mode, node->uid, node->gid, node->attributes};
    return ls_xxh64_of(facts, sizeof facts, 0);
}

/* 1 and the node's attributes for a directory; else as ls_implied_look. */
static int learn(int below, const char *path, struct ls_node *node, struct ls_failure *failure) {
    struct stat facts;
    if (below < 0)
        return 0;
    LS_CLOSED int fd = ls_open_beneath(below, *path ? path : ".", O_PATH | O_NOFOLLOW, 0);
    if (ls_is_absent(fd))
        return 0;
    if (fd < 0)
        return ls_fail(failure, "openat2", fd);
    if (fstat(fd, &facts))
        return LS_FAIL(failure, "fstat");
    return S_ISDIR(facts.st_mode) ? ls_disk_learn(fd, node, failure) ?: 1 : S_ISLNK(facts.st_mode) ? 2 : 3;
}

int ls_implied_look(int below, const char *path, uint64_t *hash, struct ls_failure *failure) {
    struct ls_node node = {.mode = 0755, .attributes = ls_xattrs_hash(NULL, 0)};
    int rc = learn(below, path, &node, failure);
    *hash = hash_of(&node);
    ls_node_forget(&node);
    return rc;
}

int ls_implied_adopt(int tree, int below, int dialect, const char *path, int hollow, struct ls_failure *failure) {
    struct ls_node node = {0};
    struct ls_disk disk = {.tree = tree, .dialect = dialect};
    int rc = learn(below, path, &node, failure);
    if (rc == 1) {
        LS_CLOSED int fd = ls_open_beneath(tree, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0);
        rc = fd < 0 ? ls_fail(failure, "openat2", fd) : ls_disk_settle(&disk, fd, &node, false, failure);
    } else if (rc >= 0)
        rc = hollow ? ls_disk_remove_path(tree, path, failure) : 0;
    ls_node_forget(&node);
    return rc;
}
