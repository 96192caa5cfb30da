package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// binding is what an approval of this action as a first step is about: the source, the target, the action and all its arguments.
func (v *evaluation) binding(c *call) string {
	args, err := value.Marshal(c.args)
	if err != nil {
		args = []byte(err.Error()) // it cannot be approved: no later one is the same
	}
	h := sha256.New()
	for _, part := range []string{"runbook approval 1", v.e.State.Namespace, v.rb.Name, v.rb.Digest, v.target.Key, c.name, string(args)} {
		_, _ = fmt.Fprintf(h, "%d:%s,", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// foresee notes a step that would be taken.
func (v *evaluation) foresee(c *call, rec *trace.Action) {
	if v.e.dry && v.planned == nil {
		return // a dry run asks nobody
	}
	if v.foreseen == nil {
		v.bound = v.binding(c)
	}
	v.foreseen = append(v.foreseen, guard.Foreseen{Action: c.name, Args: rec.Args, Reason: c.reason})
}

// ask records the request for approval of what was foreseen, once. Its answer is awaited by nobody: a later run finds it.
func (v *evaluation) ask() error {
	if v.foreseen == nil || v.planned == nil || v.rb.Policy.Mode != guard.Approve || v.untested() != "" || v.e.dry {
		return nil
	}
	request := guard.Approval{
		ID: strings.ToLower(suffix()), Runbook: v.rb.Name, Path: v.rb.Path, Target: v.target, Episode: v.record.Episode, Owner: v.rb.Owner,
		Run: v.e.run.ID, Binding: v.bound, Source: v.rb.Digest, Steps: v.foreseen,
	}
	err := v.e.insist([]string{ledger.KeyClock, ledger.KeyApprovals}, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, v.e.Sample)
		if err != nil {
			return err
		}
		got, err := ledger.Ask(tx, now, request)
		v.request = &got
		return err
	})
	if err != nil {
		return err
	}
	if v.request.Answer == "" {
		v.planned.Message = fmt.Sprintf("%s waits for approval: request %s", described(v.foreseen[0], v.target.Name), v.request.ID)
		v.planned.Hint = fmt.Sprintf("runbook approve %s, or: runbook decline %s --reason \"...\"; it expires in 30m", v.request.ID, v.request.ID)
		v.record.Reason = v.planned.Message
		v.saidByMode("mode is approve; request "+v.request.ID+" waits for an answer", v.planned.Hint)
	}
	return nil
}

// saidByMode brings the verdict that led to the request up to date with it.
func (v *evaluation) saidByMode(measured, lifts string) {
	for _, x := range v.record.Events {
		if x.Action == nil {
			continue
		}
		for i := range x.Action.Verdicts {
			if m := &x.Action.Verdicts[i]; m.Guard == "mode" && !m.Passed {
				m.Measured, m.Lifts = measured, lifts
			}
		}
	}
}

func described(s guard.Foreseen, target string) string {
	return fmt.Sprintf("%s %s on %s", s.Action, renderValue(s.Args), target)
}

// recommendation is the notice's text about what would be done.
func (v *evaluation) recommendation() string {
	var b strings.Builder
	for i, s := range v.foreseen {
		if i > 0 {
			b.WriteString("\nthen ")
		}
		fmt.Fprintf(&b, "%s, because %s", described(s, v.target.Name), s.Reason)
	}
	return b.String()
}

// proposal is the notice about an attempt that only the mode refused, or nil if nobody is to be told: it is shadow, or was declined.
func (v *evaluation) proposal(n *notify.Notice) *notify.Notice {
	switch {
	case v.request != nil && v.request.Answer == "":
		n.Reason = "waits for approval"
		n.Text = "may it do this? " + v.recommendation() + "\n" + v.planned.Hint + "; what waits now: runbook status"
	case v.untested() != "" && v.rb.Policy.Mode != guard.Shadow:
		n.Reason = "recommended: not tested"
		n.Text = "recommends " + v.recommendation() + "\n" + v.untested() + ", so it is not done: write a test that gets there, then type: runbook test --attest"
	case v.rb.Policy.Mode == guard.Recommend:
		n.Reason = "recommended"
		n.Text = "recommends " + v.recommendation() + "\nevery guard but the mode would let it act"
	default:
		return nil
	}
	return n
}

// untested is what the tested guard says about what was foreseen, or "".
func (v *evaluation) untested() string {
	for _, x := range guard.Refused(firstVerdicts(v.record)) {
		if x.Guard == "tested" {
			return x.Measured
		}
	}
	return ""
}
