package unwind

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"mycore/internal/cfi"
	"mycore/internal/target"
)

// calleeSaved are the registers that a function keeps for its caller by the
// convention of x86-64 (System V psABI AMD64, figure 3.4). A table that says
// nothing about one of them says that it wasn't changed; about the others,
// nothing is known after a call.
const calleeSaved = 1<<target.RBX | 1<<target.RBP | 1<<target.R12 | 1<<target.R13 | 1<<target.R14 | 1<<target.R15

// general is how many registers of x86-64 are followed: 16 and the rip column.
const general = target.RIP + 1

// walker is the state of one walk. It is reused: a walk allocates its result.
type walker struct {
	u      *Unwinder
	regs   target.Regs // of the current frame
	next   target.Regs // of its caller, while they are recovered
	frames []Frame
	spans  []span // where each frame's registers are in slab
	slab   []uint64
	eval   cfi.Evaluator
	stack  window
	scan   int // words that may still be scanned

	code [longestCall]byte // in front of a return address
	body []byte            // of a function that is measured
}

type span struct{ from, to int }

func newWalker(u *Unwinder) *walker {
	w := &walker{u: u}
	w.stack.mem = u.mem
	w.eval.Regs = &w.regs
	w.eval.Mem = &w.stack
	return w
}

// walk collects frames until max; stop and err are the reason given when the
// walk ends there.
func (u *Unwinder) walk(regs target.Regs, max int, stop Stop, err error) Stack {
	w := u.pool.Get().(*walker)
	defer u.pool.Put(w)
	w.reset(regs)
	s, e := w.run(max, stop, err)
	return w.result(s, e)
}

func (w *walker) reset(regs target.Regs) {
	w.regs = regs
	w.frames, w.spans, w.slab = w.frames[:0], w.spans[:0], w.slab[:0]
	w.stack.forget()
	w.eval.Steps = cfi.DefaultSteps
	w.scan = scanBudget
}

func (w *walker) run(max int, stop Stop, err error) (Stop, error) {
	trust, called := TrustContext, false
	for {
		pc, ok := w.regs.PC()
		if !ok {
			return StopNoContext, errors.New("the program counter isn't known")
		}
		s := w.u.site(pc, called)
		w.add(pc, s, trust)
		if len(w.frames) >= max {
			return stop, err
		}
		how, done, why := w.step(pc, s, !called)
		if done != "" {
			return done, why
		}
		trust = how
		called = !s.signal || trust != TrustCFI && trust != TrustContext
		if !called && w.seen() {
			return StopCorrupt, fmt.Errorf("signal frame %d leads back to an earlier frame", len(w.frames)-1)
		}
	}
}

// add appends the current frame.
func (w *walker) add(pc target.Addr, s *site, trust Trust) {
	f := Frame{
		PC: pc, LookupPC: s.lookup, Trust: trust,
		ModuleOffset: s.offset, FuncStart: s.start, FuncEnd: s.end,
		Function: s.function, Offset: s.within, SignalFrame: s.signal,
	}
	if s.img != nil {
		f.Module = s.img.module
	}
	from := len(w.slab)
	for n := range target.MaxRegs {
		if v, ok := w.regs.Get(n); ok {
			f.Regs.known |= 1 << uint(n)
			w.slab = append(w.slab, v)
		}
	}
	w.frames = append(w.frames, f)
	w.spans = append(w.spans, span{from, len(w.slab)})
}

// result copies what was collected into slices of the exact size.
func (w *walker) result(stop Stop, err error) Stack {
	out := Stack{Stop: stop, Err: err}
	if len(w.frames) == 0 {
		return out
	}
	out.Frames = make([]Frame, len(w.frames))
	copy(out.Frames, w.frames)
	slab := make([]uint64, len(w.slab))
	copy(slab, w.slab)
	for i, s := range w.spans {
		out.Frames[i].Regs.v = slab[s.from:s.to:s.to]
	}
	clear(w.frames) // the pool must not keep modules alive
	return out
}

// seen says that the frame a signal frame leads to was there before.
func (w *walker) seen() bool {
	pc, _ := w.regs.PC()
	sp, ok := w.regs.SP()
	for i := range w.frames {
		v, known := w.frames[i].reg(w, i, target.RSP)
		if w.frames[i].PC == pc && known == ok && target.Addr(v) == sp {
			return true
		}
	}
	return false
}

