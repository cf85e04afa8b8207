/* The verifier: one node of the index after the other against the disk. See verify.h. */
#define _GNU_SOURCE
#include "disk.h"
#include "index.h"
#include "unpack.h"
#include "verify.h"
#include "xxh64.h"

#include "../kernel/files/array.h"
#include "../kernel/files/listing.h"
#include "../kernel/files/marks.h"
#include "../kernel/files/scope.h"
#include "../kernel/files/within.h"
#include "../kernel/files/xattrs.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Where the payload of a sparse file lies in it. */
struct sparse {
    uint64_t path; /* the hash of its path */
    uint64_t extents_count;
    struct ls_reader extents;
};

struct ls_verify {
    int tree, dialect, level;
    bool begun;
    struct ls_reader nodes;
    uint64_t nodes_left;
    struct {
        LS_ARRAY(uint64_t);
    } names; /* hashes of the paths that may be there, sorted */
    struct {
        LS_ARRAY(struct sparse);
    } sparse; /* sorted by path */
    bool searching; /* `folder` is searched for what does not belong in it */
    int folder_fd;
    struct ls_listing listing;
    struct ls_bytes path, folder;
    struct ls_index_node node;
    struct ls_damage damage;
    struct ls_failure failure;
};

/* --- what is found of the path in hand ---------------------------------------------------------------------------- */

/* Each check returns 0 when all is as it should be, 1 for damage, -errno for a failure. */

static int damaged(struct ls_verify *verify, const char *what) {
    verify->damage = (struct ls_damage){.path = (const char *)verify->path.data, .what = what};
    return 1;
}

static int failed(struct ls_verify *verify) {
    return ls_fail_at(&verify->failure, (const char *)verify->path.data);
}

static int fail(struct ls_verify *verify, const char *call, int code) {
    ls_fail(&verify->failure, call, code);
    return failed(verify);
}

static int fail_memory(struct ls_verify *verify) {
    return ls_fail(&verify->failure, "malloc", -ENOMEM);
}

/* After a call that has told its failure: what it cannot read is damaged, unless it is this process that has too little
 * to read it with. */
static int unreadable(struct ls_verify *verify, const char *what) {
    int code = verify->failure.code;
    if (code == ENOMEM || code == EMFILE || code == ENFILE)
        return failed(verify);
    verify->damage = (struct ls_damage){(const char *)verify->path.data, what, code};
    return 1;
}

/* --- the index ---------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The path on disk of what the index says, which for aufs' whiteouts is another name. */
static int disk_path(const struct ls_verify *verify, const struct ls_index_node *node, struct ls_bytes *path) {
    bool marker = verify->dialect == LS_DIALECT_AUFS && node->flags & LS_WHITEOUT;
    path->length = 0;
    return marker ? ls_whiteout_path(path, (const char *)node->path, node->path_length)
                  : ls_bytes_add(path, node->path, node->path_length);
}

static int add_sparse(struct ls_verify *verify, const struct ls_index_payload *payload) {
    struct sparse sparse = {ls_xxh64_of(payload->path, payload->path_length, 0), payload->extents_count, verify->nodes};
    return ls_array_add(&verify->sparse, sparse);
}

/* Goes over the payloads, which stand before the nodes. */
static int read_payloads(struct ls_verify *verify) {
    struct ls_reader *reader = &verify->nodes;
    struct ls_index_payload payload;
    size_t magic = strlen(LS_INDEX_MAGIC);
    const uint8_t *begin = ls_read_bytes(reader, magic);
    reader->bad |= !begin || memcmp(begin, LS_INDEX_MAGIC, magic);
    for (uint64_t left = ls_read_number(reader); left && !reader->bad; left--) {
        if (!ls_index_get_payload(reader, &payload))
            break;
        int rc = payload.extents_count && payload.path ? add_sparse(verify, &payload) : 0;
        if (rc)
            return rc;
        for (uint64_t n = 0; n < payload.extents_count && !reader->bad; n++) {
            ls_read_number(reader);
            ls_read_number(reader);
        }
    }
    ls_array_sort(&verify->sparse, by_value); /* the hash comes first */
    return 0;
}

