// Package incident is the model of a result: what one analysis of one process
// image says, as plain structs with JSON tags. It holds no logic but the
// marshalling of addresses and masks; internal/diagnose fills the conclusions,
// internal/analyze the rest, internal/report renders.
//
// The names are a contract (schema version 1): more may be added, none
// renamed. Absent is absent: a nil pointer or nil slice leaves the field out,
// an empty non-nil slice says that there are none. Enumerations are open:
// readers must expect texts that this version doesn't list.
package incident

import (
	"time"

	"mycore/internal/target"
)

// SchemaName and SchemaVersion head every incident.
const (
	SchemaName    = "mycore/incident"
	SchemaVersion = 1
)

// Incident is the whole result.
type Incident struct {
	Schema        string      `json:"schema" jsonschema:"always mycore/incident"`
	SchemaVersion int         `json:"schemaVersion" jsonschema:"version of this contract; within one version fields are only added"`
	Tool          Tool        `json:"tool" jsonschema:"the program that wrote this"`
	IncidentID    string      `json:"incidentID" jsonschema:"stable id of this input: the same input gives the same id"`
	CapturedAt    *CapturedAt `json:"capturedAt,omitzero" jsonschema:"when the image was taken"`
	Input         Input       `json:"input" jsonschema:"what was analysed"`
	Server        *Server     `json:"server,omitzero" jsonschema:"the server in the image; absent when it wasn't recognised"`
	System        System      `json:"system" jsonschema:"the process and the system it ran on"`
	Verdict       Verdict     `json:"verdict" jsonschema:"the conclusion, first"`
	Findings      []Finding   `json:"findings,omitzero" jsonschema:"what was found, most important first; empty when nothing was"`
	Sessions      []Session   `json:"sessions,omitzero" jsonschema:"client sessions, by connection id; absent when nothing told of any"`
	Threads       []Thread    `json:"threads,omitzero" jsonschema:"every thread, by LWP"`
	Modules       []Module    `json:"modules,omitzero" jsonschema:"loaded images, by address"`
	Groups        []Group     `json:"groups,omitzero" jsonschema:"equal stacks, largest group first"`
	Files         []File      `json:"files,omitzero" jsonschema:"open files by descriptor; absent when the input has no list of them"`
	Logs          []LogFact   `json:"logs,omitzero" jsonschema:"what saved logs say about the time around the capture, in the order of the files; absent when none was given"`
	Warnings      []Warning   `json:"warnings,omitzero" jsonschema:"what the result lacks and why"`
}

// Tool names the program and its version.
type Tool struct {
	Name    string `json:"name" jsonschema:"mycore"`
	Version string `json:"version" jsonschema:"version of the program"`
}

// CapturedAt is the time of the image together with how it is known.
type CapturedAt struct {
	Value time.Time `json:"value" jsonschema:"time of the capture, RFC 3339"`
	Clock string    `json:"clock" jsonschema:"how that time is known, for example the modification time of the core file"`
}

// Input says what was analysed.
type Input struct {
	Kind             string      `json:"kind" jsonschema:"core, slim or live"`
	Path             string      `json:"path,omitzero" jsonschema:"path of the core as it was given"`
	Size             *int64      `json:"size,omitzero" jsonschema:"size of the file in bytes"`
	SHA256           string      `json:"sha256,omitzero" jsonschema:"SHA-256 of the file in hex, when asked for"`
	TruncatedPercent *float64    `json:"truncatedPercent,omitzero" jsonschema:"share of the promised bytes that the file lacks, 0 to 100; absent for a complete file"`
	PauseSeconds     *float64    `json:"pauseSeconds,omitzero" jsonschema:"how long a live process was stopped, in seconds"`
	Writer           string      `json:"writer,omitzero" jsonschema:"who wrote the core: kernel, gcore or unknown"`
	Others           []InputFile `json:"others,omitzero" jsonschema:"the other files read, such as a captured /proc tree"`
}

