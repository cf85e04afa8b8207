/* See copying.h. The folders of both trees, and their descriptors.

   Folders are opened through their parent's descriptors. Those of a folder that lies deep are not kept, but in the hand of
   the thread that had it last: then it is reached once more from the last one above it that are. So neither depth nor the
   length of a path has an end, and no path is followed that somebody may bend meanwhile. */

#define _GNU_SOURCE
#include "internal.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    DEEPEST = 32,    /* levels whose descriptors are kept, */
    LANDMARK = 1024, /* and one in so many below */
};

static int keeps(const struct folder *folder) {
    return folder->depth <= DEEPEST || folder->depth % LANDMARK == 0;
}

struct folder *ls_copying_folder(struct folder *above, const char *name) {
    size_t size = strlen(name) + 1;
    struct folder *folder = malloc(sizeof *folder + size);
    if (folder == NULL)
        return NULL;
    *folder = (struct folder){.above = above, .depth = above == NULL ? 0 : above->depth + 1, .fds = {-1, -1}};
    memcpy(folder->name, name, size);
    return folder;
}

void ls_copying_close(int fds[2]) {
    for (int end = SOURCE; end <= TARGET; end++) {
        if (fds[end] >= 0)
            close(fds[end]);
        fds[end] = -1;
    }
}

void ls_copying_release(struct job *job, struct folder *folder) {
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
        ls_copying_close(folder->fds);
        struct folder *above = folder->above;
        free(folder);
        folder = above;
    }
}

char *ls_copying_path(const struct folder *base, const struct folder *folder, const char *name) {
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

int ls_copying_open(int folder, const char *path, int flags, int end) {
    struct open_how how = {
        .flags = (uint64_t)(unsigned int)(flags | O_NOFOLLOW | O_CLOEXEC | (end == SOURCE ? O_NOATIME : 0)),
        .resolve =
            RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | (end == SOURCE ? RESOLVE_NO_XDEV : 0),
    };
    int fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
    if (fd < 0 && errno == EPERM && end == SOURCE) { /* O_NOATIME is for the owner */
        how.flags &= ~(uint64_t)O_NOATIME;
        fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
    }
    return fd < 0 ? -errno : fd;
}

int ls_copying_open_far(int root, const char *path, int end) {
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
        int next = ls_copying_open(fd, part, O_RDONLY | O_DIRECTORY, end);
        if (fd != root)
            close(fd);
        if (next < 0 || taken == length)
            return next;
        fd = next;
        path += taken + 1;
    }
}

int ls_copying_open_folder(struct worker *worker, const struct folder *folder, int fds[2]) {
    const struct folder *above = folder->above;
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
        path = ls_copying_path(above, folder, NULL);
        if (path == NULL)
            return -ENOMEM;
    }
    int failure = 0;
    for (int end = SOURCE; end <= TARGET && failure == 0; end++) {
        int fd = path != NULL ? ls_copying_open_far(parent[end], path, end)
                              : ls_copying_open(parent[end], folder->name, O_RDONLY | O_DIRECTORY, end);
        if (fd < 0)
            failure = fd;
        else
            fds[end] = fd;
    }
    free(path);
    if (failure < 0)
        ls_copying_close(fds);
    return failure;
}

void ls_copying_keep(struct worker *worker, struct folder *folder, const int fds[2]) {
    if (keeps(folder))
        memcpy(folder->fds, fds, sizeof folder->fds);
    else {
        worker->hand = folder;
        memcpy(worker->hand_fds, fds, sizeof worker->hand_fds);
    }
}

void ls_copying_drop_hand(struct worker *worker) {
    if (worker->hand == NULL)
        return;
    ls_copying_close(worker->hand_fds);
    struct folder *folder = worker->hand;
    worker->hand = NULL;
    ls_copying_release(worker->job, folder);
}
