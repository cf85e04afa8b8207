/* What the reader (unpack.c), the writers (write.c) and the end (finish.c) of unpacking share. */
#ifndef LS_ENGINE_H
#define LS_ENGINE_H
#include "disk.h"
#include "index.h"
#include "queue.h"
#include "unpack.h"

struct ls_payload {
    int64_t size;
    struct ls_node *node; /* where it lies in the tree; NULL when it lies in the shadow folder */
    int64_t shadow;
    uint64_t content;
    struct ls_extent *extents;
    size_t extents_count;
};

struct ls_link {
    struct ls_node *node, *target; /* target NULL: not found yet */
    char *wanted;
    bool made, waiting;
    int64_t before; /* the link that waits for this one, or -1 */
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
    int64_t body_size, remaining, padding;
    bool zero_block, in_entry;
    struct ls_chunk *chunk;
    struct ls_job *job;
    struct ls_parts parts, link_parts;
    int symlinks; /* followed for the name in hand */
    struct ls_node *link_folder; /* where the last hard link's words lead, NULL: nowhere */
    struct ls_part link_name;

    struct ls_cursor here, there;
    unsigned generation; /* counts removals: what a cursor holds may be gone */
    struct ls_payload *payloads;
    size_t payload_count, payload_room;
    struct ls_link *links;
    size_t link_count, link_room, links_made;
    int64_t shadow_count;

    struct ls_bytes raw, stream, index, implied, notices;
    struct ls_unpack_result result;
    struct ls_failure failure;
    struct ls_bytes failed_path;
};

/* The first failure counts; the queue ends with it. Each returns -1. */
int ls_fail_archive(struct ls_unpack *unpack, const char *sentence, const void *path, size_t length);
int ls_fail_system(struct ls_unpack *unpack, int code, const char *call, const struct ls_node *node);
int ls_notice(struct ls_unpack *unpack, const char *kind, const struct ls_node *node);

void ls_default_folder(struct ls_node *node);
void ls_mark_filled(struct ls_node *folder);
int ls_folder(struct ls_unpack *unpack, struct ls_cursor *cursor, const struct ls_node *folder, const char **call);
/* Makes the directory and those above it, where they are not on disk yet. */
int ls_make_folders(struct ls_unpack *unpack, struct ls_node *folder);
int ls_shadow_folder(struct ls_unpack *unpack);
int ls_shadow_settle(struct ls_unpack *unpack);
/* What the parents have under this name; 0 when they have nothing, else a LS_ type. For a directory or symlink the node knows it then. */
int ls_look_below(struct ls_unpack *unpack, struct ls_node *node);
/* All jobs are done and all links made that can be. */
int ls_settle_jobs(struct ls_unpack *unpack);
/* The node that a hard link's words mean (itself a link, perhaps), or NULL. `wrong`: they can mean no file. */
struct ls_node *ls_find_name(struct ls_unpack *unpack, const char *wanted, bool *wrong);
int ls_copy_from_below(struct ls_unpack *unpack, struct ls_node *node, int fd);
int ls_finish_links(struct ls_unpack *unpack);
#endif
