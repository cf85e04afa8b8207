/* See linked.h. A directory is read layer by layer, from the top: the first layer that has a name gives it, and a mark
 * hides it in the layers below its own. Nothing is made twice, and nothing that was made is taken away again. */
#define _GNU_SOURCE
#include "linked.h"
#include "../kernel/files/bytes.h"
#include "../kernel/files/entry.h"
#include "../kernel/files/files.h"
#include "../kernel/files/listing.h"
#include "../kernel/files/marks.h"
#include "../kernel/files/scope.h"

#include <fcntl.h>
#include <search.h>
#include <sys/stat.h>
#include <unistd.h>

/* A directory of the target, and the layers that it is made of, the topmost first. */
struct folder {
    struct folder *next;
    const char *path;
    size_t count;
    size_t layers[]; /* the path follows them */
};

struct stack {
    const int *layers;
    size_t count;
    int target;
    struct folder *todo, *done;
    struct ls_bytes path; /* of the name in hand */
    struct ls_failure *failure;
};

/* --- sets of names ------------------------------------------------------------------------------------------------ */

struct names {
    void *tree;
};

static int by_name(const void *a, const void *b) {
    return strcmp(a, b);
}

static bool knows(const struct names *names, const char *name) {
    return tfind(name, &names->tree, by_name) != NULL;
}

static int learn(struct names *names, const char *name) {
    if (knows(names, name))
        return 0;
    LS_FREED char *copy = strdup(name);
    if (!copy || !tsearch(copy, &names->tree, by_name))
        return -ENOMEM;
    (void)LS_TAKE(copy);
    return 0;
}

static void forget(struct names *names) {
    while (names->tree) {
        char *name = *(char **)names->tree;
        tdelete(name, &names->tree, by_name);
        free(name);
    }
}

#define FORGOTTEN __attribute__((cleanup(forget)))

/* `others` are no more than they were, or fewer: their names belong to `names` then. */
static int learn_all(struct names *names, struct names *others) {
    int rc = 0;
    while (others->tree && !rc) {
        LS_FREED char *name = *(char **)others->tree;
        tdelete(name, &others->tree, by_name);
        rc = learn(names, name);
    }
    return rc;
}

/* --- folders ------------------------------------------------------------------------------------------------------ */

static int fail(struct stack *stack, const char *call, int code, const char *path) {
    ls_fail(stack->failure, call, code);
    return ls_fail_at(stack->failure, path);
}

/* With room for `most` layers. NULL: no memory. */
static struct folder *new_folder(const char *path, size_t most) {
    size_t size = offsetof(struct folder, layers) + most * sizeof(size_t), length = strlen(path) + 1;
    struct folder *folder = malloc(size + length);
    if (folder)
        *folder = (struct folder){.path = memcpy((char *)folder + size, path, length)};
    return folder;
}

/* Whether a layer has this name in this directory; or -errno. */
static int has(int layer, const char *folder, const char *name, struct stat *facts) {
    LS_BYTES_FREED struct ls_bytes path = {0};
    int rc = ls_bytes_path(&path, folder, name);
    if (rc)
        return rc;
    if (!fstatat(layer, (char *)path.data, facts, AT_SYMLINK_NOFOLLOW))
        return 1;
    return errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG ? 0 : -errno;
}

static int has_whiteout(int layer, const char *folder, const char *name) {
    char marker[NAME_MAX + 1];
    struct stat facts;
    return ls_whiteout_of(name, marker) ? 0 : has(layer, folder, marker, &facts); /* 0: no name could be that long */
}

/* 1: no layer below `layer` has a part in the directory `name`, since something there hides it; 0: one may have; or -errno. */
static int add_layer(struct stack *stack, struct folder *folder, const struct folder *above, size_t number,
                     const char *name) {
    int layer = stack->layers[number];
    struct stat facts;
    int there = has(layer, above->path, name, &facts);
    if (there < 0)
        return there;
    if (there && !S_ISDIR(facts.st_mode))
        return 1;
    if (there)
        folder->layers[folder->count++] = number;
    int hidden = there ? has(layer, folder->path, LS_OPAQUE_NAME, &facts) : 0;
    return hidden ? hidden : has_whiteout(layer, above->path, name);
}

/* The layers, of those that `above` is made of and from the one at `first` on, that the directory `name` in it is made of. */
static int add_folder(struct stack *stack, const struct folder *above, size_t first, const char *name) {
    const char *path = (char *)stack->path.data;
    LS_FREED struct folder *folder = new_folder(path, above->count - first);
    if (!folder)
        return fail(stack, "malloc", -ENOMEM, path);
    int rc = 0;
    for (size_t i = first; !rc && i < above->count; i++)
        rc = add_layer(stack, folder, above, above->layers[i], name);
    if (rc < 0)
        return fail(stack, rc == -ENOMEM ? "malloc" : "fstatat", rc, path);
    folder->next = stack->todo;
    stack->todo = LS_TAKE(folder);
    return 0;
}

