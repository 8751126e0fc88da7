package procstat

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// link marks a value of a tree as the text of a symbolic link.
const link = "link:"

// writeTree makes a directory of path -> content.
func writeTree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if text, ok := strings.CutPrefix(content, link); ok {
			if err := os.Symlink(text, full); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func statusText(name string, tgid, pid int, state, extra string) string {
	return fmt.Sprintf("Name:\t%s\nUmask:\t0022\nState:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t1\nTracerPid:\t0\n%s"+
		"Threads:\t3\nSigQ:\t0/96365\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\nSigBlk:\t0000000000087007\n"+
		"SigIgn:\t0000000000001000\nSigCgt:\t00000001800066e9\nCapInh:\t0000000000000000\n", name, state, tgid, pid, extra)
}

const unixTable = "Num       RefCount Protocol Flags    Type St Inode Path\n" +
	"0000000000000000: 00000002 00000000 00010000 0001 01 5001 /run/my sql.sock\n" +
	"0000000000000000: 00000003 00000000 00000000 0001 03 5002 /run/my sql.sock\n"

const tcpTable = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
	"   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5003 1 0000000000000000 100 0 0 10 0\n" +
	"   1: 0100007F:0CEA 0200007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 5004 1 0000000000000000 20 4 30 10 -1\n"

const tcp6Table = "  sl  local_address                         remote_address                        st ...\n" +
	"   0: 00000000000000000000000001000000:0CEA 0000000000000000FFFF00000200007F:1F90 08 00000000:00000000 00:00000000 00000000     0        0 5005 1 0000000000000000 20 4 0 10 -1\n"

// fullTree is a server of three threads, one of them in open() of a FIFO.
func fullTree() map[string]string {
	return map[string]string{
		"status":            statusText("mariadbd", 1158, 1158, "S (sleeping)", "NStgid:\t1158\t7\nNSpid:\t1158\t7\n"),
		"stat":              "1158 (maria) db d) S 1 1158 1158 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 3 0 98765 1000 200 18446744073709551615\n",
		"cmdline":           "/usr/sbin/mariadbd\x00--port=3306\x00",
		"maps":              "7f0000000000-7f0000001000 r-xp 00002000 fe:00 123                        /usr/lib/a b.so\n7f0000002000-7f0000003000 rw-p 00000000 00:00 0 \ngarbage\n",
		"fd/0":              link + "/dev/null",
		"fd/3":              link + "socket:[5003]",
		"fd/10":             link + "/tmp/ibXY (deleted)",
		"fd/4":              link + "socket:[5002]",
		"fd/5":              link + "anon_inode:[eventpoll]",
		"fd/6":              link + "pipe:[777]",
		"fd/7":              link + "/memfd:aio (deleted)",
		"fd/8":              link + "socket:[5004]",
		"fd/9":              link + "socket:[5005]",
		"fdinfo/10":         "pos:\t4096\nflags:\t0100002\nmnt_id:\t29\n",
		"net/unix":          unixTable,
		"net/tcp":           tcpTable,
		"net/tcp6":          tcp6Table,
		"task/1158/status":  statusText("mariadbd", 1158, 1158, "S (sleeping)", "NSpid:\t1158\t7\n"),
		"task/1158/comm":    "mariadbd\n",
		"task/1158/wchan":   "do_poll.constprop.0",
		"task/1158/syscall": "7 0x55f0 0x4 0xffffffffffffffff 0x0 0x7ffe 0x1 0x7ffe2aba0000 0x7f850360f2ad\n",
		"task/1201/status":  statusText("one_connection", 1158, 1201, "S (sleeping)", "NSpid:\t1201\t50\n"),
		"task/1201/comm":    "one_connection\n",
		"task/1201/wchan":   "wait_for_partner",
		"task/1201/syscall": "257 0xffffff9c 0x7f3a20012345 0x80000 0x0 0x0 0x0 0x7f3a1fffe000 0x7f3a2f00d0d0\n",
		"task/1201/stack": "[<0>] wait_for_partner+0x43/0xb0\n[<0>] fifo_open+0x2a0/0x320\n[<0>] do_dentry_open+0x20/0x400\n" +
			"[<0>] nfs_open+0x1/0x2 [nfs]\n[<0>] 0xffffffffffffffff\n",
		"task/1300/status":  statusText("mariadbd", 1158, 1300, "R (running)", "NSpid:\t1300\t51\n"),
		"task/1300/wchan":   "0",
		"task/1300/syscall": "running\n",
		"task/1300/stack":   "",
		"task/self/comm":    "not a thread\n",
	}
}

func codes(ws []target.Warning) []string {
	var out []string
	for _, w := range ws {
		out = append(out, w.Code)
	}
	return out
}

func TestReadProcTree(t *testing.T) {
	p, err := ReadProcTree(writeTree(t, fullTree()))
	if err != nil {
		t.Fatal(err)
	}
	// The one garbage line of maps is the only thing wrong.
	if diff := cmp.Diff([]string{CodeMalformed}, codes(p.Warnings)); diff != "" {
		t.Fatalf("warnings: %s\n%v", diff, p.Warnings)
	}
	known := func(v any, s target.Source) string { return fmt.Sprint(v, " ", s) }
	for _, c := range []struct{ name, got, want string }{
		{"pid", known(p.PID.V, p.PID.Source), "1158 proc"},
		{"name", p.Name.V, "mariadbd"},
		{"args", strings.Join(p.Args.V, "|"), "/usr/sbin/mariadbd|--port=3306"},
		{"threads", strconv.Itoa(p.ThreadCount.V), "3"},
		{"start", strconv.FormatUint(p.StartTicks.V, 10), "98765"},
		{"pending", fmt.Sprintf("%#x", p.SharedPending.V), "0x4000"},
		{"lwps", fmt.Sprint(p.LWPs()), "[1158 1201 1300]"},
		{"nspid", fmt.Sprint(p.NSPid, p.NSTgid), "[1158 7] [1158 7]"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, c.got, c.want)
		}
	}
	want := &kernelview.Thread{
		LWP: 1201, NSPid: []int{1201, 50},
		Name:        target.Known("one_connection", target.SourceProc),
		State:       target.Known("S", target.SourceProc),
		WaitChannel: target.Known("wait_for_partner", target.SourceProc),
		Syscall: target.Known(kernelview.Syscall{Number: 257,
			Args: [6]uint64{0xffffff9c, 0x7f3a20012345, 0x80000}}, target.SourceProc),
		SP:          target.Known(target.Addr(0x7f3a1fffe000), target.SourceProc),
		PC:          target.Known(target.Addr(0x7f3a2f00d0d0), target.SourceProc),
		SigBlocked:  target.Known(uint64(0x87007), target.SourceProc),
		SigPending:  target.Known(uint64(0), target.SourceProc),
		SigIgnored:  target.Known(uint64(0x1000), target.SourceProc),
		SigCaught:   target.Known(uint64(0x1800066e9), target.SourceProc),
		TracerPID:   target.Known(0, target.SourceProc),
		KernelStack: target.Known([]string{"wait_for_partner", "fifo_open", "do_dentry_open", "nfs_open"}, target.SourceProc),
	}
	if diff := cmp.Diff(want, p.Threads[1201]); diff != "" {
		t.Errorf("thread 1201 (-want +got):\n%s", diff)
	}
	run := p.Threads[1300]
	if run.WaitChannel.Known || run.KernelStack.Known || run.SP.Known {
		t.Errorf("running thread: wait channel %+v, stack %+v, sp %+v: all must be absent", run.WaitChannel, run.KernelStack, run.SP)
	}
	if !run.Syscall.Known || !run.Syscall.V.Running || run.Syscall.V.InCall() {
		t.Errorf("running thread: syscall %+v", run.Syscall)
	}
	wantMaps := []kernelview.Mapping{
		{Start: 0x7f0000000000, End: 0x7f0000001000, Perm: "r-xp", Off: 0x2000, Inode: 123, Path: "/usr/lib/a b.so"},
		{Start: 0x7f0000002000, End: 0x7f0000003000, Perm: "rw-p"},
	}
	if diff := cmp.Diff(wantMaps, p.Mappings); diff != "" {
		t.Errorf("maps (-want +got):\n%s", diff)
	}
}

