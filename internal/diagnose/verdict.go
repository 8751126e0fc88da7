package diagnose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mycore/internal/incident"
)

// tally is what the verdict counts.
type tally struct {
	total, read, trusted        int
	masks                       bool
	unknownRoles                []int
	unread, untrusted           []int
	cut                         []int // untrusted because the core lacks the stack's memory
	busy                        []int // role known, not in its normal wait, no label
	unjudged                    []int // role known, wait unknown
	idle                        int
	connections, blockedClients int
	waitChannels                bool // any wait channel or kernel stack is known
}

func (c *Catalog) count(views []*view, threads []ThreadResult) tally {
	t := tally{total: len(views), masks: true}
	for i, v := range views {
		r := &threads[i]
		labelled := len(r.Labels) > 0
		if len(v.t.Frames) > 0 {
			t.read++
		} else {
			t.unread = append(t.unread, r.LWP)
		}
		switch {
		case trusted(v.t):
			t.trusted++
		case len(v.t.Frames) > 0 && v.t.StackCut:
			t.cut = append(t.cut, r.LWP)
		case len(v.t.Frames) > 0:
			t.untrusted = append(t.untrusted, r.LWP)
		}
		t.masks = t.masks && v.t.SigBlocked.Known
		t.waitChannels = t.waitChannels || v.t.WaitChannel.Known || v.t.KernelStack.Known
		if v.role != nil && v.role.Connection {
			t.connections++
			if labelled {
				t.blockedClients++
			}
		}
		switch {
		case v.role == nil || v.role.Unproven:
			t.unknownRoles = append(t.unknownRoles, r.LWP)
		case labelled:
		case r.Idle == nil:
			t.unjudged = append(t.unjudged, r.LWP)
		case !*r.Idle:
			t.busy = append(t.busy, r.LWP)
		}
		if r.Idle != nil && *r.Idle {
			t.idle++
		}
	}
	t.masks = t.masks && t.total > 0
	return t
}

// trusted says that the stack was walked to its outermost frame by registers
// and call frame information alone.
func trusted(t *Thread) bool {
	if !t.Complete || len(t.Frames) == 0 {
		return false
	}
	for i := range t.Frames {
		if tr := t.Frames[i].Trust; tr != TrustContext && tr != TrustCFI {
			return false
		}
	}
	return true
}

func (t *tally) full() bool {
	return t.total > 0 && t.read == t.total && t.trusted == t.total && t.masks &&
		len(t.unknownRoles) == 0 && len(t.unjudged) == 0 && len(t.busy) == 0
}

func (c *Catalog) verdict(in *Input, views []*view, near []string, res *Result) {
	t := c.count(views, res.Threads)
	v := &res.Verdict
	v.Coverage = incident.Coverage{ThreadsRead: t.read, ThreadsTotal: t.total, StacksTrusted: t.trusted,
		MasksKnown: incident.Ptr(t.masks), UnknownRoles: len(t.unknownRoles)}
	v.Findings = make([]string, 0, len(res.Findings))
	for i := range res.Findings {
		v.Findings = append(v.Findings, res.Findings[i].ID)
	}
	if t.connections > 0 {
		v.Impact = &incident.Impact{Blocked: incident.Ptr(t.blockedClients), Total: incident.Ptr(t.connections)}
	}
	switch {
	case len(res.Findings) > 0 && res.Findings[0].Confidence != incident.ConfidencePossible:
		v.Status, v.Severity = incident.StatusStuck, worst(res.Findings)
	case len(res.Findings) == 0 && len(near) == 0 && t.full():
		v.Status, v.Severity = incident.StatusNoStallFound, incident.SeverityInfo
	default:
		v.Status, v.Severity = incident.StatusInconclusive, incident.SeverityInfo
		if len(res.Findings) > 0 {
			v.Severity = worst(res.Findings)
		}
	}
	if len(res.Findings) > 0 {
		v.DedupKey = dedupKey(res.Findings)
	}
	if v.Status != incident.StatusNoStallFound {
		v.Collect = c.collect(in, &t, near, v.Status)
	}
	v.Summary = c.summary(in, &t, res)
}

func worst(fs []incident.Finding) string {
	best := len(severities) - 1
	for i := range fs {
		best = min(best, max(0, slices.Index(severities, fs[i].Severity)))
	}
	return severities[best]
}

// dedupKey is equal for incidents with the same kinds of stall.
func dedupKey(fs []incident.Finding) string {
	var parts []string
	for i := range fs {
		if p := fs[i].Label + "\x00" + fs[i].Signature; !contains(parts, p) {
			parts = append(parts, p)
		}
	}
	slices.Sort(parts)
	return shortHash(parts)
}

