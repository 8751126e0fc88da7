package unwind

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"

	"mycore/internal/cfi"
	"mycore/internal/target"
)

// The stack of most tests: leaf <- mid <- framed <- outer.
func chain(w *world) target.Regs {
	sp := stackLo + 0x1000
	w.put(sp, w.call(fnMid+0x40, fnLeaf)) // leaf's return address; CFA sp+8
	// mid's frame: CFA = sp+8+32
	w.put(sp+0x10, 0xc12) // r12 at CFA-24
	w.put(sp+0x18, 0xb3)  // rbx at CFA-16
	// mid was called by the last instruction of framed: the return address is
	// the first byte of outer
	w.put(sp+0x20, w.call(fnFramed+0x100, fnMid))
	// framed's frame: rbp = sp+0x60, CFA = sp+0x70
	w.put(sp+0x60, 0xbb)
	w.put(sp+0x68, w.call(fnOuter+0x20, 0))
	return regsOf(fnLeaf+bias, sp, map[int]uint64{
		target.RBX: 1, target.RBP: uint64(sp + 0x60), target.R12: 2, target.R13: 3, target.R14: 4,
		target.RAX: 5, target.RDI: 6, target.R10: 7,
	})
}

func chainFrames() []frame {
	sp := stackLo + 0x1000
	return []frame{
		{fnLeaf, TrustContext, "leaf", sp + 8},
		{fnMid + 0x40, TrustCFI, "mid", sp + 0x28},
		{fnFramed + 0x100, TrustCFI, "framed", sp + 0x70},
		{fnOuter + 0x20, TrustCFI, "outer", 0},
	}
}

func TestWalk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	regs := chain(w)
	s := w.u.Stack(regs)
	expect(t, s, StopOutermost, chainFrames()...)
	sp := uint64(stackLo + 0x1000)
	expectRegs(t, s.Frames[0], map[int]uint64{target.RIP: fnLeaf + bias, target.RSP: sp, target.RBX: 1, target.RBP: sp + 0x60,
		target.R12: 2, target.R13: 3, target.R14: 4, target.RAX: 5, target.RDI: 6, target.R10: 7})
	// what a call may change is unknown from here on; r15 was never known
	expectRegs(t, s.Frames[1], map[int]uint64{target.RIP: fnMid + 0x40 + bias, target.RSP: sp + 8, target.RBX: 1, target.RBP: sp + 0x60,
		target.R12: 2, target.R13: 3, target.R14: 4})
	expectRegs(t, s.Frames[2], map[int]uint64{target.RIP: fnFramed + 0x100 + bias, target.RSP: sp + 0x28, target.RBX: 0xb3, target.RBP: sp + 0x60,
		target.R12: 0xc12, target.R13: 3, target.R14: 4})
	expectRegs(t, s.Frames[3], map[int]uint64{target.RIP: fnOuter + 0x20 + bias, target.RSP: sp + 0x70, target.RBX: 0xb3, target.RBP: 0xbb,
		target.R12: 0xc12, target.R13: 3, target.R14: 4})
}

func TestFrameNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.u.Stack(chain(w))
	for i, want := range []struct {
		lookup             target.Addr
		start, end, offset uint64
	}{
		{fnLeaf + bias, fnLeaf, fnLeaf + 0x100, 0},
		{fnMid + 0x3f + bias, fnMid, fnMid + 0x100, 0x40},
		{fnFramed + 0xff + bias, fnFramed, fnFramed + 0x100, 0x100},
		{fnOuter + 0x1f + bias, fnOuter, fnOuter + 0x100, 0x20}, // size 0, same start
	} {
		f := s.Frames[i]
		if f.LookupPC != want.lookup || f.FuncStart != want.start || f.FuncEnd != want.end || f.Offset != want.offset || f.ModuleOffset != uint64(f.PC)-bias {
			t.Errorf("frame %d: %+v", i, f)
		}
		if e, ok := f.Entry(); !ok || e != target.Addr(want.start+bias) {
			t.Errorf("frame %d: entry %s, %v", i, e, ok)
		}
	}
	for _, tt := range []struct {
		pc, start, offset uint64
		name              string
	}{
		{fnMid + 0x7f, fnMid, 0x7f, "mid"},
		{fnMid + 0x80, fnMid, 0x80, ""},             // behind the symbol's size
		{fnMain + 8, fnMain, 8, ""},                 // a symbol without size starts elsewhere
		{fnNoInfo + 0x10, 0, 0x10, "noinfo"},        // no FDE, a symbol with size
		{fnNothing, 0, 0, ""},                       // neither: not the nearest
		{fnOuter, fnOuter, 0, "outer"},              // size 0
		{fnFramed + 0xff, fnFramed, 0xff, "framed"}, // the last byte
		{fnBroken + 0x10, fnBroken, 0x10, ""},       // an FDE whose program is broken still bounds it
		{fnAddr - 1, 0, 0, ""},                      // the last byte before one
	} {
		f := w.u.Stack(regsOf(tt.pc+bias, stackLo, nil)).Frames[0]
		if f.Function != tt.name || f.FuncStart != tt.start || f.Offset != tt.offset || f.ModuleOffset != tt.pc {
			t.Errorf("%#x: %+v", tt.pc, f)
		}
	}
	f := w.u.Stack(regsOf(0x1234, stackLo, nil)).Frames[0]
	if _, ok := f.Entry(); ok || f.ModuleOffset != 0 || f.Offset != 0 {
		t.Errorf("outside of modules: %+v", f)
	}
}

func TestFunctionRange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, a := range []uint64{fnMid, fnMid + 0xff} {
		if lo, hi, ok := w.u.FunctionRange(a + bias); !ok || lo != fnMid+bias || hi != fnMid+0x100+bias {
			t.Errorf("%#x: %#x to %#x, %v", a, lo, hi, ok)
		}
	}
	for _, a := range []uint64{fnNothing + bias, 0x1234} {
		if lo, hi, ok := w.u.FunctionRange(a); ok || lo != 0 || hi != 0 {
			t.Errorf("%#x: %#x to %#x, %v", a, lo, hi, ok)
		}
	}
}

// Rules of the less common kinds.
func TestWalkRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sp := stackLo + 0x1000
	w.put(sp+8, w.call(fnOuter+0x20, 0))
	w.put(sp+16, w.call(fnOuter+0x40, 0))
	// the PLT: one word more on the stack from byte 11 of a slot on
	expect(t, w.u.Stack(regsOf(fnExpr+0x10+bias, sp+8, nil)), StopOutermost,
		frame{fnExpr + 0x10, TrustContext, "", sp + 16}, frame{fnOuter + 0x20, TrustCFI, "outer", 0})
	expect(t, w.u.Stack(regsOf(fnExpr+0x1b+bias, sp+8, nil)), StopOutermost,
		frame{fnExpr + 0x1b, TrustContext, "", sp + 24}, frame{fnOuter + 0x40, TrustCFI, "outer", 0})
	// an address in an expression is a link-time one
	expect(t, w.u.Stack(regsOf(fnAddr+bias, sp, nil)), StopOutermost,
		frame{fnAddr, TrustContext, "", sp + 16}, frame{fnOuter + 0x20, TrustCFI, "outer", 0})
	// a known caller-saved register as CFA, in a prologue
	expect(t, w.u.Stack(regsOf(fnR10+4+bias, sp-64, map[int]uint64{target.R10: uint64(sp + 16)})), StopOutermost,
		frame{fnR10 + 4, TrustContext, "", sp + 16}, frame{fnOuter + 0x20, TrustCFI, "outer", 0})
	// return address in a register, a value offset, a register in another
	s := w.u.Stack(regsOf(fnOdd+bias, sp, map[int]uint64{target.RBX: w.call(fnOuter+0x60, 0), target.R13: 0x13, target.RBP: 1}))
	expect(t, s, StopOutermost, frame{fnOdd, TrustContext, "", sp + 8}, frame{fnOuter + 0x60, TrustCFI, "outer", 0})
	expectRegs(t, s.Frames[1], map[int]uint64{target.RIP: fnOuter + 0x60 + bias, target.RSP: uint64(sp + 8), target.RBX: fnOuter + 0x60 + bias,
		target.RBP: uint64(sp + 8), target.R12: 0x13, target.R13: 0x13})
}

