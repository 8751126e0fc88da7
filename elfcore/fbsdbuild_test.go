package elfcore_test

import (
	"encoding/binary"

	"mycore/internal/coretest"
)

// The builder of this file lays out FreeBSD's notes by the offsets of its
// headers, apart from the reader's tables. Every byte that isn't set is 0xa5,
// so that a field read from a wrong place shows.

var le = binary.LittleEndian

// fbThread is one thread of a built core.
type fbThread struct {
	lwp            int
	regs           map[int]uint64 // by offset in pr_reg
	flags          uint64
	cursig         int
	name           string
	blocked        uint64
	pending        uint64
	siginfo        []byte // 80 bytes; nil: none
	tls            uint64 // 0: no note
	wmesg, lock    string
	stat           byte
	wchan          uint64
	slept          uint32
	kiflag, tdflag uint64
	noKinfo        bool
}

// fbWorld is a process.
type fbWorld struct {
	machine  uint16 // 0: AMD64
	threads  []fbThread
	kinfo    []int // order of PROCSTAT_PROC by index of threads; nil: reversed
	flag     uint64
	pid      int32 // pr_pid; -1: the older structure without it
	files    [][]byte
	maps     [][]byte
	auxv     [][2]uint64
	edit     func(typ uint32, n int, desc []byte) []byte // last change of the note; nil result leaves it out
	segments []coretest.Segment
	more     []coretest.Note
}

func junk(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xa5
	}
	return b
}

func put32(b []byte, at int, v uint32) { le.PutUint32(b[at:], v) }
func put64(b []byte, at int, v uint64) { le.PutUint64(b[at:], v) }

// putText writes NUL-terminated text into a field and clears the rest of it.
func putText(b []byte, at, size int, s string) {
	clear(b[at : at+size])
	copy(b[at:at+size], s)
}

func sized(size uint32, rest ...[]byte) []byte {
	b := le.AppendUint32(nil, size)
	for _, r := range rest {
		b = append(b, r...)
	}
	return b
}

// Offsets in struct reg of amd64.
const (
	fbR10, fbR9, fbR8, fbRDI, fbRSI, fbRDX, fbRCX, fbRAX = 40, 48, 56, 64, 72, 96, 104, 112
	fbRIP, fbRFLAGS, fbRSP                               = 136, 152, 160
)

func (w *fbWorld) gregs() int {
	if w.machine == coretest.ARM64 {
		return 272
	}
	return 176
}

func (w *fbWorld) prstatus(t *fbThread) []byte {
	n := w.gregs()
	b := junk(48 + n)
	put32(b, 0, 1)
	put64(b, 8, uint64(len(b)))
	put64(b, 16, uint64(n))
	put64(b, 24, 512)
	put32(b, 32, 1400008)
	put32(b, 36, uint32(t.cursig))
	put32(b, 40, uint32(t.lwp))
	for at := 0; at+8 <= n; at += 8 {
		put64(b, 48+at, 0xa500000000000000+uint64(at))
	}
	for at, v := range t.regs {
		put64(b, 48+at, v)
	}
	if w.machine == coretest.ARM64 {
		put32(b, 48+264, uint32(t.flags))
	} else {
		put64(b, 48+fbRFLAGS, t.flags)
	}
	return b
}

func (w *fbWorld) lwpinfo(t *fbThread) []byte {
	b := junk(160)
	put32(b, 0, uint32(t.lwp))
	put32(b, 4, 0)
	put32(b, 8, 0)
	if t.siginfo != nil {
		put32(b, 8, 0x20)
		copy(b[48:], t.siginfo)
	}
	put64(b, 12, t.blocked)
	put64(b, 28, t.pending)
	putText(b, 128, 20, t.name)
	return sized(160, b)
}

// siginfo of FreeBSD, 64 bits.
func fbSiginfo(signo, code, pid, uid int, addr uint64) []byte {
	b := junk(80)
	for i, v := range []int{signo, 3, code, pid, uid, 5} {
		put32(b, 4*i, uint32(v))
	}
	put64(b, 24, addr)
	return b
}

