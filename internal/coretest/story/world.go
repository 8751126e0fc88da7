// Package story writes the incident that mycore began with, as test support: a
// MySQL server on FreeBSD whose connection 1 runs LOAD DATA from a FIFO that
// was removed, and sleeps in open for ever. It makes the core file that gcore
// would have written, small ELF images with the symbols and call frame
// information of the functions on the stacks, and the texts that a person
// would have saved.
//
// The facts of the incident are those of "FreeBSD, MySQL and the story of the
// unlinked named pipe" (zewaren.net, 2015). Notes are laid out from FreeBSD's
// declarations; nothing is shared with the packages that read them.
package story

import (
	"os"
	"path/filepath"
	"strings"
)

// What the story tells.
const (
	PID        = 1158
	ConnLWP    = 100460
	ConnHandle = 0x829e76000
	NameAddr   = 0x7ffffd1a3c80
	FIFO       = "/tmp/ghost.fifo"
	Query      = "LOAD DATA INFILE '/tmp/ghost.fifo' INTO TABLE t"
	THD        = 0x828b0e000
	MysqldPath = "/usr/local/libexec/mysqld"
	LibthrPath = "/lib/libthr.so.3"
	LibcPath   = "/lib/libc.so.7"
	RtldPath   = "/libexec/ld-elf.so.1"
)

// Options choose variants. The zero value is the story's core.
type Options struct {
	// Release is the FreeBSD release whose libthr and kernel are imitated: 10
	// (also 0), 12 or 13 (layouts differ).
	Release int
	// KernelCore makes the core that the kernel would write on SIGQUIT: all
	// sleeps interrupted, no wait messages.
	KernelCore bool
	// OldNotes leaves out what FreeBSD 10 didn't write yet: NT_PTLWPINFO, and
	// the pid in NT_PRPSINFO.
	OldNotes bool
	// SegBases adds NT_X86_SEGBASES, as new kernels do.
	SegBases bool
	// LocalSymbols gives libthr and libc a .symtab; the base system's are
	// stripped.
	LocalSymbols bool
	// NoStubCFI leaves the hand-written system call stubs without FDEs: so it
	// was up to at least 10.4; 14 has them (sys/amd64/include/asm.h, _ENTRY).
	NoStubCFI bool
}

// Frame is one frame of a stack, innermost first.
type Frame struct {
	PC       uint64 // return address, or the program counter of frame 0
	SP       uint64 // at the call, before it pushed the return address
	Function string
	Start    uint64
	Module   string
}

// Thread is one thread as it was put into the core.
type Thread struct {
	LWP      int
	Handle   uint64
	TCB      uint64
	Wmesg    string // while it sleeps undisturbed
	InCore   string // what the core has of it
	Syscall  int
	Frames   []Frame
	Regs     map[string]uint64 // of NT_PRSTATUS
	Cond     uint64            // condition it waits on, 0 none
	Mutex    uint64            // with this mutex
	StackLow uint64
	StackTop uint64
	wchan    uint64
}

// Story is a built incident.
type Story struct {
	Core    []byte
	Images  map[string][]byte // by recorded path
	Threads []Thread          // in the order of the kernel's list
	// NoteOffs are the file offsets of the notes' headers, in file order.
	NoteOffs []int
	// NotesEnd is the file offset behind the last note.
	NotesEnd int
	// Symbols are run-time addresses by "file: name", for tests.
	symbols map[string]uint64
	opts    Options
}

// Symbol returns the run-time address of a symbol of an image; 0 if there is
// none.
func (s *Story) Symbol(path, name string) uint64 { return s.symbols[path+":"+name] }

// Field returns the offset in struct pthread (bytes) that was used for tid,
// tcb, magic, next, wchan, mutex_obj, start_routine, arg.
func (s *Story) Field(name string) uint64 {
	l := layouts[s.opts.Release]
	return map[string]uint64{"tid": 0, "tcb": l.tcb, "magic": l.magic, "next": l.tle, "wchan": l.wchan,
		"mutex_obj": l.mutexObj, "start_routine": l.startRoutine, "arg": l.arg, "size": l.size}[name]
}

// Write writes mysqld.core, the images below sysroot/, and the texts to dir.
func (s *Story) Write(dir string) (core, sysroot string, err error) {
	core, sysroot = filepath.Join(dir, "mysqld.core"), filepath.Join(dir, "sysroot")
	files := map[string][]byte{core: s.Core}
	for p, b := range s.Images {
		files[filepath.Join(sysroot, filepath.FromSlash(strings.TrimPrefix(p, "/")))] = b
	}
	for n, text := range Texts() {
		files[filepath.Join(dir, n)] = []byte(text)
	}
	for p, b := range files {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return "", "", err
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			return "", "", err
		}
	}
	return core, sysroot, nil
}

