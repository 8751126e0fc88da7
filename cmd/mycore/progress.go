package main

import (
	"fmt"
	"io"
	"sync"
)

// progress rewrites one line on a terminal. It prints only when the whole
// percentage changes, so its cost doesn't depend on how often it is called.
type progress struct {
	w    io.Writer
	mu   sync.Mutex
	last string
}

func newProgress(w io.Writer) *progress { return &progress{w: w} }

// update shows a stage; done == total ends the line. A total of 0 is unknown.
func (p *progress) update(stage string, done, total int64) {
	text := fmt.Sprintf("%s %d MiB", stage, done>>20)
	if total > 0 {
		text = fmt.Sprintf("%s %d %%", stage, int64(float64(done)/float64(total)*100))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if text == p.last {
		return
	}
	p.last = text
	if total > 0 && done >= total {
		fmt.Fprint(p.w, "\r\x1b[K")
		return
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", text)
}
