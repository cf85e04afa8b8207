/* See copy.h.

   Folders wait in one stack that the threads share. A thread takes one, makes what is in it and is no folder, makes the
   folders in it too, still empty, gives it its attributes, and puts those on the stack. So nothing is made in a folder
   after it has its times, and none has to wait for what lies deeper.

   Folders are opened through their parent's descriptors. Those of a folder that lies deep are not kept: then it is reached
   once more from the last one above it that are. */

#define _GNU_SOURCE
#include "../kernel/xattrs.h" /* before those that cffi reads, which include nothing */

#include "copy.h"
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
    LISTING = 32 * 1024,
    DEEPEST = 32,      /* levels whose descriptors are kept, */
    LANDMARK = 1024,   /* and one in so many below */
    WORTH_HELP = 256,  /* entries after which another thread pays */
    MOST_THREADS = 16,
    BUCKETS = 4096,
    SOURCE = 0,
    TARGET = 1,
};

static const char *const acls[] = {"system.posix_acl_default", "system.posix_acl_access"};

struct folder {
    struct folder *above;
    struct folder *next;
    unsigned int depth;
    unsigned int left; /* folders in it that are not done, one for the listing, and one for each thread that has it in hand */
    int fds[2];
    char name[];
};

struct record {
    uint64_t inode, source;
    int64_t seconds;
    int64_t nanoseconds;
};

/* A file of several names. The first thread that meets it makes it, the others wait and link. */
enum state { VACANT, BUSY, DONE };
struct link {
    struct link *next;
    dev_t device;
    ino_t inode;
    enum state state;
    struct record record;
    char *path; /* of the name that was made first */
};

struct worker {
    struct job *job;
    pthread_t thread;
    int exact_modes; /* no umask */
    struct folder *hand; /* the last folder, if its descriptors are not kept in it */
    int hand_fds[2];
    struct record *records;
    size_t count, room;
    uint64_t files, bytes;
    int reflinked;
    _Alignas(uint64_t) char listing[LISTING];
    char names[XATTR_LIST_MAX];
    char value[XATTR_SIZE_MAX];
};

struct job {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct folder *stack;
    int finished;
    int failure;
    const char *call;
    int unshared;
    int cannot_share;
    uid_t uid;
    gid_t gid;
    int root; /* of the target */
    struct stat source, target;
    unsigned int entries;
    int threads, started;
    struct worker *workers[MOST_THREADS];
    struct link *links[BUCKETS];
    char *where;
    size_t room;
};

/* One end of a copy: an open file, or a name in a folder for what cannot be opened. */
struct end {
    int fd;
    int folder;
    const char *name;
};

static void *work(void *argument);

static int keeps(const struct folder *folder)
{
    return folder->depth <= DEEPEST || folder->depth % LANDMARK == 0;
}

static int has_failed(struct job *job)
{
    return __atomic_load_n(&job->failure, __ATOMIC_RELAXED) != 0;
}

/* Remembers the first failure, and where: written from the end, so that what is cut off of a long path is its beginning. */
static int fail(struct job *job, const struct folder *folder, const char *name, const char *call, int failure)
{
    pthread_mutex_lock(&job->lock);
    if (job->failure == 0) {
        job->call = call;
        size_t at = job->room;
        job->where[--at] = 0;
        for (const struct folder *step = folder; step != NULL; step = step->above) {
            size_t length = strlen(name);
            if (length + 1 > at)
                break;
            at -= length;
            memcpy(job->where + at, name, length);
            if (step->above == NULL)
                break;
            if (length > 0)
                job->where[--at] = '/';
            name = step->name;
        }
        memmove(job->where, job->where + at, job->room - at);
        __atomic_store_n(&job->failure, failure, __ATOMIC_RELAXED);
    }
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
    return failure;
}

/* ---- folders and their descriptors */

static struct folder *new_folder(struct folder *above, const char *name)
{
    size_t size = strlen(name) + 1;
    struct folder *folder = malloc(sizeof *folder + size);
    if (folder == NULL)
        return NULL;
    *folder = (struct folder){.above = above, .depth = above == NULL ? 0 : above->depth + 1, .fds = {-1, -1}};
    memcpy(folder->name, name, size);
    return folder;
}

