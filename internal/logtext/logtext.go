// Package logtext reads two logs that a person saved beside a core: the
// server's error log and the kernel's log. It gives typed facts, each with its
// time and its line, from the time around the capture.
//
// It decides nothing: whether an OOM kill of some mysqld explains this core is
// for others. A log is untrusted text: a query in a crash report, or a program
// that writes to the journal, can hold lines that look like others; facts are
// evidence to be checked against the core, never proof.
package logtext

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mycore/internal/target"
)

// ErrNoLog says that nothing of the log that was asked for was recognised.
var ErrNoLog = errors.New("no log found")

// Warning codes.
const (
	CodePart  = "log-part"  // only a part of the file was read
	CodeLimit = "log-limit" // more facts than are kept
	CodeZone  = "log-zone"  // times are in a time zone that the log doesn't tell
)

// Limits. A log may have many gigabytes: what is read doesn't grow with it.
const (
	maxRead       = 32 << 20 // bytes of the part that is looked through
	maxLine       = 64 << 10 // a longer line is cut; queries in crash reports are lines of their own
	maxText       = 4 << 10  // bytes of a line that a fact keeps
	maxFacts      = 1 << 14  // the latest are kept
	maxQuery      = 64 << 10
	maxCrash      = 1 << 16 // lines after a crash line that may belong to its report
	probeBytes    = 64 << 10
	maxProbeReads = 16 // a monitor's output of 1 MiB has no times inside
	maxProbes     = 64 // halvings of a file of any size, with some to spare
)

// Defaults of Options.
const (
	DefaultWindow    = time.Hour
	DefaultLastLines = 20000
)

// zoneSlack is by how much a local time of an unknown zone can differ from
// UTC: zones lie between -12 and +14 hours.
const zoneSlack = 14 * time.Hour

// Options choose the part of a log. The zero value takes the last
// DefaultLastLines lines.
type Options struct {
	// Around is the time of the capture. Facts outside Around plus or minus
	// Window are left out. Zero: not known.
	Around time.Time
	Window time.Duration // 0: DefaultWindow
	// LastLines bounds what is taken of a log without times, or without
	// Around. 0: DefaultLastLines.
	LastLines int
	// Location is the time zone of times that don't tell theirs. nil: not
	// known; the window is then widened by 14 hours either way.
	Location *time.Location
	// Boot is when the kernel started, for a dmesg that counts seconds. Zero:
	// not known.
	Boot time.Time
}

// Kind says what a fact is.
type Kind string

// Kinds of facts of an error log.
const (
	KindCrash          Kind = "crash"              // the server caught a deadly signal; Signal, Pointer, Connection, Query
	KindAssertion      Kind = "assertion"          // Path and SourceLine of the source file, Detail is the expression
	KindSignal         Kind = "signal"             // "Got signal 15 from thread 0"; Signal, Connection
	KindSemaphoreWait  Kind = "semaphore-wait"     // Handle, Path, SourceLine, Duration where told
	KindSemaphoreFatal Kind = "semaphore-fatal"    // the server ends itself because of such a wait
	KindDiskFull       Kind = "disk-full"          // Path of the file
	KindTooManyFiles   Kind = "too-many-files"     // errno 24
	KindTableMonitor   Kind = "table-monitor"      // InnoDB's table monitor prints; Handle
	KindMonitor        Kind = "innodb-monitor"     // InnoDB's monitor prints; Handle
	KindAborted        Kind = "aborted"            // "Aborted connection N"; Connection
	KindFreeBlocks     Kind = "free-blocks"        // no free pages in the buffer pool
	KindStart          Kind = "start"              // the server starts; PID
	KindReady          Kind = "ready"              // ready for connections
	KindShutdown       Kind = "shutdown"           // shutdown was asked for
	KindStopped        Kind = "stopped"            // shutdown is complete
	KindOOMKill        Kind = "oom-kill"           // PID, Process
	KindHungTask       Kind = "hung-task"          // LWP, Process, Duration
	KindNFSDown        Kind = "nfs-not-responding" // Server
	KindNFSUp          Kind = "nfs-ok"             // Server
	KindSegfault       Kind = "segfault"           // LWP (Linux) or PID (FreeBSD), Process, Signal
	KindIOError        Kind = "io-error"           // a device or a file system fails
)

