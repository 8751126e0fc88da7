package elfcore_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// fbReal is what the README of the shared cores lists.
var fbReal = []struct {
	file  string
	arch  target.Arch
	pid   int
	osrel int
	lwps  []int
	pcs   []target.Addr
	fault target.Addr // si_addr
	main  string
}{
	{"x86-64-freebsd-multithread.core", target.AMD64, 802, 1400008, []int{100744, 100720, 100745, 100746}, []target.Addr{0x2030c2, 0x800396b3c, 0x2030cd, 0x2030cd}, 0, "/usr/home/mgorny/a.out"},
	{"x86-64-freebsd.core", target.AMD64, 786, 1300130, []int{100654}, []target.Addr{0x20242b}, 0, "/usr/home/mgorny/llvm-project/lldb/test/Shell/Register/Core/Inputs/a.out"},
	{"x86-32-freebsd-multithread.core", target.I386, 810, 1400008, []int{100761, 100744, 100762, 100763}, []target.Addr{0x402ed1, 0x2057f78b, 0x402edc, 0x402edc}, 0, "/usr/home/mgorny/a.out"},
	{"x86-32-freebsd.core", target.I386, 796, 1300130, []int{100654}, nil, 0, "/usr/home/mgorny/llvm-project/lldb/test/Shell/Register/Core/Inputs/a.out"},
	{"aarch64-freebsd-multithread.core", target.ARM64, 961, 1400006, []int{100160, 100115, 100161, 100162}, []target.Addr{0x211fc4, 0x406267a8, 0x211fc8, 0x211fc8}, 0, "/home/mgorny/a.out"},
}

func TestFreeBSDReal(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(coretest.Cores(t), "freebsd")
	for _, c := range fbReal {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			p, err := elfcore.Open(filepath.Join(dir, c.file), elfcore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			info := p.Info()
			if info.OS != "freebsd" || info.Arch != c.arch || info.PID.V != c.pid || info.OSRel.V != c.osrel || info.Writer != elfcore.WriterKernel || info.Command.V != "a.out" || info.Args.V != "./a.out" || info.Exe.V != c.main {
				t.Errorf("%+v", info)
			}
			if s := info.Signal; s == nil || s.Signo != 11 || s.Code != 1 || !s.Addr.Known || s.PID.Known {
				t.Errorf("signal %+v", s)
			}
			for i, th := range p.Threads() {
				pc, ok := th.Regs.PC()
				if i >= len(c.lwps) || th.LWP != c.lwps[i] || !ok || c.pcs != nil && pc != c.pcs[i] || th.Name.V != "a.out" || th.CurSig != 11 || !th.SigBlocked.Known || th.SigBlocked.V != 0 || th.ThreadPointer.Known || th.OrigSyscall.Known {
					t.Errorf("thread %d: %d at %s, name %+v, %+v", i, th.LWP, pc, th.Name, th)
				}
			}
			if len(p.Threads()) != len(c.lwps) {
				t.Errorf("%d threads", len(p.Threads()))
			}
			files, ok := p.OpenFiles()
			if !ok || len(files) != 7 || files[0].Path != c.main || files[0].FD != -5 || files[6].FD != 2 || files[6].Path != "/dev/pts/0" {
				t.Errorf("files %v %+v", ok, files)
			}
			checkFreeBSDView(t, p, c.arch != target.I386)
			if err := use(p); err != nil {
				t.Error(err)
			}
			want := elfcore.WarnTruncated
			if c.arch == target.I386 {
				want = elfcore.WarnArch + " " + want
			}
			if got := codes(p); got != want {
				t.Errorf("warnings %s, want %s", got, want)
			}
		})
	}
}

