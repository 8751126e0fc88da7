package showtext

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func status(t *testing.T, text string) *InnoDBStatus {
	t.Helper()
	st, err := ReadInnoDBStatus("s.txt", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStorySession(t *testing.T) {
	st := status(t, "MySQL thread id 1, OS thread handle 0x829e76000, query id 9 localhost root System lock\n"+
		"LOAD DATA INFILE '/tmp/ghost.fifo' INTO TABLE t\n")
	want := []Session{{Connection: 1, Handle: Handle{"0x829e76000", 0x829e76000, true}, QueryID: 9, Rest: "localhost root System lock",
		Query: "LOAD DATA INFILE '/tmp/ghost.fifo' INTO TABLE t", Line: 1}}
	if diff := cmp.Diff(want, st.Sessions); diff != "" || len(st.Warnings) != 0 {
		t.Errorf("%s %v", diff, st.Warnings)
	}
}

func TestSessionFamilies(t *testing.T) {
	for _, c := range []struct {
		line        string
		conn, query uint64
		handle      Handle
		rest        string
		maria       bool
	}{
		{"MySQL thread id 3, query id 22 localhost root", 3, 22, Handle{}, "localhost root", false},
		{"MySQL thread id 491, OS thread handle 0x7fbbffa536c0, query id 60 localhost root updating", 491, 60, Handle{"0x7fbbffa536c0", 0x7fbbffa536c0, true}, "localhost root updating", false},
		{"MySQL thread id 354, OS thread handle 140074409600704, query id 31 localhost root updating", 354, 31, Handle{"140074409600704", 140074409600704, true}, "localhost root updating", false},
		{"MariaDB thread id 502, OS thread handle 139789133199040, query id 61 localhost root Updating", 502, 61, Handle{"139789133199040", 139789133199040, true}, "localhost root Updating", true},
		{"MySQL thread id 10, OS thread handle 140074409600704, query id 31", 10, 31, Handle{"140074409600704", 140074409600704, true}, "", false},
		{"MySQL thread id 7, OS thread handle 140074409600704, query id 31 10.0.0.9 app Sending data\r", 7, 31, Handle{"140074409600704", 140074409600704, true}, "10.0.0.9 app Sending data", false},
	} {
		for _, text := range []string{c.line, "---TRANSACTION 0, not started\n" + c.line + "\n", "| InnoDB |      | " + c.line + " |\n"} {
			st := status(t, text)
			if len(st.Sessions) != 1 && !strings.HasPrefix(text, "| ") {
				t.Errorf("%q: %+v", text, st)
				continue
			}
			s := st.Sessions[0]
			if s.Connection != c.conn || s.QueryID != c.query || s.Handle != c.handle || s.Rest != c.rest || s.MariaDB != c.maria || s.History {
				t.Errorf("%q: %+v", text, s)
			}
			if strings.HasPrefix(text, "---") {
				break
			}
		}
	}
}

const fullStatus = `*************************** 1. row ***************************
  Type: InnoDB
  Name: 
Status: 
=====================================
2026-11-21 04:03:54 %s INNODB MONITOR OUTPUT
=====================================
Per second averages calculated from the last 2 seconds
------------------------
LATEST DETECTED DEADLOCK
------------------------
2026-11-21 03:00:00 7fbbff73b6c0
*** (1) TRANSACTION:
TRANSACTION 1300, ACTIVE 3 sec starting index read
MySQL thread id 8, OS thread handle %s, query id 11 localhost root updating
update t set a=1
*** (1) WAITING FOR THIS LOCK TO BE GRANTED:
RECORD LOCKS space id 6 page no 3 n bits 72
*** (2) TRANSACTION:
TRANSACTION 1301, ACTIVE 3 sec
MySQL thread id 9, OS thread handle %s, query id 12 localhost root updating
update t set a=2
*** WE ROLL BACK TRANSACTION (2)
------------
TRANSACTIONS
------------
Trx id counter 1342
LIST OF TRANSACTIONS FOR EACH SESSION:
---TRANSACTION 0, not started
MySQL thread id 1, OS thread handle %s, query id 9 localhost root System lock
LOAD DATA INFILE '/tmp/ghost.fifo'
INTO TABLE t
---TRANSACTION 1341, ACTIVE 3 sec starting index read
mysql tables in use 1, locked 1
LOCK WAIT 2 lock struct(s), heap size 1128, 1 row lock(s)
MySQL thread id 2, OS thread handle %s, query id 10 localhost root updating
select 1 /*
MySQL thread id 66, OS thread handle 0x1, query id 1 localhost root updating
*/
------- TRX HAS BEEN WAITING 3 SEC FOR THIS LOCK TO BE GRANTED:
RECORD LOCKS space id 6 page no 3 n bits 72
--------------
ROW OPERATIONS
--------------
0 queries inside InnoDB, 0 queries in queue
%s
----------------------------
END OF INNODB MONITOR OUTPUT
============================
`

func TestFullStatus(t *testing.T) {
	for _, c := range []struct {
		name, header, main string
		handles            [4]string
		printed            Handle
		mainV              uint64
	}{
		{"5.6", "7fbbff73b6c0", "Main thread process no. 13510, id 140445138515712, state: sleeping", [4]string{"0x7f01", "0x7f02", "0x829e76000", "0x7f04"}, Handle{"7fbbff73b6c0", 0x7fbbff73b6c0, true}, 140445138515712},
		{"5.6, digits only", "712233445566", "Main thread process no. 13510, id 140445138515712, state: sleeping", [4]string{"0x7f01", "0x7f02", "0x829e76000", "0x7f04"}, Handle{"712233445566", 0x712233445566, true}, 140445138515712},
		{"9.7", "140074370500288", "Process ID=13510, Main thread ID=140074958689984 , state=sleeping", [4]string{"140074370500201", "140074370500202", "35062767616", "140074370500204"}, Handle{"140074370500288", 140074370500288, true}, 140074958689984},
		{"MariaDB 10.11", "0x7f23318df6c0", "Process ID=13510, Main thread ID=140074958689984, state: sleeping", [4]string{"140074370500201", "140074370500202", "35062767616", "140074370500204"}, Handle{"0x7f23318df6c0", 0x7f23318df6c0, true}, 140074958689984},
	} {
		full := fmt.Sprintf(fullStatus, c.header, c.handles[0], c.handles[1], c.handles[2], c.handles[3], c.main)
		escaped := "Type\tName\tStatus\nInnoDB\t\t" + strings.ReplaceAll(full[strings.Index(full, "=="):], "\n", `\n`) + "\n"
		for form, text := range map[string]string{"plain": full, "crlf": strings.ReplaceAll(full, "\n", "\r\n"), "escaped": escaped} {
			st := status(t, text)
			name := c.name + " " + form
			if st.PrintedBy != c.printed || st.Time != "2026-11-21 04:03:54" || st.MainThread.V != c.mainV || st.PID.V != 13510 {
				t.Errorf("%s: %+v", name, st)
			}
			if len(st.Sessions) != 4 || len(st.Warnings) != 1 || st.Warnings[0].Code != CodeImitation {
				t.Fatalf("%s: %d sessions %+v", name, len(st.Sessions), st)
			}
			for i, s := range st.Sessions {
				if s.History != (i < 2) || s.Connection != []uint64{8, 9, 1, 2}[i] || s.Handle.Text != c.handles[i] {
					t.Errorf("%s: session %d %+v", name, i, s)
				}
			}
			if s := st.Sessions[2]; s.Handle.V != 0x829e76000 || s.Query != "LOAD DATA INFILE '/tmp/ghost.fifo'\nINTO TABLE t" {
				t.Errorf("%s: %+v", name, s)
			}
			if q := st.Sessions[3].Query; !strings.HasPrefix(q, "select 1 /*\nMySQL thread id 66,") || !strings.HasSuffix(q, "\n*/") {
				t.Errorf("%s: query %q", name, q)
			}
		}
	}
}

func TestHeaderAlone(t *testing.T) {
	for text, want := range map[string]Handle{
		"2026-11-21 04:03:54 712233445566 INNODB MONITOR OUTPUT\n": {Text: "712233445566"}, // hex or decimal
		"2026-11-21 04:03:54 7fbbff73b6c0 INNODB MONITOR OUTPUT\n": {"7fbbff73b6c0", 0x7fbbff73b6c0, true},
		"150804  6:12:09 INNODB MONITOR OUTPUT\n":                  {},
		"2026-11-21 04:03:54 zz INNODB MONITOR OUTPUT\n":           {Text: "zz"},
	} {
		if st := status(t, text); st.PrintedBy != want || st.Time == "" {
			t.Errorf("%q: %+v", text, st)
		}
	}
}

func TestBadStatus(t *testing.T) {
	for _, text := range []string{"", "hello\n", strings.Repeat("\x00", 1000), "1158 100460 mysqld - 0 120 sleep fifoor\n", "MySQL thread id x\n",
		"MySQL thread id 99999999999999999999, query id 1\n", "MySQL thread id 1, OS thread handle 0xzz, query id 1\n"} {
		st, err := ReadInnoDBStatus("s\n.txt", strings.NewReader(text))
		if st != nil || !errors.Is(err, ErrNoStatus) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, %v", text, st, err)
		}
	}
	st := status(t, "MySQL thread id 1, query id 1\nMySQL thread id 1, OS thread handle 0xffffffffffffffff0, query id 1\n... truncated...\n")
	if len(st.Sessions) != 1 || len(st.Warnings) != 2 || st.Warnings[0].Code != CodeTruncated || st.Warnings[1].Code != CodeMalformed {
		t.Errorf("%+v", st)
	}
	if _, err := ReadInnoDBStatus("s", io.MultiReader(strings.NewReader("x"), failing{})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func FuzzInnoDBStatus(f *testing.F) {
	f.Add(fmt.Sprintf(fullStatus, "7fbbff73b6c0", "0x1", "0x2", "0x3", "0x4", "Process ID=1, Main thread ID=2 , state=sleeping"))
	f.Add(`InnoDB	\n==\n1 2 3 INNODB MONITOR OUTPUT\nMySQL thread id 1, query id 2\n`)
	f.Fuzz(func(t *testing.T, text string) {
		st, err := ReadInnoDBStatus("f", strings.NewReader(text))
		if (st == nil) == (err == nil) {
			t.Fatalf("%v, %v", st, err)
		}
		if st == nil {
			return
		}
		for _, h := range append([]Session{{Handle: st.PrintedBy}, {Handle: st.MainThread}}, st.Sessions...) {
			if !h.Handle.Known && h.Handle.V != 0 || len(h.Handle.Text) > 24 || len(h.Query) > maxQuery+1 || len(h.Rest) > maxValue {
				t.Fatalf("%+v", h)
			}
		}
	})
}
