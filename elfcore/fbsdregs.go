package elfcore

import (
	"encoding/binary"

	"mycore/internal/target"
)

// fbsdLayout is where the fields of FreeBSD's per-thread notes lie on one
// machine: struct prstatus and prpsinfo of sys/sys/procfs.h, struct
// ptrace_lwpinfo of sys/sys/ptrace.h (FreeBSD 10.4, 12.1 and main; sizes
// measured on cores of 13 and 14).
type fbsdLayout struct {
	full     bool // stacks of this machine are read, not just threads
	word     int  // bytes of a pointer
	prstatus int  // size of struct prstatus; less than that is damage
	gregs    int  // pr_gregsetsz
	// Offsets in struct prstatus.
	statussz, gregsetsz, osrel, cursig, pid, reg int
	psinfo                                       fbsdPsinfo
	lwpinfo                                      fbsdLwpinfo
	kinfo                                        int // size of struct kinfo_proc (KINFO_PROC_SIZE, sys/sys/user.h)
	regs                                         func(t *Thread, b []byte)
}

// fbsdPsinfo is struct prpsinfo: pr_fname has 17 bytes, pr_psargs 81.
type fbsdPsinfo struct{ size, fname, args, pid int }

// fbsdLwpinfo is struct ptrace_lwpinfo. pl_lwpid is at 0, pl_flags at 8 in all.
type fbsdLwpinfo struct{ size, sigmask, siglist, siginfo, siAddr int }

// Sizes of text fields: MAXCOMLEN+1 of sys/sys/param.h is 20 in the notes of
// a thread's name; PRFNAMESZ 16 and PRARGSZ 80 of sys/sys/procfs.h.
const (
	fbsdNameLen  = 20
	fbsdFnameLen = 17
	fbsdArgsLen  = 81
)

var (
	fbsdPsinfo64  = fbsdPsinfo{size: 120, fname: 16, args: 33, pid: 116}
	fbsdPsinfo32  = fbsdPsinfo{size: 112, fname: 8, args: 25, pid: 108}
	fbsdLwpinfo64 = fbsdLwpinfo{size: 160, sigmask: 12, siglist: 28, siginfo: 48, siAddr: 24}
	fbsdLwpinfo32 = fbsdLwpinfo{size: 140, sigmask: 12, siglist: 28, siginfo: 44, siAddr: 24}
)

func fbsd64(gregs int, full bool, regs func(*Thread, []byte)) *fbsdLayout {
	return &fbsdLayout{
		full: full, word: 8, prstatus: 48 + gregs, gregs: gregs,
		statussz: 8, gregsetsz: 16, osrel: 32, cursig: 36, pid: 40, reg: 48,
		psinfo: fbsdPsinfo64, lwpinfo: fbsdLwpinfo64, kinfo: kinfoProcSize, regs: regs,
	}
}

func fbsd32(gregs int, regs func(*Thread, []byte)) *fbsdLayout {
	return &fbsdLayout{
		word: 4, prstatus: 28 + gregs, gregs: gregs,
		statussz: 4, gregsetsz: 8, osrel: 16, cursig: 20, pid: 24, reg: 28,
		psinfo: fbsdPsinfo32, lwpinfo: fbsdLwpinfo32, kinfo: kinfoProcSize32, regs: regs,
	}
}

// maxFbsdPrstatus is the largest struct prstatus that is read: AArch64's.
const maxFbsdPrstatus = 320

// fbsdLayouts: the register sets are struct reg of sys/amd64, sys/arm64 and
// sys/i386 include/reg.h. Of machines without an entry's regs only the threads'
// ids are read.
var fbsdLayouts = map[target.Arch]*fbsdLayout{
	target.AMD64:   fbsd64(176, true, fbsdRegsAMD64),
	target.ARM64:   fbsd64(272, true, fbsdRegsARM64),
	target.RISCV64: fbsd64(0, false, nil),
	target.PPC64:   fbsd64(0, false, nil),
	target.I386:    fbsd32(76, fbsdRegsI386),
	target.ARM:     fbsd32(0, nil),
}

// fbsdAMD64Order is the order of the first 15 words of struct reg (sys/x86/
// include/reg.h, struct __reg64) in DWARF numbers.
var fbsdAMD64Order = [...]int{
	target.R15, target.R14, target.R13, target.R12, target.R11, target.R10,
	target.R9, target.R8, target.RDI, target.RSI, target.RBP, target.RBX,
	target.RDX, target.RCX, target.RAX,
}

// fbsdRegsAMD64 reads struct __reg64: the words above, then trapno (u32 at
// 120), selectors and err up to 136, rip 136, cs 144, rflags 152, rsp 160.
//
// For a thread in a system call rcx, r10 and r11 aren't the program's; see
// Process.SyscallState.
func fbsdRegsAMD64(t *Thread, b []byte) {
	w := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	for i, r := range fbsdAMD64Order {
		t.Regs.Set(r, w(8*i))
	}
	t.Regs.Set(target.RIP, w(136))
	t.Regs.Set(target.RSP, w(160))
	t.Flags = target.Known(w(152), target.SourceRegisters)
}

// fbsdRegsARM64 reads struct reg of sys/arm64/include/reg.h: x0 to x29, lr 240,
// sp 248, elr 256, spsr (u32) 264.
func fbsdRegsARM64(t *Thread, b []byte) {
	w := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	for i := range 30 {
		t.Regs.Set(i, w(8*i))
	}
	t.Regs.Set(target.A64LR, w(240))
	t.Regs.Set(target.A64SP, w(248))
	t.Regs.Set(target.A64PC, w(256))
	t.Flags = target.Known(uint64(binary.LittleEndian.Uint32(b[264:])), target.SourceRegisters)
}

// fbsdRegsI386 reads struct __reg32 of sys/x86/include/reg.h: fs es ds edi esi
// ebp isp ebx edx ecx eax trapno err eip cs eflags esp ss gs, four bytes each.
func fbsdRegsI386(t *Thread, b []byte) {
	w := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(b[4*i:])) }
	// By DWARF number: eax ecx edx ebx esp ebp esi edi eip.
	for reg, i := range [...]int{10, 9, 8, 7, 16, 5, 4, 3, 13} {
		t.Regs.Set(reg, w(i))
	}
	t.Flags = target.Known(w(15), target.SourceRegisters)
}
