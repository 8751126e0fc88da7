package disasm

import (
	"errors"
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"mycore/internal/target"
)

// class is what an instruction means to the analysis.
type class uint8

const (
	clOther   class = iota // writes clobber, and memory when storeSize > 0
	clNop                  // no register or memory that matters changes
	clMov                  // dst = src, also loads and stores
	clExt                  // dst = src widened (MOVSXD, MOVZX, MOVSX, CDQE)
	clLea                  // dst = address of src
	clAdd                  // dst += src
	clSub                  // dst -= src
	clAnd                  // dst &= src
	clCmp                  // compares dst with src
	clXchg                 // exchanges dst and src
	clCmov                 // dst = src or dst
	clPush                 // pushes src
	clPop                  // pops dst
	clLeave                // rsp = rbp, pop rbp
	clCall                 // calls target, or src when indirect
	clSyscall              // system call
	clJump                 // goes to target
	clBranch               // may go to target
	clJumpInd              // goes to what src holds
	clReturn               // leaves the function
	clStop                 // never continues (ud2, hlt, int3)
)

type operandKind uint8

const (
	opNone operandKind = iota
	opReg
	opMem
	opImm
)

// noReg marks an absent base or index; vecReg an index in a vector register.
const (
	noReg  = -1
	vecReg = -2
)

// memory is a memory operand; RIP-relative ones are already absolute.
type memory struct {
	base, index int8 // DWARF register numbers, noReg, or vecReg (index)
	scale       uint8
	segment     bool // FS or GS relative: thread-local, never the frame
	disp        int64
}

// operand is one operand of an instruction.
type operand struct {
	kind operandKind
	reg  int8
	size uint8 // bytes: 1, 2, 4 or 8; 0 for sizes that don't matter
	mem  memory
	imm  int64
}

// instr is one decoded instruction.
type instr struct {
	addr      uint64
	length    uint8
	class     class
	branch    x86asm.Op // clBranch: which
	signed    bool      // clExt: sign extension
	direct    bool      // clCall: target is known
	dst, src  operand
	target    uint64 // clJump, clBranch, clCall
	clobber   uint32 // clOther and others: registers with unknown contents afterwards, by DWARF number
	reads     uint32 // registers whose value goes into something untracked
	moves     bool   // clOther: RSI and RDI walk upwards through memory (string instructions)
	storeSize uint32 // clOther: bytes written at dst.mem; unbounded for openStore
}

// openStore is the storeSize of a store of unknown extent (string
// instructions, XSAVE).
const openStore = 1 << 31

func (in *instr) next() uint64 { return in.addr + uint64(in.length) }

// hwToDWARF maps hardware register numbers to DWARF ones (psABI figure 3.36).
var hwToDWARF = [16]int8{
	target.RAX, target.RCX, target.RDX, target.RBX, target.RSP, target.RBP, target.RSI, target.RDI,
	target.R8, target.R9, target.R10, target.R11, target.R12, target.R13, target.R14, target.R15,
}

func bit(r int) uint32 { return 1 << uint(r) }

// errPanic marks a panic of x86asm that the guard caught.
var errPanic = errors.New("disassembler panicked")

// decodeGuarded calls x86asm; a panic in it becomes an error.
func decodeGuarded(b []byte) (in x86asm.Inst, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errPanic, r)
		}
	}()
	return x86asm.Decode(b, 64)
}

// decode decodes the instruction at the start of b, which lies at addr.
func decode(b []byte, addr uint64) (instr, error) {
	l, err := measure(b)
	if err != nil {
		return instr{}, fmt.Errorf("at %#x: %w", addr, err)
	}
	in := instr{addr: addr, length: uint8(l.length)}
	if isEndbr(l) {
		in.class = clNop
		return in, nil
	}
	x, err := decodeGuarded(b[:l.length])
	if err != nil || x.Op == 0 {
		return in.fallback(l)
	}
	if x.Len != l.length {
		return instr{}, fmt.Errorf("at %#x: %w: length is %d or %d", addr, ErrUndecodable, x.Len, l.length)
	}
	if err := in.classify(&x); err != nil {
		return instr{}, err
	}
	return in, nil
}

