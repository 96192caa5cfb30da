package sandbox_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
)

// The worker has nothing of its parent: no environment, no files beyond its pipes, no directory.
func TestNothingInherited(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Worker(t, sandbox.Limits{})
	proc := fmt.Sprintf("/proc/%d/", w.(interface{ PID() int }).PID())
	limits, err := os.ReadFile(proc + "limits")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Max core file size": "0", "Max file size": "0", "Max open files": "0", "Max data size": `\d{9}`} {
		if !regexp.MustCompile(`(?m)^` + name + `\s+` + want + `\s`).Match(limits) {
			t.Errorf("%s is not %s:\n%s", name, want, limits)
		}
	}
	env, err := os.ReadFile(proc + "environ")
	if err != nil || len(env) != 0 {
		t.Errorf("environment %q, %v", env, err)
	}
	if cwd, err := os.Readlink(proc + "cwd"); cwd != "/" {
		t.Errorf("directory %s, %v", cwd, err)
	}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(proc + "fd/" + fd.Name())
		if to != "/dev/null" && !strings.HasPrefix(to, "pipe:") && !strings.HasPrefix(to, "anon_inode:") &&
			!strings.HasPrefix(to, "/sys/fs/cgroup/") { // the Go runtime's own, to know how many CPUs it has
			t.Errorf("descriptor %s is %s", fd.Name(), to)
		}
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1") {
		t.Errorf("no_new_privs is not set: %v", err)
	}
}
