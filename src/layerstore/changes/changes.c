/* The list of a comparison: what was found, put in order and made complete. */
#define _GNU_SOURCE
#include "internal.h"

#include <limits.h>

struct ls_changes *ls_changes_new(void) {
    return calloc(1, sizeof(struct ls_changes));
}

static void free_founds(struct founds *founds) {
    for (size_t i = 0; i < founds->count; i++)
        free(founds->list[i].path);
    ls_array_free(founds);
}

void ls_changes_free(struct ls_changes *changes) {
    if (!changes)
        return;
    for (struct folder *folder = changes->todo, *next; folder; folder = next) {
        next = folder->next;
        free(folder);
    }
    free_founds(&changes->found);
    free_founds(&changes->surplus);
    for (size_t i = 0; i < changes->linked.count; i++)
        free(changes->linked.list[i].path);
    ls_array_free(&changes->linked);
    ls_bytes_free(&changes->list);
    free(changes);
}

int ls_changes_fail(struct ls_changes *changes, const char *call, int code, const char *path) {
    ls_fail(&changes->failure, call, code);
    return ls_fail_at(&changes->failure, path);
}

const struct ls_failure *ls_changes_failure(const struct ls_changes *changes) {
    return &changes->failure;
}

static int append(struct ls_changes *changes, struct founds *founds, char kind, const char *path) {
    LS_FREED char *copy = strdup(path);
    if (!copy || ls_array_add(founds, (struct found){copy, kind}))
        return ls_changes_fail(changes, "malloc", -ENOMEM, path);
    (void)LS_TAKE(copy);
    return 0;
}

int ls_changes_add(struct ls_changes *changes, char kind, const char *path) {
    return append(changes, &changes->found, kind, path);
}

int ls_changes_add_surplus(struct ls_changes *changes, char kind, const char *path) {
    return append(changes, &changes->surplus, kind, path);
}

int ls_changes_remember_link(struct ls_changes *changes, const struct stat *facts, const char *path, bool changed) {
    LS_FREED char *copy = strdup(path);
    if (!copy || ls_array_add(&changes->linked, (struct linked){facts->st_dev, facts->st_ino, copy, changed}))
        return ls_changes_fail(changes, "malloc", -ENOMEM, path);
    (void)LS_TAKE(copy);
    return 0;
}

/* --- putting it in order ------------------------------------------------------------------------------------------ */

static int by_path(const void *a, const void *b) {
    return strcmp(((const struct found *)a)->path, ((const struct found *)b)->path);
}

/* Among the first `count`, which are sorted. */
static struct found *find(const struct founds *founds, size_t count, const char *path) {
    const struct found wanted = {(char *)path, 0};
    return count ? bsearch(&wanted, founds->list, count, sizeof wanted, by_path) : NULL;
}

bool ls_changes_is_removed(const struct ls_changes *changes, const char *path) {
    const struct found *found = find(&changes->found, changes->found.count, path);
    return found && found->kind == 'D';
}

void ls_changes_sort_surplus(struct ls_changes *changes) {
    ls_array_sort(&changes->surplus, by_path);
}

static int by_inode(const void *a, const void *b) {
    const struct linked *x = a, *y = b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->inode == y->inode ? 0 : x->inode < y->inode ? -1 : 1;
}

static int complete_links(struct ls_changes *changes) {
    const struct linked *linked = changes->linked.list;
    size_t count = changes->linked.count;
    ls_array_sort(&changes->linked, by_inode);
    for (size_t begin = 0, end; begin < count; begin = end) {
        bool changed = false;
        for (end = begin; end < count && !by_inode(&linked[begin], &linked[end]); end++)
            changed |= linked[end].changed;
        for (size_t i = begin; changed && i < end; i++)
            if (!linked[i].changed && ls_changes_add(changes, 'C', linked[i].path))
                return -ENOMEM;
    }
    return 0;
}

/* Whether `path`, of `length` bytes, is the folder that `known` lies in, or one above it. */
static bool holds(const char *path, size_t length, const char *known) {
    return !strncmp(known, path, length) && known[length] == '/';
}

/* The directories above one change, from the innermost on, up to one that `known` lies in: that one has been seen to. */
static int complete_above(struct ls_changes *changes, size_t sorted, const char *changed, const char *known) {
    char path[PATH_MAX];
    strcpy(path, changed); /* which is shorter: compare.c lets no other in */
    for (char *slash = strrchr(path, '/'); slash; slash = strrchr(path, '/')) {
        *slash = 0;
        if (holds(path, (size_t)(slash - path), known))
            return 0;
        struct found *there = find(&changes->found, sorted, path);
        if (there && there->kind == UNCHANGED)
            there->kind = 'C';
        else if (!there && ls_changes_add(changes, 'C', path))
            return -ENOMEM;
    }
    return 0;
}

/* A directory that holds a change is a change. Paths are sorted, so a missing one shows by not being found. */
static int complete_parents(struct ls_changes *changes) {
    size_t sorted = changes->found.count;
    const char *known = "";
    int rc = 0;
    for (size_t i = 0; !rc && i < sorted; i++) {
        const char *path = changes->found.list[i].path;
        if (changes->found.list[i].kind == UNCHANGED)
            continue;
        rc = complete_above(changes, sorted, path, known);
        known = path;
    }
    return rc;
}

/* Leaves each path once: a parent may be found from two of its children, and a link twice. */
static void drop_doubles(struct founds *found) {
    size_t kept = 0;
    for (size_t i = 0; i < found->count; i++) {
        struct found *last = kept ? &found->list[kept - 1] : NULL, *one = &found->list[i];
        if (last && !strcmp(last->path, one->path)) {
            if (last->kind == UNCHANGED)
                last->kind = one->kind;
            free(one->path);
        } else
            found->list[kept++] = *one;
    }
    found->count = kept;
}

/* What turned out to be no change belongs to the surplus. */
static int move_unchanged(struct ls_changes *changes) {
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; i < changes->found.count; i++) {
        struct found one = changes->found.list[i];
        bool moves = one.kind == UNCHANGED && !rc;
        rc = moves ? ls_array_add(&changes->surplus, one) : rc;
        if (!moves || rc)
            changes->found.list[kept++] = one;
    }
    changes->found.count = kept;
    return rc;
}

static int write_list(struct ls_changes *changes) {
    int rc = 0;
    for (size_t i = 0; !rc && i < changes->found.count; i++) {
        const struct found *found = &changes->found.list[i];
        rc = ls_bytes_add(&changes->list, &found->kind, 1)
                 ?: ls_bytes_add(&changes->list, found->path, strlen(found->path) + 1);
    }
    return rc;
}

int ls_changes_finish(struct ls_changes *changes) {
    int rc = complete_links(changes);
    if (rc)
        return rc;
    ls_array_sort(&changes->found, by_path);
    rc = complete_parents(changes);
    if (rc)
        return rc;
    ls_array_sort(&changes->found, by_path);
    drop_doubles(&changes->found);
    rc = move_unchanged(changes) ?: write_list(changes);
    return rc ? ls_changes_fail(changes, "malloc", rc, "") : 0;
}

size_t ls_changes_list(struct ls_changes *changes, const uint8_t **data) {
    *data = changes->list.data;
    return changes->list.length;
}

int ls_changes_can_be_exact(struct ls_changes *changes) {
    return !changes->needs_copy;
}
