package analyze

import (
	"fmt"
	"io"
	"runtime/metrics"
	"text/tabwriter"
	"time"
)

// stageTime is the cost of one stage.
type stageTime struct {
	name  string
	wall  time.Duration
	alloc uint64 // bytes allocated during the stage
	heap  uint64 // bytes live or not yet collected after it
}

// stageClock measures stages one after the other.
type stageClock struct {
	last   time.Time
	alloc  uint64
	stages []stageTime
}

func readHeap() (alloc, heap uint64) {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}

func (c *stageClock) start() {
	c.last = time.Now()
	c.alloc, _ = readHeap()
}

func (c *stageClock) done(name string) {
	now := time.Now()
	alloc, heap := readHeap()
	c.stages = append(c.stages, stageTime{name: name, wall: now.Sub(c.last), alloc: alloc - c.alloc, heap: heap})
	c.last, c.alloc = now, alloc
}

// WriteTimings prints time and memory of each stage as a table.
func (r *Result) WriteTimings(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "stage\twall ms\tallocated KiB\theap KiB\t")
	var total time.Duration
	for _, s := range r.timings {
		total += s.wall
		fmt.Fprintf(tw, "%s\t%.2f\t%d\t%d\t\n", s.name, ms(s.wall), s.alloc>>10, s.heap>>10)
	}
	fmt.Fprintf(tw, "all\t%.2f\t\t\t\n", ms(total))
	return tw.Flush()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
