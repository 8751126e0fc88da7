package structdef

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mycore/internal/elfimage"
	"mycore/internal/servertest"
)

//go:embed testdata/types.cc
var typesSource []byte

// fixtureWanted is what is read from the fixture.
var fixtureWanted = []WantedStruct{
	{Name: "All", Types: []string{"All"}, Required: []string{"flag"}, Fields: plainFields(
		"base_first", "base_second", "other", "opaque", "flag", "as_long", "lo", "hi", "bytes", "named", "named.d", "named.raw",
		"db", "db.str", "db.length", "nested", "nested.first", "nested.text", "nested.in", "name", "call", "member", "buffer",
		"spaced.value", "anon_struct.in_anon", "ratio", "colour", "next", "low", "mid", "high", "wide", "tiny")},
	{Name: "Spaced", Types: []string{"Nowhere", "deep::er::Spaced"}, Fields: plainFields("value")},
	{Name: "Same", Types: []string{"Same", "deep::Same"}, Required: []string{"real"}, Fields: plainFields("real")},
	{Name: "Late", Types: []string{"Outer::Late"}, Fields: plainFields("d")},
	{Name: "NAMELESS", Types: []string{"NAMELESS"}, Fields: plainFields("b")},
	{Name: "Outer", Types: []string{"Outer"}, Fields: plainFields("inner.text", "colour")},
	{Name: "Virt", Types: []string{"Virt"}, Fields: plainFields("own", "nothing", "far_away")},
}

func plainFields(names ...string) []WantedField {
	var out []WantedField
	for _, n := range names {
		out = append(out, WantedField{n, []string{"no_such_path", n}})
	}
	return out
}

// needTool skips the test, or fails it where the tests' tools are promised.
func needTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv(servertest.RequireEnv) != "" {
			t.Fatalf("%s isn't installed", name)
		}
		t.Skipf("%s isn't installed", name)
	}
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	needTool(t, name)
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// compileTypes builds the fixture; the path is of the executable.
func compileTypes(t testing.TB, flags ...string) string {
	t.Helper()
	needTool(t, "g++")
	dir := t.TempDir()
	src, exe := filepath.Join(dir, "types.cc"), filepath.Join(dir, "types")
	if err := os.WriteFile(src, typesSource, 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-O0", "-std=c++14", "-w", "-Wl,--build-id", "-o", exe, src}, flags...)
	cmd := exec.Command("g++", args...)
	cmd.Dir = dir // -gsplit-dwarf writes there
	if out, err := cmd.CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("-gz")) || bytes.Contains(out, []byte("compress")) {
			t.Skipf("this compiler can't: %s", out)
		}
		t.Fatalf("g++ %v: %v\n%s", args, err, out)
	}
	return exe
}

