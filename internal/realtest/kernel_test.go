package realtest_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mycore/elfcore"
	"mycore/internal/analyze"
	"mycore/internal/incident"
	"mycore/internal/servertest"
	"mycore/internal/syscalls"
	"mycore/internal/target"
)

// TestKernelCore brings about the ghost FIFO, takes the kernel's core of it,
// and looks at that core in all ways: one server for all subtests.
func TestKernelCore(t *testing.T) {
	each(t, func(t *testing.T, in *servertest.Install) {
		s := in.Start(t, servertest.Options{})
		tr := servertest.GhostFIFO(t, s)
		proc := saveProc(t, s)
		core := s.KernelCore(t)

		t.Run("core alone", func(t *testing.T) {
			inc := run(t, options(s, core)).Incident
			logWarnings(t, inc)
			wantGhost(t, inc, tr, tr.LWP, incident.ConfidenceLikely)
			wantRoles(t, inc, s, tr.Connections)
			wantThreads(t, inc, tr.Threads)
			wantAllFound(t, inc)
			if inc.Input.Writer != "kernel" || inc.System.PID == nil || *inc.System.PID != tr.PID {
				t.Errorf("writer %q, system %+v", inc.Input.Writer, inc.System)
			}
			if c := inc.Verdict.Coverage; c.ThreadsRead != len(inc.Threads) || c.StacksTrusted != len(inc.Threads) {
				t.Errorf("coverage %+v", c)
			}
			if inc.Server == nil || !strings.HasPrefix(s.Version, inc.Server.Version) && !strings.HasPrefix(inc.Server.Version, s.Version) {
				t.Errorf("server %+v, it says %q", inc.Server, s.Version)
			}
		})
		t.Run("with proc", func(t *testing.T) {
			opts := options(s, core)
			opts.Proc = proc
			inc := run(t, opts).Incident
			wantGhost(t, inc, tr, tr.LWP, incident.ConfidenceCertain)
			wantProc(t, inc, proc)
		})
		t.Run("handles", func(t *testing.T) { testHandles(t, s, core, tr) })
		t.Run("system calls", func(t *testing.T) { testSyscalls(t, s, core, proc) })
		t.Run("arguments", func(t *testing.T) { testArguments(t, s, core, tr) })
		t.Run("stacks", func(t *testing.T) { testStacks(t, s, core) })
		if s.Root != "" {
			t.Run("root", func(t *testing.T) { testRoot(t, s, core, tr) })
		}
	})
}

// testRoot: a server in a root of its own, analysed outside of it.
func testRoot(t *testing.T, s *servertest.Server, core string, tr *servertest.Truth) {
	want := ourStacks(run(t, options(s, core)).Incident)
	// The executable's place tells where the libraries are.
	opts := analyze.Options{Core: core, Exe: s.Exe}
	inc := run(t, opts).Incident
	wantGhost(t, inc, tr, tr.LWP, incident.ConfidenceLikely)
	wantAllFound(t, inc)
	if a := compareStacks(ourStacks(inc), want); a.problem() != "" || a.both != a.theirs {
		t.Errorf("--exe alone: %s\n%s", a.problem(), strings.Join(a.diffs, "\n"))
	}
	for _, m := range inc.Modules {
		if m.FoundAt != "" && !strings.HasPrefix(m.FoundAt, s.Root+"/") {
			t.Errorf("%s was taken from %s", m.Path, m.FoundAt)
		}
	}

	// Without either, this machine's files of the same names are the wrong ones.
	inc = run(t, analyze.Options{Core: core}).Incident
	logWarnings(t, inc)
	wantNoWrongPath(t, inc, tr)
	wrong := 0
	for _, m := range inc.Modules {
		switch m.Status {
		case "mismatch":
			wrong++
			w := strings.Join(warnings(inc, "binary-mismatch"), "\n")
			if m.FileID == "" || m.FileID == m.BuildID || !strings.Contains(w, m.FileID) || !strings.Contains(w, m.BuildID) {
				t.Errorf("image %+v, warnings %q", m, w)
			}
		case "found":
			if id := buildID(t, m.FoundAt); id != m.BuildID {
				t.Errorf("%s has the build ID %s, wanted was %s", m.FoundAt, id, m.BuildID)
			}
		}
	}
	if wrong == 0 {
		t.Error("no file of this machine was refused")
	}
	for _, th := range inc.Threads {
		if th.Handle == nil {
			t.Errorf("LWP %d has no handle", th.LWP)
		}
	}
	reportAgreement(t, "without the root", ourStacks(inc), want)
}

// maxComings bounds the threads by which a core differs from a list made right
// before it: servers start and end helpers of a thread pool on their own.
const maxComings = 3

