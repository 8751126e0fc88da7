package main

import (
	"strings"
	"testing"
)

// The line is rewritten when its text changes and wiped at the end.
func TestProgress(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b)
	const mib = 1 << 20
	for _, done := range []int64{0, 1, mib, 50 * mib, 50*mib + 1, 99 * mib, 100 * mib} {
		p.update("unpacking", done, 100*mib)
	}
	p.update("reading", 3*mib, 0) // how much there is isn't known
	const wipe = "\r\x1b[K"
	want := wipe + "unpacking 0 %" + wipe + "unpacking 1 %" + wipe + "unpacking 50 %" + wipe + "unpacking 99 %" + wipe + wipe + "reading 3 MiB"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
