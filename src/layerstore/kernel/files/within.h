/* A process within a user namespace: which owners, devices and xattrs it may not give a file, and where these are kept
 * instead, so that a layer says the same as everywhere.
 *
 * The note is `user.containers.override_stat`, which containers/storage and fuse-overlayfs read, too:
 * "UID:GID:0MODE:TYPE", where TYPE is `file`, `dir`, `char-MAJOR-MINOR` or `block-MAJOR-MINOR`. A device is an empty
 * file that nobody else can write. Whatever else only the root of the machine may set lies under `user.layerstore.`. In
 * a container any program can write such a note on what it may write, so one is believed only on a file of the
 * namespace's root, and only for what could not be said without it. Symlinks and FIFOs cannot have notes. */
#ifndef LS_WITHIN_H
#define LS_WITHIN_H
#include "failure.h"

#include <linux/limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* Has this process fewer IDs than there are? Found out once; ls_within_forget when it has entered a namespace. */
bool ls_is_within(void);
void ls_within_forget(void);
/* Can a file be given to this owner? */
bool ls_can_own(uint32_t uid, uint32_t gid);

/* What overlay's xattrs begin with: `trusted.overlay.`, or `user.overlay.` as of mounts with `userxattr`. */
const char *ls_overlay_prefix(void);
enum ls_overlay_xattr {
    LS_XATTR_OPAQUE,
    LS_XATTR_ORIGIN,
    LS_XATTR_WHITEOUT,
    LS_XATTR_REDIRECT,
    LS_XATTR_METACOPY,
};
const char *ls_overlay_xattr(enum ls_overlay_xattr which);

/* The note of a file or directory that should be what `facts` say. 0, or -errno. */
int ls_note_facts(int fd, const struct stat *facts, struct ls_failure *failure);
/* Makes of what stat(2) says of `fd`, or of `name` in the folder `fd`, what the layer says. 0, or -errno. */
int ls_read_note(int fd, const char *name, struct stat *facts, struct ls_failure *failure);
/* fstat, and ls_read_note. */
int ls_facts(int fd, struct stat *facts, struct ls_failure *failure);

#define LS_KEPT_PREFIX "user.layerstore."
/* The name on disk of an xattr of a layer, which is itself in most cases; `name` needs no NUL. False: it is too long. */
bool ls_xattr_stored(const char *name, size_t length, char stored[XATTR_NAME_MAX + 1]);
/* The name in a layer of an xattr on disk; NULL for a note. */
const char *ls_xattr_shown(const char *stored);
#endif
