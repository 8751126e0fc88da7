// Package libthr reads the thread library's own structures in the target, to
// map an OS thread handle (a pthread_t, the address of a struct pthread) to a
// kernel thread (LWP) and back.
//
// On FreeBSD libthr's struct pthread starts with the LWP, and the library
// publishes the offsets of list and TCB and the list of its threads; tables of
// the releases are the check and the fall-back. A handle is confirmed there
// when its id is the LWP, the TCB in it points back to it, and neither thread
// pointer nor stack pointer contradict.
//
// Two C libraries of Linux are known. glibc publishes the offsets of its
// structures for debuggers (libthread_db) as data symbols, exact for the build
// at hand; constants are the check and the fall-back. musl publishes nothing;
// its offsets are found by trying the known ones on all threads.
//
// An offset alone is never trusted. A handle is confirmed when the thread
// pointer of an LWP leads to it, the structure points to itself where the
// library says so, and the id in it is that LWP, or differs from the LWPs in
// all threads alike because the target lives in a PID namespace of its own.
package libthr

import (
	"fmt"
	"slices"
	"sync"

	"mycore/internal/target"
)

// Kind names a thread library.
type Kind string

// The thread libraries that Discover recognises.
const (
	KindUnknown Kind = "unknown"
	KindGlibc   Kind = "glibc"
	KindMusl    Kind = "musl"
	KindLibthr  Kind = "libthr" // FreeBSD
)

// Warning codes of Discover.
const (
	CodeUnknownLibrary = "libthr-unknown-library" // no known thread library explains the threads
	CodeOffset         = "libthr-offset"          // the library's published offset isn't what the data show
	CodeTID            = "libthr-tid"             // ids in thread structures contradict the LWPs
	CodeUnreadable     = "libthr-unreadable"      // thread structures that the core doesn't hold
	CodeList           = "libthr-list"            // the library's list of threads is damaged
	CodeLayout         = "libthr-layout"          // the library publishes offsets of an unknown release
)

// SymbolSource gives the loaded images and their symbols. Both methods must be
// safe for concurrent use if the Library is used so.
type SymbolSource interface {
	// ModulePaths lists the recorded paths of the loaded images.
	ModulePaths() []string
	// LookupSymbol returns the run-time address of a symbol that the image of
	// this recorded path defines, from .dynsym or any other symbol table.
	LookupSymbol(path, symbol string) (target.Addr, bool)
}

// ThreadInfo is what the kernel tells about one thread.
type ThreadInfo struct {
	LWP int
	// ThreadPointer is fs_base on x86-64, tpidr_el0 on AArch64.
	ThreadPointer target.Value[target.Addr]
	// TargetTID is the thread's id in the target's own PID namespace where the
	// kernel told it (the last number of NSpid); usually unknown.
	TargetTID target.Value[int]
	// Regs are the thread's registers, nil unknown. On FreeBSD they lead to
	// thread structures where no symbol does, and the stack pointer is held
	// against the stack that a structure names. Discover keeps the pointer.
	Regs *target.Regs
}

// Options for Discover. Arch is needed.
type Options struct {
	Arch target.Arch
	OS   string // "freebsd"; all else is taken for Linux
}

// Field is a member of a structure: where it is and how that is known.
type Field struct {
	Offset uint64 // bytes from the start of the structure
	Size   uint64 // bytes
	Source target.Source
	Known  bool
}

// Layout is what is known about struct pthread.
type Layout struct {
	Size         Field // Offset unused; Size is sizeof(struct pthread)
	TID          Field // pid_t tid
	List         Field // list_t list: the node in the library's lists of stacks (glibc)
	StartRoutine Field // void *(*start_routine)(void *) (glibc)
}

// Thread is the thread library's view of one LWP.
type Thread struct {
	LWP           int
	ThreadPointer target.Value[target.Addr]

	// Handle is the thread's pthread_t. It is absent when nothing leads to it.
	// Its source is that of the thread pointer, or target.SourceMemory when it
	// was found on the library's lists because the thread pointer is unknown.
	Handle target.Value[target.Addr]

	// TargetTID is the id in the structure: the thread's id in the PID
	// namespace of the target. Its source says how the offset is known:
	// target.SourceSymbol (published by the library), target.SourceProfile
	// (built-in constant) or target.SourceSearch (found by trying).
	TargetTID target.Value[int]

	// StartRoutine is the function that pthread_create was given; absent for
	// the main thread.
	StartRoutine target.Value[target.Addr]

	// Stack is the thread's stack as the structure names it (FreeBSD): all of
	// it, not only what is in use. The initial thread's is the room that libthr
	// leaves for it.
	Stack target.Value[Range]
	// Name is the name that the program gave the thread, from the library's
	// memory (FreeBSD 12 and later); at most 63 bytes, text of the target.
	Name target.Value[string]

	// Confirmed: handle and LWP prove each other, see the package comment.
	Confirmed bool
	// Proof says in words what confirms a handle on FreeBSD; empty elsewhere.
	Proof string
	// Problem says why a thread isn't confirmed; empty otherwise.
	Problem string
}

