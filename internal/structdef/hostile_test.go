package structdef

import (
	"encoding/binary"
	"strings"
	"testing"
)

// small is DWARF of struct THD { BASE; long real_id; char name[4]; } by hand.
type small struct{ abbrev, info, types, str []byte }

// smallDWARF writes it for one version; refs are relative to the unit.
func smallDWARF(version byte) small {
	abbrev := []byte{
		1, tagCompileUnit, 1, 0, 0,
		2, tagStruct, 1, atName, formStrp, atByteSize, formData1, atSibling, formRef4, 0, 0,
		3, tagMember, 0, atName, formString, atType, formRef4, atMemberLocation, formData1, 0, 0,
		4, tagBase, 0, atName, formString, atByteSize, formData1, atEncoding, formData1, 0, 0,
		5, tagInheritance, 0, atType, formRef4, atMemberLocation, formData1, 0, 0,
		6, tagArray, 1, atType, formRef4, 0, 0,
		7, tagSubrange, 0, atUpperBound, formData1, 0, 0,
		0,
	}
	header := 11 // length 4, version 2, abbreviations 4, address size 1
	if version == 5 {
		header = 12
	}
	var b []byte
	ref := map[string]int{}
	var fix []func()
	at := func(name string) {
		pos := len(b)
		b = append(b, 0, 0, 0, 0)
		fix = append(fix, func() { binary.LittleEndian.PutUint32(b[pos:], uint32(ref[name])) })
	}
	here := func(name string) { ref[name] = header + len(b) }
	b = append(b, 1)
	here("base")
	b = append(b, 2, 4, 0, 0, 0, 8)
	at("thd")
	b = append(b, 3)
	b = append(b, "query_id\x00"...)
	at("long")
	b = append(b, 0, 0)
	here("thd")
	b = append(b, 2, 0, 0, 0, 0, 24)
	at("long")
	b = append(b, 5)
	at("base")
	b = append(b, 0, 3)
	b = append(b, "real_id\x00"...)
	at("long")
	b = append(b, 8, 3)
	b = append(b, "name\x00"...)
	at("array")
	b = append(b, 16, 0)
	here("long")
	b = append(b, 4)
	b = append(b, "long\x00"...)
	b = append(b, 8, 5)
	here("char")
	b = append(b, 4)
	b = append(b, "char\x00"...)
	b = append(b, 1, 6)
	here("array")
	b = append(b, 6)
	at("char")
	b = append(b, 7, 3, 0, 0)
	for _, f := range fix {
		f()
	}
	var h []byte
	h = binary.LittleEndian.AppendUint32(h, uint32(header-4+len(b)))
	h = append(h, version, 0)
	if version == 5 {
		h = append(h, 1, 8, 0, 0, 0, 0)
	} else {
		h = append(h, 0, 0, 0, 0, 8)
	}
	return small{abbrev: abbrev, info: append(h, b...), str: []byte("THD\x00BASE\x00")}
}

var smallWanted = []WantedStruct{
	{Name: "THD", Types: []string{"THD"}, Required: []string{"real_id"}, Fields: plainFields("real_id", "query_id", "name", "name.a")},
	{Name: "BASE", Types: []string{"BASE", "a::BASE"}, Fields: plainFields("query_id")},
}

