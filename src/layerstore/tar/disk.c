/* The system calls of unpacking. See disk.h. */
#define _GNU_SOURCE
#include "disk.h"
#include "unpack.h"
#include "../kernel/files/files.h"
#include "../kernel/files/remove.h"
#include "xxh64.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FAIL(name) (*call = (name), -errno)

void ls_cursor_close(struct ls_cursor *cursor) {
    if (cursor->folder && cursor->fd >= 0)
        close(cursor->fd);
    cursor->folder = NULL;
    cursor->fd = -1;
}

/* One component at a time: for paths longer than the kernel takes, and kernels without openat2. */
static int open_stepwise(int root, char *path) {
    int fd = fcntl(root, F_DUPFD_CLOEXEC, 0);
    for (char *part = path, *slash; fd >= 0 && part; part = slash ? slash + 1 : NULL) {
        if ((slash = strchr(part, '/')))
            *slash = 0;
        int next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int error = errno;
        close(fd);
        errno = error;
        fd = next;
    }
    return fd >= 0 ? fd : -errno;
}

int ls_disk_folder(const struct ls_disk *disk, struct ls_cursor *cursor, const struct ls_node *folder,
                   unsigned generation, const char **call) {
    if (cursor->folder == folder && cursor->generation == generation)
        return cursor->fd;
    ls_cursor_close(cursor);
    struct ls_bytes path = {0};
    int fd = ls_node_path(folder, &path);
    if (!fd && !path.length) {
        if ((fd = fcntl(disk->tree, F_DUPFD_CLOEXEC, 0)) < 0)
            fd = -errno;
    } else if (!fd) {
        fd = path.length < PATH_MAX ? ls_open_beneath(disk->tree, (char *)path.data, O_RDONLY | O_DIRECTORY, 0)
                                    : -ENAMETOOLONG;
        if (fd == -ENAMETOOLONG || fd == -ENOSYS || fd == -EPERM)
            fd = open_stepwise(disk->tree, (char *)path.data);
    }
    ls_bytes_free(&path);
    if (fd < 0) {
        *call = "openat2";
        return fd;
    }
    *cursor = (struct ls_cursor){folder, generation, fd};
    return fd;
}

/* --- attributes --------------------------------------------------------------------------------------------------- */

static bool begins(const char *name, size_t length, const char *prefix) {
    return length >= strlen(prefix) && !memcmp(name, prefix, strlen(prefix));
}

/* `trusted.overlay.x` of a tar lies on disk as the kernel's own escape of it (overlayfs.rst, "Nested overlayfs mounts"). */
static int set_xattrs(const struct ls_disk *disk, int fd, const char *path, const struct ls_node *node,
                      const char **call) {
    struct ls_reader reader = {node->xattrs, node->xattrs + node->xattrs_length, false};
    struct ls_xattr xattr;
    char name[XATTR_NAME_MAX + 1];
    while (node->xattrs_length && ls_xattr_next(&reader, &xattr)) {
        bool escape = disk->dialect == LS_DIALECT_OVERLAY && begins(xattr.name, xattr.name_length, LS_OVERLAY_PREFIX);
        int length = escape ? snprintf(name, sizeof name, LS_OVERLAY_PREFIX "overlay.%.*s",
                                       (int)(xattr.name_length - strlen(LS_OVERLAY_PREFIX)),
                                       xattr.name + strlen(LS_OVERLAY_PREFIX))
                            : snprintf(name, sizeof name, "%.*s", (int)xattr.name_length, xattr.name);
        *call = "setxattr";
        if (length < 0 || (size_t)length >= sizeof name)
            return -ERANGE;
        if (path ? lsetxattr(path, name, xattr.value, xattr.value_length, 0)
                 : fsetxattr(fd, name, xattr.value, xattr.value_length, 0))
            return -errno;
    }
    return 0;
}

static void times_of(const struct ls_node *node, struct timespec times[2]) {
    times[0] = times[1] = (struct timespec){.tv_sec = node->mtime, .tv_nsec = node->mtime_ns};
}

static bool owner_is_right(const struct ls_disk *disk, const struct ls_node *node) {
    return disk->plain_owner && !node->uid && !node->gid;
}

int ls_disk_settle(const struct ls_disk *disk, int fd, const struct ls_node *node, bool mode_is_set,
                   const char **call) {
    struct timespec times[2];
    int rc;
    if (!owner_is_right(disk, node) && fchown(fd, node->uid, node->gid))
        return FAIL("fchown");
    /* chown clears the setuid bits, and setxattr of an access ACL writes the mode: the mode comes between the two */
    if ((!mode_is_set || node->mode & 07000) && fchmod(fd, node->mode))
        return FAIL("fchmod");
    if ((rc = set_xattrs(disk, fd, NULL, node, call)))
        return rc;
    times_of(node, times);
    return futimens(fd, times) ? FAIL("futimens") : 0;
}

