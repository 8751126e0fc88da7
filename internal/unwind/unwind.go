// Package unwind walks the stacks of a process: from a thread's registers to
// the frames of its callers, each with the registers as they were there.
//
// A frame is found by the first of these that works, and says by which:
//
//	context        frame 0: the registers of the thread itself; or those that
//	               the kernel saved for a signal, where the trampoline has no
//	               call frame information
//	cfi            call frame information of the function
//	frame-pointer  the chain through rbp, where there is no such information
//	scan           the first word on the stack that looks like a return address
//
// After a frame found by chain or scan the walk goes back to call frame
// information. A register that isn't known stays unknown: a rule that needs it
// fails and the next way is tried; nothing is ever computed from zero.
//
// x86-64 is unwound; of other machines frame 0 is given with the reason.
package unwind

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"

	"mycore/elfcore"
	"mycore/internal/modules"
	"mycore/internal/target"
)

// Limits of one walk.
const (
	// DefaultMaxFrames bounds the frames of one stack. Server threads have 5 to
	// 60; runaway recursion has tens of thousands, of which the innermost show
	// what it is.
	DefaultMaxFrames = 1024
	// scanWords bounds one stack scan, in words of 8 bytes: 8 KiB. Frames of
	// assembler functions without call frame information are smaller; beyond
	// that a match is more likely a leftover than a caller.
	scanWords = 1024
	// betterReach bounds, in words, how far behind the first find a scan goes on
	// looking for a direct call to the frame's own function.
	betterReach = 128
	// scanBudget bounds the words of all scans of one stack, so that a forged
	// core with thousands of threads can't take minutes.
	scanBudget = 4 * scanWords
	// maxFunction bounds the code that is measured from a function's start to
	// see whether a call really stands in front of a scanned address.
	maxFunction = 64 << 10
	// maxSites bounds the program counters kept in the cache, at about 1 KiB
	// each. The 531 threads of a busy server have a few hundred.
	maxSites = 1 << 14
)

// Trust says how a frame was found, best first.
type Trust string

// The four ways; the texts are part of the JSON contract.
const (
	TrustContext      Trust = "context"
	TrustCFI          Trust = "cfi"
	TrustFramePointer Trust = "frame-pointer"
	TrustScan         Trust = "scan"
)

// Stop says why a walk ended. Only Outermost is the end of the stack; after
// all others there may be more frames.
type Stop string

// The reasons.
const (
	// StopOutermost: the function has no caller, by its call frame information
	// (_start, clone) or because the return address is 0.
	StopOutermost Stop = "outermost"
	// StopLimit: the frame limit was reached.
	StopLimit Stop = "frame limit"
	// StopNoBinary: the function's binary isn't at hand, and neither chain nor
	// scan led on.
	StopNoBinary Stop = "no binary"
	// StopNoModule: the program counter is in no module, and nothing on the
	// stack looks like a return address.
	StopNoModule Stop = "no module"
	// StopNoInfo: there is no call frame information for the function, or it
	// is broken, and neither chain nor scan led on.
	StopNoInfo Stop = "no unwind information"
	// StopUnknownRegister: a rule needs a register that isn't known here, and
	// neither chain nor scan led on.
	StopUnknownRegister Stop = "register unknown"
	// StopMemory: the stack's memory can't be read.
	StopMemory Stop = "memory not available"
	// StopCorrupt: the stack doesn't grow, or a signal frame leads back to a
	// frame that was there before.
	StopCorrupt Stop = "corrupt stack"
	// StopStackLost: the core has zeros in place of the stacks.
	StopStackLost Stop = "stack not saved"
	// StopArch: stacks of this machine aren't unwound.
	StopArch Stop = "machine not unwound"
	// StopNoContext: the thread's registers aren't known.
	StopNoContext Stop = "no registers"
)

// Registers are the known registers of a frame, by DWARF number, kept
// compactly: most frames know eight of them.
type Registers struct {
	known uint64
	v     []uint64
}

// Get returns register n and whether it is known at this frame.
func (r Registers) Get(n int) (uint64, bool) {
	if n < 0 || n >= 64 || r.known&(1<<uint(n)) == 0 {
		return 0, false
	}
	return r.v[bits.OnesCount64(r.known&(1<<uint(n)-1))], true
}

// Expand gives the same registers as a register file.
func (r Registers) Expand(arch target.Arch) target.Regs {
	out := target.Regs{Arch: arch}
	i := 0
	for known := r.known; known != 0; known &= known - 1 {
		out.Set(bits.TrailingZeros64(known), r.v[i])
		i++
	}
	return out
}

