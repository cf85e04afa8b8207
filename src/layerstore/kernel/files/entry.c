/* See entry.h. The order is: data, owner, mode, xattrs, times. A change of owner clears setuid bits and capabilities, and
 * writing clears the latter. */
#define _GNU_SOURCE
#include "entry.h"
#include "files.h"
#include "scope.h"
#include "xattrs.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

static int set_xattrs(int from, const char *link, struct ls_failure *failure) {
    LS_BYTES_FREED struct ls_bytes xattrs = {0};
    char name[XATTR_NAME_MAX + 1];
    int rc = ls_xattrs_read(from, LS_XATTRS_RAW, &xattrs, failure);
    struct ls_reader reader = {xattrs.data, xattrs.data + xattrs.length, false};
    struct ls_xattr xattr;
    while (!rc && xattrs.length && ls_xattr_next(&reader, &xattr)) {
        if (xattr.name_length >= sizeof name)
            return ls_fail(failure, "setxattr", -ERANGE);
        memcpy(name, xattr.name, xattr.name_length);
        name[xattr.name_length] = 0;
        rc = setxattr(link, name, xattr.value, xattr.value_length, 0) ? LS_FAIL(failure, "setxattr") : 0;
    }
    return rc;
}

int ls_entry_settle(int from, int to, const struct stat *facts, struct ls_failure *failure) {
    char link[64];
    struct timespec times[2] = {facts->st_atim, facts->st_mtim};
    /* Serves symlinks and devices, too, which cannot be opened to write. */
    snprintf(link, sizeof link, "/proc/self/fd/%d", to);
    if (fchownat(to, "", facts->st_uid, facts->st_gid, AT_EMPTY_PATH))
        return LS_FAIL(failure, "fchownat");
    if (!S_ISLNK(facts->st_mode) && chmod(link, facts->st_mode & 07777))
        return LS_FAIL(failure, "chmod");
    int rc = set_xattrs(from, link, failure);
    return rc ? rc : utimensat(AT_FDCWD, link, times, 0) ? LS_FAIL(failure, "utimensat") : 0;
}

static int copy_file(int from, int folder, const char *name, struct ls_failure *failure) {
    LS_CLOSED int data = ls_open_again(from, O_RDONLY);
    if (data < 0)
        return ls_fail(failure, "open", data);
    LS_CLOSED int to = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        return LS_FAIL(failure, "openat");
    int64_t copied = ls_copy_data(data, to);
    return copied < 0 ? ls_fail(failure, "copy_file_range", (int)copied) : 0;
}

static int copy_symlink(int from, int folder, const char *name, struct ls_failure *failure) {
    char target[PATH_MAX];
    ssize_t length = readlinkat(from, "", target, sizeof target - 1);
    if (length < 0)
        return LS_FAIL(failure, "readlinkat");
    target[length] = 0;
    return symlinkat(target, folder, name) ? LS_FAIL(failure, "symlinkat") : 0;
}

int ls_entry_copy(int from, int folder, const char *name, const struct stat *facts, struct ls_failure *failure) {
    int rc;
    if (S_ISDIR(facts->st_mode))
        return mkdirat(folder, name, 0700) ? LS_FAIL(failure, "mkdirat") : 0;
    if (S_ISREG(facts->st_mode))
        rc = copy_file(from, folder, name, failure);
    else if (S_ISLNK(facts->st_mode))
        rc = copy_symlink(from, folder, name, failure);
    else
        rc = mknodat(folder, name, (facts->st_mode & S_IFMT) | 0600, facts->st_rdev) ? LS_FAIL(failure, "mknodat") : 0;
    if (rc)
        return rc;
    LS_CLOSED int to = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return to < 0 ? LS_FAIL(failure, "openat") : ls_entry_settle(from, to, facts, failure);
}
