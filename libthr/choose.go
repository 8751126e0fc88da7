package libthr

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"mycore/internal/target"
)

// candidate is one reading of the threads' structures: a library, where the
// structure starts, where the id is.
type candidate struct {
	kind   Kind
	module string
	layout Layout
	size   uint64 // distance from thread pointer down to the structure, 0 where it starts there
	self   []uint64
	reader *structReader // of judge, with what it read
	verdict
}

// verdict says how well a candidate explains the threads.
type verdict struct {
	zero  int // structures that are all zeros: not saved
	whole int // structures that could be read and point to themselves
	equal int // of them, those whose id is the LWP, or what the kernel calls its inner id
	other int // those with another plausible id
	bad   int // those whose id is impossible, or the same as another's
	dead  int // those with id 0 or below: a thread on its way out
	fits  fit
	// namespace: ids that differ from the LWP are accepted, because all do.
	namespace bool
}

type fit int

// The order of trust among candidates.
const (
	fitNone      fit = iota
	fitNamespace     // all ids differ, one to one, and could be those of a PID namespace
	fitSome          // some ids are the LWPs
	fitAll           // all ids are the LWPs
)

// choose finds the candidate that explains the threads and fills them in.
func (l *Library) choose(kernelTID map[int]int) {
	paths, named := l.modules()
	published, module := l.readLayout(paths)
	cands := l.candidates(published, module, named)
	var best *candidate
	tie := false
	for i := range cands {
		c := &cands[i]
		c.verdict = l.judge(c, kernelTID)
		switch {
		case best == nil, c.better(best):
			best, tie = c, false
		case !best.better(c) && c.fits != fitNone && c.layout.TID.Source != target.SourceSymbol && best.layout.TID.Source != target.SourceSymbol:
			tie = true
		}
	}
	if best == nil || best.fits == fitNone || tie {
		l.unexplained(cands, named, tie)
		return
	}
	l.Kind, l.Module, l.Layout = best.kind, best.module, best.layout
	if l.Module == "" {
		l.Module = named[best.kind]
	}
	if published.TID.Known && best.layout.TID.Source != target.SourceSymbol {
		l.warn(CodeOffset, "%q says that tid is at %#x of struct pthread, but the threads have it at %#x: the latter is used; the file may not be the one that ran",
			module, published.TID.Offset, best.layout.TID.Offset)
	}
	l.fill(best, kernelTID)
}

// better: the published offset wins a draw, because it comes first.
func (c *candidate) better(o *candidate) bool {
	if c.fits != o.fits {
		return c.fits > o.fits
	}
	return c.fits == fitSome && c.equal > o.equal
}

// candidates lists the readings to try: published offsets first.
func (l *Library) candidates(published Layout, module string, named map[Kind]string) []candidate {
	_, isGlibc := named[KindGlibc]
	_, isMusl := named[KindMusl]
	anyKind := !isGlibc && !isMusl
	var out []candidate
	add := func(c candidate) {
		if !l.profile.below {
			out = append(out, c)
			return
		}
		if c.layout.Size.Known {
			c.size = c.layout.Size.Size
			out = append(out, c)
		} else if c.size = l.searchSize(&c); c.size != 0 {
			c.layout.Size = Field{Size: c.size, Source: target.SourceSearch, Known: true}
			out = append(out, c)
		}
	}
	if isGlibc || anyKind || published.TID.Known {
		if published.TID.Known {
			add(candidate{kind: KindGlibc, module: module, layout: published, self: l.profile.glibcSelf})
		}
		if !published.TID.Known || published.TID.Offset != l.profile.glibcTID {
			lay := published
			lay.TID = Field{Offset: l.profile.glibcTID, Size: 4, Source: target.SourceProfile, Known: true}
			add(candidate{kind: KindGlibc, module: module, layout: lay, self: l.profile.glibcSelf})
		}
	}
	if isMusl || anyKind && !published.TID.Known {
		for _, off := range l.profile.muslTID {
			add(candidate{kind: KindMusl, self: []uint64{0},
				layout: Layout{TID: Field{Offset: off, Size: 4, Source: target.SourceSearch, Known: true}}})
		}
	}
	return out
}

// holder is the thread taken for the owner of a structure.
type holder struct {
	lwp, tid int
	equal    bool
	pointer  bool
}