func TestDescriptors(t *testing.T) {
	want := []kernelview.File{
		{FD: 0, Path: "/dev/null", Kind: kernelview.KindPath},
		{FD: 3, Path: "socket:[5003]", Kind: kernelview.KindSocket, Inode: 5003, Protocol: "tcp", Local: "127.0.0.1:3306", SocketState: "LISTEN"},
		{FD: 4, Path: "socket:[5002]", Kind: kernelview.KindSocket, Inode: 5002, Protocol: "unix", Local: "/run/my sql.sock", SocketState: "ESTABLISHED"},
		{FD: 5, Path: "anon_inode:[eventpoll]", Kind: kernelview.KindAnon},
		{FD: 6, Path: "pipe:[777]", Kind: kernelview.KindPipe, Inode: 777},
		{FD: 7, Path: "/memfd:aio", Kind: kernelview.KindAnon, Deleted: true},
		{FD: 8, Path: "socket:[5004]", Kind: kernelview.KindSocket, Inode: 5004, Protocol: "tcp", Local: "127.0.0.1:3306", Peer: "127.0.0.2:54321", SocketState: "ESTABLISHED"},
		{FD: 9, Path: "socket:[5005]", Kind: kernelview.KindSocket, Inode: 5005, Protocol: "tcp6", Local: "[::1]:3306", Peer: "127.0.0.2:8080", SocketState: "CLOSE_WAIT"},
		{FD: 10, Path: "/tmp/ibXY", Kind: kernelview.KindPath, Deleted: true},
	}
	for i := range want {
		want[i].Source = target.SourceProc
	}
	want[8].Flags = target.Known(uint64(0o100002), target.SourceProc)
	want[8].Pos = target.Known(int64(4096), target.SourceProc)

	links := fullTree()
	listing := fullTree()
	text := "total 0\n"
	for name, v := range links {
		if fd, ok := strings.CutPrefix(name, "fd/"); ok {
			text += "lrwx------ 1 mysql mysql 64 Nov 21 05:24 " + fd + " -> " + strings.TrimPrefix(v, link) + "\n"
			delete(listing, name)
		}
	}
	for _, name := range []string{"fd", "fd.txt"} {
		tree := maps.Clone(listing)
		tree[name] = text
		for kind, tree := range map[string]map[string]string{"listing in " + name: tree, "links": links} {
			p, err := ReadProcTree(writeTree(t, tree))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, p.Files); diff != "" || !p.FilesKnown {
				t.Errorf("%s: known %v (-want +got):\n%s", kind, p.FilesKnown, diff)
			}
			if f, ok := p.File(8); !ok || f.Peer != "127.0.0.2:54321" {
				t.Errorf("%s: File(8) = %+v, %v", kind, f, ok)
			}
			if _, ok := p.File(2); ok {
				t.Errorf("%s: File(2) found", kind)
			}
		}
	}
}

