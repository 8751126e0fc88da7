package servertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// lockWait is how long a test waits for the others: longer than all real
// servers' tests of the module take together, shorter than `make test` allows.
const lockWait = 40 * time.Minute

const corePatternFile = "/proc/sys/kernel/core_pattern"

// holder is who has the machine's lock within this process. A test and its
// subtests share it: they run one after the other.
var holder struct {
	sync.Mutex
	test  string // first part of the test's name
	depth int
	file  *os.File      // the locked file
	freed chan struct{} // closed when test gives the lock back
}

// Lock holds the one lock around everything that starts real processes until
// the test ends: core_pattern, ports and disk space are the machine's. A test
// and its subtests hold it together. Start and the program builders call it.
func Lock(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	root, _, _ := strings.Cut(t.Name(), "/")
	for {
		holder.Lock()
		if holder.depth == 0 || holder.test == root {
			break
		}
		freed, by := holder.freed, holder.test
		holder.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			t.Fatalf("waiting for the lock that %s holds: %v", by, ctx.Err())
		}
	}
	defer holder.Unlock()
	if holder.depth == 0 {
		f, err := lockFile(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := restoreCorePattern(); err != nil {
			t.Error(err)
		}
		removeStale()
		holder.test, holder.file, holder.freed = root, f, make(chan struct{})
	}
	holder.depth++
	t.Cleanup(unlock)
}

// unlock gives back one hold.
func unlock() {
	holder.Lock()
	defer holder.Unlock()
	holder.depth--
	if holder.depth == 0 {
		holder.file.Close()
		close(holder.freed)
	}
}

// dirPrefix begins the name of every directory that a started process gets.
const dirPrefix = "mycore-run-"

// removeStale removes the directories of tests that were killed. Whoever holds
// the lock knows that none of them is in use. What can't be removed is in
// nobody's way but the disk's, which is checked before a core is made.
func removeStale() {
	for _, parent := range []string{os.TempDir(), filepath.Join(cacheDir(), "root-*", "tmp")} {
		stale, err := filepath.Glob(filepath.Join(parent, dirPrefix+"*"))
		if err != nil {
			continue // only a malformed pattern fails
		}
		for _, dir := range stale {
			_ = os.RemoveAll(dir)
		}
	}
}

// stateDir holds the lock and what must survive a killed test.
func stateDir() string { return filepath.Join(os.TempDir(), "mycore-servertest") }

// lockFile locks the machine-wide file; closing it gives the lock back.
func lockFile(ctx context.Context) (*os.File, error) {
	if err := os.MkdirAll(stateDir(), 0o755); err != nil {
		return nil, fmt.Errorf("directory of the lock: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(stateDir(), "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock of the real servers: %w", err)
	}
	got := make(chan error, 1)
	go func() {
		for {
			err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
			if !errors.Is(err, syscall.EINTR) {
				got <- err
				return
			}
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		return f, nil
	case <-ctx.Done():
		// The goroutine may still get the lock, so f stays open with it; the
		// test fails and the process ends.
		return nil, fmt.Errorf("another test process holds %s: %w", f.Name(), ctx.Err())
	}
}

// savedPattern is where core_pattern's previous value lies while it is
// changed, so that the next test restores it if this process is killed.
func savedPattern() string { return filepath.Join(stateDir(), "core_pattern.saved") }

// withCorePattern runs f while cores of this machine go by the name core into
// the working directory of their process.
func withCorePattern(f func() error) (err error) {
	old, err := os.ReadFile(corePatternFile)
	if err != nil {
		return fmt.Errorf("core_pattern: %w", err)
	}
	// Renamed into place: a half-written value must never be restored.
	tmp := savedPattern() + ".new"
	if err := os.WriteFile(tmp, old, 0o644); err != nil {
		return fmt.Errorf("saving core_pattern: %w", err)
	}
	if err := os.Rename(tmp, savedPattern()); err != nil {
		return fmt.Errorf("saving core_pattern: %w", err)
	}
	defer func() { err = errors.Join(err, restoreCorePattern()) }()
	if err := os.WriteFile(corePatternFile, []byte("core\n"), 0o644); err != nil {
		return fmt.Errorf("setting core_pattern: %w", err)
	}
	return f()
}

// restoreCorePattern undoes withCorePattern, be it of this process or of one
// that was killed in between.
func restoreCorePattern() error {
	old, err := os.ReadFile(savedPattern())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("saved core_pattern: %w", err)
	}
	if err := os.WriteFile(corePatternFile, old, 0o644); err != nil {
		return fmt.Errorf("restoring core_pattern: %w", err)
	}
	return os.Remove(savedPattern())
}

// pollEvery is the pause between looks at something that has no event to wait
// for, as the files of /proc have none.
const pollEvery = 20 * time.Millisecond

// poll calls done until it says true, fails, or ctx ends.
func poll(ctx context.Context, what string, done func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
}
