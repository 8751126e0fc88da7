package story

import (
	"fmt"
	"strings"
)

// Texts are what a person saved beside the core, by file name.
func Texts() map[string]string {
	return map[string]string{
		"procstat-t.txt":    ProcstatThreads(),
		"procstat-kk.txt":   ProcstatStacks(),
		"procstat-t.json":   ProcstatThreadsJSON(),
		"procstat-f.txt":    ProcstatFiles(),
		"ps.txt":            PS(),
		"innodb-status.txt": InnoDBStatus(),
		"processlist.txt":   Processlist(),
	}
}

// ProcstatThreads is the output of procstat -t 1158 before the core was made.
func ProcstatThreads() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%5s %6s %-19s %-19s %3s %4s %-7s %-9s\n", "PID", "TID", "COMM", "TDNAME", "CPU", "PRI", "STATE", "WCHAN")
	for _, r := range roles() {
		fmt.Fprintf(&b, "%5d %6d %-19s %-19s %3d %4d %-7s %-9s \n", PID, r.lwp, "mysqld", "-", 0, 120, "sleep", r.wmesg)
	}
	return b.String()
}

// ProcstatThreadsJSON is procstat --libxo json -t 1158.
func ProcstatThreadsJSON() string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"__version": "1", "procstat": {"threads": {"%d": {"process_id": %d, "command": "mysqld", "threads": {`, PID, PID)
	for i, r := range roles() {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, `"%d": {"thread_id": %d, "thread_name": "-", "cpu": 0, "priority": 120, "run_state": "sleep", "wait_channel": "%s"}`, r.lwp, r.lwp, r.wmesg)
	}
	b.WriteString("}}}}}\n")
	return b.String()
}

// ProcstatStacks is the output of procstat -kk 1158.
func ProcstatStacks() string {
	const sleep = "mi_switch+0xe1 sleepq_catch_signals+0xab sleepq_wait_sig+0xf "
	const end = " amd64_syscall+0x40f Xfast_syscall+0xfb"
	stacks := map[string]string{
		"fifoor":  sleep + "_sleep+0x27d fifo_open+0x1a9 VOP_OPEN_APV+0xa1 vn_open_vnode+0x263 vn_open_cred+0x39c kern_openat+0x25e" + end,
		"uwait":   sleep + "_sleep+0x27d umtxq_sleep+0x125 do_wait+0x387 __umtx_op_wait_uint_private+0x83" + end,
		"select":  sleep + "_cv_wait_sig+0x16a seltdwait+0xae sys_poll+0x37d" + end,
		"sigwait": sleep + "_sleep+0x27d kern_sigtimedwait+0x4e2 sys_sigwait+0x4b" + end,
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%5s %6s %-19s %-19s %-29s\n", "PID", "TID", "COMM", "TDNAME", "KSTACK")
	for _, r := range roles() {
		fmt.Fprintf(&b, "%5d %6d %-19s %-19s %-29s \n", PID, r.lwp, "mysqld", "-", stacks[r.wmesg])
	}
	return b.String()
}

// ProcstatFiles is the output of procstat -f 1158.
func ProcstatFiles() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%5s %-16s %4s %1s %1s %-8s %3s %7s %-3s %-12s\n", "PID", "COMM", "FD", "T", "V", "FLAGS", "REF", "OFFSET", "PRO", "NAME")
	special := map[int]string{-1: "cwd", -2: "root", -5: "text"}
	for _, f := range fileTable() {
		fd, ok := special[f.fd]
		if !ok {
			fd = fmt.Sprint(f.fd)
		}
		flags := []byte("--------")
		for i, bit := range []int{1, 2, 4} {
			if f.flags&bit != 0 {
				flags[i] = "rwa"[i]
			}
		}
		typ, v, proto, name := "v", map[int]string{1: "r", 2: "d", 4: "c"}[f.vtype], "-", f.path
		if f.typ == 2 {
			typ, v = "s", "-"
			if f.domain == 2 {
				proto, name = "TCP", inetText(f.local)+" "+inetText(f.peer)
			} else {
				proto, name = "UDS", "/tmp/mysql.sock"
			}
		}
		fmt.Fprintf(&b, "%5d %-16s %4s %1s %1s %-8s %3d %7d %-3s %-12s\n", PID, "mysqld", fd, typ, v, flags, 1, 0, proto, name)
	}
	return b.String()
}

func inetText(a []byte) string {
	return fmt.Sprintf("%d.%d.%d.%d:%d", a[4], a[5], a[6], a[7], int(a[2])<<8|int(a[3]))
}

// PS is the output of ps -U mysql -H -O wchan.
func PS() string {
	var b strings.Builder
	b.WriteString(" PID WCHAN   TT  STAT    TIME COMMAND\n")
	fmt.Fprintf(&b, " %d %-7s -  %-4s %7s %s\n", safePID, "wait", "Is", "0:00.01", "/bin/sh /usr/local/bin/mysqld_safe --defaults-extra-file=/var/db/mysql/my.cnf --user=mysql")
	for _, r := range roles() {
		fmt.Fprintf(&b, "%4d %-7s -  %-4s %7s %s\n", PID, r.wmesg, "I", "0:00.03", strings.Join(argv, " "))
	}
	return b.String()
}

// InnoDBStatus is the part of SHOW ENGINE INNODB STATUS\G that names sessions.
func InnoDBStatus() string {
	return `*************************** 1. row ***************************
  Type: InnoDB
  Name: 
Status: 
=====================================
2015-08-04 05:30:17 82a1e7400 INNODB MONITOR OUTPUT
=====================================
Per second averages calculated from the last 13 seconds
------------
TRANSACTIONS
------------
Trx id counter 2319
Purge done for trx's n:o < 2313 undo n:o < 0 state: running but idle
History list length 3
LIST OF TRANSACTIONS FOR EACH SESSION:
---TRANSACTION 0, not started
MySQL thread id 2, OS thread handle 0x829e76800, query id 11 localhost root init
show engine innodb status
---TRANSACTION 0, not started
mysql tables in use 1, locked 1
MySQL thread id 1, OS thread handle 0x829e76000, query id 9 localhost root System lock
` + Query + `
--------
FILE I/O
--------
I/O thread 0 state: waiting for i/o request (insert buffer thread)
I/O thread 1 state: waiting for i/o request (log thread)
----------------------------
END OF INNODB MONITOR OUTPUT
============================

1 row in set (0.00 sec)
`
}

// Processlist is the output of SHOW FULL PROCESSLIST\G.
func Processlist() string {
	return `*************************** 1. row ***************************
     Id: 1
   User: root
   Host: localhost
     db: fifo
Command: Query
   Time: 13
  State: System lock
   Info: ` + Query + `
*************************** 2. row ***************************
     Id: 2
   User: root
   Host: localhost
     db: NULL
Command: Query
   Time: 0
  State: init
   Info: show full processlist
2 rows in set (0.00 sec)
`
}
