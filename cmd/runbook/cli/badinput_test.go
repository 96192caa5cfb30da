package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// A site is a project with three runbooks and the Prometheus that it asks. alpha and omega are in order: alpha finds nothing to do for w1,
// omega leaves the mark w9. The test puts something bad beside them, mostly as bad.star, whose sick target is w5.
type site struct {
	dir   string // the project
	state string
	marks string // an action on a target leaves a file here
	prom  *httptest.Server
	fault *fault
	env   []string
	// project.star is made of these.
	metrics, commands, match, more string
}

// fault stands between the site and its metrics. It is asked first, with the query, and says whether it has answered.
type fault struct {
	mu sync.Mutex
	f  func(w http.ResponseWriter, expr string) bool
}

func (f *fault) set(fn func(w http.ResponseWriter, expr string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.f = fn
}

// whenAsked answers a query that contains part with fn, instead of Prometheus.
func (s *site) whenAsked(part string, fn func(w http.ResponseWriter)) {
	s.fault.set(func(w http.ResponseWriter, expr string) bool {
		if !strings.Contains(expr, part) {
			return false
		}
		fn(w)
		return true
	})
}

// history is what the metrics of every site say: ten workers, of which each metric calls another one sick.
var history = sync.OnceValues(func() (*recorded.DB, error) {
	db := recorded.New(recorded.Options{Lookback: time.Hour}) // the tests take longer than 5m on a slow machine
	now := time.Now()
	for at := now.Add(-20 * time.Minute); at.Before(now.Add(20 * time.Minute)); at = at.Add(15 * time.Second) {
		for i := 1; i <= 10; i++ {
			labels := func(metric string) map[string]string {
				return map[string]string{"__name__": metric, "job": "worker", "instance": fmt.Sprintf("w%d", i)}
			}
			if err := db.Append(labels("up"), at, 1); err != nil {
				return nil, err
			}
			for metric, sick := range map[string]int{"alpha_depth": 1, "bad_depth": 5, "omega_depth": 9, "old_depth": 5} {
				if metric == "old_depth" && at.After(now.Add(-4*time.Minute)) {
					continue
				}
				depth := 1.0
				if i == sick {
					depth = 5000
				}
				if err := db.Append(labels(metric), at, depth); err != nil {
					return nil, err
				}
			}
		}
		if at.Before(now.Add(-4 * time.Minute)) {
			if err := db.Append(map[string]string{"__name__": "old_news"}, at, 7); err != nil {
				return nil, err
			}
		}
	}
	return db, nil
})

func newSite(t *testing.T) *site {
	t.Helper()
	db, err := history()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{fault: &fault{}, marks: t.TempDir()}
	s.dir = filepath.Join(t.TempDir(), "ops")
	s.state = filepath.Join(s.dir, "state")
	next := db.Handler()
	s.prom = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.fault.mu.Lock()
		f := s.fault.f
		s.fault.mu.Unlock()
		if f == nil || !f(w, unescaped(string(body)+r.URL.RawQuery)) {
			next.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.prom.Close)
	s.metrics = fmt.Sprintf(`connection("prometheus", config = {"url": %q, "timeout": "5s"})`, s.prom.URL)
	s.commands = `"mark": ` + s.shell(`: > "$0/$1"`)
	s.match = `{"job": "worker"}`
	s.project(t)
	s.runbook(t, "alpha", `return nothing("it looks fine to me")`)
	s.runbook(t, "omega", `ctx.exec.run("mark", reason = "queue stuck")`)
	made, err := makeState(s.state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(made.GateDir) })
	return s
}

func unescaped(query string) string {
	r, err := http.NewRequest(http.MethodGet, "/?"+query, http.NoBody) //nolint:noctx // nothing is sent
	if err != nil {
		return query
	}
	return r.FormValue("query")
}

// shell is the argv of a command that a shell carries out: $0 is the directory of marks and $1 the target's name.
func (s *site) shell(script string) string {
	return fmt.Sprintf(`["/bin/sh", "-c", %q, %q, "{target}"]`, script, s.marks)
}

// project writes project.star from what the site says.
func (s *site) project(t *testing.T) {
	t.Helper()
	s.write(t, "project.star", fmt.Sprintf(`project(
    metrics = %s,
    policy = policy(tested = False, mode = "auto", open = 5, open_per_fleet = 5),
    connections = [connection("exec", match = %s, config = {"commands": {%s}})],
    %s
)
`, s.metrics, s.match, s.commands, s.more))
}

// runbook writes a runbook whose symptom is its metric, with the body of its run(ctx).
func (s *site) runbook(t *testing.T, name, body string) {
	t.Helper()
	s.write(t, name+".star", declaration(name, "fleet(all = 'up{job=\"worker\"}', sick = '"+name+"_depth > 1000', by = \"instance\", held = \"30s\")")+
		"\n\ndef run(ctx):\n    "+strings.ReplaceAll(body, "\n", "\n    ")+"\n")
}

