package procstat

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestPS(t *testing.T) {
	optionO := "  PID WCHAN   TT  STAT     TIME COMMAND\n" +
		"  999 wait    -  Is    0:00.01 /bin/sh /usr/local/bin/mysqld_safe\n" +
		" 1158 fifoor  -  I     0:00.03 /usr/local/libexec/mysqld --basedir=/usr/local\n" +
		" 1158 -       -  R     1:00.03 /usr/local/libexec/mysqld --basedir=/usr/local\n" +
		" 1158         -  R+    0:00.03 /usr/local/libexec/mysqld --basedir=/usr/local\n" +
		" 1158 fffff80003a1f490 v0- D<  0:00.03 /usr/local/libexec/mysqld --basedir=/usr/local\n" +
		" 1158 fifoor  -  I    10:00.03 /usr/local/libexec/mysqld --basedir=/usr/local\n"
	cmd := `"/usr/local/libexec/mysqld --basedir=/usr/local"`
	wantO := "pid 1158 \nline %d: \"fifoor\" \"I\" " + cmd + "\nline %d: \"\" \"R\" " + cmd + "\nline %d: \"\" \"R\" " + cmd +
		"\nline %d: \"\" \"D\" " + cmd + "\nline %d: \"fifoor\" \"I\" " + cmd + "\n"
	at := func(want string, first int) string {
		return fmt.Sprintf(want, first, first+1, first+2, first+3, first+4)
	}
	columns := "  PID    LWP WCHAN    STAT COMMAND TDNAME\n" +
		" 1158 100411 select   Is   mysqld  \n" +
		" 1158 100412          R    mysqld  io 1\n" +
		" 1158 100413 *vm page L    mysqld  \n" +
		" 1158 100460 fifoor   I+   mysqld  connection 1\n" +
		"  999 100999 wait     I    sh      \n"
	wantC := "pid 1158 \n100411 name=\"\" state=\"I\" wchan=\"select\"\n100412 name=\"io 1\" state=\"R\" wchan=\"\"\n" +
		"100413 name=\"\" state=\"L\" wchan=\"*vm page\"\n100460 name=\"connection 1\" state=\"I\" wchan=\"fifoor\"\n"
	for _, c := range []struct{ name, text, want string }{
		{"-O wchan", optionO, at(wantO, 3)},
		{"-O wchan, no header", noHeaders(optionO), at(wantO, 2)},
		{"-O wchan, squeezed", squeeze(optionO), at(wantO, 3)},
		{"-O wchan, squeezed, no header", squeeze(noHeaders(optionO)), at(wantO, 2)},
		{"columns", columns, wantC},
		{"columns, squeezed", squeeze(columns), wantC},
		{"columns, squeezed, no header", squeeze(noHeaders(columns)), wantC},
		{"columns, crlf", strings.ReplaceAll(columns, "\n", "\r\n"), wantC},
		{"long form", " UID  PID PPID C PRI NI   VSZ  RSS MWCHAN STAT TT     TIME COMMAND\n  88 1158    1 0  20  0 12345 6789 fifoor I     -  0:00.03 mysqld\n",
			"pid 1158 \nline 2: \"fifoor\" \"I\" \"mysqld\"\n"},
		{"WCHAN after the command", "  PID COMMAND WCHAN\n 1158 mysqld  fifoor\n 1158 mysqld  \n",
			"pid 1158 \nline 2: \"fifoor\" \"\" \"mysqld\"\nline 3: \"\" \"\" \"mysqld\"\n"},
		{"WCHAN after the command, with state", "  PID COMMAND  STAT WCHAN\n 1158 my sqld  I    fifoor\n 1158 my sqld  R\n",
			"pid 1158 \nline 2: \"fifoor\" \"I\" \"my sqld\"\nline 3: \"\" \"R\" \"my sqld\"\n"},
		{"another system's", "    PID     LWP WCHAN  STAT COMMAND\n   1158    1160 wait_f S    mysqld\n", "pid 1158 \n1160 name=\"\" state=\"S\" wchan=\"wait_f\"\n"},
		{"json", `{"process-information": {"process": [{"pid":"1158","lwp":"100460","wait-channel":"fifoor","state":"I+","command":"mysqld","thread-name":"conn"},{"pid":"1158","wait-channel":"uwait","state":"I","command":"mysqld"},{"pid":"9","wait-channel":"x"}]}}`,
			"pid 1158 \n100460 name=\"conn\" state=\"I\" wchan=\"fifoor\"\nline 1: \"uwait\" \"I\" \"mysqld\"\n"},
		{"procstat's rows", "1158 100460 mysqld - 0 120 sleep fifoor\n", "pid 1158 mysqld\n100460 name=\"mysqld\" state=\"S\" wchan=\"fifoor\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := ReadPS("ps.txt", strings.NewReader(c.text), 1158)
			if err != nil {
				t.Fatal(err)
			}
			check(t, show(p), c.want)
		})
	}
}

