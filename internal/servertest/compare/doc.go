// Package compare measures the whole command against gdb, lldb and eu-stack on
// the same core in the same run. It has only a benchmark in the form of a test,
// because that needs real servers with hundreds of connections: `make bench`
// runs it, and every other run of the tests skips it. What must hold on any
// machine, reads and allocations, is tested in internal/analyze.
package compare