func declaration(name, targets string) string {
	return fmt.Sprintf(`runbook(owner = "team-%s", trigger = every("1s"), severity = "warning", mode = "auto", targets = %s)`, name, targets)
}

func (s *site) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// answer is how a command ended.
type answer struct {
	exit     problem.Exit
	out, err string
	doc      runDocument // with --json
}

// runDocument is what run --json prints; Error is there if the run could not be carried out.
type runDocument struct {
	Error *errorDocument `json:"error"`
	trace.Run
}

// do runs the real command in a process of its own.
func (s *site) do(t *testing.T, args ...string) answer {
	t.Helper()
	return s.as(t, nil, args...)
}

func (s *site) as(t *testing.T, attr *syscall.SysProcAttr, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "runbook", args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, attr
	cmd.Env = append([]string{noRaceSleep, "PATH=" + os.Getenv("PATH"), "HOME=/", "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}, s.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := answer{exit: problem.Exit(cmd.ProcessState.ExitCode()), out: out.String(), err: errs.String()}
	if slices.Contains(args, "--json") {
		d := json.NewDecoder(strings.NewReader(r.out))
		if err := d.Decode(&r.doc); err != nil {
			t.Fatalf("runbook %s: %v in %q\n%s", strings.Join(args, " "), err, r.out, r.err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			t.Fatalf("more than one document: %s", r.out)
		}
	}
	return r
}

// said is an error as a test expects it.
type said struct {
	exit    problem.Exit
	code    problem.Code
	pos     string // "bad.star:5:9", as prefix; "" if it is at no place
	message string // a part
	hint    string // a part; empty: there need not be one
}

func (want said) check(t *testing.T, got *problem.Problem) {
	t.Helper()
	if got == nil {
		t.Fatalf("no problem, want %+v", want)
	}
	if got.Code != want.code || !strings.HasPrefix(got.Pos.String(), want.pos) || (want.pos == "") != (got.Pos.String() == "") ||
		!strings.Contains(got.Message, want.message) || !strings.Contains(got.Hint, want.hint) {
		t.Errorf("got %s %s: %s (hint: %s)\nwant %+v", got.Code, got.Pos, got.Message, got.Hint, want)
	}
}

// runs carries out "run --json" in a site whose bad.star fails as want says: the two other runbooks must be as ever, and nothing
// may be done to bad.star's target.
func (s *site) runs(t *testing.T, want said) answer {
	t.Helper()
	r := s.do(t, "run", "--json")
	if r.exit != want.exit {
		t.Errorf("exit %d, want %d\n%s", r.exit, want.exit, r.err)
	}
	if r.doc.Exit != r.exit {
		t.Errorf("the document says exit %d, the process %d", r.doc.Exit, r.exit)
	}
	want.check(t, badProblem(t, r.doc))
	s.otherwiseWell(t, r.doc)
	if s.marked(t, "w5") {
		t.Error("bad.star has acted")
	}
	s.remembers(t, r.doc.ID)
	return r
}

// badProblem is the one problem of bad.star, wherever in its document it is.
func badProblem(t *testing.T, doc runDocument) *problem.Problem {
	t.Helper()
	var found []*problem.Problem
	for _, rb := range doc.Runbooks {
		if rb.Name != "bad" {
			continue
		}
		if rb.Problem != nil {
			found = append(found, rb.Problem)
		}
		for _, target := range rb.Targets {
			if ev := target.Evaluation; ev != nil && ev.Problem != nil {
				found = append(found, ev.Problem)
			}
		}
	}
	if len(found) != 1 || len(doc.Problems) != 0 || doc.Error != nil {
		t.Fatalf("want one problem, of bad.star; got %v, and %v of the run, and the error %v", found, doc.Problems, doc.Error)
	}
	return found[0]
}

// otherwiseWell checks that alpha and omega were evaluated as on any other day.
func (s *site) otherwiseWell(t *testing.T, doc runDocument) {
	t.Helper()
	got := map[string]trace.Outcome{}
	for _, rb := range doc.Runbooks {
		for _, target := range rb.Targets {
			if target.Evaluation != nil && rb.Problem == nil {
				got[rb.Name] = target.Evaluation.Outcome
			}
		}
	}
	if got["alpha"] != trace.Nothing || got["omega"] != trace.Acted || !s.marked(t, "w9") {
		t.Errorf("the other runbooks: %v, mark of w9: %v", got, s.marked(t, "w9"))
	}
}

func (s *site) marked(t *testing.T, target string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(s.marks, target))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// remembers checks that a run can be explained afterwards, which is what it was recorded for.
func (s *site) remembers(t *testing.T, run string) {
	t.Helper()
	if r := s.do(t, "explain", run); r.exit != 0 || r.err != "" {
		t.Errorf("explain: exit %d: %s", r.exit, r.err)
	}
}

// lines counts what an action has written beside the marks.
func (s *site) lines(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.marks, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}
