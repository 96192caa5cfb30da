package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

// event is one thing that happens; what its numbers mean depends on the kind.
type event struct {
	Kind       string
	Who, What  int // a target, an attempt, ...
	Much       int // 0..99
	Yes, Other bool
}

var kinds = []string{
	"wait", "wait", "wait", "long", "works", "works", "works", "works", "works", "jump", "sync", "reboot", "request", "request", "request", "request", "step", "begin", "begin", "end step", "end step", "end", "end",
	"kill", "recover", "verdict", "verdict", "resolve", "halt", "disable", "answer", "answer", "open", "reset", "reset", "condition", "look", "look",
}

// sim is a machine with its store, the processes that run on it and the persons who use it. Time and what was really done is known to it, and not to
// the program: real never jumps, and is what the rules are checked against.
type sim struct {
	st     *storetest.Memory
	judge  func(guard.Input) []guard.Verdict
	policy guard.Policy

	real, booted, off time.Duration
	boot              int
	synced            bool

	members    []string
	condition  map[string]string // sick, unknown, missing; else healthy
	pid        int
	live       map[int]bool
	attempts   []*tried
	sickSeen   map[string][]time.Duration // by runbook/target
	halted     bool
	disabled   map[string]bool
	brokenAt   time.Duration // when the breaker must have opened by, 0 if it need not be
	bad        []time.Duration
	reset      bool // half-open since
	resetAfter int  // attempts there were then
	wrong      string

	answered map[string]answered // by binding: what persons said last, if it was not used
}

// answered is a person's answer to a request.
type answered struct {
	yes   bool
	asked time.Duration
	sure  bool // the wall clock was right when it was asked
}

// tried is an attempt as it really was.
type tried struct {
	id, runbook, target string
	at                  time.Duration
	owner               int
	begun               int // steps that began and were not stopped at the gate
	state               action.AttemptState
	step                string // key of the last one
	stepState           action.StepState
	steps               []string
	counted             bool
	acts                []time.Duration
}

func newSim(judge func(guard.Input) []guard.Verdict, t story) *sim {
	s := &sim{
		st: storetest.NewMemory(), judge: judge, policy: guard.Defaults(), booted: -time.Hour, synced: t.Synced,
		condition: map[string]string{}, live: map[int]bool{}, sickSeen: map[string][]time.Duration{}, disabled: map[string]bool{}, answered: map[string]answered{},
	}
	s.policy.Mode, s.policy.OpenTotal, s.policy.OpenPerFleet = guard.Auto, t.Open, t.Open
	if t.Approve {
		s.policy.Mode = guard.Approve
	}
	s.policy.Cooldown, s.policy.FleetShare, s.policy.Attempts = time.Duration(t.Cooldown)*time.Minute, t.Share, t.Attempts
	for i := range t.Size {
		s.members = append(s.members, fmt.Sprintf("t%d", i))
	}
	s.policy.Protected = []guard.Protection{{Selector: control.Selector{Target: "t1"}, Reason: "r"}}
	return s
}

func (s *sim) sample() (clock.Sample, error) {
	return clock.Sample{Wall: epoch.Add(s.real + s.off), Boot: strconv.Itoa(s.boot), Uptime: s.real - s.booted, Synced: s.synced}, nil
}

func (s *sim) update(keys []string, fn func(tx store.Tx, now action.Clock) error, more ...string) error {
	return s.st.Update(context.Background(), slices.Concat([]string{ledger.KeyClock}, keys, more), func(tx store.Tx) error {
		now, err := ledger.Tick(tx, s.sample)
		if err != nil {
			return err
		}
		return fn(tx, now)
	})
}

func (s *sim) fail(format string, args ...any) {
	if s.wrong == "" {
		s.wrong = fmt.Sprintf("at %s: ", s.real) + fmt.Sprintf(format, args...)
	}
}

// must is for what cannot go wrong unless the program is.
func (s *sim) must(err error) {
	if err != nil {
		s.fail("%v", err)
	}
}

// play lets everything happen in order, and returns the first rule that was broken.
func (s *sim) play(events []event) string {
	for _, e := range events {
		s.happen(e)
		if s.wrong != "" {
			return fmt.Sprintf("%s (%+v)", s.wrong, e)
		}
	}
	s.windows()
	return s.wrong
}

