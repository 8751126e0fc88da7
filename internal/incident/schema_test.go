package incident_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	generator "github.com/google/jsonschema-go/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"mycore/docs"
	"mycore/internal/incident"
	"mycore/internal/target"
)

var update = flag.Bool("update", false, "rewrite docs/incident.schema.json")

const schemaID = "https://mycore.invalid/incident.schema.json"

// generate infers the schema from the types. strict forbids fields that this
// version doesn't know; the committed schema allows them, because a later
// minor version may add some.
func generate(t *testing.T, strict bool) []byte {
	t.Helper()
	hex := func(what string) *generator.Schema {
		return &generator.Schema{Type: "string", Pattern: "^0x[0-9a-f]+$", Description: what}
	}
	s, err := generator.For[incident.Incident](&generator.ForOptions{TypeSchemas: map[reflect.Type]*generator.Schema{
		reflect.TypeFor[incident.Addr](): hex("address as a hex string"),
		reflect.TypeFor[incident.Mask](): hex("signal mask as a hex string"),
		reflect.TypeFor[time.Time]():     {Type: "string", Format: "date-time"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.ID = schemaID
	s.Title = "mycore incident, version 1"
	s.Description = "The result of one analysis. Absent fields are unknown, never zero or empty. Enumerations are open."
	tidy(s, strict)
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// tidy removes the nulls that Go's pointers and slices could produce but
// omitzero never does.
func tidy(s *generator.Schema, strict bool) {
	if s == nil {
		return
	}
	if i := slices.Index(s.Types, "null"); i >= 0 {
		s.Types = slices.Delete(slices.Clone(s.Types), i, i+1)
	}
	if len(s.Types) == 1 {
		s.Type, s.Types = s.Types[0], nil
	}
	if s.Properties != nil && !strict {
		s.AdditionalProperties = nil
	}
	for _, p := range s.Properties {
		tidy(p, strict)
	}
	tidy(s.Items, strict)
	if s.Properties == nil {
		tidy(s.AdditionalProperties, strict)
	}
}

func compile(t *testing.T, text []byte) *validator.Schema {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(schemaID, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(schemaID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *validator.Schema, text []byte) error {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func TestSchemaIsTheTypes(t *testing.T) {
	want := generate(t, false)
	path := filepath.Join("..", "..", "docs", "incident.schema.json")
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s isn't what the types say; run: go test ./internal/incident -update", path)
	}
	if docs.IncidentSchema() != string(got) {
		t.Error("the embedded schema isn't the committed one")
	}
}

// Every field of every type is described, in a sentence of its own.
func TestEveryFieldIsDescribed(t *testing.T) {
	seen := map[reflect.Type]bool{}
	fields := 0
	var walk func(reflect.Type)
	walk = func(ty reflect.Type) {
		for ty.Kind() == reflect.Pointer || ty.Kind() == reflect.Slice || ty.Kind() == reflect.Map {
			ty = ty.Elem()
		}
		if ty.Kind() != reflect.Struct || seen[ty] || ty == reflect.TypeFor[time.Time]() {
			return
		}
		seen[ty] = true
		for f := range ty.Fields() {
			fields++
			if f.Tag.Get("jsonschema") == "" {
				t.Errorf("%s.%s has no description", ty.Name(), f.Name)
			}
			name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				t.Errorf("%s.%s has no JSON name", ty.Name(), f.Name)
			}
			k := f.Type.Kind()
			if (k == reflect.Pointer || k == reflect.Map) && opts != "omitzero" {
				t.Errorf("%s.%s can be nil and isn't omitzero: absent would be null", ty.Name(), f.Name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[incident.Incident]())
	if fields < 100 {
		t.Errorf("only %d fields were looked at", fields)
	}
}

// full has every field set once; sparse only what is required.
func full() *incident.Incident {
	at := time.Date(2015, 8, 4, 6, 12, 9, 0, time.UTC)
	a := incident.Ptr(incident.Addr(0x829e76000))
	return &incident.Incident{
		Schema: incident.SchemaName, SchemaVersion: incident.SchemaVersion,
		Tool: incident.Tool{Name: "mycore", Version: "0.1.0"}, IncidentID: "a91c0f2e",
		CapturedAt: &incident.CapturedAt{Value: at, Clock: "file time"},
		Input: incident.Input{Kind: "core", Path: "mysqld.core", Size: incident.Ptr(int64(10)), TruncatedPercent: incident.Ptr(0.5),
			Writer: "kernel", Others: []incident.InputFile{{Kind: "proc", Path: "p"}}},
		Server: &incident.Server{Family: "mysql", Version: "5.6.24", BuildID: "ab", Source: target.SourceMemory},
		System: incident.System{OS: "linux", Arch: "amd64", PID: incident.Ptr(1158), Signal: &incident.Signal{Number: 6, Name: "SIGABRT", Code: incident.Ptr(-6)},
			Sources: map[string]target.Source{"pid": target.SourceCoreNote}},
		Verdict: incident.Verdict{Status: incident.StatusStuck, Severity: incident.SeverityCritical, Since: &at, Summary: "s",
			Impact: &incident.Impact{Blocked: incident.Ptr(1), Total: incident.Ptr(2)}, DedupKey: "d", Findings: []string{"f1"},
			Coverage: incident.Coverage{ThreadsRead: 1, ThreadsTotal: 1, StacksTrusted: 1, MasksKnown: incident.Ptr(false)}, Collect: []string{"c"}},
		Findings: []incident.Finding{{ID: "f1", Label: "fifo-open-no-writer", Title: "t", Severity: "critical", Confidence: "certain", Root: true,
			LWPs: []int{1}, Connections: []uint64{1}, Resource: &incident.Resource{Kind: "fifo", Path: "/tmp/x", Address: a},
			Victims:  &incident.Victims{Count: 0},
			Evidence: []incident.Evidence{{Fact: "f", Value: "v", Source: target.SourceProc, LWP: incident.Ptr(1)}}, Missing: []string{"m"},
			Since: &at, WaitSeconds: incident.Ptr(1.5), Kill: &incident.Kill{Why: "w", Source: "measured"},
			Remedies: []incident.Remedy{{ID: "r", Action: "a", Channel: "shell", Target: &incident.RemedyTarget{PID: incident.Ptr(1), ProcessStart: &at},
				Commands: []string{"c"}, Risk: "low", Preconditions: []incident.Precondition{{Text: "t", Status: "met", Guarded: true}}}},
			Signature: "s"}},
		Threads: []incident.Thread{{LWP: 1, Handle: a, Name: "n", Role: "r", Idle: incident.Ptr(false), State: "S",
			WaitChannel: &incident.Sourced{Value: "w", Source: target.SourceProc},
			Syscall:     &incident.Syscall{Name: "open", Args: []string{"a"}, Text: "t", Source: target.SourceRegisters},
			Signals:     &incident.ThreadSignals{Blocked: incident.Ptr(incident.Mask(0x87007)), Source: target.SourceCoreNote},
			TargetTID:   incident.Ptr(7), StartRoutine: "s", KernelStack: []string{"k"},
			Frames: []incident.Frame{{PC: 0x401000, Function: "f", Module: "m", Offset: a, Trust: "cfi",
				Arguments: []incident.Argument{{Index: 0, Value: 1, Text: "t", How: "h"}}}},
			Group: "g1", Labels: []string{"l"}, Sources: map[string]target.Source{"handle": target.SourceMemory}}},
		Modules:  []incident.Module{{Path: "p", Base: a, Status: "found", FoundAt: "q", Source: target.SourceCoreNote}},
		Groups:   []incident.Group{{ID: "g1", Count: 1, LWPs: []int{1}, Frames: []string{"f"}, Idle: incident.Ptr(true)}},
		Files:    []incident.File{{FD: 3, Path: "p", Kind: "file", Source: target.SourceProc}},
		Warnings: []incident.Warning{{Code: "c", Text: "t"}},
	}
}

func TestSamplesValidate(t *testing.T) {
	sparse := &incident.Incident{Schema: incident.SchemaName, SchemaVersion: 1, Tool: incident.Tool{Name: "mycore", Version: "x"},
		IncidentID: "i", Input: incident.Input{Kind: "core"},
		Verdict: incident.Verdict{Status: "inconclusive", Severity: "info", Summary: "s"}}
	committed, strict := compile(t, generate(t, false)), compile(t, generate(t, true))
	for name, inc := range map[string]*incident.Incident{"full": full(), "sparse": sparse} {
		text, err := json.Marshal(inc)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, committed, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := validate(t, strict, text); err != nil {
			t.Errorf("%s, strict: %v", name, err)
		}
		if bytes.Contains(text, []byte("null")) {
			t.Errorf("%s: absent must be absent, not null: %s", name, text)
		}
	}
}

// The schema must be able to fail.
func TestSchemaRefuses(t *testing.T) {
	text, err := json.Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	s := compile(t, generate(t, false))
	for _, c := range []struct{ name, old, new string }{
		{"address as a number", `"pc":"0x401000"`, `"pc":4198400`},
		{"address without 0x", `"pc":"0x401000"`, `"pc":"401000"`},
		{"id as a string", `"lwp":1,"handle"`, `"lwp":"1","handle"`},
		{"null", `"role":"r"`, `"role":null`},
		{"no source", `"value":"w","source":"proc"`, `"value":"w"`},
		{"time of another form", `"2015-08-04T06:12:09Z"`, `"4 Aug 2015"`},
	} {
		bad := strings.Replace(string(text), c.old, c.new, 1)
		if bad == string(text) {
			t.Fatalf("%s: %q isn't in the sample", c.name, c.old)
		}
		if validate(t, s, []byte(bad)) == nil {
			t.Errorf("%s was accepted", c.name)
		}
	}
}

func TestHexRoundTrip(t *testing.T) {
	for _, v := range []uint64{0, 1, 0x829e76000, 1<<64 - 1} {
		b, err := json.Marshal([]any{incident.Addr(v), incident.Mask(v)})
		if err != nil {
			t.Fatal(err)
		}
		var a incident.Addr
		var m incident.Mask
		if err := json.Unmarshal(b, &[]any{&a, &m}); err != nil {
			t.Fatal(err)
		}
		if uint64(a) != v || uint64(m) != v {
			t.Errorf("%#x came back as %v and %v from %s", v, a, m, b)
		}
	}
	for _, bad := range []string{`1`, `"1"`, `"0x"`, `"0xg"`, `"0x10000000000000000"`, `null`} {
		var a incident.Addr
		if err := a.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s was read as %v", bad, a)
		}
	}
}
