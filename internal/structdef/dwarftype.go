package structdef

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// maxTypeDepth bounds chains of typedefs, qualifiers and array elements.
	maxTypeDepth = 64
	// maxEmbedDepth bounds base classes and anonymous unions inside each other.
	maxEmbedDepth = 16
	// maxMembers bounds one class with its methods.
	maxMembers = 1 << 14
)

// member is a data member or a base class of a structure.
type member struct {
	name     string
	offset   uint64 // bytes
	bit      uint8  // of a bit field
	bits     uint8
	typ      ref
	typErr   error // why typ is empty
	embedded bool  // base class or anonymous: its members are the structure's
	inUnion  bool
	err      error // why the place isn't known
}

// place is a step's result on the way along a path.
type place struct {
	member
	offset uint64 // from the outermost structure
	union  string
}

type refKey struct {
	u   *unit
	off uint64
}

// strip follows typedefs and qualifiers.
func (x *extractor) strip(r ref) (ref, entry, error) {
	for range maxTypeDepth {
		e, err := x.get(r)
		if err != nil {
			return r, e, err
		}
		switch e.tag {
		case tagTypedef, tagConst, tagVolatile, tagRestrict, tagAtomic:
			if !e.typ.ok() {
				return r, e, nil // const void
			}
			if r, err = x.follow(r.u, e.typ); err != nil {
				return r, e, err
			}
		default:
			return r, e, nil
		}
	}
	return r, entry{}, errSteps
}

// definition gives the full entry of a structure that may be declared only:
// in the type unit of its signature, or under its name elsewhere in the file.
func (x *extractor) definition(r ref, e entry) (ref, entry, error) {
	// gcc's reference to a type unit is an entry with a signature alone.
	if !e.declaration && (!e.sig.ok() || e.size.ok()) {
		return r, e, nil
	}
	if e.sig.ok() {
		d, err := x.follow(r.u, e.sig)
		if err != nil {
			return r, e, err
		}
		de, err := x.get(d)
		if err == nil && de.declaration {
			err = errSteps
		}
		return d, de, err
	}
	name, err := r.u.text(e.name)
	if err != nil {
		return r, e, err
	}
	if d, ok := x.found[name]; ok {
		de, err := x.get(d)
		return d, de, err
	}
	x.undefined[name] = true
	return r, e, fmt.Errorf("type %q is only declared where it is used", name)
}

func isStruct(tag uint16) bool { return tag == tagStruct || tag == tagClass || tag == tagUnion }

// members lists the data members and bases of a structure's definition, once.
func (x *extractor) members(r ref, e entry) ([]member, error) {
	key := refKey(r)
	if m, ok := x.memberLists[key]; ok {
		return m, nil
	}
	var out []member
	err := x.children(r, e, func(c ref, ce entry) (bool, error) {
		if ce.tag != tagMember && ce.tag != tagInheritance || ce.external {
			return false, nil
		}
		if len(out) >= maxMembers {
			return true, fmt.Errorf("more than %d members", maxMembers)
		}
		m, err := x.member(c, ce, e.tag == tagUnion)
		if err != nil {
			return true, err
		}
		out = append(out, m)
		return false, nil
	})
	if err == nil {
		x.memberLists[key] = out
	}
	return out, err
}

func (x *extractor) member(r ref, e entry, inUnion bool) (member, error) {
	name, err := r.u.text(e.name)
	if err != nil {
		return member{}, err
	}
	m := member{name: name, inUnion: inUnion, embedded: e.tag == tagInheritance || name == ""}
	m.typ, m.typErr = x.follow(r.u, e.typ)
	m.offset, m.err = memberOffset(e.loc)
	if e.bitSize.ok() && m.err == nil {
		m.err = x.bitField(e, &m)
	}
	return m, nil
}

// memberOffset decodes DW_AT_data_member_location: a constant, or up to
// DWARF 3 an expression that adds one to the structure's address.
func memberOffset(v value) (uint64, error) {
	if !v.ok() {
		return 0, nil // of a union, or the first member (DWARF 5 section 5.7.6)
	}
	if u, ok := v.constant(); ok {
		if u > MaxStructSize {
			return 0, fmt.Errorf("offset %#x", u)
		}
		return u, nil
	}
	const opConstu, opPlusUconst, opPlus = 0x10, 0x23, 0x22
	c := &cursor{b: v.b}
	op := c.u8()
	u := c.uleb()
	if op == opConstu {
		if c.u8() != opPlus {
			c.fail()
		}
	} else if op != opPlusUconst {
		c.fail()
	}
	if c.err != nil || c.pos != uint64(len(v.b)) || u > MaxStructSize {
		return 0, errors.New("the place isn't constant (virtual base class)")
	}
	return u, nil
}

