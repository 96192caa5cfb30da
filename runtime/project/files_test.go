package project

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// makeTree writes files; a name that ends in "/" is a directory.
func makeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		full := filepath.Join(root, filepath.FromSlash(name))
		dir := filepath.Dir(full)
		if strings.HasSuffix(name, "/") {
			dir = full
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if dir == full {
			continue
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func openTree(t *testing.T, root string) *Tree {
	t.Helper()
	tree, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	return tree
}

func TestFind(t *testing.T) {
	t.Parallel()
	root := makeTree(t, map[string]string{"p/project.star": "", "p/a/b/x.star": "", "bad/project.star/x": ""})
	for _, start := range []string{"p", "p/a/b", "p/a/b/x.star", "p/project.star"} {
		got, err := Find(filepath.Join(root, start))
		if err != nil || got != filepath.Join(root, "p") {
			t.Errorf("Find(%s) = %s, %v", start, got, err)
		}
	}
	_, err := Find(root)
	check(t, err, "there is no project.star in "+root+" or above | make a project: runbook init DIR")
	_, err = Find(filepath.Join(root, "bad"))
	check(t, err, filepath.Join(root, "bad", "project.star")+" is not a regular file")
}

func TestTreeRead(t *testing.T) {
	t.Parallel()
	outside := makeTree(t, map[string]string{"secret.star": "x"})
	root := makeTree(t, map[string]string{"a/b.star": "text", "notes.txt": "", "dir.star/x": "", "big.star": strings.Repeat("#", int(maxSource)+1)})
	link := func(from, to string) {
		if err := os.Symlink(from, filepath.Join(root, to)); err != nil {
			t.Fatal(err)
		}
	}
	link(filepath.Join(outside, "secret.star"), "out.star")
	link("../"+filepath.Base(outside)+"/secret.star", "up.star")
	link("a/b.star", "in.star")
	tree := openTree(t, root)
	for _, name := range []string{"a/b.star", "in.star"} {
		if text, err := tree.Read(name); err != nil || string(text) != "text" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for name, want := range map[string]string{
		"out.star":            "out.star is a link that leads out of the project | copy the file into the project",
		"up.star":             "up.star is a link that leads out of the project | copy the file into the project",
		"../x.star":           "../x.star: not the path of a .star file below the project root",
		"/etc/x.star":         "/etc/x.star: not the path of a .star file below the project root",
		"a/../a/b.star":       "a/../a/b.star: not the path of a .star file below the project root",
		"notes.txt":           "notes.txt: not the path of a .star file below the project root",
		"dir.star":            "dir.star: not a regular file",
		"big.star":            "big.star: more than 4MiB",
		"a/c.star":            `there is no file a/c.star (did you mean "a/b.star"?)`,
		"zzzzzzzzz/long.star": "there is no file zzzzzzzzz/long.star",
	} {
		_, err := tree.Read(name)
		check(t, err, want)
	}
}

func TestRunbooks(t *testing.T) {
	t.Parallel()
	root := makeTree(t, map[string]string{
		"project.star": "", "topology.star": "", "worker.star": "", "worker_test.star": "", "db/primary.star": "", "db/project_notes.md": "",
		"lib/x.star": "", "db/lib/y.star": "", ".git/z.star": "", "state/s.star": "", "nested/project.star": "", "nested/n.star": "", "db/deep/a.star": "", "empty/": "",
		".hidden.star": "",
	})
	tree := openTree(t, root)
	s := &Settings{Root: root, StateDir: filepath.Join(root, "state")}
	for _, c := range []struct {
		paths []string
		want  []string
	}{
		{nil, []string{"db/deep/a.star", "db/primary.star", "worker.star"}},
		{[]string{"db"}, []string{"db/deep/a.star", "db/primary.star"}},
		{[]string{"db/deep/a.star", "db", "worker"}, []string{"db/deep/a.star", "db/primary.star", "worker.star"}},
		{[]string{filepath.Join(root, "worker.star")}, []string{"worker.star"}},
		{[]string{root}, []string{"db/deep/a.star", "db/primary.star", "worker.star"}},
	} {
		got, err := s.Runbooks(tree, c.paths)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%v: %v %s", c.paths, err, diff)
		}
	}
	for path, want := range map[string]string{
		"wroker.star":      `there is no runbook wroker.star (did you mean "worker.star"?) | the runbooks are: db/deep/a.star, db/primary.star, worker.star`,
		"worker_test.star": "worker_test.star is not a runbook: it is a test",
		"lib/x.star":       "lib/x.star is not a runbook: it is in lib/, where runbooks find what they load",
		"project.star":     "project.star is not a runbook: it belongs to the project's settings",
		"empty":            "there is no runbook in empty",
		os.TempDir():       os.TempDir() + " is not in the project " + root,
	} {
		_, err := s.Runbooks(tree, []string{path})
		check(t, err, want)
	}
}

func TestConnectionFor(t *testing.T) {
	t.Parallel()
	at := func(line int) value.Pos { return value.Pos{File: File, Line: line, Col: 9} }
	s := &Settings{Connections: []Connection{
		{Name: "web", Plugin: "systemd", Match: map[string]string{"role": "web"}, Pos: at(3)},
		{Name: "web-eu", Plugin: "systemd", Match: map[string]string{"role": "web", "zone": "eu"}, Pos: at(4)},
		{Name: "db", Plugin: "systemd", Match: map[string]string{"role": "db"}, Pos: at(5)},
		{Name: "open", Plugin: "exec", Pos: at(6)},
	}}
	got, err := s.ConnectionFor("systemd", map[string]string{"role": "web", "zone": "us", "instance": "w3"})
	if err != nil || got.Name != "web" {
		t.Errorf("%v, %v", got, err)
	}
	_, err = s.ConnectionFor("systemd", map[string]string{"role": "web", "zone": "eu"})
	check(t, err, `2 connections of plugin "systemd" match the target's labels {role="web", zone="eu"}: "web" (project.star:3:9), "web-eu" (project.star:4:9) | add labels to match in project.star until one is left`)
	_, err = s.ConnectionFor("systemd", map[string]string{"role": "cache", "instance": "c1"})
	check(t, err, `no connection of plugin "systemd" matches the target's labels {instance="c1", role="cache"} | add to connections in project.star: connection("systemd", name = "c1", match = {"instance": "c1"}, config = {...})`)
	want := []string{
		`connection "web" (project.star:3:9): wants role="web", the target has role="cache"`,
		`connection "web-eu" (project.star:4:9): wants role="web", the target has role="cache"`,
		`connection "db" (project.star:5:9): wants role="db", the target has role="cache"`,
	}
	if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != problem.NoConnection {
		t.Error(err)
	} else if diff := cmp.Diff(want, p.Detail); diff != "" {
		t.Error(diff)
	}
	// No labels never means all targets.
	_, err = s.ConnectionFor("exec", map[string]string{"role": "web"})
	check(t, err, `no connection of plugin "exec" matches the target's labels {role="web"} | add to connections in project.star: connection("exec", name = "exec", match = {"role": "web"}, config = {...})`)
	_, err = s.ConnectionFor("k8s", nil)
	check(t, err, `no connection of plugin "k8s" matches the target's labels {} | add to connections in project.star: connection("k8s", name = "k8s", match = {"label": "value"}, config = {...})`)
}

func TestCheckConnections(t *testing.T) {
	t.Parallel()
	manifest := func(plugin string) (sdk.Manifest, error) {
		switch plugin {
		case "prometheus":
			return sdk.Manifest{Config: []sdk.Param{{Name: "url", Type: "string", Required: true, Doc: "where it is"}, {Name: "token", Type: "string", Sensitive: true}, {Name: "timeout", Type: "duration"}, {Name: "retries", Type: "int"}, {Name: "headers", Type: "dict"}}}, nil
		case "broken":
			return sdk.Manifest{}, problem.New(problem.PluginFailed, "it ended")
		}
		return sdk.Manifest{}, problem.New(problem.PluginMissing, "not found")
	}
	secret := rec("secret.env", "name", "T")
	load := func(plugin string, config dict) (*Settings, error) {
		s, err := settings(t, "metrics", rec("connection", "plugin", plugin, "config", config))
		if err != nil {
			t.Fatal(err)
		}
		return s, s.CheckConnections(manifest, []string{"prometheus", "broken"})
	}
	s, err := load("prometheus", dict{"url": "http://x", "token": secret, "timeout": "5s"})
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := s.Metrics.Config.Get("timeout"); v.Kind() != "duration" {
		t.Errorf("timeout is a %s", v.Kind())
	}
	for _, c := range []struct {
		plugin string
		config dict
		want   string
	}{
		{"prometeus", dict{}, `x.star:2:5: connection: there is no plugin "prometeus" (did you mean "prometheus"?) | the plugins are: prometheus, broken`},
		{"broken", dict{}, `x.star:2:5: connection "broken": it ended`},
		{"prometheus", dict{"url": "http://x", "tokn": secret}, `x.star:3:5: config of connection "prometheus": plugin "prometheus" has no setting "tokn" (did you mean "token"?) | its settings are: url, token, timeout, retries, headers`},
		{"prometheus", dict{"timeout": "5s"}, `x.star:3:5: config of connection "prometheus": url is missing: where it is | add "url": ... to config`},
		{"prometheus", dict{"url": "http://x", "timeout": "5"}, `x.star:3:5: config of connection "prometheus": timeout must be of type duration, got a string`},
		{"prometheus", dict{"url": "http://x", "retries": 1.5}, `x.star:3:5: config of connection "prometheus": retries must be of type int, got a float`},
		{"prometheus", dict{"url": "http://x", "retries": secret}, `x.star:3:5: config of connection "prometheus": retries is of type int: only text can be a secret`},
		{"prometheus", dict{"url": "http://x", "token": "abc"}, `x.star:3:5: config of connection "prometheus": token is a secret: it must not be written here | write "token": secret.env("NAME") or secret.file("/run/secrets/name")`},
		{"prometheus", dict{"url": "http://x", "headers": dict{"a": secret}}, `x.star:3:5: config of connection "prometheus": headers must be of type dict, got a dict`},
		{"prometheus", dict{"url": rec("rate", "count", 1, "per", "1h")}, `x.star:3:5: config of connection "prometheus": url cannot be rate(...)`},
	} {
		_, err := load(c.plugin, c.config)
		check(t, err, c.want)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	root := makeTree(t, map[string]string{"good": "s3cret\n", "empty": "\n", "open": "x", "big": strings.Repeat("x", 64<<10+1), "binary": "\xff", "dir/": ""})
	if err := os.Chmod(filepath.Join(root, "open"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &Settings{Root: root, Env: func(name string) (string, bool) {
		v, ok := map[string]string{"TOKEN": "t0ken", "EMPTY": ""}[name]
		return v, ok
	}}
	c := Connection{Config: value.Dict{
		{Key: value.String("a"), Value: value.String("plain")},
		{Key: value.String("b"), Value: rec("secret.env", "name", "TOKEN")},
		{Key: value.String("c"), Value: rec("secret.file", "path", "good")},
		{Key: value.String("d"), Value: rec("secret.file", "path", filepath.Join(root, "good"))},
	}}
	got, err := s.Resolve(c)
	want := value.Strings(map[string]string{"a": "plain", "b": "t0ken", "c": "s3cret", "d": "s3cret"})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if v, _ := c.Config.Get("b"); v.Kind() != "secret.env" {
		t.Error("the connection itself was changed")
	}
	missing := "open " + filepath.Join(root, "none") + ": no such file or directory"
	if runtime.GOOS == "windows" {
		missing = "open " + filepath.Join(root, "none") + ": The system cannot find the file specified."
	}
	for _, c := range []struct{ typ, field, name, want string }{
		{"secret.env", "name", "NONE", "x.star:1:1: secret.env: the environment variable NONE is not set | set NONE where runbook is started, or use secret.file"},
		{"secret.env", "name", "EMPTY", "x.star:1:1: secret.env: the environment variable EMPTY is empty"},
		{"secret.file", "path", "none", "x.star:1:1: secret.file: " + missing},
		{"secret.file", "path", "empty", "x.star:1:1: secret.file: empty is empty"},
		{"secret.file", "path", "open", "x.star:1:1: secret.file: open can be read or written by everybody (mode 0644) | chmod o= " + filepath.Join(root, "open")},
		{"secret.file", "path", "big", "x.star:1:1: secret.file: big has more than 64KiB"},
		{"secret.file", "path", "binary", "x.star:1:1: secret.file: binary is not text"},
		{"secret.file", "path", "dir", "x.star:1:1: secret.file: dir is not a regular file"},
		{"rate", "count", "x", "x.star:1:1: rate is not a secret"},
	} {
		_, err := s.Text(rec(c.typ, c.field, c.name))
		check(t, err, c.want)
	}
	s.Env = nil
	if _, err := s.Text(rec("secret.env", "name", "TOKEN")); err == nil {
		t.Error("a secret without an environment")
	}
	if _, err := s.URL(rec("secret.file", "path", "good")); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a bad URL, or one that is shown: %v", err)
	}
}
