package disasm

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mycore/internal/target"
)

// The functions of testdata/chain.c by the row of their record, with their
// number of arguments; bits of the arguments that are int.
var chainFunctions = []struct {
	name string
	args int
	ints uint
}{
	{"stop", 2, 2}, {"keeps", 3, 2}, {"changes", 3, 0}, {"buffer", 2, 0}, {"loops", 3, 2}, {"many", 8, 0}, {"aligned", 2, 0},
	{"variable", 2, 2}, {"large", 2, 0}, {"variadic", 2, 2}, {"method", 2, 0}, {"passes", 2, 0},
}

// TestRecoverFromCompiledCode compiles a chain of calls with several options,
// lets gdb unwind it, and holds every argument that is recovered to what the
// function itself recorded. What is not recovered is fine up to a degree; one
// wrong value fails.
func TestRecoverFromCompiledCode(t *testing.T) {
	for _, tool := range []string{"gcc", "gdb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s isn't installed", tool)
		}
	}
	for _, v := range []struct {
		flags string
		// least is the number of arguments to recover, of 33. With -O2 gcc knows
		// which registers the callees here leave alone and keeps values in
		// caller-saved ones, which no unwinder gets back.
		least int
	}{
		{"-O0", 30}, {"-O1", 28}, {"-O2", 20}, {"-O3", 20}, {"-Os", 20}, {"-O2 -fno-omit-frame-pointer", 20},
		{"-O2 -fstack-clash-protection -fstack-protector-all -fcf-protection=full", 28}, {"-O2 -fPIC -fno-plt -fno-jump-tables", 28},
		{"-O3 -mavx2 -funroll-loops", 0},
	} {
		t.Run(v.flags, func(t *testing.T) {
			found, all := recoverCompiled(t, strings.Fields(v.flags))
			t.Logf("%d of %d arguments recovered", found, all)
			if found < v.least {
				t.Errorf("only %d of %d arguments recovered, want %d", found, all, v.least)
			}
		})
	}
}

func recoverCompiled(t *testing.T, flags []string) (found, all int) {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "chain")
	args := append([]string{"-w", "-no-pie", "-o", bin, "testdata/chain.c"}, flags...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	if slices.Contains(flags, "-mavx2") && !hasAVX2() {
		t.Skip("this processor has no AVX2")
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms := symbols(t, f)
	dump := runGDB(t, dir, bin, syms["recorded"], len(chainFunctions)+1)
	mem := pieces{{dump.stackStart, dump.stack}, {syms["recorded"].Value, dump.recorded}}
	r := NewRecoverer(layered{mem, image{f}}, func(addr uint64) (uint64, uint64, bool) { return function(syms, addr) })
	for k, frame := range dump.frames {
		row := -1
		for i, fn := range chainFunctions {
			if s := syms[fn.name]; frame.PC >= s.Value && frame.PC < s.Value+s.Size {
				row, dump.frames[k].Name, dump.frames[k].Start = i, fn.name, s.Value
			}
		}
		if s := syms["main"]; frame.PC >= s.Value && frame.PC < s.Value+s.Size {
			dump.frames[k].Name, dump.frames[k].Start = "main", s.Value
		}
		if row < 0 && dump.frames[k].Name != "main" {
			t.Fatalf("frame %d at %#x is in no function of the chain", k, frame.PC)
		}
	}
	if n := len(dump.frames); n != len(chainFunctions)+1 {
		t.Fatalf("gdb shows %d frames", n)
	}
	for row, fn := range chainFunctions {
		for arg := range fn.args {
			all++
			want := binary.LittleEndian.Uint64(dump.recorded[(row*8+arg)*8:])
			got, err := r.Argument(dump.frames, row, arg)
			if err != nil {
				t.Logf("%s, argument %d: %v", fn.name, arg+1, err)
				continue
			}
			found++
			if got.Bits == 32 || fn.ints>>arg&1 != 0 {
				want, got.Value = uint64(uint32(want)), uint64(uint32(got.Value))
			}
			if row < 6 && len(got.Assumed) > 0 { // further out, a frame of variable size and an indirect call are involved
				t.Errorf("%s, argument %d: assumed %q", fn.name, arg+1, got.Assumed)
			}
			if got.Value != want {
				t.Errorf("%s, argument %d: %#x, want %#x: %s", fn.name, arg+1, got.Value, want, got.How)
			}
		}
	}
	return found, all
}

func hasAVX2() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && bytes.Contains(b, []byte(" avx2 "))
}

