package realtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/incident"
)

// tool runs a program of the machine.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		coretest.Absent(t, name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// testCompressed: the same core, packed, gives the same incident.
func (a *altered) testCompressed(t *testing.T) {
	opts := a.options()
	opts.Exe = a.exe
	want := run(t, opts).Incident
	for _, c := range []struct{ name, suffix, level string }{
		{"gzip", ".gz", "-1"}, {"zstd", ".zst", "-1"}, {"lz4", ".lz4", "-1"}, {"xz", ".xz", "-0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			took(t)
			packed := filepath.Join(t.TempDir(), "core"+c.suffix)
			out, err := os.Create(packed)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			if _, err := exec.LookPath(c.name); err != nil {
				coretest.Absent(t, c.name)
			}
			cmd := exec.CommandContext(t.Context(), c.name, c.level, "-c", a.core)
			cmd.Stdout = out
			if err := cmd.Run(); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			opts := opts
			opts.Core = packed
			inc := run(t, opts).Incident
			a.wantSame(t, inc)
			if inc.IncidentID != want.IncidentID {
				t.Errorf("incident %s, the plain core gives %s", inc.IncidentID, want.IncidentID)
			}
		})
	}
}

// testTruncated: what a full disk leaves of a core. Headers and notes come
// first, so the threads are all there.
func (a *altered) testTruncated(t *testing.T) {
	cut := filepath.Join(t.TempDir(), "cut.core")
	tool(t, "cp", "--sparse=always", a.core, cut)
	st, err := os.Stat(cut)
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []int64{95, 70, 40, 10} {
		if err := os.Truncate(cut, st.Size()*keep/100); err != nil {
			t.Fatal(err)
		}
		opts := a.options()
		opts.Core, opts.Exe, opts.Proc = cut, a.exe, a.proc
		inc := run(t, opts).Incident
		wantThreads(t, inc, a.tr.Threads)
		a.wantRightOnly(t, inc)
		wantOnly(t, inc, noWriter, a.tr.LWP) // by the kernel's view, if nothing else
		p := inc.Input.TruncatedPercent
		if p == nil || *p < float64(100-keep)-2 || *p > float64(100-keep)+2 {
			t.Errorf("%d %% kept: the file lacks %v %%", keep, p)
			continue
		}
		if w := warnings(inc, elfcore.WarnTruncated); len(w) != 1 || !strings.Contains(w[0], "%") {
			t.Errorf("warnings %q", w)
		}
		c := compareStacks(ourStacks(inc), a.want)
		t.Logf("%.1f %% of the memory missing: %d of %d frames found, %d others; path %q", *p, c.both, c.theirs, c.ours-c.both, pathOf(inc))
		if c.ours != c.both {
			t.Errorf("frames that aren't in the whole core: %s", strings.Join(c.diffs, "\n"))
		}
	}
}

func pathOf(inc *incident.Incident) string {
	for _, f := range inc.Findings {
		if f.Resource != nil {
			return f.Resource.Path
		}
	}
	return ""
}
