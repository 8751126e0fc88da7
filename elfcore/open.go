package elfcore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"mycore/internal/elfimage"
	"mycore/internal/target"
	"mycore/internal/unpack"
)

// Errors that callers branch on.
var (
	// ErrNotCore: the file is something else; the message says what.
	ErrNotCore = errors.New("not a core file")
	// ErrUnsupported: a core of a system or machine that isn't read here.
	ErrUnsupported = errors.New("unsupported core")
)

// Options of Open; the zero value is useful.
type Options struct {
	// Progress is called while a compressed core is unpacked, with bytes.
	Progress func(stage string, done, total int64)
	// TempDir is where a compressed core is unpacked; "" for the system's.
	TempDir string
	// MaxUnpacked bounds the unpacked size in bytes; 0 for unpack's limit.
	MaxUnpacked int64
}

// input is where the bytes of the core come from.
type input struct {
	format string // compression, "" for none
	cut    error  // why unpacking ended early, nil if it didn't
	closer io.Closer
}

func (in *input) close() error {
	if in.closer == nil {
		return nil
	}
	return in.closer.Close()
}

// Open opens a core file, compressed or not. Anything that isn't a core is an
// error that says what it is; a core that is damaged or cut short gives a
// Process with what is there, and warnings.
func Open(path string, opts Options) (*Process, error) {
	return OpenContext(context.Background(), path, opts)
}

// OpenContext is Open; cancelling ctx ends the unpacking of a compressed core.
func OpenContext(ctx context.Context, path string, opts Options) (*Process, error) {
	f, in, err := openInput(ctx, path, opts)
	if err != nil {
		return nil, err
	}
	p, err := load(f, path, in)
	if err != nil {
		in.close()
		return nil, err
	}
	return p, nil
}

// New reads a core from r, size bytes long. name is used in messages.
func New(r io.ReaderAt, size int64, name string) (*Process, error) {
	f, err := elfimage.NewWith(r, size, name, elfimage.Options{CacheBytes: coreCacheBytes})
	if err != nil {
		return nil, notCore(name, "", err)
	}
	return load(f, name, input{})
}

func openInput(ctx context.Context, path string, opts Options) (*elfimage.File, input, error) {
	image := elfimage.Options{CacheBytes: coreCacheBytes}
	f, err := elfimage.OpenWith(path, image)
	if err == nil {
		return f, input{closer: f}, nil
	}
	if !errors.Is(err, elfimage.ErrNotELF) {
		return nil, input{}, notCore(path, "", err)
	}
	u, uerr := unpack.Open(ctx, path, unpack.Options{TempDir: opts.TempDir, MaxBytes: opts.MaxUnpacked, Progress: opts.Progress})
	if errors.Is(uerr, unpack.ErrNotCompressed) {
		return nil, input{}, notCore(path, "", err)
	}
	if uerr != nil {
		return nil, input{}, uerr
	}
	in := input{format: string(u.Format), closer: u}
	if u.Truncated {
		in.cut = u.Reason
		if in.cut == nil {
			in.cut = io.ErrUnexpectedEOF
		}
	}
	f, err = elfimage.NewWith(u, u.Size(), path, image)
	if err != nil {
		u.Close()
		return nil, input{}, notCore(path, in.format, err)
	}
	return f, in, nil
}

// notCore words the refusal of a file that isn't ELF. Other errors (no such
// file, a directory, big-endian) pass as they are.
func notCore(path, format string, err error) error {
	var what *elfimage.NotELFError
	if !errors.As(err, &what) {
		return err
	}
	if format != "" {
		return fmt.Errorf("%s: %w (%s data holding: %s)", path, ErrNotCore, format, what.What)
	}
	return fmt.Errorf("%s: %w (%s)", path, ErrNotCore, what.What)
}

// checkCore refuses an ELF file of another type.
func checkCore(f *elfimage.File, path string) error {
	if f.Type() == elfimage.TypeCore {
		return nil
	}
	what := kindOf(f)
	if id, ok := f.BuildID(); ok {
		what += ", build ID " + hex.EncodeToString(id)
	}
	if f.Type() == elfimage.TypeExec || f.Type() == elfimage.TypeDyn {
		return fmt.Errorf("%s: %w (%s). Pass the core; the binary goes to --exe.", path, ErrNotCore, what) //nolint:staticcheck // two sentences, by agreement with the command line
	}
	return fmt.Errorf("%s: %w (%s)", path, ErrNotCore, what)
}