// wantThreads compares an incident's threads with those that were seen before.
func wantThreads(t *testing.T, inc *incident.Incident, before []int) {
	t.Helper()
	got := lwps(inc)
	differ := 0
	for _, lwp := range got {
		if !slices.Contains(before, lwp) {
			differ++
		}
	}
	for _, lwp := range before {
		if !slices.Contains(got, lwp) {
			differ++
		}
	}
	if differ > 0 {
		t.Logf("%d threads came or went right before the core", differ)
	}
	if differ > maxComings || !slices.IsSorted(got) {
		t.Errorf("threads %v, the server had %v", got, before)
	}
}

// wantProc checks that what the saved tree says of each thread arrived at it.
func wantProc(t *testing.T, inc *incident.Incident, proc string) {
	t.Helper()
	for _, w := range warnings(inc, "proc-pid-mismatch") {
		t.Error(w)
	}
	saved, err := filepath.Glob(filepath.Join(proc, "task", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var tasks []int
	for _, dir := range saved {
		lwp, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, lwp)
	}
	slices.Sort(tasks)
	wantThreads(t, inc, tasks)
	if w := warnings(inc, "proc-threads-mismatch"); (len(w) > 0) == slices.Equal(tasks, lwps(inc)) {
		t.Errorf("threads %v in /proc, %v in the core, warnings %q", tasks, lwps(inc), w)
	}
	named, channels := 0, 0
	for _, th := range inc.Threads {
		if !slices.Contains(tasks, th.LWP) {
			continue
		}
		if want := procText(t, proc, th.LWP, "comm"); th.Name != want {
			t.Errorf("LWP %d is named %q, want %q", th.LWP, th.Name, want)
		} else {
			named++
		}
		if th.WaitChannel == nil {
			continue
		}
		channels++
		if want := procText(t, proc, th.LWP, "wchan"); th.WaitChannel.Value != want {
			t.Errorf("LWP %d waits in %q, want %q", th.LWP, th.WaitChannel.Value, want)
		}
	}
	// The thread that took the signal has left its wait; no other.
	if channels < len(inc.Threads)-1-maxComings || named == 0 {
		t.Errorf("%d of %d threads have a wait channel", channels, len(inc.Threads))
	}
	if len(inc.Files) == 0 {
		t.Error("no open file")
	}
}

// testHandles: every handle is confirmed, equal to what gdb's libthread_db
// says where that can read the libc, and resolves both ways.
func testHandles(t *testing.T, s *servertest.Server, core string, tr *servertest.Truth) {
	res := run(t, options(s, core))
	gdb := map[int]servertest.Stack{}
	if s.Root == "" { // gdb reads the handles of its own libc only
		gdb = servertest.GDB(t, s.Target(core)).ByLWP()
	}
	seen := map[incident.Addr]int{}
	for i := range res.Incident.Threads {
		th := &res.Incident.Threads[i]
		if th.Handle == nil {
			t.Errorf("LWP %d has no confirmed handle", th.LWP)
			continue
		}
		if other, ok := seen[*th.Handle]; ok {
			t.Errorf("LWP %d and %d have the handle %#x", th.LWP, other, uint64(*th.Handle))
		}
		seen[*th.Handle] = th.LWP
		if g := gdb[th.LWP].Handle; s.Root == "" && g != uint64(*th.Handle) {
			t.Errorf("LWP %d has the handle %#x, gdb says %#x", th.LWP, uint64(*th.Handle), g)
		}
		if th.TargetTID != nil {
			t.Errorf("LWP %d has another id %d in the target", th.LWP, *th.TargetTID)
		}
		for _, text := range []string{fmt.Sprintf("%#x", uint64(*th.Handle)), fmt.Sprint(uint64(*th.Handle))} {
			if a := res.Handle(text); a.Status != "found" || a.Thread == nil || a.Thread.LWP != th.LWP {
				t.Errorf("handle %s of LWP %d resolves to %+v", text, th.LWP, a)
			}
		}
		a := res.Handle(strconv.Itoa(th.LWP))
		if a.Status != "lwp-id" || a.Thread == nil || a.Thread.LWP != th.LWP || a.Thread.Handle == nil || *a.Thread.Handle != *th.Handle {
			t.Errorf("LWP %d resolves to %+v", th.LWP, a)
		}
	}
	if tr.Handle != "" {
		if a := res.Handle(tr.Handle); a.Status != "found" || a.Thread.LWP != tr.LWP {
			t.Errorf("SHOW ENGINE INNODB STATUS prints the handle %s for LWP %d; answer %+v", tr.Handle, tr.LWP, a)
		}
	}
	t.Logf("%d handles confirmed; the server prints %q for LWP %d", len(seen), tr.Handle, tr.LWP)
	for _, c := range []struct{ text, status string }{
		{"0x1000", "unmapped"}, {"no number", "invalid"},
		{fmt.Sprintf("%#x", uint64(*res.Incident.Threads[0].Handle)+16), "inside"},
	} {
		if a := res.Handle(c.text); a.Status != c.status || len(a.Lines) == 0 {
			t.Errorf("%s resolves to %+v, want %s", c.text, a, c.status)
		}
	}
}

// procCall is a line of /proc/PID/task/TID/syscall of a blocked thread
// (proc(5)): number, six arguments, stack pointer, program counter.
type procCall struct {
	nr     int64
	args   [6]uint64
	sp, pc uint64
}

func parseCall(line string) (procCall, bool) {
	f := strings.Fields(line)
	if len(f) != 9 {
		return procCall{}, false // "running", or "-1 SP PC" in no call
	}
	var c procCall
	nr, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return c, false
	}
	c.nr = nr
	for i, to := range []*uint64{&c.args[0], &c.args[1], &c.args[2], &c.args[3], &c.args[4], &c.args[5], &c.sp, &c.pc} {
		if *to, err = strconv.ParseUint(f[i+1], 0, 64); err != nil {
			return c, false
		}
	}
	return c, true
}

