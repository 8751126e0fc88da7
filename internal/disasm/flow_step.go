package disasm

import (
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"mycore/internal/target"
)

// hasFrame reports whether e is made from an address of the frame.
func hasFrame(e Expr) bool { return atomFrame(e.Atom) || atomFrame(e.Index) }

func atomFrame(a *Atom) bool {
	switch {
	case a == nil:
		return false
	case a.Kind == AtomFrame:
		return true
	case a.Kind == AtomOp:
		return hasFrame(a.X) || hasFrame(a.Y)
	}
	return false
}

// address evaluates a memory operand.
func (t *tracer) address(p *path, m memory, in *traced) Expr {
	e := constExpr(m.disp)
	if m.base >= 0 {
		e = t.atoms.sum(p.reg[m.base], e)
	}
	switch {
	case m.index == vecReg:
		e = t.atoms.sum(e, t.atoms.unknown(in.addr))
	case m.index >= 0:
		e = single(t.atoms.sum(e, t.atoms.times(p.reg[m.index], int64(m.scale))))
	}
	if m.segment {
		e = t.atoms.sum(t.atoms.get(Atom{Kind: AtomThread}), e)
	}
	return e
}

// value reads an operand; sizes below 8 are widened with zeros.
func (t *tracer) value(p *path, o operand, in *traced) Expr {
	switch o.kind {
	case opImm:
		return constExpr(o.imm)
	case opReg:
		return t.atoms.narrow(p.reg[o.reg], o.size, false)
	case opMem:
		return t.load(p, t.address(p, o.mem, in), o.size, in)
	}
	return t.atoms.unknown(in.addr)
}

func (t *tracer) load(p *path, at Expr, size uint8, in *traced) Expr {
	if size == 0 || size > 8 {
		return t.atoms.unknown(in.addr)
	}
	if at.of(AtomFrame) {
		if sl, ok := p.slots[at.Off]; ok && sl.size >= size {
			return t.atoms.narrow(sl.val, size, false)
		}
		return t.atoms.unknown(in.addr)
	}
	if hasFrame(at) {
		return t.atoms.unknown(in.addr)
	}
	if at.of(AtomThread) && at.Off == 0 && size == 8 {
		return at // the thread control block begins with its own address (psABI TLS)
	}
	return t.atoms.load(at, size)
}

// set writes a register operand.
func (t *tracer) set(p *path, o operand, v Expr) {
	if o.kind != opReg {
		return
	}
	switch o.size {
	case 8:
	case 4:
		v = t.atoms.narrow(v, 4, false)
	default:
		v = t.atoms.get(Atom{Kind: AtomOp, Op: "low", Size: o.size, X: v})
	}
	p.reg[o.reg] = v
}

// store writes size bytes at an address.
func (t *tracer) store(p *path, at Expr, size uint8, v Expr, in *traced) {
	v = t.atoms.narrow(v, size, false)
	switch {
	case at.of(AtomFrame):
		p.overwrite(at.Off, int64(size))
		if size <= 8 && len(p.slots) < traceSlots {
			p.slots[at.Off] = traceSlot{size: size, val: v}
		}
		return
	case hasFrame(at):
		p.forget(-noEscape)
		return
	}
	p.escape(v)
	p.fresh = len(p.conds)
	t.event(p, Event{Kind: EvStore, Site: in.addr, Addr: at, Value: v, Size: size})
	if at.Atom != nil && at.Atom.Kind != AtomArg && at.Atom.Kind != AtomThread {
		p.forget(p.escaped)
	}
}

// overwrite drops the slots that share bytes with a range of the frame.
func (p *path) overwrite(off, size int64) {
	for at := off - 7; at < off+size; at++ {
		if sl, ok := p.slots[at]; ok && at+int64(sl.size) > off {
			delete(p.slots, at)
		}
	}
}

// forget drops the slots from an offset on, other than save areas of
// callee-saved registers.
func (p *path) forget(from int64) {
	for off, sl := range p.slots {
		saved := sl.val.of(AtomEntry) && sl.val.Off == 0
		if off+int64(sl.size) > from && !saved {
			delete(p.slots, off)
		}
	}
}

