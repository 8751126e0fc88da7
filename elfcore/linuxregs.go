package elfcore

import (
	"encoding/binary"

	"mycore/internal/target"
)

// linuxLayout is where the fields of the notes lie on one machine.
type linuxLayout struct {
	full     bool // registers are read
	prstatus int  // size of struct elf_prstatus
	pid      int  // offset of pr_pid; pr_ppid, pr_pgrp and pr_sid follow
	reg      int  // offset of pr_reg
	wordSize int  // of the two signal masks at offset 16
	psinfo   psinfoLayout
	regs     func(t *Thread, b []byte) // decodes pr_reg
}

// psinfoLayout is struct elf_prpsinfo (include/linux/elfcore.h).
type psinfoLayout struct {
	size, uid, pid, fname int
	wideUID               bool // 32-bit uid and gid
}

// maxPrstatus is the largest struct elf_prstatus of the table below.
const maxPrstatus = 392

// mask reads pr_sigpend (0) or pr_sighold (1).
func (l *linuxLayout) mask(b []byte, n int) uint64 { return word(b[16+n*l.wordSize:], l.wordSize) }

var (
	psinfo64 = psinfoLayout{size: 136, uid: 16, pid: 24, fname: 40, wideUID: true}
	psinfo32 = psinfoLayout{size: 124, uid: 8, pid: 12, fname: 28}
)

// linuxLayouts: struct elf_prstatus of include/linux/elfcore.h with the
// elf_gregset_t of each machine. 64-bit: pr_info 0, pr_cursig 12, pr_sigpend 16,
// pr_sighold 24, pr_pid 32, four timevals from 48, pr_reg 112. 32-bit: masks 16
// and 20, pr_pid 24, timevals from 40, pr_reg 72.
var linuxLayouts = map[target.Arch]*linuxLayout{
	target.AMD64:   {full: true, prstatus: 336, pid: 32, reg: 112, wordSize: 8, psinfo: psinfo64, regs: regsAMD64},
	target.ARM64:   {full: true, prstatus: 392, pid: 32, reg: 112, wordSize: 8, psinfo: psinfo64, regs: regsARM64},
	target.RISCV64: {prstatus: 376, pid: 32, reg: 112, wordSize: 8, psinfo: psinfo64},
	target.I386:    {prstatus: 144, pid: 24, reg: 72, wordSize: 4, psinfo: psinfo32},
	target.ARM:     {prstatus: 148, pid: 24, reg: 72, wordSize: 4, psinfo: psinfo32},
}

// amd64Order is the order of struct user_regs_struct (arch/x86/include/asm/
// user_64.h) in DWARF numbers; -1 for words that have none.
var amd64Order = [...]int{
	target.R15, target.R14, target.R13, target.R12, target.RBP, target.RBX,
	target.R11, target.R10, target.R9, target.R8, target.RAX, target.RCX,
	target.RDX, target.RSI, target.RDI, -1 /* orig_rax */, target.RIP, -1, /* cs */
	-1 /* eflags */, target.RSP,
}

// Word numbers in struct user_regs_struct.
const (
	amd64OrigRAX = 15
	amd64Flags   = 18
	amd64FSBase  = 21
)

func regsAMD64(t *Thread, b []byte) {
	w := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	t.Regs.Arch = target.AMD64
	for i, r := range amd64Order {
		if r >= 0 {
			t.Regs.Set(r, w(i))
		}
	}
	t.Flags = target.Known(w(amd64Flags), target.SourceRegisters)
	// A thread with thread-local storage has a base; 0 says that the kernel
	// kept it in a descriptor (old kernels do, for addresses below 4 GiB).
	if base := w(amd64FSBase); base != 0 {
		t.ThreadPointer = target.Known(target.Addr(base), target.SourceRegisters)
	}
	// orig_rax is negative outside a call: -1, or on older kernels the
	// complement of an interrupt's vector.
	if nr := int64(w(amd64OrigRAX)); nr >= 0 {
		t.OrigSyscall = target.Known(nr, target.SourceRegisters)
	}
}

// regsARM64 reads struct user_pt_regs (arch/arm64/include/uapi/asm/ptrace.h):
// x0 to x30, sp, pc, pstate. The call number is in a note of its own.
func regsARM64(t *Thread, b []byte) {
	w := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	t.Regs.Arch = target.ARM64
	for i := range 31 {
		t.Regs.Set(i, w(i))
	}
	t.Regs.Set(target.A64SP, w(31))
	t.Regs.Set(target.A64PC, w(32))
	t.Flags = target.Known(w(33), target.SourceRegisters)
}
