package servertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Deadlines of the steps; each is many times what the step takes on two cores.
const (
	startWait = 90 * time.Second
	stopWait  = 30 * time.Second
	coreWait  = 5 * time.Minute
	sqlWait   = 60 * time.Second
)

// Process is a process that a test started: a server, or a C program.
type Process struct {
	PID int
	// Exe is the executable's path on this machine.
	Exe string
	// Root is the directory that the process is chrooted in, "" for none.
	Root string
	// Dir is a directory of this machine on the file system of the process's
	// working directory; it goes when the test ends.
	Dir string

	cwd   string // working directory as this machine sees it: kernel cores land there
	cmd   *exec.Cmd
	done  chan struct{} // closed when cmd has been waited for
	log   string        // file with what the process printed
	stuck bool          // a thread won't end: SIGTERM would only waste the deadline
}

// start runs cmd with its output in a log file, and ends it with the test.
func (p *Process) start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatalf("log of %s: %v", p.Exe, err)
	}
	defer log.Close()
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A test that is killed must not leave a server behind.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p.done = make(chan struct{})
	p.cmd = cmd
	started := make(chan error)
	go func() {
		defer close(p.done)
		startAndWait(cmd, started)
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	p.PID = cmd.Process.Pid
	t.Cleanup(func() { p.Stop(t) })
}

// Alive tells whether the process has not ended yet.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Stop ends the process by SIGTERM and waits for it; after a deadline, or at
// once where a thread of it is stuck on purpose, by SIGKILL. It may be called
// again.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if !p.Alive() {
		return
	}
	if !p.stuck {
		p.signal(syscall.SIGTERM)
		if p.waitEnd(stopWait) {
			return
		}
		t.Logf("pid %d didn't end within %v of SIGTERM; last lines of its log:\n%s", p.PID, stopWait, p.logTail())
	}
	p.signal(syscall.SIGKILL)
	if p.waitEnd(stopWait) {
		return
	}
	// Behind unshare(1): end the wrapper, which takes the namespace along.
	p.cmd.Process.Kill()
	if !p.waitEnd(stopWait) {
		t.Errorf("pid %d of %s didn't end by SIGKILL", p.PID, p.Exe)
	}
}

// Kill ends the process by SIGKILL and waits for it.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.stuck = true
	p.Stop(t)
}

// signal sends to the process itself, never to one that took over its id: the
// id stays taken until done is closed.
func (p *Process) signal(sig syscall.Signal) error {
	if !p.Alive() {
		return os.ErrProcessDone
	}
	return syscall.Kill(p.PID, sig)
}

func (p *Process) waitEnd(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// logTail is the end of what the process printed.
func (p *Process) logTail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Threads lists the LWPs of the process in ascending order.
func (p *Process) Threads() ([]int, error) {
	d, err := os.Open(fmt.Sprintf("/proc/%d/task", p.PID))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("threads of %d: %w", p.PID, err)
	}
	lwps := make([]int, 0, len(names))
	for _, n := range names {
		lwp, err := strconv.Atoi(n)
		if err != nil {
			return nil, fmt.Errorf("threads of %d: %w", p.PID, err)
		}
		lwps = append(lwps, lwp)
	}
	slices.Sort(lwps)
	return lwps, nil
}

// taskFile is a file of a thread's directory in /proc, with surrounding space
// cut off.
func (p *Process) taskFile(lwp int, name string) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/%s", p.PID, lwp, name))
	return strings.TrimSpace(string(b)), err
}

// NSLWP is the id that a thread has in the process's own PID namespace; it
// equals lwp without one.
func (p *Process) NSLWP(lwp int) (int, error) {
	status, err := p.taskFile(lwp, "status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(status) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(ids)
			return strconv.Atoi(f[len(f)-1]) // innermost last (proc(5))
		}
	}
	return 0, fmt.Errorf("status of thread %d has no NSpid", lwp)
}

