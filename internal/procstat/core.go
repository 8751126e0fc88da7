package procstat

import (
	"mycore/elfcore"
	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// amd64Args are the registers of a Linux system call's arguments on x86-64, in
// order (System V psABI AMD64, A.2.1).
var amd64Args = [6]int{target.RDI, target.RSI, target.RDX, target.R10, target.R8, target.R9}

// FromCore gives the kernel's view that a Linux core's own notes hold: system
// call, signal masks, stack pointer and program counter of each thread. Wait
// channels and thread names aren't in them. The system call is told on x86-64
// only: elsewhere the first argument's register holds the result already.
func FromCore(core *elfcore.Process) *kernelview.Process {
	info := core.Info()
	p := &kernelview.Process{PID: info.PID, PPID: info.PPID, Name: info.Command,
		Threads: make(map[int]*kernelview.Thread, len(core.Threads()))}
	for _, ct := range core.Threads() {
		t := &kernelview.Thread{LWP: ct.LWP, Name: ct.Name, SigBlocked: ct.SigBlocked, SigPending: ct.SigPending}
		if sp, ok := ct.Regs.SP(); ok {
			t.SP = target.Known(sp, target.SourceRegisters)
		}
		if pc, ok := ct.Regs.PC(); ok {
			t.PC = target.Known(pc, target.SourceRegisters)
		}
		if ct.OrigSyscall.Known && info.Arch == target.AMD64 {
			if call, ok := callOf(ct); ok {
				t.Syscall = target.Known(call, ct.OrigSyscall.Source)
			}
		}
		p.Threads[ct.LWP] = t
	}
	return p
}

func callOf(ct *elfcore.Thread) (kernelview.Syscall, bool) {
	call := kernelview.Syscall{Number: ct.OrigSyscall.V}
	for i, reg := range amd64Args {
		v, ok := ct.Regs.Get(reg)
		if !ok {
			return kernelview.Syscall{}, false
		}
		call.Args[i] = v
	}
	return call, true
}
