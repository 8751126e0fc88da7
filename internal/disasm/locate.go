package disasm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mycore/internal/target"
)

// Kind says what a Location is.
type Kind uint8

// The kinds of Location.
const (
	InRegister Kind = iota // register Reg of the frame
	InSlot                 // 8 or 4 bytes of memory at the address CFA + Off (see Align)
	IsConst                // the number Value itself
	IsAddress              // the address CFA + Off (see Align)
	IsArgument             // what the function got as argument Arg (0-based)
	IsCallers              // what register Reg holds in the calling frame
)

// Align describes a frame with an aligned stack pointer: with Mask not 0,
// offsets count from (CFA + From) & Mask instead of from the CFA.
type Align struct {
	From int64
	Mask uint64
}

// Location is where a value is, or what it is.
type Location struct {
	Kind  Kind
	Reg   int    // DWARF number
	Off   int64  // bytes
	Align Align  // InSlot, IsAddress
	Value uint64 // IsConst
	Arg   int    // IsArgument: 0 is the first
	Bits  uint8  // 64, or 32 when only the low half is known to be the value
	By    uint64 // address of the instruction that put it there, 0 for the entry
}

// Point is a place in a function at which a frame stands.
type Point struct {
	PC uint64
	// Suspended says that the instruction that ends at PC, a call or a system
	// call, hasn't returned. Without it the instruction at PC is the next one.
	Suspended bool
}

var registerNames = [...]string{"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip"}

// RegisterName is the name of a DWARF register number of x86-64.
func RegisterName(r int) string {
	if r >= 0 && r < len(registerNames) {
		return registerNames[r]
	}
	return fmt.Sprintf("register %d", r)
}

// ArgumentName says where an integer argument (0 is the first) is passed.
func ArgumentName(arg int) string {
	if arg >= 0 && arg < len(argRegs) {
		return registerNames[argRegs[arg]]
	}
	return fmt.Sprintf("stack argument %d", arg+1)
}

// String describes the location: "r13", "[CFA-0x38]", "CFA-0x240".
func (l Location) String() string {
	base := "CFA"
	if l.Align.Mask != 0 {
		base = fmt.Sprintf("((CFA%+#x)&%#x)", l.Align.From, l.Align.Mask)
	}
	switch l.Kind {
	case InRegister:
		return RegisterName(l.Reg)
	case InSlot:
		return fmt.Sprintf("[%s%+#x]", base, l.Off)
	case IsConst:
		return fmt.Sprintf("%#x", l.Value)
	case IsAddress:
		return fmt.Sprintf("%s%+#x", base, l.Off)
	case IsArgument:
		return fmt.Sprintf("argument %d", l.Arg+1)
	case IsCallers:
		return "the caller's " + RegisterName(l.Reg)
	}
	return "?"
}

// Locate finds where the function's argument (0 is the first) still is at pc.
// how describes what was found, with addresses relative to the function. It is
// Analyze and Analysis.Argument in one.
func Locate(code Code, p Point, arg int) (locs []Location, how string, err error) {
	a, err := Analyze(code)
	if err != nil {
		return nil, "", err
	}
	if locs, err = a.Argument(p, arg); err != nil {
		return nil, "", err
	}
	var parts []string
	for _, l := range locs {
		parts = append(parts, a.describe(l, arg, fmt.Sprintf("%#x", code.Start)))
	}
	return locs, strings.Join(parts, "; "), nil
}

// describe says in words where an argument is kept. name is the function's.
func (a *Analysis) describe(l Location, arg int, name string) string {
	what := ArgumentName(arg)
	switch {
	case l.By == 0 && l.Kind == InRegister:
		return what + " unchanged since entry"
	case l.By == 0:
		return fmt.Sprintf("%s still in %s", what, l)
	}
	return fmt.Sprintf("%s saved in %s by %s%+#x", what, l, name, int64(l.By-a.code.Start))
}

// Argument finds where the function's argument (0 is the first) still is at a
// point: registers first, whole values first. ErrLost: nowhere.
func (a *Analysis) Argument(p Point, arg int) ([]Location, error) {
	if arg < 0 || arg >= len(argRegs)+inSlots {
		return nil, fmt.Errorf("argument %d: %w", arg+1, ErrLost)
	}
	want := value{kind: vSlotIn, n: int64(arg-len(argRegs)) * 8}
	if arg < len(argRegs) {
		want = value{kind: vEntry, reg: argRegs[arg]}
	}
	s, err := a.stateAt(p)
	if err != nil {
		return nil, err
	}
	if locs := a.holders(s, want); len(locs) > 0 {
		return locs, nil
	}
	return nil, fmt.Errorf("argument %d of the function at %#x, at %#x: %w", arg+1, a.code.Start, p.PC, ErrLost)
}

