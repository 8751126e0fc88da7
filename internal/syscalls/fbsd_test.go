package syscalls

import (
	"testing"

	"mycore/internal/target"
)

// fbsdMemory has FreeBSD's structures, laid out by its headers.
var fbsdMemory = memory{
	0x1000: []byte("/tmp/ghost.fifo\x00"),
	0x1400: []byte("select * from t where c = 'secret' and more"),
	0x1500: words(0x0001_0000_0005, 0x4004_0000_0007), // pollfd: 5 IN, 7 OUT|RDHUP
	0x1600: words(1, 500),
	0x1700: words(0x4002, 0),                                          // INT TERM
	0x1800: words((1<<33-1)&^(1<<8), 0),                               // all but KILL
	0x1900: {16, 2, 0x0c, 0xea, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0}, // sockaddr_in
	0x1a00: append([]byte{20, 1}, "/tmp/mysql.sock\x00\x00\x00"...),
	0x1b00: {28, 28, 0x0c, 0xea, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0},
	0x1c00: words(0x1400, 6, 0x9999, 3),
	0x1d00: words(0x1900, 16, 0x1c00, 2, 0, 7, 0),
	0x1e00: words(0, 50, 0x0000_0003_0000_0000, 0), // flock: F_WRLCK, SEEK_SET
	0x1f00: words(5, 0x0001_ffff, 0, 0xbeef, 0, 0, 0, 0, 0xfffffffe, 0x0002_fff9, 0, 0, 0, 0, 0, 0),
	0x2000: words(0, 250000000, 0x0000_0004_0000_0001), // _umtx_time: UMTX_ABSTIME, CLOCK_MONOTONIC
	0x2100: words(0x28, 0),
	0x2200: words(0, 1<<0|1<<61), // signals 65 and 126
}

