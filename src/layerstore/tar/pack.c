/* The packer: for each change an entry, read through the merged tree; or for each file gathered, from where it lies. See
 * pack.h.
 *
 * An error is an error: a file that cannot be read, or changes while it is read, ends the pack. Nothing is left out but
 * sockets, which no tar can hold; they are named in the notices. */
#define _GNU_SOURCE
#include "disk.h"
#include "header.h"
#include "unpack.h"
#include "pack.h"
#include "xxh64.h"

#include "../kernel/files/marks.h"
#include "../kernel/files/scope.h"
#include "../kernel/files/within.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The first path of a file with several names, among those that are altered alike. */
struct known {
    dev_t device;
    ino_t inode;
    const struct ls_piece *piece;
    char *path;
};

struct ls_pack {
    int root;
    const uint8_t *at, *end;
    const struct ls_piece *pieces; /* NULL: changes are packed */
    size_t piece_count;
    const struct ls_made *made;
    const struct ls_piece *piece; /* that the entry in hand is from, or NULL */
    const char *place; /* where that entry is read, if not under its own name */
    bool any, ended, complete, clamps;
    int64_t latest;
    uint32_t latest_ns;
    struct ls_bytes head, raw, stream, payloads, nodes, index, xattrs, notices, link;
    size_t head_sent;
    uint64_t payload_count, node_count;
    int fd;
    int64_t remaining, padding;
    struct ls_xxh64 hash;
    struct ls_index_node file; /* being read: its strings point into the list of changes */
    struct known *known;
    size_t known_count, known_room;
    struct ls_pack_result result;
    struct ls_failure failure;
};

struct ls_pack *ls_pack_new(int root, const uint8_t *changes, size_t length) {
    struct ls_pack *pack = calloc(1, sizeof *pack);
    if (!pack)
        return NULL;
    pack->root = root;
    pack->at = changes, pack->end = changes + length;
    pack->fd = -1;
    return pack;
}

struct ls_pack *ls_pack_gather(const struct ls_piece *pieces, size_t piece_count, const struct ls_made *made,
                               const uint8_t *list, size_t length) {
    struct ls_pack *pack = ls_pack_new(-1, list, length);
    if (!pack)
        return NULL;
    pack->pieces = pieces, pack->piece_count = piece_count;
    pack->made = made;
    return pack;
}

void ls_pack_free(struct ls_pack *pack) {
    if (!pack)
        return;
    if (pack->fd >= 0)
        close(pack->fd);
    for (size_t i = 0; i < pack->known_room; i++)
        free(pack->known[i].path);
    free(pack->known);
    struct ls_bytes *owned[] = {&pack->head,  &pack->raw,    &pack->stream,  &pack->payloads, &pack->nodes,
                                &pack->index, &pack->xattrs, &pack->notices, &pack->link};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        ls_bytes_free(owned[i]);
    free(pack);
}

void ls_pack_clamp(struct ls_pack *pack, int64_t seconds, uint32_t nanoseconds) {
    pack->clamps = true;
    pack->latest = seconds, pack->latest_ns = nanoseconds;
}

static void clamp(const struct ls_pack *pack, struct ls_index_node *node) {
    if (pack->clamps &&
        (node->mtime > pack->latest || (node->mtime == pack->latest && node->mtime_ns > pack->latest_ns)))
        node->mtime = pack->latest, node->mtime_ns = pack->latest_ns;
}

static int fail_tar(struct ls_pack *pack, const char *sentence, const struct ls_index_node *node) {
    return ls_fail_as(&pack->failure, LS_FAIL_TAR, EBADMSG, sentence, node->path, node->path_length);
}
static int fail_system(struct ls_pack *pack, int code, const char *call, const struct ls_index_node *node) {
    if (pack->place)
        return ls_fail_as(&pack->failure, LS_FAIL_SYSTEM, -code, call, pack->place, strlen(pack->place));
    return ls_fail_as(&pack->failure, LS_FAIL_SYSTEM, -code, call, node->path, node->path_length);
}
/* The call that failed is told already. */
static int failed_at(struct ls_pack *pack, const struct ls_index_node *node) {
    return fail_system(pack, -pack->failure.code, pack->failure.what, node);
}
static int fail_memory(struct ls_pack *pack) {
    return ls_fail(&pack->failure, "malloc", -ENOMEM);
}

