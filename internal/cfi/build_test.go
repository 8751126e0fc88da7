package cfi

import (
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"mycore/internal/target"
)

// image is a Reader over bytes at an address.
type image struct {
	base uint64
	b    []byte
}

func (m image) ReadVaddr(a uint64, p []byte) (int, error) {
	if a < m.base || a-m.base >= uint64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[a-m.base:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func le16(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func uleb(v uint64) []byte { return binary.AppendUvarint(nil, v) }

func sleb(v int64) []byte {
	var out []byte
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

// boxed puts a 32-bit length before a record, padded with nops to 4 bytes.
func boxed(body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	return cat(le32(uint32(len(body))), body)
}

// The CIE that gcc writes for x86-64: zR, pcrel|sdata4, CFA rsp+8, RA at -8.
func plainCIE() []byte {
	return boxed(cat(le32(0), []byte{1}, []byte("zR\x00"), uleb(1), sleb(-8), []byte{16}, uleb(1), []byte{0x1b},
		[]byte{0x0c, 7, 8, 0x80 | 16, 1}))
}

// section builds .eh_frame at an address.
type section struct {
	addr uint64
	b    []byte
	cie  uint64   // address of the CIE for the next FDEs
	fdes []uint64 // addresses
	at   []uint64 // their starts
}

func (s *section) here() uint64 { return s.addr + uint64(len(s.b)) }

func (s *section) addCIE(b []byte) uint64 {
	s.cie = s.here()
	s.b = append(s.b, b...)
	return s.cie
}

// addFDE adds an entry with pcrel|sdata4 pointers and sized augmentation data.
func (s *section) addFDE(start, size uint64, prog ...byte) {
	at := s.here()
	s.fdes, s.at = append(s.fdes, at), append(s.at, start)
	body := cat(le32(uint32(at+4-s.cie)), le32(uint32(start-(at+8))), le32(uint32(size)), []byte{0}, prog)
	s.b = append(s.b, boxed(body)...)
}

func (s *section) end() { s.b = append(s.b, 0, 0, 0, 0) }

// hdr builds .eh_frame_hdr at an address below 2 GiB from the section.
func (s *section) hdr(addr uint64) []byte {
	out := cat([]byte{1, 0x1b, 0x03, 0x3b}, le32(uint32(s.addr-(addr+4))), le32(uint32(len(s.fdes))))
	for i := range s.fdes {
		out = cat(out, le32(uint32(s.at[i]-addr)), le32(uint32(s.fdes[i]-addr)))
	}
	return out
}

// withHdr gives the table of the section with its header 0x10000 below it.
func (s *section) withHdr(t testing.TB) *Table {
	t.Helper()
	base := s.addr - 0x10000
	h := s.hdr(base)
	if len(h) > 0x10000 {
		t.Fatal("header too large for the gap")
	}
	b := make([]byte, 0x10000, 0x10000+len(s.b))
	copy(b, h)
	tab, err := New(image{base, append(b, s.b...)}, base, uint64(len(h)), target.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// rowOf runs a program in an FDE of 0x1000..0x1100 with the plain CIE.
func rowOf(t *testing.T, arch target.Arch, pc uint64, prog ...byte) (*Row, error) {
	t.Helper()
	s := &section{addr: 0x20000}
	s.addCIE(plainCIE())
	s.addFDE(0x1000, 0x100, prog...)
	s.end()
	tab, err := NewFromSection(image{s.addr, s.b}, s.addr, uint64(len(s.b)), arch)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tab.Find(pc)
	if err != nil {
		t.Fatal(err)
	}
	return f.Row(pc)
}
