package symtab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"mycore/internal/elfimage"
)

// testSym is one symbol of an image made by makeELF.
type testSym struct {
	name        string
	value, size uint64
	typ, bind   byte
	shndx       uint16 // 0 stands for .text; see undef
}

const undef = 0xff00 // in testSym.shndx: SHN_UNDEF

const (
	textStart = 0x401000
	textSize  = 0x10000
)

// makeELF builds a 64-bit image with one executable segment, .symtab and its
// strings, and optionally .gnu_debugdata.
func makeELF(machine uint16, syms []testSym, debugdata []byte) []byte {
	le := binary.LittleEndian
	strs := []byte{0}
	table := make([]byte, 24)
	for _, s := range syms {
		shndx := s.shndx
		switch shndx {
		case 0:
			shndx = 1
		case undef:
			shndx = 0
		}
		table = le.AppendUint32(table, uint32(len(strs)))
		table = append(table, s.bind<<4|s.typ, 0)
		table = le.AppendUint16(table, shndx)
		table = le.AppendUint64(table, s.value)
		table = le.AppendUint64(table, s.size)
		strs = append(append(strs, s.name...), 0)
	}
	names := []byte("\x00.text\x00.symtab\x00.strtab\x00.shstrtab\x00.gnu_debugdata\x00")
	at := func(n string) uint32 { return uint32(bytes.Index(names, []byte(n+"\x00"))) }
	body := make([]byte, 64+56)
	place := func(b []byte) (off, size uint64) {
		off = uint64(len(body))
		body = append(body, b...)
		for len(body)%8 != 0 {
			body = append(body, 0)
		}
		return off, uint64(len(b))
	}
	var sh []byte
	section := func(name, typ uint32, flags, addr, off, size uint64, link uint32, ent uint64) {
		sh = le.AppendUint32(sh, name)
		sh = le.AppendUint32(sh, typ)
		for _, v := range []uint64{flags, addr, off, size} {
			sh = le.AppendUint64(sh, v)
		}
		sh = le.AppendUint32(sh, link)
		sh = le.AppendUint32(sh, 0)
		sh = le.AppendUint64(sh, 8)
		sh = le.AppendUint64(sh, ent)
	}
	section(0, 0, 0, 0, 0, 0, 0, 0)
	section(at(".text"), 8, 6, textStart, 0, textSize, 0, 0)
	off, size := place(table)
	section(at(".symtab"), 2, 0, 0, off, size, 3, 24)
	off, size = place(strs)
	section(at(".strtab"), 3, 0, 0, off, size, 0, 0)
	off, size = place(names)
	section(at(".shstrtab"), 3, 0, 0, off, size, 0, 0)
	if debugdata != nil {
		off, size = place(debugdata)
		section(at(".gnu_debugdata"), 1, 0, 0, off, size, 0, 0)
	}
	shoff := uint64(len(body))
	body = append(body, sh...)

	h := body[:64]
	copy(h, "\x7fELF\x02\x01\x01")
	le.PutUint16(h[16:], 3)
	le.PutUint16(h[18:], machine)
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[32:], 64)
	le.PutUint64(h[40:], shoff)
	le.PutUint16(h[52:], 64)
	le.PutUint16(h[54:], 56)
	le.PutUint16(h[56:], 1)
	le.PutUint16(h[58:], 64)
	le.PutUint16(h[60:], uint16(len(sh)/64))
	le.PutUint16(h[62:], 4)
	p := body[64:]
	le.PutUint32(p, elfimage.PTLoad)
	le.PutUint32(p[4:], elfimage.PFR|elfimage.PFX)
	le.PutUint64(p[16:], textStart)
	le.PutUint64(p[40:], textSize)
	return body
}

