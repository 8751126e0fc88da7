package elfimage

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Sections returns the section headers in file order, read once. A file without
// a section table gives an empty list; one whose table or name table leaves the
// file gives ErrFormat. The slice is shared: don't change it.
func (f *File) Sections() ([]Section, error) {
	f.secOnce.Do(func() { f.sections, f.secErr = f.readSections() })
	return f.sections, f.secErr
}

func (f *File) readSections() ([]Section, error) {
	h := &f.hdr
	if h.shoff == 0 || f.mem != nil {
		return nil, nil
	}
	size := uint64(f.shdrSize())
	if uint64(h.shentsize) != size {
		return nil, fmt.Errorf("%s: %w: section header size %d, want %d", f.name, ErrFormat, h.shentsize, size)
	}
	if h.shoff > uint64(f.size) || uint64(f.size)-h.shoff < size {
		return nil, fmt.Errorf("%s: %w: section headers at %#x lie behind the end of the file (%d bytes)", f.name, ErrFormat, h.shoff, f.size)
	}
	zero := make([]byte, size)
	if n, err := f.cache.readAt(zero, int64(h.shoff)); n < len(zero) {
		return nil, fmt.Errorf("%s: section header 0: %w", f.name, cutErr(err))
	}
	first, _ := decodeSection(zero, h.class)
	count, strndx := uint64(h.shnum), uint64(h.shstrndx)
	if count == 0 { // gABI: 0xff00 or more sections, the count is sh_size of section 0
		count = first.Size
	}
	if strndx == 0xffff { // gABI SHN_XINDEX
		strndx = uint64(first.Link)
	}
	if room := (uint64(f.size) - h.shoff) / size; count > room || count > MaxSections {
		return nil, fmt.Errorf("%s: %w: %d section headers at %#x don't fit the file", f.name, ErrFormat, count, h.shoff)
	}
	raw := make([]byte, count*size)
	if n, err := f.cache.readAt(raw, int64(h.shoff)); n < len(raw) {
		return nil, fmt.Errorf("%s: section headers: %w", f.name, cutErr(err))
	}
	secs := make([]Section, count)
	names := make([]uint32, count)
	for i := range secs {
		secs[i], names[i] = decodeSection(raw[uint64(i)*size:], h.class)
	}
	if strndx == 0 || strndx >= count {
		return secs, nil // no name table: legal, and sections are found by type
	}
	tab, err := f.rawData(&secs[strndx], maxStrings)
	if err != nil {
		return nil, fmt.Errorf("%s: section names: %w", f.name, err)
	}
	for i := range secs {
		secs[i].Name = cstring(tab, names[i])
	}
	return secs, nil
}

func decodeSection(b []byte, c Class) (Section, uint32) {
	le := binary.LittleEndian
	if c == Class32 {
		return Section{
			Type: le.Uint32(b[4:]), Flags: uint64(le.Uint32(b[8:])), Addr: uint64(le.Uint32(b[12:])),
			Off: uint64(le.Uint32(b[16:])), Size: uint64(le.Uint32(b[20:])),
			Link: le.Uint32(b[24:]), Info: le.Uint32(b[28:]), Entsize: uint64(le.Uint32(b[36:])),
		}, le.Uint32(b)
	}
	return Section{
		Type: le.Uint32(b[4:]), Flags: le.Uint64(b[8:]), Addr: le.Uint64(b[16:]),
		Off: le.Uint64(b[24:]), Size: le.Uint64(b[32:]),
		Link: le.Uint32(b[40:]), Info: le.Uint32(b[44:]), Entsize: le.Uint64(b[56:]),
	}, le.Uint32(b)
}

func cstring(tab []byte, off uint32) string {
	if uint64(off) >= uint64(len(tab)) {
		return ""
	}
	tab = tab[off:]
	if i := bytes.IndexByte(tab, 0); i >= 0 {
		return string(tab[:i])
	}
	return ""
}

// Section returns the first section of that name.
func (f *File) Section(name string) (Section, bool) {
	secs, err := f.Sections()
	if err != nil {
		return Section{}, false
	}
	for _, s := range secs {
		if s.Name == name {
			return s, true
		}
	}
	return Section{}, false
}

