package kernelview

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mycore/internal/target"
)

// Warning codes of Join.
const (
	// CodePIDMismatch: the two views belong to different processes; nothing
	// was taken from the second.
	CodePIDMismatch = "proc-pid-mismatch"
	// CodeThreadsMismatch: some threads are in one view only.
	CodeThreadsMismatch = "proc-threads-mismatch"
)

// Preference says which view wins for a field that both know.
type Preference bool

// The two preferences.
const (
	PreferBase  Preference = false
	PreferExtra Preference = true
)

// maxListed bounds the thread ids that one warning lists: it stays readable.
const maxListed = 8

// Joined is the result of Join.
type Joined struct {
	// View is a new Process with the threads of base, keyed as in base, and
	// what extra adds to them. It shares no Thread with its inputs.
	View *Process
	// Matched counts the threads found in both views.
	Matched int
	// Moved lists the LWPs (of base) whose system call differs between the
	// views: the thread went on between the two moments, so what one view says
	// about it doesn't explain the other. A call that the base shows as
	// restarted after a stop (see restartSyscalls) isn't counted.
	Moved []int
	// ByNamespace: the views number the threads in different PID namespaces
	// and were matched through the ids that both know.
	ByNamespace bool
}

// restartSyscalls are the numbers of restart_syscall: 219 on x86-64, 128 on
// AArch64 (Linux, arch/x86/entry/syscalls/syscall_64.tbl and
// include/uapi/asm-generic/unistd.h). A thread that was stopped once repeats a
// timed wait under this number.
var restartSyscalls = [...]int64{219, 128}

// idOf picks the id by which a thread of one view is matched.
type idOf func(lwp int, ns []int) int

func observers(lwp int, _ []int) int { return lwp }

func targets(_ int, ns []int) int {
	if len(ns) == 0 {
		return 0
	}
	return ns[len(ns)-1]
}

// Join merges two views of one process: base, which decides which threads
// there are (the core), and extra (a copied /proc tree). Threads are matched
// by LWP; when base and extra were taken from different PID namespaces, by the
// ids of NSPid. Each field keeps its source. A process that isn't the same, or
// threads that are in one view only, give a warning of the result; of a
// different process nothing is taken. Neither input is changed.
func Join(base, extra *Process, prefer Preference) Joined {
	out := Joined{View: cloneProcess(base)}
	if extra == nil {
		return out
	}
	v := out.View
	v.Warnings = append(v.Warnings, extra.Warnings...)
	bid, eid, how := matching(base, extra)
	switch how {
	case matchNone:
		v.Warnings = append(v.Warnings, target.Warning{Code: CodePIDMismatch, Text: fmt.Sprintf(
			"the saved kernel view is of process %s, the core is of process %s: nothing was taken from it; save /proc/PID of the process that was dumped",
			pidText(extra), pidText(base))})
		return out
	case matchNamespace:
		out.ByNamespace = true
	}
	byID := make(map[int]*Thread, len(extra.Threads))
	for _, lwp := range extra.LWPs() {
		t := extra.Threads[lwp]
		if id := eid(lwp, t.NSPid); id != 0 {
			byID[id] = t
		}
	}
	var missing []int
	used := make(map[*Thread]bool, len(byID))
	for _, lwp := range v.LWPs() {
		t := v.Threads[lwp]
		e := byID[bid(lwp, t.NSPid)]
		if e == nil {
			missing = append(missing, lwp)
			continue
		}
		used[e] = true
		out.Matched++
		if moved(t.Syscall, e.Syscall) {
			out.Moved = append(out.Moved, lwp)
		}
		joinThread(t, e, prefer)
	}
	var additional []int
	for _, lwp := range extra.LWPs() {
		if !used[extra.Threads[lwp]] {
			additional = append(additional, lwp)
		}
	}
	if out.Matched == 0 && len(base.Threads) > 0 && len(extra.Threads) > 0 {
		v.Warnings = append(v.Warnings, target.Warning{Code: CodeThreadsMismatch,
			Text: "no thread of the saved kernel view is in the core: it belongs to another process or another time, and nothing was taken from it"})
		return out
	}
	joinProcess(v, extra, prefer)
	if len(missing)+len(additional) > 0 && len(extra.Threads) > 0 && len(base.Threads) > 0 {
		v.Warnings = append(v.Warnings, threadsWarning(missing, additional))
	}
	return out
}

type matchKind int

const (
	matchNone matchKind = iota
	matchObserver
	matchNamespace
)

// matching decides by which ids the threads of two views are matched. Equal
// process ids settle it; where a process id isn't known, the ids that most
// threads share do.
func matching(base, extra *Process) (b, e idOf, how matchKind) {
	pairs := []struct {
		b, e idOf
		how  matchKind
	}{
		{observers, observers, matchObserver},
		{observers, targets, matchNamespace}, // core from inside, /proc from outside
		{targets, observers, matchNamespace}, // the other way round
	}
	if base.PID.Known && extra.PID.Known {
		for _, p := range pairs {
			id := p.b(base.PID.V, base.NSPid)
			if id != 0 && id == p.e(extra.PID.V, extra.NSPid) {
				return p.b, p.e, p.how
			}
		}
		return nil, nil, matchNone
	}
	best, count := 0, -1
	for i, p := range pairs {
		if n := overlap(base, extra, p.b, p.e); n > count {
			best, count = i, n
		}
	}
	return pairs[best].b, pairs[best].e, pairs[best].how
}

