/* One layer after another, bottom to top: what each says of a name counts instead of what those below it said. See tree.h. */
#define _GNU_SOURCE
#include "tree.h"

#include "../tar/xxh64.h"

#include <linux/limits.h>
#include <sys/random.h>

struct told {
    struct ls_index_node node;
    uint64_t source, apart;
    struct ls_text xattrs, words;
    struct ls_name *name; /* where it was placed */
    const struct ls_inode *below; /* whose data it has */
};

struct told_all {
    LS_ARRAY(struct told);
};

/* --- life --------------------------------------------------------------------------------------------------------- */

static struct ls_inode *inode_new(struct ls_stack *stack, unsigned type) {
    struct ls_inode *inode = calloc(1, sizeof *inode);
    if (!inode)
        return NULL;
    inode->type = type;
    inode->payload = -1;
    inode->next = stack->inodes;
    stack->inodes = inode;
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
    stack->root = calloc(1, sizeof *stack->root);
    if (stack->root && (stack->root->inode = inode_new(stack, LS_DIRECTORY))) {
        stack->root->inode->mode = 0755;
        stack->root->inode->name = stack->root;
    }
    if (!stack->buckets || !stack->root || !stack->root->inode) {
        ls_stack_free(stack);
        return NULL;
    }
    return stack;
}

void ls_stack_free(struct ls_stack *stack) {
    if (!stack)
        return;
    for (size_t i = 0; i < stack->bucket_count && stack->buckets; i++)
        for (struct ls_name *name = stack->buckets[i], *next; name; name = next) {
            next = name->bucket;
            free(name);
        }
    for (struct ls_inode *inode = stack->inodes, *next; inode; inode = next) {
        next = inode->next;
        free(inode->sorted);
        free(inode);
    }
    for (size_t i = 0; i < stack->layers.count; i++) {
        free(stack->layers.list[i]->tar);
        ls_array_free(&stack->layers.list[i]->payloads);
        ls_array_free(&stack->layers.list[i]->extents);
        free(stack->layers.list[i]);
    }
    ls_array_free(&stack->layers);
    free(stack->buckets);
    free(stack->root);
    free(stack);
}

void ls_stack_tell(const struct ls_stack *stack, struct ls_stack_facts *facts) {
    *facts = stack->facts;
}

void ls_stack_failure(const struct ls_stack *stack, struct ls_failure *failure) {
    *failure = stack->failure;
}

static int no_memory(struct ls_stack *stack) {
    return ls_fail(&stack->failure, "malloc", -ENOMEM);
}

