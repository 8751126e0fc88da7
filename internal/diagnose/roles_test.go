package diagnose

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"mycore/internal/incident"
	"mycore/internal/target"
)

func roleOf(t *testing.T, th Thread) (string, string) {
	t.Helper()
	r := catalog(t).Run(linuxInput(th)).Threads[0]
	switch {
	case r.Idle == nil:
		return r.Role, "unjudged"
	case *r.Idle:
		return r.Role, "idle"
	}
	return r.Role, "busy"
}

func TestRoles(t *testing.T) {
	named := func(th Thread, name string) Thread {
		th.Name = target.Known(name, target.SourceProc)
		return th
	}
	poll := call("poll", "", -516)
	const outer = " < lib:start_thread < lib:clone3"
	for _, c := range []struct {
		name       string
		th         Thread
		role, idle string
	}{
		{"idle session", thread(1, "lib:__poll < vio_io_wait < vio_read < my_net_read_packet < do_command < handle_one_connection"+outer, poll), "user-connection", "idle"},
		{"session writing its result", thread(1, "lib:__poll < vio_io_wait < vio_write < net_real_write < dispatch_command < do_command"+outer, poll), "user-connection", "busy"},
		{"session reading LOAD DATA LOCAL", thread(1, "lib:__poll < vio_io_wait < vio_read < my_net_read_packet < mysql_load < mysql_execute_command < do_command"+outer, poll), "user-connection", "busy"},
		{"session in a lock wait", thread(1, "lib:pthread_cond_timedwait < MDL_wait::timed_wait < MDL_context::acquire_lock < open_table < dispatch_command < do_command"+outer, futex(0x89, -516)), "user-connection", "busy"},
		{"session whose stack is cut", func() Thread {
			th := thread(1, "lib:__poll < vio_io_wait < vio_read < my_net_read_packet < do_command", poll)
			th.Complete = false
			return th
		}(), "user-connection", "unjudged"},
		{"session in MariaDB's thread cache", thread(1, "lib:pthread_cond_timedwait < ? < do_handle_one_connection < handle_one_connection"+outer, futex(0x89, -516)), "user-connection", "idle"},
		{"session by name only", named(thread(1, "", poll), "connection-7"), "user-connection", "unjudged"},
		{"cached connection thread", thread(1, "lib:pthread_cond_wait < Per_thread_connection_handler::block_until_new_connection < ?"+outer, futex(0x189, -512)), "connection-cached", "idle"},
		{"login", thread(1, "lib:__poll < vio_io_wait < vio_read < ? < acl_authenticate < check_connection < login_connection < handle_one_connection"+outer, poll), "connection-login", "idle"},
		{"login in a name lookup", thread(1, "lib:__poll < lib:getaddrinfo < ip_to_hostname < check_connection < login_connection < handle_one_connection"+outer, poll), "connection-login", "busy"},
		{"dump thread is not a plain session", thread(1, "lib:pthread_cond_timedwait < MYSQL_BIN_LOG::wait_for_update_bin_log < mysql_binlog_send < dispatch_command < do_command"+outer, futex(0x89, -516)), "binlog-dump", "idle"},
		{"main in shutdown", thread(1, "lib:pthread_cond_wait < close_connections < mysqld_main < lib:__libc_start_main < _start", futex(0x189, -512)), "main", "busy"},
		{"main, interrupted by the signal for the core", thread(1, "lib:tgkill < lib:raise < handle_fatal_signal < <signal> < lib:__poll < handle_connections_sockets < mysqld_main < lib:__libc_start_main < _start", call("tgkill", "", 0)), "main", "idle"},
		{"session that crashed", thread(1, "lib:tgkill < handle_fatal_signal < <signal> < Item_func::val_int < mysql_execute_command < dispatch_command < do_command"+outer, call("tgkill", "", 0)), "user-connection", "busy"},
		{"pool worker at work", thread(1, "lib:pthread_mutex_lock < ? < ? < ? < tpool::thread_pool_generic::worker_main"+outer, futex(0x80, -512)), "innodb-pool-worker", "busy"},
		{"pool worker in a condition of its task", thread(1, "lib:pthread_cond_wait < ? < ? < ? < ? < tpool::thread_pool_generic::worker_main"+outer, futex(0x189, -512)), "innodb-pool-worker", "busy"},
		{"manager in a mutex", thread(1, "lib:__lll_lock_wait < lib:pthread_mutex_lock < handle_manager"+outer, futex(0x80, -512)), "manager", "busy"},
		{"manager deep in its work", thread(1, "lib:pthread_cond_wait < ? < ? < ? < ? < handle_manager"+outer, futex(0x189, -512)), "manager", "busy"},
		{"page cleaner by name", named(thread(1, "lib:pthread_cond_timedwait < ?"+outer, futex(0x89, -516)), "page_cleaner"), "page-cleaner", "idle"},
		{"page cleaner by name, in a write", named(thread(1, "lib:pwrite64 < ?"+outer, call("pwrite64", "", 0)), "page_cleaner"), "page-cleaner", "busy"},
		{"page cleaner by name, waiting deeper", named(thread(1, "lib:? < lib:pthread_cond_wait < os_event::wait_low < ? < ? < ? < Detached_thread::operator() < lib:? < lib:?", futex(0x189, -512)), "ib_pg_flush_co"), "page-cleaner", "busy"},
		{"gtid compression deep in its work", named(thread(1, "lib:? < lib:pthread_cond_wait < ? < ? < ? < ? < lib:? < lib:?", futex(0x189, -512)), "gtid_zip"), "gtid-compression", "busy"},
		{"gtid compression, stack cut", func() Thread {
			th := named(thread(1, "lib:? < lib:pthread_cond_wait < ? < ? < lib:?", futex(0x189, -512)), "gtid_zip")
			th.Complete = false
			return th
		}(), "gtid-compression", "unjudged"},
		{"unnamed in a stripped C library", thread(1, "lib:? < lib:pthread_cond_timedwait < ? < lib:? < lib:?", futex(0x89, -516)), "background-unnamed", "idle"},
		{"I/O thread in state D", func() Thread {
			th := thread(1, "lib:io_getevents < fil_aio_wait < io_handler_thread"+outer, call("io_getevents", "", 0))
			th.State = target.Known("D (disk sleep)", target.SourceProc)
			return th
		}(), "innodb-io", "busy"},
		{"event wait elsewhere in purge", thread(1, "lib:pthread_cond_wait < os_event::wait_low < a < b < c < srv_purge_coordinator_thread"+outer, futex(0x189, -512)), "purge", "busy"},
		{"unnamed background", thread(1, "lib:pthread_cond_timedwait < ? < ?"+outer, futex(0x89, -516)), "background-unnamed", "idle"},
		{"unnamed in a mutex", thread(1, "lib:pthread_mutex_lock < ? < ?"+outer, futex(0x80, -512)), "", "unjudged"},
		{"unnamed but deep", thread(1, "lib:pthread_cond_wait < ? < ? < ? < ? < ?"+outer, futex(0x189, -512)), "", "unjudged"},
		{"unnamed with one server name", thread(1, "lib:pthread_cond_wait < ? < some_function"+outer, futex(0x189, -512)), "", "unjudged"},
		{"foreign thread", thread(1, "lib:pause < lib:x"+outer, call("pause", "", -514)), "", "unjudged"},
		{"comm of the process is no role", named(thread(1, "", poll), "mariadbd"), "", "unjudged"},
	} {
		role, state := roleOf(t, c.th)
		if role != c.role || state != c.idle {
			t.Errorf("%s: %q %s, want %q %s", c.name, role, state, c.role, c.idle)
		}
	}
}

