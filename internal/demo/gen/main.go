// Command gen makes the demo's incident out of a real core:
//
//	go run ./internal/demo/gen CORE PROC-TREE internal/demo/incident
//	go run ./internal/demo/gen story internal/demo/story
//
// The second form writes the story's incident with the tests' builder. The first
// is described here:
//
// It runs the analysis once over an image in which the bytes of all mapped
// files are part of the core, with no binary at hand, notes what is read, and
// writes a core of those pages alone.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"mycore/elfcore"
	"mycore/internal/analyze"
	"mycore/internal/coretest/story"
	"mycore/internal/demo"
	"mycore/internal/elfimage"
	"mycore/internal/modules"
	"mycore/internal/target"
)

const page = 4096

func main() {
	flag.Parse()
	if flag.NArg() == 2 && flag.Arg(0) == "story" {
		if err := writeStory(flag.Arg(1)); err != nil {
			fmt.Fprintln(os.Stderr, "gen:", err)
			os.Exit(1)
		}
		return
	}
	if flag.NArg() != 3 {
		fmt.Fprintln(os.Stderr, "usage: gen CORE PROC-TREE OUTPUT-DIR")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), flag.Arg(2)); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(core, proc, out string) error {
	tmp, err := os.MkdirTemp("", "mycore-gen-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	full := filepath.Join(tmp, "full.core")
	if err := fill(core, full); err != nil {
		return fmt.Errorf("filling in the files: %w", err)
	}
	read := newPages()
	res, err := analyze.Run(context.Background(), analyze.Options{
		Core: full, Proc: proc, CoreOnly: true, Offline: true, Workers: 1, Trace: read.add,
	})
	if err != nil {
		return fmt.Errorf("analysing the full image: %w", err)
	}
	if err := res.Close(); err != nil {
		return err
	}
	if err := trim(full, filepath.Join(out, demo.Core), read); err != nil {
		return fmt.Errorf("trimming: %w", err)
	}
	return copyProc(proc, filepath.Join(out, demo.Proc))
}

// fill writes a core that holds the bytes of the mapped files, too.
func fill(core, out string) error {
	p, err := elfcore.Open(core, elfcore.Options{})
	if err != nil {
		return err
	}
	defer p.Close()
	mods := modules.Load(p, modules.Options{})
	defer mods.Close()
	full := p.WithBacking(mods.Backing())
	return write(out, core, full, func(*elfcore.Mapping, target.Addr) bool { return true })
}

// trim writes a compressed core with the pages that were read.
func trim(core, out string, read *pages) error {
	p, err := elfcore.Open(core, elfcore.Options{})
	if err != nil {
		return err
	}
	defer p.Close()
	for _, img := range p.Images() {
		read.add(img.Base, page) // headers and build ID, which are read as the core is opened
		// A page of code shows that the image is in the core: one that no stack
		// leads through isn't missed then.
		for _, m := range p.Mappings() {
			if m.Executable() && m.Start >= img.Base && m.End <= img.End {
				read.add(m.End-page, page)
			}
		}
	}
	plain := out + ".plain"
	defer os.Remove(plain)
	if err := write(plain, core, p, func(_ *elfcore.Mapping, a target.Addr) bool { return read.has(a) }); err != nil {
		return err
	}
	return compress(plain, out)
}

// writeStory writes core, images and texts of the FreeBSD incident.
func writeStory(dir string) error {
	tmp, err := os.MkdirTemp("", "mycore-gen-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	core, sysroot, err := story.Build(story.Options{}).Write(tmp)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, demo.StorySysroot)); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dir, demo.StorySysroot), os.DirFS(sysroot)); err != nil {
		return err
	}
	for name, text := range map[string]string{
		demo.StoryInnoDBStatus: story.InnoDBStatus(), demo.StoryProcesslist: story.Processlist(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return compress(core, filepath.Join(dir, demo.StoryCore))
}

func compress(path, out string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = io.Copy(z, in)
	return errors.Join(err, z.Close(), f.Close())
}

// piece is a range of one mapping that is either all in the core or not.
type piece struct {
	start, end target.Addr
	perm       string
	dumped     bool
}

// pieces cuts the mappings where what is wanted and can be read changes.
func pieces(p *elfcore.Process, want func(*elfcore.Mapping, target.Addr) bool) []piece {
	var out []piece
	buf := make([]byte, page)
	for i := range p.Mappings() {
		m := &p.Mappings()[i]
		for a := m.Start; a < m.End; a += page {
			end := min(a+page, m.End)
			in := want(m, a)
			if in {
				_, err := p.ReadMemory(a, buf[:end-a])
				in = err == nil
			}
			if n := len(out) - 1; n >= 0 && a != m.Start && out[n].dumped == in {
				out[n].end = end
				continue
			}
			out = append(out, piece{start: a, end: end, perm: m.Perm, dumped: in})
		}
	}
	return out
}

// write makes an ELF core (gABI, chapters 4 and 5) with the notes of the
// original and the pieces of memory.
func write(path, original string, p *elfcore.Process, want func(*elfcore.Mapping, target.Addr) bool) error {
	src, err := elfimage.Open(original)
	if err != nil {
		return err
	}
	defer src.Close()
	i := slices.IndexFunc(src.Progs(), func(g elfimage.Prog) bool { return g.Type == elfimage.PTNote })
	if i < 0 {
		return errors.New("no notes in the core")
	}
	notes := make([]byte, src.Progs()[i].Filesz)
	if _, err := src.ReadAt(notes, int64(src.Progs()[i].Off)); err != nil {
		return err
	}
	list := pieces(p, want)
	if len(list)+1 >= 0xffff {
		return errors.New("more pieces than a simple ELF header counts")
	}
	const ehsize, phsize = 64, 56
	noteOff := uint64(ehsize + phsize*(len(list)+1))
	off := (noteOff + uint64(len(notes)) + page - 1) &^ (page - 1)

	var head []byte
	put16 := func(v uint16) { head = binary.LittleEndian.AppendUint16(head, v) }
	put32 := func(v uint32) { head = binary.LittleEndian.AppendUint32(head, v) }
	put64 := func(v uint64) { head = binary.LittleEndian.AppendUint64(head, v) }
	head = append(head, 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	put16(4) // ET_CORE
	put16(src.Machine())
	put32(1)
	put64(0)
	put64(ehsize)
	put64(0)
	put32(0)
	put16(ehsize)
	put16(phsize)
	put16(uint16(len(list) + 1))
	put16(0)
	put16(0)
	put16(0)
	phdr := func(typ, flags uint32, off, vaddr, filesz, memsz, align uint64) {
		put32(typ)
		put32(flags)
		put64(off)
		put64(vaddr)
		put64(0)
		put64(filesz)
		put64(memsz)
		put64(align)
	}
	phdr(elfimage.PTNote, 0, noteOff, 0, uint64(len(notes)), 0, 4)
	offs := make([]uint64, len(list))
	for i, s := range list {
		offs[i] = off
		size := uint64(s.end - s.start)
		filesz := uint64(0)
		if s.dumped {
			filesz = size
		}
		phdr(elfimage.PTLoad, flags(s.perm), off, uint64(s.start), filesz, size, page)
		off += filesz
	}

	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(append(head, notes...), 0); err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for i, s := range list {
		for a := s.start; s.dumped && a < s.end; {
			b := buf[:min(uint64(len(buf)), uint64(s.end-a))]
			if _, err := p.ReadMemory(a, b); err != nil {
				return err
			}
			if _, err := f.WriteAt(b, int64(offs[i]+uint64(a-s.start))); err != nil {
				return err
			}
			a += target.Addr(len(b))
		}
	}
	return f.Close()
}

func flags(perm string) uint32 {
	var f uint32
	for i, bit := range []uint32{4, 2, 1} {
		if i < len(perm) && perm[i] != '-' {
			f |= bit
		}
	}
	return f
}

// pages remembers which pages were read.
type pages struct {
	mu  sync.Mutex
	set map[target.Addr]bool
}

func newPages() *pages { return &pages{set: map[target.Addr]bool{}} }

func (p *pages) add(addr target.Addr, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := addr &^ (page - 1); a < addr+target.Addr(n); a += page {
		p.set[a] = true
	}
}

func (p *pages) has(a target.Addr) bool { return p.set[a] }

// copyProc copies the text files of the saved tree that say something about
// threads.
func copyProc(from, to string) error {
	names := []string{"status", "stat", "cmdline"}
	tasks, err := filepath.Glob(filepath.Join(from, "task", "*"))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		for _, n := range []string{"comm", "wchan", "syscall", "status", "stack", "stat"} {
			names = append(names, filepath.Join("task", filepath.Base(t), n))
		}
	}
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(from, n))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		dst := filepath.Join(to, n)
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(dst, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
