// Package coretest builds ELF images and Linux core files in memory for tests,
// damages them in reproducible ways, and finds the real cores that tests may
// use. Its cores are accepted by eu-readelf and lldb, which its own tests show.
//
// It shares no code with the readers that it tests: offsets and numbers are
// written down here a second time, from the same sources.
package coretest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// Machine numbers (gABI e_machine).
const (
	AMD64 = 62
	ARM64 = 183
	RISCV = 243
)

// Style is whose cores are imitated.
type Style int

// The two writers.
const (
	Kernel Style = iota // Linux fs/binfmt_elf.c
	GDB                 // gdb's gcore: other order of notes, section headers
)

// Core describes a core file. The zero value is a core of a 64-bit Linux
// x86-64 process without threads or memory.
type Core struct {
	Style    Style
	Machine  uint16 // 0 means AMD64
	OSABI    byte
	PID      int
	PPID     int
	Command  string // pr_fname
	Args     string // pr_psargs
	Signo    int    // NT_SIGINFO of the process; 0 leaves the note out
	SigCode  int
	SigAddr  uint64
	Threads  []Thread
	Segments []Segment
	Files    []File // NT_FILE; nil leaves the note out
	Auxv     [][2]uint64
	Notes    []Note // more notes at the end
	// NoNotes leaves out the PT_NOTE segment.
	NoNotes bool
	// PadSegments adds that many segments of no bytes, to pass 65,535.
	PadSegments int
}

// Thread is one thread. Unset registers are zero.
type Thread struct {
	LWP         int
	PC, SP, TLS uint64
	Regs        map[int]uint64 // by DWARF number; PC and SP above come first
	NoSyscall   bool
	Syscall     int64
	Flags       uint64
	CurSig      int
	Blocked     uint64
	Pending     uint64
	FileSigno   int    // gdb style: signo of the thread's own SIGINFO
	Notes       []Note // after its PRSTATUS
}

// Segment is one PT_LOAD.
type Segment struct {
	Addr  uint64
	Perm  string // "r-x"
	Data  []byte // the first bytes
	Files uint64 // p_filesz; 0 means len(Data); more than that is a hole
	Size  uint64 // p_memsz; 0 means p_filesz
}

// File is one entry of NT_FILE; Off is in bytes, a multiple of 4096.
type File struct {
	Start, End, Off uint64
	Path            string
}

// Note is a raw note.
type Note struct {
	Owner string
	Type  uint32
	Desc  []byte
}

// Note types (include/uapi/linux/elf.h).
const (
	NTPrstatus  = 1
	NTFpregset  = 2
	NTPrpsinfo  = 3
	NTAuxv      = 6
	NTXstate    = 0x202
	NTARMTLS    = 0x401
	NTARMCall   = 0x404
	NTARMPAC    = 0x406
	NTFile      = 0x46494c45
	NTSiginfo   = 0x53494749
	NTGDBTdesc  = 0xff000000
	pageSize    = 4096
	ehdrSize    = 64
	phdrSize    = 56
	shdrSize    = 64
	xnum        = 0xffff
	typeCore    = 4
	segmentLoad = 1
	segmentNote = 4
)

// Layout is where things lie in a built core.
type Layout struct {
	NotesOff, NotesSize int64
	DataOff             int64   // first byte of memory
	SegmentOff          []int64 // of Core.Segments
	Size                int64
	NoteOffs            []int64 // file offset of each note's header
}

var le = binary.LittleEndian

// phdr is one program header.
type phdr struct {
	typ, flags                uint32
	off, vaddr, filesz, memsz uint64
	align                     uint64
}

func (p phdr) bytes() []byte {
	b := make([]byte, phdrSize)
	le.PutUint32(b, p.typ)
	le.PutUint32(b[4:], p.flags)
	le.PutUint64(b[8:], p.off)
	le.PutUint64(b[16:], p.vaddr)
	le.PutUint64(b[32:], p.filesz)
	le.PutUint64(b[40:], p.memsz)
	le.PutUint64(b[48:], p.align)
	return b
}

func permFlags(s string) uint32 {
	var f uint32
	for _, c := range s {
		switch c {
		case 'r':
			f |= 4
		case 'w':
			f |= 2
		case 'x':
			f |= 1
		}
	}
	return f
}

func (s Segment) filesz() uint64 {
	if s.Files == 0 {
		return uint64(len(s.Data))
	}
	return s.Files
}

