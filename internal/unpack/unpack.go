// Package unpack makes a compressed core readable at random offsets: it
// streams gzip, zstd, xz or lz4 data into a sparse temporary file, under
// limits of size and disk space.
//
// It knows nothing of cores or ELF: what comes out is bytes with a size. The
// temporary file has no name any more by the time the first byte is written
// (where the system allows that), so not even a crash leaves it behind.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Format is a compression format that Open understands.
type Format string

// The formats, named as their command-line tools are.
const (
	Gzip Format = "gzip"
	Zstd Format = "zstd"
	XZ   Format = "xz"
	LZ4  Format = "lz4"
)

const (
	// DefaultMaxBytes bounds the unpacked size. It is logical size: the zeros
	// of a sparse core cost no disk, so it may exceed any real disk. 512 GiB
	// is twice the memory of the largest servers that we were told of.
	DefaultMaxBytes = 512 << 30

	// DefaultReserve is the free disk space that unpacking leaves alone, so
	// that a server on the same machine doesn't find its disk full.
	DefaultReserve = 1 << 30
)

var (
	// ErrNotCompressed says that the file starts with no known compression magic.
	ErrNotCompressed = errors.New("not a compressed file")
	// ErrTooLarge says that the unpacked size exceeds Options.MaxBytes.
	ErrTooLarge = errors.New("unpacked size exceeds the limit")
	// ErrNoSpace says that unpacking would take disk space below Options.Reserve.
	ErrNoSpace = errors.New("not enough disk space to unpack")
	// ErrNotRegular says that the path names a directory, FIFO, device or socket.
	ErrNotRegular = errors.New("not a regular file")
)

// Options steers Open; the zero value is useful.
type Options struct {
	// TempDir holds the temporary file. Empty: $TMPDIR if set, else /var/tmp
	// (on disk, where /tmp often is memory), else the system's default.
	TempDir string
	// MaxBytes bounds the unpacked, logical size; 0 means DefaultMaxBytes.
	MaxBytes int64
	// Reserve is the disk space in bytes to leave free; 0 means
	// DefaultReserve, a negative value means no check.
	Reserve int64
	// Progress, when set, is called now and then from Open's goroutine with
	// the stage "unpack" and the compressed bytes consumed of their total.
	Progress func(stage string, done, total int64)
}

// File is an unpacked file. It is safe for concurrent reads; the temporary
// file is gone after Close.
type File struct {
	// Format is what the input was compressed with.
	Format Format
	// Truncated says that the input ended early or was damaged: what lies
	// before that point is there, Reason says what happened. The size of the
	// whole is unknown then.
	Truncated bool
	Reason    error
	// Packed is the size of the compressed input in bytes; Stored is how many
	// bytes of the result were written to disk, the rest being holes.
	Packed, Stored int64

	f      *os.File
	size   int64
	remove string // path to remove on Close where unlinking an open file isn't possible
}

// ReadAt reads unpacked bytes at off, as io.ReaderAt demands.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

// Size is the unpacked size in bytes.
func (f *File) Size() int64 { return f.size }

// Close frees the temporary file's space.
func (f *File) Close() error {
	err := f.f.Close()
	if f.remove != "" {
		err = errors.Join(err, os.Remove(f.remove))
	}
	return err
}

// Open unpacks the file at path. ErrNotCompressed says that it starts with no
// known magic. Damaged or cut input yields what could be unpacked, with
// Truncated set; input that yields nothing, a limit, a full disk and a
// cancelled context are errors.
func Open(ctx context.Context, path string, opts Options) (*File, error) {
	in, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	format, ok := Detect(in)
	if !ok {
		return nil, fmt.Errorf("%q: %w", path, ErrNotCompressed)
	}
	tmp, remove, err := tempFile(opts.TempDir)
	if err != nil {
		return nil, fmt.Errorf("unpacking %q: %w", path, err)
	}
	f := &File{Format: format, Packed: size, f: tmp, remove: remove}
	if err := f.fill(ctx, in, opts); err != nil {
		_ = f.Close() // the error that matters is the one that ended the unpacking
		return nil, fmt.Errorf("unpacking %q (%s): %w", path, format, err)
	}
	return f, nil
}

// fill streams the whole input into the temporary file.
func (f *File) fill(ctx context.Context, in io.Reader, opts Options) error {
	max := opts.MaxBytes
	if max <= 0 {
		max = DefaultMaxBytes
	}
	src := &counter{r: in}
	dst := &sparseWriter{f: f.f, space: newSpaceGuard(f.f, opts.Reserve)}
	err := f.stream(ctx, src, dst, max, opts.Progress)
	if err != nil {
		return err
	}
	if err := dst.finish(); err != nil {
		return err
	}
	f.size, f.Stored = dst.off, dst.stored
	if f.Truncated && f.size == 0 {
		return fmt.Errorf("nothing could be unpacked: %w", f.Reason)
	}
	return nil
}

// chunkSize is how much is decoded between two looks at the context: large
// enough that the calls don't count, small enough to stay in cache.
const chunkSize = 1 << 20

// stream copies decoded chunks to dst. A decoding error ends the copy with
// Truncated set; only limits, the disk and the context are errors.
func (f *File) stream(ctx context.Context, src *counter, dst *sparseWriter, max int64, progress func(string, int64, int64)) error {
	dec, err := newDecoder(f.Format, src)
	if err != nil {
		f.Truncated, f.Reason = true, err
		return nil
	}
	defer dec.Close()
	report := reporter(progress, f.Packed)
	buf := make([]byte, chunkSize)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(dec, buf)
		if int64(n) > max-dst.off {
			return fmt.Errorf("%w of %d bytes", ErrTooLarge, max)
		}
		if werr := dst.write(buf[:n]); werr != nil {
			return werr
		}
		report(src.n)
		switch {
		case err == nil:
		case dec.atEnd:
			return nil
		default:
			f.Truncated, f.Reason = true, dec.reason(src)
			return nil
		}
	}
}

// reporter wraps a progress callback so that it is called only when the
// consumed count moved; a nil callback is fine.
func reporter(progress func(string, int64, int64), total int64) func(done int64) {
	if progress == nil {
		return func(int64) {}
	}
	last := int64(-1)
	return func(done int64) {
		if done != last {
			last = done
			progress("unpack", done, total)
		}
	}
}

// counter counts the compressed bytes that the decoder took.
type counter struct {
	r   io.Reader
	n   int64
	err error // an I/O error of the input itself, not of its format
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// openRegular opens a regular file and nothing else: opening a FIFO would
// wait for a writer, opening a device can have effects. The mode is looked at
// before the open and again after it, in case the path changed in between.
func openRegular(path string) (*os.File, int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%q: %w", path, ErrNotRegular)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err = f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%q: %w", path, ErrNotRegular)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// tempFile makes the temporary file and takes its name away. Where a system
// refuses to unlink an open file, remove is its path, for Close.
func tempFile(dir string) (f *os.File, remove string, err error) {
	for _, d := range tempDirs(dir) {
		f, err = os.CreateTemp(d, "mycore-unpack-*")
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, "", err
	}
	if os.Remove(f.Name()) != nil {
		remove = f.Name()
	}
	return f, remove, nil
}

// tempDirs lists where the temporary file may go, best first. What the user
// names is the only choice.
func tempDirs(dir string) []string {
	if dir != "" {
		return []string{dir}
	}
	if d := os.Getenv("TMPDIR"); d != "" {
		return []string{d}
	}
	return []string{"/var/tmp", os.TempDir()}
}
