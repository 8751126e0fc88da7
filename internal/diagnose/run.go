package diagnose

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"mycore/internal/incident"
	"mycore/internal/target"
)

// Result is what the facts say.
type Result struct {
	Findings []incident.Finding // most important first, never nil
	Threads  []ThreadResult     // one per thread of the input, by LWP
	Groups   []incident.Group   // equal stacks, largest first
	Verdict  incident.Verdict
}

// ThreadResult is what is concluded about one thread.
type ThreadResult struct {
	LWP    int
	Role   string // role id, "" when unknown
	Idle   *bool  // nil when it can't be judged
	Group  string // group id
	Labels []string
}

// Run applies the shipped rules. The error is one of the shipped files, which
// the tests exclude.
func Run(in *Input) (*Result, error) {
	c, err := Default()
	if err != nil {
		return nil, fmt.Errorf("the shipped rules: %w", err)
	}
	return c.Run(in), nil
}

// Run applies the catalog's rules to the facts. It doesn't change in, and is
// safe for concurrent use.
func (c *Catalog) Run(in *Input) *Result {
	views := make([]*view, len(in.Threads))
	for i := range in.Threads {
		views[i] = newView(in, &in.Threads[i])
	}
	slices.SortStableFunc(views, func(a, b *view) int { return cmp.Compare(a.t.LWP, b.t.LWP) })

	res := &Result{Findings: []incident.Finding{}, Threads: make([]ThreadResult, len(views))}
	for i, v := range views {
		tr := &res.Threads[i]
		tr.LWP = v.t.LWP
		if role := c.roleOf(v); role != nil {
			tr.Role = role.ID
		}
		tr.Idle = idle(v)
	}
	hits, near := c.match(in, views, res.Threads)
	c.findings(in, hits, res)
	for gi, g := range groups(views) {
		res.Groups = append(res.Groups, buildGroup(gi, g, views, res.Threads))
	}
	c.verdict(in, views, near, res)
	return res
}

// hit is one rule that fired for one thread.
type hit struct {
	rule  *Rule
	level *Level
	conf  string
	v     *view
	i     int // index of the thread
}

// match tries every rule on every thread that isn't idle: threads waiting for
// work are never labelled. near holds what to collect about threads that a
// rule is about but couldn't decide.
func (c *Catalog) match(in *Input, views []*view, threads []ThreadResult) (hits []hit, near []string) {
	for i, v := range views {
		if threads[i].Idle != nil && *threads[i].Idle {
			continue
		}
		for _, r := range c.Rules {
			if !contains(r.AppliesTo, in.OS) {
				continue
			}
			var base trace
			if r.When.eval(v, &base) != yes || r.excluded(v) {
				continue
			}
			if h, ok := r.strongest(v, base); ok {
				h.i = i
				hits = append(hits, h)
				continue
			}
			for _, text := range c.missing(r, v) {
				near = append(near, fmt.Sprintf("LWP %d, %s: %s", v.t.LWP, r.ID, text))
			}
		}
	}
	return hits, near
}

func (r *Rule) excluded(v *view) bool {
	for i := range r.Excludes {
		if r.Excludes[i].When.eval(v, nil) == yes {
			return true
		}
	}
	return false
}

// strongest returns the highest level whose condition holds. Certain needs
// facts of two independent kinds of source; with one kind it is likely.
func (r *Rule) strongest(v *view, base trace) (hit, bool) {
	for i := range r.Confidence {
		l := &r.Confidence[i]
		used := slices.Clone(base)
		if l.When.eval(v, &used) != yes || l.Unless != nil && l.Unless.eval(v, nil) == yes {
			continue
		}
		conf := l.Level
		if conf == incident.ConfidenceCertain && kinds(used) < 2 {
			conf = incident.ConfidenceLikely
			if next := r.level(conf); next != nil {
				l = next
			}
		}
		return hit{rule: r, level: l, conf: conf, v: v}, true
	}
	return hit{}, false
}

func (r *Rule) level(name string) *Level {
	for i := range r.Confidence {
		if r.Confidence[i].Level == name {
			return &r.Confidence[i]
		}
	}
	return nil
}

// kinds counts independent kinds of source: two readings of one kind are one.
func kinds(sources []target.Source) int {
	seen := map[string]bool{}
	for _, s := range sources {
		seen[s.Kind()] = true
	}
	return len(seen)
}

// data is what texts about these threads may use.
func data(in *Input, lwps []int, v *view) textData {
	d := textData{pid: in.Process.PID, lwps: lwps, arch: in.Arch, os: in.OS}
	if p := v.path(); p.Known {
		d.path, d.hasPath = p.V, true
	}
	if v.t.Session.Known && len(lwps) == 1 {
		d.connection = v.t.Session.V.Connection
	}
	if v.t.Syscall.Known {
		d.call = v.t.Syscall.V.Text
	}
	return d
}