func open(t testing.TB, b []byte) *elfimage.File {
	t.Helper()
	f, err := elfimage.New(bytes.NewReader(b), int64(len(b)), "test image")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const (
	fn, obj, nt, tls, ifunc = elfimage.STTFunc, elfimage.STTObject, elfimage.STTNotype, elfimage.STTTLS, elfimage.STTGNUIfunc
	local, global, weak     = elfimage.STBLocal, elfimage.STBGlobal, elfimage.STBWeak
)

func TestAt(t *testing.T) {
	syms := []testSym{
		{"alone", 0x401000, 0x10, fn, global, 0},
		{"_start_sized_zero", 0x401020, 0, nt, global, 0},
		{"__open64", 0x401100, 0x20, fn, global, 0},
		{"open64", 0x401100, 0x20, fn, weak, 0},
		{"open", 0x401100, 0x20, fn, weak, 0},
		{"a_local_alias", 0x401100, 0x20, fn, local, 0},
		{"o", 0x401100, 0x20, nt, global, 0},
		{"p", 0x401100, 0x20, obj, global, 0},
		{"s", 0x401100, 0x8, fn, global, 0}, // better than open, as far as it reaches
		{"outer", 0x402000, 0x100, fn, global, 0},
		{"inner_label", 0x402010, 0x10, nt, local, 0},
		{"versioned@@V_1", 0x403000, 0x10, fn, global, 0},
		{"_ZN3FooC1Ev", 0x403100, 0x10, fn, weak, 0},
		{"_ZN3FooC2Ev", 0x403100, 0x10, fn, weak, 0},
		{"undefined", 0x403200, 0x10, fn, global, undef},
		{"thread_local", 0x403300, 0x10, tls, global, 0},
		{"absolute", 0x403400, 0x10, fn, global, elfimage.SHNAbs},
		{"resolver", 0x403500, 0x10, ifunc, global, 0},
		{"resolver_itself", 0x403500, 0x10, fn, local, 0},
		{"outside_code", 0x900000, 0x10, fn, global, 0},
		{"last", textStart + textSize - 8, 8, fn, global, 0},
		{"", 0x403600, 0x10, fn, global, 0},
	}
	table := Of(open(t, makeELF(elfimage.MachineAMD64, syms, nil)), nil)
	for _, c := range []struct {
		at    uint64
		name  string
		start uint64
	}{
		{0x401000, "alone", 0x401000}, {0x40100f, "alone", 0x401000},
		{0x401010, "", 0}, {0x400fff, "", 0}, {0, "", 0}, {^uint64(0), "", 0},
		{0x401020, "", 0}, {0x401021, "", 0},
		{0x401100, "s", 0x401100}, {0x401107, "s", 0x401100}, {0x401108, "open", 0x401100}, {0x40111f, "open", 0x401100}, {0x401120, "", 0},
		{0x402000, "outer", 0x402000}, {0x402010, "inner_label", 0x402010}, {0x402020, "outer", 0x402000},
		{0x4020ff, "outer", 0x402000}, {0x402100, "", 0},
		{0x403008, "versioned", 0x403000}, {0x403100, "_ZN3FooC1Ev", 0x403100},
		{0x403200, "", 0}, {0x403300, "", 0}, {0x403400, "", 0},
		{0x403500, "resolver_itself", 0x403500}, {0x900000, "", 0}, {0x403600, "", 0},
		{textStart + textSize - 1, "last", textStart + textSize - 8},
	} {
		got, ok := table.At(c.at)
		if ok != (c.name != "") || got.Name != c.name || got.Start != c.start {
			t.Errorf("At(%#x) = %+v, %v, want %q at %#x", c.at, got, ok, c.name, c.start)
		}
		if ok && got.Source != FromSymtab {
			t.Errorf("At(%#x): source %q", c.at, got.Source)
		}
	}
	// The alias chosen doesn't depend on the order in the table.
	for seed := range uint64(20) {
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(syms), func(i, j int) { syms[i], syms[j] = syms[j], syms[i] })
		table := Of(open(t, makeELF(elfimage.MachineAMD64, syms, nil)), nil)
		if got, _ := table.At(0x401108); got.Name != "open" || got.Size != 0x20 {
			t.Fatalf("order %d: %+v", seed, got)
		}
		if got, _ := table.At(0x401104); got.Name != "s" {
			t.Fatalf("order %d: where the short alias covers too: %+v", seed, got)
		}
	}
}

func TestStarting(t *testing.T) {
	syms := []testSym{
		{"_start", 0x401000, 0, nt, global, 0},
		{".annobin_init.c", 0x401000, 0, nt, local, 0},
		{"sized", 0x401010, 8, fn, local, 0},
		{"label", 0x401010, 0, nt, global, 0},
		{"$x", 0x401020, 0, nt, local, 0},
		{"$d.7", 0x401030, 0, nt, local, 0},
		{"code", 0x401030, 0, nt, global, 0},
	}
	arm := Of(open(t, makeELF(elfimage.MachineAArch64, syms, nil)), nil)
	amd := Of(open(t, makeELF(elfimage.MachineAMD64, syms, nil)), nil)
	for _, c := range []struct {
		at       uint64
		arm, amd string
	}{
		{0x401000, "_start", "_start"}, {0x401001, "", ""}, {0x401010, "sized", "sized"}, {0x401011, "", ""},
		{0x401020, "", "$x"}, {0x401030, "code", "code"},
	} {
		if got, ok := arm.Starting(c.at); got.Name != c.arm || ok != (c.arm != "") {
			t.Errorf("arm64 Starting(%#x) = %+v, %v, want %q", c.at, got, ok, c.arm)
		}
		if got, ok := amd.Starting(c.at); got.Name != c.amd || ok != (c.amd != "") {
			t.Errorf("amd64 Starting(%#x) = %+v, %v, want %q", c.at, got, ok, c.amd)
		}
	}
}

