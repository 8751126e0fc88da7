package analyze

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"mycore/elfcore"
	"mycore/internal/diagnose"
	"mycore/internal/disasm"
	"mycore/internal/kernelview"
	"mycore/internal/syscalls"
	"mycore/internal/target"
)

// call is the system call a thread is blocked in.
type call struct {
	syscalls.Call
	source target.Source
	how    string // how number or arguments were obtained, "" when straight from the source
	regs   [6]uint64
	result target.Value[int64]

	path    target.Value[string]
	pathHow string
	flags   target.Value[uint64]
	dir     target.Value[string]
}

// argument is a recovered argument of a frame.
type argument struct {
	index int
	value uint64
	text  string
	how   string
}

// argRegs are the argument registers of a system call, by DWARF number.
// amd64: System V psABI, A.2.1; arm64: x0 to x5 (Linux, arch/arm64/kernel/syscall.c).
var argRegs = map[target.Arch][6]int{
	target.AMD64: {target.RDI, target.RSI, target.RDX, target.R10, target.R8, target.R9},
	target.ARM64: {0, 1, 2, 3, 4, 5},
}

// resultReg is the register of a system call's result.
var resultReg = map[target.Arch]int{target.AMD64: target.RAX, target.ARM64: 0}

// pathFrames are functions whose argument is a file name that a user may have
// given: where the path of a blocked open is looked for on the stack, from the
// server's own function down to the C library's. The value is the argument's
// index (my_open: mysys/my_open.c; the rest: POSIX).
var pathFrames = map[string]int{
	"my_open": 0, "my_create": 0, "mysql_file_open": 0, "my_fopen": 0,
	"open": 0, "open64": 0, "__open": 0, "__open64": 0, "__libc_open": 0, "__libc_open64": 0, "__open64_nocancel": 0,
	"openat": 1, "openat64": 1,
}

// maxPath bounds a path read from the target (Linux PATH_MAX).
const maxPath = 4096

// decodeCall names the system call of a thread and its arguments, from the
// registers of the core; where those say nothing, from the saved /proc text.
func (img *image) decodeCall(t *thread) {
	if c := img.callFromRegisters(t); c != nil {
		t.call = c
	} else if c := img.callFromProc(t); c != nil {
		t.call = c
	}
	if t.call == nil {
		return
	}
	if opens(t.call.Name) {
		img.findPath(t)
	}
}

func opens(name string) bool {
	return name == "open" || name == "openat" || name == "openat2" || name == "creat"
}

// callFromRegisters is nil when the registers show no blocked call.
func (img *image) callFromRegisters(t *thread) *call {
	info := img.core.Info()
	if sc, ok := img.core.SyscallState(t.note); ok {
		return img.callOfFreeBSD(t, &sc)
	}
	regs := &t.note.Regs
	order, ok := argRegs[info.Arch]
	if !ok {
		return nil
	}
	result, ok := regs.Get(resultReg[info.Arch])
	if !ok {
		return nil
	}
	nr := t.note.OrigSyscall
	state := syscalls.InCall(nr, result, img.behindSyscall(t))
	if !state.Blocked() {
		t.over = state != syscalls.Unclear
		return nil
	}
	c := &call{source: target.SourceRegisters, result: target.Known(int64(result), target.SourceRegisters)}
	for i, r := range order {
		// Unknown registers can't occur in a complete register note.
		c.regs[i], _ = regs.Get(r)
	}
	if info.Arch == target.ARM64 && int64(result) < 0 {
		// x0 is both first argument and result: orig_x0 isn't in the note.
		c.how = "the first argument's register holds the result already"
	}
	number := nr.V
	if syscalls.Restarted(info.OS, info.Arch, number) {
		number, c.how = img.restarted(t, number)
	}
	c.Call = syscalls.Format(info.OS, info.Arch, number, c.regs, img.argMem, img.fds)
	return c
}

