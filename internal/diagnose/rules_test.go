package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mycore/internal/incident"
	"mycore/internal/target"
)

// Every rule case runs beside a whole idle server: the label must be on the
// one thread, and on no other.
func TestFIFORules(t *testing.T) {
	const rd, wr, rw = 0o2000000, 0o2000000 | 1, 0o2000000 | 2
	withRestart := func(th Thread, n int64) Thread {
		th.Syscall.V.Result = target.Known(n, target.SourceRegisters)
		return th
	}
	noRestart := func(th Thread) Thread {
		th.Syscall.V.Result = target.Value[int64]{}
		return th
	}
	state := func(th Thread, s string) Thread {
		th.State = target.Known(s, target.SourceProc)
		return th
	}
	kstack := func(th Thread, s ...string) Thread {
		th.KernelStack = target.Known(s, target.SourceProc)
		return th
	}
	fromProc := func(th Thread) Thread { // the call as a copied /proc has it, no registers, no stack
		th.Syscall.Source = target.SourceProc
		th.Frames, th.Complete = nil, false
		th.Syscall.V.Path = target.Value[string]{}
		return noRestart(th)
	}
	scanned := func(th Thread) Thread {
		for i := range th.Frames[1:] {
			th.Frames[i+1].Trust = TrustScan
		}
		th.Complete = false
		return th
	}
	noCall := func(th Thread) Thread {
		th.Syscall = target.Value[Syscall]{}
		return th
	}
	fifo := fifoThread
	fifoThere := map[string]PathFact{ghost: {Kind: "fifo", Source: target.SourceFilesystem}}
	kind := func(k string) map[string]PathFact {
		return map[string]PathFact{ghost: {Kind: k, Source: target.SourceFilesystem, SameSystem: true}}
	}
	elsewhere := map[string]PathFact{ghost: {Kind: "regular", Source: target.SourceFilesystem}}

	for _, c := range []struct {
		name  string
		th    Thread
		paths map[string]PathFact
		label string // "" for none
		conf  string
	}{
		// the positive cases
		{"core alone", fifo(50, loadStack, ghost, rd), nil, "fifo-open-no-writer", "likely"},
		{"core alone, 9.7", fifo(50, load97Stack, ghost, rd), nil, "fifo-open-no-writer", "likely"},
		{"with wait channel", wchan(fifo(50, loadStack, ghost, rd), "wait_for_partner"), nil, "fifo-open-no-writer", "certain"},
		{"wait channel with a compiler suffix", wchan(fifo(50, loadStack, ghost, rd), "wait_for_partner.isra.0"), nil, "fifo-open-no-writer", "certain"},
		{"wait channel without LOAD DATA", wchan(fifo(50, "lib:open64 < my_open < ? < do_command", ghost, rd), "wait_for_partner"), nil, "fifo-open-no-writer", "certain"},
		{"kernel stack", kstack(fifo(50, loadStack, ghost, rd), "wait_for_partner", "fifo_open+0x1a0/0x390", "do_dentry_open"), nil, "fifo-open-no-writer", "certain"},
		{"FIFO still there", fifo(50, loadStack, ghost, rd), fifoThere, "fifo-open-no-writer", "certain"},
		{"FIFO still there, no LOAD DATA", fifo(50, "lib:open64 < ?", ghost, rd), fifoThere, "fifo-open-no-writer", "certain"},
		{"name gone", fifo(50, loadStack, ghost, rd), kind("missing"), "fifo-open-no-writer", "likely"},
		{"path not readable", fifo(50, loadStack, "", rd), nil, "fifo-open-no-writer", "likely"},
		{"one kind of source is not certain", wchan(fromProc(fifo(50, loadStack, ghost, rd)), "wait_for_partner"), nil, "fifo-open-no-writer", "likely"},
		{"wait channel and stack, call unknown", wchan(noCall(fifo(50, loadStack, ghost, rd)), "wait_for_partner"), nil, "fifo-open-no-writer", "certain"},
		{"wait channel of the stop", wchan(fifo(50, loadStack, ghost, rd), "ptrace_stop"), nil, "fifo-open-no-writer", "likely"},
		{"stacks lost", fifo(50, "", ghost, rd), nil, "fifo-open-no-writer", "possible"},
		{"stacks lost but for the innermost frame", func() Thread {
			th := fifo(50, "lib:open64", ghost, rd)
			th.Complete = false
			return th
		}(), nil, "fifo-open-no-writer", "possible"},
		{"mutant: a stack without LOAD DATA, walked to its end", fifo(50, "lib:open64 < ?", ghost, rd), nil, "", ""},
		{"mutant: a stack with another statement, cut", func() Thread {
			th := fifo(50, "lib:open64 < my_open < mysql_create_table", ghost, rd)
			th.Complete = false
			return th
		}(), nil, "", ""},
		{"LOAD_FILE", fifo(50, "lib:open64 < my_open < Item_load_file::val_str < ? < do_command", ghost, rd), nil, "fifo-open-no-writer", "possible"},
		{"another file has the name", fifo(50, loadStack, ghost, rd), kind("regular"), "fifo-open-no-writer", "possible"},
		{"a file on the machine of the analysis says nothing", fifo(50, loadStack, ghost, rd), elsewhere, "fifo-open-no-writer", "likely"},
		{"writer", wchan(fifo(50, logStack, ghost, wr), "wait_for_partner"), nil, "fifo-open-no-reader", "certain"},
		{"writer, FIFO there", fifo(50, logStack, ghost, wr), fifoThere, "fifo-open-no-reader", "certain"},
		{"writer, core alone", fifo(50, logStack, ghost, wr), nil, "fifo-open-no-reader", "likely"},
		{"writer, no stack", fifo(50, "", ghost, wr), nil, "fifo-open-no-reader", "possible"},

		// mutants: one thing changed, and the label is gone or weaker
		{"mutant: other wait channel", wchan(fifo(50, loadStack, ghost, rd), "nfs_wait_bit_killable"), nil, "", ""},
		{"mutant: FUSE", wchan(fifo(50, loadStack, ghost, rd), "request_wait_answer"), nil, "", ""},
		{"mutant: futex channel", wchan(fifo(50, loadStack, ghost, rd), "futex_do_wait"), nil, "", ""},
		{"mutant: other kernel stack", kstack(fifo(50, loadStack, ghost, rd), "request_wait_answer", "fuse_simple_request"), nil, "", ""},
		{"mutant: state D", state(fifo(50, loadStack, ghost, rd), "D"), nil, "", ""},
		{"mutant: state D against the wait channel", state(wchan(fifo(50, loadStack, ghost, rd), "wait_for_partner"), "D (disk sleep)"), nil, "", ""},
		{"mutant: state D, FIFO there", state(fifo(50, loadStack, ghost, rd), "D"), fifoThere, "", ""},
		{"mutant: O_RDWR never waits", fifo(50, loadStack, ghost, rw), nil, "", ""},
		{"mutant: O_RDWR with the wait channel", wchan(fifo(50, loadStack, ghost, rw), "wait_for_partner"), nil, "", ""},
		{"mutant: O_NONBLOCK never waits", fifo(50, loadStack, ghost, rd|0o4000), nil, "", ""},
		{"mutant: O_PATH never waits", fifo(50, loadStack, ghost, rd|0o10000000), nil, "", ""},
		{"mutant: O_WRONLY under LOAD DATA, core alone", fifo(50, loadStack, ghost, wr), nil, "", ""},
		{"mutant: O_WRONLY turns it round", wchan(fifo(50, loadStack, ghost, wr), "wait_for_partner"), nil, "fifo-open-no-reader", "certain"},
		{"mutant: no LOAD DATA frame", fifo(50, strings.Replace(loadStack, "mysql_load < ", "", 1), ghost, rd), nil, "", ""},
		{"mutant: LOAD DATA only in scanned frames", scanned(fifo(50, loadStack, ghost, rd)), nil, "fifo-open-no-writer", "possible"},
		{"mutant: another restart code", withRestart(fifo(50, loadStack, ghost, rd), -516), nil, "", ""},
		{"mutant: the call is over", withRestart(fifo(50, loadStack, ghost, rd), 27), nil, "", ""},
		{"mutant: the call failed", withRestart(fifo(50, loadStack, ghost, rd), -2), fifoThere, "", ""},
		{"mutant: sleep unknown", noRestart(fifo(50, loadStack, ghost, rd)), nil, "", ""},
		{"mutant: another call", func() Thread {
			th := wchan(fifo(50, loadStack, ghost, rd), "wait_for_partner")
			th.Syscall.V.Name = "read"
			return th
		}(), fifoThere, "", ""},
		{"mutant: a table's file under LOAD DATA", fifo(50, strings.Replace(loadStack, "mysql_load", "handler::ha_open < open_table < mysql_load", 1), ghost, rd), nil, "", ""},
		{"mutant: stacks lost, a device", fifo(50, "", "/dev/ttyS0", rd), nil, "", ""},
		{"mutant: stacks lost, path unknown", fifo(50, "", "", rd), nil, "", ""},
		{"mutant: stacks lost, the path's page was zeros", func() Thread {
			th := fifo(50, "", ghost, rd)
			th.Syscall.V.Path.V = ""
			return th
		}(), nil, "", ""},
		{"mutant: stacks lost, call over", withRestart(fifo(50, "", ghost, rd), 0), nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := linuxInput(append(idleMariaDB(), c.th)...)
			in.Paths = c.paths
			res := catalog(t).Run(in)
			for _, tr := range res.Threads {
				if tr.LWP != 50 && len(tr.Labels) > 0 {
					t.Errorf("LWP %d is labelled %v", tr.LWP, tr.Labels)
				}
			}
			got, conf := "", ""
			if len(res.Findings) > 0 {
				got, conf = res.Findings[0].Label, res.Findings[0].Confidence
			}
			if got != c.label || conf != c.conf || len(res.Findings) > 1 {
				t.Fatalf("got %d findings, first %q %q; want %q %q", len(res.Findings), got, conf, c.label, c.conf)
			}
			switch {
			case c.label == "":
				if res.Verdict.Status != incident.StatusInconclusive {
					t.Errorf("a thread in open and no label: status %s", res.Verdict.Status)
				}
				return
			case c.conf == "possible":
				if res.Verdict.Status != incident.StatusInconclusive {
					t.Errorf("only possible, and status %s", res.Verdict.Status)
				}
			case res.Verdict.Status != incident.StatusStuck:
				t.Errorf("status %s", res.Verdict.Status)
			}
			f := res.Findings[0]
			if !slices.Equal(f.LWPs, []int{50}) || !f.Root || f.Severity != "critical" {
				t.Errorf("finding %+v", f)
			}
			if f.Confidence == "certain" {
				var src []target.Source
				for _, e := range f.Evidence {
					src = append(src, e.Source)
				}
				if kinds(src) < 2 {
					t.Errorf("certain on %v", src)
				}
			}
			for _, e := range f.Evidence {
				if e.Fact == "" || e.Value == "" || e.Source == "" {
					t.Errorf("evidence %+v", e)
				}
			}
		})
	}
}

