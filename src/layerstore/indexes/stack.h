/* Listings of layers become one erofs image, whose data lie in the layers' tars. Python gives the listings, bottom first.
 *
 * Each function returns 0 (or more) or -errno, and the job tells its failure; -EBADMSG is a damaged listing. */
#ifndef LS_STACK_H
#define LS_STACK_H
#include "../kernel/files/failure.h"

#include <stddef.h>
#include <stdint.h>

struct ls_stack;

struct ls_stack_facts {
    int64_t inodes;
    int64_t layer; /* the one that was taken in last, or that a failure is about; the bottom one is 0 */
    int escaped; /* some xattr is one that overlay has to give out: image.c */
};

/* NULL: no memory. */
struct ls_stack *ls_stack_new(void);
void ls_stack_free(struct ls_stack *stack);
/* Lays the next layer on those that came before. `index` is the index of its listing (tar/index.h), `tar` the
 * absolute path of its tar, which has `size` bytes. The index has to stay until the job is freed, and the tar until all is
 * written. */
int ls_stack_add(struct ls_stack *stack, const uint8_t *index, size_t length, const char *tar, int64_t size);
/* 1: the path, one within the tree, is a symlink so far. Else 0. */
int ls_stack_is_symlink(struct ls_stack *stack, const char *path);
/* Writes the image to a new file. It is not synced. The path of a failure is one within the tree, without a slash before it,
 * or that of a tar; "" is the image. */
int ls_stack_write(struct ls_stack *stack, int fd);
void ls_stack_tell(const struct ls_stack *stack, struct ls_stack_facts *facts);
void ls_stack_failure(const struct ls_stack *stack, struct ls_failure *failure);
#endif
