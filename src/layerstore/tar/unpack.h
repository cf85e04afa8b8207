/* A layer's tar becomes files. Python feeds chunks and lends threads; all that is done per file is done in C. */
#include "../kernel/files/failure.h"

#define LS_CHUNK 262144

#define LS_DIALECT_OVERLAY 1
#define LS_DIALECT_AUFS 2
#define LS_DIALECT_MERGED 3

#define LS_BELOW_UNKNOWN -1
#define LS_BELOW_NOTHING -2

#define LS_FAIL_ARCHIVE 1
#define LS_FAIL_DIALECT 4

struct ls_unpack;

struct ls_unpack_result {
    int64_t entries;
    int64_t files;
    int64_t bytes;
    int root_opaque;
    int needs_parents;
};

/* `tree`: directory to fill. `below`: root of the parents' merged tree, or one of the above. `shadow`: path of a folder that is made
 * only when the tar overwrites its own entries. NULL: no memory. */
struct ls_unpack *ls_unpack_new(int tree, int below, int dialect, const char *shadow);
void ls_unpack_free(struct ls_unpack *unpack);

/* A writer: returns when all is done, or after a failure. Runs in a thread of its own, whose umask it clears. */
int ls_unpack_write_files(struct ls_unpack *unpack);

/* The reader: fill the chunk (LS_CHUNK bytes; less only at the end of the stream), then feed it. 0, or -1 after a failure. */
uint8_t *ls_unpack_chunk(struct ls_unpack *unpack);
int ls_unpack_feed(struct ls_unpack *unpack, size_t length, int last);
/* After the last chunk: waits for the writers, then links, whiteouts and directories. 0 or -1. */
int ls_unpack_finish(struct ls_unpack *unpack);
/* Ends the writers without finishing, from any thread. */
void ls_unpack_stop(struct ls_unpack *unpack);

/* What the skeleton holds so far; taken by copying it and calling ls_unpack_taken. */
size_t ls_unpack_skeleton(struct ls_unpack *unpack, const uint8_t **data);
void ls_unpack_taken(struct ls_unpack *unpack);
/* After finish: the index, the implied directories (each ends with NUL; with a slash before it when it holds nothing
 * but whiteouts, with two when a later entry made it something else) and the notices (kind, path, each ends with NUL). */
size_t ls_unpack_index(struct ls_unpack *unpack, const uint8_t **data);
size_t ls_unpack_implied(struct ls_unpack *unpack, const uint8_t **data);
size_t ls_unpack_notices(struct ls_unpack *unpack, const uint8_t **data);
void ls_unpack_facts(struct ls_unpack *unpack, struct ls_unpack_result *result);
void ls_unpack_failure(struct ls_unpack *unpack, struct ls_failure *failure);
