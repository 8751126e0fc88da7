package kernelview

import "mycore/internal/target"

// Sighting is a row of a listing that shows some thread of the process without
// the thread's id: `ps -H -O wchan` has one row per thread and no LWP column.
// It can't be joined to a thread; it is evidence that some thread of the
// process was in that state.
//
// A listing without -H has one row for the whole process, and that row shows
// the first thread (FreeBSD sys/kern/kern_proc.c, fill_kinfo_proc); the reading
// "some thread" holds for it too.
type Sighting struct {
	WaitChannel target.Value[string] // absent: the listing showed none
	State       target.Value[string] // letter, as in Thread.State
	Name        target.Value[string] // the command as the listing shows it
	Line        int                  // line of the text, from 1
}

// WaitMessages counts the rows of Sightings by wait channel. Rows without one
// aren't counted.
func (p *Process) WaitMessages() map[string]int {
	var out map[string]int
	for _, s := range p.Sightings {
		if !s.WaitChannel.Known {
			continue
		}
		if out == nil {
			out = make(map[string]int)
		}
		out[s.WaitChannel.V]++
	}
	return out
}
