package servertest

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// toolWait bounds one run of a debugger over a core.
const toolWait = 5 * time.Minute

// Target is what a debugger is given: a core and where its files are.
type Target struct {
	Core string
	// Exe is the executable on this machine.
	Exe string
	// Root is the sysroot, "" for this machine's own files.
	Root string
}

// Target is the debuggers' target for a core of the process.
func (p *Process) Target(core string) Target {
	return Target{Core: core, Exe: p.Exe, Root: p.Root}
}

// Frame is one physical frame: no frame that a debugger makes of inlined calls.
type Frame struct {
	PC uint64
	// Function is the name as the tool prints it, "" for none.
	Function string
	// Signal marks the frame of a signal's return code; only gdb tells.
	Signal bool
}

// Stack is one thread's stack, innermost frame first.
type Stack struct {
	LWP int
	// Handle is the pthread_t, 0 where the tool doesn't know; only gdb tells.
	Handle uint64
	Frames []Frame
	// Stop is what the tool says about the end of the stack, "" for nothing:
	// gdb's reason ("outermost" is the good one), eu-stack's message.
	Stop string
}

// Stacks are all threads' stacks as one tool saw them.
type Stacks struct {
	Tool    string
	Threads []Stack // in the tool's order
}

// ByLWP indexes the stacks.
func (s *Stacks) ByLWP() map[int]Stack {
	m := make(map[int]Stack, len(s.Threads))
	for _, st := range s.Threads {
		m[st.LWP] = st
	}
	return m
}

// Frames counts the frames of all threads.
func (s *Stacks) Frames() int {
	n := 0
	for _, st := range s.Threads {
		n += len(st.Frames)
	}
	return n
}

// noDebuginfod keeps tools from asking a server for symbols.
var noDebuginfod = []string{"DEBUGINFOD_URLS=", "LC_ALL=C"}

// gdbQuiet makes gdb depend on nothing but its arguments.
var gdbQuiet = []string{"-nx", "-batch", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off"}

// GDBArgs is the command line of gdb over a target, with further arguments.
func GDBArgs(tg Target, more ...string) []string {
	args := append([]string{"gdb"}, gdbQuiet...)
	if tg.Root != "" {
		args = append(args, "-iex", "set sysroot "+tg.Root)
	}
	args = append(args, tg.Exe, tg.Core)
	return append(args, more...)
}

// LLDBArgs is the command line of lldb over a target; commands run behind
// loading it.
func LLDBArgs(tg Target, commands ...string) []string {
	args := []string{"lldb", "--no-lldbinit", "--batch"}
	if tg.Root != "" {
		// The platform "host" would take this machine's libraries all the same.
		args = append(args, "-o", "platform select --sysroot "+tg.Root+" remote-linux")
	}
	args = append(args, "-o", "target create "+tg.Exe+" --core "+tg.Core)
	for _, c := range commands {
		args = append(args, "-o", c)
	}
	return args
}

// inRootScript runs a program of this machine inside another root: eu-stack
// has no sysroot for cores. $1 is the root; this machine's files are under
// /host there, and the root's own path leads to itself, since a core that was
// made from outside records such paths. The mounts end with the process.
const inRootScript = `set -e
root=$1; loader=$2; libs=$3; shift 3
mount --rbind / "$root/host"
if mkdir -p "$root$root" 2>/dev/null; then mount --bind "$root" "$root$root"; fi
exec chroot "$root" "/host$loader" --library-path "$libs" "/host$@"`

// EUStackArgs is the command line of eu-stack over a target.
func EUStackArgs(tg Target) ([]string, error) {
	if tg.Root == "" {
		return []string{"eu-stack", "--core", tg.Core, "-e", tg.Exe}, nil
	}
	tool, err := exec.LookPath("eu-stack")
	if err != nil {
		return nil, err
	}
	// Links in /lib64 are absolute and would lead to the root's own loader.
	paths := [2]string{"/lib64/ld-linux-x86-64.so.2", tool}
	for i, p := range paths {
		if paths[i], err = filepath.EvalSymlinks(p); err != nil {
			return nil, err
		}
	}
	return []string{"unshare", "--mount", "--propagation", "private", "bash", "-c", inRootScript, "bash",
		tg.Root, paths[0], "/host/lib/x86_64-linux-gnu:/host/usr/lib/x86_64-linux-gnu",
		paths[1], "--core", "/host" + tg.Core, "-e", strings.TrimPrefix(tg.Exe, tg.Root)}, nil
}

// needTool skips or fails the test where a tool isn't installed.
func needTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		missing(t, err)
	}
}

//go:embed testdata/gdb_stacks.py
var gdbScript []byte

// GDB reads all stacks with gdb.
func GDB(t testing.TB, tg Target) *Stacks {
	t.Helper()
	needTool(t, "gdb")
	script := filepath.Join(t.TempDir(), "stacks.py")
	if err := os.WriteFile(script, gdbScript, 0o644); err != nil {
		t.Fatal(err)
	}
	out := runTool(t, GDBArgs(tg, "-ex", "set backtrace past-main on", "-x", script))
	st, err := parseGDB(out)
	return st.checked(t, err, out)
}