// reg reads a register of a frame whose values are still in the slab.
func (f *Frame) reg(w *walker, i, n int) (uint64, bool) {
	return Registers{known: f.Regs.known, v: w.slab[w.spans[i].from:w.spans[i].to]}.Get(n)
}

// step moves the registers to the caller. interrupted says that the current
// frame isn't in a call: frame 0, or the one below a signal frame. A reason
// other than "" ends the walk.
func (w *walker) step(pc target.Addr, s *site, interrupted bool) (Trust, Stop, error) {
	if !interrupted && pc == 0 {
		return "", StopOutermost, nil
	}
	stop, err := w.byCFI(s)
	if stop == "" {
		if pc, _ := w.next.PC(); pc == 0 && !s.signal {
			w.setCFA()
			if !s.mayStart() {
				return "", StopCorrupt, fmt.Errorf("the return address of %s is 0, and no thread starts there", s.function)
			}
			return "", StopOutermost, nil
		}
		w.commit()
		return TrustCFI, "", nil
	}
	if stop == StopOutermost || stop == StopMemory || stop == StopCorrupt {
		return "", stop, err
	}
	if stop == StopNoInfo && s.row == nil && interrupted && w.byStub() {
		w.commit()
		return TrustCFI, "", nil
	}
	if how := w.fallback(s, interrupted); how != "" {
		w.commit()
		return how, "", nil
	}
	return "", stop, err
}

// commit takes the recovered registers; the CFA of the frame they came from is
// the caller's stack pointer.
func (w *walker) commit() {
	w.setCFA()
	w.regs = w.next
}

func (w *walker) setCFA() {
	f := &w.frames[len(w.frames)-1]
	if w.eval.HasCFA {
		f.CFA, f.HasCFA = target.Addr(w.eval.CFA), true
	}
}

// byCFI recovers the caller's registers by the row of call frame information.
// "" says that it did.
func (w *walker) byCFI(s *site) (Stop, error) {
	w.eval.HasCFA = false
	pc, _ := w.regs.PC()
	switch {
	case s.entry:
		return StopOutermost, nil
	case s.img == nil:
		return StopNoModule, fmt.Errorf("%#x is in no module", uint64(pc))
	case s.img.missing != nil:
		return StopNoBinary, s.img.missing
	case s.row == nil:
		return StopNoInfo, fmt.Errorf("function at %#x: %w", uint64(pc), s.err)
	}
	if s.row.Reg(s.row.RAReg).Kind == cfi.RuleUndefined {
		return StopOutermost, nil
	}
	w.eval.Bias = s.img.bias
	cfa, err := w.cfa(s.row)
	if err != nil {
		return reason(err), fmt.Errorf("frame %d at %#x: CFA: %w", len(w.frames)-1, uint64(pc), err)
	}
	// The stack grows downwards, so a caller's part is higher up. A signal
	// frame alone may lead to another stack.
	if sp, ok := w.regs.SP(); ok && cfa <= uint64(sp) && !s.row.SignalFrame {
		return StopCorrupt, fmt.Errorf("frame %d at %#x: CFA %#x is not above the stack pointer %#x", len(w.frames)-1, uint64(pc), cfa, uint64(sp))
	}
	w.eval.CFA, w.eval.HasCFA = cfa, true
	if err := w.recover(s.row); err != nil {
		w.eval.HasCFA = false
		return reason(err), fmt.Errorf("frame %d at %#x: return address: %w", len(w.frames)-1, uint64(pc), err)
	}
	return "", nil
}

// reason turns an error of a rule into the reason why the walk ends.
func reason(err error) Stop {
	var re *target.ReadError
	switch {
	case errors.Is(err, cfi.ErrUnknownRegister):
		return StopUnknownRegister
	case errors.As(err, &re):
		return StopMemory
	}
	return StopNoInfo
}

func (w *walker) cfa(row *cfi.Row) (uint64, error) {
	switch row.CFA.Kind {
	case cfi.RuleRegOffset:
		v, ok := w.regs.Get(int(row.CFA.Reg))
		if !ok {
			return 0, fmt.Errorf("%w: %d", cfi.ErrUnknownRegister, row.CFA.Reg)
		}
		return v + uint64(row.CFA.Offset), nil
	case cfi.RuleValExpr:
		return w.eval.Eval(row.Expr(row.CFA), false)
	}
	return 0, fmt.Errorf("%w: no rule", cfi.ErrExpr)
}