// checkFreeBSDView: kernel cores record no wait message, and that is absent,
// never empty text.
func checkFreeBSDView(t *testing.T, p *elfcore.Process, full bool) {
	t.Helper()
	v := p.KernelView()
	if len(v.Threads) != len(p.Threads()) || len(v.Files) != 3 || !v.FilesKnown || !v.Cwd.Known || v.SigIgnored.Known != full {
		t.Errorf("view: %d threads, files %+v, directory %+v", len(v.Threads), v.Files, v.Cwd)
	}
	for lwp, k := range v.Threads {
		if k.WaitChannel.Known || k.WaitAddress.Known || k.Slept.Known {
			t.Errorf("thread %d waits: %+v", lwp, k)
		}
		if full && (k.SigIgnored.V != 0x18488000 || k.State.Known && k.State.V != "R") {
			t.Errorf("thread %d: %+v", lwp, k)
		}
	}
	main := 0
	for _, im := range p.Images() {
		if im.Source != elfcore.FromVMMap || im.VDSO {
			t.Errorf("image %+v", im)
		}
		if im.Main {
			main++
			if im.Path != p.Info().Exe.V {
				t.Errorf("main image %+v", im)
			}
		}
	}
	if main != 1 || len(p.Images()) < 7 {
		t.Errorf("%d main images of %d", main, len(p.Images()))
	}
	// The text of libc is mapped and file-backed, not dumped.
	for _, m := range p.Mappings() {
		if strings.HasSuffix(m.Path, "/libc.so.7") && m.Executable() {
			if where, _ := p.What(m.Start); where != elfcore.InFile || m.FileOff == 0 {
				t.Errorf("text of libc: %v, %+v", where, m)
			}
			return
		}
	}
	t.Error("no text of libc")
}

// TestFreeBSDRealCalls: LWP 100720 slept in pthread_join, interrupted with
// EINTR; the README and its register notes.
func TestFreeBSDRealCalls(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(coretest.Cores(t), "freebsd")
	for _, c := range []struct {
		file   string
		lwp    int
		number target.Value[int64]
		join   uint64
		lost0  bool
	}{
		{"x86-64-freebsd-multithread.core", 100720, target.Value[int64]{}, 100746, false},
		{"aarch64-freebsd-multithread.core", 100115, target.Known[int64](454, target.SourceRegisters), 100162, true},
	} {
		p, err := elfcore.Open(filepath.Join(dir, c.file), elfcore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		call, ok := p.SyscallState(p.Thread(c.lwp))
		if !ok || call.State != elfcore.CallInterrupted || call.Number != c.number || call.Args[1] != 2 || call.Args[2] != c.join || call.Lost[0] != c.lost0 {
			t.Errorf("%s: %+v", c.file, call)
		}
		faulting, _ := p.SyscallState(p.Threads()[0])
		if faulting.State != elfcore.CallNone {
			t.Errorf("%s: faulting thread %+v", c.file, faulting)
		}
	}
}

func TestFreeBSDRealLLDB(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("lldb")
	if err != nil {
		coretest.Absent(t, "lldb")
	}
	built := filepath.Join(t.TempDir(), "built.core")
	if _, err := fbSample().core().WriteFile(built); err != nil {
		t.Fatal(err)
	}
	compareLLDB(t, tool, built)
	dir := filepath.Join(coretest.Cores(t), "freebsd")
	for _, c := range fbReal {
		if c.arch == target.AMD64 { // lldb 14 loops for ever on the AArch64 core
			compareLLDB(t, tool, filepath.Join(dir, c.file))
		}
	}
}

// compareLLDB compares threads, their order and program counters.
func compareLLDB(t *testing.T, tool, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, tool, "--no-lldbinit", "--batch", "-o", "thread list", "-c", path).Output()
	if err != nil {
		t.Fatalf("lldb: %v", err)
	}
	type row struct {
		lwp int
		pc  string
	}
	var want, got []row
	for _, m := range regexp.MustCompile(`thread #\d+: tid = (\d+), 0x([0-9a-f]+)`).FindAllStringSubmatch(string(out), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, row{n, strings.TrimLeft(m[2], "0")})
	}
	p, err := elfcore.Open(path, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, th := range p.Threads() {
		pc, _ := th.Regs.PC()
		got = append(got, row{th.LWP, fmt.Sprintf("%x", uint64(pc))})
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("%s: %v, lldb has %v\n%s", path, got, want, out)
	}
}

