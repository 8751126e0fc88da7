package coretest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// run runs an independent reader with a deadline: lldb never ends on some
// cores.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Absent(t, name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func writeSample(t *testing.T, c *Core) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sample.core")
	if _, err := c.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestReadelfAccepts shows that elfutils reads the same threads and mappings
// out of a built core as were put in.
func TestReadelfAccepts(t *testing.T) {
	t.Parallel()
	for _, style := range []Style{Kernel, GDB} {
		t.Run(fmt.Sprint(style), func(t *testing.T) {
			t.Parallel()
			c := Sample(3)
			c.Style = style
			path := writeSample(t, c)
			notes := run(t, "eu-readelf", "-n", path)
			for _, want := range []string{"pid: 4000", "pid: 4001", "pid: 4002", "fname: mysqld", "orig_rax: 202",
				"555555554000-555555557000 00000000 12288", "/usr/sbin/mysqld", "SYSINFO_EHDR: 0x7ffff7fc1000",
				"fs.base:   0x00007ffff7a00f00", "rip:      0x0000555555556002"} {
				if !strings.Contains(notes, want) {
					t.Errorf("eu-readelf -n doesn't show %q:\n%s", want, notes)
				}
			}
			segs := run(t, "eu-readelf", "-l", path)
			if got := len(regexp.MustCompile(`(?m)^  LOAD `).FindAllString(segs, -1)); got != len(c.Segments) {
				t.Errorf("eu-readelf -l shows %d segments, want %d:\n%s", got, len(c.Segments), segs)
			}
		})
	}
}

// TestLLDBAccepts shows that a debugger opens a built core and sees its
// threads.
func TestLLDBAccepts(t *testing.T) {
	t.Parallel()
	path := writeSample(t, Sample(3))
	out := run(t, "lldb", "--no-lldbinit", "--batch", "-c", path, "-o", "thread list", "-o", "memory read -s8 -fx -c1 0x7ffff7a00808")
	for _, want := range []string{"thread #1: tid = 4000", "thread #2: tid = 4001", "thread #3: tid = 4002", "0x0000555555556002", "0x0000555555556808"} {
		if !strings.Contains(out, want) {
			t.Errorf("lldb doesn't show %q:\n%s", want, out)
		}
	}
}

// TestExtendedCountAccepted checks the PN_XNUM form with elfutils.
func TestExtendedCountAccepted(t *testing.T) {
	t.Parallel()
	c := Sample(1)
	c.PadSegments = 70000
	out := run(t, "eu-readelf", "-h", writeSample(t, c))
	want := fmt.Sprintf("65535 (%d in [0].sh_info)", 1+len(c.Segments)+c.PadSegments)
	if !strings.Contains(out, want) {
		t.Errorf("eu-readelf -h doesn't show %q:\n%s", want, out)
	}
}

// TestImageAccepted checks a built ELF file with elfutils.
func TestImageAccepted(t *testing.T) {
	t.Parallel()
	im := SampleImage()
	im.SysVHash = true
	im.Dynamic = append(im.Dynamic, Symbol{Name: "thd_get_thread_id", Value: TextOff + 2, Size: 3})
	im.Symbols = []Symbol{{Name: "local_one", Value: TextOff, Size: 1, Info: 2}}
	im.Sections = []Section{{Name: ".gnu_debuglink", Data: Debuglink("mysqld.debug", 0x12345678)}, {Name: ".debug_str", Data: []byte(strings.Repeat("x", 5000)), Compress: "zlib"}}
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, im.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, "eu-readelf", "-n", "-s", "-S", "-z", path)
	for _, want := range []string{"Build ID: 51aa0102030405060708090a0b0c0d0e0f101112", "thd_get_thread_id", "local_one", ".gnu_debuglink", "ELF ZLIB (1) 00001388"} {
		if !strings.Contains(out, want) {
			t.Errorf("eu-readelf doesn't show %q:\n%s", want, out)
		}
	}
	if lint := run(t, "eu-readelf", "-I", path); !strings.Contains(lint, "bucket list length") {
		t.Errorf("eu-readelf -I finds no hash table:\n%s", lint)
	}
}

// TestMutateRestores checks that damage is repaired, and the same for a seed.
func TestMutateRestores(t *testing.T) {
	t.Parallel()
	b := Sample(2).Bytes()
	orig := string(b)
	one, two := Rand(7), Rand(7)
	changed := 0
	for range 500 {
		what, undo := Mutate(one, b, 64, 4096)
		if string(b) != orig {
			changed++
		}
		if string(b[:64]) != orig[:64] || string(b[4096:]) != orig[4096:] {
			t.Fatalf("%s: damage outside of the range", what)
		}
		undo()
		if string(b) != orig {
			t.Fatalf("%s: not repaired", what)
		}
		if again, undo := Mutate(two, b, 64, 4096); again != what {
			t.Fatalf("%s, the second time %s", what, again)
		} else {
			undo()
		}
	}
	if changed < 250 {
		t.Errorf("only %d of 500 mutations changed anything", changed)
	}
}
