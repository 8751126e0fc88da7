package logtext

import (
	"strconv"
	"strings"
)

// kernelLine takes one line of a kernel log.
func (l *reader) kernelLine(line string) {
	rest, stamped := l.stamped(line)
	if stamped {
		if l.last.short {
			ident, _, msg, ok := journal(rest)
			switch {
			case ok && ident != "kernel":
				l.recognised = true // a journal, though not the kernel's line
				return
			case ok:
				rest = msg
				if _, after, isDmesg := l.clock.readDmesg(msg); isDmesg {
					rest = after // a kernel with printk.time under syslog
				}
			case !l.last.iso:
				return
			}
		}
		l.recognised = true
	}
	for _, m := range kernelMatchers {
		if i := strings.Index(rest, m.text); i >= 0 {
			f := Fact{Kind: m.kind}
			if m.read(l, &f, rest, rest[i+len(m.text):]) {
				l.add(line, f)
				return
			}
		}
	}
}

// kernelMatchers are the lines of interest: Linux mm/oom_kill.c,
// kernel/hung_task.c, net/sunrpc/clnt.c, arch/x86/mm/fault.c, block/blk-core.c,
// fs/ext4/super.c; FreeBSD sys/vm/vm_pageout.c, sys/kern/kern_sig.c,
// sys/fs/nfs/nfs_commonkrpc.c, sys/ufs/ffs/ffs_alloc.c, sys/kern/kern_descrip.c.
var kernelMatchers = [...]matcher{
	{"Killed process ", KindOOMKill, readKilled},
	{"Kill process ", KindOOMKill, readKilled},
	{"oom-kill:", KindOOMKill, readOOMSummary},
	{" was killed: ", KindOOMKill, readFreeBSDKill},
	{" blocked for more than ", KindHungTask, readHung},
	{"not responding", KindNFSDown, readNFS},
	{"is alive again", KindNFSUp, readNFS},
	{" OK", KindNFSUp, readNFS},
	{"timed out", KindNFSDown, readNFS},
	{"]: segfault at ", KindSegfault, readSegfault},
	{" exited on signal ", KindSegfault, readExited},
	{"I/O error, dev ", KindIOError, readDevice},
	{"EXT4-fs error (device ", KindIOError, readDevice},
	{"Remounting filesystem read-only", KindIOError, readNothing},
	{"filesystem full", KindDiskFull, readFull},
	{"kern.maxfiles limit exceeded", KindTooManyFiles, readNothing},
	{"file-max limit ", KindTooManyFiles, readNothing},
}

func readNothing(*reader, *Fact, string, string) bool { return true }

// maxComm bounds a process's name in a kernel's line: 15 characters on Linux,
// 19 on FreeBSD.
const maxComm = 64

// number reads a process or thread id.
func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil && n > 0
}

// readKilled reads "1158 (mysqld) total-vm:..." and "1158 (mysqld) score ...";
// kernels before 3.0 print "1158, UID 27, (mysqld)".
func readKilled(_ *reader, f *Fact, _, after string) bool {
	n := digits(after)
	pid, ok := number(n)
	if !ok {
		return false
	}
	f.PID = pid
	if _, name, found := strings.Cut(after[len(n):], "("); found {
		name, _, _ = strings.Cut(name, ")")
		f.Process = clip(name, maxComm)
	}
	return true
}

// readOOMSummary reads "constraint=...,task=mysqld,pid=1158,uid=27".
func readOOMSummary(_ *reader, f *Fact, _, after string) bool {
	_, task, ok := strings.Cut(after, ",task=")
	// The name may hold commas: the pid is the last.
	i := strings.LastIndex(task, ",pid=")
	if !ok || i < 0 {
		return false
	}
	f.Process = clip(task[:i], maxComm)
	f.PID, ok = number(digits(task[i+len(",pid="):]))
	return ok
}

