/* Memory, names and inodes of a stack. See tree.h. */
#define _GNU_SOURCE
#include "tree.h"

#include "../tar/xxh64.h"

#include <sys/random.h>

enum { PIECE = 1 << 18 };

/* --- life --------------------------------------------------------------------------------------------------------- */

struct ls_piece {
    struct ls_piece *before;
    uint64_t data[];
};

void *ls_stack_get(struct ls_stack *stack, size_t size) {
    size = (size + 7) & ~(size_t)7;
    if (size > stack->piece_left) {
        size_t room = size > PIECE ? size : PIECE;
        struct ls_piece *piece = calloc(1, sizeof *piece + room);
        if (!piece) {
            ls_fail(&stack->failure, "malloc", -ENOMEM);
            return NULL;
        }
        piece->before = stack->pieces;
        stack->pieces = piece;
        stack->piece_left = room;
    }
    stack->piece_left -= size; /* from its end to its begin */
    return (uint8_t *)stack->pieces->data + stack->piece_left;
}

struct ls_inode *ls_inode_new(struct ls_stack *stack, unsigned type) {
    struct ls_inode *inode = ls_stack_get(stack, sizeof *inode);
    if (!inode)
        return NULL;
    inode->type = (uint8_t)type;
    inode->payload = -1;
    return inode;
}

struct ls_stack *ls_stack_new(void) {
    struct ls_stack *stack = calloc(1, sizeof *stack);
    if (!stack)
        return NULL;
    if (getrandom(&stack->seed, sizeof stack->seed, GRND_NONBLOCK) != sizeof stack->seed)
        stack->seed = (uint64_t)(uintptr_t)stack;
    stack->bucket_count = 1024;
    stack->buckets = calloc(stack->bucket_count, sizeof *stack->buckets);
    stack->root = ls_stack_get(stack, sizeof *stack->root);
    struct ls_inode *inode = stack->root ? ls_inode_new(stack, LS_DIRECTORY) : NULL;
    if (!stack->buckets || !inode) {
        ls_stack_free(stack);
        return NULL;
    }
    inode->mode = 0755;
    inode->name = stack->root;
    stack->root->inode = inode;
    return stack;
}

void ls_stack_free(struct ls_stack *stack) {
    if (!stack)
        return;
    for (struct ls_piece *piece = stack->pieces, *before; piece; piece = before) {
        before = piece->before;
        free(piece);
    }
    for (size_t i = 0; i < stack->layers.count; i++) {
        free(stack->layers.list[i]->tar);
        ls_array_free(&stack->layers.list[i]->payloads);
        ls_array_free(&stack->layers.list[i]->extents);
        free(stack->layers.list[i]);
    }
    ls_array_free(&stack->layers);
    free(stack->buckets);
    free(stack);
}

void ls_stack_tell(const struct ls_stack *stack, struct ls_stack_facts *facts) {
    *facts = stack->facts;
}

/* --- failures ----------------------------------------------------------------------------------------------------- */

void ls_stack_failure(const struct ls_stack *stack, struct ls_failure *failure) {
    *failure = stack->failure;
}

int ls_stack_failed(struct ls_stack *stack, const struct ls_inode *inode) {
    char path[sizeof stack->failure.path];
    size_t at = sizeof path - 1;
    path[at] = 0;
    for (const struct ls_name *name = inode->name; name->folder && at > name->text.length; name = name->folder->name) {
        at -= name->text.length;
        memcpy(path + at, name->text.data, name->text.length);
        if (name->folder->name->folder)
            path[--at] = '/';
    }
    return ls_fail_at(&stack->failure, path + at);
}

