package cfi

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"mycore/internal/target"
)

// Table finds entries by program counter. It is immutable but for its caches
// and safe for concurrent use.
type Table struct {
	r       Reader
	arch    target.Arch
	ptrSize int
	debug   bool // .debug_frame: other id, section-relative CIE pointers
	walking bool // reads entry after entry from a buffer

	search searchTable // count 0: none

	// The section, for the walk when there is no search table. A size of 0
	// means up to the terminating zero length.
	secAddr, secSize uint64
	indexOnce        sync.Once
	index            []indexed
	indexErr         error

	ciesMu sync.RWMutex
	cies   map[uint64]cieResult
	fdes   [fdeShards]fdeShard
	steps  atomic.Int64
}

// searchTable is the sorted table of .eh_frame_hdr: pairs of a function's
// start and its FDE's address.
type searchTable struct {
	addr  uint64
	count uint64
	enc   encoding
	pair  uint64 // bytes of one pair
	hdr   uint64 // base of data-relative values
}

type indexed struct{ start, end, fde uint64 }

const fdeShards = 16

type fdeShard struct {
	mu sync.RWMutex
	m  map[uint64]fdeResult
}

type fdeResult struct {
	fde *FDE
	err error
}

func newTable(r Reader, arch target.Arch) (*Table, error) {
	size := pointerSize(arch)
	if size == 0 {
		return nil, fmt.Errorf("%w: instruction set %s", ErrUnsupported, arch)
	}
	t := &Table{r: r, arch: arch, ptrSize: size, cies: map[uint64]cieResult{}}
	for i := range t.fdes {
		t.fdes[i].m = map[uint64]fdeResult{}
	}
	return t, nil
}

// New reads the header of .eh_frame_hdr, the content of PT_GNU_EH_FRAME, at
// link-time address hdrAddr. Entries are then found by bisecting its table. If
// it has none, or one that can't be bisected, .eh_frame is walked once, at the
// first Find.
func New(r Reader, hdrAddr, hdrSize uint64, arch target.Arch) (*Table, error) {
	t, err := newTable(r, arch)
	if err != nil {
		return nil, err
	}
	// version, three encodings, at most two 8-byte values or LEB128 numbers
	head := make([]byte, min(hdrSize, 4+2*10))
	if n, err := r.ReadVaddr(hdrAddr, head); n < len(head) {
		return nil, readFailed(hdrAddr, ".eh_frame_hdr", err)
	}
	c := cursor{b: head, addr: hdrAddr}
	version, frameEnc, countEnc, tableEnc := c.u8(), encoding(c.u8()), encoding(c.u8()), encoding(c.u8())
	if c.err == nil && version != 1 {
		return nil, &FormatError{Addr: hdrAddr, Msg: fmt.Sprintf(".eh_frame_hdr version %d", version), Err: ErrUnsupported}
	}
	bs := bases{data: hdrAddr, hasData: true}
	t.secAddr = c.pointer(frameEnc, t.ptrSize, bs, r)
	if c.err != nil {
		return nil, c.err
	}
	if countEnc == encOmit || tableEnc == encOmit {
		return t, nil
	}
	count := c.pointer(countEnc, t.ptrSize, bs, r)
	if c.err != nil {
		return nil, c.err
	}
	if err := t.setSearch(searchTable{addr: c.here(), count: count, enc: tableEnc, hdr: hdrAddr}, hdrSize); err != nil {
		return nil, err
	}
	return t, nil
}

// setSearch takes s if its pairs have one width and fit into the header.
func (t *Table) setSearch(s searchTable, hdrSize uint64) error {
	width := s.enc.width(t.ptrSize)
	if width == 0 || s.enc&encIndirect != 0 || s.enc&encApply > encDataRel || s.enc&encApply == encTextRel {
		return nil
	}
	s.pair = 2 * uint64(width)
	hi, bytes := bits.Mul64(s.count, s.pair)
	if hi != 0 || bytes > maxHdr || bytes > hdrSize-(s.addr-s.hdr) {
		return &FormatError{Addr: s.hdr, Msg: fmt.Sprintf("table of %d entries in a section of %d bytes", s.count, hdrSize)}
	}
	t.search = s
	return nil
}

