/* See files.h. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "files.h"
#include "scope.h"

enum { BLOCK = 256 * 1024, SHARED_AT_ONCE = 16 * 1024 * 1024 }; /* btrfs compares no more in one call */

/* Where a path must not lead out, the kernel gives up with EAGAIN when somebody renames or mounts anything meanwhile. */
int ls_open_how(int folder, const char *path, uint64_t flags, unsigned int mode, uint64_t resolve) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    int fd, tries = 1000;
    do
        fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
    while (fd < 0 && (errno == EAGAIN || errno == EINTR) && --tries > 0);
    return fd < 0 ? -errno : fd;
}

int ls_open_in_root(int root, const char *path, int flags, unsigned int mode) {
    return ls_open_how(root, path, (unsigned int)flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

int ls_open_beneath(int root, const char *path, int flags, unsigned int mode) {
    return ls_open_how(root, path, (unsigned int)flags, mode,
                       RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
}

int ls_is_absent(int code) {
    return code == -ENOENT || code == -ENOTDIR || code == -ELOOP;
}

int ls_open_again(int handle, int flags) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    int fd = open(link, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int ls_sync_filesystem(int fd) {
    return syncfs(fd) < 0 ? -errno : 0;
}

int64_t ls_filesystem_magic(int fd) {
    struct statfs facts;
    if (fstatfs(fd, &facts) < 0)
        return -errno;
    return (int64_t)(uint32_t)facts.f_type;
}

int ls_write_in_place(int fd) {
    int flags;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
        return -errno;
    flags |= FS_NOCOW_FL;
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0 ? -errno : 0;
}

int ls_clone_file(int from, int to) {
    int rc;
    do
        rc = ioctl(to, FICLONE, from);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

int64_t ls_share_range(int from, int64_t from_at, int to, int64_t to_at, int64_t length) {
    _Alignas(
        struct file_dedupe_range) char room[sizeof(struct file_dedupe_range) + sizeof(struct file_dedupe_range_info)];
    struct file_dedupe_range *range = (struct file_dedupe_range *)room;
    int64_t at = 0;
    while (at < length) {
        memset(room, 0, sizeof room);
        range->src_offset = (uint64_t)(from_at + at);
        range->src_length = (uint64_t)(length - at < SHARED_AT_ONCE ? length - at : SHARED_AT_ONCE);
        range->dest_count = 1;
        range->info[0].dest_fd = to;
        range->info[0].dest_offset = (uint64_t)(to_at + at);
        if (ioctl(from, FIDEDUPERANGE, range) < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (range->info[0].status < 0)
            return range->info[0].status;
        if (range->info[0].status == FILE_DEDUPE_RANGE_DIFFERS || range->info[0].bytes_deduped == 0)
            break;
        at += (int64_t)range->info[0].bytes_deduped;
    }
    return at;
}

int64_t ls_share_data(int from, int to) {
    struct stat facts;
    return fstat(from, &facts) < 0 ? -errno : ls_share_range(from, 0, to, 0, facts.st_size);
}

static int64_t copy_by_hand(int from, int to, off_t at, off_t end) {
    LS_FREED char *block = malloc(end - at < BLOCK ? (size_t)(end - at) : BLOCK);
    if (!block)
        return -ENOMEM;
    int64_t failure = 0;
    while (at < end && failure == 0) {
        ssize_t got = pread(from, block, end - at < BLOCK ? (size_t)(end - at) : BLOCK, at);
        if (got == 0)
            break;
        if (got < 0)
            failure = errno == EINTR ? 0 : -errno;
        for (ssize_t put = 0; put < got && failure == 0;) {
            ssize_t part = pwrite(to, block + put, (size_t)(got - put), at);
            if (part < 0) {
                failure = errno == EINTR ? 0 : -errno;
            } else {
                put += part;
                at += part;
            }
        }
    }
    return failure;
}

/* Data from `at` to `end`. Stops early, without an error, where the file has become shorter. */
static int64_t copy_span(int from, int to, off_t at, off_t end) {
    while (at < end) {
        loff_t in = at, out = at;
        ssize_t part = copy_file_range(from, &in, to, &out, (size_t)(end - at), 0);
        if (part == 0)
            return 0;
        if (part > 0) {
            at += part;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)
            return copy_by_hand(from, to, at, end);
        return -errno;
    }
    return 0;
}

int64_t ls_copy_extents(int from, int to, int64_t size, int dense, int by_hand) {
    for (off_t at = 0; at < size;) {
        off_t end = size;
        if (!dense) {
            off_t data = lseek(from, at, SEEK_DATA);
            if (data < 0 && errno == ENXIO)
                break;
            if (data >= 0)
                at = data;
            off_t hole = data < 0 ? -1 : lseek(from, at, SEEK_HOLE);
            if (hole > at && hole < end)
                end = hole;
            if (at >= end)
                break;
        }
        int64_t failure = by_hand ? copy_by_hand(from, to, at, end) : copy_span(from, to, at, end);
        if (failure < 0)
            return failure;
        at = end;
    }
    return !dense && ftruncate(to, size) < 0 ? -errno : 0;
}

int64_t ls_copy_data(int from, int to) {
    struct stat facts;
    if (fstat(from, &facts) < 0)
        return -errno;
    int64_t failure = ls_clone_file(from, to) == 0 ? 0 : ls_copy_extents(from, to, facts.st_size, 0, 0);
    return failure < 0 ? failure : facts.st_size;
}
