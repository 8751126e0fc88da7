package report

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"mycore/internal/incident"
	"mycore/internal/untrusted"
)

// tally sorts threads into stuck (a finding names them), idle and others.
func (r *renderer) tally() (stuck, idle, other int) {
	for i := range r.inc.Threads {
		switch t := &r.inc.Threads[i]; {
		case len(t.Labels) > 0:
			stuck++
		case t.Idle != nil && *t.Idle:
			idle++
		default:
			other++
		}
	}
	return stuck, idle, other
}

// threadCounts is the line about threads on the first screen.
func (r *renderer) threadCounts(p *page) {
	stuck, idle, other := r.tally()
	var parts []string
	if stuck > 0 {
		parts = append(parts, strconv.Itoa(stuck)+" stuck")
	}
	if other > 0 {
		parts = append(parts, strconv.Itoa(other)+" not idle or not known")
	}
	parts = append(parts, strconv.Itoa(idle)+" idle")
	p.prose("threads       ", indent, strings.Join(parts, ", ")+" (by stack below)")
}

// threads lists equal stacks: those that a finding names, then the others,
// then the idle ones as counts by role.
func (r *renderer) threads(p *page) {
	stuck, idle, other := r.tally()
	hint := ""
	if idle > 0 && !p.opts.All {
		hint = " (--all lists them)"
	}
	p.heading("THREADS", "   ", "          ", fmt.Sprintf("%d stuck, %d not idle or not known, %d idle%s", stuck, other, idle, hint), p.bold)
	var rest []*incident.Group
	for i := range r.inc.Groups {
		g := &r.inc.Groups[i]
		if r.labelled(g) {
			r.group(p, g)
		} else {
			rest = append(rest, g)
		}
	}
	for _, g := range rest {
		if p.opts.All || !isIdle(g) {
			r.group(p, g)
		}
	}
	r.idleRoles(p)
}

func isIdle(g *incident.Group) bool { return g.Idle != nil && *g.Idle }

func (r *renderer) labelled(g *incident.Group) bool {
	return slices.ContainsFunc(g.LWPs, func(l int) bool { t := r.byLWP[l]; return t != nil && len(t.Labels) > 0 })
}

// chainNames is how many functions the one-line stack of a group shows.
const chainNames = 8

// group shows a set of equal stacks: how many, who, in what, and where.
func (r *renderer) group(p *page, g *incident.Group) {
	var t *incident.Thread
	if len(g.LWPs) > 0 {
		t = r.byLWP[g.LWPs[0]]
	}
	const under = "        "
	head := []string{lwpList(g.LWPs)}
	if len(g.Roles) == 0 {
		head = append(head, r.role("", g.Count))
	}
	for _, role := range g.Roles {
		head = append(head, r.role(role, g.Count))
	}
	if isIdle(g) {
		head = append(head, "idle")
	}
	if t != nil {
		head = append(head, t.Labels...)
	}
	p.prose(fmt.Sprintf("%6d  ", g.Count), under, strings.Join(head, " · "))
	if t != nil {
		r.wait(p, under, t)
	}
	if len(g.Frames) > 0 && !p.opts.Verbose {
		p.prose(under, under+"  ", chain(g.Frames))
	}
	if t != nil && p.opts.Verbose {
		r.frames(p, under, t)
	}
	if t != nil && t.StackNote != "" {
		p.prose(under, under, "stack: "+untrusted.Short(t.StackNote, noteLines*p.width))
	}
}

// wait is what the first member is blocked on. Members of a group have equal
// stacks; their arguments may differ.
func (r *renderer) wait(p *page, under string, t *incident.Thread) {
	var parts []string
	if t.Syscall != nil {
		parts = append(parts, untrusted.Short(t.Syscall.Text, callLines*p.width))
	}
	if t.WaitChannel != nil {
		parts = append(parts, "· "+t.WaitChannel.Value)
	}
	if t.State != "" {
		parts = append(parts, "· state "+t.State)
	}
	if len(parts) > 0 {
		p.prose(under, under+"  ", strings.TrimPrefix(strings.Join(parts, " "), "· "))
	}
}

