package unwind

import (
	"errors"
	"sync"

	"mycore/internal/cfi"
	"mycore/internal/modules"
	"mycore/internal/symtab"
	"mycore/internal/target"
)

// space is the code of the process, as far as the walk needs to know it.
type space interface {
	// at gives the image that pc is in, nil if it is in none.
	at(pc target.Addr) *image
	// extent gives the bounds of the mapping around an address, hi exclusive.
	extent(a target.Addr) (lo, hi target.Addr, ok bool)
	// executable says that an address may hold code.
	executable(a target.Addr) bool
}

// symbols is what an image's symbol table answers (symtab.Table).
type symbols interface {
	At(vaddr uint64) (symtab.Symbol, bool)
	Starting(vaddr uint64) (symtab.Symbol, bool)
}

// finder is what a call frame information table answers (cfi.Table).
type finder interface {
	Find(pc uint64) (*cfi.FDE, error)
}

// image is one loaded module: how its addresses are moved, its call frame
// information in the order in which it is asked, and its symbols.
type image struct {
	module *modules.Module
	bias   uint64
	// tables is nil and missing says why when the binary isn't at hand.
	tables  []finder
	missing error
	syms    symbols
	// entry is the link-time address where the program is entered, 0 for an
	// image that isn't the program.
	entry uint64
}

// maxEntryCode is more than the code of _start: 34 to 47 bytes in the crt1.o
// of glibc 2.12 to 2.43 and musl.
const maxEntryCode = 64

// entered says that a link-time address is in the program's entry code. Nobody
// called that (System V psABI AMD64, section 3.4.1). Newer glibcs say so in
// its call frame information, older ones have none for it, and programs with
// an entry of their own pretend that it returns.
func (m *image) entered(link uint64) bool {
	return m.entry != 0 && link >= m.entry && link-m.entry < maxEntryCode
}

// find looks a link-time address up in the tables. The error of the first
// table that is broken is kept for the message; none is cfi.ErrNoFDE. For
// entry code the first table is enough: the others take long to open.
func (m *image) find(pc uint64) (*cfi.FDE, error) {
	if m.missing != nil {
		return nil, m.missing
	}
	err := cfi.ErrNoFDE
	for _, t := range m.tables {
		f, e := t.Find(pc)
		if e == nil {
			return f, nil
		}
		if errors.Is(err, cfi.ErrNoFDE) {
			err = e
		}
		if m.entered(pc) {
			break
		}
	}
	return nil, err
}

// site is everything about one program counter that doesn't depend on the
// stack. Threads that wait in the same place share it.
type site struct {
	img      *image // nil: in no module
	row      *cfi.Row
	err      error // why there is no row
	lookup   target.Addr
	offset   uint64 // link-time address of the program counter
	start    uint64 // of the FDE, link-time
	end      uint64
	function string
	within   uint64      // distance from the function's start
	begin    target.Addr // where calls enter the function: its symbol, else its FDE; 0 unknown
	signal   bool
	kernel   bool // a signal trampoline that is known by its code only
	entry    bool // the program's entry code
}

// siteKey is a program counter and whether it is a return address.
type siteKey struct {
	pc     target.Addr
	called bool
}

const siteShards = 16

type siteShard struct {
	mu sync.RWMutex
	m  map[siteKey]*site
}

// site gives what is known about a program counter, from the cache if another
// walk came by. called says that it is a return address.
func (u *Unwinder) site(pc target.Addr, called bool) *site {
	key := siteKey{pc, called}
	sh := &u.shards[(pc^pc>>4^pc>>12)%siteShards]
	sh.mu.RLock()
	s := sh.m[key]
	sh.mu.RUnlock()
	if s != nil {
		return s
	}
	s = u.resolve(pc, called)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if other := sh.m[key]; other != nil {
		return other
	}
	if u.sites.Add(1) <= maxSites {
		sh.m[key] = s
	}
	return s
}

// resolve finds image, row and name of a program counter.
func (u *Unwinder) resolve(pc target.Addr, called bool) *site {
	s := &site{lookup: pc}
	if called {
		s.lookup--
	}
	s.img = u.space.at(s.lookup)
	if s.img == nil {
		return s
	}
	s.offset = uint64(pc) - s.img.bias
	link := uint64(s.lookup) - s.img.bias
	f, err := s.img.find(link)
	if called && (err != nil || f.End == link+1) {
		// glibc's entry for the trampoline starts one byte early, so that this
		// isn't needed; others start it where handlers return to.
		if at, e := s.img.find(s.offset); e == nil && at.SignalFrame {
			f, err, link, s.lookup = at, nil, s.offset, pc
		}
	}
	switch {
	case err != nil:
		s.err = err
		s.entry = s.img.missing == nil && s.img.entered(link)
		s.kernel = u.trampoline(pc)
		s.signal = s.kernel
		if s.kernel {
			link, s.lookup = s.offset, pc
		}
	default:
		s.start, s.end, s.signal = f.Start, f.End, f.SignalFrame
		s.row, s.err = f.Row(link)
		s.within = s.offset - s.start
		s.entry = f.Start == s.img.entry && s.img.entry != 0
	}
	s.name(link)
	if s.function != "" || s.end != 0 {
		s.begin = pc - target.Addr(s.within)
	}
	return s
}

// starters are the named functions whose return address is 0 because a thread
// begins in them: those of glibc, musl, libthr and the C start-up code.
// libthr's thread_start (thr_create.c) is static: FreeBSD's stripped library
// shows its neighbour's name.
var starters = map[string]bool{
	"start_thread": true, "start": true, "start_c11": true, "thread_start": true,
	"clone": true, "__clone": true, "clone3": true, "__clone3": true,
	"pthread_create": true, "_pthread_create": true,
	"_start": true, "__start": true, "_start1": true, "main": true, "_rtld_start": true,
}

// mayStart says that a return address of 0 can be the stack's end here: in a
// function without a name, or one that threads begin in. In any other it is
// damage.
func (s *site) mayStart() bool { return s.function == "" || starters[s.function] }

// functionStart gives the start of the function, without asking symbols.
func (s *site) functionStart() (uint64, bool) {
	if s.entry {
		return s.img.entry, true
	}
	return s.start, s.end != 0
}

// name finds the symbol: one whose size covers the address, or one without a
// size that starts where the FDE, or the program's entry code, does. The
// nearest symbol is never taken.
func (s *site) name(link uint64) {
	if s.img.syms == nil {
		return
	}
	sym, ok := s.img.syms.At(link)
	if start, known := s.functionStart(); !ok && known {
		sym, ok = s.img.syms.Starting(start)
		ok = ok && sym.Size == 0
	}
	if ok {
		s.function, s.within = sym.Name, s.offset-sym.Start
	}
}
