package syscalls

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"mycore/internal/target"
)

// Limits on what is read behind a pointer and shown.
const (
	maxPath   = 4096 // PATH_MAX, uapi/linux/limits.h
	maxData   = 32   // bytes of a buffer, strace's default
	maxItems  = 16   // elements of an array: pollfd, iovec
	maxSelect = 1024 // FD_SETSIZE
	maxFDText = 256  // bytes of a descriptor's description
)

// decoder holds what one call's arguments are decoded from.
type decoder struct {
	arch target.Arch
	mem  target.Memory
	fds  FDs
	args [6]uint64
}

// param describes one parameter of a call.
type param struct {
	name string
	kind string
	// show fills in Text, and Str where there is one. i is the parameter's
	// index.
	show func(d *decoder, a *Arg, i int)
	// when says whether the call has the parameter, by its other arguments;
	// nil: always.
	when func(args *[6]uint64) bool
}

// errNoMemory is why pointers stay addresses without a memory.
var errNoMemory = errors.New("no memory to read")

func (d *decoder) arg(i int, p param) Arg {
	a := Arg{Name: p.name, Kind: p.kind, Raw: d.args[i]}
	p.show(d, &a, i)
	return a
}

// read fills p from the target.
func (d *decoder) read(addr uint64, p []byte) error {
	if d.mem == nil {
		return errNoMemory
	}
	n, err := d.mem.ReadMemory(target.Addr(addr), p)
	if err == nil && n < len(p) {
		err = &target.ReadError{Addr: target.Addr(addr) + target.Addr(n), Len: len(p) - n, Err: target.ErrNotMapped}
	}
	return err
}

// pointer shows an address, and remembers why what is behind it isn't shown.
func pointer(a *Arg, err error) {
	a.Text, a.Err = hex(a.Raw), err
}

func hex(v uint64) string {
	if v == 0 {
		return "NULL"
	}
	return fmt.Sprintf("%#x", v)
}

func showPointer(_ *decoder, a *Arg, _ int) { a.Text = hex(a.Raw) }

func showHex(_ *decoder, a *Arg, _ int) {
	a.Text = "0"
	if a.Raw != 0 {
		a.Text = fmt.Sprintf("%#x", a.Raw)
	}
}

func showInt(_ *decoder, a *Arg, _ int)       { a.Text = fmt.Sprint(int32(a.Raw)) }
func showUint(_ *decoder, a *Arg, _ int)      { a.Text = fmt.Sprint(uint32(a.Raw)) }
func showLong(_ *decoder, a *Arg, _ int)      { a.Text = fmt.Sprint(int64(a.Raw)) }
func showSize(_ *decoder, a *Arg, _ int)      { a.Text = fmt.Sprint(a.Raw) }
func showMode(_ *decoder, a *Arg, _ int)      { a.Text = octalMode(a.Raw) }
func showSignal(_ *decoder, a *Arg, _ int)    { a.Text = SignalName(int(int32(a.Raw))) }
func showFutexOp(_ *decoder, a *Arg, _ int)   { a.Text = FutexOp(a.Raw) }
func showOpenFlags(d *decoder, a *Arg, _ int) { a.Text = OpenFlags(d.arch, a.Raw) }

func octalMode(v uint64) string {
	return fmt.Sprintf("0%02o", uint32(v))
}

// fdText is a descriptor as strace -y shows it: 5<socket:[123]>.
func (d *decoder) fdText(fd int32) string {
	if fd >= 0 && d.fds != nil {
		if text, ok := d.fds(int(fd)); ok {
			return fmt.Sprintf("%d<%s>", fd, plain(text, maxFDText))
		}
	}
	return fmt.Sprint(fd)
}

func showFD(d *decoder, a *Arg, _ int) { a.Text = d.fdText(int32(a.Raw)) }

// atFDCWD is AT_FDCWD of uapi/linux/fcntl.h.
const atFDCWD = -100

func showDirFD(d *decoder, a *Arg, _ int) {
	if int32(a.Raw) == atFDCWD {
		a.Text = "AT_FDCWD"
		return
	}
	a.Text = d.fdText(int32(a.Raw))
}

// showPath shows a NUL-terminated string.
func showPath(d *decoder, a *Arg, _ int) {
	if a.Raw == 0 {
		a.Text = "NULL"
		return
	}
	if d.mem == nil {
		pointer(a, errNoMemory)
		return
	}
	s, err := target.CString(d.mem, target.Addr(a.Raw), maxPath)
	if err != nil && s == "" {
		pointer(a, err)
		return
	}
	a.Str, a.Decoded, a.Err = s, true, err
	a.Text = Quote(s, err != nil)
}

