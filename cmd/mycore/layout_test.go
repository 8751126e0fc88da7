package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mycore/internal/servertest"
	"mycore/internal/structdef"
)

// A profile extracted from a real server agrees with it in every field; one
// with a moved field is refused, and named.
func TestLayoutOfServer(t *testing.T) {
	t.Parallel()
	exe := servertest.Get(t, servertest.MySQL56).Exe
	var out, errs bytes.Buffer
	if code := run([]string{"layout", "extract", exe}, &out, &errs); code != exitOK || errs.Len() != 0 {
		t.Fatalf("exit code %d, %s", code, &errs)
	}
	profile := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(profile, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := structdef.Load(&out)
	if err != nil {
		t.Fatal(err)
	}
	fields := 0
	for _, s := range l.Structs {
		fields += len(s.Fields)
	}
	var table bytes.Buffer
	if code := run([]string{"layout", "show", exe, "--profile", profile}, &table, &errs); code != exitOK {
		t.Fatalf("exit code %d, %s", code, &errs)
	}
	if n := strings.Count(table.String(), "agrees\n"); n != fields || n < 200 {
		t.Errorf("%d of %d fields agree", n, fields)
	}

	moved := &l.Structs[0].Fields[0]
	moved.Offset -= 8
	f, err := os.Create(profile)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Write(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	table.Reset()
	if code := run([]string{"layout", "show", exe, "--profile", profile}, &table, &errs); code != exitFailed {
		t.Errorf("a moved field: exit code %d", code)
	}
	name := l.Structs[0].Name + "." + moved.Name
	if !strings.Contains(errs.String(), name+": offset") || strings.Count(table.String(), "agrees\n") != fields-1 {
		t.Errorf("a moved field of %s: %s", name, &errs)
	}
}
