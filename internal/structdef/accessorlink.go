package structdef

import (
	"encoding/binary"

	"mycore/internal/elfimage"
)

// Dynamic tags and relocation types (ELF gABI; psABI x86-64, table 4.9).
const (
	dtPLTRelSz  = 2
	dtRela      = 7
	dtRelaSz    = 8
	dtJmpRel    = 23
	dtRelaCount = 0x6ffffff9 // the first DT_RELACOUNT entries name no symbol
	rGlobDat    = 6
	rJumpSlot   = 7
	relaBytes   = 24
	// maxLinks bounds the relocations with symbols that are read: mysqld 9.7
	// has some ten thousand, 24 bytes each.
	maxLinks = 1 << 18
)

// accLinks names the functions that the image's pointers to functions elsewhere
// (its GOT) are for, from the relocations, which are read when first needed.
type accLinks struct {
	file   *elfimage.File
	done   bool
	symbol map[uint64]uint32 // by address of the pointer: number of the dynamic symbol
	syms   *elfimage.SymTable
}

// slot is the function that the pointer at addr will hold: its name, and its
// address when it is one of this image.
func (l *accLinks) slot(addr uint64) (name string, entry uint64) {
	if !l.done {
		l.done = true
		l.load()
	}
	n, ok := l.symbol[addr]
	if !ok || l.syms == nil {
		return "", 0
	}
	sym, err := l.syms.At(int(n))
	if err != nil {
		return "", 0
	}
	if name, err = l.syms.Name(sym); err != nil {
		return "", 0
	}
	if sym.Defined() {
		entry = sym.Value
	}
	return name, entry
}

func (l *accLinks) load() {
	l.symbol = map[uint64]uint32{}
	syms, err := l.file.Symbols(elfimage.Dynsym)
	if err != nil {
		return
	}
	l.syms = syms
	tag := func(t int64) uint64 { v, _ := l.file.DynValue(t); return v }
	l.table(tag(dtJmpRel), tag(dtPLTRelSz)/relaBytes)
	rela, n, skip := tag(dtRela), tag(dtRelaSz)/relaBytes, tag(dtRelaCount)
	if skip <= n && skip <= 1<<32 {
		l.table(rela+skip*relaBytes, n-skip)
	}
}

// table reads Elf64_Rela entries {offset, info, addend}.
func (l *accLinks) table(at, n uint64) {
	n = min(n, maxLinks)
	var buf [relaBytes * 128]byte
	for n > 0 && at != 0 {
		b := buf[:relaBytes*min(n, 128)]
		got, _ := l.file.ReadVaddr(at, b)
		for e := b[:got/relaBytes*relaBytes]; len(e) > 0; e = e[relaBytes:] {
			info := binary.LittleEndian.Uint64(e[8:])
			if t := uint32(info); (t == rGlobDat || t == rJumpSlot) && len(l.symbol) < maxLinks {
				l.symbol[binary.LittleEndian.Uint64(e)] = uint32(info >> 32)
			}
		}
		if got < len(b) {
			return
		}
		at, n = at+uint64(len(b)), n-uint64(len(b)/relaBytes)
	}
}
