package procstat

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// Header lines as procstat prints them (FreeBSD 10.4 and 12.1).
const (
	headThreads = "  PID    TID COMM                TDNAME              CPU  PRI STATE   WCHAN    \n"
	headStacks  = "  PID    TID COMM                TDNAME              KSTACK                       \n"
	headTSig    = "  PID    TID COMM             SIG     FLAGS\n"
	headSig     = "  PID COMM             SIG     FLAGS\n"
	headFiles   = "  PID COMM                FD T V FLAGS    REF  OFFSET PRO NAME        \n"
	headBasic   = "  PID  PPID  PGID   SID  TSID THR LOGIN    WCHAN     EMUL          COMM        \n"
	headVM      = "  PID              START                END PRT  RES PRES REF SHD FLAG  TP PATH\n"
)

// threadLine prints a row of -t as FreeBSD 10.4 and later do; narrow is the
// form of FreeBSD 8 and 9.
func threadLine(pid, tid int, comm, td, cpu string, pri int, state, wchan string) string {
	return fmt.Sprintf("%5d %6d %-19s %-19s %3s %4d %-7s %-9s \n", pid, tid, comm, td, cpu, pri, state, wchan)
}

func narrowLine(pid, tid int, comm, td, cpu string, pri int, state, wchan string) string {
	return fmt.Sprintf("%5d %6d %-16s %-16s %3s %4d %-7s %-9s \n", pid, tid, comm, td, cpu, pri, state, wchan)
}

func stackLine(pid, tid int, comm, td, stack string) string {
	return fmt.Sprintf("%5d %6d %-19s %-19s %-29s \n", pid, tid, comm, td, stack)
}

// squeeze makes single blanks of all, as a ticket does.
func squeeze(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(out, "\n") + "\n"
}

// noHeaders drops the header lines, as option -h does.
func noHeaders(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "PID") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// show prints a view so that one string holds all that matters.
func show(p *kernelview.Process) string {
	if p == nil {
		return "nil"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "pid %d %s\n", p.PID.V, p.Name.V)
	for _, lwp := range p.LWPs() {
		t := p.Threads[lwp]
		fmt.Fprintf(&b, "%d name=%q state=%q wchan=%q", lwp, t.Name.V, t.State.V, t.WaitChannel.V)
		if t.KernelStack.Known {
			fmt.Fprintf(&b, " stack=%s", strings.Join(t.KernelStack.V, "<"))
		}
		if t.SigBlocked.Known {
			fmt.Fprintf(&b, " blocked=%#x pending=%#x", t.SigBlocked.V, t.SigPending.V)
		}
		b.WriteByte('\n')
	}
	for _, s := range p.Sightings {
		fmt.Fprintf(&b, "line %d: %q %q %q\n", s.Line, s.WaitChannel.V, s.State.V, s.Name.V)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "%s: %s\n", w.Code, w.Text)
	}
	return b.String()
}

