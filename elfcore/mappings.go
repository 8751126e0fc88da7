package elfcore

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	"mycore/internal/elfimage"
	"mycore/internal/target"
)

// Mapping is a range of the address space of one kind: what the program
// headers say (permissions, bytes in the core) joined with what NT_FILE says
// (file and offset). Either may be missing: gdb leaves out segments, the kernel
// names no file for anonymous memory.
type Mapping struct {
	Start, End target.Addr // End is the first address behind it
	Perm       string      // "r-x", "rw-", ...; "" when only NT_FILE knows the range
	Path       string      // as recorded, " (deleted)" included; "" for anonymous memory
	FileOff    uint64      // offset in the file of Start, in bytes
	Dumped     uint64      // bytes from Start on that the core promises
	Present    uint64      // bytes from Start on that the file really has; less than Dumped in a truncated core

	coreOff uint64 // offset of Start's byte in the core, when Dumped > 0
}

// Size returns the length in bytes.
func (m *Mapping) Size() uint64 { return uint64(m.End - m.Start) }

// Contains reports whether a lies in the mapping.
func (m *Mapping) Contains(a target.Addr) bool { return a >= m.Start && a < m.End }

// Executable reports whether the mapping is known to be executable.
func (m *Mapping) Executable() bool { return len(m.Perm) == 3 && m.Perm[2] == 'x' }

// Writable reports whether the mapping is known to be writable.
func (m *Mapping) Writable() bool { return len(m.Perm) == 3 && m.Perm[1] == 'w' }

var permNames = [8]string{"---", "--x", "-w-", "-wx", "r--", "r-x", "rw-", "rwx"}

// segment is one PT_LOAD after the checks.
type segment struct {
	start, end  target.Addr
	off, filesz uint64
	perm        string
}

// segments checks the PT_LOADs and sorts them. Of two that overlap, the one
// that starts first keeps the shared range.
func (c *core) segments() []segment {
	var out []segment
	for i, p := range c.file.Progs() {
		if p.Type != elfimage.PTLoad || p.Memsz == 0 {
			continue
		}
		if p.Vaddr > math.MaxUint64-p.Memsz {
			c.warn(WarnSegment, "program header %d: address %#x and size %#x leave the address space: it is left out", i, p.Vaddr, p.Memsz)
			continue
		}
		if p.Filesz > p.Memsz {
			c.warn(WarnSegment, "program header %d (address %#x): more bytes in the file (%#x) than in memory (%#x)", i, p.Vaddr, p.Filesz, p.Memsz)
		}
		out = append(out, segment{
			start: target.Addr(p.Vaddr), end: target.Addr(p.Vaddr + p.Memsz),
			off: p.Off, filesz: min(p.Filesz, p.Memsz), perm: permNames[p.Flags&7],
		})
	}
	byStart := func(a, b segment) int { return cmp.Compare(a.start, b.start) }
	if !slices.IsSortedFunc(out, byStart) {
		slices.SortStableFunc(out, byStart)
	}
	return c.cutOverlaps(out)
}

func (c *core) cutOverlaps(segs []segment) []segment {
	out := segs[:0]
	var end target.Addr
	for _, s := range segs {
		if s.start < end {
			c.warn(WarnSegment, "segments overlap at %s: the one that starts first is used there", s.start)
			if s.end <= end {
				continue
			}
			cut := uint64(end - s.start)
			s.start = end
			s.off += min(cut, s.filesz)
			s.filesz -= min(cut, s.filesz)
		}
		end = s.end
		out = append(out, s)
	}
	return out
}

// buildMappings joins segments and NT_FILE by a sweep over the addresses.
func (c *core) buildMappings() {
	segs := c.segments()
	files := c.files
	byStart := func(a, b fileEntry) int { return cmp.Compare(a.start, b.start) }
	if !slices.IsSortedFunc(files, byStart) {
		files = slices.Clone(files)
		slices.SortStableFunc(files, byStart)
	}
	c.maps = make([]Mapping, 0, len(segs)+len(files)/4)
	var pos target.Addr
	for i, j := 0, 0; i < len(segs) || j < len(files); {
		if i < len(segs) && segs[i].end <= pos {
			i++
			continue
		}
		if j < len(files) && files[j].end <= pos {
			j++
			continue
		}
		var s *segment
		var f *fileEntry
		next, end := target.Addr(math.MaxUint64), target.Addr(math.MaxUint64)
		if i < len(segs) {
			next = max(pos, segs[i].start)
		}
		if j < len(files) {
			next = min(next, max(pos, files[j].start))
		}
		if i < len(segs) {
			if segs[i].start <= next {
				s, end = &segs[i], segs[i].end
			} else {
				end = segs[i].start
			}
		}
		if j < len(files) {
			if files[j].start <= next {
				f, end = &files[j], min(end, files[j].end)
			} else {
				end = min(end, files[j].start)
			}
		}
		c.maps = append(c.maps, c.piece(next, end, s, f))
		pos = end
	}
	for i := range c.maps {
		m := &c.maps[i]
		if m.Path == "" && m.Dumped > 0 && m.Writable() {
			c.anonDumped = true
			break
		}
	}
}