// holders reads the structures that thread pointers lead to. Threads that
// share one count once: as the thread that it names, if it names one. zero
// counts the structures that were not saved but stand as zeros in the core.
func (l *Library) holders(c *candidate, kernelTID map[int]int) (out []holder, zero int) {
	at := make(map[target.Addr]int, len(l.threads))
	out = make([]holder, 0, len(l.threads))
	rd := newStructReader(l.mem, c)
	c.reader = rd
	for i := range l.threads {
		t := &l.threads[i]
		h, ok := c.handle(t.ThreadPointer)
		if !ok {
			continue
		}
		k, dup := at[h]
		if dup && out[k].equal {
			continue
		}
		s := rd.read(h)
		if s.zero {
			zero++
		}
		if !s.whole {
			continue
		}
		told, ok := kernelTID[t.LWP]
		o := holder{lwp: t.LWP, tid: s.tid, pointer: s.pointer, equal: ok && s.tid == told || !ok && s.tid == t.LWP}
		switch {
		case !dup:
			at[h] = len(out)
			out = append(out, o)
		case o.equal:
			out[k] = o
		}
	}
	return out, zero
}

// judge applies a candidate to all threads.
func (l *Library) judge(c *candidate, kernelTID map[int]int) verdict {
	var v verdict
	ids := make(map[int]bool, len(l.threads))
	lwps := make(map[int]bool, len(l.threads))
	for i := range l.threads {
		lwps[l.threads[i].LWP] = true
	}
	permuted, proven, plain := 0, 0, 0
	owners, zero := l.holders(c, kernelTID)
	v.zero = zero
	for _, o := range owners {
		v.whole++
		switch {
		case o.equal:
			v.equal++
			if o.tid != o.lwp {
				proven++ // the kernel says that the ids differ
			} else {
				plain++
			}
		case o.tid <= 0:
			v.dead++
			continue
		case o.tid > maxPID, o.pointer, ids[o.tid]:
			v.bad++
		default:
			v.other++
			if lwps[o.tid] {
				permuted++
			}
		}
		ids[o.tid] = true
	}
	// One thread with some small number proves nothing, unless the library
	// and the constant agree on where it is.
	least := 2
	if c.layout.TID.Source == target.SourceSymbol && c.layout.TID.Offset == l.profile.glibcTID || proven > 0 {
		least = 1
	}
	// Ids that are exactly the LWPs of other threads are a mix-up, not a
	// namespace.
	alike := plain == 0 && v.bad == 0 && v.other >= least && permuted < v.other
	switch {
	case v.equal > 0 && v.equal == v.whole-v.dead:
		v.fits = fitAll
	case proven > 0 && alike:
		v.fits, v.namespace = fitAll, true
	case v.equal > 0:
		v.fits = fitSome
	case alike:
		v.fits, v.namespace = fitNamespace, true
	}
	return v
}

// handle computes the structure's address from a thread pointer.
func (c *candidate) handle(tp target.Value[target.Addr]) (target.Addr, bool) {
	if !tp.Known || tp.V == 0 || uint64(tp.V) < c.size {
		return 0, false
	}
	return tp.V - target.Addr(c.size), true
}

