/* See file.h. One name that is no folder: its bytes, the attributes that folders have too, and its other names. A file of
   several names is made once, by the thread that meets it first, and then linked to. */

#define _GNU_SOURCE
#include "file.h"
#include "../files/files.h"
#include "../files/xattrs.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/xattr.h>

static struct job *job_of(const struct worker *worker) {
    return (struct job *)worker->base.pool;
}

static int fail(struct worker *worker, const char *call) {
    return LS_FAIL(&worker->base.failure, call);
}

static int fail_with(struct worker *worker, const char *call, int code) {
    return ls_fail(&worker->base.failure, call, code);
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

int ls_copying_open(int folder, const char *path, int flags, int end) {
    uint64_t how = (unsigned int)flags | O_NOFOLLOW;
    uint64_t resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    if (end == TARGET)
        return ls_open_how(folder, path, how, 0, resolve);
    int fd = ls_open_how(folder, path, how | O_NOATIME, 0, resolve | RESOLVE_NO_XDEV);
    return fd == -EPERM ? ls_open_how(folder, path, how, 0, resolve | RESOLVE_NO_XDEV)
                        : fd; /* O_NOATIME is the owner's */
}

int ls_copying_open_far(int root, const char *path, int end) {
    LS_CLOSED int above = -1;
    for (;;) {
        char part[PATH_MAX];
        size_t length = strlen(path), taken = length;
        if (length >= sizeof part) {
            taken = sizeof part - 1;
            while (path[taken] != '/') /* no name is that long */
                taken--;
        }
        memcpy(part, path, taken);
        part[taken] = 0;
        LS_CLOSED int next = ls_copying_open(above < 0 ? root : above, part, O_RDONLY | O_DIRECTORY, end);
        if (next < 0 || taken == length)
            return ls_take_fd(&next);
        ls_scope_close(&above);
        above = ls_take_fd(&next);
        path += taken + 1;
    }
}

/* --- attributes --------------------------------------------------------------------------------------------------- */

static const char *way_to(const struct end *end, char path[NAME_MAX + 40]) {
    snprintf(path, NAME_MAX + 40, "/proc/self/fd/%d/%s", end->folder, end->name);
    return path;
}

static ssize_t list_xattrs(const struct end *end, const char *path, char *names) {
    ssize_t length =
        end->fd >= 0 ? flistxattr(end->fd, names, XATTR_LIST_MAX) : llistxattr(path, names, XATTR_LIST_MAX);
    return length < 0 && errno == EOPNOTSUPP ? 0 : length;
}

static int copy_xattrs(struct worker *worker, const struct end *from, const struct end *to) {
    char source[NAME_MAX + 40], target[NAME_MAX + 40];
    if (from->fd < 0) {
        way_to(from, source);
        way_to(to, target);
    }
    ssize_t length = list_xattrs(from, source, worker->names);
    if (length < 0)
        return fail(worker, "listxattr");
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(worker->names + at) + 1) {
        const char *name = worker->names + at;
        if (!ls_xattr_travels(name))
            continue;
        ssize_t size = from->fd >= 0 ? fgetxattr(from->fd, name, worker->value, XATTR_SIZE_MAX)
                                     : lgetxattr(source, name, worker->value, XATTR_SIZE_MAX);
        if (size < 0 && errno == ENODATA)
            continue;
        if (size < 0)
            return fail(worker, "getxattr");
        int rc = to->fd >= 0 ? fsetxattr(to->fd, name, worker->value, (size_t)size, 0)
                             : lsetxattr(target, name, worker->value, (size_t)size, 0);
        if (rc < 0)
            return fail(worker, "setxattr");
    }
    return 0;
}

static int set_owner(const struct end *to, const struct stat *facts) {
    if (to->fd >= 0)
        return fchown(to->fd, facts->st_uid, facts->st_gid);
    return fchownat(to->folder, to->name, facts->st_uid, facts->st_gid, AT_SYMLINK_NOFOLLOW);
}

