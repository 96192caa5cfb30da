// Package sandbox parses and evaluates Starlark in a worker process that has no authority.
//
// Promise: whatever a file contains, the calling process stays alive and answers within the limits
// plus one second; a failure is a *problem.Problem with the file and line at which the worker was,
// also after SIGKILL and out of memory. The worker holds no credentials, no environment, no file
// descriptors but its pipes and the page that notes its line; every query and action is a message
// that the parent answers. Everything that comes from a worker is hostile input: sizes are capped,
// types are checked, arguments are checked again against the parent's own tables.
package sandbox

import (
	"context"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Limits bound one worker. The zero value of a field means its default. Each is a setting of
// project.star under limits(...), and the error that it causes names the setting.
type Limits struct {
	Steps      uint64        // limits(steps=): 10_000_000 Starlark steps
	Time       time.Duration // limits(time=): 30s of the script's own time, without waiting for the engine
	Memory     int64         // limits(memory=): 128 MiB of heap, watched; RLIMIT_DATA and RLIMIT_AS bound the whole process
	SourceFile int64         // limits(source_file=): 256 KiB a file
	SourceAll  int64         // limits(source=): 1 MiB with everything it loads
}

// Vocabulary is what the files of one kind may name: the declarations at top level and, for files
// with functions that are evaluated, the families under ctx. The functions of a family without a name are
// attributes of ctx itself.
type Vocabulary struct {
	Declarations []kit.Function
	// Modules are declarations behind a dot: "param" -> param.int(...), "secret" -> secret.env(...).
	Modules  []kit.Family
	Families []kit.Family
	// Methods are functions of what the engine answers with: a family is named for a type of record, and the first
	// parameter of its functions is that record, which the author writes in front of the dot.
	Methods []kit.Family
}

// Same says whether two vocabularies are one: the same tables, not tables that say the same.
func (v Vocabulary) Same(w Vocabulary) bool {
	return sameTable(v.Declarations, w.Declarations) && sameTable(v.Modules, w.Modules) && sameTable(v.Families, w.Families) && sameTable(v.Methods, w.Methods)
}

func sameTable[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// Source hands out the text of project files. A path is slash-separated and relative to the project
// root; the implementation opens it through os.Root.
type Source interface {
	Read(path string) ([]byte, error)
}

// File is one file of a source closure.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// Module is what loading a file declared.
type Module struct {
	Path    string
	Doc     string          // the file's docstring
	Records []*value.Record // top-level declarations that were called as statements, in order
	Defs    []string        // names of top-level functions
	Closure []File          // the file and everything that it loads, sorted by path
	// Coverage is what loading executed, for each file of the closure.
	Coverage []Coverage
}

// Coverage says what of a file was executed in one Load or Evaluate.
type Coverage struct {
	Path       string `json:"path"`
	Statements []int  `json:"statements"` // first lines of all statements, rising
	Ran        []int  `json:"ran"`        // those that were executed
	Conditions []Arm  `json:"conditions"` // all leaf conditions, in order of the source
}

// Arm is a leaf condition and which ways it went.
type Arm struct {
	Pos    value.Pos `json:"pos"`
	Source string    `json:"source"`
	True   bool      `json:"true,omitempty"`
	False  bool      `json:"false,omitempty"`
}

// Context is what ctx holds besides its families.
type Context struct {
	// Bare is ctx with nothing but its families.
	Bare    bool
	Now     time.Time
	Target  value.Dict // name, key, labels
	Params  value.Dict
	Attempt int
	Steps   value.List // for cleanup: what was done
}

// Outcome is what a function returned: a record such as escalate(reason), or nil.
type Outcome = *value.Record

// Result is the end of an evaluation that was not cut short.
type Result struct {
	Outcome Outcome
	Steps   uint64
	Events  []Event
	Dropped int // events beyond the cap
	// Coverage is what the evaluation executed, loading included, also if it ended with an error. It is missing if the worker did not
	// live to tell.
	Coverage []Coverage
}

// Event is one thing that the evaluation did, in order: a branch with the value that decided it, a call of the engine.
type Event struct {
	Kind   string    `json:"kind"` // "branch", "print", "call"
	Pos    value.Pos `json:"pos"`
	Source string    `json:"source,omitempty"` // the condition as written, or the function called
	Result string    `json:"result,omitempty"` // "true" or "false", or the printed text
	Values []Seen    `json:"values,omitempty"` // the operands that are not literals
}

// Seen is an operand and what it was, rendered with a bound.
type Seen struct {
	Source string `json:"source"`
	Value  string `json:"value"`
}

// Worker is one worker process. It is used by one goroutine at a time and is not usable after an
// error that says so (Dead). It asks for each file once: what it has loaded is what it evaluates, whatever
// happens to the file meanwhile.
type Worker interface {
	// Load executes the file's top level, which can only declare.
	Load(ctx context.Context, path string, vocab Vocabulary, src Source) (Module, error)
	// Evaluate calls fn(ctx) of a file, answering each query and action through caller. The events seen until
	// then are returned with an error too. An error returned by caller comes back unchanged.
	Evaluate(ctx context.Context, path, fn string, vocab Vocabulary, src Source, c Context, caller kit.Caller) (Result, error)
	// Dead says whether the process has ended or can no longer be trusted.
	Dead() bool
	// Close ends the process and waits for it.
	Close()
}

// Watcher is a caller that wants to know, before each call, what the script did since the last one. lost says that there was more than is reported, so
// that a way which a condition went may be missing.
type Watcher interface {
	Saw(events []Event, lost bool)
}

// Warmer is a Worker whose process is started when it is first needed. Warm starts it now, in the background, and lets it load the file that it is going
// to evaluate; an error comes with its use.
type Warmer interface {
	Warm(ctx context.Context, path string, vocab Vocabulary, src Source)
}
