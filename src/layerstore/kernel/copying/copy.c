/* See copy.h. What the threads do with a folder, and what is told of the copy in the end.

   A thread that has a folder makes what is in it and is no folder, makes the folders in it too, still empty, gives it its
   attributes, and leaves those to the pool. So nothing is made in a folder after it has its times, and none has to wait for
   what lies deeper.

   Folders are opened through their parent's descriptors. Those of a folder that lies deep are not kept, but in the hand of
   the thread that had it last: then it is reached once more from the last one above it that are. So neither depth nor the
   length of a path has an end, and no path is followed that somebody may bend meanwhile. */

#define _GNU_SOURCE
#include "file.h"
#include "../files/bytes.h"
#include "../files/within.h"
#include "../files/xattrs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/xattr.h>

enum {
    DEEPEST = 32,    /* levels whose descriptors are kept, */
    LANDMARK = 1024, /* and one in so many below */
};

/* --- descriptors -------------------------------------------------------------------------------------------------- */

static bool keeps(const struct ls_folder *folder) {
    return folder->depth <= DEEPEST || folder->depth % LANDMARK == 0;
}

static struct folder *new_folder(struct job *job, struct folder *above, const char *name) {
    struct folder *folder = (struct folder *)ls_pool_folder(&job->pool, above ? &above->base : NULL, name);
    if (folder)
        folder->fds[SOURCE] = folder->fds[TARGET] = -1;
    return folder;
}

static void close_both(int fds[2]) {
    for (int end = SOURCE; end <= TARGET; end++) {
        ls_scope_close(&fds[end]);
        fds[end] = -1;
    }
}

/* Opens a folder in both trees; only for the thread whose hand it may need. */
static int open_folder(const struct worker *worker, const struct folder *folder, int fds[2]) {
    const struct ls_folder *above = folder->base.above;
    LS_FREED char *path = NULL;
    const int *parent = worker->hand_fds;
    if (keeps(above) || (struct ls_folder *)worker->hand != above) {
        while (!keeps(above))
            above = above->above;
        parent = ((const struct folder *)above)->fds;
    }
    if (above != folder->base.above && !(path = ls_folder_path(above, &folder->base, NULL)))
        return -ENOMEM;
    for (int end = SOURCE; end <= TARGET; end++) {
        int fd = path ? ls_copying_open_far(parent[end], path, end)
                      : ls_copying_open(parent[end], folder->base.name, O_RDONLY | O_DIRECTORY, end);
        if (fd < 0) {
            close_both(fds);
            return fd;
        }
        fds[end] = fd;
    }
    return 0;
}

/* Keeps both descriptors: in the folder, or if it lies deep, in the thread's hand. */
static void keep(struct worker *worker, struct folder *folder, const int fds[2]) {
    if (keeps(&folder->base)) {
        memcpy(folder->fds, fds, sizeof folder->fds);
        return;
    }
    ls_pool_hold(worker->base.pool, &folder->base);
    worker->hand = folder;
    memcpy(worker->hand_fds, fds, sizeof worker->hand_fds);
}

static bool drop_hand(struct ls_worker *base) {
    struct worker *worker = (struct worker *)base;
    struct folder *folder = worker->hand;
    if (!folder)
        return false;
    close_both(worker->hand_fds);
    worker->hand = NULL;
    ls_pool_release(base->pool, &folder->base);
    return true;
}

static bool leave(struct ls_pool *pool, struct ls_folder *folder) {
    (void)pool;
    close_both(((struct folder *)folder)->fds);
    return false;
}

/* --- one folder --------------------------------------------------------------------------------------------------- */

/* What is made in the folder from now on must inherit nothing from it. */
static int make_plain(const struct job *job, int fd, struct ls_failure *failure) {
    struct stat facts;
    if (fstat(fd, &facts) < 0)
        return LS_FAIL(failure, "fstat");
    if ((facts.st_uid != job->uid || facts.st_gid != job->gid) && fchown(fd, job->uid, job->gid) < 0)
        return LS_FAIL(failure, "fchown");
    if (fchmod(fd, 0700) < 0)
        return LS_FAIL(failure, "fchmod");
    return ls_acls_drop(fd, failure);
}

static int fail(struct worker *worker, struct folder *folder, const char *name, int code) {
    return ls_pool_fail(worker->base.pool, &folder->base, name, worker->base.failure.what, code);
}

