package procstat

import (
	"strconv"
	"strings"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// Letters of the T and V columns of `procstat -f`
// (usr.bin/procstat/procstat_files.c, FreeBSD 8 to 15).
const (
	fileTypes  = "vspfkcmhtePDE?"
	vnodeTypes = "rdbclsfx-?"
	fileFlags  = "rwasfndl" // older releases have a ninth place, c
)

// fileRow reads "PID COMM FD T V FLAGS REF OFFSET PRO NAME". COMM may hold
// blanks: the row is anchored at the first FD that has T, V and FLAGS behind.
func (t *textReader) fileRow(r row, pid int) bool {
	for i := 2; i+6 < len(r.f); i++ {
		if !isFD(r.word(i)) || !oneOf(r.word(i+1), fileTypes) || !oneOf(r.word(i+2), vnodeTypes) || !isFileFlags(r.word(i+3)) ||
			!isCount(r.word(i+4)) || !isCount(r.word(i+5)) {
			continue
		}
		if t.mine(pid) {
			t.learn(r.span(1, i))
			t.file(fileRecord{
				fd: r.word(i), typ: r.word(i + 1), vtype: r.word(i + 2), offset: r.word(i + 5),
				proto: r.word(i + 6), name: r.span(i+7, len(r.f)),
			})
		}
		return true
	}
	return false
}

// fileRecord is one descriptor as procstat prints it, from text or JSON.
type fileRecord struct {
	fd, typ, vtype, offset, proto, name string
}

// specialFDs stand in the FD column for what isn't a descriptor.
func isSpecialFD(s string) bool {
	switch s {
	case "text", "trace", "cwd", "root", "jail", "ctty":
		return true
	}
	return false
}

func isFD(s string) bool {
	if isSpecialFD(s) {
		return true
	}
	_, ok := parseFD(s)
	return ok
}

func oneOf(s, letters string) bool { return len(s) == 1 && strings.Contains(letters, s) }

// isCount accepts a number or the dash for "not known".
func isCount(s string) bool { return s == "-" || isNumber(s) }

func isFileFlags(s string) bool {
	if len(s) != len(fileFlags) && len(s) != len(fileFlags)+1 {
		return false
	}
	for i := range len(s) {
		if s[i] != '-' && (i < len(fileFlags) && s[i] != fileFlags[i] || i == len(fileFlags) && s[i] != 'c') {
			return false
		}
	}
	return true
}

// file adds one descriptor to the table.
func (t *textReader) file(rec fileRecord) {
	name := strings.TrimRight(rec.name, " ")
	if name == "-" {
		name = ""
	}
	name = clipPath(name)
	t.p.FilesKnown = true
	if isSpecialFD(rec.fd) {
		switch {
		case name == "":
		case rec.fd == "cwd":
			t.p.Cwd = target.Known(name, target.SourceProcstat)
		case rec.fd == "text":
			t.p.Exe = target.Known(name, target.SourceProcstat)
		}
		return
	}
	fd, ok := parseFD(rec.fd)
	if !ok || t.seenFD[fd] {
		return
	}
	if len(t.p.Files) >= maxFiles {
		t.dropped++
		return
	}
	t.seenFD[fd] = true
	f := kernelview.File{FD: fd, Path: name, Source: target.SourceProcstat}
	f.Kind = fileKind(rec.typ, rec.vtype, name)
	if f.Kind == kernelview.KindSocket {
		nameSocket(&f, rec.proto, name)
	}
	if f.Path == "" {
		f.Path = typeText(rec.typ)
	}
	if n, err := strconv.ParseInt(rec.offset, 10, 64); err == nil && n >= 0 {
		f.Pos = target.Known(n, target.SourceProcstat)
	}
	t.p.Files = append(t.p.Files, f)
}

func fileKind(typ, vtype, name string) kernelview.FileKind {
	switch typ {
	case "v":
		if vtype == "f" {
			return kernelview.KindFIFO
		}
		return kernelview.KindPath
	case "f":
		return kernelview.KindFIFO
	case "s":
		return kernelview.KindSocket
	case "p":
		return kernelview.KindPipe
	case "k", "c", "m", "h", "e", "P", "E":
		return kernelview.KindAnon
	}
	if strings.HasPrefix(name, "/") {
		return kernelview.KindPath
	}
	return kernelview.KindOther
}

// typeText names an object without a path, in the words of libxo's fd_type.
func typeText(typ string) string {
	for _, w := range fdTypes {
		if w.letter == typ {
			return w.word
		}
	}
	return ""
}

// fdTypes pairs the letters of the T column with the words of libxo's fd_type
// (procstat_files.c).
var fdTypes = [...]struct{ word, letter string }{
	{"vnode", "v"}, {"socket", "s"}, {"pipe", "p"}, {"fifo", "f"}, {"kqueue", "k"}, {"crypto", "c"}, {"mqueue", "m"},
	{"shm", "h"}, {"sem", "e"}, {"pts", "t"}, {"procdesc", "P"}, {"dev", "D"}, {"eventfd", "E"}, {"none", "?"}, {"unknown", "?"},
}

// nameSocket reads protocol and addresses. Stream sockets have the lengths of
// their send and receive queues before the addresses since FreeBSD 12.
func nameSocket(f *kernelview.File, proto, name string) {
	if a, rest, ok := strings.Cut(name, " "); ok && isQueue(a) {
		rest = strings.TrimLeft(rest, " ")
		b, addr, ok := strings.Cut(rest, " ")
		switch {
		case isQueue(b) && ok:
			name = strings.TrimLeft(addr, " ")
		case isQueue(b):
			name = ""
		}
	}
	f.Path = name
	switch proto {
	case "UDS", "UDD", "UD?":
		f.Protocol = "unix"
		if name != "-" {
			f.Local = name
		}
	case "TCP", "UDP", "SCT", "ICM", "RAW", "IPD", "IP?":
		f.Protocol = strings.ToLower(proto)
		if proto == "SCT" {
			f.Protocol = "sctp"
		}
		local, peer, _ := strings.Cut(name, " ")
		// IPv6 addresses have a point before the port.
		if strings.Count(local, ":") > 1 {
			f.Protocol += "6"
		}
		f.Local, f.Peer = local, strings.TrimLeft(peer, " ")
	}
}

// isQueue accepts a queue's length in bytes.
func isQueue(s string) bool { return s != "" && s[0] != '-' && isNumber(s) }

// clipPath bounds a path: PATH_MAX is 1,024 on FreeBSD (sys/sys/syslimits.h),
// and a row has up to two.
func clipPath(s string) string {
	if len(s) > 4<<10 {
		s = s[:4<<10]
	}
	return strings.Clone(s)
}
