package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/ulikunitz/xz"

	"mycore/internal/coretest"
	"mycore/internal/coretest/story"
	"mycore/internal/demo"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mycore": main})
}

// TestScripts runs testdata/script/*.txtar. Each finds in its directory
// ghost.core and proc, the embedded incident, and in its environment what the
// core's notes say about the blocked thread: LWP, HANDLE and HANDLE_DEC, FIFO,
// and in OTHER_LWP another thread.
func TestScripts(t *testing.T) {
	t.Parallel()
	plain := plainCore(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(cond string) (bool, error) {
			if cond != "shared" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			_, err := os.Stat(sharedCores(t))
			return err == nil, nil
		},
		Setup: func(env *testscript.Env) error { return setup(t, env, plain) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit":          cmdExit,
			"fifo":          cmdFIFO,
			"pack":          cmdPack,
			"cut":           cmdCut,
			"shared":        func(ts *testscript.TestScript, _ bool, args []string) { cmdShared(t, ts, args) },
			"image":         cmdImage,
			"valid":         cmdValid,
			"same-incident": cmdSameIncident,
			"one-line":      cmdOneLine,
			"plain-text":    cmdPlainText,
			"fits":          cmdFits,
			"empty-dir":     cmdEmptyDir,
			"cp-tree":       cmdCopyTree,
			"forget":        func(ts *testscript.TestScript, _ bool, args []string) { cmdForget(t, ts, args) },
			"taint":         func(ts *testscript.TestScript, _ bool, args []string) { cmdTaint(t, ts, args) },
			"other-process": cmdOtherProcess,
			"story":         cmdStory,
		},
	})
}

// plainCore is the embedded core, unpacked.
func plainCore(t *testing.T) []byte {
	t.Helper()
	dir, err := demo.Extract(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, demo.Core))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func setup(t *testing.T, env *testscript.Env, core []byte) error {
	dir, err := demo.Extract(env.WorkDir)
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.Rename(filepath.Join(dir, demo.Proc), filepath.Join(env.WorkDir, "proc")),
		os.RemoveAll(dir),
		os.WriteFile(filepath.Join(env.WorkDir, "ghost.core"), core, 0o600),
		os.Mkdir(filepath.Join(env.WorkDir, "nothing"), 0o700), // a sysroot without files
	); err != nil {
		return err
	}
	e := coretest.NewEdit(t, core)
	for _, lwp := range e.Threads() {
		b, err := os.ReadFile(filepath.Join(env.WorkDir, "proc", "task", strconv.Itoa(lwp), "wchan"))
		if err != nil || strings.TrimSpace(string(b)) != "wait_for_partner" {
			env.Setenv("OTHER_LWP", strconv.Itoa(lwp))
			env.Setenv("OTHER_HANDLE", fmt.Sprintf("%#x", e.Reg(lwp, coretest.RegFSBase)))
			continue
		}
		handle := e.Reg(lwp, coretest.RegFSBase)
		env.Setenv("LWP", strconv.Itoa(lwp))
		env.Setenv("HANDLE", fmt.Sprintf("%#x", handle))
		env.Setenv("HANDLE_HEX", fmt.Sprintf("%x", handle))
		env.Setenv("HANDLE_DEC", strconv.FormatUint(handle, 10))
		env.Setenv("INSIDE", fmt.Sprintf("%#x", handle+16))
		env.Setenv("FIFO", e.CString(e.Reg(lwp, coretest.RegRSI)))
	}
	env.Setenv("THREADS", strconv.Itoa(len(e.Threads())))
	env.Setenv("PID", strconv.Itoa(e.Threads()[0]))
	if env.Getenv("LWP") == "" {
		return errors.New("no thread of the embedded incident waits in wait_for_partner")
	}
	// What the caller's shell has set must not reach the scripts.
	env.Setenv("NO_COLOR", "")
	env.Setenv("TERM", "xterm")
	env.Setenv("ESC", "\x1b")
	return nil
}

