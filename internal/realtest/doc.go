// Package realtest holds the tests of the whole analysis on real servers: the
// incident is brought about in a running MariaDB or MySQL, cored, analysed, and
// the result compared with what the server and the kernel said before, and with
// what debuggers read from the same core. It has no code of its own.
//
// Nothing here expects a version, a build ID, an address or a list of names:
// expectations come from the running server. internal/servertest starts and
// cores it, one at a time.
package realtest