// callOfFreeBSD is the call that the registers of a FreeBSD thread show.
func (img *image) callOfFreeBSD(t *thread, sc *elfcore.SystemCall) *call {
	if !sc.State.Blocked() {
		t.over = sc.State != elfcore.CallUnclear
		return nil
	}
	c := &call{source: target.SourceRegisters, regs: sc.Args, how: sc.How}
	switch sc.State {
	case elfcore.CallRestarting:
		c.result = target.Known(int64(diagnose.RestartFreeBSD), target.SourceRegisters)
	case elfcore.CallInterrupted:
		c.result = target.Known(int64(diagnose.InterruptedFreeBSD), target.SourceRegisters)
	}
	number := sc.Number
	if !number.Known {
		got, err := img.recover.SyscallNumber(img.frames(t))
		if err != nil {
			return nil
		}
		number = target.Known(got.Value, target.SourceCode)
		c.how = assuming("the call's number by the stub's code: "+got.How, got.Assumed)
	}
	info := img.core.Info()
	c.Call = syscalls.Format(info.OS, info.Arch, number.V, c.regs, img.argMem, img.fds)
	return c
}

// behindSyscall says whether the bytes in front of the pc enter the kernel.
func (img *image) behindSyscall(t *thread) target.Value[bool] {
	pc, ok := t.note.Regs.PC()
	if !ok || pc < 4 {
		return target.Value[bool]{}
	}
	var code [4]byte
	if _, err := img.mem.ReadMemory(pc-4, code[:]); err != nil {
		return target.Value[bool]{}
	}
	is, ok := syscalls.EndsInSyscall(img.core.Info().Arch, code[:])
	if !ok {
		return target.Value[bool]{}
	}
	return target.Known(is, target.SourceCode)
}

// restarted names the real call behind restart_syscall by the code of the
// stub that made it.
func (img *image) restarted(t *thread, nr int64) (number int64, how string) {
	got, err := img.recover.SyscallNumber(img.frames(t))
	switch {
	case err == nil:
		name, _ := syscalls.Name(img.core.Info().OS, img.core.Info().Arch, got.Value)
		return got.Value, fmt.Sprintf("continued as restart_syscall (%d) after a stop; %s by %s", nr, name, assuming(got.How, got.Assumed))
	case errors.Is(err, disasm.ErrAmbiguous):
		return nr, "continued after a stop; the code allows several calls"
	}
	return nr, fmt.Sprintf("continued after a stop; which call it was isn't known: %v", err)
}

// movedOn says that a wait in the saved /proc text was over when the core was
// made: the calls differ, or the thread's registers show that it is in none.
func (img *image) movedOn(t *thread) bool {
	return img.hasProc && (t.over || t.moved)
}

// assuming adds what a recovery from code could not check.
func assuming(how string, assumed []string) string {
	if len(assumed) == 0 {
		return how
	}
	return how + "; not checked: " + strings.Join(assumed, ", ")
}

// callFromProc takes the call from the saved /proc text, where the thread
// still is in the same place.
func (img *image) callFromProc(t *thread) *call {
	sys := t.kernel.Syscall
	if !sys.Known || sys.Source != target.SourceProc || !sys.V.InCall() || img.movedOn(t) {
		return nil
	}
	if pc, ok := t.note.Regs.PC(); ok && t.kernel.PC.Known && t.kernel.PC.V != pc {
		return nil // it went on between capture and core
	}
	info := img.core.Info()
	sc := t.kernel.Syscall.V
	return &call{
		Call:   syscalls.Format(info.OS, info.Arch, sc.Number, sc.Args, img.argMem, img.fds),
		source: t.kernel.Syscall.Source, regs: sc.Args,
	}
}

// fds names a descriptor from the saved list of open files.
func (img *image) fds(fd int) (string, bool) {
	f, ok := img.kernel.File(fd)
	if !ok {
		return "", false
	}
	return fileText(f), true
}

