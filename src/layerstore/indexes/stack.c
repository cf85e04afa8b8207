/* One layer after another, bottom to top: what each says of a name counts instead of what those below it said. See tree.h.
 *
 * A listing has two lists of the same names: what they are, and where their data lie. Both are read side by side. */
#define _GNU_SOURCE
#include "tree.h"

#include <linux/limits.h>

struct told {
    struct ls_index_node node;
    uint64_t source, apart;
    struct ls_text xattrs, words;
};

/* A name whose inode is that of another one. */
struct link {
    struct ls_name *name;
    struct ls_text path, target;
};

struct apart {
    uint64_t group;
    size_t number;
    struct ls_name *name;
};

struct adding {
    struct ls_stack *stack;
    struct ls_layer *layer;
    uint64_t count; /* of the names */
    struct ls_reader nodes, places; /* the next of both lists */
    struct {
        LS_ARRAY(const struct ls_inode *);
    } below; /* whose data the regular files have whose words say so, in order */
    size_t below_next;
    struct {
        LS_ARRAY(struct link);
    } links;
    struct {
        LS_ARRAY(struct apart);
    } aparts;
};

static int no_memory(struct ls_stack *stack) {
    return ls_fail(&stack->failure, "malloc", -ENOMEM);
}

/* `path` is shown as one within the layer, whatever it is. */
static int damaged(struct ls_stack *stack, const char *sentence, struct ls_text path) {
    for (; path.length && *path.data == '/'; path.length--)
        path.data++;
    return ls_fail_as(&stack->failure, LS_FAIL_DAMAGED, EBADMSG, sentence, path.data, path.length);
}

static int damaged_at(struct ls_stack *stack, const char *sentence, const struct told *one) {
    return damaged(stack, sentence, (struct ls_text){one->node.path, one->node.path_length});
}

/* --- a listing ---------------------------------------------------------------------------------------------------- */

static bool is_next(struct ls_reader *in, const char *magic) {
    const uint8_t *found = ls_read_bytes(in, strlen(magic));
    return found && !memcmp(found, magic, strlen(magic));
}

static struct ls_text read_text(struct ls_reader *in) {
    struct ls_text text;
    text.data = ls_read_string(in, &text.length);
    return text;
}

static int read_extents(struct ls_reader *in, struct ls_layer *layer, struct ls_lying *payload) {
    int64_t sum = 0;
    int rc = 0;
    for (size_t n = 0; !rc && n < payload->extents_count && !in->bad; n++) {
        struct ls_extent extent = {(int64_t)ls_read_number(in), 0};
        extent.length = (int64_t)ls_read_number(in);
        in->bad |= extent.offset < payload->end || extent.length <= 0 || extent.length > payload->size - sum ||
                   extent.offset > INT64_MAX - extent.length;
        if (in->bad)
            break;
        sum += extent.length;
        payload->end = extent.offset + extent.length;
        rc = ls_array_add(&layer->extents, extent);
    }
    in->bad |= payload->extents_count && sum != payload->size;
    return rc;
}

static int read_payloads(struct ls_reader *in, struct ls_layer *layer) {
    struct ls_index_payload found;
    uint64_t count = ls_read_number(in);
    int rc = 0;
    for (uint64_t i = 0; !rc && i < count && !in->bad; i++) {
        in->bad |= !ls_index_get_payload(in, &found);
        struct ls_lying payload = {
            .size = found.size, .extents = layer->extents.count, .extents_count = (size_t)found.extents_count};
        rc = read_extents(in, layer, &payload);
        rc = rc ?: ls_array_add(&layer->payloads, payload);
    }
    return rc;
}

static void read_places(struct ls_reader *in, struct ls_layer *layer) {
    for (size_t i = 0; i < layer->payloads.count && !in->bad; i++) {
        struct ls_lying *payload = &layer->payloads.list[i];
        payload->place = (int64_t)ls_read_number(in);
        in->bad |= payload->place < 0 || payload->place > layer->size || payload->size > layer->size - payload->place;
    }
}

/* What comes before both lists, and where they begin. */
static int read_head(struct adding *adding, struct ls_reader in) {
    struct ls_index_node node;
    in.bad |= !is_next(&in, LS_INDEX_MAGIC);
    if (read_payloads(&in, adding->layer))
        return no_memory(adding->stack);
    adding->count = ls_read_number(&in);
    adding->nodes = in;
    for (uint64_t i = 0; i < adding->count && ls_index_get_node(&in, &node); i++)
        continue;
    in.bad |= !is_next(&in, LS_PLACES_MAGIC);
    read_places(&in, adding->layer);
    adding->places = in;
    return in.bad ? damaged(adding->stack, "the listing is damaged", (struct ls_text){0}) : 0;
}

