/* Programs that are started in mount namespaces of their own, of which a container's tree is part. Read by cffi too.

   A start is a clone, in which the child makes its surroundings, and waits: what it is (its number) is written down by
   the parent first. Nothing is allocated in the child, and nothing of the C library that locks is called there: the
   parent may have other threads. */
#ifndef LS_SPAWN_H
#define LS_SPAWN_H
#include <stddef.h>

/* What a child was at when it could not go on. */
enum {
    LS_STEP_STREAMS = 1,
    LS_STEP_PRIVATE,
    LS_STEP_HIDE,
    LS_STEP_ATTACH,
    LS_STEP_SESSION,
    LS_STEP_FOLDER,
    LS_STEP_PROGRAM,
};

/* What a child writes to its status pipe when it gives up. The end of the pipe without a word: the program runs.
   `position`: of the thing in its list. */
struct ls_word {
    int step;
    int number;
    int position;
};

enum { LS_STREAM_SAME = -1, LS_STREAM_NULL = -3 };

/* A program of the host. Lists of strings end with NULL. */
struct ls_program {
    const char *const *names; /* the program's paths, of which the first that is there is taken, as execvp does */
    const char *const *argv;
    const char *const *env;
    const char *folder;  /* the current directory; NULL: as the parent's */
    int streams[3];      /* standard input, output and error: descriptors, or one of LS_STREAM_* */
    const int *kept; /* descriptors, 3 and above, that the program has under the same numbers; all others it has not */
    size_t kept_count;
    int new_session; /* setsid(2) */
    const char *const *hidden; /* mounts that are taken away in its namespace; no error if nothing is mounted there */
    int tree; /* a detached mount, which is attached there, */
    const char *root; /* at this place */
    int gate[2]; /* pipes: a byte of the parent's opens the gate, the end of it is the parent's end; */
    int status[2]; /* and a `struct ls_word` */
};

struct ls_child {
    int pid;
    int pidfd;
};

/* Starts a program as the tree's namespace is all that it has of its own. Returns 0 as soon as there is a child, or
   -errno: then there is none. The caller closes gate[0] and status[1] after it. */
int ls_launch(const struct ls_program *program, struct ls_child *child);
#endif
