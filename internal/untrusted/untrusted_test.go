package untrusted

import (
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ name, in, text, line string }{
		{"plain", "SELECT 1", "SELECT 1", "SELECT 1"},
		{"empty", "", "", ""},
		{"backslash stays", `C:\x1b`, `C:\x1b`, `C:\x1b`},
		{"newline", "a\nb", "a\nb", `a\nb`},
		{"carriage return hides a line", "evil\rgood", `evil\rgood`, `evil\rgood`},
		{"tab", "a\tb", `a\tb`, `a\tb`},
		{"nul", "a\x00b", `a\x00b`, `a\x00b`},
		{"esc sequence", "\x1b[2Jx", `\x1b[2Jx`, `\x1b[2Jx`},
		{"osc with bel", "\x1b]0;t\x07", `\x1b]0;t\x07`, `\x1b]0;t\x07`},
		{"del", "a\x7f", `a\x7f`, `a\x7f`},
		{"c1 csi as utf-8", "a\u009b2J", `a\u009b2J`, `a\u009b2J`},
		{"c1 csi as a raw byte", "a\x9b2J", `a\x9b2J`, `a\x9b2J`},
		{"nel", "a\u0085b", `a\u0085b`, `a\u0085b`},
		{"bidi override", "a\u202egnp.exe", `a\u202egnp.exe`, `a\u202egnp.exe`},
		{"bidi isolate", "\u2066a\u2069", `\u2066a\u2069`, `\u2066a\u2069`},
		{"arabic letter mark", "\u061c", `\u061c`, `\u061c`},
		{"zero width", "a\u200bb\u200d\ufeff", `a\u200bb\u200d\ufeff`, `a\u200bb\u200d\ufeff`},
		{"separators", "a\u2028b\u2029", `a\u2028b\u2029`, `a\u2028b\u2029`},
		{"tag characters", "a\U000e0041", `a\U000e0041`, `a\U000e0041`},
		{"hangul filler", "a\u3164", `a\u3164`, `a\u3164`},
		{"braille blank", "a\u2800", `a\u2800`, `a\u2800`},
		{"no-break space", "a\u00a0b", `a\u00a0b`, `a\u00a0b`},
		{"invalid utf-8", "a\xff\xc3", `a\xff\xc3`, `a\xff\xc3`},
		{"overlong slash", "\xc0\xaf", `\xc0\xaf`, `\xc0\xaf`},
		{"surrogate", "\xed\xa0\x80", `\xed\xa0\x80`, `\xed\xa0\x80`},
		{"real replacement character", "\ufffd", "\ufffd", "\ufffd"},
		{"languages", "grüße 测试 данные", "grüße 测试 данные", "grüße 测试 данные"},
		{"a few marks", "e\u0301\u0302", "e\u0301\u0302", "e\u0301\u0302"},
		{"a stack of marks", "e\u0301\u0301\u0301\u0301\u0301\u0301x", "e\u0301\u0301\u0301\u0301\\u0301\\u0301x", "e\u0301\u0301\u0301\u0301\\u0301\\u0301x"},
	} {
		if got := Text(c.in); got != c.text {
			t.Errorf("%s: Text %q, want %q", c.name, got, c.text)
		}
		if got := Line(c.in); got != c.line {
			t.Errorf("%s: Line %q, want %q", c.name, got, c.line)
		}
		if got := Safe(c.in); got != (c.in == c.text) {
			t.Errorf("%s: Safe %v", c.name, got)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in    string
		cells int
		want  string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"abcd", 1, "…"}, {"abcd", 0, ""}, {"a", 1, "a"}, {"", 5, ""},
		{"测试", 4, "测试"}, {"测试x", 4, "测…"}, {"测试", 3, "测…"}, {"测试", 2, "…"}, {"测", 1, "…"},
		{"e\u0301e\u0301", 2, "e\u0301e\u0301"}, {"e\u0301e\u0301e", 2, "e\u0301…"}, {"grüße", 5, "grüße"}, {"grüßen", 5, "grüß…"},
	} {
		if got := Clip(c.in, c.cells); got != c.want {
			t.Errorf("Clip(%q, %d) = %q, want %q", c.in, c.cells, got, c.want)
		}
	}
	if got := Short(strings.Repeat("a\n", 1<<20), 6); got != `a\na\…` {
		t.Errorf("Short of a huge text: %q", got)
	}
	if got := Short("ab", 6); got != "ab" {
		t.Errorf("Short of a short text: %q", got)
	}
	if n := Cells("测a"); n != 3 {
		t.Errorf("Cells = %d, want 3", n)
	}
}

