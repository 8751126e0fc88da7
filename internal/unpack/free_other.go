//go:build !linux && !freebsd

package unpack

import "os"

// freeSpace is unknown here; a full disk shows in the write itself.
func freeSpace(*os.File) (int64, bool) { return 0, false }
