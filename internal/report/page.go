package report

import (
	"io"
	"strings"

	"mycore/internal/untrusted"
)

// TextOptions say how text is laid out. The zero value gives 80 columns
// without colour.
type TextOptions struct {
	Width   int  // columns; 0 means 80, less than minWidth means minWidth
	Color   bool // bold and red for the few words that deserve it
	All     bool // list idle threads, too
	Verbose bool // whole stacks with trust marks, all steps and checks
}

const (
	defaultWidth = 80
	// minWidth: below it columns overlap and every word is a line.
	minWidth = 40
	// maxWidth: longer lines of prose are hard to read; tables don't need more.
	maxWidth = 200
	// screenLines is the height of the first screen: the verdict and what to
	// do fit into it on the smallest terminal in use.
	screenLines = 24
)

func (o TextOptions) width() int {
	if o.Width == 0 {
		return defaultWidth
	}
	return min(max(o.Width, minWidth), maxWidth)
}

// page collects lines. Texts are escaped when they are added: what is on a
// page is safe to print.
type page struct {
	opts  TextOptions
	width int
	lines []string
}

func newPage(o TextOptions) *page { return &page{opts: o, width: o.width()} }

func (p *page) sub() *page { return &page{opts: p.opts, width: p.width} }

func (p *page) blank() { p.lines = append(p.lines, "") }

// raw adds a line that has been made safe and fitting.
func (p *page) raw(line string) { p.lines = append(p.lines, strings.TrimRight(line, " ")) }

// line adds one line, cut to the width.
func (p *page) line(s string) { p.raw(untrusted.Short(s, p.width)) }

// prose adds text wrapped at blanks: first before the first line, rest (as
// many blanks as it is long) before the others.
func (p *page) prose(first, rest, s string) {
	p.raw1(first, rest, untrusted.Line(s))
}

func (p *page) raw1(first, rest, safe string) {
	for i, l := range wrap(safe, p.width-untrusted.Cells(first), p.width-untrusted.Cells(rest)) {
		if i == 0 {
			p.raw(first + l)
		} else {
			p.raw(rest + l)
		}
	}
}

// command adds a line that is meant to be copied: it is never cut or broken.
func (p *page) command(indent, s string) { p.raw(indent + untrusted.Line(s)) }

// titled adds a line with a word at the right edge.
func (p *page) titled(left, right string, bold bool) {
	right = untrusted.Short(right, p.width/3)
	left = untrusted.Short(left, p.width-untrusted.Cells(right)-1)
	pad := strings.Repeat(" ", max(1, p.width-untrusted.Cells(left)-untrusted.Cells(right)))
	if bold {
		left = p.bold(left)
	}
	p.raw(left + pad + right)
}

// heading adds a line whose first word stands out, wrapped like prose.
func (p *page) heading(word, sep, rest, s string, paint func(string) string) {
	at := len(p.lines)
	p.raw1(word+sep, rest, untrusted.Line(s))
	p.lines[at] = paint(word) + strings.TrimPrefix(p.lines[at], word)
}

func (p *page) add(q *page) { p.lines = append(p.lines, q.lines...) }

func (p *page) writeTo(w io.Writer) error {
	_, err := io.WriteString(w, strings.Join(p.lines, "\n")+"\n")
	return err
}

// The two colours; plain text says everything without them.
const (
	ansiBold  = "\x1b[1m"
	ansiRed   = "\x1b[1;31m"
	ansiReset = "\x1b[0m"
)

func (p *page) bold(s string) string {
	if !p.opts.Color {
		return s
	}
	return ansiBold + s + ansiReset
}

func (p *page) red(s string) string {
	if !p.opts.Color {
		return s
	}
	return ansiRed + s + ansiReset
}

// minWrap keeps text readable where the indent leaves no room: the line gets
// longer than the page then.
const minWrap = 10

// wrap breaks safe text at blanks into lines of at most so many cells: the
// first line may have another width. A word that is longer is broken, too.
func wrap(s string, first, rest int) []string {
	width := max(first, minWrap)
	var out []string
	cur, cells := "", 0
	flush := func() {
		out = append(out, cur)
		cur, cells = "", 0
		width = max(rest, minWrap)
	}
	for _, word := range strings.Fields(s) {
		n := untrusted.Cells(word)
		if cells > 0 && cells+1+n > width {
			flush()
		}
		for n > width {
			cut := fit(word, width)
			cur = word[:cut]
			flush()
			word = word[cut:]
			n = untrusted.Cells(word)
		}
		if cells > 0 {
			cur += " "
			cells++
		}
		cur += word
		cells += n
	}
	if cells > 0 || out == nil {
		flush()
	}
	return out
}

// fit is the length of the longest prefix of at most width cells, at least one
// character.
func fit(s string, width int) int {
	cells := 0
	for i, r := range s {
		cells += untrusted.Cells(string(r))
		if cells > width && i > 0 {
			return i
		}
	}
	return len(s)
}

// column pads or cuts safe text to exactly n cells.
func column(s string, n int) string {
	s = untrusted.Clip(s, n)
	return s + strings.Repeat(" ", max(0, n-untrusted.Cells(s)))
}