func (w *fbWorld) kproc(t *fbThread) []byte {
	b := junk(1088)
	put32(b, 0, 1088)
	put64(b, 64, t.wchan)
	put32(b, 72, 1158)
	put32(b, 76, 1)
	put64(b, 104, t.pending)
	put64(b, 120, t.blocked)
	put64(b, 136, 0x18488000)
	put64(b, 152, 0x80000000)
	put32(b, 168, 88)
	put32(b, 192, 89)
	put32(b, 316, t.slept)
	put64(b, 368, w.flag)
	put64(b, 376, t.kiflag)
	b[388] = t.stat
	putText(b, 394, 17, t.name[:min(len(t.name), 16)])
	putText(b, 411, 9, t.wmesg)
	putText(b, 438, 9, t.lock)
	putText(b, 502, 4, t.name[min(len(t.name), 16):])
	put32(b, 576, 4711)
	put32(b, 600, uint32(t.lwp))
	put64(b, 1080, t.tdflag)
	return b
}

func (w *fbWorld) psinfo() []byte {
	b := junk(120)
	put32(b, 0, 1)
	put64(b, 8, 120)
	putText(b, 16, 17, "mysqld")
	putText(b, 33, 81, "/usr/local/libexec/mysqld --user=mysql ")
	if w.pid >= 0 {
		put32(b, 116, uint32(w.pid))
	} else {
		put32(b, 116, 0)
	}
	return b
}

// fbFile is a packed kinfo_file.
func fbFile(typ, fd int, flags uint32, vtype int, path string) []byte {
	b := junk((368 + len(path) + 1 + 7) &^ 7)
	for i, v := range []int{len(b), typ, fd, 1, int(flags)} {
		put32(b, 4*i, uint32(v))
	}
	put64(b, 24, 4096)
	put32(b, 32, uint32(vtype))
	put64(b, 304, uint64(1000+fd))
	putText(b, 368, len(b)-368, path)
	return b
}

func fbSocket(fd, domain, typ int, local, peer []byte) []byte {
	b := fbFile(2, fd, 0x23, 0, "")
	put32(b, 36, uint32(domain))
	put32(b, 40, uint32(typ))
	clear(b[48:304])
	copy(b[48:], local)
	copy(b[176:], peer)
	return b
}

// fbMap is a packed kinfo_vmentry.
func fbMap(typ int, start, end, off uint64, inode uint64, prot uint32, path string) []byte {
	b := junk((136 + len(path) + 1 + 7) &^ 7)
	put32(b, 0, uint32(len(b)))
	put32(b, 4, uint32(typ))
	put64(b, 8, start)
	put64(b, 16, end)
	put64(b, 24, off)
	put64(b, 32, inode)
	put32(b, 56, prot)
	putText(b, 136, len(b)-136, path)
	return b
}

// Note types.
const (
	fbNTPrstatus, fbNTFpregset, fbNTPrpsinfo, fbNTThrmisc        = 1, 2, 3, 7
	fbNTProc, fbNTFiles, fbNTVMMap, fbNTGroups, fbNTUmask        = 8, 9, 10, 11, 12
	fbNTRlimit, fbNTOSRel, fbNTPSStrings, fbNTAuxv               = 13, 14, 15, 16
	fbNTLwpinfo, fbNTKqueues, fbNTSegbases, fbNTXstate           = 17, 18, 0x200, 0x202
	fbNTArmTLS, fbNTArmMask                               uint32 = 0x401, 0x406
)