// argRegs are the argument registers of a system call (System V psABI, A.2.1).
var argRegs = [6]int{target.RDI, target.RSI, target.RDX, target.R10, target.R8, target.R9}

// testSyscalls compares each blocked thread's call with what the kernel said
// right before the core.
func testSyscalls(t *testing.T, s *servertest.Server, core, proc string) {
	inc := run(t, options(s, core)).Incident
	p, err := elfcore.Open(core, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	same, moved := 0, 0
	for i := range inc.Threads {
		th := &inc.Threads[i]
		want, ok := parseCall(procText(t, proc, th.LWP, "syscall"))
		regs := &p.Thread(th.LWP).Regs
		pc, _ := regs.PC()
		sp, _ := regs.SP()
		if !ok || uint64(pc) != want.pc || uint64(sp) != want.sp || !sleeps(p, th.LWP) {
			moved++
			continue
		}
		same++
		if nr := p.Thread(th.LWP).OrigSyscall; !nr.Known || nr.V != want.nr {
			t.Errorf("LWP %d: number %+v, want %d", th.LWP, nr, want.nr)
		}
		for k, r := range argRegs {
			if v, ok := regs.Get(r); !ok || v != want.args[k] {
				t.Errorf("LWP %d: argument %d is %#x (%v), want %#x", th.LWP, k, v, ok, want.args[k])
			}
		}
		wantCall(t, p, th, want)
	}
	t.Logf("system calls of %d threads equal /proc's; %d threads had moved", same, moved)
	if moved > 1+len(inc.Threads)/10 {
		t.Errorf("%d of %d threads had moved: too few were compared", moved, len(inc.Threads))
	}
}

// callNames are the numbers of x86-64 that idle and blocked server threads
// show (Linux arch/x86/entry/syscalls/syscall_64.tbl), apart from the
// program's own table.
var callNames = map[int64]string{
	0: "read", 2: "open", 7: "poll", 23: "select", 35: "nanosleep", 43: "accept", 45: "recvfrom", 128: "rt_sigtimedwait",
	202: "futex", 208: "io_getevents", 220: "semtimedop", 230: "clock_nanosleep", 232: "epoll_wait", 257: "openat", 270: "pselect6", 271: "ppoll",
	281: "epoll_pwait", 288: "accept4", 333: "io_pgetevents", 426: "io_uring_enter",
}

// wantCall compares the decoded call with number and arguments of /proc.
func wantCall(t *testing.T, mem target.Memory, th *incident.Thread, want procCall) {
	t.Helper()
	if th.Syscall == nil {
		t.Errorf("LWP %d shows no system call, /proc says %d", th.LWP, want.nr)
		return
	}
	if name := callNames[want.nr]; th.Syscall.Name != name {
		t.Errorf("LWP %d shows %s, /proc says %d (%s)", th.LWP, th.Syscall.Text, want.nr, name)
	}
	if c := syscalls.Format("linux", target.AMD64, want.nr, want.args, mem, nil); th.Syscall.Text != c.Text {
		t.Errorf("LWP %d shows %s, /proc's registers give %s", th.LWP, th.Syscall.Text, c.Text)
	}
	if th.Syscall.Source != target.SourceRegisters || th.Syscall.How != "" {
		t.Errorf("LWP %d: the call comes from %s (%s)", th.LWP, th.Syscall.Source, th.Syscall.How)
	}
}