func TestFormatFreeBSD(t *testing.T) {
	fds := func(fd int) (string, bool) {
		text, ok := map[int]string{5: "tcp 10.0.0.1:3306 -> 10.0.0.2:50000", 7: "/data/ib_logfile0"}[fd]
		return text, ok
	}
	const s5 = `5<tcp 10.0.0.1:3306 -\76 10.0.0.2:50000>`
	for _, tt := range []struct {
		nr   int64
		args [6]uint64
		want string
	}{
		{5, [6]uint64{0x1000, 0x100000}, `open("/tmp/ghost.fifo", O_RDONLY|O_CLOEXEC)`},
		{5, [6]uint64{0x1000, 1, 0o600}, `open("/tmp/ghost.fifo", O_WRONLY)`},
		{499, [6]uint64{cwd, 0x1000, 0}, `openat(AT_FDCWD, "/tmp/ghost.fifo", O_RDONLY)`},
		{499, [6]uint64{^uint64(99), 0x1000, 0xe02, 0o640}, `openat(AT_FDCWD, "/tmp/ghost.fifo", O_RDWR|O_CREAT|O_EXCL|O_TRUNC, 0640)`},
		{499, [6]uint64{7, 0x1000, 0x1020006, 0o640}, `openat(7</data/ib_logfile0>, "/tmp/ghost.fifo", O_RDWR|O_NONBLOCK|O_DSYNC|O_DIRECTORY)`},
		{3, [6]uint64{5, 0x9000, 16384}, `read(` + s5 + `, 0x9000, 16384)`},
		{4, [6]uint64{5, 0x1400, 6}, `write(` + s5 + `, "select", 6)`},
		{475, [6]uint64{7, 0x9000, 512, 1024}, `pread(7</data/ib_logfile0>, 0x9000, 512, 1024)`},
		{95, [6]uint64{7}, `fsync(7</data/ib_logfile0>)`},
		{550, [6]uint64{9}, `fdatasync(9)`},
		{454, [6]uint64{0x829e76000, 15, 0, 0, 0}, `_umtx_op(0x829e76000, UMTX_OP_WAIT_UINT_PRIVATE, 0, NULL, NULL)`},
		{454, [6]uint64{0x800a12f00, 2, 100746, 0, 0}, `_umtx_op(0x800a12f00, UMTX_OP_WAIT, 100746, NULL, NULL)`},
		{454, [6]uint64{0x800a12f00, 15, 0, 24, 0x2000}, `_umtx_op(0x800a12f00, UMTX_OP_WAIT_UINT_PRIVATE, 0, 24, {_timeout={tv_sec=0, tv_nsec=250000000}, _flags=UMTX_ABSTIME, _clockid=CLOCK_MONOTONIC})`},
		{454, [6]uint64{0x800a12f00, 23, 0, 0, 0x1600}, `_umtx_op(0x800a12f00, UMTX_OP_SEM2_WAIT, 0, NULL, {tv_sec=1, tv_nsec=500})`},
		{454, [6]uint64{0x800a12f00, 8, 6, 0x800a13000, 0x1600}, `_umtx_op(0x800a12f00, UMTX_OP_CV_WAIT, CVWAIT_ABSTIME|CVWAIT_CLOCKID, 0x800a13000, {tv_sec=1, tv_nsec=500})`},
		{454, [6]uint64{0x800a12f00, 3, 1 << 31, 0x10, 0x2000}, `_umtx_op(0x800a12f00, UMTX_OP_WAKE, 2147483648, 0x10, 0x2000)`},
		{454, [6]uint64{0x800a12f00, 77}, `_umtx_op(0x800a12f00, 0x4d, 0, NULL, NULL)`},
		{93, [6]uint64{6, 0x2100, 0, 0, 0x1600}, `select(6, [3 ` + s5 + `], NULL, NULL, {tv_sec=1, tv_usec=500})`},
		{522, [6]uint64{6, 0x2100, 0, 0, 0, 0x1700}, `pselect(6, [3 ` + s5 + `], NULL, NULL, NULL, [INT TERM])`},
		{209, [6]uint64{0x1500, 2, 28800000}, `poll([{fd=` + s5 + `, events=POLLIN}, {fd=7</data/ib_logfile0>, events=POLLOUT|POLLRDHUP}], 2, 28800000)`},
		{545, [6]uint64{0x1500, 1, 0x1600, 0x1800}, `ppoll([{fd=` + s5 + `, events=POLLIN}], 1, {tv_sec=1, tv_nsec=500}, ~[KILL])`},
		{560, [6]uint64{11, 0, 0, 0x9000, 64, 0x1600}, `kevent(11, NULL, 0, 0x9000, 64, {tv_sec=1, tv_nsec=500})`},
		{560, [6]uint64{11, 0x1f00, 2, 0x9000, 64, 0}, `kevent(11, [{ident=` + s5 + `, filter=EVFILT_READ, flags=EV_ADD, fflags=0x0, data=0, udata=0xbeef}, {ident=4294967294, filter=EVFILT_TIMER, flags=EV_DELETE, fflags=0x0, data=0, udata=NULL}], 2, 0x9000, 64, NULL)`},
		{363, [6]uint64{11, 0x1f00, 1, 0x9000, 64, 0}, `freebsd11_kevent(11, [{ident=` + s5 + `, filter=EVFILT_READ, flags=EV_ADD, fflags=0x0, data=0, udata=0xbeef}], 1, 0x9000, 64, NULL)`},
		{240, [6]uint64{0x1600, 0}, `nanosleep({tv_sec=1, tv_nsec=500}, NULL)`},
		{244, [6]uint64{4, 1, 0x1600, 0}, `clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, {tv_sec=1, tv_nsec=500}, NULL)`},
		{429, [6]uint64{0x1700, 0x9000}, `sigwait([INT TERM], 0x9000)`},
		{345, [6]uint64{0x2200, 0, 0x1600}, `sigtimedwait([RT_0 RT_61], NULL, {tv_sec=1, tv_nsec=500})`},
		{341, [6]uint64{0x1800}, `sigsuspend(~[KILL])`},
		{29, [6]uint64{5, 0x9000, 4, 0x80, 0, 0}, `recvfrom(` + s5 + `, 0x9000, 4, MSG_DONTWAIT, NULL, NULL)`},
		{133, [6]uint64{5, 0x1400, 6, 0x20000, 0x1900, 16}, `sendto(` + s5 + `, "select", 6, MSG_NOSIGNAL, {sa_family=AF_INET, sin_port=htons(3306), sin_addr=inet_addr("192.0.2.7")}, 16)`},
		{98, [6]uint64{5, 0x1a00, 20}, `connect(` + s5 + `, {sa_family=AF_UNIX, sun_path="/tmp/mysql.sock"}, 20)`},
		{98, [6]uint64{5, 0x1b00, 28}, `connect(` + s5 + `, {sa_family=AF_INET6, sin6_port=htons(3306), sin6_addr="2001:db8:0:0:0:0:0:1"}, 28)`},
		{541, [6]uint64{5, 0x9000, 0x9010, 0x30000000}, `accept4(` + s5 + `, 0x9000, 0x9010, SOCK_NONBLOCK|SOCK_CLOEXEC)`},
		{30, [6]uint64{5, 0, 0}, `accept(` + s5 + `, NULL, NULL)`},
		{97, [6]uint64{28, 0x10000001, 0}, `socket(AF_INET6, SOCK_STREAM|SOCK_CLOEXEC, 0)`},
		{28, [6]uint64{5, 0x1d00, 0}, `sendmsg(` + s5 + `, {msg_name={sa_family=AF_INET, sin_port=htons(3306), sin_addr=inet_addr("192.0.2.7")}, msg_namelen=16, msg_iov=[{iov_base="select", iov_len=6}, {iov_base=0x9999, iov_len=3}], msg_iovlen=2, msg_controllen=7}, 0)`},
		{27, [6]uint64{5, 0x1d00, 2}, `recvmsg(` + s5 + `, {msg_name=0x1900, msg_namelen=16, msg_iov=[{iov_base=0x1400, iov_len=6}, {iov_base=0x9999, iov_len=3}], msg_iovlen=2, msg_controllen=7}, MSG_PEEK)`},
		{92, [6]uint64{7, 13, 0x1e00}, `fcntl(7</data/ib_logfile0>, F_SETLKW, {l_start=0, l_len=50, l_type=F_WRLCK, l_whence=SEEK_SET})`},
		{92, [6]uint64{7, 4, 6}, `fcntl(7</data/ib_logfile0>, F_SETFL, O_RDWR|O_NONBLOCK)`},
		{131, [6]uint64{7, 6}, `flock(7</data/ib_logfile0>, LOCK_EX|LOCK_NB)`},
		{477, [6]uint64{0, 4096, 3, 0x1002, 0xffffffff, 0}, `mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANON, -1, 0)`},
		{477, [6]uint64{0, 4096, 0, 0x15002002, 0xffffffff, 0}, `mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE|MAP_GUARD|MAP_ALIGNED(21), -1, 0)`},
		{65, [6]uint64{0x9000, 4096, 0}, `msync(0x9000, 4096, MS_SYNC)`},
		{481, [6]uint64{1158, 100460, 32}, `thr_kill2(1158, 100460, SIGTHR)`},
		{433, [6]uint64{100460, 10}, `thr_kill(100460, SIGBUS)`},
		{532, [6]uint64{0, 77, 0, 0x11, 0, 0}, `wait6(P_PID, 77, NULL, WNOHANG|WEXITED, NULL, NULL)`},
		{465, [6]uint64{0x80, 0x9000}, `aio_fsync(O_SYNC, 0x9000)`},
		{331, [6]uint64{1}, `sched_yield()`},
		{202, [6]uint64{1}, `__sysctl(0x1, 0, 0, 0, 0, 0)`},
		{8, [6]uint64{1}, `syscall_0x8(0x1, 0, 0, 0, 0, 0)`},
	} {
		for _, arch := range []target.Arch{target.AMD64, target.ARM64} {
			if c := Format("freebsd", arch, tt.nr, tt.args, fbsdMemory, fds); c.Text != tt.want {
				t.Errorf("%s:\ngot  %s\nwant %s", arch, c.Text, tt.want)
			}
		}
	}
}

