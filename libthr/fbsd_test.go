package libthr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mycore/internal/coretest/story"
	"mycore/internal/target"
)

// The story's server on FreeBSD as a made-up process.
type fbsdProcess struct {
	*process
	s    *story.Story
	opts Options
}

func fromStory(t testing.TB, o story.Options) *fbsdProcess {
	s := story.Build(o)
	p := newProcess(t, target.AMD64, story.MysqldPath, story.LibthrPath, story.LibcPath)
	le := binary.LittleEndian
	core := slices.Clone(s.Core)
	for i := range int(le.Uint16(core[56:])) {
		ph := core[64+56*i:]
		if le.Uint32(ph) == 1 { // PT_LOAD
			off, n := le.Uint64(ph[8:]), le.Uint64(ph[32:])
			p.mem = append(p.mem, segment{start: target.Addr(le.Uint64(ph[16:])), data: core[off : off+n]})
		}
	}
	for _, n := range []string{"_thread_off_tcb", "_thread_off_tid", "_thread_off_next", "_thread_off_attr_flags", "_thread_off_state", "_thread_list"} {
		p.syms.symbols[story.LibthrPath][n] = target.Addr(s.Symbol(story.LibthrPath, n))
	}
	for _, th := range s.Threads {
		regs := &target.Regs{Arch: target.AMD64}
		for name, n := range map[string]int{"rsp": target.RSP, "rbx": target.RBX, "rip": target.RIP, "rdi": target.RDI, "r15": target.R15, "rax": target.RAX} {
			regs.Set(n, th.Regs[name])
		}
		info := ThreadInfo{LWP: th.LWP, Regs: regs}
		if o.SegBases {
			info.ThreadPointer = target.Known(target.Addr(th.TCB), target.SourceCoreNote)
		}
		p.threads = append(p.threads, info)
	}
	return &fbsdProcess{process: p, s: s, opts: Options{Arch: target.AMD64, OS: "freebsd"}}
}

