package showtext

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"mycore/internal/target"
)

// Row is a row of SHOW PROCESSLIST or of INFORMATION_SCHEMA.PROCESSLIST. A
// value is absent when it is NULL or its column isn't there.
type Row struct {
	Connection                                     uint64
	User, Host, DB, Command, State, Info, Progress target.Value[string]
	Time                                           target.Value[int64]  // seconds; MariaDB's replication threads have negative ones
	QueryID                                        target.Value[uint64] // MariaDB's INFORMATION_SCHEMA
	TID                                            target.Value[int]    // OS thread id: MariaDB and Percona
	Line                                           int                  // of the row's first line, from 1
}

// Processlist is what was read of a processlist.
type Processlist struct {
	Columns  []string // as printed
	Rows     []Row
	Warnings []target.Warning
}

// ReadProcesslist reads the text of SHOW [FULL] PROCESSLIST or of SELECT * FROM
// INFORMATION_SCHEMA.PROCESSLIST as the clients print it: \G, a table, or
// tab-separated. name is the file's name, for messages. The error unwraps to
// ErrNoProcesslist or an I/O error.
func ReadProcesslist(name string, r io.Reader) (*Processlist, error) {
	text, cut, err := readLines(r)
	if err != nil {
		return nil, fmt.Errorf("reading processlist text %q: %w", name, err)
	}
	p := &listReader{}
	lines(text, p.line)
	p.end()
	if len(p.list.Rows) == 0 {
		return nil, fmt.Errorf("%q: %w in %d lines; give the text of SHOW FULL PROCESSLIST", name, ErrNoProcesslist, p.n)
	}
	out := &p.list
	if cut {
		out.Warnings = append(out.Warnings, warning(CodeLimit, "%q is longer than is read: the rest was left out", name))
	}
	if p.bad > 0 {
		out.Warnings = append(out.Warnings, warning(CodeMalformed, "%d rows of %q make no sense and were left out", p.bad, name))
	}
	if p.imitated {
		out.Warnings = append(out.Warnings, warning(CodeImitation, "row numbers of %q repeat: text of a query imitates rows, and which are real can't be told", name))
	}
	return out, nil
}

// columns that processlists have, by their lower-case names: those of SHOW in
// their order, then the others (facts of MySQL 5.0 to 9.7, Percona Server 5.5
// to 5.6, MariaDB 5.3 to 11.8).
var showColumns = [...]string{"id", "user", "host", "db", "command", "time", "state", "info"}

// afterInfo are columns that stand behind Info.
var afterInfo = map[string]bool{
	"progress": true, "time_ms": true, "stage": true, "max_stage": true, "memory_used": true, "max_memory_used": true,
	"examined_rows": true, "sent_rows": true, "query_id": true, "info_binary": true, "tid": true, "tmp_space_used": true,
	"rows_sent": true, "rows_examined": true, "rows_read": true, "execution_engine": true,
}

const infoColumn = len(showColumns) - 1

// isColumns reports whether a header's names are a processlist's.
func isColumns(names []string) bool {
	if len(names) < len(showColumns) {
		return false
	}
	for i, n := range names {
		n = strings.ToLower(n)
		if i < len(showColumns) && n != showColumns[i] || i >= len(showColumns) && !afterInfo[n] {
			return false
		}
	}
	return true
}

// listReader takes the lines of a processlist, whatever its form.
type listReader struct {
	list     Processlist
	n        int
	bad      int
	imitated bool

	// The row being read.
	form  rowForm
	start int
	block []string
	size  int

	rowNumber int   // of \G
	bounds    []int // columns of the borders of a table
}

type rowForm uint8

const (
	formNone rowForm = iota
	formVertical
	formTable
	formTabs
)

func (p *listReader) line(n int, line, rest string) {
	p.n = n
	switch {
	case p.vertical(line, rest), p.tableLine(line), p.tabLine(line):
	case p.form == formVertical && isClosing(line):
		p.end()
	case p.form != formNone:
		p.add(line)
	}
}

// isClosing recognises "3 rows in set (0.00 sec)".
func isClosing(line string) bool {
	n := leadingDigits(line)
	rest := line[len(n):]
	return n != "" && (strings.HasPrefix(rest, " rows in set (") || strings.HasPrefix(rest, " row in set ("))
}

