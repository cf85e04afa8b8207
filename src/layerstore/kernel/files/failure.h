/* What a failure is told by: the call, its number, the place. Read by cffi too.
 *
 * A function that can fail returns -errno and leaves the rest in a `struct ls_failure` that its caller gave it. Where the
 * call is known, ls_fail (or LS_FAIL, with errno) writes it down; where the path is known, further out, ls_fail_at adds it.
 *
 *     if (fchown(fd, uid, gid))
 *         return LS_FAIL(failure, "fchown");
 *     …
 *     return rc ? ls_fail_at(failure, path) : 0;
 *
 * The last failure that was written down counts, so one that is put up with (ENOENT, where something may vanish) needs no
 * undoing. Threads have one each, and ls_failure_keep keeps the first of theirs, under their lock. Nothing here allocates:
 * that memory has run out can be told, too. */
#ifndef LS_FAILURE_H
#define LS_FAILURE_H
#include <errno.h>
#include <stddef.h>

/* Kinds of failure. */
#define LS_FAIL_ARCHIVE 1  /* a tar is wrong */
#define LS_FAIL_SYSTEM 2   /* a call failed */
#define LS_FAIL_DAMAGED 3  /* what is stored is not what was stored */
#define LS_FAIL_DIALECT 4  /* the driver's form has no room for it */
#define LS_FAIL_TAR 5      /* a tar has no room for it */
#define LS_FAIL_TOO_LONG 6 /* a path is longer than any layer can have */
#define LS_FAIL_LIMIT 7    /* a limit is reached: `what` is the name of the setting */

/* `code` is a positive errno, 0 while there is no failure. `what` is the name of the call, or for other kinds a sentence;
 * it is static. `path` is "" where there is none to name, and never longer than the kernel takes: a longer one keeps its
 * end, which says more. */
struct ls_failure {
    int kind;
    int code;
    const char *what;
    char path[4096];
};

/* NULL for `failure`: the number alone is wanted. `code` is -errno, and is returned. */
int ls_fail(struct ls_failure *failure, const char *call, int code);
/* Names the place, unless that has been done further in. Returns the failure's -errno. */
int ls_fail_at(struct ls_failure *failure, const char *path);
/* The same, where the place is `name` in `folder`, which is "" for the root. */
int ls_fail_in(struct ls_failure *failure, const char *folder, const char *name);
/* A failure of any kind, whose path is `length` bytes. Returns -code, and takes it as a positive errno. */
int ls_fail_as(struct ls_failure *failure, int kind, int code, const char *what, const void *path, size_t length);
/* Keeps `later`, if there is no failure yet. */
void ls_failure_keep(struct ls_failure *first, const struct ls_failure *later);

#define LS_FAIL(failure, call) ls_fail((failure), (call), -errno)
#endif
