package modules

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"mycore/elfcore"
	"mycore/internal/coretest"
	"mycore/internal/elfimage"
	"mycore/internal/target"
)

func TestMemoryFromTheFile(t *testing.T) {
	dir := t.TempDir()
	text := make([]byte, 0x2345)
	for i := range text {
		text[i] = byte(i*7 + i>>8)
	}
	bin := (&coretest.Image{BuildID: exeID, Text: text, GNUHash: true}).Bytes()
	p := put(t, dir, "server", bin)
	core := newCore(t, loaded{p, bin, exeBase, 0x1000})
	s := load(t, core, Options{})
	view := core.WithBacking(s.Backing())
	for _, at := range []int{0, 0xff0, 0x1000, coretest.TextOff, coretest.TextOff + 0x1001, coretest.TextOff + len(text) - 0x20} {
		var b [0x20]byte
		if n, err := view.ReadMemory(target.Addr(exeBase+at), b[:]); n != len(b) || err != nil || !bytes.Equal(b[:], bin[at:at+0x20]) {
			t.Errorf("at +%#x: %d bytes, %v: % x, want % x", at, n, err, b, bin[at:at+0x20])
		}
		if at < coretest.TextOff {
			continue
		}
		if n, err := s.ReadImage(target.Addr(exeBase+at), b[:]); n != len(b) || err != nil || !bytes.Equal(b[:], bin[at:at+0x20]) {
			t.Errorf("ReadImage at +%#x: %d bytes, %v", at, n, err)
		}
	}
	// Behind the text, and in data, only the core counts.
	if n, err := s.ReadImage(exeBase+0x5000, make([]byte, 8)); n != 0 || !errors.Is(err, target.ErrNotDumped) {
		t.Errorf("ReadImage of data: %d, %v", n, err)
	}
	if n, err := s.ReadImage(0x1000, make([]byte, 8)); n != 0 || !errors.Is(err, target.ErrFileMissing) {
		t.Errorf("ReadImage of nothing: %d, %v", n, err)
	}
}

func TestBackingOfOtherFiles(t *testing.T) {
	dir := t.TempDir()
	bin := image(exeID, "f", 0x100)
	p := put(t, dir, "server", bin)
	s := load(t, newCore(t, loaded{p, bin, exeBase, 0x1000}), Options{})
	b := s.Backing()
	buf := make([]byte, 8)
	for name, m := range map[string]elfcore.Mapping{
		"data file in the image's range": {Start: exeBase, Path: "/var/lib/mysql/ibdata1"},
		"no image there":                 {Start: 0x10000, Path: p},
	} {
		if n, err := b.ReadFile(&m, 0, buf); n != 0 || !errors.Is(err, target.ErrFileMissing) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	m := elfcore.Mapping{Start: exeBase, Path: p}
	if n, err := b.ReadFile(&m, uint64(len(bin))-3, buf); n != 3 || err != nil {
		t.Errorf("at the end of the file: %d, %v", n, err)
	}
	if n, err := b.ReadFile(&m, 1<<40, buf); n != 0 || err != nil {
		t.Errorf("behind the end of the file: %d, %v", n, err)
	}
	if n, err := b.ReadFile(&m, ^uint64(0), buf); n != 0 || !errors.Is(err, target.ErrFileMissing) {
		t.Errorf("offset -1: %d, %v", n, err)
	}
}

// TestRelocatedConstants makes the second segment a read-only one under
// PT_GNU_RELRO: the file's bytes there aren't those of the process.
func TestRelocatedConstants(t *testing.T) {
	dir := t.TempDir()
	bin := image(exeID, "f", 0x100)
	le := binary.LittleEndian
	var relro uint64
	for at := 64; at < 64+56*int(bin[56]); at += 56 {
		switch le.Uint32(bin[at:]) {
		case elfimage.PTDynamic:
			le.PutUint32(bin[at:], elfimage.PTGNURelro)
			relro = le.Uint64(bin[at+8:])
		case elfimage.PTLoad:
			le.PutUint32(bin[at+4:], le.Uint32(bin[at+4:])&^elfimage.PFW)
		}
	}
	if relro == 0 {
		t.Fatal("the image has no PT_DYNAMIC")
	}
	p := put(t, dir, "server", bin)
	s := load(t, newCore(t, loaded{p, bin, exeBase, 0x1000}), Options{})
	m := elfcore.Mapping{Start: exeBase, Path: p}
	if n, err := s.Backing().ReadFile(&m, relro+8, make([]byte, 8)); n != 0 || !errors.Is(err, target.ErrNotDumped) {
		t.Errorf("inside: %d, %v", n, err)
	}
	if n, err := s.Backing().ReadFile(&m, relro-4, make([]byte, 8)); n != 4 || err != nil {
		t.Errorf("up to it: %d, %v", n, err)
	}
	if n, err := s.ReadImage(target.Addr(exeBase+relro+8), make([]byte, 8)); n != 0 || !errors.Is(err, target.ErrNotDumped) {
		t.Errorf("ReadImage inside: %d, %v", n, err)
	}
}
