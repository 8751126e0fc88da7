package procstat

import (
	"encoding/json"
	"slices"
	"strings"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// procstat's JSON comes from libxo, and isn't strict: kernel stacks repeat the
// keys of every thread within one object, and put a list's values under a key
// inside an array (usr.bin/procstat/procstat_kstack.c, FreeBSD 11 to 15). So
// it is read as a stream of keys and values, not as a document: a repeated key
// begins the next record, and commas mean nothing.

// maxJSONDepth is far above the six levels that libxo writes.
const maxJSONDepth = 16

// jsonObject is one open object or array.
type jsonObject struct {
	key   string // under which it stands
	array bool
	rec   jsonRecord
	own   int // fields that were set in this object itself
}

// jsonRecord is a row in the making. An object inherits its parent's process
// and thread.
type jsonRecord struct {
	pid, tid                  int
	ownTID                    bool // tid was set in this object
	comm, name, state, wchan  string
	frames                    []string
	stackOK                   bool
	pending, blocked, ignored bool
	caught, signal            bool
	file                      fileRecord
	hasFile                   bool
}

// jsonReader holds the open objects.
type jsonReader struct {
	t     *textReader
	stack []jsonObject
	skip  int // objects open beyond maxJSONDepth
}

// jsonSections are the containers of procstat and ps that are read
// (procstat.c, bin/ps/ps.c); the outermost one names the listing.
var jsonSections = map[string]rowKind{
	"threads": rowsThreads, "kstack": rowsStacks, "thread_signals": rowsThreadSignals, "signals": rowsSignals, "files": rowsFiles,
	"process-information": rowsPS,
	"vm":                  rowsOther, "binary": rowsOther, "arguments": rowsOther, "environment": rowsOther, "credentials": rowsOther,
	"auxv": rowsOther, "basic": rowsOther, "rlimit": rowsOther, "rusage": rowsOther, "cs": rowsOther, "ptlwpinfo": rowsOther,
}

// json reads the whole text.
func (t *textReader) json(b []byte) {
	j := &jsonReader{t: t}
	key, haveKey := "", false
	t.line = 1
	for i := 0; i < len(b); {
		c := b[i]
		switch c {
		case '\n':
			t.line++
			i++
		case '{', '[':
			j.open(key, c == '[')
			key, haveKey = "", false
			i++
		case '}', ']':
			j.close()
			i++
		case '"':
			end := stringEnd(b, i)
			s := decodeString(b[i:end])
			i = end
			if next := nextNonBlank(b, i); next < len(b) && b[next] == ':' {
				key, haveKey = s, true
				i = next + 1
				continue
			}
			j.value(key, haveKey, s)
			if !j.inArray() {
				key, haveKey = "", false
			}
		case ' ', '\t', '\r', ',', ':':
			i++
		default:
			end := i
			for end < len(b) && strings.IndexByte(" \t\r\n,:{}[]\"", b[end]) < 0 {
				end++
			}
			j.value(key, haveKey, string(b[i:min(end, i+maxJSONWord)]))
			if !j.inArray() {
				key, haveKey = "", false
			}
			i = end
		}
	}
	t.unfinished = len(j.stack) > 0
	for len(j.stack) > 0 { // cut short: what was read counts
		j.close()
	}
}

// maxJSONWord bounds a bare word: a number, true, false or null.
const maxJSONWord = 32

// stringEnd is the index after the string's closing quote, or len(b).
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// decodeString undoes the quotes and escapes of a string.
func decodeString(b []byte) string {
	b = b[:min(len(b), maxJSONString)]
	if !slices.Contains(b, '\\') {
		return strings.Trim(string(b), `"`)
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return strings.Trim(string(b), `"`)
	}
	return s
}

// maxJSONString bounds one string: a path of files has at most 1,024 bytes.
const maxJSONString = 8 << 10

func nextNonBlank(b []byte, i int) int {
	for i < len(b) && strings.IndexByte(" \t\r\n", b[i]) >= 0 {
		i++
	}
	return i
}

func (j *jsonReader) inArray() bool { return len(j.stack) > 0 && j.stack[len(j.stack)-1].array }

func (j *jsonReader) open(key string, array bool) {
	if len(j.stack) == maxJSONDepth {
		j.skip++
		return
	}
	o := jsonObject{key: key, array: array}
	if n := len(j.stack); n > 0 {
		up := &j.stack[n-1]
		if key == "" {
			o.key = up.key // an element of an array
		}
		if array {
			o.rec = up.rec
		} else {
			o.rec = jsonRecord{pid: up.rec.pid, tid: up.rec.tid, comm: up.rec.comm}
		}
	}
	j.stack = append(j.stack, o)
}

func (j *jsonReader) close() {
	if j.skip > 0 {
		j.skip--
		return
	}
	n := len(j.stack)
	if n == 0 {
		return
	}
	o := &j.stack[n-1]
	if o.array {
		if n > 1 { // a list of frames belongs to the object around it
			up := &j.stack[n-2]
			up.rec.frames, up.rec.stackOK = o.rec.frames, o.rec.stackOK
		}
	} else if o.own > 0 {
		j.flush(o)
	}
	j.stack = j.stack[:n-1]
}

// section is the listing that the open objects belong to.
func (j *jsonReader) section() rowKind {
	for i := range j.stack {
		if k, ok := jsonSections[j.stack[i].key]; ok {
			return k
		}
	}
	return rowsNone
}

// value takes one scalar.
func (j *jsonReader) value(key string, haveKey bool, v string) {
	n := len(j.stack)
	if n == 0 || j.skip > 0 {
		return
	}
	o := &j.stack[n-1]
	if o.array || key == "token" || key == "trace" {
		if o.key == "trace" || o.key == "token" || key == "token" || key == "trace" {
			o.rec.addFrame(v)
			o.own++
		}
		return
	}
	if !haveKey {
		return
	}
	// The next thread of an object that holds them all.
	if (key == "process_id" || key == "thread_id") && o.rec.ownTID && j.section() == rowsStacks {
		j.flush(o)
		o.rec, o.own = jsonRecord{pid: o.rec.pid}, 0
	}
	if o.rec.set(key, v) {
		o.own++
	}
}

// addFrame takes a function's name, as "name", "name+0xoff" or stack(9)'s
// "#0 0xffffffff80c0a2d1 at name+0xoff".
func (r *jsonRecord) addFrame(s string) {
	if i := strings.LastIndex(s, " at "); i >= 0 {
		s = s[i+len(" at "):]
	}
	name, _, _ := strings.Cut(s, "+")
	if !isFuncName(name) || len(r.frames) >= maxFrames {
		return
	}
	r.frames = append(r.frames[:len(r.frames):len(r.frames)], name)
	r.stackOK = true
}

// set takes one field of a record; false when it isn't of interest.
func (r *jsonRecord) set(key, v string) bool {
	switch key {
	case "process_id", "pid":
		id, ok := parseID(v)
		r.pid = id
		return ok
	case "thread_id", "thread-id", "lwp":
		id, ok := parseID(v)
		r.tid, r.ownTID = id, true
		return ok
	case "command":
		r.comm = clip(v)
	case "thread_name", "thread-name", "tdname":
		r.name = clip(v)
	case "run_state", "state":
		r.state = v
	case "wait_channel", "wait-channel", "wchan", "mwchan":
		r.wchan = v
	case "lock_name":
		r.wchan = "*" + v
	case "list":
		r.pending, r.signal = v == "true", true
	case "mask":
		r.blocked, r.signal = v == "true", true
	case "ignore":
		r.ignored, r.signal = v == "true", true
	case "catch":
		r.caught, r.signal = v == "true", true
	default:
		return r.setFile(key, v)
	}
	return true
}

func (r *jsonRecord) setFile(key, v string) bool {
	switch key {
	case "fd":
		r.file.fd, r.hasFile = strings.TrimSpace(v), true
	case "fd_type":
		r.file.typ = "?"
		for _, w := range fdTypes {
			if w.word == v {
				r.file.typ = w.letter
			}
		}
	case "vode_type", "vnode_type": // the first is how procstat spells it
		r.file.vtype = "-"
		if v == "fifo" {
			r.file.vtype = "f"
		}
	case "offset":
		r.file.offset = v
	case "protocol":
		r.file.proto = v
	case "path":
		r.file.name = v
	default:
		return false
	}
	return true
}

// flush hands a finished record to the view.
func (j *jsonReader) flush(o *jsonObject) {
	t, r := j.t, &o.rec
	sec := j.section()
	if r.pid == 0 || sec == rowsNone || sec == rowsOther || !r.complete(sec) || !t.mine(r.pid) {
		return
	}
	if sec != rowsPS && r.comm != "" && r.comm != "-" {
		t.learn(r.comm)
	}
	switch sec {
	case rowsPS:
		rec := psRecord{lwp: r.tid, hasLWP: r.ownTID, wchan: boundMessage(r.wchan), comm: r.comm, name: r.name}
		if isPSState(r.state) {
			rec.state = r.state[:1]
		}
		t.ps(rec)
	case rowsThreads, rowsStacks:
		if th := t.thread(r.tid); th != nil {
			j.thread(th, r, sec)
		}
	case rowsThreadSignals:
		if sig, ok := signalNumber(o.key); ok {
			t.threadSignal(r.tid, sig, r.pending, r.blocked)
		}
	case rowsSignals:
		if sig, ok := signalNumber(o.key); ok {
			t.signal(sig, r.pending, r.ignored, r.caught)
		}
	case rowsFiles:
		t.file(r.file)
	}
}

// complete says that the record is a row of its listing, and not the object
// around the rows.
func (r *jsonRecord) complete(sec rowKind) bool {
	switch sec {
	case rowsThreads:
		return r.ownTID && r.tid != 0 && (r.state != "" || r.wchan != "")
	case rowsStacks:
		return r.ownTID && r.tid != 0
	case rowsThreadSignals:
		return r.tid != 0 && r.signal
	case rowsSignals:
		return r.signal
	case rowsFiles:
		return r.hasFile
	}
	return true
}

func (j *jsonReader) thread(th *kernelview.Thread, r *jsonRecord, sec rowKind) {
	j.t.nameThread(th, r.comm, r.name, target.SourceProcstat)
	if sec == rowsThreads {
		j.t.sleeping(th, boundMessage(r.wchan), runStates[r.state], target.SourceProcstat)
		return
	}
	if r.stackOK {
		th.KernelStack = target.Known(r.frames, target.SourceProcstat)
	} else if r.state == "<running>" && !th.State.Known {
		th.State = target.Known("R", target.SourceProcstat)
	}
}

// boundMessage drops a wait message that no kernel writes.
func boundMessage(s string) string {
	if len(s) > maxMessage || !printable(s) {
		return ""
	}
	return strings.Clone(s)
}