// A register that can't be read becomes unknown, the walk goes on.
func TestWalkLostRegister(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mem = memory{textLo + bias: w.code, stackLo + 0x1018: w.stack[0x1018:]}
	w.u = newUnwinder(w.mem, w.space, Options{})
	sp := stackLo + 0x1008
	w.put(sp+0x10, 0xb3) // rbx; r12 at sp+8 isn't there
	w.put(sp+0x18, w.call(fnOuter+0x20, fnMid))
	s := w.u.Stack(regsOf(fnMid+0x10+bias, sp, map[int]uint64{target.RBX: 1, target.R12: 2}))
	expect(t, s, StopOutermost, frame{fnMid + 0x10, TrustContext, "mid", sp + 32}, frame{fnOuter + 0x20, TrustCFI, "outer", 0})
	expectRegs(t, s.Frames[1], map[int]uint64{target.RIP: fnOuter + 0x20 + bias, target.RSP: uint64(sp + 32), target.RBX: 0xb3})
}

// signalStack makes leaf be a handler on its own, lower or higher stack, that
// interrupted the first instruction of mid.
func signalStack(w *world, sp, interrupted target.Addr, ret, pc uint64) target.Regs {
	w.put(sp, ret+bias) // the kernel pushed this: no call stands before it
	uc := sp + 8
	w.put(uc+0x48, 0xc12)
	w.put(uc+0x78, 0xbb)
	w.put(uc+0x80, 0xb3)
	w.put(uc+0xa0, uint64(interrupted))
	w.put(uc+0xa8, pc)
	return regsOf(fnLeaf+0x10+bias, sp, map[int]uint64{target.RBX: 1, target.R14: 4})
}

func TestSignalFrame(t *testing.T) {
	t.Parallel()
	// below and above: an alternate stack. glibc's entry covers the byte before
	// the trampoline; one that starts at it must be found as well.
	for _, sp := range []target.Addr{stackLo + 0x100, stackLo + 0x4000} {
		for _, ret := range []uint64{fnReturn + 1, fnReturn} {
			w := newWorld(t)
			in := stackLo + 0x1000
			regs := signalStack(w, sp, in, ret, fnLeaf+bias)
			w.put(in, w.call(fnOuter+0x20, fnLeaf))
			s := w.u.Stack(regs)
			expect(t, s, StopOutermost,
				frame{fnLeaf + 0x10, TrustContext, "leaf", sp + 8},
				frame{ret, TrustCFI, "", in},
				frame{fnLeaf, TrustCFI, "leaf", in + 8}, // at its first byte: not looked up one before
				frame{fnOuter + 0x20, TrustCFI, "outer", 0})
			if s.Frames[0].SignalFrame || !s.Frames[1].SignalFrame || s.Frames[2].SignalFrame {
				t.Error("signal frame isn't marked, or another is")
			}
			if s.Frames[1].LookupPC != fnReturn+bias || s.Frames[2].LookupPC != s.Frames[2].PC {
				t.Errorf("looked up: trampoline at %s, interrupted frame at %s", s.Frames[1].LookupPC, s.Frames[2].LookupPC)
			}
			expectRegs(t, s.Frames[2], map[int]uint64{target.RIP: fnLeaf + bias, target.RSP: uint64(in), target.RBX: 0xb3, target.RBP: 0xbb, target.R12: 0xc12, target.R14: 4})
		}
	}
}

