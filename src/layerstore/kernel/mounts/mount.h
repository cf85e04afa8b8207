/* Mounts and the mount table, a function for each system call or for two that are never wanted apart.
   Every function returns >= 0, or -errno. Names are in the file system's bytes. Read by cffi too. */
#ifndef LS_MOUNT_H
#define LS_MOUNT_H
#include <stddef.h>
#include <stdint.h>

/* What can be said of a mount itself, whatever its filesystem. */
enum {
    LS_MOUNT_READ_ONLY = 1,
    LS_MOUNT_NOSUID = 2,
    LS_MOUNT_NODEV = 4,
    LS_MOUNT_NOEXEC = 8,
    LS_MOUNT_NOATIME = 16,
    LS_MOUNT_NODIRATIME = 32,
};

/* A filesystem context: the fd that collects what to mount, and that overlay and the kernel write their words to. */
int ls_fsopen(const char *type);
int ls_fsconfig_flag(int context, const char *key);
int ls_fsconfig_string(int context, const char *key, const char *value);
/* By descriptor: a name of any length and with any character. A missing or wrong folder gives the errno of opening it. */
int ls_fsconfig_folder(int context, const char *key, const char *folder);
int ls_fsconfig_descriptor(int context, const char *key, int folder);
int ls_fsconfig_create(int context);
/* The same by a process whose files belong to this user and group, and which can do all that this one can: as overlay
   needs it whose layers show no owner that is the caller's. */
int ls_fsconfig_create_as(int context, unsigned int uid, unsigned int gid);

/* A detached mount: an O_PATH fd whose last close unmounts, unless it was attached. */
int ls_fsmount(int context, unsigned int attributes);
int ls_clone_tree(const char *folder, unsigned int attributes);
/* Lets a detached mount, without those below it, show owners as a user namespace has them outside (mount_setattr(2),
   "ID-mapped mounts"). */
int ls_map_ids(int tree, int user_namespace);
int ls_attach(int tree, const char *target);
/* A detached clone of the mount that `folder` (of any descriptor) lies on, without those below it. That mount has to be
   of the caller's mount namespace. */
int ls_clone_mount(int folder);

/* The old interface. By descriptors: `data` may name directories as plain fd numbers of this process. */
int ls_mount(const char *source, const char *target, const char *type, unsigned int attributes, const char *data);
int ls_remount(const char *target, const char *type, unsigned int attributes, const char *data);
int ls_mount_by_fds(const char *target, const char *type, unsigned int attributes, const char *data);
int ls_mount_bind(const char *source, const char *target, unsigned int attributes);

int ls_unmount(const char *target, int lazy);

/* Gives the calling thread a mount namespace of its own: what it mounts is seen nowhere else, and gone when it ends. */
int ls_leave_namespace(void);
/* Brings the calling thread, and no other, into the mount namespace of a descriptor. */
int ls_join_namespace(int namespace);
/* The ID of the mount namespace of a descriptor, never used again in one boot (since Linux 6.10); and is there a mount
   namespace of this ID (since 6.11)? 1 or 0. */
int ls_namespace_id(int namespace, uint64_t *id);
int ls_namespace_lives(uint64_t id);

/* The mount that `path` lies on: its ID, never used again where `unique`, and whether `path` is its root. The old ID is
   the one that /proc/PID/mountinfo shows. */
struct ls_mount_facts {
    uint64_t id;
    int unique;
    int is_root;
};
enum { LS_FOLLOW = 1, LS_OLD_ID = 2 };
int ls_mount_of(int at, const char *path, int flags, struct ls_mount_facts *facts);

/* The mounts below the mount `under` (all depths), in order of their IDs and after the ID `after`. Returns how many. */
int ls_mounts_under(uint64_t under, uint64_t after, uint64_t *ids, size_t room);
/* Where a mount is attached, seen from this process's root. Returns the length. */
int ls_mountpoint(uint64_t id, char *path, size_t room);
/* Takes all mounts below a folder (its real path) away from this mount namespace; whoever is in one stays there. Allocates
   nothing. */
int ls_unmount_below(const char *folder);
#endif
