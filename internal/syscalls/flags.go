package syscalls

import (
	"fmt"
	"strings"

	"mycore/internal/target"
)

// named is one name of a set of flags or of an enumeration.
type named struct {
	value uint64
	name  string
}

// Open flags of Linux: uapi/asm-generic/fcntl.h; the arm64 values that differ
// are in arch/arm64/include/uapi/asm/fcntl.h.
const (
	oAccessMode = 3
	oWriteOnly  = 1
	oReadWrite  = 2
	oCreate     = 0o100
	oNonblock   = 0o4000
	oTmpFile    = 0o20000000
)

var openFlags = []named{
	{0o100, "O_CREAT"}, {0o200, "O_EXCL"}, {0o400, "O_NOCTTY"}, {0o1000, "O_TRUNC"}, {0o2000, "O_APPEND"},
	{oNonblock, "O_NONBLOCK"}, {0o4010000, "O_SYNC"}, {0o10000, "O_DSYNC"}, {0o20000, "O_ASYNC"},
}

var openFlagsLast = []named{{0o1000000, "O_NOATIME"}, {0o2000000, "O_CLOEXEC"}, {0o10000000, "O_PATH"}}

var openFlagsX86 = []named{{0o40000, "O_DIRECT"}, {0o100000, "O_LARGEFILE"}, {0o20200000, "O_TMPFILE"}, {0o200000, "O_DIRECTORY"}, {0o400000, "O_NOFOLLOW"}}

var openFlagsARM = []named{{0o200000, "O_DIRECT"}, {0o400000, "O_LARGEFILE"}, {0o20040000, "O_TMPFILE"}, {0o40000, "O_DIRECTORY"}, {0o100000, "O_NOFOLLOW"}}

// Access is what an open asks for.
type Access string

// The access modes of open.
const (
	ReadOnly  Access = "read"
	WriteOnly Access = "write"
	ReadWrite Access = "read-write"
	NoAccess  Access = "none" // O_PATH, or the mode 3 of drivers
)

// AccessMode returns what the flags of open, openat or openat2 (Linux) ask
// for.
func AccessMode(flags uint64) Access {
	switch {
	case flags&0o10000000 != 0:
		return NoAccess
	case flags&oAccessMode == 0:
		return ReadOnly
	case flags&oAccessMode == oWriteOnly:
		return WriteOnly
	case flags&oAccessMode == oReadWrite:
		return ReadWrite
	}
	return NoAccess
}

// NonBlocking reports whether the flags of an open (Linux) have O_NONBLOCK:
// then it doesn't wait for the other end of a FIFO.
func NonBlocking(flags uint64) bool { return flags&oNonblock != 0 }

