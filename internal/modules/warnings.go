package modules

import (
	"fmt"
	"strings"

	"mycore/internal/target"
)

// Codes of the warnings of this package; they are part of the result's
// contract.
const (
	WarnMissing       = "binary-missing"    // no file for an image
	WarnMismatch      = "binary-mismatch"   // the file at hand isn't the one that was loaded
	WarnUnverified    = "binary-unverified" // a file is used that nothing proves to be the right one
	WarnDebugMismatch = "debug-mismatch"    // a debug file of another build
	WarnSysroot       = "sysroot-unusable"  // the directory given can't be opened
)

// loss is what a module without its file costs, for the end of a warning.
const loss = "threads, handles, system calls and wait channels are still good, but its functions have no names, and stacks through it are cut short or rest on frame pointers"

// summarise turns the states of modules into warnings: one for the executable,
// one for each file that is the wrong one, and one for all libraries that
// aren't there, so that a machine without any doesn't drown the report.
func (l *loader) summarise(mods []*Module) []target.Warning {
	var out []target.Warning
	add := func(code, format string, args ...any) {
		out = append(out, target.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
	}
	var missing, unverified []string
	for _, m := range mods {
		switch {
		case m.Status == Mismatch:
			add(WarnMismatch, "%s", m.mismatchText(""))
		case m.Status == Missing && m.Image.VDSO:
			add(WarnMissing, "the vDSO isn't in the core: frames in it have no names")
		case m.Status == Missing && m.Image.Main:
			add(WarnMissing, "the executable %q (build ID %s) was not found: %s. Name it with --exe, or its tree with --sysroot", m.Name(), wantText(m), loss)
		case m.Status == Missing:
			missing = append(missing, m.Name())
		case m.Status == Found && !m.Verified && !m.likely:
			unverified = append(unverified, m.Path)
		}
	}
	if len(missing) > 0 {
		text, which := loss, "it lies"
		if len(missing) > 1 {
			text, which = strings.NewReplacer("its functions", "their functions", "through it", "through them").Replace(loss), "they lie"
		}
		add(WarnMissing, "%s not found: %s. Name the tree %s in with --sysroot", count(missing, "library", "libraries"), text, which)
	}
	if len(unverified) > 0 {
		add(WarnUnverified, "%s used without proof that it is what the process had loaded, because the core doesn't hold its build ID: names and stacks are wrong if it isn't", count(unverified, "file", "files"))
	}
	return out
}

func wantText(m *Module) string {
	if len(m.WantBuildID) == 0 {
		return "unknown"
	}
	return hexID(m.WantBuildID)
}

// mismatchText names both build IDs where there are two. For libraries it is
// short: where one is another build, the others are as well.
// instead says what is used in its place, "" for nothing.
func (m *Module) mismatchText(instead string) string {
	verb := "is not the one that the process had loaded"
	if _, deleted := recordedPath(m.Image.Path); deleted {
		verb = "was put there after the process had loaded another one"
	}
	if instead != "" {
		return fmt.Sprintf("the file %q %s: %s. It isn't used; %s", m.Path, verb, m.Reason, instead)
	}
	if m.Image.Main {
		return fmt.Sprintf("the executable %q %s: %s. It isn't used: %s. Give the right file by --exe, or its tree by --sysroot", m.Path, verb, m.Reason, loss)
	}
	return fmt.Sprintf("the library %q %s: %s. It isn't used: no names in it, and stacks through it are cut short or rest on frame pointers. Give the tree with the right one by --sysroot", m.Path, verb, m.Reason)
}

// maxNamed bounds the files that one warning names.
const maxNamed = 5

// count writes a number of things and the first few of them.
func count(names []string, one, many string) string {
	word := many
	if len(names) == 1 {
		word = one
	}
	quoted := make([]string, 0, maxNamed)
	for _, n := range names[:min(len(names), maxNamed)] {
		quoted = append(quoted, fmt.Sprintf("%q", n))
	}
	list := strings.Join(quoted, ", ")
	if more := len(names) - len(quoted); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%d %s (%s)", len(names), word, list)
}
