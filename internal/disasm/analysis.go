package disasm

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"slices"

	"mycore/internal/target"
)

// Code is the machine code of one function at its addresses in the target.
type Code struct {
	Start uint64 // the function's entry
	Bytes []byte
	// Part returns the code range (that of an FDE) around an address outside
	// Bytes to which the function jumps: compilers put rarely run blocks
	// elsewhere. nil: there is nothing else.
	Part func(addr uint64) (start uint64, code []byte, ok bool)
	// Memory is for jump tables and procedure linkage; nil: neither is read.
	Memory target.Memory
}

// part is one contiguous range of the function's code.
type part struct {
	start uint64
	code  []byte
	index []int32 // per byte: 1 + number of the decoded instruction, -1 undecodable
	marks []uint8 // per byte, of this pass: leader, reached
}

// The marks of an address.
const (
	leader  = 1 << iota // it is jumped to
	reached             // some path comes through the instruction there
)

func (p *part) marked(addr uint64, m uint8) bool { return p.marks[addr-p.start]&m != 0 }

func (p *part) contains(addr uint64) bool { return addr-p.start < uint64(len(p.code)) }

// Analysis is what is known about one function at each of its instructions.
// It is immutable and safe for concurrent use.
type Analysis struct {
	code  Code
	parts []*part
	insns []instr

	in      map[uint64]*state // what holds at addresses that are jumped to
	order   []uint64          // leaders with a state, ascending
	pending addrHeap
	queued  map[uint64]bool

	targets map[uint64][]uint64 // of indirect jumps, by the jump's address
	broken  map[uint64]error    // jumps that couldn't be followed, by address
	orphans []uint64            // code that no jump leads to: landing pads, unknown jump targets
	handler *state              // what holds at orphans
	grown   bool                // new targets or parts came to light
	lenient bool                // decoding orphans: failures don't count
	steps   int
	frozen  bool

	aligned   bool
	alignFrom int64
	alignMask int64 // minus the alignment
	sets      [][]int64
}

type addrHeap []uint64

func (h addrHeap) Len() int           { return len(h) }
func (h addrHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h addrHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *addrHeap) Push(x any)        { *h = append(*h, x.(uint64)) }
func (h *addrHeap) Pop() any {
	last := len(*h) - 1
	v := (*h)[last]
	*h = (*h)[:last]
	return v
}

// Analyze follows the values of a function from its entry. The cost is that of
// decoding its code and of a few passes over it; see the limits in this
// package.
func Analyze(code Code) (*Analysis, error) {
	a := &Analysis{code: code, targets: map[uint64][]uint64{}}
	if err := a.addPart(code.Start, code.Bytes); err != nil {
		return nil, err
	}
	for range maxRound {
		a.grown = false
		if err := a.pass(); err != nil {
			return nil, fmt.Errorf("function at %#x: %w", code.Start, err)
		}
		if !a.grown && !a.findOrphans() {
			return a.finish()
		}
	}
	return nil, fmt.Errorf("function at %#x: %w: %d passes", code.Start, ErrTooBig, maxRound)
}

// finish fails the analysis when a jump remained that nothing could follow.
func (a *Analysis) finish() (*Analysis, error) {
	var worst uint64
	for addr := range a.broken {
		if worst == 0 || addr < worst {
			worst = addr
		}
	}
	if worst != 0 {
		return nil, fmt.Errorf("function at %#x: %w", a.code.Start, a.broken[worst])
	}
	for addr := range a.in {
		a.order = append(a.order, addr)
	}
	slices.Sort(a.order)
	a.pending, a.queued, a.handler, a.frozen = nil, nil, nil, true
	return a, nil
}

func (a *Analysis) addPart(start uint64, code []byte) error {
	switch {
	case len(code) == 0:
		return fmt.Errorf("function at %#x: %w: no code", start, ErrUndecodable)
	case len(code) > maxCode || len(a.parts) == maxParts:
		return fmt.Errorf("function at %#x: %w: %d bytes, %d parts", start, ErrTooBig, len(code), len(a.parts))
	case start+uint64(len(code)) < start:
		return fmt.Errorf("function at %#x: %w: %d bytes wrap around", start, ErrTooBig, len(code))
	}
	a.parts = append(a.parts, &part{start: start, code: code, index: make([]int32, len(code)), marks: make([]uint8, len(code))})
	return nil
}

func (a *Analysis) partOf(addr uint64) *part {
	for _, p := range a.parts {
		if p.contains(addr) {
			return p
		}
	}
	return nil
}