// Wait channels are the kernel's own words: each system's count there alone.
func TestWaitChannelsAreOfTheirSystem(t *testing.T) {
	for _, c := range []struct {
		os, channel string
		flags       uint64
		label       string
		confidence  string
	}{
		{"linux", "wait_for_partner", 0, "fifo-open-no-writer", "certain"},
		{"linux", "wait_for_partner", 1, "fifo-open-no-reader", "certain"},
		{"linux", "fifoor", 0, "", ""},
		{"linux", "fifoow", 1, "", ""},
		{"freebsd", "fifoor", 0, "fifo-open-no-writer", "certain"},
		{"freebsd", "fifoow", 1, "fifo-open-no-reader", "certain"},
		{"freebsd", "fifoow", 0, "", ""},
		{"freebsd", "fifoor", 1, "", ""},
		{"freebsd", "wait_for_partner", 0, "", ""},
		{"freebsd", "sbwait", 0, "", ""},
	} {
		in := linuxInput(wchan(fifoThread(50, loadStack, ghost, c.flags), c.channel))
		in.OS = c.os
		if c.os == "freebsd" {
			in.Threads[0].Syscall.V.Result = target.Value[int64]{} // asleep in a core of gcore
		}
		got, conf := "", ""
		if f := catalog(t).Run(in).Findings; len(f) > 0 {
			got, conf = f[0].Label, f[0].Confidence
		}
		if got != c.label || conf != c.confidence {
			t.Errorf("%s on %s, flags %d: %q %q, want %q %q", c.channel, c.os, c.flags, got, conf, c.label, c.confidence)
		}
	}
}

