package unwind

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"mycore/internal/target"
)

// fnStub is where the tests put a stub: a place without call frame information
// and without symbol, as FreeBSD's libc has them.
const fnStub = fnNothing + 0x40

// Stubs of FreeBSD's libc and libthr (lib/libc/amd64/SYS.h;
// lib/libthr/arch/amd64/amd64/_umtx_op_err.S), and the conditional jump behind.
var (
	stub32 = []byte{0xb8, 5, 0, 0, 0, 0x49, 0x89, 0xca, 0x0f, 0x05, 0x0f, 0x82, 0, 0, 0, 0, 0xc3}
	stub64 = []byte{0x48, 0xc7, 0xc0, 0xc6, 1, 0, 0, 0x49, 0x89, 0xca, 0x0f, 0x05, 0xc3}
)

// onStub puts a thread on the stub's syscall instruction, or at bytes behind
// that; it was called by mid.
func onStub(w *world, code []byte, at int) target.Regs {
	copy(w.code[fnStub-textLo:], code)
	sp := stackLo + 0x1000
	w.put(sp, w.call(fnMid+0x40, fnStub))
	// mid's frame: CFA = sp+8+32, then outer
	w.put(sp+0x10, 0xc12)
	w.put(sp+0x18, 0xb3)
	w.put(sp+0x20, w.call(fnOuter+0x20, fnMid))
	enter := bytes.Index(code, []byte{0x0f, 0x05})
	return regsOf(fnStub+bias+uint64(enter+at), sp, map[int]uint64{
		target.RBX: 1, target.RBP: 2, target.R12: 3, target.R13: 4, target.R14: 5, target.R15: 6,
		target.RAX: 7, target.RDI: 8, target.R10: 9, target.RCX: 10,
	})
}

func TestStub(t *testing.T) {
	t.Parallel()
	for name, code := range map[string][]byte{"32-bit number": stub32, "64-bit number": stub64} {
		for _, at := range []int{0, 2} { // on the instruction (ERESTART), and behind it
			t.Run(fmt.Sprintf("%s, %d", name, at), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				regs := onStub(w, code, at)
				pc, _ := regs.PC()
				s := w.u.Stack(regs)
				sp := stackLo + 0x1000
				expect(t, s, StopOutermost,
					frame{uint64(pc), TrustContext, "", sp + 8},
					frame{fnMid + 0x40, TrustCFI, "mid", sp + 0x28},
					frame{fnOuter + 0x20, TrustCFI, "outer", 0})
				// What a call preserves is as it was; the rest is unknown.
				expectRegs(t, s.Frames[1], map[int]uint64{target.RIP: fnMid + 0x40 + bias, target.RSP: uint64(sp + 8),
					target.RBX: 1, target.RBP: 2, target.R12: 3, target.R13: 4, target.R14: 5, target.R15: 6})
			})
		}
	}
}

// Whatever isn't proved to be a stub is none: frames behind it aren't trusted.
func TestStubMutants(t *testing.T) {
	t.Parallel()
	untrusted := func(t *testing.T, w *world, regs target.Regs) {
		t.Helper()
		s := w.u.Stack(regs)
		if len(s.Frames) > 1 && s.Frames[1].Trust == TrustCFI {
			t.Errorf("frame 1 is trusted: %+v", s.Frames)
		}
	}
	for name, code := range map[string][]byte{"32-bit number": stub32, "64-bit number": stub64} {
		enter := bytes.Index(code, []byte{0x0f, 0x05})
		ops := []int{enter - 3, enter - 2, enter - 1, enter, enter + 1} // mov %rcx,%r10; syscall
		if code[0] == 0xb8 {
			ops = append(ops, 0)
		} else {
			ops = append(ops, 0, 1, 2)
		}
		for _, at := range []int{0, 2} {
			for _, i := range ops {
				t.Run(fmt.Sprintf("%s, %d, byte %d", name, at, i), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					bad := slices.Clone(code)
					regs := onStub(w, code, at)
					bad[i] ^= 0x10
					copy(w.code[fnStub-textLo:], bad)
					untrusted(t, w, regs)
				})
			}
		}
		for _, at := range []int{-3, -1, 1, 3, 8} {
			t.Run(fmt.Sprintf("%s, elsewhere %d", name, at), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				untrusted(t, w, onStub(w, code, at))
			})
		}
	}
	t.Run("return address is no code", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		regs := onStub(w, stub32, 2)
		w.put(stackLo+0x1000, uint64(stackLo)+0x2000)
		untrusted(t, w, regs)
	})
	t.Run("nothing is code", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		regs := onStub(w, stub32, 2)
		w.space.noExec = true
		untrusted(t, w, regs)
	})
	t.Run("no stack", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		regs := onStub(w, stub32, 2)
		regs.Set(target.RSP, 0x10)
		untrusted(t, w, regs)
	})
	t.Run("program counter too small", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for _, pc := range []uint64{0, 1, stubCode - 1, ^uint64(0), ^uint64(1)} {
			if w.u.inStub(target.Addr(pc)) {
				t.Errorf("%#x is in a stub", pc)
			}
		}
	})
}
