package story

import "encoding/binary"

var le = binary.LittleEndian

// reg is a general register by its number in x86-64 instructions.
type reg int

const (
	rax reg = iota
	rcx
	rdx
	rbx
	rsp
	rbp
	rsi
	rdi
	r8
	r9
	r10
	r11
	r12
	r13
	r14
	r15
)

// dwarfReg is the DWARF number (System V psABI AMD64, figure 3.36).
var dwarfReg = [16]int{0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15}

// fn is one function: its code, its call frame instructions, and what each of
// its instructions does, so that stacks can be made by running it.
type fn struct {
	name     string
	aliases  []string // weak names of the same address
	local    bool     // not exported: only .symtab has it, if there is one
	noCFI    bool     // hand-written assembler without call frame information
	cover    string   // st_size reaches to the end of this function
	sizeless bool     // st_size is 0
	code     []byte
	cfi      []byte
	ops      []op
	refs     []ref

	cfiAt  int  // code offset that the call frame program has reached
	onRBP  bool // CFA is rbp + 16, else rsp + depth
	depth  int  // bytes from the CFA down to rsp
	saved  []reg
	local0 int // bytes of locals below the saved registers

	image *image
	off   uint64 // offset in .text
}

// op is one instruction.
type op struct {
	at, end int
	do      func(*machine)
	call    string // direct call of this function
	ind     bool   // call through memory
	sys     bool
}

// ref is a 32-bit pc-relative reference to be filled in by the linker.
type ref struct {
	at  int
	to  string
	plt bool
}

func newFn(name string) *fn { return &fn{name: name, depth: 8} }

// emit adds an instruction.
func (f *fn) emit(do func(*machine), b ...byte) {
	at := len(f.code)
	f.code = append(f.code, b...)
	f.ops = append(f.ops, op{at: at, end: len(f.code), do: do})
}

func rexB(w bool, r, b reg) byte {
	x := byte(0x40)
	if w {
		x |= 8
	}
	if r >= 8 {
		x |= 4
	}
	if b >= 8 {
		x |= 1
	}
	return x
}

// rr emits opcode reg, rm between two registers.
func (f *fn) rr(wide bool, opcode byte, r, rm reg, do func(*machine)) {
	var b []byte
	if x := rexB(wide, r, rm); x != 0x40 {
		b = append(b, x)
	}
	f.emit(do, append(b, opcode, 0xc0|byte(r&7)<<3|byte(rm&7))...)
}

// rm emits opcode reg, disp32(base).
func (f *fn) rm(opcode byte, r, base reg, disp int32, do func(*machine)) {
	b := []byte{rexB(true, r, base), opcode, 0x80 | byte(r&7)<<3 | byte(base&7)}
	if base&7 == rsp {
		b = append(b, 0x24)
	}
	f.emit(do, le.AppendUint32(b, uint32(disp))...)
}

func (f *fn) mov(dst, src reg) {
	f.rr(true, 0x89, src, dst, func(m *machine) { m.r[dst] = m.r[src] })
}

func (f *fn) mov32(dst, src reg) {
	f.rr(false, 0x89, src, dst, func(m *machine) { m.r[dst] = m.r[src] & 0xffffffff })
}

func (f *fn) imm(dst reg, v uint32) {
	var b []byte
	if dst >= 8 {
		b = append(b, 0x41)
	}
	f.emit(func(m *machine) { m.r[dst] = uint64(v) }, le.AppendUint32(append(b, 0xb8|byte(dst&7)), v)...)
}

// immSigned is mov $imm32, %r64, which the older stubs use for the number.
func (f *fn) immSigned(dst reg, v int32) {
	f.emit(func(m *machine) { m.r[dst] = uint64(int64(v)) },
		le.AppendUint32([]byte{rexB(true, 0, dst), 0xc7, 0xc0 | byte(dst&7)}, uint32(v))...)
}

func (f *fn) zero(dst reg) {
	f.rr(false, 0x31, dst, dst, func(m *machine) { m.r[dst] = 0 })
}

func (f *fn) load(dst, base reg, disp int32) {
	f.rm(0x8b, dst, base, disp, func(m *machine) { m.r[dst] = m.mem.word(m.r[base] + uint64(int64(disp))) })
}

func (f *fn) store(base reg, disp int32, src reg) {
	f.rm(0x89, src, base, disp, func(m *machine) { m.mem.putWord(m.r[base]+uint64(int64(disp)), m.r[src]) })
}

func (f *fn) lea(dst, base reg, disp int32) {
	f.rm(0x8d, dst, base, disp, func(m *machine) { m.r[dst] = m.r[base] + uint64(int64(disp)) })
}

// self loads the calling thread's struct pthread: mov %fs:0x10, dst. The TCB's
// third word is tcb_thread (libthr/arch/amd64/include/pthread_md.h).
func (f *fn) self(dst reg) {
	b := []byte{0x64, rexB(true, dst, 0), 0x8b, 0x04 | byte(dst&7)<<3, 0x25, 0x10, 0, 0, 0}
	f.emit(func(m *machine) { m.r[dst] = m.mem.word(m.fsbase + 0x10) }, b...)
}