// add appends a line to the row being read. A row that is larger than any is
// kept up to the limit; its end still counts.
func (p *listReader) add(line string) {
	if p.size+len(line) > 4*maxQuery {
		p.size++
		if len(p.block) > 0 && len(line) < maxValue {
			p.block[len(p.block)-1] = line // the last line has the columns behind Info
		}
		return
	}
	p.size += len(line) + 1
	p.block = append(p.block, line)
}

// begin starts a row.
func (p *listReader) begin(form rowForm) {
	p.end()
	p.form, p.start, p.block, p.size = form, p.n, p.block[:0], 0
}

// end finishes the row being read.
func (p *listReader) end() {
	form := p.form
	p.form = formNone
	if form == formNone || len(p.block) == 0 {
		return
	}
	var cells map[string]string
	ok := false
	switch form {
	case formVertical:
		cells, ok = p.verticalCells()
	case formTable:
		cells, ok = p.tableCells()
	case formTabs:
		cells, ok = p.tabCells()
	}
	row, good := Row{}, false
	if ok {
		row, good = makeRow(cells, form == formTabs && len(p.block) == 1) // option -r escapes nothing
	}
	if !good || len(p.list.Rows) >= maxRows {
		p.bad++
		return
	}
	row.Line = p.start
	p.list.Rows = append(p.list.Rows, row)
}

// stars is one side of the line that \G prints before each row.
const stars = "***************************"

// vertical recognises "*** 2. row ***" with the fields of a processlist behind
// it, which begins a row of \G.
func (p *listReader) vertical(line, rest string) bool {
	if p.form != formNone && p.form != formVertical {
		return false
	}
	mid, ok := strings.CutPrefix(line, stars+" ")
	mid, ok2 := strings.CutSuffix(mid, ". row "+stars)
	n, err := strconv.Atoi(mid)
	if !ok || !ok2 || err != nil || !beginsRow(rest) {
		return false
	}
	// A query can hold lines like these; then a number comes twice.
	if p.form == formVertical && n != p.rowNumber+1 && n != 1 {
		p.imitated = true
	}
	p.begin(formVertical)
	p.rowNumber = n
	return true
}

// beginsRow reports whether a text begins with the fields up to Info, names
// aligned.
func beginsRow(text string) bool {
	colon := -1
	for _, want := range showColumns {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		if colon < 0 {
			colon = strings.IndexByte(line, ':')
		}
		name, _, ok := fieldAt(strings.TrimSuffix(line, "\r"), colon)
		if !ok || strings.ToLower(name) != want {
			return false
		}
	}
	return true
}

// verticalCells reads the fields of a row of \G. Names are right-aligned to the
// longest, and fields before Info take one line each; Info goes on until the
// fields behind it, which are looked for from the end.
func (p *listReader) verticalCells() (map[string]string, bool) {
	if len(p.block) < len(showColumns) {
		return nil, false
	}
	cells := make(map[string]string, len(showColumns)+2)
	colon := strings.IndexByte(p.block[0], ':')
	names := make([]string, 0, len(showColumns)+2)
	for i, want := range showColumns {
		name, value, ok := fieldAt(p.block[i], colon)
		if !ok || strings.ToLower(name) != want {
			return nil, false
		}
		cells[want] = value
		names = append(names, name)
	}
	last, behind := p.behindInfo(colon, cells)
	cells["info"] = join(cells["info"], p.block[len(showColumns):last])
	if p.list.Columns == nil {
		slices.Reverse(behind)
		p.list.Columns = slices.Concat(names, behind)
	}
	return cells, true
}

// behindInfo takes the fields behind Info, from the last line up. Names as wide
// as the alignment are possible only: a row whose longest name is Command has
// none.
func (p *listReader) behindInfo(colon int, cells map[string]string) (last int, names []string) {
	last = len(p.block)
	for last > len(showColumns) && strings.TrimSpace(p.block[last-1]) == "" {
		last-- // what a terminal left behind the list
	}
	if colon == len("Command") {
		return last, nil
	}
	end := last
	for i := last - 1; i >= len(showColumns); i-- {
		name, value, ok := fieldAt(p.block[i], colon)
		low := strings.ToLower(name)
		_, again := cells[low]
		if !ok || !afterInfo[low] || again {
			// INFO_BINARY is the query once more, lines and all.
			if _, has := cells["tid"]; !has || cells["info_binary"] != "" {
				break
			}
			continue
		}
		if low == "info_binary" {
			value = join(value, p.block[i+1:end])
		}
		cells[low] = value
		names = append(names, name)
		end = i
	}
	return end, names
}

