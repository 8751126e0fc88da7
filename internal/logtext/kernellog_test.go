package logtext

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func kernelLog(t *testing.T, text string, opts Options) *Log {
	t.Helper()
	l, err := ReadKernelLog("dmesg.txt", strings.NewReader(text), int64(len(text)), opts)
	if err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return l
}

func TestKernelForms(t *testing.T) {
	const msg = "Out of memory: Killed process 1158 (mysqld) total-vm:12345kB, anon-rss:1kB"
	const tail = ` pid=1158 proc="mysqld"`
	for _, c := range []struct{ name, line, want string }{
		{"dmesg", "[12345.678901] " + msg, "1 oom-kill +3h25m45.678901s" + tail},
		{"dmesg, padded", "[   45.678901] " + msg, "1 oom-kill +45.678901s" + tail},
		{"dmesg with caller", "[12345.678901][ T1234] " + msg, "1 oom-kill +3h25m45.678901s" + tail},
		{"dmesg -x", "kern  :err   : [12345.678901] " + msg, "1 oom-kill +3h25m45.678901s" + tail},
		{"raw level", "<3>[12345.678901] " + msg, "1 oom-kill +3h25m45.678901s" + tail},
		{"dmesg -T", "[Sat Nov 21 06:30:56 2026] " + msg, "1 oom-kill 11-21T06:30:56?" + tail},
		{"dmesg iso", "2026-11-21T06:30:56,123456+00:00 " + msg, "1 oom-kill 11-21T06:30:56" + tail},
		{"journal", "Nov 21 06:30:56 db1 kernel: " + msg, "1 oom-kill 11-21T06:30:56?" + tail},
		{"journal precise", "Nov 21 06:30:56.123456 db1 kernel: " + msg, "1 oom-kill 11-21T06:30:56?" + tail},
		{"journal iso", "2026-11-21T06:30:56+0000 db1 kernel: " + msg, "1 oom-kill 11-21T06:30:56" + tail},
		{"journal iso, other zone", "2026-11-21T08:30:56+02:00 db1 kernel: " + msg, "1 oom-kill 11-21T06:30:56" + tail},
		{"journal iso, west", "2026-11-21T01:00:56-0530 db1 kernel: " + msg, "1 oom-kill 11-21T06:30:56" + tail},
		{"journal full", "Sat 2026-11-21 06:30:56 UTC db1 kernel: " + msg, "1 oom-kill 11-21T06:30:56" + tail},
		{"syslog with printk time", "Nov 21 06:30:56 db1 kernel: [12345.678901] " + msg, "1 oom-kill 11-21T06:30:56?" + tail},
		{"no time", msg, "1 oom-kill" + tail},
	} {
		l := kernelLog(t, c.line+"\n", Options{Around: capture})
		if diff := cmp.Diff([]string{c.want}, briefs(l)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
	// Seconds become times when the boot's is known, and then the window holds.
	boot := capture.Add(-12345 * time.Second)
	text := "[   45.678901] " + msg + "\n[12345.678901] " + msg + "\n"
	l := kernelLog(t, text, Options{Around: capture, Boot: boot})
	if len(l.Facts) != 1 || !l.Facts[0].Time.Equal(capture.Add(678901*time.Microsecond)) {
		t.Errorf("%v", briefs(l))
	}
	// The year of syslog's times is the one near the capture.
	l = kernelLog(t, "Dec 31 23:30:00 db1 kernel: "+msg+"\n", Options{Around: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Location: time.UTC})
	if len(l.Facts) != 1 || l.Facts[0].Time.Year() != 2026 {
		t.Errorf("%v", briefs(l))
	}
}

func TestKernelFacts(t *testing.T) {
	for _, c := range []struct{ msg, want string }{
		{"Memory cgroup out of memory: Killed process 1158 (mysqld) total-vm:1kB", `oom-kill pid=1158 proc="mysqld"`},
		{"Out of memory: Kill process 1158 (mysqld) score 900 or sacrifice child", `oom-kill pid=1158 proc="mysqld"`},
		{"Killed process 1158, UID 27, (mysqld) total-vm:1kB", `oom-kill pid=1158 proc="mysqld"`},
		{"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=my,sql,pid=1158,uid=27", `oom-kill pid=1158 proc="my,sql"`},
		{"pid 1158 (mysqld), jid 0, uid 88, was killed: out of swap space", `oom-kill pid=1158 proc="mysqld" detail="out of swap space"`},
		{"pid 1158 (mysqld), uid 88, was killed: failed to reclaim memory", `oom-kill pid=1158 proc="mysqld" detail="failed to reclaim memory"`},
		{"INFO: task mysqld:1160 blocked for more than 120 seconds.", `hung-task lwp=1160 proc="mysqld" for=2m0s`},
		{"INFO: task ib:io wr-1:19591 blocked for more than 122 seconds.", `hung-task lwp=19591 proc="ib:io wr-1" for=2m2s`},
		{"INFO: task mysqld:1160 <writer> blocked for more than 120 seconds.", ``},
		{"nfs: server filer1 not responding, still trying", `nfs-not-responding server="filer1"`},
		{"nfs: server filer1 not responding, timed out", `nfs-not-responding server="filer1"`},
		{"nfs: server filer1 OK", `nfs-ok server="filer1"`},
		{"nfs server filer1:/vol/db: not responding", `nfs-not-responding server="filer1:/vol/db"`},
		{"newnfs server filer1:/vol/db: is alive again", `nfs-ok server="filer1:/vol/db"`},
		{"mysqld[1160]: segfault at 0 ip 0000555555 sp 00007fff error 4 in mysqld[555555+1000]", `segfault lwp=1160 sig=11 proc="mysqld"`},
		{"pid 1158 (mysqld), jid 0, uid 88: exited on signal 11 (core dumped)", `segfault pid=1158 sig=11 proc="mysqld"`},
		{"blk_update_request: I/O error, dev sda, sector 12345", `io-error path="sda"`},
		{"EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2", `io-error path="sda1"`},
		{"EXT4-fs (sda1): Remounting filesystem read-only", `io-error`},
		{"pid 1158 (mysqld), uid 88 inumber 5 on /var: filesystem full", `disk-full pid=1158 proc="mysqld" path="/var"`},
		{"kern.maxfiles limit exceeded by uid 88, (mysqld) please see tuning(7).", `too-many-files`},
		{"VFS: file-max limit 100 reached", `too-many-files`},
		{"usb 1-1: new device OK", ``}, {"Killed process x", ``}, {"nfs: server OK", ``}, {"device timed out", ``},
	} {
		for _, prefix := range []string{"[   45.678901] ", "Nov 21 06:30:56 db1 kernel: ", "2026-11-21T06:30:56,123456+00:00 "} {
			l := kernelLog(t, prefix+c.msg+"\n", Options{Around: capture})
			var got string
			if len(l.Facts) > 0 {
				f := l.Facts[0]
				f.Time, f.SinceBoot.Known = time.Time{}, false
				got = strings.TrimPrefix(brief(f), "1 ")
			}
			if got != c.want {
				t.Errorf("%s%s\n got %s\nwant %s", prefix, c.msg, got, c.want)
			}
		}
	}
}

func TestOnlyTheKernelSpeaks(t *testing.T) {
	l := kernelLog(t, "Nov 21 06:30:56 db1 evil[77]: Out of memory: Killed process 1158 (mysqld)\nNov 21 06:30:56 db1 kernel: quiet\n"+
		"2026-11-21T06:30:56+0000 db1 evil: Out of memory: Killed process 1158 (mysqld)\n", Options{Around: capture})
	if len(l.Facts) != 0 {
		t.Errorf("%v", briefs(l))
	}
	for _, text := range []string{"", "hello\n", strings.Repeat("\x00\xff\n", 100), "2026-11-21 06:3x:00 x\n"} {
		l, err := ReadKernelLog("k\x1b", strings.NewReader(text), int64(len(text)), Options{})
		if l != nil || !errors.Is(err, ErrNoLog) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q: %v, %v", text, l, err)
		}
	}
}

func FuzzKernelLog(f *testing.F) {
	f.Add("[12345.678901][ T1] Out of memory: Killed process 1158 (mysqld)\n[Sat Nov 21 06:30:56 2026] INFO: task mysqld:1160 blocked for more than 120 seconds.\n")
	f.Add("Nov 21 06:30:56 db1 kernel: nfs: server filer1 not responding, still trying\nSat 2026-11-21 06:30:56 UTC db1 kernel: nfs: server filer1 OK\n")
	f.Add("2026-11-21T06:30:56,123456+00:00 pid 1158 (mysqld), uid 88 inumber 5 on /var: filesystem full\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, o := range []Options{{}, {Around: capture, Boot: capture}} {
			l, err := ReadKernelLog("f", strings.NewReader(text), int64(len(text)), o)
			checkLog(t, text, l, err)
		}
	})
}
