/* See acls.h. Linux: fs/posix_acl.c and security/commoncap.c. */
#define _GNU_SOURCE
#include "acls.h"

#include <stddef.h>

enum { ACL_HEAD = 4, ACL_ENTRY = 8, ACL_VERSION = 2 };
enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };
enum { CAPABILITY_2_SIZE = 20, CAPABILITY_3_SIZE = 24 };

static uint32_t number(const uint8_t *at, unsigned bytes) {
    uint32_t value = 0;
    while (bytes--)
        value = value << 8 | at[bytes];
    return value;
}

/* Are all tags known, and all who are named somebody? */
static bool are_entries(const uint8_t *entry, const uint8_t *end) {
    for (; entry < end; entry += ACL_ENTRY) {
        unsigned tag = number(entry, 2);
        bool named = tag == USER || tag == GROUP;
        if (!tag || tag > OTHER || tag & (tag - 1) || (named && number(entry + 4, 4) == UINT32_MAX))
            return false;
    }
    return true;
}

/* Which tag may come after which, and whether there is a mask where one is needed. */
static bool is_in_order(const uint8_t *entry, const uint8_t *end) {
    unsigned wanted = USER_OBJ;
    bool needs_mask = false;
    for (; entry < end; entry += ACL_ENTRY) {
        unsigned tag = number(entry, 2);
        bool named = tag == USER || tag == GROUP;
        if (number(entry + 2, 2) > 7)
            return false;
        needs_mask |= named;
        if (tag == USER_OBJ && wanted == USER_OBJ)
            wanted = USER;
        else if (tag == GROUP_OBJ && wanted == USER)
            wanted = GROUP;
        else if (tag == MASK && wanted == GROUP)
            wanted = OTHER;
        else if (tag == OTHER && (wanted == OTHER || (wanted == GROUP && !needs_mask)))
            wanted = 0;
        else if (!named || tag != wanted)
            return false;
    }
    return !wanted;
}

/* The bits of the mode that the list is about become what it says. Is there more in it than a mode has? */
static bool take_mode(const uint8_t *entry, const uint8_t *end, unsigned *mode) {
    unsigned bits[OTHER + 1] = {0};
    bool more = false;
    for (; entry < end; entry += ACL_ENTRY) {
        unsigned tag = number(entry, 2);
        bits[tag] = number(entry + 2, 2);
        more |= tag == USER || tag == GROUP || tag == MASK;
        if (tag == MASK)
            bits[GROUP_OBJ] = bits[MASK];
    }
    *mode = (*mode & ~0777u) | bits[USER_OBJ] << 6 | bits[GROUP_OBJ] << 3 | bits[OTHER];
    return more;
}

enum ls_acl ls_acl_of(const struct ls_xattr *xattr) {
    static const char PREFIX[] = "system.posix_acl_";
    size_t prefix = sizeof PREFIX - 1, rest = xattr->name_length - prefix;
    if (xattr->name_length < prefix || memcmp(xattr->name, PREFIX, prefix))
        return LS_ACL_NONE;
    if (rest == 6 && !memcmp(xattr->name + prefix, "access", rest))
        return LS_ACL_ACCESS;
    return rest == 7 && !memcmp(xattr->name + prefix, "default", rest) ? LS_ACL_DEFAULT : LS_ACL_NONE;
}

int ls_acl_take(const struct ls_xattr *xattr, bool directory, unsigned *mode) {
    const uint8_t *entries = xattr->value + ACL_HEAD, *end = xattr->value + xattr->value_length;
    bool of_access = ls_acl_of(xattr) == LS_ACL_ACCESS;
    if (!xattr->value_length)
        return 0;
    if (xattr->value_length < ACL_HEAD)
        return -EINVAL;
    if (number(xattr->value, ACL_HEAD) != ACL_VERSION)
        return -EOPNOTSUPP;
    if ((xattr->value_length - ACL_HEAD) % ACL_ENTRY || !are_entries(entries, end))
        return -EINVAL;
    if (entries == end)
        return 0;
    if (!of_access && !directory)
        return -EACCES;
    if (!is_in_order(entries, end))
        return -EINVAL;
    return !of_access || take_mode(entries, end, mode);
}

bool ls_capability_is_sound(const struct ls_xattr *xattr) {
    size_t size = xattr->value_length;
    if (size != CAPABILITY_2_SIZE && size != CAPABILITY_3_SIZE)
        return false;
    uint32_t revision = number(xattr->value, 4) & ~1u; /* the last bit is a flag */
    return revision == (size == CAPABILITY_2_SIZE ? 2u : 3u) << 24;
}
