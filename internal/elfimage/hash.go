package elfimage

import (
	"encoding/binary"
	"fmt"
)

// gnuHashTable is the head of DT_GNU_HASH: nbuckets, symoffset, bloom_size,
// bloom_shift, then bloom words, buckets, chains (glibc elf/dl-lookup.c and
// binutils; there is no formal specification).
type gnuHashTable struct {
	nbuckets, symoffset, bloomSize, bloomShift uint32
	bloom, buckets, chains                     uint64 // link-time addresses
}

// maxBuckets bounds what a forged table can make a walk read.
const maxBuckets = 1 << 22

func (f *File) readGNUHash(at uint64) (gnuHashTable, error) {
	var b [16]byte
	if _, err := f.ReadVaddr(at, b[:]); err != nil {
		return gnuHashTable{}, err
	}
	le := binary.LittleEndian
	g := gnuHashTable{nbuckets: le.Uint32(b[0:]), symoffset: le.Uint32(b[4:]), bloomSize: le.Uint32(b[8:]), bloomShift: le.Uint32(b[12:])}
	if g.nbuckets == 0 || g.nbuckets > maxBuckets || g.bloomSize == 0 || g.bloomSize > maxBuckets {
		return g, fmt.Errorf("%s: DT_GNU_HASH at %#x: %w: %d buckets, %d bloom words", f.name, at, errBadHash, g.nbuckets, g.bloomSize)
	}
	g.bloom = at + 16
	g.buckets = g.bloom + uint64(g.bloomSize)*uint64(f.word())
	g.chains = g.buckets + 4*uint64(g.nbuckets)
	return g, nil
}

func (f *File) uint32At(vaddr uint64) (uint32, error) {
	var b [4]byte
	if _, err := f.ReadVaddr(vaddr, b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}

// gnuSymbolCount finds the end of the last chain: that is the number of symbols.
func (f *File) gnuSymbolCount(g *gnuHashTable) (uint64, error) {
	last := uint32(0)
	buf := make([]byte, 4*min(g.nbuckets, 4096))
	for i := uint32(0); i < g.nbuckets; {
		b := buf[:4*min(g.nbuckets-i, 4096)]
		if _, err := f.ReadVaddr(g.buckets+4*uint64(i), b); err != nil {
			return 0, err
		}
		for k := 0; k < len(b); k += 4 {
			last = max(last, binary.LittleEndian.Uint32(b[k:]))
		}
		i += uint32(len(b) / 4)
	}
	if last < g.symoffset {
		return uint64(g.symoffset), nil
	}
	for n := uint64(last); n < MaxSymbols; n++ {
		h, err := f.uint32At(g.chains + 4*(n-uint64(g.symoffset)))
		if err != nil {
			return 0, err
		}
		if h&1 != 0 {
			return n + 1, nil
		}
	}
	return 0, fmt.Errorf("%s: DT_GNU_HASH: %w: last chain has no end", f.name, errBadHash)
}

// maxChain bounds one hash chain: real ones have a handful of entries.
const maxChain = 1 << 12

// LookupDynSym finds a defined dynamic symbol by name through the GNU or the
// SysV hash table, so that it costs a few reads. Of several versions of a name
// the default one is returned. Without a hash table the symbols are scanned.
func (f *File) LookupDynSym(name string) (Sym, bool) {
	d, err := f.dynSyms()
	switch {
	case err != nil:
		return f.scanDynSym(name)
	case d.hasGNU:
		return f.lookupGNU(d, name)
	case d.hasSysV:
		return f.lookupSysV(d, name)
	}
	return f.scanDynSym(name)
}

func (f *File) lookupGNU(d *dynTables, name string) (Sym, bool) {
	g := &d.gnu
	h := uint32(5381)
	for i := 0; i < len(name); i++ {
		h = h*33 + uint32(name[i])
	}
	w := uint32(f.word())
	var b [8]byte
	if _, err := f.ReadVaddr(g.bloom+uint64(h/(w*8)%g.bloomSize)*uint64(w), b[:w]); err != nil {
		return Sym{}, false
	}
	word := f.wordAt(b[:])
	if word>>(h%(w*8))&1 == 0 || word>>(h>>(g.bloomShift&31)%(w*8))&1 == 0 {
		return Sym{}, false
	}
	idx, err := f.uint32At(g.buckets + 4*uint64(h%g.nbuckets))
	if err != nil || idx < g.symoffset {
		return Sym{}, false
	}
	pick := f.newPick(d, name)
	for step := uint32(0); step < maxChain; step++ {
		ch, err := f.uint32At(g.chains + 4*uint64(idx-g.symoffset+step))
		if err != nil {
			break
		}
		if ch|1 == h|1 && pick.offer(idx+step) {
			break
		}
		if ch&1 != 0 {
			break
		}
	}
	return pick.best, pick.found
}

func (f *File) lookupSysV(d *dynTables, name string) (Sym, bool) {
	h := uint32(0) // gABI, "Hash Table"
	for i := 0; i < len(name); i++ {
		h = h<<4 + uint32(name[i])
		if g := h & 0xf0000000; g != 0 {
			h ^= g >> 24
			h &^= g
		}
	}
	nbucket, err := f.uint32At(d.sysvHash)
	if err != nil || nbucket == 0 {
		return Sym{}, false
	}
	idx, err := f.uint32At(d.sysvHash + 8 + 4*uint64(h%nbucket))
	pick := f.newPick(d, name)
	for step := 0; err == nil && idx != 0 && step < maxChain; step++ {
		if pick.offer(idx) {
			break
		}
		idx, err = f.uint32At(d.sysvHash + 8 + 4*(uint64(nbucket)+uint64(idx)))
	}
	return pick.best, pick.found
}

// symPick chooses among symbols of one name: the default version wins.
type symPick struct {
	d     *dynTables
	t     *SymTable
	name  string
	best  Sym
	found bool
}

func (f *File) newPick(d *dynTables, name string) *symPick {
	return &symPick{d: d, t: f.dynTable(d, MaxSymbols), name: name}
}

// offer looks at symbol i and reports whether the search is over.
func (p *symPick) offer(i uint32) bool {
	s, err := p.t.At(int(i))
	if err != nil || !s.Defined() || !p.t.nameIs(s, p.name) {
		return false
	}
	if !p.found {
		p.best, p.found = s, true
	}
	if !p.d.hasVersym {
		return true
	}
	var b [2]byte
	if _, err := p.t.f.ReadVaddr(p.d.versym+2*uint64(i), b[:]); err != nil {
		return true
	}
	const hidden = 0x8000 // VERSYM_HIDDEN: an old version kept for old programs
	if binary.LittleEndian.Uint16(b[:])&hidden == 0 {
		p.best = s
		return true
	}
	return false
}

// scanDynSym is the way for files with a .dynsym section and no hash table.
func (f *File) scanDynSym(name string) (Sym, bool) {
	t, err := f.Symbols(Dynsym)
	if err != nil {
		return Sym{}, false
	}
	var found Sym
	ok := false
	_ = t.Each(func(_ int, s Sym) bool { // a table that ends early: what is there counts
		if s.Defined() && t.nameIs(s, name) {
			found, ok = s, true
		}
		return !ok
	})
	return found, ok
}
