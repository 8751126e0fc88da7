package analyze

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"mycore/internal/diagnose"
	"mycore/internal/target"
)

// statDeadline bounds a look at one path: a dead mount answers never. The
// goroutine that hangs there is left behind.
const statDeadline = 2 * time.Second

// lookAtPaths says what stands under the paths that threads are opening, in
// the sysroot if there is one, else on this machine.
func (img *image) lookAtPaths() map[string]diagnose.PathFact {
	out := map[string]diagnose.PathFact{}
	if img.opts.Offline {
		return out
	}
	for _, t := range img.threads {
		if t.call == nil || !t.call.path.Known || !opens(t.call.Name) {
			continue
		}
		p := t.call.path.V
		if !path.IsAbs(p) {
			if !t.call.dir.Known {
				continue
			}
			p = path.Join(t.call.dir.V, p)
		}
		if _, ok := out[p]; ok {
			continue
		}
		if kind, ok := img.pathKind(p); ok {
			out[p] = diagnose.PathFact{Kind: kind, Source: target.SourceFilesystem, SameSystem: img.sameSystem()}
		} else {
			img.warn("path-not-answering", "a look at the path that thread %d is opening got no answer in %v: nothing is known about it now", t.note.LWP, statDeadline)
		}
	}
	return out
}

// pathKind looks without following a last link; ok is false when no answer
// came in time.
func (img *image) pathKind(p string) (kind string, ok bool) {
	answer := make(chan string, 1)
	go func() {
		info, err := lstat(img.opts.Sysroot, p)
		answer <- kindOf(info, err)
	}()
	select {
	case k := <-answer:
		return k, true
	case <-time.After(statDeadline):
		return "", false
	}
}

// lstat looks inside the sysroot without leaving it, whatever the links there
// say.
func lstat(sysroot, p string) (fs.FileInfo, error) {
	if sysroot == "" {
		return os.Lstat(p)
	}
	root, err := os.OpenRoot(sysroot)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	rel, err := filepath.Rel("/", path.Clean(p))
	if err != nil {
		return nil, err
	}
	return root.Lstat(rel)
}

func kindOf(info fs.FileInfo, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "missing"
	case err != nil:
		return "other"
	}
	switch m := info.Mode(); {
	case m&fs.ModeNamedPipe != 0:
		return "fifo"
	case m.IsRegular():
		return "regular"
	case m.IsDir():
		return "directory"
	case m&fs.ModeDevice != 0:
		return "device"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "other"
}

// sameSystem says whether this machine's file system is the one that the
// process sees: only when the process itself is still here, with every thread
// of the core. A core from elsewhere proves nothing by a path that is missing.
func (img *image) sameSystem() bool {
	pid := img.core.Info().PID
	if !pid.Known || pid.V <= 0 || img.opts.Sysroot != "" {
		return false
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid.V))
	main := img.mods.Main()
	if main == nil {
		return false
	}
	if exe, err := os.Readlink(filepath.Join(proc, "exe")); err != nil || exe != main.Name() {
		return false
	}
	for _, t := range img.threads {
		if _, err := os.Lstat(filepath.Join(proc, "task", strconv.Itoa(t.note.LWP))); err != nil {
			return false
		}
	}
	return true
}