// SectionData returns the contents of the first section of that name,
// decompressed when it has SHF_COMPRESSED (zlib or zstd). More than limit
// bytes, before or after decompression, are an error.
func (f *File) SectionData(name string, limit int) ([]byte, error) {
	if _, err := f.Sections(); err != nil {
		return nil, err
	}
	s, ok := f.Section(name)
	if !ok || s.Type == SHTNobits {
		return nil, fmt.Errorf("%s: %w: %s", f.name, ErrNoSection, name)
	}
	b, err := f.rawData(&s, limit)
	if err == nil && s.Flags&SHFCompressed != 0 {
		b, err = f.decompress(b, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: section %s: %w", f.name, name, err)
	}
	return b, nil
}

// rawData reads a section's bytes as they are in the file.
func (f *File) rawData(s *Section, limit int) ([]byte, error) {
	if s.Type == SHTNobits {
		return nil, fmt.Errorf("%w: it has no bytes in the file", ErrNoSection)
	}
	if s.Off > uint64(f.size) || s.Size > uint64(f.size)-s.Off {
		return nil, fmt.Errorf("%w: offset %#x, size %#x leave the file (%d bytes)", ErrFormat, s.Off, s.Size, f.size)
	}
	if s.Size > uint64(max(limit, 0)) {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrFormat, s.Size, limit)
	}
	b := make([]byte, s.Size)
	if n, err := f.cache.readAt(b, int64(s.Off)); n < len(b) {
		return nil, cutErr(err)
	}
	return b, nil
}

// Compression types (gABI ch_type).
const (
	compressZlib = 1
	compressZstd = 2
)

// decompress undoes SHF_COMPRESSED: an Elf_Chdr, then the stream.
func (f *File) decompress(b []byte, limit int) ([]byte, error) {
	head := 24 // Elf64_Chdr: type, reserved, size, alignment
	if f.hdr.class == Class32 {
		head = 12
	}
	if len(b) < head {
		return nil, fmt.Errorf("%w: compression header cut", ErrFormat)
	}
	le := binary.LittleEndian
	typ, size := le.Uint32(b), uint64(le.Uint32(b[4:]))
	if head == 24 {
		size = le.Uint64(b[8:])
	}
	if size > uint64(max(limit, 0)) {
		return nil, fmt.Errorf("%w: %d bytes unpacked, the limit is %d", ErrFormat, size, limit)
	}
	r, done, err := decompressor(typ, b[head:], size)
	if err != nil {
		return nil, err
	}
	defer done()
	// The buffer grows with what the stream really yields: a forged size
	// with three bytes behind it costs three bytes.
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(r, int64(size)))
	if err != nil {
		return nil, fmt.Errorf("decompressing: %w", err)
	}
	if uint64(n) != size {
		return nil, fmt.Errorf("decompressing: %w: %d of %d bytes", io.ErrUnexpectedEOF, n, size)
	}
	return out.Bytes(), nil
}

func decompressor(typ uint32, b []byte, size uint64) (io.Reader, func(), error) {
	switch typ {
	case compressZlib:
		r, err := zlib.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, nil, fmt.Errorf("decompressing: %w", err)
		}
		return r, func() { r.Close() }, nil
	case compressZstd:
		const minWindow = 8 << 20 // the format's recommended window limit
		d, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(max(size, minWindow)),
			zstd.WithDecoderMaxWindow(minWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("decompressing: %w", err)
		}
		return d, d.Close, nil
	}
	return nil, nil, fmt.Errorf("%w: compression type %d", ErrUnsupported, typ)
}

// Debuglink returns the file name and CRC-32 of .gnu_debuglink (GDB manual,
// "Separate Debug Files": name, padding to 4 bytes, CRC).
func (f *File) Debuglink() (name string, crc uint32, ok bool) {
	b, err := f.SectionData(".gnu_debuglink", maxPath+8)
	if err != nil {
		return "", 0, false
	}
	i := bytes.IndexByte(b, 0)
	if i <= 0 {
		return "", 0, false
	}
	at := int(align64(uint64(i)+1, 4))
	if at+4 > len(b) {
		return "", 0, false
	}
	return string(b[:i]), binary.LittleEndian.Uint32(b[at:]), true
}

// Debugaltlink returns the path and build ID of .gnu_debugaltlink (the file
// with the DWARF that several debug files share, written by dwz).
func (f *File) Debugaltlink() (path string, id []byte, ok bool) {
	b, err := f.SectionData(".gnu_debugaltlink", maxPath+maxBuildID+1)
	if err != nil {
		return "", nil, false
	}
	i := bytes.IndexByte(b, 0)
	if i <= 0 || i+1 >= len(b) || len(b)-i-1 > maxBuildID {
		return "", nil, false
	}
	return string(b[:i]), b[i+1:], true
}

// maxDebugdata bounds .gnu_debugdata as it is in the file; libraries have some
// 10 KB, the largest programs a few MB.
const maxDebugdata = 64 << 20

// GNUDebugdata returns the raw xz stream of .gnu_debugdata ("mini-debuginfo" of
// Fedora and RHEL: an ELF file with the .symtab of functions), or ErrNoSection.
func (f *File) GNUDebugdata() ([]byte, error) {
	return f.SectionData(".gnu_debugdata", maxDebugdata)
}

// errNoStrings is a symbol table without its string table.
var errNoStrings = errors.New("symbol table has no string table")