func TestHealthyServersHaveNoLabel(t *testing.T) {
	for name, threads := range map[string][]Thread{"mariadb": append(idleMariaDB(), unnamedMariaDB()...), "5.6": idle56(), "9.7": idle97()} {
		res := catalog(t).Run(linuxInput(threads...))
		if len(res.Findings) > 0 {
			t.Errorf("%s: %s", name, res.Findings[0].Title)
		}
		for _, tr := range res.Threads {
			if tr.Role == "" || tr.Idle == nil || !*tr.Idle {
				t.Errorf("%s: LWP %d: role %q, idle %v", name, tr.LWP, tr.Role, tr.Idle)
			}
		}
	}
}

func TestTwoThreadsOnOneFIFO(t *testing.T) {
	in := linuxInput(fifoThread(60, loadStack, ghost, 0), fifoThread(50, loadStack, ghost, 0), fifoThread(55, loadStack, "/tmp/other", 0))
	res := catalog(t).Run(in)
	if len(res.Findings) != 2 {
		t.Fatalf("%d findings", len(res.Findings))
	}
	if got := res.Findings[0]; !slices.Equal(got.LWPs, []int{50, 60}) || !strings.HasPrefix(got.Title, "LWPs 50, 60 wait in open() of /tmp/ghost.fifo") {
		t.Errorf("first finding: %v %q", got.LWPs, got.Title)
	}
	if got := res.Findings[1]; !slices.Equal(got.LWPs, []int{55}) || got.Resource.Path != "/tmp/other" {
		t.Errorf("second finding: %v %v", got.LWPs, got.Resource)
	}
	if res.Findings[0].Signature != res.Findings[1].Signature {
		t.Error("the same stall on two paths has two signatures")
	}
}

