package modules

import (
	"bytes"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mycore/internal/coretest"
	"mycore/internal/elfimage"
	"mycore/internal/symtab"
)

// debugImage is the debug file of an image made by image: the same segments,
// and a .symtab.
func debugImage(id []byte, function string, text int, more ...coretest.Section) []byte {
	return (&coretest.Image{
		BuildID: id, Text: bytes.Repeat([]byte{0x90}, text), Sections: more,
		Symbols: []coretest.Symbol{{Name: function, Value: coretest.TextOff, Size: uint64(text)}},
	}).Bytes()
}

func withLink(id []byte, name string, debug []byte) []byte {
	return (&coretest.Image{BuildID: id, Text: bytes.Repeat([]byte{0x90}, 0x100), GNUHash: true,
		Sections: []coretest.Section{{Name: ".gnu_debuglink", Data: coretest.Debuglink(name, crc32.ChecksumIEEE(debug))}}}).Bytes()
}

func named(t *testing.T, m *Module) string {
	t.Helper()
	s, ok := m.Symbols().At(coretest.TextOff + 5)
	if !ok {
		return ""
	}
	if s.Source != symtab.FromDebugFile {
		t.Errorf("%s: named by %q", m.Name(), s.Source)
	}
	return s.Name
}

func TestDebugFileByBuildID(t *testing.T) {
	dir := t.TempDir()
	bin := image(exeID, "f", 0x100)
	p := put(t, dir, "bin/server", bin)
	core := newCore(t, loaded{p, bin, exeBase, 0x1000})
	debug := put(t, dir, "debug/"+buildIDName(exeID, ".debug"), debugImage(exeID, "static_function", 0x100))
	s := load(t, core, Options{DebugDirs: []string{filepath.Join(dir, "none"), filepath.Join(dir, "debug")}})
	m := s.Main()
	if m.DebugPath != debug || m.DebugFile() == nil || named(t, m) != "static_function" {
		t.Errorf("%+v", m)
	}
	// In the sysroot's own /usr/lib/debug.
	root := t.TempDir()
	put(t, root, p, bin)
	debug = put(t, root, "usr/lib/debug/"+buildIDName(exeID, ".debug"), debugImage(exeID, "in_root", 0x100))
	s = load(t, core, Options{Sysroot: root})
	if m := s.Main(); m.DebugPath != debug || named(t, m) != "in_root" {
		t.Errorf("in the sysroot: %+v", m)
	}
	// Without the binary, the debug file still names functions.
	os.Remove(p)
	s = load(t, core, Options{DebugDirs: []string{filepath.Join(dir, "debug")}})
	m = s.Main()
	if m.Status != Missing || m.ELF() != nil || named(t, m) != "static_function" || m.Bias != exeBase || !m.HasBias {
		t.Errorf("debug file alone: %+v", m)
	}
}

func TestDebuglinkPlaces(t *testing.T) {
	for _, id := range [][]byte{exeID, nil} { // without build IDs the checksum decides
		debug := debugImage(id, "static_function", 0x100)
		bin := withLink(id, "server.debug", debug)
		for _, where := range []string{"beside", ".debug", "debug directory", "core's directory", "sysroot", "sysroot's debug directory"} {
			dir := t.TempDir()
			o := Options{DebugDirs: []string{filepath.Join(dir, "dbg")}, CoreDir: filepath.Join(dir, "cores")}
			p := filepath.Join(dir, "sbin/server")
			at := map[string]string{
				"beside": "sbin/server.debug", ".debug": "sbin/.debug/server.debug",
				"debug directory":  "dbg" + filepath.Join(dir, "sbin/server.debug"),
				"core's directory": "cores/server.debug",
				"sysroot":          "root/sbin/server.debug", "sysroot's debug directory": "root/usr/lib/debug/sbin/server.debug",
			}[where]
			if strings.HasPrefix(where, "sysroot") {
				o.Sysroot = filepath.Join(dir, "root")
				p = "/sbin/server"
				put(t, dir, "root/sbin/server", bin)
			} else {
				put(t, dir, "sbin/server", bin)
			}
			at = put(t, dir, at, debug)
			s := load(t, newCore(t, loaded{p, bin, exeBase, 0x1000}), o)
			m := s.Main()
			if m.Status != Found || m.DebugPath != at || named(t, m) != "static_function" {
				t.Errorf("%s, build ID %x: %s, debug file %q, looked %q", where, id, m.Status, m.DebugPath, m.Looked)
			}
			if len(s.Warnings()) != 0 {
				t.Errorf("%s: %v", where, s.Warnings())
			}
		}
	}
}

