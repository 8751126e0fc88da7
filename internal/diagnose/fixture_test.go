package diagnose

import (
	"strings"
	"testing"

	"mycore/internal/target"
)

// shipped catalog for tests.
func catalog(t testing.TB) *Catalog {
	t.Helper()
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// stack makes trusted frames from "inner < outer"; "?" is a frame of the
// server without a name, "lib:name" one of libc, "lib:?" one of libc without a name, "<signal>" a signal frame.
func stack(text string) []Frame {
	var out []Frame
	for i, n := range strings.Split(text, " < ") {
		f := Frame{PC: target.Addr(0x555500000000 + uint64(fnv(text[:min(len(text), 40)]))%4096*4096 + uint64(i)*64 + uint64(fnv(n))%64), Module: "/usr/sbin/mariadbd", Offset: uint64(fnv(n)) % 4096, Trust: TrustCFI}
		if i == 0 {
			f.Trust = TrustContext
		}
		switch name, lib := strings.CutPrefix(n, "lib:"); {
		case n == "<signal>":
			f.Signal = true
		case lib:
			f.Module, f.Norm = "/lib/x86_64-linux-gnu/libc.so.6", strings.TrimPrefix(name, "?")
		case n != "?":
			f.Norm = n
		}
		f.Function = f.Norm
		out = append(out, f)
	}
	return out
}

func fnv(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

func call(name, text string, result int64) target.Value[Syscall] {
	s := Syscall{Name: name, Text: text}
	if result != 0 {
		s.Result = target.Known(result, target.SourceRegisters)
	}
	return target.Known(s, target.SourceRegisters)
}

func thread(lwp int, frames string, sc target.Value[Syscall]) Thread {
	t := Thread{LWP: lwp, Syscall: sc, SigBlocked: target.Known(uint64(0x87007), target.SourceCoreNote)}
	if frames != "" {
		t.Frames, t.Complete = stack(frames), true
	}
	return t
}

func futex(op uint64, result int64) target.Value[Syscall] {
	v := call("futex", "futex(...)", result)
	v.V.Args[1] = op
	return v
}

const (
	loadStack = "lib:open64 < my_open < mysql_load < mysql_execute_command < mysql_parse < dispatch_command < do_command < " +
		"do_handle_one_connection < handle_one_connection < lib:start_thread < lib:clone"
	load97Stack = "lib:open64 < my_open < Sql_cmd_load_table::execute_inner < Sql_cmd_load_table::execute < mysql_execute_command < " +
		"dispatch_sql_command < dispatch_command < do_command < ? < pfs_spawn_thread < lib:start_thread < lib:clone3"
	logStack = "lib:open64 < my_open < MYSQL_LOG::open < MYSQL_QUERY_LOG::reopen_file < reload_acl_and_cache < mysql_execute_command < " +
		"dispatch_command < do_command < handle_one_connection < lib:start_thread < lib:clone"
	ghost = "/tmp/ghost.fifo"
)

// fifoThread is a thread in open() of a path, as a Linux core shows it.
func fifoThread(lwp int, frames, path string, flags uint64) Thread {
	t := thread(lwp, frames, call("openat", `openat(AT_FDCWD, "`+path+`", O_RDONLY|O_CLOEXEC)`, -512))
	if path == "" {
		t.Syscall.V.Text = "openat(AT_FDCWD, 0x7f0011223344, O_RDONLY|O_CLOEXEC)"
	} else {
		t.Syscall.V.Path = target.Known(path, target.SourceMemory)
	}
	t.Syscall.V.OpenFlags = target.Known(flags, target.SourceRegisters)
	return t
}

func wchan(t Thread, s string) Thread {
	t.WaitChannel = target.Known(s, target.SourceProc)
	return t
}

// linuxInput is a core of MariaDB 10.11 with these threads.
func linuxInput(threads ...Thread) *Input {
	return &Input{OS: "linux", Arch: "amd64", Threads: threads, Process: Process{PID: 4711, ServerModule: "/usr/sbin/mariadbd"}}
}

// idleMariaDB, idle56 and idle97 are whole idle servers, with the frames and
// calls measured on real ones.
func idleMariaDB() []Thread {
	poll := call("poll", "poll(...)", -516)
	tpool := "lib:pthread_cond_clockwait < tpool::thread_pool_generic::wait_for_tasks < tpool::thread_pool_generic::get_task < " +
		"tpool::thread_pool_generic::worker_main < lib:std::execute_native_thread_routine < lib:start_thread < lib:clone3"
	out := []Thread{
		thread(100, "lib:__poll < handle_connections_sockets < mysqld_main < lib:__libc_start_call_main < lib:__libc_start_main < _start", poll),
		thread(101, "lib:__sigtimedwait < lib:sigwait < signal_hand < lib:start_thread < lib:clone3", call("rt_sigtimedwait", "rt_sigtimedwait(...)", -4)),
		thread(102, "lib:pthread_cond_wait < handle_manager < lib:start_thread < lib:clone3", futex(0x189, -512)),
		thread(103, "lib:__io_uring_get_cqe < ? < lib:start_thread < lib:clone3", call("io_uring_enter", "io_uring_enter(...)", -4)),
		thread(104, tpool, futex(0x89, -516)),
		thread(105, tpool, call("restart_syscall", "restart_syscall(...)", -516)),
		thread(106, "lib:pthread_cond_timedwait < tpool::thread_pool_generic::wait_for_tasks < tpool::thread_pool_generic::worker_main < lib:start_thread < lib:clone3", futex(0x89, -516)),
	}
	conn := "lib:__poll < vio_io_wait < vio_socket_io_wait < vio_read < ? < ? < my_net_read_packet < do_command < do_handle_one_connection < " +
		"handle_one_connection < lib:start_thread < lib:clone3"
	return append(out, thread(110, conn, poll), thread(111, conn, poll), thread(112, conn, call("restart_syscall", "restart_syscall(...)", -516)))
}

func unnamedMariaDB() []Thread {
	return []Thread{
		thread(120, "lib:pthread_cond_timedwait < ? < lib:start_thread < lib:clone3", futex(0x89, -516)),
		thread(121, "lib:pthread_cond_timedwait < ? < ? < lib:start_thread < lib:clone3", futex(0x89, -516)),
		thread(122, "lib:pthread_cond_wait < ? < lib:start_thread < lib:clone3", futex(0x189, -512)),
	}
}

func idle56() []Thread {
	out := []Thread{
		thread(1, "lib:__poll < handle_connections_sockets < mysqld_main < main < lib:__libc_start_main < _start", call("poll", "poll(...)", -516)),
		thread(2, "lib:sigwait < signal_hand < lib:start_thread < lib:clone", call("rt_sigtimedwait", "rt_sigtimedwait(...)", -4)),
	}
	lwp := 3
	add := func(frames string, sc target.Value[Syscall]) {
		out = append(out, thread(lwp, frames, sc))
		lwp++
	}
	for range 10 {
		add("lib:io_getevents < os_aio_linux_collect < os_aio_linux_handle < fil_aio_wait < io_handler_thread < lib:start_thread < lib:clone", call("io_getevents", "io_getevents(...)", -4))
	}
	for _, f := range []string{"srv_master_sleep < srv_master_thread", "page_cleaner_sleep_if_needed < buf_flush_page_cleaner_thread"} {
		add("lib:__select < os_thread_sleep < "+f+" < lib:start_thread < lib:clone", call("pselect6", "pselect6(...)", -514))
	}
	for _, f := range []string{"lock_wait_timeout_thread", "srv_error_monitor_thread", "srv_monitor_thread", "dict_stats_thread"} {
		add("lib:pthread_cond_timedwait < os_cond_wait_timed < os_event_wait_time_low < "+f+" < lib:start_thread < lib:clone", futex(0x189, -516))
	}
	add("lib:pthread_cond_timedwait < os_cond_wait_timed < os_event_wait_time_low < ib_wqueue_timedwait < fts_optimize_thread < lib:start_thread < lib:clone", futex(0x189, -516))
	add("lib:pthread_cond_wait < os_cond_wait < os_event_wait_low < srv_purge_coordinator_suspend < srv_purge_coordinator_thread < lib:start_thread < lib:clone", futex(0x80, -512))
	add("lib:pthread_cond_wait < os_cond_wait < os_event_wait_low < buf_dump_thread < lib:start_thread < lib:clone", futex(0x80, -512))
	add("lib:__poll < vio_io_wait < vio_socket_io_wait < vio_read < net_read_raw_loop < net_read_packet < my_net_read < do_command < do_handle_one_connection < handle_one_connection < pfs_spawn_thread < lib:start_thread < lib:clone", call("poll", "poll(...)", -516))
	return out
}

func idle97() []Thread {
	lwp := 1
	var out []Thread
	add := func(name, frames string, sc target.Value[Syscall]) {
		t := thread(lwp, frames, sc)
		t.Name = target.Known(name, target.SourceCoreNote)
		out = append(out, t)
		lwp++
	}
	add("mysqld", "lib:__poll < Mysqld_socket_listener::listen_for_connection_event < mysqld_main < lib:__libc_start_call_main < lib:__libc_start_main < _start", call("poll", "poll(...)", -516))
	add("sig_handler", "lib:sigwaitinfo < signal_hand < pfs_spawn_thread < lib:start_thread < lib:clone3", call("rt_sigtimedwait", "rt_sigtimedwait(...)", -4))
	for _, n := range []string{"ib_io_ibuf", "ib_io_rd-1", "ib_io_rd-4", "ib_io_wr-2"} {
		add(n, "lib:io_pgetevents < LinuxAIOHandler::collect < LinuxAIOHandler::poll < os_aio_handler < fil_aio_wait < ? < ? < lib:start_thread < lib:clone3", call("io_pgetevents", "io_pgetevents(...)", -514))
	}
	const std, det = " < std::thread::_State_impl::_M_run < lib:? < lib:? < lib:?", " < Detached_thread::operator() < lib:? < lib:? < lib:?"
	for _, x := range [][2]string{{"ib_log_writer", "log_writer" + std}, {"ib_log_flush", "log_flusher" + std}, {"ib_srv_purge", "srv_purge_coordinator_thread" + det},
		{"ib_buf_resize", "buf_resize_thread" + det}, {"ib_dict_stats", "dict_stats_thread" + det}, {"ib_pg_flush_co", "?" + det}, {"ib_fts_opt", "ib_wqueue_timedwait < ?" + std}} {
		add(x[0], "lib:? < lib:pthread_cond_timedwait < os_event::timed_wait < os_event::wait_time_low < "+x[1], futex(0x189, -516))
	}
	add("ib_src_main", "lib:clock_nanosleep < lib:nanosleep < srv_master_thread"+det, call("clock_nanosleep", "clock_nanosleep(...)", -516))
	add("evt_sched", "lib:? < lib:pthread_cond_wait < Event_queue::cond_wait < Event_queue::get_top_for_execution_if_time < Event_scheduler::run < ? < ? < lib:? < lib:?", futex(0x189, -512))
	add("rpl_opt_tracker", "lib:? < lib:pthread_cond_timedwait < Rpl_opt_tracker::worker < ? < ? < lib:? < lib:?", futex(0x189, -516))
	add("gtid_zip", "lib:? < lib:pthread_cond_wait < ? < ? < lib:? < lib:?", futex(0x189, -512))
	add("connection", "lib:? < lib:ppoll < vio_io_wait < vio_socket_io_wait < vio_ssl_read < ? < ? < my_net_read < Protocol_classic::get_command < do_command < ? < ? < lib:? < lib:?", call("ppoll", "ppoll(...)", -514))
	return out
}
