package cfi

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"mycore/internal/target"
)

// Markers of the entry format (DWARF 5 section 7.4 and 6.4.1; in .eh_frame a
// CIE has the id 0, Linux Standard Base Core 5.0 section 10.6.1).
const (
	dwarf64Mark     = 0xffffffff
	debugCIE32      = 0xffffffff
	debugCIE64      = 0xffffffffffffffff
	window          = 512 // first read of an entry, and the last pairs of a bisection
	walkWindow      = 64  // first read of an entry in a walk: most fit
	keepBuffer      = 64 << 10
	maxAugmentation = 16 // letters; known producers write at most five
)

// cie is what the FDEs of one common information entry share.
type cie struct {
	addr      uint64
	idSize    int // width of the id field, and of the FDEs' pointers back
	codeAlign uint64
	dataAlign int64
	raReg     int
	fdeEnc    encoding
	sized     bool // augmentation data is preceded by its length ("z")
	signal    bool
	initial   Row
}

// FDE is one frame description entry: a range of code and the program that
// gives its rows. It is immutable and safe for concurrent use.
type FDE struct {
	// Start and End bound the code, link-time addresses, End exclusive.
	Start, End uint64
	// SignalFrame marks the trampoline that a signal handler returns to: the
	// frame that it describes was interrupted, not calling.
	SignalFrame bool

	table *Table
	cie   *cie
	addr  uint64 // of the entry
	prog  []byte // its instructions
	paddr uint64 // link-time address of prog
}

// Addr gives the link-time address (for .debug_frame: the offset) of the
// entry itself, for messages.
func (f *FDE) Addr() uint64 { return f.addr }

// Contains says whether pc, a link-time address, is inside the entry's range.
func (f *FDE) Contains(pc uint64) bool { return f.Start <= pc && pc < f.End }

// scratch is the buffer of one decoding.
type scratch struct{ buf []byte }

var scratchPool = sync.Pool{New: func() any { return &scratch{buf: make([]byte, window)} }}

func getScratch() *scratch { return scratchPool.Get().(*scratch) }

func putScratch(s *scratch) {
	if len(s.buf) <= keepBuffer {
		scratchPool.Put(s)
	}
}

// record is one CIE or FDE as it stands in the section: its id field and what
// follows, in a scratch buffer.
type record struct {
	addr   uint64 // of the length field
	next   uint64 // of the record after it
	idAddr uint64
	body   []byte // from the id field on
	wide   bool   // 64-bit DWARF
}

var errTerminator = errors.New("end of table")

// record reads the entry at addr into s.
func (t *Table) record(addr uint64, s *scratch) (record, error) {
	first := window
	if t.walking {
		first = walkWindow
	}
	n, err := t.r.ReadVaddr(addr, s.buf[:first])
	n = min(max(n, 0), first)
	c := cursor{b: s.buf[:n], addr: addr}
	length := uint64(c.u32())
	wide := length == dwarf64Mark
	if wide {
		length = c.u64()
	}
	if c.err != nil {
		return record{}, readFailed(addr, "entry's length", err)
	}
	if length == 0 {
		return record{next: c.here()}, errTerminator
	}
	if length > maxEntry {
		return record{}, &FormatError{Addr: addr, Msg: fmt.Sprintf("entry of %d bytes, the limit is %d", length, maxEntry)}
	}
	total := c.off + int(length)
	if total > n {
		if err := t.fill(addr, s, n, total); err != nil {
			return record{}, err
		}
	}
	return record{addr: addr, next: addr + uint64(total), idAddr: addr + uint64(c.off), body: s.buf[c.off:total], wide: wide}, nil
}

// fill makes s hold the bytes [addr, addr+total), of which have are there.
func (t *Table) fill(addr uint64, s *scratch, have, total int) error {
	if total > len(s.buf) {
		b := make([]byte, total)
		copy(b, s.buf[:have])
		s.buf = b
	}
	n, err := t.r.ReadVaddr(addr+uint64(have), s.buf[have:total])
	if n < total-have {
		return readFailed(addr+uint64(have), "entry's bytes", err)
	}
	return nil
}