func TestFreeBSDGcore(t *testing.T) {
	t.Parallel()
	w := fbSample()
	p := open(t, w.core())
	info := p.Info()
	if info.OS != "freebsd" || info.Writer != elfcore.WriterGcore || info.PID.V != 1158 || info.PPID.V != 1 || info.UID.V != 88 || info.GID.V != 89 ||
		info.Command.V != "mysqld" || info.Args.V != "/usr/local/libexec/mysqld --user=mysql" || info.Exe.V != "/usr/local/libexec/mysqld" ||
		info.OSRel.V != 1401000 || info.ExeOSRel.V != 1302001 || info.PSStrings.V != 0x7fffffffe000-64 {
		t.Errorf("%+v", info)
	}
	if info.Signal != nil {
		t.Errorf("gcore's own stop is the signal: %+v", info.Signal)
	}
	if got := codes(p); got != "" {
		t.Errorf("warnings: %s %v", got, p.Warnings())
	}
	if s := p.Threads()[0].Siginfo; s == nil || s.Signo != 17 || s.Errno != 3 || s.PID.V != 4711 || !s.UID.Known || s.Addr.Known {
		t.Errorf("siginfo %+v", s)
	}
	if p.Threads()[1].Siginfo != nil {
		t.Error("a siginfo that isn't marked as valid")
	}
	for i, th := range p.Threads() {
		want := w.threads[i]
		if th.LWP != want.lwp || th.Name.V != want.name || th.SigBlocked != target.Known(want.blocked, target.SourceCoreNote) || th.SigPending != target.Known(want.pending, target.SourceCoreNote) ||
			uint64(th.ThreadPointer.V) != want.tls || th.ThreadPointer.Known != (want.tls != 0) || th.Flags.V != want.flags {
			t.Errorf("thread %d: %+v", i, th)
		}
		for reg, at := range map[int]int{target.R15: 0, target.R14: 8, target.R13: 16, target.R12: 24, target.R11: 32, target.RBP: 80, target.RBX: 88} {
			if v, ok := th.Regs.Get(reg); !ok || v != 0xa500000000000000+uint64(at) {
				t.Errorf("thread %d: register %d is %#x", i, reg, v)
			}
		}
		for reg, at := range map[int]int{target.RAX: fbRAX, target.RDI: fbRDI, target.RSI: fbRSI, target.RDX: fbRDX, target.RCX: fbRCX, target.R10: fbR10, target.R8: fbR8, target.R9: fbR9, target.RIP: fbRIP, target.RSP: fbRSP} {
			if v, ok := th.Regs.Get(reg); !ok || v != want.regs[at] {
				t.Errorf("thread %d: register %d is %#x, want %#x", i, reg, v, want.regs[at])
			}
		}
	}
}

func TestFreeBSDKernelView(t *testing.T) {
	t.Parallel()
	p := open(t, fbSample().core())
	v := p.KernelView()
	if v.PID.V != 1158 || v.Cwd.V != "/var/db/mysql" || v.SigCaught.V != 0x80000000 || v.SigIgnored.V != 0x18488000 {
		t.Errorf("%+v", v)
	}
	note := func(s string) target.Value[string] { return target.Known(s, target.SourceCoreNote) }
	var none target.Value[string]
	for lwp, want := range map[int]struct {
		wait, state target.Value[string]
		number      target.Value[int64]
	}{
		100411: {none, none, target.Value[int64]{}},
		100460: {note("fifoor"), note("S"), target.Known[int64](499, target.SourceRegisters)},
		100461: {note("zio->io_"), note("D"), target.Known[int64](475, target.SourceRegisters)},
		100462: {none, none, target.Value[int64]{}},
		100463: {note("*vm map"), note("L"), target.Value[int64]{}},
	} {
		k := v.Threads[lwp]
		if k.WaitChannel != want.wait || k.State != want.state || k.Syscall.Known != want.number.Known || k.Syscall.V.Number != want.number.V && k.Syscall.Known {
			t.Errorf("thread %d: %+v", lwp, k)
		}
		if th := p.Thread(lwp); th.OrigSyscall != want.number {
			t.Errorf("thread %d: call %+v", lwp, th.OrigSyscall)
		}
	}
	k := v.Threads[100460]
	if k.WaitAddress != target.Known(target.Addr(0xfffff80004abc000), target.SourceCoreNote) || k.Slept.V != time.Hour || k.SigCaught.V != 0x80000000 {
		t.Errorf("%+v", k)
	}
	// The fourth argument comes from the slot of rcx, r10's is stale.
	if k.Syscall.V.Args != [6]uint64{0xffffff9c, fbStack + 0x100, 0, 0x4444, 0x5555, 0x6666} {
		t.Errorf("arguments %x", k.Syscall.V.Args)
	}
	if v.Threads[100462].Slept.Known || v.Threads[100462].WaitAddress.Known {
		t.Error("a thread that doesn't sleep has slept")
	}
}

