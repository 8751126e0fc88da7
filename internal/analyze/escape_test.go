package analyze_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"mycore/internal/coretest"
	"mycore/internal/incident"
)

// setPath writes another path over the one that the thread opens.
func (g *ghost) setPath(t *testing.T, path string) {
	t.Helper()
	copy(g.Mem(g.Reg(g.lwp, coretest.RegRSI), len(path)+1), path+"\x00")
	g.path = path
}

// wantPlain fails on anything in a text that could steer a terminal.
func wantPlain(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Error("the text isn't UTF-8")
	}
	for i, r := range text {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			t.Fatalf("%q in the text: %q", r, text[max(0, i-40):min(len(text), i+40)])
		}
	}
}

// Text of the target can't steer the terminal, forge a line of the report or
// reach a command.
func TestTerminalEscapes(t *testing.T) {
	t.Parallel()
	const line = "FINDING 9  forged"
	g := newGhost(t)
	g.setPath(t, "/tmp/\x1b[2J\x1b]0;title\x07\n"+line+"\r\x9b31m\u202egpj.'\"$(id)`\x7f\xff")
	g.procFile(t, task(g.lwp, "comm"), "\x1b[31mname\u202e\n")
	files := g.Files()
	for i := range files {
		files[i].Path += "\x1b[1A\n" + line
	}
	g.SetFiles(files)
	inc := g.both(t).Incident
	f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, g.lwp)
	if len(f.Remedies) == 0 {
		t.Error("no remedy")
	}
	for _, r := range f.Remedies {
		for _, c := range r.Commands {
			wantPlain(t, c)
			if strings.Contains(c, "/tmp/") {
				t.Errorf("%s: a command with a path that can't be shown: %q", r.ID, c)
			}
		}
	}
	text := textOf(t, inc)
	wantPlain(t, text)
	for l := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(l), line) {
			t.Errorf("a forged line: %q", l)
		}
	}
	b := jsonOf(t, inc)
	var back incident.Incident
	if err := json.Unmarshal(b, &back); err != nil {
		t.Errorf("JSON: %v", err)
	}
	for _, c := range b {
		if c < ' ' && c != '\n' || c == 0x7f {
			t.Fatalf("byte %#x in the JSON", c)
		}
	}
	if !utf8.Valid(b) {
		t.Error("the JSON isn't UTF-8")
	}
}

// shellWord returns what a shell makes of a word.
func shellWord(t *testing.T, word string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+word)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sh: %v: %s", err, word)
	}
	return string(out)
}

// A path with all that a shell takes for more than itself stays one word in
// the commands, in the script inside a command, too.
func TestCommandsQuote(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		`/tmp/it's a "test"; $(echo x) ` + "`echo y`" + ` $HOME \ * ! ~ #&|<>`,
		`/tmp/-rf`,
		`/tmp/ümläut 日本`,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			g := newGhost(t)
			g.setPath(t, path)
			f := wantOne(t, g.both(t).Incident, noWriter, incident.ConfidenceCertain, g.lwp)
			if f.Resource == nil || f.Resource.Path != path {
				t.Fatalf("resource %+v", f.Resource)
			}
			seen := 0
			for _, r := range f.Remedies {
				for _, c := range r.Commands {
					rest, ok := strings.CutPrefix(c, "[ -p ")
					if !ok {
						continue
					}
					seen++
					word, rest, ok := strings.Cut(rest, " ] && timeout 5 ")
					if got := shellWord(t, word); !ok || got != path {
						t.Errorf("%s: a shell reads %q as %q", r.ID, word, got)
					}
					if script, ok := strings.CutPrefix(rest, "sh -c "); ok {
						inner := shellWord(t, script)
						if target, ok := strings.CutPrefix(inner, ": > "); !ok || shellWord(t, target) != path {
							t.Errorf("%s: the inner shell gets %q", r.ID, inner)
						}
					}
				}
			}
			if seen < 2 {
				t.Errorf("%d commands test for the FIFO, want 2", seen)
			}
		})
	}
}
