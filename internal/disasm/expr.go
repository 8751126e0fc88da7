package disasm

import (
	"fmt"
	"strings"
)

// AtomKind says what an Atom stands for.
type AtomKind uint8

// The kinds of Atom.
const (
	AtomUnknown AtomKind = iota // a number that nothing is known of; ID tells several apart
	AtomArg                     // the function's integer argument Arg (0 is the first) at entry
	AtomEntry                   // what register Arg (DWARF number) held at entry, not an argument
	AtomFrame                   // the stack pointer at entry
	AtomThread                  // the thread pointer (FS base)
	AtomLoad                    // Size bytes of memory at X, widened with zeros, or the sign if Signed
	AtomCall                    // what the call at ID returned
	AtomOp                      // X Op Y, Size bytes wide
)

// Atom is one indivisible part of an Expr. Atoms of one Flow are interned:
// equal atoms are the same pointer. An atom names a place or an operation, not
// a moment: two loads of one place are one atom.
type Atom struct {
	Kind   AtomKind
	Signed bool
	Size   uint8  // AtomLoad, AtomOp: bytes
	Arg    int16  // AtomArg, AtomEntry
	Op     string // AtomOp: "and", "or", "xor", "mul", "add", "shl", "shr", "sar", ...
	ID     uint64 // AtomCall: address of the call; AtomUnknown: of the instruction
	X, Y   Expr
	height uint8
}

// Expr is a 64-bit value Atom + Index*Scale + Off. A nil Atom counts as 0, so
// that a lone Off is a constant. Expr is comparable: within one Flow, equal
// expressions mean equal places.
type Expr struct {
	Atom  *Atom
	Index *Atom // nil: none
	Scale int64 // of Index
	Off   int64 // bytes, when the value is an address
}

func constExpr(n int64) Expr { return Expr{Off: n} }

// Const returns the number that e is, when it is one.
func (e Expr) Const() (int64, bool) { return e.Off, e.Atom == nil && e.Index == nil }

// IsArg reports whether e is the unchanged argument n.
func (e Expr) IsArg(n int) bool {
	return e.plain() && e.Off == 0 && e.Atom.Kind == AtomArg && int(e.Atom.Arg) == n
}

// plain reports whether e is one atom and an offset.
func (e Expr) plain() bool { return e.Atom != nil && e.Index == nil }

// of reports whether e is one atom of that kind and an offset.
func (e Expr) of(k AtomKind) bool { return e.plain() && e.Atom.Kind == k }

// Chain is a walk through structures from an argument: at every step but the
// last a pointer is loaded from its offset; the last is a load too (Size > 0)
// or the address itself (Size 0).
type Chain struct {
	Arg     int     // 0 is the first argument
	Offsets []int64 // from the argument's target on, bytes
	Size    int     // bytes of the last load, 0 for an address
	Signed  bool    // the last load is widened with its sign
}

// Chain reads e as a walk from an argument: arg0+0x88 is {0x88} with size 0,
// *(*(arg0+8)+0x10) is {8, 0x10}. ok is false for everything else: an index,
// an operation, a load that isn't a whole pointer in the middle.
func (e Expr) Chain() (c Chain, ok bool) {
	if !e.plain() {
		return c, false
	}
	if e.Atom.Kind == AtomLoad && e.Off == 0 {
		c.Size, c.Signed = int(e.Atom.Size), e.Atom.Signed
		e = e.Atom.X
	}
	for range maxHeight + 1 {
		if !e.plain() {
			return Chain{}, false
		}
		c.Offsets = append(c.Offsets, e.Off)
		switch {
		case e.Atom.Kind == AtomArg:
			c.Arg = int(e.Atom.Arg)
			for i, j := 0, len(c.Offsets)-1; i < j; i, j = i+1, j-1 {
				c.Offsets[i], c.Offsets[j] = c.Offsets[j], c.Offsets[i]
			}
			return c, true
		case e.Atom.Kind == AtomLoad && e.Atom.Size == 8:
			e = e.Atom.X
		default:
			return Chain{}, false
		}
	}
	return Chain{}, false
}