// InputFile is a further input beside the core.
type InputFile struct {
	Kind string `json:"kind" jsonschema:"what it is, for example proc"`
	Path string `json:"path" jsonschema:"where it was read"`
}

// Server identifies the database server.
type Server struct {
	Family  string        `json:"family,omitzero" jsonschema:"mysql, percona, mariadb or none"`
	Version string        `json:"version,omitzero" jsonschema:"version as the server prints it"`
	BuildID string        `json:"buildID,omitzero" jsonschema:"build ID of the server's binary, lower-case hex"`
	Source  target.Source `json:"source,omitzero" jsonschema:"where family and version came from"`
}

// System is the process and the system around it.
type System struct {
	OS       string                   `json:"os,omitzero" jsonschema:"linux or freebsd"`
	Arch     string                   `json:"arch,omitzero" jsonschema:"instruction set, for example amd64"`
	Kernel   string                   `json:"kernel,omitzero" jsonschema:"kernel release"`
	Libc     string                   `json:"libc,omitzero" jsonschema:"C library and version"`
	PID      *int                     `json:"pid,omitzero" jsonschema:"process id as the observer saw it"`
	Command  string                   `json:"command,omitzero" jsonschema:"name of the process"`
	Signal   *Signal                  `json:"signal,omitzero" jsonschema:"the signal on which the core was written; by itself it doesn't say that the server crashed"`
	Hostname string                   `json:"hostname,omitzero" jsonschema:"host name"`
	Sources  map[string]target.Source `json:"sources,omitzero" jsonschema:"where each field of this object came from"`
}

// Signal is the signal that the core's notes record.
type Signal struct {
	Number int    `json:"number" jsonschema:"signal number"`
	Name   string `json:"name,omitzero" jsonschema:"signal name, for example SIGABRT"`
	Code   *int   `json:"code,omitzero" jsonschema:"si_code"`
	LWP    *int   `json:"lwp,omitzero" jsonschema:"thread that took the signal"`
}

// Severity texts, from worst to mildest.
const (
	SeverityCritical = "critical"
	SeverityError    = "error"
	SeverityWarning  = "warning"
	SeverityInfo     = "info"
)

// Verdict statuses of version 1.
const (
	StatusStuck        = "stuck"
	StatusCrashed      = "crashed"
	StatusStopped      = "stopped"
	StatusStarting     = "starting"
	StatusStopping     = "stopping"
	StatusSlow         = "slow"
	StatusNoStallFound = "no-stall-found"
	StatusInconclusive = "inconclusive"
)

// Confidence texts. Certain needs two independent kinds of source.
const (
	ConfidenceCertain  = "certain"
	ConfidenceLikely   = "likely"
	ConfidencePossible = "possible"
)

// Verdict is the conclusion in one object.
type Verdict struct {
	Status   string     `json:"status" jsonschema:"stuck, crashed, stopped, starting, stopping, slow, no-stall-found or inconclusive; no-stall-found needs full coverage"`
	Severity string     `json:"severity" jsonschema:"critical, error, warning or info"`
	Since    *time.Time `json:"since,omitzero" jsonschema:"when the stall began, RFC 3339"`
	Summary  string     `json:"summary" jsonschema:"one paragraph in plain words"`
	Impact   *Impact    `json:"impact,omitzero" jsonschema:"how many connections are concerned"`
	DedupKey string     `json:"dedupKey,omitzero" jsonschema:"equal for incidents with the same findings, whatever the build, the addresses and the ids"`
	Findings []string   `json:"findings,omitzero" jsonschema:"ids of the findings, most important first"`
	Coverage Coverage   `json:"coverage" jsonschema:"how much of the process the verdict rests on"`
	Collect  []string   `json:"collect,omitzero" jsonschema:"what to collect for a firmer verdict"`
}

