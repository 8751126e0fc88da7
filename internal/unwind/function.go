package unwind

import "mycore/internal/target"

// FunctionRange gives the bounds of the function around a runtime address, end
// exclusive, as its call frame information has them; ok is false where there
// is none. A function that the compiler split has several ranges.
func (u *Unwinder) FunctionRange(addr uint64) (start, end uint64, ok bool) {
	img := u.space.at(target.Addr(addr))
	if img == nil {
		return 0, 0, false
	}
	f, err := img.find(addr - img.bias)
	if err != nil {
		return 0, 0, false
	}
	return f.Start + img.bias, f.End + img.bias, true
}
