package libthr

import (
	"fmt"

	"mycore/internal/target"
)

// fbsdRecognise looks at memory as a struct pthread of the layout in use, or,
// when there is none, of any known release.
func (l *Library) fbsdRecognise(h target.Addr) (fbsdStruct, *fbsdLayout, error) {
	layouts := fbsdLayouts
	if l.fbsd.layout != nil {
		layouts = []fbsdLayout{*l.fbsd.layout}
	}
	var firstErr error
	for i := range layouts {
		s := newFbsdReader(l.mem, &layouts[i], l.fbsd.tcb).read(h)
		switch {
		case s.err != nil:
			if firstErr == nil {
				firstErr = s.err
			}
		// Without a magic number only the TCB can tell.
		case s.magic && (layouts[i].magic != noField || s.back):
			return s, &layouts[i], nil
		}
	}
	if firstErr != nil {
		// A short piece of memory at the end of a mapping is readable, and no
		// thread structure: its first word must be there.
		if _, err := target.Uint64(l.mem, h); err == nil {
			firstErr = nil
		}
	}
	return fbsdStruct{}, nil, firstErr
}

// fbsdMemory answers by what FreeBSD's memory holds at an address that isn't
// known as a thread's.
func (l *Library) fbsdMemory(a Answer, h target.Addr) Answer {
	s, g, err := l.fbsdRecognise(h)
	if err != nil {
		return l.unreadable(a, err)
	}
	if g == nil {
		return notThread(a)
	}
	lwp := int(min(s.tid, maxPID+1))
	t, alive := l.ByLWP(lwp)
	if alive && !t.Handle.Known {
		return l.fbsdFound(a, h, s, t)
	}
	a.Status = StatusStale
	what := fmt.Sprintf("%s is stale: a thread structure is there", both(h))
	switch {
	case alive:
		a.TID, a.Thread = lwp, &t
		a.Lines = []string{fmt.Sprintf("%s, and it names the id %d, but the handle of that thread is another. %s", what, lwp, handleSentence(&t))}
	case s.tid == fbsdTerminated, s.tid == 0:
		a.Lines = []string{fmt.Sprintf("%s, and its id is %d: the thread ended, and libthr keeps the structure for another one or until somebody joins it.", what, s.tid)}
	case s.tid > maxPID:
		a.Lines = []string{what + ", but its id is no thread's: memory that was used for something else, or damage."}
	default:
		a.TID = lwp
		a.Lines = []string{fmt.Sprintf("%s; it names the id %d, which is no thread of this core: the thread ended.", what, lwp)}
	}
	if _, listed := l.fbsd.rest[h]; listed {
		a.Lines = append(a.Lines, "libthr still has it on its list of threads.")
	}
	return a
}

// fbsdFound answers for a structure that was found only because its address
// was asked for: libthr's list wasn't there, or is damaged. The structure is
// looked at as those on the list are.
func (l *Library) fbsdFound(a Answer, h target.Addr, s fbsdStruct, t Thread) Answer {
	t.Handle = target.Known(h, target.SourceMemory)
	t.TargetTID = target.Known(t.LWP, target.SourceProfile)
	t.Problem = ""
	if s.start != 0 {
		t.StartRoutine = target.Known(s.start, target.SourceMemory)
	}
	if s.stack.End != 0 {
		t.Stack = target.Known(s.stack, target.SourceMemory)
	}
	if !s.back {
		t.Problem = "its TCB doesn't point back"
	} else if regs := l.regs[t.LWP]; regs != nil && t.Stack.Known {
		if sp, ok := regs.SP(); ok && !t.Stack.V.Contains(sp) {
			t.Problem = "the stack pointer of that LWP lies outside of the stack that the structure names"
		}
	}
	a.Thread = &t
	if t.Problem != "" {
		a.Status = StatusUnconfirmed
		a.Lines = []string{fmt.Sprintf("%s is probably the handle of LWP %d, but not proven: %s.", both(h), t.LWP, t.Problem)}
		return a
	}
	t.Proof = fmt.Sprintf("the id there is %d, and its TCB at %v points back", t.LWP, s.tcb)
	t.Confirmed = true
	a.Status = StatusFound
	a.Lines = []string{
		fmt.Sprintf("%s is the handle of LWP %d: %s.", both(h), t.LWP, t.Proof),
		"It was recognised at this address alone: libthr's list of threads doesn't lead to it.",
	}
	return a
}
