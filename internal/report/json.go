// Package report renders an incident: text for a terminal, and JSON. It opens
// no file, prints nothing by itself, and knows no core: what isn't in the
// incident can't be shown.
//
// Everything that can hold bytes of the target, of a capture or of a file name
// is escaped on its way to text. JSON carries the values as they are.
package report

import (
	"encoding/json"
	"io"

	"mycore/internal/incident"
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

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // "<" in C++ names and "&&" in commands stay readable
	e.SetIndent("", "  ")
	return e.Encode(v)
}