func (s *sim) happen(e event) {
	switch e.Kind {
	case "wait":
		s.real += time.Duration(e.Much) * 5 * time.Second
	case "long":
		s.real += time.Duration(e.Much) * time.Minute
	case "jump":
		if !s.synced { // a clock that is not synchronised is set to something between an hour ago and in an hour
			s.off = time.Duration(e.Much-50) * 72 * time.Second
		}
	case "sync":
		s.synced = e.Yes
		if e.Yes {
			s.off = 0
		}
	case "reboot":
		s.real += time.Duration(e.Much) * time.Second
		s.boot++
		s.booted = s.real
		clear(s.live)
		s.real += 5 * time.Second
	case "request":
		s.recover()
		s.request([]string{"a", "b"}[e.What%2], s.members[e.Who%len(s.members)], e.Yes)
	case "works":
		s.works(e)
	case "halt":
		s.halted = e.Yes && e.Other
	case "disable":
		s.disable(s.members[e.Who%len(s.members)], e.Yes)
	case "open":
		if e.Much < 30 {
			_, err := ledger.ChangeBreaker(context.Background(), s.st, s.sample, breaker.OpenedBy{Person: "ann", Reason: "r"})
			if err == nil {
				s.brokenAt, s.reset = s.real, false
			}
		}
	case "reset":
		if _, err := ledger.ChangeBreaker(context.Background(), s.st, s.sample, breaker.ResetBy{Person: "ann", Reason: "r"}); err == nil {
			s.brokenAt, s.bad, s.reset, s.resetAfter = 0, nil, true, len(s.attempts)
		}
	case "condition":
		s.condition[s.members[e.Who%len(s.members)]] = []string{"", "", "", "sick", "unknown", "missing"}[e.What%6]
	case "look":
		s.look([]string{"a", "b"}[e.What%2], s.members[e.Who%len(s.members)], e.Yes)
	case "recover":
		s.recover()
	case "answer":
		s.answer(e)
	default:
		if len(s.attempts) > 0 {
			s.goOn(e, s.attempts[len(s.attempts)-1-e.Who%min(3, len(s.attempts))])
		}
	}
}

// works is an attempt from its beginning to its end, one that helps unless what it is about says otherwise.
func (s *sim) works(e event) {
	n := len(s.attempts)
	s.happen(event{Kind: "request", Who: e.Who, What: e.What, Yes: e.Yes})
	if len(s.attempts) == n {
		return
	}
	a := s.attempts[n]
	s.goOn(event{Kind: "begin"}, a)
	s.real += time.Duration(e.Much/10) * time.Second
	s.goOn(event{Kind: "end step"}, a)
	s.goOn(event{Kind: "end"}, a)
	s.real += time.Duration(e.Much/4) * time.Second
	if s.wrong == "" {
		s.verdict(a, action.Verified)
		delete(s.condition, a.target)
	}
}

// goOn is what happens to an attempt that there is.
func (s *sim) goOn(e event, a *tried) {
	if s.wrong != "" {
		return
	}
	alive := s.live[a.owner]
	switch {
	case e.Kind == "kill":
		s.live[a.owner] = false
	case e.Kind == "resolve" && a.stepState == action.InDoubt:
		s.resolve(a, e.Yes)
	case e.Kind == "verdict" && a.state == action.Complete:
		s.verdict(a, []action.AttemptState{action.Verified, action.Verified, action.Ineffective, action.Inconclusive}[e.What%4])
	case !alive || a.state != action.Open:
	case e.Kind == "step" && a.stepState.Settled():
		s.next(a, e.Yes)
	case e.Kind == "begin" && a.stepState == action.Reserved:
		s.move(a, action.Event{To: action.Begun, By: action.ByEngine})
	case e.Kind == "end step" && a.stepState == action.Begun:
		s.move(a, []action.Event{
			{To: action.Succeeded, By: action.ByPlugin, Outcome: &action.Outcome{}},
			{To: action.Succeeded, By: action.ByPlugin, Outcome: &action.Outcome{}},
			{To: action.Failed, By: action.ByPlugin, Outcome: &action.Outcome{}},
			{To: action.InDoubt, By: action.ByEngine, Why: "timeout"},
			{To: action.NotStarted, By: action.ByPlugin},
		}[e.What%5])
	case e.Kind == "end step" && a.stepState == action.Reserved && e.What%4 == 0:
		s.move(a, action.Event{To: action.NotStarted, By: action.ByEngine})
	case e.Kind == "end" && a.stepState.Settled():
		to := action.Complete
		if a.stepState == action.Failed {
			to = action.AttemptFailed
		}
		s.end(a, to)
	case e.Kind == "end" && a.stepState == action.InDoubt:
		s.end(a, action.Interrupted)
	}
}

