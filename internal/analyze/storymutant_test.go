package analyze_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mycore/internal/coretest/story"
	"mycore/internal/incident"
)

// neighbour is another connection of the story, idle in poll.
const neighbour = 100461

// wantUnproven: the handle isn't taken for that of the thread, and no session
// is joined through it.
func (g *ghostBSD) wantUnproven(t *testing.T, lwps ...int) *incident.Incident {
	t.Helper()
	res := g.withServer(t)
	inc := res.Incident
	g.wantThreads(t, inc, lwps...)
	for _, lwp := range lwps {
		h := g.thread(t, lwp).Handle
		if a := res.Handle(fmt.Sprintf("%#x", h)); a.Status == "found" {
			t.Errorf("%#x: %+v", h, a)
		}
	}
	for i, lwp := range []int{story.ConnLWP, neighbour} {
		want := lwp
		if slices.Contains(lwps, lwp) {
			want = 0
		}
		wantSession(t, inc, uint64(i+1), want)
	}
	// What the kernel says of the thread doesn't depend on its handle.
	f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
	if slices.Contains(lwps, story.ConnLWP) && len(f.Connections) > 0 {
		t.Errorf("connections %d without a proven handle", f.Connections)
	}
	return inc
}

// The first word of struct pthread names another thread, or none.
func TestStoryMutantTID(t *testing.T) {
	t.Parallel()
	tid := func(g *ghostBSD, lwp int) uint64 {
		h := g.thread(t, lwp).Handle
		if v := g.Uint64(h); v != uint64(lwp) {
			t.Fatalf("the structure of %d starts with %d", lwp, v)
		}
		return h
	}
	t.Run("eight more", func(t *testing.T) {
		t.Parallel()
		g := newStory(t, story.Options{})
		g.putWord(tid(g, story.ConnLWP), story.ConnLWP+8)
		g.wantUnproven(t, story.ConnLWP)
	})
	t.Run("zero", func(t *testing.T) {
		t.Parallel()
		g := newStory(t, story.Options{})
		g.putWord(tid(g, story.ConnLWP), 0)
		g.wantUnproven(t, story.ConnLWP)
	})
	t.Run("swapped", func(t *testing.T) {
		t.Parallel()
		for _, o := range []story.Options{{}, {Release: 13, SegBases: true}} {
			g := newStory(t, o)
			a, b := tid(g, story.ConnLWP), tid(g, neighbour)
			g.putWord(a, neighbour)
			g.putWord(b, story.ConnLWP)
			g.wantUnproven(t, story.ConnLWP, neighbour)
		}
	})
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		g := newStory(t, story.Options{})
		g.putWord(tid(g, neighbour), story.ConnLWP)
		inc := g.withServer(t).Incident
		if th := threadOf(t, inc, neighbour); th.Handle != nil {
			t.Errorf("LWP %d has the handle %v", neighbour, th.Handle)
		}
		wantSession(t, inc, 2, 0)
		if h := threadOf(t, inc, story.ConnLWP).Handle; h != nil && *h != story.ConnHandle {
			t.Errorf("handle %v", *h)
		}
	})
}

// The library's own offsets are checked before they are believed.
func TestStoryMutantOffsets(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"_thread_off_tid", "_thread_off_tcb", "_thread_off_next"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newStory(t, story.Options{})
			at := g.Mem(g.s.Symbol(story.LibthrPath, name), 4)
			binary.LittleEndian.PutUint32(at, binary.LittleEndian.Uint32(at)+8)
			inc := g.withServer(t).Incident
			for _, th := range inc.Threads {
				if want := g.thread(t, th.LWP).Handle; th.Handle != nil && uint64(*th.Handle) != want {
					t.Errorf("LWP %d has the handle %v, want %#x or none", th.LWP, th.Handle, want)
				}
			}
			for i, lwp := range []int{story.ConnLWP, neighbour} {
				want := lwp
				if threadOf(t, inc, lwp).Handle == nil {
					want = 0
				}
				wantSession(t, inc, uint64(i+1), want)
			}
			wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
		})
	}
}

