package libthr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"mycore/internal/target"
)

func codes(l *Library) string {
	var out []string
	for _, w := range l.Warnings {
		out = append(out, w.Code)
	}
	return strings.Join(out, " ")
}

// confirmed lists the LWPs whose handle is confirmed, with the id they show.
func confirmed(l *Library) string {
	var out []string
	for _, t := range l.Threads() {
		if t.Confirmed {
			out = append(out, fmt.Sprintf("%d:%d", t.LWP, t.TargetTID.V))
		}
	}
	return strings.Join(out, " ")
}

func TestGlibc(t *testing.T) {
	p := glibc(t, 3, 1158, 0)
	l := p.discover()
	if l.Kind != KindGlibc || l.Module != libcPath || codes(l) != "" || l.Namespace.Detected {
		t.Fatalf("%+v, warnings %v", l.Kind, l.Warnings)
	}
	want := Layout{
		Size:         Field{Size: 2368, Source: target.SourceSymbol, Known: true},
		TID:          Field{Offset: 0x2d0, Size: 4, Source: target.SourceSymbol, Known: true},
		List:         Field{Offset: 0x2c0, Size: 16, Source: target.SourceSymbol, Known: true},
		StartRoutine: Field{Offset: 0x638, Size: 8, Source: target.SourceSymbol, Known: true},
	}
	if l.Layout != want {
		t.Errorf("layout %+v", l.Layout)
	}
	for i, th := range l.Threads() {
		if th.LWP != 1158+7*i || th.Handle != target.Known(handleAt(i), target.SourceCoreNote) || !th.Confirmed ||
			th.TargetTID != target.Known(th.LWP, target.SourceSymbol) || th.Problem != "" {
			t.Errorf("thread %d: %+v", i, th)
		}
		if th.StartRoutine.Known != (i > 0) || i > 0 && th.StartRoutine.V != startRoutine {
			t.Errorf("thread %d: start routine %+v", i, th.StartRoutine)
		}
		if got, ok := l.ByHandle(handleAt(i)); !ok || got.LWP != th.LWP {
			t.Errorf("ByHandle: %+v, %v", got, ok)
		}
		if got, ok := l.ByLWP(th.LWP); !ok || got.Handle != th.Handle {
			t.Errorf("ByLWP: %+v, %v", got, ok)
		}
	}
	if _, ok := l.ByHandle(handleAt(1) + 8); ok {
		t.Error("an address inside a structure is taken for a handle")
	}
}

