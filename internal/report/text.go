package report

import (
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mycore/internal/diagnose"
	"mycore/internal/incident"
	"mycore/internal/target"
	"mycore/internal/untrusted"
)

// Text writes the incident for people: what is stuck, on what and what to do
// within one screen of 80x24; then each finding with evidence and remedies;
// then the threads by equal stacks, idle ones folded to a count.
func Text(w io.Writer, inc *incident.Incident, o TextOptions) error {
	r := newRenderer(inc)
	p := newPage(o)
	r.overview(p)
	for i := range inc.Findings {
		p.blank()
		r.finding(p, i)
	}
	p.blank()
	r.threads(p)
	if inc.Logs != nil {
		p.blank()
		r.logs(p)
	}
	if len(inc.Verdict.Collect) > 0 {
		p.blank()
		p.heading("FOR MORE CERTAINTY", "", "", "", p.bold)
		for _, c := range inc.Verdict.Collect {
			p.prose("  - ", "    ", c)
		}
	}
	if o.Verbose {
		r.modules(p)
	}
	return p.writeTo(w)
}

// renderer holds what several parts look up.
type renderer struct {
	inc     *incident.Incident
	catalog *diagnose.Catalog // nil when the shipped files don't load; ids are shown then
	byLWP   map[int]*incident.Thread
	groups  map[string]*incident.Group
}

func newRenderer(inc *incident.Incident) *renderer {
	r := &renderer{inc: inc, byLWP: make(map[int]*incident.Thread, len(inc.Threads)), groups: make(map[string]*incident.Group, len(inc.Groups))}
	r.catalog, _ = diagnose.Default() // its error has ended the analysis before
	for i := range inc.Threads {
		r.byLWP[inc.Threads[i].LWP] = &inc.Threads[i]
	}
	for i := range inc.Groups {
		r.groups[inc.Groups[i].ID] = &inc.Groups[i]
	}
	return r
}

func (r *renderer) role(id string, n int) string {
	switch {
	case id == "":
		return "unknown role"
	case r.catalog == nil:
		return id
	}
	return r.catalog.RoleTitle(id, n)
}

// overview is the first screen.
func (r *renderer) overview(p *page) {
	head, foot := p.sub(), p.sub()
	r.header(head)
	r.verdict(head)
	foot.blank()
	r.threadCounts(foot)
	r.notes(foot)
	room := screenLines - len(head.lines) - len(foot.lines)
	p.add(head)
	r.briefs(p, room)
	p.add(foot)
}

// header is one line: which process this is.
func (r *renderer) header(p *page) {
	inc := r.inc
	var parts []string
	if s := strings.TrimSpace(osName(inc.System.OS) + " " + inc.System.Arch); s != "" {
		parts = append(parts, s)
	}
	if inc.System.PID != nil {
		parts = append(parts, "pid "+strconv.Itoa(*inc.System.PID))
	}
	parts = append(parts, r.server())
	parts = append(parts, count(inc.Verdict.Coverage.ThreadsTotal, "thread", "threads"))
	name := filepath.Base(inc.Input.Path)
	if inc.Input.Path == "" {
		name = inc.Input.Kind
	}
	p.line(column(untrusted.Short(name, 20), max(13, untrusted.Cells(untrusted.Short(name, 20)))) + " " + strings.Join(parts, " · "))
	if t := inc.Input.TruncatedPercent; t != nil {
		p.prose("truncated     ", indent, share(*t)+" of the core's memory is missing; what is said here rests on the rest.")
	}
}

// share is a percentage that never claims nothing or all when it is a part.
func share(percent float64) string {
	switch {
	case percent < 1:
		return "less than 1 %"
	case percent > 99 && percent < 100:
		return "more than 99 %"
	}
	return fmt.Sprintf("%.0f %%", percent)
}

func osName(os string) string {
	switch os {
	case "linux":
		return "Linux"
	case "freebsd":
		return "FreeBSD"
	}
	return os
}

func (r *renderer) server() string {
	if s := r.inc.Server; s != nil {
		name, ok := map[string]string{"mysql": "MySQL", "percona": "Percona Server", "mariadb": "MariaDB"}[s.Family]
		if !ok {
			name = s.Family
		}
		version, _, _ := strings.Cut(s.Version, "-") // not "MariaDB 10.11.19-MariaDB-0+deb12u1"
		if out := strings.TrimSpace(name + " " + version); out != "" {
			return out
		}
	}
	if c := r.inc.System.Command; c != "" {
		return c
	}
	return "server unknown"
}

