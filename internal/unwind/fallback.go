package unwind

import (
	"mycore/internal/disasm"
	"mycore/internal/target"
)

// longestCall is more than the bytes of any call instruction of x86-64: two
// prefixes, opcode, ModRM, SIB and a 32-bit displacement.
const longestCall = 16

// How well a word on the stack fits as the return address of a frame.
const (
	noFit     = iota
	afterCall // a call instruction stands in front of it
	callsUs   // a direct call to the frame's own function does
)

// afterBadCall handles a call through a null or wild pointer: the program
// counter is in no code, nothing of the called function ran, so the return
// address is still on top of the stack and the registers that calls preserve
// are the caller's.
func (w *walker) afterBadCall() bool {
	sp, ok := w.regs.SP()
	if !ok {
		return false
	}
	ret, err := w.stack.word(sp)
	if err != nil || w.scanned(target.Addr(ret), nil) == noFit {
		return false
	}
	w.next = target.Regs{Arch: w.regs.Arch}
	for n := range general {
		if v, ok := w.regs.Get(n); ok && calleeSaved&(1<<uint(n)) != 0 {
			w.next.Set(n, v)
		}
	}
	w.arrive(target.Addr(ret), sp+8)
	return true
}

// fallback tries everything but call frame information, and says what worked;
// "" is nothing. A frame pointer skips the caller of a function that doesn't
// set it up, so a direct call to this very function that lies nearer counts
// more.
func (w *walker) fallback(s *site, interrupted bool) Trust {
	switch {
	case s.kernel && w.bySignalContext():
		return TrustContext
	case s.img == nil && interrupted && w.afterBadCall():
		return TrustScan
	}
	sp, ok := w.regs.SP()
	if !ok {
		return ""
	}
	_, hi, ok := w.u.space.extent(sp)
	if !ok {
		return ""
	}
	if bp, ret, fit := w.chained(s, sp, hi); fit != noFit {
		if fit != callsUs && s.begin != 0 {
			if at, r, near := w.search(s, sp, bp); near == callsUs {
				w.byScan(s, at, r, near)
				return TrustScan
			}
		}
		return w.byFramePointer(bp, ret)
	}
	if s.img != nil && s.img.missing != nil {
		return "" // a scan would jump over all frames of the binary
	}
	at, ret, fit := w.search(s, sp, hi)
	if fit == noFit {
		return ""
	}
	w.byScan(s, at, ret, fit)
	return TrustScan
}

// chained says whether rbp points to a saved rbp and a return address between
// sp and the end of the stack.
func (w *walker) chained(s *site, sp, hi target.Addr) (bp, ret target.Addr, fit int) {
	v, known := w.regs.Get(target.RBP)
	bp = target.Addr(v)
	if !known || bp%8 != 0 || bp < sp || hi < 16 || bp > hi-16 {
		return 0, 0, noFit
	}
	word, err := w.stack.word(bp + 8)
	if err != nil {
		return 0, 0, noFit
	}
	ret = target.Addr(word)
	return bp, ret, w.fit(ret, s)
}

// byFramePointer takes the caller's rbp and pc from the chain. Which other
// registers the function saved isn't known.
func (w *walker) byFramePointer(bp, ret target.Addr) Trust {
	up, err := w.stack.word(bp)
	if err != nil {
		return ""
	}
	w.next = target.Regs{Arch: w.regs.Arch}
	w.next.Set(target.RBP, up)
	w.arrive(ret, bp+16)
	return TrustFramePointer
}

// search looks from sp upwards, to hi at most, for a return address. A direct
// call to this very function is the best find within reach; else it is the
// first that follows any call.
func (w *walker) search(s *site, sp, hi target.Addr) (at, ret target.Addr, fit int) {
	if sp%8 != 0 || hi < sp {
		return 0, 0, noFit
	}
	words := min(uint64(hi-sp)/8, scanWords, uint64(w.scan))
	for i := uint64(0); i < words; i++ {
		w.scan--
		slot := sp + target.Addr(8*i)
		v, err := w.stack.word(slot)
		if err != nil {
			break
		}
		switch f := w.scanned(target.Addr(v), s); {
		case f == callsUs:
			return slot, target.Addr(v), f
		case f > fit:
			at, ret, fit = slot, target.Addr(v), f
			if s.begin == 0 {
				return at, ret, fit // the function isn't known: nothing better can come
			}
			words = min(words, i+1+betterReach)
		}
	}
	return at, ret, fit
}

