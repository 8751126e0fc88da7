package structdef

import (
	"errors"
	"fmt"
)

// value is an attribute's value as it is encoded; the zero value is absent.
type value struct {
	form uint16
	u    uint64
	b    []byte // of blocks and inline strings; points into the unit
}

func (v value) ok() bool { return v.form != 0 }

// constant gives a number that the attribute states itself.
func (v value) constant() (uint64, bool) {
	switch v.form {
	case formData1, formData2, formData4, formData8, formUdata, formSdata, formImplicit:
		return v.u, true
	}
	return 0, false
}

// entry is one debugging information entry (DIE), with the attributes that
// matter for types.
type entry struct {
	tag      uint16
	children bool
	after    uint64 // section offset behind the attributes

	name, typ, size, loc, sibling, sig, spec value
	bitSize, bitOffset, dataBit              value
	upper, count, encoding, strBase          value
	declaration, external, dwo               bool
}

// entryAt decodes the entry at a section offset; u is loaded. A null entry
// has tag 0.
func (u *unit) entry(off uint64) (entry, error) {
	if off < u.first || off >= u.end {
		return entry{}, fmt.Errorf("%s: .%s+%#x: entry %w", u.img.name, u.sec.name, off, errBounds)
	}
	c := &cursor{b: u.buf, pos: off - u.start}
	var e entry
	code := c.uleb()
	if c.err == nil && code != 0 {
		a := u.abbrevs.get(code)
		if a == nil {
			return entry{}, fmt.Errorf("%s: .%s+%#x: unknown abbreviation %d", u.img.name, u.sec.name, off, code)
		}
		e.tag, e.children = a.tag, a.children
		for i := range a.attrs {
			u.decode(c, &a.attrs[i], &e)
		}
	}
	if c.err != nil {
		return entry{}, fmt.Errorf("%s: .%s+%#x: %w", u.img.name, u.sec.name, off, c.err)
	}
	e.after = u.start + c.pos
	return e, nil
}

// slot says where a wanted attribute goes.
func (e *entry) slot(at uint16) *value {
	switch at {
	case atName:
		return &e.name
	case atType:
		return &e.typ
	case atByteSize:
		return &e.size
	case atMemberLocation:
		return &e.loc
	case atSibling:
		return &e.sibling
	case atSignature:
		return &e.sig
	case atSpecification:
		return &e.spec
	case atBitSize:
		return &e.bitSize
	case atBitOffset:
		return &e.bitOffset
	case atDataBitOffset:
		return &e.dataBit
	case atUpperBound:
		return &e.upper
	case atCount:
		return &e.count
	case atEncoding:
		return &e.encoding
	case atStrOffsetsBase:
		return &e.strBase
	}
	return nil
}

func (u *unit) decode(c *cursor, a *attr, e *entry) {
	switch a.at {
	case atDeclaration, atExternal:
		v := u.value(c, a)
		if a.at == atDeclaration {
			e.declaration = v.u != 0
		} else {
			e.external = v.u != 0
		}
	case atDwoName, atGNUDwoName:
		e.dwo = true
		skipForm(c, a.form, u)
	default:
		if s := e.slot(a.at); s != nil {
			*s = u.value(c, a)
			return
		}
		skipForm(c, a.form, u)
	}
}

// value decodes one attribute's value.
func (u *unit) value(c *cursor, a *attr) value {
	v := value{form: a.form}
	if v.form == formIndirect {
		v.form = uint16(min(c.uleb(), 0xffff))
		if v.form == formIndirect || v.form == formImplicit {
			c.fail()
			return v
		}
	}
	switch v.form {
	case formImplicit:
		v.u = uint64(a.implicit)
	case formFlagPresent:
		v.u = 1
	case formString:
		v.b = c.str()
	case formSdata:
		v.u = uint64(c.sleb())
	case formUdata, formRefUdata, formStrx, formGNUStrIndex:
		v.u = c.uleb()
	case formBlock1:
		v.b = c.bytes(c.u8())
	case formBlock2:
		v.b = c.bytes(c.uint(2))
	case formBlock4:
		v.b = c.bytes(c.uint(4))
	case formBlock, formExprloc:
		v.b = c.bytes(c.uleb())
	default:
		if n, fixed, _ := formSize(v.form, u); fixed && n <= 8 {
			v.u = c.uint(n)
		} else {
			skipForm(c, v.form, u)
		}
	}
	return v
}

// text reads a string attribute.
func (u *unit) text(v value) (string, error) {
	switch v.form {
	case 0:
		return "", nil
	case formString:
		return string(v.b), nil
	case formStrp:
		return u.img.str.cstring(v.u)
	case formLineStrp:
		return u.img.lineStr.cstring(v.u)
	case formGNUStrpAlt, formStrpSup:
		if u.img.alt == nil {
			return "", u.img.noAlt()
		}
		return u.img.alt.str.cstring(v.u)
	case formStrx, formStrx1, formStrx2, formStrx3, formStrx4:
		off, err := u.strOffset(v.u)
		if err != nil {
			return "", err
		}
		return u.img.str.cstring(off)
	case formGNUStrIndex:
		return "", fmt.Errorf("%s: strings are in a .dwo file: %w", u.img.name, ErrNoDWARF)
	}
	return "", fmt.Errorf("%s: form %#x for a string", u.img.name, v.form)
}

// strOffset reads entry i of the unit's table of string offsets.
func (u *unit) strOffset(i uint64) (uint64, error) {
	if i >= u.img.strOffsets.size {
		return 0, fmt.Errorf("%s: string index %d: %w", u.img.name, i, errBounds)
	}
	var b [8]byte
	if err := u.img.strOffsets.read(b[:u.offSize], u.strOffBase+i*uint64(u.offSize)); err != nil {
		return 0, fmt.Errorf("%s: %w", u.img.name, err)
	}
	c := cursor{b: b[:]}
	return c.uint(uint64(u.offSize)), nil
}

