package syscalls

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"mycore/internal/target"
)

// memory is a target memory of a few pieces.
type memory map[uint64][]byte

func (m memory) ReadMemory(addr target.Addr, p []byte) (int, error) {
	for at, b := range m {
		if uint64(addr) >= at && uint64(addr)-at < uint64(len(b)) {
			n := copy(p, b[uint64(addr)-at:])
			if n < len(p) {
				return n, &target.ReadError{Addr: addr + target.Addr(n), Len: len(p) - n, Err: target.ErrNotDumped}
			}
			return n, nil
		}
	}
	return 0, &target.ReadError{Addr: addr, Len: len(p), Err: target.ErrNotMapped}
}

func words(v ...uint64) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func minus(v uint64) uint64 { return -v }

var testMemory = memory{
	0x1000: []byte("/tmp/ghost.fifo\x00"),
	0x1100: []byte("a\x1b[2J\"\\\n\x001\x00"),
	0x1200: []byte("/data/\xc3\xa4\x7f9\x00"),
	0x1300: []byte("no end"),
	0x1400: []byte("select * from t where c = 'secret' and more"),
	0x1500: append(append(words(0x0000000100000005), words(0x0004000500000007)...), words(0x00000001ffffffff)...),
	0x1600: words(1, 500),
	0x1700: words(0x4002), // INT TERM
	0x1800: words(^uint64(0)),
	0x1900: {2, 0, 0x0c, 0xea, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0},
	0x1a00: append([]byte{1, 0}, "/run/my.sock\x00\x00"...),
	0x1b00: append([]byte{1, 0, 0}, "abstract\x1b"...),
	0x1c00: words(0x28, 0), // descriptors 3 and 5
	0x1d00: words(0x1400, 5, 0x9999, 3),
	0x1e00: words(1, 100, 0),                 // F_WRLCK, SEEK_SET, start, len (below)
	0x1f00: words(0o2000000|0o100, 0o600, 4), // open_how
	0x2000: words(0x1900, 16, 0x1d00, 1, 0, 0, 0),
	0x2100: words(0x1700, 8),
	0x2200: {10, 0, 0x0c, 0xea, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0},
	0x2300: words(0xfeed_0000_0001, 7),
	0x2400: append(words(1, 0, 50), words(0)...),
	0x2500: []byte(strings.Repeat("x", 5000)),
}

func testFDs(fd int) (string, bool) {
	switch fd {
	case 5:
		return "socket:[123]", true
	case 7:
		return "/tmp/a>b\x1b\n", true
	}
	return "", false
}

const cwd = uint64(0xffffff9c) // AT_FDCWD in 32 bits, as `mov $0xffffff9c,%edi` leaves it

