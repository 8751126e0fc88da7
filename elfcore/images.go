package elfcore

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"mycore/internal/elfimage"
	"mycore/internal/target"
)

// How an image was found.
const (
	FromFileNote = "NT_FILE"           // the list of mapped files
	FromVMMap    = "PROCSTAT_VMMAP"    // FreeBSD's list of mappings
	FromLinkMap  = "link map"          // the loader's list: AT_PHDR, DT_DEBUG, link_map
	FromHeaders  = "headers in memory" // an ELF header at the start of a mapping
	FromAuxv     = "auxiliary vector"  // the vDSO
)

// Image is one loaded ELF image.
type Image struct {
	Path    string      // as recorded, " (deleted)" included; "[vdso]"; "" unknown
	Base    target.Addr // runtime address of file offset 0
	End     target.Addr // first address behind its last known mapping
	Source  string      // FromFileNote, FromVMMap, FromLinkMap, FromHeaders or FromAuxv
	Main    bool        // the executable
	VDSO    bool        // the kernel's own library; only in memory
	Headers bool        // its ELF header is in the core's memory
	BuildID []byte      // from the notes in memory; nil when they aren't in the core
}

// Auxiliary vector tags (include/uapi/linux/auxvec.h).
const (
	atPhdr        = 3
	atPhent       = 4
	atPhnum       = 5
	atEntry       = 9
	atExecfn      = 31
	atSysinfoEhdr = 33
)

// Images returns the loaded images in address order. The slice is shared:
// don't change it.
func (p *Process) Images() []Image { return p.images }

// ImageAt returns the image that holds a, nil if none does.
func (p *Process) ImageAt(a target.Addr) *Image {
	imgs := p.Images()
	i, found := slices.BinarySearchFunc(imgs, a, func(im Image, a target.Addr) int { return cmp.Compare(im.Base, a) })
	if !found {
		i--
	}
	if i < 0 || a >= imgs[i].End {
		return nil
	}
	return &imgs[i]
}

func (p *Process) findImages() []Image {
	imgs := p.imagesFromFiles()
	if !p.notes.fileSeen || p.notes.fileCut {
		linked := p.imagesFromLinkMap()
		p.nameMappings(linked)
		imgs = addMissing(imgs, linked)
		imgs = addMissing(imgs, p.imagesFromHeaders())
	}
	if base, ok := p.vdsoBase(); ok {
		if m := p.find(target.Addr(base)); m != nil {
			imgs = slices.DeleteFunc(imgs, func(im Image) bool { return im.Base == target.Addr(base) })
			imgs = append(imgs, Image{Path: "[vdso]", Base: target.Addr(base), End: m.End, Source: FromAuxv, VDSO: true})
		}
	}
	slices.SortStableFunc(imgs, func(a, b Image) int { return cmp.Compare(a.Base, b.Base) })
	if len(imgs) > maxImages {
		imgs = imgs[:maxImages]
	}
	for i := range imgs {
		next := target.Addr(math.MaxUint64)
		if i+1 < len(imgs) {
			next = imgs[i+1].Base
		}
		p.readHeaders(&imgs[i], next)
	}
	p.markMain(imgs)
	return imgs
}

// vdsoBase returns where the kernel's own library begins.
func (p *Process) vdsoBase() (uint64, bool) {
	if p.freebsd != nil {
		return p.Auxv(fbATKPreload)
	}
	return p.Auxv(atSysinfoEhdr)
}

// readHeaders takes what the image's own headers in memory say: the build ID,
// and an end that includes .bss, which no file mapping covers, but never the
// next image.
func (p *Process) readHeaders(im *Image, next target.Addr) {
	f, err := elfimage.FromMemory(p, im.Base, im.Path)
	if err != nil {
		return
	}
	im.Headers = true
	if id, ok := f.BuildID(); ok {
		im.BuildID = slices.Clone(id)
	}
	if end, ok := spanOf(f, im.Base); ok && !im.VDSO {
		im.End = max(im.End, min(end, next))
	}
}

// addMissing adds images whose base lies in none of those already known.
func addMissing(have, more []Image) []Image {
	for _, im := range more {
		if !slices.ContainsFunc(have, func(h Image) bool { return im.Base >= h.Base && im.Base < h.End || im.Base == h.Base }) {
			have = append(have, im)
		}
	}
	return have
}

// markMain finds the executable: the image with its own program headers, by
// AT_PHDR, or with its entry point.
func (p *Process) markMain(imgs []Image) {
	for _, tag := range []uint64{atPhdr, atEntry} {
		v, ok := p.Auxv(tag)
		if !ok {
			continue
		}
		for i := range imgs {
			if a := target.Addr(v); a >= imgs[i].Base && a < imgs[i].End {
				imgs[i].Main = true
				return
			}
		}
	}
}

// hasELFMagic tells whether an ELF header stands at a; known is false when that
// memory isn't in the core.
func (p *Process) hasELFMagic(a target.Addr) (is, known bool) {
	var b [4]byte
	if _, err := p.ReadMemory(a, b[:]); err != nil {
		return false, false
	}
	return string(b[:]) == "\x7fELF", true
}

// zeroHeader tells whether zeros stand where a file's header belongs: some
// writers leave zeros for a page that they couldn't read, so it says no more
// than a page that is missing.
func (p *Process) zeroHeader(a target.Addr) bool {
	var b [64]byte // size of an ELF header
	_, err := p.ReadMemory(a, b[:])
	return err == nil && b == [64]byte{}
}

