package elfcore

import (
	"encoding/binary"
	"fmt"
	"strings"

	"mycore/internal/target"
)

// CallState says what a thread's registers tell about a system call. The words
// are those of syscalls.State where both have the state.
type CallState string

// The states of a thread of a FreeBSD core with respect to a system call (sys/
// amd64/amd64/vm_machdep.c and sys/arm64/arm64/vm_machdep.c,
// cpu_set_syscall_retval).
const (
	// CallNone: the thread was executing the program's own code.
	CallNone CallState = "not-in-call"
	// CallEntered: it is asleep in the kernel and has no result yet. gcore
	// leaves threads so; a kernel core has none.
	CallEntered CallState = "entered"
	// CallRestarting: its sleep was broken with ERESTART. The program counter
	// is back on the instruction that enters the kernel.
	CallRestarting CallState = "restarting"
	// CallInterrupted: its sleep was broken with EINTR.
	CallInterrupted CallState = "interrupted"
	// CallReturned: the call was over, with a result.
	CallReturned CallState = "returned"
	// CallFailed: the call was over, with an error.
	CallFailed CallState = "failed"
	// CallUnclear: the registers don't say, mostly for want of the code.
	CallUnclear CallState = "unclear"
)

// Blocked reports whether the thread waited in the call until the core was
// made.
func (s CallState) Blocked() bool {
	return s == CallEntered || s == CallRestarting || s == CallInterrupted
}

// SystemCall is what a thread's registers say about a system call.
type SystemCall struct {
	State CallState
	// Number is the call's; absent when State isn't a blocked one, and where
	// EINTR has overwritten it and the code in front of the program counter
	// doesn't tell it.
	Number target.Value[int64]
	Args   [6]uint64
	// Lost says which arguments aren't in the registers any more.
	Lost [6]bool
	How  string // the evidence, in words
}

// fbsdMachine is how a machine enters the kernel.
type fbsdMachine struct {
	enter    string // the instruction
	number   int    // register of the number
	result   int
	args     [6]int
	carry    uint64 // flag of an error
	keepsNum bool   // the number's register isn't the result's
}

// sys/amd64/amd64/exception.S (fast_syscall_common): the fourth argument comes
// in r10 and is stored where rcx belongs; r10 and r11 of the note are leftovers.
// sys/arm64/arm64/trap.c (svc_handler): x8 and x0 to x7.
var fbsdMachines = map[target.Arch]*fbsdMachine{
	target.AMD64: {
		enter: "\x0f\x05", number: target.RAX, result: target.RAX, carry: 1,
		args: [6]int{target.RDI, target.RSI, target.RDX, target.RCX, target.R8, target.R9},
	},
	target.ARM64: {
		enter: "\x01\x00\x00\xd4", number: 8, result: 0, carry: 1 << 29, keepsNum: true,
		args: [6]int{0, 1, 2, 3, 4, 5},
	},
}

const (
	fbEINTR    = 4  // sys/sys/errno.h
	fbMaxErrno = 97 // ELAST of sys/sys/errno.h, main; 96 in 12
	// maxSyscall bounds what is taken for a number without code to confirm it:
	// SYS_MAXSYSCALL of sys/sys/syscall.h is 588 in main.
	maxSyscall = 1024
)

// faultMessages are the wait messages of a page fault and of memory shortage
// (sys/vm, 10.4 and 12.1): such a thread sleeps, but need not be in a call.
var faultMessages = []string{"pfault", "vmwait", "VMWait", "vmpfw", "vnread", "vnsrd", "vodead", "swread", "swwrt", "pgrbwt", "wswbuf"}

func (k *kinfoProc) inFault() bool {
	for _, m := range faultMessages {
		if strings.HasPrefix(k.wmesg, m) {
			return true
		}
	}
	return false
}

// SyscallState says from a thread's registers whether it was in a system call.
// ok is false for cores of other systems, and of machines whose calls aren't
// read. The code around the program counter decides, and isn't in cores of
// FreeBSD: ask a view that has the files behind it (WithBacking).
func (p *Process) SyscallState(t *Thread) (call SystemCall, ok bool) {
	m := fbsdMachines[p.info.Arch]
	if p.freebsd == nil || m == nil {
		return SystemCall{}, false
	}
	pc, ok1 := t.Regs.PC()
	number, ok2 := t.Regs.Get(m.number)
	result, ok3 := t.Regs.Get(m.result)
	if !ok1 || !ok2 || !ok3 || !t.Flags.Known {
		return SystemCall{State: CallUnclear, How: "its registers aren't in the core"}, true
	}
	for i, r := range m.args {
		call.Args[i], _ = t.Regs.Get(r) // known: the register file is complete
	}
	if s := t.Siginfo; s != nil && s.Addr.Known {
		call.State, call.How = CallNone, "its own code raised the signal"
		return call, true
	}
	look := callSite{
		number: int64(number), result: result, failed: t.Flags.V&m.carry != 0, kinfo: p.freebsd.kinfo[t.LWP],
		on: p.codeIs(pc, m.enter), behind: p.codeIs(pc-target.Addr(len(m.enter)), m.enter),
	}
	if p.info.Arch == target.AMD64 && look.behind != codeOther {
		look.stub, look.stubKnown = p.stubNumber(pc)
	}
	look.decide(m, &call)
	call.indirect()
	return call, true
}

// codeKind is what stands at an address.
type codeKind int

const (
	codeUnknown codeKind = iota // can't be read
	codeEnter                   // the instruction that enters the kernel
	codeOther
)

