package servertest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseTools(t *testing.T) {
	gdb := "noise\nmycore-thread 12 0x7f01\nmycore-frame 0x10 0 poll\nmycore-frame 0x20 1 None\n" +
		"mycore-frame 0x30 0 operator new(unsigned long)\nmycore-stop outermost\nmycore-thread 13 0x0\nmycore-stop error: no registers\n"
	lldb := `(lldb) settings set thread-stop-format "thread ${thread.id%tid}\n"
(lldb) thread backtrace all
* thread 12
  * frame 0x0000000000000010 0x00000000000000a0 inner [inlined] f
    frame 0x0000000000000018 0x00000000000000a0 inner
    frame 0x0000000000000018 0x00000000000000b0 inner
  thread 13
    frame 0x0000000000000040 0x00000000000000b0
`
	eu := "PID 12 - core\nTID 12:\n#0  0x0000000000000010 poll\n#1  0x0000000000000020\n#2 0x30 operator new(unsigned long)\nTID 13:\n"
	tests := []struct {
		name  string
		parse func(string) (*Stacks, error)
		in    string
		want  []Stack
	}{
		{"gdb", parseGDB, gdb, []Stack{
			{LWP: 12, Handle: 0x7f01, Stop: "outermost", Frames: []Frame{
				{PC: 0x10, Function: "poll"}, {PC: 0x20, Signal: true}, {PC: 0x30, Function: "operator new(unsigned long)"}}},
			{LWP: 13, Stop: "error: no registers"}}},
		{"lldb", parseLLDB, lldb, []Stack{
			{LWP: 12, Frames: []Frame{{PC: 0x10, Function: "inner [inlined] f"}, {PC: 0x18, Function: "inner"}}},
			{LWP: 13, Frames: []Frame{{PC: 0x40}}}}},
		{"eu-stack", parseEUStack, eu, []Stack{
			{LWP: 12, Frames: []Frame{{PC: 0x10, Function: "poll"}, {PC: 0x20}, {PC: 0x30, Function: "operator new(unsigned long)"}}},
			{LWP: 13}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if got.Tool != tt.name {
				t.Errorf("tool %q, want %q", got.Tool, tt.name)
			}
			if d := cmp.Diff(tt.want, got.Threads); d != "" {
				t.Error(d)
			}
		})
	}
	if _, err := parseGDB("mycore-thread x 0x1\n"); err == nil {
		t.Error("a broken thread line of gdb was accepted")
	}
	if _, err := parseEUStack("TID 1:\n#0 zero\n"); err == nil {
		t.Error("a broken frame line of eu-stack was accepted")
	}
}

func TestHandleIn(t *testing.T) {
	status := "---TRANSACTION 1, ACTIVE\nMySQL thread id 15, OS thread handle 0x7fd2f318f6c0, query id 9 localhost root\n" +
		"MariaDB thread id 5, OS thread handle 140601234567890, query id 10 localhost\n"
	for connection, want := range map[uint64]string{15: "0x7fd2f318f6c0", 5: "140601234567890", 1: "", 155: ""} {
		if got := handleIn(status, connection); got != want {
			t.Errorf("handle of connection %d is %q, want %q", connection, got, want)
		}
	}
}

func TestLengthEncoded(t *testing.T) {
	tests := []struct {
		in   []byte
		want uint64
		rest int
		ok   bool
	}{
		{[]byte{250, 7}, 250, 1, true},
		{[]byte{0xfc, 1, 2, 9}, 0x201, 1, true},
		{[]byte{0xfd, 1, 2, 3}, 0x30201, 0, true},
		{[]byte{0xfe, 1, 2, 3, 4, 5, 6, 7, 8}, 0x0807060504030201, 0, true},
		{[]byte{0xfc, 1}, 0, 0, false},
		{[]byte{0xfb}, 0, 0, false},
		{nil, 0, 0, false},
	}
	for _, tt := range tests {
		n, rest, err := lengthEncoded(tt.in)
		if (err == nil) != tt.ok || n != tt.want || len(rest) != tt.rest {
			t.Errorf("lengthEncoded(% x) = %d, %d bytes left, %v", tt.in, n, len(rest), err)
		}
	}
	if _, _, err := lengthEncodedString([]byte{5, 'a'}); err == nil {
		t.Error("a column longer than its packet was accepted")
	}
}

// packet frames a payload as the server would.
func packet(seq byte, p ...byte) []byte {
	return append([]byte{byte(len(p)), byte(len(p) >> 8), 0, seq}, p...)
}

// script answers a connection's reads with fixed bytes and keeps what it wrote.
type script struct {
	net.Conn
	wrote bytes.Buffer
}

func (s *script) Write(p []byte) (int, error) { return s.wrote.Write(p) }

// SetDeadline does nothing: the answers are there.
func (s *script) SetDeadline(time.Time) error { return nil }

// Close does nothing.
func (s *script) Close() error { return nil }

func conn(s *script, packets ...[]byte) *Conn {
	return &Conn{nc: s, r: bufio.NewReader(bytes.NewReader(bytes.Join(packets, nil)))}
}

