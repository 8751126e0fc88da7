package disasm

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// Calls as compilers and linkers emit them, and what is like a call but isn't.
func TestFollowsCall(t *testing.T) {
	for _, tt := range []struct {
		code string
		want string // "" for no call
		len  int
	}{
		{"e8 a4 b9 78 ff", "call -0x87465c", 5},   // MariaDB 10.11.19, my_open: call open64@plt
		{"31 c0 e8 00 00 00 00", "call +0x0", 5},  // xor %eax,%eax before it
		{"66 48 e8 10 00 00 00", "call +0x10", 6}, // TLS general dynamic: data16 rex.W call __tls_get_addr
		{"f2 e8 10 00 00 00", "call +0x10", 5},    // bnd call
		{"67 e8 10 00 00 00", "call +0x10", 5},    // padded by the linker
		{"ff d0", "indirect call", 2},             // call *%rax
		{"41 ff d4", "indirect call", 3},          // call *%r12
		{"3e ff d0", "indirect call", 2},          // notrack call *%rax
		{"ff 10", "indirect call", 2},             // call *(%rax)
		{"ff 50 18", "indirect call", 3},          // call *0x18(%rax)
		{"ff 90 b0 00 00 00", "indirect call", 6}, // call *0xb0(%rax)
		{"ff 15 44 33 22 11", "indirect call", 6}, // call *x(%rip), -fno-plt
		{"ff 14 24", "indirect call", 3},          // call *(%rsp)
		{"ff 54 24 08", "indirect call", 4},       // call *8(%rsp)
		{"ff 94 24 00 01 00 00", "indirect call", 7},
		{"41 ff 94 c4 00 01 00 00", "indirect call", 8},
		{"ff 14 c5 00 00 60 00", "indirect call", 7}, // call *0x600000(,%rax,8)
		{"ff 14 25 00 00 60 00", "indirect call", 7},
		{"ff e0", "", 0},          // jmp *%rax
		{"ff d8", "", 0},          // far call through a register: invalid
		{"ff 58 18", "", 0},       // far call
		{"ff 50 18 90", "", 0},    // a byte after the call
		{"e8 a4 b9 78", "", 0},    // too short
		{"e9 a4 b9 78 ff", "", 0}, // jmp
		{"ff 14", "", 0},          // SIB missing
		{"ff 15 44 33 22", "", 0}, // displacement cut
		{"ff 54 24", "", 0},       // displacement missing
		{"0f 05", "", 0},          // syscall
		{"c3", "", 0}, {"", "", 0},
	} {
		c, ok := FollowsCall(unhex(t, tt.code))
		if ok != (tt.want != "") || ok && (c.String() != tt.want || c.Len != tt.len || c.Direct != strings.HasPrefix(tt.want, "call")) {
			t.Errorf("% s: %v %v, length %d; want %q, %d", tt.code, c, ok, c.Len, tt.want, tt.len)
		}
	}
	if c, ok := FollowsCall(unhex(t, "e8 00 00 00 ff d0")[1:]); !ok || c.Direct || c.Ambiguous {
		t.Errorf("%+v %v", c, ok)
	}
	if c, ok := FollowsCall(unhex(t, "e8 00 00 ff d0")); !ok || !c.Direct || !c.Ambiguous {
		t.Errorf("both readings: %+v %v", c, ok)
	}
}

// Every call that x86asm knows with each ModRM byte is found.
func TestFollowsCallForms(t *testing.T) {
	for modrm := range 256 {
		for _, sib := range []byte{0x24, 0x25, 0xc5, 0x10} {
			code := []byte{0xff, byte(modrm), sib, 1, 2, 3, 4, 5, 6}
			in, err := x86asm.Decode(code, 64)
			if err != nil || in.Op != x86asm.CALL {
				continue
			}
			if c, ok := FollowsCall(code[:in.Len]); !ok || c.Len != in.Len || c.Direct {
				t.Errorf("% x: %+v %v, x86asm says %d bytes", code[:in.Len], c, ok, in.Len)
			}
			if c, ok := CallBefore(code[:in.Len], 0x1000, 0x1000+uint64(in.Len)); !ok || c.Len != in.Len {
				t.Errorf("% x: before: %+v %v", code[:in.Len], c, ok)
			}
		}
	}
}

func TestCallBefore(t *testing.T) {
	code := unhex(t, "bf e8 00 00 00 e8 10 00 00 00 b8 ff d0 00 00 ff d0 c3")
	for _, tt := range []struct {
		ret  uint64
		want string
	}{{10, "call +0x10"}, {17, "indirect call"}, {13, ""}, {5, ""}, {0, ""}, {18, ""}, {19, ""}} {
		c, ok := CallBefore(code, 0x1000, 0x1000+tt.ret)
		if ok != (tt.want != "") || ok && c.String() != tt.want {
			t.Errorf("at %d: %v %v, want %q", tt.ret, c, ok, tt.want)
		}
	}
	if _, ok := CallBefore(code, 0x1000, 0xfff); ok {
		t.Error("a call before the function")
	}
}

func TestFollowsSyscall(t *testing.T) {
	if !FollowsSyscall([]byte{0x0f, 0x05}) || FollowsSyscall([]byte{0x05}) || FollowsSyscall([]byte{0x0f, 0x05, 0x90}) || FollowsSyscall(nil) {
		t.Error("0f 05 at the very end")
	}
}

