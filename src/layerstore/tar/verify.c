/* The verifier: one node of the index after the other against the disk. See verify.h. */
#define _GNU_SOURCE
#include "disk.h"
#include "index.h"
#include "unpack.h"
#include "verify.h"
#include "xxh64.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Where the payload of a sparse file lies in it. */
struct sparse {
    uint64_t path;
    uint64_t extents_count;
    struct ls_reader extents;
};

struct ls_verify {
    int tree, dialect, level;
    struct ls_reader nodes;
    uint64_t nodes_left;
    uint64_t *names; /* hashes of the paths that may be there, sorted */
    size_t name_count;
    struct sparse *sparse; /* sorted by the hash of the path */
    size_t sparse_count;
    DIR *listing; /* of the directory that is searched for what does not belong */
    struct ls_bytes path, folder;
    struct ls_index_node node;
};

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The path on disk of what the index says, which for aufs' whiteouts is another name. */
static int disk_path(const struct ls_verify *verify, const struct ls_index_node *node, struct ls_bytes *path) {
    const uint8_t *slash = node->path_length ? memrchr(node->path, '/', node->path_length) : NULL;
    size_t folder = slash ? (size_t)(slash - node->path) + 1 : 0;
    bool marker = verify->dialect == LS_DIALECT_AUFS && node->flags & LS_WHITEOUT;
    path->length = 0;
    return ls_bytes_add(path, node->path, folder) ?: (marker ? ls_bytes_add(path, ".wh.", 4) : 0) ?: ls_bytes_add(path, node->path + folder, node->path_length - folder);
}

static int add_sparse(struct ls_verify *verify, const struct ls_index_payload *payload) {
    if (!(verify->sparse_count & (verify->sparse_count - 1))) { /* at each power of two there is no more room */
        size_t room = verify->sparse_count ? verify->sparse_count * 2 : 1;
        struct sparse *grown = realloc(verify->sparse, room * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        verify->sparse = grown;
    }
    verify->sparse[verify->sparse_count++] =
        (struct sparse){ls_xxh64_of(payload->path, payload->path_length, 0), payload->extents_count, verify->nodes};
    return 0;
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
        if (payload.extents_count && payload.path && add_sparse(verify, &payload))
            return -ENOMEM;
        for (uint64_t n = 0; n < payload.extents_count && !reader->bad; n++) {
            ls_read_number(reader);
            ls_read_number(reader);
        }
    }
    if (verify->sparse_count)
        qsort(verify->sparse, verify->sparse_count, sizeof *verify->sparse, by_value); /* the hash comes first */
    return 0;
}

static int collect_names(struct ls_verify *verify) {
    struct ls_reader reader = verify->nodes;
    struct ls_index_node node;
    struct ls_bytes path = {0};
    size_t room = 0;
    int rc = 0;
    for (uint64_t left = verify->nodes_left; !rc && left && ls_index_get_node(&reader, &node); left--) {
        if (verify->name_count + 2 > room) {
            room = room ? room * 2 : 1024;
            uint64_t *grown = realloc(verify->names, room * sizeof *grown);
            if (!grown) {
                rc = -ENOMEM;
                break;
            }
            verify->names = grown;
        }
        if ((rc = disk_path(verify, &node, &path)))
            break;
        verify->names[verify->name_count++] = ls_xxh64_of(path.data, path.length, 0);
        if (verify->dialect == LS_DIALECT_AUFS && node.flags & LS_OPAQUE) {
            rc = ls_bytes_add(&path, node.path_length ? "/" : "", node.path_length ? 1 : 0)
                     ?: ls_bytes_add(&path, ".wh..wh..opq", 12);
            verify->names[verify->name_count++] = ls_xxh64_of(path.data, path.length, 0);
        }
    }
    if (verify->name_count)
        qsort(verify->names, verify->name_count, sizeof *verify->names, by_value);
    ls_bytes_free(&path);
    return rc;
}

struct ls_verify *ls_verify_new(int tree, int dialect, int level, const uint8_t *index, size_t length) {
    struct ls_verify *verify = calloc(1, sizeof *verify);
    if (!verify)
        return NULL;
    verify->tree = tree, verify->dialect = dialect, verify->level = level;
    verify->nodes = (struct ls_reader){index, index + length, false};
    if (read_payloads(verify)) {
        ls_verify_free(verify);
        return NULL;
    }
    verify->nodes_left = ls_read_number(&verify->nodes);
    if (level >= LS_VERIFY_ATTRIBUTES && dialect != LS_DIALECT_MERGED && collect_names(verify)) {
        ls_verify_free(verify);
        return NULL;
    }
    return verify;
}

void ls_verify_free(struct ls_verify *verify) {
    if (!verify)
        return;
    if (verify->listing)
        closedir(verify->listing);
    free(verify->names);
    free(verify->sparse);
    ls_bytes_free(&verify->path);
    ls_bytes_free(&verify->folder);
    free(verify);
}

/* --- one node ----------------------------------------------------------------------------------------------------- */

