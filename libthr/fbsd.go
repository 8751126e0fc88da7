package libthr

import (
	"errors"
	"fmt"
	"slices"

	"mycore/internal/target"
)

// osFreeBSD is Options.OS for targets of FreeBSD, as elfcore names it.
const osFreeBSD = "freebsd"

// fbsd is what is known about a FreeBSD target's libthr.
type fbsd struct {
	layout *fbsdLayout // nil: none explains the threads
	source target.Source
	tcb    tcbLayout
	// rest are structures on the library's list that are no thread's: threads
	// that end, or damage.
	rest map[target.Addr]fbsdStruct
}

// fbsdTry is a candidate with what it finds.
type fbsdTry struct {
	fbsdCandidate
	walk  *fbsdWalk
	byTP  map[int]target.Addr // LWP -> structure that its thread pointer leads to
	good  int                 // LWPs that a whole structure names
	wakes int                 // of them, those with a plausible wake_addr
}

// discoverFreeBSD finds the layout that explains the threads and fills them in.
func (l *Library) discoverFreeBSD() {
	l.fbsd = &fbsd{tcb: tcbLayouts[l.arch], rest: map[target.Addr]fbsdStruct{}}
	pub := l.fbsdPublished()
	l.Module = pub.module
	cands := fbsdCandidates(&pub)
	var best *fbsdTry
	var published *fbsdTry
	for _, c := range cands {
		t := l.fbsdTry(c, &pub)
		if c.source == target.SourceSymbol && published == nil {
			published = t
		}
		if best == nil || t.good > best.good || t.good == best.good && t.wakes > best.wakes && t.source == best.source {
			best = t
		}
		if t.good == len(l.threads) && t.wakes == t.good {
			break // nothing can explain more
		}
	}
	if best == nil || best.good == 0 {
		l.fbsdUnexplained(&pub, best)
		return
	}
	l.Kind = KindLibthr
	l.fbsd.layout, l.fbsd.source = &best.layout, best.source
	if published != nil && best.source != target.SourceSymbol {
		l.warn(CodeOffset, "%q publishes offsets of struct pthread (tcb %d, list %d) that the threads don't have: those of FreeBSD %s (tcb %d, list %d) are used; the file may not be the one that ran, or the core is damaged",
			pub.module, pub.tcb, pub.next, best.layout.name, best.layout.tcb, best.layout.next)
	}
	if best.layout.magic == noField {
		l.warn(CodeLayout, "%q publishes offsets of struct pthread that no known release has: handles are found by them, but not what a thread waits for", pub.module)
	}
	l.fbsdLayoutFields(best)
	l.fbsdFill(best)
}

func (l *Library) fbsdLayoutFields(t *fbsdTry) {
	f := func(off, size uint64, s target.Source) Field {
		if off == noField {
			return Field{}
		}
		return Field{Offset: off, Size: size, Source: s, Known: true}
	}
	g := &t.layout
	l.Layout = Layout{
		Size:         Field{Size: g.size, Source: target.SourceProfile, Known: g.magic != noField},
		TID:          f(g.tid, 8, t.source),
		List:         f(g.next, 16, t.source),
		StartRoutine: f(g.startRoutine, 8, target.SourceProfile),
	}
}

// fbsdTry reads all that a candidate leads to.
func (l *Library) fbsdTry(c fbsdCandidate, pub *fbsdPublished) *fbsdTry {
	t := &fbsdTry{fbsdCandidate: c, byTP: map[int]target.Addr{}}
	r := newFbsdReader(l.mem, &t.layout, l.fbsd.tcb)
	t.walk = &fbsdWalk{r: r, most: min(listSlack+2*len(l.threads), maxListNodes), seen: make(map[target.Addr]fbsdStruct, len(l.threads))}
	if pub.list != 0 {
		t.walk.list(pub.list)
	}
	missing := false
	for i := range l.threads {
		th := &l.threads[i]
		if !th.ThreadPointer.Known || th.ThreadPointer.V == 0 {
			missing = true
			continue
		}
		h, err := r.thread(th.ThreadPointer.V)
		if err != nil || h == 0 {
			continue
		}
		t.byTP[th.LWP] = h
		if _, ok := t.walk.seen[h]; !ok {
			if s := r.read(h); s.err == nil && s.magic {
				t.walk.seen[h] = s
				t.walk.order = append(t.walk.order, h)
			}
		}
	}
	if pub.list == 0 && missing {
		l.fbsdSeed(t)
	}
	lwps := l.lwpSet()
	once := map[uint64]bool{}
	for _, h := range t.walk.order {
		s := t.walk.seen[h]
		if s.whole() && lwps[s.tid] && !once[s.tid] {
			once[s.tid] = true
			t.good++
			if l.fbsdWakes(t, h) {
				t.wakes++
			}
		}
	}
	return t
}