// NewFromSection serves an image without .eh_frame_hdr: .eh_frame at
// link-time address addr is walked once, at the first Find.
func NewFromSection(r Reader, addr, size uint64, arch target.Arch) (*Table, error) {
	t, err := newTable(r, arch)
	if err != nil {
		return nil, err
	}
	if size == 0 || size > maxSection || addr+size < addr {
		return nil, &FormatError{Addr: addr, Msg: fmt.Sprintf(".eh_frame of %d bytes", size)}
	}
	t.secAddr, t.secSize = addr, size
	return t, nil
}

// NewDebugFrame serves .debug_frame of a debug file. The section isn't part of
// the image, so its bytes are given, decompressed; they must not change.
func NewDebugFrame(section []byte, arch target.Arch) (*Table, error) {
	t, err := newTable(sectionReader(section), arch)
	if err != nil {
		return nil, err
	}
	if len(section) == 0 || len(section) > maxSection {
		return nil, &FormatError{Msg: fmt.Sprintf(".debug_frame of %d bytes", len(section))}
	}
	t.debug, t.secSize = true, uint64(len(section))
	return t, nil
}

type sectionReader []byte

// ReadVaddr reads at an offset of the section.
func (s sectionReader) ReadVaddr(off uint64, p []byte) (int, error) {
	if off >= uint64(len(s)) {
		return 0, io.EOF
	}
	n := copy(p, s[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Find gives the entry that covers pc, a link-time address. The error is
// ErrNoFDE (wrapped) when there is none, else it says what is wrong with the
// table. Results are cached; a repeated Find allocates nothing.
func (t *Table) Find(pc uint64) (*FDE, error) {
	var addr uint64
	var err error
	if t.search.count > 0 {
		addr, err = t.bisect(pc)
	} else {
		addr, err = t.fromIndex(pc)
	}
	if err != nil {
		return nil, err
	}
	f, err := t.fdeAt(addr)
	if err != nil {
		return nil, err
	}
	if !f.Contains(pc) {
		return nil, ErrNoFDE
	}
	return f, nil
}

// fdeAt gives the FDE at addr through the cache.
func (t *Table) fdeAt(addr uint64) (*FDE, error) {
	sh := &t.fdes[(addr>>4)%fdeShards]
	sh.mu.RLock()
	got, ok := sh.m[addr]
	sh.mu.RUnlock()
	if ok {
		return got.fde, got.err
	}
	f, err := t.decodeFDE(addr)
	sh.mu.Lock()
	if prev, ok := sh.m[addr]; ok {
		f, err = prev.fde, prev.err // one pointer per entry, whoever came first
	} else if len(sh.m) < maxCached/fdeShards {
		sh.m[addr] = fdeResult{f, err}
	}
	sh.mu.Unlock()
	return f, err
}

// lastPairs is how many pairs are read at once when the bisection has come
// down to them.
const lastPairs = 32

// bisect gives the address of the last FDE in the search table that starts at
// or below pc.
func (t *Table) bisect(pc uint64) (uint64, error) {
	s := getScratch()
	defer putScratch(s)
	lo, hi := uint64(0), t.search.count // the answer is in [lo, hi)
	for hi-lo > lastPairs {
		mid := lo + (hi-lo)/2
		start, _, err := t.pair(mid, mid, 1, s)
		if err != nil {
			return 0, err
		}
		if start <= pc {
			lo = mid
		} else {
			hi = mid
		}
	}
	found, ok := uint64(0), false
	for i := lo; i < hi; i++ {
		start, fde, err := t.pair(i, lo, hi-lo, s)
		if err != nil {
			return 0, err
		}
		if start > pc {
			break
		}
		found, ok = fde, true
	}
	if !ok {
		return 0, ErrNoFDE
	}
	return found, nil
}

// pair decodes pair i of the n pairs from first on, which are read into s when
// i is first.
func (t *Table) pair(i, first, n uint64, s *scratch) (start, fde uint64, err error) {
	st := &t.search
	addr := st.addr + first*st.pair
	buf := s.buf[:n*st.pair] // at most lastPairs * 16 = window bytes
	if i == first {
		if got, err := t.r.ReadVaddr(addr, buf); got < len(buf) {
			return 0, 0, readFailed(addr, "search table of .eh_frame_hdr", err)
		}
	}
	off := (i - first) * st.pair
	if st.enc == encDataRel|encSdata4 { // what all linkers write
		p := buf[off : off+8]
		start = st.hdr + uint64(int64(int32(binary.LittleEndian.Uint32(p))))
		fde = st.hdr + uint64(int64(int32(binary.LittleEndian.Uint32(p[4:]))))
		return start, fde, nil
	}
	c := cursor{b: buf[off : off+st.pair], addr: addr + off}
	bs := bases{data: st.hdr, hasData: true}
	start = c.pointer(st.enc, t.ptrSize, bs, t.r)
	fde = c.pointer(st.enc, t.ptrSize, bs, t.r)
	return start, fde, c.err
}

// fromIndex searches the index, which the first call makes.
func (t *Table) fromIndex(pc uint64) (uint64, error) {
	t.indexOnce.Do(func() { t.index, t.indexErr = t.walk() })
	ix := t.index
	i := sort.Search(len(ix), func(i int) bool { return ix[i].start > pc })
	if i > 0 && pc < ix[i-1].end {
		return ix[i-1].fde, nil
	}
	if t.indexErr != nil { // what was read before the damage is still good
		return 0, t.indexErr
	}
	return 0, ErrNoFDE
}

// walk reads every entry of the section and sorts their ranges. Damage ends
// the walk; it returns what came before with the error.
func (t *Table) walk() ([]indexed, error) {
	s := getScratch()
	defer putScratch(s)
	var out []indexed
	chunked := *t.section()
	w := &Table{r: &chunked, arch: t.arch, ptrSize: t.ptrSize, debug: t.debug, walking: true, cies: map[uint64]cieResult{}}
	err := w.each(t.secAddr, chunked.end, s, func(f *FDE) bool {
		if f.Start < f.End {
			out = append(out, indexed{f.Start, f.End, f.addr})
		}
		return len(out) < maxIndex
	})
	byStart := func(a, b indexed) int { return cmp.Compare(a.start, b.start) }
	if !slices.IsSortedFunc(out, byStart) {
		slices.SortStableFunc(out, byStart)
	}
	return out, err
}

// each calls visit for the FDEs from addr to end, or to the terminator when
// the section's end isn't known.
func (t *Table) each(addr, end uint64, s *scratch, visit func(*FDE) bool) error {
	known := end != 0
	if !known {
		end = addr + maxSection
	}
	var f FDE
	for addr < end {
		rec, err := t.record(addr, s)
		if errors.Is(err, errTerminator) {
			if !known {
				return nil
			}
			addr = rec.next // crtend.o of one input ended here; others may follow
			continue
		}
		if err != nil {
			return err
		}
		addr = rec.next
		is, err := t.isCIE(rec)
		if err != nil {
			return err
		}
		if is {
			continue
		}
		if _, err := t.parseFDE(rec, &f); err != nil {
			continue // one entry that isn't readable doesn't spoil its neighbours
		}
		if !visit(&f) {
			return &FormatError{Addr: addr, Msg: fmt.Sprintf("more than %d entries", maxIndex)}
		}
	}
	return nil
}

// section gives a reader that serves the walk from large pieces.
func (t *Table) section() *chunkReader {
	c := &chunkReader{r: t.r}
	if t.secSize != 0 {
		c.end = t.secAddr + t.secSize
	}
	return c
}

// chunk is how much a walk reads at once.
const chunk = 64 << 10

// chunkReader serves small reads that mostly go forward from one buffer. It is
// for one goroutine.
type chunkReader struct {
	r    Reader
	end  uint64 // nothing is read from here on; 0: not known
	base uint64
	buf  []byte
}

// ReadVaddr implements Reader.
func (c *chunkReader) ReadVaddr(addr uint64, p []byte) (int, error) {
	if c.end != 0 {
		if addr >= c.end {
			return 0, io.EOF
		}
		p = p[:min(uint64(len(p)), c.end-addr)]
	}
	if off := addr - c.base; addr >= c.base && off <= uint64(len(c.buf)) && uint64(len(p)) <= uint64(len(c.buf))-off {
		return copy(p, c.buf[off:]), nil
	}
	if len(p) >= chunk {
		return c.r.ReadVaddr(addr, p)
	}
	if cap(c.buf) == 0 {
		c.buf = make([]byte, chunk)
	}
	want := uint64(chunk)
	if c.end != 0 {
		want = min(want, c.end-addr)
	}
	n, err := c.r.ReadVaddr(addr, c.buf[:want:cap(c.buf)])
	c.base, c.buf = addr, c.buf[:max(n, 0)]
	n = copy(p, c.buf)
	if n == len(p) {
		err = nil
	} else if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
