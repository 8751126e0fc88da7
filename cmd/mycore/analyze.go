package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mycore/internal/analyze"
	"mycore/internal/incident"
	"mycore/internal/report"
	"mycore/internal/untrusted"
)

// inputs are the flags that every command on a core has.
type inputs struct {
	exe       string
	sysroot   string
	debugDirs []string
	proc      string
	procstat  string
	ps        string
	status    string
	list      string
	errorLog  string
	kernelLog string
	maxUnpack string
	quiet     bool
	timings   bool
}

func (in *inputs) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&in.exe, "exe", "", "the server's `binary`, when it isn't at its recorded path")
	f.StringVar(&in.sysroot, "sysroot", "", "`directory` under which recorded paths are looked up (a container's root, a copy of the server's machine)")
	f.StringArrayVar(&in.debugDirs, "debug-dir", nil, "`directory` of debug files, looked into before /usr/lib/debug (repeatable)")
	f.StringVar(&in.proc, "proc", "", "saved copy of /proc/PID: task/*/{comm,wchan,syscall,status,stack} (`directory`)")
	f.StringVar(&in.procstat, "procstat", "", "saved text of procstat -t, -k, -kk, -j or -f, or its libxo JSON (`file`)")
	f.StringVar(&in.ps, "ps", "", "saved text of ps -H -O wchan, or of ps -axHo pid,lwp,wchan,state,comm (`file`)")
	f.StringVar(&in.status, "innodb-status", "", "saved SHOW ENGINE INNODB STATUS, joined by OS thread handle (`file`)")
	f.StringVar(&in.list, "processlist", "", "saved SHOW FULL PROCESSLIST, joined by connection id (`file`)")
	f.StringVar(&in.errorLog, "error-log", "", "the server's error log; the time around the core is read (`file`)")
	f.StringVar(&in.kernelLog, "kernel-log", "", "saved dmesg or journalctl -k: OOM kills, hung tasks, NFS (`file`)")
	f.StringVar(&in.maxUnpack, "max-unpacked", "", "limit for a compressed core's unpacked `size`, such as 40G")
	f.BoolVarP(&in.quiet, "quiet", "q", false, "no progress and no warnings on stderr")
	f.BoolVar(&in.timings, "timings", false, "print time and memory of each stage to stderr")
	for _, name := range []string{"sysroot", "debug-dir", "proc"} {
		_ = cmd.MarkFlagDirname(name)
	}
}

// options turns the flags into the analysis' options.
func (in *inputs) options(core string, progress io.Writer) (analyze.Options, error) {
	opts := analyze.Options{
		Core: core, Exe: in.exe, Sysroot: in.sysroot, DebugDirs: in.debugDirs, Proc: in.proc,
		Procstat: in.procstat, PS: in.ps, InnoDBStatus: in.status, Processlist: in.list,
		ErrorLog: in.errorLog, KernelLog: in.kernelLog,
		Tool: incident.Tool{Name: "mycore", Version: version()},
	}
	dirs := []struct{ flag, path string }{{"--sysroot", in.sysroot}, {"--proc", in.proc}}
	for _, d := range in.debugDirs {
		dirs = append(dirs, struct{ flag, path string }{"--debug-dir", d})
	}
	for _, d := range dirs {
		if d.path == "" {
			continue
		}
		if st, err := os.Stat(d.path); err != nil {
			return opts, flagError(d.flag, d.path, err)
		} else if !st.IsDir() {
			return opts, usageError{fmt.Errorf("%s %s: not a directory", d.flag, d.path)}
		}
	}
	for _, f := range []struct{ flag, path string }{
		{"--exe", in.exe}, {"--procstat", in.procstat}, {"--ps", in.ps}, {"--innodb-status", in.status},
		{"--processlist", in.list}, {"--error-log", in.errorLog}, {"--kernel-log", in.kernelLog},
	} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			return opts, flagError(f.flag, f.path, err)
		}
	}
	if in.maxUnpack != "" {
		n, err := parseSize(in.maxUnpack)
		if err != nil {
			return opts, usageError{fmt.Errorf("--max-unpacked: %w", err)}
		}
		opts.MaxUnpacked = n
	}
	if !in.quiet && isTerminal(progress) {
		opts.Progress = newProgress(progress).update
	}
	return opts, nil
}

// flagError says which flag's path can't be used.
func flagError(flag, path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return usageError{fmt.Errorf("%s %s: %w", flag, path, err)}
}

