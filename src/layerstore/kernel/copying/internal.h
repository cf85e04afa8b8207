/* What the parts of the tree copier share: one copy, the threads at work on it, and the folders that wait. */
#ifndef LS_COPYING_H
#define LS_COPYING_H
#include "../files/xattrs.h" /* before those that cffi reads, which include nothing */
#include "copy.h"

#include <linux/limits.h>
#include <pthread.h>
#include <sys/stat.h>

enum {
    LISTING = 32 * 1024,
    MOST_THREADS = 16,
    BUCKETS = 4096,
};

/* The two trees: an index of each pair of descriptors. */
enum { SOURCE, TARGET };

struct folder {
    struct folder *above;
    struct folder *next;
    unsigned int depth;
    unsigned int
        left; /* folders in it that are not done, one for the listing, and one for each thread that has it in hand */
    int fds[2];
    char name[];
};

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
    struct job *job;
    pthread_t thread;
    int exact_modes; /* no umask */
    struct folder *hand; /* the last folder, if its descriptors are not kept in it */
    int hand_fds[2];
    struct record *records;
    size_t count, room;
    uint64_t files, bytes;
    int reflinked;
    _Alignas(uint64_t) char listing[LISTING];
    char names[XATTR_LIST_MAX];
    char value[XATTR_SIZE_MAX];
};

struct job {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct folder *stack;
    int finished;
    int failure;
    const char *call;
    int unshared;
    int cannot_share;
    uid_t uid;
    gid_t gid;
    int root; /* of the target */
    struct stat source, target;
    unsigned int entries;
    int threads, started;
    struct worker *workers[MOST_THREADS];
    struct link *links[BUCKETS];
    char *where;
    size_t room;
};

/* One end of a copy: an open file, or a name in a folder for what cannot be opened. */
struct end {
    int fd;
    int folder;
    const char *name;
};

/* copy.c: remembers the first failure, and where. Returns it. */
int ls_copying_fail(struct job *job, const struct folder *folder, const char *name, const char *call, int failure);

/* copy_folders.c */
struct folder *ls_copying_folder(struct folder *above, const char *name);
/* One of those that `left` counts is done. */
void ls_copying_release(struct job *job, struct folder *folder);
void ls_copying_close(int fds[2]);
/* The names from below `base` down to `folder`, and `name` (NULL: none), with slashes; the root's own name is in no path. */
char *ls_copying_path(const struct folder *base, const struct folder *folder, const char *name);
/* Opens `path` in the tree `end`, without a symlink; in the source without entering a mount, and without a trace. */
int ls_copying_open(int folder, const char *path, int flags, int end);
/* Opens a folder whose path may be longer than the kernel takes. */
int ls_copying_open_far(int root, const char *path, int end);
/* Opens a folder in both trees; only for the thread whose hand it may need. */
int ls_copying_open_folder(struct worker *worker, const struct folder *folder, int fds[2]);
/* Keeps both descriptors: in the folder, or if it lies deep, in the thread's hand. */
void ls_copying_keep(struct worker *worker, struct folder *folder, const int fds[2]);
void ls_copying_drop_hand(struct worker *worker);

/* copy_file.c: copies what is no folder. 0 also when the name has vanished from a tree that is in use; -EISDIR: it is one. */
int ls_copying_file(struct worker *worker, const struct folder *folder, const int fds[2], const char *name, int type);
/* Gives owner, mode, xattrs, times. `made` is what came of it. */
int ls_copying_attributes(struct worker *worker, const struct end *from, const struct end *to, const struct stat *facts,
                          struct stat *made, const char **call);

/* copy_made.c: one file or folder that has one name was made. */
int ls_copying_note(struct worker *worker, const struct stat *made, const struct stat *facts);
/* A file of several names. 1: this thread is to make it, and settles what came of that; 0: it is there, link to it. */
int ls_copying_claim(struct job *job, const struct folder *folder, const char *name, const struct stat *facts,
                     struct link **found);
void ls_copying_settle(struct job *job, struct link *link, enum state state, const struct stat *made,
                       const struct stat *facts);
int ls_copying_link(struct worker *worker, const struct folder *folder, const int fds[2], const char *name,
                    struct link *link);
/* The list of all that was made, when all threads are done. */
int ls_copying_list(const struct job *job, struct ls_copied *copied);
void ls_copying_forget(struct job *job);
#endif