// recover fills next from the rules. Only a return address that can't be had
// is an error; any other register becomes unknown.
func (w *walker) recover(row *cfi.Row) error {
	w.next = target.Regs{Arch: w.regs.Arch}
	for n := range general {
		if n == row.RAReg {
			continue
		}
		rule := row.Reg(n)
		if rule.Kind == cfi.RuleUnspecified {
			w.unspecified(n)
			continue
		}
		if v, err := w.value(row, n, rule); err == nil {
			w.next.Set(n, v)
		}
	}
	ra, err := w.value(row, row.RAReg, row.Reg(row.RAReg))
	if err != nil {
		return err
	}
	w.next.Set(target.RIP, ra)
	return nil
}

// unspecified applies the calling convention to a register without a rule.
func (w *walker) unspecified(n int) {
	if n == target.RSP {
		w.next.Set(n, w.eval.CFA) // by definition of the CFA on x86-64
		return
	}
	if calleeSaved&(1<<uint(n)) != 0 {
		if v, ok := w.regs.Get(n); ok {
			w.next.Set(n, v)
		}
	}
}

// value gives what register n is in the caller.
func (w *walker) value(row *cfi.Row, n int, rule cfi.Rule) (uint64, error) {
	switch rule.Kind {
	case cfi.RuleSameValue:
		return w.register(n)
	case cfi.RuleRegister:
		return w.register(int(rule.Reg))
	case cfi.RuleOffset:
		return w.stack.word(target.Addr(w.eval.CFA + uint64(rule.Offset)))
	case cfi.RuleValOffset:
		return w.eval.CFA + uint64(rule.Offset), nil
	case cfi.RuleExpr:
		at, err := w.eval.Eval(row.Expr(rule), true)
		if err != nil {
			return 0, err
		}
		return w.stack.word(target.Addr(at))
	case cfi.RuleValExpr:
		return w.eval.Eval(row.Expr(rule), true)
	}
	return 0, fmt.Errorf("register %d is %s", n, rule.Kind)
}

func (w *walker) register(n int) (uint64, error) {
	v, ok := w.regs.Get(n)
	if !ok {
		return 0, fmt.Errorf("%w: %d", cfi.ErrUnknownRegister, n)
	}
	return v, nil
}

// pageSize is the piece in which stacks are read: one read of the core gives
// the words of several frames.
const pageSize = 4096

// window is target memory read a page at a time. It implements target.Memory
// for the expressions, and is for one walk.
type window struct {
	mem  target.Memory
	base target.Addr
	n    int
	buf  [pageSize]byte
	tmp  [8]byte
}

func (m *window) forget() { m.base, m.n = 0, 0 }

// word reads 8 bytes.
func (m *window) word(a target.Addr) (uint64, error) {
	if a > math.MaxUint64-8 {
		return 0, &target.ReadError{Addr: a, Len: 8, Err: target.ErrNotMapped}
	}
	if m.load(a, 8) {
		return binary.LittleEndian.Uint64(m.buf[a-m.base:]), nil
	}
	if n, err := m.mem.ReadMemory(a, m.tmp[:]); n < 8 {
		return 0, short(a, n, 8, err)
	}
	return binary.LittleEndian.Uint64(m.tmp[:]), nil
}

// load makes [a, a+n) lie in the window, if one page can hold it.
func (m *window) load(a target.Addr, n int) bool {
	if a >= m.base && a-m.base <= target.Addr(m.n) && m.n-int(a-m.base) >= n {
		return true
	}
	base := a &^ (pageSize - 1)
	if int(a-base)+n > pageSize || base == m.base && m.n > 0 {
		return false
	}
	got, _ := m.mem.ReadMemory(base, m.buf[:])
	m.base, m.n = base, max(got, 0)
	return m.n-int(a-base) >= n
}

// ReadMemory implements target.Memory.
func (m *window) ReadMemory(a target.Addr, p []byte) (int, error) {
	if a <= math.MaxUint64-pageSize && m.load(a, len(p)) {
		return copy(p, m.buf[a-m.base:]), nil
	}
	return m.mem.ReadMemory(a, p)
}

// short makes an error of a read that gave too little without one.
func short(a target.Addr, n, want int, err error) error {
	if err != nil {
		return err
	}
	return &target.ReadError{Addr: a + target.Addr(n), Len: want - n, Err: target.ErrNotMapped}
}
