package elfimage

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
)

// source is a file whose bytes follow from their offset.
type source struct {
	size  int64
	reads atomic.Int64
}

func byteAt(off int64) byte { return byte(off*7 + off>>13) }

func (s *source) ReadAt(p []byte, off int64) (int, error) {
	s.reads.Add(1)
	n := 0
	for n < len(p) && off+int64(n) < s.size {
		p[n] = byteAt(off + int64(n))
		n++
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestCache(t *testing.T) {
	t.Parallel()
	const size = 5*pageBytes + 100
	src := &source{size: size}
	c := newPageCache(src, size, 1<<20)
	for _, off := range []int64{0, 1, pageBytes - 1, pageBytes, 3*pageBytes - 7, size - 1, size - 50, size, size + 1, -1} {
		for _, n := range []int{0, 1, 16, pageBytes + 3, bypassBytes, size} {
			p := make([]byte, n)
			got, err := c.readAt(p, off)
			want := max(0, min(int64(n), size-off))
			if off < 0 {
				want = 0
			}
			if int64(got) != want {
				t.Errorf("%d bytes at %d: %d, %v; want %d", n, off, got, err, want)
			}
			if (err == nil) != (got == n && off >= 0 && off < size) {
				t.Errorf("%d bytes at %d: %d, error %v", n, off, got, err)
			}
			for i, b := range p[:got] {
				if b != byteAt(off+int64(i)) {
					t.Fatalf("%d bytes at %d: byte %d is %#x", n, off, i, b)
				}
			}
		}
	}
	before := src.reads.Load()
	for range 100 {
		if _, err := c.readAt(make([]byte, 8), 2*pageBytes+5); err != nil {
			t.Fatal(err)
		}
	}
	if n := src.reads.Load() - before; n != 0 {
		t.Errorf("%d reads of a page that is cached", n)
	}
}

// TestCacheBound walks over much more than the cache holds.
func TestCacheBound(t *testing.T) {
	t.Parallel()
	const size = 4096 * pageBytes
	src := &source{size: size}
	c := newPageCache(src, size, 1<<20)
	for no := range int64(4096) {
		if _, err := c.readAt(make([]byte, 1), no*pageBytes); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for i := range c.sets {
		for k := range c.sets[i].ways {
			kept += cap(c.sets[i].ways[k].data)
		}
	}
	if kept > 1<<20 || kept < 1<<19 {
		t.Errorf("%d bytes are kept, the limit is %d", kept, 1<<20)
	}
}

// A page that gives way leaves its memory to the next.
func TestCacheReusesMemory(t *testing.T) {
	const size = 300 * pageBytes
	c := newPageCache(&source{size: size}, size, 1<<20) // 64 pages
	var p [16]byte
	no := int64(0)
	next := func() {
		no = (no + 1) % 299
		if _, err := c.readAt(p[:], no*pageBytes+5); err != nil || p[0] != byteAt(no*pageBytes+5) {
			t.Fatalf("page %d: %x, %v", no, p, err)
		}
	}
	for range 600 {
		next()
	}
	if n := testing.AllocsPerRun(600, next); n != 0 {
		t.Errorf("%v allocations for each page", n)
	}
}

// shrinking is a file that ends earlier than it did when it was opened.
func TestCacheShrunk(t *testing.T) {
	t.Parallel()
	c := newPageCache(bytes.NewReader(make([]byte, 100)), 10*pageBytes, 0)
	p := make([]byte, 200)
	if n, err := c.readAt(p, 0); n != 100 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := c.readAt(make([]byte, bypassBytes), 0); n != 100 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("long read: %d bytes, %v", n, err)
	}
	if n, err := c.readAt(p, 5*pageBytes); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("behind the end: %d bytes, %v", n, err)
	}
}

func TestCacheConcurrent(t *testing.T) {
	t.Parallel()
	const size = 300 * pageBytes
	c := newPageCache(&source{size: size}, size, 1<<20) // 64 pages: misses all the time
	var wg sync.WaitGroup
	for g := range int64(8) {
		wg.Go(func() {
			var p [16]byte
			for i := range int64(3000) {
				off := (i*7919 + g*104729) % (size - 16)
				if _, err := c.readAt(p[:], off); err != nil || p[0] != byteAt(off) || p[15] != byteAt(off+15) {
					t.Errorf("at %d: %x, %v", off, p, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkCacheHit(b *testing.B) {
	const size = 8 * pageBytes
	c := newPageCache(&source{size: size}, size, 1<<20)
	var p [8]byte
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if _, err := c.readAt(p[:], off); err != nil {
			b.Fatal(err)
		}
		off = (off + 4099) % (size - 8)
	}
}
