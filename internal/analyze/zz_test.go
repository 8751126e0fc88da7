package analyze_test
import ("testing";"bytes";"fmt")
func TestZZ(t *testing.T) {
	g := newGhost(t)
	for _, f := range g.Files() {
		b := g.At(f.Start)
		if  f.Off == 0 { fmt.Println(f.Path, f.Start, len(b), bytes.HasPrefix(b, []byte("\x7fELF"))) }
		if f.Off == 0 && bytes.HasPrefix(b, []byte("\x7fELF")) {
			clear(b[:4096])
		}
	}
	inc := g.both(t).Incident
	for _, m := range inc.Modules { fmt.Printf("%+v\n", m) }
	fmt.Println(inc.Warnings)
	fmt.Println(textOf(t, inc)[:3000])
	for _, f := range threadOf(t, inc, g.lwp).Frames { fmt.Printf("%+v\n", f) }
}
