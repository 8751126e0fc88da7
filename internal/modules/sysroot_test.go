package modules

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mycore/internal/coretest"
)

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

func TestSysrootLinks(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	bin := image(exeID, "f", 0x100)
	put(t, outside, "server", bin)
	put(t, root, "usr/lib/real.so.1", bin)
	link(t, "usr/lib", filepath.Join(root, "lib"))
	link(t, "/usr/lib/real.so.1", filepath.Join(root, "absolute.so"))
	link(t, "/usr/lib/real.so.1", filepath.Join(root, "opt/lib/deep.so"))
	link(t, "absolute.so", filepath.Join(root, "chain.so"))
	link(t, "../../../../usr/lib/real.so.1", filepath.Join(root, "usr/lib/up.so"))
	link(t, filepath.Join(outside, "server"), filepath.Join(root, "escape-absolute"))
	link(t, "../"+filepath.Base(outside)+"/server", filepath.Join(root, "escape-relative"))
	link(t, "loop-b", filepath.Join(root, "loop-a"))
	link(t, "loop-a", filepath.Join(root, "loop-b"))
	link(t, "/proc/self/status", filepath.Join(root, "kernel"))
	put(t, root, "proc/server", bin)
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ recorded, want, looked string }{
		{"/usr/lib/real.so.1", "/usr/lib/real.so.1", ""},
		{"/lib/real.so.1", "/lib/real.so.1", ""},
		{"/lib/../usr/./lib//real.so.1", "/usr/lib/real.so.1", ""},
		{"/absolute.so", "/absolute.so", ""},
		{"/opt/lib/deep.so", "/opt/lib/deep.so", ""},
		{"/chain.so", "/chain.so", ""},
		{"/usr/lib/up.so", "/usr/lib/up.so", ""},
		{"/escape-absolute", "", "not there"},
		{"/escape-relative", "", "not there"},
		{"/../../../../../../" + outside + "/server", "", "not there"},
		{"/loop-a", "", "symbolic links"},
		{"/fifo", "", "not a regular file"},
		{"/usr", "", "not a regular file"},
		{"/", "", "not a regular file"},
		{"/kernel", "", ""},
		{"/proc/server", "", "of the kernel"},
		{"/proc/../proc/server", "", "of the kernel"},
	} {
		core := newCore(t, loaded{c.recorded, bin, exeBase, 0x1000})
		s := load(t, core, Options{Sysroot: root})
		m := s.All()[0]
		if strings.HasPrefix(c.recorded, "/.") { // after the sysroot, this machine's file was found by its build ID
			if !strings.HasPrefix(m.Looked[0], root) || !strings.Contains(m.Looked[0], c.looked) {
				t.Errorf("%s: looked %q", c.recorded, m.Looked)
			}
			continue
		}
		if c.want == "" {
			if m.Status != Missing || !strings.Contains(m.Looked[0], c.looked) {
				t.Errorf("%s: %s at %q, looked %q", c.recorded, m.Status, m.Path, m.Looked)
			}
			continue
		}
		if m.Status != Found || m.FoundBy != "sysroot" || m.Path != filepath.Join(root, c.want) {
			t.Errorf("%s: %s by %q at %q, looked %q", c.recorded, m.Status, m.FoundBy, m.Path, m.Looked)
		}
	}
}

// A process in a chroot: seen from inside, its paths lack the root's path; seen
// from outside (gdb attached there) they have it.
func TestChroot(t *testing.T) {
	root := t.TempDir()
	bin := image(exeID, "f", 0x100)
	lib := image(libID, "g", 0x100)
	exe := put(t, root, "usr/sbin/server", bin)
	put(t, root, "usr/lib/x.so", lib)
	for name, prefix := range map[string]string{"inside": "", "outside": root} {
		core := newCore(t, loaded{prefix + "/usr/sbin/server", bin, exeBase, 0x1000}, loaded{prefix + "/usr/lib/x.so", lib, libBase, 0x1000})
		for _, sysroot := range []string{root, root + "/", root + "/usr/.."} {
			s := load(t, core, Options{Sysroot: sysroot})
			for _, m := range s.All() {
				if m.Status != Found || m.FoundBy != "sysroot" {
					t.Errorf("%s, sysroot %q: %s: %s by %q, looked %q", name, sysroot, m.Name(), m.Status, m.FoundBy, m.Looked)
				}
			}
		}
	}
	// --exe alone tells where the libraries lie.
	core := newCore(t, loaded{"/usr/sbin/server", bin, exeBase, 0x1000}, loaded{"/usr/lib/x.so", lib, libBase, 0x1000})
	s := load(t, core, Options{Exe: exe})
	if m := s.At(libBase); m.Status != Found || m.Path != filepath.Join(root, "usr/lib/x.so") {
		t.Errorf("library after --exe: %s at %q, looked %q", m.Status, m.Path, m.Looked)
	}
	// An executable from elsewhere implies nothing.
	s = load(t, core, Options{Exe: put(t, t.TempDir(), "copy", bin)})
	if m := s.At(libBase); m.Status != Missing {
		t.Errorf("library after --exe of a copy: %s at %q", m.Status, m.Path)
	}
}

func TestUnusableSysroot(t *testing.T) {
	dir := t.TempDir()
	bin := image(exeID, "f", 0x100)
	p := put(t, dir, "server", bin)
	core := newCore(t, loaded{p, bin, exeBase, 0x1000})
	for _, root := range []string{filepath.Join(dir, "none"), p} {
		s := load(t, core, Options{Sysroot: root})
		if w := s.Warnings(); len(w) != 1 || w[0].Code != WarnSysroot || !strings.Contains(w[0].Text, root) {
			t.Errorf("sysroot %q: warnings %v", root, w)
		}
		if s.Main().Status != Found {
			t.Errorf("sysroot %q: %+v", root, s.Main())
		}
	}
	if s := load(t, core, Options{Sysroot: "/"}); s.Main().FoundBy != "recorded path" || len(s.Warnings()) != 0 {
		t.Errorf("the machine's own root: %+v, %v", s.Main(), s.Warnings())
	}
}

func TestHostileRecordedPaths(t *testing.T) {
	root := t.TempDir()
	bin := image(exeID, "f", 0x100)
	r := coretest.Rand(3)
	parts := []string{"..", ".", "", "a", "usr", "proc", "\x1b[2J", "\xff", strings.Repeat("n", 300), "x (deleted)"}
	for range 300 {
		p := "/"
		for range 1 + r.IntN(8) {
			p += parts[r.IntN(len(parts))] + "/"
		}
		s := load(t, newCore(t, loaded{p, bin, exeBase, 0x1000}), Options{Sysroot: root})
		for _, m := range s.All() {
			if m.Status == Found {
				t.Errorf("%q: found at %q", p, m.Path)
			}
		}
	}
}
