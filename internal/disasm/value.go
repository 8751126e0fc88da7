package disasm

import "mycore/internal/target"

// valueKind says what is known about the contents of a register or slot.
type valueKind uint8

const (
	vTop    valueKind = iota // nothing known
	vConst                   // the number n
	vSet                     // one of the numbers of set n of the analysis
	vEntry                   // what register reg held at the function's entry
	vStack                   // the address base + n in this frame
	vFrame                   // some address derived from this frame's addresses
	vSlotIn                  // what the stack held at CFA + n at entry: a stack argument
	vOpaque                  // the unknown that instruction n made (reg tells several apart)
	vTable                   // an entry of the jump table at n; reg is its size, 4 or 8
	vTarget                  // an entry of the table of 32-bit offsets at n, added to n
)

// value is an abstract value. Two locations with equal values other than vTop,
// vSet, vFrame, vTable and vTarget hold the same number; with low32 set in
// either, the same low 32 bits.
type value struct {
	kind  valueKind
	low32 bool
	base  uint8 // vStack: baseCFA or baseAligned
	reg   int8
	n     int64
}

// The bases of frame addresses. A function that aligns its stack pointer has a
// second one: what `and` left in it.
const (
	baseCFA     = 0
	baseAligned = 1
)

func constant(n int64) value { return value{kind: vConst, n: n} }

// stackish values are addresses of this frame, known or not.
func (v value) stackish() bool { return v.kind == vStack || v.kind == vFrame }

// identity reports whether equal values of this kind mean equal numbers in one
// execution.
func (v value) identity() bool {
	switch v.kind {
	case vConst, vEntry, vStack, vSlotIn, vOpaque:
		return true
	}
	return false
}

// same reports whether a and b are the same number in all (bits 64) or at
// least in the low 32 bits; 0 when neither is known.
func same(a, b value) (bits uint8) {
	if !a.identity() {
		return 0
	}
	low := a.low32 || b.low32
	a.low32, b.low32 = false, false
	switch {
	case a != b:
		return 0
	case low:
		return 32
	}
	return 64
}

// low32Of is the value after a 32-bit operation zero-extended it.
func low32Of(v value) value {
	switch v.kind {
	case vConst:
		v.n = int64(uint32(v.n))
		return v
	case vEntry, vSlotIn, vOpaque, vTable:
		v.low32 = true
		return v
	case vStack, vFrame:
		return value{kind: vFrame}
	}
	return value{}
}

// calleeSaved registers keep their value over a call (psABI 3.2.1).
const calleeSaved = 1<<target.RBX | 1<<target.RBP | 1<<target.RSP | 1<<target.R12 | 1<<target.R13 | 1<<target.R14 | 1<<target.R15

// savedRegister says that v is what a callee-saved register held at entry: a
// slot with it is a save area, which only the epilogue reads.
func (v value) savedRegister() bool {
	return v.kind == vEntry && !v.low32 && calleeSaved&bit(int(v.reg)) != 0
}

// slot is a piece of the frame with known contents.
type slot struct {
	off  int64 // from its base
	base uint8
	size uint8 // 4 or 8
	val  value
	from uint64 // the instruction that stored it
}

// noEscape is the lowest escaped offset of a frame none of whose addresses
// has been given away.
const noEscape = int64(1) << 62

// compare is a comparison with a constant: on the way past a `ja` behind it,
// what was compared is at most limit.
type compare struct {
	limit int64
	known bool
}

// state is what is known at one point of the function.
type state struct {
	reg   [16]value
	from  [16]uint64 // the instruction that put the value there, 0 at entry
	slots []slot     // by base and offset, not overlapping
	// escape is, per base, the lowest offset whose address callees may know:
	// they may write there and above.
	escape [2]int64
	cmp    compare // of the instruction before, for the branch behind it
	eqRSP  int8    // register that the instruction before compared with rsp, or noReg
	bound  int64   // largest index that the last unsigned check let through, -1 none
}

// entryState is the state at a function's first instruction: the return
// address is at rsp, the CFA above it.
func entryState() *state {
	s := &state{escape: [2]int64{noEscape, noEscape}, eqRSP: noReg, bound: -1}
	for r := range s.reg {
		s.reg[r] = value{kind: vEntry, reg: int8(r)}
	}
	s.reg[target.RSP] = value{kind: vStack, base: baseCFA, n: -8}
	for i := range int64(inSlots) {
		s.slots = append(s.slots, slot{off: i * 8, size: 8, val: value{kind: vSlotIn, n: i * 8}})
	}
	return s
}

// inSlots is the number of stack arguments that are followed: with six in
// registers, twelve in all.
const inSlots = 6

func (s *state) clone() *state {
	c := *s
	c.slots = append([]slot(nil), s.slots...)
	return &c
}

