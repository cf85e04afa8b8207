/* Between the reader of a tar and the threads that write its files: chunks of the stream, and jobs that point into
 * them.
 *
 * A job is one file to be made. It is handed over when its data is there, or when a chunk ends within it; the writer
 * then waits for the rest. Chunks go back to the reader when the last job that points into them is done, so what is in
 * flight is bounded, and a writer that waits never holds what the reader needs: jobs end in the order they began.
 *
 * The threads that copy and remove trees share folders that wait in any order; here the data come with the jobs, in the
 * order of the tar, so this is another thing than their pool. */
#ifndef LS_QUEUE_H
#define LS_QUEUE_H
#include "model.h"

#include <pthread.h>

struct ls_chunk {
    struct ls_chunk *next;
    unsigned references;
    uint8_t data[];
};

struct ls_segment {
    struct ls_segment *next;
    struct ls_chunk *chunk;
    const uint8_t *data;
    size_t length;
};

struct ls_job {
    struct ls_job *next;
    struct ls_node *node;
    int64_t shadow; /* number in the shadow folder instead of a place in the tree, or -1 */
    struct ls_extent *extents;
    size_t extents_count;
    bool sparse, complete, queued;
    struct ls_segment *first, *last;
};

struct ls_queue {
    pthread_mutex_t lock;
    pthread_cond_t work, room, idle;
    struct ls_job *first, *last, *abandoned;
    struct ls_chunk *free_chunks;
    unsigned chunks, waiting, running;
    bool closed, failed;
};

void ls_queue_begin(struct ls_queue *queue);
void ls_queue_end(struct ls_queue *queue);

/* Reader's side. */
struct ls_chunk *ls_queue_chunk(struct ls_queue *queue); /* NULL after a failure */
void ls_queue_release(struct ls_queue *queue, struct ls_chunk *chunk);
struct ls_job *ls_job_new(struct ls_node *node);
int ls_job_extend(struct ls_queue *queue, struct ls_job *job, struct ls_chunk *chunk, const uint8_t *data,
                  size_t length);
void ls_queue_put(struct ls_queue *queue, struct ls_job *job, bool complete);
void ls_job_drop(struct ls_queue *queue, struct ls_job *job); /* one that was never put */
void ls_queue_drain(struct ls_queue *queue); /* until every job that was put is done, or one has failed */
void ls_queue_close(struct ls_queue *queue);
void ls_queue_fail(struct ls_queue *queue);

/* Writer's side. */
struct ls_job *ls_queue_take(struct ls_queue *queue); /* NULL: no more */
struct ls_segment *ls_job_segment(struct ls_queue *queue, struct ls_job *job); /* NULL: no more, or a failure */
void ls_segment_done(struct ls_queue *queue, struct ls_segment *segment);
void ls_job_done(struct ls_queue *queue, struct ls_job *job);
#endif