void ls_pack_failure(struct ls_pack *pack, struct ls_failure *failure) {
    *failure = pack->failure;
}
void ls_pack_facts(struct ls_pack *pack, struct ls_pack_result *result) {
    *result = pack->result;
}

/* --- files with several names ------------------------------------------------------------------------------------- */

static size_t slot_of(const struct ls_pack *pack, const struct known *wanted) {
    uint64_t key[3] = {wanted->device, wanted->inode, (uintptr_t)wanted->piece};
    size_t slot = ls_xxh64_of(key, sizeof key, 0) & (pack->known_room - 1);
    for (const struct known *known; (known = &pack->known[slot])->path; slot = (slot + 1) & (pack->known_room - 1))
        if (known->device == wanted->device && known->inode == wanted->inode && known->piece == wanted->piece)
            break;
    return slot;
}

static int grow_known(struct ls_pack *pack) {
    struct known *old = pack->known;
    size_t room = pack->known_room;
    pack->known_room = room ? room * 2 : 64;
    if (!(pack->known = calloc(pack->known_room, sizeof *pack->known))) {
        pack->known = old, pack->known_room = room;
        return -ENOMEM;
    }
    for (size_t i = 0; i < room; i++)
        if (old[i].path)
            pack->known[slot_of(pack, &old[i])] = old[i];
    free(old);
    return 0;
}

/* The path under which the file is in the tar already, or NULL: then it is remembered. */
static int first_name(struct ls_pack *pack, const struct stat *facts, const struct ls_index_node *node,
                      const char **first) {
    if (pack->known_count * 2 >= pack->known_room && grow_known(pack))
        return -ENOMEM;
    struct known wanted = {.device = facts->st_dev, .inode = facts->st_ino, .piece = pack->piece};
    struct known *known = &pack->known[slot_of(pack, &wanted)];
    *first = known->path;
    if (known->path)
        return 0;
    wanted.path = strndup((const char *)node->path, node->path_length);
    *known = wanted;
    pack->known_count++;
    return known->path ? 0 : -ENOMEM;
}

/* --- entries ------------------------------------------------------------------------------------------------------ */

static int put_entry(struct ls_pack *pack, const struct ls_index_node *node, const char *link) {
    int rc = ls_header_put(&pack->head, node, &pack->xattrs, link);
    pack->result.entries++;
    return rc ? fail_memory(pack) : 0;
}

static int put_node(struct ls_pack *pack, const struct ls_index_node *node) {
    pack->node_count++;
    int rc = ls_index_put_node(&pack->nodes, node);
    return rc ? fail_memory(pack) : 0;
}

static int put_whiteout(struct ls_pack *pack, const struct ls_index_node *node) {
    LS_BYTES_FREED struct ls_bytes name = {0};
    if (ls_whiteout_path(&name, (const char *)node->path, node->path_length))
        return fail_memory(pack);
    struct ls_index_node marker = {.path = name.data, .path_length = name.length, .type = LS_REGULAR};
    struct ls_index_node hidden = {.path = node->path, .path_length = node->path_length, .flags = LS_WHITEOUT};
    pack->xattrs.length = 0;
    return put_entry(pack, &marker, "") ?: put_node(pack, &hidden);
}

static int read_link(struct ls_pack *pack, int fd, int64_t size) {
    pack->link.length = 0;
    if (ls_bytes_reserve(&pack->link, (size_t)size + 2))
        return fail_memory(pack);
    ssize_t got = readlinkat(fd, "", (char *)pack->link.data, (size_t)size + 1);
    if (got < 0)
        return LS_FAIL(&pack->failure, "readlinkat");
    pack->link.length = (size_t)got;
    pack->link.data[got] = 0;
    return 0;
}

