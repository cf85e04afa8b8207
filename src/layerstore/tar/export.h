/* A skeleton and its files become the tar they came from, bit for bit. */

#define LS_FAIL_DAMAGED 3

struct ls_export;

/* `tree`: directory fd of the layer's files. `shadow`: of its shadow folder, or -1. The index must outlive the exporter.
 * NULL: no memory. */
struct ls_export *ls_export_new(int tree, int shadow, const uint8_t *index, size_t length);
void ls_export_free(struct ls_export *export_);
/* A piece of the skeleton's stream. It is copied. */
int ls_export_feed(struct ls_export *export_, const uint8_t *data, size_t length);
/* The next bytes of the tar; 0: feed more, -1: a failure. */
int64_t ls_export_read(struct ls_export *export_, uint8_t *buffer, size_t room);
/* 1: all payloads have been given, and the stream does not end within a token. */
int ls_export_complete(struct ls_export *export_);
void ls_export_failure(struct ls_export *export_, struct ls_failure *failure);