func TestFormat(t *testing.T) {
	tests := []struct {
		name string
		args [6]uint64
		want string
	}{
		{"openat", [6]uint64{cwd, 0x1000, 0o2000000, 0x77}, `openat(AT_FDCWD, "/tmp/ghost.fifo", O_RDONLY|O_CLOEXEC)`},
		{"openat", [6]uint64{minus(100), 0x1000, 0o101, 0o640}, `openat(AT_FDCWD, "/tmp/ghost.fifo", O_WRONLY|O_CREAT, 0640)`},
		{"openat", [6]uint64{7, 0x1100, 2}, `openat(7</tmp/a\76b\33\n>, "a\33[2J\"\\\n", O_RDWR)`},
		{"openat", [6]uint64{9, 0x1200, 0}, `openat(9, "/data/\303\244\1779", O_RDONLY)`},
		{"openat", [6]uint64{cwd, 0xdead000, 0}, `openat(AT_FDCWD, 0xdead000, O_RDONLY)`},
		{"openat", [6]uint64{cwd, 0, 0}, `openat(AT_FDCWD, NULL, O_RDONLY)`},
		{"openat", [6]uint64{cwd, 0x1300, 0}, `openat(AT_FDCWD, "no end"..., O_RDONLY)`},
		{"open", [6]uint64{0x1000, 0o20200000 | 2, 0o600}, `open("/tmp/ghost.fifo", O_RDWR|O_TMPFILE, 0600)`},
		{"open", [6]uint64{0x1000, 0o4010000 | 0o4000000000}, `open("/tmp/ghost.fifo", O_RDONLY|O_SYNC|0x20000000)`},
		{"openat2", [6]uint64{cwd, 0x1000, 0x1f00, 24}, `openat2(AT_FDCWD, "/tmp/ghost.fifo", {flags=O_RDONLY|O_CREAT|O_CLOEXEC, mode=0600, resolve=RESOLVE_NO_SYMLINKS}, 24)`},
		{"creat", [6]uint64{0x1000, 0}, `creat("/tmp/ghost.fifo", 000)`},
		{"read", [6]uint64{5, 0x9999, 16384}, `read(5<socket:[123]>, 0x9999, 16384)`},
		{"write", [6]uint64{1, 0x1400, 40}, `write(1, "select * from t where c = 'secre"..., 40)`},
		{"write", [6]uint64{1, 0x1400, 6}, `write(1, "select", 6)`},
		{"write", [6]uint64{1, 0x9999, 6}, `write(1, 0x9999, 6)`},
		{"pread64", [6]uint64{7, 0x9999, 512, minus(1)}, `pread64(7</tmp/a\76b\33\n>, 0x9999, 512, -1)`},
		{"writev", [6]uint64{1, 0x1d00, 2}, `writev(1, [{iov_base="selec", iov_len=5}, {iov_base=0x9999, iov_len=3}], 2)`},
		{"readv", [6]uint64{1, 0x1d00, 1}, `readv(1, [{iov_base=0x1400, iov_len=5}], 1)`},
		{"preadv2", [6]uint64{1, 0x1d00, 1, 4096, 99, 8}, `preadv2(1, [{iov_base=0x1400, iov_len=5}], 1, 4096, RWF_NOWAIT)`},
		{"close", [6]uint64{5}, `close(5<socket:[123]>)`},
		{"poll", [6]uint64{0x1500, 3, 0xffffffff}, `poll([{fd=5<socket:[123]>, events=POLLIN}, {fd=7</tmp/a\76b\33\n>, events=POLLIN|POLLOUT}, {fd=-1}], 3, -1)`},
		{"poll", [6]uint64{0x1500, 1, 28800000}, `poll([{fd=5<socket:[123]>, events=POLLIN}], 1, 28800000)`},
		{"poll", [6]uint64{0x1500, 1 << 31, 0}, `poll(0x1500, 2147483648, 0)`},
		{"poll", [6]uint64{0, 0, 100}, `poll(NULL, 0, 100)`},
		{"ppoll", [6]uint64{0x1500, 1, 0x1600, 0x1700, 8}, `ppoll([{fd=5<socket:[123]>, events=POLLIN}], 1, {tv_sec=1, tv_nsec=500}, [INT TERM], 8)`},
		{"select", [6]uint64{6, 0x1c00, 0, 0, 0x1600}, `select(6, [3 5<socket:[123]>], NULL, NULL, {tv_sec=1, tv_usec=500})`},
		{"select", [6]uint64{0, 0, 0, 0, 0x1600}, `select(0, NULL, NULL, NULL, {tv_sec=1, tv_usec=500})`},
		{"pselect6", [6]uint64{0, 0, 0, 0, 0x1600, 0x2100}, `pselect6(0, NULL, NULL, NULL, {tv_sec=1, tv_nsec=500}, {sigmask=[INT TERM], sigsetsize=8})`},
		{"epoll_wait", [6]uint64{4, 0x9000, 256, 0xffffffff}, `epoll_wait(4, 0x9000, 256, -1)`},
		{"epoll_ctl", [6]uint64{4, 1, 5, 0x2300}, `epoll_ctl(4, EPOLL_CTL_ADD, 5<socket:[123]>, {events=EPOLLIN, data=0x70000feed})`},
		{"futex", [6]uint64{0x7f00, 393, 0, 0, 0, 0xffffffff}, `futex(0x7f00, FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME, 0, NULL, FUTEX_BITSET_MATCH_ANY)`},
		{"futex", [6]uint64{0x7f00, 393, 0, 0x1600, 0, 0xffffffff}, `futex(0x7f00, FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME, 0, {tv_sec=1, tv_nsec=500}, FUTEX_BITSET_MATCH_ANY)`},
		{"futex", [6]uint64{0x7f00, 128, 2, 0, 0x7777, 3}, `futex(0x7f00, FUTEX_WAIT_PRIVATE, 2, NULL)`},
		{"futex", [6]uint64{0x7f00, 0, 2, 0}, `futex(0x7f00, FUTEX_WAIT, 2, NULL)`},
		{"futex", [6]uint64{0x7f00, 129, 1}, `futex(0x7f00, FUTEX_WAKE_PRIVATE, 1)`},
		{"futex", [6]uint64{0x7f00, 134, 9, 0}, `futex(0x7f00, FUTEX_LOCK_PI_PRIVATE, NULL)`},
		{"futex", [6]uint64{0x7f00, 132, 1, 100, 0x7f04, 6}, `futex(0x7f00, FUTEX_CMP_REQUEUE_PRIVATE, 1, 100, 0x7f04, 0x6)`},
		{"nanosleep", [6]uint64{0x1600, 0x9000}, `nanosleep({tv_sec=1, tv_nsec=500}, 0x9000)`},
		{"clock_nanosleep", [6]uint64{1, 1, 0x1600, 0}, `clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, {tv_sec=1, tv_nsec=500}, NULL)`},
		{"rt_sigtimedwait", [6]uint64{0x1700, 0x9000, 0, 8}, `rt_sigtimedwait([INT TERM], 0x9000, NULL, 8)`},
		{"rt_sigtimedwait", [6]uint64{0x1700, 0x9000, 0, 16}, `rt_sigtimedwait(0x1700, 0x9000, NULL, 16)`},
		{"rt_sigsuspend", [6]uint64{0x1800, 8}, `rt_sigsuspend(~[], 8)`},
		{"pause", [6]uint64{1, 2, 3}, `pause()`},
		{"recvfrom", [6]uint64{5, 0x9000, 4, 0x40, 0, 0}, `recvfrom(5<socket:[123]>, 0x9000, 4, MSG_DONTWAIT, NULL, NULL)`},
		{"sendto", [6]uint64{5, 0x1400, 6, 0x4040, 0x1900, 16}, `sendto(5<socket:[123]>, "select", 6, MSG_DONTWAIT|MSG_NOSIGNAL, {sa_family=AF_INET, sin_port=htons(3306), sin_addr=inet_addr("192.0.2.7")}, 16)`},
		{"connect", [6]uint64{5, 0x1a00, 16}, `connect(5<socket:[123]>, {sa_family=AF_UNIX, sun_path="/run/my.sock"}, 16)`},
		{"connect", [6]uint64{5, 0x1b00, 12}, `connect(5<socket:[123]>, {sa_family=AF_UNIX, sun_path=@"abstract\33"}, 12)`},
		{"connect", [6]uint64{5, 0x2200, 28}, `connect(5<socket:[123]>, {sa_family=AF_INET6, sin6_port=htons(3306), sin6_addr="2001:db8:0:0:0:0:0:1"}, 28)`},
		{"accept4", [6]uint64{5, 0x9000, 0x9010, 0o2004000}, `accept4(5<socket:[123]>, 0x9000, 0x9010, SOCK_NONBLOCK|SOCK_CLOEXEC)`},
		{"sendmsg", [6]uint64{5, 0x2000, 0}, `sendmsg(5<socket:[123]>, {msg_name={sa_family=AF_INET, sin_port=htons(3306), sin_addr=inet_addr("192.0.2.7")}, msg_namelen=16, msg_iov=[{iov_base="selec", iov_len=5}], msg_iovlen=1, msg_controllen=0}, 0)`},
		{"recvmsg", [6]uint64{5, 0x2000, 0}, `recvmsg(5<socket:[123]>, {msg_name=0x1900, msg_namelen=16, msg_iov=[{iov_base=0x1400, iov_len=5}], msg_iovlen=1, msg_controllen=0}, 0)`},
		{"socket", [6]uint64{2, 0o2000001, 0}, `socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, 0)`},
		{"fsync", [6]uint64{7}, `fsync(7</tmp/a\76b\33\n>)`},
		{"msync", [6]uint64{0x9000, 4096, 4}, `msync(0x9000, 4096, MS_SYNC)`},
		{"sync_file_range", [6]uint64{3, 0, 4096, 7}, `sync_file_range(3, 0, 4096, SYNC_FILE_RANGE_WAIT_BEFORE|SYNC_FILE_RANGE_WRITE|SYNC_FILE_RANGE_WAIT_AFTER)`},
		{"fallocate", [6]uint64{3, 3, 0, 65536}, `fallocate(3, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 0, 65536)`},
		{"ftruncate", [6]uint64{3, 10}, `ftruncate(3, 10)`},
		{"flock", [6]uint64{3, 6}, `flock(3, LOCK_EX|LOCK_NB)`},
		{"fcntl", [6]uint64{3, 7, 0x2400}, `fcntl(3, F_SETLKW, {l_type=F_WRLCK, l_whence=SEEK_SET, l_start=0, l_len=50})`},
		{"fcntl", [6]uint64{3, 4, 0o4002}, `fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK)`},
		{"io_getevents", [6]uint64{0x7f0000, 1, 256, 0x9000, 0x1600}, `io_getevents(0x7f0000, 1, 256, 0x9000, {tv_sec=1, tv_nsec=500})`},
		{"io_pgetevents", [6]uint64{0x7f0000, 1, 256, 0x9000, 0, 0x2100}, `io_pgetevents(0x7f0000, 1, 256, 0x9000, NULL, {sigmask=[INT TERM], sigsetsize=8})`},
		{"io_uring_enter", [6]uint64{9, 0, 1, 1, 0, 8}, `io_uring_enter(9, 0, 1, IORING_ENTER_GETEVENTS, NULL, 8)`},
		{"wait4", [6]uint64{0xffffffff, 0x9000, 3, 0}, `wait4(-1, 0x9000, WUNTRACED|WNOHANG, NULL)`},
		{"waitid", [6]uint64{1, 77, 0x9000, 4, 0}, `waitid(P_PID, 77, 0x9000, WEXITED, NULL)`},
		{"tgkill", [6]uint64{100, 101, 6}, `tgkill(100, 101, SIGABRT)`},
		{"restart_syscall", [6]uint64{0x1500, 1, 5}, `restart_syscall()`},
		{"exit_group", [6]uint64{1}, `exit_group(1)`},
		{"mmap", [6]uint64{0, 4096, 3, 0x22, 0xffffffff, 0}, `mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)`},
		{"madvise", [6]uint64{0x9000, 4096, 4}, `madvise(0x9000, 4096, MADV_DONTNEED)`},
		{"statx", [6]uint64{cwd, 0x1000, 0x100, 0xfff, 0x9000}, `statx(AT_FDCWD, "/tmp/ghost.fifo", AT_SYMLINK_NOFOLLOW, STATX_ALL, 0x9000)`},
		{"newfstatat", [6]uint64{cwd, 0x1000, 0x9000, 0}, `newfstatat(AT_FDCWD, "/tmp/ghost.fifo", 0x9000, 0)`},
		{"rename", [6]uint64{0x1000, 0x1200}, `rename("/tmp/ghost.fifo", "/data/\303\244\1779")`},
		{"mkdir", [6]uint64{0x1000, 0o755}, `mkdir("/tmp/ghost.fifo", 0755)`},
		{"ioctl", [6]uint64{5, 0x541b, 0x9000}, `ioctl(5<socket:[123]>, FIONREAD, 0x9000)`},
		{"getdents64", [6]uint64{3, 0x9000, 32768}, `getdents64(3, 0x9000, 32768)`},
		{"splice", [6]uint64{3, 0, 5, 0, 65536, 1}, `splice(3, NULL, 5<socket:[123]>, NULL, 65536, SPLICE_F_MOVE)`},
		{"bpf", [6]uint64{1, 0x9000, 120}, `bpf(0x1, 0x9000, 0x78, 0, 0, 0)`},
	}
	for _, tt := range tests {
		nr, ok := Number("linux", target.AMD64, tt.name)
		if !ok {
			t.Errorf("%s has no number", tt.name)
			continue
		}
		c := Format("linux", target.AMD64, nr, tt.args, testMemory, testFDs)
		if c.Text != tt.want {
			t.Errorf("got  %s\nwant %s", c.Text, tt.want)
		}
		if c.Name != tt.name || c.Number != nr {
			t.Errorf("%s: name %q, number %d", tt.name, c.Name, c.Number)
		}
	}
}

