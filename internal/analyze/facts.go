package analyze

import (
	"strings"

	"mycore/elfcore"
	"mycore/internal/diagnose"
	"mycore/internal/target"
	"mycore/internal/unwind"
)

// facts turns what was read into what the rules may look at.
func (img *image) facts() *diagnose.Input {
	info := img.core.Info()
	in := &diagnose.Input{
		OS: info.OS, Arch: info.Arch.String(),
		Process: diagnose.Process{
			SigCaught: img.kernel.SigCaught, SigIgnored: img.kernel.SigIgnored,
			SharedPending: img.kernel.SharedPending, Cwd: img.kernel.Cwd,
		},
		Server: img.server(),
		Paths:  img.lookAtPaths(),
	}
	if info.PID.Known {
		in.Process.PID = info.PID.V
	}
	if info.Writer == elfcore.WriterKernel {
		// The kernel writes a core as the last thing a process does.
		in.Process.Alive = target.Known(false, target.SourceCoreNote)
	}
	if s := info.Signal; s != nil {
		sig := diagnose.Signal{Number: s.Signo, Code: s.Code}
		if ts := img.core.Threads(); len(ts) > 0 && info.Writer == elfcore.WriterKernel {
			sig.LWP = ts[0].LWP // kernel cores start with the thread that took it
		}
		in.Process.Signal = target.Known(sig, target.SourceCoreNote)
	}
	if m := img.mods.Main(); m != nil {
		in.Process.ServerModule = m.Name()
	}
	img.placeSightings()
	in.Threads = make([]diagnose.Thread, len(img.threads))
	for i, t := range img.threads {
		in.Threads[i] = img.threadFacts(t)
	}
	return in
}

// threadFacts collects one thread.
func (img *image) threadFacts(t *thread) diagnose.Thread {
	k := t.kernel
	d := diagnose.Thread{
		LWP: t.note.LWP, Handle: confirmedHandle(t), Session: t.session, Name: k.Name,
		SigBlocked: k.SigBlocked, SigPending: k.SigPending,
		Complete: t.stack.Stop == unwind.StopOutermost,
	}
	if !img.movedOn(t) {
		d.State, d.WaitChannel, d.KernelStack = k.State, k.WaitChannel, k.KernelStack
	}
	if !d.Complete {
		d.StackNote = stackNote(&t.stack)
		d.StackCut = t.stack.Stop == unwind.StopMemory || t.stack.Stop == unwind.StopStackLost
	}
	if t.lib.StartRoutine.Known {
		if name := img.functionAt(t.lib.StartRoutine.V); name != "" {
			d.StartRoutine = target.Known(img.names.of(name).norm, t.lib.StartRoutine.Source)
		}
	}
	if c := t.call; c != nil {
		d.Syscall = target.Known(diagnose.Syscall{
			Name: c.Name, Text: c.Text, Args: c.regs, Result: c.result,
			Path: c.path, PathHow: c.pathHow, OpenFlags: c.flags, Dir: c.dir,
		}, c.source)
	}
	d.Frames = make([]diagnose.Frame, len(t.stack.Frames))
	for i := range t.stack.Frames {
		f := &t.stack.Frames[i]
		name := img.names.of(f.Function)
		d.Frames[i] = diagnose.Frame{
			PC: f.PC, Function: name.shown, Norm: name.norm,
			Offset: f.Offset, Trust: diagnose.Trust(f.Trust), Signal: f.SignalFrame,
		}
		if f.Module != nil {
			d.Frames[i].Module = f.Module.Name()
			if f.Function == "" {
				d.Frames[i].Offset = uint64(f.PC - f.Module.Image.Base)
				if start, ok := f.Entry(); ok && start > f.Module.Image.Base {
					d.Frames[i].Start = uint64(start - f.Module.Image.Base)
				}
			}
		}
	}
	return d
}

func stackNote(s *unwind.Stack) string {
	if s.Err == nil {
		return string(s.Stop)
	}
	text := s.Err.Error()
	if strings.Contains(text, string(s.Stop)) { // it has said so itself
		return text
	}
	return string(s.Stop) + ": " + text
}

// functionAt names the function that starts at an address, "" without name.
func (img *image) functionAt(a target.Addr) string {
	m := img.mods.At(a)
	if m == nil || !m.HasBias {
		return ""
	}
	if sym, ok := m.Symbols().Starting(m.LinkTime(a)); ok {
		return sym.Name
	}
	return ""
}

// confirmedHandle leaves out a handle that nothing proves.
func confirmedHandle(t *thread) target.Value[target.Addr] {
	if !t.lib.Confirmed {
		return target.Value[target.Addr]{}
	}
	return t.lib.Handle
}
