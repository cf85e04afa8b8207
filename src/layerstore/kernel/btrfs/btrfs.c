/* See btrfs.h. Subvolumes and quota groups: an ioctl each, with what linux/btrfs.h says of it. */

#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/btrfs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "btrfs.h"

#ifndef BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
#define BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA 4 /* Linux 6.7 */
#endif

static int called(int answer) {
    return answer < 0 ? -errno : 0;
}

static int named(char *to, size_t room, const char *name) {
    size_t length = strlen(name);
    if (length >= room)
        return -ENAMETOOLONG;
    memcpy(to, name, length + 1);
    return 0;
}

/* For kernels that lack the second version of a call. */
static int first_version(int folder, unsigned long request, int64_t fd, const char *name) {
    struct btrfs_ioctl_vol_args args = {.fd = fd};
    int failed = named(args.name, sizeof args.name, name);
    return failed ? failed : called(ioctl(folder, request, &args));
}

int ls_btrfs_create(int folder, const char *name) {
    struct btrfs_ioctl_vol_args_v2 args = {0};
    int failed = named(args.name, sizeof args.name, name);
    if (failed == 0)
        failed = called(ioctl(folder, BTRFS_IOC_SUBVOL_CREATE_V2, &args));
    return failed == -ENOTTY ? first_version(folder, BTRFS_IOC_SUBVOL_CREATE, 0, name) : failed;
}

int ls_btrfs_snapshot(int source, int folder, const char *name, int read_only, uint64_t group) {
    struct btrfs_ioctl_vol_args_v2 args = {.fd = source, .flags = read_only ? BTRFS_SUBVOL_RDONLY : 0};
    struct {
        struct btrfs_qgroup_inherit head;
        uint64_t groups[1];
    } inherit = {.head = {.num_qgroups = 1}, .groups = {group}};
    int failed = named(args.name, sizeof args.name, name);
    if (failed != 0)
        return failed;
    if (group != 0) {
        args.flags |= BTRFS_SUBVOL_QGROUP_INHERIT;
        args.size = sizeof inherit;
        args.qgroup_inherit = &inherit.head;
    }
    return called(ioctl(folder, BTRFS_IOC_SNAP_CREATE_V2, &args));
}

int ls_btrfs_destroy(int folder, const char *name) {
    struct btrfs_ioctl_vol_args_v2 args = {0};
    int failed = named(args.name, sizeof args.name, name);
    if (failed == 0)
        failed = called(ioctl(folder, BTRFS_IOC_SNAP_DESTROY_V2, &args));
    return failed == -ENOTTY ? first_version(folder, BTRFS_IOC_SNAP_DESTROY, 0, name) : failed;
}

int ls_btrfs_destroy_id(int fd, uint64_t id) {
    struct btrfs_ioctl_vol_args_v2 args = {.flags = BTRFS_SUBVOL_SPEC_BY_ID, .subvolid = id};
    return called(ioctl(fd, BTRFS_IOC_SNAP_DESTROY_V2, &args));
}

int ls_btrfs_is_read_only(int subvolume) {
    uint64_t flags = 0;
    int failed = called(ioctl(subvolume, BTRFS_IOC_SUBVOL_GETFLAGS, &flags));
    return failed ? failed : (flags & BTRFS_SUBVOL_RDONLY) != 0;
}

int ls_btrfs_set_read_only(int subvolume, int read_only) {
    uint64_t flags = 0;
    int failed = called(ioctl(subvolume, BTRFS_IOC_SUBVOL_GETFLAGS, &flags));
    if (failed)
        return failed;
    flags = read_only ? flags | BTRFS_SUBVOL_RDONLY : flags & ~(uint64_t)BTRFS_SUBVOL_RDONLY;
    return called(ioctl(subvolume, BTRFS_IOC_SUBVOL_SETFLAGS, &flags));
}

int ls_btrfs_subvolume(int fd, struct ls_btrfs_subvolume *facts) {
    struct btrfs_ioctl_get_subvol_info_args args = {0};
    int failed = called(ioctl(fd, BTRFS_IOC_GET_SUBVOL_INFO, &args));
    *facts = (struct ls_btrfs_subvolume){.id = args.treeid, .created = args.otransid, .changed = args.generation};
    memcpy(facts->uuid, args.uuid, sizeof facts->uuid);
    memcpy(facts->parent_uuid, args.parent_uuid, sizeof facts->parent_uuid);
    return failed;
}

int ls_btrfs_quota_enable(int fd, int simple) {
    struct btrfs_ioctl_quota_ctl_args args = {.cmd = simple ? BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
                                                            : BTRFS_QUOTA_CTL_ENABLE};
    return called(ioctl(fd, BTRFS_IOC_QUOTA_CTL, &args));
}

int ls_btrfs_group_limit(int fd, uint64_t group, uint64_t bytes) {
    /* With simple quotas the two are the same number. */
    struct btrfs_ioctl_qgroup_limit_args args = {
        .qgroupid = group,
        .lim = {.flags = BTRFS_QGROUP_LIMIT_MAX_EXCL, .max_excl = bytes ? bytes : UINT64_MAX},
    };
    return called(ioctl(fd, BTRFS_IOC_QGROUP_LIMIT, &args));
}

int ls_btrfs_group_remove(int fd, uint64_t group) {
    struct btrfs_ioctl_qgroup_create_args args = {.create = 0, .qgroupid = group};
    return called(ioctl(fd, BTRFS_IOC_QGROUP_CREATE, &args));
}
