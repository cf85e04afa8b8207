/* See tree.h, and the second half of btrfs.h: what can only be learned from the trees themselves. */

#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <sys/ioctl.h>

#include "btrfs.h"
#include "tree.h"

#ifndef BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE
#define BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE (1ULL << 3)
#endif

enum {
    LARGEST_ITEM = 1 << 16, /* a leaf is no larger than this */
    ROOM = 1 << 17,
};

static const uint64_t LAST = UINT64_MAX;

/* --- the search --------------------------------------------------------------------------------------------------- */

int ls_btrfs_search_begin(struct ls_btrfs_search *search, int fd) {
    search->fd = fd;
    search->room = ROOM;
    search->buffer = malloc(sizeof(struct btrfs_ioctl_search_args_v2) + ROOM);
    return search->buffer == NULL ? -ENOMEM : 0;
}

void ls_btrfs_search_end(struct ls_btrfs_search *search) {
    free(search->buffer);
    search->buffer = NULL;
}

/* The key after the last one that was found. False: there is none. */
static bool step(struct btrfs_ioctl_search_key *key, const struct ls_btrfs_item *last) {
    key->min_objectid = last->object;
    key->min_type = last->type;
    key->min_offset = last->offset + 1;
    if (key->min_offset != 0)
        return true;
    key->min_type++;
    if (key->min_type <= UINT8_MAX)
        return true;
    key->min_type = 0;
    return ++key->min_objectid != 0;
}

int ls_btrfs_search_each(struct ls_btrfs_search *search, const struct ls_btrfs_range *range, ls_btrfs_visit *visit,
                         void *context) {
    struct btrfs_ioctl_search_args_v2 *args = search->buffer;
    const uint8_t *found = (const uint8_t *)args + offsetof(struct btrfs_ioctl_search_args_v2, buf);
    struct btrfs_ioctl_search_key key = {
        .tree_id = range->tree,
        .min_objectid = range->first_object,
        .max_objectid = range->last_object,
        .min_type = range->first_type,
        .max_type = range->last_type,
        .min_offset = range->first_offset,
        .max_offset = range->last_offset,
        .min_transid = range->since,
        .max_transid = LAST,
    };
    for (;;) {
        args->key = key;
        args->key.nr_items = UINT32_MAX;
        args->buf_size = search->room;
        if (ioctl(search->fd, BTRFS_IOC_TREE_SEARCH_V2, args) < 0)
            return -errno;
        struct ls_btrfs_item item = {0};
        size_t at = 0;
        uint32_t count = args->key.nr_items;
        for (uint32_t i = 0; i < count; i++) {
            struct btrfs_ioctl_search_header header;
            if (search->room - at < sizeof header)
                return -EUCLEAN;
            memcpy(&header, found + at, sizeof header);
            at += sizeof header;
            if (search->room - at < header.len)
                return -EUCLEAN;
            item = (struct ls_btrfs_item){header.objectid, header.offset, header.type, header.len, found + at};
            at += header.len;
            int failed = visit(context, &item);
            if (failed < 0)
                return failed;
        }
        /* It stops at the end of the range or when the next item does not fit. */
        if (count == 0 || search->room - at > LARGEST_ITEM + sizeof(struct btrfs_ioctl_search_header) ||
            !step(&key, &item))
            return 0;
    }
}

/* --- items -------------------------------------------------------------------------------------------------------- */

static uint64_t number64(const uint8_t *data, size_t at) {
    uint64_t value;
    memcpy(&value, data + at, sizeof value);
    return le64toh(value);
}

static uint16_t number16(const uint8_t *data, size_t at) {
    uint16_t value;
    memcpy(&value, data + at, sizeof value);
    return le16toh(value);
}

static bool is_inode(const struct ls_btrfs_item *item) {
    return item->type == BTRFS_INODE_ITEM_KEY && item->length >= sizeof(struct btrfs_inode_item);
}

