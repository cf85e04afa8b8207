/* See listing.h; and of files.h what asks how a filesystem lists. */
#define _GNU_SOURCE
#define _LARGEFILE64_SOURCE /* musl has `getdents64` for it alone */
#include "listing.h"
#include "files.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = 32 * 1024 };

int ls_listing_begin(struct ls_listing *listing, int folder, struct ls_failure *failure) {
    listing->folder = folder;
    listing->failure = failure;
    listing->length = listing->at = 0;
    if (!listing->buffer && !(listing->buffer = malloc(ROOM)))
        return ls_fail(failure, "malloc", -ENOMEM);
    return lseek(folder, 0, SEEK_SET) < 0 ? LS_FAIL(failure, "lseek") : 0;
}

static int fill(struct ls_listing *listing) {
    ssize_t length;
    do
        length = getdents64(listing->folder, (void *)listing->buffer, ROOM);
    while (length < 0 && errno == EINTR);
    if (length < 0 && errno != ENOENT) /* which is said of a folder that was removed */
        return LS_FAIL(listing->failure, "getdents64");
    listing->length = length < 0 ? 0 : (size_t)length;
    listing->at = 0;
    return listing->length > 0;
}

/* The next entry, `.` and `..` too. */
static int step(struct ls_listing *listing) {
    int rc = listing->at < listing->length ? 1 : fill(listing);
    if (rc <= 0)
        return rc;
    const struct dirent64 *entry = (const struct dirent64 *)(listing->buffer + listing->at);
    listing->at += entry->d_reclen;
    listing->name = entry->d_name;
    listing->type = entry->d_type;
    listing->inode = entry->d_ino;
    return 1;
}

int ls_listing_next(struct ls_listing *listing) {
    int rc;
    do
        rc = step(listing);
    while (rc > 0 && (!strcmp(listing->name, ".") || !strcmp(listing->name, "..")));
    return rc;
}

void ls_listing_end(struct ls_listing *listing) {
    free(listing->buffer);
    *listing = (struct ls_listing){0};
}

int ls_lists_types(int folder) {
    LS_LISTED struct ls_listing listing = {0};
    int rc = ls_listing_begin(&listing, folder, NULL);
    while (!rc && (rc = step(&listing)) > 0)
        rc = listing.type == DT_UNKNOWN;
    return rc < 0 ? rc : !rc;
}