func (c *Catalog) missing(r *Rule, v *view) []string {
	var out []string
	d := data(v.in, []int{v.t.LWP}, v)
	for i := range r.Missing {
		if r.Missing[i].When.eval(v, nil) != yes {
			continue
		}
		if s := c.texts.prose(r.Missing[i].Text, d); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// findings joins hits on the same resource with the same confidence into one
// finding and fills it from the rule.
func (c *Catalog) findings(in *Input, hits []hit, res *Result) {
	type key struct{ label, conf, path string }
	index := map[key]int{}
	var sets [][]hit
	for _, h := range hits {
		k := key{h.rule.ID, h.conf, "\x00" + strconv.Itoa(h.v.t.LWP)}
		if p := h.v.path(); p.Known {
			k.path = p.V
		}
		n, ok := index[k]
		if !ok {
			n = len(sets)
			index[k] = n
			sets = append(sets, nil)
		}
		sets[n] = append(sets[n], h)
		res.Threads[h.i].Labels = append(res.Threads[h.i].Labels, h.rule.ID)
	}
	slices.SortStableFunc(sets, func(a, b []hit) int {
		x, y := a[0], b[0]
		return cmp.Or(
			boolOrder(y.rule.Root, x.rule.Root),
			cmp.Compare(slices.Index(severities, x.rule.Severity), slices.Index(severities, y.rule.Severity)),
			cmp.Compare(slices.Index(confidences, x.conf), slices.Index(confidences, y.conf)),
			cmp.Compare(x.v.t.LWP, y.v.t.LWP))
	})
	for i, s := range sets {
		f := c.finding(in, s)
		f.ID = "f" + strconv.Itoa(i+1)
		res.Findings = append(res.Findings, f)
	}
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (c *Catalog) finding(in *Input, s []hit) incident.Finding {
	h := s[0]
	r := h.rule
	lwps := make([]int, 0, len(s))
	for _, x := range s {
		lwps = append(lwps, x.v.t.LWP)
	}
	lwps = sortedCopy(lwps)
	d := data(in, lwps, h.v)
	var connections []uint64
	for _, x := range s {
		if x.v.t.Session.Known {
			connections = append(connections, x.v.t.Session.V.Connection)
		}
	}
	slices.Sort(connections)
	f := incident.Finding{
		Label: r.ID, Severity: r.Severity, Confidence: h.conf, Root: r.Root, LWPs: lwps, Connections: slices.Compact(connections),
		Title: c.texts.prose(h.level.Sentence, d), Evidence: evidence(r, h.v),
		Missing: c.missing(r, h.v), Signature: signature(r, h.v),
	}
	if f.Title == "" {
		f.Title = r.Title
	}
	if r.Resource != nil {
		f.Resource = &incident.Resource{Kind: r.Resource.Kind, Path: c.texts.prose(r.Resource.Path, d)}
	}
	if r.Kill != nil {
		f.Kill = &incident.Kill{Works: r.Kill.Works, Why: r.Kill.Why, Source: r.Kill.Source}
	}
	if f.Kill != nil && f.Kill.Source == "measured" && in.OS != "linux" {
		f.Kill.Source = "measured on Linux"
	}
	for _, id := range r.Remedies {
		if rem, ok := c.remedy(c.Remedies[id], h.v, d); ok {
			f.Remedies = append(f.Remedies, rem)
		}
	}
	return f
}

// signature is the same for the same stall in another build of the server: it
// takes the label, the role, and those functions of the rule that are on the
// stack, never an address.
func signature(r *Rule, v *view) string {
	parts := []string{r.ID}
	if v.role != nil {
		parts = append(parts, v.role.ID)
	}
	for _, n := range v.names {
		if contains(r.Signature, n) && parts[len(parts)-1] != n {
			parts = append(parts, n)
		}
	}
	return shortHash(parts)
}

// shortHash is 8 hex digits: enough to tell the kinds of stall of one site
// apart, short enough to be read aloud.
func shortHash(parts []string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:4])
}

// buildGroup describes a set of equal stacks.
func buildGroup(n int, g group, views []*view, threads []ThreadResult) incident.Group {
	out := incident.Group{ID: "g" + strconv.Itoa(n+1), Count: len(g.members), LWPs: make([]int, 0, len(g.members))}
	allIdle, judged := true, true
	for _, i := range g.members {
		t := &threads[i]
		t.Group = out.ID
		out.LWPs = append(out.LWPs, t.LWP)
		if t.Role != "" && !contains(out.Roles, t.Role) {
			out.Roles = append(out.Roles, t.Role)
		}
		if t.Idle == nil {
			judged = false
		} else if !*t.Idle {
			allIdle = false
		}
	}
	slices.Sort(out.Roles)
	if judged || !allIdle {
		out.Idle = incident.Ptr(allIdle)
	}
	for i := range views[g.members[0]].t.Frames {
		out.Frames = append(out.Frames, frameName(&views[g.members[0]].t.Frames[i]))
	}
	return out
}

// frameName is a frame's normalised name, or module+offset of the function's
// start, or, where that isn't known, of the program counter.
func frameName(f *Frame) string {
	switch {
	case f.Signal && f.Norm == "":
		return "<signal handler called>"
	case f.Norm != "":
		return f.Norm
	case f.Module != "":
		off := f.Offset
		if f.Start != 0 {
			off = f.Start
		}
		return path.Base(f.Module) + "+0x" + strconv.FormatUint(off, 16)
	}
	return f.PC.String()
}
