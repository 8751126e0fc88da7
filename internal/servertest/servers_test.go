package servertest

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// each runs a test on every default server.
func each(t *testing.T, f func(t *testing.T, in *Install)) {
	for _, k := range Default() {
		t.Run(string(k), func(t *testing.T) { f(t, Get(t, k)) })
	}
}

func TestStartStop(t *testing.T) {
	each(t, func(t *testing.T, in *Install) {
		s := in.Start(t, Options{})
		if s.Version == "" || !strings.Contains(s.admin.Greeting, strings.SplitN(s.Version, "-", 2)[0]) {
			t.Errorf("version %q, greeting %q", s.Version, s.admin.Greeting)
		}
		var st syscall.Stat_t
		if err := syscall.Stat("/proc/"+strconv.Itoa(s.PID), &st); err != nil || st.Uid != in.uid {
			t.Errorf("/proc of the server belongs to %d, want %d (dumpable, as mysql): %v", st.Uid, in.uid, err)
		}
		conns := append(s.ConnectIdle(t, 2), s.ConnectTCP(t))
		lwps, err := s.Threads()
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int]bool{s.PID: true}
		for _, c := range conns {
			if seen[c.LWP] || !slices.Contains(lwps, c.LWP) {
				t.Errorf("connection %d has thread %d; threads %v", c.ID, c.LWP, lwps)
			}
			seen[c.LWP] = true
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			rows, err := c.Query(ctx, "select connection_id(), null")
			cancel()
			if err != nil || len(rows) != 1 || rows[0][0] != strconv.FormatUint(c.ID, 10) || rows[0][1] != Null {
				t.Errorf("connection %d says %v, %v", c.ID, rows, err)
			}
		}
		_, err = s.query("select no_such_column")
		var e *SQLError
		if !errors.As(err, &e) || e.Code != 1054 {
			t.Errorf("a wrong statement gives %v", err)
		}
		pid := s.PID
		s.Stop(t)
		if s.Alive() || syscall.Kill(pid, 0) == nil {
			t.Errorf("pid %d is still there", pid)
		}
		if ps := s.cmd.ProcessState; !ps.Success() {
			t.Errorf("after SIGTERM the server ended with %v:\n%s", ps, s.logTail())
		}
	})
}