func (p *fbsdProcess) discover() *Library {
	p.t.Helper()
	l, err := Discover(p.mem, p.syms, p.threads, p.opts)
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

// at returns the handle of the i-th thread, or one of its members.
func (p *fbsdProcess) at(i int, field string) target.Addr {
	h := target.Addr(p.s.Threads[i].Handle)
	if field != "" {
		h += target.Addr(p.s.Field(field))
	}
	return h
}

func (p *fbsdProcess) noSymbols() { p.syms.paths = []string{story.MysqldPath} }

func (p *fbsdProcess) noRegs() {
	for i := range p.threads {
		p.threads[i].Regs = nil
	}
}

// good counts the threads with the handle that the builder gave them, and
// fails on a confirmed wrong one.
func (p *fbsdProcess) good(l *Library) (confirmed int, without []int) {
	p.t.Helper()
	for _, want := range p.s.Threads {
		th, ok := l.ByLWP(want.LWP)
		switch {
		case !ok:
			p.t.Fatalf("LWP %d is lost", want.LWP)
		case th.Confirmed && uint64(th.Handle.V) != want.Handle:
			p.t.Errorf("LWP %d: handle %v is confirmed, it is %#x", want.LWP, th.Handle.V, want.Handle)
		case th.Confirmed:
			confirmed++
			if th.Problem != "" || th.Proof == "" {
				p.t.Errorf("LWP %d: proof %q, problem %q", want.LWP, th.Proof, th.Problem)
			}
		default:
			without = append(without, want.LWP)
			if th.Problem == "" {
				p.t.Errorf("LWP %d isn't confirmed and has no problem", want.LWP)
			}
		}
	}
	return confirmed, without
}

func TestFreeBSD(t *testing.T) {
	for _, c := range []struct {
		name    string
		o       story.Options
		release string
		change  func(*fbsdProcess)
		source  target.Source // of the layout
		handle  target.Source
	}{
		{"as in the story", story.Options{}, "10", nil, target.SourceSymbol, target.SourceMemory},
		{"12", story.Options{Release: 12}, "12", nil, target.SourceSymbol, target.SourceMemory},
		{"13", story.Options{Release: 13}, "13", nil, target.SourceSymbol, target.SourceMemory},
		{"fs base", story.Options{SegBases: true}, "10", nil, target.SourceSymbol, target.SourceCoreNote},
		{"fs base, no symbols", story.Options{SegBases: true, Release: 13}, "13", func(p *fbsdProcess) { p.noSymbols() }, target.SourceProfile, target.SourceCoreNote},
		{"fs base of some, no symbols", story.Options{SegBases: true}, "10", func(p *fbsdProcess) {
			p.noSymbols()
			p.noRegs()
			for i := range p.threads[1:] {
				p.threads[i].ThreadPointer = target.Value[target.Addr]{}
			}
		}, target.SourceProfile, target.SourceMemory},
		{"no symbols", story.Options{}, "10", func(p *fbsdProcess) { p.noSymbols() }, target.SourceProfile, target.SourceMemory},
		{"no symbols, 12", story.Options{Release: 12}, "12", func(p *fbsdProcess) { p.noSymbols() }, target.SourceProfile, target.SourceMemory},
		{"no symbols, kernel core", story.Options{KernelCore: true}, "10", func(p *fbsdProcess) { p.noSymbols() }, target.SourceProfile, target.SourceMemory},
		{"no registers", story.Options{}, "10", func(p *fbsdProcess) { p.noRegs() }, target.SourceSymbol, target.SourceMemory},
		{"static program", story.Options{}, "10", func(p *fbsdProcess) {
			p.syms.paths = []string{story.MysqldPath}
			p.syms.symbols[story.MysqldPath] = p.syms.symbols[story.LibthrPath]
		}, target.SourceSymbol, target.SourceMemory},
		{"only the list is published", story.Options{}, "10", func(p *fbsdProcess) {
			m := p.syms.symbols[story.LibthrPath]
			p.syms.symbols[story.LibthrPath] = map[string]target.Addr{"_thread_list": m["_thread_list"]}
		}, target.SourceProfile, target.SourceMemory},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fromStory(t, c.o)
			if c.change != nil {
				c.change(p)
			}
			l := p.discover()
			if n, without := p.good(l); n != 23 || len(l.Warnings) != 0 {
				t.Errorf("%d confirmed, without %v, warnings %v", n, without, l.Warnings)
			}
			if l.Kind != KindLibthr || l.Release() != c.release || l.Layout.TID != (Field{Offset: 0, Size: 8, Source: c.source, Known: true}) || l.Layout.Size.Size != p.s.Field("size") {
				t.Errorf("%v, release %q, layout %+v", l.Kind, l.Release(), l.Layout)
			}
			th, ok := l.ByHandle(story.ConnHandle)
			if !ok || th.LWP != story.ConnLWP || th.Handle.Source != c.handle || th.TargetTID != target.Known(100460, c.source) {
				t.Errorf("%+v", th)
			}
			if th.StartRoutine.V != target.Addr(p.s.Symbol(story.MysqldPath, "handle_one_connection")) || !th.Stack.V.Contains(story.NameAddr) || th.Stack.V.End-th.Stack.V.Start != 0x40000 {
				t.Errorf("start %v, stack %+v", th.StartRoutine, th.Stack)
			}
			if th, _ := l.ByLWP(100411); th.StartRoutine.Known {
				t.Errorf("the initial thread has the start routine %v", th.StartRoutine)
			}
			for _, in := range []string{"0x829e76000", "829e76000", fmt.Sprint(uint64(story.ConnHandle))} {
				if a := l.Resolve(in); a.Status != StatusFound || a.Thread.LWP != story.ConnLWP {
					t.Errorf("%s: %+v", in, a)
				}
			}
		})
	}
}

