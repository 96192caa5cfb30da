package sandbox

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// overLimit names a limit, its setting and a value that would allow more.
func overLimit(setting, more, format string, args ...any) *problem.Problem {
	return problem.New(problem.Limit, format+" (limits(%s=))", append(args, setting)...).
		WithHint("do less, or raise limits(%s = %s) in project.star", setting, more)
}

func overSteps(n uint64) *problem.Problem {
	return overLimit("steps", fmt.Sprint(2*n), "stopped after %d steps", n)
}

func overTime(d time.Duration) *problem.Problem {
	return overLimit("time", moreTime(d), "stopped after %s of its own time", value.FormatDuration(d))
}

func overStall(l Limits) *problem.Problem {
	return overLimit("time", moreTime(l.Time), "stopped: one operation used more than %s of CPU, a tenth of the time", value.FormatDuration(l.stall()))
}

func overMemory(n int64) *problem.Problem {
	return overLimit("memory", moreSize(n), "stopped at the memory limit of %s", size(n))
}

func overFile(n int64) *problem.Problem {
	return overLimit("source_file", moreSize(n), "the file is larger than %s", size(n))
}

func overSource(n int64) *problem.Problem {
	return overLimit("source", moreSize(n), "the file and all that it loads are larger than %s", size(n))
}

func moreTime(d time.Duration) string { return `"` + value.FormatDuration(2*d) + `"` }

func moreSize(n int64) string { return `"` + strings.ReplaceAll(size(2*n), " ", "") + `"` }

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
	case e.cause == causeMemory || outOfMemory().MatchString(e.words):
		return overMemory(l.Memory).At(at)
	case e.status == runtimeFailed && !ownFault().MatchString(e.words):
		// Where it cannot have memory the runtime may have none left to say so, or says it in words of its many callers.
		p := overMemory(l.Memory).At(at)
		if e.words != "" {
			p.Detail = append(p.Detail, "its last words: "+clip(e.words, 300))
		}
		return p
	case stackOverflow().MatchString(e.words):
		return limitStack().At(at)
	case e.cause == causeTime:
		return overTime(l.Time).At(at)
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

// runtimeFailed is how Go's runtime ends a process in which it cannot go on.
const runtimeFailed = "exit status 2"

var (
	ownFault = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`panic: |concurrent map|all goroutines are asleep|sync: |stack exceeds|stack overflow`)
	})
	outOfMemory = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`out of memory|cannot allocate memory|SIGSEGV|unexpected fault address|mmap|newosproc|failed to create new OS thread|ThreadSanitizer|runtime: VirtualAlloc`)
	})
	stackOverflow = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`stack exceeds|stack overflow`) })
)

// panicProblem words a Go panic in the worker: some builtins answer a request for too much memory with one.
func panicProblem(x any, memory int64) *problem.Problem {
	text := fmt.Sprint(x)
	if re(`out of range|too large|overflow|makeslice|makemap|growslice`).MatchString(text) {
		return overMemory(memory)
	}
	return problem.New(problem.Sandbox, "the interpreter failed: %s", clip(text, 300))
}
