package libthr

import (
	"encoding/binary"
	"errors"
	"path"
	"slices"
	"strings"

	"mycore/internal/target"
)

// ErrUnsupported says that the instruction set's thread structures aren't known here.
var ErrUnsupported = errors.New("not supported")

// archProfile holds what the ABI and the libraries fix per instruction set.
type archProfile struct {
	// below: struct pthread ends where the thread pointer points (TLS variant
	// I), so a handle is the thread pointer minus the structure's size. Else
	// (variant II) the thread pointer is the handle.
	below bool
	// glibcSelf are offsets of words in glibc's struct pthread that hold its
	// own address: tcbhead_t.tcb and .self (sysdeps/x86_64/nptl/tls.h, glibc
	// 2.3 to 2.43). AArch64's tcbhead_t has none (sysdeps/aarch64/nptl/tls.h).
	glibcSelf []uint64
	// glibcTID is the offset of tid in every 64-bit glibc so far: header of 24
	// words (x86-64: tcbhead_t of 0x2c0 bytes), the list node, then tid
	// (nptl/descr.h, glibc 2.4 to 2.43).
	glibcTID uint64
	// muslTID are the offsets of tid in musl's struct pthread, newest first
	// (src/internal/pthread_impl.h): x86-64 0x30 since canary2 went, 0x38
	// before; AArch64 0x20 since the thread list came and dtv moved to the
	// end, the others before.
	muslTID []uint64
}

var archProfiles = map[target.Arch]archProfile{
	target.AMD64: {glibcSelf: []uint64{0, 0x10}, glibcTID: 0x2d0, muslTID: []uint64{0x30, 0x38}},
	target.ARM64: {below: true, glibcTID: 0xd0, muslTID: []uint64{0x20, 0x30, 0x38}},
}

// Bounds of what a thread library may say about itself; glibc 2.43 has a
// struct pthread of 2,368 bytes, musl of about 200.
const (
	minStructSize = 0x80
	maxStructSize = 0x4000
	listNodeSize  = 16 // struct list_head {next, prev} (include/list_t.h)
)

// glibc's descriptors for libthread_db (nptl_db/db_info.c, structs.def):
// objects of three 32-bit words {bits of one element, elements, byte offset},
// and sizes as one 32-bit word. In .dynsym of libc.so.6 (version
// GLIBC_PRIVATE) since 2.34, in .symtab of libpthread before.
const (
	symTID          = "_thread_db_pthread_tid"
	symList         = "_thread_db_pthread_list"
	symStartRoutine = "_thread_db_pthread_start_routine"
	symSizeof       = "_thread_db_sizeof_pthread"
	descriptorSize  = 12
)

// moduleKind tells which thread library an image of this recorded path is.
func moduleKind(p string) Kind {
	base := path.Base(strings.TrimSuffix(p, " (deleted)"))
	switch {
	case strings.HasPrefix(base, "ld-musl-"), strings.HasPrefix(base, "libc.musl-"), base == "libc.so":
		return KindMusl
	case base == "libc.so.6", base == "libpthread.so.0",
		strings.HasPrefix(base, "libc-2.") && strings.HasSuffix(base, ".so"),
		strings.HasPrefix(base, "libpthread-2.") && strings.HasSuffix(base, ".so"):
		return KindGlibc
	}
	return KindUnknown
}

// maxStaticLookups bounds the images that are asked for the descriptors when
// none has the name of a C library: a static program is one or two images.
const maxStaticLookups = 4

// modules returns the images that may be the thread library, most likely
// first, and which libraries their names stand for.
func (l *Library) modules() (paths []string, named map[Kind]string) {
	named = map[Kind]string{}
	if l.symbols == nil {
		return nil, named
	}
	all := l.symbols.ModulePaths()
	for _, p := range all {
		k := moduleKind(p)
		if k == KindUnknown {
			continue
		}
		if _, ok := named[k]; !ok {
			named[k] = p
		}
		switch {
		case k != KindGlibc:
		case strings.HasPrefix(path.Base(p), "libpthread"):
			// Before 2.34 it is the one that has them, and asking libc for
			// what it lacks costs a search through all its symbols.
			paths = slices.Insert(paths, 0, p)
		default:
			paths = append(paths, p)
		}
	}
	if len(named) == 0 {
		for _, p := range all {
			if len(paths) == maxStaticLookups {
				break
			}
			if !strings.HasPrefix(p, "[") { // the vDSO
				paths = append(paths, p)
			}
		}
	}
	return paths, named
}

// readLayout reads glibc's descriptors from the first image that has them.
func (l *Library) readLayout(paths []string) (Layout, string) {
	for _, p := range paths {
		tid, ok := l.descriptor(p, symTID, 4)
		if !ok {
			continue
		}
		lay := Layout{TID: tid}
		lay.List, _ = l.descriptor(p, symList, listNodeSize)
		lay.StartRoutine, _ = l.descriptor(p, symStartRoutine, 8)
		if a, ok := l.symbols.LookupSymbol(p, symSizeof); ok {
			if n, err := target.Uint32(l.mem, a); err == nil && n >= minStructSize && n <= maxStructSize {
				lay.Size = Field{Size: uint64(n), Source: target.SourceSymbol, Known: true}
			}
		}
		return lay, p
	}
	return Layout{}, ""
}

// descriptor reads one descriptor and checks that it describes a single member
// of the wanted size (bytes) inside a structure.
func (l *Library) descriptor(module, symbol string, size uint64) (Field, bool) {
	a, ok := l.symbols.LookupSymbol(module, symbol)
	if !ok {
		return Field{}, false
	}
	var b [descriptorSize]byte
	if _, err := l.mem.ReadMemory(a, b[:]); err != nil {
		return Field{}, false
	}
	bits := binary.LittleEndian.Uint32(b[0:])
	count := binary.LittleEndian.Uint32(b[4:])
	off := uint64(binary.LittleEndian.Uint32(b[8:]))
	if uint64(bits) != size*8 || count != 1 || off%min(size, 8) != 0 || off > maxStructSize-size {
		return Field{}, false
	}
	return Field{Offset: off, Size: size, Source: target.SourceSymbol, Known: true}, true
}
