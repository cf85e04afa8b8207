/* Is everything of a layer there, whole, and nothing else? See unpack.h for how it fails. */
#ifndef LS_VERIFY_H
#define LS_VERIFY_H
#include "../kernel/files/failure.h"

#include <stddef.h>
#include <stdint.h>

/* Each level does what those before it do. */
#define LS_VERIFY_SIZES 0
#define LS_VERIFY_ATTRIBUTES 1
#define LS_VERIFY_CONTENT 2

struct ls_verify;

/* One thing that is damaged: where within the layer ("": the skeleton), what, and an errno or 0. Valid until the next
 * call. */
struct ls_damage {
    const char *path, *what;
    int code;
};

/* SIZES: type, size and time of each file. ATTRIBUTES: mode, owner, xattrs, links, marks, and nothing that is not in
 * the index. CONTENT: every byte. The index must outlive the verifier. */
struct ls_verify *ls_verify_new(int tree, int dialect, int level, const uint8_t *index, size_t length);
void ls_verify_free(struct ls_verify *verify);
/* 1: something is damaged. 0: the end. -errno: a failure, and nothing is known of what was not looked at. */
int ls_verify_next(struct ls_verify *verify, struct ls_damage *damage);
void ls_verify_failure(struct ls_verify *verify, struct ls_failure *failure);
#endif
