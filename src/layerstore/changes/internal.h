/* What the parts of this folder share: the state of one comparison, and one name in hand. Each part's functions stand below
 * its name, and use those of the parts above it. */
#ifndef LS_CHANGES_INTERNAL_H
#define LS_CHANGES_INTERNAL_H
#include "../kernel/files/array.h"
#include "../kernel/files/bytes.h"
#include "../kernel/files/failure.h"
#include "changes.h"

#include <stdbool.h>
#include <sys/stat.h>

/* GUIDED: something tells which names to look at (an upper directory, the generation of a snapshot). */
enum how { GUIDED, COMPARED, ADDED };

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

struct founds {
    LS_ARRAY(struct found);
};

/* A file with several names. When one of them changes, all are part of the change, or the link would be lost. */
struct linked {
    dev_t device;
    ino_t inode;
    char *path;
    bool changed;
};

struct place {
    const struct folder *folder;
    int upper, merged, lower; /* fds of this directory, or -1 */
    struct ls_bytes path; /* of the name in hand */
};

/* Looks at the names of one directory that there is reason to look at. 1: at all of them, as without a guide; 0; -errno. */
typedef int ls_guide(struct ls_changes *changes, struct place *place);

struct ls_changes {
    int upper, merged, lower;
    int marks; /* of `upper` */
    bool stacked; /* there are several upper directories: what one says, one above it may have said otherwise */
    bool content;
    ls_guide *guide;
    struct ls_snapshot *snapshot; /* of snapshot.c */
    /* What copied.c knows: is `now` what the copy of `before` was when it was made? Both NULL if `merged` was no copy. */
    const struct ls_known *known;
    bool (*is_unaltered)(const struct ls_known *known, const struct stat *now, const struct stat *before);
    bool needs_copy; /* metacopy, redirect, a subvolume inside: what is here alone is not all of it */
    struct folder *todo;
    struct founds found;
    struct founds surplus; /* UNCHANGED, STALE and OPAQUE, by path */
    struct {
        LS_ARRAY(struct linked);
    } linked;
    struct ls_bytes list;
    struct ls_failure failure;
};

/* changes.c */
/* A failure at this path. Returns the code, which is -errno. */
int ls_changes_fail(struct ls_changes *changes, const char *call, int code, const char *path);
int ls_changes_add(struct ls_changes *changes, char kind, const char *path);
int ls_changes_add_surplus(struct ls_changes *changes, char kind, const char *path);
int ls_changes_remember_link(struct ls_changes *changes, const struct stat *facts, const char *path, bool changed);
bool ls_changes_is_removed(const struct ls_changes *changes, const char *path);
void ls_changes_sort_surplus(struct ls_changes *changes);
/* Puts in order what was found, and makes it complete. */
int ls_changes_finish(struct ls_changes *changes);

/* compare.c */
int ls_changes_open(int folder, const char *name, int flags);
int ls_changes_open_folder(int root, const char *path);
/* 1: `name` is in `folder`, and these are its facts; 0: it is not, or there is no such folder (-1); -errno: who knows? */
int ls_changes_look(int folder, const char *name, struct stat *facts);
/* A name that the new tree has. `how` is how to go on below it, if it is a directory. `read_both`: compare bytes, too. */
int ls_changes_present(struct ls_changes *changes, struct place *place, const char *name, const struct stat *now,
                       enum how how, bool read_both);
typedef int ls_visit_name(struct ls_changes *changes, struct place *place, const char *name);
int ls_changes_each_name(struct ls_changes *changes, struct place *place, int folder, ls_visit_name *visit);
/* One name of a directory: one that the new tree has, one that the old tree has. */
int ls_changes_visit_there(struct ls_changes *changes, struct place *place, const char *name);
int ls_changes_visit_gone(struct ls_changes *changes, struct place *place, const char *name);
/* Finds all that differs; ls_changes_finish has then to follow. */
int ls_changes_walk(struct ls_changes *changes, enum how how);

/* branch.c: marks of aufs and of fuse-overlayfs. */
/* Makes a mark for each change that removes a name. 1: one was made; 0; -errno. */
int ls_branch_mark_removed(struct ls_changes *changes);
/* Takes away all other marks, which say nothing then. 1: something was altered; 0; -errno. */
int ls_branch_clean(struct ls_changes *changes);
/* Opens the directory that holds `path`, and leaves what its times are now in `times`. */
int ls_branch_open_holder(struct ls_changes *changes, const char *path, const char **name, struct timespec times[2]);
#endif
