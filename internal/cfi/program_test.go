package cfi

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"mycore/internal/target"
)

func TestRow(t *testing.T) {
	t.Parallel()
	off := func(o int64) Rule { return Rule{Kind: RuleOffset, Offset: o} }
	type want map[int]Rule
	// push rbp; mov rsp,rbp; ...; pop rbp: what gcc -O2 -fno-omit-frame-pointer writes
	framed := []byte{0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x02, 0x20, 0x0a, 0x0c, 7, 8, 0x41, 0x0b, 0x41, 0x0c, 7, 8, 0xc6}
	big := cat([]byte{0x04}, le32(0x40), []byte{0x0e, 32})
	tests := []struct {
		name  string
		pc    uint64
		prog  []byte
		cfa   Rule
		regs  want
		start uint64
		end   uint64
	}{
		{"before the first move", 0x1000, framed, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}, want{16: off(-8), 6: {}}, 0x1000, 0x1001},
		{"after push", 0x1001, framed, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 16}, want{6: off(-16)}, 0x1001, 0x1004},
		{"last byte of a stretch", 0x1003, framed, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 16}, want{6: off(-16)}, 0x1001, 0x1004},
		{"framed", 0x1004, framed, Rule{Kind: RuleRegOffset, Reg: 6, Offset: 16}, want{6: off(-16), 16: off(-8)}, 0x1004, 0x1024},
		{"remembered", 0x1024, framed, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}, want{6: off(-16)}, 0x1024, 0x1025},
		{"restored with the CFA", 0x1025, framed, Rule{Kind: RuleRegOffset, Reg: 6, Offset: 16}, want{6: off(-16)}, 0x1025, 0x1026},
		{"restore of one rule, to the end", 0x10ff, framed, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}, want{6: {}, 16: off(-8)}, 0x1026, 0x1100},
		{"advance_loc2", 0x1010, cat([]byte{0x03}, le16(0x10), []byte{0x0e, 24}), Rule{Kind: RuleRegOffset, Reg: 7, Offset: 24}, nil, 0x1010, 0x1100},
		{"advance_loc4 not reached", 0x103f, big, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}, nil, 0x1000, 0x1040},
		{"advance_loc4", 0x1040, big, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 32}, nil, 0x1040, 0x1100},
		{"MIPS_advance_loc8", 0x1008, cat([]byte{0x1d}, le64(8), []byte{0x0e, 40}), Rule{Kind: RuleRegOffset, Reg: 7, Offset: 40}, nil, 0x1008, 0x1100},
		{"offset_extended and sf", 0x1000, cat([]byte{0x05, 3, 4, 0x11, 12}, sleb(-2)), Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}, want{3: off(-32), 12: off(16)}, 0x1000, 0x1100},
		{"GNU_negative_offset_extended", 0x1000, []byte{0x2f, 3, 2}, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}, want{3: off(16)}, 0x1000, 0x1100},
		{"val_offset and sf", 0x1000, cat([]byte{0x14, 7, 1, 0x15, 3}, sleb(-3)), Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8},
			want{7: {Kind: RuleValOffset, Offset: -8}, 3: {Kind: RuleValOffset, Offset: 24}}, 0x1000, 0x1100},
		{"def_cfa_sf", 0x1000, cat([]byte{0x12, 6}, sleb(-2)), Rule{Kind: RuleRegOffset, Reg: 6, Offset: 16}, nil, 0x1000, 0x1100},
		{"def_cfa_offset_sf", 0x1000, cat([]byte{0x13}, sleb(-5)), Rule{Kind: RuleRegOffset, Reg: 7, Offset: 40}, nil, 0x1000, 0x1100},
		{"undefined, same, register", 0x1000, []byte{0x07, 16, 0x08, 3, 0x09, 6, 12, 0x09, 13, 99}, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8},
			want{16: {Kind: RuleUndefined}, 3: {Kind: RuleSameValue}, 6: {Kind: RuleRegister, Reg: 12}, 13: {Kind: RuleUndefined}}, 0x1000, 0x1100},
		{"restore_extended", 0x1000, []byte{0x07, 16, 0x06, 16}, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}, want{16: off(-8)}, 0x1000, 0x1100},
		{"vector registers are passed over", 0x1000, []byte{0x05, 0xc1, 0x01, 3, 0x07, 50, 0x06, 60, 0x80 | 3, 1}, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}, want{3: off(-8)}, 0x1000, 0x1100},
		{"GNU_args_size and nop", 0x1000, []byte{0x2e, 0x90, 0x01, 0, 0x83, 1}, Rule{Kind: RuleRegOffset, Reg: 7, Offset: 8}, want{3: off(-8)}, 0x1000, 0x1100},
		{"register and offset survive an expression", 0x1000, []byte{0x0f, 1, 0x30, 0x0e, 24, 0x0d, 6}, Rule{Kind: RuleRegOffset, Reg: 6, Offset: 24}, nil, 0x1000, 0x1100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := rowOf(t, target.AMD64, tt.pc, tt.prog...)
			if err != nil {
				t.Fatal(err)
			}
			if r.CFA != tt.cfa {
				t.Errorf("CFA %+v, want %+v", r.CFA, tt.cfa)
			}
			for n, w := range tt.regs {
				if got := r.Reg(n); got != w {
					t.Errorf("register %d: %+v, want %+v", n, got, w)
				}
			}
			if r.Start != tt.start || r.End != tt.end || r.RAReg != 16 {
				t.Errorf("row of %#x..%#x, RA in %d; want %#x..%#x, 16", r.Start, r.End, r.RAReg, tt.start, tt.end)
			}
		})
	}
}

