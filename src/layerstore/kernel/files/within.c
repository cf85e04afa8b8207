/* See within.h. */
#define _GNU_SOURCE
#include "within.h"
#include "bytes.h"
#include "xattrs.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define NOTE "user.containers.override_stat"

/* --- the IDs ------------------------------------------------------------------------------------------------------ */

enum { UNKNOWN, ALL, SOME };
enum { RANGES = 340 }; /* as many as a namespace can have (user_namespaces(7)) */

struct map {
    int count;
    struct range {
        uint32_t first, size;
    } ranges[RANGES];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int state = UNKNOWN;
static struct map uids, gids;

static void read_map(const char *path, struct map *map) {
    FILE *file = fopen(path, "re");
    unsigned long first, outside, size;
    map->count = 0;
    while (file && map->count < RANGES && fscanf(file, "%lu %lu %lu", &first, &outside, &size) == 3)
        map->ranges[map->count++] = (struct range){(uint32_t)first, (uint32_t)size};
    if (file)
        fclose(file);
}

static bool has_all(const struct map *map) {
    return map->count == 0 || (map->count == 1 && !map->ranges[0].first && map->ranges[0].size == UINT32_MAX);
}

bool ls_is_within(void) {
    int known = atomic_load_explicit(&state, memory_order_acquire);
    if (known != UNKNOWN)
        return known == SOME;
    pthread_mutex_lock(&lock);
    read_map("/proc/self/uid_map", &uids);
    read_map("/proc/self/gid_map", &gids);
    known = has_all(&uids) && has_all(&gids) ? ALL : SOME;
    atomic_store_explicit(&state, known, memory_order_release);
    pthread_mutex_unlock(&lock);
    return known == SOME;
}

void ls_within_forget(void) {
    atomic_store(&state, UNKNOWN);
}

static bool maps(const struct map *map, uint32_t id) {
    for (int i = 0; i < map->count; i++)
        if (id - map->ranges[i].first < map->ranges[i].size)
            return true;
    return false;
}

bool ls_can_own(uint32_t uid, uint32_t gid) {
    return !ls_is_within() || (maps(&uids, uid) && maps(&gids, gid));
}

/* --- overlay's own ------------------------------------------------------------------------------------------------ */

const char *ls_overlay_prefix(void) {
    return ls_is_within() ? "user.overlay." : LS_OVERLAY_PREFIX;
}

const char *ls_overlay_xattr(enum ls_overlay_xattr which) {
    static const char *const ROOTS[] = {LS_OVERLAY_PREFIX "opaque", LS_OVERLAY_PREFIX "origin",
                                        LS_OVERLAY_PREFIX "whiteout", LS_OVERLAY_PREFIX "redirect",
                                        LS_OVERLAY_PREFIX "metacopy"};
    static const char *const USERS[] = {"user.overlay.opaque", "user.overlay.origin", "user.overlay.whiteout",
                                        "user.overlay.redirect", "user.overlay.metacopy"};
    return (ls_is_within() ? USERS : ROOTS)[which];
}

/* --- notes -------------------------------------------------------------------------------------------------------- */

int ls_note_facts(int fd, const struct stat *facts, struct ls_failure *failure) {
    char note[96];
    int length = snprintf(note, sizeof note, "%u:%u:0%o:", facts->st_uid, facts->st_gid, facts->st_mode & 07777);
    char *end = note + length;
    size_t room = sizeof note - (size_t)length;
    if (S_ISCHR(facts->st_mode) || S_ISBLK(facts->st_mode))
        length += snprintf(end, room, "%s-%u-%u", S_ISCHR(facts->st_mode) ? "char" : "block", major(facts->st_rdev),
                           minor(facts->st_rdev));
    else
        length += snprintf(end, room, "%s", S_ISDIR(facts->st_mode) ? "dir" : "file");
    return fsetxattr(fd, NOTE, note, (size_t)length, 0) ? LS_FAIL(failure, "fsetxattr") : 0;
}

static void apply(const char *note, struct stat *facts) {
    unsigned uid, gid, mode, device_major, device_minor;
    int end = 0;
    if (sscanf(note, "%u:%u:%o:%n", &uid, &gid, &mode, &end) != 3 || !end || mode > 07777)
        return;
    const char *type = note + end;
    bool character = sscanf(type, "char-%u-%u", &device_major, &device_minor) == 2;
    if (character || sscanf(type, "block-%u-%u", &device_major, &device_minor) == 2) {
        bool stands_in = S_ISREG(facts->st_mode) && !facts->st_size && !(facts->st_mode & 022);
        if (!stands_in || (character && !device_major && !device_minor)) /* which would be a whiteout */
            return;
        facts->st_mode = (character ? S_IFCHR : S_IFBLK) | mode;
        facts->st_rdev = makedev(device_major, device_minor);
        facts->st_uid = uid, facts->st_gid = gid;
    } else if (!ls_can_own(uid, gid)) {
        if ((facts->st_mode & 01777) == (mode & 01777)) /* else there was a chmod since, which meant what it said */
            facts->st_mode |= mode & 06000;
        facts->st_uid = uid, facts->st_gid = gid;
    }
}

int ls_read_note(int fd, const char *name, struct stat *facts, struct ls_failure *failure) {
    char path[NAME_MAX + 40], note[128];
    if (!ls_is_within() || facts->st_uid || !(S_ISREG(facts->st_mode) || S_ISDIR(facts->st_mode)))
        return 0;
    /* by this way round, O_PATH descriptors serve too */
    snprintf(path, sizeof path, name ? "/proc/self/fd/%d/%s" : "/proc/self/fd/%d", fd, name);
    ssize_t size = name ? lgetxattr(path, NOTE, note, sizeof note - 1) : getxattr(path, NOTE, note, sizeof note - 1);
    if (size >= 0) {
        note[size] = 0;
        apply(note, facts);
        return 0;
    }
    bool none = errno == ENODATA || errno == EOPNOTSUPP || errno == ERANGE || errno == ENOENT;
    return none ? 0 : LS_FAIL(failure, "getxattr");
}

int ls_facts(int fd, struct stat *facts, struct ls_failure *failure) {
    return fstat(fd, facts) ? LS_FAIL(failure, "fstat") : ls_read_note(fd, NULL, facts, failure);
}

/* --- names of xattrs ---------------------------------------------------------------------------------------------- */

/* Of these only the machine's root may set the first two kinds, and an ACL can name an owner that nobody has here. */
static bool is_kept(const char *name, size_t length) {
    bool capability = length == strlen(LS_CAPABILITY) && ls_begins(name, length, LS_CAPABILITY);
    return ls_begins(name, length, "trusted.") || (ls_begins(name, length, "security.") && !capability) ||
           ls_begins(name, length, "system.posix_acl_") || ls_begins(name, length, LS_KEPT_PREFIX) ||
           (length == strlen(NOTE) && ls_begins(name, length, NOTE));
}

bool ls_xattr_stored(const char *name, size_t length, char stored[XATTR_NAME_MAX + 1]) {
    bool acl = ls_begins(name, length, "system.posix_acl_");
    const char *prefix = ls_is_within() && is_kept(name, length) && !acl ? LS_KEPT_PREFIX : "";
    int size = snprintf(stored, XATTR_NAME_MAX + 1, "%s%.*s", prefix, (int)length, name);
    return size >= 0 && size <= XATTR_NAME_MAX;
}

const char *ls_xattr_shown(const char *stored) {
    if (!ls_is_within())
        return stored;
    if (!strcmp(stored, NOTE))
        return NULL;
    size_t length = strlen(stored), prefix = strlen(LS_KEPT_PREFIX);
    bool kept = ls_begins(stored, length, LS_KEPT_PREFIX) && is_kept(stored + prefix, length - prefix);
    return kept ? stored + prefix : stored;
}
