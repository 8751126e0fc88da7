package symtab

import (
	"cmp"
	"math/bits"
	"slices"
	"sort"

	"mycore/internal/elfimage"
)

// entry is one function symbol of the index, kept small: a server has 30,000
// to 200,000.
type entry struct {
	value    uint64
	name     uint32 // offset in the string table
	rankSize uint32 // rank in the top bits, size below
}

// sizeBits leaves 4 bits for the rank. No function reaches 256 MiB, the whole
// text of the largest servers is smaller; a forged size is cut to that.
const sizeBits = 28

const maxFunction = 1<<sizeBits - 1

func (e entry) size() uint32 { return e.rankSize & maxFunction }

// rank says how good a name is for its address, 0 the best.
func (e entry) rank() uint32 { return e.rankSize >> sizeBits }

// index finds functions by address.
type index struct {
	entries []entry  // by value, then as in the table
	reach   []uint64 // reach[i]: highest end of entries[:i+1]
}

// makeIndex reads all function symbols of a table. After an error the symbols
// before it are in the index.
func makeIndex(f *elfimage.File, t *elfimage.SymTable) (index, error) {
	code := codeRanges(f)
	entries := make([]entry, 0, min(t.Len(), 1<<16))
	err := t.Each(func(_ int, s elfimage.Sym) bool {
		if rank, ok := functionRank(s); ok && code.has(s.Value, rank) {
			size := uint32(min(s.Size, maxFunction))
			entries = append(entries, entry{value: s.Value, name: s.NameOff, rankSize: rank<<sizeBits | size})
		}
		return len(entries) < maxIndexed
	})
	x := index{entries: sortByValue(entries)}
	x.reach = make([]uint64, len(x.entries))
	high := uint64(0)
	for i, e := range x.entries {
		end := e.value + uint64(e.size())
		if end < e.value { // at the very top of the address space
			end = ^uint64(0)
		}
		high = max(high, end)
		x.reach[i] = high
	}
	return x, err
}

// Ranks of names at one address. The type says more than the binding: a
// NOTYPE symbol may be a label inside a function.
const (
	rankFunc   = 0 // global or weak
	rankIfunc  = 2 // its code is the resolver, not the function
	rankNotype = 4
	rankLocal  = 1 // added for local symbols
)

// functionRank says whether a symbol can name code, and how well.
func functionRank(s elfimage.Sym) (uint32, bool) {
	if !s.Defined() || s.Shndx == elfimage.SHNAbs {
		return 0, false
	}
	var rank uint32
	switch s.Type() {
	case elfimage.STTFunc:
		rank = rankFunc
	case elfimage.STTGNUIfunc:
		rank = rankIfunc
	case elfimage.STTNotype:
		rank = rankNotype
	default:
		return 0, false
	}
	if s.Bind() == elfimage.STBLocal {
		rank += rankLocal
	}
	return rank, true
}

// ranges are the link-time address ranges of executable segments.
type ranges [][2]uint64

func codeRanges(f *elfimage.File) ranges {
	var r ranges
	for _, p := range f.Progs() {
		if p.Type == elfimage.PTLoad && p.Flags&elfimage.PFX != 0 && p.Memsz <= ^p.Vaddr {
			r = append(r, [2]uint64{p.Vaddr, p.Vaddr + p.Memsz})
		}
	}
	return r
}

// has says that code may lie at v. An image whose segments are unknown takes
// functions anywhere and untyped symbols nowhere.
func (r ranges) has(v uint64, rank uint32) bool {
	if len(r) == 0 {
		return rank < rankNotype && v < 1<<63
	}
	for _, x := range r {
		if v >= x[0] && v < x[1] {
			return true
		}
	}
	return false
}

// maxNested bounds the steps back from an address to a symbol around it;
// labels inside one function are few.
const maxNested = 256

// around finds an entry whose extent holds v: the one that starts last.
func (x *index) around(v uint64) (int, bool) {
	i := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].value > v }) - 1
	for n := 0; i >= 0 && x.reach[i] > v && n < maxNested; i, n = i-1, n+1 {
		if v-x.entries[i].value < uint64(x.entries[i].size()) {
			return i, true
		}
	}
	return 0, false
}

// at finds the first entry that starts at v.
func (x *index) at(v uint64) (int, bool) {
	i := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].value >= v })
	return i, i < len(x.entries) && x.entries[i].value == v
}

const (
	radixBits = 11   // 2048 counters stay in the first-level cache
	radixMin  = 4096 // below, comparing is faster than counting
)

// sortByValue sorts by value, equal values in their given order. Symbol values
// differ in their low 26 bits or so, so that three counting passes do what
// takes seventeen comparisons per symbol otherwise.
func sortByValue(e []entry) []entry {
	if len(e) < radixMin {
		slices.SortStableFunc(e, func(a, b entry) int { return cmp.Compare(a.value, b.value) })
		return e
	}
	low, high := e[0].value, e[0].value
	for _, s := range e {
		low, high = min(low, s.value), max(high, s.value)
	}
	other := make([]entry, len(e))
	for shift := 0; shift < bits.Len64(high-low); shift += radixBits {
		var count [1 << radixBits]int
		for _, s := range e {
			count[(s.value-low)>>shift&(1<<radixBits-1)]++
		}
		sum := 0
		for i, n := range count {
			count[i] = sum
			sum += n
		}
		for _, s := range e {
			k := (s.value - low) >> shift & (1<<radixBits - 1)
			other[count[k]] = s
			count[k]++
		}
		e, other = other, e
	}
	return e
}