static int set_mode(const struct end *to, mode_t mode) {
    return to->fd >= 0 ? fchmod(to->fd, mode) : fchmodat(to->folder, to->name, mode, 0);
}

static int set_times(const struct end *to, const struct stat *facts) {
    const struct timespec times[2] = {facts->st_atim, facts->st_mtim};
    return to->fd >= 0 ? futimens(to->fd, times) : utimensat(to->folder, to->name, times, AT_SYMLINK_NOFOLLOW);
}

static int stat_end(const struct end *end, struct stat *facts) {
    return end->fd >= 0 ? fstat(end->fd, facts) : fstatat(end->folder, end->name, facts, AT_SYMLINK_NOFOLLOW);
}

/* In this order: a new owner clears setuid and capabilities. */
int ls_copying_attributes(struct worker *worker, const struct end *from, const struct end *to, const struct stat *facts,
                          struct stat *made) {
    const struct job *job = job_of(worker);
    mode_t mode = facts->st_mode & 07777;
    bool owner = facts->st_uid != job->uid || facts->st_gid != job->gid;
    bool chmod = S_ISDIR(facts->st_mode) || !worker->exact_modes || mode & 07000;
    for (int tries = 0;; tries++) {
        if (owner && set_owner(to, facts))
            return fail(worker, "fchown");
        if (chmod && !S_ISLNK(facts->st_mode) && set_mode(to, mode))
            return fail(worker, "fchmod");
        int rc = copy_xattrs(worker, from, to);
        if (rc < 0)
            return rc;
        if (set_times(to, facts))
            return fail(worker, "utimensat");
        if (stat_end(to, made))
            return fail(worker, "fstat");
        bool differs =
            made->st_mode != facts->st_mode || made->st_uid != facts->st_uid || made->st_gid != facts->st_gid;
        if (!differs || tries > 0 || S_ISLNK(facts->st_mode))
            return 0;
        owner = chmod = true; /* the filesystem gives new files another group, or a mode of its own */
    }
}

/* --- one file ----------------------------------------------------------------------------------------------------- */

static int copy_content(struct worker *worker, int from, int to, const struct stat *facts) {
    struct job *job = job_of(worker);
    if (facts->st_size == 0)
        return 0;
    if (!job->unshared && !__atomic_load_n(&job->cannot_share, __ATOMIC_RELAXED)) {
        int rc = ls_clone_file(from, to);
        if (rc == 0) {
            worker->reflinked = true;
            return 0;
        }
        if (rc == -EOPNOTSUPP || rc == -EXDEV || rc == -ENOTTY || rc == -ENOSYS)
            __atomic_store_n(&job->cannot_share, true, __ATOMIC_RELAXED);
        else if (rc != -EINVAL &&
                 rc != -ETXTBSY) /* one file that cannot, as without copy-on-write on btrfs, or a swapfile */
            return fail_with(worker, "ioctl(FICLONE)", rc);
    }
    bool dense = facts->st_blocks >= (facts->st_size + 511) / 512;
    int rc = (int)ls_copy_extents(from, to, facts->st_size, dense, job->unshared);
    return rc < 0 ? fail_with(worker, "copy_file_range", rc) : 0;
}

static int make_file(struct worker *worker, int source, const int fds[2], const char *name, const struct stat *facts,
                     struct stat *made) {
    LS_CLOSED int target =
        openat(fds[TARGET], name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, facts->st_mode & 0777);
    if (target < 0)
        return fail(worker, "openat");
    const struct end from = {.fd = source}, to = {.fd = target};
    return copy_content(worker, source, target, facts) ?: ls_copying_attributes(worker, &from, &to, facts, made);
}

