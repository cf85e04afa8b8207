/* The writers: threads that take jobs from the queue and make files. */
#define _GNU_SOURCE
#include "engine.h"
#include "xxh64.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct output {
    int fd;
    const struct ls_job *job;
    size_t extent;
    int64_t extent_done, position, written_back;
    struct ls_xxh64 hash;
};

static int put(struct output *out, const uint8_t *data, size_t length, struct ls_failure *failure) {
    ls_xxh64_add(&out->hash, data, length);
    if (!out->job->sparse) {
        int rc = ls_disk_write(out->fd, data, length, out->position, failure);
        out->position += (int64_t)length;
        ls_write_back(out->fd, out->position, &out->written_back);
        return rc;
    }
    while (length) {
        while (out->extent < out->job->extents_count && out->extent_done == out->job->extents[out->extent].length)
            out->extent++, out->extent_done = 0;
        if (out->extent == out->job->extents_count) /* the reader has checked that the extents hold the payload */
            return ls_fail(failure, "pwrite", -EBADMSG);
        const struct ls_extent *extent = &out->job->extents[out->extent];
        size_t room = (size_t)(extent->length - out->extent_done);
        size_t part = length < room ? length : room;
        int rc = ls_disk_write(out->fd, data, part, extent->offset + out->extent_done, failure);
        if (rc)
            return rc;
        out->extent_done += (int64_t)part;
        data += part, length -= part;
    }
    return 0;
}

static int open_output(struct ls_unpack *unpack, struct ls_cursor *cursor, const struct ls_job *job, bool exact_mode,
                       struct ls_failure *failure) {
    if (job->shadow >= 0) {
        char name[32];
        snprintf(name, sizeof name, "%lld", (long long)job->shadow);
        int fd = openat(unpack->shadow, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        return fd < 0 ? LS_FAIL(failure, "openat") : fd;
    }
    int folder = ls_disk_folder(&unpack->disk, cursor, job->node->parent, unpack->generation, failure);
    return folder < 0 ? folder : ls_disk_regular(&unpack->disk, folder, job->node, exact_mode, failure);
}

static int regular(struct ls_unpack *unpack, struct ls_cursor *cursor, struct ls_job *job, bool exact_mode,
                   struct ls_failure *failure) {
    LS_CLOSED int fd = open_output(unpack, cursor, job, exact_mode, failure);
    struct output out = {.fd = fd, .job = job};
    int rc = 0;
    if (fd < 0)
        return fd;
    ls_xxh64_begin(&out.hash, 0);
    for (struct ls_segment *segment; !rc && (segment = ls_job_segment(&unpack->queue, job));
         ls_segment_done(&unpack->queue, segment))
        rc = put(&out, segment->data, segment->length, failure);
    if (rc)
        return rc;
    if (job->sparse && ftruncate(fd, job->node->size))
        return LS_FAIL(failure, "ftruncate");
    bool mode_is_set = exact_mode && job->shadow < 0 && unpack->disk.dialect != LS_DIALECT_MERGED;
    job->node->content = ls_xxh64_end(&out.hash);
    rc = ls_disk_settle(&unpack->disk, fd, job->node, mode_is_set, failure);
    return rc ? rc : ls_disk_close(&fd, failure);
}

static int special(struct ls_unpack *unpack, struct ls_cursor *cursor, struct ls_job *job, struct ls_failure *failure) {
    int folder = ls_disk_folder(&unpack->disk, cursor, job->node->parent, unpack->generation, failure);
    return folder < 0 ? folder : ls_disk_special(&unpack->disk, folder, job->node, failure);
}

int ls_unpack_write_files(struct ls_unpack *unpack) {
    struct ls_cursor cursor = {.fd = -1};
    struct ls_failure failure = {0};
    struct ls_job *job;
    int failed = 0;
    /* a umask belongs to the thread once it shares its filesystem context with no other; the mode in open(2) is exact
     * then */
    bool exact_mode = unshare(CLONE_FS) == 0;
    if (exact_mode)
        umask(0);
    while ((job = ls_queue_take(&unpack->queue))) {
        int rc = job->node == unpack->model.root ? ls_keep_tar(unpack, job, &failure)
                 : job->node->type == LS_REGULAR ? regular(unpack, &cursor, job, exact_mode, &failure)
                                                 : special(unpack, &cursor, job, &failure);
        if (rc)
            failed = ls_note(unpack, &failure, job->node);
        ls_job_done(&unpack->queue, job);
    }
    ls_cursor_close(&cursor);
    return failed;
}