static int make_folder(struct worker *worker, struct folder *folder, const int fds[2], const char *name) {
    if (mkdirat(fds[TARGET], name, 0700) < 0)
        return LS_FAIL(&worker->base.failure, "mkdirat");
    struct folder *inner = new_folder((struct job *)worker->base.pool, folder, name);
    if (!inner)
        return ls_fail(&worker->base.failure, "malloc", -ENOMEM);
    ls_pool_found(&worker->base, &inner->base);
    return 0;
}

/* --- below what is there ------------------------------------------------------------------------------------------ */

/* 1: yes; 0: no; -errno. */
static int is_opaque(int folder, struct ls_failure *failure) {
    char value = 0;
    ssize_t size = fgetxattr(folder, ls_overlay_xattr(LS_XATTR_OPAQUE), &value, 1);
    if (size < 0 && errno != ENODATA && errno != EOPNOTSUPP && errno != ERANGE)
        return LS_FAIL(failure, "fgetxattr");
    return size == 1 && value == 'y';
}

/* 1: it may hold whiteouts, and says so; 0: not; -errno. */
static int has_origin(int folder, struct ls_failure *failure) {
    if (fgetxattr(folder, ls_overlay_xattr(LS_XATTR_ORIGIN), NULL, 0) >= 0)
        return 1;
    return errno == ENODATA || errno == EOPNOTSUPP ? 0 : LS_FAIL(failure, "fgetxattr");
}

/* A folder of the target that the source has something else for: that hid what lies below both, and so does the folder now. */
static int hide_below(struct worker *worker, int folder) {
    if (fsetxattr(folder, ls_overlay_xattr(LS_XATTR_OPAQUE), "y", 1, 0))
        return LS_FAIL(&worker->base.failure, "fsetxattr");
    return 0;
}

/* A name that both have. */
static int meet(struct worker *worker, struct folder *folder, const int fds[2], const char *name, int type) {
    struct stat facts;
    LS_CLOSED int inner = ls_copying_open(fds[TARGET], name, O_RDONLY | O_DIRECTORY, TARGET);
    if (inner < 0) /* what is no folder hides what is below it */
        return inner == -ENOTDIR || inner == -ELOOP ? 0 : ls_fail(&worker->base.failure, "openat2", inner);
    int opaque = is_opaque(inner, &worker->base.failure);
    if (opaque)
        return opaque < 0 ? opaque : 0;
    if (type == DT_UNKNOWN) {
        if (fstatat(fds[SOURCE], name, &facts, AT_SYMLINK_NOFOLLOW))
            return LS_FAIL(&worker->base.failure, "fstatat");
        type = S_ISDIR(facts.st_mode) ? DT_DIR : DT_REG;
    }
    if (type != DT_DIR)
        return hide_below(worker, inner);
    struct folder *met = new_folder((struct job *)worker->base.pool, folder, name);
    if (!met)
        return ls_fail(&worker->base.failure, "malloc", -ENOMEM);
    met->there = true;
    ls_pool_found(&worker->base, &met->base);
    return 0;
}

/* What a folder that both have takes over from the source: that it hides what is below; that it may hold whiteouts, which
 * overlay shows as ghosts where this is not marked. Its time is what it was. */
static int settle_met(struct worker *worker, const int fds[2], const struct stat *facts) {
    struct ls_failure *failure = &worker->base.failure;
    const struct timespec times[2] = {facts->st_atim, facts->st_mtim};
    int opaque = is_opaque(fds[SOURCE], failure);
    if (opaque < 0 || (opaque && (opaque = hide_below(worker, fds[TARGET])) < 0))
        return opaque;
    int marked = has_origin(fds[SOURCE], failure);
    int already = marked > 0 ? has_origin(fds[TARGET], failure) : marked;
    if (already < 0)
        return already;
    if (marked && !already && fsetxattr(fds[TARGET], ls_overlay_xattr(LS_XATTR_ORIGIN), "", 0, 0))
        return LS_FAIL(failure, "fsetxattr");
    return futimens(fds[TARGET], times) ? LS_FAIL(failure, "futimens") : 0;
}