static int add_name(struct ls_verify *verify, const struct ls_bytes *path) {
    return ls_array_add(&verify->names, ls_xxh64_of(path->data, path->length, 0));
}

static int collect_names(struct ls_verify *verify) {
    struct ls_reader reader = verify->nodes;
    struct ls_index_node node;
    LS_BYTES_FREED struct ls_bytes path = {0};
    int rc = 0;
    for (uint64_t left = verify->nodes_left; !rc && left && ls_index_get_node(&reader, &node); left--) {
        rc = disk_path(verify, &node, &path) ?: add_name(verify, &path);
        if (!rc && verify->dialect == LS_DIALECT_AUFS && node.flags & LS_OPAQUE)
            rc = (path.length ? ls_bytes_add(&path, "/", 1) : 0)
                     ?: ls_bytes_add(&path, LS_OPAQUE_NAME, LS_LENGTH_OF(LS_OPAQUE_NAME)) ?: add_name(verify, &path);
    }
    ls_array_sort(&verify->names, by_value);
    return rc;
}

struct ls_verify *ls_verify_new(int tree, int dialect, int level, const uint8_t *index, size_t length) {
    struct ls_verify *verify = calloc(1, sizeof *verify);
    if (!verify)
        return NULL;
    verify->tree = tree, verify->dialect = dialect, verify->level = level;
    verify->folder_fd = -1;
    verify->nodes = (struct ls_reader){index, index + length, false};
    return verify;
}

/* A merged tree has the names of other layers, too. */
static bool knows_all_names(const struct ls_verify *verify) {
    return verify->level >= LS_VERIFY_ATTRIBUTES && verify->dialect != LS_DIALECT_MERGED;
}

static int begin(struct ls_verify *verify) {
    verify->begun = true;
    if (read_payloads(verify))
        return fail_memory(verify);
    verify->nodes_left = ls_read_number(&verify->nodes);
    return knows_all_names(verify) && collect_names(verify) ? fail_memory(verify) : 0;
}

void ls_verify_free(struct ls_verify *verify) {
    if (!verify)
        return;
    ls_scope_close(&verify->folder_fd);
    ls_listing_end(&verify->listing);
    ls_array_free(&verify->names);
    ls_array_free(&verify->sparse);
    ls_bytes_free(&verify->path);
    ls_bytes_free(&verify->folder);
    free(verify);
}

void ls_verify_failure(struct ls_verify *verify, struct ls_failure *failure) {
    *failure = verify->failure;
}

/* --- one node ----------------------------------------------------------------------------------------------------- */

static bool is_of_type(mode_t mode, unsigned type) {
    return type && ls_type_of(mode) == type;
}

static int check_whiteout(struct ls_verify *verify, int fd, const struct stat *facts) {
    if (verify->dialect == LS_DIALECT_MERGED)
        return fd >= 0 ? damaged(verify, "what the layer removes is there") : 0;
    if (fd < 0)
        return damaged(verify, "the whiteout is missing");
    bool right = verify->dialect == LS_DIALECT_OVERLAY ? S_ISCHR(facts->st_mode) && facts->st_rdev == 0
                                                       : S_ISREG(facts->st_mode);
    return right ? 0 : damaged(verify, "the whiteout is none any more");
}

static int look_at(struct ls_verify *verify, const char *path, struct stat *facts) {
    LS_CLOSED int fd = ls_open_beneath(verify->tree, path, O_PATH | O_NOFOLLOW, 0);
    if (fd < 0)
        return ls_fail(&verify->failure, "openat2", fd);
    return fstat(fd, facts) ? LS_FAIL(&verify->failure, "fstat") : 0;
}