const indent = "              " // under the verdict's word

func (r *renderer) verdict(p *page) {
	v := &r.inc.Verdict
	word := map[string]string{
		incident.StatusStuck: "STUCK", incident.StatusCrashed: "CRASHED", incident.StatusStopped: "STOPPED", incident.StatusStarting: "STARTING",
		incident.StatusStopping: "STOPPING", incident.StatusSlow: "SLOW", incident.StatusNoStallFound: "NO STALL FOUND", incident.StatusInconclusive: "INCONCLUSIVE",
	}[v.Status]
	if word == "" {
		word = strings.ToUpper(untrusted.Short(v.Status, 20))
	}
	var facts []string
	if v.Since != nil {
		facts = append(facts, "since "+v.Since.UTC().Format(time.RFC3339))
	}
	roots := 0
	for i := range r.inc.Findings {
		if r.inc.Findings[i].Root {
			roots++
		}
	}
	if roots > 0 {
		facts = append(facts, count(roots, "root cause", "root causes"))
	}
	if im := v.Impact; im != nil && im.Blocked != nil && im.Total != nil && *im.Blocked > 0 {
		facts = append(facts, fmt.Sprintf("%d of %s blocked", *im.Blocked, count(*im.Total, "connection thread", "connection threads")))
	}
	if c := v.Coverage; c.ThreadsRead < c.ThreadsTotal {
		facts = append(facts, fmt.Sprintf("%d of %s read", c.ThreadsRead, count(c.ThreadsTotal, "stack", "stacks")))
	}
	paint := p.bold
	if v.Severity == incident.SeverityCritical {
		paint = p.red
	}
	gap := strings.Repeat(" ", max(2, len(indent)-len(word)))
	if len(r.inc.Findings) == 0 {
		p.heading(word, gap, indent, v.Summary, paint)
		return
	}
	p.heading(word, gap, indent, strings.Join(facts, "; "), paint)
	if r.inc.Input.Kind != "core" {
		return
	}
	if r.inc.Input.Writer == "kernel" {
		p.prose(indent, indent, "The kernel wrote this core as the process ended: check what is so now before you act.")
		return
	}
	p.prose(indent, indent, "A core is history: check that it is still so before you act.")
}

