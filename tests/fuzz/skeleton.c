/* Any bytes as a skeleton's index and stream: read, given out, and held against a tree. They may say anything, and it is an
 * error or the truth. The first two bytes of the input are the length of the index. */
#include "fuzz.h"
#include "tar/entries.h"
#include "tar/export.h"
#include "tar/unpack.h"
#include "tar/verify.h"

enum { RECORDS = 7, MOST = 1 << 22 };

static const uint8_t *index_at;
static size_t index_length;

static void within(uint64_t at, uint32_t length) {
    must(at <= index_length && length <= index_length - at);
}

static void read_entries(void) {
    struct ls_entries entries;
    struct ls_record records[RECORDS];
    int count;
    if (ls_entries_begin(&entries, index_at, index_length))
        return;
    while ((count = ls_entries_sparse(&entries, records, RECORDS)) > 0)
        for (int i = 0; i < count; i++)
            within(records[i].path_at, records[i].path_length);
    while (!count && (count = ls_entries_next(&entries, records, RECORDS)) > 0) {
        for (int i = 0; i < count; i++) {
            within(records[i].path_at, records[i].path_length);
            within(records[i].target_at, records[i].target_length);
        }
        count = 0;
    }
}

static void give_out(int tree, const uint8_t *stream, size_t length, size_t piece) {
    struct ls_export *export_ = ls_export_new(tree, tree, index_at, index_length);
    uint8_t out[1024];
    int64_t got = 0, whole = 0;
    must(export_);
    while (got >= 0 && length) {
        size_t part = piece < length ? piece : length;
        must(ls_export_feed(export_, stream, part) == 0);
        stream += part, length -= part;
        while ((got = ls_export_read(export_, out, sizeof out)) > 0 && whole < MOST)
            whole += got;
        if (whole >= MOST)
            break;
    }
    ls_export_finish(export_);
    struct ls_failure failure;
    ls_export_failure(export_, &failure);
    ls_export_free(export_);
}

static void hold_against(int tree, int dialect, int level) {
    struct ls_verify *verify = ls_verify_new(tree, dialect, level, index_at, index_length);
    struct ls_damage damage;
    must(verify);
    for (int n = 0; n < 1000 && ls_verify_next(verify, &damage) == 1; n++)
        must(damage.path && damage.what);
    ls_verify_free(verify);
}

/* Made once: nothing here writes to it. */
static int some_tree(void) {
    static int tree = -1;
    if (tree >= 0)
        return tree;
    tree = fresh("some");
    int file = openat(tree, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    must(file >= 0 && write(file, "some bytes", 10) == 10 && close(file) == 0);
    file = openat(tree, "1", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    must(file >= 0 && ftruncate(file, 5000) == 0 && pwrite(file, "end", 3, 4997) == 3 && close(file) == 0);
    must(mkdirat(tree, "d", 0755) == 0 && symlinkat("f", tree, "s") == 0 && linkat(tree, "f", tree, "d/h", 0) == 0);
    must(mkfifoat(tree, "p", 0600) == 0 && mknodat(tree, "d/w", S_IFCHR, 0) == 0);
    return tree;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    size_t length = input_byte(&input);
    length |= (size_t)input_byte(&input) << 8;
    uint8_t how = input_byte(&input);
    index_at = input.at;
    index_length = length < input_left(&input) ? length : input_left(&input);
    int tree = some_tree();
    read_entries();
    give_out(tree, index_at + index_length, input_left(&input) - index_length, 1 + (how & 63));
    hold_against(tree, how & 64 ? LS_DIALECT_AUFS : LS_DIALECT_OVERLAY, how >> 7 ? LS_VERIFY_CONTENT : LS_VERIFY_SIZES);
    return 0;
}