func greetingPacket(id byte, plugin string) []byte { return packet(0, greetingBytes(id, plugin)...) }

func greetingBytes(id byte, plugin string) []byte {
	p := append([]byte{10}, "10.11.1-test\x00"...)
	p = append(p, id, 0, 0, 0)
	p = append(p, "challeng\x00"...)
	p = append(p, 0xff, 0xff, 45, 2, 0, 0xff, 0xff, 21)
	p = append(p, make([]byte, 10)...)
	p = append(p, "e, the rest!\x00"...)
	return append(append(p, plugin...), 0)
}

func TestConnLogin(t *testing.T) {
	var s script
	c := conn(&s, greetingPacket(77, "caching_sha2_password"),
		packet(2, append([]byte{headEOF}, "mysql_native_password\x00challenge\x00"...)...),
		packet(4, headAuthMore, 3), packet(5, headOK, 0, 0, 2, 0, 0, 0))
	if err := c.login(); err != nil {
		t.Fatal(err)
	}
	if c.ID != 77 || c.Greeting != "10.11.1-test" {
		t.Errorf("id %d, version %q", c.ID, c.Greeting)
	}
	sent := s.wrote.Bytes()
	if sent[3] != 1 || !bytes.Contains(sent, []byte("root\x00\x00caching_sha2_password\x00")) {
		t.Errorf("login packet % x", sent)
	}
	if !bytes.HasSuffix(sent, []byte{0, 0, 0, 3}) {
		t.Errorf("the switch of plugins wasn't answered by an empty packet: % x", sent)
	}
	for _, cut := range []int{1, 20, 40} {
		c := conn(new(script), packet(0, greetingBytes(1, "x")[:cut]...))
		if err := c.login(); err == nil {
			t.Errorf("a greeting of %d bytes was accepted", cut)
		}
	}
	c = conn(new(script), packet(0, append([]byte{headErr, 0x10, 4}, "Too many connections"...)...))
	var e *SQLError
	if err := c.login(); !errors.As(err, &e) || e.Code != 1040 || e.Message != "Too many connections" {
		t.Errorf("refused login gives %v", err)
	}
}

func TestConnQuery(t *testing.T) {
	var s script
	eof := []byte{headEOF, 0, 0, 2, 0}
	c := conn(&s, packet(1, 2), packet(2, []byte("column a")...), packet(3, []byte("column b")...), packet(4, eof...),
		packet(5, 1, 'x', 0xfb), packet(6, 0, 2, 'y', 'z'), packet(7, eof...),
		packet(1, append([]byte{headErr, 0x25, 5, '#'}, "70100interrupted"...)...), packet(1, 0, 0, 0, 2, 0, 0, 0))
	rows, err := c.Query(context.Background(), "select a, b from t")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([][]string{{"x", Null}, {"", "yz"}}, rows); d != "" {
		t.Error(d)
	}
	if want := packet(0, append([]byte{comQuery}, "select a, b from t"...)...); !bytes.Equal(s.wrote.Bytes(), want) {
		t.Errorf("sent % x, want % x", s.wrote.Bytes(), want)
	}
	_, err = c.Query(context.Background(), "q")
	var e *SQLError
	if !errors.As(err, &e) || *e != (SQLError{Code: 1317, State: "70100", Message: "interrupted"}) {
		t.Errorf("error packet gives %v", err)
	}
	if rows, err := c.Query(context.Background(), "q"); err != nil || rows != nil {
		t.Errorf("statement without rows gives %v, %v", rows, err)
	}
	if _, err := c.Query(context.Background(), "q"); !errors.Is(err, io.EOF) {
		t.Errorf("closed connection gives %v", err)
	}
}

func TestParseThread(t *testing.T) {
	got, err := parseThread("thread 42 epoll 0x7f0c8015d6c0")
	if want := (ProgramThread{LWP: 42, Kind: "epoll", Handle: 0x7f0c8015d6c0}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "ready", "thread x epoll 0x1", "thread 1 epoll zero"} {
		if _, err := parseThread(bad); err == nil {
			t.Errorf("line %q was accepted", bad)
		}
	}
}

// Errors of installations name what is missing.
func TestFindMissing(t *testing.T) {
	t.Setenv("MYCORE_CACHE", t.TempDir())
	for _, k := range []Kind{MySQL56, MySQL97, MariaDB118, MariaDB105} {
		if _, err := find(k); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), string(k)) {
			t.Errorf("find(%s) gives %v", k, err)
		}
	}
	if _, err := find("oracle"); err == nil {
		t.Error("an unknown server was found")
	}
	in := &Install{Root: "/roots/x", Exe: "/roots/x/usr/sbin/mysqld"}
	if got := in.exeInRoot(); got != "/usr/sbin/mysqld" {
		t.Errorf("executable in the root is %q", got)
	}
	if got := in.inRoot("/tmp"); got != filepath.Join("/roots/x", "tmp") {
		t.Errorf("directory below the root is %q", got)
	}
}
