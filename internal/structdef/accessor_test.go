package structdef

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mycore/internal/coretest"
	"mycore/internal/elfimage"
	"mycore/internal/servertest"
)

// accessorImage is a small binary that exports functions by name.
func accessorImage(t testing.TB, machine uint16, functions map[string][]byte) *elfimage.File {
	t.Helper()
	im := &coretest.Image{Machine: machine, GNUHash: true, BuildID: []byte("12345678901234567890")}
	var names []string
	for n := range functions {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		im.Dynamic = append(im.Dynamic, coretest.Symbol{Name: n, Value: coretest.TextOff + uint64(len(im.Text)), Size: uint64(len(functions[n]))})
		im.Text = append(im.Text, functions[n]...)
	}
	b := im.Bytes()
	f, err := elfimage.New(bytes.NewReader(b), int64(len(b)), "image")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func code(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Shapes that are what is asked for, and shapes that aren't. The functions are
// assembled by hand unless a comment names a server.
func TestAccessorShapes(t *testing.T) {
	for _, c := range []struct {
		name, product, symbol, code string
		want                        string // fields, or "problem" or "nothing"
	}{
		{"MariaDB 10.11.19", "mariadb", "thd_get_thread_id", "488b87183f0000c3", "THD.thread_id 0x3f18:8"},
		{"MySQL 9.7.4", "percona", "thd_get_thread_id", "f30f1efa8b87d0250000c3", "THD.thread_id 0x25d0:4"},
		{"a byte is no id", "mysql", "thd_get_thread_id", "0fb687d0250000c3", "problem"},
		{"of the second argument", "mysql", "thd_get_thread_id", "8b86d0250000c3", "problem"},
		{"behind a pointer", "mysql", "thd_get_thread_id", "488b4708488b4010c3", "problem"},
		{"a constant", "mysql", "thd_get_thread_id", "31c0c3", "problem"},
		{"one of two fields", "mysql", "thd_get_thread_id", "85f67405488b4708c3488b4710c3", "problem"},
		{"or something made of a field", "mysql", "thd_get_thread_id", "85f67405488b4708c3488b4710" + "48ffc0c3", "problem"},
		{"negative", "mysql", "thd_get_thread_id", "488b47f8c3", "problem"},
		{"huge", "mysql", "thd_get_thread_id", "488b87ffffff7fc3", "problem"},
		{"undecodable", "mysql", "thd_get_thread_id", "0606", "problem"},
		{"endless", "mysql", "thd_get_thread_id", "ebfe", "problem"},
		{"another family's", "mysql", "thd_current_db", "488d87a0000000c3", "nothing"},
		{"MariaDB 10.11.19", "mariadb", "thd_current_db", "488d87a0000000c3", "THD.db.str 0xa0:8 THD.db.length 0xa8:8"},
		{"not the address", "mariadb", "thd_current_db", "488b87a0000000c3", "problem"},
		{"MySQL 5.6.24", "mysql", "thd_test_options", "554823b7700600004889e5c94889f0c3", "THD.variables.option_bits 0x670:8"},
		{"not masked", "mysql", "thd_test_options", "488b8770060000c3", "problem"},
		{"MariaDB 10.11.19", "mariadb", "thd_start_utime", "486987e827000040420f00480387f0270000c3", "THD.start_time 0x27e8:8 THD.start_time_usec 0x27f0:8"},
		{"milliseconds", "mariadb", "thd_start_utime", "486987e8270000e8030000480387f0270000c3", "problem"},
		{"MySQL 9.7.4, cut", "mysql", "_ZN3THD11set_commandE19enum_server_command", "f30f1efa89b7b419000089f7c3", "THD.command 0x19b4:4"},
		{"another argument", "mysql", "_ZN3THD11set_commandE19enum_server_command", "8997b4190000c3", "problem"},
	} {
		f := accessorImage(t, 0, map[string][]byte{c.symbol: code(t, c.code)})
		found, problems := FromAccessors(f, c.product)
		var got []string
		for _, x := range found {
			got = append(got, fmt.Sprintf("%s.%s %#x:%d", x.Struct, x.Field.Name, x.Field.Offset, x.Field.Size))
		}
		text := strings.Join(got, " ")
		switch {
		case text == "" && len(problems) > 0:
			text = "problem"
			for _, p := range problems {
				if !errors.Is(p, ErrAccessor) || !strings.Contains(p.Error(), c.symbol) {
					t.Errorf("%s: %v", c.name, p)
				}
			}
		case text == "":
			text = "nothing"
		}
		if text != c.want {
			t.Errorf("%s, %s: %s, want %s; %v", c.symbol, c.name, text, c.want, problems)
		}
	}
}

func TestAccessorsDisagree(t *testing.T) {
	f := accessorImage(t, 0, map[string][]byte{
		"thd_sql_command":  code(t, "488b47588b4008c3"),
		"thd_client_host":  code(t, "488b87f8250000488b00c3"),
		"thd_user_name":    code(t, "488b87f0250000488b4008c3"), // another pointer
		"thd_tx_isolation": code(t, "8b87483f0000c3"),
	})
	found, problems := FromAccessors(f, ProductMariaDB)
	fields := fieldsOf(found)
	if _, ok := fields["THD.security_ctx"]; ok || len(problems) != 1 || !errors.Is(problems[0], ErrDisagree) {
		t.Errorf("%v, %v", fields, problems)
	}
	if fields["THD.lex"].Offset != 0x58 || fields["LEX.sql_command"].Offset != 8 || fields["THD.tx_isolation"].Offset != 0x3f48 {
		t.Errorf("%v", fields)
	}
}

func TestAccessorsOtherMachine(t *testing.T) {
	f := accessorImage(t, 183, map[string][]byte{"thd_get_thread_id": code(t, "488b87183f0000c3")}) // EM_AARCH64
	if found, problems := FromAccessors(f, ProductMariaDB); len(found) != 0 || len(problems) != 1 {
		t.Errorf("%v, %v", found, problems)
	}
}

// The names are those of the wanted list where that has the field; accessors
// give a few parts that types have no name for.
func TestAccessorNames(t *testing.T) {
	extra := map[string]bool{"mysql Security_context.user.str": true, "mysql Security_context.user.length": true,
		"mariadb THD.main_security_ctx.host": true, "mysql THD.variables.net_wait_timeout": true, "mysql THD.slave_thread": true,
		"LEX.sql_command": true, "mariadb THD.LOCK_thd_query": true, "handlerton.slot": true, "mariadb THD.m_lock_usec": true, "mariadb THD.current_mutex": true}
	for _, product := range []string{ProductMySQL, ProductMariaDB} {
		wanted, err := Wanted(product)
		if err != nil {
			t.Fatal(err)
		}
		known := map[string]bool{}
		for _, s := range wanted {
			for _, f := range s.Fields {
				known[s.Name+"."+f.Name] = true
			}
		}
		for _, a := range accessors {
			if a.source == "" || len(a.symbols) == 0 || len(a.gives) == 0 {
				t.Errorf("%v: no source, symbols or fields", a.symbols)
			}
			if a.product != "" && a.product != product {
				continue
			}
			for _, g := range a.gives {
				for _, s := range g.steps {
					if n := s.structName + "." + s.name; !known[n] && !extra[n] && !extra[product+" "+n] {
						t.Errorf("%s: %s is not in the wanted list", product, n)
					}
				}
			}
		}
	}
}

func TestFormatConversion(t *testing.T) {
	const format = "MySQL thread id %u, OS thread handle 0x%lx, query id %llu 100%% %s"
	for words, want := range map[string]int{"thread id": 0, "OS thread handle": 1, "query id": 2, "%": 3} {
		if n, ok := formatConversion(format, words); !ok || n != want {
			t.Errorf("%q: %d %v, want %d", words, n, ok, want)
		}
	}
	for _, f := range []string{"", "%", "thread id", "thread id:%u", "%*d thread id %u", "%-thread id %u", "%%"} {
		if n, ok := formatConversion(f, "thread id"); ok {
			t.Errorf("%q: %d", f, n)
		}
	}
}

// Whatever the code of all accessors is, fields are inside of structures and
// named once.
func FuzzAccessors(f *testing.F) {
	for _, s := range []string{"488b87183f0000c3", "488b47588b4008c3", "8b460448c1e006488b843880280000c3", "4885f67417488b870018000048890631c0c3",
		"486987e827000040420f00480387f0270000c3", "4801b7f8110000c3", "e800000000c3", "ebfe"} {
		f.Add(code(f, s), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, mariadb bool) {
		if len(b) == 0 || len(b) > 512 {
			return
		}
		product := map[bool]string{true: ProductMariaDB, false: ProductMySQL}[mariadb]
		functions := map[string][]byte{}
		for _, a := range accessors {
			functions[a.symbols[0]] = nil
		}
		im := &coretest.Image{GNUHash: true, Text: b}
		for n := range functions {
			im.Dynamic = append(im.Dynamic, coretest.Symbol{Name: n, Value: coretest.TextOff, Size: uint64(len(b))})
		}
		img := im.Bytes()
		file, err := elfimage.New(bytes.NewReader(img), int64(len(img)), "fuzzed")
		if err != nil {
			t.Fatal(err)
		}
		found, _ := FromAccessors(file, product)
		seen := map[string]bool{}
		for _, x := range found {
			n := x.Struct + "." + x.Field.Name
			if seen[n] || x.How == "" || x.Field.Offset >= MaxStructSize+16 || x.Field.Size > 8 {
				t.Fatalf("%+v", x)
			}
			seen[n] = true
		}
	})
}

func BenchmarkFromAccessors(b *testing.B) {
	_, f := openServer(b, servertest.MariaDB1011)
	b.ReportAllocs()
	for b.Loop() {
		FromAccessors(f, ProductMariaDB)
	}
}
