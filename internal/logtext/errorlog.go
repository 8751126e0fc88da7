package logtext

import (
	"strconv"
	"strings"
	"time"

	"mycore/internal/target"
)

// crashReport collects the lines behind "got signal N" into their fact.
type crashReport struct {
	l     *reader
	index int // of the fact
	open  bool
	lines int
	query strings.Builder
	inQ   bool
	// The query's text may hold lines like those of the report: the last
	// connection line counts, and all before it is query.
	seenConn bool
	tail     []string // lines behind the last connection line
	tailSize int
}

// done ends the report.
func (c *crashReport) done() {
	if c.open && c.index >= 0 {
		f := &c.l.log.Facts[c.index]
		f.Query = clip(strings.TrimRight(c.query.String(), "\n"), maxQuery)
	}
	c.open, c.inQ, c.seenConn = false, false, false
	c.tail, c.tailSize = nil, 0
	c.query.Reset()
}

// moved follows the fact when earlier ones are dropped.
func (c *crashReport) moved(n int) {
	if c.open {
		c.index -= n
	}
}

func (c *crashReport) begin(l *reader, index int) {
	c.done()
	c.l, c.index, c.open, c.lines = l, index, true, 0
}

// line takes one line of the report.
func (c *crashReport) line(line string) {
	if c.lines++; c.lines > maxCrash {
		c.done()
		return
	}
	if c.index < 0 {
		return
	}
	f := &c.l.log.Facts[c.index]
	if rest, ok := strings.CutPrefix(line, "Connection ID (thread ID): "); ok {
		if id, err := strconv.ParseUint(digits(rest), 10, 64); err == nil {
			if c.seenConn { // the one before was text of the query
				c.addQuery("Connection ID (thread ID): " + strconv.FormatUint(f.Connection.V, 10))
				for _, s := range c.tail {
					c.addQuery(s)
				}
			}
			f.Connection = target.Known(id, "error-log")
			c.seenConn, c.inQ, c.tail, c.tailSize = true, false, nil, 0
		}
		return
	}
	if c.seenConn && c.tailSize+len(line) <= maxQuery {
		c.tail = append(c.tail, line)
		c.tailSize += len(line) + 1
	}
	switch {
	case c.inQ:
		c.addQuery(line)
	case strings.HasPrefix(line, "Query (") && !c.seenConn:
		if _, text, ok := strings.Cut(line, "): "); ok {
			c.query.Reset()
			c.addQuery(text)
			c.inQ = true
		}
	case strings.HasPrefix(line, "Thread pointer: "), strings.HasPrefix(line, "thd: "):
		_, v, _ := strings.Cut(line, ": ")
		f.Pointer = hexNumber(v)
	case strings.HasPrefix(line, "Status: "):
		f.Detail = clip(strings.TrimPrefix(line, "Status: "), 64)
	case strings.HasPrefix(line, "Server version: "):
		c.l.version(strings.TrimPrefix(line, "Server version: "))
	}
}

func (c *crashReport) addQuery(s string) {
	if c.query.Len()+len(s) > maxQuery {
		return
	}
	if c.query.Len() > 0 {
		c.query.WriteByte('\n')
	}
	c.query.WriteString(s)
}

// errorLine takes one line of an error log.
func (l *reader) errorLine(line string) {
	rest, stamped := l.stamped(line)
	if stamped && l.last.short && !isTagged(rest) {
		if ident, pid, msg, ok := journal(rest); ok && ident != "InnoDB" {
			if !isServer(ident) {
				return
			}
			l.recognised = true
			if pid != 0 {
				l.log.PID = pid
			}
			rest, stamped = l.inner(msg)
		}
	}
	if l.crash.open {
		if !stamped && !isCrashLine(rest) {
			l.crash.line(rest)
			return
		}
		l.crash.done()
	}
	msg, tag := rest, uint64(0)
	if stamped {
		l.maria = l.maria || l.last.padded
		msg, tag = l.tag(rest)
	}
	if l.match(line, msg) {
		l.meaning(&l.log.Facts[len(l.log.Facts)-1], tag)
	}
}

// inner reads the server's own time behind a journal's, which is finer and
// tells its zone in newer versions.
func (l *reader) inner(msg string) (rest string, ok bool) {
	s, rest, ok := l.clock.read(msg)
	if !ok {
		return msg, false
	}
	if !s.t.IsZero() {
		l.last = s
	}
	return rest, true
}

