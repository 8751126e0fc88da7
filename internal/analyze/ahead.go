package analyze

import (
	"runtime/debug"
	"sync"
	"sync/atomic"

	"mycore/internal/diagnose"
)

// ahead is work that was started before the stage that needs it, because it
// depends on nothing that comes in between: the other processors are idle while
// core and binaries are opened. Its results are kept by the packages that make
// them, so the stage that asks first waits, or makes them itself.
type ahead struct {
	running sync.WaitGroup
	failed  atomic.Pointer[workerPanic]
}

func (a *ahead) do(work ...func()) {
	for _, f := range work {
		a.running.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					a.failed.CompareAndSwap(nil, &workerPanic{r, debug.Stack()})
				}
			}()
			f()
		})
	}
}

// wait returns when all of it is done: the files may be closed then. A panic
// goes on in the caller.
func (a *ahead) wait() {
	a.running.Wait()
	if p := a.failed.Load(); p != nil {
		panic(p)
	}
}

// loadRules reads the shipped rules. Their errors come with their use.
func loadRules() { _, _ = diagnose.Default() }

// indexMain reads the symbols of the server, which has by far the most.
func (img *image) indexMain() {
	if m := img.mods.Main(); m != nil {
		m.Symbols().At(m.LinkTime(m.Image.Base))
	}
}