/* Its size and its data are of one another. */
static bool fits_data(const struct ls_layer *layer, const struct told *one) {
    if (!one->source || one->node.type != LS_REGULAR)
        return one->node.size >= 0;
    const struct ls_lying *payload = &layer->payloads.list[one->source - 1];
    return payload->extents_count ? one->node.size >= payload->end : one->node.size == payload->size;
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

/* The next of the names. */
static int read_one(struct adding *adding, struct told *one) {
    struct ls_reader *places = &adding->places;
    ls_index_get_node(&adding->nodes, &one->node);
    one->source = ls_read_number(places);
    one->apart = ls_read_number(places);
    one->xattrs = read_text(places);
    one->words = read_text(places);
    if (adding->nodes.bad || places->bad || one->source > adding->layer->payloads.count || !is_known(one) ||
        !fits_data(adding->layer, one))
        return damaged_at(adding->stack, "the listing has what no file is", one);
    return 0;
}

/* --- laid on what is there ---------------------------------------------------------------------------------------- */

static void describe(struct ls_inode *inode, const struct told *one) {
    const struct ls_index_node *node = &one->node;
    inode->mode = node->mode & 07777, inode->uid = node->uid, inode->gid = node->gid;
    inode->mtime = node->mtime, inode->mtime_ns = node->mtime_ns;
    inode->xattrs = one->xattrs;
}

static int place_folder(struct ls_stack *stack, struct ls_name *name, const struct told *one) {
    unsigned flags = one->node.flags;
    bool there = ls_is_folder(name);
    if (!there || flags & (LS_OPAQUE | LS_WHITEOUT)) {
        const struct ls_inode *before = name->inode;
        struct ls_inode *inode = ls_inode_new(stack, LS_DIRECTORY);
        if (!inode)
            return -ENOMEM;
        if (there) {
            inode->mode = before->mode, inode->uid = before->uid, inode->gid = before->gid;
            inode->mtime = before->mtime, inode->mtime_ns = before->mtime_ns;
            inode->xattrs = before->xattrs;
        }
        inode->name = name;
        ls_name_set(stack, name, inode);
    }
    if (!there || flags & LS_STATED || !(flags & LS_IMPLIED))
        describe(name->inode, one);
    return 0;
}

static int place_file(struct adding *adding, struct ls_name *name, const struct told *one) {
    struct ls_stack *stack = adding->stack;
    struct ls_inode *inode = ls_inode_new(stack, one->node.type);
    if (!inode)
        return -ENOMEM;
    ls_name_set(stack, name, inode);
    describe(inode, one);
    inode->name = name;
    inode->major = one->node.major, inode->minor = one->node.minor;
    if (one->node.type == LS_SYMLINK) {
        inode->words = one->words;
        inode->size = (int64_t)one->words.length;
    } else if (one->node.type == LS_REGULAR) {
        inode->layer = stack->facts.layer;
        inode->payload = (int64_t)one->source - 1;
        inode->size = one->node.size;
        inode->tailed = one->node.flags & LS_TAILED;
        if (one->words.length) {
            const struct ls_inode *below = adding->below.list[adding->below_next++];
            inode->layer = below->layer, inode->payload = below->payload, inode->size = below->size;
            inode->tailed = below->tailed;
        }
    }
    if (one->apart && ls_array_add(&adding->aparts, (struct apart){one->apart, adding->aparts.count, name}))
        return no_memory(stack);
    return 0;
}

static bool is_name(struct ls_text text) {
    bool dots = text.length <= 2 && !memcmp(text.data, "..", text.length); /* or nothing at all */
    return !dots && text.length <= NAME_MAX && !memchr(text.data, 0, text.length);
}

static int place(struct adding *adding, const struct told *one) {
    static const char NOWHERE[] = "the listing has a name that lies in no folder";
    struct ls_stack *stack = adding->stack;
    struct ls_text path = {one->node.path, one->node.path_length}, last;
    unsigned type = one->node.type, flags = one->node.flags;
    bool hollow = type == LS_DIRECTORY && flags & LS_HOLLOW;
    struct ls_name *name = !type || hollow || !path.length ? ls_name_find(stack, path) : NULL;
    if (!type) {
        if (name && name->folder)
            ls_name_set(stack, name, NULL);
        return 0;
    }
    if (hollow && !ls_is_folder(name))
        return 0;
    if (name == stack->root && type != LS_DIRECTORY)
        return damaged(stack, NOWHERE, path);
    if (!name) {
        struct ls_inode *folder = ls_folder_of(stack, path, &last);
        if (!folder)
            return damaged(stack, NOWHERE, path);
        if (!is_name(last))
            return damaged(stack, "the listing has a name that is none", path);
        if (!(name = ls_name_make(stack, folder, last)))
            return -ENOMEM;
    }
    if (type == LS_DIRECTORY)
        return place_folder(stack, name, one);
    if (type != LS_HARD_LINK)
        return place_file(adding, name, one);
    ls_name_set(stack, name, NULL);
    struct link link = {name, path, {one->node.target, one->node.target_length}};
    return ls_array_add(&adding->links, link) ? no_memory(stack) : 0;
}

/* --- names of one file -------------------------------------------------------------------------------------------- */

/* All names of this layer are there: those that are other names of a file become that. */
static int link_names(struct adding *adding) {
    for (size_t i = 0; i < adding->links.count; i++) {
        const struct link *link = &adding->links.list[i];
        struct ls_name *target = ls_name_find(adding->stack, link->target);
        if (!target || ls_is_folder(target))
            return damaged(adding->stack, "the listing has a hard link to no file", link->path);
        ls_name_set(adding->stack, link->name, target->inode);
    }
    return 0;
}

static int by_group(const void *left, const void *right) {
    const struct apart *a = left, *b = right;
    return a->group < b->group ? -1 : a->group > b->group ? 1 : a->number < b->number ? -1 : a->number > b->number;
}

static void join_apart(struct adding *adding) {
    ls_array_sort(&adding->aparts, by_group);
    for (size_t i = 1; i < adding->aparts.count; i++) {
        const struct apart *one = &adding->aparts.list[i], *before = one - 1;
        if (one->group == before->group && !ls_is_folder(before->name) && !ls_is_folder(one->name))
            ls_name_set(adding->stack, one->name, before->name->inode);
    }
}

/* A file may have the data of one that the layers below have, and that this one takes away: they are looked for first. */
static int find_below(struct adding *adding) {
    struct ls_stack *stack = adding->stack;
    struct ls_reader nodes = adding->nodes, places = adding->places;
    struct told one;
    int rc = 0;
    for (uint64_t i = 0; !rc && i < adding->count && !(rc = read_one(adding, &one)); i++) {
        if (one.node.type != LS_REGULAR || !one.words.length)
            continue;
        const struct ls_name *name = ls_name_find(stack, one.words);
        if (!name || name->inode->type != LS_REGULAR)
            return damaged_at(stack, "the listing has the data of a file that no layer below has", &one);
        rc = ls_array_add(&adding->below, name->inode) ? no_memory(stack) : 0;
    }
    if (!rc && adding->places.at != adding->places.end)
        return damaged(stack, "the listing is damaged", (struct ls_text){0});
    adding->nodes = nodes, adding->places = places;
    return rc;
}

static int add(struct adding *adding, struct ls_reader in) {
    struct told one;
    int rc = read_head(adding, in) ?: find_below(adding) ?: ls_names_reserve(adding->stack, adding->count);
    for (uint64_t i = 0; !rc && i < adding->count && !(rc = read_one(adding, &one)); i++)
        rc = place(adding, &one);
    rc = rc ?: link_names(adding);
    if (!rc)
        join_apart(adding);
    return rc;
}

int ls_stack_add(struct ls_stack *stack, const uint8_t *index, size_t length, const char *tar, int64_t size) {
    struct ls_layer *layer = calloc(1, sizeof *layer);
    stack->facts.layer = (int64_t)stack->layers.count;
    if (!layer || ls_array_add(&stack->layers, layer)) {
        free(layer);
        return no_memory(stack);
    }
    layer->size = size;
    if (!(layer->tar = strdup(tar)))
        return no_memory(stack);
    struct adding adding = {.stack = stack, .layer = layer};
    int rc = add(&adding, (struct ls_reader){index, index + length, false});
    ls_array_free(&adding.below);
    ls_array_free(&adding.links);
    ls_array_free(&adding.aparts);
    return rc;
}

int ls_stack_is_symlink(struct ls_stack *stack, const char *path) {
    const struct ls_name *name = ls_name_find(stack, (struct ls_text){(const uint8_t *)path, strlen(path)});
    stack->led = NULL; /* by a path that is the caller's */
    return name && name->inode->type == LS_SYMLINK;
}
