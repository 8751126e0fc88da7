package elfcore_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
)

// fbRest checks that what isn't in the damaged note is still there.
func fbRest(p *elfcore.Process, typ uint32) error {
	w := fbSample()
	if n := len(p.Threads()); n != len(w.threads) && typ != fbNTPrstatus {
		return fmt.Errorf("%d threads", n)
	}
	if typ != fbNTPrpsinfo && p.Info().Command.V != "mysqld" {
		return fmt.Errorf("command %+v", p.Info().Command)
	}
	v := p.KernelView()
	if k := v.Threads[100460]; typ != fbNTProc && typ != fbNTPrstatus && (k == nil || k.WaitChannel.V != "fifoor") {
		return fmt.Errorf("wait message %+v", k)
	}
	if typ != fbNTFiles && len(v.Files) != 9 {
		return fmt.Errorf("%d files", len(v.Files))
	}
	if typ != fbNTVMMap && len(p.Images()) != 2 {
		return fmt.Errorf("%d images", len(p.Images()))
	}
	if typ != fbNTAuxv && p.Info().OSRel.V != 1401000 {
		return fmt.Errorf("osreldate %+v", p.Info().OSRel)
	}
	for _, th := range p.Threads() {
		if typ != fbNTLwpinfo && typ != fbNTPrstatus && !th.SigBlocked.Known {
			return fmt.Errorf("thread %d has no mask", th.LWP)
		}
	}
	return use(p)
}

// fbRead are the notes that are read.
var fbRead = []uint32{fbNTPrstatus, fbNTPrpsinfo, fbNTThrmisc, fbNTLwpinfo, fbNTSegbases, fbNTProc, fbNTFiles, fbNTVMMap, fbNTOSRel, fbNTPSStrings, fbNTAuxv}

// TestFreeBSDDamagedNotes truncates each note at every length that can matter
// and gives it wrong structure sizes: a warning, and the rest.
func TestFreeBSDDamagedNotes(t *testing.T) {
	t.Parallel()
	for _, typ := range fbRead {
		var whole []byte
		w := fbSample()
		w.edit = func(ty uint32, _ int, d []byte) []byte {
			if ty == typ && whole == nil {
				whole = d
			}
			return d
		}
		w.core()
		check := func(what string, desc []byte, code string) {
			t.Helper()
			w := fbSample()
			w.edit = func(ty uint32, n int, d []byte) []byte {
				if ty == typ && n == 0 {
					return desc
				}
				return d
			}
			p := open(t, w.core())
			if err := fbRest(p, typ); err != nil {
				t.Errorf("note %#x, %s: %v", typ, what, err)
			}
			if code != "" && !hasCode(p, code) {
				t.Errorf("note %#x, %s: warnings %s", typ, what, codes(p))
			}
		}
		code := elfcore.WarnNote
		switch typ {
		case fbNTProc:
			code = elfcore.WarnKinfo
		case fbNTVMMap:
			code = elfcore.WarnNoFileNote
		}
		for n := range len(whole) {
			if n > 300 && n%97 != 0 && n < len(whole)-4 {
				continue
			}
			want := code
			switch typ { // shorter is right for these as long as what is read is there
			case fbNTAuxv:
				if n >= 4 {
					want = ""
				}
			case fbNTThrmisc:
				if n >= 20 {
					want = ""
				}
			case fbNTSegbases:
				if n >= 8 {
					want = ""
				}
			case fbNTFiles, fbNTVMMap:
				if n < 4 && typ == fbNTVMMap {
					want = elfcore.WarnNote
				}
				if left := cutRecord(whole, n); left < 4 && n >= 4 {
					want = "" // ends between two entries, or in padding
				}
			case fbNTProc:
				if (n-4)%1088 == 0 {
					want = elfcore.WarnKinfo // threads without a record
				}
			}
			check(fmt.Sprintf("cut at %d of %d", n, len(whole)), slices.Clone(whole[:n]), want)
		}
		if typ >= fbNTProc && typ != fbNTSegbases {
			for _, size := range []uint32{0, 1, 5, 768, 1087, 1089, 0x7fffffff, 0x80000000, 0xffffffff} {
				d := slices.Clone(whole)
				put32(d, 0, size)
				check(fmt.Sprintf("structure of %d bytes", size), d, code)
			}
		}
	}
}

