package analyze

import (
	"context"
	"strings"
	"testing"

	"mycore/elfcore"
)

// A panic in a worker reaches the caller, so that the program's own handler
// sees it, and leaves no worker behind.
func TestWorkerPanicReachesCaller(t *testing.T) {
	t.Parallel()
	img := &image{opts: Options{Workers: 3}}
	for lwp := range 50 {
		img.threads = append(img.threads, &thread{note: &elfcore.Thread{LWP: lwp}})
	}
	defer func() {
		p, ok := recover().(*workerPanic)
		if !ok || p.value != "thread 7" || !strings.Contains(p.String(), "TestWorkerPanicReachesCaller") {
			t.Errorf("recovered %v", p)
		}
	}()
	err := img.each(context.Background(), func(t *thread) {
		if t.note.LWP == 7 {
			panic("thread 7")
		}
	})
	t.Errorf("each returned %v", err)
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	img := &image{threads: []*thread{{}}}
	if err := img.each(ctx, func(*thread) { t.Error("work went on") }); err != context.Canceled {
		t.Errorf("each: %v", err)
	}
}
