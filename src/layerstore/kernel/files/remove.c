/* See remove.h.

   Folders wait in one stack that the threads share. A thread takes one, opens it through its parent's descriptor, unlinks
   what is no folder, and puts the folders in it on the stack. A folder goes when its last folder has gone. The descriptors
   open at one time are those of the ancestors of what is on the stack, so a folder far down is first moved up to the root:
   no depth needs more of them, and no path is ever built. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../btrfs/btrfs.h"
#include "remove.h"

enum {
    LISTING = 32 * 1024,
    DEEPEST = 100,    /* levels, hence descriptors, that one thread holds */
    WORTH_HELP = 256, /* entries after which another thread pays */
    TRIES = 4,        /* listings of a folder that is not empty after all */
    MOST_THREADS = 16,
};

#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x00002000
#endif

struct folder {
    struct folder *above;
    struct folder *next;
    int fd;
    unsigned int depth;
    unsigned int left; /* folders in it that are not gone, and one for the listing */
    unsigned int tries;
    int failed;
    char name[];
};

struct removal {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct folder *root;
    struct folder *stack;
    int finished;
    int failure;
    unsigned int entries;
    unsigned int moved;
    int threads, started;
    pthread_t helpers[MOST_THREADS];
    char *where;
    size_t room;
};

static void *work(void *argument);

static int parent_fd(const struct folder *folder) {
    return folder->above == NULL ? AT_FDCWD : folder->above->fd;
}

static struct folder *new_folder(struct folder *above, const char *name) {
    size_t size = strlen(name) + 1;
    struct folder *folder = malloc(sizeof *folder + size);
    if (folder == NULL)
        return NULL;
    *folder = (struct folder){.above = above, .fd = -1, .depth = above == NULL ? 0 : above->depth + 1};
    memcpy(folder->name, name, size);
    return folder;
}

/* Remembers the first failure, and where: written from the end, so that what is cut off of a long path is its beginning. */
static void fail(struct removal *job, struct folder *folder, const char *name, int failure) {
    pthread_mutex_lock(&job->lock);
    folder->failed = 1;
    if (job->failure == 0) {
        job->failure = failure;
        size_t at = job->room;
        job->where[--at] = 0;
        for (const struct folder *step = folder;; step = step->above) {
            size_t length = strlen(name);
            if (length + 1 > at)
                break;
            at -= length;
            memcpy(job->where + at, name, length);
            if (step->above == NULL)
                break;
            job->where[--at] = '/';
            name = step->name;
        }
        memmove(job->where, job->where + at, job->room - at);
    }
    pthread_mutex_unlock(&job->lock);
}

int ls_free_of_flags(int parent, const char *name) {
    struct stat facts;
    if (fstatat(parent, name, &facts, AT_SYMLINK_NOFOLLOW) < 0 || !(S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode)))
        return 0;
    int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return 0;
    int flags = 0, changed = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))) {
        flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
        changed = ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
    }
    close(fd);
    return changed;
}

/* unlinkat, with what stands in its way put aside: modes (for a process without CAP_DAC_OVERRIDE) and flags. */
static int unlink_entry(const struct folder *folder, int parent, const char *name, int flag) {
    if (unlinkat(parent, name, flag) == 0 || errno == ENOENT)
        return 0;
    int failure = -errno;
    if (failure == -EACCES && folder != NULL && fchmod(parent, 0700) == 0)
        return unlinkat(parent, name, flag) == 0 ? 0 : -errno;
    if (failure == -EPERM) {
        int changed = ls_free_of_flags(parent, name);
        if (folder != NULL)
            changed |= ls_free_of_flags(parent, ".");
        if (changed)
            return unlinkat(parent, name, flag) == 0 ? 0 : -errno;
    }
    return failure;
}

