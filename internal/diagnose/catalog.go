package diagnose

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"mycore/internal/incident"
)

//go:embed rules/*.yaml remedies/*.yaml roles/*.yaml
var embedded embed.FS

// maxDataFile bounds one rule file. The largest shipped is some 20 KiB; the
// YAML reader's cost grows with nesting, so user files stay small as well.
const maxDataFile = 1 << 20

// Rule is a label with the condition for it.
type Rule struct {
	ID         string         `yaml:"id"`
	Title      string         `yaml:"title"`   // what the label means, in one line, for the documentation
	Meaning    string         `yaml:"meaning"` // a paragraph
	Severity   string         `yaml:"severity"`
	Root       bool           `yaml:"root"`
	AppliesTo  []string       `yaml:"applies-to"` // operating systems
	When       *Cond          `yaml:"when"`       // what must hold at any confidence
	Excludes   []Exclusion    `yaml:"excludes"`
	Confidence []Level        `yaml:"confidence"` // strongest first
	Resource   *ResourceRule  `yaml:"resource"`
	Evidence   []EvidenceRule `yaml:"evidence"`
	Missing    []MissingRule  `yaml:"missing"`
	Signature  []string       `yaml:"signature"` // functions that, when on the stack, belong to the signature
	Kill       *KillRule      `yaml:"kill"`
	Remedies   []string       `yaml:"remedies"` // ids, lowest risk first
	References []string       `yaml:"references"`
}

// Exclusion is a condition under which the rule doesn't apply, with the reason.
type Exclusion struct {
	When *Cond  `yaml:"when"`
	Why  string `yaml:"why"`
}

// Level is what must hold for one degree of confidence, and the sentence to
// say then.
type Level struct {
	Level    string `yaml:"level"`
	Sentence string `yaml:"sentence"` // template
	When     *Cond  `yaml:"when"`
	Unless   *Cond  `yaml:"unless"`
}

// ResourceRule names what is waited for.
type ResourceRule struct {
	Kind string `yaml:"kind"`
	Path string `yaml:"path"` // template
}

// EvidenceRule lists a fact under a finding when it is known.
type EvidenceRule struct {
	Of   string `yaml:"of"`   // one of factNames
	Fact string `yaml:"fact"` // what to call it
}

// MissingRule says what to collect when a condition holds.
type MissingRule struct {
	When *Cond  `yaml:"when"`
	Text string `yaml:"text"` // template
}

// KillRule says what KILL does.
type KillRule struct {
	Works  bool   `yaml:"works"`
	Why    string `yaml:"why"`
	Source string `yaml:"source"`
}

// RemedyRule is one step of help.
type RemedyRule struct {
	ID            string             `yaml:"id"`
	Action        string             `yaml:"action"` // template
	Channel       string             `yaml:"channel"`
	Applies       *Cond              `yaml:"applies"` // when known not to hold, the remedy isn't listed
	Target        string             `yaml:"target"`  // "", "process" or "thread"
	Risk          string             `yaml:"risk"`
	Preconditions []PreconditionRule `yaml:"preconditions"`
	Commands      []string           `yaml:"commands"` // templates
	Effects       string             `yaml:"effects"`
	Undo          string             `yaml:"undo"`
	Verify        string             `yaml:"verify"`
	Prevent       string             `yaml:"prevent"`
	References    []string           `yaml:"references"`
}

// PreconditionRule is checked against the facts: yes is met, no is unmet.
type PreconditionRule struct {
	Text    string `yaml:"text"`    // template
	When    *Cond  `yaml:"when"`    // absent: can't be told from any evidence, always unknown
	Guarded bool   `yaml:"guarded"` // the command checks it itself: unknown doesn't withhold the command
	Check   string `yaml:"check"`   // template: how to find out
}

// Role is what a thread is there for, and the wait that is normal for it.
type Role struct {
	ID     string `yaml:"id"`
	Title  string `yaml:"title"`
	Plural string `yaml:"plural"`
	// Connection is true for threads that serve one client.
	Connection bool `yaml:"connection"`
	// Unproven roles are heuristics: they are shown, and count as unknown.
	Unproven bool     `yaml:"unproven"`
	Frames   []string `yaml:"frames"`  // any of these on the stack
	Names    []string `yaml:"names"`   // or any of these thread names
	Start    []string `yaml:"start"`   // or any of these start routines
	Only     *Cond    `yaml:"only"`    // and this, when present
	Unnamed  bool     `yaml:"unnamed"` // instead of the above: no server function on the stack has a name
	Idle     *Cond    `yaml:"idle"`    // absent: whether it is idle can't be judged
	order    int
}