func TestRelativePathIsJoined(t *testing.T) {
	th := fifoThread(50, loadStack, "sub/../ghost", 0)
	in := linuxInput(th)
	f := catalog(t).Run(in).Findings[0]
	if f.Remedies[0].Commands != nil {
		t.Errorf("a command for a path relative to an unknown directory: %q", f.Remedies[0].Commands)
	}
	in.Process.Cwd = target.Known("/var/lib/mysql", target.SourceProc)
	if f = catalog(t).Run(in).Findings[0]; f.Resource.Path != "/var/lib/mysql/ghost" {
		t.Errorf("path %q", f.Resource.Path)
	}
	in.Threads[0].Syscall.V.Dir = target.Known("/data", target.SourceProc)
	if f = catalog(t).Run(in).Findings[0]; f.Resource.Path != "/data/ghost" {
		t.Errorf("path %q", f.Resource.Path)
	}
}

func remedies(f *incident.Finding) map[string]incident.Remedy {
	out := map[string]incident.Remedy{}
	for _, r := range f.Remedies {
		out[r.ID] = r
	}
	return out
}

func TestRemedies(t *testing.T) {
	mask := func(v uint64) target.Value[uint64] { return target.Known(v, target.SourceProc) }
	base := func() *Input {
		in := linuxInput(wchan(fifoThread(4730, loadStack, ghost, 0), "wait_for_partner"))
		in.Server = Server{Family: target.Known("mariadb", target.SourceMemory), Version: target.Known("10.11.19-MariaDB", target.SourceMemory)}
		in.Process.SigCaught, in.Process.SharedPending = mask(0x1000066e9), mask(0)
		in.Threads[0].SigBlocked = mask(0x87007)
		return in
	}
	gone := map[string]PathFact{ghost: {Kind: "missing", Source: target.SourceFilesystem, SameSystem: true}}
	there := map[string]PathFact{ghost: {Kind: "fifo", Source: target.SourceFilesystem, SameSystem: true}}
	const (
		write    = `[ -p /tmp/ghost.fifo ] && timeout 5 sh -c ': > /tmp/ghost.fifo'`
		dd       = `[ -p /tmp/ghost.fifo ] && timeout 5 dd if=/dev/null of=/tmp/ghost.fifo conv=nocreat,notrunc`
		stopCont = `[ ! -e /tmp/ghost.fifo ] && grep -q wait_for_partner /proc/4711/task/4730/wchan && { kill -STOP 4711; sleep 0.05; kill -CONT 4711; }`
		usr1     = `grep -q wait_for_partner /proc/4711/task/4730/wchan && python3 -c 'import ctypes; ctypes.CDLL(None).syscall(234, 4711, 4730, 10)'`
		alrm     = `[ ! -e /tmp/ghost.fifo ] && grep -q wait_for_partner /proc/4711/task/4730/wchan && python3 -c 'import ctypes; ctypes.CDLL(None).syscall(234, 4711, 4730, 14)'`
		killAll  = `grep -q wait_for_partner /proc/4711/task/4730/wchan && kill -KILL 4711`
	)
	all := map[string]string{"fifo-write-once": write, "fifo-write-once-dd": dd, "fifo-stop-continue": stopCont, "fifo-signal-usr1": usr1, "fifo-kill-server": killAll}
	without := func(ids ...string) map[string]string {
		out := map[string]string{}
		for k, v := range all {
			if !slices.Contains(ids, k) {
				out[k] = v
			}
		}
		return out
	}
	for _, c := range []struct {
		name   string
		change func(*Input)
		want   map[string]string // commands that are printed
		absent []string          // remedies not even listed
	}{
		{"everything known but the name", func(*Input) {}, all, []string{"fifo-signal-alrm"}},
		{"the FIFO is there", func(in *Input) { in.Paths = there }, without("fifo-stop-continue"), nil},
		{"the name is gone", func(in *Input) { in.Paths = gone }, without("fifo-write-once", "fifo-write-once-dd"), nil},
		{"the process is gone", func(in *Input) { in.Process.Alive = target.Known(false, target.SourceCoreNote) },
			without("fifo-stop-continue", "fifo-signal-usr1", "fifo-kill-server"), nil},
		{"SIGTERM pending", func(in *Input) { in.Process.SharedPending = mask(0x4000) }, without("fifo-stop-continue"), nil},
		{"pending signals unknown", func(in *Input) { in.Process.SharedPending = target.Value[uint64]{} }, without("fifo-stop-continue"), nil},
		{"seen as pid 1", func(in *Input) { in.Process.PID = 1 }, map[string]string{"fifo-write-once": write, "fifo-write-once-dd": dd,
			"fifo-signal-usr1": strings.ReplaceAll(usr1, "4711", "1"), "fifo-kill-server": strings.ReplaceAll(killAll, "4711", "1")}, nil},
		{"pid unknown", func(in *Input) { in.Process.PID = 0 }, map[string]string{"fifo-write-once": write, "fifo-write-once-dd": dd}, nil},
		{"signal blocked", func(in *Input) { in.Threads[0].SigBlocked = mask(0x87007 | 0x200) }, without("fifo-signal-usr1"), nil},
		{"signal not caught", func(in *Input) { in.Process.SigCaught = mask(0x1000044e9) }, without("fifo-signal-usr1"), nil},
		{"masks unknown", func(in *Input) { in.Threads[0].SigBlocked = target.Value[uint64]{} }, without("fifo-signal-usr1"), nil},
		{"handlers unknown", func(in *Input) { in.Process.SigCaught = target.Value[uint64]{} }, without("fifo-signal-usr1"), nil},
		{"version unknown", func(in *Input) { in.Server = Server{} }, without("fifo-signal-usr1"), nil},
		{"a server on which the signal kills", func(in *Input) { in.Server.Version.V = "11.8.6-MariaDB" }, without("fifo-signal-usr1"), []string{"fifo-signal-usr1", "fifo-signal-alrm"}},
		{"a version that wasn't measured", func(in *Input) { in.Server.Version.V = "10.6.12" }, without("fifo-signal-usr1"), []string{"fifo-signal-usr1"}},
		{"9.7", func(in *Input) {
			in.Server = Server{Family: target.Known("mysql", target.SourceMemory), Version: target.Known("9.7.4", target.SourceMemory)}
			in.Process.SigCaught, in.Threads[0].SigBlocked = mask(0x1000024e8), mask(0x84a07)
			in.Paths = gone
		}, map[string]string{"fifo-stop-continue": stopCont, "fifo-signal-alrm": alrm, "fifo-kill-server": killAll}, []string{"fifo-signal-usr1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := base()
			c.change(in)
			f := catalog(t).Run(in).Findings[0]
			got := map[string]string{}
			last := 0
			for _, r := range f.Remedies {
				if len(r.Commands) > 0 {
					got[r.ID] = r.Commands[0]
				}
				rank := slices.Index(risks, r.Risk)
				if rank < last {
					t.Errorf("%s, risk %s, comes after a riskier step", r.ID, r.Risk)
				}
				last = rank
				for _, p := range r.Preconditions {
					if len(r.Commands) > 0 && (p.Status == "unmet" || p.Status == "unknown" && !p.Guarded) {
						t.Errorf("%s has a command although %q is %s", r.ID, p.Text, p.Status)
					}
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("commands (-want +got):\n%s", d)
			}
			for _, id := range c.absent {
				if _, ok := remedies(&f)[id]; ok {
					t.Errorf("%s is listed", id)
				}
			}
			if last != slices.Index(risks, "high") {
				t.Error("the last resort isn't last")
			}
		})
	}
}

// A path that can't be written in a command as it is gives no command, and one
// that needs quotes gets them, in the inner shell as well.
func TestPathsInCommands(t *testing.T) {
	for _, c := range []struct{ path, want string }{
		{"/tmp/a b", `[ -p '/tmp/a b' ] && timeout 5 sh -c ': > '\''/tmp/a b'\'''`},
		{"/tmp/$(reboot)", `[ -p '/tmp/$(reboot)' ] && timeout 5 sh -c ': > '\''/tmp/$(reboot)'\'''`},
		{"/tmp/a'b", `[ -p '/tmp/a'\''b' ] && timeout 5 sh -c ': > '\''/tmp/a'\''\'\'''\''b'\'''`},
		{"/tmp/a\nb", ""},
		{"/tmp/\x1b[31m", ""},
		{"/tmp/\u202egnp", ""},
		{"/tmp/\xff", ""},
	} {
		f := catalog(t).Run(linuxInput(fifoThread(50, loadStack, c.path, 0))).Findings[0]
		got := strings.Join(f.Remedies[0].Commands, "\n")
		if got != c.want {
			t.Errorf("%q: got %s, want %s", c.path, got, c.want)
		}
		for _, r := range f.Remedies {
			for _, p := range r.Preconditions {
				if strings.ContainsAny(p.Check, "\n\x1b") {
					t.Errorf("%q: check %q", c.path, p.Check)
				}
			}
		}
	}
}

func TestMissingSaysWhatToCollect(t *testing.T) {
	f := catalog(t).Run(linuxInput(fifoThread(4730, loadStack, ghost, 0))).Findings[0]
	all := strings.Join(f.Missing, "\n")
	for _, want := range []string{"/proc/4711/task/4730/wchan", "--proc", "ls -li"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q isn't in %q", want, f.Missing)
		}
	}
	// a rule that is about the thread but doesn't fire says what it lacks
	v := catalog(t).Run(linuxInput(fifoThread(4730, "lib:open64 < my_open < mysql_execute_command < do_command", ghost, 0))).Verdict
	if v.Status != incident.StatusInconclusive || !strings.Contains(strings.Join(v.Collect, "\n"), "LWP 4730, fifo-open-no-writer") {
		t.Errorf("verdict %+v", v)
	}
	// with the wait channel nothing of that is asked for
	f = catalog(t).Run(linuxInput(wchan(fifoThread(4730, loadStack, ghost, 0), "wait_for_partner"))).Findings[0]
	if strings.Contains(strings.Join(f.Missing, "\n"), "wchan") {
		t.Errorf("asks for what is known: %q", f.Missing)
	}
}

