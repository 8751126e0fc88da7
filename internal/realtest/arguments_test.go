package realtest_test

import (
	"slices"
	"strings"
	"testing"

	"mycore/internal/coretest"
	"mycore/internal/incident"
	"mycore/internal/servertest"
)

// Registers of x86-64 by their place in struct user_regs_struct
// (arch/x86/include/asm/user_64.h) that a function keeps for its caller.
const (
	regR15 = 0
	regR14 = 1
	regR13 = 2
	regR12 = 3
	regRBP = 4
	regRBX = 5
	regR9  = 8
	regR8  = 9
)

var (
	argumentRegs = []int{coretest.RegRDI, coretest.RegRSI, coretest.RegRDX, coretest.RegR10, regR8, regR9}
	savedRegs    = []int{regRBX, regRBP, regR12, regR13, regR14, regR15}
)

// recovered are the recovered arguments of the frames of a function.
func recovered(th *incident.Thread, function string) []incident.Argument {
	var out []incident.Argument
	for i, name := range functions(th) {
		if name == function {
			out = append(out, th.Frames[i].Arguments...)
		}
	}
	return out
}

// testArguments: the path of the FIFO is recovered from the server's own
// function that opens files, and damage never makes a wrong one.
func testArguments(t *testing.T, s *servertest.Server, core string, tr *servertest.Truth) {
	th := threadOf(t, run(t, options(s, core)).Incident, tr.LWP)
	args := recovered(th, "my_open")
	if len(args) != 1 || args[0].Index != 0 || args[0].Text != tr.Path || args[0].How == "" {
		t.Fatalf("arguments of my_open: %+v, want the path %q; stack %q", args, tr.Path, functions(th))
	}
	t.Logf("%q by: %s", args[0].Text, args[0].How)

	zero := func(e *patch, regs []int) {
		for _, r := range regs {
			e.SetReg(tr.LWP, r, 0)
		}
	}
	// words calls f with the address of each word of the blocked thread's stack
	// that points to the path.
	words := func(e *patch, f func(addr uint64)) {
		sp, ptr := e.Reg(tr.LWP, coretest.RegRSP), e.Reg(tr.LWP, coretest.RegRSI)
		b := e.read(sp, 64<<10)
		n := 0
		for at := 0; at+8 <= len(b); at += 8 {
			if le.Uint64(b[at:]) == ptr {
				f(sp + uint64(at))
				n++
			}
		}
		t.Logf("%d words of the stack point to the path", n)
	}
	for _, m := range []struct {
		name  string
		alter func(*patch)
		found bool // the finding still has the path
	}{
		{"argument registers zeroed", func(e *patch) { zero(e, argumentRegs) }, true},
		// Where the frame pointer is needed, the stack ends early, and with it
		// what says that the path is LOAD DATA's.
		{"saved registers zeroed", func(e *patch) { zero(e, savedRegs) }, false},
		{"all these zeroed", func(e *patch) { zero(e, append(slices.Clone(argumentRegs), savedRegs...)) }, false},
		{"stack slots zeroed", func(e *patch) { words(e, func(a uint64) { e.putWord(a, 0) }) }, true},
		{"stack slots shifted by 8", func(e *patch) {
			ptr := e.Reg(tr.LWP, coretest.RegRSI)
			words(e, func(a uint64) { e.putWord(a, 0); e.putWord(a+8, ptr) })
		}, false},
		{"everything zeroed", func(e *patch) {
			words(e, func(a uint64) { e.putWord(a, 0) })
			zero(e, append(slices.Clone(argumentRegs), savedRegs...))
		}, false},
	} {
		t.Run(m.name, func(t *testing.T) {
			patched(t, core, m.alter)
			inc := run(t, options(s, core)).Incident
			found := wantNoWrongPath(t, inc, tr)
			if m.found && !found {
				t.Errorf("no path; system call %+v, stack %q", threadOf(t, inc, tr.LWP).Syscall, functions(threadOf(t, inc, tr.LWP)))
			}
		})
	}
}

// wantNoWrongPath fails for every path that isn't the FIFO's, and for a label
// on another thread. It tells whether the finding has the path.
func wantNoWrongPath(t *testing.T, inc *incident.Incident, tr *servertest.Truth) bool {
	t.Helper()
	th := threadOf(t, inc, tr.LWP)
	for i, f := range th.Frames {
		for _, a := range f.Arguments {
			if a.Text != "" && a.Text != tr.Path {
				t.Errorf("frame %d, %s: argument %d is %q by %s", i, f.Function, a.Index, a.Text, a.How)
			}
		}
	}
	if sc := th.Syscall; sc != nil && strings.Contains(sc.Text, `"`) && !strings.Contains(sc.Text, `"`+tr.Path+`"`) {
		t.Errorf("system call %s", sc.Text)
	}
	found := false
	for _, f := range inc.Findings {
		if f.Label != noWriter || !slices.Equal(f.LWPs, []int{tr.LWP}) {
			t.Errorf("finding %s on %v", f.Label, f.LWPs)
		}
		if f.Resource == nil || f.Resource.Path == "" {
			continue
		}
		found = f.Resource.Path == tr.Path
		if !found {
			t.Errorf("path %q, want %q", f.Resource.Path, tr.Path)
		}
	}
	return found
}