// isEndbr recognises ENDBR64 and ENDBR32, F3 0F 1E FA and FB, which x86asm
// reads as a lone prefix.
func isEndbr(l layout) bool {
	return !l.vex && l.opmap == map0F && l.opcode == 0x1e && l.rep == 0xf3 && (l.modrm == 0xfa || l.modrm == 0xfb)
}

// fallback gives an instruction that x86asm doesn't know a cautious meaning:
// every register that its encoding names, and the four that CPUID-like
// instructions write, are unknown afterwards, and a memory operand is a store
// of unknown extent. Instructions of the one-byte map and those that could
// leave the function are refused instead.
func (in instr) fallback(l layout) (instr, error) {
	if l.opmap == mapOne || !l.vex && l.opmap == map0F && (l.opcode < 0x10 || l.opcode >= 0x30 && l.opcode < 0x40 ||
		l.opcode >= 0x80 && l.opcode < 0x90 || l.opcode == 0xb9 || l.opcode == 0xff || l.opcode == 0xaa) {
		return instr{}, fmt.Errorf("at %#x: %w: opcode %#x of map %d", in.addr, ErrUndecodable, l.opcode, l.opmap)
	}
	in.class = clOther
	in.clobber = bit(target.RAX) | bit(target.RCX) | bit(target.RDX) | bit(target.RBX)
	if !l.hasModRM {
		return in, nil
	}
	reg, rm := l.modrm>>3&7, l.modrm&7
	if l.rexR {
		reg |= 8
	}
	if l.rexB {
		rm |= 8
	}
	in.clobber |= bit(int(hwToDWARF[reg]))
	if l.vex {
		in.clobber |= bit(int(hwToDWARF[l.vvvv]))
	}
	in.reads = in.clobber
	if l.modrm>>6 == 3 {
		in.clobber |= bit(int(hwToDWARF[rm]))
		in.reads = in.clobber
		return in, nil
	}
	// The address itself isn't worked out: it may be any slot of the frame.
	in.dst = operand{kind: opMem, mem: memory{base: target.RSP, index: vecReg, scale: 1}}
	in.storeSize = openStore
	return in, nil
}

// register turns an x86asm general register into number and size in bytes.
// high is set for AH, CH, DH and BH, which are bits 8 to 15 of their register.
func register(r x86asm.Reg) (n int8, size uint8, high, ok bool) {
	switch {
	case r >= x86asm.AL && r <= x86asm.BL:
		return hwToDWARF[r-x86asm.AL], 1, false, true
	case r >= x86asm.AH && r <= x86asm.BH:
		return hwToDWARF[r-x86asm.AH], 1, true, true
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return hwToDWARF[r-x86asm.SPB+4], 1, false, true
	case r >= x86asm.AX && r <= x86asm.R15W:
		return hwToDWARF[r-x86asm.AX], 2, false, true
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return hwToDWARF[r-x86asm.EAX], 4, false, true
	case r >= x86asm.RAX && r <= x86asm.R15:
		return hwToDWARF[r-x86asm.RAX], 8, false, true
	}
	return 0, 0, false, false
}

// operandOf translates operand i of x. Operands that aren't general registers,
// memory or immediates come back as opNone.
func (in *instr) operandOf(x *x86asm.Inst, i int) operand {
	switch a := x.Args[i].(type) {
	case x86asm.Reg:
		n, size, high, ok := register(a)
		if !ok {
			return operand{}
		}
		if high {
			size = 1
		}
		return operand{kind: opReg, reg: n, size: size}
	case x86asm.Imm:
		return operand{kind: opImm, imm: int64(a), size: 8}
	case x86asm.Mem:
		return operand{kind: opMem, size: memSize(x), mem: in.memoryOf(a)}
	}
	return operand{}
}