// isCrashLine recognises "06:12:09 UTC - mysqld got signal 11 ;", which has no
// date.
func isCrashLine(line string) bool { return match(line, "dd:dd:dd UTC - ") }

// isTagged recognises the rest of a server's own line, which has a number and a
// level behind the time: "0 [Note] ...".
func isTagged(rest string) bool {
	n := digits(rest)
	return n != "" && strings.HasPrefix(strings.TrimLeft(rest[len(n):], " "), "[")
}

// isServer accepts the identifiers under which servers write to a journal.
func isServer(ident string) bool {
	i := strings.ToLower(ident)
	return strings.Contains(i, "mysql") || strings.Contains(i, "mariadb")
}

// tag takes the number behind the time: the process id in MySQL 5.6 (in
// InnoDB's own lines the thread's handle, in hex), the connection id in later
// versions and in MariaDB, the thread's handle in MariaDB 10.0 and 10.1.
func (l *reader) tag(rest string) (msg string, tag uint64) {
	word, after, ok := strings.Cut(rest, " ")
	if !ok {
		return rest, 0
	}
	after = strings.TrimLeft(after, " ")
	switch {
	case strings.HasPrefix(after, "["):
		if n, err := strconv.ParseUint(word, 10, 64); err == nil {
			l.recognised = true
			return after, n
		}
	case strings.HasPrefix(after, "InnoDB:"):
		if n, err := strconv.ParseUint(strings.TrimPrefix(word, "0x"), 16, 64); err == nil && len(word) > 5 {
			l.recognised = true
			return after, n
		}
	}
	if strings.HasPrefix(rest, "[") || strings.HasPrefix(rest, "InnoDB:") || strings.HasPrefix(rest, "mysqld_safe ") {
		l.recognised = true
	}
	return rest, 0
}

// minHandle separates handles from ids in the number behind the time: ids are
// 32-bit, mapped thread structures of 64-bit systems lie above.
const minHandle = 1 << 32

// meaning gives the number behind the time its sense, where the form tells it.
func (l *reader) meaning(f *Fact, tag uint64) {
	switch {
	case tag == 0:
	case tag >= minHandle:
		if f.Handle == 0 {
			f.Handle = tag
		}
	case (l.last.iso || l.maria) && !f.Connection.Known:
		f.Connection = target.Known(tag, "error-log")
	}
}

func (l *reader) version(v string) {
	v, _, _ = strings.Cut(v, " source revision:")
	l.log.Version = clip(strings.TrimSpace(v), 128)
	l.maria = strings.Contains(v, "MariaDB")
}

// match adds the fact of a line; false when it has none.
func (l *reader) match(line, msg string) bool {
	if i := strings.Index(msg, " got signal "); i >= 0 {
		n := digits(msg[i+len(" got signal "):])
		sig, err := strconv.Atoi(n)
		if err == nil && strings.HasPrefix(msg[i+len(" got signal ")+len(n):], " ;") && sig > 0 && sig <= 128 {
			at := -1 // outside the window the report is read all the same: its lines are no facts
			if l.add(line, Fact{Kind: KindCrash, Signal: sig}) {
				at = len(l.log.Facts) - 1
			}
			l.crash.begin(l, at)
			return at >= 0
		}
	}
	for _, m := range errorMatchers {
		if i := strings.Index(msg, m.text); i >= 0 {
			f := Fact{Kind: m.kind}
			if m.read == nil || m.read(l, &f, msg, msg[i+len(m.text):]) {
				return m.kind != "" && l.add(line, f)
			}
		}
	}
	return false
}

// matcher recognises a line by a text in it; read fills the fact from the whole
// message and from what follows the text, and may refuse.
type matcher struct {
	text string
	kind Kind
	read func(l *reader, f *Fact, msg, after string) bool
}

