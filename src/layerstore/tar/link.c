/* Hard links: to an entry of this layer that comes earlier or later, and to a file of the parents, which is copied.
 *
 * A link is made when its target is on disk and before anything replaces that; one whose target is not there yet waits for
 * the end of the tar. */
#define _GNU_SOURCE
#include "engine.h"
#include "xxh64.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- on disk ------------------------------------------------------------------------------------------------------- */

static int make_link(struct ls_unpack *unpack, struct ls_link *link) {
    const char *call;
    char name[32];
    struct ls_node *node = link->node, *target = link->target;
    int into = ls_folder(unpack, &unpack->here, node->parent, &call);
    if (into < 0)
        return ls_fail_system(unpack, into, call, node);
    int from = unpack->shadow;
    const char *old = name;
    if (target->parent == unpack->model.aside)
        snprintf(name, sizeof name, "%lld", (long long)unpack->payloads[target->payload].shadow);
    else {
        from = ls_folder(unpack, &unpack->there, target->parent, &call);
        old = target->name;
        if (from < 0)
            return ls_fail_system(unpack, from, call, target);
    }
    int rc = linkat(from, old, into, node->name, 0);
    if (rc && errno == EEXIST && unpack->disk.dialect == LS_DIALECT_MERGED &&
        !(rc = ls_disk_remove(into, node->name, &call)))
        rc = linkat(from, old, into, node->name, 0);
    link->made = true;
    return rc ? ls_fail_system(unpack, -errno, "linkat", node) : 0;
}

static bool is_current(const struct ls_link *link, size_t number) {
    return link->node->type == LS_HARD_LINK && link->node->size == (int64_t)number && !link->made;
}

int ls_settle_jobs(struct ls_unpack *unpack) {
    ls_queue_drain(&unpack->queue);
    if (ls_queue_failed(&unpack->queue))
        return -1;
    for (; unpack->links_made < unpack->link_count; unpack->links_made++) {
        struct ls_link *link = &unpack->links[unpack->links_made];
        if (link->target && is_current(link, unpack->links_made) && make_link(unpack, link))
            return -1;
    }
    return 0;
}

static int copy_data(int from, int to, uint64_t *content) {
    struct ls_xxh64 hash;
    uint8_t *buffer = malloc(LS_CHUNK);
    ssize_t got = 0;
    if (!buffer)
        return -ENOMEM;
    ls_xxh64_begin(&hash, 0);
    while ((got = read(from, buffer, LS_CHUNK)) > 0) {
        ls_xxh64_add(&hash, buffer, (size_t)got);
        for (ssize_t done = 0, wrote; done < got; done += wrote)
            if ((wrote = write(to, buffer + done, (size_t)(got - done))) < 0) {
                free(buffer);
                return -errno;
            }
    }
    free(buffer);
    *content = ls_xxh64_end(&hash);
    return got < 0 ? -errno : 0;
}

/* A hard link to a file of the parents: it cannot be linked across layers, so the layer gets a copy of its own. Made at
 * once, since a later entry may replace the file. */
static int copy_from_below(struct ls_unpack *unpack, struct ls_node *node, int fd) {
    const char *call = "openat2";
    struct stat facts;
    int rc = fstat(fd, &facts) ? -errno : ls_disk_learn(fd, node, &call);
    int folder = rc ? rc : ls_folder(unpack, &unpack->here, node->parent, &call);
    if (folder < 0)
        return ls_fail_system(unpack, folder, call, node);
    node->target = NULL;
    node->size = facts.st_size;
    if (S_ISREG(facts.st_mode)) {
        char link[64];
        node->type = LS_REGULAR;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int from = open(link, O_RDONLY | O_CLOEXEC);
        int to = from < 0 ? -errno : ls_disk_regular(&unpack->disk, folder, node, false, &call);
        rc = to < 0 ? to : copy_data(from, to, &node->content) ?: ls_disk_settle(&unpack->disk, to, node, false, &call);
        if (from >= 0)
            close(from);
        if (to >= 0)
            close(to);
    } else {
        node->type = S_ISLNK(facts.st_mode)   ? LS_SYMLINK
                     : S_ISCHR(facts.st_mode) ? LS_CHARACTER
                     : S_ISBLK(facts.st_mode) ? LS_BLOCK_DEVICE
                                              : LS_FIFO;
        if (node->type == LS_SYMLINK) {
            node->link = calloc(1, (size_t)facts.st_size + 1);
            if (!node->link || readlinkat(fd, "", node->link, (size_t)facts.st_size) < 0)
                return ls_fail_system(unpack, node->link ? -errno : -ENOMEM, "readlinkat", node);
            node->link_length = (uint32_t)strlen(node->link);
            node->content = ls_xxh64_of(node->link, node->link_length, 0);
        }
        rc = ls_disk_special(&unpack->disk, folder, node, &call);
    }
    return rc ? ls_fail_system(unpack, rc, call, node) : 0;
}

