package coretest

import (
	"bytes"
	"compress/zlib"
	"sort"

	"github.com/klauspost/compress/zstd"
)

// Image describes a small 64-bit little-endian ELF file: one PT_LOAD (r-x) from
// offset 0 with headers, notes, dynamic symbols and text, and one (rw-) with the
// dynamic table. Link-time address = Base + file offset.
type Image struct {
	Machine  uint16 // 0 means AMD64
	Exec     bool   // ET_EXEC, else ET_DYN
	Base     uint64
	Interp   string
	Soname   string
	BuildID  []byte
	Text     []byte   // at TextOff
	Dynamic  []Symbol // .dynsym
	GNUHash  bool     // make DT_GNU_HASH
	SysVHash bool     // make DT_HASH
	Debug    uint64   // value of DT_DEBUG; the entry is there for every Exec or Interp
	Symbols  []Symbol // .symtab
	Sections []Section
	// NoSections leaves out the section header table.
	NoSections bool
	// BSS is how much longer the second segment is in memory, in bytes.
	BSS uint64
}

// Symbol is one symbol; Value is a link-time address.
type Symbol struct {
	Name        string
	Value, Size uint64
	Info        byte // 0 means global function
	Shndx       uint16
}

// Section is a section without address.
type Section struct {
	Name     string
	Data     []byte
	Type     uint32 // 0 means SHT_PROGBITS
	Compress string // "", "zlib" or "zstd"
}

// TextOff is the file offset of Image.Text.
const TextOff = 0x2000

// imageLayout is filled while an Image is built.
type imageLayout struct {
	out      []byte
	base     uint64
	phdrs    []phdr
	sections []rawSection
}

type rawSection struct {
	name                          string
	typ                           uint32
	flags, addr, off, size, entsz uint64
	link                          uint32
	data                          []byte
}

// DynamicOff returns the file offset of the dynamic table of the image.
func (im *Image) DynamicOff() int64 { return roundUp(TextOff + int64(len(im.Text))) }

// DebugOff returns the file offset of the value of DT_DEBUG.
func (im *Image) DebugOff() int64 { return im.DynamicOff() + 8 }

// Bytes builds the file. It panics when the part before the text grows beyond
// TextOff: tests call it with constants.
func (im *Image) Bytes() []byte {
	l := &imageLayout{base: im.Base, out: make([]byte, 64+9*phdrSize)}
	l.sections = append(l.sections, rawSection{})
	im.addNote(l)
	if im.Interp != "" {
		off := l.append(".interp", 1, append([]byte(im.Interp), 0), 1)
		l.phdrs = append(l.phdrs, phdr{typ: 3, flags: 4, off: off, vaddr: im.Base + off, filesz: uint64(len(im.Interp) + 1), memsz: uint64(len(im.Interp) + 1), align: 1})
	}
	dyn := im.addDynamicSymbols(l)
	if len(l.out) > TextOff {
		panic("coretest: too many dynamic symbols for the layout")
	}
	l.padTo(TextOff)
	l.append(".text", 1, im.Text, 16)
	textEnd := uint64(len(l.out))
	l.padTo(int(im.DynamicOff()))
	dynOff := uint64(len(l.out))
	l.append(".dynamic", 6, dyn, 8)
	l.phdrs = append(l.phdrs,
		phdr{typ: 1, flags: 5, vaddr: im.Base, filesz: textEnd, memsz: textEnd, align: pageSize},
		phdr{typ: 1, flags: 6, off: dynOff, vaddr: im.Base + dynOff, filesz: uint64(len(dyn)), memsz: uint64(len(dyn)) + im.BSS, align: pageSize},
		phdr{typ: 2, flags: 6, off: dynOff, vaddr: im.Base + dynOff, filesz: uint64(len(dyn)), memsz: uint64(len(dyn)), align: 8})
	im.addSymbols(l)
	for _, s := range im.Sections {
		l.addSection(s)
	}
	im.finish(l)
	return l.out
}

func (l *imageLayout) padTo(off int) {
	if n := off - len(l.out); n > 0 {
		l.out = append(l.out, make([]byte, n)...)
	}
}

// append places an allocated section and returns its offset.
func (l *imageLayout) append(name string, typ uint32, data []byte, align int) uint64 {
	l.padTo((len(l.out) + align - 1) / align * align)
	off := uint64(len(l.out))
	l.out = append(l.out, data...)
	l.sections = append(l.sections, rawSection{name: name, typ: typ, flags: 2, addr: l.base + off, off: off, size: uint64(len(data))})
	return off
}

