package elfcore

import (
	"fmt"

	"mycore/internal/target"
)

// finish draws the conclusions that need all notes: who wrote the core, and so
// whether its masks, names and signals mean anything.
func (d *linuxDecoder) finish() {
	c := d.c
	c.info.Writer, c.info.WriterReason = c.writer()
	if len(c.threads) == 0 {
		c.warn(WarnNoThreads, "the core names no thread: no stack can be shown")
	}
	d.setMasks()
	d.setSignal()
	if !c.notes.fileSeen {
		c.warn(WarnNoFileNote, "the core has no list of mapped files (NT_FILE; the kernel leaves it out above 4 MiB): libraries are looked up in memory")
	}
	// The kernel writes the name of the thread group's leader; gdb writes the
	// name of the executable.
	if leader := c.byLWP[c.info.PID.V]; leader != nil && c.info.PID.Known && c.info.Writer == WriterKernel && d.name != "" {
		leader.Name = target.Known(d.name, target.SourceCoreNote)
	}
	if c.codeMaskKnown {
		for _, t := range c.threads {
			if pc, ok := t.Regs.PC(); ok {
				t.Regs.Set(t.Regs.Arch.PCReg(), uint64((&Process{core: c}).StripCode(pc)))
			}
		}
	}
}

// writer tells the kernel's cores from gdb's by the notes.
//
// Linux fs/binfmt_elf.c, fill_note_info and write_note_info: PRSTATUS of the
// dumping thread, then PRPSINFO, SIGINFO, AUXV, FILE, then its other registers,
// then the other threads; one SIGINFO; no section headers, except one for
// PN_XNUM.
//
// gdb gdb/linux-tdep.c, linux_make_corefile_notes (7.x to 16): PRPSINFO, then
// each thread with a SIGINFO of its own, then AUXV and FILE, and since gdb 12 a
// target description of owner GDB; gdb's BFD library adds section headers.
func (c *core) writer() (who, why string) {
	o := &c.notes
	_, sections := c.file.SectionTable()
	many := "no section headers"
	if sections > 1 {
		many = fmt.Sprintf("%d section headers", sections)
	}
	switch {
	case o.tdesc:
		return WriterGDB, "it has the note of owner GDB with gdb's target description"
	case o.prstatusAt < 0:
		return WriterUnknown, "it has no PRSTATUS note"
	case o.first == ntPrpsinfo && o.siginfoAt > o.prstatusAt && (o.siginfos > 1 || len(c.threads) == 1) && sections > 1:
		return WriterGDB, "PRPSINFO precedes the threads, each thread has a SIGINFO, " + many
	case o.first == ntPrpsinfo && sections > 1:
		return WriterGDB, "PRPSINFO precedes the threads, " + many
	case o.first == ntPrstatus && o.prpsinfoAt == o.prstatusAt+1 && o.siginfos <= 1 && sections <= 1:
		return WriterKernel, "PRSTATUS comes first, PRPSINFO second, one SIGINFO for all threads, " + many
	}
	return WriterUnknown, "the order of its notes is neither the kernel's nor gdb's"
}

// setMasks publishes the signal masks where they mean something. The kernel
// always writes them. gdb doesn't fill them on Linux, and neither may others:
// zeros in every thread are then unknown, not "nothing blocked".
func (d *linuxDecoder) setMasks() {
	if d.c.info.Writer != WriterKernel && !d.c.notes.maskNonZero {
		return
	}
	for i, t := range d.c.threads {
		t.SigBlocked = target.Known(d.masks.blocked[i], target.SourceCoreNote)
		t.SigPending = target.Known(d.masks.pending[i], target.SourceCoreNote)
	}
}

// setSignal decides whether the core's signal ended the process. gdb records
// per thread what it stopped the thread with: SIGSTOP or SIGTRAP, or 0, is the
// attach itself, anything else the signal at which gdb held the process.
func (d *linuxDecoder) setSignal() {
	c := d.c
	if c.info.Writer == WriterKernel {
		if c.info.Signal == nil && len(c.threads) > 0 && c.threads[0].CurSig != 0 {
			c.info.Signal = &Siginfo{Signo: c.threads[0].CurSig}
		}
		return
	}
	s := c.info.Signal
	if s != nil && (s.Signo == 0 || s.Signo == sigstop || s.Signo == sigtrap) {
		c.info.Signal = nil
	}
}
