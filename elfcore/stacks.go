package elfcore

import (
	"fmt"

	"mycore/internal/target"
)

// StackCheck is the result of ZeroStacks.
type StackCheck struct {
	Checked int // threads whose stack memory at the stack pointer is in the core
	Zero    int // those of them where it is all zeros
	Absent  int // threads whose stack pointer leads to memory that the core lacks
	// NotDumped are those of them whose stack is mapped and was left out of
	// the core: the rest are cut off or have no good stack pointer.
	NotDumped int
	Threads   int // threads that were looked at
	// Lost says that this is no accident: the stacks weren't saved, and
	// unwinding what stands there gives nonsense.
	Lost bool
}

const (
	// stackProbe is how much above the stack pointer is looked at. A blocked
	// thread stands in a system call wrapper, whose return address lies within a
	// few words; only a function with a zeroed array of this size on top of
	// its frame looks the same.
	stackProbe = 512
	// stackSample bounds the threads that are looked at: evenly spread.
	stackSample = 1024
)

// ZeroStacks checks whether the core has zeros in place of the threads'
// stacks. gdb's gcore writes such cores: it reads a mapping in pieces of 1 MiB
// and, where one page can't be read, leaves the rest of the mapping zero; with
// glibc 2.42 and newer on kernels with guard regions (6.13 and newer) all
// thread stacks lie in one mapping with unreadable guard pages in it.
func (p *Process) ZeroStacks() StackCheck {
	p.stackOnce.Do(func() { p.stacks = (&Process{core: p.core}).checkStacks() })
	return p.stacks
}

func (p *Process) checkStacks() StackCheck {
	var s StackCheck
	step := max(1, (len(p.threads)+stackSample-1)/stackSample)
	for i := 0; i < len(p.threads); i += step {
		s.Threads++
		zero, ok := p.stackZero(p.threads[i])
		switch {
		case !ok:
			s.Absent++
			if p.stackNotDumped(p.threads[i]) {
				s.NotDumped++
			}
		case zero:
			s.Zero++
			s.Checked++
		default:
			s.Checked++
		}
	}
	s.Lost = s.Zero >= 2 && 4*s.Zero >= s.Checked
	return s
}

// stackZero reports whether the memory at the thread's stack pointer is zero;
// ok is false when it can't be read.
func (p *Process) stackZero(t *Thread) (zero, ok bool) {
	sp, known := t.Regs.SP()
	if !known {
		return false, false
	}
	var b [stackProbe]byte
	n, _ := p.ReadMemory(sp, b[:]) // a stack may end within the probe
	for _, v := range b[:n] {
		if v != 0 {
			return false, true
		}
	}
	return true, n >= 8
}

func (p *Process) stackNotDumped(t *Thread) bool {
	sp, known := t.Regs.SP()
	if !known {
		return false
	}
	where, _ := p.What(sp)
	return where == NotDumped
}

// noMemory says that the core was written without the stacks: those of a
// quarter of the threads aren't missing by chance.
func (s StackCheck) noMemory() bool { return s.NotDumped > 0 && 4*s.NotDumped >= s.Threads }

func (s StackCheck) noMemoryWarning() target.Warning {
	return target.Warning{Code: WarnNoStackMemory, Text: fmt.Sprintf(
		"the stacks of %d of %d threads were left out of this core (coredump_filter without bit 0, or a tool's option). Registers are still good: the function at the top of each stack, the system call and the thread pointer; callers, the texts that arguments point to, and the proof of thread handles are lost. For the next core write 0x33 to /proc/PID/coredump_filter of the running process",
		s.NotDumped, s.Threads)}
}

// StackLost reports whether this thread's stack is one of those that
// ZeroStacks found not to have been saved: don't unwind it beyond frame 0.
func (p *Process) StackLost(t *Thread) bool {
	if !p.ZeroStacks().Lost {
		return false
	}
	zero, ok := (&Process{core: p.core}).stackZero(t)
	return zero && ok
}

func (s StackCheck) warning(writer string) target.Warning {
	why := "whatever wrote this core didn't save them"
	if writer == WriterGDB {
		why = "gdb's gcore gives up a mapping at the first page that it can't read, and with glibc 2.42 or newer on a kernel with guard regions all thread stacks are in such a mapping"
	}
	return target.Warning{Code: WarnStacksZero, Text: fmt.Sprintf(
		"the stacks of %d of %d threads are zeros in this core: %s. Registers (with them the function at the top of each stack, the system call and the thread pointer), the main thread's stack if it is not among them, and the heap are still good; callers and the thread structures on the stacks are lost. Take a kernel core instead (kill -ABRT of the process, or a core of the next hang), or look at the live process",
		s.Zero, s.Checked, why)}
}
