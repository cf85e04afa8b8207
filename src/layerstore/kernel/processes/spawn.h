/* Programs that are started in mount namespaces of their own, of which a container's tree is part. Read by cffi too.

   A start is a clone, in which the child makes its surroundings, and waits: what it is (its number) is written down by
   the parent first. The child has the parent's memory, as after vfork(2), since to copy the tables of a large process costs
   more than all else: a thread is suspended for it, whose thread-local storage it uses, and nothing is allocated in it. */
#ifndef LS_SPAWN_H
#define LS_SPAWN_H
#include <stddef.h>

#include "house.h"

enum { LS_STREAM_SAME = -1, LS_STREAM_NULL = -3 };

/* A program. Lists of strings end with NULL. */
struct ls_program {
    const char *const *names; /* the program's paths, of which the first that is there is taken, as execvp does */
    const char *const *argv;
    const char *const *env;
    char *folder;        /* the current directory; NULL: as the parent's */
    int streams[3];      /* standard input, output and error: descriptors, or one of LS_STREAM_* */
    const int *kept; /* descriptors, 3 and above, that the program has under the same numbers; all others it has not */
    size_t kept_count;
    int new_session; /* setsid(2) */
    const char *const *hidden; /* mounts that are taken away in its namespace; no error if nothing is mounted there */
    const char *emptied; /* a folder below which all mounts are taken away; or NULL */
    int tree; /* a detached mount, which is attached there, */
    const char *root; /* at this place */
    const int *more; /* and others, after it, each */
    const char *const *places; /* at one of these */
    size_t more_count;
    const struct ls_house *house; /* NULL: the program is the host's, and sees all that the host has; else `root` is any
                                     folder of the host, and `names` are not looked at */
    int gate[2]; /* pipes: a byte of the parent's opens the gate, the end of it is the parent's end; */
    int status[2]; /* and a `struct ls_word` */
};

/* A child, until it executes its program or ends. */
struct ls_child {
    int pidfd;
    void *start;
};

/* Makes a child that will be `program`, in a mount namespace of its own. Returns 0 as soon as there is one, or -errno:
   then there is none. The caller closes gate[0] and status[1] after it, and leaves alone all that `program` points to
   until `ls_launched`, which waits until the child has executed its program or ended, and is called once. */
int ls_launch(const struct ls_program *program, struct ls_child *child);
void ls_launched(struct ls_child *child);

/* A descriptor of another process, as one of this (pidfd_getfd(2)). */
int ls_descriptor_of(int pidfd, int fd);
#endif
