package servertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Truth is what is known of an incident from the running server and the
// kernel, before any core: what an analysis has to find.
type Truth struct {
	PID int
	// LWP is the blocked thread; NSLWP is its id in the server's own PID
	// namespace, the same without one. A kernel core carries NSLWP, gdb's gcore
	// LWP.
	LWP, NSLWP int
	// Connection is the id of the blocked connection.
	Connection uint64
	// Statement is what that connection runs.
	Statement string
	// Path is the FIFO's path as the server sees it; HostPath is where it lies,
	// or lay, on this machine.
	Path, HostPath string
	// Linked tells whether the FIFO still has its name.
	Linked bool
	// Syscall is the number of the system call that the thread is in, and
	// WaitChannel its wait channel, as /proc gave them.
	Syscall     int
	WaitChannel string
	// Handle is the thread's pthread_t as SHOW ENGINE INNODB STATUS prints it,
	// in the server's own form (hex with 0x or decimal); "" where it doesn't
	// list the connection's transaction with a thread.
	Handle string
	// InnoDBStatus is that whole text.
	InnoDBStatus string
	// Threads are all LWPs of the server, ascending; Connections maps open
	// connections to theirs.
	Threads     []int
	Connections map[uint64]int
}

// Scene shapes an incident; the zero value is a ghost FIFO with names of the
// package's choice.
type Scene struct {
	// Path is the FIFO's path as the server sees it; "" for one in the server's
	// own directory. Nothing may stand there yet.
	Path string
	// Database and Table are what is loaded into; made where missing.
	Database, Table string
	// Idle is the number of connections that do nothing; 0 for two.
	Idle int
	// Linked leaves the FIFO where it is.
	Linked bool
}

// GhostFIFO brings about the incident: two idle connections, and one whose
// LOAD DATA INFILE hangs opening a FIFO that nobody writes to. Then the FIFO's
// name is removed.
func GhostFIFO(t testing.TB, s *Server) *Truth {
	t.Helper()
	return LoadFromFIFO(t, s, Scene{})
}

// LinkedFIFO is GhostFIFO with the FIFO left where it is.
func LinkedFIFO(t testing.TB, s *Server) *Truth {
	t.Helper()
	return LoadFromFIFO(t, s, Scene{Linked: true})
}

// LoadFromFIFO is GhostFIFO with names of the caller's choice.
func LoadFromFIFO(t testing.TB, s *Server, sc Scene) *Truth {
	t.Helper()
	db, table, idle := cmp.Or(sc.Database, "mycore"), cmp.Or(sc.Table, "ghost"), cmp.Or(sc.Idle, 2)
	s.Exec(t, "create database if not exists "+db, "create table if not exists "+db+"."+table+" (a text) engine=innodb")
	s.ConnectIdle(t, idle)
	victim := s.Connect(t)
	host := filepath.Join(s.Dir, "ghost-"+strconv.FormatUint(victim.ID, 10)+".fifo")
	if sc.Path != "" {
		host = s.Install.inRoot(sc.Path)
	}
	tr := &Truth{PID: s.PID, LWP: victim.LWP, Connection: victim.ID, HostPath: host,
		Path: strings.TrimPrefix(host, s.Root), Linked: sc.Linked}
	tr.Statement = fmt.Sprintf("load data infile '%s' into table %s.%s", tr.Path, db, table)
	makeFIFO(t, host)
	ctx, cancel := context.WithTimeout(context.Background(), sqlWait)
	defer cancel()
	if err := victim.Send(ctx, tr.Statement); err != nil {
		t.Fatalf("%q: %v", tr.Statement, err)
	}
	// From here on only SIGKILL ends the server for sure.
	s.stuck = true
	err := poll(ctx, "the thread to block in open", func() (bool, error) { return s.inOpen(tr) })
	if err != nil {
		t.Fatalf("%s: %v", s.Install.Kind, err)
	}
	if !sc.Linked {
		if err := os.Remove(host); err != nil {
			t.Fatal(err)
		}
	}
	s.complete(t, tr)
	return tr
}

// complete fills in what the server and the kernel say of the standing scene.
func (s *Server) complete(t testing.TB, tr *Truth) {
	t.Helper()
	var err error
	if tr.NSLWP, err = s.NSLWP(tr.LWP); err != nil {
		t.Fatal(err)
	}
	tr.InnoDBStatus = s.Query(t, "show engine innodb status")[0][2]
	tr.Handle = handleIn(tr.InnoDBStatus, tr.Connection)
	if tr.Threads, err = s.Threads(); err != nil {
		t.Fatal(err)
	}
	tr.Connections = s.Connections()
}

// makeFIFO makes a FIFO that the user mysql may open.
func makeFIFO(t testing.TB, path string) {
	t.Helper()
	if err := mkfifo(path); err != nil {
		t.Fatalf("making the FIFO %s: %v", path, err)
	}
	t.Cleanup(func() { os.Remove(path) })
	// umask may have taken bits away.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
}

// inOpen tells whether the thread sits in an open of the FIFO: the kernel's
// account of its system call, and the path that its argument points to.
func (s *Server) inOpen(tr *Truth) (bool, error) {
	line, err := s.taskFile(tr.LWP, "syscall")
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("thread %d ended; end of the log:\n%s", tr.LWP, s.logTail())
	}
	if err != nil {
		return false, err
	}
	f := strings.Fields(line)
	nr, err := strconv.Atoi(f[0]) // "running" or "-1 ..." where it is in no call
	if err != nil {
		return false, nil //nolint:nilerr // "running" is one of the answers
	}
	arg := 0
	switch nr {
	case sysOpen:
		arg = 1
	case sysOpenat:
		arg = 2
	default:
		return false, nil
	}
	addr, err := strconv.ParseUint(f[arg], 0, 64)
	if err != nil {
		return false, fmt.Errorf("argument in %q: %w", line, err)
	}
	path, err := s.string(addr)
	if err != nil || path != tr.Path {
		return false, nil //nolint:nilerr // it has moved on meanwhile
	}
	wchan, err := s.taskFile(tr.LWP, "wchan")
	if err != nil {
		return false, err
	}
	// On its way into the call the thread has none yet.
	if wchan == "" || wchan == "0" {
		return false, nil
	}
	tr.Syscall, tr.WaitChannel = nr, wchan
	return true, nil
}

// Numbers of the calls on x86-64 (Linux arch/x86/entry/syscalls/syscall_64.tbl).
const (
	sysOpen   = 2
	sysOpenat = 257
)

// handleIn finds the thread handle that InnoDB prints with a connection's
// transaction: "MySQL thread id 5, OS thread handle 0x7f..., query id 9"
// (innobase_mysql_print_thd and thd_security_context; MariaDB prints its own
// name, and decimal since 10.1, MySQL since 5.7).
func handleIn(status string, connection uint64) string {
	_, rest, ok := strings.Cut(status, "thread id "+strconv.FormatUint(connection, 10)+", OS thread handle ")
	if !ok {
		return ""
	}
	handle, _, _ := strings.Cut(rest, ",")
	return strings.TrimSpace(handle)
}
