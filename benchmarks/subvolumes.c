/* The least that a layer's life on btrfs can cost: a snapshot, a read-only snapshot of that, and the end of both.
   usage: subvolumes SOURCE FOLDER    prints nanoseconds of each: snapshot, read-only snapshot, destroy, destroy */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void call(int folder, unsigned long request, int source, const char *name, unsigned long long flags) {
    struct btrfs_ioctl_vol_args_v2 args = {.fd = source, .flags = flags};
    strncpy(args.name, name, sizeof args.name - 1);
    if (ioctl(folder, request, &args) != 0) {
        perror(name);
        exit(1);
    }
}

int main(int count, char **arguments) {
    if (count != 3)
        return 2;
    int source = open(arguments[1], O_RDONLY | O_DIRECTORY), folder = open(arguments[2], O_RDONLY | O_DIRECTORY);
    long long start = now();
    call(folder, BTRFS_IOC_SNAP_CREATE_V2, source, "bare", 0);
    long long made = now();
    int own = openat(folder, "bare", O_RDONLY | O_DIRECTORY);
    call(folder, BTRFS_IOC_SNAP_CREATE_V2, own, "bare-sealed", BTRFS_SUBVOL_RDONLY);
    long long sealed = now();
    close(own);
    long long begun = now();
    call(folder, BTRFS_IOC_SNAP_DESTROY_V2, -1, "bare", 0);
    long long first = now();
    call(folder, BTRFS_IOC_SNAP_DESTROY_V2, -1, "bare-sealed", 0);
    printf("%lld %lld %lld %lld\n", made - start, sealed - made, first - begun, now() - first);
    return 0;
}