// Namespace tells whether the target lives in a PID namespace other than that
// of the observer who numbered the LWPs.
type Namespace struct {
	Detected bool
	// Threads is the number of threads whose two ids show it.
	Threads int
	// ByKernel: the kernel's record (NSpid) confirms the ids of all of them;
	// else it is inferred from all ids differing one to one.
	ByKernel bool
}

// Library is the thread library of a target with the handles of its threads.
// It is safe for concurrent use.
type Library struct {
	Kind      Kind
	Module    string // recorded path of the image whose symbols were used; "" none
	Layout    Layout
	Namespace Namespace
	Warnings  []target.Warning

	mem      target.Memory
	symbols  SymbolSource
	arch     target.Arch
	profile  archProfile
	fbsd     *fbsd                // nil on Linux
	regs     map[int]*target.Regs // by LWP; FreeBSD only
	stacks   []fbsdStack
	threads  []Thread // by LWP
	byHandle []int    // indexes into threads, by handle; only known handles

	listOnce sync.Once
	listed   map[target.Addr]string // handle -> which list of glibc it is on
}

// maxPID is the largest id of a Linux thread: PID_MAX_LIMIT on 64-bit
// (include/linux/threads.h).
const maxPID = 4 << 20

// Threads returns all threads by LWP. The slice is shared: don't change it.
func (l *Library) Threads() []Thread { return l.threads }

// ByLWP returns the thread of an LWP.
func (l *Library) ByLWP(lwp int) (Thread, bool) {
	i, ok := slices.BinarySearchFunc(l.threads, lwp, func(t Thread, lwp int) int { return t.LWP - lwp })
	if !ok {
		return Thread{}, false
	}
	return l.threads[i], true
}

// ByHandle returns the thread whose handle this is, confirmed or not. Of two
// threads with one handle it is the confirmed one, else the lower LWP.
func (l *Library) ByHandle(h target.Addr) (Thread, bool) {
	i, ok := slices.BinarySearchFunc(l.byHandle, h, func(i int, h target.Addr) int {
		return compareAddr(l.threads[i].Handle.V, h)
	})
	if !ok {
		return Thread{}, false
	}
	return l.threads[l.byHandle[i]], true
}

func compareAddr(a, b target.Addr) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Discover finds the thread library and the handles of the threads. It fails
// only for an instruction set whose thread structures it doesn't know; all
// else that is missing is in the result's Warnings and each thread's Problem.
// symbols may be nil.
func Discover(mem target.Memory, symbols SymbolSource, threads []ThreadInfo, opts Options) (*Library, error) {
	prof, ok := archProfiles[opts.Arch]
	if !ok {
		return nil, fmt.Errorf("thread structures of instruction set %v: %w", opts.Arch, ErrUnsupported)
	}
	l := &Library{Kind: KindUnknown, mem: mem, symbols: symbols, arch: opts.Arch, profile: prof}
	l.threads = make([]Thread, 0, len(threads))
	for _, t := range threads {
		l.threads = append(l.threads, Thread{LWP: t.LWP, ThreadPointer: t.ThreadPointer})
	}
	slices.SortStableFunc(l.threads, func(a, b Thread) int { return a.LWP - b.LWP })
	if opts.OS == osFreeBSD {
		l.regs = make(map[int]*target.Regs, len(threads))
		for _, t := range threads {
			if t.Regs != nil {
				l.regs[t.LWP] = t.Regs
			}
		}
		l.discoverFreeBSD()
		l.index()
		return l, nil
	}
	kernelTID := make(map[int]int)
	for _, t := range threads {
		if t.TargetTID.Known {
			kernelTID[t.LWP] = t.TargetTID.V
		}
	}
	l.choose(kernelTID)
	l.fromLists(kernelTID)
	l.index()
	return l, nil
}

// index sorts the known handles and drops what can't be two threads' at once.
func (l *Library) index() {
	for i := range l.threads {
		if l.threads[i].Handle.Known {
			l.byHandle = append(l.byHandle, i)
		}
	}
	slices.SortFunc(l.byHandle, func(i, j int) int {
		a, b := &l.threads[i], &l.threads[j]
		if c := compareAddr(a.Handle.V, b.Handle.V); c != 0 {
			return c
		}
		if a.Confirmed != b.Confirmed {
			if a.Confirmed {
				return -1
			}
			return 1
		}
		return i - j
	})
	l.byHandle = slices.CompactFunc(l.byHandle, func(i, j int) bool {
		return l.threads[i].Handle.V == l.threads[j].Handle.V
	})
}

func (l *Library) warn(code, format string, args ...any) {
	l.Warnings = append(l.Warnings, target.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
}