static int copy_entry(struct worker *worker, struct folder *folder, const int fds[2], const char *name, int type) {
    struct stat there;
    if (folder->there) {
        if (!fstatat(fds[TARGET], name, &there, AT_SYMLINK_NOFOLLOW)) {
            int met = meet(worker, folder, fds, name, type);
            return met < 0 ? fail(worker, folder, name, met) : 0;
        }
        if (errno != ENOENT)
            return fail(worker, folder, name, LS_FAIL(&worker->base.failure, "fstatat"));
    }
    int rc = type == DT_DIR ? -EISDIR : ls_copying_file(worker, folder, fds, name, type);
    if (rc == -EISDIR)
        rc = make_folder(worker, folder, fds, name);
    return rc < 0 ? fail(worker, folder, name, rc) : 0;
}

static int each_name(struct worker *worker, struct folder *folder, const int fds[2]) {
    struct ls_listing *listing = &worker->base.listing;
    int rc = ls_listing_begin(listing, fds[SOURCE], &worker->base.failure);
    while (!rc && (rc = ls_listing_next(listing)) > 0) {
        worker->base.entries++;
        rc = ls_pool_has_failed(worker->base.pool) ? -ECANCELED
                                                   : copy_entry(worker, folder, fds, listing->name, listing->type);
    }
    return rc;
}

static int copy_folder(struct worker *worker, struct folder *folder, const int fds[2]) {
    const struct job *job = (const struct job *)worker->base.pool;
    struct ls_failure *failure = &worker->base.failure;
    struct stat facts, made;
    if (fstat(fds[folder->there ? TARGET : SOURCE], &facts) < 0)
        return LS_FAIL(failure, "fstat");
    if (folder->there)
        return each_name(worker, folder, fds) ?: settle_met(worker, fds, &facts);
    if (facts.st_dev == job->target.st_dev && facts.st_ino == job->target.st_ino)
        return ls_fail(failure, "a copy into itself", -ELOOP);
    const struct end from = {.fd = fds[SOURCE]}, to = {.fd = fds[TARGET]};
    return each_name(worker, folder, fds) ?: ls_copying_attributes(worker, &from, &to, &facts, &made) ?: ls_copying_note(worker, &made, &facts);
}

static void work(struct ls_worker *base, struct ls_folder *inner) {
    struct worker *worker = (struct worker *)base;
    struct folder *folder = (struct folder *)inner;
    int fds[2] = {folder->fds[SOURCE], folder->fds[TARGET]}, rc = 0;
    if (ls_pool_has_failed(base->pool))
        return;
    if (inner->above) {
        rc = open_folder(worker, folder, fds);
        if (rc < 0) /* -EXDEV: something is mounted on it */
            rc = ls_fail(&base->failure, rc == -ENOMEM ? "malloc" : "openat2", rc == -EXDEV ? -EBUSY : rc);
    }
    drop_hand(base);
    if (rc == 0) {
        rc = copy_folder(worker, folder, fds);
        keep(worker, folder, fds);
    }
    if (rc < 0)
        fail(worker, folder, NULL, rc);
}

/* A umask belongs to the thread once it shares its filesystem context with no other; the mode in open(2) is exact then. */
static void begin(struct ls_worker *base) {
    struct worker *worker = (struct worker *)base;
    if (unshare(CLONE_FS) == 0) {
        umask(0);
        worker->exact_modes = true;
    }
}

static const struct ls_task COPYING = {
    .folder_size = sizeof(struct folder),
    .worker_size = sizeof(struct worker),
    .begin = begin,
    .work = work,
    .rest = drop_hand,
    .leave = leave,
};

/* --- what is told of all that was made ---------------------------------------------------------------------------- */

static int list_one(struct ls_copied *copied, struct ls_bytes *list, struct record *last, const struct record *record,
                    bool *fine) {
    int64_t time = record->seconds * 1000000000 + record->nanoseconds;
    int rc = ls_bytes_signed(list, (int64_t)(record->inode - last->inode));
    rc = rc ?: ls_bytes_signed(list, (int64_t)(record->source - last->source));
    rc = rc ?: ls_bytes_signed(list, record->seconds - last->seconds);
    rc = rc ?: ls_bytes_signed(list, record->nanoseconds - last->nanoseconds);
    if (time > copied->newest)
        copied->newest = time;
    *fine |= record->nanoseconds != 0;
    *last = *record;
    return rc;
}

