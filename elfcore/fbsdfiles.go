package elfcore

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"mycore/internal/elfimage"
	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// Sizes and offsets of struct kinfo_file and kinfo_vmentry (sys/sys/user.h,
// FreeBSD 10.4, 12.1 and main; the same on 32-bit machines).
const (
	kinfoFileSize = 1392 // KINFO_FILE_SIZE
	kfPath        = 368
	kinfoVMSize   = 1160 // KINFO_VMENTRY_SIZE
	kvePath       = 136
	// maxRecord is the larger of the two.
	maxRecord = kinfoFileSize
	// maxFbsdFiles bounds descriptors: kern.maxfilesperproc is some 10^5 on a
	// large machine.
	maxFbsdFiles = 1 << 20
	// maxFbsdMaps bounds mappings as MaxProgs bounds segments.
	maxFbsdMaps = elfimage.MaxProgs
)

// Types of open files (KF_TYPE_* of sys/sys/user.h).
const (
	kfVnode  = 1
	kfSocket = 2
	kfPipe   = 3
	kfFIFO   = 4
)

// kfTypeNames are the types without a name in the file system.
var kfTypeNames = map[int]string{
	kfSocket: "socket", kfPipe: "pipe", kfFIFO: "fifo", 5: "kqueue", 6: "crypto", 7: "mqueue", 8: "shm", 9: "sem",
	10: "pts", 11: "procdesc", 12: "dev", 13: "eventfd", 14: "timerfd",
}

const kfVtypeFIFO = 7 // KF_VTYPE_VFIFO

// Special descriptors (KF_FD_TYPE_* of sys/sys/user.h).
const (
	kfFDCwd  = -1
	kfFDText = -5
)

// files reads PROCSTAT_FILES.
func (d *fbsdDecoder) files(n elfimage.Note) {
	err := d.records(n, "PROCSTAT_FILES", kinfoFileSize, kfPath, kinfoFileSize, maxFbsdFiles, func(b []byte) error {
		i32 := func(at int) int { return int(int32(binary.LittleEndian.Uint32(b[at:]))) }
		f := fileOfKinfo(b, i32)
		if f.FD == kfFDText && d.f.text.path == "" {
			d.f.text = textVnode{path: f.Path, inode: binary.LittleEndian.Uint64(b[304:])} // kf_file_fileid
		}
		d.f.files = append(d.f.files, f)
		d.f.filesSeen = true
		return nil
	})
	if err != nil {
		d.c.warn(WarnNote, "the list of open files (PROCSTAT_FILES) at offset %#x: %v; %d entries were read", n.Off, err, len(d.f.files))
	}
}

func fileOfKinfo(b []byte, i32 func(int) int) kernelview.File {
	f := kernelview.File{FD: i32(8), Kind: kernelview.KindOther, Path: untilNUL(b[kfPath:]), Source: target.SourceCoreNote}
	typ := i32(4)
	switch typ {
	case kfVnode:
		f.Kind = kernelview.KindPath
		if i32(32) == kfVtypeFIFO {
			f.Kind = kernelview.KindFIFO
		}
		f.Inode = binary.LittleEndian.Uint64(b[304:])
	case kfFIFO:
		f.Kind = kernelview.KindFIFO
		f.Inode = binary.LittleEndian.Uint64(b[304:])
	case kfPipe:
		f.Kind = kernelview.KindPipe
	case kfSocket:
		f.Kind = kernelview.KindSocket
		socketOfKinfo(&f, i32(36), i32(40), b)
	default:
		if _, known := kfTypeNames[typ]; known {
			f.Kind = kernelview.KindAnon
		}
	}
	if f.Path == "" {
		if name, ok := kfTypeNames[typ]; ok {
			f.Path = name
		} else if typ != kfVnode {
			f.Path = fmt.Sprintf("type %d", typ)
		}
	}
	f.Flags = target.Known(openFlagsOf(uint64(uint32(i32(16)))), target.SourceCoreNote)
	if off := int64(binary.LittleEndian.Uint64(b[24:])); off >= 0 && f.Kind == kernelview.KindPath {
		f.Pos = target.Known(off, target.SourceCoreNote)
	}
	return f
}

