/* See xattrs.h. */
#define _GNU_SOURCE
#include "xattrs.h"
#include "array.h"
#include "within.h"

#include <limits.h>
#include <linux/limits.h>
#include <stdio.h>
#include <sys/xattr.h>

/* The list of names (`name` NULL) or one value, whatever its size, in `*data`; both may change while they are read. */
static ssize_t grab(const char *path, const char *name, uint8_t **data) {
    for (;;) {
        ssize_t size = name ? getxattr(path, name, NULL, 0) : listxattr(path, NULL, 0);
        if (size < 0)
            return -errno;
        free(*data);
        *data = malloc((size_t)size + 1);
        if (!*data)
            return -ENOMEM;
        size = name ? getxattr(path, name, *data, (size_t)size + 1) : listxattr(path, (char *)*data, (size_t)size + 1);
        if (size >= 0 || errno != ERANGE)
            return size < 0 ? -errno : size;
    }
}

bool ls_xattr_travels(const char *name) {
    return strcmp(name, "security.selinux") && strcmp(name, "system.nfs4_acl") &&
           !ls_begins(name, strlen(name), "trusted.SGI_ACL_");
}

/* The name in a tar of a name on disk; NULL for what is the host's or the kernel's and no part of a layer. */
static const char *exported(const char *name, enum ls_xattr_form form, char plain[XATTR_NAME_MAX + 1]) {
    const char *prefix = ls_overlay_prefix(), *rest = name + strlen(prefix);
    if (!ls_xattr_travels(name))
        return NULL;
    if (form == LS_XATTRS_RAW)
        return name;
    if (form == LS_XATTRS_PLAIN || !ls_begins(name, strlen(name), prefix))
        return ls_xattr_shown(name);
    if (!ls_begins(rest, strlen(rest), "overlay."))
        return NULL;
    snprintf(plain, XATTR_NAME_MAX + 1, "%s%s", prefix, rest + strlen("overlay."));
    return plain;
}

/* A file capability of version 3 names the root of one host's user namespace: it travels as version 2, without it. */
ssize_t ls_xattr_portable(const char *name, uint8_t *value, ssize_t size) {
    if (strcmp(name, LS_CAPABILITY) || size != 24 || value[3] != 3)
        return size;
    value[3] = 2;
    return 20;
}

int ls_xattrs_read(int fd, enum ls_xattr_form form, struct ls_bytes *xattrs, struct ls_failure *failure) {
    char link[64], plain[XATTR_NAME_MAX + 1];
    LS_FREED uint8_t *list = NULL, *value = NULL;
    int rc = 0;
    xattrs->length = 0;
    /* by this way round, O_PATH descriptors of symlinks and devices serve too */
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = grab(link, NULL, &list);
    if (length < 0)
        return length == -EOPNOTSUPP ? 0 : ls_fail(failure, "listxattr", (int)length);
    for (ssize_t at = 0; !rc && at < length; at += (ssize_t)strlen((char *)list + at) + 1) {
        const char *name = (char *)list + at, *shown = exported(name, form, plain);
        ssize_t size = shown ? grab(link, name, &value) : -ENODATA;
        if (size == -ENODATA)
            continue;
        if (size < 0)
            return ls_fail(failure, "getxattr", (int)size);
        rc = ls_xattr_add(xattrs, shown, strlen(shown), value, (size_t)ls_xattr_portable(name, value, size));
    }
    rc = rc ?: ls_xattr_canonical(xattrs);
    return rc ? ls_fail(failure, "malloc", rc) : 0;
}

int ls_acls_drop(int fd, struct ls_failure *failure) {
    static const char *const NAMES[] = {"system.posix_acl_access", "system.posix_acl_default"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (fremovexattr(fd, NAMES[i]) && errno != ENODATA && errno != EOPNOTSUPP)
            return LS_FAIL(failure, "fremovexattr");
    return 0;
}

/* --- the list ----------------------------------------------------------------------------------------------------- */

int ls_xattr_add(struct ls_bytes *xattrs, const char *name, size_t name_length, const void *value,
                 size_t value_length) {
    int rc = ls_bytes_number(xattrs, name_length) ?: ls_bytes_number(xattrs, value_length);
    rc = rc ?: ls_bytes_add(xattrs, name, name_length);
    return rc ?: ls_bytes_add(xattrs, value, value_length);
}

bool ls_xattr_next(struct ls_reader *reader, struct ls_xattr *xattr) {
    if (reader->at >= reader->end)
        return false;
    xattr->name_length = ls_read_number(reader);
    xattr->value_length = ls_read_number(reader);
    xattr->name = (const char *)ls_read_bytes(reader, xattr->name_length);
    xattr->value = ls_read_bytes(reader, xattr->value_length);
    return !reader->bad;
}

struct placed {
    struct ls_xattr xattr;
    size_t place;
};

struct all {
    LS_ARRAY(struct placed);
};

static int by_name(const void *a, const void *b) {
    const struct placed *x = a, *y = b;
    size_t common = x->xattr.name_length < y->xattr.name_length ? x->xattr.name_length : y->xattr.name_length;
    int order = memcmp(x->xattr.name, y->xattr.name, common);
    if (order == 0 && x->xattr.name_length != y->xattr.name_length)
        order = x->xattr.name_length < y->xattr.name_length ? -1 : 1;
    return order ? order : x->place < y->place ? -1 : 1;
}

int ls_xattr_canonical(struct ls_bytes *xattrs) {
    struct ls_reader reader = {xattrs->data, xattrs->data + xattrs->length, false};
    LS_ARRAY_FREED struct all all = {0};
    struct ls_xattr xattr;
    int rc = 0;
    while (!rc && ls_xattr_next(&reader, &xattr))
        rc = ls_array_add(&all, (struct placed){xattr, all.count});
    if (rc || all.count < 2)
        return rc;
    LS_BYTES_FREED struct ls_bytes sorted = {0};
    ls_array_sort(&all, by_name);
    for (size_t i = 0; !rc && i < all.count; i++) {
        const struct ls_xattr *one = &all.list[i].xattr, *next = i + 1 < all.count ? &all.list[i + 1].xattr : NULL;
        if (next && next->name_length == one->name_length && !memcmp(next->name, one->name, one->name_length))
            continue; /* the later record of the same name counts */
        rc = ls_xattr_add(&sorted, one->name, one->name_length, one->value, one->value_length);
    }
    if (!rc) { /* the two change places, and the old ones are freed */
        struct ls_bytes old = *xattrs;
        *xattrs = sorted;
        sorted = old;
    }
    return rc;
}
