package analyze_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"mycore/internal/analyze"
	"mycore/internal/coretest"
	"mycore/internal/coretest/story"
	"mycore/internal/incident"
)

// Note types and places of FreeBSD cores on amd64 (sys/sys/elf_common.h,
// sys/sys/procfs.h, sys/amd64/include/reg.h, sys/sys/user.h), for the mutants.
const (
	bsdPrstatus = 1
	bsdProc     = 8

	bsdPRPid  = 40 // prstatus_t.pr_pid: the LWP
	bsdPRRegs = 48 // prstatus_t.pr_reg

	kinfoSize  = 1088
	kinfoWchan = 64  // ki_wchan
	kinfoWmesg = 411 // ki_wmesg, 9 bytes
	kinfoTID   = 600 // ki_tid
)

// bsdRegs are places in struct reg.
var bsdRegs = map[string]int{"rdi": 64, "rsi": 72, "rbx": 88, "rax": 112, "rip": 136, "rsp": 160}

var stories sync.Map // story.Options -> func() *story.Story

// ghostBSD is the story's incident: a core that a test alters, and beside it
// images and texts.
type ghostBSD struct {
	*coretest.Edit
	s    *story.Story
	dir  string // sysroot/ and the texts
	bare bool   // analyse without the images
}

func newStory(t *testing.T, o story.Options) *ghostBSD {
	t.Helper()
	build, _ := stories.LoadOrStore(o, sync.OnceValue(func() *story.Story { return story.Build(o) }))
	s := build.(func() *story.Story)()
	g := &ghostBSD{Edit: coretest.NewEdit(t, s.Core), s: s, dir: t.TempDir()}
	if _, _, err := s.Write(g.dir); err != nil {
		t.Fatal(err)
	}
	return g
}

// options are those of an analysis with the images and without texts.
func (g *ghostBSD) options(t *testing.T) analyze.Options {
	t.Helper()
	opts := options(t, g.Write(t, "mysqld.core"))
	if !g.bare {
		opts.Sysroot = filepath.Join(g.dir, "sysroot")
	}
	return opts
}

// text is the path of one of the story's texts.
func (g *ghostBSD) text(name string) string { return filepath.Join(g.dir, name) }