func TestWaitClass(t *testing.T) {
	for _, c := range []struct {
		name string
		th   Thread
		want waitClass
	}{
		{"poll", thread(1, "?", call("poll", "", 0)), waitPoll},
		{"restarted poll", thread(1, "lib:__poll < x", call("restart_syscall", "", 0)), waitPoll},
		{"restarted, no names", thread(1, "? < ?", call("restart_syscall", "", 0)), 0},
		{"condition by name", thread(1, "? < lib:pthread_cond_wait < x", futex(0x80, 0)), waitCond},
		{"mutex by name", thread(1, "lib:__lll_lock_wait < lib:pthread_mutex_lock < x", futex(0x80, 0)), waitLock},
		{"rwlock waits with a bitset", thread(1, "? < lib:pthread_rwlock_rdlock < x", futex(0x189, 0)), waitLock},
		{"condition by operation", thread(1, "? < ?", futex(0x89, 0)), waitCond},
		{"mutex by operation", thread(1, "? < ?", futex(0x80, 0)), waitLock},
		{"a wait far out isn't this wait", thread(1, "a < b < c < d < e < f < lib:pthread_cond_wait", futex(0x80, 0)), waitLock},
		{"no call", thread(1, "lib:ppoll < x", target.Value[Syscall]{}), waitPoll},
		{"nothing known", thread(1, "x", target.Value[Syscall]{}), 0},
		{"another call", thread(1, "lib:fsync < x", call("fsync", "", 0)), waitOther},
	} {
		if got := newView(linuxInput(), &c.th).wait; got != c.want {
			t.Errorf("%s: %b, want %b", c.name, got, c.want)
		}
	}
}