func TestNamed(t *testing.T) {
	table := Of(open(t, makeELF(elfimage.MachineAMD64, []testSym{
		{"data", 0x800000, 8, obj, global, 0},
		{"mydata", 0x800010, 8, obj, global, 0},
		{"twice", 0x401000, 8, fn, local, 0},
		{"twice", 0x401100, 8, fn, global, 0},
		{"nowhere", 0, 0, fn, global, undef},
		{"tls", 0x10, 8, tls, global, 0},
		{"v@@V_2", 0x401200, 8, fn, global, 0},
		{"prefix_only", 0x401300, 8, fn, global, 0},
	}, nil)), nil)
	for name, want := range map[string]uint64{"data": 0x800000, "mydata": 0x800010, "twice": 0x401100, "nowhere": 0, "tls": 0,
		"v": 0x401200, "prefix": 0, "only": 0, "": 0, "V_2": 0} {
		got, ok := table.Named(name)
		if ok != (want != 0) || got.Start != want {
			t.Errorf("Named(%q) = %+v, %v, want %#x", name, got, ok, want)
		}
	}
}

func pack(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := xz.NewWriter(&buf)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestSourcesInOrder(t *testing.T) {
	inner := makeELF(elfimage.MachineAMD64, []testSym{{"mini", 0x401000, 0x10, fn, local, 0}, {"shadowed", 0x402000, 0x10, fn, local, 0}}, nil)
	main := makeELF(elfimage.MachineAMD64, []testSym{{"main", 0x402000, 0x10, fn, global, 0}}, pack(t, inner))
	debug := makeELF(elfimage.MachineAMD64, []testSym{{"debug", 0x403000, 0x10, fn, global, 0}}, nil)
	table := Of(open(t, main), open(t, debug))
	for at, want := range map[uint64]Symbol{
		0x401008: {"mini", 0x401000, 0x10, FromDebugdata},
		0x402008: {"main", 0x402000, 0x10, FromSymtab},
		0x403008: {"debug", 0x403000, 0x10, FromDebugFile},
	} {
		if got, ok := table.At(at); !ok || got != want {
			t.Errorf("At(%#x) = %+v, %v, want %+v", at, got, ok, want)
		}
	}
	if got, ok := table.Named("mini"); !ok || got.Start != 0x401000 || got.Source != FromDebugdata {
		t.Errorf("Named(mini) = %+v, %v", got, ok)
	}
	if p := table.Problems(); len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
}

func TestDamagedTables(t *testing.T) {
	packed := pack(t, makeELF(elfimage.MachineAMD64, nil, nil))
	packed[len(packed)/2] ^= 0xff
	table := Of(open(t, makeELF(elfimage.MachineAMD64, []testSym{{"main", 0x402000, 0x10, fn, global, 0}}, packed)), nil)
	if got, ok := table.At(0x402000); !ok || got.Name != "main" {
		t.Errorf("beside damaged .gnu_debugdata: %+v, %v", got, ok)
	}
	if p := table.Problems(); len(p) != 1 || !strings.Contains(p[0].Error(), FromDebugdata) {
		t.Errorf("problems: %v, want one about %s", p, FromDebugdata)
	}
	none := New()
	if _, ok := none.At(0x401000); ok {
		t.Error("an empty table knows an address")
	}
	if _, ok := none.Named("x"); ok {
		t.Error("an empty table knows a name")
	}
	if nothing := Of(nil, nil); len(nothing.Problems()) != 0 {
		t.Errorf("problems of nothing: %v", nothing.Problems())
	}
}

func TestSortAgreesWithComparing(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, n := range []int{0, 1, 2, radixMin - 1, radixMin, 20000} {
		for _, span := range []uint64{1, 1 << 12, 1 << 26, 1 << 63} {
			e := make([]entry, n)
			for i := range e {
				e[i] = entry{value: 0x400000 + r.Uint64N(span), name: uint32(i)}
			}
			want := slices.Clone(e)
			slices.SortStableFunc(want, func(a, b entry) int {
				switch {
				case a.value < b.value:
					return -1
				case a.value > b.value:
					return 1
				}
				return 0
			})
			if got := sortByValue(e); !slices.Equal(got, want) {
				t.Errorf("%d entries over %#x: order differs", n, span)
			}
		}
	}
}

// realImages lists images of real programs: libraries of this machine and,
// where they are, the executables of the real cores beside the module.
func realImages(t testing.TB) []string {
	t.Helper()
	paths := []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/usr/local/go/bin/go"}
	shared, _ := filepath.Glob("../../../shared/cores/linux/elfutils/backtrace.*.exec")
	paths = slices.DeleteFunc(append(shared, paths...), func(p string) bool {
		_, err := os.Stat(p)
		return err != nil
	})
	if len(paths) == 0 {
		t.Skip("no real images on this machine")
	}
	return paths
}

// TestRealImages compares with the standard library's reader.
func TestRealImages(t *testing.T) {
	for _, path := range realImages(t) {
		std, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer std.Close()
		f, err := elfimage.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		syms, err := std.Symbols()
		if err != nil {
			if syms, err = std.DynamicSymbols(); err != nil {
				t.Fatal(err)
			}
		}
		checkReal(t, path, Of(f, nil), syms)
	}
}

func checkReal(t *testing.T, path string, table *Table, syms []elf.Symbol) {
	byStart := map[uint64][]string{}
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF {
			byStart[s.Value] = append(byStart[s.Value], Unversioned(s.Name))
		}
	}
	checked := 0
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF || s.Size == 0 || s.Name == "" || s.Name[0] == '.' {
			continue
		}
		checked++
		for _, at := range []uint64{s.Value, s.Value + s.Size/2, s.Value + s.Size - 1} {
			got, ok := table.At(at)
			if !ok || at-got.Start >= got.Size || !slices.Contains(byStart[got.Start], got.Name) {
				t.Fatalf("%s: At(%#x) = %+v, %v; %s has [%#x, +%#x)", path, at, got, ok, s.Name, s.Value, s.Size)
			}
		}
	}
	if checked < 500 {
		t.Errorf("%s: only %d functions checked", path, checked)
	}
}