// Catalog is a checked set of rules, remedies and roles; immutable.
type Catalog struct {
	Rules    []*Rule
	Remedies map[string]*RemedyRule
	Roles    []*Role

	byFrame, byName, byStart map[string][]*Role
	unnamed                  []*Role
	byID                     map[string]*Role
	texts                    *texts
}

var shipped = sync.OnceValues(func() (*Catalog, error) { return Load(embedded) })

// Default is the catalog that mycore ships. It is read once, at first use; an
// error would be one of the build, which the tests exclude.
func Default() (*Catalog, error) { return shipped() }

// Load reads rules/*.yaml, remedies/*.yaml and roles/*.yaml of fsys. It is
// strict: unknown keys, unknown facts, references to nowhere and templates
// that don't render are errors that name the file.
func Load(fsys fs.FS) (*Catalog, error) {
	c := &Catalog{Remedies: map[string]*RemedyRule{}, byFrame: map[string][]*Role{}, byName: map[string][]*Role{},
		byStart: map[string][]*Role{}, byID: map[string]*Role{}, texts: newTexts()}
	var remedies []*RemedyRule
	if err := errors.Join(
		readAll(fsys, "rules", func(r []*Rule) { c.Rules = append(c.Rules, r...) }),
		readAll(fsys, "remedies", func(r []*RemedyRule) { remedies = append(remedies, r...) }),
		readAll(fsys, "roles", func(r []*Role) { c.Roles = append(c.Roles, r...) }),
	); err != nil {
		return nil, err
	}
	for _, r := range remedies {
		if err := c.addRemedy(r); err != nil {
			return nil, fmt.Errorf("remedy %q: %w", r.ID, err)
		}
	}
	for i, r := range c.Roles {
		r.order = i
		if err := c.addRole(r); err != nil {
			return nil, fmt.Errorf("role %q: %w", r.ID, err)
		}
	}
	seen := map[string]bool{}
	for _, r := range c.Rules {
		if seen[r.ID] {
			return nil, fmt.Errorf("rule %q: twice", r.ID)
		}
		seen[r.ID] = true
		if err := c.checkRule(r); err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.ID, err)
		}
	}
	return c, nil
}

// readAll decodes every file of a folder, in the order of their names. A file
// is a list.
func readAll[T any](fsys fs.FS, dir string, add func([]*T)) error {
	files, err := fs.Glob(fsys, path.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, name := range files {
		f, err := fsys.Open(name)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		text, err := io.ReadAll(io.LimitReader(f, maxDataFile+1))
		f.Close()
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if len(text) > maxDataFile {
			return fmt.Errorf("reading %s: more than %d bytes", name, maxDataFile)
		}
		list, err := decode[T](text)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		add(list)
	}
	return nil
}

// decode reads one YAML document that is a list of T, and nothing after it.
func decode[T any](text []byte) ([]*T, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var list []*T
	if err := d.Decode(&list); err != nil {
		return nil, err
	}
	var rest yaml.Node
	if err := d.Decode(&rest); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("more than one document")
	}
	for i, e := range list {
		if e == nil {
			return nil, fmt.Errorf("entry %d is empty", i+1)
		}
	}
	return list, nil
}

var idPattern = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func checkID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("the id isn't lower-case words joined by hyphens")
	}
	return nil
}

var (
	severities  = []string{incident.SeverityCritical, incident.SeverityError, incident.SeverityWarning, incident.SeverityInfo}
	confidences = []string{incident.ConfidenceCertain, incident.ConfidenceLikely, incident.ConfidencePossible}
	risks       = []string{"none", "low", "medium", "high"}
	channels    = []string{"sql", "shell", "kernel"}
)

func oneOf(key, s string, known []string) error {
	if !contains(known, s) {
		return fmt.Errorf("%s: %q isn't one of %s", key, s, strings.Join(known, ", "))
	}
	return nil
}

