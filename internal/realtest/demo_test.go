package realtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"mycore/internal/servertest"
)

// demoEnv names the directory that TestMakeDemo fills: kernel.core and proc,
// the inputs of internal/demo/gen.
const demoEnv = "MYCORE_DEMO_DIR"

// TestMakeDemo brings about the incident that the demo shows, when asked to.
func TestMakeDemo(t *testing.T) {
	out := os.Getenv(demoEnv)
	if out == "" {
		t.Skipf("makes the demo's core anew where %s says so", demoEnv)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	s := servertest.Get(t, servertest.MariaDB1011).Start(t, servertest.Options{})
	tr := servertest.LoadFromFIFO(t, s, servertest.Scene{
		Path: "/tmp/ghost.fifo", Database: "fifo", Table: "t", Idle: 5,
	})
	proc := filepath.Join(out, "proc")
	if err := os.RemoveAll(proc); err != nil {
		t.Fatal(err)
	}
	s.SaveProc(t, proc)
	// A core is mostly holes.
	cp := exec.Command("cp", "--sparse=always", s.KernelCore(t), filepath.Join(out, "kernel.core"))
	if b, err := cp.CombinedOutput(); err != nil {
		t.Fatalf("copying the core: %v\n%s", err, b)
	}
	t.Logf("%s: thread %d, connection %d, %q", s.Version, tr.LWP, tr.Connection, tr.Statement)
}
