/* A tar header as layerstore writes it: ustar, and PAX records for what ustar cannot say (POSIX pax(1)). */
#ifndef LS_HEADER_H
#define LS_HEADER_H
#include "index.h"

/* Appends the header blocks of `node`, whose path has no leading slash; directories get a trailing one. `xattrs` are
 * canonical. */
int ls_header_put(struct ls_bytes *out, const struct ls_index_node *node, const struct ls_bytes *xattrs,
                  const char *link);
#endif
