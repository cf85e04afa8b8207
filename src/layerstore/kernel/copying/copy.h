/* Copying a tree. Read by cffi too. */
#ifndef LS_COPY_H
#define LS_COPY_H
#include "../files/failure.h"

#include <stddef.h>
#include <stdint.h>

/* `list`: for each file and folder that was made, its inode, that of its source, and its time of change (ctime) as it is
   when all is done; as numbers, each the difference to the one before (bytes.h). `newest`: the latest of these times, in ns.
   `files`: names that are no folders; `bytes`: what the files among them hold, each counted once. */
struct ls_copied {
    uint64_t files;
    uint64_t bytes;
    int64_t newest;
    int reflinked;
    uint8_t *list;
    size_t length;
};

/* Copies the directory `source`, with all that is in it, to `target`, which is made, by up to `threads` threads. Follows no
   symlink and enters no mount; copes with any depth, any names. Returns 0, or the first failure as -errno, with its place
   relative to both roots; what was made by then is the caller's to remove.

   `share`: files share blocks with their sources where the filesystem can. */
int ls_copy_tree(int source, const char *target, int threads, int share, struct ls_copied *copied,
                 struct ls_failure *failure);
/* Puts the upper directory of overlay `source` below another one, `target`, which is there: afterwards that says what both said
   on each other. What it has already is neither copied nor altered; where it hides what is below, nothing is. What was made
   until a failure is the caller's to remove. `share` as above. */
int ls_fill_tree(int source, const char *target, int threads, int share, struct ls_failure *failure);
void ls_copied_free(struct ls_copied *copied);
#endif
