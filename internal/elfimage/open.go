package elfimage

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"

	"mycore/internal/target"
)

// Options of OpenWith and NewWith; the zero value is right for binaries.
type Options struct {
	// CacheBytes bounds the page cache; 0 means DefaultCacheBytes.
	CacheBytes int
}

// File is an ELF image. It is immutable and safe for concurrent use.
type File struct {
	name  string
	size  int64
	cache *pageCache // nil for an image in memory
	close io.Closer
	hdr   header
	progs []Prog
	want  int // program headers that the header promises

	loadOnce sync.Once
	loadList []Prog // PT_LOAD by address; see loads

	mem  target.Memory // set for an image in memory
	base target.Addr
	bias uint64 // runtime address = link-time address + bias, in memory

	secOnce  sync.Once
	sections []Section
	secErr   error

	dynOnce sync.Once
	dyn     []Dyn
	dynErr  error

	tabOnce sync.Once
	tab     dynTables
	tabErr  error

	idOnce  sync.Once
	buildID []byte
}

// Open opens an ELF file. Directories, FIFOs, sockets and devices are refused
// without opening them: nothing here may hang or have side effects.
func Open(path string) (*File, error) { return OpenWith(path, Options{}) }

// OpenWith is Open with options.
func OpenWith(path string, opts Options) (*File, error) {
	fh, size, err := OpenRegular(path)
	if err != nil {
		return nil, err
	}
	f, err := NewWith(fh, size, path, opts)
	if err != nil {
		fh.Close()
		return nil, err
	}
	f.close = fh
	return f, nil
}

// OpenRegular opens a regular file for reading and returns its size in bytes.
// Anything else is refused with ErrNotRegular, by its mode, before it is
// opened; should it be replaced by a FIFO in between, O_NONBLOCK keeps the open
// from waiting for a writer.
func OpenRegular(path string) (*os.File, int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, cause(err))
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: %w (%s)", path, ErrNotRegular, modeWord(st.Mode()))
	}
	fh, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, cause(err))
	}
	st, err = fh.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w (%s)", ErrNotRegular, modeWord(st.Mode()))
	}
	if err != nil {
		fh.Close()
		return nil, 0, fmt.Errorf("%s: %w", path, cause(err))
	}
	return fh, st.Size(), nil
}

// cause drops the operation and path that os puts in front, which the caller's
// message has already.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func modeWord(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&os.ModeNamedPipe != 0:
		return "FIFO"
	case m&os.ModeSocket != 0:
		return "socket"
	case m&os.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// New reads the ELF image in the first size bytes of r; name is used in
// messages only. A program header table that leaves the file isn't an error:
// Progs gives the part that is there.
func New(r io.ReaderAt, size int64, name string) (*File, error) {
	return NewWith(r, size, name, Options{})
}

