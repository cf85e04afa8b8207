/* What differs between a btrfs snapshot and the subvolume that it was made of, by generation: in O(changes), however large
 * both are.
 *
 * Every inode remembers the transaction that last changed it. One that none has changed since the snapshot was made is
 * the same in both trees, if it is in both; and creating, removing, renaming or linking a name changes the inode of the
 * directory. So only these are looked at: the changed inodes, by all their names; the names of changed directories; and
 * the directories above. A directory that is not the parent's of the same path is compared in full. Whatever is looked
 * at is compared as compare.c compares it: an inode that only seems changed costs time and is no change. */
#define _GNU_SOURCE
#include "internal.h"
#include "../kernel/btrfs/btrfs.h"
#include "../kernel/btrfs/tree.h"
#include "../kernel/files/files.h"
#include "../kernel/files/listing.h"

#include <dirent.h>
#include <limits.h>

/* A name that leads to something that changed. */
struct lead {
    struct lead *next;
    char name[];
};

/* An inode that changed, or a directory that leads to one. */
struct node {
    struct node *queued;
    uint64_t inode;
    bool changed;
    struct lead *leads;
};

struct ls_snapshot {
    struct ls_btrfs_search search;
    dev_t device, lower_device;
    bool nested; /* there are subvolumes in it, whose numbers say nothing about inodes */
    struct node **nodes; /* by inode: a hash table, half empty */
    size_t count, room;
    struct node *queue; /* whose names are not known yet */
};

/* --- the inodes that matter --------------------------------------------------------------------------------------- */

static size_t slot_of(const struct ls_snapshot *snapshot, uint64_t inode) {
    size_t slot = (size_t)(inode * 0x9E3779B97F4A7C15u >> 20) & (snapshot->room - 1);
    while (snapshot->nodes[slot] && snapshot->nodes[slot]->inode != inode)
        slot = (slot + 1) & (snapshot->room - 1);
    return slot;
}

static struct node *find(const struct ls_snapshot *snapshot, uint64_t inode) {
    return snapshot->room ? snapshot->nodes[slot_of(snapshot, inode)] : NULL;
}

static int grow(struct ls_snapshot *snapshot) {
    struct ls_snapshot larger = *snapshot;
    larger.room = snapshot->room ? snapshot->room * 2 : 256;
    larger.nodes = calloc(larger.room, sizeof *larger.nodes);
    if (!larger.nodes)
        return -ENOMEM;
    for (size_t i = 0; i < snapshot->room; i++)
        if (snapshot->nodes[i])
            larger.nodes[slot_of(&larger, snapshot->nodes[i]->inode)] = snapshot->nodes[i];
    free(snapshot->nodes);
    *snapshot = larger;
    return 0;
}

/* Finds an inode or makes it known, to be named later. */
static int know(struct ls_snapshot *snapshot, uint64_t inode, struct node **node) {
    *node = find(snapshot, inode);
    if (*node)
        return 0;
    int rc = snapshot->count * 2 >= snapshot->room ? grow(snapshot) : 0;
    *node = rc ? NULL : calloc(1, sizeof **node);
    if (!*node)
        return -ENOMEM;
    (*node)->inode = inode;
    (*node)->queued = snapshot->queue;
    snapshot->queue = *node;
    snapshot->nodes[slot_of(snapshot, inode)] = *node;
    snapshot->count++;
    return 0;
}

static int visit_changed(void *context, uint64_t inode) {
    struct node *node;
    int rc = know(context, inode, &node);
    if (!rc)
        node->changed = true;
    return rc;
}

static int visit_name(void *context, uint64_t parent, const char *name, size_t length) {
    struct ls_snapshot *snapshot = context;
    struct node *above;
    int rc = know(snapshot, parent, &above);
    struct lead *lead = rc ? NULL : malloc(sizeof *lead + length + 1);
    if (!lead)
        return -ENOMEM;
    memcpy(lead->name, name, length);
    lead->name[length] = 0;
    lead->next = above->leads;
    above->leads = lead;
    return 0;
}

/* From the changed inodes upwards, each once, to the root. */
static int name_all(struct ls_snapshot *snapshot) {
    int rc = 0;
    while (!rc && snapshot->queue) {
        struct node *node = snapshot->queue;
        snapshot->queue = node->queued;
        if (node->inode != LS_BTRFS_ROOT_INODE) /* which is its own parent */
            rc = ls_btrfs_names(&snapshot->search, node->inode, visit_name, snapshot);
    }
    return rc;
}

static void forget(struct ls_snapshot *snapshot) {
    for (size_t i = 0; i < snapshot->room; i++)
        if (snapshot->nodes[i]) {
            for (struct lead *lead = snapshot->nodes[i]->leads, *next; lead; lead = next) {
                next = lead->next;
                free(lead);
            }
            free(snapshot->nodes[i]);
        }
    free(snapshot->nodes);
    ls_btrfs_search_end(&snapshot->search);
}

