package compare_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// usage is what one run of a command took.
type usage struct {
	Wall, CPU time.Duration
	Peak      int64 // bytes of memory, the most at one time
	Code      int
}

// envMeasure makes this test's executable a small program that runs a command
// and tells its usage. A process begins with the peak memory of the one that
// started it (Linux fs/exec.c, exec_mmap: setmax_mm_hiwater_rss), which must
// not be that of a test that has parsed megabytes.
const envMeasure = "MYCORE_BENCH_MEASURE"

func TestMain(m *testing.M) {
	if os.Getenv(envMeasure) != "1" {
		os.Exit(m.Run())
	}
	u, err := runOnce(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(u)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runOnce runs a command with its output thrown away.
func runOnce(argv []string) (usage, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "DEBUGINFOD_URLS=", "LC_ALL=C", envMeasure+"=")
	start := time.Now()
	err := cmd.Run()
	u := usage{Wall: time.Since(start)}
	if cmd.ProcessState == nil {
		return u, err
	}
	// eu-stack ends with 1 when one of many stacks has no end.
	u.Code = cmd.ProcessState.ExitCode()
	u.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return u, fmt.Errorf("no usage of %s", argv[0])
	}
	u.Peak = int64(ru.Maxrss) << 10 // KiB on Linux (getrusage(2))
	return u, nil
}

// measure runs a command in a process of its own.
func measure(t *testing.T, argv []string) usage {
	t.Helper()
	cmd := exec.Command(os.Args[0], argv...)
	cmd.Env = append(os.Environ(), envMeasure+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("measuring %v: %v: %s", argv, err, stderr.Bytes())
	}
	var u usage
	if err := json.Unmarshal(out, &u); err != nil {
		t.Fatalf("measuring %v: %v: %q", argv, err, out)
	}
	return u
}

// sizeName describes a core of the test program.
func sizeName(t *testing.T, core string, threads int) string {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(core, &st); err != nil {
		t.Fatal(err)
	}
	// st_blocks counts 512 bytes whatever the file system's block is (stat(2)).
	return fmt.Sprintf("%d threads, %d MB, %d on disk", threads, st.Size>>20, int64(st.Blocks)*512>>20)
}

// spread are minimum, median and maximum.
type spread [3]float64

func of(runs []usage, value func(usage) float64) spread {
	v := make([]float64, 0, len(runs))
	for _, u := range runs {
		v = append(v, value(u))
	}
	slices.Sort(v)
	return spread{v[0], v[len(v)/2], v[len(v)-1]}
}

func (s spread) String() string { return fmt.Sprintf("%.3f / %.3f / %.3f", s[0], s[1], s[2]) }

func wall(u usage) float64 { return u.Wall.Seconds() }
func cpu(u usage) float64  { return u.CPU.Seconds() }
func peak(u usage) float64 { return float64(u.Peak) / (1 << 20) }

// table lists the tools with how many times as much as the first they take,
// by medians. most is the number of frames that there are, 0 to count none out.
func table(tools []*tool, most int) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "command\tframes\twall s (min/median/max)\tcpu s (min/median/max)\tpeak MiB (min/median/max)\twall\tcpu\tpeak\truns")
	base := tools[0].runs
	fastest, name := 0.0, ""
	for i, x := range tools {
		frames := fmt.Sprint(x.frames)
		if most > 0 {
			frames += fmt.Sprintf(" (%.1f %%)", 100*float64(x.frames)/float64(most))
		}
		switch {
		case len(x.runs) == 0:
			fmt.Fprintf(w, "%s\tnot run: %s\t\t\t\t\t\t\t\n", x.name, x.why)
			continue
		case float64(x.frames) < enough*float64(most):
			frames += ", doesn't count"
		case i > 0 && !x.slow:
			if m := of(x.runs, wall)[1]; name == "" || m < fastest {
				fastest, name = m, x.name
			}
		}
		ratio := func(f func(usage) float64) float64 { return of(x.runs, f)[1] / of(base, f)[1] }
		p := of(x.runs, peak)
		fmt.Fprintf(w, "%s\t%s\t%v\t%v\t%.0f / %.0f / %.0f\t%.1fx\t%.1fx\t%.1fx\t%d\n", x.name, frames, of(x.runs, wall), of(x.runs, cpu),
			p[0], p[1], p[2], ratio(wall), ratio(cpu), ratio(peak), len(x.runs))
	}
	if err := w.Flush(); err != nil {
		return err.Error()
	}
	if most > 0 && name != "" {
		fmt.Fprintf(&b, "mycore takes %.3f of the time of the faster debugger (%s); the goal is 0.25 at most, 0.1 aimed at\n",
			of(base, wall)[1]/fastest, name)
	}
	return b.String()
}
