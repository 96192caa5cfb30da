package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

const (
	runbooks = 20 // in the project in which nothing is sick
	members  = 5  // of each fleet
)

// contestants makes the projects and says what is run.
func contestants(ctx context.Context, exe, root, metrics string) ([]*contestant, error) {
	null := &contestant{name: "`/bin/true`", argv: []string{"/bin/true"}}
	version := &contestant{name: "`runbook version`", argv: []string{exe, "version"}}
	idle, err := idleProject(ctx, exe, root, metrics)
	if err != nil {
		return nil, err
	}
	acting, err := actingProject(ctx, exe, root, metrics)
	if err != nil {
		return nil, err
	}
	ansible, err := plays(root, metrics, idle, acting)
	return append([]*contestant{null, version, idle, acting}, ansible...), err
}

// idleProject has many runbooks, each with a fleet and a symptom of its own; nobody is sick.
func idleProject(ctx context.Context, exe, root, metrics string) (*contestant, error) {
	dir := filepath.Join(root, "idle")
	files := map[string]string{"project.star": project(metrics, "")}
	for i := range runbooks {
		files[fmt.Sprintf("runbooks/fleet%02d.star", i)] = runbook(fleetName(i))
	}
	if err := write(dir, files); err != nil {
		return nil, err
	}
	if err := command(ctx, exe, "init", "--state", filepath.Join(dir, "state")); err != nil {
		return nil, err
	}
	var ran time.Time
	return &contestant{
		name: fmt.Sprintf("`runbook run`, %d runbooks, nothing sick", runbooks),
		argv: []string{exe, "run", "--json", "--project", dir},
		prepare: func() error {
			// The runbooks are due once a second.
			<-time.After(time.Until(ran.Truncate(time.Second).Add(time.Second)))
			return nil
		},
		check: func(stdout []byte) error {
			ran = time.Now() // its slot may have begun after its start
			return checkIdle(stdout)
		},
	}, nil
}

func checkIdle(stdout []byte) error {
	var r trace.Run
	if err := json.Unmarshal(stdout, &r); err != nil {
		return err
	}
	if len(r.Runbooks) != runbooks {
		return fmt.Errorf("%d runbooks were looked at, want %d", len(r.Runbooks), runbooks)
	}
	for _, rb := range r.Runbooks {
		if !rb.Due || rb.Problem != nil || len(rb.Targets) != members {
			return fmt.Errorf("runbook %s was not evaluated: due %t (%s), %d targets", rb.Name, rb.Due, rb.Why, len(rb.Targets))
		}
		for _, t := range rb.Targets {
			if t.Condition != trace.Healthy {
				return fmt.Errorf("%s is %s: %s", t.Name, t.Condition, t.Why)
			}
		}
	}
	return nil
}

// actingProject has one runbook that acts on one target. Each run gets a state of its own: an action is not repeated.
func actingProject(ctx context.Context, exe, root, metrics string) (*contestant, error) {
	dir := filepath.Join(root, "acting")
	if err := write(dir, map[string]string{
		"project.star":         project(metrics, `connection("exec", match = {"job": "sick"}, config = {"commands": {"noop": ["/bin/true"]}})`),
		"runbooks/worker.star": runbook("sick"),
	}); err != nil {
		return nil, err
	}
	// Each run gets new records, because an action is not repeated, and what runs before it have remembered of files and plugins.
	state, cache := filepath.Join(dir, "state"), filepath.Join(dir, "cache")
	return &contestant{
		name: "`runbook run`, one action (`exec` of `/bin/true`)",
		argv: []string{exe, "run", "--json", "--project", dir},
		prepare: func() error {
			if err := os.Rename(filepath.Join(state, "cache"), cache); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := os.RemoveAll(state); err != nil {
				return err
			}
			if err := command(ctx, exe, "init", "--state", state); err != nil {
				return err
			}
			defer flush() // a run waits for its own bytes, not for those of what was made and removed for it
			if _, err := os.Stat(cache); errors.Is(err, fs.ErrNotExist) {
				return nil // the first one
			}
			return errors.Join(os.RemoveAll(filepath.Join(state, "cache")), os.Rename(cache, filepath.Join(state, "cache")))
		},
		check: checkActed,
	}, nil
}

func checkActed(stdout []byte) error {
	var r trace.Run
	if err := json.Unmarshal(stdout, &r); err != nil {
		return err
	}
	for _, rb := range r.Runbooks {
		for _, t := range rb.Targets {
			if t.Evaluation == nil {
				continue
			}
			for _, e := range t.Evaluation.Events {
				if e.Action != nil && e.Action.State == action.Succeeded {
					return nil
				}
			}
		}
	}
	return errors.New("no action succeeded")
}

func project(metrics, connections string) string {
	return fmt.Sprintf(`project(
    metrics = connection("prometheus", config = {"url": %q}),
    state = "state",
    policy = policy(tested = False),
    connections = [%s],
)
`, metrics, connections)
}

// runbook is the runbook of one fleet.
func runbook(job string) string {
	return fmt.Sprintf(`"""A queue is stuck: restart its worker."""

runbook(
    owner = "bench",
    trigger = every("1s"),
    severity = "warning",
    mode = "auto",
    targets = fleet(
        all = 'up{job=%[1]q}',
        sick = 'queue_depth{job=%[1]q} > $limit',
        by = "instance",
        held = "5m",
    ),
    params = {"limit": param.int(100, min = 1, doc = "jobs waiting above which a worker is stuck")},
)

def run(ctx):
    done = ctx.metrics.value("rate(jobs_done_total[5m])", where = {"job": %[1]q, "instance": ctx.target.name})
    if done > 0:
        return nothing("it still gets through its jobs")
    ctx.exec.run("noop", reason = "queue stuck")
`, job)
}

func write(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command runs what is not measured.
func command(ctx context.Context, argv ...string) error {
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return nil
}
