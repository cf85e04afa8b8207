/* Removing a tree. Read by cffi too. */
#ifndef LS_REMOVE_H
#define LS_REMOVE_H
#include "failure.h"

/* Removes what `path` names, with everything in it, by up to `threads` threads. Follows no symlink, enters no mount, and
   copes with any depth, with modes that forbid it, immutable files and read-only subvolumes, as far as this process may.
   What is not there is removed. Returns 0, or the first failure as -errno, its place relative to `path`; the rest is then
   gone. */
int ls_remove_tree(const char *path, int threads, struct ls_failure *failure);

/* Takes the flags off that forbid to remove or to rename a folder or a file, as chattr(1) sets them (+i, +a). Returns whether
   there were any. */
int ls_free_of_flags(int parent, const char *name);
#endif
