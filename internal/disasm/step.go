package disasm

import (
	"golang.org/x/arch/x86/x86asm"

	"mycore/internal/target"
)

// maxOffset bounds frame offsets: no stack is larger (the kernel's limit for a
// main stack is below it, too), and sums of offsets can't overflow.
const maxOffset = int64(1) << 40

// argRegs are the DWARF numbers of the argument registers in order (psABI
// 3.2.3).
var argRegs = [6]int8{target.RDI, target.RSI, target.RDX, target.RCX, target.R8, target.R9}

// callReads are the registers in which a callee may receive an address: the
// arguments, the count of vector registers that shares RAX, and the static
// chain.
const callReads = mRDI | mRSI | mRDX | mRCX | mRAX | 1<<target.R8 | 1<<target.R9 | 1<<target.R10

const callerSaved = mRAX | mRCX | mRDX | mRSI | mRDI | 1<<target.R8 | 1<<target.R9 | 1<<target.R10 | 1<<target.R11

func stackAt(base uint8, off int64) value {
	if off > maxOffset || off < -maxOffset {
		return value{kind: vFrame}
	}
	return value{kind: vStack, base: base, n: off}
}

// set makes register r hold v, put there by the instruction.
func (s *state) set(r int8, v value, in *instr) {
	s.reg[r] = v
	s.from[r] = in.addr
}

// write is set for a register operand of any size.
func (s *state) write(o operand, v value, in *instr) {
	switch {
	case o.size == 8:
	case o.size == 4:
		v = low32Of(v)
	case s.reg[o.reg].stackish():
		v = value{kind: vFrame}
	default:
		v = value{}
	}
	s.set(o.reg, v, in)
}

// placeKind says what a memory operand's address is.
type placeKind uint8

const (
	placeUnknown placeKind = iota // may be an escaped address of the frame
	placeSlot                     // exactly base + off
	placeFrame                    // somewhere in the frame
	placeElse                     // not in the frame: global, thread-local, or from the caller
)

type place struct {
	kind placeKind
	base uint8
	off  int64
}

// placeOf works out where a memory operand points.
func (s *state) placeOf(m memory) place {
	if m.segment {
		return place{kind: placeElse}
	}
	v := s.address(m)
	switch v.kind {
	case vStack:
		return place{kind: placeSlot, base: v.base, off: v.n}
	case vFrame:
		return place{kind: placeFrame}
	case vConst:
		return place{kind: placeElse}
	}
	if m.base >= 0 {
		if k := s.reg[m.base].kind; k == vConst || k == vEntry {
			return place{kind: placeElse} // an array or an object of the caller's, whatever the index
		}
	}
	return place{}
}

// address evaluates base + index*scale + displacement.
func (s *state) address(m memory) value {
	base, index := constant(0), constant(0)
	if m.base >= 0 {
		base = s.reg[m.base]
	}
	switch {
	case m.index == vecReg:
		index = value{}
	case m.index >= 0:
		index = s.reg[m.index]
		if m.scale != 1 {
			index = scaled(index, int64(m.scale))
		}
	}
	return add(add(base, index), constant(m.disp))
}

func scaled(v value, by int64) value {
	switch {
	case v.kind == vConst:
		return constant(v.n * by)
	case v.stackish():
		return value{kind: vFrame}
	}
	return value{}
}

// add is the sum of two values.
func add(x, y value) value {
	if y.kind != vConst {
		x, y = y, x
	}
	switch {
	case y.kind == vConst && y.n == 0 && !x.low32:
		return x
	case x.kind == vConst && y.kind == vConst:
		return constant(x.n + y.n)
	case x.kind == vStack && y.kind == vConst && y.n > -maxOffset && y.n < maxOffset:
		return stackAt(x.base, x.n+y.n)
	case x.kind == vTable && x.reg == 4 && !x.low32 && y.kind == vConst && x.n == y.n:
		return value{kind: vTarget, n: x.n}
	case x.stackish() || y.stackish():
		return value{kind: vFrame}
	}
	return value{}
}

// load reads memory: a known slot, a jump table, or a new unknown.
func (a *Analysis) load(s *state, o operand, in *instr) value {
	if p := s.placeOf(o.mem); p.kind == placeSlot && (o.size == 8 || o.size == 4) {
		if sl := s.find(p.base, p.off); sl != nil && sl.size >= o.size {
			if o.size < 8 {
				return low32Of(sl.val)
			}
			return sl.val
		}
		if o.size == 8 && s.free(p.base, p.off, 8) {
			v := s.fresh(in.addr, nameSlot)
			s.put(slot{base: p.base, off: p.off, size: 8, val: v, from: in.addr})
			return v
		}
	}
	if t, ok := s.tableAt(o); ok {
		return t
	}
	return s.fresh(in.addr, nameResult)
}

