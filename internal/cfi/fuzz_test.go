package cfi

import (
	"errors"
	"testing"

	"mycore/internal/target"
)

// FuzzTable reads a section as .eh_frame behind a header, as .eh_frame alone
// and as .debug_frame. Invariants: an error means no result, an entry found
// covers the address, a row lies within its entry.
func FuzzTable(f *testing.F) {
	s := many(3)
	f.Add(s.hdr(0x70000), s.b, uint64(0x100021), byte(0))
	f.Add(s.hdr(0x70000), s.b, uint64(0x100001), byte(1))
	sig := &section{addr: 0x80000}
	sig.addCIE(boxed(cat(le32(0), []byte{1}, []byte("zRS\x00"), uleb(1), sleb(-8), []byte{16}, uleb(1), []byte{0x1b})))
	sig.addFDE(0x1000, 9, 0x0f, 3, 0x77, 0x38, 0x06, 0x10, 16, 3, 0x77, 0x40, 0x06, 0x0a, 0x41, 0x0b)
	sig.end()
	f.Add(sig.hdr(0x70000), sig.b, uint64(0x1002), byte(2))
	f.Fuzz(func(t *testing.T, hdr, sec []byte, pc uint64, kind byte) {
		if len(hdr) > 0x10000 || len(sec) > 0x10000 {
			return
		}
		tab, err := fuzzTable(hdr, sec, kind)
		if err != nil {
			if tab != nil {
				t.Fatal("table and error")
			}
			return
		}
		for _, pc := range []uint64{pc, pc + 1, pc + 32} {
			checkLookup(t, tab, pc)
		}
		if pc < 1<<62 && tab.search.count == 0 && len(tab.index) > 0 {
			checkLookup(t, tab, tab.index[0].end-1)
		}
	})
}

func fuzzTable(hdr, sec []byte, kind byte) (*Table, error) {
	arch := []target.Arch{target.AMD64, target.ARM64, target.I386}[kind/3%3]
	switch kind % 3 {
	case 0:
		b := make([]byte, 0x10000)
		copy(b, hdr)
		return New(image{0x70000, append(b, sec...)}, 0x70000, uint64(len(hdr)), arch)
	case 1:
		return NewFromSection(image{0x80000, sec}, 0x80000, uint64(len(sec)), arch)
	}
	return NewDebugFrame(sec, arch)
}

func checkLookup(t *testing.T, tab *Table, pc uint64) {
	t.Helper()
	f, err := tab.Find(pc)
	if err != nil {
		if f != nil || err.Error() == "" {
			t.Fatalf("entry %+v with error %v", f, err)
		}
		return
	}
	if !f.Contains(pc) {
		t.Fatalf("entry %#x..%#x for %#x", f.Start, f.End, pc)
	}
	r, err := f.Row(pc)
	if err != nil {
		if r != nil || errors.Is(err, ErrNoFDE) {
			t.Fatalf("row %+v, error %v", r, err)
		}
		return
	}
	if r.Start > pc || r.End <= pc || r.Start < f.Start || r.End > f.End {
		t.Fatalf("row %#x..%#x for %#x in %#x..%#x", r.Start, r.End, pc, f.Start, f.End)
	}
	e := evaluator()
	for n := range target.MaxRegs {
		if x := r.Expr(r.Reg(n)); x != nil {
			_, _ = e.Eval(x, true)
		}
	}
}

// FuzzEval evaluates any bytes. Invariants: an error means no value, and no
// more steps are taken than were given.
func FuzzEval(f *testing.F) {
	f.Add([]byte{0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}, true)
	f.Add([]byte{0x35, 0x31, 0x1c, 0x12, 0x28, 0xfa, 0xff}, false)
	f.Add(cat([]byte{0x0e}, le64(1<<63), []byte{0x09, 0xff, 0x1b, 0x77, 0, 0x94, 3, 0x15, 1, 0x17}), true)
	f.Fuzz(func(t *testing.T, expr []byte, push bool) {
		e := evaluator()
		v, err := e.Eval(expr, push)
		if err != nil && v != 0 {
			t.Fatalf("value %#x with error %v", v, err)
		}
		if e.Steps < 0 {
			t.Fatalf("%d steps left", e.Steps)
		}
	})
}
