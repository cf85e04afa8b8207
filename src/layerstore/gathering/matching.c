/* See matching.h. */
#include "matching.h"

#include <string.h>

static size_t set_words(const struct ls_rules *rules) {
    return (rules->element_count + 63) / 64;
}

static size_t rule_words(const struct ls_rules *rules) {
    return (rules->count + 63) / 64;
}

size_t ls_match_size(const struct ls_rules *rules) {
    return sizeof(struct ls_match) + (set_words(rules) + rule_words(rules)) * sizeof(uint64_t);
}

static bool has(const uint64_t *bits, size_t number) {
    return bits[number / 64] >> (number % 64) & 1;
}

static void set(uint64_t *bits, size_t number) {
    bits[number / 64] |= UINT64_C(1) << (number % 64);
}

/* Adds an element, and what may come in its place because it may be nothing. */
static void add(const struct ls_rules *rules, uint64_t *next, size_t at) {
    for (;;) {
        set(next, at);
        uint32_t kind = rules->elements[at].kind;
        if (kind == LS_RULE_STAR || kind == LS_RULE_ALL)
            at++;
        else if (kind == LS_RULE_DEEP)
            at += 2;
        else
            return;
    }
}

static bool in_class(const uint32_t *class, uint32_t letter) {
    const uint32_t *range = class + 2;
    for (uint32_t i = 0; i < class[1]; i++, range += 2)
        if (range[0] <= letter && letter <= range[1])
            return !class[0];
    return class[0];
}

/* What may come after this letter, if `at` was what came. */
static void follow(const struct ls_rules *rules, uint64_t *next, size_t at, uint32_t letter) {
    const struct ls_rule_element *element = &rules->elements[at];
    bool within = letter != '\n' || !element->value;
    switch (element->kind) {
    case LS_RULE_LITERAL:
        if (letter == element->value)
            add(rules, next, at + 1);
        break;
    case LS_RULE_ANY:
        if (letter != '/')
            add(rules, next, at + 1);
        break;
    case LS_RULE_CLASS:
        if (in_class(rules->ranges + element->value, letter))
            add(rules, next, at + 1);
        break;
    case LS_RULE_STAR:
        if (letter != '/')
            add(rules, next, at);
        break;
    case LS_RULE_ALL:
        if (within)
            add(rules, next, at);
        break;
    case LS_RULE_DEEP:
    case LS_RULE_INSIDE: {
        size_t inside = at + (element->kind == LS_RULE_DEEP);
        if (within)
            set(next, inside);
        if (letter == '/')
            add(rules, next, inside + 1);
        break;
    }
    default: /* the end: nothing more may come */
        break;
    }
}

/* False: nothing can match any more. */
static bool step(const struct ls_rules *rules, uint64_t *bits, uint64_t *spare, uint32_t letter) {
    size_t words = set_words(rules);
    uint64_t any = 0;
    memset(spare, 0, words * sizeof *spare);
    for (size_t word = 0; word < words; word++)
        for (uint64_t rest = bits[word]; rest; rest &= rest - 1)
            follow(rules, spare, word * 64 + (size_t)__builtin_ctzll(rest), letter);
    for (size_t word = 0; word < words; word++)
        any |= bits[word] = spare[word];
    return any;
}

/* The next letter, and how many bytes it has. */
static size_t letter_of(const unsigned char *text, uint32_t *letter) {
    static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = *text < 0x80 ? 1 : *text < 0xc0 ? 0 : *text < 0xe0 ? 2 : *text < 0xf0 ? 3 : *text < 0xf8 ? 4 : 0;
    uint32_t value = length > 1 ? *text & (0x7f >> length) : *text;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            length = 0;
        else
            value = value << 6 | (text[i] & 0x3f);
    }
    bool surrogate = value >= 0xd800 && value <= 0xdfff;
    if (length && value >= LEAST[length] && value <= 0x10ffff && !surrogate) {
        *letter = value;
        return length;
    }
    *letter = 0xdc00 + *text;
    return 1;
}

void ls_match_root(const struct ls_rules *rules, struct ls_match *root) {
    memset(root, 0, ls_match_size(rules));
    for (size_t i = 0; i < rules->count; i++)
        add(rules, root->bits, rules->rules[i].first);
}

static size_t end_of(const struct ls_rules *rules, size_t number) {
    return (number + 1 < rules->count ? rules->rules[number + 1].first : rules->element_count) - 1;
}

/* As moby's MatchesUsingParentResults: what would alter nothing is not looked at, and counts as no match for what is below. */
static void judge(const struct ls_rules *rules, const struct ls_match *above, struct ls_match *match) {
    const uint64_t *inherited = above->bits + set_words(rules);
    uint64_t *matched = match->bits + set_words(rules);
    memset(matched, 0, rule_words(rules) * sizeof *matched);
    match->left_out = false;
    for (size_t i = 0; i < rules->count; i++) {
        bool takes_back = rules->rules[i].takes_back;
        if (!has(inherited, i) && (takes_back != match->left_out || !has(match->bits, end_of(rules, i))))
            continue;
        set(matched, i);
        match->left_out = !takes_back;
    }
}

void ls_match_name(const struct ls_rules *rules, const struct ls_match *above, const char *name, struct ls_match *match,
                   struct ls_match *spare) {
    const unsigned char *at = (const unsigned char *)name;
    uint32_t letter;
    memcpy(match->bits, above->bits, set_words(rules) * sizeof *match->bits);
    bool alive = true;
    while (*at && alive) {
        at += letter_of(at, &letter);
        alive = step(rules, match->bits, spare->bits, letter);
    }
    judge(rules, above, match);
}

bool ls_match_enter(const struct ls_rules *rules, struct ls_match *match, struct ls_match *spare) {
    step(rules, match->bits, spare->bits, '/');
    for (size_t i = 0; i < rules->count; i++)
        for (size_t at = rules->rules[i].first; rules->rules[i].takes_back && at <= end_of(rules, i); at++)
            if (has(match->bits, at))
                return true;
    return false;
}
