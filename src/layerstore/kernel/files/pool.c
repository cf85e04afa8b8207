/* See pool.h. */
#define _GNU_SOURCE
#include "pool.h"

#include <stdlib.h>
#include <string.h>

enum { WORTH_HELP = 256 }; /* entries after which another thread pays */

/* --- folders ------------------------------------------------------------------------------------------------------ */

struct ls_folder *ls_pool_folder(struct ls_pool *pool, struct ls_folder *above, const char *name) {
    size_t size = pool->task->folder_size, length = strlen(name) + 1;
    struct ls_folder *folder = malloc(size + length);
    if (!folder)
        return NULL;
    memset(folder, 0, size);
    folder->above = above;
    folder->depth = above ? above->depth + 1 : 0;
    folder->name = memcpy((char *)folder + size, name, length);
    return folder;
}

static bool is_below(const struct ls_folder *base, const struct ls_folder *folder) {
    return folder != base && folder->above;
}

/* Writes a path before `end`, from its last name on, as many names of it as there is room for. Returns where it begins. */
static char *write_before(char *end, size_t room, const struct ls_folder *base, const struct ls_folder *folder,
                          const char *name) {
    char *at = end;
    while (name || is_below(base, folder)) {
        const char *part = name;
        if (!part) {
            part = folder->name;
            folder = folder->above;
        }
        name = NULL;
        size_t length = strlen(part), slash = at != end;
        if (length + slash > room)
            break;
        if (slash)
            *--at = '/';
        at -= length;
        memcpy(at, part, length);
        room -= length + slash;
    }
    return at;
}

char *ls_folder_path(const struct ls_folder *base, const struct ls_folder *folder, const char *name) {
    size_t room = name ? strlen(name) + 1 : 0;
    for (const struct ls_folder *step = folder; is_below(base, step); step = step->above)
        room += strlen(step->name) + 1;
    char *path = malloc(room + 1);
    if (!path)
        return NULL;
    const char *at = write_before(path + room, room, base, folder, name);
    size_t length = (size_t)(path + room - at);
    memmove(path, at, length);
    path[length] = 0;
    return path;
}

/* --- failures ----------------------------------------------------------------------------------------------------- */

int ls_pool_fail(struct ls_pool *pool, struct ls_folder *folder, const char *name, const char *call, int code) {
    pthread_mutex_lock(&pool->lock);
    folder->failed = true;
    if (!pool->failure.code) {
        char path[sizeof pool->failure.path];
        path[sizeof path - 1] = 0;
        const char *where = write_before(path + sizeof path - 1, sizeof path - 1, NULL, folder, name);
        ls_fail(&pool->failure, call, code);
        ls_fail_at(&pool->failure, where);
    }
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    return code;
}

bool ls_pool_has_failed(struct ls_pool *pool) {
    return __atomic_load_n(&pool->failure.code, __ATOMIC_RELAXED) != 0;
}

/* --- the threads -------------------------------------------------------------------------------------------------- */

static void *work(void *argument);

static void push(struct ls_pool *pool, struct ls_folder *folder) {
    folder->left = 1;
    folder->next = pool->stack;
    pool->stack = folder;
}

void ls_pool_found(struct ls_worker *worker, struct ls_folder *folder) {
    folder->next = worker->found;
    worker->found = folder;
}

void ls_pool_hold(struct ls_pool *pool, struct ls_folder *folder) {
    pthread_mutex_lock(&pool->lock);
    folder->left++;
    pthread_mutex_unlock(&pool->lock);
}

void ls_pool_release(struct ls_pool *pool, struct ls_folder *folder) {
    while (folder) {
        pthread_mutex_lock(&pool->lock);
        unsigned int left = --folder->left;
        pthread_mutex_unlock(&pool->lock);
        if (left)
            return;
        bool again = pool->task->leave(pool, folder);
        struct ls_folder *above = folder->above;
        pthread_mutex_lock(&pool->lock);
        if (again)
            push(pool, folder);
        else if (above)
            above->failed |= folder->failed;
        else
            pool->finished = true;
        if (again || !above)
            pthread_cond_broadcast(&pool->changed);
        pthread_mutex_unlock(&pool->lock);
        if (again)
            return;
        free(folder);
        folder = above;
    }
}

static struct ls_worker *new_worker(struct ls_pool *pool) {
    struct ls_worker *worker = calloc(1, pool->task->worker_size);
    if (worker)
        worker->pool = pool;
    return worker;
}

/* With the lock held. 0 or -errno. */
static int start_thread(struct ls_pool *pool) {
    struct ls_worker *worker = new_worker(pool);
    if (!worker)
        return -ENOMEM;
    int refused = pthread_create(&worker->thread, NULL, work, worker);
    if (refused) {
        free(worker);
        return -refused;
    }
    pool->workers[pool->started++] = worker;
    return 0;
}

/* What one folder brought: more of them, for which more threads may pay. One that cannot be had is done without. */
static void share(struct ls_worker *worker) {
    struct ls_pool *pool = worker->pool;
    pthread_mutex_lock(&pool->lock);
    while (worker->found) {
        struct ls_folder *folder = worker->found;
        worker->found = folder->next;
        folder->above->left++;
        push(pool, folder);
    }
    pool->entries += worker->entries;
    worker->entries = 0;
    if (pool->stack) {
        pthread_cond_broadcast(&pool->changed);
        if (pool->entries >= WORTH_HELP && pool->started < pool->threads)
            start_thread(pool);
    }
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *argument) {
    struct ls_worker *worker = argument;
    struct ls_pool *pool = worker->pool;
    if (pool->task->begin)
        pool->task->begin(worker);
    pthread_mutex_lock(&pool->lock);
    while (!pool->finished) {
        struct ls_folder *folder = pool->stack;
        if (folder)
            pool->stack = folder->next;
        pthread_mutex_unlock(&pool->lock);
        if (folder) {
            pool->task->work(worker, folder);
            share(worker);
            ls_pool_release(pool, folder);
        }
        bool rested = !folder && pool->task->rest && pool->task->rest(worker);
        pthread_mutex_lock(&pool->lock);
        if (!folder && !rested && !pool->stack && !pool->finished)
            pthread_cond_wait(&pool->changed, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    ls_listing_end(&worker->listing);
    return NULL;
}

void ls_pool_begin(struct ls_pool *pool, const struct ls_task *task, int threads) {
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    pool->task = task;
    pool->threads = threads < 1 ? 1 : threads < LS_MOST_THREADS ? threads : LS_MOST_THREADS;
}

int ls_pool_run(struct ls_pool *pool, struct ls_folder *root) {
    int rc = 0, first = 0;
    pthread_mutex_lock(&pool->lock);
    push(pool, root);
    if (pool->task->begin)
        rc = start_thread(pool);
    else if ((pool->workers[0] = new_worker(pool)))
        pool->started = first = 1; /* the caller's own thread */
    else
        rc = -ENOMEM;
    pthread_mutex_unlock(&pool->lock);
    if (rc) {
        ls_pool_fail(pool, root, NULL, rc == -ENOMEM ? "malloc" : "pthread_create", rc);
        ls_pool_release(pool, root);
        return rc;
    }
    if (first)
        work(pool->workers[0]);
    /* None is started after the root is finished, and each is started by one that is joined before it. */
    for (int i = first; i < pool->started; i++)
        pthread_join(pool->workers[i]->thread, NULL);
    return -pool->failure.code;
}

void ls_pool_end(struct ls_pool *pool) {
    for (int i = 0; i < pool->started; i++)
        free(pool->workers[i]);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
}
