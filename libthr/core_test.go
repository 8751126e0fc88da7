package libthr

import (
	"fmt"
	"path/filepath"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/coretest/story"
	"mycore/internal/kernelview"
	"mycore/internal/modules"
	"mycore/internal/target"
)

// Real AArch64 cores of static programs: the descriptors are in the program's
// own .symtab, and the structure lies before the thread pointer.
func TestFromCoreARM64(t *testing.T) {
	dir := filepath.Join(coretest.Cores(t), "linux", "elfutils")
	for _, c := range []struct {
		name      string
		confirmed string
		lwp       int
		handle    target.Addr
		start     target.Addr
	}{
		{"backtrace.aarch64", "24043:24043 24044:24044", 24044, 0x7f818e00a0, 0x402038},
		{"backtrace.aarch64.fp", "349:349 350:350", 350, 0x7fb637f0a0, 0x401c04},
	} {
		t.Run(c.name, func(t *testing.T) {
			core, err := elfcore.Open(filepath.Join(dir, c.name+".core.xz"), elfcore.Options{TempDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer core.Close()
			mods := modules.Load(core, modules.Options{Exe: filepath.Join(dir, c.name+".exec")})
			mem := core.WithBacking(mods.Backing())
			l, err := FromCore(mem, core, mods, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := confirmed(l); got != c.confirmed || l.Kind != KindGlibc || len(l.Warnings) != 0 {
				t.Errorf("%v, confirmed %q, warnings %v", l.Kind, got, l.Warnings)
			}
			if l.Layout.TID.Offset != 0xd0 || l.Layout.Size.Size != 1776 || l.Layout.TID.Source != target.SourceSymbol {
				t.Errorf("layout %+v", l.Layout)
			}
			th, _ := l.ByLWP(c.lwp)
			if th.Handle.V != c.handle || th.StartRoutine.V != c.start {
				t.Errorf("thread %+v", th)
			}
			if a := l.Resolve(fmt.Sprint(uint64(c.handle))); a.Status != StatusFound || a.Thread.LWP != c.lwp {
				t.Errorf("answer %+v", a)
			}
			// The kernel's word on the id counts: a contradiction is no proof.
			kv := &kernelview.Process{Threads: map[int]*kernelview.Thread{c.lwp: {LWP: c.lwp, NSPid: []int{c.lwp, 7}}}}
			l, err = FromCore(mem, core, mods, kv)
			if err != nil {
				t.Fatal(err)
			}
			if th, _ := l.ByLWP(c.lwp); th.Confirmed || codes(l) != CodeTID {
				t.Errorf("thread %+v, warnings %v", th, l.Warnings)
			}
		})
	}
}

// The story's core as FreeBSD's gcore would have written it: handles through
// libthr's symbols where the files are at hand, and without them.
func TestFromCoreFreeBSD(t *testing.T) {
	for _, o := range []story.Options{{}, {OldNotes: true}, {Release: 13, SegBases: true}, {Release: 12, KernelCore: true}} {
		s := story.Build(o)
		path, sysroot, err := s.Write(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		core, err := elfcore.Open(path, elfcore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer core.Close()
		for _, root := range []string{sysroot, t.TempDir()} {
			mods := modules.Load(core, modules.Options{Sysroot: root})
			l, err := FromCore(core.WithBacking(mods.Backing()), core, mods, nil)
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for _, want := range s.Threads {
				th, _ := l.ByLWP(want.LWP)
				if th.Confirmed && uint64(th.Handle.V) == want.Handle {
					found++
				} else {
					t.Errorf("%+v: %+v", o, th)
				}
			}
			if found != 23 || len(l.Warnings) != 0 || l.Kind != KindLibthr {
				t.Errorf("%+v: %d found, kind %v, warnings %v", o, found, l.Kind, l.Warnings)
			}
			want := target.SourceProfile
			if root == sysroot {
				want = target.SourceSymbol
			}
			if l.Layout.TID.Source != want {
				t.Errorf("%+v: layout by %v", o, l.Layout.TID.Source)
			}
			if a := l.Resolve("0x829e76000"); a.Status != StatusFound || a.Thread.LWP != story.ConnLWP {
				t.Errorf("answer %+v", a)
			}
		}
	}
}
