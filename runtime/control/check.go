package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// maxHalt is the largest HALT file that is read.
const maxHalt = 64 << 10

// Check asks every source and returns those that halt; none means that an action may begin. Whatever cannot be answered halts.
func (s State) Check(env func(string) (string, bool)) []HaltInfo {
	var set []HaltInfo
	switch reason, ok := lookup(env); {
	case env == nil:
		set = append(set, HaltInfo{Source: SourceEnvironment, Reason: "the environment cannot be read"})
	case ok:
		set = append(set, HaltInfo{Source: SourceEnvironment, Reason: strings.TrimSpace(EnvHalt + " is set: " + printable(reason))})
	}
	if s.Dir == "" || s.Namespace == "" {
		set = append(set, HaltInfo{Source: SourceState, Reason: "the state directory is not open"})
	}
	set = append(set, s.readHalt(SourceFile, s.path("HALT"))...)
	if err := s.gateReady(); err != nil {
		set = append(set, HaltInfo{Source: SourceMemory, Reason: "the gate directory cannot be used: " + err.Error()})
	} else {
		set = append(set, s.readHalt(SourceMemory, s.memoryHalt())...)
	}
	if reason := s.sentinel(); reason != "" {
		set = append(set, HaltInfo{Source: SourceSentinel, Reason: reason})
	}
	return set
}

func lookup(env func(string) (string, bool)) (string, bool) {
	if env == nil {
		return "", false
	}
	return env(EnvHalt)
}

// Halted is the problem that says why nothing may act; nil if there is nothing to say.
func Halted(set []HaltInfo) error {
	if len(set) == 0 {
		return nil
	}
	var hint string
	lines := make([]string, len(set))
	for i, h := range set {
		lines[i] = h.String()
		if h.Source == SourceEnvironment {
			hint = "unset " + EnvHalt + " where runbook is started"
		}
	}
	if hint == "" {
		hint = `look at it with: runbook status; lift it with: runbook resume --reason "why it is safe"`
	}
	p := problem.New(problem.Halted, "halted: %s", lines[0]).WithHint("%s", hint)
	return p.WithDetail(lines[1:]...)
}

// String is one line: "disk full everywhere (file, by ann@db1(pts/1), since 2026-03-01T10:20:00Z, until ...)".
func (h HaltInfo) String() string {
	out := h.Reason + " (" + h.Source
	if h.By != "" {
		out += ", by " + h.By
	}
	if !h.At.IsZero() {
		out += ", since " + h.At.UTC().Format(time.RFC3339)
	}
	if !h.Until.IsZero() {
		out += ", until " + h.Until.UTC().Format(time.RFC3339)
	}
	return out + ")"
}

// Distinct is a set of halts as people count them: one that is set in the state directory and in its copy in memory is one halt.
func Distinct(set []HaltInfo) []HaltInfo {
	var out []HaltInfo
	for _, h := range set {
		same := func(o HaltInfo) bool { return o.Reason == h.Reason && o.By == h.By && o.At.Equal(h.At) }
		if i := slices.IndexFunc(out, same); i >= 0 {
			out[i].Source += " and " + h.Source
			continue
		}
		out = append(out, h)
	}
	return out
}

func (s State) memoryHalt() string { return filepath.Join(s.GateDir, "HALT") }

// readHalt reads a HALT file: one JSON line for each halt, so that a second halt, with an end, does not shorten the first. Whatever is not
// such a line was put there by hand and has no end; that goes for an empty file too.
func (s State) readHalt(source, path string) []HaltInfo {
	broken := func(err error) []HaltInfo {
		return []HaltInfo{{Source: source, Reason: "HALT cannot be read: " + err.Error()}}
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return broken(err)
	}
	if !info.Mode().IsRegular() {
		return broken(fmt.Errorf("%s is not a regular file", path))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return broken(err)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxHalt+1))
	_ = f.Close()
	switch {
	case err != nil:
		return broken(err)
	case len(content) > maxHalt:
		return broken(fmt.Errorf("%s is larger than %d bytes", path, maxHalt))
	}
	var set []HaltInfo
	now := s.now()
	for line := range bytes.SplitSeq(bytes.TrimSuffix(content, []byte("\n")), []byte("\n")) {
		var h HaltInfo
		if err := json.Unmarshal(line, &h); err != nil || h.Reason == "" {
			set = append(set, HaltInfo{Source: source, Reason: strings.TrimSuffix("HALT was put there by hand: "+printable(string(line)), ": "), At: info.ModTime()})
			continue
		}
		// It was given an end, and that has come.
		if !h.Until.IsZero() && !now.Before(h.Until) {
			continue
		}
		h.Source = source
		set = append(set, h)
	}
	return set
}

// sentinel says why RUN does not let anything run, or is empty.
func (s State) sentinel() string {
	f, err := os.OpenFile(s.path("RUN"), os.O_RDONLY|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "RUN is missing from " + s.Dir + ": a halt removed it, or init did not finish"
	}
	if err != nil {
		return "RUN cannot be read: " + err.Error()
	}
	content, err := io.ReadAll(io.LimitReader(f, 256))
	_ = f.Close()
	switch {
	case err != nil:
		return "RUN cannot be read: " + err.Error()
	case strings.TrimSpace(string(content)) != s.Namespace || s.Namespace == "":
		return "RUN is not that of this state directory"
	}
	return ""
}

// printable is the beginning of what somebody wrote, without control characters.
func printable(text string) string {
	const most = 200
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strings.TrimSpace(text)
}

// hooks replace the world in tests.
type hooks struct {
	now      func() time.Time
	env      func(string) (string, bool)
	files    files
	patience time.Duration // instead of writeTimeout and gateTimeout
}

func (s State) now() time.Time {
	if s.hooks != nil && s.hooks.now != nil {
		return s.hooks.now()
	}
	return time.Now() //nolint:forbidigo // halts have an end on the wall clock of this moment, not of the run
}

func (s State) lookupEnv(name string) (string, bool) {
	if s.hooks != nil && s.hooks.env != nil {
		return s.hooks.env(name)
	}
	return os.LookupEnv(name) //nolint:forbidigo // resume must say that it cannot lift this one
}

func (s State) disk() files {
	if s.hooks != nil && s.hooks.files != nil {
		return s.hooks.files
	}
	return osFiles{}
}

func (s State) patience(d time.Duration) time.Duration {
	if s.hooks != nil && s.hooks.patience > 0 {
		return s.hooks.patience
	}
	return d
}

func span(d time.Duration) string { return value.FormatDuration(d.Round(time.Millisecond)) }