func memSize(x *x86asm.Inst) uint8 {
	if x.MemBytes > 0 && x.MemBytes <= 64 {
		return uint8(x.MemBytes)
	}
	return 0
}

func (in *instr) memoryOf(m x86asm.Mem) memory {
	// x86asm v0.32 zero-extends 32-bit displacements of legacy encodings; the
	// processor sign-extends all (SDM volume 2, section 2.2.1.3).
	disp := int64(int32(uint32(m.Disp)))
	out := memory{base: noReg, index: noReg, scale: m.Scale, disp: disp}
	out.segment = m.Segment == x86asm.FS || m.Segment == x86asm.GS
	if m.Base == x86asm.RIP || m.Base == x86asm.EIP {
		out.disp = int64(in.next()) + disp
	} else if n, size, _, ok := register(m.Base); ok {
		out.base = n
		if size != 8 { // 32-bit addressing: the sum is cut, so it isn't followed
			out.index = vecReg
			return out
		}
	}
	if m.Index != 0 {
		out.index = vecReg
		if n, size, _, ok := register(m.Index); ok && size == 8 {
			out.index = n
		}
	}
	return out
}

// condition codes and loops: everything that may jump.
var branches = map[x86asm.Op]bool{
	x86asm.JA: true, x86asm.JAE: true, x86asm.JB: true, x86asm.JBE: true, x86asm.JE: true, x86asm.JNE: true,
	x86asm.JG: true, x86asm.JGE: true, x86asm.JL: true, x86asm.JLE: true, x86asm.JO: true, x86asm.JNO: true,
	x86asm.JP: true, x86asm.JNP: true, x86asm.JS: true, x86asm.JNS: true, x86asm.JCXZ: true, x86asm.JECXZ: true,
	x86asm.JRCXZ: true, x86asm.LOOP: true, x86asm.LOOPE: true, x86asm.LOOPNE: true, x86asm.XBEGIN: true,
}

// plain maps operations to the classes whose operands are simply the first two.
var plain = map[x86asm.Op]class{
	x86asm.MOV: clMov, x86asm.LEA: clLea, x86asm.ADD: clAdd, x86asm.SUB: clSub, x86asm.AND: clAnd, x86asm.CMP: clCmp, x86asm.XCHG: clXchg,
	x86asm.MOVSXD: clExt, x86asm.MOVSX: clExt, x86asm.MOVZX: clExt,
	x86asm.CMOVA: clCmov, x86asm.CMOVAE: clCmov, x86asm.CMOVB: clCmov, x86asm.CMOVBE: clCmov, x86asm.CMOVE: clCmov,
	x86asm.CMOVG: clCmov, x86asm.CMOVGE: clCmov, x86asm.CMOVL: clCmov, x86asm.CMOVLE: clCmov, x86asm.CMOVNE: clCmov,
	x86asm.CMOVNO: clCmov, x86asm.CMOVNP: clCmov, x86asm.CMOVNS: clCmov, x86asm.CMOVO: clCmov, x86asm.CMOVP: clCmov, x86asm.CMOVS: clCmov,
}

// harmless operations change nothing that the analysis tracks.
var harmless = map[x86asm.Op]bool{
	x86asm.NOP: true, x86asm.PAUSE: true, x86asm.TEST: true, x86asm.BT: true, x86asm.LFENCE: true, x86asm.MFENCE: true,
	x86asm.SFENCE: true, x86asm.FWAIT: true, x86asm.EMMS: true, x86asm.CLD: true, x86asm.STD: true, x86asm.CLC: true,
	x86asm.STC: true, x86asm.CMC: true, x86asm.SAHF: true, x86asm.PREFETCHNTA: true, x86asm.PREFETCHT0: true,
	x86asm.PREFETCHT1: true, x86asm.PREFETCHT2: true, x86asm.PREFETCHW: true, x86asm.CLFLUSH: true, x86asm.LDMXCSR: true,
	x86asm.XEND: true, x86asm.XTEST: true, x86asm.XABORT: true, x86asm.FLDCW: true,
}