// checkTruth compares the truth of an incident with what /proc, saved, says.
func checkTruth(t *testing.T, s *Server, tr *Truth, proc string) {
	t.Helper()
	text := func(name string) string {
		b, err := os.ReadFile(filepath.Join(proc, "task", strconv.Itoa(tr.LWP), name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	if got := text("wchan"); got != "wait_for_partner" {
		t.Errorf("wait channel %q", got)
	}
	if got := text("syscall"); !strings.HasPrefix(got, "257 ") || tr.Syscall != 257 {
		t.Errorf("system call %q, truth %d", got, tr.Syscall)
	}
	if got := text("stack"); !strings.Contains(got, "fifo_open") {
		t.Errorf("kernel stack %q", got)
	}
	tasks, err := os.ReadDir(filepath.Join(proc, "task"))
	if err != nil || len(tasks) < len(tr.Connections)+2 {
		t.Errorf("%d threads saved (%v)", len(tasks), err)
	}
	if exe, err := os.Readlink(filepath.Join(proc, "fd", "0")); err != nil || exe == "" {
		t.Errorf("descriptor 0 is %q, %v", exe, err)
	}
	if tr.Connections[tr.Connection] != tr.LWP || len(tr.Connections) < 3 {
		t.Errorf("connections %v, blocked is %d", tr.Connections, tr.Connection)
	}
	if _, err := os.Lstat(tr.HostPath); errors.Is(err, os.ErrNotExist) == tr.Linked {
		t.Errorf("the FIFO's name: %v, linked is %v", err, tr.Linked)
	}
	rows := s.Query(t, "select id from information_schema.processlist where info like 'load data infile%'")
	if len(rows) != 1 || rows[0][0] != strconv.FormatUint(tr.Connection, 10) {
		t.Errorf("the server lists %v as loading, want %d", rows, tr.Connection)
	}
}

// opens tells whether a stack shows an open below LOAD DATA, by names.
func opens(st Stack) bool {
	for _, f := range st.Frames {
		if strings.Contains(f.Function, "open") {
			return true
		}
	}
	return false
}

func TestGhostFIFOKernelCore(t *testing.T) {
	each(t, func(t *testing.T, in *Install) {
		s := in.Start(t, Options{})
		tr := GhostFIFO(t, s)
		proc := filepath.Join(t.TempDir(), "proc")
		s.SaveProc(t, proc)
		checkTruth(t, s, tr, proc)
		before, err := os.ReadFile(corePatternFile)
		if err != nil {
			t.Fatal(err)
		}
		core := s.KernelCore(t)
		if after, err := os.ReadFile(corePatternFile); err != nil || string(after) != string(before) {
			t.Errorf("core_pattern is %q, was %q (%v)", after, before, err)
		}
		checkCoreHeader(t, core)
		checkThreads(t, tr, compareTools(t, s.Target(core), tr))
	})
}

// compareTools reads a core with all debuggers: the same threads, and for the
// blocked one the same innermost frame. It gives the threads.
func compareTools(t *testing.T, tg Target, tr *Truth) []int {
	t.Helper()
	var lwps []int
	gdb := GDB(t, tg).ByLWP()
	for lwp := range gdb {
		lwps = append(lwps, lwp)
	}
	slices.Sort(lwps)
	blocked := gdb[tr.LWP]
	if !opens(blocked) || blocked.Stop != "outermost" {
		t.Errorf("gdb: blocked thread %+v", blocked)
	}
	if tr.Handle != "" {
		h, err := strconv.ParseUint(tr.Handle, 0, 64)
		if err != nil || h != blocked.Handle {
			t.Errorf("the server's handle %q, gdb's %#x (%v)", tr.Handle, blocked.Handle, err)
		}
	}
	for _, other := range []*Stacks{LLDB(t, tg), EUStack(t, tg)} {
		byLWP := other.ByLWP()
		if len(byLWP) != len(gdb) {
			t.Errorf("%s sees %d threads, gdb %d", other.Tool, len(byLWP), len(gdb))
		}
		same, all := 0, 0
		for lwp, st := range gdb {
			o := byLWP[lwp].Frames
			for i, f := range st.Frames {
				all++
				if i < len(o) && o[i].PC == f.PC {
					same++
				}
			}
		}
		if same*100 < all*95 {
			t.Errorf("%s agrees with gdb in %d of %d frames", other.Tool, same, all)
		}
	}
	return lwps
}

// checkThreads compares a core's threads with those that the server had a
// moment before. Connections stay; servers start and end a few others by
// themselves (MariaDB's thread pool).
func checkThreads(t *testing.T, tr *Truth, lwps []int) {
	t.Helper()
	for id, lwp := range tr.Connections {
		if !slices.Contains(lwps, lwp) {
			t.Errorf("thread %d of connection %d isn't in the core: %v", lwp, id, lwps)
		}
	}
	kept := 0
	for _, lwp := range tr.Threads {
		if slices.Contains(lwps, lwp) {
			kept++
		}
	}
	if kept < len(tr.Threads)-2 || len(lwps) > len(tr.Threads)+2 {
		t.Errorf("the core has the threads %v, the server had %v", lwps, tr.Threads)
	}
}

// checkCoreHeader reads the first bytes of a core: ELF, 64 bit, type core.
func checkCoreHeader(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var h [18]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		t.Fatal(err)
	}
	// ET_CORE is 4 (System V ABI, ELF header).
	if string(h[:4]) != "\x7fELF" || h[4] != 2 || binary.LittleEndian.Uint16(h[16:]) != 4 {
		t.Errorf("%s begins with % x", path, h)
	}
}

func TestGhostFIFOGcore(t *testing.T) {
	each(t, func(t *testing.T, in *Install) {
		s := in.Start(t, Options{})
		tr := GhostFIFO(t, s)
		g := s.Gcore(t)
		checkCoreHeader(t, g.Path)
		if in.Root == "" {
			// gdb and the server share a libc, so libthread_db knows all handles.
			lwps := compareTools(t, s.Target(g.Path), tr)
			checkThreads(t, tr, lwps)
			for _, lwp := range lwps {
				if g.Handles[lwp] == 0 {
					t.Errorf("gdb knows no handle of %d: %v", lwp, g.Handles)
				}
			}
		} else if len(g.Handles) != 0 {
			t.Errorf("gdb knows the handles %v of another libc", g.Handles)
		}
		// The stop itself freed the thread.
		WaitFor(t, "the blocked thread to go on", func() (bool, error) {
			line, err := s.taskFile(tr.LWP, "wchan")
			return line != "wait_for_partner", err
		})
	})
}

func TestLinkedFIFO(t *testing.T) {
	s := Get(t, MariaDB1011).Start(t, Options{})
	tr := LinkedFIFO(t, s)
	proc := filepath.Join(t.TempDir(), "proc")
	s.SaveProc(t, proc)
	checkTruth(t, s, tr, proc)
}

func TestPIDNamespace(t *testing.T) {
	each(t, func(t *testing.T, in *Install) {
		s := in.Start(t, Options{PIDNamespace: true})
		tr := GhostFIFO(t, s)
		if tr.NSLWP == tr.LWP || tr.NSLWP <= 1 {
			t.Errorf("thread %d is %d in its namespace", tr.LWP, tr.NSLWP)
		}
		if wchan, err := s.taskFile(tr.LWP, "wchan"); err != nil || wchan != "wait_for_partner" {
			t.Errorf("thread %d waits in %q, %v", tr.LWP, wchan, err)
		}
		if in.Kind == MariaDB1011 {
			// From outside, gdb sees the ids of the outside.
			if byLWP := GDB(t, s.Target(s.Gcore(t).Path)).ByLWP(); !opens(byLWP[tr.LWP]) {
				t.Errorf("gcore: thread %d is %+v", tr.LWP, byLWP[tr.LWP])
			}
			return
		}
		byLWP := GDB(t, s.Target(s.KernelCore(t))).ByLWP()
		if !opens(byLWP[tr.NSLWP]) {
			t.Errorf("kernel core: thread %d is %+v", tr.NSLWP, byLWP[tr.NSLWP])
		}
		if _, ok := byLWP[tr.LWP]; ok {
			t.Errorf("the kernel core has thread %d of the outside", tr.LWP)
		}
	})
}

func TestCoreFilter(t *testing.T) {
	size := func(mask uint32) int64 {
		p := StartThreads(t, ThreadsOptions{Count: 1, Depth: 1, SparseBytes: 1 << 30})
		p.SetCoreFilter(t, mask)
		fi, err := os.Stat(p.KernelCore(t))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size()
	}
	// Bit 0: anonymous private mappings (core(5)).
	if with, without := size(0x33), size(0x32); with < 1<<30 || without > 1<<24 {
		t.Errorf("core of %d bytes with anonymous mappings, %d without", with, without)
	}
}

func TestThreadsProgram(t *testing.T) {
	const count, depth = 64, 5
	p := StartThreads(t, ThreadsOptions{Count: count, Depth: depth})
	lwps, err := p.Threads()
	if err != nil || len(lwps) != count+1 || len(p.Truth) != count+1 {
		t.Fatalf("%d threads, %d told, want %d (%v)", len(lwps), len(p.Truth), count+1, err)
	}
	gdb := GDB(t, p.Target(p.KernelCore(t))).ByLWP()
	kinds := map[string]int{}
	for _, th := range p.Truth {
		kinds[th.Kind]++
		st := gdb[th.LWP]
		if st.Handle != th.Handle {
			t.Errorf("thread %d has handle %#x, gdb says %#x", th.LWP, th.Handle, st.Handle)
		}
		n := 0
		for _, f := range st.Frames {
			if f.Function == "descend" {
				n++
			}
		}
		if want := depth + 1; th.Kind != "pause" && n != want {
			t.Errorf("thread %d (%s) has %d frames of the descent, want %d", th.LWP, th.Kind, n, want)
		}
	}
	if len(kinds) != 9 {
		t.Errorf("kinds of waits %v, want eight and the main thread's", kinds)
	}
}

// A test and its subtests hold one lock; nobody else gets it until all ended.
func TestLock(t *testing.T) {
	Available(t)
	taken := func() bool {
		f, err := os.OpenFile(filepath.Join(stateDir(), "lock"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
	}
	t.Run("outer", func(t *testing.T) {
		Lock(t)
		t.Run("inner", func(t *testing.T) { Lock(t) })
		if !taken() || holder.depth != 1 {
			t.Errorf("after the inner test the lock is held %d times, by somebody: %v", holder.depth, taken())
		}
		stale := filepath.Join(os.TempDir(), dirPrefix+"stale")
		if err := os.MkdirAll(filepath.Join(stale, "data"), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	if holder.depth != 0 {
		t.Errorf("the lock is still held %d times", holder.depth)
	}
	Lock(t)
	if _, err := os.Stat(filepath.Join(os.TempDir(), dirPrefix+"stale")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of a killed test is still there: %v", err)
	}
}

// A test that dies between changing core_pattern and restoring it is repaired
// by the next.
func TestRestoreCorePattern(t *testing.T) {
	Available(t)
	Lock(t)
	old, err := os.ReadFile(corePatternFile)
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(corePatternFile, old, 0o644)
	want := errors.New("stop here")
	err = withCorePattern(func() error {
		if b, err := os.ReadFile(corePatternFile); err != nil || string(b) != "core\n" {
			t.Errorf("core_pattern is %q, %v", b, err)
		}
		return want
	})
	if !errors.Is(err, want) {
		t.Errorf("error %v was lost", err)
	}
	if err := os.WriteFile(savedPattern(), []byte("core.%e\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := restoreCorePattern(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(corePatternFile); err != nil || string(b) != "core.%e\n" {
		t.Errorf("core_pattern is %q, %v; want the saved one", b, err)
	}
	if err := restoreCorePattern(); err != nil {
		t.Errorf("nothing to restore: %v", err)
	}
}
