package structdef

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strings"

	"mycore/internal/elfimage"
)

// SourceOptions say where the debug files of a binary may be.
type SourceOptions struct {
	// DebugFile is the separate debug file, where the user named it.
	DebugFile string
	// DebugDirs are searched by build ID and debug link; none means
	// DefaultDebugDirs.
	DebugDirs []string
}

// DefaultDebugDirs is where Linux distributions and FreeBSD put debug files.
var DefaultDebugDirs = []string{"/usr/lib/debug", "/usr/local/lib/debug"}

// Source is a binary with the files that hold its DWARF. Close it.
type Source struct {
	Binary *elfimage.File
	Files  Files // DWARF is nil where there is none
	// Looked tells where a separate debug file was looked for.
	Looked []string
	opened []*elfimage.File
}

// OpenSource opens a binary and finds its DWARF: in itself, in the debug file
// of its build ID or .gnu_debuglink, and in their alternate file. A debug file
// is taken only if it belongs to the binary; that there is none is no error
// here.
func OpenSource(path string, opts SourceOptions) (*Source, error) {
	if len(opts.DebugDirs) == 0 {
		opts.DebugDirs = DefaultDebugDirs
	}
	f, err := elfimage.Open(path)
	if err != nil {
		return nil, err
	}
	s := &Source{Binary: f, opened: []*elfimage.File{f}}
	if err := s.findDWARF(path, opts); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes all files.
func (s *Source) Close() error {
	var errs []error
	for _, f := range s.opened {
		errs = append(errs, f.Close())
	}
	s.opened = nil
	return errors.Join(errs...)
}

func (s *Source) findDWARF(path string, opts SourceOptions) error {
	switch {
	case opts.DebugFile != "":
		f, err := s.open(opts.DebugFile)
		if err != nil {
			return err
		}
		if why, ok := s.belongs(f, 0, false); !ok {
			return fmt.Errorf("%s isn't the debug file of %s: %s", opts.DebugFile, path, why)
		}
		s.Files.DWARF, path = f, opts.DebugFile
	case hasDWARF(s.Binary):
		s.Files.DWARF = s.Binary
	default:
		path = s.search(path, opts.DebugDirs)
	}
	if s.Files.DWARF != nil {
		s.findAlt(path, opts.DebugDirs)
	}
	return nil
}

func hasDWARF(f *elfimage.File) bool {
	for _, name := range []string{".debug_info", ".zdebug_info"} {
		if sec, ok := f.Section(name); ok && sec.Type != elfimage.SHTNobits && sec.Size > 0 {
			return true
		}
	}
	return false
}

func (s *Source) open(path string) (*elfimage.File, error) {
	f, err := elfimage.Open(path)
	if err == nil {
		s.opened = append(s.opened, f)
	}
	return f, err
}

// search looks for the debug file and returns its path.
func (s *Source) search(path string, dirs []string) string {
	if id, ok := s.Binary.BuildID(); ok {
		for _, p := range buildIDPaths(id, dirs) {
			if s.take(p, 0, false) {
				return p
			}
		}
	}
	name, crc, ok := s.Binary.Debuglink()
	if !ok || name != filepath.Base(name) || strings.Trim(name, "./") == "" {
		return path
	}
	dir := filepath.Dir(path)
	places := []string{filepath.Join(dir, name), filepath.Join(dir, ".debug", name)}
	if abs, err := filepath.Abs(dir); err == nil {
		for _, d := range dirs {
			places = append(places, filepath.Join(d, abs, name))
		}
	}
	for _, p := range places {
		if s.take(p, crc, true) {
			return p
		}
	}
	return path
}

func buildIDPaths(id []byte, dirs []string) []string {
	if len(id) < 2 {
		return nil
	}
	h := hex.EncodeToString(id)
	var out []string
	for _, d := range dirs {
		out = append(out, filepath.Join(d, ".build-id", h[:2], h[2:]+".debug"))
	}
	return out
}

// take opens one candidate and keeps it if it belongs to the binary.
func (s *Source) take(path string, crc uint32, byLink bool) bool {
	f, err := elfimage.Open(path)
	if err != nil {
		s.Looked = append(s.Looked, path)
		return false
	}
	s.opened = append(s.opened, f)
	why, ok := s.belongs(f, crc, byLink)
	if ok && !hasDWARF(f) {
		why, ok = "no DWARF", false
	}
	if !ok {
		s.Looked = append(s.Looked, path+" ("+why+")")
		return false
	}
	s.Files.DWARF = f
	return true
}

// belongs compares build IDs; without them the link's checksum decides.
func (s *Source) belongs(f *elfimage.File, crc uint32, byLink bool) (why string, ok bool) {
	if f.Arch() != s.Binary.Arch() || f.Class() != s.Binary.Class() {
		return "another architecture", false
	}
	want, has := s.Binary.BuildID()
	have, hasToo := f.BuildID()
	switch {
	case has && hasToo:
		return "another build ID", bytes.Equal(want, have)
	case has != hasToo:
		return "one has a build ID, the other hasn't", false
	case byLink:
		sum := crc32.NewIEEE()
		_, err := io.CopyBuffer(sum, io.NewSectionReader(f, 0, f.Size()), make([]byte, 256<<10))
		return "another checksum", err == nil && sum.Sum32() == crc
	}
	return "", true // named by the user, nothing to compare
}

var errNoAlt = errors.New("the file of .gnu_debugaltlink was not found")

// findAlt opens the file that dwz moved common DWARF into. Only a matching
// build ID counts.
func (s *Source) findAlt(from string, dirs []string) {
	name, id, ok := s.Files.DWARF.Debugaltlink()
	if !ok {
		return
	}
	places := buildIDPaths(id, dirs)
	if name != "" && !strings.Contains(name, "\x00") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(from), name)
		}
		places = append(places, name)
	}
	for _, p := range places {
		f, err := elfimage.Open(p)
		if err != nil {
			s.Looked = append(s.Looked, p)
			continue
		}
		s.opened = append(s.opened, f)
		if have, _ := f.BuildID(); len(id) > 0 && bytes.Equal(have, id) {
			s.Files.Alt = f
			return
		}
		s.Looked = append(s.Looked, p+" (another build ID)")
	}
	s.Files.AltErr = fmt.Errorf("%w: %q, build ID %s", errNoAlt, name, hex.EncodeToString(id))
}