// openFlagsOf turns KF_FLAG_* (sys/sys/user.h) into the flags of an open (sys/
// sys/fcntl.h). The program's access mode is a number, the kernel's two bits.
func openFlagsOf(kf uint64) uint64 {
	var out uint64
	switch kf & 3 {
	case 2: // KF_FLAG_WRITE alone
		out = 1 // O_WRONLY
	case 3:
		out = 2 // O_RDWR
	}
	for _, m := range [...][2]uint64{
		{0x4, 0x8}, {0x8, 0x40}, {0x10, 0x80}, {0x20, 0x4}, {0x40, 0x10000}, // APPEND ASYNC FSYNC NONBLOCK DIRECT
		{0x100, 0x10}, {0x200, 0x20}, {0x400, 0x100}, {0x4000, 0x40000}, // SHLOCK EXLOCK NOFOLLOW EXEC
	} {
		if kf&m[0] != 0 {
			out |= m[1]
		}
	}
	return out
}

// Address families and socket types (sys/sys/socket.h).
const (
	fbAFUnix  = 1
	fbAFInet  = 2
	fbAFInet6 = 28
)

var fbSocketTypes = map[int]string{1: "tcp", 2: "udp", 3: "raw"}

// socketOfKinfo names a socket by domain and type, and its two addresses:
// struct sockaddr_storage at 48 and 176.
func socketOfKinfo(f *kernelview.File, domain, typ int, b []byte) {
	switch domain {
	case fbAFUnix:
		f.Protocol = "unix"
	case fbAFInet, fbAFInet6:
		f.Protocol = fbSocketTypes[typ]
		if f.Protocol != "" && domain == fbAFInet6 {
			f.Protocol += "6"
		}
	}
	f.Local, f.Peer = sockaddrText(b[48:176]), sockaddrText(b[176:304])
}

// sockaddrText is a socket address (sys/sys/socket.h, struct sockaddr: u8
// length, u8 family; sys/netinet/in.h, sys/netinet6/in6.h, sys/sys/un.h) as
// host:port or path; "" when there is none or it is of another kind.
func sockaddrText(b []byte) string {
	n := int(b[0])
	if n > len(b) {
		return ""
	}
	port := func() uint16 { return binary.BigEndian.Uint16(b[2:]) }
	switch {
	case b[1] == fbAFUnix && n > 2:
		return untilNUL(b[2:n])
	case b[1] == fbAFInet && n >= 8:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port()).String()
	case b[1] == fbAFInet6 && n >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port()).String()
	}
	return ""
}

// vmmap reads PROCSTAT_VMMAP: every mapping of the process, dumped or not, with
// its path. It takes the place of Linux's NT_FILE.
func (d *fbsdDecoder) vmmap(n elfimage.Note) {
	o := &d.c.notes
	o.fileSeen = true
	bad, last := 0, ""
	err := d.records(n, "PROCSTAT_VMMAP", kinfoVMSize, kvePath, kinfoVMSize, maxFbsdMaps, func(b []byte) error {
		u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
		e := fileEntry{start: target.Addr(u64(8)), end: target.Addr(u64(16)), perm: permOfKinfo(binary.LittleEndian.Uint32(b[56:]))}
		if e.end <= e.start {
			bad++
			return nil
		}
		const vnode = 2 // KVME_TYPE_VNODE
		if binary.LittleEndian.Uint32(b[4:]) == vnode {
			e.inode = u64(32)
			if p := b[kvePath:]; untilNUL(p) != last { // the mappings of one file follow each other
				last = untilNUL(p)
			}
			e.path, e.off = last, u64(24)
		}
		d.c.files = append(d.c.files, e)
		return nil
	})
	if bad > 0 {
		d.c.warn(WarnNote, "the list of mappings (PROCSTAT_VMMAP) at offset %#x: %d entries end before they start and are left out", n.Off, bad)
	}
	if err != nil {
		o.fileCut = true
		d.c.warn(WarnNoFileNote, "the list of mappings (PROCSTAT_VMMAP) at offset %#x is damaged: %v; %d entries were read, libraries behind them may be missing", n.Off, err, len(d.c.files))
	}
}

// permOfKinfo makes the text of KVME_PROT_READ 1, WRITE 2, EXEC 4; the ELF bits
// are the other way round.
func permOfKinfo(prot uint32) string {
	return permNames[prot&1<<2|prot&2|prot&4>>2]
}
