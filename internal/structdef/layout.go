// Package structdef says where the fields of the server's structures lie: the
// format of a layout with the provenance of each field, layouts as files,
// and their extraction from the DWARF of a binary. It knows structures as
// data; what a field means, and how lists are walked, others know.
package structdef

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"mycore/internal/target"
)

// Errors that callers branch on.
var (
	// ErrNoDWARF: the binary and its debug files hold no debugging information.
	ErrNoDWARF = errors.New("no DWARF")
	// ErrFormat: a layout file that contradicts itself.
	ErrFormat = errors.New("malformed layout")
	// ErrDiffers: two layouts of one binary state different places.
	ErrDiffers = errors.New("layouts differ")
	// ErrUnknownProduct: the binary is no server that structures are known for.
	ErrUnknownProduct = errors.New("no server that mycore knows")
)

// Kind is what a field holds, as far as reading it needs to know.
type Kind string

// The kinds of fields. The texts are part of the file format.
const (
	KindPointer   Kind = "pointer"
	KindInt       Kind = "int"  // signed
	KindUint      Kind = "uint" // unsigned
	KindBool      Kind = "bool"
	KindFloat     Kind = "float"
	KindEnum      Kind = "enum"
	KindCharArray Kind = "char-array"
	KindLexString Kind = "lex-string" // a pointer to characters, then their count
	KindArray     Kind = "array"
	KindStruct    Kind = "struct" // class, too
	KindUnion     Kind = "union"
)

var kinds = []Kind{KindPointer, KindInt, KindUint, KindBool, KindFloat, KindEnum,
	KindCharArray, KindLexString, KindArray, KindStruct, KindUnion}

// Limits of a layout; each bounds what a file can make the reader do.
const (
	// MaxStructSize bounds a structure in bytes: THD has 13 to 30 KiB,
	// buf_pool_t of debug builds below 1 MiB.
	MaxStructSize = 1 << 26
	// maxStructs and maxFields are far beyond the wanted list's few hundred.
	maxStructs = 1 << 10
	maxFields  = 1 << 12
	// maxName bounds a field's path; C++ template names reach 10^3.
	maxName = 1 << 12
)

// Layout is where the fields of some structures of one build lie.
// It is immutable after loading and safe for concurrent use.
type Layout struct {
	Binary  Binary   `json:"binary"`
	Structs []Struct `json:"structs"`
}

