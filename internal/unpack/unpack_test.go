package unpack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"mycore/internal/coretest"
)

// image is core-like data: pages of noise, a long hole, a page with a single
// byte at its end, a hole at the end, and a size that is no multiple of a page.
func image() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 40*pageSize+3<<20+17)
	for i := range 10 * pageSize {
		b[i] = byte(r.Uint32())
	}
	b[25*pageSize-1] = 0xfe
	for i := 3 << 20; i < 3<<20+5*pageSize; i++ {
		b[i] = byte(r.Uint32()) | 1
	}
	return b
}

func compress(t testing.TB, f Format, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	var err error
	switch f {
	case Gzip:
		w = gzip.NewWriter(&buf)
	case Zstd:
		w, err = zstd.NewWriter(&buf)
	case XZ:
		w, err = xz.NewWriter(&buf)
	case LZ4:
		w = lz4.NewWriter(&buf)
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func write(t testing.TB, data []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "core.packed")
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func content(t testing.TB, f *File) []byte {
	t.Helper()
	b := make([]byte, f.Size())
	if n, err := f.ReadAt(b, 0); n != len(b) || (err != nil && err != io.EOF) {
		t.Fatalf("reading %d bytes: %d, %v", len(b), n, err)
	}
	return b
}

var formats = []Format{Gzip, Zstd, XZ, LZ4}

func TestRoundTripIsSparseAndNameless(t *testing.T) {
	want := image()
	for _, format := range formats {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			packed := compress(t, format, want)
			var stages []string
			var done, total int64
			f, err := Open(context.Background(), write(t, packed), Options{TempDir: dir,
				Progress: func(s string, d, n int64) {
					if d < done {
						t.Errorf("progress went back from %d to %d", done, d)
					}
					stages, done, total = append(stages, s), d, n
				}})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Truncated || f.Format != format || f.Packed != int64(len(packed)) {
				t.Errorf("truncated %v (%v), format %s, packed %d; want whole, %s, %d", f.Truncated, f.Reason, f.Format, f.Packed, format, len(packed))
			}
			if !bytes.Equal(content(t, f), want) {
				t.Error("content differs")
			}
			if wantStored := int64(16 * pageSize); f.Stored != wantStored {
				t.Errorf("stored %d bytes, want the %d of pages that hold something", f.Stored, wantStored)
			}
			st, err := f.f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if got := st.Sys().(*syscall.Stat_t).Blocks * 512; got > f.Stored+64<<10 {
				t.Errorf("%d bytes on disk for %d stored: not sparse", got, f.Stored)
			}
			if names, _ := os.ReadDir(dir); len(names) != 0 {
				t.Errorf("a temporary file is visible while in use: %v", names)
			}
			if len(stages) == 0 || stages[0] != "unpack" || done != total || total != int64(len(packed)) {
				t.Errorf("progress ended at %d of %d, stages %v", done, total, stages)
			}
		})
	}
}

func TestCutInputGivesWhatWasThere(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 9<<20)
	for i := range noise { // noise in 4 bits: compressible, but not into nothing
		noise[i] = byte(r.Uint32()) & 0x0f
	}
	for _, format := range formats {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			want := noise
			if format == XZ {
				want = noise[:5<<20] // its compressor is slow
			}
			packed := compress(t, format, want)
			for _, keep := range []int{len(packed) - 1, len(packed) * 9 / 10, len(packed) / 2} {
				f, err := Open(context.Background(), write(t, packed[:keep]), Options{TempDir: t.TempDir()})
				if err != nil {
					t.Fatalf("first %d of %d bytes: %v", keep, len(packed), err)
				}
				got := content(t, f)
				if !f.Truncated || !errors.Is(f.Reason, io.ErrUnexpectedEOF) {
					t.Errorf("first %d of %d bytes: truncated %v, reason %v", keep, len(packed), f.Truncated, f.Reason)
				}
				if !bytes.HasPrefix(want, got) {
					t.Errorf("first %d of %d bytes: content isn't a prefix", keep, len(packed))
				}
				share := float64(keep) / float64(len(packed))
				// A decoder may hold back one block: 4 MiB of lz4, 2 MiB of xz.
				if least := int(share*float64(len(want))) - 4<<20 - chunkSize; len(got) < least {
					t.Errorf("first %d of %d bytes gave %d, want at least %d", keep, len(packed), len(got), least)
				}
				f.Close()
			}
		})
	}
}