// escape records that others may know an address of the frame.
func (p *path) escape(v Expr) {
	switch {
	case v.of(AtomFrame):
		p.escaped = min(p.escaped, v.Off)
	case hasFrame(v):
		p.escaped = -noEscape
	}
}

// write stores to any operand.
func (t *tracer) write(p *path, o operand, v Expr, in *traced) {
	if o.kind == opMem {
		t.store(p, t.address(p, o.mem, in), o.size, v, in)
		return
	}
	t.set(p, o, v)
}

// step interprets an instruction that goes on with the next one.
func (t *tracer) step(p *path, in *traced) {
	switch in.class {
	case clNop:
		if in.x.Op == x86asm.TEST {
			t.compare(p, in, in.operandOf(&in.x, 0), in.operandOf(&in.x, 1), true)
		}
	case clMov:
		t.write(p, in.dst, t.value(p, in.src, in), in)
	case clExt:
		v := t.atoms.narrow(t.value(p, in.src, in), in.src.size, in.signed)
		t.set(p, in.dst, v)
	case clLea:
		t.set(p, in.dst, t.address(p, in.src.mem, in))
	case clAdd, clSub, clAnd:
		t.arithmetic(p, in, in.dst, in.src)
	case clCmp:
		t.compare(p, in, in.dst, in.src, false)
	case clXchg:
		x, y := t.value(p, in.dst, in), t.value(p, in.src, in)
		t.set(p, in.dst, y)
		t.set(p, in.src, x)
	case clPush:
		t.push(p, t.value(p, in.src, in), in)
	case clPop:
		t.pop(p, in.dst, in)
	case clLeave:
		p.reg[target.RSP] = p.reg[target.RBP]
		t.pop(p, operand{kind: opReg, reg: target.RBP, size: 8}, in)
	case clSyscall:
		p.forget(p.escaped)
		t.clobber(p, in.clobber, in)
	case clOther:
		t.other(p, in)
	}
}

func (t *tracer) push(p *path, v Expr, in *traced) {
	sp := t.atoms.sum(p.reg[target.RSP], constExpr(-8))
	p.reg[target.RSP] = sp
	t.store(p, sp, 8, v, in)
}

func (t *tracer) pop(p *path, dst operand, in *traced) {
	v := t.load(p, p.reg[target.RSP], 8, in)
	p.reg[target.RSP] = t.atoms.sum(p.reg[target.RSP], constExpr(8))
	t.write(p, dst, v, in)
}

// clobber makes registers unknown, each a different unknown.
func (t *tracer) clobber(p *path, mask uint32, in *traced) {
	for r := range p.reg {
		if mask&bit(r) != 0 {
			p.reg[r] = t.atoms.get(Atom{Kind: AtomUnknown, ID: in.addr, Arg: int16(r) + 1})
		}
	}
	p.flags.valid = false
}

// compare sets the flags as CMP and TEST do.
func (t *tracer) compare(p *path, in *traced, a, b operand, test bool) {
	size := max(a.size, 1)
	if a.kind == opImm || size > 8 {
		size = b.size
	}
	x := t.atoms.narrow(t.value(p, a, in), size, false)
	y := t.atoms.narrow(t.value(p, b, in), size, false)
	if test {
		if x != y {
			x = t.binary("and", x, y, size)
		}
		y = constExpr(0)
	}
	p.flags = traceFlags{x: x, y: y, valid: a.kind != opNone && b.kind != opNone}
	t.event(p, Event{Kind: EvCompare, Site: in.addr, Value: x, Other: y, Size: size})
}

// operations that are kept by name, with their order of operands.
var operations = map[x86asm.Op]string{
	x86asm.ADD: "add", x86asm.SUB: "sub", x86asm.AND: "and", x86asm.OR: "or", x86asm.XOR: "xor", x86asm.IMUL: "mul",
	x86asm.SHL: "shl", x86asm.SHR: "shr", x86asm.SAR: "sar",
}

