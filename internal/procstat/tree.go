package procstat

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// dir is an open directory of the tree. Every name used below it is a single
// component and no link is followed, so nothing outside the tree is reachable.
// Plain descriptors instead of os.Root and os.File: a tree has thousands of
// tiny files, and this takes a third of the time.
type dir struct {
	fd   int
	path string // below the tree's top, for messages
}

func openTop(name string) (dir, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return dir{fd: fd}, err
}

// sub opens a directory in d; missing says that there is nothing of the name.
func (d dir) sub(name string) (s dir, missing bool, err error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return dir{fd: fd, path: path.Join(d.path, name)}, errors.Is(err, unix.ENOENT), err
}

func (d dir) close() { _ = unix.Close(d.fd) }

// lookup returns the type bits and size of a name in d, 0 when there is none
// or it can't be told.
func (d dir) lookup(name string) (typ uint32, size int64) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, 0
	}
	return uint32(st.Mode) & unix.S_IFMT, st.Size
}

func (d dir) isDir(name string) bool {
	typ, _ := d.lookup(name)
	return typ == unix.S_IFDIR
}

// names lists d in no order, at most limit names; more says that there are
// others.
func (d dir) names(limit int) (names []string, more bool, err error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer f.Close()
	for {
		part, err := f.Readdirnames(4096)
		names = append(names, part...)
		if len(names) > limit {
			return names[:limit], true, nil
		}
		if errors.Is(err, io.EOF) {
			return names, false, nil
		}
		if err != nil {
			return names, false, err
		}
	}
}

// link reads the text of a symbolic link; ok is false when name isn't one.
func (d dir) link(name string, buf []byte) (text string, ok bool, err error) {
	n, err := unix.Readlinkat(d.fd, name, buf)
	if errors.Is(err, unix.EINVAL) {
		return "", false, nil
	}
	if err != nil {
		return "", true, err
	}
	return string(buf[:n]), true, nil
}

// names lists a directory with the warnings that go with it.
func (r *reader) names(d dir, limit int) []string {
	names, more, err := d.names(limit)
	if err != nil {
		r.warn(CodeUnreadable, "reading directory %q of %q: %v", d.path, r.dir, err)
	}
	if more {
		r.warn(CodeLimit, "directory %q of %q has more than %d entries: the rest was left out", d.path, r.dir, limit)
	}
	return names
}

// sub opens a directory; a missing one gives no warning.
func (r *reader) sub(d dir, name string) (dir, bool) {
	s, missing, err := d.sub(name)
	if err != nil && !missing {
		r.warn(CodeUnreadable, "opening directory %q of %q: %v", path.Join(d.path, name), r.dir, err)
	}
	return s, err == nil
}

// read returns at most limit bytes of a file. The result is overwritten by the
// next read. ok is false when the file is missing, and, with a warning, when
// it couldn't be read.
func (r *reader) read(d dir, name string, limit int) (b []byte, ok bool) {
	b, ok = r.head(d, name, limit+1)
	if len(b) > limit {
		r.warn(CodeLimit, "file %q of %q is longer than %d bytes: the rest was left out", path.Join(d.path, name), r.dir, limit)
		b = b[:limit]
	}
	return b, ok
}

// head returns the first limit bytes of a file, or all of a shorter one.
func (r *reader) head(d dir, name string, limit int) (b []byte, ok bool) {
	fd, size, ok := r.open(d, name)
	if !ok {
		return nil, false
	}
	defer unix.Close(fd)
	r.buf = r.buf[:0]
	for len(r.buf) < limit {
		if len(r.buf) == cap(r.buf) {
			r.buf = slices.Grow(r.buf, max(4096, len(r.buf)))
		}
		n, err := unix.Read(fd, r.buf[len(r.buf):min(cap(r.buf), limit)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			// The kernel answers ESRCH and EACCES this way for a process that
			// ended or isn't ours; such a file is as good as missing.
			r.warn(CodeUnreadable, "reading %q of %q: %v", path.Join(d.path, name), r.dir, err)
			return nil, false
		}
		r.buf = r.buf[:len(r.buf)+n]
		// A file of the kernel itself has size 0 and ends where it ends.
		if n == 0 || size > 0 && int64(len(r.buf)) == size {
			break
		}
	}
	return r.buf, true
}

// open opens a regular file for reading. It looks before it opens, and neither
// follows a link nor waits for a writer of a FIFO.
func (r *reader) open(d dir, name string) (fd int, size int64, ok bool) {
	typ, size := d.lookup(name)
	switch {
	case typ == 0:
		return -1, 0, false
	case typ != unix.S_IFREG:
		r.warn(CodeUnreadable, "%q of %q isn't a regular file (%s): it was left out", path.Join(d.path, name), r.dir, typeName(typ))
		return -1, 0, false
	}
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		r.warn(CodeUnreadable, "opening %q of %q: %v", path.Join(d.path, name), r.dir, err)
		return -1, 0, false
	}
	r.found = true
	return fd, size, true
}

func typeName(typ uint32) string {
	switch typ {
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFIFO:
		return "FIFO"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}

// pathError gives err the shape that the os package uses.
func pathError(op, name string, err error) error {
	return fmt.Errorf("opening /proc copy: %w", &fs.PathError{Op: op, Path: name, Err: err})
}