// bytesAt shows n bytes of data at addr, at most maxData of them.
func (d *decoder) bytesAt(addr, n uint64) (s string, more bool, err error) {
	if n == 0 || d.mem == nil {
		return "", n != 0, errNoMemory
	}
	buf := make([]byte, min(n, maxData))
	if err := d.read(addr, buf); err != nil {
		return "", false, err
	}
	return string(buf), n > maxData, nil
}

// showData shows a buffer that the call reads; its length is the next argument.
func showData(d *decoder, a *Arg, i int) {
	s, more, err := d.bytesAt(a.Raw, d.args[i+1])
	switch {
	case d.args[i+1] == 0 && a.Raw != 0:
		a.Text = `""`
	case err != nil:
		pointer(a, err)
	default:
		a.Str, a.Decoded, a.Text = s, true, Quote(s, more)
	}
}

// showEnum makes a show function for an enumeration.
func showEnum(set []named) func(*decoder, *Arg, int) {
	return func(_ *decoder, a *Arg, _ int) {
		v := a.Raw & 0xffffffff
		s, ok := enumName(v, set)
		if !ok {
			s = fmt.Sprintf("%#x", v)
		}
		a.Text = s
	}
}

// showFlags makes a show function for 32-bit flags; zero is the text for none.
func showFlags(set []named, zero string) func(*decoder, *Arg, int) {
	return func(_ *decoder, a *Arg, _ int) { a.Text = flagNames(a.Raw&0xffffffff, zero, set) }
}

// showSocketType shows a type with its flags.
func showSocketType(_ *decoder, a *Arg, _ int) {
	s, ok := enumName(a.Raw&0xf, socketTypes)
	if !ok {
		s = fmt.Sprintf("%#x", a.Raw&0xf)
	}
	a.Text = orMore(s, a.Raw&0xfffffff0, socketFlags)
}

// showFlock shows the operation of flock(2).
func showFlock(_ *decoder, a *Arg, _ int) { a.Text = flagNames(a.Raw&0xffffffff, "0", flockOps) }

// showStruct makes a show function that reads size bytes behind a pointer.
func showStruct(size int, text func(d *decoder, b []byte) string) func(*decoder, *Arg, int) {
	return func(d *decoder, a *Arg, _ int) {
		if a.Raw == 0 {
			a.Text = "NULL"
			return
		}
		b := make([]byte, size)
		if err := d.read(a.Raw, b); err != nil {
			pointer(a, err)
			return
		}
		a.Text, a.Decoded = text(d, b), true
	}
}

