package libthr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"mycore/internal/target"
)

func TestResolve(t *testing.T) {
	p := glibc(t, 3, 1158, 0)
	dead, reused, gone, unlisted := handleAt(10), handleAt(11), handleAt(12), handleAt(13)
	p.glibcStruct(dead, 0)
	p.glibcStruct(reused, 1165) // says that it is a living thread
	p.glibcStruct(gone, 4000)   // names a thread that isn't there any more
	p.glibcStruct(unlisted, -1)
	unjoined := handleAt(14)
	p.glibcStruct(unjoined, 0)
	p.lists([]target.Addr{handleAt(1), handleAt(2), unjoined}, []target.Addr{handleAt(0)}, []target.Addr{dead, gone})
	plain, hidden, lost, file := target.Addr(0x5500_0000_0000), target.Addr(0x5600_0000_0000), target.Addr(0x5700_0000_0000), target.Addr(0x5800_0000_0000)
	p.mem = append(p.mem, segment{start: plain, data: make([]byte, 0x1000)})
	p.cut(hidden, 0x1000, target.ErrNotDumped)
	p.cut(lost, 0x1000, target.ErrTruncated)
	p.cut(file, 0x1000, target.ErrFileMissing)
	l := p.discover()
	h := handleAt(1)
	dec := strconv.FormatUint(uint64(h), 10)
	for _, c := range []struct {
		in     string
		status Status
		lwp    int // of Thread, 0 none
		base   int
		text   string // must occur in the lines
	}{
		{h.String(), StatusFound, 1165, 16, "handle of LWP 1165"},
		{strings.ToUpper(h.String()), StatusFound, 1165, 16, dec},
		{strings.TrimPrefix(h.String(), "0x"), StatusFound, 1165, 16, ""},
		{dec, StatusFound, 1165, 10, h.String()},
		{"  " + dec + ",\n", StatusFound, 1165, 10, ""},
		{"1165", StatusLWP, 1165, 10, h.String()},
		{"0x48d", StatusLWP, 1165, 16, "thread id (LWP), not a handle"},
		{(h + 0x2d0).String(), StatusInside, 1165, 16, "720 bytes inside the thread structure of LWP 1165"},
		{(h + 2367).String(), StatusInside, 1165, 16, ""},
		{(h + 2368).String(), StatusUnmapped, 0, 16, ""},
		{(h - 8).String(), StatusNotThread, 0, 16, ""},
		{dead.String(), StatusStale, 0, 16, listCache},
		{unjoined.String(), StatusStale, 0, 16, "nobody has joined the thread"},
		{unlisted.String(), StatusStale, 0, 16, "its id is -1: the thread ended"},
		{reused.String(), StatusStale, 1165, 16, "names the id 1165, but the handle of that thread (LWP 1165) is another"},
		{gone.String(), StatusStale, 0, 16, "no thread of this core"},
		{plain.String(), StatusNotThread, 0, 16, "isn't a thread structure"},
		{hidden.String(), StatusNotDumped, 0, 16, "doesn't hold it"},
		{lost.String(), StatusTruncated, 0, 16, "cut off"},
		{file.String(), StatusFileMissing, 0, 16, "mapped file"},
		{"0x123456789000", StatusUnmapped, 0, 16, "no memory there"},
		{"99", StatusUnmapped, 0, 10, "too small for a handle"},
		{"0", StatusUnmapped, 0, 10, "too small"},
		{"", StatusInvalid, 0, 0, "not a handle"},
		{"0x", StatusInvalid, 0, 0, ""},
		{"-5", StatusInvalid, 0, 0, ""},
		{"main", StatusInvalid, 0, 0, ""},
		{"0x10000000000000000", StatusInvalid, 0, 0, ""},
		{strings.Repeat("1", 5000), StatusInvalid, 0, 0, ""},
	} {
		a := l.Resolve(c.in)
		lwp := 0
		if a.Thread != nil {
			lwp = a.Thread.LWP
		}
		text := strings.Join(a.Lines, "\n")
		if a.Status != c.status || lwp != c.lwp || a.Base != c.base || a.Input != c.in || !strings.Contains(text, c.text) || text == "" {
			t.Errorf("%.40q: status %s, LWP %d, base %d, lines %q; want %s, %d, %d, %q", c.in, a.Status, lwp, a.Base, a.Lines, c.status, c.lwp, c.base, c.text)
		}
		if len(text) > 800 {
			t.Errorf("%.40q: %d bytes of answer", c.in, len(text))
		}
	}
	if a := l.Resolve(lost.String()); !errors.Is(a.Err, target.ErrTruncated) {
		t.Errorf("error %v", a.Err)
	}
	if a := l.Resolve(gone.String()); a.TID != 4000 {
		t.Errorf("id %d", a.TID)
	}
}

