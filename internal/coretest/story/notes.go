package story

import "slices"

// Note types of FreeBSD cores (sys/sys/elf_common.h).
const (
	ntPrstatus  = 1
	ntFpregset  = 2
	ntPrpsinfo  = 3
	ntThrmisc   = 7
	ntProc      = 8
	ntFiles     = 9
	ntVMMap     = 10
	ntGroups    = 11
	ntUmask     = 12
	ntRlimit    = 13
	ntOsrel     = 14
	ntPSStrings = 15
	ntAuxv      = 16
	ntLWPInfo   = 17
	ntSegBases  = 0x200
	ntXstate    = 0x202
)

const owner = "FreeBSD\x00"

// Who debugs and who started the server.
const (
	gcorePID  = 1201
	safePID   = 978
	startTime = 1438666190 // 2015-08-04 05:29:50 UTC
	mysqlUID  = 88
	fatal     = 6 // signal of the kernel's variant
)

// interrupt fills in the registers as the core's writer sees them. A thread
// that still sleeps has its call's number in rax; a signal has taken the sleep
// from the one that stopped for the debugger (gcore), or from all (kernel):
// poll, select and _umtx_op then return EINTR, open and sigwait start over.
func (w *world) interrupt(t *Thread, m *machine, i int) {
	names := [16]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}
	t.Regs = map[string]uint64{"rip": m.pc, "rflags": 0x206}
	for n, name := range names {
		t.Regs[name] = m.r[n]
	}
	// exception.S, fast_syscall_common: the entry keeps r10 in tf_rcx and
	// writes neither tf_r10 nor tf_r11.
	t.Regs["rcx"] = m.r[r10]
	t.Regs["r10"], t.Regs["r11"] = 0xfffff80004ca7000, 0xfffffe0000000000+uint64(i)*0x1000
	t.InCore = t.Wmesg
	t.wchan = 0xfffff80012000000 + uint64(i)*0x140
	if !w.opts.KernelCore && i > 0 {
		return
	}
	t.InCore, t.wchan = "", 0
	switch t.Syscall {
	case sysOpen, sysSigwait: // ERESTART
		t.Regs["rip"] -= 2
		t.Regs["r10"] = t.Regs["rcx"]
	default: // EINTR
		t.Regs["rax"] = 4
		t.Regs["rflags"] |= 1
	}
}

// notes makes the notes in gcore's and the kernel's order.
func (w *world) notes() []byte {
	var out []byte
	add := func(typ uint32, desc []byte) { out = append(out, note(owner, typ, desc)...) }
	add(ntPrpsinfo, w.prpsinfo())
	for i := range w.threads {
		t := &w.threads[i]
		add(ntPrstatus, w.prstatus(t))
		add(ntFpregset, fpregs(512))
		add(ntThrmisc, field(24, text{0, "mysqld"}))
		if !w.opts.OldNotes {
			add(ntLWPInfo, w.lwpinfo(t, i))
		}
		if w.opts.SegBases {
			add(ntSegBases, le.AppendUint64(le.AppendUint64(nil, t.TCB), 0))
		}
		x := fpregs(832)
		le.PutUint64(x[464:], 7) // xcr0: x87, SSE, AVX
		add(ntXstate, x)
	}
	sized := func(n uint32, b []byte) []byte { return append(le.AppendUint32(nil, n), b...) }
	add(ntProc, sized(1088, w.procs()))
	add(ntFiles, sized(1392, w.files()))
	add(ntVMMap, sized(1160, w.vmmap()))
	add(ntGroups, sized(4, le.AppendUint32(nil, mysqlUID)))
	add(ntUmask, sized(2, []byte{0x12, 0}))
	add(ntRlimit, sized(240, rlimits()))
	add(ntOsrel, sized(4, le.AppendUint32(nil, w.lay.osrel)))
	add(ntPSStrings, sized(8, le.AppendUint64(nil, userStack-0x20)))
	add(ntAuxv, sized(16, w.auxv()))
	return out
}

// Values to be put into a structure at an offset.
type (
	u8   struct{ at, v uint64 }
	u16  struct{ at, v uint64 }
	u32  struct{ at, v uint64 }
	u64  struct{ at, v uint64 }
	text struct {
		at uint64
		s  string
	}
)

// field makes a structure of n bytes.
func field(n int, parts ...any) []byte {
	b := make([]byte, n)
	for _, p := range parts {
		switch p := p.(type) {
		case u8:
			b[p.at] = byte(p.v)
		case u16:
			le.PutUint16(b[p.at:], uint16(p.v))
		case u32:
			le.PutUint32(b[p.at:], uint32(p.v))
		case u64:
			le.PutUint64(b[p.at:], p.v)
		case text:
			copy(b[p.at:], p.s)
		default:
			panic("story: a value of unknown size")
		}
	}
	return b
}

