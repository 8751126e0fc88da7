package modules

import (
	"errors"
	"io"
	"math"

	"mycore/elfcore"
	"mycore/internal/elfimage"
	"mycore/internal/target"
)

// Backing gives a core the bytes of the files found, for mappings of which the
// core holds nothing.
func (s *Set) Backing() elfcore.Backing { return backing{s} }

type backing struct{ set *Set }

// ReadFile implements elfcore.Backing. Only files of images count: a data file
// that the target had mapped may be anything by now.
func (b backing) ReadFile(mp *elfcore.Mapping, fileOff uint64, buf []byte) (int, error) {
	m := b.set.At(mp.Start)
	if m == nil || !m.isFile || m.Image.Path != mp.Path || fileOff > math.MaxInt64 {
		return 0, target.ErrFileMissing
	}
	if !m.HasBias || fileOff < mp.FileOff {
		return 0, target.ErrFileMissing
	}
	at := mp.Start + target.Addr(fileOff-mp.FileOff)
	if buf = m.unchanged(m.LinkTime(at), buf); len(buf) == 0 {
		return 0, target.ErrNotDumped
	}
	n, err := m.elf.ReadAt(buf, int64(fileOff))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // the file ends here
	}
	return n, err
}

// ReadImage reads the code and constants of the images found by runtime
// address, for cores that don't say which file is mapped where. What the
// process may have changed (data, relocated constants) is target.ErrNotDumped.
func (s *Set) ReadImage(a target.Addr, buf []byte) (int, error) {
	m := s.At(a)
	if m == nil || !m.isFile || !m.HasBias {
		return 0, target.ErrFileMissing
	}
	vaddr := m.LinkTime(a)
	for _, p := range m.elf.Progs() {
		if p.Type != elfimage.PTLoad || p.Flags&elfimage.PFW != 0 || vaddr < p.Vaddr || vaddr-p.Vaddr >= p.Filesz {
			continue
		}
		in := vaddr - p.Vaddr
		if p.Off+in < in {
			return 0, target.ErrFileMissing
		}
		buf = buf[:min(uint64(len(buf)), p.Filesz-in)]
		if buf = m.unchanged(vaddr, buf); len(buf) == 0 {
			return 0, target.ErrNotDumped
		}
		return m.elf.ReadVaddr(vaddr, buf)
	}
	return 0, target.ErrNotDumped
}

// unchanged cuts buf, which starts at a link-time address, before the first
// byte that the loader relocates in memory and then write-protects
// (PT_GNU_RELRO): the mapping looks read-only, but the file has other bytes.
// Addresses decide, not file offsets: the page before in memory is often the
// same page of the file, mapped as it is.
func (m *Module) unchanged(vaddr uint64, buf []byte) []byte {
	for _, p := range m.elf.Progs() {
		if p.Type != elfimage.PTGNURelro || p.Memsz == 0 {
			continue
		}
		if vaddr < p.Vaddr {
			buf = buf[:min(uint64(len(buf)), p.Vaddr-vaddr)]
		} else if vaddr-p.Vaddr < p.Memsz {
			return nil
		}
	}
	return buf
}
