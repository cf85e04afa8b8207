/* See rules.h. */
#include "rules.h"
#include "matching.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int ls_rules_judge(const struct ls_rules *rules, const char *path, int *below) {
    size_t size = ls_match_size(rules);
    struct ls_match *match = malloc(size), *above = malloc(size), *spare = malloc(size);
    char *names = strdup(path), *rest = NULL;
    int rc = match && above && spare && names ? 0 : -ENOMEM;
    if (!rc)
        ls_match_root(rules, match);
    for (char *name = rc ? NULL : strtok_r(names, "/", &rest); name; name = strtok_r(NULL, "/", &rest)) {
        memcpy(above, match, size);
        ls_match_name(rules, above, name, match, spare);
        rc = match->left_out;
        *below = ls_match_enter(rules, match, spare);
    }
    free(match);
    free(above);
    free(spare);
    free(names);
    return rc;
}
