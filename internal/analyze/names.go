package analyze

import (
	"sync"

	"mycore/internal/symtab"
)

// names are the two forms of a function's symbol.
type names struct {
	shown string // demangled, with parameters
	norm  string // as rules and groups compare it
}

// nameCache keeps the forms of the symbols on the stacks: some hundred on ten
// thousand frames. It is safe for concurrent use.
type nameCache struct{ m sync.Map }

func (c *nameCache) of(symbol string) names {
	if v, ok := c.m.Load(symbol); ok {
		return v.(names)
	}
	n := names{shown: symtab.Demangle(symbol), norm: symtab.Normalise(symbol)}
	c.m.Store(symbol, n)
	return n
}