// Each mutant is one damage: what must be noticed, and who may lose a handle.
func TestFreeBSDMutants(t *testing.T) {
	const last = 22
	next := func(p *fbsdProcess, i int) target.Addr { return p.at(i, "next") }
	for _, c := range []struct {
		name   string
		o      story.Options
		mutate func(*fbsdProcess)
		want   int // confirmed
		codes  string
		text   string // in a warning or in the problem of a thread
	}{
		{"tcb published 8 too high", story.Options{}, func(p *fbsdProcess) {
			p.put32(p.syms.symbols[story.LibthrPath]["_thread_off_tcb"], 488)
		}, 23, CodeOffset, "FreeBSD 10 (tcb 480"},
		{"list published 8 too high", story.Options{}, func(p *fbsdProcess) {
			p.put32(p.syms.symbols[story.LibthrPath]["_thread_off_next"], 64)
		}, 23, CodeOffset, ""},
		{"tid published 8 too high", story.Options{}, func(p *fbsdProcess) {
			p.put32(p.syms.symbols[story.LibthrPath]["_thread_off_tid"], 8)
		}, 23, CodeOffset, ""},
		{"another release's file", story.Options{}, func(p *fbsdProcess) {
			for n, v := range map[string]int{"_thread_off_tcb": 552, "_thread_off_next": 64, "_thread_off_attr_flags": 168, "_thread_off_state": 400} {
				p.put32(p.syms.symbols[story.LibthrPath][n], v)
			}
		}, 23, CodeOffset, ""},
		{"impossible offset", story.Options{}, func(p *fbsdProcess) {
			p.put32(p.syms.symbols[story.LibthrPath]["_thread_off_tcb"], -8)
		}, 23, "", ""},
		{"owners swapped", story.Options{}, func(p *fbsdProcess) {
			p.put64(p.at(3, ""), 100460)
			p.put64(p.at(21, ""), 100442)
		}, 21, CodeTID, "lies in the stack of the thread structure"},
		{"owners swapped, fs base known", story.Options{SegBases: true}, func(p *fbsdProcess) {
			p.put64(p.at(3, ""), 100460)
			p.put64(p.at(21, ""), 100442)
		}, 21, CodeTID, "its thread structure has the id 100442"},
		{"two structures with one id", story.Options{}, func(p *fbsdProcess) { p.put64(p.at(3, ""), 100460) }, 21, "", "2 thread structures have its id"},
		{"fs bases swapped", story.Options{SegBases: true}, func(p *fbsdProcess) {
			p.threads[3].ThreadPointer, p.threads[4].ThreadPointer = p.threads[4].ThreadPointer, p.threads[3].ThreadPointer
		}, 21, CodeTID, ""},
		{"TCB points elsewhere", story.Options{}, func(p *fbsdProcess) {
			p.put64(target.Addr(p.s.Threads[21].TCB+16), p.s.Threads[20].Handle)
		}, 22, CodeTID, "points to another thread structure"},
		{"TCB's self is wrong", story.Options{}, func(p *fbsdProcess) { p.put64(target.Addr(p.s.Threads[21].TCB), 8) }, 22, CodeTID, "doesn't name itself"},
		{"TCB isn't the thread pointer's", story.Options{SegBases: true}, func(p *fbsdProcess) {
			other := p.s.Threads[21].TCB + 0xa0
			p.put64(target.Addr(other), other)
			p.put64(target.Addr(other+16), story.ConnHandle)
			p.put64(p.at(21, "tcb"), other)
		}, 22, CodeTID, "its structure has the TCB"},
		{"list without end", story.Options{}, func(p *fbsdProcess) {
			// Thousands of structures, all well linked: of a few threads.
			const base, n = 0x990000000, 5000
			b := make([]byte, n*1024)
			le := binary.LittleEndian
			for i := range n {
				h := uint64(base + i*1024)
				le.PutUint64(b[i*1024:], uint64(200000+i))
				le.PutUint64(b[i*1024+56:], h+1024)
				le.PutUint64(b[i*1024+64:], h-1024+56)
				le.PutUint32(b[i*1024+540:], fbsdMagic)
			}
			le.PutUint64(b[64:], uint64(p.at(0, "next")))
			p.mem = append(p.mem, segment{start: base, data: b})
			p.put64(p.at(0, "next"), base)
		}, 23, CodeList, "doesn't end after 302 threads"},
		{"no TCB", story.Options{}, func(p *fbsdProcess) { p.put64(p.at(21, "tcb"), 0) }, 22, CodeTID, "has no TCB"},
		{"magic gone", story.Options{}, func(p *fbsdProcess) { p.put32(p.at(21, "magic"), 0) }, 22, CodeList, "no thread structure has its id"},
		{"TCB not in the core", story.Options{}, func(p *fbsdProcess) {
			p.cut(target.Addr(p.s.Threads[21].TCB), 24, target.ErrNotDumped)
		}, 22, CodeUnreadable, "mapped but not dumped"},
		{"list ends early", story.Options{}, func(p *fbsdProcess) { p.put64(next(p, 10), 0) }, 23, CodeList, "its tail is"},
		{"list broken in the middle", story.Options{}, func(p *fbsdProcess) { p.put64(next(p, 10), 0x1234) }, 23, CodeList, "reading"},
		{"node not in the core", story.Options{}, func(p *fbsdProcess) { p.cut(p.at(10, ""), 0x600, target.ErrTruncated) }, 22, CodeList, "core truncated here"},
		{"cycle", story.Options{}, func(p *fbsdProcess) { p.put64(next(p, 10), uint64(p.at(15, ""))) }, 23, CodeList, "twice"},
		{"cycle on itself", story.Options{}, func(p *fbsdProcess) { p.put64(next(p, 10), uint64(p.at(10, ""))) }, 23, CodeList, "twice"},
		{"link back is wrong", story.Options{}, func(p *fbsdProcess) { p.put64(next(p, 10)+8, 0x999000) }, 23, CodeList, "doesn't point back"},
		{"head is wrong", story.Options{}, func(p *fbsdProcess) {
			p.put64(p.syms.symbols[story.LibthrPath]["_thread_list"], uint64(p.at(5, "tcb")))
		}, 23, CodeList, ""},
		{"head and tail are wrong", story.Options{}, func(p *fbsdProcess) {
			p.put64(p.syms.symbols[story.LibthrPath]["_thread_list"], 0x10)
			p.put64(p.syms.symbols[story.LibthrPath]["_thread_list"]+8, 0x10)
		}, 0, CodeUnreadable, "could not be read"},
		{"head not in the core", story.Options{}, func(p *fbsdProcess) {
			p.cut(p.syms.symbols[story.LibthrPath]["_thread_list"], 16, target.ErrTruncated)
		}, 0, CodeUnreadable, "core truncated here"},
		{"list empty", story.Options{}, func(p *fbsdProcess) {
			head := p.syms.symbols[story.LibthrPath]["_thread_list"]
			p.put64(head, 0)
			p.put64(head+8, uint64(head))
		}, 0, CodeUnknownLibrary, ""},
		{"thread ended", story.Options{}, func(p *fbsdProcess) { p.put64(p.at(last, ""), 1) }, 22, "", "no thread structure has its id"},
		{"thread ended, fs base known", story.Options{SegBases: true}, func(p *fbsdProcess) { p.put64(p.at(last, ""), 1) }, 22, CodeTID, "has ended"},
		{"structure zeroed, fs base known", story.Options{SegBases: true}, func(p *fbsdProcess) {
			p.put(p.at(last, ""), make([]byte, 1024))
		}, 22, CodeList + " " + CodeTID, "all zeros"},
		{"nothing leads to them", story.Options{}, func(p *fbsdProcess) {
			p.noSymbols()
			p.noRegs()
		}, 0, CodeUnknownLibrary, "--sysroot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fromStory(t, c.o)
			c.mutate(p)
			l := p.discover()
			n, without := p.good(l)
			if n != c.want || codes(l) != c.codes {
				t.Errorf("%d confirmed, want %d; without %v, warnings %v", n, c.want, without, l.Warnings)
			}
			texts := fmt.Sprint(l.Warnings)
			for _, th := range l.Threads() {
				texts += th.Problem + "\n"
			}
			if !strings.Contains(texts, c.text) {
				t.Errorf("no %q in %s", c.text, texts)
			}
		})
	}
}

