package cfi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"mycore/internal/target"
)

// Limits of one expression. The longest in use is that of x86-64 PLTs, 8
// operations, 3 values deep.
const (
	maxStack = 64
	// DefaultSteps bounds the operations of one stack walk's expressions: a
	// signal frame has some fifty.
	DefaultSteps = 4096
)

// Errors of expressions on which callers branch.
var (
	// ErrExpr: the expression isn't valid in call frame information.
	ErrExpr = errors.New("invalid expression")
	// ErrUnknownRegister: it needs a register whose value isn't known.
	ErrUnknownRegister = errors.New("register not known")
)

// exprOp is an operation of a DWARF expression.
type exprOp uint8

// DWARF 5 section 7.7.1, table 7.9. Those missing name variables, types or
// locations, which call frame information may not (section 6.4.2).
const (
	dwAddr         exprOp = 0x03
	dwDeref        exprOp = 0x06
	dwConst1u      exprOp = 0x08
	dwConst1s      exprOp = 0x09
	dwConst2u      exprOp = 0x0a
	dwConst2s      exprOp = 0x0b
	dwConst4u      exprOp = 0x0c
	dwConst4s      exprOp = 0x0d
	dwConst8u      exprOp = 0x0e
	dwConst8s      exprOp = 0x0f
	dwConstu       exprOp = 0x10
	dwConsts       exprOp = 0x11
	dwDup          exprOp = 0x12
	dwDrop         exprOp = 0x13
	dwOver         exprOp = 0x14
	dwPick         exprOp = 0x15
	dwSwap         exprOp = 0x16
	dwRot          exprOp = 0x17
	dwAbs          exprOp = 0x19
	dwAnd          exprOp = 0x1a
	dwDiv          exprOp = 0x1b
	dwMinus        exprOp = 0x1c
	dwMod          exprOp = 0x1d
	dwMul          exprOp = 0x1e
	dwNeg          exprOp = 0x1f
	dwNot          exprOp = 0x20
	dwOr           exprOp = 0x21
	dwPlus         exprOp = 0x22
	dwPlusUconst   exprOp = 0x23
	dwShl          exprOp = 0x24
	dwShr          exprOp = 0x25
	dwShra         exprOp = 0x26
	dwXor          exprOp = 0x27
	dwBra          exprOp = 0x28
	dwEq           exprOp = 0x29
	dwGe           exprOp = 0x2a
	dwGt           exprOp = 0x2b
	dwLe           exprOp = 0x2c
	dwLt           exprOp = 0x2d
	dwNe           exprOp = 0x2e
	dwSkip         exprOp = 0x2f
	dwLit0         exprOp = 0x30
	dwLit31        exprOp = 0x4f
	dwBreg0        exprOp = 0x70
	dwBreg31       exprOp = 0x8f
	dwBregx        exprOp = 0x92
	dwDerefSize    exprOp = 0x94
	dwNop          exprOp = 0x96
	dwCallFrameCFA exprOp = 0x9c
)

// Evaluator evaluates expressions of one frame after another. It is for one
// goroutine; its buffers are reused, so an evaluation allocates only errors.
type Evaluator struct {
	// Regs are the registers of the frame whose caller is sought.
	Regs *target.Regs
	// Mem is the target's memory.
	Mem target.Memory
	// CFA is the frame's CFA, when HasCFA.
	CFA    uint64
	HasCFA bool
	// Bias is added to link-time addresses in the expression.
	Bias uint64
	// PtrSize is 8 or 4 bytes; 0 means 8.
	PtrSize int
	// Steps is what may still be executed; every operation takes one.
	Steps int

	c     cursor
	stack [maxStack]uint64
	n     int
	word  [8]byte
}

