package diagnose

// waitClass is a set of kinds of waiting. One call can be several: select is
// how MySQL 5.6 sleeps and how others wait for sockets.
type waitClass uint16

const (
	waitPoll    waitClass = 1 << iota // readiness of descriptors
	waitNetRead                       // a blocking read from a socket
	waitAccept                        // a new connection
	waitAIO                           // completion of asynchronous I/O
	waitSleep                         // a time to pass
	waitSignal                        // a signal
	waitCond                          // a condition variable
	waitLock                          // a mutex or rwlock
	waitFutex                         // a futex of unknown use
	waitOpen                          // open of a file
	waitOther                         // some other system call
)

// waitNames are the words for waits in rule files.
var waitNames = map[string]waitClass{
	"poll": waitPoll, "net-read": waitNetRead, "accept": waitAccept, "aio": waitAIO, "sleep": waitSleep,
	"signal": waitSignal, "cond": waitCond, "lock": waitLock, "futex": waitFutex, "open": waitOpen, "other": waitOther,
}

// waitBySyscall classifies Linux calls by name. futex and restart_syscall need
// the frames and are left out.
var waitBySyscall = map[string]waitClass{
	"poll": waitPoll, "ppoll": waitPoll, "select": waitPoll | waitSleep, "pselect6": waitPoll | waitSleep,
	"epoll_wait": waitPoll, "epoll_pwait": waitPoll, "epoll_pwait2": waitPoll,
	"recvfrom": waitNetRead, "recvmsg": waitNetRead,
	"accept": waitAccept, "accept4": waitAccept,
	"io_getevents": waitAIO, "io_pgetevents": waitAIO, "io_uring_enter": waitAIO,
	"nanosleep": waitSleep, "clock_nanosleep": waitSleep,
	"rt_sigtimedwait": waitSignal, "rt_sigsuspend": waitSignal, "pause": waitSignal,
	"open": waitOpen, "openat": waitOpen, "openat2": waitOpen,
	// FreeBSD's own
	"kevent": waitPoll, "sigwait": waitSignal, "sigwaitinfo": waitSignal, "sigtimedwait": waitSignal,
	"sigsuspend": waitSignal, "aio_suspend": waitAIO, "aio_waitcomplete": waitAIO, "aio_waitcomplete2": waitAIO,
}

// waitByMessage classifies FreeBSD's wait messages: cores of gcore and saved
// procstat and ps text have them, where the call's number may be lost. The
// kernel cuts them to 8 characters. uwait is a condition variable or a join.
var waitByMessage = map[string]waitClass{
	"select": waitPoll | waitSleep, "kqread": waitPoll, "accept": waitAccept, "sbwait": waitNetRead,
	"nanslp": waitSleep, "sigwait": waitSignal, "pause": waitSignal, "sigsusp": waitSignal,
	"uwait": waitCond, "ucond": waitCond, "umtxn": waitLock, "umtxpi": waitLock, "umtxpp": waitLock,
	"urdlck": waitLock, "uwrlck": waitLock, "usem": waitOther, "aiospn": waitAIO, "aiowc": waitAIO,
	"fifoor": waitOpen, "fifoow": waitOpen,
}

