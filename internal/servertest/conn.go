package servertest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// The client side of the MySQL protocol, as far as tests need it: log in as
// root without a password, send a statement, read a text result. It is its own
// so that a connection tells the id that the server gave it and costs neither
// a process nor a thread.
//
// Numbers: the client/server protocol chapter of the MySQL source (capability
// flags in include/mysql_com.h, 8.0).
const (
	capLongPassword     = 1 << 0
	capLongFlag         = 1 << 2
	capProtocol41       = 1 << 9
	capTransactions     = 1 << 13
	capSecureConnection = 1 << 15
	capPluginAuth       = 1 << 19

	charsetUTF8MB4 = 45 // utf8mb4_general_ci, known to every server since 5.5.3

	comQuit  = 0x01
	comQuery = 0x03

	headOK       = 0x00
	headAuthMore = 0x01
	headLocal    = 0xfb // as a result: LOCAL INFILE; in a row: NULL
	headEOF      = 0xfe // while logging in: switch to another plugin
	headErr      = 0xff

	// maxPacket is the longest packet that isn't split; tests ask for less.
	maxPacket = 1<<24 - 1
)

// SQLError is an error that the server answered with.
type SQLError struct {
	Code    uint16
	State   string
	Message string
}

// Error gives the error as MySQL's clients print it.
func (e *SQLError) Error() string {
	return fmt.Sprintf("server error %d (%s): %s", e.Code, e.State, e.Message)
}

// Null is what a NULL column reads as, as in the clients' batch mode.
const Null = "NULL"

// Conn is one connection to a server as root. Its methods must not be called
// concurrently, but Send in one goroutine and Result in another, in turn.
type Conn struct {
	// ID is the connection id that the server gave.
	ID uint64
	// LWP is the thread that serves the connection, where known at connecting
	// (Server.Connect); else 0.
	LWP int
	// Greeting is the version that the server greeted with.
	Greeting string

	nc  net.Conn
	r   *bufio.Reader
	seq byte
}

// dial connects and logs in.
func dial(ctx context.Context, network, addr string) (*Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{nc: nc, r: bufio.NewReader(nc)}
	c.deadline(ctx)
	if err := c.login(); err != nil {
		nc.Close()
		return nil, fmt.Errorf("logging in at %s: %w", addr, err)
	}
	return c, nil
}

// deadline applies the context's deadline to the next exchange.
func (c *Conn) deadline(ctx context.Context) {
	d, _ := ctx.Deadline() // the zero time means none
	_ = c.nc.SetDeadline(d)
}

func (c *Conn) readPacket() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return nil, err
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if n == maxPacket {
		return nil, errors.New("a packet of 16 MB or more is not for tests")
	}
	c.seq = head[3] + 1
	p := make([]byte, n)
	if _, err := io.ReadFull(c.r, p); err != nil {
		return nil, err
	}
	if n > 0 && p[0] == headErr {
		return nil, parseError(p)
	}
	if n == 0 {
		return nil, errors.New("empty packet")
	}
	return p, nil
}

func (c *Conn) writePacket(p []byte) error {
	if len(p) >= maxPacket {
		return errors.New("a statement of 16 MB or more is not for tests")
	}
	b := append([]byte{byte(len(p)), byte(len(p) >> 8), byte(len(p) >> 16), c.seq}, p...)
	c.seq++
	_, err := c.nc.Write(b)
	return err
}

// parseError reads an error packet; before the login it has no state.
func parseError(p []byte) error {
	if len(p) < 3 {
		return errors.New("cut error packet")
	}
	e := &SQLError{Code: binary.LittleEndian.Uint16(p[1:])}
	msg := p[3:]
	if len(msg) >= 6 && msg[0] == '#' {
		e.State, msg = string(msg[1:6]), msg[6:]
	}
	e.Message = string(msg)
	return e
}

// login reads the greeting and answers with an empty password, which every
// plugin sends as an empty answer.
func (c *Conn) login() error {
	p, err := c.readPacket()
	if err != nil {
		return err
	}
	plugin, err := c.greeting(p)
	if err != nil {
		return err
	}
	const caps = capLongPassword | capLongFlag | capProtocol41 | capTransactions | capSecureConnection | capPluginAuth
	b := binary.LittleEndian.AppendUint32(nil, caps)
	b = binary.LittleEndian.AppendUint32(b, maxPacket)
	b = append(b, charsetUTF8MB4)
	b = append(b, make([]byte, 23)...)
	b = append(b, "root\x00"...)
	b = append(b, 0) // length of the answer
	b = append(b, plugin...)
	b = append(b, 0)
	if err := c.writePacket(b); err != nil {
		return err
	}
	for range 8 { // no plugin takes more turns
		p, err := c.readPacket()
		if err != nil {
			return err
		}
		switch p[0] {
		case headOK:
			return nil
		case headEOF:
			if err := c.writePacket(nil); err != nil {
				return err
			}
		case headAuthMore: // caching_sha2_password says how it goes on
		default:
			return fmt.Errorf("unexpected answer %#x to the login", p[0])
		}
	}
	return errors.New("the login doesn't end")
}

