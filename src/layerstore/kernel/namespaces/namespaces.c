/* See namespaces.h. */
#define _GNU_SOURCE
#include "namespaces.h"
#include "../files/scope.h"
#include "../files/within.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int ls_new_namespaces(void) {
    ls_within_forget();
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) ? -errno : 0;
}

int ls_enter_namespaces(int user, int mounts) {
    int rc = setns(user, CLONE_NEWUSER) || setns(mounts, CLONE_NEWNS) ? -errno : 0;
    ls_within_forget();
    return rc;
}

static int write_map(pid_t child, const char *file, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)child, file);
    LS_CLOSED int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int ls_namespace_of(const char *uids, const char *gids) {
    char path[64];
    pid_t parent = getpid();
    /* As fork(2), but for handlers of the C library and of Python, of which this child needs none. */
    pid_t child = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0);
    if (child < 0)
        return -errno;
    if (child == 0) {
        /* It has all that its parent has open, locks among it, and must not have them longer. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (getppid() == parent)
            pause();
        _exit(0);
    }
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)child);
    int rc = write_map(child, "uid_map", uids) ?: write_map(child, "gid_map", gids);
    int fd = rc ? rc : open(path, O_RDONLY | O_CLOEXEC);
    if (!rc && fd < 0)
        fd = -errno;
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    return fd;
}

int ls_within(void) {
    return ls_is_within();
}
