package disasm

import (
	"fmt"
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"mycore/internal/target"
)

// Limits of Trace. Accessors are a few dozen instructions; larger functions
// are only asked for what they do before they branch much.
const (
	traceSteps  = 20_000 // instructions interpreted, all paths together
	tracePaths  = 512    // paths followed to an end
	traceLoop   = 3      // times that one path comes through one branch
	traceDepth  = 4      // largest depth of followed calls
	traceEvents = 4096   // events recorded
	traceSlots  = 256    // stack slots of one path
	traceRounds = 4      // restarts after a callee that can't be followed
)

// TraceCode is what Trace needs of an image, all by link-time address.
type TraceCode struct {
	// Read fills p with code from addr on; fewer bytes at the end of the text.
	Read func(addr uint64, p []byte) int
	// Extent tells where the function around addr begins and ends. nil or
	// false: not known.
	Extent func(addr uint64) (start, end uint64, ok bool)
	// Callee turns the target of a call into the function that it reaches:
	// through a linkage stub to a name and, inside the image, an address (0:
	// elsewhere). nil: targets are what they seem.
	Callee func(addr uint64) (name string, entry uint64)
	// Slot names the function whose address the pointer at addr holds (a GOT
	// entry), as Callee does. nil: unknown.
	Slot func(addr uint64) (name string, entry uint64)
	// Depth is how many calls deep functions of the image are followed.
	Depth int
	// Steps bounds the instructions interpreted where only what comes first is
	// of interest; 0: the limit of this package.
	Steps int
}

// Cond is a comparison that a path depends on: X against Y was Equal, or not.
// Other comparisons than for equality are kept with Known false.
type Cond struct {
	X, Y  Expr
	Equal bool
	Known bool
	Site  uint64
}

// Event is something that the function does on some path, in terms of what it
// got as arguments.
type Event struct {
	Kind  EventKind
	Site  uint64 // address of the instruction
	Conds []Cond // what the path depends on up to there, in order
	Level int    // 0: in the function itself, 1: in one that it calls ...

	Args   [10]Expr // EvCall: six registers, then the stack
	Name   string   // EvCall: the callee's name, "" when not known
	Target uint64   // EvCall: its address in the image, 0 when not known
	Callee Expr     // EvCall: where an indirect call goes

	Addr  Expr  // EvStore: where
	Value Expr  // EvStore, EvReturn (rax); EvCompare: the left side
	Other Expr  // EvReturn: rdx; EvCompare: the right side
	Size  uint8 // EvStore, EvCompare: bytes
}

// EventKind says what an Event is.
type EventKind uint8

// The kinds of Event.
const (
	EvReturn EventKind = iota
	EvCall
	EvStore   // outside the frame
	EvCompare // CMP and TEST
)

// Flow is what Trace found. Events are in the order in which paths were
// followed, without repetitions.
type Flow struct {
	Events []Event
	// Incomplete says why some path was not followed to its end; nil: all were.
	Incomplete error
}

