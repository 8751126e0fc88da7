package disasm

import "fmt"

// maxInstr is the architecture's limit on the length of one instruction
// (Intel SDM volume 2, section 2.3.11; AMD64 APM volume 3, section 1.1).
const maxInstr = 15

// Opcode maps, in the numbering of the VEX and EVEX prefixes (SDM volume 2,
// tables 2-9 and 2-31): the legacy escapes 0F, 0F38 and 0F3A are maps 1 to 3.
const (
	mapOne   = 0
	map0F    = 1
	map0F38  = 2
	map0F3A  = 3
	mapFP16A = 5
	mapFP16B = 6
)

// layout is the shape of one instruction: enough for its length and for a
// cautious idea of what it writes when its meaning isn't known.
type layout struct {
	length   int
	opmap    uint8
	opcode   byte
	modrm    byte
	hasModRM bool
	vex      bool // VEX or EVEX encoded
	rexR     bool
	rexB     bool
	rexW     bool
	vvvv     uint8 // VEX and EVEX: second source or destination, 0 to 15
	rep      byte  // the last of the prefixes F2 and F3, or 0
	opsize   bool  // prefix 66
}

// cursor reads bytes of one instruction, never beyond its end or 15 bytes.
type cursor struct {
	b   []byte
	pos int
}

func (c *cursor) next() (byte, bool) {
	if c.pos >= len(c.b) || c.pos >= maxInstr {
		return 0, false
	}
	v := c.b[c.pos]
	c.pos++
	return v, true
}

// measure finds the length and shape of the instruction at the start of b, in
// 64-bit mode, from the opcode maps of SDM volume 2, appendix A.
func measure(b []byte) (layout, error) {
	c := cursor{b: b}
	var l layout
	op, ok := l.prefixes(&c)
	if !ok {
		return l, cut(b)
	}
	imm, ok, known := l.opcodeAndImmediate(&c, op)
	if !known {
		return l, fmt.Errorf("%w: opcode %#x of map %d", ErrUndecodable, l.opcode, l.opmap)
	}
	if !ok || c.pos+imm > len(b) || c.pos+imm > maxInstr {
		return l, cut(b)
	}
	l.length = c.pos + imm
	return l, nil
}

func cut(b []byte) error {
	return fmt.Errorf("%w: it doesn't end within %d bytes", ErrUndecodable, min(len(b), maxInstr))
}

// prefixes reads legacy and REX prefixes and returns the byte after them. A REX
// prefix that another prefix follows has no effect (SDM volume 2, 2.2.1).
func (l *layout) prefixes(c *cursor) (byte, bool) {
	for {
		p, ok := c.next()
		if !ok {
			return 0, false
		}
		switch {
		case p == 0x66:
			l.opsize = true
		case p == 0xf2 || p == 0xf3:
			l.rep = p
		case p == 0x67, p == 0x2e, p == 0x36, p == 0x3e, p == 0x26, p == 0x64, p == 0x65, p == 0xf0:
		case p&0xf0 == 0x40:
			l.rexW, l.rexR, l.rexB = p&8 != 0, p&4 != 0, p&1 != 0
			continue
		default:
			return p, true
		}
		l.rexW, l.rexR, l.rexB = false, false, false
	}
}

// opcodeAndImmediate reads opcode, ModRM, SIB and displacement and returns the
// number of immediate bytes that follow. known is false for an opcode that
// isn't in the maps; ok is false when the bytes end too early.
func (l *layout) opcodeAndImmediate(c *cursor, op byte) (imm int, ok, known bool) {
	switch op {
	case 0x0f:
		if op, ok = c.next(); !ok {
			return 0, false, true
		}
		l.opmap = map0F
		if op == 0x38 || op == 0x3a {
			l.opmap = map0F38 + (op-0x38)/2
			if op, ok = c.next(); !ok {
				return 0, false, true
			}
		}
	case 0xc5, 0xc4, 0x62:
		if op, ok, known = l.vexPrefix(c, op); !ok || !known {
			return 0, ok, known
		}
	}
	l.opcode = op
	modrm, imm, known := l.shape()
	if !known {
		return 0, true, false
	}
	if modrm {
		var regImm int
		if regImm, ok = l.readModRM(c); !ok {
			return 0, false, true
		}
		imm += regImm
	}
	return imm, true, true
}

// vexPrefix reads a VEX or EVEX prefix whose first byte is first, and returns
// the opcode byte (SDM volume 2, sections 2.3.5 and 2.7.1).
func (l *layout) vexPrefix(c *cursor, first byte) (op byte, ok, known bool) {
	var p [3]byte
	n := map[byte]int{0xc5: 1, 0xc4: 2, 0x62: 3}[first]
	for i := range n {
		if p[i], ok = c.next(); !ok {
			return 0, false, true
		}
	}
	l.vex = true
	l.rexR = p[0]&0x80 == 0
	last := p[0]
	l.opmap = map0F
	if first != 0xc5 {
		l.rexB = p[0]&0x20 == 0
		last = p[1]
		l.rexW = last&0x80 != 0
		l.opmap = p[0] & 0x1f
		if first == 0x62 {
			l.opmap = p[0] & 7
		}
	}
	l.vvvv = (last>>3)&0xf ^ 0xf
	switch l.opmap {
	case map0F, map0F38, map0F3A:
	case mapFP16A, mapFP16B:
		if first != 0x62 {
			return 0, true, false
		}
	default:
		return 0, true, false
	}
	op, ok = c.next()
	return op, ok, true
}

