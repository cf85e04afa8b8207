/* Any bytes as the headers of a tar, one entry after the other, without a file: the parser alone. Checksums are mended. */
#include "fuzz.h"
#include "tar/entry.h"

enum { CHECKSUM = 148, CHECKSUM_LENGTH = 8 };

static void mended(uint8_t *block, const uint8_t *given) {
    unsigned sum = 0;
    char text[CHECKSUM_LENGTH];
    memcpy(block, given, LS_BLOCK);
    memset(block + CHECKSUM, ' ', CHECKSUM_LENGTH);
    for (int i = 0; i < LS_BLOCK; i++)
        sum += block[i];
    snprintf(text, sizeof text, "%06o", sum);
    memcpy(block + CHECKSUM, text, sizeof text);
}

/* The map that lies in the payload, as much more of it at each call as has come. */
static int map(struct ls_entry *entry, struct input *input, const char **why) {
    const uint8_t *begin = input->at;
    size_t used = 0, have = 0;
    int rc = 1;
    while (rc == 1 && have < input_left(input) && (int64_t)have < entry->payload) {
        have += input_left(input) - have < LS_BLOCK ? input_left(input) - have : LS_BLOCK;
        rc = ls_entry_map(entry, begin, have, &used, why);
    }
    if (rc)
        return -EBADMSG;
    must(used <= have);
    entry->payload -= (int64_t)used;
    return entry->payload < 0 ? -EBADMSG : 0;
}

static int complete(struct ls_entry *entry, struct input *input, const char **why) {
    int rc = 0;
    while (!rc && entry->sparse && entry->extents_continue) {
        if (input_left(input) < LS_BLOCK)
            return -EBADMSG;
        rc = ls_entry_more_extents(entry, input->at, why);
        input->at += LS_BLOCK;
    }
    if (!rc && entry->extents_in_body)
        rc = map(entry, input, why);
    if (!rc && entry->sparse)
        rc = ls_entry_check_sparse(entry, why);
    if (rc)
        return rc;
    must(entry->payload >= 0 && entry->real_size >= 0 && entry->type >= LS_REGULAR && entry->type <= LS_IGNORED);
    must(entry->mode <= 07777 && entry->mtime_ns < 1000000000);
    return 0;
}

static void read_all(struct ls_entry *entry, struct input *input) {
    const char *why = NULL;
    for (bool begun = false; input_left(input) >= LS_BLOCK;) {
        uint8_t block[LS_BLOCK];
        mended(block, input->at);
        input->at += LS_BLOCK;
        int type = ls_block_type(block, &why), rc;
        if (type < 0)
            break;
        if (!begun)
            ls_entry_reset(entry);
        begun = true;
        if (ls_is_extension(type)) {
            int64_t size = ls_block_size(block, &why);
            if (size < 0 || (uint64_t)size > input_left(input))
                break;
            rc = ls_entry_extension(entry, type, input->at, (size_t)size, &why);
            input->at += size;
        } else {
            rc = ls_entry_header(entry, block, &why) ?: complete(entry, input, &why);
            begun = false;
        }
        must(rc <= 0 && (rc != -EBADMSG || why || entry->extents_in_body || entry->extents_continue));
        if (rc)
            break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    struct ls_entry entry = {0};
    read_all(&entry, &input);
    ls_entry_free(&entry);
    return 0;
}