static int check_link(struct ls_verify *verify, const struct stat *facts) {
    const struct ls_index_node *node = &verify->node;
    LS_BYTES_FREED struct ls_bytes target = {0};
    struct stat other;
    if (ls_bytes_add(&target, node->target, node->target_length))
        return fail_memory(verify);
    int rc = look_at(verify, (char *)target.data, &other);
    if (rc && !ls_is_absent(rc))
        return unreadable(verify, "the file that it links to cannot be looked at");
    bool linked = !rc && other.st_ino == facts->st_ino && other.st_dev == facts->st_dev;
    return linked ? 0 : damaged(verify, "it is no longer a link to the same file");
}

/* Up to the end of the file, if that comes first: the hash tells. */
static int hash_range(struct ls_verify *verify, int fd, uint8_t *buffer, struct ls_xxh64 *hash, int64_t at,
                      int64_t length) {
    while (length > 0) {
        size_t want = length < LS_CHUNK ? (size_t)length : LS_CHUNK;
        ssize_t got = ls_disk_read(fd, buffer, want, at, &verify->failure);
        if (got <= 0)
            return (int)got;
        ls_xxh64_add(hash, buffer, (size_t)got);
        at += got, length -= got;
    }
    return 0;
}

/* The payload, as the tar had it: of a sparse file not the holes, which may be larger than any disk. */
static int hash_payload(struct ls_verify *verify, int fd, uint8_t *buffer, struct ls_xxh64 *hash) {
    const struct ls_index_node *node = &verify->node;
    if (!(node->flags & LS_SPARSE))
        return hash_range(verify, fd, buffer, hash, 0, node->size);
    uint64_t path = ls_xxh64_of(node->path, node->path_length, 0);
    const struct sparse *sparse =
        verify->sparse.count ? bsearch(&path, verify->sparse.list, verify->sparse.count, sizeof *sparse, by_value)
                             : NULL;
    struct ls_reader reader = sparse ? sparse->extents : (struct ls_reader){0};
    int rc = 0;
    for (uint64_t n = 0; !rc && sparse && n < sparse->extents_count && !reader.bad; n++) {
        int64_t at = (int64_t)ls_read_number(&reader);
        rc = hash_range(verify, fd, buffer, hash, at, (int64_t)ls_read_number(&reader));
    }
    return rc;
}

static int hash_file(struct ls_verify *verify, int fd, uint64_t *content) {
    struct ls_xxh64 hash;
    LS_CLOSED int data = ls_open_again(fd, O_RDONLY);
    if (data < 0)
        return ls_fail(&verify->failure, "open", data);
    LS_FREED uint8_t *buffer = malloc(LS_CHUNK);
    if (!buffer)
        return fail_memory(verify);
    ls_xxh64_begin(&hash, 0);
    int rc = hash_payload(verify, data, buffer, &hash);
    *content = ls_xxh64_end(&hash);
    return rc;
}

static int check_content(struct ls_verify *verify, int fd) {
    uint64_t content = 0;
    if (hash_file(verify, fd, &content))
        return unreadable(verify, "the file cannot be read");
    return content == verify->node.content ? 0 : damaged(verify, "the content has changed");
}

static int check_target(struct ls_verify *verify, int fd) {
    char target[PATH_MAX];
    ssize_t length = readlinkat(fd, "", target, sizeof target);
    if (length < 0) {
        LS_FAIL(&verify->failure, "readlinkat");
        return unreadable(verify, "the symlink cannot be read");
    }
    bool same = ls_xxh64_of(target, (size_t)length, 0) == verify->node.content;
    return same ? 0 : damaged(verify, "the symlink leads elsewhere");
}

static int check_xattrs(struct ls_verify *verify, int fd) {
    LS_BYTES_FREED struct ls_bytes xattrs = {0};
    enum ls_xattr_form form = verify->dialect == LS_DIALECT_OVERLAY ? LS_XATTRS_OVERLAY : LS_XATTRS_PLAIN;
    if (ls_xattrs_read(fd, form, &xattrs, &verify->failure))
        return unreadable(verify, "the extended attributes cannot be read");
    bool same = ls_xattrs_hash(xattrs.data, xattrs.length) == verify->node.attributes;
    return same ? 0 : damaged(verify, "the extended attributes have changed");
}

