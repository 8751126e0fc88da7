package cfi

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mycore/internal/target"
)

// elfImage is a Reader over the PT_LOADs of a binary, by the standard
// library's ELF reader: independent of internal/elfimage.
type elfImage struct{ f *elf.File }

func (m elfImage) ReadVaddr(a uint64, p []byte) (int, error) {
	for _, ph := range m.f.Progs {
		if ph.Type == elf.PT_LOAD && a >= ph.Vaddr && a-ph.Vaddr < ph.Filesz {
			return ph.ReadAt(p, int64(a-ph.Vaddr))
		}
	}
	return 0, fmt.Errorf("%#x isn't in the image", a)
}

// openReal gives the two ways to look into a binary's table.
func openReal(t testing.TB, path string) (hdr, walk *Table) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Skipf("no %s to compare: %v", path, err)
	}
	t.Cleanup(func() { f.Close() })
	for _, ph := range f.Progs {
		if ph.Type == elf.PT_GNU_EH_FRAME {
			if hdr, err = New(elfImage{f}, ph.Vaddr, ph.Memsz, target.AMD64); err != nil {
				t.Fatal(err)
			}
		}
	}
	sec := f.Section(".eh_frame")
	if hdr == nil || sec == nil || f.Machine != elf.EM_X86_64 {
		t.Skipf("%s isn't an x86-64 image with .eh_frame_hdr", path)
	}
	if walk, err = NewFromSection(elfImage{f}, sec.Addr, sec.Size, target.AMD64); err != nil {
		t.Fatal(err)
	}
	return hdr, walk
}

// realImages are what this machine has: the server if it is installed, and
// libc with its hand-written entries (__restore_rt, clone, the PLT).
func realImages() []string {
	out := []string{"/usr/sbin/mariadbd"}
	for _, g := range []string{"/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib64/libc.so.6", "/usr/lib/libc.so.6"} {
		if _, err := os.Stat(g); err == nil {
			return append(out, g)
		}
	}
	return out
}

// readelfNames are the columns of readelf's tables, by DWARF number.
var readelfNames = map[string]int{
	"rax": 0, "rdx": 1, "rcx": 2, "rbx": 3, "rsi": 4, "rdi": 5, "rbp": 6, "rsp": 7,
	"r8": 8, "r9": 9, "r10": 10, "r11": 11, "r12": 12, "r13": 13, "r14": 14, "r15": 15, "ra": 16,
}

// describe writes a rule as readelf does; "u" stands for both undefined and
// unspecified there.
func describe(r Rule) string {
	switch r.Kind {
	case RuleUndefined, RuleUnspecified:
		return "u"
	case RuleSameValue:
		return "s"
	case RuleOffset:
		return fmt.Sprintf("c%+d", r.Offset)
	case RuleValOffset:
		return fmt.Sprintf("v%+d", r.Offset)
	case RuleExpr:
		return "exp"
	case RuleValExpr:
		return "vexp"
	case RuleRegister:
		return readelfName(r.Reg)
	}
	return r.Kind.String()
}

func readelfName(reg uint8) string {
	for name, n := range readelfNames {
		if n == int(reg) {
			return name
		}
	}
	return "?"
}

func describeCFA(r Rule) string {
	if r.Kind == RuleValExpr {
		return "exp"
	}
	return fmt.Sprintf("%s%+d", readelfName(r.Reg), r.Offset)
}

// readelfFDE is one entry as readelf prints it.
type readelfFDE struct {
	start, end uint64
	cols       []string
	rows       [][]string // LOC, CFA, columns
}

// readelf runs the tool and gives its entries to visit.
func readelf(t *testing.T, path string, visit func(readelfFDE)) {
	t.Helper()
	tool, err := exec.LookPath("readelf")
	if err != nil {
		t.Skip("readelf isn't installed: nothing to compare with")
	}
	cmd := exec.CommandContext(t.Context(), tool, "--debug-dump=frames-interp", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var cur readelfFDE
	sc := bufio.NewScanner(out)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		w := strings.Fields(sc.Text())
		switch {
		case len(w) > 3 && (w[3] == "FDE" || w[3] == "CIE"):
			if cur.end != 0 {
				visit(cur)
			}
			cur = readelfFDE{}
			if w[3] == "FDE" {
				lo, hi, _ := strings.Cut(strings.TrimPrefix(w[len(w)-1], "pc="), "..")
				cur.start, _ = strconv.ParseUint(lo, 16, 64)
				cur.end, _ = strconv.ParseUint(hi, 16, 64)
			}
		case len(w) > 1 && w[0] == "LOC":
			cur.cols = w[2:]
		case len(w) > 1 && len(w[0]) == 16 && cur.end != 0:
			// a register is printed as "r9 (r9)"
			w = slices.DeleteFunc(w, func(s string) bool { return strings.HasPrefix(s, "(") })
			cur.rows = append(cur.rows, w)
		}
	}
	if cur.end != 0 {
		visit(cur)
	}
	// It exits with 1 after any warning, a missing debug file for example; the
	// caller counts what it got.
	if err := cmd.Wait(); err != nil {
		t.Logf("%s: %v", cmd, err)
	}
}

