package structdef

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"mycore/internal/elfimage"
	"mycore/internal/servertest"
)

// accessorServers lists the servers with the fields that must be found in
// each, whatever its version.
var accessorServers = []struct {
	kind    servertest.Kind
	product string
	must    string
}{
	{servertest.MySQL56, "mysql", "thread_id real_id query_id query.str query.length command killed proc_info net.vio net.error lex mysys_var main_security_ctx ha_data active_vio LOCK_thd_data"},
	{servertest.MySQL97, "mysql", "thread_id real_id query_id query.str query.length db.str db.length LOCK_thd_data LOCK_thd_query command killed proc_info security_ctx main_security_ctx current_mutex current_cond stmt_da lex active_vio"},
	{servertest.MariaDB1011, "mariadb", "thread_id real_id os_thread_id query_id query.str query.length db.str db.length command killed proc_info security_ctx mysys_var net.vio net.thd net.error stmt_da mdl_context system_thread start_time lex ha_data"},
	{servertest.MariaDB118, "mariadb", "thread_id real_id query_id query.str db.str command killed proc_info security_ctx net.vio stmt_da mdl_context"},
	{servertest.MariaDB105, "mariadb", "thread_id real_id query_id query.str db.str command killed proc_info security_ctx net.vio stmt_da mdl_context"},
}

func openServer(t testing.TB, k servertest.Kind) (*servertest.Install, *elfimage.File) {
	t.Helper()
	if !slices.Contains(servertest.Default(), k) {
		t.Setenv(servertest.RequireEnv, "") // it is fine not to have these
	}
	in := servertest.Get(t, k)
	f, err := elfimage.Open(in.Exe)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return in, f
}

// THD as found: offset and size by name.
type foundFields map[string]Field

func fieldsOf(found []Found) foundFields {
	out := foundFields{}
	for _, f := range found {
		out[f.Struct+"."+f.Field.Name] = f.Field
	}
	return out
}

func (f foundFields) offset(t *testing.T, name string) int64 {
	t.Helper()
	fd, ok := f[name]
	if !ok {
		t.Errorf("%s isn't found", name)
		return -1
	}
	return int64(fd.Offset)
}

// TestAccessorsOfServers checks on each server what is true of all versions.
func TestAccessorsOfServers(t *testing.T) {
	for _, s := range accessorServers {
		t.Run(string(s.kind), func(t *testing.T) {
			_, f := openServer(t, s.kind)
			found, problems := FromAccessors(f, s.product)
			for _, p := range problems {
				t.Errorf("problem: %v", p)
			}
			t.Logf("%d fields", len(found))
			for _, x := range found {
				t.Logf("%s.%s: %#x, %d bytes, by %s", x.Struct, x.Field.Name, x.Field.Offset, x.Field.Size, x.How)
			}
			fields := fieldsOf(found)
			for _, name := range strings.Fields(s.must) {
				fields.offset(t, "THD."+name)
			}
			checkInvariants(t, fields, s.product)
			checkPlaces(t, found)
		})
	}
}

// checkInvariants holds neighbours of the sources to be neighbours:
// include/mysql_com.h (NET), sql/sql_class.h (real_id before thread_id),
// LEX_STRING, mysql_cond_t behind the mutex.
func checkInvariants(t *testing.T, f foundFields, product string) {
	t.Helper()
	apart := func(a, b string, want int64) {
		t.Helper()
		if x, y := f.offset(t, a), f.offset(t, b); x >= 0 && y >= 0 && y-x != want {
			t.Errorf("%s at %#x, %s at %#x: not %#x apart", a, x, b, y, want)
		}
	}
	apart("THD.real_id", "THD.thread_id", 8)
	apart("THD.query.str", "THD.query.length", 8)
	apart("NET.vio", "NET.write_timeout", 0x68)
	apart("NET.vio", "NET.read_timeout", 0x6c)
	apart("Vio.read_timeout", "Vio.write_timeout", 4)
	if _, ok := f["THD.db.str"]; ok {
		apart("THD.db.str", "THD.db.length", 8)
	}
	if product == "mariadb" {
		apart("THD.net.vio", "THD.net.thd", 0x88)
		apart("THD.net.vio", "THD.net.error", 0x94)
		apart("THD.real_id", "THD.os_thread_id", 0x18)
		apart("THD.real_id", "THD.system_thread", 0x2c)
		apart("THD.real_id", "THD.tx_isolation", 0x38)
		apart("THD.start_time", "THD.start_time_usec", 8)
		apart("THD.security_ctx", "THD.proc_info", 8)
		apart("st_my_thread_var.current_mutex", "st_my_thread_var.current_cond", 8)
	}
}

