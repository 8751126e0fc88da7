// Package demo holds a real incident, small enough to be part of the program:
// the core of a MariaDB server in which LOAD DATA INFILE waits for a writer of
// a FIFO that somebody removed, trimmed to the memory that the analysis reads,
// with the /proc text saved at that moment. incident/README.md says how it was
// made; gen makes it again.
package demo

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed incident
var files embed.FS

// Core and Proc are the names of the inputs inside the folder of Extract.
const (
	Core = "ghost-fifo.core.zst"
	Proc = "proc"
)

// Extract writes the incident's files into a new directory below dir ("" for
// the system's temporary directory) and returns it; the caller removes it.
func Extract(dir string) (string, error) {
	out, err := os.MkdirTemp(dir, "mycore-demo-")
	if err != nil {
		return "", fmt.Errorf("unpacking the demo: %w", err)
	}
	sub, err := fs.Sub(files, "incident")
	if err == nil {
		err = copyTree(sub, out)
	}
	if err != nil {
		os.RemoveAll(out)
		return "", fmt.Errorf("unpacking the demo: %w", err)
	}
	return out, nil
}

func copyTree(src fs.FS, dst string) error {
	return fs.WalkDir(src, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dst, filepath.FromSlash(path))
		if d.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		b, err := fs.ReadFile(src, path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o600)
	})
}
