/* Changes, or files gathered from other trees, become a layer's tar, deterministically: the same input, the same bytes.
 * See unpack.h for how it fails. */
#ifndef LS_PACK_H
#define LS_PACK_H
#include "../kernel/files/failure.h"

#include <stddef.h>
#include <stdint.h>

struct ls_pack;

struct ls_pack_result {
    int64_t entries;
    int64_t files;
    int64_t bytes;
};

/* `root`: directory fd of the merged tree. `changes`: the list as ls_changes_list gives it; it must outlive the
 * packer. */
struct ls_pack *ls_pack_new(int root, const uint8_t *changes, size_t length);

/* A tree that files of a layer are read from, and what becomes of them there. `owned`: all are of `uid` and `gid`.
 * `modes`: NULL, or by the permissions of a file its new ones, and 4096 further on the same for a directory. `limited`:
 * later times become `latest`. */
struct ls_piece {
    int root, owned, limited;
    uint32_t uid, gid, latest_ns;
    int64_t latest;
    const uint16_t *modes;
};
/* A directory that is on no disk. Its xattrs are canonical. */
struct ls_made {
    uint32_t mode, uid, gid, mtime_ns;
    int64_t mtime;
    const uint8_t *xattrs;
    size_t xattrs_length;
};
/* `list`: for each entry of the layer, in its order, a number (four bytes, of this machine), its name in the layer and
 * its path below the root of the piece of that number; both end with NUL, "" is the root. A number not below
 * `piece_count` is that of a made directory, whose path is "". All three must outlive the packer. */
struct ls_pack *ls_pack_gather(const struct ls_piece *pieces, size_t piece_count, const struct ls_made *made,
                               const uint8_t *list, size_t length);
void ls_pack_free(struct ls_pack *pack);
/* Before the first read: entries that were modified later get this time. */
void ls_pack_clamp(struct ls_pack *pack, int64_t seconds, uint32_t nanoseconds);
/* The next bytes of the tar; 0 at the end, when the skeleton and its index are complete too; -errno. */
int64_t ls_pack_read(struct ls_pack *pack, uint8_t *buffer, size_t room);
/* The skeleton so far, as with ls_unpack_skeleton; the index and the notices after the end. */
size_t ls_pack_skeleton(struct ls_pack *pack, const uint8_t **data);
void ls_pack_taken(struct ls_pack *pack);
size_t ls_pack_index(struct ls_pack *pack, const uint8_t **data);
size_t ls_pack_notices(struct ls_pack *pack, const uint8_t **data);
void ls_pack_facts(struct ls_pack *pack, struct ls_pack_result *result);
void ls_pack_failure(struct ls_pack *pack, struct ls_failure *failure);
#endif