func (l *Library) lwpSet() map[uint64]bool {
	m := make(map[uint64]bool, len(l.threads))
	for i := range l.threads {
		m[uint64(l.threads[i].LWP)] = true
	}
	return m
}

// fbsdWakes tells whether wake_addr is where the layout says: libthr gives
// each thread a word to sleep on (thr_list.c, _thr_alloc), so there is a
// pointer to readable memory. It tells generations apart that differ only
// behind mutex_obj.
func (l *Library) fbsdWakes(t *fbsdTry, h target.Addr) bool {
	if t.layout.wakeAddr == noField {
		return false
	}
	a, err := target.Uint64(l.mem, h+target.Addr(t.layout.wakeAddr))
	if err != nil || a == 0 || a%4 != 0 {
		return false
	}
	_, err = target.Uint32(l.mem, target.Addr(a))
	return err == nil
}

// listSlack is how many structures more than twice the threads a list may
// have: those of threads that end leave it at once, so a few are much.
const listSlack = 256

// Bounds of the search for a first structure when no symbol leads to one.
const (
	seedThreads = 64      // threads to look at
	seedStack   = 8 << 10 // bytes of each stack from the stack pointer on
	seedReads   = 20000   // reads of words that might be a structure's id
)

// fbsdSeed finds one structure through the registers and the stacks, where
// libthr's functions keep the pointer to the calling thread's, and from it all
// others by their links.
func (l *Library) fbsdSeed(t *fbsdTry) {
	for _, h := range slices.Clone(t.walk.order) { // found by thread pointers
		l.fbsdFrom(t, h)
	}
	lwps := l.lwpSet()
	reads := 0
	try := func(v uint64) bool {
		h := target.Addr(v)
		if v%16 != 0 || v <= maxPID || reads >= seedReads {
			return false
		}
		if _, ok := t.walk.seen[h]; ok {
			return false
		}
		reads++
		tid, err := target.Uint64(l.mem, h+target.Addr(t.layout.tid))
		if err != nil || !lwps[tid] {
			return false
		}
		if s := t.walk.r.read(h); !s.whole() {
			return false
		}
		l.fbsdFrom(t, h)
		return true
	}
	stack := make([]byte, seedStack)
	for i := range min(len(l.threads), seedThreads) {
		regs := l.regs[l.threads[i].LWP]
		if regs == nil {
			continue
		}
		for n := range target.MaxRegs {
			if v, ok := regs.Get(n); ok && try(v) {
				return
			}
		}
		sp, ok := regs.SP()
		if !ok {
			continue
		}
		n, _ := l.mem.ReadMemory(sp, stack) // a stack may end before that
		for at := 0; at+8 <= n; at += 8 {
			if try(le64(stack[at:])) {
				return
			}
		}
	}
}

// fbsdFrom walks from a structure in both directions.
func (l *Library) fbsdFrom(t *fbsdTry, h target.Addr) {
	s, ok := t.walk.seen[h]
	if !ok {
		if s, ok = t.walk.add(h); !ok {
			return
		}
	}
	link := h + target.Addr(t.layout.next)
	if _, again := t.walk.seen[s.next]; s.next != 0 && !again {
		t.walk.forward(s.next, link)
	}
	if off := target.Addr(t.layout.next); s.prev > off {
		if _, again := t.walk.seen[s.prev-off]; !again {
			t.walk.backward(s.prev, 0)
		}
	}
	// Without the head, the end of a walk over good links isn't damage.
}