// The numbers that the kernel's tables fix for ever, and the ones measured on
// cores of real servers.
func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		arch target.Arch
		nr   int64
		name string
	}{
		{target.AMD64, 0, "read"}, {target.AMD64, 2, "open"}, {target.AMD64, 7, "poll"}, {target.AMD64, 34, "pause"},
		{target.AMD64, 128, "rt_sigtimedwait"}, {target.AMD64, 202, "futex"}, {target.AMD64, 208, "io_getevents"},
		{target.AMD64, 219, "restart_syscall"}, {target.AMD64, 230, "clock_nanosleep"}, {target.AMD64, 234, "tgkill"},
		{target.AMD64, 257, "openat"}, {target.AMD64, 262, "newfstatat"}, {target.AMD64, 270, "pselect6"}, {target.AMD64, 271, "ppoll"},
		{target.AMD64, 333, "io_pgetevents"}, {target.AMD64, 334, "rseq"}, {target.AMD64, 424, "pidfd_send_signal"},
		{target.AMD64, 426, "io_uring_enter"}, {target.AMD64, 437, "openat2"}, {target.AMD64, 451, "cachestat"},
		{target.ARM64, 22, "epoll_pwait"}, {target.ARM64, 56, "openat"}, {target.ARM64, 63, "read"}, {target.ARM64, 73, "ppoll"},
		{target.ARM64, 79, "newfstatat"}, {target.ARM64, 98, "futex"}, {target.ARM64, 128, "restart_syscall"},
		{target.ARM64, 222, "mmap"}, {target.ARM64, 260, "wait4"}, {target.ARM64, 291, "statx"}, {target.ARM64, 424, "pidfd_send_signal"},
		{target.ARM64, 451, "cachestat"},
	} {
		if got, ok := Name("linux", tt.arch, tt.nr); !ok || got != tt.name {
			t.Errorf("%v %d: %q %v, want %q", tt.arch, tt.nr, got, ok, tt.name)
		}
		if got, ok := Number("linux", tt.arch, tt.name); !ok || got != tt.nr {
			t.Errorf("%v %s: %d %v, want %d", tt.arch, tt.name, got, ok, tt.nr)
		}
	}
	for _, nr := range []int64{-1, 387, 423, 472, 1 << 40} {
		if name, ok := Name("linux", target.AMD64, nr); ok {
			t.Errorf("%d has the name %q", nr, name)
		}
	}
	if _, ok := Name("plan9", target.AMD64, 0); ok {
		t.Error("an unknown system has names")
	}
	if _, ok := Number("linux", target.ARM64, "open"); ok {
		t.Error("arm64 has no open")
	}
	if _, ok := Number("linux", target.ARM64, ""); ok {
		t.Error("the empty name has a number")
	}
}