// Frame is one function invocation. Addresses are those of the process unless
// they are called link-time addresses: runtime = link-time + Module.Bias.
type Frame struct {
	PC target.Addr
	// LookupPC is the address that decides which function this is: PC where
	// the frame was interrupted, else PC-1, because a return address may be the
	// first of the next function.
	LookupPC target.Addr
	// CFA is the frame's canonical address: the stack pointer before the call
	// that made it. Valid when HasCFA: for a frame without a caller, or whose
	// caller wasn't found, it isn't known. Below a frame-pointer or scan step
	// it is the end of what that step took as the frame.
	CFA    target.Addr
	HasCFA bool
	// Regs are the registers as they are (frame 0) or will be when the frame
	// it called returns. Registers that a call may change are unknown.
	Regs  Registers
	Trust Trust
	// Module is nil where the program counter is in none.
	Module *modules.Module
	// ModuleOffset is PC as a link-time address of Module, or its distance from
	// Module.Image.Base when the load bias isn't known (Module.HasBias); 0
	// without a module.
	ModuleOffset uint64
	// FuncStart and FuncEnd bound the call frame information entry, link-time
	// addresses; both 0 where there is none. A function that the compiler split
	// has several.
	FuncStart, FuncEnd uint64
	// Function is the symbol around LookupPC as the table spells it, "" when
	// none covers it: then Module and FuncStart name the function.
	Function string
	// Offset is PC's distance from the start of Function, without a name from
	// FuncStart, without that 0.
	Offset uint64
	// SignalFrame marks the trampoline between a handler and the frame that
	// the signal interrupted.
	SignalFrame bool
}

// Entry gives the runtime address of FuncStart.
func (f *Frame) Entry() (target.Addr, bool) {
	if f.FuncEnd == 0 {
		return 0, false
	}
	return f.PC - target.Addr(f.ModuleOffset-f.FuncStart), true
}

// Stack is the result of one walk, innermost frame first.
type Stack struct {
	Frames []Frame
	Stop   Stop
	// Err says more about why the walk ended; nil after StopOutermost.
	Err error
}

// Options of New; the zero value is useful in tests only: without Core nothing
// is known about mappings.
type Options struct {
	// MaxFrames bounds each stack; 0 for DefaultMaxFrames.
	MaxFrames int
	// Core gives the bounds and permissions of mappings, and says which
	// threads' stacks weren't saved.
	Core *elfcore.Process
}

// Unwinder walks stacks of one process. It is safe for concurrent use; its
// caches are shared by all walks.
type Unwinder struct {
	mem   target.Memory
	space space
	core  *elfcore.Process
	max   int

	shards [siteShards]siteShard
	sites  atomic.Int64
	pool   sync.Pool // of *walker
}

// New makes an unwinder over a process's memory and modules. The memory should
// have the modules' bytes spliced in: the code in front of return addresses is
// read through it.
func New(mem target.Memory, mods *modules.Set, opts Options) *Unwinder {
	return newUnwinder(mem, newModuleSpace(mods, opts.Core), opts)
}

func newUnwinder(mem target.Memory, sp space, opts Options) *Unwinder {
	u := &Unwinder{mem: mem, space: sp, core: opts.Core, max: opts.MaxFrames}
	if u.max <= 0 {
		u.max = DefaultMaxFrames
	}
	for i := range u.shards {
		u.shards[i].m = map[siteKey]*site{}
	}
	u.pool.New = func() any { return newWalker(u) }
	return u
}

// Thread walks the stack of a thread of the core given to New. A thread whose
// stack wasn't saved has frame 0 only.
func (u *Unwinder) Thread(t *elfcore.Thread) Stack {
	if u.core != nil && u.core.StackLost(t) {
		return u.walk(t.Regs, 1, StopStackLost, errStackLost)
	}
	return u.Stack(t.Regs)
}

var errStackLost = errors.New("the core has zeros in place of the stacks")

// Stack walks from a register file. At least the program counter must be
// known, and the stack pointer for more than one frame.
func (u *Unwinder) Stack(regs target.Regs) Stack {
	if regs.Arch != target.AMD64 {
		return u.walk(regs, 1, StopArch, errors.New("stacks of "+regs.Arch.String()+" aren't unwound"))
	}
	return u.walk(regs, u.max, StopLimit, nil)
}
