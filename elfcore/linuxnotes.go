package elfcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"mycore/internal/elfimage"
	"mycore/internal/target"
)

// Note types of Linux cores, owners "CORE" and "LINUX"
// (include/uapi/linux/elf.h, Linux 6.18).
const (
	ntPrstatus      = 1
	ntFpregset      = 2
	ntPrpsinfo      = 3
	ntAuxv          = 6
	ntX86Xstate     = 0x202
	ntARMTLS        = 0x401
	ntARMSystemCall = 0x404
	ntARMPACMask    = 0x406
	ntFile          = 0x46494c45 // "FILE"
	ntSiginfo       = 0x53494749 // "SIGI"
)

// ntGDBTdesc is the target description that gdb 12 and newer add, owner "GDB"
// (binutils include/elf/common.h, NT_GDB_TDESC).
const ntGDBTdesc = 0xff000000

// fileEntry is one line of NT_FILE, or one mapping of FreeBSD's VMMAP.
type fileEntry struct {
	start, end target.Addr
	off        uint64 // bytes
	path       string // "" for anonymous memory (FreeBSD)
	perm       string // "r-x"; "" where the note doesn't say (Linux)
	inode      uint64 // FreeBSD only
}

// noteOrder is what the order of the notes tells about the writer.
type noteOrder struct {
	owners      map[string]bool
	first       uint32 // type of the first note of owner CORE
	prpsinfoAt  int    // position among the CORE notes, -1 none
	prstatusAt  int    // position of the first
	siginfoAt   int    // position of the first
	siginfos    int
	tdesc       bool
	seen        int
	maskNonZero bool
	fileSeen    bool
	fileCut     bool
}

// linuxDecoder walks the notes of one core; the notes of a thread follow its
// PRSTATUS.
type linuxDecoder struct {
	c    *core
	arch target.Arch
	lay  *linuxLayout
	cur  *Thread
	masks
	over     bool
	auxvSeen bool
	name     string // pr_fname
}

// masks are the raw words; whether they mean anything is known at the end.
type masks struct {
	blocked, pending []uint64
}

func decodeLinux(c *core) error {
	d := &linuxDecoder{c: c, arch: c.info.Arch, lay: linuxLayouts[c.info.Arch]}
	c.notes = noteOrder{owners: map[string]bool{}, prpsinfoAt: -1, prstatusAt: -1, siginfoAt: -1}
	if d.lay == nil {
		c.warn(WarnArch, "machine %d of this core isn't known: only memory and mapped files are read, no threads", c.file.Machine())
	} else if !d.lay.full {
		c.warn(WarnArch, "registers of %s aren't read: threads are listed by id, without stacks", c.info.Arch)
	}
	if err := c.file.Notes(d.note); err != nil {
		c.warn(WarnNotesCut, "%v: notes behind this point are lost, and with them threads or the list of mapped files; %d threads were read", err, len(c.threads))
	}
	d.finish()
	return nil
}

// note takes one note. It never returns an error: damage of one note doesn't
// end the walk.
func (d *linuxDecoder) note(n elfimage.Note) error {
	o := &d.c.notes
	if len(o.owners) < 16 {
		o.owners[n.Name] = true
	}
	if n.Name == "GDB" && n.Type == ntGDBTdesc {
		o.tdesc = true
	}
	if n.Name != "CORE" && n.Name != "LINUX" {
		return nil
	}
	if n.Name == "CORE" {
		if o.seen == 0 {
			o.first = n.Type
		}
		o.seen++
	}
	if d.lay == nil && n.Type != ntFile && n.Type != ntAuxv {
		return nil
	}
	if n.Name == "LINUX" {
		if d.arch == target.ARM64 {
			d.arm(n)
		}
		return nil
	}
	switch n.Type {
	case ntPrstatus:
		d.prstatus(n)
	case ntPrpsinfo:
		d.prpsinfo(n)
	case ntSiginfo:
		d.siginfo(n)
	case ntAuxv:
		d.auxv(n)
	case ntFile:
		d.file(n)
	}
	return nil
}

// fixed reads a note of a fixed size; what it is is named in the warning.
func (d *linuxDecoder) fixed(n elfimage.Note, what string, b []byte) bool {
	if n.Size < uint64(len(b)) {
		d.c.warn(WarnNote, "%s note at offset %#x has %d bytes, %d are needed: it is left out", what, n.Off, n.Size, len(b))
		return false
	}
	got, err := n.ReadAt(b, 0)
	if got < len(b) {
		d.c.warn(WarnNote, "%s: %v", what, err)
		return false
	}
	return true
}

