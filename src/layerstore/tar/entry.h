/* One entry of a tar: its headers, in any of the dialects that are met in layers, become one struct.
 *
 * Understood: v7, ustar, PAX (pax(1), "pax Interchange Format"), GNU (long names, base-256 numbers, sparse files old,
 * 0.0, 0.1 and 1.0; GNU tar manual, "Tar Internals"), star's xattrs. Pure: no system call is made here. */
#ifndef LS_ENTRY_H
#define LS_ENTRY_H
#include "../kernel/files/array.h"
#include "../kernel/files/xattrs.h"

enum { LS_BLOCK = 512 };

/* What is missing to whole blocks after so many bytes. */
static inline int64_t ls_padding_of(int64_t size) {
    return (LS_BLOCK - size % LS_BLOCK) % LS_BLOCK;
}

enum ls_type {
    LS_REGULAR = 1,
    LS_HARD_LINK,
    LS_SYMLINK,
    LS_CHARACTER,
    LS_BLOCK_DEVICE,
    LS_DIRECTORY,
    LS_FIFO,
    LS_IGNORED, /* a volume label: no file */
};

struct ls_extent {
    int64_t offset, length;
};

struct ls_entry {
    enum ls_type type;
    struct ls_bytes name, link;
    uint32_t mode, uid, gid, major, minor;
    int64_t mtime;
    uint32_t mtime_ns;
    int64_t payload;   /* bytes that follow the header, without padding */
    int64_t real_size; /* of the file; differs from payload when it is sparse */
    struct ls_bytes xattrs;
    bool sparse;
    struct {
        LS_ARRAY(struct ls_extent);
    } extents;
    bool extents_continue; /* old GNU: another block of extents follows */
    bool extents_in_body;  /* PAX 1.0: the payload begins with the map */

    /* what extension headers said, until the entry's own header comes */
    struct ls_bytes long_name, long_link, pax_name, pax_link, sparse_name;
    bool has_size, has_uid, has_gid, has_mtime, has_real_size;
    int64_t pax_size, pax_uid, pax_gid, pax_mtime, pax_real_size;
    uint32_t pax_mtime_ns;
    int sparse_major, sparse_minor;
    bool sparse_map_given, sparse_half;

    /* where reading a PAX 1.0 map has come to */
    size_t map_at;
    int64_t map_count, map_offset;
    bool map_counted, map_half;
};

/* The memory that its extents take. */
static inline int64_t ls_extents_size(const struct ls_entry *entry) {
    return (int64_t)(entry->extents.count * sizeof *entry->extents.list);
}

/* Makes ready for the next entry. */
void ls_entry_reset(struct ls_entry *entry);
void ls_entry_free(struct ls_entry *entry);

/* The type letter of a header block, 0 for a block of zeros; -EBADMSG when it is no tar header. */
int ls_block_type(const uint8_t *block, const char **why);
/* The size field of an extension header (x, g, L, K). */
int64_t ls_block_size(const uint8_t *block, const char **why);
bool ls_is_extension(int type);

/* Each returns 0, -ENOMEM, or -EBADMSG with a sentence in `why`. */
int ls_entry_extension(struct ls_entry *entry, int type, const uint8_t *body, size_t length, const char **why);
int ls_entry_header(struct ls_entry *entry, const uint8_t *block, const char **why);
int ls_entry_more_extents(struct ls_entry *entry, const uint8_t *block, const char **why);
/* The PAX 1.0 map, of which `data` has more at each call: 0 complete (`used` bytes belong to it), 1 more is needed. */
int ls_entry_map(struct ls_entry *entry, const uint8_t *data, size_t length, size_t *used, const char **why);
/* After the last extent: do they fit the file and the payload? Drops those that are empty, and joins neighbours. */
int ls_entry_check_sparse(struct ls_entry *entry, const char **why);
#endif
