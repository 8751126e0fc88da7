package disasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"mycore/internal/target"
)

// Frame is one frame of an unwound stack, as recovery needs it. Frame 0 is the
// innermost; inlined functions have no frame here.
type Frame struct {
	PC uint64
	// Suspended: the instruction that ends at PC, a call or a system call,
	// hasn't returned. True for every frame with a callee, and for frame 0 in a
	// system call; false for a frame that was interrupted anywhere.
	Suspended bool
	// Start is the address of the function's first instruction (its FDE's
	// start), 0 when unknown.
	Start uint64
	// CFA is the canonical frame address, 0 when unknown.
	CFA uint64
	// Regs are the registers as they are in this frame, by DWARF number; what
	// the unwinder couldn't restore is unknown.
	Regs *target.Regs
	// Name is the function's name for the explanation; empty: its address.
	Name string
}

func (f *Frame) point() Point { return Point{PC: f.PC, Suspended: f.Suspended} }

func (f *Frame) name() string {
	if f.Name != "" {
		return f.Name
	}
	return fmt.Sprintf("%#x", f.Start)
}

// where is an address inside the frame's function in words.
func (f *Frame) where(addr uint64) string {
	if f.Start == 0 {
		return fmt.Sprintf("%#x", addr)
	}
	return fmt.Sprintf("%s%+#x", f.name(), int64(addr-f.Start))
}

// Recovered is a value found by following code.
type Recovered struct {
	Value uint64
	Bits  uint8 // 64, or 32: only the low half is the value
	// How says in words where it was found.
	How string
	// Assumed lists what could not be checked; empty in the best case.
	Assumed []string
}

// CodeRange finds the function (FDE) around an address of the target.
type CodeRange func(addr uint64) (start, end uint64, ok bool)

// Recoverer finds arguments and system call numbers of frames. It remembers
// the functions that it analysed; safe for concurrent use.
type Recoverer struct {
	mem   target.Memory
	code  CodeRange
	mu    sync.Mutex
	known map[uint64]*known
}

// known is one function, analysed once.
type known struct {
	once sync.Once
	a    *Analysis
	err  error
}

// maxKnown bounds the functions that a Recoverer remembers: far more than the
// frames at which threads block.
const maxKnown = 512

// maxDepth bounds how many callers an argument is followed through.
const maxDepth = 24

// NewRecoverer reads code and stacks from mem; code gives the bounds of
// functions.
func NewRecoverer(mem target.Memory, code CodeRange) *Recoverer {
	return &Recoverer{mem: mem, code: code, known: map[uint64]*known{}}
}

// analysis returns the function that starts at start.
func (r *Recoverer) analysis(start uint64) (*Analysis, error) {
	r.mu.Lock()
	k := r.known[start]
	if k == nil {
		if len(r.known) >= maxKnown {
			clear(r.known)
		}
		k = &known{}
		r.known[start] = k
	}
	r.mu.Unlock()
	k.once.Do(func() { k.a, k.err = r.analyze(start) })
	return k.a, k.err
}

func (r *Recoverer) analyze(start uint64) (*Analysis, error) {
	from, code, err := r.bytes(start)
	if err != nil {
		return nil, err
	}
	if from != start {
		return nil, fmt.Errorf("%#x is inside the function at %#x: %w", start, from, ErrMismatch)
	}
	return Analyze(Code{Start: start, Bytes: code, Memory: r.mem, Part: func(addr uint64) (uint64, []byte, bool) {
		from, code, err := r.bytes(addr)
		return from, code, err == nil
	}})
}

// bytes reads the function around an address.
func (r *Recoverer) bytes(addr uint64) (start uint64, code []byte, err error) {
	start, end, ok := r.code(addr)
	switch {
	case !ok || start > addr || addr >= end:
		return 0, nil, fmt.Errorf("code at %#x: %w", addr, ErrOutside)
	case end-start > maxCode:
		return 0, nil, fmt.Errorf("function at %#x: %w: %d bytes", start, ErrTooBig, end-start)
	}
	code = make([]byte, end-start)
	if _, err := r.mem.ReadMemory(target.Addr(start), code); err != nil {
		return 0, nil, fmt.Errorf("reading the function at %#x: %w", start, err)
	}
	return start, code, nil
}

