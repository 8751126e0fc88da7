package modules

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"mycore/internal/elfimage"
	"mycore/internal/symtab"
)

// onceTable makes a table at the first call.
func onceTable(make func() *symtab.Table) func() *symtab.Table { return sync.OnceValue(make) }

// findDebug looks for the separate debug file of m: by build ID, then by
// .gnu_debuglink. A binary that has its DWARF and symbols needs none. The debug
// file of a binary that isn't at hand still gives its symbols.
func (l *loader) findDebug(m *Module) {
	m.alt = sync.OnceValues(func() (*elfimage.File, error) { return nil, elfimage.ErrNoSection })
	if m.Image.VDSO || l.opts.CoreOnly {
		return
	}
	if m.isFile && hasSection(m.elf, ".debug_info") && hasSection(m.elf, ".symtab") {
		l.linkAlt(m, m.elf)
		return
	}
	id := m.WantBuildID
	if len(id) == 0 && m.isFile {
		id = m.BuildID
	}
	for _, c := range l.byBuildID(id, ".debug") {
		if l.tryDebug(m, c, id, 0, false) {
			return
		}
	}
	if m.isFile {
		l.tryDebuglink(m, id)
	}
}

func hasSection(f *elfimage.File, name string) bool {
	_, ok := f.Section(name)
	return ok
}

// tryDebuglink tries the places where GDB looks for a debug link: beside the
// binary, in .debug there, and under the debug directories.
func (l *loader) tryDebuglink(m *Module, id []byte) {
	name, crc, ok := m.elf.Debuglink()
	if !ok || name != path.Base(name) || name == "." || name == ".." || name == "/" {
		return // the link is a bare file name
	}
	for _, c := range l.linkPlaces(m, name) {
		if l.tryDebug(m, c, id, crc, true) {
			return
		}
	}
}