// input is what the program would ask the guards.
func (s *sim) input(tx store.ReadTx, now action.Clock, runbook, act, target, attempt string) (guard.Input, error) {
	st, err := ledger.GuardState(tx, now, func(o action.Owner) bool { return s.live[o.PID] }, runbook, act, target)
	if err != nil {
		return guard.Input{}, err
	}
	if s.halted {
		st.Halt = []control.HaltInfo{{Source: control.SourceFile, Reason: "r"}}
	}
	view := guard.FleetView{ID: "f", Members: s.members}
	for m, c := range s.condition {
		switch c {
		case "sick":
			view.Sick = append(view.Sick, m)
		case "unknown":
			view.Unknown = append(view.Unknown, m)
		case "missing":
			view.Missing = append(view.Missing, m)
		}
	}
	return guard.Input{Now: now, Policy: s.policy, State: st, Request: guard.Request{
		Runbook: runbook, Target: action.Target{Key: target, Name: target}, Fleet: view, Episode: st.Episode.ID, Action: act, Severity: guard.Warning, Attempt: attempt,
	}}, nil
}

// request is a run that wants to act on a target that is sick.
func (s *sim) request(runbook, target string, other bool) {
	s.condition[target] = "sick"
	s.sickSeen[runbook+"/"+target] = append(s.sickSeen[runbook+"/"+target], s.real)
	act := "x.restart"
	if other {
		act = "x.drain"
	}
	s.pid++
	a := &tried{runbook: runbook, target: target, at: s.real, owner: s.pid, state: action.Open}
	s.live[a.owner] = true
	key := ledger.KeyEpisodes(runbook)
	s.must(s.update([]string{key}, func(tx store.Tx, now action.Clock) error {
		eps, err := ledger.Read[map[string]ledger.Episode](tx, key)
		if err != nil {
			return err
		}
		if eps == nil {
			eps = map[string]ledger.Episode{}
		}
		ep, ok := eps[target]
		if !ok {
			ep = ledger.Episode{ID: fmt.Sprintf("e%d", now.Trusted), OpenedAt: now}
		}
		eps[target] = ep.Seen(true, false, time.Minute, now)
		return ledger.Write(tx, key, eps)
	}))
	if s.reserve(a, act, true) {
		s.attempts = append(s.attempts, a)
	} else {
		s.live[a.owner] = false
	}
}

func (s *sim) next(a *tried, other bool) {
	act := "x.undrain"
	if other {
		act = "x.restart"
	}
	s.reserve(a, act, false)
}

