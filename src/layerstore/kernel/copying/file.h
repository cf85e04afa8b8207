/* What the two parts of the tree copier share: one copy, the threads at work on it, and the folders in hand. */
#ifndef LS_COPYING_FILE_H
#define LS_COPYING_FILE_H
#include "../files/array.h"
#include "../files/pool.h"
#include "copy.h"

#include <linux/limits.h>
#include <sys/stat.h>

enum { BUCKETS = 4096 };

/* The two trees: an index of each pair of descriptors. */
enum { SOURCE, TARGET };

struct folder {
    struct ls_folder base;
    int fds[2]; /* -1: not kept */
    bool there; /* the target had it: what it has stays */
};

/* What is told of a file or folder that was made. */
struct record {
    uint64_t inode, source;
    int64_t seconds;
    int64_t nanoseconds;
};

/* A file of several names. The first thread that meets it makes it, the others wait and link. */
enum state { VACANT, BUSY, DONE };
struct link {
    struct link *next;
    dev_t device;
    ino_t inode;
    enum state state;
    struct record record;
    char *path; /* of the name that was made first */
};

struct worker {
    struct ls_worker base;
    bool exact_modes;    /* no umask */
    struct folder *hand; /* the last folder, if its descriptors are not kept in it */
    int hand_fds[2];
    struct {
        LS_ARRAY(struct record);
    } records;
    uint64_t files, bytes;
    bool reflinked;
    char names[XATTR_LIST_MAX];
    char value[XATTR_SIZE_MAX];
};

struct job {
    struct ls_pool pool;
    bool unshared, cannot_share;
    uid_t uid;
    gid_t gid;
    int root; /* of the target */
    struct stat source, target;
    struct link *links[BUCKETS]; /* files of several names, by inode */
};

/* One end of a copy: an open file, or a name in a folder for what cannot be opened. */
struct end {
    int fd;
    int folder;
    const char *name;
};

/* Each returns -errno on a failure; the call is told in the worker's `failure`, and the place is the caller's to name. */

/* Copies what is no folder. 0 also when the name has vanished from a tree that is in use; -EISDIR: it is one. */
int ls_copying_file(struct worker *worker, const struct folder *folder, const int fds[2], const char *name, int type);
/* Gives owner, mode, xattrs, times. `made` is what came of it. */
int ls_copying_attributes(struct worker *worker, const struct end *from, const struct end *to, const struct stat *facts,
                          struct stat *made);
/* One file or folder that has one name was made. */
int ls_copying_note(struct worker *worker, const struct stat *made, const struct stat *facts);

/* Opens `path` in the tree `end`, without a symlink; in the source without entering a mount, and without a trace. Here
 * nothing is told but -errno. */
int ls_copying_open(int folder, const char *path, int flags, int end);
/* Opens a folder whose path may be longer than the kernel takes. */
int ls_copying_open_far(int root, const char *path, int end);
#endif
