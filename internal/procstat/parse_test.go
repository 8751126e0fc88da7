package procstat

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mycore/internal/kernelview"
)

func TestParseSyscall(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"running\n", "running"},
		{"-1 0x7ffc 0x7f00\n", "-1 [0 0 0 0 0 0] 0x7ffc 0x7f00"},
		{"0 0x3 0x7f8503493000 0x20000 0x1 0xffffffff 0x0 0x7ffe88ed7e28 0x7f850360f2ad\n",
			"0 [3 7f8503493000 20000 1 ffffffff 0] 0x7ffe88ed7e28 0x7f850360f2ad"},
		{"257 0xffffffffffffff9c 0x1 0x2 0x3 0x4 0x5 0x6 0x7", "257 [ffffffffffffff9c 1 2 3 4 5] 0x6 0x7"},
		{"", ""}, {"\n", ""}, {"-2 0x1 0x2", ""}, {"5 0x1 0x2", ""}, {"-1 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8", ""},
		{"1 2 0x3 0x4 0x5 0x6 0x7 0x8 0x9", ""}, {"1 0x10000000000000000 0x3 0x4 0x5 0x6 0x7 0x8 0x9", ""},
		{"99999999999 0x1 0x1 0x1 0x1 0x1 0x1 0x1 0x1", ""}, {"running away", ""}, {"cat: permission denied", ""},
	} {
		s, err := parseSyscall([]byte(c.in))
		got := ""
		switch {
		case err != nil:
		case s.call.Running:
			got = "running"
		default:
			got = fmt.Sprintf("%d %x %v %v", s.call.Number, s.call.Args, s.sp, s.pc)
		}
		if got != c.want {
			t.Errorf("%q: got %q (%v), want %q", c.in, got, err, c.want)
		}
	}
}

func TestParseStack(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "[]"},
		{"[<0>] fifo_open+0x1a1/0x300\n[<0>] do_open.isra.0+0x1/0x2\n", "[fifo_open do_open.isra.0]"},
		{"[<ffffffff81234567>] pipe_wait+0x70/0xb0\n[<ffffffffffffffff>] 0xffffffffffffffff\n", "[pipe_wait]"},
		{"[<0>] nfs_wait+0x1/0x2 [nfs]\n", "[nfs_wait]"},
		{"[<0>] \n", "error"}, {"fifo_open\n", "error"}, {"[<0 fifo\n", "error"}, {"[<0>] \x1b[31m+0x1\n", "error"},
		{strings.Repeat("[<0>] f+0x1/0x2\n", maxFrames+1), "error"},
	} {
		got, err := parseStack([]byte(c.in))
		text := fmt.Sprint(got)
		if err != nil {
			text = "error"
		}
		if text != c.want {
			t.Errorf("%.60q: got %s (%v), want %s", c.in, text, err, c.want)
		}
	}
}

func TestParseWchan(t *testing.T) {
	for _, c := range []struct {
		in, want string
		bad      bool
	}{
		{"0", "", false}, {"", "", false}, {"futex_do_wait", "futex_do_wait", false}, {"do_poll.constprop.0\n", "do_poll.constprop.0", false},
		{"\x1b]0;x\a", "", true}, {"two words", "", true}, {strings.Repeat("a", maxFuncName+1), "", true},
	} {
		got, err := parseWchan([]byte(c.in))
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%.40q: got %q, %v", c.in, got, err)
		}
	}
}

func TestParseStatus(t *testing.T) {
	st, err := parseStatus([]byte("Name:\ta\\nb\\\\c\nState:\tZ (zombie)\nPid:\t-3\nTgid:\t99999999\nSigBlk:\tffffffffffffffff\nSigCgt:\t12345678901234567\n" +
		"NSpid:\t5\t0\nNStgid:\t7\t1\nPPid:\t0\nno colon\n"))
	if err != nil {
		t.Fatal(err)
	}
	if st.name.V != "a\nb\\c" || st.state.V != "Z" || st.sigblk.V != ^uint64(0) || !st.ppid.Known || !slices.Equal(st.nstgid, []int{7, 1}) {
		t.Errorf("got %+v", st)
	}
	// Values out of range are unknown, never zero or cut.
	if st.pid.Known || st.tgid.Known || st.sigcgt.Known || st.nspid != nil {
		t.Errorf("bad values were taken: %+v", st)
	}
	if _, err := parseStatus([]byte("hello: world\n")); err == nil {
		t.Error("text without a known line was accepted")
	}
}

func TestParseFDListing(t *testing.T) {
	files, bad := parseFDListing([]byte("/proc/12/fd:\ntotal 0\r\nlrwx------. 1 root root 64 Nov 21  2026 12 -> /tmp/a -> b\n" +
		"3 -> 'quoted name'\nl? 3 -> /dup\nnonsense\n007 -> /x\n-1 -> /x\n9999999999 -> /x\n4 -> \n"))
	if len(files) != 2 || files[1].FD != 12 || files[1].Path != "/tmp/a -> b" || files[0].Path != "quoted name" || files[0].Kind != kernelview.KindOther {
		t.Errorf("files %+v", files)
	}
	if bad != 6 {
		t.Errorf("%d bad lines, want 6", bad)
	}
}

