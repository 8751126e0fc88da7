package realtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mycore/internal/incident"
	"mycore/internal/servertest"
)

// stacks are the program counters of each thread's physical frames, innermost
// first.
type stacks map[int][]uint64

func (s stacks) frames() int {
	n := 0
	for _, pcs := range s {
		n += len(pcs)
	}
	return n
}

// agreement is how far two tools' stacks of one core agree.
type agreement struct {
	ours, theirs, both int // frames
	missing, extra     []int
	diffs              []string // threads that differ, in words
}

// wantAgree is the share of frames that must agree, of ours and of theirs.
const wantAgree = 0.99

// compareStacks counts the frames that both have, in order: a frame that one
// of them lacks costs that frame, not all below it.
func compareStacks(ours, theirs stacks) agreement {
	a := agreement{ours: ours.frames(), theirs: theirs.frames()}
	for lwp, pcs := range ours {
		other, ok := theirs[lwp]
		if !ok {
			a.extra = append(a.extra, lwp)
			continue
		}
		n := common(pcs, other)
		a.both += n
		if n != len(pcs) || n != len(other) {
			a.diffs = append(a.diffs, fmt.Sprintf("LWP %d:\n  ours   %s\n  theirs %s", lwp, hexes(pcs), hexes(other)))
		}
	}
	for lwp := range theirs {
		if _, ok := ours[lwp]; !ok {
			a.missing = append(a.missing, lwp)
		}
	}
	slices.Sort(a.missing)
	slices.Sort(a.extra)
	slices.Sort(a.diffs)
	return a
}

func hexes(pcs []uint64) string {
	var b strings.Builder
	for _, pc := range pcs {
		fmt.Fprintf(&b, "%x ", pc)
	}
	return b.String()
}

// common is the length of the longest common subsequence.
func common(a, b []uint64) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		diagonal := 0
		for j, y := range b {
			up := row[j+1]
			if x == y {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(up, row[j])
			}
			diagonal = up
		}
	}
	return row[len(b)]
}

// problem says why two tools don't agree well enough, "" if they do.
func (a agreement) problem() string {
	switch {
	case len(a.missing) > 0 || len(a.extra) > 0:
		return fmt.Sprintf("threads %v are missing, %v are extra", a.missing, a.extra)
	case a.ours == 0 || a.theirs == 0:
		return "no frames"
	case float64(a.both) < wantAgree*float64(a.ours):
		return fmt.Sprintf("%d of our %d frames aren't theirs", a.ours-a.both, a.ours)
	case float64(a.both) < wantAgree*float64(a.theirs):
		return fmt.Sprintf("we lack %d of their %d frames", a.theirs-a.both, a.theirs)
	}
	return ""
}

// TestCompareStacks: the comparison must be able to fail.
func TestCompareStacks(t *testing.T) {
	made := func() stacks {
		s := stacks{}
		for lwp := 100; lwp < 140; lwp++ {
			for i := range 5 + lwp%17 {
				s[lwp] = append(s[lwp], 0x400000+uint64(lwp*100+i*16))
			}
		}
		return s
	}
	each := func(f func(pcs []uint64) []uint64) stacks {
		s := made()
		for lwp := range s {
			s[lwp] = f(s[lwp])
		}
		return s
	}
	for _, c := range []struct {
		name         string
		ours, theirs stacks
		good         bool
	}{
		{"equal", made(), made(), true},
		{"one frame of one thread", func() stacks { s := made(); s[120] = s[120][1:]; return s }(), made(), true},
		{"innermost dropped", each(func(p []uint64) []uint64 { return p[1:] }), made(), false},
		{"outermost dropped", each(func(p []uint64) []uint64 { return p[:len(p)-1] }), made(), false},
		{"one dropped", each(func(p []uint64) []uint64 { return slices.Delete(p, 2, 3) }), made(), false},
		{"extra innermost", each(func(p []uint64) []uint64 { return slices.Insert(p, 0, 1) }), made(), false},
		{"extra outermost", each(func(p []uint64) []uint64 { return append(p, 1) }), made(), false},
		{"one frame twice", each(func(p []uint64) []uint64 { return slices.Insert(p, 2, p[2]) }), made(), false},
		{"innermost alone", each(func(p []uint64) []uint64 { return p[:1] }), made(), false},
		{"nothing", each(func([]uint64) []uint64 { return nil }), made(), false},
		{"other order", each(func(p []uint64) []uint64 { slices.Reverse(p); return p }), made(), false},
		{"shifted", each(func(p []uint64) []uint64 {
			for i := range p {
				p[i]--
			}
			return p
		}), made(), false},
		{"one pc shifted", each(func(p []uint64) []uint64 { p[1]++; return p }), made(), false},
		{"a thread less", func() stacks { s := made(); delete(s, 120); return s }(), made(), false},
		{"a thread more", func() stacks { s := made(); s[1] = []uint64{1}; return s }(), made(), false},
		{"swapped owners", func() stacks {
			s := made()
			for lwp := 100; lwp < 140; lwp += 2 {
				s[lwp], s[lwp+1] = s[lwp+1], s[lwp]
			}
			return s
		}(), made(), false},
	} {
		if p := compareStacks(c.ours, c.theirs).problem(); (p == "") != c.good {
			t.Errorf("%s: %q", c.name, p)
		}
		if p := compareStacks(c.theirs, c.ours).problem(); (p == "") != c.good {
			t.Errorf("%s, the other way round: %q", c.name, p)
		}
	}
}

