package story

import (
	"fmt"
	"sort"
)

// region is a piece of the process's address space with its bytes.
type region struct {
	start uint64
	data  []byte
}

// memory is the process's writable memory.
type memory struct{ regions []region }

func (m *memory) add(start uint64, size int) {
	m.regions = append(m.regions, region{start, make([]byte, size)})
	sort.Slice(m.regions, func(i, j int) bool { return m.regions[i].start < m.regions[j].start })
}

// at returns n bytes of memory for reading and writing; the builder touches
// nothing else than what it mapped, so anything else is a mistake in it.
func (m *memory) at(addr uint64, n int) []byte {
	for _, r := range m.regions {
		if addr >= r.start && addr-r.start+uint64(n) <= uint64(len(r.data)) {
			return r.data[addr-r.start:][:n]
		}
	}
	panic(fmt.Sprintf("story: nothing is mapped at %#x", addr))
}

func (m *memory) word(a uint64) uint64       { return le.Uint64(m.at(a, 8)) }
func (m *memory) putWord(a, v uint64)        { le.PutUint64(m.at(a, 8), v) }
func (m *memory) put32(a uint64, v uint32)   { le.PutUint32(m.at(a, 4), v) }
func (m *memory) putText(a uint64, s string) { copy(m.at(a, len(s)+1), s+"\x00") }

// machine runs the functions' instructions to make a stack: what it pushes and
// saves is what the code and the call frame information say.
type machine struct {
	mem    *memory
	w      *world
	r      [16]uint64
	fsbase uint64
	pc     uint64 // behind the syscall instruction, at the end
	frames []Frame
	depth  int
}

func (m *machine) push(v uint64) {
	m.r[rsp] -= 8
	m.mem.putWord(m.r[rsp], v)
}

// run enters path[0] and follows the calls to path[1] and so on; the last one
// runs until its system call.
func (m *machine) run(path []string) {
	f := m.w.find(path[0])
	for _, o := range f.ops {
		switch {
		case o.sys && len(path) == 1:
			m.pc = f.addr() + uint64(o.end)
			m.frame(f, m.pc)
			return
		case o.call != "" || o.ind:
			if len(path) == 1 || !m.leadsTo(f, o, path[1]) {
				m.clobber(f)
				continue
			}
			ret := f.addr() + uint64(o.end)
			m.frame(f, ret)
			m.push(ret)
			m.run(path[1:])
			return
		case o.do != nil:
			o.do(m)
		}
	}
	panic(fmt.Sprintf("story: %s doesn't reach %v", path[0], path[1:]))
}

// leadsTo tells whether a call ends up in the function of that key.
func (m *machine) leadsTo(f *fn, o op, key string) bool {
	if o.ind {
		return true
	}
	return m.w.find(key) == m.w.resolve(f.image, o.call)
}

func (m *machine) frame(f *fn, pc uint64) {
	m.frames = append(m.frames, Frame{PC: pc, Function: f.name, Start: f.addr(), Module: f.image.path, SP: m.r[rsp]})
}

// clobber is what a call that returned has done: the registers that belong to
// the callee hold something else.
func (m *machine) clobber(f *fn) {
	m.depth++
	for i, r := range []reg{rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11} {
		m.r[r] = 0xdead0000 + f.off<<8 + uint64(m.depth)<<4 + uint64(i)
	}
}
