package procstat

import (
	"strconv"
	"strings"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// stackRows is the kernel stack that is being read: of a row of `procstat -k`
// that a mail wrapped, or of a kgdb backtrace.
type stackRows struct {
	th *kernelview.Thread // of the row before, while its stack may go on

	kgdb        []string // frames of the backtrace, innermost first
	inKernel    bool     // one of them can only be the kernel's
	open        bool     // inside a backtrace
	tid, pid    int      // the thread that kgdb showed last, and its process (0: not told)
	user        bool     // ... is a user thread: "Thread 0x... (LWP 100460)"
	flush       func()
	taken       int // backtraces that became a thread's stack
	unnamed     int // kernel backtraces without a thread
	unnamedLine int
}

// close ends what is being read.
func (s *stackRows) close() {
	s.th = nil
	if s.open && s.flush != nil {
		s.flush()
	}
	s.open, s.kgdb, s.inKernel = false, nil, false
}

// more appends a line that only has frames to the stack of the row before:
// mails and tickets wrap the long rows.
func (s *stackRows) more(r row) {
	if s.th == nil {
		return
	}
	frames, ok := framesOf(r, 0)
	if !ok || len(s.th.KernelStack.V)+len(frames) > maxFrames {
		s.th = nil
		return
	}
	s.th.KernelStack = target.Known(append(s.th.KernelStack.V, frames...), target.SourceProcstat)
}

// noStack are the words that stand in for a stack (procstat_kstack.c).
func noStack(s string) bool { return s == "<running>" || s == "<swapped>" || s == "<unknown>" }

// stackRow reads "PID TID COMM TDNAME KSTACK...": function names, with +0xoff
// behind them for -kk, innermost first.
func (t *textReader) stackRow(r row, pid int) bool {
	lwp, ok := parseID(r.word(1))
	if !ok || len(r.f) < 5 {
		return false
	}
	at := t.stackStart(r)
	if at < 3 {
		return false
	}
	frames, ok := framesOf(r, at)
	if !ok {
		return false
	}
	if !t.mine(pid) {
		return true
	}
	th := t.thread(lwp)
	if th == nil {
		return true
	}
	t.names(th, r, 2, at, target.SourceProcstat)
	if len(frames) > 0 {
		th.KernelStack = target.Known(frames, target.SourceProcstat)
		t.stack.th = th
	} else if r.word(at) == "<running>" && !th.State.Known {
		th.State = target.Known("R", target.SourceProcstat)
	}
	return true
}

// stackTops are functions that a sleeping or preempted thread's stack begins
// with: they tell where a squeezed row's names end (sys/kern/kern_synch.c,
// sched_ule.c, subr_trap.c, kern_fork.c).
var stackTops = [...]string{"mi_switch", "sched_switch", "cpustop_handler", "ipi_bitmap_handler", "fork_exit", "fork_trampoline"}

// stackStart finds the word where KSTACK begins; 0 when nothing tells.
func (t *textReader) stackStart(r row) int {
	for i := 3; i < len(r.f); i++ {
		w := r.word(i)
		if noStack(w) || hasOffset(w) {
			return i
		}
		for _, top := range stackTops {
			if w == top {
				return i
			}
		}
	}
	// Without such a sign: the full-width column, then a dash as TDNAME.
	if t.sec.kind == rowsStacks {
		for i := 4; i < len(r.f); i++ {
			if t.sec.tdname > 0 && r.f[i].start == t.sec.tdname+t.sec.tdname-t.sec.comm {
				return i
			}
		}
		for i := 4; i < len(r.f); i++ {
			if r.word(i-1) == "-" {
				return i
			}
		}
		return 4 // COMM and TDNAME of one word each
	}
	return 0
}

// hasOffset recognises the form of -kk.
func hasOffset(s string) bool {
	name, off, ok := strings.Cut(s, "+0x")
	return ok && isFuncName(name) && isHex(off)
}

func isHex(s string) bool {
	if s == "" || len(s) > 16 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// framesOf reads the words from at on as function names. ok is false when one
// isn't; a stack beyond the limit isn't either.
func framesOf(r row, at int) ([]string, bool) {
	if noStack(r.word(at)) {
		return nil, at == len(r.f)-1
	}
	if len(r.f)-at > maxFrames || at >= len(r.f) {
		return nil, false
	}
	out := make([]string, 0, len(r.f)-at)
	for i := at; i < len(r.f); i++ {
		name, _, _ := strings.Cut(r.word(i), "+")
		if !isFuncName(name) {
			return nil, false
		}
		out = append(out, strings.Clone(name))
	}
	return out, true
}

// FreeBSD gives thread ids from 100001 on and process ids below (sys/proc.h,
// PID_MAX and kern_thread.c), so a number in kgdb's text is never both.
const minTID = 100_000

// kernelFuncs are functions that a backtrace of user code can't have.
var kernelFuncs = map[string]bool{
	"sched_switch": true, "mi_switch": true, "sleepq_wait": true, "sleepq_wait_sig": true, "sleepq_catch_signals": true,
	"amd64_syscall": true, "fast_syscall_common": true, "Xfast_syscall": true, "syscallenter": true, "fork_exit": true, "kern_openat": true,
}

// kgdb reads a line of a saved kgdb session; false says that it is none.
func (t *textReader) kgdb(line string, f []field) bool {
	s := &t.stack
	if i := strings.Index(line, "#0 "); i > 0 && strings.HasPrefix(line, "[Switching to thread ") {
		t.kgdbThread(line[:i])
		line = line[i:]
		f = splitFields(line, nil)
	}
	if line[f[0].start] == '#' {
		return t.kgdbFrame(row{line, f})
	}
	if !strings.Contains(line, "Thread ") && !strings.Contains(line, "tid ") {
		return false
	}
	if f[0].end-f[0].start > 0 && line[f[0].start] >= '0' && line[f[0].start] <= '9' && !strings.Contains(line, "PID=") {
		return false // a row of procstat whose names have such a word
	}
	s.close()
	return t.kgdbThread(line)
}

// kgdbThread takes the thread out of "[Switching to thread 145 (Thread
// 100460)]", "* 145 Thread 100460 (PID=1158: mysqld) sched_switch (...)" or
// "(kgdb) tid 100460".
func (t *textReader) kgdbThread(line string) bool {
	tid := 0
	for _, word := range [...]string{"Thread ", "tid "} {
		for rest := line; tid == 0; {
			_, after, ok := strings.Cut(rest, word)
			if !ok {
				break
			}
			tid, rest = leadingTID(after), after
		}
	}
	if strings.Contains(line, "(LWP ") {
		// gdb on a process: its backtraces are of user code.
		t.stack.tid, t.stack.pid, t.stack.user = 0, 0, true
		return true
	}
	if tid == 0 {
		return false
	}
	t.stack.tid, t.stack.pid, t.stack.user = tid, 0, false
	if _, after, ok := strings.Cut(line, "PID="); ok {
		n := 0
		for n < len(after) && after[n] >= '0' && after[n] <= '9' {
			n++
		}
		t.stack.pid, _ = parseID(after[:n])
	}
	return true
}

func leadingTID(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	if n < len(s) && s[n] != ' ' && s[n] != ')' && s[n] != ':' {
		return 0
	}
	id, ok := parseID(s[:n])
	if !ok || id < minTID {
		return 0
	}
	return id
}

// kgdbFrame reads "#6  0xffffffff80866f0c in fifo_open (ap=...) at ...".
func (t *textReader) kgdbFrame(r row) bool {
	n, err := strconv.ParseUint(r.word(0)[1:], 10, 16)
	if err != nil || len(r.f) < 2 {
		return false
	}
	s := &t.stack
	if n == 0 {
		s.close()
		s.open = true
		s.flush = t.kgdbDone
	}
	if !s.open || int(n) < len(s.kgdb) || len(s.kgdb) >= maxFrames {
		return true // no beginning: a piece of a backtrace proves no order
	}
	name := r.word(1)
	if hex, ok := strings.CutPrefix(name, "0x"); ok && r.word(2) == "in" {
		if a, err := strconv.ParseUint(hex, 16, 64); err == nil && a>>63 == 1 {
			s.inKernel = true // kernel addresses are the upper half on amd64 and arm64
		}
		name = r.word(3)
	}
	name, _, _ = strings.Cut(name, "(")
	if isFuncName(name) {
		s.inKernel = s.inKernel || kernelFuncs[name]
		s.kgdb = append(s.kgdb, strings.Clone(name))
	}
	return true
}

// kgdbDone gives a finished backtrace to its thread.
func (t *textReader) kgdbDone() {
	s := &t.stack
	if len(s.kgdb) == 0 || !s.inKernel || s.user {
		return
	}
	if s.tid == 0 {
		if s.unnamed++; s.unnamed == 1 {
			s.unnamedLine = t.line
		}
		return
	}
	if s.pid != 0 && !t.mine(s.pid) {
		return
	}
	if th := t.thread(s.tid); th != nil {
		s.taken++
		th.KernelStack = target.Known(s.kgdb, target.SourceProcstat)
	}
}
