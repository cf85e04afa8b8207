/* What several layers are as one tree, in memory: names, and the inodes that they are names of.
 *
 * Texts (names, xattrs, words of symlinks) stay where they lie, in the listings. What a layer above takes away is only
 * forgotten: a name without an inode is none. Names are those of a directory's inode: a directory that goes, or that loses
 * what is in it, is left with all its names, however many they are, and another inode takes its place. */
#ifndef LS_TREE_H
#define LS_TREE_H
#include "stack.h"

#include "../kernel/files/array.h"
#include "../tar/index.h"

struct ls_text {
    const uint8_t *data;
    size_t length;
};

/* A payload in the tar of a layer. */
struct ls_lying {
    int64_t size, place;
    size_t extents, extents_count; /* in the layer's list; none: the payload is the file */
};

struct ls_layer {
    char *tar; /* its path */
    int64_t size;
    struct {
        LS_ARRAY(struct ls_lying);
    } payloads;
    struct {
        LS_ARRAY(struct ls_extent);
    } extents;
};

struct ls_name;

struct ls_inode {
    unsigned type; /* enum ls_type, LS_HARD_LINK excepted */
    uint32_t mode, uid, gid, mtime_ns, major, minor, links;
    int64_t mtime, size;
    struct ls_text xattrs, words;
    int64_t layer, payload; /* its data; payload -1: none */
    struct ls_name *name;   /* one of its names: of a directory, its only one */
    struct ls_name *first;  /* of a directory: the names that were ever in it */
    struct ls_inode *next;  /* the one that was made before it */
    /* where it goes: image.c */
    uint64_t nid;
    uint64_t block;    /* of the data that lie in the image */
    int64_t packed;    /* how many bytes they are */
    uint32_t xattrs_size;
    unsigned chunk_bits; /* 0: no chunks */
    struct ls_name **sorted;
    size_t children;
};

struct ls_name {
    struct ls_inode *folder; /* in which it is; NULL: it is the root */
    struct ls_inode *inode;  /* NULL: there is no such name */
    struct ls_name *next, *bucket;
    uint64_t hash;
    struct ls_text text;
};

struct ls_stack {
    struct ls_name *root;
    struct ls_name **buckets;
    size_t bucket_count, name_count;
    uint64_t seed;
    struct ls_inode *inodes; /* all, the newest first */
    struct {
        LS_ARRAY(struct ls_layer *);
    } layers;
    struct ls_text folder; /* the path that was walked last, without its last name, and where it leads */
    struct ls_inode *led;
    struct ls_stack_facts facts;
    struct ls_failure failure;
};

/* Notes at which path a failure was, and returns its -errno. */
int ls_stack_failed(struct ls_stack *stack, const struct ls_inode *inode);
/* Erofs cannot have it. */
int ls_stack_refuse(struct ls_stack *stack, const struct ls_inode *inode, const char *sentence);
#endif