func TestParseMaps(t *testing.T) {
	in := "00400000-00401000 r--p 00000000 08:01 7 /bin/x (deleted)\n" +
		"00400800-00402000 r--p 00000000 08:01 7 /overlaps\n" +
		"00500000-00500000 r--p 00000000 08:01 7 /empty\n" +
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n" +
		"0x1-0x2 rw-p 0 0 0\n00600000 rw-p 0 0 0\n"
	got, bad := parseMaps([]byte(in))
	if len(got) != 2 || bad != 4 || got[0].Path != "/bin/x (deleted)" || got[1].Path != "[vsyscall]" || got[1].Start != 0xffffffffff600000 {
		t.Errorf("got %+v, %d bad", got, bad)
	}
}

func TestScanSocketsSkipsGarbage(t *testing.T) {
	var f kernelview.File
	want := map[uint64][]*kernelview.File{5003: {&f}}
	in := "0: zz:1 0:0 0A a b c d e 5003\n 0: 0100007F:0CEA 00000000 0A a b c d e 5003\n: \n" + tcpTable
	if err := scanSockets(strings.NewReader(in), "tcp", want); err != nil || f.Local != "127.0.0.1:3306" {
		t.Errorf("%v, %+v", err, f)
	}
	if err := scanSockets(strings.NewReader(strings.Repeat("x", maxNetLine+1)), "tcp", want); err == nil {
		t.Error("an endless line was accepted")
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte(statusText("mysqld", 1, 2, "S (sleeping)", "NSpid:\t1\t2\n")))
	f.Add([]byte("41 (a) R (b) S 1 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseStatus(b)
		if (st == nil) == (err == nil) {
			t.Fatalf("result %v with error %v", st, err)
		}
		if st != nil {
			for _, id := range append(slices.Clone(st.nspid), st.nstgid...) {
				if id < 1 || id > maxPID {
					t.Fatalf("id %d", id)
				}
			}
			if st.pid.Known && (st.pid.V < 1 || st.pid.V > maxPID) || len(st.state.V) > 1 {
				t.Fatalf("%+v", st)
			}
		}
		if s, err := parseStat(b); err == nil && (s.pid < 1 || s.pid > maxPID) {
			t.Fatalf("pid %d", s.pid)
		}
		if m, _ := parseMaps(b); !slices.IsSortedFunc(m, func(a, b kernelview.Mapping) int {
			if a.End <= b.Start {
				return -1
			}
			return 1
		}) {
			t.Fatalf("mappings overlap: %v", m)
		}
	})
}

func FuzzSyscall(f *testing.F) {
	f.Add([]byte("running\n"))
	f.Add([]byte("-1 0x7ffc 0x7f00\n"))
	f.Add([]byte("257 0xffffff9c 0x1 0x2 0x3 0x4 0x5 0x6 0x7\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSyscall(b)
		if err != nil {
			return
		}
		if s.call.Running == s.haveCtx || s.call.Number < kernelview.NoSyscall {
			t.Fatalf("%+v", s)
		}
		// What was read prints as what was read.
		if s.call.Number >= 0 && s.haveCtx {
			a := s.call.Args
			text := fmt.Sprintf("%d %#x %#x %#x %#x %#x %#x %#x %#x\n", s.call.Number, a[0], a[1], a[2], a[3], a[4], a[5], uint64(s.sp), uint64(s.pc))
			if again, err := parseSyscall([]byte(text)); err != nil || again != s {
				t.Fatalf("%q gives %+v, printed %q gives %+v", b, s, text, again)
			}
		}
	})
}

func FuzzStack(f *testing.F) {
	f.Add([]byte("[<0>] fifo_open+0x1a1/0x300\n[<0>] 0xffffffffffffffff\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, err := parseStack(b)
		if err != nil && frames != nil || len(frames) > maxFrames {
			t.Fatalf("%d frames, %v", len(frames), err)
		}
		for _, name := range frames {
			if !isFuncName(name) {
				t.Fatalf("name %q", name)
			}
		}
	})
}

func FuzzFDListing(f *testing.F) {
	f.Add([]byte("total 0\nlr-x------ 1 root root 64 Nov 21 05:24 10 -> socket:[29999]\n"), "0100007F:0CEA")
	f.Fuzz(func(t *testing.T, b []byte, net string) {
		files, _ := parseFDListing(b)
		for i, file := range files {
			if i > 0 && file.FD <= files[i-1].FD || file.FD < 0 || file.FD >= maxFD || file.Path == "" && !file.Deleted {
				t.Fatalf("files %+v", files)
			}
		}
		if len(files) > 0 {
			want := map[uint64][]*kernelview.File{5003: {&files[0]}}
			_ = scanSockets(strings.NewReader(net), "tcp6", want)
			_ = scanSockets(strings.NewReader(net), "unix", want)
			parseFDInfo(b, &files[0])
		}
	})
}