// piece makes the mapping of [start, end), which lies in one segment or none
// and in one file entry or none.
func (c *core) piece(start, end target.Addr, s *segment, f *fileEntry) Mapping {
	m := Mapping{Start: start, End: end}
	if s != nil {
		m.Perm = s.perm
		in := uint64(start - s.start)
		m.Dumped = min(s.filesz-min(in, s.filesz), uint64(end-start))
		if m.Dumped > 0 {
			m.coreOff = s.off + in // may wrap for a forged offset: then nothing is present
			size := uint64(c.file.Size())
			if m.coreOff >= s.off && m.coreOff < size {
				m.Present = min(m.Dumped, size-m.coreOff)
			}
		}
	}
	if f != nil {
		if f.path != "" {
			m.Path, m.FileOff = f.path, f.off+uint64(start-f.start)
		}
		if f.perm != "" { // gcore of FreeBSD makes every segment writable
			m.Perm = f.perm
		}
	}
	return m
}

// Mappings returns the mappings in address order. The slice is shared: don't
// change it.
func (p *Process) Mappings() []Mapping { return p.maps }

// Mapping returns the mapping that holds a, nil if none does.
func (p *Process) Mapping(a target.Addr) *Mapping { return p.find(a) }

func (c *core) find(a target.Addr) *Mapping {
	if i := c.index(a); i >= 0 {
		return &c.maps[i]
	}
	return nil
}

// index returns the number of the mapping that holds a, -1 if none does.
func (c *core) index(a target.Addr) int {
	i := sort.Search(len(c.maps), func(i int) bool { return c.maps[i].Start > a }) - 1
	if i >= 0 && a >= c.maps[i].End {
		return -1
	}
	return i
}

// checkTruncation compares what the headers promise with the size of the file.
func (c *core) checkTruncation() {
	size := uint64(c.file.Size())
	for _, p := range c.file.Progs() {
		if p.Type != elfimage.PTLoad || p.Filesz == 0 {
			continue
		}
		gone := p.Filesz
		if p.Off < size {
			gone -= min(p.Filesz, size-p.Off)
		}
		c.total = addCapped(c.total, p.Filesz)
		c.missing = addCapped(c.missing, gone)
	}
	have, want := len(c.file.Progs()), c.file.ProgsPromised()
	switch {
	case have < want && have == elfimage.MaxProgs:
		c.warn(WarnTooMany, "the core has %d program headers, %d are read: memory of the others is missing", want, have)
	case have < want:
		c.warn(WarnHeadersCut, "the file ends inside the program header table (%d of %d headers): most memory and mappings are lost; get the complete file (disk full, ulimit -c, or a copy that was cut)", have, want)
	}
	if c.missing > 0 {
		c.warn(WarnTruncated, "the core is truncated: %s of the memory that it promises is missing (%s of %s); stacks and data behind that point can't be read; get the complete file (disk full, ulimit -c, or a copy that was cut)",
			percent(c.missing, c.total), bytesText(c.missing), bytesText(c.total))
	}
	if c.input.cut != nil {
		c.warn(WarnUnpackedCut, "the %s data ends early or is damaged (%v): what was unpacked up to there is used", c.input.format, c.input.cut)
	}
}

func addCapped(a int64, b uint64) int64 {
	if b > uint64(math.MaxInt64-a) {
		return math.MaxInt64
	}
	return a + int64(b)
}

func percent(part, whole int64) string {
	p := 100 * float64(part) / float64(whole)
	if p < 0.1 {
		return "less than 0.1 %"
	}
	return fmt.Sprintf("%.1f %%", p)
}

// bytesText is a size with a unit that a person reads.
func bytesText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
