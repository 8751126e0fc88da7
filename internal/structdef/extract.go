package structdef

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mycore/internal/elfimage"
	"mycore/internal/target"
)

// Files are the images that a layout is read from.
type Files struct {
	// DWARF is the binary, or its separate debug file.
	DWARF *elfimage.File
	// Alt is the file of DWARF's .gnu_debugaltlink; nil where there is none or
	// AltErr says why it isn't there.
	Alt    *elfimage.File
	AltErr error
}

// Missing is a wanted field or structure that the DWARF doesn't have.
type Missing struct {
	Struct, Field string // Field is "" for the whole structure
	Err           error
}

// extractor is one extraction. It isn't safe for concurrent use.
type extractor struct {
	main     *image
	want     []WantedStruct
	names    map[string]bool // last components of wanted types
	scanning *unit

	best        map[string]*candidate // by WantedStruct.Name
	tried       map[string]int
	found       map[string]ref  // definitions by name, for declarations elsewhere
	undefined   map[string]bool // types that were only declared
	sought      map[string]bool // of those, the ones that a pass looked for
	memberLists map[refKey][]member

	loadedUnits []*unit
	loadedBytes uint64
	reloads     int
	steps       int
	depth       int
}

// candidate is a definition of a wanted structure.
type candidate struct {
	s        Struct
	missing  []Missing
	complete bool // nothing that another definition could add
}

// maxTried bounds the definitions of one name that are looked at: every unit
// of gcc's has one of each, all alike.
const maxTried = 256

// Extract reads the wanted structures from DWARF. Only units are read, and
// only until all is known; structures and fields that aren't there are in the
// second result. An error wraps ErrNoDWARF where there is no DWARF, and names
// the file; a hostile file gives an error, never a panic.
func Extract(files Files, want []WantedStruct) (structs []Struct, missing []Missing, err error) {
	defer func() {
		if r := recover(); r != nil {
			structs, missing, err = nil, nil, fmt.Errorf("%s: malformed DWARF: %v", files.DWARF.Name(), r)
		}
	}()
	img, err := openImage(files.DWARF)
	if err != nil {
		return nil, nil, err
	}
	img.altErr = files.AltErr
	if files.Alt != nil {
		if img.alt, err = openImage(files.Alt); err != nil {
			return nil, nil, fmt.Errorf("alternate file: %w", err)
		}
	}
	return extract(img, want)
}

// extract is Extract of an opened image.
func extract(img *image, want []WantedStruct) ([]Struct, []Missing, error) {
	x := &extractor{main: img, want: want, best: map[string]*candidate{}, tried: map[string]int{},
		found: map[string]ref{}, undefined: map[string]bool{}, sought: map[string]bool{}, memberLists: map[refKey][]member{}}
	if err := x.run(); err != nil {
		return nil, nil, err
	}
	structs, missing := x.result()
	if len(structs) == 0 && img.usesDwo {
		return nil, nil, fmt.Errorf("%s: its types are in .dwo files, which aren't read: %w", img.name, ErrNoDWARF)
	}
	return structs, missing, nil
}

// run scans all units, a second time where a type was declared only before its
// definition came.
func (x *extractor) run() error {
	for pass := 0; ; pass++ {
		if err := x.lookForNames(); err != nil {
			return err
		}
		known := len(x.found)
		done, err := x.scan(x.main)
		if err == nil && !done && x.main.alt != nil {
			done, err = x.scan(x.main.alt)
		}
		if err != nil || done {
			return err
		}
		if x.main.usesAlt && x.main.alt == nil {
			// What is missing may be there; a part would pass for the whole.
			return x.main.noAlt()
		}
		// Another pass helps where a definition was found behind its use, or
		// hasn't been looked for yet.
		fresh := len(x.found) > known
		for name := range x.undefined {
			fresh = fresh || !x.sought[name]
			x.sought[name] = true
		}
		if !fresh || pass == maxPasses {
			return nil
		}
		clear(x.tried)
	}
}