const (
	mRAX = 1 << target.RAX
	mRDX = 1 << target.RDX
	mRCX = 1 << target.RCX
	mRBX = 1 << target.RBX
	mRSI = 1 << target.RSI
	mRDI = 1 << target.RDI
	mR11 = 1 << target.R11
)

// implicit lists registers that operations write without naming them
// (SDM volume 2, the operations' own pages).
var implicit = map[x86asm.Op]uint32{
	x86asm.CBW: mRAX, x86asm.CWDE: mRAX, x86asm.CWD: mRDX, x86asm.CDQ: mRDX, x86asm.CQO: mRDX,
	x86asm.MUL: mRAX | mRDX, x86asm.DIV: mRAX | mRDX, x86asm.IDIV: mRAX | mRDX,
	x86asm.CPUID: mRAX | mRBX | mRCX | mRDX, x86asm.RDTSC: mRAX | mRDX, x86asm.RDTSCP: mRAX | mRDX | mRCX,
	x86asm.RDPMC: mRAX | mRDX, x86asm.RDMSR: mRAX | mRDX, x86asm.XGETBV: mRAX | mRDX,
	x86asm.CMPXCHG: mRAX, x86asm.CMPXCHG8B: mRAX | mRDX, x86asm.CMPXCHG16B: mRAX | mRDX,
	x86asm.LAHF: mRAX, x86asm.XLATB: mRAX, x86asm.FNSTSW: mRAX,
	x86asm.LODSB: mRAX | mRSI | mRCX, x86asm.LODSW: mRAX | mRSI | mRCX, x86asm.LODSD: mRAX | mRSI | mRCX, x86asm.LODSQ: mRAX | mRSI | mRCX,
	x86asm.SCASB: mRDI | mRCX, x86asm.SCASW: mRDI | mRCX, x86asm.SCASD: mRDI | mRCX, x86asm.SCASQ: mRDI | mRCX,
	x86asm.CMPSB: mRSI | mRDI | mRCX, x86asm.CMPSW: mRSI | mRDI | mRCX, x86asm.CMPSD: mRSI | mRDI | mRCX, x86asm.CMPSQ: mRSI | mRDI | mRCX,
	x86asm.STOSB: mRDI | mRCX, x86asm.STOSW: mRDI | mRCX, x86asm.STOSD: mRDI | mRCX, x86asm.STOSQ: mRDI | mRCX,
	x86asm.MOVSB: mRSI | mRDI | mRCX, x86asm.MOVSW: mRSI | mRDI | mRCX, x86asm.MOVSD: mRSI | mRDI | mRCX, x86asm.MOVSQ: mRSI | mRDI | mRCX,
	x86asm.PCMPESTRI: mRCX, x86asm.PCMPISTRI: mRCX, x86asm.VPCMPESTRI: mRCX, x86asm.VPCMPISTRI: mRCX,
}

// stringStores write at RDI without a bound that the analysis knows.
var stringStores = map[x86asm.Op]bool{
	x86asm.STOSB: true, x86asm.STOSW: true, x86asm.STOSD: true, x86asm.STOSQ: true,
	x86asm.MOVSB: true, x86asm.MOVSW: true, x86asm.MOVSD: true, x86asm.MOVSQ: true,
	x86asm.MASKMOVDQU: true, x86asm.MASKMOVQ: true, x86asm.VMASKMOVDQU: true,
}

// refused operations leave the function or the mode in ways that no compiler
// emits in a server.
var refused = map[x86asm.Op]bool{
	x86asm.LCALL: true, x86asm.LJMP: true, x86asm.LRET: true, x86asm.IRET: true, x86asm.IRETD: true, x86asm.IRETQ: true,
	x86asm.SYSENTER: true, x86asm.SYSEXIT: true, x86asm.SYSRET: true, x86asm.ENTER: true, x86asm.PUSHA: true,
	x86asm.PUSHAD: true, x86asm.POPA: true, x86asm.POPAD: true, x86asm.RSM: true, x86asm.LSS: true, x86asm.INTO: true,
}

