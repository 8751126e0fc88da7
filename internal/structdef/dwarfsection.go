package structdef

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"mycore/internal/elfimage"
)

const (
	// maxInflated bounds a compressed section after decompression: Chromium's
	// .debug_info has 2 GiB, a server's 40 to 400 MiB.
	maxInflated = 1 << 30
	// maxString bounds one string of .debug_str; C++ names reach 10^4.
	maxString = 64 << 10
)

var errBounds = errors.New("reference leaves its section")

// section is one DWARF section: read from the file on demand, or held whole
// where it is compressed. The zero section is empty.
type section struct {
	name string
	f    *elfimage.File
	off  uint64 // of the section in the file
	size uint64
	data []byte // the contents of a compressed section
}

// openSection finds a section by its name, also under the name that GNU tools
// once gave to compressed ones.
func openSection(f *elfimage.File, name string) (section, error) {
	if s, ok := f.Section("." + name); ok && s.Type != elfimage.SHTNobits {
		if s.Flags&elfimage.SHFCompressed != 0 {
			data, err := f.SectionData("."+name, maxInflated)
			return section{name: name, data: data, size: uint64(len(data))}, err
		}
		if s.Off > uint64(f.Size()) || s.Size > uint64(f.Size())-s.Off {
			return section{}, fmt.Errorf("%s: section .%s leaves the file", f.Name(), name)
		}
		return section{name: name, f: f, off: s.Off, size: s.Size}, nil
	}
	if _, ok := f.Section(".z" + name); ok {
		// binutils before 2.26, --compress-debug-sections=zlib-gnu.
		return section{}, fmt.Errorf("%s: section .z%s is compressed in the old GNU form: unpack it with objcopy --decompress-debug-sections", f.Name(), name)
	}
	return section{name: name}, nil
}

// read fills p from off on, all of it or an error.
func (s *section) read(p []byte, off uint64) error {
	if off > s.size || uint64(len(p)) > s.size-off {
		return fmt.Errorf(".%s+%#x: %w", s.name, off, errBounds)
	}
	if s.data != nil || len(p) == 0 {
		copy(p, s.data[min(off, uint64(len(s.data))):])
		return nil
	}
	if n, err := s.f.ReadAt(p, int64(s.off+off)); n < len(p) {
		return fmt.Errorf(".%s+%#x: %w", s.name, off, err)
	}
	return nil
}

// slice gives n bytes at off, in buf where they have to be read.
func (s *section) slice(off, n uint64, buf []byte) ([]byte, error) {
	if off > s.size || n > s.size-off {
		return nil, fmt.Errorf(".%s+%#x: %w", s.name, off, errBounds)
	}
	if s.data != nil {
		return s.data[off : off+n], nil
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	return buf, s.read(buf, off)
}

// cstring reads the string at off.
func (s *section) cstring(off uint64) (string, error) {
	var out []byte
	var buf [128]byte
	for off < s.size && len(out) < maxString {
		n := min(uint64(len(buf)), s.size-off)
		if err := s.read(buf[:n], off); err != nil {
			return "", err
		}
		if i := bytes.IndexByte(buf[:n], 0); i >= 0 {
			return string(append(out, buf[:i]...)), nil
		}
		out, off = append(out, buf[:n]...), off+n
	}
	return "", fmt.Errorf(".%s+%#x: string without end: %w", s.name, off, errBounds)
}

// maxOccurrences bounds how often one wanted name may occur in a string
// section: linkers merge equal strings, so it is once per suffix.
const maxOccurrences = 1 << 16

// find gives the offsets at which a reference would read one of the names:
// wherever the name stands with a NUL behind it, since linkers let a string
// be the tail of another one. It reads the section in pieces.
func (s *section) find(names []string) (map[uint64]string, error) {
	out := map[uint64]string{}
	const piece = 1 << 20
	overlap := 0
	for _, n := range names {
		overlap = max(overlap, len(n)+1)
	}
	buf := make([]byte, min(piece, s.size))
	for at := uint64(0); at < s.size; {
		n := min(piece, s.size-at)
		b, err := s.slice(at, n, buf)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if err := occurrences(b, name, at, out); err != nil {
				return nil, fmt.Errorf(".%s: %w", s.name, err)
			}
		}
		if at += n; at < s.size {
			if uint64(overlap) >= n {
				return nil, fmt.Errorf(".%s: name of %d bytes wanted", s.name, overlap)
			}
			at -= uint64(overlap) - 1
		}
	}
	return out, nil
}

func occurrences(b []byte, name string, at uint64, out map[uint64]string) error {
	pattern := append([]byte(name), 0)
	for i := 0; ; {
		j := bytes.Index(b[i:], pattern)
		if j < 0 {
			return nil
		}
		out[at+uint64(i+j)] = name
		if len(out) > maxOccurrences {
			return errors.New("a wanted name occurs too often")
		}
		i += j + len(pattern)
	}
}

// cursor decodes little-endian DWARF data. After the first error it gives
// zeros, and err keeps the reason.
type cursor struct {
	b   []byte
	pos uint64
	err error
}

func (c *cursor) fail() uint64 {
	if c.err == nil {
		c.err = errBounds
	}
	c.pos = uint64(len(c.b))
	return 0
}

func (c *cursor) skip(n uint64) {
	if n > uint64(len(c.b))-c.pos {
		c.fail()
		return
	}
	c.pos += n
}

func (c *cursor) u8() uint64 {
	if c.pos >= uint64(len(c.b)) {
		return c.fail()
	}
	c.pos++
	return uint64(c.b[c.pos-1])
}

// uint reads n bytes, n at most 8.
func (c *cursor) uint(n uint64) uint64 {
	if n > uint64(len(c.b))-c.pos {
		return c.fail()
	}
	p := c.b[c.pos : c.pos+n]
	c.pos += n
	switch n {
	case 1:
		return uint64(p[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(p))
	case 4:
		return uint64(binary.LittleEndian.Uint32(p))
	case 8:
		return binary.LittleEndian.Uint64(p)
	}
	v := uint64(0)
	for i, x := range p {
		v |= uint64(x) << (8 * i)
	}
	return v
}

func (c *cursor) uleb() uint64 {
	// Most numbers here have one byte.
	if c.pos < uint64(len(c.b)) && c.b[c.pos] < 0x80 {
		c.pos++
		return uint64(c.b[c.pos-1])
	}
	v, shift := uint64(0), 0
	for {
		x := c.u8()
		if c.err != nil {
			return 0
		}
		if shift < 64 {
			v |= (x & 0x7f) << shift
		}
		shift += 7
		if x < 0x80 {
			return v
		}
	}
}

func (c *cursor) sleb() int64 {
	v, shift := int64(0), 0
	for {
		x := c.u8()
		if c.err != nil {
			return 0
		}
		if shift < 64 {
			v |= int64(x&0x7f) << shift
		}
		shift += 7
		if x < 0x80 {
			if shift < 64 && x&0x40 != 0 {
				v |= -1 << shift
			}
			return v
		}
	}
}

// bytes gives n bytes, not copied.
func (c *cursor) bytes(n uint64) []byte {
	at := c.pos
	c.skip(n)
	if c.err != nil {
		return nil
	}
	return c.b[at : at+n]
}

// str gives the bytes up to a NUL, not copied.
func (c *cursor) str() []byte {
	i := bytes.IndexByte(c.b[c.pos:], 0)
	if i < 0 {
		c.fail()
		return nil
	}
	s := c.b[c.pos : c.pos+uint64(i)]
	c.pos += uint64(i) + 1
	return s
}
