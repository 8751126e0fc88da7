package realtest_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mycore/internal/incident"
	"mycore/internal/servertest"
)

// TestNoReader: the error log of a server was replaced by a FIFO that nobody
// reads; who flushes the logs waits for a reader. (Its query logs the server
// opens without blocking.)
func TestNoReader(t *testing.T) {
	took(t)
	in := servertest.Get(t, servertest.MariaDB1011)
	dir := openDir(t)
	fifo := filepath.Join(dir, "error.log")
	s := in.Start(t, servertest.Options{Args: []string{"--log-error=" + fifo}})
	if err := os.Remove(fifo); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	s.ConnectIdle(t, 3)
	c := s.Connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Send(ctx, "flush error logs"); err != nil {
		t.Fatal(err)
	}
	servertest.WaitFor(t, "the thread to block in open", func() (bool, error) {
		w, err := wchan(s.PID, c.LWP)
		return w == "wait_for_partner", err
	})
	conns := s.Connections()
	proc := saveProc(t, s)
	core := s.KernelCore(t)
	for name, opts := range both(s, core, proc) {
		t.Run(name, func(t *testing.T) {
			inc := run(t, opts).Incident
			f := wantOnly(t, inc, noReader, c.LWP)
			// The FIFO is still there under its name.
			if f.Confidence != incident.ConfidenceCertain || f.Resource == nil || f.Resource.Path != fifo {
				t.Errorf("%s, resource %+v; evidence %+v", f.Confidence, f.Resource, f.Evidence)
			}
			if th := threadOf(t, inc, c.LWP); th.Syscall == nil || !strings.Contains(th.Syscall.Text, strconv.Quote(fifo)) || !strings.Contains(th.Syscall.Text, "O_WRONLY") {
				t.Errorf("system call %+v", th.Syscall)
			}
			wantRoles(t, inc, s, conns)
		})
	}
	if err := os.Remove(fifo); err != nil {
		t.Fatal(err)
	}
	t.Run("name removed", func(t *testing.T) {
		inc := run(t, options(s, core)).Incident
		if f := wantOnly(t, inc, noReader, c.LWP); f.Confidence != incident.ConfidenceLikely || f.Resource == nil || f.Resource.Path != fifo {
			t.Errorf("%s, resource %+v; evidence %+v", f.Confidence, f.Resource, f.Evidence)
		}
	})
}

// openDir makes a directory that the server's user may write to; the
// directories of testing.T are below one that only the test's user may enter.
func openDir(t *testing.T) string {
	t.Helper()
	servertest.Lock(t) // which removes what a killed test left under this name
	dir, err := os.MkdirTemp("", "mycore-run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSilentWriter: a FIFO that has a writer was opened; that nothing comes is
// another incident. The thread is in read, and the descriptor is there.
func TestSilentWriter(t *testing.T) {
	took(t)
	s := servertest.Get(t, servertest.MariaDB1011).Start(t, servertest.Options{})
	tr := servertest.LinkedFIFO(t, s)
	w, err := os.OpenFile(tr.HostPath, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	servertest.WaitFor(t, "the thread to read", func() (bool, error) {
		ch, err := wchan(s.PID, tr.LWP)
		return strings.HasSuffix(ch, "pipe_read"), err
	})
	proc := saveProc(t, s)
	core := s.KernelCore(t)
	for name, opts := range both(s, core, proc) {
		t.Run(name, func(t *testing.T) {
			inc := run(t, opts).Incident
			wantNoLabel(t, inc)
			th := threadOf(t, inc, tr.LWP)
			if th.Syscall == nil || th.Syscall.Name != "read" || th.Role != connection || th.Idle != nil && *th.Idle {
				t.Errorf("system call %+v, role %q, idle %v", th.Syscall, th.Role, th.Idle)
			}
			if opts.Proc != "" && !strings.Contains(th.Syscall.Text, tr.Path) {
				t.Errorf("%s doesn't name the FIFO", th.Syscall.Text)
			}
		})
	}
}

// TestLinkedFIFO: while the FIFO still has its name, and the server lives, the
// file system proves what the core alone doesn't; and a look at the FIFO must
// not block or free anybody.
func TestLinkedFIFO(t *testing.T) {
	took(t)
	s := servertest.Get(t, servertest.MariaDB1011).Start(t, servertest.Options{})
	tr := servertest.LinkedFIFO(t, s)
	core := s.Gcore(t).Path
	servertest.WaitFor(t, "the thread to block in open again", func() (bool, error) {
		w, err := wchan(s.PID, tr.LWP)
		return w == "wait_for_partner", err
	})
	inc := run(t, options(s, core)).Incident
	wantGhost(t, inc, tr, tr.LWP, incident.ConfidenceCertain)
	i := slices.IndexFunc(inc.Findings[0].Evidence, func(e incident.Evidence) bool { return e.Fact == "file system" })
	if i < 0 || !strings.Contains(strings.ToLower(inc.Findings[0].Evidence[i].Value), "fifo") {
		t.Errorf("evidence %+v", inc.Findings[0].Evidence)
	}
	if w, err := wchan(s.PID, tr.LWP); err != nil || w != "wait_for_partner" {
		t.Errorf("after the analysis the thread waits in %q, %v", w, err)
	}
	opts := options(s, core)
	opts.Offline = true
	wantGhost(t, run(t, opts).Incident, tr, tr.LWP, incident.ConfidenceLikely)

	// Another kind of file under the name now: that doesn't prove the FIFO.
	if err := os.Remove(tr.HostPath); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tr.HostPath, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range run(t, options(s, core)).Incident.Findings {
		if f.Confidence == incident.ConfidenceCertain || !slices.Equal(f.LWPs, []int{tr.LWP}) {
			t.Errorf("%s (%s) on %v", f.Label, f.Confidence, f.LWPs)
		}
	}
}
