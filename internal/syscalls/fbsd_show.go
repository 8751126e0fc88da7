package syscalls

import (
	"encoding/binary"
	"fmt"
	"strings"
)

func showOpenFlagsFB(_ *decoder, a *Arg, _ int) { a.Text = fbOpenFlagsText(a.Raw) }
func showUmtxOp(_ *decoder, a *Arg, _ int)      { a.Text = UmtxOp(a.Raw) }

func showSignalFB(_ *decoder, a *Arg, _ int) {
	a.Text = SignalNameOf("freebsd", int(int32(a.Raw)))
}

// showUmtxVal shows the third argument of _umtx_op: a value to compare with, a
// count, or the flags of a condition's wait. A join compares with a thread's
// id, which people know in decimal.
func showUmtxVal(d *decoder, a *Arg, _ int) {
	if d.args[1]&0xffffffff == umtxCVWait {
		a.Text = flagNames(a.Raw, "0", umtxCVFlags)
		return
	}
	a.Text = fmt.Sprint(int64(a.Raw))
}

// showUmtxAddr shows the fourth: the size of the timeout, or an address.
func showUmtxAddr(d *decoder, a *Arg, _ int) {
	if umtxTimed(d.args[1]) && a.Raw != 0 && a.Raw < 4096 {
		a.Text = fmt.Sprint(a.Raw)
		return
	}
	a.Text = hex(a.Raw)
}

// showUmtxAddr2 shows the fifth: a timeout, or an address. A timeout whose size
// is that of a timespec, or none, is one; a larger one is a struct _umtx_time
// (sys/sys/_umtx.h: timespec, u32 flags 16, u32 clock 20).
func showUmtxAddr2(d *decoder, a *Arg, i int) {
	switch {
	case d.args[1]&0xffffffff == umtxCVWait, umtxTimed(d.args[1]) && d.args[3] <= 16:
		showTimespec(d, a, i)
	case umtxTimed(d.args[1]):
		showUmtxTime(d, a, i)
	default:
		a.Text = hex(a.Raw)
	}
}

var showUmtxTime = showStruct(24, func(_ *decoder, b []byte) string {
	clock, ok := enumName(uint64(u32(b, 20)), fbClocks)
	if !ok {
		clock = fmt.Sprint(u32(b, 20))
	}
	return fmt.Sprintf("{_timeout={tv_sec=%d, tv_nsec=%d}, _flags=%s, _clockid=%s}",
		int64(u64(b, 0)), int64(u64(b, 8)), flagNames(uint64(u32(b, 16)), "0", umtxTimeFlags), clock)
})

func showClockFB(_ *decoder, a *Arg, _ int) {
	if s, ok := enumName(a.Raw&0xffffffff, fbClocks); ok {
		a.Text = s
		return
	}
	a.Text = fmt.Sprint(int32(a.Raw))
}

// showSigsetFB shows a sigset_t of 16 bytes (sys/sys/_sigset.h).
var showSigsetFB = showStruct(16, func(_ *decoder, b []byte) string { return fbSignalSet(u64(b, 0), u64(b, 8)) })

// showPollFDsFB shows struct pollfd[] (sys/sys/poll.h); the count is the next
// argument.
func showPollFDsFB(d *decoder, a *Arg, i int) {
	d.array(a, d.args[i+1]&0xffffffff, 8, func(b []byte) string {
		fd := int32(u32(b, 0))
		if fd < 0 {
			return fmt.Sprintf("{fd=%d}", fd)
		}
		return fmt.Sprintf("{fd=%s, events=%s}", d.fdText(fd), flagNames(uint64(u16(b, 4)), "0", fbPollEvents))
	})
}

// showEvents makes a show function for struct kevent[] (sys/sys/event.h), whose
// count is the next argument: ident 0, filter 8, flags 10, fflags 12, data 16,
// udata 24, and since FreeBSD 12 four more words.
func showEvents(size int) func(*decoder, *Arg, int) {
	return func(d *decoder, a *Arg, i int) {
		d.array(a, d.args[i+1]&0xffffffff, size, func(b []byte) string {
			filter := int16(u16(b, 8))
			name, ok := enumName(uint64(-int64(filter)), fbFilters)
			if !ok {
				name = fmt.Sprint(filter)
			}
			ident := fmt.Sprint(u64(b, 0))
			if filter == -1 || filter == -2 || filter == -4 { // READ, WRITE, VNODE: a descriptor
				ident = d.fdText(int32(u64(b, 0)))
			}
			return fmt.Sprintf("{ident=%s, filter=%s, flags=%s, fflags=%#x, data=%d, udata=%s}",
				ident, name, flagNames(uint64(u16(b, 10)), "0", fbEventFlags), u32(b, 12), int64(u64(b, 16)), hex(u64(b, 24)))
		})
	}
}

