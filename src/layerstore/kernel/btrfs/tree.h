/* Searching the trees of a btrfs. The kernel's items are little-endian, packed, and bounded here before they are read. */
#ifndef LS_BTRFS_TREE_H
#define LS_BTRFS_TREE_H
#include <stddef.h>
#include <stdint.h>

struct ls_btrfs_item {
    uint64_t object, offset;
    uint32_t type;
    size_t length;
    const uint8_t *data;
};

/* Every item from (object, type, offset) on to the last of its kind: a range of keys, in which other types lie between.
   `tree` 0 is the subvolume of `fd`. `since`: only leaves that were written in this transaction or later, but those
   whole. */
struct ls_btrfs_range {
    uint64_t tree, first_object, last_object, first_offset, last_offset, since;
    uint32_t first_type, last_type;
};

/* A descriptor and a buffer, for many searches. */
struct ls_btrfs_search {
    int fd;
    void *buffer;
    size_t room;
};

/* Each visitor returns 0 to go on, or -errno, with which the search ends. */
typedef int ls_btrfs_visit(void *context, const struct ls_btrfs_item *item);
typedef int ls_btrfs_visit_inode(void *context, uint64_t inode);
typedef int ls_btrfs_visit_name(void *context, uint64_t parent, const char *name, size_t length);

int ls_btrfs_search_begin(struct ls_btrfs_search *search, int fd);
void ls_btrfs_search_end(struct ls_btrfs_search *search);
int ls_btrfs_search_each(struct ls_btrfs_search *search, const struct ls_btrfs_range *range, ls_btrfs_visit *visit,
                         void *context);

/* The inodes that changed after the transaction `since`: anything of theirs, or the names in them. */
int ls_btrfs_changed(struct ls_btrfs_search *search, uint64_t since, ls_btrfs_visit_inode *visit, void *context);
/* All names of an inode, with the directories that they are in. */
int ls_btrfs_names(struct ls_btrfs_search *search, uint64_t inode, ls_btrfs_visit_name *visit, void *context);
#endif