// byScan takes what a search found. The registers that the function changed
// aren't known, but for rbp where it is the first that the function pushed.
func (w *walker) byScan(s *site, at, ret target.Addr, fit int) {
	w.next = target.Regs{Arch: w.regs.Arch}
	if fit == callsUs && w.pushesRBP(s) {
		if v, err := w.stack.word(at - 8); err == nil {
			w.next.Set(target.RBP, v)
		}
	}
	w.arrive(ret, at+8)
}

// The first instructions of a function that sets up a frame pointer.
var (
	endbr64 = [...]byte{0xf3, 0x0f, 0x1e, 0xfa}
	pushRBP = byte(0x55)
)

// pushesRBP says that the frame's function pushed rbp first thing, and has
// done so.
func (w *walker) pushesRBP(s *site) bool {
	var skip target.Addr
	b := w.code[:len(endbr64)+1]
	if n, _ := w.u.mem.ReadMemory(s.begin, b); n < len(b) {
		return false
	}
	if [len(endbr64)]byte(b) == endbr64 {
		skip = target.Addr(len(endbr64))
	}
	pc, _ := w.regs.PC()
	return b[skip] == pushRBP && pc > s.begin+skip
}

// arrive sets program counter and stack pointer after a return.
func (w *walker) arrive(ret, sp target.Addr) {
	w.next.Set(target.RIP, uint64(ret))
	w.next.Set(target.RSP, uint64(sp))
	w.eval.CFA, w.eval.HasCFA = uint64(sp), true
}

// fit says how well ret serves as return address of a frame at s.
func (w *walker) fit(ret target.Addr, s *site) int {
	if ret < longestCall || !w.u.space.executable(ret) || w.u.space.at(ret-1) == nil {
		return noFit
	}
	if n, _ := w.u.mem.ReadMemory(ret-longestCall, w.code[:]); n < longestCall {
		return noFit
	}
	call, ok := disasm.FollowsCall(w.code[:])
	switch {
	case !ok:
		return noFit
	case call.Direct && s != nil && s.begin != 0 && ret+target.Addr(int64(call.Displacement)) == s.begin:
		return callsUs
	}
	return afterCall
}

// scanned is fit for a word that nothing but its place on the stack speaks
// for. The function around it must be known, unless it calls the frame's own
// function, and its instructions, measured from its start, must put a call
// there: neither a pointer into the middle of code nor the tail of another
// instruction is to be taken for one.
func (w *walker) scanned(ret target.Addr, s *site) int {
	fit := w.fit(ret, s)
	if fit == noFit {
		return noFit
	}
	caller := w.u.site(ret, true)
	if caller.begin == 0 {
		if fit == callsUs || len(caller.img.tables) == 0 {
			return fit
		}
		return noFit
	}
	start := caller.begin
	if caller.end != 0 { // of several parts of a function, the one with the call
		start = target.Addr(caller.start + caller.img.bias)
	}
	if !w.measured(start, ret) {
		return noFit
	}
	return fit
}

// measured says whether the code from start on has a call in front of ret.
// Code that can't be read or is too long to measure is given the benefit of
// the doubt.
func (w *walker) measured(start, ret target.Addr) bool {
	size := uint64(ret - start)
	if size > maxFunction {
		return true
	}
	if uint64(cap(w.body)) < size {
		w.body = make([]byte, size)
	}
	b := w.body[:size]
	if n, _ := w.u.mem.ReadMemory(start, b); n < len(b) {
		return true
	}
	_, ok := disasm.CallBefore(b, uint64(start), uint64(ret))
	return ok
}
