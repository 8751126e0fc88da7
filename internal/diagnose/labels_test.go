package diagnose

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/labels.md")

// labelsDoc is docs/labels.md: what each label means, made from the rules.
func labelsDoc(c *Catalog) string {
	var b strings.Builder
	b.WriteString("# Labels\n\nGenerated from internal/diagnose/rules and remedies (go test ./internal/diagnose -update).\n\n" +
		"Confidence: *certain* needs facts of two independent kinds of source (kernel record, registers,\n" +
		"target memory, server text, file system), *likely* one conclusive kind, *possible* is a guess worth checking.\n")
	for _, r := range c.Rules {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s.\n\n", r.ID, r.Title, oneLine(r.Meaning))
		fmt.Fprintf(&b, "- Severity: %s. Systems: %s. %s\n", r.Severity, strings.Join(r.AppliesTo, ", "), map[bool]string{true: "A root cause.", false: "A consequence."}[r.Root])
		if r.Kill != nil {
			fmt.Fprintf(&b, "- KILL frees it: %s (%s): %s\n", map[bool]string{true: "yes", false: "no"}[r.Kill.Works], r.Kill.Source, oneLine(r.Kill.Why))
		}
		b.WriteString("- Not this label when:\n")
		for _, e := range r.Excludes {
			fmt.Fprintf(&b, "  - %s\n", oneLine(e.Why))
		}
		b.WriteString("- Evidence:")
		for i, e := range r.Evidence {
			fmt.Fprintf(&b, "%s %s", map[bool]string{true: "", false: ","}[i == 0], e.Fact)
		}
		b.WriteString("\n\nWhat to do, lowest risk first:\n\n")
		for i, id := range r.Remedies {
			rem := c.Remedies[id]
			d := textData{lwps: []int{1}}
			fmt.Fprintf(&b, "%d. %s. Risk: %s. %s\n", i+1, oneLine(c.texts.prose(rem.Action, d)), rem.Risk, "Effect: "+oneLine(c.texts.prose(rem.Effects, d))+".")
			for _, p := range rem.Preconditions {
				fmt.Fprintf(&b, "   - if %s\n", oneLine(c.texts.prose(p.Text, d)))
			}
		}
		for i, ref := range r.References {
			if i == 0 {
				b.WriteString("\nReferences:\n\n")
			}
			fmt.Fprintf(&b, "- %s\n", ref)
		}
	}
	b.WriteString("\n# Thread roles\n\n| role | words | functions | thread names |\n|---|---|---|---|\n")
	for _, r := range c.Roles {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.ID, r.Title, strings.Join(r.Frames, ", "), strings.Join(r.Names, ", "))
	}
	return b.String()
}

func oneLine(s string) string { return strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ".") }

func TestLabelsDocument(t *testing.T) {
	got := labelsDoc(catalog(t))
	path := filepath.Join("..", "..", "docs", "labels.md")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s isn't what the rules say; run: go test ./internal/diagnose -update", path)
	}
}