// checkPlaces: fields are aligned, say where they come from, and don't overlap.
func checkPlaces(t *testing.T, found []Found) {
	t.Helper()
	byStruct := map[string]*Struct{}
	for _, x := range found {
		if x.How == "" || x.Field.Source != sourceAccessor {
			t.Errorf("%s.%s: %q from %q", x.Struct, x.Field.Name, x.How, x.Field.Source)
		}
		if x.Field.Size == 0 {
			continue
		}
		if x.Field.Size&(x.Field.Size-1) != 0 || x.Field.Offset%x.Field.Size != 0 {
			t.Errorf("%s.%s: %d bytes at %#x", x.Struct, x.Field.Name, x.Field.Size, x.Field.Offset)
		}
		s := byStruct[x.Struct]
		if s == nil {
			s = &Struct{Name: x.Struct}
			byStruct[x.Struct] = s
		}
		s.Fields = append(s.Fields, x.Field)
	}
	for _, s := range byStruct {
		if err := s.validate(); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

// truthNames are the names in MySQL 5.6.24's DWARF that differ.
var truthNames = map[string]string{"THD.command": "m_command", "THD.stmt_da": "m_stmt_da", "THD.stage_key": "m_current_stage_key"}

var truthTypes = map[string]string{"NET": "st_net", "Vio": "st_vio"}

// TestAccessorsAgainstDWARF: every offset and size that the code of MySQL
// 5.6.24 gives is that of its DWARF, read by the standard library.
func TestAccessorsAgainstDWARF(t *testing.T) {
	in, f := openServer(t, servertest.MySQL56)
	found, problems := FromAccessors(f, "mysql")
	if len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	if len(found) < 34 {
		t.Errorf("%d fields, 34 before", len(found))
	}
	wanted := map[string]bool{}
	for _, x := range found {
		wanted[truthType(x.Struct)] = true
	}
	types := dwarfStructs(t, in.Exe, wanted)
	for _, x := range found {
		name := x.Field.cPath()
		if n := truthNames[x.Struct+"."+x.Field.Name]; n != "" {
			name = n
		}
		offset, size, err := types.member(truthType(x.Struct), strings.Split(name, "."))
		switch {
		case err != nil:
			t.Errorf("%s.%s: %v", x.Struct, name, err)
		case uint64(offset) != x.Field.Offset:
			t.Errorf("%s.%s: %#x, by DWARF %#x; %s", x.Struct, name, x.Field.Offset, offset, x.How)
		case x.Field.Size != 0 && uint64(size) != x.Field.Size:
			t.Errorf("%s.%s: %d bytes, by DWARF %d; %s", x.Struct, name, x.Field.Size, size, x.How)
		}
	}
}

func truthType(name string) string {
	if n := truthTypes[name]; n != "" {
		return n
	}
	return name
}

// dwarfTypes are structures by name, from debug/dwarf.
type dwarfTypes struct {
	data    *dwarf.Data
	offsets map[string]dwarf.Offset
}

func dwarfStructs(t *testing.T, path string, names map[string]bool) *dwarfTypes {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	out := &dwarfTypes{d, map[string]dwarf.Offset{}}
	for r := d.Reader(); len(out.offsets) < len(names); {
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			break
		}
		if e.Tag != dwarf.TagStructType && e.Tag != dwarf.TagClassType {
			if e.Tag != dwarf.TagCompileUnit {
				r.SkipChildren()
			}
			continue
		}
		if n, _ := e.Val(dwarf.AttrName).(string); names[n] && e.Val(dwarf.AttrDeclaration) == nil {
			if _, ok := out.offsets[n]; !ok {
				out.offsets[n] = e.Offset
			}
		}
		r.SkipChildren()
	}
	return out
}

// member follows a path of members, through base classes.
func (d *dwarfTypes) member(name string, path []string) (offset, size int64, err error) {
	at, ok := d.offsets[name]
	if !ok {
		return 0, 0, fmt.Errorf("no structure %s", name)
	}
	for i, p := range path {
		off, typ, err := d.find(at, p)
		if err != nil {
			return 0, 0, err
		}
		offset += off
		ty, err := d.data.Type(typ)
		if err != nil {
			return 0, 0, err
		}
		for {
			q, ok := ty.(*dwarf.TypedefType)
			if !ok {
				break
			}
			ty = q.Type
		}
		size = ty.Size()
		if i < len(path)-1 {
			st, ok := ty.(*dwarf.StructType)
			if !ok {
				return 0, 0, fmt.Errorf("%s is no structure", p)
			}
			if at, err = d.structOffset(typ, st); err != nil {
				return 0, 0, err
			}
		}
	}
	return offset, size, nil
}

// structOffset follows typedefs from an entry to the structure's own.
func (d *dwarfTypes) structOffset(at dwarf.Offset, st *dwarf.StructType) (dwarf.Offset, error) {
	for range 8 {
		r := d.data.Reader()
		r.Seek(at)
		e, err := r.Next()
		if err != nil {
			return 0, err
		}
		if e.Tag == dwarf.TagStructType || e.Tag == dwarf.TagClassType {
			return at, nil
		}
		next, ok := e.Val(dwarf.AttrType).(dwarf.Offset)
		if !ok {
			break
		}
		at = next
	}
	return 0, fmt.Errorf("no entry of %s", st.StructName)
}

var errNoMember = errors.New("no such member")

// find looks for a member of the structure at an entry, then in its bases.
func (d *dwarfTypes) find(at dwarf.Offset, name string) (int64, dwarf.Offset, error) {
	r := d.data.Reader()
	r.Seek(at)
	if _, err := r.Next(); err != nil {
		return 0, 0, err
	}
	var bases []*dwarf.Entry
	for {
		e, err := r.Next()
		if err != nil {
			return 0, 0, err
		}
		if e == nil || e.Tag == 0 {
			break
		}
		if e.Tag == dwarf.TagMember && e.Val(dwarf.AttrName) == name && e.Val(dwarf.AttrExternal) == nil {
			return accMemberOffset(e), e.Val(dwarf.AttrType).(dwarf.Offset), nil
		}
		if e.Tag == dwarf.TagInheritance {
			bases = append(bases, e)
		}
		r.SkipChildren()
	}
	for _, b := range bases {
		if off, typ, err := d.find(b.Val(dwarf.AttrType).(dwarf.Offset), name); err == nil {
			return off + accMemberOffset(b), typ, nil
		}
	}
	return 0, 0, fmt.Errorf("%s: %w", name, errNoMember)
}

// accMemberOffset reads DW_AT_data_member_location: a number, or DW_OP_plus_uconst.
func accMemberOffset(e *dwarf.Entry) int64 {
	switch v := e.Val(dwarf.AttrDataMemberLoc).(type) {
	case int64:
		return v
	case []byte:
		if len(v) > 1 && v[0] == 0x23 {
			n, _ := binary.Uvarint(v[1:]) // the same encoding as ULEB128
			return int64(n)
		}
	}
	return 0
}

// patched is a file with some bytes changed.
type patched struct {
	io.ReaderAt
	at int64
	b  []byte
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, off)
	for i := range p.b {
		if at := p.at + int64(i) - off; at >= 0 && at < int64(n) {
			b[at] = p.b[i]
		}
	}
	return n, err
}

