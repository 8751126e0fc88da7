package disasm

// maxOrphans bounds the blocks without a known way in; a function of the
// largest allowed size with a landing pad behind every call has fewer.
const maxOrphans = 4096

// findOrphans looks for code that no known jump leads to: landing pads of
// exceptions, and targets of tables that weren't understood. It reports
// whether there is any that was not known before. Such code is entered with
// what holds after every call and at every indirect jump.
func (a *Analysis) findOrphans() bool {
	before := len(a.orphans)
	for _, p := range a.parts {
		a.orphansIn(p)
	}
	return len(a.orphans) > before
}

func (a *Analysis) orphansIn(p *part) {
	inside := false // within an orphan found in this scan
	for pos := 0; pos < len(p.code); {
		addr := p.start + uint64(pos)
		if p.marked(addr, reached) {
			in, err := a.at(p, addr)
			if err != nil {
				return
			}
			inside = false
			pos += int(in.length)
			continue
		}
		l, err := measure(p.code[pos:])
		if err != nil || p.code[pos] == 0 { // data, or zero fill
			inside = false
			pos++
			continue
		}
		if !inside && !padding(p.code[pos], l) && p.index[pos] >= 0 && len(a.orphans) < maxOrphans {
			a.orphans = append(a.orphans, addr)
			inside = true
		}
		if endsBlock(l) {
			inside = false
		}
		pos += l.length
	}
}

// padding is what assemblers put between functions and blocks: no-operations
// and int3.
func padding(first byte, l layout) bool {
	switch {
	case l.opmap == mapOne && !l.vex:
		return l.opcode == 0x90 || first == 0xcc
	case l.opmap == map0F && !l.vex:
		return l.opcode == 0x1f
	}
	return false
}

// endsBlock is in.ends on the mere shape: JMP, RET, HLT, UD2 and JMP through a
// register or memory.
func endsBlock(l layout) bool {
	if l.vex {
		return false
	}
	switch l.opmap {
	case mapOne:
		switch l.opcode {
		case 0xe9, 0xeb, 0xc3, 0xc2, 0xf4:
			return true
		case 0xff:
			return l.modrm>>3&7 == 4
		}
	case map0F:
		return l.opcode == 0x0b
	}
	return false
}
