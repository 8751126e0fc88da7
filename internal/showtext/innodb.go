package showtext

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"mycore/internal/target"
)

// Session is a session line of SHOW ENGINE INNODB STATUS:
//
//	MySQL thread id 1, OS thread handle 0x829e76000, query id 9 localhost root System lock
type Session struct {
	Connection uint64 // "thread id": the connection id
	Handle     Handle // absent in MySQL 5.0 and 5.1
	QueryID    uint64
	Rest       string // host, address, user and state, as printed, blanks between
	Query      string // the lines of query text that follow, up to 64 KiB
	// History: the line stands in LATEST DETECTED DEADLOCK or LATEST FOREIGN
	// KEY ERROR. It tells what was, never what is.
	History bool
	MariaDB bool // the line begins with MariaDB (10.6 and later)
	Line    int  // line of the text, from 1; in escaped text, of the unescaped one
}

// InnoDBStatus is what was read of SHOW ENGINE INNODB STATUS.
type InnoDBStatus struct {
	Sessions []Session // in the order of the text
	// PrintedBy is the thread that printed the monitor's output: the session
	// that ran SHOW, or the server's own monitor thread. 5.6 prints hex
	// without 0x, later versions decimal: digits only are taken by the form of
	// the session lines, and are not Known when there are none.
	PrintedBy  Handle
	Time       string // the header's time as printed, in the server's time zone
	MainThread Handle // InnoDB's main thread, where the text names it
	PID        target.Value[int]
	Warnings   []target.Warning
}

// ReadInnoDBStatus reads the text of SHOW ENGINE INNODB STATUS, as \G, tabular
// or tab-separated output, from an error log, or single lines of it. name is
// the file's name, for messages. The error unwraps to ErrNoStatus or an I/O
// error.
func ReadInnoDBStatus(name string, r io.Reader) (*InnoDBStatus, error) {
	text, cut, err := readLines(r)
	if err != nil {
		return nil, fmt.Errorf("reading INNODB STATUS text %q: %w", name, err)
	}
	s := &statusReader{st: &InnoDBStatus{}}
	lines(unescapeStatus(text), s.line)
	s.endQuery()
	st := s.st
	if !s.found {
		return nil, fmt.Errorf("%q: %w in %d lines; give the text of SHOW ENGINE INNODB STATUS", name, ErrNoStatus, s.n)
	}
	st.PrintedBy = s.printedBy()
	if cut {
		st.Warnings = append(st.Warnings, warning(CodeLimit, "%q is longer than is read: the rest was left out", name))
	}
	if s.truncated {
		st.Warnings = append(st.Warnings, warning(CodeTruncated, "the server cut its INNODB STATUS in %q: sessions are missing; innodb_status_output to the error log has all", name))
	}
	if s.dropped > 0 {
		st.Warnings = append(st.Warnings, warning(CodeMalformed, "%d session lines of %q make no sense and were left out", s.dropped, name))
	}
	if s.imitated > 0 {
		st.Warnings = append(st.Warnings, warning(CodeImitation, "%d session lines of %q stand in the text of a query and were left out", s.imitated, name))
	}
	return st, nil
}

// unescapeStatus undoes the escapes of tab-separated output, which has the
// whole status in one line.
func unescapeStatus(text string) string {
	if !strings.Contains(text, "InnoDB\t") || !strings.Contains(text, `\n`) {
		return text
	}
	return unescape(text)
}

// unescape undoes the escapes of the client's tab-separated output: \n \t \0
// and \\ (client/mysql.cc, safe_put_field).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if c, ok := escapes[s[i+1]]; ok {
				b.WriteByte(c)
				i++
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

var escapes = map[byte]byte{'n': '\n', 't': '\t', '0': 0, '\\': '\\'}

// statusReader goes through the lines of one status.
type statusReader struct {
	st       *InnoDBStatus
	n        int
	found    bool
	history  bool
	dashes   bool // the line before was a rule
	header   string
	hexLines bool // session lines have 0x handles
	decLines bool

	inTrx    bool // a ---TRANSACTION line was seen
	trxDone  bool // ... and its session line too
	query    strings.Builder
	inQuery  bool
	imitated int

	truncated bool
	dropped   int
}

const monitorOutput = "INNODB MONITOR OUTPUT"

func (s *statusReader) line(n int, line, _ string) {
	s.n = n
	// Tabular output has a cell's border before the first line.
	trimmed := strings.TrimLeft(line, "| ")
	if i := strings.Index(line, monitorOutput); i >= 0 && !strings.Contains(line, "END OF") {
		s.endQuery()
		s.monitor(strings.TrimSpace(line[:i]))
		return
	}
	if isRule(trimmed) {
		s.dashes = true
		s.endQuery()
		return
	}
	after := s.dashes
	s.dashes = false
	if after && isTitle(trimmed) {
		s.history = strings.HasPrefix(trimmed, "LATEST ")
		s.inTrx, s.trxDone = false, false
		return
	}
	if strings.Contains(line, "... truncated...") {
		s.truncated = true
	}
	if s.transaction(trimmed) || s.session(trimmed) {
		return
	}
	s.mainThread(trimmed)
	s.queryLine(line)
}

// isRule recognises the lines of dashes or equal signs around titles.
func isRule(s string) bool {
	return len(s) >= 3 && (strings.Trim(s, "-") == "" || strings.Trim(s, "=") == "")
}

// isTitle recognises section titles: capitals, digits and signs.
func isTitle(s string) bool {
	return s != "" && len(s) < 80 && s == strings.ToUpper(s) && s[0] >= 'A' && s[0] <= 'Z'
}