func TestFreeBSDFiles(t *testing.T) {
	t.Parallel()
	v := open(t, fbSample().core()).KernelView()
	want := []kernelview.File{
		{FD: 0, Path: "/dev/null", Kind: kernelview.KindPath, Inode: 1000},
		{FD: 3, Path: "/tmp/ghost.fifo", Kind: kernelview.KindFIFO, Inode: 1003},
		{FD: 4, Path: "/tmp/log.fifo", Kind: kernelview.KindFIFO, Inode: 1004},
		{FD: 5, Path: "pipe", Kind: kernelview.KindPipe},
		{FD: 12, Path: "kqueue", Kind: kernelview.KindAnon},
		{FD: 13, Path: "type 99", Kind: kernelview.KindOther},
		{FD: 21, Path: "socket", Kind: kernelview.KindSocket, Protocol: "tcp", Local: "10.0.0.1:3306", Peer: "10.0.0.2:50000"},
		{FD: 22, Path: "socket", Kind: kernelview.KindSocket, Protocol: "tcp6", Local: "[2001:db8::1]:3306"},
		{FD: 23, Path: "socket", Kind: kernelview.KindSocket, Protocol: "unix", Local: "/tmp/mysql.sock"},
	}
	flags := []uint64{0, 0, 0xd, 2, 2, 0, 6, 6, 6} // O_RDONLY, ..., O_WRONLY|O_NONBLOCK|O_APPEND
	if len(v.Files) != len(want) {
		t.Fatalf("%d files: %+v", len(v.Files), v.Files)
	}
	for i, f := range v.Files {
		w := want[i]
		w.Flags, w.Source = target.Known(flags[i], target.SourceCoreNote), target.SourceCoreNote
		if f.Kind == kernelview.KindPath {
			w.Pos = target.Known[int64](4096, target.SourceCoreNote)
		}
		if f != w {
			t.Errorf("got  %+v\nwant %+v", f, w)
		}
	}
}

// fbBacking serves the text of the sample's libc.
type fbBacking map[string][]byte

func (b fbBacking) ReadFile(m *elfcore.Mapping, off uint64, buf []byte) (int, error) {
	file, ok := b[m.Path]
	if !ok {
		return 0, target.ErrFileMissing
	}
	if off >= uint64(len(file)) {
		return 0, nil
	}
	return copy(buf, file[off:]), nil
}

// fbFiles are the files of the sample: libc's text is at 0x1000.
func fbFiles() fbBacking {
	return fbBacking{"/lib/libc.so.7": append(make([]byte, 0x1000), fbCode()...), "/usr/local/libexec/mysqld": make([]byte, 0x6000)}
}