/* What is no regular file and no folder. 1: it has vanished. */
static int make_special(struct worker *worker, const int fds[2], const char *name, const struct stat *facts,
                        struct stat *made) {
    char target[PATH_MAX + 1];
    if (S_ISLNK(facts->st_mode)) {
        ssize_t length = readlinkat(fds[SOURCE], name, target, PATH_MAX);
        if (length < 0)
            return errno == ENOENT ? 1 : fail(worker, "readlinkat");
        target[length] = 0;
        if (symlinkat(target, fds[TARGET], name))
            return fail(worker, "symlinkat");
    } else if (mknodat(fds[TARGET], name, facts->st_mode, facts->st_rdev))
        return fail(worker, "mknodat");
    const struct end from = {.fd = -1, .folder = fds[SOURCE], .name = name},
                     to = {.fd = -1, .folder = fds[TARGET], .name = name};
    return ls_copying_attributes(worker, &from, &to, facts, made);
}

/* --- files of several names --------------------------------------------------------------------------------------- */

static struct record record_of(const struct stat *made, const struct stat *facts) {
    return (struct record){made->st_ino, facts->st_ino, made->st_ctim.tv_sec, made->st_ctim.tv_nsec};
}

/* With the lock held. NULL: no memory. */
static struct link *find_link(struct job *job, const struct stat *facts) {
    struct link **bucket = &job->links[(facts->st_ino ^ facts->st_dev * 31) % BUCKETS];
    for (struct link *link = *bucket; link; link = link->next)
        if (link->inode == facts->st_ino && link->device == facts->st_dev)
            return link;
    struct link *link = calloc(1, sizeof *link);
    if (link) {
        *link = (struct link){.next = *bucket, .device = facts->st_dev, .inode = facts->st_ino};
        *bucket = link;
    }
    return link;
}

/* 1: this thread is to make the file, and settles what came of that; 0: it is there, link to it. */
static int claim(struct worker *worker, const struct folder *folder, const char *name, const struct stat *facts,
                 struct link **found) {
    struct job *job = job_of(worker);
    int rc = 0;
    pthread_mutex_lock(&job->pool.lock);
    struct link *link = *found = find_link(job, facts);
    while (link && link->state == BUSY && !job->pool.failure.code)
        pthread_cond_wait(&job->pool.changed, &job->pool.lock);
    if (!link)
        rc = fail_with(worker, "malloc", -ENOMEM);
    else if (link->state == BUSY)
        rc = fail_with(worker, "linkat", -ECANCELED);
    else if (link->state == VACANT) {
        free(link->path);
        link->path = ls_folder_path(NULL, &folder->base, name);
        rc = link->path ? 1 : fail_with(worker, "malloc", -ENOMEM);
        link->state = link->path ? BUSY : VACANT;
    }
    pthread_mutex_unlock(&job->pool.lock);
    return rc;
}

static void settle(struct job *job, struct link *link, enum state state, const struct stat *made,
                   const struct stat *facts) {
    pthread_mutex_lock(&job->pool.lock);
    link->state = state;
    if (state == DONE)
        link->record = record_of(made, facts);
    pthread_cond_broadcast(&job->pool.changed);
    pthread_mutex_unlock(&job->pool.lock);
}

static int link_from(struct worker *worker, const char *path, int folder, const char *name) {
    int from = job_of(worker)->root;
    LS_CLOSED int far = -1;
    if (strlen(path) >= PATH_MAX) {
        const char *slash = strrchr(path, '/');
        LS_FREED char *above = strndup(path, (size_t)(slash - path));
        if (!above)
            return fail_with(worker, "malloc", -ENOMEM);
        from = far = ls_copying_open_far(from, above, TARGET);
        if (far < 0)
            return fail_with(worker, "openat2", far);
        path = slash + 1;
    }
    return linkat(from, path, folder, name, 0) ? fail(worker, "linkat") : 0;
}

