package procstat

import (
	"slices"
	"strings"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// psRole is what a column of ps says.
type psRole uint8

const (
	psOther psRole = iota
	psPID
	psLWP
	psWchan
	psState
	psTT
	psTime
	psCommand // free text
	psTdname  // free text
)

// psColumn is one column of a ps header.
type psColumn struct {
	role       psRole
	start, end int // in the header line, -1 when rows have no columns
}

// psRoles are the headings of FreeBSD's ps (bin/ps/keyword.c) that matter, and
// those of other systems' ps for the same thing.
var psRoles = map[string]psRole{
	"PID": psPID, "LWP": psLWP, "TID": psLWP, "SPID": psLWP, "WCHAN": psWchan, "MWCHAN": psWchan,
	"STAT": psState, "STATE": psState, "S": psState, "TT": psTT, "TTY": psTT, "TIME": psTime, "CPUTIME": psTime,
	"COMMAND": psCommand, "CMD": psCommand, "COMM": psCommand, "UCOMM": psCommand, "ARGS": psCommand, "TDNAME": psTdname,
}

// psHeader makes columns of a header line that has PID and tells something
// about waiting.
func psHeader(words []string, f []field) ([]psColumn, bool) {
	cols := make([]psColumn, len(words))
	var has [psTdname + 1]int
	wide := f[0].start > 0 // blanks before or between: the header as printed
	for i, w := range words {
		cols[i] = psColumn{psRoles[w], f[i].start, f[i].end}
		has[cols[i].role]++
		wide = wide || i > 0 && f[i].start > f[i-1].end+1
	}
	for i := range cols {
		if !wide {
			cols[i].start, cols[i].end = -1, -1
		}
	}
	// One column each; the process's own WCHAN and procstat's listings have
	// other headings besides.
	ok := has[psPID] == 1 && has[psLWP] <= 1 && has[psWchan] <= 1 && has[psState] <= 1 && has[psWchan]+has[psState] > 0 &&
		has[psCommand] <= 1 && has[psTdname] <= 1
	return cols, ok
}

// The rows without a header that are understood: `ps -H -O wchan`, with and
// without an LWP column, and `ps -o pid,lwp,wchan,state,comm,tdname`.
var headerless = [...][]psColumn{
	roles(psPID, psWchan, psTT, psState, psTime, psCommand),
	roles(psPID, psLWP, psWchan, psTT, psState, psTime, psCommand),
	roles(psPID, psLWP, psWchan, psState, psCommand, psTdname),
}

func roles(rs ...psRole) []psColumn {
	out := make([]psColumn, len(rs))
	for i, r := range rs {
		out[i] = psColumn{r, -1, -1}
	}
	return out
}

// psRecord is what one row says.
type psRecord struct {
	pid, lwp                 int
	hasLWP                   bool
	wchan, state, comm, name string
}

// psRow reads a row of ps by its header, or as one of the headerless forms.
func (t *textReader) psRow(r row) bool {
	var rec psRecord
	ok := false
	if t.sec.kind == rowsPS {
		rec, ok = t.psCells(r, t.sec.columns)
	}
	for i := 0; !ok && t.sec.kind != rowsPS && i < len(headerless); i++ {
		rec, ok = t.psCells(r, headerless[i])
		// The last form has no TIME to hold on to.
		if ok && i == len(headerless)-1 && (rec.lwp < minTID || t.src != target.SourcePS) {
			ok = false
		}
	}
	if !ok {
		return false
	}
	if t.mine(rec.pid) {
		t.ps(rec)
	}
	return true
}

// ps adds one row of the process.
func (t *textReader) ps(rec psRecord) {
	if rec.wchan == "-" || isAddress(rec.wchan) {
		rec.wchan = "" // asleep without a message: ps prints the address
	}
	if rec.hasLWP {
		th := t.thread(rec.lwp)
		if th == nil {
			return
		}
		t.sleeping(th, rec.wchan, rec.state, target.SourcePS)
		t.nameThread(th, "-", rec.name, target.SourcePS)
		return
	}
	if len(t.p.Sightings) >= maxSightings {
		t.dropped++
		return
	}
	s := kernelview.Sighting{Line: t.line}
	if rec.wchan != "" {
		s.WaitChannel = target.Known(rec.wchan, target.SourcePS)
	}
	if rec.state != "" {
		s.State = target.Known(rec.state, target.SourcePS)
	}
	if rec.comm != "" {
		s.Name = target.Known(rec.comm, target.SourcePS)
	}
	t.p.Sightings = append(t.p.Sightings, s)
}

// isAddress recognises a kernel address printed in place of a message.
func isAddress(s string) bool {
	s = strings.TrimPrefix(s, "0x")
	return len(s) >= 8 && isHex(s)
}

// psCells assigns the words of a row to columns. WCHAN may be empty or, for a
// lock's name, have a blank; every other column before the free text has one
// word, and the free text takes what is left.
func (t *textReader) psCells(r row, cols []psColumn) (psRecord, bool) {
	free := slices.IndexFunc(cols, func(c psColumn) bool { return c.role >= psCommand })
	if free < 0 {
		free = len(cols)
	}
	after := free
	for after < len(cols) && cols[after].role >= psCommand {
		after++
	}
	left, right := cols[:free], cols[after:]
	for _, n := range wchanWords(r, left) {
		rec, used, ok := matchCells(r, left, 0, n)
		if !ok {
			continue
		}
		for _, m := range wchanWords(r, right) {
			start := len(r.f) - width(right, m)
			if start < used || free == len(cols) && start != used {
				continue
			}
			rec2 := rec
			if !matchInto(&rec2, r, right, start, m) {
				continue
			}
			t.freeText(&rec2, r, cols[free:after], used, start)
			return rec2, true
		}
	}
	return psRecord{}, false
}

// wchanWords are the numbers of words that WCHAN may have, most likely first.
func wchanWords(r row, cols []psColumn) []int {
	i := slices.IndexFunc(cols, func(c psColumn) bool { return c.role == psWchan })
	switch {
	case i < 0:
		return []int{1} // no such column: any number does
	case emptyCell(r, cols[i]):
		return []int{0, 1, 2}
	}
	return []int{1, 0, 2}
}

// emptyCell reports whether a left-justified column is blank in a row that
// keeps the header's columns: the word before ends and the next begins outside.
func emptyCell(r row, c psColumn) bool {
	if c.start < 0 {
		return false
	}
	for _, f := range r.f {
		if f.start < c.end && f.end > c.start {
			return false
		}
	}
	return true
}

// width is how many words the columns take.
func width(cols []psColumn, wchan int) int {
	n := len(cols)
	if slices.ContainsFunc(cols, func(c psColumn) bool { return c.role == psWchan }) {
		n += wchan - 1
	}
	return n
}

func matchCells(r row, cols []psColumn, from, wchan int) (rec psRecord, used int, ok bool) {
	ok = matchInto(&rec, r, cols, from, wchan)
	return rec, from + width(cols, wchan), ok
}

// matchInto reads columns from word i on; false when one can't be what its
// heading says.
func matchInto(rec *psRecord, r row, cols []psColumn, i, wchan int) bool {
	if i+width(cols, wchan) > len(r.f) {
		return false
	}
	for _, c := range cols {
		n := 1
		w := r.word(i)
		switch c.role {
		case psPID:
			id, ok := parseID(w)
			if !ok {
				return false
			}
			rec.pid = id
		case psLWP:
			id, ok := parseID(w)
			if !ok {
				return false
			}
			rec.lwp, rec.hasLWP = id, true
		case psWchan:
			n = wchan
			rec.wchan = r.span(i, i+n)
			if len(rec.wchan) > maxMessage || !printable(rec.wchan) {
				return false
			}
		case psState:
			if !isPSState(w) {
				return false
			}
			rec.state = w[:1]
		case psTime:
			if !isPSTime(w) {
				return false
			}
		}
		i += n
	}
	return true
}

// isPSState accepts a state letter with flags behind it (bin/ps/print.c).
func isPSState(s string) bool {
	return s != "" && len(s) <= 12 && strings.IndexByte("DIRSTLWZXt", s[0]) >= 0 && strings.Trim(s[1:], "+<>AECJLNSsVWXcl") == ""
}

// isPSTime accepts CPU time, with hundredths or with hours.
func isPSTime(s string) bool {
	if s == "" || len(s) > 20 || !strings.Contains(s, ":") {
		return false
	}
	return strings.Trim(s, "0123456789:.,-") == "" && s[0] >= '0' && s[0] <= '9'
}

// freeText cuts COMMAND and TDNAME out of words i to j.
func (t *textReader) freeText(rec *psRecord, r row, cols []psColumn, i, j int) {
	text := r.span(i, j)
	switch {
	case len(cols) == 1 && cols[0].role == psTdname:
		rec.name = text
	case len(cols) == 1:
		rec.comm = clip(text)
	case len(cols) == 2:
		rec.comm, rec.name = t.cutFree(r, cols, i, j)
	}
	rec.name = clip(rec.name)
}

// cutFree cuts at the header's column, or after the process's name.
func (t *textReader) cutFree(r row, cols []psColumn, i, j int) (comm, name string) {
	if i >= j {
		return "", ""
	}
	a, b := cols[0], cols[1]
	end := r.f[j-1].end
	if a.start >= 0 && r.f[i].start == a.start {
		if end <= b.start {
			return r.span(i, j), "" // a process of one thread has no TDNAME
		}
		if r.line[b.start-1] == ' ' && r.line[b.start] != ' ' {
			return strings.TrimRight(r.line[a.start:b.start], " "), r.line[b.start:end]
		}
	}
	comm, name = cutNames(r.span(i, j), t.comm)
	if a.role == psTdname {
		comm, name = name, comm
	}
	return comm, name
}