func TestFreeBSDMemory(t *testing.T) {
	t.Parallel()
	b := fbSample().core().Bytes()
	p := openBytes(t, b[:len(b)-0x800]).WithBacking(fbFiles()) // half of the last page, the stack's, is gone
	for _, tt := range []struct {
		at    target.Addr
		where elfcore.Where
		err   error
		first byte
	}{
		{fbLibcX + 2, elfcore.InFile, nil, 0xb8},
		{fbData, elfcore.InCore, nil, 0},
		{fbStack, elfcore.InCore, nil, 0xa5},
		{fbStack + 0x900, elfcore.Truncated, target.ErrTruncated, 0},
		{fbStack - 0x1000, elfcore.NotDumped, target.ErrNotDumped, 0}, // guard
		{fbLibcX + 0x1000, elfcore.NotDumped, target.ErrNotDumped, 0}, // writable: may differ from the file
		{0x1000, elfcore.NotMapped, target.ErrNotMapped, 0},
	} {
		var buf [1]byte
		_, err := p.ReadMemory(tt.at, buf[:])
		where, m := p.What(tt.at)
		if where != tt.where || !errors.Is(err, tt.err) || err == nil && buf[0] != tt.first || (m == nil) != (tt.where == elfcore.NotMapped) {
			t.Errorf("%s: %v, %v, byte %#x", tt.at, where, err, buf[0])
		}
	}
	var buf [1]byte
	if _, err := openBytes(t, b).ReadMemory(fbLibcX, buf[:]); !errors.Is(err, target.ErrFileMissing) {
		t.Errorf("without files: %v", err)
	}
	if m := p.Mapping(fbStack); m == nil || m.Perm != "rw-" { // gcore's header says rwx
		t.Errorf("%+v", m)
	}
	if m := p.Mapping(fbAnon); m == nil || m.FileOff != 0 || m.Path != "" {
		t.Errorf("anonymous memory has a file: %+v", m)
	}
}

func TestFreeBSDImages(t *testing.T) {
	t.Parallel()
	w := fbSample()
	imgs := open(t, w.core()).Images()
	if len(imgs) != 2 || imgs[0].Path != "/usr/local/libexec/mysqld" || !imgs[0].Main || imgs[0].Base != fbExe || imgs[0].End != fbData+0x1000 ||
		imgs[1].Path != "/lib/libc.so.7" || imgs[1].Base != fbLibc || imgs[1].End != fbLibcX+0x2000 || imgs[1].Main || imgs[1].VDSO {
		t.Errorf("%+v", imgs)
	}
	// A path that the kernel couldn't name any more comes from the list of
	// open files, which has the executable by inode.
	for i := range 3 {
		start, end, off := le.Uint64(w.maps[i][8:]), le.Uint64(w.maps[i][16:]), le.Uint64(w.maps[i][24:])
		w.maps[i] = fbMap(2, start, end, off, 995, le.Uint32(w.maps[i][56:]), "")
	}
	if imgs := open(t, w.core()).Images(); len(imgs) != 2 || imgs[0].Path != "/usr/local/libexec/mysqld" || !imgs[0].Main {
		t.Errorf("unnamed: %+v", imgs)
	}
}

