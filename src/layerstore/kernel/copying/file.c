/* See copying.h. One name that is no folder: its bytes, and the attributes that folders have too. */

#define _GNU_SOURCE
#include "internal.h"
#include "../files/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *way_to(const struct end *end, char path[NAME_MAX + 40]) {
    snprintf(path, NAME_MAX + 40, "/proc/self/fd/%d/%s", end->folder, end->name);
    return path;
}

static ssize_t list_xattrs(const struct end *end, const char *path, char *names) {
    ssize_t length =
        end->fd >= 0 ? flistxattr(end->fd, names, XATTR_LIST_MAX) : llistxattr(path, names, XATTR_LIST_MAX);
    return length < 0 && errno == EOPNOTSUPP ? 0 : length;
}

static int copy_xattrs(struct worker *worker, const struct end *from, const struct end *to, const char **call) {
    char source[NAME_MAX + 40], target[NAME_MAX + 40];
    if (from->fd < 0) {
        way_to(from, source);
        way_to(to, target);
    }
    *call = "listxattr";
    ssize_t length = list_xattrs(from, source, worker->names);
    if (length < 0)
        return -errno;
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(worker->names + at) + 1) {
        const char *name = worker->names + at;
        if (!ls_xattr_travels(name))
            continue;
        *call = "getxattr";
        ssize_t size = from->fd >= 0 ? fgetxattr(from->fd, name, worker->value, XATTR_SIZE_MAX)
                                     : lgetxattr(source, name, worker->value, XATTR_SIZE_MAX);
        if (size < 0 && errno == ENODATA)
            continue;
        if (size < 0)
            return -errno;
        *call = "setxattr";
        int rc = to->fd >= 0 ? fsetxattr(to->fd, name, worker->value, (size_t)size, 0)
                             : lsetxattr(target, name, worker->value, (size_t)size, 0);
        if (rc < 0)
            return -errno;
    }
    return 0;
}

static int stat_end(const struct end *end, struct stat *facts) {
    int rc = end->fd >= 0 ? fstat(end->fd, facts) : fstatat(end->folder, end->name, facts, AT_SYMLINK_NOFOLLOW);
    return rc < 0 ? -errno : 0;
}

/* In this order: a new owner clears setuid and capabilities. */
int ls_copying_attributes(struct worker *worker, const struct end *from, const struct end *to, const struct stat *facts,
                          struct stat *made, const char **call) {
    struct job *job = worker->job;
    mode_t mode = facts->st_mode & 07777;
    int owner = facts->st_uid != job->uid || facts->st_gid != job->gid;
    int chmod = S_ISDIR(facts->st_mode) || !worker->exact_modes || mode & 07000;
    for (int tries = 0;; tries++) {
        *call = "fchown";
        if (owner && fchownat(to->fd >= 0 ? to->fd : to->folder, to->fd >= 0 ? "" : to->name, facts->st_uid,
                              facts->st_gid, to->fd >= 0 ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW) < 0)
            return -errno;
        *call = "fchmod";
        if (chmod && !S_ISLNK(facts->st_mode) &&
            (to->fd >= 0 ? fchmod(to->fd, mode) : fchmodat(to->folder, to->name, mode, 0)) < 0)
            return -errno;
        int rc = copy_xattrs(worker, from, to, call);
        if (rc < 0)
            return rc;
        *call = "utimensat";
        struct timespec times[2] = {facts->st_atim, facts->st_mtim};
        if ((to->fd >= 0 ? futimens(to->fd, times) : utimensat(to->folder, to->name, times, AT_SYMLINK_NOFOLLOW)) < 0)
            return -errno;
        *call = "fstat";
        rc = stat_end(to, made);
        if (rc < 0)
            return rc;
        int differs = made->st_mode != facts->st_mode || made->st_uid != facts->st_uid || made->st_gid != facts->st_gid;
        if (!differs || tries > 0 || S_ISLNK(facts->st_mode))
            return 0;
        owner = chmod = 1; /* the filesystem gives new files another group, or a mode of its own */
    }
}

static int64_t copy_content(struct worker *worker, int from, int to, const struct stat *facts, const char **call) {
    struct job *job = worker->job;
    if (facts->st_size == 0)
        return 0;
    if (!job->unshared && !__atomic_load_n(&job->cannot_share, __ATOMIC_RELAXED)) {
        int rc = ls_clone_file(from, to);
        if (rc == 0) {
            worker->reflinked = 1;
            return 0;
        }
        *call = "ioctl(FICLONE)";
        if (rc == -EOPNOTSUPP || rc == -EXDEV || rc == -ENOTTY || rc == -ENOSYS)
            __atomic_store_n(&job->cannot_share, 1, __ATOMIC_RELAXED);
        else if (rc != -EINVAL &&
                 rc != -ETXTBSY) /* one file that cannot, as without copy-on-write on btrfs, or a swapfile */
            return rc;
    }
    *call = "copy_file_range";
    int dense = facts->st_blocks >= (facts->st_size + 511) / 512;
    return ls_copy_extents(from, to, facts->st_size, dense, job->unshared);
}

