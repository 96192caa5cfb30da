// Package problem holds the one kind of error that a person is meant to read.
//
// A Problem has a stable code (a word of the list in codes.go, with a page under docs/errors), a
// message that says what happened, a position where there is one, and a hint that says what to type
// next. Wrap other errors with %w as usual; find the Problem with errors.As.
package problem

import (
	"fmt"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Problem is an error with a code, a position and a hint.
type Problem struct {
	Code    Code      `json:"code"`
	Message string    `json:"message"`
	Pos     value.Pos `json:"pos,omitzero"`
	Hint    string    `json:"hint,omitempty"`
	// Detail holds further lines that help: a source line with a caret, a plugin's last words.
	Detail []string `json:"detail,omitempty"`
	err    error
}

// New makes a Problem. The message follows the error style: lower case, no full stop.
func New(code Code, format string, args ...any) *Problem {
	return &Problem{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap makes a Problem whose message ends in err's and that unwraps to err.
func Wrap(code Code, err error, format string, args ...any) *Problem {
	return &Problem{Code: code, Message: fmt.Sprintf(format, args...) + ": " + err.Error(), err: err}
}

// Because returns p that unwraps to err, of which its message tells already.
func (p *Problem) Because(err error) *Problem { p.err = err; return p }

// At returns p with a position.
func (p *Problem) At(pos value.Pos) *Problem { p.Pos = pos; return p }

// WithHint returns p with a hint: an imperative sentence, best a command to type.
func (p *Problem) WithHint(format string, args ...any) *Problem {
	p.Hint = fmt.Sprintf(format, args...)
	return p
}

// WithDetail returns p with further lines.
func (p *Problem) WithDetail(lines ...string) *Problem {
	p.Detail = append(p.Detail, lines...)
	return p
}

// Error implements error: "worker.star:12:5: message".
func (p *Problem) Error() string {
	if pos := p.Pos.String(); pos != "" {
		return pos + ": " + p.Message
	}
	return p.Message
}

// Unwrap returns the cause, if there is one.
func (p *Problem) Unwrap() error { return p.err }
