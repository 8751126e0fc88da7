package analyze

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"slices"

	"mycore/elfcore"
	"mycore/internal/diagnose"
	"mycore/internal/incident"
	"mycore/internal/modules"
	"mycore/internal/target"
	"mycore/libthr"
)

// incident assembles the result.
func (img *image) incident(in *diagnose.Input, out *diagnose.Result) *incident.Incident {
	inc := &incident.Incident{
		Schema: incident.SchemaName, SchemaVersion: incident.SchemaVersion, Tool: img.opts.Tool,
		IncidentID: img.id(), Input: img.input(), System: img.system(),
		Verdict: out.Verdict, Findings: out.Findings, Groups: out.Groups,
		Modules: img.moduleList(), Files: img.fileList(),
	}
	if st, err := os.Stat(img.opts.Core); err == nil {
		inc.CapturedAt = &incident.CapturedAt{Value: st.ModTime().UTC(), Clock: "modification time of the core file"}
	}
	results := map[int]*diagnose.ThreadResult{}
	for i := range out.Threads {
		results[out.Threads[i].LWP] = &out.Threads[i]
	}
	inc.Threads = make([]incident.Thread, len(img.threads))
	for i, t := range img.threads {
		inc.Threads[i] = img.threadOf(t, &in.Threads[i], results[t.note.LWP])
	}
	if v := in.Server; v.Version.Known {
		inc.Server = &incident.Server{Family: v.Family.V, Version: v.Version.V, Source: v.Version.Source}
		if m := img.mods.Main(); m != nil {
			inc.Server.BuildID = hex.EncodeToString(m.WantBuildID)
		}
	}
	for _, w := range img.warnings {
		inc.Warnings = append(inc.Warnings, incident.Warning{Code: w.Code, Text: w.Text})
	}
	return inc
}