// Argument finds what the function of frame k got as integer argument arg (0
// is the first): from where the function itself still keeps it, else from what
// its caller passed, and so on outwards. The error says why the last attempt
// failed.
func (r *Recoverer) Argument(frames []Frame, k, arg int) (Recovered, error) {
	if k < 0 || k >= len(frames) {
		return Recovered{}, fmt.Errorf("argument %d: %w: frame %d of %d", arg+1, ErrLost, k, len(frames))
	}
	got, err := r.kept(frames, k, arg)
	if err == nil {
		return got, nil
	}
	got, err2 := r.passed(frames, k, arg, maxDepth)
	if err2 == nil {
		return got, nil
	}
	return Recovered{}, fmt.Errorf("argument %d of %s (frame %d): %w", arg+1, frames[k].name(), k, errors.Join(err, err2))
}

// kept looks for the argument in the frame of its own function.
func (r *Recoverer) kept(frames []Frame, k, arg int) (Recovered, error) {
	f := &frames[k]
	a, assumed, err := r.checked(f)
	if err != nil {
		return Recovered{}, err
	}
	locs, err := a.Argument(f.point(), arg)
	if err != nil {
		return Recovered{}, err
	}
	v, l, err := r.read(locs, frames, k)
	if err != nil {
		return Recovered{}, err
	}
	if !r.entered(frames, k) {
		assumed = append(assumed, fmt.Sprintf("%s was entered at its first instruction (its caller's call doesn't show it: indirect, a tail call, or a split function)", f.name()))
	}
	how := fmt.Sprintf("%s (frame %d): %s", f.name(), k, a.describe(l, arg, f.name()))
	return Recovered{Value: v, Bits: l.Bits, How: how, Assumed: assumed}, nil
}

// checked returns the analysis of a frame's function, after comparing the
// stack pointer that it predicts with the frame's: a frame that was entered in
// another way than through the function's first instruction fails this.
func (r *Recoverer) checked(f *Frame) (a *Analysis, assumed []string, err error) {
	if f.Start == 0 {
		return nil, nil, fmt.Errorf("frame at %#x: %w: its function's start is unknown", f.PC, ErrMismatch)
	}
	if a, err = r.analysis(f.Start); err != nil {
		return nil, nil, err
	}
	l, ok := a.StackPointer(f.point())
	sp, known := f.register(target.RSP)
	if !ok || !known || f.CFA == 0 {
		return a, []string{fmt.Sprintf("the stack depth of %s isn't checked", f.name())}, nil
	}
	if want := l.address(f.CFA); want != sp {
		return nil, nil, fmt.Errorf("frame at %#x: %w: stack pointer %#x, by the code of %s %#x", f.PC, ErrMismatch, sp, f.name(), want)
	}
	return a, nil, nil
}

func (f *Frame) register(n int) (uint64, bool) {
	if f.Regs == nil {
		return 0, false
	}
	return f.Regs.Get(n)
}

// address evaluates a frame address.
func (l Location) address(cfa uint64) uint64 {
	if l.Align.Mask != 0 {
		cfa = (cfa + uint64(l.Align.From)) & l.Align.Mask
	}
	return cfa + uint64(l.Off)
}

// entered reports whether the call in the next frame goes to the first
// instruction of frame k's function. A rarely run part that the compiler split
// off has code bounds of its own, and would otherwise be taken for a function
// that got its arguments there.
func (r *Recoverer) entered(frames []Frame, k int) bool {
	if k+1 >= len(frames) || !frames[k+1].Suspended || frames[k+1].PC < MaxCall {
		return false
	}
	var code [MaxCall]byte
	ret := frames[k+1].PC
	if n, _ := r.mem.ReadMemory(target.Addr(ret-MaxCall), code[:]); n < MaxCall {
		return false
	}
	start := frames[k].Start
	c, ok := FollowsCall(code[:])
	switch {
	case !ok:
		return false
	case c.Direct:
		to := ret + uint64(int64(c.Displacement))
		if to == start {
			return true
		}
		to, err := r.linkage(to)
		return err == nil && to == start
	case code[MaxCall-6] == 0xff && code[MaxCall-5] == 0x15: // call *slot(%rip)
		slot := ret + uint64(int64(int32(binary.LittleEndian.Uint32(code[MaxCall-4:]))))
		to, err := target.Uint64(r.mem, target.Addr(slot))
		return err == nil && to == start
	}
	return false
}