func TestRowExpressions(t *testing.T) {
	t.Parallel()
	r, err := rowOf(t, target.AMD64, 0x1004, 0x10, 3, 2, 0x70, 0, 0x0a, 0x44, 0x16, 6, 1, 0x9c, 0x0f, 3, 0x77, 8, 0x06, 0x0b, 0x10, 12, 2, 0x76, 0x78)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		reg  int
		kind RuleKind
		expr []byte
	}{{3, RuleExpr, []byte{0x70, 0}}, {12, RuleExpr, []byte{0x76, 0x78}}, {6, RuleUnspecified, nil}} {
		rule := r.Reg(tt.reg)
		if rule.Kind != tt.kind || !bytes.Equal(r.Expr(rule), tt.expr) {
			t.Errorf("register %d: %v %x, want %v %x", tt.reg, rule.Kind, r.Expr(rule), tt.kind, tt.expr)
		}
	}
	if r.CFA.Kind != RuleRegOffset || r.CFA.Reg != 7 || r.Expr(r.CFA) != nil {
		t.Errorf("CFA %+v after restore_state", r.CFA)
	}
	r, err = rowOf(t, target.AMD64, 0x1000, 0x0f, 3, 0x77, 8, 0x06, 0x16, 6, 1, 0x9c)
	if err != nil {
		t.Fatal(err)
	}
	if r.CFA.Kind != RuleValExpr || !bytes.Equal(r.Expr(r.CFA), []byte{0x77, 8, 0x06}) || !bytes.Equal(r.Expr(r.Reg(6)), []byte{0x9c}) {
		t.Errorf("CFA %+v %x, rbp %x", r.CFA, r.Expr(r.CFA), r.Expr(r.Reg(6)))
	}
}

func TestRowSetLoc(t *testing.T) {
	t.Parallel()
	// rowOf puts the FDE behind a CIE of 24 bytes at 0x20000; its program
	// starts 17 bytes into it, and the operand one byte later.
	const operand = 0x20000 + 24 + 17 + 1
	to := func(a uint64) []byte { return cat([]byte{0x01}, le32(uint32(a-operand)), []byte{0x0e, 64}) }
	for pc, want := range map[uint64]int64{0x104f: 8, 0x1050: 64} {
		r, err := rowOf(t, target.AMD64, pc, to(0x1050)...)
		if err != nil {
			t.Fatal(err)
		}
		if r.CFA.Offset != want {
			t.Errorf("CFA offset at %#x is %d, want %d", pc, r.CFA.Offset, want)
		}
	}
	if _, err := rowOf(t, target.AMD64, 0x1050, to(0xfff)...); err == nil {
		t.Error("location moved backwards without an error")
	}
}

