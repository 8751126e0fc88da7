package procstat

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mycore/internal/target"
)

const jsonThreads = `{"__version": "1", "procstat": {"threads": {"1158": {"process_id": 1158, "command": "mysqld", "threads": {` +
	`"100460": {"thread_id": 100460, "thread_name": "-", "cpu": 0, "priority": 120, "run_state": "sleep", "wait_channel": "fifoor"}, ` +
	`"100461": {"thread_id": 100461, "thread_name": "io \"1\"", "cpu": -1, "priority": 120, "run_state": "lock", "lock_name": "pipe"}, ` +
	`"100462": {"thread_id": 100462, "thread_name": "-", "cpu": 1, "priority": 120, "run_state": "run", "wait_channel": "-"}}}, ` +
	`"999": {"process_id": 999, "command": "sh", "threads": {"100999": {"thread_id": 100999, "thread_name": "-", "cpu": 0, "priority": 1, "run_state": "sleep", "wait_channel": "wait"}}}}}}`

// pretty breaks and indents JSON like libxo's option pretty.
func pretty(s string) string {
	return strings.NewReplacer("{", "{\n  ", ", \"", ",\n    \"", "}", "\n}").Replace(s)
}

func TestJSONThreads(t *testing.T) {
	want := "pid 1158 mysqld\n100460 name=\"mysqld\" state=\"S\" wchan=\"fifoor\"\n100461 name=\"io \\\"1\\\"\" state=\"L\" wchan=\"*pipe\"\n100462 name=\"mysqld\" state=\"R\" wchan=\"\"\n"
	for name, text := range map[string]string{
		"one line": jsonThreads, "pretty": pretty(jsonThreads), "blank before": "\n  " + jsonThreads, "bom": "\xef\xbb\xbf" + jsonThreads,
		"two documents": jsonThreads + "\n" + `{"procstat": {"basic": {"1158": {"process_id": 1158, "threads": 23, "wait_channel": "select"}}}}`,
	} {
		t.Run(name, func(t *testing.T) { check(t, show(read(t, text, 1158)), want) })
	}
	// A document that was cut gives the rows before the cut.
	cut := jsonThreads[:strings.Index(jsonThreads, `"100462"`)+30]
	if p := read(t, cut, 1158); p.Threads[100460].WaitChannel.V != "fifoor" || p.Threads[100461].WaitChannel.V != "*pipe" {
		t.Errorf("%s", show(p))
	}
}

func TestJSONStacks(t *testing.T) {
	// Keys repeat per thread in one object; lists as far as the source shows
	// them, strict and not.
	want := "pid 1158 mysqld\n100460 name=\"mysqld\" state=\"\" wchan=\"\" stack=mi_switch<fifo_open\n" +
		"100461 name=\"a\" state=\"R\" wchan=\"\"\n100462 name=\"mysqld\" state=\"\" wchan=\"\" stack=mi_switch<kern_kevent\n"
	row := `"process_id": 1158, "thread_id": %d, "command": "mysqld", "thread_name": "%s", %s`
	for name, lists := range map[string][2]string{
		"strings":  {`"trace": ["mi_switch", "fifo_open"]`, `"trace": ["mi_switch", "kern_kevent"]`},
		"tokens":   {`"trace": ["token": "mi_switch", "token": "fifo_open"]`, `"trace": ["token": ["mi_switch", "kern_kevent"]]`},
		"verbose":  {`"trace": ["#0 0xffffffff80c0a2d1 at mi_switch+0xc1", "#1 0xffffffff80c0a2d1 at fifo_open+0x1"]`, `"trace": ["mi_switch+0xc1", "kern_kevent+0xf"]`},
		"objects":  {`"trace": [{"token": "mi_switch"}, {"token": "fifo_open"}]`, `"trace": ["mi_switch", "kern_kevent"]`},
		"one text": {`"trace": ["mi_switch", "fifo_open", "not a name!"]`, `"trace": ["mi_switch", "kern_kevent"]`},
	} {
		text := `{"procstat": {"kstack": {"1158": {` + strings.Join([]string{
			fmt.Sprintf(row, 100460, "-", lists[0]), fmt.Sprintf(row, 100461, "a", `"state": "<running>"`), fmt.Sprintf(row, 100462, "-", lists[1]),
		}, ", ") + `}}}}`
		if name == "objects" {
			continue // a shape that the source rules out; it must only not do harm
		}
		t.Run(name, func(t *testing.T) { check(t, show(read(t, text, 1158)), want) })
	}
}