// Each case is a way in which a core, or this package, can be wrong. What must
// come out is written per case; a handle must never be confirmed wrongly.
func TestMutants(t *testing.T) {
	for _, c := range []struct {
		name      string
		make      func(t *testing.T) *process
		confirmed string
		warnings  string
		check     func(l *Library) string
	}{
		{"published offset 8 too high", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.descriptors(libcPath, 0x2d8, 2368)
			return p
		}, "100:100 107:107 114:114", CodeOffset, func(l *Library) string {
			if l.Layout.TID.Source != target.SourceProfile || l.Threads()[0].TargetTID.Source != target.SourceProfile {
				return fmt.Sprintf("source of the id: %+v", l.Layout.TID)
			}
			return ""
		}},
		{"structure laid out 8 higher than published", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			for i, th := range p.threads {
				p.put64(handleAt(i)+0x2d0, uint64(handleAt(i))+0x2e0)
				p.put32(handleAt(i)+0x2d8, th.LWP)
			}
			return p
		}, "", CodeUnknownLibrary, nil},
		{"offset 8 too high in a namespace", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 60)
			p.descriptors(libcPath, 0x2d8, 2368)
			return p
		}, "100:40 107:47 114:54", CodeOffset, nil},
		{"two owners swapped", func(t *testing.T) *process {
			p := glibc(t, 4, 100, 0)
			p.put32(handleAt(1)+0x2d0, 114)
			p.put32(handleAt(2)+0x2d0, 107)
			return p
		}, "100:100 121:121", CodeTID, func(l *Library) string {
			th, _ := l.ByLWP(107)
			if !th.Handle.Known || !strings.Contains(th.Problem, "114") || l.Namespace.Detected {
				return fmt.Sprintf("%+v", th)
			}
			return ""
		}},
		{"both of two owners swapped", func(t *testing.T) *process {
			p := glibc(t, 2, 100, 0)
			p.put32(handleAt(0)+0x2d0, 107)
			p.put32(handleAt(1)+0x2d0, 100)
			return p
		}, "", CodeUnknownLibrary, nil},
		{"owners rotated", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			for i := range 3 {
				p.put32(handleAt(i)+0x2d0, 100+(i+1)%3*7)
			}
			return p
		}, "", CodeUnknownLibrary, nil},
		{"owners swapped in a namespace, /proc knows", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 60)
			for i := range p.threads {
				p.threads[i].TargetTID = target.Known(p.threads[i].LWP-60, target.SourceProc)
			}
			p.put32(handleAt(1)+0x2d0, 54)
			p.put32(handleAt(2)+0x2d0, 47)
			return p
		}, "100:40", CodeTID, nil},
		{"one id twice in a namespace", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 60)
			p.put32(handleAt(1)+0x2d0, 54)
			return p
		}, "", CodeUnknownLibrary, nil},
		{"one id of many impossible", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.put32(handleAt(1)+0x2d0, maxPID+1)
			return p
		}, "100:100 114:114", CodeTID, nil},
		{"thread on its way out", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.put32(handleAt(1)+0x2d0, 0)
			return p
		}, "100:100 114:114", "", func(l *Library) string {
			if th, _ := l.ByLWP(107); !strings.Contains(th.Problem, "ending") {
				return th.Problem
			}
			return ""
		}},
		{"structure doesn't point to itself", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.put64(handleAt(1)+0x10, uint64(handleAt(2)))
			return p
		}, "100:100 114:114", CodeTID, nil},
		{"thread pointer one thread off", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.threads[1].ThreadPointer.V += 8
			return p
		}, "100:100 114:114", CodeTID, nil},
		{"structure not dumped", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.cut(handleAt(1)-0x100, 0xa40, target.ErrNotDumped)
			return p
		}, "100:100 114:114", CodeUnreadable, func(l *Library) string {
			if th, _ := l.ByLWP(107); !strings.Contains(th.Problem, "not dumped") || th.Handle.V != handleAt(1) || th.TargetTID.Known {
				return fmt.Sprintf("%+v", th)
			}
			return ""
		}},
		{"core ends inside a structure, before the id", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.cut(handleAt(2)+0x200, 0x900, target.ErrTruncated)
			return p
		}, "100:100 107:107", CodeUnreadable, nil},
		{"core ends inside a structure, after the id", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.cut(handleAt(2)+0x400, 0x900, target.ErrTruncated)
			return p
		}, "100:100 107:107 114:114", "", func(l *Library) string {
			if th, _ := l.ByLWP(114); th.StartRoutine.Known {
				return "start routine out of nowhere"
			}
			return ""
		}},
		{"no structure readable", func(t *testing.T) *process {
			p := glibc(t, 2, 100, 0)
			p.cut(stacksBase, 0x100000, target.ErrNotDumped)
			return p
		}, "", CodeUnreadable, func(l *Library) string {
			if th, ok := l.ByHandle(handleAt(1)); !ok || th.LWP != 107 || th.Confirmed {
				return fmt.Sprintf("%+v, %v", th, ok)
			}
			return ""
		}},
		{"stacks saved as zeros", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			for i := 1; i < 3; i++ {
				p.put(handleAt(i), make([]byte, 0x800))
			}
			return p
		}, "100:100", CodeUnreadable, func(l *Library) string {
			if th, _ := l.ByLWP(107); !strings.Contains(th.Problem, "zeros") || th.Handle.V != handleAt(1) || th.TargetTID.Known {
				return fmt.Sprintf("%+v", th)
			}
			return ""
		}},
		{"all stacks saved as zeros", func(t *testing.T) *process {
			p := glibc(t, 2, 100, 0)
			for i := range 2 {
				p.put(handleAt(i), make([]byte, 0x800))
			}
			return p
		}, "", CodeUnreadable, func(l *Library) string {
			if th, _ := l.ByLWP(107); !strings.Contains(th.Problem, "zeros") || !strings.Contains(l.Warnings[0].Text, "zeros") || th.Handle.V != handleAt(1) {
				return fmt.Sprintf("%+v", th)
			}
			return ""
		}},
		{"no library file", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.syms.symbols = nil
			return p
		}, "100:100 107:107 114:114", "", func(l *Library) string {
			if l.Kind != KindGlibc || l.Layout.TID.Source != target.SourceProfile || l.Module != libcPath {
				return fmt.Sprintf("%v %+v", l.Kind, l.Layout)
			}
			return ""
		}},
		{"no modules at all", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.syms.paths = nil
			return p
		}, "100:100 107:107 114:114", "", nil},
		{"descriptor with nonsense in it", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.object(libcPath, symTID, 64, 1, 0x2d0)
			return p
		}, "100:100 107:107 114:114", "", func(l *Library) string {
			if l.Layout.TID.Source != target.SourceProfile {
				return fmt.Sprintf("%+v", l.Layout.TID)
			}
			return ""
		}},
		{"descriptor beyond any structure", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.object(libcPath, symTID, 32, 1, 0xfffffffc)
			p.object(libcPath, symSizeof, 0xffffffff)
			return p
		}, "100:100 107:107 114:114", "", nil},
		{"kernel worker with its master's thread pointer", func(t *testing.T) *process {
			p := glibc(t, 3, 100, 0)
			p.threads = append(p.threads, ThreadInfo{LWP: 300, ThreadPointer: p.threads[1].ThreadPointer},
				ThreadInfo{LWP: 50, ThreadPointer: p.threads[1].ThreadPointer})
			return p
		}, "100:100 107:107 114:114", "", func(l *Library) string {
			for _, lwp := range []int{50, 300} {
				if th, _ := l.ByLWP(lwp); th.Handle.Known || !strings.Contains(th.Problem, "LWP 107") {
					return fmt.Sprintf("%+v", th)
				}
			}
			if th, _ := l.ByHandle(handleAt(1)); th.LWP != 107 {
				return fmt.Sprintf("%+v", th)
			}
			return ""
		}},
		{"the same in a namespace: owner can't be told", func(t *testing.T) *process {
			p := glibc(t, 4, 100, 60)
			p.threads = append(p.threads, ThreadInfo{LWP: 300, ThreadPointer: p.threads[1].ThreadPointer})
			return p
		}, "100:40 114:54 121:61", "", nil},
		{"thread pointer 0", func(t *testing.T) *process {
			p := glibc(t, 2, 100, 0)
			p.threads[1].ThreadPointer.V = 0
			return p
		}, "100:100", "", func(l *Library) string {
			if th, _ := l.ByLWP(107); th.Handle.Known || !strings.Contains(th.Problem, "unknown") {
				return fmt.Sprintf("%+v", th)
			}
			return ""
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := c.make(t).discover()
			if got := confirmed(l); got != c.confirmed {
				t.Errorf("confirmed %q, want %q", got, c.confirmed)
			}
			if got := codes(l); got != c.warnings {
				t.Errorf("warnings %v, want codes %q", l.Warnings, c.warnings)
			}
			for _, th := range l.Threads() {
				if th.Confirmed == (th.Problem != "") {
					t.Errorf("confirmed %v with problem %q", th.Confirmed, th.Problem)
				}
			}
			if c.check != nil {
				if bad := c.check(l); bad != "" {
					t.Error(bad)
				}
			}
		})
	}
}

