package procstat

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// maxPID is the largest id that Linux gives: PID_MAX_LIMIT on 64-bit
// (include/linux/threads.h, 4 * 1024 * 1024).
const maxPID = 4 << 20

// maxNamespaces bounds NSpid: Linux nests at most 32 PID namespaces
// (include/linux/pid_namespace.h, MAX_PID_NS_LEVEL), plus the initial one.
const maxNamespaces = 33

// maxFrames bounds a kernel stack: 64 entries (fs/proc/base.c,
// MAX_STACK_TRACE_DEPTH), doubled for other kernels.
const maxFrames = 128

// maxFuncName bounds a kernel symbol: KSYM_NAME_LEN is 512 (include/linux/kallsyms.h).
const maxFuncName = 512

// parseID reads a process or thread id as the kernel prints it: 1 to
// PID_MAX_LIMIT in decimal, no sign, no leading zero.
func parseID(s string) (int, bool) {
	if s == "" || len(s) > 7 || s[0] < '1' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n <= maxPID
}

// status holds the lines of a status file that matter here.
type status struct {
	name, state                            target.Value[string]
	tgid, pid, ppid, tracer, threads       target.Value[int]
	nspid, nstgid                          []int
	sigpnd, shdpnd, sigblk, sigign, sigcgt target.Value[uint64]
}

var errNotStatus = errors.New("not the text of a status file")

// parseStatus reads /proc/PID/status or task/TID/status (fs/proc/array.c,
// proc_pid_status). A line with a value that makes no sense is left unknown;
// text without any line that is known is an error.
func parseStatus(b []byte) (*status, error) {
	st := &status{}
	known := 0
	for line := range bytes.SplitSeq(b, []byte{'\n'}) {
		key, rest, ok := bytes.Cut(line, []byte{':'})
		if !ok || !wantedStatus(key) {
			continue
		}
		v := string(bytes.Trim(rest, " \t"))
		var good bool
		switch string(key) {
		case "Name":
			// The kernel escapes newline and backslash in it.
			if good = v != ""; good {
				st.name = target.Known(unescapeName(v), target.SourceProc)
			}
		case "State":
			if good = v != ""; good {
				st.state = target.Known(v[:1], target.SourceProc)
			}
		case "Tgid":
			good = setID(&st.tgid, v)
		case "Pid":
			good = setID(&st.pid, v)
		case "PPid":
			good = setIDOrZero(&st.ppid, v)
		case "TracerPid":
			good = setIDOrZero(&st.tracer, v)
		case "Threads":
			good = setID(&st.threads, v)
		case "NSpid":
			st.nspid, good = parseIDs(v)
		case "NStgid":
			st.nstgid, good = parseIDs(v)
		case "SigPnd":
			good = setMask(&st.sigpnd, v)
		case "ShdPnd":
			good = setMask(&st.shdpnd, v)
		case "SigBlk":
			good = setMask(&st.sigblk, v)
		case "SigIgn":
			good = setMask(&st.sigign, v)
		case "SigCgt":
			good = setMask(&st.sigcgt, v)
		}
		if good {
			known++
		}
	}
	if known == 0 {
		return nil, errNotStatus
	}
	return st, nil
}

// wantedStatus spares the other forty lines of a status file their copying.
func wantedStatus(key []byte) bool {
	switch string(key) {
	case "Name", "State", "Tgid", "Pid", "PPid", "TracerPid", "Threads", "NSpid", "NStgid",
		"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt":
		return true
	}
	return false
}

func setID(dst *target.Value[int], s string) bool {
	n, ok := parseID(s)
	if ok {
		*dst = target.Known(n, target.SourceProc)
	}
	return ok
}

func setIDOrZero(dst *target.Value[int], s string) bool {
	if s == "0" {
		*dst = target.Known(0, target.SourceProc)
		return true
	}
	return setID(dst, s)
}

// setMask reads a signal mask: hex without a prefix, 16 digits on 64-bit.
func setMask(dst *target.Value[uint64], s string) bool {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return false
	}
	*dst = target.Known(n, target.SourceProc)
	return true
}

// parseIDs reads the ids of NSpid and NStgid; one bad id spoils the line,
// because the position in it is the meaning.
func parseIDs(s string) ([]int, bool) {
	var out []int
	for f := range strings.FieldsSeq(s) {
		n, ok := parseID(f)
		if !ok || len(out) == maxNamespaces {
			return nil, false
		}
		out = append(out, n)
	}
	return out, len(out) > 0
}

// unescapeName undoes \n and \\ of the Name line (fs/proc/array.c,
// proc_task_name with escaping).
func unescapeName(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(s)
}

// stat holds the fields of /proc/PID/stat that status may not have given.
type stat struct {
	pid, ppid, threads int
	name, state        string
	start              uint64
	hasStart           bool
}

var errNotStat = errors.New("not the text of a stat file")

// parseStat reads /proc/PID/stat: "pid (comm) S ppid ...". The name may hold
// spaces and parentheses, so it ends at the last one.
func parseStat(b []byte) (stat, error) {
	var st stat
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open {
		return st, errNotStat
	}
	pid, ok := parseID(string(bytes.TrimRight(b[:open], " ")))
	if !ok {
		return st, errNotStat
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 2 || len(f[0]) != 1 {
		return st, errNotStat
	}
	st.pid, st.name, st.state = pid, string(b[open+1:end]), f[0]
	st.ppid, ok = parseID(f[1])
	if !ok && f[1] != "0" {
		return st, errNotStat
	}
	// proc(5): num_threads is field 20, starttime field 22; f[0] is field 3.
	if len(f) > 17 {
		st.threads, _ = parseID(f[17])
	}
	if len(f) > 19 {
		n, err := strconv.ParseUint(f[19], 10, 64)
		st.start, st.hasStart = n, err == nil
	}
	return st, nil
}

// parseWchan reads the wait channel; "" is unknown: the kernel writes "0" for
// a thread that doesn't sleep and for a reader who may not know.
func parseWchan(b []byte) (string, error) {
	s := strings.TrimRight(string(b), "\n")
	if s == "" || s == "0" {
		return "", nil
	}
	if !isFuncName(s) {
		return "", fmt.Errorf("not a kernel function's name: %.40q", s)
	}
	return s, nil
}

// isFuncName reports whether s can be a kernel symbol (letters, digits, and
// the signs that compilers put into names).
func isFuncName(s string) bool {
	if s == "" || len(s) > maxFuncName {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '$', c == '-':
		default:
			return false
		}
	}
	return true
}

