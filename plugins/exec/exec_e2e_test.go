//go:build e2e

package exec_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestE2EConformance(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "touched")
	sdktest.Conformance(t, sdktest.Suite{
		Argv: sdktest.Bundled(t, "exec"),
		Config: value.Dict{
			{Key: value.String("commands"), Value: sdktest.Dict("touch", sdktest.Texts("/usr/bin/touch", file))},
			{Key: value.String("reads"), Value: sdktest.Dict("id", sdktest.Texts("/usr/bin/id"))},
		},
		Queries: []sdktest.Question{{Function: "read", Args: sdktest.Dict("command", value.String("id"))}},
		Effects: []sdktest.Effect{{
			Action: sdktest.Action{Function: "run", Args: sdktest.Dict("command", value.String("touch")), Key: "k1", Target: sdk.Target{Key: "instance=w3", Name: "w3"}},
			Happened: func() bool {
				_, err := os.Stat(file)
				return err == nil
			},
			Undo: func() { _ = os.Remove(file) },
		}},
	})
}

// A command runs as the user of the connection, with that one's groups and no rights of the engine's, and still ends with the plugin.
func TestE2EUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		p := sdktest.Start(t, sdktest.Bundled(t, "exec")...)
		if err := p.Configure(sdktest.Dict("user", value.String("nobody"))); err == nil || !strings.Contains(err.Error(), "only root can run a command as another user") {
			t.Errorf("%v", err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "rb") //nolint:usetesting // nobody must be able to get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // for nobody
		t.Fatal(err)
	}
	const status = `grep -E '^(Uid|Gid|Groups|CapEff|NoNewPrivs):' /proc/self/status | tr '\t' ' '`
	config := value.Dict{
		{Key: value.String("user"), Value: value.String("nobody")},
		{Key: value.String("reads"), Value: sdktest.Dict("who", sdktest.Texts("/bin/sh", "-c", status))},
		{Key: value.String("commands"), Value: value.Dict{
			{Key: value.String("who"), Value: sdktest.Texts("/bin/sh", "-c", status)},
			{Key: value.String("steal"), Value: sdktest.Texts("/bin/cat", "/etc/shadow")},
			{Key: value.String("hang"), Value: sdktest.Texts("/bin/sh", "-c", "echo $$ > "+dir+"/pid.new; mv "+dir+"/pid.new "+dir+"/pid; exec sleep 60")},
		}},
	}
	p := sdktest.Start(t, sdktest.Bundled(t, "exec")...)
	if err := p.Configure(config); err != nil {
		t.Fatal(err)
	}
	want := []string{"Uid: 65534 65534 65534 65534", "Gid: 65534 65534 65534 65534", "Groups: 65534", "CapEff: 0000000000000000"}
	said := func(v value.Value) string {
		d, _ := v.(value.Dict)
		for _, e := range d {
			if e.Key == value.String("stdout") {
				s, _ := e.Value.(value.String)
				return string(s)
			}
		}
		return ""
	}
	v, err := p.Query(t.Context(), "read", sdktest.Dict("command", value.String("who")))
	o := p.Act(sdktest.Action{Function: "run", Args: sdktest.Dict("command", value.String("who")), Key: "k1"})
	if err != nil || o.Outcome != pluginpb.Outcome_OUTCOME_SUCCEEDED {
		t.Fatalf("%v, %+v", err, o)
	}
	for _, w := range want {
		if !strings.Contains(said(v), w) || !strings.Contains(said(o.Value), w) {
			t.Errorf("want %q; a query runs as\n%sand an action as\n%s", w, said(v), said(o.Value))
		}
	}
	if o := p.Act(sdktest.Action{Function: "run", Args: sdktest.Dict("command", value.String("steal")), Key: "k2"}); o.Outcome != pluginpb.Outcome_OUTCOME_FAILED || !strings.Contains(o.Message, "Permission denied") {
		t.Errorf("it reads what is root's: %+v", o)
	}

	_ = p.Begin(sdktest.Action{Function: "run", Args: sdktest.Dict("command", value.String("hang")), Key: "k3"})
	pid := pidOf(t, filepath.Join(dir, "pid"))
	p.Kill()
	patience := time.After(5 * time.Second)
	for look := time.Tick(10 * time.Millisecond); syscall.Kill(pid, 0) == nil; {
		select {
		case <-look:
		case <-patience:
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the command has outlived the plugin")
		}
	}
}

// pidOf waits for a file with the number of a process.
func pidOf(t *testing.T, path string) int {
	t.Helper()
	patience := time.After(5 * time.Second)
	for look := time.Tick(10 * time.Millisecond); ; {
		text, err := os.ReadFile(path)
		if pid, perr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && perr == nil {
			return pid
		}
		select {
		case <-look:
		case <-patience:
			t.Fatalf("the command has not begun: %v", err)
		}
	}
}
