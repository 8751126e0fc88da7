package realtest_test

import (
	"encoding/binary"
	"os"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
)

var le = binary.LittleEndian

// headRead is how much of a core is read to find headers and notes, which
// kernels write first: some hundred KiB.
const headRead = 4 << 20

// patch alters a core in place; what it wrote is undone when the test ends.
// Cores are copied for nothing: they are large.
type patch struct {
	*coretest.Edit // of headers and notes
	t              *testing.T
	f              *os.File
}

// patched alters the core until the test ends.
func patched(t *testing.T, core string, alter func(*patch)) {
	t.Helper()
	f, err := os.OpenFile(core, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	head := make([]byte, headRead)
	n, err := f.ReadAt(head, 0)
	if n < headRead && n < 64 {
		t.Fatalf("reading %s: %v", core, err)
	}
	e := &patch{coretest.NewEdit(t, head[:n]), t, f}
	end := e.HeadEnd()
	if end >= headRead {
		t.Fatalf("headers and notes of %s end at %#x", core, end)
	}
	alter(e)
	e.write(e.B[:end], 0)
}

// write replaces bytes of the file and puts the old ones back with the test.
func (e *patch) write(b []byte, off int64) {
	e.t.Helper()
	old := make([]byte, len(b))
	if _, err := e.f.ReadAt(old, off); err != nil {
		e.t.Fatal(err)
	}
	if _, err := e.f.WriteAt(b, off); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if _, err := e.f.WriteAt(old, off); err != nil {
			e.t.Errorf("undoing: %v", err)
		}
	})
}

// place is the file offset of memory, and how much of it follows.
func (e *patch) place(addr uint64) (off int64, n uint64) {
	e.t.Helper()
	for _, l := range e.Loads() {
		if addr >= l.Addr && addr-l.Addr < l.Filesz {
			return int64(l.Off + addr - l.Addr), l.Filesz - (addr - l.Addr)
		}
	}
	e.t.Fatalf("the core has no memory at %#x", addr)
	return 0, 0
}

// read gives up to n bytes of memory.
func (e *patch) read(addr uint64, n int) []byte {
	e.t.Helper()
	off, have := e.place(addr)
	b := make([]byte, min(uint64(n), have))
	if _, err := e.f.ReadAt(b, off); err != nil {
		e.t.Fatal(err)
	}
	return b
}

// putWord writes a word of memory.
func (e *patch) putWord(addr, v uint64) {
	e.t.Helper()
	off, _ := e.place(addr)
	e.write(le.AppendUint64(nil, v), off)
}

// atEntry is AT_ENTRY (uapi/linux/auxvec.h).
const atEntry = 9

// entryOf is the program's entry point by the core's own record.
func entryOf(t *testing.T, core string) uint64 {
	t.Helper()
	p, err := elfcore.Open(core, elfcore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	entry, ok := p.Auxv(atEntry)
	if !ok {
		t.Fatalf("%s has no AT_ENTRY", core)
	}
	return entry
}
