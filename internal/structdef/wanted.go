package structdef

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Products of the two families. Percona Server is of MySQL's.
const (
	ProductMySQL   = "mysql"
	ProductPercona = "percona"
	ProductMariaDB = "mariadb"
)

// WantedStruct is a structure that mycore reads.
type WantedStruct struct {
	Name string
	// Types are its names in C++, with namespaces and classes: any of them.
	Types []string
	// Required are the fields that tell it from others of that name.
	Required []string
	Fields   []WantedField
}

// WantedField is a field by mycore's name, with the paths under which versions
// have it, newest first.
type WantedField struct {
	Name  string
	Paths []string
}

//go:embed wanted.yaml
var wantedYAML []byte

type wantedFile struct {
	Shared   []wantedDoc
	Families map[string]struct{ Structs []wantedDoc }
}

type wantedDoc struct {
	Name     string
	Types    []string
	Required []string
	Fields   yaml.Node
}

var wantedLists = sync.OnceValues(func() (map[string][]WantedStruct, error) { return parseWanted(wantedYAML) })

// Wanted gives the structures that are read from servers of a product. An
// unknown product is ErrUnknownProduct.
func Wanted(product string) ([]WantedStruct, error) {
	lists, err := wantedLists()
	if err != nil {
		return nil, err
	}
	if product == ProductPercona {
		product = ProductMySQL
	}
	list, ok := lists[product]
	if !ok {
		return nil, fmt.Errorf("%q: %w", product, ErrUnknownProduct)
	}
	return slices.Clone(list), nil
}

func parseWanted(b []byte) (map[string][]WantedStruct, error) {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	var f wantedFile
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("list of wanted fields: %w", err)
	}
	out := map[string][]WantedStruct{}
	for family, own := range f.Families {
		seen := map[string]bool{}
		for _, doc := range slices.Concat(own.Structs, f.Shared) {
			w, err := doc.wanted()
			if err == nil && seen[w.Name] {
				err = errors.New("twice")
			}
			if err != nil {
				return nil, fmt.Errorf("list of wanted fields: %s, %s: %w", family, doc.Name, err)
			}
			seen[w.Name] = true
			out[family] = append(out[family], w)
		}
	}
	return out, nil
}

// wanted keeps the order of the fields as the file has them.
func (d *wantedDoc) wanted() (WantedStruct, error) {
	w := WantedStruct{Name: d.Name, Types: d.Types, Required: d.Required}
	if w.Name == "" || len(w.Types) == 0 || d.Fields.Kind != yaml.MappingNode {
		return w, errors.New("needs name, types and fields")
	}
	for i := 0; i+1 < len(d.Fields.Content); i += 2 {
		key, val := d.Fields.Content[i], d.Fields.Content[i+1]
		f := WantedField{Name: key.Value}
		switch {
		case val.Kind == yaml.ScalarNode && val.Value == "=":
			f.Paths = []string{f.Name}
		case val.Kind == yaml.SequenceNode && val.Decode(&f.Paths) == nil && len(f.Paths) > 0:
		default:
			return w, fmt.Errorf("field %q: paths or =", f.Name)
		}
		if slices.ContainsFunc(w.Fields, func(o WantedField) bool { return o.Name == f.Name }) {
			return w, fmt.Errorf("field %q twice", f.Name)
		}
		w.Fields = append(w.Fields, f)
	}
	for _, r := range w.Required {
		if !slices.ContainsFunc(w.Fields, func(o WantedField) bool { return o.Name == r }) {
			return w, fmt.Errorf("required %q is no field", r)
		}
	}
	return w, nil
}