/* The items of a subvolume's own inodes, of the types from `first` to `last` and all between. */
static struct ls_btrfs_range inodes(uint64_t since, uint32_t last) {
    return (struct ls_btrfs_range){
        .first_object = BTRFS_FIRST_FREE_OBJECTID,
        .last_object = BTRFS_LAST_FREE_OBJECTID,
        .first_type = BTRFS_INODE_ITEM_KEY,
        .last_type = last,
        .last_offset = LAST,
        .since = since,
    };
}

struct changed {
    uint64_t since;
    ls_btrfs_visit_inode *visit;
    void *context;
};

static int visit_changed(void *context, const struct ls_btrfs_item *item) {
    struct changed *job = context;
    if (!is_inode(item) || number64(item->data, offsetof(struct btrfs_inode_item, transid)) <= job->since)
        return 0; /* it shares its leaf with one that changed */
    return job->visit(job->context, item->object);
}

int ls_btrfs_changed(struct ls_btrfs_search *search, uint64_t since, ls_btrfs_visit_inode *visit, void *context) {
    struct changed job = {since, visit, context};
    struct ls_btrfs_range range = inodes(since + 1, BTRFS_INODE_ITEM_KEY);
    return ls_btrfs_search_each(search, &range, visit_changed, &job);
}

struct naming {
    ls_btrfs_visit_name *visit;
    void *context;
};

/* One item holds all names that an inode has in one directory, or as many as fit. */
static int visit_names(void *context, const struct ls_btrfs_item *item) {
    struct naming *job = context;
    bool extended = item->type == BTRFS_INODE_EXTREF_KEY;
    if (!extended && item->type != BTRFS_INODE_REF_KEY)
        return 0;
    size_t head = extended ? sizeof(struct btrfs_inode_extref) : sizeof(struct btrfs_inode_ref);
    size_t size = extended ? offsetof(struct btrfs_inode_extref, name_len) : offsetof(struct btrfs_inode_ref, name_len);
    for (size_t at = 0; at < item->length;) {
        if (item->length - at < head)
            return -EUCLEAN;
        size_t length = number16(item->data, at + size);
        const char *name = (const char *)item->data + at + head;
        if (length == 0 || length > NAME_MAX || item->length - at - head < length)
            return -EUCLEAN;
        if (memchr(name, '/', length) != NULL || memchr(name, 0, length) != NULL)
            return -EUCLEAN;
        uint64_t parent =
            extended ? number64(item->data, at + offsetof(struct btrfs_inode_extref, parent_objectid)) : item->offset;
        int failed = job->visit(job->context, parent, name, length);
        if (failed < 0)
            return failed;
        at += head + length;
    }
    return 0;
}

int ls_btrfs_names(struct ls_btrfs_search *search, uint64_t inode, ls_btrfs_visit_name *visit, void *context) {
    struct naming job = {visit, context};
    struct ls_btrfs_range range = {
        .first_object = inode,
        .last_object = inode,
        .first_type = BTRFS_INODE_REF_KEY,
        .last_type = BTRFS_INODE_EXTREF_KEY,
        .last_offset = LAST,
    };
    return ls_btrfs_search_each(search, &range, visit_names, &job);
}

/* --- btrfs.h ------------------------------------------------------------------------------------------------------ */

static int search_once(int fd, const struct ls_btrfs_range *range, ls_btrfs_visit *visit, void *context) {
    __attribute__((cleanup(ls_btrfs_search_end))) struct ls_btrfs_search search = {0};
    return ls_btrfs_search_begin(&search, fd) ?: ls_btrfs_search_each(&search, range, visit, context);
}

struct numbers {
    uint32_t type;
    uint64_t *list;
    size_t room, count;
};

/* The offset of a key is the number that is meant: of a subvolume, of a quota group. */
static int visit_number(void *context, const struct ls_btrfs_item *item) {
    struct numbers *numbers = context;
    if (item->type != numbers->type)
        return 0;
    if (numbers->count < numbers->room)
        numbers->list[numbers->count] = item->offset;
    numbers->count++;
    return 0;
}

