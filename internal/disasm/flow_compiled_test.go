package disasm

import (
	"debug/elf"
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mycore/internal/target"
)

// The rows of truth in testdata/accessors.c: the function, and where in what
// it does the walk stands.
var accessorRows = []struct {
	function string
	size     int // of the last load, or of the store; 0: an address
	pick     func(f *Flow, call func(string) uint64) []Expr
}{
	{"get_id", 8, pickReturns}, {"get_killed", 4, pickReturns}, {"get_flag", 1, pickReturns}, {"get_small", 2, pickReturns},
	{"get_query", 0, pickReturns}, {"get_deep", 8, pickReturns}, {"get_checked", 8, pickReturns}, {"get_default", 4, pickReturns},
	{"tail", 8, pickReturns}, {"decided", 1, pickFirstTest}, {"set_command", 4, pickStores}, {"set_handle", 8, pickStores},
	{"give", 8, pickOut}, {"slot", 0, pickSlot}, {"kept", 8, pickReturns}, {"nested", 8, pickReturns},
	{"describe", 8, pickPassed(3)}, {"describe", 8, pickPassed(4)}, {"describe", 8, pickPassed(5)},
}

func pickReturns(f *Flow, _ func(string) uint64) (out []Expr) {
	for _, e := range f.Of(EvReturn) {
		if _, isConst := e.Value.Const(); !isConst {
			out = append(out, e.Value)
		}
	}
	return out
}

func pickFirstTest(f *Flow, _ func(string) uint64) (out []Expr) {
	for _, e := range f.Of(EvCompare)[:1] {
		out = append(out, e.Value)
	}
	return out
}

func pickStores(f *Flow, _ func(string) uint64) (out []Expr) {
	for _, e := range f.Of(EvStore) {
		a := atoms{}
		out = append(out, a.load(e.Addr, e.Size))
	}
	return out
}

func pickOut(f *Flow, _ func(string) uint64) (out []Expr) {
	for _, e := range f.Of(EvStore) {
		if e.Addr.IsArg(1) {
			out = append(out, e.Value)
		}
	}
	return out
}

// pickSlot takes base + index*8 apart.
func pickSlot(f *Flow, _ func(string) uint64) (out []Expr) {
	for _, e := range f.Of(EvReturn) {
		if e.Value.of(AtomLoad) && e.Value.Atom.X.Index != nil && e.Value.Atom.X.Scale == 8 {
			x := e.Value.Atom.X
			out = append(out, Expr{Atom: x.Atom, Off: x.Off})
		}
	}
	return out
}

func pickPassed(arg int) func(*Flow, func(string) uint64) []Expr {
	return func(f *Flow, call func(string) uint64) (out []Expr) {
		for _, e := range f.Of(EvCall) {
			if e.Always() && (e.Name == "log_line" || e.Target != 0 && e.Target == call("log_line")) {
				out = append(out, e.Args[arg])
			}
		}
		return out
	}
}

// TestTraceCompiledCode holds what Trace finds to what the compiler says about
// the structures, whatever the options.
func TestTraceCompiledCode(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc isn't installed")
	}
	for _, level := range []string{"-O0", "-O1", "-O2", "-O3", "-Os"} {
		for _, more := range []string{"-fno-pie -no-pie -DMAIN", "-fPIE -pie -DMAIN -rdynamic", "-fPIC -shared", "-fPIC -shared -fno-plt",
			"-fPIE -pie -DMAIN -rdynamic -fcf-protection=full -fno-omit-frame-pointer", "-fPIC -shared -fcf-protection=full -fstack-protector-all",
			"-fno-pie -no-pie -DMAIN -fcf-protection=none -fomit-frame-pointer -mtune=znver3"} {
			t.Run(level+" "+more, func(t *testing.T) { traceCompiled(t, append(strings.Fields(more), level)) })
		}
	}
}

func traceCompiled(t *testing.T, flags []string) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "accessors")
	if out, err := exec.Command("gcc", append([]string{"-w", "-o", bin, "testdata/accessors.c"}, flags...)...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms := symbols(t, f)
	img := image{f}
	truth := make([]byte, syms["truth"].Size)
	if _, err := img.ReadMemory(target.Addr(syms["truth"].Value), truth); err != nil {
		t.Fatal(err)
	}
	code := TraceCode{Depth: 2,
		Read:   func(addr uint64, p []byte) int { n, _ := img.ReadMemory(target.Addr(addr), p); return n },
		Extent: func(addr uint64) (uint64, uint64, bool) { return function(syms, addr) }}
	slots := gotNames(t, f)
	code.Slot = func(addr uint64) (string, uint64) { return slots[addr], syms[slots[addr]].Value }
	code.Callee = func(addr uint64) (string, uint64) {
		if slot, ok := Linkage(code.Read, addr); ok && slots[slot] != "" {
			return code.Slot(slot)
		}
		return "", addr
	}
	for row, a := range accessorRows {
		var want []int64
		for i := range 3 {
			if v := int64(binary.LittleEndian.Uint64(truth[row*24+i*8:])); v >= 0 {
				want = append(want, v)
			} else {
				break
			}
		}
		checkRow(t, code, syms, a.function, a.size, want, a.pick)
	}
}

func checkRow(t *testing.T, code TraceCode, syms map[string]elf.Symbol, name string, size int, want []int64, pick func(*Flow, func(string) uint64) []Expr) {
	t.Helper()
	if name == "describe" {
		code.Depth = 0 // the call is what counts
	}
	flow, err := Trace(code, syms[name].Value)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	found := 0
	for _, e := range pick(flow, func(n string) uint64 { return syms[n].Value }) {
		c, ok := e.Chain()
		if !ok || c.Arg != 0 {
			continue // what current() returns, for example
		}
		if slices.Equal(c.Offsets, want) && c.Size == size {
			found++
		} else if len(c.Offsets) >= len(want) { // a pointer on the way isn't wrong
			t.Errorf("%s: %s, want %#x of %d bytes\n%s", name, c, want, size, flowText(flow))
		}
	}
	if found == 0 {
		t.Errorf("%s: no walk %#x of %d bytes (incomplete: %v)\n%s", name, want, size, flow.Incomplete, flowText(flow))
	}
}

// gotNames reads the names of functions elsewhere by the pointers to them.
func gotNames(t *testing.T, f *elf.File) map[uint64]string {
	t.Helper()
	out := map[uint64]string{}
	syms, _ := f.DynamicSymbols()
	for _, name := range []string{".rela.plt", ".rela.dyn"} {
		s := f.Section(name)
		if s == nil {
			continue
		}
		b, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		for ; len(b) >= 24; b = b[24:] {
			if n := binary.LittleEndian.Uint32(b[12:]); n > 0 && int(n) <= len(syms) {
				out[binary.LittleEndian.Uint64(b)] = syms[n-1].Name
			}
		}
	}
	return out
}
