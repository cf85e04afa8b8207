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
    int64_t end;                  /* of the last extent: a file of these data is no smaller */
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
    uint8_t type;       /* enum ls_type, LS_HARD_LINK excepted */
    uint8_t chunk_bits; /* 0: no chunks */
    uint16_t mode;
    uint32_t uid, gid, mtime_ns, major, minor, links;
    int64_t mtime, size;
    struct ls_text xattrs, words;
    int64_t layer, payload; /* its data; payload -1: none */
    bool tailed;            /* in the tar, what fills up the last block of these is not zeros */
    struct ls_name *name;   /* one of its names: of a directory, its only one */
    struct ls_name *first;  /* of a directory: the names that were ever in it */
    /* where it goes: image.c */
    uint64_t nid;
    uint64_t block; /* of the data that lie in the image */
    int64_t packed; /* how many bytes they are */
    struct ls_name **sorted;
    size_t children;
    uint32_t xattrs_size;
};

struct ls_name {
    struct ls_inode *folder; /* in which it is; NULL: it is the root */
    struct ls_inode *inode;  /* NULL: there is no such name */
    struct ls_name *next, *bucket;
    uint64_t hash;
    struct ls_text text;
};

struct ls_piece;

struct ls_stack {
    struct ls_name *root;
    struct ls_name **buckets;
    size_t bucket_count, name_count;
    uint64_t seed;
    struct ls_piece *pieces; /* of memory, the newest first */
    size_t piece_left;       /* in that one */
    struct {
        LS_ARRAY(struct ls_layer *);
    } layers;
    struct ls_text walked; /* the path of a directory that was walked last, and where it leads; NULL: nowhere */
    struct ls_inode *led;
    struct ls_stack_facts facts;
    struct ls_failure failure;
};

/* Each of these returns NULL where there is no memory, and tells that. */

/* Zeros, which stay until the stack is freed. */
void *ls_stack_get(struct ls_stack *stack, size_t size);
struct ls_inode *ls_inode_new(struct ls_stack *stack, unsigned type);
/* Room for so many more names: 0, or -ENOMEM. */
int ls_names_reserve(struct ls_stack *stack, size_t more);
/* The child, made without an inode if it is not there. */
struct ls_name *ls_name_make(struct ls_stack *stack, struct ls_inode *folder, struct ls_text text);

/* The directory in which a path lies, and the path's last name. NULL: there is none. */
struct ls_inode *ls_folder_of(struct ls_stack *stack, struct ls_text path, struct ls_text *last);
/* The name at a path; NULL: there is nothing. */
struct ls_name *ls_name_find(struct ls_stack *stack, struct ls_text path);
/* `inode` NULL: the name is gone, and with it all that is below it. */
void ls_name_set(struct ls_stack *stack, struct ls_name *name, struct ls_inode *inode);

static inline bool ls_is_folder(const struct ls_name *name) {
    return name && name->inode && name->inode->type == LS_DIRECTORY;
}

/* Notes at which path a failure was, and returns its -errno. */
int ls_stack_failed(struct ls_stack *stack, const struct ls_inode *inode);
/* Erofs cannot have it. */
int ls_stack_refuse(struct ls_stack *stack, const struct ls_inode *inode, const char *sentence);
#endif