// A release that nobody knows yet: what it publishes is enough for handles.
func TestFreeBSDUnknownRelease(t *testing.T) {
	p := fromStory(t, story.Options{})
	shift := func(field string, at uint64, n int) {
		for i := range p.s.Threads {
			h := p.at(i, "")
			b := make([]byte, n)
			if _, err := p.mem.ReadMemory(p.at(i, field), b); err != nil {
				t.Fatal(err)
			}
			p.put(p.at(i, field), make([]byte, n))
			p.put(h+target.Addr(at), b)
		}
	}
	shift("tcb", 504, 8)
	p.put32(p.syms.symbols[story.LibthrPath]["_thread_off_tcb"], 504)
	l := p.discover()
	if n, without := p.good(l); n != 23 || codes(l) != CodeLayout || l.Release() != "" {
		t.Errorf("%d confirmed, without %v, warnings %v", n, without, l.Warnings)
	}
	if _, _, err := l.CondWait(100440); !errors.Is(err, ErrNoLayout) {
		t.Errorf("CondWait: %v", err)
	}
	if _, err := l.Mutex(p.at(0, "")); !errors.Is(err, ErrNoLayout) {
		t.Errorf("Mutex: %v", err)
	}
	if _, err := l.RWLock(p.at(0, "")); !errors.Is(err, ErrNoLayout) {
		t.Errorf("RWLock: %v", err)
	}
	if a := l.Resolve("0x829e76000"); a.Status != StatusFound {
		t.Errorf("%+v", a)
	}
}