func TestNamespace(t *testing.T) {
	l := glibc(t, 3, 5000, 4990).discover()
	if want := (Namespace{Detected: true, Threads: 3}); l.Namespace != want || codes(l) != "" {
		t.Errorf("namespace %+v, warnings %v", l.Namespace, l.Warnings)
	}
	if got := confirmed(l); got != "5000:10 5007:17 5014:24" {
		t.Errorf("confirmed %q", got)
	}
	// The kernel's record of all threads, then of one.
	for _, known := range []int{3, 1} {
		p := glibc(t, 3, 5000, 4990)
		for i := range known {
			p.threads[i].TargetTID = target.Known(p.threads[i].LWP-4990, target.SourceProc)
		}
		l = p.discover()
		if want := (Namespace{Detected: true, Threads: 3, ByKernel: known == 3}); l.Namespace != want || codes(l) != "" {
			t.Errorf("%d threads told: namespace %+v, warnings %v", known, l.Namespace, l.Warnings)
		}
		if got := confirmed(l); got != "5000:10 5007:17 5014:24" {
			t.Errorf("%d threads told: confirmed %q", known, got)
		}
	}
	// One thread alone: only the library's own word on the offset will do.
	if l = glibc(t, 1, 5000, 4990).discover(); confirmed(l) != "5000:10" || !l.Namespace.Detected {
		t.Errorf("one thread: %+v", l.Threads())
	}
	p := glibc(t, 1, 5000, 4990)
	p.syms.symbols = nil
	if l = p.discover(); confirmed(l) != "" || l.Namespace.Detected || codes(l) != CodeUnknownLibrary {
		t.Errorf("one thread without a descriptor: %+v, %v", l.Threads(), l.Warnings)
	}
	// The ids of a namespace may overlap with LWPs outside.
	p = glibc(t, 3, 100, 7)
	if l = p.discover(); confirmed(l) != "100:93 107:100 114:107" {
		t.Errorf("overlapping ids: confirmed %q, %v", confirmed(l), l.Warnings)
	}
}