// The same stall in a build that names other frames has the same signature;
// another place in the server has another one.
func TestSignature(t *testing.T) {
	sig := func(frames string) string {
		return catalog(t).Run(linuxInput(wchan(fifoThread(50, frames, ghost, 0), "wait_for_partner"))).Findings[0].Signature
	}
	full := sig(loadStack)
	if got := sig(strings.Replace(loadStack, "mysql_parse < ", "? < ? < ", 1)); got != full {
		t.Errorf("a build with fewer names: %s, not %s", got, full)
	}
	if got := sig(load97Stack); got == full {
		t.Error("another server's function, the same signature")
	}
	if got := sig(strings.Replace(loadStack, "mysql_load", "Item_load_file::val_str", 1)); got == full {
		t.Error("another statement, the same signature")
	}
	if len(full) != 8 {
		t.Errorf("signature %q", full)
	}
}

func TestCompareVersions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"10.11.19-MariaDB", "10.11", 1}, {"10.11", "10.11", 0}, {"10.5.23", "10.11", -1}, {"5.6.24-log", "5.7", -1}, {"11.8.6", "11.0", 1}, {"9.7.4", "9.8", -1}, {"x", "1", -1}} {
		if got := compareVersions(c.a, c.b); got != c.want {
			t.Errorf("%s against %s: %d", c.a, c.b, got)
		}
	}
}

