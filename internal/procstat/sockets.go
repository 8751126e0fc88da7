package procstat

import (
	"bufio"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"mycore/internal/kernelview"
)

// maxNetLine bounds one line of a socket table; a unix path has at most 108 bytes.
const maxNetLine = 4 << 10

// tcpStates are the values of column st (include/net/tcp_states.h).
var tcpStates = [...]string{1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2",
	6: "TIME_WAIT", 7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "NEW_SYN_RECV"}

// nameSockets looks up the sockets among the descriptors in net/. The tables
// hold every socket of the network namespace, so they are streamed and only
// the process's own are kept.
func (r *reader) nameSockets() {
	want := map[uint64][]*kernelview.File{}
	for i := range r.p.Files {
		if f := &r.p.Files[i]; f.Kind == kernelview.KindSocket && f.Inode != 0 {
			want[f.Inode] = append(want[f.Inode], f)
		}
	}
	if len(want) == 0 {
		return
	}
	d, ok := r.sub(r.top, "net")
	if !ok {
		return
	}
	defer d.close()
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6", "unix"} {
		r.socketTable(d, proto, want)
	}
}

func (r *reader) socketTable(d dir, proto string, want map[uint64][]*kernelview.File) {
	fd, _, ok := r.open(d, proto)
	if !ok {
		return
	}
	f := os.NewFile(uintptr(fd), proto)
	defer f.Close()
	if err := scanSockets(&io.LimitedReader{R: f, N: maxNet}, proto, want); err != nil {
		r.warn(CodeMalformed, "file \"net/%s\" of %q: %v: sockets after that line have no name", proto, r.dir, err)
	}
}

// scanSockets names the wanted sockets that the table r lists. Lines that
// aren't understood are skipped.
func scanSockets(r io.Reader, proto string, want map[uint64][]*kernelview.File) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, maxNetLine), maxNetLine)
	parse := parseInet
	if proto == "unix" {
		parse = parseUnix
	}
	for sc.Scan() {
		s, ok := parse(sc.Text())
		if !ok {
			continue
		}
		for _, f := range want[s.inode] {
			f.Protocol, f.Local, f.Peer, f.SocketState = proto, s.local, s.peer, s.state
			if strings.HasPrefix(proto, "udp") {
				f.SocketState = ""
			}
		}
	}
	return sc.Err()
}

type socket struct {
	inode              uint64
	local, peer, state string
}

// parseInet reads a line of net/{tcp,udp}{,6} (net/ipv4/tcp_ipv4.c,
// get_tcp4_sock): "sl local rem st tx:rx tr:when retrnsmt uid timeout inode".
func parseInet(line string) (socket, bool) {
	f := strings.Fields(line)
	if len(f) < 10 || !strings.HasSuffix(f[0], ":") {
		return socket{}, false
	}
	local, ok1 := parseEndpoint(f[1])
	peer, ok2 := parseEndpoint(f[2])
	st, err1 := strconv.ParseUint(f[3], 16, 8)
	inode, err2 := strconv.ParseUint(f[9], 10, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || inode == 0 {
		return socket{}, false
	}
	s := socket{inode: inode, local: local.String()}
	if int(st) < len(tcpStates) {
		s.state = tcpStates[st]
	}
	if peer.Port() != 0 || !peer.Addr().IsUnspecified() {
		s.peer = peer.String()
	}
	return s, true
}

// parseEndpoint reads "0100007F:0CEA": the address as 32-bit words in the
// byte order of the machine, little-endian here, and the port in hex. An IPv4
// address inside IPv6 is shown as IPv4.
func parseEndpoint(s string) (netip.AddrPort, bool) {
	a, p, ok := strings.Cut(s, ":")
	if !ok || len(a) != 8 && len(a) != 32 {
		return netip.AddrPort{}, false
	}
	port, err := strconv.ParseUint(p, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	b, err := hex.DecodeString(a)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}

// parseUnix reads a line of net/unix (net/unix/af_unix.c, unix_seq_show):
// "Num RefCount Protocol Flags Type St Inode Path". The peer isn't recorded.
func parseUnix(line string) (socket, bool) {
	rest := line
	var f [7]string
	for i := range f {
		rest = strings.TrimLeft(rest, " ")
		f[i], rest, _ = strings.Cut(rest, " ")
	}
	inode, err := strconv.ParseUint(f[6], 10, 64)
	flags, err2 := strconv.ParseUint(f[3], 16, 64)
	if err != nil || err2 != nil || inode == 0 || !strings.HasSuffix(f[0], ":") {
		return socket{}, false
	}
	s := socket{inode: inode, local: rest}
	// include/uapi/linux/net.h: __SO_ACCEPTCON 1<<16; socket_state SS_CONNECTED 3.
	switch {
	case flags&(1<<16) != 0:
		s.state = "LISTEN"
	case f[5] == "03":
		s.state = "ESTABLISHED"
	}
	return s, true
}