func TestListsWithoutThreadPointers(t *testing.T) {
	build := func() *process {
		p := glibc(t, 4, 100, 0)
		p.lists([]target.Addr{handleAt(1), handleAt(2), handleAt(3)}, []target.Addr{handleAt(0)}, nil)
		for i := range p.threads {
			p.threads[i].ThreadPointer = target.Value[target.Addr]{}
		}
		return p
	}
	l := build().discover()
	for i, th := range l.Threads() {
		if th.Handle != target.Known(handleAt(i), target.SourceMemory) || th.Confirmed || th.TargetTID.V != th.LWP {
			t.Errorf("thread %+v", th)
		}
	}
	if a := l.Resolve(handleAt(2).String()); a.Status != StatusUnconfirmed || a.Thread.LWP != 114 {
		t.Errorf("answer %+v", a)
	}
	// One known thread pointer gives the layout to the others.
	p := build()
	p.threads[0].ThreadPointer = target.Known(handleAt(0), target.SourceCoreNote)
	l = p.discover()
	if th, _ := l.ByLWP(121); confirmed(l) != "100:100" || th.Handle.V != handleAt(3) || th.Confirmed {
		t.Errorf("thread %+v", th)
	}
	// Two structures with one id: neither is taken.
	p = build()
	p.put32(handleAt(2)+0x2d0, 107)
	l = p.discover()
	if th, _ := l.ByLWP(107); th.Handle.Known {
		t.Errorf("thread %+v", th)
	}
	// Lists that don't close, or don't point back, are left alone.
	for name, damage := range map[string]func(p *process){
		"circle without the head": func(p *process) { p.put64(handleAt(3)+0x2c0, uint64(handleAt(2)+0x2c0)) },
		"self circle":             func(p *process) { p.put64(handleAt(2)+0x2c0, uint64(handleAt(2)+0x2c0)) },
		"into nothing":            func(p *process) { p.put64(handleAt(2)+0x2c0, 0x10) },
	} {
		p := build()
		damage(p)
		l := p.discover()
		if th, _ := l.ByLWP(107); th.Handle.Known {
			t.Errorf("%s: thread %+v", name, th)
		}
		if th, _ := l.ByLWP(100); !th.Handle.Known { // on the other list
			t.Errorf("%s: thread %+v", name, th)
		}
	}
}

