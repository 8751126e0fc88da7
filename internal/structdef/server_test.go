package structdef

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	xdwarf "golang.org/x/debug/dwarf"

	"mycore/internal/elfimage"
	"mycore/internal/servertest"
)

// serverLayout extracts the layout of an installed server that has DWARF.
func serverLayout(t testing.TB) (*Source, *Layout, []Missing) {
	t.Helper()
	in := servertest.Get(t, servertest.MySQL56)
	s, err := OpenSource(in.Exe, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	l, missing, err := s.Layout("", "")
	if err != nil {
		t.Fatal(err)
	}
	return s, l, missing
}

// xreader resolves paths with golang.org/x/debug, the reader that shares
// nothing with this package.
type xreader struct {
	t *testing.T
	d *xdwarf.Data
}

func newXReader(t *testing.T, f *elfimage.File) *xreader {
	t.Helper()
	var data [3][]byte
	for i, name := range []string{".debug_abbrev", ".debug_info", ".debug_str"} {
		var err error
		if data[i], err = f.SectionData(name, 1<<30); err != nil {
			t.Fatal(err)
		}
	}
	d, err := xdwarf.New(data[0], nil, nil, data[1], nil, nil, nil, data[2])
	if err != nil {
		t.Fatal(err)
	}
	return &xreader{t, d}
}

// structs finds the first definition of each name at the top level of a unit.
func (x *xreader) structs(names map[string]bool) map[string]*xdwarf.Entry {
	x.t.Helper()
	out := map[string]*xdwarf.Entry{}
	r := x.d.Reader()
	for {
		e, err := r.Next()
		if err != nil {
			x.t.Fatal(err)
		}
		if e == nil {
			return out
		}
		if e.Tag == xdwarf.TagCompileUnit {
			continue
		}
		name, _ := e.Val(xdwarf.AttrName).(string)
		decl, _ := e.Val(xdwarf.AttrDeclaration).(bool)
		isType := e.Tag == xdwarf.TagStructType || e.Tag == xdwarf.TagClassType
		if isType && names[name] && !decl && out[name] == nil {
			out[name] = e
		}
		r.SkipChildren()
	}
}

func (x *xreader) entry(off xdwarf.Offset) *xdwarf.Entry {
	r := x.d.Reader()
	r.Seek(off)
	e, err := r.Next()
	if err != nil || e == nil {
		x.t.Fatalf("entry at %#x: %v", off, err)
	}
	return e
}

// strip follows typedefs and qualifiers.
func (x *xreader) strip(e *xdwarf.Entry) *xdwarf.Entry {
	for {
		switch e.Tag {
		case xdwarf.TagTypedef, xdwarf.TagConstType, xdwarf.TagVolatileType:
			e = x.entry(e.Val(xdwarf.AttrType).(xdwarf.Offset))
			continue
		}
		return e
	}
}

// member looks for a name among the members, then in the base classes.
func (x *xreader) member(e *xdwarf.Entry, name string) (off int64, m *xdwarf.Entry) {
	r := x.d.Reader()
	r.Seek(e.Offset)
	if _, err := r.Next(); err != nil {
		x.t.Fatal(err)
	}
	type base struct {
		off int64
		typ *xdwarf.Entry
	}
	var bases []base
	for {
		c, err := r.Next()
		if err != nil {
			x.t.Fatal(err)
		}
		if c == nil || c.Tag == 0 {
			break
		}
		n, _ := c.Val(xdwarf.AttrName).(string)
		switch {
		case c.Tag == xdwarf.TagMember && n == name:
			return memberPlace(c), c
		case c.Tag == xdwarf.TagInheritance, c.Tag == xdwarf.TagMember && n == "":
			bases = append(bases, base{memberPlace(c), x.strip(x.entry(c.Val(xdwarf.AttrType).(xdwarf.Offset)))})
		}
		r.SkipChildren()
	}
	for _, b := range bases {
		if off, m := x.member(b.typ, name); m != nil {
			return b.off + off, m
		}
	}
	return 0, nil
}

// memberPlace reads DW_AT_data_member_location of DWARF 2 to 4: DW_OP_plus_uconst.
func memberPlace(e *xdwarf.Entry) int64 {
	switch v := e.Val(xdwarf.AttrDataMemberLoc).(type) {
	case int64:
		return v
	case []byte:
		var n int64
		for i, b := range v[1:] {
			n |= int64(b&0x7f) << (7 * i)
		}
		return n
	}
	return 0
}

// Every field of MySQL 5.6.24 lies where the independent reader says.
func TestAgreesWithIndependentReader(t *testing.T) {
	s, l, _ := serverLayout(t)
	x := newXReader(t, s.Files.DWARF)
	names := map[string]bool{}
	for _, st := range l.Structs {
		names[st.cType()] = true
	}
	defs := x.structs(names)
	fields := 0
	for _, st := range l.Structs {
		def := defs[st.cType()]
		if def == nil {
			t.Errorf("%s: the independent reader doesn't know it", st.Name)
			continue
		}
		if size, _ := def.Val(xdwarf.AttrByteSize).(int64); uint64(size) != st.Size {
			t.Errorf("%s: size %d, independently %d", st.Name, st.Size, size)
		}
		for _, f := range st.Fields {
			fields++
			x.checkField(st.Name, def, f)
		}
	}
	if fields < 200 {
		t.Errorf("only %d fields were compared", fields)
	}
}

func (x *xreader) checkField(structName string, def *xdwarf.Entry, f Field) {
	at, e := int64(0), def
	var m *xdwarf.Entry
	for part := range strings.SplitSeq(f.cPath(), ".") {
		var off int64
		if off, m = x.member(e, part); m == nil {
			x.t.Errorf("%s.%s: not there by the independent reader", structName, f.Name)
			return
		}
		at += off
		e = x.strip(x.entry(m.Val(xdwarf.AttrType).(xdwarf.Offset)))
	}
	if f.BitSize != 0 {
		unit, _ := m.Val(xdwarf.AttrByteSize).(int64)
		size, _ := m.Val(xdwarf.AttrBitSize).(int64)
		high, _ := m.Val(xdwarf.AttrBitOffset).(int64)
		bit := at*8 + unit*8 - high - size
		if got := int64(f.Offset)*8 + int64(f.BitOffset); got != bit || int64(f.BitSize) != size {
			x.t.Errorf("%s.%s: bit %d+%d, independently %d+%d", structName, f.Name, got, f.BitSize, bit, size)
		}
		return
	}
	if uint64(at) != f.Offset {
		x.t.Errorf("%s.%s: offset %#x, independently %#x", structName, f.Name, f.Offset, at)
	}
	typ, err := x.d.Type(e.Offset)
	if err != nil {
		x.t.Errorf("%s.%s: %v", structName, f.Name, err)
		return
	}
	if size := typ.Size(); size > 0 && uint64(size) != f.Size {
		x.t.Errorf("%s.%s: size %d, independently %d", structName, f.Name, f.Size, size)
	}
}

// The fields that sessions, locks and transactions are read by must be found;
// what may be missing is what MySQL 5.6 doesn't have.
func TestServerFieldsAreFound(t *testing.T) {
	_, l, missing := serverLayout(t)
	if l.Binary.Product != ProductMySQL || l.Binary.Version == "" || l.Binary.Hash == nil && l.Binary.BuildID == "" {
		t.Errorf("binary is %+v", l.Binary)
	}
	for _, m := range missing {
		if m.Field == "" {
			t.Errorf("structure %s: %v", m.Struct, m.Err)
		}
	}
	for _, name := range []string{"thread_id", "real_id", "query_id", "query.str", "query.length", "db.str", "db.length",
		"security_ctx", "proc_info", "mysys_var", "command", "start_time", "killed", "system_thread", "server_status",
		"mdl_context.m_tickets", "mdl_context.m_waiting_for", "net.vio", "net.reading_or_writing", "stmt_da", "ha_data"} {
		if _, ok := l.Field("THD", name); !ok {
			t.Errorf("no THD.%s", name)
		}
	}
	if f, ok := l.Field("THD", "net.vio"); ok {
		if net, ok := l.Field("THD", "net"); !ok || f.Offset != net.Offset || f.Kind != KindPointer {
			t.Errorf("net at %#x, net.vio %+v", net.Offset, f)
		}
	}
}

// A profile is the layout again, and altered ones are refused by the DWARF.
func TestProfileAgainstDWARF(t *testing.T) {
	_, truth, _ := serverLayout(t)
	var b bytes.Buffer
	if err := truth.Write(&b); err != nil {
		t.Fatal(err)
	}
	p, err := Load(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(p, truth); len(d) != 0 || !p.Binary.Same(&truth.Binary) {
		t.Fatalf("the profile differs from what it was made of: %v", d)
	}
	for i := range p.Structs {
		for j := range p.Structs[i].Fields {
			f := &p.Structs[i].Fields[j]
			f.Offset += 8
			if d := Compare(p, truth); len(d) != 1 || d[0].Field != f.Name || d[0].What != "offset" {
				t.Errorf("%s.%s moved by 8: %v", p.Structs[i].Name, f.Name, d)
			}
			f.Offset -= 8
		}
	}
}

// Extraction touches neither the whole .debug_info at once nor its functions:
// the allocations stay far below the file's 40 MiB of it. Memory that is freed
// again counts here, so the bound is one on the peak, too.
func TestExtractionAllocatesLittle(t *testing.T) {
	s, _, _ := serverLayout(t)
	want, err := Wanted(ProductMySQL)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, _, err := Extract(s.Files, want); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("%d MiB allocated", n>>20)
	}
}

func BenchmarkExtractServer(b *testing.B) {
	s, _, _ := serverLayout(b)
	want, err := Wanted(ProductMySQL)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Extract(s.Files, want); err != nil {
			b.Fatal(err)
		}
	}
}
