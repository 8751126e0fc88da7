// Package floors states the order of mycore's packages: which floor each
// stands on. Imports run one way, downwards; the test in this package reads
// the imports of every file and fails on any other edge.
package floors

// Of maps a package's path below the module root to its floor. A package may
// import packages of lower floors only.
var Of = map[string]int{
	"internal/target":     0,
	"internal/kernelview": 0,
	"internal/untrusted":  0,
	"internal/unpack":     0,
	"internal/elfimage":   0,
	"docs":                0,

	"elfcore": 1,

	"internal/modules":  2,
	"internal/symtab":   2,
	"internal/cfi":      2,
	"internal/disasm":   2,
	"internal/syscalls": 2,

	"internal/unwind":    3,
	"internal/structdef": 3,

	"libthr":            4,
	"internal/procstat": 4,
	"internal/showtext": 4,
	"internal/logtext":  4,

	"internal/incident": 5,

	"internal/diagnose": 6,

	"internal/analyze": 7,
	"internal/report":  7,

	"internal/demo": 8,

	"cmd/mycore": 9,
}

// SameFloor lists the edges allowed between packages of one floor, with the
// reason in the comment.
var SameFloor = map[string][]string{
	// The basic types of the target stand under everything on their floor.
	"internal/kernelview": {"internal/target"},
	"internal/elfimage":   {"internal/target"},
	// A module carries its symbol table.
	"internal/modules": {"internal/symtab"},
}

// TestSupport lists packages that only tests and generators may import; they
// may import anything.
var TestSupport = []string{"internal/coretest", "internal/coretest/story", "internal/servertest"}
