package libthr

import (
	"encoding/binary"
	"slices"
	"testing"

	"mycore/internal/target"
)

// segment is a piece of fake memory; with err set it can't be read.
type segment struct {
	start target.Addr
	data  []byte
	err   error
}

type fakeMemory []segment

func (m fakeMemory) ReadMemory(addr target.Addr, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		at := addr + target.Addr(n)
		i := slices.IndexFunc(m, func(s segment) bool { return s.start <= at && at-s.start < target.Addr(len(s.data)) })
		if i < 0 {
			return n, &target.ReadError{Addr: at, Len: len(p) - n, Err: target.ErrNotMapped}
		}
		if m[i].err != nil {
			return n, &target.ReadError{Addr: at, Len: len(p) - n, Err: m[i].err}
		}
		data := m[i].data[at-m[i].start:]
		for _, over := range m[:i] { // earlier segments lie on top
			if over.start > at && over.start-at < target.Addr(len(data)) {
				data = data[:over.start-at]
			}
		}
		n += copy(p[n:], data)
	}
	return n, nil
}

type fakeSymbols struct {
	paths   []string
	symbols map[string]map[string]target.Addr // path -> name -> address
}

func (s *fakeSymbols) ModulePaths() []string { return s.paths }

func (s *fakeSymbols) LookupSymbol(path, name string) (target.Addr, bool) {
	a, ok := s.symbols[path][name]
	return a, ok
}

// Places of the made-up process.
const (
	libcBase   = target.Addr(0x7f0000100000)
	rtldBase   = target.Addr(0x7f0000200000)
	stacksBase = target.Addr(0x7f3000000000)
	stackStep  = target.Addr(0x10000)

	libcPath = "/usr/lib/x86_64-linux-gnu/libc.so.6"
	rtldPath = "/usr/lib64/ld-linux-x86-64.so.2"
	muslPath = "/lib/ld-musl-x86_64.so.1"
)

// process builds a target in memory.
type process struct {
	t       testing.TB
	mem     fakeMemory
	syms    *fakeSymbols
	threads []ThreadInfo
	arch    target.Arch
	cursor  target.Addr // next free byte of libc's data
}

func newProcess(t testing.TB, arch target.Arch, paths ...string) *process {
	p := &process{t: t, arch: arch, syms: &fakeSymbols{paths: paths, symbols: map[string]map[string]target.Addr{}}, cursor: libcBase}
	for _, path := range paths {
		p.syms.symbols[path] = map[string]target.Addr{}
	}
	return p
}

// object puts words into memory under a symbol of a module.
func (p *process) object(path, name string, words ...uint32) {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	p.mem = append(p.mem, segment{start: p.cursor, data: b})
	p.syms.symbols[path][name] = p.cursor
	p.cursor += target.Addr(len(b) + 16)
}

// put overwrites bytes of existing memory.
func (p *process) put(addr target.Addr, b []byte) {
	for i := range p.mem {
		s := &p.mem[i]
		if s.start <= addr && addr-s.start+target.Addr(len(b)) <= target.Addr(len(s.data)) {
			copy(s.data[addr-s.start:], b)
			return
		}
	}
	p.t.Fatalf("no memory at %v", addr)
}

func (p *process) put64(addr target.Addr, v uint64) {
	p.put(addr, binary.LittleEndian.AppendUint64(nil, v))
}

func (p *process) put32(addr target.Addr, v int) {
	p.put(addr, binary.LittleEndian.AppendUint32(nil, uint32(int32(v))))
}

// descriptors publishes glibc 2.36's offsets (x86-64), tid at tidOff.
func (p *process) descriptors(path string, tidOff, sizeof uint32) {
	p.object(path, symTID, 32, 1, tidOff)
	p.object(path, symList, 128, 1, 0x2c0)
	p.object(path, symStartRoutine, 64, 1, 0x638)
	p.object(path, symSizeof, sizeof)
}

// handleAt is the handle of the i-th made-up thread: a stack's top part.
func handleAt(i int) target.Addr { return stacksBase + target.Addr(i)*stackStep + 0xe6c0 }

const startRoutine = 0x55d000001234

// glibcThread adds a thread of x86-64 glibc; tid is what the structure says.
func (p *process) glibcThread(lwp, tid int) target.Addr {
	h := handleAt(len(p.threads))
	p.glibcStruct(h, tid)
	p.threads = append(p.threads, ThreadInfo{LWP: lwp, ThreadPointer: target.Known(h, target.SourceCoreNote)})
	return h
}

func (p *process) glibcStruct(h target.Addr, tid int) {
	p.mem = append(p.mem, segment{start: h - 0x100, data: make([]byte, 0x100+0x940)})
	p.put64(h, uint64(h))
	p.put64(h+8, uint64(h)-0x4000)
	p.put64(h+0x10, uint64(h))
	p.put64(h+0x2c0, uint64(h)+0x2c0)
	p.put64(h+0x2c8, uint64(h)+0x2c0)
	p.put32(h+0x2d0, tid)
	p.put64(h+0x2d8, uint64(h)+0x2e0) // robust_prev
	p.put64(h+0x638, startRoutine)
}

func (p *process) discover() *Library {
	p.t.Helper()
	l, err := Discover(p.mem, p.syms, p.threads, Options{Arch: p.arch})
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

// glibc makes a process of n threads, LWPs from first on, ids in the
// structures lower by offset.
func glibc(t testing.TB, n, first, offset int) *process {
	p := newProcess(t, target.AMD64, "/usr/sbin/mariadbd", libcPath, rtldPath, "[vdso]")
	p.descriptors(libcPath, 0x2d0, 2368)
	for i := range n {
		p.glibcThread(first+i*7, first+i*7-offset)
	}
	p.put64(handleAt(0)+0x638, 0) // the main thread has no start routine
	return p
}

// list links the given structures under a head.
func (p *process) list(head target.Addr, handles ...target.Addr) {
	prev := head
	for _, h := range handles {
		node := h + 0x2c0
		p.put64(prev, uint64(node))
		p.put64(node+8, uint64(prev))
		prev = node
	}
	p.put64(prev, uint64(head))
	p.put64(head+8, uint64(prev))
}

// lists publishes the lists of stacks; used, user and cached go on them.
func (p *process) lists(used, user, cached []target.Addr) {
	p.mem = append(p.mem, segment{start: rtldBase, data: make([]byte, 0x2000)})
	p.syms.symbols[rtldPath][symRtldGlobal] = rtldBase
	p.object(libcPath, symStackUsed, 128, 1, 0x1000)
	p.object(libcPath, symStackUser, 128, 1, 0x1010)
	p.list(rtldBase+0x1000, used...)
	p.list(rtldBase+0x1010, user...)
	p.list(rtldBase+0x1020, cached...)
}

// cut makes memory from addr on unreadable for the reason err.
func (p *process) cut(addr target.Addr, size int, err error) {
	p.mem = slices.Insert(p.mem, 0, segment{start: addr, data: make([]byte, size), err: err})
}