// core makes the core file with its notes in the kernel's order.
func (w *fbWorld) core() *coretest.Core {
	c := &coretest.Core{OSABI: 9, Machine: w.machine, Segments: w.segments}
	counts := map[uint32]int{}
	add := func(typ uint32, desc []byte) {
		if w.edit != nil {
			desc = w.edit(typ, counts[typ], desc)
		}
		counts[typ]++
		if desc != nil {
			c.Notes = append(c.Notes, coretest.Note{Owner: "FreeBSD", Type: typ, Desc: desc})
		}
	}
	add(fbNTPrpsinfo, w.psinfo())
	for i := range w.threads {
		t := &w.threads[i]
		add(fbNTPrstatus, w.prstatus(t))
		add(fbNTFpregset, junk(512))
		misc := junk(24)
		putText(misc, 0, 20, t.name)
		add(fbNTThrmisc, misc)
		add(fbNTLwpinfo, w.lwpinfo(t))
		if t.tls != 0 && w.machine == coretest.ARM64 {
			add(fbNTArmTLS, le.AppendUint64(nil, t.tls))
		} else if t.tls != 0 {
			add(fbNTSegbases, le.AppendUint64(le.AppendUint64(nil, t.tls), 0xa5a5))
		}
		if w.machine != coretest.ARM64 {
			add(fbNTXstate, junk(832))
		}
	}
	order := w.kinfo
	if order == nil {
		for i := range w.threads {
			order = append(order, len(w.threads)-1-i)
		}
	}
	proc := le.AppendUint32(nil, 1088)
	for _, i := range order {
		if !w.threads[i].noKinfo {
			proc = append(proc, w.kproc(&w.threads[i])...)
		}
	}
	add(fbNTProc, proc)
	add(fbNTFiles, sized(1392, w.files...))
	add(fbNTVMMap, sized(1160, w.maps...))
	add(fbNTGroups, sized(4, junk(8)))
	add(fbNTUmask, sized(2, junk(2)))
	add(fbNTRlimit, sized(240, junk(240)))
	add(fbNTOSRel, sized(4, le.AppendUint32(nil, 1302001)))
	add(fbNTPSStrings, sized(8, le.AppendUint64(nil, 0x7fffffffe000-64)))
	var aux []byte
	for _, a := range append(w.auxv, [2]uint64{0, 0}) {
		aux = le.AppendUint64(le.AppendUint64(aux, a[0]), a[1])
	}
	add(fbNTAuxv, sized(16, aux))
	c.Notes = append(c.Notes, w.more...)
	return c
}

// Addresses of the sample process.
const (
	fbExe   = 0x200000
	fbText  = 0x201000
	fbData  = 0x204000
	fbLibc  = 0x800200000
	fbLibcX = 0x800201000
	fbAnon  = 0x800400000
	fbStack = 0x7fffdfffd000
)