// glibc before 2.34 has the descriptors and lists in libpthread.
func TestOldGlibc(t *testing.T) {
	const libpthread = "/lib/x86_64-linux-gnu/libpthread-2.31.so"
	p := newProcess(t, target.AMD64, "/usr/sbin/mariadbd", "/lib/x86_64-linux-gnu/libc-2.31.so", libpthread)
	p.descriptors(libpthread, 0x2d0, 2304)
	p.object(libpthread, symOldUsed, 0, 0, 0, 0)
	p.object(libpthread, symOldUser, 0, 0, 0, 0)
	p.object(libpthread, symOldCache, 0, 0, 0, 0)
	for i := range 3 {
		p.glibcThread(100+i, 100+i)
	}
	dead := handleAt(9)
	p.glibcStruct(dead, 0)
	p.list(p.syms.symbols[libpthread][symOldUsed], handleAt(1), handleAt(2))
	p.list(p.syms.symbols[libpthread][symOldUser], handleAt(0))
	p.list(p.syms.symbols[libpthread][symOldCache], dead)
	l := p.discover()
	if l.Module != libpthread || confirmed(l) != "100:100 101:101 102:102" || l.Layout.Size.Size != 2304 {
		t.Errorf("%q, confirmed %q, %+v", l.Module, confirmed(l), l.Layout)
	}
	if a := l.Resolve(dead.String()); a.Status != StatusStale || !strings.Contains(strings.Join(a.Lines, " "), listCache) {
		t.Errorf("answer %+v", a)
	}
}

// A static program has no C library among its images, but its symbols.
func TestStaticGlibc(t *testing.T) {
	p := newProcess(t, target.AMD64, "/srv/app", "[vdso]")
	p.descriptors("/srv/app", 0x2d0, 2368)
	p.glibcThread(100, 100)
	p.glibcThread(101, 101)
	p.object("/srv/app", symStackUsed, 128, 1, 0)
	p.object("/srv/app", symStaticCache, 0, 0, 0, 0)
	dead := handleAt(9)
	p.glibcStruct(dead, 0)
	p.list(p.syms.symbols["/srv/app"][symStaticCache], dead)
	if a := p.discover().Resolve(dead.String()); a.Status != StatusStale || len(a.Lines) < 2 {
		t.Errorf("answer %+v", a)
	}
	if l := p.discover(); l.Kind != KindGlibc || l.Module != "/srv/app" || confirmed(l) != "100:100 101:101" {
		t.Errorf("%v %q, confirmed %q", l.Kind, l.Module, confirmed(l))
	}
}

func (p *process) muslThread(tidOff target.Addr, lwp, tid int) {
	h := handleAt(len(p.threads))
	p.mem = append(p.mem, segment{start: h, data: make([]byte, 0xc8)})
	p.put64(h, uint64(h))
	p.put64(h+0x10, uint64(handleAt(len(p.threads)+1)))
	p.put64(h+0x28, 0x1122334455667788^uint64(h)<<3) // canary
	if tidOff == 0x38 {
		p.put64(h+0x30, 0x99aabbccddeeff00^uint64(h)) // canary2
	}
	p.put32(h+tidOff, tid)
	p.put32(h+tidOff+8, 2) // detach_state: joinable
	p.threads = append(p.threads, ThreadInfo{LWP: lwp, ThreadPointer: target.Known(h, target.SourceCoreNote)})
}

