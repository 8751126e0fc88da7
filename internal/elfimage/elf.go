// Package elfimage reads one ELF image, from a file or from the memory of a
// target, without trusting a byte of it.
//
// It serves cores (header, program headers, notes; section headers are never
// needed, so a core that lost its tail still opens) and binaries and debug
// files (sections, symbols, build ID, debug links). It knows nothing of
// processes, threads or what the notes of a core mean: that is elfcore.
//
// A File is immutable after opening and safe for concurrent use. File contents
// are read with pread through a bounded cache, never mapped: a mapped file that
// shrinks, or a network file system that fails, would end the program.
package elfimage

import (
	"errors"

	"mycore/internal/target"
)

// Errors that callers branch on.
var (
	// ErrNotELF: the bytes aren't an ELF image; the message says what they are
	// where that is cheap to tell.
	ErrNotELF = errors.New("not an ELF file")
	// ErrNotRegular: the path is a directory, FIFO, socket or device, which are
	// never opened.
	ErrNotRegular = errors.New("not a regular file")
	// ErrUnsupported: ELF, but of a kind that isn't read here (big-endian).
	ErrUnsupported = errors.New("unsupported ELF file")
	// ErrFormat: ELF whose tables contradict themselves or leave the file.
	ErrFormat = errors.New("malformed ELF file")
	// ErrNoBytes: the image has no bytes in the file for this address.
	ErrNoBytes = errors.New("no bytes in the file for this address")
	// ErrNoSection: there is no such section or table.
	ErrNoSection = errors.New("no such section")
)

// NotELFError is ErrNotELF with what the bytes are instead.
type NotELFError struct {
	What string // a few words: "empty file", "gzip data", "text"
}

// Error is one line.
func (e *NotELFError) Error() string { return ErrNotELF.Error() + " (" + e.What + ")" }

// Unwrap gives ErrNotELF.
func (e *NotELFError) Unwrap() error { return ErrNotELF }

// Class is the word size of an image, as in EI_CLASS.
type Class uint8

// The two word sizes (gABI, e_ident[EI_CLASS]).
const (
	Class32 Class = 1
	Class64 Class = 2
)

// Bits returns 32 or 64.
func (c Class) Bits() int {
	if c == Class32 {
		return 32
	}
	return 64
}

// Type is e_type.
type Type uint16

// Object file types (gABI, e_type).
const (
	TypeRel  Type = 1 // relocatable object
	TypeExec Type = 2 // executable at fixed addresses
	TypeDyn  Type = 3 // shared object or position independent executable
	TypeCore Type = 4 // core file
)

// String names the type in words for messages.
func (t Type) String() string {
	switch t {
	case TypeRel:
		return "ELF object file"
	case TypeExec:
		return "ELF executable"
	case TypeDyn:
		return "ELF shared object or executable"
	case TypeCore:
		return "ELF core file"
	}
	return "ELF file of unknown type"
}

// OSABI values of e_ident[EI_OSABI] (gABI and the supplements of each system).
const (
	OSABINone    = 0 // also what Linux cores carry
	OSABILinux   = 3
	OSABIFreeBSD = 9
)

// Segment types (gABI p_type; the GNU ones from the Linux Standard Base).
const (
	PTNull       uint32 = 0
	PTLoad       uint32 = 1
	PTDynamic    uint32 = 2
	PTInterp     uint32 = 3
	PTNote       uint32 = 4
	PTPhdr       uint32 = 6
	PTTLS        uint32 = 7
	PTGNUEhFrame uint32 = 0x6474e550
	PTGNURelro   uint32 = 0x6474e552
)

// Segment permissions (gABI p_flags).
const (
	PFX uint32 = 1
	PFW uint32 = 2
	PFR uint32 = 4
)

// Section types and flags that are used here (gABI sh_type, sh_flags).
const (
	SHTSymtab     uint32 = 2
	SHTNote       uint32 = 7
	SHTNobits     uint32 = 8
	SHTDynsym     uint32 = 11
	SHFAlloc      uint64 = 0x2
	SHFCompressed uint64 = 0x800
)