// fieldAt cuts "    Info: text" at the colon, which stands in one column.
func fieldAt(line string, colon int) (name, value string, ok bool) {
	if colon < 2 || len(line) <= colon || line[colon] != ':' || len(line) > colon+1 && line[colon+1] != ' ' {
		return "", "", false
	}
	name = strings.TrimLeft(line[:colon], " ")
	if name == "" || strings.ContainsAny(name, " \t:") {
		return "", "", false
	}
	return name, line[min(len(line), colon+2):], true
}

func join(first string, more []string) string {
	if len(more) == 0 {
		return first
	}
	return first + "\n" + strings.Join(more, "\n")
}

// tableLine recognises borders, the header and the beginnings of rows of a
// table.
func (p *listReader) tableLine(line string) bool {
	if strings.HasPrefix(line, "+-") && strings.Trim(line, "+-") == "" && strings.Count(line, "+") > len(showColumns) {
		if p.form == formTable {
			p.end()
		}
		p.bounds = p.bounds[:0]
		for i := range len(line) {
			if line[i] == '+' {
				p.bounds = append(p.bounds, i)
			}
		}
		return true
	}
	if !strings.HasPrefix(line, "| ") {
		return false
	}
	if p.form == formNone || p.form == formTable && p.rowEnds() {
		if names := tableNames(line); isColumns(names) {
			p.list.Columns = names
			p.form = formNone
			return true
		}
		if p.startsRow(line) {
			p.begin(formTable)
			p.add(line)
			return true
		}
	}
	return false
}

func tableNames(line string) []string {
	if strings.Count(line, "|") > len(showColumns)+len(afterInfo)+1 {
		return nil
	}
	var names []string
	for cell := range strings.SplitSeq(strings.Trim(line, "| "), "|") {
		names = append(names, strings.TrimSpace(cell))
	}
	return names
}

// startsRow reports whether a line has borders where the table has them, up to
// Info, and numbers where Id and Time are. Without a header any borders do.
func (p *listReader) startsRow(line string) bool {
	cells, _, ok := p.leftCells(line)
	if !ok {
		return false
	}
	_, err := strconv.ParseUint(cells[0], 10, 64)
	_, err2 := strconv.ParseInt(cells[5], 10, 64)
	return err == nil && (err2 == nil || cells[5] == "NULL")
}

// leftCells cuts the cells before Info: at the table's columns, or at the
// borders when characters of several bytes have moved them.
func (p *listReader) leftCells(line string) (cells []string, rest string, ok bool) {
	cells = make([]string, 0, infoColumn)
	if len(p.bounds) > infoColumn && len(line) > p.bounds[infoColumn] {
		for i := range infoColumn {
			a, b := p.bounds[i], p.bounds[i+1]
			if line[a] != '|' || line[b] != '|' {
				break
			}
			cells = append(cells, strings.TrimSpace(line[a+1:b]))
		}
		if len(cells) == infoColumn {
			return cells, line[p.bounds[infoColumn]+1:], true
		}
	}
	rest = strings.TrimPrefix(line, "|")
	cells = cells[:0]
	for range infoColumn {
		cell, after, found := strings.Cut(rest, "|")
		if !found {
			return nil, "", false
		}
		cells = append(cells, strings.TrimSpace(cell))
		rest = after
	}
	return cells, rest, true
}

// rowEnds reports whether the row being read is complete: its last line closes
// the table's last border.
func (p *listReader) rowEnds() bool {
	return len(p.block) > 0 && strings.HasSuffix(p.block[len(p.block)-1], "|")
}

// tableCells reads the cells of a row of a table. The cells behind Info are cut
// from the right: Info may hold borders.
func (p *listReader) tableCells() (map[string]string, bool) {
	left, rest, ok := p.leftCells(p.block[0])
	if !ok {
		return nil, false
	}
	cells := make(map[string]string, len(showColumns)+1)
	for i, v := range left {
		cells[showColumns[i]] = v
	}
	rest = strings.TrimRight(join(rest, p.block[1:]), "\n ")
	rest, ok = strings.CutSuffix(rest, "|")
	if !ok {
		return nil, false
	}
	if rest, ok = p.cutBehind(cells, rest, '|'); !ok {
		return nil, false
	}
	cells["info"] = strings.TrimRight(strings.TrimPrefix(rest, " "), " ")
	return cells, true
}

