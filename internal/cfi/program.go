package cfi

import (
	"fmt"
	"math"
	"math/bits"
	"sync"

	"mycore/internal/target"
)

// opcode is a call frame instruction.
type opcode uint8

// The instructions of DWARF 5 section 7.24 (table 7.29), and the extensions
// that GNU and Arm tools write.
const (
	opAdvanceLoc opcode = 0x40 // high two bits; the delta is in the low six
	opOffset     opcode = 0x80 // the register is in the low six
	opRestore    opcode = 0xc0 // the register is in the low six
	opPrimary    opcode = 0xc0 // mask of the high two bits

	opNop              opcode = 0x00
	opSetLoc           opcode = 0x01
	opAdvanceLoc1      opcode = 0x02
	opAdvanceLoc2      opcode = 0x03
	opAdvanceLoc4      opcode = 0x04
	opOffsetExtended   opcode = 0x05
	opRestoreExtended  opcode = 0x06
	opUndefined        opcode = 0x07
	opSameValue        opcode = 0x08
	opRegister         opcode = 0x09
	opRememberState    opcode = 0x0a
	opRestoreState     opcode = 0x0b
	opDefCFA           opcode = 0x0c
	opDefCFARegister   opcode = 0x0d
	opDefCFAOffset     opcode = 0x0e
	opDefCFAExpression opcode = 0x0f
	opExpression       opcode = 0x10
	opOffsetExtendedSF opcode = 0x11
	opDefCFASF         opcode = 0x12
	opDefCFAOffsetSF   opcode = 0x13
	opValOffset        opcode = 0x14
	opValOffsetSF      opcode = 0x15
	opValExpression    opcode = 0x16
	opMIPSAdvanceLoc8  opcode = 0x1d // binutils include/dwarf2.def
	// DW_CFA_AARCH64_negate_ra_state_with_pc, "DWARF for the Arm 64-bit
	// Architecture" 2024Q3: as opNegateRAState, the signature covers the pc too.
	opNegateRAStatePC opcode = 0x2c
	// DW_CFA_AARCH64_negate_ra_state; on SPARC DW_CFA_GNU_window_save.
	opNegateRAState    opcode = 0x2d
	opGNUArgsSize      opcode = 0x2e
	opGNUNegOffsetExtd opcode = 0x2f // binutils include/dwarf2.def
)

// machine runs call frame instructions into a row.
type machine struct {
	cie     *cie
	base    *Row // the CIE's row, for restore; nil while it is being made
	row     *Row
	saved   []Row
	ptrSize int
	arch    target.Arch
	loc     uint64
}

// machines keeps the stacks of remembered states.
var machines = sync.Pool{New: func() any { return new(machine) }}

// Row runs the entry's program up to pc, a link-time address inside it. The
// result is the caller's own; keep it, it costs as much as the program.
func (f *FDE) Row(pc uint64) (*Row, error) {
	if !f.Contains(pc) {
		return nil, fmt.Errorf("%w: %#x is outside of %#x to %#x", ErrNoFDE, pc, f.Start, f.End)
	}
	row := new(Row)
	*row = f.cie.initial
	row.exprs = append([][]byte(nil), row.exprs...)
	m := machines.Get().(*machine)
	defer machines.Put(m)
	*m = machine{cie: f.cie, base: &f.cie.initial, row: row, saved: m.saved[:0], ptrSize: f.table.ptrSize, arch: f.table.arch, loc: f.Start}
	row.Start, row.End = f.Start, f.End
	c := cursor{b: f.prog, addr: f.paddr}
	if err := m.run(&c, pc, f.table); err != nil {
		return nil, fmt.Errorf("FDE at %#x: %w", f.addr, err)
	}
	m.base, m.row, m.cie = nil, nil, nil
	return row, nil
}

