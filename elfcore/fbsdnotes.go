package elfcore

import (
	"encoding/binary"
	"fmt"

	"mycore/internal/elfimage"
	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// Note types of FreeBSD cores, owner "FreeBSD" (sys/sys/elf_common.h, main; the
// register notes keep the numbers that Linux uses). Not read: FPREGSET (2),
// X86_XSTATE (0x202), ARM_VFP (0x400) and ARM_SVE (0x405), which hold no
// general register; PROCSTAT_GROUPS (11), UMASK (12), RLIMIT (13) and KQUEUES
// (18), which nothing here needs.
const (
	fbPrstatus   = 1
	fbPrpsinfo   = 3
	fbThrmisc    = 7
	fbProc       = 8
	fbFiles      = 9
	fbVMMap      = 10
	fbOSRel      = 14
	fbPSStrings  = 15
	fbAuxv       = 16
	fbPtlwpinfo  = 17
	fbX86Segbase = 0x200
	fbARMTLS     = 0x401
	fbARMMask    = 0x406
)

// fbsdCore is what only cores of FreeBSD have.
type fbsdCore struct {
	kinfo     map[int]*kinfoProc // by LWP; the first of an id
	kinfoSeen bool
	files     []kernelview.File // note order, special descriptors included
	filesSeen bool
	text      textVnode
	osrel     target.Value[int] // of the executable
	psStrings target.Value[target.Addr]
	prOSRel   int // pr_osreldate of the first thread
}

// textVnode is the executable as the descriptor note has it.
type textVnode struct {
	path  string
	inode uint64
}

// fbsdDecoder walks the notes of one core; the notes of a thread follow its
// PRSTATUS.
type fbsdDecoder struct {
	c       *core
	f       *fbsdCore
	arch    target.Arch
	lay     *fbsdLayout
	cur     *Thread
	over    bool
	once    map[uint32]bool // notes of the process that were taken
	pending []int           // LWPs in PROC without a thread
}

func decodeFreeBSD(c *core) error {
	c.freebsd = &fbsdCore{kinfo: map[int]*kinfoProc{}}
	d := &fbsdDecoder{c: c, f: c.freebsd, arch: c.info.Arch, lay: fbsdLayouts[c.info.Arch], once: map[uint32]bool{}}
	switch {
	case d.lay == nil:
		c.warn(WarnArch, "machine %d of this core isn't known: only memory and mapped files are read, no threads", c.file.Machine())
	case !d.lay.full:
		c.warn(WarnArch, "cores of FreeBSD on %s aren't read beyond the list of threads, files and mappings: no stacks, no system calls", c.info.Arch)
	}
	if err := c.file.Notes(d.note); err != nil {
		c.warn(WarnNotesCut, "%v: notes behind this point are lost, and with them threads or the list of mapped files; %d threads were read", err, len(c.threads))
	}
	d.finish()
	return nil
}

// note takes one note. It never returns an error: damage of one note doesn't
// end the walk.
func (d *fbsdDecoder) note(n elfimage.Note) error {
	if n.Name != "FreeBSD" {
		return nil
	}
	switch n.Type {
	case fbPrstatus, fbThrmisc, fbPtlwpinfo, fbX86Segbase, fbARMTLS, fbARMMask:
		if d.lay != nil {
			d.threadNote(n)
		}
	case fbPrpsinfo, fbProc, fbFiles, fbVMMap, fbOSRel, fbPSStrings, fbAuxv:
		if d.once[n.Type] { // one per process; forged repetitions would cost a read each
			return nil
		}
		d.once[n.Type] = true
		d.processNote(n)
	}
	return nil
}

func (d *fbsdDecoder) threadNote(n elfimage.Note) {
	if n.Type == fbPrstatus {
		d.prstatus(n)
		return
	}
	if d.cur == nil {
		return // of a thread that couldn't be read, or of none
	}
	switch n.Type {
	case fbThrmisc:
		d.thrmisc(n)
	case fbPtlwpinfo:
		d.ptlwpinfo(n)
	case fbX86Segbase: // u64 fsbase, u64 gsbase (sys/x86/include/reg.h, struct segbasereg)
		if d.arch == target.AMD64 {
			d.threadPointer(n, "X86_SEGBASES")
		}
	case fbARMTLS: // u64 tpidr_el0, more on newer kernels
		if d.arch == target.ARM64 {
			d.threadPointer(n, "ARM_TLS")
		}
	case fbARMMask: // struct arm64_addr_mask (sys/arm64/include/reg.h): u64 code, u64 data
		var b [16]byte
		if d.arch == target.ARM64 && !d.c.codeMaskKnown && d.fixed(n, "ARM_ADDR_MASK", b[:]) {
			d.c.codeMask, d.c.codeMaskKnown = binary.LittleEndian.Uint64(b[:]), true
		}
	}
}

func (d *fbsdDecoder) processNote(n elfimage.Note) {
	switch n.Type {
	case fbPrpsinfo:
		if d.lay != nil {
			d.prpsinfo(n)
		}
	case fbProc:
		d.proc(n)
	case fbFiles:
		d.files(n)
	case fbVMMap:
		d.vmmap(n)
	case fbOSRel:
		if b, ok := d.sized(n, "PROCSTAT_OSREL", 4, 4); ok {
			d.f.osrel = target.Known(int(int32(binary.LittleEndian.Uint32(b))), target.SourceCoreNote)
		}
	case fbPSStrings:
		if b, ok := d.sized(n, "PROCSTAT_PSSTRINGS", d.word(), d.word()); ok {
			d.f.psStrings = target.Known(target.Addr(word(b, d.word())), target.SourceCoreNote)
		}
	case fbAuxv:
		d.auxv(n)
	}
}

func (d *fbsdDecoder) word() int {
	if d.c.file.Class() == elfimage.Class32 {
		return 4
	}
	return 8
}

// fixed reads the beginning of a note that must have at least len(b) bytes.
func (d *fbsdDecoder) fixed(n elfimage.Note, what string, b []byte) bool {
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

// sized reads a note of the procstat family: an int with the size of the
// structure, which must be want, then the structure, of which need bytes are
// returned.
func (d *fbsdDecoder) sized(n elfimage.Note, what string, want, need int) ([]byte, bool) {
	b := make([]byte, 4+need)
	if !d.fixed(n, what, b) {
		return nil, false
	}
	if got := binary.LittleEndian.Uint32(b); got != uint32(want) {
		d.c.warn(WarnNote, "%s note at offset %#x: its structure has %d bytes, %d are known: it is left out", what, n.Off, got, want)
		return nil, false
	}
	return b[4:], true
}

// prstatus begins a thread (sys/sys/procfs.h, struct prstatus; pr_pid is the
// LWP). A structure of another version or register set is listed without
// registers.
func (d *fbsdDecoder) prstatus(n elfimage.Note) {
	d.cur = nil // what follows belongs to this thread, or to nobody
	l := d.lay
	var buf [maxFbsdPrstatus]byte
	b := buf[:l.prstatus]
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
	i32 := func(at int) int { return int(int32(binary.LittleEndian.Uint32(b[at:]))) }
	t := &Thread{LWP: i32(l.pid), CurSig: i32(l.cursig)}
	t.Regs.Arch = d.arch
	const version = 1 // PRSTATUS_VERSION, sys/sys/procfs.h: 1 in FreeBSD 3 to main
	size, gregs := word(b[l.statussz:], l.word), word(b[l.gregsetsz:], l.word)
	switch {
	case i32(0) != version || size != n.Size:
		d.c.warn(WarnNote, "PRSTATUS note at offset %#x (LWP %d): version %d with %d bytes, expected version %d with %d: its registers are left out", n.Off, t.LWP, i32(0), size, version, n.Size)
	case l.regs == nil:
	case gregs != uint64(l.gregs):
		d.c.warn(WarnNote, "PRSTATUS note at offset %#x (LWP %d): %d bytes of registers, %s has %d: they are left out", n.Off, t.LWP, gregs, d.arch, l.gregs)
	default:
		l.regs(t, b[l.reg:])
	}
	if len(d.c.threads) == 0 {
		d.f.prOSRel = i32(l.osrel)
	}
	d.c.threads = append(d.c.threads, t)
	d.cur = t
	if _, dup := d.c.byLWP[t.LWP]; dup {
		d.c.warn(WarnDuplicateLWP, "two threads have the id %d: looking it up gives the first", t.LWP)
		return
	}
	d.c.byLWP[t.LWP] = t
}

func (d *fbsdDecoder) prpsinfo(n elfimage.Note) {
	var buf [120]byte
	l := &d.lay.psinfo
	b := buf[:l.size]
	if !d.fixed(n, "PRPSINFO", b) {
		return
	}
	info := &d.c.info
	info.Command = target.Known(untilNUL(b[l.fname:l.fname+fbsdFnameLen]), target.SourceCoreNote)
	info.Args = target.Known(untilNUL(b[l.args:l.args+fbsdArgsLen]), target.SourceCoreNote)
	// pr_pid came with "version 1a" of the structure, whose size and version
	// number are those of the older one: 0 says that it isn't there.
	if pid := int32(binary.LittleEndian.Uint32(b[l.pid:])); pid > 0 {
		info.PID = target.Known(int(pid), target.SourceCoreNote)
	}
}

func (d *fbsdDecoder) thrmisc(n elfimage.Note) {
	var b [fbsdNameLen]byte
	if d.fixed(n, "THRMISC", b[:]) {
		if name := untilNUL(b[:]); name != "" {
			d.cur.Name = target.Known(name, target.SourceCoreNote)
		}
	}
}

// ptlwpinfo reads masks and siginfo of the current thread. A signal set has
// four 32-bit words; signal n is bit n-1, and those above 64 aren't kept.
func (d *fbsdDecoder) ptlwpinfo(n elfimage.Note) {
	l := &d.lay.lwpinfo
	b, ok := d.sized(n, "PTLWPINFO", l.size, l.size)
	if !ok {
		return
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	if lwp := int(int32(u32(0))); lwp != d.cur.LWP {
		d.c.warn(WarnNote, "PTLWPINFO note at offset %#x is of LWP %d, but follows the registers of LWP %d: it is left out", n.Off, lwp, d.cur.LWP)
		return
	}
	d.cur.SigBlocked = target.Known(sigset(b[l.sigmask:]), target.SourceCoreNote)
	d.cur.SigPending = target.Known(sigset(b[l.siglist:]), target.SourceCoreNote)
	const plFlagSI = 0x20 // PL_FLAG_SI, sys/sys/ptrace.h: pl_siginfo is filled
	if u32(8)&plFlagSI == 0 {
		return
	}
	at := l.siginfo
	s := &Siginfo{Signo: int(int32(u32(at))), Errno: int(int32(u32(at + 4))), Code: int(int32(u32(at + 8)))}
	switch {
	case isFaultFreeBSD(s.Signo) && s.Code > 0 && s.Code < fbSIUser:
		s.Addr = target.Known(target.Addr(word(b[at+l.siAddr:], d.lay.word)), target.SourceCoreNote)
	case s.Code == fbSIUser || s.Code == fbSIQueue || s.Code == fbSILwp:
		s.PID = target.Known(int(int32(u32(at+12))), target.SourceCoreNote)
		s.UID = target.Known(int(int32(u32(at+16))), target.SourceCoreNote)
	}
	d.cur.Siginfo = s
}

// si_code values above those of the hardware (sys/sys/signal.h).
const (
	fbSIUser  = 0x10001 // kill
	fbSIQueue = 0x10002 // sigqueue
	fbSILwp   = 0x10007 // thr_kill: raise, abort
)

// isFaultFreeBSD says that a signal is one a processor raises (sys/sys/
// signal.h: SIGILL 4, SIGTRAP 5, SIGFPE 8, SIGBUS 10, SIGSEGV 11).
func isFaultFreeBSD(signo int) bool {
	return signo == 4 || signo == 5 || signo == 8 || signo == 10 || signo == 11
}

// sigset is the first 64 signals of a sigset_t.
func sigset(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func (d *fbsdDecoder) threadPointer(n elfimage.Note, what string) {
	var b [8]byte
	if !d.fixed(n, what, b[:]) {
		return
	}
	if v := binary.LittleEndian.Uint64(b[:]); v != 0 {
		d.cur.ThreadPointer = target.Known(target.Addr(v), target.SourceCoreNote)
	}
}

// auxv reads the auxiliary vector: entries of a long and a word.
func (d *fbsdDecoder) auxv(n elfimage.Note) {
	b, err := n.Desc(maxAuxv)
	if err != nil {
		d.c.warn(WarnNote, "PROCSTAT_AUXV: %v", err)
	}
	w := d.word()
	if len(b) < 4 {
		d.c.warn(WarnNote, "PROCSTAT_AUXV note at offset %#x has %d bytes: it is left out", n.Off, len(b))
		return
	}
	if size := binary.LittleEndian.Uint32(b); size != uint32(2*w) {
		d.c.warn(WarnNote, "PROCSTAT_AUXV note at offset %#x: its entries have %d bytes, %d are known: it is left out", n.Off, size, 2*w)
		return
	}
	for b = b[4:]; len(b) >= 2*w; b = b[2*w:] {
		tag := word(b, w)
		if tag == 0 { // AT_NULL
			return
		}
		if _, dup := d.c.auxv[tag]; !dup {
			d.c.auxv[tag] = word(b[w:], w)
		}
	}
}

// records steps through packed structures: each begins with an int that is its
// own size, at least min and at most max bytes; 0 ends them, since a kernel
// fixes the size of the note first and pads what it then doesn't need (sys/
// kern/imgact_elf.c, note_procstat_files and note_procstat_vmmap). It returns
// why it ended early.
func (d *fbsdDecoder) records(n elfimage.Note, what string, noteSize, min, max int, limit int, each func(b []byte) error) error {
	var buf [maxRecord]byte
	if !d.fixed(n, what, buf[:4]) {
		return nil // warned
	}
	if got := binary.LittleEndian.Uint32(buf[:4]); got != uint32(noteSize) {
		return fmt.Errorf("its structure has %d bytes, %d are known", got, noteSize)
	}
	off, count := uint64(4), 0
	for ; n.Size-off >= 4; count++ {
		want := uint64(max)
		if left := n.Size - off; left < want {
			want = left
		}
		got, err := n.ReadAt(buf[:want], off)
		if got < 4 {
			return fmt.Errorf("entry %d: %w", count+1, err)
		}
		size := uint64(binary.LittleEndian.Uint32(buf[:4]))
		switch {
		case size == 0:
			return nil
		case size < uint64(min) || size > uint64(max) || size > n.Size-off:
			return fmt.Errorf("entry %d claims %d bytes, %d to %d are possible and %d are left", count+1, size, min, max, n.Size-off)
		case size > uint64(got):
			return fmt.Errorf("entry %d: %w", count+1, err)
		case count >= limit:
			return fmt.Errorf("it has more than %d entries", limit)
		}
		if err := each(buf[:size]); err != nil {
			return fmt.Errorf("entry %d: %w", count+1, err)
		}
		off += size
	}
	return nil
}