// errorMatchers are the lines of interest. Texts: MySQL 5.6, 9.7, MariaDB 10.11
// (sql/mysqld.cc, sql/signal_handler.cc, mysys/errors.c, storage/innobase
// srv0srv.cc, sync0arr.cc, ut0dbg.cc).
var errorMatchers = [...]matcher{
	{"Got signal ", KindSignal, readSignal},
	{"has waited at ", KindSemaphoreWait, readSemaphore},
	{"emaphore wait has lasted > ", KindSemaphoreFatal, readSeconds},
	{"innodb_fatal_semaphore_wait_threshold was exceeded", KindSemaphoreFatal, nil},
	{"long semaphore wait", KindSemaphoreWait, nil},
	{"A long wait (", KindSemaphoreWait, readSeconds},
	{"Assertion failure in thread ", KindAssertion, readAssertThread},
	{"Assertion failure in file ", KindAssertion, readAssertFile},
	{"Assertion failure: ", KindAssertion, readAssert},
	{"Failing assertion: ", KindAssertion, readExpression},
	{": Assertion `", KindAssertion, readLibcAssert},
	{"Disk is full writing ", KindDiskFull, readQuoted},
	{"No space left on device", KindDiskFull, readAnyQuoted},
	{"rrcode: 28", KindDiskFull, readErrno},
	{"errno: 28", KindDiskFull, readErrno},
	{"Too many open files", KindTooManyFiles, readAnyQuoted},
	{"rrcode: 24", KindTooManyFiles, readErrno},
	{"errno: 24", KindTooManyFiles, readErrno},
	{"INNODB TABLE MONITOR OUTPUT", KindTableMonitor, readMonitor},
	{"INNODB MONITOR OUTPUT", KindMonitor, readMonitor},
	{"Aborted connection ", KindAborted, readConnection},
	{"ifficult to find free blocks", KindFreeBlocks, nil},
	{"ready for connections", KindReady, nil},
	{"starting as process ", KindStart, readStart},
	{" as process ", KindStart, readStarting},
	{"ormal shutdown", KindShutdown, nil},
	{"Received SHUTDOWN", KindShutdown, nil},
	{"Shutdown complete", KindStopped, nil},
	{"Version: '", "", readVersion},
}

func readSignal(_ *reader, f *Fact, _, after string) bool {
	n := digits(after)
	sig, err := strconv.Atoi(n)
	rest, ok := strings.CutPrefix(after[len(n):], " from thread ")
	if err != nil || !ok || sig < 1 || sig > 128 {
		return false
	}
	f.Signal = sig
	if id, err := strconv.ParseUint(digits(rest), 10, 64); err == nil {
		f.Connection = target.Known(id, "error-log")
	}
	return true
}

// readSemaphore reads "--Thread 140... has waited at row0ins.cc line 2401 for
// 241.00 seconds the semaphore:".
func readSemaphore(_ *reader, f *Fact, msg, after string) bool {
	file, rest, ok := strings.Cut(after, " line ")
	if !ok || !strings.Contains(rest, "the semaphore") {
		return false
	}
	f.Path = clip(file, 255)
	n := digits(rest)
	f.SourceLine, _ = strconv.Atoi(n)
	if sec, ok := strings.CutPrefix(rest[len(n):], " for "); ok {
		f.Duration = seconds(sec)
	}
	if _, id, ok := strings.Cut(msg, "--Thread "); ok {
		f.Handle, _ = strconv.ParseUint(digits(id), 10, 64)
	}
	return true
}

func readSeconds(_ *reader, f *Fact, _, after string) bool {
	f.Duration = seconds(after)
	return true
}

// readAssertThread reads "140... in file row0row.cc line 123".
func readAssertThread(l *reader, f *Fact, msg, after string) bool {
	f.Handle, _ = strconv.ParseUint(digits(after), 10, 64)
	_, rest, ok := strings.Cut(after, " in file ")
	return ok && readAssertFile(l, f, msg, rest)
}

func readAssertFile(_ *reader, f *Fact, _, after string) bool {
	file, rest, ok := strings.Cut(after, " line ")
	f.Path = clip(file, 255)
	f.SourceLine, _ = strconv.Atoi(digits(rest))
	return ok
}

// readAssert reads "btr0cur.cc:1234:expression thread 140...".
func readAssert(_ *reader, f *Fact, _, after string) bool {
	file, rest, ok := strings.Cut(after, ":")
	if !ok {
		return false
	}
	n := digits(rest)
	f.Path = clip(file, 255)
	f.SourceLine, _ = strconv.Atoi(n)
	expr := strings.TrimPrefix(rest[len(n):], ":")
	if i := strings.LastIndex(expr, " thread "); i >= 0 {
		if h, err := strconv.ParseUint(digits(expr[i+len(" thread "):]), 10, 64); err == nil {
			f.Handle, expr = h, expr[:i]
		}
	}
	f.Detail = clip(expr, 255)
	return n != ""
}

func readExpression(_ *reader, f *Fact, _, after string) bool {
	f.Detail = clip(after, 255)
	return true
}

