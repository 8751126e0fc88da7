package analyze_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mycore/internal/coretest"
	"mycore/internal/incident"
)

// server is the first mapping of the executable.
func (g *ghost) server(t *testing.T) coretest.File {
	t.Helper()
	for _, f := range g.Files() {
		if f.Off == 0 && strings.Contains(filepath.Base(f.Path), "mariadbd") {
			return f
		}
	}
	t.Fatal("the server's executable isn't in NT_FILE")
	return coretest.File{}
}

// install writes a small binary with a build ID to its place in a tree.
func install(t *testing.T, root, path string, id []byte) string {
	t.Helper()
	out := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(out), 0o700); err != nil {
		t.Fatal(err)
	}
	img := &coretest.Image{BuildID: id, Text: []byte{0xc3}, Dynamic: []coretest.Symbol{{Name: "wrong_name", Value: coretest.TextOff, Size: 1}}}
	if err := os.WriteFile(out, img.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// stillGood holds what no missing binary may cost: threads, handles, calls and
// wait channels.
func (g *ghost) stillGood(t *testing.T, inc *incident.Incident) {
	t.Helper()
	if len(inc.Threads) != len(g.Threads()) {
		t.Fatalf("%d threads, the notes have %d", len(inc.Threads), len(g.Threads()))
	}
	for _, th := range inc.Threads {
		if th.Handle == nil || uint64(*th.Handle) != g.Reg(th.LWP, coretest.RegFSBase) {
			t.Errorf("LWP %d: handle %v, thread pointer %#x", th.LWP, th.Handle, g.Reg(th.LWP, coretest.RegFSBase))
		}
		if len(th.Frames) == 0 || uint64(th.Frames[0].PC) != g.Reg(th.LWP, coretest.RegRIP) {
			t.Errorf("LWP %d: no innermost frame", th.LWP)
		}
		if th.LWP != g.lwp && len(th.Labels) > 0 {
			t.Errorf("LWP %d has labels %v", th.LWP, th.Labels)
		}
	}
	th := threadOf(t, inc, g.lwp)
	if th.Syscall == nil || !strings.Contains(th.Syscall.Text, g.path) {
		t.Errorf("system call %+v", th.Syscall)
	}
	if th.WaitChannel == nil || th.WaitChannel.Value != "wait_for_partner" {
		t.Errorf("wait channel %+v", th.WaitChannel)
	}
	wantOne(t, inc, noWriter, incident.ConfidenceCertain, g.lwp)
}

func TestNoBinaryAtAll(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(g *ghost, l coretest.Load){
		"headers are zeros": func(g *ghost, l coretest.Load) { clear(g.B[l.Off : l.Off+4096]) },
		// as with a coredump_filter without bit 4
		"headers not dumped": func(g *ghost, l coretest.Load) { clear(g.B[l.Header+32 : l.Header+40]) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			noBinaryAtAll(t, lose)
		})
	}
}

func noBinaryAtAll(t *testing.T, lose func(*ghost, coretest.Load)) {
	g := newGhost(t)
	bases := map[uint64]bool{}
	for _, f := range g.Files() {
		if f.Off == 0 && bytes.HasPrefix(g.At(f.Start), []byte("\x7fELF")) {
			bases[f.Start] = true
		}
	}
	if len(bases) < 3 {
		t.Fatalf("only %d images have their headers in the core", len(bases))
	}
	for _, l := range g.Loads() {
		if bases[l.Addr] {
			lose(g, l)
		}
	}
	inc := g.both(t).Incident
	g.stillGood(t, inc)
	text := warning(t, inc, "binary-missing")
	for _, want := range []string{g.server(t).Path, "--exe", "stacks", "handles"} {
		if !strings.Contains(text, want) {
			t.Errorf("the warning doesn't say %q: %s", want, text)
		}
	}
	for _, th := range inc.Threads {
		for _, fr := range th.Frames[1:] {
			if fr.Trust == "cfi" && !strings.HasPrefix(fr.Module, "[") {
				t.Fatalf("LWP %d has a frame by call frame information of %s, whose headers are gone", th.LWP, fr.Module)
			}
		}
	}
	if inc.Verdict.Coverage.StacksTrusted != 0 {
		t.Errorf("coverage %+v", inc.Verdict.Coverage)
	}

	// From the core alone nothing proves LOAD DATA any more.
	inc = g.alone(t).Incident
	for _, f := range inc.Findings {
		if f.Label != noWriter || f.Confidence == incident.ConfidenceCertain {
			t.Errorf("%s (%s) on %v", f.Label, f.Confidence, f.LWPs)
		}
	}
}

