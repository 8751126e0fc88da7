package structdef

import (
	"fmt"
	"slices"
	"strings"

	"mycore/internal/disasm"
)

// accHow says by what a function gives a field away.
type accHow uint8

const (
	byReturn  accHow = iota // it returns the field, or its address
	bySecond                // second word of what it returns (rdx)
	byAnd                   // it returns the field AND argument arg
	byScaled                // it returns field*con + another field: the scaled one
	byRest                  // the other one of those
	byPassed                // argument arg of a call to one of callee ("*": an indirect call)
	byStored                // it stores argument arg there
	byResult                // it stores the result of a call to one of callee there
	byCopied                // it stores what it loads from argument arg + con there
	byOut                   // it stores the field to where argument arg points
	byAdded                 // it adds argument arg to the field
	byTested                // the first comparison, before any branch, is of the field with con
	byChecked               // some comparison of it with con
	byBase                  // it returns an element of an array, or loads it; the array
	bySlot                  // the index into that array, a field of argument arg
	byIf                    // it stores there if argument arg is 0
	byUnless                // it stores there if argument arg isn't 0
	byFormat                // printed behind the words text in a format string
)

// accStep is one step of the walk from the first argument to the field.
type accStep struct {
	structName string
	name, path string // Field.Name, Field.Path
	kind       Kind
	size       uint64 // of what an address is returned; else the width is the code's
}

// accGive is one thing that a function gives: the last of steps, and pointers on
// the way to it.
type accGive struct {
	how    accHow
	arg    int
	con    int64
	callee []string
	text   string
	steps  []accStep
	// address: the function has the field's address, not its value.
	address bool
	plus    int64 // bytes from there to the field
	// narrow: it may read less than the whole field.
	narrow bool
	// sizes lists the widths that the field can have; none: 8 for pointers,
	// else any.
	sizes []int
}

// accessor is an exported function and what it gives.
type accessor struct {
	symbols []string // the first that exists counts
	product string   // "" for all
	depth   int      // calls to follow
	steps   int      // instructions to look at; 0: all
	gives   []accGive
	// only and not are symbols that tell versions apart: one must exist, the
	// other must not.
	only, not string
	// source: file and function in the server's sources.
	source string
}

// guess is an expression that may be the field.
type guess struct {
	e     disasm.Expr
	size  uint8 // of a store; 0: e is a value or an address
	words string
}

// take finds the one walk that fits, or says why there is none.
func (r *accProber) take(flow *disasm.Flow, g *accGive, symbol string) ([]accClaim, error) {
	cands, err := r.candidates(flow, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", g, ErrAccessor, err)
	}
	var walk disasm.Chain
	var from guess
	n := 0
	for _, c := range cands {
		w, ok := g.fits(c)
		if !ok {
			continue
		}
		if n > 0 && !sameWalk(w, walk) {
			return nil, fmt.Errorf("%s: %w: %s or %s", g, ErrAccessor, walk, w)
		}
		if n == 0 {
			walk, from = w, c
		}
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: %w: nothing of that shape", g, ErrAccessor)
	}
	return g.claims(walk, from.words+" of "+symbol), nil
}

func sameWalk(a, b disasm.Chain) bool {
	return a.Arg == b.Arg && a.Size == b.Size && slices.Equal(a.Offsets, b.Offsets)
}

// String names what is wanted.
func (g *accGive) String() string {
	last := g.steps[len(g.steps)-1]
	return last.structName + "." + last.name
}

// fits checks the shape of a walk: from the first argument, as many steps as
// wanted, offsets and widths possible.
func (g *accGive) fits(c guess) (disasm.Chain, bool) {
	w, ok := c.e.Chain()
	from := 0
	if g.how == bySlot {
		from = g.arg
	}
	if !ok || w.Arg != from || len(w.Offsets) != len(g.steps) {
		return w, false
	}
	if c.size != 0 { // an address that is stored to
		if w.Size != 0 {
			return w, false
		}
		w.Size = int(c.size)
	} else if g.address != (w.Size == 0) {
		return w, false
	}
	for _, off := range w.Offsets {
		if off < 0 || off >= MaxStructSize {
			return w, false
		}
	}
	if g.address {
		return w, true
	}
	if g.sizes != nil {
		return w, slices.Contains(g.sizes, w.Size)
	}
	return w, w.Size <= 8 && (g.steps[len(g.steps)-1].kind != KindPointer || w.Size == 8)
}

