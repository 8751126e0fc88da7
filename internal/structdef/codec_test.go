package structdef

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mycore/internal/elfimage"
)

func sampleLayout() *Layout {
	return &Layout{
		Binary: Binary{Product: "mysql", Version: "5.6.24", OS: "linux", Arch: "amd64", BuildID: "0a1b"},
		Structs: []Struct{{Name: "THD", Size: 64, Fields: []Field{
			{Name: "net", Offset: 8, Size: 24, Kind: KindStruct, Source: "dwarf"},
			{Name: "net.vio", Offset: 8, Size: 8, Kind: KindPointer, Source: "dwarf"},
			{Name: "thread_id", Path: "m_thread_id", Offset: 32, Size: 4, Kind: KindUint, Source: "accessor"},
			{Name: "low", Offset: 40, Size: 1, BitSize: 3, Kind: KindUint, Source: "dwarf"},
			{Name: "high", Offset: 40, Size: 1, BitOffset: 3, BitSize: 5, Kind: KindUint, Source: "dwarf"},
			{Name: "table", Offset: 48, Size: 8, Kind: KindPointer, Union: "un", Source: "dwarf"},
			{Name: "space", Offset: 48, Size: 8, Kind: KindUint, Union: "un", Source: "dwarf"},
		}}},
	}
}