// maxPasses: definitions elsewhere may hold members that are defined elsewhere
// again.
const maxPasses = 3

// lookForNames prepares the cheap comparison of names: it finds the wanted
// ones in the string sections.
func (x *extractor) lookForNames() error {
	x.names = maps.Clone(x.undefined)
	for _, w := range x.want {
		for _, t := range w.Types {
			for part := range strings.SplitSeq(t, "::") {
				x.names[part] = true
			}
		}
	}
	delete(x.names, "")
	names := slices.Sorted(maps.Keys(x.names))
	for _, img := range []*image{x.main, x.main.alt} {
		if img == nil {
			continue
		}
		var err error
		if img.wantStr, err = img.str.find(names); err == nil {
			img.wantLine, err = img.lineStr.find(names)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", img.name, err)
		}
	}
	return nil
}

// scan goes through the units of one file. done says that nothing is left to
// be found.
func (x *extractor) scan(img *image) (done bool, err error) {
	var buf []byte
	for _, u := range img.units {
		mine := u.buf == nil
		if mine {
			if err := u.load(buf); err != nil {
				return false, err
			}
			if u.sec.data == nil {
				buf = u.buf
			}
		}
		x.scanning = u
		done, err := x.scanUnit(u)
		x.scanning = nil
		keep := false
		for _, r := range x.found {
			keep = keep || r.u == u
		}
		switch {
		case mine && keep && x.loadedBytes+u.end-u.start <= maxLoaded:
			x.loadedUnits, x.loadedBytes = append(x.loadedUnits, u), x.loadedBytes+u.end-u.start
			buf = nil // it stays with the unit
		case mine:
			u.buf, u.abbrevs = nil, nil
		}
		if err != nil || done {
			return done, err
		}
	}
	return false, nil
}

// scope is a namespace or class that the scan is inside of.
type scope struct{ off uint64 }

// maxScopes bounds namespaces inside each other.
const maxScopes = 64

// scanUnit looks at the entries of a unit that aren't inside functions or
// other classes.
func (x *extractor) scanUnit(u *unit) (done bool, err error) {
	c := &cursor{b: u.buf, pos: u.first - u.start}
	var scopes []scope
	plain := 0 // levels of entries that aren't looked at
	for c.pos < uint64(len(u.buf)) {
		off := u.start + c.pos
		code := c.uleb()
		if code == 0 {
			switch {
			case plain > 0:
				plain--
			case len(scopes) > 0:
				scopes = scopes[:len(scopes)-1]
			}
			if plain == 0 && len(scopes) == 0 {
				break // the unit's entry is closed; padding may follow
			}
			continue
		}
		a := u.abbrevs.get(code)
		if a == nil {
			return false, fmt.Errorf("%s: .%s+%#x: unknown abbreviation %d", u.img.name, u.sec.name, off, code)
		}
		isScope := false
		if plain == 0 {
			isScope, done, err = x.scanEntry(u, a, off, scopes)
			if done || err != nil {
				return done, err
			}
		}
		next, ok := skipEntry(c, a, u)
		if c.err != nil {
			return false, fmt.Errorf("%s: .%s+%#x: %w", u.img.name, u.sec.name, off, c.err)
		}
		switch {
		case !a.children:
		case isScope && len(scopes) < maxScopes:
			scopes = append(scopes, scope{off})
		case ok:
			c.pos = next
		default:
			plain++
		}
	}
	return false, nil
}

