/* What differs between a tree and the one it was copied from, by what the copier told of each file that it made: its inode,
 * that of its source, and its time of change.
 *
 * The kernel sets a file's time of change at each write, at each change of its attributes, names or xattrs, and nobody can
 * set it back; the copier waits for the clock to move on. So a file that has the inode and the time that it got as a copy, and
 * stands where its source stands in the old tree, is what its source is. Everything else is compared as in compare.c. */
#define _GNU_SOURCE
#include "internal.h"

struct known {
    uint64_t inode, source;
    int64_t seconds, nanoseconds;
    bool used, doubtful; /* told of twice: something was removed meanwhile, and its inode used again */
};

struct ls_known {
    struct known *slots;
    size_t mask;
    dev_t merged, lower; /* inode numbers are those of one filesystem */
};

static struct known *slot_of(const struct ls_known *known, uint64_t inode) {
    size_t at = (inode * 0x9E3779B97F4A7C15u >> 20) & known->mask;
    while (known->slots[at].used && known->slots[at].inode != inode)
        at = (at + 1) & known->mask;
    return &known->slots[at];
}

static bool is_unaltered(const struct ls_known *known, const struct stat *now, const struct stat *before) {
    if (now->st_dev != known->merged || before->st_dev != known->lower)
        return false;
    const struct known *slot = slot_of(known, now->st_ino);
    return slot->used && !slot->doubtful && slot->source == before->st_ino && slot->seconds == now->st_ctim.tv_sec &&
           slot->nanoseconds == now->st_ctim.tv_nsec;
}

static int read_list(struct ls_known *known, const uint8_t *list, size_t length) {
    enum { LEAST = 4 }; /* bytes of one record */
    struct ls_reader reader = {list, list + length, false};
    struct known last = {.used = true};
    size_t room = 16;
    while (room / 2 < length / LEAST)
        room *= 2;
    known->slots = calloc(room, sizeof *known->slots);
    if (!known->slots)
        return -ENOMEM;
    known->mask = room - 1;
    while (reader.at < reader.end && !reader.bad) {
        last.inode += (uint64_t)ls_read_signed(&reader);
        last.source += (uint64_t)ls_read_signed(&reader);
        last.seconds = (int64_t)((uint64_t)last.seconds + (uint64_t)ls_read_signed(&reader));
        last.nanoseconds = (int64_t)((uint64_t)last.nanoseconds + (uint64_t)ls_read_signed(&reader));
        struct known *slot = slot_of(known, last.inode);
        bool twice = slot->used;
        if (reader.bad)
            return -EBADMSG;
        *slot = last;
        slot->doubtful = twice;
    }
    return 0;
}

int ls_changes_of_copy(struct ls_changes *changes, int merged, int lower, const uint8_t *list, size_t length) {
    struct ls_known known = {0};
    struct stat now, before;
    if (fstat(merged, &now) || fstat(lower, &before))
        return ls_changes_fail(changes, "fstat", -errno, "");
    known.merged = now.st_dev;
    known.lower = before.st_dev;
    int rc = read_list(&known, list, length);
    if (rc == -ENOMEM)
        return ls_changes_fail(changes, "malloc", rc, "");
    if (!rc) {
        changes->known = &known;
        changes->is_unaltered = is_unaltered;
    }
    rc = ls_changes_of_trees(changes, merged, lower, 1);
    changes->known = NULL;
    changes->is_unaltered = NULL;
    free(known.slots);
    return rc;
}
