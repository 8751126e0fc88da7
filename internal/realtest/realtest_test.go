package realtest_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mycore/internal/analyze"
	"mycore/internal/incident"
	"mycore/internal/servertest"
)

// Labels and the role that the tests are about; released ids never change.
const (
	noWriter   = "fifo-open-no-writer"
	noReader   = "fifo-open-no-reader"
	connection = "user-connection"
)

// each runs a test on every default server and logs what it took.
func each(t *testing.T, f func(t *testing.T, in *servertest.Install)) {
	for _, k := range servertest.Default() {
		t.Run(string(k), func(t *testing.T) {
			took(t)
			f(t, servertest.Get(t, k))
		})
	}
}

// took logs the wall time from here to the end of the test.
func took(t *testing.T) {
	start := time.Now()
	t.Cleanup(func() { t.Logf("%s took %.1f s", t.Name(), time.Since(start).Seconds()) })
}

// options are what a user would pass for a core of this server: the root that
// it runs in, if it has one.
func options(s *servertest.Server, core string) analyze.Options {
	return analyze.Options{Core: core, Sysroot: s.Root, Tool: incident.Tool{Name: "mycore", Version: "test"}}
}

func run(t *testing.T, opts analyze.Options) *analyze.Result {
	t.Helper()
	opts.TempDir = t.TempDir()
	res, err := analyze.Run(t.Context(), opts)
	if err != nil {
		t.Fatalf("analysing %s: %v", opts.Core, err)
	}
	t.Cleanup(func() {
		if err := res.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return res
}

func saveProc(t *testing.T, s *servertest.Server) string {
	t.Helper()
	proc := filepath.Join(t.TempDir(), "proc")
	s.SaveProc(t, proc)
	return proc
}

// procText is a file of a saved /proc tree, "" when it isn't there.
func procText(t *testing.T, proc string, lwp int, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(proc, "task", strconv.Itoa(lwp), name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func threadOf(t *testing.T, inc *incident.Incident, lwp int) *incident.Thread {
	t.Helper()
	for i := range inc.Threads {
		if inc.Threads[i].LWP == lwp {
			return &inc.Threads[i]
		}
	}
	t.Fatalf("no LWP %d among the %d of the incident", lwp, len(inc.Threads))
	return nil
}

func lwps(inc *incident.Incident) []int {
	var out []int
	for _, th := range inc.Threads {
		out = append(out, th.LWP)
	}
	slices.Sort(out)
	return out
}

func functions(th *incident.Thread) []string {
	var out []string
	for _, f := range th.Frames {
		name, _, _ := strings.Cut(f.Function, "(")
		if name == "" {
			name = "?"
		}
		out = append(out, name)
	}
	return out
}

// warnings are the texts of all warnings with a code.
func warnings(inc *incident.Incident, code string) []string {
	var out []string
	for _, w := range inc.Warnings {
		if w.Code == code {
			out = append(out, w.Text)
		}
	}
	return out
}

func logWarnings(t *testing.T, inc *incident.Incident) {
	t.Helper()
	for _, w := range inc.Warnings {
		t.Logf("warning %s: %s", w.Code, w.Text)
	}
}

// wantNoLabel fails for every finding and every label of a thread.
func wantNoLabel(t *testing.T, inc *incident.Incident) {
	t.Helper()
	for _, f := range inc.Findings {
		t.Errorf("label %s (%s) on %v: %s", f.Label, f.Confidence, f.LWPs, f.Title)
	}
	for _, th := range inc.Threads {
		if len(th.Labels) > 0 {
			t.Errorf("LWP %d has the labels %v", th.LWP, th.Labels)
		}
	}
	if inc.Verdict.Status == incident.StatusStuck {
		t.Errorf("verdict %s: %s", inc.Verdict.Status, inc.Verdict.Summary)
	}
}

// wantOnly returns the only finding: this label, on this thread and no other.
func wantOnly(t *testing.T, inc *incident.Incident, label string, lwp int) *incident.Finding {
	t.Helper()
	if len(inc.Findings) != 1 || inc.Findings[0].Label != label || !slices.Equal(inc.Findings[0].LWPs, []int{lwp}) {
		for _, f := range inc.Findings {
			t.Errorf("finding %s (%s) on %v", f.Label, f.Confidence, f.LWPs)
		}
		logWarnings(t, inc)
		t.Fatalf("%d findings, want %s on %d alone; its stack: %q", len(inc.Findings), label, lwp, functions(threadOf(t, inc, lwp)))
	}
	for _, th := range inc.Threads {
		if want := th.LWP == lwp; want != slices.Contains(th.Labels, label) || len(th.Labels) > 1 {
			t.Errorf("LWP %d has the labels %v", th.LWP, th.Labels)
		}
	}
	return &inc.Findings[0]
}

// wantGhost checks an incident against the truth of its server. lwp is the
// blocked thread as the core numbers it.
func wantGhost(t *testing.T, inc *incident.Incident, tr *servertest.Truth, lwp int, confidence string) {
	t.Helper()
	f := wantOnly(t, inc, noWriter, lwp)
	if f.Confidence != confidence {
		t.Errorf("confidence %s, want %s; evidence %+v", f.Confidence, confidence, f.Evidence)
	}
	if f.Resource == nil || f.Resource.Path != tr.Path {
		t.Errorf("resource %+v, want path %q", f.Resource, tr.Path)
	}
	if inc.Verdict.Status != incident.StatusStuck || f.Severity != incident.SeverityCritical || !f.Root {
		t.Errorf("verdict %s, severity %s, root %v", inc.Verdict.Status, f.Severity, f.Root)
	}
	th := threadOf(t, inc, lwp)
	if th.Role != connection {
		t.Errorf("LWP %d has the role %q; stack %q", lwp, th.Role, functions(th))
	}
	if th.Syscall == nil || th.Syscall.Name != "openat" || !strings.Contains(th.Syscall.Text, strconv.Quote(tr.Path)) {
		t.Errorf("system call %+v", th.Syscall)
	}
	if len(f.Remedies) == 0 {
		t.Error("no remedy")
	}
	commands := 0
	for _, r := range f.Remedies {
		for _, c := range r.Commands {
			commands++
			if strings.Contains(c, "{{") || strings.Contains(c, "<no value>") {
				t.Errorf("remedy %s has an unfilled command %q", r.ID, c)
			}
			if !strings.Contains(c, tr.Path) && !strings.Contains(c, strconv.Itoa(lwp)) && !strings.Contains(c, strconv.Itoa(*inc.System.PID)) {
				t.Errorf("command %q of remedy %s names neither path nor thread nor process", c, r.ID)
			}
		}
	}
	t.Logf("%s (%s) on LWP %d; %d remedies, %d commands", f.Label, f.Confidence, lwp, len(f.Remedies), commands)
}

// wantRoles checks that the connections' threads have their role and no other
// thread has it.
func wantRoles(t *testing.T, inc *incident.Incident, s *servertest.Server, conns map[uint64]int) {
	t.Helper()
	want := map[int]bool{}
	for _, lwp := range conns {
		want[lwp] = true
	}
	more := 0 // of threads whose connection isn't known
	if s.Install.Kind == servertest.MySQL56 {
		more = 1 // the administrative connection
	}
	for _, th := range inc.Threads {
		switch {
		case want[th.LWP] && th.Role != connection:
			t.Errorf("LWP %d serves a connection and has the role %q; stack %q", th.LWP, th.Role, functions(&th))
		case !want[th.LWP] && th.Role == connection:
			if more--; more < 0 {
				t.Errorf("LWP %d serves no connection and has that role; stack %q", th.LWP, functions(&th))
			}
		}
	}
}

// both are the options of an analysis without and with the saved /proc tree.
func both(s *servertest.Server, core, proc string) map[string]analyze.Options {
	with := options(s, core)
	with.Proc = proc
	return map[string]analyze.Options{"core alone": options(s, core), "with proc": with}
}
