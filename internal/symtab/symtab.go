// Package symtab answers which function a link-time address belongs to, and
// where a named symbol lies, from the symbol tables of one image and its debug
// files. It also demangles and normalises names.
//
// It knows nothing of processes or load addresses: those are modules' business.
// An address is named only inside a symbol's own size, never by the nearest
// symbol: in stripped servers a quarter to a third of the frames have no name,
// and the nearest name would be a wrong one.
package symtab

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"mycore/internal/elfimage"
	"mycore/internal/target"
	"mycore/internal/unpack"
)

// The labels of sources: where a symbol came from, and for New which table of
// the file is meant.
const (
	FromSymtab    = ".symtab"
	FromDynsym    = ".dynsym"
	FromDebugdata = ".gnu_debugdata" // xz-packed ELF inside the file, with a .symtab
	FromDebugFile = "debug file"     // the .symtab of a separate debug file
)

const (
	// maxIndexed bounds the functions indexed per source, at 16 bytes each
	// and 8 for the search. Servers with full debug files have up to 4*10^5.
	maxIndexed = 1 << 21
	// maxDebugdata bounds the unpacked .gnu_debugdata; a server's takes about
	// 10 MB.
	maxDebugdata = 64 << 20
	// maxStrings bounds the string table read for a search by name; that of a
	// server with DWARF has 10 to 60 MB.
	maxStrings = 256 << 20
	// maxAliases bounds the names compared at one address; libc has about ten
	// for some system calls.
	maxAliases = 64
)

// Symbol is one function or data object.
type Symbol struct {
	Name   string // as in the table, without a symbol version
	Start  uint64 // link-time address
	Size   uint64 // bytes; 0 when the table doesn't know
	Source string // one of the labels above
}

// Source is one symbol table to search.
type Source struct {
	File  *elfimage.File
	Label string // FromSymtab, FromDynsym, FromDebugdata or FromDebugFile
}

// Table searches the symbol tables of one image. Tables are read and indexed
// at the first question that needs them, each once. Safe for concurrent use.
type Table struct {
	sources []*source
}

// source is one table with its lazily made index.
type source struct {
	file  *elfimage.File
	label string

	once   sync.Once
	syms   *elfimage.SymTable
	index  index
	mapped bool // the machine uses mapping symbols ($x, $d)
	err    error
}

// New makes a table over sources in the order of preference: an address is
// named by the first one that has a symbol around it.
func New(sources ...Source) *Table {
	t := &Table{}
	for _, s := range sources {
		if s.File != nil {
			t.sources = append(t.sources, &source{file: s.File, label: s.Label})
		}
	}
	return t
}

// Of makes the table of a binary and its debug file, either of which may be
// nil. The cheap tables come before the one that must be unpacked;
// .gnu_debugdata has only functions that .dynsym lacks.
func Of(binary, debug *elfimage.File) *Table {
	return New(Source{debug, FromDebugFile}, Source{binary, FromSymtab}, Source{binary, FromDynsym}, Source{binary, FromDebugdata})
}

// Problems lists the tables that could not be read, or only in part, of those
// that were needed so far. A table that doesn't exist is no problem.
func (t *Table) Problems() []error {
	var errs []error
	for _, s := range t.sources {
		s.load()
		if s.err != nil && !errors.Is(s.err, elfimage.ErrNoSection) {
			errs = append(errs, s.err)
		}
	}
	return errs
}

// At returns the function that link-time address vaddr lies in. Only symbols
// with a size count; of nested ones the innermost, of several names for one
// function the one that preferred chooses.
func (t *Table) At(vaddr uint64) (Symbol, bool) {
	for _, s := range t.sources {
		s.load()
		if i, ok := s.index.around(vaddr); ok {
			if sym, ok := s.best(i, func(e entry) bool { return vaddr-e.value < uint64(e.size()) }); ok {
				return sym, true
			}
		}
	}
	return Symbol{}, false
}

// Starting returns the function symbol that starts exactly at vaddr, whatever
// its size. For a symbol without a size the caller knows the function's extent
// from elsewhere, such as its FDE.
func (t *Table) Starting(vaddr uint64) (Symbol, bool) {
	for _, s := range t.sources {
		s.load()
		if i, ok := s.index.at(vaddr); ok {
			if sym, ok := s.best(i, func(entry) bool { return true }); ok {
				return sym, true
			}
		}
	}
	return Symbol{}, false
}

// Named finds a defined symbol, function or data, by the exact name (without
// version). Dynamic symbols cost a few reads; otherwise the tables are searched
// from end to end.
func (t *Table) Named(name string) (Symbol, bool) {
	if name == "" {
		return Symbol{}, false
	}
	for _, s := range t.sources {
		if s.label != FromDynsym {
			continue
		}
		if sym, ok := s.file.LookupDynSym(name); ok {
			return Symbol{Name: name, Start: sym.Value, Size: sym.Size, Source: s.label}, true
		}
	}
	for _, s := range t.sources {
		if s.label == FromDynsym {
			continue
		}
		s.load()
		if sym, ok := s.named(name); ok {
			return sym, true
		}
	}
	return Symbol{}, false
}

