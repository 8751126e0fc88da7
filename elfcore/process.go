// Package elfcore opens a core file as a Process: the address space, threads
// with their registers, mappings, loaded images, and the warnings met on the
// way.
//
// It knows the notes that kernels and debuggers write, and nothing of any
// server, thread library or symbol: those are the layers above. It reads
// Linux and FreeBSD cores of x86-64 and AArch64 in full; of other machines
// threads by LWP, mappings and images.
//
// Memory is spliced. Take a library of which the core holds only the first
// page of the text and all of the data:
//
//	7f00_0000_0000  4 KiB in the core       -> core
//	7f00_0000_1000  rest of the text        -> the file that was mapped
//	7f00_0020_0000  data, in the core       -> core
//	7f00_0030_0000  mapped, not dumped      -> ErrNotDumped
//	7f00_0040_0000  mapped by nobody        -> ErrNotMapped
//
// and where the core file ends before bytes it promises, ErrTruncated.
package elfcore

import (
	"sync"

	"mycore/internal/elfimage"
	"mycore/internal/target"
)

// Limits. Each bounds what a forged count can cost; reaching one is a warning.
const (
	// MaxThreads: Linux's default pid_max on large machines is 4 million, but
	// no server comes near this; 2^17 threads take some 80 MiB.
	MaxThreads = 1 << 17
	// maxFileNote bounds NT_FILE. The kernel gives up at 4 MiB
	// (fs/binfmt_elf.c, MAX_FILE_NOTE_SIZE), newer ones at a sysctl of at most
	// 16 MiB.
	maxFileNote = 16 << 20
	// maxAuxv bounds NT_AUXV: the kernel writes some 20 entries.
	maxAuxv = 64 << 10
	// maxPath bounds recorded paths (PATH_MAX and " (deleted)").
	maxPath = 4096 + 16
	// coreCacheBytes bounds the page cache of the core.
	coreCacheBytes = 16 << 20
	// maxImages bounds the list of loaded images: 30 in a server, hundreds in
	// a desktop program.
	maxImages = 1 << 14
	// maxWarnings bounds repeated warnings of one kind of damage.
	maxWarnings = 64
)

// Process is the process in a core. It is immutable after Open and safe for
// concurrent use; WithBacking makes a second view of the same process.
type Process struct {
	*core
	backing Backing
	trace   func(addr target.Addr, n int)
}

// core is what all views of one process share.
type core struct {
	path  string
	file  *elfimage.File
	input input

	info     Info
	threads  []*Thread
	byLWP    map[int]*Thread
	maps     []Mapping
	auxv     map[uint64]uint64
	files    []fileEntry
	warnings []target.Warning
	warned   map[string]int // by code
	notes    noteOrder

	missing, total int64
	anonDumped     bool // some private writable anonymous memory is in the core
	codeMask       uint64
	codeMaskKnown  bool

	images []Image

	freebsd *fbsdCore // nil for other systems

	stackOnce sync.Once
	stacks    StackCheck
}

// Info is what the core says about the process as a whole.
type Info struct {
	OS   string // "linux" or "freebsd"
	Arch target.Arch

	PID, PPID target.Value[int]
	Command   target.Value[string] // short name, at most 15 bytes on Linux, 16 on FreeBSD
	Args      target.Value[string] // first 79 bytes of the command line on Linux, 80 on FreeBSD
	UID, GID  target.Value[int]

	Exe       target.Value[string]      // path of the executable (FreeBSD)
	OSRel     target.Value[int]         // __FreeBSD_version of the kernel: 1400008
	ExeOSRel  target.Value[int]         // of the system that the executable was made for
	PSStrings target.Value[target.Addr] // struct ps_strings, which leads to arguments and environment (FreeBSD)

	Writer       string // WriterKernel, WriterGDB, WriterGcore or WriterUnknown
	WriterReason string // the evidence for it, in words

	// Signal is what ended the process; nil when the core was made by a tool
	// of a process that went on, or doesn't say.
	Signal *Siginfo
}