// free reports whether no known slot overlaps these bytes of the frame.
func (s *state) free(base uint8, off, size int64) bool {
	for i := range s.slots {
		if sl := &s.slots[i]; sl.base == base && sl.off < off+size && sl.off+int64(sl.size) > off {
			return false
		}
	}
	return true
}

// tableAt recognises the load of a jump table's entry: a constant address plus
// an unknown index times the entry's size. Code that isn't optimised multiplies
// the index before.
func (s *state) tableAt(o operand) (value, bool) {
	m := o.mem
	if m.segment || m.index < 0 || o.size != 4 && o.size != 8 {
		return value{}, false
	}
	base, index := constant(0), s.reg[m.index]
	if m.base >= 0 {
		base = s.reg[m.base]
	}
	if m.scale == 1 && base.kind != vConst {
		base, index = index, base
	} else if m.scale != o.size {
		return value{}, false
	}
	if base.kind != vConst || index.kind == vConst {
		return value{}, false
	}
	return value{kind: vTable, reg: int8(o.size), n: base.n + m.disp}, true
}

// The names that one instruction can give to unknowns: what it loaded or
// computed, what a slot holds that it read, and what a register that it read
// holds.
const (
	nameResult = 0
	nameSlot   = 1
	nameReg    = 16
)

// value reads an operand.
func (a *Analysis) value(s *state, o operand, in *instr) value {
	switch o.kind {
	case opImm:
		return constant(o.imm)
	case opMem:
		return a.load(s, o, in)
	case opReg:
		if s.reg[o.reg].kind == vTop && o.size >= 4 {
			s.reg[o.reg] = s.fresh(in.addr, nameReg+o.reg) // so that a copy is known to be one
		}
		switch o.size {
		case 8:
			return s.reg[o.reg]
		case 4:
			return low32Of(s.reg[o.reg])
		}
		if s.reg[o.reg].stackish() {
			return value{kind: vFrame}
		}
	}
	return value{}
}

// store writes v, size bytes, to memory.
func (a *Analysis) store(s *state, m memory, size uint32, v value, in *instr) {
	if v.stackish() {
		a.leak(s, v)
	}
	p := s.placeOf(m)
	switch p.kind {
	case placeUnknown:
		a.dropEscaped(s)
	case placeFrame:
		a.dropImprecise(s, baseCFA, -noEscape)
		a.dropImprecise(s, baseAligned, -noEscape)
	case placeSlot:
		if size >= openStore || size == 0 {
			a.dropImprecise(s, p.base, p.off)
			return
		}
		a.storeSlot(s, slot{base: p.base, off: p.off, size: uint8(min(size, 255)), val: v, from: in.addr}, int64(size))
	}
}

// storeSlot writes exactly known bytes of the frame.
func (a *Analysis) storeSlot(s *state, n slot, size int64) {
	otherFrom := a.lowest(n.base, n.off)
	otherTo := otherFrom + size - a.alignMask // alignMask is -alignment
	s.drop(func(sl *slot) bool {
		if sl.base == n.base {
			return sl.off < n.off+size && sl.off+int64(sl.size) > n.off
		}
		return !sl.val.savedRegister() && otherFrom != noEscape && sl.off < otherTo && sl.off+int64(sl.size) > otherFrom
	})
	if n.size == 4 {
		n.val = low32Of(n.val)
	}
	s.put(n)
}

