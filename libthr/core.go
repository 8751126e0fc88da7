package libthr

import (
	"mycore/elfcore"
	"mycore/internal/kernelview"
	"mycore/internal/modules"
	"mycore/internal/target"
)

// FromCore is Discover for a core: its threads, the symbols of its modules,
// and, where the kernel's view tells them (kv may be nil), the threads' ids in
// the target's own PID namespace. mem is the core's memory with its files
// behind it (Process.WithBacking): the C library's tables are in its file.
func FromCore(mem target.Memory, core *elfcore.Process, mods *modules.Set, kv *kernelview.Process) (*Library, error) {
	threads := core.Threads()
	infos := make([]ThreadInfo, 0, len(threads))
	for _, t := range threads {
		info := ThreadInfo{LWP: t.LWP, ThreadPointer: t.ThreadPointer, Regs: &t.Regs}
		if kv != nil {
			if k := kv.Threads[t.LWP]; k != nil && len(k.NSPid) > 1 {
				// One number alone is the observer's, of a /proc without
				// knowledge of namespaces inside.
				info.TargetTID = target.Known(k.NSPid[len(k.NSPid)-1], target.SourceProc)
			}
		}
		infos = append(infos, info)
	}
	return Discover(mem, newModuleSymbols(mods), infos, Options{Arch: core.Info().Arch, OS: core.Info().OS})
}

// moduleSymbols is the SymbolSource of a set of modules.
type moduleSymbols struct {
	paths  []string
	byPath map[string]*modules.Module
}

func newModuleSymbols(mods *modules.Set) *moduleSymbols {
	s := &moduleSymbols{byPath: map[string]*modules.Module{}}
	for _, m := range mods.All() {
		p := m.Image.Path
		if p == "" || m.Image.VDSO || s.byPath[p] != nil {
			continue
		}
		s.paths = append(s.paths, p)
		s.byPath[p] = m
	}
	return s
}

func (s *moduleSymbols) ModulePaths() []string { return s.paths }

func (s *moduleSymbols) LookupSymbol(path, symbol string) (target.Addr, bool) {
	m := s.byPath[path]
	if m == nil || !m.HasBias {
		return 0, false
	}
	sym, ok := m.Symbols().Named(symbol)
	if !ok {
		return 0, false
	}
	return m.Runtime(sym.Start), true
}
