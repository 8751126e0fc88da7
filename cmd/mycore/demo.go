package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mycore/docs"
	"mycore/internal/analyze"
	"mycore/internal/demo"
	"mycore/internal/incident"
)

func newDemo(stdout, stderr io.Writer) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "demo [linux|freebsd]",
		Short: "Analyse an embedded incident",
		Long: `Demo analyses a core that is part of the program: LOAD DATA INFILE waits for a
writer of a FIFO that was removed. linux, the default, is a real core of a
MariaDB server; freebsd is the incident that mycore grew from, rebuilt from its
published description. No server is needed: the analysis is the same as that of
any other core.`,
		Example:   "  mycore demo\n  mycore demo freebsd",
		ValidArgs: []string{"linux", "freebsd"},
		Args:      usageArgs(cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			extract, options := demo.Extract, demoLinux
			if len(args) == 1 && args[0] == "freebsd" {
				extract, options = demo.ExtractStory, demoFreeBSD
			}
			dir, err := extract("")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			opts := options(dir)
			opts.Offline = true
			opts.Tool = incident.Tool{Name: "mycore", Version: version()}
			res, err := analyze.Run(cmd.Context(), opts)
			if err != nil {
				return err
			}
			defer res.Close()
			forget(res.Incident, dir)
			(&inputs{}).printWarnings(stderr, res.Incident)
			return out.show(stdout, res.Incident)
		},
	}
	out.register(cmd)
	return cmd
}

func demoLinux(dir string) analyze.Options {
	return analyze.Options{Core: filepath.Join(dir, demo.Core), Proc: filepath.Join(dir, demo.Proc), CoreOnly: true}
}

func demoFreeBSD(dir string) analyze.Options {
	return analyze.Options{
		Core: filepath.Join(dir, demo.StoryCore), Sysroot: filepath.Join(dir, demo.StorySysroot), NoSystemDirs: true,
		InnoDBStatus: filepath.Join(dir, demo.StoryInnoDBStatus), Processlist: filepath.Join(dir, demo.StoryProcesslist),
	}
}

// forget takes the temporary directory out of the result: it says nothing to
// anybody, and the same demo is to give the same bytes.
func forget(inc *incident.Incident, dir string) {
	strip := func(s *string) { *s = strings.ReplaceAll(*s, dir+string(filepath.Separator), "") }
	strip(&inc.Input.Path)
	for i := range inc.Input.Others {
		strip(&inc.Input.Others[i].Path)
	}
	for i := range inc.Modules {
		strip(&inc.Modules[i].FoundAt)
		for j := range inc.Modules[i].LookedIn {
			strip(&inc.Modules[i].LookedIn[j])
		}
	}
	for i := range inc.Warnings {
		strip(&inc.Warnings[i].Text)
	}
	inc.CapturedAt = nil
}

func newSchema(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of the incident",
		Example: "  mycore schema > incident.schema.json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(stdout, docs.IncidentSchema())
			return err
		},
	}
}