func (im *Image) addNote(l *imageLayout) {
	if im.BuildID == nil {
		return
	}
	b := make([]byte, 12, 16+len(im.BuildID))
	le.PutUint32(b, 4)
	le.PutUint32(b[4:], uint32(len(im.BuildID)))
	le.PutUint32(b[8:], 3) // NT_GNU_BUILD_ID
	b = append(append(b, "GNU\x00"...), im.BuildID...)
	b = pad4(b)
	off := l.append(".note.gnu.build-id", 7, b, 4)
	l.phdrs = append(l.phdrs, phdr{typ: 4, flags: 4, off: off, vaddr: im.Base + off, filesz: uint64(len(b)), memsz: uint64(len(b)), align: 4})
}

func symbolBytes(s Symbol, name uint32) []byte {
	b := make([]byte, 24)
	le.PutUint32(b, name)
	b[4] = s.Info
	if s.Info == 0 {
		b[4] = 0x12
	}
	shndx := s.Shndx
	if shndx == 0 {
		shndx = 1
	}
	le.PutUint16(b[6:], shndx)
	le.PutUint64(b[8:], s.Value)
	le.PutUint64(b[16:], s.Size)
	return b
}

// Undefined is a Symbol.Shndx that makes the symbol undefined (0 means "in
// section 1" there, so that tests needn't say it).
const Undefined = 0xfffe

func tables(syms []Symbol) (tab, str []byte) {
	tab, str = make([]byte, 24), []byte{0}
	for _, s := range syms {
		b := symbolBytes(s, uint32(len(str)))
		if s.Shndx == Undefined {
			le.PutUint16(b[6:], 0)
		}
		tab = append(tab, b...)
		str = append(append(str, s.Name...), 0)
	}
	return tab, str
}

// addDynamicSymbols places .dynsym, .dynstr and the hash tables and returns the
// dynamic table.
func (im *Image) addDynamicSymbols(l *imageLayout) []byte {
	syms := append([]Symbol(nil), im.Dynamic...)
	const buckets = 3
	if im.GNUHash { // the table wants symbols ordered by bucket
		sort.SliceStable(syms, func(i, j int) bool { return gnuHash(syms[i].Name)%buckets < gnuHash(syms[j].Name)%buckets })
	}
	tab, str := tables(syms)
	soname := uint64(len(str))
	str = append(append(str, im.Soname...), 0)
	var dyn []byte
	if im.Exec || im.Interp != "" { // first, so that DebugOff is fixed
		dyn = append(dyn, words(21, im.Debug)...)
	}
	if im.Soname != "" {
		dyn = append(dyn, words(14, soname)...)
	}
	symOff := l.append(".dynsym", 11, tab, 8)
	l.sections[len(l.sections)-1].link = uint32(len(l.sections))
	l.sections[len(l.sections)-1].entsz = 24
	strOff := l.append(".dynstr", 3, str, 1)
	dyn = append(dyn, words(5, im.Base+strOff, 6, im.Base+symOff, 10, uint64(len(str)), 11, 24)...)
	if im.GNUHash {
		dyn = append(dyn, words(0x6ffffef5, im.Base+l.append(".gnu.hash", 0x6ffffff6, gnuHashTable(syms, buckets), 8))...)
	}
	if im.SysVHash {
		dyn = append(dyn, words(4, im.Base+l.append(".hash", 5, sysvHashTable(syms, buckets), 8))...)
	}
	return append(dyn, words(0, 0)...)
}

func gnuHash(s string) uint32 {
	h := uint32(5381)
	for _, c := range []byte(s) {
		h += h<<5 + uint32(c)
	}
	return h
}

func gnuHashTable(syms []Symbol, buckets uint32) []byte {
	const shift = 6
	var bloom uint64
	start := make([]uint32, buckets)
	chain := make([]uint32, len(syms))
	for i, s := range syms {
		h := gnuHash(s.Name)
		bloom |= 1<<(h%64) | 1<<(h>>shift%64)
		if start[h%buckets] == 0 {
			start[h%buckets] = uint32(i + 1)
		}
		chain[i] = h &^ 1
		if i+1 == len(syms) || gnuHash(syms[i+1].Name)%buckets != h%buckets {
			chain[i] |= 1
		}
	}
	b := le.AppendUint32(nil, buckets)
	b = le.AppendUint32(b, 1) // first hashed symbol
	b = le.AppendUint32(b, 1) // bloom words
	b = le.AppendUint32(b, shift)
	b = le.AppendUint64(b, bloom)
	for _, v := range append(start, chain...) {
		b = le.AppendUint32(b, v)
	}
	return b
}

