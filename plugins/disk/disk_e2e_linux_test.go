//go:build e2e

package disk_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// journald is a real one, in a view of the file system of its own, with its journal in a directory of the test.
type journald struct {
	t   *testing.T
	dir string
	pid string
}

const bootJournald = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/lock /var/log/journal
mount --bind "$1" /var/log/journal
echo $$ >"$1/pid"
exec /lib/systemd/systemd-journald
`

func newJournald(t *testing.T) *journald {
	t.Helper()
	j := &journald{t: t, dir: t.TempDir()}
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(j.dir, strings.TrimSpace(string(id))), 0o755); err != nil {
		t.Fatal(err)
	}
	sdktest.Server(t, func() error {
		pid, err := os.ReadFile(filepath.Join(j.dir, "pid"))
		if err != nil {
			return err
		}
		j.pid = strings.TrimSpace(string(pid))
		out, err := exec.CommandContext(t.Context(), "nsenter", "--target", j.pid, "--mount", "journalctl", "--flush").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}, "unshare", "--mount", "sh", "-c", bootJournald, "journald", j.dir)
	return j
}

// rotate writes so many files that are archived, and returns what is archived in all.
func (j *journald) rotate(files int) int {
	j.t.Helper()
	const script = `for i in 1 2 3 4 5 6 7 8; do logger -u /run/systemd/journal/dev-log "message $i"; done; journalctl --sync; journalctl --rotate`
	for range files {
		if out, err := exec.CommandContext(j.t.Context(), "nsenter", "--target", j.pid, "--mount", "sh", "-c", script).CombinedOutput(); err != nil {
			j.t.Fatalf("%v: %s", err, out)
		}
	}
	return j.archived()
}

func (j *journald) archived() int {
	j.t.Helper()
	found, err := filepath.Glob(filepath.Join(j.dir, "*", "*@*.journal"))
	if err != nil {
		j.t.Fatal(err)
	}
	return len(found)
}

func (j *journald) config() value.Dict {
	return sdktest.Dict("journal", j.dir, "least_journal", 1<<20)
}

func vacuum(keep int) sdktest.Action {
	return sdktest.Action{Function: "vacuum_journal", Args: sdktest.Dict("keep", keep), Key: "key", Timeout: 20 * time.Second}
}

func TestE2EJournal(t *testing.T) {
	t.Parallel()
	j := newJournald(t)
	p := sdktest.Start(t, sdktest.Bundled(t, "disk")...) // a command takes a process of its own
	h := &p.Harness
	if err := h.Configure(j.config()); err != nil {
		t.Fatal(err)
	}
	if n := j.rotate(3); n != 3 {
		t.Fatalf("%d archived files", n)
	}
	v := h.Ask("journal", nil)
	if sdktest.Field(v, "files") != value.Int(3) || sdktest.Field(v, "archived").(value.Int) < 3<<20 || sdktest.Field(v, "active").(value.Int) < 1<<20 {
		t.Errorf("journal: %v", v)
	}
	h.Expect(vacuum(1000), pluginpb.Outcome_OUTCOME_NOT_STARTED, "keep: 1000 is less than the connection's least_journal, 1048576")
	h.Expect(vacuum(1<<40), pluginpb.Outcome_OUTCOME_NO_CHANGE, "the journal takes no more")
	plan, err := h.Plan(vacuum(2 << 20))
	if err != nil || !strings.Contains(plan.GetChanges()[0].GetBefore(), "in 3 archived files") || j.archived() != 3 {
		t.Errorf("plan: %v %v", plan, err)
	}
	out := h.Expect(vacuum(2<<20), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if n := j.archived(); n != 0 {
		t.Errorf("%d archived files are left", n)
	}
	h.Probes(vacuum(2<<20), out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	h.Expect(vacuum(2<<20), pluginpb.Outcome_OUTCOME_NO_CHANGE, "0 bytes in 0 archived files")
	j.rotate(3)
	h.Probes(vacuum(2<<20), out.Receipt, pluginpb.ProbeState_PROBE_STATE_NOT_DONE)
	h.Probes(vacuum(3<<20), out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
	// It still writes, and what it writes is there.
	if out, err := exec.CommandContext(t.Context(), "nsenter", "--target", j.pid, "--mount", "sh", "-c",
		"logger -u /run/systemd/journal/dev-log 'after all'; journalctl --sync; journalctl -o cat").CombinedOutput(); err != nil || !strings.Contains(string(out), "after all") {
		t.Errorf("%v: %s", err, out)
	}
}

func suite(t *testing.T, j *journald) sdktest.Suite {
	dir := tree(t, map[string]int{"logs/young.log": 1})
	const files = 300
	old := func() int {
		found, err := filepath.Glob(filepath.Join(dir, "logs", "old*.log"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	return sdktest.Suite{
		Argv: sdktest.Bundled(t, "disk"), Config: append(j.config(), sdktest.Dict("deletes", sdktest.Dict("logs", dir+"/logs/*.log"), "roots", sdktest.Texts(dir))...),
		Queries: []sdktest.Question{
			{Function: "usage", Args: sdktest.Dict("path", dir)},
			{Function: "forecast", Args: sdktest.Dict("path", dir, "over", value.Duration(time.Second))},
			{Function: "largest", Args: sdktest.Dict("root", dir)},
			{Function: "old", Args: sdktest.Dict("name", "logs", "older", value.Duration(week))},
			{Function: "journal"},
		},
		Effects: []sdktest.Effect{
			{
				Action:   remove("logs", week),
				Happened: func() bool { return old() == 0 },
				Undo: func() {
					for i := range files {
						write(t, fmt.Sprintf("%s/logs/old%d.log", dir, i), 400)
					}
				},
			},
			{
				Action:   vacuum(2 << 20),
				Happened: func() bool { return j.archived() == 0 },
				Undo:     func() { j.rotate(max(0, 2-j.archived())) },
			},
		},
	}
}

func TestE2EConformance(t *testing.T) {
	t.Parallel()
	sdktest.Conformance(t, suite(t, newJournald(t)))
}

func TestE2EKills(t *testing.T) {
	t.Parallel()
	sdktest.Kills(t, suite(t, newJournald(t)), 50, 20261130)
}
