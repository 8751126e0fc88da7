package elfimage

import (
	"encoding/binary"
	"fmt"
)

// SymKind selects a symbol table.
type SymKind int

// The two symbol tables of an ELF file.
const (
	// Symtab is .symtab: all symbols, gone from stripped files.
	Symtab SymKind = iota
	// Dynsym is .dynsym: what the loader needs, in every dynamic object; found
	// through PT_DYNAMIC when there are no sections.
	Dynsym
)

// String returns the section's name.
func (k SymKind) String() string {
	if k == Symtab {
		return ".symtab"
	}
	return ".dynsym"
}

// Symbol types and bindings (gABI st_info).
const (
	STTNotype   = 0
	STTObject   = 1
	STTFunc     = 2
	STTTLS      = 6
	STTGNUIfunc = 10
	STBLocal    = 0
	STBGlobal   = 1
	STBWeak     = 2
	// SHNUndef: defined elsewhere.
	SHNUndef = 0
	// SHNAbs: Value is no address.
	SHNAbs = 0xfff1
)

// Sym is one symbol. Its name is read when it is asked for: see SymTable.Name.
type Sym struct {
	Value, Size uint64 // link-time address (offset for TLS), bytes
	NameOff     uint32 // in the table's string table
	Shndx       uint16
	Info, Other byte
}

// Type returns STT_*.
func (s Sym) Type() int { return int(s.Info & 0xf) }

// Bind returns STB_*.
func (s Sym) Bind() int { return int(s.Info >> 4) }

// Defined reports whether the symbol has an address in this image.
func (s Sym) Defined() bool { return s.Shndx != SHNUndef }

// SymTable is a symbol table that is read on demand. It is safe for concurrent
// use and keeps no symbols in memory.
type SymTable struct {
	f          *File
	Kind       SymKind
	n          int
	symOff     uint64
	strOff     uint64
	strSize    uint64
	byAddress  bool // offsets above are link-time addresses, else file offsets
	entryBytes int
}

// Symbols opens a symbol table. ErrNoSection says that the image has none.
func (f *File) Symbols(kind SymKind) (*SymTable, error) {
	t, err := f.sectionSymbols(kind)
	if err == nil || kind == Symtab {
		return t, err
	}
	return f.dynamicSymbols()
}

func (f *File) symSize() int {
	if f.hdr.class == Class32 {
		return 16
	}
	return 24
}

// sectionSymbols finds a table by section type, so that a damaged name table
// doesn't hide it.
func (f *File) sectionSymbols(kind SymKind) (*SymTable, error) {
	secs, err := f.Sections()
	if err != nil {
		return nil, err
	}
	want := SHTSymtab
	if kind == Dynsym {
		want = SHTDynsym
	}
	for i := range secs {
		s := &secs[i]
		if s.Type != want {
			continue
		}
		if uint64(s.Link) >= uint64(len(secs)) {
			return nil, fmt.Errorf("%s: %s: %w: %w", f.name, kind, ErrFormat, errNoStrings)
		}
		str := &secs[s.Link]
		for _, x := range []*Section{s, str} {
			if x.Type == SHTNobits || x.Off > uint64(f.size) || x.Size > uint64(f.size)-x.Off {
				return nil, fmt.Errorf("%s: %s: %w: offset %#x, size %#x leave the file", f.name, kind, ErrFormat, x.Off, x.Size)
			}
		}
		n := min(s.Size/uint64(f.symSize()), MaxSymbols)
		return &SymTable{f: f, Kind: kind, n: int(n), symOff: s.Off, strOff: str.Off, strSize: str.Size, entryBytes: f.symSize()}, nil
	}
	return nil, fmt.Errorf("%s: %w: %s", f.name, ErrNoSection, kind)
}

// dynamicSymbols finds .dynsym through PT_DYNAMIC. The dynamic table has no
// count of symbols: the hash tables tell.
func (f *File) dynamicSymbols() (*SymTable, error) {
	d, err := f.dynSyms()
	if err != nil {
		return nil, err
	}
	n := uint64(0)
	switch {
	case d.hasSysV:
		var b [8]byte // nbucket, nchain; nchain is the number of symbols
		if _, err := f.ReadVaddr(d.sysvHash, b[:]); err != nil {
			return nil, err
		}
		n = uint64(binary.LittleEndian.Uint32(b[4:]))
	case d.hasGNU:
		if n, err = f.gnuSymbolCount(&d.gnu); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s: %w: DT_HASH or DT_GNU_HASH", f.name, ErrNoSection)
	}
	return f.dynTable(d, min(n, MaxSymbols)), nil
}

func (f *File) dynTable(d *dynTables, n uint64) *SymTable {
	return &SymTable{f: f, Kind: Dynsym, n: int(n), symOff: d.symtab, strOff: d.strtab, strSize: d.strsz, byAddress: true, entryBytes: f.symSize()}
}