// freeBSDPID reads "pid 1158 (mysqld), ...".
func freeBSDPID(f *Fact, msg string) bool {
	_, rest, ok := strings.Cut(msg, "pid ")
	if !ok {
		return false
	}
	n := digits(rest)
	name, ok := strings.CutPrefix(rest[len(n):], " (")
	if !ok {
		return false
	}
	name, _, _ = strings.Cut(name, "),")
	f.Process = clip(name, maxComm)
	f.PID, ok = number(n)
	return ok
}

func readFreeBSDKill(_ *reader, f *Fact, msg, after string) bool {
	f.Detail = clip(after, 255)
	return freeBSDPID(f, msg)
}

// readHung reads "INFO: task mysqld:1160 blocked for more than 120 seconds.":
// the number is the thread's id.
func readHung(_ *reader, f *Fact, msg, after string) bool {
	_, task, ok := strings.Cut(msg, "task ")
	if !ok {
		return false
	}
	task, _, _ = strings.Cut(task, " blocked for more than ")
	i := strings.LastIndexByte(task, ':') // a name may hold one
	if i < 0 {
		return false
	}
	f.Process = clip(task[:i], maxComm)
	f.Duration = seconds(after)
	f.LWP, ok = number(task[i+1:])
	return ok
}

// readNFS reads "nfs: server HOST not responding, still trying" and "nfs:
// server HOST OK" of Linux, "nfs server HOST:/path: not responding" and "...:
// is alive again" of FreeBSD.
func readNFS(_ *reader, f *Fact, msg, _ string) bool {
	_, rest, ok := strings.Cut(msg, "nfs: server ")
	freebsd := false
	if !ok {
		if _, rest, ok = strings.Cut(msg, "nfs server "); !ok {
			return false
		}
		freebsd = true
	}
	end := -1
	for _, text := range [...]string{"not responding", "is alive again", " OK", "timed out"} {
		if i := strings.Index(rest, text); i >= 0 && (end < 0 || i < end) {
			end = i
		}
	}
	if end < 0 {
		return false
	}
	server := strings.TrimSpace(rest[:end])
	if freebsd {
		server = strings.TrimSuffix(server, ":")
	}
	if server == "" || strings.ContainsAny(server, " \t") {
		return false
	}
	f.Server = clip(server, 255)
	return true
}

// readSegfault reads "mysqld[1160]: segfault at 0 ip ...": the number is the
// thread's id.
func readSegfault(_ *reader, f *Fact, msg, _ string) bool {
	head, _, _ := strings.Cut(msg, "]: segfault at ")
	i := strings.LastIndexByte(head, '[')
	if i < 0 {
		return false
	}
	var ok bool
	f.Process, f.Signal = clip(head[:i], maxComm), sigsegv
	f.LWP, ok = number(head[i+1:])
	return ok
}

const sigsegv = 11 // on Linux and FreeBSD

// readExited reads FreeBSD's "pid 1158 (mysqld), jid 0, uid 88: exited on
// signal 11 (core dumped)".
func readExited(_ *reader, f *Fact, msg, after string) bool {
	sig, ok := number(digits(after))
	f.Signal = sig
	return ok && sig <= 128 && freeBSDPID(f, msg)
}

func readDevice(_ *reader, f *Fact, _, after string) bool {
	end := strings.IndexAny(after, " ,):")
	if end < 0 {
		end = len(after)
	}
	f.Path = clip(after[:end], 255)
	return f.Path != ""
}

// readFull reads FreeBSD's "pid 1158 (mysqld), uid 88 inumber 5 on /var:
// filesystem full".
func readFull(_ *reader, f *Fact, msg, _ string) bool {
	if _, on, ok := strings.Cut(msg, " on "); ok {
		if i := strings.LastIndex(on, ": filesystem full"); i >= 0 {
			f.Path = clip(on[:i], 255)
		}
	}
	return freeBSDPID(f, msg)
}
