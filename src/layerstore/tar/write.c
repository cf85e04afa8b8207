/* The writers: threads that take jobs from the queue and make files. */
#define _GNU_SOURCE
#include "engine.h"
#include "xxh64.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Large files: write-back is begun as they grow, or the final sync finds all of it to do (measured: a third less time). */
enum { WRITE_BACK = 8 << 20 };

struct output {
    int fd;
    const struct ls_job *job;
    size_t extent;
    int64_t extent_done, position, written_back;
    struct ls_xxh64 hash;
};

static int write_at(int fd, const uint8_t *data, size_t length, int64_t position) {
    while (length) {
        ssize_t wrote = pwrite(fd, data, length, position);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return -errno;
        data += wrote, position += wrote, length -= (size_t)wrote;
    }
    return 0;
}

static int put(struct output *out, const uint8_t *data, size_t length) {
    ls_xxh64_add(&out->hash, data, length);
    if (!out->job->sparse) {
        int rc = write_at(out->fd, data, length, out->position);
        out->position += (int64_t)length;
        if (out->position - out->written_back >= WRITE_BACK) {
            sync_file_range(out->fd, out->written_back, out->position - out->written_back, SYNC_FILE_RANGE_WRITE);
            out->written_back = out->position;
        }
        return rc;
    }
    while (length) {
        while (out->extent < out->job->extents_count && out->extent_done == out->job->extents[out->extent].length)
            out->extent++, out->extent_done = 0;
        if (out->extent == out->job->extents_count)
            return -EBADMSG; /* the reader has checked that the extents hold the payload */
        const struct ls_extent *extent = &out->job->extents[out->extent];
        size_t room = (size_t)(extent->length - out->extent_done);
        size_t part = length < room ? length : room;
        int rc = write_at(out->fd, data, part, extent->offset + out->extent_done);
        if (rc)
            return rc;
        out->extent_done += (int64_t)part;
        data += part, length -= part;
    }
    return 0;
}

static int open_output(struct ls_unpack *unpack, struct ls_cursor *cursor, const struct ls_job *job, bool exact_mode,
                       const char **call) {
    if (job->shadow >= 0) {
        char name[32];
        snprintf(name, sizeof name, "%lld", (long long)job->shadow);
        *call = "openat";
        int fd = openat(unpack->shadow, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        return fd < 0 ? -errno : fd;
    }
    int folder = ls_disk_folder(&unpack->disk, cursor, job->node->parent, unpack->generation, call);
    return folder < 0 ? folder : ls_disk_regular(&unpack->disk, folder, job->node, exact_mode, call);
}

static int regular(struct ls_unpack *unpack, struct ls_cursor *cursor, struct ls_job *job, bool exact_mode,
                   const char **call) {
    struct output out = {.fd = open_output(unpack, cursor, job, exact_mode, call), .job = job};
    int rc = 0;
    if (out.fd < 0)
        return out.fd;
    ls_xxh64_begin(&out.hash, 0);
    for (struct ls_segment *segment; !rc && (segment = ls_job_segment(&unpack->queue, job));
         ls_segment_done(&unpack->queue, segment)) {
        *call = "pwrite";
        rc = put(&out, segment->data, segment->length);
    }
    if (!rc && job->sparse && ftruncate(out.fd, job->node->size))
        *call = "ftruncate", rc = -errno;
    if (!rc)
        rc = ls_disk_settle(&unpack->disk, out.fd, job->node,
                            exact_mode && job->shadow < 0 && unpack->disk.dialect != LS_DIALECT_MERGED, call);
    if (close(out.fd) && !rc)
        *call = "close", rc = -errno;
    job->node->content = ls_xxh64_end(&out.hash);
    return rc;
}

static int special(struct ls_unpack *unpack, struct ls_cursor *cursor, struct ls_job *job, const char **call) {
    int folder = ls_disk_folder(&unpack->disk, cursor, job->node->parent, unpack->generation, call);
    return folder < 0 ? folder : ls_disk_special(&unpack->disk, folder, job->node, call);
}

int ls_unpack_write_files(struct ls_unpack *unpack) {
    struct ls_cursor cursor = {.fd = -1};
    struct ls_job *job;
    int failed = 0;
    /* a umask belongs to the thread once it shares its filesystem context with no other; the mode in open(2) is exact then */
    bool exact_mode = unshare(CLONE_FS) == 0;
    if (exact_mode)
        umask(0);
    while ((job = ls_queue_take(&unpack->queue))) {
        const char *call = "";
        int rc = job->node->type == LS_REGULAR ? regular(unpack, &cursor, job, exact_mode, &call)
                                               : special(unpack, &cursor, job, &call);
        if (rc)
            failed = ls_fail_system(unpack, rc, call, job->node);
        ls_job_done(&unpack->queue, job);
    }
    ls_cursor_close(&cursor);
    return failed;
}
