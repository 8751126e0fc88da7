package elfcore

import (
	"errors"
	"io"

	"mycore/internal/target"
)

// Backing gives the bytes of files that were mapped and aren't in the core.
// Implementations are safe for concurrent use. ReadFile fills buf from byte
// fileOff of the file of m; n < len(buf) without an error says that the file
// ends there. It returns target.ErrFileMissing when the file, with the right
// build ID, isn't at hand.
type Backing interface {
	ReadFile(m *Mapping, fileOff uint64, buf []byte) (n int, err error)
}

// WithBacking returns a view of the same process whose memory takes
// file-backed bytes that the core lacks from b. The two views share everything
// else, Close included.
func (p *Process) WithBacking(b Backing) *Process {
	return &Process{core: p.core, backing: b, trace: p.trace}
}

// WithTrace returns a view of the same process that calls f with each range
// that was read, after reading it: how the memory that an analysis needs is
// found. f must be safe for concurrent use.
func (p *Process) WithTrace(f func(addr target.Addr, n int)) *Process {
	return &Process{core: p.core, backing: p.backing, trace: f}
}

// ReadMemory implements target.Memory: the core's bytes first, then those of
// the mapped file, then a *target.ReadError with one of the four reasons.
func (p *Process) ReadMemory(addr target.Addr, b []byte) (n int, err error) {
	if p.trace != nil {
		defer func() { p.trace(addr, n) }()
	}
	for n < len(b) {
		at := addr + target.Addr(n)
		if at < addr { // wrapped around the end of the address space
			return n, &target.ReadError{Addr: at, Len: len(b) - n, Err: target.ErrNotMapped}
		}
		m := p.find(at)
		if m == nil {
			return n, &target.ReadError{Addr: at, Len: len(b) - n, Err: target.ErrNotMapped}
		}
		in := uint64(at - m.Start)
		room := min(uint64(len(b)-n), m.Size()-in)
		var got int
		var err error
		if in < m.Present {
			room = min(room, m.Present-in)
			got, err = p.readCore(m.coreOff+in, b[n:n+int(room)])
		} else {
			got, err = p.readFile(m, in, b[n:n+int(room)])
		}
		n += got
		if err != nil {
			return n, &target.ReadError{Addr: addr + target.Addr(n), Len: len(b) - n, File: m.Path, Err: err}
		}
	}
	return n, nil
}

// readCore reads all of b from the core file or says why not.
func (p *Process) readCore(off uint64, b []byte) (int, error) {
	n, err := p.file.ReadAt(b, int64(off))
	if n == len(b) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = target.ErrTruncated // the file shrank since it was opened
	}
	return n, err
}

// readFile reads bytes of a mapping that the core file doesn't have, from the
// mapped file where that is right. At least one byte comes without an error.
func (p *Process) readFile(m *Mapping, in uint64, b []byte) (int, error) {
	if w := p.whereNotInCore(m, in); w != InFile && w != Truncated {
		return 0, w.Err()
	} else if w == Truncated && (m.Path == "" || m.Writable()) {
		return 0, target.ErrTruncated
	}
	if limit := m.Dumped; in < limit { // the truncated part ends where NT_FILE's part begins
		b = b[:min(uint64(len(b)), limit-in)]
	}
	err := target.ErrFileMissing
	n := 0
	if p.backing != nil {
		n, err = p.backing.ReadFile(m, m.FileOff+in, b)
		if err == nil && n == 0 {
			err = target.ErrNotDumped // the mapping is longer than its file
		}
		if n > 0 {
			return n, nil // what follows, if anything is wrong, comes with the next piece
		}
	}
	if in < m.Dumped {
		return 0, target.ErrTruncated // the core was to have them: that is what went wrong
	}
	return 0, err
}

// Where is what stands behind an address.
type Where int

// The places of a byte of the target.
const (
	NotMapped Where = iota
	NotDumped       // mapped, left out of the core, no file behind it
	Truncated       // promised by the core, behind the end of the file
	InFile          // part of a mapped file, not in the core
	InCore
)

// String names the place in words.
func (w Where) String() string {
	if err := w.Err(); err != nil {
		return err.Error()
	}
	if w == InFile {
		return "in the mapped file"
	}
	return "in the core"
}

// Err returns the error that stands for the place; nil for InCore and InFile,
// which can be read, the latter if the file is found.
func (w Where) Err() error {
	switch w {
	case NotMapped:
		return target.ErrNotMapped
	case NotDumped:
		return target.ErrNotDumped
	case Truncated:
		return target.ErrTruncated
	}
	return nil
}

// What tells what stands behind an address, and its mapping (nil if NotMapped).
func (p *Process) What(addr target.Addr) (Where, *Mapping) {
	m := p.find(addr)
	if m == nil {
		return NotMapped, nil
	}
	in := uint64(addr - m.Start)
	if in < m.Present {
		return InCore, m
	}
	return p.whereNotInCore(m, in), m
}

// whereNotInCore is What for a byte behind Present.
func (c *core) whereNotInCore(m *Mapping, in uint64) Where {
	switch {
	case in < m.Dumped:
		return Truncated
	case m.Path == "":
		return NotDumped
	case m.Writable() && c.freebsd != nil:
		// FreeBSD dumps every writable mapping that isn't excluded by name
		// (MAP_NOCORE): what is missing may differ from the file.
		return NotDumped
	case m.Writable() && !c.anonDumped:
		// The kernel dumps a private file mapping that was written to under the
		// same filter bit as anonymous memory (fs/coredump.c, vma_dump_size: bit
		// 0 with vma->anon_vma). With none of that in the core, the file's bytes
		// may be older than the process's.
		return NotDumped
	}
	return InFile
}