func read(t *testing.T, text string, pid int) *kernelview.Process {
	t.Helper()
	p, err := ReadProcstat("p.txt", strings.NewReader(text), pid)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

func check(t *testing.T, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestStoryLines(t *testing.T) {
	p := read(t, "1158 100460 mysqld - 0 120 sleep fifoor\n", 1158)
	check(t, show(p), "pid 1158 mysqld\n100460 name=\"mysqld\" state=\"S\" wchan=\"fifoor\"\n")
	if th := p.Threads[100460]; th.WaitChannel.Source != target.SourceProcstat || p.PID.Source != target.SourceProcstat {
		t.Errorf("sources %+v", th)
	}
	// As FreeBSD 10.4 prints the same row.
	if got := threadLine(1158, 100460, "mysqld", "-", "0", 120, "sleep", "fifoor"); got != " 1158 100460 mysqld              -                     0  120 sleep   fifoor    \n" {
		t.Fatalf("the test's row differs from FreeBSD's: %q", got)
	}
	ps, err := ReadPS("ps.txt", strings.NewReader("1158 fifoor - I 0:00.03 /usr/local/libexec/mysqld --defaults-extra-file=/var/db/mysql/my.cnf\n"), 1158)
	if err != nil {
		t.Fatal(err)
	}
	check(t, show(ps), "pid 1158 \nline 1: \"fifoor\" \"I\" \"/usr/local/libexec/mysqld --defaults-extra-file=/var/db/mysql/my.cnf\"\n")
	if w := ps.WaitMessages(); !maps.Equal(w, map[string]int{"fifoor": 1}) || ps.Sightings[0].WaitChannel.Source != target.SourcePS {
		t.Errorf("messages %v, %+v", w, ps.Sightings)
	}
}

// forms are the ways in which one listing reaches us.
func forms(full string) map[string]string {
	return map[string]string{
		"full": full, "no header": noHeaders(full), "squeezed": squeeze(full), "squeezed, no header": squeeze(noHeaders(full)),
		"crlf": strings.ReplaceAll(full, "\n", "\r\n"), "no last newline": strings.TrimSuffix(full, "\n"),
		"prompts around": "root@db:~ # procstat -t 1158\n" + full + "root@db:~ # \n\n",
	}
}

func TestThreads(t *testing.T) {
	want := "pid 1158 mysqld\n" +
		"100411 name=\"mysqld\" state=\"S\" wchan=\"select\"\n" +
		"100412 name=\"io wait 2\" state=\"S\" wchan=\"*vm page\"\n" +
		"100413 name=\"mysqld\" state=\"R\" wchan=\"\"\n" +
		"100414 name=\"sleep 7 120 x\" state=\"T\" wchan=\"uwait\"\n" +
		"100415 name=\"conn\" state=\"L\" wchan=\"*pipe\"\n" +
		"100416 name=\"mysqld\" state=\"\" wchan=\"zio->io_\"\n"
	rows := func(line func(pid, tid int, comm, td, cpu string, pri int, state, wchan string) string) string {
		return line(1158, 100411, "mysqld", "-", "-1", 120, "sleep", "select") +
			line(1158, 100412, "mysqld", "io wait 2", "-1", -16, "sleep", "*vm page") +
			line(1158, 100413, "mysqld", "-", "3", 96, "run", "-") +
			line(1158, 100414, "mysqld", "sleep 7 120 x", "-", 120, "stop", "uwait") +
			line(1158, 100415, "mysqld", "conn", "255", 120, "lock", "*pipe") +
			line(1158, 100416, "mysqld", "-", "1", 120, "??", "zio->io_")
	}
	oldHead := fmt.Sprintf("%5s %6s %-16s %-16s %2s %4s %-7s %-9s\n", "PID", "TID", "COMM", "TDNAME", "CPU", "PRI", "STATE", "WCHAN")
	for from, full := range map[string]string{"wide": headThreads + rows(threadLine), "narrow": oldHead + rows(narrowLine)} {
		for name, text := range forms(full) {
			t.Run(from+" "+name, func(t *testing.T) { check(t, show(read(t, text, 1158)), want) })
		}
	}
}

func TestCommandWithSpaces(t *testing.T) {
	full := headThreads +
		threadLine(77, 100500, "my server 2", "-", "0", 120, "sleep", "select") +
		threadLine(77, 100501, "my server 2", "trim zroot", "0", 120, "sleep", "-") +
		threadLine(77, 100502, "my server 2", "solthread 0xfffffff", "0", 120, "sleep", "uwait")
	want := "pid 77 my server 2\n100500 name=\"my server 2\" state=\"S\" wchan=\"select\"\n" +
		"100501 name=\"trim zroot\" state=\"S\" wchan=\"\"\n100502 name=\"solthread 0xfffffff\" state=\"S\" wchan=\"uwait\"\n"
	for name, text := range forms(full) {
		t.Run(name, func(t *testing.T) { check(t, show(read(t, text, 77)), want) })
	}
	// The row that tells the name may come last.
	got := read(t, "77 100501 my server 2 trim zroot 0 120 sleep -\n77 100500 my server 2 - 0 120 sleep select\n", 77)
	if n := got.Threads[100501].Name.V; n != "trim zroot" {
		t.Errorf("name %q", n)
	}
	// Values longer than their column shift the rest.
	long := read(t, headThreads+threadLine(77, 100500, strings.Repeat("c", 19), strings.Repeat("d", 19), "0", 120, "sleep", "a")+
		"    7 1004567 "+"mysqld              worker one            0  120 sleep   uwait \n", 0+77)
	if n := long.Threads[100500].Name.V; n != strings.Repeat("d", 19) {
		t.Errorf("name of full width %q", n)
	}
}

const storyStack = "mi_switch sleepq_switch sleepq_catch_signals sleepq_wait_sig _sleep fifo_open VOP_OPEN_APV vn_open_vnode vn_open_cred kern_openat amd64_syscall Xfast_syscall"

func withOffsets(stack string) string {
	var out []string
	for i, f := range strings.Fields(stack) {
		out = append(out, fmt.Sprintf("%s+0x%x", f, 0xd1+i))
	}
	return strings.Join(out, " ")
}

func TestKernelStacks(t *testing.T) {
	frames := strings.ReplaceAll(storyStack, " ", "<")
	want := "pid 1158 mysqld\n" +
		"100459 name=\"io 3\" state=\"\" wchan=\"\" stack=" + frames + "\n" +
		"100460 name=\"mysqld\" state=\"\" wchan=\"\" stack=" + frames + "\n" +
		"100461 name=\"mysqld\" state=\"R\" wchan=\"\"\n" +
		"100462 name=\"page cleaner 0\" state=\"\" wchan=\"\"\n"
	for opt, stack := range map[string]string{"-k": storyStack, "-kk": withOffsets(storyStack)} {
		full := headStacks +
			stackLine(1158, 100459, "mysqld", "io 3", stack) + stackLine(1158, 100460, "mysqld", "-", stack) +
			stackLine(1158, 100461, "mysqld", "-", "<running>") + stackLine(1158, 100462, "mysqld", "page cleaner 0", "<swapped>")
		for name, text := range forms(full) {
			t.Run(opt+" "+name, func(t *testing.T) { check(t, show(read(t, text, 1158)), want) })
		}
	}
	// A mail wrapped the rows.
	wrapped := headStacks + " 1158 100460 mysqld              -                   mi_switch sleepq_switch\nsleepq_catch_signals _sleep fifo_open\n    kern_openat amd64_syscall\n" +
		"  999 100999 sh                  -                   mi_switch\nsleepq_wait\n"
	check(t, show(read(t, wrapped, 1158)), "pid 1158 mysqld\n100460 name=\"mysqld\" state=\"\" wchan=\"\" stack=mi_switch<sleepq_switch<sleepq_catch_signals<_sleep<fifo_open<kern_openat<amd64_syscall\n")
	// A stack with an unknown top, in columns.
	odd := headStacks + stackLine(1158, 100460, "mysqld", "a b", "odd_top fifo_open kern_openat")
	if got := read(t, odd, 1158).Threads[100460]; got.Name.V != "a b" || !slices.Equal(got.KernelStack.V, []string{"odd_top", "fifo_open", "kern_openat"}) {
		t.Errorf("%+v", got)
	}
}

// signalListing prints all 128 rows for masks of 64 signals.
func signalListing(prefix string, flags func(bit uint64) string) string {
	var b strings.Builder
	for n := 1; n <= 128; n++ {
		name := fmt.Sprint(n)
		if n <= 31 {
			name = signalNames[n-1]
		}
		bit := uint64(0)
		if n <= 64 {
			bit = 1 << (n - 1)
		}
		fmt.Fprintf(&b, "%s%-7s  %s\n", prefix, name, flags(bit))
	}
	return b.String()
}

func pick(mask, bit uint64, c string) string {
	if bit != 0 && mask&bit == bit {
		return c
	}
	return "-"
}

func TestSignals(t *testing.T) {
	const pending, blocked, ignored, caught = 0x4000, 0x87007 | 1<<63, 0x1000, 0x1800066e9
	threads := headTSig + signalListing(" 1158 100460 mysqld           ", func(bit uint64) string { return pick(pending, bit, "P") + pick(blocked, bit, "B") }) +
		signalListing(" 1158 100461 mysqld           ", func(uint64) string { return "--" })
	process := headSig + signalListing(" 1158 mysqld           ", func(bit uint64) string {
		return pick(pending, bit, "P") + pick(ignored, bit, "I") + pick(caught, bit, "C")
	})
	for name, text := range forms(threads + process) {
		t.Run(name, func(t *testing.T) {
			p := read(t, text, 1158)
			a, b := p.Threads[100460], p.Threads[100461]
			if a == nil || b == nil || len(p.Threads) != 2 || len(p.Warnings) != 0 {
				t.Fatalf("%s", show(p))
			}
			if a.SigBlocked.V != blocked || a.SigPending.V != pending || !b.SigBlocked.Known || b.SigBlocked.V != 0 {
				t.Errorf("masks %#x %#x %#x", a.SigBlocked.V, a.SigPending.V, b.SigBlocked.V)
			}
			if p.SharedPending.V != pending || p.SigIgnored.V != ignored || p.SigCaught.V != caught || a.SigCaught.V != caught {
				t.Errorf("process %#x %#x %#x", p.SharedPending.V, p.SigIgnored.V, p.SigCaught.V)
			}
		})
	}
	// What grep left isn't a mask.
	p := read(t, " 1158 100460 mysqld           TERM     --\n 1158 mysqld           TERM     --C\n", 1158)
	if p.Threads[100460].SigBlocked.Known || p.SigCaught.Known || len(p.Warnings) != 1 || p.Warnings[0].Code != CodeIncomplete {
		t.Errorf("%s", show(p))
	}
}

func TestFiles(t *testing.T) {
	full := headFiles +
		" 1158 mysqld            text v r r-------   -       - -   /usr/local/libexec/mysqld\n" +
		" 1158 mysqld             cwd v d r-------   -       - -   /var/db/my sql\n" +
		" 1158 mysqld            root v d r-------   -       - -   /                 \n" +
		" 1158 mysqld               0 v c r-------  24       0 -   /dev/null         \n" +
		" 1158 mysqld               4 v r rw-----l   1 1048576 -   /var/db/my sql/ib logfile0\n" +
		" 1158 mysqld               5 p - rw---n--   2       0 -   -                 \n" +
		" 1158 mysqld               6 k - rw------   2       0 -   -                 \n" +
		" 1158 mysqld              10 s - rw---n--   2       0 TCP 0 0 *:3306 *:0\n" +
		" 1158 mysqld              11 s - rw------   2       0 TCP 127.0.0.1:3306 10.0.0.9:51234\n" +
		" 1158 mysqld              12 s - rw------   2       0 UDS 0 0 /tmp/mysql.sock\n" +
		" 1158 mysqld              13 s - rw------   2       0 TCP 0 15 fe80::1.3306 fe80::2.4000\n" +
		" 1158 mysqld              14 f f r--------  1       0 -   /tmp/a fifo\n" +
		" 1158 mysqld              15 v f r-------   1       0 -   -                 \n" +
		"  999 sh                   4 v r rw------   1       0 -   /other\n"
	for name, text := range forms(full) {
		t.Run(name, func(t *testing.T) {
			p := read(t, text, 1158)
			if p.Exe.V != "/usr/local/libexec/mysqld" || p.Cwd.V != "/var/db/my sql" || !p.FilesKnown || len(p.Warnings) != 0 {
				t.Errorf("%+v", p)
			}
			var got []string
			for _, f := range p.Files {
				got = append(got, fmt.Sprintf("%d %s %q %s %s|%s %v", f.FD, f.Kind, f.Path, f.Protocol, f.Local, f.Peer, f.Pos.V))
			}
			want := []string{
				`0 path "/dev/null" | 0`, `4 path "/var/db/my sql/ib logfile0" | 1048576`, `5 pipe "pipe" | 0`, `6 anon "kqueue" | 0`,
				`10 socket "*:3306 *:0" tcp *:3306|*:0 0`, `11 socket "127.0.0.1:3306 10.0.0.9:51234" tcp 127.0.0.1:3306|10.0.0.9:51234 0`,
				`12 socket "/tmp/mysql.sock" unix /tmp/mysql.sock| 0`, `13 socket "fe80::1.3306 fe80::2.4000" tcp6 fe80::1.3306|fe80::2.4000 0`,
				`14 fifo "/tmp/a fifo" | 0`, `15 fifo "vnode" | 0`,
			}
			for i := range want { // an empty protocol leaves two blanks
				want[i] = strings.Replace(want[i], `" |`, `"  |`, 1)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestSeveralCommandsAndProcesses(t *testing.T) {
	text := "$ procstat -a -t\n" + headThreads + threadLine(1, 100002, "init", "-", "-1", 152, "sleep", "wait") +
		headThreads + threadLine(1158, 100460, "mysqld", "-", "-1", 120, "sleep", "fifoor") + threadLine(1158, 100461, "mysqld", "-", "-1", 120, "sleep", "uwait") +
		headThreads + threadLine(2000, 100700, "mysqld", "-", "-1", 120, "sleep", "fifoow") +
		"$ procstat 1158\n" + headBasic + " 1158     1  1158  1158     0  23 -        select    FreeBSD ELF64 mysqld      \n" +
		headVM + " 1158           0x400000           0x401000 r-x    1    0   1   0 CN--- vn /usr/local/libexec/mysqld\n" +
		"$ procstat -kk 1158\n" + headStacks + stackLine(1158, 100460, "mysqld", "-", withOffsets("mi_switch fifo_open kern_openat")) +
		headTSig + signalListing(" 1158 100460 mysqld           ", func(bit uint64) string { return "-" + pick(2, bit, "B") }) +
		headFiles + " 1158 mysqld               0 v c r-------  24       0 -   /dev/null         \n" +
		"$ ps -U mysql -H -O wchan\n  PID WCHAN   TT  STAT    TIME COMMAND\n 1158 fifoor  -  I    0:00.03 /usr/local/libexec/mysqld\n 1158 uwait   -  I    0:00.00 /usr/local/libexec/mysqld\n"
	p := read(t, text, 1158)
	check(t, show(p), "pid 1158 mysqld\n"+
		"100460 name=\"mysqld\" state=\"S\" wchan=\"fifoor\" stack=mi_switch<fifo_open<kern_openat blocked=0x2 pending=0x0\n"+
		"100461 name=\"mysqld\" state=\"S\" wchan=\"uwait\"\n"+
		"line 150: \"fifoor\" \"I\" \"/usr/local/libexec/mysqld\"\nline 151: \"uwait\" \"I\" \"/usr/local/libexec/mysqld\"\n")
	if len(p.Files) != 1 {
		t.Errorf("files %v", p.Files)
	}

	for _, c := range []struct {
		name, text string
		pid        int
		err        error
		line       string
	}{
		{"other process", headThreads + threadLine(999, 100999, "sh", "-", "0", 1, "sleep", "x"), 1158, ErrOtherProcess, `"f.txt": procstat output of another process: of process 999, not of 1158`},
		{"others", threadLine(9, 100999, "sh", "-", "0", 1, "sleep", "x") + threadLine(8, 100998, "sh", "-", "0", 1, "sleep", "x"), 1158, ErrOtherProcess, `"f.txt": procstat output of another process: of process 8, 9, not of 1158`},
		{"several, none chosen", text, 0, ErrSeveralProcesses, `"f.txt": procstat output of several processes (process 1, 1158, 2000) and no process was chosen`},
		{"empty", "", 1158, ErrNoOutput, "\"f.txt\": no output found: no procstat output in 0 lines; give the text of `procstat -t PID`"},
		{"header only", headThreads, 1158, ErrNoOutput, ""},
		{"prose", "mysqld is stuck since 6 o'clock\n1158 is its pid\n", 1158, ErrNoOutput, ""},
		{"binary", "\x7fELF\x02\x01\x01" + strings.Repeat("\x00\xff\n", 5000), 1158, ErrNoOutput, ""},
		{"json of something else", `{"a": [1, {"process_id": 1158, "thread_id": 100460}]}`, 1158, ErrNoOutput, ""},
		{"thousand columns", "1158 100460 " + strings.Repeat("x ", 5000) + "0 120 sleep fifoor\n", 1158, ErrNoOutput, ""},
		{"control characters", "1158 100460 mysqld - 0 120 sleep fif\x1b[2Joor\n", 1158, ErrNoOutput, ""},
	} {
		p, err := ReadProcstat("f.txt", strings.NewReader(c.text), c.pid)
		if p != nil || !errors.Is(err, c.err) || c.line != "" && err.Error() != c.line || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: %v, %v", c.name, p, err)
		}
	}
	// One process only needs no choice.
	if p := read(t, "1158 100460 mysqld - 0 120 sleep fifoor\n", 0); p.PID.V != 1158 {
		t.Errorf("%s", show(p))
	}
}

func TestDamagedRows(t *testing.T) {
	good := threadLine(1158, 100460, "mysqld", "-", "0", 120, "sleep", "fifoor")
	p := read(t, headThreads+good+" 1158 100461 mysqld - 0 120 dozes uwait\n 1158 x\n 1158 100462 mysqld\x00 - 0 120 sleep uw\x00it\n"+strings.Repeat("A", 1<<20)+"\n", 1158)
	if len(p.Threads) != 1 || len(p.Warnings) != 1 || p.Warnings[0].Code != CodeMalformed || !strings.Contains(p.Warnings[0].Text, "3 lines") || !strings.Contains(p.Warnings[0].Text, "line 3)") {
		t.Errorf("%s", show(p))
	}
	// Two samples in one file: the last one counts, and it is said.
	p = read(t, good+threadLine(1158, 100460, "mysqld", "-", "0", 120, "run", "-"), 1158)
	if th := p.Threads[100460]; th.WaitChannel.Known || th.State.V != "R" || len(p.Warnings) != 1 || p.Warnings[0].Code != CodeTwice {
		t.Errorf("%s", show(p))
	}
}

// errReader fails after some text.
type errReader struct{ r io.Reader }

func (e errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestReadError(t *testing.T) {
	for _, text := range []string{"1158 100460 mysqld - 0 120 sleep fifoor\n", `{"procstat":`} {
		if p, err := ReadProcstat("f", errReader{strings.NewReader(text)}, 1158); p != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v, %v", p, err)
		}
	}
}

// repeatReader gives a text n times.
type repeatReader struct {
	text string
	off  int
	left int64
}

func (r *repeatReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && r.left > 0 {
		c := copy(p[n:], r.text[r.off:])
		r.off = (r.off + c) % len(r.text)
		n += c
		r.left -= int64(c)
	}
	return n, nil
}

func TestHugeText(t *testing.T) {
	for name, unit := range map[string]string{
		"no newline": "x", "rows": threadLine(1158, 100460, "mysqld", "-", "0", 120, "sleep", "fifoor"), "brace": "{",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := &repeatReader{text: unit, left: 1 << 30}
		p, err := ReadProcstat("f", r, 1158)
		runtime.ReadMemStats(&after)
		if name == "rows" && (err != nil || len(p.Threads) != 1 || len(p.Warnings) != 1 || p.Warnings[0].Code != CodeLimit) ||
			name != "rows" && !errors.Is(err, ErrNoOutput) {
			t.Errorf("%s: %s, %v", name, show(p), err)
		}
		if read := 1<<30 - r.left; read > maxText+1<<20 {
			t.Errorf("%s: read %d bytes", name, read)
		}
		if used := after.HeapAlloc; used > before.HeapAlloc+1<<30 {
			t.Errorf("%s: holds %d bytes", name, used-before.HeapAlloc)
		}
	}
}

func FuzzProcstatText(f *testing.F) {
	f.Add("1158 100460 mysqld - 0 120 sleep fifoor\n")
	f.Add(headThreads + threadLine(1158, 100460, "mysqld", "a b", "-1", 120, "sleep", "*vm page"))
	f.Add(headStacks + stackLine(1158, 100460, "mysqld", "a b", storyStack) + "kern_openat\n")
	f.Add(headTSig + " 1158 100460 mysqld           TERM     PB\n" + headSig + " 1158 mysqld           TERM     PIC\n")
	f.Add(headFiles + " 1158 mysqld               4 s - rw-----l   1 1048576 TCP 0 0 a b\n")
	f.Add(kgdbText)
	f.Add("  PID WCHAN   TT  STAT    TIME COMMAND\n 1158 fifoor  -  I    0:00.03 /usr/local/libexec/mysqld\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, src := range []target.Source{target.SourceProcstat, target.SourcePS} {
			p, err := readText("f\n", strings.NewReader(text), 1158, src)
			checkView(t, p, err)
		}
	})
}

// checkView holds for whatever was read.
func checkView(t *testing.T, p *kernelview.Process, err error) {
	t.Helper()
	if (p == nil) == (err == nil) {
		t.Fatalf("result %v with error %v", p, err)
	}
	if err != nil {
		if strings.ContainsAny(err.Error(), "\n") {
			t.Fatalf("error of two lines: %q", err)
		}
		return
	}
	if p.PID.Known && p.PID.V != 1158 { // a backtrace need not tell it
		t.Fatalf("pid %d", p.PID.V)
	}
	for lwp, th := range p.Threads {
		if lwp != th.LWP || lwp < 1 || lwp > maxPID || len(th.State.V) > 1 || len(th.Name.V) > maxName || len(th.KernelStack.V) > maxFrames {
			t.Fatalf("thread %+v", th)
		}
		if w := th.WaitChannel; w.Known && (w.V == "" || w.V == "-" || len(w.V) > maxMessage || !printable(w.V)) {
			t.Fatalf("wait message %q", w.V)
		}
		for _, fn := range th.KernelStack.V {
			if !isFuncName(fn) {
				t.Fatalf("frame %q", fn)
			}
		}
	}
	for i, file := range p.Files {
		if i > 0 && file.FD <= p.Files[i-1].FD || file.FD < 0 {
			t.Fatalf("files %+v", p.Files)
		}
	}
}

func BenchmarkThreads(b *testing.B) {
	var sb strings.Builder
	sb.WriteString(headThreads)
	for i := range 530 {
		sb.WriteString(threadLine(1158, 100411+i, "mysqld", "-", "-1", 120, "sleep", "uwait"))
	}
	text := sb.String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadProcstat("f", strings.NewReader(text), 1158); err != nil {
			b.Fatal(err)
		}
	}
}