func TestVerdict(t *testing.T) {
	masks := func(in *Input, known bool) {
		for i := range in.Threads {
			if !known {
				in.Threads[i].SigBlocked = target.Value[uint64]{}
			}
		}
	}
	for _, c := range []struct {
		name    string
		threads []Thread
		change  func(*Input)
		status  string
		collect string // part of what to collect
	}{
		{"healthy", idleMariaDB(), nil, "no-stall-found", ""},
		{"healthy 5.6", idle56(), nil, "no-stall-found", ""},
		{"healthy 9.7", idle97(), nil, "no-stall-found", ""},
		{"unproven roles", append(idleMariaDB(), unnamedMariaDB()...), nil, "inconclusive", "LWPs 120, 121, 122: no proven role"},
		{"masks unknown", idleMariaDB(), func(in *Input) { masks(in, false) }, "inconclusive", "Signal masks"},
		{"one mask unknown", idleMariaDB(), func(in *Input) { in.Threads[3].SigBlocked = target.Value[uint64]{} }, "inconclusive", "Signal masks"},
		{"one stack unread", idleMariaDB(), func(in *Input) { in.Threads[8].Frames = nil }, "inconclusive", "LWP 111: no stack could be read"},
		{"one stack cut", idleMariaDB(), func(in *Input) { in.Threads[8].Complete = false }, "inconclusive", "LWP 111: the stack isn't proven"},
		{"one stack not in the core", idleMariaDB(), func(in *Input) { in.Threads[8].Complete, in.Threads[8].StackCut = false, true }, "inconclusive", "LWP 111: the core lacks memory of the stack"},
		{"no server", unnamedMariaDB(), func(in *Input) { in.Server = Server{} }, "inconclusive", "LWPs 120, 121, 122: no proven role. Roles are those of threads of mysqld and mariadbd, and neither is recognised"},
		{"one frame scanned", idleMariaDB(), func(in *Input) { in.Threads[8].Frames[9].Trust = TrustScan }, "inconclusive", "LWP 111: the stack isn't proven"},
		{"one thread at work", idleMariaDB(), func(in *Input) {
			in.Threads[8] = thread(111, "lib:pthread_mutex_lock < dispatch_command < do_command < handle_one_connection < lib:start_thread < lib:clone", futex(0x80, -512))
		}, "inconclusive", "LWP 111: not idle"},
		{"a thread without a role", append(idleMariaDB(), thread(99, "lib:pause < lib:x < lib:start_thread < lib:clone", call("pause", "", -514))), nil, "inconclusive", "LWP 99: no proven role"},
		{"no threads", nil, nil, "inconclusive", "no threads"},
		{"stuck", append(idleMariaDB(), wchan(fifoThread(50, loadStack, ghost, 0), "wait_for_partner")), nil, "stuck", ""},
	} {
		in := linuxInput(c.threads...)
		if c.change != nil {
			c.change(in)
		}
		v := catalog(t).Run(in).Verdict
		if v.Status != c.status {
			t.Errorf("%s: %s, want %s; collect %q", c.name, v.Status, c.status, v.Collect)
		}
		if v.Summary == "" || v.Severity == "" || v.Coverage.ThreadsTotal != len(c.threads) {
			t.Errorf("%s: %+v", c.name, v)
		}
		if !strings.Contains(strings.Join(v.Collect, "\n"), c.collect) {
			t.Errorf("%s: %q isn't in %q", c.name, c.collect, v.Collect)
		}
		if c.status == "no-stall-found" && len(v.Collect) > 0 {
			t.Errorf("%s: %q", c.name, v.Collect)
		}
	}
}