// readLibcAssert reads "mysqld: /path/file.cc:123: function: Assertion `expr' failed."
func readLibcAssert(_ *reader, f *Fact, msg, after string) bool {
	expr, _, ok := strings.Cut(after, "' failed")
	if !ok {
		return false
	}
	f.Detail = clip(expr, 255)
	if _, rest, ok := strings.Cut(msg, ": "); ok {
		file, rest, _ := strings.Cut(rest, ":")
		f.Path = clip(file, 255)
		f.SourceLine, _ = strconv.Atoi(digits(rest))
	}
	return true
}

func readQuoted(_ *reader, f *Fact, _, after string) bool {
	f.Path = quoted(after)
	return true
}

func readAnyQuoted(_ *reader, f *Fact, msg, _ string) bool {
	f.Path = quoted(msg)
	return true
}

// readErrno refuses numbers that only begin with the wanted one.
func readErrno(_ *reader, f *Fact, msg, after string) bool {
	f.Path = quoted(msg)
	return digits(after) == ""
}

// quoted is the text in the first pair of single quotes; an apostrophe inside a
// word opens none.
func quoted(s string) string {
	for i := 0; ; i++ {
		n := strings.IndexByte(s[i:], '\'')
		if n < 0 {
			return ""
		}
		i += n
		if i > 0 && s[i-1] != ' ' && s[i-1] != '(' && s[i-1] != ':' {
			continue
		}
		text, _, ok := strings.Cut(s[i+1:], "'")
		if !ok {
			return ""
		}
		return clip(text, maxText)
	}
}

// readMonitor reads the header's thread, "7fbbff73b6c0 INNODB MONITOR OUTPUT":
// hex without 0x in 5.6, decimal later, 0x in MariaDB. Digits only of fifteen
// or more places are decimal; shorter ones could be either and are left out.
func readMonitor(_ *reader, f *Fact, msg, _ string) bool {
	if strings.Contains(msg, "END OF INNODB") {
		return false
	}
	w := strings.Fields(msg)
	if len(w) == 0 {
		return true
	}
	switch id := w[0]; {
	case strings.HasPrefix(id, "0x"):
		f.Handle = hexNumber(id)
	case strings.Trim(id, "0123456789") == "" && len(id) >= 15:
		f.Handle, _ = strconv.ParseUint(id, 10, 64)
	case strings.Trim(id, "0123456789") != "":
		f.Handle = hexNumber(id)
	}
	return true
}

func readConnection(_ *reader, f *Fact, _, after string) bool {
	id, err := strconv.ParseUint(digits(after), 10, 64)
	if err != nil {
		return false
	}
	f.Connection = target.Known(id, "error-log")
	if i := strings.LastIndexByte(after, '('); i >= 0 {
		f.Detail = clip(strings.TrimSuffix(after[i+1:], ")"), 255)
	}
	return true
}

func readStart(l *reader, f *Fact, _, after string) bool {
	n, err := strconv.ParseUint(digits(after), 10, 31)
	if err != nil {
		return false
	}
	f.PID, l.log.PID = int(n), int(n)
	return true
}

// readStarting reads MariaDB's "Starting MariaDB 10.11.19-... source revision
// ... as process 22405".
func readStarting(l *reader, f *Fact, msg, after string) bool {
	_, v, ok := strings.Cut(msg, "Starting MariaDB ")
	if !ok {
		return false
	}
	v, _, _ = strings.Cut(v, " ")
	l.version(v)
	l.maria = true
	return readStart(l, f, msg, after)
}

func readVersion(l *reader, _ *Fact, _, after string) bool {
	v, _, ok := strings.Cut(after, "'")
	if ok {
		l.version(v)
		l.recognised = true
	}
	return ok
}

// digits is the longest prefix of decimal digits.
func digits(s string) string {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return s[:n]
}

// hexNumber reads hex digits with or without 0x; 0 when there are none.
func hexNumber(s string) uint64 {
	s = strings.TrimPrefix(strings.TrimSpace(s), "0x")
	n := 0
	for n < len(s) && strings.IndexByte("0123456789abcdefABCDEF", s[n]) >= 0 {
		n++
	}
	v, err := strconv.ParseUint(s[:n], 16, 64)
	if err != nil {
		return 0
	}
	return v
}

// maxSeconds bounds a wait that a log tells: thirty years.
const maxSeconds = 1e9

// seconds reads "241.00 seconds" and "241 seconds".
func seconds(s string) time.Duration {
	n := digits(s)
	if rest, ok := strings.CutPrefix(s[len(n):], "."); ok {
		n += "." + digits(rest)
	}
	v, err := strconv.ParseFloat(n, 64)
	if err != nil || v > maxSeconds {
		return 0
	}
	return time.Duration(v * float64(time.Second))
}
