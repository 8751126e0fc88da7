package libthr

import (
	"fmt"
	"path"
	"strings"

	"mycore/internal/target"
)

// glibc's lists of thread stacks. Each is a circular list of the nodes inside
// struct pthread. Since 2.34 the heads are members of _rtld_global in the
// dynamic linker, and their offsets are published like those of struct
// pthread; before, they are variables of libpthread (nptl/allocatestack.c,
// nptl_db/structs.def).
const (
	symRtldGlobal  = "_rtld_global"
	symStackUsed   = "_thread_db_rtld_global__dl_stack_used"
	symStackUser   = "_thread_db_rtld_global__dl_stack_user"
	symOldUsed     = "stack_used"
	symOldUser     = "__stack_user"
	symOldCache    = "stack_cache"
	symStaticUsed  = "_dl_stack_used" // a static program has the members of _rtld_global as variables
	symStaticUser  = "_dl_stack_user"
	symStaticCache = "_dl_stack_cache"
	cacheAfterUser = listNodeSize // _dl_stack_cache follows _dl_stack_user (sysdeps/generic/ldsodefs.h, 2.34 to 2.43)
)

// Names of the lists, for messages.
const (
	listUsed  = "stacks in use"
	listUser  = "stacks that the program provided"
	listCache = "cached stacks of threads that ended"
)

// maxListNodes bounds a walk over a list of stacks: more threads than any
// server has. A list that doesn't close by then is damaged.
const maxListNodes = 1 << 17

type listHead struct {
	name string
	addr target.Addr
}

// listHeads finds the heads of the lists.
func (l *Library) listHeads() []listHead {
	if l.Kind != KindGlibc || l.symbols == nil || l.Module == "" || !l.Layout.List.Known {
		return nil
	}
	used, published := l.descriptor(l.Module, symStackUsed, listNodeSize)
	if !published {
		return l.headVariables(symOldUsed, symOldUser, symOldCache)
	}
	global, ok := l.rtldGlobal()
	if !ok {
		return l.headVariables(symStaticUsed, symStaticUser, symStaticCache)
	}
	out := []listHead{{listUsed, global + target.Addr(used.Offset)}}
	if f, ok := l.descriptor(l.Module, symStackUser, listNodeSize); ok {
		out = append(out, listHead{listUser, global + target.Addr(f.Offset)},
			listHead{listCache, global + target.Addr(f.Offset+cacheAfterUser)})
	}
	return out
}

// headVariables finds heads that are variables of their own.
func (l *Library) headVariables(used, user, cache string) []listHead {
	var out []listHead
	for _, h := range []struct{ name, symbol string }{{listUsed, used}, {listUser, user}, {listCache, cache}} {
		if a, ok := l.symbols.LookupSymbol(l.Module, h.symbol); ok {
			out = append(out, listHead{h.name, a})
		}
	}
	return out
}

// rtldGlobal finds _rtld_global in the dynamic linker.
func (l *Library) rtldGlobal() (target.Addr, bool) {
	for _, p := range l.symbols.ModulePaths() {
		base := path.Base(strings.TrimSuffix(p, " (deleted)"))
		if !strings.HasPrefix(base, "ld-linux") && !strings.HasPrefix(base, "ld-2.") && !strings.HasPrefix(base, "ld.so") {
			continue
		}
		if a, ok := l.symbols.LookupSymbol(p, symRtldGlobal); ok {
			return a, true
		}
	}
	return 0, false
}