static void close_both(int fds[2])
{
    for (int end = SOURCE; end <= TARGET; end++) {
        if (fds[end] >= 0)
            close(fds[end]);
        fds[end] = -1;
    }
}

/* One of those that `left` counts is done. */
static void release(struct job *job, struct folder *folder)
{
    while (folder != NULL) {
        pthread_mutex_lock(&job->lock);
        unsigned int left = --folder->left;
        if (left == 0 && folder->above == NULL) {
            job->finished = 1;
            pthread_cond_broadcast(&job->changed);
        }
        pthread_mutex_unlock(&job->lock);
        if (left > 0)
            return;
        close_both(folder->fds);
        struct folder *above = folder->above;
        free(folder);
        folder = above;
    }
}

/* The names from below `base` down to `folder`, and `name` (NULL: none), with slashes; the root's own name is in no path. */
static char *path_of(const struct folder *base, const struct folder *folder, const char *name)
{
    size_t length = name == NULL ? 0 : strlen(name) + 1;
    for (const struct folder *step = folder; step != base && step->above != NULL; step = step->above)
        length += strlen(step->name) + 1;
    char *path = malloc(length + 1);
    if (path == NULL)
        return NULL;
    char *at = path + length;
    *at = 0;
    for (const struct folder *step = folder; name != NULL || (step != base && step->above != NULL);) {
        const char *part = name;
        if (part == NULL) {
            part = step->name;
            step = step->above;
        }
        name = NULL;
        if (*at != 0 || at != path + length)
            *--at = '/';
        at -= strlen(part);
        memcpy(at, part, strlen(part));
    }
    memmove(path, at, strlen(at) + 1);
    return path;
}

static int open_beneath(int folder, const char *path, int flags, int end)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned int)(flags | O_NOFOLLOW | O_CLOEXEC | (end == SOURCE ? O_NOATIME : 0)),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | (end == SOURCE ? RESOLVE_NO_XDEV : 0),
    };
    int fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
    if (fd < 0 && errno == EPERM && end == SOURCE) { /* O_NOATIME is for the owner */
        how.flags &= ~(uint64_t)O_NOATIME;
        fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
    }
    return fd < 0 ? -errno : fd;
}

/* Opens a folder whose path may be longer than the kernel takes. */
static int open_far(int root, const char *path, int end)
{
    int fd = root;
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
        int next = open_beneath(fd, part, O_RDONLY | O_DIRECTORY, end);
        if (fd != root)
            close(fd);
        if (next < 0 || taken == length)
            return next;
        fd = next;
        path += taken + 1;
    }
}

/* Opens a folder at both ends. */
static int open_folder(struct worker *worker, struct folder *folder, int fds[2])
{
    struct folder *above = folder->above;
    const int *parent = NULL;
    char *path = NULL;
    if (keeps(above))
        parent = above->fds;
    else if (worker->hand == above)
        parent = worker->hand_fds;
    else {
        while (!keeps(above))
            above = above->above;
        parent = above->fds;
        path = path_of(above, folder, NULL);
        if (path == NULL)
            return -ENOMEM;
    }
    int failure = 0;
    for (int end = SOURCE; end <= TARGET && failure == 0; end++) {
        int fd = path != NULL ? open_far(parent[end], path, end) : open_beneath(parent[end], folder->name, O_RDONLY | O_DIRECTORY, end);
        if (fd < 0)
            failure = fd;
        else
            fds[end] = fd;
    }
    free(path);
    if (failure < 0)
        close_both(fds);
    return failure;
}

static void drop_hand(struct worker *worker)
{
    if (worker->hand == NULL)
        return;
    close_both(worker->hand_fds);
    struct folder *folder = worker->hand;
    worker->hand = NULL;
    release(worker->job, folder);
}

/* ---- attributes */

static const char *way_to(const struct end *end, char path[NAME_MAX + 40])
{
    snprintf(path, NAME_MAX + 40, "/proc/self/fd/%d/%s", end->folder, end->name);
    return path;
}

static ssize_t list_xattrs(const struct end *end, const char *path, char *names)
{
    ssize_t length = end->fd >= 0 ? flistxattr(end->fd, names, XATTR_LIST_MAX) : llistxattr(path, names, XATTR_LIST_MAX);
    return length < 0 && errno == EOPNOTSUPP ? 0 : length;
}

