package elfcore

import (
	"cmp"
	"slices"

	"mycore/internal/elfimage"
	"mycore/internal/target"
)

const (
	// maxLinkMap bounds the walk over the loader's list.
	maxLinkMap = 4096
	// maxPhnum bounds AT_PHNUM; executables have about a dozen headers.
	maxPhnum = 512
	// maxDynamic bounds the entries of the executable's dynamic table.
	maxDynamic = 4096
)

// words reads n words of the target.
func (p *Process) words(a target.Addr, n int) ([]uint64, error) {
	w := 8
	if p.file.Class() == elfimage.Class32 {
		w = 4
	}
	b := make([]byte, n*w)
	got, err := p.ReadMemory(a, b)
	out := make([]uint64, 0, n)
	for b = b[:got/w*w]; len(b) > 0; b = b[w:] {
		out = append(out, word(b, w))
	}
	return out, err
}

// imagesFromLinkMap walks the loader's list of images: the executable's
// program headers are at AT_PHDR, its dynamic table has DT_DEBUG, which points
// to struct r_debug (elf/link.h: int version, struct link_map *r_map, ...), and
// each struct link_map has l_addr, l_name, l_ld, l_next, l_prev (elf/link.h;
// the same in musl).
func (p *Process) imagesFromLinkMap() []Image {
	dyn, ok := p.mainDynamic()
	if !ok {
		return nil
	}
	return p.walkLinkMap(dyn)
}

// ImagesWith is Images for a core whose memory lacks the executable's program
// headers and that has no list of mapped files: the headers are taken from exe,
// the executable's file. Images that are found that way are added to those that
// Images gives.
func (p *Process) ImagesWith(exe *elfimage.File) []Image {
	imgs := slices.Clone(p.images)
	phdr, ok := p.Auxv(atPhdr)
	if !ok {
		return imgs
	}
	var dyn, bias uint64
	haveDyn, haveBias := false, false
	for _, g := range exe.Progs() {
		switch g.Type {
		case elfimage.PTDynamic:
			dyn, haveDyn = g.Vaddr, true
		case elfimage.PTPhdr:
			bias, haveBias = phdr-g.Vaddr, true
		}
	}
	if !haveDyn || !haveBias {
		return imgs
	}
	imgs = addMissing(imgs, p.walkLinkMap(target.Addr(dyn+bias)))
	slices.SortStableFunc(imgs, func(a, b Image) int { return cmp.Compare(a.Base, b.Base) })
	p.markMain(imgs)
	return imgs
}

func (p *Process) walkLinkMap(dyn target.Addr) []Image {
	rdebug, ok := p.debugPointer(dyn)
	if !ok {
		return nil
	}
	head, err := p.words(rdebug, 2)
	if err != nil {
		return nil
	}
	vdso, _ := p.vdsoBase()
	var out []Image
	seen := map[uint64]bool{}
	for at := head[1]; at != 0 && !seen[at] && len(seen) < maxLinkMap; {
		seen[at] = true
		lm, err := p.words(target.Addr(at), 4)
		if err != nil {
			break // what was found up to the hole stands
		}
		if im, ok := p.linked(lm[0], lm[1], lm[2]); ok && uint64(im.Base) != vdso {
			out = append(out, im)
		}
		at = lm[3]
	}
	return out
}

// debugPointer finds the value of DT_DEBUG in the executable's dynamic table.
func (p *Process) debugPointer(dyn target.Addr) (target.Addr, bool) {
	const chunk = 64 // words
	for i := 0; i < maxDynamic; i += chunk / 2 {
		ws, err := p.words(dyn+target.Addr(i*2*p.wordSize()), chunk)
		for k := 0; k+1 < len(ws); k += 2 {
			switch int64(ws[k]) {
			case elfimage.DTNull:
				return 0, false
			case elfimage.DTDebug:
				return target.Addr(ws[k+1]), ws[k+1] != 0
			}
		}
		if err != nil {
			return 0, false
		}
	}
	return 0, false
}

func (p *Process) wordSize() int {
	if p.file.Class() == elfimage.Class32 {
		return 4
	}
	return 8
}