// layout is struct pthread of one generation (lib/libthr/thread/thr_private.h,
// amd64; bytes).
type layout struct {
	osrel                                   uint32
	tle, startRoutine, arg, attr, tlflags   uint64
	tcb, magic, wchan, mutexObj             uint64
	wakeAddr, state, name, size, mq, refcnt uint64
}

var layouts = map[int]layout{
	10: {osrel: 1001000, tle: 56, startRoutine: 128, arg: 136, attr: 144, tlflags: 412, tcb: 480, magic: 540,
		wchan: 576, mutexObj: 584, wakeAddr: 1000, state: 392, size: 1024, mq: 416, refcnt: 120},
	12: {osrel: 1201000, tle: 56, startRoutine: 128, arg: 136, attr: 144, tlflags: 412, tcb: 544, magic: 604,
		wchan: 640, mutexObj: 648, wakeAddr: 1096, state: 392, name: 1112, size: 1120, mq: 416, refcnt: 120},
	13: {osrel: 1302001, tle: 64, startRoutine: 136, arg: 144, attr: 152, tlflags: 420, tcb: 552, magic: 620,
		wchan: 656, mutexObj: 664, wakeAddr: 1112, state: 400, name: 1128, size: 1136, mq: 424, refcnt: 128},
}

// Places.
const (
	exeBase    = 0x400000
	rtldBase   = 0x80109f000
	libthrBase = 0x80154a000
	libcBase   = 0x801774000
	heap       = 0x802c00000 // allocations at start
	heapSize   = 0x10000
	thdHeap    = 0x828b0e000
	thdSize    = 0x4000
	lateHeap   = 0x829e70000
	lateSize   = 0x8000
	rtldHeap   = 0x8010c0000 // what the run-time linker allocates: TCBs, link maps
	rtldSize   = 0x10000

	userStack  = 0x7ffffffff000 // USRSTACK of amd64: below the shared page
	mainLimit  = 0x400000       // what libthr leaves for the initial thread (2 * THR_STACK_DEFAULT)
	bigStack   = 0x200000       // libthr's default stack
	smallStack = 0x40000        // thread_stack of 5.6
	guard      = 0x1000
	grown      = 0x20000 // a stack entry starts with sgrowsiz bytes

	thdQuery  = 0x48 // made up: where the builder's THD keeps its query text
	eventCond = 8    // InnoDB's os_event: os_mutex, then cond_var
	thrMagic  = 0xd09ba115
)

// role is what one thread of the story does.
type role struct {
	lwp   int
	path  []string // functions from the outside in, as image-less names
	wmesg string
	small bool
	late  uint64 // handle, 0 the next of the early ones
}

