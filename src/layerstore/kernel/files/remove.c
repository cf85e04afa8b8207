/* See remove.h.

   A thread opens a folder through its parent's descriptor, unlinks what is no folder, and leaves the folders in it to the
   pool. A folder goes when its last folder has gone. The descriptors open at one time are those of the ancestors of what
   waits, so a folder far down is first moved up to the root: no depth needs more of them, and no path is ever built. */

#define _GNU_SOURCE
#include "remove.h"
#include "../btrfs/btrfs.h"
#include "files.h"
#include "pool.h"
#include "scope.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum {
    DEEPEST = 100, /* levels, hence descriptors, that one thread holds */
    TRIES = 4,     /* listings of a folder that is not empty after all */
};

#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x00002000
#endif

struct folder {
    struct ls_folder base;
    int fd;
    unsigned int tries;
};

struct removal {
    struct ls_pool pool;
    struct folder *root;
    unsigned int moved;
};

static struct folder *new_folder(struct removal *job, struct folder *above, const char *name) {
    struct folder *folder = (struct folder *)ls_pool_folder(&job->pool, above ? &above->base : NULL, name);
    if (folder)
        folder->fd = -1;
    return folder;
}

static int parent_fd(const struct folder *folder) {
    const struct folder *above = (const struct folder *)folder->base.above;
    return above ? above->fd : AT_FDCWD;
}

/* --- what stands in the way --------------------------------------------------------------------------------------- */

int ls_free_of_flags(int parent, const char *name) {
    struct stat facts;
    if (fstatat(parent, name, &facts, AT_SYMLINK_NOFOLLOW) < 0 || !(S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode)))
        return 0;
    LS_CLOSED int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return 0;
    int flags = 0, changed = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))) {
        flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
        changed = ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
    }
    return changed;
}

/* unlinkat, with what stands in its way put aside: modes (for a process without CAP_DAC_OVERRIDE) and flags. `mend`: what
   lies in `parent` is all to go, so its own mode and flags may be altered. */
static int unlink_entry(int parent, const char *name, int flag, bool mend) {
    if (unlinkat(parent, name, flag) == 0 || errno == ENOENT)
        return 0;
    int failure = -errno;
    if (failure == -EACCES && mend && fchmod(parent, 0700) == 0)
        return unlinkat(parent, name, flag) == 0 ? 0 : -errno;
    if (failure == -EPERM) {
        int changed = ls_free_of_flags(parent, name);
        if (mend)
            changed |= ls_free_of_flags(parent, ".");
        if (changed)
            return unlinkat(parent, name, flag) == 0 ? 0 : -errno;
    }
    return failure;
}

/* Opens without following a symlink and without entering a mount: -EXDEV. */
static int open_folder(int parent, const char *name, bool is_root) {
    uint64_t resolve = is_root ? 0 : RESOLVE_NO_XDEV;
    int fd = ls_open_how(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, resolve);
    if (fd != -EACCES)
        return fd;
    LS_CLOSED int handle = ls_open_how(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, resolve);
    if (handle < 0)
        return handle;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    return chmod(link, 0700) < 0 ? -errno : ls_open_how(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, resolve);
}

/* --- one folder --------------------------------------------------------------------------------------------------- */

/* All that was in it is gone, or has failed to go. */
static bool leave(struct ls_pool *pool, struct ls_folder *base) {
    struct folder *folder = (struct folder *)base, *above = (struct folder *)base->above;
    if (folder->fd >= 0)
        close(folder->fd);
    folder->fd = -1;
    int failure = base->failed ? 0 : unlink_entry(parent_fd(folder), base->name, AT_REMOVEDIR, above != NULL);
    if ((failure == -ENOTEMPTY || failure == -EEXIST) && ++folder->tries < TRIES)
        return true;
    if (failure < 0)
        ls_pool_fail(pool, base, NULL, "unlinkat", failure);
    return false;
}

/* Makes a folder that lies deep one of the root's. Returns the new one, or NULL where the filesystem refuses. */
static struct folder *move_up(struct removal *job, const struct folder *from, const char *name) {
    char fresh[40];
    for (int tries = 0; tries < TRIES; tries++) {
        snprintf(fresh, sizeof fresh, ".layerstore-removed-%u", __atomic_fetch_add(&job->moved, 1, __ATOMIC_RELAXED));
        struct folder *moved = new_folder(job, job->root, fresh);
        if (!moved)
            return NULL;
        if (syscall(SYS_renameat2, from->fd, name, job->root->fd, fresh, RENAME_NOREPLACE) == 0)
            return moved;
        free(moved);
        if (errno != EEXIST)
            return NULL;
    }
    return NULL;
}

