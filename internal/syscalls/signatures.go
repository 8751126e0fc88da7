package syscalls

// Shorthands for the parameters of the table below. The kind is what a reader
// of Arg can rely on.
func pFD(name string) param    { return param{name: name, kind: "fd", show: showFD} }
func pDir(name string) param   { return param{name: name, kind: "fd", show: showDirFD} }
func pPath(name string) param  { return param{name: name, kind: "path", show: showPath} }
func pPtr(name string) param   { return param{name: name, kind: "pointer", show: showPointer} }
func pInt(name string) param   { return param{name: name, kind: "int", show: showInt} }
func pUint(name string) param  { return param{name: name, kind: "int", show: showUint} }
func pLong(name string) param  { return param{name: name, kind: "int", show: showLong} }
func pSize(name string) param  { return param{name: name, kind: "size", show: showSize} }
func pMode(name string) param  { return param{name: name, kind: "mode", show: showMode} }
func pHex(name string) param   { return param{name: name, kind: "int", show: showHex} }
func pData(name string) param  { return param{name: name, kind: "data", show: showData} }
func pTime(name string) param  { return param{name: name, kind: "timespec", show: showTimespec} }
func pSig(name string) param   { return param{name: name, kind: "signal", show: showSignal} }
func pAddr(name string) param  { return param{name: name, kind: "sockaddr", show: showAddress} }
func pClock(name string) param { return param{name: name, kind: "clock", show: showClock} }

func pFlags(name string, set []named, zero string) param {
	return param{name: name, kind: "flags", show: showFlags(set, zero)}
}

func pEnum(name string, set []named) param {
	return param{name: name, kind: "enum", show: showEnum(set)}
}

func pMask(name string, sizeArg int) param {
	return param{name: name, kind: "sigset", show: showSigset(sizeArg)}
}

func pVec(name string, sends bool) param {
	return param{name: name, kind: "iovec", show: showVector(sends)}
}

// only limits a parameter to calls for which when holds.
func only(p param, when func(args *[6]uint64) bool) param {
	p.when = when
	return p
}

// unused skips a register that a 64-bit call doesn't use.
func unused() param {
	return param{show: showPointer, when: func(*[6]uint64) bool { return false }}
}

// creates reports whether the flags in argument i make open use its mode.
func creates(i int) func(*[6]uint64) bool {
	return func(a *[6]uint64) bool {
		return a[i]&oCreate != 0 || a[i]&oTmpFile == oTmpFile
	}
}

// futexOp makes a condition on the command of a futex call.
func futexOp(commands ...uint64) func(*[6]uint64) bool {
	return func(a *[6]uint64) bool {
		for _, c := range commands {
			if a[1]&futexCommand == c {
				return true
			}
		}
		return false
	}
}

// unknownSignature shows the registers of a call without a signature.
var unknownSignature = []param{pHex("arg1"), pHex("arg2"), pHex("arg3"), pHex("arg4"), pHex("arg5"), pHex("arg6")}

var pOpenFlags = param{name: "flags", kind: "flags", show: showOpenFlags}

