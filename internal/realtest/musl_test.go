package realtest_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"mycore/internal/analyze"
	"mycore/internal/incident"
	"mycore/internal/servertest"
)

// muslCalls are the system calls by which a thread of each kind waits there.
var muslCalls = map[string][]string{
	"cond": {"futex"}, "mutex": {"futex"}, "sem": {"futex"}, "poll": {"poll"}, "read": {"read"},
	"recv": {"recvfrom"}, "epoll": {"epoll_wait", "epoll_pwait"},
	"nanosleep": {"nanosleep", "clock_nanosleep"}, "pause": {"pause"},
}

// TestMuslProgram: the handles of programs on musl, which publishes no layout,
// go both ways, with musl as a library and linked in, by the program's own
// account.
func TestMuslProgram(t *testing.T) {
	took(t)
	for name, args := range map[string][]string{"dynamic": nil, "static": {"-static"}} {
		t.Run(name, func(t *testing.T) {
			p := servertest.StartThreads(t, servertest.ThreadsOptions{Count: 16, Depth: 2, Compiler: "musl-gcc", CompilerArgs: args})
			res := run(t, analyze.Options{Core: p.KernelCore(t), Tool: incident.Tool{Name: "mycore", Version: "test"}})
			inc := res.Incident
			logWarnings(t, inc)
			if inc.System.Libc != "musl" {
				t.Errorf("the C library is %q", inc.System.Libc)
			}
			if len(inc.Threads) != len(p.Truth) {
				t.Errorf("%d threads, want %d", len(inc.Threads), len(p.Truth))
			}
			wantNoLabel(t, inc)
			for _, want := range p.Truth {
				th := threadOf(t, inc, want.LWP)
				if th.Handle == nil || uint64(*th.Handle) != want.Handle {
					t.Errorf("LWP %d: handle %v, want %#x", want.LWP, th.Handle, want.Handle)
				}
				if th.Syscall == nil || !slices.Contains(muslCalls[want.Kind], th.Syscall.Name) {
					t.Errorf("LWP %d waits by %s and shows %+v", want.LWP, want.Kind, th.Syscall)
				}
				if n := named(th, "descend"); want.Kind != "pause" && n != 3 {
					t.Errorf("LWP %d has %d frames of the descent, want 3: %q", want.LWP, n, functions(th))
				}
				for _, text := range []string{fmt.Sprintf("%#x", want.Handle), strconv.FormatUint(want.Handle, 10)} {
					if a := res.Handle(text); a.Status != "found" || a.Thread == nil || a.Thread.LWP != want.LWP {
						t.Errorf("%s resolves to %s, %+v; want LWP %d", text, a.Status, a.Thread, want.LWP)
					}
				}
			}
		})
	}
}

// named counts the frames of a function.
func named(th *incident.Thread, function string) int {
	n := 0
	for _, name := range functions(th) {
		if name == function {
			n++
		}
	}
	return n
}