/* The data follows in pieces; what is known of the file is written to the index when its hash is complete. */
static int open_file(struct ls_pack *pack, int fd, const struct ls_index_node *node) {
    pack->fd = ls_open_again(fd, O_RDONLY | O_NOATIME);
    if (pack->fd == -EPERM)
        pack->fd = ls_open_again(fd, O_RDONLY);
    if (pack->fd < 0)
        return fail_system(pack, pack->fd, "open", node);
    posix_fadvise(pack->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    pack->file = *node;
    pack->remaining = node->size;
    pack->padding = ls_padding_of(node->size);
    ls_xxh64_begin(&pack->hash, 0);
    return 0;
}

/* What the layer says of a file otherwise than the tree it is read from. */
static void alter(const struct ls_piece *piece, struct ls_index_node *node) {
    if (piece->owned)
        node->uid = piece->uid, node->gid = piece->gid;
    if (piece->modes && node->type != LS_SYMLINK)
        node->mode = piece->modes[node->mode + (node->type == LS_DIRECTORY ? 4096 : 0)];
}

static int put_made(struct ls_pack *pack, const struct ls_made *made, struct ls_index_node *node) {
    node->type = LS_DIRECTORY;
    node->flags = LS_STATED;
    node->mode = made->mode, node->uid = made->uid, node->gid = made->gid;
    node->mtime = made->mtime, node->mtime_ns = made->mtime_ns;
    if (ls_bytes_set(&pack->xattrs, made->xattrs, made->xattrs_length))
        return fail_memory(pack);
    node->attributes = ls_xattrs_hash(made->xattrs, made->xattrs_length);
    pack->result.files++;
    return put_entry(pack, node, "") ?: put_node(pack, node);
}

static int put_file(struct ls_pack *pack, int fd, struct ls_index_node *node) {
    struct stat facts;
    const char *first = NULL;
    if (ls_facts(fd, &facts, &pack->failure))
        return failed_at(pack, node);
    if (!(node->type = ls_type_of(facts.st_mode))) {
        int rc = ls_bytes_add(&pack->notices, "socket", 7);
        rc = rc ?: ls_bytes_add(&pack->notices, node->path, node->path_length);
        rc = rc ?: ls_bytes_add(&pack->notices, "", 1);
        return rc ? fail_memory(pack) : 0;
    }
    if (node->type == LS_CHARACTER && facts.st_rdev == 0)
        return fail_tar(pack, "a character device 0/0 means a removal to overlay and cannot be kept in a layer", node);
    node->flags = LS_STATED;
    node->mode = facts.st_mode & 07777;
    node->uid = facts.st_uid, node->gid = facts.st_gid;
    node->mtime = facts.st_mtim.tv_sec, node->mtime_ns = (uint32_t)facts.st_mtim.tv_nsec;
    if (pack->piece)
        alter(pack->piece, node);
    clamp(pack, node);
    if (node->type == LS_CHARACTER || node->type == LS_BLOCK_DEVICE)
        node->major = major(facts.st_rdev), node->minor = minor(facts.st_rdev);
    node->size = node->type == LS_REGULAR || node->type == LS_SYMLINK ? facts.st_size : 0;
    if (ls_xattrs_read(fd, LS_XATTRS_PLAIN, &pack->xattrs, &pack->failure))
        return failed_at(pack, node);
    node->attributes = ls_xattrs_hash(pack->xattrs.data, pack->xattrs.length);
    if (node->type == LS_SYMLINK) {
        if (read_link(pack, fd, facts.st_size))
            return failed_at(pack, node);
        node->content = ls_xxh64_of(pack->link.data, pack->link.length, 0);
    }
    if (node->type != LS_DIRECTORY && facts.st_nlink > 1 && first_name(pack, &facts, node, &first))
        return fail_memory(pack);
    if (first) {
        struct ls_index_node link = *node;
        link.type = LS_HARD_LINK;
        link.target = (const uint8_t *)first, link.target_length = strlen(first);
        pack->xattrs.length = 0;
        return put_entry(pack, &link, first) ?: put_node(pack, &link);
    }
    pack->result.files++;
    pack->result.bytes += node->type == LS_REGULAR ? node->size : 0;
    int rc = put_entry(pack, node, node->type == LS_SYMLINK ? (char *)pack->link.data : "");
    if (rc)
        return rc;
    if (node->type == LS_REGULAR && node->size)
        return open_file(pack, fd, node);
    if (node->type == LS_REGULAR)
        node->content = ls_xxh64_of("", 0, 0);
    return put_node(pack, node);
}

static bool is_reserved(const struct ls_index_node *node) {
    for (size_t at = 0; at < node->path_length;) {
        const uint8_t *slash = memchr(node->path + at, '/', node->path_length - at);
        size_t length = (slash ? (size_t)(slash - node->path) : node->path_length) - at;
        if (ls_is_mark(node->path + at, length))
            return true;
        at += length + 1;
    }
    return false;
}

static int refuse_reserved(struct ls_pack *pack, const struct ls_index_node *node) {
    static const char WHY[] = "names that begin with .wh. mean removals in a layer's tar and cannot be kept in it";
    return is_reserved(node) ? fail_tar(pack, WHY, node) : 0;
}

static int open_and_put(struct ls_pack *pack, int root, const char *path, struct ls_index_node *node) {
    LS_CLOSED int fd = ls_open_beneath(root, *path ? path : ".", O_PATH | O_NOFOLLOW, 0);
    return fd < 0 ? fail_system(pack, fd, "openat2", node) : put_file(pack, fd, node);
}

static int put_path(struct ls_pack *pack, const uint8_t *path, size_t length, char kind) {
    struct ls_index_node node = {.path = path, .path_length = length};
    int rc = refuse_reserved(pack, &node);
    if (rc)
        return rc;
    return kind == 'D' ? put_whiteout(pack, &node) : open_and_put(pack, pack->root, (const char *)path, &node);
}

static int put_gathered(struct ls_pack *pack) {
    uint32_t number;
    memcpy(&number, pack->at, sizeof number);
    const char *name = (const char *)pack->at + sizeof number, *path = name + strlen(name) + 1;
    struct ls_index_node node = {.path = (const uint8_t *)name, .path_length = strlen(name)};
    pack->at = (const uint8_t *)path + strlen(path) + 1;
    bool made = number >= pack->piece_count;
    pack->piece = made ? NULL : &pack->pieces[number];
    pack->place = made ? NULL : path;
    pack->clamps = pack->piece && pack->piece->limited;
    if (pack->clamps)
        pack->latest = pack->piece->latest, pack->latest_ns = pack->piece->latest_ns;
    int rc = refuse_reserved(pack, &node);
    if (rc)
        return rc;
    return made ? put_made(pack, &pack->made[number - pack->piece_count], &node)
                : open_and_put(pack, pack->piece->root, path, &node);
}

static int next_entry(struct ls_pack *pack) {
    if (pack->at < pack->end && pack->pieces)
        return put_gathered(pack);
    if (pack->at < pack->end && !pack->any) {
        pack->any = true;
        if (pack->at
                [1]) /* the root comes first whenever anything changed, for its attributes show through every stack */
            return put_path(pack, (const uint8_t *)"", 0, 'C');
    }
    if (pack->at == pack->end) {
        static const uint8_t zeros[2 * LS_BLOCK];
        pack->ended = true;
        return ls_bytes_add(&pack->head, zeros, sizeof zeros) ? fail_memory(pack) : 0;
    }
    const uint8_t *path = pack->at + 1;
    size_t length = strlen((const char *)path);
    char kind = (char)pack->at[0];
    pack->at = path + length + 1;
    return put_path(pack, path, length, kind);
}

/* --- the stream --------------------------------------------------------------------------------------------------- */

static int keep_raw(struct ls_pack *pack, const void *data, size_t length) {
    return ls_bytes_add(&pack->raw, data, length) ? fail_memory(pack) : 0;
}

static int flush_raw(struct ls_pack *pack) {
    int rc = ls_skeleton_raw(&pack->stream, pack->raw.data, pack->raw.length);
    pack->raw.length = 0;
    return rc ? fail_memory(pack) : 0;
}

static int begin_payload(struct ls_pack *pack) {
    int rc = flush_raw(pack);
    return rc ? rc : ls_skeleton_payload(&pack->stream, pack->file.size) ? fail_memory(pack) : 0;
}

/* The stream and the index, when the tar has ended. */
static int complete_skeleton(struct ls_pack *pack) {
    struct ls_bytes *index = &pack->index;
    int rc = flush_raw(pack);
    if (rc)
        return rc;
    pack->complete = true;
    rc = ls_bytes_add(index, LS_INDEX_MAGIC, strlen(LS_INDEX_MAGIC)) ?: ls_bytes_number(index, pack->payload_count)
        ?: ls_bytes_add(index, pack->payloads.data, pack->payloads.length) ?: ls_bytes_number(index, pack->node_count)
        ?: ls_bytes_add(index, pack->nodes.data, pack->nodes.length);
    return rc ? fail_memory(pack) : 0;
}

static int end_payload(struct ls_pack *pack) {
    close(pack->fd);
    pack->fd = -1;
    pack->file.content = ls_xxh64_end(&pack->hash);
    struct ls_index_payload payload = {.size = pack->file.size,
                                       .content = pack->file.content,
                                       .path = pack->file.path,
                                       .path_length = pack->file.path_length};
    pack->payload_count++;
    int rc = ls_index_put_payload(&pack->payloads, &payload);
    return rc ? fail_memory(pack) : put_node(pack, &pack->file);
}

static int64_t read_file(struct ls_pack *pack, uint8_t *buffer, size_t room) {
    size_t want = pack->remaining < (int64_t)room ? (size_t)pack->remaining : room;
    ssize_t got = read(pack->fd, buffer, want);
    if (got < 0)
        return errno == EINTR ? 0 : fail_system(pack, -errno, "read", &pack->file);
    if (got == 0)
        return fail_system(pack, -EBUSY, "read (the file became shorter while it was read)", &pack->file);
    ls_xxh64_add(&pack->hash, buffer, (size_t)got);
    pack->remaining -= got;
    int rc = pack->remaining ? 0 : end_payload(pack);
    return rc ? rc : got;
}

/* Headers, and the end of the tar. */
static int64_t give_head(struct ls_pack *pack, uint8_t *buffer, size_t room) {
    size_t have = pack->head.length - pack->head_sent, part = have < room ? have : room;
    memcpy(buffer, pack->head.data + pack->head_sent, part);
    int rc = keep_raw(pack, pack->head.data + pack->head_sent, part);
    pack->head_sent += part;
    if (!rc && part == have) {
        pack->head.length = pack->head_sent = 0;
        rc = pack->fd >= 0 ? begin_payload(pack) : 0;
    }
    return rc ? rc : (int64_t)part;
}

static int64_t give_padding(struct ls_pack *pack, uint8_t *buffer, size_t room) {
    size_t part = (size_t)pack->padding < room ? (size_t)pack->padding : room;
    memset(buffer, 0, part);
    pack->padding -= (int64_t)part;
    int rc = keep_raw(pack, buffer, part);
    return rc ? rc : (int64_t)part;
}

int64_t ls_pack_read(struct ls_pack *pack, uint8_t *buffer, size_t room) {
    size_t done = 0;
    while (done < room && !pack->complete) {
        int64_t got = 0;
        if (pack->head.length)
            got = give_head(pack, buffer + done, room - done);
        else if (pack->fd >= 0)
            got = read_file(pack, buffer + done, room - done);
        else if (pack->padding)
            got = give_padding(pack, buffer + done, room - done);
        else
            got = pack->ended ? complete_skeleton(pack) : next_entry(pack);
        if (got < 0)
            return got;
        done += (size_t)got;
    }
    return (int64_t)done;
}

size_t ls_pack_skeleton(struct ls_pack *pack, const uint8_t **data) {
    *data = pack->stream.data;
    return pack->stream.length;
}

void ls_pack_taken(struct ls_pack *pack) {
    pack->stream.length = 0;
}

size_t ls_pack_index(struct ls_pack *pack, const uint8_t **data) {
    *data = pack->index.data;
    return pack->index.length;
}

size_t ls_pack_notices(struct ls_pack *pack, const uint8_t **data) {
    *data = pack->notices.data;
    return pack->notices.length;
}