// Names are unique within a table, and every signature belongs to a call.
func TestTables(t *testing.T) {
	all := map[string]map[string]bool{}
	for sys, table := range tables {
		if all[sys.os] == nil {
			all[sys.os] = map[string]bool{}
		}
		seen := map[string]int{}
		for nr, name := range table {
			if name == "" {
				continue
			}
			if other, ok := seen[name]; ok {
				t.Errorf("%v: %s is %d and %d", sys, name, other, nr)
			}
			seen[name], all[sys.os][name] = nr, true
		}
	}
	for os, sigs := range signaturesOf {
		for name, params := range sigs {
			if !all[os][name] {
				t.Errorf("%s: signature of %s, which is in no table", os, name)
			}
			if len(params) > 6 {
				t.Errorf("%s: %s has %d parameters", os, name, len(params))
			}
		}
	}
	if n := len(linuxX86); n != 472 {
		t.Errorf("%d numbers on x86-64", n)
	}
}

func TestArm64Flags(t *testing.T) {
	const directory, nofollow = 0o40000, 0o100000
	if got := OpenFlags(target.ARM64, directory|nofollow|0o2000000); got != "O_RDONLY|O_DIRECTORY|O_NOFOLLOW|O_CLOEXEC" {
		t.Error(got)
	}
	if got := OpenFlags(target.AMD64, directory|nofollow); got != "O_RDONLY|O_DIRECT|O_LARGEFILE" {
		t.Error(got)
	}
	c := Format("linux", target.ARM64, 56, [6]uint64{cwd, 0x1000, directory}, testMemory, nil)
	if c.Text != `openat(AT_FDCWD, "/tmp/ghost.fifo", O_RDONLY|O_DIRECTORY)` {
		t.Error(c.Text)
	}
}