int64_t ls_btrfs_nested(int fd, uint64_t id, uint64_t *ids, size_t room) {
    struct numbers numbers = {BTRFS_ROOT_REF_KEY, ids, room, 0};
    struct ls_btrfs_range range = {
        .tree = BTRFS_ROOT_TREE_OBJECTID,
        .first_object = id,
        .last_object = id,
        .first_type = BTRFS_ROOT_REF_KEY,
        .last_type = BTRFS_ROOT_REF_KEY,
        .last_offset = LAST,
    };
    int failed = search_once(fd, &range, visit_number, &numbers);
    return failed ? failed : (int64_t)numbers.count;
}

struct written {
    uint64_t since, inodes, bytes;
};

static int visit_written(void *context, const struct ls_btrfs_item *item) {
    struct written *job = context;
    if (is_inode(item)) {
        job->inodes += number64(item->data, offsetof(struct btrfs_inode_item, transid)) > job->since;
        return 0;
    }
    size_t head = offsetof(struct btrfs_file_extent_item, disk_bytenr);
    if (item->type != BTRFS_EXTENT_DATA_KEY || item->length < head)
        return 0;
    if (number64(item->data, offsetof(struct btrfs_file_extent_item, generation)) <= job->since)
        return 0;
    if (item->data[offsetof(struct btrfs_file_extent_item, type)] == BTRFS_FILE_EXTENT_INLINE)
        job->bytes += item->length - head;
    else if (item->length >= sizeof(struct btrfs_file_extent_item) &&
             number64(item->data, offsetof(struct btrfs_file_extent_item, disk_bytenr)) != 0) /* or it is a hole */
        job->bytes += number64(item->data, offsetof(struct btrfs_file_extent_item, num_bytes));
    return 0;
}

int ls_btrfs_written(int subvolume, uint64_t since, uint64_t *inode_count, uint64_t *bytes) {
    struct written job = {since, 0, 0};
    struct ls_btrfs_range range = inodes(since ? since + 1 : 0, BTRFS_EXTENT_DATA_KEY);
    int failed = search_once(subvolume, &range, visit_written, &job);
    *inode_count = job.inodes;
    *bytes = job.bytes;
    return failed;
}

static int visit_status(void *context, const struct ls_btrfs_item *item) {
    uint64_t *flags = context;
    if (item->type == BTRFS_QGROUP_STATUS_KEY && item->length >= offsetof(struct btrfs_qgroup_status_item, rescan))
        *flags = number64(item->data, offsetof(struct btrfs_qgroup_status_item, flags));
    return 0;
}

int ls_btrfs_quota_state(int fd) {
    uint64_t flags = 0;
    struct ls_btrfs_range range = {
        .tree = BTRFS_QUOTA_TREE_OBJECTID,
        .first_type = BTRFS_QGROUP_STATUS_KEY,
        .last_type = BTRFS_QGROUP_STATUS_KEY,
    };
    int failed = search_once(fd, &range, visit_status, &flags);
    if (failed == -ENOENT || (failed == 0 && !(flags & BTRFS_QGROUP_STATUS_FLAG_ON)))
        return LS_BTRFS_QUOTA_OFF; /* there is no such tree */
    if (failed)
        return failed;
    return flags & BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE ? LS_BTRFS_QUOTA_SIMPLE : LS_BTRFS_QUOTA_FULL;
}

int64_t ls_btrfs_groups(int fd, uint64_t *groups, size_t room) {
    struct numbers numbers = {BTRFS_QGROUP_INFO_KEY, groups, room, 0};
    struct ls_btrfs_range range = {
        .tree = BTRFS_QUOTA_TREE_OBJECTID,
        .first_type = BTRFS_QGROUP_INFO_KEY,
        .last_type = BTRFS_QGROUP_INFO_KEY,
        .last_offset = (1ULL << 48) - 1, /* above are those of higher levels */
    };
    int failed = search_once(fd, &range, visit_number, &numbers);
    if (failed == -ENOENT)
        return 0;
    return failed ? failed : (int64_t)numbers.count;
}
