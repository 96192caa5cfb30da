package sandbox

import (
	"fmt"
	"time"
)

// Defaults are the limits that apply where none is set.
func Defaults() Limits {
	return Limits{Steps: 10_000_000, Time: 30 * time.Second, Memory: 128 << 20, SourceFile: 256 << 10, SourceAll: 1 << 20}
}

// What is not a setting.
const (
	maxFiles  = 32        // files of one closure
	maxCalls  = 10_000    // queries and actions of one evaluation
	maxRange  = 1_000_000 // elements of a range
	maxStack  = 64 << 20  // of the worker's Go stack, in bytes
	startTime = 10 * time.Second
	minMemory = 16 << 20
)

// withDefaults fills in what is not set.
func (l Limits) withDefaults() Limits {
	d := Defaults()
	if l.Steps == 0 {
		l.Steps = d.Steps
	}
	if l.Time <= 0 {
		l.Time = d.Time
	}
	if l.Memory <= 0 {
		l.Memory = d.Memory
	}
	l.Memory = max(l.Memory, minMemory)
	if l.SourceFile <= 0 {
		l.SourceFile = d.SourceFile
	}
	if l.SourceAll <= 0 {
		l.SourceAll = d.SourceAll
	}
	return l
}

// stall is how much CPU time one operation may use in which Starlark cannot be interrupted: a tenth of the time.
func (l Limits) stall() time.Duration { return max(l.Time/10, 100*time.Millisecond) }

// size is a number of bytes for people: "128 MiB".
func size(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
