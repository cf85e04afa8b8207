/* Any bytes as a layer's tar: unpacked, found whole, and given out again to the byte.
 *
 * The first byte of the input says how, the rest is the tar. Its checksums are mended first wherever a header seems to
 * be, for no mutation would find them. */
#include "fuzz.h"
#include "tar/export.h"
#include "tar/unpack.h"
#include "tar/verify.h"

#include <pthread.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);

enum { BLOCK = 512, SIZE = 124, SIZE_LENGTH = 12, CHECKSUM = 148, CHECKSUM_LENGTH = 8, TYPE = 156, MOST = 1 << 16 };

static void mend_checksum(uint8_t *block) {
    unsigned sum = 0;
    memset(block + CHECKSUM, ' ', CHECKSUM_LENGTH);
    for (int i = 0; i < BLOCK; i++)
        sum += block[i];
    char text[CHECKSUM_LENGTH];
    snprintf(text, sizeof text, "%06o", sum);
    memcpy(block + CHECKSUM, text, sizeof text);
}

static size_t octal(const uint8_t *field, size_t length) {
    size_t value = 0;
    for (size_t i = 0; i < length && field[i] >= '0' && field[i] <= '7'; i++)
        value = value << 3 | (size_t)(field[i] - '0');
    return value;
}

static void mend(uint8_t *tar, size_t length) {
    static const uint8_t zeros[BLOCK];
    for (size_t at = 0; length - at >= BLOCK;) {
        uint8_t *block = tar + at;
        at += BLOCK;
        if (!memcmp(block, zeros, BLOCK))
            continue;
        mend_checksum(block);
        bool has_body = block[TYPE] && strchr("07SxgLKV", block[TYPE]);
        size_t body = has_body ? octal(block + SIZE, SIZE_LENGTH) : 0;
        body = (body + BLOCK - 1) / BLOCK * BLOCK;
        if (body > length - at)
            return;
        at += body;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
    (void)seed;
    size = LLVMFuzzerMutate(data, size, room);
    if (size)
        mend(data + 1, size - 1);
    return size;
}

static void *write_files(void *unpack) {
    ls_unpack_write_files(unpack);
    return NULL;
}

/* 0, or what kept the tar from being unpacked, which has been told. */
static int unpacked(struct ls_unpack *unpack, const uint8_t *tar, size_t size) {
    int rc = 0;
    for (bool last = false; !rc && !last;) {
        uint8_t *chunk = ls_unpack_chunk(unpack);
        if (!chunk)
            return -EIO;
        size_t length = size < LS_CHUNK ? size : LS_CHUNK;
        memcpy(chunk, tar, length);
        tar += length, size -= length;
        last = length < LS_CHUNK;
        rc = ls_unpack_feed(unpack, length, last);
    }
    return rc ? rc : ls_unpack_finish(unpack);
}

static void given_out_alike(struct ls_unpack *unpack, int tree, const uint8_t *tar, size_t size) {
    const uint8_t *index, *stream;
    size_t index_length = ls_unpack_index(unpack, &index), stream_length = ls_unpack_skeleton(unpack, &stream);
    int shadow = open("shadow", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct ls_export *export_ = ls_export_new(tree, shadow, index, index_length);
    must(export_ && ls_export_feed(export_, stream, stream_length) == 0);
    uint8_t piece[4096];
    int64_t got;
    while ((got = ls_export_read(export_, piece, sizeof piece)) > 0) {
        must((size_t)got <= size && !memcmp(piece, tar, (size_t)got));
        tar += got, size -= (size_t)got;
    }
    must(got == 0 && size == 0 && ls_export_finish(export_) == 0);
    ls_export_free(export_);
    if (shadow >= 0)
        close(shadow);
}

static void found_whole(struct ls_unpack *unpack, int tree, int dialect) {
    const uint8_t *index;
    size_t length = ls_unpack_index(unpack, &index);
    struct ls_verify *verify = ls_verify_new(tree, dialect, LS_VERIFY_CONTENT, index, length);
    struct ls_damage damage = {0};
    must(verify);
    int rc = ls_verify_next(verify, &damage);
    if (rc)
        fprintf(stderr, "%d %s: %s\n", rc, damage.path ? damage.path : "", damage.what ? damage.what : "");
    must(rc == 0);
    ls_verify_free(verify);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > MOST)
        return 0;
    int dialect = data[0] & 1 ? LS_DIALECT_AUFS : LS_DIALECT_OVERLAY;
    int below = data[0] & 2 ? LS_BELOW_UNKNOWN : LS_BELOW_NOTHING, tree = fresh("tree");
    struct ls_failure failure;
    must(ls_remove_tree("shadow", 1, &failure) == 0);
    struct ls_unpack *unpack = ls_unpack_new(tree, below, dialect, "shadow");
    must(unpack && ls_unpack_begin(unpack) == 0);
    pthread_t writer;
    must(pthread_create(&writer, NULL, write_files, unpack) == 0);
    int rc = unpacked(unpack, data + 1, size - 1);
    ls_unpack_stop(unpack);
    pthread_join(writer, NULL);
    if (rc) {
        ls_unpack_failure(unpack, &failure);
        must(failure.kind && failure.what[0]);
    } else {
        given_out_alike(unpack, tree, data + 1, size - 1);
        struct ls_unpack_result result;
        ls_unpack_facts(unpack, &result);
        if (!result.needs_parents)
            found_whole(unpack, tree, dialect);
    }
    ls_unpack_free(unpack);
    close(tree);
    must(access("../escaped", F_OK) != 0);
    return 0;
}
