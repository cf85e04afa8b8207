/* See failure.h. */
#define _GNU_SOURCE
#include "failure.h"

#include <stdio.h>
#include <string.h>

static void name_place(struct ls_failure *failure, const char *path, size_t length) {
    size_t most = sizeof failure->path - 1, left_out = length > most ? length - most : 0;
    if (length)
        memcpy(failure->path, path + left_out, length - left_out);
    failure->path[length - left_out] = 0;
}

int ls_fail(struct ls_failure *failure, const char *call, int code) {
    if (failure) {
        failure->kind = LS_FAIL_SYSTEM;
        failure->code = -code;
        failure->what = call;
        failure->path[0] = 0;
    }
    return code;
}

int ls_fail_at(struct ls_failure *failure, const char *path) {
    if (!failure->path[0]) {
        name_place(failure, path, strlen(path));
    }
    return -failure->code;
}

int ls_fail_in(struct ls_failure *failure, const char *folder, const char *name) {
    if (!failure->path[0])
        snprintf(failure->path, sizeof failure->path, "%s%s%s", folder, *folder ? "/" : "", name);
    return -failure->code;
}

int ls_fail_as(struct ls_failure *failure, int kind, int code, const char *what, const void *path, size_t length) {
    failure->kind = kind;
    failure->code = code;
    failure->what = what;
    name_place(failure, path, length);
    return -code;
}

void ls_failure_keep(struct ls_failure *first, const struct ls_failure *later) {
    if (!first->code)
        *first = *later;
}
