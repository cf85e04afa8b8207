/* The tree of one layer, in memory, while its tar is read.
 *
 * It is what makes unpacking safe and independent of order: names are resolved here, where nobody can swap a directory
 * for a symlink, and a name of this layer is told from a name of the layers below. The disk follows. */
#ifndef LS_MODEL_H
#define LS_MODEL_H
#include "entry.h"

enum {
    /* An entry of this tar says what it is. */
    LS_STATED = 1,
    /* A directory that the tar needs but does not list, and that the layers below may have. */
    LS_IMPLIED = 2,
    /* A directory that is on disk. */
    LS_MADE = 4,
    /* A directory that hides what the layers below have in it. */
    LS_OPAQUE = 8,
    /* Hides the name in the layers below; alone, with type 0. */
    LS_WHITEOUT = 16,
    /* The layers below have a directory or a symlink of this name. */
    LS_BELOW = 32,
    /* A directory that holds whiteouts. */
    LS_MARKED = 64,
    /* A directory that holds more than whiteouts, at any depth: a file, a listed directory, an opaque mark. */
    LS_FILLED = 128,
    /* It lies below a directory that is opaque: nothing of the layers below shows here. */
    LS_HIDDEN = 256,
    /* A file whose payload is only part of it: `content` is of the payload, not of the holes. */
    LS_SPARSE = 512,
    /* A directory that is there for whiteouts alone, or one of these: it is not there where the parents have none. */
    LS_HOLLOW = 1024,
    /* In a listing: what fills up the last block of a file's payload in the tar is not zeros. */
    LS_TAILED = 2048,
};

struct ls_node {
    struct ls_node *parent, *first, *next, *bucket;
    struct ls_node *target; /* of a hard link: the node that owns the file */
    uint64_t hash;
    uint8_t type; /* enum ls_type, or 0: nothing of this layer has the name now */
    bool guessed; /* taken for a directory where the parents may have a symlink; stays, whatever becomes of the name */
    uint16_t flags;
    uint32_t links; /* how many hard links have it as target */
    int64_t linked; /* number of the newest link that has had it as target, or -1 */
    uint32_t mode, uid, gid, major, minor, mtime_ns;
    int64_t mtime, size;
    int64_t payload; /* number of its payload, or -1 */
    uint64_t content; /* XXH64 of the file's bytes, or of a symlink's target */
    uint64_t attributes; /* XXH64 of the xattrs */
    uint32_t xattrs_length, link_length;
    uint8_t *xattrs;
    char *link;
    uint16_t name_length;
    uint32_t path_length; /* of the whole path, without a leading slash */
    char name[];
};

struct ls_model {
    struct ls_node *root;
    struct ls_node *aside; /* a tree for names that are needed while reading but are no part of the layer */
    struct ls_node **buckets;
    size_t bucket_count, node_count;
    int64_t bytes; /* of all nodes, and of their paths in the index that is made of them */
    uint64_t seed;
};

int ls_model_begin(struct ls_model *model);
void ls_model_end(struct ls_model *model);
struct ls_node *ls_model_find(const struct ls_model *model, const struct ls_node *parent, const char *name,
                              size_t length);
/* The child, made with type 0 if it is not there. NULL: no memory. */
struct ls_node *ls_model_child(struct ls_model *model, struct ls_node *parent, const char *name, size_t length);
void ls_node_forget(struct ls_node *node);

/* The next node in the order parents first, within `top`; NULL at the end. */
struct ls_node *ls_node_preorder(const struct ls_node *node, const struct ls_node *top);
/* The same, children first. Begin with ls_node_deepest(top); `top` itself comes last. */
struct ls_node *ls_node_deepest(struct ls_node *node);
struct ls_node *ls_node_postorder(const struct ls_node *node, const struct ls_node *top);
/* Is it `top`, or anything below that? */
bool ls_node_is_within(const struct ls_node *node, const struct ls_node *top);
/* Has the index of a skeleton a line of it? */
bool ls_is_indexed(const struct ls_node *node);
/* The path within the layer, "" for the root. */
int ls_node_path(const struct ls_node *node, struct ls_bytes *path);

/* The components of a name, cleaned as path.Clean does: -EBADMSG when it leaves the root. */
struct ls_part {
    const char *name;
    size_t length;
};
static inline bool ls_part_is(struct ls_part part, const char *word) {
    return part.length == strlen(word) && !memcmp(part.name, word, part.length);
}
struct ls_parts {
    LS_ARRAY(struct ls_part);
};
int ls_parts_split(struct ls_parts *parts, const char *name, size_t length, const char **why);
#endif