// read evaluates equivalent locations in frame k; all that can be read must
// agree.
func (r *Recoverer) read(locs []Location, frames []Frame, k int) (v uint64, at Location, err error) {
	found := false
	for _, l := range locs {
		n, rerr := Evaluate(l, &frames[k], r.mem)
		if rerr != nil {
			err = rerr
			continue
		}
		if !found {
			v, at, found = n, l, true
			continue
		}
		if bits := min(at.Bits, l.Bits); bits == 64 && n != v || uint32(n) != uint32(v) {
			return 0, l, fmt.Errorf("%s is %#x, %s is %#x: %w", at, v, l, n, ErrMismatch)
		}
	}
	switch {
	case found:
		return v, at, nil
	case err == nil:
		err = ErrLost
	}
	return 0, at, err
}

// Evaluate reads a location with the registers of its frame and memory.
// Values of 32 bits come back zero-extended. Arguments and the caller's
// registers aren't in the frame: ErrNotHeld.
func Evaluate(l Location, f *Frame, mem target.Memory) (uint64, error) {
	var v uint64
	switch l.Kind {
	case IsConst:
		return l.Value, nil
	case InRegister:
		n, ok := f.register(l.Reg)
		if !ok {
			return 0, fmt.Errorf("%s of the frame at %#x: %w", l, f.PC, ErrNotHeld)
		}
		v = n
	case IsAddress, InSlot:
		if f.CFA == 0 {
			return 0, fmt.Errorf("%s of the frame at %#x: %w: its CFA is unknown", l, f.PC, ErrNotHeld)
		}
		v = l.address(f.CFA)
		if l.Kind == IsAddress {
			return v, nil
		}
		var buf [8]byte
		n := int(l.Bits / 8)
		if n != 4 && n != 8 {
			return 0, fmt.Errorf("%s: %w: %d bits", l, ErrNotHeld, l.Bits)
		}
		if _, err := mem.ReadMemory(target.Addr(v), buf[:n]); err != nil {
			return 0, fmt.Errorf("%s of the frame at %#x: %w: %w", l, f.PC, ErrNotHeld, err)
		}
		v = binary.LittleEndian.Uint64(buf[:])
	default:
		return 0, fmt.Errorf("%s of the frame at %#x: %w", l, f.PC, ErrNotHeld)
	}
	if l.Bits == 32 {
		v = uint64(uint32(v))
	}
	return v, nil
}

// passed looks for what the caller of frame k handed over.
func (r *Recoverer) passed(frames []Frame, k, arg, depth int) (Recovered, error) {
	if depth == 0 {
		return Recovered{}, fmt.Errorf("argument %d: %w: %d callers", arg+1, ErrTooBig, maxDepth)
	}
	if k+1 >= len(frames) {
		return Recovered{}, fmt.Errorf("frame %d has no caller: %w", k, ErrLost)
	}
	f := &frames[k+1]
	if !f.Suspended {
		return Recovered{}, fmt.Errorf("frame %d was interrupted, not called: %w", k, ErrLost)
	}
	a, assumed, err := r.checked(f)
	if err != nil {
		return Recovered{}, err
	}
	p, err := a.ArgumentAtCall(f.PC, arg)
	if err != nil {
		return Recovered{}, err
	}
	if err := r.sameCallee(&p, f, frames[k].Start, &assumed); err != nil {
		return Recovered{}, err
	}
	got, err := r.follow(p, frames, k+1, depth)
	if err != nil {
		return Recovered{}, err
	}
	got.How = fmt.Sprintf("%s passed by %s (frame %d) as %s", ArgumentName(arg), f.where(p.Call), k+1, got.How)
	got.Assumed = append(assumed, got.Assumed...)
	return got, nil
}

