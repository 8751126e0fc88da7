package analyze

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"mycore/internal/diagnose"
	"mycore/internal/elfimage"
	"mycore/internal/incident"
	"mycore/internal/kernelview"
	"mycore/internal/logtext"
	"mycore/internal/procstat"
	"mycore/internal/showtext"
	"mycore/internal/target"
)

// texts is what a person saved beside the core.
type texts struct {
	views    []*kernelview.Process // in the order in which they are joined
	status   *showtext.InnoDBStatus
	list     *showtext.Processlist
	errors   *logtext.Log
	kernel   *logtext.Log
	warnings []target.Warning
}

// readTexts reads the text inputs; pid is that of the core, 0 when unknown.
func readTexts(opts Options, pid int) (*texts, error) {
	t := &texts{}
	if opts.Proc != "" {
		v, err := procstat.ReadProcTree(opts.Proc)
		if err != nil {
			return nil, fmt.Errorf("reading the /proc tree: %w", err)
		}
		t.views = append(t.views, v)
	}
	for _, in := range []struct {
		path string
		read func(io.Reader) error
	}{
		{opts.Procstat, func(r io.Reader) error {
			v, err := procstat.ReadProcstat(opts.Procstat, r, pid)
			if err == nil {
				t.views = append(t.views, v)
			}
			return err
		}},
		{opts.PS, func(r io.Reader) error {
			v, err := procstat.ReadPS(opts.PS, r, pid)
			if err == nil {
				t.views = append(t.views, v)
			}
			return err
		}},
		{opts.InnoDBStatus, func(r io.Reader) (err error) {
			if t.status, err = showtext.ReadInnoDBStatus(opts.InnoDBStatus, r); err == nil {
				t.warnings = append(t.warnings, t.status.Warnings...)
			}
			return err
		}},
		{opts.Processlist, func(r io.Reader) (err error) {
			if t.list, err = showtext.ReadProcesslist(opts.Processlist, r); err == nil {
				t.warnings = append(t.warnings, t.list.Warnings...)
			}
			return err
		}},
	} {
		if in.path == "" {
			continue
		}
		if err := t.tolerate(readFile(in.path, in.read)); err != nil {
			return nil, err
		}
	}
	var err error
	if t.errors, err = t.readLog(opts.ErrorLog, opts, logtext.ReadErrorLog); err != nil {
		return nil, err
	}
	t.kernel, err = t.readLog(opts.KernelLog, opts, logtext.ReadKernelLog)
	return t, err
}

// readLog reads the part of a log around the time of the core, which is that of
// its file. A log without a line from then is read at its end: the file's time
// may be that of a copy.
func (t *texts) readLog(path string, opts Options, read func(string, io.ReaderAt, int64, logtext.Options) (*logtext.Log, error)) (*logtext.Log, error) {
	if path == "" {
		return nil, nil
	}
	f, size, err := elfimage.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var o logtext.Options
	if st, err := os.Stat(opts.Core); err == nil {
		o.Around = st.ModTime()
	}
	log, err := read(path, f, size, o)
	if err != nil {
		return nil, t.tolerate(err)
	}
	if log.Timed && len(log.Facts) == 0 && !o.Around.IsZero() {
		if log, err = read(path, f, size, logtext.Options{}); err != nil {
			return nil, err
		}
		if len(log.Facts) > 0 {
			t.warnings = append(t.warnings, target.Warning{Code: "log-time", Text: fmt.Sprintf(
				"%s says nothing of the hour around the core file's time (%s): what it says at its end is shown instead, and may be of another time", path, o.Around.UTC().Format(time.RFC3339))})
		}
	}
	t.warnings = append(t.warnings, log.Warnings...)
	return log, nil
}

// logFacts are what the logs say, with handles turned into threads.
func (img *image) logFacts() []incident.LogFact {
	if img.texts.errors == nil && img.texts.kernel == nil {
		return nil
	}
	out := []incident.LogFact{}
	for _, log := range []struct {
		*logtext.Log
		source target.Source
	}{{img.texts.errors, target.SourceErrorLog}, {img.texts.kernel, target.SourceKernelLog}} {
		if log.Log == nil {
			continue
		}
		for i := range log.Facts {
			out = append(out, img.logFact(&log.Facts[i], log.source))
		}
	}
	return out
}

func (img *image) logFact(f *logtext.Fact, source target.Source) incident.LogFact {
	out := incident.LogFact{
		Kind: string(f.Kind), LocalTime: f.Local, Line: f.Line, Text: f.Text, PID: f.PID, LWP: f.LWP,
		Signal: f.Signal, Query: f.Query, Source: source,
	}
	if !f.Time.IsZero() {
		out.Time = incident.Ptr(f.Time.UTC())
	}
	if f.Connection.Known {
		out.Connection = incident.Ptr(f.Connection.V)
	}
	if out.LWP == 0 && f.Handle != 0 && img.lib != nil {
		if th, ok := img.lib.ByHandle(target.Addr(f.Handle)); ok && th.Confirmed {
			out.LWP = th.LWP
		}
	}
	return out
}

// tolerate turns the errors of a text that holds nothing for this core into
// warnings: the core alone still says a lot. Others, such as a file that can't
// be opened, stay errors.
func (t *texts) tolerate(err error) error {
	for _, soft := range []error{
		procstat.ErrNoOutput, procstat.ErrOtherProcess, procstat.ErrSeveralProcesses,
		showtext.ErrNoStatus, showtext.ErrNoProcesslist, logtext.ErrNoLog,
	} {
		if errors.Is(err, soft) {
			t.warnings = append(t.warnings, target.Warning{Code: "text-unused", Text: err.Error() + "; the core is analysed without it"})
			return nil
		}
	}
	return err
}

