/* What the kernel asks of access control lists and of file capabilities when they are set, and what it keeps of them. Nobody
 * sets those of an index, where a wrong one would first be met by who opens the file; and whoever is to tell what a file will
 * look like has to know which mode a list leaves. */
#ifndef LS_ACLS_H
#define LS_ACLS_H
#include "xattrs.h"

enum ls_acl {
    LS_ACL_NONE, /* it is another xattr */
    LS_ACL_ACCESS,
    LS_ACL_DEFAULT,
};
enum ls_acl ls_acl_of(const struct ls_xattr *xattr);
/* Of what is no symlink, which has none. Is an access control list kept (1), or none, since the mode says as much (0)? -errno
 * is what setting it would be answered. The mode becomes what a list of access says. */
int ls_acl_take(const struct ls_xattr *xattr, bool directory, unsigned *mode);
bool ls_capability_is_sound(const struct ls_xattr *xattr);
#endif
