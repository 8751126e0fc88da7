package libthr

import (
	"fmt"
	"path/filepath"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
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