func (s small) extract() ([]Struct, []Missing, error) {
	sections := map[string][]byte{"debug_info": s.info, "debug_abbrev": s.abbrev, "debug_str": s.str, "debug_types": s.types}
	img, err := newImage("fixture", func(name string) (section, error) {
		return section{name: name, data: sections[name], size: uint64(len(sections[name]))}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return extract(img, smallWanted)
}

func TestSmallDWARF(t *testing.T) {
	for _, version := range []byte{2, 3, 4, 5} {
		structs, missing, err := smallDWARF(version).extract()
		if err != nil || len(structs) != 2 || len(missing) != 1 {
			t.Fatalf("version %d: %v, missing %v, error %v", version, structs, missing, err)
		}
		l := Layout{Structs: structs}
		for name, want := range map[string]uint64{"query_id": 0, "real_id": 8, "name": 16} {
			if f, ok := l.Field("THD", name); !ok || f.Offset != want {
				t.Errorf("version %d: %s at %d, want %d", version, name, f.Offset, want)
			}
		}
		if f, _ := l.Field("THD", "name"); f.Kind != KindCharArray || f.Size != 4 {
			t.Errorf("version %d: name is %+v", version, f)
		}
	}
}

// Each hostile change gives an error or fewer fields, never a crash or a hang.
func TestHostileDWARF(t *testing.T) {
	replace := func(s string, old, new string) []byte { return []byte(strings.Replace(s, old, new, 1)) }
	for _, c := range []struct {
		name   string
		change func(*small)
		err    string
	}{
		{"unit longer than the section", func(s *small) { s.info[0] = 0xfe }, "leaves its section"},
		{"unknown version", func(s *small) { s.info[4] = 9 }, "DWARF version 9"},
		{"address size 0", func(s *small) { s.info[10] = 0 }, "malformed header"},
		{"abbreviations elsewhere", func(s *small) { s.info[6] = 0xff }, "leaves its section"},
		{"abbreviations without end", func(s *small) { s.abbrev = s.abbrev[:len(s.abbrev)-1] }, "leaves its section"},
		{"unknown abbreviation", func(s *small) { s.info[11] = 0x70 }, "unknown abbreviation"},
		{"unknown form", func(s *small) { s.abbrev[9] = 0x7e }, "unknown form"},
		{"type is the member's own structure", func(s *small) {
			s.abbrev = replace(string(s.abbrev), "\x04\x24\x00", "\x04\x16\x00") // base types become typedefs without a type
		}, ""},
		{"sibling backwards", func(s *small) { s.info[18] = 1 }, ""},
		{"name behind the strings", func(s *small) { s.str = s.str[:3] }, ""},
		{"info cut", func(s *small) {
			s.info = s.info[:len(s.info)-9]
			s.info[0] -= 9
		}, ""},
	} {
		s := smallDWARF(4)
		c.change(&s)
		structs, _, err := s.extract()
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		case err != nil && structs != nil:
			t.Errorf("%s: structures beside an error", c.name)
		}
	}
}

// A class that is its own base class, and an array of itself.
func TestTypesThatNeverEnd(t *testing.T) {
	s := smallDWARF(4)
	u := newUnitOffsets(t, s)
	self := smallDWARF(4)
	binary.LittleEndian.PutUint32(self.info[u.inheritance+1:], u.thd)
	if _, _, err := self.extract(); err != nil {
		t.Logf("own base class: %v", err)
	}
	binary.LittleEndian.PutUint32(s.info[u.array+1:], uint32(u.array))
	structs, missing, err := s.extract()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := (&Layout{Structs: structs}).Field("THD", "name"); ok || len(missing) == 0 {
		t.Errorf("an array of itself has a size: %v", structs)
	}
}

type unitOffsets struct {
	inheritance, array int
	thd                uint32
}

// newUnitOffsets finds entries of smallDWARF by their bytes.
func newUnitOffsets(t *testing.T, s small) unitOffsets {
	t.Helper()
	info := string(s.info)
	array := strings.LastIndex(info, "\x07\x03") - 5
	thd := strings.Index(info, "\x02\x00\x00\x00\x00\x18")
	inh := strings.Index(info[thd:], "\x05") + thd
	if array < 0 || thd < 0 || inh < thd {
		t.Fatal("the fixture has changed")
	}
	return unitOffsets{inheritance: inh, array: array, thd: uint32(thd)}
}

func FuzzDWARF(f *testing.F) {
	for _, version := range []byte{2, 4, 5} {
		s := smallDWARF(version)
		f.Add(s.abbrev, s.info, []byte{}, s.str)
		f.Add(s.abbrev, []byte{}, s.info, s.str)
	}
	f.Fuzz(func(t *testing.T, abbrev, info, types, str []byte) {
		structs, missing, err := small{abbrev, info, types, str}.extract()
		if err != nil {
			if structs != nil || missing != nil {
				t.Fatalf("a result beside error %v", err)
			}
			return
		}
		l := Layout{Binary: Binary{Product: "x", OS: "linux", Arch: "amd64", BuildID: "00"}, Structs: structs}
		for _, s := range structs {
			for _, fd := range s.Fields {
				if fd.Size == 0 || fd.Size > MaxStructSize || fd.Offset > 2*MaxStructSize || fd.Source != "dwarf" {
					t.Fatalf("%s: %+v", s.Name, fd)
				}
			}
		}
		_ = l.Validate() // must not panic on anything that was read
	})
}

// A class whose base is only declared in its unit, as clang leaves it, takes
// the definition from another unit.
func TestDeclaredElsewhere(t *testing.T) {
	s := smallDWARF(4)
	s.abbrev = append(s.abbrev[:len(s.abbrev)-1], 8, tagStruct, 0, atName, formStrp, atDeclaration, formFlagPresent, 0, 0, 0)
	// The second unit's THD becomes another type, its BASE stays.
	second := append([]byte(nil), s.info...)
	o := newUnitOffsets(t, s)
	second[o.thd+1] = 9 // "OTHER"
	s.str = append(s.str, "OTHER\x00"...)
	body := []byte{1, 8, 4, 0, 0, 0, // the declaration of BASE, at 12
		2, 0, 0, 0, 0, 16, 0, 0, 0, 0, // THD, with a sibling that leads nowhere
		5, 12, 0, 0, 0, 0,
		3}
	body = append(body, "real_id\x00"...)
	long := 11 + len(body) + 4 + 1 + 1 // behind the type, the place and the end of THD
	body = append(body, byte(long), 0, 0, 0, 8, 0, 4)
	body = append(body, "long\x00"...)
	body = append(body, 8, 5, 0)
	first := binary.LittleEndian.AppendUint32(nil, uint32(7+len(body)))
	first = append(append(first, 4, 0, 0, 0, 0, 0, 8), body...)
	s.info = append(first, second...)
	structs, missing, err := s.extract()
	if err != nil {
		t.Fatal(err)
	}
	l := &Layout{Structs: structs}
	for name, want := range map[string]uint64{"query_id": 0, "real_id": 8} {
		if f, ok := l.Field("THD", name); !ok || f.Offset != want {
			t.Errorf("%s: %+v, missing %v", name, f, missing)
		}
	}
}
