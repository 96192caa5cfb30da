package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// world answers the example runbook: how slow the storage is, and it notes the actions.
type world struct {
	disk  value.Float
	asked []string
}

func (w *world) Call(_ context.Context, r kit.Request) (value.Value, error) {
	w.asked = append(w.asked, fmt.Sprint(r.Family, ".", r.Function, " ", r.Args["command"]))
	if r.Family == "metrics" {
		return w.disk, nil
	}
	return value.Dict{}, nil
}

// What init writes is a project that loads and does what it says, also with the route that is commented out in it.
func TestTemplatesWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := writeProject(dir, "state"); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(dir, "project.star")
	text, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	checkTemplates(t, dir)
	open := regexp.MustCompile(`(?m)^    # (notify = )`).ReplaceAllString(string(text), "    $1")
	if err := os.WriteFile(settings, []byte(open), 0o600); err != nil {
		t.Fatal(err)
	}
	checkTemplates(t, dir)
}

func checkTemplates(t *testing.T, dir string) {
	t.Helper()
	tree, err := project.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	w, err := sandbox.Spawner{}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s, err := project.LoadSettings(t.Context(), w, tree)
	if err != nil {
		t.Fatal(err)
	}
	if s.Policy.Mode != guard.Recommend || s.StateDir != filepath.Join(tree.Root(), "state") || len(s.Connections) != 1 {
		t.Errorf("settings: %+v", s)
	}
	manifests, err := plugins.Manifests()
	if err != nil {
		t.Fatal(err)
	}
	byName, names := map[string]sdk.Manifest{}, []string{}
	for _, m := range manifests {
		byName[m.Name] = m
		names = append(names, m.Name)
	}
	if err := s.CheckConnections(func(n string) (sdk.Manifest, error) { return byName[n], nil }, names); err != nil {
		t.Error(err)
	}
	families, err := pluginhost.Families(manifests)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := s.Runbooks(tree, nil)
	if err != nil || strings.Join(paths, " ") != "runbooks/worker.star" {
		t.Fatalf("runbooks: %v, %v", paths, err)
	}
	rb, err := project.LoadRunbook(t.Context(), w, tree, s, paths[0], project.RunbookVocabulary(append(builtins.All(), families...)))
	if err != nil {
		t.Fatal(err)
	}
	if rb.Mode != guard.Recommend || rb.Doc == "" {
		t.Errorf("runbook: %+v", rb)
	}
	for _, c := range []struct {
		disk    value.Float
		outcome string
		asked   string
	}{
		{0.01, "", "metrics.value <nil>; exec.run restart-worker"},
		{0.5, "escalate", "metrics.value <nil>"},
	} {
		see := &world{disk: c.disk}
		r, err := w.Evaluate(t.Context(), rb.Path, "run", rb.Vocabulary, tree, sandbox.Context{
			Now: time.Date(2026, 3, 1, 10, 20, 0, 0, time.UTC), Params: rb.Params, Attempt: 1,
			Target: value.Map(map[string]value.Value{
				"name": value.String("w3"), "key": value.String("instance=w3"),
				"labels": value.Strings(map[string]string{"instance": "w3", "job": "worker", "storage": "nas1"}),
			}),
		}, see)
		if err != nil {
			t.Fatal(err)
		}
		outcome := ""
		if r.Outcome != nil {
			outcome = r.Outcome.Type
		}
		if asked := strings.Join(see.asked, "; "); outcome != c.outcome || asked != c.asked {
			t.Errorf("storage at %v: outcome %q, asked %q", c.disk, outcome, asked)
		}
	}
}
