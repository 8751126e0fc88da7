package unpack

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// maxWindow bounds the memory that a decoder takes because a header says so.
// zstd --ultra -22 and --long=27 use 128 MiB, xz -9 uses 64 MiB; larger
// windows exist (zstd --long=31) but would break the memory budget.
const maxWindow = 128 << 20

// readBuffer is the size of reads from the compressed file.
const readBuffer = 256 << 10

// decoder is one of the decompressors behind a guard: it remembers how the
// stream ended, and a panic of the library is an error of the input.
type decoder struct {
	r     io.Reader
	close func()
	atEnd bool // the stream ended where its format says that it ends
	err   error
}

// newDecoder starts decoding src, which is at its start.
func newDecoder(format Format, src io.Reader) (d *decoder, err error) {
	defer func() {
		if p := recover(); p != nil {
			d, err = nil, fmt.Errorf("%s decoder: %v", format, p)
		}
	}()
	in := bufio.NewReaderSize(src, readBuffer)
	d = &decoder{close: func() {}}
	switch format {
	case Gzip:
		d.r, err = gzip.NewReader(in)
	case XZ:
		d.r = newXZReader(in)
	case LZ4:
		d.r = newLZ4Reader(in)
	case Zstd:
		var z *zstd.Decoder
		// One goroutine: it keeps memory at one window, and the guard's
		// recover doesn't reach others.
		z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
		if err == nil {
			d.r, d.close = z, z.Close
		}
	default:
		err = fmt.Errorf("%q: %w", format, ErrNotCompressed)
	}
	if err != nil {
		return nil, cutShort(err)
	}
	return d, nil
}

// Read decodes the next bytes.
func (d *decoder) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, fmt.Errorf("decoder: %v", r)
			d.err = err
		}
	}()
	n, err = d.r.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		d.atEnd = true
	case err != nil:
		d.err = err
	}
	return n, err
}

// Close frees the decoder's memory.
func (d *decoder) Close() { d.close() }

// reason says why the stream ended early. An I/O error of the input comes
// before what the decoder made of it.
func (d *decoder) reason(src *counter) error {
	if src.err != nil {
		return fmt.Errorf("after %d compressed bytes: %w", src.n, src.err)
	}
	return fmt.Errorf("after %d compressed bytes: %w", src.n, cutShort(d.err))
}

// cutShort names an end of input in the middle of a stream the way that users
// know it.
func cutShort(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("compressed data ends early: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// newLZ4Reader decodes frames one after the other, in this goroutine: blocks
// are at most 4 MiB (legacy frames 8 MiB), which bounds the memory.
func newLZ4Reader(in io.Reader) io.Reader {
	r := lz4.NewReader(in)
	_ = r.Apply(lz4.ConcurrencyOption(1)) // cannot fail before the first read
	return r
}