static int check_attributes(struct ls_verify *verify, int fd, const struct stat *facts) {
    const struct ls_index_node *node = &verify->node;
    int found = node->type == LS_SYMLINK ? check_target(verify, fd) : 0;
    if (found)
        return found;
    if (node->type != LS_SYMLINK && (facts->st_mode & 07777) != node->mode)
        return damaged(verify, "the mode has changed");
    bool no_notes = (node->type == LS_SYMLINK || node->type == LS_FIFO) && ls_is_within();
    bool unsaid = no_notes && !ls_can_own(node->uid, node->gid);
    if (facts->st_uid != (unsaid ? 0 : node->uid) || facts->st_gid != (unsaid ? 0 : node->gid))
        return damaged(verify, "the owner has changed");
    if ((node->type == LS_CHARACTER || node->type == LS_BLOCK_DEVICE) &&
        facts->st_rdev != makedev(node->major, node->minor))
        return damaged(verify, "the device number has changed");
    return no_notes ? 0 : check_xattrs(verify, fd);
}

/* 1: the mark is there, 0: it is not, or -errno. */
static int has_opaque_mark(struct ls_verify *verify, int fd) {
    char link[64], mark;
    struct stat facts;
    if (verify->dialect == LS_DIALECT_OVERLAY) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = getxattr(link, ls_overlay_xattr(LS_XATTR_OPAQUE), &mark, 1);
        if (length < 0 && errno != ENODATA && errno != ERANGE)
            return LS_FAIL(&verify->failure, "getxattr");
        return length == 1 && mark == 'y';
    }
    if (verify->dialect == LS_DIALECT_AUFS && fstatat(fd, LS_OPAQUE_NAME, &facts, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : LS_FAIL(&verify->failure, "fstatat");
    return 1; /* a merged tree has no marks */
}

static int check_opaque(struct ls_verify *verify, int fd) {
    if (!(verify->node.flags & LS_OPAQUE) || verify->level < LS_VERIFY_ATTRIBUTES)
        return 0;
    int marked = has_opaque_mark(verify, fd);
    if (marked < 0)
        return unreadable(verify, "whether the directory is opaque cannot be read");
    return marked ? 0 : damaged(verify, "the directory is not opaque any more");
}

/* A time beyond what a filesystem keeps lies on it as the last that it keeps, without a fraction (vfs:
 * timestamp_truncate). */
static bool is_kept(const struct stat *facts, const struct ls_index_node *node) {
    /* ext4 with small inodes and xfs without bigtime end in 2038; ext4 in 2446; xfs in 2486. All begin in 1901. */
    static const int64_t LAST[] = {INT32_MAX, INT64_C(15032385535), INT64_C(16299260424)};
    int64_t seconds = facts->st_mtim.tv_sec;
    if (seconds == node->mtime && (uint32_t)facts->st_mtim.tv_nsec == node->mtime_ns)
        return true;
    if (facts->st_mtim.tv_nsec)
        return false;
    for (size_t i = 0; i < sizeof LAST / sizeof *LAST; i++)
        if (seconds == LAST[i] && node->mtime >= LAST[i])
            return true;
    return seconds == INT32_MIN && node->mtime < INT32_MIN;
}

/* `fd` is negative when nothing is there. */
static int check(struct ls_verify *verify, int fd) {
    const struct ls_index_node *node = &verify->node;
    struct stat facts = {0};
    if (fd >= 0 && ls_facts(fd, &facts, &verify->failure))
        return unreadable(verify, "it cannot be looked at");
    if (fd < 0 && node->flags & LS_HOLLOW)
        return 0; /* the parents do not have the directory either */
    if (node->flags & LS_WHITEOUT && !node->type)
        return check_whiteout(verify, fd, &facts);
    if (fd < 0)
        return damaged(verify, "it is missing");
    bool link = node->type == LS_HARD_LINK;
    if (link ? S_ISDIR(facts.st_mode) : !is_of_type(facts.st_mode, node->type))
        return damaged(verify, "it is of another type now");
    if (S_ISREG(facts.st_mode) && facts.st_size != node->size)
        return damaged(verify, "the size has changed");
    int found = check_opaque(verify, fd);
    if (found || node->flags & LS_IMPLIED) /* its attributes come from the parents */
        return found;
    if (!is_kept(&facts, node))
        return damaged(verify, "the time has changed");
    if (verify->level < LS_VERIFY_ATTRIBUTES)
        return 0;
    if (link)
        return node->target_length ? check_link(verify, &facts) : 0;
    found = check_attributes(verify, fd, &facts);
    if (!found && verify->level >= LS_VERIFY_CONTENT && node->type == LS_REGULAR)
        found = check_content(verify, fd);
    return found;
}

/* --- what does not belong ----------------------------------------------------------------------------------------- */

static int begin_search(struct ls_verify *verify) {
    int fd =
        ls_open_beneath(verify->tree, verify->path.length ? (char *)verify->path.data : ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fail(verify, "openat2", fd);
    verify->searching = true;
    verify->folder_fd = fd;
    if (ls_bytes_set(&verify->folder, verify->path.data, verify->path.length))
        return fail_memory(verify);
    return ls_listing_begin(&verify->listing, fd, &verify->failure) ? failed(verify) : 0;
}

/* The next name of the folder that is in no index, or the end of the search. */
static int search(struct ls_verify *verify) {
    int rc;
    while ((rc = ls_listing_next(&verify->listing)) > 0) {
        if (ls_bytes_path(&verify->path, (char *)verify->folder.data, verify->listing.name))
            return fail_memory(verify);
        uint64_t hash = ls_xxh64_of(verify->path.data, verify->path.length, 0);
        if (!verify->names.count || !bsearch(&hash, verify->names.list, verify->names.count, sizeof hash, by_value))
            return damaged(verify, "it does not belong to the layer");
    }
    if (rc)
        return ls_fail_at(&verify->failure, (const char *)verify->folder.data);
    close(ls_take_fd(&verify->folder_fd));
    verify->searching = false;
    return 0;
}

/* --- all together ------------------------------------------------------------------------------------------------- */

static int next_node(struct ls_verify *verify) {
    if (disk_path(verify, &verify->node, &verify->path))
        return fail_memory(verify);
    const char *path = verify->path.length ? (char *)verify->path.data : ".";
    LS_CLOSED int fd = ls_open_beneath(verify->tree, path, O_PATH | O_NOFOLLOW, 0);
    if (fd < 0 && !ls_is_absent(fd))
        return fail(verify, "openat2", fd);
    int found = check(verify, fd);
    if (found < 0 || fd < 0 || verify->node.type != LS_DIRECTORY || !knows_all_names(verify))
        return found;
    /* Also of one whose time has changed: whatever has come into it has changed that. */
    struct stat facts;
    if (ls_facts(fd, &facts, &verify->failure))
        return found ? found : failed(verify);
    int begun = S_ISDIR(facts.st_mode) ? begin_search(verify) : 0;
    return found ? found : begun;
}

int ls_verify_next(struct ls_verify *verify, struct ls_damage *damage) {
    int found = verify->begun ? 0 : begin(verify);
    while (!found) {
        if (verify->searching)
            found = search(verify);
        else if (verify->nodes.bad) {
            verify->damage = (struct ls_damage){"", "the skeleton is damaged", 0};
            verify->nodes_left = 0, verify->nodes.bad = false;
            found = 1;
        } else if (!verify->nodes_left)
            break;
        else if (verify->nodes_left--, ls_index_get_node(&verify->nodes, &verify->node))
            found = next_node(verify);
    }
    *damage = verify->damage;
    return found;
}
