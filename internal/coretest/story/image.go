package story

import (
	"bytes"
	"fmt"
	"sort"
)

// object is a variable in .data.
type object struct {
	name   string
	size   int
	value  []byte
	local  bool // not exported
	offset uint64
}

// image is one small ELF file, linked by build.
type image struct {
	path    string // recorded path
	soname  string
	base    uint64 // run-time address of its first byte
	exec    bool   // linked at base
	interp  string
	needed  []string
	osrel   uint32
	buildID []byte
	symtab  bool // has .symtab with the local names too
	text    []*fn
	data    []*object

	file             []byte
	textOff, textEnd uint64 // file offsets; link-time address = link + offset
	dataOff, dataEnd uint64
	pltOff, gotOff   uint64
	dynOff           uint64
	hdrOff, hdrSize  uint64
	imports          []string // GOT order
	symbols          map[string]uint64
}

const (
	page     = 0x1000
	pltEntry = 16
)

func (im *image) link() uint64 {
	if im.exec {
		return im.base
	}
	return 0
}

// run returns the run-time address of a symbol of the image.
func (im *image) run(name string) uint64 {
	off, ok := im.symbols[name]
	if !ok {
		panic("story: no symbol " + name + " in " + im.path)
	}
	return im.base + off
}

func (f *fn) addr() uint64 { return f.image.base + f.off }

func align(n, a uint64) uint64 { return (n + a - 1) &^ (a - 1) }

type section struct {
	name                   string
	typ, link              uint32
	flags, addr, off, size uint64
	align, entsize         uint64
}

type linker struct {
	im   *image
	out  []byte
	secs []section

	locals int // local symbols in .symtab, with the empty one
}

func (l *linker) place(name string, typ uint32, flags, al uint64, b []byte) uint64 {
	at := align(uint64(len(l.out)), al)
	l.out = append(l.out, make([]byte, at-uint64(len(l.out)))...)
	l.out = append(l.out, b...)
	s := section{name: name, typ: typ, flags: flags, off: at, size: uint64(len(b)), align: al}
	if flags&2 != 0 {
		s.addr = l.im.link() + at
	}
	l.secs = append(l.secs, s)
	return at
}

// build links the image. find tells whether another image defines a name.
func (im *image) build() {
	l := &linker{im: im, secs: []section{{}}}
	progs := 6
	if im.interp != "" {
		progs += 2
	}
	l.out = make([]byte, 64+progs*56)
	var interpOff uint64
	if im.interp != "" {
		interpOff = l.place(".interp", 1, 2, 1, append([]byte(im.interp), 0))
	}
	noteOff := l.place(".note.tag", 7, 2, 4, abiTag(im.osrel))
	if im.buildID != nil {
		l.place(".note.gnu.build-id", 7, 2, 4, note("GNU\x00", 3, im.buildID))
	}
	noteEnd := uint64(len(l.out))
	im.layOut(l)
	dynsyms, dynstr, strOffs := im.dynamicSymbols()
	hashOff := l.place(".hash", 5, 2, 8, sysvHash(im.exported()))
	symOff := l.place(".dynsym", 11, 2, 8, dynsyms)
	l.secs[len(l.secs)-1].link = uint32(len(l.secs))
	l.secs[len(l.secs)-1].entsize = 24
	strOff := l.place(".dynstr", 3, 2, 1, dynstr)
	if uint64(len(l.out)) > im.pltOff {
		panic("story: the symbols of " + im.path + " overflow their place")
	}
	l.out = append(l.out, make([]byte, im.pltOff-uint64(len(l.out)))...)
	l.place(".plt", 1, 6, 16, im.plt())
	l.place(".text", 1, 6, 16, im.code())
	eh, entries := im.ehFrame(im.hdrOff + im.hdrSize)
	if at := l.place(".eh_frame_hdr", 1, 2, 4, im.ehFrameHdr(entries)); at != im.hdrOff {
		panic("story: .eh_frame_hdr is elsewhere")
	}
	l.place(".eh_frame", 1, 2, 8, eh)
	rxEnd := uint64(len(l.out))
	l.out = append(l.out, make([]byte, im.dynOff-rxEnd)...)
	l.place(".dynamic", 6, 3, 8, im.dynamic(hashOff, symOff, strOff, uint64(len(dynstr)), strOffs))
	l.place(".got.plt", 1, 3, 8, make([]byte, 8*(3+len(im.imports))))
	l.place(".data", 1, 3, 16, im.dataBytes())
	im.dataEnd = uint64(len(l.out))
	dynSize := im.gotOff - im.dynOff

	phdrs := []prog{{6, 4, 64, uint64(progs * 56), 0, 8}}
	if im.interp != "" {
		n := uint64(len(im.interp) + 1)
		phdrs = append(phdrs, prog{3, 4, interpOff, n, 0, 1})
	}
	phdrs = append(phdrs, prog{1, 5, 0, rxEnd, 0, page},
		prog{1, 6, im.dynOff, im.dataEnd - im.dynOff, im.bss(), page},
		prog{2, 6, im.dynOff, dynSize, 0, 8},
		prog{4, 4, noteOff, noteEnd - noteOff, 0, 4},
		prog{0x6474e550, 4, im.hdrOff, im.hdrSize, 0, 4})
	if im.interp != "" { // PT_GNU_STACK
		phdrs = append(phdrs, prog{0x6474e551, 6, 0, 0, 0, 8})
	}
	if im.symtab {
		l.addSymtab(im)
	}
	l.finish(phdrs)
	im.file = l.out
}

