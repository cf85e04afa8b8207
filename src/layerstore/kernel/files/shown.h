/* What a layer says of one of its files on disk: facts and xattrs, whatever stands in for them where a process may not say all
 * (within.h). Read by cffi too. */
#ifndef LS_FILES_SHOWN_H
#define LS_FILES_SHOWN_H
#include "failure.h"

#include <stdint.h>

/* The marks of overlay on a file: see ls_shown_facts. */
#define LS_SHOWN_WHITEOUT 1
#define LS_SHOWN_OPAQUE 2
/* Whiteouts may lie in this folder that are files with an xattr. */
#define LS_SHOWN_WHITEOUTS 4
#define LS_SHOWN_METACOPY 8

struct ls_shown {
    uint64_t inode;
    int64_t size, mtime;
    uint32_t mode, uid, gid, mtime_ns, major, minor;
    uint32_t marks;
};

/* Of what `fd` names (O_PATH too). `overlay`: its marks are looked for. 0, or -errno. */
int ls_shown_facts(int fd, int overlay, struct ls_shown *shown, struct ls_failure *failure);
/* The value of an xattr of overlay's own, `redirect`: how many bytes of it are in `text`, or -errno (-ENODATA: there is none). */
int64_t ls_shown_redirect(int fd, uint8_t *text, size_t room);
/* The xattrs by their names in a layer, one after the other: lengths of name and value (LEB128), name, value. `overlay`: they
 * lie there as overlay escapes them. How many bytes that is, of which as many as there is room for are in `text`; or -errno. */
int64_t ls_shown_xattrs(int fd, int overlay, uint8_t *text, size_t room, struct ls_failure *failure);
#endif
