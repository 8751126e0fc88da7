package analyze_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mycore/internal/coretest"
	"mycore/internal/incident"
)

// Open flags of Linux on x86-64 (asm-generic/fcntl.h).
const (
	oWronly = 1
	oRdwr   = 2
)

func setAccess(g *ghost, mode uint64) {
	g.SetReg(g.lwp, coretest.RegRDX, g.Reg(g.lwp, coretest.RegRDX)&^3|mode)
}

// What the kernel says about the wait decides: another wait is another thing.
func TestMutantWaitChannel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, text string }{
		{"wchan", "pipe_read"},
		{"wchan", "folio_wait_bit_common"},
		{"stack", "[<0>] nfs_wait_bit_killable+0x1/0x2\n[<0>] do_syscall_64+0x71/0x280\n"},
	} {
		t.Run(c.file+" "+strings.Fields(c.text)[0], func(t *testing.T) {
			t.Parallel()
			g := newGhost(t)
			g.procFile(t, task(g.lwp, c.file), c.text)
			wantNothing(t, g.both(t).Incident)
		})
	}
}

// A wait channel that belongs to another thread must not label that thread,
// which is in another call, and must take the label from the first.
func TestMutantSwappedWaitChannels(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	other := g.others(t, 1)[0]
	g.procFile(t, task(other, "wchan"), "wait_for_partner")
	g.procFile(t, task(g.lwp, "wchan"), "futex_do_wait")
	wantNothing(t, g.both(t).Incident)
}

func TestMutantUninterruptible(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	for _, file := range []string{"stat", "status"} {
		old := g.readProc(t, task(g.lwp, file))
		text := strings.Replace(old, ") S ", ") D ", 1)
		if file == "status" {
			text = strings.Replace(old, "S (sleeping)", "D (disk sleep)", 1)
		}
		if text == old {
			t.Fatalf("no sleeping state in %s: %q", file, old)
		}
		g.procFile(t, task(g.lwp, file), text)
	}
	wantNothing(t, g.both(t).Incident)
}

func TestMutantAccessMode(t *testing.T) {
	t.Parallel()
	t.Run("write", func(t *testing.T) {
		t.Parallel()
		g := newGhost(t)
		setAccess(g, oWronly)
		f := wantOne(t, g.both(t).Incident, noReader, incident.ConfidenceCertain, g.lwp)
		for _, r := range f.Remedies {
			if r.ID == "fifo-write-once" {
				t.Errorf("a waiting writer gets the remedy %s", r.ID)
			}
		}
		// LOAD DATA opens nothing for writing: without the kernel's word the
		// FIFO would be a guess.
		for _, f := range g.alone(t).Incident.Findings {
			if f.Confidence != incident.ConfidencePossible || f.Label == noWriter {
				t.Errorf("from the core alone: %s (%s)", f.Label, f.Confidence)
			}
		}
	})
	t.Run("read-write", func(t *testing.T) {
		t.Parallel()
		g := newGhost(t)
		setAccess(g, oRdwr) // never blocks on a FIFO (fifo(7))
		wantNothing(t, g.both(t).Incident)
		wantNothing(t, g.alone(t).Incident)
	})
}

func TestMutantOtherCall(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	g.SetReg(g.lwp, coretest.RegOrigRAX, 0) // read(2)
	wantNothing(t, g.both(t).Incident)
	inc := g.alone(t).Incident
	wantNothing(t, inc)
	if sc := threadOf(t, inc, g.lwp).Syscall; sc == nil || sc.Name != "read" {
		t.Errorf("system call %+v, want read", sc)
	}
}

// A call that is over blocks nobody, whatever an earlier capture said.
func TestMutantCallIsOver(t *testing.T) {
	t.Parallel()
	for _, result := range []int64{0, 23, -2, -5} {
		t.Run(strconv.FormatInt(result, 10), func(t *testing.T) {
			t.Parallel()
			g := newGhost(t)
			g.SetReg(g.lwp, coretest.RegRAX, uint64(result))
			inc := g.alone(t).Incident
			wantNothing(t, inc)
			if sc := threadOf(t, inc, g.lwp).Syscall; sc != nil {
				t.Errorf("system call %s is shown as blocked", sc.Text)
			}
			wantNothing(t, g.both(t).Incident)
		})
	}
}

// An entered call without result (-ENOSYS) sleeps uninterruptibly or wasn't
// stopped: a core alone can't call that a FIFO.
func TestMutantEnteredCall(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	g.SetReg(g.lwp, coretest.RegRAX, ^uint64(37))
	for _, f := range g.alone(t).Incident.Findings {
		t.Errorf("%s (%s)", f.Label, f.Confidence)
	}
}