// Fact is one thing that a log says.
type Fact struct {
	Kind Kind
	// Time is zero when it isn't known. A line without a time of its own has
	// the last one before it, and Inherited is set.
	Time      time.Time
	Inherited bool
	// Local: the log doesn't tell the time's zone, and Options.Location
	// neither; Time is the clock's reading taken as UTC.
	Local     bool
	SinceBoot target.Value[time.Duration] // of a dmesg that counts seconds

	Line   int    // of the file, from 1; 0 when its beginning wasn't read
	Offset int64  // of the line in the file
	Text   string // the line, up to 4 KiB; escape it where it is shown

	PID, LWP   int    // 0: not told
	Process    string // the name beside PID or LWP
	Signal     int    // 0: not told
	Handle     uint64 // OS thread handle; 0: not told
	Pointer    uint64 // address of the THD ("Thread pointer"); 0: none or not told
	Connection target.Value[uint64]
	Query      string
	Path       string // a file of the server, or of its source code
	SourceLine int
	Detail     string // expression, reason or state, as printed
	Server     string // of NFS
	Duration   time.Duration

	seq int // line of the part that was read
}

// Log is what was read.
type Log struct {
	Facts   []Fact // in the order of the file
	Version string // the server's, as last told; error log only
	PID     int    // of the server's last start; 0: not told
	Lines   int    // lines looked at
	Timed   bool   // some line had a time
	// From is the offset of the first byte that was looked at.
	From     int64
	Warnings []target.Warning
}

// ReadErrorLog reads the error log of MySQL 5.0 to 9.x or MariaDB, as a file or
// as the journal has it. name is the file's name, for messages; r and size are
// the file, which may be of any size. The error unwraps to ErrNoLog or an I/O
// error.
func ReadErrorLog(name string, r io.ReaderAt, size int64, opts Options) (*Log, error) {
	l := newReader(opts)
	l.take = l.errorLine
	log, err := l.read(name, r, size)
	if err != nil {
		return nil, err
	}
	if !l.recognised {
		return nil, fmt.Errorf("%q: %w: no line of a MySQL or MariaDB error log in %d lines", name, ErrNoLog, log.Lines)
	}
	return log, nil
}

// ReadKernelLog reads the kernel's log: dmesg (with seconds, with -T or ISO
// times), journalctl -k in its short forms, or FreeBSD's /var/log/messages. Of
// a journal's lines only the kernel's count. Otherwise it is as ReadErrorLog.
func ReadKernelLog(name string, r io.ReaderAt, size int64, opts Options) (*Log, error) {
	l := newReader(opts)
	l.take = l.kernelLine
	log, err := l.read(name, r, size)
	if err != nil {
		return nil, err
	}
	if !l.recognised {
		return nil, fmt.Errorf("%q: %w: no line of a kernel log in %d lines; give the text of `dmesg -T` or `journalctl -k`", name, ErrNoLog, log.Lines)
	}
	return log, nil
}

// reader goes through the chosen part of a log.
type reader struct {
	opts       Options
	log        Log
	take       func(line string)
	recognised bool
	clock      clock
	last       stamp // the time in force
	inherited  bool  // ... is that of an earlier line
	offset     int64 // of the current line
	dropped    int
	maria      bool
	crash      crashReport
	local      bool // some fact's time has an unknown zone
}

func newReader(opts Options) *reader {
	if opts.Window <= 0 {
		opts.Window = DefaultWindow
	}
	if opts.LastLines <= 0 {
		opts.LastLines = DefaultLastLines
	}
	return &reader{opts: opts, clock: clock{around: opts.Around, loc: opts.Location, boot: opts.Boot}}
}

func (l *reader) read(name string, r io.ReaderAt, size int64) (*Log, error) {
	from, end := l.part(r, max(size, 0))
	l.log.From = from
	br := bufio.NewReaderSize(io.NewSectionReader(r, from, end-from), maxLine)
	l.offset = from
	for {
		b, err := br.ReadSlice('\n')
		n := int64(len(b))
		line := ""
		if len(b) > 0 {
			l.log.Lines++
			line = cleanLine(b)
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			b, err = br.ReadSlice('\n')
			n += int64(len(b))
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading log %q: %w", name, err)
		}
		// A part begins in the middle of a line.
		if n > 0 && (l.log.Lines > 1 || from == 0) {
			l.take(line)
		}
		l.offset += n
		if err != nil {
			break
		}
	}
	l.crash.done()
	l.finish(name, size, end)
	return &l.log, nil
}

// cleanLine is the line without its end. Logs of file systems that were cut by
// a power failure have runs of NUL bytes.
func cleanLine(b []byte) string {
	return strings.TrimRight(strings.TrimLeft(string(b), "\x00"), "\r\n\x00")
}

// part chooses which bytes are looked through: all, those of the time window,
// or the last ones. Of a window that is itself too long, those around the
// capture.
func (l *reader) part(r io.ReaderAt, size int64) (from, end int64) {
	if size <= maxRead {
		return 0, size
	}
	if l.opts.Around.IsZero() {
		return size - maxRead, size
	}
	w := l.opts.Window
	if l.opts.Location == nil {
		w += zoneSlack
	}
	from, _, ok := l.search(r, size, l.opts.Around.Add(-w))
	if !ok {
		return size - maxRead, size
	}
	_, end, _ = l.search(r, size, l.opts.Around.Add(w))
	if end = min(end+probeBytes, size); end-from > maxRead {
		mid, _, _ := l.search(r, size, l.opts.Around)
		from = max(from, mid-maxRead/2)
		end = min(from+maxRead, size)
	}
	return from, end
}