// The wait message decides, and only for its own thread.
func TestStoryMutantWaitMessage(t *testing.T) {
	t.Parallel()
	t.Run("swapped", func(t *testing.T) {
		t.Parallel()
		g := newStory(t, story.Options{})
		g.setWmesg(t, story.ConnLWP, "select")
		g.setWmesg(t, neighbour, "fifoor")
		wantNothing(t, g.withServer(t).Incident)
		g.bare = true
		wantNothing(t, g.withServer(t).Incident)
	})
	for _, wmesg := range []string{"fifoow", "piperd", "nfsreq", "fifoo", "fifoorx", "uwait", "wait_for"} {
		t.Run(wmesg, func(t *testing.T) {
			t.Parallel()
			g := newStory(t, story.Options{})
			g.setWmesg(t, story.ConnLWP, wmesg)
			inc := g.withServer(t).Incident
			wantNothing(t, inc)
			if w := threadOf(t, inc, story.ConnLWP).WaitChannel; w == nil || w.Value != wmesg {
				t.Errorf("wait channel %+v", w)
			}
		})
	}
	t.Run("lost", func(t *testing.T) {
		t.Parallel()
		g := newStory(t, story.Options{})
		g.setWmesg(t, story.ConnLWP, "")
		inc := g.withServer(t).Incident
		for _, f := range inc.Findings {
			if f.Confidence == incident.ConfidenceCertain {
				t.Errorf("%s is certain without a wait message", f.Label)
			}
		}
		if w := threadOf(t, inc, story.ConnLWP).WaitChannel; w != nil {
			t.Errorf("wait channel %+v", w)
		}
	})
}

// A writer that waits for a reader is the other label, with other remedies.
func TestStoryMutantWriter(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	g.setWmesg(t, story.ConnLWP, "fifoow")
	g.setReg(t, story.ConnLWP, "rsi", 1) // O_WRONLY (sys/sys/fcntl.h)
	inc := g.withServer(t).Incident
	f := wantOne(t, inc, noReader, incident.ConfidenceCertain, story.ConnLWP)
	if !strings.Contains(threadOf(t, inc, story.ConnLWP).Syscall.Text, "O_WRONLY") {
		t.Errorf("call %+v", threadOf(t, inc, story.ConnLWP).Syscall)
	}
	for _, r := range f.Remedies {
		if r.ID == "fifo-write-once" {
			t.Error("a waiting writer gets the remedy for readers")
		}
	}
	// The message of a reader contradicts the call.
	g.setWmesg(t, story.ConnLWP, "fifoor")
	wantNothing(t, g.withServer(t).Incident)
}

// The path is never made up: when the register points nowhere, it comes from
// the frames, and that is said.
func TestStoryMutantPathPointer(t *testing.T) {
	t.Parallel()
	const nowhere = 0x10
	g := newStory(t, story.Options{})
	g.setReg(t, story.ConnLWP, "rdi", nowhere)
	inc := g.withServer(t).Incident
	f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
	if sc := threadOf(t, inc, story.ConnLWP).Syscall; sc == nil || strings.Contains(sc.Text, story.FIFO) || !strings.Contains(sc.Text, "0x10") {
		t.Errorf("call %+v", sc)
	}
	if f.Resource == nil || f.Resource.Path != story.FIFO || !strings.Contains(evidenceOf(f, "path").How, "my_open") {
		t.Errorf("resource %+v, path %+v", f.Resource, evidenceOf(f, "path"))
	}
	// Without stack there is nothing to take it from.
	g.bare = true
	f = wantOne(t, g.withServer(t).Incident, noWriter, incident.ConfidenceCertain, story.ConnLWP)
	if f.Resource != nil && f.Resource.Path != "" {
		t.Errorf("path %q", f.Resource.Path)
	}
	for _, r := range f.Remedies {
		if strings.Contains(strings.Join(r.Commands, " "), "[ -p") {
			t.Errorf("a command without path: %q", r.Commands)
		}
	}
}