// Layout extracts the layout of the binary from its DWARF. Product and version
// stand in for what the binary doesn't tell; "" means to read them from it.
func (s *Source) Layout(product, version string) (*Layout, []Missing, error) {
	b, err := Identify(s.Binary)
	if product != "" {
		b.Product = product
		if errors.Is(err, ErrUnknownProduct) {
			err = nil
		}
	}
	if version != "" {
		b.Version = version
	}
	if err != nil {
		return nil, nil, err
	}
	want, err := Wanted(b.Product)
	if err != nil {
		return nil, nil, err
	}
	if s.Files.DWARF == nil {
		return nil, nil, fmt.Errorf("%s: %w%s", s.Binary.Name(), ErrNoDWARF, s.lookedText())
	}
	structs, missing, err := Extract(s.Files, want)
	if err != nil {
		return nil, nil, err
	}
	if len(structs) == 0 {
		return nil, nil, fmt.Errorf("%s: its DWARF defines none of the %d structures that are looked for", s.Files.DWARF.Name(), len(want))
	}
	l := &Layout{Binary: b, Structs: structs}
	if err := l.Validate(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.Files.DWARF.Name(), err)
	}
	return l, missing, nil
}

func (s *Source) lookedText() string {
	if len(s.Looked) == 0 {
		return ""
	}
	return " (looked for a debug file at " + strings.Join(s.Looked, ", ") + ")"
}
