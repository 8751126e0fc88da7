package diagnose

import (
	"slices"
	"strings"
)

// roleOf finds the role of a thread: by the functions on its stack, its name,
// or its start routine. The index leads straight to the few candidates; among
// them the first of the catalog wins, so special roles stand before general
// ones in the files.
func (c *Catalog) roleOf(v *view) *Role {
	var best *Role
	try := func(list []*Role) {
		for _, r := range list {
			if best != nil && best.order <= r.order {
				continue
			}
			v.role = r
			if r.Only == nil || r.Only.eval(v, nil) == yes {
				best = r
			}
		}
	}
	for _, n := range v.names {
		if n != "" {
			try(c.byFrame[n])
		}
	}
	if v.t.Name.Known {
		try(c.byName[threadName(v.t.Name.V)])
	}
	if v.t.StartRoutine.Known {
		try(c.byStart[v.t.StartRoutine.V])
	}
	if best == nil && v.unnamedServerThread() {
		try(c.unnamed)
	}
	v.role = best
	return best
}

// maxUnnamedDepth is how many server frames a background thread without named
// functions may have: its main function and the two or three that put it to
// sleep. Measured on the three such threads of MariaDB 10.5 and 10.11.
const maxUnnamedDepth = 4

// unnamedServerThread recognises a background thread of a stripped server: the
// stack was walked to its end, all its server frames lie in the server's
// binary, there are few of them, and none has a name (user threads always
// show the exported do_command).
func (v *view) unnamedServerThread() bool {
	if !v.complete || v.interrupted || v.in.Process.ServerModule == "" {
		return false
	}
	depth := 0
	for i := range v.names {
		if !v.ofServer(i) {
			continue
		}
		if v.names[i] != "" {
			return false
		}
		depth++
	}
	return depth > 0 && depth <= maxUnnamedDepth
}

// idle judges whether a thread is in the normal wait of its role; nil when
// that can't be told.
func idle(v *view) *bool {
	if v.role == nil || v.role.Idle == nil {
		return nil
	}
	if v.t.State.Known && strings.HasPrefix(v.t.State.V, "D") {
		f := false
		return &f
	}
	switch v.role.Idle.eval(v, nil) {
	case yes:
		t := true
		return &t
	case no:
		f := false
		return &f
	}
	return nil
}

// groupKey is equal for equal stacks: the program counters, and, for a stack
// that wasn't walked to its end, what the kernel says about the thread.
func groupKey(v *view, buf []byte) []byte {
	buf = buf[:0]
	for i := range v.t.Frames {
		pc := uint64(v.t.Frames[i].PC)
		for range 8 {
			buf = append(buf, byte(pc))
			pc >>= 8
		}
	}
	if !v.t.Complete {
		// Without the callers all waits of one library look alike.
		buf = append(buf, "cut\x00"...)
		if v.t.Syscall.Known {
			buf = append(buf, v.t.Syscall.V.Name...)
		}
		buf = append(buf, 0)
		if v.t.WaitChannel.Known && len(v.t.Frames) == 0 {
			buf = append(buf, v.t.WaitChannel.V...)
		}
	}
	return buf
}

// group collects threads with equal stacks.
type group struct {
	members []int // indexes into the sorted views
}

// groups sorts threads by equal stacks: largest group first, then the one with
// the lowest LWP. views are ordered by LWP.
func groups(views []*view) []group {
	index := map[string]int{}
	var out []group
	var buf []byte
	for i, v := range views {
		buf = groupKey(v, buf)
		g, ok := index[string(buf)]
		if !ok {
			g = len(out)
			index[string(buf)] = g
			out = append(out, group{})
		}
		out[g].members = append(out[g].members, i)
	}
	slices.SortStableFunc(out, func(a, b group) int { return len(b.members) - len(a.members) })
	return out
}
