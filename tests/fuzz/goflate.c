/* Any bytes compressed as Go does, in pieces of any size: zlib makes the same of it again. */
#include "fuzz.h"
#include "compression/goflate.h"

#include <zlib.h>

enum { MOST = 1 << 17 };

static void inflated_alike(const uint8_t *packed, size_t length, const uint8_t *bytes, size_t size) {
    uint8_t *out = malloc(size + 1);
    z_stream stream = {.next_in = (uint8_t *)packed, .avail_in = (unsigned)length, .next_out = out};
    stream.avail_out = (unsigned)size + 1;
    must(out && inflateInit2(&stream, -15) == Z_OK);
    must(inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.total_out == size && stream.avail_in == 0);
    must(!memcmp(out, bytes, size));
    inflateEnd(&stream);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const int levels[] = {1, 4, 5, 6, 7, 8, 9};
    struct input input = {data, data + size};
    int level = levels[input_byte(&input) % 7];
    size_t piece = 1 + input_byte(&input) * 17u, times = 1 + input_byte(&input) % 64, length = input_left(&input);
    if (length * times > MOST)
        times = 1;
    uint8_t *bytes = malloc(length * times + 1), *packed = malloc(2 * MOST + length * times);
    size_t written = 0, part;
    must(bytes && packed);
    for (size_t n = 0; n < times; n++) /* so that there is something to be found again, far away too */
        memcpy(bytes + n * length, input.at, length);
    length *= times;
    ls_goflate *stream = ls_goflate_new(level);
    must(stream);
    for (size_t at = 0; at <= length; at += piece) {
        bool last = length - at <= piece;
        must(ls_goflate_feed(stream, bytes + at, last ? length - at : piece) == 0);
        if (last)
            must(ls_goflate_finish(stream) == 0);
        const uint8_t *taken = ls_goflate_take(stream, &part);
        must(written + part <= 2 * MOST + length);
        if (part)
            memcpy(packed + written, taken, part);
        written += part;
        if (last)
            break;
    }
    inflated_alike(packed, written, bytes, length);
    ls_goflate_free(stream);
    free(bytes);
    free(packed);
    return 0;
}