// reserve asks the guards and, if they let it pass, books the step in the same transaction; then it must have been allowed.
func (s *sim) reserve(a *tried, act string, first bool) bool {
	var step *action.Step
	byMode := false
	binding := a.runbook + " " + a.target + " " + act
	keys := append(ledger.DecisionKeys(a.runbook, act, a.target), ledger.PutKeys()...)
	attempt := ""
	if !first {
		attempt = a.id
		keys = append(keys, ledger.KeyAttempt(a.id))
	}
	var rec *action.Attempt
	err := s.update(keys, func(tx store.Tx, now action.Clock) error {
		step = nil
		if _, err := ledger.TellBreaker(tx, now, breaker.Judged{Policy: s.policy.Breaker}); err != nil {
			return err
		}
		in, err := s.input(tx, now, a.runbook, act, a.target, attempt)
		if err != nil {
			return err
		}
		if first {
			if in.Approval, err = ledger.Bound(tx, binding); err != nil {
				return err
			}
		}
		verdicts := s.judge(in)
		byMode = first && guard.ByMode(verdicts)
		var stored guard.State
		if b, err := json.Marshal(in.State); err != nil {
			return err
		} else if err := json.Unmarshal(b, &stored); err != nil {
			return err
		}
		stored.Approval = in.Approval
		in.State = stored
		if again := s.judge(in); !reflect.DeepEqual(verdicts, again) {
			s.fail("decided otherwise after the state was stored: %v, %v", verdicts, again)
		}
		if len(guard.Refused(verdicts)) > 0 {
			return nil
		}
		if first {
			eps, err := ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes(a.runbook))
			if err != nil {
				return err
			}
			ep := eps[a.target]
			rec = &action.Attempt{
				V: 1, Runbook: a.runbook, Target: action.Target{Key: a.target, Name: a.target}, Episode: ep.ID, Number: ep.Number + 1, Fleet: "f",
				Owner: action.Owner{PID: a.owner}, Verify: action.Verification{Within: 10 * time.Minute},
			}
			rec.ID = action.Identity{Runbook: a.runbook, Target: a.target, Episode: ep.ID, Attempt: rec.Number}.AttemptID()
			if err := rec.Apply(action.AttemptEvent{To: action.Open, By: action.ByEngine}, now); err != nil {
				return err
			}
		} else if rec, err = ledger.LoadAttempt(tx, a.id); err != nil {
			return err
		}
		id := action.Identity{Runbook: a.runbook, Target: a.target, Episode: rec.Episode, Attempt: rec.Number, Step: len(rec.Steps) + 1}
		step = &action.Step{V: 1, Identity: id, Key: id.Key(), ID: action.ShortID(id.Key()), Nonce: "nonce", Action: act, Cooldown: s.policy.Cooldown}
		if err := step.Apply(action.Event{To: action.Reserved, By: action.ByEngine}, now); err != nil {
			return err
		}
		rec.Steps = append(rec.Steps, step.Key)
		approval := ""
		if s.policy.Mode == guard.Approve {
			approval = binding
		}
		return ledger.Reserve(tx, rec, step, s.policy, approval, now)
	})
	s.must(err)
	if byMode && s.policy.Mode == guard.Approve {
		s.must(s.update([]string{ledger.KeyApprovals}, func(tx store.Tx, now action.Clock) error {
			eps, err := ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes(a.runbook))
			if err != nil {
				return err
			}
			_, err = ledger.Ask(tx, now, guard.Approval{ID: fmt.Sprintf("q%d", s.pid), Runbook: a.runbook, Episode: eps[a.target].ID, Binding: binding})
			return err
		}, ledger.KeyEpisodes(a.runbook)))
	}
	if step == nil {
		return false
	}
	s.allowed(a, act, first)
	if first && s.policy.Mode == guard.Approve {
		switch yes, ok := s.answered[binding]; {
		case !ok || !yes.yes:
			s.fail("acted without an approval of %s", binding)
		case yes.sure && s.off == 0 && s.real-yes.asked >= guard.ApprovalFor:
			s.fail("acted on an approval that was asked for %s ago", s.real-yes.asked)
		}
		delete(s.answered, binding)
	}
	a.id, a.step, a.stepState, a.steps = rec.ID, step.Key, action.Reserved, append(a.steps, act)
	a.acts = append(a.acts, s.real)
	return true
}

// answer is a person's yes or no to what waits.
func (s *sim) answer(e event) {
	waiting, now, err := ledger.Waiting(context.Background(), s.st, s.sample)
	s.must(err)
	waiting = slices.DeleteFunc(waiting, func(a guard.Approval) bool { return a.Answer != "" })
	if len(waiting) == 0 {
		return
	}
	a := waiting[e.Who%len(waiting)]
	answer := guard.Approved
	if e.Much < 20 {
		answer = guard.Declined
	}
	_, err = ledger.Respond(context.Background(), s.st, s.sample, a.ID, answer, "ann", "r", false)
	s.must(err)
	s.answered[a.Binding] = answered{
		yes: answer == guard.Approved, asked: s.real - now.Wall.Sub(a.AskedAt.Wall), sure: s.off == 0 && a.AskedAt.Wall.Equal(epoch.Add(s.real-now.Wall.Sub(a.AskedAt.Wall))),
	}
}

func (s *sim) move(a *tried, ev action.Event) {
	s.must(s.update(append([]string{ledger.KeyStep(a.step), ledger.KeyAttempt(a.id)}, append(ledger.PutKeys(), ledger.KeyCooling, ledger.KeyCool(a.steps[len(a.steps)-1], a.target))...),
		func(tx store.Tx, now action.Clock) error {
			rec, err := ledger.LoadAttempt(tx, a.id)
			if err != nil {
				return err
			}
			step, err := ledger.LoadStep(tx, a.step)
			if err != nil {
				return err
			}
			if err := step.Apply(ev, now); err != nil {
				return err
			}
			return ledger.SettleStep(tx, rec, step)
		}))
	was := a.stepState
	a.stepState = ev.To
	switch ev.To {
	case action.Begun:
		a.begun++
	case action.InDoubt:
		s.badly(a)
	case action.NotStarted:
		a.acts[len(a.acts)-1] = -1 // it certainly was not done
		if was == action.Begun {
			a.begun--
		}
	}
}

