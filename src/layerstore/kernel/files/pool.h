/* Threads that work on the folders of a tree, of which more come to light while they work.
 *
 * Folders wait in one stack that the threads share. A thread takes one and works on it; the folders that it finds in it
 * are put on the stack. When all folders in a folder are done, so is the folder, and it is left: that is where what
 * depends on its content is done. A thread is added only when there has been enough to do that it pays. */
#ifndef LS_POOL_H
#define LS_POOL_H
#include "failure.h"
#include "listing.h"

#include <pthread.h>
#include <stdbool.h>

enum { LS_MOST_THREADS = 16 };

/* The first member of what a folder is to its user. */
struct ls_folder {
    struct ls_folder *above; /* NULL: the root */
    struct ls_folder *next;
    const char *name;
    unsigned int depth;
    unsigned int left; /* folders in it that are not done, one for the work on itself, and one for each ls_pool_hold */
    bool failed; /* something in it, at any depth */
};

/* The first member of what a thread is to its user. */
struct ls_worker {
    struct ls_pool *pool;
    pthread_t thread;
    struct ls_folder *found; /* by the work in hand: to be worked on, by anybody */
    unsigned int entries; /* of the work in hand, to judge by whether another thread pays */
    struct ls_listing listing; /* for the folder in hand */
    struct ls_failure failure; /* for what is called for the folder in hand */
};

struct ls_task {
    size_t folder_size, worker_size; /* of what the two above are part of; the rest is zero at first */
    /* In each thread, before its first folder. All threads are then the pool's own; without, the caller's is one of them. */
    void (*begin)(struct ls_worker *worker);
    void (*work)(struct ls_worker *worker, struct ls_folder *folder);
    /* Nothing waits: gives up what it holds of a folder. False: it holds nothing. May be NULL. */
    bool (*rest)(struct ls_worker *worker);
    /* All that is in the folder is done. True: it has to be worked on once more. */
    bool (*leave)(struct ls_pool *pool, struct ls_folder *folder);
};

struct ls_pool {
    const struct ls_task *task;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* the stack, `finished`, a failure, or what users wait for under the lock */
    struct ls_folder *stack;
    bool finished;
    unsigned int entries;
    int threads, started;
    struct ls_worker *workers[LS_MOST_THREADS];
    struct ls_failure failure; /* the first one */
};

/* Works on `root` and on all that is found in it, by up to `threads` threads; `root` is freed then, whatever happens.
 * 0, or the first failure, told in `pool->failure`. The workers are there until ls_pool_end. */
void ls_pool_begin(struct ls_pool *pool, const struct ls_task *task, int threads);
int ls_pool_run(struct ls_pool *pool, struct ls_folder *root);
void ls_pool_end(struct ls_pool *pool);

/* A folder in `above`, or the root (NULL). NULL: no memory. Who does not hand it on frees it. */
struct ls_folder *ls_pool_folder(struct ls_pool *pool, struct ls_folder *above, const char *name);
/* Hands on a folder that was found, to be worked on when the work in hand is done. */
void ls_pool_found(struct ls_worker *worker, struct ls_folder *folder);
/* Keeps a folder from being left until it is released. */
void ls_pool_hold(struct ls_pool *pool, struct ls_folder *folder);
void ls_pool_release(struct ls_pool *pool, struct ls_folder *folder);

/* Tells of a failure at `name` in `folder` (NULL: at the folder itself), which has failed then. Returns `code`. */
int ls_pool_fail(struct ls_pool *pool, struct ls_folder *folder, const char *name, const char *call, int code);
bool ls_pool_has_failed(struct ls_pool *pool);

/* The names from below `base` (NULL: the root, which has no name) down to `folder`, and `name` (NULL: none), with slashes
 * between. To be freed; NULL: no memory. */
char *ls_folder_path(const struct ls_folder *base, const struct ls_folder *folder, const char *name);
#endif