// FreeBSD 15 moved what lies behind mutex_obj: told by wake_addr.
func TestFreeBSD15(t *testing.T) {
	p := fromStory(t, story.Options{Release: 13})
	for i := range p.s.Threads {
		h := p.at(i, "")
		// A bigger structure elsewhere: make the members move by copying to
		// where 15 has them; the story's structures are 0x600 apart.
		p.put64(h+1112, 0)
		over := make([]byte, 0x40)
		binary.LittleEndian.PutUint64(over, p.s.Threads[i].TCB+0x80)
		p.mem = slices.Insert(p.mem, 0, segment{start: h + 1632, data: over})
	}
	// Structures next to each other now overlap: keep two that don't.
	p.threads = slices.DeleteFunc(p.threads, func(ti ThreadInfo) bool { return ti.LWP != 100460 && ti.LWP != 100461 })
	l := p.discover()
	if l.Release() != "15" || l.Layout.Size.Size != 1664 {
		t.Errorf("release %q, warnings %v", l.Release(), l.Warnings)
	}
}

func TestFreeBSDARM64(t *testing.T) {
	// Variant I: tcb_dtv, tcb_thread; no word that names the TCB itself.
	for _, tls := range []bool{true, false} {
		p := fromStory(t, story.Options{Release: 13, SegBases: tls})
		p.opts.Arch = target.ARM64
		for i, th := range p.s.Threads {
			tcb := target.Addr(th.TCB)
			p.put64(tcb, th.TCB+0x40)
			p.put64(tcb+8, th.Handle)
			p.put64(tcb+16, 0)
			p.threads[i].Regs = &target.Regs{Arch: target.ARM64}
			p.threads[i].Regs.Set(target.A64SP, th.Regs["rsp"])
		}
		l := p.discover()
		if n, without := p.good(l); n != 23 || len(l.Warnings) != 0 {
			t.Errorf("%d confirmed, without %v, warnings %v", n, without, l.Warnings)
		}
	}
	p := fromStory(t, story.Options{})
	p.opts.Arch = target.I386
	if _, err := Discover(p.mem, p.syms, p.threads, p.opts); !errors.Is(err, ErrUnsupported) {
		t.Errorf("i386: %v", err)
	}
}

func TestFreeBSDNames(t *testing.T) {
	p := fromStory(t, story.Options{Release: 12})
	text := target.Addr(p.s.Threads[0].TCB + 0x100)
	p.put(text, []byte("page cleaner\x00"))
	p.put64(p.at(5, "")+1112, uint64(text))
	p.put64(p.at(6, "")+1112, 0x10) // not mapped: no name
	l := p.discover()
	th, _ := l.ByLWP(p.s.Threads[5].LWP)
	if th.Name != target.Known("page cleaner", target.SourceMemory) {
		t.Errorf("%+v", th.Name)
	}
	if th, _ := l.ByLWP(p.s.Threads[6].LWP); th.Name.Known || !th.Confirmed {
		t.Errorf("%+v", th)
	}
}

