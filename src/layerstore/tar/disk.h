/* What unpacking does to the disk: one function for each kind of file, always by a directory fd and one name.
 *
 * Directories are opened beneath the tree without following symlinks, so that even a tree that somebody alters
 * meanwhile cannot lead outside. Each function returns 0 (or more) or -errno, and tells the call that failed in
 * `failure`. */
#ifndef LS_DISK_H
#define LS_DISK_H
#include "model.h"

#include "../kernel/files/failure.h"
#include "../kernel/files/files.h"

struct ls_disk {
    int tree;
    int dialect;
    bool plain_owner; /* new files belong to root:root by themselves */
};

/* A directory that stays open, since most names lie in the same one as the name before. */
struct ls_cursor {
    const struct ls_node *folder;
    unsigned generation;
    int fd;
};

int ls_disk_folder(const struct ls_disk *disk, struct ls_cursor *cursor, const struct ls_node *folder,
                   unsigned generation, struct ls_failure *failure);
void ls_cursor_close(struct ls_cursor *cursor);

/* All of `length` at `position`, or -errno, whatever signals come. A read ends early only at the end of the file. */
ssize_t ls_disk_read(int fd, uint8_t *buffer, size_t length, int64_t position, struct ls_failure *failure);
int ls_disk_write(int fd, const uint8_t *data, size_t length, int64_t position, struct ls_failure *failure);

/* Large files: write-back is begun as they grow, or the final sync finds all of it to do (measured: a third less time).
 * `written_back` is how far it has begun. */
void ls_write_back(int fd, int64_t position, int64_t *written_back);

/* Tells what writing left to be told. The descriptor is closed in any case. */
int ls_disk_close(int *fd, struct ls_failure *failure);

/* An empty file, open for writing. `exact_mode`: the thread's umask is clear, so open(2) can give the mode. */
int ls_disk_regular(const struct ls_disk *disk, int folder, const struct ls_node *node, bool exact_mode,
                    struct ls_failure *failure);
/* Owner, mode, xattrs, times, in the order in which none undoes another. */
int ls_disk_settle(const struct ls_disk *disk, int fd, const struct ls_node *node, bool mode_is_set,
                   struct ls_failure *failure);
int ls_disk_special(const struct ls_disk *disk, int folder, const struct ls_node *node, struct ls_failure *failure);
int ls_disk_directory(const struct ls_disk *disk, int folder, const struct ls_node *node, struct ls_failure *failure);
/* Removes a name and all below it. */
int ls_disk_remove(int folder, const char *name, struct ls_failure *failure);
/* The same by a path within the tree; the directory it lies in keeps its time. */
int ls_disk_remove_path(int tree, const char *path, struct ls_failure *failure);
int ls_disk_whiteout(const struct ls_disk *disk, int folder, const char *name, struct ls_failure *failure);
int ls_disk_opaque(const struct ls_disk *disk, int fd, struct ls_failure *failure);
/* The enum ls_type of a file of this mode; 0 for a socket, which no tar can hold. */
unsigned ls_type_of(mode_t mode);
/* The words of a symlink of `size` bytes into the node. */
int ls_disk_read_link(int fd, int64_t size, struct ls_node *node, struct ls_failure *failure);
/* Reads mode, owner, times and xattrs of what `fd` is into the node. */
int ls_disk_learn(int fd, struct ls_node *node, struct ls_failure *failure);
int ls_disk_clear_xattrs(int fd, struct ls_failure *failure);
/* XXH64 of canonical xattrs, the same for those of a tar and those on disk: a capability of version 3 counts as what it
 * is exported as. */
uint64_t ls_xattrs_hash(const uint8_t *data, size_t length);
#endif
