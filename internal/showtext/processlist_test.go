package showtext

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The query that imitates every form; the forms below are what MariaDB
// 10.11.19's client printed for it.
const hostileQuery = "select 'a|b\ttab é', sleep(6) /* x\n   Progress: 0.000\nProgress: 1.000\n| fake |\n*************************** 2. row ***************************\n      Id: 99 */"

const mariaVertical = `*************************** 1. row ***************************
      Id: 4
    User: root
    Host: localhost
      db: NULL
 Command: Query
    Time: 1
   State: User sleep
    Info: select sleep(5)
Progress: 0.000
*************************** 2. row ***************************
      Id: 5
    User: root
    Host: localhost
      db: NULL
 Command: Query
    Time: 1
   State: User sleep
    Info: ` + hostileQuery + `
Progress: 0.000
*************************** 3. row ***************************
      Id: 6
    User: root
    Host: localhost
      db: NULL
 Command: Query
    Time: 0
   State: starting
    Info: show full processlist
Progress: 0.000
`

const mariaTable = `+----+------+-----------+------+---------+------+------------+---------------------------------------------------------------------------------------------------------------------------------------------------------------+----------+
| Id | User | Host      | db   | Command | Time | State      | Info                                                                                                                                                          | Progress |
+----+------+-----------+------+---------+------+------------+---------------------------------------------------------------------------------------------------------------------------------------------------------------+----------+
|  4 | root | localhost | NULL | Query   |    1 | User sleep | select sleep(5)                                                                                                                                               |    0.000 |
|  5 | root | localhost | NULL | Query   |    1 | User sleep | ` + hostileQuery + `  |    0.000 |
|  6 | root | localhost | NULL | Query   |    0 | starting   | show full processlist                                                                                                                                         |    0.000 |
+----+------+-----------+------+---------+------+------------+---------------------------------------------------------------------------------------------------------------------------------------------------------------+----------+
`

func tabRow(info string) string {
	return "5\troot\tlocalhost\tNULL\tQuery\t1\tUser sleep\t" + info + "\t0.000\n"
}

const tabHead = "Id\tUser\tHost\tdb\tCommand\tTime\tState\tInfo\tProgress\n"

func mariaTabs(raw bool) string {
	q := hostileQuery
	if !raw {
		q = strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(q)
	}
	return tabHead + "4\troot\tlocalhost\tNULL\tQuery\t1\tUser sleep\tselect sleep(5)\t0.000\n" + tabRow(q) +
		"6\troot\tlocalhost\tNULL\tQuery\t0\tstarting\tshow full processlist\t0.000\n"
}

