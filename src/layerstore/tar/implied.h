/* Directories that a layer's tar implies but does not list look as they do in the layers below.
 *
 * Each function returns 0 (or more) or -errno, and tells the call that failed in `failure`, without the path. */
#ifndef LS_IMPLIED_H
#define LS_IMPLIED_H
#include "../kernel/files/failure.h"

#include <stdint.h>

/* What the parents have at `path` ("" is the root): 0 nothing, 1 a directory, 2 a symlink, 3 another file.
 * `hash`: XXH64 of the attributes that a directory there would have; of the defaults, where there is none. */
int ls_implied_look(int below, const char *path, uint64_t *hash, struct ls_failure *failure);
/* Gives the directory `path` of a layer the attributes of the parents' directory of that name. Where they have none,
 * one that is `hollow` (holds whiteouts alone) goes. */
int ls_implied_adopt(int tree, int below, int dialect, const char *path, int hollow, struct ls_failure *failure);
#endif
