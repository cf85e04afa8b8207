/* Tar headers to `struct ls_entry`. See entry.h for what is understood. */
#define _GNU_SOURCE
#include "entry.h"

#include <limits.h>
#include <stdio.h>

#define BAD(sentence) (*why = (sentence), -EBADMSG)

/* offsets and lengths of the fields of a header block (POSIX pax(1), ustar) */
enum {
    NAME = 0,
    NAME_LENGTH = 100,
    MODE = 100,
    UID = 108,
    GID = 116,
    ID_LENGTH = 8,
    SIZE = 124,
    MTIME = 136,
    NUMBER_LENGTH = 12,
    CHECKSUM = 148,
    CHECKSUM_LENGTH = 8,
    TYPE = 156,
    LINK = 157,
    MAGIC = 257,
    MAJOR = 329,
    MINOR = 337,
    PREFIX = 345,
    PREFIX_LENGTH = 155,
    STAR_PREFIX_LENGTH = 131,
    STAR_TRAILER = 508,
    GNU_EXTENTS = 386,
    GNU_CONTINUES = 482,
    GNU_REAL_SIZE = 483,
    GNU_EXTENT_LENGTH = 24,
    GNU_MORE_CONTINUES = 504,
};

void ls_entry_reset(struct ls_entry *entry) {
    struct ls_bytes *kept[] = {&entry->name,      &entry->link,     &entry->xattrs,   &entry->long_name,
                               &entry->long_link, &entry->pax_name, &entry->pax_link, &entry->sparse_name};
    struct ls_entry next = {.extents = entry->extents};
    next.extents.count = 0;
    struct ls_bytes *into[] = {&next.name,      &next.link,     &next.xattrs,   &next.long_name,
                               &next.long_link, &next.pax_name, &next.pax_link, &next.sparse_name};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        *into[i] = (struct ls_bytes){.data = kept[i]->data, .room = kept[i]->room};
    *entry = next;
}

void ls_entry_free(struct ls_entry *entry) {
    struct ls_bytes *owned[] = {&entry->name,      &entry->link,     &entry->xattrs,   &entry->long_name,
                                &entry->long_link, &entry->pax_name, &entry->pax_link, &entry->sparse_name};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        ls_bytes_free(owned[i]);
    ls_array_free(&entry->extents);
    *entry = (struct ls_entry){0};
}

/* --- numbers ------------------------------------------------------------------------------------------------------ */

/* Octal text between spaces and NULs, or base-256 when the first bit is set (GNU tar manual, "Basic Tar Format"). */
static int number(const uint8_t *field, size_t length, int64_t *value, const char **why) {
    if (field[0] & 0x80) {
        bool negative = field[0] & 0x40;
        uint64_t sum = 0;
        for (size_t i = 0; i < length; i++) {
            uint8_t byte = negative ? (uint8_t)~field[i] : field[i];
            if (i == 0)
                byte &= 0x7f;
            if (sum >> 55)
                return BAD("a base-256 number is too large");
            sum = sum << 8 | byte;
        }
        *value = negative ? -(int64_t)sum - 1 : (int64_t)sum;
        return 0;
    }
    size_t at = 0, end = length;
    while (at < end && (field[at] == ' ' || field[at] == 0))
        at++;
    while (end > at && (field[end - 1] == ' ' || field[end - 1] == 0))
        end--;
    uint64_t sum = 0;
    for (; at < end && field[at]; at++) {
        if (field[at] < '0' || field[at] > '7' || sum >> 60)
            return BAD("a number in a header is not octal");
        sum = sum << 3 | (uint64_t)(field[at] - '0');
    }
    *value = (int64_t)sum;
    return 0;
}

static int decimal(const uint8_t *text, size_t length, int64_t *value) {
    size_t at = length && text[0] == '-' ? 1 : 0;
    if (at == length)
        return -EBADMSG;
    int64_t sum = 0;
    for (; at < length; at++) {
        if (text[at] < '0' || text[at] > '9' || sum > (INT64_MAX - 9) / 10)
            return -EBADMSG;
        sum = sum * 10 + (text[at] - '0');
    }
    *value = text[0] == '-' ? -sum : sum;
    return 0;
}

