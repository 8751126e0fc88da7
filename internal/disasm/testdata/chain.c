/* A chain of calls of many shapes. Every function records its arguments in
 * globals as its first act, so that a debugger can tell what they were, and
 * the innermost one traps. Compiled by TestRecoverFromCompiledCode with several
 * options; built and run nowhere else. */
#include <alloca.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))
enum { FUNCTIONS = 16, ARGUMENTS = 8 };
uint64_t recorded[FUNCTIONS][ARGUMENTS];
volatile int zero, one = 1, seven = 7;
volatile uint64_t sink;

#define R(f, i, v) (*(volatile uint64_t *)&recorded[f][i] = (uint64_t)(v))

NOINLINE void touch(void *p) { sink += *(volatile unsigned char *)p; }
NOINLINE uint64_t compute(uint64_t v) { return v * 31 + zero; }

NOINLINE int stop(const char *path, int flags) {
  R(0, 0, path); R(0, 1, flags);
  if (one) __asm__ volatile("ud2");
  return flags;
}
/* Keeps its arguments over a call. */
NOINLINE int keeps(const char *path, int flags, uint64_t mode) {
  R(1, 0, path); R(1, 1, flags); R(1, 2, mode);
  sink = compute(mode);
  int r = stop(path, flags | 0x80000);
  sink += path[0] + flags + mode;
  return r;
}
/* Overwrites an argument on one path. */
NOINLINE int changes(const char *path, uint64_t a, uint64_t b) {
  R(2, 0, path); R(2, 1, a); R(2, 2, b);
  if (seven > 5) a = compute(b);
  int r = keeps(path, (int)a, b);
  sink += a + b;
  return r;
}
/* A buffer in the frame, given away. */
NOINLINE int buffer(const char *name, uint64_t n) {
  char path[300];
  R(3, 0, name); R(3, 1, n);
  memset(path, 0, sizeof path);
  strcpy(path, name);
  touch(path);
  int r = changes(path, n, n ^ 0x55);
  touch(path);
  sink += n;
  return r;
}
/* A loop that changes its variables. */
NOINLINE int loops(const char *name, int n, uint64_t *out) {
  R(4, 0, name); R(4, 1, n); R(4, 2, out);
  int r = 0;
  for (int i = 0; i < n; i++) {
    out[i & 3] = compute(i);
    if (i == n - 1) r = buffer(name + i % 1, out[i & 3]);
    name += zero;
  }
  return r;
}
/* A jump table, and arguments on the stack. */
NOINLINE int many(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  R(5, 0, a); R(5, 1, b); R(5, 2, c); R(5, 3, d); R(5, 4, e); R(5, 5, f); R(5, 6, g); R(5, 7, h);
  uint64_t out[4] = {0};
  int r = 0;
  switch (seven) {
  case 0: sink = compute(a); break;
  case 1: sink = compute(b); b++; break;
  case 2: sink = compute(c + 2); c = b; break;
  case 3: sink = compute(d - 5); break;
  case 4: sink = compute(e ^ a); a = e; break;
  case 5: sink = compute(f | b); break;
  case 6: sink = compute(a + g); break;
  case 7: r = loops((const char *)a, (int)(b & 3) + 1, out); break;
  case 8: sink = compute(h); break;
  }
  sink += out[0] + c + d + e + f + g + h;
  return r;
}
/* An aligned frame. */
NOINLINE int aligned(const char *name, uint64_t n) {
  uint64_t v[8] __attribute__((aligned(64)));
  R(6, 0, name); R(6, 1, n);
  memset(v, (int)n, sizeof v);
  touch(v);
  int r = many((uint64_t)name, n, v[1], n + 1, n + 2, n + 3, n + 4, (uint64_t)v);
  sink += v[2] + n;
  return r;
}
/* A frame of variable size. */
NOINLINE int variable(const char *name, unsigned n) {
  R(7, 0, name); R(7, 1, n);
  char *p = alloca(n + 16 * seven);
  memset(p, 1, n);
  touch(p);
  int r = aligned(name, n);
  sink += p[1] + n;
  return r;
}
/* A large frame. */
NOINLINE int large(const char *name, uint64_t n) {
  char big[100000];
  R(8, 0, name); R(8, 1, n);
  memset(big, 2, sizeof big);
  touch(big);
  int r = variable(name, (unsigned)n);
  touch(big + n);
  return r;
}
/* Variable arguments, as open() has. */
NOINLINE int variadic(const char *name, int flags, ...) {
  va_list ap;
  R(9, 0, name); R(9, 1, flags);
  va_start(ap, flags);
  uint64_t m = va_arg(ap, uint64_t);
  va_end(ap);
  int r = large(name, m);
  sink += flags;
  return r;
}
struct object { int (*call)(struct object *self, const char *name); uint64_t state; };
/* Called through a pointer. */
NOINLINE int method(struct object *self, const char *name) {
  R(10, 0, self); R(10, 1, name);
  int r = variadic(name, 0x241, self->state);
  self->state += r;
  return r;
}
/* Passes what it got, unchanged and not kept. */
NOINLINE int passes(struct object *o, const char *name) {
  R(11, 0, o); R(11, 1, name);
  return o->call(o, name) + one;
}
int main(void) {
  struct object o = {method, 20};
  return passes(&o, "/tmp/ghost.fifo");
}
