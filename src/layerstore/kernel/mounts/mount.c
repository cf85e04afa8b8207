/* See mount.h. System calls are made by number: glibc has had wrappers for them since 2.36 only, and has none for
   statmount and listmount, whose types are here for the same reason. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mount.h"
#include "../files/scope.h"

/* Where umount2's flags are defined depends on the libc; their values do not. */
enum { DETACH = 2, NO_FOLLOW = 8 };

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_statmount
#define SYS_statmount 457
#define SYS_listmount 458
#endif
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif
#ifndef STATMOUNT_MNT_POINT
#define STATMOUNT_MNT_POINT 0x00000010U
#endif

#ifndef NS_GET_MNTNS_ID
#define NS_GET_MNTNS_ID _IOR(0xb7, 0x5, uint64_t)
#endif
#define ALL_MOUNTS UINT64_MAX

/* struct mnt_id_req and struct statmount of linux/mount.h, Linux 6.8; the namespace came with 6.11. */
struct mount_request {
    uint32_t size;
    uint32_t spare;
    uint64_t mount_id;
    uint64_t parameter;
    uint64_t namespace;
};
enum { LONGEST_PLACE = 2 * 4096, FIRST_SIZE = offsetof(struct mount_request, namespace) };

struct mount_answer {
    uint32_t size;
    uint32_t options;
    uint64_t mask;
    uint32_t device[2];
    uint64_t magic;
    uint32_t superblock_flags;
    uint32_t type;
    uint64_t id, parent_id;
    uint32_t old_id, old_parent_id;
    uint64_t attributes, propagation, peer_group, master, propagate_from;
    uint32_t root;
    uint32_t point;
    uint64_t later[50];
    char strings[];
};
_Static_assert(offsetof(struct mount_answer, strings) == 512, "struct statmount");

static int result(long answer) {
    return answer < 0 ? -errno : (int)answer;
}

static uint64_t new_attributes(unsigned int attributes) {
    return (attributes & LS_MOUNT_READ_ONLY ? MOUNT_ATTR_RDONLY : 0) |
           (attributes & LS_MOUNT_NOSUID ? MOUNT_ATTR_NOSUID : 0) |
           (attributes & LS_MOUNT_NODEV ? MOUNT_ATTR_NODEV : 0) |
           (attributes & LS_MOUNT_NOEXEC ? MOUNT_ATTR_NOEXEC : 0) |
           (attributes & LS_MOUNT_NOATIME ? MOUNT_ATTR_NOATIME : 0) |
           (attributes & LS_MOUNT_NODIRATIME ? MOUNT_ATTR_NODIRATIME : 0);
}

static unsigned long old_attributes(unsigned int attributes) {
    return (attributes & LS_MOUNT_READ_ONLY ? MS_RDONLY : 0) | (attributes & LS_MOUNT_NOSUID ? MS_NOSUID : 0) |
           (attributes & LS_MOUNT_NODEV ? MS_NODEV : 0) | (attributes & LS_MOUNT_NOEXEC ? MS_NOEXEC : 0) |
           (attributes & LS_MOUNT_NOATIME ? MS_NOATIME : 0) | (attributes & LS_MOUNT_NODIRATIME ? MS_NODIRATIME : 0);
}

int ls_fsopen(const char *type) {
    return result(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}

int ls_fsconfig_flag(int context, const char *key) {
    return result(syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, key, NULL, 0));
}

int ls_fsconfig_string(int context, const char *key, const char *value) {
    return result(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0));
}

int ls_fsconfig_folder(int context, const char *key, const char *folder) {
    LS_CLOSED int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : result(syscall(SYS_fsconfig, context, FSCONFIG_SET_FD, key, NULL, fd));
}

int ls_fsconfig_descriptor(int context, const char *key, int folder) {
    return result(syscall(SYS_fsconfig, context, FSCONFIG_SET_FD, key, NULL, folder));
}

int ls_fsconfig_create(int context) {
    return result(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
}

int ls_fsconfig_create_as(int context, unsigned int uid, unsigned int gid) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data))
        return -errno;
    /* Of this thread alone. A file user who is not root loses the capabilities for files, which capset gives back. */
    gid_t group = (gid_t)syscall(SYS_setfsgid, gid);
    uid_t user = (uid_t)syscall(SYS_setfsuid, uid);
    int rc = syscall(SYS_capset, &header, data) ? -errno : ls_fsconfig_create(context);
    syscall(SYS_setfsuid, user);
    syscall(SYS_setfsgid, group);
    return syscall(SYS_capset, &header, data) && rc >= 0 ? -errno : rc;
}