// cutRecord returns how many bytes of an unfinished record a list of packed
// records has when it is cut at n.
func cutRecord(whole []byte, n int) int {
	at := 4
	for at < n {
		size := int(le.Uint32(whole[at:]))
		if at+size > n {
			break
		}
		at += size
	}
	return n - at
}

// TestFreeBSDBadRecords: sizes of entries that don't fit, and zero, which ends
// a list without a word since the kernel pads so.
func TestFreeBSDBadRecords(t *testing.T) {
	t.Parallel()
	zero := make([]byte, 64)
	for _, tt := range []struct {
		name         string
		change       func(w *fbWorld)
		files, maps  int
		warn, absent string
	}{
		{"zero size ends the files", func(w *fbWorld) { w.files[6] = zero }, 2, 10, "", elfcore.WarnNote},
		{"padding behind the files", func(w *fbWorld) { w.files = append(w.files, zero, zero) }, 9, 10, "", elfcore.WarnNote},
		{"zero size ends the mappings", func(w *fbWorld) { w.maps[8] = zero }, 9, 8, "", elfcore.WarnNoFileNote},
		{"short file", func(w *fbWorld) { put32(w.files[6], 0, 367) }, 2, 10, elfcore.WarnNote, ""},
		{"long file", func(w *fbWorld) { put32(w.files[6], 0, 1393) }, 2, 10, elfcore.WarnNote, ""},
		{"negative file", func(w *fbWorld) { put32(w.files[6], 0, 0xfffffff8) }, 2, 10, elfcore.WarnNote, ""},
		{"last file larger than the note", func(w *fbWorld) { put32(w.files[12], 0, 384) }, 8, 10, elfcore.WarnNote, ""},
		{"short mapping", func(w *fbWorld) { put32(w.maps[8], 0, 135) }, 9, 8, elfcore.WarnNoFileNote, ""},
		{"mapping without end", func(w *fbWorld) { put64(w.maps[8], 16, 0) }, 9, 9, elfcore.WarnNote, elfcore.WarnNoFileNote},
		{"mapping to the end of the address space", func(w *fbWorld) { put64(w.maps[9], 16, ^uint64(0)) }, 9, 10, "", elfcore.WarnNote},
		{"two files of one number", func(w *fbWorld) { put32(w.files[5], 8, 4) }, 8, 10, "", elfcore.WarnNote},
		{"path without end", func(w *fbWorld) { copy(w.files[6][368:], bytes.Repeat([]byte{'x'}, 100)) }, 9, 10, "", elfcore.WarnNote},
		{"socket address longer than its room", func(w *fbWorld) { w.files[10][48] = 255 }, 9, 10, "", elfcore.WarnNote},
	} {
		w := fbSample()
		tt.change(w)
		p := open(t, w.core())
		v := p.KernelView()
		if len(v.Files) != tt.files {
			t.Errorf("%s: %d files", tt.name, len(v.Files))
		}
		n := 0 // mappings of the list: those without bytes in the core are from nowhere else
		for _, m := range p.Mappings() {
			if m.Perm != "rwx" {
				n++
			}
		}
		if n < tt.maps-1 || n > tt.maps+1 {
			t.Errorf("%s: %d mappings", tt.name, n)
		}
		if tt.warn != "" && !hasCode(p, tt.warn) || tt.absent != "" && hasCode(p, tt.absent) {
			t.Errorf("%s: warnings %s", tt.name, codes(p))
		}
		if tt.name == "socket address longer than its room" && v.Files[len(v.Files)-1].Local != "" {
			t.Errorf("%s: %+v", tt.name, v.Files[len(v.Files)-1])
		}
		if err := use(p); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestFreeBSDKinfoJoin: records are joined by id, never by place.
func TestFreeBSDKinfoJoin(t *testing.T) {
	t.Parallel()
	// Every order gives the same view.
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {3, 1, 4, 0, 2}} {
		w := fbSample()
		w.kinfo = order
		p := open(t, w.core())
		if v := p.KernelView(); v.Threads[100460].WaitChannel.V != "fifoor" || v.Threads[100461].WaitChannel.V != "zio->io_" || v.Threads[100462].WaitChannel.Known || codes(p) != "" {
			t.Errorf("order %v: %s", order, codes(p))
		}
	}
	warned := func(name, word string, w *fbWorld) *elfcore.Process {
		t.Helper()
		p := open(t, w.core())
		for _, warning := range p.Warnings() {
			if warning.Code == elfcore.WarnKinfo && strings.Contains(warning.Text, word) {
				return p
			}
		}
		t.Errorf("%s: %v", name, p.Warnings())
		return p
	}
	// A record of a thread that doesn't exist.
	w := fbSample()
	w.edit = func(typ uint32, _ int, d []byte) []byte {
		if typ == fbNTProc {
			extra := slices.Clone(d[len(d)-1088:])
			put32(extra, 600, 100999)
			putText(extra, 411, 9, "select")
			return append(d, extra...)
		}
		return d
	}
	if p := warned("extra", "100999", w); p.Thread(100999) != nil || p.KernelView().Threads[100999] != nil || p.KernelView().Threads[100460].WaitChannel.V != "fifoor" {
		t.Error("a thread from a record alone")
	}
	// A thread without a record.
	w = fbSample()
	w.threads[1].noKinfo = true
	if p := warned("missing", "100460", w); p.KernelView().Threads[100460].WaitChannel.Known || p.KernelView().Threads[100461].WaitChannel.V != "zio->io_" {
		t.Error("a record of another thread was taken")
	}
	// Two records of one thread: the first counts.
	w = fbSample()
	w.kinfo = []int{1, 0, 1, 2, 3, 4}
	first := true
	w.edit = func(typ uint32, _ int, d []byte) []byte {
		if typ == fbNTProc && first {
			first = false
			putText(d, 4+2*1088+411, 9, "other")
		}
		return d
	}
	if p := warned("twice", "more records", w); p.KernelView().Threads[100460].WaitChannel.V != "fifoor" {
		t.Error("the second record counts")
	}
	// Of another process.
	w = fbSample()
	w.pid = 1159
	warned("pid", "1159", w)
	// The size of one record is wrong: those before it count.
	w = fbSample()
	w.edit = func(typ uint32, _ int, d []byte) []byte {
		if typ == fbNTProc {
			put32(d, 4+4*1088, 1096)
		}
		return d
	}
	warned("size", "record 5", w)
	// Zero ends the list: a thread ended while the kernel dumped.
	w = fbSample()
	w.threads = w.threads[:3]
	w.edit = func(typ uint32, _ int, d []byte) []byte {
		if typ == fbNTProc {
			return append(d, make([]byte, 2*1088)...)
		}
		return d
	}
	if p := open(t, w.core()); codes(p) != "" {
		t.Errorf("padding: %s", codes(p))
	}
}

// TestFreeBSDMisplaced: notes of a thread that contradict the registers they
// follow, and registers of another version.
func TestFreeBSDMisplaced(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		typ    uint32
		change func(d []byte)
		regs   bool // thread 0 keeps its registers
		mask   bool // and has a mask from its own note (the record has none here)
	}{
		"lwpinfo of another thread": {fbNTLwpinfo, func(d []byte) { put32(d, 4, 100460) }, true, false},
		"registers of version 2":    {fbNTPrstatus, func(d []byte) { put32(d, 0, 2) }, false, true},
		"size of another structure": {fbNTPrstatus, func(d []byte) { put64(d, 8, 232) }, false, true},
		"another register set":      {fbNTPrstatus, func(d []byte) { put64(d, 16, 184) }, false, true},
	} {
		w := fbSample()
		w.threads[0].noKinfo = true
		w.edit = func(typ uint32, n int, d []byte) []byte {
			if typ == tt.typ && n == 0 {
				tt.change(d)
			}
			return d
		}
		p := open(t, w.core())
		th := p.Threads()[0]
		if _, ok := th.Regs.PC(); ok != tt.regs || th.LWP != 100411 || th.SigBlocked.Known != tt.mask || !hasCode(p, elfcore.WarnNote) || len(p.Threads()) != 5 {
			t.Errorf("%s: registers %v, mask %v, %s", name, ok, th.SigBlocked, codes(p))
		}
		if c, ok := p.SyscallState(th); !ok || !tt.regs && c.State != elfcore.CallUnclear {
			t.Errorf("%s: %+v", name, c)
		}
	}
	// Notes ahead of any thread belong to none.
	w := fbSample()
	c := w.core()
	c.Notes = append([]coretest.Note{c.Notes[3], c.Notes[4]}, c.Notes...)
	if p := open(t, c); len(p.Threads()) != 5 || p.Threads()[0].LWP != 100411 {
		t.Error("notes without a thread")
	}
}

