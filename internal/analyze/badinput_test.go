package analyze_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mycore/internal/analyze"
	"mycore/internal/coretest"
	"mycore/internal/report"
	"mycore/internal/unpack"
)

// seed gives other damage than every run's: go test -run BadInput -seed 7.
var seed = flag.Uint64("seed", 0, "seed of TestBadInput")

// What one analysis of a hostile core may cost. The first two are promises of
// the program; the watchdog doesn't time anything, it ends a test that would
// hang.
const (
	maxAllocated = 500 << 20
	maxRun       = 10 * time.Second
)

// damaged is a core file that is altered in place and analysed again and again.
type damaged struct {
	t    *testing.T
	opts analyze.Options
	sane []byte
	head int // headers and notes end here
	// alone: an analysis that seems to allocate too much is repeated without
	// any other at the same time.
	alone *sync.RWMutex
	runs  int
	fails int
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// once analyses the file as it is, within the limits, and looks at the outcome.
func (d *damaged) once(what string) {
	d.t.Helper()
	d.alone.RLock()
	cost := d.analyse(what)
	d.alone.RUnlock()
	if cost > maxAllocated {
		d.alone.Lock()
		cost = d.analyse(what)
		d.alone.Unlock()
		if cost > maxAllocated {
			d.t.Errorf("%s: %d MiB allocated", what, cost>>20)
		}
	}
	d.runs++
}

func (d *damaged) analyse(what string) (cost uint64) {
	d.t.Helper()
	before := allocated()
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(d.t.Context(), maxRun)
	defer cancel()
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			}
		}()
		done <- d.outcome(ctx)
	}()
	select {
	case err := <-done:
		if err != nil {
			d.t.Errorf("%s: %v", what, err)
		}
	case <-ctx.Done():
		buf := make([]byte, 1<<20)
		d.t.Fatalf("%s: no answer in %v\n%s", what, maxRun, buf[:runtime.Stack(buf, true)])
	}
	return allocated() - before
}

// outcome runs one analysis: an error has one line that names the file; a
// result can be shown.
func (d *damaged) outcome(ctx context.Context) error {
	res, err := analyze.Run(ctx, d.opts)
	if err != nil {
		d.fails++
		if res != nil {
			return fmt.Errorf("a result beside the error %w", err)
		}
		if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, filepath.Base(d.opts.Core)) {
			return fmt.Errorf("the error isn't one line with the file's name: %q", text)
		}
		return nil
	}
	if err := report.Text(io.Discard, res.Incident, report.TextOptions{Width: 80}); err != nil {
		return errors.Join(fmt.Errorf("text: %w", err), res.Close())
	}
	if d.runs%16 == 0 { // the larger output, now and then
		if err := report.JSON(io.Discard, res.Incident); err != nil {
			return errors.Join(fmt.Errorf("JSON: %w", err), res.Close())
		}
	}
	return res.Close()
}

// hostile are the cores that are damaged: the embedded incident, a synthetic
// one, and the shared real ones where they are at hand.
func hostile(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	b, err := demoCore()
	if err != nil {
		t.Fatal(err)
	}
	out["ghost-fifo"] = b
	out["synthetic"] = coretest.Sample(3).Bytes()
	dir := filepath.Join(coretest.Module(t), "..", "shared", "cores", "linux")
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*core*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Log("the shared cores aren't here: only the embedded one and a synthetic one are damaged")
	}
	for _, path := range paths {
		if b := readCore(t, path); b != nil {
			out[filepath.Base(path)] = b
		}
	}
	return out
}

// readCore reads a core file, compressed or not; nil for another kind of file.
func readCore(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	u, err := unpack.Open(t.Context(), path, unpack.Options{TempDir: t.TempDir()})
	if err == nil {
		defer u.Close()
		b, err = io.ReadAll(io.NewSectionReader(u, 0, u.Size()))
	} else if errors.Is(err, unpack.ErrNotCompressed) {
		err = nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, []byte("\x7fELF")) || len(b) < 18 || b[16] != 4 {
		return nil
	}
	return b
}

// Truncated anywhere, damaged anywhere in what describes it: a clear error or
// a partial result, always soon, never with much memory.
func TestBadInput(t *testing.T) {
	t.Parallel()
	truncations, mutations := 200, 2000
	if testing.Short() {
		truncations, mutations = 10, 60
	}
	var alone sync.RWMutex
	for name, core := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &damaged{t: t, sane: core, head: headEnd(t, core), alone: &alone}
			d.opts = options(t, filepath.Join(t.TempDir(), "damaged.core"))
			if err := os.WriteFile(d.opts.Core, core, 0o600); err != nil {
				t.Fatal(err)
			}
			d.once("whole")
			d.mutate(mutations, 0, d.head)
			if name == "ghost-fifo" { // the images that the analysis reads are in it
				d.mutate(mutations/4, d.head, len(core))
			}
			d.truncate(truncations)
			t.Logf("%d runs, %d refused", d.runs, d.fails)
			if d.fails == d.runs {
				t.Error("every run was refused: nothing was tested")
			}
		})
	}
}

// headEnd is where headers and notes end; of cores that Edit doesn't know (32
// bits), the first pages.
func headEnd(t *testing.T, core []byte) int {
	if core[4] != 2 {
		return min(len(core), 16<<10)
	}
	return coretest.NewEdit(t, core).HeadEnd()
}

// mutate damages bytes lo to hi, one place at a time.
func (d *damaged) mutate(n, lo, hi int) {
	r := coretest.Rand(*seed<<32 + uint64(len(d.sane)+lo))
	f, err := os.OpenFile(d.opts.Core, os.O_WRONLY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	part := bytes.Clone(d.sane[:hi])
	write := func() {
		if _, err := f.WriteAt(part[lo:], int64(lo)); err != nil {
			d.t.Fatal(err)
		}
	}
	for i := range n {
		end := hi
		if i%2 == 0 && lo == 0 {
			// The first kilobyte decides more than the rest, and large notes
			// would leave it alone.
			end = min(end, 1<<10)
		}
		what, undo := coretest.Mutate(r, part, lo, end)
		write()
		d.once(what)
		undo()
	}
	write()
}

func (d *damaged) truncate(n int) {
	r := coretest.Rand(*seed<<32 + uint64(d.head))
	sizes := make([]int, n)
	for i := range sizes {
		hi := len(d.sane)
		if i%2 == 0 {
			hi = d.head
		}
		sizes[i] = r.IntN(hi)
	}
	slices.Sort(sizes)
	for _, size := range slices.Backward(sizes) { // a file that shrinks needs no rewriting
		if err := os.Truncate(d.opts.Core, int64(size)); err != nil {
			d.t.Fatal(err)
		}
		d.once(fmt.Sprintf("cut to %d bytes", size))
	}
}