// Len returns the number of entries, the empty first one included. It is what
// the file claims; Each ends where the bytes end.
func (t *SymTable) Len() int { return t.n }

func (t *SymTable) read(off uint64, b []byte) (int, error) {
	if t.byAddress {
		return t.f.ReadVaddr(off, b)
	}
	return t.f.readRaw(b, off)
}

// At returns symbol i.
func (t *SymTable) At(i int) (Sym, error) {
	if i < 0 || i >= t.n {
		return Sym{}, fmt.Errorf("%s: %s: no symbol %d of %d", t.f.name, t.Kind, i, t.n)
	}
	var b [24]byte
	if n, err := t.read(t.symOff+uint64(i)*uint64(t.entryBytes), b[:t.entryBytes]); n < t.entryBytes {
		return Sym{}, fmt.Errorf("%s: %s: symbol %d: %w", t.f.name, t.Kind, i, cutErr(err))
	}
	return decodeSym(b[:], t.f.hdr.class), nil
}

// Each calls visit for every symbol in table order, starting with the empty
// entry 0, until visit returns false. It reads in chunks and allocates nothing
// per symbol. When the file ends inside the table it returns an error after the
// symbols that are there.
func (t *SymTable) Each(visit func(i int, s Sym) bool) error {
	const chunk = 4096 // entries; 96 KiB
	buf := make([]byte, min(t.n, chunk)*t.entryBytes)
	for i := 0; i < t.n; i += chunk {
		b := buf[:min(chunk, t.n-i)*t.entryBytes]
		n, err := t.read(t.symOff+uint64(i)*uint64(t.entryBytes), b)
		for k := 0; (k+1)*t.entryBytes <= n; k++ {
			if !visit(i+k, decodeSym(b[k*t.entryBytes:], t.f.hdr.class)) {
				return nil
			}
		}
		if n < len(b) {
			return fmt.Errorf("%s: %s: symbol %d of %d: %w", t.f.name, t.Kind, i+n/t.entryBytes, t.n, cutErr(err))
		}
	}
	return nil
}

func decodeSym(b []byte, c Class) Sym {
	le := binary.LittleEndian
	if c == Class32 {
		return Sym{NameOff: le.Uint32(b), Value: uint64(le.Uint32(b[4:])), Size: uint64(le.Uint32(b[8:])),
			Info: b[12], Other: b[13], Shndx: le.Uint16(b[14:])}
	}
	return Sym{NameOff: le.Uint32(b), Info: b[4], Other: b[5], Shndx: le.Uint16(b[6:]),
		Value: le.Uint64(b[8:]), Size: le.Uint64(b[16:])}
}

// Name reads a symbol's name. A name that leaves its table, or has no end within
// MaxSymbolName bytes, is an error.
func (t *SymTable) Name(s Sym) (string, error) {
	limit := uint64(MaxSymbolName)
	if t.strSize > 0 { // memory images may lack DT_STRSZ
		if uint64(s.NameOff) >= t.strSize {
			return "", fmt.Errorf("%s: %s: %w: name offset %#x", t.f.name, t.Kind, ErrFormat, s.NameOff)
		}
		limit = min(limit, t.strSize-uint64(s.NameOff))
	}
	base := t.strOff + uint64(s.NameOff)
	name, err := readCString(int(limit), func(at uint64, b []byte) (int, error) { return t.read(base+at, b) })
	if err != nil {
		return "", fmt.Errorf("%s: %s: name at %#x: %w", t.f.name, t.Kind, s.NameOff, err)
	}
	return name, nil
}

// Strings reads the whole string table (names end with a NUL, Sym.NameOff points
// into it), for callers that need every name. More than limit bytes are an
// error.
func (t *SymTable) Strings(limit int) ([]byte, error) {
	if t.strSize > uint64(max(limit, 0)) {
		return nil, fmt.Errorf("%s: %s: %w: %d bytes of names, the limit is %d", t.f.name, t.Kind, ErrFormat, t.strSize, limit)
	}
	b := make([]byte, t.strSize)
	if n, err := t.read(t.strOff, b); n < len(b) {
		return nil, fmt.Errorf("%s: %s: names: %w", t.f.name, t.Kind, cutErr(err))
	}
	return b, nil
}

// nameIs compares a symbol's name without allocating.
func (t *SymTable) nameIs(s Sym, name string) bool {
	var buf [128]byte
	if t.strSize > 0 && (uint64(s.NameOff) >= t.strSize || uint64(len(name)) >= t.strSize-uint64(s.NameOff)) {
		return false
	}
	at := t.strOff + uint64(s.NameOff)
	for rest := name; ; {
		want := min(len(rest)+1, len(buf))
		n, _ := t.read(at, buf[:want])
		if n < want {
			return false
		}
		if len(rest) < want { // the NUL is part of this piece
			return string(buf[:len(rest)]) == rest && buf[len(rest)] == 0
		}
		if string(buf[:want]) != rest[:want] {
			return false
		}
		at += uint64(want)
		rest = rest[want:]
	}
}