// fbSample is a gcore core of a server: a main thread that took the stop,
// workers asleep, and one thread that runs.
func fbSample() *fbWorld {
	at := func(pc uint64, rax, rdi, rsi, rdx uint64) map[int]uint64 {
		return map[int]uint64{fbRIP: pc, fbRSP: fbStack + 0x800, fbRAX: rax, fbRDI: rdi, fbRSI: rsi, fbRDX: rdx, fbRCX: 0x4444, fbR10: 0xbad, fbR8: 0x5555, fbR9: 0x6666}
	}
	w := &fbWorld{
		pid: 1158, flag: 0x10040802,
		auxv: [][2]uint64{{3, fbExe + 64}, {6, 4096}, {9, fbText + 16}, {18, 1401000}, {33, fbStack + 8}, {31, fbStack + 16}},
		threads: []fbThread{
			{lwp: 100411, regs: at(fbLibcX+0x18, 4, 7, 8, 9), flags: 0x247, name: "mysqld", blocked: 0x4006, stat: 4, tls: 0x800500000, siginfo: fbSiginfo(17, 0x10001, 4711, 0, 0)},
			{lwp: 100460, regs: at(fbLibcX+0x0c, 499, 0xffffff9c, fbStack+0x100, 0), flags: 0x206, name: "mysqld", stat: 4, wmesg: "fifoor", wchan: 0xfffff80004abc000, slept: 3600, tdflag: 8, blocked: 0x84007, pending: 1 << 14, tls: 0x800501000},
			{lwp: 100461, regs: at(fbLibcX+0x0c, 475, 5, 0x9000, 512), flags: 0x206, name: "sixteen-chars-ok+th", stat: 4, wmesg: "zio->io_", tdflag: 4},
			{lwp: 100462, regs: at(fbText+0x20, 1, 2, 3, 4), flags: 0x202, name: "connection", stat: 4},
			{lwp: 100463, regs: at(fbLibcX+0x0c, 4, 5, 0x9000, 6), flags: 0x206, name: "lock", stat: 7, lock: "vm map", kiflag: 5},
		},
		files: [][]byte{
			fbFile(1, -5, 1, 1, "/usr/local/libexec/mysqld"), fbFile(1, -6, 3, 4, "/dev/pts/0"), fbFile(1, -1, 1, 2, "/var/db/mysql"), fbFile(1, -2, 1, 2, "/"),
			fbFile(1, 0, 1, 4, "/dev/null"), fbFile(4, 3, 1, 7, "/tmp/ghost.fifo"), fbFile(1, 4, 0x26, 7, "/tmp/log.fifo"), fbFile(3, 5, 3, 0, ""),
			fbSocket(21, 2, 1, []byte{16, 2, 0x0c, 0xea, 10, 0, 0, 1}, []byte{16, 2, 0xc3, 0x50, 10, 0, 0, 2}),
			fbSocket(22, 28, 1, append([]byte{28, 28, 0x0c, 0xea, 0, 0, 0, 0}, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), nil),
			fbSocket(23, 1, 1, append([]byte{18, 1}, "/tmp/mysql.sock\x00"...), nil),
			fbFile(5, 12, 3, 0, ""), fbFile(99, 13, 0, 0, ""),
		},
		maps: [][]byte{
			fbMap(2, fbExe, fbText, 0, 995, 1, "/usr/local/libexec/mysqld"), fbMap(2, fbText, fbText+0x3000, 0x1000, 995, 5, "/usr/local/libexec/mysqld"),
			fbMap(2, fbData, fbData+0x1000, 0x4000, 995, 3, "/usr/local/libexec/mysqld"), fbMap(1, fbData+0x1000, fbData+0x2000, 0, 0, 3, ""),
			fbMap(2, fbLibc, fbLibcX, 0, 77, 1, "/lib/libc.so.7"), fbMap(2, fbLibcX, fbLibcX+0x1000, 0x1000, 77, 5, "/lib/libc.so.7"),
			fbMap(2, fbLibcX+0x1000, fbLibcX+0x2000, 0x2000, 77, 3, "/lib/libc.so.7"),
			fbMap(3, fbAnon, fbAnon+0x2000, 0x5000, 0, 3, ""), fbMap(9, fbStack-0x1000, fbStack, 0, 0, 0, ""), fbMap(1, fbStack, fbStack+0x1000, 0, 0, 3, ""),
		},
		segments: []coretest.Segment{
			{Addr: fbData, Perm: "rw-", Data: make([]byte, 0x1000)}, {Addr: fbData + 0x1000, Perm: "rw-", Data: make([]byte, 0x1000)},
			{Addr: fbAnon, Perm: "rw-", Data: make([]byte, 0x1000), Files: 0x2000}, {Addr: fbStack, Perm: "rwx", Data: junk(0x1000)},
		},
	}
	return w
}

// fbCode is the text of the sample's libc: a stub at +0, one that the older
// assembler syntax made at +0x0c, as they are with their calls at +0x0a and +0x16.
func fbCode() []byte {
	b := make([]byte, 0x1000)
	copy(b, "\x90\x90\xb8\xf3\x01\x00\x00\x49\x89\xca\x0f\x05")                    // mov $499,%eax; mov %rcx,%r10; syscall
	copy(b[0x0c:], "\x48\xc7\xc0\xc6\x01\x00\x00\x49\x89\xca\x0f\x05\x72\x01\xc3") // mov $454,%rax
	return b
}
