package diagnose

import (
	"fmt"
	"strings"

	"mycore/internal/incident"
	"mycore/internal/target"
	"mycore/internal/untrusted"
)

// evidence lists the known facts that the rule rests on, in the rule's order.
func evidence(r *Rule, v *view) []incident.Evidence {
	var out []incident.Evidence
	for _, e := range r.Evidence {
		ev, ok := v.evidence(e.Of)
		if !ok {
			continue
		}
		ev.Fact = e.Fact
		ev.LWP = incident.Ptr(v.t.LWP)
		out = append(out, ev)
	}
	return out
}

func (v *view) evidence(of string) (incident.Evidence, bool) {
	var e incident.Evidence
	if !v.knows(of) {
		return e, false
	}
	t := v.t
	switch of {
	case "wait-channel":
		e.Value, e.Source = t.WaitChannel.V, t.WaitChannel.Source
	case "kernel-stack":
		e.Value, e.Source = chain(t.KernelStack.V, chainFrames), t.KernelStack.Source
	case "syscall":
		e.Value, e.Source, e.How = t.Syscall.V.Text, t.Syscall.Source, ""
	case "access":
		m := v.accessMode()
		e.Value, e.Source = m.V, m.Source
	case "path":
		p := v.path()
		e.Value, e.Source, e.How = p.V, p.Source, t.Syscall.V.PathHow
	case "path-kind":
		f, _ := v.pathFact()
		e.Value, e.Source = pathKindText(f), f.Source
	case "stack":
		e.Value, e.Source, e.How = v.stackChain(), target.SourceMemory, v.trustText()
	case "restart":
		res := v.result()
		e.Value, e.Source = "slept interruptibly ("+restartNames[res.V]+")", res.Source
		if res.V != -512 && res.V != -513 && res.V != -514 && res.V != -516 {
			e.Value = "return register holds " + restartNames[res.V]
		}
	case "state":
		e.Value, e.Source = t.State.V, t.State.Source
	case "session":
		e.Value, e.Source = t.Session.V.Text, t.Session.Source
	case "handle":
		e.Value, e.Source = fmt.Sprintf("%s is LWP %d", t.Handle.V, t.LWP), t.Handle.Source
	}
	return e, true
}

func pathKindText(f PathFact) string {
	switch f.Kind {
	case "missing":
		return "nothing has that name any more"
	case "fifo":
		return "a FIFO has that name now"
	}
	return "that name is now of kind " + f.Kind
}

// chainFrames is how many functions a chain in a line of evidence names.
const chainFrames = 8

func chain(names []string, limit int) string {
	cut := names
	if len(cut) > limit {
		cut = cut[:limit]
	}
	s := strings.Join(cut, " < ")
	if len(names) > limit {
		s += " < ..."
	}
	return s
}

// stackChain is what the thread really is in: from the innermost function of
// the server outwards, library frames left out.
func (v *view) stackChain() string {
	var names []string
	for i, n := range v.names {
		if _, lib := waitByFrame[n]; lib && len(names) == 0 || contains(entryFrames, n) {
			continue
		}
		if n == "" && len(names) == 0 && !v.ofServer(i) {
			continue // a library function without a name
		}
		names = append(names, frameName(&v.t.Frames[v.first+i]))
	}
	if len(names) == 0 {
		return "no function of the server"
	}
	return chain(names, chainFrames)
}

// trustText says how the frames were found.
func (v *view) trustText() string {
	worst := TrustContext
	for i := range v.names {
		switch v.t.Frames[v.first+i].Trust {
		case TrustFramePointer:
			return "frames by frame pointers"
		case TrustCFI:
			worst = TrustCFI
		}
	}
	if worst == TrustCFI {
		return "all frames by call frame information"
	}
	return ""
}

// remedy fills a remedy in for a finding; false when it is known not to apply.
func (c *Catalog) remedy(r *RemedyRule, v *view, d textData) (incident.Remedy, bool) {
	if r.Applies != nil && r.Applies.eval(v, nil) == no {
		return incident.Remedy{}, false
	}
	out := incident.Remedy{
		ID: r.ID, Channel: r.Channel, Risk: r.Risk, Action: c.texts.prose(r.Action, d),
		Effects: c.texts.prose(r.Effects, d), Undo: c.texts.prose(r.Undo, d),
		Verify: c.texts.prose(r.Verify, d), Prevent: c.texts.prose(r.Prevent, d),
	}
	out.Target = remedyTarget(r.Target, v, d)
	usable := true
	for i := range r.Preconditions {
		p := &r.Preconditions[i]
		status := incident.PreconditionUnknown
		if p.When != nil {
			switch p.When.eval(v, nil) {
			case yes:
				status = incident.PreconditionMet
			case no:
				status = incident.PreconditionUnmet
			}
		}
		if status == incident.PreconditionUnmet || status == incident.PreconditionUnknown && !p.Guarded {
			usable = false
		}
		text := c.texts.prose(p.Text, d)
		if text == "" {
			usable = false
			continue
		}
		out.Preconditions = append(out.Preconditions, incident.Precondition{
			Text: text, Status: status, Guarded: p.Guarded, Check: c.texts.prose(p.Check, d)})
	}
	if usable {
		out.Commands = c.commands(r, d)
	}
	return out, out.Action != ""
}

// commands renders all commands of a remedy or none: half a remedy is worse
// than no remedy. What isn't safe to paste isn't printed.
func (c *Catalog) commands(r *RemedyRule, d textData) []string {
	var out []string
	for _, cmd := range r.Commands {
		s, err := c.texts.render(cmd, d)
		if err != nil || untrusted.Line(s) != s {
			return nil
		}
		out = append(out, s)
	}
	return out
}

func remedyTarget(kind string, v *view, d textData) *incident.RemedyTarget {
	if kind == "" {
		return nil
	}
	var t incident.RemedyTarget
	if d.pid > 0 {
		t.PID = incident.Ptr(d.pid)
	}
	if s := v.in.Process.Started; !s.IsZero() {
		t.ProcessStart = &s
	}
	if kind == "thread" && len(d.lwps) > 0 {
		t.LWP = incident.Ptr(d.lwps[0])
	}
	return &t
}
