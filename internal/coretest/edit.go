package coretest

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// Places in the PRSTATUS note of x86-64 (include/linux/elfcore.h, struct
// elf_prstatus: pr_pid at 32, pr_reg at 112).
const (
	prstatusPID  = 32
	prstatusRegs = 112
)

// Registers of x86-64 by their place in struct user_regs_struct
// (arch/x86/include/asm/user_64.h), for Edit.Reg.
const (
	RegR10     = 7
	RegRAX     = 10
	RegRDX     = 12
	RegRSI     = 13
	RegRDI     = 14
	RegOrigRAX = 15
	RegRIP     = 16
	RegRSP     = 19
	RegFSBase  = 21
)

// Edit is a copy of a 64-bit Linux core whose bytes a test alters. It is for
// sound cores: what isn't found ends the test.
type Edit struct {
	t testing.TB
	B []byte // the core
}

// NewEdit copies a core.
func NewEdit(t testing.TB, core []byte) *Edit {
	t.Helper()
	if !bytes.HasPrefix(core, []byte("\x7fELF\x02\x01")) {
		t.Fatal("not a 64-bit little-endian ELF file")
	}
	return &Edit{t, bytes.Clone(core)}
}

// Write puts the core into a new file below a temporary directory of the test.
func (e *Edit) Write(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, e.B, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Load is one PT_LOAD of the core.
type Load struct {
	Header        int // file offset of the program header
	Off, Addr     uint64
	Filesz, Memsz uint64
	Flags         uint32
	typ           uint32
}

// phdrs calls f for each program header.
func (e *Edit) phdrs(f func(Load)) {
	at, n := int(le.Uint64(e.B[32:])), int(le.Uint16(e.B[56:]))
	for i := range n {
		h := at + 56*i
		if h+56 > len(e.B) {
			e.t.Fatalf("program header %d is cut", i)
		}
		b := e.B[h:]
		f(Load{
			Header: h, typ: le.Uint32(b), Flags: le.Uint32(b[4:]),
			Off: le.Uint64(b[8:]), Addr: le.Uint64(b[16:]), Filesz: le.Uint64(b[32:]), Memsz: le.Uint64(b[40:]),
		})
	}
}

// Loads returns the PT_LOADs.
func (e *Edit) Loads() []Load {
	var out []Load
	e.phdrs(func(l Load) {
		if l.typ == 1 {
			out = append(out, l)
		}
	})
	return out
}

// HeadEnd is the file offset behind headers and notes: what describes the
// core, other than memory.
func (e *Edit) HeadEnd() int {
	end := int(le.Uint64(e.B[32:])) + 56*int(le.Uint16(e.B[56:]))
	e.phdrs(func(l Load) {
		if l.typ == 4 {
			end = max(end, int(l.Off+l.Filesz))
		}
	})
	return min(end, len(e.B))
}

// At returns the bytes of memory from addr to the end of what is dumped there
// without a gap in the file; they may be altered. Memory that the core lacks
// is nil.
func (e *Edit) At(addr uint64) []byte {
	for _, l := range e.Loads() {
		if addr >= l.Addr && addr-l.Addr < l.Filesz && l.Off+l.Filesz <= uint64(len(e.B)) {
			return e.B[l.Off+addr-l.Addr : l.Off+l.Filesz]
		}
	}
	return nil
}

// Mem is At for memory that must be there, n bytes.
func (e *Edit) Mem(addr uint64, n int) []byte {
	e.t.Helper()
	b := e.At(addr)
	if len(b) < n {
		e.t.Fatalf("%d bytes at %#x aren't in the core", n, addr)
	}
	return b[:n]
}

// Uint64 reads a word of memory.
func (e *Edit) Uint64(addr uint64) uint64 {
	e.t.Helper()
	return le.Uint64(e.Mem(addr, 8))
}

// CString reads text up to its NUL.
func (e *Edit) CString(addr uint64) string {
	e.t.Helper()
	s, _, ok := bytes.Cut(e.At(addr), []byte{0})
	if !ok {
		e.t.Fatalf("text at %#x has no end in the core", addr)
	}
	return string(s)
}

// NoteAt is the place of one note of owner CORE.
type NoteAt struct {
	Header int // file offset of the note's header: its type is 8 behind
	Desc   int // file offset of what it holds
	Size   int // of Desc
	Type   uint32
}

// Notes returns the notes of owner CORE in order.
func (e *Edit) Notes() []NoteAt {
	var out []NoteAt
	e.phdrs(func(l Load) {
		if l.typ != 4 {
			return
		}
		for at, end := int(l.Off), int(l.Off+l.Filesz); at+12 <= end; {
			name, size := int(le.Uint32(e.B[at:])), int(le.Uint32(e.B[at+4:]))
			desc := at + 12 + (name+3)&^3
			if string(e.B[at+12:at+12+name]) == "CORE\x00" {
				out = append(out, NoteAt{at, desc, size, le.Uint32(e.B[at+8:])})
			}
			at = desc + (size+3)&^3
		}
	})
	return out
}

// Note is the first note of a type.
func (e *Edit) Note(typ uint32) NoteAt {
	e.t.Helper()
	for _, n := range e.Notes() {
		if n.Type == typ {
			return n
		}
	}
	e.t.Fatalf("no note of type %#x", typ)
	return NoteAt{}
}

// Threads returns the LWPs in the order of the notes.
func (e *Edit) Threads() []int {
	var out []int
	for _, n := range e.Notes() {
		if n.Type == NTPrstatus {
			out = append(out, int(le.Uint32(e.B[n.Desc+prstatusPID:])))
		}
	}
	return out
}

func (e *Edit) prstatus(lwp int) []byte {
	e.t.Helper()
	for _, n := range e.Notes() {
		if n.Type == NTPrstatus && int(le.Uint32(e.B[n.Desc+prstatusPID:])) == lwp {
			return e.B[n.Desc : n.Desc+n.Size]
		}
	}
	e.t.Fatalf("no thread %d in the core", lwp)
	return nil
}

// Forget turns a thread's PRSTATUS into a note that nobody knows.
func (e *Edit) Forget(lwp int) {
	e.t.Helper()
	for _, n := range e.Notes() {
		if n.Type == NTPrstatus && int(le.Uint32(e.B[n.Desc+prstatusPID:])) == lwp {
			le.PutUint32(e.B[n.Header+8:], 0x7fffffff)
			return
		}
	}
	e.t.Fatalf("no thread %d in the core", lwp)
}

// SetLWP gives a thread another id in its note.
func (e *Edit) SetLWP(from, to int) {
	e.t.Helper()
	le.PutUint32(e.prstatus(from)[prstatusPID:], uint32(to))
}

// Reg reads a thread's register.
func (e *Edit) Reg(lwp, reg int) uint64 {
	e.t.Helper()
	return le.Uint64(e.prstatus(lwp)[prstatusRegs+8*reg:])
}

// SetReg alters a thread's register.
func (e *Edit) SetReg(lwp, reg int, v uint64) {
	e.t.Helper()
	binary.LittleEndian.PutUint64(e.prstatus(lwp)[prstatusRegs+8*reg:], v)
}

// Files returns the entries of NT_FILE (fs/binfmt_elf.c, fill_files_note).
func (e *Edit) Files() []File {
	e.t.Helper()
	n := e.Note(NTFile)
	b := e.B[n.Desc : n.Desc+n.Size]
	count, page := int(le.Uint64(b)), le.Uint64(b[8:])
	names := bytes.Split(b[16+24*count:], []byte{0})
	out := make([]File, count)
	for i := range out {
		w := b[16+24*i:]
		out[i] = File{le.Uint64(w), le.Uint64(w[8:]), le.Uint64(w[16:]) * page, string(names[i])}
	}
	return out
}

// SetFiles replaces the list of mapped files.
func (e *Edit) SetFiles(files []File) {
	e.t.Helper()
	desc := le.AppendUint64(nil, uint64(len(files)))
	desc = le.AppendUint64(desc, 1)
	for _, f := range files {
		desc = le.AppendUint64(desc, f.Start)
		desc = le.AppendUint64(desc, f.End)
		desc = le.AppendUint64(desc, f.Off)
	}
	for _, f := range files {
		desc = append(append(desc, f.Path...), 0)
	}
	e.ReplaceNote(NTFile, desc)
}

// ReplaceNote gives the first note of owner CORE and a type other content. The
// notes move to the end of the file.
func (e *Edit) ReplaceNote(typ uint32, desc []byte) {
	e.t.Helper()
	n := e.Note(typ)
	done := false
	e.phdrs(func(l Load) {
		if l.typ != 4 || n.Header < int(l.Off) || n.Header >= int(l.Off+l.Filesz) {
			return
		}
		done = true
		notes := bytes.Clone(e.B[l.Off:n.Desc])
		le.PutUint32(notes[n.Header-int(l.Off)+4:], uint32(len(desc)))
		notes = append(notes, desc...)
		notes = append(notes, make([]byte, -len(desc)&3)...)
		notes = append(notes, e.B[n.Desc+(n.Size+3)&^3:l.Off+l.Filesz]...)
		e.B = append(e.B, make([]byte, -len(e.B)&(pageSize-1))...)
		le.PutUint64(e.B[l.Header+8:], uint64(len(e.B)))
		le.PutUint64(e.B[l.Header+32:], uint64(len(notes)))
		e.B = append(e.B, notes...)
	})
	if !done {
		e.t.Fatalf("note %#x lies in no segment", typ)
	}
}

// BuildID returns the bytes of the build ID in the image that starts at addr,
// where they may be altered; nil when its note isn't in the core.
func (e *Edit) BuildID(addr uint64) []byte {
	b := e.At(addr)
	if len(b) > pageSize {
		b = b[:pageSize]
	}
	// namesz 4, descsz 20, NT_GNU_BUILD_ID, "GNU" (gABI, chapter 5; SHA-1 ids)
	i := bytes.Index(b, []byte("\x04\x00\x00\x00\x14\x00\x00\x00\x03\x00\x00\x00GNU\x00"))
	if i < 0 || i+36 > len(b) {
		return nil
	}
	return b[i+16 : i+36]
}
