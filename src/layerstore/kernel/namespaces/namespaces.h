/* A user namespace and a mount namespace in it: made, and entered. Read by cffi too. */
#ifndef LS_NAMESPACES_H
#define LS_NAMESPACES_H

/* Both new, for the calling process, which may have one thread only (unshare(2)). 0, or -errno. */
int ls_new_namespaces(void);
/* Goes into both, by descriptors; likewise. What is known of this process's IDs is forgotten. 0, or -errno. */
int ls_enter_namespaces(int user, int mounts);
/* A descriptor of a user namespace that has these IDs, each text as for /proc/PID/uid_map, and no process. */
int ls_namespace_of(const char *uids, const char *gids);
/* Has this process fewer user and group IDs than there are? */
int ls_within(void);
#endif
