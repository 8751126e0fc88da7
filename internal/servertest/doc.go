// Package servertest runs real database servers and small C programs for
// tests: it starts them, brings about an incident, saves what the kernel says
// about them, and makes cores of them. Only tests import it.
//
// The servers are those that scripts/test-deps.sh installs. [Get] skips the
// test where a server isn't installed, or fails it when RequireEnv is set, as
// `make test` does. Nothing here expects a version, a build ID or an address:
// what is true of a server comes from the running server ([Truth]).
//
// core_pattern, ports and disk space belong to the whole machine, so every
// test that starts something holds one lock ([Lock]) until it ends. All waits
// have deadlines; servers, cores and data directories go when the test ends.
//
// A server of another Debian suite runs in a root directory of its own
// ([Install.Root]); paths "as the server sees them" are inside that root.
package servertest