func TestPSOfOthers(t *testing.T) {
	_, err := ReadPS("ps.txt", strings.NewReader("  PID WCHAN  TT STAT TIME COMMAND\n  999 wait - I 0:00.01 sh\n"), 1158)
	if !errors.Is(err, ErrOtherProcess) || err.Error() != `"ps.txt": ps output of another process: of process 999, not of 1158` {
		t.Error(err)
	}
	_, err = ReadPS("ps.txt", strings.NewReader("hello\n"), 1158)
	if !errors.Is(err, ErrNoOutput) || err.Error() != "\"ps.txt\": no output found: no ps output in 1 lines; give the text of `ps -axHo pid,lwp,wchan,state,comm,tdname`" {
		t.Error(err)
	}
}

const kgdbText = "(kgdb) info threads\n" +
	"* 145 Thread 100460 (PID=1158: mysqld)  sched_switch (td=0xfffff80003a1f490) at /usr/src/sys/kern/sched_ule.c:1945\n" +
	"(kgdb) tid 100460\n" +
	"[Switching to thread 145 (Thread 100460)]#0  sched_switch (td=0xfffff80003a1f490, newtd=<value optimized out>) at /usr/src/sys/kern/sched_ule.c:1945\n" +
	"1945\t\t\tcpuid = PCPU_GET(cpuid);\n" +
	"(kgdb) bt\n" +
	"#0  sched_switch (td=0xfffff80003a1f490) at /usr/src/sys/kern/sched_ule.c:1945\n" +
	"#1  0xffffffff8094f6e1 in mi_switch (flags=260, newtd=0x0)\n    at /usr/src/sys/kern/kern_synch.c:492\n" +
	"#2  0xffffffff80866f0c in fifo_open (ap=0xfffffe00f) at /usr/src/sys/fs/fifofs/fifo_vnops.c:190\n" +
	"#3  0xffffffff80a0c1e2 in kern_openat (td=0x0) at vnode_if.h:196\n" +
	"#4  0x0000000801c4a9ca in ?? ()\nPrevious frame inner to this frame (corrupt stack?)\n"

func TestKgdb(t *testing.T) {
	want := "pid 1158 \n100460 name=\"\" state=\"\" wchan=\"\" stack=sched_switch<mi_switch<fifo_open<kern_openat\n"
	bt := kgdbText[strings.Index(kgdbText, "#0  sched_switch (td=0xfffff80003a1f490) at"):]
	for _, text := range map[string]string{
		"session": kgdbText, "tid command": "(kgdb) tid 100460\n" + bt,
		"all threads": "Thread 145 (Thread 100460):\n" + bt,
		"with pid":    "Thread 145 (Thread 100460 (PID=1158: mysqld)):\n" + bt + "\nThread 9 (Thread 100007 (PID=999: sh)):\n" + bt,
	} {
		got := show(read(t, text+"\n1158 mysqld TERM ---\n", 1158))
		got, _, _ = strings.Cut(got, CodeIncomplete)
		check(t, strings.Replace(got, "pid 1158 mysqld\n", "pid 1158 \n", 1), want)
	}
	if p := read(t, kgdbText, 1158); p.Threads[100460] == nil {
		t.Errorf("the backtrace alone: %s", show(p))
	}
	// No thread, a user's backtrace, a piece of one.
	p := read(t, bt+"\n1158 100460 mysqld - 0 120 sleep fifoor\n", 1158)
	if p.Threads[100460].KernelStack.Known || len(p.Warnings) != 1 || p.Warnings[0].Code != CodeNoThread {
		t.Errorf("%s", show(p))
	}
	for name, text := range map[string]string{
		"user code":     "Thread 2 (Thread 829e76000 (LWP 100460)):\n#0  0x0000000801c4a9ca in open () from /lib/libc.so.7\n#1  0x0000000000801234 in my_open ()\n",
		"user, by tid":  "tid 100460\n#0  0x0000000801c4a9ca in open () from /lib/libc.so.7\n",
		"tail":          "tid 100460\n#5  0xffffffff80866f0c in fifo_open (ap=0)\n",
		"wrong numbers": "tid 100460\n#0  sched_switch ()\n#0  0x0000000801c4a9ca in open ()\n",
	} {
		if p, err := ReadProcstat("f", strings.NewReader(text), 1158); err == nil && p.Threads[100460].KernelStack.Known && name != "wrong numbers" {
			t.Errorf("%s: %s", name, show(p))
		}
	}
}
