/* Loaded before the C library (LD_PRELOAD): makes the Nth call of a kind that layerstore's extension makes fail. Calls by
 * others, Python among them, are none of its business. See faults.py, which drives it.
 *
 * It also knows what the extension has allocated and not freed yet. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

enum kind { NONE, MEMORY, LISTING, DATA, THREAD, CALL };
enum { SLOTS = 1 << 16 };

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void __libc_free(void *block);

static uintptr_t first, last; /* of the extension's code */
static int armed, number;
static long wanted, met;
static bool lasting;
static const char *refused; /* the last call of the kind CALL that failed */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *blocks[SLOTS]; /* what the extension has: a hash table, in which GONE was something once */
static long live;
#define GONE ((void *)1)

static bool is_ours(void *from) {
    return armed && (uintptr_t)from >= first && (uintptr_t)from < last;
}

/* Is it this one's turn to fail? */
static bool fails(enum kind kind, void *from) {
    if (armed != (int)kind || !is_ours(from))
        return false;
    long now = __atomic_add_fetch(&met, 1, __ATOMIC_SEQ_CST);
    if (now != wanted && !(lasting && now > wanted))
        return false;
    errno = number;
    return true;
}

static size_t slot_of(const void *block) {
    return ((uintptr_t)block >> 4) * 0x9E3779B97F4A7C15u >> 48;
}

static void *remember(void *block, void *from) {
    if (!block || !is_ours(from))
        return block;
    pthread_mutex_lock(&lock);
    size_t slot = slot_of(block);
    while (blocks[slot] && blocks[slot] != GONE)
        slot = (slot + 1) % SLOTS;
    blocks[slot] = block;
    live++;
    pthread_mutex_unlock(&lock);
    return block;
}

static void forget(const void *block) {
    if (!armed || !block)
        return;
    pthread_mutex_lock(&lock);
    for (size_t slot = slot_of(block); blocks[slot]; slot = (slot + 1) % SLOTS)
        if (blocks[slot] == block) {
            blocks[slot] = GONE;
            live--;
            break;
        }
    pthread_mutex_unlock(&lock);
}

/* --- for faults.py ------------------------------------------------------------------------------------------------- */