func roles() []role {
	wait := []string{"_Z17os_event_wait_lowP8os_eventl", "_pthread_cond_wait"}
	timed := []string{"_Z22os_event_wait_time_lowP8os_eventml", "_pthread_cond_timedwait"}
	umtx := []string{"cond_wait_common", "_thr_sleep", "_thr_umtx_timedwait_uint", "_umtx_op_err"}
	nap := []string{"_Z15os_thread_sleepm", "__select", "__sys_select"}
	path := func(parts ...[]string) (out []string) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	one := func(s ...string) []string { return s }
	out := []role{{lwp: 100411, wmesg: "select", path: one("_start", "main", "_Z11mysqld_mainiPPc", "_Z26handle_connections_socketsv", "__poll", "__sys_poll")}}
	for i := range 10 {
		out = append(out, role{lwp: 100440 + i, wmesg: "uwait",
			path: path(one("thread_start", "io_handler_thread", "_Z12fil_aio_waitm", "_Z23os_aio_simulated_handlemPP10fil_node_tPPvPm"), wait, umtx)})
	}
	for i, t := range []struct {
		name string
		tail []string
	}{
		{"lock_wait_timeout_thread", path(timed, umtx)},
		{"srv_error_monitor_thread", path(timed, umtx)},
		{"srv_monitor_thread", path(timed, umtx)},
		{"srv_master_thread", nap},
		{"srv_purge_coordinator_thread", path(wait, umtx)},
		{"buf_flush_page_cleaner_thread", nap},
		{"buf_dump_thread", path(wait, umtx)},
		{"dict_stats_thread", path(timed, umtx)},
		{"fts_optimize_thread", path(one("_Z19ib_wqueue_timedwaitP11ib_wqueue_tm"), timed, umtx)},
	} {
		w := "uwait"
		if strings.HasSuffix(t.tail[len(t.tail)-1], "select") {
			w = "select"
		}
		out = append(out, role{lwp: 100450 + i, wmesg: w, path: path(one("thread_start", t.name), t.tail)})
	}
	session := one("thread_start", "handle_one_connection", "_Z24do_handle_one_connectionP3THD", "_Z10do_commandP3THD")
	return append(out,
		role{lwp: 100459, wmesg: "sigwait", small: true, path: one("thread_start", "signal_hand", "__sigwait", "__sys_sigwait")},
		role{lwp: ConnLWP, wmesg: "fifoor", small: true, late: ConnHandle, path: path(session, one(
			"_Z16dispatch_command19enum_server_commandP3THDPcj", "_Z11mysql_parseP3THDPcjP12Parser_state", "_Z21mysql_execute_commandP3THD",
			"_Z10mysql_loadP3THDP12sql_exchangeP10TABLE_LISTR4ListI4ItemES8_S8_15enum_duplicatesbb", "my_open", "__open", "__sys_open"))},
		role{lwp: 100461, wmesg: "select", small: true, late: ConnHandle + 0x800, path: path(session, one(
			"my_net_read", "vio_read", "vio_socket_io_wait", "vio_io_wait", "__poll", "__sys_poll"))})
}

// world is the process while it is being built.
type world struct {
	opts    Options
	lay     layout
	images  []*image // link order: program, libthr, libc, run-time linker
	mem     *memory
	threads []Thread
	conns   int
}

// find returns the function of that name; names are unique over the images.
func (w *world) find(name string) *fn {
	for _, im := range w.images {
		for _, f := range im.text {
			if f.name == name {
				return f
			}
		}
	}
	panic("story: no function " + name)
}

// resolve is the run-time linker: the image itself first for what it defines
// and calls directly, else the first image in link order that exports it.
func (w *world) resolve(from *image, name string) *fn {
	match := func(im *image, exportedOnly bool) *fn {
		for _, f := range im.text {
			if exportedOnly && f.local {
				continue
			}
			if f.name == name {
				return f
			}
			for _, a := range f.aliases {
				if a == name {
					return f
				}
			}
		}
		return nil
	}
	if f := match(from, false); f != nil {
		return f
	}
	for _, im := range w.images {
		if f := match(im, true); f != nil {
			return f
		}
	}
	return nil
}

// Build makes the incident. It panics on a mistake in the builder itself.
func Build(o Options) *Story {
	if o.Release == 0 {
		o.Release = 10
	}
	w := &world{opts: o, lay: layouts[o.Release], mem: &memory{}}
	// The frame of dispatch_command is what puts the name where it was: try
	// with a small one, see where it lands, and take the difference.
	const trial = 0x418
	w.assemble(trial)
	miss := w.nameAddr() - NameAddr
	w = &world{opts: o, lay: layouts[o.Release], mem: &memory{}}
	w.assemble(trial + int(miss))
	w.fillLists()
	s := &Story{Images: map[string][]byte{}, symbols: map[string]uint64{}, Threads: w.threads, opts: o}
	for _, im := range w.images {
		s.Images[im.path] = im.file
		for n, off := range im.symbols {
			s.symbols[im.path+":"+n] = im.base + off
		}
	}
	w.writeCore(s)
	return s
}

// nameAddr is where mysql_load's name is on the stack of the connection.
func (w *world) nameAddr() uint64 {
	for _, t := range w.threads {
		if t.LWP == ConnLWP {
			return t.Regs["rdi"]
		}
	}
	panic("story: no connection")
}