int ls_stack_refuse(struct ls_stack *stack, const struct ls_inode *inode, const char *sentence) {
    ls_fail_as(&stack->failure, LS_FAIL_DIALECT, EFBIG, sentence, "", 0);
    return ls_stack_failed(stack, inode);
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static uint64_t hash_of(const struct ls_stack *stack, const struct ls_inode *folder, struct ls_text text) {
    return ls_xxh64_of(text.data, text.length, stack->seed ^ ((uint64_t)(uintptr_t)folder * 0x9E3779B97F4A7C15ULL));
}

static struct ls_name *child_of(const struct ls_stack *stack, const struct ls_inode *folder, struct ls_text text,
                                uint64_t hash) {
    for (struct ls_name *name = stack->buckets[hash & (stack->bucket_count - 1)]; name; name = name->bucket)
        if (name->hash == hash && name->folder == folder && name->text.length == text.length &&
            !memcmp(name->text.data, text.data, text.length))
            return name;
    return NULL;
}

int ls_names_reserve(struct ls_stack *stack, size_t more) {
    size_t count = stack->bucket_count;
    while (count < stack->name_count + more)
        count *= 4;
    if (count == stack->bucket_count)
        return 0;
    struct ls_name **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return ls_fail(&stack->failure, "malloc", -ENOMEM);
    for (size_t i = 0; i < stack->bucket_count; i++)
        for (struct ls_name *name = stack->buckets[i], *next; name; name = next) {
            next = name->bucket;
            name->bucket = buckets[name->hash & (count - 1)];
            buckets[name->hash & (count - 1)] = name;
        }
    free(stack->buckets);
    stack->buckets = buckets;
    stack->bucket_count = count;
    return 0;
}

struct ls_name *ls_name_make(struct ls_stack *stack, struct ls_inode *folder, struct ls_text text) {
    uint64_t hash = hash_of(stack, folder, text);
    struct ls_name *name = child_of(stack, folder, text, hash);
    if (name)
        return name;
    if (ls_names_reserve(stack, 1))
        return NULL;
    if (!(name = ls_stack_get(stack, sizeof *name)))
        return NULL;
    stack->name_count++;
    name->folder = folder;
    name->text = text;
    name->hash = hash;
    struct ls_name **bucket = &stack->buckets[hash & (stack->bucket_count - 1)];
    name->bucket = *bucket;
    *bucket = name;
    name->next = folder->first;
    folder->first = name;
    return name;
}

void ls_name_set(struct ls_stack *stack, struct ls_name *name, struct ls_inode *inode) {
    if (ls_is_folder(name))
        stack->led = NULL;
    name->inode = inode;
}

/* The text up to the next slash, taken from the front of `path`. */
static struct ls_text take_part(struct ls_text *path) {
    const uint8_t *slash = memchr(path->data, '/', path->length);
    size_t length = slash ? (size_t)(slash - path->data) : path->length, taken = length + (slash != NULL);
    struct ls_text part = {path->data, length};
    *path = (struct ls_text){path->data + taken, path->length - taken};
    return part;
}

/* Most paths lie in the directory of the one before, or below it. */
static struct ls_inode *walk(struct ls_stack *stack, struct ls_text path) {
    struct ls_text walked = stack->walked, rest = path;
    struct ls_inode *at = stack->root->inode;
    if (stack->led && path.length >= walked.length && !memcmp(path.data, walked.data, walked.length)) {
        if (path.length == walked.length)
            return stack->led;
        if (path.data[walked.length] == '/') {
            at = stack->led;
            rest = (struct ls_text){path.data + walked.length + 1, path.length - walked.length - 1};
        }
    }
    while (rest.length) {
        struct ls_text part = take_part(&rest);
        const struct ls_name *name = child_of(stack, at, part, hash_of(stack, at, part));
        if (!ls_is_folder(name))
            return NULL;
        at = name->inode;
    }
    stack->walked = path;
    return stack->led = at;
}

struct ls_inode *ls_folder_of(struct ls_stack *stack, struct ls_text path, struct ls_text *last) {
    const uint8_t *slash = path.length ? memrchr(path.data, '/', path.length) : NULL;
    size_t length = slash ? (size_t)(slash - path.data) : 0;
    *last = slash ? (struct ls_text){slash + 1, path.length - length - 1} : path;
    return slash ? walk(stack, (struct ls_text){path.data, length}) : stack->root->inode;
}

struct ls_name *ls_name_find(struct ls_stack *stack, struct ls_text path) {
    struct ls_text last;
    if (!path.length)
        return stack->root;
    struct ls_inode *folder = ls_folder_of(stack, path, &last);
    struct ls_name *name = folder ? child_of(stack, folder, last, hash_of(stack, folder, last)) : NULL;
    return name && name->inode ? name : NULL;
}
