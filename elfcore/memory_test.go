package elfcore_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/target"
)

// fileBytes is a Backing with one file.
type fileBytes struct {
	path string
	b    []byte
}

func (f fileBytes) ReadFile(m *elfcore.Mapping, off uint64, buf []byte) (int, error) {
	if m.Path != f.path {
		return 0, target.ErrFileMissing
	}
	if off >= uint64(len(f.b)) {
		return 0, nil
	}
	return copy(buf, f.b[off:]), nil
}

// memoryCore has one mapping of each kind.
//
//	0x10000  4 KiB in the core, r-x, file /bin/a, 8 KiB more not dumped
//	0x20000  8 KiB promised, rw-, anonymous
//	0x40000  mapped, not dumped, anonymous
//	0x50000  only in NT_FILE: /bin/b
//	0x60000  12 KiB promised, r--, file /bin/a; the last segment of the file
func memoryCore() *coretest.Core {
	page := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	return &coretest.Core{
		PID: 1, Threads: []coretest.Thread{{LWP: 1}},
		Segments: []coretest.Segment{
			{Addr: 0x10000, Perm: "r-x", Data: page('a', 0x1000), Size: 0x3000},
			{Addr: 0x20000, Perm: "rw-", Data: page('b', 0x2000)},
			{Addr: 0x40000, Perm: "rw-", Size: 0x1000},
			{Addr: 0x60000, Perm: "r--", Data: page('c', 0x3000)},
		},
		Files: []coretest.File{
			{Start: 0x10000, End: 0x13000, Off: 0x1000, Path: "/bin/a"},
			{Start: 0x50000, End: 0x51000, Off: 0x2000, Path: "/bin/b"},
			{Start: 0x60000, End: 0x63000, Off: 0x4000, Path: "/bin/a"},
		},
	}
}

func TestReadMemory(t *testing.T) {
	t.Parallel()
	whole, l := memoryCore().Build()
	file := make([]byte, 0x8000)
	for i := range file {
		file[i] = byte('A' + i/0x1000) // page n of the file is the letter n
	}
	cases := []struct {
		name    string
		size    int64 // of the core file
		backing bool
		addr    target.Addr
		n       int
		want    string // first and last byte of what was read
		got     int
		err     error
		errAt   target.Addr
		file    string
		where   elfcore.Where
	}{
		{"in the core", l.Size, false, 0x10000, 16, "aa", 16, nil, 0, "", elfcore.InCore},
		{"last byte of the core's part", l.Size, false, 0x10fff, 1, "aa", 1, nil, 0, "", elfcore.InCore},
		{"core then file", l.Size, true, 0x10ff8, 16, "aC", 16, nil, 0, "", elfcore.InCore},
		{"file", l.Size, true, 0x12000, 16, "DD", 16, nil, 0, "", elfcore.InFile},
		{"file missing", l.Size, false, 0x11000, 16, "", 0, target.ErrFileMissing, 0x11000, "/bin/a", elfcore.InFile},
		{"core then missing file", l.Size, false, 0x10ffe, 16, "aa", 2, target.ErrFileMissing, 0x11000, "/bin/a", elfcore.InCore},
		{"file not known to the backing", l.Size, true, 0x50010, 4, "", 0, target.ErrFileMissing, 0x50010, "/bin/b", elfcore.InFile},
		{"not dumped", l.Size, true, 0x40000, 4, "", 0, target.ErrNotDumped, 0x40000, "", elfcore.NotDumped},
		{"not mapped", l.Size, true, 0x30000, 4, "", 0, target.ErrNotMapped, 0x30000, "", elfcore.NotMapped},
		{"below all", l.Size, true, 0, 4, "", 0, target.ErrNotMapped, 0, "", elfcore.NotMapped},
		{"end of a mapping", l.Size, true, 0x21ffc, 8, "bb", 4, target.ErrNotMapped, 0x22000, "", elfcore.InCore},
		{"end of the address space", l.Size, true, ^target.Addr(0), 8, "", 0, target.ErrNotMapped, ^target.Addr(0), "", elfcore.NotMapped},
		{"truncated", l.SegmentOff[1] + 0x1000, true, 0x20ffe, 16, "bb", 2, target.ErrTruncated, 0x21000, "", elfcore.InCore},
		{"behind the truncation", l.SegmentOff[1] + 0x1000, true, 0x21500, 16, "", 0, target.ErrTruncated, 0x21500, "", elfcore.Truncated},
		{"truncated, read-only, file at hand", l.SegmentOff[3] + 0x1000, true, 0x61000, 16, "FF", 16, nil, 0, "", elfcore.Truncated},
		{"truncated, read-only, file missing", l.SegmentOff[3] + 0x1000, false, 0x61000, 16, "", 0, target.ErrTruncated, 0x61000, "/bin/a", elfcore.Truncated},
	}
	for _, c := range cases {
		p := openBytes(t, whole[:c.size])
		if c.backing {
			p = p.WithBacking(fileBytes{"/bin/a", file})
		}
		b := make([]byte, c.n)
		n, err := p.ReadMemory(c.addr, b)
		if n != c.got || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v; want %d, %v", c.name, n, err, c.got, c.err)
			continue
		}
		if n > 0 && (b[0] != c.want[0] || b[n-1] != c.want[1]) {
			t.Errorf("%s: %q to %q, want %q", c.name, b[0], b[n-1], c.want)
		}
		if w, _ := p.What(c.addr); w != c.where {
			t.Errorf("%s: What = %v, want %v", c.name, w, c.where)
		}
		var re *target.ReadError
		if c.err != nil && (!errors.As(err, &re) || re.Addr != c.errAt || re.Len != c.n-n || re.File != c.file) {
			t.Errorf("%s: error %+v, want address %s", c.name, re, c.errAt)
		}
	}
}

