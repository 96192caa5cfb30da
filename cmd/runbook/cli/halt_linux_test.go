package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
)

// halted is the part of halt's document that these tests look at.
type halted struct {
	Set       bool     `json:"set"`
	Confirmed bool     `json:"confirmed"`
	InFlight  []flight `json:"in_flight"`
	Error     *problem.Problem
}

func runHaltJSON(t *testing.T, dir string, flags ...string) (halted, problem.Exit, string) {
	t.Helper()
	var out, errs bytes.Buffer
	stdio := Stdio{
		In: strings.NewReader(""), Out: &out, Err: &errs, Now: time.Now,
		Env: func(string) (string, bool) { return "", false },
	}
	line := append([]string{"halt", "--json", "--state", dir, "--reason", "a test"}, flags...)
	exit := run(t.Context(), commands(), line, stdio, newUI(stdio))
	var h halted
	if err := json.Unmarshal(out.Bytes(), &h); err != nil {
		t.Fatalf("%v in %s%s", err, out.String(), errs.String())
	}
	return h, exit, errs.String()
}

// begun records an action in progress whose process group is a real one.
func begun(t *testing.T, s control.State) (action.Step, *exec.Cmd) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := process.StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	id := action.Identity{Namespace: s.Namespace, Runbook: "worker.star", Target: "instance=w3", Episode: "e1", Attempt: 1, Step: 1}
	now := time.Now().UTC()
	step := action.Step{
		ID: action.ShortID(id.Key()), Identity: id, Key: id.Key(), Action: "exec.run", State: action.Begun,
		Owner: process.Self(), Child: action.Child{PID: cmd.Process.Pid, Start: start, Group: cmd.Process.Pid},
		BegunAt: action.Clock{Wall: now.Add(-4 * time.Second)}, History: []action.Change{{To: string(action.Begun), At: now}},
	}
	a := action.Attempt{
		ID: id.AttemptID(), Runbook: id.Runbook, Target: action.Target{Key: id.Target}, Number: 1, State: action.Open,
		Steps: []string{step.Key}, Owner: process.Self(), History: []action.Change{{To: string(action.Open), At: now}},
	}
	st, err := pebble.New(storeConfig(s, "test"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	err = st.Update(t.Context(), ledger.PutKeys(), func(tx store.Tx) error { return ledger.Put(tx, &a, &step) })
	if err != nil {
		t.Fatal(err)
	}
	return step, cmd
}

func TestHaltListsAndKillsWhatIsInFlight(t *testing.T) {
	t.Parallel()
	s, err := makeState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(s.GateDir) })
	step, cmd := begun(t, s)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()

	h, exit, errs := runHaltJSON(t, s.Dir)
	if exit != problem.ExitOK || !h.Confirmed || errs != "" {
		t.Fatalf("exit %d, %+v, %s", exit, h, errs)
	}
	want := []string{step.ID, "exec.run", "instance=w3", "worker.star"}
	if len(h.InFlight) != 1 || h.InFlight[0].Killed ||
		!cmp.Equal(want, []string{h.InFlight[0].ID, h.InFlight[0].Action, h.InFlight[0].Target, h.InFlight[0].Runbook}) {
		t.Fatalf("in flight: %+v", h.InFlight)
	}
	select {
	case <-ended:
		t.Fatal("halt without --kill ended the action")
	default:
	}

	h, exit, errs = runHaltJSON(t, s.Dir, "--kill")
	if exit != problem.ExitOK || len(h.InFlight) != 1 || !h.InFlight[0].Killed || errs != "" {
		t.Fatalf("exit %d, %+v, %s", exit, h, errs)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the action goes on")
	}
}

// A process that is letting an action begin keeps the stop from being confirmed; halt says so, and --kill ends it.
func TestHaltSaysWhenItIsNotConfirmed(t *testing.T) {
	t.Parallel()
	s, err := makeState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(s.GateDir) })
	holder := startWaiter(t, s.Dir, nil)
	go func() { _ = holder.Wait() }()

	h, exit, errs := runHaltJSON(t, s.Dir)
	if exit != problem.ExitFailed || !h.Set || h.Confirmed || h.Error == nil || h.Error.Code != problem.HaltUnsure {
		t.Fatalf("exit %d, %+v, %s", exit, h, errs)
	}
	h, exit, errs = runHaltJSON(t, s.Dir, "--kill")
	if exit != problem.ExitOK || !h.Confirmed {
		t.Fatalf("exit %d, %+v, %s", exit, h, errs)
	}
}