func (c *Catalog) checkRule(r *Rule) error {
	errs := []error{checkID(r.ID), oneOf("severity", r.Severity, severities), r.When.check()}
	if r.When == nil || len(r.Confidence) == 0 || r.Title == "" || len(r.AppliesTo) == 0 || len(r.Evidence) == 0 {
		errs = append(errs, fmt.Errorf("needs title, applies-to, when, confidence and evidence"))
	}
	for _, e := range r.Excludes {
		errs = append(errs, e.When.check())
		if e.When == nil || e.Why == "" {
			errs = append(errs, fmt.Errorf("an exclusion needs when and why"))
		}
	}
	last := -1
	for _, l := range r.Confidence {
		rank := slices.Index(confidences, l.Level)
		if rank <= last {
			errs = append(errs, fmt.Errorf("confidence levels must be known and strongest first: %q", l.Level))
		}
		last = rank
		errs = append(errs, l.When.check(), l.Unless.check(), c.texts.check(l.Sentence))
		if l.When == nil || l.Sentence == "" {
			errs = append(errs, fmt.Errorf("confidence %s needs when and sentence", l.Level))
		}
	}
	for _, e := range r.Evidence {
		errs = append(errs, oneOf("evidence", e.Of, factNames))
	}
	for _, m := range r.Missing {
		errs = append(errs, m.When.check(), c.texts.check(m.Text))
		if m.When == nil || m.Text == "" {
			errs = append(errs, fmt.Errorf("missing needs when and text"))
		}
	}
	if r.Resource != nil {
		errs = append(errs, c.texts.check(r.Resource.Path))
	}
	return errors.Join(append(errs, c.checkSteps(r.Remedies))...)
}

// checkSteps holds that remedies exist and come lowest risk first: never a
// destructive step before a mild one.
func (c *Catalog) checkSteps(ids []string) error {
	last := 0
	for _, id := range ids {
		rem, ok := c.Remedies[id]
		if !ok {
			return fmt.Errorf("no remedy %q", id)
		}
		rank := slices.Index(risks, rem.Risk)
		if rank < last {
			return fmt.Errorf("remedy %q comes after one of higher risk", id)
		}
		last = rank
	}
	return nil
}

func (c *Catalog) addRemedy(r *RemedyRule) error {
	if c.Remedies[r.ID] != nil {
		return fmt.Errorf("twice")
	}
	c.Remedies[r.ID] = r
	errs := []error{checkID(r.ID), oneOf("risk", r.Risk, risks), oneOf("channel", r.Channel, channels),
		oneOf("target", r.Target, []string{"", "process", "thread"}), r.Applies.check(), c.texts.check(r.Action)}
	if r.Action == "" || r.Verify == "" {
		errs = append(errs, fmt.Errorf("needs action and verify"))
	}
	for _, p := range r.Preconditions {
		errs = append(errs, p.When.check(), c.texts.check(p.Text), c.texts.check(p.Check))
		if p.Text == "" {
			errs = append(errs, fmt.Errorf("a precondition needs a text"))
		}
	}
	for _, t := range append([]string{r.Effects, r.Undo, r.Verify, r.Prevent}, r.Commands...) {
		errs = append(errs, c.texts.check(t))
	}
	return errors.Join(errs...)
}

func (c *Catalog) addRole(r *Role) error {
	if c.byID[r.ID] != nil {
		return fmt.Errorf("twice")
	}
	c.byID[r.ID] = r
	if r.Title == "" || r.Plural == "" {
		return fmt.Errorf("needs title and plural")
	}
	anchors := len(r.Frames) + len(r.Names) + len(r.Start)
	if r.Unnamed == (anchors > 0) {
		return fmt.Errorf("needs frames, names or start, or else unnamed")
	}
	for _, f := range slices.Concat(r.Frames, r.Names, r.Start) {
		if strings.HasPrefix(f, "@") || f == "" {
			return fmt.Errorf("%q isn't a name", f)
		}
	}
	for _, f := range r.Frames {
		c.byFrame[f] = append(c.byFrame[f], r)
	}
	for _, n := range r.Names {
		c.byName[n] = append(c.byName[n], r)
	}
	for _, s := range r.Start {
		c.byStart[s] = append(c.byStart[s], r)
	}
	if r.Unnamed {
		c.unnamed = append(c.unnamed, r)
	}
	return errors.Join(checkID(r.ID), r.Only.check(), r.Idle.check())
}

// RoleTitle gives the words for a role id: singular for n == 1. An id that
// isn't in the catalog is given back.
func (c *Catalog) RoleTitle(id string, n int) string {
	r := c.byID[id]
	switch {
	case r == nil:
		return id
	case n == 1:
		return r.Title
	}
	return r.Plural
}
