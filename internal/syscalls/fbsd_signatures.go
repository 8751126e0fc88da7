package syscalls

// Shorthands for FreeBSD's own parameters.
func pSigFB(name string) param   { return param{name: name, kind: "signal", show: showSignalFB} }
func pAddrFB(name string) param  { return param{name: name, kind: "sockaddr", show: showAddressFB} }
func pClockFB(name string) param { return param{name: name, kind: "clock", show: showClockFB} }
func pMaskFB(name string) param  { return param{name: name, kind: "sigset", show: showSigsetFB} }
func pSetFB(name string) param   { return param{name: name, kind: "fdset", show: showFDSet} }
func pValue(name string) param   { return param{name: name, kind: "timeval", show: showTimeval} }

func pFlagsFB(set []named) param { return pFlags("flags", set, "0") }

func pMessageFB(sends bool) param {
	return param{name: "msg", kind: "msghdr", show: showMessageFB(sends)}
}

func pEvents(name string, size int) param {
	return param{name: name, kind: "kevents", show: showEvents(size)}
}

var (
	pOpenFlagsFB = param{name: "flags", kind: "flags", show: showOpenFlagsFB}
	pPollFDsFB   = param{name: "fds", kind: "pollfds", show: showPollFDsFB}
	pAtFlagsFB   = pFlags("flag", fbAtFlags, "0")
)

// createsFB reports whether the flags in argument i make open use its mode.
func createsFB(i int) func(*[6]uint64) bool {
	return func(a *[6]uint64) bool { return a[i]&fbCreate != 0 }
}

// Sizes of struct kevent on 64-bit machines: of FreeBSD 12 and newer, and
// before (struct kevent_freebsd11).
const (
	sizeKevent   = 64
	sizeKevent11 = 32
)