// skipEntry moves over an entry's attributes and gives the place of its
// sibling where the entry says it.
func skipEntry(c *cursor, a *abbrev, u *unit) (next uint64, ok bool) {
	if !a.children || !a.sibling {
		if a.fixed {
			c.skip(a.skip)
			return 0, false
		}
		for i := range a.attrs {
			skipForm(c, a.attrs[i].form, u)
		}
		return 0, false
	}
	for i := range a.attrs {
		if a.attrs[i].at != atSibling {
			skipForm(c, a.attrs[i].form, u)
			continue
		}
		v := u.value(c, &a.attrs[i])
		switch v.form {
		case formRef1, formRef2, formRef4, formRef8, formRefUdata:
			next, ok = v.u, true
		}
	}
	return next, ok && next > c.pos && next < uint64(len(c.b))
}

// scanEntry looks at one entry at namespace level. isScope says that its
// children have to be looked at, too.
func (x *extractor) scanEntry(u *unit, a *abbrev, off uint64, scopes []scope) (isScope, done bool, err error) {
	switch a.tag {
	case tagCompileUnit, tagPartialUnit, tagTypeUnit, tagSkeletonUnit, tagNamespace:
		return true, false, nil
	case tagStruct, tagClass, tagUnion, tagTypedef:
	default:
		return false, false, nil
	}
	if a.tag != tagTypedef && u.isTypeUnit() && off != u.start+u.typeOff && len(scopes) > 0 {
		isScope = true // the type of the unit may lie inside declared classes
	}
	if !a.mayBeNamed() {
		return isScope, false, nil
	}
	e, err := u.entry(off)
	if err != nil {
		return false, false, err
	}
	name, ok := u.isWanted(e.name, x.names)
	qualified := ""
	if e.spec.ok() && !e.declaration && (ok || !e.name.ok()) {
		name, qualified, ok = x.specName(u, e)
	} else if ok {
		qualified = x.qualified(u, scopes, name)
	}
	if !ok {
		return isScope, false, nil
	}
	isScope = isScope || a.tag != tagTypedef && x.isOuter(qualified)
	if e.declaration {
		return isScope, false, nil
	}
	r := ref{u, off}
	if e.tag == tagTypedef {
		if r, ok = x.anonymous(u, e); !ok {
			return isScope, false, nil
		}
	}
	if _, known := x.found[name]; !known && x.undefined[name] {
		x.found[name] = r
	}
	return isScope, x.consider(r, qualified), nil
}

func (u *unit) isTypeUnit() bool { return u.kind == utType || u.kind == utSplitType }

// mayBeNamed says that the abbreviation has a name or refers to an entry that
// has one.
func (a *abbrev) mayBeNamed() bool {
	for i := range a.attrs {
		if a.attrs[i].at == atName || a.attrs[i].at == atSpecification {
			return true
		}
	}
	return false
}

// specName gives the name of a class that is defined outside of the class or
// namespace that declares it, which is where its qualified name comes from.
// gcc writes type units so.
func (x *extractor) specName(u *unit, e entry) (name, qualified string, ok bool) {
	r, err := x.follow(u, e.spec)
	if err != nil {
		return "", "", false
	}
	d, err := x.get(r)
	if err != nil {
		return "", "", false
	}
	if name, ok = r.u.isWanted(d.name, x.names); !ok {
		return "", "", false
	}
	scopes, err := x.scopesOf(r)
	return name, x.qualified(r.u, scopes, name), err == nil
}

// scopesOf finds the entries around one by walking its unit: entries don't
// know what they are in.
func (x *extractor) scopesOf(r ref) ([]scope, error) {
	var around []scope
	for off := r.u.first; off < r.off; {
		e, err := x.get(ref{r.u, off})
		if err != nil {
			return nil, err
		}
		next, ok := r.u.siblingOf(e)
		switch {
		case e.tag == 0 && len(around) == 0:
			return nil, errBounds
		case e.tag == 0:
			around = around[:len(around)-1]
		case e.children && ok && next <= r.off:
			off = next
			continue
		case e.children:
			around = append(around, scope{off})
		}
		off = e.after
	}
	return around, nil
}

