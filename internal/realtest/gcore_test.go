package realtest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"mycore/elfcore"
	"mycore/internal/incident"
	"mycore/internal/servertest"
	"mycore/internal/target"
)

// wchan is what a live thread sleeps on; "" when the thread is gone.
func wchan(pid, lwp int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/wchan", pid, lwp))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// TestGcore brings about the ghost FIFO, has gdb write a core, which frees the
// blocked thread, and then takes the kernel's core of the server that idles
// again and that a tool has stopped before: one server for all subtests.
func TestGcore(t *testing.T) {
	each(t, func(t *testing.T, in *servertest.Install) {
		s := in.Start(t, servertest.Options{})
		leaving := s.Connect(t)
		tr := servertest.GhostFIFO(t, s)
		before := saveProc(t, s)
		g := s.Gcore(t)
		// While the server lives, its FIFO's name can be looked up.
		t.Run("gcore", func(t *testing.T) { testGcore(t, s, g, tr, before) })

		servertest.WaitFor(t, "the blocked thread to go on", func() (bool, error) {
			w, err := wchan(s.PID, tr.LWP)
			return w != "wait_for_partner", err
		})
		servertest.WaitFor(t, "all connections to sleep", func() (bool, error) {
			rows := s.Query(t, "select command from information_schema.processlist where id <> connection_id() and command not in ('Sleep','Daemon')")
			return len(rows) == 0, nil
		})
		leaving.Close()
		servertest.WaitFor(t, "a connection's thread to end", func() (bool, error) {
			w, err := wchan(s.PID, leaving.LWP)
			return w == "", err
		})
		conns := s.Connections()
		delete(conns, leaving.ID)
		after := saveProc(t, s)
		core := s.KernelCore(t)
		t.Run("idle server", func(t *testing.T) {
			opts := options(s, core)
			for _, opts.Proc = range []string{"", after} {
				inc := run(t, opts).Incident
				wantNoLabel(t, inc)
				wantRoles(t, inc, s, conns)
				wantIdle(t, inc, conns)
			}
		})
		t.Run("restarted calls", func(t *testing.T) { testRestarted(t, s, core, before, after) })
		t.Run("exited thread", func(t *testing.T) {
			testExited(t, s, core, handleOf(t, g, leaving.LWP), leaving.LWP)
		})
	})
}

// maxBusy bounds the threads of an idle server that happen to do something.
const maxBusy = 2

// wantIdle checks that sleeping connections are seen as idle, and what else
// there is, too.
func wantIdle(t *testing.T, inc *incident.Incident, conns map[uint64]int) {
	t.Helper()
	for id, lwp := range conns {
		th := threadOf(t, inc, lwp)
		if th.Idle == nil || !*th.Idle {
			t.Errorf("LWP %d of the sleeping connection %d isn't idle; stack %q", lwp, id, functions(th))
		}
	}
	unknown, busy := 0, 0
	for i := range inc.Threads {
		th := &inc.Threads[i]
		switch {
		case th.Idle == nil:
			unknown++
			t.Logf("LWP %d (role %q): not known whether it idles; stack %q", th.LWP, th.Role, functions(th))
		case !*th.Idle:
			busy++
			t.Logf("LWP %d (role %q) isn't idle; stack %q", th.LWP, th.Role, functions(th))
		}
	}
	// The server's own threads have something to do now and then.
	if busy > maxBusy {
		t.Errorf("%d threads of an idle server aren't idle", busy)
	}
	t.Logf("verdict %s: %s; %d of %d threads unknown", inc.Verdict.Status, inc.Verdict.Summary, unknown, len(inc.Threads))
}

func testGcore(t *testing.T, s *servertest.Server, g *servertest.Gcore, tr *servertest.Truth, proc string) {
	opts := options(s, g.Path)
	alone := run(t, opts).Incident
	opts.Proc = proc
	both := run(t, opts).Incident
	logWarnings(t, alone)
	for _, inc := range []*incident.Incident{alone, both} {
		if inc.Input.Writer != "gcore" {
			t.Errorf("writer %q", inc.Input.Writer)
		}
		wantThreads(t, inc, tr.Threads)
		wantAllFound(t, inc)
	}
	if len(warnings(alone, elfcore.WarnStacksZero)) > 0 {
		testLostStacks(t, s, g.Path, alone, both, tr)
		return
	}
	wantGhost(t, alone, tr, tr.LWP, incident.ConfidenceLikely)
	wantGhost(t, both, tr, tr.LWP, incident.ConfidenceCertain)
	wantRoles(t, alone, s, tr.Connections)
	wantProc(t, both, proc)
	for lwp, h := range g.Handles {
		th := threadOf(t, alone, lwp)
		if th.Handle == nil || uint64(*th.Handle) != h {
			t.Errorf("LWP %d: handle %v, gdb says %#x", lwp, th.Handle, h)
		}
	}
	if s.Root == "" && len(g.Handles) < len(tr.Threads)-maxComings {
		t.Errorf("gdb told %d handles of %d threads", len(g.Handles), len(tr.Threads))
	}
	for _, th := range alone.Threads {
		if th.Signals != nil && th.Signals.Blocked != nil {
			t.Errorf("LWP %d has a signal mask, which gdb doesn't record", th.LWP)
		}
	}
	testStacks(t, s, g.Path)
}

// wantAllFound fails for every image without its file.
func wantAllFound(t *testing.T, inc *incident.Incident) {
	t.Helper()
	for _, m := range inc.Modules {
		if m.Status != "found" && m.Status != "vdso" {
			t.Errorf("image %s is %s: %q", m.Path, m.Status, m.LookedIn)
		}
	}
}

// testLostStacks: a core with zeros for stacks is named as such, nothing is
// unwound into the zeros, and no label is wrong.
func testLostStacks(t *testing.T, s *servertest.Server, core string, alone, both *incident.Incident, tr *servertest.Truth) {
	w := warnings(alone, elfcore.WarnStacksZero)
	for _, part := range []string{"zeros", "gcore", "still good", "thread pointer", "kernel core"} {
		if len(w) != 1 || !strings.Contains(w[0], part) {
			t.Errorf("warnings %q don't tell of %q", w, part)
		}
	}
	p, err := elfcore.Open(core, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	lost := 0
	for i := range alone.Threads {
		th := &alone.Threads[i]
		if !zeroStack(t, p, th.LWP) {
			continue
		}
		lost++
		if len(th.Frames) != 1 || th.Frames[0].Trust != "context" || th.StackNote == "" {
			t.Errorf("LWP %d: frames %q, note %q", th.LWP, functions(th), th.StackNote)
		}
		if th.Syscall == nil {
			if sleeps(p, th.LWP) {
				t.Errorf("LWP %d shows no system call", th.LWP)
			}
		} else if strings.Contains(th.Syscall.Text, `""`) {
			t.Errorf("LWP %d: zeros are shown as text: %s", th.LWP, th.Syscall.Text)
		}
	}
	t.Logf("the stacks of %d of %d threads are zeros", lost, len(alone.Threads))
	if lost < len(alone.Threads)/2 {
		t.Errorf("only %d of %d stacks are lost", lost, len(alone.Threads))
	}
	wantNoWrongPath(t, alone, tr)
	wantNoWrongPath(t, both, tr)
	for _, f := range alone.Findings {
		if f.Confidence == incident.ConfidenceCertain {
			t.Errorf("%s is certain without a stack", f.Label)
		}
	}
	// The kernel's word is enough without any stack.
	if f := wantOnly(t, both, noWriter, tr.LWP); f.Confidence != incident.ConfidenceCertain {
		t.Errorf("confidence %s", f.Confidence)
	}
	// gdb sees no more: what it has of these threads is zeros.
	entry := entryOf(t, core)
	ours, theirs := ourStacks(alone), toolStacks(t, servertest.GDB(t, s.Target(core)), entry)
	for lwp, pcs := range theirs {
		theirs[lwp] = slices.DeleteFunc(pcs, func(pc uint64) bool { return pc == 0 })
	}
	a := compareStacks(ours, theirs)
	t.Logf("gdb: of our %d frames %d are theirs, of their %d frames %d are ours", a.ours, a.both, a.theirs, a.both)
	if p := a.problem(); p != "" {
		t.Errorf("gdb: %s\n%s", p, strings.Join(a.diffs, "\n"))
	}
}

// zeroStack tells whether a thread's stack memory is all zeros from the stack
// pointer on.
func zeroStack(t *testing.T, p *elfcore.Process, lwp int) bool {
	t.Helper()
	sp, ok := p.Thread(lwp).Regs.SP()
	if !ok {
		t.Fatalf("LWP %d has no stack pointer", lwp)
	}
	for a := sp; a < sp+512; a += 8 {
		v, err := target.Uint64(p, a)
		if err != nil {
			return false
		}
		if v != 0 {
			return false
		}
	}
	return true
}

// restartSyscall is the number of restart_syscall on x86-64.
const restartSyscall = 219

// sleeps tells by the result register whether a thread slept in a call as the
// core was made: the kernel's restart codes and EINTR (include/linux/errno.h). A
// server's own threads wake up every second or so, and may be caught at it.
func sleeps(p *elfcore.Process, lwp int) bool {
	rax, ok := p.Thread(lwp).Regs.Get(target.RAX)
	switch int64(rax) {
	case -4, -512, -513, -514, -516:
		return ok && p.Thread(lwp).OrigSyscall.Known
	}
	return false
}

// testRestarted: calls that a stop interrupted go on as restart_syscall, and
// are named all the same: as the kernel named them before the stop.
func testRestarted(t *testing.T, s *servertest.Server, core, before, after string) {
	inc := run(t, options(s, core)).Incident
	p, err := elfcore.Open(core, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	names, compared := map[string]int{}, 0
	for i := range inc.Threads {
		th := &inc.Threads[i]
		if th.Syscall != nil && th.Syscall.Name == "restart_syscall" {
			t.Errorf("LWP %d shows %s (%s); stack %q", th.LWP, th.Syscall.Text, th.Syscall.How, functions(th))
		}
		if nr := p.Thread(th.LWP).OrigSyscall; !nr.Known || nr.V != restartSyscall {
			continue
		}
		now, ok := parseCall(procText(t, after, th.LWP, "syscall"))
		if !ok || now.nr != restartSyscall {
			t.Errorf("LWP %d: the core says restart_syscall, /proc %q", th.LWP, procText(t, after, th.LWP, "syscall"))
		}
		if th.Syscall == nil && !sleeps(p, th.LWP) {
			continue // a timed wait that ended as the core was made
		}
		if th.Syscall == nil || th.Syscall.How == "" {
			t.Errorf("LWP %d: system call %+v", th.LWP, th.Syscall)
			continue
		}
		names[th.Syscall.Name]++
		was, ok := parseCall(procText(t, before, th.LWP, "syscall"))
		if !ok || was.sp != now.sp || was.pc != now.pc {
			continue // it made another call meanwhile
		}
		compared++
		if want := callNames[was.nr]; th.Syscall.Name != want {
			t.Errorf("LWP %d: %s by %s, before the stop it was %d (%s)", th.LWP, th.Syscall.Name, th.Syscall.How, was.nr, want)
		}
	}
	t.Logf("restart_syscall was named as %v; %d of them compared with the call before the stop", names, compared)
	if compared == 0 {
		t.Error("no thread was in restart_syscall since the stop: nothing was tested")
	}
}

// handleOf is the pthread_t of a thread in gdb's core: on x86-64 the thread
// pointer itself (glibc, sysdeps/x86_64/nptl/tls.h); what libthread_db says must
// be the same, where gdb could use it.
func handleOf(t *testing.T, g *servertest.Gcore, lwp int) uint64 {
	t.Helper()
	p, err := elfcore.Open(g.Path, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	th := p.Thread(lwp)
	if th == nil || !th.ThreadPointer.Known {
		t.Fatalf("LWP %d of the gcore has no thread pointer", lwp)
	}
	handle := uint64(th.ThreadPointer.V)
	if h, ok := g.Handles[lwp]; ok && h != handle {
		t.Errorf("LWP %d: gdb says %#x, its thread pointer is %#x", lwp, h, handle)
	}
	return handle
}

// testExited: the handle of a thread that ended gets a clear answer, never
// another thread.
func testExited(t *testing.T, s *servertest.Server, core string, handle uint64, lwp int) {
	res := run(t, options(s, core))
	if slices.Contains(lwps(res.Incident), lwp) {
		t.Fatalf("LWP %d is still there", lwp)
	}
	a := res.Handle(fmt.Sprintf("%#x", handle))
	t.Logf("%s: %q", a.Status, a.Lines)
	if a.Thread != nil || len(a.Lines) == 0 || !slices.Contains([]string{"stale", "unmapped", "not-a-thread", "not-dumped"}, a.Status) {
		t.Errorf("the handle %#x of the exited LWP %d resolves to %+v", handle, lwp, a)
	}
	if !strings.Contains(strings.Join(a.Lines, " "), "ended") {
		t.Errorf("the answer doesn't say that the thread ended: %q", a.Lines)
	}
}