// exit CODE COMMAND...: the command ends with exactly this code.
func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		code = failed.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func cmdFIFO(ts *testscript.TestScript, _ bool, args []string) {
	for _, a := range args {
		ts.Check(syscall.Mkfifo(ts.MkAbs(a), 0o600))
	}
}

// pack FORMAT FROM TO compresses a file.
func cmdPack(ts *testscript.TestScript, _ bool, args []string) {
	out, err := os.Create(ts.MkAbs(args[2]))
	ts.Check(err)
	defer out.Close()
	var w io.WriteCloser
	switch args[0] {
	case "gzip":
		w = gzip.NewWriter(out)
	case "zstd":
		w, err = zstd.NewWriter(out)
	case "xz":
		w, err = xz.NewWriter(out)
	case "lz4":
		z := lz4.NewWriter(out)
		ts.Check(z.Apply(lz4.BlockSizeOption(lz4.Block64Kb))) // so that a part of it can be read
		w = z
	default:
		ts.Fatalf("no format %s", args[0])
	}
	ts.Check(err)
	_, err = w.Write([]byte(ts.ReadFile(args[1])))
	ts.Check(errors.Join(err, w.Close()))
}

// cut FROM TO PERCENT keeps the beginning of a file.
func cmdCut(ts *testscript.TestScript, _ bool, args []string) {
	b := ts.ReadFile(args[0])
	percent, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b[:len(b)*percent/100]), 0o600))
}

// sharedCores is where the shared real cores are, if they are.
func sharedCores(t *testing.T) string {
	return filepath.Join(coretest.Module(t), "..", "shared", "cores")
}

// shared NAME TO links a shared real core; [shared] says whether there are any.
func cmdShared(t *testing.T, ts *testscript.TestScript, args []string) {
	path := filepath.Join(sharedCores(t), args[0])
	_, err := os.Stat(path)
	ts.Check(errors.Join(err, os.Symlink(path, ts.MkAbs(args[1]))))
}

// image TO writes a small ELF library with a build ID of its own.
func cmdImage(ts *testscript.TestScript, _ bool, args []string) {
	img := &coretest.Image{BuildID: bytes.Repeat([]byte{0xab}, 20), Text: []byte{0xc3}}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), img.Bytes(), 0o600))
}

// story DIR [VARIANT...] writes the FreeBSD incident: mysqld.core, sysroot/ and
// the texts. Variants: kernel (a core by the kernel), 12, 13 (of that release).
func cmdStory(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: story DIR [VARIANT...]")
	}
	var o story.Options
	for _, a := range args[1:] {
		switch a {
		case "kernel":
			o.KernelCore = true
		case "12":
			o.Release = 12
		case "13":
			o.Release = 13
		default:
			ts.Fatalf("unknown variant %q", a)
		}
	}
	_, _, err := story.Build(o).Write(ts.MkAbs(args[0]))
	ts.Check(err)
}

// valid FILE: an incident by the schema that the program prints.
func cmdValid(ts *testscript.TestScript, neg bool, args []string) {
	schema, err := jsonschema.UnmarshalJSON(strings.NewReader(ts.ReadFile("schema.json")))
	ts.Check(err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	ts.Check(c.AddResource("mem:schema", schema))
	s, err := c.Compile("mem:schema")
	ts.Check(err)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	if err := s.Validate(doc); (err != nil) != neg {
		ts.Fatalf("%s: %v", args[0], err)
	}
}

// same-incident A B: equal apart from what tells the files apart.
func cmdSameIncident(ts *testscript.TestScript, neg bool, args []string) {
	var docs [2][]byte
	for i := range docs {
		var doc map[string]any
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[i])), &doc))
		delete(doc, "capturedAt")
		input, ok := doc["input"].(map[string]any)
		if !ok {
			ts.Fatalf("%s has no input", args[i])
		}
		delete(input, "path")
		delete(input, "size")
		b, err := json.MarshalIndent(doc, "", " ")
		ts.Check(err)
		docs[i] = b
	}
	if bytes.Equal(docs[0], docs[1]) == neg {
		ts.Fatalf("%s and %s: equal is %v", args[0], args[1], !neg)
	}
}

