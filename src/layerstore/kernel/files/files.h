/* Files: opening within a root, syncing, copying, what a filesystem is and can. A function for each job.
   Every function returns >= 0, or -errno. Read by cffi too. */
#ifndef LS_FILES_H
#define LS_FILES_H
#include <stdint.h>

/* openat2: opens `path` from `folder` on, with these O_ flags (O_CLOEXEC is added) and RESOLVE_ flags. */
int ls_open_how(int folder, const char *path, uint64_t flags, unsigned int mode, uint64_t resolve);
/* Opens `path` as if `root` were the root directory: neither `..` nor a symlink nor /proc leads out of it. */
int ls_open_in_root(int root, const char *path, int flags, unsigned int mode);

/* Opens `path` beneath `root` through no symlink at all. */
int ls_open_beneath(int root, const char *path, int flags, unsigned int mode);

/* Does the -errno of opening or describing a name say that there is nothing? A symlink in its place is nothing, too. */
int ls_is_absent(int code);
/* Opens once more what a descriptor (O_PATH too) names. */
int ls_open_again(int handle, int flags);

int ls_sync_filesystem(int fd);

/* The filesystem's magic number. */
int64_t ls_filesystem_magic(int fd);
/* Whether every entry of a folder, `.` and `..` among them, is listed with its type. */
int ls_lists_types(int folder);

/* Lets an empty file be written to in place, without copy on write. -EOPNOTSUPP or -ENOTTY where there is no such choice. */
int ls_write_in_place(int fd);

/* Shares all blocks. */
int ls_clone_file(int from, int to);
/* Shares a range of whole blocks, as far as both hold the same, which the kernel looks at; neither changes. Returns the bytes that
   are shared now, until they differ. */
int64_t ls_share_range(int from, int64_t from_at, int to, int64_t to_at, int64_t length);
/* The same of all that `from` has. */
int64_t ls_share_data(int from, int to);
/* Copies all data into the empty file `to`, by sharing blocks where that is possible; holes stay holes. Returns the size. */
int64_t ls_copy_data(int from, int to);
/* The same without sharing all blocks at once. `dense`: there is no hole to look for; `by_hand`: by reading and writing, so
   that nothing is shared at all. Returns 0. */
int64_t ls_copy_extents(int from, int to, int64_t size, int dense, int by_hand);
#endif
