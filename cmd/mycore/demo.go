package main

import (
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"mycore/docs"
	"mycore/internal/analyze"
	"mycore/internal/demo"
	"mycore/internal/incident"
)

func newDemo(stdout, stderr io.Writer) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Analyse an embedded real incident",
		Long: `Demo analyses a core that is part of the program: a MariaDB server in which
LOAD DATA INFILE waits for a writer of a FIFO that was removed. No server and
no binary are needed: the analysis is the same as that of any other core.`,
		Example: "  mycore demo",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			dir, err := demo.Extract("")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			res, err := analyze.Run(cmd.Context(), analyze.Options{
				Core: filepath.Join(dir, demo.Core), Proc: filepath.Join(dir, demo.Proc),
				CoreOnly: true, Offline: true,
				Tool: incident.Tool{Name: "mycore", Version: version()},
			})
			if err != nil {
				return err
			}
			defer res.Close()
			inc := res.Incident
			// The temporary directory says nothing to anybody.
			inc.Input.Path = demo.Core
			for i := range inc.Input.Others {
				inc.Input.Others[i].Path = demo.Proc
			}
			inc.CapturedAt = nil
			(&inputs{}).printWarnings(stderr, inc)
			return out.show(stdout, inc)
		},
	}
	out.register(cmd)
	return cmd
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
