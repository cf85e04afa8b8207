/* See namespaces.h. */
#define _GNU_SOURCE
#include "namespaces.h"
#include "../files/within.h"

#include <errno.h>
#include <sched.h>

int ls_new_namespaces(void) {
    ls_within_forget();
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) ? -errno : 0;
}

int ls_enter_namespaces(int user, int mounts) {
    int rc = setns(user, CLONE_NEWUSER) || setns(mounts, CLONE_NEWNS) ? -errno : 0;
    ls_within_forget();
    return rc;
}

int ls_within(void) {
    return ls_is_within();
}