static int fill(struct worker *worker, int source, const int fds[2], const char *name, const struct stat *facts,
                struct stat *made, const char **call) {
    *call = "openat";
    int target = openat(fds[TARGET], name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, facts->st_mode & 0777);
    if (target < 0)
        return -errno;
    int rc = (int)copy_content(worker, source, target, facts, call);
    struct end from = {.fd = source}, to = {.fd = target};
    if (rc == 0)
        rc = ls_copying_attributes(worker, &from, &to, facts, made, call);
    close(target);
    return rc;
}

/* What is no regular file and no folder. 1: it has vanished. */
static int make_special(struct worker *worker, const int fds[2], const char *name, const struct stat *facts,
                        struct stat *made, const char **call) {
    char target[PATH_MAX + 1];
    if (S_ISLNK(facts->st_mode)) {
        *call = "readlinkat";
        ssize_t length = readlinkat(fds[SOURCE], name, target, PATH_MAX);
        if (length < 0)
            return errno == ENOENT ? 1 : -errno;
        target[length] = 0;
    }
    *call = S_ISLNK(facts->st_mode) ? "symlinkat" : "mknodat";
    int rc = S_ISLNK(facts->st_mode) ? symlinkat(target, fds[TARGET], name)
                                     : mknodat(fds[TARGET], name, facts->st_mode, facts->st_rdev);
    if (rc < 0)
        return -errno;
    struct end from = {.fd = -1, .folder = fds[SOURCE], .name = name},
               to = {.fd = -1, .folder = fds[TARGET], .name = name};
    return ls_copying_attributes(worker, &from, &to, facts, made, call);
}

/* Opens a regular file; of all else there are only the facts. -EISDIR: it is a folder. */
static int look(int folder, const char *name, int type, int *source, struct stat *facts) {
    *source = type == DT_REG ? ls_copying_open(folder, name, O_RDONLY | O_NONBLOCK, SOURCE) : -ELOOP;
    if (*source < 0 && *source != -ELOOP)
        return *source;
    if ((*source >= 0 ? fstat(*source, facts) : fstatat(folder, name, facts, AT_SYMLINK_NOFOLLOW)) < 0)
        return -errno;
    if (S_ISDIR(facts->st_mode))
        return -EISDIR;
    if (*source >= 0 || !S_ISREG(facts->st_mode))
        return 0;
    *source = ls_copying_open(folder, name, O_RDONLY | O_NONBLOCK, SOURCE);
    if (*source < 0)
        return *source;
    if (fstat(*source, facts) < 0)
        return -errno;
    return S_ISREG(facts->st_mode) ? 0 : -EBUSY;
}

static int copy(struct worker *worker, const struct folder *folder, const int fds[2], const char *name, int source,
                const struct stat *facts) {
    struct job *job = worker->job;
    struct link *link = NULL;
    struct stat made;
    const char *call = "";
    if (facts->st_nlink > 1) {
        int rc = ls_copying_claim(job, folder, name, facts, &link);
        if (rc <= 0)
            return rc < 0 ? ls_copying_fail(job, folder, name, "linkat", rc)
                          : ls_copying_link(worker, folder, fds, name, link);
    }
    int rc = S_ISREG(facts->st_mode) ? fill(worker, source, fds, name, facts, &made, &call)
                                     : make_special(worker, fds, name, facts, &made, &call);
    if (link != NULL)
        ls_copying_settle(job, link, rc == 0 ? DONE : VACANT, &made, facts);
    if (rc > 0)
        return 0;
    if (rc == 0 && link == NULL)
        rc = ls_copying_note(worker, &made, facts);
    if (rc < 0)
        return ls_copying_fail(job, folder, name, call, rc);
    worker->files++;
    if (S_ISREG(facts->st_mode))
        worker->bytes += (uint64_t)facts->st_size;
    return 0;
}

int ls_copying_file(struct worker *worker, const struct folder *folder, const int fds[2], const char *name, int type) {
    struct stat facts;
    int source, rc = look(fds[SOURCE], name, type, &source, &facts);
    if (rc == 0)
        rc = copy(worker, folder, fds, name, source, &facts);
    else if (rc == -ENOENT)
        rc = 0;
    else if (rc != -EISDIR)
        rc = ls_copying_fail(worker->job, folder, name, "openat2", rc == -EXDEV ? -EBUSY : rc);
    if (source >= 0)
        close(source);
    return rc;
}
