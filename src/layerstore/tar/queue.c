/* One lock, three conditions. See queue.h. */
#define _GNU_SOURCE
#include "queue.h"
#include "unpack.h"

enum { CHUNKS = 32, JOBS = 2048 };

void ls_queue_begin(struct ls_queue *queue) {
    *queue = (struct ls_queue){0};
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->work, NULL);
    pthread_cond_init(&queue->room, NULL);
    pthread_cond_init(&queue->idle, NULL);
}

static void release_locked(struct ls_queue *queue, struct ls_chunk *chunk) {
    if (--chunk->references)
        return;
    chunk->next = queue->free_chunks;
    queue->free_chunks = chunk;
    pthread_cond_signal(&queue->room);
}

static void free_job(struct ls_queue *queue, struct ls_job *job) {
    for (struct ls_segment *segment = job->first, *next; segment; segment = next) {
        next = segment->next;
        release_locked(queue, segment->chunk);
        free(segment);
    }
    free(job->extents);
    free(job);
}

void ls_queue_end(struct ls_queue *queue) {
    struct ls_job *lists[] = {queue->first, queue->abandoned};
    for (int i = 0; i < 2; i++)
        for (struct ls_job *job = lists[i], *next; job; job = next) {
            next = job->next;
            free_job(queue, job);
        }
    for (struct ls_chunk *chunk = queue->free_chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    pthread_cond_destroy(&queue->work);
    pthread_cond_destroy(&queue->room);
    pthread_cond_destroy(&queue->idle);
    pthread_mutex_destroy(&queue->lock);
}

struct ls_chunk *ls_queue_chunk(struct ls_queue *queue) {
    struct ls_chunk *chunk = NULL;
    pthread_mutex_lock(&queue->lock);
    while (!queue->failed && !queue->free_chunks && queue->chunks == CHUNKS)
        pthread_cond_wait(&queue->room, &queue->lock);
    if (!queue->failed && queue->free_chunks) {
        chunk = queue->free_chunks;
        queue->free_chunks = chunk->next;
    } else if (!queue->failed && (chunk = malloc(sizeof *chunk + LS_CHUNK)))
        queue->chunks++;
    if (chunk)
        chunk->references = 1;
    pthread_mutex_unlock(&queue->lock);
    return chunk;
}

void ls_queue_release(struct ls_queue *queue, struct ls_chunk *chunk) {
    pthread_mutex_lock(&queue->lock);
    release_locked(queue, chunk);
    pthread_mutex_unlock(&queue->lock);
}

struct ls_job *ls_job_new(struct ls_node *node) {
    struct ls_job *job = calloc(1, sizeof *job);
    if (job)
        job->node = node, job->shadow = -1;
    return job;
}

int ls_job_extend(struct ls_queue *queue, struct ls_job *job, struct ls_chunk *chunk, const uint8_t *data,
                  size_t length) {
    struct ls_segment *segment = malloc(sizeof *segment);
    if (!segment)
        return -ENOMEM;
    *segment = (struct ls_segment){.chunk = chunk, .data = data, .length = length};
    pthread_mutex_lock(&queue->lock);
    chunk->references++;
    if (job->last)
        job->last->next = segment;
    else
        job->first = segment;
    job->last = segment;
    pthread_mutex_unlock(&queue->lock);
    return 0;
}

void ls_queue_put(struct ls_queue *queue, struct ls_job *job, bool complete) {
    pthread_mutex_lock(&queue->lock);
    job->complete = complete;
    if (job->queued) /* its writer waits for it */
        pthread_cond_broadcast(&queue->work);
    else {
        while (!queue->failed && queue->waiting >= JOBS)
            pthread_cond_wait(&queue->room, &queue->lock);
        job->queued = true;
        if (queue->last)
            queue->last->next = job;
        else
            queue->first = job;
        queue->last = job;
        queue->waiting++;
        pthread_cond_signal(&queue->work);
    }
    pthread_mutex_unlock(&queue->lock);
}

void ls_job_drop(struct ls_queue *queue, struct ls_job *job) {
    pthread_mutex_lock(&queue->lock);
    free_job(queue, job);
    pthread_mutex_unlock(&queue->lock);
}

void ls_queue_drain(struct ls_queue *queue) {
    pthread_mutex_lock(&queue->lock);
    while (!queue->failed && (queue->first || queue->running))
        pthread_cond_wait(&queue->idle, &queue->lock);
    pthread_mutex_unlock(&queue->lock);
}

static void end_with(struct ls_queue *queue, bool *flag) {
    pthread_mutex_lock(&queue->lock);
    *flag = true;
    pthread_cond_broadcast(&queue->work);
    pthread_cond_broadcast(&queue->room);
    pthread_cond_broadcast(&queue->idle);
    pthread_mutex_unlock(&queue->lock);
}

void ls_queue_close(struct ls_queue *queue) {
    end_with(queue, &queue->closed);
}
void ls_queue_fail(struct ls_queue *queue) {
    end_with(queue, &queue->failed);
}

struct ls_job *ls_queue_take(struct ls_queue *queue) {
    struct ls_job *job = NULL;
    pthread_mutex_lock(&queue->lock);
    while (!queue->failed && !queue->closed && !queue->first)
        pthread_cond_wait(&queue->work, &queue->lock);
    if (!queue->failed && (job = queue->first)) {
        if (!(queue->first = job->next))
            queue->last = NULL;
        job->next = NULL;
        queue->running++;
        if (queue->waiting-- == JOBS)
            pthread_cond_signal(&queue->room);
    }
    pthread_mutex_unlock(&queue->lock);
    return job;
}

struct ls_segment *ls_job_segment(struct ls_queue *queue, struct ls_job *job) {
    struct ls_segment *segment = NULL;
    pthread_mutex_lock(&queue->lock);
    while (!queue->failed && !job->first && !job->complete)
        pthread_cond_wait(&queue->work, &queue->lock);
    if (!queue->failed && (segment = job->first)) {
        if (!(job->first = segment->next))
            job->last = NULL;
    }
    pthread_mutex_unlock(&queue->lock);
    return segment;
}

void ls_segment_done(struct ls_queue *queue, struct ls_segment *segment) {
    ls_queue_release(queue, segment->chunk);
    free(segment);
}

void ls_job_done(struct ls_queue *queue, struct ls_job *job) {
    pthread_mutex_lock(&queue->lock);
    if (job->complete)
        free_job(queue, job);
    else { /* after a failure: the reader still holds it */
        job->next = queue->abandoned;
        queue->abandoned = job;
    }
    queue->running--;
    if (!queue->first && !queue->running)
        pthread_cond_broadcast(&queue->idle);
    pthread_mutex_unlock(&queue->lock);
}