static int look_at(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size, (void)context;
    if (!strstr(info->dlpi_name, "/_shim.abi3.so"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            first = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            last = first + info->dlpi_phdr[i].p_memsz;
        }
    return 1;
}

/* From now on: the call number `nth` of its kind fails with `code`, and `all` after it, too. 0: none does. */
int faults_arm(int kind, long nth, int code, int all) {
    if (!dl_iterate_phdr(look_at, NULL))
        return -1;
    memset(blocks, 0, sizeof blocks);
    live = met = 0;
    wanted = nth;
    number = code;
    lasting = all;
    refused = NULL;
    armed = kind;
    return 0;
}

/* Returns how many calls of the kind there were. */
long faults_disarm(void) {
    armed = NONE;
    return met;
}

/* The name of the last call that failed, if it was of the kind CALL. */
const char *faults_refused(void) {
    return refused;
}

/* How many blocks the extension has allocated since and not freed. */
long faults_live(void) {
    return live;
}

/* --- memory -------------------------------------------------------------------------------------------------------- */

#define FROM __builtin_return_address(0)

void *malloc(size_t size) {
    return fails(MEMORY, FROM) ? NULL : remember(__libc_malloc(size), FROM);
}

void *calloc(size_t count, size_t size) {
    return fails(MEMORY, FROM) ? NULL : remember(__libc_calloc(count, size), FROM);
}

void *realloc(void *block, size_t size) {
    if (fails(MEMORY, FROM))
        return NULL;
    void *grown = __libc_realloc(block, size);
    if (grown) {
        forget(block);
        remember(grown, FROM);
    }
    return grown;
}

void free(void *block) {
    forget(block);
    __libc_free(block);
}

static char *copy(const char *text, size_t length, void *from) {
    char *made = fails(MEMORY, from) ? NULL : remember(__libc_malloc(length + 1), from);
    if (made) {
        memcpy(made, text, length);
        made[length] = 0;
    }
    return made;
}

char *strdup(const char *text) {
    return copy(text, strlen(text), FROM);
}

char *strndup(const char *text, size_t most) {
    return copy(text, strnlen(text, most), FROM);
}

static void *real(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

void *tsearch(const void *key, void **root, int (*order)(const void *, const void *)) {
    void *(*next)(const void *, void **, int (*)(const void *, const void *)) = real("tsearch");
    return fails(MEMORY, FROM) ? NULL : next(key, root, order);
}

/* --- folders ------------------------------------------------------------------------------------------------------- */

ssize_t getdents64(int folder, void *buffer, size_t room) {
    return fails(LISTING, FROM) ? -1 : syscall(SYS_getdents64, folder, buffer, room);
}

/* --- data ---------------------------------------------------------------------------------------------------------- */

ssize_t read(int fd, void *buffer, size_t room) {
    return fails(DATA, FROM) ? -1 : syscall(SYS_read, fd, buffer, room);
}

ssize_t write(int fd, const void *data, size_t size) {
    return fails(DATA, FROM) ? -1 : syscall(SYS_write, fd, data, size);
}

ssize_t pread(int fd, void *buffer, size_t room, off_t at) {
    return fails(DATA, FROM) ? -1 : syscall(SYS_pread64, fd, buffer, room, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails(DATA, FROM) ? -1 : syscall(SYS_pwrite64, fd, data, size, at);
}

ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned int flags) {
    return fails(DATA, FROM) ? -1 : syscall(SYS_copy_file_range, from, in, to, out, size, flags);
}

/* --- threads ------------------------------------------------------------------------------------------------------- */

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = real("pthread_create");
    return fails(THREAD, FROM) ? number : next(thread, attributes, run, argument);
}

/* --- all other calls that name, make and describe files ------------------------------------------------------------ */

static bool refuses(const char *name, void *from) {
    if (!fails(CALL, from))
        return false;
    refused = name;
    return true;
}

#define CALLED(type, name, parameters, arguments)                                                                      \
    type name parameters {                                                                                             \
        type(*next) parameters = real(#name);                                                                          \
        return refuses(#name, FROM) ? -1 : next arguments;                                                             \
    }

CALLED(int, fstat, (int fd, struct stat *facts), (fd, facts))
CALLED(int, fstatat, (int at, const char *name, struct stat *facts, int flags), (at, name, facts, flags))
CALLED(ssize_t, readlinkat, (int at, const char *name, char *words, size_t room), (at, name, words, room))
CALLED(int, mkdir, (const char *name, mode_t mode), (name, mode))
CALLED(int, mkdirat, (int at, const char *name, mode_t mode), (at, name, mode))
CALLED(int, mknodat, (int at, const char *name, mode_t mode, dev_t device), (at, name, mode, device))
CALLED(int, symlinkat, (const char *words, int at, const char *name), (words, at, name))
CALLED(int, linkat, (int from, const char *old, int to, const char *name, int flags), (from, old, to, name, flags))
CALLED(int, renameat, (int from, const char *old, int to, const char *name), (from, old, to, name))
CALLED(int, unlinkat, (int at, const char *name, int flags), (at, name, flags))
CALLED(int, ftruncate, (int fd, off_t size), (fd, size))
CALLED(int, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
CALLED(int, fchownat, (int at, const char *name, uid_t uid, gid_t gid, int flags), (at, name, uid, gid, flags))
CALLED(int, fchmod, (int fd, mode_t mode), (fd, mode))
CALLED(int, fchmodat, (int at, const char *name, mode_t mode, int flags), (at, name, mode, flags))
CALLED(int, futimens, (int fd, const struct timespec times[2]), (fd, times))
CALLED(int, utimensat, (int at, const char *name, const struct timespec times[2], int flags), (at, name, times, flags))
CALLED(ssize_t, listxattr, (const char *path, char *list, size_t room), (path, list, room))
CALLED(ssize_t, getxattr, (const char *path, const char *name, void *value, size_t room), (path, name, value, room))
CALLED(int, fsetxattr, (int fd, const char *name, const void *value, size_t size, int flags),
       (fd, name, value, size, flags))
CALLED(int, lsetxattr, (const char *path, const char *name, const void *value, size_t size, int flags),
       (path, name, value, size, flags))
CALLED(int, fremovexattr, (int fd, const char *name), (fd, name))
CALLED(int, lremovexattr, (const char *path, const char *name), (path, name))

CALLED(int, chdir, (const char *name), (name))
CALLED(int, fchdir, (int folder), (folder))
CALLED(int, stat, (const char *name, struct stat *facts), (name, facts))
CALLED(int, mknod, (const char *name, mode_t mode, dev_t device), (name, mode, device))
CALLED(int, symlink, (const char *words, const char *name), (words, name))
CALLED(int, mount, (const char *source, const char *target, const char *type, unsigned long flags, const void *data),
       (source, target, type, flags, data))
CALLED(int, umount2, (const char *target, int flags), (target, flags))
CALLED(int, sethostname, (const char *name, size_t length), (name, length))
CALLED(int, setrlimit, (__rlimit_resource_t resource, const struct rlimit *limit), (resource, limit))
CALLED(int, setsid, (void), ())
CALLED(int, dup2, (int from, int to), (from, to))

int fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    long given = va_arg(arguments, long);
    va_end(arguments);
    return refuses("fcntl", FROM) ? -1 : (int)syscall(SYS_fcntl, fd, command, given);
}

/* The mode is there only where a file may be made; else what is passed on is never looked at. */
static mode_t mode_of(va_list arguments, int flags) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *name, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(arguments, flags);
    va_end(arguments);
    return refuses("open", FROM) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, name, flags, mode);
}

int openat(int at, const char *name, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(arguments, flags);
    va_end(arguments);
    return refuses("openat", FROM) ? -1 : (int)syscall(SYS_openat, at, name, flags, mode);
}

/* Those that have no function of their own, in every C library that there is. */
static const char *name_of(long which) {
    switch (which) {
    case SYS_openat2:
        return "openat2";
    case SYS_open_tree:
        return "open_tree";
    case SYS_move_mount:
        return "move_mount";
    case SYS_mount_setattr:
        return "mount_setattr";
    case SYS_pivot_root:
        return "pivot_root";
    case SYS_execveat:
        return "execveat";
    default:
        return NULL;
    }
}

long syscall(long which, ...) {
    long (*next)(long, ...) = real("syscall");
    va_list arguments;
    va_start(arguments, which);
    long given[6];
    for (int i = 0; i < 6; i++)
        given[i] = va_arg(arguments, long);
    va_end(arguments);
    const char *name = name_of(which);
    if (name && refuses(name, FROM))
        return -1;
    return next(which, given[0], given[1], given[2], given[3], given[4], given[5]);
}