/* --- one directory that is in both trees -------------------------------------------------------------------------- */

struct entry {
    uint64_t inode;
    unsigned char type;
    char *name;
};

struct entries {
    LS_ARRAY(struct entry);
};

static void entries_free(struct entries *entries) {
    for (size_t i = 0; i < entries->count; i++)
        free(entries->list[i].name);
    ls_array_free(entries);
}

#define ENTRIES_FREED __attribute__((cleanup(entries_free)))

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int add_entry(struct entries *entries, const struct ls_listing *listing) {
    LS_FREED char *name = strdup(listing->name);
    if (!name || ls_array_add(entries, (struct entry){listing->inode, listing->type, name}))
        return -ENOMEM;
    (void)LS_TAKE(name);
    return 0;
}

static int read_entries(int folder, struct entries *entries, struct ls_failure *failure) {
    LS_LISTED struct ls_listing listing = {0};
    int rc = ls_listing_begin(&listing, folder, failure);
    while (!rc && (rc = ls_listing_next(&listing)) > 0) {
        rc = add_entry(entries, &listing);
        if (rc)
            return ls_fail(failure, "malloc", rc);
    }
    ls_array_sort(entries, by_name);
    return rc;
}

/* The same name for the same inode: is there anything to look for? */
static bool is_quiet(const struct ls_snapshot *snapshot, const struct entry *now, const struct entry *before) {
    if (now->inode != before->inode || now->type != before->type || now->type == DT_UNKNOWN)
        return false;
    return !find(snapshot, now->inode) && !(snapshot->nested && now->type == DT_DIR);
}

/* The names of a directory that changed, in both trees. */
static int compare_names(struct ls_changes *changes, struct place *place) {
    ENTRIES_FREED struct entries now = {0}, before = {0};
    int rc =
        read_entries(place->merged, &now, &changes->failure) ?: read_entries(place->lower, &before, &changes->failure);
    if (rc)
        return ls_fail_at(&changes->failure, place->folder->path);
    for (size_t i = 0, j = 0; !rc && (i < now.count || j < before.count);) {
        int order = i == now.count ? 1 : j == before.count ? -1 : strcmp(now.list[i].name, before.list[j].name);
        if (order > 0)
            rc = ls_changes_visit_gone(changes, place, before.list[j].name);
        else if (order < 0 || !is_quiet(changes->snapshot, &now.list[i], &before.list[j]))
            rc = ls_changes_visit_there(changes, place, now.list[i].name);
        i += order <= 0;
        j += order >= 0;
    }
    return rc;
}

/* The names of one directory; 1 if it is not the old tree's, so that all have to be looked at. */
static int guide(struct ls_changes *changes, struct place *place) {
    const struct ls_snapshot *snapshot = changes->snapshot;
    struct stat now, before;
    if (fstat(place->merged, &now) || fstat(place->lower, &before))
        return ls_changes_fail(changes, "fstat", -errno, place->folder->path);
    if (now.st_dev != snapshot->device || before.st_dev != snapshot->lower_device || now.st_ino != before.st_ino)
        return 1;
    const struct node *node = find(snapshot, now.st_ino);
    if (node && node->changed)
        return compare_names(changes, place);
    int rc = 0;
    for (const struct lead *lead = node ? node->leads : NULL; !rc && lead; lead = lead->next)
        rc = ls_changes_visit_there(changes, place, lead->name);
    return rc;
}

/* --- hard links --------------------------------------------------------------------------------------------------- */

/* The names of one inode, and the path of one directory: lists that `ls_btrfs_names` fills. */
struct names {
    struct ls_bytes text; /* each ended by NUL */
    struct {
        LS_ARRAY(uint64_t);
    } parents;
};

static int collect_name(void *context, uint64_t parent, const char *name, size_t length) {
    struct names *names = context;
    return ls_array_add(&names->parents, parent) ?: ls_bytes_add(&names->text, name, length) ?: ls_bytes_add(&names->text, "", 1);
}

#define NAMES_FREED __attribute__((cleanup(names_free)))

static void names_free(struct names *names) {
    ls_bytes_free(&names->text);
    ls_array_free(&names->parents);
}

/* Puts the path of a directory before `name`. 1: it has none any more, or one that no call would take. */
static int path_of(struct ls_snapshot *snapshot, uint64_t folder, const char *name, char path[PATH_MAX]) {
    size_t at = PATH_MAX - strlen(name) - 1;
    strcpy(path + at, name);
    while (folder != LS_BTRFS_ROOT_INODE) {
        NAMES_FREED struct names up = {0};
        int rc = ls_btrfs_names(&snapshot->search, folder, collect_name, &up);
        if (rc)
            return rc;
        size_t length = up.parents.count ? strlen((char *)up.text.data) : 0;
        if (!length || length + 1 > at)
            return 1;
        path[--at] = '/';
        at -= length;
        memcpy(path + at, up.text.data, length);
        folder = up.parents.list[0];
    }
    memmove(path, path + at, PATH_MAX - at);
    return 0;
}

