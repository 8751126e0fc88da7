package disasm

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"mycore/internal/target"
)

// A small program, assembled by GNU as; functions lie at multiples of 0x100.
//
//	outer:   push %rbp; mov %rsp,%rbp; push %rbx; sub $72,%rsp; mov %rsi,%rbx;
//	         lea -64(%rbp),%rdi; call middle; add $72,%rsp; pop %rbx; pop %rbp; ret
//	middle:  sub $8,%rsp; mov %rbx,%rdx; call plt; add $8,%rsp; ret
//	inner:   sub $24,%rsp; mov %rsi,8(%rsp); mov $-100,%edi; mov $257,%eax; syscall;
//	         add $24,%rsp; ret
//	plt:     endbr64; jmp *got(%rip)
//	generic: mov %rdi,%rax; mov %rsi,%rdi; syscall; ret
//	user:    sub $8,%rsp; mov $219,%edi; call generic; add $8,%rsp; ret
//	virt:    sub $8,%rsp; mov %rbx,%rdx; call *16(%rax); add $8,%rsp; ret
var chainCode = []string{
	"554889e5534883ec484889f3488d7dc0e8eb0000004883c4485b5dc3",
	"4883ec084889dae8f40100004883c408c3",
	"4883ec184889742408bf9cffffffb8010100000f054883c418c3",
	"f30f1efaff25f6030000",
	"4889f84889f70f05c3",
	"4883ec08bfdb000000e8f2feffff4883c408c3",
	"4883ec084889daff50104883c408c3",
}

const (
	chainBase              = uint64(0x10000)
	outer, middle, inner   = chainBase, chainBase + 0x100, chainBase + 0x200
	generic, user, virt    = chainBase + 0x400, chainBase + 0x500, chainBase + 0x600
	chainGOT               = chainBase + 0x700
	stackBase              = uint64(0x70000000)
	outerCFA               = stackBase + 0x800
	middleCFA              = outerCFA - 96
	innerCFA               = middleCFA - 16
	valueRBX, valueSlot    = 0x1111, 0x2222
	callerRBX, outerPassed = 0x3333, outerCFA - 0x50
)

// pieces is a target memory of several flat pieces.
type pieces []flat

func (m pieces) ReadMemory(addr target.Addr, p []byte) (int, error) {
	for _, f := range m {
		if uint64(addr)-f.base < uint64(len(f.b)) {
			return f.ReadMemory(addr, p)
		}
	}
	return 0, &target.ReadError{Addr: addr, Len: len(p), Err: target.ErrNotMapped}
}

func chainMemory(t *testing.T) pieces {
	t.Helper()
	code := make([]byte, 0x708)
	for i, h := range chainCode {
		copy(code[i*0x100:], unhex(t, h))
	}
	binary.LittleEndian.PutUint64(code[0x700:], inner)
	stack := make([]byte, 0x1000)
	binary.LittleEndian.PutUint64(stack[innerCFA-0x18-stackBase:], valueSlot)
	return pieces{{chainBase, code}, {stackBase, stack}}
}

func chainRange(addr uint64) (start, end uint64, ok bool) {
	i := (addr - chainBase) / 0x100
	if addr < chainBase || i >= uint64(len(chainCode)) {
		return 0, 0, false
	}
	start = chainBase + i*0x100
	return start, start + uint64(len(chainCode[i])/2), true
}

func regs(pairs ...uint64) *target.Regs {
	r := &target.Regs{Arch: target.AMD64}
	for i := 0; i < len(pairs); i += 2 {
		r.Set(int(pairs[i]), pairs[i+1])
	}
	return r
}

func chainFrames() []Frame {
	return []Frame{
		{PC: inner + 0x15, Suspended: true, Start: inner, CFA: innerCFA, Name: "inner", Regs: regs(target.RSP, innerCFA-32, target.RBX, valueRBX)},
		{PC: middle + 0xc, Suspended: true, Start: middle, CFA: middleCFA, Name: "middle", Regs: regs(target.RSP, middleCFA-16, target.RBX, valueRBX)},
		{PC: outer + 0x15, Suspended: true, Start: outer, CFA: outerCFA, Name: "outer", Regs: regs(target.RSP, outerCFA-96, target.RBX, valueRBX)},
		{PC: 0x9999, Suspended: true, CFA: outerCFA + 0x100, Regs: regs(target.RSP, outerCFA, target.RBX, callerRBX)},
	}
}