func TestHeaderAloneIsAnError(t *testing.T) {
	for _, format := range formats {
		packed := compress(t, format, image())
		for _, n := range []int{8, 12} {
			dir := t.TempDir()
			f, err := Open(context.Background(), write(t, packed[:n]), Options{TempDir: dir})
			if err == nil {
				t.Errorf("%s: %d bytes gave %d", format, n, f.Size())
				f.Close()
			} else if !strings.Contains(err.Error(), "nothing could be unpacked") {
				t.Errorf("%s: %v", format, err)
			}
			if names, _ := os.ReadDir(dir); len(names) != 0 {
				t.Errorf("%s: left behind %v", format, names)
			}
		}
	}
}

func TestDamageIsPartial(t *testing.T) {
	want := image()
	for _, format := range []Format{Gzip, XZ, Zstd} { // each has a checksum at the end
		packed := bytes.Clone(compress(t, format, want))
		packed[len(packed)-30] ^= 0x40
		f, err := Open(context.Background(), write(t, packed), Options{TempDir: t.TempDir()})
		if err != nil {
			continue // nothing before the damage: fine for a tiny stream
		}
		if !f.Truncated || f.Reason == nil {
			t.Errorf("%s: damage at the end went unnoticed", format)
		}
		f.Close()
	}
}

