package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"mycore/internal/elfimage"
	"mycore/internal/structdef"
	"mycore/internal/untrusted"
)

// showAccessors lists what the code of a binary without DWARF gives away.
// noDWARF is why there is nothing better.
func (in *layoutInputs) showAccessors(stdout, stderr io.Writer, path string, noDWARF error) error {
	f, err := elfimage.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	product := in.product
	if product == "" {
		b, err := structdef.Identify(f)
		if err != nil {
			return errors.Join(noDWARF, err)
		}
		product = b.Product
	}
	found, problems := structdef.FromAccessors(f, product)
	for _, p := range problems {
		fmt.Fprintf(stderr, "mycore: warning: %s\n", untrusted.Line(p.Error()))
	}
	if len(found) == 0 {
		return noDWARF
	}
	slices.SortStableFunc(found, func(a, b structdef.Found) int { return strings.Compare(a.Struct, b.Struct) })
	id := "no build ID"
	if b, ok := f.BuildID(); ok {
		id = fmt.Sprintf("build ID %x", b)
	}
	fmt.Fprintf(stdout, "%s without DWARF: fields by the code of exported functions\n%s\n", untrusted.Line(product), id)
	t := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	for _, x := range found {
		size := "size unknown"
		if x.Field.Size != 0 {
			size = fieldSize(x.Field)
		}
		fmt.Fprintf(t, "  %s\t%#x\t%s\t%s\t%s\t%s\n", untrusted.Line(x.Struct), x.Field.Offset, size, untrusted.Line(x.Field.Name), x.Field.Source, untrusted.Line(x.How))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing the layout: %w", err)
	}
	return nil
}