// Eval evaluates expr and gives the value on top of the stack. For a register
// rule the stack starts with the CFA (pushCFA), for the CFA's own it is empty.
// Errors unwrap to ErrExpr, ErrUnknownRegister or a *target.ReadError.
func (e *Evaluator) Eval(expr []byte, pushCFA bool) (uint64, error) {
	e.c = cursor{b: expr}
	e.n = 0
	if pushCFA {
		if !e.HasCFA {
			return 0, fmt.Errorf("%w: no CFA to start with", ErrExpr)
		}
		e.push(e.CFA)
	}
	for e.c.left() > 0 {
		if e.Steps <= 0 {
			return 0, fmt.Errorf("%w: too many operations", ErrExpr)
		}
		e.Steps--
		at := e.c.off
		op := exprOp(e.c.u8())
		err := e.step(op)
		if err == nil && e.c.err != nil {
			err = fmt.Errorf("%w: operand or stack", ErrExpr)
		}
		if err != nil {
			return 0, fmt.Errorf("operation %#02x at byte %d: %w", uint8(op), at, err)
		}
	}
	if e.n == 0 {
		return 0, fmt.Errorf("%w: no result", ErrExpr)
	}
	return e.pop(), nil
}

// push and pop mark the cursor on overflow and underflow; Eval checks it after
// each operation.
func (e *Evaluator) push(v uint64) {
	if e.n >= maxStack {
		e.c.fail("stack overflow")
		return
	}
	e.stack[e.n] = v
	e.n++
}

func (e *Evaluator) pop() uint64 {
	if e.n == 0 {
		e.c.fail("stack underflow")
		return 0
	}
	e.n--
	return e.stack[e.n]
}

// pick copies the value that is i below the top.
func (e *Evaluator) pick(i int) {
	if i >= e.n {
		e.c.fail("stack underflow")
		return
	}
	e.push(e.stack[e.n-1-i])
}

func (e *Evaluator) ptrSize() int {
	if e.PtrSize == 4 {
		return 4
	}
	return 8
}

func (e *Evaluator) step(op exprOp) error {
	switch {
	case op >= dwLit0 && op <= dwLit31:
		e.push(uint64(op - dwLit0))
		return nil
	case op >= dwBreg0 && op <= dwBreg31:
		return e.register(uint64(op - dwBreg0))
	case op >= dwConst1u && op <= dwConsts || op == dwAddr:
		e.constant(op)
		return nil
	case op >= dwDup && op <= dwRot:
		e.shuffle(op)
		return nil
	case op >= dwEq && op <= dwNe:
		e.compare(op)
		return nil
	case op == dwAbs, op == dwNeg, op == dwNot, op == dwPlusUconst:
		e.unary(op)
		return nil
	case op >= dwAnd && op <= dwXor:
		return e.binary(op)
	}
	switch op {
	case dwNop:
	case dwBregx:
		return e.register(e.c.uleb())
	case dwDeref:
		return e.deref(e.ptrSize())
	case dwDerefSize:
		return e.deref(int(e.c.u8()))
	case dwBra, dwSkip:
		e.jump(op)
	case dwCallFrameCFA:
		if !e.HasCFA {
			return fmt.Errorf("%w: the CFA isn't known yet", ErrExpr)
		}
		e.push(e.CFA)
	default:
		return fmt.Errorf("%w: operation not allowed in call frame information", ErrExpr)
	}
	return nil
}

func (e *Evaluator) register(n uint64) error {
	off := e.c.sleb()
	if e.c.err != nil {
		return nil
	}
	var v uint64
	ok := false
	if n < target.MaxRegs {
		v, ok = e.Regs.Get(int(n))
	}
	if !ok {
		return fmt.Errorf("%w: %d", ErrUnknownRegister, n)
	}
	e.push(v + uint64(off))
	return nil
}

func (e *Evaluator) constant(op exprOp) {
	var v uint64
	switch op {
	case dwAddr:
		v = e.c.raw(encAbsptr, e.ptrSize()) + e.Bias
	case dwConst1u:
		v = uint64(e.c.u8())
	case dwConst1s:
		v = uint64(int64(int8(e.c.u8())))
	case dwConst2u:
		v = uint64(e.c.u16())
	case dwConst2s:
		v = uint64(int64(int16(e.c.u16())))
	case dwConst4u:
		v = uint64(e.c.u32())
	case dwConst4s:
		v = uint64(int64(int32(e.c.u32())))
	case dwConst8u, dwConst8s:
		v = e.c.u64()
	case dwConstu:
		v = e.c.uleb()
	case dwConsts:
		v = uint64(e.c.sleb())
	}
	e.push(v)
}

