package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"mycore/docs"
	"mycore/internal/diagnose"
	"mycore/internal/incident"
	"mycore/internal/target"
	"mycore/internal/untrusted"
)

var update = flag.Bool("update", false, "rewrite testdata/golden")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".want")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// facts is a server with one thread in open() of path and some idle ones.
func facts(path string) *diagnose.Input {
	frames := func(base target.Addr, names ...string) []diagnose.Frame {
		var out []diagnose.Frame
		for i, n := range names {
			f := diagnose.Frame{PC: base + target.Addr(i*0x40), Function: n, Norm: n, Module: "/usr/sbin/mariadbd", Offset: uint64(0x10 + i), Trust: diagnose.TrustCFI}
			if i == 0 {
				f.Trust = diagnose.TrustContext
			}
			out = append(out, f)
		}
		return out
	}
	mask := target.Known(uint64(0x87007), target.SourceCoreNote)
	in := &diagnose.Input{OS: "linux", Arch: "amd64", Process: diagnose.Process{PID: 4711, ServerModule: "/usr/sbin/mariadbd",
		SharedPending: target.Known(uint64(0), target.SourceProc), SigCaught: target.Known(uint64(0x1000066e9), target.SourceProc)},
		Server: diagnose.Server{Family: target.Known("mariadb", target.SourceMemory), Version: target.Known("10.11.19-MariaDB", target.SourceMemory)}}
	stuck := diagnose.Thread{LWP: 4730, Complete: true, SigBlocked: mask, Handle: target.Known(target.Addr(0x7f1c5c1ff6c0), target.SourceMemory),
		State: target.Known("S", target.SourceProc), WaitChannel: target.Known("wait_for_partner", target.SourceProc),
		Frames: frames(0x55500000, "open64", "my_open", "mysql_load", "mysql_execute_command", "mysql_parse", "dispatch_command", "do_command", "do_handle_one_connection", "handle_one_connection", "start_thread", "clone3")}
	stuck.Syscall = target.Known(diagnose.Syscall{Name: "openat", Text: `openat(AT_FDCWD, "` + untrusted.Line(path) + `", O_RDONLY|O_CLOEXEC)`,
		Result: target.Known(int64(-512), target.SourceRegisters), Path: target.Known(path, target.SourceMemory),
		OpenFlags: target.Known(uint64(0o2000000), target.SourceRegisters)}, target.SourceRegisters)
	in.Threads = append(in.Threads, stuck)
	call := func(name string) target.Value[diagnose.Syscall] {
		return target.Known(diagnose.Syscall{Name: name, Text: name + "(...)"}, target.SourceRegisters)
	}
	in.Threads = append(in.Threads, diagnose.Thread{LWP: 4711, Complete: true, SigBlocked: mask, Syscall: call("poll"),
		Frames: frames(0x55600000, "poll", "handle_connections_sockets", "mysqld_main", "__libc_start_main", "_start")})
	for i := range 3 {
		in.Threads = append(in.Threads, diagnose.Thread{LWP: 4720 + i, Complete: true, SigBlocked: mask, Syscall: call("poll"),
			Frames: frames(0x55700000, "poll", "vio_io_wait", "vio_socket_io_wait", "vio_read", "my_net_read_packet", "do_command", "handle_one_connection", "start_thread", "clone3")})
	}
	return in
}

// build makes an incident out of facts the way the pipeline does.
func build(t *testing.T, in *diagnose.Input) *incident.Incident {
	t.Helper()
	res, err := diagnose.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	inc := &incident.Incident{Schema: incident.SchemaName, SchemaVersion: incident.SchemaVersion, Tool: incident.Tool{Name: "mycore", Version: "test"},
		IncidentID: "0123456789abcdef", Input: incident.Input{Kind: "core", Path: "/var/tmp/mariadbd.core", Size: incident.Ptr(int64(81920000))},
		Server:  &incident.Server{Family: "mariadb", Version: "10.11.19-MariaDB", Source: target.SourceMemory},
		System:  incident.System{OS: in.OS, Arch: in.Arch, PID: incident.Ptr(in.Process.PID), Command: "mariadbd"},
		Verdict: res.Verdict, Findings: res.Findings, Groups: res.Groups, Threads: []incident.Thread{}}
	byLWP := map[int]*diagnose.Thread{}
	for i := range in.Threads {
		byLWP[in.Threads[i].LWP] = &in.Threads[i]
	}
	for _, tr := range res.Threads {
		src := byLWP[tr.LWP]
		th := incident.Thread{LWP: tr.LWP, Role: tr.Role, Idle: tr.Idle, Group: tr.Group, Labels: tr.Labels, Name: src.Name.V, State: src.State.V}
		if src.Handle.Known {
			th.Handle = incident.Ptr(incident.Addr(src.Handle.V))
			th.Sources = map[string]target.Source{"handle": src.Handle.Source}
		}
		if src.WaitChannel.Known {
			th.WaitChannel = &incident.Sourced{Value: src.WaitChannel.V, Source: src.WaitChannel.Source}
		}
		if src.Syscall.Known {
			th.Syscall = &incident.Syscall{Name: src.Syscall.V.Name, Text: src.Syscall.V.Text, Source: src.Syscall.Source}
		}
		for _, f := range src.Frames {
			th.Frames = append(th.Frames, incident.Frame{PC: incident.Addr(f.PC), Function: f.Function, Module: f.Module, Offset: incident.Ptr(incident.Addr(f.Offset)), Trust: string(f.Trust)})
		}
		inc.Threads = append(inc.Threads, th)
	}
	return inc
}

