package elfcore_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/elfimage"
	"mycore/internal/target"
	"mycore/internal/unpack"
)

// realCores are the shared cores of Linux with what their README says.
var realCores = []struct {
	file    string
	threads int
	writer  string
	arch    target.Arch
}{
	{"llvm/linux-x86_64.core", 1, elfcore.WriterKernel, target.AMD64},
	{"llvm/linux-aarch64.core", 1, elfcore.WriterKernel, target.ARM64},
	{"llvm/linux-riscv64.core", 1, elfcore.WriterKernel, target.RISCV64},
	{"llvm/x86-64-linux-multithread.core", 4, elfcore.WriterKernel, target.AMD64},
	{"llvm/x86-64-linux.core", 1, elfcore.WriterKernel, target.AMD64},
	{"llvm/thread_crash-linux-x86_64.core", 3, elfcore.WriterKernel, target.AMD64},
	{"llvm/gcore-linux-x86_64.core", 3, elfcore.WriterGDB, target.AMD64},
	{"llvm/linux-aarch64-sve-full.core", 1, elfcore.WriterKernel, target.ARM64},
	{"llvm/linux-aarch64-pac.core", 1, elfcore.WriterKernel, target.ARM64},
	{"llvm/altmain.core", 1, elfcore.WriterKernel, target.AMD64},
	{"elfutils/backtrace.x86_64.core.xz", 2, elfcore.WriterKernel, target.AMD64},
	{"elfutils/backtrace.x86_64.fp.core.xz", 2, elfcore.WriterKernel, target.AMD64},
	{"elfutils/backtrace.i386.core.xz", 2, elfcore.WriterKernel, target.I386},
	{"elfutils/backtrace.aarch64.core.xz", 2, elfcore.WriterKernel, target.ARM64},
	{"elfutils/backtrace.aarch64.fp.core.xz", 2, elfcore.WriterKernel, target.ARM64},
	{"elfutils/test-core.core", 1, elfcore.WriterKernel, target.AMD64},
	{"elfutils/linkmap-cut.core", 1, elfcore.WriterKernel, target.AMD64},
	{"elfutils/testfile-backtrace-demangle.core", 1, elfcore.WriterKernel, target.AMD64},
	{"elfutils/testfile_aarch64_core.xz", 1, elfcore.WriterKernel, target.ARM64},
	{"elfutils/testfile_i686_core", 1, elfcore.WriterKernel, target.I386},
	{"elfutils/testfile-riscv64-core", 1, elfcore.WriterKernel, target.RISCV64},
}

// plain returns the path of the core without compression, for tools that want
// that.
func plain(t *testing.T, path string) string {
	t.Helper()
	u, err := unpack.Open(t.Context(), path, unpack.Options{TempDir: t.TempDir()})
	if errors.Is(err, unpack.ErrNotCompressed) {
		return path
	}
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "plain.core"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(u, 0, u.Size())); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

func TestRealCores(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(coretest.Cores(t), "linux")
	for _, c := range realCores {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(dir, c.file)
			p, err := elfcore.Open(path, elfcore.Options{TempDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if info := p.Info(); len(p.Threads()) != c.threads || info.Writer != c.writer || info.Arch != c.arch || info.OS != "linux" {
				t.Errorf("%d threads, writer %q (%s), %s", len(p.Threads()), info.Writer, info.WriterReason, info.Arch)
			}
			if err := use(p); err != nil {
				t.Error(err)
			}
			compareReadelf(t, p, plain(t, path))
		})
	}
}