// TestFreeBSDCalls: the table of states, with and without the code.
func TestFreeBSDCalls(t *testing.T) {
	t.Parallel()
	const behind1, on1, behind2, on2 = fbLibcX + 0x0c, fbLibcX + 0x0a, fbLibcX + 0x18, fbLibcX + 0x16
	none := target.Value[int64]{}
	regs := func(n int64) target.Value[int64] { return target.Known(n, target.SourceRegisters) }
	code := func(n int64) target.Value[int64] { return target.Known(n, target.SourceCode) }
	for _, tt := range []struct {
		name        string
		pc, rax     uint64
		cf          bool
		wmesg       string
		noKinfo     bool
		state       elfcore.CallState
		number      target.Value[int64]
		blind       elfcore.CallState // without the files
		blindNumber target.Value[int64]
	}{
		{"asleep", behind1, 499, false, "fifoor", false, elfcore.CallEntered, regs(499), elfcore.CallEntered, regs(499)},
		{"asleep, carry left from before", behind1, 499, true, "fifoor", false, elfcore.CallEntered, regs(499), elfcore.CallEntered, regs(499)},
		{"asleep in a page fault of its code", fbText + 0x20, 499, false, "pfault", false, elfcore.CallNone, none, elfcore.CallUnclear, none},
		{"asleep in a page fault of a call", behind1, 499, false, "pfault", false, elfcore.CallEntered, regs(499), elfcore.CallUnclear, none},
		{"asleep, impossible number", behind1, 1 << 40, false, "sbwait", false, elfcore.CallEntered, regs(1 << 40), elfcore.CallUnclear, none},
		{"restart", on1, 499, false, "", false, elfcore.CallRestarting, regs(499), elfcore.CallUnclear, none},
		{"restart, old stub", on2, 454, true, "", false, elfcore.CallRestarting, regs(454), elfcore.CallUnclear, none},
		{"EINTR", behind1, 4, true, "", false, elfcore.CallInterrupted, code(499), elfcore.CallInterrupted, none},
		{"EINTR, old stub", behind2, 4, true, "", false, elfcore.CallInterrupted, code(454), elfcore.CallInterrupted, none},
		{"4 without carry is a result", behind2, 4, false, "", false, elfcore.CallReturned, none, elfcore.CallUnclear, none},
		{"another error", behind2, 35, true, "", false, elfcore.CallFailed, none, elfcore.CallUnclear, none},
		{"carry and no error number", behind2, 4096, true, "", false, elfcore.CallReturned, none, elfcore.CallUnclear, none},
		{"returned a number that is its own", behind1, 499, false, "", false, elfcore.CallReturned, none, elfcore.CallUnclear, none},
		{"no record, number still there", behind1, 499, false, "", true, elfcore.CallEntered, regs(499), elfcore.CallUnclear, none},
		{"no record, result", behind1, 7, false, "", true, elfcore.CallReturned, none, elfcore.CallUnclear, none},
		{"its own code", fbText + 0x20, 4, true, "", false, elfcore.CallNone, none, elfcore.CallInterrupted, none},
	} {
		w := fbSample()
		th := &w.threads[1]
		th.regs[fbRIP], th.regs[fbRAX], th.wmesg, th.noKinfo, th.flags = tt.pc, tt.rax, tt.wmesg, tt.noKinfo, 0x246
		if tt.cf {
			th.flags |= 1
		}
		p := open(t, w.core())
		q := p.WithBacking(fbFiles())
		got, ok := q.SyscallState(q.Thread(100460))
		if !ok || got.State != tt.state || got.Number != tt.number || got.How == "" || got.Args[1] != fbStack+0x100 || got.Args[3] != 0x4444 {
			t.Errorf("%s: %+v", tt.name, got)
		}
		if k := q.KernelView().Threads[100460]; k.Syscall.Known != (tt.number.Known && tt.state.Blocked()) || k.Syscall.Known && (k.Syscall.V.Number != tt.number.V || k.Syscall.Source != tt.number.Source) {
			t.Errorf("%s: view %+v", tt.name, k.Syscall)
		}
		blind, _ := p.SyscallState(p.Thread(100460))
		if blind.State != tt.blind || blind.Number != tt.blindNumber {
			t.Errorf("%s, without files: %+v", tt.name, blind)
		}
	}
	// syscall(2) passes the real call on.
	w := fbSample()
	w.threads[1].regs[fbRAX], w.threads[1].regs[fbRDI] = 0, 481
	p := open(t, w.core()).WithBacking(fbFiles())
	if c, _ := p.SyscallState(p.Thread(100460)); c.Number != regs(481) || c.Args != [6]uint64{fbStack + 0x100, 0, 0x4444, 0x5555, 0x6666, 0} || !c.Lost[5] {
		t.Errorf("indirect call: %+v", c)
	}
	if _, ok := open(t, coretest.Sample(1)).SyscallState(&elfcore.Thread{}); ok {
		t.Error("a Linux core has states of FreeBSD")
	}
}

