/* What unpacking does to the disk: one function for each kind of file, always by a directory fd and one name.
 *
 * Directories are opened beneath the tree without following symlinks, so that even a tree that somebody alters meanwhile
 * cannot lead outside. Each function returns 0 or -errno and leaves the name of the call that failed in `call`. */
#ifndef LS_DISK_H
#define LS_DISK_H
#include "model.h"

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
                   unsigned generation, const char **call);
void ls_cursor_close(struct ls_cursor *cursor);

/* An empty file, open for writing. `exact_mode`: the thread's umask is clear, so open(2) can give the mode. */
int ls_disk_regular(const struct ls_disk *disk, int folder, const struct ls_node *node, bool exact_mode,
                    const char **call);
/* Owner, mode, xattrs, times, in the order in which none undoes another. */
int ls_disk_settle(const struct ls_disk *disk, int fd, const struct ls_node *node, bool mode_is_set, const char **call);
int ls_disk_special(const struct ls_disk *disk, int folder, const struct ls_node *node, const char **call);
int ls_disk_directory(const struct ls_disk *disk, int folder, const struct ls_node *node, const char **call);
/* Removes a name and all below it. */
int ls_disk_remove(int folder, const char *name, const char **call);
/* The same by a path within the tree; the directory it lies in keeps its time. */
int ls_disk_remove_path(int tree, const char *path);
int ls_disk_whiteout(const struct ls_disk *disk, int folder, const char *name, const char **call);
int ls_disk_opaque(const struct ls_disk *disk, int fd, const char **call);
/* Reads mode, owner, times and xattrs of what `fd` is into the node. */
int ls_disk_learn(int fd, struct ls_node *node, const char **call);
int ls_disk_clear_xattrs(int fd, const char **call);
/* The same for the same canonical xattrs, in a tar or on disk: a capability of version 3 counts as what it is exported as. */
uint64_t ls_xattrs_hash(const uint8_t *data, size_t length);
#endif
