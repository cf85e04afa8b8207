/* See watching.h. */
#define _GNU_SOURCE
#include "watching.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/fanotify.h>
#include <unistd.h>

/* Later than the headers that this may be built with (linux/fanotify.h). */
enum { PRE_ACCESS = 0x00100000, INFO_RANGE = 6, ERRNO_SHIFT = 24, EVENT = 256 };

struct range {
    struct fanotify_event_info_header header;
    uint32_t pad;
    uint64_t offset;
    uint64_t length;
};

int ls_watch_new(void) {
    unsigned flags = FAN_CLASS_PRE_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS;
    int group = fanotify_init(flags, O_RDONLY | O_LARGEFILE | O_CLOEXEC);
    return group < 0 ? -errno : group;
}

int ls_watch_mark(int group, int file) {
    return fanotify_mark(group, FAN_MARK_ADD, PRE_ACCESS, file, NULL) ? -errno : 0;
}

int ls_watch_unmark(int group, int file) {
    return fanotify_mark(group, FAN_MARK_REMOVE, PRE_ACCESS, file, NULL) && errno != ENOENT ? -errno : 0;
}

static struct ls_waiting waiting_of(const struct fanotify_event_metadata *event) {
    struct ls_waiting waiting = {.file = event->fd, .pid = event->pid};
    const uint8_t *at = (const uint8_t *)event + event->metadata_len, *end = (const uint8_t *)event + event->event_len;
    struct fanotify_event_info_header header;
    for (; (size_t)(end - at) >= sizeof header; at += header.len) {
        memcpy(&header, at, sizeof header);
        if (header.len < sizeof header || header.len > end - at)
            break;
        if (header.info_type == INFO_RANGE && header.len >= sizeof(struct range)) {
            struct range range;
            memcpy(&range, at, sizeof range);
            waiting.offset = range.offset;
            waiting.length = range.length;
        }
    }
    return waiting;
}

int ls_watch_read(int group, struct ls_waiting *waiting, int most) {
    _Alignas(struct fanotify_event_metadata) uint8_t buffer[EVENT];
    int count = 0;
    /* One at a time: each event that is read has to be answered, so none may be read for which there is no room. */
    while (count < most) {
        ssize_t got = read(group, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return count ? count : errno == EAGAIN ? 0 : -errno;
        size_t left = (size_t)got;
        const struct fanotify_event_metadata *event = (const struct fanotify_event_metadata *)buffer;
        for (; FAN_EVENT_OK(event, left) && count < most; event = FAN_EVENT_NEXT(event, left))
            if (event->fd >= 0)
                waiting[count++] = waiting_of(event);
    }
    return count;
}

int ls_watch_answer(int group, int file, int error) {
    uint32_t response = error ? FAN_DENY | (uint32_t)(error & 0xff) << ERRNO_SHIFT : FAN_ALLOW;
    struct fanotify_response answer = {.fd = file, .response = response};
    ssize_t written;
    do
        written = write(group, &answer, sizeof answer);
    while (written < 0 && errno == EINTR);
    return written < 0 ? -errno : 0;
}