// bitField works out where the bits lie on a little-endian machine. DWARF 4
// and 5 count from the start of the structure; before, from the highest bit of
// a storage unit.
func (x *extractor) bitField(e entry, m *member) error {
	size, _ := e.bitSize.constant()
	if size == 0 || size > 64 {
		return fmt.Errorf("bit field of %d bits", size)
	}
	bit := m.offset * 8
	switch {
	case e.dataBit.ok():
		d, ok := e.dataBit.constant()
		if !ok || d > MaxStructSize*8 {
			return errors.New("bit field without a constant place")
		}
		bit += d
	case e.bitOffset.ok():
		storage, ok := e.size.constant()
		if !ok {
			if m.typErr != nil {
				return m.typErr
			}
			d, err := x.describe(m.typ)
			if err != nil {
				return err
			}
			storage = d.size
		}
		high, _ := e.bitOffset.constant()
		if storage == 0 || storage > 16 || high > storage*8 || size > storage*8-high {
			return errors.New("bit field outside its storage unit")
		}
		bit += storage*8 - high - size
	}
	m.offset, m.bit, m.bits = bit/8, uint8(bit%8), uint8(size)
	return nil
}

// lookup finds a member by its name, in the structure itself, then in its
// anonymous members and base classes, as C++ does.
func (x *extractor) lookup(r ref, name string, at place, depth int) (place, bool, error) {
	r, e, err := x.strip(r)
	if err != nil {
		return at, false, err
	}
	if !isStruct(e.tag) {
		return at, false, nil
	}
	if r, e, err = x.definition(r, e); err != nil {
		return at, false, err
	}
	list, err := x.members(r, e)
	if err != nil {
		return at, false, err
	}
	for _, m := range list {
		if m.name == name {
			return at.step(m, name), true, m.err
		}
	}
	if depth >= maxEmbedDepth {
		return at, false, errSteps
	}
	var unknown error // of a base that can't be looked into
	for _, m := range list {
		if !m.embedded {
			continue
		}
		if m.typErr != nil {
			unknown = m.typErr
			continue
		}
		p, ok, err := x.lookup(m.typ, name, at.step(m, fmt.Sprintf("anonymous@%#x", at.offset+m.offset)), depth+1)
		if ok && m.err != nil {
			err = m.err
		}
		if ok || errors.Is(err, errSteps) {
			return p, ok, err
		}
		if err != nil {
			unknown = err
		}
	}
	return at, false, unknown
}

// step goes from a structure at p into its member m. The union that a place
// lies in is named by the path to the union and, for what follows, stays.
func (p place) step(m member, name string) place {
	union := p.union
	if m.inUnion && union == "" {
		union = fmt.Sprintf("union@%#x", p.offset)
	}
	return place{member: m, offset: p.offset + m.offset, union: union}
}

// errNoField: the structure has no such member; a wanted field may have
// other names.
var errNoField = errors.New("no such field")

// field follows a path through a structure.
func (x *extractor) field(r ref, path string) (Field, error) {
	p := place{}
	at := r
	parts := strings.Split(path, ".")
	for i, name := range parts {
		q, ok, err := x.lookup(at, name, p, 0)
		if err != nil {
			return Field{}, err
		}
		if !ok {
			return Field{}, fmt.Errorf("%w %q", errNoField, path)
		}
		if q.typErr != nil {
			return Field{}, q.typErr
		}
		if q.offset > MaxStructSize {
			return Field{}, fmt.Errorf("offset %#x", q.offset)
		}
		p, at = q, q.typ
		if i < len(parts)-1 && p.bits != 0 {
			return Field{}, fmt.Errorf("%w %q", errNoField, path)
		}
	}
	d, err := x.describe(at)
	if err != nil {
		return Field{}, err
	}
	f := Field{Offset: p.offset, Size: d.size, Kind: d.kind, Type: d.spelling, Count: d.count,
		BitOffset: p.bit, BitSize: p.bits, Union: p.union, Source: "dwarf"}
	if p.bits != 0 {
		f.Size = (uint64(p.bit) + uint64(p.bits) + 7) / 8
	}
	return f, nil
}

// description is what reading a field needs to know of its type.
type description struct {
	kind     Kind
	size     uint64
	count    uint64
	spelling string
}

