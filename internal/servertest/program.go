package servertest

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

//go:embed testdata/threads.c
var threadsSource []byte

// compileArgs build a program whose frames are easy to foretell.
var compileArgs = []string{"-O1", "-g", "-fno-optimize-sibling-calls", "-Wall", "-Werror", "-pthread"}

// Compile builds a C program with the C compiler ($CC, or gcc) and gives the
// executable's path; it goes when the test ends. More arguments come last.
func Compile(t testing.TB, source []byte, args ...string) string {
	t.Helper()
	return compileBy(t, os.Getenv("CC"), source, args...)
}

// compileBy is Compile with a compiler of choice; "" is gcc.
func compileBy(t testing.TB, cc string, source []byte, args ...string) string {
	t.Helper()
	if cc == "" {
		cc = "gcc"
	}
	needTool(t, cc)
	dir := t.TempDir()
	src, exe := filepath.Join(dir, "program.c"), filepath.Join(dir, "program")
	if err := os.WriteFile(src, source, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	all := append(append(append([]string{}, compileArgs...), "-o", exe, src), args...)
	if _, err := run(ctx, nil, cc, all...); err != nil {
		t.Fatalf("compiling: %v", err)
	}
	return exe
}

// Program is a running C program.
type Program struct {
	*Process
	// Lines are what it had printed when it was ready.
	Lines []string
}

// StartProgram runs an executable until it has printed a line for which ready
// says true; the lines up to there are kept. The program has to wait then for
// a signal that ends it.
func StartProgram(t testing.TB, exe string, args []string, ready func(line string) bool) *Program {
	t.Helper()
	Available(t)
	Lock(t)
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &Program{Process: &Process{Exe: exe, Dir: dir, cwd: filepath.Join(dir, "cwd"), log: filepath.Join(dir, "log")}}
	if err := os.Mkdir(p.cwd, 0o755); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Dir, cmd.Stdout = p.cwd, w
	p.start(t, cmd)
	w.Close()
	lines := make(chan []string, 1)
	failed := make(chan error, 1)
	go func() {
		ls, err := readUntil(r, ready)
		if err != nil {
			failed <- err
			return
		}
		lines <- ls
	}()
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	select {
	case p.Lines = <-lines:
	case err := <-failed:
		t.Fatalf("%s: %v; stderr:\n%s", exe, err, p.logTail())
	case <-ctx.Done():
		t.Fatalf("%s isn't ready: %v; stderr:\n%s", exe, ctx.Err(), p.logTail())
	}
	return p
}

// readUntil collects lines; whatever comes after the last is drained, so that
// the program never blocks on its output.
func readUntil(r *os.File, ready func(string) bool) ([]string, error) {
	var lines []string
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		lines = append(lines, sc.Text())
		if ready(sc.Text()) {
			go func() {
				_, _ = io.Copy(io.Discard, r)
				r.Close()
			}()
			return lines, nil
		}
	}
	r.Close()
	return nil, errors.Join(errors.New("it closed its output"), sc.Err())
}

// ThreadsOptions shape the program of StartThreads.
type ThreadsOptions struct {
	// Count is the number of threads beside the main one.
	Count int
	// Depth is how many frames lie between a thread's start function and the
	// one that blocks.
	Depth int
	// SparseBytes is the size of a mapping that makes the core's file that much
	// longer, but for one page a hole.
	SparseBytes int64
	// Compiler builds the program, "" as Compile does: musl-gcc (Debian's
	// musl-tools) gives one of another C library. CompilerArgs come last.
	Compiler     string
	CompilerArgs []string
}

// ProgramThread is a thread of that program, by its own account.
type ProgramThread struct {
	LWP int
	// Kind is what it is blocked in: cond, mutex, sem, poll, read, recv, epoll,
	// nanosleep; the main thread is in pause.
	Kind string
	// Handle is its pthread_self.
	Handle uint64
}

// ThreadsProgram is the running program of many threads.
type ThreadsProgram struct {
	*Program
	// Truth are all its threads, the main one included.
	Truth []ProgramThread
}

// StartThreads compiles and runs a program of many threads that are blocked in
// eight different ways, and returns when all of them are.
func StartThreads(t testing.TB, opts ThreadsOptions) *ThreadsProgram {
	t.Helper()
	Available(t)
	cc := opts.Compiler
	if cc == "" {
		cc = os.Getenv("CC")
	}
	exe := compileBy(t, cc, threadsSource, opts.CompilerArgs...)
	seen := 0
	p := StartProgram(t, exe,
		[]string{strconv.Itoa(opts.Count), strconv.Itoa(opts.Depth), strconv.FormatInt(opts.SparseBytes, 10)},
		func(string) bool { seen++; return seen == opts.Count+1 })
	tp := &ThreadsProgram{Program: p}
	for _, line := range p.Lines {
		th, err := parseThread(line)
		if err != nil {
			t.Fatal(err)
		}
		tp.Truth = append(tp.Truth, th)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	if err := poll(ctx, "all threads to block", tp.allBlocked()); err != nil {
		t.Fatal(err)
	}
	return tp
}

// parseThread reads a line of threads.c.
func parseThread(line string) (ProgramThread, error) {
	f := strings.Fields(line)
	if len(f) != 4 || f[0] != "thread" {
		return ProgramThread{}, fmt.Errorf("line %q of the program", line)
	}
	lwp, err1 := strconv.Atoi(f[1])
	handle, err2 := strconv.ParseUint(f[3], 0, 64)
	if err := errors.Join(err1, err2); err != nil {
		return ProgramThread{}, fmt.Errorf("line %q of the program: %w", line, err)
	}
	return ProgramThread{LWP: lwp, Kind: f[2], Handle: handle}, nil
}

// blockedIn are the system calls that each kind of thread blocks in, by number
// on x86-64 (Linux arch/x86/entry/syscalls/syscall_64.tbl).
var blockedIn = map[string][]string{
	"cond": {"202"}, "mutex": {"202"}, "sem": {"202"}, // futex
	"poll": {"7"}, "read": {"0"}, "recv": {"45"},
	"epoll":     {"232", "281"}, // epoll_wait, epoll_pwait (musl)
	"nanosleep": {"35", "230"},  // nanosleep, clock_nanosleep (glibc since 2.31)
	"pause":     {"34"},
}

// allBlocked tells, each time it is called, whether every thread is in the
// call that it is meant to block in. What was seen once stays.
func (tp *ThreadsProgram) allBlocked() func() (bool, error) {
	next := 0
	return func() (bool, error) {
		for ; next < len(tp.Truth); next++ {
			th := tp.Truth[next]
			line, err := tp.taskFile(th.LWP, "syscall")
			if err != nil {
				return false, fmt.Errorf("thread %d: %w", th.LWP, err)
			}
			nr, _, _ := strings.Cut(line, " ")
			found := false
			for _, want := range blockedIn[th.Kind] {
				found = found || nr == want
			}
			if !found {
				return false, nil
			}
		}
		return true, nil
	}
}