// prpsinfo is prpsinfo_t (sys/sys/procfs.h), LP64.
func (w *world) prpsinfo() []byte {
	args := ""
	for i, a := range argv {
		if i > 0 {
			args += " "
		}
		args += a
	}
	parts := []any{u32{0, 1}, u64{8, 120}, text{16, "mysqld"}, text{33, args[:min(len(args), 80)]}}
	if !w.opts.OldNotes {
		parts = append(parts, u32{116, PID})
	}
	return field(120, parts...)
}

// prstatus is prstatus_t with struct reg of amd64 behind its 48 bytes.
func (w *world) prstatus(t *Thread) []byte {
	sig := uint64(0)
	if w.opts.KernelCore {
		sig = fatal
	}
	b := field(224, u32{0, 1}, u64{8, 224}, u64{16, 176}, u64{24, 512}, u32{32, uint64(w.lay.osrel)}, u32{36, sig}, u32{40, uint64(t.LWP)})
	for name, at := range map[string]int{"r15": 0, "r14": 8, "r13": 16, "r12": 24, "r11": 32, "r10": 40, "r9": 48, "r8": 56, "rdi": 64, "rsi": 72,
		"rbp": 80, "rbx": 88, "rdx": 96, "rcx": 104, "rax": 112, "rip": 136, "rflags": 152, "rsp": 160} {
		le.PutUint64(b[48+at:], t.Regs[name])
	}
	r := b[48:]
	le.PutUint16(r[124:], 0x13) // fs
	le.PutUint16(r[126:], 0x1b) // gs
	le.PutUint16(r[132:], 0x3b) // es
	le.PutUint16(r[134:], 0x3b) // ds
	le.PutUint64(r[144:], 0x43) // cs
	le.PutUint64(r[168:], 0x3b) // ss
	return b
}

// fpregs is the start of an fxsave image: control words at their defaults.
func fpregs(n int) []byte {
	return field(n, u16{0, 0x37f}, u32{24, 0x1f80}, u32{28, 0x2ffff})
}

// Signal sets of the server: bit n-1 is signal n.
const (
	maskBlocked = 1<<0 | 1<<2 | 1<<12 | 1<<14 | 1<<17               // HUP QUIT PIPE TERM TSTP
	maskIgnored = 1<<12 | 1<<15 | 1<<19 | 1<<22 | 1<<27 | 1<<28     // PIPE, and what is ignored by default
	maskCaught  = 1<<3 | 1<<5 | 1<<7 | 1<<9 | 1<<10 | 1<<29 | 1<<31 // ILL ABRT FPE BUS SEGV USR1 THR
)

// lwpinfo is int structsize and struct ptrace_lwpinfo (sys/sys/ptrace.h).
func (w *world) lwpinfo(t *Thread, i int) []byte {
	parts := []any{u32{0, 160}, u32{4, uint64(t.LWP)}, u32{4 + 12, maskBlocked}, text{4 + 128, "mysqld"}}
	if i == 0 {
		parts = append(parts, u32{4 + 4, 1}, u32{4 + 8, 0x20}) // PL_EVENT_SIGNAL, PL_FLAG_SI
		signo := uint64(17)                                    // SIGSTOP of the attach
		if w.opts.KernelCore {
			signo = fatal
		}
		parts = append(parts, u32{4 + 48, signo}, u32{4 + 56, 0x10001}) // SI_USER
	}
	return field(164, parts...)
}

