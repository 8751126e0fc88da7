package unwind

import (
	"testing"

	"mycore/internal/target"
)

// noInfoFrame is frame 0 of the tests here: code without call frame
// information.
func noInfoFrame(cfa target.Addr) frame {
	return frame{fnNoInfo + 0x10, TrustContext, "noinfo", cfa}
}

func TestFramePointer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sp, bp := stackLo+0x1000, stackLo+0x1080
	w.put(bp, uint64(bp+0x40))
	w.put(bp+8, w.call(fnFramed+0x20, fnNoInfo))
	w.put(bp+0x40, 0xbb)
	w.put(bp+0x48, w.call(fnOuter+0x20, 0))
	s := w.u.Stack(regsOf(fnNoInfo+0x10+bias, sp, map[int]uint64{target.RBP: uint64(bp), target.RBX: 1}))
	expect(t, s, StopOutermost, noInfoFrame(bp+16), frame{fnFramed + 0x20, TrustFramePointer, "framed", bp + 0x50}, frame{fnOuter + 0x20, TrustCFI, "outer", 0})
	expectRegs(t, s.Frames[1], map[int]uint64{target.RIP: fnFramed + 0x20 + bias, target.RSP: uint64(bp + 16), target.RBP: uint64(bp + 0x40)})
	expectRegs(t, s.Frames[2], map[int]uint64{target.RIP: fnOuter + 0x20 + bias, target.RSP: uint64(bp + 0x50), target.RBP: 0xbb})
}

// An rbp that isn't a frame pointer isn't followed.
func TestFramePointerRefused(t *testing.T) {
	t.Parallel()
	sp := stackLo + 0x1000
	good := func(w *world) uint64 { return w.call(fnOuter+0x20, fnNoInfo) }
	for name, tt := range map[string]struct {
		bp   target.Addr
		ret  func(*world) uint64
		scan bool // the scan finds the word all the same
	}{
		"below the stack pointer": {sp - 8, good, true},
		"not aligned":             {sp + 0x81, good, false},
		"not on the stack":        {stackHi + 0x80, good, false},
		"at the end of the stack": {stackHi - 8, good, false},
		"at the top of memory":    {^target.Addr(7), good, false},
		"not after a call":        {sp + 0x80, func(*world) uint64 { return fnOuter + 0x20 + bias }, false},
		"return address outside":  {sp + 0x80, func(*world) uint64 { return 0x1234 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.stack = append(w.stack, make([]byte, 0x1000)...) // another mapping follows the stack
			w.mem[stackLo] = w.stack
			if tt.bp < stackHi+0x1000 {
				w.put(tt.bp+8, tt.ret(w))
			}
			s := w.u.Stack(regsOf(fnNoInfo+0x10+bias, sp, map[int]uint64{target.RBP: uint64(tt.bp)}))
			if tt.scan {
				expect(t, s, StopOutermost, noInfoFrame(tt.bp+16), frame{fnOuter + 0x20, TrustScan, "outer", 0})
				return
			}
			expect(t, s, StopNoInfo, noInfoFrame(0))
		})
	}
	// the same frame with a good pointer is followed, so the cases above mean something
	w := newWorld(t)
	w.put(sp+0x88, w.call(fnOuter+0x20, fnNoInfo))
	s := w.u.Stack(regsOf(fnNoInfo+0x10+bias, sp, map[int]uint64{target.RBP: uint64(sp + 0x80)}))
	expect(t, s, StopOutermost, noInfoFrame(sp+0x90), frame{fnOuter + 0x20, TrustFramePointer, "outer", 0})
}

func TestScan(t *testing.T) {
	t.Parallel()
	sp := stackLo + 0x1000
	w := newWorld(t)
	w.put(sp+0x08, fnMain+0x20+bias)           // into code, but not after a call
	w.put(sp+0x10, uint64(stackLo))            // no code at all
	w.put(sp+0x18, w.call(fnNothing+0x20, 0))  // after a call, but in no function that is known
	w.put(sp+0x20, w.call(fnMain+0x40, 0))     // after a call
	w.put(sp+0x28, w.call(fnMain+0x60, fnMid)) // after a call to another function
	w.put(sp+0x30, w.call(fnOuter+0x20, 0))    // main's own return address, if main is the caller
	s := w.u.Stack(regsOf(fnNoInfo+0x10+bias, sp, map[int]uint64{target.RBX: 1}))
	expect(t, s, StopOutermost, noInfoFrame(sp+0x28), frame{fnMain + 0x40, TrustScan, "", sp + 0x38}, frame{fnOuter + 0x20, TrustCFI, "outer", 0})
	expectRegs(t, s.Frames[1], map[int]uint64{target.RIP: fnMain + 0x40 + bias, target.RSP: uint64(sp + 0x28)})
}

// Code is only where it may be executed.
func TestFallbackNeedsExecutableMemory(t *testing.T) {
	t.Parallel()
	sp := stackLo + 0x1000
	w := newWorld(t)
	w.space.noExec = true
	w.put(sp+0x20, w.call(fnOuter+0x20, fnNoInfo))
	w.put(sp+0x88, w.call(fnOuter+0x40, fnNoInfo))
	s := w.u.Stack(regsOf(fnNoInfo+0x10+bias, sp, map[int]uint64{target.RBP: uint64(sp + 0x80)}))
	expect(t, s, StopNoInfo, noInfoFrame(0))
}

