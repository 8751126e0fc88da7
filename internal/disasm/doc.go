// Package disasm answers questions about x86-64 machine code: does this
// address follow a call, which system call number did this code load, and
// where is the argument that this function was called with, now that its
// register has been used for other things.
//
// Instructions are decoded by golang.org/x/arch/x86/x86asm behind a guard that
// turns panics into errors, and every length is checked against a decoder of
// this package: two decoders that disagree are an error, never a guess. The
// instructions that x86asm doesn't know get a conservative meaning (whatever
// they could write is unknown afterwards).
//
// Argument recovery is an abstract interpretation of one function: every
// register and stack slot holds either what some register held at entry, a
// constant, an address in the frame, a named unknown, or nothing known. States
// of paths that meet are joined, so that a location counts only when it holds
// on all of them. What cannot be followed (an indirect jump with unknown
// targets, an undecodable instruction, a limit) fails the analysis. The one
// assumption beyond the psABI: no exception was caught in the frame through a
// handler outside the function's own code range.
//
// Trace asks the other way round: what does a short function do with what it
// was given? It keeps paths apart and values as expressions of the arguments
// (a load of eight bytes at the first argument + 0x1b70), through registers,
// the stack, null checks, and calls of functions of the same image. Layouts of
// structures are read from accessors that way.
//
// Callee-saved registers, argument registers and the red zone are those of the
// System V psABI, AMD64 supplement, sections 3.2.1 to 3.2.3.
package disasm

import "errors"

// The reasons for which a question has no answer. All are wrapped with the
// address that they are about.
var (
	// ErrUndecodable: the bytes are no instruction that this package knows.
	ErrUndecodable = errors.New("undecodable instruction")
	// ErrIndirect: an indirect jump inside the function has unknown targets.
	ErrIndirect = errors.New("indirect jump with unknown targets")
	// ErrOutside: the code jumps to a part of the function that isn't at hand.
	ErrOutside = errors.New("jump to code that isn't available")
	// ErrTooBig: a limit on size or work was reached.
	ErrTooBig = errors.New("function too big to analyse")
	// ErrUnreached: no path from the function's entry leads to the address.
	ErrUnreached = errors.New("no path from the function's entry leads there")
	// ErrLost: the value is in no register or stack slot any more.
	ErrLost = errors.New("value is not held anywhere any more")
	// ErrAmbiguous: several values are possible.
	ErrAmbiguous = errors.New("several values are possible")
	// ErrNotHeld: a location exists, but the frame's register or memory that
	// holds it isn't known.
	ErrNotHeld = errors.New("location can't be read")
	// ErrMismatch: what the code predicts and what the frame shows differ.
	ErrMismatch = errors.New("frame and code disagree")
)

// Limits. The largest functions of MySQL and MariaDB (the parser, 150 KB of
// code in some builds) stay below the first two; work is bounded by the third,
// some tens of milliseconds.
const (
	maxCode  = 256 << 10 // bytes of code in one part of a function
	maxParts = 6         // the function and its cold parts
	maxSteps = 200_000   // instructions interpreted, all passes together
	maxInsns = 65_536    // instructions decoded
	maxSlots = 192       // stack slots tracked in one state
	maxTable = 1024      // entries of one jump table
	maxConst = 8         // numbers in one set of constants
	maxRound = 24        // restarts after new jump targets came to light
)