// Impact counts the connection threads concerned.
type Impact struct {
	Blocked        *int   `json:"blocked,omitzero" jsonschema:"connection threads that a finding names"`
	Total          *int   `json:"total,omitzero" jsonschema:"connection threads recognised"`
	NewConnections string `json:"newConnections,omitzero" jsonschema:"whether new connections are answered, where that is known"`
}

// Coverage says what was read.
type Coverage struct {
	ThreadsRead   int   `json:"threadsRead" jsonschema:"threads with at least one frame"`
	ThreadsTotal  int   `json:"threadsTotal" jsonschema:"threads in the image"`
	StacksTrusted int   `json:"stacksTrusted" jsonschema:"threads whose stack was walked to its outermost frame by registers and call frame information alone"`
	SessionsRead  *int  `json:"sessionsRead,omitzero" jsonschema:"sessions read from memory; absent when sessions aren't read"`
	MasksKnown    *bool `json:"masksKnown,omitzero" jsonschema:"whether the signal masks of all threads are known"`
	UnknownRoles  int   `json:"unknownRoles" jsonschema:"threads whose role isn't proven"`
}

// Finding is a label with its evidence and remedies.
type Finding struct {
	ID          string     `json:"id" jsonschema:"id within this incident"`
	Label       string     `json:"label" jsonschema:"id of the rule; mycore explain knows each"`
	Title       string     `json:"title" jsonschema:"one sentence in plain words"`
	Severity    string     `json:"severity" jsonschema:"critical, error, warning or info"`
	Confidence  string     `json:"confidence" jsonschema:"certain (two independent kinds of source), likely or possible"`
	Root        bool       `json:"root" jsonschema:"whether this is a cause, not a consequence of another finding"`
	LWPs        []int      `json:"lwps,omitzero" jsonschema:"threads that show it, ascending"`
	Connections []uint64   `json:"connections,omitzero" jsonschema:"connection ids of those threads, where known"`
	Resource    *Resource  `json:"resource,omitzero" jsonschema:"what is waited for"`
	Victims     *Victims   `json:"victims,omitzero" jsonschema:"who waits behind it"`
	Evidence    []Evidence `json:"evidence,omitzero" jsonschema:"the facts it rests on"`
	Missing     []string   `json:"missing,omitzero" jsonschema:"what isn't known and how to collect it"`
	Since       *time.Time `json:"since,omitzero" jsonschema:"when it began, RFC 3339"`
	WaitSeconds *float64   `json:"waitSeconds,omitzero" jsonschema:"how long it lasts, in seconds"`
	Kill        *Kill      `json:"kill,omitzero" jsonschema:"whether KILL frees it"`
	Remedies    []Remedy   `json:"remedies,omitzero" jsonschema:"what to do, lowest risk first"`
	Signature   string     `json:"signature" jsonschema:"short hash of label, role and the frames that matter; stable across builds"`
}

// Resource is the thing waited for.
type Resource struct {
	Kind    string `json:"kind" jsonschema:"for example fifo"`
	Name    string `json:"name,omitzero" jsonschema:"name of the resource"`
	Path    string `json:"path,omitzero" jsonschema:"path, for files"`
	Address *Addr  `json:"address,omitzero" jsonschema:"address of the object, for locks"`
}

// Victims are the threads and connections behind a finding.
type Victims struct {
	Count       int      `json:"count" jsonschema:"how many"`
	LWPs        []int    `json:"lwps,omitzero" jsonschema:"their threads, ascending"`
	Connections []uint64 `json:"connections,omitzero" jsonschema:"their connection ids, ascending"`
}

// Evidence is one fact under a finding.
type Evidence struct {
	Fact   string        `json:"fact" jsonschema:"what was looked at"`
	Value  string        `json:"value" jsonschema:"what was seen"`
	Source target.Source `json:"source" jsonschema:"where it was read"`
	LWP    *int          `json:"lwp,omitzero" jsonschema:"thread it belongs to"`
	How    string        `json:"how,omitzero" jsonschema:"how the value was obtained, when it wasn't read directly"`
}