// readFile opens a regular file: a FIFO given by mistake must not hang us.
func readFile(path string, read func(io.Reader) error) error {
	f, _, err := elfimage.OpenRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return read(f)
}

// joinSessions finds the thread of each session that the texts name: by the
// OS thread handle of INNODB STATUS, by the thread id of a processlist that
// has one; rows of one connection are one session.
func (img *image) joinSessions() []incident.Session {
	if img.texts.status == nil && img.texts.list == nil {
		return nil
	}
	byConnection := map[uint64]*incident.Session{}
	get := func(id uint64, source target.Source) *incident.Session {
		s := byConnection[id]
		if s == nil {
			s = &incident.Session{Connection: id, Sources: map[string]target.Source{"connection": source}}
			byConnection[id] = s
		}
		return s
	}
	if img.texts.status != nil {
		for i := range img.texts.status.Sessions {
			row := &img.texts.status.Sessions[i]
			if row.History {
				continue // what was, not what is
			}
			img.joinStatus(get(row.Connection, target.SourceInnoDBStatus), row)
		}
	}
	if img.texts.list != nil {
		for i := range img.texts.list.Rows {
			row := &img.texts.list.Rows[i]
			img.joinRow(get(row.Connection, target.SourceProcesslist), row)
		}
	}
	out := make([]incident.Session, 0, len(byConnection))
	for _, s := range byConnection {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b incident.Session) int { return cmp.Compare(a.Connection, b.Connection) })
	for i := range out {
		if out[i].LWP != nil {
			img.byLWP[*out[i].LWP].session = sessionFact(&out[i])
		}
	}
	return out
}

// sessionFact is what the rules see of a session.
func sessionFact(s *incident.Session) target.Value[diagnose.Session] {
	text := fmt.Sprintf("connection %d", s.Connection)
	if s.QueryID != nil {
		text += fmt.Sprintf(", query id %d", *s.QueryID)
	}
	if s.State != "" {
		text += fmt.Sprintf(", %s", s.State)
	}
	source := s.Sources["state"]
	if source == "" {
		source = s.Sources["connection"]
	}
	return target.Known(diagnose.Session{Connection: s.Connection, Text: text}, source)
}

// joinStatus takes a session line of INNODB STATUS. Its text behind the query
// id is host, address, user and state without separators: it is kept whole as
// the state unless a processlist says it better.
func (img *image) joinStatus(s *incident.Session, row *showtext.Session) {
	set := func(field string) { s.Sources[field] = target.SourceInnoDBStatus }
	s.QueryID = incident.Ptr(row.QueryID)
	set("queryID")
	if rest := strings.TrimSpace(row.Rest); rest != "" {
		s.State = rest
		set("state")
	}
	if row.Query != "" {
		s.Query = row.Query
		set("query")
	}
	if !row.Handle.Known {
		return
	}
	s.Handle = incident.Ptr(incident.Addr(row.Handle.V))
	set("handle")
	if img.lib == nil {
		return
	}
	th, ok := img.lib.ByHandle(target.Addr(row.Handle.V))
	if !ok || !th.Confirmed {
		img.warn("session-unmatched", "connection %d: its OS thread handle %s is no thread of the core: the session began or ended between the two moments, or the text is of another server", row.Connection, row.Handle.Text)
		return
	}
	s.LWP = incident.Ptr(th.LWP)
	set("lwp")
}

// joinRow takes a row of a processlist.
func (img *image) joinRow(s *incident.Session, row *showtext.Row) {
	text := func(to *string, field string, v target.Value[string]) {
		if v.Known && v.V != "" {
			*to, s.Sources[field] = v.V, target.SourceProcesslist
		}
	}
	text(&s.User, "user", row.User)
	text(&s.Host, "host", row.Host)
	text(&s.DB, "db", row.DB)
	text(&s.Command, "command", row.Command)
	text(&s.State, "state", row.State)
	text(&s.Query, "query", row.Info)
	if row.Time.Known {
		s.Time, s.Sources["time"] = incident.Ptr(row.Time.V), target.SourceProcesslist
	}
	if s.LWP == nil && row.TID.Known && img.byLWP[row.TID.V] != nil {
		s.LWP, s.Sources["lwp"] = incident.Ptr(row.TID.V), target.SourceProcesslist
	}
}

// openMessages are FreeBSD's wait messages of an open of a FIFO
// (sys/fs/fifofs/fifo_vnops.c).
var openMessages = []string{"fifoor", "fifoow"}

// placeSightings gives a wait message that a listing without thread ids shows
// to the one thread it can belong to: the only one in an open whose message
// isn't known. With two such threads, or two such rows, nobody gets it.
func (img *image) placeSightings() {
	seen := img.kernel.WaitMessages()
	row := -1
	for i := range img.kernel.Sightings {
		w := img.kernel.Sightings[i].WaitChannel
		if !w.Known || !slices.Contains(openMessages, w.V) {
			continue
		}
		if row >= 0 || seen[w.V] != 1 {
			return
		}
		row = i
	}
	if row < 0 {
		return
	}
	var only *thread
	for _, t := range img.threads {
		switch {
		case t.kernel.WaitChannel.Known && slices.Contains(openMessages, t.kernel.WaitChannel.V):
			return // the row is that thread's
		case t.call == nil || !opens(t.call.Name) || t.kernel.WaitChannel.Known:
			continue
		case only != nil:
			return
		}
		only = t
	}
	if only != nil {
		only.kernel.WaitChannel = img.kernel.Sightings[row].WaitChannel
	}
}
