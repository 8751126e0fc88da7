package libthr

import (
	"encoding/binary"

	"mycore/internal/target"
)

// structReader reads the members of struct pthread that a candidate names,
// with one read per thread where memory allows it, and keeps them: a candidate
// is judged first and used later. Not for concurrent use.
type structReader struct {
	mem  target.Memory
	c    *candidate
	span []byte
	seen map[target.Addr]structData
}

// structData is what one structure holds.
type structData struct {
	err   error // the first member that couldn't be read
	zero  bool  // members that are never zero in a living thread all are
	whole bool  // all members were read, and those that must point to the structure do
	tid   int
	// pointer: the id is the lower half of an address near the structure, so
	// the offset is wrong. (The word behind tid is zero or a small number.)
	pointer bool
	start   target.Addr // 0 unknown or none
}

func newStructReader(mem target.Memory, c *candidate) *structReader {
	end := c.layout.TID.Offset + 8
	for _, off := range c.self {
		end = max(end, off+8)
	}
	if f := c.layout.StartRoutine; f.Known {
		end = max(end, f.Offset+f.Size)
	}
	return &structReader{mem: mem, c: c, span: make([]byte, end), seen: map[target.Addr]structData{}}
}

// read gives the members of the structure at h.
func (r *structReader) read(h target.Addr) structData {
	d, ok := r.seen[h]
	if !ok {
		d = r.fetch(h)
		r.seen[h] = d
	}
	return d
}

func (r *structReader) fetch(h target.Addr) structData {
	// A read that ends early still gives the bytes before the hole.
	n, err := r.mem.ReadMemory(h, r.span)
	d := structData{whole: true, zero: true}
	for _, off := range r.c.self {
		w, e := r.word(h, n, off, 8, err)
		if e != nil {
			return structData{err: e}
		}
		d.whole = d.whole && target.Addr(w) == h
		d.zero = d.zero && w == 0
	}
	w, e := r.word(h, n, r.c.layout.TID.Offset, 4, err)
	if e != nil {
		return structData{err: e}
	}
	d.tid = int(int32(uint32(w)))
	d.zero = d.zero && w == 0
	if high, e := r.word(h, n, r.c.layout.TID.Offset+4, 4, err); e == nil {
		d.pointer = high != 0 && high == uint64(h)>>32
	}
	if f := r.c.layout.StartRoutine; f.Known {
		// The start routine is a gift: without it the handle is as good.
		if w, e := r.word(h, n, f.Offset, f.Size, err); e == nil {
			d.start = target.Addr(w)
		}
	}
	return d
}

// word takes a member from the span, or reads it alone when the span has a
// hole before it.
func (r *structReader) word(h target.Addr, n int, off, size uint64, spanErr error) (uint64, error) {
	if off+size > uint64(n) {
		if spanErr == nil {
			return 0, &target.ReadError{Addr: h + target.Addr(off), Len: int(size), Err: target.ErrNotMapped}
		}
		if m, err := r.mem.ReadMemory(h+target.Addr(off), r.span[off:off+size]); err != nil || uint64(m) < size {
			return 0, spanErr
		}
	}
	if size == 4 {
		return uint64(binary.LittleEndian.Uint32(r.span[off:])), nil
	}
	return binary.LittleEndian.Uint64(r.span[off:]), nil
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