// greeting reads the server's first packet and gives its plugin's name.
func (c *Conn) greeting(p []byte) (plugin string, err error) {
	if p[0] != 10 {
		return "", fmt.Errorf("protocol %d, want 10", p[0])
	}
	end := slices.Index(p, 0)
	// Behind the version: id, 8 bytes of the challenge, 0, capabilities (2),
	// charset, status (2), capabilities (2), challenge length, 10 unused.
	if end < 0 || len(p) < end+1+4+8+1+2+1+2+2+1+10 {
		return "", errors.New("cut greeting")
	}
	c.Greeting = string(p[1:end])
	p = p[end+1:]
	c.ID = uint64(binary.LittleEndian.Uint32(p))
	challenge := max(13, int(p[20])-8)
	p = p[31:]
	if len(p) < challenge {
		return "", errors.New("cut greeting")
	}
	name, _, _ := strings.Cut(string(p[challenge:]), "\x00")
	return name, nil
}

// Send sends a statement and doesn't wait for its result.
func (c *Conn) Send(ctx context.Context, statement string) error {
	c.deadline(ctx)
	c.seq = 0
	return c.writePacket(append([]byte{comQuery}, statement...))
}

// Result reads the result of the statement that was sent: the rows as text,
// none for a statement that has no result set.
func (c *Conn) Result(ctx context.Context) ([][]string, error) {
	c.deadline(ctx)
	p, err := c.readPacket()
	if err != nil {
		return nil, err
	}
	switch p[0] {
	case headOK:
		return nil, nil
	case headLocal:
		return nil, errors.New("LOAD DATA LOCAL is not for tests")
	}
	columns, _, err := lengthEncoded(p)
	if err != nil {
		return nil, err
	}
	if err := c.skipColumns(columns); err != nil {
		return nil, err
	}
	var rows [][]string
	for {
		p, err := c.readPacket()
		if err != nil {
			return rows, err
		}
		if isEOF(p) {
			return rows, nil
		}
		row := make([]string, 0, columns)
		for range columns {
			var s string
			if s, p, err = lengthEncodedString(p); err != nil {
				return rows, err
			}
			row = append(row, s)
		}
		rows = append(rows, row)
	}
}

// skipColumns reads past the descriptions of the columns.
func (c *Conn) skipColumns(n uint64) error {
	for range n {
		if _, err := c.readPacket(); err != nil {
			return err
		}
	}
	p, err := c.readPacket()
	if err == nil && !isEOF(p) {
		err = fmt.Errorf("packet %#x where the columns' end was due", p[0])
	}
	return err
}

// isEOF tells the end of a list; a row may begin with the same byte, but is longer.
func isEOF(p []byte) bool { return p[0] == headEOF && len(p) < 9 }

// Query sends a statement and reads its result.
func (c *Conn) Query(ctx context.Context, statement string) ([][]string, error) {
	if err := c.Send(ctx, statement); err != nil {
		return nil, err
	}
	return c.Result(ctx)
}

// Close says goodbye and closes the connection. It may be called again.
func (c *Conn) Close() error {
	_ = c.nc.SetDeadline(time.Now().Add(time.Second))
	c.seq = 0
	// A connection that waits for a result can't say goodbye; closing will do.
	_ = c.writePacket([]byte{comQuit})
	return c.nc.Close()
}

// lengthEncoded reads an integer of the protocol and gives what follows it.
func lengthEncoded(p []byte) (uint64, []byte, error) {
	if len(p) == 0 {
		return 0, nil, errors.New("cut integer")
	}
	size := 0
	switch p[0] {
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	case 0xfb, 0xff:
		return 0, nil, fmt.Errorf("%#x is no integer", p[0])
	default:
		return uint64(p[0]), p[1:], nil
	}
	if len(p) < 1+size {
		return 0, nil, errors.New("cut integer")
	}
	var b [8]byte
	copy(b[:], p[1:1+size])
	return binary.LittleEndian.Uint64(b[:]), p[1+size:], nil
}

// lengthEncodedString reads a column of a row.
func lengthEncodedString(p []byte) (string, []byte, error) {
	if len(p) > 0 && p[0] == headLocal {
		return Null, p[1:], nil
	}
	n, p, err := lengthEncoded(p)
	if err != nil {
		return "", nil, err
	}
	if n > uint64(len(p)) {
		return "", nil, fmt.Errorf("column of %d bytes in %d", n, len(p))
	}
	return string(p[:n]), p[n:], nil
}