// unexplained leaves the threads without confirmed handles and says why. On
// x86-64 both libraries take the thread pointer for the handle, so that much
// is still told.
func (l *Library) unexplained(cands []candidate, named map[Kind]string, tie bool) {
	whole, zero, known := 0, 0, 0
	for i := range cands {
		whole, zero = max(whole, cands[i].whole), max(zero, cands[i].zero)
	}
	for i := range l.threads {
		t := &l.threads[i]
		switch {
		case !t.ThreadPointer.Known || t.ThreadPointer.V == 0:
			t.Problem = "its thread pointer is unknown"
			continue
		case len(cands) == 0:
			t.Problem = "the size of the thread structure is unknown"
		case whole == 0 && zero > 0:
			t.Problem = "its thread structure is all zeros: whoever wrote the core didn't save it"
		case whole == 0:
			t.Problem = "its thread structure could not be read, or doesn't point to itself"
		default:
			t.Problem = "no known layout explains the thread structures"
		}
		known++
		if !l.profile.below {
			t.Handle = t.ThreadPointer
		}
	}
	for k, p := range named {
		if len(named) == 1 {
			l.Kind, l.Module = k, p
		}
	}
	switch {
	case known == 0:
		l.warn(CodeUnreadable, "no thread pointer is known: handles can't be mapped to threads")
	case tie:
		l.warn(CodeUnknownLibrary, "more than one layout of the thread structures fits: none is used, and handles rest on the thread pointers alone; mycore handle answers for them, the incident leaves them out")
	case len(cands) == 0:
		l.warn(CodeUnknownLibrary, "the size of the thread structure is unknown, and the handles with it: give the target's C library with --sysroot")
	case whole == 0 && zero > 0:
		l.warn(CodeUnreadable, "the thread structures are zeros in the core, so they were not saved: handles rest on the thread pointers alone; mycore handle answers for them, the incident leaves them out")
	case whole == 0:
		l.warn(CodeUnreadable, "none of the thread structures could be read: handles rest on the thread pointers alone; mycore handle answers for them, the incident leaves them out. A core with the thread stacks has them")
	default:
		l.warn(CodeUnknownLibrary, "no layout of a known thread library explains the thread structures: handles are unconfirmed; give the target's C library with --sysroot")
	}
}

// fill takes every thread's structure by the chosen layout.
func (l *Library) fill(c *candidate, kernelTID map[int]int) {
	rd := c.reader
	var wrong, unreadable, zero []int
	for i := range l.threads {
		t := &l.threads[i]
		h, ok := c.handle(t.ThreadPointer)
		if !ok {
			t.Problem = "its thread pointer is unknown"
			continue
		}
		t.Handle = target.Known(h, t.ThreadPointer.Source)
		s := rd.read(h)
		if s.err != nil {
			t.Problem = fmt.Sprintf("its thread structure could not be read: %v", s.err)
			unreadable = append(unreadable, t.LWP)
			continue
		}
		if s.zero && len(c.self) > 0 {
			t.Problem = "its thread structure is all zeros: whoever wrote the core didn't save it"
			zero = append(zero, t.LWP)
			continue
		}
		if !s.whole {
			t.Problem = "the structure at its thread pointer doesn't point to itself"
			wrong = append(wrong, t.LWP)
			continue
		}
		t.TargetTID = target.Known(s.tid, c.layout.TID.Source)
		if s.start != 0 {
			t.StartRoutine = target.Known(s.start, target.SourceMemory)
		}
		told, byKernel := kernelTID[t.LWP]
		t.Confirmed, t.Problem = confirm(c, t, told, byKernel)
	}
	shared := l.settleShared(kernelTID)
	for i := range l.threads {
		t := &l.threads[i]
		if t.TargetTID.Known && t.TargetTID.V > 0 && !t.Confirmed && !shared[t.LWP] {
			wrong = append(wrong, t.LWP)
		}
	}
	slices.Sort(wrong)
	l.namespace(kernelTID)
	if len(wrong) > 0 {
		l.warn(CodeTID, "the thread structures of %d threads don't name the thread that points to them (LWP %s): their handles are unconfirmed; the core is damaged or the C library isn't the one that ran",
			len(wrong), listInts(wrong))
	}
	if len(zero) > 0 {
		l.warn(CodeUnreadable, "the thread structures of %d threads are zeros in the core (LWP %s), so they were not saved: their handles rest on the thread pointers alone; mycore handle answers for them, the incident leaves them out",
			len(zero), listInts(zero))
	}
	if len(unreadable) > 0 {
		l.warn(CodeUnreadable, "the thread structures of %d threads could not be read (LWP %s): their handles are unconfirmed",
			len(unreadable), listInts(unreadable))
	}
}

// confirm compares the id in a structure that points to itself with the LWP
// whose thread pointer led there.
func confirm(c *candidate, t *Thread, told int, byKernel bool) (bool, string) {
	tid := t.TargetTID.V
	switch {
	case byKernel && tid == told, !byKernel && tid == t.LWP:
		return true, ""
	case tid <= 0:
		return false, fmt.Sprintf("its thread structure has the id %d: the thread is ending", tid)
	case byKernel:
		return false, fmt.Sprintf("its thread structure has the id %d, the kernel says %d", tid, told)
	case c.namespace:
		return true, ""
	}
	return false, fmt.Sprintf("its thread structure has the id %d", tid)
}

