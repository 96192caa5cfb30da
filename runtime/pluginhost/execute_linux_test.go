package pluginhost_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
)

func request(mode string, within time.Duration) pluginhost.Execute {
	return pluginhost.Execute{
		Function: "act", Args: args("mode", value.String(mode), "wait", value.Duration(time.Minute)), Key: "k1", Deadline: time.Now().Add(within),
		Target: action.Target{Key: "instance=w3", Name: "w3", Labels: map[string]string{"zone": "a"}},
	}
}

func execute(t testing.TB, h *pluginhost.Plugins, c pluginhost.Connection, mode string) pluginhost.Execution {
	t.Helper()
	x, err := h.Execute(t.Context(), c, request(mode, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestExecute(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode    string
		state   action.StepState // "": in doubt
		message string
		value   value.Value
		effect  bool
	}{
		{"ok", action.Succeeded, "", value.String("done a"), true},
		{"same", action.NoChange, "nothing to do", value.String("was so"), false},
		{"fail", action.Failed, "disk full", value.Null{}, true},
		{"unprintable", action.Succeeded, "not valid UTF-8", value.Null{}, true},
		{"unsure", "", "connection lost", nil, true},
		{"crash", "", "signal: killed", nil, true},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			h := host(t)
			c := conn("good", args("dir", value.String(dir)))
			x := execute(t, h, c, tt.mode)
			receipt, child, err := x.Started()
			if err != nil {
				t.Fatal(err)
			}
			if tt.effect && string(receipt) != "k1" {
				t.Errorf("receipt %q", receipt)
			}
			if child.PID == 0 || child.Group != child.PID || child.Start == 0 {
				t.Errorf("child %+v", child)
			}
			effect := filepath.Join(dir, "k1")
			if _, err := os.Stat(effect); err == nil {
				t.Fatal("it acted before it was told to")
			}
			if err := x.Proceed(t.Context()); err != nil && tt.mode != "crash" { // there, Acting may be lost with the process
				t.Fatal(err)
			}
			f, err := x.Wait(t.Context())
			if _, statErr := os.Stat(effect); (statErr == nil) != tt.effect {
				t.Errorf("effect: %v", statErr)
			}
			if tt.state == "" {
				if err == nil || !strings.Contains(err.Error(), tt.message) {
					t.Errorf("got %+v, %v", f, err)
				}
				eventually(t, "a process in doubt is gone", func() bool { return gone(child.PID) })
				// A fresh process can tell.
				r, err := h.Probe(t.Context(), c, pluginhost.Probe{Function: "act", Args: args("mode", value.String("ok")), Receipt: receipt})
				if err != nil || r.State != action.ResolvedDone || r.Message != "the file is there" {
					t.Errorf("probe: %+v, %v", r, err)
				}
				return
			}
			if err != nil || f.State != tt.state || !strings.Contains(f.Message, tt.message) {
				t.Errorf("got %+v, %v", f, err)
			}
			if d := cmp.Diff(tt.value, f.Value); d != "" {
				t.Error(d)
			}
			eventually(t, "the process is used again", func() bool { return intOf(t, about(t, h, c), "pid") == child.PID })
		})
	}
}

func TestNotStarted(t *testing.T) {
	t.Parallel()
	for mode, parts := range map[string][]string{
		"crash before": {"exit status 7"},
		"fail before":  {"good.act: not today"},
	} {
		h := host(t)
		x := execute(t, h, conn("good", nil), mode)
		_, _, err := x.Started()
		_ = asProblem(t, err, problem.PluginFailed, parts...)
	}
	h := host(t)
	if _, err := h.Execute(t.Context(), conn("good", nil), request("ok", -time.Second)); err == nil {
		t.Error("it began past its deadline")
	}
	if _, err := h.Execute(t.Context(), conn("good", nil), pluginhost.Execute{Function: "about", Deadline: time.Now().Add(time.Second)}); err == nil {
		t.Error("a query was executed")
	}
}