// Of returns the events of one kind.
func (f *Flow) Of(k EventKind) []Event {
	var out []Event
	for _, e := range f.Events {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

// Always reports whether the event happens on every path: nothing was decided
// before.
func (e *Event) Always() bool { return len(e.Conds) == 0 }

// Trace follows all paths through the function at start and returns what it
// returns, passes, stores and compares as expressions of its arguments. Unlike
// Analyze it keeps paths apart, so it is for short functions, or for what
// larger ones do first; limits end it with Incomplete set.
func Trace(code TraceCode, start uint64) (*Flow, error) {
	if code.Steps <= 0 || code.Steps > traceSteps {
		code.Steps = traceSteps
	}
	refused := map[uint64]bool{}
	for range traceRounds {
		t := newTracer(code, start, refused)
		t.run()
		if !t.restart {
			return t.finish()
		}
	}
	code.Depth = 0
	t := newTracer(code, start, refused)
	t.run()
	return t.finish()
}

// tracer is the work of one Trace.
type tracer struct {
	code    TraceCode
	atoms   atoms
	flow    Flow
	seen    map[eventKey]bool
	insns   map[uint64]*traced
	work    []*path
	steps   int
	paths   int
	start   uint64
	refused map[uint64]bool // callees that couldn't be followed
	restart bool
}

// traced is a decoded instruction in both forms.
type traced struct {
	instr
	x   x86asm.Inst
	err error
}

// eventKey tells events apart; the path doesn't count.
type eventKey struct {
	kind               EventKind
	site               uint64
	addr, value, other Expr
	args               [10]Expr
}

// traceFrame is one followed call.
type traceFrame struct {
	ret        uint64 // where the caller goes on
	start, end uint64 // the function's code, end 0 when not known
	sp         Expr   // stack pointer at entry
	entry      uint64 // address that was called
	tail       bool   // entered by a jump: it returns to the caller of the frame before
}

// flags is what the last instruction that set the flags compared.
type traceFlags struct {
	x, y  Expr
	valid bool // of x compared with y
}

// path is one way through the function, up to pc.
type path struct {
	pc      uint64
	reg     [16]Expr
	slots   map[int64]traceSlot // by offset from the entry's stack pointer
	flags   traceFlags
	conds   []Cond
	frames  []traceFrame
	escaped int64 // lowest frame offset that others may write to
	fresh   int   // conds from here on are about memory as it still is
	visits  map[uint64]uint8
}

type traceSlot struct {
	size uint8
	val  Expr
}

func newTracer(code TraceCode, start uint64, refused map[uint64]bool) *tracer {
	t := &tracer{code: code, atoms: atoms{}, seen: map[eventKey]bool{}, insns: map[uint64]*traced{}, start: start, refused: refused}
	p := &path{pc: start, slots: map[int64]traceSlot{}, escaped: noEscape, visits: map[uint64]uint8{}}
	for r := range p.reg {
		p.reg[r] = t.atoms.get(Atom{Kind: AtomEntry, Arg: int16(r)})
	}
	for i, r := range argRegs {
		p.reg[r] = t.atoms.get(Atom{Kind: AtomArg, Arg: int16(i)})
	}
	sp := t.atoms.get(Atom{Kind: AtomFrame})
	p.reg[target.RSP] = sp
	for i := range int64(inSlots) {
		p.slots[8+8*i] = traceSlot{size: 8, val: t.atoms.get(Atom{Kind: AtomArg, Arg: int16(int(i) + len(argRegs))})}
	}
	f := traceFrame{start: start, sp: sp, entry: start}
	f.start, f.end = t.extent(start)
	p.frames = []traceFrame{f}
	t.work = []*path{p}
	return t
}

func (t *tracer) extent(addr uint64) (start, end uint64) {
	if t.code.Extent != nil {
		if s, e, ok := t.code.Extent(addr); ok && s <= addr && addr < e {
			return s, e
		}
	}
	return addr, 0
}

func (t *tracer) finish() (*Flow, error) {
	if len(t.flow.Events) == 0 && t.flow.Incomplete != nil {
		return nil, fmt.Errorf("function at %#x: %w", t.start, t.flow.Incomplete)
	}
	return &t.flow, nil
}

func (t *tracer) incomplete(err error) {
	if t.flow.Incomplete == nil {
		t.flow.Incomplete = err
	}
}

// run follows paths until none is left. The path that doesn't jump goes first.
func (t *tracer) run() {
	for len(t.work) > 0 && !t.restart {
		p := t.work[len(t.work)-1]
		t.work = t.work[:len(t.work)-1]
		if t.paths++; t.paths > tracePaths {
			t.incomplete(fmt.Errorf("%w: %d paths", ErrTooBig, tracePaths))
			return
		}
		for t.advance(p) {
			if t.steps++; t.steps > t.code.Steps {
				t.incomplete(fmt.Errorf("%w: %d steps", ErrTooBig, t.code.Steps))
				return
			}
		}
	}
}

// at decodes the instruction at addr.
func (t *tracer) at(addr uint64) *traced {
	if in := t.insns[addr]; in != nil {
		return in
	}
	var buf [maxInstr]byte
	n := t.code.Read(addr, buf[:])
	in := &traced{}
	if n <= 0 {
		in.err = fmt.Errorf("at %#x: %w", addr, ErrOutside)
	} else if in.instr, in.err = decode(buf[:min(n, len(buf))], addr); in.err == nil {
		in.x, _ = decodeGuarded(buf[:in.length]) // an operation that isn't known stays 0
	}
	t.insns[addr] = in
	return in
}

// fail ends a path that can't be followed. In a callee, the trace starts again
// without following that one.
func (t *tracer) fail(p *path, err error) bool {
	if n := len(p.frames); n > 1 {
		t.refused[p.frames[n-1].entry] = true
		t.restart = true
		return false
	}
	t.incomplete(err)
	return false
}

// advance interprets one instruction; false when the path ended.
func (t *tracer) advance(p *path) bool {
	in := t.at(p.pc)
	if in.err != nil {
		return t.fail(p, in.err)
	}
	switch in.class {
	case clReturn:
		return t.ret(p, in)
	case clStop:
		return false // never comes back: nothing is returned
	case clJump:
		return t.jump(p, in)
	case clBranch:
		return t.branch(p, in)
	case clJumpInd:
		return t.jumpIndirect(p, in)
	case clCall:
		return t.call(p, in)
	case clCmov:
		return t.cmov(p, in)
	}
	t.step(p, in)
	p.pc = in.next()
	return true
}

// fork copies a path.
func (p *path) fork() *path {
	c := *p
	c.slots = make(map[int64]traceSlot, len(p.slots))
	for k, v := range p.slots {
		c.slots[k] = v
	}
	c.visits = make(map[uint64]uint8, len(p.visits))
	for k, v := range p.visits {
		c.visits[k] = v
	}
	c.conds = slices.Clone(p.conds)
	c.frames = slices.Clone(p.frames)
	return &c
}

// event records what happens on the path, once.
func (t *tracer) event(p *path, e Event) {
	k := eventKey{kind: e.Kind, site: e.Site, addr: e.Addr, value: e.Value, other: e.Other, args: e.Args}
	if t.seen[k] {
		return
	}
	if len(t.flow.Events) >= traceEvents {
		t.incomplete(fmt.Errorf("%w: %d events", ErrTooBig, traceEvents))
		return
	}
	t.seen[k] = true
	e.Conds, e.Level = slices.Clone(p.conds), len(p.frames)-1
	t.flow.Events = append(t.flow.Events, e)
}

func (t *tracer) ret(p *path, in *traced) bool {
	f := p.frames[len(p.frames)-1]
	if p.reg[target.RSP] != f.sp {
		return t.fail(p, fmt.Errorf("at %#x: %w: return with the stack pointer elsewhere", in.addr, ErrMismatch))
	}
	for f.tail {
		p.frames = p.frames[:len(p.frames)-1]
		f = p.frames[len(p.frames)-1]
	}
	if len(p.frames) == 1 {
		t.returned(p, in)
		return false
	}
	p.frames = p.frames[:len(p.frames)-1]
	p.reg[target.RSP] = t.atoms.sum(f.sp, constExpr(8))
	p.pc = f.ret
	return true
}

func (t *tracer) returned(p *path, in *traced) {
	t.event(p, Event{Kind: EvReturn, Site: in.addr, Value: p.known(p.reg[target.RAX]), Other: p.known(p.reg[target.RDX])})
}

// known replaces a value by the constant that the path's conditions make it.
func (p *path) known(e Expr) Expr {
	for _, c := range p.conds {
		if c.Known && c.Equal && c.X == e {
			if _, ok := c.Y.Const(); ok {
				return c.Y
			}
		}
	}
	return e
}

// jump follows a direct jump; one that leaves the function with the stack as
// at entry is a tail call.
func (t *tracer) jump(p *path, in *traced) bool {
	f := &p.frames[len(p.frames)-1]
	if f.end != 0 && (in.target < f.start || in.target >= f.end) && p.reg[target.RSP] == f.sp {
		return t.tail(p, in, in.target)
	}
	if !t.again(p, in.addr) {
		return false
	}
	p.pc = in.target
	return true
}

// again counts how often the path comes through a jump; a loop ends it.
func (t *tracer) again(p *path, addr uint64) bool {
	if p.visits[addr]++; p.visits[addr] > traceLoop {
		t.incomplete(fmt.Errorf("at %#x: %w: a loop", addr, ErrTooBig))
		return false
	}
	return true
}

// branch splits the path, or takes the only way that its conditions leave.
func (t *tracer) branch(p *path, in *traced) bool {
	if !t.again(p, in.addr) {
		return false
	}
	switch in.branch {
	case x86asm.LOOP, x86asm.LOOPE, x86asm.LOOPNE:
		p.reg[target.RCX] = t.atoms.unknown(in.addr)
	case x86asm.XBEGIN:
		p.pc = in.next()
		return true // the transaction is taken to succeed: the other way does the same without it
	}
	yes, no := p.decide(in.branch)
	var other *path
	if yes && no {
		other = p.fork()
		other.assume(in.branch, true, in.addr)
		other.pc = in.target
		p.assume(in.branch, false, in.addr)
	}
	if yes && !no {
		p.pc = in.target
		return true
	}
	if other != nil {
		t.work = append(t.work, other)
	}
	p.pc = in.next()
	return true
}

func (t *tracer) jumpIndirect(p *path, in *traced) bool {
	f := &p.frames[len(p.frames)-1]
	if p.reg[target.RSP] != f.sp {
		return t.fail(p, fmt.Errorf("at %#x: %w", in.addr, ErrIndirect))
	}
	name, entry, callee := t.calleeOf(p, in)
	return t.tailTo(p, in, name, entry, callee)
}

// opaqueReturn ends a path, or a frame of it, in a function that isn't
// followed and that returns to the caller's caller.
func (t *tracer) opaqueReturn(p *path, in *traced) bool {
	t.clobberCall(p, in)
	return t.ret(p, in)
}

// tail follows a direct tail call.
func (t *tracer) tail(p *path, in *traced, to uint64) bool {
	name, entry := t.callee(to)
	return t.tailTo(p, in, name, entry, Expr{})
}

func (t *tracer) tailTo(p *path, in *traced, name string, entry uint64, callee Expr) bool {
	t.callEvent(p, in, name, entry, callee, 8)
	if noReturn[name] {
		return false
	}
	if !t.follow(p, entry) {
		return t.opaqueReturn(p, in)
	}
	start, end := t.extent(entry)
	sp := p.reg[target.RSP]
	p.frames = append(p.frames, traceFrame{start: start, end: end, sp: sp, entry: entry, tail: true})
	p.pc = entry
	return true
}

// Linkage recognises an entry of the procedure linkage table at addr: an
// optional ENDBR64 and a jump through the pointer at slot.
func Linkage(read func(addr uint64, p []byte) int, addr uint64) (slot uint64, ok bool) {
	var buf [2 * maxInstr]byte
	n := read(addr, buf[:])
	if n <= 0 {
		return 0, false
	}
	code := buf[:min(n, len(buf))]
	for range 2 {
		in, err := decode(code, addr)
		if err != nil {
			return 0, false
		}
		if in.class == clJumpInd {
			m := in.src.mem
			return uint64(m.disp), in.src.kind == opMem && m.base == noReg && m.index == noReg && !m.segment
		}
		if in.class != clNop {
			return 0, false
		}
		addr, code = in.next(), code[in.length:]
	}
	return 0, false
}