// my_open's copy of the pointer is eight bytes off: the call's own argument
// wins, and nobody claims that my_open agrees.
func TestStoryMutantFrameRegister(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	// rbx of my_open lies in the frame of libthr's open, which saved it.
	th := g.thread(t, story.ConnLWP)
	n := 0
	for sp := th.Frames[0].SP; sp < th.Frames[2].SP; sp += 8 {
		if g.Uint64(sp) == story.NameAddr {
			g.putWord(sp, story.NameAddr+8)
			n++
		}
	}
	if n == 0 {
		// Nothing stored it there: then it still is in the register.
		g.setReg(t, story.ConnLWP, "rbx", story.NameAddr+8)
	}
	inc := g.withServer(t).Incident
	f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
	if f.Resource == nil || f.Resource.Path != story.FIFO {
		t.Errorf("resource %+v", f.Resource)
	}
	if how := evidenceOf(f, "path").How; strings.Contains(how, "agree: my_open") {
		t.Errorf("the frames are said to agree: %q", how)
	}
	if a := threadOf(t, inc, story.ConnLWP).Frames[2].Arguments; len(a) == 1 && a[0].Value == story.NameAddr {
		t.Errorf("my_open's argument is still %+v", a)
	}
}

// A return address that is no code ends the stack there: no frame is skipped.
func TestStoryMutantDroppedFrame(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	th := g.thread(t, story.ConnLWP)
	load := slices.IndexFunc(th.Frames, func(f story.Frame) bool { return strings.Contains(f.Function, "mysql_load") })
	done := false
	for sp := th.Frames[0].SP; sp < th.StackTop && !done; sp += 8 {
		if g.Uint64(sp) == th.Frames[load].PC {
			g.putWord(sp, 0x1234)
			done = true
		}
	}
	if load < 3 || !done {
		t.Fatal("the return address into mysql_load isn't on the stack")
	}
	inc := g.withServer(t).Incident
	got := threadOf(t, inc, story.ConnLWP)
	if hasFunction(got, "mysql_load") {
		t.Errorf("stack %q", functions(got))
	}
	if i := slices.IndexFunc(got.Frames, func(f incident.Frame) bool { return f.Trust == "frame-pointer" || f.Trust == "scan" }); i < 0 && got.StackNote == "" {
		t.Errorf("the stack is trusted to its end: %+v", got.Frames)
	}
	if c := inc.Verdict.Coverage; c.StacksTrusted != 22 {
		t.Errorf("coverage %+v", c)
	}
	// The kernel's word stands without a stack.
	wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
	// A kernel core has no such word.
	k := newStory(t, story.Options{KernelCore: true})
	th = k.thread(t, story.ConnLWP)
	for sp := th.Frames[0].SP; sp < th.StackTop; sp += 8 {
		if k.Uint64(sp) == th.Frames[load].PC {
			k.putWord(sp, 0x1234)
		}
	}
	for _, f := range k.alone(t).Incident.Findings {
		if f.Confidence != incident.ConfidencePossible {
			t.Errorf("%s is %s without LOAD DATA", f.Label, f.Confidence)
		}
	}
}

// PRSTATUS gives the registers another LWP: nothing that the kernel or the
// structure says of the old one is taken for it.
func TestStoryMutantLWP(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	const stranger = 100999
	binary.LittleEndian.PutUint32(g.prstatus(t, story.ConnLWP)[bsdPRPid:], stranger)
	inc := g.withServer(t).Incident
	th := threadOf(t, inc, stranger)
	if th.Handle != nil || th.WaitChannel != nil {
		t.Errorf("LWP %d has the handle %v and the wait channel %+v", stranger, th.Handle, th.WaitChannel)
	}
	for _, f := range inc.Findings {
		if f.Confidence == incident.ConfidenceCertain {
			t.Errorf("%s is certain on %v", f.Label, f.LWPs)
		}
	}
	wantSession(t, inc, 1, 0)
	wantSession(t, inc, 2, neighbour)
	if text := warning(t, inc, "core-kinfo"); !strings.Contains(text, "100999") {
		t.Errorf("the warning doesn't name the thread: %s", text)
	}
	if text := warning(t, inc, "session-unmatched"); !strings.Contains(text, "0x829e76000") {
		t.Errorf("the warning doesn't name the handle: %s", text)
	}
}

// Registers of another call, with the message of an open.
func TestStoryMutantCall(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	g.setReg(t, story.ConnLWP, "rax", 3) // read (sys/kern/syscalls.master)
	inc := g.withServer(t).Incident
	wantNothing(t, inc)
	if sc := threadOf(t, inc, story.ConnLWP).Syscall; sc != nil && sc.Name != "read" {
		t.Errorf("call %+v", sc)
	}
}