// one-line FILE: a single line that starts with the program's name.
func cmdOneLine(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "mycore: ") || !strings.HasSuffix(text, "\n") {
		ts.Fatalf("not one line of mycore: %q", text)
	}
}

// plain-text FILE: no byte that steers a terminal.
func cmdPlainText(ts *testscript.TestScript, neg bool, args []string) {
	bad := strings.IndexFunc(ts.ReadFile(args[0]), func(r rune) bool {
		return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0
	})
	if (bad >= 0) != neg {
		ts.Fatalf("control character at %d", bad)
	}
}

// fits FILE: the verdict, up to the first finding's detail, fits a screen of
// 80x24, and no line is wider than that.
func cmdFits(ts *testscript.TestScript, _ bool, args []string) {
	verdict, _, ok := strings.Cut(ts.ReadFile(args[0]), "\nFINDING 1")
	if n := strings.Count(verdict, "\n"); !ok || n > 24 {
		ts.Fatalf("the verdict has %d lines", n)
	}
	for l := range strings.Lines(verdict) {
		// A command must stay in one piece.
		if len([]rune(l)) > 81 && !strings.Contains(l, "timeout 5") {
			ts.Fatalf("too wide: %q", l)
		}
	}
}

// empty-dir DIR: no file was left there.
func cmdEmptyDir(ts *testscript.TestScript, _ bool, args []string) {
	list, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(list) > 0 {
		ts.Fatalf("%s holds %v", args[0], list)
	}
}

// forget FROM TO LWP takes a thread out of the core's notes: its structure
// stays in memory, as that of a thread that ended.
func cmdForget(t *testing.T, ts *testscript.TestScript, args []string) {
	e := coretest.NewEdit(t, []byte(ts.ReadFile(args[0])))
	lwp, err := strconv.Atoi(args[2])
	ts.Check(err)
	e.Forget(lwp)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), e.B, 0o600))
}

// taint FROM TO puts text that steers terminals wherever a process can put
// text: the path that a thread opens, and the names of mapped files.
func cmdTaint(t *testing.T, ts *testscript.TestScript, args []string) {
	e := coretest.NewEdit(t, []byte(ts.ReadFile(args[0])))
	lwp, err := strconv.Atoi(ts.Getenv("LWP"))
	ts.Check(err)
	const evil = "\x1b[2J\x1b]0;title\x07\r\nFINDING 9  forged\u009b1m\u202e"
	path := "/tmp/" + evil + "\x00"
	copy(e.Mem(e.Reg(lwp, coretest.RegRSI), len(path)), path)
	files := e.Files()
	for i := range files {
		files[i].Path += evil
	}
	e.SetFiles(files)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), e.B, 0o600))
}

func cmdCopyTree(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.CopyFS(ts.MkAbs(args[1]), os.DirFS(ts.MkAbs(args[0]))))
}

// other-process DIR: the /proc tree becomes that of another process, with
// other threads.
func cmdOtherProcess(ts *testscript.TestScript, _ bool, args []string) {
	dir, pid := ts.MkAbs(args[0]), ts.Getenv("PID")
	const other = 999999
	for _, name := range []string{"status", "stat"} {
		replaceWord(ts, filepath.Join(dir, name), pid, other)
	}
	tasks, err := os.ReadDir(filepath.Join(dir, "task"))
	ts.Check(err)
	for i, task := range tasks {
		from := filepath.Join(dir, "task", task.Name())
		for _, name := range []string{"status", "stat"} {
			if _, err := os.Stat(filepath.Join(from, name)); err == nil {
				replaceWord(ts, filepath.Join(from, name), pid, other)
				replaceWord(ts, filepath.Join(from, name), task.Name(), other+i)
			}
		}
		ts.Check(os.Rename(from, filepath.Join(dir, "task", strconv.Itoa(other+i))))
	}
}

func replaceWord(ts *testscript.TestScript, path, old string, to int) {
	b, err := os.ReadFile(path)
	ts.Check(err)
	ts.Check(os.WriteFile(path, bytes.ReplaceAll(b, []byte(old), []byte(strconv.Itoa(to))), 0o600))
}