func TestConcurrentUse(t *testing.T) {
	var syms []testSym
	for i := range uint64(500) {
		syms = append(syms, testSym{fmt.Sprintf("f%d", i), textStart + i*16, 16, fn, global, 0})
	}
	table := Of(open(t, makeELF(elfimage.MachineAMD64, syms, nil)), nil)
	done := make(chan bool)
	for range 4 {
		go func() {
			good := true
			for i := range uint64(500) {
				s, ok := table.At(textStart + i*16 + 3)
				good = good && ok && s.Name == fmt.Sprintf("f%d", i)
			}
			done <- good
		}()
	}
	for range 4 {
		if !<-done {
			t.Error("a wrong answer under concurrent use")
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add(makeELF(elfimage.MachineAMD64, []testSym{{"a", 0x401000, 0x10, fn, global, 0}, {"b@@V", 0x401008, 4, nt, local, 0}}, nil), uint64(0x401009))
	f.Add(makeELF(elfimage.MachineAArch64, []testSym{{"$x", 0x401000, 0, nt, local, 0}}, []byte("\xfd7zXZ\x00")), uint64(0x401000))
	f.Fuzz(func(t *testing.T, image []byte, at uint64) {
		file, err := elfimage.New(bytes.NewReader(image), int64(len(image)), "fuzz")
		if err != nil {
			return
		}
		table := Of(file, file)
		if s, ok := table.At(at); ok && (at-s.Start >= s.Size || s.Name == "") {
			t.Errorf("At(%#x) = %+v", at, s)
		}
		if s, ok := table.Starting(at); ok && (s.Start != at || s.Name == "") {
			t.Errorf("Starting(%#x) = %+v", at, s)
		}
		table.Named("a")
		table.Problems()
	})
}

func BenchmarkIndex200k(b *testing.B) {
	r := rand.New(rand.NewPCG(9, 9))
	var syms []testSym
	for range 200000 {
		syms = append(syms, testSym{"f", textStart + r.Uint64N(textSize), 16, fn, global, 0})
	}
	image := makeELF(elfimage.MachineAMD64, syms, nil)
	b.ReportAllocs()
	for b.Loop() {
		table := Of(open(b, image), nil)
		table.At(textStart)
	}
}

func BenchmarkAt(b *testing.B) {
	f, err := elfimage.Open(realImages(b)[0])
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	table := Of(f, nil)
	s, ok := table.Named("main")
	if !ok {
		s, ok = table.Named("open")
	}
	if !ok {
		b.Fatal("neither main nor open")
	}
	pc := s.Start
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := table.At(pc); !ok {
			b.Fatal("no name")
		}
	}
}
