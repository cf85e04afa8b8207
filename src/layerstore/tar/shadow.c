/* The shadow folder: files that the tar replaces by later entries of its own, for the export needs their bytes.
 *
 * It lies beside the skeleton. A tree that is a filesystem or a subvolume of its own cannot rename or link across its
 * edge, so there the folder is one within the tree until the last link is made, under a name that no tree can have and
 * no tar can guess. */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int open_folder(int at, const char *path) {
    return openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The folder beside the skeleton, and whether files cannot be moved from the tree to it. */
static int open_shadow(struct ls_unpack *unpack, bool *apart) {
    struct stat tree, shadow;
    if (mkdir(unpack->shadow_path, 0700) && errno != EEXIST)
        return LS_FAIL(&unpack->said, "mkdir");
    unpack->shadow = open_folder(AT_FDCWD, unpack->shadow_path);
    if (unpack->shadow < 0)
        return LS_FAIL(&unpack->said, "openat");
    if (fstat(unpack->shadow, &shadow) || fstat(unpack->disk.tree, &tree))
        return LS_FAIL(&unpack->said, "fstat");
    *apart = shadow.st_dev != tree.st_dev;
    return 0;
}

/* The folder within the tree, in which they wait. */
static int open_inside(struct ls_unpack *unpack) {
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return LS_FAIL(&unpack->said, "getrandom");
    snprintf(unpack->shadow_inside, sizeof unpack->shadow_inside, LS_META_PREFIX "%016llx", (unsigned long long)random);
    unpack->shadow_apart = ls_take_fd(&unpack->shadow);
    if (mkdirat(unpack->disk.tree, unpack->shadow_inside, 0700))
        return LS_FAIL(&unpack->said, "mkdirat");
    unpack->shadow = open_folder(unpack->disk.tree, unpack->shadow_inside);
    if (unpack->shadow < 0)
        return LS_FAIL(&unpack->said, "openat");
    return ls_acls_drop(unpack->shadow, &unpack->said);
}

int ls_shadow_folder(struct ls_unpack *unpack) {
    bool apart;
    if (unpack->shadow >= 0 || ls_is_listed(unpack)) /* then the tar itself has the bytes */
        return 0;
    if (open_shadow(unpack, &apart))
        return ls_failed_outside(unpack, unpack->shadow_path);
    return apart && open_inside(unpack) ? ls_failed_at(unpack, unpack->model.root) : 0;
}

static int move_out(int from, int to, const char *name, struct ls_failure *failure) {
    LS_CLOSED int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (source < 0)
        return LS_FAIL(failure, "openat");
    LS_CLOSED int target = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (target < 0)
        return LS_FAIL(failure, "openat");
    int64_t rc = ls_copy_data(source, target);
    if (rc < 0)
        return ls_fail(failure, "copy_file_range", (int)rc);
    if (ls_disk_close(&target, failure))
        return -failure->code;
    return unlinkat(from, name, 0) ? LS_FAIL(failure, "unlinkat") : 0;
}

/* All links are made: what lies within the tree goes to its place. */
int ls_shadow_settle(struct ls_unpack *unpack) {
    if (unpack->shadow_apart < 0)
        return 0;
    for (int64_t number = 0; number < unpack->shadow_count; number++) {
        char name[32];
        snprintf(name, sizeof name, "%lld", (long long)number);
        if (move_out(unpack->shadow, unpack->shadow_apart, name, &unpack->said))
            return ls_failed_outside(unpack, unpack->shadow_path);
    }
    if (unlinkat(unpack->disk.tree, unpack->shadow_inside, AT_REMOVEDIR))
        return ls_fail_system(unpack, -errno, "unlinkat", unpack->model.root);
    return 0;
}
