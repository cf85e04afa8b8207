/* Descriptors and memory that are given back where their name's scope ends, on every way out of it.
 *
 *     LS_CLOSED int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
 *     LS_FREED char *path = strdup(name);
 *
 * A variable has its value from the beginning on: -1, any other negative number, or NULL where there is nothing yet. What
 * is to outlive its scope is taken out of the variable: `return ls_take_fd(&fd);`, `node->path = LS_TAKE(path);`. A byte
 * string has LS_BYTES_FREED (bytes.h), an array LS_ARRAY_FREED (array.h), a listing LS_LISTED (listing.h).
 *
 * `return -errno;` is right in such a scope: the value is taken before anything is closed. */
#ifndef LS_SCOPE_H
#define LS_SCOPE_H
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LS_CLOSED __attribute__((cleanup(ls_scope_close)))
#define LS_FREED __attribute__((cleanup(ls_scope_free)))

static inline void ls_scope_close(const int *fd) {
    if (*fd >= 0)
        close(*fd);
}

/* `place` is where the pointer lies, of whatever type it is. */
static inline void ls_scope_free(const void *place) {
    void *block;
    memcpy(&block, place, sizeof block);
    free(block);
}

static inline int ls_take_fd(int *fd) {
    int taken = *fd;
    *fd = -1;
    return taken;
}

#define LS_TAKE(pointer)                                                                                               \
    ({                                                                                                                 \
        __typeof__(pointer) taken_ = (pointer);                                                                        \
        (pointer) = NULL;                                                                                              \
        taken_;                                                                                                        \
    })
#endif
