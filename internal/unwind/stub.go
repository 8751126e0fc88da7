package unwind

import (
	"bytes"

	"mycore/internal/target"
)

// syscallStub is the innermost part of a system call's stub on x86-64: the
// fourth argument goes where the kernel wants it, and the kernel is entered.
// FreeBSD's libc and libthr (lib/libc/amd64/SYS.h, 10.4) have no call frame
// information for their stubs.
var syscallStub = []byte{0x49, 0x89, 0xca, 0x0f, 0x05} // mov %rcx,%r10; syscall

// stubNumbers are the ways to load the number in front of it.
var stubNumbers = []struct {
	op  []byte
	len int // with the 32-bit number
}{
	{[]byte{0xb8}, 5},             // mov $n,%eax
	{[]byte{0x48, 0xc7, 0xc0}, 7}, // mov $n,%rax
}

// stubCode bounds what is read in front of the program counter.
const stubCode = 7 + 5

// byStub steps out of a thread's innermost frame when that is a system call
// stub without call frame information: it has pushed nothing and changed no
// register that a call preserves. That is proved by its code, so the frame
// counts as one found by call frame information.
func (w *walker) byStub() bool {
	pc, _ := w.regs.PC()
	sp, ok := w.regs.SP()
	if !ok || !w.u.inStub(pc) {
		return false
	}
	ret, err := w.stack.word(sp)
	if err != nil || !w.u.space.executable(target.Addr(ret)) {
		return false
	}
	w.next = target.Regs{Arch: w.regs.Arch}
	for _, n := range []int{target.RBX, target.RBP, target.R12, target.R13, target.R14, target.R15} {
		if v, ok := w.regs.Get(n); ok {
			w.next.Set(n, v)
		}
	}
	w.next.Set(target.RIP, ret)
	w.next.Set(target.RSP, uint64(sp)+8)
	w.eval.CFA, w.eval.HasCFA = uint64(sp)+8, true
	return true
}

// inStub says whether pc is on or right behind a stub's syscall instruction.
func (u *Unwinder) inStub(pc target.Addr) bool {
	const insn = 2 // of syscall
	for _, end := range []target.Addr{pc, pc + insn} {
		if end < stubCode || end < pc {
			continue
		}
		var code [stubCode]byte
		if _, err := u.mem.ReadMemory(end-stubCode, code[:]); err != nil {
			continue
		}
		head, ok := bytes.CutSuffix(code[:], syscallStub)
		if !ok {
			continue
		}
		for _, n := range stubNumbers {
			if len(head) >= n.len && bytes.HasPrefix(head[len(head)-n.len:], n.op) {
				return true
			}
		}
	}
	return false
}
