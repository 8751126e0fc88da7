package report

import (
	"io"
	"strconv"

	"mycore/internal/diagnose"
	"mycore/internal/incident"
	"mycore/internal/untrusted"
)

// Handles writes what OS thread handles are: LWP, name, what the thread waits
// in, its stack, and how the answer was checked.
func Handles(w io.Writer, answers []incident.HandleAnswer, o TextOptions) error {
	p := newPage(o)
	r := &renderer{}
	r.catalog, _ = diagnose.Default() // without it roles show their ids
	for i := range answers {
		if i > 0 {
			p.blank()
		}
		r.handle(p, &answers[i])
	}
	return p.writeTo(w)
}

func (r *renderer) handle(p *page, a *incident.HandleAnswer) {
	head := untrusted.Short(a.Input, p.width/2)
	if a.Handle != nil {
		head = a.Handle.String()
	}
	t := a.Thread
	if t == nil {
		p.raw(p.bold(head) + "  " + untrusted.Short(a.Status, 30))
		answerLines(p, "", a.Lines)
		return
	}
	line := "  LWP " + strconv.Itoa(t.LWP)
	if t.TargetTID != nil {
		line += " (" + strconv.Itoa(*t.TargetTID) + " in its PID namespace)"
	}
	if t.Role != "" {
		line += "  " + r.role(t.Role, 1)
	}
	if t.Name != "" {
		line += "  " + t.Name
	}
	if a.Status != "found" {
		line += "  " + a.Status
	}
	p.raw(p.bold(head) + untrusted.Short(line, max(10, p.width-untrusted.Cells(head))))
	if wait := waitText(t); wait != "" {
		p.prose("  waits in  ", "            ", wait)
	}
	var names []string
	for i := range t.Frames {
		names = append(names, frameName(&t.Frames[i]))
	}
	switch {
	case p.opts.Verbose && len(t.Frames) > 0:
		r.frames(p, "  ", t)
	case len(names) > 0:
		p.prose("  stack     ", "            ", chain(names))
	default:
		note := "not read"
		if t.StackNote != "" {
			note += ": " + t.StackNote
		}
		p.prose("  stack     ", "            ", note)
	}
	answerLines(p, "  checked   ", a.Lines)
}

// answerLines writes the explanation, under its word when there is one.
func answerLines(p *page, word string, lines []string) {
	under := "            "
	if word == "" {
		word, under = "  ", "  "
	}
	for _, l := range lines {
		p.prose(word, under, l)
		word = under
	}
}

func waitText(t *incident.Thread) string {
	s := ""
	if t.Syscall != nil {
		s = t.Syscall.Text
	}
	if t.WaitChannel != nil {
		if s != "" {
			s += "   "
		}
		s += t.WaitChannel.Value
	}
	return s
}
