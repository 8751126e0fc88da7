// Package procstat reads saved records of the kernel about a process into
// kernelview types. Here: a copied Linux /proc/PID tree.
//
// Such a copy is whatever somebody brought along: parts are missing, files
// come from other tools, and it may be hostile. A missing file means unknown,
// a malformed one is a warning; only a directory that can't be opened at all
// is an error. Nothing outside the directory is ever opened, links are read
// but never followed, and only regular files are opened.
package procstat

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// Warning codes of ReadProcTree.
const (
	CodeUnreadable = "proc-unreadable" // a file that is there couldn't be read
	CodeMalformed  = "proc-malformed"  // a file's text isn't what the kernel writes
	CodeLimit      = "proc-limit"      // a limit was reached, the rest is left out
	CodeMixed      = "proc-mixed"      // files of different processes in one tree
	CodeNothing    = "proc-nothing"    // nothing of a /proc/PID tree was found
)

// Limits on what a tree may hold. They are far above what a kernel writes and
// keep memory and time bounded for a hostile copy.
const (
	maxSmall    = 16 << 10  // comm, wchan, syscall, stat: one line each
	maxStatus   = 64 << 10  // about 1.5 KiB in practice, more with many supplementary groups
	maxStack    = 64 << 10  // a kernel stack has at most 64 entries (fs/proc/base.c, MAX_STACK_TRACE_DEPTH)
	maxCmdline  = 2 << 20   // Linux allows 2 MiB of arguments by default (ARG_MAX with an 8 MiB stack)
	maxListing  = 64 << 20  // a descriptor listing: about 100 bytes for each of up to a million
	maxFDInfo   = 4 << 10   // position and flags come first; an epoll's file goes on for megabytes
	maxMaps     = 64 << 20  // 65,530 mappings by default (vm.max_map_count), about 100 bytes each
	maxNet      = 256 << 20 // net/tcp of a busy host: 150 bytes a socket; streamed, never held
	maxTasks    = 1 << 17   // threads: pid_max is 4,194,304, but a server has thousands
	maxFiles    = 1 << 20   // descriptors: fs.nr_open's default
	maxMappings = 1 << 20
	maxWarnings = 64 // after these only a count is kept
)

// fdListingNames are the files that may hold a saved listing of the fd
// directory, as `ls -l /proc/PID/fd` prints it. The first that is there counts.
var fdListingNames = [...]string{"fd", "fd.txt", "fds.txt", "fd.ls", "fd-list", "fd-list.txt", "fd-listing.txt", "ls-fd.txt"}

type reader struct {
	top     dir
	dir     string // the tree's name, for messages
	p       *kernelview.Process
	dropped int // warnings beyond maxWarnings
	buf     []byte
	found   bool // at least one file of a /proc tree was there
}