// A direct call to the very function is better than a nearer call of
// something else; that needs the function's start.
func TestScanPrefersOwnCaller(t *testing.T) {
	t.Parallel()
	sp := stackLo + 0x1000
	w := newWorld(t)
	w.put(sp+0x20, w.call(fnMain+0x40, 0))
	w.put(sp+0x60, w.call(fnOuter+0x40, fnFramed))
	s := w.u.Stack(regsOf(fnFramed+0x10+bias, sp, nil)) // needs rbp, which isn't known
	expect(t, s, StopOutermost, frame{fnFramed + 0x10, TrustContext, "framed", sp + 0x68}, frame{fnOuter + 0x40, TrustScan, "outer", 0})
}

// A nearer direct call to the function counts more than a frame pointer, which
// would skip its caller.
func TestOwnCallerBeforeFramePointer(t *testing.T) {
	t.Parallel()
	sp, bp := stackLo+0x1000, stackLo+0x1080
	for _, near := range []uint64{fnNoInfo, fnMid} {
		w := newWorld(t)
		w.put(sp+0x20, w.call(fnMain+0x40, near))
		w.put(sp+0x30, w.call(fnOuter+0x20, 0)) // main's return address
		w.put(bp, 0xbb)
		w.put(bp+8, w.call(fnOuter+0x40, 0))
		s := w.u.Stack(regsOf(fnNoInfo+0x10+bias, sp, map[int]uint64{target.RBP: uint64(bp)}))
		if near == fnNoInfo {
			expect(t, s, StopOutermost, noInfoFrame(sp+0x28), frame{fnMain + 0x40, TrustScan, "", sp + 0x38}, frame{fnOuter + 0x20, TrustCFI, "outer", 0})
		} else {
			expect(t, s, StopOutermost, noInfoFrame(bp+16), frame{fnOuter + 0x40, TrustFramePointer, "outer", 0})
		}
	}
}

// Where the function pushed rbp first thing, the scan knows the caller's.
func TestScanKeepsPushedRBP(t *testing.T) {
	t.Parallel()
	sp := stackLo + 0x1000
	for _, tt := range []struct {
		name string
		code []byte
		pc   uint64
		ok   bool
	}{
		{"push", []byte{0x55, 0x48, 0x89, 0xe5}, fnNoInfo + 0x10, true},
		{"endbr64, push", []byte{0xf3, 0x0f, 0x1e, 0xfa, 0x55}, fnNoInfo + 0x10, true},
		{"not yet pushed", []byte{0x55, 0x48, 0x89, 0xe5}, fnNoInfo, false},
		{"endbr64, not yet pushed", []byte{0xf3, 0x0f, 0x1e, 0xfa, 0x55}, fnNoInfo + 4, false},
		{"push of another", []byte{0x53, 0x55}, fnNoInfo + 0x10, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			copy(w.code[fnNoInfo-textLo:], tt.code)
			w.put(sp+0x20, uint64(sp+0x60))
			w.put(sp+0x28, w.call(fnFramed+0x20, fnNoInfo))
			w.put(sp+0x68, w.call(fnOuter+0x20, fnFramed))
			s := w.u.Stack(regsOf(tt.pc+bias, sp, nil))
			how := TrustCFI
			if !tt.ok {
				how = TrustScan
			}
			expect(t, s, StopOutermost, frame{tt.pc, TrustContext, "noinfo", sp + 0x30}, frame{fnFramed + 0x20, TrustScan, "framed", sp + 0x70}, frame{fnOuter + 0x20, how, "outer", 0})
		})
	}
}

// The tail of a longer instruction that looks like a call isn't one.
func TestScanMeasuresInstructions(t *testing.T) {
	t.Parallel()
	sp := stackLo + 0x1000
	w := newWorld(t)
	copy(w.code[fnMain+0x20-textLo-5:], []byte{0xb8, 0x90, 0x90, 0xff, 0xd0}) // mov $0xd0ff9090,%eax
	w.put(sp, fnMain+0x20+bias)
	s := w.u.Stack(regsOf(fnNoInfo+0x10+bias, sp, nil))
	expect(t, s, StopNoInfo, noInfoFrame(0))
}

func TestScanBounds(t *testing.T) {
	t.Parallel()
	sp := stackLo + 0x1000
	for _, tt := range []struct {
		name string
		at   target.Addr
		sp   target.Addr
		ok   bool
	}{
		{"last word within reach", sp + 8*(scanWords-1), sp, true},
		{"first word beyond", sp + 8*scanWords, sp, false},
		{"last word of the stack", stackHi - 8, stackHi - 64, true},
		{"stack pointer not aligned", sp + 0x1c, sp + 4, false},
		{"stack pointer elsewhere", sp + 0x20, 0x1000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.put(tt.at, w.call(fnOuter+0x20, 0))
			s := w.u.Stack(regsOf(fnNoInfo+0x10+bias, tt.sp, nil))
			if tt.ok {
				expect(t, s, StopOutermost, noInfoFrame(tt.at+8), frame{fnOuter + 0x20, TrustScan, "outer", 0})
			} else {
				expect(t, s, StopNoInfo, noInfoFrame(0))
			}
		})
	}
}

// The words of all scans of one stack have one limit.
func TestScanBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// code without information that calls itself, 1000 words apart
	img := w.space.images[textLo+bias]
	img.tables = nil
	ret := w.call(fnNoInfo+0x40, 0)
	sp := stackLo
	n := 0
	for a := sp + 8*500; a < stackHi; a += 8 * 500 {
		w.put(a, ret)
		n++
	}
	s := w.u.Stack(regsOf(fnNoInfo+0x10+bias, sp, nil))
	if want := 1 + scanBudget/(500+betterReach); len(s.Frames) != min(want, n+1) || s.Stop != StopNoInfo {
		t.Errorf("%d frames, %q; %d words are within the budget", len(s.Frames), s.Stop, scanBudget)
	}
}