/* Seconds with a fraction: `-1.5` is one and a half seconds before 1970. Digits beyond nanoseconds are cut off. */
static int timestamp(const uint8_t *text, size_t length, int64_t *seconds, uint32_t *ns) {
    const uint8_t *dot = memchr(text, '.', length);
    size_t whole = dot ? (size_t)(dot - text) : length;
    bool negative = length && text[0] == '-';
    if (whole == (negative ? 1 : 0))
        *seconds = 0;
    else if (decimal(text, whole, seconds))
        return -EBADMSG;
    uint32_t fraction = 0, scale = 100000000;
    for (size_t at = whole + 1; at < length; at++) {
        if (text[at] < '0' || text[at] > '9')
            return -EBADMSG;
        fraction += (uint32_t)(text[at] - '0') * scale;
        scale /= 10;
    }
    *ns = fraction;
    if (negative && fraction) {
        *seconds -= 1;
        *ns = 1000000000 - fraction;
    }
    return 0;
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

bool ls_is_extension(int type) {
    return type == 'x' || type == 'g' || type == 'L' || type == 'K';
}

int ls_block_type(const uint8_t *block, const char **why) {
    int64_t given;
    uint32_t sum = 0;
    int32_t sum_signed = 0;
    uint8_t any = 0;
    for (size_t i = 0; i < LS_BLOCK; i++) {
        bool blank = i >= CHECKSUM && i < CHECKSUM + CHECKSUM_LENGTH;
        any |= block[i];
        sum += blank ? ' ' : block[i];
        sum_signed += blank ? ' ' : (int8_t)block[i];
    }
    if (!any)
        return 0;
    if (number(block + CHECKSUM, CHECKSUM_LENGTH, &given, why) || (given != sum && given != sum_signed))
        return BAD("not a tar header (wrong checksum)");
    return block[TYPE] ? block[TYPE] : '\0' + 256; /* v7 regular files have type NUL; 0 means a block of zeros here */
}

int64_t ls_block_size(const uint8_t *block, const char **why) {
    int64_t size;
    int rc = number(block + SIZE, NUMBER_LENGTH, &size, why);
    if (rc)
        return rc;
    if (size < 0 || size > INT64_MAX / 4)
        return BAD("an extension header has an impossible size");
    return size;
}

/* --- extension headers -------------------------------------------------------------------------------------------- */

static int add_extent(struct ls_entry *entry, int64_t offset, int64_t length) {
    return ls_array_add(&entry->extents, (struct ls_extent){offset, length});
}

static int extent_list(struct ls_entry *entry, const uint8_t *text, size_t length, const char **why) {
    int64_t pair[2];
    int half = 0;
    if (entry->sparse_half) /* the record that would complete the piece would find it gone */
        return BAD("a sparse map is malformed");
    entry->extents.count = 0;
    entry->sparse_map_given = true;
    for (size_t at = 0; at < length;) {
        const uint8_t *comma = memchr(text + at, ',', length - at);
        size_t part = comma ? (size_t)(comma - text) - at : length - at;
        if (decimal(text + at, part, &pair[half]))
            return BAD("a sparse map is malformed");
        at += part + 1;
        half ^= 1;
        if (!half && add_extent(entry, pair[0], pair[1]))
            return -ENOMEM;
    }
    return half ? BAD("a sparse map is malformed") : 0;
}

static bool is(const uint8_t *key, size_t length, const char *word) {
    return length == strlen(word) && !memcmp(key, word, length);
}

static int sparse_record(struct ls_entry *entry, const uint8_t *key, size_t key_length, const uint8_t *value,
                         size_t length, const char **why) {
    int64_t n;
    if (is(key, key_length, "GNU.sparse.name"))
        return ls_bytes_set(&entry->sparse_name, value, length);
    if (is(key, key_length, "GNU.sparse.map"))
        return extent_list(entry, value, length, why);
    if (decimal(value, length, &n))
        return BAD("a GNU.sparse record is malformed");
    if (is(key, key_length, "GNU.sparse.major"))
        entry->sparse_major = n == 1 ? 1 : n == 0 ? 0 : 9;
    else if (is(key, key_length, "GNU.sparse.minor"))
        entry->sparse_minor = n == 1 ? 1 : n == 0 ? 0 : 9;
    else if (is(key, key_length, "GNU.sparse.size") || is(key, key_length, "GNU.sparse.realsize"))
        entry->pax_real_size = n, entry->has_real_size = true;
    else if (is(key, key_length, "GNU.sparse.offset")) {
        entry->sparse_map_given = true;
        if (entry->sparse_half)
            return BAD("a sparse map is malformed");
        entry->sparse_half = true;
        return add_extent(entry, n, 0);
    } else if (is(key, key_length, "GNU.sparse.numbytes")) {
        if (!entry->sparse_half)
            return BAD("a sparse map is malformed");
        entry->sparse_half = false;
        entry->extents.list[entry->extents.count - 1].length = n;
    }
    return 0;
}

static int record(struct ls_entry *entry, const uint8_t *key, size_t key_length, const uint8_t *value, size_t length,
                  const char **why) {
    static const char XATTR[] = "SCHILY.xattr.";
    bool empty = length == 0; /* an empty value withdraws the record: the header's own field counts again */
    if (key_length > sizeof XATTR - 1 && !memcmp(key, XATTR, sizeof XATTR - 1)) {
        if (memchr(key, 0, key_length))
            return BAD("the name of an extended attribute has a NUL");
        return ls_xattr_add(&entry->xattrs, (const char *)key + sizeof XATTR - 1, key_length - (sizeof XATTR - 1),
                            value, length);
    }
    if (is(key, key_length, "path") || is(key, key_length, "linkpath")) {
        if (memchr(value, 0, length))
            return BAD("a name has a NUL in it");
        return ls_bytes_set(key_length == 4 ? &entry->pax_name : &entry->pax_link, value, length);
    }
    if (is(key, key_length, "size")) {
        entry->has_size = !empty;
        return empty || !decimal(value, length, &entry->pax_size) ? 0 : BAD("the PAX record size is malformed");
    }
    if (is(key, key_length, "uid")) {
        entry->has_uid = !empty;
        return empty || !decimal(value, length, &entry->pax_uid) ? 0 : BAD("the PAX record uid is malformed");
    }
    if (is(key, key_length, "gid")) {
        entry->has_gid = !empty;
        return empty || !decimal(value, length, &entry->pax_gid) ? 0 : BAD("the PAX record gid is malformed");
    }
    if (is(key, key_length, "mtime")) {
        entry->has_mtime = !empty;
        return empty || !timestamp(value, length, &entry->pax_mtime, &entry->pax_mtime_ns)
                   ? 0
                   : BAD("the PAX record mtime is malformed");
    }
    if (key_length > 11 && !memcmp(key, "GNU.sparse.", 11))
        return sparse_record(entry, key, key_length, value, length, why);
    return 0;
}

/* Records are "LENGTH KEY=VALUE\n", LENGTH counting all of it. */
static int records(struct ls_entry *entry, const uint8_t *body, size_t length, const char **why) {
    for (size_t at = 0; at < length;) {
        const uint8_t *space = memchr(body + at, ' ', length - at);
        int64_t size;
        if (!space || decimal(body + at, (size_t)(space - body) - at, &size) ||
            size <= (space - body) - (int64_t)at + 1 || (uint64_t)size > length - at)
            return BAD("a PAX header is malformed");
        const uint8_t *key = space + 1, *end = body + at + size - 1;
        const uint8_t *equals = memchr(key, '=', (size_t)(end - key));
        if (*end != '\n' || !equals || equals == key)
            return BAD("a PAX header is malformed");
        int rc = record(entry, key, (size_t)(equals - key), equals + 1, (size_t)(end - equals - 1), why);
        if (rc)
            return rc;
        at += (size_t)size;
    }
    return entry->sparse_half ? BAD("a sparse map is malformed") : 0;
}

int ls_entry_extension(struct ls_entry *entry, int type, const uint8_t *body, size_t length, const char **why) {
    if (type == 'x')
        return records(entry, body, length, why);
    if (type == 'g') /* global records: kept in the skeleton, not applied, as no peer applies them */
        return 0;
    const uint8_t *nul = memchr(body, 0, length);
    return ls_bytes_set(type == 'L' ? &entry->long_name : &entry->long_link, body, nul ? (size_t)(nul - body) : length);
}

/* --- the entry's own header --------------------------------------------------------------------------------------- */

static size_t text_length(const uint8_t *field, size_t length) {
    const uint8_t *nul = memchr(field, 0, length);
    return nul ? (size_t)(nul - field) : length;
}

static bool is_gnu(const uint8_t *block) {
    return !memcmp(block + MAGIC, "ustar  ", 8);
}

static int names(struct ls_entry *entry, const uint8_t *block) {
    bool posix = !memcmp(block + MAGIC, "ustar\0", 6);
    bool star = posix && !memcmp(block + STAR_TRAILER, "tar\0", 4);
    size_t prefix = posix ? text_length(block + PREFIX, star ? STAR_PREFIX_LENGTH : PREFIX_LENGTH) : 0;
    int rc = 0;
    entry->name.length = 0;
    if (entry->long_name.length)
        rc = ls_bytes_set(&entry->name, entry->long_name.data, entry->long_name.length);
    else if (entry->sparse_name.length)
        rc = ls_bytes_set(&entry->name, entry->sparse_name.data, entry->sparse_name.length);
    else if (entry->pax_name.length)
        rc = ls_bytes_set(&entry->name, entry->pax_name.data, entry->pax_name.length);
    else {
        if (prefix)
            rc = ls_bytes_add(&entry->name, block + PREFIX, prefix) ?: ls_bytes_add(&entry->name, "/", 1);
        rc = rc ?: ls_bytes_add(&entry->name, block + NAME, text_length(block + NAME, NAME_LENGTH));
    }
    if (rc)
        return rc;
    if (entry->long_link.length)
        return ls_bytes_set(&entry->link, entry->long_link.data, entry->long_link.length);
    if (entry->pax_link.length)
        return ls_bytes_set(&entry->link, entry->pax_link.data, entry->pax_link.length);
    return ls_bytes_set(&entry->link, block + LINK, text_length(block + LINK, NAME_LENGTH));
}

static int kind(struct ls_entry *entry, const uint8_t *block, const char **why) {
    switch (block[TYPE]) {
    case 0:
        entry->type = entry->name.length && entry->name.data[entry->name.length - 1] == '/' ? LS_DIRECTORY : LS_REGULAR;
        return 0;
    case '0':
    case '7':
    case 'S':
        entry->type = LS_REGULAR;
        return 0;
    case '1':
        entry->type = LS_HARD_LINK;
        return 0;
    case '2':
        entry->type = LS_SYMLINK;
        return 0;
    case '3':
        entry->type = LS_CHARACTER;
        return 0;
    case '4':
        entry->type = LS_BLOCK_DEVICE;
        return 0;
    case '5':
    case 'D':
        entry->type = LS_DIRECTORY;
        return 0;
    case '6':
        entry->type = LS_FIFO;
        return 0;
    case 'V':
        entry->type = LS_IGNORED;
        return 0;
    default:
        return BAD("an entry has a type that layers do not have");
    }
}

static int owner(int64_t value, uint32_t *id, const char **why) {
    if (value < 0 || value >= UINT32_MAX)
        return BAD("an owner's number is out of range");
    *id = (uint32_t)value;
    return 0;
}

static int gnu_extents(struct ls_entry *entry, const uint8_t *at, size_t count, const char **why) {
    for (; count && at[0]; count--, at += GNU_EXTENT_LENGTH) {
        int64_t offset, length;
        int rc = number(at, 12, &offset, why) ?: number(at + 12, 12, &length, why) ?: add_extent(entry, offset, length);
        if (rc)
            return rc;
    }
    return 0;
}

static int sparse_header(struct ls_entry *entry, const uint8_t *block, const char **why) {
    if (block[TYPE] == 'S') {
        if (!is_gnu(block))
            return BAD("a sparse entry is not in GNU format");
        entry->sparse = true;
        entry->extents.count = 0;
        entry->extents_continue = block[GNU_CONTINUES];
        return number(block + GNU_REAL_SIZE, 12, &entry->real_size, why)
                   ?: gnu_extents(entry, block + GNU_EXTENTS, 4, why);
    }
    if (entry->sparse_major == 1 && entry->sparse_minor == 0)
        entry->sparse = entry->extents_in_body = true;
    else if (entry->sparse_major == 0 && entry->sparse_minor <= 1 && entry->sparse_map_given)
        entry->sparse = true;
    else if (entry->sparse_major || entry->sparse_minor)
        return BAD("a sparse entry is of an unknown version");
    if (!entry->sparse)
        return 0;
    if (!entry->has_real_size)
        return BAD("a sparse entry does not give its size");
    entry->real_size = entry->pax_real_size;
    return 0;
}

int ls_entry_header(struct ls_entry *entry, const uint8_t *block, const char **why) {
    int64_t mode, uid = 0, gid = 0, major = 0, minor = 0;
    int rc = names(entry, block) ?: kind(entry, block, why);
    rc = rc ?: number(block + MODE, ID_LENGTH, &mode, why);
    if (!entry->has_uid)
        rc = rc ?: number(block + UID, ID_LENGTH, &uid, why);
    if (!entry->has_gid)
        rc = rc ?: number(block + GID, ID_LENGTH, &gid, why);
    rc = rc ?: owner(entry->has_uid ? entry->pax_uid : uid, &entry->uid, why);
    rc = rc ?: owner(entry->has_gid ? entry->pax_gid : gid, &entry->gid, why);
    rc = rc ?: number(block + SIZE, NUMBER_LENGTH, &entry->payload, why);
    rc = rc ?: number(block + MTIME, NUMBER_LENGTH, &entry->mtime, why);
    if (rc)
        return rc;
    entry->mode = (uint32_t)mode & 07777;
    if (entry->has_mtime)
        entry->mtime = entry->pax_mtime, entry->mtime_ns = entry->pax_mtime_ns;
    if (entry->has_size)
        entry->payload = entry->pax_size;
    if (entry->type == LS_CHARACTER || entry->type == LS_BLOCK_DEVICE) {
        rc = number(block + MAJOR, ID_LENGTH, &major, why) ?: number(block + MINOR, ID_LENGTH, &minor, why);
        if (rc)
            return rc;
        if (major < 0 || minor < 0 || major > 0xfff || minor > 0xfffff)
            return BAD("a device number is out of range");
        entry->major = (uint32_t)major, entry->minor = (uint32_t)minor;
    }
    if (entry->payload < 0 || entry->payload > INT64_MAX / 4)
        return BAD("an entry has an impossible size");
    /* these have no payload whatever their size says: GNU tar and Go's archive/tar agree, and so do all who write
     * layers */
    if (entry->type != LS_REGULAR && entry->type != LS_IGNORED && block[TYPE] != 'D')
        entry->payload = 0;
    entry->real_size = entry->payload;
    if (entry->type == LS_REGULAR && (rc = sparse_header(entry, block, why)))
        return rc;
    return ls_xattr_canonical(&entry->xattrs);
}

int ls_entry_more_extents(struct ls_entry *entry, const uint8_t *block, const char **why) {
    entry->extents_continue = block[GNU_MORE_CONTINUES];
    return gnu_extents(entry, block, 21, why);
}

/* The map of PAX 1.0: a count and that many pairs, a decimal number a line, padded to a block. */
int ls_entry_map(struct ls_entry *entry, const uint8_t *data, size_t length, size_t *used, const char **why) {
    while (!entry->map_counted || (int64_t)entry->extents.count < entry->map_count) {
        const uint8_t *line = memchr(data + entry->map_at, '\n', length - entry->map_at);
        if (!line)
            return 1;
        int64_t value;
        if (decimal(data + entry->map_at, (size_t)(line - data) - entry->map_at, &value) || value < 0)
            return BAD("a sparse map is malformed");
        entry->map_at = (size_t)(line - data) + 1;
        if (!entry->map_counted)
            entry->map_counted = true, entry->map_count = value, entry->extents.count = 0;
        else if (entry->map_half && add_extent(entry, entry->map_offset, value))
            return -ENOMEM;
        else {
            entry->map_half = !entry->map_half;
            entry->map_offset = value;
        }
    }
    *used = (entry->map_at + LS_BLOCK - 1) / LS_BLOCK * LS_BLOCK;
    return *used > length ? 1 : 0;
}

int ls_entry_check_sparse(struct ls_entry *entry, const char **why) {
    int64_t end = 0, sum = 0;
    size_t kept = 0;
    if (entry->real_size < 0 || entry->real_size > INT64_MAX / 4)
        return BAD("a sparse entry has an impossible size");
    for (size_t i = 0; i < entry->extents.count; i++) {
        struct ls_extent extent = entry->extents.list[i];
        if (extent.offset < end || extent.length < 0 || extent.length > entry->real_size ||
            extent.offset > entry->real_size - extent.length)
            return BAD("a sparse map does not fit its file");
        if (kept && extent.length && extent.offset == end)
            entry->extents.list[kept - 1].length += extent.length;
        else if (extent.length)
            entry->extents.list[kept++] = extent;
        end = extent.offset + extent.length;
        sum += extent.length;
    }
    entry->extents.count = kept;
    return sum == entry->payload ? 0 : BAD("a sparse map does not fit its payload");
}
