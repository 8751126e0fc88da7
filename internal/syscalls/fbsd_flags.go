package syscalls

import (
	"fmt"
	"strings"
)

// Open flags of FreeBSD (sys/sys/fcntl.h, main; those of 10.4 and 12.1 have the
// same values). The access mode is that of Linux.
const (
	fbNonblock = 0x4
	fbCreate   = 0x200
	fbPath     = 0x400000
)

var fbOpenFlags = []named{
	{fbCreate, "O_CREAT"}, {0x800, "O_EXCL"}, {0x8000, "O_NOCTTY"}, {0x400, "O_TRUNC"}, {0x8, "O_APPEND"}, {fbNonblock, "O_NONBLOCK"},
	{0x10, "O_SHLOCK"}, {0x20, "O_EXLOCK"}, {0x40, "O_ASYNC"}, {0x80, "O_SYNC"}, {0x1000000, "O_DSYNC"}, {0x100, "O_NOFOLLOW"},
	{0x10000, "O_DIRECT"}, {0x20000, "O_DIRECTORY"}, {0x40000, "O_EXEC"}, {0x80000, "O_TTY_INIT"}, {0x200000, "O_VERIFY"},
	{fbPath, "O_PATH"}, {0x800000, "O_RESOLVE_BENEATH"}, {0x100000, "O_CLOEXEC"},
}

// OpenFlagsOf writes the flags of an open of an operating system (as GOOS);
// Linux's are those of x86-64.
func OpenFlagsOf(os string, flags uint64) string {
	if os == "freebsd" {
		return fbOpenFlagsText(flags)
	}
	return OpenFlags(0, flags)
}