static int damaged(struct ls_stack *stack, const char *sentence, struct ls_text path) {
    return ls_fail_as(&stack->failure, LS_FAIL_DAMAGED, EBADMSG, sentence, path.data, path.length);
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

static struct ls_name *child_of(const struct ls_stack *stack, const struct ls_inode *folder, struct ls_text text) {
    uint64_t hash = hash_of(stack, folder, text);
    for (struct ls_name *name = stack->buckets[hash & (stack->bucket_count - 1)]; name; name = name->bucket)
        if (name->hash == hash && name->folder == folder && name->text.length == text.length &&
            !memcmp(name->text.data, text.data, text.length))
            return name;
    return NULL;
}

static int grow(struct ls_stack *stack) {
    size_t count = stack->bucket_count * 4;
    struct ls_name **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return -ENOMEM;
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

/* The child, made without an inode if it is not there. NULL: no memory. */
static struct ls_name *make_child(struct ls_stack *stack, struct ls_inode *folder, struct ls_text text) {
    struct ls_name *name = child_of(stack, folder, text);
    if (name)
        return name;
    if ((stack->name_count == stack->bucket_count && grow(stack)) || !(name = calloc(1, sizeof *name)))
        return NULL;
    stack->name_count++;
    name->folder = folder;
    name->text = text;
    name->hash = hash_of(stack, folder, text);
    struct ls_name **bucket = &stack->buckets[name->hash & (stack->bucket_count - 1)];
    name->bucket = *bucket;
    *bucket = name;
    name->next = folder->first;
    folder->first = name;
    return name;
}

/* The text up to the next slash, taken from the front of `path`. */
static struct ls_text take_part(struct ls_text *path) {
    const uint8_t *slash = memchr(path->data, '/', path->length);
    size_t length = slash ? (size_t)(slash - path->data) : path->length, taken = length + (slash != NULL);
    struct ls_text part = {path->data, length};
    *path = (struct ls_text){path->data + taken, path->length - taken};
    return part;
}

static bool is_folder(const struct ls_name *name) {
    return name && name->inode && name->inode->type == LS_DIRECTORY;
}

/* `inode` NULL: the name is gone. */
static void set(struct ls_stack *stack, struct ls_name *name, struct ls_inode *inode) {
    if (is_folder(name))
        stack->led = NULL;
    name->inode = inode;
}

/* The directory in which a path lies, and the path's last name. NULL: there is none. Most lie in that of the one before. */
static struct ls_inode *folder_of(struct ls_stack *stack, struct ls_text path, struct ls_text *last) {
    const uint8_t *slash = path.length ? memrchr(path.data, '/', path.length) : NULL;
    size_t length = slash ? (size_t)(slash - path.data) : 0;
    *last = slash ? (struct ls_text){slash + 1, path.length - length - 1} : path;
    if (!slash)
        return stack->root->inode;
    if (stack->led && stack->folder.length == length && !memcmp(stack->folder.data, path.data, length))
        return stack->led;
    struct ls_name *at = stack->root;
    for (struct ls_text rest = {path.data, length}; is_folder(at) && rest.length;)
        at = child_of(stack, at->inode, take_part(&rest));
    if (!is_folder(at))
        return NULL;
    stack->folder = (struct ls_text){path.data, length};
    return stack->led = at->inode;
}

static struct ls_name *find(struct ls_stack *stack, struct ls_text path) {
    struct ls_text last;
    struct ls_inode *folder = folder_of(stack, path, &last);
    struct ls_name *name = !path.length ? stack->root : folder ? child_of(stack, folder, last) : NULL;
    return name && name->inode ? name : NULL;
}

/* --- a listing ---------------------------------------------------------------------------------------------------- */

static int read_payloads(struct ls_reader *in, struct ls_layer *layer) {
    struct ls_index_payload found;
    uint64_t count = ls_read_number(in);
    int rc = 0;
    for (uint64_t i = 0; !rc && i < count && !in->bad; i++) {
        in->bad |= !ls_index_get_payload(in, &found);
        struct ls_lying payload = {found.size, 0, layer->extents.count, (size_t)found.extents_count};
        int64_t sum = 0;
        for (uint64_t n = 0; !rc && n < found.extents_count && !in->bad; n++) {
            struct ls_extent extent = {(int64_t)ls_read_number(in), 0};
            extent.length = (int64_t)ls_read_number(in);
            in->bad |= extent.offset < 0 || extent.length <= 0 || extent.length > found.size - sum ||
                       extent.offset > INT64_MAX - extent.length;
            sum += in->bad ? 0 : extent.length;
            rc = ls_array_add(&layer->extents, extent);
        }
        in->bad |= found.extents_count && sum != found.size;
        rc = rc ?: ls_array_add(&layer->payloads, payload);
    }
    return rc;
}

static struct ls_text read_text(struct ls_reader *in) {
    struct ls_text text;
    text.data = ls_read_string(in, &text.length);
    return text;
}

static int read_nodes(struct ls_reader *in, struct told_all *all) {
    uint64_t count = ls_read_number(in);
    int rc = 0;
    for (uint64_t i = 0; !rc && i < count && !in->bad; i++) {
        struct told one = {0};
        if (ls_index_get_node(in, &one.node))
            rc = ls_array_add(all, one);
    }
    return rc;
}

static void read_places(struct ls_reader *in, struct ls_layer *layer, struct told_all *all) {
    size_t length = strlen(LS_PLACES_MAGIC);
    const uint8_t *magic = ls_read_bytes(in, length);
    in->bad |= !magic || memcmp(magic, LS_PLACES_MAGIC, length);
    for (size_t i = 0; i < layer->payloads.count && !in->bad; i++) {
        struct ls_lying *payload = &layer->payloads.list[i];
        payload->place = (int64_t)ls_read_number(in);
        in->bad |= payload->place < 0 || payload->place > layer->size || payload->size > layer->size - payload->place;
    }
    for (size_t i = 0; i < all->count && !in->bad; i++) {
        struct told *one = &all->list[i];
        one->source = ls_read_number(in);
        one->apart = ls_read_number(in);
        one->xattrs = read_text(in);
        one->words = read_text(in);
        in->bad |= one->source > layer->payloads.count;
    }
    in->bad |= in->at != in->end;
}

/* Its size and its data are of one another. */
static bool fits_data(const struct ls_layer *layer, const struct told *one) {
    if (one->node.type != LS_REGULAR)
        return true;
    if (!one->source)
        return one->node.size >= 0;
    const struct ls_lying *payload = &layer->payloads.list[one->source - 1];
    if (!payload->extents_count)
        return one->node.size == payload->size;
    int64_t end = 0;
    for (size_t i = 0; i < payload->extents_count; i++) {
        const struct ls_extent *extent = &layer->extents.list[payload->extents + i];
        if (extent->offset < end)
            return false;
        end = extent->offset + extent->length;
    }
    return one->node.size >= end;
}

/* --- laid on what is there ---------------------------------------------------------------------------------------- */

static struct ls_text path_of(const struct told *one) {
    return (struct ls_text){one->node.path, one->node.path_length};
}

static void describe(struct ls_inode *inode, const struct told *one) {
    const struct ls_index_node *node = &one->node;
    inode->mode = node->mode & 07777, inode->uid = node->uid, inode->gid = node->gid;
    inode->mtime = node->mtime, inode->mtime_ns = node->mtime_ns;
    inode->xattrs = one->xattrs;
}

static int place_folder(struct ls_stack *stack, struct ls_name *name, const struct told *one) {
    unsigned flags = one->node.flags;
    bool there = is_folder(name);
    if (!there || flags & (LS_OPAQUE | LS_WHITEOUT)) {
        const struct ls_inode *before = name->inode;
        struct ls_inode *inode = inode_new(stack, LS_DIRECTORY);
        if (!inode)
            return no_memory(stack);
        if (there) {
            inode->mode = before->mode, inode->uid = before->uid, inode->gid = before->gid;
            inode->mtime = before->mtime, inode->mtime_ns = before->mtime_ns;
            inode->xattrs = before->xattrs;
        }
        inode->name = name;
        set(stack, name, inode);
    }
    if (!there || flags & LS_STATED || !(flags & LS_IMPLIED))
        describe(name->inode, one);
    return 0;
}

static int place_file(struct ls_stack *stack, struct ls_name *name, const struct told *one) {
    struct ls_inode *inode = inode_new(stack, one->node.type);
    if (!inode)
        return no_memory(stack);
    set(stack, name, inode);
    describe(inode, one);
    inode->name = name;
    inode->words = one->node.type == LS_SYMLINK ? one->words : (struct ls_text){0};
    inode->size = one->node.type == LS_SYMLINK   ? (int64_t)one->words.length
                  : one->node.type == LS_REGULAR ? one->node.size
                                                 : 0;
    inode->major = one->node.major, inode->minor = one->node.minor;
    inode->layer = stack->facts.layer;
    inode->payload = one->node.type == LS_REGULAR ? (int64_t)one->source - 1 : -1;
    if (one->below)
        inode->layer = one->below->layer, inode->payload = one->below->payload, inode->size = one->below->size;
    return 0;
}

static bool is_name(struct ls_text text) {
    bool dots = text.length <= 2 && !memcmp(text.data, "..", text.length); /* or nothing at all */
    return !dots && text.length <= NAME_MAX && !memchr(text.data, 0, text.length);
}

static int place(struct ls_stack *stack, struct told *one) {
    static const char NOWHERE[] = "the listing has a name that lies in no folder";
    struct ls_text path = path_of(one), last;
    unsigned type = one->node.type, flags = one->node.flags;
    bool removal = !type && flags & LS_WHITEOUT;
    struct ls_inode *folder = folder_of(stack, path, &last);
    struct ls_name *name = find(stack, path);
    if (removal) {
        if (name && name->folder)
            set(stack, name, NULL);
        return 0;
    }
    if (type == LS_DIRECTORY && flags & LS_HOLLOW && !is_folder(name))
        return 0;
    if (!folder || (name == stack->root && type != LS_DIRECTORY))
        return damaged(stack, NOWHERE, path);
    if (!name) {
        if (!is_name(last))
            return damaged(stack, "the listing has a name that is none", path);
        if (!(name = make_child(stack, folder, last)))
            return no_memory(stack);
    }
    one->name = name;
    if (type == LS_DIRECTORY)
        return place_folder(stack, name, one);
    if (type == LS_HARD_LINK) {
        set(stack, name, NULL);
        return 0;
    }
    return place_file(stack, name, one);
}

/* All names of this layer are there: those that are other names of a file become that. */
static int link_names(struct ls_stack *stack, struct told_all *all) {
    for (size_t i = 0; i < all->count; i++) {
        struct told *one = &all->list[i];
        if (one->node.type != LS_HARD_LINK)
            continue;
        struct ls_name *target = find(stack, (struct ls_text){one->node.target, one->node.target_length});
        if (!target || target->inode->type == LS_DIRECTORY || !one->name)
            return damaged(stack, "the listing has a hard link to no file", path_of(one));
        set(stack, one->name, target->inode);
    }
    return 0;
}

static int by_apart(const void *left, const void *right) {
    const struct told *a = *(const struct told *const *)left, *b = *(const struct told *const *)right;
    return a->apart < b->apart ? -1 : a->apart > b->apart ? 1 : a < b ? -1 : a > b;
}

static int join_apart(struct ls_stack *stack, struct told_all *all) {
    LS_ARRAY_FREED struct {
        LS_ARRAY(struct told *);
    } groups = {0};
    for (size_t i = 0; i < all->count; i++)
        if (all->list[i].apart && all->list[i].name && ls_array_add(&groups, &all->list[i]))
            return no_memory(stack);
    ls_array_sort(&groups, by_apart);
    for (size_t i = 1; i < groups.count; i++) {
        struct told *one = groups.list[i], *before = groups.list[i - 1];
        if (one->apart == before->apart && !is_folder(before->name) && !is_folder(one->name))
            set(stack, one->name, before->name->inode);
    }
    return 0;
}

static int find_below(struct ls_stack *stack, struct told_all *all) {
    for (size_t i = 0; i < all->count; i++) {
        struct told *one = &all->list[i];
        if (one->node.type != LS_REGULAR || !one->words.length)
            continue;
        const struct ls_name *name = find(stack, one->words);
        if (!name || name->inode->type != LS_REGULAR)
            return damaged(stack, "the listing has the data of a file that no layer below has", path_of(one));
        one->below = name->inode;
    }
    return 0;
}

static bool are_xattrs(struct ls_text text) {
    struct ls_reader reader = {text.data, text.data + text.length, false};
    struct ls_xattr xattr;
    while (ls_xattr_next(&reader, &xattr))
        reader.bad |= memchr(xattr.name, 0, xattr.name_length) != NULL;
    return !reader.bad;
}

static bool is_known(const struct told *one) {
    unsigned type = one->node.type;
    if (!type)
        return one->node.flags & LS_WHITEOUT;
    return type < LS_IGNORED && one->node.mtime_ns < 1000000000 && are_xattrs(one->xattrs) &&
           one->node.major < 1 << 12 && one->node.minor < 1 << 20 &&
           (type != LS_SYMLINK || (one->words.length && !memchr(one->words.data, 0, one->words.length)));
}

static int lay(struct ls_stack *stack, const struct ls_layer *layer, struct told_all *all) {
    int rc = find_below(stack, all);
    for (size_t i = 0; !rc && i < all->count; i++) {
        if (!is_known(&all->list[i]) || !fits_data(layer, &all->list[i]))
            return damaged(stack, "the listing has what no file is", path_of(&all->list[i]));
        rc = place(stack, &all->list[i]);
    }
    return rc ?: link_names(stack, all) ?: join_apart(stack, all);
}

int ls_stack_add(struct ls_stack *stack, const uint8_t *index, size_t length, const char *tar, int64_t size) {
    LS_ARRAY_FREED struct told_all all = {0};
    struct ls_layer *layer = calloc(1, sizeof *layer);
    stack->facts.layer = (int64_t)stack->layers.count;
    if (!layer || ls_array_add(&stack->layers, layer)) {
        free(layer);
        return no_memory(stack);
    }
    layer->size = size;
    if (!(layer->tar = strdup(tar)))
        return no_memory(stack);
    struct ls_reader in = {index, index + length, false};
    size_t magic = strlen(LS_INDEX_MAGIC);
    const uint8_t *begin = ls_read_bytes(&in, magic);
    in.bad |= !begin || memcmp(begin, LS_INDEX_MAGIC, magic);
    if (read_payloads(&in, layer) || read_nodes(&in, &all))
        return no_memory(stack);
    read_places(&in, layer, &all);
    if (in.bad)
        return damaged(stack, "the listing is damaged", (struct ls_text){(const uint8_t *)"", 0});
    return lay(stack, layer, &all);
}
