package unwind

import (
	"encoding/binary"
	"testing"

	"mycore/internal/target"
)

// FuzzWalk walks a stack of any bytes from any registers, over code with any
// bytes. Invariants: checkStack's, the frame limit, and the same result twice.
func FuzzWalk(f *testing.F) {
	w := newWorld(f)
	chain(w)
	f.Add(w.stack[0x1000:0x1100], []byte{}, uint64(fnLeaf), uint64(0x1060), uint8(0))
	signalStack(w, stackLo+0x100, stackLo+0x1000, fnReturn+1, fnLeaf+bias)
	f.Add(w.stack[0x100:0x300], []byte{}, uint64(fnLeaf+0x10), uint64(0), uint8(1))
	f.Add(w.stack[0x1000:0x1100], []byte{0xe8, 0, 0, 0, 0, 0xff, 0xd0}, uint64(fnNoInfo+0x10), uint64(0x1010), uint8(2))
	f.Add([]byte{}, trampolineLong, uint64(fnNothing), uint64(0), uint8(3))
	f.Fuzz(func(t *testing.T, stack, code []byte, pc, bp uint64, known uint8) {
		w := newWorld(t)
		copy(w.stack[0x1000:], stack)
		for i := 0; i+8 <= len(stack) && i < 0x4000; i += 8 { // small numbers become addresses of the world
			switch v := binary.LittleEndian.Uint64(w.stack[0x1000+i:]); {
			case v < 0x1000:
				w.put(stackLo+0x1000+target.Addr(i), uint64(stackLo)+0x1000+v*8)
			case v < textHi:
				w.put(stackLo+0x1000+target.Addr(i), v+bias)
			}
		}
		if len(code) > 0 {
			for i := range w.code {
				w.code[i] = code[i%len(code)]
			}
		}
		regs := regsOf(pc%0x4000+bias, stackLo+0x1000, map[int]uint64{target.RBX: pc, target.R13: bp})
		if known&1 != 0 {
			regs.Set(target.RBP, uint64(stackLo)+bp%0x8000)
		}
		if known&2 != 0 {
			regs.Set(target.RIP, bp)
		}
		s := w.u.Stack(regs)
		checkStack(t, s)
		if len(s.Frames) == 0 || len(s.Frames) > DefaultMaxFrames {
			t.Fatalf("%d frames", len(s.Frames))
		}
		again := w.u.Stack(regs)
		if again.Stop != s.Stop || len(again.Frames) != len(s.Frames) {
			t.Fatalf("the second walk gave %d frames and %q, the first %d and %q", len(again.Frames), again.Stop, len(s.Frames), s.Stop)
		}
	})
}
