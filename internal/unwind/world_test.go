package unwind

import (
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"mycore/internal/cfi"
	"mycore/internal/symtab"
	"mycore/internal/target"
)

// A small world: one module with functions 0x100 bytes apart, each of which
// stands for a kind of frame, and a stack.
const (
	bias    = 0x555555554000
	textLo  = 0x1000 // link-time
	textHi  = 0x3000
	stackLo = target.Addr(0x7ffd00000000)
	stackHi = target.Addr(0x7ffd00008000)

	fnLeaf    = 0x1000 // CFA rsp+8
	fnMid     = 0x1100 // CFA rsp+32, rbx at -16, r12 at -24
	fnFramed  = 0x1200 // CFA rbp+16, rbp at -16
	fnOuter   = 0x1300 // return address undefined
	fnReturn  = 0x1400 // signal trampoline, as __restore_rt of glibc
	fnNoInfo  = 0x1500 // no FDE; a symbol with a size
	fnR10     = 0x1600 // CFA r10+0: known inside the prologue only
	fnBelow   = 0x1700 // CFA rsp-8: nonsense
	fnExpr    = 0x1800 // CFA by expression: rsp + 8 + ((rip & 15) >= 11) << 3
	fnNoRA    = 0x1900 // no rule for the return address
	fnMain    = 0x1a00 // CFA rsp+16
	fnOdd     = 0x1b00 // return address in rbx, rbp is CFA+0, r12 in r13
	fnBroken  = 0x1c00 // a program that isn't valid
	fnNothing = 0x1d00 // no FDE and no symbol, up to fnAddr
	fnAddr    = 0x2f00 // CFA by expression: rsp + 16 + address of fnAddr - rip
)

// memory is target memory as a set of ranges.
type memory map[target.Addr][]byte

func (m memory) ReadMemory(a target.Addr, p []byte) (int, error) {
	for base, b := range m {
		if a >= base && a-base < target.Addr(len(b)) {
			n := copy(p, b[a-base:])
			if n < len(p) {
				return n, &target.ReadError{Addr: a + target.Addr(n), Len: len(p) - n, Err: target.ErrNotMapped}
			}
			return n, nil
		}
	}
	return 0, &target.ReadError{Addr: a, Len: len(p), Err: target.ErrNotMapped}
}

type fakeSpace struct {
	images map[target.Addr]*image // by start; each covers textHi-textLo bytes
	noExec bool
}

func (s *fakeSpace) at(pc target.Addr) *image {
	for lo, img := range s.images {
		if pc >= lo && pc < lo+textHi-textLo {
			return img
		}
	}
	return nil
}

func (s *fakeSpace) extent(a target.Addr) (lo, hi target.Addr, ok bool) {
	return stackLo, stackHi, a >= stackLo && a < stackHi
}

func (s *fakeSpace) executable(a target.Addr) bool { return !s.noExec && s.at(a) != nil }

type fakeSymbols []symtab.Symbol

func (s fakeSymbols) At(v uint64) (symtab.Symbol, bool) {
	for _, sym := range s {
		if v >= sym.Start && v-sym.Start < sym.Size {
			return sym, true
		}
	}
	return symtab.Symbol{}, false
}

func (s fakeSymbols) Starting(v uint64) (symtab.Symbol, bool) {
	for _, sym := range s {
		if v == sym.Start {
			return sym, true
		}
	}
	return symtab.Symbol{}, false
}

type world struct {
	mem   memory
	space *fakeSpace
	code  []byte
	stack []byte
	u     *Unwinder
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{code: make([]byte, textHi-textLo), stack: make([]byte, stackHi-stackLo)}
	for i := range w.code {
		w.code[i] = 0x90
	}
	w.mem = memory{textLo + bias: w.code, stackLo: w.stack}
	img := &image{bias: bias, tables: []finder{worldCFI(t)}, syms: fakeSymbols{
		{Name: "leaf", Start: fnLeaf, Size: 0x100},
		{Name: "mid", Start: fnMid, Size: 0x80}, // the rest is mid.part, without a symbol
		{Name: "framed", Start: fnFramed, Size: 0x100},
		{Name: "outer", Start: fnOuter, Size: 0},
		{Name: "inside", Start: fnMain + 4, Size: 0},
		{Name: "noinfo", Start: fnNoInfo, Size: 0x100},
	}}
	w.space = &fakeSpace{images: map[target.Addr]*image{textLo + bias: img}}
	w.u = newUnwinder(w.mem, w.space, Options{})
	return w
}

// put writes a word to the stack.
func (w *world) put(a target.Addr, v uint64) { binary.LittleEndian.PutUint64(w.stack[a-stackLo:], v) }

// call puts a call to a link-time address in front of the return address
// ret, also link-time, which it gives as a runtime address. 0 makes an
// indirect call.
func (w *world) call(ret, to uint64) uint64 {
	at := ret - textLo
	if to == 0 {
		copy(w.code[at-2:], []byte{0xff, 0xd0})
	} else {
		w.code[at-5] = 0xe8
		binary.LittleEndian.PutUint32(w.code[at-4:], uint32(to-ret))
	}
	return ret + bias
}

