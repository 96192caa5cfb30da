//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

const slow = `ctx.exec.run("slow", reason = "queue stuck", within = "1h")`

// A worker is stuck for good, and things go wrong around the runbook. Each test has its own project and state.
func TestE2ETrouble(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.stick()
	for name, test := range map[string]func(*testing.T, *lab){
		"a killed run leaves its action in doubt": killed,
		"halt works while a run acts":             haltedWhileActing,
		"halt works while the store is locked":    haltedWhileLocked,
		"halt ends what is in flight":             haltedWithKill,
		"a signal lets an action end":             interrupted,
		"ticks of one runbook never overlap":      overlapping,
		"a long action starves nobody":            starving,
		"an escalation is told once":              toldOnce,
		"a reader that goes away":                 piped,
		"systemd starts and stops runs":           scheduled,
		"cron starts runs":                        cronStarts,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, l)
		})
	}
}

func killed(t *testing.T, l *lab) {
	const cooldown = 3 * time.Second
	s := l.newSite(t, `policy = policy(tested = False, cooldown = "3s", settle = "1s"),`, map[string]string{
		"worker": `ctx.exec.run("hang", reason = "queue stuck", within = "1h")`,
	})
	r, _ := s.run("--dry-run")
	if _, act := s.evaluation(r, "worker"); act == nil || !act.Planned {
		t.Fatalf("not as it should be before the test:\n%s", show(r))
	}
	run := s.startRun("--target", stuck)
	s.begins(1)
	for pid := range s.running() { // a plugin that is quick to notice ends all of the command's group: recovery is what this tests
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe == s.exe && pid != run.Process.Pid {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait()  // it was killed
	s.nothingRuns() // the command ends with it, and not only at the next run
	begun := s.actions()[0]
	if gone, err := process.Gone(begun.Child); begun.State != action.Begun || gone || err != nil {
		t.Fatalf("%s; nothing is left that recovery could end: %v %v", begun.State, gone, err)
	}
	if _, err := os.Stat(s.heartbeat); !os.IsNotExist(err) {
		t.Errorf("a run that was killed left a heartbeat: %v", err)
	}
	s.letGo() // if it were repeated it would end

	r, exit := s.run()
	ev, _ := s.evaluation(r, "worker")
	if exit != problem.ExitRefused || ev.Outcome != trace.Skipped || len(r.Recovered) != 1 || r.Recovered[0].To != action.InDoubt || len(r.InDoubt) != 1 {
		t.Fatalf("exit %d\n%s", exit, show(r))
	}
	s.beats(r)
	if gone, err := process.Gone(begun.Child); !gone || err != nil {
		t.Errorf("process group %d is left: %v", begun.Child.Group, err)
	}
	if out, _ := s.does(problem.ExitRefused, "status"); !strings.Contains(out, r.InDoubt[0].Step) {
		t.Errorf("status does not show it:\n%s", out)
	}
	doubts := s.actions("--in-doubt")
	if len(doubts) != 1 || doubts[0].ID != r.InDoubt[0].Step || doubts[0].Nonce != r.InDoubt[0].Nonce {
		t.Fatalf("in doubt: %+v", doubts)
	}
	first := doubts[0]
	s.run()
	if began := s.lines("began"); !slices.Equal(began, []string{first.Key}) {
		t.Fatalf("began: %q, want %s once", began, first.Key)
	}

	resolve := []string{"resolve", first.ID, "--as", "not-done", "--reason", "the test looked", "--nonce"}
	s.does(problem.ExitUsage, append(resolve, "wrong")...)
	if len(s.actions("--in-doubt")) != 1 {
		t.Error("a wrong nonce resolved it")
	}
	s.does(problem.ExitOK, append(resolve, first.Nonce)...)
	s.does(problem.ExitOK, "status")
	if len(s.actions("--in-doubt")) != 0 {
		t.Error("the right nonce did not resolve it")
	}

	again := s.actsInTime("worker")
	steps := s.actions()
	if len(steps) != 2 || steps[0].ID != again.ID || steps[0].Identity.Attempt != 2 {
		t.Fatalf("recorded: %+v", steps)
	}
	if rested := steps[0].ReservedAt.Trusted - first.ReservedAt.Trusted; rested < cooldown {
		t.Errorf("acted again after %s, its cooldown is %s", rested, cooldown)
	}
	if began := s.lines("began"); !slices.Equal(began, []string{first.Key, steps[0].Key}) {
		t.Errorf("began: %q", began)
	}
}

func haltedWhileActing(t *testing.T, l *lab) {
	s := l.newSite(t, "", map[string]string{"worker": slow})
	run := s.startRun("--target", stuck)
	s.begins(1)
	var says struct {
		Set, Confirmed bool
		InFlight       []struct{ Action, Target string } `json:"in_flight"`
	}
	began := time.Now()
	out, errs := s.does(problem.ExitOK, "halt", "--json", "--reason", "a test")
	took := time.Since(began)
	if err := json.Unmarshal([]byte(out), &says); err != nil || !says.Set || !says.Confirmed {
		t.Fatalf("%v\n%s", err, out)
	}
	// It does not wait for a run that is slow to let go of the store: then it says so, and where to look.
	if known := len(says.InFlight) == 1 && says.InFlight[0].Target == "instance=w2"; !known && !strings.Contains(errs, "what is in flight is not known") {
		t.Errorf("neither what is in flight nor that it is not known:\n%s%s", out, errs)
	}
	if out, _ := s.does(problem.ExitRefused, "status"); !strings.Contains(out, "instance=w2 (worker), began ") || !strings.Contains(out, ": acting right now") {
		t.Errorf("status does not show what is in flight:\n%s", out)
	}
	if took > 3*time.Second {
		t.Errorf("halt took %s", took)
	}
	s.letGo()
	r, _ := run.ends()
	if ev, act := s.evaluation(r, "worker"); ev.Outcome != trace.Acted || act.State != action.Succeeded {
		t.Errorf("what had begun was not recorded as it ended:\n%s", show(r))
	}
	if r, exit := s.run(); exit != problem.ExitRefused || len(r.Halt) == 0 {
		t.Errorf("exit %d\n%s", exit, show(r))
	}
	s.does(problem.ExitRefused, "status")
	s.does(problem.ExitOK, "resume", "--reason", "the test goes on")
	s.does(problem.ExitOK, "status")
	if began := s.lines("began"); len(began) != 1 {
		t.Errorf("began: %q", began)
	}
}

func haltedWhileLocked(t *testing.T, l *lab) {
	s := l.newSite(t, "", map[string]string{"worker": slow})
	st, err := pebble.New(pebble.Config{Dir: filepath.Join(s.state, "store"), Holder: "the test"})
	if err != nil {
		t.Fatal(err)
	}
	held, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- st.View(t.Context(), nil, func(store.ReadTx) error {
			close(held)
			<-release
			return nil
		})
	}()
	select {
	case <-held:
	case err := <-done:
		t.Fatalf("the store was not to be had: %v", err)
	}
	if _, errs := s.does(problem.ExitFailed, "run", "--target", stuck); !strings.Contains(errs, "the test") {
		t.Errorf("it does not say who holds the store:\n%s", errs)
	}
	began := time.Now()
	out, errs := s.does(problem.ExitOK, "halt", "--json", "--reason", "a test")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("halt took %s", took)
	}
	if !strings.Contains(out, `"confirmed": true`) || !strings.Contains(errs, "not known") {
		t.Errorf("%s%s", out, errs)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	s.refusedBy("worker", "halt")
	if began := s.lines("began"); len(began) != 0 {
		t.Errorf("began: %q", began)
	}
}

func overlapping(t *testing.T, l *lab) {
	s := l.newSite(t, "", map[string]string{"worker": slow})
	// Those that find the lock taken, or the slot used, end at once.
	runs := make([]ticking, 4)
	for i := range runs {
		runs[i] = s.startRun()
	}
	s.begins(1)
	s.letGo()
	acted := 0
	for _, k := range runs {
		r, exit := k.ends()
		for _, x := range r.Runbooks[0].Targets {
			if x.Evaluation != nil && x.Evaluation.Outcome == trace.Acted {
				acted++
			}
		}
		if exit != problem.ExitOK && exit != problem.ExitRefused {
			t.Errorf("exit %d\n%s", exit, show(r))
		}
	}
	if began := s.lines("began"); acted != 1 || len(began) != 1 || !slices.Equal(began, s.lines("ended")) {
		t.Errorf("%d runs acted; began: %q, ended: %q", acted, began, s.lines("ended"))
	}
}

const otherRunbook = `runbook(
    owner = "team-other",
    trigger = every("1s"),
    targets = single("queue", sick = 'sum(queue_depth{job="worker"}) > 100'),
)

def run(ctx):
    return nothing("looked")
`

func starving(t *testing.T, l *lab) {
	s := l.newSite(t, "", map[string]string{"long": slow})
	// Another target, because the one that is acted on is left alone by everybody.
	write(t, filepath.Join(s.dir, "other.star"), otherRunbook)
	first := s.startRun()
	s.begins(1)
	acting := time.Now()
	var r *trace.Run
	s.wait("the other runbook to be evaluated", func() (bool, string, error) {
		var exit problem.Exit
		r, exit = s.startRun().ends()
		if exit != problem.ExitOK {
			t.Fatalf("exit %d\n%s", exit, show(r))
		}
		i := slices.IndexFunc(r.Runbooks, func(rb *trace.Runbook) bool { return rb.Name == "other" })
		return r.Runbooks[i].Due, r.Runbooks[i].Why, nil
	})
	for _, rb := range r.Runbooks {
		if ev := rb.Targets; rb.Name == "other" && (len(ev) != 1 || ev[0].Evaluation == nil || ev[0].Evaluation.Reason != "looked") {
			t.Errorf("the other runbook was not evaluated:\n%s", show(r))
		}
		if rb.Name == "long" && (rb.Due || !strings.Contains(rb.Why, "another run")) {
			t.Errorf("the runbook that acts was due (%v): %s", rb.Due, rb.Why)
		}
	}
	if out := s.quick(problem.ExitOK, "status"); !strings.Contains(out, "acting right now") {
		t.Errorf("status does not show the action:\n%s", out)
	}
	if out := s.quick(problem.ExitOK, "runs"); !strings.Contains(out, "active") || !strings.Contains(out, r.ID) {
		t.Errorf("the list of runs:\n%s", out)
	}
	s.quick(problem.ExitOK, "actions")
	s.wait("the action to have taken five seconds", func() (bool, string, error) { return time.Since(acting) >= 5*time.Second, "", nil })
	if err := first.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the run with the long action has ended: %v", err)
	}
	s.letGo()
	r, exit := first.ends()
	if ev, act := s.evaluation(r, "long"); exit != problem.ExitOK || ev.Outcome != trace.Acted || act.State != action.Succeeded {
		t.Errorf("exit %d\n%s", exit, show(r))
	}
}

