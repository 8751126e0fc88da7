package target

// DWARF register numbers of x86-64 (System V psABI AMD64, figure 3.36), the
// numbering of Regs for AMD64.
const (
	RAX = iota
	RDX
	RCX
	RBX
	RSI
	RDI
	RBP
	RSP
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
	RIP // the return address column
)

// DWARF register numbers of AArch64 (DWARF for the Arm 64-bit Architecture,
// table 2): x0 to x30 are 0 to 30.
const (
	A64LR = 30
	A64SP = 31
	A64PC = 32
)

// DWARF register numbers of i386 (System V ABI, Intel386 supplement, figure
// "DWARF register number mapping": eax ecx edx ebx esp ebp esi edi eip).
const (
	I386SP = 4
	I386PC = 8
)

// MaxRegs bounds the register file: enough for the DWARF numbers of the
// general registers of every machine here.
const MaxRegs = 40

// Regs is a register file by DWARF number. A register that isn't known is a
// state of its own, not zero: Get says so.
type Regs struct {
	Arch  Arch
	known uint64
	v     [MaxRegs]uint64
}

// Get returns register n and whether it is known.
func (r *Regs) Get(n int) (uint64, bool) {
	if n < 0 || n >= MaxRegs || r.known&(1<<uint(n)) == 0 {
		return 0, false
	}
	return r.v[n], true
}

// Set makes register n known; a number outside the file is ignored.
func (r *Regs) Set(n int, v uint64) {
	if n < 0 || n >= MaxRegs {
		return
	}
	r.v[n] = v
	r.known |= 1 << uint(n)
}

// Forget makes register n unknown.
func (r *Regs) Forget(n int) {
	if n >= 0 && n < MaxRegs {
		r.known &^= 1 << uint(n)
		r.v[n] = 0
	}
}

// PCReg and SPReg return the DWARF numbers of program counter and stack
// pointer, -1 for an instruction set without a register table here.
func (a Arch) PCReg() int {
	switch a {
	case AMD64:
		return RIP
	case ARM64:
		return A64PC
	case I386:
		return I386PC
	}
	return -1
}

// SPReg returns the DWARF number of the stack pointer; see PCReg.
func (a Arch) SPReg() int {
	switch a {
	case AMD64:
		return RSP
	case ARM64:
		return A64SP
	case I386:
		return I386SP
	}
	return -1
}

// PC returns the program counter.
func (r *Regs) PC() (Addr, bool) { v, ok := r.Get(r.Arch.PCReg()); return Addr(v), ok }

// SP returns the stack pointer.
func (r *Regs) SP() (Addr, bool) { v, ok := r.Get(r.Arch.SPReg()); return Addr(v), ok }