func TestWriteLoad(t *testing.T) {
	var a, b bytes.Buffer
	if err := sampleLayout().Write(&a); err != nil {
		t.Fatal(err)
	}
	l, err := Load(bytes.NewReader(a.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Write(&b); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Errorf("written again: %v\n%s", err, b.Bytes())
	}
	if f, ok := l.Field("THD", "thread_id"); !ok || f.Offset != 32 || f.Path != "m_thread_id" {
		t.Errorf("thread_id: %+v", f)
	}
	if _, ok := l.Field("THD", "nothing"); ok {
		t.Error("a field that isn't there")
	}
	if _, ok := l.Field("Nothing", "net"); ok {
		t.Error("a structure that isn't there")
	}
}

// Contradictions inside a layout are refused, when written and when read.
func TestValidateRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(l *Layout, f []Field)
		want   string
	}{
		"overlap":              {func(_ *Layout, f []Field) { f[2].Offset = 28 }, "overlap"},
		"moved by 8":           {func(_ *Layout, f []Field) { f[2].Offset += 8 }, "overlap"},
		"bits overlap":         {func(_ *Layout, f []Field) { f[4].BitOffset = 2 }, "overlap"},
		"leaves the embedding": {func(_ *Layout, f []Field) { f[1].Size = 40 }, "overlap"},
		"another union":        {func(_ *Layout, f []Field) { f[6].Union = "other" }, "overlap"},
		"behind the end":       {func(_ *Layout, f []Field) { f[6].Offset = 60 }, "leave the structure"},
		"offset 2^64-1":        {func(_ *Layout, f []Field) { f[6].Offset = 1<<64 - 1 }, "leave the structure"},
		"size 0":               {func(_ *Layout, f []Field) { f[1].Size = 0 }, "size 0"},
		"huge size":            {func(_ *Layout, f []Field) { f[1].Size = 1<<64 - 4 }, "leave the structure"},
		"huge structure":       {func(l *Layout, _ []Field) { l.Structs[0].Size = 1 << 60 }, "size"},
		"kind":                 {func(_ *Layout, f []Field) { f[1].Kind = "ptr" }, "unknown kind"},
		"source":               {func(_ *Layout, f []Field) { f[1].Source = "guess" }, "unknown source"},
		"no source":            {func(_ *Layout, f []Field) { f[1].Source = "" }, "unknown source"},
		"name twice":           {func(_ *Layout, f []Field) { f[1].Name = "net" }, "twice"},
		"no name":              {func(_ *Layout, f []Field) { f[1].Name = "" }, "no name"},
		"structure twice":      {func(l *Layout, _ []Field) { l.Structs = append(l.Structs, l.Structs[0]) }, "twice"},
		"bits outside":         {func(_ *Layout, f []Field) { f[4].BitSize = 6 }, "bits leave"},
		"bit offset alone":     {func(_ *Layout, f []Field) { f[1].BitOffset = 1 }, "without bit size"},
		"no product":           {func(l *Layout, _ []Field) { l.Binary.Product = "" }, "product"},
		"no identity":          {func(l *Layout, _ []Field) { l.Binary.BuildID = "" }, "build_id or a hash"},
		"build ID no hex":      {func(l *Layout, _ []Field) { l.Binary.BuildID = "0A1B" }, "hex"},
		"hash outside": {func(l *Layout, _ []Field) {
			l.Binary.BuildID = ""
			l.Binary.Hash = &Hash{FileSize: 10, Offset: 4, Length: 7, SHA256: strings.Repeat("0", 64)}
		}, "leave the file"},
	} {
		l := sampleLayout()
		c.change(l, l.Structs[0].Fields)
		err := l.Write(&bytes.Buffer{})
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// The file's form is strict as well.
func TestLoadRefuses(t *testing.T) {
	var b bytes.Buffer
	if err := sampleLayout().Write(&b); err != nil {
		t.Fatal(err)
	}
	good := b.String()
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":       {`"offset": 32`, `"offset": 32, "align": 4`, "unknown field"},
		"key in other case": {`"offset": 32`, `"Offset": 32`, "unknown key"},
		"key twice":         {`"offset": 32`, `"offset": 32, "offset": 40`, "twice"},
		"negative offset":   {`"offset": 32`, `"offset": -32`, "offset"},
		"fraction":          {`"offset": 32`, `"offset": 32.5`, "offset"},
		"text as number":    {`"offset": 32`, `"offset": "32"`, "offset"},
		"format":            {`"mycore_layout": 1`, `"mycore_layout": 2`, "mycore_layout is 2"},
		"cut":               {good[len(good)-20:], ``, ""},
		"text behind":       {good, good + "x", ""},
		"a second layout":   {good, good + good, "behind"},
		"empty":             {good, "", ""},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := Load(strings.NewReader(bad)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	if _, err := Load(strings.NewReader(strings.Repeat(" ", maxFile+1))); !errors.Is(err, ErrFormat) {
		t.Errorf("too long a file: %v", err)
	}
	if _, err := LoadFile(t.TempDir()); !errors.Is(err, elfimage.ErrNotRegular) {
		t.Errorf("a directory: %v", err)
	}
	p := filepath.Join(t.TempDir(), "l.json")
	if err := os.WriteFile(p, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadFile(p); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), p) {
		t.Errorf("a file without layout: %v", err)
	}
}

func TestCompareFindsEachChange(t *testing.T) {
	truth := sampleLayout()
	for name, c := range map[string]struct {
		change func(l *Layout, f []Field)
		what   string
	}{
		"offset":           {func(_ *Layout, f []Field) { f[1].Offset = 16 }, "offset"},
		"size":             {func(_ *Layout, f []Field) { f[2].Size = 8 }, "size"},
		"bits":             {func(_ *Layout, f []Field) { f[3].BitSize = 2 }, "bits"},
		"kind":             {func(_ *Layout, f []Field) { f[1].Kind = KindUint }, "kind"},
		"invented":         {func(_ *Layout, f []Field) { f[1].Name = "net.fd" }, "missing"},
		"structure":        {func(l *Layout, _ []Field) { l.Structs[0].Name = "Vio" }, "missing"},
		"structure's size": {func(l *Layout, _ []Field) { l.Structs[0].Size = 72 }, "size"},
	} {
		l := sampleLayout()
		c.change(l, l.Structs[0].Fields)
		if d := Compare(l, truth); len(d) != 1 || d[0].What != c.what || d[0].String() == "" {
			t.Errorf("%s: %v", name, d)
		}
	}
	l := sampleLayout()
	l.Structs[0].Fields[2].Kind = KindInt // an accessor's guess
	if d := Compare(l, truth); len(d) != 0 {
		t.Errorf("an accessor's kind was compared: %v", d)
	}
	o := truth.Binary
	o.BuildID = "0a1c"
	if truth.Binary.Same(&o) {
		t.Error("another build ID is the same build")
	}
}

func TestWantedLists(t *testing.T) {
	for _, p := range []string{ProductMySQL, ProductPercona, ProductMariaDB} {
		w, err := Wanted(p)
		if err != nil || len(w) < 20 || w[0].Name != "THD" {
			t.Errorf("%s: %d structures, %v", p, len(w), err)
		}
	}
	if _, err := Wanted("postgres"); !errors.Is(err, ErrUnknownProduct) {
		t.Errorf("error %v", err)
	}
	for name, bad := range map[string]string{
		"unknown key":      "shared: []\nfamilies: {}\nother: 1\n",
		"no types":         "families: {m: {structs: [{name: T, fields: {a: =}}]}}",
		"neither":          "families: {m: {structs: [{name: T, types: [T], fields: {a: 3}}]}}",
		"field twice":      "families: {m: {structs: [{name: T, types: [T], fields: {a: =, a: =}}]}}",
		"required unknown": "families: {m: {structs: [{name: T, types: [T], required: [b], fields: {a: =}}]}}",
		"twice": "shared: [{name: T, types: [T], fields: {a: =}}]\n" +
			"families: {m: {structs: [{name: T, types: [T], fields: {a: =}}]}}",
	} {
		if _, err := parseWanted([]byte(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzLoad(f *testing.F) {
	var b bytes.Buffer
	if err := sampleLayout().Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := Load(bytes.NewReader(in))
		if err != nil {
			return
		}
		// What was read can be written, and reads the same.
		var out bytes.Buffer
		if err := l.Write(&out); err != nil {
			t.Fatal(err)
		}
		again, err := Load(&out)
		if err != nil || len(Compare(l, again)) != 0 {
			t.Fatalf("written and read: %v", err)
		}
	})
}
