package elfimage_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	xelf "golang.org/x/debug/elf"

	"mycore/internal/coretest"
	"mycore/internal/elfimage"
	"mycore/internal/target"
)

func newFile(t testing.TB, b []byte) *elfimage.File {
	t.Helper()
	f, err := elfimage.New(bytes.NewReader(b), int64(len(b)), "test.elf")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// rich is an image with everything that this package reads.
func rich() *coretest.Image {
	im := coretest.SampleImage()
	im.Base = 0x400000
	im.Exec = true
	im.Soname = "librich.so.3"
	im.SysVHash = true
	im.Dynamic = nil
	for i := range 40 {
		im.Dynamic = append(im.Dynamic, coretest.Symbol{Name: fmt.Sprintf("function_%d", i), Value: 0x402000 + uint64(i)*16, Size: 16})
	}
	im.Dynamic = append(im.Dynamic, coretest.Symbol{Name: "malloc", Shndx: coretest.Undefined})
	im.Symbols = []coretest.Symbol{{Name: "local", Value: 0x402100, Size: 3, Info: 2}, {Name: strings.Repeat("n", 300), Value: 0x402200, Size: 7}}
	im.Sections = []coretest.Section{
		{Name: ".gnu_debuglink", Data: coretest.Debuglink("mysqld.debug", 0xdeadbeef)},
		{Name: ".gnu_debugaltlink", Data: append([]byte("/usr/lib/debug/.dwz/x.debug\x00"), bytes.Repeat([]byte{7}, 20)...)},
		{Name: ".gnu_debugdata", Data: []byte("\xfd7zXZ\x00 not really")},
		{Name: ".debug_info", Data: bytes.Repeat([]byte("information "), 4000), Compress: "zlib"},
		{Name: ".debug_line", Data: bytes.Repeat([]byte("line "), 9000), Compress: "zstd"},
	}
	return im
}

func TestRichImage(t *testing.T) {
	t.Parallel()
	im := rich()
	f := newFile(t, im.Bytes())
	if f.Arch() != target.AMD64 || f.Type() != elfimage.TypeExec || f.Class() != elfimage.Class64 || f.Entry() != 0x402000 {
		t.Errorf("%v %v %v %#x", f.Arch(), f.Type(), f.Class(), f.Entry())
	}
	if id, ok := f.BuildID(); !ok || !bytes.Equal(id, im.BuildID) {
		t.Errorf("build ID %x", id)
	}
	if name, crc, ok := f.Debuglink(); !ok || name != "mysqld.debug" || crc != 0xdeadbeef {
		t.Errorf("debuglink %q %#x %v", name, crc, ok)
	}
	if path, id, ok := f.Debugaltlink(); !ok || path != "/usr/lib/debug/.dwz/x.debug" || !bytes.Equal(id, bytes.Repeat([]byte{7}, 20)) {
		t.Errorf("debugaltlink %q %x %v", path, id, ok)
	}
	if b, err := f.GNUDebugdata(); err != nil || !bytes.HasPrefix(b, []byte("\xfd7zXZ")) {
		t.Errorf("debugdata %q %v", b, err)
	}
	for name, want := range map[string][]byte{".debug_info": im.Sections[3].Data, ".debug_line": im.Sections[4].Data, ".text": im.Text} {
		if b, err := f.SectionData(name, 1<<20); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(b), err, len(want))
		}
		if _, err := f.SectionData(name, len(want)-1); !errors.Is(err, elfimage.ErrFormat) {
			t.Errorf("%s with a limit: %v", name, err)
		}
	}
	if _, err := f.SectionData(".nothing", 10); !errors.Is(err, elfimage.ErrNoSection) {
		t.Errorf("a section that isn't there: %v", err)
	}
	if s, ok := f.Interp(); !ok || s != im.Interp {
		t.Errorf("interpreter %q", s)
	}
	if s, ok := f.Soname(); !ok || s != "librich.so.3" {
		t.Errorf("soname %q", s)
	}
	if v, ok := f.DynValue(elfimage.DTStrsz); !ok || v == 0 {
		t.Errorf("DT_STRSZ %d", v)
	}
	checkSymbols(t, f, im)
	var b [8]byte
	if n, err := f.ReadVaddr(0x402000, b[:5]); n != 5 || err != nil || !bytes.Equal(b[:5], im.Text) {
		t.Errorf("text by address: %x, %v", b[:n], err)
	}
	if bias, ok := f.LoadBias(0x7f0000400000); !ok || bias != 0x7f0000000000 {
		t.Errorf("bias %#x", bias)
	}
	if lo, _ := f.LowestVaddr(); lo != 0x400000 {
		t.Errorf("lowest %#x", lo)
	}
}

