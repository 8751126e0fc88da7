package libthr

import (
	"path"
	"strings"

	"mycore/internal/target"
)

// noField is the offset of a member that a generation doesn't have, or whose
// place isn't known.
const noField = ^uint64(0)

// fbsdLayout is struct pthread of FreeBSD's libthr in one generation: offsets
// in bytes, the same on amd64 and arm64.
type fbsdLayout struct {
	name         string
	tid          uint64 // long tid
	next         uint64 // TAILQ_ENTRY tle: tqe_next, then tqe_prev
	startRoutine uint64
	stackAddr    uint64 // attr.stackaddr_attr, then attr.stacksize_attr
	attrFlags    uint64
	state        uint64 // 0 running, 1 dead
	tcb          uint64
	magic        uint64 // 32-bit
	wchan        uint64 // what it sleeps on: the condition variable
	mutexObj     uint64 // the mutex that it left for the condition
	wakeAddr     uint64
	threadName   uint64 // char *
	size         uint64

	// mutexOwner: struct pthread_mutex has an owner pointer of its own, and
	// struct pthread_rwlock names its writer by pointer (FreeBSD 10).
	mutexOwner bool
}

// fbsdLayouts are the known generations, computed from the declarations in
// lib/libthr/thread/thr_private.h for LP64, newest first:
//   - 15: a main-branch state with dlerror_msg before wake_addr; which release
//     is the first is unverified.
//   - 13: main-branch states with fsigblock; with dlerror_msg at the end (14)
//     or without it. Which patch release has which is unverified.
//   - 12: releng/12.1; 11 is taken to be the same without name (unverified),
//     where the word is padding, zero.
//   - 10: releng/10.4.
//
// _PTHREAD_FORCED_UNWIND is set in lib/libthr/Makefile, so that the 16-aligned
// member ex is present.
var fbsdLayouts = []fbsdLayout{
	{name: "15", next: 64, startRoutine: 136, stackAddr: 176, attrFlags: 168, state: 400, tcb: 552, magic: 620,
		wchan: 656, mutexObj: 664, wakeAddr: 1632, threadName: 1648, size: 1664},
	{name: "13", next: 64, startRoutine: 136, stackAddr: 176, attrFlags: 168, state: 400, tcb: 552, magic: 620,
		wchan: 656, mutexObj: 664, wakeAddr: 1112, threadName: 1128, size: 1136},
	{name: "12", next: 56, startRoutine: 128, stackAddr: 168, attrFlags: 160, state: 392, tcb: 544, magic: 604,
		wchan: 640, mutexObj: 648, wakeAddr: 1096, threadName: 1112, size: 1120},
	{name: "10", next: 56, startRoutine: 128, stackAddr: 168, attrFlags: 160, state: 392, tcb: 480, magic: 540,
		wchan: 576, mutexObj: 584, wakeAddr: 1000, threadName: noField, size: 1024, mutexOwner: true},
}

// The offsets that libthr publishes for libthread_db
// (lib/libthr/thread/thr_symbols.c): ints in its data, exported as
// FBSDprivate_1.0 (lib/libthr/pthread.map). _thread_off_linkmap and
// _thread_off_tlsindex are offsets in the run-time linker's Obj_Entry, and
// _thread_off_dtv is one in the TCB: they aren't needed here.
const (
	symOffTCB       = "_thread_off_tcb"
	symOffTID       = "_thread_off_tid"
	symOffNext      = "_thread_off_next"
	symOffAttrFlags = "_thread_off_attr_flags"
	symOffState     = "_thread_off_state"
	symThreadList   = "_thread_list" // TAILQ_HEAD: tqh_first, tqh_last
)

const (
	// fbsdMagic is THR_MAGIC (thr_private.h).
	fbsdMagic = 0xd09ba115
	// fbsdTerminated is TID_TERMINATED: what tid is after the thread's exit.
	fbsdTerminated = 1
)

// tcbLayout is struct tcb (lib/libthr/arch/{amd64,aarch64}/include/pthread_md.h,
// 10.4 and 12.1; newer releases moved it to sys/tls_variant or x86/include/tls.h
// with the same fields, unverified).
type tcbLayout struct {
	self   bool   // the first word is the TCB's own address
	thread uint64 // offset of tcb_thread: the struct pthread
}

