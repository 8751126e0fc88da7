package story

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/modules"
	"mycore/internal/target"
	"mycore/internal/unwind"
)

// rawNote is a note as it lies in a core.
type rawNote struct {
	owner string
	typ   uint32
	desc  []byte
}

// readNotes reads the first program header's notes, which must be PT_NOTE. It
// is written for this test alone.
func readNotes(t *testing.T, core []byte) []rawNote {
	t.Helper()
	le := binary.LittleEndian
	ph := core[le.Uint64(core[32:]):]
	if le.Uint32(ph) != 4 {
		t.Fatal("the first program header isn't PT_NOTE")
	}
	off, size := le.Uint64(ph[8:]), le.Uint64(ph[32:])
	b := core[off : off+size]
	up := func(n uint32) int { return int(n+3) &^ 3 }
	var out []rawNote
	for len(b) > 0 {
		n, d := le.Uint32(b), le.Uint32(b[4:])
		end := 12 + up(n) + up(d)
		out = append(out, rawNote{string(b[12 : 12+n]), le.Uint32(b[8:]), b[12+up(n):][:d]})
		b = b[end:]
	}
	return out
}

func realCore(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(coretest.Cores(t), "freebsd", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// places returns the offsets at which a value stands.
func places(b, value []byte) []int {
	var out []int
	for i := 0; i+len(value) <= len(b); i++ {
		if bytes.Equal(b[i:i+len(value)], value) {
			out = append(out, i)
		}
	}
	return out
}

func word32(v int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }
func cstring(s string) []byte {
	return append([]byte(s), 0)
}

// TestLayoutOfRealCores holds the builder's layout against cores that FreeBSD's
// kernel wrote: order and sizes of the notes, structure sizes, and the offsets
// of ids and names.
func TestLayoutOfRealCores(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	for _, name := range []string{"x86-64-freebsd-multithread.core", "x86-64-freebsd.core"} {
		realBytes := realCore(t, name)
		s := Build(Options{Release: 13, KernelCore: true})
		for _, at := range []struct{ off, n int }{{0, 16}, {16, 8}, {32, 8}, {52, 4}, {58, 2}} {
			if name == "x86-64-freebsd.core" && at.off == 58 {
				continue
			}
			if a, b := realBytes[at.off:at.off+at.n], s.Core[at.off:at.off+at.n]; !bytes.Equal(a, b) {
				t.Errorf("%s: ELF header at %d: %x, the story's %x", name, at.off, a, b)
			}
		}
		if a, b := realBytes[64:], s.Core[64:]; !bytes.Equal(a[:8], b[:8]) || !bytes.Equal(a[16:32], b[16:32]) || !bytes.Equal(a[40:56], b[40:56]) {
			t.Errorf("%s: program header of the notes: %x, the story's %x", name, a[:56], b[:56])
		}
		theirs, ours := readNotes(t, realBytes), readNotes(t, s.Core)

		// The order: one note, the same run for every thread, then the process.
		shape := func(notes []rawNote) (run []string) {
			end := slices.IndexFunc(notes, func(n rawNote) bool { return n.typ == ntProc })
			var all []string
			for _, n := range notes[1:end] {
				all = append(all, fmt.Sprintf("%q %d", n.owner, n.typ))
			}
			next := slices.Index(all[1:], all[0])
			if run = all; next >= 0 {
				run = all[:next+1]
			}
			if again := slices.Repeat(run, len(all)/len(run)); notes[0].typ != ntPrpsinfo || !slices.Equal(again, all) {
				t.Errorf("%s: first %d, threads %v", name, notes[0].typ, all)
			}
			return run
		}
		if a, b := shape(theirs), shape(ours); !slices.Equal(a, b) {
			t.Errorf("%s: notes of a thread %v, the story's %v", name, a, b)
		}
		tail := func(notes []rawNote) (out []string) {
			for _, n := range notes[len(notes)-9:] {
				size := fmt.Sprint(le.Uint32(n.desc))
				switch n.typ {
				case ntUmask, ntRlimit, ntOsrel, ntPSStrings:
					size += fmt.Sprintf(" in %d", len(n.desc))
				}
				out = append(out, fmt.Sprintf("%q %d: structure size %s", n.owner, n.typ, size))
			}
			return out
		}
		if a, b := tail(theirs), tail(ours); !slices.Equal(a, b) {
			t.Errorf("%s: notes of the process\n%v, the story's\n%v", name, a, b)
		}
		for i := range 6 {
			if len(theirs[i].desc) != len(ours[i].desc) {
				t.Errorf("%s: note %d has %d bytes, the story's %d", name, theirs[i].typ, len(theirs[i].desc), len(ours[i].desc))
			}
		}

		find := func(notes []rawNote, typ uint32) []byte {
			i := slices.IndexFunc(notes, func(n rawNote) bool { return n.typ == typ })
			return notes[i].desc
		}
		pid, lwp := 802, 100744
		if name == "x86-64-freebsd.core" {
			pid, lwp = 786, 100654
		}
		ourLWP := s.Threads[0].LWP
		theirProc, ourProc := find(theirs, ntProc), find(ours, ntProc)
		if (len(theirProc)-4)%1088 != 0 || (len(ourProc)-4)%1088 != 0 || (len(ourProc)-4)/1088 != len(s.Threads) {
			t.Errorf("PROC: %d and %d bytes", len(theirProc), len(ourProc))
		}
		// The kernel's list of threads has another order than the notes.
		first := 0
		for i := 0; 4+i*1088 < len(theirProc); i++ {
			if le.Uint32(theirProc[4+i*1088+600:]) == uint32(lwp) {
				first = i
			}
		}
		theirKinfo, ourKinfo := theirProc[4+first*1088:][:1088], ourProc[4:][:1088]
		for _, c := range []struct {
			what         string
			a, b         []byte
			theirs, ours []byte
			within       bool // the story's places are some of theirs
		}{
			{"LWP in PRSTATUS", find(theirs, ntPrstatus)[:48], find(ours, ntPrstatus)[:48], word32(lwp), word32(ourLWP), false},
			{"size of PRSTATUS", find(theirs, ntPrstatus)[:48], find(ours, ntPrstatus)[:48], word32(224), word32(224), false},
			{"size of the registers", find(theirs, ntPrstatus)[:48], find(ours, ntPrstatus)[:48], word32(176), word32(176), false},
			{"cs", find(theirs, ntPrstatus)[176:200], find(ours, ntPrstatus)[176:200], word32(0x43), word32(0x43), false},
			{"segments", find(theirs, ntPrstatus)[168:184], find(ours, ntPrstatus)[168:184], []byte{0x13, 0, 0x1b, 0}, []byte{0x13, 0, 0x1b, 0}, false},
			{"ss", find(theirs, ntPrstatus)[208:], find(ours, ntPrstatus)[208:], word32(0x3b), word32(0x3b), false},
			{"name in THRMISC", find(theirs, ntThrmisc), find(ours, ntThrmisc), cstring("a.out"), cstring("mysqld"), false},
			{"LWP in PTLWPINFO", find(theirs, ntLWPInfo), find(ours, ntLWPInfo), word32(lwp), word32(ourLWP), false},
			{"name in PTLWPINFO", find(theirs, ntLWPInfo), find(ours, ntLWPInfo), cstring("a.out"), cstring("mysqld"), false},
			{"command in PRPSINFO", find(theirs, ntPrpsinfo), find(ours, ntPrpsinfo), []byte("\x00a.out\x00"), []byte("\x00mysqld\x00"), false},
			{"pid in PRPSINFO", find(theirs, ntPrpsinfo), find(ours, ntPrpsinfo), word32(pid), word32(PID), false},
			{"pid", theirKinfo, ourKinfo, word32(pid), word32(PID), true},
			{"LWP", theirKinfo, ourKinfo, word32(lwp), word32(ourLWP), false},
			{"names", theirKinfo, ourKinfo, cstring("a.out"), cstring("mysqld"), false},
			{"emulation", theirKinfo, ourKinfo, cstring("FreeBSD ELF64"), cstring("FreeBSD ELF64"), false},
			{"login, behind the wait message", theirKinfo, ourKinfo, cstring("mgorny"), cstring("root"), true},
			{"structure size", theirKinfo, ourKinfo, word32(1088), word32(1088), false},
			{"path in FILES", find(theirs, ntFiles), find(ours, ntFiles), []byte("/usr/home/mgorny/"), []byte("/usr/local/libexec/"), true},
			{"xcr0 in XSTATE", find(theirs, ntXstate)[464:472], find(ours, ntXstate)[464:472], word32(7), word32(7), true},
		} {
			a, b := places(c.a, c.theirs), places(c.b, c.ours)
			switch {
			case len(a) == 0 || len(b) == 0:
				t.Errorf("%s: %s isn't there: %v, %v", name, c.what, a, b)
			case c.within && !slices.Contains(a, b[0]), !c.within && !slices.Equal(a, b):
				t.Errorf("%s: %s at %v, the story's at %v", name, c.what, a, b)
			}
		}
		// Threads in a stop by the kernel's exit: state, and no wait message.
		if name == "x86-64-freebsd-multithread.core" {
			bystander := func(proc []byte, lwp int) []byte {
				for i := 4; i < len(proc); i += 1088 {
					if le.Uint32(proc[i+600:]) == uint32(lwp) {
						return proc[i:][:1088]
					}
				}
				t.Fatal("no thread", lwp)
				return nil
			}
			a, b := bystander(theirProc, 100720), bystander(ourProc, 100440)
			if a[388] != b[388] || a[411] != 0 || b[411] != 0 || le.Uint64(a[64:]) != le.Uint64(b[64:]) || le.Uint64(a[368:])&0x80800 != le.Uint64(b[368:])&0x80800 {
				t.Errorf("bystanders: state %d and %d, flags %#x and %#x", a[388], b[388], le.Uint64(a[368:]), le.Uint64(b[368:]))
			}
		}
		// Mappings: each entry's own size leads to the next, path at 136.
		for _, d := range [][]byte{find(theirs, ntVMMap), find(ours, ntVMMap)} {
			at, last, libthr := 4, uint64(0), 0
			for at+136 < len(d) && le.Uint32(d[at:]) != 0 {
				n := int(le.Uint32(d[at:]))
				if start := le.Uint64(d[at+8:]); n%8 != 0 || n < 144 || start < last || le.Uint64(d[at+16:]) <= start {
					t.Fatalf("entry of %d bytes at %d", n, at)
				}
				last = le.Uint64(d[at+16:])
				path, _, _ := bytes.Cut(d[at+136:at+n], []byte{0})
				if string(path) == LibthrPath {
					libthr++
				}
				if d[at+4] == 2 && len(path) == 0 || d[at+4] != 2 && len(path) != 0 {
					t.Errorf("type %d with path %q", d[at+4], path)
				}
				at += n
			}
			if libthr == 0 && name != "x86-64-freebsd.core" {
				t.Errorf("no mapping of %s", LibthrPath)
			}
		}
	}
}

// run runs an independent reader with a deadline: lldb never ends on some
// cores.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		coretest.Absent(t, name)
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

// TestLLDB shows that a debugger lists the same process and threads.
func TestLLDB(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Release: 13, SegBases: true}, {KernelCore: true}, {OldNotes: true}} {
		s := Build(o)
		core, _, err := s.Write(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		out := run(t, "lldb", "--no-lldbinit", "--batch", "-c", core, "-o", "thread list", "-o", "memory read -s1 -fc -c16 0x7ffffd1a3c80")
		if !strings.Contains(out, "Process 1158 stopped") && !o.OldNotes {
			t.Errorf("%+v: lldb shows another process:\n%s", o, out)
		}
		var got, want []string
		for _, m := range regexp.MustCompile(`thread #\d+: tid = (\d+), (0x[0-9a-f]+).*name = 'mysqld'`).FindAllStringSubmatch(out, -1) {
			got = append(got, m[1]+" "+m[2])
		}
		for _, th := range s.Threads {
			want = append(want, fmt.Sprintf("%d 0x%016x", th.LWP, th.Regs["rip"]))
		}
		if !slices.Equal(got, want) || len(got) != 23 || s.Threads[0].LWP != 100411 || s.Threads[22].LWP != 100461 {
			t.Errorf("%+v: lldb lists %v, built were %v", o, got, want)
		}
		if !strings.Contains(out, `/tmp/ghost.fifo\0`) {
			t.Errorf("lldb doesn't show the path:\n%s", out)
		}
	}
}

// TestReadelf shows that binutils and elfutils read core and images.
func TestReadelf(t *testing.T) {
	t.Parallel()
	s := Build(Options{LocalSymbols: true})
	core, sysroot, err := s.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := run(t, "readelf", "-n", "-l", core)
	for name, n := range map[string]int{"NT_PRSTATUS": 23, "NT_THRMISC": 23, "NT_PTLWPINFO": 23, "NT_PROCSTAT_PROC": 1, "NT_PROCSTAT_VMMAP": 1, "NT_PROCSTAT_AUXV": 1, "Warning": 0} {
		if got := strings.Count(out, name); got != n {
			t.Errorf("readelf shows %s %d times, want %d", name, got, n)
		}
	}
	if out := run(t, "eu-readelf", "-n", core); strings.Count(out, "PRSTATUS") != 23 {
		t.Errorf("eu-readelf -n:\n%s", out)
	}
	for _, p := range []string{MysqldPath, LibthrPath, LibcPath, RtldPath} {
		file := filepath.Join(sysroot, p)
		out := run(t, "readelf", "-W", "-a", "--debug-dump=frames", file)
		if strings.Contains(out, "Warning") || strings.Contains(out, "Error") {
			t.Errorf("readelf on %s:\n%s", p, regexp.MustCompile(`(?m)^.*(Warning|Error).*$`).FindAllString(out, 5))
		}
		if !strings.Contains(out, "NT_VERSION") || !strings.Contains(out, "Build ID") {
			t.Errorf("%s: no ABI note or build ID", p)
		}
		f, err := elf.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.DynamicSymbols(); err != nil || f.OSABI != elf.ELFOSABI_FREEBSD {
			t.Errorf("%s: %v, %v", p, f.OSABI, err)
		}
		f.Close()
	}
	code := run(t, "objdump", "-d", "--no-show-raw-insn", "--disassemble=__sys_open", filepath.Join(sysroot, LibcPath))
	if !regexp.MustCompile(`mov +\$0x5,%eax\n.*mov +%rcx,%r10\n.*syscall`).MatchString(code) {
		t.Errorf("the stub is\n%s", code)
	}
	if code := run(t, "objdump", "-d", "--disassemble=my_open", filepath.Join(sysroot, MysqldPath)); strings.Contains(code, "(bad)") || !strings.Contains(code, "mov    %rdi,%rbx") {
		t.Errorf("my_open is\n%s", code)
	}
}

// TestFacts checks what the story tells.
func TestFacts(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	for _, o := range []Options{{}, {Release: 12}, {Release: 13, LocalSymbols: true}, {KernelCore: true}, {NoStubCFI: true}} {
		s := Build(o)
		read := func(addr uint64, n int) []byte {
			for i := range int(le.Uint16(s.Core[56:])) {
				ph := s.Core[64+56*i:]
				if start := le.Uint64(ph[16:]); le.Uint32(ph) == 1 && addr >= start && addr-start+uint64(n) <= le.Uint64(ph[32:]) {
					return s.Core[le.Uint64(ph[8:])+addr-start:][:n]
				}
			}
			t.Fatalf("no memory at %#x", addr)
			return nil
		}
		if v := le.Uint64(read(0x829e76000, 8)); v != 0x1886c {
			t.Errorf("%+v: first word %#x", o, v)
		}
		if text := read(0x7ffffd1a3c80, 16); string(text) != "/tmp/ghost.fifo\x00" {
			t.Errorf("%+v: %q", o, text)
		}
		if len(s.Threads) != 23 {
			t.Fatalf("%d threads", len(s.Threads))
		}
		th := s.Threads[21]
		want := []string{"__sys_open", "__open", "my_open", "_Z10mysql_loadP3THDP12sql_exchangeP10TABLE_LISTR4ListI4ItemES8_S8_15enum_duplicatesbb",
			"_Z21mysql_execute_commandP3THD", "_Z11mysql_parseP3THDPcjP12Parser_state", "_Z16dispatch_command19enum_server_commandP3THDPcj",
			"_Z10do_commandP3THD", "_Z24do_handle_one_connectionP3THD", "handle_one_connection", "thread_start"}
		var got []string
		for i, f := range th.Frames {
			got = append(got, f.Function)
			// Each return address stands where the frame's call pushed it.
			if i > 0 {
				if ret := le.Uint64(read(th.Frames[i].SP-8, 8)); ret != f.PC {
					t.Errorf("frame %d: %#x on the stack, not %#x", i, ret, f.PC)
				}
			}
		}
		if th.LWP != ConnLWP || th.Wmesg != "fifoor" || !slices.Equal(got, want) {
			t.Errorf("%+v: LWP %d, %q, %v", o, th.LWP, th.Wmesg, got)
		}
		if f := th.Frames[2]; f.PC-f.Start != 29 {
			t.Errorf("frame 2 is my_open+%d", f.PC-f.Start)
		}
		if th.Regs["rdi"] != NameAddr || th.Regs["rsi"] != 0 || th.Regs["rax"] != sysOpen || th.Regs["rdx"] != 0o664 {
			t.Errorf("registers %#v", th.Regs)
		}
		// libthr's open saved the path of frame 2, which lies in rbx, on the
		// stack.
		found := false
		for a := th.Frames[1].SP; a < th.Frames[2].SP; a += 8 {
			found = found || le.Uint64(read(a, 8)) == NameAddr
		}
		if !found {
			t.Error("frame 1 doesn't save the path")
		}
		top := le.Uint64(read(th.StackTop-8, 8))
		if top != 0 || th.Frames[10].SP <= th.StackLow || th.Frames[10].SP >= th.StackTop {
			t.Errorf("stack ends with %#x", top)
		}
		kernel := ""
		if !o.KernelCore {
			kernel = "fifoor"
		}
		if th.InCore != kernel || s.Threads[0].InCore != "" || s.Threads[0].Regs["rax"] != 4 || s.Threads[0].Regs["rflags"]&1 == 0 {
			t.Errorf("%+v: in the core %q, leader %+v", o, th.InCore, s.Threads[0])
		}
		if o.KernelCore != (th.Regs["rip"] == th.Frames[0].PC-2) {
			t.Errorf("%+v: pc %#x", o, th.Regs["rip"])
		}
	}
}

// TestWaitMessages checks what the real cores can't show, because kernel cores
// have lost it: ki_wchan at 64, ki_wmesg at 411 (sys/sys/user.h).
func TestWaitMessages(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	for _, o := range []Options{{}, {Release: 13}} {
		s := Build(o)
		notes := readNotes(t, s.Core)
		i := slices.IndexFunc(notes, func(n rawNote) bool { return n.typ == ntProc })
		for k, th := range s.Threads {
			b := notes[i].desc[4+1088*k:][:1088]
			message, _, _ := bytes.Cut(b[411:420], []byte{0})
			if le.Uint32(b[600:]) != uint32(th.LWP) || string(message) != th.InCore || (le.Uint64(b[64:]) != 0) != (th.InCore != "") || b[388] != 4 {
				t.Errorf("LWP %d: %q, wchan %#x, state %d", th.LWP, message, le.Uint64(b[64:]), b[388])
			}
		}
	}
}

// TestUnwound shows that stacks and call frame information agree: an unwinder
// recovers every frame of every thread.
func TestUnwound(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Release: 12}, {Release: 13, LocalSymbols: true, SegBases: true}, {KernelCore: true}} {
		s := Build(o)
		path, sysroot, err := s.Write(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		core, err := elfcore.Open(path, elfcore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer core.Close()
		mods := modules.Load(core, modules.Options{Sysroot: sysroot})
		u := unwind.New(core.WithBacking(mods.Backing()), mods, unwind.Options{Core: core})
		for _, th := range s.Threads {
			st := u.Stack(core.Thread(th.LWP).Regs)
			if st.Stop != unwind.StopOutermost || len(st.Frames) != len(th.Frames) {
				t.Errorf("%+v: LWP %d: %v, %v after %d frames of %d", o, th.LWP, st.Stop, st.Err, len(st.Frames), len(th.Frames))
				continue
			}
			for i, f := range st.Frames {
				if i > 0 && (uint64(f.PC) != th.Frames[i].PC || f.Trust != unwind.TrustCFI) {
					t.Errorf("%+v: LWP %d: frame %d is %v (%s), not %#x", o, th.LWP, i, f.PC, f.Trust, th.Frames[i].PC)
				}
			}
			if th.LWP == ConnLWP {
				if v, ok := st.Frames[2].Regs.Get(target.RBX); !ok || v != NameAddr {
					t.Errorf("rbx of my_open's frame: %#x, %v", v, ok)
				}
			}
		}
	}
}

// TestTexts checks the lines that the story quotes.
func TestTexts(t *testing.T) {
	t.Parallel()
	squeeze := func(s string) string { return regexp.MustCompile(` +`).ReplaceAllString(s, " ") }
	for _, c := range []struct{ name, text, line string }{
		{"procstat -t", ProcstatThreads(), "1158 100460 mysqld - 0 120 sleep fifoor"},
		{"procstat -kk", ProcstatStacks(), "fifo_open+0x"},
		{"ps", PS(), "1158 fifoor - I 0:00.03 /usr/local/libexec/mysqld "},
		{"InnoDB status", InnoDBStatus(), "MySQL thread id 1, OS thread handle 0x829e76000, query id 9 localhost root System lock\n" + Query},
		{"processlist", Processlist(), "State: System lock\n Info: " + Query},
		{"files", ProcstatFiles(), "1158 mysqld 11 s - rw------ 1 0 TCP 0.0.0.0:3306 0.0.0.0:0"},
		{"JSON", ProcstatThreadsJSON(), `"100460": {"thread_id": 100460, "thread_name": "-", "cpu": 0, "priority": 120, "run_state": "sleep", "wait_channel": "fifoor"}`},
	} {
		if !strings.Contains(squeeze(c.text), c.line) {
			t.Errorf("%s has no %q:\n%s", c.name, c.line, c.text)
		}
	}
	if n := strings.Count(ProcstatThreads(), "\n"); n != 24 {
		t.Errorf("procstat -t has %d lines", n)
	}
	if strings.Contains(ProcstatFiles(), FIFO) {
		t.Error("the FIFO is no open file yet")
	}
}