// StackPointer tells where the stack pointer must be at a point, as IsAddress;
// ok is false when the code doesn't tell (variable-size frames).
func (a *Analysis) StackPointer(p Point) (l Location, ok bool) {
	s, err := a.stateAt(p)
	if err != nil || s.reg[target.RSP].kind != vStack {
		return Location{}, false
	}
	return a.locate(s.reg[target.RSP]), true
}

// holders lists the registers and slots that hold a value.
func (a *Analysis) holders(s *state, want value) (locs []Location) {
	for r, v := range s.reg {
		if bits := same(v, want); bits != 0 && r != target.RSP {
			locs = append(locs, Location{Kind: InRegister, Reg: r, Bits: bits, By: s.from[r]})
		}
	}
	floor := -noEscape
	sp := s.reg[target.RSP]
	if sp.kind == vStack {
		floor = sp.n - redZone
	}
	for i := range s.slots {
		sl := &s.slots[i]
		bits := same(sl.val, want)
		if bits == 0 || sl.base == sp.base && sl.off < floor {
			continue
		}
		if sl.size == 4 {
			bits = 32
		}
		l := a.locate(value{kind: vStack, base: sl.base, n: sl.off})
		l.Kind, l.Bits, l.By = InSlot, bits, sl.from
		locs = append(locs, l)
	}
	slices.SortStableFunc(locs, func(x, y Location) int { return int(y.Bits) - int(x.Bits) })
	return locs
}

// redZone is the size of the area below the stack pointer that signal handlers
// leave alone (psABI 3.2.2).
const redZone = 128

// locate turns a frame address into a Location.
func (a *Analysis) locate(v value) Location {
	l := Location{Kind: IsAddress, Off: v.n, Bits: 64}
	if v.base == baseAligned {
		l.Align = Align{From: a.alignFrom, Mask: uint64(a.alignMask)}
	}
	return l
}

// stateAt is what holds at a point.
func (a *Analysis) stateAt(p Point) (*state, error) {
	if !p.Suspended {
		return a.before(p.PC)
	}
	in, err := a.suspended(p.PC)
	if err != nil {
		return nil, err
	}
	s, err := a.before(in.addr)
	if err != nil {
		return nil, err
	}
	a.step(s, in)
	return s, nil
}

// suspended finds the call or system call that ends at pc.
func (a *Analysis) suspended(pc uint64) (*instr, error) {
	var found *instr
	for n := uint64(1); n <= maxInstr; n++ {
		p := a.partOf(pc - n)
		if p == nil || !p.marked(pc-n, reached) {
			continue
		}
		in, err := a.at(p, pc-n)
		if err != nil || in.next() != pc || in.class != clCall && in.class != clSyscall {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("call before %#x: %w", pc, ErrAmbiguous)
		}
		found = in
	}
	if found == nil {
		return nil, fmt.Errorf("call before %#x: %w", pc, ErrUnreached)
	}
	return found, nil
}