func TestFreeBSDResolve(t *testing.T) {
	for _, c := range []struct {
		name   string
		o      story.Options
		change func(*fbsdProcess)
		handle uint64
		want   Status
		lwp    int
		text   string
	}{
		{"found", story.Options{}, nil, story.ConnHandle, StatusFound, 100460, "its TCB at 0x8010c6b30 points back; the stack pointer"},
		{"with fs base", story.Options{SegBases: true}, nil, story.ConnHandle, StatusFound, 100460, "where the thread pointer of that LWP leads too"},
		{"LWP", story.Options{}, nil, 100460, StatusLWP, 100460, "The handle of that thread is 0x829e76000"},
		{"inside", story.Options{}, nil, story.ConnHandle + 0x38, StatusInside, 100460, "56 bytes inside"},
		{"nothing there", story.Options{}, nil, 0x900000000, StatusUnmapped, 0, ""},
		{"other memory", story.Options{}, nil, story.NameAddr, StatusNotThread, 0, ""},
		{"ended", story.Options{}, func(p *fbsdProcess) { p.put64(p.at(21, ""), 1) }, story.ConnHandle, StatusStale, 0, "still has it on its list"},
		{"id of nobody", story.Options{}, func(p *fbsdProcess) { p.put64(p.at(21, ""), 100999) }, story.ConnHandle, StatusStale, 0, "no thread of this core"},
		{"structure of a dead thread off the list", story.Options{}, func(p *fbsdProcess) {
			b := make([]byte, 1024)
			binary.LittleEndian.PutUint64(b, 1)
			binary.LittleEndian.PutUint32(b[540:], fbsdMagic)
			p.put(0x829e77000, b)
		}, 0x829e77000, StatusStale, 0, "keeps the structure"},
		{"off the list, id of a thread with another handle", story.Options{}, func(p *fbsdProcess) {
			b := make([]byte, 1024)
			binary.LittleEndian.PutUint64(b, 100460)
			binary.LittleEndian.PutUint32(b[540:], fbsdMagic)
			p.put(0x829e77000, b)
		}, 0x829e77000, StatusStale, 100460, "the handle of that thread is another"},
		{"unconfirmed", story.Options{}, func(p *fbsdProcess) { p.put64(target.Addr(p.s.Threads[21].TCB+16), 8) }, story.ConnHandle, StatusUnconfirmed, 100460, "not proven"},
		{"nothing but the number", story.Options{}, func(p *fbsdProcess) {
			p.noSymbols()
			p.noRegs()
		}, story.ConnHandle, StatusFound, 100460, "at this address alone"},
		{"nothing but the number, TCB damaged", story.Options{}, func(p *fbsdProcess) {
			p.noSymbols()
			p.noRegs()
			p.put64(target.Addr(p.s.Threads[21].TCB), 8)
		}, story.ConnHandle, StatusUnconfirmed, 100460, "doesn't point back"},
		{"nothing but the number, of a dead thread", story.Options{Release: 13}, func(p *fbsdProcess) {
			p.noSymbols()
			p.noRegs()
			p.put64(p.at(21, ""), 1)
		}, story.ConnHandle, StatusStale, 0, "its id is 1"},
		{"nothing but the number, stack of another", story.Options{}, func(p *fbsdProcess) {
			p.noSymbols()
			p.put64(p.at(21, ""), 100461)
			p.threads = p.threads[22:]
			p.threads[0].Regs = &target.Regs{Arch: target.AMD64}
			p.threads[0].Regs.Set(target.RSP, p.s.Threads[22].Regs["rsp"])
			p.cut(target.Addr(p.s.Threads[22].Regs["rsp"]), 0x2000, target.ErrTruncated)
		}, story.ConnHandle, StatusUnconfirmed, 100461, "outside of the stack"},
		{"off a list cut short", story.Options{}, func(p *fbsdProcess) {
			p.put64(p.at(22, "next"), 0)
			p.put64(p.syms.symbols[story.LibthrPath]["_thread_list"]+8, uint64(p.at(22, "next")))
		}, story.ConnHandle, StatusFound, 100460, "at this address alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fromStory(t, c.o)
			if c.change != nil {
				c.change(p)
			}
			a := p.discover().Resolve(fmt.Sprintf("%#x", c.handle))
			if c.handle < 1<<20 {
				a = p.discover().Resolve(fmt.Sprint(c.handle))
			}
			lwp := 0
			if a.Thread != nil {
				lwp = a.Thread.LWP
			}
			if a.Status != c.want || lwp != c.lwp || !strings.Contains(strings.Join(a.Lines, " "), c.text) {
				t.Errorf("%v, LWP %d, %q", a.Status, lwp, a.Lines)
			}
		})
	}
}

func TestFreeBSDCondWait(t *testing.T) {
	for _, release := range []int{10, 12, 13} {
		p := fromStory(t, story.Options{Release: release})
		l := p.discover()
		waits := 0
		for _, th := range p.s.Threads {
			w, ok, err := l.CondWait(th.LWP)
			if err != nil || ok != (th.Cond != 0) || ok && (uint64(w.Cond) != th.Cond || uint64(w.Mutex) != th.Mutex) {
				t.Errorf("release %d, LWP %d: %+v, %v, %v; want %#x, %#x", release, th.LWP, w, ok, err, th.Cond, th.Mutex)
			}
			if ok {
				waits++
				m, err := l.Mutex(w.Mutex)
				if err != nil || m.State != LockFree || m.Owner != 0 {
					t.Errorf("release %d: %+v, %v", release, m, err)
				}
			}
		}
		if waits != 17 {
			t.Errorf("release %d: %d threads wait on conditions", release, waits)
		}
		if _, _, err := l.CondWait(4711); err == nil {
			t.Errorf("a thread that isn't there waits")
		}
	}
}

