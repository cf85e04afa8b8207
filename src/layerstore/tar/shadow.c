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

int ls_shadow_folder(struct ls_unpack *unpack) {
    struct stat tree, shadow;
    if (unpack->shadow >= 0)
        return 0;
    if (mkdir(unpack->shadow_path, 0700) && errno != EEXIST)
        return ls_fail_system(unpack, -errno, "mkdir", NULL);
    unpack->shadow = open_folder(AT_FDCWD, unpack->shadow_path);
    if (unpack->shadow < 0 || fstat(unpack->shadow, &shadow) || fstat(unpack->disk.tree, &tree))
        return ls_fail_system(unpack, -errno, "open", NULL);
    if (shadow.st_dev == tree.st_dev)
        return 0;
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return ls_fail_system(unpack, -errno, "getrandom", NULL);
    snprintf(unpack->shadow_inside, sizeof unpack->shadow_inside, ".wh..wh.%016llx", (unsigned long long)random);
    unpack->shadow_apart = unpack->shadow;
    unpack->shadow = mkdirat(unpack->disk.tree, unpack->shadow_inside, 0700)
                         ? -1
                         : open_folder(unpack->disk.tree, unpack->shadow_inside);
    if (unpack->shadow < 0)
        return ls_fail_system(unpack, -errno, "mkdirat", NULL);
    fremovexattr(unpack->shadow, "system.posix_acl_default"); /* what the tree's root gives on */
    return 0;
}

static int move_out(int from, int to, const char *name) {
    int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int target = source < 0 ? -errno : openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int64_t rc = source < 0 ? target : target < 0 ? -errno : ls_copy_data(source, target);
    if (source >= 0)
        close(source);
    if (target >= 0)
        close(target);
    return rc < 0 ? (int)rc : unlinkat(from, name, 0) ? -errno : 0;
}

/* All links are made: what lies within the tree goes to its place. */
int ls_shadow_settle(struct ls_unpack *unpack) {
    if (unpack->shadow_apart < 0)
        return 0;
    int rc = 0;
    for (int64_t number = 0; !rc && number < unpack->shadow_count; number++) {
        char name[32];
        snprintf(name, sizeof name, "%lld", (long long)number);
        rc = move_out(unpack->shadow, unpack->shadow_apart, name);
    }
    if (!rc && unlinkat(unpack->disk.tree, unpack->shadow_inside, AT_REMOVEDIR))
        rc = -errno;
    return rc ? ls_fail_system(unpack, rc, "moving to the shadow folder", NULL) : 0;
}