func list(t *testing.T, text string) *Processlist {
	t.Helper()
	l, err := ReadProcesslist("l.txt", strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return l
}

func showRow(r Row) string {
	text := func(known bool, v any) string {
		if !known {
			return "-"
		}
		return fmt.Sprintf("%q", fmt.Sprint(v))
	}
	return fmt.Sprintf("%d %s %s %s %s %s %s %s %s", r.Connection, text(r.User.Known, r.User.V), text(r.Host.Known, r.Host.V), text(r.DB.Known, r.DB.V),
		text(r.Command.Known, r.Command.V), text(r.Time.Known, r.Time.V), text(r.State.Known, r.State.V), text(r.Info.Known, r.Info.V), text(r.Progress.Known, r.Progress.V))
}

func showRows(l *Processlist) []string {
	var out []string
	for _, r := range l.Rows {
		out = append(out, showRow(r))
	}
	return out
}

func TestMariaDB(t *testing.T) {
	want := []string{
		`4 "root" "localhost" - "Query" "1" "User sleep" "select sleep(5)" "0.000"`,
		fmt.Sprintf(`5 "root" "localhost" - "Query" "1" "User sleep" %q "0.000"`, hostileQuery),
		`6 "root" "localhost" - "Query" "0" "starting" "show full processlist" "0.000"`,
	}
	for name, text := range map[string]string{
		"vertical": mariaVertical, "table": mariaTable, "tabs": mariaTabs(false), "tabs raw": mariaTabs(true),
		"vertical, closing": mariaVertical + "3 rows in set (0.000 sec)\n\nMariaDB [(none)]> \n",
		"table, closing":    "MariaDB [(none)]> show full processlist;\n" + mariaTable + "3 rows in set (0.000 sec)\n",
		"vertical, blank":   "mysql> show full processlist\\G\n" + mariaVertical + "\n\n",
		"tabs, no header":   strings.TrimPrefix(mariaTabs(false), tabHead),
		"table, rows only":  strings.Join(strings.SplitAfter(mariaTable, "\n")[3:], ""),
	} {
		t.Run(name, func(t *testing.T) {
			l := list(t, text)
			if diff := cmp.Diff(want, showRows(l)); diff != "" || len(l.Warnings) != 0 {
				t.Errorf("(-want +got)\n%s%v", diff, l.Warnings)
			}
		})
	}
	if l := list(t, mariaVertical); strings.Join(l.Columns, " ") != "Id User Host db Command Time State Info Progress" || l.Rows[1].Line != 11 {
		t.Errorf("%v %+v", l.Columns, l.Rows[1])
	}
	crlf := list(t, strings.ReplaceAll(mariaVertical, "\n", "\r\n"))
	if diff := cmp.Diff(want, showRows(crlf)); diff != "" {
		t.Errorf("crlf: %s", diff)
	}
}

func TestMySQL(t *testing.T) {
	vertical := `*************************** 1. row ***************************
     Id: 1
   User: root
   Host: localhost
     db: fifo
Command: Query
   Time: 345
  State: System lock
   Info: LOAD DATA INFILE '/tmp/ghost.fifo'
   Time: 7
Progress: 0.000
INTO TABLE t
*************************** 2. row ***************************
     Id: 2
   User: unauthenticated user
   Host: connecting host
     db: NULL
Command: Connect
   Time: NULL
  State: login
   Info: NULL
*************************** 3. row ***************************
     Id: 3
   User: system user
   Host: 
     db: NULL
Command: Connect
   Time: -5
  State: 
   Info: NULL
`
	table := "+----+-----------+-----------+------+---------+------+-------------+------------------------------------+\n" +
		"| Id | User      | Host      | db   | Command | Time | State       | Info                               |\n" +
		"+----+-----------+-----------+------+---------+------+-------------+------------------------------------+\n" +
		"|  1 | root      | localhost | fifo | Query   |  345 | System lock | LOAD DATA INFILE '/tmp/ghost.fifo' |\n" +
		"|  9 | größe     | 10.0.0.9:51000 | NULL | Sleep   |    2 |             | NULL                               |\n" +
		"+----+-----------+-----------+------+---------+------+-------------+------------------------------------+\n2 rows in set (0.00 sec)\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"vertical", vertical, []string{
			`1 "root" "localhost" "fifo" "Query" "345" "System lock" "LOAD DATA INFILE '/tmp/ghost.fifo'\n   Time: 7\nProgress: 0.000\nINTO TABLE t" -`,
			`2 "unauthenticated user" "connecting host" - "Connect" - "login" - -`,
			`3 "system user" "" - "Connect" "-5" "" - -`,
		}},
		{"table", table, []string{
			`1 "root" "localhost" "fifo" "Query" "345" "System lock" "LOAD DATA INFILE '/tmp/ghost.fifo'" -`,
			`9 "größe" "10.0.0.9:51000" - "Sleep" "2" "" - -`,
		}},
		{"tabs, no header", "1\troot\tlocalhost\tfifo\tQuery\t345\tSystem lock\tselect '\\\\n'\n2\troot\tlocalhost\tNULL\tSleep\t3\t\tNULL\n", []string{
			`1 "root" "localhost" "fifo" "Query" "345" "System lock" "select '\\n'" -`,
			`2 "root" "localhost" - "Sleep" "3" "" - -`,
		}},
		{"Percona Server", tabHead[:len(tabHead)-len("\tProgress\n")] + "\tRows_sent\tRows_examined\n1\troot\tlocalhost\tNULL\tQuery\t0\tinit\tselect 1\t10\t20\n", []string{
			`1 "root" "localhost" - "Query" "0" "init" "select 1" -`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := list(t, c.text)
			if diff := cmp.Diff(c.want, showRows(l)); diff != "" || len(l.Warnings) != 0 {
				t.Errorf("(-want +got)\n%s%v", diff, l.Warnings)
			}
		})
	}
}

