package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

func gcPercent() int {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}

// The late start is for the first collection only.
func TestDelayCollection(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(70))
	delayCollection()
	if p := gcPercent(); p < 500 {
		t.Errorf("the first collection starts at %d %%", p)
	}
	// The cleanup runs in a goroutine of the runtime some time after it.
	for range 10000 {
		runtime.GC()
		if gcPercent() == 70 {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d %% after the first collection, want 70", gcPercent())
}

// Who sets GOGC means it.
func TestDelayCollectionLeavesGOGC(t *testing.T) {
	t.Setenv("GOGC", "50")
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	delayCollection()
	if p := gcPercent(); p != 50 {
		t.Errorf("%d %%, want 50", p)
	}
}