func regsOf(pc uint64, sp target.Addr, more map[int]uint64) target.Regs {
	r := target.Regs{Arch: target.AMD64}
	r.Set(target.RIP, pc)
	r.Set(target.RSP, uint64(sp))
	for n, v := range more {
		r.Set(n, v)
	}
	return r
}

// worldCFI builds the .eh_frame of the world.
func worldCFI(t testing.TB) *cfi.Table {
	t.Helper()
	const addr = 0x10000
	var b []byte
	var cie int
	box := func(body []byte) {
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
		b = append(b, body...)
	}
	newCIE := func(aug string, prog ...byte) {
		cie = len(b)
		box(slices.Concat([]byte{0, 0, 0, 0, 1}, []byte(aug+"\x00"), []byte{1, 0x78, 16, 1, 0x04}, prog))
	}
	fde := func(start uint64, prog ...byte) {
		body := binary.LittleEndian.AppendUint32(nil, uint32(len(b)+4-cie))
		body = binary.LittleEndian.AppendUint64(body, start)
		body = binary.LittleEndian.AppendUint64(body, 0x100)
		box(slices.Concat(body, []byte{0}, prog))
	}
	newCIE("zR", 0x0c, 7, 8, 0x90, 1)
	fde(fnLeaf)
	fde(fnMid, 0x0e, 32, 0x83, 2, 0x8c, 3)
	fde(fnFramed, 0x0c, 6, 16, 0x86, 2)
	fde(fnOuter, 0x07, 16)
	fde(fnR10, 0x0c, 10, 0)
	fde(fnBelow, 0x13, 1)
	fde(fnExpr, 0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22)
	fde(fnMain, 0x0e, 16)
	fde(fnOdd, 0x09, 16, 3, 0x14, 6, 0, 0x09, 12, 13)
	fde(fnBroken, 0x0b)
	fde(fnAddr, 0x0f, 15, 0x77, 16, 0x03, 0x00, 0x2f, 0, 0, 0, 0, 0, 0, 0x22, 0x80, 0, 0x1c)
	newCIE("zRS")
	// offsets in struct ucontext behind rsp: r12 0x48, rbp 0x78, rbx 0x80, rsp 0xa0, rip 0xa8
	fde(fnReturn, 0x0f, 4, 0x77, 0xa0, 0x01, 0x06, 0x10, 12, 3, 0x77, 0xc8, 0x00, 0x10, 6, 3, 0x77, 0xf8, 0x00,
		0x10, 3, 3, 0x77, 0x80, 0x01, 0x10, 7, 3, 0x77, 0xa0, 0x01, 0x10, 16, 3, 0x77, 0xa8, 0x01)
	newCIE("zR", 0x0c, 7, 8)
	fde(fnNoRA)
	tab, err := cfi.NewFromSection(bytesAt{addr, b}, addr, uint64(len(b)), target.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

type bytesAt struct {
	base uint64
	b    []byte
}

func (m bytesAt) ReadVaddr(a uint64, p []byte) (int, error) {
	if a < m.base || a-m.base >= uint64(len(m.b)) {
		return 0, io.EOF
	}
	return copy(p, m.b[a-m.base:]), nil
}

// frame is what a test expects of one frame.
type frame struct {
	pc    uint64 // link-time when below 0x100000, else as it is
	trust Trust
	name  string
	cfa   target.Addr // 0: none
}

// expect compares the frames of a stack, and why it ended.
func expect(t *testing.T, s Stack, stop Stop, want ...frame) {
	t.Helper()
	if s.Stop != stop || (s.Err == nil) != (stop == StopOutermost) {
		t.Errorf("ended with %q, %v; want %q", s.Stop, s.Err, stop)
	}
	for i := range max(len(want), len(s.Frames)) {
		if i >= len(want) || i >= len(s.Frames) {
			t.Fatalf("%d frames, want %d: %+v", len(s.Frames), len(want), s.Frames)
		}
		f, w := s.Frames[i], want[i]
		pc := target.Addr(w.pc)
		if w.pc != 0 && w.pc < 0x100000 {
			pc += bias
		}
		if f.PC != pc || f.Trust != w.trust || f.Function != w.name || f.CFA != w.cfa || f.HasCFA != (w.cfa != 0) {
			t.Errorf("frame %d: pc %s trust %s name %q cfa %s %v; want %s %s %q %s", i, f.PC, f.Trust, f.Function, f.CFA, f.HasCFA, pc, w.trust, w.name, w.cfa)
		}
	}
}

// expectRegs compares all known registers of a frame.
func expectRegs(t *testing.T, f Frame, want map[int]uint64) {
	t.Helper()
	got := map[int]uint64{}
	for n := range 64 {
		if v, ok := f.Regs.Get(n); ok {
			got[n] = v
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("registers %#x, want %#x", got, want)
	}
	full := f.Regs.Expand(target.AMD64)
	for n := range target.MaxRegs {
		v, ok := full.Get(n)
		w, there := want[n]
		if ok != there || v != w {
			t.Errorf("expanded register %d: %#x, %v", n, v, ok)
		}
	}
}

func isReadError(err error) bool {
	var re *target.ReadError
	return errors.As(err, &re)
}