// run executes instructions until the location passes pc. Without a base row
// it runs a CIE's initial instructions, which may not move the location.
func (m *machine) run(c *cursor, pc uint64, t *Table) error {
	steps := int64(0)
	defer func() { t.steps.Add(steps) }()
	if t.steps.Load() > maxSteps {
		return fmt.Errorf("more than %d call frame instructions: the table is given up", maxSteps)
	}
	for c.err == nil && c.left() > 0 {
		steps++
		op := opcode(c.u8())
		delta, moves := m.advance(c, op)
		switch {
		case !moves:
			m.step(c, op)
		case m.base == nil:
			c.fail("location moved by a CIE")
		case c.err == nil:
			if delta > math.MaxUint64-m.loc || m.loc+delta > pc {
				m.row.End = min(m.row.End, saturate(m.loc, delta))
				return nil
			}
			m.loc += delta
			m.row.Start = m.loc
		}
	}
	return c.err
}

func saturate(a, b uint64) uint64 {
	if b > math.MaxUint64-a {
		return math.MaxUint64
	}
	return a + b
}

// advance reads the operand of an instruction that moves the location and
// gives the distance in bytes; moves is false for all others.
func (m *machine) advance(c *cursor, op opcode) (delta uint64, moves bool) {
	switch {
	case op&opPrimary == opAdvanceLoc:
		delta = uint64(op &^ opPrimary)
	case op == opAdvanceLoc1:
		delta = uint64(c.u8())
	case op == opAdvanceLoc2:
		delta = uint64(c.u16())
	case op == opAdvanceLoc4:
		delta = uint64(c.u32())
	case op == opMIPSAdvanceLoc8:
		delta = c.u64()
	case op == opSetLoc:
		to := c.pointer(m.cie.fdeEnc, m.ptrSize, bases{}, noReader{})
		if c.err == nil && to < m.loc {
			c.fail("location moved backwards")
		}
		return to - m.loc, true
	default:
		return 0, false
	}
	hi, lo := bits.Mul64(delta, m.cie.codeAlign)
	if hi != 0 {
		c.fail("location moved beyond the address space")
	}
	return lo, true
}

// noReader refuses the indirect pointers that no producer writes in set_loc.
type noReader struct{}

// ReadVaddr implements Reader.
func (noReader) ReadVaddr(uint64, []byte) (int, error) { return 0, ErrUnsupported }

// step executes an instruction that doesn't move the location.
func (m *machine) step(c *cursor, op opcode) {
	switch op & opPrimary {
	case opOffset:
		m.set(uint64(op&^opPrimary), Rule{Kind: RuleOffset, Offset: m.factored(c, c.uleb())})
		return
	case opRestore:
		m.restore(c, uint64(op&^opPrimary))
		return
	}
	switch op {
	case opNop:
	case opGNUArgsSize: // bytes of arguments pushed: matters to landing pads only
		c.uleb()
	case opRememberState:
		if len(m.saved) >= maxRemember {
			c.fail("more remembered states than the limit")
			return
		}
		m.saved = append(m.saved, *m.row)
	case opRestoreState:
		m.restoreState(c)
	case opNegateRAState, opNegateRAStatePC:
		if m.arch != target.ARM64 {
			c.fail("AArch64 instruction in code for " + m.arch.String())
			return
		}
		m.row.RASigned = !m.row.RASigned
	case opDefCFA, opDefCFASF, opDefCFARegister, opDefCFAOffset, opDefCFAOffsetSF, opDefCFAExpression:
		m.defCFA(c, op)
	default:
		m.rule(c, op)
	}
}

// defCFA executes the instructions that say where the CFA is. Register and
// offset survive an expression in between, as in libgcc's unwind-dw2.c.
func (m *machine) defCFA(c *cursor, op opcode) {
	cfa := m.row.CFA
	switch op {
	case opDefCFA:
		cfa = Rule{Kind: RuleRegOffset, Reg: m.cfaReg(c), Offset: m.plain(c, c.uleb())}
	case opDefCFASF:
		cfa = Rule{Kind: RuleRegOffset, Reg: m.cfaReg(c), Offset: m.factoredSigned(c, c.sleb())}
	case opDefCFARegister:
		cfa.Kind, cfa.Reg = RuleRegOffset, m.cfaReg(c)
	case opDefCFAOffset:
		cfa.Offset = m.plain(c, c.uleb())
	case opDefCFAOffsetSF:
		cfa.Offset = m.factoredSigned(c, c.sleb())
	case opDefCFAExpression:
		cfa.Kind, cfa.expr = RuleValExpr, m.expr(c)
	}
	m.row.CFA = cfa
}

