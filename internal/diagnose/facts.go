// Package diagnose turns facts about a process into labels, roles, groups and
// a verdict. Rules, roles and remedies are YAML files in this package: a rule
// is a condition over typed facts, never code. If a rule needs a fact that
// isn't here, the fact is added in Go and given a name.
//
// The package reads no core and no ELF: internal/analyze collects the facts
// and puts the result into the incident. Conclusions depend on the facts
// alone, so the same facts give the same result, byte for byte.
package diagnose

import (
	"time"

	"mycore/internal/target"
)

// Input is everything the rules may look at.
type Input struct {
	OS      string // "linux" or "freebsd"
	Arch    string // "amd64", "arm64", ...
	Process Process
	Server  Server
	Threads []Thread // any order; results are ordered by LWP
	// Paths says what stands under a path that a thread is opening, by the
	// path as Thread.Syscall.Path gives it (joined with Dir when relative).
	Paths map[string]PathFact
}

// Process holds the facts of the process as a whole.
type Process struct {
	PID     int       // as the observer sees it; 0 when unknown
	Started time.Time // start of the process; zero when unknown
	// Alive says whether the process can still be there: known false when the
	// kernel wrote the core (it does so as the process ends), known true live.
	Alive         target.Value[bool]
	Signal        target.Value[Signal]
	SigCaught     target.Value[uint64] // bit n-1 is signal n
	SigIgnored    target.Value[uint64]
	SharedPending target.Value[uint64] // signals pending for the whole process (ShdPnd)
	Cwd           target.Value[string]
	// ServerModule is the path or base name of the server's binary as frames
	// name it; "" when unknown.
	ServerModule string
}

// Signal is what the core's siginfo says. It doesn't tell a crash from a
// request for a core: servers raise the signal again in their handler.
type Signal struct {
	Number int
	Code   int
	LWP    int // thread that took it, 0 when unknown
}

// Server is the family and version, where they are known.
type Server struct {
	Family  target.Value[string] // "mysql", "percona", "mariadb", "none"
	Version target.Value[string] // "10.11.19-MariaDB", "5.6.24"
}

// PathFact is what a look at the file system found under a path.
type PathFact struct {
	Kind   string // "fifo", "regular", "directory", "device", "socket", "other" or "missing"
	Source target.Source
	// SameSystem is true when the look was at the system that the process runs
	// on. Without it only a FIFO that is there says anything: that a path is
	// missing on the machine of the analysis proves nothing.
	SameSystem bool
}

// Thread holds the facts of one thread. Unknown is the zero Value.
type Thread struct {
	LWP    int
	Handle target.Value[target.Addr]
	// Session is what server text says about the session that runs on this
	// thread.
	Session      target.Value[Session]
	Name         target.Value[string] // comm
	State        target.Value[string] // "S", "D", "T", "R": the first letter counts
	WaitChannel  target.Value[string] // "" and "0" are no wait channel: leave them unknown
	KernelStack  target.Value[[]string]
	Syscall      target.Value[Syscall]
	SigBlocked   target.Value[uint64]
	SigPending   target.Value[uint64]
	StartRoutine target.Value[string] // normalised name
	Frames       []Frame              // innermost first
	// Complete is true when the walk reached the outermost frame of the thread.
	Complete bool
	// StackNote says why the stack is missing or ends early, "" when it doesn't.
	StackNote string
	// StackCut: it ends because memory of the stack isn't in the input.
	StackCut bool
}

// Session is a client's session, as far as server text shows it.
type Session struct {
	Connection uint64
	Text       string // the state as the server shows it, with what else it says
}

// Syscall is the system call a thread is in. Its Value's source says where
// number and arguments were read; Path has a source of its own.
type Syscall struct {
	Name string    // "openat", "futex", "restart_syscall"
	Text string    // the whole call in strace's form
	Args [6]uint64 // as the registers or /proc have them
	// Result is the value in the return register while the thread is stopped
	// inside the call: -512 (ERESTARTSYS) and its kin say how it slept.
	Result target.Value[int64]
	// Path is the file name argument, OpenFlags the flags argument of open,
	// openat and openat2, Dir the directory that a relative path starts from
	// (of the descriptor argument, or the working directory).
	Path      target.Value[string]
	PathHow   string // how the path was found, when not straight from the argument register
	OpenFlags target.Value[uint64]
	Dir       target.Value[string]
}

