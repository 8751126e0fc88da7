package structdef

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mycore/internal/disasm"
	"mycore/internal/elfimage"
	"mycore/internal/target"
)

// Found is one field that the machine code of exported functions gives away.
type Found struct {
	Struct string // mycore's name of the structure
	// Field has SourceAccessor. Size is 0 for an embedded structure of which
	// only the address is known.
	Field Field
	// How says in words which functions give it and by what.
	How string
}

// ErrAccessor says that a function that is there doesn't give what it is asked for.
// The code is of another shape than any that mycore knows.
var ErrAccessor = errors.New("accessor gives no offset")

// ErrDisagree says that two functions of one binary state different places for a field.
var ErrDisagree = errors.New("accessors disagree")

// FromAccessors reads fields out of the code of the functions that the server
// exports for its plugins. product is "mysql", "percona" or "mariadb". Exact
// for this build, stripped or not. It costs a hash lookup and some decoded
// instructions per function.
//
// problems lists functions that are there and gave nothing (ErrAccessor) and
// fields that were dropped since two functions disagree (ErrDisagree). A
// function that isn't there is no problem.
func FromAccessors(f *elfimage.File, product string) (found []Found, problems []error) {
	if f.Arch() != target.AMD64 {
		return nil, []error{fmt.Errorf("%s: %w: code of %s", f.Name(), ErrAccessor, f.Arch())}
	}
	r := &accProber{file: f, flows: map[accFlowKey]accFlow{}, symbols: map[string]accSymbol{}}
	claims := map[string][]accClaim{}
	var order []string
	for i := range accessors {
		p := &accessors[i]
		if p.product != "" && p.product != accFamily(product) {
			continue
		}
		if !r.applies(p) {
			continue
		}
		cs, err := r.run(p)
		if err != nil {
			problems = append(problems, err)
		}
		for _, c := range cs {
			key := c.structName + "." + c.field.Name
			if claims[key] == nil {
				order = append(order, key)
			}
			claims[key] = append(claims[key], c)
		}
	}
	for _, key := range order {
		fd, err := settleClaims(claims[key])
		if err != nil {
			problems = append(problems, err)
			continue
		}
		found = append(found, fd)
	}
	return found, problems
}

// accFamily: Percona Server has MySQL's structures where accessors reach.
func accFamily(product string) string {
	if product == "mariadb" {
		return "mariadb"
	}
	return "mysql"
}

// accClaim is a field by one function.
type accClaim struct {
	structName string
	field      Field
	narrow     bool // the function may read less than the whole field
	how        string
}

// settleClaims makes one field of what several functions say.
func settleClaims(cs []accClaim) (Found, error) {
	best := cs[0]
	var hows []string
	for _, c := range cs {
		if c.field.Offset != cs[0].field.Offset {
			return Found{}, fmt.Errorf("%s.%s: %w: %s, but %s", c.structName, c.field.Name, ErrDisagree, cs[0].how, c.how)
		}
		switch {
		case best.narrow && !c.narrow:
			best = c
		case best.narrow == c.narrow && c.field.Size > best.field.Size && (best.narrow || best.field.Size == 0):
			best = c
		case !best.narrow && !c.narrow && c.field.Size != 0 && c.field.Size != best.field.Size:
			return Found{}, fmt.Errorf("%s.%s: %w: %d bytes by %s, %d by %s", c.structName, c.field.Name, ErrDisagree,
				best.field.Size, best.how, c.field.Size, c.how)
		}
		if !slices.Contains(hows, c.how) {
			hows = append(hows, c.how)
		}
	}
	return Found{Struct: best.structName, Field: best.field, How: strings.Join(hows, "; ")}, nil
}

type accFlowKey struct {
	addr         uint64
	depth, steps int
}

type accFlow struct {
	flow *disasm.Flow
	err  error
}

// accProber asks the functions of one image.
type accProber struct {
	file  *elfimage.File
	flows map[accFlowKey]accFlow
	// symbols remembers look-ups: callees are asked for at every call.
	symbols map[string]accSymbol
	links   *accLinks
}

// run asks the first of the accessor's symbols that the image has.
func (r *accProber) run(a *accessor) ([]accClaim, error) {
	for _, name := range a.symbols {
		sym, ok := r.function(name)
		if !ok {
			continue
		}
		flow, err := r.trace(sym, a)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", name, ErrAccessor, err)
		}
		var out []accClaim
		var errs []error
		for i := range a.gives {
			cs, err := r.take(flow, &a.gives[i], name)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
			out = append(out, cs...)
		}
		return out, errors.Join(errs...)
	}
	return nil, nil
}

// applies tells versions apart by the symbols that they have.
func (r *accProber) applies(a *accessor) bool {
	if a.only != "" {
		if _, ok := r.function(a.only); !ok {
			return false
		}
	}
	if a.not != "" {
		if _, ok := r.function(a.not); ok {
			return false
		}
	}
	return true
}

// function finds an exported function of the image.
func (r *accProber) function(name string) (elfimage.Sym, bool) {
	got, ok := r.symbols[name]
	if !ok {
		got.sym, got.ok = r.file.LookupDynSym(name)
		got.ok = got.ok && got.sym.Defined() && got.sym.Type() == accSTTFunc && got.sym.Value != 0
		r.symbols[name] = got
	}
	return got.sym, got.ok
}

type accSymbol struct {
	sym elfimage.Sym
	ok  bool
}

// accessorSteps bounds the instructions looked at per function, on all of its
// paths: the longest that is asked for as a whole needs some 400.
const accessorSteps = 4000

// accSTTFunc is STT_FUNC of the ELF specification.
const accSTTFunc = 2

func (r *accProber) trace(sym elfimage.Sym, a *accessor) (*disasm.Flow, error) {
	steps := a.steps
	if steps == 0 {
		steps = accessorSteps
	}
	k := accFlowKey{sym.Value, a.depth, steps}
	if got, ok := r.flows[k]; ok {
		return got.flow, got.err
	}
	if r.links == nil {
		r.links = &accLinks{file: r.file}
	}
	code := disasm.TraceCode{
		Read: r.read, Callee: r.callee, Slot: r.links.slot, Depth: a.depth, Steps: steps,
		Extent: func(addr uint64) (uint64, uint64, bool) {
			end := sym.Value + sym.Size
			return sym.Value, end, end > sym.Value && addr >= sym.Value && addr < end
		},
	}
	flow, err := disasm.Trace(code, sym.Value)
	r.flows[k] = accFlow{flow, err}
	return flow, err
}

// read gives code, from executable segments only.
func (r *accProber) read(addr uint64, p []byte) int {
	for _, g := range r.file.Progs() {
		if g.Type == elfimage.PTLoad && g.Flags&1 != 0 && addr-g.Vaddr < g.Filesz {
			n, _ := r.file.ReadVaddr(addr, p[:min(uint64(len(p)), g.Filesz-(addr-g.Vaddr))])
			return n
		}
	}
	return 0
}

// callee sees through a linkage stub.
func (r *accProber) callee(addr uint64) (name string, entry uint64) {
	if slot, ok := disasm.Linkage(r.read, addr); ok {
		if name, entry = r.links.slot(slot); name != "" {
			return name, entry
		}
	}
	return "", addr
}

// calls reports whether the event is a call of one of the named functions.
func (r *accProber) calls(e *disasm.Event, names []string) bool {
	for _, n := range names {
		if e.Name == n {
			return true
		}
		if sym, ok := r.function(n); ok && e.Target == sym.Value {
			return true
		}
	}
	return false
}