// bss rounds the data segment up to its page.
func (im *image) bss() uint64 { return align(im.dataEnd, page) - im.dataEnd }

type prog struct {
	typ, flags     uint32
	off, size, bss uint64
	align          uint64
}

// layOut gives every function and variable its offset: headers and symbol
// tables, then code, then call frame information, then data on a new page.
func (im *image) layOut(l *linker) {
	im.symbols = map[string]uint64{}
	seen := map[string]bool{}
	own := map[string]bool{".cerror": true}
	for _, f := range im.text {
		own[f.name] = true
		for _, a := range f.aliases {
			own[a] = true
		}
	}
	for _, o := range im.data {
		own[o.name] = true
	}
	for _, f := range im.text {
		for _, r := range f.refs {
			if !own[r.to] && !seen[r.to] {
				seen[r.to] = true
				im.imports = append(im.imports, r.to)
			}
		}
	}
	n := uint64(len(im.exported())+len(im.imports)+8) * 96
	im.pltOff = align(uint64(len(l.out))+n, 256)
	im.textOff = align(im.pltOff+pltEntry*uint64(1+len(im.imports)), 16)
	at := im.textOff
	for _, f := range im.text {
		at = align(at, 16)
		f.image, f.off = im, at
		im.symbols[f.name] = at
		for _, a := range f.aliases {
			im.symbols[a] = at
		}
		at += uint64(len(f.code))
	}
	im.textEnd = at
	im.hdrOff = align(at, 4)
	withCFI := 0
	for _, f := range im.text {
		if !f.noCFI {
			withCFI++
		}
	}
	im.hdrSize = align(uint64(12+8*withCFI), 8)
	eh, _ := im.ehFrame(im.hdrOff + im.hdrSize)
	im.dynOff = align(align(im.hdrOff+im.hdrSize, 8)+uint64(len(eh)), page)
	im.gotOff = im.dynOff + uint64(16*(12+len(im.needed)))
	im.dataOff = align(im.gotOff+uint64(8*(3+len(im.imports))), 16)
	at = im.dataOff
	for _, o := range im.data {
		at = align(at, 8)
		o.offset = at
		im.symbols[o.name] = at
		at += uint64(o.size)
	}
	im.dataEnd = at
	im.symbols["_DYNAMIC"] = im.dynOff
}

