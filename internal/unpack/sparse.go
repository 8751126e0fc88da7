package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// pageSize is the granularity of holes: the block size of the usual file
// systems and the page size that cores consist of.
const pageSize = 4096

var zeroPage [pageSize]byte

// sparseWriter appends to a file and leaves pages of zeros out.
type sparseWriter struct {
	f      *os.File
	space  *spaceGuard
	off    int64 // logical size so far; a multiple of pageSize except after the last write
	stored int64 // bytes written to disk
}

// write appends p, whose length is a multiple of pageSize except at the end
// of the data. Runs of pages that hold something go out in one write each.
func (w *sparseWriter) write(p []byte) error {
	for len(p) > 0 {
		zeros := runOf(p, true)
		w.off += int64(zeros)
		p = p[zeros:]
		data := runOf(p, false)
		if data == 0 {
			continue
		}
		if err := w.space.take(int64(data)); err != nil {
			return err
		}
		if _, err := w.f.WriteAt(p[:data], w.off); err != nil {
			return diskError(err)
		}
		w.off += int64(data)
		w.stored += int64(data)
		p = p[data:]
	}
	return nil
}

// finish sets the file's size: the last pages may be holes.
func (w *sparseWriter) finish() error {
	if err := w.f.Truncate(w.off); err != nil {
		return diskError(err)
	}
	return nil
}

// runOf returns the length of the run of pages at the start of p that are all
// zero (or all not entirely zero). The last page may be a short one.
func runOf(p []byte, zero bool) int {
	n := 0
	for n < len(p) {
		page := p[n:min(n+pageSize, len(p))]
		if bytes.Equal(page, zeroPage[:len(page)]) != zero {
			break
		}
		n += len(page)
	}
	return n
}

// diskError marks a full disk as such, whatever the guard believed.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// spaceCheckEvery is how many bytes are written between two looks at the free
// space: others write to the same disk meanwhile.
const spaceCheckEvery = 64 << 20

// spaceGuard keeps the reserve of the file system free.
type spaceGuard struct {
	free    func() (int64, bool) // bytes free for us; false when unknown
	reserve int64                // negative: no check
	credit  int64                // bytes that may be written before the next look
}

func newSpaceGuard(f *os.File, reserve int64) *spaceGuard {
	if reserve == 0 {
		reserve = DefaultReserve
	}
	return &spaceGuard{free: func() (int64, bool) { return freeSpace(f) }, reserve: reserve}
}

// take asks for n bytes of disk.
func (g *spaceGuard) take(n int64) error {
	if g.reserve < 0 {
		return nil
	}
	if g.credit < n {
		free, ok := g.free()
		if !ok {
			g.reserve = -1 // the write itself will say when the disk is full
			return nil
		}
		if free-g.reserve < n {
			return fmt.Errorf("%w: %d bytes free, of which %d stay reserved", ErrNoSpace, free, g.reserve)
		}
		g.credit = min(free-g.reserve, spaceCheckEvery)
	}
	g.credit -= n
	return nil
}
