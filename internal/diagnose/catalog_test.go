package diagnose

import (
	"strings"
	"testing"
	"testing/fstest"
)

const goodRule = `
- id: a-label
  title: t
  severity: error
  applies-to: [linux]
  when: {syscall: [open]}
  confidence: [{level: certain, sentence: '{{.Who}} waits', when: {state: [S]}}]
  evidence: [{of: syscall, fact: call}]
  remedies: [a-step]
`

const goodRemedy = `
- id: a-step
  action: do it
  channel: shell
  risk: low
  verify: look
  commands: ['cat {{.Word}}']
`

const goodRole = `
- id: a-role
  title: t
  plural: ts
  frames: [f]
  idle: {wait: [poll]}
`

func TestLoadIsStrict(t *testing.T) {
	load := func(rule, remedy, role string) error {
		_, err := Load(fstest.MapFS{"rules/a.yaml": {Data: []byte(rule)}, "remedies/a.yaml": {Data: []byte(remedy)}, "roles/a.yaml": {Data: []byte(role)}})
		return err
	}
	if err := load(goodRule, goodRemedy, goodRole); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, file, old, new, want string }{
		{"unknown key", "rule", "title: t", "titel: t", "titel"},
		{"unknown fact", "rule", "syscall: [open]", "sycall: [open]", "sycall"},
		{"empty condition", "rule", "{syscall: [open]}", "{}", "without any fact"},
		{"unknown wait", "role", "poll", "pol", "wait"},
		{"unknown state of the stack", "rule", "{syscall: [open]}", "{stack: half}", "stack"},
		{"unknown known", "rule", "{syscall: [open]}", "{known: [color]}", "known"},
		{"unknown restart", "rule", "{syscall: [open]}", "{restart: [EAGAIN]}", "restart"},
		{"unknown signal", "rule", "{syscall: [open]}", "{blocked: [SIGFOO]}", "blocked"},
		{"gap without frames", "rule", "{syscall: [open]}", "{state: [S], max-gap: 1}", "max-gap"},
		{"not a version", "rule", "{syscall: [open]}", "{version-from: new}", "version"},
		{"nested", "rule", "{syscall: [open]}", "{all: [{not: {unproven: {}}}]}", "without any fact"},
		{"unknown severity", "rule", "severity: error", "severity: bad", "severity"},
		{"unknown level", "rule", "level: certain", "level: sure", "confidence"},
		{"levels out of order", "rule", "confidence: [", "confidence: [{level: possible, sentence: s, when: {state: [S]}}, ", "strongest first"},
		{"unknown field of a text", "rule", "{{.Who}}", "{{.Whom}}", "Whom"},
		{"broken text", "rule", "{{.Who}}", "{{.Who", "template"},
		{"unknown evidence", "rule", "of: syscall", "of: colour", "evidence"},
		{"remedy that isn't there", "rule", "[a-step]", "[b-step]", "b-step"},
		{"id", "rule", "a-label", "A_label", "id"},
		{"unknown risk", "remedy", "risk: low", "risk: tiny", "risk"},
		{"unknown channel", "remedy", "channel: shell", "channel: phone", "channel"},
		{"no verification", "remedy", "verify: look", "", "verify"},
		{"broken command", "remedy", "{{.Word}}", "{{.Wort}}", "Wort"},
		{"role without anchor", "role", "frames: [f]", "", "frames"},
		{"role with a special name", "role", "frames: [f]", "frames: ['@entry']", "@entry"},
		{"not a list", "role", "- id", "  id", "cannot unmarshal"},
		{"empty entry", "role", "- id", "-\n- id", "empty"},
		{"second document", "role", "  idle", "  idle", "more than one document"},
		{"twice", "role", "- id", goodRole + "- id", "twice"},
	} {
		rule, remedy, role := goodRule, goodRemedy, goodRole
		text := map[string]*string{"rule": &rule, "remedy": &remedy, "role": &role}[c.file]
		if !strings.Contains(*text, c.old) {
			t.Fatalf("%s: %q isn't in the file", c.name, c.old)
		}
		*text = strings.Replace(*text, c.old, c.new, 1)
		if c.name == "second document" {
			*text += "---\n[]\n"
		}
		err := load(rule, remedy, role)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q in it", c.name, err, c.want)
		}
	}
}

func TestStepsByRisk(t *testing.T) {
	c := &Catalog{Remedies: map[string]*RemedyRule{"a": {Risk: "high"}, "b": {Risk: "low"}}}
	if c.checkSteps([]string{"b", "a"}) != nil || c.checkSteps([]string{"a", "b"}) == nil {
		t.Error("a destructive step may come first")
	}
}

// Whatever stands in a file, loading ends with a catalog or an error.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(goodRule), []byte(goodRemedy), []byte(goodRole))
	for _, dir := range []string{"rules", "remedies", "roles"} {
		entries, err := embedded.ReadDir(dir)
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range entries {
			b, err := embedded.ReadFile(dir + "/" + e.Name())
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, b, b)
		}
	}
	f.Fuzz(func(t *testing.T, rule, remedy, role []byte) {
		c, err := Load(fstest.MapFS{"rules/a.yaml": {Data: rule}, "remedies/a.yaml": {Data: remedy}, "roles/a.yaml": {Data: role}})
		if (err == nil) != (c != nil) {
			t.Fatalf("catalog %v with error %v", c != nil, err)
		}
		if c != nil {
			res := c.Run(linuxInput(append(idleMariaDB(), wchan(fifoThread(50, loadStack, ghost, 0), "wait_for_partner"))...))
			if len(res.Threads) != 11 {
				t.Fatalf("%d threads", len(res.Threads))
			}
		}
	})
}
