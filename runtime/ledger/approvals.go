package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// Approvals are the requests that still decide something: one small document. Every request also has a record of its own, for ever.
type Approvals struct {
	V    int              `json:"v"` // 1
	List []guard.Approval `json:"list"`
}

// keepDeclined is how long a no is remembered at most, so that the same is not asked again while its episode lasts.
const keepDeclined = 7 * 24 * time.Hour

// KeyApproval is the key of a request by its id.
func KeyApproval(id string) string { return "approval/" + id }

// ReadApprovals reads those that still decide something; KeyApprovals is read.
func ReadApprovals(tx store.ReadTx) (Approvals, error) {
	a, err := Read[Approvals](tx, KeyApprovals)
	if err == nil && a.V > 1 {
		err = problem.New(problem.StateUnusable, "the approvals were written by a newer version (format %d, this one knows 1)", a.V).
			WithHint("use the newer runbook binary that wrote them")
	}
	return a, err
}

// Bound is the request for exactly this: the newest of that binding that has not been used up, nil if nobody was asked. KeyApprovals is read.
func Bound(tx store.ReadTx, binding string) (*guard.Approval, error) {
	all, err := ReadApprovals(tx)
	if err != nil {
		return nil, err
	}
	for _, a := range slices.Backward(all.List) {
		if a.Binding == binding {
			return &a, nil
		}
	}
	return nil, nil
}

// putApproval writes a request, and those that still decide something.
func putApproval(tx store.Tx, now action.Clock, a guard.Approval) error {
	all, err := ReadApprovals(tx)
	if err != nil {
		return err
	}
	all.V = 1
	all.List = slices.DeleteFunc(all.List, func(o guard.Approval) bool {
		return o.ID == a.ID || o.Binding == a.Binding || o.Expired(now) && (o.Answer != guard.Declined || now.Trusted-o.AskedAt.Trusted >= keepDeclined)
	})
	if a.Attempt == "" {
		all.List = append(all.List, a)
	}
	if err := Write(tx, KeyApproval(a.ID), a); err != nil {
		return err
	}
	return Write(tx, KeyApprovals, all)
}

// Ask records a request, unless one for the same waits already or was declined in this episode; it returns the one that counts. KeyApprovals is read.
func Ask(tx store.Tx, now action.Clock, a guard.Approval) (guard.Approval, error) {
	old, err := Bound(tx, a.Binding)
	if err != nil {
		return a, err
	}
	if old != nil && (!old.Expired(now) && old.Attempt == "" || old.Answer == guard.Declined && old.Episode == a.Episode) {
		return *old, nil
	}
	a.AskedAt = now
	return a, putApproval(tx, now, a)
}

// Consume uses an approval up: it covers the one attempt that begins now. KeyApprovals is read.
func Consume(tx store.Tx, now action.Clock, binding, attempt string) error {
	a, err := Bound(tx, binding)
	if err != nil {
		return err
	}
	if a == nil || a.Answer != guard.Approved || a.Attempt != "" || a.Expired(now) {
		return problem.New(problem.Internal, "attempt %s begins without an approval", attempt)
	}
	a.Attempt = attempt
	return putApproval(tx, now, *a)
}

// Respond records a person's answer to a request that waits.
func Respond(ctx context.Context, st store.Store, read Clock, id string, answer guard.Answer, by, why string, dry bool) (guard.Approval, error) {
	var got guard.Approval
	look := func(tx store.ReadTx, now action.Clock) error {
		all, err := ReadApprovals(tx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all.List, func(a guard.Approval) bool { return a.ID == id })
		if i < 0 {
			waiting := slices.DeleteFunc(all.List, func(a guard.Approval) bool { return a.Answer != "" || a.Expired(now) })
			return problem.New(problem.NotFound, "no request %q waits for an answer%s", id, problem.DidYouMean(id, names(waiting, func(a guard.Approval) string { return a.ID }))).
				WithHint("it may have expired or been used up; those that wait are in: runbook status")
		}
		got = all.List[i]
		switch {
		case got.Answer != "":
			return problem.New(problem.Refused, "request %s was %s by %s already", id, got.Answer, got.By).WithHint("runbook status")
		case got.Expired(now):
			return problem.New(problem.Refused, "request %s has expired after %s, so the answer is no", id, "30m").
				WithHint("if the problem lasts it is asked again: runbook status")
		}
		got.Answer, got.By, got.Why, got.At = answer, by, why, now
		return nil
	}
	if dry {
		err := st.View(ctx, []string{KeyClock, KeyApprovals}, func(tx store.ReadTx) error {
			now, err := Moment(tx, read)
			if err != nil {
				return err
			}
			return look(tx, now)
		})
		return got, err
	}
	err := st.Update(ctx, []string{KeyClock, KeyApprovals}, func(tx store.Tx) error {
		now, err := Tick(tx, read)
		if err != nil {
			return err
		}
		if err := look(tx, now); err != nil {
			return err
		}
		store.Mark(tx)
		return putApproval(tx, now, got)
	})
	return got, err
}

// Waiting are the requests that wait for an answer, and those approved that have not been used, oldest first.
func Waiting(ctx context.Context, st store.Store, read Clock) ([]guard.Approval, action.Clock, error) {
	var out []guard.Approval
	var now action.Clock
	err := st.View(ctx, []string{KeyClock, KeyApprovals}, func(tx store.ReadTx) (err error) {
		if now, err = Moment(tx, read); err != nil {
			return err
		}
		all, err := ReadApprovals(tx)
		out = slices.DeleteFunc(all.List, func(a guard.Approval) bool { return a.Expired(now) || a.Answer == guard.Declined })
		return err
	})
	return out, now, err
}
