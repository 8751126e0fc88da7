package kernelview

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mycore/internal/target"
)

// view makes a Process from "LWP" or "LWP/INNER" ids.
func view(pid int, ns []int, src target.Source, ids ...int) *Process {
	p := &Process{NSPid: ns, Threads: map[int]*Thread{}}
	if pid != 0 {
		p.PID = target.Known(pid, src)
	}
	for _, id := range ids {
		p.Threads[id] = &Thread{LWP: id}
	}
	return p
}

func nested(p *Process, offset int) *Process {
	for lwp, t := range p.Threads {
		t.NSPid = []int{lwp, lwp - offset}
	}
	return p
}

func call(nr int64, s target.Source) target.Value[Syscall] {
	return target.Known(Syscall{Number: nr}, s)
}

func warned(p *Process) string {
	var out []string
	for _, w := range p.Warnings {
		out = append(out, w.Code)
	}
	return strings.Join(out, " ")
}

func TestJoinFieldByField(t *testing.T) {
	base := view(100, nil, target.SourceCoreNote, 100, 101)
	base.Threads[101].Syscall = call(257, target.SourceCoreNote)
	base.Threads[101].SP = target.Known(target.Addr(0x1000), target.SourceCoreNote)
	base.Threads[101].PC = target.Known(target.Addr(0x2000), target.SourceCoreNote)
	extra := view(100, []int{100}, target.SourceProc, 100, 101)
	extra.Threads[101].Syscall = call(257, target.SourceProc)
	extra.Threads[101].WaitChannel = target.Known("wait_for_partner", target.SourceProc)
	extra.Threads[101].SP = target.Known(target.Addr(0x1100), target.SourceProc)
	extra.Threads[101].PC = target.Known(target.Addr(0x2100), target.SourceProc)
	extra.Files, extra.FilesKnown = []File{{FD: 3}}, true
	before := *base.Threads[101]

	j := Join(base, extra, PreferBase)
	got := j.View.Threads[101]
	if got.Syscall.Source != target.SourceCoreNote || got.WaitChannel.V != "wait_for_partner" ||
		got.WaitChannel.Source != target.SourceProc || got.SP.V != 0x1000 || got.PC.V != 0x2000 {
		t.Errorf("preferring the base: %+v", got)
	}
	if j.Matched != 2 || j.Moved != nil || j.ByNamespace || warned(j.View) != "" || !j.View.FilesKnown || len(j.View.Files) != 1 {
		t.Errorf("joined %+v, warnings %v", j, j.View.Warnings)
	}
	if diff := cmp.Diff(before, *base.Threads[101]); diff != "" {
		t.Errorf("the base was changed: %s", diff)
	}
	got = Join(base, extra, PreferExtra).View.Threads[101]
	if got.Syscall.Source != target.SourceProc || got.SP.V != 0x1100 || got.PC.V != 0x2100 {
		t.Errorf("preferring the extra: %+v", got)
	}
	// A lone stack pointer must not be mixed with the other view's counter.
	base.Threads[101].PC = target.Value[target.Addr]{}
	if got = Join(base, extra, PreferBase).View.Threads[101]; got.SP.V != 0x1000 || got.PC.Known {
		t.Errorf("stack pointer and program counter of two moments: %v %v", got.SP, got.PC)
	}
}

