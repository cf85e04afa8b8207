/* Files whose data are not there yet: fanotify's pre-content events (Linux 6.14). Read by cffi too.
 *
 * Whoever reads a marked file waits until a listener has answered. If nobody has the group's descriptor any more, the
 * kernel lets all reads pass: what is not there is read as zeros. So more than one process should have it. */
#ifndef LS_WATCHING_H
#define LS_WATCHING_H
#include <stdint.h>

/* A read that waits: `file` is a descriptor of what is read, and the number by which it is answered. A write or a
 * truncation waits, too. */
struct ls_waiting {
    uint64_t offset;
    uint64_t length; /* 0: the kernel has not told a range, which is all of the file */
    int file;
    int pid;
};

/* A new group's descriptor, non-blocking and closed on exec; or -errno. */
int ls_watch_new(void);
/* From here on whoever opens the file and reads it waits. Not who has it open already. 0, or -errno. */
int ls_watch_mark(int group, int file);
/* The opposite. 0 where it was not marked, too. */
int ls_watch_unmark(int group, int file);
/* Those that wait and were not given out yet: how many; 0 if there are none; or -errno. At most `most`. */
int ls_watch_read(int group, struct ls_waiting *waiting, int most);
/* Lets a read go on, or (`error`: EIO) fail. Of the number nothing else need be known than that. -ENOENT: none has it. */
int ls_watch_answer(int group, int file, int error);
#endif