func TestMusl(t *testing.T) {
	for _, c := range []struct {
		name    string
		off     target.Addr
		n       int
		inner   int
		paths   []string
		confirm bool
	}{
		{"current", 0x30, 3, 0, []string{"/usr/bin/mariadbd", muslPath}, true},
		{"with canary2", 0x38, 3, 0, []string{"/usr/bin/mariadbd", "/lib/libc.musl-x86_64.so.1"}, true},
		{"static", 0x30, 3, 0, []string{"/srv/app"}, true},
		{"one thread", 0x30, 1, 0, []string{muslPath}, true},
		{"namespace", 0x30, 3, 90, []string{muslPath}, true},
		{"namespace with canary2", 0x38, 3, 90, []string{muslPath}, true},
		{"namespace, one thread: ambiguous", 0x30, 1, 90, []string{muslPath}, false},
	} {
		p := newProcess(t, target.AMD64, c.paths...)
		var want []string
		for i := range c.n {
			p.muslThread(c.off, 100+i, 100+i-c.inner)
			if c.confirm {
				want = append(want, fmt.Sprintf("%d:%d", 100+i, 100+i-c.inner))
			}
		}
		l := p.discover()
		if got := confirmed(l); got != strings.Join(want, " ") || l.Namespace.Detected != (c.confirm && c.inner != 0) {
			t.Errorf("%s: confirmed %q, namespace %+v, warnings %v", c.name, got, l.Namespace, l.Warnings)
		}
		if !c.confirm {
			if codes(l) != CodeUnknownLibrary {
				t.Errorf("%s: warnings %v", c.name, l.Warnings)
			}
			continue
		}
		if l.Kind != KindMusl || l.Layout.TID.Offset != uint64(c.off) || l.Threads()[0].TargetTID.Source != target.SourceSearch {
			t.Errorf("%s: %v %+v", c.name, l.Kind, l.Layout)
		}
	}
}

// Both offsets hold the LWP: which is right can't be told.
func TestMuslAmbiguous(t *testing.T) {
	p := newProcess(t, target.AMD64, muslPath)
	for i := range 3 {
		p.muslThread(0x30, 100+i, 100+i)
		p.put32(handleAt(i)+0x38, 100+i)
	}
	if l := p.discover(); confirmed(l) != "" || codes(l) != CodeUnknownLibrary || l.Layout.TID.Known {
		t.Errorf("confirmed %q, warnings %v, %+v", confirmed(l), l.Warnings, l.Layout)
	}
}

// arm64Thread adds a thread whose structure of the given size lies before the
// thread pointer.
func (p *process) arm64Thread(lwp, tid int, size, tidOff target.Addr, self bool) target.Addr {
	tp := handleAt(len(p.threads))
	h := tp - size
	data := make([]byte, 0x2000)
	p.mem = append(p.mem, segment{start: tp - 0x1000, data: data})
	if self {
		p.put64(h, uint64(h))
	}
	p.put32(h+tidOff, tid)
	p.threads = append(p.threads, ThreadInfo{LWP: lwp, ThreadPointer: target.Known(tp, target.SourceCoreNote)})
	return h
}

func TestARM64(t *testing.T) {
	libc := "/usr/lib/aarch64-linux-gnu/libc.so.6"
	for _, c := range []struct {
		name                string
		path                string
		published           bool
		size, tidOff        target.Addr
		self                bool
		inner               int
		want                string
		source              target.Source
		kind                Kind
		wantWarning         string
		secondCopyOfIDBelow target.Addr
	}{
		{"glibc, published", libc, true, 0x740, 0xd0, false, 0, "100:100 101:101 102:102", target.SourceSymbol, KindGlibc, "", 0},
		{"glibc, published, namespace", libc, true, 0x740, 0xd0, false, 60, "100:40 101:41 102:42", target.SourceSymbol, KindGlibc, "", 0},
		{"glibc, size searched", libc, false, 0x740, 0xd0, false, 0, "100:100 101:101 102:102", target.SourceProfile, KindGlibc, "", 0},
		{"glibc, size ambiguous", libc, false, 0x740, 0xd0, false, 0, "", "", KindGlibc, CodeUnknownLibrary, 0x100},
		{"glibc, namespace, no descriptors", libc, false, 0x740, 0xd0, false, 60, "", "", KindGlibc, CodeUnknownLibrary, 0},
		{"musl", "/lib/ld-musl-aarch64.so.1", false, 0xc8, 0x20, true, 0, "100:100 101:101 102:102", target.SourceSearch, KindMusl, "", 0},
		{"musl, namespace", "/lib/ld-musl-aarch64.so.1", false, 0xc8, 0x20, true, 60, "100:40 101:41 102:42", target.SourceSearch, KindMusl, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProcess(t, target.ARM64, c.path)
			if c.published {
				p.descriptors(c.path, uint32(c.tidOff), uint32(c.size))
			}
			for i := range 3 {
				h := p.arm64Thread(100+i, 100+i-c.inner, c.size, c.tidOff, c.self)
				if c.secondCopyOfIDBelow != 0 {
					p.put32(h+c.tidOff+c.secondCopyOfIDBelow, 100+i)
				}
			}
			l := p.discover()
			if got := confirmed(l); got != c.want || l.Kind != c.kind || codes(l) != c.wantWarning {
				t.Errorf("%v, confirmed %q, warnings %v", l.Kind, got, l.Warnings)
			}
			for i, th := range l.Threads() {
				switch {
				case c.want == "" && th.Handle.Known:
					t.Errorf("handle %+v without a size", th.Handle)
				case c.want != "" && (th.Handle.V != handleAt(i)-c.size || th.TargetTID.Source != c.source):
					t.Errorf("%+v", th)
				}
			}
		})
	}
}