// signatures are the parameters of the Linux calls in which a thread of a
// database blocks or that tell what it does, by name: section 2 of the manual,
// and the prototypes in include/linux/syscalls.h.
var signatures = map[string][]param{
	// Files.
	"open":            {pPath("pathname"), pOpenFlags, only(pMode("mode"), creates(1))},
	"openat":          {pDir("dirfd"), pPath("pathname"), pOpenFlags, only(pMode("mode"), creates(2))},
	"openat2":         {pDir("dirfd"), pPath("pathname"), {name: "how", kind: "open_how", show: showOpenHow}, pSize("size")},
	"creat":           {pPath("pathname"), pMode("mode")},
	"close":           {pFD("fd")},
	"read":            {pFD("fd"), pPtr("buf"), pSize("count")},
	"write":           {pFD("fd"), pData("buf"), pSize("count")},
	"pread64":         {pFD("fd"), pPtr("buf"), pSize("count"), pLong("offset")},
	"pwrite64":        {pFD("fd"), pData("buf"), pSize("count"), pLong("offset")},
	"readv":           {pFD("fd"), pVec("iov", false), pInt("iovcnt")},
	"writev":          {pFD("fd"), pVec("iov", true), pInt("iovcnt")},
	"preadv":          {pFD("fd"), pVec("iov", false), pInt("iovcnt"), pLong("offset")},
	"pwritev":         {pFD("fd"), pVec("iov", true), pInt("iovcnt"), pLong("offset")},
	"preadv2":         {pFD("fd"), pVec("iov", false), pInt("iovcnt"), pLong("offset"), unused(), pFlags("flags", rwFlags, "0")},
	"pwritev2":        {pFD("fd"), pVec("iov", true), pInt("iovcnt"), pLong("offset"), unused(), pFlags("flags", rwFlags, "0")},
	"lseek":           {pFD("fd"), pLong("offset"), pEnum("whence", whences)},
	"fsync":           {pFD("fd")},
	"fdatasync":       {pFD("fd")},
	"sync":            {},
	"syncfs":          {pFD("fd")},
	"fallocate":       {pFD("fd"), pFlags("mode", fallocModes, "0"), pLong("offset"), pLong("len")},
	"ftruncate":       {pFD("fd"), pLong("length")},
	"truncate":        {pPath("path"), pLong("length")},
	"fadvise64":       {pFD("fd"), pLong("offset"), pSize("len"), pEnum("advice", fileAdvices)},
	"readahead":       {pFD("fd"), pLong("offset"), pSize("count")},
	"flock":           {pFD("fd"), {name: "operation", kind: "flags", show: showFlock}},
	"fcntl":           {pFD("fd"), pEnum("op", fcntlOps), {name: "arg", kind: "int", show: showFcntl}},
	"ioctl":           {pFD("fd"), pEnum("op", ioctls), pHex("arg")},
	"stat":            {pPath("pathname"), pPtr("statbuf")},
	"lstat":           {pPath("pathname"), pPtr("statbuf")},
	"fstat":           {pFD("fd"), pPtr("statbuf")},
	"newfstatat":      {pDir("dirfd"), pPath("pathname"), pPtr("statbuf"), pFlags("flags", atFlags, "0")},
	"statx":           {pDir("dirfd"), pPath("pathname"), pFlags("flags", atFlags, "AT_STATX_SYNC_AS_STAT"), pFlags("mask", statxMask, "0"), pPtr("statxbuf")},
	"statfs":          {pPath("path"), pPtr("buf")},
	"fstatfs":         {pFD("fd"), pPtr("buf")},
	"access":          {pPath("pathname"), pFlags("mode", accessModes, "F_OK")},
	"faccessat":       {pDir("dirfd"), pPath("pathname"), pFlags("mode", accessModes, "F_OK")},
	"faccessat2":      {pDir("dirfd"), pPath("pathname"), pFlags("mode", accessModes, "F_OK"), pFlags("flags", atFlags, "0")},
	"unlink":          {pPath("pathname")},
	"unlinkat":        {pDir("dirfd"), pPath("pathname"), pFlags("flags", atFlags, "0")},
	"rename":          {pPath("oldpath"), pPath("newpath")},
	"renameat":        {pDir("olddirfd"), pPath("oldpath"), pDir("newdirfd"), pPath("newpath")},
	"renameat2":       {pDir("olddirfd"), pPath("oldpath"), pDir("newdirfd"), pPath("newpath"), pFlags("flags", renameFlags, "0")},
	"link":            {pPath("oldpath"), pPath("newpath")},
	"linkat":          {pDir("olddirfd"), pPath("oldpath"), pDir("newdirfd"), pPath("newpath"), pFlags("flags", atFlags, "0")},
	"symlink":         {pPath("target"), pPath("linkpath")},
	"symlinkat":       {pPath("target"), pDir("newdirfd"), pPath("linkpath")},
	"readlink":        {pPath("pathname"), pPtr("buf"), pSize("bufsiz")},
	"readlinkat":      {pDir("dirfd"), pPath("pathname"), pPtr("buf"), pSize("bufsiz")},
	"mkdir":           {pPath("pathname"), pMode("mode")},
	"mkdirat":         {pDir("dirfd"), pPath("pathname"), pMode("mode")},
	"rmdir":           {pPath("pathname")},
	"chdir":           {pPath("path")},
	"mknod":           {pPath("pathname"), pMode("mode"), pHex("dev")},
	"mknodat":         {pDir("dirfd"), pPath("pathname"), pMode("mode"), pHex("dev")},
	"chmod":           {pPath("pathname"), pMode("mode")},
	"fchmod":          {pFD("fd"), pMode("mode")},
	"getdents64":      {pFD("fd"), pPtr("dirp"), pSize("count")},
	"dup":             {pFD("oldfd")},
	"dup2":            {pFD("oldfd"), pFD("newfd")},
	"dup3":            {pFD("oldfd"), pFD("newfd"), pFlags("flags", pipeFlags, "0")},
	"pipe":            {pPtr("pipefd")},
	"pipe2":           {pPtr("pipefd"), pFlags("flags", pipeFlags, "0")},
	"sendfile":        {pFD("out_fd"), pFD("in_fd"), pPtr("offset"), pSize("count")},
	"splice":          {pFD("fd_in"), pPtr("off_in"), pFD("fd_out"), pPtr("off_out"), pSize("len"), pFlags("flags", spliceFlags, "0")},
	"tee":             {pFD("fd_in"), pFD("fd_out"), pSize("len"), pFlags("flags", spliceFlags, "0")},
	"vmsplice":        {pFD("fd"), pVec("iov", false), pSize("nr_segs"), pFlags("flags", spliceFlags, "0")},
	"copy_file_range": {pFD("fd_in"), pPtr("off_in"), pFD("fd_out"), pPtr("off_out"), pSize("len"), pHex("flags")},
	"sync_file_range": {pFD("fd"), pLong("offset"), pLong("nbytes"), pFlags("flags", syncRange, "0")},

	// Waiting for descriptors.
	"poll":         {{name: "fds", kind: "pollfds", show: showPollFDs}, pUint("nfds"), pInt("timeout")},
	"ppoll":        {{name: "fds", kind: "pollfds", show: showPollFDs}, pUint("nfds"), pTime("tmo_p"), pMask("sigmask", 4), pSize("sigsetsize")},
	"select":       {pInt("nfds"), {name: "readfds", kind: "fdset", show: showFDSet}, {name: "writefds", kind: "fdset", show: showFDSet}, {name: "exceptfds", kind: "fdset", show: showFDSet}, {name: "timeout", kind: "timeval", show: showTimeval}},
	"pselect6":     {pInt("nfds"), {name: "readfds", kind: "fdset", show: showFDSet}, {name: "writefds", kind: "fdset", show: showFDSet}, {name: "exceptfds", kind: "fdset", show: showFDSet}, pTime("timeout"), {name: "sigmask", kind: "sigset", show: showSigsetPointer}},
	"epoll_wait":   {pFD("epfd"), pPtr("events"), pInt("maxevents"), pInt("timeout")},
	"epoll_pwait":  {pFD("epfd"), pPtr("events"), pInt("maxevents"), pInt("timeout"), pMask("sigmask", 5), pSize("sigsetsize")},
	"epoll_pwait2": {pFD("epfd"), pPtr("events"), pInt("maxevents"), pTime("timeout"), pMask("sigmask", 5), pSize("sigsetsize")},
	"epoll_ctl":    {pFD("epfd"), pEnum("op", epollOps), pFD("fd"), {name: "event", kind: "epoll_event", show: showEpollEvent}},

	// Asynchronous I/O. A context is the address of its ring.
	"io_setup":       {pUint("nr_events"), pPtr("ctx_idp")},
	"io_destroy":     {pHex("ctx_id")},
	"io_submit":      {pHex("ctx_id"), pLong("nr"), pPtr("iocbpp")},
	"io_cancel":      {pHex("ctx_id"), pPtr("iocb"), pPtr("result")},
	"io_getevents":   {pHex("ctx_id"), pLong("min_nr"), pLong("nr"), pPtr("events"), pTime("timeout")},
	"io_pgetevents":  {pHex("ctx_id"), pLong("min_nr"), pLong("nr"), pPtr("events"), pTime("timeout"), {name: "sigmask", kind: "sigset", show: showSigsetPointer}},
	"io_uring_enter": {pFD("fd"), pUint("to_submit"), pUint("min_complete"), pFlags("flags", uringFlags, "0"), pPtr("arg"), pSize("argsz")},

	// Threads, signals, time.
	"futex": {
		pPtr("uaddr"), {name: "futex_op", kind: "futex-op", show: showFutexOp},
		only(pUint("val"), func(a *[6]uint64) bool { return !futexOp(6, 7, 8, 13)(a) }),
		{name: "timeout", kind: "timespec", show: showFutexTime, when: futexOp(0, 3, 4, 5, 6, 9, 11, 12, 13)},
		only(pPtr("uaddr2"), futexOp(3, 4, 5, 11, 12)),
		{name: "val3", kind: "int", show: showFutexMask, when: futexOp(4, 5, 9, 10, 12)},
	},
	"nanosleep":       {pTime("duration"), pPtr("rem")},
	"clock_nanosleep": {pClock("clockid"), pFlags("flags", timerFlags, "0"), pTime("t"), pPtr("remain")},
	"clock_gettime":   {pClock("clockid"), pPtr("tp")},
	"rt_sigtimedwait": {pMask("set", 3), pPtr("info"), pTime("timeout"), pSize("sigsetsize")},
	"rt_sigsuspend":   {pMask("mask", 1), pSize("sigsetsize")},
	"rt_sigprocmask":  {pEnum("how", sigmaskHows), pMask("set", 3), pPtr("oldset"), pSize("sigsetsize")},
	"rt_sigreturn":    {},
	"restart_syscall": {},
	"pause":           {},
	"sched_yield":     {},
	"kill":            {pInt("pid"), pSig("sig")},
	"tkill":           {pInt("tid"), pSig("sig")},
	"tgkill":          {pInt("tgid"), pInt("tid"), pSig("sig")},
	"exit":            {pInt("status")},
	"exit_group":      {pInt("status")},
	"wait4":           {pInt("pid"), pPtr("wstatus"), pFlags("options", wait4Options, "0"), pPtr("rusage")},
	"waitid":          {pEnum("idtype", idTypes), pInt("id"), pPtr("infop"), pFlags("options", waitOptions, "0"), pPtr("rusage")},
	"semop":           {pInt("semid"), pPtr("sops"), pSize("nsops")},
	"semtimedop":      {pInt("semid"), pPtr("sops"), pSize("nsops"), pTime("timeout")},
	"execve":          {pPath("pathname"), pPtr("argv"), pPtr("envp")},

	// Sockets.
	"socket":   {pEnum("domain", families), {name: "type", kind: "flags", show: showSocketType}, pInt("protocol")},
	"connect":  {pFD("sockfd"), pAddr("addr"), pInt("addrlen")},
	"bind":     {pFD("sockfd"), pAddr("addr"), pInt("addrlen")},
	"listen":   {pFD("sockfd"), pInt("backlog")},
	"accept":   {pFD("sockfd"), pPtr("addr"), pPtr("addrlen")},
	"accept4":  {pFD("sockfd"), pPtr("addr"), pPtr("addrlen"), pFlags("flags", socketFlags, "0")},
	"shutdown": {pFD("sockfd"), pEnum("how", shutdowns)},
	"recvfrom": {pFD("sockfd"), pPtr("buf"), pSize("size"), pFlags("flags", messageFlags, "0"), pPtr("src_addr"), pPtr("addrlen")},
	"sendto":   {pFD("sockfd"), pData("buf"), pSize("size"), pFlags("flags", messageFlags, "0"), pAddr("dest_addr"), pInt("addrlen")},
	"recvmsg":  {pFD("sockfd"), {name: "msg", kind: "msghdr", show: showMessage(false)}, pFlags("flags", messageFlags, "0")},
	"sendmsg":  {pFD("sockfd"), {name: "msg", kind: "msghdr", show: showMessage(true)}, pFlags("flags", messageFlags, "0")},
	"recvmmsg": {pFD("sockfd"), pPtr("msgvec"), pUint("vlen"), pFlags("flags", messageFlags, "0"), pTime("timeout")},
	"sendmmsg": {pFD("sockfd"), pPtr("msgvec"), pUint("vlen"), pFlags("flags", messageFlags, "0")},

	// Memory.
	"mmap":     {pPtr("addr"), pSize("length"), pFlags("prot", protections, "PROT_NONE"), pFlags("flags", mapFlags, "0"), pFD("fd"), pHex("offset")},
	"munmap":   {pPtr("addr"), pSize("length")},
	"mprotect": {pPtr("addr"), pSize("size"), pFlags("prot", protections, "PROT_NONE")},
	"mremap":   {pPtr("old_address"), pSize("old_size"), pSize("new_size"), pFlags("flags", remapFlags, "0")},
	"madvise":  {pPtr("addr"), pSize("length"), pEnum("advice", advices)},
	"msync":    {pPtr("addr"), pSize("length"), pFlags("flags", msyncFlags, "0")},
	"mlock":    {pPtr("addr"), pSize("size")},
	"brk":      {pPtr("addr")},
}