// claims turns a walk into fields: pointers on the way, and the last.
func (g *accGive) claims(w disasm.Chain, how string) []accClaim {
	var out []accClaim
	for i, s := range g.steps {
		c := accClaim{structName: s.structName, how: how}
		c.field = Field{Name: s.name, Path: s.path, Offset: uint64(w.Offsets[i]), Size: 8, Kind: KindPointer, Source: sourceAccessor}
		if i == len(g.steps)-1 {
			c.field.Kind, c.field.Size, c.narrow = s.kind, uint64(w.Size), g.narrow
			if g.address {
				c.field.Size = s.size
				c.field.Offset += uint64(g.plus)
			}
		}
		if s.name != "" {
			out = append(out, c)
		}
	}
	return out
}

// candidates lists the expressions at the place that g names.
func (r *accProber) candidates(flow *disasm.Flow, g *accGive) ([]guess, error) {
	if flow.Incomplete != nil && g.how <= byRest {
		return nil, flow.Incomplete // one of the paths not seen may return something else
	}
	switch g.how {
	case byReturn, bySecond:
		return accReturned(flow, g)
	case byBase, bySlot:
		return indexed(flow, g), nil
	case byIf, byUnless:
		return guarded(flow, g), nil
	case byAnd, byScaled, byRest:
		return accCombined(flow, g), nil
	case byPassed:
		return r.passed(flow, g), nil
	case byFormat:
		return r.formatted(flow, g)
	case byTested, byChecked:
		return accCompared(flow, g), nil
	}
	return r.stored(flow, g), nil
}

// accReturned: every path returns the same walk, a number (behind a null check),
// or something that the first argument has no part in.
func accReturned(flow *disasm.Flow, g *accGive) ([]guess, error) {
	var out []guess
	for _, ev := range flow.Of(disasm.EvReturn) {
		v, words := ev.Value, "return value"
		if g.how == bySecond {
			v, words = ev.Other, "second word of the return value"
		}
		if _, ok := v.Const(); ok {
			continue
		}
		c := guess{e: v, words: words}
		if _, ok := g.fits(c); ok {
			out = append(out, c)
		} else if g.how == byReturn && exprMentions(v, 0) {
			return nil, fmt.Errorf("a path returns %s", v)
		}
	}
	return out, nil
}

// exprMentions reports whether argument n has a part in e.
func exprMentions(e disasm.Expr, n int) bool {
	for _, a := range []*disasm.Atom{e.Atom, e.Index} {
		if a == nil {
			continue
		}
		if a.Kind == disasm.AtomArg && int(a.Arg) == n || exprMentions(a.X, n) || exprMentions(a.Y, n) {
			return true
		}
	}
	return false
}

// accCombined takes returned sums and conjunctions apart.
func accCombined(flow *disasm.Flow, g *accGive) []guess {
	var out []guess
	for _, ev := range flow.Of(disasm.EvReturn) {
		v := ev.Value
		switch {
		case g.how == byAnd && v.Atom != nil && v.Index == nil && v.Off == 0 && v.Atom.Kind == disasm.AtomOp && v.Atom.Op == "and":
			if v.Atom.X.IsArg(g.arg) {
				out = append(out, guess{e: v.Atom.Y, words: "mask in the return value"})
			} else if v.Atom.Y.IsArg(g.arg) {
				out = append(out, guess{e: v.Atom.X, words: "mask in the return value"})
			}
		case g.how != byAnd && v.Atom != nil && v.Index != nil && v.Scale == g.con && v.Off == 0:
			e := disasm.Expr{Atom: v.Index}
			if g.how == byRest {
				e.Atom = v.Atom
			}
			out = append(out, guess{e: e, words: "sum returned"})
		}
	}
	return out
}

