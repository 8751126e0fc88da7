package libthr

import (
	"encoding/binary"
	"fmt"

	"mycore/internal/target"
)

// fbsdStruct is what one struct pthread holds.
type fbsdStruct struct {
	err    error // the structure couldn't be read
	zero   bool  // id, TCB and magic are all zero
	tid    uint64
	next   target.Addr
	prev   target.Addr // address of the word that points to this structure
	tcb    target.Addr
	magic  bool // the magic number is there, or its place isn't known
	back   bool // the TCB points back
	tcbErr error
	stack  Range
	start  target.Addr
}

// Range is a piece of the target's address space; End is the first address
// behind it.
type Range struct{ Start, End target.Addr }

// Contains tells whether an address lies in the range.
func (r Range) Contains(a target.Addr) bool { return a >= r.Start && a < r.End }

// whole: the structure is a thread's by all that can be checked in it alone.
func (s *fbsdStruct) whole() bool { return s.err == nil && s.magic && s.back }

// fbsdReader reads structures of one layout, each with one read where memory
// allows it. Not for concurrent use.
type fbsdReader struct {
	mem target.Memory
	g   *fbsdLayout
	tcb tcbLayout
	buf []byte
}

func newFbsdReader(mem target.Memory, g *fbsdLayout, tcb tcbLayout) *fbsdReader {
	end := g.tid + 8
	for _, f := range []struct{ off, size uint64 }{{g.next, 16}, {g.tcb, 8}, {g.magic, 4}, {g.stackAddr, 16}, {g.startRoutine, 8}} {
		if f.off != noField {
			end = max(end, f.off+f.size)
		}
	}
	return &fbsdReader{mem: mem, g: g, tcb: tcb, buf: make([]byte, end)}
}

func (r *fbsdReader) word(off uint64) uint64 {
	if off == noField {
		return 0
	}
	return binary.LittleEndian.Uint64(r.buf[off:])
}

func (r *fbsdReader) read(h target.Addr) fbsdStruct {
	if _, err := r.mem.ReadMemory(h, r.buf); err != nil {
		return fbsdStruct{err: err}
	}
	g := r.g
	s := fbsdStruct{
		tid: r.word(g.tid), next: target.Addr(r.word(g.next)), prev: target.Addr(r.word(g.next + 8)),
		tcb: target.Addr(r.word(g.tcb)), start: target.Addr(r.word(g.startRoutine)), magic: true,
	}
	if g.magic != noField {
		m := binary.LittleEndian.Uint32(r.buf[g.magic:])
		s.magic = m == fbsdMagic
		s.zero = m == 0 && s.tid == 0 && s.tcb == 0
	}
	if g.stackAddr != noField {
		at, size := r.word(g.stackAddr), r.word(g.stackAddr+8)
		if at != 0 && size != 0 && at+size > at {
			s.stack = Range{target.Addr(at), target.Addr(at + size)}
		}
	}
	if s.tcb != 0 && s.magic {
		h2, err := r.thread(s.tcb)
		s.back, s.tcbErr = err == nil && h2 == h, err
	}
	return s
}

// thread returns the struct pthread that a TCB names; an error when the TCB
// can't be read or isn't one.
func (r *fbsdReader) thread(tcb target.Addr) (target.Addr, error) {
	return tcbThread(r.mem, r.tcb, tcb)
}

func tcbThread(mem target.Memory, lay tcbLayout, tcb target.Addr) (target.Addr, error) {
	var b [24]byte
	if _, err := mem.ReadMemory(tcb, b[:lay.thread+8]); err != nil {
		return 0, err
	}
	if self := binary.LittleEndian.Uint64(b[:]); lay.self && target.Addr(self) != tcb {
		return 0, fmt.Errorf("the TCB at %v doesn't name itself but %#x", tcb, self)
	}
	return target.Addr(binary.LittleEndian.Uint64(b[lay.thread:])), nil
}

// fbsdWalk collects structures by their links. Each link is checked in both
// directions, so that a walk can't leave the list unseen or go in a circle.
type fbsdWalk struct {
	r       *fbsdReader
	most    int // structures to collect
	seen    map[target.Addr]fbsdStruct
	order   []target.Addr
	damaged error // the first thing that was wrong
}

func (w *fbsdWalk) fail(format string, args ...any) {
	if w.damaged == nil {
		w.damaged = fmt.Errorf(format, args...)
	}
}

// add reads a structure and keeps it if it is one that wasn't there yet.
func (w *fbsdWalk) add(h target.Addr) (fbsdStruct, bool) {
	if _, again := w.seen[h]; again {
		w.fail("it comes to %v twice", h)
		return fbsdStruct{}, false
	}
	if len(w.order) >= w.most {
		w.fail("it doesn't end after %d threads", w.most)
		return fbsdStruct{}, false
	}
	s := w.r.read(h)
	if s.err != nil {
		w.fail("%w", s.err)
		return s, false
	}
	if !s.magic {
		w.fail("%v on it is no thread structure", h)
		return s, false
	}
	w.seen[h] = s
	w.order = append(w.order, h)
	return s, true
}

// list walks TAILQ_HEAD at head: forwards, and where that ends early, from the
// tail backwards.
func (w *fbsdWalk) list(head target.Addr) {
	first, err := target.Uint64(w.r.mem, head)
	if err == nil {
		var last uint64
		if last, err = target.Uint64(w.r.mem, head+8); err == nil {
			if end := w.forward(target.Addr(first), head); w.damaged == nil && end != target.Addr(last) {
				w.fail("it ends at %v, its tail is %v", end, last)
			}
			if w.damaged != nil {
				w.backward(target.Addr(last), head)
			}
			return
		}
	}
	w.fail("%w", err)
}

// forward follows tqe_next from h, which the word at link points to. It
// returns the address of the word with which the list ends.
func (w *fbsdWalk) forward(h, link target.Addr) target.Addr {
	for h != 0 {
		s, ok := w.add(h)
		if !ok {
			return 0
		}
		if s.prev != link {
			w.fail("%v on it doesn't point back", h)
			// The thread may be good all the same; what follows it isn't
			// known to be.
			return 0
		}
		link, h = h+target.Addr(w.r.g.next), s.next
	}
	return link
}

// backward follows tqe_prev from the word at link, up to head (0: not known,
// then up to the first word that isn't in a structure).
func (w *fbsdWalk) backward(link, head target.Addr) {
	off := target.Addr(w.r.g.next)
	for link != head && link > off {
		h := link - off
		if _, again := w.seen[h]; again {
			return // where the walk forwards came to
		}
		if head == 0 {
			if s := w.r.read(h); s.err != nil || !s.magic {
				return
			}
		}
		s, ok := w.add(h)
		if !ok {
			return
		}
		link = s.prev
	}
}
