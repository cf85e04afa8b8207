/* See quota.h. quotactl_fd (Linux 5.14) takes the filesystem by descriptor: no search for its block device. The generic
   commands work on ext4 and xfs alike. */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "quota.h"

#ifndef SYS_quotactl_fd
#define SYS_quotactl_fd 443
#endif

enum { QUOTA_BLOCK = 1024 };

static int control(int fd, unsigned int command, uint32_t project, void *argument) {
    return syscall(SYS_quotactl_fd, fd, QCMD(command, PRJQUOTA), project, argument) < 0 ? -errno : 0;
}

int ls_set_project(int folder, uint32_t project) {
    struct fsxattr attributes;
    if (ioctl(folder, FS_IOC_FSGETXATTR, &attributes) < 0)
        return -errno;
    attributes.fsx_projid = project;
    attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
    return ioctl(folder, FS_IOC_FSSETXATTR, &attributes) < 0 ? -errno : 0;
}

int ls_project_of(int folder, uint32_t *project) {
    struct fsxattr attributes;
    if (ioctl(folder, FS_IOC_FSGETXATTR, &attributes) < 0)
        return -errno;
    *project = attributes.fsx_projid;
    return 0;
}

int ls_project_quota_state(int fd) {
    struct fs_quota_statv state = {.qs_version = FS_QSTATV_VERSION1};
    int answer = control(fd, Q_XGETQSTATV, 0, &state);
    if (answer < 0)
        return answer;
    if (state.qs_flags & FS_QUOTA_PDQ_ENFD)
        return LS_QUOTA_ENFORCED;
    return state.qs_flags & FS_QUOTA_PDQ_ACCT ? LS_QUOTA_COUNTED : LS_QUOTA_OFF;
}

int ls_limit_project(int fd, uint32_t project, uint64_t bytes) {
    struct if_dqblk limits = {.dqb_valid = QIF_BLIMITS};
    limits.dqb_bhardlimit = (bytes + QUOTA_BLOCK - 1) / QUOTA_BLOCK;
    limits.dqb_bsoftlimit = limits.dqb_bhardlimit;
    return control(fd, Q_SETQUOTA, project, &limits);
}

int ls_project_usage(int fd, uint32_t project, uint64_t *bytes, uint64_t *limit) {
    struct if_dqblk found = {0};
    int answer = control(fd, Q_GETQUOTA, project, &found);
    /* No record is a project that nothing belongs to, and that has no limit. */
    if (answer < 0 && answer != -ENOENT)
        return answer;
    *bytes = found.dqb_curspace;
    *limit = found.dqb_bhardlimit * QUOTA_BLOCK;
    return 0;
}