func sysvHashTable(syms []Symbol, buckets uint32) []byte {
	start := make([]uint32, buckets)
	chain := make([]uint32, len(syms)+1)
	for i, s := range syms {
		h := uint32(0)
		for _, c := range []byte(s.Name) {
			h = h<<4 + uint32(c)
			g := h & 0xf0000000
			h = (h ^ g>>24) &^ g
		}
		chain[i+1] = start[h%buckets]
		start[h%buckets] = uint32(i + 1)
	}
	b := le.AppendUint32(nil, buckets)
	b = le.AppendUint32(b, uint32(len(chain)))
	for _, v := range append(start, chain...) {
		b = le.AppendUint32(b, v)
	}
	return b
}

func (im *Image) addSymbols(l *imageLayout) {
	if im.Symbols == nil {
		return
	}
	tab, str := tables(im.Symbols)
	at := len(l.sections)
	l.addSection(Section{Name: ".symtab", Type: 2, Data: tab})
	l.sections[at].link, l.sections[at].entsz = uint32(at+1), 24
	l.addSection(Section{Name: ".strtab", Type: 3, Data: str})
}

// addSection places a section that isn't loaded.
func (l *imageLayout) addSection(s Section) {
	r := rawSection{name: s.Name, typ: s.Type, data: s.Data}
	if r.typ == 0 {
		r.typ = 1
	}
	if s.Compress != "" {
		r.flags, r.data = 0x800, compressed(s.Compress, s.Data)
	}
	l.padTo((len(l.out) + 7) &^ 7)
	r.off, r.size = uint64(len(l.out)), uint64(len(r.data))
	l.out = append(l.out, r.data...)
	l.sections = append(l.sections, r)
}

// compressed is the contents of an SHF_COMPRESSED section.
func compressed(how string, data []byte) []byte {
	var out bytes.Buffer
	switch how {
	case "zlib":
		out.Write(words(1, uint64(len(data)), 1))
		w := zlib.NewWriter(&out)
		w.Write(data)
		w.Close()
	case "zstd":
		out.Write(words(2, uint64(len(data)), 1))
		w, err := zstd.NewWriter(&out)
		if err != nil {
			panic(err)
		}
		w.Write(data)
		w.Close()
	}
	return out.Bytes()
}

// finish writes the ELF header, program headers and section headers.
func (im *Image) finish(l *imageLayout) {
	copy(l.out, "\x7fELF\x02\x01\x01")
	typ := uint16(3)
	if im.Exec {
		typ = 2
	}
	machine := im.Machine
	if machine == 0 {
		machine = AMD64
	}
	le.PutUint16(l.out[16:], typ)
	le.PutUint16(l.out[18:], machine)
	le.PutUint32(l.out[20:], 1)
	le.PutUint64(l.out[24:], im.Base+TextOff)
	le.PutUint64(l.out[32:], ehdrSize)
	le.PutUint16(l.out[52:], ehdrSize)
	le.PutUint16(l.out[54:], phdrSize)
	// PT_PHDR comes first.
	table := append([]phdr{{typ: 6, flags: 4, off: ehdrSize, vaddr: im.Base + ehdrSize, align: 8}}, l.phdrs...)
	table[0].filesz = uint64(len(table) * phdrSize)
	table[0].memsz = table[0].filesz
	le.PutUint16(l.out[56:], uint16(len(table)))
	for i, p := range table {
		copy(l.out[ehdrSize+i*phdrSize:], p.bytes())
	}
	if im.NoSections {
		return
	}
	names := []byte{0}
	l.sections = append(l.sections, rawSection{name: ".shstrtab", typ: 3})
	var heads []byte
	strAt := len(l.sections) - 1
	for i := range l.sections {
		s := &l.sections[i]
		h := make([]byte, shdrSize)
		if s.name != "" {
			le.PutUint32(h, uint32(len(names)))
			names = append(append(names, s.name...), 0)
		}
		if i == strAt {
			s.off, s.size = uint64(len(l.out)), uint64(len(names))
		}
		le.PutUint32(h[4:], s.typ)
		le.PutUint64(h[8:], s.flags)
		le.PutUint64(h[16:], s.addr)
		le.PutUint64(h[24:], s.off)
		le.PutUint64(h[32:], s.size)
		le.PutUint32(h[40:], s.link)
		le.PutUint64(h[48:], 1)
		le.PutUint64(h[56:], s.entsz)
		heads = append(heads, h...)
	}
	l.out = append(l.out, names...)
	l.padTo((len(l.out) + 7) &^ 7)
	le.PutUint64(l.out[40:], uint64(len(l.out)))
	le.PutUint16(l.out[58:], shdrSize)
	le.PutUint16(l.out[60:], uint16(len(l.sections)))
	le.PutUint16(l.out[62:], uint16(strAt))
	l.out = append(l.out, heads...)
}

// Debuglink is the contents of .gnu_debuglink.
func Debuglink(name string, crc uint32) []byte {
	return le.AppendUint32(pad4(append([]byte(name), 0)), crc)
}
