package libthr

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mycore/internal/target"
)

// Status is the kind of an Answer.
type Status string

// What a number that a user passed as a handle can turn out to be.
const (
	// StatusFound: the handle of a thread, confirmed in both directions.
	StatusFound Status = "found"
	// StatusUnconfirmed: a thread's thread pointer leads to it, but the
	// structure can't be read or contradicts; Thread.Problem says which.
	StatusUnconfirmed Status = "unconfirmed"
	// StatusLWP: not a handle but a thread's LWP.
	StatusLWP Status = "lwp-id"
	// StatusTargetTID: not a handle but a thread's id in the PID namespace of
	// the target.
	StatusTargetTID Status = "target-tid"
	// StatusInside: an address inside a thread's structure, not its start.
	StatusInside Status = "inside"
	// StatusStale: the structure of a thread that ended.
	StatusStale Status = "stale"
	// StatusNotThread: readable memory that is no thread structure.
	StatusNotThread Status = "not-a-thread"
	// StatusUnmapped, StatusNotDumped, StatusTruncated and StatusFileMissing:
	// no thread has this handle, and the memory there can't be read.
	StatusUnmapped    Status = "unmapped"
	StatusNotDumped   Status = "not-dumped"
	StatusTruncated   Status = "truncated"
	StatusFileMissing Status = "file-missing"
	// StatusUnreadable: likewise, for a reason outside the core.
	StatusUnreadable Status = "unreadable"
	// StatusInvalid: the text isn't a number.
	StatusInvalid Status = "invalid"
)

// Answer is what Resolve found out about one handle.
type Answer struct {
	Input  string
	Status Status
	// Value and Base are the reading that Status is about; Base is 10 or 16,
	// 0 when the text isn't a number.
	Value target.Addr
	Base  int
	// Thread is the thread that the answer is about; nil when there is none.
	Thread *Thread
	// TID is the id that a stale structure still holds; 0 when it holds none.
	TID int
	// Err is why memory couldn't be read.
	Err error
	// Lines explain the answer, in whole sentences. They hold no text of the
	// target, but the user's input.
	Lines []string
}

// maxHandleText bounds what is looked at: a handle has at most 20 digits.
const maxHandleText = 64

// reading is one way to read a handle's text as a number.
type reading struct {
	value uint64
	base  int
}

// readings returns the ways to read a handle, the likelier first: servers
// print handles in decimal (MySQL, MariaDB) or as 0x and hex, debuggers also
// as bare hex. Digits alone are decimal first.
func readings(text string) []reading {
	s := strings.Trim(strings.TrimSpace(text), `,;:."'()`)
	if s == "" || len(s) > maxHandleText {
		return nil
	}
	if hex, ok := cutHexPrefix(s); ok {
		if v, err := strconv.ParseUint(hex, 16, 64); err == nil {
			return []reading{{v, 16}}
		}
		return nil
	}
	var out []reading
	if v, err := strconv.ParseUint(s, 10, 64); err == nil {
		out = append(out, reading{v, 10})
	}
	if v, err := strconv.ParseUint(s, 16, 64); err == nil && (len(out) == 0 || v != out[0].value) {
		out = append(out, reading{v, 16})
	}
	return out
}

func cutHexPrefix(s string) (string, bool) {
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		return s[2:], true
	}
	return s, false
}

// Resolve says which thread a handle belongs to. It accepts hex with and
// without 0x, and decimal, as servers and debuggers print them, and always
// answers: a number that is no handle is looked at as an LWP, as the target's
// own thread id, as an address inside a structure, and as memory.
func (l *Library) Resolve(handle string) Answer {
	rs := readings(handle)
	if len(rs) == 0 {
		return Answer{Input: handle, Status: StatusInvalid,
			Lines: []string{fmt.Sprintf("%.64q is not a handle: a handle is a number, decimal or hex (140234567890688, 0x7f8a5c1ff700)", handle)}}
	}
	for _, look := range []func(reading) (Answer, bool){l.asHandle, l.asID, l.asInside, l.asListed} {
		for _, r := range rs {
			if a, ok := look(r); ok {
				a.ambiguous(handle, r, rs)
				return a
			}
		}
	}
	// Nothing is known at any reading: tell about the first that memory is
	// behind, else about the likeliest.
	first := l.asMemory(rs[0])
	for _, r := range rs[1:] {
		if a := l.asMemory(r); first.Status == StatusUnmapped && a.Status != StatusUnmapped {
			first = a
		}
	}
	first.ambiguous(handle, reading{uint64(first.Value), first.Base}, rs)
	return first
}