func symbols(t *testing.T, f *elf.File) map[string]elf.Symbol {
	t.Helper()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]elf.Symbol{}
	for _, s := range syms {
		if s.Size > 0 {
			out[s.Name] = s
		}
	}
	return out
}

// function finds the symbol around an address; cold parts are symbols, too.
func function(syms map[string]elf.Symbol, addr uint64) (start, end uint64, ok bool) {
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && addr >= s.Value && addr < s.Value+s.Size {
			return s.Value, s.Value + s.Size, true
		}
	}
	return 0, 0, false
}

// layered reads from the first memory that has the address.
type layered []target.Memory

func (m layered) ReadMemory(addr target.Addr, p []byte) (n int, err error) {
	for _, l := range m {
		if n, err = l.ReadMemory(addr, p); n > 0 || err == nil {
			return n, err
		}
	}
	return n, err
}

type gdbDump struct {
	frames          []Frame
	stackStart      uint64
	stack, recorded []byte
}

// runGDB runs the program up to its trap and returns frames, stack and record.
func runGDB(t *testing.T, dir, bin string, record elf.Symbol, frames int) gdbDump {
	t.Helper()
	var script strings.Builder
	fmt.Fprintf(&script, "set pagination off\nset confirm off\nset disable-randomization on\nrun\n")
	for i := range frames {
		fmt.Fprintf(&script, "frame %d\ninfo frame\ninfo registers rip rsp rbp rbx r12 r13 r14 r15\n", i)
	}
	stack, rec := filepath.Join(dir, "stack"), filepath.Join(dir, "recorded")
	fmt.Fprintf(&script, "frame 0\nset $low = $sp - 256\nframe %d\nset $high = $sp + 256\nprintf \"STACK %%#lx\\n\", $low\n", frames-1)
	fmt.Fprintf(&script, "dump binary memory %s $low $high\ndump binary memory %s %#x %#x\nkill\n", stack, rec, record.Value, record.Value+record.Size)
	file := filepath.Join(dir, "script")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("gdb", "-nx", "-q", "-batch", "-x", file, bin).CombinedOutput()
	if err != nil {
		t.Fatalf("gdb: %v\n%s", err, out)
	}
	d := parseGDB(t, out)
	for path, into := range map[string]*[]byte{stack: &d.stack, rec: &d.recorded} {
		if *into, err = os.ReadFile(path); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return d
}

var gdbRegisters = map[string]int{"rsp": target.RSP, "rbp": target.RBP, "rbx": target.RBX, "r12": target.R12, "r13": target.R13, "r14": target.R14, "r15": target.R15}

func parseGDB(t *testing.T, out []byte) gdbDump {
	t.Helper()
	var d gdbDump
	number := func(s string) uint64 {
		v, err := strconv.ParseUint(strings.TrimRight(strings.TrimPrefix(s, "0x"), ":"), 16, 64)
		if err != nil {
			t.Fatalf("gdb: %v\n%s", err, out)
		}
		return v
	}
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		switch {
		case strings.HasPrefix(sc.Text(), "Stack level "):
			n := len(d.frames)
			d.frames = append(d.frames, Frame{Suspended: n > 0, CFA: number(f[5]), Regs: regs()})
		case len(f) >= 2 && f[0] == "STACK":
			d.stackStart = number(f[1])
		case len(d.frames) > 0 && len(f) >= 2 && f[0] == "rip" && strings.HasPrefix(f[1], "0x"):
			d.frames[len(d.frames)-1].PC = number(f[1])
		case len(d.frames) > 0 && len(f) >= 2:
			if r, ok := gdbRegisters[f[0]]; ok && strings.HasPrefix(f[1], "0x") {
				d.frames[len(d.frames)-1].Regs.Set(r, number(f[1]))
			}
		}
	}
	return d
}