// save writes a text of the test's own.
func (g *ghostBSD) save(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "saved.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// alone analyses the core as it is now, without texts.
func (g *ghostBSD) alone(t *testing.T) *analyze.Result {
	t.Helper()
	return run(t, g.options(t))
}

// withServer analyses it with what the server said.
func (g *ghostBSD) withServer(t *testing.T) *analyze.Result {
	t.Helper()
	opts := g.options(t)
	opts.InnoDBStatus, opts.Processlist = g.text("innodb-status.txt"), g.text("processlist.txt")
	return run(t, opts)
}

// desc is what the first note of a type that fits holds.
func (g *ghostBSD) desc(t *testing.T, typ uint32, fits func([]byte) bool) []byte {
	t.Helper()
	le := binary.LittleEndian
	for _, at := range g.s.NoteOffs {
		name, size := le.Uint32(g.B[at:]), le.Uint32(g.B[at+4:])
		desc := g.B[at+12+int(name+3)&^3:][:size]
		if le.Uint32(g.B[at+8:]) == typ && fits(desc) {
			return desc
		}
	}
	t.Fatalf("no note of type %d fits", typ)
	return nil
}

func (g *ghostBSD) prstatus(t *testing.T, lwp int) []byte {
	t.Helper()
	return g.desc(t, bsdPrstatus, func(b []byte) bool { return binary.LittleEndian.Uint32(b[bsdPRPid:]) == uint32(lwp) })
}

func (g *ghostBSD) setReg(t *testing.T, lwp int, name string, v uint64) {
	t.Helper()
	binary.LittleEndian.PutUint64(g.prstatus(t, lwp)[bsdPRRegs+bsdRegs[name]:], v)
}

// kinfo is the kernel's record of a thread.
func (g *ghostBSD) kinfo(t *testing.T, lwp int) []byte {
	t.Helper()
	b := g.desc(t, bsdProc, func([]byte) bool { return true })[4:]
	for ; len(b) >= kinfoSize; b = b[kinfoSize:] {
		if binary.LittleEndian.Uint32(b[kinfoTID:]) == uint32(lwp) {
			return b[:kinfoSize]
		}
	}
	t.Fatalf("no kinfo_proc of %d", lwp)
	return nil
}

func (g *ghostBSD) setWmesg(t *testing.T, lwp int, wmesg string) {
	t.Helper()
	b := g.kinfo(t, lwp)[kinfoWmesg:][:9]
	clear(b)
	copy(b, wmesg)
}

func (g *ghostBSD) putWord(addr, v uint64) {
	binary.LittleEndian.PutUint64(g.Mem(addr, 8), v)
}

// thread is a thread as the builder made it.
func (g *ghostBSD) thread(t *testing.T, lwp int) *story.Thread {
	t.Helper()
	for i := range g.s.Threads {
		if g.s.Threads[i].LWP == lwp {
			return &g.s.Threads[i]
		}
	}
	t.Fatalf("the story has no thread %d", lwp)
	return nil
}

// wantThreads compares LWPs and handles with the builder's; unproven are LWPs
// that must have no handle.
func (g *ghostBSD) wantThreads(t *testing.T, inc *incident.Incident, unproven ...int) {
	t.Helper()
	want, got := map[int]uint64{}, map[int]uint64{}
	for _, th := range g.s.Threads {
		want[th.LWP] = th.Handle
		if slices.Contains(unproven, th.LWP) {
			want[th.LWP] = 0
		}
	}
	for _, th := range inc.Threads {
		got[th.LWP] = 0
		if th.Handle != nil {
			got[th.LWP] = uint64(*th.Handle)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("handles by LWP %#x, want %#x", got, want)
	}
}

// wantWaits compares the wait messages with those that the core has.
func (g *ghostBSD) wantWaits(t *testing.T, inc *incident.Incident) {
	t.Helper()
	for _, th := range g.s.Threads {
		got := threadOf(t, inc, th.LWP).WaitChannel
		switch {
		case th.InCore == "" && got != nil:
			t.Errorf("LWP %d: wait channel %+v, the core has none", th.LWP, got)
		case th.InCore != "" && (got == nil || got.Value != th.InCore || got.Source != "core-note"):
			t.Errorf("LWP %d: wait channel %+v, the core has %s", th.LWP, got, th.InCore)
		}
	}
}

// wantSession finds the session of a connection; lwp 0: on no thread.
func wantSession(t *testing.T, inc *incident.Incident, connection uint64, lwp int) *incident.Session {
	t.Helper()
	for i := range inc.Sessions {
		s := &inc.Sessions[i]
		if s.Connection != connection {
			continue
		}
		got := 0
		if s.LWP != nil {
			got = *s.LWP
		}
		if got != lwp {
			t.Errorf("connection %d is on LWP %d, want %d", connection, got, lwp)
		}
		return s
	}
	t.Fatalf("no connection %d among %d sessions", connection, len(inc.Sessions))
	return nil
}

func evidenceOf(f *incident.Finding, fact string) *incident.Evidence {
	for i := range f.Evidence {
		if f.Evidence[i].Fact == fact {
			return &f.Evidence[i]
		}
	}
	return &incident.Evidence{}
}

const storyCall = `open("/tmp/ghost.fifo", O_RDONLY)`

// The incident that the program was made for.
func TestStory(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	inc := g.withServer(t).Incident
	f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
	if f.Resource == nil || f.Resource.Path != story.FIFO || f.Severity != incident.SeverityCritical || !slices.Equal(f.Connections, []uint64{1}) {
		t.Errorf("resource %+v, %s, connections %d", f.Resource, f.Severity, f.Connections)
	}
	if inc.System.OS != "freebsd" || inc.System.PID == nil || *inc.System.PID != story.PID || inc.System.Libc != "libthr" || inc.Input.Writer != "gcore" {
		t.Errorf("system %+v, writer %q", inc.System, inc.Input.Writer)
	}
	if v := inc.Verdict; v.Status != incident.StatusStuck || v.Coverage.StacksTrusted != 23 || v.Coverage.ThreadsTotal != 23 || v.Coverage.UnknownRoles != 0 {
		t.Errorf("verdict %+v", v)
	}
	if b := inc.Verdict.Impact; b.Blocked == nil || b.Total == nil || *b.Blocked != 1 || *b.Total != 2 {
		t.Errorf("impact %+v", b)
	}
	g.wantThreads(t, inc)
	g.wantWaits(t, inc)
	for _, th := range inc.Threads {
		if th.Idle == nil || *th.Idle != (th.LWP != story.ConnLWP) || th.Role == "" {
			t.Errorf("LWP %d: idle %v, role %q", th.LWP, th.Idle, th.Role)
		}
	}
	th := threadOf(t, inc, story.ConnLWP)
	if th.Handle == nil || *th.Handle != story.ConnHandle || th.WaitChannel == nil || *th.WaitChannel != (incident.Sourced{Value: "fifoor", Source: "core-note"}) {
		t.Errorf("handle %v, wait channel %+v", th.Handle, th.WaitChannel)
	}
	if th.Syscall == nil || th.Syscall.Text != storyCall || th.StartRoutine != "handle_one_connection" {
		t.Errorf("call %+v, started with %s", th.Syscall, th.StartRoutine)
	}
	g.wantStack(t, th)
	if how := evidenceOf(f, "path").How; !strings.Contains(how, "my_open (frame 2): rdi saved in rbx") {
		t.Errorf("the path was found so: %q", how)
	}
	if a := th.Frames[2].Arguments; len(a) != 1 || a[0].Value != story.NameAddr || a[0].Text != story.FIFO {
		t.Errorf("arguments of my_open: %+v", a)
	}
	for _, want := range [][2]string{{"wait channel", "core-note"}, {"system call", "registers"}, {"stack", "memory"}, {"session", "processlist"}, {"handle", "memory"}} {
		if e := evidenceOf(f, want[0]); string(e.Source) != want[1] {
			t.Errorf("evidence %q has the source %q, want %q", want[0], e.Source, want[1])
		}
	}
}

// wantStack compares functions, trust and program counters with what the
// builder ran.
func (g *ghostBSD) wantStack(t *testing.T, th *incident.Thread) {
	t.Helper()
	want := []string{"open", "open", "my_open", "mysql_load", "mysql_execute_command", "mysql_parse", "dispatch_command",
		"do_command", "do_handle_one_connection", "handle_one_connection", "pthread_create"}
	var got []string
	for _, name := range functions(th) {
		name, _, _ = strings.Cut(name, "(")
		got = append(got, name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("stack %q", got)
	}
	built := g.thread(t, th.LWP).Frames
	for i, f := range th.Frames {
		if i >= len(built) || uint64(f.PC) != built[i].PC || f.Module != built[i].Module {
			t.Errorf("frame %d: %+v, want %+v", i, f, built[min(i, len(built)-1)])
		}
		if trust := f.Trust; trust != "cfi" && (i > 0 || trust != "context") {
			t.Errorf("frame %d has the trust %s", i, trust)
		}
	}
}

// Each session is on its thread, with what both texts say.
func TestStorySessions(t *testing.T) {
	t.Parallel()
	inc := newStory(t, story.Options{}).withServer(t).Incident
	if len(inc.Sessions) != 2 {
		t.Fatalf("%d sessions", len(inc.Sessions))
	}
	s := wantSession(t, inc, 1, story.ConnLWP)
	if s.Handle == nil || *s.Handle != story.ConnHandle || s.QueryID == nil || *s.QueryID != 9 || s.State != "System lock" ||
		s.User != "root" || s.Host != "localhost" || s.DB != "fifo" || s.Command != "Query" || s.Time == nil || *s.Time != 13 || s.Query != story.Query {
		t.Errorf("%+v", s)
	}
	for field, want := range map[string]string{"handle": "innodb-status", "lwp": "innodb-status", "queryID": "innodb-status", "user": "processlist", "state": "processlist"} {
		if string(s.Sources[field]) != want {
			t.Errorf("%s comes from %q, want %s", field, s.Sources[field], want)
		}
	}
	if s := wantSession(t, inc, 2, 100461); s.Handle == nil || *s.Handle != story.ConnHandle+0x800 || s.DB != "" {
		t.Errorf("%+v", s)
	}
}

// A person can copy the commands as they are, and is told what nobody tried.
func TestStoryRemedies(t *testing.T) {
	t.Parallel()
	inc := newStory(t, story.Options{}).withServer(t).Incident
	f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
	var ids []string
	for _, r := range f.Remedies {
		ids = append(ids, r.ID)
		all := strings.Join(append(slices.Clone(r.Commands), r.Action, r.Effects, r.Verify, r.Undo, r.Prevent), "\n")
		for _, bad := range []string{"{{", "}}", "/proc/", "<no value>", "wait_for_partner", "python3"} {
			if strings.Contains(all, bad) {
				t.Errorf("%s holds %q: %s", r.ID, bad, all)
			}
		}
	}
	if want := []string{"fifo-write-once", "fifo-sigthr", "fifo-kernel-wakeup", "fifo-kill-server"}; !slices.Equal(ids, want) {
		t.Fatalf("remedies %q, want %q", ids, want)
	}
	lwp, pid := strconv.Itoa(story.ConnLWP), strconv.Itoa(story.PID)
	for i, want := range [][]string{
		{"[ -p " + story.FIFO + " ]", ": > " + story.FIFO},
		{"syscall(481, " + pid + ", " + lwp + ", 32)", "procstat -t " + pid},
		nil, // building a kernel module isn't a command
		{"kill -KILL " + pid, "procstat -t " + pid, lwp},
	} {
		r := &f.Remedies[i]
		if (want == nil) != (len(r.Commands) == 0) {
			t.Errorf("%s: commands %q", r.ID, r.Commands)
		}
		for _, part := range want {
			if !strings.Contains(strings.Join(r.Commands, "\n"), part) {
				t.Errorf("%s: no %q in %q", r.ID, part, r.Commands)
			}
		}
	}
	if to := f.Remedies[1].Target; to == nil || to.PID == nil || to.LWP == nil || *to.PID != story.PID || *to.LWP != story.ConnLWP {
		t.Errorf("target of the signal: %+v", to)
	}
	for _, r := range f.Remedies[1:3] {
		if low := strings.ToLower(r.Action); !strings.Contains(low, "deduced") || !strings.Contains(low, "not measured") {
			t.Errorf("%s isn't marked as deduced: %s", r.ID, r.Action)
		}
	}
	if f.Remedies[2].Risk != "high" || !strings.Contains(f.Remedies[2].Action, "UFS and ZFS") {
		t.Errorf("%+v", f.Remedies[2])
	}
	if f.Kill == nil || f.Kill.Works || !strings.Contains(f.Kill.Source, "Linux") {
		t.Errorf("KILL: %+v: it wasn't measured on FreeBSD", f.Kill)
	}
}

func TestStoryHandle(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	res := g.alone(t)
	for _, c := range []struct {
		text, status string
		lwp          int
	}{
		{"0x829e76000", "found", story.ConnLWP},
		{strconv.FormatUint(story.ConnHandle, 10), "found", story.ConnLWP},
		{"0x829e76800", "found", 100461},
		{"100460", "lwp-id", story.ConnLWP},
		{"0x1886c", "lwp-id", story.ConnLWP},
		{"0x829e76008", "inside", story.ConnLWP},
		{fmt.Sprintf("%#x", story.NameAddr), "not-a-thread", 0},
		{"0x828b0e000", "not-a-thread", 0}, // the THD
		{"0x12345", "unmapped", 0},
	} {
		a := res.Handle(c.text)
		lwp := 0
		if a.Thread != nil {
			lwp = a.Thread.LWP
		}
		if a.Status != c.status || lwp != c.lwp || len(a.Lines) == 0 {
			t.Errorf("%s: %s, LWP %d, %q; want %s, %d", c.text, a.Status, lwp, a.Lines, c.status, c.lwp)
		}
	}
	for _, th := range g.s.Threads {
		if a := res.Handle(fmt.Sprintf("%#x", th.Handle)); a.Status != "found" || a.Thread == nil || a.Thread.LWP != th.LWP {
			t.Errorf("%#x: %+v, want LWP %d", th.Handle, a, th.LWP)
		}
	}
}

// Without any binary the wait and the path are there, and what is lost is said.
func TestStoryWithoutImages(t *testing.T) {
	t.Parallel()
	for _, o := range []story.Options{{}, {Release: 12}, {Release: 13, SegBases: true}, {OldNotes: true, NoStubCFI: true}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			t.Parallel()
			g := newStory(t, o)
			g.bare = true
			inc := g.withServer(t).Incident
			f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
			if f.Resource == nil || f.Resource.Path != story.FIFO || evidenceOf(f, "stack").Value != "" {
				t.Errorf("resource %+v, evidence %+v", f.Resource, f.Evidence)
			}
			if !slices.ContainsFunc(f.Missing, func(s string) bool { return strings.Contains(s, "--sysroot") }) {
				t.Errorf("missing: %q", f.Missing)
			}
			th := threadOf(t, inc, story.ConnLWP)
			if th.Syscall == nil || th.Syscall.Text != storyCall || len(th.Frames) == 0 || th.StackNote == "" {
				t.Errorf("call %+v, %d frames, note %q", th.Syscall, len(th.Frames), th.StackNote)
			}
			g.wantThreads(t, inc)
			g.wantWaits(t, inc)
			wantSession(t, inc, 1, story.ConnLWP)
			for _, th := range inc.Threads {
				if th.Idle != nil && *th.Idle {
					t.Errorf("LWP %d is called idle without a stack", th.LWP)
				}
			}
			if c := inc.Verdict.Coverage; c.StacksTrusted != 0 || c.UnknownRoles != 23 {
				t.Errorf("coverage %+v", c)
			}
			for _, part := range []string{story.MysqldPath, "--sysroot"} {
				if w := warning(t, inc, "binary-missing"); !strings.Contains(w, part) {
					t.Errorf("the warning doesn't name %s: %s", part, w)
				}
			}
		})
	}
}

// Every release and every way to write the notes gives the same answer.
func TestStoryVariants(t *testing.T) {
	t.Parallel()
	for _, o := range []story.Options{
		{Release: 12}, {Release: 13}, {SegBases: true}, {Release: 13, SegBases: true}, {LocalSymbols: true}, {NoStubCFI: true},
		{OldNotes: true, NoStubCFI: true}, {Release: 13, LocalSymbols: true, NoStubCFI: true, SegBases: true},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			t.Parallel()
			g := newStory(t, o)
			inc := g.withServer(t).Incident
			wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
			g.wantThreads(t, inc)
			g.wantWaits(t, inc)
			wantSession(t, inc, 1, story.ConnLWP)
			wantSession(t, inc, 2, 100461)
			if inc.System.PID == nil || *inc.System.PID != story.PID {
				t.Errorf("pid %v", inc.System.PID)
			}
			if c := inc.Verdict.Coverage; c.StacksTrusted != 23 || c.UnknownRoles != 0 {
				t.Errorf("coverage %+v", c)
			}
			th := threadOf(t, inc, story.ConnLWP)
			if th.Syscall == nil || th.Syscall.Text != storyCall || th.StartRoutine != "handle_one_connection" || !hasFunction(th, "my_open") {
				t.Errorf("call %+v, stack %q", th.Syscall, functions(th))
			}
			if !o.OldNotes && (th.Signals == nil || th.Signals.Blocked == nil) {
				t.Errorf("signals %+v", th.Signals)
			}
			for _, th := range inc.Threads {
				if th.Idle == nil || *th.Idle != (th.LWP != story.ConnLWP) {
					t.Errorf("LWP %d: idle %v, state %s, %+v, %q", th.LWP, th.Idle, th.State, th.WaitChannel, functions(&th))
				}
			}
		})
	}
}

