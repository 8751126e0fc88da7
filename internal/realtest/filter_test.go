package realtest_test

import (
	"errors"
	"fmt"
	"testing"

	"mycore/elfcore"
	"mycore/internal/incident"
	"mycore/internal/servertest"
	"mycore/internal/target"
)

// Bits of coredump_filter (core(5)).
const (
	anonymousPrivate = 1 << 0
	elfHeaders       = 1 << 4
)

// TestCoreFilter takes kernel cores with subsets of the memory: what is left
// out costs what it held and nothing else, and never makes a wrong label.
func TestCoreFilter(t *testing.T) {
	for _, mask := range []uint32{
		0x33, // the default
		0x7f, // everything but DAX
		0x31, // no shared memory
		0x21, // nor ELF headers
		0x01, // private anonymous memory alone
		0x10, // headers alone
		0x00, // registers alone
	} {
		t.Run(fmt.Sprintf("%#02x", mask), func(t *testing.T) {
			took(t)
			s := servertest.Get(t, servertest.MariaDB1011).Start(t, servertest.Options{})
			tr := servertest.GhostFIFO(t, s)
			s.SetCoreFilter(t, mask)
			proc := saveProc(t, s)
			core := s.KernelCore(t)
			for name, opts := range both(s, core, proc) {
				t.Run(name, func(t *testing.T) {
					inc := run(t, opts).Incident
					wantThreads(t, inc, tr.Threads)
					if opts.Proc != "" {
						wantProc(t, inc, proc)
					}
					if mask&anonymousPrivate == 0 {
						wantRegistersOnly(t, inc, tr, opts.Proc)
						return
					}
					wantGhost(t, inc, tr, tr.LWP, confidenceBy(opts.Proc))
					wantRoles(t, inc, s, tr.Connections)
					if c := inc.Verdict.Coverage; c.StacksTrusted != c.ThreadsTotal {
						t.Errorf("coverage %+v", c)
					}
					for _, th := range inc.Threads {
						if th.Handle == nil {
							t.Errorf("LWP %d has no handle", th.LWP)
						}
					}
					// Without headers nothing in the core tells which build it was.
					if got := len(warnings(inc, "binary-unverified")) > 0; got && mask&elfHeaders != 0 {
						t.Errorf("warnings %+v", inc.Warnings)
					}
				})
			}
			if mask&anonymousPrivate == 0 {
				wantNotDumped(t, core, tr.LWP)
			}
			if mask == 0x01 {
				a := compareStacks(ourStacks(run(t, options(s, core)).Incident), toolStacks(t, servertest.GDB(t, s.Target(core)), entryOf(t, core)))
				t.Logf("gdb: of our %d frames %d are theirs, of their %d frames %d are ours", a.ours, a.both, a.theirs, a.both)
				if p := a.problem(); p != "" {
					t.Errorf("gdb: %s", p)
				}
			}
		})
	}
}

// wantRegistersOnly: without the stacks' memory there is frame 0, the call's
// number and plain arguments, and the kernel's view.
func wantRegistersOnly(t *testing.T, inc *incident.Incident, tr *servertest.Truth, proc string) {
	t.Helper()
	if len(warnings(inc, elfcore.WarnNoStackMemory)) != 1 {
		t.Errorf("warnings %+v", inc.Warnings)
	}
	for i := range inc.Threads {
		th := &inc.Threads[i]
		if len(th.Frames) != 1 || th.StackNote == "" {
			t.Errorf("LWP %d: stack %q, note %q", th.LWP, functions(th), th.StackNote)
		}
		if th.Handle != nil {
			t.Errorf("LWP %d: handle %#x can't be confirmed", th.LWP, uint64(*th.Handle))
		}
	}
	if th := threadOf(t, inc, tr.LWP); th.Syscall == nil || th.Syscall.Name != "openat" {
		t.Errorf("system call %+v", th.Syscall)
	}
	if wantNoWrongPath(t, inc, tr) {
		t.Error("a path that the core doesn't hold")
	}
	if proc == "" {
		for _, f := range inc.Findings {
			if f.Confidence == incident.ConfidenceCertain {
				t.Errorf("%s is certain", f.Label)
			}
		}
		return
	}
	if f := wantOnly(t, inc, noWriter, tr.LWP); f.Confidence != incident.ConfidenceCertain {
		t.Errorf("confidence %s", f.Confidence)
	}
}

// wantNotDumped: reading the stack names the address and the reason.
func wantNotDumped(t *testing.T, core string, lwp int) {
	t.Helper()
	p, err := elfcore.Open(core, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	sp, _ := p.Thread(lwp).Regs.SP()
	var re *target.ReadError
	if _, err := target.Uint64(p, sp); !errors.Is(err, target.ErrNotDumped) || !errors.As(err, &re) || re.Addr != sp {
		t.Errorf("reading the stack at %v: %v", sp, err)
	}
}
