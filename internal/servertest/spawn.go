package servertest

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// startAndWait starts cmd, tells on started how that went, and waits for it.
// The goroutine keeps its thread until the process ends: a parent-death signal
// is sent when the thread that forked ends, not the process (prctl(2)).
func startAndWait(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := withCores(cmd.Start)
	started <- err
	if err == nil {
		// How it ended is the caller's to judge: cores and kills are wanted.
		_ = cmd.Wait()
	}
}

// coreLimit guards this process's own limit while it is raised.
var coreLimit sync.Mutex

// withCores runs start while children inherit a core limit as high as this
// process may give. A child's can't be raised later without CAP_SYS_RESOURCE
// once it runs as another user.
func withCores(start func() error) (err error) {
	coreLimit.Lock()
	defer coreLimit.Unlock()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &old); err != nil {
		return fmt.Errorf("core limit: %w", err)
	}
	if old.Max == 0 {
		return errors.New("the hard core limit of this process is 0: no core can be made (ulimit -H -c)")
	}
	raised := old
	raised.Cur = raised.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &raised); err != nil {
		return fmt.Errorf("raising the core limit: %w", err)
	}
	defer func() {
		if e := syscall.Setrlimit(syscall.RLIMIT_CORE, &old); e != nil {
			err = errors.Join(err, fmt.Errorf("restoring the core limit: %w", e))
		}
	}()
	return start()
}
