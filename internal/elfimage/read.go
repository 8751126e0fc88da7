package elfimage

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sort"

	"mycore/internal/target"
)

// ReadAt reads by file offset, as io.ReaderAt: n < len(p) comes with an error,
// io.EOF at the end of the file. For an image in memory the offset is turned
// into an address through the segments.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if f.mem != nil {
		return f.readMemAt(p, off)
	}
	n, err := f.cache.readAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", f.name, err)
	}
	return n, err
}

func (f *File) readMemAt(p []byte, off int64) (int, error) {
	for _, l := range f.loads() {
		if off >= 0 && uint64(off) >= l.Off && uint64(off)-l.Off < l.Filesz {
			return f.ReadVaddr(l.Vaddr+(uint64(off)-l.Off), p)
		}
	}
	return 0, fmt.Errorf("%s: offset %#x: %w", f.name, off, ErrNoBytes)
}

// ReadVaddr reads by link-time address through the PT_LOAD segments. Bytes that
// exist only at run time (.bss) are ErrNoBytes in a file, never zeros. n < len(p)
// comes with an error.
func (f *File) ReadVaddr(vaddr uint64, p []byte) (int, error) {
	if f.mem != nil {
		return f.mem.ReadMemory(target.Addr(vaddr+f.bias), p)
	}
	n := 0
	for n < len(p) {
		at := vaddr + uint64(n)
		l := f.loadAt(at)
		if l == nil || at-l.Vaddr >= l.Filesz {
			return n, fmt.Errorf("%s: link-time address %#x: %w", f.name, at, ErrNoBytes)
		}
		in := at - l.Vaddr
		off, carry := bits.Add64(l.Off, in, 0)
		if carry != 0 || off > 1<<62 {
			return n, fmt.Errorf("%s: link-time address %#x: %w: segment offset %#x", f.name, at, ErrFormat, l.Off)
		}
		want := min(uint64(len(p)-n), l.Filesz-in)
		got, err := f.cache.readAt(p[n:n+int(want)], int64(off))
		n += got
		if uint64(got) < want {
			return n, fmt.Errorf("%s: link-time address %#x: %w", f.name, vaddr+uint64(n), err)
		}
	}
	return n, nil
}

// loadAt returns the segment that holds a link-time address.
func (f *File) loadAt(vaddr uint64) *Prog {
	loads := f.loads()
	i := sort.Search(len(loads), func(i int) bool { return loads[i].Vaddr > vaddr })
	if i == 0 {
		return nil
	}
	if l := &loads[i-1]; vaddr-l.Vaddr < l.Memsz {
		return l
	}
	return nil
}

// LowestVaddr returns the lowest link-time address of any PT_LOAD.
func (f *File) LowestVaddr() (uint64, bool) {
	loads := f.loads()
	if len(loads) == 0 {
		return 0, false
	}
	return loads[0].Vaddr, true
}

// HighestVaddr returns the first link-time address behind all PT_LOADs.
func (f *File) HighestVaddr() (uint64, bool) {
	var hi uint64
	for _, l := range f.loads() {
		if end, carry := bits.Add64(l.Vaddr, l.Memsz, 0); carry == 0 {
			hi = max(hi, end)
		}
	}
	return hi, len(f.loads()) > 0
}

// LoadBias returns the number that turns a link-time address into a runtime
// address, given the runtime address at which file offset 0 is mapped:
// runtime = link-time + bias, modulo 2^64.
//
// Example: a PIE whose first PT_LOAD has offset 0 and address 0, mapped at
// 0x555555554000, has bias 0x555555554000; an executable linked at 0x400000
// and mapped there has bias 0.
func (f *File) LoadBias(runtimeBase target.Addr) (uint64, bool) {
	best := -1
	loads := f.loads()
	for i := range loads {
		if best < 0 || loads[i].Off < loads[best].Off {
			best = i
		}
	}
	if best < 0 {
		return 0, false
	}
	l := &loads[best]
	return uint64(runtimeBase) - (l.Vaddr - l.Off), true
}

// Bias returns the load bias of an image opened by FromMemory, 0 for a file.
func (f *File) Bias() uint64 { return f.bias }

// InMemory reports whether the image was opened by FromMemory.
func (f *File) InMemory() bool { return f.mem != nil }

// FromMemory reads the image whose ELF header lies at base in a target's
// memory. There are no sections; segments, notes, dynamic table and symbols
// are read through the segments. base is the address of file offset 0.
func FromMemory(m target.Memory, base target.Addr, name string) (*File, error) {
	f := &File{name: name, mem: m, base: base}
	var b [64]byte
	n, err := m.ReadMemory(base, b[:])
	if n < 52 && err != nil {
		return nil, fmt.Errorf("%s: reading the ELF header at %s: %w", name, base, err)
	}
	if err := f.parseHeader(b[:n]); err != nil {
		return nil, fmt.Errorf("%s: image at %s: %w", name, base, err)
	}
	f.hdr.shoff, f.hdr.shnum = 0, 0 // sections aren't part of the memory image
	if err := f.readProgs(); err != nil {
		return nil, fmt.Errorf("%s: image at %s: %w", name, base, err)
	}
	bias, ok := f.LoadBias(base)
	if !ok {
		return nil, fmt.Errorf("%s: image at %s: %w: no PT_LOAD", name, base, ErrFormat)
	}
	f.bias = bias
	lo, _ := f.LowestVaddr()
	if hi, _ := f.HighestVaddr(); hi-lo < 1<<62 {
		f.size = int64(hi - lo)
	}
	return f, nil
}