// Binary identifies the build a layout belongs to. Without a build ID (MySQL's
// own packages before 8.0 have none) Hash does.
type Binary struct {
	Product string `json:"product"` // "mysql", "percona", "mariadb"
	Version string `json:"version,omitempty"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	BuildID string `json:"build_id,omitempty"` // hex
	Hash    *Hash  `json:"hash,omitempty"`
}

// Hash identifies a file by its size and the SHA-256 of Length bytes from
// file offset Offset on.
type Hash struct {
	FileSize int64  `json:"file_size"`
	Offset   uint64 `json:"offset"`
	Length   uint64 `json:"length"`
	SHA256   string `json:"sha256"`
}

// Struct is one structure or class.
type Struct struct {
	// Name is mycore's name of it; Type the name in the binary where that is
	// another one (MySQL 5.6: ib_lock_t for lock_t).
	Name string `json:"name"`
	Type string `json:"type,omitempty"`
	// Size in bytes, 0 when the source doesn't tell.
	Size   uint64  `json:"size,omitempty"`
	Fields []Field `json:"fields"`
}

// Field is one field, at a fixed distance from the start of its structure.
//
// Example: THD's "net.vio" of MySQL 5.6.24 on x86-64 has offset 536 (0x218),
// size 8, kind pointer: net is embedded in THD, vio is net's first member.
type Field struct {
	// Name is mycore's name, a path through embedded structures. Path is the
	// path in the binary where that is another one: MySQL's m_thread_id is
	// thread_id here.
	Name   string `json:"name"`
	Path   string `json:"path,omitempty"`
	Offset uint64 `json:"offset"` // bytes from the start of the structure
	Size   uint64 `json:"size"`   // bytes; of a bit field, those that hold its bits
	// BitOffset and BitSize are set for bit fields: bits from the lowest bit
	// of the byte at Offset, on a little-endian machine.
	BitOffset uint8 `json:"bit_offset,omitempty"`
	BitSize   uint8 `json:"bit_size,omitempty"`
	Kind      Kind  `json:"kind"`
	// Type is the field's type as the binary spells it, for reading only.
	Type string `json:"type,omitempty"`
	// Count is the number of elements of an array.
	Count uint64 `json:"count,omitempty"`
	// Union names the union that the field lies in: fields of one union overlap.
	Union  string        `json:"union,omitempty"`
	Source target.Source `json:"source"`
}

// Struct gives the structure of that name.
func (l *Layout) Struct(name string) (*Struct, bool) {
	for i := range l.Structs {
		if l.Structs[i].Name == name {
			return &l.Structs[i], true
		}
	}
	return nil, false
}

// Field gives a field by its structure's name and its own.
func (l *Layout) Field(structName, field string) (Field, bool) {
	s, ok := l.Struct(structName)
	if !ok {
		return Field{}, false
	}
	return s.Field(field)
}

// Field gives the field of that name.
func (s *Struct) Field(name string) (Field, bool) {
	for _, f := range s.Fields {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// sortFields puts fields into the order of files and listings: by place, the
// embedding field before the embedded.
func (s *Struct) sortFields() {
	slices.SortFunc(s.Fields, func(a, b Field) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.BitOffset, b.BitOffset),
			cmp.Compare(b.Size, a.Size), cmp.Compare(a.Name, b.Name))
	})
}

// Validate checks a layout against itself: names, kinds, sizes, and that no
// field leaves its structure or covers another one that it doesn't embed.
// Errors wrap ErrFormat and name the field.
func (l *Layout) Validate() error {
	if err := l.Binary.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if len(l.Structs) > maxStructs {
		return fmt.Errorf("%w: %d structures", ErrFormat, len(l.Structs))
	}
	seen := map[string]bool{}
	for i := range l.Structs {
		s := &l.Structs[i]
		if seen[s.Name] {
			return fmt.Errorf("%w: structure %q twice", ErrFormat, s.Name)
		}
		seen[s.Name] = true
		if err := s.validate(); err != nil {
			return fmt.Errorf("%w: structure %q: %w", ErrFormat, s.Name, err)
		}
	}
	return nil
}

func (b *Binary) validate() error {
	switch {
	case b.Product == "":
		return errors.New("binary without product")
	case b.OS == "" || b.Arch == "":
		return errors.New("binary without os or arch")
	case (b.BuildID == "") == (b.Hash == nil):
		return errors.New("binary needs a build_id or a hash, not both")
	case b.BuildID != "" && !lowerHex(b.BuildID):
		return fmt.Errorf("build_id %q isn't lower-case hex", b.BuildID)
	case b.Hash != nil && (!lowerHex(b.Hash.SHA256) || len(b.Hash.SHA256) != 64):
		return fmt.Errorf("sha256 %q isn't 64 lower-case hex digits", b.Hash.SHA256)
	case b.Hash != nil && (b.Hash.FileSize <= 0 || b.Hash.Length == 0 ||
		b.Hash.Offset > uint64(b.Hash.FileSize) || b.Hash.Length > uint64(b.Hash.FileSize)-b.Hash.Offset):
		return errors.New("hashed bytes leave the file")
	}
	return nil
}

func lowerHex(s string) bool {
	return s != "" && len(s)%2 == 0 && strings.Trim(s, "0123456789abcdef") == ""
}

func (s *Struct) validate() error {
	if s.Name == "" || len(s.Name) > maxName || len(s.Fields) > maxFields {
		return errors.New("no name, or too long a name or list of fields")
	}
	if s.Size > MaxStructSize {
		return fmt.Errorf("size %d", s.Size)
	}
	seen := map[string]bool{}
	for _, f := range s.Fields {
		if seen[f.Name] {
			return fmt.Errorf("field %q twice", f.Name)
		}
		seen[f.Name] = true
		if err := f.validate(s.Size); err != nil {
			return fmt.Errorf("field %q: %w", f.Name, err)
		}
	}
	return s.overlaps()
}

func (f *Field) validate(structSize uint64) error {
	limit := structSize
	if limit == 0 {
		limit = MaxStructSize
	}
	switch {
	case f.Name == "" || len(f.Name) > maxName || len(f.Path) > maxName:
		return errors.New("no name or too long a name")
	case !slices.Contains(kinds, f.Kind):
		return fmt.Errorf("unknown kind %q", f.Kind)
	case f.Source == "" || f.Source.Kind() == string(f.Source):
		return fmt.Errorf("unknown source %q", f.Source)
	case f.Size == 0:
		return errors.New("size 0")
	case f.Offset > limit || f.Size > limit-f.Offset:
		return fmt.Errorf("bytes %#x to %#x leave the structure of %#x bytes", f.Offset, f.Offset+f.Size, structSize)
	case f.BitSize == 0 && f.BitOffset != 0:
		return errors.New("bit offset without bit size")
	case f.BitSize != 0 && (f.BitOffset > 7 || uint64(f.BitOffset)+uint64(f.BitSize) > f.Size*8):
		return errors.New("bits leave the field")
	}
	return nil
}

// overlaps refuses two fields on the same bytes, unless one embeds the other
// or a union holds both. It is a sweep over the fields in order of their
// place: only fields that reach into the next one are kept.
func (s *Struct) overlaps() error {
	sorted := Struct{Fields: slices.Clone(s.Fields)}
	sorted.sortFields()
	var open []Field
	for _, f := range sorted.Fields {
		start := f.Offset*8 + uint64(f.BitOffset)
		open = slices.DeleteFunc(open, func(o Field) bool { return o.endBit() <= start })
		for _, o := range open {
			if !mayOverlap(o, f) {
				return fmt.Errorf("fields %q and %q overlap at %#x", o.Name, f.Name, f.Offset)
			}
		}
		open = append(open, f)
	}
	return nil
}

func (f *Field) endBit() uint64 {
	if f.BitSize != 0 {
		return f.Offset*8 + uint64(f.BitOffset) + uint64(f.BitSize)
	}
	return (f.Offset + f.Size) * 8
}

// cType is the structure's name in the binary.
func (s *Struct) cType() string {
	if s.Type != "" {
		return s.Type
	}
	return s.Name
}

// cPath is the path in the binary.
func (f *Field) cPath() string {
	if f.Path != "" {
		return f.Path
	}
	return f.Name
}

// mayOverlap: outer starts no later than inner.
func mayOverlap(outer, inner Field) bool {
	if outer.Union != "" && (outer.Union == inner.Union || strings.HasPrefix(inner.Union, outer.Union+".")) ||
		inner.Union != "" && strings.HasPrefix(outer.Union, inner.Union+".") {
		return true
	}
	within := inner.endBit() <= outer.endBit()
	return within && (embeds(outer.cPath(), inner.cPath()) || embeds(outer.Name, inner.Name))
}

// embeds says that inner is a member of outer by its path: "net" embeds
// "net.vio".
func embeds(outer, inner string) bool { return strings.HasPrefix(inner, outer+".") }