func TestUnknownCall(t *testing.T) {
	c := Format("linux", target.AMD64, 9999, [6]uint64{1, 2}, testMemory, nil)
	if c.Text != "syscall_0x270f(0x1, 0x2, 0, 0, 0, 0)" || c.Known {
		t.Error(c.Text, c.Known)
	}
	for _, os := range []string{"plan9", ""} {
		if c := Format(os, target.AMD64, 499, [6]uint64{1}, testMemory, nil); c.Known || !strings.HasPrefix(c.Text, "syscall_0x1f3(") {
			t.Error(c.Text)
		}
	}
}

func TestArgs(t *testing.T) {
	c := Format("linux", target.AMD64, 257, [6]uint64{cwd, 0x1000, 0o2000000}, testMemory, nil)
	a, ok := c.Arg("pathname")
	if !ok || a.Kind != "path" || a.Raw != 0x1000 || !a.Decoded || a.Str != "/tmp/ghost.fifo" || a.Err != nil {
		t.Errorf("%+v", a)
	}
	if _, ok := c.Arg("mode"); ok {
		t.Error("an open without O_CREAT has no mode")
	}
	c = Format("linux", target.AMD64, 257, [6]uint64{cwd, 0xdead000}, testMemory, nil)
	a, _ = c.Arg("pathname")
	var re *target.ReadError
	if a.Decoded || a.Str != "" || !errors.As(a.Err, &re) || re.Addr != 0xdead000 {
		t.Errorf("unreadable path: %+v", a)
	}
	c = Format("linux", target.AMD64, 257, [6]uint64{cwd, 0x1300}, testMemory, nil)
	if a, _ = c.Arg("pathname"); a.Str != "no end" || !errors.Is(a.Err, target.ErrNotDumped) {
		t.Errorf("cut path: %+v", a)
	}
	c = Format("linux", target.AMD64, 257, [6]uint64{cwd, 0x2500}, testMemory, nil)
	if a, _ = c.Arg("pathname"); len(a.Str) != maxPath || !errors.Is(a.Err, target.ErrUnterminated) || len(c.Text) > maxPath+100 {
		t.Errorf("long path: %d bytes, %v", len(a.Str), a.Err)
	}
	c = Format("linux", target.AMD64, 257, [6]uint64{cwd, 0x1000}, nil, nil)
	if c.Text != "openat(AT_FDCWD, 0x1000, O_RDONLY)" {
		t.Error(c.Text)
	}
}