func (d *linuxDecoder) prstatus(n elfimage.Note) {
	o := &d.c.notes
	if o.prstatusAt < 0 {
		o.prstatusAt = o.seen
	}
	d.cur = nil // what follows belongs to this thread, or to nobody
	var buf [maxPrstatus]byte
	b := buf[:d.lay.prstatus]
	if !d.fixed(n, "PRSTATUS", b) {
		return
	}
	if len(d.c.threads) >= MaxThreads {
		if !d.over {
			d.over = true
			d.c.warn(WarnTooMany, "the core has more than %d threads: the rest is left out", MaxThreads)
		}
		return
	}
	t := &Thread{LWP: int(int32(binary.LittleEndian.Uint32(b[d.lay.pid:])))}
	t.CurSig = int(binary.LittleEndian.Uint16(b[12:])) // pr_cursig follows the three ints of pr_info
	d.masks.blocked = append(d.masks.blocked, d.lay.mask(b, 1))
	d.masks.pending = append(d.masks.pending, d.lay.mask(b, 0))
	if d.masks.blocked[len(d.masks.blocked)-1] != 0 {
		o.maskNonZero = true
	}
	if d.lay.regs != nil {
		d.lay.regs(t, b[d.lay.reg:])
	}
	t.Regs.Arch = d.arch
	d.c.threads = append(d.c.threads, t)
	d.cur = t
	if _, dup := d.c.byLWP[t.LWP]; dup {
		d.c.warn(WarnDuplicateLWP, "two threads have the id %d: looking it up gives the first", t.LWP)
		return
	}
	d.c.byLWP[t.LWP] = t
}

func (d *linuxDecoder) prpsinfo(n elfimage.Note) {
	o := &d.c.notes
	if o.prpsinfoAt >= 0 {
		return
	}
	o.prpsinfoAt = o.seen
	var buf [136]byte
	l := &d.lay.psinfo
	b := buf[:l.size]
	if !d.fixed(n, "PRPSINFO", b) {
		return
	}
	i32 := func(at int) target.Value[int] {
		return target.Known(int(int32(binary.LittleEndian.Uint32(b[at:]))), target.SourceCoreNote)
	}
	info := &d.c.info
	info.PID, info.PPID = i32(l.pid), i32(l.pid+4)
	if l.wideUID {
		info.UID, info.GID = i32(l.uid), i32(l.uid+4)
	} else {
		info.UID = target.Known(int(binary.LittleEndian.Uint16(b[l.uid:])), target.SourceCoreNote)
		info.GID = target.Known(int(binary.LittleEndian.Uint16(b[l.uid+2:])), target.SourceCoreNote)
	}
	d.name = untilNUL(b[l.fname : l.fname+16])
	info.Command = target.Known(d.name, target.SourceCoreNote)
	args := bytes.TrimRight([]byte(untilNUL(b[l.fname+16:l.fname+96])), " ")
	info.Args = target.Known(string(args), target.SourceCoreNote)
}