// lwpOfNS is the thread with that id in the process's own PID namespace.
func (p *Process) lwpOfNS(nslwp int) (int, error) {
	if n, err := p.NSLWP(nslwp); err == nil && n == nslwp {
		return nslwp, nil // no namespace: no need to look through all
	}
	lwps, err := p.Threads()
	if err != nil {
		return 0, err
	}
	for _, lwp := range lwps {
		if n, err := p.NSLWP(lwp); err == nil && n == nslwp {
			return lwp, nil
		}
	}
	return 0, fmt.Errorf("process %d has no thread %d in its own PID namespace", p.PID, nslwp)
}

// string reads a zero-terminated string of the process's memory without
// stopping it; at most 4096 bytes, as long as a path may be.
func (p *Process) string(addr uint64) (string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.PID))
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, 4096)
	// The next page may be unmapped, so up to the page's end first.
	n, err := f.ReadAt(buf[:4096-addr%4096], int64(addr))
	if err != nil {
		return "", fmt.Errorf("memory of %d at %#x: %w", p.PID, addr, err)
	}
	s, _, ok := strings.Cut(string(buf[:n]), "\x00")
	if !ok {
		m, err := f.ReadAt(buf[n:], int64(addr)+int64(n))
		if err != nil {
			return "", fmt.Errorf("memory of %d at %#x: %w", p.PID, addr+uint64(n), err)
		}
		s, _, _ = strings.Cut(string(buf[:n+m]), "\x00")
	}
	return s, nil
}

// procFiles and taskFiles are what SaveProc copies: what a DBA is asked to
// collect, and what bounds a test's expectations.
var (
	procFiles = []string{"status", "stat", "cmdline", "maps", "auxv", "limits", "mountinfo", "coredump_filter", "net/unix", "net/tcp"}
	taskFiles = []string{"comm", "wchan", "syscall", "status", "stack", "stat"}
)

// SaveProc copies the process's /proc tree to dir: files and links as they
// are. It stops no thread. Threads and descriptors that end meanwhile are left
// out.
func (p *Process) SaveProc(t testing.TB, dir string) {
	t.Helper()
	if err := p.saveProc(dir); err != nil {
		t.Fatalf("saving /proc of %d: %v", p.PID, err)
	}
}

func (p *Process) saveProc(dir string) error {
	src := fmt.Sprintf("/proc/%d", p.PID)
	for _, f := range procFiles {
		if err := copyGone(src, dir, f); err != nil {
			return err
		}
	}
	lwps, err := p.Threads()
	if err != nil {
		return err
	}
	for _, lwp := range lwps {
		for _, f := range taskFiles {
			if err := copyGone(src, dir, filepath.Join("task", strconv.Itoa(lwp), f)); err != nil {
				return err
			}
		}
	}
	fds, err := os.ReadDir(filepath.Join(src, "fd"))
	if err != nil {
		return err
	}
	for _, d := range []string{"fd", "fdinfo"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, fd := range fds {
		link, err := os.Readlink(filepath.Join(src, "fd", fd.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if err := os.Symlink(link, filepath.Join(dir, "fd", fd.Name())); err != nil {
			return err
		}
		if err := copyGone(src, dir, filepath.Join("fdinfo", fd.Name())); err != nil {
			return err
		}
	}
	return nil
}

// copyGone copies one file; a source that is gone or has no text to give is
// left out.
func copyGone(src, dst, name string) error {
	b, err := os.ReadFile(filepath.Join(src, name))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return err
	}
	to := filepath.Join(dst, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// run executes a command under a deadline and gives what it wrote to stdout;
// an error carries the end of its stderr.
func run(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	// Grandchildren may hold the pipes open beyond the deadline.
	cmd.WaitDelay = 5 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		msg := strings.TrimSpace(stderr.String())
		return out, fmt.Errorf("%s: %w: %s", name, err, msg[max(0, len(msg)-2000):])
	}
	return out, nil
}
