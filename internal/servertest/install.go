package servertest

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// RequireEnv is the environment variable that turns "not installed, skipped"
// into a failure.
const RequireEnv = "MYCORE_REQUIRE_SERVERS"

// Kind names a server that tests may run.
type Kind string

// The servers that scripts/test-deps.sh installs. MySQL 9.7 stands for what
// Debian's development suite carries at the moment.
const (
	MariaDB1011 Kind = "mariadb-10.11"
	MySQL56     Kind = "mysql-5.6.24"
	MySQL97     Kind = "mysql-9.7"
	MariaDB118  Kind = "mariadb-11.8"
	MariaDB105  Kind = "mariadb-10.5"
)

// Default lists the servers that are installed unless others are asked for.
func Default() []Kind { return []Kind{MariaDB1011, MySQL56, MySQL97} }

// Install is an installed server.
type Install struct {
	Kind Kind
	// Exe is the server's executable on this machine.
	Exe string
	// Root is the directory that the server runs chrooted in, "" for none. It
	// is the sysroot of debuggers.
	Root string

	share  string   // directory of the bootstrap's SQL files, as the server sees it
	libDir string   // directory with libraries for LD_LIBRARY_PATH, or ""
	uid    uint32   // of the user mysql
	gid    uint32   // of the user mysql
	args   []string // options that this build needs to find its own files
}

// MariaDB tells whether the server is of that family, not MySQL's.
func (in *Install) MariaDB() bool {
	return in.Kind == MariaDB1011 || in.Kind == MariaDB118 || in.Kind == MariaDB105
}

// inRoot turns a path as the server sees it into one of this machine.
func (in *Install) inRoot(path string) string {
	if in.Root == "" {
		return path
	}
	return filepath.Join(in.Root, path)
}

// exeInRoot is the executable as the server sees it.
func (in *Install) exeInRoot() string { return strings.TrimPrefix(in.Exe, in.Root) }

// cacheDir is where scripts/test-deps.sh puts what isn't the system's.
func cacheDir() string {
	if d := os.Getenv("MYCORE_CACHE"); d != "" {
		return d
	}
	return "/var/cache/mycore"
}

// Get returns the installed server of that kind. Where there is none, it skips
// the test and says why, or fails it when RequireEnv is set.
func Get(t testing.TB, k Kind) *Install {
	t.Helper()
	Available(t)
	in, err := find(k)
	if err != nil {
		missing(t, err)
	}
	return in
}

// Available skips the test, or fails it when RequireEnv is set, where no
// process can be started and cored by this package at all.
func Available(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes: left out by -short")
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		missing(t, fmt.Errorf("real servers need linux on amd64, this is %s on %s", runtime.GOOS, runtime.GOARCH))
	}
	if os.Geteuid() != 0 {
		missing(t, fmt.Errorf("real servers need root: core_pattern is changed, and servers run as the user mysql"))
	}
}

func missing(t testing.TB, err error) {
	t.Helper()
	if os.Getenv(RequireEnv) == "1" {
		t.Fatalf("%v (required by %s)", err, RequireEnv)
	}
	t.Skipf("%v; scripts/test-deps.sh installs what is needed", err)
}

// find looks where scripts/test-deps.sh puts the server.
func find(k Kind) (*Install, error) {
	in := &Install{Kind: k, share: "/usr/share/mysql"}
	cache := cacheDir()
	stamp := "" // written by the script once the files beside it are complete
	switch k {
	case MariaDB1011:
		in.Exe = "/usr/sbin/mariadbd"
	case MySQL56:
		dir := filepath.Join(cache, "mysql-5.6.24")
		stamp = dir + ".ready"
		in.libDir = filepath.Join(dir, "package", "server")
		in.Exe = filepath.Join(in.libDir, "mysqld")
		in.share = filepath.Join(in.libDir, "share")
		in.args = []string{"--basedir=" + in.libDir, "--lc-messages-dir=" + in.share,
			"--character-sets-dir=" + filepath.Join(in.share, "charsets")}
	case MySQL97:
		in.Root = filepath.Join(cache, "root-sid")
		in.Exe = in.inRoot("/usr/sbin/mysqld")
	case MariaDB118:
		in.Root = filepath.Join(cache, "root-trixie")
		in.Exe = in.inRoot("/usr/sbin/mariadbd")
		in.share = "/usr/share/mariadb"
	case MariaDB105:
		in.Root = filepath.Join(cache, "root-bullseye")
		in.Exe = in.inRoot("/usr/sbin/mariadbd")
	default:
		return nil, fmt.Errorf("no server is known as %q", k)
	}
	if in.Root != "" {
		stamp = in.Root + ".ready"
	}
	for _, p := range []string{in.Exe, stamp} {
		if p == "" {
			continue
		}
		if _, err := os.Stat(p); err != nil {
			return nil, fmt.Errorf("%s isn't installed: %w", k, err)
		}
	}
	return in, in.lookUpUser()
}

// lookUpUser finds the ids that the server runs under.
func (in *Install) lookUpUser() error {
	u, err := user.Lookup("mysql")
	if err != nil {
		return fmt.Errorf("%s runs as the user mysql: %w", in.Kind, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("user id %q of mysql: %w", u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return fmt.Errorf("group id %q of mysql: %w", u.Gid, err)
	}
	in.uid, in.gid = uint32(uid), uint32(gid)
	return nil
}

// credential is the user that servers run as. MySQL 5.6.24 must be started as
// that user: it doesn't make itself dumpable again after changing it.
func (in *Install) credential() *syscall.Credential {
	return &syscall.Credential{Uid: in.uid, Gid: in.gid}
}