// tabLine recognises the header and the rows of tab-separated output.
func (p *listReader) tabLine(line string) bool {
	if p.form != formNone && p.form != formTabs || !strings.Contains(line, "\t") {
		return false
	}
	if len(line) < maxValue {
		if names := strings.Split(line, "\t"); isColumns(names) {
			p.end()
			p.list.Columns = names
			return true
		}
	}
	if !isTabRow(line) {
		return false
	}
	p.begin(formTabs)
	p.add(line)
	return true
}

// isTabRow: number, five texts without tabs, number, two texts at least.
func isTabRow(line string) bool {
	rest := line
	for i := range infoColumn {
		cell, after, ok := strings.Cut(rest, "\t")
		if !ok {
			return false
		}
		_, err := strconv.ParseInt(cell, 10, 64)
		if (i == 0 || i == 5 && cell != "NULL") && err != nil {
			return false
		}
		rest = after
	}
	return true
}

// tabCells reads a row of tab-separated output.
func (p *listReader) tabCells() (map[string]string, bool) {
	row := join(p.block[0], p.block[1:])
	cells := make(map[string]string, len(showColumns)+1)
	for i := range infoColumn {
		var cell string
		cell, row, _ = strings.Cut(row, "\t")
		cells[showColumns[i]] = cell
	}
	row, ok := p.cutBehind(cells, row, '\t')
	if !ok {
		return nil, false
	}
	cells["info"] = row
	return cells, true
}

// cutBehind cuts the cells behind Info from the right: Info may hold borders.
// Without a header a number with three decimals in the last place is MariaDB's
// Progress.
func (p *listReader) cutBehind(cells map[string]string, row string, border byte) (string, bool) {
	behind := []string(nil)
	if len(p.list.Columns) > len(showColumns) {
		behind = p.list.Columns[len(showColumns):]
	} else if p.list.Columns == nil {
		if at := strings.LastIndexByte(row, border); at >= 0 && isProgress(strings.TrimSpace(row[at+1:])) {
			behind = []string{"Progress"}
		}
	}
	for i := len(behind) - 1; i >= 0; i-- {
		at := strings.LastIndexByte(row, border)
		if at < 0 {
			return "", false
		}
		cells[strings.ToLower(behind[i])] = strings.TrimSpace(row[at+1:])
		row = row[:at]
	}
	return row, true
}

func isProgress(s string) bool {
	whole, frac, ok := strings.Cut(s, ".")
	return ok && len(frac) == 3 && whole != "" && strings.Trim(whole+frac, "0123456789") == ""
}

// makeRow gives the cells their types; escaped says that they are those of
// tab-separated output.
func makeRow(cells map[string]string, escaped bool) (Row, bool) {
	if escaped {
		for k, v := range cells {
			cells[k] = unescape(v)
		}
	}
	var r Row
	id, err := strconv.ParseUint(strings.TrimSpace(cells["id"]), 10, 64)
	if err != nil {
		return r, false
	}
	r.Connection = id
	text := func(name string, most int) target.Value[string] {
		v, ok := cells[name]
		if !ok || v == "NULL" {
			return target.Value[string]{}
		}
		return target.Known(clip(v, most), target.SourceProcesslist)
	}
	r.User, r.Host, r.DB, r.Command = text("user", maxValue), text("host", maxValue), text("db", maxValue), text("command", maxValue)
	r.State, r.Info, r.Progress = text("state", maxValue), text("info", maxQuery), text("progress", maxValue)
	r.Time = number[int64](cells, "time", func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) })
	r.QueryID = number[uint64](cells, "query_id", func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })
	r.TID = number[int](cells, "tid", func(s string) (int, error) {
		n, err := strconv.ParseInt(s, 10, 32)
		return int(n), err
	})
	return r, r.Command.Known && len(r.Command.V) <= 64
}

func number[T any](cells map[string]string, name string, parse func(string) (T, error)) target.Value[T] {
	v, ok := cells[name]
	if !ok {
		return target.Value[T]{}
	}
	n, err := parse(strings.TrimSpace(v))
	if err != nil {
		return target.Value[T]{}
	}
	return target.Known(n, target.SourceProcesslist)
}
