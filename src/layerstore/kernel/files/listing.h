/* The one way to list a folder, which tells its end from a failure.
 *
 *     LS_LISTED struct ls_listing listing = {0};
 *     int rc = ls_listing_begin(&listing, folder, failure);
 *     while (!rc && (rc = ls_listing_next(&listing)) > 0)
 *         rc = visit(listing.name, listing.type);
 *     return rc;
 *
 * The loop ends with 0 at the end of the folder, with what `visit` returned if that was not 0, or with -errno when the
 * folder could not be read. So the body always sets `rc`: it is 1 when the body begins. */
#ifndef LS_LISTING_H
#define LS_LISTING_H
#include "failure.h"

#include <stddef.h>
#include <stdint.h>

struct ls_listing {
    /* The entry in hand, until the next one: never `.` or `..`. `type` is a DT_ number of dirent.h: DT_UNKNOWN on some
     * filesystems. */
    const char *name;
    unsigned char type;
    uint64_t inode;

    int folder;
    struct ls_failure *failure;
    char *buffer;
    size_t length, at;
};

#define LS_LISTED __attribute__((cleanup(ls_listing_end)))

/* From the beginning of `folder`, a descriptor that is open to read: it is not closed, and must stay open. May be called
 * again for another folder, which saves making a buffer anew. 0 or -errno; the failure is told without a path. */
int ls_listing_begin(struct ls_listing *listing, int folder, struct ls_failure *failure);
/* 1: there is an entry in hand; 0: there are no more; -errno. A folder that was removed meanwhile holds nothing. */
int ls_listing_next(struct ls_listing *listing);
void ls_listing_end(struct ls_listing *listing);
#endif