// ReadProcTree reads a copied /proc/PID directory: status, stat, cmdline, maps,
// cwd (a copied link), the descriptors (fd/ as copied links, or a saved listing in a file named fd
// or fd.txt), fdinfo/, net/ to name sockets, and task/TID/{comm,wchan,syscall,
// status,stack,stat}; any part may be missing. A copy of one thread's files
// without task/ gives the main thread. Ids are those of whoever made the copy;
// the target's own ids are in NSPid. The error is about the directory itself; all else
// is in the result's Warnings.
func ReadProcTree(name string) (*kernelview.Process, error) {
	top, err := openTop(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	defer top.close()
	r := &reader{top: top, dir: name, p: &kernelview.Process{Threads: map[int]*kernelview.Thread{}}}
	r.process()
	r.tasks()
	r.mainThread()
	r.files()
	r.maps()
	r.finish()
	return r.p, nil
}

// finish fills in what one part of the tree tells about another, and says
// when there was nothing to read.
func (r *reader) finish() {
	p := r.p
	if !p.PID.Known {
		// A copy keeps the name of /proc/PID more often than not.
		if abs, err := filepath.Abs(r.dir); err == nil {
			if pid, ok := parseID(filepath.Base(abs)); ok && p.Threads[pid] != nil {
				p.PID = target.Known(pid, target.SourceProc)
			}
		}
	}
	if !r.found {
		r.warn(CodeNothing, "%q holds no file of a /proc/PID directory (status, stat, task/, fd, maps): nothing was read; give the directory that has task/ in it", r.dir)
	}
	if r.dropped > 0 {
		p.Warnings = append(p.Warnings, target.Warning{Code: CodeLimit,
			Text: fmt.Sprintf("%d more warnings about %q are left out", r.dropped, r.dir)})
	}
}

func (r *reader) warn(code, format string, args ...any) {
	if len(r.p.Warnings) >= maxWarnings {
		r.dropped++
		return
	}
	r.p.Warnings = append(r.p.Warnings, target.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
}

// process reads the files about the whole process.
func (r *reader) process() {
	if b, ok := r.read(r.top, "status", maxStatus); ok {
		if st, err := parseStatus(b); err != nil {
			r.warn(CodeMalformed, "file \"status\" of %q: %v", r.dir, err)
		} else {
			r.processStatus(st)
		}
	}
	if b, ok := r.read(r.top, "stat", maxSmall); ok {
		r.processStat(b)
	}
	if b, ok := r.read(r.top, "cmdline", maxCmdline); ok && len(b) > 0 {
		r.p.Args = target.Known(strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), target.SourceProc)
	}
	var buf [unix.PathMax]byte
	if text, isLink, err := r.top.link("cwd", buf[:]); isLink && err == nil && !strings.HasSuffix(text, deletedMark) {
		r.p.Cwd = target.Known(text, target.SourceProc)
	}
}

func (r *reader) processStatus(st *status) {
	p := r.p
	p.Name, p.State, p.PID = st.name, st.state, st.tgid
	if !p.PID.Known {
		p.PID = st.pid
	}
	p.NSPid, p.NSTgid = st.nspid, st.nstgid
	p.PPID, p.TracerPID, p.ThreadCount = st.ppid, st.tracer, st.threads
	p.SharedPending, p.SigIgnored, p.SigCaught = st.shdpnd, st.sigign, st.sigcgt
}

func (r *reader) processStat(b []byte) {
	st, err := parseStat(b)
	if err != nil {
		if len(b) > 0 {
			r.warn(CodeMalformed, "file \"stat\" of %q: %v", r.dir, err)
		}
		return
	}
	p := r.p
	if !p.PID.Known {
		p.PID = target.Known(st.pid, target.SourceProc)
	} else if p.PID.V != st.pid && len(p.NSPid) < 2 {
		r.warn(CodeMixed, "files \"status\" and \"stat\" of %q are of the processes %d and %d", r.dir, p.PID.V, st.pid)
		return
	}
	fill(&p.Name, st.name)
	fill(&p.State, st.state)
	if !p.PPID.Known {
		p.PPID = target.Known(st.ppid, target.SourceProc)
	}
	if st.threads > 0 && !p.ThreadCount.Known {
		p.ThreadCount = target.Known(st.threads, target.SourceProc)
	}
	if st.hasStart {
		p.StartTicks = target.Known(st.start, target.SourceProc)
	}
}

// fill sets an absent text.
func fill(v *target.Value[string], s string) {
	if !v.Known && s != "" {
		*v = target.Known(s, target.SourceProc)
	}
}

// tasks reads task/TID of every thread.
func (r *reader) tasks() {
	task, ok := r.sub(r.top, "task")
	if !ok {
		return
	}
	defer task.close()
	names := r.names(task, maxTasks)
	tids := make([]int, 0, len(names))
	for _, name := range names {
		if tid, ok := parseID(name); ok {
			tids = append(tids, tid)
		}
	}
	slices.Sort(tids)
	for _, tid := range tids {
		r.task(task, tid)
	}
}

func (r *reader) task(parent dir, tid int) {
	d, ok := r.sub(parent, strconv.Itoa(tid))
	if !ok {
		return
	}
	defer d.close()
	r.found = true
	t := &kernelview.Thread{LWP: tid}
	tgid := r.thread(t, d)
	switch {
	case !tgid.Known:
	case !r.p.PID.Known:
		r.p.PID = tgid
	case r.p.PID.V != tgid.V:
		r.warn(CodeMixed, "thread %d of %q belongs to process %d, not to %d: it was left out", tid, r.dir, tgid.V, r.p.PID.V)
		return
	}
	r.p.Threads[tid] = t
}

// mainThread makes a thread of the process's own files when task/ wasn't
// saved: /proc/PID/wchan and its like are those of the main thread.
func (r *reader) mainThread() {
	pid := r.p.PID
	if len(r.p.Threads) > 0 || !pid.Known {
		return
	}
	t := &kernelview.Thread{LWP: pid.V}
	r.thread(t, r.top)
	if t.WaitChannel.Known || t.Syscall.Known || t.KernelStack.Known {
		r.p.Threads[pid.V] = t
	}
}

// thread fills t from the files of one directory and returns the thread group
// that its status names.
func (r *reader) thread(t *kernelview.Thread, d dir) (tgid target.Value[int]) {
	malformed := func(name string, err error) {
		r.warn(CodeMalformed, "file %q of %q: %v", path.Join(d.path, name), r.dir, err)
	}
	if b, ok := r.read(d, "status", maxStatus); ok && len(b) > 0 {
		if st, err := parseStatus(b); err != nil {
			malformed("status", err)
		} else if st.pid.Known && st.pid.V != t.LWP {
			r.warn(CodeMixed, "file %q of %q is of thread %d: it was left out", path.Join(d.path, "status"), r.dir, st.pid.V)
		} else {
			tgid = st.tgid
			threadStatus(t, st)
		}
	}
	if !t.Name.Known { // status has it too
		if b, ok := r.read(d, "comm", maxSmall); ok {
			fill(&t.Name, string(bytes.TrimSuffix(b, []byte("\n"))))
		}
	}
	if b, ok := r.read(d, "wchan", maxSmall); ok {
		if w, err := parseWchan(b); err != nil {
			malformed("wchan", err)
		} else {
			fill(&t.WaitChannel, w)
		}
	}
	if b, ok := r.read(d, "syscall", maxSmall); ok && len(b) > 0 {
		if s, err := parseSyscall(b); err != nil {
			malformed("syscall", err)
		} else {
			s.apply(t)
		}
	}
	if b, ok := r.read(d, "stack", maxStack); ok {
		if frames, err := parseStack(b); err != nil {
			malformed("stack", err)
		} else if len(frames) > 0 {
			t.KernelStack = target.Known(frames, target.SourceProc)
		}
	}
	if t.State.Known && t.Name.Known {
		return tgid
	}
	if b, ok := r.read(d, "stat", maxSmall); ok && len(b) > 0 {
		if st, err := parseStat(b); err != nil {
			malformed("stat", err)
		} else {
			fill(&t.State, st.state)
			fill(&t.Name, st.name)
		}
	}
	return tgid
}

func threadStatus(t *kernelview.Thread, st *status) {
	t.NSPid = st.nspid
	t.Name, t.State = st.name, st.state
	t.SigPending, t.SigBlocked = st.sigpnd, st.sigblk
	t.SigIgnored, t.SigCaught = st.sigign, st.sigcgt
	t.TracerPID = st.tracer
}

// maps reads the saved address space.
func (r *reader) maps() {
	b, ok := r.read(r.top, "maps", maxMaps)
	if !ok {
		return
	}
	m, bad := parseMaps(b)
	r.p.Mappings = m
	if bad > 0 {
		r.warn(CodeMalformed, "file \"maps\" of %q: %d lines aren't mappings and were left out", r.dir, bad)
	}
}
