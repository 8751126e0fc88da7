package modules

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"mycore/elfcore"
	"mycore/internal/elfimage"
	"mycore/internal/symtab"
	"mycore/internal/target"
)

// systemDebugDir is where distributions install debug files (GDB manual,
// "Separate Debug Files").
const systemDebugDir = "/usr/lib/debug"

// deletedMark is what the kernel appends to the path of a file that has been
// unlinked or replaced (fs/d_path.c).
const deletedMark = " (deleted)"

// maxPath bounds the recorded paths that are tried: PATH_MAX of Linux.
const maxPath = 4096

// loader finds the files of one process.
type loader struct {
	core *elfcore.Process
	opts Options
	set  *Set
	root *sysroot // of the user, or implied by where --exe lies; nil for none
	// implied says that root was derived from --exe: then the recorded paths
	// of this machine count as well.
	implied   bool
	haveMain  bool // the core tells which image is the executable
	exeTried  bool // some image is the one that --exe stands for
	debugDirs []string
	warnings  []target.Warning
}

func newLoader(core *elfcore.Process, opts Options, set *Set) *loader {
	l := &loader{core: core, opts: opts, set: set}
	if opts.Sysroot != "" && filepath.Clean(opts.Sysroot) != "/" {
		l.useRoot(opts.Sysroot, false)
	}
	l.haveMain = slices.ContainsFunc(core.Images(), func(im elfcore.Image) bool { return im.Main })
	l.debugDirs = slices.Clone(opts.DebugDirs)
	if !opts.NoSystemDirs {
		l.debugDirs = append(l.debugDirs, systemDebugDir)
	}
	return l
}

// useRoot makes dir the sysroot.
func (l *loader) useRoot(dir string, implied bool) {
	r, err := openSysroot(dir)
	if err != nil {
		l.warn(WarnSysroot, "the sysroot %q can't be used (%s): recorded paths of this machine are tried instead", dir, lookError(err))
		return
	}
	l.root, l.implied = r, implied
	l.set.keep(r.root)
}

