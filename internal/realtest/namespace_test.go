package realtest_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"mycore/internal/incident"
	"mycore/internal/servertest"
)

// nsPID is the id of a thread in its own PID namespace, by the NSpid line of
// its saved status (proc(5): innermost last).
func nsPID(t *testing.T, proc string, lwp int) int {
	t.Helper()
	for line := range strings.Lines(procText(t, proc, lwp, "status")) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(ids)
			id, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
	}
	return 0
}

// TestPIDNamespaceOutside: a server in a PID namespace, cored by a debugger
// outside, has other ids in its memory than in the core's notes.
func TestPIDNamespaceOutside(t *testing.T) {
	took(t)
	s := servertest.Get(t, servertest.MariaDB1011).Start(t, servertest.Options{PIDNamespace: true})
	tr := servertest.GhostFIFO(t, s)
	proc := saveProc(t, s)
	core := s.Gcore(t).Path
	for name, opts := range both(s, core, proc) {
		t.Run(name, func(t *testing.T) {
			res := run(t, opts)
			inc := res.Incident
			wantGhost(t, inc, tr, tr.LWP, confidenceBy(opts.Proc))
			wantRoles(t, inc, s, tr.Connections)
			told := 0
			for i := range inc.Threads {
				th := &inc.Threads[i]
				want := nsPID(t, proc, th.LWP)
				if want == 0 {
					continue // it came right before the core
				}
				if th.Handle == nil || th.TargetTID == nil || *th.TargetTID != want {
					t.Errorf("LWP %d: handle %v, id in the target %v, want %d", th.LWP, th.Handle, th.TargetTID, want)
					continue
				}
				a := res.Handle(fmt.Sprintf("%#x", uint64(*th.Handle)))
				if text := strings.Join(a.Lines, " "); a.Status != "found" || a.Thread.LWP != th.LWP ||
					!strings.Contains(text, "namespace") || !strings.Contains(text, strconv.Itoa(want)) || !strings.Contains(text, strconv.Itoa(th.LWP)) {
					t.Errorf("handle of LWP %d: %s, %q", th.LWP, a.Status, a.Lines)
				}
				told++
			}
			if told < len(inc.Threads)-maxComings {
				t.Errorf("only %d of %d threads were compared", told, len(inc.Threads))
			}
			if a := res.Handle(strconv.Itoa(tr.NSLWP)); a.Status != "target-tid" || a.Thread == nil || a.Thread.LWP != tr.LWP {
				t.Errorf("the target's id %d of LWP %d resolves to %+v", tr.NSLWP, tr.LWP, a)
			}
		})
	}
}

// TestPIDNamespaceInside: the kernel's core carries the namespace's own ids,
// a /proc tree saved outside the others; they are joined all the same.
func TestPIDNamespaceInside(t *testing.T) {
	took(t)
	s := servertest.Get(t, servertest.MariaDB1011).Start(t, servertest.Options{PIDNamespace: true})
	tr := servertest.GhostFIFO(t, s)
	proc := saveProc(t, s)
	core := s.KernelCore(t)
	for name, opts := range both(s, core, proc) {
		t.Run(name, func(t *testing.T) {
			inc := run(t, opts).Incident
			wantGhost(t, inc, tr, tr.NSLWP, confidenceBy(opts.Proc))
			for _, th := range inc.Threads {
				if th.Handle == nil || th.TargetTID != nil {
					t.Errorf("LWP %d: handle %v, another id %v", th.LWP, th.Handle, th.TargetTID)
				}
			}
			for _, w := range warnings(inc, "proc-pid-mismatch") {
				t.Error(w)
			}
			if opts.Proc == "" {
				return
			}
			for _, lwp := range tr.Threads {
				id := nsPID(t, proc, lwp)
				if id == 0 {
					continue
				}
				if th := threadOf(t, inc, id); th.WaitChannel != nil && th.WaitChannel.Value != procText(t, proc, lwp, "wchan") {
					t.Errorf("LWP %d, outside %d, waits in %s, want %s", id, lwp, th.WaitChannel.Value, procText(t, proc, lwp, "wchan"))
				}
			}
			if th := threadOf(t, inc, tr.NSLWP); th.WaitChannel == nil || th.WaitChannel.Value != "wait_for_partner" {
				t.Errorf("LWP %d waits in %+v", tr.NSLWP, th.WaitChannel)
			}
		})
	}
}

func confidenceBy(proc string) string {
	if proc == "" {
		return incident.ConfidenceLikely
	}
	return incident.ConfidenceCertain
}