func overlap(base, extra *Process, b, e idOf) int {
	ids := make(map[int]bool, len(extra.Threads))
	for lwp, t := range extra.Threads {
		if id := e(lwp, t.NSPid); id != 0 {
			ids[id] = true
		}
	}
	n := 0
	for lwp, t := range base.Threads {
		if ids[b(lwp, t.NSPid)] {
			n++
		}
	}
	return n
}

func moved(base, extra target.Value[Syscall]) bool {
	if !base.Known || !extra.Known || base.V.Running || extra.V.Running {
		return false
	}
	return base.V.Number != extra.V.Number && !slices.Contains(restartSyscalls[:], base.V.Number)
}

// pick keeps the known one of two values, and the preferred one of two known.
func pick[T any](b *target.Value[T], e target.Value[T], prefer Preference) {
	if e.Known && (!b.Known || prefer == PreferExtra) {
		*b = e
	}
}

func joinThread(b, e *Thread, prefer Preference) {
	if b.NSPid == nil {
		b.NSPid = slices.Clone(e.NSPid)
	}
	pick(&b.Name, e.Name, prefer)
	pick(&b.State, e.State, prefer)
	pick(&b.WaitChannel, e.WaitChannel, prefer)
	pick(&b.WaitAddress, e.WaitAddress, prefer)
	pick(&b.Slept, e.Slept, prefer)
	pick(&b.Syscall, e.Syscall, prefer)
	// Stack pointer and program counter belong together: one moment's pair.
	if e.SP.Known && e.PC.Known && (prefer == PreferExtra || !b.SP.Known && !b.PC.Known) {
		b.SP, b.PC = e.SP, e.PC
	}
	pick(&b.SigBlocked, e.SigBlocked, prefer)
	pick(&b.SigPending, e.SigPending, prefer)
	pick(&b.SigIgnored, e.SigIgnored, prefer)
	pick(&b.SigCaught, e.SigCaught, prefer)
	pick(&b.TracerPID, e.TracerPID, prefer)
	pick(&b.KernelStack, e.KernelStack, prefer)
}

func joinProcess(b, e *Process, prefer Preference) {
	pick(&b.PID, e.PID, PreferBase)
	if b.NSPid == nil {
		b.NSPid = slices.Clone(e.NSPid)
	}
	if b.NSTgid == nil {
		b.NSTgid = slices.Clone(e.NSTgid)
	}
	pick(&b.PPID, e.PPID, prefer)
	pick(&b.Name, e.Name, prefer)
	pick(&b.State, e.State, prefer)
	pick(&b.Args, e.Args, prefer)
	pick(&b.Cwd, e.Cwd, prefer)
	pick(&b.Exe, e.Exe, prefer)
	pick(&b.TracerPID, e.TracerPID, prefer)
	pick(&b.ThreadCount, e.ThreadCount, prefer)
	pick(&b.StartTicks, e.StartTicks, prefer)
	pick(&b.SharedPending, e.SharedPending, prefer)
	pick(&b.SigIgnored, e.SigIgnored, prefer)
	pick(&b.SigCaught, e.SigCaught, prefer)
	b.Sightings = append(b.Sightings, e.Sightings...)
	if e.FilesKnown && (!b.FilesKnown || prefer == PreferExtra) {
		b.Files, b.FilesKnown = slices.Clone(e.Files), true
	}
	if e.Mappings != nil && (b.Mappings == nil || prefer == PreferExtra) {
		b.Mappings = slices.Clone(e.Mappings)
	}
}

func cloneProcess(p *Process) *Process {
	if p == nil {
		return &Process{Threads: map[int]*Thread{}}
	}
	c := *p
	c.NSPid, c.NSTgid = slices.Clone(p.NSPid), slices.Clone(p.NSTgid)
	c.Warnings, c.Sightings = slices.Clone(p.Warnings), slices.Clone(p.Sightings)
	c.Threads = make(map[int]*Thread, len(p.Threads))
	for lwp, t := range p.Threads {
		tc := *t
		c.Threads[lwp] = &tc
	}
	return &c
}

func pidText(p *Process) string {
	if !p.PID.Known {
		return "unknown"
	}
	if len(p.NSPid) > 1 {
		return fmt.Sprintf("%d (%s in nested PID namespaces)", p.PID.V, joinInts(p.NSPid[1:]))
	}
	return strconv.Itoa(p.PID.V)
}

func threadsWarning(missing, additional []int) target.Warning {
	var parts []string
	if len(missing) > 0 {
		parts = append(parts, fmt.Sprintf("%d threads of the core are not in the saved kernel view (%s): their wait channels are unknown",
			len(missing), joinInts(missing)))
	}
	if len(additional) > 0 {
		parts = append(parts, fmt.Sprintf("%d threads of the saved kernel view are not in the core (%s)",
			len(additional), joinInts(additional)))
	}
	return target.Warning{Code: CodeThreadsMismatch,
		Text: strings.Join(parts, "; ") + "; the two were taken at different times"}
}

func joinInts(ids []int) string {
	var b strings.Builder
	for i, id := range ids {
		if i == maxListed {
			fmt.Fprintf(&b, " and %d more", len(ids)-maxListed)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(id))
	}
	return b.String()
}
