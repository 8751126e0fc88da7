package analyze_test

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"mycore/internal/analyze"
	"mycore/internal/coretest"
	"mycore/internal/report"
	"mycore/internal/target"
)

// The tests of cost count what the analysis reads and allocates: no clock, so
// they hold on any machine. They aren't parallel, because the counters are
// those of the whole process. make bench measures time.

// The program of crowd: worker calls itself and then wait, which is in a
// system call. It lies behind what is taken for the program's entry code.
const (
	crowdBase   = 0x555555554000
	crowdEntry  = 256 // bytes
	crowdWorker = coretest.TextOff + crowdEntry
	crowdReturn = crowdWorker + 9  // behind worker's call of itself
	crowdCaller = crowdWorker + 14 // behind its call of wait
	crowdWait   = crowdWorker + 32
	crowdPC     = crowdWorker + 34 // behind the system call

	crowdDepth  = 12      // frames of worker on each stack
	crowdStacks = 1 << 46 // stack of thread i: 64 KiB further each
	crowdStride = 64 << 10

	futexWait = 202 // x86-64
)

var crowdCode = []byte(strings.Repeat("\xcc", crowdEntry) +
	"\x55\x48\x89\xe5" + // push rbp; mov rbp, rsp
	"\xe8\xf7\xff\xff\xff" + // call worker
	"\xe8\x12\x00\x00\x00" + // call wait
	"\x5d\xc3" + strings.Repeat("\xcc", 16) + // pop rbp; ret
	"\x0f\x05\xc3") // wait: syscall; ret

// crowd writes a core of n threads with equal stacks to dir, with the file of
// its program under dir/root. hole is a mapping of that many bytes that the
// core has as a hole.
func crowd(t testing.TB, n int, hole uint64) analyze.Options {
	t.Helper()
	dir := t.TempDir()
	img := (&coretest.Image{
		Interp: "/lib64/ld-linux-x86-64.so.2", BuildID: []byte("crowdcrowdcrowdcrowd"), Text: crowdCode,
		Symbols: []coretest.Symbol{
			{Name: "worker", Value: crowdWorker, Size: 16, Info: 0x12}, {Name: "wait", Value: crowdWait, Size: 3, Info: 0x12},
		},
	}).Bytes()
	exe := filepath.Join(dir, "root", "usr", "sbin", "mysqld")
	if err := os.MkdirAll(filepath.Dir(exe), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, img, 0o755); err != nil {
		t.Fatal(err)
	}
	c := &coretest.Core{
		PID: 5000, Command: "mysqld", Signo: 6,
		Files:    []coretest.File{{Start: crowdBase, End: crowdBase + 0x3000, Path: "/usr/sbin/mysqld"}},
		Auxv:     [][2]uint64{{3, crowdBase + 64}, {4, 56}, {5, 7}, {6, 4096}, {9, crowdBase + crowdWorker}},
		Segments: []coretest.Segment{{Addr: crowdBase, Perm: "r-x", Data: img[:0x1000], Size: 0x3000}},
	}
	for i := range n {
		c.Threads = append(c.Threads, crowdThread(c, i))
	}
	if hole > 0 {
		c.Segments = append(c.Segments, coretest.Segment{Addr: 1 << 45, Perm: "rw-", Data: []byte{1}, Files: hole})
	}
	core := filepath.Join(dir, "crowd.core")
	if _, err := c.WriteFile(core); err != nil {
		t.Fatal(err)
	}
	opts := analyze.Options{Core: core, Sysroot: filepath.Join(dir, "root"), NoSystemDirs: true, Offline: true, Workers: 1}
	return opts
}

// crowdThread adds a stack to the core: frame pointers from wait's caller
// upwards, and at the top the thread's structure as glibc has it.
func crowdThread(c *coretest.Core, i int) coretest.Thread {
	const sp, tls = 0x200, 0x800
	base := uint64(crowdStacks + i*crowdStride)
	b := make([]byte, 0x1000)
	word := func(off int, v uint64) { binary.LittleEndian.PutUint64(b[off:], v) }
	word(sp, crowdBase+crowdCaller) // pushed by the call of wait
	bp := sp + 8
	first := base + uint64(bp)
	for k := range crowdDepth {
		next, ret := base+uint64(bp)+32, uint64(crowdBase+crowdReturn)
		if k == crowdDepth-1 {
			next, ret = 0, 0
		}
		word(bp, next)
		word(bp+8, ret)
		bp += 32
	}
	word(tls, base+tls)
	word(tls+0x10, base+tls)
	word(tls+0x2d0, uint64(5000+i))
	c.Segments = append(c.Segments, coretest.Segment{Addr: base, Perm: "rw-", Data: b})
	return coretest.Thread{
		LWP: 5000 + i, PC: crowdBase + crowdPC, SP: base + sp, TLS: base + tls, Syscall: futexWait, Flags: 0x246,
		Regs: map[int]uint64{target.RAX: ^uint64(511), target.RBP: first, target.RDI: base + 0x100, target.RSI: 128},
	}
}

// cost is what one analysis with its JSON took.
type cost struct {
	reads, bytes       int64 // of the target's memory
	fileReads          int64 // system calls of the process
	fileBytes          int64
	allocated, mallocs uint64
}