// namespace records what the confirmed threads say about PID namespaces.
func (l *Library) namespace(kernelTID map[int]int) {
	byKernel := 0
	for i := range l.threads {
		t := &l.threads[i]
		if !t.Confirmed || t.TargetTID.V == t.LWP {
			continue
		}
		l.Namespace.Threads++
		if _, ok := kernelTID[t.LWP]; ok {
			byKernel++
		}
	}
	l.Namespace.Detected = l.Namespace.Threads > 0
	l.Namespace.ByKernel = l.Namespace.Detected && byKernel == l.Namespace.Threads
}

// settleShared settles threads with one thread pointer: the structure belongs
// to the one whose id is in it. Kernel worker threads of io_uring (iou-wrk,
// io_uring/io-wq.c) are made with the thread pointer of the thread that they
// work for. It returns the LWPs whose structure is shared and nobody's.
func (l *Library) settleShared(kernelTID map[int]int) map[int]bool {
	groups := map[target.Addr][]int{}
	for i := range l.threads {
		if t := &l.threads[i]; t.Handle.Known {
			groups[t.Handle.V] = append(groups[t.Handle.V], i)
		}
	}
	unsettled := map[int]bool{}
	for h, group := range groups {
		if len(group) == 1 {
			continue
		}
		owner := -1
		for _, i := range group {
			t := &l.threads[i]
			if _, told := kernelTID[t.LWP]; t.Confirmed && (told || t.TargetTID.V == t.LWP) {
				owner = i
			}
		}
		for _, i := range group {
			t := &l.threads[i]
			switch {
			case i == owner:
			case owner >= 0:
				t.disown(fmt.Sprintf("it has the thread pointer of LWP %d: a worker thread of the kernel, or a damaged core", l.threads[owner].LWP))
			default:
				unsettled[t.LWP] = true
				t.Confirmed = false
				t.Problem = fmt.Sprintf("%d threads have the thread pointer %v", len(group), h)
			}
		}
	}
	return unsettled
}

// disown takes back a handle that belongs to another thread.
func (t *Thread) disown(why string) {
	*t = Thread{LWP: t.LWP, ThreadPointer: t.ThreadPointer, Problem: why}
}

// maxListed bounds the ids that a warning lists.
const maxListed = 8

func listInts(ids []int) string {
	var b strings.Builder
	for i, id := range ids {
		if i == maxListed {
			fmt.Fprintf(&b, " and %d more", len(ids)-maxListed)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, id)
	}
	return b.String()
}

// searchSize finds how far below the thread pointer the structure starts, when
// the library doesn't publish its size: the one distance that fits all of the
// first threads. 0: none, or more than one.
func (l *Library) searchSize(c *candidate) uint64 {
	const (
		sample = 16   // threads to try; one size must fit them all
		limit  = 4096 // glibc has at most 2,368 bytes so far
		step   = 8
	)
	ok := make([]bool, limit/step+1)
	for s := uint64(minStructSize); s <= limit; s += step {
		ok[s/step] = true
	}
	tried := 0
	buf := make([]byte, limit)
	for i := range l.threads {
		t := &l.threads[i]
		if tried == sample {
			break
		}
		if !t.ThreadPointer.Known || t.ThreadPointer.V < limit {
			continue
		}
		base := t.ThreadPointer.V - limit
		if _, err := l.mem.ReadMemory(base, buf); err != nil {
			continue
		}
		tried++
		for s := uint64(minStructSize); s <= limit; s += step {
			if !ok[s/step] {
				continue
			}
			at := uint64(limit) - s
			for _, off := range c.self {
				if s < off+8 || binary.LittleEndian.Uint64(buf[at+off:]) != uint64(t.ThreadPointer.V)-s {
					ok[s/step] = false
				}
			}
			if off := c.layout.TID.Offset; s < off+4 || int(int32(binary.LittleEndian.Uint32(buf[at+off:]))) != t.LWP {
				ok[s/step] = ok[s/step] && len(c.self) > 0
			}
		}
	}
	found := uint64(0)
	for i, fits := range ok {
		if fits && tried > 0 {
			if found != 0 {
				return 0
			}
			found = uint64(i) * step
		}
	}
	return found
}