func u64(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
func u32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
func u16(b []byte, off int) uint16 { return binary.LittleEndian.Uint16(b[off:]) }

// struct timespec and struct timeval of 64-bit Linux: two 64-bit numbers.
var (
	showTimespec = showStruct(16, func(_ *decoder, b []byte) string {
		return fmt.Sprintf("{tv_sec=%d, tv_nsec=%d}", int64(u64(b, 0)), int64(u64(b, 8)))
	})
	showTimeval = showStruct(16, func(_ *decoder, b []byte) string {
		return fmt.Sprintf("{tv_sec=%d, tv_usec=%d}", int64(u64(b, 0)), int64(u64(b, 8)))
	})
	// struct open_how, uapi/linux/openat2.h: flags, mode, resolve.
	showOpenHow = showStruct(24, func(d *decoder, b []byte) string {
		s := "{flags=" + OpenFlags(d.arch, u64(b, 0))
		if u64(b, 0)&(oCreate|oTmpFile) != 0 {
			s += ", mode=" + octalMode(u64(b, 8))
		}
		return s + ", resolve=" + flagNames(u64(b, 16), "0", resolveFlags) + "}"
	})
	// struct flock, uapi/asm-generic/fcntl.h, 64-bit.
	showLock = showStruct(32, func(_ *decoder, b []byte) string {
		typ, ok := enumName(uint64(u16(b, 0)), lockTypes)
		if !ok {
			typ = fmt.Sprintf("%#x", u16(b, 0))
		}
		whence, ok := enumName(uint64(u16(b, 2)), whences)
		if !ok {
			whence = fmt.Sprintf("%#x", u16(b, 2))
		}
		return fmt.Sprintf("{l_type=%s, l_whence=%s, l_start=%d, l_len=%d}", typ, whence, int64(u64(b, 8)), int64(u64(b, 16)))
	})
)

// showEpollEvent shows struct epoll_event: packed on x86-64 only
// (uapi/linux/eventpoll.h).
func showEpollEvent(d *decoder, a *Arg, i int) {
	size, data := 16, 8
	if d.arch == target.AMD64 {
		size, data = 12, 4
	}
	showStruct(size, func(_ *decoder, b []byte) string {
		return fmt.Sprintf("{events=%s, data=%#x}", flagNames(uint64(u32(b, 0)), "0", epollEvents), u64(b, data))
	})(d, a, i)
}

// showSigset shows a signal mask whose size is the argument number sizeArg.
func showSigset(sizeArg int) func(*decoder, *Arg, int) {
	return func(d *decoder, a *Arg, i int) {
		if a.Raw != 0 && d.args[sizeArg] != 8 {
			pointer(a, nil)
			return
		}
		showStruct(8, func(_ *decoder, b []byte) string { return SignalSet(u64(b, 0)) })(d, a, i)
	}
}

// showSigsetPointer shows the sixth argument of pselect6 and io_pgetevents: a
// structure of mask pointer and size.
func showSigsetPointer(d *decoder, a *Arg, i int) {
	showStruct(16, func(d *decoder, b []byte) string {
		text := hex(u64(b, 0))
		var m [8]byte
		if u64(b, 0) != 0 && u64(b, 8) == 8 && d.read(u64(b, 0), m[:]) == nil {
			text = SignalSet(u64(m[:], 0))
		}
		return fmt.Sprintf("{sigmask=%s, sigsetsize=%d}", text, u64(b, 8))
	})(d, a, i)
}

// array shows count elements of size bytes, the first maxItems of them.
func (d *decoder) array(a *Arg, count uint64, size int, text func(b []byte) string) {
	switch {
	case a.Raw == 0:
		a.Text = "NULL"
		return
	case count == 0:
		a.Text = "[]"
		return
	}
	n := min(count, maxItems)
	b := make([]byte, int(n)*size)
	if err := d.read(a.Raw, b); err != nil {
		pointer(a, err)
		return
	}
	var parts []string
	for i := range int(n) {
		parts = append(parts, text(b[i*size:(i+1)*size]))
	}
	if count > n {
		parts = append(parts, "...")
	}
	a.Text, a.Decoded = "["+strings.Join(parts, ", ")+"]", true
}

// showPollFDs shows struct pollfd[], uapi/asm-generic/poll.h; the count is the
// next argument.
func showPollFDs(d *decoder, a *Arg, i int) {
	d.array(a, d.args[i+1]&0xffffffff, 8, func(b []byte) string {
		fd := int32(u32(b, 0))
		if fd < 0 {
			return fmt.Sprintf("{fd=%d}", fd)
		}
		return fmt.Sprintf("{fd=%s, events=%s}", d.fdText(fd), flagNames(uint64(u16(b, 4)), "0", pollEvents))
	})
}

// showVector makes a show function for struct iovec[] (uapi/linux/uio.h) whose
// count is the next argument; contents are shown when the call sends them.
func showVector(sends bool) func(*decoder, *Arg, int) {
	return func(d *decoder, a *Arg, i int) { d.vector(a, d.args[i+1], sends) }
}

func (d *decoder) vector(a *Arg, count uint64, sends bool) {
	d.array(a, count, 16, func(b []byte) string {
		text := hex(u64(b, 0))
		if sends {
			if s, more, err := d.bytesAt(u64(b, 0), u64(b, 8)); err == nil {
				text = Quote(s, more)
			}
		}
		return fmt.Sprintf("{iov_base=%s, iov_len=%d}", text, u64(b, 8))
	})
}

// showMessage makes a show function for struct msghdr (linux/socket.h, 64-bit).
func showMessage(sends bool) func(*decoder, *Arg, int) {
	return showStruct(56, func(d *decoder, b []byte) string {
		name := Arg{Raw: u64(b, 0)}
		if sends {
			d.address(&name, uint64(u32(b, 8)))
		} else {
			name.Text = hex(name.Raw)
		}
		iov := Arg{Raw: u64(b, 16)}
		d.vector(&iov, u64(b, 24), sends)
		return fmt.Sprintf("{msg_name=%s, msg_namelen=%d, msg_iov=%s, msg_iovlen=%d, msg_controllen=%d}",
			name.Text, u32(b, 8), iov.Text, u64(b, 24), u64(b, 40))
	})
}

// showAddress shows a socket address whose length is the next argument.
func showAddress(d *decoder, a *Arg, i int) { d.address(a, d.args[i+1]&0xffffffff) }

// address shows struct sockaddr and its kinds (uapi/linux/un.h, in.h, in6.h).
func (d *decoder) address(a *Arg, size uint64) {
	if a.Raw == 0 {
		a.Text = "NULL"
		return
	}
	const maxAddress = 128 // sockaddr_storage
	if size < 2 || size > maxAddress {
		pointer(a, nil)
		return
	}
	b := make([]byte, size)
	if err := d.read(a.Raw, b); err != nil {
		pointer(a, err)
		return
	}
	a.Decoded = true
	family := uint64(u16(b, 0))
	name, ok := enumName(family, families)
	if !ok {
		name = fmt.Sprintf("%#x", family)
	}
	a.Text = "{sa_family=" + name + addressRest(family, b) + "}"
}

func addressRest(family uint64, b []byte) string {
	switch {
	case family == 1 && len(b) > 2:
		path := string(b[2:])
		abstract := path[0] == 0
		if abstract {
			path = path[1:]
		}
		if end := strings.IndexByte(path, 0); end >= 0 && !abstract {
			path = path[:end]
		}
		if abstract {
			return ", sun_path=@" + Quote(path, false)
		}
		return ", sun_path=" + Quote(path, false)
	case family == 2 && len(b) >= 8:
		return fmt.Sprintf(", sin_port=htons(%d), sin_addr=inet_addr(\"%d.%d.%d.%d\")", binary.BigEndian.Uint16(b[2:]), b[4], b[5], b[6], b[7])
	case family == 10 && len(b) >= 24:
		var groups []string
		for i := 8; i < 24; i += 2 {
			groups = append(groups, fmt.Sprintf("%x", binary.BigEndian.Uint16(b[i:])))
		}
		return fmt.Sprintf(", sin6_port=htons(%d), sin6_addr=\"%s\"", binary.BigEndian.Uint16(b[2:]), strings.Join(groups, ":"))
	}
	return ""
}

// showFDSet shows fd_set of select; the first argument is its number of bits.
func showFDSet(d *decoder, a *Arg, _ int) {
	n := int32(d.args[0])
	if a.Raw == 0 || n < 0 {
		a.Text = hex(a.Raw)
		return
	}
	n = min(n, maxSelect)
	b := make([]byte, (n+63)/64*8)
	if err := d.read(a.Raw, b); err != nil {
		pointer(a, err)
		return
	}
	var parts []string
	for fd := range n {
		if b[fd/8]>>(fd%8)&1 != 0 {
			if len(parts) == maxItems {
				parts = append(parts, "...")
				break
			}
			parts = append(parts, d.fdText(fd))
		}
	}
	a.Text, a.Decoded = "["+strings.Join(parts, " ")+"]", true
}

// showFcntl shows the third argument of fcntl, by the second.
func showFcntl(d *decoder, a *Arg, i int) {
	switch uint32(d.args[1]) {
	case 5, 6, 7, 36, 37, 38: // F_GETLK to F_SETLKW and the OFD_ ones
		showLock(d, a, i)
	case 4: // F_SETFL
		showOpenFlags(d, a, i)
	case 2: // F_SETFD
		a.Text = flagNames(a.Raw&0xffffffff, "0", []named{{1, "FD_CLOEXEC"}})
	default:
		showInt(d, a, i)
	}
}

// showFutexTime shows the fourth argument of futex: a timeout, or a count of the
// operations that move waiters.
func showFutexTime(d *decoder, a *Arg, i int) {
	if futexOp(3, 4, 5, 12)(&d.args) {
		showUint(d, a, i)
		return
	}
	showTimespec(d, a, i)
}

// showFutexMask shows val3 of the bitset operations.
func showFutexMask(_ *decoder, a *Arg, _ int) {
	if uint32(a.Raw) == 0xffffffff {
		a.Text = "FUTEX_BITSET_MATCH_ANY"
		return
	}
	a.Text = fmt.Sprintf("%#x", uint32(a.Raw))
}

// showClock shows a clock id; negative ones are CPU clocks of a process.
func showClock(_ *decoder, a *Arg, _ int) {
	if s, ok := enumName(a.Raw&0xffffffff, clocks); ok {
		a.Text = s
		return
	}
	a.Text = fmt.Sprint(int32(a.Raw))
}