// step interprets one instruction. Control flow is the caller's.
func (a *Analysis) step(s *state, in *instr) {
	cmp, eq := s.cmp, s.eqRSP
	s.cmp, s.eqRSP = compare{}, noReg
	switch in.class {
	case clMov:
		a.stepMov(s, in)
	case clExt:
		a.stepExt(s, in)
	case clLea:
		v := s.address(in.src.mem)
		if v.kind == vTop {
			v = s.fresh(in.addr, nameResult)
		}
		if in.dst.kind == opReg {
			s.write(in.dst, v, in)
		}
	case clAdd, clSub:
		a.stepAdd(s, in)
	case clAnd:
		a.stepAnd(s, in)
	case clCmp:
		s.stepCompare(in)
	case clXchg:
		x, y := a.value(s, in.dst, in), a.value(s, in.src, in)
		s.write(in.dst, y, in)
		s.write(in.src, x, in)
	case clCmov:
		x, y := a.value(s, in.dst, in), a.value(s, in.src, in)
		s.write(in.dst, a.meet(x, y), in)
	case clPush:
		a.push(s, a.value(s, in.src, in), in)
	case clPop:
		a.pop(s, in.dst, in)
	case clLeave:
		s.set(target.RSP, s.reg[target.RBP], in)
		a.pop(s, operand{kind: opReg, reg: target.RBP, size: 8}, in)
	case clCall:
		a.stepCall(s, in)
	case clSyscall:
		a.stepSyscall(s, in)
	case clOther:
		a.stepOther(s, in)
	case clBranch:
		s.cmp, s.eqRSP = cmp, eq // the edges use them
		s.clobber(in.clobber, in, false)
	case clJumpInd, clNop, clJump, clReturn, clStop:
		if in.class == clNop {
			s.cmp, s.eqRSP = cmp, eq
		}
	}
}

func (a *Analysis) stepMov(s *state, in *instr) {
	v := a.value(s, in.src, in)
	switch in.dst.kind {
	case opReg:
		s.write(in.dst, v, in)
	case opMem:
		a.store(s, in.dst.mem, uint32(in.dst.size), v, in)
	}
}

// stepExt widens: the low 32 bits stay those of the source when it has at
// least 32.
func (a *Analysis) stepExt(s *state, in *instr) {
	v := a.value(s, in.src, in)
	switch {
	case v.kind == vTable: // the offset in a jump table, which is signed
		v.low32 = !in.signed
	case v.kind == vConst && in.src.size == 4 && in.signed:
		v.n = int64(int32(v.n))
	case v.kind == vConst && in.src.size == 4:
		v.n = int64(uint32(v.n))
	case in.src.size == 4 && (v.kind == vEntry || v.kind == vSlotIn || v.kind == vOpaque):
		v.low32 = true
	case v.stackish():
		v = value{kind: vFrame}
	default:
		v = s.fresh(in.addr, nameResult)
	}
	s.write(in.dst, v, in)
}

func (a *Analysis) stepAdd(s *state, in *instr) {
	x, y := a.value(s, in.dst, in), a.value(s, in.src, in)
	if in.class == clSub {
		switch {
		case y.kind == vConst:
			y.n = -y.n
		case y.stackish():
			y = value{kind: vFrame} // a difference of addresses, kept suspect
		default:
			y = value{}
		}
	}
	v := value{}
	if in.dst.size == 8 || in.dst.size == 4 && x.kind == vConst && y.kind == vConst {
		v = add(x, y)
	} else if x.stackish() || y.stackish() {
		v = value{kind: vFrame}
	}
	if v.kind == vTop {
		v = s.fresh(in.addr, nameResult)
	}
	s.write(in.dst, v, in)
}

// stepAnd follows the alignment of the stack pointer; every other mask is an
// unknown.
func (a *Analysis) stepAnd(s *state, in *instr) {
	x := a.value(s, in.dst, in)
	y := a.value(s, in.src, in)
	var v value
	switch {
	case in.dst.reg == target.RSP && in.dst.size == 8 && x.kind == vStack && x.base == baseCFA && y.kind == vConst && a.align(x.n, y.n):
		v = value{kind: vStack, base: baseAligned}
		if s.escape[baseCFA] < noEscape {
			s.escape[baseAligned] = min(s.escape[baseAligned], s.escape[baseCFA]-x.n)
		}
	case x.stackish() || y.stackish():
		v = value{kind: vFrame}
	case x.kind == vConst && y.kind == vConst:
		v = constant(x.n & y.n)
	default:
		v = s.fresh(in.addr, nameResult)
	}
	s.write(in.dst, v, in)
}

// align records that the function aligns its stack pointer, found at CFA+from,
// with mask. Two different alignments can't be told apart and are refused.
func (a *Analysis) align(from, mask int64) bool {
	if mask >= 0 || mask&-mask != -mask || mask < -(1<<16) {
		return false
	}
	if a.aligned {
		return a.alignFrom == from && a.alignMask == mask
	}
	a.aligned, a.alignFrom, a.alignMask = true, from, mask
	return true
}

func (s *state) stepCompare(in *instr) {
	switch {
	case in.src.kind == opImm && in.src.imm >= 0 && in.src.imm < maxTable:
		s.cmp = compare{limit: in.src.imm, known: true}
	case in.dst.kind != opReg:
	case in.src.kind == opReg && in.dst.reg == target.RSP:
		s.eqRSP = in.src.reg
	case in.src.kind == opReg && in.src.reg == target.RSP:
		s.eqRSP = in.dst.reg
	}
}

