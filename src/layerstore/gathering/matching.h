/* Paths against rules: what is known of a folder, and what follows for a name in it. See rules.h. */
#ifndef LS_MATCHING_H
#define LS_MATCHING_H
#include "rules.h"

#include <stdbool.h>

/* What is known of a path, in one block of memory: the elements that could come next, and the rules that matched it or a folder
 * above it. */
struct ls_match {
    bool left_out;
    uint64_t bits[];
};

size_t ls_match_size(const struct ls_rules *rules);
/* Of the root, which nothing matches. */
void ls_match_root(const struct ls_rules *rules, struct ls_match *root);
/* Of `name` in the folder `above`; `spare` is memory of the same size. */
void ls_match_name(const struct ls_rules *rules, const struct ls_match *above, const char *name, struct ls_match *match,
                   struct ls_match *spare);
/* Makes of what is known of a name what is known of it as a folder. True: a rule that takes back could match in it. */
bool ls_match_enter(const struct ls_rules *rules, struct ls_match *match, struct ls_match *spare);
#endif