func (l *loader) warn(code, format string, args ...any) {
	l.warnings = append(l.warnings, target.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
}

// recordedPath takes the kernel's mark off a recorded path. deleted says that
// whatever lies at the path now came later.
func recordedPath(p string) (clean string, deleted bool) {
	return strings.CutSuffix(p, deletedMark)
}

// find looks for the binary of m, best place first.
func (l *loader) find(m *Module) {
	if m.Image.VDSO {
		l.fromMemory(m, VDSO, "core memory")
		return
	}
	m.Status = Missing
	if l.opts.CoreOnly {
		if l.codeInCore(m) {
			l.fromMemory(m, FromCore, "core memory")
		}
		return
	}
	if l.opts.Exe != "" && l.isExe(m) {
		l.exeTried = true
		if l.try(m, l.opts.Exe, "--exe", func() (*opened, error) { return openUser(l.opts.Exe) }) {
			l.implyRoot(m)
			return
		}
		defer l.reportExe(m, m.Looked[len(m.Looked)-1])
	}
	if l.tryRecorded(m) || l.tryDebugDirs(m) || l.tryCoreDir(m) {
		return
	}
	if l.codeInCore(m) {
		if m.Status == Mismatch && m.Path != l.opts.Exe {
			l.warn(WarnMismatch, "%s", m.mismatchText("what the core holds of it is used instead"))
		}
		l.fromMemory(m, FromCore, "core memory")
	}
}

// isExe says that m is the image that --exe stands for: the executable or, when
// the core doesn't tell which one that is, the image of the same build ID or of
// the same bare name.
func (l *loader) isExe(m *Module) bool {
	if l.haveMain || m.Image.Main {
		return m.Image.Main
	}
	if len(m.WantBuildID) == 0 {
		p, _ := recordedPath(m.Image.Path)
		return p != "" && path.Base(p) == filepath.Base(l.opts.Exe)
	}
	f, err := openUser(l.opts.Exe)
	if err != nil {
		return false
	}
	defer f.Close()
	id, _ := f.BuildID()
	return bytes.Equal(id, m.WantBuildID)
}

// reportExe tells the user that the file given wasn't used, unless the warning
// about the mismatch says it anyway.
func (l *loader) reportExe(m *Module, outcome string) {
	if m.Status == Mismatch && m.Path == l.opts.Exe {
		return
	}
	instead := ""
	if m.Status == Found {
		instead = fmt.Sprintf("; %q is used instead", m.Path)
	} else if m.Status == FromCore {
		instead = "; what the core holds of the executable is used instead"
	}
	// Errors of files name them, and so does the list of places.
	twice := l.opts.Exe + ": "
	outcome = strings.Replace(outcome, twice+twice, twice, 1)
	l.warn(WarnMismatch, "the file given by --exe isn't used: %s%s", outcome, instead)
}

// tryRecorded tries the recorded path, in the sysroot first.
func (l *loader) tryRecorded(m *Module) bool {
	p, deleted := recordedPath(m.Image.Path)
	switch {
	case p == "":
		m.look("recorded path", "the core has none")
		return false
	case !path.IsAbs(p) || len(p) > maxPath || strings.IndexByte(p, 0) >= 0:
		m.look(p, "not a usable path")
		return false
	}
	p = path.Clean(p)
	if deleted {
		m.look(p, "was deleted or replaced while in use")
	}
	if l.root != nil {
		for _, in := range l.root.inside(p) {
			if l.try(m, filepath.Join(l.root.dir, in), "sysroot", func() (*opened, error) { return l.root.open(in) }) {
				return true
			}
		}
		if !l.implied && len(m.WantBuildID) == 0 {
			m.look(p, "not tried: outside the sysroot, and there is no build ID to tell the right file")
			return false
		}
	}
	return l.try(m, p, "recorded path", func() (*opened, error) { return openRecorded(p) })
}

// tryDebugDirs tries the links to binaries in the build-ID directories.
func (l *loader) tryDebugDirs(m *Module) bool {
	for _, c := range l.byBuildID(m.WantBuildID, "") {
		if l.try(m, c.shown, "build-ID directory", c.open) {
			return true
		}
	}
	return false
}

// tryCoreDir tries a copy beside the core.
func (l *loader) tryCoreDir(m *Module) bool {
	p, _ := recordedPath(m.Image.Path)
	if l.opts.CoreDir == "" || p == "" || len(m.WantBuildID) == 0 || len(p) > maxPath {
		return false
	}
	beside := filepath.Join(l.opts.CoreDir, path.Base(path.Clean("/"+p)))
	return l.try(m, beside, "beside the core", func() (*opened, error) { return openUser(beside) })
}

// place is a file to try.
type place struct {
	shown string
	open  func() (*opened, error)
}

// Bounds of build IDs that are looked for by name: SHA-1 has 20 bytes, md5 and
// uuid 16, the longest in use 32.
const (
	minBuildID = 2
	maxBuildID = 64
)

// byBuildID lists the files that the debug directories may hold for an id;
// suffix is ".debug" for debug files, "" for binaries.
func (l *loader) byBuildID(id []byte, suffix string) []place {
	if len(id) < minBuildID || len(id) > maxBuildID {
		return nil
	}
	h := hex.EncodeToString(id)
	name := path.Join(".build-id", h[:2], h[2:]+suffix)
	return l.inDebugDirs(name)
}

// inDebugDirs lists the places of a relative name in all debug directories,
// those of the user first, then the sysroot's, then this machine's.
func (l *loader) inDebugDirs(name string) []place {
	var out []place
	add := func(dir string) {
		p := filepath.Join(dir, name)
		out = append(out, place{p, func() (*opened, error) { return openUser(p) }})
	}
	for _, d := range l.debugDirs[:len(l.opts.DebugDirs)] {
		add(d)
	}
	if l.root != nil {
		in := path.Join(systemDebugDir, name)
		out = append(out, place{filepath.Join(l.root.dir, in), func() (*opened, error) { return l.root.open(in) }})
	}
	for _, d := range l.debugDirs[len(l.opts.DebugDirs):] {
		add(d)
	}
	return out
}

// implyRoot takes the tree in which --exe lies for a sysroot when its path
// ends with the recorded one: /srv/jail/usr/sbin/mysqld for /usr/sbin/mysqld.
func (l *loader) implyRoot(m *Module) {
	p, _ := recordedPath(m.Image.Path)
	abs, err := filepath.Abs(l.opts.Exe)
	if l.root != nil || err != nil || p == "" {
		return
	}
	if dir, ok := strings.CutSuffix(abs, path.Clean("/"+p)); ok && dir != "" {
		l.useRoot(dir, true)
	}
}

// try opens one candidate and takes it if it is the file that was loaded.
func (l *loader) try(m *Module, shown, by string, open func() (*opened, error)) bool {
	f, err := open()
	if err != nil {
		m.look(shown, lookError(err))
		return false
	}
	v := l.judge(m, f.File)
	id, _ := f.BuildID()
	id = slices.Clone(id)
	if !v.fits {
		m.look(shown, v.why)
		if m.Status != Mismatch { // the first refused file is the likeliest one
			m.Status, m.Path, m.BuildID, m.FoundBy, m.Reason = Mismatch, shown, id, by, v.why
		}
		_ = f.Close() // opened for reading only
		return false
	}
	m.look(shown, v.why)
	l.set.keep(f)
	m.Status, m.Verified, m.Path, m.BuildID, m.FoundBy, m.Reason = Found, v.verified, shown, id, by, ""
	if !v.verified {
		m.Reason = v.why
	}
	m.elf, m.isFile, m.inRoot, m.likely = f.File, true, f.inRoot, v.likely
	m.Bias, m.HasBias = f.LoadBias(m.Image.Base)
	return true
}

// look notes what came of one place.
func (m *Module) look(what, outcome string) {
	m.Looked = append(m.Looked, what+": "+outcome)
}

// codeInCore says that the core holds the image's header and code, as gdb and
// full kernel dumps do for some images, or the part of the code that a trimmed
// core keeps.
func (l *loader) codeInCore(m *Module) bool {
	if !m.Image.Headers {
		return false
	}
	f, err := elfimage.FromMemory(l.core, m.Image.Base, m.Name())
	if err != nil {
		return false
	}
	for _, p := range f.Progs() {
		if p.Type != elfimage.PTLoad || p.Flags&elfimage.PFX == 0 || p.Memsz == 0 {
			continue
		}
		start := target.Addr(p.Vaddr + f.Bias())
		end := start + target.Addr(p.Memsz)
		// The kernel dumps the page with the header of every image
		// (coredump_filter, bit 4): where that is the code's first, it doesn't
		// count.
		if start < m.Image.Base+headerPage {
			start = m.Image.Base + headerPage
		}
		if start < end && anyInCore(l.core, start, end) {
			return true
		}
	}
	return false
}

// anyInCore says that the core has bytes of a range.
func anyInCore(core *elfcore.Process, start, end target.Addr) bool {
	maps := core.Mappings()
	i := sort.Search(len(maps), func(i int) bool { return maps[i].End > start })
	for ; i < len(maps) && maps[i].Start < end; i++ {
		m := &maps[i]
		if m.Present > 0 && m.Start+target.Addr(m.Present) > start {
			return true
		}
	}
	return false
}

// fromMemory takes the image out of the core itself.
func (l *loader) fromMemory(m *Module, status Status, by string) {
	f, err := elfimage.FromMemory(l.core, m.Image.Base, m.Name())
	if err != nil {
		m.Reason = fmt.Sprintf("its image at %s can't be read: %v", m.Image.Base, err)
		m.look("core memory at "+m.Image.Base.String(), lookError(err))
		if m.Status == "" {
			m.Status = Missing
		}
		return
	}
	m.look("core memory at "+m.Image.Base.String(), "used")
	id, _ := f.BuildID()
	m.Status, m.Verified, m.Path, m.FoundBy, m.Reason = status, true, "", by, ""
	m.BuildID = slices.Clone(id)
	m.elf, m.isFile = f, false
	m.Bias, m.HasBias = f.Bias(), true
}

// finish sets what follows from the search: the bias of an image without file,
// and the lazily made symbol table.
func (l *loader) finish(m *Module) {
	if m.Status == Missing && m.Reason == "" {
		m.Reason = "no file found"
	}
	if !m.HasBias && m.debug != nil {
		// A debug file keeps the program headers of its binary.
		m.Bias, m.HasBias = m.debug.LoadBias(m.Image.Base)
	}
	if !m.HasBias && m.Image.Headers {
		if f, err := elfimage.FromMemory(l.core, m.Image.Base, m.Name()); err == nil {
			m.Bias, m.HasBias = f.Bias(), true
		}
	}
	m.symbols = onceTable(func() *symtab.Table { return symtab.Of(m.elf, m.debug) })
}