func TestQuote(t *testing.T) {
	for _, c := range []struct {
		in, want string
		ok       bool
	}{
		{"/tmp/ghost.fifo", "/tmp/ghost.fifo", true},
		{"/tmp/a b", "'/tmp/a b'", true},
		{"/tmp/it's", `'/tmp/it'\''s'`, true},
		{"/tmp/$(reboot)`x`;&|", "'/tmp/$(reboot)`x`;&|'", true},
		{"~root", "'~root'", true},
		{"=ls", "'=ls'", true},
		{"-rf", "./-rf", true},
		{"-r f", "'./-r f'", true},
		{"", "''", true},
		{"/tmp/测", "'/tmp/测'", true},
		{`/tmp/a\`, `'/tmp/a\'`, true},
		{"/tmp/a\nreboot", "", false},
		{"/tmp/a\x1b[A", "", false},
		{"/tmp/\u202e", "", false},
		{"/tmp/\xff", "", false},
		{"/tmp/a\x00", "", false},
	} {
		got, ok := Quote(c.in)
		if got != c.want || ok != c.ok {
			t.Errorf("Quote(%q) = %q, %v, want %q, %v", c.in, got, ok, c.want, c.ok)
		}
	}
}

func TestQuoteInShell(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh on this machine")
	}
	for _, p := range []string{"/tmp/it's", "a b", "$HOME", "`id`", "x;y", "*", `back\slash`, `"`, "!!", "#c", "'''"} {
		word, ok := Quote(p)
		if !ok {
			t.Errorf("%q refused", p)
			continue
		}
		out, err := exec.Command(sh, "-c", "printf %s "+word).Output()
		if err != nil || string(out) != p {
			t.Errorf("the shell made %q of %s (%q): %v", out, word, p, err)
		}
	}
}

// checkSafe is the invariant of everything shown.
func checkSafe(t *testing.T, in, out string, newlines bool) {
	t.Helper()
	if !utf8.ValidString(out) {
		t.Fatalf("%q became invalid UTF-8 %q", in, out)
	}
	for _, r := range out {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) && (r != '\n' || !newlines) {
			t.Fatalf("%q keeps %U in %q", in, r, out)
		}
	}
}

func checkAll(t *testing.T, s string) {
	t.Helper()
	text, line := Text(s), Line(s)
	checkSafe(t, s, text, true)
	checkSafe(t, s, line, false)
	if Text(text) != text || Line(line) != line {
		t.Fatalf("%q: escaping twice changes the text", s)
	}
	for _, n := range []int{1, 2, 7, 80} {
		short := Short(s, n)
		checkSafe(t, s, short, false)
		if w := Cells(short); w > n {
			t.Fatalf("Short(%q, %d) has %d cells", s, n, w)
		}
		if Clip(line, n) != short {
			t.Fatalf("Short(%q, %d) = %q, but Clip gives %q", s, n, short, Clip(line, n))
		}
	}
	if word, ok := Quote(s); ok {
		checkSafe(t, s, word, false)
	}
}

func TestEveryRune(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		out := Line(string(r))
		checkSafe(t, string(r), out, false)
		if r >= ' ' && r < 0x7f && out != string(r) {
			t.Fatalf("ASCII %q was escaped", r)
		}
	}
}

func TestRandomText(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	pool := []string{"a", "\n", "\x1b", "\x9b", "\u0301", "测", "\u202e", "\xe2", "\xe2\x80", "\\", "'", "\u200d", "\U000e0041"}
	for range 3000 {
		var b strings.Builder
		for range r.IntN(200) {
			b.WriteString(pool[r.IntN(len(pool))])
		}
		checkAll(t, b.String())
	}
}

func FuzzText(f *testing.F) {
	f.Add("SELECT 1\n\x1b[2J\u202e\xff")
	f.Add(strings.Repeat("e\u0301\u0301", 40))
	f.Fuzz(checkAll)
}

func BenchmarkLinePlain(b *testing.B) {
	s := strings.Repeat("SELECT * FROM t WHERE id = 5; ", 10)
	b.ReportAllocs()
	for b.Loop() {
		Line(s)
	}
}
