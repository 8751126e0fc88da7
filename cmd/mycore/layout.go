package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"mycore/internal/elfimage"
	"mycore/internal/structdef"
	"mycore/internal/untrusted"
)

func newLayout(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "layout",
		Short: "Extract and show where the server's structures have their fields",
		Long: `A layout says where the fields of the server's structures (THD, NET, MDL_lock,
trx_t and others) lie in one build. mycore reads it from the debugging
information (DWARF) of a binary that has it, and keeps it as a profile for
cores of the same build that comes without.`,
		Example: `  mycore layout extract ./mysqld > mysqld.layout.json
  mycore layout show mysqld.layout.json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{fmt.Errorf("extract or show? (see: %s --help)", cmd.CommandPath())}
		},
	}
	cmd.AddCommand(newLayoutExtract(stdout, stderr), newLayoutShow(stdout, stderr))
	return cmd
}

// layoutInputs are the flags that say how to read a binary.
type layoutInputs struct {
	source           structdef.SourceOptions
	product, version string
}

func (in *layoutInputs) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&in.source.DebugFile, "debug-file", "", "separate debug file of the binary")
	f.StringArrayVar(&in.source.DebugDirs, "debug-dir", nil, "directory with debug files, by build ID and debug link (default /usr/lib/debug)")
	f.StringVar(&in.product, "product", "", "mysql, percona or mariadb, instead of what the binary says")
	f.StringVar(&in.version, "server-version", "", "version to record, instead of what the binary says")
	_ = cmd.RegisterFlagCompletionFunc("product", cobra.FixedCompletions( // fails only for an unknown flag
		[]string{structdef.ProductMySQL, structdef.ProductPercona, structdef.ProductMariaDB}, cobra.ShellCompDirectiveNoFileComp))
}

// check refuses a product that no structures are known of.
func (in *layoutInputs) check() error {
	if in.product == "" {
		return nil
	}
	if _, err := structdef.Wanted(in.product); err != nil {
		return usageError{fmt.Errorf("--product %w", err)}
	}
	return nil
}

// read extracts the layout of a binary.
func (in *layoutInputs) read(path string) (*structdef.Layout, []structdef.Missing, error) {
	s, err := structdef.OpenSource(path, in.source)
	if err != nil {
		return nil, nil, err
	}
	l, missing, err := s.Layout(in.product, in.version)
	if errors.Is(err, structdef.ErrUnknownProduct) {
		err = fmt.Errorf("%w (if it is one: --product)", err)
	}
	return l, missing, errors.Join(err, s.Close())
}

func newLayoutExtract(stdout, stderr io.Writer) *cobra.Command {
	var in layoutInputs
	var verbose bool
	cmd := &cobra.Command{
		Use:   "extract BINARY",
		Short: "Write the layout of a server binary, read from its DWARF, as JSON",
		Long: `Extract reads the places of the fields that mycore uses from the DWARF of a
server binary, its separate debug file or the file that dwz shares between
debug files, and writes them as a profile. The profile is of that one build: it
carries its build ID or, where it has none, a hash of its code.

It exits with 1 when the binary has no DWARF or is no server.`,
		Example: `  mycore layout extract ./mysqld > mysqld.layout.json
  mycore layout extract /usr/sbin/mariadbd --debug-file mariadbd.debug`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := in.check(); err != nil {
				return err
			}
			l, missing, err := in.read(args[0])
			if err != nil {
				return err
			}
			if err := l.Write(stdout); err != nil {
				return fmt.Errorf("writing the layout: %w", err)
			}
			if verbose {
				return showMissing(stderr, missing)
			}
			return nil
		},
	}
	in.register(cmd)
	cmd.Flags().BoolVar(&verbose, "verbose", false, "name the fields that this build doesn't have, on stderr")
	return cmd
}

func newLayoutShow(stdout, stderr io.Writer) *cobra.Command {
	var in layoutInputs
	var profile string
	cmd := &cobra.Command{
		Use:   "show BINARY|PROFILE",
		Short: "List the fields of a layout with place, size, kind and source",
		Long: `Show lists every field of a layout: of a profile that extract wrote, or of a
binary with DWARF. Of a stripped server it lists the fields that the code of the
functions exported for plugins gives away, each with the function and how.

With --profile a profile is checked against the binary: each of its fields is
marked, and any that lies elsewhere makes mycore exit with 1.`,
		Example: `  mycore layout show ./mysqld
  mycore layout show ./mysqld --profile mysqld.layout.json`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := in.check(); err != nil {
				return err
			}
			binary, err := isELF(args[0])
			if err != nil {
				return err
			}
			if !binary {
				if profile != "" {
					return usageError{errors.New("--profile checks a profile against a BINARY")}
				}
				l, err := structdef.LoadFile(args[0])
				if err != nil {
					return err
				}
				return showLayout(stdout, l, false, nil)
			}
			return in.showBinary(stdout, stderr, args[0], profile)
		},
	}
	in.register(cmd)
	cmd.Flags().StringVar(&profile, "profile", "", "profile to check against the binary")
	return cmd
}

func (in *layoutInputs) showBinary(stdout, stderr io.Writer, path, profile string) error {
	var got *structdef.Layout
	if profile != "" {
		var err error
		if got, err = structdef.LoadFile(profile); err != nil {
			return err
		}
	}
	truth, missing, err := in.read(path)
	if errors.Is(err, structdef.ErrNoDWARF) && got == nil {
		return in.showAccessors(stdout, stderr, path, err)
	}
	if err != nil {
		return err
	}
	if got == nil {
		if err := showLayout(stdout, truth, false, nil); err != nil {
			return err
		}
		return showMissing(stderr, missing)
	}
	if !got.Binary.Same(&truth.Binary) {
		return fmt.Errorf("%s is a profile of another build than %s", profile, path)
	}
	diffs := structdef.Compare(got, truth)
	if err := showLayout(stdout, got, true, diffs); err != nil {
		return err
	}
	if len(diffs) > 0 {
		return fmt.Errorf("%s: %w: %s", profile, structdef.ErrDiffers, diffs[0])
	}
	return nil
}

// isELF tells a binary from a profile by its first bytes.
func isELF(path string) (bool, error) {
	f, _, err := elfimage.OpenRegular(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("reading %s: %w", path, err)
	}
	return string(magic[:]) == "\x7fELF", nil
}

// showLayout writes the table, with a mark per field where a profile was
// checked.
func showLayout(w io.Writer, l *structdef.Layout, check bool, diffs []structdef.Difference) error {
	wrong := map[[2]string]string{}
	for _, d := range diffs {
		wrong[[2]string{d.Struct, d.Field}] = d.String()
	}
	id := "build ID " + l.Binary.BuildID
	if h := l.Binary.Hash; h != nil {
		id = fmt.Sprintf("no build ID; %d bytes, SHA-256 of the first %d: %s", h.FileSize, h.Length, h.SHA256)
	}
	version := l.Binary.Version
	if version == "" {
		version = "of unknown version"
	}
	fmt.Fprintf(w, "%s\n%s\n", untrusted.Line(fmt.Sprintf("%s %s, %s/%s", l.Binary.Product, version, l.Binary.OS, l.Binary.Arch)), untrusted.Line(id))
	for i := range l.Structs {
		s := &l.Structs[i]
		size := "size unknown"
		if s.Size != 0 {
			size = fmt.Sprintf("%d bytes", s.Size)
		}
		fmt.Fprintf(w, "\n%s, %s\n", untrusted.Line(s.Name), size)
		if d, ok := wrong[[2]string{s.Name, ""}]; ok {
			fmt.Fprintf(w, "  %s\n", untrusted.Line(d))
		}
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, f := range s.Fields {
			d, bad := wrong[[2]string{s.Name, f.Name}]
			fmt.Fprintf(t, "  %#x\t%s\t%s\t%s\t%s%s\n", f.Offset, fieldSize(f), untrusted.Line(f.Name), f.Kind, f.Source, checked(check, bad, d))
		}
		if err := t.Flush(); err != nil {
			return fmt.Errorf("writing the layout: %w", err)
		}
	}
	return nil
}

func fieldSize(f structdef.Field) string {
	if f.BitSize != 0 {
		return fmt.Sprintf("%d bits at %d", f.BitSize, f.BitOffset)
	}
	return fmt.Sprint(f.Size)
}

func checked(any, bad bool, what string) string {
	switch {
	case bad:
		return "\t" + untrusted.Line(what)
	case any:
		return "\tagrees"
	}
	return ""
}

func showMissing(w io.Writer, missing []structdef.Missing) error {
	for _, m := range missing {
		name := m.Struct
		if m.Field != "" {
			name += "." + m.Field
		}
		if _, err := fmt.Fprintf(w, "not in this build: %s: %s\n", untrusted.Line(name), untrusted.Line(m.Err.Error())); err != nil {
			return err
		}
	}
	return nil
}