// Who wrote a core.
const (
	WriterKernel  = "kernel"
	WriterGDB     = "gdb gcore"
	WriterGcore   = "gcore" // FreeBSD's gcore(1)
	WriterUnknown = "unknown"
)

// Siginfo is the part of a siginfo_t that is filled for the kind of signal.
type Siginfo struct {
	Signo, Code, Errno int
	PID, UID           target.Value[int]         // the sender, for signals sent by a process
	Addr               target.Value[target.Addr] // the faulting address, for faults
}

// Thread is one thread as the notes show it.
type Thread struct {
	LWP  int // kernel thread id, as the writer of the core saw it
	Regs target.Regs

	// ThreadPointer is fs_base on x86-64 and tpidr_el0 on AArch64.
	ThreadPointer target.Value[target.Addr]
	// Flags is rflags on x86-64 and pstate on AArch64.
	Flags target.Value[uint64]
	// OrigSyscall is the number of the system call the thread was in; absent
	// when it was in none or the core doesn't say. On FreeBSD it is there for
	// threads asleep in the kernel only: see SyscallState for the others.
	OrigSyscall target.Value[int64]
	// SigBlocked and SigPending are masks: signal n is bit n-1. Absent, not
	// zero, where the writer doesn't record them (gdb's gcore on Linux).
	SigBlocked, SigPending target.Value[uint64]
	// CurSig is the signal in PRSTATUS; FreeBSD's kernel repeats that of the
	// process in every thread, and its gcore leaves it 0.
	CurSig  int
	Siginfo *Siginfo // of this thread, where the writer records one
	Name    target.Value[string]
}

// Close releases the core file and, for a compressed core, its unpacked copy.
// Views made by WithBacking share it.
func (p *Process) Close() error { return p.input.close() }

// Path returns the path that Open was given.
func (p *Process) Path() string { return p.path }

// Size returns the size of the core in bytes, unpacked if it was compressed.
func (p *Process) Size() int64 { return p.file.Size() }

// Compression returns "gzip", "zstd", "xz", "lz4", or "" for a plain core.
func (p *Process) Compression() string { return p.input.format }

// Info returns what the core says about the process as a whole.
func (p *Process) Info() Info { return p.info }

// Threads returns the threads in note order: in kernel cores the one that
// took the signal comes first. The slice is shared: don't change it.
func (p *Process) Threads() []*Thread { return p.threads }

// Thread returns the thread with that LWP, nil if there is none.
func (p *Process) Thread(lwp int) *Thread { return p.byLWP[lwp] }

// Auxv returns the value of one entry of the auxiliary vector (AT_*).
func (p *Process) Auxv(tag uint64) (uint64, bool) {
	v, ok := p.auxv[tag]
	return v, ok
}

// Truncated returns how many bytes of memory that the core promises lie behind
// the end of the file, and how many it promises in all. When the file ends
// inside the program header table, only the segments before that are counted.
func (p *Process) Truncated() (missingBytes, totalBytes int64) { return p.missing, p.total }

// Warnings returns what the result lacks, in the order in which it was found.
// The slice is a copy.
func (p *Process) Warnings() []target.Warning {
	out := append([]target.Warning(nil), p.warnings...)
	switch s := p.ZeroStacks(); {
	case s.Lost:
		out = append(out, s.warning(p.info.Writer))
	case s.noMemory():
		out = append(out, s.noMemoryWarning())
	}
	return out
}

// StripCode removes what a processor stores in the unused upper bits of a code
// address: the pointer authentication code of AArch64, as far as the core says
// which bits those are. Other addresses come back unchanged.
func (p *Process) StripCode(a target.Addr) target.Addr {
	if !p.codeMaskKnown {
		return a
	}
	const upperHalf = 1 << 55 // Arm ARM: bit 55 selects the address range
	if a&upperHalf != 0 {
		return a | target.Addr(p.codeMask)
	}
	return a &^ target.Addr(p.codeMask)
}