// follow evaluates what a call in frame k passed.
func (r *Recoverer) follow(p Passed, frames []Frame, k, depth int) (Recovered, error) {
	v, l, err := r.read(p.Locations, frames, k)
	if err == nil {
		how := l.String()
		if l.By != 0 && (l.Kind == InRegister || l.Kind == InSlot) {
			how += ", there since " + frames[k].where(l.By)
		}
		return Recovered{Value: v, Bits: l.Bits, How: how}, nil
	}
	for _, l := range p.Locations {
		switch l.Kind {
		case IsArgument:
			got, err := r.passed(frames, k, l.Arg, depth-1)
			if err != nil {
				return Recovered{}, err
			}
			got.Bits = min(got.Bits, l.Bits)
			got.How = fmt.Sprintf("its own argument %d; %s", l.Arg+1, got.How)
			return got, nil
		case IsCallers:
			if k+1 < len(frames) {
				if v, ok := frames[k+1].register(l.Reg); ok {
					return Recovered{Value: v, Bits: l.Bits, How: fmt.Sprintf("%s of frame %d", RegisterName(l.Reg), k+1)}, nil
				}
			}
		}
	}
	return Recovered{}, err
}

// sameCallee checks that a call really entered the function of the inner
// frame. Between them a tail call could have changed the arguments.
func (r *Recoverer) sameCallee(p *Passed, f *Frame, callee uint64, assumed *[]string) error {
	if callee == 0 {
		*assumed = append(*assumed, fmt.Sprintf("the callee of %s isn't known", f.where(p.Call)))
		return nil
	}
	switch {
	case p.Direct && p.Target == callee:
		return nil
	case p.Direct:
		if to, err := r.linkage(p.Target); err != nil || to != callee {
			return fmt.Errorf("call at %#x goes to %#x, not to %#x: %w", p.Call, p.Target, callee, ErrMismatch)
		}
		return nil
	case p.Slot != 0:
		if to, err := target.Uint64(r.mem, target.Addr(p.Slot)); err == nil && to == callee {
			return nil
		}
		return fmt.Errorf("call at %#x through %#x doesn't go to %#x: %w", p.Call, p.Slot, callee, ErrMismatch)
	}
	*assumed = append(*assumed, fmt.Sprintf("the indirect call at %s entered the callee without a tail call", f.where(p.Call)))
	return nil
}

// linkage follows an entry of the procedure linkage table: an optional ENDBR64
// and a jump through a GOT entry.
func (r *Recoverer) linkage(addr uint64) (uint64, error) {
	var buf [maxInstr * 2]byte
	n, _ := r.mem.ReadMemory(target.Addr(addr), buf[:])
	code := buf[:min(n, len(buf))]
	for range 2 {
		in, err := decode(code, addr)
		if err != nil {
			return 0, err
		}
		switch {
		case in.class == clNop:
			addr, code = in.next(), code[in.length:]
			continue
		case in.class == clJumpInd && in.src.kind == opMem && in.src.mem.base == noReg && in.src.mem.index == noReg:
			return target.Uint64(r.mem, target.Addr(in.src.mem.disp))
		}
		break
	}
	return 0, fmt.Errorf("%#x is no linkage stub: %w", addr, ErrMismatch)
}

// Number is the number of a system call, by its code.
type Number struct {
	Value   int64   // the number, when it is the only one possible
	Several []int64 // else all that are
	How     string
	Assumed []string
}

// SyscallNumber names the call that the innermost frame made: the number that
// its code loads before the syscall instruction in front of the frame's PC. It
// is for threads whose register no longer tells (Linux: restart_syscall). A
// function that gets the number as argument is asked for it.
func (r *Recoverer) SyscallNumber(frames []Frame) (Number, error) {
	if len(frames) == 0 || frames[0].PC < 2 {
		return Number{}, fmt.Errorf("number of a system call: %w: no frame", ErrLost)
	}
	f := &frames[0]
	a, err := r.analysis(f.Start)
	if err != nil {
		return Number{}, err
	}
	addr := f.PC - 2
	p, err := a.SyscallNumber(addr)
	if err != nil {
		n := Number{}
		for _, v := range p.Set {
			n.Several = append(n.Several, int64(v))
		}
		return n, err
	}
	if l := p.Locations[0]; l.Kind == IsConst {
		return Number{Value: int64(int32(l.Value)), How: fmt.Sprintf("%d is loaded before the syscall at %s", int32(l.Value), f.where(addr))}, nil
	}
	got, err := r.follow(p, frames, 0, maxDepth)
	if err != nil {
		return Number{}, err
	}
	return Number{Value: int64(int32(got.Value)), How: fmt.Sprintf("the syscall at %s got its number as %s", f.where(addr), got.How), Assumed: got.Assumed}, nil
}
