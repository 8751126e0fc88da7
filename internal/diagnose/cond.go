package diagnose

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"mycore/internal/target"
)

// Names is a function name or a list of alternatives.
type Names []string

// UnmarshalYAML accepts a scalar or a list of scalars.
func (n *Names) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*n = Names{node.Value}
		return nil
	}
	var list []string
	if err := node.Decode(&list); err != nil {
		return err
	}
	*n = list
	return nil
}

// Cond is a condition over the facts of one thread and its process. The keys
// present in one Cond must all hold; a key with a list holds when one of the
// list does. Each key is a typed fact: there is no expression language.
//
// A condition has three answers. Yes and no need the fact to be known;
// otherwise it is unknown, and so is its negation.
type Cond struct {
	All []Cond `yaml:"all"`
	Any []Cond `yaml:"any"`
	Not *Cond  `yaml:"not"`
	// Unproven holds unless its condition is known to hold: no and unknown are
	// the same to it.
	Unproven *Cond `yaml:"unproven"`

	OS           []string `yaml:"os"`
	Arch         []string `yaml:"arch"`
	Family       []string `yaml:"family"`
	VersionFrom  string   `yaml:"version-from"`  // at least this version
	VersionBelow string   `yaml:"version-below"` // before this version

	Frames   []Names  `yaml:"frames"`    // sequence of functions, innermost first, others between them
	MaxGap   *int     `yaml:"max-gap"`   // with frames: so many frames at most between two steps; before @entry only the server's count
	AnyFrame []string `yaml:"any-frame"` // one of these is on the stack
	Stack    string   `yaml:"stack"`     // "read" or "unread": whether it says more than which library function waits
	Wait     []string `yaml:"wait"`      // kind of waiting, from call and innermost functions

	Syscall      []string `yaml:"syscall"`
	Access       []string `yaml:"access"`       // of an open: read, write, read-write, nonblocking, path
	Restart      []string `yaml:"restart"`      // restart code in the return register
	WaitChannel  []string `yaml:"wait-channel"` // kernel function slept in; suffixes like .isra.0 don't count
	KernelStack  []string `yaml:"kernel-stack"` // one of these functions is on the kernel stack
	State        []string `yaml:"state"`
	ThreadName   []string `yaml:"thread-name"` // comm; a trailing -NUMBER of the thread's name doesn't count
	StartRoutine []string `yaml:"start-routine"`

	PathKind     []string `yaml:"path-kind"`     // what the file system has there
	PathUnder    []string `yaml:"path-under"`    // the path is below one of these directories
	PathAbsolute *bool    `yaml:"path-absolute"` // the path is known and absolute
	PathQuotable *bool    `yaml:"path-quotable"` // the path can be written in a shell command as it is
	Known        []string `yaml:"known"`         // these facts are known (yes or no, never unknown)

	SharedPending []string `yaml:"shared-pending"` // a signal pending for the process
	Blocked       []string `yaml:"blocked"`        // a signal blocked in the thread
	Caught        []string `yaml:"caught"`         // a signal that the process has a handler for
	Alive         *bool    `yaml:"alive"`          // the process can still be there
	ObservedPID1  *bool    `yaml:"observed-pid-1"` // the observer sees the process as pid 1
}

// trace collects the sources of the facts that made conditions true; "certain"
// counts their kinds.
type trace []target.Source

func (tr *trace) add(s target.Source) {
	if tr != nil && s != "" && !slices.Contains(*tr, s) {
		*tr = append(*tr, s)
	}
}

