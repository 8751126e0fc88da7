//go:build linux || freebsd

package unpack

import (
	"os"

	"golang.org/x/sys/unix"
)

// freeSpace returns the bytes that an unprivileged user may still write to
// the file system of f.
func freeSpace(f *os.File) (int64, bool) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, false
	}
	blocks, size := int64(st.Bavail), int64(st.Bsize) // FreeBSD: negative when root used the reserve
	if size <= 0 {
		return 0, false
	}
	if blocks > (1<<62)/size {
		return 1 << 62, true
	}
	return max(blocks, 0) * size, true
}
