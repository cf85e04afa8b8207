/* The exporter. See export.h, and index.h for the formats. */
#define _GNU_SOURCE
#include "disk.h"
#include "index.h"
#include "unpack.h"
#include "export.h"
#include "xxh64.h"

#include "../kernel/files/scope.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct ls_export {
    int tree, shadow, fd;
    struct ls_reader payloads;
    uint64_t payloads_left;
    struct ls_index_payload payload;
    struct ls_xxh64 hash;
    uint64_t extents_left;
    int64_t position, extent_left, payload_left;
    uint64_t raw_left;
    struct ls_bytes fed;
    size_t used;
    struct ls_failure failure;
};

static int fail_damaged(struct ls_export *export_, const char *sentence) {
    const struct ls_index_payload *payload = &export_->payload;
    return ls_fail_as(&export_->failure, LS_FAIL_DAMAGED, EBADMSG, sentence, payload->path, payload->path_length);
}

/* `call` failed on the payload in hand. */
static int fail_system(struct ls_export *export_, const char *call, int code) {
    const struct ls_index_payload *payload = &export_->payload;
    return ls_fail_as(&export_->failure, LS_FAIL_SYSTEM, -code, call, payload->path, payload->path_length);
}

static int fail_skeleton(struct ls_export *export_) {
    return ls_fail_as(&export_->failure, LS_FAIL_DAMAGED, EBADMSG, "the skeleton is damaged", "", 0);
}

void ls_export_failure(struct ls_export *export_, struct ls_failure *failure) {
    *failure = export_->failure;
}

struct ls_export *ls_export_new(int tree, int shadow, const uint8_t *index, size_t length) {
    struct ls_export *export_ = calloc(1, sizeof *export_);
    size_t magic = strlen(LS_INDEX_MAGIC);
    if (!export_)
        return NULL;
    export_->tree = tree, export_->shadow = shadow, export_->fd = -1;
    export_->payloads = (struct ls_reader){index, index + length, false};
    const uint8_t *begin = ls_read_bytes(&export_->payloads, magic);
    export_->payloads.bad |= !begin || memcmp(begin, LS_INDEX_MAGIC, magic);
    export_->payloads_left = ls_read_number(&export_->payloads);
    return export_;
}

void ls_export_free(struct ls_export *export_) {
    if (!export_)
        return;
    if (export_->fd >= 0)
        close(export_->fd);
    ls_bytes_free(&export_->fed);
    free(export_);
}

int ls_export_feed(struct ls_export *export_, const uint8_t *data, size_t length) {
    size_t rest = export_->fed.length - export_->used;
    if (rest)
        memmove(export_->fed.data, export_->fed.data + export_->used, rest);
    export_->fed.length = rest;
    export_->used = 0;
    return ls_bytes_add(&export_->fed, data, length) ? ls_fail(&export_->failure, "malloc", -ENOMEM) : 0;
}

int ls_export_finish(struct ls_export *export_) {
    bool whole = export_->fd < 0 && !export_->raw_left && !export_->payloads_left &&
                 export_->used == export_->fed.length && !export_->payloads.bad;
    return whole ? 0 : fail_skeleton(export_);
}

