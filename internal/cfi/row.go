package cfi

import "mycore/internal/target"

// RuleKind says how a register of the caller is found.
type RuleKind uint8

// The register rules of DWARF 5 section 6.4.1. RuleUnspecified is our own: the
// table says nothing, and the calling convention decides.
const (
	RuleUnspecified RuleKind = iota
	RuleUndefined            // its value is lost; for the return address: no caller
	RuleSameValue            // not changed by this frame
	RuleOffset               // saved at CFA + Offset
	RuleValOffset            // is CFA + Offset
	RuleRegister             // is in register Reg
	RuleExpr                 // saved at the address that the expression gives
	RuleValExpr              // is what the expression gives
	RuleRegOffset            // the CFA itself: register Reg + Offset
)

var ruleNames = [...]string{"unspecified", "undefined", "same", "offset", "val-offset", "register", "expression", "val-expression", "register+offset"}

// String gives a word for messages.
func (k RuleKind) String() string {
	if int(k) < len(ruleNames) {
		return ruleNames[k]
	}
	return "unknown"
}

// Rule is the rule for one register, or for the CFA (RuleRegOffset or
// RuleValExpr). An expression is asked of the row: Row.Expr.
type Rule struct {
	Kind   RuleKind
	Reg    uint8
	expr   uint16
	Offset int64
}

// Row is what holds for a stretch of code: how to find the canonical frame
// address and, from it, the caller's registers. It is immutable.
type Row struct {
	// Start and End bound the stretch, link-time addresses, End exclusive.
	Start, End uint64
	CFA        Rule
	// RAReg is the column whose rule gives the return address.
	RAReg int
	// RASigned says that the return address carries a pointer authentication
	// code (AArch64).
	RASigned    bool
	SignalFrame bool

	regs  [target.MaxRegs]Rule
	exprs [][]byte
}

// Reg gives the rule of register n (DWARF number). Registers outside the
// target.Regs file (vector registers) are unspecified.
func (r *Row) Reg(n int) Rule {
	if n < 0 || n >= len(r.regs) {
		return Rule{}
	}
	return r.regs[n]
}

// Expr gives the expression of a rule of this row, nil if it has none.
func (r *Row) Expr(rule Rule) []byte {
	if (rule.Kind != RuleExpr && rule.Kind != RuleValExpr) || int(rule.expr) >= len(r.exprs) {
		return nil
	}
	return r.exprs[rule.expr]
}
