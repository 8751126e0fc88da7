package disasm

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"mycore/internal/target"
)

type realFunction struct {
	file string
	addr uint64 // link-time address of its first byte
	code string
}

// Where arguments of real functions are at their calls and system calls: the
// offsets are those of the return addresses, read off a disassembly.
var realAsks = []struct {
	function string
	pc       uint64
	args     string // locations of the first, second, ... argument
}{
	{"my_open", 0x4c, "r13 | r12/32 | lost"},           // call open64@plt
	{"my_open", 0x84, "r13 | r12/32 | lost"},           // call my_open_parent_dir_nosymlinks
	{"my_open", 0xa2, "r13 | r12/32 | lost"},           // call openat64@plt
	{"my_open", 0xb1, "r13 | lost"},                    // call close@plt, after eax went to r12d
	{"open64", 0x51, "rsi rbp | rdx/32 rbx/32 | lost"}, // syscall: rdi became AT_FDCWD
	{"open64", 0xd0, "rsi rbp | rdx/32 rbx/32 | lost"}, // syscall of a thread with cancellation on
	{"poll", 0x10, "rdi | rsi | rdx"},
	{"poll", 0x4f, "rdi [CFA-0x28] | rsi [CFA-0x20] | rdx/32 [CFA-0x14]/32"},
	{"ppoll", 0x48, "rdi | rsi | lost"},
	{"select", 0xb4, "rbx/32 rdi/32 | rsi r12 | rdx r15 | r10 | rbp"},
	{"clock_nanosleep", 0x65, "lost | rsi/32 [CFA-0x24]/32 | rdx [CFA-0x20] | r10 [CFA-0x18]"},
	{"syscall", 0x19, "lost | rdi | rsi | rdx | r10 | r8"},
}

func realCode(t testing.TB, name string) Code {
	t.Helper()
	f, ok := realFunctions[name]
	if !ok {
		t.Fatalf("no function %s", name)
	}
	return Code{Start: f.addr, Bytes: unhex(t, f.code)}
}

func TestLocateInRealFunctions(t *testing.T) {
	for _, q := range realAsks {
		code := realCode(t, q.function)
		for arg, want := range strings.Split(q.args, " | ") {
			locs, _, err := Locate(code, Point{PC: code.Start + q.pc, Suspended: true}, arg)
			checkLocations(t, fmt.Sprintf("%s+%#x: argument %d", q.function, q.pc, arg), want, locs, err)
		}
	}
	_, how, err := Locate(realCode(t, "my_open"), Point{PC: 0xef8a7c, Suspended: true}, 0)
	if err != nil || how != "rdi saved in r13 by 0xef8a30+0x8" {
		t.Errorf("%q, %v", how, err)
	}
}

func TestPassedByRealFunctions(t *testing.T) {
	a, err := Analyze(realCode(t, "my_open"))
	if err != nil {
		t.Fatal(err)
	}
	for arg, want := range []string{"r13 argument 1", "lost", "r14/32"} {
		p, err := a.ArgumentAtCall(0xef8a7c, arg)
		checkLocations(t, fmt.Sprintf("my_open calls open64, argument %d", arg), want, p.Locations, err)
		if p.Target != 0x684420 || !p.Direct {
			t.Errorf("target %#x", p.Target)
		}
	}
}

func TestSyscallNumberOfRealFunctions(t *testing.T) {
	for _, tt := range []struct {
		function string
		pc       uint64 // behind the syscall
		want     string
	}{
		{"open64", 0x51, "0x101"}, {"open64", 0xd0, "0x101"}, {"poll", 0x10, "0x7"}, {"poll", 0x4f, "0x7"},
		{"ppoll", 0x48, "0x10f"}, {"select", 0xb4, "0x10e"}, {"clock_nanosleep", 0x23, "0xe6"}, {"clock_nanosleep", 0x65, "0xe6"},
		{"syscall", 0x19, "argument 1"}, {"accept4", 0x13, "0x120"},
	} {
		code := realCode(t, tt.function)
		if !FollowsSyscall(code.Bytes[:tt.pc]) {
			t.Errorf("%s+%#x doesn't follow a syscall", tt.function, tt.pc)
		}
		a, err := Analyze(code)
		if err != nil {
			t.Errorf("%s: %v", tt.function, err)
			continue
		}
		p, err := a.SyscallNumber(code.Start + tt.pc - 2)
		checkLocations(t, tt.function, tt.want, p.Locations, err)
		if _, err := a.SyscallNumber(code.Start + tt.pc - 1); err == nil {
			t.Errorf("%s: a syscall one byte later", tt.function)
		}
	}
}

// Changes of single bytes give an answer or an error, and the changes of the
// instruction that saves the path give the answer that they mean.
func TestMutantsOfMyOpen(t *testing.T) {
	code := realCode(t, "my_open")
	same, failed := 0, 0
	for i := range code.Bytes[:0x4c] {
		for _, x := range []byte{0x01, 0x08, 0x80, 0xff} {
			m := code
			m.Bytes = append([]byte(nil), code.Bytes...)
			m.Bytes[i] ^= x
			locs, _, err := Locate(m, Point{PC: code.Start + 0x4c, Suspended: true}, 0)
			switch {
			case err != nil:
				failed++
			case locationsText(locs) == "r13":
				same++
			}
		}
	}
	if failed == 0 || same == 0 {
		t.Errorf("same %d, failed %d", same, failed)
	}
	for _, mutant := range []struct{ old, new, want string }{
		{"4989fd", "4989f5", "lost"},        // mov %rsi,%r13
		{"4989fd", "4989fe", "lost"},        // mov %rdi,%r14, which is overwritten later
		{"4989fd", "4589fd", "lost"},        // mov %r15d,%r13d
		{"4989fd", "4189fd", "r13/32"},      // mov %edi,%r13d
		{"4c89ef31c0", "4d89ed31c0", "r13"}, // the copy back to rdi isn't needed
	} {
		m := Code{Start: code.Start, Bytes: unhex(t, strings.Replace(realFunctions["my_open"].code, mutant.old, mutant.new, 1))}
		locs, _, err := Locate(m, Point{PC: code.Start + 0x4c, Suspended: true}, 0)
		checkLocations(t, mutant.old+" -> "+mutant.new, mutant.want, locs, err)
	}
}

