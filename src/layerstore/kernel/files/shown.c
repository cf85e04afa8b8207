/* See shown.h. The kernel's rules for overlay's marks: filesystems/overlayfs.rst, "whiteouts and opaque directories". */
#define _GNU_SOURCE
#include "shown.h"
#include "bytes.h"
#include "within.h"
#include "xattrs.h"

#include <stdio.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* By this way round, O_PATH descriptors serve too. */
static ssize_t mark(int fd, enum ls_overlay_xattr which, void *value, size_t room) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = getxattr(link, ls_overlay_xattr(which), value, room);
    return size < 0 ? -errno : size;
}

static bool is_none(ssize_t size) {
    return size == -ENODATA || size == -EOPNOTSUPP;
}

static int find_marks(int fd, const struct stat *facts, struct ls_shown *shown, struct ls_failure *failure) {
    char value = 0;
    ssize_t size = -ENODATA;
    if (S_ISCHR(facts->st_mode) && facts->st_rdev == 0) {
        shown->marks = LS_SHOWN_WHITEOUT;
    } else if (S_ISDIR(facts->st_mode)) {
        size = mark(fd, LS_XATTR_OPAQUE, &value, 1);
        if (size == 1)
            shown->marks = value == 'y' ? LS_SHOWN_OPAQUE : value == 'x' ? LS_SHOWN_WHITEOUTS : 0;
    } else if (S_ISREG(facts->st_mode)) {
        size = mark(fd, LS_XATTR_METACOPY, NULL, 0);
        if (size >= 0)
            shown->marks = LS_SHOWN_METACOPY;
        else if (!facts->st_size && is_none(size) && (size = mark(fd, LS_XATTR_WHITEOUT, NULL, 0)) >= 0)
            shown->marks = LS_SHOWN_WHITEOUT;
    }
    return size < 0 && size != -ERANGE && !is_none(size) ? ls_fail(failure, "getxattr", (int)size) : 0;
}

int ls_shown_facts(int fd, int overlay, struct ls_shown *shown, struct ls_failure *failure) {
    struct stat facts;
    *shown = (struct ls_shown){0};
    if (fstat(fd, &facts))
        return LS_FAIL(failure, "fstat");
    int rc = (overlay ? find_marks(fd, &facts, shown, failure) : 0) ?: ls_read_note(fd, NULL, &facts, failure);
    shown->inode = facts.st_ino;
    shown->size = facts.st_size;
    shown->mtime = facts.st_mtim.tv_sec, shown->mtime_ns = (uint32_t)facts.st_mtim.tv_nsec;
    shown->mode = facts.st_mode, shown->uid = facts.st_uid, shown->gid = facts.st_gid;
    shown->major = major(facts.st_rdev), shown->minor = minor(facts.st_rdev);
    return rc;
}

int64_t ls_shown_redirect(int fd, uint8_t *text, size_t room) {
    return mark(fd, LS_XATTR_REDIRECT, text, room);
}

int64_t ls_shown_xattrs(int fd, int overlay, uint8_t *text, size_t room, struct ls_failure *failure) {
    LS_BYTES_FREED struct ls_bytes xattrs = {0};
    int rc = ls_xattrs_read(fd, overlay ? LS_XATTRS_OVERLAY : LS_XATTRS_PLAIN, &xattrs, failure);
    if (rc)
        return rc;
    if (xattrs.length)
        memcpy(text, xattrs.data, xattrs.length < room ? xattrs.length : room);
    return (int64_t)xattrs.length;
}
