// Package modules finds the files behind the images that a core lists:
// executable, libraries, their debug files, and images that are in the core
// itself. A file counts only when it is the one that was loaded: by build ID,
// or, where the core has none, by its layout in memory.
//
// It knows where files may lie and how to tell the right one; what is in them
// is the business of symtab, cfi and the layers above.
package modules

import (
	"cmp"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"sort"
	"sync"

	"mycore/elfcore"
	"mycore/internal/elfimage"
	"mycore/internal/symtab"
	"mycore/internal/target"
)

// Options says where to look; the zero value looks at the recorded paths and
// in /usr/lib/debug.
type Options struct {
	// Exe is the file of the main executable, if the user names it.
	Exe string
	// Sysroot is a directory that holds the target's files under their
	// recorded paths: the root of a container, of a chroot, or a copy.
	Sysroot string
	// DebugDirs are directories laid out as /usr/lib/debug, searched before
	// that one.
	DebugDirs []string
	// CoreDir is a directory that may hold copies of the files by their bare
	// names, usually the one with the core. Only files whose build ID matches
	// are taken from there. Empty: none.
	CoreDir string
	// CoreOnly looks nowhere but in the core: the result doesn't depend on the
	// machine.
	CoreOnly bool
	// NoSystemDirs leaves /usr/lib/debug of this machine out.
	NoSystemDirs bool
}

// Status says what became of the search for a module's file.
type Status string

// The statuses; they are part of the result's contract.
const (
	Found    Status = "found"     // a file that was loaded, or that fits (see Verified)
	Mismatch Status = "mismatch"  // only files that are not the one that was loaded
	Missing  Status = "missing"   // no file at all
	FromCore Status = "from-core" // no file, but headers and code are in the core
	VDSO     Status = "vdso"      // the kernel's own image, in the core's memory
)

// Module is one loaded image with what was found for it. It is immutable and
// safe for concurrent use.
type Module struct {
	Image  elfcore.Image
	Status Status
	// Verified says that the file's build ID equals the loaded one's. A found
	// file that isn't verified agrees with the mappings as far as they tell.
	Verified bool
	// Path is the file used; for a mismatch the first one that was refused.
	Path string
	// BuildID is that of the file at Path, WantBuildID the loaded image's as
	// the core shows it; each nil when there is none.
	BuildID, WantBuildID []byte
	// FoundBy names the rule that led to Path, such as "--exe".
	FoundBy string
	// Reason says, in words, why there is no file or why it isn't verified.
	Reason string
	// Looked lists all that was tried, in order, each with what came of it.
	Looked []string
	// Bias turns link-time addresses into runtime addresses: runtime =
	// link-time + Bias, modulo 2^64. It counts only when HasBias is set: with
	// neither file nor headers nobody knows it.
	Bias    uint64
	HasBias bool
	// DebugPath is the separate debug file in use, "" for none.
	DebugPath string

	elf     *elfimage.File // file or memory
	isFile  bool
	likely  bool // found and not verified, but its first page is the loaded one's
	debug   *elfimage.File
	inRoot  string // path inside the sysroot that the file came from, "" if from elsewhere
	symbols func() *symtab.Table
	alt     func() (*elfimage.File, error)
}

// ELF returns the image's contents: the file, or for FromCore and VDSO the
// memory; nil when there is neither.
func (m *Module) ELF() *elfimage.File { return m.elf }

// DebugFile returns the separate debug file, nil for none. It has sections but
// no bytes of the program.
func (m *Module) DebugFile() *elfimage.File { return m.debug }

// AltFile returns the file that .gnu_debugaltlink names: DWARF shared by
// several debug files. It is looked for at the first call.
// elfimage.ErrNoSection says that there is no such link.
func (m *Module) AltFile() (*elfimage.File, error) { return m.alt() }

// Symbols returns the symbols of binary and debug file, never nil. Tables are
// read when they are first asked.
func (m *Module) Symbols() *symtab.Table { return m.symbols() }

// LinkTime turns a runtime address into a link-time address of this image.
func (m *Module) LinkTime(a target.Addr) uint64 { return uint64(a) - m.Bias }

// Runtime turns a link-time address of this image into a runtime address.
func (m *Module) Runtime(vaddr uint64) target.Addr { return target.Addr(vaddr + m.Bias) }

// Name is what to call the module: its recorded path without the mark of a
// deleted file, or a word for an image without path.
func (m *Module) Name() string {
	if p, _ := recordedPath(m.Image.Path); p != "" {
		return p
	}
	if m.Image.Main {
		return "[main executable]"
	}
	return "[unnamed image]"
}

// Set is all modules of a process. It is safe for concurrent use.
type Set struct {
	mods     []*Module // by Image.Base
	warnings []target.Warning

	mu    sync.Mutex
	files []io.Closer
}

// Load looks for the file of every image of core. It never fails: what isn't
// found is a status with its reason, and a warning.
func Load(core *elfcore.Process, opts Options) *Set {
	s := &Set{}
	l := newLoader(core, opts, s)
	images := core.Images()
	s.mods = make([]*Module, len(images))
	for i := range images {
		s.mods[i] = &Module{Image: images[i], WantBuildID: images[i].BuildID}
	}
	// The executable first: its place tells where the libraries may lie.
	order := slices.Clone(s.mods)
	slices.SortStableFunc(order, func(a, b *Module) int { return cmp.Compare(rank(a), rank(b)) })
	for _, m := range order {
		l.find(m)
		l.findDebug(m)
		l.finish(m)
	}
	if opts.Exe != "" && !l.exeTried {
		l.warn(WarnMismatch, "the file given by --exe isn't used: the core doesn't tell which image is the executable, and none has the build ID of %q", opts.Exe)
	}
	slices.SortStableFunc(s.mods, func(a, b *Module) int { return cmp.Compare(a.Image.Base, b.Image.Base) })
	s.warnings = slices.Concat(l.warnings, l.summarise(s.mods))
	return s
}

func rank(m *Module) int {
	if m.Image.Main {
		return 0
	}
	return 1
}

// All returns the modules by address. The slice is shared: don't change it.
func (s *Set) All() []*Module { return s.mods }

// Main returns the executable, nil if the core doesn't tell which it is.
func (s *Set) Main() *Module {
	for _, m := range s.mods {
		if m.Image.Main {
			return m
		}
	}
	return nil
}

// At returns the module whose image spans pc, nil if none does.
func (s *Set) At(pc target.Addr) *Module {
	i := sort.Search(len(s.mods), func(i int) bool { return s.mods[i].Image.Base > pc }) - 1
	if i < 0 || pc >= s.mods[i].Image.End {
		return nil
	}
	return s.mods[i]
}

// Warnings returns what the result lacks because of missing files, in a stable
// order. The slice is a copy.
func (s *Set) Warnings() []target.Warning { return slices.Clone(s.warnings) }

// Close closes all files. Nothing may be read from the modules after that.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	s.files = nil
	return errors.Join(errs...)
}

// keep notes a file for Close.
func (s *Set) keep(f io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
}

// hexID writes a build ID as all tools do.
func hexID(id []byte) string {
	if len(id) == 0 {
		return "none"
	}
	return hex.EncodeToString(id)
}
