/* Any bytes as what was done to three trees: the changes between them are found in each way, without a mount, since what the
 * kernel would show is a matter of properties elsewhere. Here the trees need not belong together: the finder may find
 * anything, but must look at nothing that is not there. */
#include "fuzz.h"
#include "changes/changes.h"

#include <sys/xattr.h>

enum { NAMES = 5, MOST = 64 };

static const char *const names[NAMES] = {"a", "b", ".wh.a", ".wh..wh..opq", "c"};
static const char *const xattrs[] = {"trusted.overlay.opaque", "user.fuseoverlayfs.opaque", "trusted.overlay.redirect",
                                     "user.x", "trusted.overlay.origin"};

/* One thing is done to the tree; what cannot be done is not. */
static void edit(int tree, struct input *input) {
    uint8_t what = input_byte(input), where = input_byte(input), more = input_byte(input);
    char path[32];
    int depth = 1 + what % 3, at = 0;
    for (int i = 0; i < depth; i++, where /= NAMES)
        at += snprintf(path + at, sizeof path - (size_t)at, "%s%s", i ? "/" : "", names[where % NAMES]);
    int fd = -1;
    switch (what / 3 % 10) {
    case 0:
        fd = openat(tree, path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600 | (more & 077));
        if (fd >= 0 && write(fd, "0123456789abcdef", more & 15) < 0)
            errno = 0;
        break;
    case 1:
        mkdirat(tree, path, 0700 | (more & 077));
        break;
    case 2:
        symlinkat(names[more % NAMES], tree, path);
        break;
    case 3:
        mknodat(tree, path, S_IFCHR | 0600, more & 3 ? 0 : 5);
        break;
    case 4:
        mknodat(tree, path, (more & 1 ? S_IFIFO : S_IFSOCK) | 0600, 0);
        break;
    case 5:
        linkat(tree, names[more % NAMES], tree, path, 0);
        break;
    case 6:
        fchmodat(tree, path, more * 16u & 07777u, 0);
        break;
    case 7:
        fchownat(tree, path, more, more & 3, AT_SYMLINK_NOFOLLOW);
        break;
    case 8:
        unlinkat(tree, path, more & 1 ? AT_REMOVEDIR : 0);
        break;
    default:
        fd = openat(tree, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && fsetxattr(fd, xattrs[more % 5], more & 64 ? "/a" : "y", more & 64 ? 2 : 1, 0))
            errno = 0;
    }
    if (fd >= 0)
        close(fd);
}

static void read_list(struct ls_changes *changes, const uint8_t **list, size_t *length) {
    *length = ls_changes_list(changes, list);
    const char *before = NULL;
    for (const char *at = (const char *)*list, *end = at + *length; at < end; at += strlen(at) + 1) {
        must(strchr("ACD", *at) && memchr(at, 0, (size_t)(end - at)));
        must(!before || strcmp(before + 1, at + 1) < 0);
        before = at;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    int trees[] = {fresh("upper"), fresh("merged"), fresh("lower"), fresh("target")};
    int marks = 1 + input_byte(&input) % 3;
    uint8_t how = input_byte(&input);
    for (int n = 0; n < MOST && input_left(&input) >= 4; n++) {
        uint8_t which = input_byte(&input) % 4;
        struct input same = input;
        edit(trees[which % 3], &input);
        if (which == 3) /* alike in two of them */
            edit(trees[1 + (how & 1)], &same);
    }
    struct ls_failure failure = {0};
    const uint8_t *list;
    size_t length;
    struct ls_changes *changes = ls_changes_new(), *others = ls_changes_new();
    must(changes && others);
    int rc = ls_changes_of_upper(changes, trees[0], trees[1], how & 2 ? -1 : trees[2], marks);
    if (!rc) {
        read_list(changes, &list, &length);
        ls_changes_write(list, length, trees[1], trees[3], &failure);
        if (ls_changes_can_be_exact(changes))
            ls_changes_make_exact(changes);
    }
    rc = how & 4 ? ls_changes_of_copy(others, trees[1], trees[2], input.at, input_left(&input))
                 : ls_changes_of_trees(others, trees[1], how & 8 ? -1 : trees[2], how & 16);
    if (!rc) {
        read_list(others, &list, &length);
        ls_changes_clamp(list, length, trees[1], how, 0, &failure);
    }
    ls_changes_free(changes);
    ls_changes_free(others);
    for (int i = 0; i < 4; i++)
        close(trees[i]);
    return 0;
}
