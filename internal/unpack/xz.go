package unpack

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The container around LZMA2 is read here, not by the xz package, because its
// reader allocates whatever dictionary a block header asks for (up to 4 GiB,
// anew for every block), and a header comes from whoever sent the core.
// Section numbers are those of xz-file-format.txt 1.0.4.

const (
	xzHeaderSize = 12   // 2.1.1 stream header; the footer has the same size
	xzFilterLZMA = 0x21 // 5.3.1 filter id of LZMA2
	xzMaxVLI     = 9    // 1.2: bytes of a variable-length integer

	// xzDictFree and xzDictPerByte bound the sum of all dictionaries: each
	// block gets a new one, and a file of tiny blocks that ask for 128 MiB
	// each would do nothing but clear memory. Real blocks are a multiple of
	// their dictionary, or as small as the user made them.
	xzDictFree    = 2 << 30
	xzDictPerByte = 64
)

var (
	errXZFormat   = errors.New("xz: damaged data")
	errXZChecksum = errors.New("xz: wrong checksum")
	xzFooterMagic = []byte("YZ")
	crc64ECMA     = crc64.MakeTable(crc64.ECMA)
)

// xzReader decodes concatenated xz streams with padding between them.
type xzReader struct {
	in   *position
	err  error
	dict int64 // dictionary bytes allocated so far
	out  int64 // bytes produced so far

	flags  [2]byte // stream flags, to be repeated by the footer
	check  func() hash.Hash
	blocks xzIndex // of the current stream

	block *xzBlock
	start bool // a stream header comes next
	any   bool // a stream was complete
}

// xzBlock is the block being decoded.
type xzBlock struct {
	begin        int64 // input position of its header
	data         int64 // input position of its LZMA2 data
	packed       int64 // size of that data as the header says, -1 unknown
	unpacked     int64
	produced     int64
	lzma2        *lzma.Reader2
	sum          hash.Hash
	sumOf        io.Reader
	headerLength int64
}

// xzIndex sums up the blocks of a stream so that its index can be compared
// without keeping a record per block.
type xzIndex struct {
	count  uint64
	digest hash.Hash64
}

func (x *xzIndex) add(unpadded, unpacked uint64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], unpadded)
	binary.LittleEndian.PutUint64(b[8:], unpacked)
	x.digest.Write(b[:])
	x.count++
}

func newXZIndex() xzIndex { return xzIndex{digest: crc64.New(crc64ECMA)} }

// position is a byte reader that knows how far it is.
type position struct {
	r *bufio.Reader
	n int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	return n, err
}

func (p *position) ReadByte() (byte, error) {
	c, err := p.r.ReadByte()
	if err == nil {
		p.n++
	}
	return c, err
}

