package analyze

import (
	"strings"

	"mycore/internal/diagnose"
	"mycore/internal/target"
)

// maxVersion bounds the version string: the servers' buffer has 60 bytes
// (SERVER_VERSION_LENGTH, include/mysql_com.h in MySQL and MariaDB).
const maxVersion = 60

// server reads the version out of the variable server_version (sql/mysqld.cc),
// which the servers export. A program without it is none that is known here.
func (img *image) server() diagnose.Server {
	m := img.mods.Main()
	if m == nil || m.ELF() == nil || !m.HasBias {
		return diagnose.Server{}
	}
	var at target.Addr
	if sym, ok := m.ELF().LookupDynSym("server_version"); ok {
		at = m.Runtime(sym.Value)
	} else if sym, ok := m.Symbols().Named("server_version"); ok {
		at = m.Runtime(sym.Start)
	} else {
		return diagnose.Server{}
	}
	text, err := target.CString(img.mem, at, maxVersion)
	if err != nil || !plausibleVersion(text) {
		return diagnose.Server{}
	}
	family := "mysql"
	if strings.Contains(text, "MariaDB") {
		family = "mariadb"
	}
	return diagnose.Server{
		Family: target.Known(family, target.SourceMemory), Version: target.Known(text, target.SourceMemory),
	}
}

// plausibleVersion accepts printable text that begins like 5.6.24.
func plausibleVersion(s string) bool {
	major, rest, ok := strings.Cut(s, ".")
	if !ok || major == "" || len(major) > 2 || rest == "" || rest[0] < '0' || rest[0] > '9' {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return strings.Trim(major, "0123456789") == ""
}
