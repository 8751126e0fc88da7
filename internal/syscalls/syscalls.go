// Package syscalls names system calls and shows a blocked one the way strace
// would: openat(AT_FDCWD, "/tmp/ghost.fifo", O_RDONLY|O_CLOEXEC).
//
// The tables are data: numbers by operating system and instruction set,
// arguments by name of the call. Everything that comes from the target is
// bounded, and escaped so that the text is printable ASCII.
package syscalls

import (
	"fmt"
	"slices"

	"mycore/internal/target"
)

// system is one numbering of system calls.
type system struct {
	os   string
	arch target.Arch
}

// tables has the numberings that are known, by operating system (as GOOS) and
// instruction set.
var tables = map[system][]string{
	{"linux", target.AMD64}: linuxX86,
	{"linux", target.ARM64}: linuxAArch64,

	{"freebsd", target.AMD64}: freeBSD,
	{"freebsd", target.ARM64}: freeBSD,
}

// signaturesOf are the parameters of an operating system's calls, by name.
var signaturesOf = map[string]map[string][]param{"linux": signatures, "freebsd": fbsdSignatures}

// Name returns the name of a system call number; ok is false for a number, an
// operating system or an instruction set without an entry.
func Name(os string, arch target.Arch, nr int64) (name string, ok bool) {
	t := tables[system{os, arch}]
	if nr < 0 || nr >= int64(len(t)) || t[nr] == "" {
		return "", false
	}
	return t[nr], true
}

// Number returns the number of the system call with a name; see Name.
func Number(os string, arch target.Arch, name string) (nr int64, ok bool) {
	if name == "" {
		return 0, false
	}
	i := slices.Index(tables[system{os, arch}], name)
	return int64(i), i >= 0
}

// Arg is one argument of a call.
type Arg struct {
	Name string // as in the call's manual page
	Kind string // what it is: "path", "fd", "flags", ... (see the kind constants)
	Raw  uint64 // the register
	Text string // as strace shows it, printable ASCII
	// Str is the string that a path or buffer argument points to, unescaped;
	// valid when Decoded. A cut one is a prefix.
	Str     string
	Decoded bool
	// Err says why memory behind the argument could not be read.
	Err error
}

// Call is a decoded system call.
type Call struct {
	Number int64
	Name   string // "syscall_0x1f4" for a number without a name
	Known  bool   // the arguments are decoded by the call's signature
	Args   []Arg
	Text   string // name(arguments), printable ASCII
}

// Arg returns the argument with a name.
func (c *Call) Arg(name string) (Arg, bool) {
	for _, a := range c.Args {
		if a.Name == name {
			return a, true
		}
	}
	return Arg{}, false
}

// FDs describes a file descriptor ("/tmp/x", "socket:[123]"); ok is false when
// it isn't known. The text may hold bytes of the target.
type FDs func(fd int) (text string, ok bool)

// Format decodes a call from its number and the six argument registers. mem and
// fds may be nil: then pointers stay addresses and descriptors numbers.
func Format(os string, arch target.Arch, nr int64, args [6]uint64, mem target.Memory, fds FDs) Call {
	c := Call{Number: nr}
	name, ok := Name(os, arch, nr)
	if !ok {
		name = fmt.Sprintf("syscall_%#x", nr)
	}
	c.Name = name
	d := decoder{arch: arch, mem: mem, fds: fds, args: args}
	params, ok := signaturesOf[os][name]
	if !ok {
		params = unknownSignature
	}
	c.Known = ok
	text := make([]byte, 0, 96)
	text = append(append(text, name...), '(')
	for i, p := range params {
		if p.when != nil && !p.when(&args) {
			continue
		}
		a := d.arg(i, p)
		c.Args = append(c.Args, a)
		if len(c.Args) > 1 {
			text = append(text, ", "...)
		}
		text = append(text, a.Text...)
	}
	c.Text = string(append(text, ')'))
	return c
}
