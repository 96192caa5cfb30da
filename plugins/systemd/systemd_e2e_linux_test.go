//go:build e2e

package systemd_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/sshlogin/sshdtest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/plugins/systemd"
	"github.com/seed1de3961f/runbook/plugins/systemd/systemdtest"
)

// units are those of the test. None has the usual dependencies, which would start half of a machine.
var units = map[string]string{
	"worker.service": "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep infinity\n",
	"broken.service": "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/false\n",
	"slow.service":   "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sleep 5\n",
	"spare.service":  "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep infinity\n",
}

// newSystemd starts one and returns the path of its socket.
func newSystemd(t *testing.T) string {
	t.Helper()
	return proxy(t, systemdtest.Start(t, units))
}

// envProxy makes the test binary the proxy below.
const envProxy = "RUNBOOK_TEST_PROXY"

func TestMain(m *testing.M) {
	if os.Getenv(envProxy) == "" {
		os.Exit(m.Run())
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	for err == nil {
		var c, to net.Conn
		if c, err = l.Accept(); err != nil {
			break
		}
		if to, err = net.Dial("unix", "/run/systemd/private"); err != nil {
			break
		}
		go func() { _, _ = io.Copy(to, c); _ = to.Close() }()
		go func() { _, _ = io.Copy(c, to); _ = c.Close() }()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// proxy is a socket that leads to systemd's own: systemd talks only to processes of its own namespace.
func proxy(t *testing.T, pid string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "private")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nsenter", "--target", pid, "--mount", "--pid", self)
	cmd.Env, cmd.Stderr, cmd.ExtraFiles = append(os.Environ(), envProxy+"=1"), os.Stderr, []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait(); _ = l.Close() })
	return socket
}

func newHarness(t *testing.T, more ...any) *sdktest.Harness {
	t.Helper()
	h := sdktest.New(t, systemd.New())
	if err := h.Configure(sdktest.Dict(append([]any{"units", sdktest.Texts("worker.service", "broken.service", "slow.service", "no*.service")}, more...)...)); err != nil {
		t.Fatal(err)
	}
	return h
}

func look(t *testing.T, h *sdktest.Harness, unit string) (active, invocation string, pid int) {
	t.Helper()
	v, err := h.Query(t.Context(), "unit", sdktest.Dict("unit", value.String(unit)))
	if err != nil {
		t.Fatal(err)
	}
	d := v.(value.Dict)
	a, _ := d.Get("active")
	i, _ := d.Get("invocation")
	p, _ := d.Get("pid")
	return string(a.(value.String)), string(i.(value.String)), int(p.(value.Int))
}

func on(verb, unit string) sdktest.Action {
	return sdktest.Action{Function: verb, Args: sdktest.Dict("unit", value.String(unit)), Target: target, Key: "key-" + verb, Timeout: 20 * time.Second}
}

func TestE2ESystemd(t *testing.T) {
	t.Parallel()
	socket := newSystemd(t)
	h := newHarness(t, "socket", value.String(socket))
	t.Run("local", func(t *testing.T) { exercise(t, h) })
	t.Run("by ssh", func(t *testing.T) { bySSH(t, socket, h) })
}

