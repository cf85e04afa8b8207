/* Extended attributes in an erofs image: behind their inode, a head of 12 bytes and one entry for each, of 4 bytes, the name
 * without its prefix, and the value, filled up to 4 bytes. */
#define _GNU_SOURCE
#include "image.h"

#include "../kernel/files/acls.h"

#include <linux/limits.h>

enum { HEAD = 12, ENTRY = 4, MOST = UINT16_MAX * 4 };
enum { ACL_ACCESS = 2, ACL_DEFAULT = 3 };

static const char OVERLAY[] = "overlay.";

/* A name as it is stored. Overlay keeps names of its own (`trusted.overlay.x`), and gives out as such what is stored with the
 * middle twice (kernel: filesystems/overlayfs.rst, "Nested overlayfs mounts"). */
struct stored {
    uint8_t prefix;
    bool escaped;
    struct ls_text rest;
    const uint8_t *value;
    size_t size;
};

static bool take_prefix(const struct ls_xattr *xattr, struct stored *stored) {
    static const struct {
        const char *text;
        uint8_t number;
        bool whole;
    } PREFIXES[] = {
        {"user.", 1, false},
        {"system.posix_acl_access", ACL_ACCESS, true},
        {"system.posix_acl_default", ACL_DEFAULT, true},
        {"trusted.", 4, false},
        {"security.", 6, false},
    };
    for (size_t i = 0; i < sizeof PREFIXES / sizeof *PREFIXES; i++) {
        size_t length = strlen(PREFIXES[i].text);
        if (!ls_begins(xattr->name, xattr->name_length, PREFIXES[i].text) ||
            (xattr->name_length == length) != PREFIXES[i].whole)
            continue;
        *stored = (struct stored){
            .prefix = PREFIXES[i].number,
            .escaped = ls_begins(xattr->name, xattr->name_length, LS_OVERLAY_PREFIX),
            .rest = {(const uint8_t *)xattr->name + length, xattr->name_length - length},
            .value = xattr->value,
            .size = xattr->value_length,
        };
        return true;
    }
    return false;
}

static size_t name_length(const struct stored *stored) {
    return stored->rest.length + (stored->escaped ? strlen(OVERLAY) : 0);
}

static size_t size_of(const struct stored *stored) {
    return (size_t)ls_round_up((int64_t)(ENTRY + name_length(stored) + stored->size), 4);
}

/* 1: it is stored. 0: it is not, since it says nothing. -errno: the kernel would not take it. */
static int is_taken(const struct ls_xattr *xattr, const struct stored *stored, unsigned type, uint16_t *mode) {
    if (stored->prefix == ACL_ACCESS || stored->prefix == ACL_DEFAULT) {
        unsigned said = *mode;
        int taken = type == LS_SYMLINK ? -EOPNOTSUPP : ls_acl_take(xattr, type == LS_DIRECTORY, &said);
        *mode = (uint16_t)said;
        return taken;
    }
    bool capability =
        xattr->name_length == strlen(LS_CAPABILITY) && ls_begins(xattr->name, xattr->name_length, LS_CAPABILITY);
    return !capability || ls_capability_is_sound(xattr) ? 1 : -EINVAL;
}

int ls_xattrs_plan(struct ls_stack *stack, struct ls_inode *inode) {
    struct ls_reader reader = {inode->xattrs.data, inode->xattrs.data + inode->xattrs.length, false};
    struct ls_xattr xattr;
    struct stored stored;
    size_t size = HEAD;
    if (!inode->xattrs.length)
        return 0;
    while (reader.at < reader.end && ls_xattr_next(&reader, &xattr)) {
        if (!take_prefix(&xattr, &stored))
            return ls_stack_refuse(stack, inode, "an extended attribute is of a kind that erofs cannot have");
        if (xattr.name_length + name_length(&stored) - stored.rest.length > XATTR_NAME_MAX || stored.size > UINT16_MAX)
            return ls_stack_refuse(stack, inode, "an extended attribute is larger than erofs can have it");
        int taken = is_taken(&xattr, &stored, inode->type, &inode->mode);
        if (taken < 0) {
            ls_fail(&stack->failure, "setxattr", taken);
            return ls_stack_failed(stack, inode);
        }
        size += taken ? size_of(&stored) : 0;
        stack->facts.escaped |= stored.escaped;
        if (size > MOST)
            return ls_stack_refuse(stack, inode, "extended attributes are more than erofs can have of one file");
    }
    if (reader.bad)
        return ls_fail_as(&stack->failure, LS_FAIL_DAMAGED, EBADMSG, "a listing is damaged", "", 0);
    inode->xattrs_size = size > HEAD ? (uint32_t)size : 0;
    return 0;
}

static int write_one(struct ls_image *image, const struct stored *stored) {
    static const uint8_t ZEROS[4];
    uint8_t head[ENTRY] = {(uint8_t)name_length(stored), stored->prefix};
    ls_put_16(head + 2, (uint16_t)stored->size);
    int rc = ls_image_put(image, head, sizeof head);
    if (!rc && stored->escaped)
        rc = ls_image_put(image, OVERLAY, strlen(OVERLAY));
    rc = rc ?: ls_image_put(image, stored->rest.data, stored->rest.length);
    rc = rc ?: ls_image_put(image, stored->value, stored->size);
    return rc ?: ls_image_put(image, ZEROS, size_of(stored) - ENTRY - name_length(stored) - stored->size);
}

int ls_xattrs_write(struct ls_image *image, const struct ls_inode *inode) {
    static const uint8_t NOTHING[HEAD];
    struct ls_reader reader = {inode->xattrs.data, inode->xattrs.data + inode->xattrs.length, false};
    struct ls_xattr xattr;
    struct stored stored;
    if (!inode->xattrs_size)
        return 0;
    int rc = ls_image_put(image, NOTHING, sizeof NOTHING);
    uint16_t mode = inode->mode;
    while (!rc && reader.at < reader.end && ls_xattr_next(&reader, &xattr) && take_prefix(&xattr, &stored))
        rc = is_taken(&xattr, &stored, inode->type, &mode) ? write_one(image, &stored) : 0;
    return rc;
}