// Dynamic tags that are used here (gABI d_tag; DT_GNU_HASH and DT_VERSYM from
// the Linux Standard Base).
const (
	DTNull    int64 = 0
	DTHash    int64 = 4
	DTStrtab  int64 = 5
	DTSymtab  int64 = 6
	DTStrsz   int64 = 10
	DTSyment  int64 = 11
	DTSoname  int64 = 14
	DTDebug   int64 = 21
	DTGNUHash int64 = 0x6ffffef5
	DTVersym  int64 = 0x6ffffff0
)

// Limits. Each bounds what a forged count can cost.
const (
	// MaxProgs bounds program headers. Linux allows 65,530 mappings unless
	// vm.max_map_count was raised; 2^19 headers take 28 MiB of memory.
	MaxProgs = 1 << 19
	// maxMemoryProgs bounds the program headers of an image in memory: they lie
	// in its first page, which has room for 72.
	maxMemoryProgs = 256
	// MaxSections bounds section headers: objects with a section per function
	// reach 10^5, linked files a few hundred.
	MaxSections = 1 << 18
	// MaxNoteName bounds an owner name; the longest in use has 8 characters.
	MaxNoteName = 256
	// MaxNotes bounds the notes of one image: ten notes for each of 10^5 threads.
	MaxNotes = 1 << 20
	// MaxSymbolName bounds one symbol name; C++ template names reach 10^4.
	MaxSymbolName = 64 << 10
	// MaxSymbols bounds one symbol table; Chromium's debug file has 3*10^6.
	MaxSymbols = 1 << 24
	// MaxDyn bounds the dynamic table; large programs have 100 entries.
	MaxDyn = 1 << 14
	// maxStrings bounds the section name table.
	maxStrings = 16 << 20
	// maxPath bounds interpreter, soname and debug link strings (PATH_MAX).
	maxPath = 4096
	// maxBuildID bounds a build ID; 20 bytes is usual, 64 is a SHA-512.
	maxBuildID = 64
)

// Prog is one program header, in file order.
type Prog struct {
	Type, Flags  uint32
	Off          uint64 // file offset of the segment's bytes
	Vaddr, Paddr uint64 // link-time address; in a core the target's address
	Filesz       uint64 // bytes in the file
	Memsz        uint64 // bytes in memory
	Align        uint64
}

// Section is one section header.
type Section struct {
	Name       string
	Type       uint32
	Flags      uint64
	Addr, Off  uint64
	Size       uint64 // bytes in the file, before decompression
	Link, Info uint32
	Entsize    uint64
}

// Dyn is one entry of the dynamic table.
type Dyn struct {
	Tag int64
	Val uint64
}

// header is the ELF header in one form for both classes.
type header struct {
	class      Class
	osabi      uint8
	abiVersion uint8
	typ        Type
	machine    uint16
	entry      uint64
	phoff      uint64
	shoff      uint64
	flags      uint32
	phentsize  uint16
	phnum      uint16
	shentsize  uint16
	shnum      uint16
	shstrndx   uint16
}

// Machine numbers (gABI e_machine).
const (
	Machine386     = 3
	MachineARM     = 40
	MachineS390    = 22
	MachinePPC64   = 21
	MachineAMD64   = 62
	MachineAArch64 = 183
	MachineRISCV   = 243
)

func archOf(machine uint16, c Class) target.Arch {
	switch machine {
	case Machine386:
		return target.I386
	case MachineARM:
		return target.ARM
	}
	if c != Class64 { // x32 and the 32-bit RISC-V have other layouts
		return target.ArchUnknown
	}
	switch machine {
	case MachineAMD64:
		return target.AMD64
	case MachineAArch64:
		return target.ARM64
	case MachineRISCV:
		return target.RISCV64
	case MachinePPC64:
		return target.PPC64
	case MachineS390:
		return target.S390X
	}
	return target.ArchUnknown
}