// Kill says what KILL does to the finding.
type Kill struct {
	Works  bool   `json:"works" jsonschema:"whether KILL frees the thread"`
	Why    string `json:"why" jsonschema:"the reason"`
	Source string `json:"source" jsonschema:"how that is known: measured or source"`
}

// Remedy is one step. mycore never runs it. Commands are present only when
// every precondition is met or is checked by the command itself.
type Remedy struct {
	ID            string         `json:"id" jsonschema:"id of the remedy"`
	Action        string         `json:"action" jsonschema:"what to do, in plain words"`
	Channel       string         `json:"channel" jsonschema:"sql, shell or kernel"`
	Target        *RemedyTarget  `json:"target,omitzero" jsonschema:"what it acts on"`
	Commands      []string       `json:"commands,omitzero" jsonschema:"exact commands; absent while a precondition is unmet, or unknown and not checked by the command itself"`
	Risk          string         `json:"risk" jsonschema:"none, low, medium or high"`
	Preconditions []Precondition `json:"preconditions,omitzero" jsonschema:"what must hold"`
	Effects       string         `json:"effects,omitzero" jsonschema:"what it does beside helping"`
	Undo          string         `json:"undo,omitzero" jsonschema:"how to take it back"`
	Verify        string         `json:"verify,omitzero" jsonschema:"how to see that it worked"`
	Prevent       string         `json:"prevent,omitzero" jsonschema:"how to keep it from coming back"`
}

// RemedyTarget is the process, thread or connection a remedy acts on.
type RemedyTarget struct {
	PID          *int       `json:"pid,omitzero" jsonschema:"process id"`
	ProcessStart *time.Time `json:"processStart,omitzero" jsonschema:"start of that process, RFC 3339: a recycled pid has another"`
	LWP          *int       `json:"lwp,omitzero" jsonschema:"thread"`
	Connection   *uint64    `json:"connection,omitzero" jsonschema:"connection id"`
}

// Precondition statuses.
const (
	PreconditionMet     = "met"
	PreconditionUnmet   = "unmet"
	PreconditionUnknown = "unknown"
)

// Precondition is something that must hold before a remedy is used.
type Precondition struct {
	Text    string `json:"text" jsonschema:"what must hold"`
	Status  string `json:"status" jsonschema:"met, unmet or unknown from this evidence"`
	Guarded bool   `json:"guarded,omitzero" jsonschema:"true when the command checks it itself before it acts"`
	Check   string `json:"check,omitzero" jsonschema:"how to find out"`
}

// Session is a client's session with what is known about it; sources says
// where each field came from.
type Session struct {
	Connection uint64                   `json:"connection" jsonschema:"connection id"`
	LWP        *int                     `json:"lwp,omitzero" jsonschema:"thread that runs it; absent when it wasn't found"`
	Handle     *Addr                    `json:"handle,omitzero" jsonschema:"OS thread handle"`
	User       string                   `json:"user,omitzero" jsonschema:"user name"`
	Host       string                   `json:"host,omitzero" jsonschema:"host the client came from"`
	DB         string                   `json:"db,omitzero" jsonschema:"default database"`
	Command    string                   `json:"command,omitzero" jsonschema:"as SHOW PROCESSLIST calls it: Query, Sleep, Killed, ..."`
	State      string                   `json:"state,omitzero" jsonschema:"state as SHOW PROCESSLIST shows it"`
	Time       *int64                   `json:"time,omitzero" jsonschema:"seconds in that state, as the server says"`
	Query      string                   `json:"query,omitzero" jsonschema:"text of the statement"`
	QueryID    *uint64                  `json:"queryID,omitzero" jsonschema:"id of the statement"`
	Sources    map[string]target.Source `json:"sources,omitzero" jsonschema:"where each field came from"`
}