// fuzzFreeBSD fuzzes notes of the given types: the descriptor replaces that of
// a sound core, once whole and once behind the right structure size.
func fuzzFreeBSD(f *testing.F, types ...uint32) {
	w := fbSample()
	w.edit = func(typ uint32, n int, d []byte) []byte {
		if slices.Contains(types, typ) && n == 0 {
			f.Add(uint8(slices.Index(types, typ)), d)
			f.Add(uint8(slices.Index(types, typ)), d[:len(d)/2])
		}
		return d
	}
	w.core()
	f.Fuzz(func(t *testing.T, which uint8, desc []byte) {
		typ := types[int(which)%len(types)]
		w := fbSample()
		w.segments = nil // the smaller the core, the more runs
		w.edit = func(ty uint32, n int, d []byte) []byte {
			if ty == typ && n == 0 {
				return desc
			}
			return d
		}
		b := w.core().Bytes()
		p, err := try(b)
		if err != nil {
			t.Fatal(err)
		}
		if p == nil {
			t.Fatal("no result")
		}
		for _, th := range p.Threads() {
			p.SyscallState(th)
		}
		p.KernelView()
		if typ != fbNTPrstatus && len(p.Threads()) != 5 {
			t.Fatalf("%d threads", len(p.Threads()))
		}
	})
}

