/* The tree that a stack of layers in aufs's form shows, made of hard links. Read by cffi too. */
#ifndef LS_LINKED_H
#define LS_LINKED_H
#include "../kernel/files/failure.h"

#include <stddef.h>

/* Makes it in the empty directory `target`. `layers` are directory descriptors, the topmost first. Files are linked, so that
   they are those of the layers, with every attribute; directories and what cannot be linked any more are made anew. The
   layers must not change meanwhile. Returns 0, or -errno, with the place in both trees. */
int ls_link_stack(const int *layers, size_t count, int target, struct ls_failure *failure);
#endif