func checkSymbols(t *testing.T, f *elfimage.File, im *coretest.Image) {
	t.Helper()
	for kind, want := range map[elfimage.SymKind][]coretest.Symbol{elfimage.Symtab: im.Symbols, elfimage.Dynsym: im.Dynamic} {
		tab, err := f.Symbols(kind)
		if err != nil {
			t.Errorf("%v: %v", kind, err)
			continue
		}
		byName := map[string]elfimage.Sym{}
		err = tab.Each(func(i int, s elfimage.Sym) bool {
			name, err := tab.Name(s)
			if err != nil {
				t.Errorf("%v: %v", kind, err)
			}
			if at, err := tab.At(i); err != nil || at != s {
				t.Errorf("%v: At(%d) = %+v, %v; Each %+v", kind, i, at, err, s)
			}
			byName[name] = s
			return true
		})
		if err != nil || tab.Len() != len(want)+1 || len(byName) != len(want)+1 {
			t.Errorf("%v: %d symbols, %d names, %v; want %d", kind, tab.Len(), len(byName), err, len(want)+1)
		}
		for _, w := range want {
			s, ok := byName[w.Name]
			if !ok || s.Value != w.Value || s.Size != w.Size || s.Defined() == (w.Shndx == coretest.Undefined) {
				t.Errorf("%v: %q is %+v, want %+v", kind, w.Name, s, w)
			}
		}
	}
	for _, w := range im.Dynamic {
		s, ok := f.LookupDynSym(w.Name)
		if ok != (w.Shndx != coretest.Undefined) || ok && s.Value != w.Value {
			t.Errorf("LookupDynSym(%q) = %+v, %v", w.Name, s, ok)
		}
	}
	for _, name := range []string{"", "function_", "function_400", "function_1\x00", "local"} {
		if s, ok := f.LookupDynSym(name); ok {
			t.Errorf("LookupDynSym(%q) = %+v", name, s)
		}
	}
}

// TestHashTables: each hash table alone, with and without sections, and none.
func TestHashTables(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ gnu, sysv, bare bool }{{true, false, false}, {false, true, false}, {true, false, true}, {false, true, true}, {true, true, true}, {false, false, false}} {
		im := rich()
		im.GNUHash, im.SysVHash, im.NoSections = c.gnu, c.sysv, c.bare
		if c.bare {
			im.Symbols, im.Dynamic = nil, im.Dynamic[:40] // the GNU table doesn't count undefined symbols at its end
		}
		f := newFile(t, im.Bytes())
		if c.bare {
			if _, err := f.Symbols(elfimage.Symtab); !errors.Is(err, elfimage.ErrNoSection) {
				t.Errorf("%+v: .symtab: %v", c, err)
			}
			tab, err := f.Symbols(elfimage.Dynsym)
			if err != nil || tab.Len() != 41 {
				t.Errorf("%+v: .dynsym: %v", c, err)
				continue
			}
		}
		for _, w := range im.Dynamic {
			s, ok := f.LookupDynSym(w.Name)
			if ok != (w.Shndx != coretest.Undefined) || ok && s.Value != w.Value {
				t.Errorf("%+v: LookupDynSym(%q) = %+v, %v", c, w.Name, s, ok)
			}
		}
	}
}

// flatMemory is a target whose memory is one block.
type flatMemory struct {
	base target.Addr
	b    []byte
}

func (m flatMemory) ReadMemory(a target.Addr, p []byte) (int, error) {
	if a < m.base || a >= m.base+target.Addr(len(m.b)) {
		return 0, &target.ReadError{Addr: a, Len: len(p), Err: target.ErrNotMapped}
	}
	n := copy(p, m.b[a-m.base:])
	if n < len(p) {
		return n, &target.ReadError{Addr: a + target.Addr(n), Len: len(p) - n, Err: target.ErrNotMapped}
	}
	return n, nil
}