// Thread is one thread with everything known about it.
type Thread struct {
	LWP          int                      `json:"lwp" jsonschema:"kernel thread id as the observer saw it"`
	Handle       *Addr                    `json:"handle,omitzero" jsonschema:"OS thread handle (pthread_t), confirmed by the thread pointer"`
	Name         string                   `json:"name,omitzero" jsonschema:"thread name"`
	Role         string                   `json:"role,omitzero" jsonschema:"id of the role; absent when unknown"`
	Idle         *bool                    `json:"idle,omitzero" jsonschema:"true: in the normal wait of its role; absent when that can't be judged"`
	State        string                   `json:"state,omitzero" jsonschema:"run state letter of the kernel, for example S or D"`
	WaitChannel  *Sourced                 `json:"waitChannel,omitzero" jsonschema:"what the thread sleeps on in the kernel"`
	Syscall      *Syscall                 `json:"syscall,omitzero" jsonschema:"system call the thread is in"`
	Signals      *ThreadSignals           `json:"signals,omitzero" jsonschema:"signal masks; bit n-1 is signal n"`
	TargetTID    *int                     `json:"targetTid,omitzero" jsonschema:"thread id in the target's own PID namespace, when it differs"`
	StartRoutine string                   `json:"startRoutine,omitzero" jsonschema:"function the thread was started with"`
	KernelStack  []string                 `json:"kernelStack,omitzero" jsonschema:"kernel functions, innermost first"`
	Frames       []Frame                  `json:"frames,omitzero" jsonschema:"user stack, innermost first"`
	StackNote    string                   `json:"stackNote,omitzero" jsonschema:"why the stack ends before its outermost frame"`
	Group        string                   `json:"group,omitzero" jsonschema:"id of the group of equal stacks"`
	Labels       []string                 `json:"labels,omitzero" jsonschema:"labels of findings that name this thread"`
	Sources      map[string]target.Source `json:"sources,omitzero" jsonschema:"where fields without a source of their own came from"`
}

// Sourced is a text with its source.
type Sourced struct {
	Value  string        `json:"value" jsonschema:"the value"`
	Source target.Source `json:"source" jsonschema:"where it came from"`
}

// Syscall is the system call a thread is blocked in.
type Syscall struct {
	Name   string        `json:"name" jsonschema:"name of the call"`
	Args   []string      `json:"args,omitzero" jsonschema:"arguments in strace's form"`
	Text   string        `json:"text" jsonschema:"the whole call in strace's form"`
	Source target.Source `json:"source" jsonschema:"where number and arguments came from"`
	How    string        `json:"how,omitzero" jsonschema:"how call or arguments were obtained, when not straight from the registers"`
}

// ThreadSignals are a thread's signal masks.
type ThreadSignals struct {
	Blocked *Mask         `json:"blocked,omitzero" jsonschema:"blocked signals; absent when unknown"`
	Pending *Mask         `json:"pending,omitzero" jsonschema:"signals pending for this thread; absent when unknown"`
	Source  target.Source `json:"source" jsonschema:"where the masks came from"`
}

// Frame is one frame of a user stack.
type Frame struct {
	PC        Addr       `json:"pc" jsonschema:"program counter"`
	Function  string     `json:"function,omitzero" jsonschema:"function, demangled; absent when the address is inside no symbol"`
	Module    string     `json:"module,omitzero" jsonschema:"path of the loaded image"`
	Offset    *Addr      `json:"offset,omitzero" jsonschema:"distance from the function's start, or from the image's base when the function has no name"`
	Start     *Addr      `json:"functionStart,omitzero" jsonschema:"start of a function without a name, from the image's base; absent when unknown"`
	Trust     string     `json:"trust" jsonschema:"context, cfi, frame-pointer or scan"`
	Signal    bool       `json:"signal,omitzero" jsonschema:"true for the frame the kernel pushed for a signal handler"`
	Arguments []Argument `json:"arguments,omitzero" jsonschema:"recovered arguments"`
}