/* --- an entry ------------------------------------------------------------------------------------------------------ */

static int remember_link(struct ls_unpack *unpack, struct ls_node *node, struct ls_node *target) {
    if (unpack->link_count == unpack->link_room) {
        size_t room = unpack->link_room ? unpack->link_room * 2 : 256;
        struct ls_link *grown = realloc(unpack->links, room * sizeof *grown);
        if (!grown)
            return ls_fail_here(unpack, -ENOMEM, NULL);
        unpack->links = grown;
        unpack->link_room = room;
    }
    struct ls_link *link = &unpack->links[unpack->link_count];
    *link = (struct ls_link){
        .node = node, .target = target, .wanted = strdup((char *)unpack->entry.link.data), .before = -1};
    if (!link->wanted)
        return ls_fail_here(unpack, -ENOMEM, NULL);
    node->size = (int64_t)unpack->link_count++; /* which of several records of this name is the one that counts */
    if (target)
        target->links++;
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
    int fd = ls_open_below(unpack, folder, name);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return ls_fail_system(unpack, fd, "openat2", node);
    bool wrong = fstat(fd, &facts) || S_ISDIR(facts.st_mode);
    int rc = wrong                               ? ls_fail_here(unpack, -EBADMSG, "a hard link leads to a directory")
             : copy_from_below(unpack, node, fd) ? -1
                                                 : 1;
    close(fd);
    return rc;
}

int ls_place_link(struct ls_unpack *unpack, struct ls_node *node) {
    bool wrong;
    struct ls_node *target = ls_find_name(unpack, (char *)unpack->entry.link.data, &wrong);
    if (ls_queue_failed(&unpack->queue))
        return -1;
    if (target && target->type == LS_HARD_LINK)
        target = target->target;
    if (wrong)
        return ls_fail_here(unpack, -EBADMSG, "a hard link leads to a directory or outside the layer");
    bool known = node->type == LS_DIRECTORY && !(node->flags & LS_IMPLIED && unpack->below == LS_BELOW_UNKNOWN);
    if (known && unpack->link_folder && ls_lies_within(unpack->link_folder, node))
        return ls_fail_here(unpack, -EBADMSG, "a hard link replaces the directory that it leads into");
    if (target && (target == node || (node->type == LS_HARD_LINK && node->target == target)))
        return 0; /* to itself, or the same link again */
    if (ls_make_way(unpack, node))
        return -1;
    if (target && !target->type) /* it lay within what has just been replaced */
        target = NULL;
    node->type = LS_HARD_LINK;
    node->flags = LS_LISTED;
    node->target = target;
    ls_mark_filled(node->parent);
    if (ls_make_folders(unpack, node->parent))
        return -1;
    if (!target && unpack->below >= 0) {
        int found = link_below(unpack, node);
        if (found)
            return found < 0 ? -1 : 0;
    } else if (!target && unpack->below == LS_BELOW_UNKNOWN)
        unpack->result.needs_parents = 1; /* they may have it, even if a later entry of this layer has it too */
    return remember_link(unpack, node, target);
}

/* --- the end of the tar -------------------------------------------------------------------------------------------- */

/* A link may lead to a link that is not made yet either, in any order: the chain is made from its far end. */
static int resolve(struct ls_unpack *unpack, size_t first) {
    size_t last = first;
    struct ls_node *target = NULL;
    bool wrong;
    for (int64_t number = (int64_t)first; number >= 0;) {
        struct ls_link *link = &unpack->links[number];
        link->waiting = true;
        last = (size_t)number;
        target = ls_find_name(unpack, link->wanted, &wrong);
        if (ls_queue_failed(&unpack->queue))
            return -1;
        bool unmade = target && target->type == LS_HARD_LINK && !target->target;
        number = unmade && !unpack->links[target->size].waiting ? target->size : -1;
        if (number >= 0)
            unpack->links[number].before = (int64_t)last;
        if (unmade)
            target = NULL; /* in the next round, or a ring of links that lead to each other */
    }
    for (int64_t number = (int64_t)last; number >= 0; number = unpack->links[number].before) {
        struct ls_link *link = &unpack->links[number];
        link->node->target = link->target = target && target->type == LS_HARD_LINK ? target->target : target;
        if (link->target && make_link(unpack, link))
            return -1;
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
    if (ls_settle_jobs(unpack))
        return -1;
    for (size_t i = 0; i < unpack->link_count; i++)
        if (is_current(&unpack->links[i], i) && !unpack->links[i].target && resolve(unpack, i))
            return -1;
    return 0;
}
