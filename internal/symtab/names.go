package symtab

import (
	"strings"

	"github.com/ianlancetaylor/demangle"
)

const (
	// maxMangled bounds the names given to the demangler; longer ones are
	// shown as they are, cut. The longest of the servers have about 2,000.
	maxMangled = 4096
	// maxNamePower bounds a demangled name to 2^10 characters: more fits no
	// line of any report.
	maxNamePower = 10
)

// Demangle turns a C++ name into the source form, with parameters, for
// showing. A name that isn't mangled, or can't be demangled, stays as it is;
// names are cut at 1,024 characters.
func Demangle(name string) string {
	if out, ok := demangled(name, demangle.NoRust, demangle.MaxLength(maxNamePower)); ok {
		return out
	}
	return cut(name)
}

// Normalise turns a name into the form that rules and stack groups compare:
// demangled, without parameters, template arguments, ABI tags, symbol version
// and the suffixes of compiler clones.
//
//	_ZN11MDL_context12acquire_lockEP11MDL_requestd  MDL_context::acquire_lock
//	mysql_load.isra.0                               mysql_load
//	open64@@GLIBC_2.2.5                             open64
func Normalise(name string) string {
	name = withoutClones(Unversioned(name))
	out, ok := demangled(name, demangle.NoRust, demangle.NoParams, demangle.NoTemplateParams, demangle.NoEnclosingParams,
		demangle.NoClones, demangle.NoABITags, demangle.MaxLength(maxNamePower))
	if ok {
		return out
	}
	return cut(name)
}

// demangled calls the demangler behind a guard: names come from the image.
func demangled(name string, options ...demangle.Option) (out string, ok bool) {
	if !strings.HasPrefix(name, "_Z") || len(name) > maxMangled {
		return "", false
	}
	defer func() {
		if recover() != nil {
			out, ok = "", false
		}
	}()
	out, err := demangle.ToString(name, options...)
	return out, err == nil && out != ""
}

func cut(name string) string {
	if len(name) > 1<<maxNamePower {
		return name[:1<<maxNamePower]
	}
	return name
}

// cloneSuffixes are what GCC and Clang append to the name of a function that
// they split, specialise or rename (gcc/cgraphclones.c, gcc/lto; LLVM's
// ThinLTO promotion and HotColdSplitting).
var cloneSuffixes = map[string]bool{
	"isra": true, "part": true, "cold": true, "constprop": true, "lto_priv": true,
	"localalias": true, "clone": true, "llvm": true, "__uniq": true, "simdclone": true,
}

// withoutClones takes clone suffixes with their numbers off the end of a name,
// and numbers alone, which tell apart static functions of one name.
func withoutClones(name string) string {
	for {
		dot := strings.LastIndexByte(name, '.')
		if dot <= 0 {
			return name
		}
		if last := name[dot+1:]; !isNumber(last) && !cloneSuffixes[last] {
			return name
		}
		name = name[:dot]
	}
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
