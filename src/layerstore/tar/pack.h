/* Changes become a layer's tar, deterministically: the same changes, the same bytes. See unpack.h for how it fails. */
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
