package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

// guards measures what one decision costs without the disk: reading and decoding all that the guards look at, and asking every one of them; in a
// history of few and of many records, for a fleet of few and of many targets. Beside it stands what every record costs: one append with fdatasync.
func guards(ctx context.Context, root string, rounds int) error {
	disk, err := appends(root, rounds)
	if err != nil {
		return err
	}
	type size struct{ records, targets int }
	sizes := []size{{100, 10}, {100_000, 10}, {100, 10_000}, {100_000, 10_000}}
	took := make([][]time.Duration, len(sizes))
	asks := make([]func() error, len(sizes))
	for i, s := range sizes {
		if asks[i], err = decision(ctx, s.records, s.targets); err != nil {
			return err
		}
	}
	const batch = 20 // one is too short to be timed by itself
	for range rounds {
		for i, ask := range asks {
			began := time.Now()
			for range batch {
				if err := ask(); err != nil {
					return err
				}
			}
			took[i] = append(took[i], time.Since(began)/batch)
		}
	}
	fmt.Printf("%s\n\n| what | median | in appends (goal: under 0.5) | against the smallest (goal: under 2) |\n|---|---|---|---|\n", machine(root))
	fmt.Printf("| one append and fdatasync | %s | 1 | - |\n", us(at(disk, 50)))
	for i, s := range sizes {
		m := at(took[i], 50)
		fmt.Printf("| every guard for one request, %d records, %d targets | %s | %.2f | %.2f |\n",
			s.records, s.targets, us(m), float64(m)/float64(at(disk, 50)), float64(m)/float64(at(took[0], 50)))
	}
	return nil
}

func us(d time.Duration) string { return fmt.Sprintf("%.0f µs", float64(d)/float64(time.Microsecond)) }

// appends is what it takes to make 512 bytes durable.
func appends(root string, rounds int) (took []time.Duration, err error) {
	f, err := os.OpenFile(filepath.Join(root, "append"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	line := make([]byte, 512)
	for range rounds {
		began := time.Now()
		if _, err := f.Write(line); err != nil {
			return nil, err
		}
		if err := fdatasync(f); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// decision makes a history, and returns what asks every guard about one more request.
func decision(ctx context.Context, records, targets int) (func() error, error) {
	st := storetest.NewMemory()
	read := func() (clock.Sample, error) {
		return clock.Sample{Wall: time.Unix(1772359200, 0), Boot: "b", Uptime: time.Hour, Synced: true}, nil
	}
	update := func(keys []string, fn func(tx store.Tx, now action.Clock) error) error {
		return st.Update(ctx, append([]string{ledger.KeyClock}, keys...), func(tx store.Tx) error {
			now, err := ledger.Tick(tx, read)
			if err != nil {
				return err
			}
			return fn(tx, now)
		})
	}
	view := guard.FleetView{ID: "f"}
	for i := range targets {
		view.Members = append(view.Members, fmt.Sprintf("instance=w%d", i))
	}
	view.Sick = view.Members[:max(1, targets/10)]
	view = view.Prepared()
	err := update(append(ledger.PutKeys(), ledger.KeyStarted), func(tx store.Tx, now action.Clock) error {
		for i := range records { // settled attempts with their steps
			id := action.Identity{Namespace: "n", Runbook: "worker", Target: view.Members[i%targets], Episode: fmt.Sprint(i), Attempt: 1, Step: 1}
			s := &action.Step{V: 1, ID: action.ShortID(id.Key()), Identity: id, Key: id.Key(), State: action.Succeeded, Action: "exec.run", History: []action.Change{{To: "succeeded", At: now.Wall}}}
			a := &action.Attempt{
				V: 1, ID: id.AttemptID(), Runbook: "worker", Target: action.Target{Key: id.Target, Name: id.Target}, Number: 1, State: action.Verified, Steps: []string{s.Key},
				History: []action.Change{{To: "verified", At: now.Wall}}, EndedAt: now,
			}
			for key, encode := range map[string]func() ([]byte, error){ledger.KeyStep(s.Key): s.Encode, ledger.KeyAttempt(a.ID): a.Encode} {
				b, err := encode()
				if err != nil {
					return err
				}
				tx.Put(key, b)
			}
		}
		var started bytes.Buffer // as many as the rates let start in a day
		for i := range min(records, 240) {
			fmt.Fprintf(&started, "attempt%03d %d %d\n", i, int64(now.Trusted-2*time.Hour), now.Wall.UnixMilli())
		}
		tx.Put(ledger.KeyStarted, started.Bytes())
		return nil
	})
	if err != nil {
		return nil, err
	}
	target := action.Target{Key: view.Sick[0], Name: "w0"}
	policy := guard.Defaults()
	keys := ledger.DecisionKeys("worker", "exec.run", target.Key)
	return func() error {
		return st.View(ctx, keys, func(tx store.ReadTx) error {
			now, err := ledger.Moment(tx, read)
			if err != nil {
				return err
			}
			state, err := ledger.GuardState(tx, now, func(action.Owner) bool { return true }, "worker", "exec.run", target.Key)
			if err != nil {
				return err
			}
			if state.Approval, err = ledger.Bound(tx, "binding"); err != nil {
				return err
			}
			verdicts := guard.Evaluate(guard.Input{Now: now, Policy: policy, State: state, Request: guard.Request{
				Runbook: "worker", Target: target, Fleet: view, Episode: "e", Action: "exec.run", Severity: guard.Warning,
			}})
			if len(verdicts) != len(guard.All()) {
				return fmt.Errorf("%d verdicts", len(verdicts))
			}
			return nil
		})
	}, nil
}
