package sandbox

import (
	"fmt"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// limit is one of the limits(...) settings.
type limit struct {
	setting string
	what    string // with one %s for the value
	raise   string // an example of a larger value
}

var (
	limitSteps  = limit{"steps", "stopped after %s steps", "20_000_000"}
	limitTime   = limit{"time", "stopped after %s of its own time", `"1m"`}
	limitStall  = limit{"time", "stopped: one operation took longer than %s, a tenth of the time", `"1m"`}
	limitMemory = limit{"memory", "stopped at the memory limit of %s", `"256MiB"`}
	limitFile   = limit{"source_file", "the file is larger than %s", `"512KiB"`}
	limitSource = limit{"source", "the file and all that it loads are larger than %s", `"2MiB"`}
)

// limitProblem names the limit and its setting.
func limitProblem(l limit, val string) *problem.Problem {
	return problem.New(problem.Limit, l.what+" (limits(%s=))", val, l.setting).
		WithHint("do less, or raise limits(%s = %s) in project.star", l.setting, l.raise)
}

func limitStack() *problem.Problem {
	return problem.New(problem.Limit, "stopped: nested too deeply for a stack of %s", size(maxStack)).
		WithHint("nest less: this limit is not a setting")
}

// causes that a worker notes in its page before it ends itself.
const (
	causeNone uint64 = iota
	causeMemory
	causeTime // of the CPU
)

// end is how a worker process ended.
type end struct {
	cause  uint64 // noted by the worker
	signal string // "" if it exited
	status string
	words  string // the last it wrote to stderr
}

// problem words the end of a worker that was not asked to end.
func (e end) problem(l Limits, at value.Pos) *problem.Problem {
	switch {
	case e.cause == causeMemory || outOfMemory.MatchString(e.words):
		return limitProblem(limitMemory, size(l.Memory)).At(at)
	case stackOverflow.MatchString(e.words):
		return limitStack().At(at)
	case e.cause == causeTime:
		return limitProblem(limitTime, duration(l.Time)).At(at)
	case e.signal != "":
		p := problem.New(problem.Sandbox, "the worker process was ended from outside (%s)", e.signal).At(at)
		if e.signal == "killed" {
			p.Hint = "the kernel does this when the machine is out of memory: see its log"
		}
		return p
	}
	p := problem.New(problem.Sandbox, "the worker process ended by itself (%s)", e.status).At(at)
	if e.words != "" {
		p.Detail = append(p.Detail, "its last words: "+clip(e.words, 300))
	}
	return p
}

var (
	outOfMemory   = re(`out of memory|cannot allocate memory|SIGSEGV|unexpected fault address|mmap|newosproc|failed to create new OS thread|runtime: VirtualAlloc`)
	stackOverflow = re(`stack exceeds|stack overflow`)
)

func duration(d time.Duration) string { return value.FormatDuration(d) }

// panicProblem words a Go panic in the worker: some builtins answer a request for too much memory with one.
func panicProblem(x any, memory int64) *problem.Problem {
	text := fmt.Sprint(x)
	if re(`out of range|too large|overflow|makeslice|makemap|growslice`).MatchString(text) {
		return limitProblem(limitMemory, size(memory))
	}
	return problem.New(problem.Sandbox, "the interpreter failed: %s", clip(text, 300))
}
