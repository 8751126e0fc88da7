package elfcore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/target"
)

// open opens a built core from memory.
func open(t testing.TB, c *coretest.Core) *elfcore.Process {
	t.Helper()
	return openBytes(t, c.Bytes())
}

func openBytes(t testing.TB, b []byte) *elfcore.Process {
	t.Helper()
	p, err := elfcore.New(bytes.NewReader(b), int64(len(b)), "test.core")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func codes(p *elfcore.Process) string {
	var out []string
	for _, w := range p.Warnings() {
		out = append(out, w.Code)
	}
	return strings.Join(out, " ")
}

func hasCode(p *elfcore.Process, code string) bool {
	for _, w := range p.Warnings() {
		if w.Code == code {
			return true
		}
	}
	return false
}

func TestKernelCore(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(3)
	c.Threads[1].NoSyscall = true
	c.Threads[2].Pending = 1 << 9
	p := open(t, c)
	info := p.Info()
	if info.OS != "linux" || info.Arch != target.AMD64 || info.PID.V != 4000 || info.PPID.V != 1 || info.UID.V != 999 || info.GID.V != 998 {
		t.Errorf("info: %+v", info)
	}
	if info.Command.V != "mysqld" || info.Args.V != "/usr/sbin/mysqld --port=3306" {
		t.Errorf("command %q, args %q", info.Command.V, info.Args.V)
	}
	if info.Writer != elfcore.WriterKernel {
		t.Errorf("writer %q: %s", info.Writer, info.WriterReason)
	}
	if s := info.Signal; s == nil || s.Signo != 6 || s.Code != -6 || !s.PID.Known || s.PID.V != 4000 || s.Addr.Known {
		t.Errorf("signal %+v", s)
	}
	if got := codes(p); got != "" {
		t.Errorf("warnings: %s", got)
	}
	if len(p.Threads()) != 3 {
		t.Fatalf("%d threads", len(p.Threads()))
	}
	for i, th := range p.Threads() {
		want := c.Threads[i]
		pc, ok1 := th.Regs.PC()
		sp, ok2 := th.Regs.SP()
		if th.LWP != 4000+i || uint64(pc) != want.PC || uint64(sp) != want.SP || !ok1 || !ok2 {
			t.Errorf("thread %d: lwp %d pc %s sp %s", i, th.LWP, pc, sp)
		}
		for reg, v := range map[int]uint64{target.RAX: ^uint64(511), target.RBX: uint64(0x1000 + i), target.RBP: want.SP + 16, target.R15: 0} {
			if got, ok := th.Regs.Get(reg); !ok || got != v {
				t.Errorf("thread %d: register %d = %#x, %v; want %#x", i, reg, got, ok, v)
			}
		}
		if !th.ThreadPointer.Known || uint64(th.ThreadPointer.V) != want.TLS || th.ThreadPointer.Source != target.SourceRegisters {
			t.Errorf("thread %d: thread pointer %+v", i, th.ThreadPointer)
		}
		if th.Flags.V != 0x246 || th.CurSig != 6 || th.SigBlocked != target.Known[uint64](0x87007, target.SourceCoreNote) {
			t.Errorf("thread %d: flags %+v signal %d blocked %+v", i, th.Flags, th.CurSig, th.SigBlocked)
		}
		if p.Thread(th.LWP) != th {
			t.Errorf("Thread(%d) is another one", th.LWP)
		}
	}
	if got := p.Threads()[0].OrigSyscall; got != target.Known[int64](202, target.SourceRegisters) {
		t.Errorf("syscall %+v", got)
	}
	if p.Threads()[1].OrigSyscall.Known {
		t.Error("a thread outside of a call has a call")
	}
	if p.Threads()[2].SigPending.V != 1<<9 {
		t.Errorf("pending %+v", p.Threads()[2].SigPending)
	}
	if n := p.Threads()[0].Name; n.V != "mysqld" || p.Threads()[1].Name.Known {
		t.Errorf("names %+v, %+v", n, p.Threads()[1].Name)
	}
	if p.Thread(1) != nil {
		t.Error("a thread that isn't there")
	}
}

// TestGcoreCore: gdb's order of notes, its missing masks, and its own stop
// signal that ended nothing.
func TestGcoreCore(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(3)
	c.Style, c.Signo = coretest.GDB, 0
	for i := range c.Threads {
		c.Threads[i].Blocked, c.Threads[i].CurSig, c.Threads[i].FileSigno = 0, 0, 19
	}
	p := open(t, c)
	if w := p.Info(); w.Writer != elfcore.WriterGDB || w.WriterReason == "" {
		t.Errorf("writer %q: %s", w.Writer, w.WriterReason)
	}
	if p.Info().Signal != nil {
		t.Errorf("signal %+v", p.Info().Signal)
	}
	for _, th := range p.Threads() {
		if th.SigBlocked.Known || th.SigPending.Known {
			t.Errorf("thread %d: masks are known: %+v", th.LWP, th.SigBlocked)
		}
		if th.Siginfo == nil || th.Siginfo.Signo != 19 {
			t.Errorf("thread %d: siginfo %+v", th.LWP, th.Siginfo)
		}
		if th.Name.Known {
			t.Errorf("thread %d: gdb's fname is no thread name", th.LWP)
		}
	}
	c.Threads[1].Blocked = 1 // one mask that isn't zero: gdb filled them
	if th := open(t, c).Threads()[0]; !th.SigBlocked.Known || th.SigBlocked.V != 0 {
		t.Errorf("masks that were filled: %+v", th.SigBlocked)
	}
	c.Threads[0].FileSigno = 11
	if s := open(t, c).Info().Signal; s == nil || s.Signo != 11 {
		t.Errorf("signal of a core that gdb wrote at a crash: %+v", s)
	}
}

// TestZeroMasks: the kernel's zeros are zeros; an unknown writer's are not.
func TestZeroMasks(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(2)
	for i := range c.Threads {
		c.Threads[i].Blocked = 0
	}
	if th := open(t, c).Threads()[0]; !th.SigBlocked.Known {
		t.Error("kernel: masks unknown")
	}
	b, l := c.Build()
	b[l.NoteOffs[1]+8] = 0x7f // PRPSINFO isn't recognised: the writer isn't either
	p := openBytes(t, b)
	if p.Info().Writer != elfcore.WriterUnknown || p.Threads()[0].SigBlocked.Known {
		t.Errorf("writer %q, mask %+v", p.Info().Writer, p.Threads()[0].SigBlocked)
	}
}

func TestARM64(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(2)
	c.Machine = coretest.ARM64
	const pac = 0x007f000000000000
	c.Threads[0].PC |= 0x0011000000000000
	c.Threads[0].Regs = map[int]uint64{0: 7, 30: 0x2a}
	c.Threads[0].Notes = []coretest.Note{{Owner: "LINUX", Type: coretest.NTARMPAC, Desc: append(make([]byte, 8), 0, 0, 0, 0, 0, 0, 0x7f, 0)}}
	c.Threads[1].NoSyscall = true
	p := open(t, c)
	th := p.Threads()[0]
	if pc, _ := th.Regs.PC(); uint64(pc) != c.Threads[0].PC&^pac {
		t.Errorf("pc %s keeps its authentication code", pc)
	}
	if sp, _ := th.Regs.SP(); uint64(sp) != c.Threads[0].SP {
		t.Errorf("sp %s", sp)
	}
	if lr, ok := th.Regs.Get(target.A64LR); !ok || lr != 0x2a {
		t.Errorf("lr %#x", lr)
	}
	if x0, _ := th.Regs.Get(0); x0 != 7 {
		t.Errorf("x0 %d", x0)
	}
	if th.ThreadPointer != target.Known(target.Addr(c.Threads[0].TLS), target.SourceCoreNote) {
		t.Errorf("tpidr %+v", th.ThreadPointer)
	}
	if th.OrigSyscall != target.Known[int64](202, target.SourceCoreNote) || p.Threads()[1].OrigSyscall.Known {
		t.Errorf("calls %+v %+v", th.OrigSyscall, p.Threads()[1].OrigSyscall)
	}
	if got := p.StripCode(0xff11_1234_5678_9abc &^ (1 << 55)); got != 0xff00_1234_5678_9abc {
		t.Errorf("StripCode: %s", got)
	}
	if got := p.StripCode(0xff80_0000_0000_1234); got != 0xffff_0000_0000_1234 {
		t.Errorf("StripCode of an upper address: %s", got)
	}
}

func TestOtherMachines(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(2)
	c.Machine = coretest.RISCV
	p := open(t, c)
	if len(p.Threads()) != 2 || p.Threads()[1].LWP != 4001 || len(p.Images()) != 2 || !hasCode(p, elfcore.WarnArch) {
		t.Errorf("%d threads, %d images, warnings %s", len(p.Threads()), len(p.Images()), codes(p))
	}
	if _, ok := p.Threads()[0].Regs.PC(); ok {
		t.Error("a program counter of a machine that isn't read")
	}
	c.Machine = 0x1234
	p = open(t, c)
	if len(p.Threads()) != 0 || len(p.Mappings()) == 0 || !hasCode(p, elfcore.WarnArch) || !hasCode(p, elfcore.WarnNoThreads) {
		t.Errorf("unknown machine: %d threads, %s", len(p.Threads()), codes(p))
	}
	netbsd := (&coretest.Core{Notes: []coretest.Note{{Owner: "NetBSD-CORE@1", Type: 1}}}).Bytes()
	_, err := elfcore.New(bytes.NewReader(netbsd), int64(len(netbsd)), "bsd.core")
	if !errors.Is(err, elfcore.ErrUnsupported) || !strings.Contains(err.Error(), "NetBSD") {
		t.Errorf("core of NetBSD: %v", err)
	}
	// FreeBSD is told by the header, or by the owner of the notes.
	for _, c := range []*coretest.Core{{OSABI: 9, Threads: []coretest.Thread{{LWP: 1}}}, {Notes: []coretest.Note{{Owner: "FreeBSD", Type: 1, Desc: make([]byte, 224)}}}} {
		if p := open(t, c); p.Info().OS != "freebsd" {
			t.Errorf("%+v", p.Info())
		}
	}
}

func TestImages(t *testing.T) {
	t.Parallel()
	p := open(t, coretest.Sample(1))
	imgs := p.Images()
	if len(imgs) != 2 {
		t.Fatalf("%+v", imgs)
	}
	want := coretest.SampleImage()
	if im := imgs[0]; im.Path != "/usr/sbin/mysqld" || im.Base != coretest.SampleBase || im.End != coretest.SampleData+0x1000 || !im.Main || im.VDSO || !im.Headers || !bytes.Equal(im.BuildID, want.BuildID) || im.Source != elfcore.FromFileNote {
		t.Errorf("executable: %+v", im)
	}
	if im := imgs[1]; im.Path != "[vdso]" || im.Base != coretest.SampleVDSO || !im.VDSO || im.Main || string(im.BuildID) != "vdsovdsovdsovdsovdso" || im.Source != elfcore.FromAuxv {
		t.Errorf("vDSO: %+v", im)
	}
	for a, path := range map[target.Addr]string{coretest.SampleBase: "/usr/sbin/mysqld", coretest.SampleBase + 0x2002: "/usr/sbin/mysqld", coretest.SampleBase - 1: "", coretest.SampleData + 0x1000: "", coretest.SampleVDSO + 4: "[vdso]"} {
		got := ""
		if im := p.ImageAt(a); im != nil {
			got = im.Path
		}
		if got != path {
			t.Errorf("ImageAt(%s) = %q, want %q", a, got, path)
		}
	}
	if v, ok := p.Auxv(9); !ok || v != coretest.SampleBase+coretest.TextOff {
		t.Errorf("AT_ENTRY %#x %v", v, ok)
	}
	if _, ok := p.Auxv(77); ok {
		t.Error("an entry of the auxiliary vector that isn't there")
	}
}

// linked is a Sample with a loader's list in memory and no NT_FILE.
func linked() *coretest.Core {
	c := coretest.Sample(1)
	c.Files = nil
	im := coretest.SampleImage()
	const heap = 0x7fffd0000000
	const lib = 0x7fffe8000000
	im.Debug = heap
	img := im.Bytes()
	c.Segments[0].Data = img[:0x1000]
	copy(c.Segments[1].Data, img[0x3000:])
	so := (&coretest.Image{Soname: "libm.so.6", BuildID: []byte("libmlibmlibmlibmlibm"), Text: []byte{0xc3}}).Bytes()
	mem := make([]byte, 0x1000)
	put := func(at int, vs ...uint64) {
		for i, v := range vs {
			for k := range 8 {
				mem[at+8*i+k] = byte(v >> (8 * k))
			}
		}
	}
	put(0, 1, heap+0x100)                                                           // r_version, r_map
	put(0x100, coretest.SampleBase, heap+0x800, coretest.SampleData, heap+0x200, 0) // the executable, no name
	put(0x200, coretest.SampleVDSO, heap+0x810, coretest.SampleVDSO, heap+0x300, heap+0x100)
	put(0x300, lib, heap+0x820, lib+0x3000, heap+0x100, heap+0x200) // a cycle
	copy(mem[0x810:], "linux-vdso.so.1\x00")
	copy(mem[0x820:], "/lib/libm.so.6\x00")
	copy(mem[0x900:], "/usr/sbin/mysqld\x00")
	c.Segments = append(c.Segments,
		coretest.Segment{Addr: heap, Perm: "rw-", Data: mem},
		coretest.Segment{Addr: lib, Perm: "r-x", Data: so[:0x1000], Size: 0x3000},
		coretest.Segment{Addr: lib + 0x3000, Perm: "rw-", Data: append([]byte(nil), so[0x3000:0x3050]...), Size: 0x1000})
	c.Auxv = append(c.Auxv, [2]uint64{31, heap + 0x900})
	return c
}

func TestLinkMap(t *testing.T) {
	t.Parallel()
	p := open(t, linked())
	if !hasCode(p, elfcore.WarnNoFileNote) {
		t.Errorf("warnings: %s", codes(p))
	}
	var got []string
	for _, im := range p.Images() {
		got = append(got, fmt.Sprintf("%s %s-%s %s main=%v %s", im.Path, im.Base, im.End, im.Source, im.Main, im.BuildID))
	}
	want := []string{
		"/usr/sbin/mysqld 0x555555554000-0x555555558000 link map main=true " + string(coretest.SampleImage().BuildID),
		"/lib/libm.so.6 0x7fffe8000000-0x7fffe8004000 link map main=false libmlibmlibmlibmlibm",
		"[vdso] 0x7ffff7fc1000-0x7ffff7fc4000 auxiliary vector main=false vdsovdsovdsovdsovdso",
	}
	want[2] = got[len(got)-1] // its exact end isn't what this is about
	sortByBase := []string{want[0], want[1], want[2]}
	if strings.Join(got, "\n") != strings.Join(sortByBase, "\n") {
		t.Errorf("images:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(sortByBase, "\n"))
	}
	// The mapping of the text is known to be the file's now.
	if m := p.Mapping(coretest.SampleBase + 0x2000); m == nil || m.Path != "/usr/sbin/mysqld" || m.FileOff != 0 {
		t.Errorf("mapping of the text: %+v", m)
	}
	if w, _ := p.What(coretest.SampleBase + 0x2000); w != elfcore.InFile {
		t.Errorf("text: %v", w)
	}
}

// TestHeaderScan: neither NT_FILE nor a loader's list; the headers in memory
// still give images and their build IDs.
func TestHeaderScan(t *testing.T) {
	t.Parallel()
	c := linked()
	c.Auxv = [][2]uint64{{33, coretest.SampleVDSO}}
	p := open(t, c)
	if len(p.Images()) != 3 || p.Images()[0].Source != elfcore.FromHeaders || !bytes.Equal(p.Images()[0].BuildID, coretest.SampleImage().BuildID) {
		t.Errorf("%+v", p.Images())
	}
}

// TestSameFileTwice: a library that is loaded twice is two images; a small
// program whose data begins in the first page of its file is one.
func TestSameFileTwice(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(1)
	const lib = 0x7fff00000000
	for i := range uint64(2) {
		at := lib + i*0x40000000
		c.Segments = append(c.Segments, coretest.Segment{Addr: at, Perm: "r-x", Size: 0x2000}, coretest.Segment{Addr: at + 0x2000, Perm: "rw-", Size: 0x1000})
		c.Files = append(c.Files, coretest.File{Start: at, End: at + 0x2000, Path: "/lib/twice.so"}, coretest.File{Start: at + 0x2000, End: at + 0x3000, Off: 0x2000, Path: "/lib/twice.so"})
	}
	const prog = 0x400000
	c.Segments = append(c.Segments, coretest.Segment{Addr: prog, Perm: "r-x", Size: 0x1000}, coretest.Segment{Addr: prog + 0x200000, Perm: "rw-", Size: 0x1000})
	c.Files = append(c.Files, coretest.File{Start: prog, End: prog + 0x1000, Path: "/bin/tiny"}, coretest.File{Start: prog + 0x200000, End: prog + 0x201000, Path: "/bin/tiny"})
	var got []string
	for _, im := range open(t, c).Images() {
		got = append(got, fmt.Sprintf("%s %s-%s", im.Path, im.Base, im.End))
	}
	want := "/bin/tiny 0x400000-0x601000, /usr/sbin/mysqld 0x555555554000-0x555555558000, /lib/twice.so 0x7fff00000000-0x7fff00003000, /lib/twice.so 0x7fff40000000-0x7fff40003000, [vdso]"
	if !strings.HasPrefix(strings.Join(got, ", "), want) {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
}

func TestZeroStacks(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(8)
	p := open(t, c)
	if s := p.ZeroStacks(); s.Lost || s.Checked != 8 || s.Zero != 0 || p.StackLost(p.Threads()[3]) {
		t.Errorf("a good core: %+v", s)
	}
	for i := range c.Segments {
		if a := c.Segments[i].Addr; a > coretest.SampleStack && a < coretest.SampleVDSO {
			clear(c.Segments[i].Data) // all but the first thread's
		}
	}
	c.Style = coretest.GDB
	p = open(t, c)
	if s := p.ZeroStacks(); !s.Lost || s.Checked != 8 || s.Zero != 7 {
		t.Errorf("%+v", s)
	}
	if p.StackLost(p.Threads()[0]) || !p.StackLost(p.Threads()[1]) {
		t.Error("the wrong threads are said to be lost")
	}
	if !hasCode(p, elfcore.WarnStacksZero) || !strings.Contains(p.Warnings()[0].Text, "7 of 8 threads") || !strings.Contains(p.Warnings()[0].Text, "glibc 2.42") {
		t.Errorf("%v", p.Warnings())
	}
	// One thread in eight with an empty buffer on its stack is no such core.
	c = coretest.Sample(8)
	clear(c.Segments[4].Data)
	if s := open(t, c).ZeroStacks(); s.Lost || s.Zero != 1 {
		t.Errorf("one zero stack: %+v", s)
	}
	if hasCode(p, elfcore.WarnNoStackMemory) {
		t.Errorf("zeros aren't missing: %v", p.Warnings())
	}
}

// TestNoStackMemory: a core that was written without the stacks says so; one
// that was cut off has another warning.
func TestNoStackMemory(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(8)
	if p := open(t, c); hasCode(p, elfcore.WarnNoStackMemory) {
		t.Errorf("a good core: %v", p.Warnings())
	}
	whole := c.Bytes()
	for i := range c.Segments {
		if s := &c.Segments[i]; s.Addr >= coretest.SampleStack && s.Addr < coretest.SampleVDSO {
			s.Size, s.Data = max(s.Size, s.Files, uint64(len(s.Data))), nil
		}
	}
	p := open(t, c)
	if s := p.ZeroStacks(); s.Absent != 8 || s.NotDumped != 8 || s.Lost {
		t.Errorf("%+v", s)
	}
	if !hasCode(p, elfcore.WarnNoStackMemory) || !strings.Contains(p.Warnings()[0].Text, "8 of 8 threads") {
		t.Errorf("%v", p.Warnings())
	}
	p = openBytes(t, whole[:len(whole)/2])
	if s := p.ZeroStacks(); s.Absent == 0 || s.NotDumped != 0 || hasCode(p, elfcore.WarnNoStackMemory) {
		t.Errorf("a cut core: %+v, %v", s, p.Warnings())
	}
}

// TestKernelObject: a mapping of a kernel object without a file is no library,
// even where nothing is known of its permissions and header.
func TestKernelObject(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(1)
	const at = 0x7fff00000000
	for _, path := range []string{"anon_inode:[io_uring]", "/lib/real.so"} {
		n := uint64(len(c.Files)) * 0x100000
		for i := range uint64(2) {
			a := at + n + i*0x1000
			c.Files = append(c.Files, coretest.File{Start: a, End: a + 0x1000, Off: i * 0x1000, Path: path})
		}
	}
	var got []string
	for _, im := range open(t, c).Images() {
		got = append(got, im.Path)
	}
	if list := strings.Join(got, " "); strings.Contains(list, "io_uring") || !strings.Contains(list, "/lib/real.so") {
		t.Errorf("images %s", list)
	}
}

func TestNotACore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	exe := coretest.SampleImage()
	lib := &coretest.Image{Soname: "x.so", BuildID: []byte{1, 2, 3, 4}}
	big := exe.Bytes()
	big[5] = 2
	cases := []struct {
		path, want string
		is         error
	}{
		{write("mysqld.core", exe.Bytes()), ": not a core file (ELF executable, build ID 51aa0102030405060708090a0b0c0d0e0f101112). Pass the core; the binary goes to --exe.", elfcore.ErrNotCore},
		{write("lib", lib.Bytes()), ": not a core file (ELF shared library, build ID 01020304). Pass the core; the binary goes to --exe.", elfcore.ErrNotCore},
		{write("empty", nil), ": not a core file (empty file)", elfcore.ErrNotCore},
		{write("text", []byte("Thread 1 (LWP 1):\n")), ": not a core file (text)", elfcore.ErrNotCore},
		{write("zeros", make([]byte, 10000)), ": not a core file (starts with zeros)", elfcore.ErrNotCore},
		{write("mini", []byte("MDMP\x93\xa7")), ": not a core file (Windows minidump)", elfcore.ErrNotCore},
		{write("half", exe.Bytes()[:40]), ": malformed ELF file: file ends inside the ELF header (40 of 64 bytes)", nil},
		{write("be", big), ": unsupported ELF file: big-endian", nil},
		{dir, ": not a regular file (directory)", nil},
		{filepath.Join(dir, "none"), ": no such file or directory", os.ErrNotExist},
	}
	for _, c := range cases {
		_, err := elfcore.Open(c.path, elfcore.Options{})
		if err == nil || err.Error() != c.path+c.want {
			t.Errorf("%s:\n got %v\nwant %s%s", filepath.Base(c.path), err, c.path, c.want)
		}
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v isn't %v", filepath.Base(c.path), err, c.is)
		}
	}
}

// TestExtendedCount: more than 65,535 program headers, whole and without the
// end of the file, where the real count stands.
func TestExtendedCount(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(2)
	c.PadSegments = 66000
	b, l := c.Build()
	want := len(c.Segments) + c.PadSegments
	for _, size := range []int64{l.Size, l.Size - 64} {
		p := openBytes(t, b[:size])
		n := 0
		for _, m := range p.Mappings() {
			if m.Perm != "" {
				n++
			}
		}
		if n != want || len(p.Threads()) != 2 {
			t.Errorf("%d of %d bytes: %d mappings, want %d; %d threads; %s", size, l.Size, n, want, len(p.Threads()), codes(p))
		}
	}
	p := openBytes(t, b[:1<<20])
	if !hasCode(p, elfcore.WarnHeadersCut) || len(p.Mappings()) == 0 {
		t.Errorf("cut in the headers: %d mappings, %s", len(p.Mappings()), codes(p))
	}
}

// countingReader counts what is read from a file.
type countingReader struct {
	r     io.ReaderAt
	bytes int64
	calls int
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	c.bytes += int64(len(p))
	c.calls++
	return c.r.ReadAt(p, off)
}

// TestSparseCost: what opening reads doesn't grow with the memory in the core.
func TestSparseCost(t *testing.T) {
	t.Parallel()
	read := func(size uint64) (int64, int) {
		c := coretest.Sample(100)
		c.Segments = append(c.Segments, coretest.Segment{Addr: 0x100000000, Perm: "rw-", Data: []byte{1}, Files: size})
		path := filepath.Join(t.TempDir(), "core")
		if _, err := c.WriteFile(path); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		r := &countingReader{r: f}
		p, err := elfcore.New(r, st.Size(), path)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Threads()) != 100 {
			t.Errorf("%d threads", len(p.Threads()))
		}
		if missing, total := p.Truncated(); missing != 0 || uint64(total) < size {
			t.Errorf("truncated: %d of %d", missing, total)
		}
		return r.bytes, r.calls
	}
	small, calls := read(1 << 20)
	big, bigCalls := read(20 << 30)
	if small != big || calls != bigCalls {
		t.Errorf("a core of 1 MiB costs %d bytes in %d reads, of 20 GiB %d in %d", small, calls, big, bigCalls)
	}
	if big > 1<<20 {
		t.Errorf("opening read %d bytes", big)
	}
}

