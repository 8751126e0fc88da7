// Package report renders an incident: text for a terminal, and JSON. It opens
// no file, prints nothing by itself, and knows no core: what isn't in the
// incident can't be shown.
//
// Everything that can hold bytes of the target, of a capture or of a file name
// is escaped on its way to text. JSON carries the values as they are.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"mycore/internal/incident"
	"mycore/internal/untrusted"
)

// JSON writes the incident as indented JSON with a newline at the end. Fields
// have the order of the types and maps are sorted: equal incidents give equal
// bytes.
func JSON(w io.Writer, inc *incident.Incident) error { return writeJSON(w, inc) }

// HandlesJSON writes answers about handles as a JSON array.
func HandlesJSON(w io.Writer, answers []incident.HandleAnswer) error {
	if answers == nil {
		answers = []incident.HandleAnswer{}
	}
	return writeJSON(w, answers)
}

// writeJSON escapes, beyond what JSON asks for, the characters that steer a
// terminal or hide in it, for JSON is read on terminals too: DEL, the C1
// controls, and all that untrusted.Line would escape. The value stays the same.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(plain{&indenter{w: w}})
	e.SetEscapeHTML(false) // "<" in C++ names and "&&" in commands stay readable
	return e.Encode(v)
}

// plain escapes characters of whole JSON documents. Such characters stand
// inside of strings only, where \u is the same character. Encode writes a
// document at once, so none is torn.
type plain struct{ w io.Writer }

func (p plain) Write(b []byte) (int, error) {
	var out []byte
	last := 0
	for i := 0; i < len(b); {
		if b[i] < 0x7f { // nearly all
			i++
			continue
		}
		r, n := rune(b[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(b[i:])
		}
		if r > 0x7f && untrusted.Safe(string(r)) {
			i += n
			continue
		}
		out = append(out, b[last:i]...)
		for _, u := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, "\\u%04x", u)
		}
		i += n
		last = i
	}
	if last > 0 {
		out = append(out, b[last:]...)
	} else {
		out = b
	}
	if _, err := p.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}
