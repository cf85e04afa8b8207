/* Any bytes as a stream of deflate: what zlib inflates, to its end or until it is damaged, has its blocks where they are
 * found, and is as long as was counted. */
#include "fuzz.h"
#include "seekable/blocks.h"

#include <zlib.h>

enum { ROOM = 64, MOST = 1 << 22 };

/* What zlib makes of it: where the stream ends and what it inflates to; false if it is damaged, cut short or too large. */
static bool inflated(const uint8_t *data, size_t length, uint64_t *end, uint64_t *out) {
    static uint8_t made[1 << 16];
    z_stream stream = {.next_in = (uint8_t *)data, .avail_in = (unsigned)length};
    int rc = Z_OK;
    must(inflateInit2(&stream, -15) == Z_OK);
    while (rc == Z_OK && stream.total_out < MOST) {
        stream.next_out = made;
        stream.avail_out = sizeof made;
        rc = inflate(&stream, Z_NO_FLUSH);
    }
    *end = stream.total_in;
    *out = stream.total_out;
    inflateEnd(&stream);
    return rc == Z_STREAM_END;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    uint64_t span = input_byte(&input) * 16u + 1, end, out;
    struct ls_point list[ROOM];
    struct ls_points points = {.list = list, .room = ROOM};
    size_t length = input_left(&input);
    uint8_t *bytes = malloc(length + 1); /* so that one byte further is found */
    must(bytes);
    memcpy(bytes, input.at, length);
    int rc = ls_points_find(bytes, length, span, &points);
    must(rc == 0 || rc == -EBADMSG || rc == -ENOSPC);
    must(points.count <= ROOM);
    for (uint64_t n = 0; n < points.count; n++) {
        must(list[n].bit <= length * 8);
        must(!n || (list[n].bit > list[n - 1].bit && list[n].out - list[n - 1].out >= span));
    }
    if (inflated(bytes, length, &end, &out)) {
        must(rc != -EBADMSG);
        must(rc == -ENOSPC || (points.end == end && points.out == out));
    }
    free(bytes);
    return 0;
}