// A kernel core lost all wait messages. The call and the statement make the
// label likely; what somebody saved makes it certain.
func TestStoryKernelCore(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{KernelCore: true})
	inc := g.alone(t).Incident
	f := wantOne(t, inc, noWriter, incident.ConfidenceLikely, story.ConnLWP)
	g.wantThreads(t, inc)
	g.wantWaits(t, inc)
	if inc.Input.Writer != "kernel" || inc.System.Signal == nil || inc.System.Signal.Number != 6 {
		t.Errorf("writer %q, signal %+v", inc.Input.Writer, inc.System.Signal)
	}
	th := threadOf(t, inc, story.ConnLWP)
	if th.Syscall == nil || th.Syscall.Text != storyCall || evidenceOf(f, "sleep").Value == "" || evidenceOf(f, "wait channel").Value != "" {
		t.Errorf("call %+v, evidence %+v", th.Syscall, f.Evidence)
	}
	if !slices.ContainsFunc(f.Missing, func(s string) bool { return strings.Contains(s, "procstat -t 1158") }) {
		t.Errorf("missing: %q", f.Missing)
	}
	text := textOf(t, inc)
	if low := strings.ToLower(text); strings.Contains(low, "not waiting") || !strings.Contains(text, "wait channels") {
		t.Errorf("lost wait messages are shown so:\n%s", text)
	}
	for _, r := range f.Remedies {
		for _, c := range r.Commands {
			if strings.Contains(c, "kill") || strings.Contains(c, "syscall") {
				t.Errorf("%s acts on a process that is dead: %s", r.ID, c)
			}
		}
	}
	t.Run("bare", func(t *testing.T) {
		t.Parallel()
		g := newStory(t, story.Options{KernelCore: true})
		g.bare = true
		inc := g.withServer(t).Incident
		for _, f := range inc.Findings {
			if f.Confidence != incident.ConfidencePossible || f.Label != noWriter {
				t.Errorf("%s (%s) on %v", f.Label, f.Confidence, f.LWPs)
			}
		}
		g.wantThreads(t, inc)
		wantSession(t, inc, 1, story.ConnLWP)
	})
	for _, file := range []string{"procstat-t.txt", "procstat-t.json", "procstat-kk.txt"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			g := newStory(t, story.Options{KernelCore: true})
			opts := g.options(t)
			opts.Procstat = g.text(file)
			inc := run(t, opts).Incident
			f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
			fact := "wait channel"
			if strings.Contains(file, "kk") {
				fact = "kernel stack"
			}
			if e := evidenceOf(f, fact); e.Source != "procstat" {
				t.Errorf("evidence %+v", f.Evidence)
			}
		})
	}
}