// NewWith is New with options.
func NewWith(r io.ReaderAt, size int64, name string, opts Options) (*File, error) {
	f := &File{name: name, size: size, cache: newPageCache(r, size, opts.CacheBytes)}
	var b [64]byte
	n, err := f.cache.readAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: reading the ELF header: %w", name, err)
	}
	if err := f.parseHeader(b[:n]); err != nil {
		if errors.Is(err, ErrNotELF) {
			err = &NotELFError{What: f.sniff()}
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := f.readProgs(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// Close releases the file. An image in memory or made by New has nothing to
// release.
func (f *File) Close() error {
	if f.close == nil {
		return nil
	}
	return f.close.Close()
}

// Name returns the path or label that the image was opened with.
func (f *File) Name() string { return f.name }

// Size returns the size of the file in bytes; for an image in memory the span
// of its segments.
func (f *File) Size() int64 { return f.size }

// Class returns the word size.
func (f *File) Class() Class { return f.hdr.class }

// Data returns the byte order, always little-endian here.
func (f *File) Data() binary.ByteOrder { return binary.LittleEndian }

// Machine returns e_machine.
func (f *File) Machine() uint16 { return f.hdr.machine }

// Type returns e_type.
func (f *File) Type() Type { return f.hdr.typ }

// OSABI returns e_ident[EI_OSABI].
func (f *File) OSABI() uint8 { return f.hdr.osabi }

// Flags returns e_flags.
func (f *File) Flags() uint32 { return f.hdr.flags }

// Entry returns the link-time entry point.
func (f *File) Entry() uint64 { return f.hdr.entry }

// SectionTable returns the file offset and the count of section headers as the
// ELF header states them, without reading them.
func (f *File) SectionTable() (off uint64, count int) { return f.hdr.shoff, int(f.hdr.shnum) }

// Arch returns the instruction set, ArchUnknown for one that isn't known here.
func (f *File) Arch() target.Arch { return archOf(f.hdr.machine, f.hdr.class) }

// Progs returns the program headers in file order. The slice is shared: don't
// change it.
func (f *File) Progs() []Prog { return f.progs }

// ProgsPromised returns how many program headers the ELF header announces;
// more than len(Progs()) when the file ends inside the table.
func (f *File) ProgsPromised() int { return f.want }

// parseHeader decodes the ELF header from the first bytes of the image.
func (f *File) parseHeader(b []byte) error {
	if len(b) < 16 || string(b[:4]) != "\x7fELF" {
		return ErrNotELF
	}
	h := &f.hdr
	h.class, h.osabi, h.abiVersion = Class(b[4]), b[7], b[8]
	switch b[5] {
	case 1:
	case 2:
		return fmt.Errorf("%w: big-endian", ErrUnsupported)
	default:
		return fmt.Errorf("%w: data encoding %d", ErrFormat, b[5])
	}
	le := binary.LittleEndian
	switch h.class {
	case Class64:
		if len(b) < 64 {
			return fmt.Errorf("%w: file ends inside the ELF header (%d of 64 bytes)", ErrFormat, len(b))
		}
		h.entry, h.phoff, h.shoff = le.Uint64(b[24:]), le.Uint64(b[32:]), le.Uint64(b[40:])
		b = append(b[:24:24], b[48:]...) // the rest has one layout after the three words
	case Class32:
		if len(b) < 52 {
			return fmt.Errorf("%w: file ends inside the ELF header (%d of 52 bytes)", ErrFormat, len(b))
		}
		h.entry, h.phoff, h.shoff = uint64(le.Uint32(b[24:])), uint64(le.Uint32(b[28:])), uint64(le.Uint32(b[32:]))
		b = append(b[:24:24], b[36:]...)
	default:
		return fmt.Errorf("%w: class %d", ErrFormat, b[4])
	}
	h.typ, h.machine = Type(le.Uint16(b[16:])), le.Uint16(b[18:])
	h.flags = le.Uint32(b[24:])
	h.phentsize, h.phnum = le.Uint16(b[30:]), le.Uint16(b[32:])
	h.shentsize, h.shnum, h.shstrndx = le.Uint16(b[34:]), le.Uint16(b[36:]), le.Uint16(b[38:])
	return nil
}

func (f *File) phdrSize() int {
	if f.hdr.class == Class32 {
		return 32
	}
	return 56
}

func (f *File) shdrSize() int {
	if f.hdr.class == Class32 {
		return 40
	}
	return 64
}

func (f *File) word() int {
	if f.hdr.class == Class32 {
		return 4
	}
	return 8
}

// pnXNum is the e_phnum that says "the count is in section 0" (gABI PN_XNUM;
// Linux include/uapi/linux/elf.h).
const pnXNum = 0xffff

// readProgs reads the program header table as far as the file has it.
func (f *File) readProgs() error {
	h := &f.hdr
	if h.phoff == 0 || h.phnum == 0 {
		return nil
	}
	if int(h.phentsize) != f.phdrSize() {
		return fmt.Errorf("%w: program header size %d at offset 0x36, want %d", ErrFormat, h.phentsize, f.phdrSize())
	}
	want := int64(h.phnum)
	switch {
	case h.phnum == pnXNum:
		want = f.extendedCount()
	case h.typ == TypeCore && h.osabi == OSABIFreeBSD:
		want = f.wrappedCount(want)
	}
	f.want = int(want)
	size := int64(h.phentsize)
	if h.phoff > uint64(max(f.size, 0)) && f.mem == nil {
		return nil // the table lies behind the end: promised, not there
	}
	if want > MaxProgs {
		want = MaxProgs
	}
	if f.mem == nil {
		want = min(want, (f.size-int64(h.phoff))/size)
	} else {
		want = min(want, maxMemoryProgs)
	}
	f.progs = make([]Prog, 0, want)
	const chunk = 1024 // headers per read: memory grows with bytes really read
	buf := make([]byte, min(want, chunk)*size)
	for done := int64(0); done < want; {
		n := min(want-done, chunk)
		b := buf[:n*size]
		got, err := f.readHeaderBytes(b, h.phoff+uint64(done*size))
		whole := int64(got) / size
		for i := range whole {
			f.progs = append(f.progs, DecodeProg(b[i*size:], h.class))
		}
		if err != nil && whole < n {
			break // shrunk meanwhile, or a hole in memory: keep what came
		}
		done += n
	}
	return nil
}

// readHeaderBytes reads by offset in the file, in memory relative to the base:
// header and program headers lie in the first page of an image.
func (f *File) readHeaderBytes(p []byte, off uint64) (int, error) {
	if f.mem != nil {
		return f.mem.ReadMemory(f.base+target.Addr(off), p)
	}
	if off > 1<<62 {
		return 0, io.EOF
	}
	return f.cache.readAt(p, int64(off))
}

// extendedCount finds the number of program headers of a PN_XNUM file: sh_info
// of section header 0. Kernel and gdb put that header at the end of the file,
// so a truncated core has lost it; then the notes tell, which both writers put
// right behind the table: (offset of the PT_NOTE - e_phoff) / entry size.
func (f *File) extendedCount() int64 {
	h := &f.hdr
	sh := make([]byte, f.shdrSize())
	if h.shoff != 0 {
		if n, _ := f.readHeaderBytes(sh, h.shoff); n == len(sh) {
			at := 44 // sh_info of Elf64_Shdr
			if h.class == Class32 {
				at = 28
			}
			if info := binary.LittleEndian.Uint32(sh[at:]); info >= pnXNum {
				return int64(info)
			}
		}
	}
	first := make([]byte, f.phdrSize())
	if n, _ := f.readHeaderBytes(first, h.phoff); n == len(first) {
		p := DecodeProg(first, h.class)
		if p.Type == PTNote && p.Off > h.phoff {
			if count := (p.Off - h.phoff) / uint64(h.phentsize); count >= pnXNum && count <= MaxProgs {
				return int64(count)
			}
		}
	}
	return pnXNum
}

// wrappedCount finds the number of program headers of a core whose writer
// stored it in the 16 bits of e_phnum without regard to its size, as kernel and
// gcore of FreeBSD 10 do (sys/kern/imgact_elf.c and usr.bin/gcore/elfcore.c,
// 10.4). The notes follow the table without a gap, which gives the count; it
// must agree with the bits that are there.
func (f *File) wrappedCount(stored int64) int64 {
	h := &f.hdr
	first := make([]byte, f.phdrSize())
	if n, _ := f.readHeaderBytes(first, h.phoff); n < len(first) {
		return stored
	}
	p := DecodeProg(first, h.class)
	if p.Type != PTNote || p.Off <= h.phoff || (p.Off-h.phoff)%uint64(h.phentsize) != 0 {
		return stored
	}
	count := (p.Off - h.phoff) / uint64(h.phentsize)
	if count <= MaxProgs && count > uint64(stored) && count%(1<<16) == uint64(stored) {
		return int64(count)
	}
	return stored
}

// DecodeProg decodes one program header. b has at least 56 bytes for Class64, 32
// for Class32.
func DecodeProg(b []byte, c Class) Prog {
	le := binary.LittleEndian
	if c == Class32 {
		return Prog{
			Type: le.Uint32(b), Flags: le.Uint32(b[24:]),
			Off: uint64(le.Uint32(b[4:])), Vaddr: uint64(le.Uint32(b[8:])), Paddr: uint64(le.Uint32(b[12:])),
			Filesz: uint64(le.Uint32(b[16:])), Memsz: uint64(le.Uint32(b[20:])), Align: uint64(le.Uint32(b[28:])),
		}
	}
	return Prog{
		Type: le.Uint32(b), Flags: le.Uint32(b[4:]),
		Off: le.Uint64(b[8:]), Vaddr: le.Uint64(b[16:]), Paddr: le.Uint64(b[24:]),
		Filesz: le.Uint64(b[32:]), Memsz: le.Uint64(b[40:]), Align: le.Uint64(b[48:]),
	}
}

// loads returns the PT_LOAD segments by address, sorted on first use: reading a
// core by its own layers never needs them.
func (f *File) loads() []Prog {
	f.loadOnce.Do(func() {
		for _, p := range f.progs {
			if p.Type == PTLoad && p.Memsz > 0 {
				f.loadList = append(f.loadList, p)
			}
		}
		slices.SortStableFunc(f.loadList, func(a, b Prog) int { return cmp.Compare(a.Vaddr, b.Vaddr) })
	})
	return f.loadList
}