static int make_link(struct worker *worker, const int fds[2], const char *name, struct link *link) {
    struct job *job = job_of(worker);
    struct stat made;
    int rc = link_from(worker, link->path, fds[TARGET], name);
    if (rc < 0)
        return rc;
    if (fstatat(fds[TARGET], name, &made, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(worker, "fstatat");
    pthread_mutex_lock(&job->pool.lock);
    struct record *record = &link->record; /* each link alters the file's time of change; the last one is what stays */
    if (made.st_ctim.tv_sec > record->seconds ||
        (made.st_ctim.tv_sec == record->seconds && made.st_ctim.tv_nsec > record->nanoseconds)) {
        record->seconds = made.st_ctim.tv_sec;
        record->nanoseconds = made.st_ctim.tv_nsec;
    }
    pthread_mutex_unlock(&job->pool.lock);
    worker->files++;
    return 0;
}

/* --- one name ----------------------------------------------------------------------------------------------------- */

/* Opens a regular file; of all else there are only the facts. -EISDIR: it is a folder. */
static int look(struct worker *worker, int folder, const char *name, int type, int *source, struct stat *facts) {
    *source = type == DT_REG ? ls_copying_open(folder, name, O_RDONLY | O_NONBLOCK, SOURCE) : -ELOOP;
    if (*source < 0 && *source != -ELOOP)
        return fail_with(worker, "openat2", *source);
    if ((*source >= 0 ? fstat(*source, facts) : fstatat(folder, name, facts, AT_SYMLINK_NOFOLLOW)) < 0)
        return fail(worker, "fstatat");
    if (S_ISDIR(facts->st_mode))
        return -EISDIR;
    if (*source >= 0 || !S_ISREG(facts->st_mode))
        return 0;
    *source = ls_copying_open(folder, name, O_RDONLY | O_NONBLOCK, SOURCE);
    if (*source < 0)
        return fail_with(worker, "openat2", *source);
    if (fstat(*source, facts) < 0)
        return fail(worker, "fstat");
    return S_ISREG(facts->st_mode) ? 0 : fail_with(worker, "openat2", -EBUSY);
}

static int copy(struct worker *worker, const struct folder *folder, const int fds[2], const char *name, int source,
                const struct stat *facts) {
    struct link *link = NULL;
    struct stat made;
    if (facts->st_nlink > 1) {
        int rc = claim(worker, folder, name, facts, &link);
        if (rc <= 0)
            return rc < 0 ? rc : make_link(worker, fds, name, link);
    }
    int rc = S_ISREG(facts->st_mode) ? make_file(worker, source, fds, name, facts, &made)
                                     : make_special(worker, fds, name, facts, &made);
    if (rc < 0)
        return rc; /* the link stays busy: who waits for it learns of the failure */
    if (link)
        settle(job_of(worker), link, rc == 0 ? DONE : VACANT, &made, facts);
    else if (rc == 0)
        rc = ls_copying_note(worker, &made, facts);
    if (rc)
        return rc < 0 ? rc : 0;
    worker->files++;
    if (S_ISREG(facts->st_mode))
        worker->bytes += (uint64_t)facts->st_size;
    return 0;
}

int ls_copying_file(struct worker *worker, const struct folder *folder, const int fds[2], const char *name, int type) {
    struct stat facts;
    LS_CLOSED int source = -1;
    int rc = look(worker, fds[SOURCE], name, type, &source, &facts);
    if (rc == 0)
        return copy(worker, folder, fds, name, source, &facts);
    if (rc == -EXDEV) /* something is mounted on it */
        return fail_with(worker, "openat2", -EBUSY);
    return rc == -ENOENT ? 0 : rc;
}

/* --- what is told of all that was made ---------------------------------------------------------------------------- */

int ls_copying_note(struct worker *worker, const struct stat *made, const struct stat *facts) {
    const struct job *job = job_of(worker);
    /* In a subvolume within, inode numbers are used once more: nothing is told of those. */
    if (facts->st_dev != job->source.st_dev || made->st_dev != job->target.st_dev)
        return 0;
    int rc = ls_array_add(&worker->records, record_of(made, facts));
    return rc ? fail_with(worker, "malloc", rc) : 0;
}