func fbOpenFlagsText(flags uint64) string {
	flags &= 0xffffffff
	mode := [...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[flags&oAccessMode]
	if rest := flagNames(flags&^oAccessMode, "", fbOpenFlags); rest != "" {
		return mode + "|" + rest
	}
	return mode
}

// AccessModeOf is AccessMode for an operating system (as GOOS).
func AccessModeOf(os string, flags uint64) Access {
	if os != "freebsd" {
		return AccessMode(flags)
	}
	if flags&fbPath != 0 {
		return NoAccess
	}
	return AccessMode(flags & oAccessMode)
}

// NonBlockingOf is NonBlocking for an operating system (as GOOS).
func NonBlockingOf(os string, flags uint64) bool {
	if os == "freebsd" {
		return flags&fbNonblock != 0
	}
	return NonBlocking(flags)
}

// UMTX_OP_* of sys/sys/umtx.h (12.1; 27 and 28 main).
var umtxOps = []named{
	{0, "UMTX_OP_LOCK"}, {1, "UMTX_OP_UNLOCK"}, {2, "UMTX_OP_WAIT"}, {3, "UMTX_OP_WAKE"}, {4, "UMTX_OP_MUTEX_TRYLOCK"},
	{5, "UMTX_OP_MUTEX_LOCK"}, {6, "UMTX_OP_MUTEX_UNLOCK"}, {7, "UMTX_OP_SET_CEILING"}, {8, "UMTX_OP_CV_WAIT"},
	{9, "UMTX_OP_CV_SIGNAL"}, {10, "UMTX_OP_CV_BROADCAST"}, {11, "UMTX_OP_WAIT_UINT"}, {12, "UMTX_OP_RW_RDLOCK"},
	{13, "UMTX_OP_RW_WRLOCK"}, {14, "UMTX_OP_RW_UNLOCK"}, {15, "UMTX_OP_WAIT_UINT_PRIVATE"}, {16, "UMTX_OP_WAKE_PRIVATE"},
	{17, "UMTX_OP_MUTEX_WAIT"}, {18, "UMTX_OP_MUTEX_WAKE"}, {19, "UMTX_OP_SEM_WAIT"}, {20, "UMTX_OP_SEM_WAKE"},
	{21, "UMTX_OP_NWAKE_PRIVATE"}, {22, "UMTX_OP_MUTEX_WAKE2"}, {23, "UMTX_OP_SEM2_WAIT"}, {24, "UMTX_OP_SEM2_WAKE"},
	{25, "UMTX_OP_SHM"}, {26, "UMTX_OP_ROBUST_LISTS"}, {27, "UMTX_OP_GET_MIN_TIMEOUT"}, {28, "UMTX_OP_SET_MIN_TIMEOUT"},
}

// UmtxOp names the operation of _umtx_op (FreeBSD).
func UmtxOp(op uint64) string {
	if s, ok := enumName(op&0xffffffff, umtxOps); ok {
		return s
	}
	return fmt.Sprintf("%#x", uint32(op))
}

const umtxCVWait = 8

// umtxTimed are the operations whose fourth and fifth arguments are the size
// and the address of a timeout (sys/kern/kern_umtx.c, 12.1).
func umtxTimed(op uint64) bool {
	switch op & 0xffffffff {
	case 2, 5, 11, 12, 13, 15, 17, 19, 23:
		return true
	}
	return false
}

// The remaining names, of the headers of the same prefix in sys/sys (event.h,
// fcntl.h, mman.h, poll.h, socket.h, _clock_id.h, wait.h; values compared with
// golang.org/x/sys v0.49.0).
var (
	umtxCVFlags    = []named{{1, "CVWAIT_CHECK_UNPARKING"}, {2, "CVWAIT_ABSTIME"}, {4, "CVWAIT_CLOCKID"}}
	umtxTimeFlags  = []named{{1, "UMTX_ABSTIME"}}
	fbPollEvents   = []named{{1, "POLLIN"}, {2, "POLLPRI"}, {4, "POLLOUT"}, {8, "POLLERR"}, {0x10, "POLLHUP"}, {0x20, "POLLNVAL"}, {0x40, "POLLRDNORM"}, {0x80, "POLLRDBAND"}, {0x100, "POLLWRBAND"}, {0x2000, "POLLINIGNEOF"}, {0x4000, "POLLRDHUP"}}
	fbMessageFlags = []named{{1, "MSG_OOB"}, {2, "MSG_PEEK"}, {4, "MSG_DONTROUTE"}, {8, "MSG_EOR"}, {0x10, "MSG_TRUNC"}, {0x20, "MSG_CTRUNC"}, {0x40, "MSG_WAITALL"}, {0x80, "MSG_DONTWAIT"}, {0x100, "MSG_EOF"}, {0x4000, "MSG_NBIO"}, {0x20000, "MSG_NOSIGNAL"}, {0x40000, "MSG_CMSG_CLOEXEC"}, {0x80000, "MSG_WAITFORONE"}}
	fbSocketFlags  = []named{{0x20000000, "SOCK_NONBLOCK"}, {0x10000000, "SOCK_CLOEXEC"}}
	fbSocketTypes  = []named{{1, "SOCK_STREAM"}, {2, "SOCK_DGRAM"}, {3, "SOCK_RAW"}, {4, "SOCK_RDM"}, {5, "SOCK_SEQPACKET"}}
	fbFamilies     = []named{{0, "AF_UNSPEC"}, {1, "AF_UNIX"}, {2, "AF_INET"}, {17, "AF_ROUTE"}, {28, "AF_INET6"}, {38, "AF_NETLINK"}}
	fbClocks       = []named{{0, "CLOCK_REALTIME"}, {1, "CLOCK_VIRTUAL"}, {2, "CLOCK_PROF"}, {4, "CLOCK_MONOTONIC"}, {5, "CLOCK_UPTIME"},
		{7, "CLOCK_UPTIME_PRECISE"}, {8, "CLOCK_UPTIME_FAST"}, {9, "CLOCK_REALTIME_PRECISE"}, {10, "CLOCK_REALTIME_FAST"},
		{11, "CLOCK_MONOTONIC_PRECISE"}, {12, "CLOCK_MONOTONIC_FAST"}, {13, "CLOCK_SECOND"}, {14, "CLOCK_THREAD_CPUTIME_ID"}, {15, "CLOCK_PROCESS_CPUTIME_ID"}}
	fbWaitOptions = []named{{1, "WNOHANG"}, {2, "WUNTRACED"}, {4, "WCONTINUED"}, {8, "WNOWAIT"}, {0x10, "WEXITED"}, {0x20, "WTRAPPED"}, {0x80000000, "WLINUXCLONE"}}
	fbIDTypes     = []named{{0, "P_PID"}, {1, "P_PPID"}, {2, "P_PGID"}, {3, "P_SID"}, {7, "P_ALL"}}
	fbAtFlags     = []named{{0x100, "AT_EACCESS"}, {0x200, "AT_SYMLINK_NOFOLLOW"}, {0x400, "AT_SYMLINK_FOLLOW"}, {0x800, "AT_REMOVEDIR"}, {0x2000, "AT_RESOLVE_BENEATH"}, {0x4000, "AT_EMPTY_PATH"}}
	fbFcntlOps    = []named{{0, "F_DUPFD"}, {1, "F_GETFD"}, {2, "F_SETFD"}, {3, "F_GETFL"}, {4, "F_SETFL"}, {5, "F_GETOWN"}, {6, "F_SETOWN"},
		{7, "F_OGETLK"}, {8, "F_OSETLK"}, {9, "F_OSETLKW"}, {10, "F_DUP2FD"}, {11, "F_GETLK"}, {12, "F_SETLK"}, {13, "F_SETLKW"}, {14, "F_SETLK_REMOTE"},
		{15, "F_READAHEAD"}, {16, "F_RDAHEAD"}, {17, "F_DUPFD_CLOEXEC"}, {18, "F_DUP2FD_CLOEXEC"}, {19, "F_ADD_SEALS"}, {20, "F_GET_SEALS"}, {21, "F_ISUNIONSTACK"}}
	fbLockTypes = []named{{1, "F_RDLCK"}, {2, "F_UNLCK"}, {3, "F_WRLCK"}, {4, "F_UNLCKSYS"}, {5, "F_CANCEL"}}
	fbMapFlags  = []named{{1, "MAP_SHARED"}, {2, "MAP_PRIVATE"}, {0x10, "MAP_FIXED"}, {0x200, "MAP_HASSEMAPHORE"}, {0x400, "MAP_STACK"},
		{0x800, "MAP_NOSYNC"}, {0x1000, "MAP_ANON"}, {0x2000, "MAP_GUARD"}, {0x4000, "MAP_EXCL"}, {0x20000, "MAP_NOCORE"},
		{0x40000, "MAP_PREFAULT_READ"}, {0x80000, "MAP_32BIT"}}
	fbAdvices = []named{{0, "MADV_NORMAL"}, {1, "MADV_RANDOM"}, {2, "MADV_SEQUENTIAL"}, {3, "MADV_WILLNEED"}, {4, "MADV_DONTNEED"}, {5, "MADV_FREE"},
		{6, "MADV_NOSYNC"}, {7, "MADV_AUTOSYNC"}, {8, "MADV_NOCORE"}, {9, "MADV_CORE"}, {10, "MADV_PROTECT"}}
	fbFilters     = []named{{1, "EVFILT_READ"}, {2, "EVFILT_WRITE"}, {3, "EVFILT_AIO"}, {4, "EVFILT_VNODE"}, {5, "EVFILT_PROC"}, {6, "EVFILT_SIGNAL"}, {7, "EVFILT_TIMER"}, {8, "EVFILT_PROCDESC"}, {9, "EVFILT_FS"}, {10, "EVFILT_LIO"}, {11, "EVFILT_USER"}, {12, "EVFILT_SENDFILE"}, {13, "EVFILT_EMPTY"}} // negated there
	fbEventFlags  = []named{{1, "EV_ADD"}, {2, "EV_DELETE"}, {4, "EV_ENABLE"}, {8, "EV_DISABLE"}, {0x10, "EV_ONESHOT"}, {0x20, "EV_CLEAR"}, {0x40, "EV_RECEIPT"}, {0x80, "EV_DISPATCH"}, {0x1000, "EV_DROP"}, {0x4000, "EV_ERROR"}, {0x8000, "EV_EOF"}}
	fbSigmaskHows = []named{{1, "SIG_BLOCK"}, {2, "SIG_UNBLOCK"}, {3, "SIG_SETMASK"}}
	fbMsyncFlags  = []named{{1, "MS_ASYNC"}, {2, "MS_INVALIDATE"}}
	fbAioOps      = []named{{0x80, "O_SYNC"}, {0x1000000, "O_DSYNC"}}
	fbIoctls      = []named{{0x4004667f, "FIONREAD"}, {0x8004667e, "FIONBIO"}, {0x40087468, "TIOCGWINSZ"}}
)

// fbSignals are FreeBSD's signals by number (sys/sys/signal.h).
var fbSignals = [...]string{1: "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "EMT", "FPE", "KILL", "BUS", "SEGV", "SYS", "PIPE", "ALRM",
	"TERM", "URG", "STOP", "TSTP", "CONT", "CHLD", "TTIN", "TTOU", "IO", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "INFO", "USR1", "USR2",
	"THR", "LIBRT"}

// SignalNameOf is SignalName for an operating system (as GOOS): signal 10 is
// SIGUSR1 on Linux and SIGBUS on FreeBSD.
func SignalNameOf(os string, n int) string {
	if os != "freebsd" {
		return SignalName(n)
	}
	const lowestRT, highest = 65, 128 // SIGRTMIN, _SIG_MAXSIG
	switch {
	case n == 0:
		return "0"
	case n > 0 && n < len(fbSignals):
		return "SIG" + fbSignals[n]
	case n >= lowestRT && n <= highest:
		return fmt.Sprintf("SIGRT_%d", n-lowestRT)
	}
	return fmt.Sprint(n)
}

// SignalSetOf is SignalSet for an operating system (as GOOS). Of FreeBSD's 128
// signals the first 64 are shown.
func SignalSetOf(os string, mask uint64) string {
	if os != "freebsd" {
		return SignalSet(mask)
	}
	return fbSignalSet(mask, 0)
}

// fbSignalSet writes a sigset_t of two 64-bit words. Where most of the ordinary
// signals are in it, those that aren't are named after a tilde.
func fbSignalSet(low, high uint64) string {
	var in, out []string
	for n := 1; n < len(fbSignals); n++ {
		if low>>(n-1)&1 != 0 {
			in = append(in, fbSignals[n])
		} else {
			out = append(out, fbSignals[n])
		}
	}
	if 3*len(in) > 2*len(fbSignals) {
		return "~[" + strings.Join(out, " ") + "]"
	}
	for n := len(fbSignals); n <= 128; n++ {
		word := low
		if n > 64 {
			word = high
		}
		if word>>((n-1)%64)&1 != 0 {
			in = append(in, strings.TrimPrefix(SignalNameOf("freebsd", n), "SIG"))
		}
	}
	return "[" + strings.Join(in, " ") + "]"
}
