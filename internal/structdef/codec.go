package structdef

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"mycore/internal/elfimage"
)

// FormatVersion is the version of layout files that this package writes and
// the only one it reads.
const FormatVersion = 1

// maxFile bounds a layout file: the wanted list makes one of 60 KiB.
const maxFile = 8 << 20

// file is a layout as it is written.
type file struct {
	Format int    `json:"mycore_layout"`
	About  string `json:"about,omitempty"`
	Layout
}

// Write writes the layout as JSON, fields in the order of their places. The
// same layout always gives the same bytes. A layout that Load would refuse is
// an error.
func (l *Layout) Write(w io.Writer) error {
	if err := l.Validate(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(file{Format: FormatVersion, About: "written by mycore layout extract; offsets and sizes in bytes", Layout: *l}, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the layout: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// Load reads a layout that Write wrote. Anything unknown, contradictory or
// behind the end is refused with ErrFormat.
func Load(r io.Reader) (*Layout, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the layout: %w", err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, maxFile)
	}
	if err := noDuplicateKeys(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var f file
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if f.Format != FormatVersion {
		return nil, fmt.Errorf("%w: mycore_layout is %d, this version reads %d", ErrFormat, f.Format, FormatVersion)
	}
	if err := f.Layout.Validate(); err != nil {
		return nil, err
	}
	return &f.Layout, nil
}

// LoadFile is Load of a regular file.
func LoadFile(path string) (*Layout, error) {
	f, _, err := elfimage.OpenRegular(path)
	if err != nil {
		return nil, fmt.Errorf("opening the layout: %w", err)
	}
	defer f.Close()
	l, err := Load(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// noDuplicateKeys refuses what encoding/json takes in silence: an object with
// one key twice (the last would win), keys that differ in case, and text
// behind the value.
func noDuplicateKeys(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	type level struct {
		keys  map[string]bool // nil for an array
		value bool            // the next token is a value
	}
	var stack []level
	for first := true; first || len(stack) > 0; first = false {
		tok, err := d.Token()
		if err != nil {
			return err
		}
		top := len(stack) - 1
		if top >= 0 && stack[top].keys != nil {
			if key, ok := tok.(string); ok && !stack[top].value {
				if stack[top].keys[key] {
					return fmt.Errorf("key %q twice", key)
				}
				if key != strings.ToLower(key) {
					return fmt.Errorf("unknown key %q", key)
				}
				stack[top].keys[key], stack[top].value = true, true
				continue
			}
			stack[top].value = false
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{keys: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
		}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text behind the layout")
	}
	return nil
}