// TestFromMemory reads an image at an address that it wasn't linked at, with
// dynamic entries as the link editor left them and as the loader changes them.
func TestFromMemory(t *testing.T) {
	t.Parallel()
	im := rich()
	im.Base, im.Exec = 0, false
	im.Dynamic = im.Dynamic[:40]
	for i := range im.Dynamic {
		im.Dynamic[i].Value -= 0x400000
	}
	const base = 0x7f1234567000
	for _, relocated := range []bool{false, true} {
		b := im.Bytes()
		b = append(b, make([]byte, 0x1000)...)
		if relocated {
			for at := im.DynamicOff(); ; at += 16 {
				tag := binary.LittleEndian.Uint64(b[at:])
				if tag == 0 {
					break
				}
				switch int64(tag) {
				case elfimage.DTStrtab, elfimage.DTSymtab, elfimage.DTHash, elfimage.DTGNUHash:
					binary.LittleEndian.PutUint64(b[at+8:], binary.LittleEndian.Uint64(b[at+8:])+base)
				}
			}
		}
		f, err := elfimage.FromMemory(flatMemory{base, b}, base, "in memory")
		if err != nil {
			t.Fatal(err)
		}
		if f.Bias() != base || !f.InMemory() {
			t.Errorf("bias %#x", f.Bias())
		}
		if id, ok := f.BuildID(); !ok || !bytes.Equal(id, im.BuildID) {
			t.Errorf("build ID %x", id)
		}
		if s, ok := f.Soname(); !ok || s != "librich.so.3" {
			t.Errorf("relocated %v: soname %q", relocated, s)
		}
		for _, w := range im.Dynamic {
			if s, ok := f.LookupDynSym(w.Name); !ok || s.Value != w.Value {
				t.Errorf("relocated %v: LookupDynSym(%q) = %+v, %v", relocated, w.Name, s, ok)
			}
		}
		if secs, err := f.Sections(); len(secs) != 0 || err != nil {
			t.Errorf("sections in memory: %d, %v", len(secs), err)
		}
		var text [5]byte
		if _, err := f.ReadVaddr(coretest.TextOff, text[:]); err != nil || !bytes.Equal(text[:], im.Text) {
			t.Errorf("text %x, %v", text, err)
		}
		if n, err := f.ReadAt(text[:], coretest.TextOff); n != 5 || err != nil || !bytes.Equal(text[:], im.Text) {
			t.Errorf("text by offset %x, %v", text, err)
		}
	}
	_, err := elfimage.FromMemory(flatMemory{base, make([]byte, 4096)}, base, "zeros")
	if !errors.Is(err, elfimage.ErrNotELF) {
		t.Errorf("zeros: %v", err)
	}
	_, err = elfimage.FromMemory(flatMemory{base, nil}, base, "hole")
	var re *target.ReadError
	if !errors.As(err, &re) || re.Addr != base {
		t.Errorf("hole: %v", err)
	}
}

func TestReadVaddr(t *testing.T) {
	t.Parallel()
	im := rich()
	im.BSS = 0x2000
	f := newFile(t, im.Bytes())
	data := uint64(0x400000) + uint64(im.DynamicOff())
	b := make([]byte, 64)
	if _, err := f.ReadVaddr(data, b[:16]); err != nil {
		t.Errorf("data: %v", err)
	}
	for _, a := range []uint64{0, 0x3fffff, data + 0x1800, data + 0x10000, ^uint64(0)} {
		if n, err := f.ReadVaddr(a, b); n != 0 || !errors.Is(err, elfimage.ErrNoBytes) {
			t.Errorf("%#x: %d bytes, %v", a, n, err)
		}
	}
	// The bytes before the end come with the error.
	var end uint64
	for _, p := range f.Progs() {
		if p.Type == elfimage.PTLoad && p.Vaddr == data {
			end = p.Vaddr + p.Filesz
		}
	}
	if n, err := f.ReadVaddr(end-4, b); n != 4 || !errors.Is(err, elfimage.ErrNoBytes) {
		t.Errorf("at the end of the file part: %d bytes, %v", n, err)
	}
}

