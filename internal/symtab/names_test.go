package symtab

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNames(t *testing.T) {
	for _, c := range []struct{ in, shown, normal string }{
		{"_ZN11MDL_context12acquire_lockEP11MDL_requestd", "MDL_context::acquire_lock(MDL_request*, double)", "MDL_context::acquire_lock"},
		{"_Z3fooIiEvT_", "void foo<int>(int)", "foo"},
		{"_ZNK3Foo3barEv", "Foo::bar() const", "Foo::bar"},
		{"_ZN3FooC1Ev", "Foo::Foo()", "Foo::Foo"},
		{"_ZZ3foovENKUliE_clEi", "foo()::{lambda(int)#1}::operator()(int) const", "foo()::{lambda(int)#1}::operator()"},
		{"_ZN12_GLOBAL__N_13barEv.isra.0.cold", "(anonymous namespace)::bar() [clone .isra.0] [clone .cold]", "(anonymous namespace)::bar"},
		{"_ZL10do_commandP3THD.lto_priv.0", "do_command(THD*) [clone .lto_priv.0]", "do_command"},
		{"_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE4dataB5cxx11Ev",
			"std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >::data[abi:cxx11]()",
			"std::__cxx11::basic_string::data"},
		{"_ZN3FoolsERKS_", "Foo::operator<<(Foo const&)", "Foo::operator<<"},
		{"handle_one_connection", "handle_one_connection", "handle_one_connection"},
		{"mysql_load.isra.0", "mysql_load.isra.0", "mysql_load"},
		{"mysql_load.part.12.constprop.3.cold", "mysql_load.part.12.constprop.3.cold", "mysql_load"},
		{"poll.localalias", "poll.localalias", "poll"},
		{"open64@@GLIBC_2.2.5", "open64@@GLIBC_2.2.5", "open64"},
		{"open64@GLIBC_2.2.5", "open64@GLIBC_2.2.5", "open64"},
		{"_ZN3Foo3barEv@@libfoo_1", "_ZN3Foo3barEv@@libfoo_1", "Foo::bar"},
		{"static_in_two_files.1234", "static_in_two_files.1234", "static_in_two_files"},
		{"crc32_func.avx512", "crc32_func.avx512", "crc32_func.avx512"},
		{".hidden", ".hidden", ".hidden"},
		{"_Z", "_Z", "_Z"},
		{"_Zbroken", "_Zbroken", "_Zbroken"},
		{"_RNvC6_123foo3bar", "_RNvC6_123foo3bar", "_RNvC6_123foo3bar"},
		{"", "", ""},
	} {
		if got := Demangle(c.in); got != c.shown {
			t.Errorf("Demangle(%q) = %q, want %q", c.in, got, c.shown)
		}
		if got := Normalise(c.in); got != c.normal {
			t.Errorf("Normalise(%q) = %q, want %q", c.in, got, c.normal)
		}
	}
}

// doubling makes a mangled name whose type at level n mentions that of level
// n-1 twice: 2^n leaves when written out.
func doubling(levels int) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	ref := func(n int) string { // the n-th substitution
		if n == 0 {
			return "S_"
		}
		n--
		if n < 36 {
			return "S" + digits[n:n+1] + "_"
		}
		return "S" + digits[n/36:n/36+1] + digits[n%36:n%36+1] + "_"
	}
	var b strings.Builder
	b.WriteString("_Z1f1aIccE")
	for i := 1; i <= levels; i++ {
		b.WriteString("S_I" + ref(i) + ref(i) + "E")
	}
	return b.String()
}

func TestNamesThatGrowWhenWrittenOut(t *testing.T) {
	if got := Demangle(doubling(1)); got != "f(a<char, char>, a<a<char, char>, a<char, char> >)" {
		t.Fatalf("the test's own name is wrong: %q", got)
	}
	for _, n := range []int{10, 20, 40, 200} {
		name := doubling(n)
		if got := Demangle(name); len(got) > maxMangled {
			t.Errorf("%d levels: shown with %d bytes", n, len(got))
		}
		if got := Normalise(name); got != "f" && got != name {
			t.Errorf("%d levels: normalised to %q", n, got)
		}
	}
	long := strings.Repeat("x", 1<<20)
	if n := len(Demangle(long)); n != 1<<maxNamePower {
		t.Errorf("a name of a megabyte is shown with %d bytes", n)
	}
	if n := len(Normalise("_Z" + long)); n != 1<<maxNamePower {
		t.Errorf("a mangled name of a megabyte is normalised to %d bytes", n)
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"_ZN11MDL_context12acquire_lockEP11MDL_requestd", "_ZZ3foovENKUliE_clEi", "a.isra.0", "b@@V", doubling(8)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		shown, normal := Demangle(name), Normalise(name)
		if len(shown) > 1<<maxNamePower+16 || len(normal) > 1<<maxNamePower+16 {
			t.Errorf("%q: %d and %d bytes", name, len(shown), len(normal))
		}
		if name != "" && name[0] != '@' && (shown == "" || normal == "") {
			t.Errorf("%q became %q, %q", name, shown, normal)
		}
		if utf8.ValidString(name) && !strings.HasPrefix(name, "_Z") && len(name) < 100 && shown != name {
			t.Errorf("%q isn't mangled and became %q", name, shown)
		}
		if again := Normalise(normal); !strings.HasPrefix(normal, "_Z") && strings.IndexByte(normal, '.') < 0 && strings.IndexByte(normal, '@') < 0 && again != normal {
			t.Errorf("%q normalises to %q, that to %q", name, normal, again)
		}
	})
}

func BenchmarkNormalise(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Normalise("_ZN11MDL_context12acquire_lockEP11MDL_requestd")
	}
}