// Instructions of kinds that x86asm lacks or that are rare, as GNU as encodes
// them, and byte strings that are no instruction.
func TestMeasure(t *testing.T) {
	for _, code := range []string{
		"f3 0f 1e fa", "f3 0f 1e fb", "f3 48 0f 1e c8", // endbr64, endbr32, rdsspq %rax
		"48 0f c7 64 24 40", "0f ae 64 24 40", "0f 01 d0", "0f 01 ee", // xsavec64, xsave, xgetbv, rdpkru
		"c5 f8 77", "c5 fe 6f 44 24 20", "c4 e2 7d 18 05 00 00 00 00", "c4 e3 7d 19 44 24 10 01", "c4 e3 79 63 c1 1a",
		"62 f1 fe 48 6f 44 24 01", "62 f1 7c 48 29 40 40", "62 f3 7d 48 1f c1 05", "62 f5 7c 48 58 c1", // EVEX, FP16
		"66 2e 0f 1f 84 00 00 00 00 00", "66 66 2e 0f 1f 84 00 00 00 00 00", "48 b8 01 02 03 04 05 06 07 08",
		"66 b8 01 02", "66 81 c0 01 02", "f7 05 00 00 00 00 01 00 00 00", "66 f7 c0 01 00", "f6 04 25 00 00 00 00 01", "f6 d0", "f7 d8",
		"c8 10 00 01", "c2 08 00", "0f 38 c8 ca", "66 0f 3a 0f c1 08", "f0 48 0f c7 0f", "0f 20 c0", "64 48 8b 04 25 28 00 00 00",
		"c7 f8 00 00 00 00", "c6 f8 01", "48 0f ba e0 05", "f2 0f 38 f1 c1", "66 e8 00 00 00 00", "eb fe", "0f 84 00 00 00 00",
		"8f 04 24", "69 c0 01 00 00 00", "6b c0 01", "68 00 00 00 80", "6a ff", "66 68 01 00", "d9 7c 24 0e", "f3 48 ab",
	} {
		b := unhex(t, code)
		if l, err := measure(append(b, 0x90, 0x90)); err != nil || l.length != len(b) {
			t.Errorf("%s: length %d, %v; want %d", code, l.length, err, len(b))
		}
		for n := range b {
			if l, err := measure(b[:n]); err == nil {
				t.Errorf("%s: cut to %d bytes it has length %d", code, n, l.length)
			}
		}
	}
	for _, code := range []string{"06", "0f 04", "0f 0a", "d6", "ea 00 00 00 00 00 00", "9a 00 00", "ce", "0f a6 c0", "c4 e0 78 77", "62 f4 7c 48 58 c1",
		"66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90"} {
		if l, err := measure(unhex(t, code)); !errors.Is(err, ErrUndecodable) {
			t.Errorf("%s: length %d, %v", code, l.length, err)
		}
	}
}

// TestMeasureAgainstObjdump compares lengths and calls with GNU objdump over
// real code.
func TestMeasureAgainstObjdump(t *testing.T) {
	const libc = "/lib/x86_64-linux-gnu/libc.so.6"
	if _, err := exec.LookPath("objdump"); err != nil {
		t.Skip("objdump isn't installed")
	}
	if _, err := os.Stat(libc); err != nil {
		t.Skip("no glibc here: ", err)
	}
	cmd := exec.Command("objdump", "-d", "-w", "--insn-width=16", "--start-address=0x80000", "--stop-address=0xa0000", libc)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var n, calls, bad int
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		f := strings.Split(sc.Text(), "\t")
		if len(f) < 3 || strings.Contains(f[2], "(bad)") || strings.HasPrefix(f[2], ".byte") {
			continue
		}
		addr, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(f[0]), ":"), 16, 64)
		code, err2 := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(f[1]), " ", ""))
		if err != nil || err2 != nil {
			continue
		}
		n++
		l, err := measure(code)
		if _, derr := decode(code, addr); err != nil || derr != nil || l.length != len(code) {
			if bad++; bad < 10 {
				t.Errorf("%s: length %d, %v, %v", sc.Text(), l.length, err, derr)
			}
		}
		isCall := slices.Contains(strings.Fields(f[2]), "call")
		if isCall {
			calls++
		}
		if _, ok := FollowsCall(code); isCall && !ok {
			t.Errorf("%s: not seen as a call", sc.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if n < 10000 || calls < 500 {
		t.Errorf("only %d instructions with %d calls compared", n, calls)
	}
}

func ExampleFollowsCall() {
	c, ok := FollowsCall([]byte{0x31, 0xc0, 0xe8, 0xa4, 0xb9, 0x78, 0xff})
	fmt.Println(c, ok)
	// Output: call -0x87465c true
}

func FuzzFollowsCall(f *testing.F) {
	f.Add([]byte{0xe8, 1, 2, 3, 4})
	f.Add([]byte{0x41, 0xff, 0x94, 0xc4, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, code []byte) {
		c, ok := FollowsCall(code)
		if !ok {
			return
		}
		if c.Len > len(code) || c.Len < 2 {
			t.Fatalf("% x: %+v", code, c)
		}
		in, err := decode(code[len(code)-c.Len:], 0x1000)
		if err != nil || in.class != clCall || int(in.length) != c.Len {
			t.Fatalf("% x: %+v is no call: %+v, %v", code, c, in, err)
		}
	})
}

func BenchmarkFollowsCall(b *testing.B) {
	code := []byte{0x48, 0x89, 0xc7, 0x48, 0x8b, 0x07, 0x31, 0xd2, 0x31, 0xf6, 0xff, 0x90, 0xb0, 0, 0, 0}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := FollowsCall(code); !ok {
			b.Fatal("no call")
		}
	}
}