// Digits alone can be decimal or hex; what is known decides, and is said.
func TestResolveAmbiguous(t *testing.T) {
	p := newProcess(t, target.AMD64, libcPath)
	p.descriptors(libcPath, 0x2d0, 2368)
	// A handle whose hex form has no letters.
	hexOnly := target.Addr(0x140234567000)
	p.glibcStruct(hexOnly, 77)
	p.threads = append(p.threads, ThreadInfo{LWP: 77, ThreadPointer: target.Known(hexOnly, target.SourceCoreNote)})
	p.glibcThread(78, 78)
	l := p.discover()
	a := l.Resolve("140234567000")
	if a.Status != StatusFound || a.Thread.LWP != 77 || a.Base != 16 || a.Value != hexOnly || !strings.Contains(strings.Join(a.Lines, " "), "read as hex") {
		t.Errorf("%+v", a)
	}
	a = l.Resolve("78")
	if a.Status != StatusLWP || a.Thread.LWP != 78 || a.Base != 10 || strings.Contains(strings.Join(a.Lines, " "), "read as") {
		t.Errorf("%+v", a)
	}
	a = l.Resolve("4e") // LWP 78 in hex, as nobody prints it but somebody may type
	if a.Status != StatusLWP || a.Base != 16 || strings.Contains(strings.Join(a.Lines, " "), "read as") {
		t.Errorf("%+v", a)
	}
	// Neither is known, but only one has memory.
	a = l.Resolve(strconv.FormatUint(uint64(libcBase), 10))
	if a.Status == StatusUnmapped || a.Base != 10 || !strings.Contains(strings.Join(a.Lines, " "), "read as decimal") {
		t.Errorf("%+v", a)
	}
}

func TestResolveInNamespace(t *testing.T) {
	p := glibc(t, 3, 107, 7) // LWPs 107 114 121 are 100 107 114 inside
	l := p.discover()
	a := l.Resolve(handleAt(0).String())
	if a.Status != StatusFound || a.Thread.LWP != 107 || !strings.Contains(strings.Join(a.Lines, " "), "Inside the target this thread is 100, outside it is 107") {
		t.Errorf("%+v", a)
	}
	a = l.Resolve("100")
	if a.Status != StatusTargetTID || a.Thread.LWP != 107 || !strings.Contains(a.Lines[0], "outside it is LWP 107") {
		t.Errorf("%+v", a)
	}
	a = l.Resolve("107")
	if a.Status != StatusLWP || a.Thread.LWP != 107 || !strings.Contains(strings.Join(a.Lines, " "), "107 is another thread: LWP 114") {
		t.Errorf("%+v", a)
	}
	// A stale structure holds an id of the inside.
	p.glibcStruct(handleAt(9), 114)
	l = p.discover()
	if a = l.Resolve(handleAt(9).String()); a.Status != StatusStale || a.Thread == nil || a.Thread.LWP != 121 {
		t.Errorf("%+v", a)
	}
}

