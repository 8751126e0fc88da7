package servertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options change how a server is started. The zero value is right for most.
type Options struct {
	// PIDNamespace runs the server in a PID namespace of its own, as in a
	// container: its threads have other ids inside than outside.
	PIDNamespace bool
	// Args are further options of the server.
	Args []string
}

// Server is a running server. It ends with the test.
type Server struct {
	*Process
	Install *Install
	// Version is what select version() says.
	Version string
	// Port is the TCP port on loopback.
	Port int
	// Socket is the path of the unix socket on this machine.
	Socket string
	// Data is the data directory as the server sees it.
	Data string

	admin *Conn

	mu    sync.Mutex // around connecting: a new thread must have one cause
	conns []*Conn
}

// Start starts the server on loopback with a data directory of its own and
// waits until it answers. Every connection gets a thread of its own.
func (in *Install) Start(t testing.TB, opts Options) *Server {
	t.Helper()
	Lock(t)
	dir, seen := in.tempDir(t)
	s := &Server{
		Process: &Process{Exe: in.Exe, Root: in.Root, Dir: dir, cwd: filepath.Join(dir, "data"), log: filepath.Join(dir, "log")},
		Install: in, Socket: filepath.Join(dir, "s.sock"), Data: seen + "/data", Port: freePort(t),
	}
	if err := os.Mkdir(s.cwd, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chown(s.cwd, int(in.uid), int(in.gid)), os.Chown(dir, int(in.uid), int(in.gid))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	if err := in.initialise(ctx, dir, s.Data); err != nil {
		t.Fatalf("data directory of %s: %v", in.Kind, err)
	}
	args := append(in.common(s.Data),
		"--socket="+seen+"/s.sock", "--port="+strconv.Itoa(s.Port), "--bind-address=127.0.0.1",
		"--pid-file="+seen+"/pid", "--core-file", "--secure-file-priv=", "--thread-cache-size=0",
		// For tests with many connections; the default of 5.6 is 151.
		"--max-connections=1000")
	if in.Kind == MySQL97 {
		args = append(args, "--mysqlx=OFF")
	}
	args = append(args, opts.Args...)
	if opts.PIDNamespace {
		s.start(t, in.namespaced(args))
		s.findInNamespace(ctx, t)
	} else {
		s.start(t, in.command(args))
	}
	s.waitReady(ctx, t)
	return s
}

// tempDir makes the server's directory: where it is on this machine, and as
// the server sees it. Short, because a socket's path is at most 107 bytes.
func (in *Install) tempDir(t testing.TB) (dir, seen string) {
	t.Helper()
	parent := os.TempDir()
	if in.Root != "" {
		parent = in.inRoot("/tmp")
	}
	dir, err := os.MkdirTemp(parent, dirPrefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the server's directory: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, strings.TrimPrefix(dir, in.Root)
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("free port: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// common are the options of both initialising and running.
func (in *Install) common(data string) []string {
	args := []string{"--no-defaults", "--datadir=" + data, "--innodb-buffer-pool-size=64M",
		// MariaDB since 10.11.12 reserves 8 TiB of address space otherwise, and
		// gdb's gcore writes them out.
		"--loose-innodb-buffer-pool-size-max=64M",
		// Small logs: what a test writes is little.
		"--loose-innodb-log-file-size=8M", "--loose-innodb-redo-log-capacity=16M"}
	return append(args, in.args...)
}

// command runs the server's executable as the user mysql, in its root.
func (in *Install) command(args []string) *exec.Cmd {
	cmd := exec.Command(in.exeInRoot(), args...)
	cmd.Dir = "/"
	cmd.Env = in.environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: in.credential(), Chroot: in.Root}
	return cmd
}

// environ keeps out what could change the server: preloads, its own variables.
func (in *Install) environ() []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/nonexistent"}
	if in.libDir != "" {
		env = append(env, "LD_LIBRARY_PATH="+in.libDir)
	}
	return env
}

// namespaced runs the server in a new PID namespace, below a shell: as its
// process 1 it couldn't end itself by a signal, and so leave no core.
func (in *Install) namespaced(args []string) *exec.Cmd {
	as := []string{"setpriv", "--reuid=" + fmt.Sprint(in.uid), "--regid=" + fmt.Sprint(in.gid), "--clear-groups", in.Exe}
	if in.Root != "" {
		as = []string{"chroot", fmt.Sprintf("--userspec=%d:%d", in.uid, in.gid), in.Root, in.exeInRoot()}
	}
	wrapped := append([]string{"--pid", "--fork", "--kill-child=KILL", "bash", "-c", `"$@" & wait $!`, "bash"}, as...)
	cmd := exec.Command("unshare", append(wrapped, args...)...)
	cmd.Env = in.environ()
	cmd.Dir = "/"
	return cmd
}

// findInNamespace sets PID to that of the server below unshare and the shell.
func (s *Server) findInNamespace(ctx context.Context, t testing.TB) {
	t.Helper()
	wrapper := s.cmd.Process.Pid
	err := poll(ctx, "the server in its PID namespace", func() (bool, error) {
		if !s.Alive() {
			return false, fmt.Errorf("it ended at once; log:\n%s", s.logTail())
		}
		pid := wrapper
		for range 2 { // the shell, then the server
			kids, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
			if err != nil {
				return false, err
			}
			f := strings.Fields(string(kids))
			if len(f) == 0 {
				return false, nil
			}
			if pid, err = strconv.Atoi(f[0]); err != nil {
				return false, err
			}
		}
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil || exe != s.Exe {
			return false, nil //nolint:nilerr // still setpriv or chroot, or between two programs
		}
		s.PID = pid
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// initialise fills a new data directory with the system tables.
func (in *Install) initialise(ctx context.Context, dir, data string) error {
	log, err := os.Create(filepath.Join(dir, "init.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := in.common(data)
	var sql []byte
	if in.Kind == MySQL97 {
		args = append(args, "--initialize-insecure")
	} else {
		args = append(args, "--bootstrap")
		if sql, err = in.bootstrapSQL(); err != nil {
			return err
		}
	}
	cmd := in.command(args)
	cmd.Stdin = bytes.NewReader(sql)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	done := make(chan struct{})
	go func() {
		defer close(done)
		startAndWait(cmd, started)
	}()
	if err := <-started; err != nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
		cmd.Process.Kill()
		<-done
	}
	if !cmd.ProcessState.Success() {
		b, _ := os.ReadFile(log.Name()) // part of a message only
		return fmt.Errorf("initialising ended with %v:\n%s", cmd.ProcessState, b[max(0, len(b)-3000):])
	}
	return nil
}

// bootstrapSQL is what MariaDB and MySQL 5.6 read on --bootstrap. root gets no
// password and no socket authentication.
func (in *Install) bootstrapSQL() ([]byte, error) {
	files := []string{"mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"}
	if in.Kind == MySQL56 {
		files = []string{"mysql_system_tables.sql", "mysql_system_tables_data.sql"}
	}
	if in.Kind == MariaDB118 {
		for i, f := range files { // renamed in MariaDB 11
			files[i] = strings.Replace(f, "mysql_", "mariadb_", 1)
		}
	}
	sql := []byte("create database if not exists mysql;\nuse mysql;\nset @auth_root_socket=NULL;\n")
	for _, f := range files {
		b, err := os.ReadFile(in.inRoot(filepath.Join(in.share, f)))
		if err != nil {
			return nil, err
		}
		sql = append(append(sql, b...), '\n')
	}
	return sql, nil
}

// waitReady waits until the server answers, and learns its version.
func (s *Server) waitReady(ctx context.Context, t testing.TB) {
	t.Helper()
	err := poll(ctx, "the server to answer", func() (bool, error) {
		if !s.Alive() {
			return false, errors.New("it ended")
		}
		c, err := dial(ctx, "unix", s.Socket)
		if err != nil {
			return false, nil //nolint:nilerr // not listening yet
		}
		s.admin = c
		return true, nil
	})
	if err != nil {
		t.Fatalf("%s: %v; end of its log:\n%s", s.Install.Kind, err, s.logTail())
	}
	t.Cleanup(func() { s.admin.Close() })
	s.Version = s.Query(t, "select version()")[0][0]
	// The admin's own thread: known here, as for the others, by what the server
	// says; for 5.6, which says nothing, it stays unknown.
	if lwp, err := s.lwpOf(s.admin.ID); err == nil {
		s.admin.LWP = lwp
	}
}

// Query runs a statement on the test's administrative connection, which stays
// open as long as the server runs, and gives the rows.
func (s *Server) Query(t testing.TB, statement string) [][]string {
	t.Helper()
	rows, err := s.query(statement)
	if err != nil {
		t.Fatalf("%s: %q: %v", s.Install.Kind, statement, err)
	}
	return rows
}

func (s *Server) query(statement string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), sqlWait)
	defer cancel()
	return s.admin.Query(ctx, statement)
}

// Exec runs statements in order, on the connection of Query.
func (s *Server) Exec(t testing.TB, statements ...string) {
	t.Helper()
	for _, q := range statements {
		s.Query(t, q)
	}
}

// Connect opens a connection over the unix socket that lasts as long as the
// test, and finds the thread that serves it.
func (s *Server) Connect(t testing.TB) *Conn {
	t.Helper()
	c, err := s.connect("unix", s.Socket)
	if err != nil {
		t.Fatalf("connecting to %s: %v", s.Install.Kind, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ConnectTCP is Connect over TCP.
func (s *Server) ConnectTCP(t testing.TB) *Conn {
	t.Helper()
	c, err := s.connect("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
	if err != nil {
		t.Fatalf("connecting to %s: %v", s.Install.Kind, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ConnectIdle opens n connections that do nothing.
func (s *Server) ConnectIdle(t testing.TB, n int) []*Conn {
	t.Helper()
	conns := make([]*Conn, 0, n)
	for range n {
		conns = append(conns, s.Connect(t))
	}
	return conns
}

// connect dials and learns the connection's LWP: from the server where it says
// so, else as the one thread that wasn't there before.
func (s *Server) connect(network, addr string) (*Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), sqlWait)
	defer cancel()
	before, err := s.Threads()
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if s.Install.Kind == MySQL56 {
		c.LWP, err = s.newThread(before)
	} else {
		c.LWP, err = s.lwpOf(c.ID)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("thread of connection %d: %w", c.ID, err)
	}
	s.conns = append(s.conns, c)
	return c, nil
}

// newThread is the one thread of the server that isn't in before.
func (s *Server) newThread(before []int) (int, error) {
	now, err := s.Threads()
	if err != nil {
		return 0, err
	}
	added := slices.DeleteFunc(now, func(lwp int) bool { return slices.Contains(before, lwp) })
	if len(added) != 1 {
		return 0, fmt.Errorf("%d new threads, want 1", len(added))
	}
	return added[0], nil
}

// lwpOf asks the server for a connection's thread. Where the server runs in a
// PID namespace, what it answers is translated to this machine's id.
func (s *Server) lwpOf(connection uint64) (int, error) {
	var q string
	switch {
	case s.Install.MariaDB():
		q = "select tid from information_schema.processlist where id=%d"
	case s.Install.Kind == MySQL97:
		q = "select thread_os_id from performance_schema.threads where processlist_id=%d"
	default:
		return 0, fmt.Errorf("%s doesn't tell its threads' ids", s.Install.Kind)
	}
	rows, err := s.query(fmt.Sprintf(q, connection))
	if err != nil {
		return 0, err
	}
	if len(rows) != 1 {
		return 0, fmt.Errorf("%d rows for connection %d", len(rows), connection)
	}
	nslwp, err := strconv.Atoi(rows[0][0])
	if err != nil {
		return 0, err
	}
	return s.lwpOfNS(nslwp)
}

// Connections maps the ids of the open connections whose thread is known to
// their LWPs: those of Connect, and the administrative one where the server
// tells its thread.
func (s *Server) Connections() map[uint64]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[uint64]int{}
	if s.admin.LWP != 0 {
		m[s.admin.ID] = s.admin.LWP
	}
	for _, c := range s.conns {
		m[c.ID] = c.LWP
	}
	return m
}

// WaitFor polls until done says true; it fails the test after a minute. For
// states that a server reaches by itself.
func WaitFor(t testing.TB, what string, done func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := poll(ctx, what, done); err != nil {
		t.Fatal(err)
	}
}
