/* See spawn.h. In the child, between clone and execve, memory is the parent's, the descriptors and signal handlers are
   not. Its calls are system calls with the C library's thin wrappers; what they leave in errno is the thread's that waits
   for it. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "spawn.h"
#include "../files/scope.h"
#include "../mounts/mount.h"

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
/* linux/sched.h and linux/mount.h, which cannot be included beside sched.h and sys/mount.h of every libc. */
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
enum { ALL_CLOSE_ON_EXEC = 4, FROM_EMPTY_PATH = 4, MOST_TO_CLOSE = 1 << 16, STACK = 1 << 16 };
enum { LAST_SIGNAL = 64, SIGNAL_SET = 8 };

static void tell(const struct ls_program *program, const struct ls_word *word) {
    while (write(program->status[1], word, sizeof *word) < 0 && errno == EINTR)
        continue;
}

_Noreturn static void give_up(const struct ls_program *program, int step, int number, int position) {
    struct ls_word word = {.step = step, .number = number, .position = position};
    tell(program, &word);
    _exit(127);
}

static int without_close_on_exec(int fd) {
    int flags = fcntl(fd, F_GETFD);
    return flags < 0 ? -1 : fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC);
}

/* A descriptor once more, away from 0, 1 and 2. */
static int away(int fd) {
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int nothing(void) {
    LS_CLOSED int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    return fd < 0 ? -1 : away(fd);
}

/* Descriptors: the three streams, those that are kept, and none else. */
static void take_streams(const struct ls_program *program) {
    int high[3];
    /* They may be 0, 1 and 2 in another order. */
    for (int stream = 0; stream < 3; stream++) {
        int given = program->streams[stream];
        high[stream] = given == LS_STREAM_SAME ? -1 : given == LS_STREAM_NULL ? nothing() : away(given);
        if (given != LS_STREAM_SAME && high[stream] < 0)
            give_up(program, LS_STEP_STREAMS, errno, stream);
    }
    for (int stream = 0; stream < 3; stream++)
        if (high[stream] >= 0 && dup2(high[stream], stream) < 0)
            give_up(program, LS_STEP_STREAMS, errno, stream);
    if (syscall(SYS_close_range, 3, ~0U, ALL_CLOSE_ON_EXEC) < 0) {
        /* Before Linux 5.11. */
        struct rlimit limit = {0};
        getrlimit(RLIMIT_NOFILE, &limit);
        for (int fd = 3; fd < MOST_TO_CLOSE && (rlim_t)fd < limit.rlim_cur; fd++)
            fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    for (size_t number = 0; number < program->kept_count; number++)
        if (without_close_on_exec(program->kept[number]) < 0)
            give_up(program, LS_STEP_STREAMS, errno, program->kept[number]);
}

/* As the kernel has it. The C library keeps signals 32 and 33 to itself, and would leave them ignored. */
struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

/* As a program expects to be started: no signal blocked, none handled by what it was; those that Python ignores are not
   ignored, others that its caller had ignored (nohup) are. In a house nothing is as its caller had it; what comes first
   there waits for signals, and unblocks them for the program. */
static void default_signals(int in_house) {
    const struct kernel_action plain = {.handler = SIG_DFL};
    for (long number = 1; number <= LAST_SIGNAL; number++) {
        struct kernel_action now;
        if (syscall(SYS_rt_sigaction, number, NULL, &now, SIGNAL_SET) < 0)
            continue;
        int is_kept = now.handler == SIG_IGN && !in_house && number != SIGPIPE && number != SIGXFSZ;
        if (now.handler != SIG_DFL && !is_kept)
            syscall(SYS_rt_sigaction, number, &plain, NULL, SIGNAL_SET);
    }
    if (in_house)
        return;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What is mounted here is seen nowhere else; what is unmounted on the host goes here too. */
static void take_tree(const struct ls_program *program) {
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        give_up(program, LS_STEP_PRIVATE, errno, 0);
    int emptied = program->emptied ? ls_unmount_below(program->emptied) : 0;
    if (emptied < 0)
        give_up(program, LS_STEP_HIDE, -emptied, -1);
    for (int number = 0; program->hidden[number]; number++)
        if (umount2(program->hidden[number], MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
            give_up(program, LS_STEP_HIDE, errno, number);
    if (syscall(SYS_move_mount, program->tree, "", AT_FDCWD, program->root, FROM_EMPTY_PATH) < 0)
        give_up(program, LS_STEP_ATTACH, errno, 0);
    for (size_t number = 0; number < program->more_count; number++)
        if (syscall(SYS_move_mount, program->more[number], "", AT_FDCWD, program->places[number], FROM_EMPTY_PATH) < 0)
            give_up(program, LS_STEP_ATTACH, errno, (int)number + 1);
}

static void wait_at_gate(const struct ls_program *program) {
    char byte;
    ssize_t got;
    while ((got = read(program->gate[0], &byte, 1)) < 0 && errno == EINTR)
        continue;
    if (got != 1)
        _exit(127); /* nobody knows of this process */
    prctl(PR_SET_PDEATHSIG, 0);
}

_Noreturn static void execute(const struct ls_program *program) {
    int refusal = ENOENT;
    for (int number = 0; program->names[number]; number++) {
        execve(program->names[number], (char *const *)program->argv, (char *const *)program->env);
        if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
            give_up(program, LS_STEP_PROGRAM, errno, number);
        if (errno == EACCES)
            refusal = EACCES;
    }
    give_up(program, LS_STEP_PROGRAM, refusal, 0);
}

/* What is executed in a container's own house tells itself what became of the program. */
_Noreturn static void execute_image(const struct ls_program *program) {
    if (without_close_on_exec(program->status[1]) < 0)
        give_up(program, LS_STEP_STREAMS, errno, program->status[1]);
    syscall(SYS_execveat, program->house->image, "", program->argv, program->env, AT_EMPTY_PATH);
    give_up(program, LS_STEP_INIT, errno, 0);
}

/* A folder is the container's, or the host's. */
static void enter(const struct ls_program *program) {
    if (program->new_session && setsid() < 0)
        give_up(program, LS_STEP_SESSION, errno, 0);
    if (!program->folder)
        return;
    if ((program->house ? ls_enter(program->house, program->folder) : chdir(program->folder)) < 0)
        give_up(program, LS_STEP_FOLDER, errno, 0);
}

static void move_in(const struct ls_program *program) {
    const struct ls_house *house = program->house;
    struct ls_word word = {0};
    if (ls_move_in(house, program->tree, &word) < 0)
        give_up(program, word.step, word.number, word.position);
    enter(program);
    if (!house->terminal)
        return;
    word.number = ls_own_terminal(&word);
    if (word.number < 0)
        give_up(program, word.step, errno, 0);
    word.step = LS_STEP_READY;
    tell(program, &word);
}

_Noreturn static void live(const struct ls_program *program) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(program->gate[1]);
    close(program->status[0]);
    take_streams(program);
    take_tree(program);
    if (program->house)
        move_in(program);
    else
        enter(program);
    wait_at_gate(program);
    default_signals(program->house != NULL);
    if (program->house)
        execute_image(program);
    execute(program);
}

struct start {
    const struct ls_program *program;
    pthread_t thread;
    sem_t begun;
    int pidfd;
    int answer;
    _Alignas(16) char stack[STACK];
};

static int child_of(void *argument) {
    struct start *start = argument;
    sem_post(&start->begun);
    live(start->program);
}

/* The thread that is suspended while its child has its memory. */
static void *parent_of(void *argument) {
    struct start *start = argument;
    const struct ls_house *house = start->program->house;
    int flags = CLONE_VM | CLONE_VFORK | CLONE_NEWNS | CLONE_PIDFD | SIGCHLD | (house ? (int)house->namespaces : 0);
    if (clone(child_of, start->stack + STACK, flags, start, &start->pidfd) < 0) {
        start->answer = -errno;
        sem_post(&start->begun);
    }
    return NULL;
}

static void end(struct start *start) {
    pthread_join(start->thread, NULL);
    sem_destroy(&start->begun);
    free(start);
}

int ls_launch(const struct ls_program *program, struct ls_child *child) {
    struct start *start = malloc(sizeof *start);
    if (!start)
        return -ENOMEM;
    start->program = program;
    start->pidfd = -1;
    start->answer = 0;
    sem_init(&start->begun, 0, 0);
    sigset_t all, before;
    sigfillset(&all);
    /* No handler of Python's is to run in the thread, or in the child. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&start->thread, NULL, parent_of, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0) {
        sem_destroy(&start->begun);
        free(start);
        return -failure;
    }
    while (sem_wait(&start->begun) < 0 && errno == EINTR)
        continue;
    int answer = start->answer;
    child->pidfd = start->pidfd;
    child->start = start;
    if (answer < 0)
        end(start);
    return answer;
}

void ls_launched(struct ls_child *child) {
    end(child->start);
    child->start = NULL;
}

int ls_descriptor_of(int pidfd, int fd) {
    long taken = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    return taken < 0 ? -errno : (int)taken;
}