// A process that is stopped, before it began or after, ends with the action's time. Before, nothing has happened; after, nobody knows.
func TestStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := host(t)
	c := conn("good", args("dir", value.String(dir)))
	x, err := h.Execute(t.Context(), c, request("stop before", 500*time.Millisecond))
	if err == nil {
		_, _, err = x.Started()
	}
	_ = asProblem(t, err, problem.PluginTimeout, "good.act")

	if x, err = h.Execute(t.Context(), c, request("stop", 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	receipt, child, err := x.Started()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Proceed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := x.Wait(t.Context()); err == nil {
		t.Errorf("it ended as %+v", f)
	}
	eventually(t, "it is gone", func() bool { return gone(child.PID) })
	r, err := h.Probe(t.Context(), c, pluginhost.Probe{Function: "act", Args: args("mode", value.String("ok")), Receipt: receipt})
	if err != nil || r.State != action.ResolvedDone {
		t.Errorf("probe: %+v, %v", r, err)
	}
}

func TestDecline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := host(t)
	c := conn("good", args("dir", value.String(dir)))
	x := execute(t, h, c, "ok")
	_, child, err := x.Started()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Decline(t.Context(), "halted"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "k1")); err == nil {
		t.Error("it acted")
	}
	eventually(t, "the process is used again", func() bool { return intOf(t, about(t, h, c), "pid") == child.PID })

	x = execute(t, h, c, "forgets")
	if _, _, err := x.Started(); err != nil {
		t.Fatal(err)
	}
	if err := x.Decline(t.Context(), "halted"); err == nil {
		t.Error("a plugin that acted without leave is believed")
	}
}

func TestActingWithoutLeaveIsInDoubt(t *testing.T) {
	t.Parallel()
	h := host(t)
	for _, tt := range []struct{ plugin, mode, message string }{
		{"good", "forgets", "without leave to act"},
		{"eager", "", "acted without leave"},
	} {
		x := execute(t, h, conn(tt.plugin, nil), tt.mode)
		if _, _, err := x.Started(); err != nil {
			t.Errorf("%s: reported as certainly not started: %v", tt.plugin, err)
		}
		if err := x.Proceed(t.Context()); err == nil {
			if _, err = x.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("%s: %v", tt.plugin, err)
			}
		} else if !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s: %v", tt.plugin, err)
		}
	}
}

func TestNoActing(t *testing.T) {
	t.Parallel()
	h := host(t)
	for name, call := range map[string]func(pluginhost.Execution) error{
		"proceed": func(x pluginhost.Execution) error { return x.Proceed(t.Context()) },
		"decline": func(x pluginhost.Execution) error { return x.Decline(t.Context(), "halted") },
	} {
		x := execute(t, h, conn("silent", nil), "")
		_, child, err := x.Started()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = call(x)
		_ = asProblem(t, err, problem.PluginTimeout, "within 1s")
		if d := time.Since(began); d < 900*time.Millisecond || d > 2*time.Second {
			t.Errorf("%s took %s", name, d)
		}
		eventually(t, "it is killed", func() bool { return gone(child.PID) })
		if _, err := x.Wait(t.Context()); err == nil {
			t.Error("a definite end")
		}
	}
}