// TestAccessorMutants makes offsets in the code of the servers larger by 8: the
// field is then found there, or not at all, never where it was; a field that
// another function gives, too, is dropped as a contradiction.
func TestAccessorMutants(t *testing.T) {
	for _, s := range accessorServers[:3] {
		t.Run(string(s.kind), func(t *testing.T) {
			in, f := openServer(t, s.kind)
			file, err := os.Open(in.Exe)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			found, _ := FromAccessors(f, s.product)
			mutated := 0
			for _, x := range found {
				hows := strings.Split(x.How, "; ")
				symbol := hows[0][strings.LastIndex(hows[0], " ")+1:]
				p, ok := mutate(t, f, file, symbol, uint32(x.Field.Offset))
				if !ok {
					continue
				}
				mutated++
				m, err := elfimage.New(p, f.Size(), "mutant")
				if err != nil {
					t.Fatal(err)
				}
				got, problems := FromAccessors(m, s.product)
				m.Close()
				checkMutant(t, x, hows, symbol, got, problems)
			}
			if mutated < 15 {
				t.Errorf("only %d mutants", mutated)
			}
		})
	}
}

func checkMutant(t *testing.T, x Found, hows []string, symbol string, got []Found, problems []error) {
	t.Helper()
	others := 0 // functions besides the changed one
	for _, h := range hows {
		if !strings.HasSuffix(h, " "+symbol) {
			others++
		}
	}
	name := x.Struct + "." + x.Field.Name
	fd, ok := fieldsOf(got)[name]
	switch {
	case ok && fd.Offset == x.Field.Offset && others == 0:
		t.Errorf("%s: %#x although %s has another offset", name, fd.Offset, symbol)
	case ok && fd.Offset != x.Field.Offset && fd.Offset != x.Field.Offset+8:
		t.Errorf("%s: %#x, was %#x", name, fd.Offset, x.Field.Offset)
	case ok && others > 0 && len(problems) == 0:
		t.Errorf("%s: %#x, and no word of %s, which says something else", name, fd.Offset, symbol)
	case !ok && len(problems) == 0:
		t.Errorf("%s: gone without a word", name)
	}
}

// mutate adds 8 to a 32-bit displacement wherever a function has it.
func mutate(t *testing.T, f *elfimage.File, r io.ReaderAt, symbol string, offset uint32) (*patched, bool) {
	t.Helper()
	sym, ok := f.LookupDynSym(symbol)
	if !ok || offset < 0x80 {
		return nil, false
	}
	code := make([]byte, sym.Size)
	if _, err := f.ReadVaddr(sym.Value, code); err != nil {
		t.Fatal(err)
	}
	var old, more [4]byte
	binary.LittleEndian.PutUint32(old[:], offset)
	binary.LittleEndian.PutUint32(more[:], offset+8)
	i := slices.IndexFunc(f.Progs(), func(p elfimage.Prog) bool {
		return p.Type == elfimage.PTLoad && sym.Value-p.Vaddr < p.Filesz
	})
	if i < 0 || !bytes.Contains(code, old[:]) {
		return nil, false
	}
	g := f.Progs()[i]
	return &patched{r, int64(g.Off + sym.Value - g.Vaddr), bytes.ReplaceAll(code, old[:], more[:])}, true
}