var tcbLayouts = map[target.Arch]tcbLayout{
	target.AMD64: {self: true, thread: 16},
	target.ARM64: {thread: 8},
}

// isLibthr tells whether an image of this recorded path is FreeBSD's libthr.
func isLibthr(p string) bool { return strings.HasPrefix(path.Base(p), "libthr.so") }

// fbsdPublished is what the library says about itself.
type fbsdPublished struct {
	module string
	known  bool
	// The published part of a layout; noField where it isn't.
	tid, next, tcb, attrFlags, state uint64
	list                             target.Addr // of _thread_list; 0 unknown
}

// fbsdModules returns the images that may be libthr, most likely first.
func (l *Library) fbsdModules() []string {
	if l.symbols == nil {
		return nil
	}
	var named, others []string
	for _, p := range l.symbols.ModulePaths() {
		switch {
		case isLibthr(p):
			named = append(named, p)
		case strings.HasPrefix(p, "["), len(others) == maxStaticLookups:
		default:
			others = append(others, p)
		}
	}
	if len(named) > 0 {
		return named
	}
	return others // a static program has libthr in itself
}

func (l *Library) fbsdPublished() fbsdPublished {
	none := fbsdPublished{tid: noField, next: noField, tcb: noField, attrFlags: noField, state: noField}
	for _, p := range l.fbsdModules() {
		out := none
		if a, ok := l.symbols.LookupSymbol(p, symThreadList); ok {
			out.module, out.list = p, a
		}
		if _, ok := l.symbols.LookupSymbol(p, symOffTCB); ok {
			out.module = p
			out.tid = l.fbsdOffset(p, symOffTID, 8)
			out.tcb = l.fbsdOffset(p, symOffTCB, 8)
			out.next = l.fbsdOffset(p, symOffNext, 8)
			out.attrFlags = l.fbsdOffset(p, symOffAttrFlags, 4)
			out.state = l.fbsdOffset(p, symOffState, 4)
			out.known = out.tid != noField && out.tcb != noField && out.next != noField
		}
		if out.module != "" {
			return out
		}
	}
	return none
}

// fbsdOffset reads one published offset of a member of size bytes.
func (l *Library) fbsdOffset(module, symbol string, size uint64) uint64 {
	a, ok := l.symbols.LookupSymbol(module, symbol)
	if !ok {
		return noField
	}
	v, err := target.Uint32(l.mem, a)
	if err != nil || uint64(v)%size != 0 || uint64(v) > maxStructSize-2*size {
		return noField
	}
	return uint64(v)
}

// fits: the generation is what the library publishes, as far as it does.
func (g *fbsdLayout) fits(p *fbsdPublished) bool {
	same := func(pub, own uint64) bool { return pub == noField || pub == own }
	return same(p.tid, g.tid) && same(p.next, g.next) && same(p.tcb, g.tcb) &&
		same(p.attrFlags, g.attrFlags) && same(p.state, g.state)
}

// fbsdCandidate is one reading of the structures.
type fbsdCandidate struct {
	layout fbsdLayout
	source target.Source
}

// fbsdCandidates lists the readings to try, the published first.
func fbsdCandidates(p *fbsdPublished) []fbsdCandidate {
	var out []fbsdCandidate
	if p.known {
		known := false
		for _, g := range fbsdLayouts {
			if g.fits(p) {
				known = true
				out = append(out, fbsdCandidate{g, target.SourceSymbol})
			}
		}
		if !known { // a generation that came later: what it publishes is all
			out = append(out, fbsdCandidate{fbsdLayout{name: "unknown", tid: p.tid, next: p.next, tcb: p.tcb, state: p.state, attrFlags: p.attrFlags,
				startRoutine: noField, stackAddr: noField, magic: noField, wchan: noField, mutexObj: noField, wakeAddr: noField, threadName: noField,
				size: max(p.tid, p.next+8, p.tcb) + 8}, target.SourceSymbol})
		}
	}
	for _, g := range fbsdLayouts {
		if !p.known || !g.fits(p) {
			out = append(out, fbsdCandidate{g, target.SourceProfile})
		}
	}
	return out
}