// kindOf tells executables, libraries and separate debug files apart.
func kindOf(f *elfimage.File) string {
	if f.Type() != elfimage.TypeExec && f.Type() != elfimage.TypeDyn {
		return f.Type().String()
	}
	if s, ok := f.Section(".text"); ok && s.Type == elfimage.SHTNobits {
		return "ELF debug file"
	}
	if _, ok := f.Interp(); ok || f.Type() == elfimage.TypeExec {
		return "ELF executable"
	}
	const dt1PIE = 0x08000000 // DF_1_PIE in DT_FLAGS_1 (binutils include/elf/common.h)
	const dtFlags1 = 0x6ffffffb
	if v, ok := f.DynValue(dtFlags1); ok && v&dt1PIE != 0 {
		return "ELF executable"
	}
	return "ELF shared library"
}

// format is one kind of core. detect looks at the ELF header and the owner of
// the first note; decode fills the process from the notes.
type format struct {
	os     string
	detect func(f *elfimage.File, firstOwner string) bool
	decode func(c *core) error
}

// formats are tried in this order; the last takes what is left.
var formats = []format{
	{
		os: "freebsd",
		detect: func(f *elfimage.File, owner string) bool {
			return f.OSABI() == elfimage.OSABIFreeBSD || owner == "FreeBSD"
		},
		decode: decodeFreeBSD,
	},
	{
		os: "netbsd",
		detect: func(_ *elfimage.File, owner string) bool {
			return len(owner) >= 11 && owner[:11] == "NetBSD-CORE"
		},
		decode: func(c *core) error {
			return fmt.Errorf("%s: %w: written by NetBSD; this version reads cores of Linux and FreeBSD", c.path, ErrUnsupported)
		},
	},
	{
		os:     "linux",
		detect: func(*elfimage.File, string) bool { return true },
		decode: decodeLinux,
	},
}

// errStop ends a walk over notes early.
var errStop = errors.New("stop")

func firstOwner(f *elfimage.File) string {
	owner := ""
	// An error means that there is no readable note: no owner then.
	_ = f.Notes(func(n elfimage.Note) error {
		owner = n.Name
		return errStop
	})
	return owner
}

func load(f *elfimage.File, path string, in input) (*Process, error) {
	if err := checkCore(f, path); err != nil {
		return nil, err
	}
	c := &core{path: path, file: f, input: in, byLWP: map[int]*Thread{}, auxv: map[uint64]uint64{}}
	c.info.Arch = f.Arch()
	owner := firstOwner(f)
	for _, fm := range formats {
		if !fm.detect(f, owner) {
			continue
		}
		c.info.OS = fm.os
		if err := fm.decode(c); err != nil {
			return nil, err
		}
		break
	}
	c.buildMappings()
	c.checkTruncation()
	p := &Process{core: c}
	c.images = p.findImages()
	return p, nil
}

// warn adds a warning, with a bound on damage that repeats.
func (c *core) warn(code, text string, args ...any) {
	if c.warned == nil {
		c.warned = map[string]int{}
	}
	c.warned[code]++
	switch n := c.warned[code]; {
	case n > maxWarnings:
		return
	case n == maxWarnings:
		text, args = "more of the same is left out", nil
	}
	c.warnings = append(c.warnings, target.Warning{Code: code, Text: fmt.Sprintf(text, args...)})
}

// Codes of the warnings of this package; they are part of the result's
// contract.
const (
	WarnTruncated     = "core-truncated"         // bytes that the core promises are missing
	WarnHeadersCut    = "core-headers-cut"       // the program header table is incomplete
	WarnNotesCut      = "core-notes-cut"         // notes are missing or damaged: threads may be lost
	WarnNote          = "core-note-bad"          // one note can't be read
	WarnNoThreads     = "core-no-threads"        // no thread was found
	WarnSegment       = "core-segment-bad"       // a program header contradicts itself or others
	WarnDuplicateLWP  = "core-duplicate-lwp"     // two threads with one id
	WarnTooMany       = "core-limit"             // a limit was reached
	WarnArch          = "arch-limited"           // registers of this machine aren't read
	WarnNoFileNote    = "core-no-file-note"      // the list of mapped files (NT_FILE, FreeBSD's VMMAP) is missing or cut
	WarnKinfo         = "core-kinfo"             // the kernel's records of the threads (FreeBSD) are missing, damaged or of others
	WarnNoStackMemory = "core-no-stack-memory"   // the memory of the threads isn't in the core
	WarnStacksZero    = "stacks-zero"            // the stacks in the core are zeros
	WarnUnpackedCut   = "core-compression-ended" // the compressed stream ended early
)
