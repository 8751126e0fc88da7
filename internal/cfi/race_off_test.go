//go:build !race

package cfi

// raceEnabled says that this test binary has the race detector.
const raceEnabled = false