// A signal that came while the handler of another stood at the same
// instruction is no loop.
func TestSignalNested(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in, first, second := stackLo+0x1000, stackLo+0x800, stackLo+0x100
	w.put(in, w.call(fnOuter+0x20, fnLeaf))
	signalStack(w, first, in, fnReturn+1, fnLeaf+0x10+bias)
	regs := signalStack(w, second, first, fnReturn+1, fnLeaf+0x10+bias)
	expect(t, w.u.Stack(regs), StopOutermost,
		frame{fnLeaf + 0x10, TrustContext, "leaf", second + 8}, frame{fnReturn + 1, TrustCFI, "", first},
		frame{fnLeaf + 0x10, TrustCFI, "leaf", first + 8}, frame{fnReturn + 1, TrustCFI, "", in},
		frame{fnLeaf + 0x10, TrustCFI, "leaf", in + 8}, frame{fnOuter + 0x20, TrustCFI, "outer", 0})
}

// musl's trampoline has no call frame information: it is known by its code,
// and the kernel's record gives all registers.
func TestSignalTrampolineByCode(t *testing.T) {
	t.Parallel()
	for _, code := range [][]byte{trampolineLong, trampolineShort} {
		w := newWorld(t)
		sp, in := stackLo+0x4000, stackLo+0x1000
		copy(w.code[fnNothing+0x10-textLo:], code)
		regs := signalStack(w, sp, in, fnNothing+0x10, fnFramed+bias)
		w.put(sp+8+0x28, 8)    // r8
		w.put(sp+8+0x68, 0xd1) // rdi
		w.put(sp+8+0x78, uint64(in+0x20))
		w.put(in+0x28, w.call(fnOuter+0x20, fnFramed))
		s := w.u.Stack(regs)
		expect(t, s, StopOutermost,
			frame{fnLeaf + 0x10, TrustContext, "leaf", sp + 8},
			frame{fnNothing + 0x10, TrustCFI, "", in},
			frame{fnFramed, TrustContext, "framed", in + 0x30},
			frame{fnOuter + 0x20, TrustCFI, "outer", 0})
		if !s.Frames[1].SignalFrame || s.Frames[2].LookupPC != fnFramed+bias {
			t.Errorf("%+v", s.Frames)
		}
		expectRegs(t, s.Frames[2], map[int]uint64{target.RIP: fnFramed + bias, target.RSP: uint64(in), target.RBX: 0xb3, target.RBP: uint64(in + 0x20),
			target.R12: 0xc12, target.R8: 8, target.RDI: 0xd1, target.RAX: 0, target.RDX: 0, target.RCX: 0, target.RSI: 0,
			target.R9: 0, target.R10: 0, target.R11: 0, target.R13: 0, target.R14: 0, target.R15: 0})
	}
}

// A handler that ran because a null function pointer was called.
func TestSignalOverNullCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := stackLo + 0x1000
	regs := signalStack(w, stackLo+0x100, in, fnReturn+1, 0)
	w.put(in, w.call(fnOuter+0x20, 0))
	s := w.u.Stack(regs)
	expect(t, s, StopOutermost,
		frame{fnLeaf + 0x10, TrustContext, "leaf", stackLo + 0x108},
		frame{fnReturn + 1, TrustCFI, "", in},
		frame{0, TrustCFI, "", in + 8},
		frame{fnOuter + 0x20, TrustScan, "outer", 0})
	if v, ok := s.Frames[3].Regs.Get(target.RBX); !ok || v != 0xb3 {
		t.Errorf("rbx of the caller: %#x, %v; nothing could have changed it", v, ok)
	}
}

