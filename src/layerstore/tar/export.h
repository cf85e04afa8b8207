/* A skeleton and its files become the tar they came from, bit for bit. See unpack.h for how it fails. */
#ifndef LS_EXPORT_H
#define LS_EXPORT_H
#include "../kernel/files/failure.h"

#include <stddef.h>
#include <stdint.h>

struct ls_export;

/* `tree`: directory fd of the layer's files. `shadow`: of its shadow folder. Each is -1 where there is none. The index
 * must outlive the exporter. */
struct ls_export *ls_export_new(int tree, int shadow, const uint8_t *index, size_t length);
void ls_export_free(struct ls_export *export_);
/* A piece of the skeleton's stream. It is copied. */
int ls_export_feed(struct ls_export *export_, const uint8_t *data, size_t length);
/* The next bytes of the tar; 0: feed more, or nothing if there is no more; -errno. */
int64_t ls_export_read(struct ls_export *export_, uint8_t *buffer, size_t room);
/* After the last piece: 0 if all payloads have been given, and the stream does not end within a token; else -errno. */
int ls_export_finish(struct ls_export *export_);
void ls_export_failure(struct ls_export *export_, struct ls_failure *failure);
#endif