func TestNothingKnown(t *testing.T) {
	l, err := Discover(fakeMemory{}, nil, []ThreadInfo{{LWP: 5}}, Options{Arch: target.AMD64})
	if err != nil || codes(l) != CodeUnreadable || l.Threads()[0].Handle.Known {
		t.Errorf("%v, %v, %+v", err, l.Warnings, l.Threads())
	}
	l, err = Discover(fakeMemory{}, nil, nil, Options{Arch: target.ARM64})
	if err != nil || len(l.Threads()) != 0 {
		t.Errorf("%v, %v", err, l)
	}
	if _, err = Discover(fakeMemory{}, nil, nil, Options{Arch: target.RISCV64}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("error %v", err)
	}
}

func TestModuleKind(t *testing.T) {
	for path, want := range map[string]Kind{
		"/usr/lib/x86_64-linux-gnu/libc.so.6": KindGlibc, "/lib/libc.so.6 (deleted)": KindGlibc, "/lib64/libpthread-2.17.so": KindGlibc,
		"/lib/x86_64-linux-gnu/libc-2.31.so": KindGlibc, "/lib/ld-musl-x86_64.so.1": KindMusl, "/lib/libc.musl-x86_64.so.1": KindMusl,
		"/usr/lib/musl/lib/libc.so": KindMusl, "/opt/libc-2.31.so.bak": KindUnknown, "/usr/lib/libcap.so.2": KindUnknown, "": KindUnknown,
	} {
		if got := moduleKind(path); got != want {
			t.Errorf("%q: %v, want %v", path, got, want)
		}
	}
}

func manyThreads(tb testing.TB, n int) *process {
	p := newProcess(tb, target.AMD64, libcPath)
	p.descriptors(libcPath, 0x2d0, 2368)
	data := make([]byte, n*0x1000)
	for i := range n {
		h := stacksBase + target.Addr(i*0x1000)
		b := data[i*0x1000:]
		binary.LittleEndian.PutUint64(b, uint64(h))
		binary.LittleEndian.PutUint64(b[0x10:], uint64(h))
		binary.LittleEndian.PutUint32(b[0x2d0:], uint32(1000+i))
		p.threads = append(p.threads, ThreadInfo{LWP: 1000 + i, ThreadPointer: target.Known(h, target.SourceCoreNote)})
	}
	p.mem = append(p.mem, segment{start: stacksBase, data: data})
	return p
}

func BenchmarkDiscover(b *testing.B) {
	for _, n := range []int{530, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := manyThreads(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if l := p.discover(); !l.threads[n-1].Confirmed {
					b.Fatal(l.Warnings)
				}
			}
		})
	}
}

func BenchmarkResolve(b *testing.B) {
	l := manyThreads(b, 10000).discover()
	text := (stacksBase + 5000*0x1000).String()
	b.ReportAllocs()
	for b.Loop() {
		if a := l.Resolve(text); a.Status != StatusFound {
			b.Fatal(a)
		}
	}
}
