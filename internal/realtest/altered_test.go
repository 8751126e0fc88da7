package realtest_test

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mycore/elfcore"
	"mycore/internal/analyze"
	"mycore/internal/coretest"
	"mycore/internal/incident"
	"mycore/internal/servertest"
	"mycore/internal/target"
)

// buildID reads a file's build ID with an independent reader.
func buildID(t *testing.T, path string) string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := f.Section(".note.gnu.build-id").Data()
	if err != nil || len(b) < 17 {
		t.Fatalf("build ID of %s: %d bytes, %v", path, len(b), err)
	}
	return hex.EncodeToString(b[16:]) // behind the header and "GNU\0"
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}

// altered is a real core of a server whose executable was deleted while it ran.
type altered struct {
	s        *servertest.Server
	tr       *servertest.Truth
	core     string
	proc     string
	exe      string // where the right executable is
	recorded string // where it was
	want     stacks // with the right executable
}

func (a *altered) options() analyze.Options { return options(a.s, a.core) }

// TestAlteredCore looks at one real core in the ways in which files go missing
// on the way to whoever analyses it.
func TestAlteredCore(t *testing.T) {
	took(t)
	found := servertest.Get(t, servertest.MariaDB1011)
	in := *found
	in.Exe = filepath.Join(openDir(t), "mariadbd")
	copyFile(t, found.Exe, in.Exe)
	a := &altered{s: in.Start(t, servertest.Options{}), exe: found.Exe, recorded: in.Exe}
	a.tr = servertest.GhostFIFO(t, a.s)
	if err := os.Remove(a.recorded); err != nil {
		t.Fatal(err)
	}
	hole := dontDump(t, a.s.PID)
	a.proc = saveProc(t, a.s)
	a.core = a.s.KernelCore(t)

	opts := a.options()
	opts.Exe = a.exe
	right := run(t, opts).Incident
	wantGhost(t, right, a.tr, a.tr.LWP, incident.ConfidenceLikely)
	if m := mainModule(t, right); m.Status != "found" || m.FoundAt != a.exe || !strings.HasSuffix(m.Path, " (deleted)") {
		t.Errorf("the deleted executable: %+v", m)
	}
	a.want = ourStacks(right)
	for _, w := range right.Warnings {
		t.Errorf("warning %s: %s", w.Code, w.Text)
	}

	t.Run("executable deleted", a.testDeleted)
	t.Run("executable replaced", a.testReplaced)
	t.Run("executable back", a.testBack)
	t.Run("sysroot", a.testSysroot)
	t.Run("debug dir", a.testDebugDir)
	t.Run("NT_FILE removed", func(t *testing.T) { a.testFileNote(t, removeFileNote) })
	t.Run("NT_FILE cut", func(t *testing.T) { a.testFileNote(t, cutFileNote) })
	t.Run("no binary", a.testNoBinary)
	t.Run("not dumped", func(t *testing.T) { a.testHole(t, hole) })
	t.Run("compressed", a.testCompressed)
	t.Run("truncated", a.testTruncated)
}

func mainModule(t *testing.T, inc *incident.Incident) *incident.Module {
	t.Helper()
	for i := range inc.Modules {
		if strings.Contains(filepath.Base(inc.Modules[i].Path), "mariadbd") {
			return &inc.Modules[i]
		}
	}
	t.Fatalf("no executable among the images %+v", inc.Modules)
	return nil
}

// wantSame checks that an analysis is as good as with the right executable.
func (a *altered) wantSame(t *testing.T, inc *incident.Incident) {
	t.Helper()
	wantGhost(t, inc, a.tr, a.tr.LWP, incident.ConfidenceLikely)
	if c := compareStacks(ourStacks(inc), a.want); c.both != c.ours || c.both != c.theirs || c.problem() != "" {
		t.Errorf("other stacks: %s", strings.Join(c.diffs, "\n"))
	}
}