static void find_folder(struct removal *job, struct ls_worker *worker, struct folder *folder, const char *name) {
    struct folder *inner = folder->base.depth >= DEEPEST ? move_up(job, folder, name) : NULL;
    if (!inner)
        inner = new_folder(job, folder, name);
    if (inner)
        ls_pool_found(worker, &inner->base);
    else
        ls_pool_fail(&job->pool, &folder->base, name, "malloc", -ENOMEM);
}

/* Unlinks what is no folder. What fails is told of, and the rest goes all the same. */
static void clear(struct removal *job, struct ls_worker *worker, struct folder *folder) {
    struct ls_listing *listing = &worker->listing;
    int rc = ls_listing_begin(listing, folder->fd, &worker->failure);
    while (!rc && (rc = ls_listing_next(listing)) > 0) {
        worker->entries++;
        int failure = -EISDIR;
        if (listing->type != DT_DIR)
            failure = unlink_entry(folder->fd, listing->name, 0, true);
        if (failure == -EISDIR)
            find_folder(job, worker, folder, listing->name);
        else if (failure < 0)
            ls_pool_fail(&job->pool, &folder->base, listing->name, "unlinkat", failure);
        rc = 0;
    }
    if (rc < 0)
        ls_pool_fail(&job->pool, &folder->base, NULL, worker->failure.what, rc);
}

/* A subvolume of btrfs goes at once, whatever is in it, unless it holds another one; and a read-only one goes only so, or
   when it is made writable. True: it is gone. */
static bool remove_subvolume(const struct folder *folder) {
    struct stat facts;
    struct statfs filesystem;
    if (fstat(folder->fd, &facts) < 0 || facts.st_ino != LS_BTRFS_ROOT_INODE || fstatfs(folder->fd, &filesystem) < 0 ||
        filesystem.f_type != BTRFS_SUPER_MAGIC)
        return false;
    const char *slash = folder->base.above ? NULL : strrchr(folder->base.name, '/');
    LS_CLOSED int parent = openat(folder->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return false;
    int failure = ls_btrfs_destroy(parent, slash ? slash + 1 : folder->base.name);
    if (failure < 0 && ls_btrfs_is_read_only(folder->fd) == 1)
        ls_btrfs_set_read_only(folder->fd, 0);
    return failure == 0;
}

static void remove_folder(struct ls_worker *worker, struct ls_folder *base) {
    struct removal *job = (struct removal *)worker->pool;
    struct folder *folder = (struct folder *)base;
    int fd = open_folder(parent_fd(folder), base->name, !base->above);
    if (fd < 0) {
        if (fd != -ENOENT) /* -EXDEV: something is mounted on it */
            ls_pool_fail(&job->pool, base, NULL, "openat2", fd == -EXDEV ? -EBUSY : fd);
        return;
    }
    folder->fd = fd;
    if (!remove_subvolume(folder))
        clear(job, worker, folder);
}

static const struct ls_task REMOVAL = {
    .folder_size = sizeof(struct folder),
    .worker_size = sizeof(struct ls_worker),
    .work = remove_folder,
    .leave = leave,
};

static int remove_file(const char *path, struct ls_failure *failure) {
    int rc = unlink_entry(AT_FDCWD, path, 0, false);
    return rc ? ls_fail(failure, "unlinkat", rc) : 0;
}

int ls_remove_tree(const char *path, int threads, struct ls_failure *failure) {
    struct statx facts;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &facts) < 0)
        return errno == ENOENT ? 0 : LS_FAIL(failure, "statx");
    if (facts.stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return ls_fail(failure, "unlinkat", -EBUSY);
    if (!S_ISDIR(facts.stx_mode))
        return remove_file(path, failure);
    struct removal job = {0};
    ls_pool_begin(&job.pool, &REMOVAL, threads);
    job.root = new_folder(&job, NULL, path);
    int rc = job.root ? ls_pool_run(&job.pool, &job.root->base) : -ENOMEM;
    if (!job.root)
        ls_fail(failure, "malloc", rc);
    else if (rc)
        *failure = job.pool.failure;
    ls_pool_end(&job.pool);
    return rc;
}