// TestStaleFile: when private memory was filtered out of the core, the bytes of
// a writable file mapping may have changed since the file was read.
func TestStaleFile(t *testing.T) {
	t.Parallel()
	c := &coretest.Core{
		Threads:  []coretest.Thread{{LWP: 1}},
		Segments: []coretest.Segment{{Addr: 0x10000, Perm: "rw-", Size: 0x1000}, {Addr: 0x20000, Perm: "rw-", Size: 0x1000}},
		Files:    []coretest.File{{Start: 0x10000, End: 0x11000, Path: "/bin/a"}},
	}
	back := fileBytes{"/bin/a", make([]byte, 0x1000)}
	var b [8]byte
	if _, err := open(t, c).WithBacking(back).ReadMemory(0x10000, b[:]); !errors.Is(err, target.ErrNotDumped) {
		t.Errorf("without private memory: %v", err)
	}
	c.Segments[1].Data = make([]byte, 0x1000)
	if _, err := open(t, c).WithBacking(back).ReadMemory(0x10000, b[:]); err != nil {
		t.Errorf("with private memory: %v", err)
	}
}

// TestShortFile: a mapping that is longer than its file.
func TestShortFile(t *testing.T) {
	t.Parallel()
	p := open(t, memoryCore()).WithBacking(fileBytes{"/bin/a", bytes.Repeat([]byte{'z'}, 0x2804)})
	var b [8]byte
	n, err := p.ReadMemory(0x11800, b[:])
	if n != 4 || !errors.Is(err, target.ErrNotDumped) || b[3] != 'z' {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestMappings(t *testing.T) {
	t.Parallel()
	c := memoryCore()
	// A file entry that starts inside a segment and ends behind it, and
	// segments that overlap: damage, but no reason to lose the rest.
	c.Files = append(c.Files, coretest.File{Start: 0x21000, End: 0x23000, Off: 0x7000, Path: "/odd"})
	c.Segments = append(c.Segments, coretest.Segment{Addr: 0x12000, Perm: "rw-", Data: bytes.Repeat([]byte{'o'}, 0x2000)})
	p := open(t, c)
	var got string
	for _, m := range p.Mappings() {
		got += fmt.Sprintf("%s-%s %s %s+%#x dumped %#x present %#x\n", m.Start, m.End, m.Perm, m.Path, m.FileOff, m.Dumped, m.Present)
	}
	want := `0x10000-0x13000 r-x /bin/a+0x1000 dumped 0x1000 present 0x1000
0x13000-0x14000 rw- +0x0 dumped 0x1000 present 0x1000
0x20000-0x21000 rw- +0x0 dumped 0x1000 present 0x1000
0x21000-0x22000 rw- /odd+0x7000 dumped 0x1000 present 0x1000
0x22000-0x23000  /odd+0x8000 dumped 0x0 present 0x0
0x40000-0x41000 rw- +0x0 dumped 0x0 present 0x0
0x50000-0x51000  /bin/b+0x2000 dumped 0x0 present 0x0
0x60000-0x63000 r-- /bin/a+0x4000 dumped 0x3000 present 0x3000
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if !hasCode(p, elfcore.WarnSegment) {
		t.Errorf("no warning of the overlap: %s", codes(p))
	}
	var b [2]byte
	if _, err := p.ReadMemory(0x13000, b[:]); err != nil || b[0] != 'o' {
		t.Errorf("the part behind the overlap: %q, %v", b, err)
	}
	if _, err := p.ReadMemory(0x21fff, b[:1]); err != nil || b[0] != 'b' {
		t.Errorf("the core's bytes of a split segment: %q, %v", b, err)
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	b, l := memoryCore().Build()
	p := openBytes(t, b[:l.SegmentOff[1]+0x800])
	// 0x800 of the second segment are there; 0x1800 and all 0x3000 of the last
	// are missing, of 0x1000 + 0x2000 + 0x3000.
	if missing, total := p.Truncated(); missing != 0x4800 || total != 0x6000 {
		t.Errorf("missing %#x of %#x", missing, total)
	}
	if w := p.Warnings(); len(w) != 1 || w[0].Code != elfcore.WarnTruncated || !bytes.Contains([]byte(w[0].Text), []byte("75.0 % of the memory that it promises is missing (18 KiB of 24 KiB)")) {
		t.Errorf("%v", w)
	}
	p = openBytes(t, b)
	if missing, total := p.Truncated(); missing != 0 || total != 0x6000 || len(p.Warnings()) != 0 {
		t.Errorf("whole core: missing %#x of %#x, %v", missing, total, p.Warnings())
	}
}

// TestConcurrentReads is for the race detector, and compares what many readers
// see with what one saw.
func TestConcurrentReads(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(200)
	p := open(t, c)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i, th := range p.Threads() {
				sp, _ := th.Regs.SP()
				at := sp + target.Addr(8*((g+i)%64))
				v, err := target.Uint64(p, at)
				if want := uint64(coretest.SampleBase + coretest.TextOff + 0x800 + 8*((g+i)%64)); err != nil || v != want {
					t.Errorf("thread %d: %#x, %v; want %#x", th.LWP, v, err, want)
					return
				}
			}
			p.ZeroStacks()
			p.Images()
		})
	}
	wg.Wait()
}

func BenchmarkReadMemory(b *testing.B) {
	c := coretest.Sample(530)
	p := open(b, c)
	sps := make([]target.Addr, 0, 530)
	for _, th := range p.Threads() {
		sp, _ := th.Regs.SP()
		sps = append(sps, sp)
	}
	b.ReportAllocs()
	i := 0
	var buf [8]byte
	for b.Loop() {
		if _, err := p.ReadMemory(sps[i%len(sps)], buf[:]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkOpen530(b *testing.B) {
	data := coretest.Sample(530).Bytes()
	b.ReportAllocs()
	for b.Loop() {
		p := openBytes(b, data)
		if len(p.Threads()) != 530 {
			b.Fatal(len(p.Threads()))
		}
	}
}

func BenchmarkZeroStacks530(b *testing.B) {
	data := coretest.Sample(530).Bytes()
	b.ReportAllocs()
	for b.Loop() {
		if openBytes(b, data).ZeroStacks().Checked != 530 {
			b.Fatal("threads were left out")
		}
	}
}
