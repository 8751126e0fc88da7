package analyze

import (
	"errors"

	"mycore/elfcore"
	"mycore/internal/modules"
	"mycore/internal/target"
)

// memory is the core with its files spliced in, and behind it the images
// found for a core that doesn't say which file is mapped where.
type memory struct {
	core *elfcore.Process
	mods *modules.Set
}

// ReadMemory implements target.Memory.
func (m *memory) ReadMemory(addr target.Addr, p []byte) (int, error) {
	n, err := m.core.ReadMemory(addr, p)
	if err == nil || errors.Is(err, target.ErrTruncated) {
		return n, err
	}
	k, ierr := m.mods.ReadImage(addr+target.Addr(n), p[n:])
	if n+k == len(p) && ierr == nil {
		return len(p), nil
	}
	if k > 0 && ierr != nil {
		return n + k, ierr
	}
	return n, err
}

// lostStacks hides the zeros that a core has in place of its stacks: an
// argument read from there would look like an empty string.
type lostStacks struct {
	target.Memory
	lost []*elfcore.Mapping
}

// withoutLostStacks is mem itself for a core with good stacks.
func withoutLostStacks(mem target.Memory, core *elfcore.Process) target.Memory {
	if !core.ZeroStacks().Lost {
		return mem
	}
	l := &lostStacks{Memory: mem}
	seen := map[*elfcore.Mapping]bool{}
	for _, t := range core.Threads() {
		sp, ok := t.Regs.SP()
		if !ok || !core.StackLost(t) {
			continue
		}
		if m := core.Mapping(sp); m != nil && !seen[m] {
			seen[m] = true
			l.lost = append(l.lost, m)
		}
	}
	return l
}

// ReadMemory implements target.Memory: zeros of a lost stack weren't dumped.
func (l *lostStacks) ReadMemory(addr target.Addr, p []byte) (int, error) {
	n, err := l.Memory.ReadMemory(addr, p)
	for _, b := range p[:n] {
		if b != 0 {
			return n, err
		}
	}
	for _, m := range l.lost {
		if m.Contains(addr) {
			return 0, &target.ReadError{Addr: addr, Len: len(p), File: m.Path, Err: target.ErrNotDumped}
		}
	}
	return n, err
}
