package cfi

// encoding is a DW_EH_PE pointer encoding: a format in the low four bits, what
// the value is relative to in the next three, and the indirect bit (Linux
// Standard Base Core 5.0, section 10.5.1).
type encoding uint8

const (
	encAbsptr  encoding = 0x00 // a machine pointer
	encULEB    encoding = 0x01
	encUdata2  encoding = 0x02
	encUdata4  encoding = 0x03
	encUdata8  encoding = 0x04
	encSigned  encoding = 0x08 // a signed machine pointer
	encSLEB    encoding = 0x09
	encSdata2  encoding = 0x0a
	encSdata4  encoding = 0x0b
	encSdata8  encoding = 0x0c
	encFormat  encoding = 0x0f // mask of the format
	encPCRel   encoding = 0x10 // relative to the value's own address
	encTextRel encoding = 0x20 // relative to .text: no base is known here
	encDataRel encoding = 0x30 // relative to .eh_frame_hdr, inside that section
	encFuncRel encoding = 0x40 // relative to the function: used in LSDAs only
	encAligned encoding = 0x50 // a machine pointer at the next aligned address
	encApply   encoding = 0x70 // mask of what the value is relative to

	encIndirect encoding = 0x80 // the value is the address of the pointer
	encOmit     encoding = 0xff // no value
)

// width gives the bytes of one value, 0 for the formats whose length varies.
func (e encoding) width(ptrSize int) int {
	switch e & encFormat {
	case encAbsptr, encSigned:
		return ptrSize
	case encUdata2, encSdata2:
		return 2
	case encUdata4, encSdata4:
		return 4
	case encUdata8, encSdata8:
		return 8
	}
	return 0
}

// bases are what relative pointers are relative to.
type bases struct {
	data    uint64 // for encDataRel
	hasData bool
}

// raw reads a value in e's format, without what it is relative to. Values
// narrower than 64 bits are extended as their format says.
func (c *cursor) raw(e encoding, ptrSize int) uint64 {
	switch e & encFormat {
	case encAbsptr:
		if ptrSize == 4 {
			return uint64(c.u32())
		}
		return c.u64()
	case encSigned:
		if ptrSize == 4 {
			return uint64(int64(int32(c.u32())))
		}
		return c.u64()
	case encULEB:
		return c.uleb()
	case encSLEB:
		return uint64(c.sleb())
	case encUdata2:
		return uint64(c.u16())
	case encUdata4:
		return uint64(c.u32())
	case encUdata8, encSdata8:
		return c.u64()
	case encSdata2:
		return uint64(int64(int16(c.u16())))
	case encSdata4:
		return uint64(int64(int32(c.u32())))
	}
	c.fail("unknown pointer format")
	return 0
}

// pointer reads an encoded pointer. The pointer behind an indirect value is
// read from the image, where a dynamic relocation may be missing; such
// pointers occur for personality routines, which nobody here follows.
func (c *cursor) pointer(e encoding, ptrSize int, bs bases, r Reader) uint64 {
	if e == encOmit {
		c.fail("pointer is left out where one is needed")
		return 0
	}
	if e&encApply == encAligned {
		for c.err == nil && c.here()%uint64(ptrSize) != 0 {
			c.u8()
		}
		e &^= encApply | encFormat
	}
	base := uint64(0)
	switch e & encApply {
	case 0:
	case encPCRel:
		base = c.here()
	case encDataRel:
		if !bs.hasData {
			c.fail("data-relative pointer without a base")
			return 0
		}
		base = bs.data
	default:
		c.fail("pointer relative to a base that isn't known here")
		return 0
	}
	v := c.raw(e, ptrSize)
	if c.err != nil {
		return 0
	}
	v += base
	if ptrSize == 4 {
		v = uint64(uint32(v))
	}
	if e&encIndirect != 0 {
		return c.indirect(v, ptrSize, r)
	}
	return v
}

func (c *cursor) indirect(at uint64, ptrSize int, r Reader) uint64 {
	p := make([]byte, ptrSize)
	if n, err := r.ReadVaddr(at, p); n < ptrSize {
		c.err = &FormatError{Addr: at, Msg: "indirect pointer", Err: err}
		return 0
	}
	ind := cursor{b: p, addr: at}
	return ind.raw(encAbsptr, ptrSize)
}

// skipPointer passes over a value without asking what it is relative to.
func (c *cursor) skipPointer(e encoding, ptrSize int) {
	if e == encOmit {
		return
	}
	if e&encApply == encAligned {
		for c.err == nil && c.here()%uint64(ptrSize) != 0 {
			c.u8()
		}
		e = encAbsptr
	}
	c.raw(e, ptrSize)
}
