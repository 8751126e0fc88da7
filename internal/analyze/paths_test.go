package analyze_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mycore/internal/incident"
)

// A FIFO under the path is proof. Anything else isn't: the tree is a copy, and
// not what the process saw.
func TestPathInSysroot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		make       func(path string) error
		confidence string
	}{
		{"fifo", func(p string) error { return syscall.Mkfifo(p, 0o600) }, incident.ConfidenceCertain},
		{"nothing", func(string) error { return nil }, incident.ConfidenceLikely},
		{"regular file", func(p string) error { return os.WriteFile(p, nil, 0o600) }, incident.ConfidenceLikely},
		{"directory", func(p string) error { return os.Mkdir(p, 0o700) }, incident.ConfidenceLikely},
		{"link to a FIFO", func(p string) error {
			return errors.Join(syscall.Mkfifo(p+".real", 0o600), os.Symlink(p+".real", p))
		}, incident.ConfidenceLikely},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGhost(t)
			opts := options(t, g.Write(t, "ghost.core"))
			opts.Offline = false
			path := filepath.Join(opts.Sysroot, g.path)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), c.make(path)); err != nil {
				t.Fatal(err)
			}
			f := wantOne(t, run(t, opts).Incident, noWriter, c.confidence, g.lwp)
			proof := slices.ContainsFunc(f.Evidence, func(e incident.Evidence) bool { return e.Source == "filesystem" })
			if proof != (c.confidence == incident.ConfidenceCertain) {
				t.Errorf("evidence %+v", f.Evidence)
			}
			for _, r := range f.Remedies {
				for _, cmd := range r.Commands {
					if !strings.HasPrefix(cmd, "[ -p ") {
						t.Errorf("%s: a command without the test for the FIFO: %s", r.ID, cmd)
					}
				}
			}
		})
	}
}
