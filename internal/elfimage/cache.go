package elfimage

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
)

const (
	// pageBytes is the unit of reading. A stack walk touches one or two spots
	// per thread and a symbol lookup a handful per module: pages larger than
	// this copy bytes that nobody asks for, smaller ones cost more system calls.
	pageBytes = 16 << 10
	// cacheWays is the associativity: pages that meet in one set.
	cacheWays = 4
	// bypassBytes: a read this long goes straight to the file; it would push
	// everything else out of the cache and gains nothing from it.
	bypassBytes = 4 * pageBytes
	// DefaultCacheBytes bounds the cache of a binary or debug file. Thirty
	// modules of a server stay at a third of the memory budget.
	DefaultCacheBytes = 1 << 20
)

// page is a piece of the file; without data it is a free place.
type page struct {
	no   int64
	data []byte // pageBytes, fewer at the end of the file
}

// cacheSet is a few pages behind one lock. Copying out of a page takes less
// time than anybody would wait for.
type cacheSet struct {
	mu   sync.Mutex
	ways [cacheWays]page
	next int // way to replace next
}

// pageCache reads a file in pages and keeps a bounded number of them. The
// memory of a page that gives way is used for the next one, so that reading
// all stacks of a process costs no more memory than the cache has. It is safe
// for concurrent use.
type pageCache struct {
	r     io.ReaderAt
	size  int64
	shift uint
	sets  []cacheSet
}

// newPageCache makes a cache of about limit bytes, at least one set.
func newPageCache(r io.ReaderAt, size int64, limit int) *pageCache {
	if limit <= 0 {
		limit = DefaultCacheBytes
	}
	sets := max(1, limit/(pageBytes*cacheWays))
	log := bits.Len(uint(sets)) - 1
	return &pageCache{r: r, size: size, shift: uint(64 - log), sets: make([]cacheSet, 1<<log)}
}

// readAt is io.ReaderAt: short reads come with an error, io.EOF at the end of
// the file.
func (c *pageCache) readAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at negative offset %d", off)
	}
	if off >= c.size {
		return 0, io.EOF
	}
	var short error
	if int64(len(p)) > c.size-off {
		p = p[:c.size-off]
		short = io.EOF
	}
	if len(p) >= bypassBytes {
		n, err := c.r.ReadAt(p, off)
		if n < len(p) {
			return n, shrunk(err, off+int64(n))
		}
		return n, short
	}
	n := 0
	for n < len(p) {
		pos := off + int64(n)
		k, err := c.copyPage(p[n:], pos/pageBytes, int(pos%pageBytes))
		if k == 0 {
			return n, shrunk(err, pos)
		}
		n += k
	}
	return n, short
}

// shrunk explains a read that ended inside the size the file had when opened.
func shrunk(err error, off int64) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading at offset %#x: %w", off, err)
}

// copyPage fills p from byte in of a page on, to the page's end. No byte comes
// only where the file has become shorter or can't be read.
func (c *pageCache) copyPage(p []byte, no int64, in int) (int, error) {
	set := &c.sets[0]
	if len(c.sets) > 1 {
		// Fibonacci hashing: neighbours and power-of-two strides both spread.
		set = &c.sets[uint64(no)*0x9e3779b97f4a7c15>>c.shift]
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	for i := range set.ways {
		if pg := &set.ways[i]; pg.no == no && in < len(pg.data) {
			return copy(p, pg.data[in:]), nil
		}
	}
	pg := &set.ways[set.next]
	off := no * pageBytes
	size := int(min(pageBytes, c.size-off))
	buf := pg.data[:0]
	if cap(buf) < size {
		buf = make([]byte, 0, size)
	}
	pg.data = buf // free, until it is complete
	n, err := c.r.ReadAt(buf[:size], off)
	if n < size { // shrunk: served, not kept
		if err != nil && err != io.EOF {
			return 0, err
		}
		return copy(p, buf[min(in, n):n]), nil
	}
	pg.no, pg.data = no, buf[:size]
	set.next = (set.next + 1) % cacheWays
	return copy(p, pg.data[in:]), nil
}