static mode_t format_of(unsigned type) {
    static const mode_t FORMATS[] = {[LS_REGULAR] = S_IFREG,      [LS_SYMLINK] = S_IFLNK,   [LS_CHARACTER] = S_IFCHR,
                                     [LS_BLOCK_DEVICE] = S_IFBLK, [LS_DIRECTORY] = S_IFDIR, [LS_FIFO] = S_IFIFO};
    return type < sizeof FORMATS / sizeof *FORMATS ? FORMATS[type] : 0;
}

static const char *check_whiteout(const struct ls_verify *verify, int fd, const struct stat *facts) {
    if (verify->dialect == LS_DIALECT_MERGED)
        return fd >= 0 ? "what the layer removes is there" : NULL;
    if (fd < 0)
        return "the whiteout is missing";
    bool right = verify->dialect == LS_DIALECT_OVERLAY ? S_ISCHR(facts->st_mode) && facts->st_rdev == 0
                                                       : S_ISREG(facts->st_mode);
    return right ? NULL : "the whiteout is none any more";
}

static const char *check_link(const struct ls_verify *verify, const struct ls_index_node *node,
                              const struct stat *facts) {
    struct ls_bytes target = {0};
    struct stat other;
    int fd = ls_bytes_add(&target, node->target, node->target_length)
                 ? -ENOMEM
                 : ls_open_beneath(verify->tree, (char *)target.data, O_PATH | O_NOFOLLOW, 0);
    bool linked = fd >= 0 && !fstat(fd, &other) && other.st_ino == facts->st_ino && other.st_dev == facts->st_dev;
    if (fd >= 0)
        close(fd);
    ls_bytes_free(&target);
    return linked ? NULL : "it is no longer a link to the same file";
}

static int hash_range(int fd, uint8_t *buffer, struct ls_xxh64 *hash, int64_t at, int64_t length) {
    while (length > 0) {
        ssize_t got = pread(fd, buffer, length < LS_CHUNK ? (size_t)length : LS_CHUNK, at);
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0; /* shorter than it was: the hash tells */
        ls_xxh64_add(hash, buffer, (size_t)got);
        at += got, length -= got;
    }
    return 0;
}

/* The payload, as the tar had it: of a sparse file not the holes, which may be larger than any disk. */
static int hash_payload(const struct ls_verify *verify, int fd, const struct ls_index_node *node, uint8_t *buffer,
                        struct ls_xxh64 *hash) {
    if (!(node->flags & LS_SPARSE))
        return hash_range(fd, buffer, hash, 0, node->size);
    uint64_t path = ls_xxh64_of(node->path, node->path_length, 0);
    const struct sparse *sparse =
        verify->sparse_count ? bsearch(&path, verify->sparse, verify->sparse_count, sizeof *sparse, by_value) : NULL;
    struct ls_reader reader = sparse ? sparse->extents : (struct ls_reader){0};
    int rc = 0;
    for (uint64_t n = 0; !rc && sparse && n < sparse->extents_count && !reader.bad; n++) {
        int64_t at = (int64_t)ls_read_number(&reader);
        rc = hash_range(fd, buffer, hash, at, (int64_t)ls_read_number(&reader));
    }
    return rc;
}

static const char *check_content(const struct ls_verify *verify, int fd, const struct ls_index_node *node, int *code) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int data = open(link, O_RDONLY | O_CLOEXEC);
    uint8_t *buffer = malloc(LS_CHUNK);
    struct ls_xxh64 hash;
    ls_xxh64_begin(&hash, 0);
    int rc = data < 0 ? -errno : !buffer ? -ENOMEM : hash_payload(verify, data, node, buffer, &hash);
    if (data >= 0)
        close(data);
    free(buffer);
    if (rc)
        return *code = -rc, "the file cannot be read";
    return ls_xxh64_end(&hash) == node->content ? NULL : "the content has changed";
}

static const char *check_attributes(const struct ls_verify *verify, int fd, const struct ls_index_node *node,
                                    const struct stat *facts, int *code) {
    const char *call;
    char target[PATH_MAX];
    if (node->type == LS_SYMLINK) {
        ssize_t length = readlinkat(fd, "", target, sizeof target);
        if (length < 0 || ls_xxh64_of(target, (size_t)length, 0) != node->content)
            return "the symlink leads elsewhere";
    } else if ((facts->st_mode & 07777) != node->mode)
        return "the mode has changed";
    if (facts->st_uid != node->uid || facts->st_gid != node->gid)
        return "the owner has changed";
    if ((node->type == LS_CHARACTER || node->type == LS_BLOCK_DEVICE) &&
        facts->st_rdev != makedev(node->major, node->minor))
        return "the device number has changed";
    struct ls_bytes xattrs = {0};
    int rc = ls_xattrs_read(fd, verify->dialect == LS_DIALECT_OVERLAY, &xattrs, &call);
    bool same = ls_xattrs_hash(xattrs.data, xattrs.length) == node->attributes;
    ls_bytes_free(&xattrs);
    if (rc)
        *code = -rc;
    if (rc || !same)
        return rc ? "the extended attributes cannot be read" : "the extended attributes have changed";
    return NULL;
}

