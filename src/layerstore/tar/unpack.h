/* A layer's tar becomes files. Python feeds chunks and lends threads; all that is done per file is done in C.
 *
 * Each function returns 0 (or more) or -errno, as all C of layerstore does, and the job tells its failure. A
 * constructor returns NULL for one reason only: there is no memory for the job itself. Packing, exporting and verifying
 * do the same. */
#ifndef LS_UNPACK_H
#define LS_UNPACK_H
#include "../kernel/files/failure.h"

#include <stddef.h>
#include <stdint.h>

#define LS_CHUNK 262144

#define LS_DIALECT_OVERLAY 1
#define LS_DIALECT_AUFS 2
#define LS_DIALECT_MERGED 3

/* As the tree: nothing is made on a disk. What the files would be is told by the index, which then ends with their places
 * in the tar: see index.h. The skeleton has no stream then. */
#define LS_NO_TREE -1

#define LS_BELOW_UNKNOWN -1
#define LS_BELOW_NOTHING -2

/* The path of a failure is one within the layer, without a slash before it, or an absolute one of the host. */

struct ls_unpack;

struct ls_unpack_result {
    int64_t entries;
    int64_t files;
    int64_t bytes;
    int root_opaque;
    int needs_parents;
    int64_t met; /* after a failure of kind LS_FAIL_LIMIT: what is more than the limit */
};

/* What one layer may have at most. `entries`: those of the tar, or the names that they make, if these are more.
 * `header`: bytes of the extension headers of one entry, or of its sparse map. `memory`: bytes that have to be remembered
 * of the layer until its end. */
struct ls_unpack_limits {
    int64_t entries, header, memory;
};

/* `tree`: directory to fill, or LS_NO_TREE. `below`: root of the parents' merged tree, or one of the above. `shadow`: path of a folder
 * that is made only when the tar overwrites its own entries. */
struct ls_unpack *ls_unpack_new(int tree, int below, int dialect, const char *shadow);
/* Before anything is fed; without it there are no limits. */
void ls_unpack_limit(struct ls_unpack *unpack, const struct ls_unpack_limits *limits);
/* Without a tree: what is fed is written to `tar` too, by a writer, which there has to be then. `path` is where it lies, for a
 * failure. -ENOMEM. */
int ls_unpack_keep(struct ls_unpack *unpack, int tar, const char *path);
/* Without a tree: the skeleton has a stream, though the tar stays. */
void ls_unpack_stream(struct ls_unpack *unpack);
/* Looks at the parents' root and makes the directory ready; comes before all else. */
int ls_unpack_begin(struct ls_unpack *unpack);
void ls_unpack_free(struct ls_unpack *unpack);

/* A writer: returns when all is done, or after a failure. Runs in a thread of its own, whose umask it clears. */
int ls_unpack_write_files(struct ls_unpack *unpack);

/* The reader: fill the chunk (LS_CHUNK bytes; less only at the end of the stream; NULL after a failure), then feed
 * it. */
uint8_t *ls_unpack_chunk(struct ls_unpack *unpack);
int ls_unpack_feed(struct ls_unpack *unpack, size_t length, int last);
/* How many of the bytes that come next are a file's: in a listing nothing but its hash depends on them. */
int64_t ls_unpack_awaited(const struct ls_unpack *unpack);
/* After the last chunk: waits for the writers, then links, whiteouts and directories. */
int ls_unpack_finish(struct ls_unpack *unpack);
/* Ends the writers without finishing, from any thread. */
void ls_unpack_stop(struct ls_unpack *unpack);

/* What the skeleton holds so far; taken by copying it and calling ls_unpack_taken. */
size_t ls_unpack_skeleton(struct ls_unpack *unpack, const uint8_t **data);
void ls_unpack_taken(struct ls_unpack *unpack);
/* After finish: the index, the implied directories (each ends with NUL; with a slash before it when it holds nothing
 * but whiteouts, with two when a later entry made it something else) and the notices (kind, path, each ends with
 * NUL). */
size_t ls_unpack_index(struct ls_unpack *unpack, const uint8_t **data);
size_t ls_unpack_implied(struct ls_unpack *unpack, const uint8_t **data);
size_t ls_unpack_notices(struct ls_unpack *unpack, const uint8_t **data);
void ls_unpack_facts(struct ls_unpack *unpack, struct ls_unpack_result *result);
void ls_unpack_failure(struct ls_unpack *unpack, struct ls_failure *failure);
#endif
