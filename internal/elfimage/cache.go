package elfimage

import (
	"fmt"
	"io"
	"math/bits"
	"sync/atomic"
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

// page is immutable once it is in the cache.
type page struct {
	no   int64
	data []byte // pageBytes, fewer at the end of the file
}

type cacheSet struct {
	ways [cacheWays]atomic.Pointer[page]
	next atomic.Uint32 // way to replace next
}

// pageCache reads a file in pages and keeps a bounded number of them. It takes
// no locks: a hit is an atomic load, and two readers that miss the same page at
// once read it twice.
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
		pg, err := c.get(pos / pageBytes)
		in := int(pos % pageBytes)
		if err != nil || in >= len(pg.data) {
			return n, shrunk(err, pos)
		}
		n += copy(p[n:], pg.data[in:])
	}
	return n, short
}

// shrunk explains a read that ended inside the size the file had when opened.
func shrunk(err error, off int64) error {
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading at offset %#x: %w", off, err)
}

func (c *pageCache) get(no int64) (*page, error) {
	set := &c.sets[0]
	if len(c.sets) > 1 {
		// Fibonacci hashing: neighbours and power-of-two strides both spread.
		set = &c.sets[uint64(no)*0x9e3779b97f4a7c15>>c.shift]
	}
	for i := range set.ways {
		if pg := set.ways[i].Load(); pg != nil && pg.no == no {
			return pg, nil
		}
	}
	off := no * pageBytes
	buf := make([]byte, min(pageBytes, c.size-off))
	n, err := c.r.ReadAt(buf, off)
	if n < len(buf) {
		if err == nil || err == io.EOF {
			return &page{no: no, data: buf[:n]}, nil // shrunk: served, not kept
		}
		return nil, err
	}
	pg := &page{no: no, data: buf}
	set.ways[set.next.Add(1)%cacheWays].Store(pg)
	return pg, nil
}