func TestLimits(t *testing.T) {
	packed := write(t, compress(t, Zstd, image()))
	dir := t.TempDir()
	if _, err := Open(context.Background(), packed, Options{TempDir: dir, MaxBytes: int64(len(image())) - 1}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte over the limit: %v", err)
	}
	f, err := Open(context.Background(), packed, Options{TempDir: dir, MaxBytes: int64(len(image()))})
	if err != nil {
		t.Fatalf("exactly the limit: %v", err)
	}
	f.Close()
	if _, err := Open(context.Background(), packed, Options{TempDir: dir, Reserve: 1 << 61}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a reserve larger than the disk: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, packed, Options{TempDir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left behind %v", names)
	}
}

func TestSpaceGuardLooksAgain(t *testing.T) {
	free := int64(200 << 20)
	looks := 0
	g := &spaceGuard{reserve: 50 << 20, free: func() (int64, bool) { looks++; return free, true }}
	if err := g.take(1 << 20); err != nil {
		t.Fatal(err)
	}
	free = 50 << 20 // somebody else filled the disk
	written := int64(1 << 20)
	for {
		if err := g.take(1 << 20); err != nil {
			if !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			break
		}
		if written += 1 << 20; written > 150<<20 {
			t.Fatal("the guard never noticed")
		}
	}
	if written > spaceCheckEvery+2<<20 {
		t.Errorf("%d bytes written after one look", written)
	}
	if looks < 2 {
		t.Errorf("%d looks at the disk", looks)
	}
}

func TestNotCompressed(t *testing.T) {
	for name, data := range map[string][]byte{
		"elf": []byte("\x7fELF\x02\x01\x01\x00\x00\x00"), "empty": nil, "short": {0x1f}, "text": []byte("hello, world"),
		"skippable only": {0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0},
		"gzip inside":    append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, 0x1f, 0x8b, 8, 0, 0, 0, 0, 0),
	} {
		if _, err := Open(context.Background(), write(t, data), Options{}); !errors.Is(err, ErrNotCompressed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(context.Background(), filepath.Join(t.TempDir(), "none"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestOnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, fifo, os.DevNull} {
		done := make(chan error, 1)
		go func() { _, err := Open(context.Background(), p, Options{}); done <- err }()
		select {
		case err := <-done:
			if !errors.Is(err, ErrNotRegular) {
				t.Errorf("%s: %v", p, err)
			}
		case <-time.After(30 * time.Second): // a hang, not a slow machine
			t.Fatalf("%s: open hangs", p)
		}
	}
}

func TestFramesAndStreams(t *testing.T) {
	a, b := []byte(strings.Repeat("first ", 1000)), []byte(strings.Repeat("second ", 1000))
	for _, format := range formats {
		packed := append(bytes.Clone(compress(t, format, a)), compress(t, format, b)...)
		f, err := Open(context.Background(), write(t, packed), Options{TempDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if f.Truncated || !bytes.Equal(content(t, f), append(bytes.Clone(a), b...)) {
			t.Errorf("%s: two streams in one file: %d bytes, %v", format, f.Size(), f.Reason)
		}
		f.Close()
	}
	skip := []byte{0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}
	for _, format := range []Format{Zstd, LZ4} {
		f, err := Open(context.Background(), write(t, append(bytes.Clone(skip), compress(t, format, a)...)), Options{TempDir: t.TempDir()})
		if err != nil {
			t.Fatalf("%s after a skippable frame: %v", format, err)
		}
		if f.Format != format || f.Truncated || !bytes.Equal(content(t, f), a) {
			t.Errorf("%s after a skippable frame: %s, %d bytes, %v", format, f.Format, f.Size(), f.Reason)
		}
		f.Close()
	}
	padded := append(bytes.Clone(compress(t, XZ, a)), make([]byte, 8)...)
	out, err := DecodeXZ(append(padded, compress(t, XZ, b)...), 1<<20)
	if err != nil || !bytes.Equal(out, append(bytes.Clone(a), b...)) {
		t.Errorf("xz streams with padding: %d bytes, %v", len(out), err)
	}
}

func TestXZChecks(t *testing.T) {
	data := image()[:100000]
	for name, sum := range map[string]byte{"none": xz.None, "crc32": xz.CRC32, "crc64": xz.CRC64, "sha256": xz.SHA256} {
		var buf bytes.Buffer
		w, err := xz.WriterConfig{CheckSum: sum, NoCheckSum: sum == xz.None, BlockSize: 1 << 15, DictCap: 1 << 16}.NewWriter(&buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out, err := DecodeXZ(buf.Bytes(), len(data))
		if err != nil || !bytes.Equal(out, data) {
			t.Errorf("check %s, several blocks: %d bytes, %v", name, len(out), err)
		}
		if _, err := DecodeXZ(buf.Bytes(), len(data)-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("check %s: one byte over the limit: %v", name, err)
		}
		// Every byte of an xz file is under some check; only the last bytes of
		// a range coder's flush carry no data, so a flip there changes nothing.
		packed := buf.Bytes()
		for i := 0; i < len(packed); i += 1 + len(packed)/200 {
			bad := bytes.Clone(packed)
			bad[i] ^= 0x11
			if out, err := DecodeXZ(bad, len(data)); err == nil && sum != xz.None && !bytes.Equal(out, data) {
				t.Errorf("check %s: flip at %d of %d unnoticed, %d bytes", name, i, len(packed), len(out))
			} else if err != nil && out != nil {
				t.Errorf("check %s: error and result", name)
			}
		}
	}
}

// dictBomb is an xz stream of one block header that asks for a dictionary.
func dictBomb(prop byte) []byte {
	b := append(bytes.Clone(xzMagic), 0, 4)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[6:8]))
	h := []byte{2, 0, xzFilterLZMA, 1, prop, 0, 0, 0}
	return binary.LittleEndian.AppendUint32(append(b, h...), crc32.ChecksumIEEE(h))
}

func TestDictionaryIsBoundedBeforeItIsAllocated(t *testing.T) {
	for prop, size := range map[byte]string{40: "4294967295", 34: "536870912", 31: "201326592"} {
		packed := append(dictBomb(prop), 1, 0, 0, 'x', 0)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := DecodeXZ(packed, 1<<20)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "dictionary of "+size+" bytes") {
			t.Errorf("property %d: %v", prop, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
			t.Errorf("property %d: %d bytes allocated", prop, n)
		}
	}
}

// TestXZIndex alters an index and its checksum: what it says must be what was
// unpacked.
func TestXZIndex(t *testing.T) {
	packed := compress(t, XZ, []byte("some data"))
	size := (int(binary.LittleEndian.Uint32(packed[len(packed)-8:])) + 1) * 4 // 2.1.2.2
	index := len(packed) - xzHeaderSize - size
	if packed[index] != 0 || packed[index+1] != 1 {
		t.Fatalf("no index of one block: % x", packed[index:])
	}
	for at := 1; at <= 3; at++ { // count, unpadded size, size: each less than 128 here
		bad := bytes.Clone(packed)
		bad[index+at]++
		binary.LittleEndian.PutUint32(bad[index+size-4:], crc32.ChecksumIEEE(bad[index:index+size-4]))
		if _, err := DecodeXZ(bad, 1<<20); !errors.Is(err, errXZFormat) {
			t.Errorf("index byte %d altered: %v", at, err)
		}
	}
	if _, err := DecodeXZ(packed, 1<<20); err != nil {
		t.Fatal(err)
	}
}

func TestManyDictionariesAreRefused(t *testing.T) {
	x := newXZReader(bufio.NewReader(bytes.NewReader(nil)))
	var err error
	n := 0
	for ; n < 1000 && err == nil; n++ {
		x.dict += maxWindow - lzmaMin // as if allocated
		err = x.makeDecoder(&xzBlock{unpacked: 0}, 0)
	}
	if err == nil || n > xzDictFree/maxWindow+1 {
		t.Errorf("%d dictionaries of 128 MiB for no data: %v", n, err)
	}
}

const lzmaMin = 4096

func TestRealCores(t *testing.T) {
	dir := coretest.Cores(t)
	names, err := filepath.Glob(filepath.Join(dir, "linux", "elfutils", "*.xz"))
	if err != nil || len(names) == 0 {
		t.Skipf("no .xz cores under %s", dir)
	}
	for _, name := range names {
		f, err := Open(context.Background(), name, Options{TempDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		packed, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := xz.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(r) // the library's own container reader as reference
		if err != nil {
			t.Fatal(err)
		}
		if f.Truncated || !bytes.Equal(content(t, f), want) {
			t.Errorf("%s: %d bytes, want %d; %v", filepath.Base(name), f.Size(), len(want), f.Reason)
		}
		if !bytes.HasPrefix(want, []byte("\x7fELF")) {
			t.Errorf("%s isn't a core", name)
		}
		f.Close()
	}
}

func FuzzUnpack(f *testing.F) {
	small := []byte(strings.Repeat("core ", 50))
	for _, format := range formats {
		f.Add(compress(f, format, small))
	}
	f.Add(dictBomb(20))
	f.Add([]byte{0x02, 0x21, 0x4c, 0x18, 1, 0, 0, 0, 0})
	const limit = 1 << 20
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		format, ok := Detect(bytes.NewReader(data))
		if !ok {
			return
		}
		tmp, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(tmp.Name())
		file := &File{Format: format, Packed: int64(len(data)), f: tmp}
		defer file.Close()
		err = file.fill(context.Background(), bytes.NewReader(data), Options{MaxBytes: limit, Reserve: -1})
		if err != nil {
			return
		}
		if file.Truncated != (file.Reason != nil) {
			t.Errorf("truncated %v with reason %v", file.Truncated, file.Reason)
		}
		if file.Size() > limit || file.Stored > file.Size() {
			t.Errorf("size %d, stored %d, limit %d", file.Size(), file.Stored, limit)
		}
	})
}

func BenchmarkSparseZeros(b *testing.B) {
	tmp, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer tmp.Close()
	buf := make([]byte, chunkSize)
	w := &sparseWriter{f: tmp, space: newSpaceGuard(tmp, -1)}
	b.SetBytes(chunkSize)
	b.ReportAllocs()
	for b.Loop() {
		if err := w.write(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnpack(b *testing.B) {
	data := bytes.Repeat(image(), 4)
	for _, format := range formats {
		path := write(b, compress(b, format, data))
		b.Run(string(format), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				f, err := Open(context.Background(), path, Options{TempDir: b.TempDir()})
				if err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}
