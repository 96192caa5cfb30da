// Package breaker is the global breaker over all runbooks: when too much of what was tried went badly, nothing starts until a person has looked.
//
// It is a pure function of (document, policy, now, event). The document is committed in the transaction of the record that caused the event.
//
//   - Closed lets everything pass. It opens on Policy.Count attempts that went badly within Policy.Window, on an outcome that contradicts
//     the record, and by a person.
//   - Open lets nothing start. Only a person leads out of it, to half-open.
//   - Half-open lets one canary at a time start. Policy.Canaries of which the expectation held close it; anything that goes badly opens it.
//   - Beside its state it is held while two or more fleets are over their share: that is one problem, and not many targets'.
//   - A document that is missing beside other records, or cannot be read, is open.
//
// An attempt counts once, however many ways it went badly. What a person's control interrupted does not count.
package breaker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
)

// State is where the breaker stands.
type State string

// The states.
const (
	Closed   State = "closed"
	Open     State = "open"
	HalfOpen State = "half-open"
)

// Policy is what project.star sets. Zero values are replaced by Defaults.
type Policy struct {
	Count    int           `json:"count"`    // attempts that went badly, which open it
	Window   time.Duration `json:"window"`   // within this
	Canaries int           `json:"canaries"` // that must hold to close it
}

// Defaults are the limits that ship: the 3rd in an hour opens it, 3 canaries close it.
func Defaults() Policy { return Policy{Count: 3, Window: time.Hour, Canaries: 3} }

// WithDefaults replaces what is not set.
func (p Policy) WithDefaults() Policy {
	d := Defaults()
	if p.Count <= 0 {
		p.Count = d.Count
	}
	if p.Window <= 0 {
		p.Window = d.Window
	}
	if p.Canaries <= 0 {
		p.Canaries = d.Canaries
	}
	return p
}

// Doc is the durable document.
type Doc struct {
	V      int          `json:"v"` // 1
	State  State        `json:"state"`
	Since  action.Clock `json:"since,omitzero"` // when it came to this state
	Reason string       `json:"reason,omitempty"`
	By     string       `json:"by,omitempty"` // the person who opened or reset it
	Policy Policy       `json:"policy,omitzero"`
	Bad    []Bad        `json:"bad,omitempty"`    // within the window, oldest first
	Canary string       `json:"canary,omitempty"` // the attempt that is trying, in half-open
	Held   int          `json:"held,omitempty"`   // canaries whose expectation held
	Wide   []Wide       `json:"wide,omitempty"`   // fleets over their share
	// Changes are the last ones, Seq numbers them, and Told is the last that people were told of.
	Changes []Change `json:"changes,omitempty"`
	Seq     int      `json:"seq,omitempty"`
	Told    int      `json:"told,omitempty"`
}

// Bad is an attempt that went badly.
type Bad struct {
	Attempt string       `json:"attempt"`
	Runbook string       `json:"runbook"`
	Target  string       `json:"target"`
	What    string       `json:"what"` // "failed", "interrupted", "in doubt", "ineffective"
	At      action.Clock `json:"at"`
}

// Wide is a fleet over its share, as a runbook saw it last.
type Wide struct {
	Fleet   string       `json:"fleet"`
	Runbook string       `json:"runbook"`
	Bad     int          `json:"bad"` // sick or unknown
	Members int          `json:"members"`
	At      action.Clock `json:"at"`
}

// Change is one that people are told of.
type Change struct {
	Seq int       `json:"seq"`
	To  string    `json:"to"` // a State, "widespread" or "cleared"
	At  time.Time `json:"at"`
	Why string    `json:"why"`
	By  string    `json:"by,omitempty"`
}

// The changes that are no states.
const (
	Widespread = "widespread"
	Cleared    = "cleared"
)

const (
	maxChanges = 20
	maxWide    = 1000
	// forgetWide is when a fleet that nobody looks at any more, because its runbook is gone, no longer counts.
	forgetWide = 24 * time.Hour
)

// New is the document of a store in which nothing has happened.
func New() Doc { return Doc{V: 1, State: Closed} }

// Lost is the document in place of one that is missing or cannot be read.
func Lost(why string) Doc { return Doc{V: 1, State: Open, Reason: why} }

// Encode returns the stored form.
func (d Doc) Encode() ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode the breaker: %w", err)
	}
	return b, nil
}

// Decode reads the stored form. What cannot be read, or knows more than this version, is open and never an error: an error would be in the way
// of the person who resets it.
func Decode(b []byte) Doc {
	var d Doc
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	err := dec.Decode(&d)
	if err == nil {
		if _, end := dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows it")
		}
	}
	switch {
	case err != nil:
		return Lost("its record cannot be read: " + err.Error())
	case d.V != 1:
		return Lost(fmt.Sprintf("its record has format %d, this version knows 1", d.V))
	case d.State != Closed && d.State != Open && d.State != HalfOpen:
		return Lost("its record says something impossible")
	}
	return d
}

// Badly are the attempts that went badly within the window before now, oldest first. One from the future is in every window.
func (d Doc) Badly(p Policy, now action.Clock) []Bad {
	p = p.WithDefaults()
	var out []Bad
	for _, b := range d.Bad {
		if now.Trusted-b.At.Trusted < p.Window {
			out = append(out, b)
		}
	}
	return out
}

// HeldBy says which fleets hold the breaker: two or more over their share, or none.
func (d Doc) HeldBy(now action.Clock) []Wide {
	var out []Wide
	for _, w := range d.Wide {
		if now.Trusted-w.At.Trusted < forgetWide && !slices.ContainsFunc(out, func(o Wide) bool { return o.Fleet == w.Fleet }) {
			out = append(out, w)
		}
	}
	if len(out) < 2 {
		return nil
	}
	return out
}

func (d *Doc) change(now action.Clock, to, why, by string) {
	d.Seq++
	d.Changes = append(slices.Clip(d.Changes), Change{Seq: d.Seq, To: to, At: now.Wall.UTC().Round(0), Why: why, By: by})
	if n := len(d.Changes) - maxChanges; n > 0 {
		d.Changes = d.Changes[n:]
	}
}

// to moves to a state.
func (d *Doc) to(s State, now action.Clock, why, by string) {
	now.Wall = now.Wall.UTC().Round(0)
	d.State, d.Since, d.Reason, d.By, d.Canary, d.Held = s, now, why, by, "", 0
	d.change(now, string(s), why, by)
}

// Untold are the changes that people have not been told of.
func (d Doc) Untold() []Change {
	var out []Change
	for _, c := range d.Changes {
		if c.Seq > d.Told {
			out = append(out, c)
		}
	}
	return out
}

// String is one line for people.
func (d Doc) String() string {
	switch d.State {
	case Closed:
		return "closed"
	case HalfOpen:
		return fmt.Sprintf("half-open: %d of %d canaries held", d.Held, d.Policy.WithDefaults().Canaries)
	}
	return "open: " + d.Reason
}
