package unpack

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Magic numbers, first bytes of the file.
var (
	gzipMagic = []byte{0x1f, 0x8b, 0x08}                        // RFC 1952, 2.3.1: ID1, ID2, CM = deflate
	xzMagic   = []byte{0xfd, '7', 'z', 'X', 'Z', 0x00}          // xz-file-format.txt 1.0.4, 2.1.1.1
	zstdMagic = uint32(0xfd2fb528)                              // RFC 8878, 3.1.1
	lz4Magic  = []uint32{0x184d2204, 0x184c2102}                // lz4_Frame_format.md 1.6.4: frame, legacy frame
	skipMagic = struct{ lo, hi uint32 }{0x184d2a50, 0x184d2a5f} // skippable frames of zstd and lz4 alike
)

// maxSkippable bounds how many skippable frames Detect passes before it gives
// up: pzstd writes one, seekable writers a few.
const maxSkippable = 16

// Detect looks at the magic of r. Skippable frames, which zstd and lz4 share,
// are passed until a frame tells which of the two it is.
func Detect(r io.ReaderAt) (Format, bool) {
	var b [8]byte
	off := int64(0)
	for range maxSkippable {
		n, _ := r.ReadAt(b[:], off)
		if n < 4 {
			return "", false
		}
		if off == 0 && bytes.HasPrefix(b[:n], gzipMagic) {
			return Gzip, true
		}
		if off == 0 && bytes.HasPrefix(b[:n], xzMagic) {
			return XZ, true
		}
		switch m := binary.LittleEndian.Uint32(b[:4]); {
		case m == zstdMagic:
			return Zstd, true
		case m == lz4Magic[0] || m == lz4Magic[1]:
			return LZ4, true
		case m >= skipMagic.lo && m <= skipMagic.hi && n == 8:
			off += 8 + int64(binary.LittleEndian.Uint32(b[4:]))
		default:
			return "", false
		}
	}
	return "", false
}
