package compare_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mycore/internal/incident"
	"mycore/internal/servertest"
)

// The variables that scripts/bench.sh sets.
const (
	envBench   = "MYCORE_BENCH"         // "1": start real servers
	envCore    = "MYCORE_BENCH_CORE"    // or: compare on this core
	envExe     = "MYCORE_BENCH_EXE"     // with this executable
	envSysroot = "MYCORE_BENCH_SYSROOT" // and this root, "" for none
)

const (
	connections = 500
	// rounds is how often each command runs, in turn with the others; slow
	// ones, which take ten seconds each, leave the later rounds out.
	rounds     = 7
	slowRounds = 3
	// enough is the part of all frames that a tool must yield to be compared:
	// one that misses the binaries is fast and of no use.
	enough = 0.95
)

// TestCompareTools prints tables; it asserts nothing about time.
func TestCompareTools(t *testing.T) {
	bin := command(t)
	if core := os.Getenv(envCore); core != "" {
		tg := servertest.Target{Core: absolute(t, core), Exe: absolute(t, os.Getenv(envExe))}
		if root := os.Getenv(envSysroot); root != "" {
			tg.Root = absolute(t, root)
		}
		compareOn(t, bin, filepath.Base(core), tg)
		return
	}
	for _, k := range servertest.Default() {
		t.Run(string(k), func(t *testing.T) {
			s := servertest.Get(t, k).Start(t, servertest.Options{})
			s.ConnectIdle(t, connections)
			compareOn(t, bin, string(k)+" "+s.Version, s.Target(s.KernelCore(t)))
		})
	}
	t.Run("size", func(t *testing.T) {
		grows(t, bin, "core of 200 MB and sparse core of 20 GB, 500 threads each", [2]servertest.ThreadsOptions{
			{Count: 500, Depth: 10, SparseBytes: 200 << 20}, {Count: 500, Depth: 10, SparseBytes: 20 << 30}})
	})
	t.Run("threads", func(t *testing.T) {
		grows(t, bin, "1,000 and 10,000 threads", [2]servertest.ThreadsOptions{
			{Count: 1000, Depth: 10}, {Count: 10000, Depth: 10}})
	})
}

// command skips the test unless it was asked for, and finds the program.
func command(t *testing.T) string {
	t.Helper()
	if os.Getenv(envBench) != "1" && os.Getenv(envCore) == "" {
		t.Skipf("a benchmark, not a test: it takes minutes and asserts nothing about time, so it is left out even with %s; run `make bench`, or set %s=1",
			servertest.RequireEnv, envBench)
	}
	bin := absolute(t, filepath.Join("..", "..", "..", "bin", "mycore"))
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%v; make build makes it", err)
	}
	return bin
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// tool is one command to compare.
type tool struct {
	name   string
	argv   []string
	frames int // physical frames that it finds; 0: it isn't there
	why    string
	slow   bool
	runs   []usage
}

// compareOn compares all tools on one core.
func compareOn(t *testing.T, bin, title string, tg servertest.Target) {
	t.Helper()
	threads, frames := ownFrames(t, mycore(bin, tg))
	tools := []*tool{{name: "mycore analyze --json", argv: mycore(bin, tg), frames: frames}}
	tools = append(tools, references(t, tg)...)
	most := 0
	for _, x := range tools {
		most = max(most, x.frames)
	}
	if float64(frames) < enough*float64(most) {
		t.Errorf("mycore finds %d frames of %d", frames, most)
	}
	for i := range rounds {
		for _, x := range tools {
			if x.frames > 0 && (!x.slow || i < slowRounds) {
				x.runs = append(x.runs, measure(t, x.argv))
			}
		}
	}
	st, err := os.Stat(tg.Core)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d threads, %d frames, core of %d MB\n%s", title, threads, most, st.Size()>>20, table(tools, most))
}

// mycore is the command line of the program under test.
func mycore(bin string, tg servertest.Target) []string {
	argv := []string{bin, "analyze", "--json", "--exe", tg.Exe}
	if tg.Root != "" {
		argv = append(argv, "--sysroot", tg.Root)
	}
	return append(argv, tg.Core)
}

// ownFrames runs mycore once and counts what it found.
func ownFrames(t *testing.T, argv []string) (threads, frames int) {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		t.Fatalf("%v: %v", argv, err)
	}
	var inc incident.Incident
	if err := json.Unmarshal(out, &inc); err != nil {
		t.Fatal(err)
	}
	for i := range inc.Threads {
		frames += len(inc.Threads[i].Frames)
	}
	return len(inc.Threads), frames
}

// references are the debuggers. What each finds is counted by a run of its
// own: what the measured commands print shows inlined calls as frames.
func references(t *testing.T, tg servertest.Target) []*tool {
	t.Helper()
	gdb := &tool{name: "gdb thread apply all bt", argv: servertest.GDBArgs(tg, "-ex", "thread apply all bt")}
	lldb := &tool{name: "lldb thread backtrace all", argv: servertest.LLDBArgs(tg, "thread backtrace all")}
	eu := &tool{name: "eu-stack", slow: true}
	var err error
	if eu.argv, err = servertest.EUStackArgs(tg); err != nil {
		eu.why = err.Error()
	}
	for _, x := range []struct {
		tool  *tool
		count func(testing.TB, servertest.Target) *servertest.Stacks
	}{{gdb, servertest.GDB}, {lldb, servertest.LLDB}, {eu, servertest.EUStack}} {
		name, _, _ := strings.Cut(x.tool.name, " ")
		if _, err := exec.LookPath(name); err != nil {
			x.tool.why = err.Error()
		} else if x.tool.why == "" {
			x.tool.frames = x.count(t, tg).Frames()
		}
	}
	return []*tool{gdb, lldb, eu}
}

// grows compares two processes of the test program.
func grows(t *testing.T, bin, title string, opts [2]servertest.ThreadsOptions) {
	t.Helper()
	var tools []*tool
	for _, o := range opts {
		p := servertest.StartThreads(t, o)
		tg := p.Target(p.KernelCore(t))
		threads, frames := ownFrames(t, mycore(bin, tg))
		if threads != o.Count+1 {
			t.Fatalf("%d threads, want %d", threads, o.Count+1)
		}
		tools = append(tools, &tool{name: sizeName(t, tg.Core, threads), argv: mycore(bin, tg), frames: frames})
	}
	for range rounds {
		for _, x := range tools {
			x.runs = append(x.runs, measure(t, x.argv))
		}
	}
	t.Logf("%s\n%s", title, table(tools, 0))
}