// entrySize bounds the code at a program's entry point: _start of glibc has 34
// to 47 bytes on x86-64 (sysdeps/x86_64/start.S).
const entrySize = 48

// toolStacks are a tool's frames without those that it is wrong about: the
// program's entry code is the outermost function of a stack (System V psABI,
// 3.4.1: it has no caller, its frame pointer is zero), whatever a tool finds
// behind it, which it does where that code has no call frame information.
func toolStacks(t *testing.T, s *servertest.Stacks, entry uint64) stacks {
	t.Helper()
	out := stacks{}
	behind := 0
	for _, st := range s.Threads {
		var pcs []uint64
		for i, f := range st.Frames {
			pcs = append(pcs, f.PC)
			if f.PC > entry && f.PC <= entry+entrySize {
				behind += len(st.Frames) - i - 1
				break
			}
		}
		out[st.LWP] = pcs
	}
	if behind > 0 {
		t.Logf("%s has %d frames behind the program's entry code", s.Tool, behind)
	}
	return out
}

func ourStacks(inc *incident.Incident) stacks {
	out := stacks{}
	for i := range inc.Threads {
		th := &inc.Threads[i]
		out[th.LWP] = nil
		for _, f := range th.Frames {
			out[th.LWP] = append(out[th.LWP], uint64(f.PC))
		}
	}
	return out
}

// testStacks compares all stacks with those of gdb and eu-stack.
func testStacks(t *testing.T, s *servertest.Server, core string) {
	inc := run(t, options(s, core)).Incident
	trust := map[string]int{}
	for i := range inc.Threads {
		th := &inc.Threads[i]
		for _, f := range th.Frames {
			trust[f.Trust]++
		}
		if th.StackNote != "" {
			t.Errorf("LWP %d: %s; stack %q", th.LWP, th.StackNote, functions(th))
		}
	}
	ours, entry := ourStacks(inc), entryOf(t, core)
	for _, tool := range []*servertest.Stacks{servertest.GDB(t, s.Target(core)), servertest.EUStack(t, s.Target(core))} {
		a := compareStacks(ours, toolStacks(t, tool, entry))
		t.Logf("%s: %d threads; of our %d frames %d are theirs, of their %d frames %d are ours; trust %v",
			tool.Tool, len(ours), a.ours, a.both, a.theirs, a.both, trust)
		for _, d := range a.diffs {
			t.Logf("%s differs in %s", tool.Tool, d)
		}
		if p := a.problem(); p != "" {
			t.Errorf("%s: %s", tool.Tool, p)
		}
		wantMutantsCaught(t, ours, toolStacks(t, tool, entry))
	}
}

// wantMutantsCaught: the same comparison fails for an unwinder that loses a
// frame of each stack, or is off by one.
func wantMutantsCaught(t *testing.T, ours, theirs stacks) {
	t.Helper()
	for name, alter := range map[string]func([]uint64) []uint64{
		"innermost frame dropped": func(p []uint64) []uint64 { return p[1:] },
		"second frame dropped":    func(p []uint64) []uint64 { return slices.Delete(slices.Clone(p), 1, min(2, len(p))) },
		"outermost frame dropped": func(p []uint64) []uint64 { return p[:len(p)-1] },
		"frame too many":          func(p []uint64) []uint64 { return append(slices.Clone(p), 0) },
		"one pc off by one":       func(p []uint64) []uint64 { p = slices.Clone(p); p[len(p)/2]--; return p },
	} {
		mutant := stacks{}
		for lwp, pcs := range ours {
			mutant[lwp] = alter(pcs)
		}
		if compareStacks(mutant, theirs).problem() == "" {
			t.Errorf("a mutant passes: %s", name)
		}
	}
}

func TestToolStacks(t *testing.T) {
	const entry = 0x401000
	s := &servertest.Stacks{Tool: "made up", Threads: []servertest.Stack{
		{LWP: 1, Frames: []servertest.Frame{{PC: 0x7f0000}, {PC: entry + 0x2e}, {PC: 1}, {PC: 0}}},
		{LWP: 2, Frames: []servertest.Frame{{PC: 0x7f0000}, {PC: entry + entrySize + 1}, {PC: 0x1234}}},
	}}
	got := toolStacks(t, s, entry)
	if !slices.Equal(got[1], []uint64{0x7f0000, entry + 0x2e}) || len(got[2]) != 3 {
		t.Errorf("%x", got)
	}
}
