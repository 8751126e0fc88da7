package syscalls

import (
	"strconv"
	"strings"
)

// Quote writes s between double quotes the way strace does: the C escapes,
// octal for every other byte that isn't printable ASCII, so terminal escapes,
// controls and non-ASCII text can't do harm. more adds "..." for a cut string.
func Quote(s string, more bool) string {
	var b strings.Builder
	b.Grow(len(s) + 5)
	b.WriteByte('"')
	escape(&b, s, '"')
	b.WriteByte('"')
	if more {
		b.WriteString("...")
	}
	return b.String()
}

// plain escapes s without quotes, for the text in <> behind a descriptor.
func plain(s string, limit int) string {
	more := len(s) > limit
	if more {
		s = s[:limit]
	}
	var b strings.Builder
	escape(&b, s, '>')
	if more {
		b.WriteString("...")
	}
	return b.String()
}

func escape(b *strings.Builder, s string, quote byte) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch c {
		case '\\':
			b.WriteString(`\\`)
		case '\a':
			b.WriteString(`\7`)
		case '\t':
			b.WriteString(`\t`)
		case '\n':
			b.WriteString(`\n`)
		case '\v':
			b.WriteString(`\v`)
		case '\f':
			b.WriteString(`\f`)
		case '\r':
			b.WriteString(`\r`)
		case quote:
			if quote == '"' {
				b.WriteString(`\"`)
			} else {
				octal(b, c, false)
			}
		default:
			if c >= 0x20 && c < 0x7f {
				b.WriteByte(c)
				continue
			}
			octal(b, c, i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9')
		}
	}
}

// octal writes a byte as \ooo, in as few digits as the next character allows.
func octal(b *strings.Builder, c byte, full bool) {
	b.WriteByte('\\')
	d := strconv.FormatUint(uint64(c), 8)
	if full {
		b.WriteString("000"[len(d):])
	}
	b.WriteString(d)
}