func (e *Evaluator) shuffle(op exprOp) {
	switch op {
	case dwDup:
		e.pick(0)
	case dwDrop:
		e.pop()
	case dwOver:
		e.pick(1)
	case dwPick:
		e.pick(int(e.c.u8()))
	case dwSwap:
		a, b := e.pop(), e.pop()
		e.push(a)
		e.push(b)
	case dwRot: // the top becomes the third, the two below move up
		a, b, c := e.pop(), e.pop(), e.pop()
		e.push(a)
		e.push(c)
		e.push(b)
	}
}

// compare does the signed comparisons of the second value with the top.
func (e *Evaluator) compare(op exprOp) {
	b, a := int64(e.pop()), int64(e.pop())
	var yes bool
	switch op {
	case dwEq:
		yes = a == b
	case dwGe:
		yes = a >= b
	case dwGt:
		yes = a > b
	case dwLe:
		yes = a <= b
	case dwLt:
		yes = a < b
	case dwNe:
		yes = a != b
	}
	if yes {
		e.push(1)
	} else {
		e.push(0)
	}
}

func (e *Evaluator) unary(op exprOp) {
	v := e.pop()
	switch op {
	case dwAbs:
		if int64(v) < 0 {
			v = -v
		}
	case dwNeg:
		v = -v
	case dwNot:
		v = ^v
	case dwPlusUconst:
		v += e.c.uleb()
	}
	e.push(v)
}

func (e *Evaluator) binary(op exprOp) error {
	b, a := e.pop(), e.pop()
	if b == 0 && (op == dwDiv || op == dwMod) {
		return fmt.Errorf("%w: division by zero", ErrExpr)
	}
	switch op {
	case dwAnd:
		a &= b
	case dwDiv:
		if int64(b) == -1 { // the only quotient that overflows
			a = -a
		} else {
			a = uint64(int64(a) / int64(b))
		}
	case dwMinus:
		a -= b
	case dwMod:
		a %= b
	case dwMul:
		a *= b
	case dwOr:
		a |= b
	case dwPlus:
		a += b
	case dwShl:
		a <<= b
	case dwShr:
		a >>= b
	case dwShra:
		a = uint64(int64(a) >> min(b, 63))
	case dwXor:
		a ^= b
	}
	e.push(a)
	return nil
}

// jump moves by a signed 16-bit distance, for bra only if the top isn't zero.
func (e *Evaluator) jump(op exprOp) {
	by := int(int16(e.c.u16()))
	if op == dwBra && e.pop() == 0 || e.c.err != nil {
		return
	}
	to := e.c.off + by
	if to < 0 || to > len(e.c.b) {
		e.c.fail("jump out of the expression")
		return
	}
	e.c.off = to
}

// deref replaces the address on top by size bytes from there, zero-extended.
func (e *Evaluator) deref(size int) error {
	at := e.pop()
	if e.c.err != nil {
		return nil
	}
	if size < 1 || size > 8 {
		return fmt.Errorf("%w: %d bytes dereferenced", ErrExpr, size)
	}
	if at > math.MaxUint64-uint64(size) {
		return &target.ReadError{Addr: target.Addr(at), Len: size, Err: target.ErrNotMapped}
	}
	e.word = [8]byte{}
	if n, err := e.Mem.ReadMemory(target.Addr(at), e.word[:size]); n < size {
		if err == nil {
			err = &target.ReadError{Addr: target.Addr(at), Len: size, Err: target.ErrNotMapped}
		}
		return err
	}
	e.push(binary.LittleEndian.Uint64(e.word[:]))
	return nil
}
