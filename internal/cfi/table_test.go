package cfi

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"mycore/internal/target"
)

// many builds n functions of 16 bytes, every 32 bytes from 0x100000 on.
func many(n int) *section {
	s := &section{addr: 0x80000}
	s.addCIE(plainCIE())
	for i := range n {
		s.addFDE(0x100000+uint64(i)*32, 16, 0x41, 0x0e, byte(16+8*(i%10)))
	}
	s.end()
	return s
}

// expectMany holds every function's edges and the gaps between them against
// the table.
func expectMany(t *testing.T, tab *Table, n int) {
	t.Helper()
	for i := range n {
		start := 0x100000 + uint64(i)*32
		for _, pc := range []uint64{start, start + 15} {
			f, err := tab.Find(pc)
			if err != nil || f.Start != start || f.End != start+16 {
				t.Fatalf("Find(%#x) = %+v, %v", pc, f, err)
			}
			r, err := f.Row(pc)
			if err != nil {
				t.Fatal(err)
			}
			want := int64(16 + 8*(i%10))
			if pc == start {
				want = 8
			}
			if r.CFA.Offset != want {
				t.Fatalf("CFA offset at %#x is %d, want %d", pc, r.CFA.Offset, want)
			}
		}
		for _, pc := range []uint64{start - 1, start + 16, start + 31} {
			if f, err := tab.Find(pc); !errors.Is(err, ErrNoFDE) {
				t.Fatalf("Find(%#x) = %+v, %v between functions", pc, f, err)
			}
		}
	}
	for _, pc := range []uint64{0, 0xfffff, 0x100000 + uint64(n)*32, ^uint64(0)} {
		if _, err := tab.Find(pc); !errors.Is(err, ErrNoFDE) {
			t.Errorf("Find(%#x): %v", pc, err)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, lastPairs - 1, lastPairs, lastPairs + 1, 100, 1000} {
		s := many(n)
		t.Run(fmt.Sprintf("search table of %d", n), func(t *testing.T) {
			expectMany(t, s.withHdr(t), n)
		})
		t.Run(fmt.Sprintf("walk of %d", n), func(t *testing.T) {
			tab, err := NewFromSection(image{s.addr, s.b}, s.addr, uint64(len(s.b)), target.AMD64)
			if err != nil {
				t.Fatal(err)
			}
			expectMany(t, tab, n)
		})
	}
}

// Other encodings of the search table than the one that linkers write.
func TestFindTableEncodings(t *testing.T) {
	t.Parallel()
	s := many(100)
	const hdr = 0x70000
	for _, enc := range []byte{0x3b, 0x03, 0x0b, 0x04, 0x00, 0x3c, 0x1b, 0x1c} {
		t.Run(fmt.Sprintf("%#02x", enc), func(t *testing.T) {
			h := cat([]byte{1, 0x03, 0x03, enc}, le32(uint32(s.addr)), le32(100))
			put := func(v uint64) {
				switch enc & 0x70 {
				case 0x30:
					v -= hdr
				case 0x10:
					v -= hdr + uint64(len(h))
				}
				if encoding(enc).width(8) == 8 {
					h = append(h, le64(v)...)
				} else {
					h = append(h, le32(uint32(v))...)
				}
			}
			for i := range s.fdes {
				put(s.at[i])
				put(s.fdes[i])
			}
			b := make([]byte, s.addr-hdr)
			copy(b, h)
			tab, err := New(image{hdr, append(b, s.b...)}, hdr, uint64(len(h)), target.AMD64)
			if err != nil || tab.search.count != 100 {
				t.Fatalf("%+v, %v", tab, err)
			}
			expectMany(t, tab, 100)
		})
	}
}

// A header without a usable table leads to the walk.
func TestFindHeaderWithoutTable(t *testing.T) {
	t.Parallel()
	s := many(50)
	const hdr = 0x70000
	for name, h := range map[string][]byte{
		"omitted":         cat([]byte{1, 0x03, 0xff, 0xff}, le32(uint32(s.addr))),
		"LEB128 pairs":    cat([]byte{1, 0x03, 0x03, 0x01}, le32(uint32(s.addr)), le32(50)),
		"frame by pcrel":  cat([]byte{1, 0x1b, 0xff, 0x3b}, le32(uint32(s.addr-hdr-4))),
		"frame by 8 byte": cat([]byte{1, 0x04, 0xff, 0x3b}, le64(s.addr)),
	} {
		b := make([]byte, s.addr-hdr)
		copy(b, h)
		tab, err := New(image{hdr, append(b, s.b...)}, hdr, uint64(len(h)), target.AMD64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		expectMany(t, tab, 50)
	}
}

func TestNewErrors(t *testing.T) {
	t.Parallel()
	ok := cat([]byte{1, 0x03, 0x03, 0x3b}, le32(0x80000), le32(1), le64(0))
	with := func(i int, v byte) []byte { b := append([]byte(nil), ok...); b[i] = v; return b }
	for name, h := range map[string][]byte{
		"empty":            {},
		"cut":              ok[:6],
		"version":          with(0, 2),
		"frame omitted":    with(1, 0xff),
		"frame text":       with(1, 0x23),
		"count over table": with(8, 2),
		"count huge":       cat([]byte{1, 0x03, 0x04, 0x3b}, le32(0x80000), le64(1<<61), le64(0)),
	} {
		tab, err := New(image{0x70000, h}, 0x70000, uint64(len(h)), target.AMD64)
		if err == nil || tab != nil {
			t.Errorf("%s: table %v, error %v", name, tab != nil, err)
		}
	}
	if _, err := New(image{0x70000, ok[:8]}, 0x70000, uint64(len(ok)), target.AMD64); err == nil {
		t.Error("header that the image doesn't have")
	}
	if _, err := New(image{0x70000, ok}, 0x70000, uint64(len(ok)), target.ArchUnknown); !errors.Is(err, ErrUnsupported) {
		t.Errorf("unknown instruction set: %v", err)
	}
	for _, size := range []uint64{0, maxSection + 1} {
		if _, err := NewFromSection(image{}, 1, size, target.AMD64); err == nil {
			t.Errorf("section of %d bytes", size)
		}
	}
	if _, err := NewFromSection(image{}, ^uint64(0), 2, target.AMD64); err == nil {
		t.Error("section beyond the address space")
	}
	if _, err := NewDebugFrame(nil, target.AMD64); err == nil {
		t.Error("empty .debug_frame")
	}
}

// CIEs of the versions and augmentations in use, and those refused.
func TestCIE(t *testing.T) {
	t.Parallel()
	body := func(version byte, aug string, rest ...[]byte) []byte {
		return boxed(cat(append([][]byte{le32(0), {version}, []byte(aug + "\x00")}, rest...)...))
	}
	std := cat(uleb(4), sleb(-8), []byte{16})
	prog := []byte{0x0c, 7, 8, 0x90, 1}
	tests := []struct {
		name   string
		b      []byte
		ok     bool
		signal bool
		enc    encoding
	}{
		{"version 1, none", body(1, "", std, prog), true, false, 0},
		{"version 3, none", body(3, "", std, prog), true, false, 0},
		{"version 4, none", body(4, "", []byte{8, 0}, std, prog), true, false, 0},
		{"eh of gcc 2", body(1, "eh", le64(0x1234), std, prog), true, false, 0},
		{"zR", body(1, "zR", std, []byte{1, 0x1b}, prog), true, false, 0x1b},
		{"zPLR", body(1, "zPLR", std, []byte{7, 0x9b, 1, 2, 3, 4, 0x1b, 0x1b}, prog), true, false, 0x1b},
		{"zPR with an aligned pointer", body(1, "zPR", std, []byte{16, 0x50, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x1b}, prog), true, false, 0x1b},
		{"zRS", body(1, "zRS", std, []byte{1, 0x1b}, prog), true, true, 0x1b},
		{"zRB", body(1, "zRB", std, []byte{1, 0x1b}, prog), true, false, 0x1b},
		{"augmentation data longer than its letters", body(1, "zR", std, []byte{3, 0x1b, 0x2d, 0x2d}, prog), true, false, 0x1b},
		{"version 2", body(2, "", std, prog), false, false, 0},
		{"version 5", body(5, "", std, prog), false, false, 0},
		{"address size", body(4, "", []byte{4, 0}, std, prog), false, false, 0},
		{"segments", body(4, "", []byte{8, 2}, std, prog), false, false, 0},
		{"letter unknown", body(1, "zRX", std, []byte{1, 0x1b}, prog), false, false, 0},
		{"no z", body(1, "R", std, []byte{0x1b}, prog), false, false, 0},
		{"armcc+", body(1, "armcc+", std, prog), false, false, 0},
		{"augmentation data cut", body(1, "zR", std, []byte{0}, prog), false, false, 0},
		{"augmentation data over the end", body(1, "zR", std, []byte{200, 0x1b}, prog), false, false, 0},
		{"unterminated", boxed(cat(le32(0), []byte{1}, []byte("zRzRzRz"))), false, false, 0},
		{"return address register", body(3, "", uleb(1), sleb(-8), uleb(1000), prog), false, false, 0},
		{"moves the location", body(1, "", std, []byte{0x41}), false, false, 0},
		{"restores", body(1, "", std, []byte{0xc3}), false, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &section{addr: 0x80000}
			s.addCIE(tt.b)
			tab, err := NewFromSection(image{s.addr, s.b}, s.addr, uint64(len(s.b)), target.AMD64)
			if err != nil {
				t.Fatal(err)
			}
			c, err := tab.cieAt(s.addr)
			if !tt.ok {
				if err == nil || c != nil {
					t.Errorf("%+v, %v; want an error", c, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.codeAlign != 4 || c.dataAlign != -8 || c.raReg != 16 || c.signal != tt.signal || c.fdeEnc != tt.enc {
				t.Errorf("%+v", c)
			}
			if c.initial.CFA != (Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}) || c.initial.Reg(16) != (Rule{Kind: RuleOffset, Offset: -8}) {
				t.Errorf("initial row %+v", c.initial)
			}
		})
	}
}

// The code alignment factor scales what moves the location.
func TestCodeAlign(t *testing.T) {
	t.Parallel()
	s := &section{addr: 0x80000}
	s.addCIE(boxed(cat(le32(0), []byte{1}, []byte("zR\x00"), uleb(4), sleb(-8), []byte{16}, uleb(1), []byte{0x1b}, []byte{0x0c, 7, 8, 0x90, 1})))
	s.addFDE(0x1000, 0x100, 0x43, 0x0e, 16)
	f, err := s.withHdr(t).Find(0x1000)
	if err != nil {
		t.Fatal(err)
	}
	for pc, want := range map[uint64]int64{0x100b: 8, 0x100c: 16} {
		if r, err := f.Row(pc); err != nil || r.CFA.Offset != want {
			t.Errorf("at %#x: %+v, %v", pc, r, err)
		}
	}
}

// 64-bit entries, with the four-byte id of LLVM and the eight-byte one of
// binutils.
func TestDWARF64(t *testing.T) {
	t.Parallel()
	for _, id := range []int{4, 8} {
		t.Run(fmt.Sprintf("id of %d bytes", id), func(t *testing.T) {
			wide := func(body []byte) []byte { return cat(le32(0xffffffff), le64(uint64(len(body))), body) }
			c := wide(cat(le64(0)[:id], []byte{1}, []byte("zR\x00"), uleb(1), sleb(-8), []byte{16}, uleb(1), []byte{0x04}, []byte{0x0c, 7, 8, 0x90, 1}))
			s := &section{addr: 0x80000}
			s.addCIE(c)
			at := s.here()
			s.fdes, s.at = append(s.fdes, at), append(s.at, 0x1000)
			s.b = append(s.b, wide(cat(le64(at + 12 - s.cie)[:id], le64(0x1000), le64(0x20), []byte{0}, []byte{0x44, 0x0e, 16}))...)
			f, err := s.withHdr(t).Find(0x101f)
			if err != nil {
				t.Fatal(err)
			}
			r, err := f.Row(0x1004)
			if err != nil || f.Start != 0x1000 || f.End != 0x1020 || r.CFA.Offset != 16 {
				t.Errorf("%+v, %+v, %v", f, r, err)
			}
		})
	}
}

func TestDebugFrame(t *testing.T) {
	t.Parallel()
	for _, wide := range []bool{false, true} {
		box := func(body []byte) []byte {
			if wide {
				return cat(le32(0xffffffff), le64(uint64(len(body))), body)
			}
			return boxed(body)
		}
		id := func(v uint64) []byte {
			if wide {
				return le64(v)
			}
			return le32(uint32(v))
		}
		first := box(cat(id(m1), []byte{4, 0, 8, 0}, uleb(1), sleb(-8), uleb(16), []byte{0x0c, 7, 8, 0x90, 1}))
		second := box(cat(id(m1), []byte{3, 0}, uleb(1), sleb(-8), uleb(16), []byte{0x0c, 6, 16, 0x90, 1}))
		sec := cat(first, box(cat(id(0), le64(0x2000), le64(0x10))), second,
			box(cat(id(uint64(len(first)+len(box(cat(id(0), le64(0), le64(0)))))), le64(0x1000), le64(0x10), []byte{0x41, 0x0e, 32})))
		tab, err := NewDebugFrame(sec, target.AMD64)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			pc  uint64
			reg uint8
			off int64
		}{{0x2000, 7, 8}, {0x200f, 7, 8}, {0x1000, 6, 16}, {0x1001, 6, 32}} {
			f, err := tab.Find(tt.pc)
			if err != nil {
				t.Fatalf("wide %v: Find(%#x): %v", wide, tt.pc, err)
			}
			if r, err := f.Row(tt.pc); err != nil || r.CFA.Reg != tt.reg || r.CFA.Offset != tt.off {
				t.Errorf("wide %v: row at %#x: %+v, %v", wide, tt.pc, r, err)
			}
		}
		if _, err := tab.Find(0x1010); !errors.Is(err, ErrNoFDE) {
			t.Errorf("wide %v: beyond the end: %v", wide, err)
		}
	}
}

// A terminator in the middle of a section of known size, as ld leaves it when
// an input had one, doesn't hide what follows.
func TestWalkOverTerminator(t *testing.T) {
	t.Parallel()
	s := many(3)
	s.addFDE(0x200000, 8)
	tab, err := NewFromSection(image{s.addr, s.b}, s.addr, uint64(len(s.b)), target.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := tab.Find(0x200007); err != nil || f.Start != 0x200000 {
		t.Errorf("%+v, %v", f, err)
	}
}

// What stands before damage is still found; what may stand behind it gives
// the reason instead of "none".
func TestWalkDamaged(t *testing.T) {
	t.Parallel()
	s := many(3)
	s.b = append(s.b[:len(s.b)-4], 0xf0, 0xff, 0xff, 0x7f, 1, 2, 3)
	tab, err := NewFromSection(image{s.addr, s.b}, s.addr, uint64(len(s.b)), target.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := tab.Find(0x100020); err != nil || f.Start != 0x100020 {
		t.Errorf("%+v, %v", f, err)
	}
	var fe *FormatError
	if _, err := tab.Find(0x300000); !errors.As(err, &fe) || errors.Is(err, ErrNoFDE) {
		t.Errorf("after the damage: %v", err)
	}
}

// A damaged entry is an error for its own function only.
func TestFindDamagedEntry(t *testing.T) {
	t.Parallel()
	s := many(10)
	for _, tt := range []struct {
		name string
		off  uint64
		val  []byte
	}{
		{"length over the end", 0, le32(0x7000)},
		{"length over the limit", 0, le32(0x7fffffff)},
		{"length zero", 0, le32(0)},
		{"CIE pointer beyond the start", 4, le32(0x7fffffff)},
		{"CIE pointer into nowhere", 4, le32(8)},
		{"is a CIE", 4, le32(0)},
		{"range over the address space", 12, le32(0xffffffff)},
		{"augmentation over the end", 16, []byte{0x7f}},
	} {
		b := append([]byte(nil), s.b...)
		copy(b[s.fdes[4]-s.addr+tt.off:], tt.val)
		d := *s
		d.b = b
		tab := d.withHdr(t)
		for range 2 { // the second answer comes from the cache
			if f, err := tab.Find(0x100000 + 4*32); err == nil || errors.Is(err, ErrNoFDE) || f != nil {
				t.Errorf("%s: %+v, %v", tt.name, f, err)
			}
		}
		if f, err := tab.Find(0x100000 + 5*32); err != nil || f.Start != 0x100000+5*32 {
			t.Errorf("%s: neighbour: %+v, %v", tt.name, f, err)
		}
	}
}

func TestFindConcurrently(t *testing.T) {
	t.Parallel()
	s := many(300)
	hdr := s.withHdr(t)
	walked, err := NewFromSection(image{s.addr, s.b}, s.addr, uint64(len(s.b)), target.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	for _, tab := range []*Table{hdr, walked} {
		var got [8][300]*FDE
		var wg sync.WaitGroup
		for g := range got {
			wg.Go(func() {
				for i := range got[g] {
					pc := 0x100000 + uint64(i)*32
					f, err := tab.Find(pc)
					if err != nil {
						t.Error(err)
						return
					}
					if r, err := f.Row(pc + 5); err != nil || r.CFA.Offset != int64(16+8*(i%10)) {
						t.Errorf("%+v, %v", r, err)
					}
					got[g][i] = f
				}
			})
		}
		wg.Wait()
		for g := range got {
			if got[g] != got[0] {
				t.Error("two goroutines hold different entries for one function")
			}
		}
	}
}

func TestFindAllocatesNothing(t *testing.T) {
	tab := many(500).withHdr(t)
	i := 0
	find := func() {
		i = (i + 37) % 500
		if _, err := tab.Find(0x100000 + uint64(i)*32); err != nil {
			t.Fatal(err)
		}
	}
	for range 500 {
		find()
	}
	if n := testing.AllocsPerRun(500, find); n != 0 && !raceEnabled {
		t.Errorf("%v allocations per repeated Find", n)
	}
}