func TestKernelView(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(2)
	c.Threads[0].Regs = map[int]uint64{target.RDI: 1, target.RSI: 2, target.RDX: 3, target.R10: 4, target.R8: 5, target.R9: 6, target.RCX: 99}
	c.Threads[1].NoSyscall = true
	v := open(t, c).KernelView()
	if v.PID.V != 4000 || v.PPID.V != 1 || v.Name.V != "mysqld" || len(v.Threads) != 2 {
		t.Errorf("%+v", v)
	}
	k := v.Threads[4000]
	if call := k.Syscall; !call.Known || call.Source != target.SourceRegisters || call.V.Number != 202 || call.V.Args != [6]uint64{1, 2, 3, 4, 5, 6} || !call.V.InCall() {
		t.Errorf("call %+v", call)
	}
	if uint64(k.SP.V) != c.Threads[0].SP || uint64(k.PC.V) != c.Threads[0].PC || k.SigBlocked.V != 0x87007 || k.Name.V != "mysqld" {
		t.Errorf("%+v", k)
	}
	if k.WaitChannel.Known || k.State.Known || v.FilesKnown {
		t.Error("a Linux core knows no wait channel, state or files")
	}
	if v.Threads[4001].Syscall.Known {
		t.Errorf("a thread outside of a call: %+v", v.Threads[4001].Syscall)
	}
	c.Style = coretest.GDB
	c.Threads[0].Blocked, c.Threads[1].Blocked = 0, 0
	if v := open(t, c).KernelView(); v.Threads[4000].SigBlocked.Known {
		t.Error("gcore's zero mask is known")
	}
}

// TestDuplicateLWP: two notes of one id are both listed; looking up gives the
// first.
func TestDuplicateLWP(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(3)
	c.Threads[2].LWP = 4001
	p := open(t, c)
	if len(p.Threads()) != 3 || p.Thread(4001) != p.Threads()[1] || !hasCode(p, elfcore.WarnDuplicateLWP) {
		t.Errorf("%d threads, %s", len(p.Threads()), codes(p))
	}
}

// TestManyWarnings: damage that repeats is reported a bounded number of times.
func TestManyWarnings(t *testing.T) {
	t.Parallel()
	c := coretest.Sample(1)
	for range 1000 {
		c.Segments = append(c.Segments, coretest.Segment{Addr: coretest.SampleHole, Perm: "r--", Size: 0x1000})
	}
	p := open(t, c)
	if n := len(p.Warnings()); n < 2 || n > 64 {
		t.Errorf("%d warnings", n)
	}
	if last := p.Warnings()[len(p.Warnings())-1]; last.Text != "more of the same is left out" {
		t.Errorf("%+v", last)
	}
}