static int make(struct stack *stack, const struct folder *above, size_t at, const char *name) {
    const char *path = (char *)stack->path.data;
    int layer = stack->layers[above->layers[at]];
    struct stat facts;
    if (fstatat(layer, path, &facts, AT_SYMLINK_NOFOLLOW))
        return fail(stack, "fstatat", -errno, path);
    if (S_ISDIR(facts.st_mode))
        return mkdirat(stack->target, path, 0700) ? fail(stack, "mkdirat", -errno, path)
                                                  : add_folder(stack, above, at, name);
    if (!linkat(layer, path, stack->target, path, 0))
        return 0;
    if (errno != EMLINK)
        return fail(stack, "linkat", -errno, path);
    LS_CLOSED int from = ls_open_beneath(layer, path, O_PATH | O_NOFOLLOW, 0);
    if (from < 0)
        return fail(stack, "openat2", from, path);
    return ls_entry_copy(from, stack->target, path, &facts, stack->failure) ? ls_fail_at(stack->failure, path) : 0;
}

static int visit(struct stack *stack, const struct folder *folder, size_t at, const char *name, struct names *seen,
                 struct names *hidden) {
    const char *whiteout = ls_hidden_by(name);
    if (ls_is_meta(name, strlen(name)) || (!whiteout && knows(seen, name)))
        return 0;
    int rc = ls_bytes_path(&stack->path, folder->path, name);
    rc = rc ?: learn(whiteout ? hidden : seen, whiteout ? whiteout : name);
    if (rc)
        return fail(stack, "malloc", rc, folder->path);
    return whiteout ? 0 : make(stack, folder, at, name);
}

/* What one layer has in a directory. `seen` are the names that it does not decide, and then those that no lower one does. */
static int read_layer(struct stack *stack, const struct folder *folder, size_t at, struct names *seen) {
    FORGOTTEN struct names hidden = {0}; /* in the layers below this one */
    LS_LISTED struct ls_listing listing = {0};
    LS_CLOSED int fd = ls_open_beneath(stack->layers[folder->layers[at]], *folder->path ? folder->path : ".",
                                       O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fail(stack, "openat2", fd, folder->path);
    int rc = ls_listing_begin(&listing, fd, stack->failure);
    while (!rc && (rc = ls_listing_next(&listing)) > 0)
        rc = visit(stack, folder, at, listing.name, seen, &hidden);
    if (rc)
        return ls_fail_at(stack->failure, folder->path);
    return learn_all(seen, &hidden) ? fail(stack, "malloc", -ENOMEM, folder->path) : 0;
}

static int read_folder(struct stack *stack, const struct folder *folder) {
    FORGOTTEN struct names seen = {0};
    int rc = 0;
    for (size_t at = 0; !rc && at < folder->count; at++)
        rc = read_layer(stack, folder, at, &seen);
    return rc;
}

/* Each name made in a directory changes its time, so attributes come last, and the innermost first. */
static int settle(struct stack *stack, const struct folder *folder) {
    const char *path = *folder->path ? folder->path : ".";
    LS_CLOSED int from = ls_open_beneath(stack->layers[folder->layers[0]], path, O_PATH | O_DIRECTORY, 0);
    LS_CLOSED int to = from < 0 ? from : ls_open_beneath(stack->target, path, O_PATH | O_DIRECTORY, 0);
    struct stat facts;
    if (to < 0)
        return fail(stack, "openat2", to, folder->path);
    if (fstat(from, &facts))
        return fail(stack, "fstat", -errno, folder->path);
    return ls_entry_settle(from, to, &facts, stack->failure) ? ls_fail_at(stack->failure, folder->path) : 0;
}

int ls_link_stack(const int *layers, size_t count, int target, struct ls_failure *failure) {
    struct stack stack = {.layers = layers, .count = count, .target = target, .failure = failure};
    struct folder *root = new_folder("", count);
    int rc = root ? 0 : fail(&stack, "malloc", -ENOMEM, "");
    for (size_t i = 0; root && i < count; i++)
        root->layers[root->count++] = i;
    stack.todo = root;
    while (stack.todo) {
        struct folder *folder = stack.todo;
        stack.todo = folder->next;
        rc = rc ?: read_folder(&stack, folder);
        folder->next = stack.done;
        stack.done = folder;
    }
    while (stack.done) { /* those made last come first */
        struct folder *folder = stack.done;
        stack.done = folder->next;
        rc = rc ?: settle(&stack, folder);
        free(folder);
    }
    ls_bytes_free(&stack.path);
    return rc;
}