// classify gives the instruction its meaning.
func (in *instr) classify(x *x86asm.Inst) error {
	if refused[x.Op] {
		return fmt.Errorf("at %#x: %w: %s", in.addr, ErrUndecodable, x.Op)
	}
	if branches[x.Op] {
		return in.classifyBranch(x, clBranch)
	}
	if harmless[x.Op] {
		in.class = clNop
		return nil
	}
	if c, ok := plain[x.Op]; ok {
		in.classifyPlain(x, c)
		return nil
	}
	switch x.Op {
	case x86asm.JMP, x86asm.CALL:
		return in.classifyJump(x)
	case x86asm.PUSH:
		in.class, in.src = clPush, in.operandOf(x, 0)
		in.src.size = pushSize(x)
	case x86asm.POP:
		in.class, in.dst = clPop, in.operandOf(x, 0)
		in.dst.size = pushSize(x)
	case x86asm.PUSHF, x86asm.PUSHFD, x86asm.PUSHFQ:
		in.class = clPush
		in.src.size = 8
	case x86asm.POPF, x86asm.POPFD, x86asm.POPFQ:
		in.class = clPop
		in.dst.size = 8
	case x86asm.LEAVE:
		in.class = clLeave
	case x86asm.RET:
		in.class = clReturn
	case x86asm.UD0, x86asm.UD1, x86asm.UD2, x86asm.HLT, x86asm.ICEBP:
		in.class = clStop
	case x86asm.INT:
		if imm, ok := x.Args[0].(x86asm.Imm); !ok || imm != 3 {
			return fmt.Errorf("at %#x: %w: %s", in.addr, ErrUndecodable, x.Op)
		}
		in.class = clStop
	case x86asm.SYSCALL:
		in.class, in.clobber = clSyscall, mRAX|mRCX|mR11 // SDM volume 2, SYSCALL: RCX and R11
	case x86asm.CDQE:
		in.class, in.signed = clExt, true
		in.dst = operand{kind: opReg, reg: target.RAX, size: 8}
		in.src = operand{kind: opReg, reg: target.RAX, size: 4}
	default:
		in.classifyOther(x)
	}
	return nil
}

// pushSize is 8 in 64-bit mode, 2 with an operand size prefix.
func pushSize(x *x86asm.Inst) uint8 {
	if x.DataSize == 16 {
		return 2
	}
	return 8
}

func (in *instr) classifyBranch(x *x86asm.Inst, c class) error {
	rel, ok := x.Args[0].(x86asm.Rel)
	if !ok {
		return fmt.Errorf("at %#x: %w: %s without a target", in.addr, ErrUndecodable, x.Op)
	}
	in.class, in.branch, in.target = c, x.Op, in.next()+uint64(int64(rel))
	switch x.Op {
	case x86asm.LOOP, x86asm.LOOPE, x86asm.LOOPNE:
		in.clobber = mRCX
	case x86asm.XBEGIN:
		in.clobber = mRAX // holds the abort status when the transaction was rolled back
	}
	return nil
}

func (in *instr) classifyJump(x *x86asm.Inst) error {
	direct, indirect := clJump, clJumpInd
	if x.Op == x86asm.CALL {
		direct, indirect = clCall, clCall
	}
	if _, ok := x.Args[0].(x86asm.Rel); ok {
		in.direct = true
		return in.classifyBranch(x, direct)
	}
	in.class, in.src = indirect, in.operandOf(x, 0)
	in.src.size = 8
	if in.src.kind != opReg && in.src.kind != opMem {
		return fmt.Errorf("at %#x: %w: %s without a target", in.addr, ErrUndecodable, x.Op)
	}
	return nil
}