// mainDynamic returns the runtime address of the executable's dynamic table.
func (p *Process) mainDynamic() (target.Addr, bool) {
	phdr, ok1 := p.Auxv(atPhdr)
	phnum, ok2 := p.Auxv(atPhnum)
	if !ok1 || !ok2 || phnum == 0 || phnum > maxPhnum {
		return 0, false
	}
	size := 56
	if p.wordSize() == 4 {
		size = 32
	}
	if phent, ok := p.Auxv(atPhent); ok && phent != uint64(size) {
		return 0, false
	}
	b := make([]byte, int(phnum)*size)
	n, _ := p.ReadMemory(target.Addr(phdr), b) // headers before a hole still count
	var dyn uint64
	var bias uint64
	haveDyn, haveBias := false, false
	for b = b[:n/size*size]; len(b) > 0; b = b[size:] {
		g := elfimage.DecodeProg(b, p.file.Class())
		switch {
		case g.Type == elfimage.PTDynamic:
			dyn, haveDyn = g.Vaddr, true
		case g.Type == elfimage.PTPhdr:
			bias, haveBias = phdr-g.Vaddr, true
		case g.Type == elfimage.PTLoad && g.Off == 0 && !haveBias:
			// Without PT_PHDR: the table follows the ELF header, which is
			// where the segment of offset 0 begins.
			head := uint64(64)
			if size == 32 {
				head = 52
			}
			bias, haveBias = phdr-head-g.Vaddr, true
		}
	}
	return target.Addr(dyn + bias), haveDyn && haveBias
}

// linked makes the image of one link_map entry.
func (p *Process) linked(addr, name, ld uint64) (Image, bool) {
	im := Image{Source: FromLinkMap}
	// A name that can't be read leaves the image without one: its build ID may
	// still find it.
	im.Path, _ = target.CString(p, target.Addr(name), maxPath)
	var ok bool
	if im.Path == "" { // the executable has no name here
		tag := uint64(atExecfn)
		if p.freebsd != nil {
			tag = fbATExecpath
		}
		if fn, known := p.Auxv(tag); known {
			im.Path, _ = target.CString(p, target.Addr(fn), maxPath)
		}
		im.Base, ok = p.mainBase()
	}
	if !ok {
		im.Base, ok = p.baseOf(target.Addr(addr), target.Addr(ld))
	}
	if !ok {
		return im, false // no address in the process: nothing to attach the name to
	}
	im.End = im.Base + 1
	if end, ok := p.span(im.Base); ok {
		im.End = end
	} else if m := p.find(target.Addr(ld)); m != nil && m.End > im.Base {
		im.End = m.End
	}
	return im, true
}

// mainBase returns the base of the executable: its program headers follow its
// ELF header.
func (p *Process) mainBase() (target.Addr, bool) {
	phdr, ok := p.Auxv(atPhdr)
	if !ok {
		return 0, false
	}
	m := p.find(target.Addr(phdr))
	if m == nil || !p.isBase(m.Start) {
		return 0, false
	}
	return m.Start, true
}

// baseOf finds where an image begins, from its l_addr and l_ld. l_addr is the
// base where the image is linked at 0; prelinked libraries and executables at
// fixed addresses have another one.
func (p *Process) baseOf(addr, ld target.Addr) (target.Addr, bool) {
	if p.isBase(addr) {
		return addr, true
	}
	const most = 16 // an image has five mappings, and holes between them
	at := p.index(ld)
	for i := at; i >= 0 && i > at-most; i-- {
		if p.isBase(p.maps[i].Start) {
			return p.maps[i].Start, true
		}
	}
	m := p.find(addr)
	return addr, addr != 0 && m != nil && m.Start == addr && ld > addr
}

// nameMappings gives mappings that no NT_FILE names the file and offset that
// the images' own program headers imply, so that their bytes can be read from
// the file. Only mappings that lie in one segment's file part are named.
func (p *Process) nameMappings(imgs []Image) {
	for i := range imgs {
		f, err := elfimage.FromMemory(p, imgs[i].Base, "")
		if err != nil || imgs[i].Path == "" {
			continue
		}
		for _, g := range f.Progs() {
			if g.Type == elfimage.PTLoad && g.Filesz > 0 {
				p.nameSegment(imgs[i].Path, f.Bias(), g)
			}
		}
	}
}

func (p *Process) nameSegment(path string, bias uint64, g elfimage.Prog) {
	const page = 4096 // AArch64 may have more: then fewer mappings match, none wrongly
	in := g.Vaddr % page
	if g.Off < in {
		return
	}
	start := g.Vaddr - in + bias
	end := (g.Vaddr+g.Filesz+page-1)&^(page-1) + bias
	for a := target.Addr(start); a < target.Addr(end); {
		m := p.find(a)
		if m == nil {
			return
		}
		if m.Path == "" && uint64(m.Start) >= start && uint64(m.End) <= end {
			m.Path, m.FileOff = path, g.Off-in+uint64(m.Start)-start
		}
		a = m.End
	}
}
