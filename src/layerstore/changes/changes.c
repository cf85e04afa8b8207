/* The list of a comparison: what was found, put in order and made complete. */
#define _GNU_SOURCE
#include "internal.h"

struct ls_changes *ls_changes_new(void) {
    return calloc(1, sizeof(struct ls_changes));
}

void ls_changes_free(struct ls_changes *changes) {
    if (!changes)
        return;
    for (struct folder *folder = changes->todo, *next; folder; folder = next) {
        next = folder->next;
        free(folder);
    }
    for (size_t i = 0; i < changes->count; i++)
        free(changes->found[i].path);
    for (size_t i = 0; i < changes->surplus_count; i++)
        free(changes->surplus[i].path);
    for (size_t i = 0; i < changes->linked_count; i++)
        free(changes->linked[i].path);
    free(changes->found);
    free(changes->surplus);
    free(changes->linked);
    ls_bytes_free(&changes->list);
    free(changes->failed);
    free(changes);
}

int ls_changes_fail(struct ls_changes *changes, int code, const char *call, const char *path) {
    if (!changes->code) {
        changes->code = code;
        changes->call = call;
        changes->failed = strdup(path);
    }
    return code;
}

void ls_changes_failed(struct ls_changes *changes, struct ls_changes_failure *failure) {
    *failure = (struct ls_changes_failure){-changes->code, changes->call ? changes->call : "",
                                           changes->failed ? changes->failed : ""};
}

static int append(struct ls_changes *changes, struct found **list, size_t *count, size_t *room, char kind,
                  const char *path) {
    if (*count == *room) {
        size_t more = *room ? *room * 2 : 64;
        struct found *grown = realloc(*list, more * sizeof *grown);
        if (!grown)
            return ls_changes_fail(changes, -ENOMEM, "realloc", path);
        *list = grown;
        *room = more;
    }
    char *copy = strdup(path);
    if (!copy)
        return ls_changes_fail(changes, -ENOMEM, "strdup", path);
    (*list)[(*count)++] = (struct found){copy, kind};
    return 0;
}

int ls_changes_add(struct ls_changes *changes, char kind, const char *path) {
    return append(changes, &changes->found, &changes->count, &changes->room, kind, path);
}

int ls_changes_add_surplus(struct ls_changes *changes, char kind, const char *path) {
    return append(changes, &changes->surplus, &changes->surplus_count, &changes->surplus_room, kind, path);
}

int ls_changes_remember_link(struct ls_changes *changes, const struct stat *facts, const char *path, bool changed) {
    if (changes->linked_count == changes->linked_room) {
        size_t room = changes->linked_room ? changes->linked_room * 2 : 64;
        struct linked *grown = realloc(changes->linked, room * sizeof *grown);
        if (!grown)
            return ls_changes_fail(changes, -ENOMEM, "realloc", path);
        changes->linked = grown;
        changes->linked_room = room;
    }
    char *copy = strdup(path);
    if (!copy)
        return ls_changes_fail(changes, -ENOMEM, "strdup", path);
    changes->linked[changes->linked_count++] = (struct linked){facts->st_dev, facts->st_ino, copy, changed};
    return 0;
}

/* --- putting it in order ------------------------------------------------------------------------------------------ */

static int by_inode(const void *a, const void *b) {
    const struct linked *x = a, *y = b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->inode == y->inode ? 0 : x->inode < y->inode ? -1 : 1;
}

static int complete_links(struct ls_changes *changes) {
    if (changes->linked_count)
        qsort(changes->linked, changes->linked_count, sizeof *changes->linked, by_inode);
    for (size_t begin = 0, end; begin < changes->linked_count; begin = end) {
        bool changed = false;
        for (end = begin; end < changes->linked_count && !by_inode(&changes->linked[begin], &changes->linked[end]);
             end++)
            changed |= changes->linked[end].changed;
        for (size_t i = begin; changed && i < end; i++)
            if (!changes->linked[i].changed && ls_changes_add(changes, 'C', changes->linked[i].path))
                return -ENOMEM;
    }
    return 0;
}

int ls_changes_by_path(const void *a, const void *b) {
    return strcmp(((const struct found *)a)->path, ((const struct found *)b)->path);
}

/* A directory that holds a change is a change. Paths are sorted, so a missing one shows by not being found. */
static int complete_parents(struct ls_changes *changes) {
    size_t sorted = changes->count;
    char *known = strdup("");
    for (size_t i = 0; known && i < sorted; i++) {
        if (changes->found[i].kind == UNCHANGED)
            continue;
        char *path = strdup(changes->found[i].path);
        for (char *slash = path ? strrchr(path, '/') : NULL; slash; slash = strrchr(path, '/')) {
            *slash = 0;
            size_t length = strlen(path);
            if (!strncmp(known, path, length) && (known[length] == '/' || !known[length]))
                break; /* it and those above it have been seen to */
            struct found wanted = {path, 0},
                         *there = bsearch(&wanted, changes->found, sorted, sizeof wanted, ls_changes_by_path);
            if (there && there->kind == UNCHANGED)
                there->kind = 'C';
            else if (!there && ls_changes_add(changes, 'C', path)) {
                free(path);
                free(known);
                return -ENOMEM;
            }
        }
        free(path);
        free(known);
        char *slash = strrchr(changes->found[i].path, '/');
        known = strndup(changes->found[i].path, slash ? (size_t)(slash - changes->found[i].path) : 0);
    }
    if (!known)
        return ls_changes_fail(changes, -ENOMEM, "strdup", "");
    free(known);
    return 0;
}

int ls_changes_finish(struct ls_changes *changes) {
    int rc = complete_links(changes);
    if (!rc && changes->count) {
        qsort(changes->found, changes->count, sizeof *changes->found, ls_changes_by_path);
        rc = complete_parents(changes);
        qsort(changes->found, changes->count, sizeof *changes->found, ls_changes_by_path);
    }
    size_t kept = 0;
    for (size_t i = 0; i < changes->count; i++) {
        struct found *last = kept ? &changes->found[kept - 1] : NULL, *one = &changes->found[i];
        if (last && !strcmp(last->path, one->path)) { /* a parent found from two of its children, a link found twice */
            if (last->kind == UNCHANGED)
                last->kind = one->kind;
            free(one->path);
        } else
            changes->found[kept++] = *one;
    }
    size_t listed = 0;
    for (size_t i = 0; i < kept; i++) {
        if (changes->found[i].kind == UNCHANGED) {
            if (!rc)
                rc = ls_changes_add_surplus(changes, UNCHANGED, changes->found[i].path);
            free(changes->found[i].path);
        } else
            changes->found[listed++] = changes->found[i];
    }
    kept = listed;
    changes->count = kept;
    for (size_t i = 0; !rc && i < changes->count; i++) {
        rc = ls_bytes_add(&changes->list, &changes->found[i].kind, 1)
                 ?: ls_bytes_add(&changes->list, changes->found[i].path, strlen(changes->found[i].path) + 1);
        if (rc)
            ls_changes_fail(changes, rc, "malloc", "");
    }
    return rc;
}

size_t ls_changes_list(struct ls_changes *changes, const uint8_t **data) {
    *data = changes->list.data;
    return changes->list.length;
}

size_t ls_changes_count(struct ls_changes *changes) {
    return changes->count;
}
int ls_changes_can_be_exact(struct ls_changes *changes) {
    return !changes->needs_copy;
}
