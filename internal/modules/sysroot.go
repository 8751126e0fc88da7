package modules

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"mycore/internal/elfimage"
)

// maxLinks bounds the symbolic links followed for one path, as Linux does
// (include/linux/namei.h, MAXSYMLINKS).
const maxLinks = 40

// errPseudo refuses paths named by a core that lead to the kernel's own files:
// some of them are regular files by their mode whose reading has effects or
// waits, such as /proc/kmsg and trace_pipe.
var errPseudo = errors.New("not opened: a file of the kernel or a device")

// sysroot opens the target's files below a directory. Symbolic links are
// resolved as they would be after chroot: none leads out of it.
type sysroot struct {
	dir  string
	root *os.Root
}

func openSysroot(dir string) (*sysroot, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, err
	}
	return &sysroot{dir: abs, root: root}, nil
}

// open opens the image at a path inside the root.
func (r *sysroot) open(name string) (*opened, error) {
	resolved, err := r.resolve(name)
	if err != nil {
		return nil, err
	}
	st, err := r.root.Lstat(resolved)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, elfimage.ErrNotRegular
	}
	fh, err := r.root.OpenFile(resolved, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err = fh.Stat(); err == nil && !st.Mode().IsRegular() {
		err = elfimage.ErrNotRegular
	}
	var f *elfimage.File
	if err == nil {
		f, err = elfimage.New(fh, st.Size(), filepath.Join(r.dir, resolved))
	}
	if err != nil {
		fh.Close()
		return nil, err
	}
	return &opened{File: f, Closer: fh, inRoot: "/" + resolved}, nil
}

// resolve follows the links of a path inside the root and returns the path
// that has none, relative to the root.
func (r *sysroot) resolve(name string) (string, error) {
	var done []string
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = done[:max(len(done)-1, 0)]
			continue
		}
		at := path.Join(append(done[:len(done):len(done)], part)...)
		st, err := r.root.Lstat(at)
		if err != nil {
			return "", err
		}
		if st.Mode()&os.ModeSymlink == 0 {
			done = append(done, part)
			continue
		}
		if links++; links > maxLinks {
			return "", syscall.ELOOP
		}
		link, err := r.root.Readlink(at)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(link, "/") {
			done = nil
		}
		todo = append(strings.Split(link, "/"), todo...)
	}
	if len(done) == 0 {
		return "", elfimage.ErrNotRegular
	}
	if isPseudo("/" + done[0]) {
		return "", errPseudo
	}
	return path.Join(done...), nil
}

// inside returns the forms under which a recorded path may lie in the root:
// as it is, and without the root's own path, which the kernel records when the
// process was looked at from outside its chroot.
func (r *sysroot) inside(recorded string) []string {
	out := []string{recorded}
	if rest, ok := strings.CutPrefix(recorded, r.dir); ok && strings.HasPrefix(rest, "/") {
		out = append(out, rest)
	}
	return out
}

// openRecorded opens a path that the core names on this machine's own file
// system.
func openRecorded(name string) (*opened, error) {
	if isPseudo(name) { // also links there that lead elsewhere: /proc/PID/exe is another process's file
		return nil, errPseudo
	}
	resolved, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	if isPseudo(resolved) {
		return nil, errPseudo
	}
	return openUser(resolved)
}

// isPseudo says that an absolute, resolved path leads into the file systems of
// the kernel.
func isPseudo(p string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

// opened is an image with what its file is closed by.
type opened struct {
	*elfimage.File
	io.Closer
	inRoot string // path inside the sysroot, links resolved; "" outside
}

// Close closes the file below the image.
func (o *opened) Close() error { return o.Closer.Close() }

// openUser opens a file that the user named, or one in a directory that the
// user named.
func openUser(name string) (*opened, error) {
	f, err := elfimage.Open(name)
	if err != nil {
		return nil, err
	}
	return &opened{File: f, Closer: f}, nil
}

// lookError shortens an error for the list of what was looked at: the path
// stands before it anyway.
func lookError(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "not there"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "ends early"
	}
	return fmt.Sprint(err)
}
