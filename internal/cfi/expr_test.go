package cfi

import (
	"errors"
	"testing"

	"mycore/internal/target"
)

// memory is target memory over bytes at an address.
type memory struct {
	base uint64
	b    []byte
}

func (m memory) ReadMemory(a target.Addr, p []byte) (int, error) {
	n, err := image(m).ReadVaddr(uint64(a), p)
	if err != nil {
		return n, &target.ReadError{Addr: a + target.Addr(n), Len: len(p) - n, Err: target.ErrNotMapped}
	}
	return n, nil
}

func evaluator() *Evaluator {
	regs := &target.Regs{Arch: target.AMD64}
	regs.Set(target.RSP, 0x7000)
	regs.Set(target.RIP, 0x40102b)
	regs.Set(target.R12, 5)
	mem := memory{0x7000, cat(le64(0x1122334455667788), le64(0xfffffffffffffff0), []byte{1, 2, 3})}
	return &Evaluator{Regs: regs, Mem: mem, CFA: 0x8000, HasCFA: true, Bias: 0x1000000, Steps: DefaultSteps}
}

const m1 = ^uint64(0)

func TestEval(t *testing.T) {
	t.Parallel()
	bin := func(op byte, a, b int64) []byte { return cat([]byte{0x11}, sleb(a), []byte{0x11}, sleb(b), []byte{op}) }
	tests := []struct {
		name string
		expr []byte
		cfa  bool
		want uint64
	}{
		{"addr", cat([]byte{0x03}, le64(0x10)), false, 0x1000010},
		{"const1u", []byte{0x08, 0xff}, false, 0xff},
		{"const1s", []byte{0x09, 0xff}, false, m1},
		{"const2u", []byte{0x0a, 0xfe, 0xff}, false, 0xfffe},
		{"const2s", []byte{0x0b, 0xfe, 0xff}, false, m1 - 1},
		{"const4u", []byte{0x0c, 0xfe, 0xff, 0xff, 0xff}, false, 0xfffffffe},
		{"const4s", []byte{0x0d, 0xfe, 0xff, 0xff, 0xff}, false, m1 - 1},
		{"const8u", cat([]byte{0x0e}, le64(1<<63)), false, 1 << 63},
		{"const8s", cat([]byte{0x0f}, le64(m1)), false, m1},
		{"constu", cat([]byte{0x10}, uleb(300)), false, 300},
		{"consts", cat([]byte{0x11}, sleb(-300)), false, m1 - 299},
		{"lit0", []byte{0x30}, false, 0},
		{"lit31", []byte{0x4f}, false, 31},
		{"breg7", cat([]byte{0x77}, sleb(-8)), false, 0x6ff8},
		{"breg12", []byte{0x7c, 2}, false, 7},
		{"bregx", []byte{0x92, 16, 1}, false, 0x40102c},
		{"deref", []byte{0x77, 0, 0x06}, false, 0x1122334455667788},
		{"deref_size 1", []byte{0x77, 0, 0x94, 1}, false, 0x88},
		{"deref_size 2", []byte{0x77, 0, 0x94, 2}, false, 0x7788},
		{"deref_size 4", []byte{0x77, 8, 0x94, 4}, false, 0xfffffff0},
		{"deref_size at the end of memory", []byte{0x77, 16, 0x94, 3}, false, 0x030201},
		{"dup", []byte{0x35, 0x12, 0x22}, false, 10},
		{"drop", []byte{0x35, 0x36, 0x13}, false, 5},
		{"over", []byte{0x35, 0x36, 0x14}, false, 5},
		{"pick 2", []byte{0x31, 0x32, 0x33, 0x15, 2}, false, 1},
		{"swap", []byte{0x35, 0x33, 0x16, 0x1c}, false, m1 - 1},
		{"rot: top is the second", []byte{0x31, 0x32, 0x33, 0x17}, false, 2},
		{"rot: second is the third", []byte{0x31, 0x32, 0x33, 0x17, 0x13}, false, 1},
		{"rot: third is the top", []byte{0x31, 0x32, 0x33, 0x17, 0x13, 0x13}, false, 3},
		{"abs", []byte{0x09, 0xfb, 0x19}, false, 5},
		{"abs of a positive", []byte{0x35, 0x19}, false, 5},
		{"neg", []byte{0x31, 0x1f}, false, m1},
		{"not", []byte{0x30, 0x20}, false, m1},
		{"plus_uconst", []byte{0x31, 0x23, 0x80, 0x01}, false, 129},
		{"and", bin(0x1a, 12, 10), false, 8},
		{"div", bin(0x1b, -7, 2), false, m1 - 2},
		{"div overflow", cat([]byte{0x0e}, le64(1<<63), []byte{0x09, 0xff, 0x1b}), false, 1 << 63},
		{"minus", bin(0x1c, 3, 5), false, m1 - 1},
		{"mod", bin(0x1d, 17, 5), false, 2},
		{"mul", bin(0x1e, -3, 5), false, m1 - 14},
		{"or", bin(0x21, 12, 10), false, 14},
		{"plus", bin(0x22, -1, 3), false, 2},
		{"shl", bin(0x24, 3, 4), false, 48},
		{"shl by 64", bin(0x24, 3, 64), false, 0},
		{"shr", bin(0x25, -1, 60), false, 15},
		{"shra", bin(0x26, -16, 2), false, m1 - 3},
		{"shra by 100", bin(0x26, -16, 100), false, m1},
		{"xor", bin(0x27, 12, 10), false, 6},
		{"eq", bin(0x29, 4, 4), false, 1},
		{"ge is signed", bin(0x2a, -1, 0), false, 0},
		{"ge of equals", bin(0x2a, 4, 4), false, 1},
		{"gt", bin(0x2b, 4, 4), false, 0},
		{"gt is a > b", bin(0x2b, 5, 4), false, 1},
		{"le", bin(0x2c, -1, 0), false, 1},
		{"lt", bin(0x2d, 5, 4), false, 0},
		{"ne", bin(0x2e, 5, 4), false, 1},
		{"skip", []byte{0x35, 0x2f, 1, 0, 0x13}, false, 5},
		{"bra taken", []byte{0x35, 0x31, 0x28, 1, 0, 0x13}, false, 5},
		{"bra not taken", []byte{0x34, 0x35, 0x30, 0x28, 1, 0, 0x13}, false, 4},
		// lit5; loop: lit1; minus; dup; bra loop: a jump backwards
		{"loop", []byte{0x35, 0x31, 0x1c, 0x12, 0x28, 0xfa, 0xff}, false, 0},
		{"nop", []byte{0x35, 0x96}, false, 5},
		{"call_frame_cfa", []byte{0x9c}, false, 0x8000},
		{"CFA pushed first", []byte{0x38, 0x1c}, true, 0x7ff8},
		// .plt of x86-64: rsp + 8 + ((rip & 15) >= 11) << 3
		{"PLT", []byte{0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}, false, 0x7010},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := evaluator().Eval(tt.expr, tt.cfa)
			if err != nil || got != tt.want {
				t.Errorf("%#x, %v; want %#x", got, err, tt.want)
			}
		})
	}
}

func TestEvalErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		expr []byte
		want error
	}{
		{"empty", nil, ErrExpr},
		{"underflow", []byte{0x31, 0x22}, ErrExpr},
		{"pick underflow", []byte{0x31, 0x15, 1}, ErrExpr},
		{"overflow", append(make([]byte, 0), repeat(0x31, maxStack+1)...), ErrExpr},
		{"division by zero", []byte{0x31, 0x30, 0x1b}, ErrExpr},
		{"remainder by zero", []byte{0x31, 0x30, 0x1d}, ErrExpr},
		{"unknown register", []byte{0x70, 0}, ErrUnknownRegister},
		{"register outside the file", []byte{0x92, 0xff, 0x01, 0}, ErrUnknownRegister},
		{"register location", []byte{0x50}, ErrExpr},
		{"fbreg", []byte{0x91, 0}, ErrExpr},
		{"cut operand", []byte{0x0a, 1}, ErrExpr},
		{"jump out", []byte{0x31, 0x2f, 5, 0}, ErrExpr},
		{"jump before the start", []byte{0x31, 0x2f, 0xf0, 0xff}, ErrExpr},
		{"endless loop", []byte{0x31, 0x2f, 0xfd, 0xff}, ErrExpr},
		{"deref of nothing", []byte{0x31, 0x06}, target.ErrNotMapped},
		{"deref over the end", []byte{0x77, 16, 0x06}, target.ErrNotMapped},
		{"deref at the top of memory", []byte{0x09, 0xff, 0x06}, target.ErrNotMapped},
		{"deref_size 0", []byte{0x77, 0, 0x94, 0}, ErrExpr},
		{"deref_size 9", []byte{0x77, 0, 0x94, 9}, ErrExpr},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := evaluator().Eval(tt.expr, false)
			if !errors.Is(err, tt.want) || got != 0 {
				t.Errorf("%#x, error %v; want %v", got, err, tt.want)
			}
		})
	}
	e := evaluator()
	e.HasCFA = false
	if _, err := e.Eval([]byte{0x9c}, false); !errors.Is(err, ErrExpr) {
		t.Errorf("CFA not known: %v", err)
	}
	if _, err := e.Eval([]byte{0x31}, true); !errors.Is(err, ErrExpr) {
		t.Errorf("CFA not known, pushed: %v", err)
	}
}

func repeat(b byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}

// The steps are shared by the evaluations of one walk.
func TestEvalBudget(t *testing.T) {
	t.Parallel()
	e := evaluator()
	e.Steps = 3
	if _, err := e.Eval([]byte{0x31, 0x32}, false); err != nil || e.Steps != 1 {
		t.Fatalf("%d steps left, %v", e.Steps, err)
	}
	if _, err := e.Eval([]byte{0x31, 0x32}, false); !errors.Is(err, ErrExpr) {
		t.Errorf("over the budget: %v", err)
	}
}

func TestEvalAllocatesNothing(t *testing.T) {
	e := evaluator()
	expr := []byte{0x77, 0, 0x06, 0x38, 0x1c}
	if n := testing.AllocsPerRun(100, func() {
		e.Steps = DefaultSteps
		if _, err := e.Eval(expr, true); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per evaluation", n)
	}
}