func TestNoFileNote(t *testing.T) {
	t.Parallel()
	t.Run("removed", func(t *testing.T) {
		t.Parallel()
		g := newGhost(t)
		copy(g.B[g.Note(coretest.NTFile).Header+8:], "\xde\xad\xbe\xef")
		inc := g.both(t).Incident
		if text := warning(t, inc, "core-no-file-note"); !strings.Contains(text, "NT_FILE") {
			t.Errorf("warning: %s", text)
		}
		g.stillGood(t, inc)
	})
	t.Run("claims too much", func(t *testing.T) {
		t.Parallel()
		g := newGhost(t)
		copy(g.B[g.Note(coretest.NTFile).Desc:], "\xff\xff\xff\xff\xff\xff\xff\x7f")
		inc := g.both(t).Incident
		warning(t, inc, "core-no-file-note")
		g.stillGood(t, inc)
	})
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		g := newGhost(t)
		files := g.Files()
		n := g.Note(coretest.NTFile)
		// The names end early; the server's own comes first.
		g.ReplaceNote(coretest.NTFile, g.B[n.Desc:n.Desc+16+24*len(files)+len(files[0].Path)*4])
		inc := g.both(t).Incident
		warning(t, inc, "core-no-file-note")
		g.stillGood(t, inc)
		if len(inc.Modules) == 0 || inc.Modules[0].Path != files[0].Path {
			t.Errorf("modules %+v", inc.Modules)
		}
	})
}

// A binary of another build isn't used, whatever its name.
func TestMismatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		exe    bool   // by --exe, else at the recorded path
		suffix string // of the recorded path
		want   []string
	}{
		{name: "--exe", exe: true, want: []string{"--exe", "isn't used"}},
		{name: "recorded path"},
		{name: "replaced by an upgrade", suffix: " (deleted)", want: []string{"after the process had loaded another"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGhost(t)
			server := g.server(t)
			id := g.BuildID(server.Start)
			if id == nil {
				t.Fatal("the server's build ID isn't in the core")
			}
			id[0] ^= 0xff // the process' own: no file of this machine has it
			want := hex.EncodeToString(id)
			files := g.Files()
			for i := range files {
				if files[i].Path == server.Path {
					files[i].Path += c.suffix
				}
			}
			g.SetFiles(files)
			opts := options(t, g.Write(t, "ghost.core"))
			opts.Proc = g.proc
			other := bytes.Repeat([]byte{0xab}, 20)
			if c.exe {
				opts.Exe = install(t, t.TempDir(), "mysqld", other)
			} else {
				install(t, opts.Sysroot, server.Path, other)
			}
			inc := run(t, opts).Incident
			g.stillGood(t, inc)
			text := warning(t, inc, "binary-mismatch")
			for _, w := range append(c.want, want, hex.EncodeToString(other)) {
				if !strings.Contains(text, w) {
					t.Errorf("the warning doesn't say %q: %s", w, text)
				}
			}
			for _, th := range inc.Threads {
				if hasFunction(&th, "wrong_name") {
					t.Fatalf("LWP %d is named from the wrong binary", th.LWP)
				}
			}
			if m := inc.Modules[0]; m.BuildID != want || m.FoundAt != "" {
				t.Errorf("module %+v", m)
			}
		})
	}
}

// A path that is "(deleted)" is looked up without the mark.
func TestDeletedPathFound(t *testing.T) {
	t.Parallel()
	g := newGhost(t)
	server := g.server(t)
	files := g.Files()
	for i := range files {
		files[i].Path += " (deleted)"
	}
	g.SetFiles(files)
	inc := g.both(t).Incident
	g.stillGood(t, inc)
	if n := inc.Verdict.Coverage; n.StacksTrusted != n.ThreadsTotal {
		t.Errorf("the images in the core still serve: %+v", n)
	}
	opts := options(t, g.Write(t, "ghost.core"))
	at := install(t, opts.Sysroot, server.Path, g.BuildID(server.Start))
	inc = run(t, opts).Incident
	if m := inc.Modules[0]; m.Status != "found" || m.FoundAt != at && m.FoundAt != server.Path {
		t.Errorf("module %+v", m)
	}
}
