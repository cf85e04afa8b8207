/* Is everything of a layer there, whole, and nothing else? */

/* Each level does what those before it do. */
#define LS_VERIFY_SIZES 0
#define LS_VERIFY_ATTRIBUTES 1
#define LS_VERIFY_CONTENT 2

struct ls_verify;

/* SIZES: type, size and time of each file. ATTRIBUTES: mode, owner, xattrs, links, marks, and nothing that is not in the
 * index. CONTENT: every byte. The index must outlive the verifier. NULL: no memory. */
struct ls_verify *ls_verify_new(int tree, int dialect, int level, const uint8_t *index, size_t length);
void ls_verify_free(struct ls_verify *verify);
/* 1: something is damaged, `path` and `what` say where and how until the next call. 0: the end. -1: a failure, in the same words. */
int ls_verify_next(struct ls_verify *verify, const char **path, const char **what, int *code);
