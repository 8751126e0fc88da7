package syscalls

import "mycore/internal/target"

// Codes that the kernel leaves in the result register of a thread that was
// interrupted in a system call (include/linux/errno.h and
// uapi/asm-generic/errno-base.h, Linux; all versions). The first four never
// reach the program: the kernel repeats the call or turns them into EINTR.
const (
	EINTR                = 4
	ENOSYS               = 38 // also preset by the entry code while a call runs
	ERESTARTSYS          = 512
	ERESTARTNOINTR       = 513
	ERESTARTNOHAND       = 514
	ERESTARTRestartBlock = 516
)

// maxErrno is the largest error number that a result register can carry
// (include/linux/err.h).
const maxErrno = 4095

// RestartName names a result register's content when it says that a sleeping
// call was interrupted, with what happens next; ok is false for any other.
func RestartName(result uint64) (name, meaning string, ok bool) {
	switch -int64(result) {
	case ERESTARTSYS:
		return "ERESTARTSYS", "repeated unless a handler without SA_RESTART runs", true
	case ERESTARTNOINTR:
		return "ERESTARTNOINTR", "always repeated", true
	case ERESTARTNOHAND:
		return "ERESTARTNOHAND", "repeated unless any handler runs", true
	case ERESTARTRestartBlock:
		return "ERESTART_RESTARTBLOCK", "continued as restart_syscall unless a handler runs", true
	case EINTR:
		return "EINTR", "returned to the program, which may call again", true
	}
	return "", "", false
}

// State says what a thread's registers tell about a system call.
type State string

// The states of a thread with respect to a system call. elfcore.CallState, which
// FreeBSD's registers give, has the same words.
const (
	// NotInCall: the thread was executing the program's own code.
	NotInCall State = "not-in-call"
	// Interrupted: it slept interruptibly in the call until the core was made.
	Interrupted State = "interrupted"
	// Entered: it is in the kernel and has no result yet; not interruptible, or
	// looked at without being stopped.
	Entered State = "entered"
	// Restarting: its sleep was broken and the program counter is back on the
	// instruction that enters the kernel (FreeBSD, ERESTART).
	Restarting State = "restarting"
	// Returned: the call was over, with a result.
	Returned State = "returned"
	// Failed: the call was over, with an error.
	Failed State = "failed"
	// Unclear: the registers don't say.
	Unclear State = "unclear"
)

// Blocked reports whether the thread waited in the call when the image was
// taken.
func (s State) Blocked() bool { return s == Interrupted || s == Entered || s == Restarting }

// InCall decides from a Linux thread's registers whether it waited in a system
// call: number is that of the call (orig_rax, or x8; unknown or -1: none),
// result the result register (rax or x0), behindSyscall whether the program
// counter follows a syscall instruction (see EndsInSyscall; unknown when the
// code can't be read).
func InCall(number target.Value[int64], result uint64, behindSyscall target.Value[bool]) State {
	if number.Known && number.V < 0 || behindSyscall.Known && !behindSyscall.V {
		return NotInCall
	}
	if !number.Known {
		return Unclear
	}
	if _, _, ok := RestartName(result); ok {
		return Interrupted
	}
	switch e := -int64(result); {
	case e == ENOSYS:
		return Entered
	case e > 0 && e <= maxErrno:
		return Failed
	}
	return Returned
}

// EndsInSyscall reports whether code, the bytes in front of a program counter,
// ends with the instruction that enters the kernel: syscall on x86-64 (0f 05),
// svc #0 on AArch64. ok is false for other instruction sets and too few bytes.
func EndsInSyscall(arch target.Arch, code []byte) (is, ok bool) {
	n := len(code)
	switch {
	case arch == target.AMD64 && n >= 2:
		return code[n-2] == 0x0f && code[n-1] == 0x05, true
	case arch == target.ARM64 && n >= 4:
		return string(code[n-4:]) == "\x01\x00\x00\xd4", true
	}
	return false, false
}

// Restarted reports whether a call is restart_syscall: the continuation of a
// timed wait that was once stopped. Its number no longer tells which one; the
// arguments are still those of the first call.
func Restarted(os string, arch target.Arch, nr int64) bool {
	name, ok := Name(os, arch, nr)
	return ok && name == "restart_syscall"
}