func TestPartialAndStrangeTrees(t *testing.T) {
	for _, c := range []struct {
		name  string
		tree  map[string]string
		codes []string
		check func(p *kernelview.Process) string
	}{
		{"empty", map[string]string{"README": "x"}, []string{CodeNothing}, nil},
		{"one file only", map[string]string{"task/50/wchan": "futex_do_wait"}, nil, func(p *kernelview.Process) string {
			if p.PID.Known || p.FilesKnown || p.Threads[50].WaitChannel.V != "futex_do_wait" || p.Threads[50].SigBlocked.Known {
				return fmt.Sprintf("%+v", p.Threads[50])
			}
			return ""
		}},
		{"process id from a task", map[string]string{"task/50/status": statusText("x", 40, 50, "S (sleeping)", "")}, nil,
			func(p *kernelview.Process) string {
				if p.PID.V != 40 {
					return fmt.Sprint(p.PID)
				}
				return ""
			}},
		{"main thread's files without task", map[string]string{"status": statusText("x", 40, 40, "D (disk sleep)", ""),
			"wchan": "percpu_rwsem_wait", "syscall": "-1 0x7ffe00 0x7f00\n"}, nil, func(p *kernelview.Process) string {
			th := p.Threads[40]
			if th == nil || th.State.V != "D" || th.Syscall.V.Number != kernelview.NoSyscall || th.Syscall.V.InCall() || th.SP.V != 0x7ffe00 {
				return fmt.Sprintf("%+v", th)
			}
			return ""
		}},
		{"status of another thread", map[string]string{"task/50/status": statusText("x", 40, 51, "S", "")}, []string{CodeMixed},
			func(p *kernelview.Process) string {
				if p.Threads[50].State.Known {
					return "state taken"
				}
				return ""
			}},
		{"thread of another process", map[string]string{"status": statusText("x", 40, 40, "S", ""),
			"task/50/status": statusText("x", 41, 50, "S", "")}, []string{CodeMixed}, func(p *kernelview.Process) string {
			if len(p.Threads) != 0 {
				return "thread taken"
			}
			return ""
		}},
		{"status and stat of two processes", map[string]string{"status": statusText("x", 40, 40, "S", ""),
			"stat": "41 (y) S 1 1\n"}, []string{CodeMixed}, nil},
		{"stat alone", map[string]string{"stat": "41 (a) R (b) S 1 1\n"}, nil, func(p *kernelview.Process) string {
			if p.PID.V != 41 || p.Name.V != "a) R (b" || p.State.V != "S" || p.ThreadCount.Known {
				return fmt.Sprintf("%+v", p)
			}
			return ""
		}},
		{"malformed files", map[string]string{"task/50/syscall": "257 0x1\n", "task/50/stack": "what\n", "task/50/wchan": "a b\n",
			"task/50/status": "\x00\x01"}, []string{CodeMalformed, CodeMalformed, CodeMalformed, CodeMalformed}, nil},
		{"links instead of files", map[string]string{"task/50/comm": link + "/etc/passwd", "status": link + "../x", "task/51": link + "/etc"},
			[]string{CodeUnreadable, CodeUnreadable, CodeUnreadable}, func(p *kernelview.Process) string {
				if p.Threads[50].Name.Known || p.Threads[51] != nil {
					return "a link was followed"
				}
				return ""
			}},
		{"followed descriptors", map[string]string{"fd/0": "data", "status": statusText("x", 40, 40, "S", "")},
			[]string{CodeMalformed}, func(p *kernelview.Process) string {
				if p.FilesKnown {
					return "descriptor table counts as known"
				}
				return ""
			}},
		{"empty listing", map[string]string{"fd.txt": "total 0\n"}, nil, func(p *kernelview.Process) string {
			if p.FilesKnown {
				return "descriptor table counts as known"
			}
			return ""
		}},
		{"too long", map[string]string{"task/50/comm": strings.Repeat("x", maxSmall+1)}, []string{CodeLimit}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := ReadProcTree(writeTree(t, c.tree))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(codes(p.Warnings), c.codes) {
				t.Errorf("warnings %v, want codes %v", p.Warnings, c.codes)
			}
			if c.check != nil {
				if bad := c.check(p); bad != "" {
					t.Error(bad)
				}
			}
		})
	}
}

func TestDirectoryErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Join(dir, "missing"), file} {
		if p, err := ReadProcTree(d); err == nil || p != nil || !strings.Contains(err.Error(), d) {
			t.Errorf("%s: got %v, %v", d, p, err)
		}
	}
}

// A FIFO in the place of a file must not stop the reader.
func TestFIFOInTree(t *testing.T) {
	dir := writeTree(t, map[string]string{"task/50/comm": "x\n"})
	for _, name := range []string{"status", "fd", "maps", "task/50/wchan", "task/51"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := ReadProcTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	if p.Threads[50].Name.V != "x" || p.Threads[50].WaitChannel.Known || !slices.Contains(codes(p.Warnings), CodeUnreadable) {
		t.Errorf("got %+v, warnings %v", p.Threads[50], p.Warnings)
	}
}

func TestWarningsAreBounded(t *testing.T) {
	tree := map[string]string{}
	for i := range maxWarnings + 20 {
		tree[fmt.Sprintf("task/%d/syscall", i+100)] = "x\n"
	}
	p, err := ReadProcTree(writeTree(t, tree))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Warnings) != maxWarnings+1 || p.Warnings[maxWarnings].Code != CodeLimit ||
		!strings.HasPrefix(p.Warnings[maxWarnings].Text, "20 more") {
		t.Errorf("%d warnings, last %+v", len(p.Warnings), p.Warnings[len(p.Warnings)-1])
	}
}

func TestOwnProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc/self of Linux; this is " + runtime.GOOS)
	}
	name := filepath.Join(t.TempDir(), "open file")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := ReadProcTree("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	if p.PID.V != os.Getpid() || !p.FilesKnown || p.Threads[os.Getpid()] == nil || len(p.Mappings) == 0 {
		t.Errorf("pid %+v, want %d; files known %v, %d threads, %d mappings", p.PID, os.Getpid(), p.FilesKnown, len(p.Threads), len(p.Mappings))
	}
	got, ok := p.File(int(f.Fd()))
	if !ok || got.Path != name || got.Kind != kernelview.KindPath {
		t.Errorf("descriptor %d: %+v, want path %q", f.Fd(), got, name)
	}
	calls := 0
	for _, th := range p.Threads {
		if !th.SigCaught.Known || !th.Name.Known || !th.State.Known {
			t.Errorf("thread %d: %+v", th.LWP, th)
		}
		if !th.Syscall.Known || !th.Syscall.V.InCall() {
			continue
		}
		calls++
		if !slices.ContainsFunc(p.Mappings, func(m kernelview.Mapping) bool {
			return m.Start <= th.PC.V && th.PC.V < m.End && m.Perm[2] == 'x'
		}) {
			t.Errorf("thread %d in call %d: program counter %v is in no executable mapping", th.LWP, th.Syscall.V.Number, th.PC.V)
		}
	}
	// The reader itself is in read() while the kernel writes its own line.
	if calls == 0 {
		t.Error("no thread is in a system call, but one reads this")
	}
	if len(p.Args.V) == 0 || p.Args.V[0] != os.Args[0] {
		t.Errorf("args %q, want first %q", p.Args.V, os.Args[0])
	}
}

func BenchmarkReadProcTree(b *testing.B) {
	tree := map[string]string{"status": statusText("mariadbd", 1000, 1000, "S (sleeping)", "")}
	full := fullTree()
	for i := range 530 {
		dir := fmt.Sprintf("task/%d/", 1000+i)
		tree[dir+"status"] = statusText("one_connection", 1000, 1000+i, "S (sleeping)", "")
		for _, f := range []string{"comm", "wchan", "syscall", "stack"} {
			tree[dir+f] = full["task/1201/"+f]
		}
		tree[fmt.Sprintf("fd/%d", i)] = link + fmt.Sprintf("socket:[%d]", 9000+i)
	}
	dir := writeTree(b, tree)
	b.ReportAllocs()
	for b.Loop() {
		p, err := ReadProcTree(dir)
		if err != nil || len(p.Threads) != 530 || len(p.Warnings) > 0 {
			b.Fatal(err, len(p.Threads), p.Warnings)
		}
	}
}
