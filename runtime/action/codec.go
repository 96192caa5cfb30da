package action

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Version is the version of the records that this code writes, and the highest that it reads. A field that is added, removed or means
// something else makes a new version: a runbook that does not know a field would drop it when it writes the record back.
const Version = 1

// Encode is the stored form of a step. It refuses what Decode would refuse.
func (s *Step) Encode() ([]byte, error) {
	c := *s
	c.V = Version
	if err := c.valid(); err != nil {
		return nil, fmt.Errorf("encode action %s: %w", s.ID, err)
	}
	data, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("encode action %s: %w", s.ID, err)
	}
	return data, nil
}

// DecodeStep reads what Encode wrote.
func DecodeStep(data []byte) (*Step, error) {
	var s Step
	if err := decode("action", data, &s, &s.V); err != nil {
		return nil, err
	}
	if err := s.valid(); err != nil {
		return nil, damaged("action", err)
	}
	return &s, nil
}

// Encode is the stored form of an attempt. It refuses what Decode would refuse.
func (a *Attempt) Encode() ([]byte, error) {
	c := *a
	c.V = Version
	if err := c.valid(); err != nil {
		return nil, fmt.Errorf("encode attempt %s: %w", a.ID, err)
	}
	data, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("encode attempt %s: %w", a.ID, err)
	}
	return data, nil
}

// DecodeAttempt reads what Encode wrote.
func DecodeAttempt(data []byte) (*Attempt, error) {
	var a Attempt
	if err := decode("attempt", data, &a, &a.V); err != nil {
		return nil, err
	}
	if err := a.valid(); err != nil {
		return nil, damaged("attempt", err)
	}
	return &a, nil
}

// decode reads a record whose version it puts into v. One that cannot be read is asked for its version first: a newer record may have any other shape.
func decode(what string, data []byte, into any, v *int) error {
	wrong := strict(data, into)
	if wrong == nil && 1 <= *v && *v <= Version {
		return nil
	}
	var head struct {
		V *int `json:"v"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return damaged(what, err)
	}
	switch {
	case head.V == nil || *head.V < 1:
		return damaged(what, errors.New("no version"))
	case *head.V > Version:
		return problem.New(problem.StateUnusable, "the record of the %s has version %d, this runbook reads up to %d", what, *head.V, Version).
			WithHint("a newer runbook wrote it: use that one, or a newer one, everywhere")
	}
	return damaged(what, wrong)
}

// strict refuses unknown fields and anything after the document.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the record")
	}
	return nil
}

func damaged(what string, err error) error {
	return problem.Wrap(problem.StoreDamaged, err, "the record of the %s cannot be read", what).WithHint("runbook doctor")
}

func (s *Step) valid() error {
	known := false
	for _, a := range stepArrows {
		known = known || a.to == s.State
	}
	i := s.Identity
	switch {
	case !known:
		return fmt.Errorf("unknown state %q", s.State)
	case !utf8.ValidString(i.Namespace + i.Runbook + i.Target + i.Episode):
		return errors.New("its identity is not text")
	case s.Key != i.Key() || s.ID != ShortID(s.Key):
		return errors.New("its key is not that of its identity")
	case len(s.History) == 0 || s.History[len(s.History)-1].To != string(s.State):
		return fmt.Errorf("its history does not end in %s", s.State)
	}
	return nil
}

func (a *Attempt) valid() error {
	known := false
	for _, w := range attemptArrows {
		known = known || w.to == a.State
	}
	switch {
	case !known:
		return fmt.Errorf("unknown state %q", a.State)
	case a.ID == "" || a.Number < 1:
		return errors.New("it has no id or no number")
	case len(a.History) == 0 || a.History[len(a.History)-1].To != string(a.State):
		return fmt.Errorf("its history does not end in %s", a.State)
	}
	return nil
}

// storedOutcome is an Outcome with its value as lossless JSON.
type storedOutcome struct {
	plainOutcome
	Value json.RawMessage `json:"value,omitempty"`
}

type plainOutcome Outcome

// MarshalJSON implements json.Marshaler.
func (o Outcome) MarshalJSON() ([]byte, error) {
	stored := storedOutcome{plainOutcome: plainOutcome(o)}
	if o.Value != nil {
		var err error
		if stored.Value, err = value.Marshal(o.Value); err != nil {
			return nil, err
		}
	}
	return json.Marshal(stored)
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *Outcome) UnmarshalJSON(data []byte) error {
	var stored storedOutcome
	if err := strict(data, &stored); err != nil {
		return err
	}
	*o = Outcome(stored.plainOutcome)
	if stored.Value == nil {
		return nil
	}
	var err error
	o.Value, err = value.Unmarshal(stored.Value)
	return err
}