// parseSize reads a size in bytes with an optional suffix K, M, G or T (powers
// of 1024).
func parseSize(s string) (int64, error) {
	units := map[byte]int64{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
	unit := int64(1)
	digits := strings.ToUpper(s)
	if n := len(digits); n > 0 && units[digits[n-1]] != 0 {
		unit = units[digits[n-1]]
		digits = digits[:n-1]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)/unit {
		return 0, fmt.Errorf("%q is not a size such as 500M or 40G", s)
	}
	return n * unit, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colour says whether to colour what goes to w: only a terminal, and not with
// NO_COLOR (no-color.org) or a terminal that can't.
func colour(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

// width is the terminal's width in columns, 80 for anything else.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return n
		}
	}
	return 80
}

// printWarnings writes what the result lacks, one line each.
func (in *inputs) printWarnings(stderr io.Writer, inc *incident.Incident) {
	if in.quiet {
		return
	}
	for _, w := range inc.Warnings {
		fmt.Fprintf(stderr, "mycore: warning: %s\n", untrusted.Line(w.Text))
	}
}

// run analyses and prints what goes to stderr.
func (in *inputs) run(ctx context.Context, core string, stderr io.Writer) (*analyze.Result, error) {
	opts, err := in.options(core, stderr)
	if err != nil {
		return nil, err
	}
	res, err := analyze.Run(ctx, opts)
	if err != nil {
		return nil, withHint(core, err)
	}
	in.printWarnings(stderr, res.Incident)
	if in.timings {
		if err := res.WriteTimings(stderr); err != nil {
			return nil, err
		}
	}
	return res, nil
}

var severities = []string{incident.SeverityInfo, incident.SeverityWarning, incident.SeverityError, incident.SeverityCritical}

// output are the flags for how a result is shown.
type output struct {
	json    bool
	all     bool
	verbose bool
	failOn  string
}

func (o *output) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "the whole incident as JSON (schema: mycore schema)")
	f.BoolVarP(&o.all, "all", "a", false, "list idle threads, too")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "whole stacks with trust marks, and where binaries were looked for")
	f.StringVar(&o.failOn, "fail-on", "", "exit with 10 when a finding reaches this `severity`: info, warning, error or critical")
	_ = cmd.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions(severities, cobra.ShellCompDirectiveNoFileComp))
}

func (o *output) check() error {
	if o.failOn != "" && !slices.Contains(severities, o.failOn) {
		return usageError{fmt.Errorf("--fail-on %s: not a severity (info, warning, error, critical)", o.failOn)}
	}
	return nil
}

// show prints the incident and decides the exit.
func (o *output) show(stdout io.Writer, inc *incident.Incident) error {
	var err error
	if o.json {
		err = report.JSON(stdout, inc)
	} else {
		err = report.Text(stdout, inc, report.TextOptions{Width: width(stdout), Color: colour(stdout), All: o.all, Verbose: o.verbose})
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if o.failOn == "" {
		return nil
	}
	limit := slices.Index(severities, o.failOn)
	for _, f := range inc.Findings {
		if slices.Index(severities, f.Severity) >= limit {
			return findingError{}
		}
	}
	return nil
}

func newAnalyze(stdout, stderr io.Writer) *cobra.Command {
	var in inputs
	var out output
	cmd := &cobra.Command{
		Use:   "analyze CORE",
		Short: "Say what is stuck, on what, and what to do",
		Long: `Analyze reads a core dump (plain, or compressed with gzip, zstd, xz or lz4) and
prints the verdict first, then each finding with its evidence and remedies,
then the threads grouped by equal stacks, idle ones folded to a count.

Binaries are found by build ID: at --exe, under --sysroot, at their recorded
paths, in --debug-dir and /usr/lib/debug, and in the core itself.`,
		Example: `  mycore analyze mysqld.core
  mycore analyze mysqld.core.zst --exe ./mysqld
  mycore analyze mysqld.core --sysroot /srv/container/root --proc ./proc-1158
  mycore analyze mysqld.core --json --fail-on error > incident.json`,
		Args: usageArgs(oneCore),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			res, err := in.run(cmd.Context(), args[0], stderr)
			if err != nil {
				return err
			}
			defer res.Close()
			return out.show(stdout, res.Incident)
		},
	}
	in.register(cmd)
	out.register(cmd)
	return cmd
}