// LLDB reads all stacks with lldb.
func LLDB(t testing.TB, tg Target) *Stacks {
	t.Helper()
	needTool(t, "lldb")
	out := runTool(t, LLDBArgs(tg,
		`settings set frame-format "frame ${frame.pc} ${frame.sp} ${function.name}\n"`,
		`settings set thread-stop-format "thread ${thread.id%tid}\n"`,
		"thread backtrace all"))
	st, err := parseLLDB(out)
	return st.checked(t, err, out)
}

// EUStack reads all stacks with elfutils' eu-stack.
func EUStack(t testing.TB, tg Target) *Stacks {
	t.Helper()
	needTool(t, "eu-stack")
	args, err := EUStackArgs(tg)
	if err != nil {
		t.Fatal(err)
	}
	out := runTool(t, args)
	st, err := parseEUStack(out)
	return st.checked(t, err, out)
}

// checked fails the test where the tool's output can't be what was asked for.
func (s *Stacks) checked(t testing.TB, err error, out string) *Stacks {
	t.Helper()
	if err != nil || len(s.Threads) == 0 || s.Frames() == 0 {
		t.Fatalf("%s gave no stacks (%v); its output:\n%s", s.Tool, err, out[:min(len(out), 4000)])
	}
	return s
}

// runTool runs a debugger under a deadline and gives its stdout. eu-stack ends
// with 1 when one stack of many doesn't reach its end, so a tool's exit code
// isn't judged: what it printed is.
func runTool(t testing.TB, args []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolWait)
	defer cancel()
	out, err := run(ctx, noDebuginfod, args[0], args[1:]...)
	if ctx.Err() != nil {
		t.Fatalf("%s: %v", args[0], ctx.Err())
	}
	if err != nil {
		t.Logf("%v", err)
	}
	return string(out)
}

// parseGDB reads what gdb_stacks.py prints.
func parseGDB(out string) (*Stacks, error) {
	s := &Stacks{Tool: "gdb"}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		last := len(s.Threads) - 1
		switch {
		case f[0] == "mycore-thread" && len(f) == 3:
			lwp, err := strconv.Atoi(f[1])
			if err != nil {
				return s, fmt.Errorf("line %q: %w", line, err)
			}
			handle, err := strconv.ParseUint(f[2], 0, 64)
			if err != nil {
				return s, fmt.Errorf("line %q: %w", line, err)
			}
			s.Threads = append(s.Threads, Stack{LWP: lwp, Handle: handle})
		case f[0] == "mycore-frame" && len(f) >= 4 && last >= 0:
			pc, err := strconv.ParseUint(f[1], 0, 64)
			if err != nil {
				return s, fmt.Errorf("line %q: %w", line, err)
			}
			name := strings.Join(f[3:], " ")
			if name == "None" {
				name = ""
			}
			s.Threads[last].Frames = append(s.Threads[last].Frames, Frame{PC: pc, Signal: f[2] == "1", Function: name})
		case f[0] == "mycore-stop" && last >= 0:
			s.Threads[last].Stop = strings.Join(f[1:], " ")
		}
	}
	return s, nil
}

// parseLLDB reads "thread TID" and "frame PC SP NAME" lines. Frames of inlined
// calls have the stack pointer of the frame that they are part of, which comes
// last, while the first has its PC.
func parseLLDB(out string) (*Stacks, error) {
	s := &Stacks{Tool: "lldb"}
	lastSP := ""
	for line := range strings.Lines(out) {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "* "))
		switch {
		case len(f) == 2 && f[0] == "thread":
			lwp, err := strconv.Atoi(f[1])
			if err != nil {
				continue // an echoed command
			}
			s.Threads = append(s.Threads, Stack{LWP: lwp})
			lastSP = ""
		case len(f) >= 3 && f[0] == "frame" && len(s.Threads) > 0:
			pc, err := strconv.ParseUint(f[1], 0, 64)
			if err != nil {
				return s, fmt.Errorf("line %q: %w", line, err)
			}
			if f[2] == lastSP {
				continue
			}
			lastSP = f[2]
			st := &s.Threads[len(s.Threads)-1]
			st.Frames = append(st.Frames, Frame{PC: pc, Function: strings.Join(f[3:], " ")})
		}
	}
	return s, nil
}

// parseEUStack reads "TID n:" and "#i 0xPC NAME" lines.
func parseEUStack(out string) (*Stacks, error) {
	s := &Stacks{Tool: "eu-stack"}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "TID":
			lwp, err := strconv.Atoi(strings.TrimSuffix(f[1], ":"))
			if err != nil {
				return s, fmt.Errorf("line %q: %w", line, err)
			}
			s.Threads = append(s.Threads, Stack{LWP: lwp})
		case len(f) >= 2 && strings.HasPrefix(f[0], "#") && len(s.Threads) > 0:
			pc, err := strconv.ParseUint(f[1], 0, 64)
			if err != nil {
				return s, fmt.Errorf("line %q: %w", line, err)
			}
			st := &s.Threads[len(s.Threads)-1]
			st.Frames = append(st.Frames, Frame{PC: pc, Function: strings.Join(f[2:], " ")})
		}
	}
	return s, nil
}
