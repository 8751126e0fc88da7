package analyze_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"mycore/internal/analyze"
	"mycore/internal/coretest/story"
	"mycore/internal/elfimage"
	"mycore/internal/incident"
)

// textInputs sets one text input of the options.
var textInputs = map[string]func(*analyze.Options, string){
	"procstat":      func(o *analyze.Options, path string) { o.Procstat = path },
	"ps":            func(o *analyze.Options, path string) { o.PS = path },
	"innodb-status": func(o *analyze.Options, path string) { o.InnoDBStatus = path },
	"processlist":   func(o *analyze.Options, path string) { o.Processlist = path },
	"error-log":     func(o *analyze.Options, path string) { o.ErrorLog = path },
	"kernel-log":    func(o *analyze.Options, path string) { o.KernelLog = path },
}

// given analyses the story with one text.
func (g *ghostBSD) given(t *testing.T, input, path string) *incident.Incident {
	t.Helper()
	opts := g.options(t)
	textInputs[input](&opts, path)
	inc := run(t, opts).Incident
	want := []incident.InputFile{{Kind: input, Path: path}}
	if !slices.Equal(inc.Input.Others, want) {
		t.Errorf("inputs %+v", inc.Input.Others)
	}
	return inc
}

// The kernel core of the story has no wait message: what a text says of it can
// only be from that text.
func lostWaits(t *testing.T) *ghostBSD {
	t.Helper()
	return newStory(t, story.Options{KernelCore: true})
}

func TestStoryProcstatThreads(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"procstat-t.txt", "procstat-t.json"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			g := lostWaits(t)
			inc := g.given(t, "procstat", g.text(file))
			wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
			for _, th := range g.s.Threads {
				if w := threadOf(t, inc, th.LWP).WaitChannel; w == nil || *w != (incident.Sourced{Value: th.Wmesg, Source: "procstat"}) {
					t.Errorf("LWP %d: wait channel %+v, want %s", th.LWP, w, th.Wmesg)
				}
			}
			for _, th := range inc.Threads {
				if th.Idle == nil || *th.Idle != (th.LWP != story.ConnLWP) {
					t.Errorf("LWP %d: idle %v", th.LWP, th.Idle)
				}
			}
			// Where the core has the message, it is the nearer witness.
			g = newStory(t, story.Options{})
			inc = g.given(t, "procstat", g.text(file))
			f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
			if e := evidenceOf(f, "wait channel"); e.Source != "core-note" {
				t.Errorf("%+v", e)
			}
		})
	}
}

// A kernel stack is evidence on its own.
func TestStoryKernelStacks(t *testing.T) {
	t.Parallel()
	g := lostWaits(t)
	inc := g.given(t, "procstat", g.text("procstat-kk.txt"))
	f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
	e := evidenceOf(f, "kernel stack")
	if e.Source != "procstat" || !strings.Contains(e.Value, "fifo_open") {
		t.Errorf("%+v", f.Evidence)
	}
	th := threadOf(t, inc, story.ConnLWP)
	open, at := slices.Index(th.KernelStack, "fifo_open"), slices.Index(th.KernelStack, "kern_openat")
	if open < 0 || at < open || th.WaitChannel != nil {
		t.Errorf("kernel stack %q, wait channel %+v", th.KernelStack, th.WaitChannel)
	}
	// The stack of another wait takes the label away.
	text := regexp.MustCompile(`_sleep\S* fifo_open\S* `).ReplaceAllString(story.ProcstatStacks(), "nfs_request+0x1 ")
	if text == story.ProcstatStacks() {
		t.Fatal("no fifo_open in the story's kernel stacks")
	}
	wantNothing(t, g.given(t, "procstat", g.save(t, text)))
	// As does that of a thread that isn't in open().
	text = strings.ReplaceAll(story.ProcstatStacks(), strconv.Itoa(neighbour), "999999")
	text = strings.ReplaceAll(text, strconv.Itoa(story.ConnLWP), strconv.Itoa(neighbour))
	for _, f := range g.given(t, "procstat", g.save(t, text)).Findings {
		if f.Confidence == incident.ConfidenceCertain || slices.Contains(f.LWPs, neighbour) {
			t.Errorf("%s (%s) on %v", f.Label, f.Confidence, f.LWPs)
		}
	}
}

func TestStoryFiles(t *testing.T) {
	t.Parallel()
	g := lostWaits(t)
	inc := g.given(t, "procstat", g.text("procstat-f.txt"))
	wantOne(t, inc, noWriter, incident.ConfidenceLikely, story.ConnLWP)
	i := slices.IndexFunc(inc.Files, func(f incident.File) bool { return f.Path == "/var/db/mysql/ibdata1" })
	if i < 0 || inc.Files[i].FD != 3 || inc.Files[i].Kind != "path" {
		t.Errorf("files %+v", inc.Files)
	}
	for _, f := range inc.Files {
		if f.Path == story.FIFO {
			t.Errorf("an open that sleeps has no descriptor yet: %+v", f)
		}
	}
}

