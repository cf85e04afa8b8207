/* The tree of a container as the whole of what a program sees: pivot_root(2), and what is mounted in it. Read by cffi. */
#ifndef LS_HOUSE_H
#define LS_HOUSE_H
#include <stddef.h>
#include <stdint.h>

/* One thing that is mounted in the tree: `tree`, a detached mount, or else a filesystem of `type`. */
enum {
    LS_PLACE_OPTIONAL = 1, /* left out where there is no such folder, or the kernel has no such filesystem */
    LS_PLACE_FILE = 2, /* `tree` is a file */
    LS_PLACE_DEVICES = 4, /* it is /dev: the usual devices and links are made in it */
};
struct ls_place {
    char *target; /* absolute; made if it is not there */
    int tree;
    const char *type;
    const char *data;
    unsigned long mount_flags; /* of mount(2) */
    int flags;
};

struct ls_limit {
    int resource;
    uint64_t soft, hard;
};

enum { LS_NEW_UTS = 0x04000000, LS_NEW_IPC = 0x08000000, LS_NEW_PID = 0x20000000 };

/* `namespaces`: LS_NEW_*, beside the mount namespace. Steps are told as those of spawn.h. */
struct ls_house {
    unsigned long namespaces;
    const struct ls_place *places;
    size_t place_count;
    const char *hostname; /* or NULL */
    int terminal; /* a terminal of its own is made, and is what the streams are */
    const struct ls_limit *limits;
    size_t limit_count;
    int umask;
    int makes_folder; /* the folder that the program begins in is made if it is not there */
    int image; /* what is executed in it: a program that needs nothing of the tree (init.c) */
};

/* What a child was at when it could not go on. */
enum {
    LS_STEP_STREAMS = 1,
    LS_STEP_PRIVATE,
    LS_STEP_HIDE,
    LS_STEP_ATTACH,
    LS_STEP_SESSION,
    LS_STEP_FOLDER,
    LS_STEP_PROGRAM,
    LS_STEP_PIVOT,
    LS_STEP_PLACE,
    LS_STEP_DEVICES,
    LS_STEP_TERMINAL,
    LS_STEP_HOSTNAME,
    LS_STEP_LIMITS,
    LS_STEP_USER,
    LS_STEP_INIT,
    LS_STEP_READY, /* no failure: the child waits, and `number` is the descriptor of its terminal */
};

/* What a child writes to its status pipe when it gives up. The end of the pipe without a word: the program runs.
   `position`: of the thing in its list. */
struct ls_word {
    int step;
    int number;
    int position;
};

/* Is there a first program (init.c) for this kind of machine? */
int ls_has_init(void);

/* For the child alone: makes `tree`, which is attached, the root of all that it sees, and furnishes it. Returns 0, or -1
   and what failed. */
int ls_move_in(const struct ls_house *house, int tree, struct ls_word *word);
/* Goes into a folder, which is made if the house says so. Returns 0 or -1. */
int ls_enter(const struct ls_house *house, char *folder);
/* The terminal's descriptor, with its other end as standard streams and controlling terminal; or -1. */
int ls_own_terminal(struct ls_word *word);
#endif
