/* What was changed after a moment is made to look as if that had been then: for layers that are the same whenever they are
 * made. */
#define _GNU_SOURCE
#include "changes.h"
#include "../kernel/files/files.h"
#include "../kernel/files/scope.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* 1: it was later. */
static int clamp(int tree, const char *path, const struct timespec *latest, struct ls_failure *failure) {
    struct stat facts;
    char link[64];
    LS_CLOSED int fd = ls_open_beneath(tree, *path ? path : ".", O_PATH | O_NOFOLLOW, 0);
    if (fd < 0)
        return ls_fail(failure, "openat2", fd);
    if (fstat(fd, &facts))
        return LS_FAIL(failure, "fstat");
    const struct timespec *then = &facts.st_mtim;
    if (then->tv_sec < latest->tv_sec || (then->tv_sec == latest->tv_sec && then->tv_nsec <= latest->tv_nsec))
        return 0;
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, *latest};
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd); /* serves symlinks and devices, too */
    return utimensat(AT_FDCWD, link, times, 0) ? LS_FAIL(failure, "utimensat") : 1;
}

int ls_changes_clamp(const uint8_t *list, size_t length, int tree, int64_t seconds, uint32_t nanoseconds,
                     struct ls_failure *failure) {
    const struct timespec latest = {seconds, nanoseconds};
    const char *path = "";
    int rc = length ? clamp(tree, "", &latest, failure) : 0;
    bool altered = rc > 0;
    for (size_t at = 0; rc >= 0 && at < length; at += strlen(path) + 2) {
        path = (const char *)list + at + 1;
        rc = list[at] == 'D' ? 0 : clamp(tree, path, &latest, failure);
        altered |= rc > 0;
    }
    return rc < 0 ? ls_fail_at(failure, path) : altered;
}
