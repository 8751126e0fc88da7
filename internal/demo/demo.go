// Package demo holds two incidents of one kind, small enough to be part of the
// program: LOAD DATA INFILE waits for a writer of a FIFO that somebody removed.
//
// incident is real: the core of a MariaDB server on Linux, trimmed to the
// memory that the analysis reads, with the /proc text saved at that moment.
// story is the FreeBSD incident that mycore grew from, written by a builder
// from its published description. The README in each folder says how it was
// made; gen makes both again.
package demo

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed incident story
var files embed.FS

// Core and Proc are the names of the inputs inside the folder of Extract.
const (
	Core = "ghost-fifo.core.zst"
	Proc = "proc"
)

// The names of the inputs inside the folder of ExtractStory.
const (
	StoryCore         = "mysqld.core.zst"
	StorySysroot      = "sysroot"
	StoryInnoDBStatus = "innodb-status.txt"
	StoryProcesslist  = "processlist.txt"
)

// Extract writes the Linux incident's files into a new directory below dir (""
// for the system's temporary directory) and returns it; the caller removes it.
func Extract(dir string) (string, error) { return extract("incident", dir) }

// ExtractStory is Extract for the FreeBSD incident.
func ExtractStory(dir string) (string, error) { return extract("story", dir) }

func extract(name, dir string) (string, error) {
	out, err := os.MkdirTemp(dir, "mycore-demo-")
	if err != nil {
		return "", fmt.Errorf("unpacking the demo: %w", err)
	}
	sub, err := fs.Sub(files, name)
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
