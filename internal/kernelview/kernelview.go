// Package kernelview holds the kernel's view of a process: what each thread
// waits for, which system call it is in, its signal masks, its name, and the
// open files. One set of types, filled from whichever source is at hand (notes
// of a core, a copied /proc tree, later procstat text), and the rule by which
// two such views of one process become one.
//
// Every field that a source may lack is a target.Value: absent is a state of
// its own, never zero.
package kernelview

import (
	"maps"
	"slices"
	"time"

	"mycore/internal/target"
)

// NoSyscall is Syscall.Number of a thread that is blocked in the kernel
// outside any system call (a page fault, its own exit): Linux prints -1 in
// /proc/PID/task/TID/syscall (fs/proc/base.c, proc_pid_syscall).
const NoSyscall = -1

// Syscall is the system call that a thread is in.
type Syscall struct {
	// Number is the call's number in the table of the target's operating
	// system and instruction set; NoSyscall when the thread is blocked outside
	// a call. Meaningless when Running.
	Number int64
	// Args are the six argument registers as the call got them.
	Args [6]uint64
	// Running: the thread was on a processor or ready for one; the kernel
	// doesn't tell its call then, and number and arguments are zero.
	Running bool
}

// InCall reports whether s names a system call.
func (s Syscall) InCall() bool { return !s.Running && s.Number >= 0 }

// Thread is the kernel's view of one thread.
//
// Signal masks have signal n in bit n-1. A Linux thread inside sigtimedwait
// shows the signals that it waits for as not blocked: the kernel opens them
// for the time of the wait (kernel/signal.c, do_sigtimedwait), so a server's
// signal thread differs from all others by design. All-zero masks of a core
// that gdb's gcore wrote on Linux are unknown, not zero; whoever fills this
// type from such a core leaves them absent.
type Thread struct {
	LWP   int   // the thread's id as the observer sees it: the key of Process.Threads
	NSPid []int // ids in each PID namespace, the observer's first, the target's own last (status, NSpid); nil unknown

	Name target.Value[string] // comm, at most 15 bytes on Linux, 19 on FreeBSD
	// State is the state's letter: R S D T t Z X I on Linux (fs/proc/array.c,
	// task_state_array); R S I D T L W Z on FreeBSD (bin/ps/print.c, state()).
	// From procstat text S is any sleep: its word doesn't tell S, I and D apart.
	State target.Value[string]

	// WaitChannel is the kernel function in which the thread sleeps (Linux
	// wchan) or its wait message (FreeBSD wmesg; a kernel lock's name after a
	// star, as procstat prints it). Absent when the source says
	// nothing: Linux writes "0" both for a thread that doesn't sleep and for a
	// reader without permission, so "0" is never "not waiting".
	WaitChannel target.Value[string]
	// WaitAddress is the kernel's address of what the thread waits for
	// (FreeBSD ki_wchan): threads that share it wait for the same object.
	WaitAddress target.Value[target.Addr]
	// Slept is for how long the thread has been asleep, in whole seconds
	// (FreeBSD ki_slptime, ps). Absent for a thread that doesn't sleep.
	Slept target.Value[time.Duration]

	Syscall target.Value[Syscall]
	SP      target.Value[target.Addr] // user stack pointer
	PC      target.Value[target.Addr] // user program counter

	SigBlocked target.Value[uint64]
	SigPending target.Value[uint64] // pending for this thread alone
	SigIgnored target.Value[uint64] // a property of the process, repeated per thread
	SigCaught  target.Value[uint64] // likewise

	TracerPID target.Value[int] // 0: known not to be traced

	// KernelStack holds function names, innermost first, without offsets.
	KernelStack target.Value[[]string]
}

// FileKind tells what stands behind a descriptor, as far as the source does. A
// link of a Linux /proc doesn't tell a FIFO with a path from a file: both have
// KindPath there. FreeBSD's records do.
type FileKind string

// The kinds of open files.
const (
	KindPath   FileKind = "path"   // a name in the file system: file, directory, device, FIFO
	KindFIFO   FileKind = "fifo"   // a FIFO; only sources that know the file's type say so
	KindPipe   FileKind = "pipe"   // an unnamed pipe, pipe:[inode]
	KindSocket FileKind = "socket" // socket:[inode]
	KindAnon   FileKind = "anon"   // anon_inode:..., memfd and other objects without a name
	KindOther  FileKind = "other"  // any other text, kept as it is
)

// File is one open descriptor of the process.
type File struct {
	FD      int
	Path    string // the link's text, without a trailing " (deleted)"
	Kind    FileKind
	Inode   uint64 // of pipes and sockets; 0 unknown
	Deleted bool   // the kernel marks the name as unlinked

	// For sockets whose inode was found in a table of net/: the protocol
	// (tcp, tcp6, udp, udp6, unix), addresses as host:port or a socket's
	// path, and the state ("LISTEN", "ESTABLISHED", ...; empty for udp).
	Protocol, Local, Peer, SocketState string

	Flags target.Value[uint64] // open flags (fdinfo, octal there)
	Pos   target.Value[int64]  // file position

	Source target.Source
}

// Mapping is one line of the address space as the kernel prints it.
type Mapping struct {
	Start, End target.Addr // End is the first address after the mapping
	Perm       string      // "r-xp"
	Off        uint64      // file offset of Start
	Inode      uint64      // 0 for anonymous memory
	Path       string      // path, "[heap]", "[stack]", ...; empty for anonymous memory
}

// Process is the kernel's view of one process. It isn't changed after it has
// been filled or joined, and is then safe for concurrent reads.
type Process struct {
	PID    target.Value[int] // thread group id as the observer sees it
	NSPid  []int             // ids of the process in each PID namespace, the observer's first; nil unknown
	NSTgid []int             // the same for the thread group (status, NStgid)

	PPID          target.Value[int]
	Name          target.Value[string]
	State         target.Value[string]
	Args          target.Value[[]string]
	Cwd           target.Value[string] // working directory, for relative paths
	Exe           target.Value[string] // path of the executable (FreeBSD: the descriptor named text)
	TracerPID     target.Value[int]
	ThreadCount   target.Value[int]    // what the kernel said; len(Threads) may be less in a partial copy
	StartTicks    target.Value[uint64] // start of the process in clock ticks since boot (stat, field 22)
	SharedPending target.Value[uint64] // signals pending for the process
	SigIgnored    target.Value[uint64]
	SigCaught     target.Value[uint64]

	Threads    map[int]*Thread // by LWP
	Sightings  []Sighting      // threads seen without their ids, in the order of the text
	Files      []File          // by descriptor; see FilesKnown
	FilesKnown bool            // Files is the descriptor table, even if empty
	Mappings   []Mapping       // by address; nil unknown
	Warnings   []target.Warning
}

// LWPs returns the ids of the threads in ascending order.
func (p *Process) LWPs() []int { return slices.Sorted(maps.Keys(p.Threads)) }

// File returns the open file of descriptor fd.
func (p *Process) File(fd int) (File, bool) {
	i, ok := slices.BinarySearchFunc(p.Files, fd, func(f File, fd int) int { return f.FD - fd })
	if !ok {
		return File{}, false
	}
	return p.Files[i], true
}

// TargetID is the thread's id in the innermost PID namespace, which is the one
// that the target itself sees; ok is false when no source told it.
func (t *Thread) TargetID() (int, bool) {
	if len(t.NSPid) == 0 {
		return 0, false
	}
	return t.NSPid[len(t.NSPid)-1], true
}