func TestCoverageAndImpact(t *testing.T) {
	threads := append(idleMariaDB(), unnamedMariaDB()...)
	threads = append(threads, wchan(fifoThread(50, loadStack, ghost, 0), "wait_for_partner"))
	threads[1].Frames = nil
	threads[2].Complete = false
	v := catalog(t).Run(linuxInput(threads...)).Verdict
	// the thread without a stack has no role either
	want := incident.Coverage{ThreadsRead: 13, ThreadsTotal: 14, StacksTrusted: 12, UnknownRoles: 4}
	got := v.Coverage
	if got.MasksKnown == nil || !*got.MasksKnown {
		t.Error("masks are known")
	}
	got.MasksKnown = nil
	if got != want {
		t.Errorf("coverage %+v, want %+v", got, want)
	}
	if *v.Impact.Blocked != 1 || *v.Impact.Total != 4 {
		t.Errorf("impact %d of %d", *v.Impact.Blocked, *v.Impact.Total)
	}
	if v.DedupKey == "" || v.Severity != "critical" || !slices.Equal(v.Findings, []string{"f1"}) {
		t.Errorf("verdict %+v", v)
	}
}

// A core forced by kill -ABRT isn't a crash.
func TestRequestedCoreIsNoCrash(t *testing.T) {
	threads := idleMariaDB()
	threads[0] = thread(100, "lib:tgkill < lib:raise < handle_fatal_signal < <signal> < lib:__poll < handle_connections_sockets < mysqld_main < lib:__libc_start_main < _start", call("tgkill", "", 0))
	in := linuxInput(threads...)
	in.Process.Signal = target.Known(Signal{Number: 6, Code: -6, LWP: 100}, target.SourceCoreNote)
	v := catalog(t).Run(in).Verdict
	if v.Status != incident.StatusNoStallFound {
		t.Errorf("status %s, collect %q", v.Status, v.Collect)
	}
	if !strings.Contains(v.Summary, "SIGABRT") || strings.Contains(v.Summary, "crashed") {
		t.Errorf("summary %q", v.Summary)
	}
}

func TestGroups(t *testing.T) {
	threads := idleMariaDB()
	res := catalog(t).Run(linuxInput(threads...))
	if g := res.Groups[0]; g.Count != 3 || !slices.Equal(g.LWPs, []int{110, 111, 112}) || g.ID != "g1" || g.Idle == nil || !*g.Idle || !slices.Equal(g.Roles, []string{"user-connection"}) {
		t.Errorf("largest group %+v", g)
	}
	total := 0
	for _, g := range res.Groups {
		total += g.Count
		if g.Count != len(g.LWPs) {
			t.Errorf("group %+v", g)
		}
	}
	if total != len(threads) {
		t.Errorf("%d threads in groups, of %d", total, len(threads))
	}
	// one word of one stack differs: another group
	threads[9].Frames[4].PC += 8
	if g := catalog(t).Run(linuxInput(threads...)).Groups[0]; g.Count != 2 {
		t.Errorf("a stack with another return address is in the group: %+v", g)
	}
	// of cut stacks the call tells more than the one return address
	c, d := thread(1, "lib:?", call("futex", "", 0)), thread(2, "lib:?", call("openat", "", 0))
	c.Complete, d.Complete = false, false
	if n := len(catalog(t).Run(linuxInput(c, d)).Groups); n != 2 {
		t.Errorf("%d groups for two calls above lost stacks", n)
	}
	// threads without frames are grouped by what the kernel says
	a, b := thread(1, "", call("futex", "", 0)), thread(2, "", call("poll", "", 0))
	if n := len(catalog(t).Run(linuxInput(a, b)).Groups); n != 2 {
		t.Errorf("%d groups for two different calls", n)
	}
}

// The result depends on the facts alone, not on the order of the threads.
func TestSameFactsSameBytes(t *testing.T) {
	threads := append(idle97(), wchan(fifoThread(500, load97Stack, ghost, 0), "wait_for_partner"), fifoThread(400, loadStack, "/x", 0))
	encode := func(in *Input) string {
		b, err := json.Marshal(catalog(t).Run(in))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	one := encode(linuxInput(threads...))
	slices.Reverse(threads)
	if two := encode(linuxInput(threads...)); two != one {
		t.Error("another order of threads, another result")
	}
}

func BenchmarkRun(b *testing.B) {
	c := catalog(b)
	threads := idleMariaDB()
	conn := threads[len(threads)-1]
	for i := range 500 {
		conn.LWP = 1000 + i
		threads = append(threads, conn)
	}
	threads = append(threads, wchan(fifoThread(50, loadStack, ghost, 0), "wait_for_partner"))
	in := linuxInput(threads...)
	b.ReportAllocs()
	for b.Loop() {
		if res := c.Run(in); len(res.Findings) != 1 {
			b.Fatal("no finding")
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(embedded); err != nil {
			b.Fatal(err)
		}
	}
}
