package diagnose

import (
	"path"
	"strings"

	"mycore/internal/target"
)

// tri is the answer of a condition: rules distinguish "no" from "not known".
type tri int8

const (
	no      tri = -1
	unknown tri = 0
	yes     tri = 1
)

func answer(b bool) tri {
	if b {
		return yes
	}
	return no
}

// view is one thread prepared for conditions: what doesn't change between
// rules is computed once.
type view struct {
	in *Input
	t  *Thread
	// names are the normalised names of the trusted frames, innermost first,
	// "" for unnamed ones: all frames up to the first one of a stack scan. For
	// a thread that a signal handler interrupted they begin after the
	// outermost signal frame: what the thread did is what counts.
	names       []string
	first       int  // index in t.Frames of names[0]
	complete    bool // nothing lies beyond names
	interrupted bool
	wait        waitClass
	role        *Role
}

func newView(in *Input, t *Thread) *view {
	v := &view{in: in, t: t, complete: t.Complete}
	end := len(t.Frames)
	for i := range t.Frames {
		if t.Frames[i].Trust == TrustScan {
			end, v.complete = i, false
			break
		}
		if t.Frames[i].Signal {
			v.first, v.interrupted = i+1, true
		}
	}
	v.first = min(v.first, end)
	v.names = make([]string, end-v.first)
	for i := range v.names {
		v.names[i] = t.Frames[v.first+i].Norm
	}
	v.wait = classify(t, v.names, v.interrupted)
	return v
}

// readable says that the stack tells what the thread is doing: it was walked
// to its end, or names a function beyond the library's.
func (v *view) readable() bool {
	if len(v.names) > 0 && v.complete {
		return true
	}
	for _, n := range v.names {
		if _, lib := waitByFrame[n]; n != "" && n != "syscall" && !lib {
			return true
		}
	}
	return false
}

// path is the absolute path that the thread opens: "" and no source when it
// isn't known; a relative one is joined with the directory it starts from.
func (v *view) path() target.Value[string] {
	if !v.t.Syscall.Known {
		return target.Value[string]{}
	}
	p := v.t.Syscall.V.Path
	if p.Known && p.V == "" {
		return target.Value[string]{} // no open of "" ever waits: the page was zeros
	}
	if !p.Known || strings.HasPrefix(p.V, "/") {
		return p
	}
	dir := v.t.Syscall.V.Dir
	if !dir.Known {
		dir = v.in.Process.Cwd
	}
	if dir.Known && strings.HasPrefix(dir.V, "/") && p.V != "" {
		return target.Known(path.Join(dir.V, p.V), p.Source)
	}
	return p
}

// pathFact is what the file system says about the path.
func (v *view) pathFact() (PathFact, bool) {
	p := v.path()
	if !p.Known {
		return PathFact{}, false
	}
	f, ok := v.in.Paths[p.V]
	if !ok || !f.SameSystem && f.Kind != "fifo" {
		return PathFact{}, false
	}
	return f, true
}

func (v *view) accessMode() target.Value[string] {
	if !v.t.Syscall.Known || !v.t.Syscall.V.OpenFlags.Known {
		return target.Value[string]{}
	}
	return target.Known(access(v.in.OS, v.t.Syscall.V.OpenFlags.V), v.t.Syscall.Source)
}

// result is the return register of a thread stopped inside its call.
func (v *view) result() target.Value[int64] {
	if !v.t.Syscall.Known {
		return target.Value[int64]{}
	}
	return v.t.Syscall.V.Result
}

// find returns the index in names of the first frame named one of list, at or
// after from; -1 when there is none.
func (v *view) find(list []string, from int) int {
	for i := from; i < len(v.names); i++ {
		if v.names[i] != "" && contains(list, v.names[i]) {
			return i
		}
	}
	return -1
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// sequence looks for the steps in the stack, inner to outer, with at most gap
// other frames between two of them (gap < 0: any number).
func (v *view) sequence(steps []Names, gap int) tri {
	if v.match(steps, 0, -1, gap) {
		return yes
	}
	if !v.complete {
		return unknown
	}
	return no
}

// match tries to place steps[0] at from or later; last is the index of the
// step before, -1 for the first step, whose distance from the innermost frame
// isn't limited. A stack has few frames of one name, so trying the next one is
// cheap: at most frames times steps comparisons when gap is unlimited, and gap
// bounds the rest.
func (v *view) match(steps []Names, from, last, gap int) bool {
	if len(steps) == 0 {
		return true
	}
	if len(steps[0]) == 1 && steps[0][0] == nameEntry {
		return v.reachesEntry(from, gap)
	}
	list := v.expand(steps[0])
	limit := len(v.names)
	if gap >= 0 && last >= 0 {
		limit = min(limit, last+gap+2)
	}
	for i := from; i < limit; i++ {
		if v.names[i] == "" || !contains(list, v.names[i]) {
			continue
		}
		if v.match(steps[1:], i+1, i, gap) {
			return true
		}
		if gap < 0 {
			return false // a later start can't reach more than the first one
		}
	}
	return false
}

// Names that stand for a list: the frames of the thread's own role, the
// functions under which every thread starts, and those that it waits in.
const (
	nameRole  = "@role"
	nameEntry = "@entry"
	nameWait  = "@wait"
)

// waitFrameNames are the library functions that threads wait in.
var waitFrameNames = sortedKeys(waitByFrame)

// entryFrames are the functions that call a thread's own: of glibc, musl,
// libthr, libstdc++, the wrappers of performance schema and of InnoDB in MySQL
// 8 and newer (measured on 9.7), and those of the main thread.
var entryFrames = []string{
	"start_thread", "__start_thread", "clone", "clone3", "__clone", "__clone3", "start", "thread_start",
	"std::execute_native_thread_routine", "execute_native_thread_routine", "std::thread::_State_impl::_M_run",
	"Detached_thread::operator()", "pfs_spawn_thread", "__libc_start_main", "__libc_start_call_main", "_start",
}

// reachesEntry says that from here outwards at most gap frames of the server
// come before the thread's entry. Library frames don't count: whether the C
// library names start_thread depends on the distribution, so the outermost
// frame of a whole stack is an entry, too. It is asked where the role's own
// function has no name; where it has one, that one decides.
func (v *view) reachesEntry(from, gap int) bool {
	if v.role != nil && v.find(v.role.Frames, 0) >= 0 {
		return false
	}
	own := 0
	for i := from; i < len(v.names); i++ {
		if v.names[i] != "" && contains(entryFrames, v.names[i]) || i == len(v.names)-1 && v.complete {
			return true
		}
		if v.ofServer(i) {
			if own++; gap >= 0 && own > gap {
				return false
			}
		}
	}
	return false
}

// ofServer says that frame i of names lies in the server's binary; when that
// isn't known, every frame may.
func (v *view) ofServer(i int) bool {
	m := v.in.Process.ServerModule
	return m == "" || path.Base(v.t.Frames[v.first+i].Module) == path.Base(m)
}

func (v *view) expand(n Names) []string {
	if len(n) != 1 {
		return n
	}
	switch n[0] {
	case nameRole:
		if v.role != nil {
			return v.role.Frames
		}
		return nil
	case nameWait:
		return waitFrameNames
	}
	return n
}