uint64_t ls_xattrs_hash(const uint8_t *data, size_t length) {
    struct ls_reader reader = {data, data + length, false};
    struct ls_xattr xattr;
    struct ls_xxh64 hash;
    ls_xxh64_begin(&hash, 0);
    while (length && ls_xattr_next(&reader, &xattr)) {
        uint8_t capability[24];
        const uint8_t *value = xattr.value;
        size_t size = xattr.value_length;
        if (size == sizeof capability && xattr.name_length == strlen(LS_CAPABILITY) &&
            !memcmp(xattr.name, LS_CAPABILITY, xattr.name_length)) {
            memcpy(capability, value, size);
            value = capability;
            size = (size_t)ls_xattr_portable(LS_CAPABILITY, capability, (ssize_t)size);
        }
        uint64_t lengths[2] = {xattr.name_length, size};
        ls_xxh64_add(&hash, lengths, sizeof lengths);
        ls_xxh64_add(&hash, xattr.name, xattr.name_length);
        ls_xxh64_add(&hash, value, size);
    }
    return ls_xxh64_end(&hash);
}

int ls_disk_clear_xattrs(int fd, const char **call) {
    struct ls_bytes xattrs = {0};
    int rc = ls_xattrs_read(fd, false, &xattrs, call);
    struct ls_reader reader = {xattrs.data, xattrs.data + xattrs.length, false};
    struct ls_xattr xattr;
    char name[XATTR_NAME_MAX + 1];
    while (!rc && xattrs.length && ls_xattr_next(&reader, &xattr)) {
        snprintf(name, sizeof name, "%.*s", (int)xattr.name_length, xattr.name);
        if (fremovexattr(fd, name) && errno != ENODATA)
            *call = "fremovexattr", rc = -errno;
    }
    ls_bytes_free(&xattrs);
    return rc;
}

