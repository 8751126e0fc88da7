package cfi

import (
	"testing"
)

func TestPointer(t *testing.T) {
	t.Parallel()
	const at = 0x1004 // address of the value
	mem := image{0x9000, le64(0x123456789a)}
	tests := []struct {
		name string
		enc  byte
		b    []byte
		want uint64
		used int
	}{
		{"absptr", 0x00, le64(0x7f0011223344), 0x7f0011223344, 8},
		{"signed pointer", 0x08, le64(1 << 63), 1 << 63, 8},
		{"uleb128", 0x01, uleb(0x12345), 0x12345, 3},
		{"sleb128", 0x09, sleb(-3), 0xfffffffffffffffd, 1},
		{"udata2", 0x02, le16(0xfffe), 0xfffe, 2},
		{"sdata2", 0x0a, le16(0xfffe), 0xfffffffffffffffe, 2},
		{"udata4", 0x03, le32(0xfffffffe), 0xfffffffe, 4},
		{"sdata4", 0x0b, le32(0xfffffffe), 0xfffffffffffffffe, 4},
		{"udata8", 0x04, le64(0xfffffffffffffffe), 0xfffffffffffffffe, 8},
		{"sdata8", 0x0c, le64(5), 5, 8},
		{"pcrel sdata4", 0x1b, le32(0xfffffffc), 0x1000, 4},
		{"pcrel udata2", 0x12, le16(0x10), 0x1014, 2},
		{"datarel sdata4", 0x3b, le32(0xffffff00), 0x4f00, 4},
		{"datarel absptr", 0x30, le64(0x100), 0x5100, 8},
		{"indirect pcrel sdata4", 0x9b, le32(0x9000 - at), 0x123456789a, 4},
		{"indirect absptr", 0x80, le64(0x9000), 0x123456789a, 8},
		{"aligned", 0x50, cat(le32(0xffffffff), le64(0x42)), 0x42, 12},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := cursor{b: cat([]byte{9, 9, 9, 9}, tt.b, []byte{7, 7, 7, 7, 7, 7, 7, 7}), off: 4, addr: at - 4}
			got := c.pointer(encoding(tt.enc), 8, bases{data: 0x5000, hasData: true}, mem)
			if c.err != nil || got != tt.want || c.off-4 != tt.used {
				t.Errorf("%#x after %d bytes, error %v; want %#x after %d", got, c.off-4, c.err, tt.want, tt.used)
			}
			skip := cursor{b: cat([]byte{9, 9, 9, 9}, tt.b), off: 4, addr: at - 4}
			skip.skipPointer(encoding(tt.enc), 8)
			if skip.err != nil || skip.off-4 != tt.used {
				t.Errorf("skipped %d bytes, error %v; want %d", skip.off-4, skip.err, tt.used)
			}
		})
	}
	c := cursor{b: cat(le32(0xfffffff0), le32(0x20)), addr: 0xfffffff0}
	if a, b := c.pointer(0x08, 4, bases{}, mem), c.pointer(0x1b, 4, bases{}, mem); a != 0xfffffff0 || b != 0x14 {
		t.Errorf("32-bit pointers %#x, %#x: must wrap at 4 GiB", a, b)
	}
}

func TestPointerErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		enc byte
		b   []byte
	}{
		"omitted":              {0xff, le64(1)},
		"unknown format 5":     {0x05, le64(1)},
		"unknown format f":     {0x0f, le64(1)},
		"text-relative":        {0x23, le64(1)},
		"function-relative":    {0x43, le64(1)},
		"data without a base":  {0x3b, le64(1)},
		"short":                {0x0b, le16(1)},
		"indirect, not there":  {0x80, le64(0x100)},
		"indirect, cut":        {0x80, le64(0x9004)},
		"aligned, not there":   {0x50, le32(1)},
		"unterminated uleb128": {0x01, []byte{0x80}},
	} {
		c := cursor{b: tt.b, addr: 4}
		if v := c.pointer(encoding(tt.enc), 8, bases{}, image{0x9000, le64(1)}); c.err == nil {
			t.Errorf("%s: %#x without an error", name, v)
		}
	}
}
