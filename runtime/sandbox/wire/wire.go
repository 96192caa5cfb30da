// Package wire is what a worker and its engine say to each other: length-prefixed JSON frames over two
// pipes, capped in size both ways.
//
// The engine begins with Hello and then sends one Run at a time. While it runs the worker asks (Load,
// Call), each question is answered before the next, and it ends with Done.
package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// MaxFrame is the largest frame in bytes, either way.
const MaxFrame = 8 << 20

// ToWorker is a frame from the engine. Exactly one field is set.
type ToWorker struct {
	Hello  *Hello  `json:"hello,omitzero"`
	Run    *Run    `json:"run,omitzero"`
	Source *Source `json:"source,omitzero"`
	Answer *Answer `json:"answer,omitzero"`
}

// FromWorker is a frame from a worker. Exactly one field is set.
type FromWorker struct {
	Ready  *Ready  `json:"ready,omitzero"`
	Load   *Load   `json:"load,omitzero"`
	Call   *Call   `json:"call,omitzero"`
	Events *Events `json:"events,omitzero"`
	Done   *Done   `json:"done,omitzero"`
}

// Hello sets the limits of the process, before it has seen a script.
type Hello struct {
	Steps  uint64 `json:"steps"`
	Time   int64  `json:"time"` // nanoseconds
	Memory int64  `json:"memory"`
}

// Ready answers Hello. Error says which limit could not be set.
type Ready struct {
	Error string `json:"error,omitzero"`
}

// Run loads a file and, with Fn, calls a function of it with ctx.
type Run struct {
	Path       string      `json:"path"`
	Fn         string      `json:"fn,omitzero"`
	Vocabulary *Vocabulary `json:"vocabulary,omitzero"` // nil: that of the last Run
	Context    *Context    `json:"context,omitzero"`    // set with Fn
}

// Vocabulary is sandbox.Vocabulary without anything that can be called.
type Vocabulary struct {
	Declarations []kit.Function `json:"declarations"`
	Modules      []kit.Family   `json:"modules"`
	Families     []kit.Family   `json:"families"`
	Methods      []kit.Family   `json:"methods,omitzero"`
}

// Context is sandbox.Context.
type Context struct {
	Bare    bool       `json:"bare,omitzero"`
	Now     time.Time  `json:"now"`
	Target  value.Dict `json:"target"`
	Params  value.Dict `json:"params"`
	Attempt int        `json:"attempt"`
	Steps   value.List `json:"steps"`
}

// Load asks for the text of a file; the answer is Source.
type Load struct {
	Path string    `json:"path"`
	Pos  value.Pos `json:"pos"` // of the load statement
}

// Source is the text of a file. Stop means that there is none and that the run ends.
type Source struct {
	Text string `json:"text"`
	Stop bool   `json:"stop,omitzero"`
}

// Call asks for a query or an action; the answer is Answer. Events are those since the last frame.
type Call struct {
	Family   string     `json:"family"`
	Function string     `json:"function"`
	Args     value.Dict `json:"args"`
	Pos      value.Pos  `json:"pos"`
	Events   Events     `json:"events"`
}

// Answer is the result of a Call. Stop means that the run ends.
type Answer struct {
	Value value.JSON `json:"value"`
	Stop  bool       `json:"stop,omitzero"`
}

// Events are sent when many have gathered, before a Call and with Done.
type Events struct {
	List    []Event `json:"list,omitzero"`
	Dropped int     `json:"dropped,omitzero"`
}

// Event is sandbox.Event.
type Event struct {
	Kind   string    `json:"kind"`
	Pos    value.Pos `json:"pos"`
	Source string    `json:"source,omitzero"`
	Result string    `json:"result,omitzero"`
	Values []Seen    `json:"values,omitzero"`
}

// Seen is sandbox.Seen.
type Seen struct {
	Source string `json:"source"`
	Value  string `json:"value"`
}

// Done ends a Run: with a Problem, with Stopped (the engine said so), or with a Module and an Outcome.
type Done struct {
	Problem *problem.Problem `json:"problem,omitzero"`
	Stopped bool             `json:"stopped,omitzero"`
	Doc     string           `json:"doc,omitzero"`
	Records []*value.Record  `json:"records,omitzero"`
	Defs    []string         `json:"defs,omitzero"`
	Outcome *value.Record    `json:"outcome,omitzero"`
	Steps   uint64           `json:"steps"`
	Events  Events           `json:"events"`
	// Statements are the first lines of all statements of each file that was loaded, Ran those that were executed.
	Coverage []Coverage `json:"coverage,omitzero"`
}

// Coverage is sandbox.Coverage.
type Coverage struct {
	Path       string `json:"path"`
	Statements []int  `json:"statements"`
	Ran        []int  `json:"ran"`
	Conditions []Arm  `json:"conditions"`
}

// Arm is sandbox.Arm.
type Arm struct {
	Pos    value.Pos `json:"pos"`
	Source string    `json:"source"`
	True   bool      `json:"true,omitzero"`
	False  bool      `json:"false,omitzero"`
}

// Encode makes one frame.
func Encode(v any) ([]byte, error) {
	frame := bytes.NewBuffer(make([]byte, 4, 512))
	if err := json.MarshalWrite(frame, v); err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	n := frame.Len() - 4
	if n > MaxFrame {
		return nil, fmt.Errorf("frame of %d bytes: at most %d", n, MaxFrame)
	}
	binary.BigEndian.PutUint32(frame.Bytes(), uint32(n))
	return frame.Bytes(), nil
}

// Write writes one frame in one Write call.
func Write(w io.Writer, v any) error {
	frame, err := Encode(v)
	if err != nil {
		return err
	}
	if _, err := w.Write(frame); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// Read reads one frame into v, strictly. At a clean end it returns io.EOF.
func Read(r *bufio.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return fmt.Errorf("frame of %d bytes: at most %d", n, MaxFrame)
	}
	body, err := r.Peek(int(n))
	if err == nil {
		_, err = r.Discard(int(n)) // what was peeked at stays until the next read
	} else if errors.Is(err, bufio.ErrBufferFull) {
		// Memory grows with what really comes, not with what is announced.
		var all bytes.Buffer
		_, err = io.CopyN(&all, r, int64(n))
		body = all.Bytes()
	}
	if err != nil {
		return fmt.Errorf("frame cut short: %w", err)
	}
	if err := json.Unmarshal(body, v, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("decode frame: %v", err) //nolint:errorlint // an end of the text is not an end of the pipe
	}
	return nil
}
