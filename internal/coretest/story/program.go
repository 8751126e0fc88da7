package story

// The functions of the three images. The code is what a compiler of the time
// makes of such functions, cut down to what a stack needs: prologue, the moves
// that keep arguments, calls, epilogue.

// System call numbers (sys/kern/syscalls.master, FreeBSD 12.1).
const (
	sysOpen    = 5
	sysSelect  = 93
	sysPoll    = 209
	sysSigwait = 429
	sysUmtxOp  = 454
)

// libcText is libc.so.7: system call stubs with their weak names.
func libcText(o Options) []*fn {
	cerror := newFn("cerror")
	cerror.local = true
	cerror.emit(nil, 0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff)
	cerror.ret()
	out := []*fn{cerror,
		stub("__sys_open", sysOpen, "_open", "open"),
		stub("__sys_select", sysSelect, "_select", "select"),
		stub("__sys_poll", sysPoll, "_poll", "poll"),
		stub("__sys_sigwait", sysSigwait, "_sigwait", "sigwait"),
	}
	for _, f := range out {
		f.noCFI = o.NoStubCFI
	}
	return out
}

// cancellable makes a wrapper of libthr for a call that is a cancellation
// point: it keeps the arguments, tells the library, and calls libc's stub.
func cancellable(name, to string) *fn {
	f := newFn("__" + name)
	f.aliases = []string{name}
	f.enter(true, 8, r15, r14, r12, rbx, r13)
	f.mov32(r15, rdx)
	f.mov32(r14, rsi)
	f.mov(r12, rdi)
	f.mov(r13, rsi)
	f.self(rbx)
	f.mov(rdi, rbx)
	f.call("_thr_cancel_enter")
	f.mov(rdi, r12)
	if name == "open" {
		f.mov32(rsi, r14)
	} else {
		f.mov(rsi, r13)
	}
	f.mov32(rdx, r15)
	f.call(to)
	f.mov32(r14, rax)
	f.mov(rdi, rbx)
	f.call("_thr_cancel_leave")
	f.mov32(rax, r14)
	f.leave()
	return f
}

// libthrText is libthr.so.3. Stripped, it names only what it exports.
func libthrText(o Options) []*fn {
	l := layouts[o.Release]
	var out []*fn
	add := func(f *fn, local bool) *fn {
		f.local = local
		out = append(out, f)
		return f
	}

	// libthr/arch/amd64/amd64/_umtx_op_err.S (10.4): the number by a 64-bit
	// move, and no END, so that the symbol has no size.
	op := newFn("_umtx_op_err")
	op.sizeless = true
	op.immSigned(rax, sysUmtxOp)
	op.emit(func(m *machine) { m.r[r10] = m.r[rcx] }, 0x49, 0x89, 0xca)
	op.syscall()
	op.ret()
	op.noCFI = o.NoStubCFI
	add(op, true)

	for _, name := range []string{"_thr_cancel_enter", "_thr_cancel_leave"} {
		f := add(newFn(name), true)
		f.enter(true, 0)
		f.leave()
	}
	add(cancellable("open", "__sys_open"), false)
	add(cancellable("select", "__sys_select"), false)
	add(cancellable("poll", "__sys_poll"), false)
	add(cancellable("sigwait", "__sys_sigwait"), false)

	wait := add(newFn("_thr_umtx_timedwait_uint"), true)
	wait.enter(true, 32)
	wait.zero(rcx) // no timeout: both last arguments are zero
	wait.zero(rdx)
	wait.zero(r8)
	wait.imm(rsi, 15) // UMTX_OP_WAIT_UINT_PRIVATE
	wait.call("_umtx_op_err")
	wait.leave()

	sleep := add(newFn("_thr_sleep"), true)
	sleep.enter(true, 0, r14, rbx)
	sleep.mov(rbx, rdi)
	sleep.load(rdi, rbx, int32(l.wakeAddr)) // wake_addr->value is its first word
	sleep.zero(rsi)
	sleep.call("_thr_umtx_timedwait_uint")
	sleep.leave()

	common := add(newFn("cond_wait_common"), true)
	common.enter(false, 40, r15, r14, r13, r12, rbx, rbp)
	common.load(r12, rdi, 0) // pthread_cond_t and pthread_mutex_t are pointers
	common.load(r14, rsi, 0)
	common.self(r15)
	common.store(r15, int32(l.wchan), r12)
	common.store(r15, int32(l.mutexObj), r14)
	common.mov(rdi, r15)
	common.call("_thr_sleep")
	common.leave()

	cond := add(newFn("_pthread_cond_wait"), false)
	cond.aliases = []string{"pthread_cond_wait"}
	cond.enter(true, 0)
	cond.zero(rdx)
	cond.call("cond_wait_common")
	cond.leave()
	timed := add(newFn("_pthread_cond_timedwait"), false)
	timed.aliases = []string{"pthread_cond_timedwait"}
	timed.enter(true, 0)
	timed.skipIfZero(rdx, 5)
	timed.call("cond_wait_common")
	timed.leave()

	// The story's backtrace ends in pthread_create: thread_start is local,
	// and a stripped libthr has no nearer name. Here the exported symbol
	// reaches over it, so that a reader that names nothing outside of st_size
	// says the same.
	create := add(newFn("_pthread_create"), false)
	create.aliases = []string{"pthread_create"}
	create.cover = "thread_start"
	create.enter(true, 8, rbx)
	create.mov(rbx, rdi)
	create.leave()
	start := add(newFn("thread_start"), true)
	start.enter(true, 0, r14, rbx)
	start.mov(rbx, rdi)
	start.load(rdi, rbx, int32(l.arg))
	start.callMem(rbx, int32(l.startRoutine))
	start.mov(rdi, rax)
	start.call("_pthread_exit")
	start.ud2()
	exit := add(newFn("_pthread_exit"), false)
	exit.aliases = []string{"pthread_exit"}
	exit.enter(true, 0)
	exit.ud2()
	return out
}

