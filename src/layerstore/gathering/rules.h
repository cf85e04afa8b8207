/* Which paths are left out: patterns, of which the last one that matches counts. Read by cffi too.
 *
 * A pattern is a row of elements, and ends with LS_RULE_END. All are matched at once, letter by letter, as a set of the
 * elements that could come next: the time is that of the path's letters and of what could still match, whatever the
 * patterns are, and a folder's set serves for all that is in it. */
#ifndef LS_RULES_H
#define LS_RULES_H
#include <stddef.h>
#include <stdint.h>

/* `value` is a letter for LITERAL: a Unicode code point; a byte b that is no UTF-8 is U+DC00 + b. For CLASS it is where in the ranges
 * its own begin. For ALL and DEEP, 1 says that they do not go beyond the end of a line. */
#define LS_RULE_END 0
#define LS_RULE_LITERAL 1
/* One letter that is no slash. */
#define LS_RULE_ANY 2
/* One letter of some ranges, or of none of them. */
#define LS_RULE_CLASS 3
/* Letters that are no slash. */
#define LS_RULE_STAR 4
/* Letters. */
#define LS_RULE_ALL 5
/* Nothing, or letters and a slash; and INSIDE of it, which follows each. */
#define LS_RULE_DEEP 6
#define LS_RULE_INSIDE 7

struct ls_rule_element {
    uint32_t kind, value;
};

/* `takes_back`: what it matches is not left out. `first` is its first element. */
struct ls_rule {
    uint32_t first, takes_back;
};

/* The ranges of a class: 1 if it means all others, their number, and the first and last letter of each. */
struct ls_rules {
    const struct ls_rule *rules;
    size_t count;
    const struct ls_rule_element *elements;
    size_t element_count;
    const uint32_t *ranges;
};

/* Is this path left out, be it there or not? 1, 0 or -errno. `below`: of a folder of that name, could a rule take back
 * something in it? */
int ls_rules_judge(const struct ls_rules *rules, const char *path, int *below);
#endif
