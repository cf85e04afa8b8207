/* See copy.h. The threads, and what they do with a folder.

   Folders wait in one stack that the threads share. A thread takes one, makes what is in it and is no folder, makes the
   folders in it too, still empty, gives it its attributes, and puts those on the stack. So nothing is made in a folder
   after it has its times, and none has to wait for what lies deeper. */

#define _GNU_SOURCE
#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { WORTH_HELP = 256 }; /* entries after which another thread pays */

static const char *const acls[] = {"system.posix_acl_default", "system.posix_acl_access"};

static int has_failed(struct job *job) {
    return __atomic_load_n(&job->failure, __ATOMIC_RELAXED) != 0;
}

/* The place is written from the end, so that what is cut off of a long path is its beginning. */
int ls_copying_fail(struct job *job, const struct folder *folder, const char *name, const char *call, int failure) {
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

/* What is made in the folder from now on must inherit nothing from it. */
static int make_plain(struct job *job, int fd) {
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

static int make_folder(struct worker *worker, struct folder *folder, const int fds[2], const char *name,
                       struct folder **found) {
    struct job *job = worker->job;
    if (mkdirat(fds[TARGET], name, 0700) < 0)
        return ls_copying_fail(job, folder, name, "mkdirat", -errno);
    struct folder *inner = ls_copying_folder(folder, name);
    if (inner == NULL)
        return ls_copying_fail(job, folder, name, "malloc", -ENOMEM);
    inner->next = *found;
    *found = inner;
    return 0;
}

static int copy_entry(struct worker *worker, struct folder *folder, const int fds[2], const struct dirent64 *entry,
                      struct folder **found) {
    int rc = -EISDIR;
    if (entry->d_type != DT_DIR)
        rc = ls_copying_file(worker, folder, fds, entry->d_name, entry->d_type);
    return rc == -EISDIR ? make_folder(worker, folder, fds, entry->d_name, found) : rc;
}

static int each_name(struct worker *worker, struct folder *folder, const int fds[2], struct folder **found) {
    struct job *job = worker->job;
    for (;;) {
        ssize_t length = getdents64(fds[SOURCE], worker->listing, LISTING);
        if (length < 0 && errno != ENOENT) /* removed meanwhile */
            return ls_copying_fail(job, folder, "", "getdents64", -errno);
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

static int copy_folder(struct worker *worker, struct folder *folder, const int fds[2], struct folder **found) {
    struct job *job = worker->job;
    struct stat facts, made;
    if (fstat(fds[SOURCE], &facts) < 0)
        return ls_copying_fail(job, folder, "", "fstat", -errno);
    if (facts.st_dev == job->target.st_dev && facts.st_ino == job->target.st_ino)
        return ls_copying_fail(job, folder, "", "a copy into itself", -ELOOP);
    int rc = each_name(worker, folder, fds, found);
    if (rc < 0)
        return rc;
    const char *call = "";
    struct end from = {.fd = fds[SOURCE]}, to = {.fd = fds[TARGET]};
    rc = ls_copying_attributes(worker, &from, &to, &facts, &made, &call);
    if (rc == 0)
        rc = ls_copying_note(worker, &made, &facts);
    return rc < 0 ? ls_copying_fail(job, folder, "", call, rc) : 0;
}

static void *work_apart(void *argument);

/* With the lock held. A thread that cannot be had is done without. */
static void start_worker(struct job *job) {
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

static void take(struct worker *worker, struct folder *folder) {
    struct job *job = worker->job;
    struct folder *found = NULL;
    int fds[2] = {folder->fds[SOURCE], folder->fds[TARGET]}, rc = 0;
    if (has_failed(job)) {
        ls_copying_release(job, folder);
        return;
    }
    if (folder->above != NULL) {
        rc = ls_copying_open_folder(worker, folder, fds);
        if (rc < 0)
            ls_copying_fail(job, folder, "", "openat2", rc == -EXDEV ? -EBUSY : rc);
    }
    ls_copying_drop_hand(worker);
    if (rc == 0) {
        rc = copy_folder(worker, folder, fds, &found);
        ls_copying_keep(worker, folder, fds);
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
    ls_copying_release(job, folder);
}

static void *work(void *argument) {
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
            ls_copying_drop_hand(worker);
            pthread_mutex_lock(&job->lock);
        } else
            pthread_cond_wait(&job->changed, &job->lock);
    }
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

/* A umask belongs to the thread once it shares its filesystem context with no other; the mode in open(2) is exact then. */
static void *work_apart(void *argument) {
    struct worker *worker = argument;
    if (unshare(CLONE_FS) == 0) {
        umask(0);
        worker->exact_modes = 1;
    }
    return work(worker);
}

static int copy_all(struct job *job, struct folder *root) {
    job->stack = root;
    pthread_mutex_lock(&job->lock);
    start_worker(job);
    int rc = job->started == 0 ? -EAGAIN : 0;
    pthread_mutex_unlock(&job->lock);
    if (rc < 0) {
        ls_copying_close(root->fds);
        free(root);
        return ls_copying_fail(job, NULL, "", "pthread_create", rc);
    }
    /* None is started after the root is finished, and each is started by one that is joined before it. */
    for (int i = 0; i < job->started; i++)
        pthread_join(job->workers[i]->thread, NULL);
    return job->failure;
}

int ls_copy_tree(int source, const char *target, int threads, int share, struct ls_copied *copied, char *where,
                 size_t room) {
    struct job *job = calloc(1, sizeof *job);
    struct folder *root = ls_copying_folder(NULL, "");
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
        rc = make_plain(job, job->root)
                 ?: fstat(job->root, &job->target) < 0 || fstat(root->fds[SOURCE], &job->source) < 0 ? -errno
                                                                                                     : 0;
    }
    if (rc == 0) {
        rc = copy_all(job, root);
        root = NULL;
        copied->call = job->call;
        if (rc == 0)
            rc = ls_copying_list(job, copied);
    }
    ls_copying_forget(job);
    for (int i = 0; i < job->started; i++) {
        copied->files += job->workers[i]->files;
        copied->bytes += job->workers[i]->bytes;
        copied->reflinked |= job->workers[i]->reflinked;
        free(job->workers[i]);
    }
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
out:
    if (root != NULL)
        ls_copying_close(root->fds);
    free(root);
    free(job);
    return rc;
}

void ls_copied_free(struct ls_copied *copied) {
    free(copied->list);
    *copied = (struct ls_copied){0};
}
