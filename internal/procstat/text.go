package procstat

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// The ways in which a text has nothing for the process that was asked for.
// Callers that have a core treat them as warnings.
var (
	// ErrNoOutput: the text isn't what the command prints.
	ErrNoOutput = errors.New("no output found")
	// ErrOtherProcess: rows were found, but of other processes only.
	ErrOtherProcess = errors.New("of another process")
	// ErrSeveralProcesses: no process id was asked for, and rows of more than
	// one were found.
	ErrSeveralProcesses = errors.New("of several processes")
)

// Warning codes of ReadProcstat and ReadPS; CodeMalformed and CodeLimit are
// used as well.
const (
	CodeTwice      = "procstat-twice"      // a thread is listed twice, with different wait messages
	CodeIncomplete = "procstat-incomplete" // rows are missing, and what needs all of them is left unknown
	CodeNoThread   = "procstat-no-thread"  // a kernel backtrace names no thread
)

// Limits on a saved text. A server with 10,000 threads gives less than 10 MB
// of `procstat -kk` and 55 MB of `procstat -j`.
const (
	maxText      = 128 << 20 // bytes looked at
	maxTextLine  = 64 << 10  // a row of -kk has about 1,100 bytes (KKST_MAXLEN, sys/user.h); a line beyond is no row
	maxJSON      = 64 << 20  // held in memory while it is read
	maxTokens    = 1 << 10   // fields of one row: a kernel stack's text has 1,024 characters
	maxSightings = 1 << 17   // as maxTasks
	maxOtherPIDs = 1 << 10   // other processes that are told apart
	maxName      = 256       // COMM and TDNAME have at most 19 characters; longer is cut
	maxMessage   = 64        // a wait message has at most 8 characters; JSON may carry anything
)

// ReadProcstat reads what a person saved of `procstat -t`, -k, -kk, -j, -i and
// -f (FreeBSD, usr.bin/procstat), of one process: text with or without header
// lines, several commands in one file, blanks as printed or squeezed, or libxo
// JSON. Rows of ps and kernel backtraces of kgdb in the same file are read as
// well. name is the file's name, for messages. pid selects the process; with
// pid 0 the text must be of one process only.
//
// The error is one line and unwraps to ErrNoOutput, ErrOtherProcess,
// ErrSeveralProcesses or an I/O error; what else is wrong is in the result's
// Warnings. Values have the source procstat (or ps).
func ReadProcstat(name string, r io.Reader, pid int) (*kernelview.Process, error) {
	return readText(name, r, pid, target.SourceProcstat)
}

// ReadPS reads what a person saved of `ps -H -O wchan`, of `ps -axHo
// pid,lwp,wchan,state,comm,tdname`, or of another choice of columns that has
// PID and WCHAN (or STAT), with or without the header line. Rows with an LWP
// column become threads, rows without one become Sightings. Otherwise it is as
// ReadProcstat, and reads procstat's rows as well.
func ReadPS(name string, r io.Reader, pid int) (*kernelview.Process, error) {
	return readText(name, r, pid, target.SourcePS)
}

// textReader collects the rows of one process.
type textReader struct {
	name string
	src  target.Source // what the caller said the text is
	want int           // process id; 0 until the first row when none was asked for
	any  bool          // no process id was asked for
	p    *kernelview.Process

	words      []field        // memory of the current line's words
	line       int            // of the current line, from 1
	sec        section        // header in force
	rows       int            // rows of the process
	bad        int            // lines that look like a row of the process and aren't
	firstBad   int            // line of the first one
	others     map[int]bool   // other processes seen
	comm       string         // the process's command name, once it is certain
	pending    []pendingNames // rows whose names couldn't be cut yet
	sigs       map[int]*signalRows
	procSig    signalRows
	stack      stackRows
	seenFD     map[int]bool
	listed     map[int]int // LWP -> line of its -t row
	twice      int         // threads listed twice with different messages
	cut        bool        // a limit was reached
	unfinished bool        // JSON ended inside of an object
	dropped    int         // rows beyond a limit
}