// meet is what is known when either a or b holds.
func (a *Analysis) meet(x, y value) value {
	switch {
	case x == y:
		return x
	case x.stackish() || y.stackish():
		return value{kind: vFrame}
	case (x.kind == vConst || x.kind == vSet) && (y.kind == vConst || y.kind == vSet):
		return a.union(x, y)
	case same(x, y) == 32:
		x.low32 = true
		return x
	}
	return value{}
}

// join widens s to what holds in s and in o, and reports whether s changed.
func (a *Analysis) join(s, o *state) bool {
	changed := false
	for r := range s.reg {
		if v := a.meet(s.reg[r], o.reg[r]); v != s.reg[r] {
			s.reg[r] = v
			changed = true
		}
	}
	kept := s.slots[:0]
	for i := range s.slots {
		sl := s.slots[i]
		other := o.find(sl.base, sl.off)
		if other == nil || other.size != sl.size {
			changed = true
			continue
		}
		v := a.meet(sl.val, other.val)
		if v.kind == vTop {
			changed = true
			continue
		}
		changed = changed || v != sl.val
		sl.val = v
		kept = append(kept, sl)
	}
	s.slots = kept
	for b := range s.escape {
		if o.escape[b] < s.escape[b] {
			s.escape[b] = o.escape[b]
			changed = true
		}
	}
	if s.bound != o.bound && s.bound != -1 {
		s.bound = -1
		changed = true
	}
	s.cmp, s.eqRSP = compare{}, noReg
	return changed
}

// find returns the slot that starts at the offset, or nil.
func (s *state) find(base uint8, off int64) *slot {
	lo, hi := 0, len(s.slots)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if m := &s.slots[mid]; m.base < base || m.base == base && m.off < off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(s.slots) && s.slots[lo].base == base && s.slots[lo].off == off {
		return &s.slots[lo]
	}
	return nil
}

// drop removes the slots for which gone is true.
func (s *state) drop(gone func(*slot) bool) {
	first := 0
	for first < len(s.slots) && !gone(&s.slots[first]) {
		first++
	}
	if first == len(s.slots) {
		return // the usual case; nothing is copied
	}
	kept := s.slots[:first]
	for i := first + 1; i < len(s.slots); i++ {
		if !gone(&s.slots[i]) {
			kept = append(kept, s.slots[i])
		}
	}
	s.slots = kept
}

// put stores v at an exact offset whose old contents have been dropped.
func (s *state) put(sl slot) {
	if sl.val.kind == vTop || len(s.slots) >= maxSlots || sl.size != 4 && sl.size != 8 {
		return
	}
	i := len(s.slots)
	for i > 0 && (s.slots[i-1].base > sl.base || s.slots[i-1].base == sl.base && s.slots[i-1].off > sl.off) {
		i--
	}
	s.slots = append(s.slots, slot{})
	copy(s.slots[i+1:], s.slots[i:])
	s.slots[i] = sl
}

// fresh names a new unknown made by the instruction at addr. Older values of
// that name, from an earlier turn of a loop, lose it: within one execution a
// name means one number.
func (s *state) fresh(addr uint64, k int8) value {
	v := value{kind: vOpaque, n: int64(addr), reg: k}
	for r := range s.reg {
		if same(s.reg[r], v) != 0 {
			s.reg[r] = value{}
		}
	}
	s.drop(func(sl *slot) bool { return same(sl.val, v) != 0 })
	return v
}

// dropImprecise forgets what a store of unknown place or a callee may have
// changed from offset off of base on. Registers' save areas stay: code that
// overwrites them doesn't return.
func (a *Analysis) dropImprecise(s *state, base uint8, off int64) {
	other := a.lowest(base, off)
	s.drop(func(sl *slot) bool {
		from := off
		if sl.base != base {
			from = other
		}
		return sl.off+int64(sl.size) > from && !sl.val.savedRegister()
	})
}

// lowest is the least offset from the other base that the address base+off
// can be: the aligned base lies below CFA + alignFrom by less than its
// alignment.
func (a *Analysis) lowest(base uint8, off int64) int64 {
	if !a.aligned {
		return noEscape
	}
	if base == baseAligned {
		return off + a.alignFrom + a.alignMask + 1 // alignMask is negative: -alignment
	}
	return off - a.alignFrom
}

// leak records that callees may know the address v.
func (a *Analysis) leak(s *state, v value) {
	switch v.kind {
	case vFrame:
		s.escape = [2]int64{-noEscape, -noEscape}
	case vStack:
		s.escape[v.base] = min(s.escape[v.base], v.n)
		s.escape[1-v.base] = min(s.escape[1-v.base], a.lowest(v.base, v.n))
	}
}

// dropEscaped forgets the slots that code outside this function may have
// changed.
func (a *Analysis) dropEscaped(s *state) {
	s.drop(func(sl *slot) bool {
		return sl.off+int64(sl.size) > s.escape[sl.base] && !sl.val.savedRegister()
	})
}
