package modules

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/target"
)

func openReal(t *testing.T, name string) *elfcore.Process {
	t.Helper()
	p, err := elfcore.Open(filepath.Join(coretest.Cores(t), "linux", name), elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func copyOf(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(coretest.Cores(t), "linux", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRealCores puts the executables and libraries of real cores where a
// machine has them: at the recorded path under a sysroot, or as --exe.
func TestRealCores(t *testing.T) {
	for _, c := range []struct {
		core, exe string
		verified  bool
	}{
		{"elfutils/backtrace.x86_64.core.xz", "elfutils/backtrace.x86_64.exec", true},
		{"elfutils/backtrace.aarch64.core.xz", "elfutils/backtrace.aarch64.exec", true},
		{"elfutils/testfile-backtrace-demangle.core", "elfutils/testfile-backtrace-demangle", true},
		{"elfutils/linkmap-cut.core", "elfutils/linkmap-cut", true},
		{"elfutils/test-core.core", "elfutils/test-core.exec", false}, // linked without build ID
	} {
		core := openReal(t, c.core)
		exe := filepath.Join(coretest.Cores(t), "linux", c.exe)
		s := load(t, core, Options{Exe: exe})
		m := s.Main()
		if m == nil || m.Status != Found || m.Verified != c.verified || m.FoundBy != "--exe" {
			t.Errorf("%s: %+v", c.core, m)
			continue
		}
		checkAgainstMemory(t, core, m)
		// The right file is told from another one of the same kind.
		wrong := filepath.Join(coretest.Cores(t), "linux/elfutils/backtrace.x86_64.fp.exec")
		s = load(t, core, Options{Exe: wrong})
		if m := s.Main(); m.Status != Mismatch && m.Status != FromCore { // some of these cores hold their text
			t.Errorf("%s with a wrong file: %s, %q", c.core, m.Status, m.Looked)
		}
		if w := s.Warnings(); len(w) == 0 || w[0].Code != WarnMismatch || !strings.Contains(w[0].Text, wrong) {
			t.Errorf("%s with a wrong file: warnings %v", c.core, w)
		}
	}
}

// checkAgainstMemory compares the file with what the core has of the image's
// first segment: the bias must be right for the bytes to agree.
func checkAgainstMemory(t *testing.T, core *elfcore.Process, m *Module) {
	t.Helper()
	compared := 0
	for _, p := range m.ELF().Progs() {
		if p.Type != 1 || p.Flags&2 != 0 {
			continue
		}
		for in := uint64(0); in+64 <= p.Filesz; in += 64 {
			var want, have [64]byte
			if n, _ := core.ReadMemory(m.Runtime(p.Vaddr+in), want[:]); n < len(want) {
				continue
			}
			if n, err := m.ELF().ReadVaddr(p.Vaddr+in, have[:]); n < len(have) || have != want {
				t.Fatalf("%s: link-time %#x: %v: differs from the core", m.Name(), p.Vaddr+in, err)
			}
			compared++
		}
	}
	if compared == 0 {
		t.Logf("%s: the core has nothing of its text", m.Name())
	}
}

func TestRealLibrary(t *testing.T) {
	core := openReal(t, "elfutils/test-core.core")
	root := t.TempDir()
	var libBase target.Addr
	for _, im := range core.Images() {
		if filepath.Base(im.Path) == "test-core-lib.so" {
			libBase = im.Base
			put(t, root, im.Path, copyOf(t, "elfutils/test-core-lib.so"))
		}
	}
	if libBase == 0 {
		t.Fatalf("no library among %+v", core.Images())
	}
	s := load(t, core, Options{Sysroot: root})
	m := s.At(libBase)
	if m.Status != Found || m.FoundBy != "sysroot" {
		t.Fatalf("%+v", m)
	}
	checkAgainstMemory(t, core, m)
	if sym, ok := m.Symbols().Named("libfunc"); ok {
		if got, ok := m.Symbols().At(sym.Start); !ok || got.Name != "libfunc" {
			t.Errorf("At(%#x) = %+v, %v", sym.Start, got, ok)
		}
	}
}

// TestRealAlteredPath replaces the recorded path of a real core's executable
// by one that is marked as deleted.
func TestRealAlteredPath(t *testing.T) {
	name := "elfutils/testfile-backtrace-demangle"
	path := filepath.Join(coretest.Cores(t), "linux", name+".core")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const recorded, altered = "/usr/local/src/elfutils/tests/testfile-backtrace-demangle\x00", "/usr/local/src/elfutils/testfile-backtrace-dem (deleted)\x00\x00"
	if len(recorded) != len(altered) {
		t.Fatalf("%d and %d bytes", len(recorded), len(altered))
	}
	n := 0
	for i := 0; i+len(recorded) <= len(b); i++ {
		if string(b[i:i+len(recorded)]) == recorded {
			copy(b[i:], altered[:len(altered)-1])
			b[i+len(altered)-1] = 0
			n++
		}
	}
	if n < 3 {
		t.Fatalf("the path occurs %d times", n)
	}
	p := filepath.Join(t.TempDir(), "altered.core")
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	core, err := elfcore.Open(p, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	root := t.TempDir()
	put(t, root, "usr/local/src/elfutils/testfile-backtrace-dem", copyOf(t, name))
	s := load(t, core, Options{Sysroot: root})
	var found bool
	for _, m := range s.All() {
		if m.Name() == "/usr/local/src/elfutils/testfile-backtrace-dem" {
			found = m.Status == Found && m.Verified
			if !found {
				t.Errorf("%+v", m)
			}
		}
	}
	if !found {
		t.Errorf("the altered image isn't found among %d", len(s.All()))
	}
}
