package report

import (
	"fmt"

	"mycore/internal/incident"
	"mycore/internal/untrusted"
)

// titleLines bounds a sentence with a path of thousands of characters; the
// whole path is among the evidence.
const titleLines = 6

// finding is the full text of one: who, how we know, what to do.
func (r *renderer) finding(p *page, i int) {
	f := &r.inc.Findings[i]
	p.titled(fmt.Sprintf("FINDING %d  %s", i+1, f.Label), f.Severity+", "+f.Confidence, true)
	p.prose("   ", "   ", untrusted.Short(f.Title, titleLines*p.width))
	r.who(p, f)
	if f.Victims != nil && f.Victims.Count > 0 {
		p.line("   behind it: " + count(f.Victims.Count, "thread", "threads") + ": " + lwpList(f.Victims.LWPs))
	}
	if f.Kill != nil {
		p.prose("   ", "   ", "KILL frees it: "+yesNo(f.Kill.Works)+" ("+f.Kill.Source+"): "+f.Kill.Why)
	}
	p.line("   signature " + f.Signature)
	r.evidence(p, f)
	if len(f.Missing) > 0 {
		p.blank()
		p.raw("   not known")
		for _, m := range f.Missing {
			p.prose("     - ", "       ", m)
		}
	}
	r.steps(p, f)
}

// evidence is a table of fact, value and source. A value that is wider than
// its column goes on below.
func (r *renderer) evidence(p *page, f *incident.Finding) {
	if len(f.Evidence) == 0 {
		return
	}
	p.blank()
	p.raw("   how we know")
	const factCells, sourceCells = 14, 20
	valueCells := p.width - 5 - factCells - 1 - sourceCells - 1
	for _, e := range f.Evidence {
		where := sourceText(e.Source)
		lines := wrap(untrusted.Line(e.Value), valueCells, valueCells)
		for i, l := range lines {
			if i == 0 {
				p.raw("     " + column(untrusted.Line(e.Fact), factCells) + " " + column(l, valueCells) + " " + column(where, sourceCells))
			} else {
				p.raw("     " + column("", factCells) + " " + l)
			}
		}
		if e.How != "" {
			p.prose("     "+column("", factCells)+" ", "     "+column("", factCells)+" ", e.How)
		}
	}
}

func (r *renderer) steps(p *page, f *incident.Finding) {
	if len(f.Remedies) == 0 {
		return
	}
	p.blank()
	p.prose("   ", "   ", "what to do, lowest risk first (mycore runs none of it)")
	for i := range f.Remedies {
		r.step(p, i+1, &f.Remedies[i])
	}
}

const stepIndent = "        "

func (r *renderer) step(p *page, n int, s *incident.Remedy) {
	p.prose(fmt.Sprintf("     %d. ", n), stepIndent, s.Action+" Risk: "+s.Risk+".")
	for _, c := range s.Commands {
		p.command(stepIndent, c)
	}
	if len(s.Commands) == 0 {
		p.prose(stepIndent, stepIndent, withheld(s))
	}
	for _, c := range s.Preconditions {
		r.precondition(p, s, c)
	}
	if s.Effects != "" {
		p.prose(stepIndent+"effect: ", stepIndent, s.Effects)
	}
	if p.opts.Verbose {
		for _, x := range [][2]string{{"undo", s.Undo}, {"verify", s.Verify}, {"prevent", s.Prevent}} {
			if x[1] != "" {
				p.prose(stepIndent+x[0]+": ", stepIndent, x[1])
			}
		}
	}
}

// withheld says why a step has no command.
func withheld(s *incident.Remedy) string {
	unmet, unknown := 0, 0
	for _, c := range s.Preconditions {
		switch {
		case c.Status == incident.PreconditionUnmet:
			unmet++
		case c.Status == incident.PreconditionUnknown && !c.Guarded:
			unknown++
		}
	}
	switch {
	case unmet > 0:
		return "no command: a condition doesn't hold"
	case unknown > 0:
		return "no command: " + count(unknown, "condition isn't", "conditions aren't") + " known from this input"
	}
	return "no command for this step"
}

// precondition shows what decides: unmet ones always, unknown ones when the
// command doesn't check them itself, all when asked.
func (r *renderer) precondition(p *page, s *incident.Remedy, c incident.Precondition) {
	if c.Status == incident.PreconditionMet && !p.opts.Verbose {
		return
	}
	if c.Status == incident.PreconditionUnknown && c.Guarded && !p.opts.Verbose {
		return
	}
	text := "if: " + c.Text + " (" + c.Status
	if c.Guarded && len(s.Commands) > 0 {
		text += ", the command checks it"
	}
	text += ")"
	p.prose(stepIndent, stepIndent+"    ", text)
	if c.Check != "" && c.Status == incident.PreconditionUnknown {
		p.prose(stepIndent+"    check: ", stepIndent+"    ", c.Check)
	}
}