func text(t *testing.T, inc *incident.Incident, o TextOptions) string {
	t.Helper()
	var b strings.Builder
	if err := Text(&b, inc, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func cases(t *testing.T) map[string]*incident.Incident {
	likely := facts("/tmp/ghost.fifo")
	likely.Threads[0].WaitChannel, likely.Threads[0].State = target.Value[string]{}, target.Value[string]{}
	likely.Server, likely.Process.SharedPending = diagnose.Server{}, target.Value[uint64]{}
	likely.Process.Alive = target.Known(false, target.SourceCoreNote)
	likely.Process.Signal = target.Known(diagnose.Signal{Number: 6, Code: -6}, target.SourceCoreNote)
	healthy := facts("/tmp/ghost.fifo")
	healthy.Threads = healthy.Threads[1:]
	poor := facts("/tmp/ghost.fifo")
	poor.Threads[0] = diagnose.Thread{LWP: 4730, StackNote: "no binary for the innermost frame"}
	out := map[string]*incident.Incident{"certain": build(t, facts("/tmp/ghost.fifo")), "likely": build(t, likely), "healthy": build(t, healthy), "poor": build(t, poor)}
	out["likely"].System.Signal = &incident.Signal{Number: 6, Name: "SIGABRT"}
	out["likely"].Server = nil
	out["poor"].Warnings = []incident.Warning{{Code: "no-binary", Text: "the binary is missing"}}
	out["poor"].Input.TruncatedPercent = incident.Ptr(61.0)
	return out
}

func TestGoldenText(t *testing.T) {
	for name, inc := range cases(t) {
		golden(t, name, text(t, inc, TextOptions{Width: 80}))
	}
	inc := cases(t)["certain"]
	inc.Modules = []incident.Module{{Path: "/usr/sbin/mariadbd", Status: "mismatch", BuildID: "8f3c", FileID: "51aa", LookedIn: []string{"/usr/lib/debug"}}}
	golden(t, "verbose", text(t, inc, TextOptions{Width: 80, Verbose: true, All: true}))
	golden(t, "wide", text(t, cases(t)["certain"], TextOptions{Width: 120}))
}

func TestGoldenJSON(t *testing.T) {
	doc, err := validator.UnmarshalJSON(strings.NewReader(docs.IncidentSchema()))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("incident.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("incident.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, inc := range cases(t) {
		var one, two bytes.Buffer
		if err := JSON(&one, inc); err != nil {
			t.Fatal(err)
		}
		if err := JSON(&two, cases(t)[name]); err != nil {
			t.Fatal(err)
		}
		if one.String() != two.String() {
			t.Errorf("%s: two runs, two texts", name)
		}
		v, err := validator.UnmarshalJSON(bytes.NewReader(one.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.HasPrefix(one.String(), "{\n  \"schema\": \"mycore/incident\",\n  \"schemaVersion\": 1,") {
			t.Errorf("%s begins with %.80q", name, one.String())
		}
		var back incident.Incident
		if err := json.Unmarshal(one.Bytes(), &back); err != nil {
			t.Errorf("%s: reading it back: %v", name, err)
		}
		if d := cmp.Diff(inc, &back); d != "" {
			t.Errorf("%s: what was written isn't what is read (-want +got):\n%s", name, d)
		}
		if name == "certain" {
			golden(t, "certain.json", one.String())
		}
	}
}

// many makes an incident with n stuck threads on n paths.
func many(t *testing.T, n int) *incident.Incident {
	in := facts("/tmp/ghost.fifo")
	for i := range n {
		th := in.Threads[0]
		th.LWP = 5000 + i
		th.Syscall.V.Path = target.Known(fmt.Sprintf("/tmp/%s-%d", strings.Repeat("long name ", 30), i), target.SourceMemory)
		in.Threads = append(in.Threads, th)
	}
	return build(t, in)
}

// The verdict, the first step and the count of threads stand on the first
// screen, however many findings there are.
func TestFirstScreen(t *testing.T) {
	incs := cases(t)
	incs["many"] = many(t, 60)
	long := facts("/tmp/" + strings.Repeat("d/", 2000) + "x")
	incs["long path"] = build(t, long)
	for name, inc := range incs {
		lines := strings.Split(text(t, inc, TextOptions{}), "\n")
		screen := strings.Join(lines[:min(len(lines), 24)], "\n")
		rows := 0
		for _, l := range lines {
			rows += max(1, (untrusted.Cells(l)+79)/80)
			if strings.HasPrefix(l, "threads   ") {
				break
			}
		}
		if rows > 24 {
			t.Errorf("%s: the counts of threads are on row %d", name, rows)
		}
		for _, want := range []string{"threads   "} {
			if !strings.Contains(screen, want) {
				t.Errorf("%s: %q isn't on the first screen:\n%s", name, want, screen)
			}
		}
		if len(inc.Findings) > 0 && !strings.Contains(screen, "first step") {
			t.Errorf("%s: no first step on the first screen:\n%s", name, screen)
		}
	}
	if s := text(t, incs["many"], TextOptions{}); !strings.Contains(s, "findings below") || strings.Count(s, "\nFINDING ") != 61 {
		t.Error("many: findings are lost")
	}
}

// A step that destroys isn't the first one because the milder ones lack a fact.
func TestFirstStepIsNotTheKill(t *testing.T) {
	in := facts("/tmp/ghost.fifo")
	in.Threads[0].Syscall.V.Path = target.Value[string]{}
	in.Server = diagnose.Server{}
	inc := build(t, in)
	screen, rest, _ := strings.Cut(text(t, inc, TextOptions{}), "FINDING 1")
	if strings.Contains(screen, "KILL 4711") || !strings.Contains(screen, "first step   none that this evidence allows") {
		t.Errorf("first screen:\n%s", screen)
	}
	if !strings.Contains(rest, "kill -KILL 4711") {
		t.Errorf("the last step is gone:\n%s", rest)
	}
}

// Parameters give way where a line is too short for them and the offset.
func TestLongFunctionKeepsItsOffset(t *testing.T) {
	in := facts("/tmp/ghost.fifo")
	in.Threads[0].Frames[2].Function = "mysql_load(THD*, sql_exchange const*, TABLE_LIST*, List<Item>&, List<Item>&)"
	s := text(t, build(t, in), TextOptions{Verbose: true})
	if !strings.Contains(s, "mysql_load+0x12  mariadbd") || !strings.Contains(s, "my_open+0x11  mariadbd") {
		t.Error(s)
	}
}

func TestShare(t *testing.T) {
	for percent, want := range map[float64]string{0.01: "less than 1 %", 1: "1 %", 60.7: "61 %", 99.96: "more than 99 %", 100: "100 %"} {
		if got := share(percent); got != want {
			t.Errorf("%v: %q, want %q", percent, got, want)
		}
	}
}

// Whatever the target wrote, no line steers the terminal, and no line but a
// command is wider than the screen.
func TestTextIsSafeAndFits(t *testing.T) {
	nasty := "/tmp/\x1b]0;x\x07\x9b31m\u202egnp.\n\r\x7f\xff" + strings.Repeat("日本", 40)
	in := facts(nasty)
	in.Threads[0].Name = target.Known("evil\x1b[2J", target.SourceProc)
	in.Threads[0].WaitChannel.V = "wait_for_partner" + ".\x1b[1m"
	in.Threads[0].Frames[3].Function, in.Threads[0].Frames[3].Norm = "f\x1b[0m\n", "f\x1b[0m\n"
	inc := build(t, in)
	inc.Input.Path = "/x/\x1b[1mcore\n"
	inc.Server.Version = "10\x1b[0m"
	inc.Verdict.Collect = append(inc.Verdict.Collect, "\x1b[5m")
	inc.Modules = []incident.Module{{Path: "/a\nb\x1b", Status: "missing", LookedIn: []string{"\x1b"}}}
	for _, o := range []TextOptions{{}, {Width: 40}, {Width: 1}, {Width: 100000}, {Width: 80, All: true, Verbose: true}} {
		out := text(t, inc, o)
		if !utf8.ValidString(out) {
			t.Error("not UTF-8")
		}
		for i, l := range strings.Split(out, "\n") {
			if !untrusted.Safe(l) {
				t.Errorf("width %d, line %d isn't safe: %q", o.Width, i+1, l)
			}
			if n := untrusted.Cells(l); n > o.width() && !strings.Contains(l, "&&") {
				t.Errorf("width %d, line %d has %d cells: %q", o.Width, i+1, n, l)
			}
		}
	}
}

func TestColorOnlyAdds(t *testing.T) {
	inc := cases(t)["certain"]
	colored := text(t, inc, TextOptions{Color: true})
	plain := strings.NewReplacer(ansiBold, "", ansiRed, "", ansiReset, "").Replace(colored)
	if plain == colored {
		t.Error("no colour")
	}
	if d := cmp.Diff(text(t, inc, TextOptions{}), plain); d != "" {
		t.Errorf("colour changes the text:\n%s", d)
	}
}

func TestAllListsIdleThreads(t *testing.T) {
	inc := cases(t)["certain"]
	if s := text(t, inc, TextOptions{}); strings.Contains(s, "LWP 4720") {
		t.Error("idle threads aren't folded")
	}
	if s := text(t, inc, TextOptions{All: true}); !strings.Contains(s, "LWP 4720 4721 4722") {
		t.Error("--all doesn't list idle threads")
	}
}

func TestHandles(t *testing.T) {
	inc := cases(t)["certain"]
	h := incident.Ptr(incident.Addr(0x7f1c5c1ff6c0))
	answers := []incident.HandleAnswer{
		{Input: "0x7f1c5c1ff6c0", Status: "found", Handle: h, Thread: &inc.Threads[len(inc.Threads)-1],
			Lines: []string{"the thread pointer of LWP 4730 is the handle, and the structure there names LWP 4730"}},
		{Input: "0x7f1c00000000", Status: "stale", Handle: incident.Ptr(incident.Addr(0x7f1c00000000)), Lines: []string{"A thread structure without a thread: the thread has ended."}},
		{Input: "x\x1b[1m", Status: "invalid", Lines: []string{"not a handle"}},
	}
	var b strings.Builder
	if err := Handles(&b, answers, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "handles", b.String())
	if strings.Contains(b.String(), "\x1b") {
		t.Error("the input reaches the terminal")
	}
	b.Reset()
	if err := HandlesJSON(&b, answers); err != nil {
		t.Fatal(err)
	}
	var back []incident.HandleAnswer
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || len(back) != 3 || back[1].Thread != nil || back[0].Thread.LWP != 4730 {
		t.Errorf("%v %+v", err, back)
	}
}

func TestShortName(t *testing.T) {
	for in, want := range map[string]string{
		"my_open": "my_open", "open64": "open64",
		"mysql_load(THD*, sql_exchange const*, TABLE_LIST*)":                           "mysql_load",
		"void Detached_thread::operator()<void (&)()>(void (&)())":                     "Detached_thread::operator()",
		"(anonymous namespace)::f(int)":                                                "(anonymous namespace)::f",
		"a::(anonymous namespace)::f<int>(std::pair<int, int>)":                        "a::(anonymous namespace)::f",
		"std::ostream& operator<< <char>(std::ostream&, char)":                         "operator<<",
		"X::operator->() const":                                                        "X::operator->",
		"X::operator bool() const":                                                     "X::operator bool",
		"f(int)::{lambda(int)#1}::operator()(int) const":                               "f",
		"std::thread::_State_impl<std::thread::_Invoker<std::tuple<int> > >::_M_run()": "std::thread::_State_impl::_M_run",
		"bool std::operator==<int>(int)":                                               "std::operator==",
		"":                                                                             "", "(": "(", "f<": "f", "<": "",
	} {
		if got := shortName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		in          string
		first, rest int
		want        []string
	}{
		{"", 20, 20, []string{""}},
		{"aaaa bbbb cccc", 10, 10, []string{"aaaa bbbb", "cccc"}},
		{"aaaa bbbb cccc dddd", 10, 14, []string{"aaaa bbbb", "cccc dddd"}},
		{"0123456789abcdef x", 10, 10, []string{"0123456789", "abcdef x"}},
		{"日本日本日本", 10, 10, []string{"日本日本日", "本"}},
	} {
		if d := cmp.Diff(c.want, wrap(c.in, c.first, c.rest)); d != "" {
			t.Errorf("%q:\n%s", c.in, d)
		}
	}
}

func BenchmarkText(b *testing.B) {
	res, err := diagnose.Run(facts("/tmp/ghost.fifo"))
	if err != nil {
		b.Fatal(err)
	}
	inc := &incident.Incident{Verdict: res.Verdict, Findings: res.Findings, Groups: res.Groups}
	b.ReportAllocs()
	for b.Loop() {
		if err := Text(discard{}, inc, TextOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Names come from the image: any bytes give a name that is no longer.
func FuzzShortName(f *testing.F) {
	for _, s := range []string{"f(int)", "void a::operator()<b>(c)", "operator<<", "(anonymous namespace)::x{lambda()#1}", "<<>>(("} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := shortName(s); len(got) > len(s) {
			t.Errorf("%q became %q", s, got)
		}
	})
}