// showLockFB shows struct flock (sys/sys/fcntl.h): start, length, process, type
// 20, whence 22.
var showLockFB = showStruct(32, func(_ *decoder, b []byte) string {
	typ, ok := enumName(uint64(u16(b, 20)), fbLockTypes)
	if !ok {
		typ = fmt.Sprintf("%#x", u16(b, 20))
	}
	whence, ok := enumName(uint64(u16(b, 22)), whences)
	if !ok {
		whence = fmt.Sprintf("%#x", u16(b, 22))
	}
	return fmt.Sprintf("{l_start=%d, l_len=%d, l_type=%s, l_whence=%s}", int64(u64(b, 0)), int64(u64(b, 8)), typ, whence)
})

// showFcntlFB shows the third argument of fcntl, by the second.
func showFcntlFB(d *decoder, a *Arg, i int) {
	switch uint32(d.args[1]) {
	case 7, 8, 9, 11, 12, 13, 14: // F_OGETLK to F_OSETLKW, F_GETLK to F_SETLK_REMOTE
		showLockFB(d, a, i)
	case 4: // F_SETFL
		showOpenFlagsFB(d, a, i)
	case 2: // F_SETFD
		a.Text = flagNames(a.Raw&0xffffffff, "0", []named{{1, "FD_CLOEXEC"}})
	default:
		showInt(d, a, i)
	}
}

// showSocketTypeFB shows a type with its flags.
func showSocketTypeFB(_ *decoder, a *Arg, _ int) {
	s, ok := enumName(a.Raw&0xf, fbSocketTypes)
	if !ok {
		s = fmt.Sprintf("%#x", a.Raw&0xf)
	}
	a.Text = orMore(s, a.Raw&0xfffffff0, fbSocketFlags)
}

// showAddressFB shows a socket address whose length is the next argument.
func showAddressFB(d *decoder, a *Arg, i int) { d.addressFB(a, d.args[i+1]&0xffffffff) }

// addressFB shows struct sockaddr and its kinds: u8 length, u8 family (sys/sys/
// socket.h, sys/sys/un.h, sys/netinet/in.h, sys/netinet6/in6.h).
func (d *decoder) addressFB(a *Arg, size uint64) {
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
	name, ok := enumName(uint64(b[1]), fbFamilies)
	if !ok {
		name = fmt.Sprintf("%#x", b[1])
	}
	a.Text = "{sa_family=" + name + addressRestFB(b) + "}"
}

func addressRestFB(b []byte) string {
	const unix, inet, inet6 = 1, 2, 28
	switch {
	case b[1] == unix && len(b) > 2:
		path := string(b[2:])
		if end := strings.IndexByte(path, 0); end >= 0 {
			path = path[:end]
		}
		return ", sun_path=" + Quote(path, false)
	case b[1] == inet && len(b) >= 8:
		return fmt.Sprintf(", sin_port=htons(%d), sin_addr=inet_addr(\"%d.%d.%d.%d\")", binary.BigEndian.Uint16(b[2:]), b[4], b[5], b[6], b[7])
	case b[1] == inet6 && len(b) >= 24:
		var groups []string
		for i := 8; i < 24; i += 2 {
			groups = append(groups, fmt.Sprintf("%x", binary.BigEndian.Uint16(b[i:])))
		}
		return fmt.Sprintf(", sin6_port=htons(%d), sin6_addr=\"%s\"", binary.BigEndian.Uint16(b[2:]), strings.Join(groups, ":"))
	}
	return ""
}

// showMessageFB makes a show function for struct msghdr (sys/sys/socket.h, 64
// bits): name 0, u32 length 8, iov 16, int count 24, control 32, u32 length 40.
func showMessageFB(sends bool) func(*decoder, *Arg, int) {
	return showStruct(48, func(d *decoder, b []byte) string {
		name := Arg{Raw: u64(b, 0)}
		if sends {
			d.addressFB(&name, uint64(u32(b, 8)))
		} else {
			name.Text = hex(name.Raw)
		}
		iov := Arg{Raw: u64(b, 16)}
		d.vector(&iov, uint64(u32(b, 24)), sends)
		return fmt.Sprintf("{msg_name=%s, msg_namelen=%d, msg_iov=%s, msg_iovlen=%d, msg_controllen=%d}",
			name.Text, u32(b, 8), iov.Text, u32(b, 24), u32(b, 40))
	})
}

// showMsyncFB shows the flags of msync, where no bit means MS_SYNC.
func showMsyncFB(_ *decoder, a *Arg, _ int) {
	a.Text = flagNames(a.Raw&0xffffffff, "MS_SYNC", fbMsyncFlags)
}

// showMapFlagsFB shows the flags of mmap; the upper eight bits are the
// alignment, as a power of two, 1 a superpage's.
func showMapFlagsFB(_ *decoder, a *Arg, _ int) {
	v := a.Raw & 0xffffffff
	s := flagNames(v&0xffffff, "0", fbMapFlags)
	switch align := v >> 24; align {
	case 0:
	case 1:
		s += "|MAP_ALIGNED_SUPER"
	default:
		s += fmt.Sprintf("|MAP_ALIGNED(%d)", align)
	}
	a.Text = s
}