// briefs puts as many findings as fit: the sentence, who, and the first step.
// The rest is counted; all come in full below.
func (r *renderer) briefs(p *page, room int) {
	for i := range r.inc.Findings {
		b := p.sub()
		r.brief(b, i, true)
		left := len(r.inc.Findings) - i - 1
		if len(b.lines)+boolInt(left > 0) > room {
			b = p.sub()
			r.brief(b, i, false)
		}
		if len(b.lines)+boolInt(left > 0) > room {
			p.raw(fmt.Sprintf("   and %s below", count(left+1, "finding", "findings")))
			return
		}
		p.add(b)
		room -= len(b.lines)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// maxBriefCommand is how long a command on the first screen may be, in screen
// lines: a path can have thousands of characters.
const maxBriefCommand = 3

// briefSentence is how many lines a finding's sentence takes there.
const briefSentence = 4

func (r *renderer) brief(p *page, i int, full bool) {
	f := &r.inc.Findings[i]
	left := fmt.Sprintf("%-2d %s", i+1, f.Label)
	if !full {
		p.titled(left+"  "+lwpList(f.LWPs), f.Confidence, false)
		return
	}
	p.blank()
	p.titled(left, f.Confidence, true)
	sentence := wrap(untrusted.Line(f.Title), p.width-3, p.width-3)
	if len(sentence) > briefSentence {
		sentence = append(sentence[:briefSentence-1:briefSentence-1], "...")
	}
	for _, l := range sentence {
		p.raw("   " + l)
	}
	r.who(p, f)
	if f.Kill != nil {
		p.raw("   KILL frees it: " + yesNo(f.Kill.Works) + " (" + untrusted.Short(f.Kill.Source, 20) + ").")
	}
	step := firstStep(f)
	if step == nil {
		p.prose("   first step   ", "                ", "none that this evidence allows; what to check is below")
		return
	}
	cmd := untrusted.Line(step.Commands[0])
	if untrusted.Cells(cmd)+3 > maxBriefCommand*p.width {
		p.prose("   ", "   ", "first step below: its command is too long for this screen")
		return
	}
	p.raw("   first step, risk " + untrusted.Short(step.Risk, 10) + ":")
	p.command("   ", cmd)
	if n := len(f.Remedies) - 1; n > 0 {
		p.raw("   " + count(n, "more step", "more steps") + " below, by risk")
	}
}

// highRisk is the risk of steps that lose something for certain.
const highRisk = "high"

// firstStep is the remedy of the lowest risk that has a command. What destroys
// is never the first step while milder ones only lack a fact.
func firstStep(f *incident.Finding) *incident.Remedy {
	for i := range f.Remedies {
		if r := &f.Remedies[i]; len(r.Commands) > 0 && (i == 0 || r.Risk != highRisk) {
			return r
		}
	}
	return nil
}

// who is a line with the thread's identities and one with its call.
func (r *renderer) who(p *page, f *incident.Finding) {
	if len(f.LWPs) == 0 {
		return
	}
	t := r.byLWP[f.LWPs[0]]
	if t == nil {
		return
	}
	parts := []string{"LWP " + strconv.Itoa(t.LWP)}
	if len(f.LWPs) > 1 {
		parts = []string{lwpList(f.LWPs)}
	}
	if len(f.LWPs) == 1 && t.Handle != nil {
		parts = append(parts, "handle "+t.Handle.String())
	}
	parts = append(parts, r.role(t.Role, len(f.LWPs)))
	if t.Name != "" {
		parts = append(parts, t.Name)
	}
	p.line("   " + strings.Join(parts, " · "))
	if t.Syscall != nil {
		p.raw("     " + untrusted.Short(t.Syscall.Text, p.width-5))
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// lwpsNamed is how many threads a line names.
const lwpsNamed = 8

func lwpList(lwps []int) string {
	var b strings.Builder
	b.WriteString("LWP")
	for i, l := range lwps {
		if i == lwpsNamed {
			fmt.Fprintf(&b, " and %d more", len(lwps)-i)
			break
		}
		b.WriteByte(' ')
		b.WriteString(strconv.Itoa(l))
	}
	return b.String()
}

// notes are what isn't known and what an operator should know before acting.
func (r *renderer) notes(p *page) {
	inc := r.inc
	if sig := inc.System.Signal; sig != nil && len(inc.Findings) > 0 { // else the summary says it
		name := sig.Name
		if name == "" {
			name = "signal " + strconv.Itoa(sig.Number)
		}
		p.prose("signal        ", indent, "The core was written on "+name+"; that alone doesn't tell a crash from a request for a core.")
	}
	var missing []string
	c := inc.Verdict.Coverage
	if n := c.ThreadsTotal - c.ThreadsRead; n > 0 {
		missing = append(missing, count(n, "stack", "stacks"))
	}
	if n := c.ThreadsRead - c.StacksTrusted; n > 0 {
		missing = append(missing, "the outer part of "+count(n, "stack", "stacks"))
	}
	if c.MasksKnown != nil && !*c.MasksKnown {
		missing = append(missing, "signal masks")
	}
	if !r.kernelView() {
		missing = append(missing, "wait channels")
	}
	if c.UnknownRoles > 0 {
		missing = append(missing, "the role of "+count(c.UnknownRoles, "thread", "threads"))
	}
	if inc.Server == nil {
		missing = append(missing, "which server this is")
	}
	if len(missing) > 0 {
		p.prose("not known     ", indent, strings.Join(missing, ", ")+".")
	}
	if n := len(inc.Warnings); n > 0 {
		p.line("warnings      " + strconv.Itoa(n) + ", on standard error and in the JSON")
	}
}

func (r *renderer) kernelView() bool {
	for i := range r.inc.Threads {
		if r.inc.Threads[i].WaitChannel != nil || len(r.inc.Threads[i].KernelStack) > 0 {
			return true
		}
	}
	return len(r.inc.Threads) == 0
}

// sourceText puts a source into plain words.
func sourceText(s target.Source) string {
	words := map[target.Source]string{
		target.SourceCoreNote: "core note", target.SourceRegisters: "registers", target.SourceMemory: "memory of the core",
		target.SourceProc: "/proc text", target.SourceFilesystem: "file system", target.SourceLive: "running system",
	}
	if w, ok := words[s]; ok {
		return w
	}
	return string(s)
}