func (t *tracer) arithmetic(p *path, in *traced, dst, src operand) {
	op := operations[in.x.Op]
	switch in.class {
	case clAdd: // INC and DEC too, with an immediate
		op = "add"
	case clSub:
		op = "sub"
	case clAnd:
		op = "and"
	}
	x := t.value(p, dst, in)
	y := t.atoms.narrow(t.value(p, src, in), max(dst.size, 1), false)
	var v Expr
	if dst.kind == opReg && dst.reg == target.RSP && op == "and" {
		v = t.alignStack(x, y, in)
	} else {
		v = t.binary(op, x, y, dst.size)
	}
	t.write(p, dst, v, in)
	p.flags = traceFlags{x: v, y: constExpr(0), valid: true}
	if op == "sub" {
		p.flags = traceFlags{x: x, y: y, valid: true}
	}
}

// binary computes x op y in size bytes.
func (t *tracer) binary(op string, x, y Expr, size uint8) Expr {
	v := t.wide(op, x, y, size)
	if v.plain() && v.Atom.Kind == AtomOp && v.Off == 0 && v.Atom.Op == op && v.Atom.Size == size {
		return v
	}
	return t.atoms.narrow(v, size, false)
}

func (t *tracer) wide(op string, x, y Expr, size uint8) Expr {
	a, xc := x.Const()
	b, yc := y.Const()
	switch {
	case op == "add":
		return single(t.atoms.sum(x, y))
	case op == "sub" && x == y:
		return constExpr(0)
	case op == "sub" && yc && b != -1<<63:
		return t.atoms.sum(x, constExpr(-b))
	case op == "mul" && yc && b >= 0:
		return t.atoms.times(x, b)
	case op == "mul" && xc && a >= 0:
		return t.atoms.times(y, a)
	case op == "shl" && yc && b >= 0 && b < 32:
		return t.atoms.times(x, 1<<uint(b))
	case op == "and" && yc && (b == 0xff || b == 0xffff || b == 0xffffffff):
		return t.atoms.narrow(x, map[int64]uint8{0xff: 1, 0xffff: 2, 0xffffffff: 4}[b], false)
	case op == "and" && xc && yc:
		return constExpr(a & b)
	case op == "or" && xc && yc:
		return constExpr(a | b)
	case op == "or" && yc && b == 0, op == "xor" && yc && b == 0:
		return x
	case op == "xor" && x == y:
		return constExpr(0)
	}
	return t.atoms.get(Atom{Kind: AtomOp, Op: op, Size: size, X: x, Y: y})
}

// alignStack is `and $-n,%rsp`: at entry the stack pointer is 8 below a
// multiple of 16 (psABI 3.2.2). For larger alignments one of the possible
// frames stands for all: offsets from the new stack pointer are right in each.
func (t *tracer) alignStack(x, y Expr, in *traced) Expr {
	mask, ok := y.Const()
	if !ok || !x.of(AtomFrame) || mask >= 0 || mask < -4096 || -mask&(-mask-1) != 0 {
		return t.atoms.unknown(in.addr)
	}
	x.Off = (x.Off-8)&mask + 8
	return x
}

// other interprets what Analyze takes as a mere write.
func (t *tracer) other(p *path, in *traced) {
	x := &in.x
	dst, src := in.operandOf(x, 0), in.operandOf(x, 1)
	high := x.Op != 0 && highByte(x)
	switch {
	case high:
	case x.Op == x86asm.IMUL && x.Args[1] != nil && dst.kind == opReg:
		a, b := t.value(p, dst, in), t.value(p, src, in)
		if x.Args[2] != nil {
			a, b = b, t.value(p, in.operandOf(x, 2), in)
		}
		t.set(p, dst, t.binary("mul", a, b, dst.size))
		p.flags.valid = false
		return
	case (x.Op == x86asm.INC || x.Op == x86asm.DEC) && dst.kind == opMem:
		v := t.binary(map[bool]string{true: "add", false: "sub"}[x.Op == x86asm.INC], t.value(p, dst, in), constExpr(1), dst.size)
		t.write(p, dst, v, in)
		p.flags = traceFlags{x: v, valid: true}
		return
	case operations[x.Op] != "" && x.Op != x86asm.IMUL && dst.size > 0 && (src.kind != opNone || x.Args[1] == nil):
		if x.Args[1] == nil {
			src = operand{kind: opImm, imm: 1, size: 8}
		}
		t.arithmetic(p, in, dst, src)
		return
	case (x.Op == x86asm.XCHG || x.Op == x86asm.XADD) && dst.kind != opNone && src.kind != opNone:
		a, b := t.value(p, dst, in), t.value(p, src, in)
		if x.Op == x86asm.XADD {
			b = t.binary("add", a, b, dst.size)
		}
		t.write(p, dst, b, in)
		t.write(p, src, a, in)
		p.flags.valid = false
		return
	}
	if strings.HasPrefix(x.Op.String(), "SET") && dst.kind != opNone && !high {
		t.write(p, dst, t.atoms.unknown(in.addr), in)
		return
	}
	t.opaque(p, in)
}

