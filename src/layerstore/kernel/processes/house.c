/* See house.h. Runs between clone and execve, so nothing is allocated and no lock is taken. From the moment at which the
   tree is the root, names lead nowhere else, whatever symbolic links the tree has. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "house.h"
#include "../files/scope.h"

enum { FROM_EMPTY_PATH = 4 };

static const struct {
    const char *name;
    unsigned int major, minor;
} devices[] = {
    {"/dev/null", 1, 3}, {"/dev/zero", 1, 5},   {"/dev/full", 1, 7},
    {"/dev/tty", 5, 0},  {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9},
};

static const struct {
    const char *name, *to;
} links[] = {
    {"/dev/fd", "/proc/self/fd"},       {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
    {"/dev/stderr", "/proc/self/fd/2"}, {"/dev/ptmx", "pts/ptmx"},         {"/dev/core", "/proc/kcore"},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static int failed(struct ls_word *word, int step, size_t position) {
    *word = (struct ls_word){.step = step, .number = errno, .position = (int)position};
    return -1;
}

/* The folders above a target, and the target: a folder or an empty file. */
static int make_target(char *target, int is_file) {
    for (char *end = strchr(target + 1, '/'); end; end = strchr(end + 1, '/')) {
        *end = '\0';
        int made = mkdir(target, 0755);
        *end = '/';
        if (made < 0 && errno != EEXIST)
            return -1;
    }
    if (!is_file)
        return mkdir(target, 0755) < 0 && errno != EEXIST ? -1 : 0;
    LS_CLOSED int fd = open(target, O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0644);
    return fd < 0 ? -1 : 0;
}

static int make_devices(void) {
    for (size_t number = 0; number < COUNT(devices); number++)
        if (mknod(devices[number].name, S_IFCHR | 0666, makedev(devices[number].major, devices[number].minor)) < 0)
            return -1;
    for (size_t number = 0; number < COUNT(links); number++)
        if (symlink(links[number].to, links[number].name) < 0)
            return -1;
    static const char *const folders[] = {"/dev/pts", "/dev/shm", "/dev/mqueue"};
    for (size_t number = 0; number < COUNT(folders); number++)
        if (mkdir(folders[number], 0755) < 0)
            return -1;
    return 0;
}

static int furnish(const struct ls_place *place) {
    int is_optional = place->flags & LS_PLACE_OPTIONAL;
    struct stat there;
    if (stat(place->target, &there) < 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            return -1;
        if (is_optional)
            return 0;
        if (make_target(place->target, place->flags & LS_PLACE_FILE) < 0)
            return -1;
    }
    if (place->tree >= 0)
        return (int)syscall(SYS_move_mount, place->tree, "", AT_FDCWD, place->target, FROM_EMPTY_PATH);
    if (mount(place->type, place->target, place->type, place->mount_flags, place->data) < 0)
        return is_optional && errno == ENODEV ? 0 : -1;
    return place->flags & LS_PLACE_DEVICES ? make_devices() : 0;
}

int ls_has_init(void) {
#if defined(__x86_64__) || defined(__aarch64__)
    return 1;
#else
    return 0;
#endif
}

int ls_move_in(const struct ls_house *house, int tree, struct ls_word *word) {
    /* The old root is stacked on the new one, which is then taken away from under its feet (pivot_root(2), NOTES). */
    if (fchdir(tree) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return failed(word, LS_STEP_PIVOT, 0);
    umask(0);
    for (size_t number = 0; number < house->place_count; number++)
        if (furnish(&house->places[number]) < 0)
            return failed(word, LS_STEP_PLACE, number);
    if (house->hostname && sethostname(house->hostname, strlen(house->hostname)) < 0)
        return failed(word, LS_STEP_HOSTNAME, 0);
    for (size_t number = 0; number < house->limit_count; number++) {
        const struct ls_limit *limit = &house->limits[number];
        struct rlimit wanted = {.rlim_cur = limit->soft, .rlim_max = limit->hard};
        if (setrlimit((int)limit->resource, &wanted) < 0)
            return failed(word, LS_STEP_LIMITS, number);
    }
    umask((mode_t)house->umask);
    return 0;
}

int ls_enter(const struct ls_house *house, char *folder) {
    if (chdir(folder) == 0)
        return 0;
    if (errno != ENOENT || !house->makes_folder || *folder != '/' || make_target(folder, 0) < 0)
        return -1;
    return chdir(folder);
}

int ls_own_terminal(struct ls_word *word) {
    LS_CLOSED int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    int locked = 0, number = 0;
    if (master < 0 || ioctl(master, TIOCSPTLCK, &locked) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
        return failed(word, LS_STEP_TERMINAL, 0);
    LS_CLOSED int slave = (int)ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
        return failed(word, LS_STEP_TERMINAL, 0);
    for (int stream = 0; stream < 3; stream++)
        if (dup2(slave, stream) < 0)
            return failed(word, LS_STEP_TERMINAL, 0);
    return ls_take_fd(&master);
}
