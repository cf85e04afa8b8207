/* What is executed first in a container's own house: it becomes the user that the program runs as, and is the program's
   parent, or the program itself.

   It is a program within this library: the library's ELF header says that it begins at `ls_init` (the linker's -e), and
   the kernel loads what has no interpreter by itself. So it needs no file of the container and has no part of the memory
   of the process that started it. In return there is nothing in here but system calls: no C library, and no address that
   a loader would have to put in.

   Arguments: ls_init STATUS UID GID KEEP_PARENT GROUPS group... NAMES name... argument... ; the numbers in decimal. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "house.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* Nothing that a compiler may add is there to be called: canaries and sanitizers need what the C library sets up. */
#define ALONE __attribute__((no_stack_protector, no_sanitize("address"), no_sanitize("undefined")))

#if defined(__x86_64__)
ALONE static long call(long number, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long answer;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return answer;
}
__asm__(".text\n.globl ls_init\n.hidden ls_init\n.type ls_init,@function\nls_init:\n"
        "xor %ebp, %ebp\nmov %rsp, %rdi\nand $-16, %rsp\ncall ls_init_main\nhlt\n.size ls_init, .-ls_init\n");
#elif defined(__aarch64__)
ALONE static long call(long number, long a, long b, long c, long d, long e) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
__asm__(".text\n.globl ls_init\n.hidden ls_init\n.type ls_init,%function\nls_init:\n"
        "mov x29, #0\nmov x30, #0\nmov x0, sp\nand sp, x0, #-16\nbl ls_init_main\nbrk #1\n.size ls_init, .-ls_init\n");
#endif

#if defined(__x86_64__) || defined(__aarch64__)

enum { MOST_GROUPS = 256, SIGNAL_SET = 8 };

ALONE static long number(const char *text) {
    long value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (*text - '0');
    return value;
}

ALONE static void give_up(long status, int step, long answer) {
    struct ls_word word;
    word.step = step;
    word.number = (int)-answer;
    word.position = 0;
    call(SYS_write, status, (long)&word, sizeof word, 0, 0);
    call(SYS_exit_group, 127, 0, 0, 0, 0);
}

/* Becomes the user, then the program. */
ALONE static void execute(long status, char **words, char **env) {
    long uid = number(words[0]), gid = number(words[1]), group_count = number(words[3]);
    char **names = words + 4 + group_count;
    long name_count = number(*names++);
    uint32_t groups[MOST_GROUPS];
    for (long place = 0; place < group_count && place < MOST_GROUPS; place++)
        groups[place] = (uint32_t)number(words[4 + place]);
    uint64_t none = 0;
    long answer = call(SYS_setgroups, group_count, (long)groups, 0, 0, 0);
    if (answer == 0)
        answer = call(SYS_setresgid, gid, gid, gid, 0, 0);
    if (answer == 0)
        answer = call(SYS_setresuid, uid, uid, uid, 0, 0);
    if (answer < 0)
        give_up(status, LS_STEP_USER, answer);
    call(SYS_fcntl, status, F_SETFD, FD_CLOEXEC, 0, 0);
    call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, SIGNAL_SET, 0);
    long refusal = -ENOENT;
    for (long place = 0; place < name_count; place++) {
        answer = call(SYS_execve, (long)names[place], (long)(names + name_count), (long)env, 0, 0);
        if (answer != -ENOENT && answer != -ENOTDIR)
            refusal = answer;
        if (answer != -ENOENT && answer != -ENOTDIR && answer != -EACCES)
            break;
    }
    give_up(status, LS_STEP_PROGRAM, refusal);
}

/* Ends with the program, as it did; buries those whom others leave behind, and passes on what somebody sent it. What a
   terminal sends, the program gets from there too. */
ALONE static void keep(long child) {
    uint64_t all = ~(uint64_t)0;
    siginfo_t told;
    call(SYS_prctl, PR_SET_NAME, (long)"init", 0, 0, 0);
    call(SYS_close_range, 0, ~0U, 0, 0, 0);
    for (;;) {
        long signal = call(SYS_rt_sigtimedwait, (long)&all, (long)&told, 0, SIGNAL_SET, 0);
        if (signal > 0 && signal != SIGCHLD && told.si_code <= 0)
            call(SYS_kill, child, signal, 0, 0, 0);
        int status = 0;
        long ended;
        while ((ended = call(SYS_wait4, -1, (long)&status, 1 /* WNOHANG */, 0, 0)) > 0)
            if (ended == child)
                call(SYS_exit_group, status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff, 0, 0, 0, 0);
    }
}

/* From here on there are two: the first process of the house, which stays in here, and the one that returns, when nothing is
   open in the first any more that whoever runs in the house could see in /proc/1/fd. */
ALONE static void become_first(long status) {
    uint64_t all = ~(uint64_t)0;
    int gate[2];
    char nothing;
    call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, 0, SIGNAL_SET, 0);
    long child = call(SYS_pipe2, (long)gate, O_CLOEXEC, 0, 0, 0);
    if (child == 0)
        child = call(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child < 0)
        give_up(status, LS_STEP_PROGRAM, child);
    if (child > 0)
        keep(child);
    call(SYS_close, gate[1], 0, 0, 0, 0);
    call(SYS_read, gate[0], (long)&nothing, 1, 0, 0);
}

ALONE __attribute__((noreturn, used, visibility("hidden"))) void ls_init_main(long *stack) {
    char **words = (char **)(stack + 1), **env = words + stack[0] + 1;
    long status = number(words[1]);
    words += 2;
    if (number(words[2]))
        become_first(status);
    execute(status, words, env);
    for (;;)
        call(SYS_exit_group, 127, 0, 0, 0, 0);
}

#endif