// fileText is a descriptor's object in one phrase.
func fileText(f kernelview.File) string {
	s := f.Path
	if f.Protocol != "" {
		s = f.Protocol
		if f.Local != "" {
			s += " " + f.Local
		}
		if f.Peer != "" {
			s += " -> " + f.Peer
		}
	}
	if f.Deleted {
		s += " (deleted)"
	}
	return s
}

// findPath fills the path that an open waits for: the call's own argument, and
// beside it what the frames still hold, each with how it was found.
func (img *image) findPath(t *thread) {
	c := t.call
	if a, ok := c.Arg("pathname"); ok && a.Decoded && a.Err == nil {
		c.path = target.Known(a.Str, target.SourceMemory)
	}
	if a, ok := c.Arg("flags"); ok {
		c.flags = target.Known(a.Raw, c.source)
	}
	if c.Name == "openat2" {
		img.openHow(c)
	}
	recovered := img.recoverPaths(t)
	switch {
	case recovered.text == "":
	case !c.path.Known:
		c.path = target.Known(recovered.text, target.SourceMemory)
		c.pathHow = recovered.how
	case c.path.V == recovered.text:
		c.pathHow = "argument of the call; the frames agree: " + recovered.how
	}
	if c.path.Known && !path.IsAbs(c.path.V) {
		img.relativeTo(c)
	}
}

// openHow reads the flags of openat2 (struct open_how, linux/openat2.h: the
// first 64-bit word).
func (img *image) openHow(c *call) {
	if v, err := target.Uint64(img.mem, target.Addr(c.regs[2])); err == nil {
		c.flags = target.Known(v, target.SourceMemory)
	}
}

// relativeTo fills the directory that a relative path starts from.
func (img *image) relativeTo(c *call) {
	if c.Name != "openat" && c.Name != "openat2" {
		return
	}
	if f, ok := img.kernel.File(int(int32(c.regs[0]))); ok && !f.Deleted && path.IsAbs(f.Path) {
		c.dir = target.Known(f.Path, f.Source)
	}
}

// recoverPaths looks for the file name in the frames around a blocked open.
// The outermost frame that still has it is returned: the server's own.
func (img *image) recoverPaths(t *thread) argument {
	var best argument
	frames := img.frames(t)
	for k := range t.stack.Frames {
		f := &t.stack.Frames[k]
		index, ok := pathFrames[img.names.of(f.Function).norm]
		if !ok || k >= len(frames) {
			continue
		}
		got, err := img.recover.Argument(frames, k, index)
		if err != nil || got.Bits != 64 {
			continue
		}
		a := argument{index: index, value: got.Value, how: assuming(got.How, got.Assumed)}
		if s, err := target.CString(img.argMem, target.Addr(got.Value), maxPath); err == nil {
			a.text = s
		}
		if t.args == nil {
			t.args = map[int][]argument{}
		}
		t.args[k] = append(t.args[k], a)
		if a.text != "" {
			best = a
		}
	}
	return best
}

// frames presents the stack to argument recovery.
func (img *image) frames(t *thread) []disasm.Frame {
	out := make([]disasm.Frame, 0, len(t.stack.Frames))
	arch := img.core.Info().Arch
	inCall := img.behindSyscall(t)
	for k := range t.stack.Frames {
		f := &t.stack.Frames[k]
		regs := f.Regs.Expand(arch)
		d := disasm.Frame{PC: uint64(f.PC), Regs: &regs, Name: img.names.of(f.Function).shown}
		if entry, ok := f.Entry(); ok {
			d.Start = uint64(entry)
		}
		if f.HasCFA {
			d.CFA = uint64(f.CFA)
		}
		// A frame that called is suspended at its call; one that a signal
		// interrupted may be anywhere.
		d.Suspended = f.LookupPC != f.PC || k == 0 && inCall.Known && inCall.V
		out = append(out, d)
	}
	return out
}
