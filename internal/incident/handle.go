package incident

// HandleAnswer says what an OS thread handle (or a number that somebody took
// for one) is.
type HandleAnswer struct {
	Input  string   `json:"input" jsonschema:"the text that was asked about"`
	Status string   `json:"status" jsonschema:"found, unconfirmed, stale, unmapped and others: what the number turned out to be"`
	Handle *Addr    `json:"handle,omitzero" jsonschema:"the number; absent when the text is none"`
	Thread *Thread  `json:"thread,omitzero" jsonschema:"the thread it belongs to; absent when there is none"`
	Lines  []string `json:"lines,omitzero" jsonschema:"the answer in plain words, and how it was checked"`
}