// measure analyses once and counts. Every thread must have come out whole.
func measure(t *testing.T, opts analyze.Options, threads int) cost {
	t.Helper()
	// One processor, so that the order of work is always the same; set by
	// hand, so that the runtime doesn't look at the limits of its cgroup.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var reads, bytes atomic.Int64
	opts.Trace = func(_ target.Addr, n int) {
		reads.Add(1)
		bytes.Add(int64(n))
	}
	// What pools kept of the run before would be counted to that one: two
	// collections empty them (sync.Pool).
	runtime.GC()
	runtime.GC()
	before := counters(t)
	res := run(t, opts)
	if err := report.JSON(io.Discard, res.Incident); err != nil {
		t.Fatal(err)
	}
	after := counters(t)
	if len(res.Incident.Threads) != threads {
		t.Fatalf("%d threads, want %d", len(res.Incident.Threads), threads)
	}
	for i := range res.Incident.Threads {
		th := &res.Incident.Threads[i]
		if len(th.Frames) != crowdDepth+1 || th.Frames[0].Function != "wait" || th.Frames[crowdDepth].Function != "worker" ||
			th.Handle == nil || th.Syscall == nil || th.Syscall.Name != "futex" {
			t.Fatalf("LWP %d: %d frames %q, handle %v, system call %+v; %q", th.LWP, len(th.Frames), functions(th), th.Handle, th.Syscall, th.StackNote)
		}
	}
	return cost{
		reads: reads.Load(), bytes: bytes.Load(),
		fileReads: after.fileReads - before.fileReads, fileBytes: after.fileBytes - before.fileBytes,
		allocated: after.allocated - before.allocated, mallocs: after.mallocs - before.mallocs,
	}
}

// counters are those of the process so far. Without /proc the reads of files
// are unknown and stay 0.
func counters(t *testing.T) cost {
	t.Helper()
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	c := cost{allocated: s[0].Value.Uint64(), mallocs: s[1].Value.Uint64()}
	text, err := os.ReadFile("/proc/self/io") // proc(5)
	if err != nil {
		return c
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			t.Fatalf("/proc/self/io: %q: %v", line, err)
		}
		switch name {
		case "rchar":
			c.fileBytes = n
		case "syscr":
			c.fileReads = n
		}
	}
	return c
}

// A core of 20 GB costs what one of 200 MB with the same threads costs.
func TestCostDoesNotGrowWithSize(t *testing.T) {
	const threads = 200
	small, large := crowd(t, threads, 200<<20), crowd(t, threads, 20<<30)
	measure(t, small, threads) // what is made once: the rules
	a, b := measure(t, small, threads), measure(t, large, threads)
	t.Logf("200 MB: %+v", a)
	t.Logf("20 GB:  %+v", b)
	if a.reads == 0 || a.bytes == 0 {
		t.Fatal("no reads were counted")
	}
	if a.reads != b.reads || a.bytes != b.bytes {
		t.Errorf("%d reads of %d bytes, %d of %d with 20 GB", a.reads, a.bytes, b.reads, b.bytes)
	}
	// The runtime reads now and then: a little is left for that.
	if b.fileReads > a.fileReads+16 || b.fileBytes > a.fileBytes+64<<10 {
		t.Errorf("%d system calls read %d bytes of files, %d and %d with 20 GB", a.fileReads, a.fileBytes, b.fileReads, b.fileBytes)
	}
	// Whatever follows the size would be a hundred times as much.
	if b.allocated > 2*a.allocated || b.mallocs > 2*a.mallocs {
		t.Errorf("%d bytes in %d allocations, %d in %d with 20 GB", a.allocated, a.mallocs, b.allocated, b.mallocs)
	}
}

// Ten times the threads cost ten times as much, not a hundred times.
func TestCostIsLinearInThreads(t *testing.T) {
	few := 1000
	if testing.Short() {
		few = 200
	}
	many := 10 * few
	one, ten := crowd(t, few, 0), crowd(t, many, 0)
	measure(t, one, few)
	a, b := measure(t, one, few), measure(t, ten, many)
	t.Logf("%d threads: %+v", few, a)
	t.Logf("%d threads: %+v", many, b)
	for _, c := range []struct {
		what     string
		one, ten float64
	}{
		{"reads of memory", float64(a.reads), float64(b.reads)},
		{"bytes of memory read", float64(a.bytes), float64(b.bytes)},
		{"bytes allocated", float64(a.allocated), float64(b.allocated)},
		{"allocations", float64(a.mallocs), float64(b.mallocs)},
	} {
		if c.ten > 1.3*10*c.one {
			t.Errorf("%s: %.0f for %d threads, %.0f for %d: %.1f times as many", c.what, c.one, few, c.ten, many, c.ten/c.one)
		}
	}
	// The page cache holds the stacks of the few and not those of the many, so
	// that here is no factor, but a bound: each stack is passed three times.
	if b.fileReads > int64(3*many) {
		t.Errorf("%d system calls read the core of %d threads", b.fileReads, many)
	}
}

// BenchmarkAnalyzeDemo is the whole analysis of the embedded incident, with
// its JSON. The core is unpacked before.
func BenchmarkAnalyzeDemo(b *testing.B) {
	core, err := demoCore()
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "ghost.core")
	if err := os.WriteFile(path, core, 0o600); err != nil {
		b.Fatal(err)
	}
	benchmark(b, analyze.Options{Core: path, Sysroot: b.TempDir(), NoSystemDirs: true, Offline: true})
}

// BenchmarkAnalyzeCrowd is the same for 530 threads, as a server with 500
// connections has.
func BenchmarkAnalyzeCrowd(b *testing.B) { benchmark(b, crowd(b, 530, 0)) }

func benchmark(b *testing.B, opts analyze.Options) {
	b.ReportAllocs()
	for b.Loop() {
		res, err := analyze.Run(b.Context(), opts)
		if err != nil {
			b.Fatal(err)
		}
		if err := report.JSON(io.Discard, res.Incident); err != nil {
			b.Fatal(err)
		}
		if err := res.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