func TestResolveUnconfirmed(t *testing.T) {
	p := glibc(t, 3, 100, 0)
	p.cut(handleAt(1)-0x100, 0xa40, target.ErrNotDumped)
	p.threads = append(p.threads, ThreadInfo{LWP: 300})
	l := p.discover()
	a := l.Resolve(handleAt(1).String())
	if a.Status != StatusUnconfirmed || a.Thread.LWP != 107 || !strings.Contains(a.Lines[0], "not proven") || !strings.Contains(a.Lines[0], "not dumped") {
		t.Errorf("%+v", a)
	}
	if a = l.Resolve("107"); a.Status != StatusLWP || !strings.Contains(a.Lines[0], "probably") {
		t.Errorf("%+v", a)
	}
	if a = l.Resolve("300"); a.Status != StatusLWP || !strings.Contains(a.Lines[0], "unknown") {
		t.Errorf("%+v", a)
	}
	if a = l.Resolve("0x123456789000"); !strings.Contains(strings.Join(a.Lines, " "), "may be one of theirs") {
		t.Errorf("%+v", a)
	}
}

func TestResolveWithoutLayout(t *testing.T) {
	p := newProcess(t, target.AMD64)
	tp := handleAt(0)
	p.mem = append(p.mem, segment{start: tp, data: make([]byte, 0x1000)})
	p.threads = []ThreadInfo{{LWP: 100, ThreadPointer: target.Known(tp, target.SourceCoreNote)}}
	l := p.discover()
	if a := l.Resolve(tp.String()); a.Status != StatusUnconfirmed || a.Thread.LWP != 100 {
		t.Errorf("%+v", a)
	}
	if a := l.Resolve((tp + 8).String()); a.Status != StatusNotThread || !strings.Contains(a.Lines[0], "layout of thread structures is unknown") {
		t.Errorf("%+v", a)
	}
	if a := l.Resolve("0x123456789000"); a.Status != StatusUnmapped {
		t.Errorf("%+v", a)
	}
}

func TestResolveConcurrently(t *testing.T) {
	p := glibc(t, 3, 100, 0)
	p.glibcStruct(handleAt(9), 0)
	p.lists([]target.Addr{handleAt(1), handleAt(2)}, []target.Addr{handleAt(0)}, []target.Addr{handleAt(9)})
	l := p.discover()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if a := l.Resolve(handleAt(9).String()); a.Status != StatusStale {
				t.Errorf("%+v", a)
			}
		})
	}
	wg.Wait()
}

// Whatever the memory holds and the user types, there is an answer with text,
// and nothing is confirmed that doesn't name its thread.
func FuzzResolve(f *testing.F) {
	f.Add("0x7f300000e6c0", []byte{0xd0, 2, 0, 0}, uint64(0x2d0), uint8(1))
	f.Add("139844", []byte("\xff\xff\xff\xff\xff\xff\xff\xff"), uint64(0x2c0), uint8(0))
	f.Fuzz(func(t *testing.T, text string, patch []byte, at uint64, thread uint8) {
		p := glibc(t, 3, 100, 0)
		p.lists([]target.Addr{handleAt(1), handleAt(2)}, []target.Addr{handleAt(0)}, nil)
		places := []target.Addr{handleAt(0), handleAt(1), handleAt(2), rtldBase + 0x1000, libcBase, libcBase + 28}
		seg := places[int(thread)%len(places)]
		patch = patch[:min(len(patch), 64)]
		for i := range p.mem {
			if s := &p.mem[i]; s.start <= seg && seg-s.start < target.Addr(len(s.data)) {
				off := (uint64(seg-s.start) + at%0x940) % uint64(len(s.data))
				copy(s.data[off:], patch)
			}
		}
		l := p.discover()
		for _, th := range l.Threads() {
			if th.Confirmed && (!th.Handle.Known || !th.TargetTID.Known || th.Problem != "") {
				t.Fatalf("%+v", th)
			}
			if th.Confirmed && th.TargetTID.V != th.LWP && !l.Namespace.Detected {
				t.Fatalf("%+v", th)
			}
		}
		for _, in := range []string{text, handleAt(1).String(), fmt.Sprint(at)} {
			if a := l.Resolve(in); a.Status == "" || len(a.Lines) == 0 {
				t.Fatalf("%q: %+v", in, a)
			}
		}
	})
}
