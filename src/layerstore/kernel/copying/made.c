/* See copying.h. What was made: a list for each thread, and one that they share of the files with several names, each of
   which is made once and then linked to. */

#define _GNU_SOURCE
#include "internal.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

static struct record record_of(const struct stat *made, const struct stat *facts) {
    return (struct record){made->st_ino, facts->st_ino, made->st_ctim.tv_sec, made->st_ctim.tv_nsec};
}

int ls_copying_note(struct worker *worker, const struct stat *made, const struct stat *facts) {
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
    worker->records[worker->count++] = record_of(made, facts);
    return 0;
}

int ls_copying_claim(struct job *job, const struct folder *folder, const char *name, const struct stat *facts,
                     struct link **found) {
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
        link->path = ls_copying_path(NULL, folder, name);
        rc = link->path == NULL ? -ENOMEM : 1;
        if (rc == 1)
            link->state = BUSY;
    }
    pthread_mutex_unlock(&job->lock);
    *found = link;
    return rc;
}

void ls_copying_settle(struct job *job, struct link *link, enum state state, const struct stat *made,
                       const struct stat *facts) {
    pthread_mutex_lock(&job->lock);
    link->state = state;
    if (state == DONE)
        link->record = record_of(made, facts);
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

static int link_from(struct job *job, const char *path, int folder, const char *name) {
    if (strlen(path) < PATH_MAX)
        return linkat(job->root, path, folder, name, 0) < 0 ? -errno : 0;
    const char *slash = strrchr(path, '/');
    char *above = strndup(path, (size_t)(slash - path));
    if (above == NULL)
        return -ENOMEM;
    int fd = ls_copying_open_far(job->root, above, TARGET);
    free(above);
    if (fd < 0)
        return fd;
    int rc = linkat(fd, slash + 1, folder, name, 0) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

int ls_copying_link(struct worker *worker, const struct folder *folder, const int fds[2], const char *name,
                    struct link *link) {
    struct job *job = worker->job;
    struct stat made;
    int rc = link_from(job, link->path, fds[TARGET], name);
    if (rc < 0)
        return ls_copying_fail(job, folder, name, "linkat", rc);
    if (fstatat(fds[TARGET], name, &made, AT_SYMLINK_NOFOLLOW) < 0)
        return ls_copying_fail(job, folder, name, "fstatat", -errno);
    pthread_mutex_lock(&job->lock);
    struct record *record = &link->record; /* each link alters the file's time of change; the last one is what stays */
    if (made.st_ctim.tv_sec > record->seconds ||
        (made.st_ctim.tv_sec == record->seconds && made.st_ctim.tv_nsec > record->nanoseconds)) {
        record->seconds = made.st_ctim.tv_sec;
        record->nanoseconds = made.st_ctim.tv_nsec;
    }
    pthread_mutex_unlock(&job->lock);
    worker->files++;
    return 0;
}

static int list_one(struct ls_copied *copied, struct ls_bytes *list, struct record *last, const struct record *record,
                    int *fine) {
    int rc = ls_bytes_signed(list, (int64_t)(record->inode - last->inode)) ?: ls_bytes_signed(list, (int64_t)(record->source - last->source)) ?:
             ls_bytes_signed(list, record->seconds - last->seconds) ?: ls_bytes_signed(list, record->nanoseconds - last->nanoseconds);
    int64_t time = record->seconds * 1000000000 + record->nanoseconds;
    if (time > copied->newest)
        copied->newest = time;
    *fine |= record->nanoseconds != 0;
    *last = *record;
    return rc;
}

int ls_copying_list(const struct job *job, struct ls_copied *copied) {
    struct ls_bytes list = {0};
    struct record last = {0};
    int rc = 0, fine = 0;
    for (int i = 0; i < job->started; i++)
        for (size_t at = 0; rc == 0 && at < job->workers[i]->count; at++)
            rc = list_one(copied, &list, &last, &job->workers[i]->records[at], &fine);
    for (int i = 0; i < BUCKETS; i++)
        for (const struct link *link = job->links[i]; rc == 0 && link != NULL; link = link->next)
            if (link->state == DONE && link->device == job->source.st_dev)
                rc = list_one(copied, &list, &last, &link->record, &fine);
    if (!fine) /* a filesystem that keeps whole seconds: a time says nothing there */
        list.length = 0;
    copied->list = list.data;
    copied->length = list.length;
    return rc;
}

void ls_copying_forget(struct job *job) {
    for (int i = 0; i < job->started; i++)
        free(job->workers[i]->records);
    for (int i = 0; i < BUCKETS; i++)
        for (struct link *link = job->links[i], *next; link != NULL; link = next) {
            next = link->next;
            free(link->path);
            free(link);
        }
}