// isBase tells whether an image begins at a: its ELF header stands there, and
// the mapping has the permissions of the segment with that header. The second
// matters for small libraries, whose read-only data (RELRO) is mapped from the
// first page of the file once more, header and all.
func (p *Process) isBase(a target.Addr) bool {
	if is, _ := p.hasELFMagic(a); !is {
		return false
	}
	f, err := elfimage.FromMemory(p, a, "")
	if err != nil {
		return false
	}
	m := p.find(a)
	for _, g := range f.Progs() {
		if g.Type == elfimage.PTLoad && g.Off == 0 {
			return m.Perm == "" || m.Perm == permNames[g.Flags&7]
		}
	}
	return true // nothing to compare with, as in a hand-made image
}

// span returns the runtime end of the image at base by its own program headers,
// rounded up to a page.
func (p *Process) span(base target.Addr) (target.Addr, bool) {
	f, err := elfimage.FromMemory(p, base, "")
	if err != nil {
		return 0, false
	}
	return spanOf(f, base)
}

func spanOf(f *elfimage.File, base target.Addr) (target.Addr, bool) {
	hi, ok := f.HighestVaddr()
	const page = 4096
	end := target.Addr(hi+f.Bias()+page-1) &^ (page - 1)
	const most = 1 << 40 // no image spans a terabyte: a forged header
	return end, ok && end > base && end-base < most
}

// candidate is a file on its way to being an image.
type candidate struct {
	Image
	exec, noPerm bool
	pieces       int
	spanned      bool        // the next two are set
	spanEnd      target.Addr // by its own headers
	spanOK       bool
}

// imagesFromFiles groups the mappings of NT_FILE: an image begins where a file
// is mapped from offset 0 on, and goes on with the mappings of the same file
// behind it.
func (p *Process) imagesFromFiles() []Image {
	source := FromFileNote
	if p.freebsd != nil {
		source = FromVMMap
	}
	var cands []candidate
	latest := map[string]int{}
	last := ""
	for i := range p.maps {
		m := &p.maps[i]
		if m.Path == "" {
			continue
		}
		at, known := latest[m.Path]
		if known && m.FileOff == 0 && !p.continues(&cands[at], m, last) {
			known = false
		}
		if !known {
			if m.FileOff > uint64(m.Start) || len(cands) >= maxImages {
				continue
			}
			cands = append(cands, candidate{Image: Image{Path: m.Path, Base: m.Start - target.Addr(m.FileOff), Source: source}})
			at = len(cands) - 1
			latest[m.Path] = at
		}
		c := &cands[at]
		c.End = m.End
		c.pieces++
		c.exec = c.exec || m.Executable()
		c.noPerm = c.noPerm || m.Perm == ""
		last = m.Path
	}
	var out []Image
	for i := range cands {
		if p.isImage(&cands[i]) {
			out = append(out, cands[i].Image)
		}
	}
	return out
}

// continues tells whether a second mapping of a file from offset 0 belongs to
// the image c (small programs have text and data in one page of the file) or
// is the file loaded again.
func (p *Process) continues(c *candidate, m *Mapping, last string) bool {
	if !c.spanned { // once: forged lists name one file many times
		c.spanEnd, c.spanOK = p.span(c.Base)
		c.spanned = true
	}
	if c.spanOK {
		return m.Start < c.spanEnd
	}
	const gap = 4 << 20 // the linker aligns segments to 2 MiB at most on these machines
	return last == m.Path && m.Start-c.End <= gap
}

// isImage tells loaded code from mapped data: something is executable, and the
// header, where it can be read, is ELF. Where gdb left out the text, nobody
// knows the permissions; then the name or several mappings have to do.
func (p *Process) isImage(c *candidate) bool {
	if is, known := p.hasELFMagic(c.Base); known && !(c.pieces >= 2 && p.zeroHeader(c.Base)) {
		return is && (c.exec || c.noPerm)
	}
	if c.exec {
		return true
	}
	if !c.noPerm {
		return false
	}
	if v, ok := p.Auxv(atPhdr); ok && target.Addr(v) >= c.Base && target.Addr(v) < c.End {
		return true
	}
	// Kernel objects without a file, such as "anon_inode:[io_uring]", have names
	// that aren't paths (fs/anon_inodes.c).
	return strings.HasPrefix(c.Path, "/") && (c.pieces >= 2 || strings.Contains(c.Path, ".so"))
}

// maxHeaderScan bounds the mappings that imagesFromHeaders looks into.
const maxHeaderScan = 4096

// imagesFromHeaders looks for ELF headers at the start of mappings. The kernel
// dumps the first page of a file mapping that holds one (coredump_filter bit
// 4), and then nothing else of it, so these mappings are few.
func (p *Process) imagesFromHeaders() []Image {
	var out []Image
	budget := maxHeaderScan
	for i := range p.maps {
		m := &p.maps[i]
		if m.Present == 0 || m.Writable() || budget == 0 {
			continue
		}
		budget--
		if !p.isBase(m.Start) {
			continue
		}
		im := Image{Path: m.Path, Base: m.Start, End: m.End, Source: FromHeaders}
		if end, ok := p.span(m.Start); ok {
			im.End = end
		}
		out = append(out, im)
	}
	return out
}