// pendingNames is "COMM TDNAME" with more than two words: where one ends is
// known when the process's name is.
type pendingNames struct {
	t   *kernelview.Thread
	mid string
	src target.Source
}

func readText(name string, r io.Reader, pid int, src target.Source) (*kernelview.Process, error) {
	t := &textReader{
		name: name, src: src, want: pid, any: pid == 0,
		p:      &kernelview.Process{Threads: map[int]*kernelview.Thread{}},
		others: map[int]bool{}, sigs: map[int]*signalRows{}, seenFD: map[int]bool{}, listed: map[int]int{},
	}
	br := bufio.NewReaderSize(r, maxTextLine)
	if err := t.read(br); err != nil {
		return nil, fmt.Errorf("reading %s text %q: %w", src, name, err)
	}
	t.finish()
	if err := t.verdict(); err != nil {
		return nil, err
	}
	return t.p, nil
}

// read goes through the text once.
func (t *textReader) read(br *bufio.Reader) error {
	if isJSON(br) {
		b, err := io.ReadAll(io.LimitReader(br, maxJSON+1))
		if err != nil {
			return err
		}
		if len(b) > maxJSON {
			b, t.cut = b[:maxJSON], true
		}
		t.json(b)
		return nil
	}
	total := 0
	for {
		b, err := br.ReadSlice('\n')
		total += len(b)
		if len(b) > 0 {
			t.line++
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			n, err := skipLine(br)
			if total += n; err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			t.stack.close()
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case len(b) > 0:
			t.text(string(bytes.TrimRight(b, "\r\n")))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if total > maxText {
			t.cut = true
			return nil
		}
	}
}

// skipLine drops the rest of a line that is longer than any row.
func skipLine(br *bufio.Reader) (int, error) {
	n := 0
	for {
		b, err := br.ReadSlice('\n')
		n += len(b)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return n, err
		}
		if n > maxText {
			return n, nil
		}
	}
}