func TestFreeBSDLocks(t *testing.T) {
	const obj = 0x829e77000
	words := func(w ...uint32) []byte {
		b := make([]byte, 96)
		for i, v := range w {
			binary.LittleEndian.PutUint32(b[4*i:], v)
		}
		return b
	}
	for _, c := range []struct {
		name    string
		release int
		b       []byte
		owner   target.Addr // 10: struct pthread
		want    Mutex
	}{
		{"free", 12, words(0, 1), 0, Mutex{UMutex: UMutex{State: LockFree, Flags: 1}}},
		{"held", 12, words(100460, 0, 0, 0, 0, 0, 0, 0, 0x101), 0, Mutex{UMutex: UMutex{State: LockHeld, Owner: 100460}, Type: 1}},
		{"contested, recursive", 12, words(100460|1<<31, 0, 0, 0, 0, 0, 0, 0, 2, 3), 0, Mutex{UMutex: UMutex{State: LockHeld, Owner: 100460, Contested: true}, Type: 2, Depth: 3}},
		{"contested without owner", 12, words(1 << 31), 0, Mutex{UMutex: UMutex{State: LockFree, Contested: true}}},
		{"owner dead", 13, words(0x80000010, 0x10), 0, Mutex{UMutex: UMutex{State: LockOwnerDead, Flags: 0x10}}},
		{"not recoverable", 13, words(0x80000011, 0x10), 0, Mutex{UMutex: UMutex{State: LockNotRecoverable, Flags: 0x10}}},
		{"owner not of this process", 13, words(7), 0, Mutex{UMutex: UMutex{State: LockHeld, Owner: 7}, Problem: "no thread of the process"}},
		{"10", 10, words(100460, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1), story.ConnHandle, Mutex{UMutex: UMutex{State: LockHeld, Owner: 100460}, Type: 3, Depth: 1}},
		{"10, owners swapped", 10, words(100459), story.ConnHandle, Mutex{UMutex: UMutex{State: LockHeld, Owner: 100459}, Problem: "contradict: LWP 100459, but handle 0x829e76000 of LWP 100460"}},
		{"10, owner is no thread", 10, words(100459), 0x1000, Mutex{UMutex: UMutex{State: LockHeld, Owner: 100459}, Problem: "is no thread's"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fromStory(t, story.Options{Release: c.release})
			if c.owner != 0 {
				binary.LittleEndian.PutUint64(c.b[40:], uint64(c.owner))
			}
			p.put(obj, c.b)
			p.put64(obj+0x100, obj)
			l := p.discover()
			at, err := l.Object(obj + 0x100)
			if err != nil || at != obj {
				t.Fatalf("Object: %v, %v", at, err)
			}
			m, err := l.Mutex(at)
			c.want.Addr = obj
			if !strings.Contains(m.Problem, c.want.Problem) || (c.want.Problem == "") != (m.Problem == "") {
				t.Errorf("problem %q", m.Problem)
			}
			m.Problem, c.want.Problem = "", ""
			if err != nil || m != c.want {
				t.Errorf("%+v, %v; want %+v", m, err, c.want)
			}
		})
	}

	p := fromStory(t, story.Options{Release: 12})
	l := p.discover()
	for _, v := range []uint64{0, 1, 2, 0x8000000000000001} {
		p.put64(obj, v)
		if _, err := l.Object(obj); !errors.Is(err, ErrNoObject) {
			t.Errorf("variable %#x: %v", v, err)
		}
	}
	if _, err := l.Object(0x10); !errors.Is(err, target.ErrNotMapped) {
		t.Error(err)
	}
	if _, err := l.Mutex(0x10); !errors.Is(err, target.ErrNotMapped) {
		t.Error(err)
	}
	if _, err := UMutexAt(p.mem, 0x10); !errors.Is(err, target.ErrNotMapped) {
		t.Error(err)
	}
	if _, err := l.RWLock(0x10); !errors.Is(err, target.ErrNotMapped) {
		t.Error(err)
	}
}

