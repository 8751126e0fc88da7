package procstat

import (
	"slices"
	"strconv"
	"strings"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// rowKind is a kind of listing.
type rowKind uint8

const (
	rowsNone          rowKind = iota // no header yet
	rowsThreads                      // procstat -t
	rowsStacks                       // procstat -k, -kk
	rowsThreadSignals                // procstat -j
	rowsSignals                      // procstat -i
	rowsFiles                        // procstat -f
	rowsPS
	rowsOther // a listing that tells nothing here
)

// section is the header line in force.
type section struct {
	kind    rowKind
	comm    int // column where COMM starts, -1 unless the header is printed in full width
	tdname  int
	columns []psColumn // of ps
}

// Default columns of rows without a header: FreeBSD 10.4 and later print COMM
// and TDNAME 19 wide, before it was 16 (usr.bin/procstat/procstat_threads.c).
const (
	defaultComm  = 13
	tdnameWide   = 33
	tdnameNarrow = 30
)

// headerKinds are the header lines with their blanks squeezed.
var headerKinds = map[string]rowKind{
	"PID TID COMM TDNAME CPU PRI STATE WCHAN":          rowsThreads,
	"PID TID COMM TDNAME KSTACK":                       rowsStacks,
	"PID TID COMM SIG FLAGS":                           rowsThreadSignals,
	"PID COMM SIG FLAGS":                               rowsSignals,
	"PID COMM FD T V FLAGS REF OFFSET PRO NAME":        rowsFiles,
	"PID PPID PGID SID TSID THR LOGIN WCHAN EMUL COMM": rowsOther, // the first thread's message, by no name
}

// maxHeader bounds a header line's fields: ps has some eighty keywords.
const maxHeader = 80

// field is a word of a line: line[start:end].
type field struct{ start, end int }

// splitFields cuts a line at blanks and tabs, into out's memory. A line with
// too many words is no row and gives none.
func splitFields(line string, out []field) []field {
	out = out[:0]
	for i := 0; i < len(line); {
		if line[i] == ' ' || line[i] == '\t' {
			i++
			continue
		}
		start := i
		for i < len(line) && line[i] != ' ' && line[i] != '\t' {
			i++
		}
		if len(out) == maxTokens {
			return nil
		}
		out = append(out, field{start, i})
	}
	return out
}

// row is a line with its words.
type row struct {
	line string
	f    []field
}

func (r row) word(i int) string {
	if i < 0 || i >= len(r.f) {
		return ""
	}
	return r.line[r.f[i].start:r.f[i].end]
}

// span is the text from word i up to word j, exclusive, blanks as they were.
func (r row) span(i, j int) string {
	if i >= j || i >= len(r.f) {
		return ""
	}
	return r.line[r.f[i].start:r.f[min(j, len(r.f))-1].end]
}

// headerOf recognises a header line: capitals that begin with PID (or that
// hold it, for ps).
func headerOf(line string, f []field) (section, bool) {
	if len(f) > maxHeader || len(f) < 2 {
		return section{}, false
	}
	words := make([]string, len(f))
	for i, w := range f {
		words[i] = line[w.start:w.end]
		if !isHeading(words[i]) {
			return section{}, false
		}
	}
	s := section{comm: -1, tdname: -1}
	if k, ok := headerKinds[strings.Join(words, " ")]; ok {
		s.kind = k
		for i, w := range words {
			// Full width shows in the wide gap after COMM.
			if w == "COMM" && i+1 < len(words) && words[i+1] == "TDNAME" && f[i+1].start > f[i].end+1 {
				s.comm, s.tdname = f[i].start, f[i+1].start
			}
		}
		return s, true
	}
	if cols, ok := psHeader(words, f); ok {
		s.kind, s.columns = rowsPS, cols
		return s, true
	}
	if words[0] != "PID" {
		return section{}, false
	}
	s.kind = rowsOther
	return s, true
}

func isHeading(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'A' || c > 'Z') && c != '%' && c != '_' {
			return false
		}
	}
	return true
}

