package unwind

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/modules"
)

// programCore builds testdata/frames.c, stops it in stop_here, and gives the
// core that gdb writes.
func programCore(t *testing.T, cflags ...string) (exe, core string) {
	t.Helper()
	for _, tool := range []string{"gcc", "gdb"} {
		if _, err := exec.LookPath(tool); err != nil {
			coretest.Absent(t, tool)
		}
	}
	dir := t.TempDir()
	exe, core = filepath.Join(dir, "frames"), filepath.Join(dir, "core")
	args := append([]string{"-o", exe, "testdata/frames.c", "-pthread"}, cflags...)
	if out, err := exec.CommandContext(t.Context(), "gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	// gdb's gcore leaves out file-backed text, which is then spliced in
	out, err := exec.CommandContext(t.Context(), "gdb", "-nx", "-batch", "-ex", "set debuginfod enabled off",
		"-ex", "handle SIGSEGV nostop noprint pass", "-ex", "break stop_here", "-ex", "run",
		"-ex", "generate-core-file "+core, "-ex", "kill", exe).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Saved corefile") {
		t.Skipf("gdb can't run a program or write a core here: %v\n%s", err, out)
	}
	return exe, core
}

// names gives function and trust of each frame; the trampoline by its mark.
func names(s Stack) []string {
	var out []string
	for _, f := range s.Frames {
		name := f.Function
		switch {
		case f.SignalFrame:
			name = "<signal>"
		case f.PC == 0:
			name = "<null>"
		}
		out = append(out, name+" "+string(f.Trust))
	}
	return out
}

// TestProgram walks a stack whose frames the program's source tells.
func TestProgram(t *testing.T) {
	t.Parallel()
	handler := []string{"stop_here context", "recurse cfi", "recurse cfi", "recurse cfi", "recurse cfi", "recurse cfi", "recurse cfi",
		"handler cfi", "<signal> cfi", "<null> cfi", "callback scan"}
	for _, tt := range []struct {
		name   string
		cflags []string
		want   []string
	}{
		{"without frame pointers", []string{"-O1", "-fomit-frame-pointer"},
			[]string{"bare cfi", "with_rbp scan", "realigned scan", "main cfi"}},
		{"with frame pointers", []string{"-O1", "-fno-omit-frame-pointer"},
			[]string{"bare cfi", "with_rbp scan", "realigned scan", "main cfi"}},
		{"not optimised", []string{"-O0"},
			[]string{"bare cfi", "with_rbp scan", "realigned scan", "main cfi"}},
		{"without .eh_frame_hdr", []string{"-O1", "-Wl,--no-eh-frame-hdr"},
			[]string{"bare cfi", "with_rbp scan", "realigned scan", "main cfi"}},
		{"with .debug_frame alone", []string{"-O1", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"},
			[]string{"bare cfi", "with_rbp scan", "realigned scan", "main cfi"}},
		{"static", []string{"-O2", "-fno-optimize-sibling-calls", "-static", "-no-pie"},
			[]string{"bare cfi", "with_rbp scan", "realigned scan", "main cfi"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			exe, core := programCore(t, tt.cflags...)
			p, err := elfcore.Open(core, elfcore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			set := modules.Load(p, modules.Options{Exe: exe})
			defer set.Close()
			p = p.WithBacking(set.Backing())
			u := New(p, set, Options{Core: p})
			found := map[string]bool{}
			for _, th := range p.Threads() {
				s := u.Thread(th)
				got := names(s)
				if s.Stop != StopOutermost {
					t.Errorf("thread %d ended with %q, %v: %q", th.LWP, s.Stop, s.Err, got)
				}
				if slices.ContainsFunc(got, func(n string) bool { return strings.HasPrefix(n, "thread ") }) {
					found["thread"] = true
					continue
				}
				found["main"] = true
				want := slices.Concat(handler, tt.want)
				if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
					t.Errorf("frames of thread %d:\n%q, want\n%q", th.LWP, got, want)
				}
				checkStack(t, s)
			}
			if len(found) != 2 {
				t.Errorf("threads found: %v", found)
			}
		})
	}
}

// TestElfutilsCores walks the stacks that elfutils tests its own unwinder
// with: one program with call frame information, one whose own code has none
// and needs frame pointers.
func TestElfutilsCores(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(coretest.Cores(t), "linux", "elfutils")
	for name, want := range map[string]map[int][]string{
		"backtrace.x86_64": {
			23097: {"raise context", "sigusr2 cfi", "stdarg cfi", "backtracegen cfi", "start cfi", "start_thread cfi", "clone cfi"},
			23096: {"pthread_join context", "main cfi", "__libc_start_main cfi", "_start cfi"},
		},
		"backtrace.x86_64.fp": {
			28872: {"raise context", "sigusr2 cfi", "stdarg frame-pointer", "backtracegen frame-pointer", "start frame-pointer", "start_thread frame-pointer", "clone cfi"},
			28871: {"pthread_join context", "main cfi", "__libc_start_main frame-pointer", "_start cfi"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := elfcore.Open(filepath.Join(dir, name+".core.xz"), elfcore.Options{TempDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			set := modules.Load(p, modules.Options{Exe: filepath.Join(dir, name+".exec")})
			defer set.Close()
			p = p.WithBacking(set.Backing())
			u := New(p, set, Options{Core: p})
			if len(p.Threads()) != len(want) {
				t.Errorf("%d threads, want %d", len(p.Threads()), len(want))
			}
			for _, th := range p.Threads() {
				s := u.Thread(th)
				checkStack(t, s)
				if got := names(s); s.Stop != StopOutermost || !slices.Equal(got, want[th.LWP]) {
					t.Errorf("thread %d ended with %q, %v:\n%q, want\n%q", th.LWP, s.Stop, s.Err, got, want[th.LWP])
				}
			}
		})
	}
}

// checkStack holds what is true of every stack.
func checkStack(t testing.TB, s Stack) {
	t.Helper()
	if (s.Err == nil) != (s.Stop == StopOutermost) || s.Stop == "" {
		t.Errorf("ended with %q, %v", s.Stop, s.Err)
	}
	for i, f := range s.Frames {
		if (f.Trust == TrustContext) != (i == 0) && (i == 0 || !s.Frames[i-1].SignalFrame) {
			t.Errorf("frame %d has trust %q", i, f.Trust)
		}
		if pc, ok := f.Regs.Get(16); !ok || pc != uint64(f.PC) {
			t.Errorf("frame %d: rip %#x, %v; pc %s", i, pc, ok, f.PC)
		}
		if f.LookupPC != f.PC && f.LookupPC != f.PC-1 {
			t.Errorf("frame %d: %s looked up at %s", i, f.PC, f.LookupPC)
		}
		sp, ok := f.Regs.Get(7)
		if !ok && i > 0 {
			t.Errorf("frame %d: stack pointer unknown", i)
		}
		if f.HasCFA && !f.SignalFrame && ok && uint64(f.CFA) <= sp {
			t.Errorf("frame %d: CFA %s is not above the stack pointer %#x", i, f.CFA, sp)
		}
		if i+1 < len(s.Frames) {
			if next, ok := s.Frames[i+1].Regs.Get(7); !ok || !f.HasCFA || !f.SignalFrame && next != uint64(f.CFA) {
				t.Errorf("frame %d: CFA %s %v, the caller's stack pointer is %#x", i, f.CFA, f.HasCFA, next)
			}
		}
	}
}
