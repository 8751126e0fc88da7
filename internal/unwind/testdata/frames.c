/* A stack with one frame of every kind that is hard to unwind. The test builds
 * it, stops it in stop_here under gdb, and has a core written.
 *
 *   main -> realigned -> with_rbp -> bare -> callback -> null pointer
 *   -> SIGSEGV on an alternate stack -> handler -> recurse -> stop_here
 */
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))

volatile int depth = 5;
void (*volatile null_pointer)(void);
char *volatile escape;

/* Assembler functions without call frame information: with_rbp sets up a frame
 * pointer, bare doesn't. */
__asm__(".text\n"
        ".globl with_rbp, bare\n"
        ".type with_rbp, @function\n"
        ".type bare, @function\n"
        "with_rbp: push %rbp\n mov %rsp, %rbp\n sub $48, %rsp\n call bare\n leave\n ret\n"
        ".size with_rbp, .-with_rbp\n"
        "bare: sub $24, %rsp\n call *%rdi\n add $24, %rsp\n ret\n"
        ".size bare, .-bare\n");
void with_rbp(void (*)(void));

KEEP void stop_here(void) { __asm__ volatile("" ::: "memory"); }

KEEP int recurse(int n) {
  if (n == 0) {
    stop_here();
    return 0;
  }
  return recurse(n - 1) + 1;
}

KEEP void handler(int sig) { depth += recurse(depth) + sig; }

KEEP void callback(void) {
  null_pointer();
  depth++;
}

/* The stack pointer is realigned and moved by an amount not known before: the
 * CFA is an expression. */
KEEP void realigned(int n) {
  char big[64] __attribute__((aligned(64)));
  escape = big;
  escape = alloca(n);
  with_rbp(callback);
  memset(big, n, sizeof big);
}

pthread_barrier_t started;

KEEP void *thread(void *arg) {
  pthread_barrier_wait(&started);
  pause();
  return arg;
}

int main(int argc, char **argv) {
  (void)argv;
  pthread_t t;
  pthread_barrier_init(&started, NULL, 2);
  pthread_create(&t, NULL, thread, NULL);
  pthread_barrier_wait(&started);
  stack_t ss = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
  sigaltstack(&ss, NULL);
  struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
  sigaction(SIGSEGV, &sa, NULL);
  realigned(100 * argc);
  return depth;
}
