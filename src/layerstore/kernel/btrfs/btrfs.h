/* btrfs: subvolumes, snapshots, quota groups, and what its trees tell. Privileged, but for creating and asking.
   Every function returns >= 0, or -errno. Read by cffi too. */
#ifndef LS_BTRFS_H
#define LS_BTRFS_H
#include <stddef.h>
#include <stdint.h>

/* The inode number of every subvolume's root (BTRFS_FIRST_FREE_OBJECTID). */
enum { LS_BTRFS_ROOT_INODE = 256 };

/* Makes an empty subvolume in a folder. Not durable by itself. */
int ls_btrfs_create(int folder, const char *name);

/* Makes a snapshot of the subvolume `source`. Writes the source's dirty data and commits: whole, on disk, on return.
   `group`: the quota group of a higher level that it joins; 0: none. */
int ls_btrfs_snapshot(int source, int folder, const char *name, int read_only, uint64_t group);

/* Destroys a subvolume, open files and read-only flag or not; ENOTEMPTY if it holds another one. The space comes back
   later. Not durable by itself: a power cut undoes it. */
int ls_btrfs_destroy(int folder, const char *name);
/* The same, for one that lies anywhere on the filesystem of `fd`. Linux 5.7. */
int ls_btrfs_destroy_id(int fd, uint64_t id);

/* The flag that forbids writing. Setting it commits, without data that is still dirty. Who has a file open writes on. */
int ls_btrfs_is_read_only(int subvolume);
int ls_btrfs_set_read_only(int subvolume, int read_only);

/* `created`: the transaction in which it was made; `changed`: the last in which its tree was written. `parent_uuid`: of
   what it is a snapshot; zeros if it is none. */
struct ls_btrfs_subvolume {
    uint64_t id;
    uint64_t created;
    uint64_t changed;
    uint8_t uuid[16];
    uint8_t parent_uuid[16];
};
int ls_btrfs_subvolume(int fd, struct ls_btrfs_subvolume *facts);

/* The subvolumes that lie in the subvolume `id`, as many as there is room for. Returns how many there are. */
int64_t ls_btrfs_nested(int fd, uint64_t id, uint64_t *ids, size_t room);

/* Inodes of a subvolume that changed after the transaction `since`, and bytes that were written to new blocks. */
int ls_btrfs_written(int subvolume, uint64_t since, uint64_t *inodes, uint64_t *bytes);

/* What the filesystem does about quotas. Simple ones count what each subvolume wrote; full ones who shares what. */
enum { LS_BTRFS_QUOTA_OFF = 0, LS_BTRFS_QUOTA_SIMPLE = 1, LS_BTRFS_QUOTA_FULL = 2 };
int ls_btrfs_quota_state(int fd);
int ls_btrfs_quota_enable(int fd, int simple);
/* What a group may occupy for itself: all that its subvolume wrote, with simple quotas; what it does not share, with
   full ones. 0: no limit. */
int ls_btrfs_group_limit(int fd, uint64_t group, uint64_t bytes);
/* EBUSY while its subvolume, or data that was counted for it, is there. */
int ls_btrfs_group_remove(int fd, uint64_t group);
/* The groups of single subvolumes, as many as there is room for. Returns how many there are. */
int64_t ls_btrfs_groups(int fd, uint64_t *groups, size_t room);
#endif
