// Package analyze is the pipeline from inputs to incident: it opens the core
// and the files behind it, joins what the kernel recorded, walks the stacks,
// maps the handles, names the system calls, and hands the facts to
// internal/diagnose.
//
// It decides nothing about causes and prints nothing.
package analyze

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"mycore/elfcore"
	"mycore/internal/diagnose"
	"mycore/internal/disasm"
	"mycore/internal/incident"
	"mycore/internal/kernelview"
	"mycore/internal/modules"
	"mycore/internal/target"
	"mycore/internal/unwind"
	"mycore/libthr"
)

// Options are the inputs of one analysis; only Core is needed.
type Options struct {
	Core      string   // path of the core file, plain or compressed
	Exe       string   // the server's binary
	Sysroot   string   // directory of the target's files
	DebugDirs []string // searched before /usr/lib/debug
	Proc      string   // a copied /proc/PID tree

	// Files of text that a person saved.
	Procstat     string // procstat -t, -k, -kk, -j, -i, -f, as text or libxo JSON
	PS           string // ps with thread rows and wait channels
	InnoDBStatus string // SHOW ENGINE INNODB STATUS
	Processlist  string // SHOW FULL PROCESSLIST
	ErrorLog     string // the server's error log
	KernelLog    string // dmesg or journal

	MaxUnpacked int64  // limit for a compressed core, in bytes; 0: the default
	TempDir     string // where it is unpacked; "": the system's

	// Offline leaves the file system of this machine alone: no look at the
	// paths that threads are opening, or at the process. For tests and for
	// incidents from elsewhere.
	Offline bool
	// CoreOnly takes binaries from nowhere but the core.
	CoreOnly bool
	// NoSystemDirs leaves this machine's debug directories out.
	NoSystemDirs bool

	// Trace, if not nil, is told each range of target memory that was read. It
	// must be safe for concurrent use.
	Trace func(addr target.Addr, n int)

	Workers  int // stack walkers; 0: one per processor, at most 8
	Tool     incident.Tool
	Progress func(stage string, done, total int64)
}

// maxWorkers: walking 500 stacks takes milliseconds; more workers only cost
// memory.
const maxWorkers = 8

// Result is the incident together with the open image, for questions about
// single handles. Close releases the files.
type Result struct {
	Incident *incident.Incident
	img      *image
	timings  []stageTime
}

// Close closes the core and the binaries.
func (r *Result) Close() error {
	return errors.Join(r.img.mods.Close(), r.img.core.Close())
}

// image is everything that is known about the process on the way.
type image struct {
	opts     Options
	core     *elfcore.Process // with the files' bytes spliced in
	mods     *modules.Set
	mem      target.Memory
	argMem   target.Memory // mem without the zeros that stand for lost stacks
	kernel   *kernelview.Process
	hasProc  bool
	texts    *texts
	lib      *libthr.Library
	unwinder *unwind.Unwinder
	recover  *disasm.Recoverer
	threads  []*thread // by LWP
	byLWP    map[int]*thread
	warnings []target.Warning
	names    nameCache
	started  ahead
}

// thread joins the views of one thread.
type thread struct {
	note   *elfcore.Thread
	kernel *kernelview.Thread
	lib    libthr.Thread
	stack  unwind.Stack
	call   *call
	over   bool // the registers say that it waits in no system call
	// session is what server text says of the session on this thread.
	session target.Value[diagnose.Session]
	moved   bool // its call differs between the saved /proc text and the core
	// args are arguments recovered from frames, by index of the frame.
	args map[int][]argument
}

// Run analyses a core. An error means that nothing could be said; whatever is
// only missing is among the incident's warnings.
func Run(ctx context.Context, opts Options) (*Result, error) {
	var clock stageClock
	img, err := open(ctx, opts, &clock)
	if err != nil {
		return nil, err
	}
	res := &Result{img: img}
	if err := img.fill(ctx, &clock); err != nil {
		return nil, errors.Join(err, res.Close())
	}
	sessions := img.joinSessions()
	in := img.facts()
	clock.done("facts")
	out, err := diagnose.Run(in)
	if err != nil {
		return nil, errors.Join(err, res.Close())
	}
	clock.done("rules")
	res.Incident = img.incident(in, out)
	res.Incident.Sessions = sessions
	res.Incident.Logs = img.logFacts()
	clock.done("incident")
	res.timings = clock.stages
	return res, nil
}