// waitByFrame classifies by the innermost library functions: the only way for
// futex, for restart_syscall (the number of the first call is lost), and for
// the context that a signal handler interrupted. glibc and musl names.
var waitByFrame = map[string]waitClass{
	"poll": waitPoll, "__poll": waitPoll, "__GI___poll": waitPoll, "ppoll": waitPoll, "__ppoll": waitPoll,
	"select": waitPoll | waitSleep, "__select": waitPoll | waitSleep, "pselect": waitPoll | waitSleep,
	"epoll_wait": waitPoll, "epoll_pwait": waitPoll,
	"recv": waitNetRead, "__libc_recv": waitNetRead, "recvfrom": waitNetRead,
	"accept": waitAccept, "accept4": waitAccept, "__libc_accept": waitAccept,
	"io_getevents": waitAIO, "io_pgetevents": waitAIO, "__io_uring_get_cqe": waitAIO,
	"nanosleep": waitSleep, "__nanosleep": waitSleep, "clock_nanosleep": waitSleep, "__clock_nanosleep": waitSleep,
	"usleep": waitSleep, "sleep": waitSleep,
	"sigwait": waitSignal, "__sigwait": waitSignal, "sigwaitinfo": waitSignal, "sigtimedwait": waitSignal,
	"__sigtimedwait": waitSignal, "do_sigwait": waitSignal,
	"pthread_cond_wait": waitCond, "pthread_cond_timedwait": waitCond, "pthread_cond_clockwait": waitCond,
	"__pthread_cond_wait": waitCond, "__pthread_cond_timedwait": waitCond, "___pthread_cond_wait": waitCond,
	"___pthread_cond_timedwait": waitCond, "___pthread_cond_timedwait64": waitCond, "__pthread_cond_timedwait64": waitCond,
	"___pthread_cond_clockwait": waitCond, "___pthread_cond_clockwait64": waitCond, "__pthread_cond_clockwait": waitCond,
	"__pthread_cond_wait_common": waitCond, "std::condition_variable::wait": waitCond, "cnd_wait": waitCond,
	"pthread_mutex_lock": waitLock, "__pthread_mutex_lock": waitLock, "___pthread_mutex_lock": waitLock,
	"__GI___pthread_mutex_lock": waitLock, "pthread_mutex_timedlock": waitLock,
	"__lll_lock_wait": waitLock, "__lll_lock_wait_private": waitLock, "__GI___lll_lock_wait": waitLock,
	"__pthread_mutex_lock_full": waitLock,
	"pthread_rwlock_rdlock":     waitLock, "__pthread_rwlock_rdlock": waitLock, "___pthread_rwlock_rdlock": waitLock,
	"pthread_rwlock_wrlock": waitLock, "__pthread_rwlock_wrlock": waitLock, "___pthread_rwlock_wrlock": waitLock,
	"open": waitOpen, "open64": waitOpen, "__open64": waitOpen, "__libc_open64": waitOpen, "__GI___open64": waitOpen,
	"pthread_join": waitOther, "__pthread_clockjoin_ex": waitOther, "sem_wait": waitOther,
}

// waitFrames is how many innermost frames may belong to the wait itself:
// clone of the call's stub, its cancellation wrapper, the condition variable.
const waitFrames = 6

// futex operations (linux/futex.h), without the private and clock flags.
const (
	futexOpMask     = 0x7f
	futexWait       = 0
	futexWaitBitset = 9
)

// classify says what a thread waits for; 0 means unknown. interrupted is true
// for a context that a signal handler interrupted: the registers then belong
// to the handler, only the frames tell.
func classify(t *Thread, names []string, interrupted bool) waitClass {
	if t.Syscall.Known && !interrupted {
		switch name := t.Syscall.V.Name; name {
		case "_umtx_op":
			if c := classifyFrames(names); c != 0 {
				return c
			}
			return classifyUmtx(t.Syscall.V.Args[1])
		case "futex", "restart_syscall":
			if c := classifyFrames(names); c != 0 {
				return c
			}
			if name == "futex" {
				return classifyFutex(t.Syscall.V.Args[1])
			}
			return 0
		default:
			if c, ok := waitBySyscall[name]; ok {
				return c
			}
			return waitOther
		}
	}
	if c := classifyFrames(names); c != 0 || interrupted || !t.WaitChannel.Known {
		return c
	}
	return waitByMessage[t.WaitChannel.V]
}

// classifyUmtx reads the operation of FreeBSD's _umtx_op (sys/sys/umtx.h):
// condition variables of libthr wait with WAIT_UINT_PRIVATE or CV_WAIT.
func classifyUmtx(op uint64) waitClass {
	switch op {
	case 2, 8, 11, 15: // WAIT, CV_WAIT, WAIT_UINT, WAIT_UINT_PRIVATE
		return waitCond
	case 5, 12, 13, 17: // MUTEX_LOCK, RW_RDLOCK, RW_WRLOCK, MUTEX_WAIT
		return waitLock
	}
	return waitOther
}

func classifyFrames(names []string) waitClass {
	for _, n := range names[:min(len(names), waitFrames)] {
		if c, ok := waitByFrame[n]; ok {
			return c
		}
	}
	return 0
}

// classifyFutex reads the operation: glibc's condition variables wait with
// FUTEX_WAIT_BITSET (op 0x89, measured), its mutexes with FUTEX_WAIT (0x80).
// Read-write locks wait with a bitset, too, but always under a function whose
// name is exported, which classifyFrames has seen by then.
func classifyFutex(op uint64) waitClass {
	switch op & futexOpMask {
	case futexWaitBitset:
		return waitCond
	case futexWait:
		return waitLock
	}
	return waitFutex
}