// Frame is one user frame.
type Frame struct {
	PC       target.Addr
	Function string // as shown: demangled; "" when unnamed
	Norm     string // normalised for rules: no parameters, no compiler suffixes; "" when unnamed
	Module   string // path or base name of the image
	Offset   uint64 // from the function's start, or from the image's base when unnamed
	// Start is the function's first instruction as distance from the image's
	// base, by its call frame information; 0 when unknown. It stands in for the
	// name of an unnamed function.
	Start  uint64
	Trust  Trust
	Signal bool // the frame that the kernel pushed for a signal handler
}

// Trust is how a frame was found.
type Trust string

// How a frame was found. Rules don't count frames from a stack scan: the scan
// finds return addresses of calls that are over, too.
const (
	TrustContext      Trust = "context"
	TrustCFI          Trust = "cfi"
	TrustFramePointer Trust = "frame-pointer"
	TrustScan         Trust = "scan"
)

// RestartFreeBSD and InterruptedFreeBSD are what Syscall.Result holds for a
// thread of a FreeBSD core whose sleep was broken: ERESTART shows in the program
// counter, which is back on the instruction that enters the kernel, EINTR in
// the return register (sys/sys/errno.h; amd64/vm_machdep.c,
// cpu_set_syscall_retval). A thread still asleep has no result.
const (
	RestartFreeBSD     = -1
	InterruptedFreeBSD = 4
)

// Linux restart codes that a thread stopped inside a system call shows in its
// return register (include/linux/errno.h; measured on kernel cores and gcore
// cores), and EINTR; and FreeBSD's two.
var restartNames = map[int64]string{
	RestartFreeBSD:     "ERESTART",
	InterruptedFreeBSD: "EINTR",
	-512:               "ERESTARTSYS",
	-513:               "ERESTARTNOINTR",
	-514:               "ERESTARTNOHAND",
	-516:               "ERESTART_RESTARTBLOCK",
	-4:                 "EINTR",
}

// Linux open flags (asm-generic/fcntl.h; the same on amd64 and arm64).
const (
	openAccessMask = 0o3
	openNonblock   = 0o4000
	openPath       = 0o10000000
)

// FreeBSD's (sys/sys/fcntl.h; O_PATH since 14).
const (
	openNonblockFreeBSD = 0x4
	openPathFreeBSD     = 0x400000
)

// access names the access mode of open flags; an open that can't block on a
// FIFO (O_NONBLOCK, O_PATH) has a name of its own.
func access(os string, flags uint64) string {
	path, nonblock := uint64(openPath), uint64(openNonblock)
	if os == "freebsd" {
		path, nonblock = openPathFreeBSD, openNonblockFreeBSD
	}
	switch {
	case flags&path != 0:
		return "path"
	case flags&nonblock != 0:
		return "nonblocking"
	}
	return [...]string{"read", "write", "read-write", "none"}[flags&openAccessMask]
}

// signalNumbers are the signals that conditions may name; the numbers are
// those of Linux on amd64 and arm64 (asm-generic/signal.h).
var signalNumbers = map[string]uint{
	"SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGILL": 4, "SIGTRAP": 5, "SIGABRT": 6, "SIGBUS": 7,
	"SIGFPE": 8, "SIGKILL": 9, "SIGUSR1": 10, "SIGSEGV": 11, "SIGUSR2": 12, "SIGPIPE": 13,
	"SIGALRM": 14, "SIGTERM": 15, "SIGTHR": 32, "SIGCHLD": 17, "SIGCONT": 18, "SIGSTOP": 19, "SIGTSTP": 20,
}

// SignalName names a Linux signal number, "" for one without a name here.
func SignalName(n int) string {
	for name, v := range signalNumbers {
		if int(v) == n {
			return name
		}
	}
	return ""
}
