package incident

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Addr is an address of the target. JSON has no 64-bit integers that every
// reader keeps exact, so it is written as a hex string: "0x829e76000".
type Addr uint64

// Mask is a set of signals (bit n-1 is signal n), written as a hex string.
type Mask uint64

// String writes the address as the field does: 0x and lower-case hex.
func (a Addr) String() string { return "0x" + strconv.FormatUint(uint64(a), 16) }

// String writes the mask in hex.
func (m Mask) String() string { return "0x" + strconv.FormatUint(uint64(m), 16) }

// MarshalText writes a hex string. An incident has some 20,000 addresses: JSON
// takes a text as it is, where the result of MarshalJSON is parsed once more.
func (a Addr) MarshalText() ([]byte, error) { return hexText(uint64(a)), nil }

// MarshalText writes a hex string.
func (m Mask) MarshalText() ([]byte, error) { return hexText(uint64(m)), nil }

func hexText(v uint64) []byte {
	b := make([]byte, 0, len("0x0123456789abcdef"))
	return strconv.AppendUint(append(b, "0x"...), v, 16)
}

// UnmarshalJSON reads a hex string with 0x; anything else is an error.
func (a *Addr) UnmarshalJSON(b []byte) error {
	v, err := parseHex(b)
	if err != nil {
		return fmt.Errorf("address %.40q: %w", b, err)
	}
	*a = Addr(v)
	return nil
}

// UnmarshalJSON reads a hex string with 0x; anything else is an error.
func (m *Mask) UnmarshalJSON(b []byte) error {
	v, err := parseHex(b)
	if err != nil {
		return fmt.Errorf("mask %.40q: %w", b, err)
	}
	*m = Mask(v)
	return nil
}

func parseHex(b []byte) (uint64, error) {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return 0, err
	}
	digits, ok := strings.CutPrefix(s, "0x")
	if !ok {
		return 0, fmt.Errorf("no 0x")
	}
	return strconv.ParseUint(digits, 16, 64)
}

// Ptr gives a pointer to v, for the optional fields.
func Ptr[T any](v T) *T { return &v }
