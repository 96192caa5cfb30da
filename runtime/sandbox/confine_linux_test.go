package sandbox_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
)

// What a script can make a worker take is bounded, whether or not the heap is looked at in time. A worker has less than 96 MiB before
// it (more under the race detector), the program and an arena of 64 MiB included: together that is no more than 256 MiB.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Worker(t, sandbox.Limits{})
	proc := fmt.Sprintf("/proc/%d/", w.(interface{ PID() int }).PID())
	most := number(t, proc+"limits", `(?m)^Max data size\s+(\d+) `)
	data := number(t, proc+"statm", `^\d+ \d+ \d+ \d+ \d+ (\d+)`) * int64(os.Getpagesize())
	t.Logf("data %d MiB, at most %d MiB", data>>20, most>>20)
	if more := most - data; more < 128<<20 || more > 160<<20 {
		t.Errorf("a script may make a worker take %d bytes more", more)
	}
}

// number is the number in a file that a pattern finds.
func number(t *testing.T, file, pattern string) int64 {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s says %s, want %s", file, text, pattern)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

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