// Argument is an argument recovered from a frame.
type Argument struct {
	Index int    `json:"index" jsonschema:"position, 0 is the first"`
	Value Addr   `json:"value" jsonschema:"the machine word"`
	Text  string `json:"text,omitzero" jsonschema:"what it points to or means"`
	How   string `json:"how" jsonschema:"how it was found"`
}

// Module is one loaded image.
type Module struct {
	Path     string        `json:"path" jsonschema:"path recorded in the image"`
	Base     *Addr         `json:"base,omitzero" jsonschema:"lowest address of the image"`
	BuildID  string        `json:"buildID,omitzero" jsonschema:"build ID in lower-case hex"`
	Status   string        `json:"status" jsonschema:"found, mismatch, missing, from-core or vdso"`
	FoundAt  string        `json:"foundAt,omitzero" jsonschema:"file that was used"`
	FileID   string        `json:"fileBuildID,omitzero" jsonschema:"build ID of a file that doesn't match"`
	Source   target.Source `json:"source,omitzero" jsonschema:"where the entry came from"`
	LookedIn []string      `json:"lookedIn,omitzero" jsonschema:"where a file was looked for"`
}

// Group is a set of threads with equal stacks.
type Group struct {
	ID     string   `json:"id" jsonschema:"id within this incident"`
	Count  int      `json:"count" jsonschema:"number of members"`
	LWPs   []int    `json:"lwps" jsonschema:"members, ascending"`
	Frames []string `json:"frames,omitzero" jsonschema:"normalised function names, innermost first; module+offset where there is no name"`
	Roles  []string `json:"roles,omitzero" jsonschema:"roles of the members"`
	Idle   *bool    `json:"idle,omitzero" jsonschema:"true when all members are idle"`
}

// File is an open file of the process.
type File struct {
	FD     int           `json:"fd" jsonschema:"descriptor"`
	Path   string        `json:"path,omitzero" jsonschema:"path or the kernel's name of the object"`
	Kind   string        `json:"kind,omitzero" jsonschema:"what its name tells: path, fifo, pipe, socket, anon or other"`
	Peer   string        `json:"peer,omitzero" jsonschema:"other end of a socket"`
	Source target.Source `json:"source" jsonschema:"where it came from"`
}

// LogFact is one thing that a saved log says. A log is evidence to be checked
// against the core, never proof: a query in it can imitate other lines.
type LogFact struct {
	Kind       string        `json:"kind" jsonschema:"what it is: crash, assertion, signal, oom-kill, hung-task and others"`
	Time       *time.Time    `json:"time,omitzero" jsonschema:"time of the line, RFC 3339; absent when the log has none"`
	LocalTime  bool          `json:"localTime,omitzero" jsonschema:"true when the log doesn't tell its time zone: time is its clock's reading taken as UTC"`
	Line       int           `json:"line,omitzero" jsonschema:"line of the file, from 1; absent when only the file's end was read"`
	Text       string        `json:"text" jsonschema:"the line as it stands there"`
	PID        int           `json:"pid,omitzero" jsonschema:"process that the line names"`
	LWP        int           `json:"lwp,omitzero" jsonschema:"thread that the line names, or whose OS thread handle it names"`
	Connection *uint64       `json:"connection,omitzero" jsonschema:"connection id that the line names"`
	Signal     int           `json:"signal,omitzero" jsonschema:"signal number"`
	Query      string        `json:"query,omitzero" jsonschema:"statement that the line names"`
	Source     target.Source `json:"source" jsonschema:"error-log or kernel-log"`
}

// Warning is something the result lacks.
type Warning struct {
	Code string `json:"code" jsonschema:"stable code"`
	Text string `json:"text" jsonschema:"what is missing, what that costs and what to do"`
}