func FuzzFreeBSDThread(f *testing.F) {
	fuzzFreeBSD(f, fbNTPrstatus, fbNTThrmisc, fbNTLwpinfo, fbNTSegbases)
}
func FuzzFreeBSDProc(f *testing.F)  { fuzzFreeBSD(f, fbNTProc) }
func FuzzFreeBSDFiles(f *testing.F) { fuzzFreeBSD(f, fbNTFiles) }
func FuzzFreeBSDVMMap(f *testing.F) { fuzzFreeBSD(f, fbNTVMMap) }
func FuzzFreeBSDProcess(f *testing.F) {
	fuzzFreeBSD(f, fbNTPrpsinfo, fbNTOSRel, fbNTPSStrings, fbNTAuxv)
}

// BenchmarkOpenFreeBSD opens a core of 530 threads.
func BenchmarkOpenFreeBSD(b *testing.B) {
	w := fbSample()
	for i := range 525 {
		t := w.threads[1+i%3]
		t.lwp = 101000 + i
		w.threads = append(w.threads, t)
	}
	core := w.core().Bytes()
	b.ReportAllocs()
	for b.Loop() {
		p, err := elfcore.New(bytes.NewReader(core), int64(len(core)), "bench.core")
		if err != nil || len(p.Threads()) != 530 {
			b.Fatal(err)
		}
		p.KernelView()
	}
}
