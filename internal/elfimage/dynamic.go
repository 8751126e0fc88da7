package elfimage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"mycore/internal/target"
)

// Dynamic returns the entries of the dynamic table up to DT_NULL, as they are
// in the image: in memory the loader has turned some addresses into runtime
// ones. An image without PT_DYNAMIC gives ErrNoSection. The slice is shared.
func (f *File) Dynamic() ([]Dyn, error) {
	f.dynOnce.Do(func() { f.dyn, f.dynErr = f.readDynamic() })
	return f.dyn, f.dynErr
}

func (f *File) readDynamic() ([]Dyn, error) {
	var p *Prog
	for i := range f.progs {
		if f.progs[i].Type == PTDynamic {
			p = &f.progs[i]
			break
		}
	}
	if p == nil {
		return nil, fmt.Errorf("%s: %w: PT_DYNAMIC", f.name, ErrNoSection)
	}
	w := f.word()
	span := p.Filesz
	if f.mem != nil {
		span = p.Memsz
	}
	count := min(span/uint64(2*w), MaxDyn)
	const chunk = 64
	var out []Dyn
	buf := make([]byte, chunk*2*w)
	for i := uint64(0); i < count; i += chunk {
		b := buf[:int(min(chunk, count-i))*2*w]
		n, err := f.readSegment(p, i*uint64(2*w), b)
		for e := b[:n/(2*w)*(2*w)]; len(e) > 0; e = e[2*w:] {
			d := Dyn{Tag: int64(f.wordAt(e)), Val: f.wordAt(e[w:])}
			if w == 4 {
				d.Tag = int64(int32(d.Tag))
			}
			if d.Tag == DTNull {
				return out, nil
			}
			out = append(out, d)
		}
		if n < len(b) {
			return out, fmt.Errorf("%s: dynamic table: %w", f.name, cutErr(err))
		}
	}
	return out, nil
}

// readSegment reads bytes of one segment by its own file offset (debug files
// have addresses without bytes) or in memory by its address.
func (f *File) readSegment(p *Prog, at uint64, b []byte) (int, error) {
	if f.mem != nil {
		return f.ReadVaddr(p.Vaddr+at, b)
	}
	off, carry := bits.Add64(p.Off, at, 0)
	if carry != 0 {
		return 0, ErrFormat
	}
	return f.readRaw(b, off)
}

func (f *File) wordAt(b []byte) uint64 {
	if f.hdr.class == Class32 {
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

// DynValue returns the value of the first entry with that tag.
func (f *File) DynValue(tag int64) (uint64, bool) {
	dyn, _ := f.Dynamic() // the entries before a hole still count
	for _, d := range dyn {
		if d.Tag == tag {
			return d.Val, true
		}
	}
	return 0, false
}

// dynAddr returns the link-time address in the entry with that tag. In memory
// the loader may have relocated the entry (glibc does, for a writable table; the
// vDSO and musl keep link-time values), so a value outside of the image's own
// link-time span is taken as a runtime address.
func (f *File) dynAddr(tag int64) (uint64, bool) {
	v, ok := f.DynValue(tag)
	if !ok || f.mem == nil || f.loadAt(v) != nil {
		return v, ok
	}
	if link := v - f.bias; f.loadAt(link) != nil {
		return link, true
	}
	return v, true
}

// Interp returns the path in PT_INTERP.
func (f *File) Interp() (string, bool) {
	for i := range f.progs {
		p := &f.progs[i]
		if p.Type != PTInterp || p.Filesz == 0 || p.Filesz > maxPath {
			continue
		}
		b := make([]byte, p.Filesz)
		if n, _ := f.readSegment(p, 0, b); n < len(b) {
			return "", false
		}
		s := cstring(append(b, 0), 0)
		return s, s != ""
	}
	return "", false
}

// Soname returns DT_SONAME.
func (f *File) Soname() (string, bool) {
	v, ok := f.DynValue(DTSoname)
	if !ok {
		return "", false
	}
	str, ok := f.dynAddr(DTStrtab)
	if !ok {
		return "", false
	}
	s, err := f.cstringAt(str+v, maxPath)
	return s, err == nil && s != ""
}

// cstringAt reads a NUL-terminated string of at most limit bytes at a link-time
// address.
func (f *File) cstringAt(vaddr uint64, limit int) (string, error) {
	return readCString(limit, func(at uint64, b []byte) (int, error) { return f.ReadVaddr(vaddr+at, b) })
}

// readCString collects bytes from read until a NUL. A read may come up short:
// the string can end before the hole.
func readCString(limit int, read func(at uint64, b []byte) (int, error)) (string, error) {
	var buf [64]byte
	var out []byte
	for len(out) < limit {
		n, err := read(uint64(len(out)), buf[:min(len(buf), limit-len(out))])
		for i, c := range buf[:n] {
			if c == 0 {
				return string(append(out, buf[:i]...)), nil
			}
		}
		out = append(out, buf[:n]...)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
	}
	return "", target.ErrUnterminated
}

// dynTables is where the dynamic symbols are, as link-time addresses.
type dynTables struct {
	symtab, strtab, strsz uint64
	gnuHash, sysvHash     uint64
	versym                uint64
	hasGNU, hasSysV       bool
	hasVersym             bool
	gnu                   gnuHashTable
}

// dynSyms finds the dynamic symbol table through PT_DYNAMIC, once.
func (f *File) dynSyms() (*dynTables, error) {
	f.tabOnce.Do(func() { f.tab, f.tabErr = f.findDynSyms() })
	return &f.tab, f.tabErr
}

func (f *File) findDynSyms() (dynTables, error) {
	var t dynTables
	if _, err := f.Dynamic(); err != nil && len(f.dyn) == 0 {
		return t, err
	}
	var ok1, ok2 bool
	t.symtab, ok1 = f.dynAddr(DTSymtab)
	t.strtab, ok2 = f.dynAddr(DTStrtab)
	if !ok1 || !ok2 {
		return t, fmt.Errorf("%s: %w: DT_SYMTAB, DT_STRTAB", f.name, ErrNoSection)
	}
	t.strsz, _ = f.DynValue(DTStrsz)
	t.gnuHash, t.hasGNU = f.dynAddr(DTGNUHash)
	t.sysvHash, t.hasSysV = f.dynAddr(DTHash)
	t.versym, t.hasVersym = f.dynAddr(DTVersym)
	if t.hasGNU {
		var err error
		if t.gnu, err = f.readGNUHash(t.gnuHash); err != nil {
			t.hasGNU = false
			if !t.hasSysV {
				return t, err
			}
		}
	}
	return t, nil
}

// errBadHash is a hash table that can't be walked.
var errBadHash = errors.New("hash table is inconsistent")
