package elfcore

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// Auxiliary vector tags of FreeBSD that differ from Linux's numbers (sys/sys/
// elf_common.h, 12.1 and main).
const (
	fbATExecpath  = 15 // address of the executable's path
	fbATOSRelDate = 18 // of the kernel
	fbATKPreload  = 34 // base of the kernel's own library
)

// finish draws the conclusions that need all notes: who wrote the core, which
// record belongs to which thread, and what they say of the process.
func (d *fbsdDecoder) finish() {
	c := d.c
	c.info.Writer, c.info.WriterReason = d.writer()
	if len(c.threads) == 0 {
		c.warn(WarnNoThreads, "the core names no thread: no stack can be shown")
	}
	if !c.notes.fileSeen {
		c.warn(WarnNoFileNote, "the core has no list of mappings (PROCSTAT_VMMAP): code and read-only data of the libraries aren't in cores of FreeBSD, and without the list nobody knows which file they are from")
	}
	d.nameText()
	d.joinKinfo()
	d.process()
	d.setSignal()
	for _, t := range c.threads {
		d.setCall(t)
		if pc, ok := t.Regs.PC(); ok && c.codeMaskKnown {
			t.Regs.Set(t.Regs.Arch.PCReg(), uint64((&Process{core: c}).StripCode(pc)))
		}
	}
}

// writer tells the kernel's cores from gcore's. While gcore copies a process it
// is its debugger (P_TRACED, P_STOPPED_TRACE); the kernel stops the other
// threads of a process that it dumps (P_STOPPED_SINGLE, which a process of one
// thread lacks), and puts the signal into every PRSTATUS, where gcore leaves 0
// (sys/kern/kern_sig.c, coredump; usr.bin/gcore/elfcore.c).
func (d *fbsdDecoder) writer() (who, why string) {
	k := d.anyKinfo()
	sig := 0
	if ts := d.c.threads; len(ts) > 0 {
		sig = ts[0].CurSig
	}
	switch {
	case k != nil && k.flag&fbPTraced != 0 && k.flag&fbPStoppedSingle == 0:
		return WriterGcore, fmt.Sprintf("the process was held by a debugger while it was copied (ki_flag %#x has P_TRACED)", k.flag)
	case sig != 0:
		return WriterKernel, fmt.Sprintf("PRSTATUS names signal %d, which gcore leaves out", sig)
	case k != nil && k.flag&fbPStoppedSingle != 0:
		return WriterKernel, fmt.Sprintf("the kernel had stopped all threads but one (ki_flag %#x has P_STOPPED_SINGLE)", k.flag)
	case k != nil:
		return WriterUnknown, "neither a debugger nor a signal is in the kernel's records"
	case len(d.c.threads) == 0:
		return WriterUnknown, "it has no PRSTATUS note"
	}
	return WriterUnknown, "it has no kernel record of a thread, and no signal"
}

// anyKinfo is one record whose fields of the process count: those are the same
// in all.
func (d *fbsdDecoder) anyKinfo() *kinfoProc {
	for _, tid := range d.pending {
		return d.f.kinfo[tid]
	}
	return nil
}

// nameText gives the executable's mappings the path that the descriptor list
// has for it: the kernel can't name a file that it no longer has in its name
// cache, and then both notes are asked apart.
func (d *fbsdDecoder) nameText() {
	text := d.f.text
	if text.path == "" || text.inode == 0 {
		return
	}
	for i := range d.c.files {
		if e := &d.c.files[i]; e.path == "" && e.inode == text.inode {
			e.path = text.path
		}
	}
}

// joinKinfo fills the threads from their records, by LWP.
func (d *fbsdDecoder) joinKinfo() {
	if !d.f.kinfoSeen {
		if d.lay != nil && d.lay.full && len(d.c.threads) > 0 {
			d.c.warn(WarnKinfo, "the core has no kernel records of the threads (PROCSTAT_PROC): what they wait for and in which state they were isn't known")
		}
		return
	}
	var without []int
	for _, t := range d.c.threads {
		k := d.f.kinfo[t.LWP]
		if k == nil {
			without = append(without, t.LWP)
			continue
		}
		if !t.Name.Known && k.name != "" {
			t.Name = target.Known(k.name, target.SourceCoreNote)
		}
		if !t.SigBlocked.Known { // no PTLWPINFO before FreeBSD 11
			t.SigBlocked = target.Known(k.sigBlocked, target.SourceCoreNote)
			t.SigPending = target.Known(k.sigPending, target.SourceCoreNote)
		}
	}
	if len(without) > 0 {
		d.c.warn(WarnKinfo, "%d threads have no kernel record (%s): what they wait for isn't known", len(without), someInts(without))
	}
	var extra []int
	for _, tid := range d.pending {
		if d.c.byLWP[tid] == nil {
			extra = append(extra, tid)
		}
	}
	if len(extra) > 0 {
		d.c.warn(WarnKinfo, "%d kernel records are of threads that the core has no registers of (%s): they are left out", len(extra), someInts(extra))
	}
}