func TestJSONSignalsAndFiles(t *testing.T) {
	var threads, process []string
	for n := 1; n <= 128; n++ {
		name := fmt.Sprint(n)
		if n <= 31 {
			name = signalNames[n-1]
		}
		threads = append(threads, fmt.Sprintf(`"%s": {"list": %v, "mask": %v}`, name, n == 15, n == 1 || n == 15))
		process = append(process, fmt.Sprintf(`"%s": {"list": %v, "ignore": %v, "catch": %v}`, name, n == 2, n == 13, n == 32))
	}
	text := `{"procstat": {"thread_signals": {"1158": {"process_id": 1158, "command": "mysqld", "threads": {"100460": {"thread_id": 100460, "signals": {` + strings.Join(threads, ", ") + `}}}}}}}` + "\n" +
		`{"procstat": {"signals": {"1158": {"process_id": 1158, "command": "mysqld", "signals": {` + strings.Join(process, ", ") + `}}}}}` + "\n" +
		`{"procstat": {"files": {"1158": {"process_id": 1158, "command": "mysqld", "files": [` +
		`{"fd": "text", "fd_type": "vnode", "vode_type": "regular", "fd_flags": ["read"], "ref_count": "-", "offset": "-", "protocol": "-", "path": "/usr/local/libexec/mysqld"},` +
		`{"fd": 12, "fd_type": "socket", "fd_flags": ["read","write"], "ref_count": 2, "offset": 0, "protocol": "TCP", "sendq": 0, "recvq": 0, "path": "10.0.0.1:3306 10.0.0.2:4000"},` +
		`{"fd": 3, "fd_type": "vnode", "vode_type": "fifo", "fd_flags": ["read"], "ref_count": 1, "offset": 7, "protocol": "-", "path": "/tmp/a fifo"}]}}}}`
	p := read(t, text, 1158)
	th := p.Threads[100460]
	if len(p.Threads) != 1 || th.SigBlocked.V != 0x4001 || th.SigPending.V != 0x4000 || p.SigCaught.V != 1<<31 || p.SigIgnored.V != 1<<12 || p.SharedPending.V != 2 || len(p.Warnings) != 0 {
		t.Errorf("%s %#x %#x %#x", show(p), p.SigCaught.V, p.SigIgnored.V, p.SharedPending.V)
	}
	if p.Exe.V != "/usr/local/libexec/mysqld" || len(p.Files) != 2 || p.Files[0].Kind != "fifo" || p.Files[0].Path != "/tmp/a fifo" || p.Files[0].Pos.V != 7 ||
		p.Files[1].Protocol != "tcp" || p.Files[1].Peer != "10.0.0.2:4000" {
		t.Errorf("files %+v", p.Files)
	}
}

func FuzzLibxo(f *testing.F) {
	f.Add(jsonThreads)
	f.Add(`{"procstat": {"kstack": {"1158": {"process_id": 1158, "thread_id": 100460, "trace": ["token": "mi_switch+0x1"], "process_id": 1158, "thread_id": 100461, "state": "<running>"}}}}`)
	f.Add(`{"procstat": {"files": {"1158": {"process_id": 1158, "files": [{"fd": 3, "fd_type": "vnode"}]}}, "signals": {"1158": {"signals": {"HUP": {"list": true}}}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ReadProcstat("f", strings.NewReader("{"+text), 1158)
		checkView(t, p, err)
	})
}

// JSON that was cut short counts as far as it goes, and that is said.
func TestJSONCutShort(t *testing.T) {
	t.Parallel()
	const whole = `{"procstat": {"threads": {"1158": {"process_id": 1158, "command": "mysqld", "threads": {` +
		`"100460": {"thread_id": 100460, "thread_name": "-", "run_state": "sleep", "wait_channel": "fifoor"}, ` +
		`"100461": {"thread_id": 100461, "thread_name": "-", "run_state": "sleep", "wait_channel": "select"}}}}}}`
	for _, c := range []struct {
		text    string
		threads int
		warned  bool
	}{
		{whole, 2, false},
		{whole + "\n", 2, false},
		{whole[:len(whole)-1], 2, true},
		{whole[:strings.Index(whole, `"100461"`)], 1, true},
	} {
		p, err := ReadProcstat("t.json", strings.NewReader(c.text), 1158)
		if err != nil {
			t.Fatal(err)
		}
		warned := slices.ContainsFunc(p.Warnings, func(w target.Warning) bool {
			return w.Code == CodeIncomplete && strings.Contains(w.Text, "t.json")
		})
		if len(p.Threads) != c.threads || warned != c.warned {
			t.Errorf("%d bytes: %d threads, warnings %+v", len(c.text), len(p.Threads), p.Warnings)
		}
	}
}
