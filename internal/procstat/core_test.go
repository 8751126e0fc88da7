package procstat

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// Real cores, made by a kernel and by gdb's gcore of a program of three threads.
func TestFromCore(t *testing.T) {
	cores := coretest.Cores(t)
	for _, c := range []struct {
		file   string
		lwps   []int
		masks  bool // gcore records none, and its zeros are not taken for masks
		inCall int
		call   string
	}{
		// The main thread waits in pthread_join: futex(uaddr, WAIT, 5672).
		{"gcore-linux-x86_64.core", []int{5669, 5671, 5672}, false, 5669, "202 [7f644d0769d0 0 1628 0 ca 7f644d0769d0]"},
		{"thread_crash-linux-x86_64.core", []int{5222, 5249, 5250}, true, 5250, "14 [2 7fc295016d70 0 8 0 7fc295016d70]"},
	} {
		t.Run(c.file, func(t *testing.T) {
			core, err := elfcore.Open(filepath.Join(cores, "linux", "llvm", c.file), elfcore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer core.Close()
			p := FromCore(core)
			if p.PID.V != c.lwps[0] || p.PID.Source != target.SourceCoreNote || !slices.Equal(p.LWPs(), c.lwps) {
				t.Errorf("pid %+v, threads %v", p.PID, p.LWPs())
			}
			for lwp, th := range p.Threads {
				if th.SigBlocked.Known != c.masks || !th.SP.Known || !th.PC.Known || th.WaitChannel.Known || th.State.Known {
					t.Errorf("thread %d: %+v", lwp, th)
				}
				switch {
				case lwp != c.inCall && th.Syscall.Known:
					t.Errorf("thread %d is in call %+v", lwp, th.Syscall)
				case lwp == c.inCall:
					if got := fmt.Sprintf("%d %x", th.Syscall.V.Number, th.Syscall.V.Args); got != c.call || !th.Syscall.V.InCall() {
						t.Errorf("thread %d: call %s, want %s", lwp, got, c.call)
					}
				}
			}
			// The two views of one process become one.
			tree := map[string]string{}
			for _, lwp := range c.lwps {
				tree[fmt.Sprintf("task/%d/status", lwp)] = statusText("a.out", c.lwps[0], lwp, "S (sleeping)", "")
				tree[fmt.Sprintf("task/%d/wchan", lwp)] = fmt.Sprintf("wait_%d", lwp)
			}
			saved, err := ReadProcTree(writeTree(t, tree))
			if err != nil {
				t.Fatal(err)
			}
			j := kernelview.Join(p, saved, kernelview.PreferBase)
			if j.Matched != 3 || len(j.View.Warnings) != 0 {
				t.Errorf("matched %d, warnings %v", j.Matched, j.View.Warnings)
			}
			for _, lwp := range c.lwps {
				if got := j.View.Threads[lwp].WaitChannel.V; got != fmt.Sprintf("wait_%d", lwp) {
					t.Errorf("thread %d has wait channel %q", lwp, got)
				}
			}
		})
	}
}