func TestFreeBSDARM64(t *testing.T) {
	t.Parallel()
	const pac = 0x7f << 48
	w := fbSample()
	w.machine = coretest.ARM64
	for i := range w.threads {
		w.threads[i].regs = map[int]uint64{0: 0xffffff9c, 8: fbStack, 16: 2, 24: 3, 32: 4, 40: 5, 64: 499, 240: 0x1234, 248: fbStack + 0x800, 256: fbLibcX + 4 | pac}
		w.threads[i].flags = 0x60000000
	}
	w.threads[0].regs[0] = 4 // EINTR, carry is set
	w.threads[3].flags, w.threads[3].regs[256] = 0x40000000, fbLibcX
	w.threads[1].flags = 0x40000000
	w.more = nil
	c := w.core()
	mask := coretest.Note{Owner: "FreeBSD", Type: fbNTArmMask, Desc: le.AppendUint64(le.AppendUint64(nil, pac), 0)}
	for i, n := range c.Notes { // behind the first thread's registers
		if n.Type == fbNTPrstatus {
			c.Notes = slices.Insert(c.Notes, i+1, mask)
			break
		}
	}
	p := open(t, c)
	for i, th := range p.Threads() {
		pc, _ := th.Regs.PC()
		sp, _ := th.Regs.SP()
		lr, _ := th.Regs.Get(target.A64LR)
		x29, _ := th.Regs.Get(29)
		if want := w.threads[i]; uint64(pc) != want.regs[256]&^pac || sp != fbStack+0x800 || lr != 0x1234 || x29 != 0xa500000000000000+232 || uint64(th.ThreadPointer.V) != want.tls || th.Flags.V != want.flags {
			t.Errorf("thread %d: pc %s sp %s lr %#x x29 %#x, %+v", i, pc, sp, lr, x29, th)
		}
	}
	text := append(make([]byte, 0x1000), "\x01\x00\x00\xd4\x01\x00\x00\xd5"...)
	q := p.WithBacking(fbBacking{"/lib/libc.so.7": text})
	for lwp, want := range map[int]elfcore.CallState{100411: elfcore.CallInterrupted, 100460: elfcore.CallEntered, 100462: elfcore.CallRestarting} {
		got, ok := q.SyscallState(q.Thread(lwp))
		if !ok || got.State != want || got.Number != target.Known[int64](499, target.SourceRegisters) || got.Lost[0] != (lwp == 100411) || got.Args[1] != fbStack {
			t.Errorf("thread %d: %+v", lwp, got)
		}
	}
}

// TestFreeBSDWriters: who wrote it, and so what its signal and state mean.
func TestFreeBSDWriters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		flag   uint64
		sig    int
		writer string
		signal bool
		noProc bool
	}{
		{0x10040802, 0, elfcore.WriterGcore, false, false},
		{0x10000802, 6, elfcore.WriterGcore, false, false}, // gcore -k: the kernel formats the notes of a held process
		{0x10084082, 11, elfcore.WriterKernel, true, false},
		{0x10084882, 11, elfcore.WriterKernel, true, false}, // crashed under a debugger
		{0x10004002, 11, elfcore.WriterKernel, true, false}, // one thread: measured
		{0x10084082, 0, elfcore.WriterKernel, false, false},
		{0x10004002, 0, elfcore.WriterUnknown, false, false},
		{0, 11, elfcore.WriterKernel, true, true},
		{0, 0, elfcore.WriterUnknown, false, true},
	} {
		w := fbSample()
		w.flag = tt.flag
		w.threads[0].siginfo = nil
		for i := range w.threads {
			w.threads[i].cursig = tt.sig
		}
		w.edit = func(typ uint32, _ int, d []byte) []byte {
			if tt.noProc && typ == fbNTProc {
				return nil
			}
			return d
		}
		p := open(t, w.core())
		if info := p.Info(); info.Writer != tt.writer || info.WriterReason == "" || (info.Signal != nil) != tt.signal || tt.signal && info.Signal.Signo != tt.sig {
			t.Errorf("%#x, signal %d: %s (%s), %+v", tt.flag, tt.sig, info.Writer, info.WriterReason, info.Signal)
		}
	}
	// A process that a person had stopped says so; the dump's own stop doesn't.
	w := fbSample()
	w.flag = 0x10020002
	if k := open(t, w.core()).KernelView().Threads[100462]; k.State.V != "T" {
		t.Errorf("stopped: %+v", k.State)
	}
}

