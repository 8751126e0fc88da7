package modules

import (
	"bytes"
	"fmt"
	"slices"

	"mycore/elfcore"
	"mycore/internal/elfimage"
	"mycore/internal/target"
)

// verdict is what became of comparing a file with a loaded image.
type verdict struct {
	fits, verified bool
	likely         bool // not verified, but more than the layout agrees
	why            string
}

// judge tells whether f is the file that m's image was loaded from. A build ID
// decides alone; without one the layout must agree.
func (l *loader) judge(m *Module, f *elfimage.File) verdict {
	if arch := l.core.Info().Arch; f.Arch() != arch {
		return verdict{why: fmt.Sprintf("is for %s, the core is for %s", f.Arch(), arch)}
	}
	if t := f.Type(); t != elfimage.TypeExec && t != elfimage.TypeDyn {
		return verdict{why: fmt.Sprintf("is an %s", t)}
	}
	if want := m.WantBuildID; len(want) > 0 {
		have, _ := f.BuildID()
		if !bytes.Equal(have, want) {
			return verdict{why: fmt.Sprintf("its build ID is %s, the loaded one's is %s", hexID(have), hexID(want))}
		}
		return verdict{fits: true, verified: true, why: "build ID matches"}
	}
	return l.judgeLayout(m, f)
}

// judgeLayout compares program headers with the mappings, for cores that don't
// hold the page with the build ID.
func (l *loader) judgeLayout(m *Module, f *elfimage.File) verdict {
	if end, ok := fileEnd(f); !ok || end > uint64(f.Size()) {
		return verdict{why: "ends before its segments"}
	}
	bias, ok := f.LoadBias(m.Image.Base)
	if !ok {
		return verdict{why: "has no segment at the start of the file, the loaded one has"}
	}
	headers, why := l.compareHeaders(m, f)
	if why != "" {
		return verdict{why: why}
	}
	mapped, why := l.compareMappings(m, f, bias)
	if why != "" {
		return verdict{why: why}
	}
	_, deleted := recordedPath(m.Image.Path)
	switch {
	case headers:
		return verdict{fits: true, why: "unverified: there is no build ID, but its first page equals the one in the core", likely: true}
	case mapped > 0:
		return verdict{fits: true, why: "unverified: the core has no build ID, but the layout agrees"}
	case deleted:
		return verdict{why: "the loaded file was deleted or replaced, and the core has nothing to compare this one with"}
	}
	return verdict{fits: true, why: "unverified: the core has neither build ID nor mappings to compare"}
}

// headerPage is how much of an image the kernel dumps for its header alone
// (coredump_filter bit 4): one page. ELF and program headers, entry point,
// section header offset, notes and the start of the hash tables lie there.
const headerPage = 4096

// compareHeaders compares the beginning of the file with the core's memory. It
// returns whether the core has it, and what differs.
func (l *loader) compareHeaders(m *Module, f *elfimage.File) (same bool, why string) {
	if !m.Image.Headers {
		return false, ""
	}
	mem, err := elfimage.FromMemory(l.core, m.Image.Base, m.Name())
	if err != nil {
		return false, ""
	}
	if !slices.Equal(mem.Progs(), f.Progs()) {
		return false, "its program headers differ from those in the core's memory"
	}
	for _, p := range f.Progs() {
		if p.Type != elfimage.PTLoad || p.Off != 0 {
			continue
		}
		if p.Flags&elfimage.PFW != 0 {
			return false, "" // the process may have changed it
		}
		have, want := make([]byte, min(headerPage, p.Filesz)), make([]byte, min(headerPage, p.Filesz))
		if n, _ := f.ReadAt(have, 0); n < len(have) {
			return false, "it ends before its segments"
		}
		if n, _ := l.core.ReadMemory(m.Image.Base, want); n < len(want) {
			return false, "" // not all of the page was dumped
		}
		if !bytes.Equal(have, want) {
			return false, "its first page differs from the one in the core's memory"
		}
		return true, ""
	}
	return false, ""
}