// row tries one reading of a row; false says that it isn't of that kind.
func (t *textReader) row(k rowKind, r row, pid int) bool {
	switch k {
	case rowsThreads:
		return t.threadRow(r, pid)
	case rowsStacks:
		return t.stackRow(r, pid)
	case rowsThreadSignals:
		return t.threadSignalRow(r, pid)
	case rowsSignals:
		return t.signalRow(r, pid)
	case rowsFiles:
		return t.fileRow(r, pid)
	case rowsPS:
		return t.psRow(r)
	}
	return false
}

// runStates are the words of the STATE column with the letters that ps prints
// for the same state (procstat_threads.c; bin/ps/print.c, state()). "sleep"
// covers the interruptible and the uninterruptible sleep.
var runStates = map[string]string{
	"run": "R", "stop": "T", "sleep": "S", "lock": "L", "wait": "W", "zomb": "Z", "idle": "R", "??": "",
}

// threadRow reads "PID TID COMM TDNAME CPU PRI STATE WCHAN". COMM, TDNAME and
// a lock's name may hold blanks, so the row is anchored at the last state word
// that has two numbers before it.
func (t *textReader) threadRow(r row, pid int) bool {
	lwp, ok := parseID(r.word(1))
	if !ok || len(r.f) < 7 {
		return false
	}
	at := -1
	for i := len(r.f) - 2; i >= 5; i-- { // at least one name, CPU, PRI before it, WCHAN behind
		if _, ok := runStates[r.word(i)]; ok && isNumber(r.word(i-1)) && (isNumber(r.word(i-2)) || r.word(i-2) == "-") {
			at = i
			break
		}
	}
	if at < 0 {
		return false
	}
	message := r.span(at+1, len(r.f))
	if len(message) > maxMessage || !printable(message) {
		return false
	}
	if !t.mine(pid) {
		return true
	}
	th := t.thread(lwp)
	if th == nil {
		return true
	}
	t.names(th, r, 2, at-2, target.SourceProcstat)
	t.sleeping(th, message, runStates[r.word(at)], target.SourceProcstat)
	return true
}

// sleeping sets what a thread's row says about its sleep. An earlier row of
// the same thread (a second sample in the file) gives way.
func (t *textReader) sleeping(th *kernelview.Thread, message, state string, src target.Source) {
	if message == "-" || message == "*-" {
		message = ""
	}
	if _, again := t.listed[th.LWP]; again && th.WaitChannel.V != message {
		t.twice++
	}
	t.listed[th.LWP] = t.line
	th.WaitChannel, th.State = target.Value[string]{}, target.Value[string]{}
	if message != "" {
		th.WaitChannel = target.Known(message, src)
	}
	if state != "" {
		th.State = target.Known(state, src)
	}
}

// names cuts COMM and TDNAME out of words i to j (exclusive).
func (t *textReader) names(th *kernelview.Thread, r row, i, j int, src target.Source) {
	if i >= j {
		return
	}
	if comm, td, ok := t.byColumns(r, i, j); ok {
		t.learn(comm)
		t.nameThread(th, comm, td, src)
		return
	}
	mid := r.span(i, j)
	switch {
	case j-i == 1:
		t.learn(mid)
		t.nameThread(th, mid, "-", src)
	case r.word(j-1) == "-":
		comm := strings.TrimRight(r.span(i, j-1), " ")
		t.learn(comm)
		t.nameThread(th, comm, "-", src)
	case j-i == 2:
		t.learn(r.word(i))
		t.nameThread(th, r.word(i), r.word(i+1), src)
	default:
		t.pending = append(t.pending, pendingNames{th, clip(mid), src})
	}
}

