package report

import "io"

// indenter indents JSON on its way to w, with two spaces, the way json.Indent
// does. The encoder's own indentation holds the whole text twice more and
// walks it byte by byte, which took a third of an analysis.
//
// The JSON has to be valid and without space outside strings, as json.Encoder
// writes it; it may come in pieces. What is written to w never ends inside a
// string.
type indenter struct {
	w     io.Writer
	buf   []byte
	depth int
	// empty: the last byte opened an object or array that has nothing in it
	// so far.
	empty   bool
	inside  bool // of a string
	escaped bool // the last byte was a backslash inside a string
}

// indentBuffer is how much is collected before it is written.
const indentBuffer = 64 << 10

// Write implements io.Writer.
func (d *indenter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if d.inside {
			p = d.string(p)
			continue
		}
		if len(d.buf) >= indentBuffer {
			if err := d.flush(); err != nil {
				return 0, err
			}
		}
		d.byte(p[0])
		p = p[1:]
	}
	return n, d.flush()
}

// string copies up to the end of the string that p begins in.
func (d *indenter) string(p []byte) (rest []byte) {
	end := 0
	for end < len(p) && d.inside {
		c := p[end]
		end++
		switch {
		case d.escaped:
			d.escaped = false
		case c == '\\':
			d.escaped = true
		case c == '"':
			d.inside = false
		}
	}
	d.buf = append(d.buf, p[:end]...)
	return p[end:]
}

// byte takes one byte that isn't part of a string.
func (d *indenter) byte(c byte) {
	if d.empty && c != '}' && c != ']' {
		d.line()
	}
	switch c {
	case '{', '[':
		d.depth++
		d.buf = append(d.buf, c)
		d.empty = true
		return
	case '}', ']':
		d.depth--
		if !d.empty {
			d.line()
		}
		d.buf = append(d.buf, c)
	case ',':
		d.buf = append(d.buf, c)
		d.line()
	case ':':
		d.buf = append(d.buf, c, ' ')
	default:
		d.inside = c == '"'
		d.buf = append(d.buf, c)
	}
	d.empty = false
}

// line begins a new line at the depth that is reached.
func (d *indenter) line() {
	d.buf = append(d.buf, '\n')
	for range d.depth {
		d.buf = append(d.buf, ' ', ' ')
	}
}

func (d *indenter) flush() error {
	if len(d.buf) == 0 || d.inside {
		return nil
	}
	_, err := d.w.Write(d.buf)
	d.buf = d.buf[:0]
	return err
}
