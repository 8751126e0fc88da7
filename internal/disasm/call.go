package disasm

import (
	"encoding/binary"
	"fmt"
)

// MaxCall is the most bytes of code before a return address that FollowsCall
// looks at: the longest call, with SIB and a 32-bit displacement, and prefixes.
const MaxCall = maxInstr

// Call is the call instruction in front of a return address.
type Call struct {
	// Direct says that the call names its target: the return address plus
	// Displacement.
	Direct       bool
	Displacement int32
	// Len is the length of the instruction in bytes, without prefixes other
	// than REX.
	Len int
	// Ambiguous says that the bytes can be read as a direct call and as an
	// indirect one; Direct and Displacement then are those of the direct one.
	Ambiguous bool
}

// FollowsCall reports whether a call instruction ends exactly at the end of
// code, as in front of every return address: E8 with a 32-bit displacement, or
// FF /2 in all its forms. Prefixes and REX in front of it don't matter. A true
// answer means "could be": bytes of other instructions can look like a call.
func FollowsCall(code []byte) (Call, bool) {
	n := len(code)
	indirect := 0
	for _, l := range [...]int{2, 3, 4, 6, 7} { // FF, ModRM, SIB, disp8, disp32
		if n >= l && code[n-l] == 0xff && code[n-l+1]>>3&7 == 2 && modRMLength(code[n-l+1:]) == l-1 {
			indirect = l
			break
		}
	}
	direct := n >= 5 && code[n-5] == 0xe8
	var c Call
	switch {
	case direct:
		c = Call{Direct: true, Displacement: int32(binary.LittleEndian.Uint32(code[n-4:])), Len: 5, Ambiguous: indirect != 0}
	case indirect != 0:
		c = Call{Len: indirect}
	default:
		return Call{}, false
	}
	if n > c.Len && code[n-c.Len-1]&0xf0 == 0x40 {
		c.Len++
	}
	return c, true
}

// modRMLength is the number of bytes of ModRM, SIB and displacement at the
// start of b; 0 when b is too short for a SIB byte.
func modRMLength(b []byte) int {
	mod, rm := b[0]>>6, b[0]&7
	n := 1
	if mod == 3 {
		return n
	}
	base := rm
	if rm == 4 {
		if len(b) < 2 {
			return 0
		}
		base = b[1] & 7
		n++
	}
	switch {
	case mod == 0 && base == 5, mod == 2:
		return n + 4
	case mod == 1:
		return n + 1
	}
	return n
}

// CallBefore finds the call that ends at the return address ret, by measuring
// the instructions of the function from its start: unlike FollowsCall it
// can't mistake the inside of another instruction for a call. start is the
// address of code's first byte. Without a call there, or when the bytes can't
// be measured up to ret, ok is false.
func CallBefore(code []byte, start, ret uint64) (c Call, ok bool) {
	if ret <= start || ret-start > uint64(len(code)) || len(code) > maxCode {
		return Call{}, false
	}
	code = code[:ret-start]
	for pos := 0; pos < len(code); {
		l, err := measure(code[pos:])
		if err != nil {
			return Call{}, false
		}
		if pos+l.length == len(code) {
			return callOf(code[pos:], l)
		}
		pos += l.length
	}
	return Call{}, false
}

// callOf gives the call that b, one instruction, is.
func callOf(b []byte, l layout) (Call, bool) {
	if l.vex || l.opmap != mapOne {
		return Call{}, false
	}
	switch {
	case l.opcode == 0xe8:
		return Call{Direct: true, Displacement: int32(binary.LittleEndian.Uint32(b[l.length-4:])), Len: l.length}, true
	case l.opcode == 0xff && l.modrm>>3&7 == 2:
		return Call{Len: l.length}, true
	}
	return Call{}, false
}

// FollowsSyscall reports whether the two bytes at the end of code are the
// syscall instruction: where the program counter of a thread in a system call
// points on Linux.
func FollowsSyscall(code []byte) bool {
	n := len(code)
	return n >= 2 && code[n-2] == 0x0f && code[n-1] == 0x05
}

// String is for messages: "call +0x12f0" or "indirect call".
func (c Call) String() string {
	if c.Direct {
		return fmt.Sprintf("call %+#x", c.Displacement)
	}
	return "indirect call"
}