func readFailed(addr uint64, what string, err error) error {
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return &FormatError{Addr: addr, Msg: what, Err: err}
}

// isCIE tells the two kinds of record apart.
func (t *Table) isCIE(rec record) (bool, error) {
	c := cursor{b: rec.body, addr: rec.idAddr}
	if !t.debug {
		id := c.u32()
		return id == 0, c.err
	}
	if rec.wide {
		id := c.u64()
		return id == debugCIE64, c.err
	}
	id := c.u32()
	return id == debugCIE32, c.err
}

// cieAt gives the CIE at addr, from the cache if it was decoded before. One
// that is broken is decoded, and refused, once.
func (t *Table) cieAt(addr uint64) (*cie, error) {
	t.ciesMu.RLock()
	got, ok := t.cies[addr]
	t.ciesMu.RUnlock()
	if ok {
		return got.cie, got.err
	}
	c, err := t.decodeCIE(addr)
	t.ciesMu.Lock()
	if len(t.cies) < maxCached {
		t.cies[addr] = cieResult{c, err}
	}
	t.ciesMu.Unlock()
	return c, err
}

type cieResult struct {
	cie *cie
	err error
}

func (t *Table) decodeCIE(addr uint64) (*cie, error) {
	s := getScratch()
	defer putScratch(s)
	rec, err := t.record(addr, s)
	if err != nil {
		return nil, err
	}
	if is, err := t.isCIE(rec); err != nil || !is {
		return nil, &FormatError{Addr: addr, Msg: "not a CIE where an FDE points to one", Err: err}
	}
	c := cursor{b: rec.body, addr: rec.idAddr}
	out := &cie{addr: addr, idSize: idSize(rec, t.debug)}
	c.take(uint64(out.idSize))
	version := c.u8()
	aug := c.cstring()
	if err := t.cieHeader(&c, out, version, aug); err != nil {
		return nil, err
	}
	if err := t.augmentation(&c, out, aug); err != nil {
		return nil, err
	}
	out.initial = Row{RAReg: out.raReg, SignalFrame: out.signal}
	prog := cursor{b: append([]byte(nil), c.b[c.off:]...), addr: c.here()}
	m := machine{cie: out, row: &out.initial, ptrSize: t.ptrSize, arch: t.arch}
	if err := m.run(&prog, 0, t); err != nil {
		return nil, fmt.Errorf("CIE at %#x: %w", addr, err)
	}
	return out, nil
}

// idSize gives the width of the id field. In .eh_frame the Linux Standard
// Base, LLVM and libunwind use four bytes even in 64-bit entries, binutils and
// gdb eight there; eight zero bytes can't be the former, whose fifth byte is
// the version.
func idSize(rec record, debug bool) int {
	if !rec.wide {
		return 4
	}
	if debug || len(rec.body) > 8 && rec.body[4] == 0 {
		return 8
	}
	return 4
}

// cieHeader reads the fields between the augmentation string and its data.
func (t *Table) cieHeader(c *cursor, out *cie, version uint8, aug string) error {
	at := out.addr
	switch version {
	case 1, 3, 4:
	default:
		if c.err != nil {
			return c.err
		}
		return &FormatError{Addr: at, Msg: fmt.Sprintf("CIE version %d", version), Err: ErrUnsupported}
	}
	if version == 4 {
		addrSize, segSize := c.u8(), c.u8()
		if c.err == nil && (int(addrSize) != t.ptrSize || segSize != 0) {
			return &FormatError{Addr: at, Msg: fmt.Sprintf("address size %d, segment size %d", addrSize, segSize), Err: ErrUnsupported}
		}
	}
	if aug == "eh" { // gcc 2.x: a pointer to exception data follows
		c.take(uint64(t.ptrSize))
	}
	out.codeAlign = c.uleb()
	out.dataAlign = c.sleb()
	ra := uint64(0)
	if version == 1 {
		ra = uint64(c.u8())
	} else {
		ra = c.uleb()
	}
	if c.err != nil {
		return c.err
	}
	if ra >= target.MaxRegs {
		return &FormatError{Addr: at, Msg: fmt.Sprintf("return address in register %d", ra), Err: ErrUnsupported}
	}
	out.raReg = int(ra)
	return nil
}

