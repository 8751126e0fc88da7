/* Accessors of the shapes that servers have, with the truth beside them. */
#include <stddef.h>

struct inner { char pad[0x30]; unsigned long number; const char *text; short small; };
struct text { char *str; unsigned long length; };
struct session {
	char pad0[0x48];
	struct inner *in;
	char pad1[0x98];
	struct inner embedded;
	struct text query;
	char pad2[0x1b00];
	unsigned long id;
	unsigned long handle;
	unsigned int killed;
	unsigned char flag;
	unsigned long serial;
	int command;
	struct text *slots[16];
};

#define OUT __attribute__((noipa, visibility("default")))

extern void log_line(char *buf, unsigned long size, const char *format, ...);
extern void wrote(void *p);
extern unsigned long thread_self(void);
extern struct session *current(void);

OUT unsigned long get_id(const struct session *s) { return s->id; }
OUT unsigned int get_killed(const struct session *s) { return s->killed; }
OUT int get_flag(const struct session *s) { return s->flag; }
OUT long get_small(const struct session *s) { return s->embedded.small; }
OUT struct text *get_query(struct session *s) { return &s->query; }
OUT unsigned long get_deep(const struct session *s) { return s->in->number; }
OUT const char *get_checked(const struct session *s) { return s->in ? s->in->text : 0; }
OUT unsigned int get_default(const struct session *s) { if (!s) s = current(); return s->killed; }
OUT unsigned long tail(const struct session *s) { return get_id(s); }
OUT int decided(const struct session *s) { return s->flag && s->killed == 7; }
OUT void set_command(struct session *s, int command) { s->command = command; }
OUT void set_handle(struct session *s) { s->handle = thread_self(); }
OUT void give(struct session *s, const char **out) { *out = s->in->text; }
OUT struct text *slot(struct session *s, const unsigned int *number) { return s->slots[number[2]]; }
OUT unsigned long kept(struct session *s) { wrote(0); return s->id; }
OUT unsigned long nested(struct session *s) { return get_deep(s) ? get_deep(s) : 0; }
OUT void describe(struct session *s, char *out)
{
	char buf[128];
	log_line(buf, sizeof buf, "id %lu, handle %lu, serial %lu", s->id, s->handle, s->serial);
	if (s->flag)
		wrote(buf);
	wrote(out);
}

/* name of the function, then offsets of the walk, -1 ends it */
OUT const long truth[][3] = {
	{ offsetof(struct session, id), -1 },
	{ offsetof(struct session, killed), -1 },
	{ offsetof(struct session, flag), -1 },
	{ offsetof(struct session, embedded.small), -1 },
	{ offsetof(struct session, query), -1 },
	{ offsetof(struct session, in), offsetof(struct inner, number), -1 },
	{ offsetof(struct session, in), offsetof(struct inner, text), -1 },
	{ offsetof(struct session, killed), -1 },
	{ offsetof(struct session, id), -1 },
	{ offsetof(struct session, flag), -1 },
	{ offsetof(struct session, command), -1 },
	{ offsetof(struct session, handle), -1 },
	{ offsetof(struct session, in), offsetof(struct inner, text), -1 },
	{ offsetof(struct session, slots), -1 },
	{ offsetof(struct session, id), -1 },
	{ offsetof(struct session, in), offsetof(struct inner, number), -1 },
	{ offsetof(struct session, id), -1 },
	{ offsetof(struct session, handle), -1 },
	{ offsetof(struct session, serial), -1 },
};

#ifdef MAIN
__attribute__((noipa)) void log_line(char *buf, unsigned long size, const char *format, ...) { __asm__ volatile("" : : "r"(buf), "r"(format) : "memory"); }
__attribute__((noipa)) void wrote(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }
__attribute__((noipa)) unsigned long thread_self(void) { unsigned long v; __asm__ volatile("" : "=r"(v)); return v; }
__attribute__((noipa)) struct session *current(void) { struct session *v; __asm__ volatile("" : "=r"(v)); return v; }
int main(void) { return 0; }
#endif
