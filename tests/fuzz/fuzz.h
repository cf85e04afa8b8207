/* What all fuzzed parts need: numbers out of the input, and trees on a tmpfs that are empty again each time.
 *
 * A target is one file with `LLVMFuzzerTestOneInput` (LLVM, "libFuzzer"); it runs in a folder of a tmpfs, which is its working
 * directory. What must hold is said by `must`, since a release build knows no assert. */
#ifndef FUZZ_H
#define FUZZ_H
#define _GNU_SOURCE
#include "kernel/files/remove.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define must(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at, *end;
};

static inline uint8_t input_byte(struct input *input) {
    return input->at < input->end ? *input->at++ : 0;
}

static inline size_t input_left(const struct input *input) {
    return (size_t)(input->end - input->at);
}

/* A directory descriptor of an empty folder of this name. */
static inline int fresh(const char *name) {
    struct ls_failure failure;
    must(ls_remove_tree(name, 1, &failure) == 0);
    must(mkdir(name, 0755) == 0);
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(fd >= 0);
    return fd;
}
#endif
