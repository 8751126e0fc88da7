package unwind

import (
	"bytes"

	"mycore/internal/target"
)

// The two ways to write the code that a signal handler returns to, system call
// 15, rt_sigreturn: as musl (src/signal/x86_64/restore.s) and glibc do, and the
// shorter form that compilers make of it. musl has no call frame information
// for it.
var (
	trampolineLong  = []byte{0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05} // mov $15,%rax; syscall
	trampolineShort = []byte{0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05}             // mov $15,%eax; syscall
)

// trampoline says whether the code at pc returns from a signal handler.
func (u *Unwinder) trampoline(pc target.Addr) bool {
	b := make([]byte, len(trampolineLong))
	n, _ := u.mem.ReadMemory(pc, b)
	b = b[:max(n, 0)]
	return bytes.HasPrefix(b, trampolineLong) || bytes.HasPrefix(b, trampolineShort)
}

// sigcontext is where the kernel saves registers, as distances from the stack
// pointer after the handler's return: struct ucontext with its sigcontext at 40
// (Linux arch/x86/include/uapi/asm/sigcontext.h, struct sigcontext_64).
var sigcontext = [general]target.Addr{
	target.R8: 40, target.R9: 48, target.R10: 56, target.R11: 64, target.R12: 72, target.R13: 80, target.R14: 88, target.R15: 96,
	target.RDI: 104, target.RSI: 112, target.RBP: 120, target.RBX: 128, target.RDX: 136, target.RAX: 144, target.RCX: 152,
	target.RSP: 160, target.RIP: 168,
}

// bySignalContext takes all registers of the interrupted frame from the
// kernel's record.
func (w *walker) bySignalContext() bool {
	sp, ok := w.regs.SP()
	if !ok {
		return false
	}
	w.next = target.Regs{Arch: w.regs.Arch}
	for n, off := range sigcontext {
		v, err := w.stack.word(sp + off)
		if err != nil {
			return false
		}
		w.next.Set(n, v)
	}
	to, _ := w.next.SP()
	w.eval.CFA, w.eval.HasCFA = uint64(to), true
	return true
}
