// Types with everything that layouts meet in servers. Prints for each field
// "STRUCT NAME OFFSET SIZE BIT BITS" as the compiler and the running program
// have it; bit fields are found by setting them in a zeroed object.
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <new>

#pragma GCC diagnostic ignored "-Winvalid-offsetof"

typedef struct st_lex { char *str; size_t length; } LEX_STRING;
typedef struct { int a; long b; } NAMELESS;

struct Opaque;
struct Base { virtual ~Base() {} long base_first; int base_second; };
class Other { public: short other[3]; Opaque *opaque; };
struct Virtual { int far_away; };

namespace deep { namespace er {
struct Spaced {
  char pad[3];
  volatile const unsigned short value;
  Spaced() : value(7) {}
};
}
struct er_same { int decoy; };
}

namespace {
struct Same { long decoy[4]; };  // another structure of the name
}
Same decoy_user;
namespace deep { struct Same { char c; int real; }; }

struct Outer {
  struct Inner { long long first; char text[17]; struct Innermost { int x, y; } in[2][3]; };
  class Late;
  Inner inner;
  enum Colour { red, green } colour;
};
class Outer::Late { public: char c; double d; };

struct All : public Base, public Other {
  static int shared;
  bool flag;
  unsigned low : 3, mid : 9, high : 20;
  long long wide : 40;
  unsigned char tiny : 1;
  union {
    long as_long;
    struct { int lo, hi; };
    char bytes[8];
  };
  union Named { double d; unsigned char raw[12]; } named;
  LEX_STRING db;
  Outer::Inner nested;
  const char *name;
  int (*call)(All *);
  int Other::*member;
  char &ref;
  unsigned char buffer[512];
  deep::er::Spaced spaced;
  struct { long in_anon; } anon_struct;
  float ratio;
  Outer::Colour colour;
  All *next[4];
  explicit All(char &c) : ref(c) {}
};
int All::shared = 1;
struct Virt : public virtual Virtual { int own; };

#define AT(S, F) printf(#S " " #F " %zu %zu 0 0\n", offsetof(S, F), sizeof(((S *)one)->F))
#define BITS(S, F) do { \
  memset(one, 0, sizeof one); ((S *)one)->F = -1; \
  int at = -1, n = 0; \
  for (size_t i = 0; i < sizeof(S) * 8; i++) if (one[i / 8] >> (i % 8) & 1) { if (at < 0) at = i; n++; } \
  printf(#S " " #F " %d %d %d %d\n", at / 8, (at % 8 + n + 7) / 8, at % 8, n); } while (0)

alignas(64) unsigned char one[4096];

void print_types() {
  typedef deep::er::Spaced Spaced;
  typedef deep::Same Same;
  typedef Outer::Late Late;
  AT(All, base_first); AT(All, base_second); AT(All, other); AT(All, opaque);
  AT(All, flag); AT(All, as_long); AT(All, lo); AT(All, hi); AT(All, bytes);
  AT(All, named); AT(All, named.d); AT(All, named.raw);
  AT(All, db); AT(All, db.str); AT(All, db.length);
  AT(All, nested); AT(All, nested.first); AT(All, nested.text); AT(All, nested.in);
  AT(All, name); AT(All, call); AT(All, member); AT(All, buffer);
  AT(All, spaced.value); AT(All, anon_struct.in_anon); AT(All, ratio); AT(All, colour); AT(All, next);
  BITS(All, low); BITS(All, mid); BITS(All, high); BITS(All, wide);
  BITS(All, tiny);
  AT(Spaced, value); AT(Same, real); AT(Late, d); AT(NAMELESS, b);
  AT(Outer, inner.text); AT(Outer, colour); AT(Virt, own);
  printf("size All %zu Spaced %zu Same %zu Late %zu NAMELESS %zu Outer %zu Virt %zu\n", sizeof(All), sizeof(Spaced),
         sizeof(Same), sizeof(Late), sizeof(NAMELESS), sizeof(Outer), sizeof(Virt));
}

int main() {
  char c = 0;
  alignas(All) static unsigned char room[sizeof(All)];
  All *all = new (room) All(c);
  Outer::Late late = {};
  NAMELESS nameless = {};
  deep::Same same = {};
  Virt virt;
  all->named.d = late.d + nameless.b + same.real + virt.own + decoy_user.decoy[0];
  print_types();
  return all->ref;
}