func TestNotes(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(2)
	c.Notes = []coretest.Note{{Owner: "EMPTY", Type: 77}, {Owner: "X", Type: 78, Desc: []byte("odd")}}
	b, l := c.Build()
	type seen struct {
		owner string
		typ   uint32
		size  uint64
	}
	var got []seen
	var last []byte
	err := newFile(t, b).Notes(func(n elfimage.Note) error {
		got = append(got, seen{n.Name, n.Type, n.Size})
		var err error
		last, err = n.Desc(100)
		return err
	})
	if err != nil || len(got) != len(l.NoteOffs) {
		t.Fatalf("%d notes, %v; want %d", len(got), err, len(l.NoteOffs))
	}
	if got[0] != (seen{"CORE", 1, 336}) || got[len(got)-2] != (seen{"EMPTY", 77, 0}) || got[len(got)-1] != (seen{"X", 78, 3}) || string(last) != "odd" {
		t.Errorf("%v, last %q", got, last)
	}
	stop := errors.New("stop")
	n := 0
	if err := newFile(t, b).Notes(func(elfimage.Note) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("stopping: %v after %d", err, n)
	}
	// A note that claims more than the segment has ends the walk there.
	binary.LittleEndian.PutUint32(b[l.NoteOffs[3]+4:], 1<<31)
	n = 0
	if err := newFile(t, b).Notes(func(elfimage.Note) error { n++; return nil }); !errors.Is(err, elfimage.ErrFormat) || n != 3 {
		t.Errorf("damaged: %v after %d", err, n)
	}
	// Cut in the middle of a descriptor.
	b, l = c.Build()
	cut := newFile(t, b[:l.NoteOffs[0]+20+100])
	err = cut.Notes(func(n elfimage.Note) error {
		d, err := n.Desc(1 << 20)
		if len(d) != 100 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut descriptor: %d bytes, %v", len(d), err)
		}
		return nil
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut notes: %v", err)
	}
}