// anonymous gives the structure of `typedef struct {...} NAME`.
func (x *extractor) anonymous(u *unit, e entry) (ref, bool) {
	r, err := x.follow(u, e.typ)
	if err != nil {
		return ref{}, false
	}
	t, err := x.get(r)
	return r, err == nil && isStruct(t.tag) && !t.name.ok() && !t.declaration
}

// qualified writes a name with the namespaces and classes around it. What has
// no name of its own (units, anonymous namespaces) adds nothing.
func (x *extractor) qualified(u *unit, scopes []scope, name string) string {
	var b strings.Builder
	for _, s := range scopes[min(1, len(scopes)):] { // the first is the unit
		if e, err := u.entry(s.off); err == nil {
			if n, err := u.text(e.name); err == nil && n != "" {
				b.WriteString(n)
				b.WriteString("::")
			}
		}
	}
	return b.String() + name
}

// isOuter says that a wanted type lies inside the class of that name.
func (x *extractor) isOuter(qualified string) bool {
	for _, w := range x.want {
		for _, t := range w.Types {
			if strings.HasPrefix(t, qualified+"::") {
				return true
			}
		}
	}
	return false
}

// consider tries a definition for the wanted structures of that name. done
// says that all wanted structures are complete.
func (x *extractor) consider(r ref, qualified string) (done bool) {
	for i := range x.want {
		w := &x.want[i]
		if !slices.Contains(w.Types, qualified) {
			continue
		}
		old := x.best[w.Name]
		if old != nil && old.complete || x.tried[w.Name] >= maxTried {
			continue
		}
		x.tried[w.Name]++
		if c := x.try(r, w, qualified); c != nil && (old == nil || len(c.s.Fields) > len(old.s.Fields)) {
			x.best[w.Name] = c
		}
	}
	for i := range x.want {
		if c := x.best[x.want[i].Name]; c == nil || !c.complete {
			return false
		}
	}
	return true
}

// try reads the wanted fields from one definition; nil when it is another
// structure of the same name.
func (x *extractor) try(r ref, w *WantedStruct, typeName string) *candidate {
	e, err := x.get(r)
	if err != nil {
		return nil
	}
	size, _ := e.size.constant()
	c := &candidate{s: Struct{Name: w.Name, Size: size}, complete: true}
	if typeName != w.Name {
		c.s.Type = typeName
	}
	for _, f := range w.Fields {
		got, err := x.wantedField(r, &f)
		if err != nil {
			if slices.Contains(w.Required, f.Name) {
				return nil
			}
			c.missing = append(c.missing, Missing{w.Name, f.Name, err})
			// Another definition has no other members; it may have the type
			// of one that is declared only here.
			c.complete = c.complete && errors.Is(err, errNoField)
			continue
		}
		c.s.Fields = append(c.s.Fields, got)
	}
	c.s.sortFields()
	return c
}

// wantedField tries the paths of a field in their order.
func (x *extractor) wantedField(r ref, w *WantedField) (Field, error) {
	var first error
	for _, path := range w.Paths {
		f, err := x.field(r, path)
		if err == nil {
			f.Name, f.Source = w.Name, target.SourceDWARF
			if path != w.Name {
				f.Path = path
			}
			return f, nil
		}
		if first == nil || errors.Is(first, errNoField) && !errors.Is(err, errNoField) {
			first = err
		}
	}
	if first == nil {
		first = errNoField
	}
	return Field{}, first
}

// result gives what was found in the order of the wanted list.
func (x *extractor) result() ([]Struct, []Missing) {
	var out []Struct
	var missing []Missing
	for _, w := range x.want {
		c := x.best[w.Name]
		if c == nil || len(c.s.Fields) == 0 {
			missing = append(missing, Missing{w.Name, "", fmt.Errorf("no definition of %s", strings.Join(w.Types, " or "))})
			continue
		}
		out = append(out, c.s)
		missing = append(missing, c.missing...)
	}
	return out, missing
}