func TestRowRASigned(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pc   uint64
		want bool
	}{{0x1000, false}, {0x1004, true}, {0x1008, false}, {0x100c, true}} {
		r, err := rowOf(t, target.ARM64, tt.pc, 0x44, 0x2d, 0x0a, 0x44, 0x2c, 0x44, 0x0b)
		if err != nil {
			t.Fatal(err)
		}
		if r.RASigned != tt.want {
			t.Errorf("RASigned at %#x is %v", tt.pc, r.RASigned)
		}
	}
	if _, err := rowOf(t, target.AMD64, 0x1000, 0x2d); err == nil {
		t.Error("AArch64 instruction accepted on x86-64")
	}
}

func TestRowErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		prog []byte
		msg  string
	}{
		{"unknown instruction", []byte{0x3f}, "unknown call frame instruction 0x3f"},
		{"unknown instruction 0x17", []byte{0x17}, "unknown call frame instruction 0x17"},
		{"restore without remember", []byte{0x0b}, "not remembered"},
		{"too many remembered", bytes.Repeat([]byte{0x0a}, maxRemember+1), "remembered states"},
		{"too many expressions", bytes.Repeat([]byte{0x10, 3, 0}, maxExprs+1), "expressions"},
		{"expression over the end", []byte{0x0f, 200}, "over the end"},
		{"operand over the end", []byte{0x00, 0x04, 1}, "over the end"},
		{"CFA in a vector register", []byte{0x0d, 60}, "CFA in register 60"},
		{"huge offset", cat([]byte{0x05, 3}, uleb(1<<61)), "63 bits"},
		{"huge plain offset", cat([]byte{0x0e}, uleb(1<<63)), "63 bits"},
		{"LEB128 of more than 64 bits", cat([]byte{0x0e}, bytes.Repeat([]byte{0xff}, 10), []byte{1}), "64 bits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := rowOf(t, target.AMD64, 0x1000, tt.prog...)
			if err == nil || r != nil || !strings.Contains(err.Error(), tt.msg) {
				t.Errorf("row %v, error %v; want one with %q", r, err, tt.msg)
			}
		})
	}
	s := &section{addr: 0x20000}
	s.addCIE(plainCIE())
	s.addFDE(0x1000, 0x100)
	f, err := s.withHdr(t).Find(0x1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Row(0x1100); !errors.Is(err, ErrNoFDE) {
		t.Errorf("row outside of the entry: %v", err)
	}
}

// A table whose programs never end in sum is given up.
func TestRowBudget(t *testing.T) {
	t.Parallel()
	s := &section{addr: 0x20000}
	s.addCIE(plainCIE())
	s.addFDE(0x1000, 0x100, make([]byte, 1000)...)
	tab := s.withHdr(t)
	f, err := tab.Find(0x1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Row(0x1000); err != nil {
		t.Fatal(err)
	}
	if n := tab.steps.Load(); n < 1000 || n > 1100 {
		t.Errorf("%d steps counted for a program of 1000", n)
	}
	tab.steps.Store(maxSteps + 1)
	if _, err := f.Row(0x1000); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("over the budget: %v", err)
	}
}

func TestLEB(t *testing.T) {
	t.Parallel()
	for _, v := range []int64{0, 1, -1, 63, 64, -64, -65, 127, 128, 1 << 40, -1 << 40, 1<<62 - 1, 1 << 62, -1 << 62, 1<<63 - 1, -1 << 63} {
		c := cursor{b: append(sleb(v), 0xaa)}
		if got := c.sleb(); got != v || c.err != nil || c.left() != 1 {
			t.Errorf("sleb %d: %d, %v, %d left", v, got, c.err, c.left())
		}
		c = cursor{b: append(uleb(uint64(v)), 0xaa)}
		if got := c.uleb(); got != uint64(v) || c.err != nil || c.left() != 1 {
			t.Errorf("uleb %d: %d, %v, %d left", uint64(v), got, c.err, c.left())
		}
	}
	pad := cursor{b: []byte{0x85, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00}}
	if got := pad.uleb(); got != 5 || pad.err != nil {
		t.Errorf("padded uleb: %d, %v", got, pad.err)
	}
	neg := cursor{b: []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}}
	if got := neg.sleb(); got != -2 || neg.err != nil {
		t.Errorf("padded sleb: %d, %v", got, neg.err)
	}
	for _, b := range [][]byte{{0x80}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}, {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}} {
		c := cursor{b: b}
		if v := c.uleb(); c.err == nil {
			t.Errorf("uleb % x: %d without an error", b, v)
		}
	}
}