func TestRecoverArgument(t *testing.T) {
	r := NewRecoverer(chainMemory(t), chainRange)
	for _, tt := range []struct {
		frame, arg int
		value      uint64
		how        string
	}{
		{0, 0, outerPassed, "rdi passed by middle+0x7 (frame 1) as its own argument 1; rdi passed by outer+0x10 (frame 2) as CFA-0x50"},
		{0, 1, valueSlot, "inner (frame 0): rsi saved in [CFA-0x18] by inner+0x4"},
		{0, 2, valueRBX, "rdx passed by middle+0x7 (frame 1) as rbx"},
		{1, 0, outerPassed, "rdi passed by outer+0x10 (frame 2) as CFA-0x50"},
		{1, 1, valueRBX, "rsi passed by outer+0x10 (frame 2) as rbx, there since outer+0x9"},
		{2, 1, valueRBX, "outer (frame 2): rsi saved in rbx by outer+0x9"},
	} {
		got, err := r.Argument(chainFrames(), tt.frame, tt.arg)
		// Nothing is known about the caller of outer.
		if err != nil || got.Value != tt.value || got.How != tt.how || got.Bits != 64 || (len(got.Assumed) != 0) != (tt.frame == 2) {
			t.Errorf("argument %d of frame %d: %+v, %v; want %#x, %q", tt.arg, tt.frame, got, err, tt.value, tt.how)
		}
	}
}

// Each change makes the value unrecoverable, or found elsewhere: never wrong.
func TestRecoverMutants(t *testing.T) {
	for _, tt := range []struct {
		name       string
		frame, arg int
		change     func(f []Frame, m pieces) []Frame
		value      uint64 // 0: an error
		err        error
	}{
		{"CFA of the innermost off by 8", 0, 1, func(f []Frame, _ pieces) []Frame { f[0].CFA += 8; return f }, valueRBX, nil},
		{"CFA of the caller off by 8", 0, 0, func(f []Frame, _ pieces) []Frame { f[1].CFA += 8; return f }, 0, ErrMismatch},
		{"stack pointer of the caller off by 8", 0, 0, func(f []Frame, _ pieces) []Frame { f[1].Regs.Set(target.RSP, middleCFA-8); return f }, 0, ErrMismatch},
		{"frame of the caller dropped", 0, 0, func(f []Frame, _ pieces) []Frame { return slices.Delete(f, 1, 2) }, 0, ErrMismatch},
		{"no frames outside", 0, 0, func(f []Frame, _ pieces) []Frame { return f[:1] }, 0, ErrLost},
		{"caller was interrupted", 0, 0, func(f []Frame, _ pieces) []Frame { f[1].Suspended = false; return f }, 0, ErrLost},
		{"linkage leads elsewhere", 0, 0, func(f []Frame, m pieces) []Frame {
			binary.LittleEndian.PutUint64(m[0].b[0x700:], generic)
			return f
		}, 0, ErrMismatch},
		{"innermost is another function", 0, 0, func(f []Frame, _ pieces) []Frame { f[0].Start = generic; return f }, 0, ErrMismatch},
		{"function's start unknown", 0, 1, func(f []Frame, _ pieces) []Frame { f[0].Start = 0; return f }, valueRBX, nil},
		{"rbx of the caller unknown", 0, 2, func(f []Frame, _ pieces) []Frame { f[1].Regs.Forget(target.RBX); return f }, valueRBX, nil},
		{"rbx unknown everywhere", 0, 2, func(f []Frame, _ pieces) []Frame {
			f[1].Regs.Forget(target.RBX)
			f[2].Regs.Forget(target.RBX)
			return f
		}, 0, ErrNotHeld},
		{"stack not dumped", 0, 1, func(f []Frame, m pieces) []Frame { m[1].b = nil; return f }, valueRBX, nil},
		{"code not dumped", 0, 1, func(f []Frame, m pieces) []Frame { m[0].b = nil; return f }, 0, target.ErrNotMapped},
		{"CFA unknown", 1, 0, func(f []Frame, _ pieces) []Frame { f[2].CFA = 0; return f }, 0, ErrNotHeld},
		{"no such frame", 4, 0, func(f []Frame, _ pieces) []Frame { return f }, 0, ErrLost},
	} {
		m := chainMemory(t)
		frames := tt.change(chainFrames(), m)
		got, err := NewRecoverer(m, chainRange).Argument(frames, tt.frame, tt.arg)
		switch {
		case tt.value == 0 && !errors.Is(err, tt.err):
			t.Errorf("%s: %+v, %v; want error %v", tt.name, got, err, tt.err)
		case tt.value != 0 && (err != nil || got.Value != tt.value):
			t.Errorf("%s: %+v, %v; want %#x", tt.name, got, err, tt.value)
		}
	}
}