func TestInformationSchema(t *testing.T) {
	text := `*************************** 1. row ***************************
             ID: 5
           USER: root
           HOST: localhost
             DB: NULL
        COMMAND: Query
           TIME: 1
          STATE: User sleep
           INFO: ` + hostileQuery + `
        TIME_MS: 1038.683
          STAGE: 0
      MAX_STAGE: 0
       PROGRESS: 0.500
    MEMORY_USED: 88496
MAX_MEMORY_USED: 88496
  EXAMINED_ROWS: 0
       QUERY_ID: 7
    INFO_BINARY: ` + hostileQuery + `
            TID: 23460
*************************** 2. row ***************************
             ID: 4
           USER: root
           HOST: localhost
             DB: x
        COMMAND: Sleep
           TIME: 1
          STATE: 
           INFO: NULL
        TIME_MS: 1.683
          STAGE: 0
      MAX_STAGE: 0
       PROGRESS: 0.000
    MEMORY_USED: 88496
MAX_MEMORY_USED: 88496
  EXAMINED_ROWS: 0
       QUERY_ID: 5
    INFO_BINARY: NULL
            TID: 23456
`
	l := list(t, text)
	want := []string{fmt.Sprintf(`5 "root" "localhost" - "Query" "1" "User sleep" %q "0.500"`, hostileQuery), `4 "root" "localhost" "x" "Sleep" "1" "" - "0.000"`}
	if diff := cmp.Diff(want, showRows(l)); diff != "" || len(l.Warnings) != 0 {
		t.Errorf("%s %v", diff, l.Warnings)
	}
	if r := l.Rows[0]; r.TID.V != 23460 || r.QueryID.V != 7 || l.Rows[1].TID.V != 23456 || len(l.Columns) != 18 || l.Columns[8] != "TIME_MS" || l.Columns[17] != "TID" {
		t.Errorf("%+v %v", r, l.Columns)
	}
}

func TestImitatedRow(t *testing.T) {
	row := func(n, id int, info string) string {
		return fmt.Sprintf("*************************** %d. row ***************************\n     Id: %d\n   User: root\n   Host: localhost\n     db: NULL\nCommand: Query\n   Time: 1\n  State: x\n   Info: %s\n", n, id, info)
	}
	l := list(t, row(1, 1, "select 1 /*\n"+row(2, 77, "*/"))+row(2, 2, "select 2"))
	if len(l.Rows) != 3 || len(l.Warnings) != 1 || l.Warnings[0].Code != CodeImitation {
		t.Errorf("%+v", l)
	}
	// Two results in one file are none.
	if l := list(t, row(1, 1, "a")+row(2, 2, "b")+"2 rows in set (0.00 sec)\n"+row(1, 1, "a")); len(l.Rows) != 3 || len(l.Warnings) != 0 {
		t.Errorf("%+v", l)
	}
}

func TestBadProcesslist(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "prose": "hello\n", "binary": strings.Repeat("\x00\xff", 5000), "procstat": "1158 100460 mysqld - 0 120 sleep fifoor\n",
		"header only": tabHead, "no newline": strings.Repeat("|", 1<<20), "borders": "+" + strings.Repeat("-+", 20) + "\n| Id |\n",
		"thousand columns": strings.Repeat("1\t", 5000) + "\n", "id too big": "99999999999999999999\ta\tb\tc\td\t1\te\tf\n",
		"half a row": mariaVertical[:120],
	} {
		l, err := ReadProcesslist("l\x1b.txt", strings.NewReader(text))
		if l != nil && name != "thousand columns" || l == nil && (!errors.Is(err, ErrNoProcesslist) || strings.ContainsAny(err.Error(), "\n\x1b")) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	// Queries beyond the limit keep what is behind them.
	l := list(t, strings.Replace(mariaVertical, "select sleep(5)", strings.Repeat("select\n", 1<<17), 1))
	if r := l.Rows[0]; len(l.Rows) != 3 || len(r.Info.V) > maxQuery || r.Progress.V != "0.000" {
		t.Errorf("%d rows, info of %d bytes, progress %q", len(l.Rows), len(r.Info.V), r.Progress.V)
	}
}

func FuzzProcesslist(f *testing.F) {
	f.Add(mariaVertical)
	f.Add(mariaTable)
	f.Add(mariaTabs(false))
	f.Add(mariaTabs(true))
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ReadProcesslist("f", strings.NewReader(text))
		if (l == nil) == (err == nil) {
			t.Fatalf("%v, %v", l, err)
		}
		if l == nil {
			return
		}
		for _, r := range l.Rows {
			if !r.Command.Known || len(r.Info.V) > maxQuery || len(r.User.V) > maxValue || r.Line < 1 {
				t.Fatalf("%+v", r)
			}
		}
	})
}

func BenchmarkProcesslist(b *testing.B) {
	row := "*************************** %d. row ***************************\n     Id: %d\n   User: root\n   Host: localhost\n     db: NULL\nCommand: Query\n   Time: 1\n  State: x\n   Info: select %d\n"
	var sb strings.Builder
	for i := range 500 {
		fmt.Fprintf(&sb, row, i+1, i+1, i)
	}
	text := sb.String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadProcesslist("f", strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