static int open_payload(struct ls_export *export_, const char **call) {
    const struct ls_index_payload *payload = &export_->payload;
    LS_BYTES_FREED struct ls_bytes path = {0};
    *call = payload->shadowed ? "openat" : "openat2";
    if ((payload->shadowed ? export_->shadow : export_->tree) < 0)
        return -ENOENT;
    if (payload->shadowed) {
        char name[32];
        snprintf(name, sizeof name, "%llu", (unsigned long long)payload->shadow);
        int fd = openat(export_->shadow, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
    }
    if (ls_bytes_add(&path, payload->path, payload->path_length))
        return *call = "malloc", -ENOMEM;
    return ls_open_beneath(export_->tree, (char *)path.data, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
}

static int begin_payload(struct ls_export *export_, uint64_t size) {
    struct ls_index_payload *payload = &export_->payload;
    struct stat facts;
    const char *call;
    if (!export_->payloads_left-- || !ls_index_get_payload(&export_->payloads, payload) ||
        (uint64_t)payload->size != size)
        return fail_skeleton(export_);
    int fd = open_payload(export_, &call);
    if (ls_is_absent(fd) || fd == -EXDEV)
        return fail_damaged(export_, payload->shadowed ? "a file is missing that the tar itself replaces"
                                                       : "the file is missing");
    if (fd < 0)
        return fail_system(export_, call, fd);
    export_->fd = fd;
    if (fstat(fd, &facts))
        return fail_system(export_, "fstat", -errno);
    if (!S_ISREG(facts.st_mode) || (!payload->extents_count && facts.st_size != payload->size))
        return fail_damaged(export_, "the file does not have its size any more");
    posix_fadvise(export_->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    ls_xxh64_begin(&export_->hash, 0);
    export_->payload_left = payload->size;
    export_->extents_left = payload->extents_count;
    export_->position = 0;
    export_->extent_left = payload->extents_count ? 0 : payload->size;
    return 0;
}

static int end_payload(struct ls_export *export_) {
    close(export_->fd);
    export_->fd = -1;
    for (; export_->extents_left && !export_->payloads.bad; export_->extents_left--) { /* empty ones at the end */
        ls_read_number(&export_->payloads);
        ls_read_number(&export_->payloads);
    }
    if (export_->payloads.bad)
        return fail_skeleton(export_);
    if (ls_xxh64_end(&export_->hash) != export_->payload.content)
        return fail_damaged(export_, "the file does not have its content any more");
    return 0;
}

static int64_t read_payload(struct ls_export *export_, uint8_t *buffer, size_t room) {
    while (!export_->extent_left) {
        if (!export_->extents_left--)
            return fail_skeleton(export_);
        export_->position = (int64_t)ls_read_number(&export_->payloads);
        export_->extent_left = (int64_t)ls_read_number(&export_->payloads);
        if (export_->payloads.bad || export_->position < 0 || export_->extent_left < 0 ||
            export_->extent_left > export_->payload_left)
            return fail_skeleton(export_);
    }
    size_t want = export_->extent_left < (int64_t)room ? (size_t)export_->extent_left : room;
    ssize_t got = pread(export_->fd, buffer, want, export_->position);
    if (got < 0)
        return errno == EINTR ? 0 : fail_system(export_, "pread", -errno);
    if (got == 0)
        return fail_damaged(export_, "the file does not have its size any more");
    ls_xxh64_add(&export_->hash, buffer, (size_t)got);
    export_->position += got;
    export_->extent_left -= got;
    export_->payload_left -= got;
    int rc = export_->payload_left ? 0 : end_payload(export_);
    return rc ? rc : got;
}

/* The next token, if it is there whole: 1. */
static int next_token(struct ls_export *export_) {
    struct ls_reader reader = {export_->fed.data + export_->used, export_->fed.data + export_->fed.length, false};
    uint64_t token = ls_read_number(&reader);
    if (reader.bad)
        return export_->fed.length - export_->used < 10 ? 0 : fail_skeleton(export_);
    export_->used = (size_t)(reader.at - export_->fed.data);
    if (!(token & 1))
        export_->raw_left = token >> 1;
    else {
        int rc = begin_payload(export_, token >> 1);
        if (rc)
            return rc;
    }
    return 1;
}

int64_t ls_export_read(struct ls_export *export_, uint8_t *buffer, size_t room) {
    size_t done = 0;
    while (done < room) {
        if (export_->fd >= 0) {
            int64_t got = read_payload(export_, buffer + done, room - done);
            if (got < 0)
                return got;
            done += (size_t)got;
        } else if (export_->raw_left) {
            size_t have = export_->fed.length - export_->used, part = room - done;
            if (part > have)
                part = have;
            if (part > export_->raw_left)
                part = (size_t)export_->raw_left;
            if (!part)
                break;
            memcpy(buffer + done, export_->fed.data + export_->used, part);
            export_->used += part;
            export_->raw_left -= part;
            done += part;
        } else {
            int rc = next_token(export_);
            if (rc < 0)
                return rc;
            if (rc == 0)
                break;
        }
    }
    return (int64_t)done;
}
