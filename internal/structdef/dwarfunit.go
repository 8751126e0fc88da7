package structdef

import (
	"errors"
	"fmt"
	"sort"

	"mycore/internal/elfimage"
)

// Tags, attributes and forms of DWARF 5 sections 7.5.3 to 7.5.6, and the GNU
// extensions that dwz and old gcc write. Only those that are read are named.
const (
	tagArray         = 0x01
	tagClass         = 0x02
	tagEnum          = 0x04
	tagMember        = 0x0d
	tagPointer       = 0x0f
	tagReference     = 0x10
	tagCompileUnit   = 0x11
	tagStruct        = 0x13
	tagSubroutine    = 0x15
	tagTypedef       = 0x16
	tagUnion         = 0x17
	tagInheritance   = 0x1c
	tagPtrToMember   = 0x1f
	tagSubrange      = 0x21
	tagBase          = 0x24
	tagConst         = 0x26
	tagVolatile      = 0x35
	tagRestrict      = 0x37
	tagNamespace     = 0x39
	tagPartialUnit   = 0x3c
	tagTypeUnit      = 0x41
	tagRvalueRef     = 0x42
	tagAtomic        = 0x47
	tagSkeletonUnit  = 0x4a
	atSibling        = 0x01
	atName           = 0x03
	atByteSize       = 0x0b
	atBitOffset      = 0x0c // up to DWARF 3
	atBitSize        = 0x0d
	atUpperBound     = 0x2f
	atCount          = 0x37
	atMemberLocation = 0x38
	atDeclaration    = 0x3c
	atEncoding       = 0x3e
	atExternal       = 0x3f // a static member, up to DWARF 4
	atSpecification  = 0x47
	atType           = 0x49
	atSignature      = 0x69
	atDataBitOffset  = 0x6b
	atStrOffsetsBase = 0x72
	atDwoName        = 0x76
	atGNUDwoName     = 0x2130

	formAddr         = 0x01
	formBlock2       = 0x03
	formBlock4       = 0x04
	formData2        = 0x05
	formData4        = 0x06
	formData8        = 0x07
	formString       = 0x08
	formBlock        = 0x09
	formBlock1       = 0x0a
	formData1        = 0x0b
	formFlag         = 0x0c
	formSdata        = 0x0d
	formStrp         = 0x0e
	formUdata        = 0x0f
	formRefAddr      = 0x10
	formRef1         = 0x11
	formRef2         = 0x12
	formRef4         = 0x13
	formRef8         = 0x14
	formRefUdata     = 0x15
	formIndirect     = 0x16
	formSecOffset    = 0x17
	formExprloc      = 0x18
	formFlagPresent  = 0x19
	formStrx         = 0x1a
	formAddrx        = 0x1b
	formRefSup4      = 0x1c
	formStrpSup      = 0x1d
	formData16       = 0x1e
	formLineStrp     = 0x1f
	formRefSig8      = 0x20
	formImplicit     = 0x21
	formLoclistx     = 0x22
	formRnglistx     = 0x23
	formRefSup8      = 0x24
	formStrx1        = 0x25
	formStrx2        = 0x26
	formStrx3        = 0x27
	formStrx4        = 0x28
	formAddrx1       = 0x29
	formAddrx2       = 0x2a
	formAddrx3       = 0x2b
	formAddrx4       = 0x2c
	formGNUAddrIndex = 0x1f01
	formGNUStrIndex  = 0x1f02
	formGNURefAlt    = 0x1f20
	formGNUStrpAlt   = 0x1f21

	utType      = 0x02
	utSkeleton  = 0x04
	utSplit     = 0x05
	utSplitType = 0x06
)

// Limits of a file's DWARF.
const (
	// maxUnits: Chromium has 10^5 units with type units.
	maxUnits = 1 << 20
	// maxUnit bounds one unit in bytes: link-time optimisation makes units of
	// tens of MiB.
	maxUnit = 256 << 20
	// maxAbbrevs and maxAttrs bound one abbreviation table; dwz's have 10^4.
	maxAbbrevs = 1 << 17
	maxAttrs   = 1 << 10
)

// image is the DWARF of one file. It is read here and not by debug/dwarf, which
// wants whole sections in memory, allocates for every entry that it passes, and
// gives a reference into a dwz file the type void without a word.
type image struct {
	name                                          string
	info, types, abbrev, str, lineStr, strOffsets section
	units                                         []*unit // .debug_info by offset, then .debug_types
	nInfo                                         int     // units of .debug_info
	bySig                                         map[uint64]*unit
	alt                                           *image
	altErr                                        error // why alt is nil
	usesAlt                                       bool  // refers to an alternate file
	usesDwo                                       bool
	wantStr, wantLine                             map[uint64]string
	tables                                        map[tableKey]*abbrevTable
	parsed                                        uint64 // bytes of abbreviations decoded
}