// exercise does everything to units that a runbook can, and looks at each with systemd's own words.
func exercise(t *testing.T, h *sdktest.Harness) {
	if active, invocation, pid := look(t, h, "worker.service"); active != "inactive" || invocation != "" || pid != 0 {
		t.Fatalf("at first: %s %q %d", active, invocation, pid)
	}
	v, err := h.Query(t.Context(), "unit", sdktest.Dict("unit", value.String("none.service")))
	if err != nil {
		t.Fatal(err)
	}
	if l, _ := v.(value.Dict).Get("load"); l != value.String("not-found") {
		t.Errorf("load of a unit that is not there: %v", l)
	}
	h.Expect(on("restart", "none.service"), pluginpb.Outcome_OUTCOME_NOT_STARTED, "there is no unit none.service")

	// Told not to: nothing happens.
	no := on("start", "worker.service")
	no.Decline = true
	if out := h.Act(no); !out.Declined {
		t.Errorf("%+v", out)
	}
	if active, _, _ := look(t, h, "worker.service"); active != "inactive" {
		t.Errorf("after a no it is %s", active)
	}

	start := h.Expect(on("start", "worker.service"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	active, first, pid := look(t, h, "worker.service")
	if active != "active" || first == "" || pid == 0 {
		t.Errorf("after start: %s %q %d", active, first, pid)
	}
	h.Probes(on("start", "worker.service"), start.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	h.Expect(on("start", "worker.service"), pluginpb.Outcome_OUTCOME_NO_CHANGE, "worker.service is active")

	plan, err := h.Plan(on("restart", "worker.service"))
	if err != nil || len(plan.GetChanges()) != 1 || !strings.Contains(plan.GetChanges()[0].GetBefore(), "active (running), process "+strconv.Itoa(pid)) {
		t.Errorf("plan: %v %v", plan, err)
	}
	restart := h.Expect(on("restart", "worker.service"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	_, second, newPID := look(t, h, "worker.service")
	if second == first || newPID == pid || !strings.Contains(string(restart.Receipt), first) {
		t.Errorf("restarted from %s (%d) to %s (%d), receipt %s", first, pid, second, newPID, restart.Receipt)
	}
	h.Probes(on("restart", "worker.service"), restart.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	h.Probes(on("restart", "worker.service"), []byte(strings.Replace(string(restart.Receipt), first, second, 1)), pluginpb.ProbeState_PROBE_STATE_NOT_DONE)
	h.Probes(on("restart", "worker.service"), []byte("garbage"), pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
	h.Probes(on("restart", "broken.service"), restart.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)

	h.Expect(on("stop", "worker.service"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if active, _, _ := look(t, h, "worker.service"); active != "inactive" {
		t.Errorf("after stop it is %s", active)
	}
	h.Expect(on("stop", "worker.service"), pluginpb.Outcome_OUTCOME_NO_CHANGE, "worker.service is inactive")

	h.Expect(on("start", "broken.service"), pluginpb.Outcome_OUTCOME_FAILED, `the job ended with "failed"; the unit is failed`)
	failed, err := h.Query(t.Context(), "units", sdktest.Dict("states", sdktest.Texts("failed")))
	if err != nil || len(failed.(value.List)) != 1 {
		t.Errorf("failed units: %v %v", failed, err)
	}
	h.Expect(on("reset_failed", "broken.service"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	h.Expect(on("reset_failed", "broken.service"), pluginpb.Outcome_OUTCOME_NO_CHANGE, "broken.service is inactive")

	// A job that takes longer than the action may: nobody knows. Once it has ended systemd has forgotten it, and so nobody knows for ever.
	slow := on("start", "slow.service")
	slow.Timeout = 1500 * time.Millisecond
	out := h.Expect(slow, pluginpb.Outcome_OUTCOME_UNKNOWN, "its job did not end in time, and goes on")
	h.Probes(slow, out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if active, _, _ := look(t, h, "slow.service"); active == "inactive" {
			break
		}
	}
	h.Probes(slow, out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
}

// bySSH does it again through a real sshd.
func bySSH(t *testing.T, socket string, local *sdktest.Harness) {
	key, hostKey, port := sshdtest.Start(t)
	remote := func(host, key, hostKey string) *sdktest.Harness {
		return newHarness(t, "socket", value.String(socket), "host", value.String(host), "key", value.String(key), "host_key", value.String(hostKey))
	}
	h := remote("127.0.0.1:"+port, key, hostKey)
	out := h.Expect(on("restart", "worker.service"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	_, there, _ := look(t, h, "worker.service")
	if _, here, _ := look(t, local, "worker.service"); here != there || here == "" {
		t.Errorf("invocation by ssh %q, here %q", there, here)
	}
	h.Probes(on("restart", "worker.service"), out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	other, otherPublic := sshdtest.NewKey(t)
	for name, c := range map[string]struct {
		h    *sdktest.Harness
		want string
	}{
		"another host key": {remote("127.0.0.1:"+port, key, otherPublic), "it has another host key than the one in host_key"},
		"another key":      {remote("127.0.0.1:"+port, other, hostKey), "it does not let root log in with this key"},
		"nobody there":     {remote("127.0.0.1:1", key, hostKey), "connection refused"},
	} {
		if out := c.h.Act(on("restart", "worker.service")); out.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED || !strings.Contains(out.Message, c.want) {
			t.Errorf("%s: %s %q, want %q", name, out.Outcome, out.Message, c.want)
		}
	}
}
