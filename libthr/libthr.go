// Package libthr reads the thread library's own structures in the target, to
// map an OS thread handle (a pthread_t, the address of a struct pthread) to a
// kernel thread (LWP) and back.
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
)

// Warning codes of Discover.
const (
	CodeUnknownLibrary = "libthr-unknown-library" // no known thread library explains the threads
	CodeOffset         = "libthr-offset"          // the library's published offset isn't what the data show
	CodeTID            = "libthr-tid"             // ids in thread structures contradict the LWPs
	CodeUnreadable     = "libthr-unreadable"      // thread structures that the core doesn't hold
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
}

// Options for Discover. Arch is needed.
type Options struct {
	Arch target.Arch
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

	// Confirmed: handle and LWP prove each other, see the package comment.
	Confirmed bool
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
	profile  archProfile
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
	l := &Library{Kind: KindUnknown, mem: mem, symbols: symbols, profile: prof}
	l.threads = make([]Thread, 0, len(threads))
	for _, t := range threads {
		l.threads = append(l.threads, Thread{LWP: t.LWP, ThreadPointer: t.ThreadPointer})
	}
	slices.SortStableFunc(l.threads, func(a, b Thread) int { return a.LWP - b.LWP })
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
