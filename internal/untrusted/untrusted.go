// Package untrusted makes text that came from a target, a capture or a file
// name safe to show: on a terminal, in a line of a report, in a command that
// the user may paste into a shell.
//
// It knows nothing of where the text came from. Everything here is display:
// escapes aren't reversible, a backslash of the text stays as it is.
package untrusted

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMarks is how many combining marks may follow a character before further
// ones are escaped: living scripts need up to three, stacks of dozens paint
// over the lines above and below.
const maxMarks = 4

// Text escapes all that could steer a terminal or hide in it: C0 and C1
// control characters with ESC, DEL and tab, bidirectional controls, zero-width
// and other invisible characters, line and paragraph separators, characters
// that Unicode doesn't assign, and bytes that aren't UTF-8. Newlines stay;
// Line escapes those too.
func Text(s string) string { return escape(s, true) }

// Line is Text for a place that has one line: a newline becomes \n.
func Line(s string) string { return escape(s, false) }

// Short is Line cut to at most cells terminal cells, an ellipsis included. It
// looks at the beginning of s only, so s may be huge.
func Short(s string, cells int) string {
	if cells <= 0 {
		return ""
	}
	// Each cell takes at most one character with its marks. What is cut here
	// in the middle of a character lies beyond the last cell.
	if most := (cells + 1) * utf8.UTFMax * (1 + maxMarks); len(s) > most {
		s = s[:most]
	}
	return Clip(Line(s), cells)
}

// Safe says that Text would return s unchanged.
func Safe(s string) bool { return Text(s) == s }

// Hex prints an address, mask or handle the way the field writes it.
func Hex(v uint64) string { return "0x" + strconv.FormatUint(v, 16) }

// escape copies s with unsafe characters replaced; safe text isn't copied.
func escape(s string, newlines bool) string {
	var b strings.Builder
	last, marks := 0, 0
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		marks = countMarks(marks, r)
		if marks <= maxMarks && showable(r, size, newlines) {
			i += size
			continue
		}
		if b.Len() == 0 {
			b.Grow(len(s) + 16)
		}
		b.WriteString(s[last:i])
		writeEscape(&b, r, size, s[i])
		i += size
		last = i
	}
	if last == 0 {
		return s
	}
	b.WriteString(s[last:])
	return b.String()
}

func countMarks(marks int, r rune) int {
	if r >= 0x300 && unicode.Is(unicode.M, r) {
		return marks + 1
	}
	return 0
}

