package elfcore

import (
	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// syscallArgs are the argument registers of a system call, in order, by DWARF
// number (x86-64 psABI, A.2.1; AArch64: x0 to x5).
var syscallArgs = map[target.Arch][6]int{
	target.AMD64: {target.RDI, target.RSI, target.RDX, target.R10, target.R8, target.R9},
	target.ARM64: {0, 1, 2, 3, 4, 5},
}

// KernelView returns what the notes say about each thread as the kernel's view
// of the process: system call with arguments, stack pointer, program counter,
// signal masks, name. A Linux core has no wait channel, run state or open
// files: those stay absent, to be joined from a copied /proc tree. On AArch64
// the first argument register is the call's result once it has one.
//
// A FreeBSD core has the open files, and per thread the kernel's record: wait
// message and state. Kernel cores lose the message of each thread whose sleep
// a signal could break, so an absent one means "not recorded". The system call
// is there where SyscallState knows it, which of a view with the mapped files
// behind it (WithBacking) is more often.
func (p *Process) KernelView() *kernelview.Process {
	v := &kernelview.Process{
		PID: p.info.PID, PPID: p.info.PPID, Name: p.info.Command,
		Threads: make(map[int]*kernelview.Thread, len(p.threads)),
	}
	for _, t := range p.threads {
		if v.Threads[t.LWP] != nil {
			continue // a second thread of the same id: the first counts, as in Thread
		}
		v.Threads[t.LWP] = p.kernelThread(t)
	}
	if p.freebsd != nil {
		p.fillFreeBSDProcess(v)
	}
	return v
}

func (p *Process) kernelThread(t *Thread) *kernelview.Thread {
	k := &kernelview.Thread{LWP: t.LWP, Name: t.Name, SigBlocked: t.SigBlocked, SigPending: t.SigPending}
	if sp, ok := t.Regs.SP(); ok {
		k.SP = target.Known(sp, target.SourceRegisters)
	}
	if pc, ok := t.Regs.PC(); ok {
		k.PC = target.Known(pc, target.SourceRegisters)
	}
	if p.freebsd != nil {
		p.fillFreeBSD(k)
		if call, ok := p.SyscallState(t); ok && call.Number.Known && call.State.Blocked() {
			k.Syscall = target.Known(kernelview.Syscall{Number: call.Number.V, Args: call.Args}, call.Number.Source)
		}
		return k
	}
	regs, ok := syscallArgs[p.info.Arch]
	if !ok || !t.OrigSyscall.Known {
		return k
	}
	call := kernelview.Syscall{Number: t.OrigSyscall.V}
	for i, r := range regs {
		v, ok := t.Regs.Get(r)
		if !ok {
			return k
		}
		call.Args[i] = v
	}
	k.Syscall = target.Known(call, t.OrigSyscall.Source)
	return k
}
