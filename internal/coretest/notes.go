package coretest

import "bytes"

// notes makes the note segment in the order of the style; the offsets are
// those of the note headers in it.
func (c *Core) notes() (b []byte, offs []int64) {
	var out bytes.Buffer
	add := func(owner string, typ uint32, desc []byte) {
		offs = append(offs, int64(out.Len()))
		name := append([]byte(owner), 0)
		h := make([]byte, 12)
		le.PutUint32(h, uint32(len(name)))
		le.PutUint32(h[4:], uint32(len(desc)))
		le.PutUint32(h[8:], typ)
		out.Write(h)
		out.Write(pad4(name))
		out.Write(pad4(desc))
	}
	if c.NoNotes {
		return nil, nil
	}
	process := func() {
		if c.Auxv != nil {
			add("CORE", NTAuxv, c.auxv())
		}
		if c.Files != nil {
			add("CORE", NTFile, FileNote(c.Files))
		}
	}
	rest := func(t *Thread) {
		add("CORE", NTFpregset, make([]byte, 512))
		if c.machine() == AMD64 {
			add("LINUX", NTXstate, xstate())
		}
		if c.machine() == ARM64 {
			add("LINUX", NTARMTLS, words(t.TLS))
			nr := make([]byte, 4)
			if t.NoSyscall {
				le.PutUint32(nr, 0xffffffff)
			} else {
				le.PutUint32(nr, uint32(t.Syscall))
			}
			add("LINUX", NTARMCall, nr)
		}
		for _, n := range t.Notes {
			add(n.Owner, n.Type, n.Desc)
		}
	}
	if c.Style == GDB {
		add("CORE", NTPrpsinfo, c.prpsinfo())
		for i := range c.Threads {
			add("CORE", NTPrstatus, c.prstatus(&c.Threads[i]))
			rest(&c.Threads[i])
			add("CORE", NTSiginfo, siginfo(c.Threads[i].FileSigno, 0, 0))
		}
		process()
	} else {
		for i := range c.Threads {
			add("CORE", NTPrstatus, c.prstatus(&c.Threads[i]))
			if i == 0 {
				add("CORE", NTPrpsinfo, c.prpsinfo())
				if c.Signo != 0 {
					add("CORE", NTSiginfo, siginfo(c.Signo, c.SigCode, c.SigAddr))
				}
				process()
			}
			rest(&c.Threads[i])
		}
	}
	for _, n := range c.Notes {
		add(n.Owner, n.Type, n.Desc)
	}
	return out.Bytes(), offs
}

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func words(vs ...uint64) []byte {
	b := make([]byte, 0, 8*len(vs))
	for _, v := range vs {
		b = le.AppendUint64(b, v)
	}
	return b
}

func (c *Core) auxv() []byte {
	var b []byte
	for _, a := range c.Auxv {
		b = append(b, words(a[0], a[1])...)
	}
	return append(b, words(0, 0)...)
}

// FileNote encodes NT_FILE (fs/binfmt_elf.c, fill_files_note).
func FileNote(files []File) []byte {
	b := words(uint64(len(files)), pageSize)
	for _, f := range files {
		b = append(b, words(f.Start, f.End, f.Off/pageSize)...)
	}
	for _, f := range files {
		b = append(append(b, f.Path...), 0)
	}
	return b
}

// prstatus is struct elf_prstatus (include/linux/elfcore.h).
func (c *Core) prstatus(t *Thread) []byte {
	size, regs := 336, amd64Regs
	switch c.machine() {
	case ARM64:
		size, regs = 392, arm64Regs
	case RISCV:
		size, regs = 376, nil
	}
	b := make([]byte, size)
	le.PutUint32(b, uint32(t.CurSig))
	le.PutUint16(b[12:], uint16(t.CurSig))
	le.PutUint64(b[16:], t.Pending)
	le.PutUint64(b[24:], t.Blocked)
	le.PutUint32(b[32:], uint32(t.LWP))
	le.PutUint32(b[36:], uint32(c.PPID))
	if regs != nil {
		regs(t, b[112:])
	}
	return b
}

// amd64Regs is struct user_regs_struct (arch/x86/include/asm/user_64.h).
func amd64Regs(t *Thread, b []byte) {
	word := map[int]int{15: 0, 14: 1, 13: 2, 12: 3, 6: 4, 3: 5, 11: 6, 10: 7, 9: 8, 8: 9, 0: 10, 2: 11, 1: 12, 4: 13, 5: 14, 16: 16, 7: 19}
	for dwarf, v := range t.Regs {
		if w, ok := word[dwarf]; ok {
			le.PutUint64(b[8*w:], v)
		}
	}
	nr := uint64(t.Syscall)
	if t.NoSyscall {
		nr = ^uint64(0)
	}
	le.PutUint64(b[15*8:], nr)
	le.PutUint64(b[17*8:], 0x33) // cs
	le.PutUint64(b[20*8:], 0x2b) // ss
	le.PutUint64(b[18*8:], t.Flags)
	le.PutUint64(b[21*8:], t.TLS)
	if t.PC != 0 {
		le.PutUint64(b[16*8:], t.PC)
	}
	if t.SP != 0 {
		le.PutUint64(b[19*8:], t.SP)
	}
}

// arm64Regs is struct user_pt_regs: x0 to x30, sp, pc, pstate.
func arm64Regs(t *Thread, b []byte) {
	for dwarf, v := range t.Regs {
		if dwarf >= 0 && dwarf <= 32 {
			le.PutUint64(b[8*dwarf:], v)
		}
	}
	le.PutUint64(b[8*33:], t.Flags)
	if t.PC != 0 {
		le.PutUint64(b[8*32:], t.PC)
	}
	if t.SP != 0 {
		le.PutUint64(b[8*31:], t.SP)
	}
}

// prpsinfo is struct elf_prpsinfo, 64-bit.
func (c *Core) prpsinfo() []byte {
	b := make([]byte, 136)
	b[1] = 'S'
	le.PutUint32(b[16:], 999)
	le.PutUint32(b[20:], 998)
	le.PutUint32(b[24:], uint32(c.PID))
	le.PutUint32(b[28:], uint32(c.PPID))
	copy(b[40:55], c.Command)
	copy(b[56:135], c.Args)
	return b
}

func siginfo(signo, code int, addr uint64) []byte {
	b := make([]byte, 128)
	le.PutUint32(b, uint32(signo))
	le.PutUint32(b[8:], uint32(code))
	le.PutUint64(b[16:], addr)
	return b
}

// xstate is an XSAVE area of the smallest size with a header that says "x87 and
// SSE".
func xstate() []byte {
	b := make([]byte, 832)
	le.PutUint64(b[464:], 3) // xcr0 as the kernel stores it in the software bytes
	le.PutUint64(b[512:], 3)
	return b
}