// procs is one kinfo_proc per thread (sys/sys/user.h), in the order of the
// kernel's list, which is not that of the thread notes in a kernel core.
func (w *world) procs() []byte {
	var out []byte
	flag, ppid, tracer := uint64(0x10004082|0x800|0x40000), uint64(gcorePID), uint64(gcorePID)
	if w.opts.KernelCore {
		flag, ppid, tracer = 0x10004082|0x80000, safePID, 0
	}
	for i := range w.threads {
		t := &w.threads[i]
		stat := uint64(4) // SSTOP: tested before "sleeping"
		if w.opts.KernelCore && i == 0 {
			stat = 2
		}
		parts := []any{u32{0, 1088}, u64{16, 0xfffff80005e8a000}, u64{40, 0xfffff800059b11d8}, u64{48, 0xfffff80005c5a800},
			u64{56, 0xfffff80005f26000}, u64{64, t.wchan}, u32{72, PID}, u32{76, ppid}, u32{80, PID}, u32{88, safePID},
			u32{120, maskBlocked}, u32{136, maskIgnored}, u32{152, maskCaught},
			u32{168, mysqlUID}, u32{172, mysqlUID}, u32{176, mysqlUID}, u16{188, 1}, u32{192, mysqlUID},
			u64{256, 0x1a2f0000}, u64{264, 0x6e00}, u64{328, uint64(1000 + 37*i)}, u64{336, startTime}, u64{368, flag},
			u8{388, stat}, text{394, "mysqld"}, text{411, t.InCore[:min(len(t.InCore), 8)]}, text{420, "root"}, text{447, "mysqld"},
			text{467, "FreeBSD ELF64"}, text{484, "daemon"}, u32{592, 0}, u32{596, uint64(len(w.threads))}, u32{600, uint64(t.LWP)},
			u8{392, 255}, u8{393, 1}, u8{604, 3}, u8{605, 120}, u8{606, 120}, u8{607, 120},
			u64{896, 0xfffffe0095a00b80 + uint64(i)*0x5000}, u64{904, 0xfffffe00959fd000 + uint64(i)*0x5000}, u64{920, 0xfffff80005e90000 + uint64(i)*0x4a0}}
		tdflags := uint64(0x4) // TDF_INMEM (sys/sys/proc.h)
		if t.InCore != "" {
			parts = append(parts, u32{316, 780})
			tdflags |= 0x8 // TDF_SINTR: all sleeps of the story can be interrupted
		}
		parts = append(parts, u64{1080, tdflags})
		if w.opts.Release >= 12 {
			parts = append(parts, u32{568, 0xffffffff}, u32{572, 1}, u32{576, tracer})
		}
		out = append(out, field(1088, parts...)...)
	}
	return out
}

// openFile is one row of the file table.
type openFile struct {
	fd, typ, vtype, flags int
	path                  string
	inode                 uint64
	mode                  uint16
	domain, stype, proto  int
	local, peer           []byte
}

// packed cuts a structure behind its path, rounded up to 8, as the kernel does.
func packed(b []byte, pathAt int, path string) []byte {
	n := int(align(uint64(pathAt+len(path)+1), 8))
	copy(b[pathAt:], path)
	le.PutUint32(b, uint32(n))
	return b[:n]
}

// fileTable is what the server has open; the FIFO is not there: an open that
// sleeps has no file yet.
func fileTable() []openFile {
	inet := func(a, b, c, d byte, port uint16) []byte {
		return []byte{16, 2, byte(port >> 8), byte(port), a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0}
	}
	local := append([]byte{106, 1}, "/tmp/mysql.sock"...)
	reg := func(fd int, path string, inode uint64, flags int) openFile {
		return openFile{fd: fd, typ: 1, vtype: 1, flags: flags, path: path, inode: inode, mode: 0o100660}
	}
	return []openFile{
		{fd: -5, typ: 1, vtype: 1, flags: 1, path: MysqldPath, inode: 160611, mode: 0o100555},
		{fd: -1, typ: 1, vtype: 2, flags: 1, path: "/var/db/mysql", inode: 401280, mode: 0o40700},
		{fd: -2, typ: 1, vtype: 2, flags: 1, path: "/", inode: 2, mode: 0o40755},
		{fd: 0, typ: 1, vtype: 4, flags: 1, path: "/dev/null", inode: 27, mode: 0o20666},
		reg(1, "/var/db/mysql/freebsd.err", 401290, 2|4),
		reg(2, "/var/db/mysql/freebsd.err", 401290, 2|4),
		reg(3, "/var/db/mysql/ibdata1", 401291, 3),
		reg(9, "/var/db/mysql/ib_logfile0", 401292, 3),
		reg(10, "/var/db/mysql/ib_logfile1", 401293, 3),
		{fd: 11, typ: 2, flags: 3, domain: 2, stype: 1, proto: 6, local: inet(0, 0, 0, 0, 3306), peer: make([]byte, 16)},
		{fd: 13, typ: 2, flags: 3, domain: 1, stype: 1, local: local},
		{fd: 30, typ: 2, flags: 3, domain: 1, stype: 1, local: local},
		{fd: 31, typ: 2, flags: 3, domain: 2, stype: 1, proto: 6, local: inet(127, 0, 0, 1, 3306), peer: inet(127, 0, 0, 1, 51744)},
		reg(32, "/var/db/mysql/fifo/t.ibd", 401310, 3),
	}
}