/* Opens without following a symlink and without entering a mount: -EXDEV. */
static int open_folder(int parent, const char *name, int is_root) {
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = is_root ? 0 : RESOLVE_NO_XDEV};
    int fd = (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
    if (fd >= 0 || errno != EACCES)
        return fd < 0 ? -errno : fd;
    how.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int handle = (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
    if (handle < 0)
        return -errno;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    int failure = chmod(link, 0700) < 0 ? -errno : 0;
    close(handle);
    if (failure < 0)
        return failure;
    how.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    fd = (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
    return fd < 0 ? -errno : fd;
}

static void push(struct removal *job, struct folder *folder) {
    folder->next = job->stack;
    job->stack = folder;
}

/* One of the folders in `folder`, or its listing, is done. Removes what has become empty, upwards. */
static void release(struct removal *job, struct folder *folder) {
    while (folder != NULL) {
        pthread_mutex_lock(&job->lock);
        unsigned int left = --folder->left;
        int failed = folder->failed;
        pthread_mutex_unlock(&job->lock);
        if (left > 0)
            return;
        if (folder->fd >= 0)
            close(folder->fd);
        folder->fd = -1;
        struct folder *above = folder->above;
        int failure = failed ? 0 : unlink_entry(above, parent_fd(folder), folder->name, AT_REMOVEDIR);
        if ((failure == -ENOTEMPTY || failure == -EEXIST) && ++folder->tries < TRIES) {
            pthread_mutex_lock(&job->lock);
            push(job, folder);
            pthread_cond_signal(&job->changed);
            pthread_mutex_unlock(&job->lock);
            return;
        }
        if (failure < 0)
            fail(job, above == NULL ? folder : above, above == NULL ? "" : folder->name, failure);
        pthread_mutex_lock(&job->lock);
        if (above != NULL) {
            above->failed |= failed;
        } else {
            job->finished = 1;
            pthread_cond_broadcast(&job->changed);
        }
        pthread_mutex_unlock(&job->lock);
        free(folder);
        folder = above;
    }
}

/* Makes a folder that lies deep one of the root's. Returns the new one, or NULL where the filesystem refuses. */
static struct folder *move_up(struct removal *job, const struct folder *from, const char *name) {
    char fresh[40];
    for (int tries = 0; tries < TRIES; tries++) {
        pthread_mutex_lock(&job->lock);
        snprintf(fresh, sizeof fresh, ".layerstore-removed-%u", job->moved++);
        pthread_mutex_unlock(&job->lock);
        if (syscall(SYS_renameat2, from->fd, name, job->root->fd, fresh, RENAME_NOREPLACE) == 0)
            return new_folder(job->root, fresh);
        if (errno != EEXIST)
            return NULL;
    }
    return NULL;
}

/* Unlinks what is no folder; returns the folders as a list. */
static struct folder *clear(struct removal *job, struct folder *folder, char *listing) {
    struct folder *found = NULL;
    for (;;) {
        ssize_t length = getdents64(folder->fd, listing, LISTING);
        if (length < 0 && errno != ENOENT) /* removed by somebody else */
            fail(job, folder, "", -errno);
        if (length <= 0)
            return found;
        unsigned int entries = 0;
        for (ssize_t at = 0; at < length;) {
            struct dirent64 *entry = (struct dirent64 *)(listing + at);
            at += entry->d_reclen;
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            entries++;
            int failure = -EISDIR;
            if (entry->d_type != DT_DIR)
                failure = unlink_entry(folder, folder->fd, entry->d_name, 0);
            if (failure == -EISDIR) {
                struct folder *inner = NULL;
                if (folder->depth >= DEEPEST)
                    inner = move_up(job, folder, entry->d_name);
                if (inner == NULL)
                    inner = new_folder(folder, entry->d_name);
                if (inner == NULL) {
                    fail(job, folder, entry->d_name, -ENOMEM);
                    continue;
                }
                inner->next = found;
                found = inner;
            } else if (failure < 0) {
                fail(job, folder, entry->d_name, failure);
            }
        }
        pthread_mutex_lock(&job->lock);
        job->entries += entries;
        pthread_mutex_unlock(&job->lock);
    }
}

/* A subvolume of btrfs goes at once, whatever is in it, unless it holds another one; and a read-only one goes only so, or
   when it is made writable. 1: it is gone. */
static int remove_subvolume(const struct folder *folder, int fd) {
    enum { ROOT_INODE = 256 };
    struct stat facts;
    struct statfs filesystem;
    if (fstat(fd, &facts) < 0 || facts.st_ino != ROOT_INODE || fstatfs(fd, &filesystem) < 0 ||
        filesystem.f_type != BTRFS_SUPER_MAGIC)
        return 0;
    const char *slash = folder->above == NULL ? strrchr(folder->name, '/') : NULL;
    const char *name = slash == NULL ? folder->name : slash + 1;
    int parent = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return 0;
    int failure = ls_btrfs_destroy(parent, name);
    close(parent);
    if (failure < 0 && ls_btrfs_is_read_only(fd) == 1)
        ls_btrfs_set_read_only(fd, 0);
    return failure == 0;
}

static void take(struct removal *job, struct folder *folder, char *listing) {
    folder->left = 1;
    int fd = open_folder(parent_fd(folder), folder->name, folder->above == NULL);
    if (fd < 0) {
        if (fd == -EXDEV)
            fd = -EBUSY; /* something is mounted on it */
        if (fd != -ENOENT)
            fail(job, folder, "", fd);
        release(job, folder);
        return;
    }
    folder->fd = fd;
    if (remove_subvolume(folder, fd)) {
        release(job, folder);
        return;
    }
    struct folder *found = clear(job, folder, listing);
    pthread_mutex_lock(&job->lock);
    while (found != NULL) {
        struct folder *next = found->next;
        found->above->left++;
        push(job, found);
        found = next;
    }
    if (job->stack != NULL) {
        pthread_cond_signal(&job->changed);
        if (job->entries >= WORTH_HELP && job->started < job->threads - 1 &&
            pthread_create(&job->helpers[job->started], NULL, work, job) == 0)
            job->started++;
    }
    pthread_mutex_unlock(&job->lock);
    release(job, folder);
}

static void *work(void *argument) {
    struct removal *job = argument;
    char *listing = malloc(LISTING);
    if (listing == NULL)
        return NULL;
    pthread_mutex_lock(&job->lock);
    while (!job->finished) {
        struct folder *folder = job->stack;
        if (folder == NULL) {
            pthread_cond_wait(&job->changed, &job->lock);
            continue;
        }
        job->stack = folder->next;
        pthread_mutex_unlock(&job->lock);
        take(job, folder, listing);
        pthread_mutex_lock(&job->lock);
    }
    pthread_mutex_unlock(&job->lock);
    free(listing);
    return job;
}

int ls_remove_tree(const char *path, int threads, char *where, size_t room) {
    struct statx facts;
    where[0] = 0;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &facts) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (facts.stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return -EBUSY;
    if (!S_ISDIR(facts.stx_mode))
        return unlink_entry(NULL, AT_FDCWD, path, 0);
    struct removal job = {
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER,
        .threads = threads < MOST_THREADS ? threads : MOST_THREADS,
        .where = where,
        .room = room,
    };
    job.root = new_folder(NULL, path);
    if (job.root == NULL)
        return -ENOMEM;
    push(&job, job.root);
    if (work(&job) == NULL) {
        free(job.root);
        return -ENOMEM;
    }
    for (int helper = 0; helper < job.started; helper++)
        pthread_join(job.helpers[helper], NULL);
    return job.failure;
}
