/* What differs between two trees. Read by cffi too. */
#ifndef LS_CHANGES_H
#define LS_CHANGES_H
#include "../kernel/files/failure.h"

#include <stddef.h>
#include <stdint.h>

struct ls_changes;

/* NULL: no memory. */
struct ls_changes *ls_changes_new(void);
void ls_changes_free(struct ls_changes *changes);

/* Whose marks an upper directory holds: overlay's, those of aufs, or what fuse-overlayfs writes, which is some of both. */
enum { LS_MARKS_OVERLAY = 1, LS_MARKS_AUFS = 2, LS_MARKS_FUSE = 3 };

/* Compares the tree `merged` with the tree `lower` (-1: with nothing), looking only where the upper directory `upper` has
 * something. Root directories, all three. 0, or -errno. */
int ls_changes_of_upper(struct ls_changes *changes, int upper, int merged, int lower, int marks);
/* The same by several upper directories of overlay that lie on each other, the nearest first. */
int ls_changes_of_uppers(struct ls_changes *changes, const int *uppers, size_t count, int merged, int lower);
/* Compares all of `merged` with all of `lower` (-1: with nothing). `content`: read files whose attributes are equal. */
int ls_changes_of_trees(struct ls_changes *changes, int merged, int lower, int content);

/* The same result as of the trees, with their bytes, where `merged` is a btrfs snapshot of `lower` that was made in the
 * transaction `since`; looking only where something has changed since then. */
int ls_changes_of_snapshot(struct ls_changes *changes, int merged, int lower, uint64_t since);
/* The same as ls_changes_of_trees with `content`, where `merged` began as a copy of `lower`: what has not been altered since, by
 * the list that kernel/copying made then, is not read. A list that cannot be read counts for nothing. */
int ls_changes_of_copy(struct ls_changes *changes, int merged, int lower, const uint8_t *list, size_t length);

/* The result: for each change a letter (A, C, D) and the path without leading slash ("" is the root), ended by NUL; sorted. */
size_t ls_changes_list(struct ls_changes *changes, const uint8_t **data);
/* 1: the upper directory can be made to hold exactly these changes, and to mean the same on any parents. */
int ls_changes_can_be_exact(struct ls_changes *changes);
/* After ls_changes_of_upper, with the same descriptors and nothing mounted that writes: makes it so; marks of fuse-overlayfs
 * become those of aufs. The tree that the stack shows stays the same all the while. 1: something was altered; 0 or -errno. */
int ls_changes_make_exact(struct ls_changes *changes);
/* What made one of these fail: as long as the list lives. */
const struct ls_failure *ls_changes_failure(const struct ls_changes *changes);

/* Writes a list of changes as a layer in aufs's form: what `tree` has of it is copied into the empty directory `target`, what
 * is removed becomes a mark. Blocks are shared where the filesystem can. 0, or -errno. */
int ls_changes_write(const uint8_t *list, size_t length, int tree, int target, struct ls_failure *failure);
/* Gives what `tree` has of a list of changes, and its root if there are any, this time of modification where theirs is later.
 * 1: something was altered; 0 or -errno. */
int ls_changes_clamp(const uint8_t *list, size_t length, int tree, int64_t seconds, uint32_t nanoseconds,
                     struct ls_failure *failure);
#endif