// search halves the file: times before lo are earlier than want, and a time
// behind hi isn't (or hi is the end). ok is false when there were no times
// where it was looked at.
func (l *reader) search(r io.ReaderAt, size int64, want time.Time) (lo, hi int64, ok bool) {
	hi = size
	for range maxProbes {
		if hi-lo <= probeBytes {
			break
		}
		mid := lo + (hi-lo)/2
		t, found := l.probe(r, mid)
		ok = ok || found
		if found && t.Before(want) {
			lo = mid
		} else {
			hi = mid // without a time (a long query) the earlier half is the safe one
		}
	}
	return lo, hi, ok
}

// probe finds the first time behind an offset, within a megabyte.
func (l *reader) probe(r io.ReaderAt, at int64) (time.Time, bool) {
	buf := make([]byte, probeBytes)
	for range maxProbeReads {
		n, err := r.ReadAt(buf, at)
		_, text, ok := strings.Cut(string(buf[:n]), "\n")
		for ok && text != "" {
			var line string
			line, text, ok = strings.Cut(text, "\n")
			if s, _, stamped := l.clock.read(cleanLine([]byte(line))); stamped && !s.t.IsZero() {
				return s.t, true
			}
		}
		if err != nil {
			break
		}
		at += int64(n)
	}
	return time.Time{}, false
}

// stamped notes the time of a line and returns the rest of it.
func (l *reader) stamped(line string) (rest string, ok bool) {
	s, rest, ok := l.clock.read(line)
	if !ok {
		l.inherited = true
		return line, false
	}
	l.last, l.inherited = s, false
	l.log.Timed = l.log.Timed || !s.t.IsZero()
	return rest, true
}

// add appends a fact about the current line; false when its time is known to be
// outside the window.
func (l *reader) add(line string, f Fact) bool {
	l.recognised = true
	f.Time, f.Local, f.SinceBoot, f.Inherited = l.last.t, l.last.local, l.last.boot, l.inherited
	if !l.opts.Around.IsZero() && !f.Time.IsZero() && !l.near(f) {
		return false
	}
	if l.log.From == 0 {
		f.Line = l.log.Lines
	}
	f.Offset = l.offset
	f.Text = clip(line, maxText)
	if len(l.log.Facts) >= 2*maxFacts {
		l.dropped += maxFacts
		l.log.Facts = append(l.log.Facts[:0], l.log.Facts[maxFacts:]...)
		l.crash.moved(maxFacts)
	}
	// Where the file ends is known at the end: until then the line's number
	// counts from the part's beginning, for the rule of the last lines.
	f.seq = l.log.Lines
	l.log.Facts = append(l.log.Facts, f)
	return true
}

// finish leaves out what isn't of the time around the capture.
func (l *reader) finish(name string, size, end int64) {
	keep := func(f Fact) bool { return f.seq > l.log.Lines-l.opts.LastLines }
	if l.log.Timed && !l.opts.Around.IsZero() {
		keep = l.near
	}
	l.log.Facts = slices.DeleteFunc(l.log.Facts, func(f Fact) bool { return !keep(f) })
	if n := len(l.log.Facts) - maxFacts; n > 0 {
		l.dropped += n
		l.log.Facts = slices.Delete(l.log.Facts, 0, n)
	}
	for i := range l.log.Facts {
		l.local = l.local || l.log.Facts[i].Local && !l.log.Facts[i].Time.IsZero()
	}
	warn := func(code, format string, args ...any) {
		l.log.Warnings = append(l.log.Warnings, target.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
	}
	if l.log.From > 0 || end < size {
		warn(CodePart, "of the %d bytes of %q the %d from offset %d on were read", size, name, end-l.log.From, l.log.From)
	}
	if l.dropped > 0 {
		warn(CodeLimit, "%q has more than %d lines of interest: the earliest %d were left out", name, maxFacts, l.dropped)
	}
	if l.local && !l.opts.Around.IsZero() {
		warn(CodeZone, "the times of %q are in a time zone that the log doesn't tell: lines up to %d hours off were taken", name, int(zoneSlack.Hours()))
	}
}

// near reports whether a fact lies in the window.
func (l *reader) near(f Fact) bool {
	if f.Time.IsZero() {
		return false
	}
	w := l.opts.Window
	if f.Local {
		w += zoneSlack
	}
	return f.Time.Sub(l.opts.Around).Abs() <= w
}

// clip bounds a text and frees it from the line around it.
func clip(s string, most int) string { return strings.Clone(s[:min(len(s), most)]) }
