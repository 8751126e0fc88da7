package unwind

import (
	"fmt"
	"sync"

	"mycore/elfcore"
	"mycore/internal/cfi"
	"mycore/internal/elfimage"
	"mycore/internal/modules"
	"mycore/internal/target"
)

// maxDebugFrame bounds .debug_frame, which is read whole: builds that keep
// .eh_frame have a few KiB of it, others about as much as .eh_frame.
const maxDebugFrame = 64 << 20

// moduleSpace is the space of a real process. Images are prepared when a
// program counter first falls into them.
type moduleSpace struct {
	mods   *modules.Set
	core   *elfcore.Process
	images map[*modules.Module]*lazyImage
}

type lazyImage struct {
	once sync.Once
	img  *image
}

func newModuleSpace(mods *modules.Set, core *elfcore.Process) *moduleSpace {
	s := &moduleSpace{mods: mods, core: core, images: map[*modules.Module]*lazyImage{}}
	for _, m := range mods.All() {
		s.images[m] = new(lazyImage)
	}
	return s
}

func (s *moduleSpace) at(pc target.Addr) *image {
	m := s.mods.At(pc)
	if m == nil {
		return nil
	}
	l := s.images[m]
	l.once.Do(func() { l.img = newImage(m) })
	return l.img
}

func (s *moduleSpace) extent(a target.Addr) (lo, hi target.Addr, ok bool) {
	if s.core == nil {
		return 0, 0, false
	}
	m := s.core.Mapping(a)
	if m == nil {
		return 0, 0, false
	}
	return m.Start, m.End, true
}

// executable is generous where the core doesn't record permissions.
func (s *moduleSpace) executable(a target.Addr) bool {
	if s.core == nil {
		return true
	}
	m := s.core.Mapping(a)
	return m != nil && (m.Perm == "" || m.Executable())
}

// newImage prepares a module: .eh_frame through its search table first, then
// .debug_frame of the binary and of the debug file, which are read only when a
// function isn't in the former.
func newImage(m *modules.Module) *image {
	img := &image{module: m, bias: m.Bias, syms: m.Symbols()}
	if !m.HasBias { // offsets then count from where the file was mapped
		img.bias = uint64(m.Image.Base)
	}
	f := m.ELF()
	switch {
	case f == nil && m.Reason != "":
		img.missing = fmt.Errorf("no binary for %s: %s", m.Name(), m.Reason)
	case f == nil:
		img.missing = fmt.Errorf("no binary for %s", m.Name())
	case !m.HasBias:
		img.missing = fmt.Errorf("load address of %s isn't known", m.Name())
	}
	if img.missing != nil {
		return img
	}
	if m.Image.Main { // a library's e_entry is where its code happens to start
		img.entry = f.Entry()
	}
	if t := ehFrame(f); t != nil {
		img.tables = append(img.tables, t)
	}
	for _, file := range []*elfimage.File{f, m.DebugFile()} {
		if file == nil || file.InMemory() {
			continue
		}
		if _, ok := file.Section(".debug_frame"); ok {
			img.tables = append(img.tables, &debugFrame{file: file})
		}
	}
	return img
}

// ehFrame opens the image's .eh_frame; nil when it has none.
func ehFrame(f *elfimage.File) finder {
	var broken error
	for _, p := range f.Progs() {
		if p.Type != elfimage.PTGNUEhFrame {
			continue
		}
		t, err := cfi.New(f, p.Vaddr, p.Memsz, f.Arch())
		if err == nil {
			return t
		}
		broken = err
	}
	if sec, ok := f.Section(".eh_frame"); ok && !f.InMemory() {
		t, err := cfi.NewFromSection(f, sec.Addr, sec.Size, f.Arch())
		if err == nil {
			return t
		}
		broken = err
	}
	if broken != nil {
		return brokenTable{broken}
	}
	return nil
}

// brokenTable answers with the reason why a table can't be used.
type brokenTable struct{ err error }

// Find implements finder.
func (b brokenTable) Find(uint64) (*cfi.FDE, error) { return nil, b.err }

// debugFrame reads .debug_frame at the first question.
type debugFrame struct {
	file *elfimage.File
	once sync.Once
	t    finder
}

// Find implements finder.
func (d *debugFrame) Find(pc uint64) (*cfi.FDE, error) {
	d.once.Do(func() { d.t = d.open() })
	return d.t.Find(pc)
}

func (d *debugFrame) open() finder {
	data, err := d.file.SectionData(".debug_frame", maxDebugFrame)
	if err != nil {
		return brokenTable{fmt.Errorf(".debug_frame of %s: %w", d.file.Name(), err)}
	}
	t, err := cfi.NewDebugFrame(data, d.file.Arch())
	if err != nil {
		return brokenTable{fmt.Errorf(".debug_frame of %s: %w", d.file.Name(), err)}
	}
	return t
}
