/* The system calls of unpacking. See disk.h. */
#define _GNU_SOURCE
#include "disk.h"
#include "unpack.h"
#include "../kernel/files/files.h"
#include "../kernel/files/marks.h"
#include "../kernel/files/remove.h"
#include "../kernel/files/scope.h"
#include "../kernel/files/within.h"
#include "xxh64.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

void ls_cursor_close(struct ls_cursor *cursor) {
    if (cursor->folder && cursor->fd >= 0)
        close(cursor->fd);
    cursor->folder = NULL;
    cursor->fd = -1;
}

/* One component at a time: for paths longer than the kernel takes, and kernels without openat2. */
static int open_stepwise(int root, char *path, struct ls_failure *failure) {
    LS_CLOSED int fd = fcntl(root, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return LS_FAIL(failure, "fcntl");
    for (char *part = path, *slash; part; part = slash ? slash + 1 : NULL) {
        if ((slash = strchr(part, '/')))
            *slash = 0;
        int next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0)
            return LS_FAIL(failure, "openat");
        close(fd);
        fd = next;
    }
    return ls_take_fd(&fd);
}

static int open_folder(const struct ls_disk *disk, const struct ls_node *folder, struct ls_failure *failure) {
    LS_BYTES_FREED struct ls_bytes path = {0};
    int rc = ls_node_path(folder, &path);
    if (rc)
        return ls_fail(failure, "malloc", rc);
    if (!path.length) {
        int fd = fcntl(disk->tree, F_DUPFD_CLOEXEC, 0);
        return fd < 0 ? LS_FAIL(failure, "fcntl") : fd;
    }
    int fd = path.length < PATH_MAX ? ls_open_beneath(disk->tree, (char *)path.data, O_RDONLY | O_DIRECTORY, 0)
                                    : -ENAMETOOLONG;
    if (fd == -ENAMETOOLONG || fd == -ENOSYS || fd == -EPERM)
        return open_stepwise(disk->tree, (char *)path.data, failure);
    return fd < 0 ? ls_fail(failure, "openat2", fd) : fd;
}

int ls_disk_folder(const struct ls_disk *disk, struct ls_cursor *cursor, const struct ls_node *folder,
                   unsigned generation, struct ls_failure *failure) {
    if (cursor->folder == folder && cursor->generation == generation)
        return cursor->fd;
    ls_cursor_close(cursor);
    int fd = open_folder(disk, folder, failure);
    if (fd >= 0)
        *cursor = (struct ls_cursor){folder, generation, fd};
    return fd;
}

/* --- data --------------------------------------------------------------------------------------------------------- */