// The numbers of the facts (sys/kern/syscalls.master of FreeBSD 12.1), which a
// shifted table wouldn't have.
func TestNumbersFreeBSD(t *testing.T) {
	for nr, name := range map[int64]string{
		0: "syscall", 1: "exit", 3: "read", 4: "write", 5: "open", 7: "wait4", 27: "recvmsg", 28: "sendmsg", 29: "recvfrom", 30: "accept",
		54: "ioctl", 92: "fcntl", 93: "select", 95: "fsync", 98: "connect", 120: "readv", 121: "writev", 131: "flock", 133: "sendto",
		198: "__syscall", 209: "poll", 240: "nanosleep", 244: "clock_nanosleep", 289: "preadv", 290: "pwritev", 315: "aio_suspend",
		331: "sched_yield", 341: "sigsuspend", 345: "sigtimedwait", 346: "sigwaitinfo", 359: "aio_waitcomplete", 362: "kqueue",
		363: "freebsd11_kevent", 393: "sendfile", 429: "sigwait", 431: "thr_exit", 432: "thr_self", 433: "thr_kill", 454: "_umtx_op",
		455: "thr_new", 465: "aio_fsync", 475: "pread", 476: "pwrite", 481: "thr_kill2", 499: "openat", 522: "pselect", 532: "wait6",
		541: "accept4", 545: "ppoll", 550: "fdatasync", 560: "kevent", 582: "swapoff", 587: "timerfd_settime",
	} {
		for _, arch := range []target.Arch{target.AMD64, target.ARM64} {
			if got, ok := Name("freebsd", arch, nr); !ok || got != name {
				t.Errorf("%s %d: %q %v, want %q", arch, nr, got, ok, name)
			}
			if got, ok := Number("freebsd", arch, name); !ok || got != nr {
				t.Errorf("%s %s: %d %v, want %d", arch, name, got, ok, nr)
			}
		}
	}
	for _, nr := range []int64{-1, 8, 588, 1 << 40} {
		if name, ok := Name("freebsd", target.AMD64, nr); ok {
			t.Errorf("%d has the name %q", nr, name)
		}
	}
	if _, ok := Name("freebsd", target.I386, 5); ok {
		t.Error("i386 has names")
	}
}

