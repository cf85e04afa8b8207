/* What the parts of unpacking share: the reader (stream.c, place.c and what place.c calls), the writers (write.c), the
 * end (finish.c). Each part's functions stand below its name, and use those of the parts above it.
 *
 * Each returns 0 (or more) or -errno, as all C of layerstore does. A failure is told once, where its place in the tar
 * or the layer is known: ls_fail_* and ls_failed_* note it as the failure of the whole, and end the queue with it. */
#ifndef LS_ENGINE_H
#define LS_ENGINE_H
#include "disk.h"
#include "index.h"
#include "queue.h"
#include "unpack.h"
#include "xxh64.h"

#include "../kernel/files/array.h"
#include "../kernel/files/marks.h"
#include "../kernel/files/scope.h"

#include <sys/stat.h>

struct ls_payload {
    int64_t size;
    struct ls_node *node; /* where it lies in the tree; NULL when it lies in the shadow folder */
    int64_t shadow;
    int64_t place; /* in the tar */
    uint64_t content;
    struct ls_extent *extents;
    size_t extents_count;
};

struct ls_link {
    struct ls_node *node, *target; /* target NULL: not found yet */
    char *wanted;
    bool made, waiting;
    int64_t before; /* the link that waits for this one, or -1 */
    int64_t older; /* the one before it with the same target, or -1 */
};

enum ls_state { LS_AT_HEADER, LS_IN_EXTENSION, LS_IN_EXTENTS, LS_IN_MAP, LS_IN_PAYLOAD, LS_IN_RAW, LS_AT_END };

struct ls_unpack {
    struct ls_disk disk;
    int below, shadow, shadow_apart; /* apart: the shadow folder's place, while it is within the tree; else -1 */
    char *shadow_path, shadow_inside[32];
    struct ls_queue queue;
    struct ls_model model;

    /* the reader's place in the tar */
    enum ls_state state;
    struct ls_entry entry;
    struct ls_bytes body; /* of an extension header or a sparse map */
    int extension;
    int64_t body_size, headers_size, remaining, padding; /* headers_size: of all extension headers of the entry */
    bool zero_block, in_entry;
    struct ls_chunk *chunk;
    struct ls_job *job;
    int64_t chunk_at, entry_end; /* in the tar: where the chunk begins, and where the entry's payload does */
    struct ls_node *listed; /* without a tree: the file whose payload passes, and is hashed */
    struct ls_node *padded; /* and whose payload has just passed */
    struct ls_xxh64 hash;
    bool streamed; /* and the skeleton has a stream all the same */
    struct ls_job *kept; /* and the tar itself, on its way to a file */
    bool kept_given; /* to the queue, whose it is from then on */
    int tar;
    char *tar_path;
    struct ls_parts parts, link_parts;
    int symlinks; /* followed for the name in hand */
    struct ls_node *link_folder; /* where the last hard link's words lead, NULL: nowhere */
    struct ls_part link_name;

    struct ls_cursor here, there;
    unsigned generation; /* counts removals: what a cursor holds may be gone */
    struct {
        LS_ARRAY(struct ls_payload);
    } payloads;
    struct {
        LS_ARRAY(struct ls_link);
    } links;
    size_t links_made;
    int64_t shadow_count;

    struct ls_bytes raw, stream, index, implied, notices;
    struct ls_unpack_limits limits;
    int64_t remembered; /* bytes, beside those of the arrays and texts above */
    struct ls_unpack_result result;
    struct ls_failure said; /* what the reader's last call told that failed */
    struct ls_failure failure; /* the first of all threads; under the queue's lock */
};

/* --- unpack.c */

int ls_fail_archive(struct ls_unpack *unpack, const char *sentence, const void *path, size_t length);
int ls_fail_dialect(struct ls_unpack *unpack, const char *sentence, const struct ls_node *node);
int ls_fail_system(struct ls_unpack *unpack, int code, const char *call, const struct ls_node *node);
int ls_fail_memory(struct ls_unpack *unpack);
/* At the entry in hand, of which there is more than the setting allows. */
int ls_fail_limit(struct ls_unpack *unpack, const char *setting, int64_t met);
/* Does what is remembered of the layer keep to its limits, with so many bytes more? */
int ls_keep_limits(struct ls_unpack *unpack, int64_t more);
/* At the entry in hand. */
int ls_fail_entry(struct ls_unpack *unpack, const char *sentence);
/* The same by what reading it returned: -EBADMSG with a sentence, or -ENOMEM. */
int ls_fail_reading(struct ls_unpack *unpack, int rc, const char *sentence);
/* A call has failed at this node: the one that is told in `failure`, or the reader's last one, which is in `said`. */
int ls_note(struct ls_unpack *unpack, struct ls_failure *failure, const struct ls_node *node);
int ls_failed_at(struct ls_unpack *unpack, const struct ls_node *node);
/* The same at a path of the host, not of the layer. */
int ls_failed_outside(struct ls_unpack *unpack, const char *path);
/* 0, or the code of a failure that some thread has noted. */
int ls_failed(struct ls_unpack *unpack);
int ls_notice(struct ls_unpack *unpack, const char *kind, const struct ls_node *node);