func (p *Process) codeIs(a target.Addr, enter string) codeKind {
	var b [4]byte
	if n, _ := p.ReadMemory(a, b[:len(enter)]); n < len(enter) {
		return codeUnknown
	}
	if string(b[:len(enter)]) == enter {
		return codeEnter
	}
	return codeOther
}

// stubNumber reads the number from the stub in front of the program counter:
// mov $NUMBER,%eax (or %rax), mov %rcx,%r10, syscall (lib/libc/amd64/SYS.h and
// lib/libsys: RSYSCALL, KERNCALL). The bytes are those that assemblers make of
// the source; they weren't measured.
func (p *Process) stubNumber(pc target.Addr) (int64, bool) {
	var b [12]byte // 48 c7 c0 imm32, 49 89 ca, 0f 05
	if pc < target.Addr(len(b)) {
		return 0, false
	}
	if n, _ := p.ReadMemory(pc-target.Addr(len(b)), b[:]); n < len(b) || string(b[7:]) != "\x49\x89\xca\x0f\x05" {
		return 0, false
	}
	if b[2] == 0xb8 || b[0] == 0x48 && b[1] == 0xc7 && b[2] == 0xc0 {
		return int64(binary.LittleEndian.Uint32(b[3:])), true
	}
	return 0, false
}

// callSite is what the decision is made from.
type callSite struct {
	number     int64 // of the number's register, whatever it holds
	result     uint64
	failed     bool
	on, behind codeKind
	stub       int64
	stubKnown  bool
	kinfo      *kinfoProc
}

func (s *callSite) decide(m *fbsdMachine, c *SystemCall) {
	asleep := s.kinfo != nil && s.kinfo.wmesg != ""
	switch {
	case s.behind == codeOther && s.on == codeOther:
		c.State, c.How = CallNone, "the code at its program counter doesn't enter the kernel"
	case asleep && (s.behind == codeEnter || s.behind == codeUnknown && !s.kinfo.inFault() && s.number >= 0 && s.number < maxSyscall):
		c.State, c.How = CallEntered, fmt.Sprintf("asleep in the kernel (%s): the number and the arguments are still in the registers", s.kinfo.wmesg)
		c.Number = target.Known(s.number, target.SourceRegisters)
	case asleep:
		c.State, c.How = CallUnclear, fmt.Sprintf("asleep in the kernel (%s), and the code at its program counter can't be read", s.kinfo.wmesg)
	case s.on == codeEnter && s.number >= 0 && s.number < maxSyscall:
		c.State, c.How = CallRestarting, "its sleep was broken and the call begins again: the program counter is on the instruction that enters the kernel"
		c.Number = target.Known(s.number, target.SourceRegisters)
	case s.behind == codeOther:
		c.State, c.How = CallNone, "the code in front of its program counter doesn't enter the kernel"
	default:
		s.behindCall(m, c)
	}
}

// behindCall decides for a thread without a wait message whose program counter
// follows the instruction that enters the kernel, or may follow it.
func (s *callSite) behindCall(m *fbsdMachine, c *SystemCall) {
	known := s.behind == codeEnter
	switch {
	case s.failed && s.result == fbEINTR:
		c.State, c.How = CallInterrupted, "its sleep was broken: EINTR and the carry flag are in the registers"
		if !known {
			c.How += "; the code isn't at hand to confirm it"
		}
		s.interruptedNumber(m, c)
	case !known:
		c.State, c.How = CallUnclear, "the code at its program counter can't be read"
	case s.failed && s.result > 0 && s.result <= fbMaxErrno:
		c.State, c.How = CallFailed, fmt.Sprintf("the call was over, with error %d", s.result)
	case s.kinfo == nil && s.stubKnown && s.stub == s.number:
		c.State, c.How = CallEntered, "no kernel record of this thread; the number that its code loads is still in the register of the result"
		c.Number = target.Known(s.number, target.SourceRegisters)
	default:
		c.State, c.How = CallReturned, "the call was over, and the kernel records no wait"
	}
}

// interruptedNumber finds the number of a call whose result has overwritten
// it.
func (s *callSite) interruptedNumber(m *fbsdMachine, c *SystemCall) {
	switch {
	case m.keepsNum:
		// The first argument's register holds the result.
		c.Number, c.Lost[0] = target.Known(s.number, target.SourceRegisters), true
	case s.stubKnown:
		c.Number = target.Known(s.stub, target.SourceCode)
		c.How += fmt.Sprintf("; the number %d comes from the code that made the call", s.stub)
	default:
		c.How += "; the call's number is overwritten"
	}
}

// indirect undoes syscall(2) and __syscall(2), numbers 0 and 198 (sys/kern/
// syscalls.master, SYSMUX): the number is the first argument there, the
// arguments follow it.
func (c *SystemCall) indirect() {
	if !c.Number.Known || c.Number.V != 0 && c.Number.V != 198 {
		return
	}
	if c.Lost[0] {
		c.Number = target.Value[int64]{}
		return
	}
	c.Number.V = int64(c.Args[0] & 0xffffffff)
	copy(c.Args[:], c.Args[1:])
	c.Args[5], c.Lost[5] = 0, true // on the stack
	c.How += "; made through syscall(2)"
}

// setCall fills OrigSyscall where registers and record alone say it: a thread
// asleep in the kernel still has the number in its register.
func (d *fbsdDecoder) setCall(t *Thread) {
	m, k := fbsdMachines[d.arch], d.f.kinfo[t.LWP]
	if m == nil || k == nil || k.wmesg == "" || k.inFault() {
		return
	}
	if nr, ok := t.Regs.Get(m.number); ok && nr > 0 && nr < maxSyscall {
		t.OrigSyscall = target.Known(int64(nr), target.SourceRegisters)
	}
}