func TestStoryPS(t *testing.T) {
	t.Parallel()
	g := lostWaits(t)
	for name, path := range map[string]string{
		"whole":    g.text("ps.txt"),
		"one line": g.save(t, "1158 fifoor - I 0:00.03 /usr/local/libexec/mysqld --defaults-extra-file=/var/db/mysql/my.cnf\n"),
	} {
		inc := g.given(t, "ps", path)
		if len(inc.Findings) != 1 || inc.Findings[0].Label != noWriter || !slices.Equal(inc.Findings[0].LWPs, []int{story.ConnLWP}) {
			wantNothing(t, inc)
			t.Errorf("%s: %d findings", name, len(inc.Findings))
			continue
		}
		if e := evidenceOf(&inc.Findings[0], "wait channel"); e.Value != "fifoor" || e.Source != "ps" {
			t.Errorf("%s: %+v", name, inc.Findings[0].Evidence)
		}
	}
}

// The lines as the story shows them, cut out of their tables.
func TestStoryLines(t *testing.T) {
	t.Parallel()
	g := lostWaits(t)
	inc := g.given(t, "procstat", g.save(t, "1158 100460 mysqld - 0 120 sleep fifoor\n"))
	f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
	if e := evidenceOf(f, "wait channel"); e.Value != "fifoor" || e.Source != "procstat" {
		t.Errorf("%+v", e)
	}
	if text := warning(t, inc, "proc-threads-mismatch"); !strings.Contains(text, "22 threads") {
		t.Errorf("%s", text)
	}
	inc = g.given(t, "innodb-status", g.save(t, "MySQL thread id 1, OS thread handle 0x829e76000, query id 9 localhost root System lock\n"))
	s := wantSession(t, inc, 1, story.ConnLWP)
	if s.QueryID == nil || *s.QueryID != 9 || !strings.Contains(s.State, "System lock") || len(inc.Sessions) != 1 {
		t.Errorf("%+v", s)
	}
	f = wantOne(t, inc, noWriter, incident.ConfidenceLikely, story.ConnLWP)
	if !slices.Equal(f.Connections, []uint64{1}) || !strings.Contains(f.Title, "Connection 1") {
		t.Errorf("connections %d: %s", f.Connections, f.Title)
	}
}

// A processlist of MySQL 5.6 has no thread: its rows are on none.
func TestStoryProcesslistAlone(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	inc := g.given(t, "processlist", g.text("processlist.txt"))
	s := wantSession(t, inc, 1, 0)
	if s.Query != story.Query || s.Handle != nil {
		t.Errorf("%+v", s)
	}
	wantSession(t, inc, 2, 0)
	if f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP); len(f.Connections) > 0 {
		t.Errorf("connections %d out of nowhere", f.Connections)
	}
}

// All texts together say what each says alone.
func TestStoryAllTexts(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"procstat-t.txt", "procstat-kk.txt", "procstat-f.txt", "procstat-t.json", ""} {
		g := lostWaits(t)
		opts := g.options(t)
		if opts.Procstat = g.text(file); file == "" {
			opts.Procstat = g.save(t, story.ProcstatThreads()+story.ProcstatStacks()+story.ProcstatFiles())
		}
		opts.PS, opts.InnoDBStatus, opts.Processlist = g.text("ps.txt"), g.text("innodb-status.txt"), g.text("processlist.txt")
		inc := run(t, opts).Incident
		f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
		if len(inc.Input.Others) != 4 || !slices.Equal(f.Connections, []uint64{1}) {
			t.Errorf("%s: inputs %+v, connections %d", file, inc.Input.Others, f.Connections)
		}
		wantSession(t, inc, 1, story.ConnLWP)
		wantSession(t, inc, 2, neighbour)
		g.wantThreads(t, inc)
	}
}

var firstPID = regexp.MustCompile(`(?m)^(\s*)1158\b`)