// monitor reads "2026-11-21 04:03:54 7fbbff73b6c0", and what may stand before.
func (s *statusReader) monitor(before string) {
	s.found = true
	s.inTrx, s.trxDone, s.history = false, false, false
	f := strings.Fields(before)
	if len(f) == 0 {
		return
	}
	if !strings.Contains(f[len(f)-1], ":") { // 5.5 and before name no thread
		s.header = f[len(f)-1]
		f = f[:len(f)-1]
	}
	if len(f) >= 2 {
		s.st.Time = clip(f[len(f)-2]+" "+f[len(f)-1], 40)
	}
}

// printedBy decides how to read the header's handle.
func (s *statusReader) printedBy() Handle {
	h := Handle{Text: clip(s.header, 24)}
	switch {
	case h.Text == "":
		return h
	case strings.HasPrefix(h.Text, "0x"):
		h, _ = parseHandle(h.Text)
		return h
	case strings.Trim(h.Text, "0123456789") != "" || s.hexLines && !s.decLines:
		v, err := strconv.ParseUint(h.Text, 16, 64)
		h.V, h.Known = v, err == nil
	// Addresses of x86-64 and arm64 user space have 15 digits in decimal when
	// they are near the top, where Linux puts stacks, and 12 in hex.
	case s.decLines && !s.hexLines || len(h.Text) >= 15:
		v, err := strconv.ParseUint(h.Text, 10, 64)
		h.V, h.Known = v, err == nil
	}
	if !h.Known {
		h.V = 0
	}
	return h
}

// transaction notes where a transaction's lines begin.
func (s *statusReader) transaction(line string) bool {
	if strings.HasPrefix(line, "---TRANSACTION") || strings.HasPrefix(line, "*** (") && strings.HasSuffix(line, "TRANSACTION:") {
		s.endQuery()
		s.inTrx, s.trxDone = true, false
		return true
	}
	return false
}

// session reads a session line; false when the line is none.
func (s *statusReader) session(line string) bool {
	rest, maria := strings.CutPrefix(line, "MariaDB thread id ")
	if !maria {
		var ok bool
		if rest, ok = strings.CutPrefix(line, "MySQL thread id "); !ok {
			return false
		}
	}
	// One session line per transaction; a second one is text of its query.
	if s.inTrx && s.trxDone {
		s.imitated++
		return false
	}
	s.endQuery()
	out := Session{MariaDB: maria, History: s.history, Line: s.n}
	id := leadingDigits(rest)
	v, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		s.dropped++
		return true
	}
	out.Connection = v
	rest = rest[len(id):]
	if after, ok := strings.CutPrefix(rest, ", OS thread handle "); ok {
		word := leadingWord(after)
		if out.Handle, ok = parseHandle(word); !ok {
			s.dropped++
			return true
		}
		s.hexLines = s.hexLines || strings.HasPrefix(word, "0x")
		s.decLines = s.decLines || !strings.HasPrefix(word, "0x")
		rest = after[len(word):]
	}
	after, ok := strings.CutPrefix(rest, ", query id ")
	digits := leadingDigits(after)
	out.QueryID, err = strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || len(s.st.Sessions) >= maxRows {
		s.dropped++
		return true
	}
	out.Rest = clip(strings.TrimSpace(strings.TrimSuffix(strings.TrimRight(after[len(digits):], " "), "|")), maxValue)
	s.st.Sessions = append(s.st.Sessions, out)
	s.found, s.trxDone, s.inQuery = true, true, true
	return true
}

// endsQuery are beginnings of lines that can follow the text of a query
// (lock0lock.cc, trx0trx.cc).
var endsQuery = [...]string{
	"Trx read view", "TABLE LOCK", "RECORD LOCK", "Record lock", "------- TRX HAS BEEN", "*** ", "---", "END OF INNODB",
	"TOO MANY LOCKS", "Trx #rec lock waits",
}

// queryLine collects the text after a session line.
func (s *statusReader) queryLine(line string) {
	if !s.inQuery {
		return
	}
	for _, p := range endsQuery {
		if strings.HasPrefix(line, p) {
			s.endQuery()
			return
		}
	}
	if s.query.Len()+len(line) > maxQuery {
		return
	}
	if s.query.Len() > 0 {
		s.query.WriteByte('\n')
	}
	s.query.WriteString(line)
}

func (s *statusReader) endQuery() {
	if s.inQuery {
		s.st.Sessions[len(s.st.Sessions)-1].Query = strings.TrimRight(s.query.String(), "\n")
	}
	s.query.Reset()
	s.inQuery = false
}

// mainThread reads "Process ID=13510, Main thread ID=140074958689984 ,
// state=sleeping" (5.7 and later) and "Main thread process no. 13510, id
// 140074958689984, state: sleeping".
func (s *statusReader) mainThread(line string) {
	var pid, id string
	if after, ok := strings.CutPrefix(line, "Process ID="); ok {
		pid = leadingDigits(after)
		_, id, _ = strings.Cut(after, "Main thread ID=")
	} else if after, ok := strings.CutPrefix(line, "Main thread process no. "); ok {
		pid = leadingDigits(after)
		_, id, _ = strings.Cut(after, ", id ")
	} else {
		return
	}
	if n, err := strconv.ParseInt(pid, 10, 32); err == nil && n > 0 {
		s.st.PID = target.Known(int(n), target.SourceInnoDBStatus)
	}
	if h, ok := parseHandle(leadingWord(id)); ok {
		s.st.MainThread = h
		s.found = true
	}
}