func (in *instr) classifyPlain(x *x86asm.Inst, c class) {
	in.dst, in.src = in.operandOf(x, 0), in.operandOf(x, 1)
	switch c {
	case clExt:
		in.signed = x.Op != x86asm.MOVZX
		if in.dst.kind != opReg || in.src.kind == opNone {
			in.classifyOther(x)
			return
		}
	case clAnd, clAdd, clSub, clXchg, clCmov:
		if in.dst.kind != opReg || c == clXchg && in.src.kind != opReg {
			in.classifyOther(x)
			return
		}
		if c == clSub && in.src.kind == opReg && in.src.reg == in.dst.reg && in.dst.size >= 4 {
			in.setZero()
			return
		}
	case clMov:
		if in.dst.kind == opNone || in.src.kind == opNone { // segment, control or debug register
			in.classifyOther(x)
			return
		}
	}
	if highByte(x) {
		in.classifyOther(x) // AH and its like aren't the low byte that size 1 means
		return
	}
	in.class = c
}

// setZero makes the instruction load 0 into dst (XOR and SUB of a register
// with itself).
func (in *instr) setZero() {
	in.class, in.src = clMov, operand{kind: opImm, size: 8}
}

func highByte(x *x86asm.Inst) bool {
	for _, a := range x.Args {
		if r, ok := a.(x86asm.Reg); ok && r >= x86asm.AH && r <= x86asm.BH {
			return true
		}
	}
	return false
}

// classifyOther handles everything else: the first operand is written, and
// what the operation writes without naming it.
func (in *instr) classifyOther(x *x86asm.Inst) {
	in.class, in.dst, in.src = clOther, operand{}, operand{}
	first := in.operandOf(x, 0)
	in.clobber = implicit[x.Op]
	in.moves = in.clobber&(mRSI|mRDI) != 0
	var regs uint32
	for i := range x.Args {
		if o := in.operandOf(x, i); o.kind == opReg {
			regs |= bit(int(o.reg))
		}
	}
	in.reads = regs
	switch x.Op {
	case x86asm.XOR:
		if second := in.operandOf(x, 1); first.kind == opReg && second.kind == opReg && first.reg == second.reg && first.size >= 4 {
			in.dst = first
			in.reads = 0
			in.setZero()
			return
		}
	case x86asm.INC, x86asm.DEC:
		if first.kind == opReg && !highByte(x) {
			in.class, in.dst, in.src, in.reads = clAdd, first, operand{kind: opImm, imm: 1, size: 8}, 0
			if x.Op == x86asm.DEC {
				in.src.imm = -1
			}
			return
		}
	case x86asm.MUL, x86asm.DIV, x86asm.IDIV:
		return // the operand is only read
	case x86asm.IMUL:
		if x.Args[1] == nil {
			in.clobber |= mRAX | mRDX
			return
		}
	case x86asm.XADD, x86asm.XCHG, x86asm.MULX:
		in.clobber |= regs
	}
	switch {
	case stringStores[x.Op]:
		in.dst = operand{kind: opMem, mem: memory{base: target.RDI, index: noReg, scale: 1}}
		in.storeSize = openStore
	case first.kind == opReg:
		in.clobber |= bit(int(first.reg))
	case first.kind == opMem:
		in.dst, in.storeSize = first, storeSize(x)
		if second := in.operandOf(x, 1); bitStore(x.Op) && second.kind == opReg {
			in.dst.mem.index = vecReg // the bit offset moves the address
		}
	}
	// LOCK XADD and XCHG with memory first name the register second; the mask
	// above has it.
}

func bitStore(op x86asm.Op) bool {
	return op == x86asm.BTS || op == x86asm.BTR || op == x86asm.BTC
}

// storeSize is the number of bytes that a memory destination may cover.
func storeSize(x *x86asm.Inst) uint32 {
	if x.MemBytes > 0 {
		return uint32(x.MemBytes)
	}
	switch x.Op {
	case x86asm.INC, x86asm.DEC, x86asm.NEG, x86asm.NOT:
		return 8
	}
	return openStore
}
