package analyze_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mycore/internal/coretest"
	"mycore/internal/incident"
)

// Real kernel cores of FreeBSD, cut behind their notes by those who made them:
// threads and mappings, and no memory.
func TestRealFreeBSDCores(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(coretest.Module(t), "..", "shared", "cores", "freebsd")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the shared cores of FreeBSD aren't here: %v", err)
	}
	for _, c := range []struct {
		file string
		arch string
		pid  int
		pcs  map[int]incident.Addr // by LWP
	}{
		{"x86-64-freebsd-multithread.core", "amd64", 802, map[int]incident.Addr{100744: 0x2030c2, 100720: 0x800396b3c, 100745: 0x2030cd, 100746: 0x2030cd}},
		{"x86-64-freebsd.core", "amd64", 786, map[int]incident.Addr{100654: 0x20242b}},
		{"aarch64-freebsd-multithread.core", "arm64", 961, map[int]incident.Addr{100160: 0x211fc4, 100115: 0x406267a8, 100161: 0x211fc8, 100162: 0x211fc8}},
		{"x86-32-freebsd-multithread.core", "i386", 810, map[int]incident.Addr{100761: 0x402ed1, 100744: 0x2057f78b, 100762: 0x402edc, 100763: 0x402edc}},
		{"x86-32-freebsd.core", "i386", 796, nil},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			inc := run(t, options(t, filepath.Join(dir, c.file))).Incident
			if inc.System.OS != "freebsd" || inc.System.Arch != c.arch || inc.System.PID == nil || *inc.System.PID != c.pid || inc.Input.Writer != "kernel" {
				t.Errorf("system %+v, writer %q", inc.System, inc.Input.Writer)
			}
			if sig := inc.System.Signal; sig == nil || sig.Name != "SIGSEGV" {
				t.Errorf("signal %+v", sig)
			}
			if len(inc.Threads) != max(1, len(c.pcs)) {
				t.Errorf("%d threads", len(inc.Threads))
			}
			for _, th := range inc.Threads {
				if want, ok := c.pcs[th.LWP]; c.pcs != nil && (!ok || len(th.Frames) == 0 || th.Frames[0].PC != want) {
					t.Errorf("LWP %d: frames %+v, want pc %v", th.LWP, th.Frames, want)
				}
				if th.WaitChannel != nil || th.Handle != nil || th.Idle != nil && *th.Idle {
					t.Errorf("LWP %d: wait channel %+v, handle %v, idle %v", th.LWP, th.WaitChannel, th.Handle, th.Idle)
				}
				if c.arch == "i386" && (th.Syscall != nil || len(th.Frames) > 1) {
					t.Errorf("LWP %d of i386: call %+v, %d frames", th.LWP, th.Syscall, len(th.Frames))
				}
			}
			wantNothing(t, inc)
			if v := inc.Verdict; v.Status != incident.StatusInconclusive || v.Coverage.StacksTrusted != 0 {
				t.Errorf("verdict %+v", v)
			}
			if !slices.ContainsFunc(inc.Verdict.Collect, func(s string) bool { return strings.Contains(s, "procstat") }) {
				t.Errorf("what to collect: %q", inc.Verdict.Collect)
			}
			if n := slices.IndexFunc(inc.Warnings, func(w incident.Warning) bool { return strings.Contains(w.Text, "i386") }); (n >= 0) != (c.arch == "i386") {
				t.Errorf("warnings %+v", inc.Warnings)
			}
			text := textOf(t, inc)
			wantPlain(t, text)
			if strings.Contains(strings.ToLower(text), "not waiting") {
				t.Errorf("lost wait messages are shown as no wait:\n%s", text)
			}
		})
	}
}