// id is the same for the same process image, wherever its file lies and
// however it is compressed: it hashes what the notes say about process and
// threads.
func (img *image) id() string {
	h := sha256.New()
	info := img.core.Info()
	word := func(v uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		h.Write(b[:])
	}
	h.Write([]byte(info.OS + "\x00" + info.Arch.String() + "\x00"))
	word(uint64(info.PID.V))
	for _, t := range img.threads {
		word(uint64(t.note.LWP))
		pc, _ := t.note.Regs.PC()
		sp, _ := t.note.Regs.SP()
		word(uint64(pc))
		word(uint64(sp))
	}
	if m := img.mods.Main(); m != nil {
		h.Write(m.WantBuildID)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func (img *image) input() incident.Input {
	size := img.core.Size()
	in := incident.Input{Kind: "core", Path: img.opts.Core, Size: &size}
	if st, err := os.Stat(img.opts.Core); err == nil {
		*in.Size = st.Size()
	}
	switch img.core.Info().Writer {
	case elfcore.WriterKernel:
		in.Writer = "kernel"
	case elfcore.WriterGDB, elfcore.WriterGcore:
		in.Writer = "gcore"
	default:
		in.Writer = "unknown"
	}
	if missing, total := img.core.Truncated(); missing > 0 && total > 0 {
		p := 100 * float64(missing) / float64(total)
		in.TruncatedPercent = &p
	}
	for _, f := range []incident.InputFile{
		{Kind: "proc", Path: img.opts.Proc}, {Kind: "procstat", Path: img.opts.Procstat}, {Kind: "ps", Path: img.opts.PS},
		{Kind: "innodb-status", Path: img.opts.InnoDBStatus}, {Kind: "processlist", Path: img.opts.Processlist},
		{Kind: "error-log", Path: img.opts.ErrorLog}, {Kind: "kernel-log", Path: img.opts.KernelLog},
	} {
		if f.Path != "" {
			in.Others = append(in.Others, f)
		}
	}
	return in
}

func (img *image) system() incident.System {
	info := img.core.Info()
	s := incident.System{OS: info.OS, Arch: info.Arch.String(), Sources: map[string]target.Source{
		"os": target.SourceCoreNote, "arch": target.SourceCoreNote,
	}}
	if info.PID.Known {
		s.PID = &info.PID.V
		s.Sources["pid"] = info.PID.Source
	}
	if info.Command.Known {
		s.Command = info.Command.V
		s.Sources["command"] = info.Command.Source
	}
	if img.lib != nil && img.lib.Kind != libthr.KindUnknown {
		s.Libc = string(img.lib.Kind)
		s.Sources["libc"] = target.SourceSymbol
		if img.lib.Kind == libthr.KindMusl {
			s.Sources["libc"] = target.SourceSearch
		}
	}
	if sig := info.Signal; sig != nil {
		s.Signal = &incident.Signal{Number: sig.Signo, Name: diagnose.SignalName(sig.Signo), Code: &sig.Code}
		if ts := img.core.Threads(); len(ts) > 0 && info.Writer == elfcore.WriterKernel {
			s.Signal.LWP = &ts[0].LWP
		}
		s.Sources["signal"] = target.SourceCoreNote
	}
	return s
}

// threadOf puts one thread into the contract's form. f holds the same facts
// that the rules saw.
func (img *image) threadOf(t *thread, f *diagnose.Thread, r *diagnose.ThreadResult) incident.Thread {
	out := incident.Thread{LWP: t.note.LWP, Sources: map[string]target.Source{"lwp": target.SourceCoreNote}}
	if t.lib.Handle.Known && t.lib.Confirmed {
		h := incident.Addr(t.lib.Handle.V)
		out.Handle = &h
		out.Sources["handle"] = t.lib.Handle.Source
	}
	if t.lib.TargetTID.Known && t.lib.TargetTID.V != t.note.LWP {
		out.TargetTID = &t.lib.TargetTID.V
		out.Sources["targetTid"] = target.SourceMemory
	}
	if f.Name.Known {
		out.Name, out.Sources["name"] = f.Name.V, f.Name.Source
	}
	if f.State.Known {
		out.State, out.Sources["state"] = f.State.V, f.State.Source
	}
	if f.WaitChannel.Known {
		out.WaitChannel = &incident.Sourced{Value: f.WaitChannel.V, Source: f.WaitChannel.Source}
	}
	if f.KernelStack.Known {
		out.KernelStack, out.Sources["kernelStack"] = f.KernelStack.V, f.KernelStack.Source
	}
	if f.StartRoutine.Known {
		out.StartRoutine, out.Sources["startRoutine"] = f.StartRoutine.V, f.StartRoutine.Source
	}
	if f.SigBlocked.Known || f.SigPending.Known {
		out.Signals = &incident.ThreadSignals{Source: f.SigBlocked.Source}
		if f.SigBlocked.Known {
			m := incident.Mask(f.SigBlocked.V)
			out.Signals.Blocked = &m
		}
		if f.SigPending.Known {
			m := incident.Mask(f.SigPending.V)
			out.Signals.Pending = &m
			if !f.SigBlocked.Known {
				out.Signals.Source = f.SigPending.Source
			}
		}
	}
	if c := t.call; c != nil {
		out.Syscall = &incident.Syscall{Name: c.Name, Text: c.Text, Source: c.source, How: c.how}
		for _, a := range c.Args {
			out.Syscall.Args = append(out.Syscall.Args, a.Text)
		}
	}
	out.Frames = img.frameList(t, f)
	out.StackNote = f.StackNote
	if r != nil {
		out.Role, out.Idle, out.Group, out.Labels = r.Role, r.Idle, r.Group, r.Labels
	}
	return out
}

func (img *image) frameList(t *thread, f *diagnose.Thread) []incident.Frame {
	out := make([]incident.Frame, len(f.Frames))
	for k := range f.Frames {
		d := &f.Frames[k]
		out[k] = incident.Frame{
			PC: incident.Addr(d.PC), Function: d.Function, Module: d.Module, Trust: string(d.Trust), Signal: d.Signal,
		}
		if d.Module != "" {
			out[k].Offset = incident.Ptr(incident.Addr(d.Offset))
		}
		if d.Start != 0 {
			out[k].Start = incident.Ptr(incident.Addr(d.Start))
		}
		for _, a := range t.args[k] {
			out[k].Arguments = append(out[k].Arguments, incident.Argument{
				Index: a.index, Value: incident.Addr(a.value), Text: a.text, How: a.how,
			})
		}
	}
	return out
}

func (img *image) moduleList() []incident.Module {
	var out []incident.Module
	for _, m := range img.mods.All() {
		base := incident.Addr(m.Image.Base)
		im := incident.Module{
			Path: m.Image.Path, Base: &base, Status: string(m.Status), FoundAt: m.Path,
			Source: target.SourceCoreNote, LookedIn: m.Looked,
		}
		if m.Image.Source != elfcore.FromFileNote && m.Image.Source != elfcore.FromAuxv {
			im.Source = target.SourceMemory
		}
		id := m.WantBuildID
		if len(id) == 0 && m.Status == modules.Found {
			id = m.BuildID
		}
		im.BuildID = hex.EncodeToString(id)
		if m.Status == modules.Mismatch {
			im.FileID = hex.EncodeToString(m.BuildID)
			im.FoundAt = ""
		}
		out = append(out, im)
	}
	return out
}

// fileList is nil when no source told the open files.
func (img *image) fileList() []incident.File {
	if !img.kernel.FilesKnown {
		return nil
	}
	out := make([]incident.File, 0, len(img.kernel.Files))
	for _, f := range img.kernel.Files {
		out = append(out, incident.File{FD: f.FD, Path: f.Path, Kind: string(f.Kind), Peer: f.Peer, Source: f.Source})
	}
	return out
}

// Handle answers for one OS thread handle.
func (r *Result) Handle(text string) incident.HandleAnswer {
	out := incident.HandleAnswer{Input: text}
	img := r.img
	if img.lib == nil {
		out.Status = "unsupported"
		out.Lines = []string{"OS thread handles of this machine's thread library aren't known."}
		return out
	}
	a := img.lib.Resolve(text)
	out.Status, out.Lines = string(a.Status), a.Lines
	if a.Base != 0 {
		v := incident.Addr(a.Value)
		out.Handle = &v
	}
	if a.Thread == nil {
		return out
	}
	i := slices.IndexFunc(r.Incident.Threads, func(t incident.Thread) bool { return t.LWP == a.Thread.LWP })
	if i >= 0 {
		out.Thread = &r.Incident.Threads[i]
	}
	return out
}