// TestAgainstReadelf holds every row of every entry of a binary against
// readelf's interpretation, at the first and the last byte of its stretch.
func TestAgainstReadelf(t *testing.T) {
	t.Parallel()
	for _, path := range realImages() {
		t.Run(filepath.Base(path), func(t *testing.T) {
			hdr, walk := openReal(t, path)
			entries, rows := 0, 0
			readelf(t, path, func(w readelfFDE) {
				if w.start == w.end {
					return
				}
				entries++
				rows += compareFDE(t, hdr, walk, w)
				if t.Failed() {
					t.FailNow()
				}
			})
			if entries < 1000 || rows < 5000 {
				t.Errorf("only %d entries and %d rows compared", entries, rows)
			}
			t.Logf("%d entries, %d rows agree", entries, rows)
		})
	}
}

func compareFDE(t *testing.T, hdr, walk *Table, w readelfFDE) (rows int) {
	t.Helper()
	f, err := hdr.Find(w.start)
	if err != nil || f.Start != w.start || f.End != w.end {
		t.Errorf("Find(%#x) = %+v, %v; readelf has %#x..%#x", w.start, f, err, w.start, w.end)
		return 0
	}
	if g, err := walk.Find(w.end - 1); err != nil || g.Start != w.start || g.Addr() != f.Addr() {
		t.Errorf("by the walk: Find(%#x) = %+v, %v", w.end-1, g, err)
		return 0
	}
	for i, row := range w.rows {
		loc, err := strconv.ParseUint(row[0], 16, 64)
		if err != nil {
			t.Errorf("readelf's location %q: %v", row[0], err)
			return rows
		}
		last := w.end - 1
		if i+1 < len(w.rows) {
			next, _ := strconv.ParseUint(w.rows[i+1][0], 16, 64)
			if next == loc {
				continue // a later row replaces this one at once
			}
			last = next - 1
		}
		for _, pc := range []uint64{loc, last} {
			compareRow(t, f, pc, w.cols, row)
		}
		rows++
	}
	return rows
}

func compareRow(t *testing.T, f *FDE, pc uint64, cols, want []string) {
	t.Helper()
	r, err := f.Row(pc)
	if err != nil {
		t.Errorf("row at %#x: %v", pc, err)
		return
	}
	if got := describeCFA(r.CFA); got != want[1] {
		t.Errorf("CFA at %#x is %s, readelf says %s", pc, got, want[1])
	}
	for i, col := range cols {
		n, ok := readelfNames[col]
		if !ok || i+2 >= len(want) {
			continue
		}
		rule := r.Reg(n)
		if rule.Kind == RuleRegister && want[i+2] == fmt.Sprintf("r%d", rule.Reg) {
			continue // readelf names the registers by number in this column
		}
		if got := describe(rule); got != want[i+2] {
			t.Errorf("%s at %#x is %s, readelf says %s", col, pc, got, want[i+2])
		}
	}
}

// TestSignalTrampoline finds the one entry of libc that restores a signal's
// context, whose CFA is an expression, and the functions where stacks end.
func TestSignalTrampoline(t *testing.T) {
	t.Parallel()
	images := realImages()
	if len(images) < 2 {
		t.Skip("no libc at a path known here")
	}
	hdr, walk := openReal(t, images[1])
	if _, err := walk.Find(0); !errors.Is(err, ErrNoFDE) {
		t.Fatal(err)
	}
	signal := 0
	for _, x := range walk.index {
		f, err := hdr.Find(x.start)
		if err != nil || !f.SignalFrame {
			continue
		}
		signal++
		r, err := f.Row(f.Start + 1)
		if err != nil {
			t.Fatal(err)
		}
		if r.CFA.Kind != RuleValExpr || !r.SignalFrame {
			t.Errorf("CFA of the trampoline is %v", r.CFA.Kind)
		}
		for n := range 17 {
			if k := r.Reg(n).Kind; k != RuleExpr {
				t.Errorf("register %d of the trampoline: %v", n, k)
			}
		}
	}
	if signal != 1 {
		t.Errorf("%d signal frames in libc, want 1", signal)
	}
}

func BenchmarkFind(b *testing.B) {
	hdr, walk := openReal(b, realImages()[0])
	if _, err := walk.Find(0); !errors.Is(err, ErrNoFDE) {
		b.Fatal(err)
	}
	pcs := make([]uint64, 0, 512)
	for i := 0; i < len(walk.index) && len(pcs) < 512; i += len(walk.index)/512 + 1 {
		pcs = append(pcs, walk.index[i].end-1)
	}
	b.Run("find", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if _, err := hdr.Find(pcs[i%len(pcs)]); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
	b.Run("find and row", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			f, err := hdr.Find(pcs[i%len(pcs)])
			if err != nil {
				b.Fatal(err)
			}
			if _, err := f.Row(pcs[i%len(pcs)]); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
	b.Run("first find", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if i%len(pcs) == 0 {
				for j := range hdr.fdes {
					clear(hdr.fdes[j].m)
				}
			}
			if _, err := hdr.Find(pcs[i%len(pcs)]); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
	b.Run("walk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ix, err := walk.walk(); err != nil || len(ix) < 1000 {
				b.Fatal(len(ix), err)
			}
		}
	})
}