func TestForeignGroupIsRefused(t *testing.T) {
	t.Parallel()
	h := host(t)
	x := execute(t, h, conn("stranger", nil), "")
	_, _, err := x.Started()
	_ = asProblem(t, err, problem.PluginFailed, "process group 1", "not its own")
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	h := host(t)
	for _, tt := range []struct {
		mode    string
		limit   time.Duration
		code    problem.Code
		message string
	}{
		{"slow", 4 * time.Second, problem.InDoubt, "gave up"},                          // it noticed, a tenth before
		{"stubborn", 500 * time.Millisecond, problem.PluginTimeout, "by its deadline"}, // it did not
	} {
		x, err := h.Execute(t.Context(), conn("good", args("dir", value.String(t.TempDir()))), request(tt.mode, tt.limit))
		if err != nil {
			t.Fatal(err)
		}
		_, child, err := x.Started()
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Proceed(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = x.Wait(t.Context())
		_ = asProblem(t, err, tt.code, tt.message)
		if d := time.Since(began); d > tt.limit+2*time.Second {
			t.Errorf("%s took %s", tt.mode, d)
		}
		eventually(t, "it is killed", func() bool { return gone(child.PID) })
	}
}

func TestCancelAndKill(t *testing.T) {
	t.Parallel()
	h := host(t)
	c := conn("good", args("dir", value.String(t.TempDir())))
	begin := func(mode string) (pluginhost.Execution, action.Child) {
		x := execute(t, h, c, mode)
		_, child, err := x.Started()
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Proceed(t.Context()); err != nil {
			t.Fatal(err)
		}
		return x, child
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	x, _ := begin("slow")
	_, err := x.Wait(ctx)
	_ = asProblem(t, err, problem.InDoubt, "gave up")
	x, child := begin("stubborn")
	_, err = x.Wait(ctx)
	_ = asProblem(t, err, problem.Interrupted, "stopped")
	eventually(t, "it is killed", func() bool { return gone(child.PID) })
	x, child = begin("stubborn")
	x.Kill()
	_, err = x.Wait(t.Context())
	_ = asProblem(t, err, problem.InDoubt, "killed")
	eventually(t, "it is killed", func() bool { return gone(child.PID) })
}

// members are the live processes of a process group.
func members(group int) (out []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		data, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		if g, _ := strconv.Atoi(fields[2]); g == group && fields[0] != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			out = append(out, pid)
		}
	}
	return out
}

// TestCommandGroup: the group of a command is known before anything happens, and all of it dies with the action.
func TestCommandGroup(t *testing.T) {
	t.Parallel()
	h := host(t)
	for name, end := range map[string]func(x pluginhost.Execution, plugin int){
		"kill":     func(x pluginhost.Execution, _ int) { x.Kill() },
		"deadline": func(pluginhost.Execution, int) {},
		"plugin killed": func(_ pluginhost.Execution, plugin int) {
			_ = syscall.Kill(plugin, syscall.SIGKILL)
		},
	} {
		x, err := h.Execute(t.Context(), conn("good", nil), request("command", 1500*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		_, child, err := x.Started()
		if err != nil {
			t.Fatal(err)
		}
		if n := members(child.Group); len(n) != 1 || n[0] != child.PID {
			t.Fatalf("%s: group %d has %v before it may act", name, child.Group, n)
		}
		parent := parentOf(t, child.PID)
		if err := x.Proceed(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the command has its child", func() bool { return len(members(child.Group)) == 2 })
		end(x, parent)
		if _, err := x.Wait(t.Context()); err == nil {
			t.Errorf("%s: a definite end", name)
		}
		eventually(t, name+": the whole group is gone", func() bool { return len(members(child.Group)) == 0 })
	}
	// Declined: nothing is left waiting.
	x := execute(t, h, conn("good", nil), "command")
	_, child, err := x.Started()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Decline(t.Context(), "halted"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the waiting process is gone", func() bool { return len(members(child.Group)) == 0 })
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestActionsDoNotShareAProcess(t *testing.T) {
	t.Parallel()
	h := host(t)
	c := conn("good", args("dir", value.String(t.TempDir())))
	x1, x2 := execute(t, h, c, "ok"), execute(t, h, c, "ok")
	_, c1, err1 := x1.Started()
	_, c2, err2 := x2.Started()
	if err1 != nil || err2 != nil || c1.PID == c2.PID {
		t.Fatal(c1, c2, err1, err2)
	}
	x1.Kill()
	if err := x2.Proceed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f, err := x2.Wait(t.Context()); err != nil || f.State != action.Succeeded {
		t.Fatal(f, err)
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	h := host(t)
	got, err := h.Plan(t.Context(), conn("good", nil), pluginhost.Plan{Function: "act", Args: args("mode", value.String("ok"))})
	want := pluginhost.PlanResult{Changes: []pluginhost.PlannedChange{{What: "file", Before: "absent", After: "present"}}}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(d, err)
	}
}

func BenchmarkExecute(b *testing.B) {
	h := host(b)
	c := conn("good", args("dir", value.String(b.TempDir())))
	for b.Loop() {
		x := execute(b, h, c, "ok")
		if _, _, err := x.Started(); err != nil {
			b.Fatal(err)
		}
		if err := x.Proceed(b.Context()); err != nil {
			b.Fatal(err)
		}
		if _, err := x.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