// The path is never made up.
func TestMutantPathPointer(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	const nowhere = 0x10
	g.SetReg(g.lwp, coretest.RegRSI, nowhere)
	for _, inc := range []*incident.Incident{g.alone(t).Incident, g.both(t).Incident} {
		th := threadOf(t, inc, g.lwp)
		if th.Syscall == nil || strings.Contains(th.Syscall.Text, g.path) || !strings.Contains(th.Syscall.Text, "0x10") {
			t.Errorf("system call %+v", th.Syscall)
		}
		if len(inc.Findings) != 1 || inc.Findings[0].Label != noWriter {
			wantNothing(t, inc)
			t.Fatalf("%d findings", len(inc.Findings))
		}
		f := &inc.Findings[0]
		if f.Resource != nil && f.Resource.Path != "" {
			if f.Resource.Path != g.path {
				t.Errorf("path %q", f.Resource.Path)
			}
			i := slices.IndexFunc(f.Evidence, func(e incident.Evidence) bool { return e.Fact == "path" })
			if i < 0 || f.Evidence[i].How == "" || f.Evidence[i].Source == "registers" {
				t.Errorf("a recovered path must say how it was found: %+v", f.Evidence)
			}
		} else if slices.ContainsFunc(f.Remedies, func(r incident.Remedy) bool {
			return r.ID == "fifo-write-once" && len(r.Commands) > 0
		}) {
			t.Error("a command without path")
		}
	}
}

// Without the frame of LOAD DATA an interruptible open isn't a likely FIFO.
func TestMutantLoadDataFrameMissing(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	th := threadOf(t, g.alone(t).Incident, g.lwp)
	for i := range th.Frames {
		if !strings.Contains(th.Frames[i].Function, "mysql_load") {
			continue
		}
		if !g.spoilReturn(t, uint64(th.Frames[i].PC)) {
			t.Fatal("the return address into mysql_load isn't on the stack")
		}
	}
	inc := g.alone(t).Incident
	th = threadOf(t, inc, g.lwp)
	if hasFunction(th, "mysql_load") {
		t.Fatalf("the frame is still there: %q", functions(th))
	}
	for _, f := range inc.Findings {
		if f.Confidence != incident.ConfidencePossible {
			t.Errorf("%s is %s without LOAD DATA", f.Label, f.Confidence)
		}
	}
	if n := inc.Verdict.Coverage; n.StacksTrusted != n.ThreadsTotal-1 {
		t.Errorf("coverage %+v", n)
	}
	// The kernel's word stands without any stack.
	wantOne(t, g.both(t).Incident, noWriter, incident.ConfidenceCertain, g.lwp)
}

// spoilReturn overwrites the first word with a value above the blocked
// thread's stack pointer by an address that is no code.
func (g *ghost) spoilReturn(t *testing.T, v uint64) bool {
	t.Helper()
	for sp := g.Reg(g.lwp, coretest.RegRSP); ; sp += 8 {
		b := g.At(sp)
		if len(b) < 8 {
			return false
		}
		if g.Uint64(sp) == v {
			copy(b, "\x34\x12\x00\x00\x00\x00\x00\x00")
			return true
		}
	}
}

func TestMutantSwappedThreadPointers(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	other := g.others(t, 1)[0]
	a, b := g.Reg(g.lwp, coretest.RegFSBase), g.Reg(other, coretest.RegFSBase)
	g.SetReg(g.lwp, coretest.RegFSBase, b)
	g.SetReg(other, coretest.RegFSBase, a)
	res := g.both(t)
	for _, th := range res.Incident.Threads {
		if swapped := th.LWP == g.lwp || th.LWP == other; (th.Handle == nil) != swapped {
			t.Errorf("LWP %d has the handle %v", th.LWP, th.Handle)
		}
	}
	for _, h := range []uint64{a, b} {
		if ans := res.Handle(fmt.Sprintf("%#x", h)); ans.Status == "found" {
			t.Errorf("%#x: %+v", h, ans)
		}
	}
	wantOne(t, res.Incident, noWriter, incident.ConfidenceCertain, g.lwp)
}

func TestMutantThreadPointerOff(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	good := g.Reg(g.lwp, coretest.RegFSBase)
	g.SetReg(g.lwp, coretest.RegFSBase, good+8)
	res := g.alone(t)
	for _, th := range res.Incident.Threads {
		if (th.Handle == nil) != (th.LWP == g.lwp) {
			t.Errorf("LWP %d has the handle %v", th.LWP, th.Handle)
		}
	}
	for _, h := range []uint64{good, good + 8} {
		if ans := res.Handle(fmt.Sprintf("%#x", h)); ans.Status == "found" {
			t.Errorf("%#x: %+v", h, ans)
		}
	}
	wantOne(t, res.Incident, noWriter, incident.ConfidenceLikely, g.lwp)
}

// A thread that the saved tree doesn't know gets nothing from it.
func TestMutantLWP(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	const stranger = 4000001
	g.SetLWP(g.lwp, stranger)
	inc := g.both(t).Incident
	text := warning(t, inc, "proc-threads-mismatch")
	for _, want := range []int{stranger, g.lwp} {
		if !strings.Contains(text, strconv.Itoa(want)) {
			t.Errorf("the warning doesn't name %d: %s", want, text)
		}
	}
	th := threadOf(t, inc, stranger)
	if th.WaitChannel != nil || th.KernelStack != nil {
		t.Errorf("LWP %d has the wait channel %v", stranger, th.WaitChannel)
	}
	if th.Handle != nil {
		t.Errorf("handle %v, though the structure names LWP %d", *th.Handle, g.lwp)
	}
	wantOne(t, inc, noWriter, incident.ConfidenceLikely, stranger)
}
