package floors

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mycore/internal/coretest"
)

const module = "mycore"

// violation says what is wrong with an import, "" when it is allowed.
func violation(from, to string, fromGenerator bool) string {
	if slices.Contains(TestSupport, to) {
		if fromGenerator || slices.Contains(TestSupport, from) {
			return ""
		}
		return "test support in the program"
	}
	if slices.Contains(TestSupport, from) {
		return ""
	}
	f, ok := Of[from]
	if !ok {
		return "package has no floor"
	}
	g, ok := Of[to]
	if !ok {
		return "imported package has no floor"
	}
	switch {
	case g < f, g == f && slices.Contains(SameFloor[from], to):
		return ""
	case g == f:
		return "edge on one floor that isn't listed"
	}
	return "import of a higher floor"
}

func TestImportsRunDownwards(t *testing.T) {
	root := coretest.Module(t)
	seen := map[string]bool{}
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" || rel == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(rel))
		if pkg == "internal/floors" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		files++
		generator := f.Name.Name == "main" && pkg != "cmd/mycore"
		seen[pkg] = true
		for _, name := range []string{"util", "utils", "common", "helpers", "misc", "types"} {
			if f.Name.Name == name {
				t.Errorf("%s: a package named %s says nothing", rel, name)
			}
		}
		for _, imp := range f.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			if p == "C" {
				t.Errorf("%s: cgo in a cgo-free program", rel)
			}
			if strings.HasPrefix(p, "golang.org/x/debug") {
				t.Errorf("%s: golang.org/x/debug is the tests' cross-check only", rel)
			}
			to, ok := strings.CutPrefix(p, module+"/")
			if !ok || generator {
				continue
			}
			if v := violation(pkg, to, generator); v != "" {
				t.Errorf("%s imports %s: %s", rel, to, v)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("only %d files were looked at", files)
	}
	for pkg := range Of {
		if !seen[pkg] {
			t.Errorf("%s has a floor and no code", pkg)
		}
	}
}

// The check itself must be able to fail.
func TestViolationIsCaught(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{"internal/target", "elfcore"},
		{"internal/cfi", "internal/disasm"},
		{"internal/analyze", "internal/coretest"},
		{"internal/nowhere", "internal/target"},
		{"internal/unwind", "cmd/mycore"},
	} {
		if violation(c.from, c.to, false) == "" {
			t.Errorf("%s importing %s was allowed", c.from, c.to)
		}
	}
	if v := violation("elfcore", "internal/target", false); v != "" {
		t.Errorf("elfcore importing target: %s", v)
	}
}
