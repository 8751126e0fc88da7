// Package showtext reads what a person saved of a MySQL or MariaDB server's own
// answers: SHOW ENGINE INNODB STATUS (the lines that name sessions and OS
// threads) and SHOW PROCESSLIST, as the command-line client prints them.
//
// It knows nothing of cores: its rows carry connection ids and OS thread
// handles by which others join them. All text is untrusted, the text of queries
// above all: a query can hold lines that look like rows, and what can't be told
// apart is a warning.
package showtext

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"mycore/internal/target"
)

var (
	// ErrNoStatus says that the text holds nothing of SHOW ENGINE INNODB STATUS.
	ErrNoStatus = errors.New("no INNODB STATUS found")
	// ErrNoProcesslist says that the text holds no row of SHOW PROCESSLIST.
	ErrNoProcesslist = errors.New("no processlist found")
)

// Warning codes.
const (
	CodeLimit     = "show-limit"     // the text is longer than is read
	CodeMalformed = "show-malformed" // rows that make no sense were left out
	CodeImitation = "show-imitation" // text in a query imitates rows: which are real can't be told
	CodeTruncated = "show-truncated" // the server itself cut its output
)

// Limits. A status is at most 1 MiB (lock0lock.cc and srv0srv.cc cut it), a
// processlist has up to 64 KiB of query text in each of thousands of rows.
const (
	maxText  = 64 << 20
	maxRows  = 1 << 17
	maxQuery = 64 << 10 // bytes of one query's text; INFORMATION_SCHEMA keeps 65,535
	maxValue = 1 << 10  // bytes of any other cell
)

// readLines reads the text, up to maxText bytes.
func readLines(r io.Reader) (text string, cut bool, err error) {
	b, err := io.ReadAll(io.LimitReader(bufio.NewReader(r), maxText+1))
	if err != nil {
		return "", false, err
	}
	if len(b) > maxText {
		b, cut = b[:maxText], true
	}
	return strings.TrimPrefix(string(b), "\ufeff"), cut, nil
}

// lines hands out the lines of a text without their ends, numbered from 1, each
// with the text behind it.
func lines(text string, take func(n int, line, rest string)) {
	for n := 1; text != ""; n++ {
		line, rest, _ := strings.Cut(text, "\n")
		take(n, strings.TrimSuffix(line, "\r"), rest)
		text = rest
	}
}

func warning(code, format string, args ...any) target.Warning {
	return target.Warning{Code: code, Text: fmt.Sprintf(format, args...)}
}

// clip bounds a value and frees it from the text around it.
func clip(s string, most int) string {
	return strings.Clone(s[:min(len(s), most)])
}

// Handle is an OS thread handle (pthread_t) as a text shows it.
type Handle struct {
	Text string // as printed; empty when the text names none
	V    uint64
	// Known is false when the text names no handle, or digits that could be
	// decimal as well as hex (see InnoDBStatus.PrintedBy).
	Known bool
}

// parseHandle reads 0x hex or decimal, the two forms of session lines.
func parseHandle(s string) (Handle, bool) {
	h := Handle{Text: clip(s, 24)}
	var err error
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		h.V, err = strconv.ParseUint(hex, 16, 64)
	} else {
		h.V, err = strconv.ParseUint(s, 10, 64)
	}
	h.Known = err == nil
	return h, h.Known
}

// leadingDigits is the longest prefix of decimal digits.
func leadingDigits(s string) string {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return s[:n]
}

// leadingWord is the text up to a blank or comma.
func leadingWord(s string) string {
	if i := strings.IndexAny(s, " ,\t"); i >= 0 {
		return s[:i]
	}
	return s
}