// String is the walk in words of C: "*(*(arg0+0x8)+0x10)".
func (c Chain) String() string {
	s := fmt.Sprintf("arg%d", c.Arg)
	for i, off := range c.Offsets {
		if i > 0 {
			s = "*(" + s + ")"
		}
		s += fmt.Sprintf("%+#x", off)
	}
	if c.Size > 0 {
		return fmt.Sprintf("*(%s):%d", s, c.Size)
	}
	return s
}

// String shows the expression: "load8(arg0+0x1b70)".
func (e Expr) String() string {
	var parts []string
	if e.Atom != nil {
		parts = append(parts, e.Atom.String())
	}
	if e.Index != nil {
		parts = append(parts, fmt.Sprintf("%s*%#x", e.Index, e.Scale))
	}
	if len(parts) == 0 {
		return fmt.Sprintf("%#x", e.Off)
	}
	s := strings.Join(parts, "+")
	if e.Off != 0 {
		s += fmt.Sprintf("%+#x", e.Off)
	}
	return s
}

// String shows the atom.
func (a *Atom) String() string {
	switch a.Kind {
	case AtomArg:
		return fmt.Sprintf("arg%d", a.Arg)
	case AtomEntry:
		return RegisterName(int(a.Arg))
	case AtomFrame:
		return "frame"
	case AtomThread:
		return "thread"
	case AtomLoad:
		sign := ""
		if a.Signed {
			sign = "s"
		}
		return fmt.Sprintf("load%d%s(%s)", a.Size, sign, a.X)
	case AtomCall:
		return fmt.Sprintf("call@%#x", a.ID)
	case AtomOp:
		return fmt.Sprintf("%s%d(%s, %s)", a.Op, a.Size, a.X, a.Y)
	}
	return fmt.Sprintf("unknown@%#x", a.ID)
}

// maxHeight bounds how deep atoms nest: structures are walked two or three
// pointers far, and a loop must not build towers.
const maxHeight = 12

// atoms holds each atom of one trace once.
type atoms map[Atom]*Atom

// get is the expression of one atom.
func (t atoms) get(a Atom) Expr {
	a.height = max(height(a.X), height(a.Y)) + 1
	if a.height > maxHeight {
		a = Atom{Kind: AtomUnknown, height: 1}
	}
	if p := t[a]; p != nil {
		return Expr{Atom: p}
	}
	p := &a
	t[a] = p
	return Expr{Atom: p}
}

// height is how deep the atoms of e nest.
func height(e Expr) (h uint8) {
	if e.Atom != nil {
		h = e.Atom.height
	}
	if e.Index != nil {
		h = max(h, e.Index.height)
	}
	return h
}

func (t atoms) unknown(addr uint64) Expr { return t.get(Atom{Kind: AtomUnknown, ID: addr}) }

func (t atoms) load(at Expr, size uint8) Expr {
	return t.get(Atom{Kind: AtomLoad, Size: size, X: at})
}

