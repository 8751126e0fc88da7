package elfimage

import (
	"bytes"
	"unicode/utf8"
)

// magics are first bytes of formats that people hand to a core reader, each
// from the format's own specification.
var magics = []struct {
	magic, what string
}{
	{"\x1f\x8b", "gzip data"},
	{"\x28\xb5\x2f\xfd", "zstd data"},
	{"\xfd7zXZ\x00", "xz data"},
	{"\x04\x22\x4d\x18", "lz4 data"},
	{"BZh", "bzip2 data"},
	{"PK\x03\x04", "zip archive"},
	{"7z\xbc\xaf\x27\x1c", "7-Zip archive"},
	{"MDMP", "Windows minidump"},
	{"MZ", "Windows executable"},
	{"\xcf\xfa\xed\xfe", "Mach-O file"},
	{"\xca\xfe\xba\xbe", "Mach-O file"},
	{"!<arch>\n", "ar archive or Debian package"},
	{"\xed\xab\xee\xdb", "RPM package"},
	{"KDUMP   ", "kdump kernel core"},
	{"#!", "script"},
}

// sniff says in a few words what a file that isn't ELF is.
func (f *File) sniff() string {
	if f.size == 0 {
		return "empty file"
	}
	var b [512]byte
	n, _ := f.cache.readAt(b[:], 0)
	head := b[:n]
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.what
		}
	}
	if n >= 262 && string(head[257:262]) == "ustar" {
		return "tar archive"
	}
	if len(bytes.Trim(head, "\x00")) == 0 {
		return "starts with zeros"
	}
	if isText(head) {
		return "text"
	}
	return "unknown format"
}

func isText(b []byte) bool {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 && len(b)-i >= utf8.UTFMax {
			return false
		}
		if r < ' ' && r != '\n' && r != '\r' && r != '\t' && r != '\f' && r != '\x1b' {
			return false
		}
		i += n
	}
	return true
}
