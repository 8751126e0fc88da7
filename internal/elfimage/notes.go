package elfimage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"mycore/internal/target"
)

// Note is one note. Its descriptor isn't read until it is asked for.
type Note struct {
	Name string // owner, without the terminating NUL
	Type uint32
	Off  uint64 // file offset of the descriptor; in memory its address
	Size uint64 // bytes of the descriptor as the note header states them

	f *File
}

// ReadAt reads the descriptor from byte off on. n < len(p) comes with an error:
// io.EOF at the end of the descriptor, otherwise why the file ended before it.
func (n *Note) ReadAt(p []byte, off uint64) (int, error) {
	if off >= n.Size {
		return 0, io.EOF
	}
	var short error
	if uint64(len(p)) > n.Size-off {
		p, short = p[:n.Size-off], io.EOF
	}
	got, err := n.f.readRaw(p, n.Off+off)
	if got < len(p) {
		return got, fmt.Errorf("note %s %#x at %#x: %w", n.Name, n.Type, n.Off, cutErr(err))
	}
	return got, short
}

// cutErr makes the end of the file inside a promised structure an
// ErrUnexpectedEOF.
func cutErr(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Desc reads the descriptor, at most limit bytes of it. When the file ends
// first, it returns the bytes that are there and the error.
func (n *Note) Desc(limit int) ([]byte, error) {
	size := min(n.Size, uint64(max(limit, 0)))
	if n.f.mem == nil { // bounded by the file, not by what the note claims
		if n.Off > uint64(n.f.size) {
			return nil, fmt.Errorf("note %s %#x at %#x: %w", n.Name, n.Type, n.Off, io.ErrUnexpectedEOF)
		}
		size = min(size, uint64(n.f.size)-n.Off)
	}
	buf := make([]byte, size)
	got, err := n.ReadAt(buf, 0)
	if errors.Is(err, io.EOF) && uint64(got) == size {
		err = nil
	}
	if err == nil && size < n.Size && size < uint64(max(limit, 0)) {
		err = fmt.Errorf("note %s %#x at %#x: %w", n.Name, n.Type, n.Off, io.ErrUnexpectedEOF)
	}
	return buf[:got], err
}

// readRaw reads by file offset, for an image in memory by address.
func (f *File) readRaw(p []byte, off uint64) (int, error) {
	if f.mem != nil {
		return f.mem.ReadMemory(target.Addr(off), p)
	}
	if off > 1<<62 {
		return 0, io.EOF
	}
	return f.cache.readAt(p, int64(off))
}

// Notes calls visit for each note of the PT_NOTE segments, in file order, until
// visit returns an error, which Notes returns. A segment that ends early, or
// whose note headers run out of it, ends with an error after the notes before
// it were visited; the segments after it are still walked, and the first such
// error is returned.
func (f *File) Notes(visit func(Note) error) error {
	var first error
	budget := MaxNotes
	for i := range f.progs {
		p := &f.progs[i]
		if p.Type != PTNote || p.Filesz == 0 {
			continue
		}
		off := p.Off
		if f.mem != nil {
			off = p.Vaddr + f.bias
		}
		stop, err := f.walkNotes(off, p.Filesz, p.Align, &budget, visit)
		if stop {
			return err
		}
		if err != nil && first == nil {
			first = fmt.Errorf("%s: PT_NOTE at %#x: %w", f.name, p.Off, err)
		}
	}
	return first
}

// walkNotes walks size bytes of notes at off. stop says that err is visit's.
func (f *File) walkNotes(off, size, align uint64, budget *int, visit func(Note) error) (stop bool, err error) {
	if off+size < off {
		return false, fmt.Errorf("%w: size %#x", ErrFormat, size)
	}
	// gABI: names and descriptors are padded to 4 bytes; GNU property notes of
	// 64-bit files use 8, and say so in p_align. Cores have 0, 1 or 4 there.
	pad := uint64(4)
	if align == 8 {
		pad = 8
	}
	var h [12]byte
	nameBuf := make([]byte, MaxNoteName)
	name := ""
	for size >= 12 {
		if *budget--; *budget < 0 {
			return false, fmt.Errorf("%w: more than %d notes", ErrFormat, MaxNotes)
		}
		if n, err := f.readRaw(h[:], off); n < len(h) {
			return false, fmt.Errorf("note header at %#x: %w", off, cutErr(err))
		}
		nsz, dsz := uint64(binary.LittleEndian.Uint32(h[0:])), uint64(binary.LittleEndian.Uint32(h[4:]))
		typ := binary.LittleEndian.Uint32(h[8:])
		if nsz == 0 && dsz == 0 && typ == 0 { // a hole or padding read as a header: nothing follows
			return false, nil
		}
		if nsz > MaxNoteName {
			return false, fmt.Errorf("%w: note at %#x has a name of %d bytes", ErrFormat, off, nsz)
		}
		descAt := align64(12+nsz, pad)
		next := align64(descAt+dsz, pad)
		if descAt+dsz > size {
			return false, fmt.Errorf("%w: note at %#x: %d bytes leave the segment by %d", ErrFormat, off, dsz, descAt+dsz-size)
		}
		b := nameBuf[:nsz]
		if n, err := f.readRaw(b, off+12); n < len(b) {
			return false, fmt.Errorf("note name at %#x: %w", off+12, cutErr(err))
		}
		for len(b) > 0 && b[len(b)-1] == 0 {
			b = b[:len(b)-1]
		}
		if string(b) != name { // owners repeat: one string serves all
			name = string(b)
		}
		if err := visit(Note{Name: name, Type: typ, Off: off + descAt, Size: dsz, f: f}); err != nil {
			return true, err
		}
		off += min(next, size)
		size -= min(next, size)
	}
	return false, nil
}

// align64 rounds up to a power of two; its callers add 32-bit sizes only, so it
// can't wrap.
func align64(v, to uint64) uint64 { return (v + to - 1) &^ (to - 1) }

// ntGNUBuildID is NT_GNU_BUILD_ID of owner "GNU" (glibc elf/elf.h).
const ntGNUBuildID = 3

var errFound = errors.New("found")

// BuildID returns the build ID: from the PT_NOTE segments, for a file also from
// its note sections, which debug files keep when their segments are empty. The
// slice is shared: don't change it.
func (f *File) BuildID() ([]byte, bool) {
	f.idOnce.Do(func() {
		f.buildID = f.findBuildID()
	})
	return f.buildID, len(f.buildID) > 0
}

func (f *File) findBuildID() []byte {
	var id []byte
	visit := func(n Note) error {
		if n.Name != "GNU" || n.Type != ntGNUBuildID || n.Size == 0 || n.Size > maxBuildID {
			return nil
		}
		if b, err := n.Desc(maxBuildID); err == nil {
			id = b
			return errFound
		}
		return nil
	}
	// The error is dropped on purpose: a damaged note means no build ID here,
	// which callers report as unknown.
	_ = f.Notes(visit)
	if id != nil || f.mem != nil || f.hdr.typ == TypeCore {
		return id
	}
	secs, err := f.Sections()
	if err != nil {
		return nil
	}
	budget := MaxNotes
	for _, s := range secs {
		if s.Type == SHTNote && id == nil {
			_, _ = f.walkNotes(s.Off, s.Size, 4, &budget, visit)
		}
	}
	return id
}