// wantRightOnly: whatever label there is, it is on the blocked thread, with
// the right path.
func (a *altered) wantRightOnly(t *testing.T, inc *incident.Incident) {
	t.Helper()
	wantNoWrongPath(t, inc, a.tr)
	for _, th := range inc.Threads {
		if th.LWP != a.tr.LWP && len(th.Labels) > 0 {
			t.Errorf("LWP %d has the labels %v", th.LWP, th.Labels)
		}
	}
}

// wantKernelFacts: what doesn't need a binary is complete.
func (a *altered) wantKernelFacts(t *testing.T, inc *incident.Incident) {
	t.Helper()
	wantThreads(t, inc, a.tr.Threads)
	p, err := elfcore.Open(a.core, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	channels := 0
	for i := range inc.Threads {
		th := &inc.Threads[i]
		if th.Handle == nil {
			t.Errorf("LWP %d has no handle", th.LWP)
		}
		call, ok := parseCall(procText(t, a.proc, th.LWP, "syscall"))
		if ok && len(th.Frames) > 0 && uint64(th.Frames[0].PC) == call.pc && (th.Syscall != nil || sleeps(p, th.LWP)) &&
			(th.Syscall == nil || th.Syscall.Name != callNames[call.nr]) {
			t.Errorf("LWP %d: system call %+v, want %s", th.LWP, th.Syscall, callNames[call.nr])
		}
		if th.WaitChannel != nil {
			channels++
		}
	}
	if channels < len(inc.Threads)-1-maxComings {
		t.Errorf("%d wait channels of %d threads", channels, len(inc.Threads))
	}
}

func (a *altered) testDeleted(t *testing.T) {
	opts := a.options()
	opts.Proc = a.proc
	inc := run(t, opts).Incident
	m := mainModule(t, inc)
	w := strings.Join(warnings(inc, "binary-missing"), "\n")
	if m.Status != "missing" || !strings.Contains(w, a.recorded) || !strings.Contains(w, buildID(t, a.exe)) || !strings.Contains(w, "--exe") {
		t.Errorf("executable %+v, warnings %q", m, w)
	}
	a.wantKernelFacts(t, inc)
	a.wantRightOnly(t, inc)
	wantOnly(t, inc, noWriter, a.tr.LWP)
	reportAgreement(t, "without executable", ourStacks(inc), a.want)
}

func reportAgreement(t *testing.T, what string, got, want stacks) {
	t.Helper()
	c := compareStacks(got, want)
	t.Logf("%s: %d of %d frames found, %d others", what, c.both, c.theirs, c.ours-c.both)
}

func (a *altered) testReplaced(t *testing.T) {
	const other = "/bin/bash"
	copyFile(t, other, a.recorded)
	defer os.Remove(a.recorded)
	opts := a.options()
	opts.Proc = a.proc
	inc := run(t, opts).Incident
	m := mainModule(t, inc)
	if m.Status != "mismatch" || m.BuildID != buildID(t, a.exe) || m.FileID != buildID(t, other) {
		t.Errorf("executable %+v", m)
	}
	w := warnings(inc, "binary-mismatch")
	if len(w) != 1 || !strings.Contains(w[0], buildID(t, a.exe)) || !strings.Contains(w[0], buildID(t, other)) || !strings.Contains(w[0], "still good") {
		t.Errorf("warnings %q", w)
	}
	a.wantKernelFacts(t, inc)
	a.wantRightOnly(t, inc)
	// A wrong file that the user names is refused as well.
	opts = a.options()
	opts.Exe = other
	inc = run(t, opts).Incident
	if m := mainModule(t, inc); m.Status != "mismatch" {
		t.Errorf("executable %+v", m)
	}
	if w := warnings(inc, "binary-mismatch"); len(w) == 0 || !strings.Contains(strings.Join(w, " "), other) {
		t.Errorf("warnings %q", w)
	}
	a.wantRightOnly(t, inc)
}

func (a *altered) testBack(t *testing.T) {
	copyFile(t, a.exe, a.recorded)
	defer os.Remove(a.recorded)
	inc := run(t, a.options()).Incident
	if m := mainModule(t, inc); m.Status != "found" || m.FoundAt != a.recorded {
		t.Errorf("executable %+v", m)
	}
	a.wantSame(t, inc)
}

func (a *altered) testSysroot(t *testing.T) {
	root := t.TempDir()
	copyFile(t, a.exe, filepath.Join(root, a.recorded))
	opts := a.options()
	opts.Sysroot = root
	inc := run(t, opts).Incident
	if m := mainModule(t, inc); m.Status != "found" || m.FoundAt != filepath.Join(root, a.recorded) {
		t.Errorf("executable %+v", m)
	}
	a.wantSame(t, inc)
}

// testDebugDir: a directory laid out by build IDs holds the executable and the
// C library's debug file; the machine's own one isn't asked.
func (a *altered) testDebugDir(t *testing.T) {
	dir := t.TempDir()
	id := buildID(t, a.exe)
	copyFile(t, a.exe, filepath.Join(dir, ".build-id", id[:2], id[2:]))
	opts := a.options()
	opts.DebugDirs, opts.NoSystemDirs = []string{dir}, true
	without := run(t, opts).Incident
	if m := mainModule(t, without); m.Status != "found" || !strings.HasPrefix(m.FoundAt, dir) {
		t.Errorf("executable %+v", m)
	}
	a.wantSame(t, without)

	i := slices.IndexFunc(without.Modules, func(m incident.Module) bool { return strings.HasPrefix(filepath.Base(m.Path), "libc.so") })
	if i < 0 {
		t.Fatalf("no C library among the images")
	}
	id = without.Modules[i].BuildID
	name := filepath.Join(".build-id", id[:2], id[2:]+".debug")
	if _, err := os.Stat(filepath.Join("/usr/lib/debug", name)); err != nil {
		coretest.Absent(t, "the C library's debug file (libc6-dbg)")
	}
	copyFile(t, filepath.Join("/usr/lib/debug", name), filepath.Join(dir, name))
	with := run(t, opts).Incident
	a.wantSame(t, with)
	// start_thread is local to the C library since NPTL: no dynamic symbol.
	if n, m := count(without, "start_thread"), count(with, "start_thread"); n != 0 || m < len(with.Threads)-2 {
		t.Errorf("%d threads have a frame start_thread without debug file, %d of %d with it", n, m, len(with.Threads))
	}
}

// count is the number of threads with a frame of a function.
func count(inc *incident.Incident, function string) int {
	n := 0
	for i := range inc.Threads {
		if slices.Contains(functions(&inc.Threads[i]), function) {
			n++
		}
	}
	return n
}

// removeFileNote gives NT_FILE a type that nobody knows.
func removeFileNote(e *patch) {
	le.PutUint32(e.B[e.Note(coretest.NTFile).Header+8:], 0x7fffff00)
}

// cutFileNote lets NT_FILE end in the middle of its table; the rest becomes a
// note that nobody knows.
func cutFileNote(e *patch) {
	n := e.Note(coretest.NTFile)
	size := le.Uint64(e.B[n.Desc:])*24/2 + 16 // count, page size, then 24 bytes a mapping (binfmt_elf.c, fill_files_note)
	size &^= 7
	rest := e.B[n.Desc+int(size) : n.Desc+n.Size]
	le.PutUint32(e.B[n.Header+4:], uint32(size))
	le.PutUint32(rest, 5)
	le.PutUint32(rest[4:], uint32(len(rest)-20))
	le.PutUint32(rest[8:], 0x7fffff00)
	copy(rest[12:], "CORE\x00\x00\x00\x00")
}

func (a *altered) testFileNote(t *testing.T, alter func(*patch)) {
	patched(t, a.core, alter)
	opts := a.options()
	opts.Exe = a.exe
	inc := run(t, opts).Incident
	if len(warnings(inc, elfcore.WarnNoFileNote)) != 1 {
		t.Errorf("warnings %+v", inc.Warnings)
	}
	a.wantSame(t, inc)
	libraries := 0
	for _, m := range inc.Modules {
		if m.Status != "found" && m.Status != "vdso" {
			t.Errorf("image %+v", m)
		}
		if strings.Contains(m.Path, ".so") {
			libraries++
		}
	}
	if libraries < 3 {
		t.Errorf("only %d libraries found", libraries)
	}
	// Without --exe the path that the loader knows leads to it.
	copyFile(t, a.exe, a.recorded)
	defer os.Remove(a.recorded)
	a.wantSame(t, run(t, a.options()).Incident)
}

// testNoBinary: no file at all is at hand.
func (a *altered) testNoBinary(t *testing.T) {
	patched(t, a.core, func(e *patch) {
		n := e.Note(coretest.NTFile)
		b := e.B[n.Desc : n.Desc+n.Size]
		copy(b, bytes.ReplaceAll(b, []byte("/usr/lib/"), []byte("/nowhere/")))
	})
	opts := a.options()
	opts.NoSystemDirs = true
	for _, opts.Proc = range []string{"", a.proc} {
		inc := run(t, opts).Incident
		for _, m := range inc.Modules {
			if m.Status == "found" {
				t.Errorf("%s was found at %s", m.Path, m.FoundAt)
			}
		}
		w := strings.Join(warnings(inc, "binary-missing"), "\n")
		for _, part := range []string{"threads, handles, system calls and wait channels are still good", "names", "--exe", "--sysroot", buildID(t, a.exe)} {
			if !strings.Contains(w, part) {
				t.Errorf("warnings %q don't tell of %q", w, part)
			}
		}
		a.wantRightOnly(t, inc)
		if th := threadOf(t, inc, a.tr.LWP); th.Syscall == nil || !strings.Contains(th.Syscall.Text, strconv.Quote(a.tr.Path)) {
			t.Errorf("system call %+v", th.Syscall)
		}
		for i := range inc.Threads {
			for _, f := range inc.Threads[i].Frames {
				if f.Function != "" && f.Module != "[vdso]" {
					t.Errorf("LWP %d: a frame in %s has the name %s", inc.Threads[i].LWP, f.Module, f.Function)
				}
			}
		}
		reportAgreement(t, "without any binary", ourStacks(inc), a.want)
		if opts.Proc == "" {
			continue
		}
		a.wantKernelFacts(t, inc)
		if f := wantOnly(t, inc, noWriter, a.tr.LWP); f.Confidence != incident.ConfidenceCertain {
			t.Errorf("confidence %s", f.Confidence)
		}
	}
}

// dontDump is the address of a large mapping that madvise(MADV_DONTDUMP) keeps
// out of cores, by the flags of smaps (proc(5): dd).
func dontDump(t *testing.T, pid int) target.Addr {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	var start, size, best, at uint64
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if lo, hi, ok := strings.Cut(f[0], "-"); ok {
			s, err1 := strconv.ParseUint(lo, 16, 64)
			e, err2 := strconv.ParseUint(hi, 16, 64)
			if err1 == nil && err2 == nil {
				start, size = s, e-s
			}
		} else if f[0] == "VmFlags:" && slices.Contains(f, "dd") && slices.Contains(f, "rd") && size > best {
			best, at = size, start
		}
	}
	if at == 0 {
		t.Fatal("the server keeps nothing out of cores")
	}
	t.Logf("%d MiB at %#x are kept out of cores", best>>20, at)
	return target.Addr(at)
}

func (a *altered) testHole(t *testing.T, hole target.Addr) {
	p, err := elfcore.Open(a.core, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	at := hole + 0x1230
	var re *target.ReadError
	_, err = target.Uint64(p, at)
	if !errors.Is(err, target.ErrNotDumped) || !errors.As(err, &re) || re.Addr != at || !strings.Contains(err.Error(), fmt.Sprintf("%x", uint64(at))) {
		t.Errorf("reading what wasn't dumped: %v", err)
	}
	const nowhere = 0x10000
	if _, err := target.Uint64(p, nowhere); !errors.Is(err, target.ErrNotMapped) {
		t.Errorf("reading what isn't mapped: %v", err)
	}
	opts := a.options()
	opts.Exe = a.exe
	if ans := run(t, opts).Handle(fmt.Sprintf("%#x", uint64(at))); ans.Status != "not-dumped" || ans.Thread != nil {
		t.Errorf("as a handle: %+v", ans)
	}
}
