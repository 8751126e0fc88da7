// Package target holds the few types that every floor of mycore shares about
// the program under examination: addresses, machine registers, the memory
// interface with its four kinds of failure, and provenance.
//
// It knows no file format and no operating system; it only names things.
package target

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Addr is a virtual address of the target process, never one of mycore's own.
type Addr uint64

// String prints the address the way the field writes it: 0x and lower-case hex.
func (a Addr) String() string { return fmt.Sprintf("%#x", uint64(a)) }

// Arch is an instruction set, with the conventions (byte order, pointer size)
// that mycore needs to read its images.
type Arch uint8

// The instruction sets that mycore recognises. Only AMD64 is unwound.
const (
	ArchUnknown Arch = iota
	AMD64
	ARM64
	I386
	ARM
	RISCV64
	PPC64
	S390X
)

var archNames = [...]string{"unknown", "amd64", "arm64", "i386", "arm", "riscv64", "ppc64", "s390x"}

// String returns the Go-style name of the instruction set ("amd64").
func (a Arch) String() string {
	if int(a) < len(archNames) {
		return archNames[a]
	}
	return "unknown"
}

// The four ways in which target memory can be absent. They are different
// facts: callers branch on them with errors.Is, users read them in warnings.
var (
	// ErrNotMapped: the address belongs to no mapping of the process.
	ErrNotMapped = errors.New("not mapped")
	// ErrNotDumped: the process had the address mapped, but the core's writer
	// left the bytes out (coredump_filter, MADV_DONTDUMP, gcore's rules).
	ErrNotDumped = errors.New("mapped but not dumped")
	// ErrTruncated: the core promises the bytes, but the file ends before them.
	ErrTruncated = errors.New("core truncated here")
	// ErrFileMissing: the bytes are those of a file that was mapped, and that
	// file (with the right build ID) was not found.
	ErrFileMissing = errors.New("file behind it missing")
)

// ReadError says which read of target memory was not possible and why. It
// unwraps to one of the four sentinels above, or to an I/O error.
type ReadError struct {
	Addr Addr   // first address that could not be read
	Len  int    // bytes wanted from Addr on
	File string // the mapped file's recorded path, when one stands behind Addr
	Err  error
}

// Error is one line with the address in hex.
func (e *ReadError) Error() string {
	if e.File != "" {
		return fmt.Sprintf("reading %d bytes at %#x (%q): %v", e.Len, uint64(e.Addr), e.File, e.Err)
	}
	return fmt.Sprintf("reading %d bytes at %#x: %v", e.Len, uint64(e.Addr), e.Err)
}

// Unwrap gives the reason.
func (e *ReadError) Unwrap() error { return e.Err }

// Memory is read-only access to a target's address space. ReadMemory fills p
// from addr; n < len(p) comes with an error, always a *ReadError whose Addr is
// the first byte that is missing. The n bytes before it are good.
// Implementations are safe for concurrent use.
type Memory interface {
	ReadMemory(addr Addr, p []byte) (n int, err error)
}

// Uint64 reads a little-endian 64-bit word.
func Uint64(m Memory, a Addr) (uint64, error) {
	var b [8]byte
	if _, err := m.ReadMemory(a, b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// Uint32 reads a little-endian 32-bit word.
func Uint32(m Memory, a Addr) (uint32, error) {
	var b [4]byte
	if _, err := m.ReadMemory(a, b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}

// CString reads a NUL-terminated string of at most max bytes. Without a NUL in
// that span it returns the bytes read and ErrUnterminated; when memory ends
// first, the bytes before the hole and the *ReadError.
func CString(m Memory, a Addr, max int) (string, error) {
	const step = 128 // most paths fit; a string never costs a page of copying
	var out []byte
	for len(out) < max {
		buf := make([]byte, min(step, max-len(out)))
		n, err := m.ReadMemory(a+Addr(len(out)), buf)
		for i, c := range buf[:n] {
			if c == 0 {
				return string(append(out, buf[:i]...)), nil
			}
		}
		out = append(out, buf[:n]...)
		if err != nil {
			return string(out), err
		}
	}
	return string(out), fmt.Errorf("string at %#x: %w after %d bytes", uint64(a), ErrUnterminated, max)
}

// ErrUnterminated is returned by CString when no NUL came within its limit.
var ErrUnterminated = errors.New("no terminating NUL")

// Source says where a value came from. The texts are part of the JSON contract.
type Source string

// The sources of design version 1, in no order of trust.
const (
	SourceCoreNote     Source = "core-note"     // a note of the core file
	SourceRegisters    Source = "registers"     // general registers of a thread, from its note
	SourceMemory       Source = "memory"        // memory of the target
	SourceSymbol       Source = "symbol"        // a symbol table of the binary
	SourceCFI          Source = "cfi"           // call frame information
	SourceCode         Source = "code"          // disassembled instructions of the binary
	SourceDWARF        Source = "dwarf"         // debugging information
	SourceAccessor     Source = "accessor"      // code of an exported accessor function
	SourceProfile      Source = "profile"       // a layout profile shipped as data
	SourceSearch       Source = "search"        // structure search: heuristic
	SourceProcstat     Source = "procstat"      // procstat text
	SourcePS           Source = "ps"            // ps text
	SourceProc         Source = "proc"          // a copied /proc tree
	SourceProcesslist  Source = "processlist"   // SHOW PROCESSLIST text
	SourceInnoDBStatus Source = "innodb-status" // SHOW ENGINE INNODB STATUS text
	SourceErrorLog     Source = "error-log"     // the server's error log
	SourceKernelLog    Source = "kernel-log"    // the kernel's log
	SourceLive         Source = "live"          // the running system
	SourceFilesystem   Source = "filesystem"    // the file system of the machine mycore runs on
)

// Kind groups sources for the rule that "certain" needs two independent
// kinds: two readings of one kind are one source.
func (s Source) Kind() string {
	switch s {
	case SourceCoreNote, SourceProcstat, SourcePS, SourceProc, SourceLive, SourceKernelLog:
		return "kernel-record"
	case SourceRegisters:
		return "registers"
	case SourceMemory, SourceSymbol, SourceCFI, SourceCode, SourceDWARF, SourceAccessor, SourceProfile, SourceSearch:
		return "target-memory"
	case SourceProcesslist, SourceInnoDBStatus, SourceErrorLog:
		return "server-text"
	case SourceFilesystem:
		return "filesystem"
	}
	return string(s)
}

// Value is something read from the target together with where it came from.
// The zero Value is absent: absent is never the zero of T.
type Value[T any] struct {
	V      T
	Source Source
	Known  bool
}

// Known makes a present Value.
func Known[T any](v T, s Source) Value[T] { return Value[T]{V: v, Source: s, Known: true} }

// Warning is something the result lacks: a stable code, and a sentence that
// says what is missing, what that costs, and what to do. Text may hold bytes
// of the target; it is escaped where it is shown.
type Warning struct {
	Code string
	Text string
}
