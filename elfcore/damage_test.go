package elfcore_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/target"
)

// use calls everything that a Process offers and checks what must hold for any
// input. It returns an error in words.
func use(p *elfcore.Process) error {
	var last target.Addr
	for i := range p.Mappings() {
		m := &p.Mappings()[i]
		if m.Start < last || m.End <= m.Start || m.Present > m.Dumped || m.Dumped > m.Size() {
			return fmt.Errorf("mapping %d: %+v after %s", i, m, last)
		}
		last = m.End
		if i%16 == 0 {
			var b [64]byte
			n, err := p.ReadMemory(m.End-8, b[:])
			if (n == len(b)) != (err == nil) {
				return fmt.Errorf("read at %s: %d bytes, %v", m.End-8, n, err)
			}
		}
	}
	for _, th := range p.Threads() {
		if p.Thread(th.LWP) == nil {
			return fmt.Errorf("thread %d can't be looked up", th.LWP)
		}
	}
	for _, im := range p.Images() {
		if im.End <= im.Base {
			return fmt.Errorf("image %+v", im)
		}
	}
	missing, total := p.Truncated()
	if missing < 0 || missing > total {
		return fmt.Errorf("missing %d of %d bytes", missing, total)
	}
	for _, w := range p.Warnings() {
		if w.Code == "" || w.Text == "" || strings.Contains(w.Text, "%!") || strings.Contains(w.Text, "\n") {
			return fmt.Errorf("warning %q", w)
		}
	}
	p.ZeroStacks()
	p.Info()
	p.KernelView()
	return nil
}

// try opens damaged bytes: a Process that holds together, or one line.
func try(b []byte) (*elfcore.Process, error) {
	p, err := elfcore.New(bytes.NewReader(b), int64(len(b)), "damaged.core")
	if err != nil {
		if strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "damaged.core: ") {
			return nil, fmt.Errorf("error message %q", err)
		}
		return nil, nil
	}
	return p, use(p)
}

// damageInputs are built cores of both styles and the real ones that hold
// memory.
func damageInputs(t *testing.T) map[string][]byte {
	t.Helper()
	gdb := coretest.Sample(5)
	gdb.Style = coretest.GDB
	arm := coretest.Sample(3)
	arm.Machine = coretest.ARM64
	fbArm := fbSample()
	fbArm.machine = coretest.ARM64
	in := map[string][]byte{
		"freebsd": fbSample().core().Bytes(), "freebsd arm64": fbArm.core().Bytes(),
		"kernel": coretest.Sample(5).Bytes(), "gdb": gdb.Bytes(), "arm64": arm.Bytes(), "link map": linked().Bytes(),
	}
	dir := filepath.Join(coretest.Module(t), "..", "shared", "cores", "linux")
	for _, name := range []string{"../freebsd/x86-64-freebsd-multithread.core", "../freebsd/aarch64-freebsd-multithread.core", "../freebsd/x86-32-freebsd.core", "llvm/thread_crash-linux-x86_64.core", "llvm/gcore-linux-x86_64.core", "llvm/linux-aarch64-pac.core", "elfutils/test-core.core", "elfutils/testfile_i686_core"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			in[name] = b
		}
	}
	return in
}

// TestTruncations cuts each core at 200 places: in the headers, the notes and
// the memory. What is there is what the whole core has at that place.
func TestTruncations(t *testing.T) {
	t.Parallel()
	for name, b := range damageInputs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := openBytes(t, b)
			r := coretest.Rand(1)
			for i := range 200 {
				size := r.IntN(len(b))
				if i%2 == 0 { // headers and notes are a small part of the file
					size = r.IntN(min(len(b), 16<<10))
				}
				p, err := try(b[:size])
				if err != nil {
					t.Fatalf("cut at %d of %d: %v", size, len(b), err)
				}
				if p == nil {
					if size >= 64 {
						t.Errorf("cut at %d of %d: no result", size, len(b))
					}
					continue
				}
				compareCut(t, whole, p, size)
			}
		})
	}
}

func compareCut(t *testing.T, whole, p *elfcore.Process, size int) {
	t.Helper()
	if len(p.Threads()) > len(whole.Threads()) {
		t.Fatalf("cut at %d: %d threads, the whole core has %d", size, len(p.Threads()), len(whole.Threads()))
	}
	for i, th := range p.Threads() {
		w := whole.Threads()[i]
		a, _ := th.Regs.PC()
		b, _ := w.Regs.PC()
		if th.LWP != w.LWP || a != b {
			t.Errorf("cut at %d: thread %d is %d at %s, want %d at %s", size, i, th.LWP, a, w.LWP, b)
		}
	}
	if len(p.Threads()) < len(whole.Threads()) && !hasCode(p, elfcore.WarnNotesCut) && !hasCode(p, elfcore.WarnHeadersCut) {
		t.Errorf("cut at %d: %d of %d threads without a warning that explains it: %s", size, len(p.Threads()), len(whole.Threads()), codes(p))
	}
	for _, m := range whole.Mappings() {
		if m.Present == 0 {
			continue
		}
		var got, want [1]byte
		at := m.Start + target.Addr(m.Present-1)
		if _, err := p.ReadMemory(at, got[:]); err != nil {
			continue
		}
		if _, err := whole.ReadMemory(at, want[:]); err != nil || got != want {
			t.Errorf("cut at %d: byte at %s is %#x, want %#x (%v)", size, at, got, want, err)
		}
	}
	missing, _ := p.Truncated()
	if (missing > 0) != hasCode(p, elfcore.WarnTruncated) {
		t.Errorf("cut at %d: %d bytes missing, warnings %s", size, missing, codes(p))
	}
}

