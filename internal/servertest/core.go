package servertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
)

const (
	// maxCoreBytes bounds one core on disk (blocks, not the file's length);
	// gcore of a server with the options of Start writes 1.4 GB.
	maxCoreBytes = 8 << 30
	// needFree is the free disk space below which no core is made.
	needFree = 10 << 30
	// maxCoresOnDisk bounds all cores of a test process that still exist.
	maxCoresOnDisk = 15 << 30
)

// SetCoreFilter writes the process's coredump_filter (core(5)): which kinds of
// mappings a kernel core, and gdb's gcore, will contain.
func (p *Process) SetCoreFilter(t testing.TB, mask uint32) {
	t.Helper()
	name := fmt.Sprintf("/proc/%d/coredump_filter", p.PID)
	if err := os.WriteFile(name, fmt.Appendf(nil, "%#x\n", mask), 0o644); err != nil {
		t.Fatalf("setting coredump_filter: %v", err)
	}
}

// KernelCore ends the process by SIGABRT and gives the path of the core that
// the kernel wrote. The core goes when the test ends. In a PID namespace the
// core's thread ids are the namespace's own.
func (p *Process) KernelCore(t testing.TB) string {
	t.Helper()
	return p.KernelCoreBy(t, syscall.SIGABRT)
}

// KernelCoreBy is KernelCore by another signal that ends the process.
func (p *Process) KernelCoreBy(t testing.TB, sig syscall.Signal) string {
	t.Helper()
	checkDisk(t, p.Dir)
	ctx, cancel := context.WithTimeout(context.Background(), coreWait)
	defer cancel()
	err := withCorePattern(func() error {
		if err := p.signal(sig); err != nil {
			return fmt.Errorf("signal %v to %d: %w", sig, p.PID, err)
		}
		select {
		case <-p.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%d to end with a core: %w", p.PID, ctx.Err())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	// The name carries the pid where kernel.core_uses_pid is set.
	found, err := filepath.Glob(filepath.Join(p.cwd, "core*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d left %d cores in %s (%v); end of its log:\n%s", p.PID, len(found), p.cwd, err, p.logTail())
	}
	core := filepath.Join(p.Dir, "kernel.core")
	if err := os.Rename(found[0], core); err != nil {
		t.Fatal(err)
	}
	keepCore(t, core)
	return core
}

// Gcore is a core that gdb wrote of a running process.
type Gcore struct {
	// Path is the core; it goes when the test ends.
	Path string
	// Handles maps LWP to pthread_t as gdb's libthread_db gave them from the
	// live process; empty where gdb couldn't use it (another libc than its own).
	Handles map[int]uint64
	// Log is all that gdb printed.
	Log string
}

var gdbThread = regexp.MustCompile(`Thread (0x[0-9a-f]+) \(LWP ([0-9]+)\)`)

// Gcore has gdb write a core of the running process. The process goes on, but
// the scene changes: the stop frees a thread that is blocked opening an
// unlinked FIFO, so this is the last look at an incident.
func (p *Process) Gcore(t testing.TB) *Gcore {
	t.Helper()
	checkDisk(t, p.Dir)
	ctx, cancel := context.WithTimeout(context.Background(), coreWait)
	defer cancel()
	core := filepath.Join(p.Dir, "gcore.core")
	// gcore writes address space that was only reserved, too. A server that
	// reserves terabytes must not fill the disk: bash counts 1024-byte blocks.
	args := []string{"-c", `ulimit -f "$1"; shift; exec "$@"`, "bash", strconv.Itoa(maxCoreBytes / 1024), "gdb"}
	args = append(args, gdbQuiet...)
	if p.Root != "" {
		args = append(args, "-iex", "set sysroot "+p.Root)
	}
	args = append(args, "-p", strconv.Itoa(p.PID),
		"-ex", "info threads", "-ex", "generate-core-file "+core)
	out, err := run(ctx, noDebuginfod, "bash", args...)
	if err != nil {
		os.Remove(core)
		t.Fatalf("gcore of %d: %v\n%s", p.PID, err, out)
	}
	if _, err := os.Stat(core); err != nil {
		t.Fatalf("gdb wrote no core of %d: %v\n%s", p.PID, err, out)
	}
	keepCore(t, core)
	g := &Gcore{Path: core, Handles: map[int]uint64{}, Log: string(out)}
	for _, m := range gdbThread.FindAllStringSubmatch(g.Log, -1) {
		h, err1 := strconv.ParseUint(m[1], 0, 64)
		lwp, err2 := strconv.Atoi(m[2])
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("thread line %q of gdb: %v", m[0], err)
		}
		g.Handles[lwp] = h
	}
	return g
}

// checkDisk refuses to make a core where space is short.
func checkDisk(t testing.TB, dir string) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatalf("free space of %s: %v", dir, err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < needFree {
		t.Fatalf("%s has %d MB free, a core needs up to %d MB", dir, free>>20, int64(needFree)>>20)
	}
}

// keepCore makes a core readable, counts it and removes it with the test.
func keepCore(t testing.TB, path string) {
	t.Helper()
	t.Cleanup(func() {
		liveCores.remove(path)
		os.Remove(path)
	})
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatalf("size of %s: %v", path, err)
	}
	// st_blocks counts 512 bytes whatever the file system's block is (stat(2)).
	if all := liveCores.add(path, int64(st.Blocks)*512); all > maxCoresOnDisk {
		t.Fatalf("the cores of this test take %d MB of disk, %d MB are allowed", all>>20, int64(maxCoresOnDisk)>>20)
	}
}
