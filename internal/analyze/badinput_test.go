package analyze_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
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
	"mycore/internal/coretest/story"
	"mycore/internal/incident"
	"mycore/internal/report"
	"mycore/internal/unpack"
)

// For more than every run does:
//
//	go test ./internal/analyze -run TestBadInput -seed 7
//	go test ./internal/analyze -run TestBadCore -core COPY [-exe BINARY] [-sysroot DIR]
var (
	seed    = flag.Uint64("seed", 0, "seed of TestBadInput and TestBadCore")
	badCore = flag.String("core", "", "core `file` that TestBadCore may destroy")
	badExe  = flag.String("exe", "", "its `binary`")
	badRoot = flag.String("sysroot", "", "`directory` of its files; this machine's root if empty")
)

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
	size int // of the file in bytes
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
	if err := sound(res.Incident); err != nil {
		return errors.Join(err, res.Close())
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

// sound holds what no damage may lead to: only a thread in open() may wait for
// a FIFO, and a core alone proves none unless it has the kernel's wait message.
func sound(inc *incident.Incident) error {
	for _, f := range inc.Findings {
		if f.Confidence == incident.ConfidenceCertain && !hasWaitMessage(inc, &f) {
			return fmt.Errorf("%s is certain from a core alone: %s", f.Label, f.Title)
		}
		for _, lwp := range f.LWPs {
			i := slices.IndexFunc(inc.Threads, func(t incident.Thread) bool { return t.LWP == lwp })
			if i < 0 {
				return fmt.Errorf("%s names LWP %d, which is no thread of the core", f.Label, lwp)
			}
			if sc := inc.Threads[i].Syscall; (sc == nil || !strings.HasPrefix(sc.Name, "open")) && !(sc == nil && hasWaitMessage(inc, &f)) {
				return fmt.Errorf("%s on LWP %d, which is in %+v", f.Label, lwp, sc)
			}
		}
	}
	return nil
}

func hasWaitMessage(inc *incident.Incident, f *incident.Finding) bool {
	return !slices.ContainsFunc(f.LWPs, func(lwp int) bool {
		i := slices.IndexFunc(inc.Threads, func(t incident.Thread) bool { return t.LWP == lwp })
		if i < 0 || inc.System.OS != "freebsd" {
			return true
		}
		w := inc.Threads[i].WaitChannel
		return w == nil || !strings.HasPrefix(w.Value, "fifoo")
	})
}

// storyGcore is the core whose images are at hand as well.
const storyGcore = "story"

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
	out[storyGcore] = story.Build(story.Options{SegBases: true}).Core
	out["story, by the kernel"] = story.Build(story.Options{KernelCore: true, Release: 13}).Core
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
			d := &damaged{t: t, size: len(core), head: headEnd(t, core), alone: &alone}
			d.opts = options(t, filepath.Join(t.TempDir(), "damaged.core"))
			if err := os.WriteFile(d.opts.Core, core, 0o600); err != nil {
				t.Fatal(err)
			}
			if name == storyGcore {
				d.opts.Sysroot = newStory(t, story.Options{SegBases: true}).text("sysroot")
			}
			d.once("whole")
			d.mutate(mutations, core[:d.head], 0)
			if name == "ghost-fifo" { // the images that the analysis reads are in it
				d.mutate(mutations/4, core, d.head)
			}
			d.truncate(truncations)
			d.report()
		})
	}
}

func (d *damaged) report() {
	d.t.Logf("%d runs, %d refused", d.runs, d.fails)
	if d.fails == d.runs {
		d.t.Error("every run was refused: nothing was tested")
	}
}

// TestBadCore does the same to a core of the caller, with its binaries.
func TestBadCore(t *testing.T) {
	if *badCore == "" {
		t.Skip("no -core given")
	}
	f, err := os.Open(*badCore)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	const most = 64 << 20 // headers and notes of 10,000 threads take less
	core, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		t.Fatal(err)
	}
	d := &damaged{t: t, size: int(st.Size()), head: headEnd(t, core), alone: new(sync.RWMutex)}
	d.opts = analyze.Options{Core: *badCore, Exe: *badExe, Sysroot: *badRoot, Offline: true}
	d.once("whole")
	d.mutate(2000, core[:d.head], 0)
	d.truncate(200)
	d.report()
}

// headEnd is where headers and notes end; of cores that Edit doesn't know (32
// bits), the first pages.
func headEnd(t *testing.T, core []byte) int {
	if core[4] != 2 {
		return min(len(core), 16<<10)
	}
	return coretest.NewEdit(t, core).HeadEnd()
}

// mutate damages the file's first bytes from lo on, one place at a time.
func (d *damaged) mutate(n int, sane []byte, lo int) {
	r := coretest.Rand(*seed<<32 + uint64(d.size+lo))
	f, err := os.OpenFile(d.opts.Core, os.O_WRONLY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	part := bytes.Clone(sane)
	write := func() {
		if _, err := f.WriteAt(part[lo:], int64(lo)); err != nil {
			d.t.Fatal(err)
		}
	}
	for i := range n {
		end := len(part)
		if i%2 == 0 && lo == 0 {
			// The first kilobyte decides more than the rest, and large notes
			// would leave it alone.
			end = min(end, 1<<10)
		}
		damage := coretest.Mutate
		if i%4 >= 2 {
			damage = setField
		}
		what, undo := damage(r, part, lo, end)
		write()
		d.once(what)
		undo()
	}
	write()
}

// setField puts a number that sizes and offsets go wrong with into an aligned
// field of 2, 4 or 8 bytes between lo and hi.
func setField(r *rand.Rand, b []byte, lo, hi int) (what string, undo func()) {
	width := 2 << r.IntN(3)
	at := max(lo, min(lo+r.IntN(hi-lo), hi-width)&^(width-1))
	numbers := []uint64{
		0, 1, 0xffff, 1 << 16, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1 << 40, 1<<47 - 1,
		1<<63 - 1, 1 << 63, math.MaxUint64, math.MaxUint64 - 4095, uint64(len(b)), uint64(at), uint64(at) - 1,
	}
	v := numbers[r.IntN(len(numbers))]
	old := bytes.Clone(b[at : at+width])
	copy(b[at:at+width], binary.LittleEndian.AppendUint64(nil, v))
	return fmt.Sprintf("%d bytes at %#x set to %#x", width, at, v), func() { copy(b[at:], old) }
}

func (d *damaged) truncate(n int) {
	r := coretest.Rand(*seed<<32 + uint64(d.head))
	sizes := make([]int, n)
	for i := range sizes {
		hi := d.size
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
