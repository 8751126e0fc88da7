package servertest

import "syscall"

// mkfifo makes a FIFO that everyone may use.
func mkfifo(path string) error { return syscall.Mkfifo(path, 0o666) }