// augmentation reads the augmentation data. A letter that isn't known may
// change the meaning of everything after it, so it is an error.
func (t *Table) augmentation(c *cursor, out *cie, aug string) error {
	if aug == "" || aug == "eh" {
		return c.err
	}
	if aug[0] != 'z' || len(aug) > maxAugmentation {
		return &FormatError{Addr: out.addr, Msg: fmt.Sprintf("augmentation %.16q", aug), Err: ErrUnsupported}
	}
	out.sized = true
	size := c.uleb()
	dataAddr := c.here()
	d := cursor{b: c.take(size), addr: dataAddr}
	for i := 1; i < len(aug); i++ {
		switch aug[i] {
		case 'R':
			out.fdeEnc = encoding(d.u8())
		case 'P': // personality routine: not needed
			d.skipPointer(encoding(d.u8()), t.ptrSize)
		case 'L': // encoding of the LSDA pointers: skipped by length
			d.u8()
		case 'S':
			out.signal = true
		case 'B', 'G': // AArch64: return addresses signed with key B; stack tagged (MTE)
		default:
			return &FormatError{Addr: out.addr, Msg: fmt.Sprintf("augmentation %.16q", aug), Err: ErrUnsupported}
		}
	}
	if c.err != nil {
		return c.err
	}
	return d.err
}

// decodeFDE reads the FDE at addr. It copies what it keeps.
func (t *Table) decodeFDE(addr uint64) (*FDE, error) {
	s := getScratch()
	defer putScratch(s)
	rec, err := t.record(addr, s)
	if err != nil {
		return nil, err
	}
	f := new(FDE)
	prog, err := t.parseFDE(rec, f)
	if err != nil {
		return nil, err
	}
	f.prog = append([]byte(nil), prog...)
	return f, nil
}

// parseFDE fills f from a record and returns the instructions, which alias
// the record.
func (t *Table) parseFDE(rec record, f *FDE) ([]byte, error) {
	if is, err := t.isCIE(rec); err != nil || is {
		return nil, &FormatError{Addr: rec.addr, Msg: "not an FDE where the index points to one", Err: err}
	}
	c := cursor{b: rec.body, addr: rec.idAddr}
	cieAddr, err := t.cieOf(rec, &c)
	if err != nil {
		return nil, err
	}
	ci, err := t.cieAt(cieAddr)
	if err != nil {
		return nil, err
	}
	if ci.idSize == 8 && !t.debug {
		c.take(4)
	}
	start := c.pointer(ci.fdeEnc, t.ptrSize, bases{}, t.r)
	size := c.raw(ci.fdeEnc, t.ptrSize)
	if ci.sized {
		c.block()
	}
	if c.err != nil {
		return nil, c.err
	}
	end := start + size
	if end < start {
		return nil, &FormatError{Addr: rec.addr, Msg: fmt.Sprintf("range of %#x bytes from %#x", size, start)}
	}
	*f = FDE{Start: start, End: end, SignalFrame: ci.signal, table: t, cie: ci, addr: rec.addr, paddr: c.here()}
	return c.b[c.off:], nil
}

// cieOf reads an FDE's pointer to its CIE: in .eh_frame the distance back from
// the pointer itself (only its low half is read here), in .debug_frame an
// offset in the section.
func (t *Table) cieOf(rec record, c *cursor) (uint64, error) {
	if !t.debug {
		back := uint64(c.u32())
		if c.err != nil || back > rec.idAddr {
			return 0, &FormatError{Addr: rec.addr, Msg: "pointer to a CIE before the image", Err: c.err}
		}
		return rec.idAddr - back, nil
	}
	if rec.wide {
		off := c.u64()
		return off, c.err
	}
	off := uint64(c.u32())
	return off, c.err
}
