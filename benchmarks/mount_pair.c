/* The least that a container's mount can cost: mount(2) and umount2 of the same overlay, and nothing else.
   usage: mount_pair ROUNDS MERGED OPTIONS    prints one line a round: nanoseconds of mount, of umount2 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <time.h>

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char **arguments) {
    if (count != 4)
        return 2;
    for (int round = atoi(arguments[1]); round > 0; round--) {
        long long start = now();
        if (mount("overlay", arguments[2], "overlay", 0, arguments[3]) != 0) {
            perror("mount");
            return 1;
        }
        long long mounted = now();
        if (umount2(arguments[2], UMOUNT_NOFOLLOW) != 0) {
            perror("umount2");
            return 1;
        }
        printf("%lld %lld\n", mounted - start, now() - mounted);
    }
    return 0;
}