// syscallLine is what a syscall file tells.
type syscallLine struct {
	call    kernelview.Syscall
	sp, pc  target.Addr
	haveCtx bool // sp and pc were there
}

func (s syscallLine) apply(t *kernelview.Thread) {
	t.Syscall = target.Known(s.call, target.SourceProc)
	if s.haveCtx {
		t.SP = target.Known(s.sp, target.SourceProc)
		t.PC = target.Known(s.pc, target.SourceProc)
	}
}

// parseSyscall reads /proc/PID/task/TID/syscall (fs/proc/base.c,
// proc_pid_syscall): "running", "-1 SP PC" for a thread that is blocked
// outside a call, or "NR ARG0 .. ARG5 SP PC", NR in decimal, the rest in hex.
func parseSyscall(b []byte) (syscallLine, error) {
	var s syscallLine
	line := strings.TrimRight(string(b), "\n")
	if line == "running" {
		s.call.Running = true
		return s, nil
	}
	f := strings.Fields(line)
	if len(f) != 3 && len(f) != 9 {
		return s, fmt.Errorf("not the text of a syscall file: %.40q", line)
	}
	nr, err := strconv.ParseInt(f[0], 10, 32)
	if err != nil || (len(f) == 3) != (nr == kernelview.NoSyscall) || nr < kernelview.NoSyscall {
		return s, fmt.Errorf("system call number %.20q with %d fields", f[0], len(f))
	}
	var words [8]uint64
	for i, w := range f[1:] {
		hex, ok := strings.CutPrefix(w, "0x")
		n, err := strconv.ParseUint(hex, 16, 64)
		if !ok || err != nil {
			return s, fmt.Errorf("field %d is not a hex word: %.20q", i+2, w)
		}
		words[i] = n
	}
	s.call.Number = nr
	n := len(f) - 3
	copy(s.call.Args[:], words[:n])
	s.sp, s.pc, s.haveCtx = target.Addr(words[n]), target.Addr(words[n+1]), true
	return s, nil
}

// parseStack reads the function names of a kernel stack: lines such as
// "[<0>] fifo_open+0x1d3/0x300", with "[module]" behind for a module's code
// and a bare address where the kernel knows no name (that line is left out).
// An empty file is a thread without a kernel stack, or no permission.
func parseStack(b []byte) ([]string, error) {
	var out []string
	for line := range bytes.SplitSeq(b, []byte{'\n'}) {
		s := strings.TrimSpace(string(line))
		if s == "" {
			continue
		}
		if !strings.HasPrefix(s, "[<") {
			return nil, fmt.Errorf("not a line of a kernel stack: %.40q", s)
		}
		_, rest, ok := strings.Cut(s, ">]")
		if !ok {
			return nil, fmt.Errorf("not a line of a kernel stack: %.40q", s)
		}
		name, _, _ := strings.Cut(strings.TrimSpace(rest), "+")
		if strings.HasPrefix(name, "0x") {
			continue
		}
		if !isFuncName(name) {
			return nil, fmt.Errorf("not a kernel function's name: %.40q", name)
		}
		if len(out) == maxFrames {
			return nil, fmt.Errorf("more than %d lines in a kernel stack", maxFrames)
		}
		out = append(out, name)
	}
	return out, nil
}

// parseMaps reads the lines of /proc/PID/maps (fs/proc/task_mmu.c,
// show_map_vma): "start-end perm offset dev inode path". bad counts lines that
// aren't mappings, or overlap the one before.
func parseMaps(b []byte) (out []kernelview.Mapping, bad int) {
	out = []kernelview.Mapping{}
	for line := range bytes.SplitSeq(b, []byte{'\n'}) {
		if len(line) == 0 {
			continue
		}
		m, ok := parseMapping(string(line))
		if ok && len(out) > 0 && m.Start < out[len(out)-1].End {
			ok = false
		}
		if !ok || len(out) == maxMappings {
			bad++
			continue
		}
		out = append(out, m)
	}
	return out, bad
}

func parseMapping(line string) (m kernelview.Mapping, ok bool) {
	rng, rest, _ := strings.Cut(line, " ")
	perm, rest, _ := strings.Cut(rest, " ")
	off, rest, _ := strings.Cut(rest, " ")
	_, rest, _ = strings.Cut(rest, " ") // device
	inode, path, _ := strings.Cut(rest, " ")
	lo, hi, ok := strings.Cut(rng, "-")
	start, err1 := strconv.ParseUint(lo, 16, 64)
	end, err2 := strconv.ParseUint(hi, 16, 64)
	o, err3 := strconv.ParseUint(off, 16, 64)
	ino, err4 := strconv.ParseUint(inode, 10, 64)
	if !ok || errors.Join(err1, err2, err3, err4) != nil || end <= start || len(perm) != 4 {
		return m, false
	}
	return kernelview.Mapping{Start: target.Addr(start), End: target.Addr(end), Perm: perm, Off: o,
		Inode: ino, Path: strings.TrimLeft(path, " ")}, true
}