// fbsdFill gives the threads their structures.
func (l *Library) fbsdFill(t *fbsdTry) {
	byTID := map[uint64][]target.Addr{}
	for _, h := range t.walk.order {
		byTID[t.walk.seen[h].tid] = append(byTID[t.walk.seen[h].tid], h)
	}
	var wrong, unreadable []int
	used := map[target.Addr]bool{}
	for i := range l.threads {
		th := &l.threads[i]
		h, s, problem := l.fbsdPick(t, th, byTID)
		if h == 0 {
			th.Problem = problem
			continue
		}
		used[h] = true
		th.Handle = target.Known(h, target.SourceMemory)
		if t.byTP[th.LWP] == h {
			th.Handle.Source = th.ThreadPointer.Source
		}
		if s.err != nil {
			th.Problem = fmt.Sprintf("its thread structure could not be read: %v", s.err)
			unreadable = append(unreadable, th.LWP)
			continue
		}
		l.fbsdDescribe(t, th, s)
		proof, problem := l.fbsdConfirm(t, th, h, s)
		th.Proof, th.Problem, th.Confirmed = proof, problem, problem == ""
		if !th.Confirmed && (s.tcbErr == nil || !isReadError(s.tcbErr)) {
			wrong = append(wrong, th.LWP)
		} else if !th.Confirmed {
			unreadable = append(unreadable, th.LWP)
		}
	}
	for _, h := range t.walk.order {
		if !used[h] {
			l.fbsd.rest[h] = t.walk.seen[h]
		}
	}
	if t.walk.damaged != nil {
		l.warn(CodeList, "the thread library's list of threads is damaged (%v): %d of %d threads have a structure all the same, and the others no handle", t.walk.damaged, len(used), len(l.threads))
	}
	if len(wrong) > 0 {
		l.warn(CodeTID, "the thread structures of %d threads contradict what the kernel says about them (LWP %s): their handles are unconfirmed; the core is damaged or libthr isn't the one that ran",
			len(wrong), listInts(wrong))
	}
	if len(unreadable) > 0 {
		l.warn(CodeUnreadable, "the thread structures or TCBs of %d threads could not be read (LWP %s): their handles are unconfirmed", len(unreadable), listInts(unreadable))
	}
}

// fbsdPick finds the structure of a thread: the one that its thread pointer
// leads to, else the one that has its id.
func (l *Library) fbsdPick(t *fbsdTry, th *Thread, byTID map[uint64][]target.Addr) (target.Addr, fbsdStruct, string) {
	if h, ok := t.byTP[th.LWP]; ok {
		s, seen := t.walk.seen[h]
		if !seen {
			s = t.walk.r.read(h)
		}
		return h, s, ""
	}
	switch hs := byTID[uint64(th.LWP)]; len(hs) {
	case 0:
		return 0, fbsdStruct{}, "no thread structure has its id: it is starting or ending, or the list of threads is damaged"
	case 1:
		return hs[0], t.walk.seen[hs[0]], ""
	default:
		// A structure that is no thread's any more may keep an id.
		var whole []target.Addr
		for _, h := range hs {
			if s := t.walk.seen[h]; s.whole() {
				whole = append(whole, h)
			}
		}
		if len(whole) == 1 {
			return whole[0], t.walk.seen[whole[0]], ""
		}
		return 0, fbsdStruct{}, fmt.Sprintf("%d thread structures have its id", len(hs))
	}
}

func (l *Library) fbsdDescribe(t *fbsdTry, th *Thread, s fbsdStruct) {
	th.TargetTID = target.Known(int(min(s.tid, 1<<31)), t.source)
	if s.start != 0 {
		th.StartRoutine = target.Known(s.start, target.SourceMemory)
	}
	if s.stack.End != 0 {
		th.Stack = target.Known(s.stack, target.SourceMemory)
	}
	if off := t.layout.threadName; off != noField && th.Handle.Known {
		if p, err := target.Uint64(l.mem, th.Handle.V+target.Addr(off)); err == nil && p != 0 {
			if n, err := target.CString(l.mem, target.Addr(p), maxThreadName); err == nil && n != "" {
				th.Name = target.Known(n, target.SourceMemory)
			}
		}
	}
}

// maxThreadName bounds a name that a program gave a thread: the kernel keeps
// 19 characters of it (MAXCOMLEN), libthr all.
const maxThreadName = 64