// Text of another process gives nothing and one clear line.
func TestStoryOtherProcess(t *testing.T) {
	t.Parallel()
	for input, text := range map[string]string{
		"procstat": firstPID.ReplaceAllString(story.ProcstatThreads(), "${1}4711"),
		"ps":       firstPID.ReplaceAllString(story.PS(), "${1}4711"),
	} {
		t.Run(input, func(t *testing.T) {
			t.Parallel()
			g := lostWaits(t)
			inc := g.given(t, input, g.save(t, text))
			wantOne(t, inc, noWriter, incident.ConfidenceLikely, story.ConnLWP)
			i := slices.IndexFunc(inc.Warnings, func(w incident.Warning) bool {
				return strings.Contains(w.Text, "4711") && strings.Contains(w.Text, "1158")
			})
			if i < 0 || strings.Contains(inc.Warnings[i].Text, "\n") {
				t.Errorf("warnings %+v", inc.Warnings)
			}
			for _, th := range inc.Threads {
				if th.WaitChannel != nil {
					t.Errorf("LWP %d has the wait channel %+v", th.LWP, th.WaitChannel)
				}
			}
		})
	}
}

// Threads that are in one of core and text only are named.
func TestStoryOtherThreads(t *testing.T) {
	t.Parallel()
	g := lostWaits(t)
	text := strings.ReplaceAll(story.ProcstatThreads(), strconv.Itoa(neighbour), "100999")
	inc := g.given(t, "procstat", g.save(t, text))
	w := warning(t, inc, "proc-threads-mismatch")
	for _, want := range []string{"100999", strconv.Itoa(neighbour)} {
		if !strings.Contains(w, want) {
			t.Errorf("the warning doesn't name %s: %s", want, w)
		}
	}
	if got := threadOf(t, inc, neighbour).WaitChannel; got != nil {
		t.Errorf("wait channel %+v", got)
	}
	wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
}

// A handle that the core doesn't have puts its session on no thread.
func TestStoryUnmatchedSession(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	for _, handle := range []string{"0x829e99000", "0x829e76008", "0x828b0e000"} {
		text := strings.ReplaceAll(story.InnoDBStatus(), "0x829e76000", handle)
		inc := g.given(t, "innodb-status", g.save(t, text))
		wantSession(t, inc, 1, 0)
		wantSession(t, inc, 2, neighbour)
		if w := warning(t, inc, "session-unmatched"); !strings.Contains(w, handle) || !strings.Contains(w, "connection 1") {
			t.Errorf("%s", w)
		}
		if f := wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP); len(f.Connections) > 0 {
			t.Errorf("%s: connections %d", handle, f.Connections)
		}
	}
	// Handles that are swapped put the sessions on the other's threads: the
	// text decides which connection has which handle, the core which thread.
	text := strings.NewReplacer("0x829e76000", "0x829e76800", "0x829e76800", "0x829e76000").Replace(story.InnoDBStatus())
	inc := g.given(t, "innodb-status", g.save(t, text))
	wantSession(t, inc, 1, neighbour)
	wantSession(t, inc, 2, story.ConnLWP)
}

// Files that are no such text: the core is analysed without them, and one line
// says so.
func TestStoryWrongText(t *testing.T) {
	t.Parallel()
	wide := strings.Repeat("1158 ", 1000) + "\n"
	for input := range textInputs {
		for name, text := range map[string]string{
			"empty": "", "garbage": "what is this\n", "wide": wide, "control": "1158\x1b[2J\x00\x07 100460\n\x9b31m\r\n",
			"core": "", "truncated JSON": story.ProcstatThreadsJSON()[:200],
		} {
			t.Run(input+" "+name, func(t *testing.T) {
				t.Parallel()
				g := newStory(t, story.Options{})
				path := g.save(t, text)
				if name == "core" {
					path = g.Write(t, "another.core")
				}
				opts := g.options(t)
				textInputs[input](&opts, path)
				res, err := analyze.Run(t.Context(), opts)
				if err != nil {
					if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) {
						t.Errorf("%q", err)
					}
					return
				}
				defer res.Close()
				inc := res.Incident
				wantOne(t, inc, noWriter, incident.ConfidenceCertain, story.ConnLWP)
				n := 0
				for _, w := range inc.Warnings {
					if strings.Contains(w.Text, path) {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%d warnings name the file: %+v", n, inc.Warnings)
				}
				if len(inc.Sessions) > 0 {
					t.Errorf("sessions %+v", inc.Sessions)
				}
				wantPlain(t, textOf(t, inc))
			})
		}
	}
}

// Whatever isn't a regular file is refused before it is opened.
func TestStoryTextIsNoFile(t *testing.T) {
	t.Parallel()
	g := newStory(t, story.Options{})
	fifo := g.text("fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for input, set := range textInputs {
		for path, want := range map[string]error{fifo: elfimage.ErrNotRegular, g.dir: elfimage.ErrNotRegular, g.text("nowhere"): os.ErrNotExist} {
			opts := g.options(t)
			set(&opts, path)
			res, err := analyze.Run(t.Context(), opts)
			if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), path) {
				t.Errorf("%s: %v, want %v", input, err, want)
			}
			if res != nil {
				t.Error(res.Close())
			}
		}
	}
}