// rule executes the instructions that set the rule of one register.
func (m *machine) rule(c *cursor, op opcode) {
	if op < opOffsetExtended || op > opValExpression && op != opGNUNegOffsetExtd {
		c.fail(fmt.Sprintf("unknown call frame instruction %#02x", uint8(op)))
		return
	}
	reg := c.uleb()
	switch op {
	case opOffsetExtended:
		m.set(reg, Rule{Kind: RuleOffset, Offset: m.factored(c, c.uleb())})
	case opOffsetExtendedSF:
		m.set(reg, Rule{Kind: RuleOffset, Offset: m.factoredSigned(c, c.sleb())})
	case opGNUNegOffsetExtd:
		m.set(reg, Rule{Kind: RuleOffset, Offset: -m.factored(c, c.uleb())})
	case opValOffset:
		m.set(reg, Rule{Kind: RuleValOffset, Offset: m.factored(c, c.uleb())})
	case opValOffsetSF:
		m.set(reg, Rule{Kind: RuleValOffset, Offset: m.factoredSigned(c, c.sleb())})
	case opRestoreExtended:
		m.restore(c, reg)
	case opUndefined:
		m.set(reg, Rule{Kind: RuleUndefined})
	case opSameValue:
		m.set(reg, Rule{Kind: RuleSameValue})
	case opRegister:
		m.setRegister(reg, c.uleb())
	case opExpression:
		m.set(reg, Rule{Kind: RuleExpr, expr: m.expr(c)})
	case opValExpression:
		m.set(reg, Rule{Kind: RuleValExpr, expr: m.expr(c)})
	}
}

// set gives register reg a rule. Vector registers, beyond the file, are left.
func (m *machine) set(reg uint64, r Rule) {
	if reg < target.MaxRegs {
		m.row.regs[reg] = r
	}
}

func (m *machine) setRegister(reg, from uint64) {
	if from >= target.MaxRegs { // its value can't be known here
		m.set(reg, Rule{Kind: RuleUndefined})
		return
	}
	m.set(reg, Rule{Kind: RuleRegister, Reg: uint8(from)})
}

func (m *machine) restore(c *cursor, reg uint64) {
	if m.base == nil {
		c.fail("rule restored in a CIE")
		return
	}
	if reg < target.MaxRegs {
		m.row.regs[reg] = m.base.regs[reg]
	}
}

// restoreState takes back all rules, the CFA's among them. The stretch's
// start and the list of expressions, which only grows, stay.
func (m *machine) restoreState(c *cursor) {
	if len(m.saved) == 0 {
		c.fail("state restored that was not remembered")
		return
	}
	last := &m.saved[len(m.saved)-1]
	start, end, exprs := m.row.Start, m.row.End, m.row.exprs
	*m.row = *last
	m.row.Start, m.row.End, m.row.exprs = start, end, exprs
	m.saved = m.saved[:len(m.saved)-1]
}

// cfaReg reads the register of a CFA rule.
func (m *machine) cfaReg(c *cursor) uint8 {
	reg := c.uleb()
	if reg >= target.MaxRegs {
		c.fail(fmt.Sprintf("CFA in register %d", reg))
		return 0
	}
	return uint8(reg)
}

// plain takes an offset that isn't factored.
func (m *machine) plain(c *cursor, v uint64) int64 {
	if v > math.MaxInt64 {
		c.fail("offset of more than 63 bits")
		return 0
	}
	return int64(v)
}

// factored multiplies an unsigned operand with the data alignment.
func (m *machine) factored(c *cursor, v uint64) int64 {
	return m.factoredSigned(c, m.plain(c, v))
}

func (m *machine) factoredSigned(c *cursor, v int64) int64 {
	f := m.cie.dataAlign
	p := v * f
	if f != 0 && (p/f != v || f == -1 && v == math.MinInt64) {
		c.fail("offset of more than 63 bits")
		return 0
	}
	return p
}

// expr reads an expression and gives its number in the row.
func (m *machine) expr(c *cursor) uint16 {
	b := c.block()
	if c.err != nil {
		return 0
	}
	if len(m.row.exprs) >= maxExprs {
		c.fail("more expressions than the limit")
		return 0
	}
	m.row.exprs = append(m.row.exprs, b)
	return uint16(len(m.row.exprs) - 1)
}
