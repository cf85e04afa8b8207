/* Nodes, their names, and the orders to walk them in. See model.h. */
#define _GNU_SOURCE
#include "model.h"
#include "../kernel/files/marks.h"
#include "xxh64.h"

#include <stdio.h>
#include <sys/random.h>

static uint64_t hash_of(const struct ls_model *model, const struct ls_node *parent, const char *name, size_t length) {
    /* seeded, so that no tar can be made whose names all collide */
    return ls_xxh64_of(name, length, model->seed ^ ((uint64_t)(uintptr_t)parent * 0x9E3779B97F4A7C15ULL));
}

static struct ls_node *node_new(struct ls_node *parent, const char *name, size_t length) {
    struct ls_node *node = calloc(1, sizeof *node + length + 1);
    if (!node)
        return NULL;
    node->parent = parent;
    node->payload = node->linked = -1;
    node->name_length = (uint16_t)length;
    node->path_length = (uint32_t)length + (parent && parent->path_length ? parent->path_length + 1 : 0);
    if (length)
        memcpy(node->name, name, length);
    return node;
}

int ls_model_begin(struct ls_model *model) {
    *model = (struct ls_model){.bucket_count = 1024};
    if (getrandom(&model->seed, sizeof model->seed, GRND_NONBLOCK) != sizeof model->seed)
        model->seed = (uint64_t)(uintptr_t)model; /* before the pool is ready: address randomisation has to do */
    model->buckets = calloc(model->bucket_count, sizeof *model->buckets);
    model->root = node_new(NULL, "", 0);
    model->aside = node_new(NULL, "", 0);
    if (!model->buckets || !model->root || !model->aside)
        return -ENOMEM;
    model->root->type = model->aside->type = LS_DIRECTORY;
    model->root->flags = LS_IMPLIED | LS_MADE;
    return 0;
}

void ls_node_forget(struct ls_node *node) {
    free(node->xattrs);
    free(node->link);
    node->xattrs = NULL, node->link = NULL;
    node->xattrs_length = node->link_length = 0;
    node->type = 0;
    node->flags = 0;
    node->links = 0;
    node->target = NULL;
    node->payload = node->linked = -1;
    node->content = node->attributes = 0;
    node->size = 0;
    node->major = node->minor = 0;
}

void ls_model_end(struct ls_model *model) {
    for (size_t i = 0; i < model->bucket_count && model->buckets; i++)
        for (struct ls_node *node = model->buckets[i], *next; node; node = next) {
            next = node->bucket;
            ls_node_forget(node);
            free(node);
        }
    if (model->root)
        ls_node_forget(model->root);
    free(model->root);
    free(model->aside);
    free(model->buckets);
    *model = (struct ls_model){0};
}

struct ls_node *ls_model_find(const struct ls_model *model, const struct ls_node *parent, const char *name,
                              size_t length) {
    uint64_t hash = hash_of(model, parent, name, length);
    for (struct ls_node *node = model->buckets[hash & (model->bucket_count - 1)]; node; node = node->bucket)
        if (node->hash == hash && node->parent == parent && node->name_length == length &&
            !memcmp(node->name, name, length))
            return node;
    return NULL;
}

static int grow(struct ls_model *model) {
    size_t count = model->bucket_count * 4;
    struct ls_node **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return -ENOMEM;
    for (size_t i = 0; i < model->bucket_count; i++)
        for (struct ls_node *node = model->buckets[i], *next; node; node = next) {
            next = node->bucket;
            node->bucket = buckets[node->hash & (count - 1)];
            buckets[node->hash & (count - 1)] = node;
        }
    free(model->buckets);
    model->buckets = buckets;
    model->bucket_count = count;
    return 0;
}

struct ls_node *ls_model_child(struct ls_model *model, struct ls_node *parent, const char *name, size_t length) {
    struct ls_node *node = ls_model_find(model, parent, name, length);
    if (node)
        return node;
    if (model->node_count == model->bucket_count && grow(model))
        return NULL;
    if (!(node = node_new(parent, name, length)))
        return NULL;
    model->node_count++;
    model->bytes += (int64_t)(sizeof *node + length + node->path_length);
    node->hash = hash_of(model, parent, name, length);
    struct ls_node **bucket = &model->buckets[node->hash & (model->bucket_count - 1)];
    node->bucket = *bucket;
    *bucket = node;
    node->next = parent->first;
    parent->first = node;
    return node;
}

struct ls_node *ls_node_preorder(const struct ls_node *node, const struct ls_node *top) {
    if (node->first)
        return node->first;
    while (node != top && !node->next)
        node = node->parent;
    return node == top ? NULL : node->next;
}

struct ls_node *ls_node_deepest(struct ls_node *node) {
    while (node->first)
        node = node->first;
    return node;
}

struct ls_node *ls_node_postorder(const struct ls_node *node, const struct ls_node *top) {
    if (node == top)
        return NULL;
    return node->next ? ls_node_deepest(node->next) : node->parent;
}

bool ls_node_is_within(const struct ls_node *node, const struct ls_node *top) {
    for (; node; node = node->parent)
        if (node == top)
            return true;
    return false;
}

bool ls_is_indexed(const struct ls_node *node) {
    if (node->flags & LS_WHITEOUT)
        return true;
    if (node->type == LS_DIRECTORY)
        return node->flags & LS_MADE &&
               (node->flags & (LS_STATED | LS_IMPLIED | LS_OPAQUE | LS_HIDDEN) || !(node->flags & LS_BELOW));
    return node->type && node->flags & LS_STATED;
}

int ls_node_path(const struct ls_node *node, struct ls_bytes *path) {
    path->length = 0;
    int rc = ls_bytes_reserve(path, node->path_length + 1u);
    if (rc)
        return rc;
    path->length = node->path_length;
    path->data[path->length] = 0;
    for (const struct ls_node *at = node; at->parent; at = at->parent) {
        memcpy(path->data + at->path_length - at->name_length, at->name, at->name_length);
        if (at->path_length > at->name_length)
            path->data[at->path_length - at->name_length - 1] = '/';
    }
    return 0;
}

int ls_parts_split(struct ls_parts *parts, const char *name, size_t length, const char **why) {
    parts->count = 0;
    for (size_t at = 0; at < length;) {
        const char *slash = memchr(name + at, '/', length - at);
        size_t size = slash ? (size_t)(slash - name) - at : length - at;
        const char *part = name + at;
        at += size + 1;
        if (size == 0 || (size == 1 && part[0] == '.'))
            continue;
        if (size == 2 && part[0] == '.' && part[1] == '.') {
            if (parts->count-- == 0)
                return *why = "the name leads outside the layer", -EBADMSG;
            continue;
        }
        size_t most = 255 + (ls_is_mark(part, size) ? LS_LENGTH_OF(LS_WHITEOUT_PREFIX) : 0); /* of what it hides: 255 */
        if (size > most)
            return *why = "a name is longer than 255 bytes", -EBADMSG;
        int rc = ls_array_add(parts, (struct ls_part){part, size});
        if (rc)
            return rc;
    }
    return 0;
}
