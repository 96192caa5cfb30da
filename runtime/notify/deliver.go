package notify

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// Sink is a way to tell people.
type Sink interface {
	// Name is the same in every run, and holds no secret: the record says to whom it was sent.
	Name() string
	// Wants says whether the notices of an owner go this way. The empty owner is that of the whole project.
	Wants(owner string) bool
	// Send returns nil once the receiver has it.
	Send(ctx context.Context, m Message) error
}

// Message is what a sink sends.
type Message struct {
	ID string `json:"id"` // of this telling: a reminder has another one, a repeated delivery the same
	Notice
	Runbooks []string  `json:"runbooks,omitempty"` // all that met it
	Owners   []string  `json:"owners,omitempty"`
	Count    int       `json:"count"` // how often it has happened
	Reminder int       `json:"reminder,omitempty"`
	Last     time.Time `json:"last"` // when it happened last
}

// Pending are the notices that wait to be delivered, oldest first.
func Pending(ctx context.Context, st store.Store) ([]Record, error) {
	var list index
	if err := st.View(ctx, []string{pendingKey}, func(tx store.ReadTx) (err error) {
		list, err = pending(tx)
		return err
	}); err != nil {
		return nil, err
	}
	keys := make([]string, len(list.IDs))
	for i, id := range list.IDs {
		keys[i] = recordKey(id)
	}
	var all []Record
	err := st.View(ctx, keys, func(tx store.ReadTx) error {
		all = nil
		for _, id := range list.IDs {
			r, err := load(tx, id)
			if err != nil {
				return err
			}
			// Another run may have delivered it in between.
			if r != nil && r.Pending() {
				all = append(all, *r)
			}
		}
		return nil
	})
	return all, err
}

// Deliver sends what waits, each notice to each sink that wants it. What could not be sent stays, for the next run, and is a problem of code
// notice-failed. A sink that fails is not tried again by this call, so that one that hangs costs its timeout once.
func Deliver(ctx context.Context, st store.Store, sinks []Sink, now time.Time) error {
	waiting, err := Pending(ctx, st)
	if err != nil {
		return err
	}
	d := delivery{sinks: sinks, failed: map[string]error{}}
	for _, r := range waiting {
		if ctx.Err() != nil {
			d.left++
			continue
		}
		sent, done := d.send(ctx, r)
		if len(sent) == 0 && !done {
			continue
		}
		// What has been sent is noted even if the run is being stopped: it would be sent again.
		if err := note(context.WithoutCancel(ctx), st, r, sent, done, now); err != nil {
			return err
		}
	}
	return d.problem(len(waiting), ctx.Err())
}

type delivery struct {
	sinks  []Sink
	failed map[string]error // by sink
	left   int              // notices that somebody still has to be told
}

// send returns the sinks that have it now, and whether nobody is left to be told.
func (d *delivery) send(ctx context.Context, r Record) (sent []string, done bool) {
	m := Message{
		ID: r.messageID(), Notice: r.Notice, Runbooks: r.Runbooks, Owners: r.Owners, Count: r.Count, Reminder: r.Round - 1, Last: r.Last,
	}
	wanted := false
	done = true
	for _, s := range d.sinks {
		if !wants(s, r) {
			continue
		}
		wanted = true
		if _, has := r.Sent[s.Name()]; has {
			continue
		}
		if d.failed[s.Name()] != nil {
			done = false
			continue
		}
		if err := s.Send(ctx, m); err != nil {
			d.failed[s.Name()] = err
			done = false
			continue
		}
		sent = append(sent, s.Name())
	}
	if !wanted {
		d.failed["no route"] = errors.New("no route in project.star takes the notices of owner " + r.Notice.Owner)
		done = false
	}
	if !done {
		d.left++
	}
	return sent, done
}

func wants(s Sink, r Record) bool {
	return s.Wants(r.Notice.Owner) || slices.ContainsFunc(r.Owners, s.Wants)
}

// note records what was sent, unless the notice is by now another telling.
func note(ctx context.Context, st store.Store, r Record, sent []string, done bool, now time.Time) error {
	return st.Update(ctx, []string{pendingKey, recordKey(r.ID)}, func(tx store.Tx) error {
		current, err := load(tx, r.ID)
		if err != nil || current == nil || current.Round != r.Round || !current.Pending() {
			return err
		}
		at := now.UTC().Round(0)
		if current.Sent == nil {
			current.Sent = map[string]time.Time{}
		}
		for _, s := range sent {
			current.Sent[s] = at
		}
		if done {
			current.Delivered = at
			if err := queue(tx, r.ID, false); err != nil {
				return err
			}
		}
		return save(tx, current)
	})
}

func (d *delivery) problem(waiting int, ended error) error {
	if d.left == 0 {
		return nil
	}
	p := problem.New(problem.NoticeFailed, "%d of %d notices could not be delivered", d.left, waiting).
		WithHint("they are kept, and the next run tries again; the routes are notify(...) in project.star")
	for _, s := range d.sinks {
		if err := d.failed[s.Name()]; err != nil {
			p = p.WithDetail(s.Name() + ": " + err.Error())
		}
	}
	if err := d.failed["no route"]; err != nil {
		p = p.WithDetail(err.Error())
	}
	if ended != nil {
		p = p.WithDetail("the run was ending: " + ended.Error())
	}
	return p
}