// opaque forgets what an instruction may write that isn't followed.
func (t *tracer) opaque(p *path, in *traced) {
	if in.storeSize > 0 {
		at := t.address(p, in.dst.mem, in)
		switch {
		case hasFrame(at) && (in.storeSize >= openStore || !at.of(AtomFrame)):
			p.forget(-noEscape)
		case at.of(AtomFrame):
			p.overwrite(at.Off, int64(in.storeSize))
		default:
			t.store(p, at, uint8(min(in.storeSize, 64)), t.atoms.unknown(in.addr), in)
		}
	}
	t.clobber(p, in.clobber, in)
}

// cmov splits the path, as a branch does.
func (t *tracer) cmov(p *path, in *traced) bool {
	if !t.again(p, in.addr) {
		return false
	}
	jump, known := cmovBranch[in.x.Op]
	if !known {
		jump = x86asm.JO // a condition that nothing is known of
	}
	yes, no := p.decide(jump)
	if yes && no {
		other := p.fork()
		other.assume(jump, false, in.addr)
		other.pc = in.next()
		if in.dst.size == 4 {
			t.set(other, in.dst, t.value(other, in.dst, in))
		}
		t.work = append(t.work, other)
		p.assume(jump, true, in.addr)
	}
	if yes {
		t.set(p, in.dst, t.value(p, in.src, in))
	} else if in.dst.size == 4 {
		t.set(p, in.dst, t.value(p, in.dst, in))
	}
	p.pc = in.next()
	return true
}

var cmovBranch = map[x86asm.Op]x86asm.Op{
	x86asm.CMOVE: x86asm.JE, x86asm.CMOVNE: x86asm.JNE, x86asm.CMOVA: x86asm.JA, x86asm.CMOVAE: x86asm.JAE,
	x86asm.CMOVB: x86asm.JB, x86asm.CMOVBE: x86asm.JBE, x86asm.CMOVG: x86asm.JG, x86asm.CMOVGE: x86asm.JGE,
	x86asm.CMOVL: x86asm.JL, x86asm.CMOVLE: x86asm.JLE, x86asm.CMOVS: x86asm.JS, x86asm.CMOVNS: x86asm.JNS,
}

// decide tells which ways of a branch the path allows.
func (p *path) decide(op x86asm.Op) (yes, no bool) {
	f := p.flags
	if !f.valid || op != x86asm.JE && op != x86asm.JNE {
		return true, true
	}
	equal, known := f.x == f.y, f.x == f.y
	_, xc := f.x.Const()
	_, yc := f.y.Const()
	if xc && yc {
		known = true
	}
	if f.x.of(AtomFrame) && yc { // the address of a local variable is not null
		known = true
	}
	for i, c := range p.conds {
		if c.Known && c.X == f.x && c.Y == f.y && (i >= p.fresh || steady(f.x)) {
			equal, known = c.Equal, true
		}
	}
	if !known {
		return true, true
	}
	yes = equal == (op == x86asm.JE)
	return yes, !yes
}

// steady values don't change with memory.
func steady(e Expr) bool { return e.of(AtomArg) || e.of(AtomFrame) }

