package analyze_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"mycore/internal/analyze"
	"mycore/internal/coretest"
	"mycore/internal/demo"
	"mycore/internal/incident"
	"mycore/internal/report"
)

const (
	noWriter = "fifo-open-no-writer"
	noReader = "fifo-open-no-reader"
)

// demoCore returns the bytes of the embedded incident's core.
var demoCore = sync.OnceValues(func() ([]byte, error) {
	dir, err := demo.Extract("")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	f, err := os.Open(filepath.Join(dir, demo.Core))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return io.ReadAll(z)
})

// ghost is the embedded incident with what its notes, memory and /proc text
// say, read without the packages under test.
type ghost struct {
	*coretest.Edit
	proc string // a copy of the /proc tree, free to alter
	lwp  int    // the thread in open()
	path string
	pid  int
}

func newGhost(t *testing.T) *ghost {
	t.Helper()
	core, err := demoCore()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := demo.Extract(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g := &ghost{Edit: coretest.NewEdit(t, core), proc: filepath.Join(dir, demo.Proc)}
	waits, err := filepath.Glob(filepath.Join(g.proc, "task", "*", "wchan"))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range waits {
		if b, err := os.ReadFile(w); err == nil && strings.TrimSpace(string(b)) == "wait_for_partner" {
			g.lwp, _ = strconv.Atoi(filepath.Base(filepath.Dir(w)))
		}
	}
	if g.lwp == 0 {
		t.Fatal("no thread of the saved /proc tree waits in wait_for_partner")
	}
	g.path = g.CString(g.Reg(g.lwp, coretest.RegRSI))
	if !strings.HasPrefix(g.path, "/") {
		t.Fatalf("the blocked thread opens %q", g.path)
	}
	g.pid = g.Threads()[0]
	return g
}

// others returns threads that aren't the blocked one and not the first, which
// took the signal.
func (g *ghost) others(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for _, lwp := range g.Threads()[1:] {
		if lwp != g.lwp && len(out) < n {
			out = append(out, lwp)
		}
	}
	if len(out) < n {
		t.Fatalf("the core has too few threads")
	}
	return out
}

// procFile replaces a file of the /proc tree.
func (g *ghost) procFile(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(g.proc, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func task(lwp int, name string) string { return filepath.Join("task", strconv.Itoa(lwp), name) }

// options are those of an analysis without any file of this machine.
func options(t *testing.T, core string) analyze.Options {
	return analyze.Options{
		Core: core, Sysroot: t.TempDir(), NoSystemDirs: true, Offline: true, TempDir: t.TempDir(),
		Tool: incident.Tool{Name: "mycore", Version: "test"},
	}
}

func run(t *testing.T, opts analyze.Options) *analyze.Result {
	t.Helper()
	res, err := analyze.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := res.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return res
}

// alone analyses the core as it is now, without the /proc tree.
func (g *ghost) alone(t *testing.T) *analyze.Result {
	t.Helper()
	return run(t, options(t, g.Write(t, "ghost.core")))
}

// both analyses it with the tree.
func (g *ghost) both(t *testing.T) *analyze.Result {
	t.Helper()
	opts := options(t, g.Write(t, "ghost.core"))
	opts.Proc = g.proc
	return run(t, opts)
}

// wantNothing fails if any label was given.
func wantNothing(t *testing.T, inc *incident.Incident) {
	t.Helper()
	for _, f := range inc.Findings {
		t.Errorf("label %s (%s) on %v: %s", f.Label, f.Confidence, f.LWPs, f.Title)
	}
	for _, th := range inc.Threads {
		if len(th.Labels) > 0 {
			t.Errorf("LWP %d has labels %v", th.LWP, th.Labels)
		}
	}
}

// wantOne returns the only finding, which must be this one.
func wantOne(t *testing.T, inc *incident.Incident, label, confidence string, lwp int) *incident.Finding {
	t.Helper()
	if len(inc.Findings) != 1 {
		wantNothing(t, inc)
		t.Fatalf("%d findings, want %s alone", len(inc.Findings), label)
	}
	f := &inc.Findings[0]
	if f.Label != label || f.Confidence != confidence || !slices.Equal(f.LWPs, []int{lwp}) {
		t.Errorf("%s (%s) on %v, want %s (%s) on %d", f.Label, f.Confidence, f.LWPs, label, confidence, lwp)
	}
	for _, th := range inc.Threads {
		if want := th.LWP == lwp; slices.Contains(th.Labels, label) != want || !want && len(th.Labels) > 0 {
			t.Errorf("LWP %d has labels %v", th.LWP, th.Labels)
		}
	}
	return f
}

func threadOf(t *testing.T, inc *incident.Incident, lwp int) *incident.Thread {
	t.Helper()
	for i := range inc.Threads {
		if inc.Threads[i].LWP == lwp {
			return &inc.Threads[i]
		}
	}
	t.Fatalf("no LWP %d in the incident", lwp)
	return nil
}

// warning returns the text of the first warning with a code.
func warning(t *testing.T, inc *incident.Incident, code string) string {
	t.Helper()
	var codes []string
	for _, w := range inc.Warnings {
		if w.Code == code {
			return w.Text
		}
		codes = append(codes, w.Code)
	}
	t.Fatalf("no warning %s among %q", code, codes)
	return ""
}

func functions(th *incident.Thread) []string {
	var out []string
	for _, f := range th.Frames {
		out = append(out, f.Function)
	}
	return out
}

func hasFunction(th *incident.Thread, part string) bool {
	return slices.ContainsFunc(functions(th), func(s string) bool { return strings.Contains(s, part) })
}

func TestGhostFIFO(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	for name, res := range map[string]*analyze.Result{
		incident.ConfidenceLikely:  g.alone(t),
		incident.ConfidenceCertain: g.both(t),
	} {
		inc := res.Incident
		f := wantOne(t, inc, noWriter, name, g.lwp)
		if f.Resource == nil || f.Resource.Path != g.path {
			t.Errorf("%s: resource %+v, want path %q", name, f.Resource, g.path)
		}
		if inc.Verdict.Status != incident.StatusStuck || f.Severity != incident.SeverityCritical {
			t.Errorf("%s: %s, %s", name, inc.Verdict.Status, f.Severity)
		}
		if len(inc.Threads) != len(g.Threads()) {
			t.Errorf("%s: %d threads, the notes have %d", name, len(inc.Threads), len(g.Threads()))
		}
		for _, th := range inc.Threads {
			if th.Handle == nil || uint64(*th.Handle) != g.Reg(th.LWP, coretest.RegFSBase) {
				t.Errorf("%s: LWP %d: handle %v, thread pointer %#x", name, th.LWP, th.Handle, g.Reg(th.LWP, coretest.RegFSBase))
			}
			if len(th.Frames) == 0 || uint64(th.Frames[0].PC) != g.Reg(th.LWP, coretest.RegRIP) {
				t.Errorf("%s: LWP %d: innermost frame isn't the program counter", name, th.LWP)
			}
		}
		th := threadOf(t, inc, g.lwp)
		if th.Syscall == nil || !strings.Contains(th.Syscall.Text, strconv.Quote(g.path)) || th.Syscall.Name != "openat" {
			t.Errorf("%s: system call %+v", name, th.Syscall)
		}
		if !hasFunction(th, "mysql_load") || !hasFunction(th, "do_command") {
			t.Errorf("%s: stack %q", name, functions(th))
		}
		if got := inc.Verdict.Coverage; got.ThreadsTotal != len(g.Threads()) || got.StacksTrusted != got.ThreadsTotal {
			t.Errorf("%s: coverage %+v", name, got)
		}
	}
}

// The order of work must not show in the result.
func TestSameResultWithAnyWorkers(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	opts := options(t, g.Write(t, "ghost.core"))
	opts.Proc = g.proc
	var want []byte
	for _, workers := range []int{1, 8, 3, 1} {
		opts.Workers = workers
		got := jsonOf(t, run(t, opts).Incident)
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d workers: another result", workers)
		}
	}
}

func jsonOf(t *testing.T, inc *incident.Incident) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := report.JSON(&b, inc); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func textOf(t *testing.T, inc *incident.Incident) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.Text(&b, inc, report.TextOptions{Width: 80, All: true, Verbose: true}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (g *ghost) readProc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.proc, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
