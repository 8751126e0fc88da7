package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"mycore/internal/incident"
	"mycore/internal/report"
)

func newHandle(stdout, stderr io.Writer) *cobra.Command {
	var in inputs
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "handle CORE HANDLE...",
		Short: "Say which thread an OS thread handle is",
		Long: `Handle maps OS thread handles, as SHOW ENGINE INNODB STATUS and other server
texts print them (hex or decimal), to kernel threads: LWP, name, what it waits
in, and its stack. An LWP is accepted, too.

It exits with 1 when none of the handles is a thread of the core.`,
		Example: `  mycore handle mysqld.core 0x7fbbffa536c0
  mycore handle mysqld.core 140074409600704 140074409338560 --json`,
		Args: usageArgs(coreAndHandles),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := in.run(cmd.Context(), args[0], stderr)
			if err != nil {
				return err
			}
			defer res.Close()
			var answers []incident.HandleAnswer
			found := false
			for _, h := range args[1:] {
				a := res.Handle(h)
				found = found || a.Thread != nil
				answers = append(answers, a)
			}
			if asJSON {
				err = report.HandlesJSON(stdout, answers)
			} else {
				err = report.Handles(stdout, answers, report.TextOptions{Width: width(stdout), Color: colour(stdout)})
			}
			if err != nil {
				return fmt.Errorf("writing the report: %w", err)
			}
			if !found {
				return fmt.Errorf("none of the handles is a thread of %s", args[0])
			}
			return nil
		},
	}
	in.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "answers as JSON")
	return cmd
}