// open reads the inputs: core, binaries, /proc text.
func open(ctx context.Context, opts Options, clock *stageClock) (*image, error) {
	clock.start()
	core, err := elfcore.OpenContext(ctx, opts.Core, elfcore.Options{
		Progress: opts.Progress, TempDir: opts.TempDir, MaxUnpacked: opts.MaxUnpacked,
	})
	if err != nil {
		return nil, err
	}
	clock.done("core")
	if opts.Trace != nil {
		core = core.WithTrace(opts.Trace)
	}
	texts, err := readTexts(opts, core.Info().PID.V)
	if err != nil {
		return nil, errors.Join(err, core.Close())
	}
	clock.done("texts")
	img := &image{opts: opts, byLWP: map[int]*thread{}, texts: texts}
	img.started.do(loadRules, func() { core.ZeroStacks() })
	mods := modules.Load(core, modules.Options{
		Exe: opts.Exe, Sysroot: opts.Sysroot, DebugDirs: opts.DebugDirs,
		CoreDir: filepath.Dir(opts.Core), NoSystemDirs: opts.NoSystemDirs, CoreOnly: opts.CoreOnly,
	})
	clock.done("binaries")
	img.core, img.mods = core.WithBacking(mods.Backing()), mods
	img.started.do(img.indexMain)
	img.mem = &memory{core: img.core, mods: mods}
	img.argMem = withoutLostStacks(img.mem, core)
	img.warnings = append(img.warnings, core.Warnings()...)
	img.warnings = append(img.warnings, mods.Warnings()...)
	img.warnings = append(img.warnings, texts.warnings...)
	img.joinKernel(texts.views)
	return img, nil
}

// fill does the work that needs memory: handles, stacks, calls.
func (img *image) fill(ctx context.Context, clock *stageClock) error {
	defer img.started.wait()
	if err := img.findHandles(); err != nil {
		return err
	}
	clock.done("handles")
	if arch := img.core.Info().Arch; arch != target.AMD64 {
		img.warn("arch-not-unwound", "stacks of %s aren't unwound: each thread shows the function it is in, and nothing of its callers; threads, mappings, notes and handles are read", arch)
	}
	img.unwinder = unwind.New(img.mem, img.mods, unwind.Options{Core: img.core})
	img.recover = disasm.NewRecoverer(img.mem, img.unwinder.FunctionRange)
	if err := img.each(ctx, func(t *thread) { t.stack = img.unwinder.Thread(t.note) }); err != nil {
		return err
	}
	clock.done("stacks")
	if err := img.each(ctx, img.decodeCall); err != nil {
		return err
	}
	clock.done("system calls")
	return nil
}

// each runs f on every thread, a few at a time. Results go into the threads,
// so their order doesn't depend on the workers.
func (img *image) each(ctx context.Context, f func(*thread)) error {
	workers := img.opts.Workers
	if workers <= 0 {
		workers = min(runtime.GOMAXPROCS(0), maxWorkers)
	}
	next := make(chan *thread)
	var wg sync.WaitGroup
	var failed atomic.Pointer[workerPanic]
	for range min(workers, len(img.threads)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for t := range next {
				if p := guarded(f, t); p != nil {
					failed.CompareAndSwap(nil, p)
				}
			}
		}()
	}
	var err error
	for _, t := range img.threads {
		if err = ctx.Err(); err != nil || failed.Load() != nil {
			break
		}
		next <- t
	}
	close(next)
	wg.Wait()
	if p := failed.Load(); p != nil {
		panic(p)
	}
	return err
}

// workerPanic carries a panic out of a worker, with the stack that it had
// there: unrecovered in the worker it would end the program past the handler
// in main.
type workerPanic struct {
	value any
	stack []byte
}

func (p *workerPanic) String() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }

func guarded(f func(*thread), t *thread) (p *workerPanic) {
	defer func() {
		if r := recover(); r != nil {
			p = &workerPanic{r, debug.Stack()}
		}
	}()
	f(t)
	return nil
}

// joinKernel makes the kernel's view out of the core's notes and saved text.
func (img *image) joinKernel(saved []*kernelview.Process) {
	base := img.core.KernelView()
	img.kernel = base
	moved := map[int]bool{}
	for _, view := range saved {
		j := kernelview.Join(img.kernel, view, kernelview.PreferBase)
		img.kernel, img.hasProc = j.View, true
		for _, lwp := range j.Moved {
			moved[lwp] = true
		}
	}
	img.warnings = append(img.warnings, img.kernel.Warnings...)
	for _, n := range img.core.Threads() {
		t := &thread{note: n, kernel: img.kernel.Threads[n.LWP], moved: moved[n.LWP]}
		if t.kernel == nil {
			t.kernel = &kernelview.Thread{LWP: n.LWP}
		}
		img.threads = append(img.threads, t)
		img.byLWP[n.LWP] = t
	}
	slices.SortFunc(img.threads, func(a, b *thread) int { return a.note.LWP - b.note.LWP })
}

// findHandles asks the thread library.
func (img *image) findHandles() error {
	lib, err := libthr.FromCore(img.mem, img.core, img.mods, img.kernel)
	if errors.Is(err, libthr.ErrUnsupported) {
		img.warn("handles-unsupported", "%v: threads have no OS thread handles here", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding thread handles: %w", err)
	}
	img.lib = lib
	img.warnings = append(img.warnings, lib.Warnings...)
	for _, t := range img.threads {
		t.lib, _ = lib.ByLWP(t.note.LWP)
	}
	return nil
}

func (img *image) warn(code, format string, args ...any) {
	img.warnings = append(img.warnings, target.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
}
