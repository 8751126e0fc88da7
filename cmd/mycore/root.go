package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// newRoot builds the command tree. Commands write results to stdout, and
// warnings, progress and errors to stderr.
func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "mycore",
		Short: "Finds out why a MySQL or MariaDB server hangs or died, from its core dump",
		Long: `mycore reads a core dump of mysqld or mariadbd and says which threads are
stuck, on what, and what to do about it. It needs no debug information and
works on another machine than the one that crashed.

Exit codes: 0 analysed (what is missing is a warning), 1 could not analyse,
2 wrong usage, 10 with --fail-on when a finding reaches the severity.`,
		Example: `  mycore analyze mysqld.core
  mycore analyze mysqld.core --exe ./mysqld --json > incident.json
  mycore handle mysqld.core 0x7f2331a2c6c0
  mycore demo`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see: %s --help)", err, cmd.CommandPath())}
	})
	// A Version gives the flag --version; it prints what the command prints.
	root.Version = version()
	root.SetVersionTemplate(versionText())
	root.AddCommand(newAnalyze(stdout, stderr), newHandle(stdout, stderr), newDemo(stdout, stderr), newLayout(stdout, stderr), newSchema(stdout), newVersion(stdout))
	strictCompletion(root)
	return root
}

// strictCompletion makes cobra's completion command refuse what it doesn't
// know: by itself it prints its help and succeeds.
func strictCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args = usageArgs(cobra.NoArgs)
			c.RunE = func(cmd *cobra.Command, _ []string) error {
				return usageError{fmt.Errorf("which shell? (see: %s --help)", cmd.CommandPath())}
			}
			for _, shell := range c.Commands() {
				shell.Args = usageArgs(cobra.NoArgs)
			}
		}
	}
}

func versionText() string {
	return fmt.Sprintf("mycore %s (%s %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// usageArgs turns an argument check's error into a usage error that names the
// command's help.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w (see: %s --help)", err, cmd.CommandPath())}
		}
		return nil
	}
}

// oneCore checks that a command got its core and nothing else.
func oneCore(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return errors.New("which core? Give its file")
	case len(args) > 1:
		return fmt.Errorf("one core at a time: %d files are given", len(args))
	}
	return nil
}

// coreAndHandles checks for a core and at least one handle.
func coreAndHandles(_ *cobra.Command, args []string) error {
	if len(args) < 2 {
		return errors.New("give a core and the handles to look up in it")
	}
	return nil
}

func newVersion(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version and what it was built with",
		Example: "  mycore version",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(stdout, versionText())
			return err
		},
	}
}
