package coretest

// Addresses in Sample.
const (
	SampleBase  = 0x555555554000 // the executable
	SampleData  = SampleBase + 0x3000
	SampleStack = 0x7ffff7a00000 // of thread i: + i*0x10000
	SampleHole  = 0x7fffe0000000 // mapped, not dumped
	SampleVDSO  = 0x7ffff7fc1000
)

// SampleImage is the executable of Sample.
func SampleImage() *Image {
	return &Image{
		Interp:  "/lib64/ld-linux-x86-64.so.2",
		BuildID: []byte("\x51\xaa\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12"),
		Text:    []byte("\x55\x48\x89\xe5\xc3"),
		GNUHash: true,
		Dynamic: []Symbol{{Name: "main", Value: TextOff, Size: 5}},
	}
}

// Sample is a core with the given number of threads, the executable above (of
// its text only the first page is dumped), one stack per thread, a mapping
// without bytes and a vDSO.
func Sample(threads int) *Core {
	img := SampleImage().Bytes()
	vdso := (&Image{Soname: "linux-vdso.so.1", BuildID: []byte("vdsovdsovdsovdsovdso"), NoSections: true}).Bytes()
	c := &Core{
		PID: 4000, PPID: 1, Command: "mysqld", Args: "/usr/sbin/mysqld --port=3306 ", Signo: 6, SigCode: -6, SigAddr: 4000,
		Files: []File{
			{SampleBase, SampleBase + 0x3000, 0, "/usr/sbin/mysqld"},
			{SampleData, SampleData + 0x1000, 0x3000, "/usr/sbin/mysqld"},
		},
		Auxv: [][2]uint64{{3, SampleBase + 64}, {4, 56}, {5, 6}, {6, 4096}, {9, SampleBase + TextOff}, {33, SampleVDSO}},
		Segments: []Segment{
			{Addr: SampleBase, Perm: "r-x", Data: img[:0x1000], Size: 0x3000},
			{Addr: SampleData, Perm: "rw-", Data: padded(img[0x3000:], 0x1000)},
			{Addr: SampleHole, Perm: "rw-", Size: 0x10000},
		},
	}
	for i := range threads {
		sp := uint64(SampleStack + i*0x10000 + 0x800)
		stack := make([]byte, 0x1000)
		for at := 0x800; at < 0x1000; at += 8 {
			le.PutUint64(stack[at:], SampleBase+TextOff+uint64(at))
		}
		c.Segments = append(c.Segments, Segment{Addr: uint64(SampleStack + i*0x10000), Perm: "rw-", Data: stack})
		c.Threads = append(c.Threads, Thread{
			LWP: 4000 + i, PC: SampleBase + TextOff + 2, SP: sp, TLS: sp + 0x700, Syscall: 202, Flags: 0x246, CurSig: 6,
			Blocked: 0x87007, Regs: map[int]uint64{0: 0xfffffffffffffe00, 3: uint64(0x1000 + i), 6: sp + 16},
		})
	}
	c.Segments = append(c.Segments, Segment{Addr: SampleVDSO, Perm: "r-x", Data: padded(vdso, int(roundUp(int64(len(vdso)))))})
	return c
}

// padded returns the first n bytes of b, with zeros behind it if it is shorter.
func padded(b []byte, n int) []byte {
	out := make([]byte, n)
	copy(out, b)
	return out
}
