/* An erofs image (Linux: fs/erofs/erofs_fs.h): what image.c lays out, and what its parts write.
 *
 *     0       nothing
 *     1024    superblock
 *     1152    device slots, 128 bytes each: the tars, bottom first
 *     then    inodes, at multiples of 32; an inode's number is its place / 32. Each is followed by its xattrs, and by the
 *             words of a symlink or by the places of a file's chunks
 *     then    in blocks: directories, and symlinks that fit in no block with their inode
 *     then    chunks of sparse files that lie in no tar as they have to be read
 *
 * Blocks have 512 bytes, as tars have: so each file of a tar can be read where it lies. */
#ifndef LS_IMAGE_H
#define LS_IMAGE_H
#include "tree.h"

#include "../kernel/files/xattrs.h"

enum {
    LS_BLOCK_BITS = 9,
    LS_INODE_SIZE = 64,
    LS_INODE_ROOM = 32,
};
#define LS_NULL_BLOCK 0xFFFFFFFFu

/* Bytes on their way to one place of the file after another. */
struct ls_image {
    struct ls_stack *stack;
    int fd;
    int64_t at;            /* where `text` begins */
    struct ls_bytes text;  /* not written yet */
    uint64_t end;          /* the first block that nothing has yet */
    int tar;               /* of which something was copied last, or -1 */
    int64_t opened;        /* its layer */
};

static inline void ls_put_16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)value, at[1] = (uint8_t)(value >> 8);
}
static inline void ls_put_32(uint8_t *at, uint32_t value) {
    ls_put_16(at, (uint16_t)value), ls_put_16(at + 2, (uint16_t)(value >> 16));
}
static inline void ls_put_64(uint8_t *at, uint64_t value) {
    ls_put_32(at, (uint32_t)value), ls_put_32(at + 4, (uint32_t)(value >> 32));
}
static inline int64_t ls_round_up(int64_t value, int64_t to) {
    return (value + to - 1) / to * to;
}

/* Each tells its failure in the stack. */

/* --- image_bytes.c */

int ls_image_put(struct ls_image *image, const void *data, size_t length);
/* Zeros until that place of the file. */
int ls_image_fill(struct ls_image *image, int64_t until);
/* What was put, to the file. */
int ls_image_flush(struct ls_image *image);

/* --- image_folder.c: directories */

/* Sorts what is in it; `packed` becomes the bytes of its blocks. */
int ls_folder_plan(struct ls_stack *stack, struct ls_inode *folder);
int ls_folder_write(struct ls_image *image, const struct ls_inode *folder);

/* --- image_xattr.c: extended attributes */

/* `xattrs_size` becomes the bytes that they take behind the inode, and the mode what an access control list says. */
int ls_xattrs_plan(struct ls_stack *stack, struct ls_inode *inode);
int ls_xattrs_write(struct ls_image *image, const struct ls_inode *inode);

/* --- image_chunk.c: where the data of files lie */

int ls_chunks_plan(struct ls_stack *stack, struct ls_inode *inode);
int64_t ls_chunks_count(const struct ls_inode *inode);
int ls_chunks_write(struct ls_image *image, const struct ls_inode *inode);
#endif