// load reads and indexes the table, once.
func (s *source) load() {
	s.once.Do(func() {
		s.syms, s.err = s.open()
		if s.err != nil {
			return
		}
		arch := s.file.Arch()
		s.mapped = arch == target.ARM64 || arch == target.ARM || arch == target.RISCV64
		s.index, s.err = makeIndex(s.file, s.syms)
	})
}

// open finds the table; for .gnu_debugdata it unpacks the image inside first.
func (s *source) open() (*elfimage.SymTable, error) {
	switch s.label {
	case FromDynsym:
		return s.file.Symbols(elfimage.Dynsym)
	case FromDebugdata:
		inner, err := Debugdata(s.file)
		if err != nil {
			return nil, err
		}
		s.file = inner
	}
	return s.file.Symbols(elfimage.Symtab)
}

// Debugdata unpacks the ELF image of f's .gnu_debugdata section, which has a
// symbol table and nothing else. elfimage.ErrNoSection says that there is none.
func Debugdata(f *elfimage.File) (*elfimage.File, error) {
	packed, err := f.GNUDebugdata()
	if err != nil {
		return nil, err
	}
	name := f.Name() + " " + FromDebugdata
	data, err := unpack.DecodeXZ(packed, maxDebugdata)
	if err != nil {
		return nil, fmt.Errorf("unpacking %s: %w", name, err)
	}
	return elfimage.New(bytes.NewReader(data), int64(len(data)), name)
}

// best chooses among the index entries that share their address with entry i
// and that want accepts.
func (s *source) best(i int, want func(entry) bool) (Symbol, bool) {
	e := s.index.entries
	value := e[i].value
	for i > 0 && e[i-1].value == value {
		i--
	}
	var found Symbol
	var rank uint32
	ok := false
	for n := 0; i < len(e) && e[i].value == value && n < maxAliases; i, n = i+1, n+1 {
		if !want(e[i]) || (ok && e[i].rank() > rank) {
			continue
		}
		name, err := s.syms.Name(elfimage.Sym{NameOff: e[i].name})
		name = Unversioned(name)
		if err != nil || !isFunctionName(name, s.mapped) {
			continue
		}
		if !ok || e[i].rank() < rank || preferred(name, found.Name) {
			found = Symbol{Name: name, Start: value, Size: uint64(e[i].size()), Source: s.label}
			rank, ok = e[i].rank(), true
		}
	}
	return found, ok
}

// named searches a whole table: first the places of the name in the string
// table, then the symbols that point to one of them.
func (s *source) named(name string) (Symbol, bool) {
	if s.syms == nil {
		return Symbol{}, false
	}
	strs, err := s.syms.Strings(maxStrings)
	if err != nil {
		return Symbol{}, false
	}
	at := places(strs, name)
	var found elfimage.Sym
	ok := false
	if len(at) == 0 {
		return Symbol{}, false
	}
	_ = s.syms.Each(func(_ int, sym elfimage.Sym) bool { // a cut table ends the search early
		if !sym.Defined() || sym.Type() == elfimage.STTTLS || sym.Type() > elfimage.STTTLS && sym.Type() != elfimage.STTGNUIfunc {
			return true
		}
		if _, hit := at[sym.NameOff]; hit && (!ok || nameRank(sym) < nameRank(found)) {
			found, ok = sym, true
		}
		return true
	})
	if !ok {
		return Symbol{}, false
	}
	return Symbol{Name: name, Start: found.Value, Size: found.Size, Source: s.label}, true
}

// nameRank orders symbols of one name: global before local ones.
func nameRank(s elfimage.Sym) int {
	if s.Bind() == elfimage.STBLocal {
		return 1
	}
	return 0
}

// places finds the offsets in a string table at which name stands, alone or
// with a version behind it. Linkers let one name be the tail of another.
func places(strs []byte, name string) map[uint32]struct{} {
	at := map[uint32]struct{}{}
	for off := 0; ; {
		i := bytes.Index(strs[off:], []byte(name))
		if i < 0 || uint64(off+i) > 1<<32-1 {
			return at
		}
		off += i
		if end := off + len(name); end < len(strs) && (strs[end] == 0 || strs[end] == '@') {
			at[uint32(off)] = struct{}{}
		}
		off++
	}
}

// Unversioned takes the symbol version off a name ("open@@GLIBC_2.2.5").
func Unversioned(name string) string {
	if i := strings.IndexByte(name, '@'); i > 0 {
		return name[:i]
	}
	return name
}

// isFunctionName leaves out what stands in symbol tables for tools: mapping
// symbols of Arm (ELF for the Arm 64-bit Architecture, "Mapping symbols") and
// RISC-V, and local labels such as .annobin_init.c.
func isFunctionName(name string, mapped bool) bool {
	if name == "" || name[0] == '.' {
		return false
	}
	return !mapped || len(name) < 2 || name[0] != '$' || !strings.ContainsRune("xdat", rune(name[1]))
}

// preferred says that a is the better name of two for one address: fewer
// leading underscores (open, not __open64), then the shorter, then the smaller
// one. C++ mangled names count as having none.
func preferred(a, b string) bool {
	if ua, ub := underscores(a), underscores(b); ua != ub {
		return ua < ub
	}
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

func underscores(name string) int {
	if strings.HasPrefix(name, "_Z") {
		return 0
	}
	return len(name) - len(strings.TrimLeft(name, "_"))
}
