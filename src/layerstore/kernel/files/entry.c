/* See entry.h. The order is: data, owner, mode, xattrs, times. A change of owner clears setuid bits and capabilities, and
 * writing clears the latter. */
#define _GNU_SOURCE
#include "xattrs.h" /* before those that cffi reads, which include nothing */
#include "files.h"
#include "entry.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FAIL(name) (*call = (name), -errno)

static int set_xattrs(int from, const char *link, const char **call) {
    struct ls_bytes xattrs = {0};
    char name[XATTR_NAME_MAX + 1];
    int rc = ls_xattrs_read(from, false, &xattrs, call);
    struct ls_reader reader = {xattrs.data, xattrs.data + xattrs.length, false};
    struct ls_xattr xattr;
    while (!rc && xattrs.length && ls_xattr_next(&reader, &xattr)) {
        if (xattr.name_length >= sizeof name)
            rc = (*call = "setxattr", -ERANGE);
        else {
            memcpy(name, xattr.name, xattr.name_length);
            name[xattr.name_length] = 0;
            rc = setxattr(link, name, xattr.value, xattr.value_length, 0) ? FAIL("setxattr") : 0;
        }
    }
    ls_bytes_free(&xattrs);
    return rc;
}

int ls_entry_settle(int from, int to, const struct stat *facts, const char **call) {
    char link[64];
    struct timespec times[2] = {facts->st_atim, facts->st_mtim};
    snprintf(link, sizeof link, "/proc/self/fd/%d",
             to); /* serves symlinks and devices, which cannot be opened to write */
    if (fchownat(to, "", facts->st_uid, facts->st_gid, AT_EMPTY_PATH))
        return FAIL("fchownat");
    if (!S_ISLNK(facts->st_mode) && chmod(link, facts->st_mode & 07777))
        return FAIL("chmod");
    int rc = set_xattrs(from, link, call);
    return rc ? rc : utimensat(AT_FDCWD, link, times, 0) ? FAIL("utimensat") : 0;
}

static int copy_file(int from, int folder, const char *name, const char **call) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", from);
    int data = open(link, O_RDONLY | O_CLOEXEC), rc = 0;
    if (data < 0)
        return FAIL("open");
    int to = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        rc = FAIL("openat");
    else {
        int64_t copied = ls_copy_data(data, to);
        if (copied < 0)
            rc = (*call = "copy_file_range", (int)copied);
        close(to);
    }
    close(data);
    return rc;
}

static int copy_symlink(int from, int folder, const char *name, const char **call) {
    char target[PATH_MAX];
    ssize_t length = readlinkat(from, "", target, sizeof target - 1);
    if (length < 0)
        return FAIL("readlinkat");
    target[length] = 0;
    return symlinkat(target, folder, name) ? FAIL("symlinkat") : 0;
}

int ls_entry_copy(int from, int folder, const char *name, const struct stat *facts, const char **call) {
    int rc;
    if (S_ISDIR(facts->st_mode))
        return mkdirat(folder, name, 0700) ? FAIL("mkdirat") : 0;
    if (S_ISREG(facts->st_mode))
        rc = copy_file(from, folder, name, call);
    else if (S_ISLNK(facts->st_mode))
        rc = copy_symlink(from, folder, name, call);
    else
        rc = mknodat(folder, name, (facts->st_mode & S_IFMT) | 0600, facts->st_rdev) ? FAIL("mknodat") : 0;
    if (rc)
        return rc;
    int to = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (to < 0)
        return FAIL("openat");
    rc = ls_entry_settle(from, to, facts, call);
    close(to);
    return rc;
}