// truth runs the program, which prints what its compiler made.
func truth(t testing.TB, exe string) *Layout {
	t.Helper()
	l := &Layout{Binary: Binary{Product: "fixture", OS: "linux", Arch: "amd64", BuildID: "00"}}
	at := map[string]int{}
	for line := range strings.Lines(command(t, exe)) {
		w := strings.Fields(line)
		if w[0] == "size" {
			for i := 1; i+1 < len(w); i += 2 {
				l.Structs[at[w[i]]].Size = uint64(number(t, w[i+1]))
			}
			continue
		}
		i, ok := at[w[0]]
		if !ok {
			i = len(l.Structs)
			at[w[0]] = i
			l.Structs = append(l.Structs, Struct{Name: w[0]})
		}
		l.Structs[i].Fields = append(l.Structs[i].Fields, Field{Name: w[1], Source: "live",
			Offset: uint64(number(t, w[2])), Size: uint64(number(t, w[3])),
			BitOffset: uint8(number(t, w[4])), BitSize: uint8(number(t, w[5]))})
	}
	if len(l.Structs) != len(fixtureWanted) {
		t.Fatalf("the program told %d structures", len(l.Structs))
	}
	return l
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// extractFixture reads the fixture's layout from the binary at path.
func extractFixture(t testing.TB, path string, opts SourceOptions) (*Layout, []Missing, error) {
	t.Helper()
	s, err := OpenSource(path, opts)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	if s.Files.DWARF == nil {
		return nil, nil, fmt.Errorf("%w%s", ErrNoDWARF, s.lookedText())
	}
	structs, missing, err := Extract(s.Files, fixtureWanted)
	if err != nil {
		return nil, nil, err
	}
	l := &Layout{Binary: Binary{Product: "fixture", OS: "linux", Arch: "amd64", BuildID: "00"}, Structs: structs}
	if err := l.Validate(); err != nil {
		t.Errorf("the layout isn't valid: %v", err)
	}
	return l, missing, nil
}

// checkFixture compares both ways: nothing wrong, nothing missing.
func checkFixture(t *testing.T, exe, path string, opts SourceOptions) {
	t.Helper()
	want := truth(t, exe)
	got, missing, err := extractFixture(t, path, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(Compare(got, want), Compare(want, got)...) {
		t.Error(d)
	}
	// What must not be found: a member of a virtual base, and what isn't there.
	if len(missing) != 2 || missing[0].Field != "nothing" || missing[1].Field != "far_away" {
		t.Errorf("missing: %v", missing)
	} else if !strings.Contains(missing[1].Err.Error(), "virtual base") {
		t.Errorf("far_away: %v", missing[1].Err)
	}
	checkKinds(t, got)
}

func checkKinds(t *testing.T, l *Layout) {
	t.Helper()
	for name, want := range map[string]Kind{"flag": KindBool, "db": KindLexString, "db.str": KindPointer, "db.length": KindUint,
		"named": KindUnion, "nested": KindStruct, "nested.in": KindArray, "nested.text": KindCharArray, "buffer": KindCharArray,
		"call": KindPointer, "ratio": KindFloat, "colour": KindEnum, "next": KindArray, "base_second": KindInt, "low": KindUint} {
		if f, ok := l.Field("All", name); !ok || f.Kind != want || f.Source != "dwarf" {
			t.Errorf("%s: kind %q of source %q, want %q", name, f.Kind, f.Source, want)
		}
	}
	if f, _ := l.Field("All", "nested.in"); f.Count != 6 {
		t.Errorf("nested.in has %d elements", f.Count)
	}
}

var fixtureFlags = map[string][]string{
	"dwarf-2":        {"-gdwarf-2"},
	"dwarf-3":        {"-gdwarf-3"},
	"dwarf-3-strict": {"-gdwarf-3", "-gstrict-dwarf"},
	"dwarf-4":        {"-gdwarf-4"},
	"dwarf-5":        {"-gdwarf-5"},
	"dwarf64":        {"-gdwarf-5", "-gdwarf64"},
	"types-4":        {"-gdwarf-4", "-fdebug-types-section"},
	"types-5":        {"-gdwarf-5", "-fdebug-types-section"},
	"zlib":           {"-gdwarf-5", "-gz=zlib"},
	"zstd":           {"-gdwarf-5", "-gz=zstd"},
	"zlib-types":     {"-gdwarf-4", "-fdebug-types-section", "-gz=zlib"},
	"lto":            {"-gdwarf-5", "-flto"},
	"optimised":      {"-gdwarf-5", "-O2"},
}

// Layouts equal what the compiled program says of itself, in each form of
// DWARF that compilers write.
func TestForms(t *testing.T) {
	t.Parallel()
	for name, flags := range fixtureFlags {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exe := compileTypes(t, flags...)
			checkFixture(t, exe, exe, SourceOptions{})
		})
	}
}

// strip splits the DWARF off into a file beside the binary.
func splitOff(t *testing.T, exe string) (stripped, debug string) {
	t.Helper()
	debug, stripped = exe+".debug", exe+".stripped"
	command(t, "objcopy", "--only-keep-debug", exe, debug)
	command(t, "objcopy", "--strip-all", "--add-gnu-debuglink="+debug, exe, stripped)
	return stripped, debug
}