// callLines bounds a system call with very long strings, noteLines a remark
// with a very long path; the JSON has all of both.
const (
	callLines = 4
	noteLines = 3
)

func chain(names []string) string {
	if len(names) > chainNames {
		return strings.Join(names[:chainNames], " < ") + " < ..."
	}
	return strings.Join(names, " < ")
}

// frames lists a whole stack with trust marks and recovered arguments.
func (r *renderer) frames(p *page, under string, t *incident.Thread) {
	for i := range t.Frames {
		f := &t.Frames[i]
		s := fmt.Sprintf("%s#%-3d %s  %s", under, i, column(f.PC.String(), 14), column(f.Trust, 7))
		text := frameText(f, f.Function)
		if untrusted.Cells(s)+1+untrusted.Cells(untrusted.Line(text)) > p.width { // the offset matters more than the parameters
			text = frameText(f, shortName(f.Function))
		}
		p.line(s + " " + text)
		for _, a := range f.Arguments {
			p.prose(under+"       ", under+"       ", fmt.Sprintf("argument %d = %s %s (%s)", a.Index+1, a.Value, a.Text, a.How))
		}
	}
	if len(t.KernelStack) > 0 {
		p.prose(under+"kernel: ", under, strings.Join(t.KernelStack, " < "))
	}
}

// frameText is a frame of a whole stack, its function under the name given.
func frameText(f *incident.Frame, name string) string {
	switch {
	case f.Function != "" && f.Offset != nil:
		return name + "+" + f.Offset.String() + "  " + path.Base(f.Module)
	case f.Signal:
		return "<signal handler called>"
	case f.Start != nil && f.Offset != nil && *f.Offset >= *f.Start:
		return frameName(f) + "+" + (*f.Offset - *f.Start).String()
	}
	return frameName(f)
}

// frameName is the name of a frame in a one-line stack.
func frameName(f *incident.Frame) string {
	switch {
	case f.Function != "":
		return shortName(f.Function)
	case f.Signal:
		return "<signal handler called>"
	case f.Module != "" && f.Start != nil:
		return path.Base(f.Module) + "+" + f.Start.String()
	case f.Module != "" && f.Offset != nil:
		return path.Base(f.Module) + "+" + f.Offset.String()
	}
	return f.PC.String()
}

// idleRoles folds the idle threads: one line of roles with counts, most first.
func (r *renderer) idleRoles(p *page) {
	counts := map[string]int{}
	total := 0
	for i := range r.inc.Threads {
		if t := &r.inc.Threads[i]; t.Idle != nil && *t.Idle && len(t.Labels) == 0 {
			counts[t.Role]++
			total++
		}
	}
	if total == 0 {
		return
	}
	ids := make([]string, 0, len(counts))
	for id := range counts {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	parts := make([]string, 0, len(ids))
	for _, id := range ids {
		parts = append(parts, r.role(id, counts[id])+" "+strconv.Itoa(counts[id]))
	}
	p.prose(fmt.Sprintf("%6d  idle: ", total), "        ", strings.Join(parts, ", "))
}

// modules lists binaries that aren't there as they should be.
func (r *renderer) modules(p *page) {
	p.blank()
	p.heading("BINARIES", "", "", "", p.bold)
	for i := range r.inc.Modules {
		m := &r.inc.Modules[i]
		line := "  " + column(untrusted.Line(m.Status), 10) + " " + untrusted.Line(m.Path)
		if m.FoundAt != "" && m.FoundAt != m.Path {
			line += "  found at " + untrusted.Line(m.FoundAt)
		}
		p.line(line)
		if m.BuildID != "" {
			p.line("             build ID " + m.BuildID)
		}
		if m.FileID != "" {
			p.line("             there    " + m.FileID)
		}
		if m.Status != "missing" && m.Status != "mismatch" {
			continue // what was tried before the right file was found explains nothing
		}
		for _, l := range m.LookedIn {
			p.prose("             looked in ", "             ", l)
		}
	}
}