func (w *world) assemble(dispatchFrame int) {
	id := func(b byte) []byte {
		out := make([]byte, 20)
		for i := range out {
			out[i] = b + byte(i)*7
		}
		return out
	}
	osrel := w.lay.osrel
	w.images = []*image{
		{path: MysqldPath, exec: true, base: exeBase, interp: RtldPath, needed: []string{"libthr.so.3", "libc.so.7"}, osrel: osrel,
			buildID: id(0x11), symtab: true, text: mysqldText(dispatchFrame),
			data: []*object{{name: "my_umask", size: 4, value: []byte{0xb4, 1, 0, 0}}, {name: "server_version", size: 16, value: []byte("5.6.24\x00")}}},
		{path: LibthrPath, soname: "libthr.so.3", base: libthrBase, needed: []string{"libc.so.7"}, osrel: osrel, buildID: id(0x22),
			symtab: w.opts.LocalSymbols, text: libthrText(w.opts), data: w.libthrData()},
		{path: LibcPath, soname: "libc.so.7", base: libcBase, osrel: osrel, buildID: id(0x33), symtab: w.opts.LocalSymbols, text: libcText(w.opts),
			data: []*object{{name: "environ", size: 8}, {name: "__progname", size: 8}}},
		{path: RtldPath, soname: "ld-elf.so.1", base: rtldBase, osrel: osrel, buildID: id(0x44), text: rtldText(),
			data: []*object{{name: "r_debug", size: 40, local: true}}},
	}
	for _, im := range w.images {
		im.build()
		start := im.base + im.dynOff
		w.mem.add(start, int(align(im.dataEnd-im.dynOff, page)))
		copy(w.mem.at(start, int(im.dataEnd-im.dynOff)), im.file[im.dynOff:im.dataEnd])
	}
	for _, im := range w.images {
		for i, n := range im.imports {
			if f := w.resolve(im, n); f != nil {
				w.mem.putWord(im.base+im.gotOff+uint64(8*(3+i)), f.addr())
			} else {
				panic("story: nobody defines " + n)
			}
		}
	}
	w.mem.add(heap, heapSize)
	w.mem.add(thdHeap, thdSize)
	w.mem.add(lateHeap, lateSize)
	w.mem.add(rtldHeap, rtldSize)
	w.linkMaps()
	for i, r := range roles() {
		w.thread(i, r)
	}
}

func rtldText() []*fn {
	f := newFn("r_debug_state")
	f.emit(nil, 0xc3)
	g := newFn("_rtld_thread_init")
	g.enter(true, 0)
	g.leave()
	return []*fn{f, g}
}

// libthrData are the variables for debuggers (libthr/thread/thr_symbols.c) and
// the library's list of threads.
func (w *world) libthrData() []*object {
	l := w.lay
	num := func(name string, v uint64) *object {
		return &object{name: name, size: 4, value: le.AppendUint32(nil, uint32(v))}
	}
	return []*object{
		num("_thread_off_tcb", l.tcb), num("_thread_off_tid", 0), num("_thread_off_next", l.tle),
		num("_thread_off_attr_flags", l.attr+16), num("_thread_off_linkmap", 304), num("_thread_off_tlsindex", 272),
		num("_thread_off_report_events", l.magic+4), num("_thread_off_event_mask", l.magic+8), num("_thread_off_event_buf", l.magic+12),
		num("_thread_size_key", 16), num("_thread_off_key_allocated", 0), num("_thread_off_key_destructor", 8), num("_thread_max_keys", 256),
		num("_thread_off_dtv", 8), num("_thread_off_state", l.state), num("_thread_state_running", 0), num("_thread_state_zoombie", 1),
		{name: "_thread_list", size: 16},
		{name: "_thread_active_threads", size: 4},
		{name: "_libthr_debug", size: 4},
		{name: "_thr_initial", size: 8, local: true},
	}
}

// linkMaps writes the run-time linker's list of images (link_elf.h: r_debug,
// link_map) and the exe's DT_DEBUG.
func (w *world) linkMaps() {
	rtld := w.images[3]
	debug := rtld.run("r_debug")
	at := func(i int) uint64 { return rtldHeap + 0x1000 + uint64(i)*0x100 }
	w.mem.put32(debug, 1)
	w.mem.putWord(debug+8, at(0))
	w.mem.putWord(debug+16, rtld.run("r_debug_state"))
	for i, im := range w.images {
		m := at(i)
		w.mem.putText(m+0x80, im.path)
		w.mem.putWord(m, im.base)
		if im.exec {
			w.mem.putWord(m, 0)
		}
		w.mem.putWord(m+8, m+0x80)
		w.mem.putWord(m+16, im.base+im.dynOff)
		if i+1 < len(w.images) {
			w.mem.putWord(m+24, at(i+1))
		}
		if i > 0 {
			w.mem.putWord(m+32, at(i-1))
		}
	}
	dyn := w.images[0].base + w.images[0].dynOff
	w.mem.putWord(dyn+8, debug)
}