// Sizes of the buffers on mysql_load's stack that matter.
const (
	loadFrame = 0x6b8 // locals of mysql_load
	loadName  = 0x270 // char name[FN_REFLEN]: so far below its frame pointer
)

// mysqldText is the server: the way of a LOAD DATA, and its idle threads.
// dispatchFrame is chosen so that mysql_load's name lands at NameAddr.
func mysqldText(dispatchFrame int) []*fn {
	var out []*fn
	add := func(name string, frame bool, locals int, saves ...reg) *fn {
		f := newFn(name)
		f.enter(frame, locals, saves...)
		out = append(out, f)
		return f
	}
	// through calls next with its first argument kept in rbx.
	through := func(name, next string, frame bool, locals int, saves ...reg) {
		f := add(name, frame, locals, append([]reg{rbx}, saves...)...)
		f.mov(rbx, rdi)
		f.skipIfZero(rbx, 3)
		f.mov(rdi, rbx)
		f.call(next)
		f.leave()
	}

	start := newFn("_start")
	start.enter(true, 0, r14, rbx)
	start.mov(rbx, rdi)
	start.load(rdi, rbx, 0)
	start.lea(rsi, rbx, 8)
	start.call("main")
	start.ud2()
	out = append(out, start)

	mainFn := add("main", true, 0)
	mainFn.call("_Z11mysqld_mainiPPc")
	mainFn.leave()
	through("_Z11mysqld_mainiPPc", "_Z26handle_connections_socketsv", true, 0x128, r15, r14, r13, r12)
	hcs := add("_Z26handle_connections_socketsv", true, 0x1a8, r15, r14, r13, r12, rbx)
	hcs.lea(rdi, rbp, -0x90)
	hcs.imm(rsi, 2)
	hcs.imm(rdx, 0xffffffff)
	hcs.call("poll")
	hcs.leave()

	// my_open keeps FileName in rbx; the call of open ends at my_open+29.
	open := newFn("my_open")
	open.enter(true, 8, r15, r14, rbx)
	open.mov32(r14, rdx)
	open.mov(rbx, rdi)
	open.loadGlobal32(rdx, "my_umask", 0o664)
	open.zero(rax)
	open.call("open")
	open.mov32(r15, rax)
	open.mov32(rdi, r15)
	open.mov(rsi, rbx)
	open.leave()
	out = append(out, open)

	load := add("_Z10mysql_loadP3THDP12sql_exchangeP10TABLE_LISTR4ListI4ItemES8_S8_15enum_duplicatesbb", true, loadFrame, r15, r14, r13, r12, rbx)
	load.mov(r15, rdi)
	load.mov(r14, rsi)
	load.lea(r13, rbp, -loadName)
	load.mov(rdi, r13)
	load.zero(rsi)
	load.imm(rdx, 16) // MYF(MY_WME)
	load.call("my_open")
	load.leave()

	exec := add("_Z21mysql_execute_commandP3THD", true, 0x468, r15, r14, r13, r12, rbx)
	exec.mov(r14, rdi)
	exec.load(r12, r14, thdQuery)
	exec.mov(rdi, r14)
	exec.mov(rsi, r12)
	exec.call("_Z10mysql_loadP3THDP12sql_exchangeP10TABLE_LISTR4ListI4ItemES8_S8_15enum_duplicatesbb")
	exec.leave()

	parse := add("_Z11mysql_parseP3THDPcjP12Parser_state", false, 0x98, r15, r14, r13, r12, rbx, rbp)
	parse.mov(rbp, rdi)
	parse.mov(r12, rsi)
	parse.mov(rdi, rbp)
	parse.call("_Z21mysql_execute_commandP3THD")
	parse.leave()

	dispatch := add("_Z16dispatch_command19enum_server_commandP3THDPcj", true, dispatchFrame, r15, r14, r13, r12, rbx)
	dispatch.mov32(r15, rdi)
	dispatch.mov(r12, rsi)
	dispatch.mov(r13, rdx)
	dispatch.mov32(r14, rcx)
	dispatch.mov(rdi, r12)
	dispatch.mov(rsi, r13)
	dispatch.mov32(rdx, r14)
	dispatch.lea(rcx, rbp, -0x400)
	dispatch.call("_Z11mysql_parseP3THDPcjP12Parser_state")
	dispatch.leave()

	command := add("_Z10do_commandP3THD", false, 0x38, r14, rbx)
	command.mov(rbx, rdi)
	command.mov(rdi, rbx)
	command.call("my_net_read")
	command.load(rdx, rbx, thdQuery)
	command.imm(rdi, 3) // COM_QUERY
	command.mov(rsi, rbx)
	command.imm(rcx, uint32(len(Query)))
	command.call("_Z16dispatch_command19enum_server_commandP3THDPcj")
	command.leave()
	through("_Z24do_handle_one_connectionP3THD", "_Z10do_commandP3THD", true, 0x28, r14, r12)
	through("handle_one_connection", "_Z24do_handle_one_connectionP3THD", true, 8)

	through("my_net_read", "vio_read", true, 0x28, r15, r14)
	through("vio_read", "vio_socket_io_wait", true, 8)
	through("vio_socket_io_wait", "vio_io_wait", true, 0, r14, r12, r13)
	vio := add("vio_io_wait", true, 0x28, r14, rbx)
	vio.lea(rdi, rbp, -0x28)
	vio.imm(rsi, 1)
	vio.imm(rdx, 28800000)
	vio.call("poll")
	vio.leave()

	wait := add("_Z17os_event_wait_lowP8os_eventl", true, 8, r14, rbx, r12)
	wait.mov(rbx, rdi)
	wait.lea(rdi, rbx, eventCond)
	wait.mov(rsi, rbx)
	wait.call("pthread_cond_wait")
	wait.leave()
	timed := add("_Z22os_event_wait_time_lowP8os_eventml", true, 0x28, r14, rbx)
	timed.mov(rbx, rdi)
	timed.lea(rdi, rbx, eventCond)
	timed.mov(rsi, rbx)
	timed.lea(rdx, rbp, -0x28)
	timed.call("pthread_cond_timedwait")
	timed.leave()
	osSleep := add("_Z15os_thread_sleepm", true, 0x20)
	osSleep.zero(rdi)
	osSleep.zero(rsi)
	osSleep.zero(rdx)
	osSleep.zero(rcx)
	osSleep.lea(r8, rbp, -0x10)
	osSleep.call("select")
	osSleep.leave()
	through("_Z19ib_wqueue_timedwaitP11ib_wqueue_tm", "_Z22os_event_wait_time_lowP8os_eventml", true, 8)

	through("_Z23os_aio_simulated_handlemPP10fil_node_tPPvPm", "_Z17os_event_wait_lowP8os_eventl", true, 0x48, r15, r14)
	through("_Z12fil_aio_waitm", "_Z23os_aio_simulated_handlemPP10fil_node_tPPvPm", true, 0x18, r14, r12)
	through("io_handler_thread", "_Z12fil_aio_waitm", true, 8)
	for _, t := range []struct{ name, next string }{
		{"lock_wait_timeout_thread", "_Z22os_event_wait_time_lowP8os_eventml"},
		{"srv_error_monitor_thread", "_Z22os_event_wait_time_lowP8os_eventml"},
		{"srv_monitor_thread", "_Z22os_event_wait_time_lowP8os_eventml"},
		{"srv_master_thread", "_Z15os_thread_sleepm"},
		{"srv_purge_coordinator_thread", "_Z17os_event_wait_lowP8os_eventl"},
		{"buf_flush_page_cleaner_thread", "_Z15os_thread_sleepm"},
		{"buf_dump_thread", "_Z17os_event_wait_lowP8os_eventl"},
		{"dict_stats_thread", "_Z22os_event_wait_time_lowP8os_eventml"},
		{"fts_optimize_thread", "_Z19ib_wqueue_timedwaitP11ib_wqueue_tm"},
	} {
		through(t.name, t.next, true, 0x48, r15, r14)
	}
	signals := add("signal_hand", true, 0x28, r14, rbx)
	signals.lea(rdi, rbp, -0x20)
	signals.lea(rsi, rbp, -0x24)
	signals.call("sigwait")
	signals.leave()
	return out
}