func (s *sim) badly(a *tried) {
	if a.counted {
		return
	}
	a.counted = true
	s.bad = append(s.bad, s.real)
	n := 0
	for _, at := range s.bad {
		if s.real-at < time.Hour {
			n++
		}
	}
	if n >= 3 && s.brokenAt == 0 || s.reset && s.halfOpen() {
		s.brokenAt, s.reset = s.real, false
	}
}

// halfOpen says whether the breaker was reset and has not closed since.
func (s *sim) halfOpen() bool {
	d, _, err := ledger.Breaker(context.Background(), s.st, s.sample)
	s.must(err)
	return d.State == breaker.HalfOpen || d.State == breaker.Open
}

func (s *sim) ended(a *tried) {
	var rec *action.Attempt
	s.must(s.st.View(context.Background(), []string{ledger.KeyAttempt(a.id)}, func(tx store.ReadTx) (err error) {
		rec, err = ledger.LoadAttempt(tx, a.id)
		return err
	}))
	a.state = rec.State
}

func (s *sim) endKeys(a *tried) []string {
	rec, steps, err := ledger.Attempt(context.Background(), s.st, a.id)
	s.must(err)
	keys := ledger.EndKeys(rec)
	for i := range steps {
		keys = append(keys, ledger.RefundKeys(rec, &steps[i])...)
	}
	return keys
}

func (s *sim) end(a *tried, to action.AttemptState) {
	s.must(s.update(s.endKeys(a), func(tx store.Tx, now action.Clock) error {
		rec, err := ledger.LoadAttempt(tx, a.id)
		if err != nil {
			return err
		}
		return ledger.EndAttempt(tx, rec, to, action.ByEngine, "ended", now)
	}))
	s.ended(a)
	if to != action.Complete && a.begun > 0 {
		s.badly(a)
	}
}

// recover is what every run does first.
func (s *sim) recover() {
	for _, a := range s.attempts {
		if a.state != action.Open || s.live[a.owner] {
			continue
		}
		s.must(s.update(s.endKeys(a), func(tx store.Tx, now action.Clock) error {
			rec, err := ledger.LoadAttempt(tx, a.id)
			if err != nil {
				return err
			}
			for _, key := range rec.Steps {
				step, err := ledger.LoadStep(tx, key)
				if err != nil {
					return err
				}
				ev := action.Event{To: action.NotStarted, By: action.ByRecovery}
				switch step.State {
				case action.Reserved:
				case action.Begun:
					ev = action.Event{To: action.InDoubt, By: action.ByRecovery, Why: "dead"}
				default:
					continue
				}
				a.stepState = ev.To
				if err := step.Apply(ev, now); err != nil {
					return err
				}
				if err := ledger.SettleStep(tx, rec, step); err != nil {
					return err
				}
			}
			return ledger.EndAttempt(tx, rec, action.Interrupted, action.ByRecovery, "dead", now)
		}))
		if a.stepState == action.NotStarted {
			a.acts[len(a.acts)-1] = -1
		}
		s.ended(a)
		if a.begun > 0 {
			s.badly(a)
		}
	}
}

func (s *sim) verdict(a *tried, to action.AttemptState) {
	s.must(s.update(append(ledger.PutKeys(), ledger.KeyAttempt(a.id)), func(tx store.Tx, now action.Clock) error {
		rec, err := ledger.LoadAttempt(tx, a.id)
		if err != nil {
			return err
		}
		if err := rec.Apply(action.AttemptEvent{To: to, By: action.ByEngine, Why: "seen"}, now); err != nil {
			return err
		}
		return ledger.Put(tx, rec, nil)
	}))
	a.state = to
	if to == action.Ineffective {
		s.badly(a)
	}
}

func (s *sim) resolve(a *tried, done bool) {
	ev := action.Event{To: action.ResolvedNotDone, By: action.ByPerson, Nonce: "nonce", Person: "ann", Why: "looked"}
	if done {
		ev.To = action.ResolvedDone
	}
	var step *action.Step
	s.must(s.st.View(context.Background(), []string{ledger.KeyStep(a.step)}, func(tx store.ReadTx) (err error) {
		step, err = ledger.LoadStep(tx, a.step)
		return err
	}))
	_, _, err := ledger.Resolve(context.Background(), s.st, s.sample, step, ev)
	s.must(err)
	a.stepState = ev.To
	s.ended(a)
}