/* Is nothing made on a disk? */
static inline bool ls_is_listed(const struct ls_unpack *unpack) {
    return unpack->disk.tree == LS_NO_TREE;
}
/* Has this layer made something of the name? */
static inline bool ls_is_own(const struct ls_node *node) {
    return node->type && node->flags & (LS_STATED | LS_IMPLIED | LS_OPAQUE | LS_FILLED);
}
void ls_default_folder(struct ls_node *node);
void ls_mark_filled(struct ls_node *folder);
/* A descriptor of the directory, which the cursor keeps; a failure is in `said`. */
int ls_folder(struct ls_unpack *unpack, struct ls_cursor *cursor, const struct ls_node *folder);
/* Makes the directory and those above it, where they are not on disk yet. */
int ls_make_folders(struct ls_unpack *unpack, struct ls_node *folder);

/* --- listing.c */

/* The chunk in hand, all that was fed, is the next piece of the tar that is kept. */
int ls_keep_chunk(struct ls_unpack *unpack, size_t length, bool last);
/* A writer's part of that. */
int ls_keep_tar(struct ls_unpack *unpack, struct ls_job *job, struct ls_failure *failure);

/* Without a tree, a file of the entry in hand; then the data of its payload, as they pass. */
void ls_list_file(struct ls_unpack *unpack, struct ls_node *node);
void ls_list_data(struct ls_unpack *unpack, const uint8_t *data, size_t length);
/* And what fills up its last block. */
void ls_list_padding(struct ls_unpack *unpack, const uint8_t *data, size_t length);
/* What the parents have at `fd`, a file, under this path: its data are these. */
int ls_list_below(struct ls_unpack *unpack, struct ls_node *node, int fd, const struct ls_node *folder,
                  struct ls_part name);
/* Where in the tar everything lies: the end of the index. */
int ls_list_places(const struct ls_unpack *unpack, struct ls_bytes *out);

/* --- shadow.c */

int ls_shadow_folder(struct ls_unpack *unpack);
int ls_shadow_settle(struct ls_unpack *unpack);

/* --- resolve.c */

enum ls_purpose { LS_FOR_FILE, LS_FOR_OPAQUE, LS_FOR_WHITEOUT, LS_TO_LOOK };

/* An O_PATH descriptor of what the parents have under this name, and its facts. -ENOENT: they have nothing, or nothing
 * that shows here. Any other failure is noted, at `node`. */
int ls_open_below(struct ls_unpack *unpack, const struct ls_node *folder, struct ls_part name, struct stat *facts,
                  const struct ls_node *node);
/* What the parents have under this name: 0 for nothing, else LS_DIRECTORY, LS_SYMLINK, or LS_REGULAR for all other
 * files. The node then describes the directory or the symlink. */
int ls_look_below(struct ls_unpack *unpack, struct ls_node *node);
/* The name as part of the layer. NULL after a failure. */
struct ls_node *ls_child(struct ls_unpack *unpack, struct ls_node *folder, struct ls_part name);
/* The directory that these components lead to. NULL without a failure: nothing is there, and nothing has to be. */
struct ls_node *ls_walk(struct ls_unpack *unpack, struct ls_node *from, const struct ls_part *part, size_t count,
                        enum ls_purpose purpose);
/* The node that the words of a hard link mean, which may be a link itself, or NULL. `wrong`: they can mean no file. */
struct ls_node *ls_find_name(struct ls_unpack *unpack, const char *wanted, bool *wrong);

/* --- link.c */

/* What the entry in hand, a hard link, would make of the node: 0 and its target, NULL for one that is not there yet; 1: it
 * is that already, and nothing is to be done. For a link that is to be made, ls_make_way and ls_place_link follow. */
int ls_link_target(struct ls_unpack *unpack, const struct ls_node *node, struct ls_node **target);
int ls_place_link(struct ls_unpack *unpack, struct ls_node *node, struct ls_node *target);
/* All jobs are done and all links made that can be. */
int ls_settle_jobs(struct ls_unpack *unpack);
int ls_finish_links(struct ls_unpack *unpack);

/* --- replace.c */

/* Makes the name free: of what an earlier entry made, and of all that was said of names below it. */
int ls_make_way(struct ls_unpack *unpack, struct ls_node *top);
int ls_place_whiteout(struct ls_unpack *unpack, struct ls_node *folder, struct ls_part name);
int ls_place_opaque(struct ls_unpack *unpack, struct ls_node *folder);

/* --- place.c */

/* One entry whose headers are complete. Leaves a job for its payload, or none: then the payload is kept in the
 * skeleton. */
int ls_place(struct ls_unpack *unpack);
#endif
