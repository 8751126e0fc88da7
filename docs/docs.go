// Package docs carries the generated documents that the program itself can
// print. The files are written by tests run with -update and held equal to
// their generators by the same tests.
package docs

import _ "embed"

//go:embed incident.schema.json
var incidentSchema string

// IncidentSchema is the JSON Schema (draft 2020-12) of the incident.
func IncidentSchema() string { return incidentSchema }