// sum adds two values of 64 bits, in linear form while that holds.
func (t atoms) sum(x, y Expr) Expr {
	off := x.Off + y.Off
	if off < -maxOffset || off > maxOffset {
		if _, a := x.Const(); a {
			if _, b := y.Const(); b {
				return constExpr(off) // wraps as the processor does
			}
		}
	}
	x.Off, y.Off = 0, 0
	switch {
	case y.Atom == nil && y.Index == nil:
		x.Off = off
		return x
	case x.Atom == nil && x.Index == nil:
		y.Off = off
		return y
	case x.Atom == nil && y.Index == nil: // the index of one, the atom of the other
		return Expr{Atom: y.Atom, Index: x.Index, Scale: x.Scale, Off: off}
	case y.Atom == nil && x.Index == nil:
		return Expr{Atom: x.Atom, Index: y.Index, Scale: y.Scale, Off: off}
	case x.Atom == nil && y.Atom == nil && x.Index == y.Index:
		return Expr{Index: x.Index, Scale: x.Scale + y.Scale, Off: off}
	case x.Index == nil && y.Index == nil && rank(x.Atom) <= rank(y.Atom):
		return Expr{Atom: x.Atom, Index: y.Atom, Scale: 1, Off: off}
	case x.Index == nil && y.Index == nil:
		return Expr{Atom: y.Atom, Index: x.Atom, Scale: 1, Off: off}
	}
	e := t.get(Atom{Kind: AtomOp, Op: "add", Size: 8, X: x, Y: y})
	e.Off = off
	return e
}

// rank orders the atoms of a sum: bases before indexes, so that one sum has
// one form as far as possible.
func rank(a *Atom) int {
	switch a.Kind {
	case AtomFrame:
		return 0
	case AtomThread:
		return 1
	case AtomArg:
		return 2 + int(a.Arg)
	case AtomLoad:
		return 100
	}
	return 200
}

// times multiplies by a constant.
func (t atoms) times(x Expr, by int64) Expr {
	switch {
	case by == 0:
		return constExpr(0)
	case by == 1:
		return x
	case by < 0 || by > 1<<32 || x.Off < -maxOffset || x.Off > maxOffset:
		if n, ok := x.Const(); ok {
			return constExpr(n * by)
		}
	case x.Atom == nil && (x.Index == nil || x.Scale <= maxOffset>>16 && by <= 1<<16):
		return Expr{Index: x.Index, Scale: x.Scale * by, Off: x.Off * by}
	case x.Index == nil && by <= 1<<20 && x.Off > -1<<20 && x.Off < 1<<20:
		return Expr{Index: x.Atom, Scale: by, Off: x.Off * by}
	}
	return t.get(Atom{Kind: AtomOp, Op: "mul", Size: 8, X: x, Y: constExpr(by)})
}

// single gives a sum its one form: 1*index is the atom itself, x + x*n is
// x*(n+1).
func single(e Expr) Expr {
	if e.Atom == nil && e.Index != nil && e.Scale == 1 {
		return Expr{Atom: e.Index, Off: e.Off}
	}
	if e.Atom != nil && e.Index == e.Atom {
		return Expr{Index: e.Index, Scale: e.Scale + 1, Off: e.Off}
	}
	return e
}

// narrow cuts a value to size bytes and widens it again, with its sign or
// zeros. A load cut short is a shorter load of the same place: bytes are in
// little-endian order.
func (t atoms) narrow(e Expr, size uint8, signed bool) Expr {
	if size >= 8 || size == 0 {
		return e
	}
	if n, ok := e.Const(); ok {
		shift := 64 - 8*uint(size)
		if signed {
			return constExpr(n << shift >> shift)
		}
		return constExpr(int64(uint64(n) << shift >> shift))
	}
	if e.of(AtomOp) && e.Off == 0 && e.Atom.Op == "low" && size <= e.Atom.Size {
		return t.narrow(e.Atom.X, size, signed)
	}
	if e.of(AtomLoad) && e.Off == 0 {
		a := *e.Atom
		switch {
		case a.Size < size && (!a.Signed || signed):
			return e // fits: nothing is cut
		case a.Size == size && a.Signed == signed:
			return e
		case a.Size >= size:
			return t.get(Atom{Kind: AtomLoad, Size: size, Signed: signed, X: a.X})
		}
	}
	if e.plain() && e.Off == 0 && e.Atom.Kind == AtomOp && e.Atom.Op == "cut" && e.Atom.Size == size && e.Atom.Signed == signed {
		return e
	}
	return t.get(Atom{Kind: AtomOp, Op: "cut", Size: size, Signed: signed, X: e})
}
