/* What lies in a tree, listed by several threads. Read by cffi too. */
#ifndef LS_WALK_H
#define LS_WALK_H
#include "../kernel/files/failure.h"
#include "rules.h"

#include <stddef.h>
#include <stdint.h>

struct ls_walk;

/* NULL: no memory. */
struct ls_walk *ls_walk_new(void);
void ls_walk_free(struct ls_walk *walk);
/* Lists what is at `top` ("": all) below the directory `root`: itself first, then each name in it, sorted by their bytes, and what
 * is below that. No symlink is followed. `rules` (NULL: none) say what is left out; a folder of which only something is meant
 * is listed. Sockets are not, nor what vanishes meanwhile. 0, or -errno. */
int ls_walk_run(struct ls_walk *walk, int root, const char *top, const struct ls_rules *rules, int threads,
                struct ls_failure *failure);
/* One `struct ls_walk_record` for each, without gaps; and the path of each with its symlink's target behind it. */
size_t ls_walk_records(struct ls_walk *walk, const uint8_t **data);
size_t ls_walk_strings(struct ls_walk *walk, const uint8_t **data);
/* The bytes of all regular files, each counted under each of its names, and how many things there are that are no folder. */
void ls_walk_sums(const struct ls_walk *walk, uint64_t *bytes, uint64_t *files);
#endif