// Arguments that a rule asks for have the same names on both systems.
func TestArgsFreeBSD(t *testing.T) {
	c := Format("freebsd", target.AMD64, 499, [6]uint64{cwd, 0x1000, 1}, fbsdMemory, nil)
	a, ok := c.Arg("pathname")
	if !ok || a.Kind != "path" || !a.Decoded || a.Str != "/tmp/ghost.fifo" || !c.Known {
		t.Errorf("%+v", a)
	}
	if f, ok := c.Arg("flags"); !ok || f.Raw != 1 {
		t.Errorf("%+v", f)
	}
	if _, ok := c.Arg("mode"); ok {
		t.Error("an open without O_CREAT has no mode")
	}
}

func TestFlagsByOS(t *testing.T) {
	for _, tt := range []struct {
		os       string
		flags    uint64
		text     string
		access   Access
		nonblock bool
	}{
		{"freebsd", 0, "O_RDONLY", ReadOnly, false},
		{"freebsd", 0x801, "O_WRONLY|O_EXCL", WriteOnly, false}, // 0x800 is Linux's O_NONBLOCK
		{"freebsd", 0x6, "O_RDWR|O_NONBLOCK", ReadWrite, true},
		{"freebsd", 0x400000, "O_RDONLY|O_PATH", NoAccess, false},
		{"freebsd", 0x200000, "O_RDONLY|O_VERIFY", ReadOnly, false}, // Linux's O_PATH
		{"freebsd", 0x40000000_00000003, "O_ACCMODE", NoAccess, false},
		{"freebsd", 0x4000, "O_RDONLY|0x4000", ReadOnly, false},
		{"linux", 0x801, "O_WRONLY|O_NONBLOCK", WriteOnly, true},
		{"linux", 0x200000, "O_RDONLY|O_PATH", NoAccess, false},
	} {
		if got := OpenFlagsOf(tt.os, tt.flags); got != tt.text {
			t.Errorf("%s %#x: %s, want %s", tt.os, tt.flags, got, tt.text)
		}
		if got := AccessModeOf(tt.os, tt.flags); got != tt.access {
			t.Errorf("%s %#x: %s, want %s", tt.os, tt.flags, got, tt.access)
		}
		if got := NonBlockingOf(tt.os, tt.flags); got != tt.nonblock {
			t.Errorf("%s %#x: nonblocking %v", tt.os, tt.flags, got)
		}
	}
}

func TestSignalsByOS(t *testing.T) {
	for n, want := range map[int]string{0: "0", 7: "SIGEMT", 10: "SIGBUS", 11: "SIGSEGV", 20: "SIGCHLD", 29: "SIGINFO", 30: "SIGUSR1", 32: "SIGTHR", 33: "SIGLIBRT", 34: "34", 65: "SIGRT_0", 126: "SIGRT_61", 129: "129", -1: "-1"} {
		if got := SignalNameOf("freebsd", n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for mask, want := range map[uint64]string{
		0: "[]", 0x4002: "[INT TERM]", 0x80000000: "[THR]", ^uint64(0): "~[]", ^uint64(1 << 31): "~[THR]",
		0x18488000: "[URG CHLD IO WINCH INFO]", 1 << 40: "[41]", // the first is ki_sigignore of real cores
	} {
		if got := SignalSetOf("freebsd", mask); got != want {
			t.Errorf("%#x: %s, want %s", mask, got, want)
		}
	}
	if got := SignalNameOf("linux", 10); got != "SIGUSR1" {
		t.Error(got)
	}
	if got := SignalSetOf("linux", 0x4002); got != "[INT TERM]" {
		t.Error(got)
	}
}