// Write writes the core to w at its offsets and returns where things are.
// Holes aren't written: a sparse file stays sparse.
func (c *Core) Write(w io.WriterAt) (Layout, error) {
	notes, offs := c.notes()
	var l Layout
	count := len(c.Segments) + c.PadSegments
	if !c.NoNotes {
		count++
	}
	l.NotesOff = int64(ehdrSize + count*phdrSize)
	l.NotesSize = int64(len(notes))
	for _, o := range offs {
		l.NoteOffs = append(l.NoteOffs, l.NotesOff+o)
	}
	l.DataOff = roundUp(l.NotesOff + l.NotesSize)

	var head bytes.Buffer
	if !c.NoNotes {
		align := uint64(4)
		if c.Style == GDB {
			align = 1
		}
		head.Write(phdr{typ: segmentNote, off: uint64(l.NotesOff), filesz: uint64(l.NotesSize), align: align}.bytes())
	}
	at := l.DataOff
	top := uint64(0)
	for _, s := range c.Segments {
		size := max(s.Size, s.filesz())
		head.Write(phdr{typ: segmentLoad, flags: permFlags(s.Perm), off: uint64(at), vaddr: s.Addr, filesz: s.filesz(), memsz: size, align: pageSize}.bytes())
		if len(s.Data) > 0 {
			if _, err := w.WriteAt(s.Data, at); err != nil {
				return l, err
			}
		}
		l.SegmentOff = append(l.SegmentOff, at)
		at = roundUp(at + int64(s.filesz()))
		top = max(top, s.Addr+size)
	}
	for i := range c.PadSegments {
		head.Write(phdr{typ: segmentLoad, flags: 4, off: uint64(at), vaddr: roundUpU(top) + uint64(i)*2*pageSize, memsz: pageSize, align: pageSize}.bytes())
	}
	l.Size = at
	ehdr := c.header(count)
	tail := c.sections(count, l)
	if tail != nil {
		le.PutUint64(ehdr[40:], uint64(at))
		l.Size = at + int64(len(tail))
	}
	for _, part := range []struct {
		off int64
		b   []byte
	}{{0, ehdr}, {ehdrSize, head.Bytes()}, {l.NotesOff, notes}, {at, tail}} {
		if len(part.b) == 0 {
			continue
		}
		if _, err := w.WriteAt(part.b, part.off); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (c *Core) header(count int) []byte {
	b := make([]byte, ehdrSize)
	copy(b, "\x7fELF\x02\x01\x01")
	b[7] = c.OSABI
	le.PutUint16(b[16:], typeCore)
	le.PutUint16(b[18:], c.machine())
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], ehdrSize)
	le.PutUint16(b[52:], ehdrSize)
	le.PutUint16(b[54:], phdrSize)
	le.PutUint16(b[56:], uint16(min(count, xnum)))
	if count >= xnum || c.Style == GDB {
		le.PutUint16(b[58:], shdrSize)
	}
	switch {
	case c.Style == GDB:
		le.PutUint16(b[60:], 3)
		le.PutUint16(b[62:], 2)
	case count >= xnum:
		le.PutUint16(b[60:], 1)
	}
	return b
}

// sections makes the section headers at the end: section 0 with the count of
// segments for PN_XNUM, and for gdb's style a note section and a name table.
func (c *Core) sections(count int, l Layout) []byte {
	if c.Style != GDB && count < xnum {
		return nil
	}
	zero := make([]byte, shdrSize)
	if count >= xnum {
		le.PutUint32(zero[44:], uint32(count)) // sh_info
		le.PutUint64(zero[32:], 1)             // sh_size: number of sections
	}
	if c.Style != GDB {
		return zero
	}
	const names = "\x00note0\x00.shstrtab\x00"
	note := make([]byte, shdrSize)
	le.PutUint32(note, 1)
	le.PutUint32(note[4:], 7) // SHT_NOTE
	le.PutUint64(note[24:], uint64(l.NotesOff))
	le.PutUint64(note[32:], uint64(l.NotesSize))
	le.PutUint64(note[48:], 1)
	str := make([]byte, shdrSize)
	le.PutUint32(str, 7)
	le.PutUint32(str[4:], 3) // SHT_STRTAB
	le.PutUint64(str[24:], uint64(l.Size)+3*shdrSize)
	le.PutUint64(str[32:], uint64(len(names)))
	le.PutUint64(str[48:], 1)
	return bytes.Join([][]byte{zero, note, str, []byte(names)}, nil)
}

func (c *Core) machine() uint16 {
	if c.Machine == 0 {
		return AMD64
	}
	return c.Machine
}

func roundUp(n int64) int64    { return (n + pageSize - 1) &^ (pageSize - 1) }
func roundUpU(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// buffer is an io.WriterAt that grows.
type buffer struct{ b []byte }

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	const most = 1 << 30 // tests with more bytes use WriteFile
	if off+int64(len(p)) > most {
		return 0, fmt.Errorf("a core of more than %d bytes in memory", most)
	}
	if need := int(off) + len(p); need > len(b.b) {
		b.b = append(b.b, make([]byte, need-len(b.b))...)
	}
	return copy(b.b[off:], p), nil
}

// Bytes returns the core as bytes. It panics on a description that makes no
// core: tests call it with constants.
func (c *Core) Bytes() []byte { b, _ := c.Build(); return b }

// Build is Bytes with the layout.
func (c *Core) Build() ([]byte, Layout) {
	var b buffer
	l, err := c.Write(&b)
	if err != nil {
		panic(err)
	}
	if int64(len(b.b)) < l.Size {
		b.b = append(b.b, make([]byte, l.Size-int64(len(b.b)))...)
	}
	return b.b, l
}

// WriteFile writes the core to a file, with holes where no data was given.
func (c *Core) WriteFile(path string) (Layout, error) {
	f, err := os.Create(path)
	if err != nil {
		return Layout{}, err
	}
	l, err := c.Write(f)
	if err == nil {
		err = f.Truncate(l.Size)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return l, err
}