// walk collects the structures on one list. A list that is damaged or doesn't
// close gives an error and nothing else.
func (l *Library) walk(head listHead) ([]target.Addr, error) {
	next, err := target.Uint64(l.mem, head.addr)
	if err != nil {
		return nil, fmt.Errorf("list of %s at %v: %w", head.name, head.addr, err)
	}
	var out []target.Addr
	prev := head.addr
	for node := target.Addr(next); node != head.addr; {
		if len(out) == maxListNodes {
			return nil, fmt.Errorf("list of %s at %v doesn't close after %d nodes", head.name, head.addr, maxListNodes)
		}
		fwd, err := target.Uint64(l.mem, node)
		if err != nil {
			return nil, fmt.Errorf("list of %s at %v: %w", head.name, head.addr, err)
		}
		back, err := target.Uint64(l.mem, node+8)
		if err != nil {
			return nil, fmt.Errorf("list of %s at %v: %w", head.name, head.addr, err)
		}
		// Each node points back to the one before, so a walk can't go round
		// in a circle that leaves out the head.
		if target.Addr(back) != prev || node < target.Addr(l.Layout.List.Offset) {
			return nil, fmt.Errorf("list of %s at %v: node %v doesn't point back", head.name, head.addr, node)
		}
		out = append(out, node-target.Addr(l.Layout.List.Offset))
		prev, node = node, target.Addr(fwd)
	}
	return out, nil
}

// lists walks all lists once and tells which structure is on which.
func (l *Library) lists() map[target.Addr]string {
	l.listOnce.Do(func() {
		l.listed = map[target.Addr]string{}
		for _, head := range l.listHeads() {
			handles, err := l.walk(head)
			if err != nil {
				continue // the lists only add to an answer
			}
			for _, h := range handles {
				l.listed[h] = head.name
			}
		}
	})
	return l.listed
}

// fromLists looks for threads whose thread pointer isn't known (cores of other
// writers) on the library's own lists, by the id in the structure. What is
// found so is never confirmed: only one direction holds.
func (l *Library) fromLists(kernelTID map[int]int) {
	want := map[int]*Thread{}
	for i := range l.threads {
		t := &l.threads[i]
		if t.ThreadPointer.Known && t.ThreadPointer.V != 0 {
			continue
		}
		id := t.LWP
		if k, ok := kernelTID[t.LWP]; ok {
			id = k
		}
		want[id] = t
	}
	if len(want) == 0 {
		return
	}
	c := l.listCandidate()
	if c == nil {
		return
	}
	rd := newStructReader(l.mem, c)
	twice := map[int]bool{}
	taken := map[target.Addr]bool{}
	for i := range l.threads {
		if t := &l.threads[i]; t.Handle.Known {
			taken[t.Handle.V] = true
		}
	}
	for h, list := range l.lists() {
		if list == listCache || taken[h] {
			continue
		}
		s := rd.read(h)
		t := want[s.tid]
		if s.err != nil || !s.whole || t == nil || twice[s.tid] {
			continue
		}
		if t.Handle.Known {
			twice[s.tid] = true
			t.disown("more than one thread structure has its id")
			continue
		}
		t.Handle = target.Known(h, target.SourceMemory)
		t.TargetTID = target.Known(s.tid, c.layout.TID.Source)
		if s.start != 0 {
			t.StartRoutine = target.Known(s.start, target.SourceMemory)
		}
		t.Problem = "its thread pointer is unknown; the structure was found by the id in it, on the C library's list of " + list
	}
}

// listCandidate gives the layout for structures found on lists: the one chosen
// from the threads, or, when no thread pointer is known at all, the published.
func (l *Library) listCandidate() *candidate {
	if !l.Layout.TID.Known {
		for i := range l.threads {
			if l.threads[i].ThreadPointer.Known && l.threads[i].ThreadPointer.V != 0 {
				return nil // the published layout didn't explain the others
			}
		}
		paths, _ := l.modules()
		lay, module := l.readLayout(paths)
		if module == "" {
			return nil
		}
		l.Kind, l.Module, l.Layout = KindGlibc, module, lay
	}
	return &candidate{kind: l.Kind, layout: l.Layout, self: l.self()}
}

// self returns the members of the chosen library's structure that point to it.
func (l *Library) self() []uint64 {
	if l.Kind == KindMusl {
		return []uint64{0}
	}
	return l.profile.glibcSelf
}