func TestAccessMode(t *testing.T) {
	for flags, want := range map[uint64]Access{
		0: ReadOnly, 0o2000000: ReadOnly, 1: WriteOnly, 0o101: WriteOnly, 2: ReadWrite, 3: NoAccess, 0o10000000: NoAccess, 0o4000: ReadOnly,
	} {
		if got := AccessMode(flags); got != want {
			t.Errorf("%#o: %s, want %s", flags, got, want)
		}
	}
	if NonBlocking(0o2000000) || !NonBlocking(0o4001) {
		t.Error("O_NONBLOCK")
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"a": `"a"`, "": `""`, "\x001": `"\0001"`, "\x00x": `"\0x"`, "\a\b\v\f\r\t": `"\7\10\v\f\r\t"`, "\xff": `"\377"`,
		"\u202e": `"\342\200\256"`, "\x9b31m": `"\23331m"`,
	} {
		if got := Quote(in, false); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := Quote("x", true); got != `"x"...` {
		t.Error(got)
	}
}

func TestSignalSet(t *testing.T) {
	for mask, want := range map[uint64]string{
		0: "[]", 0x87007: "[HUP INT QUIT PIPE ALRM TERM TSTP]", 1 << 31: "[RTMIN]", 1 << 33: "[RT_2]",
		^uint64(0): "~[]", ^uint64(1 << 8): "~[KILL]", 1 << 63: "[RT_32]",
	} {
		if got := SignalSet(mask); got != want {
			t.Errorf("%#x: %s, want %s", mask, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 6: "SIGABRT", 31: "SIGSYS", 32: "SIGRTMIN", 34: "SIGRT_2", 65: "65", -1: "-1"} {
		if got := SignalName(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// The combinations that were measured on cores of MariaDB and MySQL, and their
// neighbours.
func TestInCall(t *testing.T) {
	known := func(n int64) target.Value[int64] { return target.Known(n, target.SourceCoreNote) }
	yes, no := target.Known(true, target.SourceCode), target.Known(false, target.SourceCode)
	for _, tt := range []struct {
		nr     target.Value[int64]
		result uint64
		behind target.Value[bool]
		want   State
	}{
		{known(257), minus(512), yes, Interrupted},
		{known(202), minus(516), yes, Interrupted},
		{known(271), minus(514), yes, Interrupted},
		{known(208), minus(4), yes, Interrupted},
		{known(219), minus(516), yes, Interrupted},
		{known(35), minus(513), yes, Interrupted},
		{known(257), minus(512), target.Value[bool]{}, Interrupted},
		{known(257), minus(512), no, NotInCall},
		{known(0), minus(512), yes, Interrupted},
		{known(-1), minus(512), yes, NotInCall},
		{known(0), minus(38), yes, Entered},
		{known(234), 0, yes, Returned},
		{known(0), 100, yes, Returned},
		{known(257), minus(2), yes, Failed},
		{known(257), minus(515), yes, Failed},
		{known(257), minus(5000), yes, Returned},
		{target.Value[int64]{}, minus(512), yes, Unclear},
		{target.Value[int64]{}, minus(512), no, NotInCall},
	} {
		got := InCall(tt.nr, tt.result, tt.behind)
		if got != tt.want {
			t.Errorf("number %v, result %d, behind %v: %s, want %s", tt.nr, int64(tt.result), tt.behind, got, tt.want)
		}
		if got.Blocked() != (tt.want == Interrupted || tt.want == Entered) {
			t.Errorf("%s: blocked %v", got, got.Blocked())
		}
	}
	if name, _, ok := RestartName(minus(516)); !ok || name != "ERESTART_RESTARTBLOCK" {
		t.Error(name)
	}
	if _, _, ok := RestartName(512); ok {
		t.Error("512 is no error")
	}
}

func TestEndsInSyscall(t *testing.T) {
	for _, tt := range []struct {
		arch   target.Arch
		code   string
		is, ok bool
	}{
		{target.AMD64, "\xb8\x07\x00\x00\x00\x0f\x05", true, true},
		{target.AMD64, "\x0f\x05\x90", false, true},
		{target.AMD64, "\x05", false, false},
		{target.ARM64, "\x01\x00\x00\xd4", true, true},
		{target.ARM64, "\x00\x00\x00\xd4", false, true},
		{target.I386, "\x0f\x05", false, false},
	} {
		if is, ok := EndsInSyscall(tt.arch, []byte(tt.code)); is != tt.is || ok != tt.ok {
			t.Errorf("%v % x: %v %v", tt.arch, tt.code, is, ok)
		}
	}
}

func TestRestarted(t *testing.T) {
	if !Restarted("linux", target.AMD64, 219) || !Restarted("linux", target.ARM64, 128) || Restarted("linux", target.AMD64, 128) {
		t.Error("restart_syscall is 219 on x86-64 and 128 on AArch64")
	}
}

func FuzzFormat(f *testing.F) {
	f.Add(int64(257), uint64(cwd), uint64(0x1000), uint64(0), uint64(0), []byte("/tmp/x\x00"))
	f.Add(int64(7), uint64(0x1000), uint64(1<<63), uint64(3), uint64(8), []byte("aaaaaaaaaaaaaaaa"))
	f.Add(int64(560), uint64(5), uint64(0x1000), uint64(1), uint64(0x1000), words(5, 0x1ffff, 0, 0, 0, 0, 0, 0))
	f.Add(int64(454), uint64(0x1000), uint64(15), uint64(0), uint64(24), words(1, 2, 3))
	f.Add(int64(46), uint64(5), uint64(0x1000), uint64(0), uint64(0), words(0x1000, 16, 0x1000, 1<<62, 0, 0, 0))
	f.Fuzz(func(t *testing.T, nr int64, a, b, c, d uint64, mem []byte) {
		m := memory{0x1000: mem}
		for _, arch := range []target.Arch{target.AMD64, target.ARM64} {
			for _, os := range []string{"linux", "freebsd"} {
				call := Format(os, arch, nr, [6]uint64{a, b, c, d, a, b}, m, func(int) (string, bool) { return string(mem), true })
				for i := 0; i < len(call.Text); i++ {
					if ch := call.Text[i]; ch < 0x20 || ch > 0x7e {
						t.Fatalf("byte %#x in %q", ch, call.Text)
					}
				}
				if len(call.Text) > 64<<10 {
					t.Fatalf("%d bytes of text", len(call.Text))
				}
			}
		}
	})
}

func ExampleFormat() {
	c := Format("linux", target.AMD64, 257, [6]uint64{0xffffff9c, 0x1000, 0o2000000}, testMemory, nil)
	fmt.Println(c.Text)
	// Output: openat(AT_FDCWD, "/tmp/ghost.fifo", O_RDONLY|O_CLOEXEC)
}

func BenchmarkFormat(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Format("linux", target.AMD64, 7, [6]uint64{0x1500, 1, 28800000}, testMemory, testFDs)
	}
}