static int by_inode_and_path(const void *a, const void *b) {
    const struct linked *x = a, *y = b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    if (x->inode != y->inode)
        return x->inode < y->inode ? -1 : 1;
    return strcmp(x->path, y->path);
}

/* The names of one file that the walk had no reason to look at, from its first name in the list to its last. */
static int remember_others(struct ls_changes *changes, size_t begin, size_t end) {
    const struct linked *known = &changes->linked.list[begin];
    const struct stat facts = {.st_dev = known->device, .st_ino = known->inode};
    NAMES_FREED struct names names = {0};
    int rc = ls_btrfs_names(&changes->snapshot->search, facts.st_ino, collect_name, &names);
    const char *name = (const char *)names.text.data;
    for (size_t i = 0; rc >= 0 && names.parents.count > end - begin && i < names.parents.count; i++) {
        char path[PATH_MAX];
        rc = path_of(changes->snapshot, names.parents.list[i], name, path);
        name += strlen(name) + 1;
        const struct linked wanted = {facts.st_dev, facts.st_ino, path, false};
        known = &changes->linked.list[begin]; /* which grows */
        if (!rc && !bsearch(&wanted, known, end - begin, sizeof wanted, by_inode_and_path) &&
            ls_changes_remember_link(changes, &facts, path, false))
            return -ENOMEM;
    }
    if (rc < 0)
        ls_fail(&changes->failure, rc == -ENOMEM ? "malloc" : "ioctl(BTRFS_IOC_TREE_SEARCH_V2)", rc);
    return rc < 0 ? rc : 0;
}

/* When one name of a file is a change, all are; the others may lie where nothing else changed. */
static int complete_links(struct ls_changes *changes) {
    size_t count = changes->linked.count; /* more are added behind */
    int rc = 0;
    ls_array_sort(&changes->linked, by_inode_and_path);
    for (size_t begin = 0, end; !rc && begin < count; begin = end) {
        const struct linked *linked = changes->linked.list;
        bool changed = false;
        for (end = begin;
             end < count && linked[end].inode == linked[begin].inode && linked[end].device == linked[begin].device;
             end++)
            changed |= linked[end].changed;
        if (changed && linked[begin].device == changes->snapshot->device)
            rc = remember_others(changes, begin, end);
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

static int learn(struct ls_snapshot *snapshot, int merged, int lower, uint64_t since, struct ls_failure *failure) {
    struct ls_btrfs_subvolume own;
    struct stat now, before;
    if (fstat(merged, &now) || fstat(lower, &before))
        return LS_FAIL(failure, "fstat");
    snapshot->device = now.st_dev;
    snapshot->lower_device = before.st_dev;
    /* Inodes reach the tree with a commit, and the time of one that is written to with its data: a commit alone, without
     * the data that is dirty, does not do. */
    int rc = ls_sync_filesystem(merged);
    if (rc)
        return ls_fail(failure, "syncfs", rc);
    rc = ls_btrfs_subvolume(merged, &own);
    if (rc)
        return ls_fail(failure, "ioctl(BTRFS_IOC_GET_SUBVOL_INFO)", rc);
    int64_t nested = ls_btrfs_nested(merged, own.id, NULL, 0);
    snapshot->nested = nested > 0;
    rc = nested < 0 ? (int)nested : ls_btrfs_search_begin(&snapshot->search, merged);
    rc = rc ?: ls_btrfs_changed(&snapshot->search, since, visit_changed, snapshot);
    rc = rc ?: name_all(snapshot);
    return rc ? ls_fail(failure, rc == -ENOMEM ? "malloc" : "ioctl(BTRFS_IOC_TREE_SEARCH_V2)", rc) : 0;
}

int ls_changes_of_snapshot(struct ls_changes *changes, int merged, int lower, uint64_t since) {
    struct ls_snapshot snapshot = {0};
    changes->upper = -1, changes->merged = merged, changes->lower = lower;
    changes->content = true;
    changes->snapshot = &snapshot;
    changes->guide = guide;
    int rc = learn(&snapshot, merged, lower, since, &changes->failure);
    rc = rc ?: ls_changes_walk(changes, GUIDED);
    rc = rc ?: complete_links(changes);
    rc = rc ?: ls_changes_finish(changes);
    changes->needs_copy |= snapshot.nested; /* what is in them is not in a snapshot of this one */
    changes->snapshot = NULL;
    forget(&snapshot);
    return rc;
}