// fbsdSignatures are the parameters of the FreeBSD calls in which a thread of a
// database blocks or that tell what it does, by name: section 2 of the manual
// and sys/kern/syscalls.master (12.1, main). Arguments that Linux has too have
// the same names.
var fbsdSignatures = map[string][]param{
	// Files.
	"open":               {pPath("pathname"), pOpenFlagsFB, only(pMode("mode"), createsFB(1))},
	"openat":             {pDir("dirfd"), pPath("pathname"), pOpenFlagsFB, only(pMode("mode"), createsFB(2))},
	"close":              {pFD("fd")},
	"read":               {pFD("fd"), pPtr("buf"), pSize("nbytes")},
	"write":              {pFD("fd"), pData("buf"), pSize("nbytes")},
	"pread":              {pFD("fd"), pPtr("buf"), pSize("nbytes"), pLong("offset")},
	"pwrite":             {pFD("fd"), pData("buf"), pSize("nbytes"), pLong("offset")},
	"readv":              {pFD("fd"), pVec("iov", false), pInt("iovcnt")},
	"writev":             {pFD("fd"), pVec("iov", true), pInt("iovcnt")},
	"preadv":             {pFD("fd"), pVec("iov", false), pInt("iovcnt"), pLong("offset")},
	"pwritev":            {pFD("fd"), pVec("iov", true), pInt("iovcnt"), pLong("offset")},
	"lseek":              {pFD("fd"), pLong("offset"), pEnum("whence", whences)},
	"fsync":              {pFD("fd")},
	"fdatasync":          {pFD("fd")},
	"sync":               {},
	"posix_fallocate":    {pFD("fd"), pLong("offset"), pLong("len")},
	"posix_fadvise":      {pFD("fd"), pLong("offset"), pLong("len"), pEnum("advice", fileAdvices)},
	"ftruncate":          {pFD("fd"), pLong("length")},
	"truncate":           {pPath("path"), pLong("length")},
	"flock":              {pFD("fd"), {name: "operation", kind: "flags", show: showFlock}},
	"fcntl":              {pFD("fd"), pEnum("cmd", fbFcntlOps), {name: "arg", kind: "int", show: showFcntlFB}},
	"ioctl":              {pFD("fd"), pEnum("request", fbIoctls), pHex("arg")},
	"fstat":              {pFD("fd"), pPtr("sb")},
	"fstatat":            {pDir("dirfd"), pPath("pathname"), pPtr("sb"), pAtFlagsFB},
	"freebsd11_stat":     {pPath("pathname"), pPtr("sb")},
	"freebsd11_lstat":    {pPath("pathname"), pPtr("sb")},
	"freebsd11_fstat":    {pFD("fd"), pPtr("sb")},
	"freebsd11_fstatat":  {pDir("dirfd"), pPath("pathname"), pPtr("sb"), pAtFlagsFB},
	"statfs":             {pPath("path"), pPtr("buf")},
	"fstatfs":            {pFD("fd"), pPtr("buf")},
	"access":             {pPath("pathname"), pFlags("mode", accessModes, "F_OK")},
	"eaccess":            {pPath("pathname"), pFlags("mode", accessModes, "F_OK")},
	"faccessat":          {pDir("dirfd"), pPath("pathname"), pFlags("mode", accessModes, "F_OK"), pAtFlagsFB},
	"unlink":             {pPath("pathname")},
	"unlinkat":           {pDir("dirfd"), pPath("pathname"), pAtFlagsFB},
	"funlinkat":          {pDir("dirfd"), pPath("pathname"), pFD("fd"), pAtFlagsFB},
	"rename":             {pPath("from"), pPath("to")},
	"renameat":           {pDir("fromfd"), pPath("from"), pDir("tofd"), pPath("to")},
	"link":               {pPath("name1"), pPath("name2")},
	"linkat":             {pDir("fd1"), pPath("name1"), pDir("fd2"), pPath("name2"), pAtFlagsFB},
	"symlink":            {pPath("name1"), pPath("name2")},
	"symlinkat":          {pPath("name1"), pDir("fd"), pPath("name2")},
	"readlink":           {pPath("pathname"), pPtr("buf"), pSize("bufsiz")},
	"readlinkat":         {pDir("dirfd"), pPath("pathname"), pPtr("buf"), pSize("bufsiz")},
	"mkdir":              {pPath("pathname"), pMode("mode")},
	"mkdirat":            {pDir("dirfd"), pPath("pathname"), pMode("mode")},
	"mkfifo":             {pPath("pathname"), pMode("mode")},
	"mkfifoat":           {pDir("dirfd"), pPath("pathname"), pMode("mode")},
	"rmdir":              {pPath("pathname")},
	"chdir":              {pPath("path")},
	"fchdir":             {pFD("fd")},
	"chmod":              {pPath("pathname"), pMode("mode")},
	"fchmod":             {pFD("fd"), pMode("mode")},
	"getdirentries":      {pFD("fd"), pPtr("buf"), pSize("nbytes"), pPtr("basep")},
	"dup":                {pFD("oldd")},
	"dup2":               {pFD("oldd"), pFD("newd")},
	"pipe2":              {pPtr("fildes"), pFlagsFB(fbOpenFlags)},
	"sendfile":           {pFD("fd"), pFD("s"), pLong("offset"), pSize("nbytes"), pPtr("hdtr"), pPtr("sbytes")},
	"copy_file_range":    {pFD("infd"), pPtr("inoffp"), pFD("outfd"), pPtr("outoffp"), pSize("len"), pHex("flags")},
	"fhopen":             {pPtr("fhp"), pOpenFlagsFB},
	"close_range":        {pUint("lowfd"), pUint("highfd"), pHex("flags")},
	"getrandom":          {pPtr("buf"), pSize("buflen"), pHex("flags")},
	"shm_open2":          {pPtr("path"), pOpenFlagsFB, pMode("mode"), pHex("shmflags"), pPtr("name")},
	"freebsd12_shm_open": {pPtr("path"), pOpenFlagsFB, pMode("mode")},

	// Waiting for descriptors.
	"poll":             {pPollFDsFB, pUint("nfds"), pInt("timeout")},
	"ppoll":            {pPollFDsFB, pUint("nfds"), pTime("timeout"), pMaskFB("newsigmask")},
	"select":           {pInt("nfds"), pSetFB("readfds"), pSetFB("writefds"), pSetFB("exceptfds"), pValue("timeout")},
	"pselect":          {pInt("nfds"), pSetFB("readfds"), pSetFB("writefds"), pSetFB("exceptfds"), pTime("timeout"), pMaskFB("newsigmask")},
	"kqueue":           {},
	"kqueuex":          {pHex("flags")},
	"kevent":           {pFD("kq"), pEvents("changelist", sizeKevent), pInt("nchanges"), pPtr("eventlist"), pInt("nevents"), pTime("timeout")},
	"freebsd11_kevent": {pFD("kq"), pEvents("changelist", sizeKevent11), pInt("nchanges"), pPtr("eventlist"), pInt("nevents"), pTime("timeout")},

	// Asynchronous I/O: control blocks stay addresses.
	"aio_read":         {pPtr("iocb")},
	"aio_write":        {pPtr("iocb")},
	"aio_readv":        {pPtr("iocb")},
	"aio_writev":       {pPtr("iocb")},
	"aio_return":       {pPtr("iocb")},
	"aio_error":        {pPtr("iocb")},
	"aio_cancel":       {pFD("fildes"), pPtr("iocb")},
	"aio_fsync":        {pEnum("op", fbAioOps), pPtr("iocb")},
	"aio_suspend":      {pPtr("iocbs"), pInt("niocb"), pTime("timeout")},
	"aio_waitcomplete": {pPtr("iocbp"), pTime("timeout")},
	"lio_listio":       {pInt("mode"), pPtr("list"), pInt("nent"), pPtr("sig")},

	// Threads, signals, time.
	"_umtx_op": {
		pPtr("obj"), {name: "op", kind: "umtx-op", show: showUmtxOp}, {name: "val", kind: "int", show: showUmtxVal},
		{name: "uaddr", kind: "pointer", show: showUmtxAddr}, {name: "uaddr2", kind: "timespec", show: showUmtxAddr2},
	},
	"thr_new":         {pPtr("param"), pInt("param_size")},
	"thr_exit":        {pPtr("state")},
	"thr_self":        {pPtr("id")},
	"thr_kill":        {pLong("id"), pSigFB("sig")},
	"thr_kill2":       {pInt("pid"), pLong("id"), pSigFB("sig")},
	"thr_suspend":     {pTime("timeout")},
	"thr_wake":        {pLong("id")},
	"sched_yield":     {},
	"nanosleep":       {pTime("rqtp"), pPtr("rmtp")},
	"clock_nanosleep": {pClockFB("clock_id"), pFlagsFB(timerFlags), pTime("rqtp"), pPtr("rmtp")},
	"clock_gettime":   {pClockFB("clock_id"), pPtr("tp")},
	"sigwait":         {pMaskFB("set"), pPtr("sig")},
	"sigwaitinfo":     {pMaskFB("set"), pPtr("info")},
	"sigtimedwait":    {pMaskFB("set"), pPtr("info"), pTime("timeout")},
	"sigsuspend":      {pMaskFB("sigmask")},
	"sigprocmask":     {pEnum("how", fbSigmaskHows), pMaskFB("set"), pPtr("oset")},
	"sigreturn":       {pPtr("scp")},
	"kill":            {pInt("pid"), pSigFB("sig")},
	"sigqueue":        {pInt("pid"), pSigFB("signo"), pPtr("value")},
	"exit":            {pInt("status")},
	"wait4":           {pInt("wpid"), pPtr("status"), pFlags("options", fbWaitOptions, "0"), pPtr("rusage")},
	"wait6":           {pEnum("idtype", fbIDTypes), pLong("id"), pPtr("status"), pFlags("options", fbWaitOptions, "0"), pPtr("wrusage"), pPtr("infop")},
	"semop":           {pInt("semid"), pPtr("array"), pSize("nops")},
	"ksem_wait":       {pPtr("id")},
	"ksem_timedwait":  {pPtr("id"), pTime("abstime")},
	"execve":          {pPath("path"), pPtr("argv"), pPtr("envp")},

	// Sockets.
	"socket":   {pEnum("domain", fbFamilies), {name: "type", kind: "flags", show: showSocketTypeFB}, pInt("protocol")},
	"connect":  {pFD("s"), pAddrFB("name"), pInt("namelen")},
	"bind":     {pFD("s"), pAddrFB("addr"), pInt("addrlen")},
	"listen":   {pFD("s"), pInt("backlog")},
	"accept":   {pFD("s"), pPtr("addr"), pPtr("addrlen")},
	"accept4":  {pFD("s"), pPtr("addr"), pPtr("addrlen"), pFlagsFB(fbSocketFlags)},
	"shutdown": {pFD("s"), pEnum("how", shutdowns)},
	"recvfrom": {pFD("s"), pPtr("buf"), pSize("len"), pFlagsFB(fbMessageFlags), pPtr("from"), pPtr("fromlen")},
	"sendto":   {pFD("s"), pData("msg"), pSize("len"), pFlagsFB(fbMessageFlags), pAddrFB("to"), pInt("tolen")},
	"recvmsg":  {pFD("s"), pMessageFB(false), pFlagsFB(fbMessageFlags)},
	"sendmsg":  {pFD("s"), pMessageFB(true), pFlagsFB(fbMessageFlags)},

	// Memory.
	"mmap":     {pPtr("addr"), pSize("len"), pFlags("prot", protections, "PROT_NONE"), {name: "flags", kind: "flags", show: showMapFlagsFB}, pFD("fd"), pHex("offset")},
	"munmap":   {pPtr("addr"), pSize("len")},
	"mprotect": {pPtr("addr"), pSize("len"), pFlags("prot", protections, "PROT_NONE")},
	"madvise":  {pPtr("addr"), pSize("len"), pEnum("behav", fbAdvices)},
	"msync":    {pPtr("addr"), pSize("len"), {name: "flags", kind: "flags", show: showMsyncFB}},
	"mlock":    {pPtr("addr"), pSize("len")},
}
