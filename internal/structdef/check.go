package structdef

import "fmt"

// Difference is one field on which two layouts of the same build disagree.
type Difference struct {
	Struct, Field string // Field is "" for the structure's size
	What          string // "offset", "size", "kind", "bits", "missing"
	Got, Want     string
}

// String is one line.
func (d Difference) String() string {
	name := d.Struct
	if d.Field != "" {
		name += "." + d.Field
	}
	if d.What == "missing" {
		return fmt.Sprintf("%s: not in the truth", name)
	}
	return fmt.Sprintf("%s: %s %s, but %s by the truth", name, d.What, d.Got, d.Want)
}

// Compare checks every claim of a layout against one that is known to be
// right (DWARF of the same build) and returns what differs, in the order of
// got. A field that the truth doesn't have is a difference: it can't be
// confirmed. Fields that only the truth has are none. Kinds are compared
// only where both come from types: an accessor knows width, not type.
func Compare(got, want *Layout) []Difference {
	var out []Difference
	for i := range got.Structs {
		g := &got.Structs[i]
		w, ok := want.Struct(g.Name)
		if !ok {
			out = append(out, Difference{Struct: g.Name, What: "missing"})
			continue
		}
		if g.Size != 0 && w.Size != 0 && g.Size != w.Size {
			out = append(out, Difference{Struct: g.Name, What: "size", Got: fmt.Sprint(g.Size), Want: fmt.Sprint(w.Size)})
		}
		for _, f := range g.Fields {
			truth, ok := w.Field(f.Name)
			if !ok {
				out = append(out, Difference{Struct: g.Name, Field: f.Name, What: "missing"})
				continue
			}
			out = append(out, compareField(g.Name, f, truth)...)
		}
	}
	return out
}

func compareField(name string, f, truth Field) []Difference {
	var out []Difference
	add := func(what, got, want string) {
		if got != want {
			out = append(out, Difference{Struct: name, Field: f.Name, What: what, Got: got, Want: want})
		}
	}
	add("offset", fmt.Sprintf("%#x", f.Offset), fmt.Sprintf("%#x", truth.Offset))
	add("size", fmt.Sprint(f.Size), fmt.Sprint(truth.Size))
	add("bits", fmt.Sprintf("%d+%d", f.BitOffset, f.BitSize), fmt.Sprintf("%d+%d", truth.BitOffset, truth.BitSize))
	if f.fromTypes() && truth.fromTypes() {
		add("kind", string(f.Kind), string(truth.Kind))
	}
	return out
}

// fromTypes says that the field's kind was read from a type, not guessed from
// how code uses it.
func (f *Field) fromTypes() bool { return f.Source == "dwarf" || f.Source == "profile" }

// Same says whether both layouts are of one build, by build ID or hash.
func (b *Binary) Same(o *Binary) bool {
	if b.OS != o.OS || b.Arch != o.Arch {
		return false
	}
	if b.BuildID != "" || o.BuildID != "" {
		return b.BuildID == o.BuildID
	}
	return b.Hash != nil && o.Hash != nil && *b.Hash == *o.Hash
}