int ls_disk_learn(int fd, struct ls_node *node, const char **call) {
    struct stat facts;
    struct ls_bytes xattrs = {0};
    if (fstat(fd, &facts))
        return FAIL("fstat");
    int rc = ls_xattrs_read(fd, false, &xattrs, call);
    if (rc) {
        ls_bytes_free(&xattrs);
        return rc;
    }
    free(node->xattrs);
    node->xattrs = xattrs.data;
    node->xattrs_length = (uint32_t)xattrs.length;
    node->attributes = ls_xattrs_hash(xattrs.data, xattrs.length);
    node->mode = facts.st_mode & 07777;
    node->uid = facts.st_uid, node->gid = facts.st_gid;
    node->major = major(facts.st_rdev), node->minor = minor(facts.st_rdev);
    node->mtime = facts.st_mtim.tv_sec, node->mtime_ns = (uint32_t)facts.st_mtim.tv_nsec;
    return 0;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

/* In a merged tree a name of the layers below may stand in the way: it goes, unless both are directories. */
static int clear_way(const struct ls_disk *disk, int folder, const struct ls_node *node, const char **call) {
    return disk->dialect == LS_DIALECT_MERGED ? ls_disk_remove(folder, node->name, call) : -EEXIST;
}

/* What a new file inherits from a parent with a default ACL is not the layer's. Other dialects have no such parent yet. */
static void drop_inherited(const struct ls_disk *disk, int fd) {
    if (disk->dialect == LS_DIALECT_MERGED) {
        fremovexattr(fd, "system.posix_acl_access");
        fremovexattr(fd, "system.posix_acl_default");
    }
}

int ls_disk_regular(const struct ls_disk *disk, int folder, const struct ls_node *node, bool exact_mode,
                    const char **call) {
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    mode_t mode = exact_mode ? node->mode & 0777 : 0600;
    int fd = openat(folder, node->name, flags, mode);
    if (fd < 0 && errno == EEXIST) {
        int rc = clear_way(disk, folder, node, call);
        if (rc) {
            *call = "openat";
            return rc;
        }
        fd = openat(folder, node->name, flags, mode);
    }
    if (fd < 0)
        return FAIL("openat");
    drop_inherited(disk, fd);
    return fd;
}

static int make_special(int folder, const struct ls_node *node, const char **call) {
    switch (node->type) {
    case LS_SYMLINK:
        return symlinkat(node->link, folder, node->name) ? FAIL("symlinkat") : 0;
    case LS_FIFO:
        return mknodat(folder, node->name, S_IFIFO | 0600, 0) ? FAIL("mknodat") : 0;
    default:
        return mknodat(folder, node->name, (node->type == LS_CHARACTER ? S_IFCHR : S_IFBLK) | 0600,
                       makedev(node->major, node->minor))
                   ? FAIL("mknodat")
                   : 0;
    }
}

int ls_disk_special(const struct ls_disk *disk, int folder, const struct ls_node *node, const char **call) {
    int rc = make_special(folder, node, call);
    if (rc == -EEXIST && !(rc = clear_way(disk, folder, node, call)))
        rc = make_special(folder, node, call);
    if (rc)
        return rc;
    if (!owner_is_right(disk, node) && fchownat(folder, node->name, node->uid, node->gid, AT_SYMLINK_NOFOLLOW))
        return FAIL("fchownat");
    if (node->type != LS_SYMLINK && fchmodat(folder, node->name, node->mode, 0))
        return FAIL("fchmodat");
    char path[320]; /* the calls for xattrs know no directory fd: the last name is not followed, the fd's link is */
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", folder, node->name);
    if (disk->dialect == LS_DIALECT_MERGED && node->type != LS_SYMLINK)
        lremovexattr(path, "system.posix_acl_access"); /* as drop_inherited */
    if ((rc = set_xattrs(disk, -1, path, node, call)))
        return rc;
    struct timespec times[2];
    times_of(node, times);
    return utimensat(folder, node->name, times, AT_SYMLINK_NOFOLLOW) ? FAIL("utimensat") : 0;
}

int ls_disk_directory(const struct ls_disk *disk, int folder, const struct ls_node *node, const char **call) {
    if (mkdirat(folder, node->name, 0700) == 0) {
        if (disk->dialect == LS_DIALECT_MERGED) {
            int fd = openat(folder, node->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (fd < 0)
                return FAIL("openat");
            drop_inherited(disk, fd);
            close(fd);
        }
        return 0;
    }
    if (errno != EEXIST || disk->dialect != LS_DIALECT_MERGED)
        return FAIL("mkdirat");
    struct stat facts;
    if (fstatat(folder, node->name, &facts, AT_SYMLINK_NOFOLLOW))
        return FAIL("fstatat");
    if (S_ISDIR(facts.st_mode))
        return 0;
    int rc = ls_disk_remove(folder, node->name, call);
    return rc ?: mkdirat(folder, node->name, 0700) ? FAIL("mkdirat") : 0;
}

int ls_disk_remove(int folder, const char *name, const char **call) {
    char path[NAME_MAX + 64], where[1];
    *call = "unlinkat";
    if (unlinkat(folder, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", folder, name);
    return ls_remove_tree(path, 1, where, sizeof where);
}

int ls_disk_remove_path(int tree, const char *path) {
    const char *slash = strrchr(path, '/'), *call;
    char *folder = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    int fd = folder ? ls_open_beneath(tree, folder, O_RDONLY | O_DIRECTORY, 0) : -ENOMEM;
    free(folder);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    struct stat facts;
    int rc = fstat(fd, &facts) ? -errno : ls_disk_remove(fd, slash ? slash + 1 : path, &call);
    struct timespec times[2] = {facts.st_atim, facts.st_mtim};
    if (!rc && futimens(fd, times))
        rc = -errno;
    close(fd);
    return rc;
}

/* --- marks -------------------------------------------------------------------------------------------------------- */

int ls_disk_whiteout(const struct ls_disk *disk, int folder, const char *name, const char **call) {
    if (disk->dialect == LS_DIALECT_OVERLAY)
        return mknodat(folder, name, S_IFCHR, makedev(0, 0)) ? FAIL("mknodat") : 0;
    if (disk->dialect == LS_DIALECT_MERGED)
        return ls_disk_remove(folder, name, call);
    char marker[NAME_MAX + 8];
    if (snprintf(marker, sizeof marker, ".wh.%s", name) > NAME_MAX)
        return *call = "mknodat", -ENAMETOOLONG;
    return mknodat(folder, marker, S_IFREG | 0444, 0) ? FAIL("mknodat") : 0;
}

int ls_disk_opaque(const struct ls_disk *disk, int fd, const char **call) {
    if (disk->dialect == LS_DIALECT_OVERLAY)
        return fsetxattr(fd, LS_OVERLAY_PREFIX "opaque", "y", 1, 0) ? FAIL("fsetxattr") : 0;
    if (disk->dialect == LS_DIALECT_AUFS)
        return mknodat(fd, ".wh..wh..opq", S_IFREG | 0444, 0) ? FAIL("mknodat") : 0;
    return 0;
}