// eval answers c for a thread.
func (c *Cond) eval(v *view, tr *trace) tri {
	res := yes
	and := func(t tri) { res = min(res, t) }
	for i := range c.All {
		and(c.All[i].eval(v, tr))
	}
	if c.Any != nil {
		best := no
		for i := range c.Any {
			var sub trace
			t := c.Any[i].eval(v, &sub)
			if t == yes {
				for _, s := range sub {
					tr.add(s)
				}
			}
			best = max(best, t)
		}
		and(best)
	}
	if c.Not != nil {
		and(-c.Not.eval(v, nil))
	}
	if c.Unproven != nil {
		and(answer(c.Unproven.eval(v, nil) != yes))
	}
	if res == no {
		return no
	}
	and(c.evalProcess(v))
	and(c.evalFrames(v, tr))
	and(c.evalKernel(v, tr))
	and(c.evalPath(v, tr))
	and(c.evalSignals(v))
	return res
}

func (c *Cond) evalProcess(v *view) tri {
	res := yes
	if c.OS != nil {
		res = min(res, answer(contains(c.OS, v.in.OS)))
	}
	if c.Arch != nil {
		res = min(res, answer(contains(c.Arch, v.in.Arch)))
	}
	if c.Family != nil {
		res = min(res, fact(v.in.Server.Family, nil, func(s string) bool { return contains(c.Family, s) }))
	}
	if c.VersionFrom != "" {
		res = min(res, fact(v.in.Server.Version, nil, func(s string) bool { return compareVersions(s, c.VersionFrom) >= 0 }))
	}
	if c.VersionBelow != "" {
		res = min(res, fact(v.in.Server.Version, nil, func(s string) bool { return compareVersions(s, c.VersionBelow) < 0 }))
	}
	if c.Alive != nil {
		res = min(res, fact(v.in.Process.Alive, nil, func(b bool) bool { return b == *c.Alive }))
	}
	if c.ObservedPID1 != nil {
		if v.in.Process.PID == 0 {
			res = min(res, unknown)
		} else {
			res = min(res, answer((v.in.Process.PID == 1) == *c.ObservedPID1))
		}
	}
	return res
}

// fact answers a test on a value that may be absent and records its source.
func fact[T any](v target.Value[T], tr *trace, test func(T) bool) tri {
	if !v.Known {
		return unknown
	}
	if !test(v.V) {
		return no
	}
	tr.add(v.Source)
	return yes
}

func (c *Cond) evalFrames(v *view, tr *trace) tri {
	res := yes
	if c.Frames != nil {
		gap := -1
		if c.MaxGap != nil {
			gap = *c.MaxGap
		}
		res = min(res, v.sequence(c.Frames, gap))
	}
	if c.AnyFrame != nil {
		switch {
		case v.find(c.AnyFrame, 0) >= 0:
		case v.complete:
			res = no
		default:
			res = min(res, unknown)
		}
	}
	if res == yes && (c.Frames != nil || c.AnyFrame != nil) {
		tr.add(target.SourceMemory) // the stack's frames are words of the target's memory
	}
	if c.Stack != "" {
		res = min(res, answer(v.readable() == (c.Stack == "read")))
	}
	if c.Wait != nil {
		var want waitClass
		for _, w := range c.Wait {
			want |= waitNames[w]
		}
		if v.wait == 0 {
			res = min(res, unknown)
		} else {
			res = min(res, answer(v.wait&want != 0))
		}
	}
	return res
}

func (c *Cond) evalKernel(v *view, tr *trace) tri {
	res := yes
	if c.Syscall != nil {
		res = min(res, fact(v.t.Syscall, tr, func(s Syscall) bool { return contains(c.Syscall, s.Name) }))
	}
	if c.Access != nil {
		res = min(res, fact(v.accessMode(), tr, func(s string) bool { return contains(c.Access, s) }))
	}
	if c.Restart != nil {
		res = min(res, fact(v.result(), tr, func(n int64) bool { return contains(c.Restart, restartNames[n]) }))
	}
	if c.WaitChannel != nil {
		res = min(res, fact(v.t.WaitChannel, tr, func(s string) bool { return contains(c.WaitChannel, kernelName(s)) }))
	}
	if c.KernelStack != nil {
		res = min(res, fact(v.t.KernelStack, tr, func(st []string) bool {
			return slices.ContainsFunc(st, func(s string) bool { return contains(c.KernelStack, kernelName(s)) })
		}))
	}
	if c.State != nil {
		res = min(res, fact(v.t.State, nil, func(s string) bool { return s != "" && contains(c.State, s[:1]) }))
	}
	if c.ThreadName != nil {
		res = min(res, fact(v.t.Name, nil, func(s string) bool { return contains(c.ThreadName, threadName(s)) }))
	}
	if c.StartRoutine != nil {
		res = min(res, fact(v.t.StartRoutine, nil, func(s string) bool { return contains(c.StartRoutine, s) }))
	}
	return res
}

