package cfi

import "encoding/binary"

// cursor reads fields from bytes that stand at a link-time address. The first
// field that doesn't fit sets err, and all later ones give zero: callers check
// err once, before they use what they read.
type cursor struct {
	b    []byte
	off  int
	addr uint64 // link-time address of b[0]
	err  error
}

func (c *cursor) here() uint64 { return c.addr + uint64(c.off) }
func (c *cursor) left() int    { return len(c.b) - c.off }

func (c *cursor) fail(msg string) {
	if c.err == nil {
		c.err = &FormatError{Addr: c.here(), Msg: msg}
	}
	c.off = len(c.b)
}

// take gives the next n bytes, nil when they aren't there.
func (c *cursor) take(n uint64) []byte {
	if c.err != nil {
		return nil
	}
	if n > uint64(c.left()) {
		c.fail("field runs over the end of its entry")
		return nil
	}
	p := c.b[c.off : c.off+int(n) : c.off+int(n)]
	c.off += int(n)
	return p
}

func (c *cursor) u8() uint8 {
	if p := c.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if p := c.take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if p := c.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// uleb reads an unsigned LEB128 number (DWARF 5 section 7.6). Padding is
// allowed, bits beyond the 64th are an error.
func (c *cursor) uleb() uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		p := c.take(1)
		if p == nil {
			return 0
		}
		b := uint64(p[0] & 0x7f)
		if shift > 63 && b != 0 || shift == 63 && b > 1 {
			c.fail("number of more than 64 bits")
			return 0
		}
		if shift <= 63 {
			v |= b << shift
		}
		if p[0]&0x80 == 0 {
			return v
		}
	}
}

// sleb reads a signed LEB128 number; beyond the 64th bit only sign bits may
// stand.
func (c *cursor) sleb() int64 {
	var v int64
	for shift := uint(0); ; shift += 7 {
		p := c.take(1)
		if p == nil {
			return 0
		}
		b := p[0] & 0x7f
		switch {
		case shift < 63:
			v |= int64(b) << shift
		case shift == 63 && (b == 0 || b == 0x7f):
			v |= int64(b) << shift
		case shift > 63 && (v >= 0 && b == 0 || v < 0 && b == 0x7f):
		default:
			c.fail("number of more than 64 bits")
			return 0
		}
		if p[0]&0x80 != 0 {
			continue
		}
		if shift < 57 && b&0x40 != 0 {
			v |= -1 << (shift + 7)
		}
		return v
	}
}

// cstring reads up to a NUL, which it consumes.
func (c *cursor) cstring() string {
	for i, b := range c.b[c.off:] {
		if b == 0 {
			s := string(c.b[c.off : c.off+i])
			c.off += i + 1
			return s
		}
	}
	c.fail("unterminated augmentation string")
	return ""
}

// block reads a length and that many bytes, which alias the entry.
func (c *cursor) block() []byte { return c.take(c.uleb()) }