// isJSON reports whether the text's first character is a brace.
func isJSON(br *bufio.Reader) bool {
	b, _ := br.Peek(512)
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{'
}

// text reads one line: a header, a row, a frame of a backtrace, or something
// that a terminal left between them.
func (t *textReader) text(line string) {
	f := splitFields(line, t.words)
	if len(f) == 0 {
		t.stack.close()
		return
	}
	t.words = f
	if s, ok := headerOf(line, f); ok {
		t.sec = s
		t.stack.close()
		return
	}
	if t.kgdb(line, f) {
		return
	}
	r := row{line: line, f: f}
	pid, ok := parseID(r.word(0))
	if !ok {
		if t.sec.kind == rowsPS && t.psRow(r) { // PID needn't be the first column
			return
		}
		t.stack.more(r)
		return
	}
	t.stack.close()
	if t.sec.kind == rowsOther || t.anyRow(r, pid) {
		return
	}
	if !t.any && pid == t.want {
		if t.bad++; t.bad == 1 {
			t.firstBad = t.line
		}
	}
}

// anyRow tries the readings of a row: the header's first, then all, as each
// command in a file may have been run without header. The order matters only
// for squeezed rows: what is a row of -t can't be one of -f, -j or -i, and a
// kernel stack is the least specific.
func (t *textReader) anyRow(r row, pid int) bool {
	first := t.sec.kind
	if first == rowsNone && t.src == target.SourcePS {
		first = rowsPS
	}
	if t.row(first, r, pid) {
		return true
	}
	for _, k := range [...]rowKind{rowsThreads, rowsThreadSignals, rowsSignals, rowsFiles, rowsStacks, rowsPS} {
		if k != first && t.row(k, r, pid) {
			return true
		}
	}
	return false
}

// mine decides whether a row's process is the wanted one, and remembers the
// others.
func (t *textReader) mine(pid int) bool {
	if t.want == 0 {
		t.want = pid
	}
	if pid == t.want {
		t.rows++
		return true
	}
	if len(t.others) < maxOtherPIDs {
		t.others[pid] = true
	}
	return false
}

// thread returns the thread of an LWP; nil beyond the limit.
func (t *textReader) thread(lwp int) *kernelview.Thread {
	if th := t.p.Threads[lwp]; th != nil {
		return th
	}
	if len(t.p.Threads) >= maxTasks {
		t.dropped++
		return nil
	}
	th := &kernelview.Thread{LWP: lwp}
	t.p.Threads[lwp] = th
	return th
}

// finish turns what was collected into the view.
func (t *textReader) finish() {
	t.stack.close()
	p := t.p
	for _, n := range t.pending {
		comm, td := cutNames(n.mid, t.comm)
		t.nameThread(n.t, comm, td, n.src)
	}
	t.finishSignals()
	slices.SortFunc(p.Files, func(a, b kernelview.File) int { return a.FD - b.FD })
	if t.want != 0 && t.rows > 0 {
		p.PID = target.Known(t.want, t.src)
	}
	if t.comm != "" {
		p.Name = target.Known(t.comm, t.src)
	}
	t.warnings()
}

func (t *textReader) warn(code, format string, args ...any) {
	t.p.Warnings = append(t.p.Warnings, target.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
}

func (t *textReader) warnings() {
	if t.bad > 0 {
		t.warn(CodeMalformed, "%d lines of %q begin with the process id and aren't rows (the first is line %d): they were left out", t.bad, t.name, t.firstBad)
	}
	if t.twice > 0 {
		t.warn(CodeTwice, "%d threads are listed twice in %q with different wait messages: the last one counts; give one sample per file", t.twice, t.name)
	}
	if t.stack.unnamed > 0 {
		t.warn(CodeNoThread, "%d kernel backtraces in %q name no thread (the first ends at line %d): they were left out; save them with the command that chose the thread (tid 100460)", t.stack.unnamed, t.name, t.stack.unnamedLine)
	}
	if t.unfinished && !t.cut {
		t.warn(CodeIncomplete, "the JSON of %q ends before its last object does: what was read counts, what is behind that is missing; save the whole output", t.name)
	}
	if t.cut {
		t.warn(CodeLimit, "%q is longer than is read: the rest was left out", t.name)
	}
	if t.dropped > 0 {
		t.warn(CodeLimit, "%d rows of %q are beyond the limits on threads and files and were left out", t.dropped, t.name)
	}
}

// verdict is the error when there is nothing of the process.
func (t *textReader) verdict() error {
	cmd := "procstat"
	example := "`procstat -t PID`"
	if t.src == target.SourcePS {
		cmd, example = "ps", "`ps -axHo pid,lwp,wchan,state,comm,tdname`"
	}
	switch {
	case t.rows == 0 && t.stack.taken == 0 && len(t.others) > 0:
		return fmt.Errorf("%q: %s output %w: of %s, not of %d", t.name, cmd, ErrOtherProcess, t.otherPIDs(), t.want)
	case t.rows == 0 && t.stack.taken == 0:
		return fmt.Errorf("%q: %w: no %s output in %d lines; give the text of %s", t.name, ErrNoOutput, cmd, t.line, example)
	case t.any && len(t.others) > 0:
		t.others[t.want] = true
		return fmt.Errorf("%q: %s output %w (%s) and no process was chosen", t.name, cmd, ErrSeveralProcesses, t.otherPIDs())
	}
	return nil
}

func (t *textReader) otherPIDs() string {
	ids := make([]int, 0, len(t.others))
	for id := range t.others {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var b strings.Builder
	for i, id := range ids {
		if i == maxListedPIDs {
			fmt.Fprintf(&b, " and %d more", len(ids)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, id)
	}
	return "process " + b.String()
}

// maxListedPIDs keeps an error one line.
const maxListedPIDs = 4