// TestInstalledBinaries compares the bytes above with the installed files and
// asks the same of whatever build is installed.
func TestInstalledBinaries(t *testing.T) {
	for name, path := range map[string]string{"my_open": "/usr/sbin/mariadbd", "open64": "/lib/x86_64-linux-gnu/libc.so.6", "poll": "/lib/x86_64-linux-gnu/libc.so.6"} {
		f, err := elf.Open(path)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				t.Logf("%s isn't installed", path)
				continue
			}
			t.Fatal(err)
		}
		defer f.Close()
		checkInstalled(t, f, name)
	}
}

func checkInstalled(t *testing.T, f *elf.File, name string) {
	t.Helper()
	syms, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range syms {
		if s.Name != name {
			continue
		}
		code := Code{Start: s.Value, Bytes: make([]byte, s.Size), Memory: image{f}}
		if _, err := (image{f}).ReadMemory(target.Addr(s.Value), code.Bytes); err != nil {
			t.Fatal(err)
		}
		a, err := Analyze(code)
		if err != nil {
			t.Errorf("installed %s: %v", name, err)
			return
		}
		found := 0
		for i := range a.insns {
			in := &a.insns[i]
			if in.class != clSyscall && in.class != clCall {
				continue
			}
			if _, err := a.Argument(Point{PC: in.next(), Suspended: true}, 0); err == nil {
				found++
			}
			if in.class == clSyscall {
				if p, err := a.SyscallNumber(in.addr); err != nil || p.Locations[0].Kind != IsConst {
					t.Errorf("installed %s+%#x: %+v, %v", name, in.addr-s.Value, p, err)
				}
			}
		}
		if found == 0 {
			t.Errorf("installed %s: its first argument is at no call", name)
		}
		return
	}
	t.Errorf("no symbol %s", name)
}

// image is the memory of a file as it would be mapped at address 0.
type image struct{ f *elf.File }

func (m image) ReadMemory(addr target.Addr, p []byte) (int, error) {
	for _, prog := range m.f.Progs {
		if prog.Type == elf.PT_LOAD && uint64(addr) >= prog.Vaddr && uint64(addr)-prog.Vaddr < prog.Filesz {
			n, err := prog.ReadAt(p[:min(uint64(len(p)), prog.Vaddr+prog.Filesz-uint64(addr))], int64(uint64(addr)-prog.Vaddr))
			if err == nil && n < len(p) {
				err = &target.ReadError{Addr: addr + target.Addr(n), Len: len(p) - n, Err: target.ErrNotMapped}
			}
			return n, err
		}
	}
	return 0, &target.ReadError{Addr: addr, Len: len(p), Err: target.ErrNotMapped}
}

func FuzzLocate(f *testing.F) {
	for _, r := range realFunctions {
		f.Add(unhex(f, r.code), uint16(0x4c), true, byte(0))
	}
	for _, c := range locateCases {
		f.Add(unhex(f, c.code), uint16(c.asks[0].pc), c.asks[0].suspended, byte(c.asks[0].arg))
	}
	f.Fuzz(func(t *testing.T, code []byte, pc uint16, suspended bool, arg byte) {
		mem := flat{base: testBase, b: code}
		// Half of the bytes are a part of the function elsewhere.
		half := len(code) / 2
		c := Code{Start: testBase, Bytes: code[:half], Memory: mem, Part: func(addr uint64) (uint64, []byte, bool) {
			start := testBase + uint64(half)
			return start, code[half:], addr >= start && addr < testBase+uint64(len(code))
		}}
		a, err := Analyze(c)
		if err != nil {
			return
		}
		if a.steps > maxSteps+1 || len(a.insns) > maxInsns {
			t.Fatalf("%d steps, %d instructions", a.steps, len(a.insns))
		}
		at := testBase + uint64(pc)
		locs, err := a.Argument(Point{PC: at, Suspended: suspended}, int(arg))
		if (err == nil) != (len(locs) > 0) {
			t.Fatalf("%v, %v", locs, err)
		}
		p, err := a.ArgumentAtCall(at, int(arg))
		if err == nil && len(p.Locations) == 0 {
			t.Fatal("nothing found, and no error")
		}
		if n, err := a.SyscallNumber(at); err == nil && len(n.Locations) == 0 {
			t.Fatal("no number, and no error")
		}
	})
}

// flat is one piece of memory.
type flat struct {
	base uint64
	b    []byte
}

func (m flat) ReadMemory(addr target.Addr, p []byte) (int, error) {
	off := uint64(addr) - m.base
	if off >= uint64(len(m.b)) {
		return 0, &target.ReadError{Addr: addr, Len: len(p), Err: target.ErrNotMapped}
	}
	n := copy(p, m.b[off:])
	if n < len(p) {
		return n, &target.ReadError{Addr: addr + target.Addr(n), Len: len(p) - n, Err: target.ErrNotMapped}
	}
	return n, nil
}

func BenchmarkAnalyze(b *testing.B) {
	for _, name := range []string{"my_open", "open64"} {
		code := realCode(b, name)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Analyze(code); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
