/* What the parts of this folder share: the state of one comparison, and one name in hand. */
#ifndef LS_CHANGES_INTERNAL_H
#define LS_CHANGES_INTERNAL_H
#include "../kernel/files/xattrs.h" /* before those that cffi reads, which include nothing */
#include "../kernel/files/files.h"
#include "../kernel/files/marks.h"
#include "changes.h"

#include <sys/stat.h>

/* GUIDED: by an upper directory. GENERATION: by what a btrfs snapshot says of its inodes. */
enum how { GUIDED, COMPARED, ADDED, GENERATION };

/* In the upper directory, but as the parents have it: copied up and never altered. No change, unless one is found in it. */
#define UNCHANGED 'U'
/* Other things that an upper directory may hold and no tar says: a whiteout of nothing, a directory that is opaque. */
#define STALE 'W'
#define OPAQUE 'O'

struct folder {
    struct folder *next;
    enum how how;
    bool deep; /* a lower directory of the same name is to be compared with */
    bool unaltered; /* since it was copied from that one: it has the same names */
    char path[];
};

struct found {
    char *path;
    char kind;
};

/* A file with several names. When one of them changes, all are part of the change, or the link would be lost. */
struct linked {
    dev_t device;
    ino_t inode;
    char *path;
    bool changed;
};

struct ls_changes {
    int upper, merged, lower;
    int marks; /* of `upper` */
    bool content;
    const struct ls_known *known; /* what is told of the copy that `merged` began as, or NULL */
    bool needs_copy; /* metacopy, redirect, a subvolume inside: what is here alone is not all of it */
    struct ls_snapshot *snapshot; /* of snapshot.c */
    struct folder *todo;
    struct found *found;
    size_t count, room;
    struct found *surplus; /* UNCHANGED, STALE and OPAQUE, by path */
    size_t surplus_count, surplus_room;
    struct linked *linked;
    size_t linked_count, linked_room;
    struct ls_bytes list;
    int code;
    const char *call;
    char *failed;
};

struct place {
    const struct folder *folder;
    int upper, merged, lower; /* fds of this directory, or -1 */
    struct ls_bytes path;     /* of the name in hand */
};

/* changes.c */
int ls_changes_fail(struct ls_changes *changes, int code, const char *call, const char *path);
int ls_changes_add(struct ls_changes *changes, char kind, const char *path);
int ls_changes_add_surplus(struct ls_changes *changes, char kind, const char *path);
int ls_changes_remember_link(struct ls_changes *changes, const struct stat *facts, const char *path, bool changed);
int ls_changes_by_path(const void *a, const void *b);
int ls_changes_finish(struct ls_changes *changes);

/* compare.c */
#define LS_CHANGES_TOO_LONG "path" /* the call that "failed", for a name that no layer can have */
int ls_changes_open(int folder, const char *name, int flags);
/* 1: `name` is in `folder`, and these are its facts; 0: it is not, or there is no such folder (-1); -errno: who knows? */
int ls_changes_look(int folder, const char *name, struct stat *facts);
int ls_changes_open_folder(int root, const char *path);
/* A name that the new tree has. `how` is how to go on below it, if it is a directory. `read_both`: compare bytes, too. */
int ls_changes_present(struct ls_changes *changes, struct place *place, const char *name, const struct stat *now,
                       enum how how, bool read_both);
/* One name of a directory: one that the new tree has, one that the old tree has. */
int ls_changes_visit_there(struct ls_changes *changes, struct place *place, const char *name);
int ls_changes_visit_gone(struct ls_changes *changes, struct place *place, const char *name);
int ls_changes_run(struct ls_changes *changes, enum how how);

/* copied.c: is `now` what the copy of `before` was when it was made? */
bool ls_changes_is_unaltered(const struct ls_changes *changes, const struct stat *now, const struct stat *before);

/* upper.c: one name of an upper directory. */
int ls_changes_visit_upper(struct ls_changes *changes, struct place *place, const char *name);

/* snapshot.c: the names of one directory; 1 if it is not the old tree's, so that all have to be looked at. And, in the end,
 * the other names of linked files. */
int ls_changes_visit_snapshot(struct ls_changes *changes, struct place *place);
int ls_changes_complete_snapshot(struct ls_changes *changes);
/* Opens the directory that holds `path`, and leaves what its times are now in `times`. */
int ls_changes_open_holder(int root, const char *path, const char **name, struct timespec times[2]);
/* Takes away what was copied up and never altered: the parents' file shows through again, which is the same. */
int ls_changes_drop_surplus(struct ls_changes *changes, const char *path);

/* branch.c */
int ls_branch_is_opaque(int folder, int marks); /* 1, 0, or -errno */
int ls_branch_make_exact(struct ls_changes *changes);
#endif
