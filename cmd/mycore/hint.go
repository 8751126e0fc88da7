package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"mycore/elfcore"
	"mycore/internal/elfimage"
	"mycore/internal/unpack"
)

// withHint adds to an error about the core what the user can do about it. The
// error stays one line.
func withHint(core string, err error) error {
	var hint string
	st, missing := os.Stat(core)
	switch {
	case errors.Is(missing, fs.ErrNotExist):
		hint = "check the path; coredumpctl or /proc/sys/kernel/core_pattern tell where cores go"
	case errors.Is(err, fs.ErrPermission):
		hint = "read it as root or as the user whose process it was"
	case errors.Is(err, unpack.ErrTooLarge):
		hint = "--max-unpacked sets a higher one"
	case errors.Is(err, unpack.ErrNoSpace):
		hint = "TMPDIR names a directory with more room"
	case missing == nil && !st.Mode().IsRegular() && (errors.Is(err, elfimage.ErrNotRegular) || errors.Is(err, unpack.ErrNotRegular)):
		hint = "give the core file itself, copied to a file if it comes through a pipe"
	case errors.Is(err, elfcore.ErrNotCore) && !strings.Contains(err.Error(), "--exe"):
		hint = "give the core dump itself, plain or compressed with gzip, zstd, xz or lz4"
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w; %s", err, hint)
}