func (im *image) plt() []byte {
	b := make([]byte, pltEntry*(1+len(im.imports)))
	b[0], b[1] = 0xff, 0x35 // push GOT+8(%rip); jmp *GOT+16(%rip)
	le.PutUint32(b[2:], uint32(im.gotOff+8-(im.pltOff+6)))
	b[6], b[7] = 0xff, 0x25
	le.PutUint32(b[8:], uint32(im.gotOff+16-(im.pltOff+12)))
	copy(b[12:], "\x0f\x1f\x40\x00")
	for i := range im.imports {
		at := pltEntry * (i + 1)
		pc := im.pltOff + uint64(at)
		b[at], b[at+1] = 0xff, 0x25
		le.PutUint32(b[at+2:], uint32(im.gotOff+uint64(8*(3+i))-(pc+6)))
		b[at+6] = 0x68
		le.PutUint32(b[at+7:], uint32(i))
		b[at+11] = 0xe9
		le.PutUint32(b[at+12:], uint32(im.pltOff-(pc+16)))
	}
	return b
}

// code joins the functions and fills in their references.
func (im *image) code() []byte {
	out := bytes.Repeat([]byte{0x90}, int(im.textEnd-im.textOff))
	for _, f := range im.text {
		at := f.off - im.textOff
		copy(out[at:], f.code)
		for _, r := range f.refs {
			le.PutUint32(out[at+uint64(r.at):], uint32(im.target(r)-(f.off+uint64(r.at)+4)))
		}
	}
	return out
}

func (im *image) target(r ref) uint64 {
	if r.to == ".cerror" {
		if a, ok := im.symbols["cerror"]; ok {
			return a
		}
		return im.textOff
	}
	if a, ok := im.symbols[r.to]; ok {
		return a
	}
	for i, n := range im.imports {
		if n == r.to && r.plt {
			return im.pltOff + uint64(pltEntry*(i+1))
		}
	}
	panic("story: unresolved " + r.to)
}