// files packs struct kinfo_file (sys/sys/user.h; 12 moved the vnode's fields).
func (w *world) files() []byte {
	var out []byte
	for _, f := range fileTable() {
		refs := uint64(1)
		if f.fd < 0 {
			refs = 0xffffffff // unknown
		}
		parts := []any{u32{4, uint64(f.typ)}, u32{8, uint64(uint32(int32(f.fd)))}, u32{12, refs}, u32{16, uint64(f.flags)}}
		switch {
		case f.typ == 2:
			parts = append(parts, u32{36, uint64(f.domain)}, u32{40, uint64(f.stype)}, u32{44, uint64(f.proto)},
				text{48, string(f.local)}, text{176, string(f.peer)})
		case w.opts.Release >= 12:
			parts = append(parts, u32{32, uint64(f.vtype)}, u64{288, 0x5a}, u64{304, f.inode}, u64{312, 4096}, u16{328, uint64(f.mode)})
		default:
			parts = append(parts, u32{32, uint64(f.vtype)}, u64{304, f.inode}, u64{312, 4096}, u32{320, 0x5a}, u16{328, uint64(f.mode)})
		}
		out = append(out, packed(field(1392, parts...), 368, f.path)...)
	}
	return out
}

// mapping is one entry of the address space.
type mapping struct {
	start, end, off uint64
	prot, typ       int
	flags           int
	path            string
	inode           uint64
}

// mappings lists the address space in address order.
func (w *world) mappings() []mapping {
	var out []mapping
	for i, im := range w.images {
		inode := uint64(160611 + i)
		out = append(out,
			mapping{im.base, im.base + im.dynOff, 0, 5, 2, 7, im.path, inode},
			mapping{im.base + im.dynOff, im.base + align(im.dataEnd, page), im.dynOff, 3, 2, 1, im.path, inode})
	}
	for _, r := range [][2]uint64{{heap, heapSize}, {thdHeap, thdSize}, {lateHeap, lateSize}, {rtldHeap, rtldSize}} {
		out = append(out, mapping{start: r[0], end: r[0] + r[1], prot: 3, typ: 1})
	}
	guardType := 0
	if w.opts.Release >= 13 {
		guardType = 9 // KVME_TYPE_GUARD
	}
	for i := range w.threads {
		t := &w.threads[i]
		guardEnd := t.StackLow
		if w.opts.Release >= 12 {
			guardEnd = t.StackTop - grown // the room to grow is guard as well
		}
		if i > 0 {
			out = append(out, mapping{start: t.StackLow - guard, end: guardEnd, typ: guardType})
		}
		out = append(out, mapping{start: t.StackTop - grown, end: t.StackTop, prot: 3, typ: 1, flags: 0x20})
	}
	out = append(out, mapping{start: userStack, end: userStack + page, prot: 5, typ: 5})
	slices.SortFunc(out, func(a, b mapping) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	return out
}

// vmmap packs struct kinfo_vmentry (sys/sys/user.h).
func (w *world) vmmap() []byte {
	var out []byte
	for _, m := range w.mappings() {
		parts := []any{u32{4, uint64(m.typ)}, u64{8, m.start}, u64{16, m.end}, u64{24, m.off}, u64{32, m.inode}, u32{44, uint64(m.flags)},
			u32{48, (m.end - m.start) / page}, u32{56, uint64(m.prot)}, u32{60, 1}, u32{64, 0}}
		if m.typ == 2 {
			parts = append(parts, u32{68, 1}, u64{72, align(m.end-m.start, page)}, u16{84, 0o100555})
			if w.opts.Release >= 12 {
				parts = append(parts, u64{88, 0x5a})
			}
		}
		out = append(out, packed(field(1160, parts...), 136, m.path)...)
	}
	return out
}

func rlimits() []byte {
	const inf = 1<<63 - 1
	var b []byte
	for i := range 15 {
		v := uint64(inf)
		switch i {
		case 3: // RLIMIT_STACK
			v = 512 << 20
		case 8: // RLIMIT_NOFILE
			v = 11095
		}
		b = le.AppendUint64(le.AppendUint64(b, v), v)
	}
	return b
}

// auxv has FreeBSD's numbers (sys/sys/elf_common.h).
func (w *world) auxv() []byte {
	var b []byte
	for _, a := range [][2]uint64{
		{3, exeBase + 64}, {4, 56}, {5, uint64(le.Uint16(w.images[0].file[56:]))}, {7, rtldBase}, {8, 0},
		{9, w.images[0].run("_start")}, {6, page}, {15, userStack - 0x400}, {18, uint64(w.lay.osrel)}, {19, 2}, {23, 7}, {0, 0},
	} {
		b = le.AppendUint64(le.AppendUint64(b, a[0]), a[1])
	}
	return b
}
