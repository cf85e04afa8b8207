/* See linked.h. A directory is read layer by layer, from the top: the first layer that has a name gives it, and a mark
 * hides it in the layers below its own. Nothing is made twice, and nothing that was made is taken away again. */
#define _GNU_SOURCE
#include "../kernel/files/bytes.h"
#include "../kernel/files/entry.h"
#include "../kernel/files/files.h"
#include "../kernel/files/marks.h"
#include "linked.h"

#include <dirent.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* A directory of the target, and the layers that it is made of, the topmost first. */
struct folder {
    struct folder *next;
    size_t count;
    size_t *layers;
    char *path;
};

struct stack {
    const int *layers;
    size_t count;
    int target;
    struct folder *todo, *done;
    struct ls_bytes path; /* of the name in hand */
    const char *call;
    char *where;
    size_t room;
};

/* Names of one directory that lower layers no longer decide. */
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
    char *copy = strdup(name);
    if (copy && tsearch(copy, &names->tree, by_name))
        return 0;
    free(copy);
    return -ENOMEM;
}

static void forget(struct names *names) {
    while (names->tree) {
        char *name = *(char **)names->tree;
        tdelete(name, &names->tree, by_name);
        free(name);
    }
}

static int fail(struct stack *stack, int code, const char *call, const char *path) {
    stack->call = call;
    snprintf(stack->where, stack->room, "%s", path);
    return code;
}

static void free_folder(struct folder *folder) {
    free(folder->layers);
    free(folder->path);
    free(folder);
}

static int has(int layer, const char *folder, const char *name, struct stat *facts) {
    struct ls_bytes path = {0};
    int rc = (*folder ? ls_bytes_add(&path, folder, strlen(folder)) ?: ls_bytes_add(&path, "/", 1) : 0)
                 ?: ls_bytes_add(&path, name, strlen(name));
    rc = rc ? rc
         : fstatat(layer, (char *)path.data, facts, AT_SYMLINK_NOFOLLOW)
             ? (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG ? 0 : -errno)
             : 1;
    ls_bytes_free(&path);
    return rc;
}

static int has_whiteout(int layer, const char *folder, const char *name) {
    char marker[NAME_MAX + 1];
    struct stat facts;
    return ls_whiteout_of(name, marker) ? 0 : has(layer, folder, marker, &facts); /* 0: no name could be that long */
}

/* The layers, of those that `above` is made of and from the one at `first` on, that the directory `name` in it is made of. */
static int add_folder(struct stack *stack, const struct folder *above, size_t first, const char *name) {
    const char *path = (char *)stack->path.data;
    struct folder *folder = calloc(1, sizeof *folder);
    struct stat facts;
    int rc = folder && (folder->path = strdup(path)) &&
                     (folder->layers = calloc(above->count - first, sizeof *folder->layers))
                 ? 0
                 : -ENOMEM;
    for (size_t i = first; rc == 0 && i < above->count; i++) {
        int layer = stack->layers[above->layers[i]];
        int there = has(layer, above->path, name, &facts);
        if (there > 0 && !S_ISDIR(facts.st_mode))
            break;
        if (there > 0) {
            folder->layers[folder->count++] = above->layers[i];
            there = has(layer, path, LS_OPAQUE_NAME, &facts);
        }
        int hidden = there != 0 ? there : has_whiteout(layer, above->path, name);
        if (hidden > 0)
            break;
        rc = hidden;
    }
    if (rc < 0) {
        if (folder)
            free_folder(folder);
        return fail(stack, rc, "fstatat", path);
    }
    folder->next = stack->todo;
    stack->todo = folder;
    return 0;
}

static int make(struct stack *stack, const struct folder *above, size_t at, const char *name) {
    const char *path = (char *)stack->path.data, *call = "fstatat";
    int layer = stack->layers[above->layers[at]];
    struct stat facts;
    if (fstatat(layer, path, &facts, AT_SYMLINK_NOFOLLOW))
        return fail(stack, -errno, call, path);
    if (S_ISDIR(facts.st_mode))
        return mkdirat(stack->target, path, 0700) ? fail(stack, -errno, "mkdirat", path)
                                                  : add_folder(stack, above, at, name);
    if (!linkat(layer, path, stack->target, path, 0))
        return 0;
    if (errno != EMLINK)
        return fail(stack, -errno, "linkat", path);
    int from = ls_open_beneath(layer, path, O_PATH | O_NOFOLLOW, 0);
    int rc = from < 0 ? from : ls_entry_copy(from, stack->target, path, &facts, &call);
    if (from >= 0)
        close(from);
    return rc ? fail(stack, rc, call, path) : 0;
}