// ehFrame makes .eh_frame for its file offset: one CIE, one FDE per function.
func (im *image) ehFrame(at uint64) (out []byte, entries [][2]uint64) {
	at = align(at, 8)
	cie := []byte{0, 0, 0, 0, 1, 'z', 'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1}
	out = ehRecord(cie)
	for _, f := range im.text {
		if f.noCFI {
			continue
		}
		here := uint64(len(out))
		entries = append(entries, [2]uint64{f.off, at + here})
		b := le.AppendUint32(nil, uint32(here+4))
		b = le.AppendUint32(b, uint32(f.off-(at+here+8)))
		b = le.AppendUint32(b, uint32(len(f.code)))
		b = append(append(b, 0), f.cfi...)
		out = append(out, ehRecord(b)...)
	}
	return append(out, 0, 0, 0, 0), entries
}

func ehRecord(b []byte) []byte {
	for (len(b)+4)%8 != 0 {
		b = append(b, 0) // DW_CFA_nop
	}
	return append(le.AppendUint32(nil, uint32(len(b))), b...)
}

func (im *image) ehFrameHdr(entries [][2]uint64) []byte {
	sort.Slice(entries, func(i, j int) bool { return entries[i][0] < entries[j][0] })
	b := []byte{1, 0x1b, 3, 0x3b}
	b = le.AppendUint32(b, uint32(align(im.hdrOff+im.hdrSize, 8)-(im.hdrOff+4)))
	b = le.AppendUint32(b, uint32(len(entries)))
	for _, e := range entries {
		b = le.AppendUint32(b, uint32(e[0]-im.hdrOff))
		b = le.AppendUint32(b, uint32(e[1]-im.hdrOff))
	}
	return append(b, make([]byte, im.hdrSize-uint64(len(b)))...)
}

type symbol struct {
	name       string
	info       byte
	shndx      uint16
	value, len uint64
}

// size of a function's symbol: to the end of what it covers.
func (im *image) size(f *fn) uint64 {
	if f.sizeless {
		return 0
	}
	end := f.off + uint64(len(f.code))
	for _, g := range im.text {
		if f.cover != "" && g.name == f.cover {
			end = g.off + uint64(len(g.code))
		}
	}
	return end - f.off
}

// Section numbers without .interp, in the order in which build places them.
const (
	secDynsym = 4
	secDynstr = 5
	secText   = 7
	secData   = 12
)

// section returns a section number of this image.
func (im *image) section(n int) uint16 {
	if im.interp != "" {
		n++
	}
	return uint16(n)
}

func (im *image) exported() []symbol {
	var out []symbol
	for _, f := range im.text {
		if f.local {
			continue
		}
		out = append(out, symbol{f.name, 0x12, im.section(secText), f.off, im.size(f)})
		for _, a := range f.aliases {
			out = append(out, symbol{a, 0x22, im.section(secText), f.off, im.size(f)})
		}
	}
	for _, o := range im.data {
		if !o.local {
			out = append(out, symbol{o.name, 0x11, im.section(secData), o.offset, uint64(o.size)})
		}
	}
	return out
}

func (s symbol) bytes(link uint64, name int) []byte {
	b := make([]byte, 24)
	le.PutUint32(b, uint32(name))
	b[4] = s.info
	le.PutUint16(b[6:], s.shndx)
	if s.shndx != 0 {
		le.PutUint64(b[8:], link+s.value)
	}
	le.PutUint64(b[16:], s.len)
	return b
}

// dynamicSymbols makes .dynsym and .dynstr: exported names, then imports; the
// offsets of DT_NEEDED and DT_SONAME strings come along.
func (im *image) dynamicSymbols() (tab, str []byte, strOffs []uint64) {
	tab, str = make([]byte, 24), []byte{0}
	add := func(s symbol) {
		tab = append(tab, s.bytes(im.link(), len(str))...)
		str = append(append(str, s.name...), 0)
	}
	for _, s := range im.exported() {
		add(s)
	}
	for _, n := range im.imports {
		add(symbol{name: n, info: 0x12})
	}
	for _, n := range append(append([]string(nil), im.needed...), im.soname) {
		strOffs = append(strOffs, uint64(len(str)))
		str = append(append(str, n...), 0)
	}
	return tab, str, strOffs
}

func sysvHash(syms []symbol) []byte {
	const buckets = 17
	heads := make([]uint32, buckets)
	chain := make([]uint32, len(syms)+1)
	for i, s := range syms {
		h := uint32(0)
		for _, c := range []byte(s.name) {
			h = h<<4 + uint32(c)
			g := h & 0xf0000000
			h = (h ^ g>>24) &^ g
		}
		chain[i+1], heads[h%buckets] = heads[h%buckets], uint32(i+1)
	}
	b := le.AppendUint32(nil, buckets)
	b = le.AppendUint32(b, uint32(len(chain)))
	for _, v := range append(heads, chain...) {
		b = le.AppendUint32(b, v)
	}
	return b
}

func (im *image) dynamic(hash, sym, str, strSize uint64, strOffs []uint64) []byte {
	var b []byte
	add := func(tag, v uint64) { b = le.AppendUint64(le.AppendUint64(b, tag), v) }
	link := im.link()
	if im.interp != "" {
		add(21, 0) // DT_DEBUG: the run-time linker writes the address of its r_debug
	}
	for i := range im.needed {
		add(1, strOffs[i])
	}
	if im.soname != "" {
		add(14, strOffs[len(strOffs)-1])
	}
	add(4, link+hash)
	add(5, link+str)
	add(6, link+sym)
	add(10, strSize)
	add(11, 24)
	add(3, link+im.gotOff)
	for uint64(len(b)) < im.gotOff-im.dynOff {
		add(0, 0)
	}
	return b
}

func (im *image) dataBytes() []byte {
	b := make([]byte, im.dataEnd-im.dataOff)
	for _, o := range im.data {
		copy(b[o.offset-im.dataOff:], o.value)
	}
	return b
}

// addSymtab places .symtab with the local names first, as the ABI wants.
func (l *linker) addSymtab(im *image) {
	tab, str := make([]byte, 24), []byte{0}
	var locals []symbol
	for _, f := range im.text {
		if f.local {
			locals = append(locals, symbol{f.name, 0x02, im.section(secText), f.off, im.size(f)})
		}
	}
	for _, o := range im.data {
		if o.local {
			locals = append(locals, symbol{o.name, 0x01, im.section(secData), o.offset, uint64(o.size)})
		}
	}
	l.locals = 1 + len(locals)
	for _, s := range append(locals, im.exported()...) {
		tab = append(tab, s.bytes(im.link(), len(str))...)
		str = append(append(str, s.name...), 0)
	}
	l.place(".symtab", 2, 0, 8, tab)
	l.secs[len(l.secs)-1].link = uint32(len(l.secs))
	l.secs[len(l.secs)-1].entsize = 24
	l.place(".strtab", 3, 0, 1, str)
}

// finish writes the headers: EI_OSABI is 9, ELFOSABI_FREEBSD.
func (l *linker) finish(phdrs []prog) {
	im := l.im
	copy(l.out, "\x7fELF\x02\x01\x01\x09")
	typ := uint16(3)
	if im.exec {
		typ = 2
	}
	le.PutUint16(l.out[16:], typ)
	le.PutUint16(l.out[18:], 62)
	le.PutUint32(l.out[20:], 1)
	le.PutUint64(l.out[24:], im.link()+im.textOff)
	le.PutUint64(l.out[32:], 64)
	le.PutUint16(l.out[52:], 64)
	le.PutUint16(l.out[54:], 56)
	le.PutUint16(l.out[56:], uint16(len(phdrs)))
	le.PutUint16(l.out[58:], 64)
	for i, p := range phdrs {
		b := l.out[64+56*i:]
		le.PutUint32(b, p.typ)
		le.PutUint32(b[4:], p.flags)
		le.PutUint64(b[8:], p.off)
		if p.typ != 0x6474e551 {
			le.PutUint64(b[16:], im.link()+p.off)
			le.PutUint64(b[24:], im.link()+p.off)
		}
		le.PutUint64(b[32:], p.size)
		le.PutUint64(b[40:], p.size+p.bss)
		le.PutUint64(b[48:], p.align)
	}
	names := []byte{0}
	offs := make([]uint32, len(l.secs)+1)
	for i, s := range l.secs[1:] {
		offs[i+1] = uint32(len(names))
		names = append(append(names, s.name...), 0)
	}
	offs[len(l.secs)] = uint32(len(names))
	names = append(names, ".shstrtab\x00"...)
	l.place(".shstrtab", 3, 0, 1, names)
	l.out = append(l.out, make([]byte, align(uint64(len(l.out)), 8)-uint64(len(l.out)))...)
	le.PutUint64(l.out[40:], uint64(len(l.out)))
	le.PutUint16(l.out[60:], uint16(len(l.secs)))
	le.PutUint16(l.out[62:], uint16(len(l.secs)-1))
	for i, s := range l.secs {
		h := make([]byte, 64)
		le.PutUint32(h, offs[i])
		le.PutUint32(h[4:], s.typ)
		le.PutUint64(h[8:], s.flags)
		le.PutUint64(h[16:], s.addr)
		le.PutUint64(h[24:], s.off)
		le.PutUint64(h[32:], s.size)
		switch s.name {
		case ".dynsym":
			le.PutUint32(h[44:], 1) // sh_info: one local symbol, the empty one
		case ".symtab":
			le.PutUint32(h[44:], uint32(l.locals))
		case ".hash":
			s.link, s.entsize = uint32(im.section(secDynsym)), 4
		case ".dynamic":
			s.link, s.entsize = uint32(im.section(secDynstr)), 16
		}
		le.PutUint32(h[40:], s.link)
		le.PutUint64(h[48:], s.align)
		le.PutUint64(h[56:], s.entsize)
		l.out = append(l.out, h...)
	}
}

// note is one ELF note, name and desc padded to 4.
func note(owner string, typ uint32, desc []byte) []byte {
	b := le.AppendUint32(nil, uint32(len(owner)))
	b = le.AppendUint32(b, uint32(len(desc)))
	b = le.AppendUint32(b, typ)
	b = pad4(append(b, owner...))
	return pad4(append(b, desc...))
}

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// abiTag is FreeBSD's ABI note: NT_FREEBSD_ABI_TAG, __FreeBSD_version
// (lib/csu/common/crtbrand.c).
func abiTag(osrel uint32) []byte {
	return note(owner, 1, le.AppendUint32(nil, osrel))
}

// String names the image in panics.
func (im *image) String() string { return fmt.Sprintf("%s at %#x", im.path, im.base) }
