package modules

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/target"
)

const (
	exeBase = 0x555555554000
	libBase = 0x7ffff7a00000
)

var (
	exeID = bytes.Repeat([]byte{0xe1}, 20)
	libID = bytes.Repeat([]byte{0x1b}, 20)
)

// image makes a binary with one function of the given name, whose text is as
// many nops as text says.
func image(id []byte, function string, text int, more ...coretest.Section) []byte {
	return (&coretest.Image{
		BuildID: id, Text: bytes.Repeat([]byte{0x90}, text), GNUHash: true, Sections: more,
		Dynamic: []coretest.Symbol{{Name: function, Value: coretest.TextOff, Size: uint64(text)}},
	}).Bytes()
}

// loaded is an image in a core made by newCore.
type loaded struct {
	path string
	data []byte
	base uint64
	dump int // bytes of the text segment that the core holds
}

// newCore makes a core in which the images are mapped the way the kernel does
// it: text to the page boundary, then the page with the dynamic table.
func newCore(t testing.TB, images ...loaded) *elfcore.Process {
	t.Helper()
	c := &coretest.Core{PID: 4000, Command: "mysqld", Threads: []coretest.Thread{{LWP: 4000, PC: exeBase + coretest.TextOff, SP: 0x7ffffffde800}}}
	for i, im := range images {
		dyn := uint64(coretest.TextOff)
		for dyn < uint64(textEnd(im.data)) {
			dyn += 0x1000
		}
		data := make([]byte, 0x1000)
		copy(data, im.data[dyn:])
		c.Files = append(c.Files,
			coretest.File{Start: im.base, End: im.base + dyn, Path: im.path},
			coretest.File{Start: im.base + dyn, End: im.base + dyn + 0x1000, Off: dyn, Path: im.path})
		c.Segments = append(c.Segments,
			coretest.Segment{Addr: im.base, Perm: "r-x", Data: im.data[:min(im.dump, int(dyn))], Size: dyn},
			coretest.Segment{Addr: im.base + dyn, Perm: "rw-", Data: data})
		if i == 0 {
			c.Auxv = [][2]uint64{{3, im.base + 64}, {4, 56}, {5, uint64(im.data[56])}, {6, 4096}, {9, im.base + coretest.TextOff}}
		}
	}
	c.Segments = append(c.Segments, coretest.Segment{Addr: 0x7ffffffde000, Perm: "rw-", Data: make([]byte, 0x1000)})
	return process(t, c)
}

// textEnd reads the end of the first PT_LOAD of an image made by coretest.
func textEnd(b []byte) uint64 {
	for at := 64; ; at += 56 {
		if b[at] == 1 && b[at+1] == 0 && b[at+4] == 5 {
			var v uint64
			for i := range 8 {
				v |= uint64(b[at+32+i]) << (8 * i)
			}
			return v
		}
	}
}