static int visit(struct stack *stack, const struct folder *folder, size_t at, const char *name, struct names *seen,
                 struct names *hidden) {
    const char *whiteout = ls_hidden_by(name);
    if (!strcmp(name, ".") || !strcmp(name, "..") || ls_is_meta(name, strlen(name)) || (!whiteout && knows(seen, name)))
        return 0;
    stack->path.length = 0;
    int rc = (*folder->path
                  ? ls_bytes_add(&stack->path, folder->path, strlen(folder->path)) ?: ls_bytes_add(&stack->path, "/", 1)
                  : 0)
                 ?: ls_bytes_add(&stack->path, name, strlen(name));
    rc = rc ?: learn(whiteout ? hidden : seen, whiteout ? whiteout : name);
    if (rc)
        return fail(stack, rc, "malloc", name);
    return whiteout ? 0 : make(stack, folder, at, name);
}

static void learn_one(const void *node, VISIT visit, void *closure) {
    if (visit == postorder || visit == leaf) {
        struct names *seen = ((void **)closure)[0];
        int *rc = ((void **)closure)[1];
        *rc = *rc ?: learn(seen, *(char *const *)node);
    }
}

static int read_folder(struct stack *stack, const struct folder *folder) {
    struct names seen = {0};
    int rc = 0;
    for (size_t at = 0; !rc && at < folder->count; at++) {
        struct names hidden = {0}; /* in the layers below this one */
        int fd = ls_open_beneath(stack->layers[folder->layers[at]], *folder->path ? folder->path : ".",
                                 O_RDONLY | O_DIRECTORY, 0);
        DIR *listing = fd < 0 ? NULL : fdopendir(fd);
        if (!listing) {
            rc = fail(stack, fd < 0 ? fd : -errno, "openat2", folder->path);
            if (fd >= 0)
                close(fd);
        }
        errno = 0;
        for (struct dirent *one; !rc && (one = readdir(listing)); errno = 0)
            rc = visit(stack, folder, at, one->d_name, &seen, &hidden);
        if (!rc && errno)
            rc = fail(stack, -errno, "readdir", folder->path);
        if (listing)
            closedir(listing);
        void *closure[2] = {&seen, &rc};
        twalk_r(hidden.tree, learn_one, closure);
        forget(&hidden);
    }
    forget(&seen);
    return rc;
}

/* Each name made in a directory changes its time, so attributes come last, and the innermost first. */
static int settle(struct stack *stack, const struct folder *folder) {
    const char *path = *folder->path ? folder->path : ".", *call = "openat2";
    int from = ls_open_beneath(stack->layers[folder->layers[0]], path, O_PATH | O_DIRECTORY, 0);
    int to = from < 0 ? from : ls_open_beneath(stack->target, path, O_PATH | O_DIRECTORY, 0);
    struct stat facts;
    int rc = to < 0 ? to : fstat(from, &facts) ? -errno : ls_entry_settle(from, to, &facts, &call);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return rc ? fail(stack, rc, call, folder->path) : 0;
}

int ls_link_stack(const int *layers, size_t count, int target, const char **call, char *where, size_t room) {
    struct stack stack = {.layers = layers, .count = count, .target = target, .where = where, .room = room, .call = ""};
    struct folder *root = calloc(1, sizeof *root);
    int rc = root && (root->path = strdup("")) && (root->layers = calloc(count, sizeof *root->layers))
                 ? 0
                 : fail(&stack, -ENOMEM, "malloc", "");
    for (size_t i = 0; !rc && i < count; i++)
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
        free_folder(folder);
    }
    ls_bytes_free(&stack.path);
    *call = stack.call;
    return rc;
}