// fileEnd is the file offset behind the last segment.
func fileEnd(f *elfimage.File) (uint64, bool) {
	end := uint64(0)
	for _, p := range f.Progs() {
		if p.Type != elfimage.PTLoad {
			continue
		}
		if p.Off+p.Filesz < p.Off {
			return 0, false
		}
		end = max(end, p.Off+p.Filesz)
	}
	return end, true
}

// AT_PAGESZ (include/uapi/linux/auxvec.h), and the page size to assume when a
// core has none: that of x86-64.
const (
	atPagesz    = 6
	defaultPage = 4096
	maxPage     = 1 << 20 // more is a forged value
)

// pageSize is the granularity of the target's mappings.
func (l *loader) pageSize() uint64 {
	if v, ok := l.core.Auxv(atPagesz); ok && v >= defaultPage && v <= maxPage {
		return v
	}
	return defaultPage
}

// filesKnown says that the core's list of mapped files is whole, so that a
// segment without mapping is a contradiction.
func (l *loader) filesKnown() bool {
	for _, w := range l.core.Warnings() {
		switch w.Code {
		case elfcore.WarnNoFileNote, elfcore.WarnNotesCut, elfcore.WarnNote, elfcore.WarnTooMany:
			return false
		}
	}
	return true
}

// compareMappings checks that each segment of f is mapped from m's file, at
// the right offset and as code or not, and that code ends where the mapping
// ends. It returns how many places could be compared, and what is wrong with
// the first that disagrees.
func (l *loader) compareMappings(m *Module, f *elfimage.File, bias uint64) (agree int, why string) {
	if m.Image.Path == "" {
		return 0, ""
	}
	for _, p := range f.Progs() {
		if p.Type != elfimage.PTLoad || p.Filesz == 0 {
			continue
		}
		// The first byte, and the last one of the file's part.
		for _, in := range []uint64{0, p.Filesz - 1} {
			why, known := l.comparePlace(m, p, in, target.Addr(p.Vaddr+in+bias))
			if why != "" {
				return agree, why
			}
			if known {
				agree++
			}
		}
		if p.Flags&elfimage.PFX == 0 {
			continue
		}
		end := target.Addr(p.Vaddr + p.Filesz + bias)
		if mapped, ok := l.codeEnd(end-1, m.Image.Path); ok && uint64(mapped-end) >= l.pageSize() {
			return agree, fmt.Sprintf("its code ends at %s, the mapped code at %s", end, mapped)
		}
	}
	return agree, ""
}

// comparePlace checks one byte of a segment, at file position p.Off+in.
func (l *loader) comparePlace(m *Module, p elfimage.Prog, in uint64, at target.Addr) (why string, known bool) {
	mp := l.core.Mapping(at)
	if mp == nil || mp.Path == "" {
		if m.Image.Source == elfcore.FromFileNote && l.filesKnown() {
			return fmt.Sprintf("its segment at %s isn't mapped", at), false
		}
		return "", false
	}
	if mp.Path != m.Image.Path {
		return fmt.Sprintf("its segment at %s is mapped from another file", at), false
	}
	if off := mp.FileOff + uint64(at-mp.Start); off != p.Off+in {
		return fmt.Sprintf("its segment at %s has file offset %#x, the mapping has %#x", at, p.Off+in, off), false
	}
	if code := p.Flags&elfimage.PFX != 0; mp.Perm != "" && code != mp.Executable() {
		return fmt.Sprintf("its segment at %s is code: %t, the mapping has %s", at, code, mp.Perm), false
	}
	return "", true
}

// codeEnd follows the executable mappings of one file from a on to their end.
func (l *loader) codeEnd(a target.Addr, path string) (target.Addr, bool) {
	mp := l.core.Mapping(a)
	if mp == nil || mp.Path != path || !mp.Executable() {
		return 0, false
	}
	end := mp.End
	const most = 64 // mprotect may have split it, but not into many
	for range most {
		mp = l.core.Mapping(end)
		if mp == nil || mp.Path != path || !mp.Executable() {
			break
		}
		end = mp.End
	}
	return end, true
}