func TestNullCall(t *testing.T) {
	t.Parallel()
	for _, pc := range []uint64{0, 0xdeadbeef0000} {
		w := newWorld(t)
		sp := stackLo + 0x1000
		w.put(sp, w.call(fnMain+0x20, 0))
		w.put(sp+16, w.call(fnOuter+0x20, 0))
		s := w.u.Stack(regsOf(pc, sp, map[int]uint64{target.RBX: 1, target.RDI: 2}))
		expect(t, s, StopOutermost, frame{pc, TrustContext, "", sp + 8}, frame{fnMain + 0x20, TrustScan, "", sp + 24}, frame{fnOuter + 0x20, TrustCFI, "outer", 0})
		expectRegs(t, s.Frames[1], map[int]uint64{target.RIP: fnMain + 0x20 + bias, target.RSP: uint64(sp + 8), target.RBX: 1})
	}
	// without a return address on top nothing is made up
	w := newWorld(t)
	s := w.u.Stack(regsOf(0, stackLo+0x1000, nil))
	expect(t, s, StopNoModule, frame{0, TrustContext, "", 0})
}

func TestStackEnds(t *testing.T) {
	t.Parallel()
	sp := stackLo + 0x1000
	tests := []struct {
		name string
		make func(*world) target.Regs
		stop Stop
		want []frame
		msg  string
	}{
		{"return address 0", func(*world) target.Regs { return regsOf(fnExpr+bias, sp, nil) }, StopOutermost,
			[]frame{{fnExpr, TrustContext, "", sp + 8}}, ""},
		{"return address 0 where no thread starts", func(*world) target.Regs { return regsOf(fnLeaf+bias, sp, nil) }, StopCorrupt,
			[]frame{{fnLeaf, TrustContext, "leaf", sp + 8}}, "return address of leaf is 0"},
		{"no return address undefined", func(*world) target.Regs { return regsOf(fnOuter+bias, sp, nil) }, StopOutermost,
			[]frame{{fnOuter, TrustContext, "outer", 0}}, ""},
		{"return address in no module", func(w *world) target.Regs { w.put(sp, 0x1234); return regsOf(fnLeaf+bias, sp, nil) }, StopNoModule,
			[]frame{{fnLeaf, TrustContext, "leaf", sp + 8}, {0x1234 - bias + bias, TrustCFI, "", 0}}, "0x1234 is in no module"},
		{"CFA below the stack pointer", func(*world) target.Regs { return regsOf(fnBelow+bias, sp, nil) }, StopCorrupt,
			[]frame{{fnBelow, TrustContext, "", 0}}, "not above the stack pointer"},
		{"CFA at the stack pointer", func(*world) target.Regs {
			return regsOf(fnR10+bias, sp, map[int]uint64{target.R10: uint64(sp)})
		}, StopCorrupt, []frame{{fnR10, TrustContext, "", 0}}, "not above the stack pointer"},
		{"stack not readable", func(*world) target.Regs { return regsOf(fnLeaf+bias, stackHi+0x1000, nil) }, StopMemory,
			[]frame{{fnLeaf, TrustContext, "leaf", 0}}, "not mapped"},
		{"stack ends", func(*world) target.Regs { return regsOf(fnMid+bias, stackHi-24, nil) }, StopMemory,
			[]frame{{fnMid, TrustContext, "mid", 0}}, "not mapped"},
		{"stack pointer at the top of the address space", func(*world) target.Regs { return regsOf(fnLeaf+bias, ^target.Addr(3), nil) }, StopCorrupt,
			[]frame{{fnLeaf, TrustContext, "leaf", 0}}, ""},
		{"unknown register", func(*world) target.Regs { return regsOf(fnFramed+bias, sp, nil) }, StopUnknownRegister,
			[]frame{{fnFramed, TrustContext, "framed", 0}}, "register not known: 6"},
		{"unknown stack pointer", func(*world) target.Regs {
			r := regsOf(fnLeaf+bias, sp, nil)
			r.Forget(target.RSP)
			return r
		}, StopUnknownRegister, []frame{{fnLeaf, TrustContext, "leaf", 0}}, "register not known: 7"},
		{"no rule for the return address", func(*world) target.Regs { return regsOf(fnNoRA+bias, sp, nil) }, StopNoInfo,
			[]frame{{fnNoRA, TrustContext, "", 0}}, "return address"},
		{"no FDE", func(*world) target.Regs { return regsOf(fnNothing+bias, sp, nil) }, StopNoInfo,
			[]frame{{fnNothing, TrustContext, "", 0}}, "no call frame information"},
		{"broken FDE", func(*world) target.Regs { return regsOf(fnBroken+bias, sp, nil) }, StopNoInfo,
			[]frame{{fnBroken, TrustContext, "", 0}}, "not remembered"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			s := w.u.Stack(tt.make(w))
			if tt.name == "return address in no module" { // a runtime address that looks like a link-time one
				if len(s.Frames) != 2 || s.Frames[1].PC != 0x1234 || s.Frames[1].Module != nil || s.Stop != tt.stop || !strings.Contains(s.Err.Error(), tt.msg) {
					t.Fatalf("%+v", s)
				}
				return
			}
			expect(t, s, tt.stop, tt.want...)
			if tt.msg != "" && !strings.Contains(s.Err.Error(), tt.msg) {
				t.Errorf("message %q lacks %q", s.Err, tt.msg)
			}
			if tt.stop == StopMemory && !isReadError(s.Err) {
				t.Errorf("%v doesn't carry the read error", s.Err)
			}
		})
	}
}

func TestNoContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.u.Stack(target.Regs{Arch: target.AMD64})
	if s.Stop != StopNoContext || s.Err == nil || len(s.Frames) != 0 {
		t.Errorf("%+v", s)
	}
	r := target.Regs{Arch: target.ARM64}
	r.Set(target.A64PC, fnLeaf+bias)
	r.Set(target.A64SP, uint64(stackLo))
	r.Set(target.A64LR, fnMid+bias)
	s = w.u.Stack(r)
	expect(t, s, StopArch, frame{fnLeaf, TrustContext, "leaf", 0})
	if v, ok := s.Frames[0].Regs.Get(target.A64LR); !ok || v != fnMid+bias {
		t.Errorf("link register %#x, %v", v, ok)
	}
}

// Recursion ends at the limit, and says so.
func TestFrameLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ret := w.call(fnLeaf+0x20, fnLeaf)
	for a := stackLo; a < stackHi; a += 8 {
		w.put(a, ret)
	}
	u := newUnwinder(w.mem, w.space, Options{MaxFrames: 100})
	s := u.Stack(regsOf(fnLeaf+bias, stackLo, nil))
	if len(s.Frames) != 100 || s.Stop != StopLimit || s.Frames[99].PC != target.Addr(ret) {
		t.Errorf("%d frames, %q", len(s.Frames), s.Stop)
	}
	s = w.u.Stack(regsOf(fnLeaf+bias, stackLo, nil))
	if len(s.Frames) != DefaultMaxFrames || s.Stop != StopLimit {
		t.Errorf("%d frames, %q", len(s.Frames), s.Stop)
	}
}

// A signal frame that leads to itself.
func TestSignalLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sp := stackLo + 0x1000
	w.put(sp+0xa0, uint64(sp))
	w.put(sp+0xa8, fnReturn+0x10+bias)
	s := w.u.Stack(regsOf(fnReturn+0x10+bias, sp, nil))
	expect(t, s, StopCorrupt, frame{fnReturn + 0x10, TrustContext, "", sp})
}

