/* One name of a tree made in another one, with all that belongs to it. */
#ifndef LS_FILES_ENTRY_H
#define LS_FILES_ENTRY_H
#include "failure.h"

#include <sys/stat.h>

/* Gives what `to` (any descriptor, O_PATH too, of the same type) names the owner, mode, xattrs and times of what `from` names.
 * `to` has no xattrs yet. 0, or -errno: the place is the caller's to name. */
int ls_entry_settle(int from, int to, const struct stat *facts, struct ls_failure *failure);
/* Makes `name` in `folder` like what `from` (O_PATH) names. A directory is empty and not settled yet; all else is. */
int ls_entry_copy(int from, int folder, const char *name, const struct stat *facts, struct ls_failure *failure);
#endif