// A part of a function that was split off isn't mistaken for one that was
// called at its start.
func TestEntered(t *testing.T) {
	m := chainMemory(t)
	r := NewRecoverer(m, chainRange)
	f := chainFrames()
	for k, want := range []bool{true, true, false, false} {
		if got := r.entered(f, k); got != want {
			t.Errorf("frame %d: %v", k, got)
		}
	}
	f[1].Start = generic // middle's code is at another address than the call's target
	if r.entered(f, 1) {
		t.Error("the call in outer doesn't go there")
	}
	f = chainFrames()
	f[1].PC, f[1].Start = virt+10, virt
	if r.entered(f, 0) {
		t.Error("an indirect call shows no target")
	}
	// call *got(%rip) in place of middle's call through the linkage table
	copy(m[0].b[0x106:], unhex(t, "ff15f4050000"))
	f = chainFrames()
	if !r.entered(f, 0) {
		t.Error("a call through the GOT")
	}
	binary.LittleEndian.PutUint64(m[0].b[0x700:], generic)
	if r.entered(f, 0) {
		t.Error("the GOT leads elsewhere")
	}
}

// Two locations that should hold the same value and don't are an error.
func TestLocationsDisagree(t *testing.T) {
	code := chainMemory(t)
	r := NewRecoverer(code, chainRange)
	f := []Frame{{PC: 1, CFA: innerCFA, Regs: regs(target.RBX, valueSlot)}}
	same := []Location{{Kind: InRegister, Reg: target.RBX, Bits: 64}, {Kind: InSlot, Off: -0x18, Bits: 64}, {Kind: InRegister, Reg: target.R12, Bits: 64}}
	if v, at, err := r.read(same, f, 0); err != nil || v != valueSlot || at.Kind != InRegister {
		t.Errorf("%#x %v %v", v, at, err)
	}
	f[0].Regs.Set(target.RBX, valueSlot+1)
	if v, _, err := r.read(same, f, 0); !errors.Is(err, ErrMismatch) {
		t.Errorf("%#x %v", v, err)
	}
	f[0].Regs.Set(target.RBX, 5<<32|valueSlot)
	same[1].Bits = 32
	if v, _, err := r.read(same, f, 0); err != nil || v != 5<<32|valueSlot {
		t.Errorf("%#x %v", v, err)
	}
}

func TestRecoverSyscallNumber(t *testing.T) {
	r := NewRecoverer(chainMemory(t), chainRange)
	n, err := r.SyscallNumber(chainFrames())
	if err != nil || n.Value != 257 || n.How != "257 is loaded before the syscall at inner+0x13" {
		t.Errorf("%+v, %v", n, err)
	}
	frames := []Frame{
		{PC: generic + 8, Suspended: true, Start: generic, CFA: innerCFA, Name: "syscall", Regs: regs(target.RSP, innerCFA-8)},
		{PC: user + 0xe, Suspended: true, Start: user, CFA: innerCFA + 16, Name: "user", Regs: regs(target.RSP, innerCFA)},
	}
	n, err = r.SyscallNumber(frames)
	if err != nil || n.Value != 219 || n.How != "the syscall at syscall+0x6 got its number as its own argument 1; rdi passed by user+0x9 (frame 1) as 0xdb" {
		t.Errorf("%+v, %v", n, err)
	}
	frames[1].PC, frames[1].Start = virt+10, virt
	if n, err = r.SyscallNumber(frames); !errors.Is(err, ErrLost) {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err = r.SyscallNumber(nil); !errors.Is(err, ErrLost) {
		t.Errorf("%+v, %v", n, err)
	}
	frames[0].PC--
	if n, err = r.SyscallNumber(frames); err == nil {
		t.Errorf("%+v behind no syscall", n)
	}
}

func TestIndirectCallIsAssumed(t *testing.T) {
	r := NewRecoverer(chainMemory(t), chainRange)
	frames := chainFrames()
	frames[1].PC, frames[1].Start, frames[1].Name = virt+10, virt, "virt"
	got, err := r.Argument(frames, 0, 2)
	want := "the indirect call at virt+0x7 entered the callee without a tail call"
	if err != nil || got.Value != valueRBX || !slices.Equal(got.Assumed, []string{want}) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = r.Argument(frames[:3], 0, 0) // virt passes its own first argument on
	if err == nil {
		t.Errorf("virt isn't called by outer, yet %+v", got)
	}
}