func process(t testing.TB, c *coretest.Core) *elfcore.Process {
	t.Helper()
	b := c.Bytes()
	p, err := elfcore.New(bytes.NewReader(b), int64(len(b)), "test.core")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// put writes a file below dir and returns its path.
func put(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func load(t testing.TB, p *elfcore.Process, o Options) *Set {
	t.Helper()
	o.NoSystemDirs = true // the machine's own debug files are no part of a test
	s := Load(p, o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func buildIDName(id []byte, suffix string) string {
	h := hex.EncodeToString(id)
	return filepath.Join(".build-id", h[:2], h[2:]+suffix)
}

// TestOrder removes the best place from one try to the next.
func TestOrder(t *testing.T) {
	dir := t.TempDir()
	bin := image(exeID, "main_function", 0x100)
	exe := put(t, dir, "given", bin)
	recorded := put(t, dir, "host/usr/sbin/server", bin)
	sysroot := filepath.Join(dir, "root")
	inRoot := put(t, sysroot, recorded, bin)
	debug := filepath.Join(dir, "debug")
	byID := put(t, debug, buildIDName(exeID, ""), bin)
	beside := put(t, dir, "cores/server", bin)
	core := newCore(t, loaded{recorded, bin, exeBase, coretest.TextOff + 0x1000})
	all := Options{Exe: exe, Sysroot: sysroot, DebugDirs: []string{debug}, CoreDir: filepath.Dir(beside)}
	for _, c := range []struct {
		by, path string
		status   Status
	}{
		{"--exe", exe, Found}, {"sysroot", inRoot, Found}, {"recorded path", recorded, Found},
		{"build-ID directory", byID, Found}, {"beside the core", beside, Found}, {"core memory", "", FromCore},
	} {
		s := load(t, core, all)
		m := s.Main()
		if m == nil || m.FoundBy != c.by || m.Path != c.path || m.Status != c.status || !m.Verified {
			t.Fatalf("want %s by %q at %q, have %+v", c.status, c.by, c.path, m)
		}
		if !bytes.Equal(m.BuildID, exeID) || !bytes.Equal(m.WantBuildID, exeID) {
			t.Errorf("%s: build IDs %x, %x", c.by, m.BuildID, m.WantBuildID)
		}
		if len(s.Warnings()) != 0 {
			t.Errorf("%s: warnings %v", c.by, s.Warnings())
		}
		pc := target.Addr(exeBase + coretest.TextOff + 7)
		if sym, ok := m.Symbols().At(m.LinkTime(pc)); c.status == Found && (!ok || sym.Name != "main_function") {
			t.Errorf("%s: symbol %+v, %v", c.by, sym, ok)
		}
		if c.path != "" {
			if err := os.Remove(c.path); err != nil {
				t.Fatal(err)
			}
			all.Exe = "" // a file that the user names and isn't there is worth a warning
		}
	}
}

func TestMismatchNamesBothBuildIDs(t *testing.T) {
	dir := t.TempDir()
	bin, other := image(exeID, "main_function", 0x100), image(libID, "other", 0x100)
	recorded := put(t, dir, "server", other)
	core := newCore(t, loaded{recorded, bin, exeBase, 0x1000})
	s := load(t, core, Options{})
	m := s.Main()
	if m.Status != Mismatch || m.ELF() != nil || m.Path != recorded || m.HasBias != true || m.Bias != exeBase {
		t.Fatalf("%+v", m)
	}
	w := s.Warnings()
	if len(w) != 1 || w[0].Code != WarnMismatch {
		t.Fatalf("warnings %v", w)
	}
	for _, part := range []string{hex.EncodeToString(exeID), hex.EncodeToString(libID), recorded, "--exe", "threads"} {
		if !strings.Contains(w[0].Text, part) {
			t.Errorf("%q isn't in %q", part, w[0].Text)
		}
	}
	if _, ok := m.Symbols().At(coretest.TextOff); ok {
		t.Error("a refused file names functions")
	}
	var b [4]byte
	if _, err := core.WithBacking(s.Backing()).ReadMemory(exeBase+coretest.TextOff, b[:]); !isMissing(err) {
		t.Errorf("reading code of a refused file: %v", err)
	}
	// A wrong --exe doesn't hide the right file elsewhere.
	right := put(t, dir, "root"+recorded, bin)
	s = load(t, core, Options{Exe: recorded, Sysroot: filepath.Join(dir, "root")})
	if m := s.Main(); m.Status != Found || m.Path != right || len(m.Looked) < 2 || !strings.Contains(m.Looked[0], "build ID") {
		t.Errorf("after a wrong --exe: %+v", m)
	}
	if w := s.Warnings(); len(w) != 1 || w[0].Code != WarnMismatch || !strings.Contains(w[0].Text, "--exe") || !strings.Contains(w[0].Text, right) {
		t.Errorf("after a wrong --exe: %v", w)
	}
}

// TestExeWithoutAuxv: a core that doesn't tell which image is the executable.
func TestExeWithoutAuxv(t *testing.T) {
	dir := t.TempDir()
	bin, lib := image(exeID, "f", 0x100), image(libID, "g", 0x100)
	exe := put(t, dir, "copy-of-server", bin)
	core := coretest.Sample(1)
	core.Auxv, core.Files = nil, []coretest.File{
		{Start: exeBase, End: exeBase + 0x3000, Path: "/nonexistent/server"}, {Start: libBase, End: libBase + 0x3000, Path: "/nonexistent/lib.so"}}
	core.Segments = []coretest.Segment{{Addr: exeBase, Perm: "r-x", Data: bin[:0x1000], Size: 0x3000}, {Addr: libBase, Perm: "r-x", Data: lib[:0x1000], Size: 0x3000}}
	s := load(t, process(t, core), Options{Exe: exe})
	if s.Main() != nil {
		t.Fatalf("the core tells its executable: %+v", s.Main())
	}
	if m := s.At(exeBase); m.Status != Found || m.Path != exe {
		t.Errorf("the executable: %+v", m)
	}
	if m := s.At(libBase); m.Status != Missing {
		t.Errorf("the library: %+v", m)
	}
	s = load(t, process(t, core), Options{Exe: put(t, dir, "third", image(nil, "h", 0x100))})
	if w := s.Warnings(); len(w) == 0 || !strings.Contains(w[0].Text, "third") {
		t.Errorf("a file that is none of them: %v", w)
	}
}

func isMissing(err error) bool { return err != nil && strings.Contains(err.Error(), "missing") }

func TestMissing(t *testing.T) {
	bin := image(exeID, "main_function", 0x100)
	var images []loaded
	images = append(images, loaded{"/nonexistent/sbin/server", bin, exeBase, 0x1000})
	for i := range 7 {
		images = append(images, loaded{fmt.Sprintf("/nonexistent/lib/lib%d.so", i), image(libID, "f", 0x100), libBase + uint64(i)<<20, 0x1000})
	}
	s := load(t, newCore(t, images...), Options{})
	w := s.Warnings()
	if len(w) != 2 || w[0].Code != WarnMissing || w[1].Code != WarnMissing {
		t.Fatalf("warnings %v", w)
	}
	if !strings.Contains(w[0].Text, hex.EncodeToString(exeID)) || !strings.Contains(w[0].Text, "--exe") {
		t.Errorf("the executable's warning: %q", w[0].Text)
	}
	if !strings.Contains(w[1].Text, "7 libraries") || !strings.Contains(w[1].Text, "and 2 more") {
		t.Errorf("the libraries' warning: %q", w[1].Text)
	}
	for _, m := range s.All() {
		if m.Status != Missing || len(m.Looked) == 0 || m.Reason == "" || m.Symbols() == nil {
			t.Errorf("%+v", m)
		}
		if _, err := m.AltFile(); err == nil {
			t.Error("an alternative debug file of nothing")
		}
	}
}

func TestDeletedFile(t *testing.T) {
	dir := t.TempDir()
	old, upgraded := image(exeID, "old", 0x100), image(libID, "new", 0x100)
	noID := image(nil, "old", 0x100)
	for _, c := range []struct {
		name          string
		file, process []byte
		dump          int
		status        Status
		verified      bool
		warn          string
	}{
		{"the same file was put back", old, old, 0x1000, Found, true, ""},
		{"upgraded", upgraded, old, 0x1000, Mismatch, false, "was put there after"},
		{"no build ID, first page dumped and equal", noID, noID, 0x1000, Found, false, ""},
		{"no build ID, first page dumped and different", image(nil, "new_name", 0x100), noID, 0x1000, Mismatch, false, "first page"},
		{"no build ID, layout agrees", noID, noID, 0, Found, false, "without proof"},
		{"no build ID, other layout", image(nil, "old", 0x20000), noID, 0, Mismatch, false, "was put there after"},
	} {
		p := put(t, dir, "server", c.file)
		s := load(t, newCore(t, loaded{p + " (deleted)", c.process, exeBase, c.dump}), Options{})
		m := s.All()[0]
		if m.Status != c.status || m.Verified != c.verified || m.Path != p {
			t.Errorf("%s: %s, verified %v, %q: %s", c.name, m.Status, m.Verified, m.Path, m.Reason)
		}
		var text string
		for _, w := range s.Warnings() {
			text += w.Text
		}
		if (c.warn == "") != (text == "") || !strings.Contains(text, c.warn) {
			t.Errorf("%s: warnings %q, want %q", c.name, text, c.warn)
		}
		if m.Name() != p {
			t.Errorf("%s: name %q", c.name, m.Name())
		}
	}
}

func TestWithoutBuildID(t *testing.T) {
	dir := t.TempDir()
	noID := image(nil, "f", 0x3000)
	for _, c := range []struct {
		name   string
		file   []byte
		dump   int
		status Status
		reason string
	}{
		{"the same", noID, 0, Found, "layout agrees"},
		{"the same, first page dumped", noID, 0x1000, Found, "first page equals"},
		{"shorter text", image(nil, "f", 0x1000), 0, Mismatch, "code ends"},
		{"longer text", image(nil, "f", 0x5000), 0, Mismatch, "isn't mapped"},
		{"file cut short", noID[:0x4000], 0, Mismatch, "ends before"},
		{"other machine", (&coretest.Image{Machine: coretest.ARM64, Text: make([]byte, 0x3000)}).Bytes(), 0, Mismatch, "arm64"},
		{"no ELF", []byte("#!/bin/sh\n"), 0, Missing, ""},
		{"empty", nil, 0, Missing, ""},
	} {
		p := put(t, dir, "server", c.file)
		s := load(t, newCore(t, loaded{p, noID, exeBase, c.dump}), Options{})
		if m := s.All()[0]; m.Status != c.status || m.Verified || !strings.Contains(m.Reason, c.reason) {
			t.Errorf("%s: %s, %q, %v", c.name, m.Status, m.Reason, m.Looked)
		}
	}
	// Under a sysroot, a file of this machine is no substitute without proof.
	p := put(t, dir, "server", noID)
	s := load(t, newCore(t, loaded{p, noID, exeBase, 0}), Options{Sysroot: t.TempDir()})
	if m := s.All()[0]; m.Status != Missing {
		t.Errorf("outside the sysroot: %+v", m)
	}
}

// TestLayout alters how the core says that the file was mapped.
func TestLayout(t *testing.T) {
	bin := image(nil, "f", 0x100)
	p := put(t, t.TempDir(), "server", bin)
	for _, c := range []struct {
		name   string
		alter  func(*coretest.Core)
		status Status
		reason string
	}{
		{"as it is", func(*coretest.Core) {}, Found, "layout agrees"},
		{"other offset", func(c *coretest.Core) { c.Files[1].Off += 0x1000 }, Mismatch, "the mapping has 0x4000"},
		{"text not executable", func(c *coretest.Core) { c.Segments[0].Perm = "r--"; c.Segments[1].Perm = "r-x" }, Mismatch, "code: true"},
		{"data of another file", func(c *coretest.Core) { c.Files[1].Path = "/usr/lib/other" }, Mismatch, "another file"},
		{"data not mapped", func(c *coretest.Core) { c.Files, c.Segments = c.Files[:1], c.Segments[:1] }, Mismatch, "isn't mapped"},
	} {
		core := &coretest.Core{
			Threads:  []coretest.Thread{{LWP: 1}},
			Files:    []coretest.File{{Start: exeBase, End: exeBase + 0x3000, Path: p}, {Start: exeBase + 0x3000, End: exeBase + 0x4000, Off: 0x3000, Path: p}},
			Segments: []coretest.Segment{{Addr: exeBase, Perm: "r-x", Size: 0x3000}, {Addr: exeBase + 0x3000, Perm: "rw-", Size: 0x1000}},
		}
		c.alter(core)
		s := load(t, process(t, core), Options{})
		if m := s.At(exeBase); m == nil || m.Status != c.status || !strings.Contains(m.Reason, c.reason) {
			t.Errorf("%s: %+v", c.name, m)
		}
	}
}

func TestAt(t *testing.T) {
	bin := image(exeID, "f", 0x100)
	s := load(t, newCore(t, loaded{"/nonexistent/a", bin, exeBase, 0x1000}, loaded{"/nonexistent/b", image(libID, "g", 0x100), libBase, 0x1000}), Options{})
	for _, c := range []struct {
		pc   target.Addr
		name string
	}{
		{exeBase - 1, ""}, {exeBase, "/nonexistent/a"}, {exeBase + 0x2fff, "/nonexistent/a"}, {exeBase + 0x8000, ""},
		{libBase, "/nonexistent/b"}, {libBase + 0x2000, "/nonexistent/b"}, {0, ""}, {^target.Addr(0), ""},
	} {
		m := s.At(c.pc)
		if (m == nil) != (c.name == "") || (m != nil && m.Name() != c.name) {
			t.Errorf("At(%s) = %+v, want %q", c.pc, m, c.name)
		}
	}
}

func TestVDSO(t *testing.T) {
	s := load(t, process(t, coretest.Sample(2)), Options{})
	m := s.At(coretest.SampleVDSO)
	if m == nil || m.Status != VDSO || m.ELF() == nil || m.Bias != coretest.SampleVDSO || !m.HasBias {
		t.Fatalf("%+v", m)
	}
	if name, _ := m.ELF().Soname(); name != "linux-vdso.so.1" {
		t.Errorf("soname %q", name)
	}
	if m := s.Main(); m == nil || m.Image.Path != "/usr/sbin/mysqld" {
		t.Errorf("main %+v", m)
	}
}

func TestSameAnswerEveryTime(t *testing.T) {
	dir := t.TempDir()
	bin, lib := image(exeID, "f", 0x100), image(libID, "g", 0x100)
	p := put(t, dir, "server", bin)
	core := newCore(t, loaded{p, bin, exeBase, 0x1000}, loaded{"/nonexistent/lib.so", lib, libBase, 0x1000})
	text := func() string {
		s := load(t, core, Options{CoreDir: dir})
		out := fmt.Sprint(s.Warnings())
		for _, m := range s.All() {
			out += fmt.Sprint(m.Image.Base, m.Status, m.Path, m.Looked)
		}
		return out
	}
	first := text()
	for range 5 {
		if again := text(); again != first {
			t.Fatalf("first %s\nthen %s", first, again)
		}
	}
}

func TestConcurrentReaders(t *testing.T) {
	dir := t.TempDir()
	bin := image(exeID, "f", 0x2000)
	p := put(t, dir, "server", bin)
	core := newCore(t, loaded{p, bin, exeBase, 0x1000})
	s := load(t, core, Options{})
	view := core.WithBacking(s.Backing())
	done := make(chan error)
	for range 4 {
		go func() {
			var b [16]byte
			for at := target.Addr(exeBase + coretest.TextOff); at < exeBase+coretest.TextOff+0x1f00; at += 0x101 {
				if _, err := view.ReadMemory(at, b[:]); err != nil {
					done <- err
					return
				}
				m := s.At(at)
				if sym, ok := m.Symbols().At(m.LinkTime(at)); !ok || sym.Name != "f" {
					done <- fmt.Errorf("no symbol at %s", at)
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestPathsThatAreNotOpened(t *testing.T) {
	dir := t.TempDir()
	bin := image(exeID, "f", 0x100)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	toKernel := filepath.Join(dir, "link")
	if err := os.Symlink("/proc/self/status", toKernel); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, looked string }{
		{fifo, "FIFO"}, {dir, "directory"}, {"/dev/null", "of the kernel"}, {"/proc/self/exe", "of the kernel"}, {toKernel, "of the kernel"},
		{"relative/server", "not a usable path"}, {".////server", "not a usable path"}, {"/" + strings.Repeat("x/", 3000), "not a usable path"},
		{filepath.Join(dir, "none"), "not there"},
	} {
		s := load(t, newCore(t, loaded{c.path, bin, exeBase, 0x1000}), Options{})
		m := s.All()[0]
		if m.Status != Missing || !strings.Contains(strings.Join(m.Looked, "\n"), c.looked) {
			t.Errorf("%s: %s, looked %q", c.path, m.Status, m.Looked)
		}
	}
}

// FuzzFile takes anything for the executable's file: it is used or refused, and
// what is used can be asked.
func FuzzFile(f *testing.F) {
	withID, noID := image(exeID, "f", 0x100), image(nil, "f", 0x100)
	f.Add(withID, true)
	f.Add(noID, false)
	f.Add(withLink(nil, "server.debug", nil), false)
	dir := f.TempDir()
	withIDs := newCore(f, loaded{"/nonexistent/server", withID, exeBase, 0x1000})
	layout := newCore(f, loaded{"/nonexistent/server", noID, exeBase, 0})
	f.Fuzz(func(t *testing.T, data []byte, ids bool) {
		core := layout
		if ids {
			core = withIDs
		}
		s := load(t, core, Options{Exe: put(t, dir, "exe", data)})
		m := s.Main()
		if (m.Status == Found) != (m.ELF() != nil) || m.Status == Found && ids && !bytes.Equal(m.BuildID, exeID) {
			t.Errorf("%+v", m)
		}
		m.Symbols().At(coretest.TextOff)
		var b [64]byte
		_, _ = core.WithBacking(s.Backing()).ReadMemory(exeBase+coretest.TextOff, b[:]) // may fail, not crash
		_, _ = s.ReadImage(exeBase+coretest.TextOff, b[:])
		_, _ = m.AltFile()
	})
}

// BenchmarkLoad opens a server's set of files: one executable, 25 libraries.
func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	var images []loaded
	for i := range uint64(26) {
		id := bytes.Repeat([]byte{byte(i + 1)}, 20)
		bin := image(id, "f", 0x1000)
		images = append(images, loaded{put(b, dir, fmt.Sprintf("lib%d.so", i), bin), bin, exeBase + i<<24, 0x1000})
	}
	core := newCore(b, images...)
	b.ReportAllocs()
	for b.Loop() {
		s := Load(core, Options{})
		if s.All()[25].Status != Found {
			b.Fatal("not found")
		}
		s.Close()
	}
}