// at returns the instruction at an address inside a part.
func (a *Analysis) at(p *part, addr uint64) (*instr, error) {
	i := &p.index[addr-p.start]
	switch {
	case *i > 0:
		return &a.insns[*i-1], nil
	case *i == 0:
		if len(a.insns) == maxInsns {
			return nil, fmt.Errorf("%w: %d instructions", ErrTooBig, maxInsns)
		}
		in, err := decode(p.code[addr-p.start:], addr)
		if err == nil {
			a.insns = append(a.insns, in)
			*i = int32(len(a.insns))
			return &a.insns[*i-1], nil
		}
		*i = -1
		return nil, err
	}
	return nil, fmt.Errorf("at %#x: %w", addr, ErrUndecodable)
}

// pass finds all reachable code with the jump targets known so far, and then
// what holds there.
func (a *Analysis) pass() error {
	for _, p := range a.parts {
		clear(p.marks)
	}
	a.in, a.queued, a.broken = map[uint64]*state{}, map[uint64]bool{}, map[uint64]error{}
	a.handler = nil
	roots := []uint64{a.code.Start}
	for _, t := range a.targets {
		roots = append(roots, t...)
	}
	a.lenient = false
	if err := a.discover(roots); err != nil {
		return err
	}
	a.lenient = true
	if err := a.discover(a.orphans); err != nil {
		return err
	}
	a.flow(a.code.Start, entryState())
	return a.settle()
}

// discover decodes everything that is reachable from roots and notes the
// addresses that are jumped to.
func (a *Analysis) discover(roots []uint64) error {
	work := slices.Clone(roots)
	for _, r := range roots {
		if p := a.partOf(r); p != nil {
			p.marks[r-p.start] |= leader
		}
	}
	for len(work) > 0 {
		addr := work[len(work)-1]
		work = work[:len(work)-1]
		for {
			p := a.partOf(addr)
			if p == nil || p.marked(addr, reached) {
				break
			}
			in, err := a.at(p, addr)
			if err != nil {
				if a.lenient {
					break
				}
				return err
			}
			p.marks[addr-p.start] |= reached
			if in.class == clJump || in.class == clBranch {
				if to := a.partOf(in.target); to != nil {
					to.marks[in.target-to.start] |= leader
					work = append(work, in.target)
				}
			}
			if in.ends() {
				break
			}
			addr = in.next()
		}
	}
	return nil
}

// ends reports whether the instruction never continues with the next one.
func (in *instr) ends() bool {
	switch in.class {
	case clJump, clJumpInd, clReturn, clStop:
		return true
	}
	return false
}

// flow joins a state into that of an address which is jumped to.
func (a *Analysis) flow(addr uint64, s *state) {
	old := a.in[addr]
	switch {
	case old == nil:
		c := s.clone()
		c.cmp, c.eqRSP = compare{}, noReg
		a.in[addr] = c
	case !a.join(old, s):
		return
	}
	if !a.queued[addr] {
		a.queued[addr] = true
		heap.Push(&a.pending, addr)
	}
}

// settle runs until no state changes any more.
func (a *Analysis) settle() error {
	for {
		for len(a.pending) > 0 {
			addr := heap.Pop(&a.pending).(uint64)
			delete(a.queued, addr)
			if err := a.walk(addr); err != nil {
				a.pending = nil
				return err
			}
		}
		if a.handler == nil {
			return nil
		}
		a.steps += len(a.orphans)
		for _, o := range a.orphans {
			a.flow(o, a.handler)
		}
		if len(a.pending) == 0 {
			return nil
		}
	}
}

// walk interprets from an address that is jumped to up to the next one.
func (a *Analysis) walk(addr uint64) error {
	s := a.in[addr].clone()
	for first := true; ; first = false {
		p := a.partOf(addr)
		if p == nil || !p.marked(addr, reached) {
			return nil // behind the end of a part there is only a call that never returns
		}
		if !first && p.marked(addr, leader) {
			a.flow(addr, s)
			return nil
		}
		in, err := a.at(p, addr)
		if err != nil {
			return err
		}
		if a.steps++; a.steps > maxSteps {
			return fmt.Errorf("%w: %d steps", ErrTooBig, maxSteps)
		}
		a.step(s, in)
		switch in.class {
		case clCall:
			a.mayResume(s)
		case clJump:
			a.leave(s, in)
			return nil
		case clBranch:
			taken := s.clone()
			taken.refine(in.branch, true)
			a.leave(taken, in)
			s.refine(in.branch, false)
		case clJumpInd:
			a.jumpIndirect(s, in)
			return nil
		case clReturn, clStop:
			return nil
		}
		addr = in.next()
		if in.class != clCall && in.class != clNop && !p.contains(addr) {
			a.broken[in.addr] = fmt.Errorf("at %#x: %w: the code ends there", in.addr, ErrOutside)
		}
	}
}

// mayResume joins a state into the one of landing pads and of code to which no
// known jump leads.
func (a *Analysis) mayResume(s *state) {
	if len(a.orphans) == 0 {
		return
	}
	if a.handler == nil {
		a.handler = s.clone()
		return
	}
	a.join(a.handler, s)
}