// TestMutations damages headers and notes in 2,000 ways per core.
func TestMutations(t *testing.T) {
	t.Parallel()
	for name, b := range damageInputs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := append([]byte(nil), b...)
			end := int(binary.LittleEndian.Uint64(b[64+8:]) + binary.LittleEndian.Uint64(b[64+32:])) // of the PT_NOTE
			if b[4] == 1 {
				end = 4096
			}
			r := coretest.Rand(2)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			results, refused := 0, 0
			for i := range 2000 {
				lo, hi := 0, min(end, len(b))
				if i%4 == 0 { // the program headers deserve more than their share of the bytes
					hi = min(hi, 64+56*24)
				}
				what, undo := coretest.Mutate(r, b, lo, hi)
				p, err := try(b)
				if err != nil {
					t.Fatalf("mutation %d (%s): %v", i, what, err)
				}
				if p == nil {
					refused++
				} else {
					results++
				}
				undo()
			}
			runtime.ReadMemStats(&after)
			if results < 1500 {
				t.Errorf("%d results, %d refusals: damage of one spot loses too much", results, refused)
			}
			// On average; a forged count that allocates shows as gigabytes.
			if per := (after.TotalAlloc - before.TotalAlloc) / 2000; per > 64<<20 {
				t.Errorf("%d bytes allocated per run", per)
			}
		})
	}
}

// TestForgedCounts sets single fields to extreme values.
func TestForgedCounts(t *testing.T) {
	t.Parallel()
	b, l := coretest.Sample(2).Build()
	fields := map[string]int64{
		"e_phnum": 56, "e_phoff": 32, "e_shoff": 40, "e_phentsize": 54,
		"note p_offset": 64 + 8, "note p_filesz": 64 + 32, "note p_align": 64 + 48,
		"load p_offset": 120 + 8, "load p_vaddr": 120 + 16, "load p_filesz": 120 + 32, "load p_memsz": 120 + 40,
		"namesz": l.NoteOffs[0], "descsz": l.NoteOffs[0] + 4,
	}
	for i, o := range l.NoteOffs {
		if typ := binary.LittleEndian.Uint32(b[o+8:]); typ == coretest.NTFile {
			fields["NT_FILE count"], fields["NT_FILE page"] = l.NoteOffs[i]+20, l.NoteOffs[i]+28
			fields["NT_FILE start"], fields["NT_FILE pgoff"] = l.NoteOffs[i]+36, l.NoteOffs[i]+52
		}
	}
	for name, off := range fields {
		for _, v := range []uint64{0, 1, 0xffff, 1 << 31, 1<<32 - 1, 1 << 62, 1 << 63, ^uint64(0), ^uint64(0) - 4096} {
			c := append([]byte(nil), b...)
			binary.LittleEndian.PutUint64(c[off:], v)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := try(c); err != nil {
				t.Errorf("%s = %#x: %v", name, v, err)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 400<<20 {
				t.Errorf("%s = %#x: %d bytes allocated", name, v, n)
			}
		}
	}
}

// TestDamagedFileNote: what precedes the damage counts, and what it lacks is
// looked up in memory.
func TestDamagedFileNote(t *testing.T) {
	t.Parallel()
	c := linked()
	note := coretest.FileNote([]coretest.File{{Start: coretest.SampleBase, End: coretest.SampleBase + 0x3000, Path: "/usr/sbin/mysqld"}, {Start: coretest.SampleData, End: coretest.SampleData + 0x1000, Off: 0x3000, Path: "/usr/sbin/mysqld"}})
	c.Notes = []coretest.Note{{Owner: "CORE", Type: coretest.NTFile, Desc: note[:len(note)-4]}}
	p := open(t, c)
	if !hasCode(p, elfcore.WarnNoFileNote) {
		t.Errorf("warnings: %s", codes(p))
	}
	var got []string
	for _, im := range p.Images() {
		got = append(got, im.Path+" "+im.Source)
	}
	if s := strings.Join(got, ", "); s != "/usr/sbin/mysqld NT_FILE, /lib/libm.so.6 link map, [vdso] auxiliary vector" {
		t.Errorf("images: %s", s)
	}
	if im := p.ImageAt(coretest.SampleData + 8); im == nil || !im.Main {
		t.Errorf("the executable's data belongs to %+v", im)
	}
}

func FuzzOpen(f *testing.F) {
	for _, c := range []*coretest.Core{coretest.Sample(2), linked(), {Style: coretest.GDB, Threads: []coretest.Thread{{LWP: 1}}}, {Machine: coretest.ARM64, Threads: []coretest.Thread{{LWP: 1}}}} {
		b := c.Bytes()
		f.Add(b[:min(len(b), 12<<10)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := try(b); err != nil {
			t.Fatal(err)
		}
	})
}