// ambiguous completes an answer with how the text was read, where that isn't
// what everybody takes for granted: digits alone that were found as hex, or
// that weren't found at all.
func (a *Answer) ambiguous(text string, r reading, all []reading) {
	a.Input, a.Value, a.Base = text, target.Addr(r.value), r.base
	switch {
	case len(all) < 2:
	case r.base == 16:
		a.Lines = append(a.Lines, fmt.Sprintf("%s was read as hex: as a decimal number it is nothing that is known here.", strings.TrimSpace(text)))
	case a.Thread == nil:
		a.Lines = append(a.Lines, fmt.Sprintf("%s was read as decimal; as hex it is nothing that is known here either.", strings.TrimSpace(text)))
	}
}

// both writes an address as servers print it, in hex and decimal.
func both(h target.Addr) string { return fmt.Sprintf("%v (%d)", h, uint64(h)) }

func (l *Library) asHandle(r reading) (Answer, bool) {
	t, ok := l.ByHandle(target.Addr(r.value))
	if !ok {
		return Answer{}, false
	}
	h := both(t.Handle.V)
	a := Answer{Status: StatusFound, Thread: &t}
	if !t.Confirmed {
		a.Status = StatusUnconfirmed
		a.Lines = []string{fmt.Sprintf("%s is probably the handle of LWP %d, but not proven: %s.", h, t.LWP, t.Problem)}
		return a, true
	}
	if l.fbsd != nil {
		a.Lines = []string{fmt.Sprintf("%s is the handle of LWP %d: %s.", h, t.LWP, t.Proof)}
		return a, true
	}
	a.Lines = []string{fmt.Sprintf("%s is the handle of LWP %d: the thread pointer of that LWP leads to it, and the structure there names the thread.", h, t.LWP)}
	if t.TargetTID.V != t.LWP {
		a.Lines = append(a.Lines, l.namespaceLine(&t))
	}
	return a, true
}

func (l *Library) namespaceLine(t *Thread) string {
	how := "all threads differ so"
	if l.Namespace.ByKernel {
		how = "the kernel's record says the same"
	}
	return fmt.Sprintf("Inside the target this thread is %d, outside it is %d: the target lives in a PID namespace of its own (%s).",
		t.TargetTID.V, t.LWP, how)
}

func (l *Library) asID(r reading) (Answer, bool) {
	if r.value == 0 || r.value > maxPID {
		return Answer{}, false
	}
	id := int(r.value)
	inner := slices.IndexFunc(l.threads, func(t Thread) bool {
		return t.Confirmed && t.TargetTID.V == id && t.LWP != id
	})
	if t, ok := l.ByLWP(id); ok {
		a := Answer{Status: StatusLWP, Thread: &t}
		a.Lines = []string{fmt.Sprintf("%d is a thread id (LWP), not a handle. %s", id, handleSentence(&t))}
		if inner >= 0 {
			a.Lines = append(a.Lines, fmt.Sprintf("Inside the target's PID namespace %d is another thread: LWP %d.", id, l.threads[inner].LWP))
		}
		return a, true
	}
	if inner < 0 {
		return Answer{}, false
	}
	t := l.threads[inner]
	return Answer{Status: StatusTargetTID, Thread: &t, Lines: []string{
		fmt.Sprintf("%d is a thread id inside the target's PID namespace, not a handle; outside it is LWP %d. %s", id, t.LWP, handleSentence(&t))}}, true
}

func handleSentence(t *Thread) string {
	switch {
	case t.Confirmed:
		return fmt.Sprintf("The handle of that thread is %s.", both(t.Handle.V))
	case t.Handle.Known:
		return fmt.Sprintf("The handle of that thread is probably %s, but not proven: %s.", both(t.Handle.V), t.Problem)
	}
	return fmt.Sprintf("The handle of that thread is unknown: %s.", t.Problem)
}

// innerSize is how much of memory from a handle on counts as its structure.
func (l *Library) innerSize() target.Addr {
	if l.Layout.Size.Known {
		return target.Addr(l.Layout.Size.Size)
	}
	// Without the library's word on it: up to and with the id.
	return target.Addr(l.Layout.TID.Offset + 4)
}

func (l *Library) asInside(r reading) (Answer, bool) {
	at := target.Addr(r.value)
	i, exact := slices.BinarySearchFunc(l.byHandle, at, func(i int, h target.Addr) int {
		return compareAddr(l.threads[i].Handle.V, h)
	})
	if exact || i == 0 || !l.Layout.TID.Known {
		return Answer{}, false
	}
	t := l.threads[l.byHandle[i-1]]
	off := at - t.Handle.V
	if off >= l.innerSize() {
		return Answer{}, false
	}
	return Answer{Status: StatusInside, Thread: &t, Lines: []string{
		fmt.Sprintf("%v is %d bytes inside the thread structure of LWP %d, not its start. The handle of that thread is %s.", at, uint64(off), t.LWP, both(t.Handle.V))}}, true
}

// asListed finds the structure of a thread that ended on the library's lists.
func (l *Library) asListed(r reading) (Answer, bool) {
	if r.value <= maxPID {
		return Answer{}, false
	}
	if l.fbsd != nil {
		if _, ok := l.fbsd.rest[target.Addr(r.value)]; !ok {
			return Answer{}, false
		}
	} else if _, ok := l.lists()[target.Addr(r.value)]; !ok {
		return Answer{}, false
	}
	a := l.asMemory(r)
	return a, a.Status == StatusStale
}