func readelf(t *testing.T, args ...string) string {
	t.Helper()
	tool, err := exec.LookPath("eu-readelf")
	if err != nil {
		coretest.Absent(t, "eu-readelf")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("eu-readelf %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

var (
	reStatus  = regexp.MustCompile(`(?m)^  CORE +\d+  PRSTATUS\n`)
	rePID     = regexp.MustCompile(`\bpid: (\d+), ppid`)
	reFile    = regexp.MustCompile(`(?m)^ +([0-9a-f]+)-([0-9a-f]+) ([0-9a-f]+) \d+ +(.*)$`)
	reLoad    = regexp.MustCompile(`(?m)^  LOAD +0x([0-9a-f]+) 0x([0-9a-f]+) 0x[0-9a-f]+ 0x([0-9a-f]+) 0x([0-9a-f]+)`)
	reBuildID = regexp.MustCompile(`Build ID: ([0-9a-f]+)`)
)

func hexOf(t *testing.T, s string) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// field finds a register in eu-readelf's list, hex or decimal.
func field(text, name string) (uint64, bool) {
	m := regexp.MustCompile(`(?m)(?:^|\s)` + regexp.QuoteMeta(name) + `: +(-?[0-9a-fx]+)`).FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	if v, err := strconv.ParseUint(m[1], 0, 64); err == nil {
		return v, true
	}
	v, err := strconv.ParseInt(m[1], 0, 64)
	return uint64(v), err == nil
}

// compareReadelf compares threads, registers, masks, files and segments with
// what elfutils prints of the same file.
func compareReadelf(t *testing.T, p *elfcore.Process, path string) {
	t.Helper()
	notes := readelf(t, "-n", path)
	at := reStatus.FindAllStringIndex(notes, -1)
	if len(at) != len(p.Threads()) {
		t.Fatalf("%d threads, eu-readelf has %d", len(p.Threads()), len(at))
	}
	names := map[target.Arch]map[string]int{
		target.AMD64: {"rip": target.RIP, "rsp": target.RSP, "rax": target.RAX, "rbx": target.RBX, "rbp": target.RBP, "rdi": target.RDI, "rsi": target.RSI, "rdx": target.RDX, "rcx": target.RCX, "r8": target.R8, "r9": target.R9, "r10": target.R10, "r11": target.R11, "r12": target.R12, "r13": target.R13, "r14": target.R14, "r15": target.R15},
		target.ARM64: {"x0": 0, "x8": 8, "x19": 19, "x29": 29, "x30": 30, "sp": target.A64SP, "pc": target.A64PC},
	}
	for i, th := range p.Threads() {
		end := len(notes)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		text := notes[at[i][1]:end]
		if m := regexp.MustCompile(`(?m)^  (CORE|LINUX) `).FindStringIndex(text); m != nil {
			text = text[:m[0]]
		}
		if m := rePID.FindStringSubmatch(text); m == nil || m[1] != strconv.Itoa(th.LWP) {
			t.Errorf("thread %d: LWP %d, eu-readelf %q", i, th.LWP, m)
		}
		for name, reg := range names[p.Info().Arch] {
			want, ok := field(text, name)
			got, known := th.Regs.Get(reg)
			if !ok || !known || got != want {
				t.Errorf("LWP %d: %s = %#x (%v), eu-readelf %#x (%v)", th.LWP, name, got, known, want, ok)
			}
		}
		if p.Info().Arch == target.AMD64 {
			if want, _ := field(text, "fs.base"); uint64(th.ThreadPointer.V) != want || th.ThreadPointer.Known != (want != 0) {
				t.Errorf("LWP %d: thread pointer %+v, eu-readelf %#x", th.LWP, th.ThreadPointer, want)
			}
			if want, _ := field(text, "orig_rax"); int64(want) >= 0 != th.OrigSyscall.Known || th.OrigSyscall.Known && uint64(th.OrigSyscall.V) != want {
				t.Errorf("LWP %d: call %+v, eu-readelf %d", th.LWP, th.OrigSyscall, int64(want))
			}
		}
	}
	compareFiles(t, p, notes)
	compareLoads(t, p, readelf(t, "-l", path))
}

func compareFiles(t *testing.T, p *elfcore.Process, notes string) {
	t.Helper()
	files := reFile.FindAllStringSubmatch(notes, -1)
	named := 0
	for _, m := range p.Mappings() {
		if m.Path != "" {
			named++
		}
	}
	if named != len(files) {
		t.Errorf("%d mappings of files, eu-readelf has %d", named, len(files))
	}
	for _, f := range files {
		start := target.Addr(hexOf(t, f[1]))
		m := p.Mapping(start)
		if m == nil || m.Start != start || uint64(m.End) != hexOf(t, f[2]) || m.FileOff != hexOf(t, f[3]) || m.Path != f[4] {
			t.Errorf("mapping %+v, eu-readelf has %s", m, f[0])
		}
	}
}

func compareLoads(t *testing.T, p *elfcore.Process, text string) {
	t.Helper()
	loads := reLoad.FindAllStringSubmatch(text, -1)
	if len(loads) == 0 {
		t.Errorf("eu-readelf -l shows no segment:\n%s", text)
	}
	for _, l := range loads {
		start, size := target.Addr(hexOf(t, l[2])), hexOf(t, l[4])
		m := p.Mapping(start)
		if size == 0 {
			continue
		}
		if m == nil || m.Start != start || m.Size() != size || m.Dumped != hexOf(t, l[3]) {
			t.Errorf("mapping %+v, eu-readelf has %s", m, l[0])
		}
	}
}

// TestRealBuildIDs compares build IDs read from the memory in a core with the
// ones in the files beside it.
func TestRealBuildIDs(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(coretest.Cores(t), "linux")
	for core, exe := range map[string]string{
		"elfutils/backtrace.x86_64.core.xz":  "elfutils/backtrace.x86_64.exec",
		"elfutils/backtrace.aarch64.core.xz": "elfutils/backtrace.aarch64.exec",
		"elfutils/linkmap-cut.core":          "elfutils/linkmap-cut",
	} {
		p, err := elfcore.Open(filepath.Join(dir, core), elfcore.Options{TempDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		m := reBuildID.FindStringSubmatch(readelf(t, "-n", filepath.Join(dir, exe)))
		if m == nil {
			t.Fatalf("%s has no build ID", exe)
		}
		found := false
		for _, im := range p.Images() {
			if im.Main {
				found = true
				if got := fmt.Sprintf("%x", im.BuildID); got != m[1] {
					t.Errorf("%s: build ID %s, the file has %s", core, got, m[1])
				}
			}
		}
		if !found {
			t.Errorf("%s: no main image", core)
		}
	}
}

// TestWithoutFileNote takes NT_FILE out of real cores: the loader's list in
// memory gives the same images, and where that list is cut as well (its entries
// are missing in linkmap-cut.core), the headers in memory give them without
// their paths.
func TestWithoutFileNote(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(coretest.Cores(t), "linux")
	for _, name := range []string{"elfutils/testfile-backtrace-demangle.core", "elfutils/linkmap-cut.core"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		whole := openBytes(t, b)
		p := openBytes(t, withoutFileNote(t, b))
		if !hasCode(p, elfcore.WarnNoFileNote) {
			t.Errorf("%s: warnings %s", name, codes(p))
		}
		want := map[target.Addr]elfcore.Image{}
		for _, im := range whole.Images() {
			want[im.Base] = im
		}
		for _, im := range p.Images() {
			w, ok := want[im.Base]
			if !ok || !bytes.Equal(w.BuildID, im.BuildID) || w.Main != im.Main || (im.Path == "") != (im.Source == elfcore.FromHeaders) {
				t.Errorf("%s: image %+v, with NT_FILE %+v", name, im, w)
			}
			if !im.VDSO && im.Source != elfcore.FromLinkMap && name != "elfutils/linkmap-cut.core" {
				t.Errorf("%s: %s was found by %s", name, im.Path, im.Source)
			}
			delete(want, im.Base)
		}
		if len(want) > 0 {
			t.Errorf("%s: images that weren't found: %+v", name, want)
		}
	}
}

// withoutFileNote gives the NT_FILE note another type.
func withoutFileNote(t *testing.T, b []byte) []byte {
	t.Helper()
	f, err := elfimage.New(bytes.NewReader(b), int64(len(b)), "core")
	if err != nil {
		t.Fatal(err)
	}
	out := append([]byte(nil), b...)
	err = f.Notes(func(n elfimage.Note) error {
		if n.Name == "CORE" && n.Type == coretest.NTFile {
			binary.LittleEndian.PutUint32(out[n.Off-12:], 0x7fff) // type: behind it is the name in 8 bytes
		}
		return nil
	})
	if err != nil || bytes.Equal(out, b) {
		t.Fatalf("no NT_FILE: %v", err)
	}
	return out
}

// TestCompressed opens one core in each format, and one whose stream was cut.
func TestCompressed(t *testing.T) {
	t.Parallel()
	core := coretest.Sample(4).Bytes()
	formats := map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
		"lz4":  func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w), nil },
	}
	for name, mk := range formats {
		var out bytes.Buffer
		w, err := mk(&out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(core); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		path, tmp := filepath.Join(t.TempDir(), "core."+name), t.TempDir()
		if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		progress := false
		p, err := elfcore.Open(path, elfcore.Options{TempDir: tmp, Progress: func(string, int64, int64) { progress = true }})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.Compression() != name || len(p.Threads()) != 4 || p.Size() != int64(len(core)) || codes(p) != "" || !progress {
			t.Errorf("%s: compression %q, %d threads, %d bytes, warnings %s, progress %v", name, p.Compression(), len(p.Threads()), p.Size(), codes(p), progress)
		}
		sp, _ := p.Threads()[3].Regs.SP()
		if v, err := target.Uint64(p, sp); err != nil || v != coretest.SampleBase+coretest.TextOff+0x800 {
			t.Errorf("%s: %#x, %v", name, v, err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
			t.Errorf("%s: left behind: %v, %v", name, left, err)
		}
		_, err = elfcore.Open(path, elfcore.Options{TempDir: tmp, MaxUnpacked: 1000})
		if !errors.Is(err, unpack.ErrTooLarge) {
			t.Errorf("%s: with a limit: %v", name, err)
		}
	}
	checkCutStream(t, core)
}

func checkCutStream(t *testing.T, core []byte) {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	core = append(core, coretest.Sample(40).Bytes()...) // bytes behind the core, so that the cut leaves it whole
	for i := range core[:len(core)-1] {
		if i%5 == 0 && i > len(core)/2 {
			core[i] ^= byte(i * 7919 >> 3)
		}
	}
	if _, err := w.Write(core); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cut.gz")
	if err := os.WriteFile(path, out.Bytes()[:out.Len()-out.Len()/8], 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := elfcore.Open(path, elfcore.Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !hasCode(p, elfcore.WarnUnpackedCut) || len(p.Threads()) != 4 {
		t.Errorf("cut stream: %d threads, warnings %s", len(p.Threads()), codes(p))
	}
	// Compressed data that holds no core.
	path = filepath.Join(t.TempDir(), "text.gz")
	out.Reset()
	w = gzip.NewWriter(&out)
	fmt.Fprintln(w, "no core")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = elfcore.Open(path, elfcore.Options{TempDir: t.TempDir()})
	if want := path + ": not a core file (gzip data holding: text)"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// TestFIFO: opening a FIFO must fail, not wait for a writer.
func TestFIFO(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := elfcore.Open(path, elfcore.Options{})
	if !errors.Is(err, elfimage.ErrNotRegular) || !strings.Contains(err.Error(), "FIFO") {
		t.Errorf("%v", err)
	}
}

// TestShrunk: a file that shrinks while it is open gives ErrTruncated for what
// is gone.
func TestShrunk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "core")
	l, err := coretest.Sample(40).WriteFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := elfcore.Open(path, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := os.Truncate(path, l.DataOff); err != nil {
		t.Fatal(err)
	}
	sp, _ := p.Threads()[20].Regs.SP()
	if _, err := p.ReadMemory(sp, make([]byte, 64)); !errors.Is(err, target.ErrTruncated) {
		t.Errorf("%v", err)
	}
}
