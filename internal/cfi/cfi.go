// Package cfi reads call frame information: the tables by which a compiler
// says, for every instruction of a function, where the caller's registers are.
//
// It knows no ELF and no process. It gets bytes by link-time address from a
// Reader, finds the one entry that covers a program counter (by bisecting
// .eh_frame_hdr where there is one, so that the other tens of thousands are
// never looked at), runs its program up to that address, and gives the row of
// rules that holds there. Applying a row to registers and memory is the work
// of internal/unwind; the expressions that some rules contain are evaluated
// here, by Evaluator.
//
// Sources of the format: DWARF 5 section 6.4 and appendix D.6, Linux Standard
// Base Core 5.0 section 10.6 (.eh_frame, .eh_frame_hdr), System V psABI AMD64
// section 3.6, and "DWARF for the Arm 64-bit Architecture" for the PAC state.
//
// Bytes are not trusted: every length is held against what contains it, and
// every loop against a limit below.
package cfi

import (
	"errors"
	"fmt"

	"mycore/internal/target"
)

// Reader gives the bytes of an image by link-time address. A read that
// crosses into bytes that don't exist returns the n bytes before them and an
// error; those n bytes are used. Implementations are safe for concurrent use.
type Reader interface {
	ReadVaddr(vaddr uint64, p []byte) (n int, err error)
}

// Limits for what a table may ask of us. The measured values are those of
// Debian's MariaDB 10.11, glibc 2.36 and MySQL 5.6.
const (
	// maxEntry bounds the bytes of one CIE or FDE. The longest measured has 312
	// bytes; the program inside is what Row runs through.
	maxEntry = 64 << 10
	// maxIndex bounds the entries of a table that has no search table and so
	// is indexed by a walk, at 24 bytes each. Debian's MariaDB has 35,492, a
	// Chromium build about a million.
	maxIndex = 1 << 20
	// maxSection bounds the bytes that such a walk reads.
	maxSection = 256 << 20
	// maxHdr bounds the search table of .eh_frame_hdr, 8 bytes for each entry.
	// It is bisected in place, so this costs nothing.
	maxHdr = 64 << 20
	// maxRemember bounds the stack of DW_CFA_remember_state. Compilers nest
	// two or three deep.
	maxRemember = 64
	// maxExprs bounds the expressions in one CFA program; __restore_rt of
	// glibc has one for each register.
	maxExprs = 1024
	// maxCached bounds the entries kept per table. The 531 threads of a busy
	// server need a few hundred.
	maxCached = 1 << 15
	// maxSteps bounds the CFA instructions run over the life of one table; the
	// 500-connection cores need some ten thousand. Past it Row returns an
	// error, so that a forged table can't take minutes.
	maxSteps = 1 << 26
)

// ErrNoFDE says that no entry covers the program counter. It is a normal
// answer: assembler code and some PLTs have none.
var ErrNoFDE = errors.New("no call frame information")

// ErrUnsupported says that the table uses something valid that this package
// doesn't read: an instruction set, a CIE version, an augmentation letter.
var ErrUnsupported = errors.New("unsupported call frame information")

// FormatError says at which link-time address the table contradicts the
// format, and how.
type FormatError struct {
	Addr uint64
	Msg  string
	Err  error // the read error behind it, ErrUnsupported, or nil
}

// Error is one line with the address in hex.
func (e *FormatError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("call frame information at %#x: %s: %v", e.Addr, e.Msg, e.Err)
	}
	return fmt.Sprintf("call frame information at %#x: %s", e.Addr, e.Msg)
}

// Unwrap gives the reason, if there is one below the message.
func (e *FormatError) Unwrap() error { return e.Err }

func pointerSize(arch target.Arch) int {
	switch arch {
	case target.AMD64, target.ARM64, target.RISCV64, target.PPC64, target.S390X:
		return 8
	case target.I386, target.ARM:
		return 4
	}
	return 0
}