// TestFreeBSDCrash: the signal of a kernel core with its address, and the
// kernel's version from PRSTATUS where the auxiliary vector lacks it.
func TestFreeBSDCrash(t *testing.T) {
	t.Parallel()
	w := fbSample()
	w.flag, w.auxv = 0x10084082, nil
	for i := range w.threads {
		w.threads[i].cursig = 11
	}
	w.threads[0].siginfo = fbSiginfo(11, 2, 0, 0, 0xdeadbeef)
	p := open(t, w.core())
	if s := p.Info().Signal; s == nil || s.Signo != 11 || s.Code != 2 || s.Addr != target.Known[target.Addr](0xdeadbeef, target.SourceCoreNote) || s.PID.Known {
		t.Errorf("%+v", s)
	}
	if p.Info().OSRel.V != 1400008 {
		t.Errorf("%+v", p.Info().OSRel)
	}
	w.threads[0].siginfo = fbSiginfo(6, 0x10007, 1158, 88, 0xdeadbeef) // abort
	if s := open(t, w.core()).Info().Signal; s.Addr.Known || s.PID.V != 1158 || s.UID.V != 88 {
		t.Errorf("%+v", s)
	}
	w.flag = 0x10040802 // gcore writes the version that it was compiled for
	for i := range w.threads {
		w.threads[i].cursig = 0
	}
	if v := open(t, w.core()).Info().OSRel; v.Known {
		t.Errorf("%+v", v)
	}
}

// TestFreeBSDNoWait: fields of a record that mean nothing without their flag.
func TestFreeBSDNoWait(t *testing.T) {
	t.Parallel()
	w := fbSample()
	w.threads[4].kiflag = 1            // a lock's name without KI_LOCKBLOCK is a leftover
	w.threads[1].slept = 21474278      // the tick counter: measured
	w.threads[2].wmesg = "pfault"      // perhaps in no call
	w.threads[3].regs[fbRAX] = 1 << 40 // asleep, but that is no number
	w.threads[3].wmesg = "zcw->zcw_cv"[:8]
	p := open(t, w.core())
	v := p.KernelView()
	if k := v.Threads[100463]; k.WaitChannel.Known || k.State.V != "L" {
		t.Errorf("%+v", k)
	}
	if k := v.Threads[100460]; k.Slept.Known || !k.WaitAddress.Known {
		t.Errorf("%+v", k)
	}
	if th := p.Thread(100461); th.OrigSyscall.Known || v.Threads[100461].WaitChannel.V != "pfault" {
		t.Errorf("%+v", th.OrigSyscall)
	}
	if th := p.Thread(100462); th.OrigSyscall.Known || v.Threads[100462].WaitChannel.V != "zcw->zcw" {
		t.Errorf("%+v", th.OrigSyscall)
	}
}

// TestFreeBSDOld: 10.x has no PTLWPINFO and no pid in PRPSINFO.
func TestFreeBSDOld(t *testing.T) {
	t.Parallel()
	w := fbSample()
	w.pid = -1
	w.edit = func(typ uint32, _ int, d []byte) []byte {
		if typ == fbNTLwpinfo || typ == fbNTThrmisc {
			return nil
		}
		return d
	}
	p := open(t, w.core())
	if p.Info().PID != target.Known(1158, target.SourceCoreNote) || codes(p) != "" {
		t.Errorf("pid %+v, warnings %s", p.Info().PID, codes(p))
	}
	for i, th := range p.Threads() {
		if w := w.threads[i]; th.SigBlocked != target.Known(w.blocked, target.SourceCoreNote) || th.SigPending.V != w.pending || th.Name.V != w.name || th.Siginfo != nil {
			t.Errorf("thread %d: %+v", i, th)
		}
	}
}

// TestFreeBSDManySegments: kernel and gcore of FreeBSD 10 store a count above
// 65,535 in 16 bits.
func TestFreeBSDManySegments(t *testing.T) {
	t.Parallel()
	c := fbSample().core()
	c.PadSegments = 66000
	b, _ := c.Build()
	newer := openBytes(t, b)
	count := 66000 + len(c.Segments)
	old := slices.Clone(b)
	le.PutUint16(old[56:], uint16(count+1))
	le.PutUint64(old[40:], 0)
	le.PutUint16(old[60:], 0)
	for name, p := range map[string]*elfcore.Process{"PN_XNUM": newer, "wrapped": openBytes(t, old)} {
		if n := len(p.Mappings()); n < 66000 || len(p.Threads()) != 5 || codes(p) != "" {
			t.Errorf("%s: %d mappings, %d threads, %s", name, n, len(p.Threads()), codes(p))
		}
	}
	old[7] = 0 // not FreeBSD's header: the count stands
	if n := len(openBytes(t, old).Mappings()); n > 1000 {
		t.Errorf("%d mappings without the reason", n)
	}
}
