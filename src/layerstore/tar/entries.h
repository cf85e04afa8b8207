/* What a skeleton's index says of a layer's files, many at a time, as records of one size. */
#ifndef LS_ENTRIES_H
#define LS_ENTRIES_H
#include <stddef.h>
#include <stdint.h>

/* What is to be read still. The index must outlive it. */
struct ls_entries {
    const uint8_t *index;
    size_t length, at;
    uint64_t payloads_left, left;
};

/* One node. Strings are where they stand in the index. The fields are those of index.h; only a device has major and minor,
 * and it has no size. */
struct ls_record {
    uint64_t path_at, target_at, content, attributes;
    int64_t size, mtime;
    uint32_t path_length, target_length, type, flags, mode, uid, gid, mtime_ns, major, minor;
};

/* 0, or -EBADMSG where the index is none. */
int ls_entries_begin(struct ls_entries *entries, const uint8_t *index, size_t length);
/* Fills up to `room` records with the payloads of files that have holes: path, and in `size` the bytes that are there. To
 * be called until it returns 0, before the nodes can be read; -EBADMSG where the index is damaged. */
int ls_entries_sparse(struct ls_entries *entries, struct ls_record *records, int room);
/* Fills up to `room` records: how many, 0 at the end, or -EBADMSG where the index is damaged. */
int ls_entries_next(struct ls_entries *entries, struct ls_record *records, int room);

/* A payload of a listing (index.h): where in the tar it begins. */
struct ls_laid {
    uint64_t content;
    int64_t size, place;
};

/* Those with at least so many bytes, in the order of the tar: how many there are, of which `room` are filled in; -EBADMSG
 * where the listing is none. */
int64_t ls_laid_in(const uint8_t *index, size_t length, int64_t least, struct ls_laid *laid, int64_t room);
#endif