static int list_all(const struct job *job, struct ls_copied *copied) {
    LS_BYTES_FREED struct ls_bytes list = {0};
    struct record last = {0};
    bool fine = false;
    int rc = 0;
    for (int i = 0; i < job->pool.started; i++) {
        const struct worker *worker = (const struct worker *)job->pool.workers[i];
        for (size_t at = 0; rc == 0 && at < worker->records.count; at++)
            rc = list_one(copied, &list, &last, &worker->records.list[at], &fine);
    }
    for (int i = 0; i < BUCKETS; i++)
        for (const struct link *link = job->links[i]; rc == 0 && link; link = link->next)
            if (link->state == DONE && link->device == job->source.st_dev)
                rc = list_one(copied, &list, &last, &link->record, &fine);
    if (rc == 0 && fine) { /* or the filesystem keeps whole seconds: a time says nothing there */
        copied->length = list.length;
        copied->list = LS_TAKE(list.data);
    }
    return rc;
}

/* What the threads and their folders shared. */
static void forget(struct job *job) {
    for (int i = 0; i < job->pool.started; i++)
        free(((struct worker *)job->pool.workers[i])->records.list);
    for (int i = 0; i < BUCKETS; i++)
        for (struct link *link = job->links[i], *next; link; link = next) {
            next = link->next;
            free(link->path);
            free(link);
        }
}

/* The two roots, open, and the target as it has to be to be filled. */
static int open_roots(struct job *job, struct folder *root, int source, const char *target,
                      struct ls_failure *failure) {
    if (!root->there && mkdir(target, 0700) < 0)
        return LS_FAIL(failure, "mkdir");
    root->fds[SOURCE] = openat(source, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root->fds[SOURCE] < 0)
        return LS_FAIL(failure, "openat");
    job->root = root->fds[TARGET] = open(target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (job->root < 0)
        return LS_FAIL(failure, "open");
    int rc = root->there ? 0 : make_plain(job, job->root, failure);
    if (rc < 0)
        return rc;
    if (fstat(job->root, &job->target) < 0 || fstat(root->fds[SOURCE], &job->source) < 0)
        return LS_FAIL(failure, "fstat");
    return 0;
}

static int copy_all(struct job *job, int source, const char *target, bool there, struct ls_copied *copied,
                    struct ls_failure *failure) {
    struct folder *root = new_folder(job, NULL, "");
    if (!root)
        return ls_fail(failure, "malloc", -ENOMEM);
    root->there = there;
    int rc = open_roots(job, root, source, target, failure);
    if (rc < 0) {
        close_both(root->fds);
        free(root);
        return rc;
    }
    rc = ls_pool_run(&job->pool, &root->base);
    if (rc < 0) {
        *failure = job->pool.failure;
        return rc;
    }
    rc = list_all(job, copied);
    return rc < 0 ? ls_fail(failure, "malloc", rc) : 0;
}

static int run(int source, const char *target, bool there, int threads, int share, struct ls_copied *copied,
               struct ls_failure *failure) {
    LS_FREED struct job *job = calloc(1, sizeof *job);
    *copied = (struct ls_copied){0};
    if (!job)
        return ls_fail(failure, "malloc", -ENOMEM);
    ls_pool_begin(&job->pool, &COPYING, threads);
    job->unshared = !share;
    job->uid = geteuid();
    job->gid = getegid();
    int rc = copy_all(job, source, target, there, copied, failure);
    for (int i = 0; i < job->pool.started; i++) {
        const struct worker *worker = (const struct worker *)job->pool.workers[i];
        copied->files += worker->files;
        copied->bytes += worker->bytes;
        copied->reflinked |= worker->reflinked;
    }
    forget(job);
    ls_pool_end(&job->pool);
    return rc;
}

int ls_copy_tree(int source, const char *target, int threads, int share, struct ls_copied *copied,
                 struct ls_failure *failure) {
    return run(source, target, false, threads, share, copied, failure);
}

int ls_fill_tree(int source, const char *target, int threads, int share, struct ls_failure *failure) {
    struct ls_copied copied;
    int rc = run(source, target, true, threads, share, &copied, failure);
    ls_copied_free(&copied);
    return rc;
}

void ls_copied_free(struct ls_copied *copied) {
    free(copied->list);
    *copied = (struct ls_copied){0};
}