// full reads exactly len(b) bytes; an end of input is never regular here.
func (p *position) full(b []byte) error {
	_, err := io.ReadFull(p, b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func newXZReader(r *bufio.Reader) *xzReader {
	return &xzReader{in: &position{r: r}, start: true}
}

// Read decodes the next bytes; io.EOF comes only where the format ends.
func (x *xzReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.sumOf.Read(p)
		x.block.produced += int64(n)
		x.out += int64(n)
		switch {
		case err == io.EOF:
			x.err = x.endBlock()
		case err != nil:
			x.err = err
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next reads what stands before the next block: a stream header, a block
// header, or the index and footer of a stream that is complete.
func (x *xzReader) next() error {
	if x.start {
		if err := x.streamHeader(); err != nil {
			return err
		}
		x.start = false
	}
	size, err := x.in.ReadByte()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if size != 0 {
		return x.blockHeader(size)
	}
	if err := x.index(); err != nil {
		return err
	}
	x.start, x.any = true, true
	return nil
}

// streamHeader reads 2.1.1, after padding (2.2) when a stream came before.
func (x *xzReader) streamHeader() error {
	var b [xzHeaderSize]byte
	for {
		n, err := io.ReadFull(x.in, b[:4])
		if n == 0 && err == io.EOF && x.any {
			return io.EOF
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if !x.any || b[0] != 0 || b[1] != 0 || b[2] != 0 || b[3] != 0 {
			break
		}
	}
	if err := x.in.full(b[4:]); err != nil {
		return err
	}
	if !bytes.Equal(b[:6], xzMagic) {
		return fmt.Errorf("%w: stream magic", errXZFormat)
	}
	if crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return fmt.Errorf("%w of the stream header", errXZChecksum)
	}
	x.flags = [2]byte{b[6], b[7]}
	x.blocks = newXZIndex()
	return x.setCheck()
}

// setCheck chooses the block check of 2.1.1.2.
func (x *xzReader) setCheck() error {
	if x.flags[0] != 0 || x.flags[1]&0xf0 != 0 {
		return fmt.Errorf("%w: stream flags %#x %#x", errXZFormat, x.flags[0], x.flags[1])
	}
	switch x.flags[1] {
	case 0x00:
		x.check = func() hash.Hash { return nil }
	case 0x01:
		x.check = func() hash.Hash { return crc32.NewIEEE() }
	case 0x04:
		x.check = func() hash.Hash { return crc64.New(crc64ECMA) }
	case 0x0a:
		x.check = sha256.New
	default:
		return fmt.Errorf("%w: unknown check type %d", errXZFormat, x.flags[1])
	}
	return nil
}

// blockHeader reads 3.1 and makes the decoder for the block. size is the
// first byte, which is in units of four bytes.
func (x *xzReader) blockHeader(size byte) error {
	begin := x.in.n - 1
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if err := x.in.full(h[1:]); err != nil {
		return err
	}
	body, sum := h[:len(h)-4], h[len(h)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return fmt.Errorf("%w of a block header", errXZChecksum)
	}
	b := &xzBlock{begin: begin, data: x.in.n, headerLength: int64(len(h)), sum: x.check()}
	dict, err := b.parse(body)
	if err != nil {
		return err
	}
	if err := x.makeDecoder(b, dict); err != nil {
		return err
	}
	x.block = b
	return nil
}

// parse takes the fields of a block header and returns the dictionary size.
func (b *xzBlock) parse(h []byte) (dict int64, err error) {
	flags, r := h[1], bytes.NewReader(h[2:])
	if flags&0x3c != 0 {
		return 0, fmt.Errorf("%w: block flags %#x", errXZFormat, flags)
	}
	if flags&0x03 != 0 {
		return 0, fmt.Errorf("xz: filters other than LZMA2 are not supported")
	}
	if b.packed, err = optionalVLI(r, flags&0x40 != 0); err != nil {
		return 0, err
	}
	if b.unpacked, err = optionalVLI(r, flags&0x80 != 0); err != nil {
		return 0, err
	}
	id, err := readVLI(r)
	if err != nil {
		return 0, err
	}
	n, err := readVLI(r)
	if err != nil {
		return 0, err
	}
	if id != xzFilterLZMA || n != 1 {
		return 0, fmt.Errorf("xz: filter %#x is not supported", id)
	}
	prop, err := r.ReadByte()
	if err != nil {
		return 0, fmt.Errorf("%w: block header too short", errXZFormat)
	}
	return lzma.DecodeDictCap(prop)
}

// makeDecoder allocates the dictionary, after looking at what it would cost.
// A dictionary larger than the block is of no use.
func (x *xzReader) makeDecoder(b *xzBlock, dict int64) error {
	if b.unpacked >= 0 {
		dict = min(dict, b.unpacked)
	}
	dict = max(dict, lzma.MinDictCap)
	if dict > maxWindow {
		return fmt.Errorf("xz: dictionary of %d bytes exceeds the limit of %d", dict, int64(maxWindow))
	}
	x.dict += dict
	if x.dict > xzDictFree+xzDictPerByte*x.out {
		return fmt.Errorf("%w: dictionaries of %d bytes for %d bytes of data", errXZFormat, x.dict, x.out)
	}
	r, err := lzma.Reader2Config{DictCap: int(dict)}.NewReader2(x.in)
	if err != nil {
		return err
	}
	b.lzma2, b.sumOf = r, r
	if b.sum != nil {
		b.sumOf = io.TeeReader(r, b.sum)
	}
	return nil
}

// endBlock compares sizes, padding and check of the block that ended.
func (x *xzReader) endBlock() error {
	b := x.block
	x.block = nil
	packed := x.in.n - b.data
	if (b.packed >= 0 && b.packed != packed) || (b.unpacked >= 0 && b.unpacked != b.produced) {
		return fmt.Errorf("%w: block sizes differ from their header", errXZFormat)
	}
	var tail [3 + sha256.Size]byte
	pad, check := int(-packed&3), 0
	if b.sum != nil {
		check = b.sum.Size()
	}
	if err := x.in.full(tail[:pad+check]); err != nil {
		return err
	}
	for _, c := range tail[:pad] {
		if c != 0 {
			return fmt.Errorf("%w: block padding", errXZFormat)
		}
	}
	if b.sum != nil && !bytes.Equal(storedSum(b.sum), tail[pad:pad+check]) {
		return fmt.Errorf("%w of a block", errXZChecksum)
	}
	x.blocks.add(uint64(b.headerLength+packed)+uint64(check), uint64(b.produced))
	return nil
}

// storedSum gives a check as the file stores it: CRCs little-endian, which is
// the reverse of Sum's order, SHA-256 as it is (3.4).
func storedSum(h hash.Hash) []byte {
	switch s := h.(type) {
	case hash.Hash64:
		return binary.LittleEndian.AppendUint64(nil, s.Sum64())
	case hash.Hash32:
		return binary.LittleEndian.AppendUint32(nil, s.Sum32())
	}
	return h.Sum(nil)
}

// index reads the index (4) after its indicator byte, and the footer (2.1.2).
func (x *xzReader) index() error {
	begin := x.in.n - 1
	sum := crc32.NewIEEE()
	sum.Write([]byte{0})
	r := &hashedBytes{r: x.in, h: sum}
	count, err := readVLI(r)
	if err != nil {
		return err
	}
	if count != x.blocks.count {
		return fmt.Errorf("%w: index of %d blocks after %d", errXZFormat, count, x.blocks.count)
	}
	seen := newXZIndex()
	for range count {
		unpadded, err := readVLI(r)
		if err != nil {
			return err
		}
		unpacked, err := readVLI(r)
		if err != nil {
			return err
		}
		seen.add(unpadded, unpacked)
	}
	for (x.in.n-begin)&3 != 0 {
		if c, err := r.ReadByte(); err != nil || c != 0 {
			return errors.Join(err, fmt.Errorf("%w: index padding", errXZFormat))
		}
	}
	var stored [4]byte
	if err := x.in.full(stored[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(stored[:]) != sum.Sum32() {
		return fmt.Errorf("%w of the index", errXZChecksum)
	}
	if seen.digest.Sum64() != x.blocks.digest.Sum64() {
		return fmt.Errorf("%w: the index names other block sizes", errXZFormat)
	}
	return x.footer(x.in.n - begin)
}

// footer reads 2.1.2; size is that of the index.
func (x *xzReader) footer(size int64) error {
	var b [xzHeaderSize]byte
	if err := x.in.full(b[:]); err != nil {
		return err
	}
	if !bytes.Equal(b[10:], xzFooterMagic) || b[8] != x.flags[0] || b[9] != x.flags[1] {
		return fmt.Errorf("%w: stream footer", errXZFormat)
	}
	if crc32.ChecksumIEEE(b[4:10]) != binary.LittleEndian.Uint32(b[:]) {
		return fmt.Errorf("%w of the stream footer", errXZChecksum)
	}
	if (int64(binary.LittleEndian.Uint32(b[4:]))+1)*4 != size {
		return fmt.Errorf("%w: index size in the footer", errXZFormat)
	}
	return nil
}

// hashedBytes feeds each byte read to a checksum.
type hashedBytes struct {
	r io.ByteReader
	h hash.Hash32
	b [1]byte
}

func (s *hashedBytes) ReadByte() (byte, error) {
	c, err := s.r.ReadByte()
	if err == nil {
		s.b[0] = c
		s.h.Write(s.b[:])
	}
	return c, err
}

// readVLI reads a variable-length integer of 1.2, at most 63 bits.
func readVLI(r io.ByteReader) (uint64, error) {
	var v uint64
	for i := range xzMaxVLI {
		c, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return 0, io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c&0x80 == 0 {
			if c == 0 && i > 0 {
				return 0, fmt.Errorf("%w: padded integer", errXZFormat)
			}
			return v, nil
		}
	}
	return 0, fmt.Errorf("%w: integer too long", errXZFormat)
}

// optionalVLI reads an integer that may be absent; absent is -1.
func optionalVLI(r io.ByteReader, present bool) (int64, error) {
	if !present {
		return -1, nil
	}
	v, err := readVLI(r)
	return int64(v), err
}

// DecodeXZ unpacks xz data held in memory, such as .gnu_debugdata, into at
// most max bytes; more is ErrTooLarge, damage an error, and then nothing is
// returned.
func DecodeXZ(data []byte, max int) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("xz decoder: %v", p)
		}
	}()
	r := newXZReader(bufio.NewReader(bytes.NewReader(data)))
	var buf bytes.Buffer
	n, err := buf.ReadFrom(io.LimitReader(r, int64(max)+1))
	if err != nil {
		return nil, cutShort(err)
	}
	if n > int64(max) {
		return nil, fmt.Errorf("%w of %d bytes", ErrTooLarge, max)
	}
	return buf.Bytes(), nil
}
