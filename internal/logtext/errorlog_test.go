package logtext

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var capture = time.Date(2026, 11, 21, 6, 31, 0, 0, time.UTC)

func errorLog(t *testing.T, text string, opts Options) *Log {
	t.Helper()
	l, err := ReadErrorLog("err.log", strings.NewReader(text), int64(len(text)), opts)
	if err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return l
}

// brief prints what a fact says, without its text.
func brief(f Fact) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s", f.Line, f.Kind)
	if !f.Time.IsZero() {
		fmt.Fprintf(&b, " %s", f.Time.Format("01-02T15:04:05"))
		if f.Inherited {
			b.WriteByte('~')
		}
		if f.Local {
			b.WriteByte('?')
		}
	}
	if f.SinceBoot.Known {
		fmt.Fprintf(&b, " +%v", f.SinceBoot.V)
	}
	for _, v := range []struct {
		name string
		n    uint64
	}{{"pid", uint64(f.PID)}, {"lwp", uint64(f.LWP)}, {"sig", uint64(f.Signal)}, {"line", uint64(f.SourceLine)}} {
		if v.n != 0 {
			fmt.Fprintf(&b, " %s=%d", v.name, v.n)
		}
	}
	for _, v := range []struct {
		name string
		n    uint64
	}{{"handle", f.Handle}, {"thd", f.Pointer}} {
		if v.n != 0 {
			fmt.Fprintf(&b, " %s=%#x", v.name, v.n)
		}
	}
	if f.Connection.Known {
		fmt.Fprintf(&b, " conn=%d", f.Connection.V)
	}
	for _, v := range [][2]string{{"proc", f.Process}, {"path", f.Path}, {"server", f.Server}, {"detail", f.Detail}, {"query", f.Query}} {
		if v[1] != "" {
			fmt.Fprintf(&b, " %s=%q", v[0], v[1])
		}
	}
	if f.Duration != 0 {
		fmt.Fprintf(&b, " for=%v", f.Duration)
	}
	return b.String()
}

func briefs(l *Log) []string {
	var out []string
	for _, f := range l.Facts {
		out = append(out, brief(f))
	}
	return out
}

