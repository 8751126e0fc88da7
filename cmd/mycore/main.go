// Command mycore analyses core dumps of MySQL and MariaDB servers: which
// threads are stuck, on what, and what to do about it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"

	"mycore/internal/untrusted"
)

// Exit codes, as documented in the README.
const (
	exitOK      = 0  // analysed; what is missing is a warning
	exitFailed  = 1  // could not analyse
	exitUsage   = 2  // wrong usage
	exitFinding = 10 // --fail-on: a finding reached the severity
)

// usageError marks an error of the command line itself.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// findingError ends the program with exitFinding; it prints nothing of its own.
type findingError struct{}

func (findingError) Error() string { return "a finding reached the severity of --fail-on" }

func main() {
	delayCollection()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program: the tests' scripts call it in-process.
func run(args []string, stdout, stderr io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			// No data of the target here: only where in mycore it went wrong.
			fmt.Fprintf(stderr, "mycore: internal error in version %s: %v\n%s\nplease report this with the kind of core (writer, server version)\n",
				version(), r, debug.Stack())
			code = exitFailed
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	cmd := newRoot(stdout, stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var usage usageError
	var finding findingError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &finding):
		return exitFinding
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "mycore: %s\n", oneLine(err))
		return exitUsage
	}
	fmt.Fprintf(stderr, "mycore: %s\n", oneLine(err))
	return exitFailed
}

// oneLine makes an error safe for a terminal: it may quote a file name or
// bytes of the core.
func oneLine(err error) string {
	return untrusted.Line(strings.TrimSpace(err.Error()))
}

// version is the module's version as the build recorded it.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// buildVersion is set by the linker in released builds.
var buildVersion string
