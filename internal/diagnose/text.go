package diagnose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"mycore/internal/untrusted"
)

// textData is what templates of rules and remedies may use. A command that
// needs a field which isn't known isn't rendered: the functions say so.
type textData struct {
	path string
	pid  int
	lwps []int
	arch string
	os   string
	// connection is that of the only thread; 0 when there are several, or it
	// isn't known.
	connection uint64
	call       string
	hasPath    bool
}

// errAbsent ends the rendering of a text whose fact isn't known.
var errAbsent = fmt.Errorf("a fact that the text needs isn't known")

// Who names the threads: "LWP 4730", "LWPs 1, 2".
func (d textData) Who() string {
	if d.connection != 0 {
		return "Connection " + strconv.FormatUint(d.connection, 10)
	}
	if len(d.lwps) == 1 {
		return "LWP " + strconv.Itoa(d.lwps[0])
	}
	list := make([]string, 0, len(d.lwps))
	for _, l := range d.lwps {
		list = append(list, strconv.Itoa(l))
	}
	if len(list) > maxNamed {
		list = append(list[:maxNamed], fmt.Sprintf("and %d more", len(d.lwps)-maxNamed))
	}
	return "LWPs " + strings.Join(list, ", ")
}

// maxNamed is how many threads a sentence names one by one.
const maxNamed = 6

// Verb chooses between singular and plural.
func (d textData) Verb(one, many string) string {
	if len(d.lwps) == 1 {
		return one
	}
	return many
}

// FreeBSD says whether the process ran there: commands differ.
func (d textData) FreeBSD() bool { return d.os == "freebsd" }

// HasPath says whether the path is known.
func (d textData) HasPath() bool { return d.hasPath }

// Path is the path as read, for sentences; the renderer escapes it.
func (d textData) Path() (string, error) {
	if !d.hasPath {
		return "", errAbsent
	}
	return d.path, nil
}

// Word is the path as one word of a shell command.
func (d textData) Word() (string, error) {
	if !d.hasPath || !strings.HasPrefix(d.path, "/") {
		return "", errAbsent
	}
	w, ok := untrusted.Quote(d.path)
	if !ok {
		return "", errAbsent
	}
	return w, nil
}

// Script is prefix and the path's word as one word again, for sh -c.
func (d textData) Script(prefix string) (string, error) {
	w, err := d.Word()
	if err != nil {
		return "", err
	}
	q, ok := untrusted.Quote(prefix + w)
	if !ok {
		return "", errAbsent
	}
	return q, nil
}

// PID is the process id as the observer sees it.
func (d textData) PID() (int, error) {
	if d.pid <= 0 {
		return 0, errAbsent
	}
	return d.pid, nil
}

// LWP is the thread: the first one, when several share a finding.
func (d textData) LWP() (int, error) {
	if len(d.lwps) == 0 {
		return 0, errAbsent
	}
	return d.lwps[0], nil
}

// Call is the system call in strace's form.
func (d textData) Call() (string, error) {
	if d.call == "" {
		return "", errAbsent
	}
	return d.call, nil
}

// tgkillNumbers are the numbers of tgkill(2): arch/x86/entry/syscalls/
// syscall_64.tbl and include/uapi/asm-generic/unistd.h.
var tgkillNumbers = map[string]int{"amd64": 234, "arm64": 131}

// Tgkill is the number of tgkill for this instruction set.
func (d textData) Tgkill() (int, error) {
	n, ok := tgkillNumbers[d.arch]
	if !ok {
		return 0, errAbsent
	}
	return n, nil
}

// texts holds the parsed templates of a catalog.
type texts struct{ parsed map[string]*template.Template }

func newTexts() *texts { return &texts{parsed: map[string]*template.Template{}} }

// check parses a text and renders it with every fact known, so that a wrong
// field name is an error of the file, not of the analysis.
func (t *texts) check(s string) error {
	if !strings.Contains(s, "{{") || t.parsed[s] != nil {
		return nil
	}
	p, err := template.New("text").Option("missingkey=error").Parse(s)
	if err != nil {
		return err
	}
	t.parsed[s] = p
	full := textData{path: "/tmp/x", hasPath: true, pid: 1, lwps: []int{1}, arch: "amd64", call: "open()"}
	if _, err := t.render(s, full); err != nil {
		return fmt.Errorf("text %q: %w", s, err)
	}
	return nil
}

// render fills a text that check has seen. The error means that a fact which
// it needs isn't known.
func (t *texts) render(s string, d textData) (string, error) {
	p := t.parsed[s]
	if p == nil {
		return strings.TrimSpace(s), nil
	}
	var b strings.Builder
	if err := p.Execute(&b, d); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// prose renders a sentence, or says nothing when a fact is missing.
func (t *texts) prose(s string, d textData) string {
	out, err := t.render(s, d)
	if err != nil {
		return ""
	}
	return out
}

// quotable says that a path can be written in a command as it is.
func quotable(path string) bool {
	_, ok := untrusted.Quote(path)
	return ok
}

func sortedCopy(in []int) []int {
	out := slices.Clone(in)
	slices.Sort(out)
	return out
}