func (c *Cond) evalPath(v *view, tr *trace) tri {
	res := yes
	p := v.path()
	if c.PathKind != nil {
		f, ok := v.pathFact()
		if !ok {
			res = min(res, unknown)
		} else {
			res = min(res, fact(target.Known(f.Kind, f.Source), tr, func(s string) bool { return contains(c.PathKind, s) }))
		}
	}
	if c.PathUnder != nil {
		res = min(res, fact(p, tr, func(s string) bool {
			return slices.ContainsFunc(c.PathUnder, func(dir string) bool { return strings.HasPrefix(s, strings.TrimSuffix(dir, "/")+"/") })
		}))
	}
	if c.PathAbsolute != nil {
		res = min(res, fact(p, nil, func(s string) bool { return strings.HasPrefix(s, "/") == *c.PathAbsolute }))
	}
	if c.PathQuotable != nil {
		res = min(res, fact(p, nil, func(s string) bool { return quotable(s) == *c.PathQuotable }))
	}
	for _, name := range c.Known {
		res = min(res, answer(v.knows(name)))
	}
	return res
}

func (c *Cond) evalSignals(v *view) tri {
	res := yes
	for _, m := range []struct {
		names []string
		mask  target.Value[uint64]
	}{{c.SharedPending, v.in.Process.SharedPending}, {c.Blocked, v.t.SigBlocked}, {c.Caught, v.in.Process.SigCaught}} {
		if m.names == nil {
			continue
		}
		res = min(res, fact(m.mask, nil, func(mask uint64) bool {
			return slices.ContainsFunc(m.names, func(n string) bool { return mask&(1<<(signalNumbers[n]-1)) != 0 })
		}))
	}
	return res
}

// factNames are the words for Cond.Known and for the evidence of rules.
var factNames = []string{"wait-channel", "kernel-stack", "syscall", "path", "path-kind", "stack", "restart", "state", "handle", "access", "session"}

func (v *view) knows(name string) bool {
	switch name {
	case "wait-channel":
		return v.t.WaitChannel.Known
	case "kernel-stack":
		return v.t.KernelStack.Known
	case "syscall":
		return v.t.Syscall.Known
	case "path":
		return v.path().Known
	case "path-kind":
		_, ok := v.pathFact()
		return ok
	case "stack":
		return v.readable()
	case "restart":
		r := v.result()
		return r.Known && restartNames[r.V] != ""
	case "state":
		return v.t.State.Known
	case "handle":
		return v.t.Handle.Known
	case "session":
		return v.t.Session.Known
	case "access":
		return v.accessMode().Known
	}
	return false
}

// kernelName cuts what compilers append to a kernel function's name, and the
// offset of a stack line.
func kernelName(s string) string {
	if i := strings.IndexAny(s, ".+ "); i > 0 {
		return s[:i]
	}
	return s
}

// threadName cuts the instance number that MySQL 8 and newer append
// ("ib_io_rd-2" is the second reader).
func threadName(s string) string {
	i := strings.LastIndexByte(s, '-')
	if i <= 0 || i == len(s)-1 {
		return s
	}
	for _, c := range s[i+1:] {
		if c < '0' || c > '9' {
			return s
		}
	}
	return s[:i]
}