// fbsdConfirm checks a structure against its thread. It returns what proves
// the two to belong together, or what speaks against it.
func (l *Library) fbsdConfirm(t *fbsdTry, th *Thread, h target.Addr, s fbsdStruct) (proof, problem string) {
	switch {
	case s.zero:
		return "", "its thread structure is all zeros: whoever wrote the core didn't save it"
	case !s.magic:
		return "", "the structure that its thread pointer leads to has no magic number of libthr"
	case s.tid == fbsdTerminated:
		return "", "its thread structure says that the thread has ended"
	case s.tid != uint64(th.LWP):
		return "", fmt.Sprintf("its thread structure has the id %d", s.tid)
	case s.tcb == 0:
		return "", "its thread structure has no TCB"
	case s.tcbErr != nil && isReadError(s.tcbErr):
		return "", fmt.Sprintf("its TCB could not be read: %v", s.tcbErr)
	case s.tcbErr != nil:
		return "", s.tcbErr.Error()
	case !s.back:
		return "", fmt.Sprintf("its TCB at %v points to another thread structure", s.tcb)
	}
	proof = fmt.Sprintf("the id there is %d, and its TCB at %v points back", s.tid, s.tcb)
	if _, ok := t.byTP[th.LWP]; ok {
		if th.ThreadPointer.V != s.tcb {
			return "", fmt.Sprintf("its thread pointer is %v, its structure has the TCB %v", th.ThreadPointer.V, s.tcb)
		}
		proof += ", where the thread pointer of that LWP leads too"
	}
	own, other := l.fbsdStackOf(t, th, h, s)
	if other != 0 {
		return "", fmt.Sprintf("its stack pointer lies in the stack of the thread structure %v", other)
	}
	if own {
		proof += "; the stack pointer of that LWP lies in the stack that the structure names"
	}
	return proof, ""
}

func isReadError(err error) bool {
	var re *target.ReadError
	return errors.As(err, &re)
}

// fbsdStackOf tells whether a thread's stack pointer lies in the stack that its
// structure names, or else in which other structure's. Neither is no
// contradiction: a program may change stacks, as for signals.
func (l *Library) fbsdStackOf(t *fbsdTry, th *Thread, h target.Addr, s fbsdStruct) (own bool, other target.Addr) {
	regs := l.regs[th.LWP]
	if regs == nil {
		return false, 0
	}
	sp, ok := regs.SP()
	if !ok || s.stack.End == 0 {
		return false, 0
	}
	if s.stack.Contains(sp) {
		return true, 0
	}
	if t.walk.r.g.stackAddr == noField {
		return false, 0
	}
	stacks := l.fbsdStacks(t)
	i, found := slices.BinarySearchFunc(stacks, sp, func(o fbsdStack, sp target.Addr) int {
		switch {
		case o.r.Contains(sp):
			return 0
		case o.r.Start > sp:
			return 1
		}
		return -1
	})
	if found && stacks[i].h != h {
		return false, stacks[i].h
	}
	return false, 0
}

type fbsdStack struct {
	r Range
	h target.Addr
}

// fbsdStacks lists the stacks of the living by address, once.
func (l *Library) fbsdStacks(t *fbsdTry) []fbsdStack {
	if l.stacks == nil {
		lwps := l.lwpSet()
		l.stacks = []fbsdStack{}
		for _, h := range t.walk.order {
			if s := t.walk.seen[h]; s.stack.End != 0 && s.whole() && lwps[s.tid] {
				l.stacks = append(l.stacks, fbsdStack{s.stack, h})
			}
		}
		slices.SortFunc(l.stacks, func(a, b fbsdStack) int { return compareAddr(a.r.Start, b.r.Start) })
	}
	return l.stacks
}

// fbsdUnexplained leaves the threads without handles and says why.
func (l *Library) fbsdUnexplained(pub *fbsdPublished, best *fbsdTry) {
	zero := 0
	if best != nil {
		for _, s := range best.walk.seen {
			if s.zero {
				zero++
			}
		}
	}
	if pub.module != "" {
		l.Kind = KindLibthr
	}
	problem := "the thread library's structures were not found"
	switch {
	case pub.list != 0 && best != nil && best.walk.damaged != nil:
		problem = "the thread library's structures could not be read"
		l.warn(CodeUnreadable, "no structure on libthr's list of threads can be read or is a thread's (%v): threads have no handles", best.walk.damaged)
	case pub.list != 0:
		l.warn(CodeUnknownLibrary, "libthr's list of threads names none of the threads: they have no handles; the program isn't threaded, or the file isn't the one that ran")
	case len(l.fbsdModules()) == 0:
		l.warn(CodeUnknownLibrary, "libthr was not found, and no thread structure through registers and stacks: threads have no handles; give the target's libraries with --sysroot")
	default:
		l.warn(CodeUnknownLibrary, "the symbols of libthr were not found, and no thread structure through registers and stacks: threads have no handles; give the target's libraries with --sysroot")
	}
	for i := range l.threads {
		l.threads[i].Problem = problem
	}
}