// showable says that a decoded character may be shown as it is.
func showable(r rune, size int, newlines bool) bool {
	switch {
	case r == '\n':
		return newlines
	case r < utf8.RuneSelf:
		return r >= ' ' && r != 0x7f
	case r == utf8.RuneError && size == 1:
		return false
	}
	// IsPrint leaves out all of Unicode's control, format, private and
	// unassigned characters and all spaces but the ASCII one. The two
	// properties add what counts as a letter or mark and still shows nothing.
	return unicode.IsPrint(r) && r != brailleBlank &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

const brailleBlank = '\u2800' // a symbol by category, a space by looks

// writeEscape writes one unsafe character in Go's notation.
func writeEscape(b *strings.Builder, r rune, size int, first byte) {
	const hex = "0123456789abcdef"
	switch {
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\t':
		b.WriteString(`\t`)
	case r == '\r':
		b.WriteString(`\r`)
	case r < utf8.RuneSelf, r == utf8.RuneError && size == 1:
		b.WriteString(`\x`)
		b.WriteByte(hex[first>>4])
		b.WriteByte(hex[first&15])
	default:
		q := strconv.QuoteRuneToASCII(r) // 'x' with the escape inside quotes
		b.WriteString(q[1 : len(q)-1])
	}
}

// ellipsis marks text that was cut; it is one cell wide.
const ellipsis = "…"

// Clip cuts s, which Line made safe, to at most cells terminal cells. Cut
// text ends with an ellipsis.
func Clip(s string, cells int) string {
	if cells <= 0 {
		return ""
	}
	if len(s) <= cells { // no character has more cells than bytes
		return s
	}
	width, cut := 0, 0 // cut: the longest prefix that leaves room for the ellipsis
	for i, r := range s {
		w := runeCells(r)
		if width+w > cells {
			return s[:cut] + ellipsis
		}
		width += w
		if width <= cells-1 {
			cut = i + utf8.RuneLen(r)
		}
	}
	return s
}

// Cells is the width of safe text in terminal cells.
func Cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

// wide lists the characters that take two cells: Unicode Standard Annex 11,
// EastAsianWidth.txt, values W and F, joined over unassigned gaps. Too wide
// an answer costs a column, too narrow a one breaks a table.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1}, {0x231a, 0x231b, 1}, {0x2329, 0x232a, 1}, {0x23e9, 0x23ec, 1},
		{0x23f0, 0x23f3, 1}, {0x25fd, 0x25fe, 1}, {0x2614, 0x2615, 1}, {0x2630, 0x2637, 1},
		{0x2648, 0x2653, 1}, {0x267f, 0x2693, 0x14}, {0x26a1, 0x26aa, 9}, {0x26ab, 0x26bd, 0x12},
		{0x26be, 0x26c4, 6}, {0x26c5, 0x26ce, 9}, {0x26d4, 0x26ea, 0x16}, {0x26f2, 0x26f3, 1},
		{0x26f5, 0x26fa, 5}, {0x26fd, 0x2705, 8}, {0x270a, 0x270b, 1}, {0x2728, 0x274c, 0x24},
		{0x274e, 0x2753, 5}, {0x2754, 0x2755, 1}, {0x2757, 0x2795, 0x3e}, {0x2796, 0x2797, 1},
		{0x27b0, 0x27bf, 0xf}, {0x2b1b, 0x2b1c, 1}, {0x2b50, 0x2b55, 5}, {0x2e80, 0x303e, 1},
		{0x3041, 0xa4cf, 1}, {0xa960, 0xa97f, 1}, {0xac00, 0xd7a3, 1}, {0xf900, 0xfaff, 1},
		{0xfe10, 0xfe19, 1}, {0xfe30, 0xfe6f, 1}, {0xff01, 0xff60, 1}, {0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{
		{0x16fe0, 0x1b2ff, 1}, {0x1d300, 0x1d376, 1}, {0x1f004, 0x1f0cf, 0xcb}, {0x1f18e, 0x1f18e, 1},
		{0x1f191, 0x1f19a, 1}, {0x1f200, 0x1f320, 1}, {0x1f32d, 0x1f64f, 1}, {0x1f680, 0x1f6ff, 1},
		{0x1f7e0, 0x1f7f0, 1}, {0x1f90c, 0x1f9ff, 1}, {0x1fa70, 0x1faff, 1}, {0x20000, 0x3fffd, 1},
	},
}

// runeCells is the width of one showable character.
func runeCells(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r >= 0x1100 && unicode.Is(wide, r):
		return 2
	}
	return 1
}

// Quote makes a path one word of a POSIX shell command. A relative path that
// starts with a dash gets ./ before it, so that no command takes it for an
// option. A path with anything that Line would escape can't be shown in a
// command that does what it says: then ok is false, and the caller shows
// Line(path) in prose and no command.
func Quote(path string) (word string, ok bool) {
	if Line(path) != path {
		return "", false
	}
	if strings.HasPrefix(path, "-") {
		path = "./" + path
	}
	if path != "" && path[0] != '=' && strings.IndexFunc(path, needsQuotes) < 0 { // zsh expands =name
		return path, true
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'", true
}

// needsQuotes says that some shell could take r for more than itself.
func needsQuotes(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return !strings.ContainsRune("_@%+=:,./-", r)
}