// assume records the way that the path takes.
func (p *path) assume(op x86asm.Op, taken bool, site uint64) {
	c := Cond{X: p.flags.x, Y: p.flags.y, Site: site}
	if p.flags.valid && (op == x86asm.JE || op == x86asm.JNE) {
		c.Known, c.Equal = true, taken == (op == x86asm.JE)
	}
	p.conds = append(p.conds, c)
}

// callee is what a direct call to an address reaches.
func (t *tracer) callee(addr uint64) (name string, entry uint64) {
	if t.code.Callee == nil {
		return "", addr
	}
	return t.code.Callee(addr)
}

// calleeOf is the target of an indirect call or jump.
func (t *tracer) calleeOf(p *path, in *traced) (name string, entry uint64, e Expr) {
	e = t.value(p, in.src, in)
	if e.of(AtomLoad) && e.Off == 0 && t.code.Slot != nil {
		if at, ok := e.Atom.X.Const(); ok {
			name, entry = t.code.Slot(uint64(at))
		}
	}
	return name, entry, e
}

// callEvent records a call. below is what lies on the stack above the
// arguments: the return address, when it was pushed already.
func (t *tracer) callEvent(p *path, in *traced, name string, entry uint64, callee Expr, below int64) {
	e := Event{Kind: EvCall, Site: in.addr, Name: name, Target: entry, Callee: callee}
	for i, r := range argRegs {
		e.Args[i] = p.reg[r]
	}
	for i := len(argRegs); i < len(e.Args); i++ {
		at := t.atoms.sum(p.reg[target.RSP], constExpr(below+8*int64(i-len(argRegs))))
		if sl, ok := p.slots[at.Off]; ok && at.of(AtomFrame) {
			e.Args[i] = sl.val
		} else {
			e.Args[i] = t.atoms.unknown(in.addr)
		}
	}
	t.event(p, e)
}

// follow reports whether a function is interpreted rather than skipped.
func (t *tracer) follow(p *path, entry uint64) bool {
	if entry == 0 || t.refused[entry] || len(p.frames)-1 >= min(t.code.Depth, traceDepth) {
		return false
	}
	for _, f := range p.frames {
		if f.entry == entry {
			return false
		}
	}
	return true
}

// noReturn are functions behind which a path ends.
var noReturn = map[string]bool{
	"__stack_chk_fail": true, "abort": true, "exit": true, "_exit": true, "__assert_fail": true, "_Unwind_Resume": true,
	"__cxa_throw": true, "__cxa_rethrow": true, "_ZSt9terminatev": true, "__fortify_fail": true, "__cxa_throw_bad_array_new_length": true,
}

func (t *tracer) call(p *path, in *traced) bool {
	var name string
	var entry uint64
	var callee Expr
	if in.direct {
		name, entry = t.callee(in.target)
	} else {
		name, entry, callee = t.calleeOf(p, in)
	}
	t.callEvent(p, in, name, entry, callee, 0)
	if noReturn[name] {
		return false
	}
	sp := p.reg[target.RSP]
	if t.follow(p, entry) {
		t.push(p, constExpr(int64(in.next())), in)
		start, end := t.extent(entry)
		p.frames = append(p.frames, traceFrame{ret: in.next(), start: start, end: end, sp: p.reg[target.RSP], entry: entry})
		p.pc = entry
		return true
	}
	t.clobberCall(p, in)
	p.reg[target.RSP] = sp
	p.pc = in.next()
	f := p.frames[len(p.frames)-1]
	return f.end == 0 || p.pc != f.end // behind the end of a function only a call that never returns can stand
}

// clobberCall applies the psABI to a call that isn't followed.
func (t *tracer) clobberCall(p *path, in *traced) {
	for r := range p.reg {
		if callReads&bit(r) != 0 && hasFrame(p.reg[r]) {
			p.escape(p.reg[r])
		}
	}
	p.forget(p.escaped)
	if sp := p.reg[target.RSP]; sp.of(AtomFrame) {
		for off := range p.slots {
			if off < sp.Off {
				delete(p.slots, off)
			}
		}
	}
	t.clobber(p, callerSaved, in)
	p.reg[target.RAX] = t.atoms.get(Atom{Kind: AtomCall, ID: in.addr})
	p.fresh = len(p.conds)
}