func TestJoinMatching(t *testing.T) {
	core, proc := target.SourceCoreNote, target.SourceProc
	for _, c := range []struct {
		name        string
		base, extra *Process
		matched     int
		byNamespace bool
		warnings    string
	}{
		{"the same", view(1, nil, core, 1, 2), view(1, nil, proc, 1, 2), 2, false, ""},
		{"no extra", view(1, nil, core, 1, 2), nil, 0, false, ""},
		{"other process", view(1, nil, core, 1, 2), view(9, []int{9}, proc, 1, 2), 0, false, CodePIDMismatch},
		{"thread missing", view(1, nil, core, 1, 2, 3), view(1, nil, proc, 1, 2), 2, false, CodeThreadsMismatch},
		{"thread extra", view(1, nil, core, 1, 2), view(1, nil, proc, 1, 2, 3), 2, false, CodeThreadsMismatch},
		{"process files without threads", view(1, nil, core, 1, 2), view(1, nil, proc), 0, false, ""},
		{"pid unknown", view(1, nil, core, 1, 2), view(0, nil, proc, 1, 2), 2, false, ""},
		{"pid unknown, nothing shared", view(1, nil, core, 1, 2), view(0, nil, proc, 8, 9), 0, false, CodeThreadsMismatch},
		{"core from inside, /proc from outside", view(1, nil, core, 1, 2), nested(view(1001, []int{1001, 1}, proc, 1001, 1002), 1000), 2, true, ""},
		{"core from outside, /proc from inside", nested(view(1001, []int{1001, 1}, core, 1001, 1002), 1000), view(1, []int{1}, proc, 1, 2), 2, true, ""},
		{"both from outside", nested(view(1001, []int{1001, 1}, core, 1001), 1000), nested(view(1001, []int{1001, 1}, proc, 1001), 1000), 1, false, ""},
		{"nested, other process", view(1, nil, core, 1, 2), nested(view(1001, []int{1001, 7}, proc, 1001, 1002), 1000), 0, false, CodePIDMismatch},
		{"nested, pid unknown", view(1, nil, core, 1, 2), nested(view(0, nil, proc, 1001, 1002), 1000), 2, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.extra != nil {
				for lwp, th := range c.extra.Threads {
					th.Name = target.Known(fmt.Sprint("t", lwp%1000), proc)
				}
			}
			j := Join(c.base, c.extra, PreferBase)
			if j.Matched != c.matched || j.ByNamespace != c.byNamespace || warned(j.View) != c.warnings {
				t.Errorf("matched %d, by namespace %v, warnings %v", j.Matched, j.ByNamespace, j.View.Warnings)
			}
			if !slices.Equal(j.View.LWPs(), c.base.LWPs()) {
				t.Errorf("threads %v, want those of the base %v", j.View.LWPs(), c.base.LWPs())
			}
			named := 0
			for lwp, th := range j.View.Threads {
				if th.Name.Known {
					named++
					if want := fmt.Sprint("t", lwp%1000); th.Name.V != want {
						t.Errorf("thread %d got the fields of %s, want %s", lwp, th.Name.V, want)
					}
				}
			}
			if named != c.matched {
				t.Errorf("%d threads got fields, want %d", named, c.matched)
			}
		})
	}
}

func TestJoinMoved(t *testing.T) {
	core, proc := target.SourceCoreNote, target.SourceProc
	base := view(1, nil, core, 1, 2, 3, 4, 5)
	extra := view(1, nil, proc, 1, 2, 3, 4, 5)
	set := func(lwp int, b, e target.Value[Syscall]) {
		base.Threads[lwp].Syscall, extra.Threads[lwp].Syscall = b, e
	}
	set(1, call(7, core), call(7, proc))
	set(2, call(7, core), call(202, proc))
	set(3, call(219, core), call(7, proc)) // repeated after gdb's stop
	set(4, target.Value[Syscall]{}, call(7, proc))
	set(5, call(7, core), target.Known(Syscall{Running: true}, proc))
	if j := Join(base, extra, PreferBase); !slices.Equal(j.Moved, []int{2}) {
		t.Errorf("moved %v, want [2]", j.Moved)
	}
}

func TestThreadsWarningIsShort(t *testing.T) {
	var ids []int
	for i := range 5000 {
		ids = append(ids, i+1)
	}
	j := Join(view(1, nil, target.SourceCoreNote, ids...), view(1, nil, target.SourceProc, 1), PreferBase)
	if len(j.View.Warnings) != 1 {
		t.Fatalf("warnings %v", j.View.Warnings)
	}
	text := j.View.Warnings[0].Text
	if len(text) > 400 || !strings.Contains(text, "4999 threads") || !strings.Contains(text, "and 4991 more") {
		t.Errorf("warning: %s", text)
	}
}

func TestTargetID(t *testing.T) {
	th := &Thread{LWP: 1001}
	if _, ok := th.TargetID(); ok {
		t.Error("an id without a source")
	}
	th.NSPid = []int{1001, 40, 7}
	if id, ok := th.TargetID(); !ok || id != 7 {
		t.Errorf("got %d, %v", id, ok)
	}
}

// TestJoinSleep: what only one view knows of a sleep reaches the result.
func TestJoinSleep(t *testing.T) {
	base, extra := view(1, nil, target.SourceCoreNote, 2), view(1, nil, target.SourceProcstat, 2)
	base.Threads[2].WaitAddress = target.Known[target.Addr](0xf0, target.SourceCoreNote)
	extra.Threads[2].WaitAddress = target.Known[target.Addr](0xf8, target.SourceProcstat)
	extra.Threads[2].Slept = target.Known(time.Minute, target.SourceProcstat)
	if got := Join(base, extra, PreferBase).View.Threads[2]; got.WaitAddress.V != 0xf0 || got.Slept.V != time.Minute {
		t.Errorf("%+v", got)
	}
	if got := Join(base, extra, PreferExtra).View.Threads[2]; got.WaitAddress.V != 0xf8 {
		t.Errorf("%+v", got)
	}
}