ssize_t ls_disk_read(int fd, uint8_t *buffer, size_t length, int64_t position, struct ls_failure *failure) {
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(fd, buffer + done, length - done, position + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return LS_FAIL(failure, "pread");
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

int ls_disk_write(int fd, const uint8_t *data, size_t length, int64_t position, struct ls_failure *failure) {
    while (length) {
        ssize_t wrote = pwrite(fd, data, length, position);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return LS_FAIL(failure, "pwrite");
        data += wrote, position += wrote, length -= (size_t)wrote;
    }
    return 0;
}

void ls_write_back(int fd, int64_t position, int64_t *written_back) {
    enum { ENOUGH = 8 << 20 };
    if (position - *written_back < ENOUGH)
        return;
    sync_file_range(fd, *written_back, position - *written_back, SYNC_FILE_RANGE_WRITE);
    *written_back = position;
}

int ls_disk_close(int *fd, struct ls_failure *failure) {
    return close(ls_take_fd(fd)) ? LS_FAIL(failure, "close") : 0;
}

/* --- attributes --------------------------------------------------------------------------------------------------- */

/* `trusted.overlay.x` of a tar lies on disk as the kernel's own escape of it (overlayfs.rst, "Nested overlayfs
 * mounts"); within a user namespace that is `user.overlay.x`. */
static bool stored_name(const struct ls_disk *disk, const struct ls_xattr *xattr, char name[XATTR_NAME_MAX + 1]) {
    const char *prefix = ls_overlay_prefix();
    if (disk->dialect != LS_DIALECT_OVERLAY || !ls_begins(xattr->name, xattr->name_length, prefix))
        return ls_xattr_stored(xattr->name, xattr->name_length, name);
    size_t skipped = strlen(prefix);
    int length = snprintf(name, XATTR_NAME_MAX + 1, "%soverlay.%.*s", prefix, (int)(xattr->name_length - skipped),
                          xattr->name + skipped);
    return length >= 0 && length <= XATTR_NAME_MAX;
}

static int set_xattr(int fd, const char *path, const char *name, const struct ls_xattr *xattr) {
    return path ? lsetxattr(path, name, xattr->value, xattr->value_length, 0)
                : fsetxattr(fd, name, xattr->value, xattr->value_length, 0);
}

/* An ACL that names an owner whom nobody has here is kept under another name. */
static bool keep_acl(int fd, const char *path, const struct ls_xattr *xattr) {
    char name[XATTR_NAME_MAX + 1];
    if (errno != EINVAL || !ls_is_within() || !ls_begins(xattr->name, xattr->name_length, "system.posix_acl_"))
        return false;
    snprintf(name, sizeof name, LS_KEPT_PREFIX "%.*s", (int)xattr->name_length, xattr->name);
    return !set_xattr(fd, path, name, xattr);
}

static int set_xattrs(const struct ls_disk *disk, int fd, const char *path, const struct ls_node *node,
                      struct ls_failure *failure) {
    struct ls_reader reader = {node->xattrs, node->xattrs + node->xattrs_length, false};
    struct ls_xattr xattr;
    char name[XATTR_NAME_MAX + 1];
    while (node->xattrs_length && ls_xattr_next(&reader, &xattr)) {
        if (!stored_name(disk, &xattr, name))
            return ls_fail(failure, "setxattr", -ERANGE);
        if (set_xattr(fd, path, name, &xattr) && !keep_acl(fd, path, &xattr))
            return LS_FAIL(failure, "setxattr");
    }
    return 0;
}

static void times_of(const struct ls_node *node, struct timespec times[2]) {
    times[0] = times[1] = (struct timespec){.tv_sec = node->mtime, .tv_nsec = node->mtime_ns};
}

static bool owner_is_right(const struct ls_disk *disk, const struct ls_node *node) {
    return disk->plain_owner && !node->uid && !node->gid;
}

static int note(int fd, const struct ls_node *node, struct ls_failure *failure) {
    mode_t type = node->type == LS_DIRECTORY      ? S_IFDIR
                  : node->type == LS_CHARACTER    ? S_IFCHR
                  : node->type == LS_BLOCK_DEVICE ? S_IFBLK
                                                  : S_IFREG;
    struct stat facts = {.st_mode = type | node->mode, .st_uid = node->uid, .st_gid = node->gid};
    facts.st_rdev = makedev(node->major, node->minor);
    return ls_note_facts(fd, &facts, failure);
}

int ls_disk_settle(const struct ls_disk *disk, int fd, const struct ls_node *node, bool mode_is_set,
                   struct ls_failure *failure) {
    struct timespec times[2];
    bool noted = !ls_can_own(node->uid, node->gid);
    mode_t mode = noted ? node->mode & 01777 : node->mode; /* nobody runs it as the wrong owner */
    int rc = noted ? note(fd, node, failure) : 0;
    if (rc)
        return rc;
    if (!noted && !owner_is_right(disk, node) && fchown(fd, node->uid, node->gid))
        return LS_FAIL(failure, "fchown");
    /* chown clears the setuid bits, and setxattr of an access ACL writes the mode: the mode comes between the two */
    if ((!mode_is_set || mode & 07000) && fchmod(fd, mode))
        return LS_FAIL(failure, "fchmod");
    if ((rc = set_xattrs(disk, fd, NULL, node, failure)))
        return rc;
    times_of(node, times);
    return futimens(fd, times) ? LS_FAIL(failure, "futimens") : 0;
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

int ls_disk_clear_xattrs(int fd, struct ls_failure *failure) {
    LS_BYTES_FREED struct ls_bytes xattrs = {0};
    int rc = ls_xattrs_read(fd, LS_XATTRS_RAW, &xattrs, failure);
    struct ls_reader reader = {xattrs.data, xattrs.data + xattrs.length, false};
    struct ls_xattr xattr;
    char name[XATTR_NAME_MAX + 1];
    while (!rc && xattrs.length && ls_xattr_next(&reader, &xattr)) {
        snprintf(name, sizeof name, "%.*s", (int)xattr.name_length, xattr.name);
        if (fremovexattr(fd, name) && errno != ENODATA)
            rc = LS_FAIL(failure, "fremovexattr");
    }
    return rc;
}

/* After an xattr could not be removed: it was not there, or this filesystem has none of its kind. */
static bool had_none(void) {
    return errno == ENODATA || errno == EOPNOTSUPP;
}

unsigned ls_type_of(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG:
        return LS_REGULAR;
    case S_IFDIR:
        return LS_DIRECTORY;
    case S_IFLNK:
        return LS_SYMLINK;
    case S_IFCHR:
        return LS_CHARACTER;
    case S_IFBLK:
        return LS_BLOCK_DEVICE;
    case S_IFIFO:
        return LS_FIFO;
    default:
        return 0;
    }
}

int ls_disk_read_link(int fd, int64_t size, struct ls_node *node, struct ls_failure *failure) {
    LS_FREED char *link = malloc((size_t)size + 1);
    if (!link)
        return ls_fail(failure, "malloc", -ENOMEM);
    ssize_t got = readlinkat(fd, "", link, (size_t)size);
    if (got < 0)
        return LS_FAIL(failure, "readlinkat");
    link[got] = 0;
    free(node->link);
    node->link = LS_TAKE(link);
    node->link_length = (uint32_t)got;
    return 0;
}

int ls_disk_learn(int fd, struct ls_node *node, struct ls_failure *failure) {
    struct stat facts;
    LS_BYTES_FREED struct ls_bytes xattrs = {0};
    int rc = ls_facts(fd, &facts, failure) ?: ls_xattrs_read(fd, LS_XATTRS_PLAIN, &xattrs, failure);
    if (rc)
        return rc;
    node->attributes = ls_xattrs_hash(xattrs.data, xattrs.length);
    node->xattrs_length = (uint32_t)xattrs.length;
    free(node->xattrs);
    node->xattrs = LS_TAKE(xattrs.data);
    node->mode = facts.st_mode & 07777;
    node->uid = facts.st_uid, node->gid = facts.st_gid;
    node->major = major(facts.st_rdev), node->minor = minor(facts.st_rdev);
    node->mtime = facts.st_mtim.tv_sec, node->mtime_ns = (uint32_t)facts.st_mtim.tv_nsec;
    return 0;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

/* Only in a merged tree can a parent have a default ACL by then: the others settle their directories last. */
static int drop_inherited(const struct ls_disk *disk, int fd, struct ls_failure *failure) {
    return disk->dialect == LS_DIALECT_MERGED ? ls_acls_drop(fd, failure) : 0;
}

/* After a name could not be made: one of the layers below stands in its way, which happens in a merged tree alone. */
static bool may_replace(const struct ls_disk *disk) {
    return errno == EEXIST && disk->dialect == LS_DIALECT_MERGED;
}

int ls_disk_regular(const struct ls_disk *disk, int folder, const struct ls_node *node, bool exact_mode,
                    struct ls_failure *failure) {
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    mode_t mode = exact_mode ? node->mode & 0777 : 0600;
    LS_CLOSED int fd = openat(folder, node->name, flags, mode);
    if (fd < 0 && may_replace(disk)) {
        int rc = ls_disk_remove(folder, node->name, failure);
        if (rc)
            return rc;
        fd = openat(folder, node->name, flags, mode);
    }
    if (fd < 0)
        return LS_FAIL(failure, "openat");
    int rc = drop_inherited(disk, fd, failure);
    return rc ? rc : ls_take_fd(&fd);
}

static int make_special(int folder, const struct ls_node *node, struct ls_failure *failure) {
    switch (node->type) {
    case LS_SYMLINK:
        return symlinkat(node->link, folder, node->name) ? LS_FAIL(failure, "symlinkat") : 0;
    case LS_FIFO:
        return mknodat(folder, node->name, S_IFIFO | 0600, 0) ? LS_FAIL(failure, "mknodat") : 0;
    default:
        return mknodat(folder, node->name, (node->type == LS_CHARACTER ? S_IFCHR : S_IFBLK) | 0600,
                       makedev(node->major, node->minor))
                   ? LS_FAIL(failure, "mknodat")
                   : 0;
    }
}

/* Within a user namespace nobody makes devices: a file that nobody else can write stands there for one. */
static int stand_in(const struct ls_disk *disk, int folder, const struct ls_node *node, struct ls_failure *failure) {
    LS_CLOSED int fd = ls_disk_regular(disk, folder, node, false, failure);
    int rc = fd < 0 ? fd : note(fd, node, failure) ?: set_xattrs(disk, fd, NULL, node, failure);
    if (rc)
        return rc;
    struct timespec times[2];
    times_of(node, times);
    return fchmod(fd, 0600) ? LS_FAIL(failure, "fchmod") : futimens(fd, times) ? LS_FAIL(failure, "futimens") : 0;
}

int ls_disk_special(const struct ls_disk *disk, int folder, const struct ls_node *node, struct ls_failure *failure) {
    bool device = node->type == LS_CHARACTER || node->type == LS_BLOCK_DEVICE;
    if (device && ls_is_within())
        return stand_in(disk, folder, node, failure);
    int rc = make_special(folder, node, failure);
    if (rc && may_replace(disk) && !(rc = ls_disk_remove(folder, node->name, failure)))
        rc = make_special(folder, node, failure);
    if (rc)
        return rc;
    bool can_own = ls_can_own(node->uid, node->gid); /* else the export knows: nothing on disk can say it */
    if (can_own && !owner_is_right(disk, node) &&
        fchownat(folder, node->name, node->uid, node->gid, AT_SYMLINK_NOFOLLOW))
        return LS_FAIL(failure, "fchownat");
    if (node->type != LS_SYMLINK && fchmodat(folder, node->name, node->mode, 0))
        return LS_FAIL(failure, "fchmodat");
    char path[320]; /* the calls for xattrs know no directory fd: the last name is not followed, the fd's link is */
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", folder, node->name);
    bool may_inherit = disk->dialect == LS_DIALECT_MERGED && node->type != LS_SYMLINK;
    if (may_inherit && lremovexattr(path, "system.posix_acl_access") && !had_none())
        return LS_FAIL(failure, "lremovexattr");
    if (!ls_is_within() && (rc = set_xattrs(disk, -1, path, node, failure)))
        return rc;
    struct timespec times[2];
    times_of(node, times);
    return utimensat(folder, node->name, times, AT_SYMLINK_NOFOLLOW) ? LS_FAIL(failure, "utimensat") : 0;
}

static int make_directory(const struct ls_disk *disk, int folder, const char *name, struct ls_failure *failure) {
    if (mkdirat(folder, name, 0700))
        return LS_FAIL(failure, "mkdirat");
    if (disk->dialect != LS_DIALECT_MERGED)
        return 0;
    LS_CLOSED int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? LS_FAIL(failure, "openat") : drop_inherited(disk, fd, failure);
}

int ls_disk_directory(const struct ls_disk *disk, int folder, const struct ls_node *node, struct ls_failure *failure) {
    int rc = make_directory(disk, folder, node->name, failure);
    if (rc != -EEXIST || disk->dialect != LS_DIALECT_MERGED)
        return rc;
    struct stat facts;
    if (fstatat(folder, node->name, &facts, AT_SYMLINK_NOFOLLOW))
        return LS_FAIL(failure, "fstatat");
    if (S_ISDIR(facts.st_mode))
        return 0;
    rc = ls_disk_remove(folder, node->name, failure);
    return rc ? rc : make_directory(disk, folder, node->name, failure);
}

int ls_disk_remove(int folder, const char *name, struct ls_failure *failure) {
    char path[NAME_MAX + 64];
    struct ls_failure inner; /* whose place is one within what is removed */
    if (unlinkat(folder, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return LS_FAIL(failure, "unlinkat");
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", folder, name);
    int rc = ls_remove_tree(path, 1, &inner);
    return rc ? ls_fail(failure, inner.what, rc) : 0;
}

int ls_disk_remove_path(int tree, const char *path, struct ls_failure *failure) {
    const char *slash = strrchr(path, '/');
    LS_FREED char *folder = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    if (!folder)
        return ls_fail(failure, "malloc", -ENOMEM);
    LS_CLOSED int fd = ls_open_beneath(tree, folder, O_RDONLY | O_DIRECTORY, 0);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return ls_fail(failure, "openat2", fd);
    struct stat facts;
    if (fstat(fd, &facts))
        return LS_FAIL(failure, "fstat");
    int rc = ls_disk_remove(fd, slash ? slash + 1 : path, failure);
    if (rc)
        return rc;
    struct timespec times[2] = {facts.st_atim, facts.st_mtim};
    return futimens(fd, times) ? LS_FAIL(failure, "futimens") : 0;
}

/* --- marks -------------------------------------------------------------------------------------------------------- */

int ls_disk_whiteout(const struct ls_disk *disk, int folder, const char *name, struct ls_failure *failure) {
    char marker[NAME_MAX + 1];
    if (disk->dialect == LS_DIALECT_OVERLAY)
        return mknodat(folder, name, S_IFCHR, makedev(0, 0)) ? LS_FAIL(failure, "mknodat") : 0;
    if (disk->dialect == LS_DIALECT_MERGED)
        return ls_disk_remove(folder, name, failure);
    int rc = ls_whiteout_of(name, marker);
    if (rc)
        return ls_fail(failure, "mknodat", rc);
    return mknodat(folder, marker, S_IFREG | 0444, 0) ? LS_FAIL(failure, "mknodat") : 0;
}

int ls_disk_opaque(const struct ls_disk *disk, int fd, struct ls_failure *failure) {
    if (disk->dialect == LS_DIALECT_OVERLAY)
        return fsetxattr(fd, ls_overlay_xattr(LS_XATTR_OPAQUE), "y", 1, 0) ? LS_FAIL(failure, "fsetxattr") : 0;
    if (disk->dialect == LS_DIALECT_AUFS)
        return mknodat(fd, LS_OPAQUE_NAME, S_IFREG | 0444, 0) ? LS_FAIL(failure, "mknodat") : 0;
    return 0;
}