// compareVersions compares dotted versions number by number; what follows the
// last number ("-MariaDB", "-log") doesn't count, a missing number is 0.
func compareVersions(a, b string) int {
	x, y := versionNumbers(a), versionNumbers(b)
	return slices.Compare(x[:], y[:])
}

func versionNumbers(s string) (out [3]int) {
	for i := range out {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		v, err := strconv.Atoi(s[:n])
		if err != nil {
			return out
		}
		out[i] = v
		if n == len(s) || s[n] != '.' {
			return out
		}
		s = s[n+1:]
	}
	return out
}

// check reports what is wrong with a condition of a rule file.
func (c *Cond) check() error {
	if c == nil {
		return nil
	}
	if c.empty() {
		return fmt.Errorf("a condition without any fact")
	}
	for i := range c.All {
		if err := c.All[i].check(); err != nil {
			return err
		}
	}
	for i := range c.Any {
		if err := c.Any[i].check(); err != nil {
			return err
		}
	}
	if err := errors.Join(c.Not.check(), c.Unproven.check()); err != nil {
		return err
	}
	if c.MaxGap != nil && (c.Frames == nil || *c.MaxGap < 0) {
		return fmt.Errorf("max-gap needs frames and a number of at least 0")
	}
	for i, step := range c.Frames {
		if len(step) == 0 || slices.Contains(step, nameEntry) && (len(step) > 1 || i != len(c.Frames)-1) {
			return fmt.Errorf("frames: a step is empty, or %s isn't the last one by itself", nameEntry)
		}
	}
	for _, e := range []struct {
		key   string
		words []string
		known []string
	}{
		{"os", c.OS, []string{"linux", "freebsd"}},
		{"family", c.Family, []string{"mysql", "percona", "mariadb"}},
		{"access", c.Access, []string{"read", "write", "read-write", "nonblocking", "path"}},
		{"restart", c.Restart, sortedValues(restartNames)},
		{"wait", c.Wait, sortedKeys(waitNames)},
		{"known", c.Known, factNames},
		{"path-kind", c.PathKind, pathKinds},
		{"shared-pending", c.SharedPending, sortedKeys(signalNumbers)},
		{"blocked", c.Blocked, sortedKeys(signalNumbers)},
		{"caught", c.Caught, sortedKeys(signalNumbers)},
	} {
		for _, w := range e.words {
			if !contains(e.known, w) {
				return fmt.Errorf("%s: %q isn't one of %s", e.key, w, strings.Join(e.known, ", "))
			}
		}
	}
	if c.Stack != "" && c.Stack != "read" && c.Stack != "unread" {
		return fmt.Errorf("stack: %q is neither read nor unread", c.Stack)
	}
	for _, s := range append([]string{c.VersionFrom}, c.VersionBelow) {
		if s != "" && versionNumbers(s) == [3]int{} {
			return fmt.Errorf("%q isn't a version", s)
		}
	}
	return nil
}

// pathKinds are the kinds of PathFact.
var pathKinds = []string{"fifo", "regular", "directory", "device", "socket", "other", "missing"}

func (c *Cond) empty() bool {
	lists := [][]string{c.OS, c.Arch, c.Family, c.AnyFrame, c.Wait, c.Syscall, c.Access, c.Restart, c.WaitChannel,
		c.KernelStack, c.State, c.ThreadName, c.StartRoutine, c.PathKind, c.PathUnder, c.Known, c.SharedPending, c.Blocked, c.Caught}
	for _, l := range lists {
		if len(l) > 0 {
			return false
		}
	}
	return len(c.All) == 0 && len(c.Any) == 0 && c.Not == nil && c.Unproven == nil && c.VersionFrom == "" && c.VersionBelow == "" &&
		len(c.Frames) == 0 && c.Stack == "" && c.PathAbsolute == nil && c.PathQuotable == nil && c.Alive == nil && c.ObservedPID1 == nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func sortedValues[K comparable](m map[K]string) []string {
	out := make([]string, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}