// A module without its binary ends the walk and is named.
func TestNoBinary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const other = target.Addr(0x7f0000000000)
	w.space.images[other] = &image{bias: uint64(other), missing: errors.New("no binary for /usr/sbin/mysqld: no file found")}
	sp := stackLo + 0x1000
	w.put(sp, uint64(other)+0x500)
	for a := sp + 16; a < sp+64; a += 8 {
		w.put(a, w.call(fnOuter+0x20, 0)) // a scan would jump to it
	}
	s := w.u.Stack(regsOf(fnLeaf+bias, sp, nil))
	expect(t, s, StopNoBinary, frame{fnLeaf, TrustContext, "leaf", sp + 8}, frame{uint64(other) + 0x500, TrustCFI, "", 0})
	if !strings.Contains(s.Err.Error(), "/usr/sbin/mysqld") {
		t.Error(s.Err)
	}
	if s.Frames[1].ModuleOffset != 0x500 {
		t.Errorf("offset %#x in the missing module", s.Frames[1].ModuleOffset)
	}
	// with a chain of frame pointers the walk goes on
	bp := sp + 0x100
	w.put(bp, uint64(sp+0x200))
	w.put(bp+8, w.call(fnOuter+0x20, 0))
	s = w.u.Stack(regsOf(fnLeaf+bias, sp, map[int]uint64{target.RBP: uint64(bp)}))
	expect(t, s, StopOutermost, frame{fnLeaf, TrustContext, "leaf", sp + 8}, frame{uint64(other) + 0x500, TrustCFI, "", bp + 16},
		frame{fnOuter + 0x20, TrustFramePointer, "outer", 0})
}

// The program's entry code has no caller, with call frame information that
// pretends otherwise or with none, and may be named by a symbol without size.
func TestEntryCode(t *testing.T) {
	t.Parallel()
	for _, entry := range []uint64{fnLeaf, fnNothing} {
		w := newWorld(t)
		img := w.space.images[textLo+bias]
		img.entry = entry
		img.syms = fakeSymbols{{Name: "_start", Start: entry}}
		sp := stackLo + 0x1000
		w.put(sp, w.call(fnMid+0x40, 0))
		expect(t, w.u.Stack(regsOf(entry+0x20+bias, sp, nil)), StopOutermost, frame{entry + 0x20, TrustContext, "_start", 0})
	}
	w := newWorld(t)
	w.space.images[textLo+bias].entry = fnNothing
	s := w.u.Stack(regsOf(fnNothing+maxEntryCode+bias, stackLo, nil))
	expect(t, s, StopNoInfo, frame{fnNothing + maxEntryCode, TrustContext, "", 0})
}

// Later tables are asked when the first has nothing, and the reason of a
// broken one is kept.
func TestTables(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	img := w.space.images[textLo+bias]
	broken := errors.New("table is broken")
	img.tables = []finder{brokenTable{cfi.ErrNoFDE}, brokenTable{broken}, img.tables[0]}
	expect(t, w.u.Stack(chain(w)), StopOutermost, chainFrames()...)
	s := w.u.Stack(regsOf(fnNothing+bias, stackLo+0x2000, nil))
	if s.Stop != StopNoInfo || !errors.Is(s.Err, broken) {
		t.Errorf("%q, %v", s.Stop, s.Err)
	}
}

// All walks of one unwinder agree, whoever fills the caches.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	regs := chain(w)
	want := newUnwinder(w.mem, w.space, Options{}).Stack(regs)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got := w.u.Stack(regs); !reflect.DeepEqual(got, want) {
					t.Errorf("%+v", got)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A result stays as it is when the walker is used again.
func TestResultsAreSeparate(t *testing.T) {
	w := newWorld(t)
	regs := chain(w)
	first := w.u.Stack(regs)
	v, _ := first.Frames[0].Regs.Get(target.RBX)
	w.u.Stack(regsOf(fnLeaf+bias, stackLo, map[int]uint64{target.RBX: 99, target.RBP: 98}))
	expect(t, first, StopOutermost, chainFrames()...)
	if again, _ := first.Frames[0].Regs.Get(target.RBX); again != v {
		t.Errorf("rbx changed from %#x to %#x", v, again)
	}
	if n := testing.AllocsPerRun(100, func() { w.u.Stack(regs) }); n > 3 && !raceEnabled {
		t.Errorf("%v allocations per warm walk, want frames and registers only", n)
	}
}

func BenchmarkStack(b *testing.B) {
	w := newWorld(b)
	regs := chain(w)
	b.ReportAllocs()
	for b.Loop() {
		if s := w.u.Stack(regs); len(s.Frames) != 4 {
			b.Fatal(s)
		}
	}
}
