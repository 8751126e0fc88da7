package coretest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Rand returns a generator that gives the same numbers for the same seed on
// every machine.
func Rand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6d79636f7265)) }

// Mutate damages b in place within [lo, hi) and returns a description and a
// function that repairs it. Two in three mutations change one byte, the others
// a block of up to 64 bytes: zeros, ones, random bytes, or a copy from
// elsewhere in the range.
func Mutate(r *rand.Rand, b []byte, lo, hi int) (what string, undo func()) {
	at := lo + r.IntN(hi-lo)
	n := 1
	if r.IntN(3) == 0 {
		n = min(1+r.IntN(64), hi-at)
	}
	old := append([]byte(nil), b[at:at+n]...)
	block := b[at : at+n]
	kind := r.IntN(5)
	switch {
	case kind == 0:
		clear(block)
	case kind == 1:
		for i := range block {
			block[i] = 0xff
		}
	case kind == 2 && n > 1:
		from := lo + r.IntN(hi-lo-n+1)
		copy(block, append([]byte(nil), b[from:from+n]...))
	case kind == 3:
		block[0] ^= 1 << r.IntN(8)
	default:
		for i := range block {
			block[i] = byte(r.Uint32())
		}
	}
	return fmt.Sprintf("kind %d, %d bytes at %#x", kind, n, at), func() { copy(b[at:], old) }
}

// Module returns the root of the module that the test runs in.
func Module(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test's directory")
		}
		dir = up
	}
}

// Cores returns the directory of the shared real cores, which lies beside the
// module, or skips the test: they aren't part of the project.
func Cores(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(Module(t), "..", "shared", "cores")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the shared cores aren't here: %v", err)
	}
	return dir
}

// Absent skips a test that needs a tool of the machine, or fails it where
// MYCORE_REQUIRE_SERVERS=1 says that everything was installed.
func Absent(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("MYCORE_REQUIRE_SERVERS") == "1" {
		t.Fatalf("%s is missing and MYCORE_REQUIRE_SERVERS=1", what)
	}
	t.Skipf("%s isn't installed", what)
}