func TestFreeBSDRWLocks(t *testing.T) {
	const obj = 0x829e77000
	for _, c := range []struct {
		name    string
		release int
		state   uint32
		owner   uint64
		want    RWLock
		problem string
	}{
		{"free", 12, 0, 0, RWLock{}, ""},
		{"readers", 12, 0x40000003, 0, RWLock{Readers: 3}, ""},
		{"writer", 12, 1 << 31, 100460, RWLock{WriteHeld: true, Writer: 100460}, ""},
		{"readers, stale owner", 12, 2, 100460, RWLock{Readers: 2}, ""},
		{"writer of another process", 12, 1 << 31, 7, RWLock{WriteHeld: true, Writer: 7}, "no thread of the process"},
		{"writer, 10", 10, 1 << 31, story.ConnHandle, RWLock{WriteHeld: true, Writer: 100460}, ""},
		{"writer unknown, 10", 10, 1 << 31, 0x1000, RWLock{WriteHeld: true}, "is no thread's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fromStory(t, story.Options{Release: c.release})
			b := make([]byte, 40)
			binary.LittleEndian.PutUint32(b, c.state)
			b[8], b[12] = 2, 1
			binary.LittleEndian.PutUint64(b[32:], c.owner)
			p.put(obj, b)
			rw, err := p.discover().RWLock(obj)
			c.want.Addr, c.want.BlockedReaders, c.want.BlockedWriters = obj, 2, 1
			if !strings.Contains(rw.Problem, c.problem) || (c.problem == "") != (rw.Problem == "") {
				t.Errorf("problem %q", rw.Problem)
			}
			rw.Problem = ""
			if err != nil || rw != c.want {
				t.Errorf("%+v, %v; want %+v", rw, err, c.want)
			}
		})
	}
}

// FuzzFreeBSD damages eight bytes anywhere in the memory that libthr uses: no
// thread may get another's handle confirmed by that.
func FuzzFreeBSD(f *testing.F) {
	p := fromStory(f, story.Options{})
	saved := make([][]byte, len(p.mem))
	for i := range p.mem {
		saved[i] = slices.Clone(p.mem[i].data)
	}
	f.Add(uint32(21), uint32(0), uint64(100461), false)
	f.Add(uint32(10), uint32(56), uint64(0x802c06400), true)
	f.Fuzz(func(t *testing.T, thread, off uint32, v uint64, symbols bool) {
		for i := range p.mem {
			copy(p.mem[i].data, saved[i])
		}
		p.t = t
		at := p.at(int(thread)%23, "") + target.Addr(off%1016)
		if thread%3 == 0 {
			at = target.Addr(p.s.Threads[int(thread)%23].TCB) + target.Addr(off%16)
		}
		p.put64(at, v)
		p.syms.paths = []string{story.MysqldPath, story.LibthrPath}
		if !symbols {
			p.noSymbols()
		}
		l := p.discover()
		if n, without := p.good(l); symbols && n < 20 && off%1016 >= 72 {
			t.Errorf("one damaged word cost %v", without)
		}
		l.Resolve("0x829e76000")
		_, _, _ = l.CondWait(100440)
	})
}

// manyFreeBSD is a process of n threads on one list.
func manyFreeBSD(tb testing.TB, n int) *fbsdProcess {
	p := newProcess(tb, target.AMD64, story.LibthrPath)
	const base, tcbs = 0x802000000, 0x900000000
	le := binary.LittleEndian
	mem, tcb := make([]byte, n*1024), make([]byte, n*256)
	list := make([]byte, 16)
	le.PutUint64(list, base)
	le.PutUint64(list[8:], base+uint64(n-1)*1024+56)
	for i := range n {
		h, t := base+uint64(i)*1024, tcbs+uint64(i)*256
		b := mem[i*1024:]
		le.PutUint64(b, uint64(100100+i))
		if i+1 < n {
			le.PutUint64(b[56:], h+1024)
		}
		le.PutUint64(b[64:], h-1024+56)
		if i == 0 {
			le.PutUint64(b[64:], 0x801000000)
		}
		le.PutUint64(b[480:], t)
		le.PutUint32(b[540:], fbsdMagic)
		le.PutUint64(b[1000:], t+64)
		le.PutUint64(tcb[i*256:], t)
		le.PutUint64(tcb[i*256+16:], h)
		p.threads = append(p.threads, ThreadInfo{LWP: 100100 + i})
	}
	p.mem = fakeMemory{{start: base, data: mem}, {start: tcbs, data: tcb}, {start: 0x801000000, data: list}}
	p.syms.symbols[story.LibthrPath]["_thread_list"] = 0x801000000
	return &fbsdProcess{process: p, opts: Options{Arch: target.AMD64, OS: "freebsd"}}
}

func BenchmarkDiscoverFreeBSD(b *testing.B) {
	p := manyFreeBSD(b, 1000)
	if l := p.discover(); len(l.byHandle) != 1000 || len(l.Warnings) != 0 {
		b.Fatalf("%d handles, warnings %v", len(l.byHandle), l.Warnings)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.discover()
	}
}