func toldOnce(t *testing.T, l *lab) {
	var mu sync.Mutex
	var told []map[string]any
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var m map[string]any
		if err == nil {
			err = json.Unmarshal(body, &m)
		}
		if err != nil {
			t.Errorf("%v in %q", err, body)
		}
		mu.Lock()
		defer mu.Unlock()
		told = append(told, m)
		if len(told) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable) // the first try fails: it must come again
		}
	}))
	defer hook.Close()
	s := l.newSite(t, `notify = [webhook("`+hook.URL+`")],`, map[string]string{"worker": `return escalate("restarting does not help here")`})
	var first string // the run that escalated
	for n := range 4 {
		r, exit := s.run()
		if n == 0 {
			first = r.ID
		}
		if ev, _ := s.evaluation(r, "worker"); ev.Outcome != trace.Escalated {
			t.Fatalf("exit %d\n%s", exit, show(r))
		}
		if n == 0 && (exit != problem.ExitFailed || len(r.Problems) != 1 || r.Problems[0].Code != problem.NoticeFailed) {
			t.Errorf("the notice could not be delivered, exit %d\n%s", exit, show(r))
		}
		if n > 0 && exit != problem.ExitOK {
			t.Errorf("exit %d\n%s", exit, show(r))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 2 || told[0]["id"] != told[1]["id"] {
		t.Fatalf("told %d times, want the failed try and the one that arrived: %v", len(told), told)
	}
	for field, want := range map[string]string{
		"kind": "escalation", "runbook": "worker", "target": "instance=w2", "owner": "team-worker",
	} {
		if told[1][field] != want {
			t.Errorf("%s is %v, want %q", field, told[1][field], want)
		}
	}
	// What the runbook says, what was done and seen, and where to read more.
	text := regexp.MustCompile(`^restarting does not help here\ndone: nothing\nseen: w2 is sick: \d+ > 100, held for 2s\nmore: runbook explain (\S+)$`)
	if m := text.FindStringSubmatch(fmt.Sprint(told[1]["text"])); m == nil || m[1] != first {
		t.Errorf("the text is %v, want %s with run %s", told[1]["text"], text, first)
	}
}