// refine narrows a state on the way past (taken false) or along (taken true) a
// branch.
func (s *state) refine(op x86asm.Op, taken bool) {
	past := (op == x86asm.JA || op == x86asm.JAE) && !taken
	along := (op == x86asm.JBE || op == x86asm.JB) && taken
	if s.cmp.known && (past || along) {
		s.bound = s.cmp.limit
		if op == x86asm.JAE || op == x86asm.JB {
			s.bound--
		}
	}
	if s.eqRSP != noReg && (op == x86asm.JNE && !taken || op == x86asm.JE && taken) {
		if v := s.reg[s.eqRSP]; v.kind == vStack { // the end of a loop that probes a large frame
			s.reg[target.RSP] = v
		}
	}
	s.cmp, s.eqRSP = compare{}, noReg
}

func (a *Analysis) push(s *state, v value, in *instr) {
	size := int64(8)
	if in.src.size == 2 {
		size, v = 2, value{}
	}
	sp := add(s.reg[target.RSP], constant(-size))
	s.set(target.RSP, sp, in)
	if sp.kind == vStack {
		a.store(s, memory{base: target.RSP, index: noReg, scale: 1}, uint32(size), v, in)
		return
	}
	if v.stackish() {
		a.leak(s, v)
	}
	a.dropImprecise(s, baseCFA, -noEscape)
	a.dropImprecise(s, baseAligned, -noEscape)
}

func (a *Analysis) pop(s *state, dst operand, in *instr) {
	size := int64(8)
	if dst.size == 2 {
		size = 2
	}
	v := a.load(s, operand{kind: opMem, size: uint8(size), mem: memory{base: target.RSP, index: noReg, scale: 1}}, in)
	s.set(target.RSP, add(s.reg[target.RSP], constant(size)), in)
	switch dst.kind {
	case opReg:
		s.write(dst, v, in)
	case opMem:
		a.store(s, dst.mem, uint32(size), v, in)
	}
}

// forget makes registers unknown: a callee wrote them.
func (s *state) forget(mask uint32, in *instr) {
	for r := range s.reg {
		if mask&bit(r) != 0 {
			s.set(int8(r), value{}, in)
		}
	}
}

// clobber makes registers unknown that the instruction computed from others:
// what came from a frame address stays suspect.
func (s *state) clobber(mask uint32, in *instr, suspect bool) {
	for r := range s.reg {
		if mask&bit(r) == 0 {
			continue
		}
		v := value{}
		if suspect || s.reg[r].stackish() {
			v.kind = vFrame
		}
		s.set(int8(r), v, in)
	}
}

// give leaks the frame addresses in the registers of mask.
func (a *Analysis) give(s *state, mask uint32) (any bool) {
	for r := range s.reg {
		if mask&bit(r) != 0 && s.reg[r].stackish() {
			a.leak(s, s.reg[r])
			any = true
		}
	}
	return any
}

// stepCall applies the psABI: caller-saved registers are gone, the stack below
// rsp too, and what the callee may know an address of.
func (a *Analysis) stepCall(s *state, in *instr) {
	a.give(s, callReads)
	a.dropEscaped(s)
	if sp := s.reg[target.RSP]; sp.kind == vStack {
		s.drop(func(sl *slot) bool { return sl.base == sp.base && sl.off < sp.n })
	}
	s.bound = -1
	s.forget(callerSaved, in)
	s.set(target.RAX, s.fresh(in.addr, nameResult), in)
}

// stepSyscall is a call into the kernel: it writes through pointers, and
// changes RAX, RCX and R11 only.
func (a *Analysis) stepSyscall(s *state, in *instr) {
	a.give(s, callReads)
	a.dropEscaped(s)
	s.forget(in.clobber, in)
	s.set(target.RAX, s.fresh(in.addr, nameResult), in)
}

func (a *Analysis) stepOther(s *state, in *instr) {
	suspect := a.give(s, in.reads)
	if in.storeSize > 0 {
		a.store(s, in.dst.mem, in.storeSize, value{}, in)
	}
	if in.moves { // the pointers stay at or above where they were
		a.give(s, in.clobber&(mRSI|mRDI))
		s.forget(in.clobber, in)
		return
	}
	s.clobber(in.clobber, in, suspect)
}