// linkPlaces lists the places of a debug link's file.
func (l *loader) linkPlaces(m *Module, name string) []place {
	var out []place
	dirs := []string{filepath.Dir(m.Path)} // as the debug directories repeat it
	for _, rel := range []string{name, filepath.Join(".debug", name)} {
		if m.inRoot != "" {
			in := path.Join(path.Dir(m.inRoot), rel)
			out = append(out, place{filepath.Join(l.root.dir, in), func() (*opened, error) { return l.root.open(in) }})
			continue
		}
		p := filepath.Join(filepath.Dir(m.Path), rel)
		out = append(out, place{p, func() (*opened, error) { return openRecorded(p) }})
	}
	if m.inRoot != "" {
		dirs = []string{path.Dir(m.inRoot)}
	}
	if p, _ := recordedPath(m.Image.Path); path.IsAbs(p) && len(p) <= maxPath {
		if d := path.Dir(path.Clean(p)); !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	for _, d := range dirs {
		if abs, err := filepath.Abs(d); err == nil {
			out = append(out, l.inDebugDirs(path.Join(abs, name))...)
		}
	}
	if l.opts.CoreDir != "" {
		p := filepath.Join(l.opts.CoreDir, name)
		out = append(out, place{p, func() (*opened, error) { return openUser(p) }})
	}
	return out
}

// tryDebug opens one candidate and takes it if it belongs to the binary. The
// checksum of the whole file is computed only when there are no build IDs to
// compare.
func (l *loader) tryDebug(m *Module, c place, id []byte, crc uint32, byLink bool) bool {
	f, err := c.open()
	if err != nil {
		m.look(c.shown, lookError(err))
		return false
	}
	why, ok := debugFits(f.File, id, crc, byLink)
	if ok && m.isFile && f.Name() == m.elf.Name() {
		why, ok = "is the binary itself", false
	}
	m.look(c.shown, why)
	if !ok {
		if have, _ := f.BuildID(); !bytes.Equal(have, id) || len(id) == 0 {
			l.warn(WarnDebugMismatch, "the debug file %q doesn't belong to %q: %s. It isn't used: fewer functions have names; install the debug package of that build or name its directory with --debug-dir", c.shown, m.Name(), why)
		}
		_ = f.Close() // opened for reading only
		return false
	}
	l.set.keep(f)
	m.debug, m.DebugPath = f.File, c.shown
	l.linkAlt(m, f.File)
	return true
}

// debugFits tells whether a debug file belongs to a binary.
func debugFits(f *elfimage.File, id []byte, crc uint32, byLink bool) (why string, ok bool) {
	have, _ := f.BuildID()
	switch {
	case len(id) > 0 && bytes.Equal(have, id):
		return "debug file, build ID matches", true
	case len(id) > 0 && len(have) > 0, !byLink:
		return fmt.Sprintf("its build ID is %s, the binary's is %s", hexID(have), hexID(id)), false
	}
	sum, err := checksum(f)
	if err != nil {
		return "its checksum can't be computed: " + lookError(err), false
	}
	if sum != crc {
		return fmt.Sprintf("its checksum is %08x, the binary's debug link says %08x", sum, crc), false
	}
	return "debug file, checksum matches", true
}

// maxChecksum bounds the file whose CRC is computed: the largest debug files
// of servers have 3 GB, and reading more takes longer than anybody waits.
const maxChecksum = 4 << 30

// checksum is the CRC-32 of .gnu_debuglink (GDB manual: the one of IEEE 802.3)
// over the whole file.
func checksum(f *elfimage.File) (uint32, error) {
	if f.Size() > maxChecksum {
		return 0, fmt.Errorf("%d bytes are too many to read", f.Size())
	}
	h := crc32.NewIEEE()
	buf := make([]byte, 1<<20)
	if _, err := io.CopyBuffer(h, io.NewSectionReader(f, 0, f.Size()), buf); err != nil {
		return 0, err
	}
	return h.Sum32(), nil
}

// errAltMissing: the file with shared DWARF isn't there.
var errAltMissing = errors.New("the file of .gnu_debugaltlink was not found")

// linkAlt prepares the lookup of .gnu_debugaltlink in f, the file with the
// DWARF. It is done at the first question: dwz files are for DWARF readers.
func (l *loader) linkAlt(m *Module, f *elfimage.File) {
	name, id, ok := f.Debugaltlink()
	if !ok {
		return
	}
	m.look(".gnu_debugaltlink", fmt.Sprintf("%s, build ID %s", name, hexID(id)))
	from := m.DebugPath
	if from == "" {
		from = m.Path
	}
	m.alt = sync.OnceValues(func() (*elfimage.File, error) { return l.openAlt(name, id, from) })
}

// openAlt finds a dwz file: by build ID, then by the link's path, which is
// absolute or relative to the directory of the file that has the link. Only a
// matching build ID counts.
func (l *loader) openAlt(name string, id []byte, from string) (*elfimage.File, error) {
	places := l.byBuildID(id, ".debug")
	if name != "" && len(name) <= maxPath && !strings.Contains(name, "\x00") {
		abs := name
		if !filepath.IsAbs(name) {
			abs = filepath.Join(filepath.Dir(from), name)
		}
		if l.root != nil {
			for _, in := range l.root.inside(abs) {
				places = append(places, place{filepath.Join(l.root.dir, in), func() (*opened, error) { return l.root.open(in) }})
			}
		}
		places = append(places, place{abs, func() (*opened, error) { return openRecorded(abs) }})
	}
	for _, c := range places {
		f, err := c.open()
		if err != nil {
			continue
		}
		if have, _ := f.BuildID(); len(id) > 0 && bytes.Equal(have, id) {
			l.set.keep(f)
			return f.File, nil
		}
		_ = f.Close() // opened for reading only
	}
	return nil, fmt.Errorf("%w: %q, build ID %s", errAltMissing, name, hexID(id))
}