// noAlt explains why a reference into the alternate file can't be followed.
// Leaving it out would turn types into void in silence.
func (img *image) noAlt() error {
	if img.altErr != nil {
		return fmt.Errorf("%s refers to types in an alternate file: %w", img.name, img.altErr)
	}
	return fmt.Errorf("%s refers to types in an alternate file (.gnu_debugaltlink) that isn't there", img.name)
}

// isWanted compares a name attribute with the wanted names without reading
// strings: most names are references into a string section, whose offsets of
// wanted names are known.
func (u *unit) isWanted(v value, names map[string]bool) (string, bool) {
	var n string
	switch v.form {
	case formStrp:
		n = u.img.wantStr[v.u]
	case formLineStrp:
		n = u.img.wantLine[v.u]
	case formGNUStrpAlt, formStrpSup:
		if u.img.alt != nil {
			n = u.img.alt.wantStr[v.u]
		}
	case formStrx, formStrx1, formStrx2, formStrx3, formStrx4:
		if off, err := u.strOffset(v.u); err == nil {
			n = u.img.wantStr[off]
		}
	case formString:
		if names[string(v.b)] {
			n = string(v.b)
		}
	}
	return n, n != ""
}

// ref is an entry in a loaded unit.
type ref struct {
	u   *unit
	off uint64
}

var errNoType = errors.New("no type")

// follow resolves a reference attribute of an entry of unit u.
func (x *extractor) follow(u *unit, v value) (ref, error) {
	switch v.form {
	case 0:
		return ref{}, errNoType
	case formRef1, formRef2, formRef4, formRef8, formRefUdata:
		if v.u >= u.end-u.start {
			return ref{}, fmt.Errorf("%s: .%s+%#x: %w", u.img.name, u.sec.name, v.u, errBounds)
		}
		return ref{u, u.start + v.u}, nil
	case formRefAddr:
		return x.inSection(u.img, &u.img.info, v.u)
	case formGNURefAlt, formRefSup4, formRefSup8:
		if u.img.alt == nil {
			return ref{}, u.img.noAlt()
		}
		return x.inSection(u.img.alt, &u.img.alt.info, v.u)
	case formRefSig8:
		for _, img := range []*image{u.img, u.img.alt} {
			if img == nil {
				continue
			}
			if t, ok := img.bySig[v.u]; ok {
				return ref{t, t.start + t.typeOff}, x.loaded(t)
			}
		}
		return ref{}, fmt.Errorf("%s: no type unit has signature %#x", u.img.name, v.u)
	}
	return ref{}, fmt.Errorf("%s: form %#x for a reference", u.img.name, v.form)
}

func (x *extractor) inSection(img *image, s *section, off uint64) (ref, error) {
	u, err := img.unitAt(s, off)
	if err != nil {
		return ref{}, err
	}
	return ref{u, off}, x.loaded(u)
}

// maxLoaded bounds the bytes of units that are kept beside the one that is
// scanned: link-time optimisation and dwz spread a type over several.
const maxLoaded = 32 << 20

// loaded brings a unit into memory and drops the others when they are many.
func (x *extractor) loaded(u *unit) error {
	if u.buf != nil {
		return nil
	}
	if x.loadedBytes += u.end - u.start; x.loadedBytes > maxLoaded {
		for _, o := range x.loadedUnits {
			if o != x.scanning {
				o.buf, o.abbrevs = nil, nil
			}
		}
		x.loadedUnits, x.loadedBytes = nil, u.end-u.start
	}
	if x.reloads++; x.reloads > maxReloads {
		return fmt.Errorf("%s: its types lie in more than %d units", u.img.name, maxReloads)
	}
	if err := u.load(nil); err != nil {
		return err
	}
	x.loadedUnits = append(x.loadedUnits, u)
	return nil
}

// maxReloads bounds the units that are read to follow references.
const maxReloads = 1 << 12

// get decodes the entry behind a reference.
func (x *extractor) get(r ref) (entry, error) {
	if x.steps++; x.steps > maxSteps {
		return entry{}, errSteps
	}
	// The unit may have been dropped since the reference was made.
	if err := x.loaded(r.u); err != nil {
		return entry{}, err
	}
	return r.u.entry(r.off)
}

// maxSteps bounds the entries that are decoded for one extraction: THD has
// 10^3 with its methods, and a structure is looked at a few times.
const maxSteps = 1 << 21

var errSteps = errors.New("types are nested too deeply or refer to each other too often")

// children visits the direct children of an entry until visit says stop.
func (x *extractor) children(r ref, e entry, visit func(ref, entry) (stop bool, err error)) error {
	if !e.children {
		return nil
	}
	depth := 0
	for off := e.after; ; {
		c, err := x.get(ref{r.u, off})
		if err != nil {
			return err
		}
		if c.tag == 0 {
			if depth == 0 {
				return nil
			}
			depth--
			off = c.after
			continue
		}
		if depth == 0 {
			if stop, err := visit(ref{r.u, off}, c); stop || err != nil {
				return err
			}
		}
		off = c.after
		if c.children {
			if next, ok := r.u.siblingOf(c); ok {
				off = next
			} else {
				depth++
			}
		}
	}
}

// siblingOf gives where the entry's DW_AT_sibling leads, if that is forward
// inside the unit.
func (u *unit) siblingOf(e entry) (uint64, bool) {
	switch e.sibling.form {
	case formRef1, formRef2, formRef4, formRef8, formRefUdata:
		next := u.start + e.sibling.u
		return next, e.sibling.u < u.end-u.start && next > e.after
	}
	return 0, false
}