// indexed takes the address of an array's element apart: base + index*stride.
// All paths must agree on it.
func indexed(flow *disasm.Flow, g *accGive) []guess {
	var out []guess
	var all disasm.Expr
	if flow.Incomplete != nil {
		return nil
	}
	for i, ev := range flow.Of(disasm.EvReturn) {
		e := ev.Value
		if e.Atom != nil && e.Index == nil && e.Off == 0 && e.Atom.Kind == disasm.AtomLoad {
			e = e.Atom.X
		}
		if e.Atom == nil || e.Index == nil || e.Scale < 8 || i > 0 && e != all {
			return nil
		}
		all = e
		words := fmt.Sprintf("array of %#x byte elements", e.Scale)
		if g.how == bySlot {
			out = append(out, guess{e: disasm.Expr{Atom: e.Index}, words: "index into the " + words})
		} else {
			out = append(out, guess{e: disasm.Expr{Atom: e.Atom, Off: e.Off}, words: words})
		}
	}
	return out
}

// guarded lists the places that are stored to depending on whether an
// argument is 0.
func guarded(flow *disasm.Flow, g *accGive) []guess {
	var out []guess
	if flow.Incomplete != nil {
		return nil
	}
	for _, ev := range flow.Of(disasm.EvStore) {
		for _, c := range ev.Conds {
			if y, ok := c.Y.Const(); ok && y == 0 && c.Known && c.Equal == (g.how == byIf) && isArgument(c.X, g.arg, 1) && ev.Level == 0 {
				out = append(out, guess{e: ev.Addr, size: ev.Size, words: fmt.Sprintf("store at %#x", ev.Site)})
				break
			}
		}
	}
	return out
}

// passed lists what calls get.
func (r *accProber) passed(flow *disasm.Flow, g *accGive) []guess {
	var out []guess
	for _, ev := range flow.Of(disasm.EvCall) {
		indirect := g.callee[0] == "*" && ev.Target == 0 && ev.Name == ""
		if ev.Level != 0 || flow.Incomplete != nil && !ev.Always() || !indirect && !r.calls(&ev, g.callee) {
			continue
		}
		out = append(out, guess{e: ev.Args[g.arg], words: fmt.Sprintf("argument %d of the call at %#x", g.arg+1, ev.Site)})
	}
	return out
}

// accCompared lists what is compared with a constant.
func accCompared(flow *disasm.Flow, g *accGive) []guess {
	for i, evs := 0, flow.Of(disasm.EvCompare); i < len(evs); i++ {
		ev := &evs[i]
		c, ok := ev.Other.Const()
		if g.how == byTested {
			if !ok || c != g.con || !ev.Always() {
				return nil
			}
			return []guess{{e: ev.Value, words: "first comparison"}}
		}
		if _, walk := ev.Value.Chain(); ok && c == g.con && walk {
			return []guess{{e: ev.Value, words: fmt.Sprintf("comparison with %d", g.con)}}
		}
	}
	return nil
}

// stored lists places by what is stored there.
func (r *accProber) stored(flow *disasm.Flow, g *accGive) []guess {
	var out []guess
	for _, ev := range flow.Of(disasm.EvStore) {
		if flow.Incomplete != nil && !ev.Always() {
			continue
		}
		words := fmt.Sprintf("store at %#x", ev.Site)
		switch g.how {
		case byOut:
			if ev.Addr.IsArg(g.arg) {
				out = append(out, guess{e: ev.Value, words: words})
			}
			continue
		case byStored:
			if !isArgument(ev.Value, g.arg, ev.Size) {
				continue
			}
		case byResult:
			if !r.isResult(flow, ev.Value, g) {
				continue
			}
		case byCopied:
			w, ok := ev.Value.Chain()
			if !ok || w.Arg != g.arg || w.Size != int(ev.Size) || len(w.Offsets) != 1 || w.Offsets[0] != g.con {
				continue
			}
		case byAdded:
			if !addsArgument(&ev, g.arg) {
				continue
			}
		}
		out = append(out, guess{e: ev.Addr, size: ev.Size, words: words})
	}
	return out
}

