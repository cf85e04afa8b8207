/* What an entry takes away: of earlier entries of its own layer, whose bytes the export still needs, and of the layers
 * below.
 *
 * A mark hides names of lower layers only, never one of its own layer, whichever of them comes first. */
#define _GNU_SOURCE
#include "engine.h"

#include <stdio.h>

/* --- replacing what an earlier entry made ------------------------------------------------------------------------- */

/* A file that goes, but has hard links elsewhere, lives on there: the newest of them becomes its place. */
static struct ls_node *heir_of(struct ls_unpack *unpack, struct ls_node *node, const struct ls_node *top) {
    struct ls_node *heir = NULL;
    for (int64_t i = node->links ? node->linked : -1; i >= 0; i = unpack->links.list[i].older) {
        struct ls_node *link = unpack->links.list[i].node;
        if (!unpack->links.list[i].made || link->type != LS_HARD_LINK || link->target != node ||
            ls_node_is_within(link, top))
            continue;
        if (!heir) {
            uint16_t flags = link->flags;
            heir = link;
            heir->type = node->type, heir->flags = flags | (node->flags & LS_SPARSE);
            heir->mode = node->mode, heir->uid = node->uid, heir->gid = node->gid, heir->major = node->major,
            heir->minor = node->minor;
            heir->mtime = node->mtime, heir->mtime_ns = node->mtime_ns, heir->size = node->size;
            heir->payload = node->payload, heir->content = node->content, heir->attributes = node->attributes;
            heir->xattrs = node->xattrs, heir->xattrs_length = node->xattrs_length;
            heir->link = node->link, heir->link_length = node->link_length;
            heir->target = NULL;
            heir->links = 0;
            heir->linked = node->linked;
            node->xattrs = NULL, node->link = NULL, node->xattrs_length = node->link_length = 0;
        } else {
            link->target = heir;
            heir->links++;
        }
    }
    return heir;
}

/* The payload of a file that is about to be replaced stays needed: the tar has it, so the export must. */
static int keep_payload(struct ls_unpack *unpack, struct ls_node *node) {
    char name[32];
    struct ls_payload *payload = &unpack->payloads.list[node->payload];
    if (!ls_is_listed(unpack)) {
        int rc = ls_shadow_folder(unpack);
        if (rc)
            return rc;
        int folder = ls_folder(unpack, &unpack->here, node->parent);
        if (folder < 0)
            return ls_failed_at(unpack, node);
        snprintf(name, sizeof name, "%lld", (long long)unpack->shadow_count);
        if (renameat(folder, node->name, unpack->shadow, name))
            return ls_fail_system(unpack, -errno, "renameat", node);
    }
    payload->node = NULL;
    payload->shadow = unpack->shadow_count++;
    payload->content = node->content;
    return 0;
}

/* Removes what earlier entries made, in the model and on disk. */
static int clear(struct ls_unpack *unpack, struct ls_node *top) {
    int rc = ls_settle_jobs(unpack);
    if (rc)
        return rc;
    for (struct ls_node *node = ls_node_deepest(top); node; node = ls_node_postorder(node, top)) {
        if (ls_is_own(node) && node->type != LS_HARD_LINK && node->type != LS_DIRECTORY) {
            struct ls_node *heir = heir_of(unpack, node, top);
            if (heir && heir->payload >= 0)
                unpack->payloads.list[heir->payload].node = heir;
            else if (!heir && node->payload >= 0 && (rc = keep_payload(unpack, node)))
                return rc;
        }
        if (node->type == LS_HARD_LINK && node->target && node->target->links)
            node->target->links--;
        ls_node_forget(node);
    }
    if (!(top->parent->flags & LS_MADE) || ls_is_listed(unpack))
        return 0; /* it was named, and never made */
    int folder = ls_folder(unpack, &unpack->here, top->parent);
    if (folder < 0 || ls_disk_remove(folder, top->name, &unpack->said))
        return ls_failed_at(unpack, top);
    unpack->generation++;
    return 0;
}

int ls_make_way(struct ls_unpack *unpack, struct ls_node *top) {
    int rc = ls_is_own(top) ? clear(unpack, top) : 0;
    if (rc)
        return rc;
    for (struct ls_node *node = ls_node_deepest(top); node; node = ls_node_postorder(node, top))
        ls_node_forget(node);
    return 0;
}

/* --- marks -------------------------------------------------------------------------------------------------------- */

int ls_place_whiteout(struct ls_unpack *unpack, struct ls_node *folder, struct ls_part name) {
    struct ls_node *node = ls_child(unpack, folder, name);
    if (!node)
        return ls_failed(unpack);
    if (node->type == LS_DIRECTORY && node->flags & LS_FILLED) {
        if (!(node->flags & LS_STATED)) /* it is this layer's alone now */
            ls_default_folder(node), node->flags |= LS_STATED;
        node->flags = (node->flags & ~(LS_IMPLIED | LS_BELOW)) | LS_OPAQUE;
        return 0;
    }
    if (node->type && node->type != LS_DIRECTORY && ls_is_own(node))
        return 0; /* a whiteout never hides a name of its own layer */
    if (node->type == LS_DIRECTORY && node->flags & LS_STATED) {
        node->flags = (node->flags & ~LS_BELOW) | LS_OPAQUE;
        return 0;
    }
    node->flags &= ~(LS_IMPLIED | LS_OPAQUE); /* nothing of it is on disk: only marks asked for it */
    int rc = ls_make_way(unpack, node);
    if (!rc)
        node->flags = LS_WHITEOUT;
    return rc;
}

int ls_place_opaque(struct ls_unpack *unpack, struct ls_node *folder) {
    folder->flags |= LS_OPAQUE;
    ls_mark_filled(folder); /* it implies its directory as a file in it would, whatever else hides that */
    if (folder == unpack->model.root)
        unpack->result.root_opaque = 1;
    return 0;
}