func TestWrongDebugFile(t *testing.T) {
	right := debugImage(nil, "static_function", 0x100)
	for _, c := range []struct {
		name string
		id   []byte
		file []byte
		want string
	}{
		{"other build ID", exeID, debugImage(libID, "other", 0x100), "1b1b1b1b"},
		{"other checksum", nil, append(bytes.Clone(right), 0), "checksum"},
	} {
		dir := t.TempDir()
		bin := withLink(c.id, "server.debug", right)
		p := put(t, dir, "server", bin)
		put(t, dir, "server.debug", c.file)
		s := load(t, newCore(t, loaded{p, bin, exeBase, 0x1000}), Options{})
		m := s.Main()
		if m.DebugPath != "" || m.DebugFile() != nil || named(t, m) != "" {
			t.Errorf("%s: %q is used", c.name, m.DebugPath)
		}
		if w := s.Warnings(); len(w) != 1 || w[0].Code != WarnDebugMismatch || !strings.Contains(w[0].Text, c.want) {
			t.Errorf("%s: warnings %v", c.name, w)
		}
	}
}

func TestDebuglinkIsABareName(t *testing.T) {
	for _, name := range []string{"../server.debug", "/etc/passwd", "..", ".", "", "a/b"} {
		dir := t.TempDir()
		debug := debugImage(exeID, "f", 0x100)
		bin := withLink(exeID, name, debug)
		p := put(t, dir, "sbin/server", bin)
		put(t, dir, "server.debug", debug)
		s := load(t, newCore(t, loaded{p, bin, exeBase, 0x1000}), Options{})
		for _, l := range s.Main().Looked {
			if name != "" && strings.Contains(l, filepath.Join(dir, "sbin", name)+":") {
				t.Errorf("link %q: looked at %q", name, l)
			}
		}
		if s.Main().DebugPath != "" {
			t.Errorf("link %q: %q is used", name, s.Main().DebugPath)
		}
	}
}

func TestAltFile(t *testing.T) {
	altID := bytes.Repeat([]byte{0xa1}, 20)
	alt := (&coretest.Image{BuildID: altID, Text: []byte{0x90}}).Bytes()
	section := func(name string) coretest.Section {
		return coretest.Section{Name: ".gnu_debugaltlink", Data: append(append([]byte(name), 0), altID...)}
	}
	for _, where := range []string{"relative", "absolute", "build ID", "wrong", "absent"} {
		dir := t.TempDir()
		bin := image(exeID, "f", 0x100)
		p := put(t, dir, "server", bin)
		name := "../../.dwz/server"
		if where == "absolute" {
			name = filepath.Join(dir, "dwz/server")
		}
		put(t, dir, "debug/"+buildIDName(exeID, ".debug"), debugImage(exeID, "f", 0x100, section(name)))
		want := ""
		switch where {
		case "relative":
			want = put(t, dir, "debug/.dwz/server", alt)
		case "absolute":
			want = put(t, dir, "dwz/server", alt)
		case "build ID":
			want = put(t, dir, "debug/"+buildIDName(altID, ".debug"), alt)
		case "wrong":
			put(t, dir, "debug/.dwz/server", image(libID, "f", 0x100))
		}
		s := load(t, newCore(t, loaded{p, bin, exeBase, 0x1000}), Options{DebugDirs: []string{filepath.Join(dir, "debug")}})
		m := s.Main()
		f, err := m.AltFile()
		if want == "" {
			if err == nil || errors.Is(err, elfimage.ErrNoSection) || !strings.Contains(err.Error(), "a1a1a1a1") {
				t.Errorf("%s: %v, %v", where, f, err)
			}
		} else if err != nil || f.Name() != want {
			t.Errorf("%s: %v, want %q", where, err, want)
		}
		if !strings.Contains(strings.Join(m.Looked, "\n"), ".gnu_debugaltlink") {
			t.Errorf("%s: looked %q", where, m.Looked)
		}
	}
}
