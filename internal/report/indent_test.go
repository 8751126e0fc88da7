package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"mycore/internal/incident"
)

// indented sends JSON through an indenter in pieces of n bytes.
func indented(t *testing.T, text []byte, n int) string {
	t.Helper()
	var b bytes.Buffer
	d := &indenter{w: &b}
	for len(text) > 0 {
		piece := text[:min(n, len(text))]
		if k, err := d.Write(piece); k != len(piece) || err != nil {
			t.Fatalf("wrote %d of %d: %v", k, len(piece), err)
		}
		text = text[len(piece):]
	}
	return b.String()
}

// checkIndent compares with json.Indent, for whole documents and for any cuts.
func checkIndent(t *testing.T, compact []byte) {
	t.Helper()
	var want bytes.Buffer
	if err := json.Indent(&want, compact, "", "  "); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{len(compact) + 1, 1, 2, 3, 7} {
		if got := indented(t, compact, n); got != want.String() {
			t.Fatalf("in pieces of %d: %q\n got %s\nwant %s", n, compact, got, want.String())
		}
	}
}

var indentCases = []string{
	`{}`, `[]`, `""`, `1`, `null`, `{"a":{}}`, `{"a":[]}`, `[[],{},[[]]]`, `{"a":1,"b":[1,2,{"c":null}]}`, "{}\n", "[1]\n",
	`{"a\"b":"c\\","d":"{[,:]}\\\""}`, `"\\"`, `["\"",""]`, `{"":""}`, `[true,false,-1.5e+3,"é "]`,
}

func TestIndent(t *testing.T) {
	t.Parallel()
	for _, s := range indentCases {
		checkIndent(t, []byte(s))
	}
	// More than the indenter collects before it writes.
	checkIndent(t, []byte(`[`+strings.Repeat(`{"k":["v",{}]},`, 20000)+`"`+strings.Repeat("x", 2*indentBuffer)+`"]`))
}

func FuzzIndent(f *testing.F) {
	for _, s := range indentCases {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var compact bytes.Buffer
		if json.Compact(&compact, text) == nil {
			checkIndent(t, compact.Bytes())
		}
	})
}

// What is written never ends inside a string.
func TestIndentPieces(t *testing.T) {
	t.Parallel()
	compact := []byte(`[` + strings.Repeat(`"a, b: {é}","\"",`, 30000) + `"end"]`)
	writes := 0
	d := &indenter{w: writerFunc(func(p []byte) (int, error) {
		writes++
		if bytes.Count(bytes.ReplaceAll(p, []byte(`\"`), nil), []byte(`"`))%2 != 0 {
			t.Fatalf("a write ends inside a string: %q", p[max(0, len(p)-40):])
		}
		return len(p), nil
	})}
	if _, err := d.Write(compact); err != nil || writes < 2 {
		t.Errorf("%d writes, %v", writes, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestIndentWriteError(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	err := JSON(writerFunc(func([]byte) (int, error) { return 0, full }), &incident.Incident{})
	if !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
}

func BenchmarkJSON(b *testing.B) {
	inc := &incident.Incident{Schema: incident.SchemaName, SchemaVersion: incident.SchemaVersion}
	for lwp := range 530 {
		th := incident.Thread{LWP: lwp, Handle: incident.Ptr(incident.Addr(0x7f0000000000 + lwp<<20))}
		for k := range 12 {
			th.Frames = append(th.Frames, incident.Frame{PC: incident.Addr(0x555555554000 + k<<8), Function: "do_handle_one_connection(CONNECT*, bool)",
				Module: "/usr/sbin/mariadbd", Offset: incident.Ptr(incident.Addr(k)), Trust: "cfi"})
		}
		inc.Threads = append(inc.Threads, th)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := JSON(io.Discard, inc); err != nil {
			b.Fatal(err)
		}
	}
}