// TestNoteAlignment: notes padded to 8 bytes, as GNU property notes are, with
// the build ID behind them.
func TestNoteAlignment(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	note := func(pad int, owner string, typ uint32, desc []byte) []byte {
		b := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, uint32(len(owner)+1)), uint32(len(desc))), typ)
		b = append(append(b, owner...), 0)
		for len(b)%pad != 0 {
			b = append(b, 0)
		}
		b = append(b, desc...)
		for len(b)%pad != 0 {
			b = append(b, 0)
		}
		return b
	}
	for _, align := range []int{4, 8} {
		c := coretest.Core{NoNotes: true, Segments: []coretest.Segment{{Addr: 0x1000, Perm: "r--", Data: append(note(align, "GNU", 5, make([]byte, 12)), note(align, "GNU", 3, []byte("twelve bytes"))...)}}}
		b, _ := c.Build()
		le.PutUint32(b[64:], elfimage.PTNote)
		le.PutUint64(b[64+48:], uint64(align))
		if id, ok := newFile(t, b).BuildID(); !ok || string(id) != "twelve bytes" {
			t.Errorf("align %d: build ID %q", align, id)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	exe := rich().Bytes()
	mod := func(at int, v byte) []byte { b := bytes.Clone(exe); b[at] = v; return b }
	for _, c := range []struct {
		name string
		b    []byte
		is   error
		text string
	}{
		{"empty", nil, elfimage.ErrNotELF, "empty file"},
		{"gzip", []byte("\x1f\x8b\x08\x00"), elfimage.ErrNotELF, "gzip data"},
		{"text", []byte("hello, w\xc3\xb6rld\n"), elfimage.ErrNotELF, "text"},
		{"script", []byte("#!/bin/sh\n"), elfimage.ErrNotELF, "script"},
		{"binary", []byte{1, 2, 3, 0, 9}, elfimage.ErrNotELF, "unknown format"},
		{"zeros", make([]byte, 100), elfimage.ErrNotELF, "starts with zeros"},
		{"header cut", exe[:63], elfimage.ErrFormat, "63 of 64 bytes"},
		{"class", mod(4, 3), elfimage.ErrFormat, "class 3"},
		{"encoding", mod(5, 7), elfimage.ErrFormat, "data encoding 7"},
		{"big-endian", mod(5, 2), elfimage.ErrUnsupported, "big-endian"},
		{"entry size", mod(54, 57), elfimage.ErrFormat, "program header size 57"},
	} {
		_, err := elfimage.New(bytes.NewReader(c.b), int64(len(c.b)), "f")
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "f: ") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, word := range map[string]string{fifo: "FIFO", t.TempDir(): "directory", "/dev/null": "device"} {
		if _, err := elfimage.Open(path); !errors.Is(err, elfimage.ErrNotRegular) || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
	if _, err := elfimage.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestSharedCores compares segments and notes of real cores with the two
// independent readers.
func TestSharedCores(t *testing.T) {
	t.Parallel()
	dir := coretest.Cores(t)
	n := 0
	for _, pattern := range []string{"linux/llvm/*.core", "linux/elfutils/*core", "freebsd/*.core"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			n++
			t.Run(filepath.Base(path), func(t *testing.T) { t.Parallel(); compareCore(t, path) })
		}
	}
	if n < 20 {
		t.Errorf("only %d cores were found", n)
	}
}

func compareCore(t *testing.T, path string) {
	t.Helper()
	f, err := elfimage.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	std, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer std.Close()
	x, err := xelf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if len(f.Progs()) != len(std.Progs) || len(f.Progs()) != len(x.Progs) || f.ProgsPromised() != len(std.Progs) {
		t.Fatalf("%d segments, want %d, %d", len(f.Progs()), len(std.Progs), len(x.Progs))
	}
	var want, wantX []string
	for i, p := range f.Progs() {
		s, y := std.Progs[i], x.Progs[i]
		if elf.ProgType(p.Type) != s.Type || p.Off != s.Off || p.Vaddr != s.Vaddr || p.Filesz != s.Filesz || p.Memsz != s.Memsz || elf.ProgFlag(p.Flags) != s.Flags || p.Align != s.Align {
			t.Errorf("segment %d: %+v, want %+v", i, p, s.ProgHeader)
		}
		if p.Off != y.Off || p.Vaddr != y.Vaddr || p.Filesz != y.Filesz || p.Memsz != y.Memsz {
			t.Errorf("segment %d: %+v, x/debug has %+v", i, p, y.ProgHeader)
		}
		if s.Type == elf.PT_NOTE {
			want = append(want, simpleNotes(t, s.Open(), s.Filesz)...)
			wantX = append(wantX, simpleNotes(t, y.Open(), y.Filesz)...)
		}
	}
	var got []string
	err = f.Notes(func(n elfimage.Note) error {
		d, err := n.Desc(1 << 20)
		got = append(got, fmt.Sprintf("%s %#x %x", n.Name, n.Type, d))
		return err
	})
	if err != nil || len(got) == 0 || strings.Join(got, "\n") != strings.Join(want, "\n") || strings.Join(got, "\n") != strings.Join(wantX, "\n") {
		t.Errorf("%d notes, %v; want %d, %d", len(got), err, len(want), len(wantX))
	}
}

// simpleNotes is a note walk as short as it can be, for well-formed cores.
func simpleNotes(t *testing.T, r io.Reader, size uint64) []string {
	t.Helper()
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	var out []string
	up := func(n uint32) uint32 { return (n + 3) &^ 3 }
	for len(b) >= 12 {
		n, d, typ := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
		b = b[12:]
		name := strings.TrimRight(string(b[:n]), "\x00")
		b = b[up(n):]
		out = append(out, fmt.Sprintf("%s %#x %x", name, typ, b[:d]))
		b = b[min(up(d), uint32(len(b))):]
	}
	return out
}

// TestDebugFile: separate debug files keep the build ID in a section, whatever
// their program headers say.
func TestDebugFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, exe, dbg := filepath.Join(dir, "a.c"), filepath.Join(dir, "a.out"), filepath.Join(dir, "a.debug")
	if err := os.WriteFile(src, []byte("int answer(void){return 42;} int main(void){return answer();}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{{"-Wl,--hash-style=gnu"}, {"-Wl,--hash-style=sysv", "-gz=zlib"}, {"-static", "-no-pie"}, {"-rdynamic", "-Wl,--hash-style=both", "-Wl,-z,noseparate-code"}} {
		run(t, "gcc", append([]string{"-g", "-Wl,--build-id=sha1", "-o", exe, src}, flags...)...)
		run(t, "objcopy", "--only-keep-debug", exe, dbg)
		run(t, "strip", "-g", exe)
		run(t, "objcopy", "--add-gnu-debuglink="+dbg, exe)
		f, err := elfimage.Open(exe)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d, err := elfimage.Open(dbg)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		a, ok1 := f.BuildID()
		b, ok2 := d.BuildID()
		if !ok1 || !ok2 || !bytes.Equal(a, b) || len(a) != 20 {
			t.Errorf("%v: build IDs %x and %x", flags, a, b)
		}
		if name, _, ok := f.Debuglink(); !ok || name != "a.debug" {
			t.Errorf("%v: debuglink %q", flags, name)
		}
		std, err := elf.Open(dbg)
		if err != nil {
			t.Fatal(err)
		}
		defer std.Close()
		want, err := std.Section(".debug_info").Data()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := d.SectionData(".debug_info", 1<<24); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: .debug_info %d bytes, %v; want %d", flags, len(got), err, len(want))
		}
		tab, err := d.Symbols(elfimage.Symtab)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		if err := tab.Each(func(_ int, s elfimage.Sym) bool {
			name, err := tab.Name(s)
			found = found || name == "answer" && s.Type() == elfimage.STTFunc
			return err == nil
		}); err != nil || !found {
			t.Errorf("%v: the debug file has no symbol answer (%v)", flags, err)
		}
		if _, err := d.SectionData(".text", 1<<20); !errors.Is(err, elfimage.ErrNoSection) {
			t.Errorf("%v: .text of a debug file: %v", flags, err)
		}
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		coretest.Absent(t, name)
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	im := rich()
	f := newFile(t, im.Bytes())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, w := range im.Dynamic[:40] {
				if s, ok := f.LookupDynSym(w.Name); !ok || s.Value != w.Value {
					t.Errorf("%s: %+v", w.Name, s)
				}
			}
			f.BuildID()
			if _, err := f.SectionData(".debug_line", 1<<20); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// use calls everything and checks what holds for any input.
func use(f *elfimage.File) error {
	_ = f.Notes(func(n elfimage.Note) error {
		_, err := n.Desc(1 << 16)
		_ = err // damaged inputs have damaged notes
		return nil
	})
	secs, err := f.Sections()
	if err != nil && secs != nil {
		return errors.New("sections with an error")
	}
	for i, s := range secs {
		if i < 64 {
			if b, err := f.SectionData(s.Name, 1<<20); err != nil && b != nil || len(b) > 1<<20 {
				return fmt.Errorf("section %q: %d bytes, %w", s.Name, len(b), err)
			}
		}
	}
	for _, kind := range []elfimage.SymKind{elfimage.Symtab, elfimage.Dynsym} {
		tab, err := f.Symbols(kind)
		if err != nil {
			continue
		}
		n := 0
		_ = tab.Each(func(_ int, s elfimage.Sym) bool {
			if name, err := tab.Name(s); err != nil && name != "" || len(name) > elfimage.MaxSymbolName {
				n = 1 << 20
			}
			n++
			return n < 200
		})
		if n > 1<<19 {
			return errors.New("a name with an error, or too long")
		}
	}
	f.LookupDynSym("function_3")
	f.LookupDynSym("nothing")
	f.BuildID()
	f.Debuglink()
	f.Debugaltlink()
	f.Interp()
	f.Soname()
	_, _ = f.Dynamic()
	var b [64]byte
	for _, p := range f.Progs() {
		if n, err := f.ReadVaddr(p.Vaddr, b[:]); (n == len(b)) != (err == nil) {
			return fmt.Errorf("read at %#x: %d bytes, %w", p.Vaddr, n, err)
		}
	}
	return nil
}

// TestDamage: 2,000 mutations and 200 truncations of an image.
func TestDamage(t *testing.T) {
	t.Parallel()
	b := rich().Bytes()
	r := coretest.Rand(3)
	try := func(what string, b []byte) {
		f, err := elfimage.New(bytes.NewReader(b), int64(len(b)), "f")
		if err != nil {
			if f != nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v with %v", what, f, err)
			}
			return
		}
		if err := use(f); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if m, err := elfimage.FromMemory(flatMemory{0x400000, b}, 0x400000, "m"); err == nil {
			if err := use(m); err != nil {
				t.Errorf("%s, in memory: %v", what, err)
			}
		}
	}
	for range 2000 {
		what, undo := coretest.Mutate(r, b, 0, len(b))
		try(what, b)
		undo()
		what, undo = coretest.Mutate(r, b, 0, 0x600) // headers and dynamic symbols
		try(what, b)
		undo()
	}
	for range 200 {
		n := r.IntN(len(b))
		try(fmt.Sprintf("cut at %d", n), b[:n])
	}
}

func FuzzImage(f *testing.F) {
	f.Add(rich().Bytes())
	f.Add(coretest.SampleImage().Bytes())
	f.Add(coretest.Sample(1).Bytes()[:8192])
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := elfimage.New(bytes.NewReader(b), int64(len(b)), "f")
		if err != nil {
			if im != nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%v with %v", im, err)
			}
			return
		}
		if err := use(im); err != nil {
			t.Fatal(err)
		}
		if m, err := elfimage.FromMemory(flatMemory{0x400000, b}, 0x400000, "m"); err == nil {
			if err := use(m); err != nil {
				t.Fatal(err)
			}
		}
	})
}