func (s *sim) disable(target string, on bool) {
	var err error
	switch {
	case on && !s.disabled[target]:
		_, err = ledger.Disable(context.Background(), s.st, s.sample, control.Disable{Name: target, Selector: control.Selector{Target: target}, Reason: "r", By: "ann"})
	case !on && s.disabled[target]:
		_, _, err = ledger.Enable(context.Background(), s.st, s.sample, target, "ann", "r")
	}
	s.must(err)
	s.disabled[target] = on
}

// look is a tick that sees one target of a runbook, healthy or without data.
func (s *sim) look(runbook, target string, data bool) {
	key := ledger.KeyEpisodes(runbook)
	s.must(s.update([]string{key}, func(tx store.Tx, now action.Clock) error {
		eps, err := ledger.Read[map[string]ledger.Episode](tx, key)
		if err != nil || eps == nil {
			return err
		}
		ep, ok := eps[target]
		if !ok {
			return nil
		}
		if ep = ep.Seen(false, data, 5*time.Minute, now); ep.Stable() && !s.holds(target) {
			delete(eps, target)
		} else {
			eps[target] = ep
		}
		return ledger.Write(tx, key, eps)
	}))
	delete(s.condition, target)
}

func (s *sim) holds(target string) bool {
	return slices.ContainsFunc(s.attempts, func(a *tried) bool { return a.target == target && a.state.Holds() })
}

// allowed checks what the program has just let pass against what is really so.
func (s *sim) allowed(a *tried, act string, first bool) {
	if s.halted {
		s.fail("acted while halted")
	}
	if s.disabled[a.target] {
		s.fail("acted on %s, which is disabled", a.target)
	}
	if a.target == "t1" {
		s.fail("acted on %s, which is protected", a.target)
	}
	if s.brokenAt != 0 {
		s.fail("acted while the breaker must be open since %s", s.brokenAt)
	}
	bad := map[string]bool{a.target: true}
	for m := range s.condition {
		if s.condition[m] != "" {
			bad[m] = true
		}
	}
	canaries, alive := 0, 0
	for i, o := range s.attempts {
		if o == a {
			continue
		}
		if o.target == a.target && o.state.Holds() {
			s.fail("acted on %s, which %s keeps (%s)", a.target, o.id, o.state)
		}
		if o.target == a.target && o.stepState == action.InDoubt {
			s.fail("acted on %s, of which %s is in doubt", a.target, o.step)
		}
		for k, at := range o.acts {
			if at >= 0 && s.real-at < s.policy.Cooldown {
				bad[o.target] = true
				if o.target == a.target && o.steps[k] == act {
					s.fail("%s on %s %s after %s", act, a.target, s.real-at, o.id)
				}
			}
		}
		if o.state.Holds() {
			bad[o.target] = true
			if s.live[o.owner] {
				alive++
			}
			if i >= s.resetAfter {
				canaries++
			}
		}
	}
	if !first {
		return
	}
	if s.reset && s.halfOpen() && canaries > 0 {
		s.fail("half-open, and a second canary beside %d", canaries)
	}
	if alive >= s.policy.OpenTotal {
		s.fail("%d are under way already", alive)
	}
	n := len(s.members)
	if most := max(1, n*s.policy.FleetShare/100); n >= 3 && len(bad) > most || n < 3 {
		s.fail("%d of %d are bad: %v", len(bad), n, slices.Sorted(maps.Keys(bad)))
	}
	if tries := s.tries(a); tries >= s.policy.Attempts {
		s.fail("attempt %d of one problem of %s", tries+1, a.target)
	}
}

// tries is how many attempts the problem of a target has had: those between which and now it was never well for an hour.
func (s *sim) tries(a *tried) int {
	seen := s.sickSeen[a.runbook+"/"+a.target]
	since := s.real
	for _, at := range slices.Backward(seen) {
		if since-at >= time.Hour {
			break
		}
		since = at
	}
	n := 0
	for _, o := range s.attempts {
		if o.runbook == a.runbook && o.target == a.target && o.begun > 0 && o.at >= since {
			n++
		}
	}
	return n
}

// windows checks the rates over all that really began.
func (s *sim) windows() {
	var starts []time.Duration
	for _, a := range s.attempts {
		if a.begun > 0 {
			starts = append(starts, a.at)
		}
	}
	for i, from := range starts {
		for _, r := range s.policy.Rates {
			n := 0
			for _, at := range starts[i:] {
				if at-from < r.Per {
					n++
				}
			}
			if n > r.Count {
				s.fail("%d attempts in %s from %s on", n, r.Per, from)
			}
		}
	}
}