func compare(t *testing.T, l *Log, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, briefs(l)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// crashReport is the text behind the crash line, as MariaDB 10.11.19 prints it.
const crashText = `Sorry, we probably made a mistake, and this is a bug.

Server version: 10.11.19-MariaDB-0+deb12u1 source revision: 5843d8475120241667a7ce0f8a1abb6c9b43a273

Thread pointer: 0x7f2338000c68
stack_bottom = 0x7f23318de000 thread_stack 0x49000
mariadbd(my_print_stacktrace+0x2e)[0x5632b256987e]

Trying to get some variables.
Some pointers may be invalid and cause the dump to abort.
Query (0x7f2338010a50): select boom() /*
Disk is full writing 'x' (Errcode: 28). Waiting for someone to free space...
Connection ID (thread ID): 99
*/

Connection ID (thread ID): 8
Status: NOT_KILLED

Optimizer switch: index_merge=on
Writing a core file...
Core pattern: core
`

func TestCrash(t *testing.T) {
	query := "select boom() /*\nDisk is full writing 'x' (Errcode: 28). Waiting for someone to free space...\nConnection ID (thread ID): 99\n*/"
	for _, c := range []struct{ name, before, want string }{
		{"MariaDB", "2026-11-21  6:30:56 0 [Note] mariadbd: ready for connections.\n261121  6:30:57 [ERROR] mariadbd got signal 11 ;\n", "2 crash 11-21T06:30:57?"},
		{"MySQL 5.6", "2026-11-21 06:30:56 1158 [Note] /usr/sbin/mysqld: ready for connections.\n06:30:57 UTC - mysqld got signal 11 ;\n", "2 crash 11-21T06:30:56~?"},
		{"MySQL 5.5", "261121  6:30:56 [Note] /usr/sbin/mysqld: ready for connections.\n06:30:57 UTC - mysqld got signal 11 ;\n", "2 crash 11-21T06:30:56~?"},
		{"MySQL 9.7", "2026-11-21T06:30:56.123456Z 0 [System] [MY-010931] [Server] /usr/sbin/mysqld: ready for connections. Version: '9.7.4'\n2026-11-21T06:30:57Z UTC - mysqld got signal 11 ;\n", "2 crash 11-21T06:30:57"},
	} {
		ready := strings.Replace(strings.Replace(c.want[:strings.Index(c.want, "T06")], "2 crash", "1 ready", 1)+"T06:30:56?", "?", map[bool]string{true: "", false: "?"}[c.name == "MySQL 9.7"], 1)
		want := c.want + fmt.Sprintf(" sig=11 thd=0x7f2338000c68 conn=8 detail=\"NOT_KILLED\" query=%q", query)
		for form, text := range map[string]string{"": c.before + crashText, "crlf": strings.ReplaceAll(c.before+crashText, "\n", "\r\n")} {
			t.Run(c.name+form, func(t *testing.T) {
				l := errorLog(t, text, Options{Around: capture})
				compare(t, l, ready, want)
				if l.Version != "10.11.19-MariaDB-0+deb12u1" && form == "" {
					t.Errorf("version %q", l.Version)
				}
			})
		}
		// The same through a journal.
		var j strings.Builder
		for line := range strings.Lines(c.before + crashText) {
			j.WriteString("Nov 21 06:30:58 db1 mariadbd[1158]: " + line)
			j.WriteString("Nov 21 06:30:58 db1 cron[77]: mysqld got signal 6 ;\n")
		}
		l := errorLog(t, j.String(), Options{Around: capture})
		if len(l.Facts) != 2 || l.Facts[1].Connection.V != 8 || l.Facts[1].Query != query || l.PID != 1158 {
			t.Errorf("%s, journal: %v", c.name, briefs(l))
		}
	}
}

func TestErrorFacts(t *testing.T) {
	const iso, space, maria, old = "2026-11-21T06:30:56.123456Z ", "2026-11-21 06:30:56 ", "2026-11-21  6:30:56 ", "261121  6:30:56 "
	for _, c := range []struct{ line, want string }{
		{maria + "0 [Note] Starting MariaDB 10.11.19-MariaDB source revision 5843d as process 22405", "start T? pid=22405"},
		{iso + "0 [System] [MY-010116] [Server] /usr/sbin/mysqld (mysqld 9.7.4) starting as process 1158", "start T pid=1158"},
		{maria + "0 [Note] mariadbd (initiated by: unknown): Normal shutdown", "shutdown T?"},
		{iso + "8 [System] [MY-013172] [Server] Received SHUTDOWN from user root. Shutting down mysqld (Version: 9.7.4).", "shutdown T conn=8"},
		{maria + "0 [Note] mariadbd: Shutdown complete", "stopped T?"},
		{space + "1158 [Note] Got signal 15 from thread 3", "signal T? sig=15 conn=3"},
		{maria + "0 [Warning] Got signal 15 from thread 0", "signal T? sig=15 conn=0"},
		{"InnoDB: Warning: a long semaphore wait:", "semaphore-wait"},
		{"--Thread 140445138515712 has waited at row0ins.cc line 2401 for 241.00 seconds the semaphore:", "semaphore-wait line=2401 handle=0x7fbbee977700 path=\"row0ins.cc\" for=4m1s"},
		{"--Thread 35063816192 has waited at dict0dict.cc line 12 for 600 seconds the semaphore:", "semaphore-wait line=12 handle=0x829f76000 path=\"dict0dict.cc\" for=10m0s"},
		{maria + "0 [Warning] InnoDB: A long wait (120 seconds) was observed for dict_sys.latch", "semaphore-wait T? for=2m0s"},
		{"InnoDB: Error: semaphore wait has lasted > 600 seconds", "semaphore-fatal for=10m0s"},
		{iso + "0 [ERROR] [MY-012872] [InnoDB] Semaphore wait has lasted > 600 seconds. We intentionally crash the server because it appears to be hung.", "semaphore-fatal T for=10m0s"},
		{maria + "0 [ERROR] [FATAL] InnoDB: innodb_fatal_semaphore_wait_threshold was exceeded for dict_sys.latch. Please refer to ...", "semaphore-fatal T?"},
		{space + "7fbbff73b6c0  InnoDB: Assertion failure in thread 140445138515712 in file row0row.cc line 123", "assertion T? line=123 handle=0x7fbbee977700 path=\"row0row.cc\""},
		{iso + "0 [ERROR] [MY-013183] [InnoDB] Assertion failure: btr0cur.cc:1234:a == b thread 140445138515712", "assertion T line=1234 handle=0x7fbbee977700 path=\"btr0cur.cc\" detail=\"a == b\""},
		{maria + "0x7f23318df6c0  InnoDB: Assertion failure in file ./storage/innobase/btr/btr0cur.cc line 77", "assertion T? line=77 handle=0x7f23318df6c0 path=\"./storage/innobase/btr/btr0cur.cc\""},
		{"InnoDB: Failing assertion: page_is_leaf(page)", "assertion detail=\"page_is_leaf(page)\""},
		{"mariadbd: /build/sql/item.cc:4567: virtual bool Item::f(): Assertion `x != 'y'' failed.", "assertion line=4567 path=\"/build/sql/item.cc\" detail=\"x != 'y'\""},
		{maria + "5 [ERROR] mariadbd: Disk is full writing './binlog.000001' (Errcode: 28 \"No space left on device\"). Waiting for someone to free space...", "disk-full T? conn=5 path=\"./binlog.000001\""},
		{iso + "8 [ERROR] [MY-010847] [Server] Disk is full writing './binlog.000001' (OS errno 28 - No space left on device). Waiting for someone to free space... Retry in 60 secs.", "disk-full T conn=8 path=\"./binlog.000001\""},
		{old + "[ERROR] /usr/sbin/mysqld: Error writing file '/tmp/x' (Errcode: 28)", "disk-full T? path=\"/tmp/x\""},
		{space + "1158 [ERROR] Error in accept: Too many open files", "too-many-files T?"},
		{old + "[ERROR] /usr/sbin/mysqld: Can't open file: './d/t.frm' (errno: 24)", "too-many-files T? path=\"./d/t.frm\""},
		{space + "7fbbff73b6c0 INNODB TABLE MONITOR OUTPUT", "table-monitor T? handle=0x7fbbff73b6c0"},
		{space + "140074370500288 INNODB MONITOR OUTPUT", "innodb-monitor T? handle=0x7f659b1886c0"},
		{space + "0x7f23318df6c0 INNODB MONITOR OUTPUT", "innodb-monitor T? handle=0x7f23318df6c0"},
		{old + "INNODB TABLE MONITOR OUTPUT", "table-monitor T?"},
		{maria + "9 [Warning] Aborted connection 9 to db: 'x' user: 'root' host: 'localhost' (Got timeout reading communication packets)", "aborted T? conn=9 detail=\"Got timeout reading communication packets\""},
		{space + "7fbbff73b6c0 InnoDB: Warning: difficult to find free blocks in", "free-blocks T? handle=0x7fbbff73b6c0"},
		{"2015-08-04  6:12:09 140123456789504 [Note] Got signal 1 from thread 4", ""},
		{"2026-11-21T08:30:56.123456+02:00 7 [Note] Got signal 1 from thread 4", "signal T sig=1 conn=4"},
		// None of these is a fact.
		{space + "1158 [ERROR] x (errno: 240)", ""}, {"END OF INNODB MONITOR OUTPUT", ""}, {"Aborted connection x", ""}, {"x got signal 11", ""}, {"x got signal 999 ;", ""},
		{"INNODB has waited at lunch", ""}, {"Assertion failure: nothing", ""},
	} {
		l := errorLog(t, "2026-11-21 06:30:00 1158 [Note] x\n"+c.line+"\n", Options{Around: capture})
		var want []string
		if c.want != "" {
			w := strings.Replace(c.want, " T", " 11-21T06:30:56", 1)
			if w == c.want { // no time of its own
				kind, rest, _ := strings.Cut(c.want, " ")
				w = kind + " 11-21T06:30:00~?"
				if rest != "" {
					w += " " + rest
				}
			}
			want = []string{"2 " + w}
		}
		if diff := cmp.Diff(want, briefs(l)); diff != "" {
			t.Errorf("%s\n(-want +got)\n%s", c.line, diff)
		}
		for _, f := range l.Facts {
			if f.Text != c.line || f.Offset != 34 {
				t.Errorf("text %q at %d", f.Text, f.Offset)
			}
		}
	}
}

func TestWindow(t *testing.T) {
	line := func(at time.Time) string {
		return at.Format("2006-01-02T15:04:05Z") + " 1 [Note] Got signal 15 from thread 1\n"
	}
	var b strings.Builder
	for h := -30; h <= 30; h++ {
		b.WriteString(line(capture.Add(time.Duration(h) * 30 * time.Minute)))
	}
	text := b.String()
	if n := len(errorLog(t, text, Options{Around: capture}).Facts); n != 5 {
		t.Errorf("%d facts within an hour, want 5", n)
	}
	if n := len(errorLog(t, text, Options{Around: capture, Window: 10 * time.Minute}).Facts); n != 1 {
		t.Errorf("%d facts within ten minutes, want 1", n)
	}
	if n := len(errorLog(t, text, Options{}).Facts); n != 61 {
		t.Errorf("%d facts without a time, want all", n)
	}
	if n := len(errorLog(t, text, Options{LastLines: 7}).Facts); n != 7 {
		t.Errorf("%d facts of the last lines, want 7", n)
	}
	// Times that don't tell their zone: 14 hours more, unless the caller knows.
	local := strings.NewReplacer("T", " ", "Z", "").Replace(text)
	l := errorLog(t, local, Options{Around: capture})
	if len(l.Facts) != 61 || len(l.Warnings) != 1 || l.Warnings[0].Code != CodeZone {
		t.Errorf("%d facts, %v", len(l.Facts), l.Warnings)
	}
	zone := time.FixedZone("", 2*3600)
	if l = errorLog(t, local, Options{Around: capture, Location: zone}); len(l.Facts) != 5 || !l.Facts[2].Time.Equal(capture.Add(-0*time.Hour).Add(0)) && !l.Facts[2].Time.Equal(capture) {
		t.Errorf("%v", briefs(l))
	}
	// Lines without any time.
	plain := strings.Repeat("Got signal 15 from thread 1\n", 50)
	if n := len(errorLog(t, plain, Options{Around: capture, LastLines: 20}).Facts); n != 20 {
		t.Errorf("%d facts of a log without times, want 20", n)
	}
}

// hugeLog is a log of any size: line i stands at i*len(line).
type hugeLog struct {
	lines int64
	read  *int64
	timed bool
}

const hugeLine = "2026-11-21T06:30:56Z 1 [Note] Got signal 15 from thread 1                   \n"

func (h hugeLog) size() int64 { return h.lines * int64(len(hugeLine)) }

func (h hugeLog) ReadAt(p []byte, off int64) (int, error) {
	*h.read += int64(len(p))
	n := 0
	for n < len(p) {
		i := (off + int64(n)) / int64(len(hugeLine))
		if i >= h.lines {
			return n, io.EOF
		}
		line := hugeLine
		if h.timed {
			line = capture.Add(time.Duration(i-h.lines/2)*time.Second).Format("2006-01-02T15:04:05Z") + hugeLine[20:]
		} else {
			line = "x" + hugeLine[1:]
		}
		n += copy(p[n:], line[(off+int64(n))%int64(len(hugeLine)):])
	}
	return n, nil
}

func TestHugeLog(t *testing.T) {
	var read int64
	h := hugeLog{lines: 1 << 24, read: &read, timed: true} // 1.3 GB
	l, err := ReadErrorLog("err.log", h, h.size(), Options{Around: capture, Window: time.Minute})
	if err != nil || len(l.Facts) != 121 || l.Facts[60].Line != 0 || !l.Facts[60].Time.Equal(capture) || l.Facts[60].Offset != h.size()/2 {
		t.Fatalf("%v %v", err, l)
	}
	if read > maxRead/2 || len(l.Warnings) != 1 || l.Warnings[0].Code != CodePart {
		t.Errorf("read %d bytes, %v", read, l.Warnings)
	}
	// A window with more text than is read: the part around the capture.
	l, err = ReadErrorLog("err.log", h, h.size(), Options{Around: capture, Window: 240 * time.Hour, Location: time.UTC})
	if err != nil || len(l.Facts) != maxFacts || l.From > h.size()/2-maxRead/2+probeBytes || l.From < h.size()/2-maxRead/2-2*probeBytes {
		t.Errorf("%v, %d facts from %d", err, len(l.Facts), l.From)
	}
	read = 0
	h.timed = false
	l, err = ReadErrorLog("err.log", h, h.size(), Options{Around: capture, LastLines: 10})
	if err != nil || len(l.Facts) != 10 || read > 3*maxRead || l.From != h.size()-maxRead {
		t.Errorf("%v, %d bytes read, %+v", err, read, l.Warnings)
	}
	// Too many facts: the latest stay.
	l, err = ReadErrorLog("err.log", h, h.size(), Options{LastLines: 1 << 30})
	if err != nil || len(l.Facts) != maxFacts || l.Facts[maxFacts-1].Offset != h.size()-int64(len(hugeLine)) || len(l.Warnings) != 2 {
		t.Errorf("%v, %d facts, %v", err, len(l.Facts), l.Warnings)
	}
}

func TestBadErrorLog(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "prose": "hello\nworld\n", "binary": "\x7fELF" + strings.Repeat("\x00\xff\n", 1000), "no newline": strings.Repeat("x", 1<<20),
		"kernel log": "[    0.000000] Linux version 6.18\n",
	} {
		l, err := ReadErrorLog("e\n", strings.NewReader(text), int64(len(text)), Options{})
		if l != nil || !errors.Is(err, ErrNoLog) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v %v", name, l, err)
		}
	}
	// NUL bytes of a file system's recovery, control characters, a long line.
	text := strings.Repeat("\x00", 5000) + "2026-11-21T06:30:56Z 1 [Note] Got signal 15 from thread 1\x1b[2J\n" + strings.Repeat("y", 1<<18) + " Got signal 15 from thread 1\nGot signal 1 from thread 2\n"
	l := errorLog(t, text, Options{Around: capture})
	compare(t, l, "1 signal 11-21T06:30:56 sig=15 conn=1", "3 signal 11-21T06:30:56~ sig=1 conn=2")
	if l.Facts[1].Offset != int64(len(text)-len("Got signal 1 from thread 2\n")) || !strings.Contains(l.Facts[0].Text, "\x1b") {
		t.Errorf("%+v", l.Facts)
	}
	if _, err := ReadErrorLog("e", failing{}, 100, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }

func checkLog(t *testing.T, text string, l *Log, err error) {
	t.Helper()
	if (l == nil) == (err == nil) {
		t.Fatalf("%v, %v", l, err)
	}
	if l == nil {
		return
	}
	for _, f := range l.Facts {
		if f.Kind == "" || len(f.Text) > maxText || len(f.Query) > maxQuery || f.Offset < 0 || f.Offset >= int64(len(text)) || f.Line < 1 || f.Signal < 0 || f.Signal > 128 ||
			f.PID < 0 || f.LWP < 0 || f.Duration < 0 {
			t.Fatalf("%+v", f)
		}
	}
}

func FuzzErrorLog(f *testing.F) {
	f.Add("261121  6:30:57 [ERROR] mariadbd got signal 11 ;\n" + crashText)
	f.Add("2026-11-21T06:30:56Z 0 [ERROR] [MY-013183] [InnoDB] Assertion failure: btr0cur.cc:1234:a == b thread 140445138515712\n")
	f.Add("Nov 21 06:30:58 db1 mariadbd[1158]: 2026-11-21  6:30:56 5 [ERROR] Disk is full writing './b' (Errcode: 28)\n--Thread 1 has waited at x line 1 for 2.00 seconds the semaphore:\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, o := range []Options{{}, {Around: capture, LastLines: 3}} {
			l, err := ReadErrorLog("f", strings.NewReader(text), int64(len(text)), o)
			checkLog(t, text, l, err)
		}
	})
}

func BenchmarkErrorLog(b *testing.B) {
	text := strings.Repeat("2026-11-21T06:30:56.123456Z 12 [Note] [MY-010000] [Server] something that is of no interest here\n", 10000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadErrorLog("f", strings.NewReader(text), int64(len(text)), Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