func TestSeparateDebugFile(t *testing.T) {
	t.Parallel()
	exe := compileTypes(t, "-gdwarf-5")
	stripped, debug := splitOff(t, exe)
	t.Run("debug link", func(t *testing.T) { checkFixture(t, exe, stripped, SourceOptions{}) })
	t.Run("named", func(t *testing.T) { checkFixture(t, exe, stripped, SourceOptions{DebugFile: debug}) })
	t.Run("build ID", func(t *testing.T) {
		s, err := OpenSource(stripped, SourceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		id, _ := s.Binary.BuildID()
		root := t.TempDir()
		p := buildIDPaths(id, []string{root})[0]
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.Rename(debug, p)); err != nil {
			t.Fatal(err)
		}
		checkFixture(t, exe, stripped, SourceOptions{DebugDirs: []string{root}})
		if err := os.Rename(p, debug); err != nil {
			t.Fatal(err)
		}
	})
	other := compileTypes(t, "-gdwarf-5", "-O1")
	_, otherDebug := splitOff(t, other)
	t.Run("of another build", func(t *testing.T) {
		if _, _, err := extractFixture(t, stripped, SourceOptions{DebugFile: otherDebug}); err == nil || !strings.Contains(err.Error(), "another build ID") {
			t.Errorf("error %v", err)
		}
		if err := os.Rename(otherDebug, debug); err != nil {
			t.Fatal(err)
		}
		if _, _, err := extractFixture(t, stripped, SourceOptions{}); !errors.Is(err, ErrNoDWARF) || !strings.Contains(err.Error(), "another build ID") {
			t.Errorf("error %v", err)
		}
	})
}

// dwz moves what two files have in common into a third.
func TestAlternateFile(t *testing.T) {
	t.Parallel()
	needTool(t, "dwz")
	for _, version := range []string{"-gdwarf-4", "-gdwarf-5"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			exe, second := compileTypes(t, version), compileTypes(t, version, "-DSECOND")
			dir := filepath.Dir(exe)
			moved := filepath.Join(dir, "second")
			common := filepath.Join(dir, "common.dwz")
			if err := os.Rename(second, moved); err != nil {
				t.Fatal(err)
			}
			command(t, "dwz", "-m", common, "-M", "common.dwz", exe, moved)
			if _, err := os.Stat(common); err != nil {
				t.Fatalf("dwz shared nothing: %v", err)
			}
			checkFixture(t, exe, exe, SourceOptions{})
			// Without the file, nothing may be made up: refused, by its name.
			if err := os.Remove(common); err != nil {
				t.Fatal(err)
			}
			l, missing, err := extractFixture(t, exe, SourceOptions{})
			if err == nil || !strings.Contains(err.Error(), "common.dwz") {
				t.Errorf("layout %v, missing %v, error %v", l, missing, err)
			}
		})
	}
	t.Run("one file", func(t *testing.T) {
		t.Parallel()
		exe := compileTypes(t, "-gdwarf-5")
		command(t, "dwz", exe)
		checkFixture(t, exe, exe, SourceOptions{})
	})
}

// DWARF that isn't read is refused with its reason.
func TestRefused(t *testing.T) {
	t.Parallel()
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		if _, _, err := extractFixture(t, compileTypes(t, "-g0"), SourceOptions{}); !errors.Is(err, ErrNoDWARF) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("split DWARF", func(t *testing.T) {
		t.Parallel()
		_, _, err := extractFixture(t, compileTypes(t, "-gdwarf-5", "-gsplit-dwarf"), SourceOptions{})
		if !errors.Is(err, ErrNoDWARF) || !strings.Contains(err.Error(), ".dwo") {
			t.Errorf("error %v", err)
		}
	})
}

// Altered bytes anywhere in the DWARF of a compiled program give an error or
// another layout. extract is called without the guard that turns a panic into
// an error: there must be nothing to turn.
func TestAlteredFixture(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{{"-gdwarf-5"}, {"-gdwarf-4", "-fdebug-types-section"}} {
		exe := compileTypes(t, flags...)
		f, err := elfimage.Open(exe)
		if err != nil {
			t.Fatal(err)
		}
		sections := map[string][]byte{}
		for _, name := range []string{"debug_info", "debug_abbrev", "debug_str", "debug_line_str", "debug_types"} {
			if b, err := f.SectionData("."+name, 1<<20); err == nil {
				sections[name] = b
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(4, 2))
		for _, name := range []string{"debug_info", "debug_abbrev", "debug_types"} {
			b := sections[name]
			for range min(1000, len(b)) {
				i, v := rng.IntN(len(b)), byte(rng.Uint32())
				old := b[i]
				b[i] = v
				img, err := newImage("altered", func(name string) (section, error) {
					return section{name: name, data: sections[name], size: uint64(len(sections[name]))}, nil
				})
				if err == nil {
					_, _, _ = extract(img, fixtureWanted) // any answer will do
				}
				b[i] = old
			}
		}
	}
}
