//go:build !race

package unwind

// raceEnabled says that this test binary has the race detector.
const raceEnabled = false