// loadGlobal32 is mov sym(%rip), %r32.
func (f *fn) loadGlobal32(dst reg, sym string, value uint32) {
	f.emit(func(m *machine) { m.r[dst] = uint64(value) }, 0x8b, 0x05|byte(dst&7)<<3, 0, 0, 0, 0)
	f.refs = append(f.refs, ref{at: len(f.code) - 4, to: sym})
}

func (f *fn) call(to string) {
	f.emit(nil, 0xe8, 0, 0, 0, 0)
	f.ops[len(f.ops)-1].call = to
	f.refs = append(f.refs, ref{at: len(f.code) - 4, to: to, plt: true})
}

// callMem is call *disp(base).
func (f *fn) callMem(base reg, disp int32) {
	f.emit(nil, le.AppendUint32([]byte{0xff, 0x90 | byte(base&7)}, uint32(disp))...)
	f.ops[len(f.ops)-1].ind = true
}

func (f *fn) syscall() {
	f.emit(nil, 0x0f, 0x05)
	f.ops[len(f.ops)-1].sys = true
}

func (f *fn) ret() { f.emit(nil, 0xc3) }
func (f *fn) ud2() { f.emit(nil, 0x0f, 0x0b) }

// skipIfZero is test r, r; je over the next n bytes: the run never takes it.
func (f *fn) skipIfZero(r reg, n byte) {
	f.rr(true, 0x85, r, r, nil)
	f.emit(nil, 0x74, n)
}

// enter is the prologue: frame pointer or not, saved registers, locals.
func (f *fn) enter(frame bool, locals int, saves ...reg) {
	if frame {
		f.push(rbp, true)
		f.emit(func(m *machine) { m.r[rbp] = m.r[rsp] }, 0x48, 0x89, 0xe5)
		f.onRBP = true
		f.cfiOp(0x0d, uleb(uint64(dwarfReg[rbp]))...) // DW_CFA_def_cfa_register
	}
	for _, r := range saves {
		f.push(r, true)
	}
	if (f.depth+locals)%16 != 0 {
		locals += 8 // calls want an aligned stack
	}
	f.saved = saves
	f.local0 = locals
	if locals == 8 {
		f.push(rax, false)
	} else if locals > 0 {
		f.subRSP(locals)
	}
}

func (f *fn) push(r reg, save bool) {
	var b []byte
	if r >= 8 {
		b = append(b, 0x41)
	}
	f.emit(func(m *machine) { m.push(m.r[r]) }, append(b, 0x50|byte(r&7))...)
	f.depth += 8
	if !f.onRBP {
		f.cfiOp(0x0e, uleb(uint64(f.depth))...) // DW_CFA_def_cfa_offset
	}
	if save {
		f.cfiOp(0x80|byte(dwarfReg[r]), uleb(uint64(f.depth/8))...) // DW_CFA_offset
	}
}

func (f *fn) subRSP(n int) {
	f.emit(func(m *machine) { m.r[rsp] -= uint64(n) }, le.AppendUint32([]byte{0x48, 0x81, 0xec}, uint32(n))...)
	f.depth += n
	if !f.onRBP {
		f.cfiOp(0x0e, uleb(uint64(f.depth))...)
	}
}

// leave is the epilogue that undoes enter, and the return.
func (f *fn) leave() {
	if f.local0 > 0 {
		f.emit(nil, le.AppendUint32([]byte{0x48, 0x81, 0xc4}, uint32(f.local0))...)
		f.popped(f.local0)
	}
	for i := len(f.saved) - 1; i >= 0; i-- {
		f.pop(f.saved[i])
	}
	if f.onRBP {
		f.emit(nil, 0x5d)
		f.onRBP = false
		f.depth = 8
		f.cfiOp(0x0c, 7, 8) // DW_CFA_def_cfa rsp, 8
	}
	f.ret()
}

func (f *fn) pop(r reg) {
	var b []byte
	if r >= 8 {
		b = append(b, 0x41)
	}
	f.emit(nil, append(b, 0x58|byte(r&7))...)
	f.popped(8)
}

func (f *fn) popped(n int) {
	f.depth -= n
	if !f.onRBP {
		f.cfiOp(0x0e, uleb(uint64(f.depth))...)
	}
}

// cfiOp adds a call frame instruction that holds from here on.
func (f *fn) cfiOp(opcode byte, args ...byte) {
	for d := len(f.code) - f.cfiAt; d > 0; {
		n := min(d, 0x3f)
		f.cfi = append(f.cfi, 0x40|byte(n)) // DW_CFA_advance_loc
		d -= n
	}
	f.cfiAt = len(f.code)
	f.cfi = append(append(f.cfi, opcode), args...)
}

func uleb(v uint64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// stub is a system call stub (lib/libc/amd64/SYS.h, 10.4): number to eax,
// fourth argument to r10. Up to 9 the number came by mov $nr, %rax.
func stub(name string, nr uint32, aliases ...string) *fn {
	f := newFn(name)
	f.aliases = aliases
	f.imm(rax, nr)
	f.finishStub()
	return f
}

// finishStub is KERNCALL and the way to cerror.
func (f *fn) finishStub() {
	f.emit(func(m *machine) { m.r[r10] = m.r[rcx] }, 0x49, 0x89, 0xca)
	f.syscall()
	f.emit(nil, 0x0f, 0x82, 0, 0, 0, 0) // jb cerror
	f.refs = append(f.refs, ref{at: len(f.code) - 4, to: ".cerror", plt: true})
	f.ret()
}
