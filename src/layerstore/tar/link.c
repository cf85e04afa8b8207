/* Hard links: to an entry of this layer that comes earlier or later, and to a file of the parents, which is copied.
 *
 * A link is made when its target is on disk and before anything replaces that; one whose target is not there yet waits
 * for the end of the tar. */
#define _GNU_SOURCE
#include "engine.h"
#include "xxh64.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- on disk ------------------------------------------------------------------------------------------------------ */

static int make_link(struct ls_unpack *unpack, struct ls_link *link) {
    char name[32];
    struct ls_node *node = link->node, *target = link->target;
    if (ls_is_listed(unpack)) {
        link->made = true;
        return 0;
    }
    int into = ls_folder(unpack, &unpack->here, node->parent);
    if (into < 0)
        return ls_failed_at(unpack, node);
    int from = unpack->shadow;
    const char *old = name;
    if (target->parent == unpack->model.aside)
        snprintf(name, sizeof name, "%lld", (long long)unpack->payloads.list[target->payload].shadow);
    else {
        from = ls_folder(unpack, &unpack->there, target->parent);
        old = target->name;
        if (from < 0)
            return ls_failed_at(unpack, target);
    }
    link->made = true;
    int rc = linkat(from, old, into, node->name, 0) ? -errno : 0;
    if (rc == -EEXIST && unpack->disk.dialect == LS_DIALECT_MERGED) { /* one of the parents */
        if (ls_disk_remove(into, node->name, &unpack->said))
            return ls_failed_at(unpack, node);
        rc = linkat(from, old, into, node->name, 0) ? -errno : 0;
    }
    return rc ? ls_fail_system(unpack, rc, "linkat", node) : 0;
}

static bool is_current(const struct ls_link *link, size_t number) {
    return link->node->type == LS_HARD_LINK && link->node->size == (int64_t)number && !link->made;
}

int ls_settle_jobs(struct ls_unpack *unpack) {
    if (!ls_is_listed(unpack)) /* else the only one is that of the tar, of which more comes */
        ls_queue_drain(&unpack->queue);
    int rc = ls_failed(unpack);
    for (; !rc && unpack->links_made < unpack->links.count; unpack->links_made++) {
        struct ls_link *link = &unpack->links.list[unpack->links_made];
        if (link->target && is_current(link, unpack->links_made))
            rc = make_link(unpack, link);
    }
    return rc;
}

/* All data of the parents' file, and its hash. */
static int copy_data(int from, int to, uint64_t *content, struct ls_failure *failure) {
    struct ls_xxh64 hash;
    int64_t position = 0;
    LS_FREED uint8_t *buffer = malloc(LS_CHUNK);
    if (!buffer)
        return ls_fail(failure, "malloc", -ENOMEM);
    ls_xxh64_begin(&hash, 0);
    for (;;) {
        ssize_t got = ls_disk_read(from, buffer, LS_CHUNK, position, failure);
        int rc = got < 0 ? (int)got : ls_disk_write(to, buffer, (size_t)got, position, failure);
        if (rc)
            return rc;
        if (!got)
            break;
        ls_xxh64_add(&hash, buffer, (size_t)got);
        position += got;
    }
    *content = ls_xxh64_end(&hash);
    return 0;
}

static int copy_regular(struct ls_unpack *unpack, struct ls_node *node, int folder, int fd) {
    struct ls_failure *said = &unpack->said;
    LS_CLOSED int from = ls_open_again(fd, O_RDONLY);
    if (from < 0)
        return ls_fail(said, "open", from);
    LS_CLOSED int to = ls_disk_regular(&unpack->disk, folder, node, false, said);
    if (to < 0)
        return to;
    int rc = copy_data(from, to, &node->content, said);
    rc = rc ?: ls_disk_settle(&unpack->disk, to, node, false, said);
    return rc ?: ls_disk_close(&to, said);
}

/* A hard link to a file of the parents: it cannot be linked across layers, so the layer gets a copy of its own. Made at
 * once, since a later entry may replace the file. */
static int copy_from_below(struct ls_unpack *unpack, struct ls_node *node, int fd, const struct stat *facts) {
    bool listed = ls_is_listed(unpack);
    int rc = ls_disk_learn(fd, node, &unpack->said);
    int folder = rc || listed ? rc : ls_folder(unpack, &unpack->here, node->parent);
    if (folder < 0)
        return ls_failed_at(unpack, node);
    node->target = NULL;
    node->size = facts->st_size;
    node->type = ls_type_of(facts->st_mode) ?: LS_FIFO;
    if (node->type == LS_REGULAR)
        rc = listed ? ls_list_below(unpack, node, fd, unpack->link_folder, unpack->link_name)
                    : copy_regular(unpack, node, folder, fd);
    else {
        if (node->type == LS_SYMLINK && !(rc = ls_disk_read_link(fd, facts->st_size, node, &unpack->said)))
            node->content = ls_xxh64_of(node->link, node->link_length, 0);
        rc = rc || listed ? rc : ls_disk_special(&unpack->disk, folder, node, &unpack->said);
    }
    return rc ? ls_failed_at(unpack, node) : 0;
}

/* --- an entry ----------------------------------------------------------------------------------------------------- */