// endedStacks is the number of threads that came and went before the signal
// handler: InnoDB's recovery threads. Their stacks stay mapped.
const endedStacks = 2

// stackTop is where the stack of the i-th thread ends: libthr places them one
// below the other, under what it leaves for the initial thread.
func stackTop(i int) uint64 {
	top := uint64(userStack - mainLimit - guard)
	for k := 1; k < i; k++ {
		if k <= 19 {
			top -= bigStack + guard
		} else {
			top -= smallStack + guard
		}
	}
	if i > 19 {
		top -= endedStacks * (bigStack + guard)
	}
	return top
}

func (w *world) thread(i int, r role) {
	t := Thread{LWP: r.lwp, Wmesg: r.wmesg, Handle: r.late, TCB: rtldHeap + 0x4000 + uint64(i)*0x200 + 0x130}
	if t.Handle == 0 {
		t.Handle = heap + 0x6400 + uint64(i)*0x600
	}
	size := uint64(bigStack)
	switch {
	case i == 0:
		t.StackTop, size = userStack, mainLimit
	case r.small:
		size = smallStack
		fallthrough
	default:
		t.StackTop = stackTop(i)
	}
	t.StackLow = t.StackTop - size
	w.mem.add(t.StackTop-grown, grown)
	w.pthread(&t, r, size)

	m := &machine{mem: w.mem, w: w, fsbase: t.TCB}
	m.r[rdi] = t.Handle
	m.r[rsp] = t.StackTop - 8 // cpu_set_upcall_kse: aligned, then a return address of zero
	if i == 0 {
		// exec_setregs: the argument block is above, its count first.
		args := t.StackTop - 0x300
		w.mem.putWord(args, 4)
		w.arguments(args + 8)
		m.r[rsp], m.r[rdi] = args-8, args
	}
	m.run(r.path)
	t.Syscall = int(m.r[rax])
	for k := len(m.frames) - 1; k >= 0; k-- {
		t.Frames = append(t.Frames, m.frames[k])
	}
	w.interrupt(&t, m, i)
	if t.LWP == ConnLWP {
		w.mem.putText(t.Regs["rdi"], FIFO)
	}
	w.threads = append(w.threads, t)
}

// argv of the server.
var argv = []string{MysqldPath, "--defaults-extra-file=/var/db/mysql/my.cnf", "--basedir=/usr/local", "--datadir=/var/db/mysql"}

func (w *world) arguments(at uint64) {
	text := at + 0x80
	for i, s := range argv {
		w.mem.putWord(at+uint64(8*i), text)
		w.mem.putText(text, s)
		text += uint64(len(s) + 1)
	}
}

// pthread writes struct pthread and its TCB, and what the thread waits on.
func (w *world) pthread(t *Thread, r role, stack uint64) {
	l, h := w.lay, t.Handle
	w.mem.putWord(h, uint64(t.LWP))
	w.mem.putWord(h+l.attr+24, t.StackTop-stack)
	w.mem.putWord(h+l.attr+32, stack)
	w.mem.putWord(h+l.attr+40, guard)
	w.mem.putWord(h+l.tcb, t.TCB)
	w.mem.put32(h+l.magic, thrMagic)
	w.mem.put32(h+l.tlflags, 2)
	w.mem.putWord(t.TCB, t.TCB)
	w.mem.putWord(t.TCB+8, t.TCB+0x40)
	w.mem.putWord(t.TCB+16, h)
	wake := t.TCB + 0x80
	w.mem.putWord(h+l.wakeAddr, wake)
	if r.path[0] == "thread_start" {
		w.mem.putWord(h+l.startRoutine, w.find(r.path[1]).addr())
		arg := heap + 0x1000 + 0x100*uint64(t.LWP-100400)
		if strings.HasPrefix(r.path[1], "handle_") {
			arg = THD + uint64(w.conns)*0x2000
			w.conns++
			w.mem.putWord(arg+thdQuery, arg+0x1000)
			w.mem.putText(arg+0x1000, Query)
		} else {
			// The event that an idle thread waits on: its mutex, then its
			// condition, each a pointer to libthr's object.
			t.Mutex, t.Cond = 0, 0
			w.mem.putWord(arg, arg+0x20)
			w.mem.putWord(arg+eventCond, arg+0x90)
			if r.wmesg == "uwait" {
				t.Mutex, t.Cond = arg+0x20, arg+0x90
			}
		}
		w.mem.putWord(h+l.arg, arg)
	}
}
