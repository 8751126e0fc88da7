package elfimage

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"testing"

	xelf "golang.org/x/debug/elf"
)

// crossFiles are binaries of this machine that differ in kind: this test
// (static, Go), and whatever C programs are installed.
func crossFiles(t *testing.T) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	files := []string{exe}
	for _, p := range []string{"/bin/sh", "/usr/sbin/mariadbd", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"} {
		if _, err := os.Stat(p); err == nil {
			files = append(files, p)
		}
	}
	return files
}

// TestCrossCheck compares segments, sections, dynamic entries and symbols with
// two independent readers.
func TestCrossCheck(t *testing.T) {
	for _, path := range crossFiles(t) {
		t.Run(path, func(t *testing.T) {
			f, err := Open(path)
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
			compareSegments(t, f, std, x)
			compareSections(t, f, std, x)
			compareSymbols(t, f, std, x)
		})
	}
}

func compareSegments(t *testing.T, f *File, std *elf.File, x *xelf.File) {
	t.Helper()
	if uint16(std.Machine) != f.Machine() || std.Entry != f.Entry() || uint16(std.Type) != uint16(f.Type()) {
		t.Errorf("header: %d %#x %v, want %v %#x %v", f.Machine(), f.Entry(), f.Type(), std.Machine, std.Entry, std.Type)
	}
	if len(f.Progs()) != len(std.Progs) || len(f.Progs()) != len(x.Progs) {
		t.Fatalf("%d segments, want %d (debug/elf), %d (x/debug)", len(f.Progs()), len(std.Progs), len(x.Progs))
	}
	for i, p := range f.Progs() {
		s, y := std.Progs[i].ProgHeader, x.Progs[i].ProgHeader
		got := elf.ProgHeader{Type: elf.ProgType(p.Type), Flags: elf.ProgFlag(p.Flags), Off: p.Off, Vaddr: p.Vaddr, Paddr: p.Paddr, Filesz: p.Filesz, Memsz: p.Memsz, Align: p.Align}
		if got != s {
			t.Errorf("segment %d: %+v, want %+v", i, got, s)
		}
		if uint32(y.Type) != p.Type || y.Off != p.Off || y.Vaddr != p.Vaddr || y.Filesz != p.Filesz || y.Memsz != p.Memsz {
			t.Errorf("segment %d: %+v, x/debug has %+v", i, p, y)
		}
	}
}

func compareSections(t *testing.T, f *File, std *elf.File, x *xelf.File) {
	t.Helper()
	secs, err := f.Sections()
	if err != nil {
		t.Fatal(err)
	}
	if len(secs) != len(std.Sections) || len(secs) != len(x.Sections) {
		t.Fatalf("%d sections, want %d, %d", len(secs), len(std.Sections), len(x.Sections))
	}
	for i, s := range secs {
		w := std.Sections[i].SectionHeader
		if s.Name != w.Name || s.Type != uint32(w.Type) || s.Addr != w.Addr || s.Off != w.Offset || s.Size != w.FileSize && w.Type != elf.SHT_NOBITS || s.Link != w.Link || s.Info != w.Info || s.Entsize != w.Entsize || s.Flags != uint64(w.Flags) {
			t.Errorf("section %d: %+v, want %+v", i, s, w)
		}
		if x.Sections[i].Name != s.Name || x.Sections[i].Offset != s.Off {
			t.Errorf("section %d: %+v, x/debug has %+v", i, s, x.Sections[i].SectionHeader)
		}
		if s.Type == SHTNobits || s.Type == 0 || s.Name == "" || s.Size > 8<<20 {
			continue
		}
		if first, _ := f.Section(s.Name); first != s {
			continue // two sections of one name: SectionData gives the first
		}
		got, err := f.SectionData(s.Name, 64<<20)
		want, werr := std.Sections[i].Data()
		if err != nil || werr != nil || !bytes.Equal(got, want) {
			t.Errorf("section %s: %d bytes, %v; want %d, %v", s.Name, len(got), err, len(want), werr)
		}
	}
}

// flat is one symbol as text, for comparing across readers.
func flat(name string, info, other byte, shndx uint16, value, size uint64) string {
	return fmt.Sprintf("%s %d %d %d %#x %d", name, info, other, shndx, value, size)
}

func compareSymbols(t *testing.T, f *File, std *elf.File, x *xelf.File) {
	t.Helper()
	for _, c := range []struct {
		kind SymKind
		std  func() ([]elf.Symbol, error)
		x    func() ([]xelf.Symbol, error)
	}{{Symtab, std.Symbols, x.Symbols}, {Dynsym, std.DynamicSymbols, nil}} {
		want, werr := c.std()
		tab, err := f.Symbols(c.kind)
		if werr != nil {
			if err == nil {
				t.Errorf("%v: %d symbols, debug/elf: %v", c.kind, tab.Len(), werr)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.kind, err)
			continue
		}
		if tab.Len() != len(want)+1 { // debug/elf leaves out the empty entry
			t.Errorf("%v: %d symbols, want %d", c.kind, tab.Len(), len(want)+1)
		}
		bad := 0
		err = tab.Each(func(i int, s Sym) bool {
			if i == 0 {
				return true
			}
			w := want[i-1]
			name, err := tab.Name(s)
			got := flat(name, s.Info, s.Other, s.Shndx, s.Value, s.Size)
			if exp := flat(w.Name, w.Info, w.Other, uint16(w.Section), w.Value, w.Size); err != nil || got != exp {
				t.Errorf("%v %d: %s (%v), want %s", c.kind, i, got, err, exp)
				bad++
			}
			return bad < 5
		})
		if err != nil {
			t.Error(err)
		}
		if c.x != nil {
			xs, err := c.x()
			if err != nil || len(xs) != len(want) {
				t.Errorf("%v: x/debug has %d symbols, %v; debug/elf %d", c.kind, len(xs), err, len(want))
			}
		}
		if c.kind == Dynsym {
			compareLookups(t, f, want)
		}
	}
}

// compareLookups finds every defined dynamic symbol by hash.
func compareLookups(t *testing.T, f *File, want []elf.Symbol) {
	t.Helper()
	byName := map[string][]elf.Symbol{}
	for _, w := range want {
		if w.Section != elf.SHN_UNDEF && elf.ST_BIND(w.Info) != elf.STB_LOCAL {
			byName[w.Name] = append(byName[w.Name], w)
		}
	}
	bad := 0
	for name, ws := range byName {
		s, ok := f.LookupDynSym(name)
		match := false
		for _, w := range ws {
			match = match || w.Value == s.Value && w.Size == s.Size && !(w.VersionIndex.IsHidden() && anyDefault(ws))
		}
		if !ok || !match {
			if bad++; bad < 5 {
				t.Errorf("LookupDynSym(%q) = %+v, %v; want one of %+v", name, s, ok, ws)
			}
		}
	}
	if _, ok := f.LookupDynSym("no_such_symbol_in_any_library"); ok {
		t.Error("LookupDynSym found a name that isn't there")
	}
}

func anyDefault(ws []elf.Symbol) bool {
	for _, w := range ws {
		if !w.VersionIndex.IsHidden() {
			return true
		}
	}
	return false
}

// BenchmarkLookupDynSym finds a name in the largest library at hand.
func BenchmarkLookupDynSym(b *testing.B) {
	const libc = "/lib/x86_64-linux-gnu/libc.so.6"
	f, err := Open(libc)
	if err != nil {
		b.Skipf("no %s: %v", libc, err)
	}
	defer f.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := f.LookupDynSym("pthread_create"); !ok {
			b.Fatal("no pthread_create")
		}
	}
}