func untilNUL(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// siginfo reads a siginfo_t (include/uapi/asm-generic/siginfo.h): three ints,
// then a union, aligned to a pointer.
func (d *linuxDecoder) siginfo(n elfimage.Note) {
	o := &d.c.notes
	o.siginfos++
	if o.siginfoAt < 0 {
		o.siginfoAt = o.seen
	}
	var buf [32]byte
	if !d.fixed(n, "SIGINFO", buf[:]) {
		return
	}
	i32 := func(at int) int { return int(int32(binary.LittleEndian.Uint32(buf[at:]))) }
	s := &Siginfo{Signo: i32(0), Errno: i32(4), Code: i32(8)}
	union := 16
	if d.c.file.Class() == elfimage.Class32 {
		union = 12
	}
	switch {
	case s.Code <= 0 || s.Signo == sigchld: // sent by a process: kill, tgkill, sigqueue
		s.PID = target.Known(i32(union), target.SourceCoreNote)
		s.UID = target.Known(i32(union+4), target.SourceCoreNote)
	case isFault(s.Signo) && s.Code != siKernel:
		a := binary.LittleEndian.Uint64(buf[union:])
		if union == 12 {
			a &= 1<<32 - 1
		}
		s.Addr = target.Known(target.Addr(a), target.SourceCoreNote)
	}
	if d.cur != nil && d.cur.Siginfo == nil {
		d.cur.Siginfo = s
	}
	if d.c.info.Signal == nil {
		d.c.info.Signal = s
	}
}

// Signal numbers, the same on x86-64 and AArch64 (asm-generic/signal.h).
const (
	sigtrap = 5
	sigchld = 17
	sigstop = 19
	// siKernel is si_code SI_KERNEL: the kernel raised the signal and has no
	// address, as for a general protection fault.
	siKernel = 0x80
)

func isFault(signo int) bool {
	switch signo {
	case 4, sigtrap, 7, 8, 11: // SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV
		return true
	}
	return false
}

func (d *linuxDecoder) auxv(n elfimage.Note) {
	if d.auxvSeen { // one per process; forged repetitions would cost a read each
		return
	}
	d.auxvSeen = true
	b, err := n.Desc(maxAuxv)
	if err != nil {
		d.c.warn(WarnNote, "AUXV: %v", err)
	}
	w := 8
	if d.c.file.Class() == elfimage.Class32 {
		w = 4
	}
	for ; len(b) >= 2*w; b = b[2*w:] {
		tag, val := word(b, w), word(b[w:], w)
		if tag == 0 { // AT_NULL
			return
		}
		if _, dup := d.c.auxv[tag]; !dup {
			d.c.auxv[tag] = val
		}
	}
}

func word(b []byte, w int) uint64 {
	if w == 4 {
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

// arm takes the AArch64 notes of owner "LINUX".
func (d *linuxDecoder) arm(n elfimage.Note) {
	if d.cur == nil {
		return
	}
	var b [16]byte
	switch n.Type {
	case ntARMTLS: // tpidr_el0, then tpidr2_el0 on newer machines
		if d.fixed(n, "ARM_TLS", b[:8]) {
			d.cur.ThreadPointer = target.Known(target.Addr(binary.LittleEndian.Uint64(b[:])), target.SourceCoreNote)
		}
	case ntARMSystemCall: // int; -1 outside a call
		if d.fixed(n, "ARM_SYSTEM_CALL", b[:4]) {
			if nr := int32(binary.LittleEndian.Uint32(b[:])); nr >= 0 {
				d.cur.OrigSyscall = target.Known(int64(nr), target.SourceCoreNote)
			}
		}
	case ntARMPACMask: // data_mask, insn_mask (struct user_pac_mask)
		if d.fixed(n, "ARM_PAC_MASK", b[:]) && !d.c.codeMaskKnown {
			d.c.codeMask, d.c.codeMaskKnown = binary.LittleEndian.Uint64(b[8:]), true
		}
	}
}

// file reads NT_FILE (fs/binfmt_elf.c, fill_files_note): count, page size, then
// start, end and page offset of each mapping, then the paths.
func (d *linuxDecoder) file(n elfimage.Note) {
	o := &d.c.notes
	if o.fileSeen {
		return
	}
	o.fileSeen = true
	b, err := n.Desc(maxFileNote)
	if n.Size > maxFileNote {
		err = fmt.Errorf("it has %d bytes, the limit is %d", n.Size, maxFileNote)
	}
	w := 8
	if d.c.file.Class() == elfimage.Class32 {
		w = 4
	}
	entries, perr := parseFileNote(b, w)
	d.c.files = entries
	if err == nil {
		err = perr // a note that is cut explains what then misses in it
	}
	if err != nil {
		o.fileCut = true
		d.c.warn(WarnNoFileNote, "the list of mapped files (NT_FILE) at offset %#x is damaged: %v; %d entries were read, libraries behind them are looked up in memory", n.Off, err, len(entries))
	}
}

// parseFileNote decodes NT_FILE. What precedes damage is returned with the
// error.
func parseFileNote(b []byte, w int) ([]fileEntry, error) {
	if len(b) < 2*w {
		return nil, errors.New("its head is cut")
	}
	count, page := word(b, w), word(b[w:], w)
	tab := b[2*w:]
	// Paths may be cut: what has one is good. But the words of all entries
	// stand in front of them.
	if room := uint64(len(tab)) / uint64(3*w); count > room {
		return nil, fmt.Errorf("it claims %d entries, there is room for %d", count, room)
	}
	if page == 0 || page > 1<<30 || page&(page-1) != 0 {
		return nil, fmt.Errorf("page size %d", page)
	}
	out := make([]fileEntry, 0, count)
	names := tab[int(count)*3*w:]
	last := ""
	for i := range int(count) {
		e := tab[i*3*w:]
		end := bytes.IndexByte(names, 0)
		if end < 0 {
			return out, fmt.Errorf("path %d of %d has no end", i+1, count)
		}
		if string(names[:end]) != last { // the mappings of one file follow each other
			last = string(names[:min(end, maxPath)])
		}
		names = names[end+1:]
		f := fileEntry{start: target.Addr(word(e, w)), end: target.Addr(word(e[w:], w)), path: last}
		pgoff := word(e[2*w:], w)
		if f.end <= f.start || pgoff > (1<<62)/page {
			return out, fmt.Errorf("entry %d of %d: %s to %s at page %d", i+1, count, f.start, f.end, pgoff)
		}
		f.off = pgoff * page
		out = append(out, f)
	}
	return out, nil
}