// unit is one compilation, partial or type unit. Offsets are those of its section.
type unit struct {
	img        *image
	sec        *section
	start, end uint64
	first      uint64 // its first entry
	abbrevOff  uint64
	version    uint16
	addrSize   uint8
	offSize    uint8
	kind       uint8
	sig        uint64
	typeOff    uint64 // from start, of a type unit

	buf        []byte // the unit from start to end, once loaded
	abbrevs    *abbrevTable
	strOffBase uint64
}

// openImage reads the unit headers of a file's DWARF.
func openImage(f *elfimage.File) (*image, error) {
	return newImage(f.Name(), func(name string) (section, error) { return openSection(f, name) })
}

// newImage is openImage of any source of sections.
func newImage(file string, open func(name string) (section, error)) (*image, error) {
	img := &image{name: file, bySig: map[uint64]*unit{}, tables: map[tableKey]*abbrevTable{}}
	for _, s := range []struct {
		at   *section
		name string
	}{{&img.info, "debug_info"}, {&img.types, "debug_types"}, {&img.abbrev, "debug_abbrev"},
		{&img.str, "debug_str"}, {&img.lineStr, "debug_line_str"}, {&img.strOffsets, "debug_str_offsets"}} {
		var err error
		if *s.at, err = open(s.name); err != nil {
			return nil, err
		}
	}
	if img.info.size == 0 {
		return nil, fmt.Errorf("%s: %w", file, ErrNoDWARF)
	}
	if err := img.readUnits(&img.info); err != nil {
		return nil, err
	}
	img.nInfo = len(img.units)
	if err := img.readUnits(&img.types); err != nil {
		return nil, err
	}
	return img, nil
}

// readUnits lists the units of a section. A broken header ends the list with
// an error: what follows can't be found.
func (img *image) readUnits(s *section) error {
	var buf [40]byte
	for off := uint64(0); off < s.size; {
		b, err := s.slice(off, min(uint64(len(buf)), s.size-off), buf[:])
		if err != nil {
			return fmt.Errorf("%s: %w", img.name, err)
		}
		u, err := parseHeader(b, s, off)
		if err != nil {
			return fmt.Errorf("%s: unit at .%s+%#x: %w", img.name, s.name, off, err)
		}
		u.img = img
		if len(img.units) >= maxUnits {
			return fmt.Errorf("%s: more than %d units", img.name, maxUnits)
		}
		img.units = append(img.units, u)
		if u.typeOff != 0 {
			if _, ok := img.bySig[u.sig]; !ok {
				img.bySig[u.sig] = u
			}
		}
		off = u.end
	}
	return nil
}

// parseHeader reads a unit header (DWARF 5 section 7.5.1; before version 5 the
// fields have another order, and .debug_types has units of its own).
func parseHeader(b []byte, s *section, off uint64) (*unit, error) {
	c := &cursor{b: b}
	u := &unit{sec: s, start: off, offSize: 4}
	length := c.uint(4)
	if length == 0xffffffff {
		u.offSize = 8
		length = c.uint(8)
	}
	if c.err != nil || length > s.size-off-c.pos {
		return nil, fmt.Errorf("length %#x: %w", length, errBounds)
	}
	u.end = off + c.pos + length
	u.version = uint16(c.uint(2))
	switch {
	case u.version >= 2 && u.version <= 4:
		u.abbrevOff = c.uint(uint64(u.offSize))
		u.addrSize = uint8(c.u8())
		if s.name == "debug_types" {
			u.kind = utType
		}
	case u.version == 5:
		u.kind = uint8(c.u8())
		u.addrSize = uint8(c.u8())
		u.abbrevOff = c.uint(uint64(u.offSize))
	default:
		return nil, fmt.Errorf("DWARF version %d: only 2 to 5 are read", u.version)
	}
	switch u.kind {
	case utType, utSplitType:
		u.sig = c.uint(8)
		u.typeOff = c.uint(uint64(u.offSize))
	case utSkeleton, utSplit:
		c.skip(8) // the DWO id
	}
	u.first = off + c.pos
	if c.err != nil || u.first > u.end || u.addrSize == 0 || u.addrSize > 8 || u.end-off > maxUnit {
		return nil, errors.New("malformed header")
	}
	return u, nil
}