static int remember_link(struct ls_unpack *unpack, struct ls_node *node, struct ls_node *target) {
    LS_FREED char *wanted = strdup((char *)unpack->entry.link.data);
    int64_t older = target ? target->linked : -1;
    struct ls_link link = {.node = node, .target = target, .wanted = wanted, .before = -1, .older = older};
    if (!wanted || ls_array_add(&unpack->links, link))
        return ls_fail_memory(unpack);
    wanted = NULL;
    unpack->remembered += (int64_t)(sizeof link + unpack->entry.link.length);
    node->size = (int64_t)unpack->links.count - 1; /* which of several records of this name is the one that counts */
    if (target)
        target->links++, target->linked = node->size;
    return 0;
}

/* The name that ls_find_name has just looked for, in the parents: 1 if they have such a file, which is copied. */
static int link_below(struct ls_unpack *unpack, struct ls_node *node) {
    struct stat facts;
    struct ls_node *folder = unpack->link_folder;
    struct ls_part name = unpack->link_name;
    const struct ls_node *own = folder ? ls_model_find(&unpack->model, folder, name.name, name.length) : NULL;
    if (!folder || (own && (own->type == LS_DIRECTORY || own->flags & LS_WHITEOUT || ls_is_own(own))))
        return 0;
    LS_CLOSED int fd = ls_open_below(unpack, folder, name, &facts, node);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    if (S_ISDIR(facts.st_mode))
        return ls_fail_entry(unpack, "a hard link leads to a directory");
    int rc = copy_from_below(unpack, node, fd, &facts);
    return rc ? rc : 1;
}

int ls_link_target(struct ls_unpack *unpack, const struct ls_node *node, struct ls_node **target) {
    bool wrong;
    *target = ls_find_name(unpack, (char *)unpack->entry.link.data, &wrong);
    int rc = ls_failed(unpack);
    if (rc)
        return rc;
    if (*target && (*target)->type == LS_HARD_LINK)
        *target = (*target)->target;
    if (wrong)
        return ls_fail_entry(unpack, "a hard link leads to a directory or outside the layer");
    bool known = node->type == LS_DIRECTORY && !(node->flags & LS_IMPLIED && unpack->below == LS_BELOW_UNKNOWN);
    if (known && unpack->link_folder && ls_node_is_within(unpack->link_folder, node))
        return ls_fail_entry(unpack, "a hard link replaces the directory that it leads into");
    /* to itself, or the same link again */
    return *target && (*target == node || (node->type == LS_HARD_LINK && node->target == *target));
}

int ls_place_link(struct ls_unpack *unpack, struct ls_node *node, struct ls_node *target) {
    if (target && !target->type) /* it lay within what has just been replaced */
        target = NULL;
    node->type = LS_HARD_LINK;
    node->flags = LS_STATED;
    node->target = target;
    ls_mark_filled(node->parent);
    int rc = ls_make_folders(unpack, node->parent);
    if (rc)
        return rc;
    if (!target && unpack->below >= 0) {
        int found = link_below(unpack, node);
        if (found)
            return found < 0 ? found : 0;
    } else if (!target && unpack->below == LS_BELOW_UNKNOWN)
        unpack->result.needs_parents = 1; /* they may have it, even if a later entry of this layer has it too */
    return remember_link(unpack, node, target);
}

/* --- the end of the tar ------------------------------------------------------------------------------------------- */

/* A link may lead to a link that is not made yet either, in any order: the chain is made from its far end. */
static int resolve(struct ls_unpack *unpack, size_t first) {
    size_t last = first;
    struct ls_node *target = NULL;
    bool wrong;
    for (int64_t number = (int64_t)first; number >= 0;) {
        struct ls_link *link = &unpack->links.list[number];
        link->waiting = true;
        last = (size_t)number;
        target = ls_find_name(unpack, link->wanted, &wrong);
        int rc = ls_failed(unpack);
        if (rc)
            return rc;
        bool unmade = target && target->type == LS_HARD_LINK && !target->target;
        number = unmade && !unpack->links.list[target->size].waiting ? target->size : -1;
        if (number >= 0)
            unpack->links.list[number].before = (int64_t)last;
        if (unmade)
            target = NULL; /* in the next round, or a ring of links that lead to each other */
    }
    for (int64_t number = (int64_t)last; number >= 0; number = unpack->links.list[number].before) {
        struct ls_link *link = &unpack->links.list[number];
        link->node->target = link->target = target && target->type == LS_HARD_LINK ? target->target : target;
        int rc = link->target ? make_link(unpack, link) : 0;
        if (rc)
            return rc;
        if (!link->target && unpack->below != LS_BELOW_UNKNOWN)
            return ls_fail_archive(unpack, "a hard link leads to a file that is in no layer", link->wanted,
                                   strlen(link->wanted));
        if (!link->target)
            ls_node_forget(link->node);
        target = link->target ? link->node : NULL;
    }
    return 0;
}

int ls_finish_links(struct ls_unpack *unpack) {
    int rc = ls_settle_jobs(unpack);
    for (size_t i = 0; !rc && i < unpack->links.count; i++)
        if (is_current(&unpack->links.list[i], i) && !unpack->links.list[i].target)
            rc = resolve(unpack, i);
    return rc;
}
