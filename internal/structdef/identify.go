package structdef

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"

	"mycore/internal/elfimage"
)

const (
	// maxRodata bounds the constants that are searched for the version; MySQL
	// 9.7 has 20 MiB of them.
	maxRodata = 256 << 20
	// maxHashed bounds the bytes that identify a file without build ID;
	// servers have 10 to 60 MiB of code.
	maxHashed = 512 << 20
)

// Identify says which build of which server a binary is. Product and version
// are read from its constants; a binary that is no server has neither, which
// is ErrUnknownProduct beside a Binary whose other members are right.
func Identify(f *elfimage.File) (Binary, error) {
	b := Binary{OS: "linux", Arch: f.Arch().String()}
	if f.OSABI() == elfimage.OSABIFreeBSD {
		b.OS = "freebsd"
	}
	if id, ok := f.BuildID(); ok && len(id) > 0 {
		b.BuildID = hex.EncodeToString(id)
	} else {
		h, err := hashCode(f)
		if err != nil {
			return b, err
		}
		b.Hash = h
	}
	// A function of the plugin interface that MySQL 5.1 to 9 and MariaDB export.
	if _, ok := f.LookupDynSym("thd_killed"); !ok {
		return b, fmt.Errorf("%s: %w", f.Name(), ErrUnknownProduct)
	}
	var err error
	b.Product, b.Version, err = productOf(f)
	return b, err
}

// hashCode hashes the file from its start to the end of its code: headers,
// dynamic symbols, instructions. Stripping doesn't change them but in the
// place of the section table, so they are those of this very file.
func hashCode(f *elfimage.File) (*Hash, error) {
	h := &Hash{FileSize: f.Size()}
	for _, p := range f.Progs() {
		if end := p.Off + p.Filesz; p.Type == elfimage.PTLoad && p.Flags&elfimage.PFX != 0 && end > h.Length && end >= p.Off {
			h.Length = end
		}
	}
	if h.Length == 0 || h.Length > uint64(f.Size()) || h.Length > maxHashed {
		return nil, fmt.Errorf("%s: no build ID, and no code that could identify it", f.Name())
	}
	sum := sha256.New()
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(f, 0, int64(h.Length)), make([]byte, 256<<10)); err != nil {
		return nil, fmt.Errorf("hashing the code: %w", err)
	}
	h.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return h, nil
}

// MYSQL_SERVER_VERSION as a constant of its own ("5.6.24",
// "10.11.19-MariaDB"), or in MySQL 9.7 behind the name ("MySQL 9.7.4").
var (
	mariadbVersion = regexp.MustCompile(`\x00(\d{1,2}\.\d{1,2}\.\d{1,3}-MariaDB[-+.~\w]{0,60})\x00`)
	mysqlVersion   = regexp.MustCompile(`\x00(?:MySQL )?((?:5\.[0-7]|[89]\.\d)\.\d{1,3}(?:-[-+.~\w]{1,40})?)\x00`)
	perconaText    = regexp.MustCompile(`Percona Server \(`)
)

// productOf reads product and version from .rodata. Several different
// versions among the constants leave the version unknown.
func productOf(f *elfimage.File) (product, version string, err error) {
	s, ok := f.Section(".rodata")
	if !ok || s.Type == elfimage.SHTNobits || s.Size > maxRodata {
		return "", "", fmt.Errorf("%s: no constants to read the version from: %w", f.Name(), ErrUnknownProduct)
	}
	product = ProductMySQL
	found := map[string]bool{}
	const piece, overlap = 1 << 20, 256
	buf := make([]byte, piece)
	for at := uint64(0); at < s.Size; at += piece - overlap {
		n := min(piece, s.Size-at)
		if _, err := f.ReadAt(buf[:n], int64(s.Off+at)); err != nil {
			return "", "", fmt.Errorf("reading .rodata: %w", err)
		}
		b := buf[:n]
		if bytes.Contains(b, []byte("-MariaDB")) {
			if m := mariadbVersion.FindSubmatch(b); m != nil {
				return ProductMariaDB, string(m[1]), nil
			}
		}
		if perconaText.Match(b) {
			product = ProductPercona
		}
		for _, m := range mysqlVersion.FindAllSubmatch(b, 16) {
			found[string(m[1])] = true
		}
	}
	if len(found) == 1 {
		for v := range found {
			version = strings.TrimSuffix(v, "-log")
		}
	}
	return product, version, nil
}
