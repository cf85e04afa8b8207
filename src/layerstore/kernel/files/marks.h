/* The names by which a layer says in its tar, and in aufs's form on disk, what it removes (OCI image spec, layer.md,
 * "Whiteouts"). They are written here and nowhere else. */
#ifndef LS_MARKS_H
#define LS_MARKS_H
#include "bytes.h"

#include <limits.h>

/* An empty file `.wh.NAME` hides NAME in all parents. */
#define LS_WHITEOUT_PREFIX ".wh."
/* Names that hide nothing of their own: the opaque mark, and what aufs keeps for itself in the root of a branch. */
#define LS_META_PREFIX ".wh..wh."
/* Hides all that the parents have in the folder that it lies in. */
#define LS_OPAQUE_NAME ".wh..wh..opq"
/* aufs's folder of files that have more than one name. */
#define LS_LINK_STORE ".wh..wh.plnk"

/* Bytes of a prefix or name above, without the NUL. */
#define LS_LENGTH_OF(literal) (sizeof(literal) - 1)

/* Does a name of `length` bytes, which need not end with NUL, begin as a mark does? */
static inline bool ls_is_mark(const void *name, size_t length) {
    return ls_begins(name, length, LS_WHITEOUT_PREFIX);
}

/* The same for a mark that hides nothing of its own. */
static inline bool ls_is_meta(const void *name, size_t length) {
    return ls_begins(name, length, LS_META_PREFIX);
}

/* What the file `name` hides, as a part of that string; NULL: it is no whiteout. */
static inline const char *ls_hidden_by(const char *name) {
    size_t length = strlen(name);
    return ls_is_mark(name, length) && !ls_is_meta(name, length) ? name + LS_LENGTH_OF(LS_WHITEOUT_PREFIX) : NULL;
}

/* The name of the mark that hides `name`. -ENAMETOOLONG: no file can have it. */
static inline int ls_whiteout_of(const char *name, char marker[NAME_MAX + 1]) {
    size_t length = strlen(name);
    if (length > NAME_MAX - LS_LENGTH_OF(LS_WHITEOUT_PREFIX))
        return -ENAMETOOLONG;
    memcpy(marker, LS_WHITEOUT_PREFIX, LS_LENGTH_OF(LS_WHITEOUT_PREFIX));
    memcpy(marker + LS_LENGTH_OF(LS_WHITEOUT_PREFIX), name, length + 1);
    return 0;
}

/* Adds to `marker` the path of the mark that hides `path`: `a/b` gives `a/.wh.b`. */
static inline int ls_whiteout_path(struct ls_bytes *marker, const char *path, size_t length) {
    const char *slash = memrchr(path, '/', length);
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    return ls_bytes_add(marker, path, folder) ?: ls_bytes_add(marker, LS_WHITEOUT_PREFIX, LS_LENGTH_OF(LS_WHITEOUT_PREFIX)) ?: ls_bytes_add(marker, path + folder, length - folder);
}
#endif
