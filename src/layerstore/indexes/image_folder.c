/* Directories in an erofs image: blocks of entries, sorted by name over all of them. An entry has 12 bytes: the number of the
 * inode, where in the block its name begins, its type; the names stand behind the entries. */
#define _GNU_SOURCE
#include "image.h"

enum { ENTRY = 12, BLOCK_SIZE = 1 << LS_BLOCK_BITS };

static const struct ls_text DOT = {(const uint8_t *)".", 1}, DOTS = {(const uint8_t *)"..", 2};

static int compare(struct ls_text a, struct ls_text b) {
    int order = memcmp(a.data, b.data, a.length < b.length ? a.length : b.length);
    return order ? order : a.length < b.length ? -1 : a.length > b.length;
}

static int by_name(const void *left, const void *right) {
    return compare((*(struct ls_name *const *)left)->text, (*(struct ls_name *const *)right)->text);
}

/* One entry after another, "." and ".." among them. */
struct walk {
    const struct ls_inode *folder;
    size_t next;
    unsigned dots;
    struct ls_text text;
    const struct ls_inode *inode;
};

static bool walk_on(struct walk *walk) {
    const struct ls_inode *folder = walk->folder;
    struct ls_name *child = walk->next < folder->children ? folder->sorted[walk->next] : NULL;
    struct ls_text dot = walk->dots ? DOTS : DOT;
    if (walk->dots < 2 && (!child || compare(dot, child->text) < 0)) {
        walk->inode = walk->dots && folder->name->folder ? folder->name->folder : folder;
        walk->dots++;
        walk->text = dot;
        return true;
    }
    if (!child)
        return false;
    walk->next++;
    walk->text = child->text;
    walk->inode = child->inode;
    return true;
}

int ls_folder_plan(struct ls_stack *stack, struct ls_inode *folder) {
    size_t count = 0;
    for (struct ls_name *name = folder->first; name; name = name->next)
        count += name->inode != NULL;
    if (count && !(folder->sorted = ls_stack_get(stack, count * sizeof *folder->sorted)))
        return -ENOMEM;
    for (struct ls_name *name = folder->first; name; name = name->next)
        if (name->inode)
            folder->sorted[folder->children++] = name;
    if (count)
        qsort(folder->sorted, count, sizeof *folder->sorted, by_name);
    size_t room = BLOCK_SIZE;
    folder->packed = 0;
    for (struct walk walk = {.folder = folder}; walk_on(&walk);) {
        size_t need = ENTRY + walk.text.length;
        if (need > room) {
            folder->packed += BLOCK_SIZE;
            room = BLOCK_SIZE;
        }
        room -= need;
    }
    folder->packed += (int64_t)(BLOCK_SIZE - room);
    return 0;
}

static uint8_t kind_of(const struct ls_inode *inode) {
    static const uint8_t KINDS[] = {
        [LS_REGULAR] = 1,      [LS_DIRECTORY] = 2, [LS_CHARACTER] = 3,
        [LS_BLOCK_DEVICE] = 4, [LS_FIFO] = 5,      [LS_SYMLINK] = 7,
    };
    return KINDS[inode->type];
}

/* As many entries as one block takes. */
static size_t write_block(struct walk *walk, bool *more, uint8_t block[BLOCK_SIZE]) {
    struct {
        struct ls_text text;
        const struct ls_inode *inode;
    } entries[BLOCK_SIZE / ENTRY];
    size_t count = 0, used = 0;
    for (; *more && used + ENTRY + walk->text.length <= BLOCK_SIZE; *more = walk_on(walk)) {
        entries[count].text = walk->text;
        entries[count++].inode = walk->inode;
        used += ENTRY + walk->text.length;
    }
    memset(block, 0, BLOCK_SIZE);
    for (size_t i = 0, name = count * ENTRY; i < count; name += entries[i++].text.length) {
        uint8_t *at = block + i * ENTRY;
        ls_put_64(at, entries[i].inode->nid);
        ls_put_16(at + 8, (uint16_t)name);
        at[10] = kind_of(entries[i].inode);
        memcpy(block + name, entries[i].text.data, entries[i].text.length);
    }
    return used;
}

int ls_folder_write(struct ls_image *image, const struct ls_inode *folder) {
    uint8_t block[BLOCK_SIZE];
    struct walk walk = {.folder = folder};
    bool more = walk_on(&walk);
    int rc = 0;
    while (!rc && more) {
        size_t used = write_block(&walk, &more, block);
        rc = ls_image_put(image, block, more ? BLOCK_SIZE : used);
    }
    return rc;
}