// before is what holds in front of the instruction at addr.
func (a *Analysis) before(addr uint64) (*state, error) {
	p := a.partOf(addr)
	if p == nil || !p.marked(addr, reached) {
		return nil, fmt.Errorf("at %#x: %w", addr, ErrUnreached)
	}
	i, exact := slices.BinarySearch(a.order, addr)
	if exact {
		return a.in[addr].clone(), nil
	}
	for i--; i >= 0 && a.order[i] >= p.start; i-- {
		if s := a.runTo(p, a.order[i], addr); s != nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("at %#x: %w", addr, ErrUnreached)
}

// runTo interprets from an address with a known state to another one in the
// same straight run of instructions; nil when it isn't on that run.
func (a *Analysis) runTo(p *part, from, to uint64) *state {
	s := a.in[from].clone()
	for addr := from; addr < to; {
		in, err := a.at(p, addr)
		if err != nil || in.ends() || addr != from && p.marked(addr, leader) {
			return nil
		}
		a.step(s, in)
		if in.class == clBranch {
			s.refine(in.branch, false)
		}
		if addr = in.next(); addr == to {
			return s
		}
	}
	return nil
}

// Passed is what a call handed over.
type Passed struct {
	// Locations are equivalent: each gives the argument. Registers and slots
	// are those of the calling frame, still good while the call lasts.
	Locations []Location
	// Set lists the numbers that are possible when there are several.
	Set []uint64
	// Call is the call instruction's address.
	Call uint64
	// Direct and Target: where the call goes, when the code says so.
	Direct bool
	Target uint64
	// Slot is the address of the pointer that an indirect call went through,
	// when that is at a fixed place (a GOT entry), else 0.
	Slot uint64
}

// ArgumentAtCall finds what the call that returns to ret passed as integer
// argument arg (0 is the first). ErrLost: nothing that still exists equals it.
func (a *Analysis) ArgumentAtCall(ret uint64, arg int) (Passed, error) {
	in, err := a.suspended(ret)
	if err != nil {
		return Passed{}, err
	}
	if in.class != clCall {
		return Passed{}, fmt.Errorf("call before %#x: %w", ret, ErrUnreached)
	}
	pre, err := a.before(in.addr)
	if err != nil {
		return Passed{}, err
	}
	p := Passed{Call: in.addr, Direct: in.direct, Target: in.target}
	if in.src.kind == opMem && in.src.mem.base == noReg && in.src.mem.index == noReg && !in.src.mem.segment {
		p.Slot = uint64(in.src.mem.disp)
	}
	v := value{}
	switch {
	case arg >= 0 && arg < len(argRegs):
		v = pre.reg[argRegs[arg]]
	case arg >= len(argRegs) && arg < len(argRegs)+inSlots:
		if sp := pre.reg[target.RSP]; sp.kind == vStack {
			if sl := pre.find(sp.base, sp.n+8*int64(arg-len(argRegs))); sl != nil {
				v = sl.val
			}
		}
	}
	post := pre.clone()
	a.step(post, in)
	p.Locations, p.Set = a.explain(post, v)
	if len(p.Set) > 0 {
		return p, fmt.Errorf("argument %d of the call at %#x: %w: %d", arg+1, in.addr, ErrAmbiguous, len(p.Set))
	}
	if len(p.Locations) == 0 {
		return p, fmt.Errorf("argument %d of the call at %#x: %w", arg+1, in.addr, ErrLost)
	}
	return p, nil
}

// explain lists everything that gives the value v in state s.
func (a *Analysis) explain(s *state, v value) (locs []Location, set []uint64) {
	bits := uint8(64)
	if v.low32 {
		bits = 32
	}
	switch v.kind {
	case vConst:
		return []Location{{Kind: IsConst, Value: uint64(v.n), Bits: 64}}, nil
	case vSet:
		for _, n := range a.sets[v.n] {
			set = append(set, uint64(n))
		}
		return nil, set
	case vStack:
		return []Location{a.locate(v)}, nil
	case vEntry, vSlotIn, vOpaque:
		locs = a.holders(s, v)
	}
	switch {
	case v.kind == vSlotIn:
		locs = append(locs, Location{Kind: IsArgument, Arg: len(argRegs) + int(v.n/8), Bits: bits})
	case v.kind == vEntry && slices.Contains(argRegs[:], v.reg):
		locs = append(locs, Location{Kind: IsArgument, Arg: slices.Index(argRegs[:], v.reg), Bits: bits})
	case v.kind == vEntry && calleeSaved&bit(int(v.reg)) != 0:
		locs = append(locs, Location{Kind: IsCallers, Reg: int(v.reg), Bits: bits})
	}
	return locs, nil
}

// SyscallNumber finds what was in eax when the syscall instruction at addr was
// executed: numbers, or an argument of the function (as in syscall(2) itself
// and in glibc's cancellation wrapper since 2.41). Several numbers come with
// ErrAmbiguous.
func (a *Analysis) SyscallNumber(addr uint64) (Passed, error) {
	p := a.partOf(addr)
	if p == nil || !p.marked(addr, reached) {
		return Passed{}, fmt.Errorf("syscall at %#x: %w", addr, ErrUnreached)
	}
	in, err := a.at(p, addr)
	if err != nil {
		return Passed{}, err
	}
	if in.class != clSyscall {
		return Passed{}, fmt.Errorf("at %#x: %w", addr, errNoSyscall)
	}
	s, err := a.before(addr)
	if err != nil {
		return Passed{}, err
	}
	v := s.reg[target.RAX]
	a.step(s, in) // RAX, RCX and R11 are gone by the time anyone looks
	out := Passed{Call: addr}
	out.Locations, out.Set = a.explain(s, v)
	switch {
	case len(out.Set) > 0:
		return out, fmt.Errorf("number of the syscall at %#x: %w: %v", addr, ErrAmbiguous, out.Set)
	case len(out.Locations) == 0:
		return out, fmt.Errorf("number of the syscall at %#x: %w", addr, ErrLost)
	}
	return out, nil
}

var errNoSyscall = errors.New("no syscall instruction")
