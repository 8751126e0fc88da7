package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"mycore/internal/coretest"
)

// commandLine matches a line of a code block, or of a help text's examples,
// that runs the program.
var commandLine = regexp.MustCompile(`(?m)^\s*(?:\$ )?(?:\./|bin/|\./bin/)?mycore( [^\n|>#]*)?`)

// Every command that the README and the help texts show must be one: known
// verb, known flags, the right number of arguments.
func TestExamplesAreCommands(t *testing.T) {
	t.Parallel()
	texts := map[string]string{}
	b, err := os.ReadFile(filepath.Join(coretest.Module(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(b), "\n```") {
		if i%2 == 1 { // inside of a fence
			texts["README.md"] += block + "\n"
		}
	}
	root := newRoot(io.Discard, io.Discard)
	for _, c := range append(root.Commands(), root) {
		if c.Name() != "completion" && c.Name() != "help" {
			texts[c.CommandPath()] = c.Example
		}
	}
	for name, text := range texts {
		lines := commandLine.FindAllStringSubmatch(text, -1)
		if len(lines) == 0 {
			t.Errorf("%s shows no command", name)
		}
		for _, l := range lines {
			if err := parses(strings.Fields(l[1])); err != nil {
				t.Errorf("%s: mycore%s: %v", name, l[1], err)
			}
		}
	}
}

// parses says what is wrong with arguments without running anything.
func parses(args []string) error {
	root := newRoot(io.Discard, io.Discard)
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.RunE = func(*cobra.Command, []string) error { return nil }
	cmd.Run = nil
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

func TestParsesCanFail(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"analyse", "x"}, {"analyze"}, {"analyze", "x", "--nonsense"}, {"handle", "x"}, {"demo", "x"}} {
		if parses(args) == nil {
			t.Errorf("%q passes for a command", args)
		}
	}
}
