/* See walk.h. A thread lists a folder, looks at each name in it and sorts them; when all folders are done, the records are
 * written in one go, in the order of the tree. */
#define _GNU_SOURCE
#include "walk.h"
#include "../kernel/files/array.h"
#include "../kernel/files/bytes.h"
#include "../kernel/files/files.h"
#include "../kernel/files/pool.h"
#include "../kernel/files/scope.h"
#include "matching.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As Python's struct reads it, of the format in listing.py. */
struct __attribute__((packed)) record {
    uint32_t path_length, target_length, mode, uid, gid;
    int64_t size, mtime, ctime;
    uint64_t device, inode, rdev;
};

/* One name of a folder. `name` and `target` are places in the folder's strings. */
struct item {
    size_t name, target, target_length;
    struct record facts;
    struct content *content; /* of a folder that was entered */
    bool left_out;
};

struct content {
    struct content *next; /* of all there are, to be freed */
    struct ls_bytes strings;
    struct {
        LS_ARRAY(struct item);
    } items;
};

struct folder {
    struct ls_folder base;
    struct content *content;
    struct ls_match *match; /* NULL: there are no rules */
};

struct worker {
    struct ls_worker base;
    struct ls_match *match, *spare;
};

struct ls_walk {
    struct ls_pool pool;
    int root;
    const char *top;
    const struct ls_rules *rules;
    struct content *contents; /* pushed by any thread */
    struct ls_bytes records, strings, path;
    uint64_t bytes, files;
};

struct ls_walk *ls_walk_new(void) {
    return calloc(1, sizeof(struct ls_walk));
}

void ls_walk_free(struct ls_walk *walk) {
    if (!walk)
        return;
    while (walk->contents) {
        struct content *content = walk->contents;
        walk->contents = content->next;
        ls_bytes_free(&content->strings);
        ls_array_free(&content->items);
        free(content);
    }
    ls_bytes_free(&walk->records);
    ls_bytes_free(&walk->strings);
    ls_bytes_free(&walk->path);
    free(walk);
}