func TestKleene(t *testing.T) {
	v := newView(linuxInput(), &Thread{})
	unk := Cond{WaitChannel: []string{"x"}}
	yesC := Cond{OS: []string{"linux"}}
	noC := Cond{OS: []string{"freebsd"}}
	for _, c := range []struct {
		name string
		cond Cond
		want tri
	}{
		{"unknown", unk, unknown}, {"not unknown", Cond{Not: &unk}, unknown},
		{"unknown and no", Cond{All: []Cond{unk, noC}}, no}, {"unknown and yes", Cond{All: []Cond{unk, yesC}}, unknown},
		{"unknown or yes", Cond{Any: []Cond{unk, yesC}}, yes}, {"unknown or no", Cond{Any: []Cond{unk, noC}}, unknown},
		{"not no", Cond{Not: &noC}, yes}, {"several keys", Cond{OS: []string{"linux"}, Any: []Cond{noC}}, no},
	} {
		if got := c.cond.eval(v, nil); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestSequence(t *testing.T) {
	in := linuxInput()
	th := thread(1, "a < x < b < a < y < y < c", target.Value[Syscall]{})
	v := newView(in, &th)
	gap := func(n int) *int { return &n }
	for _, c := range []struct {
		frames []Names
		gap    *int
		want   tri
	}{
		{[]Names{{"a"}, {"b"}, {"c"}}, nil, yes},
		{[]Names{{"b"}, {"x"}}, nil, no},
		{[]Names{{"a"}, {"c"}}, gap(2), yes}, // the second a
		{[]Names{{"a"}, {"c"}}, gap(1), no},
		{[]Names{{"a"}, {"b", "z"}}, gap(1), yes},
		{[]Names{{"a"}, {"b"}}, gap(0), no},
	} {
		cond := Cond{Frames: c.frames, MaxGap: c.gap}
		if got := cond.eval(v, nil); got != c.want {
			t.Errorf("%v: %d, want %d", c.frames, got, c.want)
		}
	}
	th.Complete = false
	v = newView(in, &th)
	if got := (&Cond{Frames: []Names{{"nowhere"}}}).eval(v, nil); got != unknown {
		t.Errorf("a stack that was cut proves an absence: %d", got)
	}
}

func ExampleCatalog_RoleTitle() {
	c, _ := Default()
	fmt.Println(c.RoleTitle("purge", 4), c.RoleTitle("page-cleaner", 1), c.RoleTitle("not-a-role", 1))
	// Output: purge page cleaner not-a-role
}