// readModRM reads ModRM, SIB and displacement, and returns the immediate bytes
// that depend on the reg field (the TEST forms of F6 and F7).
func (l *layout) readModRM(c *cursor) (imm int, ok bool) {
	if l.modrm, ok = c.next(); !ok {
		return 0, false
	}
	l.hasModRM = true
	mod, reg, rm := l.modrm>>6, l.modrm>>3&7, l.modrm&7
	if l.opmap == mapOne && reg < 2 {
		switch l.opcode {
		case 0xf6:
			imm = 1
		case 0xf7:
			imm = l.immZ()
		}
	}
	if mod == 3 || l.opmap == map0F && !l.vex && l.opcode >= 0x20 && l.opcode <= 0x23 {
		return imm, true // MOV to and from control registers ignores mod
	}
	disp := 0
	if rm == 4 {
		sib, ok := c.next()
		if !ok {
			return 0, false
		}
		if mod == 0 && sib&7 == 5 {
			disp = 4
		}
	}
	switch {
	case mod == 0 && rm == 5:
		disp = 4
	case mod == 1:
		disp = 1
	case mod == 2:
		disp = 4
	}
	for range disp {
		if _, ok := c.next(); !ok {
			return 0, false
		}
	}
	return imm, true
}

// immZ is the size of an operand-sized immediate that is at most 32 bits.
func (l *layout) immZ() int {
	if l.opsize && !l.rexW {
		return 2
	}
	return 4
}

// shape says whether the opcode has a ModRM byte and how long its immediate is.
func (l *layout) shape() (modrm bool, imm int, known bool) {
	switch {
	case l.vex:
		return l.shapeVEX()
	case l.opmap == mapOne:
		return l.shapeOne()
	case l.opmap == map0F:
		return l.shape0F()
	case l.opmap == map0F3A:
		return true, 1, true
	}
	return true, 0, true
}

func (l *layout) shapeVEX() (modrm bool, imm int, known bool) {
	switch l.opmap {
	case map0F3A:
		return true, 1, true
	case map0F:
		switch l.opcode {
		case 0x77: // VZEROUPPER, VZEROALL
			return false, 0, true
		case 0x70, 0x71, 0x72, 0x73, 0xc2, 0xc4, 0xc5, 0xc6:
			return true, 1, true
		}
	}
	return true, 0, true
}

func (l *layout) shapeOne() (modrm bool, imm int, known bool) {
	op := l.opcode
	switch {
	case op < 0x40: // eight arithmetic groups of the same form
		switch op & 7 {
		case 0, 1, 2, 3:
			return true, 0, true
		case 4:
			return false, 1, true
		case 5:
			return false, l.immZ(), true
		}
		return false, 0, false
	case op >= 0x50 && op < 0x60, op >= 0x6c && op < 0x70, op >= 0x90 && op < 0xa0 && op != 0x9a:
		return false, 0, true
	case op >= 0x70 && op < 0x80, op >= 0xb0 && op < 0xb8, op >= 0xe0 && op < 0xe8:
		return false, 1, true
	case op >= 0xd0 && op < 0xd4, op >= 0xd8 && op < 0xe0, op >= 0x84 && op < 0x8f:
		return true, 0, true
	case op >= 0xb8 && op < 0xc0:
		if l.rexW {
			return false, 8, true
		}
		return false, l.immZ(), true
	}
	return l.shapeOneSingles()
}

func (l *layout) shapeOneSingles() (modrm bool, imm int, known bool) {
	switch l.opcode {
	case 0xe8, 0xe9: // near branches keep 32 bits whatever the operand size is
		return false, 4, true
	case 0xeb, 0x6a, 0xa8, 0xcd:
		return false, 1, true
	case 0x63, 0xf6, 0xf7, 0xfe, 0xff:
		return true, 0, true
	case 0x80, 0x83, 0x6b, 0xc0, 0xc1, 0xc6:
		return true, 1, true
	case 0x81, 0x69, 0xc7:
		return true, l.immZ(), true
	case 0x68, 0xa9:
		return false, l.immZ(), true
	case 0x8f: // POP; any other reg field is AMD's XOP
		return true, 0, true
	case 0xc2, 0xca:
		return false, 2, true
	case 0xc8:
		return false, 3, true
	case 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
		0xc3, 0xc9, 0xcb, 0xcc, 0xcf, 0xd7, 0xec, 0xed, 0xee, 0xef,
		0xf1, 0xf4, 0xf5, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd:
		return false, 0, true
	}
	return false, 0, false // A0 to A3 (64-bit absolute moves) are not emitted by compilers
}

func (l *layout) shape0F() (modrm bool, imm int, known bool) {
	op := l.opcode
	switch {
	case op >= 0x80 && op < 0x90:
		return false, 4, true
	case op >= 0x05 && op <= 0x09, op == 0x0b, op >= 0x30 && op <= 0x35, op == 0x37,
		op == 0x77, op == 0xa0, op == 0xa1, op == 0xa2, op >= 0xa8 && op <= 0xaa, op >= 0xc8 && op <= 0xcf:
		return false, 0, true
	case op >= 0x70 && op <= 0x73, op == 0xa4, op == 0xac, op == 0xba, op == 0xc2, op >= 0xc4 && op <= 0xc6:
		return true, 1, true
	case op == 0x04, op == 0x0a, op == 0x0c, op == 0x0e, op == 0x0f, op >= 0x24 && op <= 0x27, op == 0x36,
		op == 0x39, op >= 0x3b && op <= 0x3f, op == 0x78, op == 0x79, op == 0x7a, op == 0x7b, op == 0xa6, op == 0xa7:
		return false, 0, false
	}
	return true, 0, true
}