static const char *check_opaque(const struct ls_verify *verify, int fd, const struct ls_index_node *node) {
    char link[64], mark;
    struct stat facts;
    bool right = true;
    if (!(node->flags & LS_OPAQUE) || verify->level < LS_VERIFY_ATTRIBUTES)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (verify->dialect == LS_DIALECT_OVERLAY)
        right = getxattr(link, "trusted.overlay.opaque", &mark, 1) == 1 && mark == 'y';
    else if (verify->dialect == LS_DIALECT_AUFS)
        right = fstatat(fd, ".wh..wh..opq", &facts, AT_SYMLINK_NOFOLLOW) == 0;
    return right ? NULL : "the directory is not opaque any more";
}

/* A time beyond what a filesystem keeps lies on it as the last that it keeps, without a fraction (vfs: timestamp_truncate). */
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

static const char *check(const struct ls_verify *verify, int fd, const struct ls_index_node *node, int *code) {
    struct stat facts = {0};
    if (fd >= 0 && fstat(fd, &facts))
        return *code = errno, "it cannot be looked at";
    if (fd < 0 && node->flags & LS_HOLLOW)
        return NULL; /* the parents do not have the directory either */
    if (node->flags & LS_WHITEOUT && !node->type)
        return check_whiteout(verify, fd, &facts);
    if (fd < 0)
        return "it is missing";
    bool link = node->type == LS_HARD_LINK;
    if (link ? S_ISDIR(facts.st_mode) : (facts.st_mode & S_IFMT) != format_of(node->type))
        return "it is of another type now";
    if (S_ISREG(facts.st_mode) && facts.st_size != node->size)
        return "the size has changed";
    const char *what = check_opaque(verify, fd, node);
    if (what || node->flags & LS_IMPLIED) /* its attributes come from the parents */
        return what;
    if (!is_kept(&facts, node))
        return "the time has changed";
    if (verify->level < LS_VERIFY_ATTRIBUTES)
        return NULL;
    what = link && node->target_length ? check_link(verify, node, &facts) : NULL;
    if (!what && !link)
        what = check_attributes(verify, fd, node, &facts, code);
    if (!what && verify->level >= LS_VERIFY_CONTENT && node->type == LS_REGULAR)
        what = check_content(verify, fd, node, code);
    return what;
}

/* --- what does not belong ----------------------------------------------------------------------------------------- */

static int begin_search(struct ls_verify *verify) {
    int fd = ls_open_beneath(verify->tree, verify->node.path_length ? (char *)verify->path.data : ".",
                             O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    if (!(verify->listing = fdopendir(fd))) {
        close(fd);
        return -errno;
    }
    return ls_bytes_set(&verify->folder, verify->path.data, verify->path.length);
}

/* 1: the next name that is in no index, in `path`. */
static int search(struct ls_verify *verify) {
    for (struct dirent *one; (one = readdir(verify->listing));) {
        if (!strcmp(one->d_name, ".") || !strcmp(one->d_name, ".."))
            continue;
        int rc = ls_bytes_set(&verify->path, verify->folder.data, verify->folder.length) ?: (verify->folder.length ? ls_bytes_add(&verify->path, "/", 1) : 0)
            ?: ls_bytes_add(&verify->path, one->d_name, strlen(one->d_name));
        if (rc)
            return rc;
        uint64_t hash = ls_xxh64_of(verify->path.data, verify->path.length, 0);
        if (!verify->name_count || !bsearch(&hash, verify->names, verify->name_count, sizeof hash, by_value))
            return 1;
    }
    closedir(verify->listing);
    verify->listing = NULL;
    return 0;
}

int ls_verify_next(struct ls_verify *verify, const char **path, const char **what, int *code) {
    *code = 0;
    for (;;) {
        if (verify->listing) {
            int rc = search(verify);
            *path = (char *)verify->path.data, *what = "it does not belong to the layer", *code = rc < 0 ? -rc : 0;
            if (rc)
                return rc < 0 ? -1 : 1;
            continue;
        }
        *path = "", *what = "the skeleton is damaged";
        if (verify->nodes.bad)
            return *code = EBADMSG, verify->nodes_left = 0, verify->nodes.bad = false, 1;
        if (!verify->nodes_left)
            return 0;
        verify->nodes_left--;
        if (!ls_index_get_node(&verify->nodes, &verify->node))
            continue;
        int rc = disk_path(verify, &verify->node, &verify->path);
        int fd = rc ? rc
                    : ls_open_beneath(verify->tree, verify->path.length ? (char *)verify->path.data : ".",
                                      O_PATH | O_NOFOLLOW, 0);
        *path = (char *)verify->path.data;
        if (fd < 0 && fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP)
            return *what = "openat2", *code = -fd, -1;
        *what = check(verify, fd, &verify->node, code);
        if (fd >= 0)
            close(fd);
        if (!*what && fd >= 0 && verify->node.type == LS_DIRECTORY && verify->level >= LS_VERIFY_ATTRIBUTES &&
            verify->dialect != LS_DIALECT_MERGED && (rc = begin_search(verify)))
            return *what = "readdir", *code = -rc, -1;
        if (*what)
            return 1;
    }
}