int ls_map_ids(int tree, int user_namespace) {
    struct mount_attr change = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)user_namespace};
    return result(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &change, sizeof change));
}

int ls_fsmount(int context, unsigned int attributes) {
    return result(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, new_attributes(attributes)));
}

int ls_clone_tree(const char *folder, unsigned int attributes) {
    LS_CLOSED int tree =
        result(syscall(SYS_open_tree, AT_FDCWD, folder, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
    if (tree < 0)
        return tree;
    /* Private: the clone of a shared mount is its peer, and what is mounted in one would be seen in the other. */
    struct mount_attr change = {.attr_set = new_attributes(attributes), .propagation = MS_PRIVATE};
    /* The kinds of atime are one field of several bits: it has to be cleared to be set. */
    if (attributes & LS_MOUNT_NOATIME)
        change.attr_clr = MOUNT_ATTR__ATIME;
    int answer = result(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &change, sizeof change));
    return answer < 0 ? answer : ls_take_fd(&tree);
}

int ls_clone_mount(int folder) {
    LS_CLOSED int tree =
        result(syscall(SYS_open_tree, folder, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
    if (tree < 0)
        return tree;
    struct mount_attr change = {.propagation = MS_PRIVATE};
    int answer = result(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &change, sizeof change));
    return answer < 0 ? answer : ls_take_fd(&tree);
}

int ls_attach(int tree, const char *target) {
    return result(syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH));
}

int ls_mount(const char *source, const char *target, const char *type, unsigned int attributes, const char *data) {
    return result(syscall(SYS_mount, source, target, type, old_attributes(attributes), data));
}

int ls_remount(const char *target, const char *type, unsigned int attributes, const char *data) {
    return result(syscall(SYS_mount, type, target, type, old_attributes(attributes) | MS_REMOUNT, data));
}

struct mount_by_fds {
    const char *target, *type, *data;
    unsigned int attributes;
    int answer;
};

static void *mount_from_fd_folder(void *argument) {
    struct mount_by_fds *job = argument;
    if (unshare(CLONE_FS) < 0 || chdir("/proc/self/fd") < 0)
        job->answer = -errno;
    else
        job->answer = ls_mount(job->type, job->target, job->type, job->attributes, job->data);
    return NULL;
}

/* mount(2) takes one page of options: too little for 500 times "/proc/self/fd/123", enough for 500 times "123". Those are
   relative to the current directory, which a thread can have for itself: the process's own stays where it is. */
int ls_mount_by_fds(const char *target, const char *type, unsigned int attributes, const char *data) {
    struct mount_by_fds job = {.target = target, .type = type, .attributes = attributes, .data = data};
    pthread_t thread;
    int failure = pthread_create(&thread, NULL, mount_from_fd_folder, &job);
    if (failure != 0)
        return -failure;
    pthread_join(thread, NULL);
    return job.answer;
}

int ls_mount_bind(const char *source, const char *target, unsigned int attributes) {
    int answer = result(syscall(SYS_mount, source, target, NULL, (unsigned long)(MS_BIND | MS_REC), NULL));
    if (answer < 0)
        return answer;
    answer = result(syscall(SYS_mount, NULL, target, NULL, (unsigned long)(MS_PRIVATE | MS_REC), NULL));
    if (answer >= 0 && attributes != 0)
        answer =
            result(syscall(SYS_mount, NULL, target, NULL, MS_REMOUNT | MS_BIND | old_attributes(attributes), NULL));
    if (answer < 0)
        syscall(SYS_umount2, target, DETACH | NO_FOLLOW);
    return answer;
}

int ls_unmount(const char *target, int lazy) {
    return result(syscall(SYS_umount2, target, NO_FOLLOW | (lazy ? DETACH : 0)));
}

/* Of `struct statx` (linux/stat.h) what is asked for: not every C library has the fields of Linux 5.8. */
struct told {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint8_t others[128];
    uint64_t mount;
    uint8_t more[104];
};
_Static_assert(sizeof(struct told) == 256 && offsetof(struct told, mount) == 144, "statx");

enum { TELL_MOUNT = 0x1000, IS_MOUNT_ROOT = 0x2000 };

int ls_mount_of(int at, const char *path, int flags, struct ls_mount_facts *facts) {
    struct told found = {0};
    int how = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC | (flags & LS_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW);
    if ((flags & LS_OLD_ID) == 0 && syscall(SYS_statx, at, path, how, STATX_MNT_ID_UNIQUE, &found) < 0)
        return -errno;
    facts->unique = (found.mask & STATX_MNT_ID_UNIQUE) != 0;
    if (!facts->unique) {
        if (syscall(SYS_statx, at, path, how, TELL_MOUNT, &found) < 0)
            return -errno;
        if ((found.mask & TELL_MOUNT) == 0)
            return -EOPNOTSUPP;
    }
    facts->id = found.mount;
    facts->is_root = (found.attributes & IS_MOUNT_ROOT) != 0;
    return 0;
}

int ls_mounts_under(uint64_t under, uint64_t after, uint64_t *ids, size_t room) {
    struct mount_request request = {.size = FIRST_SIZE, .mount_id = under, .parameter = after};
    return result(syscall(SYS_listmount, &request, ids, room, 0));
}

int ls_leave_namespace(void) {
    if (unshare(CLONE_NEWNS) < 0)
        return -errno;
    return result(syscall(SYS_mount, NULL, "/", NULL, (unsigned long)(MS_REC | MS_PRIVATE), NULL));
}

int ls_join_namespace(int namespace) {
    if (unshare(CLONE_FS) < 0)
        return -errno;
    return result(setns(namespace, CLONE_NEWNS));
}

int ls_namespace_id(int namespace, uint64_t *id) {
    return result(ioctl(namespace, NS_GET_MNTNS_ID, id));
}

int ls_namespace_lives(uint64_t id) {
    uint64_t first;
    struct mount_request request = {.size = sizeof request, .mount_id = ALL_MOUNTS, .parameter = 0, .namespace = id};
    int answer = result(syscall(SYS_listmount, &request, &first, 1, 0));
    return answer >= 0 ? 1 : answer == -ENOENT ? 0 : answer;
}

/* Returns the length of what is in `answer` then, of `size` bytes; 0 for a mount that this process cannot reach. */
static int find_mountpoint(uint64_t id, struct mount_answer *answer, size_t size) {
    struct mount_request request = {.size = FIRST_SIZE, .mount_id = id, .parameter = STATMOUNT_MNT_POINT};
    int rc = result(syscall(SYS_statmount, &request, answer, size, 0));
    if (rc < 0)
        return rc;
    return answer->mask & STATMOUNT_MNT_POINT ? (int)strlen(answer->strings + answer->point) : 0;
}

int ls_mountpoint(uint64_t id, char *path, size_t room) {
    size_t size = sizeof(struct mount_answer) + room;
    LS_FREED struct mount_answer *answer = malloc(size);
    if (!answer)
        return -ENOMEM;
    int length = find_mountpoint(id, answer, size);
    if (length < 0)
        return length;
    if ((size_t)length >= room)
        return -EOVERFLOW;
    memcpy(path, answer->strings + answer->point, (size_t)length);
    path[length] = '\0';
    return length;
}

int ls_unmount_below(const char *folder) {
    union {
        struct mount_answer answer;
        char bytes[sizeof(struct mount_answer) + LONGEST_PLACE];
    } found;
    uint64_t ids[64];
    size_t length = strlen(folder);
    struct ls_mount_facts facts;
    int count = ls_mount_of(AT_FDCWD, folder, LS_FOLLOW, &facts);
    for (uint64_t after = 0; count >= 0; after = ids[count - 1]) {
        count = ls_mounts_under(facts.id, after, ids, sizeof ids / sizeof ids[0]);
        if (count <= 0)
            break;
        for (int place = 0; place < count; place++) {
            if (find_mountpoint(ids[place], &found.answer, sizeof found) <= 0)
                continue; /* it went with one above it, or cannot be reached */
            const char *point = found.answer.strings + found.answer.point;
            if (strncmp(point, folder, length) == 0 && point[length] == '/')
                ls_unmount(point, 1);
        }
    }
    return count;
}