// unitAt finds the unit of a section that holds off.
func (img *image) unitAt(s *section, off uint64) (*unit, error) {
	list := img.units[:img.nInfo]
	if s == &img.types {
		list = img.units[img.nInfo:]
	}
	i := sort.Search(len(list), func(i int) bool { return list[i].end > off })
	if i == len(list) || off < list[i].first {
		return nil, fmt.Errorf("%s: .%s+%#x: %w", img.name, s.name, off, errBounds)
	}
	return list[i], nil
}

// load brings the unit's bytes and abbreviations into memory; buf is used for
// the bytes where it is long enough.
func (u *unit) load(buf []byte) error {
	err := u.read(buf)
	if err != nil {
		u.buf, u.abbrevs = nil, nil
	}
	return err
}

func (u *unit) read(buf []byte) error {
	b, err := u.sec.slice(u.start, u.end-u.start, buf)
	if err != nil {
		return fmt.Errorf("%s: %w", u.img.name, err)
	}
	u.buf = b
	if u.abbrevs, err = u.img.table(u); err != nil {
		return fmt.Errorf("%s: %w", u.img.name, err)
	}
	u.strOffBase = 8 // behind the header of a table for one unit, DWARF 5 section 7.26
	if u.offSize == 8 {
		u.strOffBase = 16
	}
	root, err := u.entry(u.first)
	if err != nil {
		return err
	}
	if root.strBase.ok() {
		u.strOffBase = root.strBase.u
	}
	if root.dwo {
		u.img.usesDwo = true
	}
	return nil
}

// attr is one attribute of an abbreviation.
type attr struct {
	at, form uint16
	implicit int64
}

// abbrev is one entry shape. skip is how many bytes the attributes take where
// that is the same for every entry.
type abbrev struct {
	tag      uint16
	children bool
	sibling  bool // has DW_AT_sibling
	fixed    bool
	skip     uint64
	attrs    []attr
}

// abbrevTable is one table of .debug_abbrev, for units of one version and one
// size of addresses and offsets.
type abbrevTable struct {
	dense  []abbrev // by code - 1
	sparse map[uint64]*abbrev
	bytes  uint64 // of the table in the file
	alt    bool   // some form refers to an alternate file
}

type tableKey struct {
	off               uint64
	version           uint16
	addrSize, offSize uint8
}

func (t *abbrevTable) get(code uint64) *abbrev {
	if code-1 < uint64(len(t.dense)) {
		return &t.dense[code-1]
	}
	return t.sparse[code]
}

// maxTables bounds the tables that are kept: every unit of gcc's has its own,
// dwz and type units share them.
const maxTables = 64

// abbrevRereads bounds the work on hostile abbreviation tables that overlap.
const abbrevRereads = 16

// table reads the abbreviation table of a unit (DWARF 5 section 7.5.3).
func (img *image) table(u *unit) (*abbrevTable, error) {
	off := u.abbrevOff
	key := tableKey{off, u.version, u.addrSize, u.offSize}
	if t, ok := img.tables[key]; ok {
		return t, nil
	}
	if off >= img.abbrev.size {
		return nil, fmt.Errorf(".debug_abbrev+%#x: %w", off, errBounds)
	}
	for n := uint64(16 << 10); ; n *= 4 {
		n = min(n, img.abbrev.size-off)
		b, err := img.abbrev.slice(off, n, nil)
		if err != nil {
			return nil, err
		}
		t, err := parseTable(b)
		if errors.Is(err, errBounds) && n < img.abbrev.size-off && n < maxUnit {
			continue // it is longer
		}
		if err != nil {
			return nil, fmt.Errorf("abbreviations at .debug_abbrev+%#x: %w", off, err)
		}
		// Tables are decoded once or, shared by distant units, a few times.
		if img.parsed += t.bytes; img.parsed/abbrevRereads > img.abbrev.size+1<<20 {
			return nil, fmt.Errorf(".debug_abbrev is referred to in more than %d ways", abbrevRereads)
		}
		img.usesAlt = img.usesAlt || t.alt
		if len(img.tables) >= maxTables {
			clear(img.tables)
		}
		if err := t.prepare(u); err != nil {
			return nil, err
		}
		img.tables[key] = t
		return t, nil
	}
}

func usesAlt(form uint16) bool {
	switch form {
	case formGNURefAlt, formGNUStrpAlt, formRefSup4, formRefSup8, formStrpSup:
		return true
	}
	return false
}