// isArgument: v is argument n, cut to the width of the store.
func isArgument(v disasm.Expr, n int, size uint8) bool {
	if v.Atom != nil && v.Index == nil && v.Off == 0 && v.Atom.Kind == disasm.AtomOp && v.Atom.Op == "cut" && v.Atom.Size >= size {
		v = v.Atom.X
	}
	return v.IsArg(n)
}

// addsArgument: what is stored is what was there plus argument n.
func addsArgument(ev *disasm.Event, n int) bool {
	v := ev.Value
	if v.Atom == nil || v.Index == nil || v.Scale != 1 || v.Off != 0 {
		return false
	}
	is := func(a, b *disasm.Atom) bool {
		return a.Kind == disasm.AtomLoad && a.X == ev.Addr && a.Size == ev.Size && b.Kind == disasm.AtomArg && int(b.Arg) == n
	}
	return is(v.Atom, v.Index) || is(v.Index, v.Atom)
}

// isResult: v is what a call of one of the functions returned; with con not 0
// that call's first argument is con.
func (r *accProber) isResult(flow *disasm.Flow, v disasm.Expr, g *accGive) bool {
	if v.Atom != nil && v.Index == nil && v.Off == 0 && v.Atom.Kind == disasm.AtomOp && v.Atom.Op == "cut" {
		v = v.Atom.X
	}
	if v.Atom == nil || v.Index != nil || v.Off != 0 || v.Atom.Kind != disasm.AtomCall {
		return false
	}
	for _, ev := range flow.Of(disasm.EvCall) {
		if ev.Site == v.Atom.ID && r.calls(&ev, g.callee) {
			c, ok := ev.Args[0].Const()
			return g.con == 0 || ok && c == g.con
		}
	}
	return false
}

// formatted finds a call with a format string and the argument that is printed
// behind the words.
func (r *accProber) formatted(flow *disasm.Flow, g *accGive) ([]guess, error) {
	for _, ev := range flow.Of(disasm.EvCall) {
		if ev.Level != 0 || !ev.Always() {
			continue
		}
		for i, a := range ev.Args {
			at, ok := a.Const()
			if !ok {
				continue
			}
			n, ok := formatConversion(r.text(uint64(at)), g.text)
			if !ok {
				continue
			}
			if i+1+n >= len(ev.Args) {
				return nil, fmt.Errorf("argument %d of the call at %#x isn't followed", i+2+n, ev.Site)
			}
			return []guess{{e: ev.Args[i+1+n], words: fmt.Sprintf("%q printed by the call at %#x", g.text, ev.Site)}}, nil
		}
	}
	return nil, nil
}

// maxFormat bounds the format string that is read; the one of interest has 60
// characters.
const maxFormat = 256

// text reads a string constant of the image; "" when there is none.
func (r *accProber) text(addr uint64) string {
	if addr < 0x1000 {
		return ""
	}
	buf := make([]byte, maxFormat)
	n, _ := r.file.ReadVaddr(addr, buf)
	if i := slices.Index(buf[:n], 0); i >= 0 {
		return string(buf[:i])
	}
	return ""
}

// formatConversion finds the conversion of a printf format that stands right behind
// some words, and returns how many come before it.
func formatConversion(format, words string) (n int, ok bool) {
	literal := ""
	for {
		i := strings.IndexByte(format, '%')
		if i < 0 || i+1 >= len(format) {
			return 0, false
		}
		literal += format[:i]
		format = format[i+1:]
		if format[0] == '%' {
			literal, format = literal+"%", format[1:]
			continue
		}
		if strings.HasSuffix(strings.TrimSuffix(literal, "0x"), words+" ") {
			return n, true
		}
		j := strings.IndexFunc(format, func(c rune) bool { return strings.ContainsRune("diouxXcspeEfgG", c) })
		if j < 0 || strings.ContainsRune(format[:j], '*') {
			return 0, false
		}
		literal, format, n = "", format[j+1:], n+1
	}
}