// OpenFlags writes the flags of an open (Linux): "O_RDONLY|O_CLOEXEC".
func OpenFlags(arch target.Arch, flags uint64) string {
	flags &= 0xffffffff
	mode := [...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[flags&oAccessMode]
	special := openFlagsX86
	if arch == target.ARM64 {
		special = openFlagsARM
	}
	rest := flagNames(flags&^oAccessMode, "", openFlags, special, openFlagsLast)
	if rest == "" {
		return mode
	}
	return mode + "|" + rest
}

// flagNames joins the names of the bits in v; what has no name comes last in
// hex. zero is the text for no bits.
func flagNames(v uint64, zero string, sets ...[]named) string {
	if v == 0 {
		return zero
	}
	var b strings.Builder
	add := func(s string) {
		if b.Len() > 0 {
			b.WriteByte('|')
		}
		b.WriteString(s)
	}
	for _, set := range sets {
		for _, f := range set {
			if f.value != 0 && v&f.value == f.value {
				add(f.name)
				v &^= f.value
			}
		}
	}
	if v != 0 {
		add(fmt.Sprintf("%#x", v))
	}
	return b.String()
}

// enumName is the name of exactly v.
func enumName(v uint64, set []named) (string, bool) {
	for _, e := range set {
		if e.value == v {
			return e.name, true
		}
	}
	return "", false
}

// futex operations, uapi/linux/futex.h.
const (
	futexPrivate  = 128
	futexRealtime = 256
	futexCommand  = 127
)

var futexOps = []named{
	{0, "FUTEX_WAIT"}, {1, "FUTEX_WAKE"}, {2, "FUTEX_FD"}, {3, "FUTEX_REQUEUE"}, {4, "FUTEX_CMP_REQUEUE"}, {5, "FUTEX_WAKE_OP"},
	{6, "FUTEX_LOCK_PI"}, {7, "FUTEX_UNLOCK_PI"}, {8, "FUTEX_TRYLOCK_PI"}, {9, "FUTEX_WAIT_BITSET"}, {10, "FUTEX_WAKE_BITSET"},
	{11, "FUTEX_WAIT_REQUEUE_PI"}, {12, "FUTEX_CMP_REQUEUE_PI"}, {13, "FUTEX_LOCK_PI2"},
}

// FutexOp writes a futex operation: "FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME".
func FutexOp(op uint64) string {
	op &= 0xffffffff
	s, ok := enumName(op&futexCommand, futexOps)
	if !ok {
		return fmt.Sprintf("%#x", op)
	}
	if op&futexPrivate != 0 {
		s += "_PRIVATE"
	}
	return orMore(s, op&^(futexCommand|futexPrivate), []named{{futexRealtime, "FUTEX_CLOCK_REALTIME"}})
}

// orMore appends flags to a name.
func orMore(s string, v uint64, set []named) string {
	if rest := flagNames(v, "", set); rest != "" {
		s += "|" + rest
	}
	return s
}

// The remaining names: uapi/linux and uapi/asm-generic headers of the same
// prefix (poll.h, socket.h, wait.h, mman.h, fcntl.h, time.h, eventpoll.h,
// io_uring.h, fs.h, falloc.h, stat.h, splice.h); the values are the same on
// x86-64 and AArch64.
var (
	pollEvents = []named{{1, "POLLIN"}, {2, "POLLPRI"}, {4, "POLLOUT"}, {8, "POLLERR"}, {0x10, "POLLHUP"}, {0x20, "POLLNVAL"},
		{0x40, "POLLRDNORM"}, {0x80, "POLLRDBAND"}, {0x100, "POLLWRNORM"}, {0x200, "POLLWRBAND"}, {0x400, "POLLMSG"}, {0x2000, "POLLRDHUP"}}
	messageFlags = []named{{1, "MSG_OOB"}, {2, "MSG_PEEK"}, {4, "MSG_DONTROUTE"}, {8, "MSG_CTRUNC"}, {0x20, "MSG_TRUNC"},
		{0x40, "MSG_DONTWAIT"}, {0x80, "MSG_EOR"}, {0x100, "MSG_WAITALL"}, {0x2000, "MSG_ERRQUEUE"}, {0x4000, "MSG_NOSIGNAL"},
		{0x8000, "MSG_MORE"}, {0x10000, "MSG_WAITFORONE"}, {0x4000000, "MSG_ZEROCOPY"}, {0x20000000, "MSG_FASTOPEN"}, {0x40000000, "MSG_CMSG_CLOEXEC"}}
	socketFlags = []named{{oNonblock, "SOCK_NONBLOCK"}, {0o2000000, "SOCK_CLOEXEC"}}
	socketTypes = []named{{1, "SOCK_STREAM"}, {2, "SOCK_DGRAM"}, {3, "SOCK_RAW"}, {5, "SOCK_SEQPACKET"}}
	families    = []named{{0, "AF_UNSPEC"}, {1, "AF_UNIX"}, {2, "AF_INET"}, {10, "AF_INET6"}, {16, "AF_NETLINK"}, {17, "AF_PACKET"}, {40, "AF_VSOCK"}}
	clocks      = []named{{0, "CLOCK_REALTIME"}, {1, "CLOCK_MONOTONIC"}, {2, "CLOCK_PROCESS_CPUTIME_ID"}, {3, "CLOCK_THREAD_CPUTIME_ID"},
		{4, "CLOCK_MONOTONIC_RAW"}, {5, "CLOCK_REALTIME_COARSE"}, {6, "CLOCK_MONOTONIC_COARSE"}, {7, "CLOCK_BOOTTIME"},
		{8, "CLOCK_REALTIME_ALARM"}, {9, "CLOCK_BOOTTIME_ALARM"}, {11, "CLOCK_TAI"}}
	timerFlags  = []named{{1, "TIMER_ABSTIME"}}
	waitOptions = []named{{1, "WNOHANG"}, {2, "WSTOPPED"}, {4, "WEXITED"}, {8, "WCONTINUED"}, {0x1000000, "WNOWAIT"},
		{0x20000000, "__WNOTHREAD"}, {0x40000000, "__WALL"}, {0x80000000, "__WCLONE"}}
	wait4Options = append([]named{{2, "WUNTRACED"}}, waitOptions...)
	idTypes      = []named{{0, "P_ALL"}, {1, "P_PID"}, {2, "P_PGID"}, {3, "P_PIDFD"}}
	atFlags      = []named{{0x100, "AT_SYMLINK_NOFOLLOW"}, {0x200, "AT_REMOVEDIR"}, {0x400, "AT_SYMLINK_FOLLOW"}, {0x800, "AT_NO_AUTOMOUNT"},
		{0x1000, "AT_EMPTY_PATH"}, {0x2000, "AT_STATX_FORCE_SYNC"}, {0x4000, "AT_STATX_DONT_SYNC"}, {0x8000, "AT_RECURSIVE"}}
	statxMask = []named{{0xfff, "STATX_ALL"}, {0x7ff, "STATX_BASIC_STATS"}, {1, "STATX_TYPE"}, {2, "STATX_MODE"}, {4, "STATX_NLINK"},
		{8, "STATX_UID"}, {0x10, "STATX_GID"}, {0x20, "STATX_ATIME"}, {0x40, "STATX_MTIME"}, {0x80, "STATX_CTIME"}, {0x100, "STATX_INO"},
		{0x200, "STATX_SIZE"}, {0x400, "STATX_BLOCKS"}, {0x800, "STATX_BTIME"}, {0x1000, "STATX_MNT_ID"}}
	renameFlags = []named{{1, "RENAME_NOREPLACE"}, {2, "RENAME_EXCHANGE"}, {4, "RENAME_WHITEOUT"}}
	accessModes = []named{{4, "R_OK"}, {2, "W_OK"}, {1, "X_OK"}}
	protections = []named{{1, "PROT_READ"}, {2, "PROT_WRITE"}, {4, "PROT_EXEC"}, {0x1000000, "PROT_GROWSDOWN"}, {0x2000000, "PROT_GROWSUP"}}
	mapFlags    = []named{{3, "MAP_SHARED_VALIDATE"}, {1, "MAP_SHARED"}, {2, "MAP_PRIVATE"}, {0x10, "MAP_FIXED"}, {0x20, "MAP_ANONYMOUS"},
		{0x100, "MAP_GROWSDOWN"}, {0x800, "MAP_DENYWRITE"}, {0x1000, "MAP_EXECUTABLE"}, {0x2000, "MAP_LOCKED"}, {0x4000, "MAP_NORESERVE"},
		{0x8000, "MAP_POPULATE"}, {0x10000, "MAP_NONBLOCK"}, {0x20000, "MAP_STACK"}, {0x40000, "MAP_HUGETLB"}, {0x80000, "MAP_SYNC"},
		{0x100000, "MAP_FIXED_NOREPLACE"}}
	remapFlags = []named{{1, "MREMAP_MAYMOVE"}, {2, "MREMAP_FIXED"}, {4, "MREMAP_DONTUNMAP"}}
	msyncFlags = []named{{1, "MS_ASYNC"}, {2, "MS_INVALIDATE"}, {4, "MS_SYNC"}}
	advices    = []named{{0, "MADV_NORMAL"}, {1, "MADV_RANDOM"}, {2, "MADV_SEQUENTIAL"}, {3, "MADV_WILLNEED"}, {4, "MADV_DONTNEED"},
		{8, "MADV_FREE"}, {9, "MADV_REMOVE"}, {10, "MADV_DONTFORK"}, {11, "MADV_DOFORK"}, {12, "MADV_MERGEABLE"}, {13, "MADV_UNMERGEABLE"},
		{14, "MADV_HUGEPAGE"}, {15, "MADV_NOHUGEPAGE"}, {16, "MADV_DONTDUMP"}, {17, "MADV_DODUMP"}, {18, "MADV_WIPEONFORK"},
		{19, "MADV_KEEPONFORK"}, {20, "MADV_COLD"}, {21, "MADV_PAGEOUT"}, {22, "MADV_POPULATE_READ"}, {23, "MADV_POPULATE_WRITE"},
		{24, "MADV_DONTNEED_LOCKED"}, {25, "MADV_COLLAPSE"}}
	fileAdvices  = []named{{0, "POSIX_FADV_NORMAL"}, {1, "POSIX_FADV_RANDOM"}, {2, "POSIX_FADV_SEQUENTIAL"}, {3, "POSIX_FADV_WILLNEED"}, {4, "POSIX_FADV_DONTNEED"}, {5, "POSIX_FADV_NOREUSE"}}
	syncRange    = []named{{1, "SYNC_FILE_RANGE_WAIT_BEFORE"}, {2, "SYNC_FILE_RANGE_WRITE"}, {4, "SYNC_FILE_RANGE_WAIT_AFTER"}}
	fallocModes  = []named{{1, "FALLOC_FL_KEEP_SIZE"}, {2, "FALLOC_FL_PUNCH_HOLE"}, {4, "FALLOC_FL_NO_HIDE_STALE"}, {8, "FALLOC_FL_COLLAPSE_RANGE"}, {0x10, "FALLOC_FL_ZERO_RANGE"}, {0x20, "FALLOC_FL_INSERT_RANGE"}, {0x40, "FALLOC_FL_UNSHARE_RANGE"}}
	flockOps     = []named{{1, "LOCK_SH"}, {2, "LOCK_EX"}, {8, "LOCK_UN"}, {4, "LOCK_NB"}}
	lockTypes    = []named{{0, "F_RDLCK"}, {1, "F_WRLCK"}, {2, "F_UNLCK"}}
	whences      = []named{{0, "SEEK_SET"}, {1, "SEEK_CUR"}, {2, "SEEK_END"}, {3, "SEEK_DATA"}, {4, "SEEK_HOLE"}}
	fcntlOps     = []named{{0, "F_DUPFD"}, {1, "F_GETFD"}, {2, "F_SETFD"}, {3, "F_GETFL"}, {4, "F_SETFL"}, {5, "F_GETLK"}, {6, "F_SETLK"}, {7, "F_SETLKW"}, {8, "F_SETOWN"}, {9, "F_GETOWN"}, {36, "F_OFD_GETLK"}, {37, "F_OFD_SETLK"}, {38, "F_OFD_SETLKW"}, {1024, "F_SETLEASE"}, {1025, "F_GETLEASE"}, {1030, "F_DUPFD_CLOEXEC"}, {1031, "F_SETPIPE_SZ"}, {1032, "F_GETPIPE_SZ"}}
	spliceFlags  = []named{{1, "SPLICE_F_MOVE"}, {2, "SPLICE_F_NONBLOCK"}, {4, "SPLICE_F_MORE"}, {8, "SPLICE_F_GIFT"}}
	rwFlags      = []named{{1, "RWF_HIPRI"}, {2, "RWF_DSYNC"}, {4, "RWF_SYNC"}, {8, "RWF_NOWAIT"}, {0x10, "RWF_APPEND"}}
	uringFlags   = []named{{1, "IORING_ENTER_GETEVENTS"}, {2, "IORING_ENTER_SQ_WAKEUP"}, {4, "IORING_ENTER_SQ_WAIT"}, {8, "IORING_ENTER_EXT_ARG"}, {0x10, "IORING_ENTER_REGISTERED_RING"}}
	epollEvents  = []named{{1, "EPOLLIN"}, {2, "EPOLLPRI"}, {4, "EPOLLOUT"}, {8, "EPOLLERR"}, {0x10, "EPOLLHUP"}, {0x40, "EPOLLRDNORM"}, {0x80, "EPOLLRDBAND"}, {0x100, "EPOLLWRNORM"}, {0x200, "EPOLLWRBAND"}, {0x2000, "EPOLLRDHUP"}, {1 << 28, "EPOLLEXCLUSIVE"}, {1 << 29, "EPOLLWAKEUP"}, {1 << 30, "EPOLLONESHOT"}, {1 << 31, "EPOLLET"}}
	epollOps     = []named{{1, "EPOLL_CTL_ADD"}, {2, "EPOLL_CTL_DEL"}, {3, "EPOLL_CTL_MOD"}}
	resolveFlags = []named{{1, "RESOLVE_NO_XDEV"}, {2, "RESOLVE_NO_MAGICLINKS"}, {4, "RESOLVE_NO_SYMLINKS"}, {8, "RESOLVE_BENEATH"}, {0x10, "RESOLVE_IN_ROOT"}, {0x20, "RESOLVE_CACHED"}}
	ioctls       = []named{{0x5401, "TCGETS"}, {0x5413, "TIOCGWINSZ"}, {0x541b, "FIONREAD"}, {0x5421, "FIONBIO"}, {0x40049409, "FICLONE"}}
	pipeFlags    = []named{{oNonblock, "O_NONBLOCK"}, {0o2000000, "O_CLOEXEC"}, {0o200, "O_NOTIFICATION_PIPE"}}
	shutdowns    = []named{{0, "SHUT_RD"}, {1, "SHUT_WR"}, {2, "SHUT_RDWR"}}
	sigmaskHows  = []named{{0, "SIG_BLOCK"}, {1, "SIG_UNBLOCK"}, {2, "SIG_SETMASK"}}
)

// signals, asm-generic/signal.h: the same numbers on x86-64 and AArch64.
var signals = [...]string{1: "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
	"TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS"}

// SignalName is the name of a Linux signal: "SIGTERM", "SIGRT_2".
func SignalName(n int) string {
	switch {
	case n == 0:
		return "0"
	case n < 0 || n > 64:
		return fmt.Sprint(n)
	}
	return "SIG" + shortSignal(n)
}

func shortSignal(n int) string {
	switch {
	case n < len(signals):
		return signals[n]
	case n == 32:
		return "RTMIN"
	}
	return fmt.Sprintf("RT_%d", n-32)
}

// SignalSet writes a signal mask the way strace does: "[INT TERM]", "~[KILL]"
// when most are in it. Bit 0 is signal 1.
func SignalSet(mask uint64) string {
	prefix := ""
	n := 0
	for m := mask; m != 0; m &= m - 1 {
		n++
	}
	if n > 42 { // two thirds of 64
		prefix, mask = "~", ^mask
	}
	var names []string
	for i := range 64 {
		if mask>>uint(i)&1 != 0 {
			names = append(names, shortSignal(i+1))
		}
	}
	return prefix + "[" + strings.Join(names, " ") + "]"
}