// someInts lists ids, the first few of many.
func someInts(ids []int) string {
	const most = 8
	var b strings.Builder
	for i, id := range ids {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(ids)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, id)
	}
	return b.String()
}

// process fills what is known of the process as a whole.
func (d *fbsdDecoder) process() {
	info := &d.c.info
	if info.Args.Known {
		info.Args.V = strings.TrimRight(info.Args.V, " ")
	}
	if k := d.anyKinfo(); k != nil {
		if !info.PID.Known && k.pid > 0 {
			info.PID = target.Known(k.pid, target.SourceCoreNote)
		}
		info.PPID = target.Known(k.ppid, target.SourceCoreNote)
		info.UID = target.Known(k.uid, target.SourceCoreNote)
		info.GID = target.Known(k.gid, target.SourceCoreNote)
		if info.PID.Known && k.pid != info.PID.V {
			d.c.warn(WarnKinfo, "the kernel's records are of process %d, PRPSINFO names %d", k.pid, info.PID.V)
		}
	}
	if d.f.text.path != "" {
		info.Exe = target.Known(d.f.text.path, target.SourceCoreNote)
	}
	info.ExeOSRel, info.PSStrings = d.f.osrel, d.f.psStrings
	// gcore writes into PRSTATUS the version that it was compiled for.
	if v, ok := d.c.auxv[fbATOSRelDate]; ok && v <= maxOSRel {
		info.OSRel = target.Known(int(v), target.SourceCoreNote)
	} else if d.f.prOSRel > 0 && info.Writer == WriterKernel {
		info.OSRel = target.Known(d.f.prOSRel, target.SourceCoreNote)
	}
}

// maxOSRel bounds __FreeBSD_version: two digits of the release and five more.
const maxOSRel = 99_99999

// setSignal takes the signal that ended the process: that of the first thread
// of a kernel core. What gcore records is its own stop.
func (d *fbsdDecoder) setSignal() {
	c := d.c
	if c.info.Writer != WriterKernel || len(c.threads) == 0 {
		return
	}
	first := c.threads[0]
	switch {
	case first.Siginfo != nil && first.Siginfo.Signo != 0:
		c.info.Signal = first.Siginfo
	case first.CurSig != 0:
		c.info.Signal = &Siginfo{Signo: first.CurSig}
	}
}

// maxSlept bounds ki_slptime in seconds: the kernel subtracts the tick at which
// the sleep began from its counter, and of a thread that hasn't slept that
// gives the counter itself (21474278 was measured).
const maxSlept = 20 * 86400

// fillFreeBSD adds what the kernel's record of a thread says to its view.
func (c *core) fillFreeBSD(k *kernelview.Thread) {
	r := c.freebsd.kinfo[k.LWP]
	if r == nil {
		return
	}
	k.WaitChannel, k.State = r.waitMessage(), r.state()
	k.SigIgnored = target.Known(r.ignored, target.SourceCoreNote)
	k.SigCaught = target.Known(r.catch, target.SourceCoreNote)
	if r.wmesg == "" {
		return // address and time are leftovers of a thread that doesn't sleep
	}
	if r.wchan != 0 {
		k.WaitAddress = target.Known(target.Addr(r.wchan), target.SourceCoreNote)
	}
	if r.slept < maxSlept {
		k.Slept = target.Known(time.Duration(r.slept)*time.Second, target.SourceCoreNote)
	}
}

// fillFreeBSDProcess adds open files, directory and masks of the process.
func (c *core) fillFreeBSDProcess(v *kernelview.Process) {
	f := c.freebsd
	for _, k := range f.kinfo {
		v.SigIgnored = target.Known(k.ignored, target.SourceCoreNote)
		v.SigCaught = target.Known(k.catch, target.SourceCoreNote)
		break
	}
	v.FilesKnown = f.filesSeen
	for _, file := range f.files {
		switch {
		case file.FD == kfFDCwd && file.Path != "":
			v.Cwd = target.Known(file.Path, target.SourceCoreNote)
		case file.FD >= 0:
			v.Files = append(v.Files, file)
		}
	}
	slices.SortStableFunc(v.Files, func(a, b kernelview.File) int { return a.FD - b.FD })
	v.Files = slices.CompactFunc(v.Files, func(a, b kernelview.File) bool { return a.FD == b.FD })
}

// OpenFiles returns the entries of a FreeBSD core's list of open files in note
// order, with the special ones: -1 the working directory, -2 the root, -5 the
// executable, -6 the terminal. ok is false when the core has no such list. The
// slice is shared: don't change it.
func (p *Process) OpenFiles() (files []kernelview.File, ok bool) {
	if p.freebsd == nil {
		return nil, false
	}
	return p.freebsd.files, p.freebsd.filesSeen
}
