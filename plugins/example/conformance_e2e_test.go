//go:build e2e

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// The three examples, in three languages, pass the same suite.
func TestE2EConformance(t *testing.T) {
	t.Parallel()
	for name, build := range map[string]func(t *testing.T, dir string) []string{"go": inGo, "python": inPython, "node": inNode} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			flags := t.TempDir()
			file := filepath.Join(flags, "ready")
			args := value.Dict{{Key: value.String("name"), Value: value.String("ready")}}
			sdktest.Conformance(t, sdktest.Suite{
				Argv:    build(t, dir),
				Config:  value.Dict{{Key: value.String("dir"), Value: value.String(flags)}},
				Queries: []sdktest.Question{{Function: "is_set", Args: args}},
				Effects: []sdktest.Effect{{
					Action: sdktest.Action{Function: "set", Args: args, Key: "k1", Target: sdk.Target{Key: "instance=w3", Name: "w3"}},
					Happened: func() bool {
						_, err := os.Stat(file)
						return err == nil
					},
					Undo: func() { _ = os.Remove(file) },
				}},
			})
		})
	}
}

func inGo(t *testing.T, dir string) []string {
	t.Helper()
	exe := filepath.Join(dir, "flags")
	run(t, ".", "go", "build", "-o", exe, ".")
	return []string{exe}
}

func inPython(t *testing.T, dir string) []string {
	t.Helper()
	copyTo(t, dir, "python/flags.py", "../sdk/proto/plugin.proto")
	run(t, dir, "protoc", "--python_out=.", "plugin.proto")
	return []string{"/usr/bin/python3", filepath.Join(dir, "flags.py")}
}

func inNode(t *testing.T, dir string) []string {
	t.Helper()
	copyTo(t, dir, "node/flags.js", "node/package.json", "node/package-lock.json", "../sdk/proto/plugin.proto")
	run(t, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	return []string{node, filepath.Join(dir, "flags.js")}
}

func copyTo(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(f)), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