// atEntryDepth reports whether the stack pointer is where it was at the
// function's entry: a jump away then is a tail call.
func (s *state) atEntryDepth() bool {
	return s.reg[target.RSP] == value{kind: vStack, base: baseCFA, n: -8}
}

// leave follows a direct jump or branch.
func (a *Analysis) leave(s *state, in *instr) {
	delete(a.broken, in.addr)
	if a.partOf(in.target) != nil {
		a.flow(in.target, s)
		return
	}
	if in.class == clJump && s.atEntryDepth() {
		return
	}
	if !a.fetch(in.target) && !s.atEntryDepth() {
		a.broken[in.addr] = fmt.Errorf("at %#x: %w: %#x", in.addr, ErrOutside, in.target)
	}
}

// fetch gets the part of the function around an address outside the known
// ones; the next pass then follows the jump.
func (a *Analysis) fetch(addr uint64) bool {
	if a.code.Part == nil {
		return false
	}
	start, code, ok := a.code.Part(addr)
	if !ok || addr-start >= uint64(len(code)) || a.overlaps(start, code) || a.addPart(start, code) != nil {
		return false
	}
	a.grown = true
	return true
}

func (a *Analysis) overlaps(start uint64, code []byte) bool {
	end := start + uint64(len(code))
	for _, p := range a.parts {
		if end < start || start < p.start+uint64(len(p.code)) && p.start < end {
			return true
		}
	}
	return false
}

// jumpIndirect follows a jump through a table; one that leaves the function
// with the stack as at entry is a tail call.
func (a *Analysis) jumpIndirect(s *state, in *instr) {
	a.mayResume(s)
	delete(a.broken, in.addr)
	v := value{}
	if in.src.kind == opReg {
		v = s.reg[in.src.reg]
	} else if t, ok := s.tableAt(in.src); ok {
		v = t
	}
	known := a.targets[in.addr]
	found := a.resolve(v, s.bound)
	a.steps += len(found) + len(known)
	for _, t := range found {
		if a.partOf(t) == nil && !a.fetch(t) {
			a.broken[in.addr] = fmt.Errorf("at %#x: %w: %#x", in.addr, ErrOutside, t)
			return
		}
		if i, ok := slices.BinarySearch(known, t); !ok {
			known = slices.Insert(known, i, t)
			a.grown = true
		}
	}
	a.targets[in.addr] = known
	for _, t := range known {
		if p := a.partOf(t); p.marked(t, leader) {
			a.flow(t, s)
		}
	}
	tabled := v.kind == vTarget || v.kind == vTable
	if (!tabled || len(known) == 0) && !s.atEntryDepth() {
		a.broken[in.addr] = fmt.Errorf("at %#x: %w", in.addr, ErrIndirect)
	}
}

// resolve reads the jump table that v comes from, up to the index bound; when
// that is -1, unknown, up to the first entry that leads out of the function.
func (a *Analysis) resolve(v value, bound int64) (targets []uint64) {
	if v.kind != vTarget && v.kind != vTable || a.code.Memory == nil {
		return nil
	}
	n := int64(maxTable)
	if bound >= 0 {
		n = min(n, bound+1)
	}
	size := 4
	if v.kind == vTable {
		size = int(v.reg)
		if size != 8 {
			return nil
		}
	}
	buf := make([]byte, int(n)*size)
	got, err := a.code.Memory.ReadMemory(target.Addr(v.n), buf)
	if err != nil && bound >= 0 {
		return nil // a table that isn't all there is no table
	}
	for i := 0; i+size <= min(got, len(buf)); i += size {
		t := uint64(v.n) + uint64(int64(int32(binary.LittleEndian.Uint32(buf[i:]))))
		if size == 8 {
			t = binary.LittleEndian.Uint64(buf[i:])
		}
		if bound < 0 && a.partOf(t) == nil {
			break
		}
		targets = append(targets, t)
	}
	slices.Sort(targets)
	return slices.Compact(targets)
}

// union is the set of numbers that x or y may be.
func (a *Analysis) union(x, y value) value {
	set := slices.Concat(a.numbers(x), a.numbers(y))
	slices.Sort(set)
	set = slices.Compact(set)
	if len(set) > maxConst {
		return value{}
	}
	for i, s := range a.sets {
		if slices.Equal(s, set) {
			return value{kind: vSet, n: int64(i)}
		}
	}
	if a.frozen || len(a.sets) == maxSlots {
		return value{}
	}
	a.sets = append(a.sets, set)
	return value{kind: vSet, n: int64(len(a.sets) - 1)}
}

// numbers lists what a constant or a set may be.
func (a *Analysis) numbers(v value) []int64 {
	if v.kind == vSet {
		return a.sets[v.n]
	}
	return []int64{v.n}
}