func parseTable(b []byte) (*abbrevTable, error) {
	c := &cursor{b: b}
	t := &abbrevTable{}
	arena := make([]attr, 0, 256)
	for n := 0; ; n++ {
		code := c.uleb()
		if c.err != nil {
			return nil, c.err
		}
		if code == 0 {
			t.bytes = c.pos
			return t, nil
		}
		if n >= maxAbbrevs {
			return nil, fmt.Errorf("more than %d abbreviations", maxAbbrevs)
		}
		a := abbrev{tag: uint16(min(c.uleb(), 0xffff)), children: c.u8() != 0}
		from := len(arena)
		for {
			at, form := c.uleb(), c.uleb()
			if c.err != nil {
				return nil, c.err
			}
			if at == 0 && form == 0 {
				break
			}
			x := attr{at: uint16(min(at, 0xffff)), form: uint16(min(form, 0xffff))}
			if form == formImplicit {
				x.implicit = c.sleb()
			}
			if len(arena)-from >= maxAttrs {
				return nil, fmt.Errorf("more than %d attributes", maxAttrs)
			}
			arena = append(arena, x)
			t.alt = t.alt || usesAlt(x.form)
			a.sibling = a.sibling || at == atSibling
		}
		a.attrs = arena[from:len(arena):len(arena)]
		if code == uint64(len(t.dense))+1 {
			t.dense = append(t.dense, a)
			continue
		}
		if t.sparse == nil {
			t.sparse = map[uint64]*abbrev{}
		}
		t.sparse[code] = &a
	}
}

// prepare computes what the scan needs for units with u's sizes.
func (t *abbrevTable) prepare(u *unit) error {
	for i := range t.dense {
		if err := t.dense[i].prepare(u); err != nil {
			return err
		}
	}
	for _, a := range t.sparse {
		if err := a.prepare(u); err != nil {
			return err
		}
	}
	return nil
}

func (a *abbrev) prepare(u *unit) error {
	a.fixed, a.skip = true, 0
	for _, x := range a.attrs {
		n, fixed, known := formSize(x.form, u)
		if !known {
			return fmt.Errorf("unknown form %#x of attribute %#x", x.form, x.at)
		}
		a.fixed = a.fixed && fixed
		a.skip += n
	}
	return nil
}

// formSize gives the bytes that a form takes in unit u, where all its values
// take the same (DWARF 5 section 7.5.6).
func formSize(form uint16, u *unit) (n uint64, fixed, known bool) {
	switch form {
	case formFlagPresent, formImplicit:
		return 0, true, true
	case formData1, formRef1, formFlag, formStrx1, formAddrx1:
		return 1, true, true
	case formData2, formRef2, formStrx2, formAddrx2:
		return 2, true, true
	case formStrx3, formAddrx3:
		return 3, true, true
	case formData4, formRef4, formStrx4, formAddrx4, formRefSup4:
		return 4, true, true
	case formData8, formRef8, formRefSig8, formRefSup8:
		return 8, true, true
	case formData16:
		return 16, true, true
	case formAddr:
		return uint64(u.addrSize), true, true
	case formRefAddr:
		if u.version == 2 { // DWARF 2 section 7.5.4: the size of an address
			return uint64(u.addrSize), true, true
		}
		return uint64(u.offSize), true, true
	case formStrp, formSecOffset, formLineStrp, formStrpSup, formGNURefAlt, formGNUStrpAlt:
		return uint64(u.offSize), true, true
	case formBlock1, formBlock2, formBlock4, formBlock, formExprloc, formString, formSdata, formUdata,
		formRefUdata, formIndirect, formStrx, formAddrx, formLoclistx, formRnglistx, formGNUAddrIndex, formGNUStrIndex:
		return 0, false, true
	}
	return 0, false, false
}

// skipForm moves c over a value.
func skipForm(c *cursor, form uint16, u *unit) {
	for range 4 { // an indirect form may name another one; more than once is nonsense
		if n, fixed, known := formSize(form, u); fixed {
			c.skip(n)
			return
		} else if !known {
			c.fail()
			return
		}
		switch form {
		case formString:
			c.str()
		case formBlock1:
			c.skip(c.u8())
		case formBlock2:
			c.skip(c.uint(2))
		case formBlock4:
			c.skip(c.uint(4))
		case formBlock, formExprloc:
			c.skip(c.uleb())
		case formIndirect:
			form = uint16(min(c.uleb(), 0xffff))
			continue
		default:
			c.uleb()
		}
		return
	}
	c.fail()
}