// byColumns cuts at the header's columns, or the usual ones, when the fields
// before have their width.
func (t *textReader) byColumns(r row, i, j int) (comm, td string, ok bool) {
	start, end := r.f[i].start, r.f[j-1].end
	if t.sec.tdname > 0 {
		return cutAt(r.line, start, t.sec.comm, t.sec.tdname, end)
	}
	if t.sec.kind != rowsNone && t.sec.kind != rowsPS {
		return "", "", false // the header is squeezed, and so are the rows
	}
	for _, col := range [...]int{tdnameWide, tdnameNarrow} {
		if comm, td, ok = cutAt(r.line, start, defaultComm, col, end); ok {
			return comm, td, ok
		}
	}
	return "", "", false
}

// cutAt cuts line[comm:end] at column td, which must begin a word and, unless
// COMM fills its column, follow a gap.
func cutAt(line string, start, comm, td, end int) (string, string, bool) {
	if start != comm || td >= end || td < comm+2 || line[td] == ' ' || line[td-1] != ' ' {
		return "", "", false
	}
	left := strings.TrimRight(line[comm:td], " ")
	// A single blank could as well be one inside a name of a squeezed row.
	if len(left) < td-comm-1 && line[td-2] != ' ' || strings.Contains(left, "  ") {
		return "", "", false
	}
	return left, strings.TrimRight(line[td:end], " "), left != ""
}

// cutNames cuts "COMM TDNAME" when blanks are squeezed: after the process's
// name where that is known, else after the first word.
func cutNames(mid, comm string) (string, string) {
	if comm != "" {
		if rest, ok := strings.CutPrefix(mid, comm+" "); ok {
			return comm, strings.TrimLeft(rest, " ")
		}
	}
	first, rest, _ := strings.Cut(mid, " ")
	return first, strings.TrimLeft(rest, " ")
}

// learn remembers the process's command name.
func (t *textReader) learn(comm string) {
	if t.comm == "" && comm != "-" {
		t.comm = clip(comm)
	}
}

// nameThread sets a thread's name; "-" is procstat's sign for a name that is
// empty or equal to COMM.
func (t *textReader) nameThread(th *kernelview.Thread, comm, td string, src target.Source) {
	if td == "-" || td == "" {
		td = comm
	}
	if td != "-" && td != "" && !th.Name.Known {
		th.Name = target.Known(clip(td), src)
	}
}

// clip cuts a name that is longer than any name is.
func clip(s string) string {
	if len(s) > maxName {
		s = s[:maxName]
	}
	return strings.Clone(s) // not the whole line
}

// signalRows collects the rows of -j of one thread, or of -i. Bit n-1 is
// signal n; signals beyond 64 don't fit and are left out.
type signalRows struct {
	seen, pending, blocked, ignored, caught uint64
}

// allSignals are those that every complete listing has: 1 to 32, with SIGTHR
// (sys/sys/signal.h). Both options print all 128.
const allSignals = 1<<32 - 1

// signalNames of FreeBSD, by number less one (sys/sys/signal.h). procstat
// prints names up to 31 and numbers above.
var signalNames = [...]string{
	"HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "EMT", "FPE", "KILL", "BUS", "SEGV", "SYS", "PIPE", "ALRM", "TERM", "URG",
	"STOP", "TSTP", "CONT", "CHLD", "TTIN", "TTOU", "IO", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "INFO", "USR1", "USR2",
	"THR", "LIBRT",
}

// maxSignal is _SIG_MAXSIG (sys/sys/_sigset.h).
const maxSignal = 128

func signalNumber(s string) (int, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, n >= 1 && n <= maxSignal
	}
	s = strings.TrimPrefix(s, "SIG")
	i := slices.Index(signalNames[:], s)
	return i + 1, i >= 0
}

// flagsOf matches a column such as "P-B" against the letters that its places
// may show; set has bit i for place i.
func flagsOf(s, letters string) (set int, ok bool) {
	if len(s) != len(letters) {
		return 0, false
	}
	for i := range len(s) {
		switch s[i] {
		case letters[i]:
			set |= 1 << i
		case '-':
		default:
			return 0, false
		}
	}
	return set, true
}