static struct content *new_content(struct ls_walk *walk) {
    struct content *content = calloc(1, sizeof *content);
    if (!content)
        return NULL;
    content->next = __atomic_load_n(&walk->contents, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&walk->contents, &content->next, content, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
        ;
    return content;
}

static int64_t ns_of(struct timespec time) {
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void describe(struct record *record, const struct stat *facts) {
    *record = (struct record){
        .mode = facts->st_mode,
        .uid = facts->st_uid,
        .gid = facts->st_gid,
        .size = S_ISDIR(facts->st_mode) ? 0 : facts->st_size,
        .mtime = ns_of(facts->st_mtim),
        .ctime = ns_of(facts->st_ctim),
        .device = facts->st_dev,
        .inode = facts->st_ino,
        .rdev = facts->st_rdev,
    };
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

static int read_target(int folder, const char *name, struct content *content, struct item *item) {
    char target[PATH_MAX];
    ssize_t length = readlinkat(folder, name, target, sizeof target);
    if (length < 0)
        return errno == ENOENT || errno == EINVAL ? 0 : -errno; /* it is another thing by now, or gone */
    item->target = content->strings.length;
    item->target_length = (size_t)length;
    return ls_bytes_add(&content->strings, target, (size_t)length);
}

/* Adds a name; 1: it is a folder, the last of the items. `what` is the call that fails. */
static int look(int folder, const char *name, struct content *content, bool left_out, const char **what) {
    struct item item = {.name = content->strings.length, .left_out = left_out};
    struct stat facts;
    *what = "fstatat";
    if (fstatat(folder, name, &facts, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT))
        return errno == ENOENT ? 0 : -errno;
    if (S_ISSOCK(facts.st_mode) || (left_out && !S_ISDIR(facts.st_mode)))
        return 0;
    describe(&item.facts, &facts);
    *what = "malloc";
    int rc = ls_bytes_add(&content->strings, name, strlen(name) + 1);
    if (!rc && S_ISLNK(facts.st_mode)) {
        *what = "readlinkat";
        rc = read_target(folder, name, content, &item);
    }
    rc = rc ?: ls_array_add(&content->items, item);
    return rc ?: S_ISDIR(facts.st_mode) != 0;
}

/* Hands on a folder that was found. `match` is what is known of it as a name, and as a folder after this. 1: nothing in it can be
 * meant. */
static int enter(struct ls_walk *walk, struct worker *worker, struct folder *above, struct item *item, const char *name,
                 struct ls_match *match) {
    bool left_out = match && match->left_out;
    if (match && !ls_match_enter(walk->rules, match, worker->spare) && left_out)
        return 1;
    struct folder *inner = (struct folder *)ls_pool_folder(&walk->pool, &above->base, name);
    if (!inner)
        return -ENOMEM;
    if (match && !(inner->match = malloc(ls_match_size(walk->rules)))) {
        free(inner);
        return -ENOMEM;
    }
    if (match)
        memcpy(inner->match, match, ls_match_size(walk->rules));
    if (!(inner->content = item->content = new_content(walk))) {
        free(inner->match);
        free(inner);
        return -ENOMEM;
    }
    ls_pool_found(&worker->base, &inner->base);
    return 0;
}

static int visit(struct ls_walk *walk, struct worker *worker, struct folder *folder, int fd, const char **what) {
    const struct ls_listing *listing = &worker->base.listing;
    struct ls_match *match = folder->match ? worker->match : NULL;
    if (match) {
        ls_match_name(walk->rules, folder->match, listing->name, match, worker->spare);
        if (match->left_out && listing->type != DT_DIR && listing->type != DT_UNKNOWN)
            return 0;
    }
    int rc = look(fd, listing->name, folder->content, match && match->left_out, what);
    if (rc <= 0)
        return rc;
    *what = "malloc";
    rc = enter(walk, worker, folder, &folder->content->items.list[folder->content->items.count - 1], listing->name,
               match);
    if (rc == 1)
        folder->content->items.count--;
    return rc < 0 ? rc : 0;
}

static int compare_names(const void *a, const void *b, void *strings) {
    const struct item *x = a, *y = b;
    return strcmp((char *)strings + x->name, (char *)strings + y->name);
}

static int list(struct ls_walk *walk, struct worker *worker, struct folder *folder, int fd) {
    struct ls_listing *listing = &worker->base.listing;
    int rc = ls_listing_begin(listing, fd, &worker->base.failure);
    while (!rc && (rc = ls_listing_next(listing)) > 0) {
        const char *what;
        worker->base.entries++;
        rc = visit(walk, worker, folder, fd, &what);
        if (rc)
            return ls_pool_fail(&walk->pool, &folder->base, listing->name, what, rc);
    }
    if (rc)
        return ls_pool_fail(&walk->pool, &folder->base, NULL, worker->base.failure.what, rc);
    struct content *content = folder->content;
    if (content->items.count > 1)
        qsort_r(content->items.list, content->items.count, sizeof *content->items.list, compare_names,
                content->strings.data);
    return 0;
}

static int ready(const struct ls_walk *walk, struct worker *worker) {
    if (!walk->rules)
        return 0;
    if (!worker->match)
        worker->match = malloc(ls_match_size(walk->rules));
    if (!worker->spare)
        worker->spare = malloc(ls_match_size(walk->rules));
    return worker->match && worker->spare ? 0 : -ENOMEM;
}

static void work(struct ls_worker *base_worker, struct ls_folder *base) {
    struct ls_walk *walk = (struct ls_walk *)base_worker->pool;
    struct worker *worker = (struct worker *)base_worker;
    struct folder *folder = (struct folder *)base;
    if (ls_pool_has_failed(&walk->pool))
        return;
    LS_FREED char *below = ls_folder_path(NULL, base, NULL);
    LS_BYTES_FREED struct ls_bytes path = {0};
    int rc = !below || ready(walk, worker) ? -ENOMEM
             : *below                      ? ls_bytes_path(&path, walk->top, below)
                                           : ls_bytes_text(&path, walk->top);
    if (rc) {
        ls_pool_fail(&walk->pool, base, NULL, "malloc", rc);
        return;
    }
    LS_CLOSED int fd =
        ls_open_beneath(walk->root, path.length ? (char *)path.data : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd >= 0)
        list(walk, worker, folder, fd);
    else if (!ls_is_absent(fd))
        ls_pool_fail(&walk->pool, base, NULL, "openat2", fd);
}

static bool leave(struct ls_pool *pool, struct ls_folder *base) {
    (void)pool;
    free(((struct folder *)base)->match);
    return false;
}

static const struct ls_task WALK = {
    .folder_size = sizeof(struct folder),
    .worker_size = sizeof(struct worker),
    .work = work,
    .leave = leave,
};

/* --- writing -------------------------------------------------------------------------------------------------------- */

static int write_item(struct ls_walk *walk, const struct content *content, struct item *item);

static int write_content(struct ls_walk *walk, const struct content *content) {
    int rc = 0;
    size_t length = walk->path.length;
    for (size_t i = 0; !rc && i < content->items.count; i++) {
        struct item *item = &content->items.list[i];
        rc = length ? ls_bytes_add(&walk->path, "/", 1) : 0;
        rc = rc ?: ls_bytes_text(&walk->path, (char *)content->strings.data + item->name);
        rc = rc ?: write_item(walk, content, item);
        walk->path.length = length;
    }
    return rc;
}

/* A folder that is left out, and nothing in it taken back, is not written after all. */
static int write_item(struct ls_walk *walk, const struct content *content, struct item *item) {
    size_t records = walk->records.length, strings = walk->strings.length;
    item->facts.path_length = (uint32_t)walk->path.length;
    item->facts.target_length = (uint32_t)item->target_length;
    int rc = ls_bytes_add(&walk->records, &item->facts, sizeof item->facts);
    rc = rc ?: ls_bytes_add(&walk->strings, walk->path.data, walk->path.length);
    if (!rc && item->target_length)
        rc = ls_bytes_add(&walk->strings, content->strings.data + item->target, item->target_length);
    walk->bytes += S_ISREG(item->facts.mode) ? (uint64_t)item->facts.size : 0;
    walk->files += !S_ISDIR(item->facts.mode);
    size_t own = walk->records.length;
    if (!rc && item->content)
        rc = write_content(walk, item->content);
    if (!rc && item->left_out && walk->records.length == own)
        walk->records.length = records, walk->strings.length = strings;
    return rc;
}

/* --- the top -------------------------------------------------------------------------------------------------------- */

/* What is known of `top`, of which each folder is matched. 1: neither it nor anything in it is meant. */
static int match_top(const struct ls_walk *walk, struct ls_match *match, bool *left_out) {
    size_t size = ls_match_size(walk->rules);
    LS_FREED struct ls_match *above = malloc(size), *spare = malloc(size);
    LS_FREED char *names = strdup(walk->top);
    if (!above || !spare || !names)
        return -ENOMEM;
    ls_match_root(walk->rules, match);
    int rc = 0;
    char *rest = NULL;
    for (char *name = strtok_r(names, "/", &rest); name && !rc; name = strtok_r(NULL, "/", &rest)) {
        memcpy(above, match, size);
        ls_match_name(walk->rules, above, name, match, spare);
        *left_out = match->left_out;
        rc = !ls_match_enter(walk->rules, match, spare) && *left_out;
    }
    return rc;
}

/* Lists the folder that is the top. Takes `match`. */
static int list_folder(struct ls_walk *walk, struct item *top, struct ls_match *match, int threads,
                       struct ls_failure *failure) {
    ls_pool_begin(&walk->pool, &WALK, threads);
    struct folder *root = (struct folder *)ls_pool_folder(&walk->pool, NULL, "");
    struct content *content = root ? new_content(walk) : NULL;
    int rc;
    if (content) {
        root->match = match;
        root->content = top->content = content;
        rc = ls_pool_run(&walk->pool, &root->base);
        if (rc)
            *failure = walk->pool.failure;
    } else {
        free(root);
        free(match);
        rc = ls_fail(failure, "malloc", -ENOMEM);
    }
    for (int i = 0; i < walk->pool.started; i++) {
        struct worker *worker = (struct worker *)walk->pool.workers[i];
        free(worker->match);
        free(worker->spare);
    }
    ls_pool_end(&walk->pool);
    return rc;
}

/* Describes the top by its descriptor. 1: it is no part of any tree. */
static int look_at_top(int fd, struct content *content, struct item *top, struct ls_failure *failure) {
    struct stat facts;
    if (fstat(fd, &facts))
        return LS_FAIL(failure, "fstat");
    if (S_ISSOCK(facts.st_mode) || (top->left_out && !S_ISDIR(facts.st_mode)))
        return 1;
    describe(&top->facts, &facts);
    int rc = S_ISLNK(facts.st_mode) ? read_target(fd, "", content, top) : 0;
    return rc ? ls_fail(failure, "readlinkat", rc) : 0;
}

int ls_walk_run(struct ls_walk *walk, int root, const char *top, const struct ls_rules *rules, int threads,
                struct ls_failure *failure) {
    struct item item = {0};
    LS_FREED struct ls_match *match = rules ? malloc(ls_match_size(rules)) : NULL;
    struct content *content = new_content(walk);
    if (!content || (rules && !match))
        return ls_fail(failure, "malloc", -ENOMEM);
    walk->root = root, walk->top = top, walk->rules = rules;
    int rc = match ? match_top(walk, match, &item.left_out) : 0;
    if (rc)
        return rc < 0 ? ls_fail(failure, "malloc", rc) : 0;
    LS_CLOSED int fd = ls_open_beneath(root, *top ? top : ".", O_PATH | O_NOFOLLOW, 0);
    if (fd < 0)
        return ls_is_absent(fd) ? 0 : ls_fail(failure, "openat2", fd);
    rc = look_at_top(fd, content, &item, failure);
    if (rc)
        return rc < 0 ? rc : 0;
    if (S_ISDIR(item.facts.mode))
        rc = list_folder(walk, &item, LS_TAKE(match), threads, failure);
    if (rc)
        return rc;
    rc = ls_bytes_text(&walk->path, top) ?: write_item(walk, content, &item);
    return rc ? ls_fail(failure, "malloc", rc) : 0;
}

size_t ls_walk_records(struct ls_walk *walk, const uint8_t **data) {
    *data = walk->records.data;
    return walk->records.length;
}

size_t ls_walk_strings(struct ls_walk *walk, const uint8_t **data) {
    *data = walk->strings.data;
    return walk->strings.length;
}

void ls_walk_sums(const struct ls_walk *walk, uint64_t *bytes, uint64_t *files) {
    *bytes = walk->bytes, *files = walk->files;
}