static int copy_xattrs(struct worker *worker, const struct end *from, const struct end *to, const char **call)
{
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
        ssize_t size = from->fd >= 0 ? fgetxattr(from->fd, name, worker->value, XATTR_SIZE_MAX) : lgetxattr(source, name, worker->value, XATTR_SIZE_MAX);
        if (size < 0 && errno == ENODATA)
            continue;
        if (size < 0)
            return -errno;
        *call = "setxattr";
        int rc = to->fd >= 0 ? fsetxattr(to->fd, name, worker->value, (size_t)size, 0) : lsetxattr(target, name, worker->value, (size_t)size, 0);
        if (rc < 0)
            return -errno;
    }
    return 0;
}

static int stat_end(const struct end *end, struct stat *facts)
{
    int rc = end->fd >= 0 ? fstat(end->fd, facts) : fstatat(end->folder, end->name, facts, AT_SYMLINK_NOFOLLOW);
    return rc < 0 ? -errno : 0;
}

/* Owner, mode, xattrs, times, in this order: the owner clears setuid and capabilities. `made` is what came of it. */
static int give_attributes(struct worker *worker, const struct end *from, const struct end *to, const struct stat *facts, struct stat *made, const char **call)
{
    struct job *job = worker->job;
    mode_t mode = facts->st_mode & 07777;
    int owner = facts->st_uid != job->uid || facts->st_gid != job->gid;
    int chmod = S_ISDIR(facts->st_mode) || !worker->exact_modes || mode & 07000;
    for (int tries = 0;; tries++) {
        *call = "fchown";
        if (owner && fchownat(to->fd >= 0 ? to->fd : to->folder, to->fd >= 0 ? "" : to->name, facts->st_uid, facts->st_gid, to->fd >= 0 ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW) < 0)
            return -errno;
        *call = "fchmod";
        if (chmod && !S_ISLNK(facts->st_mode) && (to->fd >= 0 ? fchmod(to->fd, mode) : fchmodat(to->folder, to->name, mode, 0)) < 0)
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

static int note(struct worker *worker, const struct stat *made, const struct stat *facts)
{
    struct job *job = worker->job;
    /* In a subvolume within, inode numbers are used once more: nothing is told of those. */
    if (facts->st_dev != job->source.st_dev || made->st_dev != job->target.st_dev)
        return 0;
    if (worker->count == worker->room) {
        size_t room = worker->room ? worker->room * 2 : 1024;
        struct record *grown = realloc(worker->records, room * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        worker->records = grown;
        worker->room = room;
    }
    worker->records[worker->count++] = (struct record){made->st_ino, facts->st_ino, made->st_ctim.tv_sec, made->st_ctim.tv_nsec};
    return 0;
}

/* What is made in the folder from now on must inherit nothing from it. */
static int make_plain(struct job *job, int fd)
{
    struct stat facts;
    if (fstat(fd, &facts) < 0)
        return -errno;
    if ((facts.st_uid != job->uid || facts.st_gid != job->gid) && fchown(fd, job->uid, job->gid) < 0)
        return -errno;
    if (fchmod(fd, 0700) < 0)
        return -errno;
    for (size_t i = 0; i < sizeof acls / sizeof *acls; i++)
        if (fremovexattr(fd, acls[i]) < 0 && errno != ENODATA && errno != EOPNOTSUPP)
            return -errno;
    return 0;
}

/* ---- hard links */

/* 1: this thread is to make the file; 0: it is there, link to it. */
static int claim(struct worker *worker, struct folder *folder, const char *name, const struct stat *facts, struct link **found)
{
    struct job *job = worker->job;
    struct link **bucket = &job->links[(facts->st_ino ^ facts->st_dev * 31) % BUCKETS], *link;
    int rc = 0;
    pthread_mutex_lock(&job->lock);
    for (link = *bucket; link != NULL; link = link->next)
        if (link->inode == facts->st_ino && link->device == facts->st_dev)
            break;
    if (link == NULL && (link = calloc(1, sizeof *link)) != NULL) {
        link->device = facts->st_dev;
        link->inode = facts->st_ino;
        link->next = *bucket;
        *bucket = link;
    }
    while (link != NULL && link->state == BUSY && job->failure == 0)
        pthread_cond_wait(&job->changed, &job->lock);
    if (link == NULL)
        rc = -ENOMEM;
    else if (link->state == BUSY)
        rc = -ECANCELED;
    else if (link->state == VACANT) {
        free(link->path);
        link->path = path_of(NULL, folder, name);
        rc = link->path == NULL ? -ENOMEM : 1;
        if (rc == 1)
            link->state = BUSY;
    }
    pthread_mutex_unlock(&job->lock);
    *found = link;
    return rc;
}

static void settle(struct job *job, struct link *link, enum state state, const struct stat *made, const struct stat *facts)
{
    pthread_mutex_lock(&job->lock);
    link->state = state;
    if (state == DONE)
        link->record = (struct record){made->st_ino, facts->st_ino, made->st_ctim.tv_sec, made->st_ctim.tv_nsec};
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

static int link_from(struct job *job, const char *path, int folder, const char *name)
{
    if (strlen(path) < PATH_MAX)
        return linkat(job->root, path, folder, name, 0) < 0 ? -errno : 0;
    const char *slash = strrchr(path, '/');
    char *above = strndup(path, (size_t)(slash - path));
    if (above == NULL)
        return -ENOMEM;
    int fd = open_far(job->root, above, TARGET);
    free(above);
    if (fd < 0)
        return fd;
    int rc = linkat(fd, slash + 1, folder, name, 0) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int make_link(struct worker *worker, struct folder *folder, const int fds[2], const char *name, struct link *link)
{
    struct job *job = worker->job;
    struct stat made;
    int rc = link_from(job, link->path, fds[TARGET], name);
    if (rc < 0)
        return fail(job, folder, name, "linkat", rc);
    if (fstatat(fds[TARGET], name, &made, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(job, folder, name, "fstatat", -errno);
    pthread_mutex_lock(&job->lock);
    struct record *record = &link->record; /* each link alters the file's time of change; the last one is what stays */
    if (made.st_ctim.tv_sec > record->seconds || (made.st_ctim.tv_sec == record->seconds && made.st_ctim.tv_nsec > record->nanoseconds)) {
        record->seconds = made.st_ctim.tv_sec;
        record->nanoseconds = made.st_ctim.tv_nsec;
    }
    pthread_mutex_unlock(&job->lock);
    worker->files++;
    return 0;
}

/* ---- one file */

static int64_t copy_content(struct worker *worker, int from, int to, const struct stat *facts, const char **call)
{
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
        else if (rc != -EINVAL && rc != -ETXTBSY) /* one file that cannot, as without copy-on-write on btrfs, or a swapfile */
            return rc;
    }
    *call = "copy_file_range";
    int dense = facts->st_blocks >= (facts->st_size + 511) / 512;
    return ls_copy_extents(from, to, facts->st_size, dense, job->unshared);
}

static int fill(struct worker *worker, int source, const int fds[2], const char *name, const struct stat *facts, struct stat *made, const char **call)
{
    *call = "openat";
    int target = openat(fds[TARGET], name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, facts->st_mode & 0777);
    if (target < 0)
        return -errno;
    int rc = (int)copy_content(worker, source, target, facts, call);
    struct end from = {.fd = source}, to = {.fd = target};
    if (rc == 0)
        rc = give_attributes(worker, &from, &to, facts, made, call);
    close(target);
    return rc;
}

/* What is no regular file and no folder. 1: it has vanished. */
static int make_special(struct worker *worker, const int fds[2], const char *name, const struct stat *facts, struct stat *made, const char **call)
{
    char target[PATH_MAX + 1];
    if (S_ISLNK(facts->st_mode)) {
        *call = "readlinkat";
        ssize_t length = readlinkat(fds[SOURCE], name, target, PATH_MAX);
        if (length < 0)
            return errno == ENOENT ? 1 : -errno;
        target[length] = 0;
    }
    *call = S_ISLNK(facts->st_mode) ? "symlinkat" : "mknodat";
    int rc = S_ISLNK(facts->st_mode) ? symlinkat(target, fds[TARGET], name) : mknodat(fds[TARGET], name, facts->st_mode, facts->st_rdev);
    if (rc < 0)
        return -errno;
    struct end from = {.fd = -1, .folder = fds[SOURCE], .name = name}, to = {.fd = -1, .folder = fds[TARGET], .name = name};
    return give_attributes(worker, &from, &to, facts, made, call);
}

/* 0 also when the name has vanished from a tree that is in use; -EISDIR: it is a folder. */
static int copy_file(struct worker *worker, struct folder *folder, const int fds[2], const char *name, int type)
{
    struct job *job = worker->job;
    struct stat facts, made;
    struct link *link = NULL;
    const char *call = "openat2";
    int source = -1, rc = 0;
    if (type == DT_REG) {
        source = open_beneath(fds[SOURCE], name, O_RDONLY | O_NONBLOCK, SOURCE);
        rc = source == -ELOOP ? 0 : source < 0 ? source : 0;
    }
    if (rc == 0)
        rc = source >= 0 ? (fstat(source, &facts) < 0 ? -errno : 0) : (fstatat(fds[SOURCE], name, &facts, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0);
    if (rc == 0 && S_ISDIR(facts.st_mode))
        rc = -EISDIR;
    if (rc == 0 && S_ISREG(facts.st_mode) && source < 0) {
        source = open_beneath(fds[SOURCE], name, O_RDONLY | O_NONBLOCK, SOURCE);
        rc = source < 0 ? source : fstat(source, &facts) < 0 ? -errno : S_ISREG(facts.st_mode) ? 0 : -EBUSY;
    }
    if (rc < 0) {
        if (source >= 0)
            close(source);
        return rc == -ENOENT ? 0 : rc == -EISDIR ? rc : fail(job, folder, name, call, rc == -EXDEV ? -EBUSY : rc);
    }
    if (facts.st_nlink > 1) {
        rc = claim(worker, folder, name, &facts, &link);
        if (rc <= 0) {
            if (source >= 0)
                close(source);
            return rc < 0 ? fail(job, folder, name, "linkat", rc) : make_link(worker, folder, fds, name, link);
        }
    }
    rc = S_ISREG(facts.st_mode) ? fill(worker, source, fds, name, &facts, &made, &call) : make_special(worker, fds, name, &facts, &made, &call);
    if (source >= 0)
        close(source);
    if (link != NULL)
        settle(job, link, rc == 0 ? DONE : VACANT, &made, &facts);
    if (rc > 0)
        return 0;
    if (rc == 0 && link == NULL)
        rc = note(worker, &made, &facts);
    if (rc < 0)
        return fail(job, folder, name, call, rc);
    worker->files++;
    if (S_ISREG(facts.st_mode))
        worker->bytes += (uint64_t)facts.st_size;
    return 0;
}

/* ---- one folder */

static int make_folder(struct worker *worker, struct folder *folder, const int fds[2], const char *name, struct folder **found)
{
    struct job *job = worker->job;
    if (mkdirat(fds[TARGET], name, 0700) < 0)
        return fail(job, folder, name, "mkdirat", -errno);
    struct folder *inner = new_folder(folder, name);
    if (inner == NULL)
        return fail(job, folder, name, "malloc", -ENOMEM);
    inner->next = *found;
    *found = inner;
    return 0;
}

static int copy_entry(struct worker *worker, struct folder *folder, const int fds[2], const struct dirent64 *entry, struct folder **found)
{
    int rc = -EISDIR;
    if (entry->d_type != DT_DIR)
        rc = copy_file(worker, folder, fds, entry->d_name, entry->d_type);
    return rc == -EISDIR ? make_folder(worker, folder, fds, entry->d_name, found) : rc;
}

static int each_name(struct worker *worker, struct folder *folder, const int fds[2], struct folder **found)
{
    struct job *job = worker->job;
    for (;;) {
        ssize_t length = getdents64(fds[SOURCE], worker->listing, LISTING);
        if (length < 0 && errno != ENOENT) /* removed meanwhile */
            return fail(job, folder, "", "getdents64", -errno);
        if (length <= 0)
            return 0;
        unsigned int entries = 0;
        for (ssize_t at = 0; at < length;) {
            const struct dirent64 *entry = (const struct dirent64 *)(worker->listing + at);
            at += entry->d_reclen;
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            if (has_failed(job))
                return job->failure;
            entries++;
            int rc = copy_entry(worker, folder, fds, entry, found);
            if (rc < 0)
                return rc;
        }
        pthread_mutex_lock(&job->lock);
        job->entries += entries;
        pthread_mutex_unlock(&job->lock);
    }
}

static int copy_folder(struct worker *worker, struct folder *folder, const int fds[2], struct folder **found)
{
    struct job *job = worker->job;
    struct stat facts, made;
    if (fstat(fds[SOURCE], &facts) < 0)
        return fail(job, folder, "", "fstat", -errno);
    if (facts.st_dev == job->target.st_dev && facts.st_ino == job->target.st_ino)
        return fail(job, folder, "", "a copy into itself", -ELOOP);
    int rc = each_name(worker, folder, fds, found);
    if (rc < 0)
        return rc;
    const char *call = "";
    struct end from = {.fd = fds[SOURCE]}, to = {.fd = fds[TARGET]};
    rc = give_attributes(worker, &from, &to, &facts, &made, &call);
    if (rc == 0)
        rc = note(worker, &made, &facts);
    return rc < 0 ? fail(job, folder, "", call, rc) : 0;
}

static void start_worker(struct job *job);

static void take(struct worker *worker, struct folder *folder)
{
    struct job *job = worker->job;
    struct folder *found = NULL;
    int fds[2] = {folder->fds[SOURCE], folder->fds[TARGET]}, rc = 0;
    if (has_failed(job)) {
        release(job, folder);
        return;
    }
    if (folder->above != NULL) {
        rc = open_folder(worker, folder, fds);
        if (rc < 0)
            fail(job, folder, "", "openat2", rc == -EXDEV ? -EBUSY : rc);
    }
    drop_hand(worker);
    if (rc == 0) {
        rc = copy_folder(worker, folder, fds, &found);
        if (keeps(folder) || rc < 0)
            memcpy(folder->fds, fds, sizeof fds);
        else {
            worker->hand = folder;
            memcpy(worker->hand_fds, fds, sizeof fds);
        }
    }
    pthread_mutex_lock(&job->lock);
    if (worker->hand == folder)
        folder->left++;
    while (found != NULL) {
        struct folder *next = found->next;
        if (rc < 0)
            free(found);
        else {
            found->left = 1;
            folder->left++;
            found->next = job->stack;
            job->stack = found;
        }
        found = next;
    }
    if (job->stack != NULL) {
        pthread_cond_broadcast(&job->changed);
        if (job->entries >= WORTH_HELP && job->started < job->threads)
            start_worker(job);
    }
    pthread_mutex_unlock(&job->lock);
    release(job, folder);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct job *job = worker->job;
    pthread_mutex_lock(&job->lock);
    while (!job->finished) {
        struct folder *folder = job->stack;
        if (folder != NULL) {
            job->stack = folder->next;
            pthread_mutex_unlock(&job->lock);
            take(worker, folder);
            pthread_mutex_lock(&job->lock);
        } else if (worker->hand != NULL) { /* or the last folder would never be done */
            pthread_mutex_unlock(&job->lock);
            drop_hand(worker);
            pthread_mutex_lock(&job->lock);
        } else
            pthread_cond_wait(&job->changed, &job->lock);
    }
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

/* A umask belongs to the thread once it shares its filesystem context with no other; the mode in open(2) is exact then. */
static void *work_apart(void *argument)
{
    struct worker *worker = argument;
    if (unshare(CLONE_FS) == 0) {
        umask(0);
        worker->exact_modes = 1;
    }
    return work(worker);
}

/* With the lock held. A thread that cannot be had is done without. */
static void start_worker(struct job *job)
{
    struct worker *worker = malloc(sizeof *worker);
    if (worker == NULL)
        return;
    memset(worker, 0, offsetof(struct worker, listing));
    worker->job = job;
    worker->hand_fds[SOURCE] = worker->hand_fds[TARGET] = -1;
    if (pthread_create(&worker->thread, NULL, work_apart, worker) == 0)
        job->workers[job->started++] = worker;
    else
        free(worker);
}

/* ---- the whole */

static int list_one(struct ls_copied *copied, struct ls_bytes *list, struct record *last, const struct record *record, int *fine)
{
    int rc = ls_bytes_signed(list, (int64_t)(record->inode - last->inode)) ?: ls_bytes_signed(list, (int64_t)(record->source - last->source)) ?:
             ls_bytes_signed(list, record->seconds - last->seconds) ?: ls_bytes_signed(list, record->nanoseconds - last->nanoseconds);
    int64_t time = record->seconds * 1000000000 + record->nanoseconds;
    if (time > copied->newest)
        copied->newest = time;
    *fine |= record->nanoseconds != 0;
    *last = *record;
    return rc;
}

static int make_list(struct job *job, struct ls_copied *copied)
{
    struct ls_bytes list = {0};
    struct record last = {0};
    int rc = 0, fine = 0;
    for (int i = 0; i < job->started; i++)
        for (size_t at = 0; rc == 0 && at < job->workers[i]->count; at++)
            rc = list_one(copied, &list, &last, &job->workers[i]->records[at], &fine);
    for (int i = 0; i < BUCKETS; i++)
        for (struct link *link = job->links[i]; rc == 0 && link != NULL; link = link->next)
            if (link->state == DONE && link->device == job->source.st_dev)
                rc = list_one(copied, &list, &last, &link->record, &fine);
    if (!fine) /* a filesystem that keeps whole seconds: a time says nothing there */
        list.length = 0;
    copied->list = list.data;
    copied->length = list.length;
    return rc;
}

static int copy_all(struct job *job, struct folder *root)
{
    job->stack = root;
    pthread_mutex_lock(&job->lock);
    start_worker(job);
    int rc = job->started == 0 ? -EAGAIN : 0;
    pthread_mutex_unlock(&job->lock);
    if (rc < 0) {
        close_both(root->fds);
        free(root);
        return fail(job, NULL, "", "pthread_create", rc);
    }
    /* None is started after the root is finished, and each is started by one that is joined before it. */
    for (int i = 0; i < job->started; i++)
        pthread_join(job->workers[i]->thread, NULL);
    return job->failure;
}

int ls_copy_tree(int source, const char *target, int threads, int share, struct ls_copied *copied, char *where, size_t room)
{
    struct job *job = calloc(1, sizeof *job);
    struct folder *root = new_folder(NULL, "");
    int rc = job != NULL && root != NULL ? 0 : -ENOMEM;
    *copied = (struct ls_copied){.call = "malloc"};
    where[0] = 0;
    if (rc < 0)
        goto out;
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->changed, NULL);
    job->threads = threads < 1 ? 1 : threads < MOST_THREADS ? threads : MOST_THREADS;
    job->unshared = !share;
    job->uid = geteuid();
    job->gid = getegid();
    job->where = where;
    job->room = room;
    root->left = 1;
    copied->call = "mkdir";
    if (mkdir(target, 0700) < 0)
        rc = -errno;
    if (rc == 0) {
        copied->call = "openat";
        root->fds[SOURCE] = openat(source, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        rc = root->fds[SOURCE] < 0 ? -errno : 0;
    }
    if (rc == 0) {
        root->fds[TARGET] = open(target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        rc = root->fds[TARGET] < 0 ? -errno : 0;
    }
    if (rc == 0) {
        copied->call = "fchmod";
        job->root = root->fds[TARGET];
        rc = make_plain(job, job->root) ?: fstat(job->root, &job->target) < 0 || fstat(root->fds[SOURCE], &job->source) < 0 ? -errno : 0;
    }
    if (rc == 0) {
        rc = copy_all(job, root);
        root = NULL;
        copied->call = job->call;
        if (rc == 0)
            rc = make_list(job, copied);
    }
    for (int i = 0; i < job->started; i++) {
        copied->files += job->workers[i]->files;
        copied->bytes += job->workers[i]->bytes;
        copied->reflinked |= job->workers[i]->reflinked;
        free(job->workers[i]->records);
        free(job->workers[i]);
    }
    for (int i = 0; i < BUCKETS; i++)
        for (struct link *link = job->links[i], *next; link != NULL; link = next) {
            next = link->next;
            free(link->path);
            free(link);
        }
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
out:
    if (root != NULL)
        close_both(root->fds);
    free(root);
    free(job);
    return rc;
}

void ls_copied_free(struct ls_copied *copied)
{
    free(copied->list);
    *copied = (struct ls_copied){0};
}