// collect says what would make the verdict firmer, most useful first.
func (c *Catalog) collect(in *Input, t *tally, near []string, status string) []string {
	out := slices.Clone(near)
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if t.total == 0 {
		add("The input has no threads: take another core.")
		return out
	}
	if n := len(t.unread); n > 0 {
		add("%s: no stack could be read. Give the server's binary (--exe) or its root (--sysroot); if the core lacks the stacks, take one by the kernel.", threadList(t.unread))
	}
	if n := len(t.cut); n > 0 {
		add("%s: the core lacks memory of the stack. The complete core has it; if this one is complete, take one by the kernel with coredump_filter 0x33.", threadList(t.cut))
	}
	if n := len(t.untrusted); n > 0 {
		add("%s: the stack isn't proven to its end. The binaries and libraries of that build help (--exe, --sysroot, --debug-dir).", threadList(t.untrusted))
	}
	freebsd := in.OS == "freebsd"
	switch {
	case t.waitChannels:
	case freebsd:
		add("Wait messages: save procstat -t and procstat -kk of the server next time, before anything stops it, and pass the text with --procstat. Cores of the kernel lose the messages, those of gcore(1) keep them.")
	default:
		add("Wait channels: copy /proc/PID/task/*/{comm,wchan,syscall,status,stack} next time, before anything stops the server, and pass the copy with --proc.")
	}
	if status == incident.StatusStuck {
		return out // what follows would only prove that nothing else is wrong
	}
	switch {
	case t.masks:
	case freebsd:
		add("Signal masks aren't known: procstat -j shows them, pass the text with --procstat.")
	default:
		add("Signal masks aren't known (gdb's gcore doesn't write them): /proc/PID/task/*/status has them, pass the copy with --proc.")
	}
	switch n := len(t.unknownRoles); {
	case n > 0 && in.Server.Version.Known:
		add("%s: no proven role. Debug symbols of the server name its functions (--debug-dir).", threadList(t.unknownRoles))
	case n > 0:
		add("%s: no proven role. Roles are those of threads of mysqld and mariadbd, and neither is recognised here. If this is one of them, give its binary (--exe).", threadList(t.unknownRoles))
	}
	if n := len(t.unjudged); n > 0 {
		add("%s: whether the wait is their normal one can't be told from this input.", threadList(t.unjudged))
	}
	if n := len(t.busy); n > 0 {
		add("%s: not idle, and no rule knows the wait. Take a second core some seconds later, with SHOW FULL PROCESSLIST, and compare.", threadList(t.busy))
	}
	return out
}

// threadList names a few threads and counts the rest.
func threadList(lwps []int) string {
	d := textData{lwps: sortedCopy(lwps)}
	if len(lwps) > 2*maxNamed {
		return fmt.Sprintf("%d threads (LWP %d, %d, ...)", len(lwps), d.lwps[0], d.lwps[1])
	}
	return d.Who()
}

// summary is one paragraph in plain words.
func (c *Catalog) summary(in *Input, t *tally, res *Result) string {
	var s []string
	say := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }
	switch res.Verdict.Status {
	case incident.StatusNoStallFound:
		say("Checked %d of %d stacks: every thread has a known role and is in its normal wait, signal masks are known.", t.read, t.total)
		say("One core can't show slowness, network trouble or replication lag.")
	case incident.StatusStuck:
		say("%s", res.Findings[0].Title)
		if n := len(res.Findings) - 1; n > 0 {
			say("%s.", plural(n, "further finding", "further findings"))
		}
		say("%d of %s idle.", t.idle, plural(t.total, "thread is", "threads are"))
	default:
		if len(res.Findings) > 0 {
			say("%s", res.Findings[0].Title)
			say("That is possible, not proven.")
		} else {
			say("No rule found a stall, but the input doesn't prove that there is none.")
		}
		say("%d of %d stacks were read, %d of them trusted to the end; %s idle, %s, %s.", t.read, t.total, t.trusted,
			plural(t.idle, "thread is", "threads are"), plural(len(t.busy)+len(t.unjudged), "has another wait", "have another wait"),
			plural(len(t.unknownRoles), "has no proven role", "have no proven role"))
	}
	if sig := in.Process.Signal; sig.Known && sig.V.Number > 0 {
		name := SignalName(sig.V.Number)
		if name == "" {
			name = "signal " + strconv.Itoa(sig.V.Number)
		}
		say("The core was written on %s; that alone doesn't tell a crash from a request for a core.", name)
	}
	return strings.Join(s, " ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