// threadSignalRow reads "PID TID COMM SIG FLAGS".
func (t *textReader) threadSignalRow(r row, pid int) bool {
	lwp, ok := parseID(r.word(1))
	n := len(r.f)
	if !ok || n < 5 {
		return false
	}
	flags, ok := flagsOf(r.word(n-1), "PB")
	sig, ok2 := signalNumber(r.word(n - 2))
	if !ok || !ok2 {
		return false
	}
	if t.mine(pid) {
		t.learn(r.span(2, n-2))
		t.threadSignal(lwp, sig, flags&1 != 0, flags&2 != 0)
	}
	return true
}

func (t *textReader) threadSignal(lwp, sig int, pending, blocked bool) {
	s := t.sigs[lwp]
	if s == nil {
		if t.thread(lwp) == nil {
			return
		}
		s = &signalRows{}
		t.sigs[lwp] = s
	}
	bit := signalBit(sig)
	s.seen |= bit
	setBit(&s.pending, bit, pending)
	setBit(&s.blocked, bit, blocked)
}

// signalRow reads "PID COMM SIG FLAGS".
func (t *textReader) signalRow(r row, pid int) bool {
	n := len(r.f)
	if n < 4 {
		return false
	}
	flags, ok := flagsOf(r.word(n-1), "PIC")
	sig, ok2 := signalNumber(r.word(n - 2))
	if !ok || !ok2 {
		return false
	}
	if t.mine(pid) {
		t.learn(r.span(1, n-2))
		t.signal(sig, flags&1 != 0, flags&2 != 0, flags&4 != 0)
	}
	return true
}

func (t *textReader) signal(sig int, pending, ignored, caught bool) {
	bit := signalBit(sig)
	t.procSig.seen |= bit
	setBit(&t.procSig.pending, bit, pending)
	setBit(&t.procSig.ignored, bit, ignored)
	setBit(&t.procSig.caught, bit, caught)
}

// signalBit is 0 for a signal that a 64-bit mask can't hold.
func signalBit(sig int) uint64 {
	if sig < 1 || sig > 64 {
		return 0
	}
	return 1 << (sig - 1)
}

func setBit(mask *uint64, bit uint64, on bool) {
	*mask &^= bit
	if on {
		*mask |= bit
	}
}

// finishSignals sets masks whose rows are all there. A listing that somebody
// filtered (grep TERM) can't give a mask: what it leaves out isn't "not set".
func (t *textReader) finishSignals() {
	src := target.SourceProcstat
	incomplete := 0
	for lwp, s := range t.sigs {
		th := t.p.Threads[lwp]
		if s.seen&allSignals != allSignals {
			incomplete++
			continue
		}
		th.SigBlocked = target.Known(s.blocked, src)
		th.SigPending = target.Known(s.pending, src)
	}
	if s := t.procSig; s.seen != 0 {
		if s.seen&allSignals != allSignals {
			incomplete++
		} else {
			t.p.SharedPending = target.Known(s.pending, src)
			t.p.SigIgnored = target.Known(s.ignored, src)
			t.p.SigCaught = target.Known(s.caught, src)
			for _, th := range t.p.Threads {
				th.SigIgnored, th.SigCaught = t.p.SigIgnored, t.p.SigCaught
			}
		}
	}
	if incomplete > 0 {
		t.warn(CodeIncomplete, "%d signal listings of %q don't have all signals from 1 to 32: these masks are unknown; save the whole text of `procstat -j PID` and `procstat -i PID`", incomplete, t.name)
	}
}

// isNumber accepts a decimal number with an optional sign.
func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	if s == "" || len(s) > 19 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// printable holds for text without control characters and without bytes above
// ASCII: what a kernel's identifiers are made of.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
