/* Extended attributes, as a list and as they lie on disk. */
#ifndef LS_XATTRS_H
#define LS_XATTRS_H
#include "bytes.h"
#include "failure.h"

#include <sys/types.h>

#define LS_OVERLAY_PREFIX "trusted.overlay."
#define LS_CAPABILITY "security.capability"

/* xattrs are kept as one string: length of name and of value (LEB128), name, value; sorted by name, each name once. */
struct ls_xattr {
    const char *name;
    size_t name_length;
    const uint8_t *value;
    size_t value_length;
};
int ls_xattr_add(struct ls_bytes *xattrs, const char *name, size_t name_length, const void *value, size_t value_length);
bool ls_xattr_next(struct ls_reader *reader, struct ls_xattr *xattr);
int ls_xattr_canonical(struct ls_bytes *xattrs);

/* False for what is the host's or the kernel's and no part of a tree: the SELinux label, and ACLs under a second name. */
bool ls_xattr_travels(const char *name);
/* How xattrs lie on disk: as in an overlay layer; without overlay's escapes; or by the names that they have there. */
enum ls_xattr_form {
    LS_XATTRS_OVERLAY,
    LS_XATTRS_PLAIN,
    LS_XATTRS_RAW,
};
/* The xattrs that belong to a layer, canonical, by their names in the tar; or, raw, all that are copied with a file. 0, or
 * -errno: the place is the caller's to name. */
int ls_xattrs_read(int fd, enum ls_xattr_form form, struct ls_bytes *xattrs, struct ls_failure *failure);
/* Takes off the ACLs that a file or directory has inherited from its parent when it was made. */
int ls_acls_drop(int fd, struct ls_failure *failure);
/* A file capability of version 3 names the root of one host's user namespace: it travels as version 2, without it. Alters
 * the value of the xattr `name`, if it is such a one; returns its size. */
ssize_t ls_xattr_portable(const char *name, uint8_t *value, ssize_t size);
#endif
