package disasm

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type ask struct {
	pc        uint64 // offset from the function's start
	suspended bool
	arg       int
	want      string // locations, or the name of an error
}

type locateCase struct {
	name, asm, code string
	asks            []ask
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var errorNames = map[string]error{
	"lost": ErrLost, "indirect": ErrIndirect, "outside": ErrOutside, "undecodable": ErrUndecodable,
	"unreached": ErrUnreached, "ambiguous": ErrAmbiguous, "toobig": ErrTooBig,
}

func locationsText(locs []Location) string {
	var parts []string
	for _, l := range locs {
		s := l.String()
		if l.Bits == 32 {
			s += "/32"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}

func checkLocations(t *testing.T, what, want string, locs []Location, err error) {
	t.Helper()
	if e, ok := errorNames[want]; ok {
		if !errors.Is(err, e) || len(locs) != 0 {
			t.Errorf("%s: %s, error %v; want %v", what, locationsText(locs), err, e)
		}
		return
	}
	if got := locationsText(locs); err != nil || got != want {
		t.Errorf("%s: %q, error %v; want %q", what, got, err, want)
	}
}

const testBase = 0x555555554000

func TestLocate(t *testing.T) {
	for _, c := range locateCases {
		code := Code{Start: testBase, Bytes: unhex(t, c.code)}
		for _, q := range c.asks {
			what := fmt.Sprintf("%s: argument %d at +%#x", c.name, q.arg, q.pc)
			locs, how, err := Locate(code, Point{PC: testBase + q.pc, Suspended: q.suspended}, q.arg)
			checkLocations(t, what, q.want, locs, err)
			if (how == "") != (err != nil) {
				t.Errorf("%s: how %q, error %v", what, how, err)
			}
		}
	}
}

// TestLocateCasesAssemble holds the bytes of the cases to their assembly.
func TestLocateCasesAssemble(t *testing.T) {
	for _, tool := range []string{"as", "objcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s isn't installed", tool)
		}
	}
	dir := t.TempDir()
	src, obj, bin := filepath.Join(dir, "c.s"), filepath.Join(dir, "c.o"), filepath.Join(dir, "c.bin")
	var text strings.Builder
	cases := slices.Concat(locateCases, passedCases, numberCases)
	for i, c := range cases {
		lines := strings.NewReplacer("; ", "\n", ": ", ":\n").Replace(c.asm)
		lines = strings.NewReplacer("Q1:", "", "Q2:", "").Replace(lines)
		fmt.Fprintf(&text, ".section .text.case%d,\"ax\"\n%s\n", i, lines)
	}
	if err := os.WriteFile(src, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("as", "-o", obj, src).CombinedOutput(); err != nil {
		t.Fatalf("as: %v\n%s", err, out)
	}
	for i, c := range cases {
		if out, err := exec.Command("objcopy", "-O", "binary", "-j", fmt.Sprintf(".text.case%d", i), obj, bin).CombinedOutput(); err != nil {
			t.Fatalf("objcopy: %v\n%s", err, out)
		}
		got, err := os.ReadFile(bin)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got) != c.code {
			t.Errorf("%s: code %s, as gives %x", c.name, c.code, got)
		}
	}
}

func TestArgumentAtCall(t *testing.T) {
	for _, c := range passedCases {
		a, err := Analyze(Code{Start: testBase, Bytes: unhex(t, c.code)})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, q := range c.asks {
			p, err := a.ArgumentAtCall(testBase+q.pc, q.arg)
			checkLocations(t, fmt.Sprintf("%s: argument %d", c.name, q.arg), q.want, p.Locations, err)
			if q.want == "ambiguous" && !slices.Equal(p.Set, []uint64{1, 2}) {
				t.Errorf("%s: set %v", c.name, p.Set)
			}
			if !p.Direct || p.Target != testBase+q.pc {
				t.Errorf("%s: call to %#x, direct %v", c.name, p.Target, p.Direct)
			}
			if _, err := a.ArgumentAtCall(testBase+q.pc+1, q.arg); err == nil {
				t.Errorf("%s: a call ends one byte later, too", c.name)
			}
		}
	}
}

func TestSyscallNumber(t *testing.T) {
	for _, c := range numberCases {
		a, err := Analyze(Code{Start: testBase, Bytes: unhex(t, c.code)})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		q := c.asks[0]
		p, err := a.SyscallNumber(testBase + q.pc)
		switch e, bad := errorNames[q.want]; {
		case bad && !errors.Is(err, e):
			t.Errorf("%s: %v, want %v", c.name, err, e)
		case bad:
		case len(p.Set) > 0:
			if got := strings.Trim(fmt.Sprint(p.Set), "[]"); got != q.want || !errors.Is(err, ErrAmbiguous) {
				t.Errorf("%s: %s, %v", c.name, got, err)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case p.Locations[0].Kind == IsConst:
			if got := fmt.Sprint(uint32(p.Locations[0].Value)); got != q.want {
				t.Errorf("%s: %s, want %s", c.name, got, q.want)
			}
		default:
			checkLocations(t, c.name, q.want, p.Locations, err)
		}
	}
}
