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

// What a script can make a worker take is bounded, whether or not the heap is looked at in time. It gets no more than 128 MiB, 16 MiB of
// slack, an arena of 64 MiB and 32 MiB for stacks and the like; with the program itself that is less than 256 MiB.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Worker(t, sandbox.Limits{})
	proc := fmt.Sprintf("/proc/%d/", w.(interface{ PID() int }).PID())
	taken := map[string]string{"Max data size": `^\d+ \d+ \d+ \d+ \d+ (\d+)`, "Max address space": `^(\d+) `}
	if raced { // the C library is linked in
		delete(taken, "Max address space")
	}
	for limit, pattern := range taken {
		most := number(t, proc+"limits", `(?m)^`+limit+`\s+(\d+) `)
		taken := number(t, proc+"statm", pattern) * int64(os.Getpagesize())
		t.Logf("%s: %d MiB, at most %d MiB", limit, taken>>20, most>>20)
		if more := most - taken; more > 224<<20 {
			t.Errorf("%s: a script may make a worker take %d bytes more", limit, more)
		}
	}
}

// Memory that is asked for at once is refused at once, wherever in its address space Go has put the heap of this worker: it is somewhere
// else in each. What is refused is never taken.
func TestMemoryAtOnce(t *testing.T) {
	t.Parallel()
	files := one(body("x = 'abcd' * ((1 << 28) - 1)"))
	for range 40 {
		w := sandboxtest.Worker(t, sandbox.Limits{})
		peak := watchMemory(w.(interface{ PID() int }).PID())
		_, err := w.Evaluate(t.Context(), "main.star", "run", vocabulary(), files, environment(), nobody)
		if got := problemOf(err); !strings.HasPrefix(got, "limit main.star:2: stopped at the memory limit of 128 MiB") {
			t.Errorf("got %s", got)
		}
		if kb := peak(); kb > 128<<10 {
			t.Fatalf("the worker took %d KiB", kb)
		}
	}
}

// A script may use the memory that it is allowed, in many pieces and in few.
func TestMemoryIsGiven(t *testing.T) {
	t.Parallel()
	var limits sandbox.Limits
	if raced {
		limits.Memory = 8 * sandbox.Defaults().Memory
	}
	for name, line := range map[string]string{
		"pieces":  "x = ['a' * 100000 for i in range(1100)]",
		"at once": "x = 'a' * 110000000",
	} {
		w := sandboxtest.Worker(t, limits)
		if _, err := w.Evaluate(t.Context(), "main.star", "run", vocabulary(), one(body(line)), environment(), nobody); err != nil {
			t.Errorf("%s: %s", name, problemOf(err))
		}
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