// describe gives kind, size and spelling of a type.
func (x *extractor) describe(r ref) (description, error) {
	spelling, err := x.spell(r, 0)
	if err != nil {
		return description{}, err
	}
	r, e, err := x.strip(r)
	if err != nil {
		return description{}, err
	}
	d := description{spelling: spelling}
	d.size, _ = e.size.constant()
	switch e.tag {
	case tagPointer, tagReference, tagRvalueRef, tagPtrToMember:
		d.kind = KindPointer
		if d.size == 0 {
			d.size = uint64(r.u.addrSize)
		}
	case tagBase:
		d.kind = baseKind(e)
	case tagEnum:
		d.kind = KindEnum
		if e.sig.ok() {
			if _, e, err = x.definition(r, e); err != nil {
				return d, err
			}
			d.size, _ = e.size.constant()
		}
	case tagArray:
		err = x.describeArray(r, e, &d)
	case tagStruct, tagClass, tagUnion:
		err = x.describeStruct(r, e, &d)
	default:
		err = fmt.Errorf("type with tag %#x has no size", e.tag)
	}
	if err == nil && (d.size == 0 || d.size > MaxStructSize) {
		err = fmt.Errorf("type %q has size %d", spelling, d.size)
	}
	return d, err
}

// baseKind reads DW_AT_encoding (DWARF 5 section 7.8).
func baseKind(e entry) Kind {
	v, _ := e.encoding.constant()
	switch v {
	case 0x02:
		return KindBool
	case 0x03, 0x04, 0x0f:
		return KindFloat
	case 0x07, 0x08, 0x10, 0x11, 0x12: // unsigned, unsigned char, UTF, UCS, ASCII
		return KindUint
	}
	return KindInt
}

func (x *extractor) describeStruct(r ref, e entry, d *description) error {
	r, e, err := x.definition(r, e)
	if err != nil {
		return err
	}
	d.size, _ = e.size.constant()
	d.kind = KindStruct
	if e.tag == tagUnion {
		d.kind = KindUnion
		return nil
	}
	// LEX_STRING, LEX_CSTRING (include/m_string.h): char *str; size_t length.
	if d.size != 16 {
		return nil
	}
	list, err := x.members(r, e)
	if err != nil || len(list) != 2 {
		return err
	}
	if list[0].name == "str" && list[1].name == "length" && list[1].offset == 8 {
		d.kind = KindLexString
	}
	return nil
}

// describeArray multiplies the dimensions. An array of one-byte characters is
// text.
func (x *extractor) describeArray(r ref, e entry, d *description) error {
	if x.depth++; x.depth > maxTypeDepth {
		return errSteps
	}
	defer func() { x.depth-- }()
	elem, err := x.follow(r.u, e.typ)
	if err != nil {
		return err
	}
	of, err := x.describe(elem)
	if err != nil {
		return err
	}
	d.count = 1
	dims := 0
	err = x.children(r, e, func(_ ref, c entry) (bool, error) {
		if c.tag != tagSubrange {
			return false, nil
		}
		n, ok := c.count.constant()
		if !ok {
			if n, ok = c.upper.constant(); ok {
				n++
			}
		}
		if !ok || n == 0 || n > MaxStructSize {
			return true, errors.New("array without a fixed size")
		}
		dims++
		if d.count *= n; d.count > MaxStructSize {
			return true, fmt.Errorf("array of %d elements", d.count)
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if dims == 0 {
		return errors.New("array without a fixed size")
	}
	d.kind = KindArray
	if size, ok := e.size.constant(); ok {
		d.size = size
	} else {
		d.size = d.count * of.size
	}
	if of.size == 1 && (of.kind == KindInt || of.kind == KindUint) {
		d.kind = KindCharArray
	}
	if of.count != 0 {
		d.count *= of.count
	}
	return nil
}

// unnamed stands for a type without a name.
func unnamed(tag uint16) string {
	switch tag {
	case tagStruct, tagClass:
		return "struct {...}"
	case tagUnion:
		return "union {...}"
	case tagEnum:
		return "enum {...}"
	case tagSubroutine:
		return "function"
	}
	return "void"
}

// spell writes a type the way C does, for people.
func (x *extractor) spell(r ref, depth int) (string, error) {
	if depth > maxTypeDepth {
		return "", errSteps
	}
	e, err := x.get(r)
	if err != nil {
		return "", err
	}
	switch e.tag {
	case tagPointer, tagReference, tagRvalueRef, tagConst, tagVolatile, tagArray:
	default:
		name, err := r.u.text(e.name)
		if name == "" {
			name = unnamed(e.tag)
		}
		return name[:min(len(name), maxName)], err
	}
	inner := "void"
	if e.typ.ok() {
		to, err := x.follow(r.u, e.typ)
		if err != nil {
			return "", err
		}
		if inner, err = x.spell(to, depth+1); err != nil {
			return "", err
		}
	}
	switch e.tag {
	case tagPointer:
		return inner + " *", nil
	case tagReference:
		return inner + " &", nil
	case tagRvalueRef:
		return inner + " &&", nil
	case tagArray:
		return inner + " []", nil
	case tagConst:
		if strings.HasSuffix(inner, "*") {
			return inner + "const", nil
		}
		return "const " + inner, nil
	}
	return "volatile " + inner, nil
}