// asMemory answers by what memory holds at an address that isn't a thread's.
func (l *Library) asMemory(r reading) Answer {
	h := target.Addr(r.value)
	a := Answer{Value: h, Base: r.base}
	if r.value <= maxPID {
		a.Status = StatusUnmapped
		a.Lines = []string{fmt.Sprintf("%d is too small for a handle, and no thread has this id: it may be a connection id, or the id of a thread that ended.", r.value)}
		return a
	}
	if l.fbsd != nil {
		return l.fbsdMemory(a, h)
	}
	if !l.Layout.TID.Known {
		var b [1]byte
		if _, err := l.mem.ReadMemory(h, b[:]); err != nil {
			return l.unreadable(a, err)
		}
		a.Status = StatusNotThread
		a.Lines = []string{fmt.Sprintf("No thread has the handle %s. There is memory, but the layout of thread structures is unknown, so it can't be told whether it was a thread's.", both(h))}
		return a
	}
	if self := l.self(); len(self) > 0 {
		// The first word settles most addresses, even near the end of a
		// mapping that is too short for a structure.
		if w, err := target.Uint64(l.mem, h+target.Addr(self[0])); err == nil && target.Addr(w) != h {
			return notThread(a)
		}
	}
	s := newStructReader(l.mem, &candidate{kind: l.Kind, layout: l.Layout, self: l.self()}).read(h)
	if s.err != nil {
		return l.unreadable(a, s.err)
	}
	list := l.lists()[h]
	if !s.whole || len(l.self()) == 0 && list == "" {
		return notThread(a)
	}
	a.Status = StatusStale
	a.Lines = []string{l.staleLine(&a, h, s.tid)}
	switch {
	case list == "":
	case s.tid <= 0 && list != listCache:
		a.Lines = append(a.Lines, fmt.Sprintf("The C library still has it on its list of %s: nobody has joined the thread.", list))
	default:
		a.Lines = append(a.Lines, fmt.Sprintf("The C library has it on its list of %s.", list))
	}
	return a
}

func notThread(a Answer) Answer {
	a.Status = StatusNotThread
	a.Lines = []string{fmt.Sprintf("No thread has the handle %s, and the memory there isn't a thread structure: the number is not a handle of this process, or its memory was used for something else after the thread ended.", both(a.Value))}
	return a
}

func (l *Library) staleLine(a *Answer, h target.Addr, tid int) string {
	text := fmt.Sprintf("%s is stale: a thread structure is there, but no thread's thread pointer leads to it", both(h))
	switch {
	case tid <= 0:
		return text + fmt.Sprintf(", and its id is %d: the thread ended.", tid)
	case tid > maxPID:
		return text + "."
	}
	a.TID = tid
	for i := range l.threads {
		t := l.threads[i]
		if t.LWP == tid && !l.Namespace.Detected || t.Confirmed && t.TargetTID.V == tid {
			a.Thread = &t
			return text + fmt.Sprintf("; it names the id %d, but the handle of that thread (LWP %d) is another. %s", tid, t.LWP, handleSentence(&t))
		}
	}
	return text + fmt.Sprintf("; it names the id %d, which is no thread of this core: the thread ended.", tid)
}

// unreadable answers for memory that can't be read, by the reason.
func (l *Library) unreadable(a Answer, err error) Answer {
	a.Err = err
	no := fmt.Sprintf("No thread has the handle %s", both(a.Value))
	switch {
	case errors.Is(err, target.ErrNotMapped):
		a.Status = StatusUnmapped
		a.Lines = []string{no + ", and the process has no memory there: the thread ended and its stack was freed, or the number is from another process."}
	case errors.Is(err, target.ErrNotDumped):
		a.Status = StatusNotDumped
		a.Lines = []string{no + "; the process has memory there, but the core doesn't hold it. It isn't the handle of a thread that lives in the core."}
	case errors.Is(err, target.ErrTruncated):
		a.Status = StatusTruncated
		a.Lines = []string{no + "; the core is cut off before the memory there. It isn't the handle of a thread whose registers the core has."}
	case errors.Is(err, target.ErrFileMissing):
		a.Status = StatusFileMissing
		a.Lines = []string{no + "; a mapped file is there, which was not found. Thread structures don't live in files: it isn't a handle."}
	default:
		a.Status = StatusUnreadable
		a.Lines = []string{fmt.Sprintf("%s, and the memory there could not be read: %v.", no, err)}
	}
	if slices.ContainsFunc(l.threads, func(t Thread) bool { return !t.Handle.Known }) {
		a.Lines = append(a.Lines, "Not all threads have a known handle, so it may be one of theirs.")
	}
	return a
}
